//! The page as HTML. Every value is escaped by the macro.

use maud::{DOCTYPE, Markup, html};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};
use uuid::Uuid;

use super::{
    PATH, STYLE_PATH,
    forms::{
        Complaint, DESCRIPTION_LIMIT, Entered, NAME_LIMIT, PASSWORD_LIMITS, SEARCH_LIMITS, Search,
        Section,
    },
    guard::Visitor,
};
use crate::{api::docs, auth::Email, db::items::Item};

/// What there is to show.
pub struct Page<'a> {
    pub complaint: Option<&'a Complaint>,
    pub entered: &'a Entered,
    /// Of the form for a new item.
    pub key: Uuid,
    /// `None`: they could not be read.
    pub listed: Option<&'a Listed>,
    pub search: &'a Search,
    pub visitor: &'a Visitor,
}

/// One page of items.
pub struct Listed {
    pub items: Vec<Item>,
    /// Where the next page is.
    pub next: Option<String>,
}

/// One line of input.
struct Field<'a> {
    section: Section,
    name: &'static str,
    label: &'static str,
    kind: &'static str,
    value: &'a str,
    autocomplete: &'static str,
    limits: (usize, usize),
}

impl Page<'_> {
    pub fn render(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { "Drawbridge" }
                    link rel="stylesheet" href=(STYLE_PATH);
                }
                body {
                    header {
                        h1 { a href=(PATH) { "Drawbridge" } }
                        (self.who())
                    }
                    main {
                        (self.alert(Section::Page))
                        (self.items())
                        (self.forms())
                    }
                    footer {
                        nav aria-label="About" {
                            a href=(docs::PATH) { "API documentation" }
                            " "
                            a href=(docs::DOCUMENT_PATH) { "OpenAPI document" }
                        }
                    }
                }
            }
        }
    }

    fn who(&self) -> Markup {
        let Visitor::SignedIn(session) = self.visitor else {
            return html! {};
        };
        html! {
            form method="post" action=(PATH) {
                input type="hidden" name="action" value="sign-out";
                span { "Signed in as " b { (session.name) } }
                " "
                button { "Sign out" }
            }
        }
    }

    fn items(&self) -> Markup {
        let (least, most) = SEARCH_LIMITS;
        let text = self.search.q().unwrap_or_default();
        html! {
            section aria-labelledby="items" {
                h2 #items { "Items" }
                form method="get" action=(PATH) role="search" {
                    (self.alert(Section::Search))
                    label for="q" { "Search names and descriptions" }
                    div.row {
                        input #q name="q" type="search" value=(text) minlength=(least) maxlength=(most)
                            aria-invalid=[self.invalid(Section::Search, "q")]
                            aria-describedby=[self.described_by(Section::Search, "q")];
                        button { "Search" }
                    }
                }
                @if let Some(listed) = self.listed {
                    @if !text.is_empty() {
                        p { "With “" (text) "”. " a href=(PATH) { "Show all" } }
                    }
                    @if listed.items.is_empty() {
                        p { "There is nothing here." }
                    } @else {
                        ul.items { @for item in &listed.items { (card(item)) } }
                    }
                    (self.paging(listed))
                }
            }
        }
    }

    fn paging(&self, listed: &Listed) -> Markup {
        if listed.next.is_none() && self.search.after.is_none() {
            return html! {};
        }
        html! {
            nav.row aria-label="Pages" {
                @if self.search.after.is_some() {
                    a href=(PATH) { "Newest items" }
                }
                @if let Some(next) = &listed.next {
                    a href=(next) rel="next" { "Older items" }
                }
            }
        }
    }

    fn forms(&self) -> Markup {
        match self.visitor {
            Visitor::Anonymous | Visitor::SignedIn(_) => self.add(),
            Visitor::SignedOut => html! {
                // What was entered before the session ended is not lost.
                @if self.entered.item.is_some() { (self.add()) }
                (self.sign_in())
                (self.register())
            },
        }
    }

    fn add(&self) -> Markup {
        let (name, description) = match &self.entered.item {
            Some((name, description)) => (name.as_str(), description.as_str()),
            None => ("", ""),
        };
        let name = Field {
            section: Section::Add,
            name: "name",
            label: "Name",
            kind: "text",
            value: name,
            autocomplete: "off",
            limits: (1, NAME_LIMIT),
        };
        let id = id(Section::Add, "description");
        let fields = html! {
            input type="hidden" name="key" value=(self.key);
            (self.field(&name))
            label for=(id) { "Description (optional)" }
            textarea id=(id) name="description" rows="4" maxlength=(DESCRIPTION_LIMIT)
                aria-invalid=[self.invalid(Section::Add, "description")]
                aria-describedby=[self.described_by(Section::Add, "description")] {
                // A browser drops one line break after the tag.
                "\n" (description)
            }
        };
        self.form(Section::Add, "add", "Add an item", fields, "Add")
    }

    fn sign_in(&self) -> Markup {
        let section = Section::SignIn;
        let email = email_field(section, &self.entered.sign_in_email);
        let password = Field {
            limits: (1, PASSWORD_LIMITS.1),
            ..password_field(section, "current-password")
        };
        let fields = html! { (self.field(&email)) (self.field(&password)) };
        self.form(
            section,
            "sign-in",
            "Sign in to add items",
            fields,
            "Sign in",
        )
    }

    fn register(&self) -> Markup {
        let section = Section::Register;
        let (name, email) = &self.entered.register;
        let name = Field {
            section,
            name: "name",
            label: "Your name",
            kind: "text",
            value: name,
            autocomplete: "name",
            limits: (1, NAME_LIMIT),
        };
        let fields = html! {
            (self.field(&name))
            (self.field(&email_field(section, email)))
            (self.field(&password_field(section, "new-password")))
        };
        self.form(section, "register", "Or register", fields, "Register")
    }

    fn form(
        &self,
        section: Section,
        action: &str,
        heading: &str,
        fields: Markup,
        button: &str,
    ) -> Markup {
        html! {
            section aria-labelledby=(format!("{action}-heading")) {
                h2 id=(format!("{action}-heading")) { (heading) }
                form method="post" action=(PATH) {
                    input type="hidden" name="action" value=(action);
                    (self.alert(section))
                    (fields)
                    button { (button) }
                }
            }
        }
    }

    fn field(&self, field: &Field<'_>) -> Markup {
        let id = id(field.section, field.name);
        let (least, most) = field.limits;
        html! {
            label for=(id) { (field.label) }
            input id=(id) name=(field.name) type=(field.kind) value=(field.value) required
                minlength=(least) maxlength=(most) autocomplete=(field.autocomplete)
                aria-invalid=[self.invalid(field.section, field.name)]
                aria-describedby=[self.described_by(field.section, field.name)];
        }
    }

    fn alert(&self, section: Section) -> Markup {
        let complaint = self
            .complaint
            .filter(|complaint| complaint.section == section);
        html! {
            @if let Some(complaint) = complaint {
                p #complaint.complaint role="alert" { (complaint.text) }
            }
        }
    }

    fn is_about(&self, section: Section, field: &str) -> bool {
        self.complaint
            .is_some_and(|complaint| complaint.section == section && complaint.field == Some(field))
    }

    fn invalid(&self, section: Section, field: &str) -> Option<&'static str> {
        self.is_about(section, field).then_some("true")
    }

    fn described_by(&self, section: Section, field: &str) -> Option<&'static str> {
        self.is_about(section, field).then_some("complaint")
    }
}

fn email_field(section: Section, value: &str) -> Field<'_> {
    Field {
        section,
        name: "email",
        label: "E-mail address",
        kind: "email",
        value,
        autocomplete: "username",
        limits: (3, Email::LIMIT),
    }
}

fn password_field(section: Section, autocomplete: &'static str) -> Field<'static> {
    Field {
        section,
        name: "password",
        label: "Password",
        kind: "password",
        value: "",
        autocomplete,
        limits: PASSWORD_LIMITS,
    }
}

fn card(item: &Item) -> Markup {
    html! {
        li {
            h3 { (item.name) }
            @if let Some(description) = &item.description {
                p.description { (description) }
            }
            p.when { (when(item.created_at)) }
        }
    }
}

fn when(time: OffsetDateTime) -> Markup {
    let minute = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    // Formatting a time that Postgres has kept does not fail.
    html! {
        time datetime=(time.format(&Rfc3339).unwrap_or_default()) {
            (time.format(&minute).unwrap_or_default())
        }
    }
}

/// One page has several fields with the same name.
fn id(section: Section, field: &str) -> String {
    let section = match section {
        Section::Page => "page",
        Section::Search => "search",
        Section::Add => "add",
        Section::SignIn => "sign-in",
        Section::Register => "register",
    };
    format!("{section}-{field}")
}
