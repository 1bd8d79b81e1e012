//! `drawbridge-host report`: prints the local report.

use clap::Args;
use time::format_description::well_known::Rfc3339;

use crate::appliance::{BootstrapReport, ReportState, path};
use crate::host::Host;
use crate::host::file::{self, FileError};

/// Shows how far this host's bootstrap is, from the copy kept on the host.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Print the report as JSON, as SSM has it, instead of text for people.
    #[arg(long)]
    pub json: bool,
}

/// There is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The bootstrap has not begun.
    #[error("no bootstrap report on this host; see `systemctl status drawbridge-bootstrap`")]
    None,
    /// Something else is in the file.
    #[error(
        "{}: {reason}; run `drawbridge-host bootstrap` to write it anew",
        path::REPORT
    )]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The text `drawbridge-host report` prints.
///
/// # Errors
/// When there is no report, or it is unreadable.
pub fn show(host: &Host, args: &ReportArgs) -> Result<String, ReportError> {
    let text = file::read(&host.path(path::REPORT))?.ok_or(ReportError::None)?;
    match ReportState::parse(&text) {
        ReportState::Pending => Err(ReportError::None),
        ReportState::Unreadable { reason } => Err(ReportError::Unreadable { reason }),
        ReportState::Reported(report) if args.json => {
            serde_json::to_string(&report).map_err(|error| ReportError::Unreadable {
                reason: error.to_string(),
            })
        }
        ReportState::Reported(report) => Ok(for_people(&report)),
    }
}

fn for_people(report: &BootstrapReport) -> String {
    let when = |time: time::OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    let place = report
        .position()
        .map_or(String::new(), |(done, of)| format!(" ({done} of {of})"));
    let mut lines = vec![
        format!(
            "instance  {}",
            report.instance_id.as_deref().unwrap_or("unknown")
        ),
        format!(
            "image     {}",
            report.image_id.as_deref().unwrap_or("unknown")
        ),
        format!(
            "role      {}",
            report.role.map_or("unknown", |role| role.as_str())
        ),
        format!("step      {}{place}", report.step),
        format!("started   {}", when(report.started_at)),
        format!("updated   {}", when(report.updated_at)),
    ];
    if let Some(finished) = report.finished_at {
        lines.push(format!("finished  {}", when(finished)));
    }
    if let Some(error) = &report.error {
        lines.push(format!("error     {}", error.escape_debug()));
    }
    lines.join("\n")
}
