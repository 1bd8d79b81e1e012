//! Who looks at the page, and whether a form came from it.
//!
//! The cookie is good for the page's own forms alone: the JSON API does not look at it, so that no other site can make
//! a browser call the API in its user's name.

use poem::{
    Request,
    http::{HeaderValue, Uri, header},
};
use time::OffsetDateTime;

use crate::{
    auth::{Accounts, Login, TokenHash},
    db::{Database, DbError, profiles, sessions::Caller},
};

const COOKIE: &str = "drawbridge_session";

/// Whoever looks at the page.
pub enum Visitor {
    /// Nobody has to sign in here.
    Anonymous,
    /// Somebody who has to sign in to write.
    SignedOut,
    /// Somebody who has.
    SignedIn(SignedIn),
}

/// Somebody who has signed in.
pub struct SignedIn {
    /// Whose session it is.
    pub caller: Caller,
    /// What somebody is called.
    pub name: String,
}

/// Finds out who it is.
pub async fn visitor(
    request: &Request,
    accounts: &Accounts,
    database: &Database,
) -> Result<Visitor, DbError> {
    if accounts.anonymous_writes() {
        return Ok(Visitor::Anonymous);
    }
    let Some(token) = token(request) else {
        return Ok(Visitor::SignedOut);
    };
    let Some(caller) = accounts.caller(database, token).await? else {
        return Ok(Visitor::SignedOut);
    };
    let mut connection = database.connection().await?;
    let profile = profiles::find_profile(&mut connection, caller.profile_id).await?;
    Ok(profile.map_or(Visitor::SignedOut, |profile| {
        let name = profile.name;
        Visitor::SignedIn(SignedIn { caller, name })
    }))
}

fn token(request: &Request) -> Option<TokenHash> {
    let cookies = request.headers().get_all(header::COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then(|| TokenHash::of(value))?
    })
}

/// The cookie of a session that has just begun.
pub fn cookie(login: &Login, is_https: bool) -> HeaderValue {
    let lives = login.expires_at - OffsetDateTime::now_utc();
    set_cookie(login.token.expose(), lives.whole_seconds().max(0), is_https)
}

/// What takes the cookie away.
pub fn no_cookie(is_https: bool) -> HeaderValue {
    set_cookie("", 0, is_https)
}

fn set_cookie(value: &str, seconds: i64, is_https: bool) -> HeaderValue {
    // Without HTTPS a browser would not keep it: `Secure` is for whoever has it.
    let secure = if is_https { "; Secure" } else { "" };
    let text =
        format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    // A token is ASCII.
    let mut value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Whether a browser says that a form was sent from this very site. `Sec-Fetch-Site` is not sent over plain HTTP, and
/// `Origin` not by everything; a request with neither comes from no form of ours.
pub fn is_from_here(request: &Request) -> bool {
    let fetch_site = request.headers().get("sec-fetch-site");
    let origin = request.headers().get(header::ORIGIN);
    if fetch_site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    match origin {
        Some(origin) => origin
            .to_str()
            .ok()
            .is_some_and(|origin| is_own(origin, request)),
        None => fetch_site.is_some(),
    }
}

/// An origin's scheme is not compared: in front of this server TLS may have ended.
fn is_own(origin: &str, request: &Request) -> bool {
    let origin: Option<Uri> = origin.parse().ok();
    // Without a scheme it is a host and a port, which no browser sends.
    let origin = origin.filter(|origin| origin.scheme().is_some());
    let authority = origin.as_ref().and_then(Uri::authority);
    let host = request.header(header::HOST);
    authority.is_some_and(|authority| host == Some(authority.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_says_comes_from_here_does() {
        for (site, origin, expected) in [
            (Some("same-origin"), Some("http://here:8000"), true),
            (Some("same-origin"), Some("https://here:8000"), true),
            (Some("same-origin"), None, true),
            (None, Some("http://here:8000"), true),
            (None, None, false),
            (Some("same-site"), Some("http://here:8000"), false),
            (Some("cross-site"), None, false),
            (Some("none"), None, false),
            (Some("same-origin"), Some("http://elsewhere"), false),
            (None, Some("http://here"), false),
            (None, Some("http://here:8000.elsewhere"), false),
            (None, Some("null"), false),
            (None, Some("here:8000"), false),
        ] {
            let mut request = Request::builder().header("host", "here:8000");
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            assert_eq!(
                is_from_here(&request.finish()),
                expected,
                "{site:?} {origin:?}"
            );
        }
    }

    #[test]
    fn a_cookie_is_out_of_the_reach_of_scripts_and_other_sites() {
        let plain = set_cookie("db_x", 60, false);
        let expected = "drawbridge_session=db_x; Path=/; Max-Age=60; HttpOnly; SameSite=Strict";
        assert_eq!(plain, expected);
        assert_eq!(set_cookie("db_x", 60, true), format!("{expected}; Secure"));
        assert!(!format!("{plain:?}").contains("db_x"));
    }
}
