//! Which paths there are and what may be done with them, taken from the published document.

use std::sync::Arc;

use poem::http::Method;
use serde_json::Value;

use super::{fields::Operation, schema::Schemas};

/// The `Allow` header of what is only read.
pub const READ: &str = "GET, HEAD";

/// All routes. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Routes(Arc<Published>);

#[derive(Debug)]
struct Published {
    routes: Vec<KnownRoute>,
    document: Value,
}

/// One path pattern.
#[derive(Debug)]
pub struct KnownRoute {
    /// As in the document: `/items/{id}`.
    pub pattern: Arc<str>,
    /// The value of an `Allow` header: `GET, HEAD, POST`.
    pub allow: String,
}

impl Routes {
    /// The paths of an OpenAPI document, and `pages` that it does not list, each with the value of its `Allow` header.
    pub fn of(document: &Value, pages: &[(&str, &str)]) -> Self {
        let documented =
            document["paths"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(pattern, operations)| {
                    let mut allow: Vec<String> = operations
                        .as_object()
                        .into_iter()
                        .flat_map(|operations| operations.keys())
                        .map(|method| method.to_uppercase())
                        .collect();
                    // A HEAD is answered by running the GET.
                    if allow.iter().any(|method| method == "GET") {
                        allow.push("HEAD".to_owned());
                    }
                    allow.sort();
                    KnownRoute {
                        pattern: pattern.as_str().into(),
                        allow: allow.join(", "),
                    }
                });
        let pages = pages.iter().map(|(pattern, allow)| KnownRoute {
            pattern: (*pattern).into(),
            allow: (*allow).to_owned(),
        });
        Self(Arc::new(Published {
            routes: pages.chain(documented).collect(),
            document: document.clone(),
        }))
    }

    /// The route that `path` belongs to.
    pub fn find(&self, path: &str) -> Option<&KnownRoute> {
        let mut routes = self.0.routes.iter();
        routes.find(|route| matches(&route.pattern, path))
    }

    /// What is published of `method` on this route, if anything is.
    pub fn operation<'a>(
        &'a self,
        route: &'a KnownRoute,
        method: &Method,
    ) -> Option<Operation<'a>> {
        let document = &self.0.document;
        let method = match *method {
            Method::HEAD => "get".to_owned(),
            _ => method.as_str().to_lowercase(),
        };
        Some(Operation {
            pattern: &route.pattern,
            object: document["paths"].get(&*route.pattern)?.get(method)?,
            schemas: Schemas(&document["components"]["schemas"]),
        })
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == found => {}
            (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_pattern_and_the_methods_it_has() {
        let document = serde_json::json!({"paths": {
            "/items": {"get": {}, "post": {}},
            "/items/{id}": {"get": {}},
        }});
        let routes = Routes::of(&document, &[("/", READ)]);
        let found = |path| {
            routes
                .find(path)
                .map(|route| (&*route.pattern, route.allow.as_str()))
        };
        assert_eq!(found("/items"), Some(("/items", "GET, HEAD, POST")));
        assert_eq!(found("/items/7"), Some(("/items/{id}", "GET, HEAD")));
        assert_eq!(found("/"), Some(("/", "GET, HEAD")));
        for unknown in ["/items/", "/items/7/", "/items/7/parts", "/other", ""] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
    }
}
