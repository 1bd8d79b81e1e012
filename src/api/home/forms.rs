//! What the page's forms send, and what is wrong with it.

use poem::http::StatusCode;
use serde::Deserialize;

use crate::{
    api::{
        idempotency::IdempotencyKey, items::CreateItem, request_header::FromHeader as _, text::Text,
    },
    appliance::Secret,
    auth::Email,
};

/// As the API has it.
pub const NAME_LIMIT: usize = 200;
/// As the API has it.
pub const DESCRIPTION_LIMIT: usize = 4000;
/// As the API has it.
pub const PASSWORD_LIMITS: (usize, usize) = (12, 128);
/// As the API has it.
pub const SEARCH_LIMITS: (usize, usize) = (3, 200);

/// One of the forms.
#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Posted {
    /// Add an item.
    Add(Add),
    /// Begin a session.
    SignIn(SignIn),
    /// Make a profile and begin a session.
    Register(Register),
    /// End the session.
    SignOut,
}

/// An item to be added.
#[derive(Deserialize)]
pub struct Add {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    /// Made with the form: the same form sent twice is one item.
    #[serde(default)]
    key: String,
}

/// What a profile signs in with.
#[derive(Deserialize)]
pub struct SignIn {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
}

/// A profile to be.
#[derive(Deserialize)]
pub struct Register {
    /// What somebody is called.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
}

/// Which items are looked for.
#[derive(Default, Deserialize)]
pub struct Search {
    #[serde(default)]
    q: String,
    /// Where the last page ended.
    pub after: Option<String>,
}

/// What was entered, to be shown again. Never a password.
#[derive(Default)]
pub struct Entered {
    /// Of an item.
    pub item: Option<(String, String)>,
    /// To sign in.
    pub sign_in_email: String,
    /// To register: name and e-mail address.
    pub register: (String, String),
}

/// The part of the page that a complaint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// All of it.
    Page,
    /// The search form.
    Search,
    /// The form for a new item.
    Add,
    /// The form to sign in.
    SignIn,
    /// The form to register.
    Register,
}

/// What is wrong, for a person to read.
#[derive(Debug)]
pub struct Complaint {
    /// The answer's status.
    pub status: StatusCode,
    /// Where it is shown.
    pub section: Section,
    /// The field it is about.
    pub field: Option<&'static str>,
    /// What is wrong and what to do.
    pub text: String,
    /// When another try makes sense.
    pub retry_after_seconds: Option<u64>,
}

impl Complaint {
    /// About no field in particular.
    pub fn new(status: StatusCode, section: Section, text: impl Into<String>) -> Self {
        Self {
            status,
            section,
            field: None,
            text: text.into(),
            retry_after_seconds: None,
        }
    }

    /// The same about this field.
    pub fn about(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }

    fn field(section: Section, field: &'static str, text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, section, text).about(field)
    }
}

impl Add {
    /// The item, if it can be one.
    pub fn check(&self) -> Result<CreateItem, Complaint> {
        // Browsers end a line as HTTP does; elsewhere it is one character.
        let description = self.description.replace("\r\n", "\n");
        let wrong = |field, text: String| Err(Complaint::field(Section::Add, field, text));
        if !is_text(&self.name, 1, NAME_LIMIT) {
            return wrong("name", format!("A name has 1 to {NAME_LIMIT} characters."));
        }
        if !is_text(&description, 0, DESCRIPTION_LIMIT) {
            let text = format!("A description has at most {DESCRIPTION_LIMIT} characters.");
            return wrong("description", text);
        }
        Ok(CreateItem {
            name: Text(self.name.clone()),
            description: Some(description).filter(|text| !text.is_empty()).map(Text),
        })
    }

    /// The form's own key; `None` if somebody changed it into none.
    pub fn key(&self) -> Option<IdempotencyKey> {
        IdempotencyKey::parse(&self.key).ok()
    }
}

impl SignIn {
    /// What may be an address, and its password.
    pub fn check(&self) -> Result<(Email, Secret), Complaint> {
        let email = parse_email(Section::SignIn, &self.email)?;
        let (_, most) = PASSWORD_LIMITS;
        if !is_text(&self.password, 1, most) {
            let text = format!("A password has 1 to {most} characters.");
            return Err(Complaint::field(Section::SignIn, "password", text));
        }
        Ok((email, Secret::new(self.password.as_str())))
    }
}

impl Register {
    /// What may be an address, and a password that is long enough.
    pub fn check(&self) -> Result<(Email, Secret), Complaint> {
        let wrong = |field, text| Err(Complaint::field(Section::Register, field, text));
        if !is_text(&self.name, 1, NAME_LIMIT) {
            return wrong("name", format!("A name has 1 to {NAME_LIMIT} characters."));
        }
        let email = parse_email(Section::Register, &self.email)?;
        let (least, most) = PASSWORD_LIMITS;
        if !is_text(&self.password, least, most) {
            return wrong(
                "password",
                format!("A password has {least} to {most} characters."),
            );
        }
        Ok((email, Secret::new(self.password.as_str())))
    }
}

impl Search {
    /// What is looked for; `None`: everything.
    pub fn q(&self) -> Option<&str> {
        Some(self.q.as_str()).filter(|text| !text.is_empty())
    }

    /// Whether it can be looked for.
    pub fn check(&self) -> Result<(), Complaint> {
        let (least, most) = SEARCH_LIMITS;
        if self.q.is_empty() || is_text(&self.q, least, most) {
            return Ok(());
        }
        let text = format!("A search takes {least} to {most} characters.");
        Err(Complaint::field(Section::Search, "q", text))
    }
}

fn parse_email(section: Section, text: &str) -> Result<Email, Complaint> {
    text.parse().map_err(|_| {
        let text = "This is no e-mail address; it looks like name@example.org.";
        Complaint::field(section, "email", text)
    })
}

/// Postgres stores any character but NUL.
fn is_text(text: &str, least: usize, most: usize) -> bool {
    (least..=most).contains(&text.chars().count()) && !text.contains('\0')
}

impl From<Add> for Entered {
    fn from(form: Add) -> Self {
        Self {
            item: Some((form.name, form.description)),
            ..Self::default()
        }
    }
}

impl From<SignIn> for Entered {
    fn from(form: SignIn) -> Self {
        Self {
            sign_in_email: form.email,
            ..Self::default()
        }
    }
}

impl From<Register> for Entered {
    fn from(form: Register) -> Self {
        Self {
            register: (form.name, form.email),
            ..Self::default()
        }
    }
}
