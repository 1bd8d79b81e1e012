//! Who is asking: what handlers take as an argument when they have to know.

use poem::{
    IntoResponse, Request, RequestBody, Result,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};
use uuid::Uuid;

use super::problem::Problem;
use crate::{
    auth::{Accounts, Role, TokenHash},
    db::Database,
};

/// The name of the security scheme in the document.
const SCHEME: &str = "bearer";

/// What the document's rules take for [`SCHEME`] with 403: OpenAPI has no roles.
pub const ADMIN_SCHEME: &str = "admin";

/// What a 401 answers in `WWW-Authenticate`.
pub const CHALLENGE: &str = "Bearer";

/// A caller who has signed in; anybody else is answered 401.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// The caller's profile.
    pub profile_id: Uuid,
    /// What the profile is at this moment.
    pub role: Role,
    /// The session itself.
    pub session_id: Uuid,
    /// Of its token.
    pub token_hash: TokenHash,
}

/// A caller who may write: one who has signed in or, with `auth.anonymous_writes`, anybody.
#[derive(Debug, Clone, Copy)]
pub struct Writer(pub Option<Session>);

impl Writer {
    /// The caller's profile; `None`: anonymous.
    pub fn profile_id(self) -> Option<Uuid> {
        self.0.map(|session| session.profile_id)
    }
}

/// A caller who has signed in as an admin; another session is answered 403.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub Session);

/// The hash of the request's token, if it has what may be one. Nobody is asked whether it is good.
pub fn token_hash(request: &Request) -> Option<TokenHash> {
    let (scheme, token) = request.header(header::AUTHORIZATION)?.split_once(' ')?;
    // RFC 9110, section 11.1: schemes are case-insensitive.
    scheme
        .eq_ignore_ascii_case(CHALLENGE)
        .then(|| TokenHash::of(token.trim_matches(' ')))?
}

async fn find(request: &Request) -> Result<Session> {
    let token_hash = token_hash(request).ok_or_else(|| unauthorized(request))?;
    let (accounts, database) = state(request)?;
    let caller = accounts.caller(database, token_hash).await?;
    let caller = caller.ok_or_else(|| unauthorized(request))?;
    Ok(Session {
        profile_id: caller.profile_id,
        role: caller.role,
        session_id: caller.session_id,
        token_hash,
    })
}

fn state(request: &Request) -> Result<(&Accounts, &Database)> {
    let state = request.data::<Accounts>().zip(request.data::<Database>());
    // Only an app put together without them lacks them.
    state.ok_or_else(|| poem::Error::from_status(StatusCode::INTERNAL_SERVER_ERROR))
}

fn unauthorized(request: &Request) -> poem::Error {
    let detail = if request.header(header::AUTHORIZATION).is_none() {
        "This needs a session: POST /auth/login, and send its token as Authorization: Bearer <token>."
    } else {
        "The token in the Authorization header is not, or no longer, a session's; POST /auth/login makes a new one."
    };
    refusal(StatusCode::UNAUTHORIZED, detail)
}

fn refusal(status: StatusCode, detail: &str) -> poem::Error {
    let mut response = Problem::new(status, detail).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static(CHALLENGE);
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    poem::Error::from_response(response)
}

fn register_scheme(registry: &mut Registry) {
    registry.create_security_scheme(
        SCHEME,
        MetaSecurityScheme {
            ty: "http",
            description: Some("The token that `POST /auth/login` answers with."),
            name: None,
            key_in: None,
            scheme: Some(SCHEME),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        },
    );
}

/// Each takes the same place in the document and finds its caller in its own way.
macro_rules! extract {
    ($caller:ty, $scheme:expr, $request:ident => $find:expr) => {
        impl<'a> ApiExtractor<'a> for $caller {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];
            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut Registry) {
                register_scheme(registry);
            }

            fn security_schemes() -> Vec<&'static str> {
                vec![$scheme]
            }

            async fn from_request(
                $request: &'a Request,
                _: &mut RequestBody,
                _: ExtractParamOptions<()>,
            ) -> Result<Self> {
                $find
            }
        }
    };
}

extract!(Session, SCHEME, request => find(request).await);

extract!(Writer, SCHEME, request => {
    // A token that is sent has to be good, or its owner would write anonymously without knowing.
    let is_anonymous = request.header(header::AUTHORIZATION).is_none();
    if is_anonymous && state(request)?.0.anonymous_writes() {
        return Ok(Self(None));
    }
    find(request).await.map(|session| Self(Some(session)))
});

extract!(Admin, ADMIN_SCHEME, request => {
    let session = find(request).await?;
    if session.role != Role::Admin {
        return Err(refusal(StatusCode::FORBIDDEN, "Only an admin may do this."));
    }
    Ok(Self(session))
});
