//! Where the API is asked whether it is ready: through the load balancer, as everybody else reaches it.

use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::error_chain::chain;
use crate::terraform::LoadBalancer;
use crate::trust;

/// `/ready` asks the database and answers within a second or not at all.
const LIMIT: Duration = Duration::from_secs(5);

/// The address that says whether the API is ready, and where it answers.
#[derive(Clone, Debug)]
pub struct Door {
    address: String,
    agent: ureq::Agent,
}

impl Door {
    /// The load balancer's health check address; at `base` (no slash at its end) instead, if given.
    #[must_use]
    pub fn of(load_balancer: &LoadBalancer, base: Option<&str>) -> Self {
        let path = load_balancer.ready_url.strip_prefix(&load_balancer.url);
        let address = match base {
            Some(base) => format!("{base}{}", path.unwrap_or("/ready")),
            None => load_balancer.ready_url.clone(),
        };
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .http_status_as_error(false)
            .tls_config(trust::tls())
            .build();
        // The domain's DNS is the user's affair and may not lead here yet; name and certificate are still the domain's.
        let resolver = Direct {
            domain: host(&load_balancer.url).filter(|_| base.is_none()),
            dns_name: load_balancer.dns_name.clone(),
            usual: DefaultResolver::default(),
        };
        Self {
            address,
            agent: ureq::Agent::with_parts(config, DefaultConnector::default(), resolver),
        }
    }

    /// Asks once: `Ok` when it answers 200, else what was seen instead.
    ///
    /// # Errors
    /// What was seen instead.
    pub async fn ask(&self) -> Result<String, String> {
        let Self { address, agent } = self.clone();
        let get = tokio::task::spawn_blocking(move || match agent.get(&address).call() {
            Ok(answer) if answer.status() == 200 => Ok(format!("{address} answers 200")),
            Ok(answer) => Err(format!("{address} answers {}", answer.status().as_u16())),
            Err(error) => Err(format!("{address} does not answer: {}", chain(&error))),
        });
        get.await.map_err(|error| error.to_string())?
    }
}

fn host(url: &str) -> Option<String> {
    Some(url.parse::<Uri>().ok()?.host()?.to_owned())
}

/// Finds the load balancer under its own name when asked for the domain's.
#[derive(Debug)]
struct Direct {
    domain: Option<String>,
    dns_name: String,
    usual: DefaultResolver,
}

impl Resolver for Direct {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        if uri.host().is_none() || uri.host() != self.domain.as_deref() {
            return self.usual.resolve(uri, config, timeout);
        }
        let port = uri
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or("https");
        let direct = format!("{scheme}://{}{port}/", self.dns_name);
        let direct: Uri = direct
            .parse()
            .map_err(|error: ureq::http::uri::InvalidUri| ureq::Error::Http(error.into()))?;
        self.usual.resolve(&direct, config, timeout)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request and returns its head.
    fn answer_one(listener: TcpListener, status: &str) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = String::new();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        while lines.read_line(&mut head).unwrap() > 2 {}
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").unwrap();
        head.to_lowercase()
    }

    #[tokio::test]
    async fn a_domain_is_asked_for_at_the_load_balancer_whatever_dns_says() {
        for status in ["200 OK", "503 Busy"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let url = format!("http://api.invalid:{port}");
            let load_balancer = LoadBalancer {
                dns_name: "localhost".into(),
                ready_url: format!("{url}/health"),
                url,
            };
            let head = std::thread::spawn(move || answer_one(listener, status));
            let seen = Door::of(&load_balancer, None).ask().await;
            assert_eq!(seen.is_ok(), status == "200 OK", "{seen:?}");
            let end = format!("/health answers {}", &status[..3]);
            let seen = seen.unwrap_or_else(|seen| seen);
            // Before the join: whoever was not asked would wait for ever.
            assert!(seen.ends_with(&end), "{seen}");
            let head = head.join().unwrap();
            assert!(head.starts_with("get /health "), "{head}");
            assert!(
                head.contains(&format!("host: api.invalid:{port}")),
                "{head}"
            );
        }
    }

    #[tokio::test]
    async fn another_base_is_asked_for_the_same_path() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let load_balancer = LoadBalancer {
            dns_name: "lb.invalid".into(),
            url: "http://lb.invalid".into(),
            ready_url: "http://lb.invalid/health".into(),
        };
        let head = std::thread::spawn(move || answer_one(listener, "200 OK"));
        Door::of(&load_balancer, Some(&base)).ask().await.unwrap();
        assert!(head.join().unwrap().starts_with("get /health "));
    }
}
