//! What a person sees on stderr while a command works. stdout stays free for the result.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Width of a bar, in characters: it fits beside its words into 80.
const BAR: u64 = 24;

/// Where progress goes. Cheap to clone; clones share one spinner.
#[derive(Clone, Debug)]
pub struct Progress {
    shown: Arc<Shown>,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    /// With the last passing line: waiting says the same every few seconds, and a log needs it once.
    Plain(Mutex<String>),
    Spinner(ProgressBar),
}

impl Progress {
    /// A spinner with the last line when stderr is a terminal, plain lines, none twice in a row, when it is a pipe or
    /// a file.
    #[must_use]
    pub fn stderr() -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {wide_msg} {elapsed_precise}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            Shown::Spinner(bar)
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
                if *last != text {
                    write_line(&escape(text));
                    text.clone_into(&mut last);
                }
            }
            Shown::Spinner(bar) => bar.set_message(escape(text)),
        }
    }

    /// A passing line with which something new begins; the time shown counts from here.
    pub fn begin(&self, text: &str) {
        if let Shown::Spinner(bar) = self.shown.as_ref() {
            bar.reset_elapsed();
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
            Shown::Spinner(bar) => bar.suspend(|| write_line(&escape(text))),
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

    /// Removes the spinner, so that a result or an error starts on a clean line.
    pub fn clear(&self) {
        if let Shown::Spinner(bar) = self.shown.as_ref() {
            bar.finish_and_clear();
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
