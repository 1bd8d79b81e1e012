//! `/hello` and `/version`: is this the program I think it is?

use poem::Result;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Query, payload::Json};

use crate::version;

/// A greeting.
#[derive(Debug, Object)]
struct Greeting {
    /// `Hello, ` and the name.
    message: String,
}

#[derive(ApiResponse)]
enum Greeted {
    /// A greeting.
    #[oai(status = 200)]
    Greeted(Json<Greeting>),
}

/// What is running.
#[derive(Debug, Object)]
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

#[derive(ApiResponse)]
enum FoundVersion {
    /// What is running.
    #[oai(status = 200)]
    Found(Json<Version>),
}

pub struct AboutApi;

#[OpenApi]
impl AboutApi {
    /// Greet somebody
    #[oai(path = "/hello", method = "get", operation_id = "say_hello")]
    async fn say_hello(
        &self,
        /// Whom: 1 to 100 characters.
        #[oai(default = "world", validator(min_length = 1, max_length = 100))]
        name: Query<String>,
    ) -> Result<Greeted> {
        let message = format!("Hello, {}!", name.0);
        Ok(Greeted::Greeted(Json(Greeting { message })))
    }

    /// Which version is running?
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
