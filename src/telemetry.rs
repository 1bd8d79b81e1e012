//! Logs: one line per event on standard error, as JSON for machines or as text for people.

use std::{
    backtrace::BacktraceStatus,
    io::{self, IsTerminal},
};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogFormat, LogSettings};

/// Parses [`LogSettings::filter`].
///
/// # Errors
/// What is wrong with the directives.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    // The server's own start and stop lines repeat ours with less in them; a directive for it still wins.
    EnvFilter::try_new(format!("poem::server=warn,{filter}")).map_err(|error| error.to_string())
}

/// Installs the process's log, and makes panics lines of it. Call it once.
///
/// A line that cannot be written is lost and nothing else: whoever reads it may go away in the middle of what is done
/// here, and the library's complaint about that would end the process.
///
/// # Errors
/// The filter cannot be parsed, or a log is installed already.
pub fn install(settings: &LogSettings) -> Result<(), String> {
    let filter = parse_filter(&settings.filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let outcome = match settings.format {
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_span_list(false)
                    .log_internal_errors(false)
                    .with_writer(io::stderr),
            )
            .try_init(),
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_ansi(io::stderr().is_terminal())
                    .with_target(false)
                    .log_internal_errors(false)
                    .with_writer(io::stderr),
            )
            .try_init(),
    };
    outcome.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        let payload = panic.payload();
        let message = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no message)");
        tracing::error!(place, backtrace, "panic: {message}");
    }));
    Ok(())
}
