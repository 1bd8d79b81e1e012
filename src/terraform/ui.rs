//! Terraform's machine-readable lines (`-json`), read for what it plans, what it says, and what
//! went wrong.
//! Format: <https://developer.hashicorp.com/terraform/internals/machine-readable-ui>.

use serde::Deserialize;

use super::PlannedChange;

/// What one line means to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A resource that the plan wants to change.
    Planned(PlannedChange),
    /// Of no interest: what is only read, 60 lines of it before each plan; what changed by itself since the last run (the
    /// plan says what follows from it); output values.
    Noise,
    /// An error, summary and detail in one text.
    Error(String),
    /// A warning, in the same form: of the provider, or of a `check` block in the configuration.
    Warning(String),
    /// Anything else worth showing.
    Said(String),
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "@message", default)]
    message: String,
    #[serde(rename = "type", default)]
    kind: String,
    change: Option<RawChange>,
    hook: Option<RawHook>,
    diagnostic: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct RawHook {
    #[serde(default)]
    action: String,
}

#[derive(Deserialize)]
struct RawChange {
    resource: RawResource,
    action: String,
}

#[derive(Deserialize)]
struct RawResource {
    addr: String,
    resource_type: String,
}

#[derive(Deserialize)]
struct Diagnostic {
    severity: String,
    summary: String,
    #[serde(default)]
    detail: String,
}

impl Diagnostic {
    /// Summary and detail on one line.
    fn text(self) -> String {
        let detail: Vec<_> = self.detail.split_whitespace().collect();
        if detail.is_empty() {
            self.summary
        } else {
            format!("{}: {}", self.summary, detail.join(" "))
        }
    }
}

/// Reads one line. A line that is not JSON (terraform writes some before it knows its flags) is shown as it is.
pub(super) fn read(line: &str) -> Message {
    let Ok(raw) = serde_json::from_str::<Raw>(line) else {
        return Message::Said(line.to_owned());
    };
    match (raw.kind.as_str(), raw.change, raw.diagnostic) {
        ("planned_change", Some(change), _) => Message::Planned(PlannedChange {
            address: change.resource.addr,
            kind: change.resource.resource_type,
            action: change.action,
        }),
        ("outputs" | "resource_drift" | "version" | "refresh_start" | "refresh_complete", ..) => {
            Message::Noise
        }
        ("apply_start" | "apply_complete", ..)
            if raw.hook.as_ref().is_some_and(|hook| hook.action == "read") =>
        {
            Message::Noise
        }
        ("diagnostic", _, Some(diagnostic)) if diagnostic.severity == "error" => {
            Message::Error(diagnostic.text())
        }
        ("diagnostic", _, Some(diagnostic)) if diagnostic.severity == "warning" => {
            Message::Warning(diagnostic.text())
        }
        _ => Message::Said(raw.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_delete_is_read() {
        let line = r#"{"@level":"info","@message":"aws_eip.nat[0]: Plan to delete","change":{"resource":{"addr":"aws_eip.nat[0]","module":"","resource_type":"aws_eip","resource_name":"nat","resource_key":0},"action":"delete","reason":"delete_because_count_index"},"type":"planned_change"}"#;
        let wanted = PlannedChange {
            address: "aws_eip.nat[0]".into(),
            kind: "aws_eip".into(),
            action: "delete".into(),
        };
        assert_eq!(read(line), Message::Planned(wanted));
    }

    #[test]
    fn an_error_keeps_its_detail_on_one_line_and_a_warning_is_none() {
        let line = r#"{"@message":"Error: x","diagnostic":{"severity":"error","summary":"x","detail":"a\n  b"},"type":"diagnostic"}"#;
        assert_eq!(read(line), Message::Error("x: a b".into()));
        let line = r#"{"@message":"Warning: y","diagnostic":{"severity":"warning","summary":"y","detail":"z\n"},"type":"diagnostic"}"#;
        assert_eq!(read(line), Message::Warning("y: z".into()));
    }

    #[test]
    fn what_is_only_read_is_not_shown_and_what_is_done_is() {
        let line = r#"{"@message":"aws_vpc.main: Refreshing state...","hook":{"resource":{"addr":"aws_vpc.main"}},"type":"refresh_start"}"#;
        assert_eq!(read(line), Message::Noise);
        let line = r#"{"@message":"data.aws_partition.current: Refreshing...","hook":{"action":"read"},"type":"apply_start"}"#;
        assert_eq!(read(line), Message::Noise);
        let line = line.replace("read", "delete");
        assert!(matches!(read(&line), Message::Said(_)));
    }

    #[test]
    fn a_line_that_is_not_json_is_said() {
        assert_eq!(
            read("Terraform crashed"),
            Message::Said("Terraform crashed".into())
        );
    }
}
