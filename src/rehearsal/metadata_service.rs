//! The instance metadata service (IMDS) of every instance, answered in the router at 169.254.169.254. The caller is
//! known by its source address, as each instance has its own link.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use poem::http::StatusCode;
use poem::listener::TcpAcceptor;
use poem::web::{Data, Path, RemoteAddr};
use poem::{EndpointExt as _, IntoResponse, Request, Response, Route, Server, get, handler, put};
use serde_json::json;

use super::namespaces;
use super::network::{METADATA, ROUTER};
use super::topology::{Instance, Topology};

/// Header with the session token (IMDSv2).
const TOKEN: &str = "x-aws-ec2-metadata-token";
/// Header with the wanted life of a token, 1 to 21600 seconds.
const TOKEN_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// What the service knows, by private address.
#[derive(Clone)]
struct Directory {
    region: String,
    instances: Arc<HashMap<Ipv4Addr, Instance>>,
    tokens: Arc<Mutex<HashMap<String, (Ipv4Addr, Instant)>>>,
}

/// Starts the service for all instances of `topology`. It ends with the process.
///
/// # Errors
/// If its address cannot be bound.
pub fn start(topology: &Topology) -> Result<()> {
    let listener = namespaces::inside(ROUTER, || TcpListener::bind((METADATA, 80)))?
        .context("cannot bind the metadata service's address")?;
    listener
        .set_nonblocking(true)
        .context("cannot set up the metadata service")?;
    let acceptor = TcpAcceptor::from_std(listener).context("cannot set up the metadata service")?;
    let directory = Directory {
        region: topology.region.clone(),
        instances: Arc::new(
            topology
                .instances()
                .map(|(host, i)| (host.address, i.clone()))
                .collect(),
        ),
        tokens: Arc::default(),
    };
    let app = Route::new()
        .at("/latest/api/token", put(issue_token))
        .at("/latest/user-data", get(user_data))
        .at("/latest/meta-data/*path", get(meta_data))
        .data(directory);
    tokio::spawn(async move {
        if let Err(error) = Server::new_with_acceptor(acceptor).run(app).await {
            eprintln!("the metadata service ended: {error}");
        }
    });
    Ok(())
}

impl Directory {
    /// The calling instance, if it may ask.
    fn caller(
        &self,
        request: &Request,
        remote: &RemoteAddr,
    ) -> Result<(Ipv4Addr, &Instance), StatusCode> {
        let address = address(remote).ok_or(StatusCode::NOT_FOUND)?;
        let instance = self.instances.get(&address).ok_or(StatusCode::NOT_FOUND)?;
        if instance.tokens_required {
            let token = request.header(TOKEN).ok_or(StatusCode::UNAUTHORIZED)?;
            let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            match tokens.get(token) {
                Some((owner, until)) if *owner == address && Instant::now() < *until => {}
                _ => return Err(StatusCode::UNAUTHORIZED),
            }
        }
        Ok((address, instance))
    }
}

fn address(remote: &RemoteAddr) -> Option<Ipv4Addr> {
    match remote.as_socket_addr()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

#[handler]
fn issue_token(request: &Request, remote: &RemoteAddr, directory: Data<&Directory>) -> Response {
    let ttl = request
        .header(TOKEN_TTL)
        .and_then(|ttl| ttl.parse().ok())
        .filter(|ttl| (1..=21_600).contains(ttl));
    let (Some(ttl), Some(address)) = (ttl, address(remote)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut tokens = directory
        .tokens
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    // Unguessable tokens protect real instances; here they only have to be distinct.
    let token = format!("rehearsal-{address}-{}", tokens.len());
    tokens.insert(
        token.clone(),
        (address, Instant::now() + Duration::from_secs(ttl)),
    );
    token
        .with_header(TOKEN_TTL, ttl.to_string())
        .into_response()
}

#[handler]
fn user_data(request: &Request, remote: &RemoteAddr, directory: Data<&Directory>) -> Response {
    match directory.caller(request, remote) {
        Ok((_, instance)) => instance.user_data.clone().into_response(),
        Err(status) => status.into_response(),
    }
}

#[handler]
fn meta_data(
    Path(path): Path<String>,
    request: &Request,
    remote: &RemoteAddr,
    directory: Data<&Directory>,
) -> Response {
    let (address, instance) = match directory.caller(request, remote) {
        Ok(caller) => caller,
        Err(status) => return status.into_response(),
    };
    let profile = instance.profile.as_deref();
    match path.as_str() {
        "instance-id" => instance.id.clone().into_response(),
        "ami-id" => instance.image_id.clone().into_response(),
        "local-ipv4" => address.to_string().into_response(),
        "placement/region" => directory.region.clone().into_response(),
        "iam/security-credentials/" => match profile {
            Some(profile) => profile.to_owned().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        other => match other.strip_prefix("iam/security-credentials/") {
            Some(name) if Some(name) == profile => credentials().into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

/// The emulator accepts any credentials; these have the shape of an instance role's.
fn credentials() -> String {
    json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": "2026-01-01T00:00:00Z",
        "AccessKeyId": "ASIAREHEARSAL0000000",
        "SecretAccessKey": "rehearsal",
        "Token": "rehearsal",
        // Further ahead than any rehearsal lasts.
        "Expiration": "2099-01-01T00:00:00Z",
    })
    .to_string()
}
