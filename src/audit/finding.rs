//! One thing that should not be there.

use serde::Serialize;

use crate::cost::MicroUsd;

/// Why it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Carries the deployment's tag or name, and Terraform's state does not know it.
    Leftover,
    /// Was added to what Terraform made, where a plan does not look.
    Drift,
    /// Left behind on purpose by `scripts/destroy.sh`.
    Kept,
}

/// What was found, what it means, and what mends it. Nothing is mended by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Why it is reported.
    pub class: Class,
    /// Which kind of thing, e.g. `security-group-rule`.
    pub kind: &'static str,
    /// AWS's id, ARN or name of it.
    pub id: String,
    /// What it is and what follows from it.
    pub meaning: String,
    /// What it costs a month; `None` when that is nothing or not known.
    pub month_usd_micros: Option<MicroUsd>,
    /// Commands that mend it, in order; where they are alternatives, each begins with a comment.
    pub mend: Vec<String>,
}

impl Finding {
    /// Without cost and remedy.
    pub(super) fn new(
        class: Class,
        kind: &'static str,
        id: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Self {
        Self {
            class,
            kind,
            id: id.into(),
            meaning: meaning.into(),
            month_usd_micros: None,
            mend: Vec::new(),
        }
    }

    pub(super) fn costing(mut self, month: Option<MicroUsd>) -> Self {
        self.month_usd_micros = month;
        self
    }

    pub(super) fn mended_by(mut self, command: impl Into<String>) -> Self {
        self.mend.push(command.into());
        self
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let class = match self.class {
            Class::Leftover => "leftover",
            Class::Drift => "drift",
            Class::Kept => "kept",
        };
        let cost = self
            .month_usd_micros
            .map(|month| format!(", {month} a month"));
        let first = format!(
            "{class:<9} {} {}{}",
            self.kind,
            self.id,
            cost.unwrap_or_default()
        );
        let rest = std::iter::once(&self.meaning).chain(&self.mend);
        std::iter::once(first)
            .chain(rest.map(|line| format!("          {line}")))
            .collect()
    }
}
