//! What a person sees on stderr while a command works. stdout stays free for the result.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Width of a bar, in characters: it fits beside its words into 80.
const BAR: u64 = 24;
/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Where progress goes. Cheap to clone; clones share one spinner.
#[derive(Clone, Debug)]
pub struct Progress {
    shown: Arc<Shown>,
}

/// One of several things that are waited for side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is: `backend (i-…)`.
    pub name: String,
    /// How far it is, in words that follow the name: `stands at step seal (5 of 7)`.
    pub state: String,
    /// For how long it has been so, where that is known.
    pub age: Option<Duration>,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    /// With the last passing lines: waiting says the same every few seconds, and a log needs it once.
    Plain(Mutex<Vec<String>>),
    Spinner(Spinner),
}

#[derive(Debug)]
struct Spinner {
    all: MultiProgress,
    bar: ProgressBar,
    /// Below the spinner, one for each [`Row`].
    rows: Mutex<Vec<ProgressBar>>,
}

impl Spinner {
    fn new() -> Self {
        let (all, bar) = (MultiProgress::new(), ProgressBar::new_spinner());
        let bar = all.add(bar);
        let template = "{spinner} {wide_msg} {elapsed_precise}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        let rows = Mutex::default();
        Self { all, bar, rows }
    }

    /// As many rows as there are texts, with these texts.
    fn rows(&self, texts: &[String]) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        while rows.len() > texts.len() {
            if let Some(row) = rows.pop() {
                row.finish_and_clear();
                self.all.remove(&row);
            }
        }
        while rows.len() < texts.len() {
            let row = self.all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("    {wide_msg}") {
                row.set_style(style);
            }
            rows.push(row);
        }
        for (row, text) in rows.iter().zip(texts) {
            row.set_message(escape(text));
        }
    }
}

impl Progress {
    /// A spinner with the last line when stderr is a terminal, plain lines, none twice in a row, when it is a pipe or
    /// a file.
    #[must_use]
    pub fn stderr() -> Self {
        let shown = if std::io::stderr().is_terminal() {
            Shown::Spinner(Spinner::new())
        } else {
            Shown::Plain(Mutex::default())
        };
        Self {
            shown: Arc::new(shown),
        }
    }

    /// Shows nothing: tests, `--json` without a terminal.
    #[must_use]
    pub fn quiet() -> Self {
        Self {
            shown: Arc::new(Shown::Nothing),
        }
    }

    /// A passing line: replaces the last one on a terminal. Control characters of remote text are escaped.
    pub fn line(&self, text: &str) {
        match self.shown.as_ref() {
            Shown::Nothing => {}
            Shown::Plain(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.as_slice() != [text] {
                    write_line(&escape(text));
                    *last = vec![text.to_owned()];
                }
            }
            Shown::Spinner(spinner) => {
                spinner.rows(&[]);
                spinner.bar.set_message(escape(text));
            }
        }
    }

    /// Passing lines about what is waited for side by side, each with its age: below the spinner on a terminal;
    /// elsewhere a line for each whose state is another one than the last time.
    pub fn rows(&self, text: &str, rows: &[Row]) {
        match self.shown.as_ref() {
            Shown::Nothing => {}
            Shown::Plain(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                let now = rows
                    .iter()
                    .map(|row| format!("{text}: {} {}", row.name, row.state));
                let now: Vec<_> = now.collect();
                for (line, row) in now.iter().zip(rows) {
                    if !last.contains(line) {
                        write_line(&escape(&format!("{line}{}", row.for_how_long())));
                    }
                }
                *last = now;
            }
            Shown::Spinner(spinner) => {
                let lines = rows
                    .iter()
                    .map(|row| format!("{} {}{}", row.name, row.state, row.for_how_long()));
                spinner.rows(&lines.collect::<Vec<_>>());
                spinner.bar.set_message(escape(text));
            }
        }
    }

    /// A passing line with which something new begins; the time shown counts from here.
    pub fn begin(&self, text: &str) {
        if let Shown::Spinner(spinner) = self.shown.as_ref() {
            spinner.bar.reset_elapsed();
        }
        self.line(text);
    }

    /// A passing line about something of which `done` of `total` bytes are behind: a bar on a terminal, elsewhere one
    /// line for each tenth.
    pub fn portion(&self, text: &str, done: u64, total: u64) {
        let percent = (done * 100).checked_div(total).unwrap_or(100).min(100);
        match self.shown.as_ref() {
            Shown::Nothing => {}
            Shown::Plain(_) => self.line(&format!("{text}: {} %", percent / 10 * 10)),
            Shown::Spinner(_) => {
                let full = usize::try_from(percent * BAR / 100).unwrap_or_default();
                let rest = BAR as usize - full;
                let bar = "█".repeat(full) + &"░".repeat(rest);
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                let (done, total) = (mib(done), mib(total));
                self.line(&format!("{text} {bar} {percent} %, {done} of {total} MiB"));
            }
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        match self.shown.as_ref() {
            Shown::Nothing => {}
            Shown::Plain(_) => write_line(&escape(text)),
            Shown::Spinner(spinner) => spinner.all.suspend(|| write_line(&escape(text))),
        }
    }

    /// A line that stays, shown even by [`Progress::quiet`]: errors.
    pub fn say_always(&self, text: &str) {
        match self.shown.as_ref() {
            Shown::Nothing => write_line(&escape(text)),
            Shown::Plain(_) | Shown::Spinner(_) => self.say(text),
        }
    }

    /// A new one of the same kind, for what follows a [`Progress::clear`].
    #[must_use]
    pub fn again(&self) -> Self {
        match self.shown.as_ref() {
            Shown::Spinner(_) => Self::stderr(),
            Shown::Nothing | Shown::Plain(_) => self.clone(),
        }
    }

    /// Stands still while somebody is asked something, until [`Progress::resume`].
    pub fn pause(&self) {
        if let Shown::Spinner(spinner) = self.shown.as_ref() {
            spinner.bar.disable_steady_tick();
            let _ = spinner.all.clear();
            spinner.all.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    /// Goes on after [`Progress::pause`].
    pub fn resume(&self) {
        if let Shown::Spinner(spinner) = self.shown.as_ref() {
            spinner.all.set_draw_target(ProgressDrawTarget::stderr());
            spinner.bar.enable_steady_tick(TICK);
        }
    }

    /// Removes the spinner, so that a result or an error starts on a clean line.
    pub fn clear(&self) {
        if let Shown::Spinner(spinner) = self.shown.as_ref() {
            spinner.rows(&[]);
            spinner.bar.finish_and_clear();
        }
    }
}

impl Row {
    fn for_how_long(&self) -> String {
        match self.age.map(|age| age.as_secs()) {
            None => String::new(),
            Some(seconds @ ..120) => format!(", for {seconds} s"),
            Some(seconds) => format!(", for {} min", seconds / 60),
        }
    }
}

// A closed stderr is no reason to stop a close half-way, so the write error is dropped on purpose.
fn write_line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Makes text from outside harmless for a terminal: control characters other than tab become `\u{1b}`-style escapes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn escape_keeps_text_and_disarms_terminal_sequences() {
        assert_eq!(escape("grün\tok"), "grün\tok");
        assert_eq!(escape("\u{1b}[31mred\r"), "\\u{1b}[31mred\\r");
        assert_eq!(escape("\u{9b}2J"), "\\u{9b}2J");
    }
}
