//! Who asks: the peer, or whom the proxies in front of this server have seen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use poem::{
    Addr, FromRequest, Request, RequestBody, Result,
    http::{HeaderMap, HeaderName},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The address of the client, for logs and throttles. Nothing a client writes into a header changes it. A handler takes
/// it as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

/// Whether the client speaks HTTPS with the outermost trusted proxy. A handler takes it as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsHttps(pub bool);

impl ClientAddress {
    /// `trusted_proxies` is how many proxies stand between client and server (`http.trusted_proxies`); each has added
    /// one address to the right of `X-Forwarded-For`, and what is further left is what the client claims.
    pub fn of(request: &Request, trusted_proxies: usize) -> Self {
        let peer = match &request.remote_addr().0 {
            Addr::SocketAddr(peer) => peer.ip(),
            // No such connection comes through the one listener.
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        Self::behind(request.headers(), peer, trusted_proxies)
    }

    fn behind(headers: &HeaderMap, peer: IpAddr, trusted_proxies: usize) -> Self {
        let forwarded = from_the_right(headers, &FORWARDED_FOR, trusted_proxies);
        Self(forwarded.and_then(address).unwrap_or(peer).to_canonical())
    }
}

impl IsHttps {
    /// As [`ClientAddress::of`]; a proxy either adds to `X-Forwarded-Proto` or replaces it.
    pub fn of(request: &Request, trusted_proxies: usize) -> Self {
        Self::behind(request.headers(), trusted_proxies)
    }

    fn behind(headers: &HeaderMap, trusted_proxies: usize) -> Self {
        let is_one = values(headers, &FORWARDED_PROTO).count() == 1;
        let index = if is_one {
            trusted_proxies.min(1)
        } else {
            trusted_proxies
        };
        Self(from_the_right(headers, &FORWARDED_PROTO, index) == Some("https"))
    }
}

/// The `index`-th value from the right, counted from 1, of all the lists under `name`.
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName, index: usize) -> Option<&'a str> {
    let count = values(headers, name).count();
    values(headers, name).nth(count.checked_sub(index)?)
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lists = headers.get_all(name).iter();
    // What is no text counts as a value that is none.
    let lists = lists.map(|list| list.to_str().unwrap_or_default());
    lists.flat_map(|list| list.split(',').map(str::trim))
}

/// An address, alone or with the port that a load balancer can be told to add.
fn address(text: &str) -> Option<IpAddr> {
    let alone = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    alone.unwrap_or(text).parse().ok().or_else(|| {
        let with_port: SocketAddr = text.parse().ok()?;
        Some(with_port.ip())
    })
}

impl<'a> FromRequest<'a> for ClientAddress {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let found = request.extensions().get::<Self>().copied();
        Ok(found.unwrap_or_else(|| Self::of(request, 0)))
    }
}

impl<'a> FromRequest<'a> for IsHttps {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        Ok(request
            .extensions()
            .get::<Self>()
            .copied()
            .unwrap_or(Self(false)))
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    fn asked(name: &'static str, given: &[&'static str]) -> HeaderMap {
        let name = HeaderName::from_static(name);
        let values = given.iter().map(|value| HeaderValue::from_static(value));
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn only_what_trusted_proxies_added_counts() {
        let peer: IpAddr = "192.0.2.9".parse().unwrap();
        for (values, trusted, expected) in [
            (&[][..], 1, "192.0.2.9"),
            (&["203.0.113.1"], 0, "192.0.2.9"),
            (&["203.0.113.1"], 1, "203.0.113.1"),
            (&["6.6.6.6, 203.0.113.1"], 1, "203.0.113.1"),
            (&["6.6.6.6", "203.0.113.1"], 1, "203.0.113.1"),
            (&["6.6.6.6, 203.0.113.1", "10.0.0.1"], 2, "203.0.113.1"),
            (&["203.0.113.1"], 2, "192.0.2.9"),
            (&["203.0.113.1, unknown"], 1, "192.0.2.9"),
            (&["203.0.113.1,"], 1, "192.0.2.9"),
            (&["203.0.113.1:4711"], 1, "203.0.113.1"),
            (&["2001:db8::1"], 1, "2001:db8::1"),
            (&["[2001:db8::1]:443"], 1, "2001:db8::1"),
            (&["::ffff:203.0.113.1"], 1, "203.0.113.1"),
        ] {
            let found = ClientAddress::behind(&asked("x-forwarded-for", values), peer, trusted);
            assert_eq!(found.0.to_string(), expected, "{values:?} {trusted}");
        }
    }

    #[test]
    fn https_is_what_a_trusted_proxy_says() {
        for (values, trusted, expected) in [
            (&[][..], 1, false),
            (&["https"], 0, false),
            (&["https"], 1, true),
            (&["https"], 2, true),
            (&["https, http"], 1, false),
            (&["http, https"], 1, true),
        ] {
            let found = IsHttps::behind(&asked("x-forwarded-proto", values), trusted);
            assert_eq!(found.0, expected, "{values:?} {trusted}");
        }
    }
}
