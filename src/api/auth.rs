//! `/auth`: profiles, and the sessions by which a request says whose it is.

use std::time::Duration;

use poem::{
    Request, Result,
    http::{StatusCode, header},
    web::Data,
};
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json, types::Example};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{
    client_address::ClientAddress,
    document::EXAMPLE_ID,
    problem::{Failure, Problem},
    session::{Admin, CHALLENGE, Session},
    tags::Tag,
    text::{SecretText, Text},
};
use crate::{
    appliance::Secret,
    auth::{Accounts, AuthError, Email, Registration, Role},
    db::{Database, DbError, profiles, sessions},
    error_chain::chain,
};

/// Somebody who can sign in.
#[derive(Debug, Object)]
#[oai(example)]
struct Profile {
    /// Assigned by the server.
    id: Uuid,
    /// What somebody is called.
    name: String,
    /// As it was entered, without the spaces around it.
    email: String,
    /// What somebody is to the service.
    role: Role,
    /// When it was registered, UTC.
    created_at: OffsetDateTime,
}

impl From<profiles::Profile> for Profile {
    fn from(stored: profiles::Profile) -> Self {
        Self {
            id: stored.id,
            name: stored.name,
            email: stored.email,
            role: stored.role,
            created_at: stored.created_at,
        }
    }
}

/// A profile to be.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, example)]
struct Register {
    /// What somebody is called: 1 to 200 characters.
    #[oai(validator(min_length = 1, max_length = 200, pattern = "^[^\\u0000]*$"))]
    name: Text,
    /// An e-mail address in ASCII; two that differ only in case are the same.
    #[oai(validator(
        max_length = 254,
        pattern = "^ *[!#-'*+/-9=?A-Z^-~-]+(\\.[!#-'*+/-9=?A-Z^-~-]+)*@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)* *$"
    ))]
    email: Text,
    /// Any 12 to 128 characters: length is what makes it hard to guess.
    #[oai(validator(min_length = 12, max_length = 128, pattern = "^[^\\u0000]*$"))]
    password: SecretText,
}

/// What a profile signs in with.
#[derive(Debug, Object)]
#[oai(deny_unknown_fields, example)]
struct Credentials {
    /// The profile's e-mail address.
    #[oai(validator(
        max_length = 254,
        pattern = "^ *[!#-'*+/-9=?A-Z^-~-]+(\\.[!#-'*+/-9=?A-Z^-~-]+)*@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)* *$"
    ))]
    email: Text,
    /// Its password.
    #[oai(validator(min_length = 1, max_length = 128, pattern = "^[^\\u0000]*$"))]
    password: SecretText,
}

/// A session that has just begun.
#[derive(Debug, Object)]
#[oai(example)]
struct LoggedIn {
    /// The profile's id.
    id: Uuid,
    /// What somebody is called.
    name: String,
    /// The profile's e-mail address.
    email: String,
    /// What somebody is to the service.
    role: Role,
    /// Send it as `Authorization: Bearer <token>`. It is shown this once.
    token: SecretText,
    /// When the token ends however much it is used, UTC.
    expires_at: OffsetDateTime,
}

/// The token that takes the former one's place.
#[derive(Debug, Object)]
#[oai(example)]
struct NewToken {
    /// Send it as `Authorization: Bearer <token>`. It is shown this once; the former one is not good any more.
    token: SecretText,
    /// When the token ends however much it is used, UTC.
    expires_at: OffsetDateTime,
}

/// One of the caller's sessions.
#[derive(Debug, Object)]
#[oai(rename = "Session", example)]
struct OwnSession {
    /// Assigned when it began; a refresh keeps it.
    id: Uuid,
    /// When its owner signed in, UTC.
    created_at: OffsetDateTime,
    /// When it was last used, UTC, to the minute.
    last_used_at: OffsetDateTime,
    /// When it ends however much it is used, UTC.
    expires_at: OffsetDateTime,
    /// What the client called itself, its first 200 characters; null: nothing.
    user_agent: Option<String>,
    /// Whether it is the session of this request.
    current: bool,
}

#[derive(ApiResponse)]
enum Registered {
    /// The profile is stored; it can sign in.
    #[oai(status = 201)]
    Stored(Json<Profile>),
    /// Another profile has the e-mail address.
    #[oai(status = 409, content_type = "application/problem+json")]
    Taken(Json<Problem>),
    /// Too many registrations from one address.
    #[oai(status = 429, content_type = "application/problem+json")]
    Throttled(
        Json<Problem>,
        /// Seconds to wait before the next try.
        #[oai(header = "Retry-After")]
        u64,
    ),
}

#[derive(ApiResponse)]
enum TriedLogin {
    /// A session has begun.
    #[oai(status = 200)]
    Begun(Json<LoggedIn>),
    /// The e-mail address or the password is wrong; it is not said which.
    #[oai(status = 401, content_type = "application/problem+json")]
    Wrong(
        Json<Problem>,
        /// How to prove who is asking.
        #[oai(header = "WWW-Authenticate")]
        String,
    ),
    /// Too many failed attempts for one account or from one address.
    #[oai(status = 429, content_type = "application/problem+json")]
    Throttled(
        Json<Problem>,
        /// Seconds to wait before the next try.
        #[oai(header = "Retry-After")]
        u64,
    ),
}

#[derive(ApiResponse)]
enum Refreshed {
    /// The new token.
    #[oai(status = 200)]
    Exchanged(Json<NewToken>),
    /// The token is not, or no longer, a session's.
    #[oai(status = 401, content_type = "application/problem+json")]
    Ended(
        Json<Problem>,
        /// How to prove who is asking.
        #[oai(header = "WWW-Authenticate")]
        String,
    ),
}

#[derive(ApiResponse)]
enum FoundMe {
    /// The caller's profile.
    #[oai(status = 200)]
    Found(Json<Profile>),
    /// The profile is gone, and its sessions with it.
    #[oai(status = 404, content_type = "application/problem+json")]
    Missing(Json<Problem>),
}

#[derive(ApiResponse)]
enum ListedSessions {
    /// The caller's sessions, the last used first, 100 at most.
    #[oai(status = 200)]
    Listed(Json<Vec<OwnSession>>),
}

#[derive(ApiResponse)]
enum LoggedOut {
    /// The session has ended.
    #[oai(status = 204)]
    Ended,
}

#[derive(ApiResponse)]
enum RevokedSession {
    /// The session has ended.
    #[oai(status = 204)]
    Ended,
    /// The caller has no session with this id.
    #[oai(status = 404, content_type = "application/problem+json")]
    Missing(Json<Problem>),
}

#[derive(ApiResponse)]
enum RevokedSessions {
    /// All sessions of the profile have ended.
    #[oai(status = 204)]
    Ended,
    /// No profile has this id.
    #[oai(status = 404, content_type = "application/problem+json")]
    Missing(Json<Problem>),
}

pub struct AuthApi;

#[OpenApi(prefix_path = "/auth", tag = "Tag::Accounts")]
impl AuthApi {
    /// Register a profile
    ///
    /// Everybody begins as a student.
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(
        &self,
        accounts: Data<&Accounts>,
        database: Data<&Database>,
        client: ClientAddress,
        body: Json<Register>,
    ) -> Result<Registered> {
        let Register {
            name,
            email,
            password,
        } = body.0;
        let who = Registration {
            name: &name.0,
            email: &parse_email(&email)?,
            password: &password.into_secret(),
        };
        Ok(match accounts.register(&database, who, client.0).await {
            Ok(profile) => Registered::Stored(Json(profile.into())),
            Err(error @ AuthError::EmailTaken) => {
                Registered::Taken(problem(StatusCode::CONFLICT, &error))
            }
            Err(AuthError::Throttled(wait)) => {
                let (problem, seconds) = throttled(wait);
                Registered::Throttled(problem, seconds)
            }
            Err(error) => return Err(failure(error)),
        })
    }

    /// Begin a session
    ///
    /// The token in the answer names it from then on. Failed attempts cost time: after some, the next one has to wait.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        accounts: Data<&Accounts>,
        database: Data<&Database>,
        client: ClientAddress,
        request: &Request,
        body: Json<Credentials>,
    ) -> Result<TriedLogin> {
        let Credentials { email, password } = body.0;
        let (email, password) = (parse_email(&email)?, password.into_secret());
        let user_agent = request.header(header::USER_AGENT);
        let outcome = accounts
            .login(&database, &email, &password, client.0, user_agent)
            .await;
        Ok(match outcome {
            Ok(login) => TriedLogin::Begun(Json(LoggedIn {
                id: login.profile.id,
                name: login.profile.name,
                email: login.profile.email,
                role: login.profile.role,
                token: SecretText::from(&login.token),
                expires_at: login.expires_at,
            })),
            Err(error @ AuthError::WrongCredentials) => TriedLogin::Wrong(
                problem(StatusCode::UNAUTHORIZED, &error),
                CHALLENGE.to_owned(),
            ),
            Err(AuthError::Throttled(wait)) => {
                let (problem, seconds) = throttled(wait);
                TriedLogin::Throttled(problem, seconds)
            }
            Err(error) => return Err(failure(error)),
        })
    }

    /// End the session of this request
    ///
    /// Its token is not good any more.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(&self, session: Session, database: Data<&Database>) -> Result<LoggedOut> {
        end(&database, session, session.session_id).await?;
        Ok(LoggedOut::Ended)
    }

    /// Find the profile of this request's session
    ///
    /// The role is the one of this moment.
    #[oai(path = "/me", method = "get", operation_id = "find_me")]
    async fn find_me(&self, session: Session, database: Data<&Database>) -> Result<FoundMe> {
        let found = async {
            let mut connection = database.connection().await?;
            profiles::find_profile(&mut connection, session.profile_id).await
        };
        let found: Result<_, DbError> = found.await;
        Ok(match found.map_err(Failure::from)? {
            Some(profile) => FoundMe::Found(Json(profile.into())),
            None => FoundMe::Missing(Json(Problem::new(
                StatusCode::NOT_FOUND,
                "The profile was deleted a moment ago.",
            ))),
        })
    }

    /// Exchange the token of this request for a new one
    ///
    /// The session goes on under the new token and ends as late as one begun now; the former token is not good any more.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        session: Session,
        accounts: Data<&Accounts>,
        database: Data<&Database>,
    ) -> Result<Refreshed> {
        let exchanged = accounts.refresh(&database, session.token_hash).await;
        Ok(match exchanged.map_err(Failure::from)? {
            Some((token, expires_at)) => Refreshed::Exchanged(Json(NewToken {
                token: SecretText::from(&token),
                expires_at,
            })),
            None => Refreshed::Ended(
                Json(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "The token was exchanged or ended a moment ago; use the new one, or POST /auth/login.",
                )),
                CHALLENGE.to_owned(),
            ),
        })
    }

    /// List the caller's sessions
    ///
    /// The last used first, and only those that are still good. There are 100 at most: another one ends the one unused for longest.
    #[oai(path = "/sessions", method = "get", operation_id = "list_sessions")]
    async fn list_sessions(
        &self,
        session: Session,
        accounts: Data<&Accounts>,
        database: Data<&Database>,
    ) -> Result<ListedSessions> {
        let found = async {
            let mut connection = database.connection().await?;
            let idle_hours = accounts.idle_hours();
            sessions::list_sessions(&mut connection, session.profile_id, idle_hours).await
        };
        let found: Result<_, DbError> = found.await;
        let own = |stored: sessions::Session| OwnSession {
            id: stored.id,
            created_at: stored.created_at,
            last_used_at: stored.last_used_at,
            expires_at: stored.expires_at,
            user_agent: stored.user_agent,
            current: stored.id == session.session_id,
        };
        let found = found.map_err(Failure::from)?;
        Ok(ListedSessions::Listed(Json(
            found.into_iter().map(own).collect(),
        )))
    }

    /// End one of the caller's sessions
    ///
    /// Its token is not good any more, wherever it is.
    #[oai(
        path = "/sessions/:id",
        method = "delete",
        operation_id = "delete_session"
    )]
    async fn delete_session(
        &self,
        session: Session,
        database: Data<&Database>,
        /// The session's id.
        id: Path<Uuid>,
    ) -> Result<RevokedSession> {
        if end(&database, session, id.0).await? {
            return Ok(RevokedSession::Ended);
        }
        Ok(RevokedSession::Missing(Json(Problem::new(
            StatusCode::NOT_FOUND,
            format!("You have no session with the id {}.", id.0),
        ))))
    }

    /// End all sessions of a profile
    ///
    /// For admins: whoever has the profile's password can sign in again.
    #[oai(
        path = "/profiles/:id/sessions",
        method = "delete",
        operation_id = "delete_sessions"
    )]
    async fn delete_sessions(
        &self,
        _admin: Admin,
        database: Data<&Database>,
        /// The profile's id.
        id: Path<Uuid>,
    ) -> Result<RevokedSessions> {
        let ended = async {
            let mut connection = database.connection().await?;
            sessions::delete_sessions(&mut connection, id.0).await
        };
        let ended: Result<_, DbError> = ended.await;
        if ended.map_err(Failure::from)? {
            return Ok(RevokedSessions::Ended);
        }
        Ok(RevokedSessions::Missing(Json(Problem::new(
            StatusCode::NOT_FOUND,
            format!("No profile has the id {}.", id.0),
        ))))
    }
}

/// Ends a session of the caller's; `false` if the caller has none with this id.
async fn end(database: &Database, session: Session, id: Uuid) -> Result<bool> {
    let ended = async {
        let mut connection = database.connection().await?;
        sessions::delete_session(&mut connection, session.profile_id, id).await
    };
    let ended: Result<_, DbError> = ended.await;
    Ok(ended.map_err(Failure::from)?)
}

fn parse_email(text: &Text) -> Result<Email> {
    // The schema's pattern lets nothing pass that this refuses.
    text.0.parse().map_err(|error: crate::auth::EmailError| {
        Problem::new(StatusCode::BAD_REQUEST, format!("email: {error}")).into()
    })
}

fn problem(status: StatusCode, error: &AuthError) -> Json<Problem> {
    let detail = match error {
        AuthError::EmailTaken => {
            "A profile with this e-mail address is registered; POST /auth/login signs in."
        }
        _ => "The e-mail address or the password is wrong.",
    };
    Json(Problem::new(status, detail))
}

/// The problem, and the seconds for `Retry-After`.
fn throttled(wait: Duration) -> (Json<Problem>, u64) {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let detail = format!("Too many attempts; the next one may be made in {seconds} s.");
    (
        Json(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)),
        seconds,
    )
}

/// What is our fault, or the database's.
fn failure(error: AuthError) -> poem::Error {
    match error {
        AuthError::Database(error) => Failure::from(error).into(),
        AuthError::Hash(error) if error.is_temporary() => {
            tracing::warn!("{}", chain(&error));
            Problem::of_status(StatusCode::SERVICE_UNAVAILABLE).into()
        }
        error => {
            tracing::error!("{}", chain(&error));
            Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).into()
        }
    }
}

const BEGUN: OffsetDateTime = datetime!(2026-11-21 08:30:00 UTC);
const ENDS: OffsetDateTime = datetime!(2026-12-21 08:30:00 UTC);
const TOKEN: &str = "db_bm90IGEgdG9rZW4sIGp1c3QgYW4gZXhhbXBsZSBvZiBvbmU";

impl Example for Profile {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            name: "Ada Lovelace".to_owned(),
            email: "ada@example.org".to_owned(),
            role: Role::Student,
            created_at: BEGUN,
        }
    }
}

impl Example for Register {
    fn example() -> Self {
        Self {
            name: Text("Ada Lovelace".to_owned()),
            email: Text("ada@example.org".to_owned()),
            password: SecretText::from(&Secret::new("twelve or more characters")),
        }
    }
}

impl Example for Credentials {
    fn example() -> Self {
        Self {
            email: Text("ada@example.org".to_owned()),
            password: SecretText::from(&Secret::new("twelve or more characters")),
        }
    }
}

impl Example for LoggedIn {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            name: "Ada Lovelace".to_owned(),
            email: "ada@example.org".to_owned(),
            role: Role::Student,
            token: SecretText::from(&Secret::new(TOKEN)),
            expires_at: ENDS,
        }
    }
}

impl Example for NewToken {
    fn example() -> Self {
        Self {
            token: SecretText::from(&Secret::new(TOKEN)),
            expires_at: ENDS,
        }
    }
}

impl Example for OwnSession {
    fn example() -> Self {
        Self {
            id: EXAMPLE_ID,
            created_at: BEGUN,
            last_used_at: BEGUN,
            expires_at: ENDS,
            user_agent: Some("curl/8.5.0".to_owned()),
            current: true,
        }
    }
}
