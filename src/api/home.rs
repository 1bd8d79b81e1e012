//! `/`: the items as a page for people, with forms that work without scripts.
//!
//! All forms are sent to `/` and lead back to it (303), so that a reload sends nothing twice. What goes wrong is said in
//! the page, with the status a client of the API would get and with what was entered.

mod forms;
mod guard;
mod view;

use poem::{
    Endpoint, FromRequest, IntoEndpoint, IntoResponse, Request, RequestBody, Response, Result,
    endpoint::make_sync,
    get, handler,
    http::{HeaderValue, StatusCode, header},
    web::{Data, Form, Query},
};
use uuid::Uuid;

use self::{
    forms::{Add, Complaint, Entered, Posted, Register, Search, Section, SignIn},
    guard::Visitor,
    view::{Listed, Page},
};
use super::{
    client_address::{ClientAddress, IsHttps},
    cursor,
    items::{RESOURCE, store},
    problem::{Failure, RETRY_AFTER_SECONDS},
    session::CHALLENGE,
};
use crate::{
    auth::{Accounts, AuthError, Registration},
    cache::Cache,
    db::{Database, DbError, Written, idempotency::Once, items, sessions},
    error_chain::chain,
};

/// Where the page's style is: with no style of its own inside, the page needs no exception from its policy.
pub const STYLE_PATH: &str = "/style.css";

/// Where the page is, and what may be done there.
pub const PATH: &str = "/";
/// For the `Allow` header.
pub const METHODS: &str = "GET, HEAD, POST";

/// What a phone shows without much scrolling.
const PAGE_SIZE: u16 = 20;

/// Nothing from elsewhere, no script at all, and no frame around forms that write.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// The page at [`PATH`], and `rest` everywhere else. The router cannot tell the two apart.
pub fn before<R: IntoEndpoint>(rest: R) -> impl Endpoint<Output = Response>
where
    R::Endpoint: 'static,
{
    Before {
        home: get(show).post(act).into_endpoint(),
        rest: rest.into_endpoint(),
    }
}

struct Before<H, R> {
    home: H,
    rest: R,
}

impl<H: Endpoint, R: Endpoint> Endpoint for Before<H, R> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        if request.uri().path() == PATH {
            return Ok(self.home.call(request).await?.into_response());
        }
        Ok(self.rest.call(request).await?.into_response())
    }
}

/// The style sheet.
pub fn style() -> impl Endpoint<Output = Response> {
    make_sync(|_| {
        Response::builder()
            .content_type("text/css; charset=utf-8")
            .body(include_str!("home/style.css"))
    })
}

/// What every form needs to know of the request.
struct Visit<'a> {
    accounts: &'a Accounts,
    cache: &'a Cache,
    client: ClientAddress,
    database: &'a Database,
    is_https: bool,
    request: &'a Request,
}

impl<'a> FromRequest<'a> for Visit<'a> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> Result<Self> {
        Ok(Self {
            accounts: Data::<&Accounts>::from_request(request, body).await?.0,
            cache: Data::<&Cache>::from_request(request, body).await?.0,
            client: ClientAddress::from_request(request, body).await?,
            database: Data::<&Database>::from_request(request, body).await?.0,
            is_https: IsHttps::from_request(request, body).await?.0,
            request,
        })
    }
}

#[handler]
async fn show(visit: Visit<'_>, search: Result<Query<Search>>) -> Response {
    match search {
        Ok(Query(search)) => visit.show(search, Entered::default(), None).await,
        Err(_) => {
            let text = "The address of this page cannot be read; start from the list.";
            let complaint = Complaint::new(StatusCode::BAD_REQUEST, Section::Page, text);
            visit.complain(complaint, Entered::default()).await
        }
    }
}

#[handler]
async fn act(visit: Visit<'_>, posted: Result<Form<Posted>>) -> Response {
    if !guard::is_from_here(visit.request) {
        let text = "This form was not sent from this page; nothing was done. Open the page and send it from there.";
        let complaint = Complaint::new(StatusCode::FORBIDDEN, Section::Page, text);
        return visit.complain(complaint, Entered::default()).await;
    }
    let posted = match posted {
        Ok(Form(posted)) => posted,
        Err(error) => {
            let text = "The form cannot be read; nothing was done.";
            let complaint = Complaint::new(error.status(), Section::Page, text);
            return visit.complain(complaint, Entered::default()).await;
        }
    };
    let (done, entered) = match posted {
        Posted::Add(form) => (visit.add(&form).await, Entered::from(form)),
        Posted::SignIn(form) => (visit.sign_in(&form).await, Entered::from(form)),
        Posted::Register(form) => (visit.register(&form).await, Entered::from(form)),
        Posted::SignOut => (visit.sign_out().await, Entered::default()),
    };
    match done {
        Ok(cookie) => {
            let mut response = Response::builder()
                .status(StatusCode::SEE_OTHER)
                .header(header::LOCATION, PATH)
                .header(header::CACHE_CONTROL, "no-store")
                .finish();
            if let Some(cookie) = cookie {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(complaint) => visit.complain(complaint, entered).await,
    }
}

/// What a form that did its work leaves behind: a cookie, or nothing.
type Done = Result<Option<HeaderValue>, Complaint>;

impl Visit<'_> {
    async fn add(&self, form: &Add) -> Done {
        let profile_id = match self
            .visitor()
            .await
            .map_err(|error| failed(error, Section::Add))?
        {
            Visitor::Anonymous => None,
            Visitor::SignedIn(session) => Some(session.caller.profile_id),
            Visitor::SignedOut => {
                let text = "You are signed out: sign in, then add the item.";
                return Err(Complaint::new(StatusCode::UNAUTHORIZED, Section::Add, text));
            }
        };
        let item = form.check()?;
        let store = |key| store(self.database, self.cache, profile_id, key, item.clone());
        let failed = |error| failed(error, Section::Add);
        // The same form with other content is not the same request: somebody went back to it.
        if let Once::OtherRequest = store(form.key()).await.map_err(failed)? {
            store(None).await.map_err(failed)?;
        }
        Ok(None)
    }

    async fn sign_in(&self, form: &SignIn) -> Done {
        let (email, password) = form.check()?;
        let user_agent = self.request.header(header::USER_AGENT);
        let login = self
            .accounts
            .login(self.database, &email, &password, self.client.0, user_agent)
            .await
            .map_err(|error| refused(error, Section::SignIn))?;
        Ok(Some(guard::cookie(&login, self.is_https)))
    }

    async fn register(&self, form: &Register) -> Done {
        let (email, password) = form.check()?;
        let who = Registration {
            name: &form.name,
            email: &email,
            password: &password,
        };
        let refused = |error| refused(error, Section::Register);
        let registered = self.accounts.register(self.database, who, self.client.0);
        registered.await.map_err(refused)?;
        let user_agent = self.request.header(header::USER_AGENT);
        let login = self
            .accounts
            .login(self.database, &email, &password, self.client.0, user_agent)
            .await
            .map_err(refused)?;
        Ok(Some(guard::cookie(&login, self.is_https)))
    }

    async fn sign_out(&self) -> Done {
        let ended = async {
            if let Visitor::SignedIn(session) = self.visitor().await? {
                let caller = session.caller;
                let mut connection = self.database.connection().await?;
                sessions::delete_session(&mut connection, caller.profile_id, caller.session_id)
                    .await?;
            }
            Ok(())
        };
        // The cookie stays while the session does: who believes to be signed out should be.
        ended
            .await
            .map_err(|error: DbError| failed(error, Section::Page))?;
        Ok(Some(guard::no_cookie(self.is_https)))
    }

    async fn visitor(&self) -> Result<Visitor, DbError> {
        guard::visitor(self.request, self.accounts, self.database).await
    }

    async fn list(&self, search: &Search) -> Result<Listed, Complaint> {
        search.check()?;
        let page = cursor::page(PATH, PAGE_SIZE, search.after.as_deref()).map_err(|_| {
            let text = "There is no such place in the list; start from its beginning.";
            Complaint::new(StatusCode::BAD_REQUEST, Section::Page, text)
        })?;
        let found = async {
            let at_least = self.database.newest_write(&[Written::List(RESOURCE)]);
            let reader = match search.q() {
                Some(_) => self.database.search_reader(at_least).await?,
                None => self.database.page_reader(at_least).await?,
            };
            items::list_items(&reader, page, search.q()).await
        };
        let mut items = found.await.map_err(|error| failed(error, Section::Page))?;
        let parameters = [("q", search.q())];
        let link = cursor::next(
            &mut items,
            PAGE_SIZE,
            items::Item::position,
            PATH,
            &parameters,
        );
        let next = link.and_then(|link| {
            Some(
                link.to_str()
                    .ok()?
                    .strip_prefix('<')?
                    .split_once('>')?
                    .0
                    .to_owned(),
            )
        });
        Ok(Listed { items, next })
    }

    /// The page that says what is wrong, with what was entered.
    async fn complain(&self, complaint: Complaint, entered: Entered) -> Response {
        self.show(Search::default(), entered, Some(complaint)).await
    }

    async fn show(
        &self,
        search: Search,
        entered: Entered,
        complaint: Option<Complaint>,
    ) -> Response {
        let (mut complaint, mut visitor) = (complaint, Visitor::SignedOut);
        match self.visitor().await {
            Ok(found) => visitor = found,
            Err(error) => complaint = complaint.or(Some(failed(error, Section::Page))),
        }
        let listed = match self.list(&search).await {
            Ok(listed) => Some(listed),
            // Two complaints about one database help nobody.
            Err(about_list) => {
                complaint = complaint.or(Some(about_list));
                None
            }
        };
        let page = Page {
            complaint: complaint.as_ref(),
            entered: &entered,
            key: Uuid::now_v7(),
            listed: listed.as_ref(),
            search: &search,
            visitor: &visitor,
        };
        let mut response = Response::builder()
            .content_type("text/html; charset=utf-8")
            .header(header::CONTENT_SECURITY_POLICY, POLICY)
            .header(header::CACHE_CONTROL, "no-store")
            // Not `no-referrer`: with it a browser does not say where a form comes from.
            .header(header::REFERRER_POLICY, "same-origin")
            .body(page.render().into_string());
        if let Some(complaint) = complaint {
            let headers = response.headers_mut();
            if let Some(seconds) = complaint.retry_after_seconds {
                headers.insert(header::RETRY_AFTER, seconds.into());
            }
            if complaint.status == StatusCode::UNAUTHORIZED {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static(CHALLENGE),
                );
            }
            response.set_status(complaint.status);
        }
        response
    }
}

/// The database's fault, in words that tell nothing internal; the log has the cause.
fn failed(error: DbError, section: Section) -> Complaint {
    unable(
        poem::error::ResponseError::status(&Failure::from(error)),
        section,
    )
}

fn unable(status: StatusCode, section: Section) -> Complaint {
    if status != StatusCode::SERVICE_UNAVAILABLE {
        let text = "Something went wrong on the server; nothing more can be said here.";
        return Complaint::new(status, section, text);
    }
    let text = "This cannot be done at the moment; try again shortly.";
    Complaint {
        retry_after_seconds: RETRY_AFTER_SECONDS.parse().ok(),
        ..Complaint::new(status, section, text)
    }
}

/// Why nobody was signed in.
fn refused(error: AuthError, section: Section) -> Complaint {
    match error {
        AuthError::EmailTaken => {
            let text = "Somebody has registered with this e-mail address; sign in instead.";
            Complaint::new(StatusCode::CONFLICT, section, text).about("email")
        }
        AuthError::WrongCredentials => {
            let text = "The e-mail address or the password is wrong.";
            Complaint::new(StatusCode::UNAUTHORIZED, section, text)
        }
        AuthError::Throttled(wait) => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let text = format!("Too many attempts; try again in {seconds} s.");
            Complaint {
                retry_after_seconds: Some(seconds),
                ..Complaint::new(StatusCode::TOO_MANY_REQUESTS, section, text)
            }
        }
        AuthError::Database(error) => failed(error, section),
        AuthError::Hash(error) if error.is_temporary() => {
            tracing::warn!("{}", chain(&error));
            unable(StatusCode::SERVICE_UNAVAILABLE, section)
        }
        error => {
            tracing::error!("{}", chain(&error));
            unable(StatusCode::INTERNAL_SERVER_ERROR, section)
        }
    }
}
