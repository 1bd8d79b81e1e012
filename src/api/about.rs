//! `/hello` and `/version`: is this the program I think it is?

use poem_openapi::{ApiResponse, Object, OpenApi, param::Query, payload::Json, types::Example};

use super::tags::Tag;
use crate::version;

/// A greeting.
#[derive(Debug, Object)]
#[oai(example)]
struct Greeting {
    /// `Hello, ` and the name.
    message: String,
}

impl Greeting {
    fn to(name: &str) -> Self {
        Self {
            message: format!("Hello, {name}!"),
        }
    }
}

impl Example for Greeting {
    fn example() -> Self {
        Self::to(&world())
    }
}

#[derive(ApiResponse)]
enum Greeted {
    /// A greeting.
    #[oai(status = 200)]
    Greeted(Json<Greeting>),
}

/// What is running.
#[derive(Debug, Object)]
#[oai(example)]
struct Version {
    /// The program.
    name: String,
    /// Its version.
    version: String,
    /// The git commit it was built from, with `-dirty` at its end where the tree had changes; null: whoever built it did
    /// not say.
    commit: Option<String>,
    /// What built it, and with which profile.
    build: String,
}

impl Example for Version {
    fn example() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: version::VERSION.to_owned(),
            commit: Some("4b825dc642cb6eb9a060e54bf8d69288fbee4904".to_owned()),
            build: "nix/release".to_owned(),
        }
    }
}

#[derive(ApiResponse)]
enum FoundVersion {
    /// What is running.
    #[oai(status = 200)]
    Found(Json<Version>),
}

pub struct AboutApi;

#[OpenApi(tag = "Tag::Service")]
impl AboutApi {
    /// Greet somebody
    ///
    /// Shows that requests get through, with a text of your own to find again.
    #[oai(path = "/hello", method = "get", operation_id = "say_hello")]
    async fn say_hello(
        &self,
        /// Whom: 1 to 100 characters.
        #[oai(default = "world", validator(min_length = 1, max_length = 100))]
        name: Query<String>,
    ) -> Greeted {
        Greeted::Greeted(Json(Greeting::to(&name.0)))
    }

    /// Which version is running?
    ///
    /// The same that `drawbridge-host --version` says.
    #[oai(path = "/version", method = "get", operation_id = "find_version")]
    async fn find_version(&self) -> FoundVersion {
        FoundVersion::Found(Json(Version {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: version::VERSION.to_owned(),
            commit: version::commit().map(ToOwned::to_owned),
            build: version::build().to_owned(),
        }))
    }
}

fn world() -> String {
    "world".to_owned()
}
