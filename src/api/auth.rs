//! `/auth`: profiles, and the sessions by which a request says whose it is.

mod objects;

use std::time::Duration;

use poem::{
    Request, Result,
    http::{StatusCode, header},
    web::Data,
};
use poem_openapi::{ApiResponse, OpenApi, param::Path, payload::Json};
use uuid::Uuid;

use self::objects::{Credentials, LoggedIn, NewToken, OwnSession, Profile, Register};
use super::{
    client_address::ClientAddress,
    problem::Problem,
    session::{Admin, CHALLENGE, Session},
    tags::Tag,
    text::SecretText,
};
use crate::{
    auth::{Accounts, AuthError, Registration},
    db::{Database, profiles, sessions},
    error_chain::chain,
};

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
            email: &email.0,
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
        let (email, password) = (email.0, password.into_secret());
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
        let mut connection = database.connection().await?;
        let found = profiles::find_profile(&mut connection, session.profile_id).await?;
        Ok(match found {
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
        let exchanged = accounts.refresh(&database, session.token_hash).await?;
        Ok(match exchanged {
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
        let mut connection = database.connection().await?;
        let idle_hours = accounts.idle_hours();
        let found =
            sessions::list_sessions(&mut connection, session.profile_id, idle_hours).await?;
        let own = |stored: sessions::Session| OwnSession {
            id: stored.id,
            created_at: stored.created_at,
            last_used_at: stored.last_used_at,
            expires_at: stored.expires_at,
            user_agent: stored.user_agent,
            current: stored.id == session.session_id,
        };
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
        let mut connection = database.connection().await?;
        if sessions::delete_sessions(&mut connection, id.0).await? {
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
    let mut connection = database.connection().await?;
    Ok(sessions::delete_session(&mut connection, session.profile_id, id).await?)
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
        AuthError::Database(error) => error.into(),
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
