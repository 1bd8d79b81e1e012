//! What comes out: one line for each comparison, with its target and whether it is met.

use serde_json::{Value, json};

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The ratio, at least.
    AtLeast(f64),
    /// The ratio, at most.
    AtMost(f64),
    /// Our own figure, in its unit, at most.
    OursAtMost(f64),
    /// For comparison only.
    None,
}

/// One comparison: medians, ours beside another's.
pub struct Figure {
    pub what: String,
    pub beside: String,
    pub ours: f64,
    pub theirs: f64,
    /// Of both: `/s`, `ms`, `MB`, `µs`.
    pub unit: &'static str,
    pub target: Target,
}

impl Figure {
    /// Ours by theirs.
    pub fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    /// Whether the target is met; `None` if there is none.
    pub fn is_met(&self) -> Option<bool> {
        match self.target {
            Target::AtLeast(least) => Some(self.ratio() >= least),
            Target::AtMost(most) => Some(self.ratio() <= most),
            Target::OursAtMost(most) => Some(self.ours <= most),
            Target::None => None,
        }
    }

    /// As a line of a Markdown table.
    pub fn row(&self) -> String {
        let unit = self.unit;
        let target = match self.target {
            Target::AtLeast(least) => format!("≥ {least}"),
            Target::AtMost(most) => format!("≤ {most}"),
            Target::OursAtMost(most) => format!("≤ {most} {unit}"),
            Target::None => String::new(),
        };
        let target = match self.is_met() {
            Some(true) => target + ", met",
            Some(false) => target + ", **missed**",
            None => target,
        };
        let of = |value: f64| match unit {
            "/s" => format!("{value:.0}/s"),
            "ms" => format!("{value:.2} ms"),
            _ => format!("{value:.0} {unit}"),
        };
        format!(
            "| {} | {} | {}: {} | {:.2} | {target} |",
            self.what,
            of(self.ours),
            self.beside,
            of(self.theirs),
            self.ratio()
        )
    }

    /// As an element of the output of `--json`.
    pub fn json(&self) -> Value {
        let (direction, bound) = match self.target {
            Target::AtLeast(least) => ("ratio at least", Some(least)),
            Target::AtMost(most) => ("ratio at most", Some(most)),
            Target::OursAtMost(most) => ("ours at most", Some(most)),
            Target::None => ("none", None),
        };
        json!({
            "what": self.what, "beside": self.beside, "unit": self.unit, "ours": self.ours, "theirs": self.theirs,
            "ratio": self.ratio(), "target": {"kind": direction, "value": bound}, "is_met": self.is_met(),
        })
    }
}

/// What [`Figure::row`]s stand below.
pub const HEAD: &str = "| | Drawbridge | beside | ratio | target |\n|---|---|---|---|---|";

/// Of an even number the lower one in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
