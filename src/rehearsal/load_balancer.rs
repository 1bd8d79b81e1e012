//! The application load balancer as the state describes it, and as a configuration of haproxy, which plays it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use super::state::{Block, Resource, State, StateError};

/// Where a node of the load balancer finds its certificate and the key: see [`super::machine::HERE`].
pub const CERTIFICATE: &str = "certificate.pem";

/// What the fields of a redirect say when a request keeps its host, path and query.
const KEPT: [(&str, &str); 3] = [
    ("host", "#{host}"),
    ("path", "/#{path}"),
    ("query", "#{query}"),
];

/// The application load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Its own name, which AWS gives it.
    pub dns_name: String,
    /// Where browsers go, with no slash at the end: `http://` and its own name, or `https://` and the domain.
    pub url: String,
    /// Seconds after which it closes an idle connection.
    pub idle_timeout: u32,
    /// Ports it listens on.
    pub listeners: Vec<Listener>,
}

impl LoadBalancer {
    /// Whether a listener has one.
    pub fn has_certificate(&self) -> bool {
        self.listeners
            .iter()
            .any(|listener| listener.oldest_tls.is_some())
    }

    /// The host in [`LoadBalancer::url`].
    pub fn host(&self) -> &str {
        let host = self.url.split("://").nth(1).unwrap_or(&self.url);
        host.split(['/', ':']).next().unwrap_or(host)
    }

    /// The listener that leads to the API, over TLS if one does, with its target group.
    pub fn entrance(&self) -> Option<(&Listener, &TargetGroup)> {
        let entrances = self
            .listeners
            .iter()
            .filter_map(|listener| match &listener.action {
                Action::Forward(group) => Some((listener, group)),
                Action::Redirect(_) => None,
            });
        entrances.max_by_key(|(listener, _)| listener.oldest_tls.is_some())
    }
}

/// One port of the load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// TCP port.
    pub port: u16,
    /// With HTTPS: the oldest TLS it speaks, in haproxy's words. None with HTTP.
    pub oldest_tls: Option<&'static str>,
    /// What it does with a request.
    pub action: Action,
}

/// What a listener does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Passes it on.
    Forward(TargetGroup),
    /// Sends the client elsewhere on the same host, for the same path and query.
    Redirect(Redirect),
}

/// Where a listener sends clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301 or 302.
    pub status: u16,
    /// `https://` or `http://`.
    pub scheme: &'static str,
    /// TCP port.
    pub port: u16,
}

/// Where a listener forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetGroup {
    /// Instance id and port of each target.
    pub targets: Vec<(String, u16)>,
    /// Path of the health check.
    pub health_path: String,
    /// HTTP statuses that count as healthy, as AWS and haproxy both write them: `200`, `200,202` or `200-299`.
    pub matcher: String,
    /// Seconds between checks.
    pub interval: u32,
    /// Seconds until a check counts as failed.
    pub timeout: u32,
    /// Checks in a row that make a target healthy.
    pub rise: u32,
    /// Failed checks in a row that make it unhealthy.
    pub fall: u32,
}

/// Reads the load balancer with its listeners and targets.
///
/// # Errors
/// [`StateError`] naming what is missing.
pub fn read(state: &State) -> Result<LoadBalancer, StateError> {
    let lb = state.first("aws_lb")?;
    let arn = lb.text("arn")?;
    let mut listeners = Vec::new();
    for listener in state
        .of_type("aws_lb_listener")
        .filter(|l| l.optional_text("load_balancer_arn") == Some(arn))
    {
        for action in listener.blocks("default_action") {
            let action = if let Some(group_arn) = action.optional_text("target_group_arn") {
                Action::Forward(target_group(state, group_arn)?)
            } else if let Some(block) = action.blocks("redirect").first() {
                Action::Redirect(redirect(listener, block)?)
            } else {
                // A fixed answer has nothing behind it.
                continue;
            };
            listeners.push(Listener {
                port: listener.number("port")?,
                oldest_tls: oldest_tls(listener)?,
                action,
            });
        }
    }
    let balancer = LoadBalancer {
        dns_name: lb.text("dns_name")?.to_owned(),
        url: state
            .output("deployment", &["load_balancer", "url"])?
            .to_owned(),
        idle_timeout: lb.number("idle_timeout")?,
        listeners,
    };
    if balancer.entrance().is_none() {
        return Err(StateError::Missing(
            "aws_lb_listener that forwards to a target group",
        ));
    }
    Ok(balancer)
}

/// The oldest TLS of a listener's security policy; None if it speaks no TLS.
fn oldest_tls(listener: &Resource) -> Result<Option<&'static str>, StateError> {
    match listener.optional_text("protocol") {
        Some("HTTP") => return Ok(None),
        Some("HTTPS") => {}
        _ => return Err(listener.wrong("protocol", "HTTP or HTTPS")),
    }
    // A policy's name says it: https://docs.aws.amazon.com/elasticloadbalancing/latest/application/describe-ssl-policies.html
    let policy = listener.text("ssl_policy")?;
    let name = policy.trim_start_matches("ELBSecurityPolicy-");
    let family = ["TLS13-", "TLS-", "FS-"]
        .iter()
        .find_map(|family| name.strip_prefix(family))
        .unwrap_or(name);
    let known = [
        ("1-3", "TLSv1.3"),
        ("1-2", "TLSv1.2"),
        ("1-1", "TLSv1.1"),
        ("1-0", "TLSv1.0"),
        ("2015-05", "TLSv1.0"),
        ("2016-08", "TLSv1.0"),
        ("2018-06", "TLSv1.0"),
    ];
    known
        .into_iter()
        .find(|(version, _)| family.starts_with(version))
        .map(|(_, version)| Some(version))
        .ok_or_else(|| listener.wrong("ssl_policy", "a security policy that the rehearsal knows"))
}

fn redirect(listener: &Resource, block: &Block<'_>) -> Result<Redirect, StateError> {
    for (field, kept) in KEPT {
        if block.optional_text(field).is_some_and(|text| text != kept) {
            return Err(listener.wrong(
                field,
                "the request's own, and the rehearsal cannot redirect elsewhere",
            ));
        }
    }
    Ok(Redirect {
        status: match block.optional_text("status_code") {
            Some("HTTP_301") => 301,
            Some("HTTP_302") => 302,
            _ => return Err(listener.wrong("status_code", "HTTP_301 or HTTP_302")),
        },
        scheme: match block.optional_text("protocol") {
            Some("HTTPS") => "https://",
            Some("HTTP") => "http://",
            _ => return Err(listener.wrong("protocol of its redirect", "HTTP or HTTPS")),
        },
        port: block.number("port")?,
    })
}

fn target_group(state: &State, arn: &str) -> Result<TargetGroup, StateError> {
    let group = state
        .of_type("aws_lb_target_group")
        .find(|group| group.optional_text("arn") == Some(arn))
        .ok_or(StateError::Missing("aws_lb_target_group of the listener"))?;
    let mut targets = Vec::new();
    for attachment in state.of_type("aws_lb_target_group_attachment") {
        if attachment.optional_text("target_group_arn") == Some(arn) {
            let port = attachment
                .number("port")
                .or_else(|_| group.number("port"))?;
            targets.push((attachment.text("target_id")?.to_owned(), port));
        }
    }
    let checks = group.blocks("health_check");
    let check = checks
        .first()
        .ok_or(StateError::Missing("health_check of the target group"))?;
    Ok(TargetGroup {
        targets,
        health_path: check.optional_text("path").unwrap_or("/").to_owned(),
        matcher: check.optional_text("matcher").unwrap_or("200").to_owned(),
        interval: check.number("interval")?,
        timeout: check.number("timeout")?,
        rise: check.number("healthy_threshold")?,
        fall: check.number("unhealthy_threshold")?,
    })
}

/// haproxy's configuration for a node at `address`, which has [`CERTIFICATE`] in the folder `here`. `resolve` finds an
/// instance's private address.
pub fn haproxy_config(
    balancer: &LoadBalancer,
    address: Ipv4Addr,
    here: &Path,
    resolve: impl Fn(&str) -> Option<Ipv4Addr>,
) -> String {
    let mut text = format!(
        "global\n  log stdout format raw local0 notice\n  maxconn 2000\ndefaults\n  mode http\n  log global\n  \
         option forwardfor\n  timeout connect 5s\n  timeout client {idle}s\n  timeout server {idle}s\n",
        idle = balancer.idle_timeout
    );
    // Writing to a String cannot fail.
    for Listener {
        port,
        oldest_tls,
        action,
    } in &balancer.listeners
    {
        let _ = write!(text, "frontend port{port}\n  bind {address}:{port}");
        if let Some(oldest) = oldest_tls {
            let file = here.join(CERTIFICATE);
            // OpenSSL would refuse old versions by itself, and a policy that offers them would look better than it is.
            let ciphers = "ciphers DEFAULT@SECLEVEL=0";
            let _ = write!(
                text,
                " ssl crt {} ssl-min-ver {oldest} alpn h2,http/1.1 {ciphers}",
                file.display()
            );
        }
        text.push('\n');
        match action {
            Action::Redirect(Redirect {
                status,
                scheme,
                port,
            }) => {
                let _ = writeln!(
                    text,
                    "  http-request redirect code {status} prefix {scheme}%[req.hdr(host),field(1,:)]:{port}"
                );
            }
            Action::Forward(group) => {
                let _ = write!(
                    text,
                    "  default_backend targets{port}\n\
                     backend targets{port}\n  option httpchk GET {path}\n  http-check expect status {status}\n  \
                     timeout check {timeout}s\n",
                    path = group.health_path,
                    status = group.matcher,
                    timeout = group.timeout,
                );
                for (id, target_port) in &group.targets {
                    if let Some(target) = resolve(id) {
                        let _ = writeln!(
                            text,
                            "  server {id} {target}:{target_port} check inter {}s rise {} fall {}",
                            group.interval, group.rise, group.fall
                        );
                    }
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A balancer with the shipped listeners for a deployment with a certificate.
    fn with_certificate(policy: &str) -> Result<LoadBalancer, StateError> {
        let state = r##"{"version":4,"outputs":{"deployment":{"value":{"load_balancer":{"url":"https://api.example.org"}}}},
          "resources":[
          {"mode":"managed","type":"aws_lb","name":"main","instances":[{"attributes":{
            "arn":"lb","dns_name":"x.elb.amazonaws.com","idle_timeout":60}}]},
          {"mode":"managed","type":"aws_lb_target_group","name":"backend","instances":[{"attributes":{
            "arn":"tg","port":8000,"health_check":[{"path":"/ready","matcher":"200-299,404","interval":5,"timeout":4,
            "healthy_threshold":2,"unhealthy_threshold":3}]}}]},
          {"mode":"managed","type":"aws_lb_target_group_attachment","name":"backend","instances":[
            {"attributes":{"target_group_arn":"tg","target_id":"i-1","port":8000}},
            {"attributes":{"target_group_arn":"tg","target_id":"i-elsewhere","port":8000}}]},
          {"mode":"managed","type":"aws_lb_listener","name":"http","instances":[{"attributes":{
            "load_balancer_arn":"lb","port":80,"protocol":"HTTP","default_action":[{"type":"redirect","target_group_arn":"",
            "redirect":[{"host":"#{host}","path":"/#{path}","port":"443","protocol":"HTTPS","query":"#{query}",
            "status_code":"HTTP_301"}]}]}}]},
          {"mode":"managed","type":"aws_lb_listener","name":"https","instances":[{"attributes":{
            "load_balancer_arn":"lb","port":443,"protocol":"HTTPS","ssl_policy":"POLICY",
            "default_action":[{"type":"forward","target_group_arn":"tg","redirect":[]}]}}]}]}"##;
        read(&State::parse(&state.replace("POLICY", policy)).unwrap())
    }

    #[test]
    fn a_node_redirects_checks_and_forwards_as_the_state_says() {
        let balancer = with_certificate("ELBSecurityPolicy-TLS13-1-2-2021-06").unwrap();
        assert!(balancer.has_certificate());
        assert_eq!(balancer.host(), "api.example.org");
        assert_eq!(balancer.entrance().unwrap().0.port, 443);
        let config = haproxy_config(
            &balancer,
            Ipv4Addr::new(10, 0, 1, 254),
            Path::new("/here"),
            |id| (id == "i-1").then_some(Ipv4Addr::new(10, 0, 2, 4)),
        );
        let beginning = config.find("frontend").unwrap();
        assert_eq!(
            &config[beginning..],
            "frontend port80\n  bind 10.0.1.254:80\n  \
             http-request redirect code 301 prefix https://%[req.hdr(host),field(1,:)]:443\n\
             frontend port443\n  bind 10.0.1.254:443 ssl crt /here/certificate.pem ssl-min-ver TLSv1.2 \
             alpn h2,http/1.1 ciphers DEFAULT@SECLEVEL=0\n  default_backend targets443\n\
             backend targets443\n  option httpchk GET /ready\n  http-check expect status 200-299,404\n  \
             timeout check 4s\n  server i-1 10.0.2.4:8000 check inter 5s rise 2 fall 3\n"
        );
    }

    #[test]
    fn the_oldest_tls_is_the_policys() {
        for (policy, oldest) in [
            ("ELBSecurityPolicy-TLS13-1-3-2021-06", "TLSv1.3"),
            ("ELBSecurityPolicy-TLS13-1-2-Res-2021-06", "TLSv1.2"),
            ("ELBSecurityPolicy-FS-1-2-Res-2020-10", "TLSv1.2"),
            ("ELBSecurityPolicy-TLS-1-1-2017-01", "TLSv1.1"),
            ("ELBSecurityPolicy-2016-08", "TLSv1.0"),
        ] {
            let balancer = with_certificate(policy).unwrap();
            assert_eq!(balancer.listeners[1].oldest_tls, Some(oldest), "{policy}");
        }
        let error = with_certificate("ELBSecurityPolicy-Custom")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "aws_lb_listener.https: ssl_policy is not a security policy that the rehearsal knows (`terraform state show 'aws_lb_listener.https'` shows it)"
        );
    }
}
