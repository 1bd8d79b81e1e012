//! The state machine: which steps this boot needs, one after the other, each reported.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, timeout_at};

use super::Host;
use super::file::FileError;
use super::lock::{Lock, LockError};
use super::metadata::{Identity, MetadataService};
use super::parameters::Parameters;
use super::report::{Boot, CompleteError, Reporter};
use super::steps::{ReadyUrl, StepError, Worker};
use super::wait::Awaited;
use crate::appliance::{BootstrapReport, Step, UserData, parameter};
use crate::error_chain::chain;

/// Brings this host from its image to its role; safe to run at any time. Ends with status 0 only when complete.
#[derive(Debug, Clone, Args)]
pub struct BootstrapArgs {
    /// Give up after this many seconds; the next run continues. The default allows for a backend that waits for a
    /// database whose volume is attached late, and stays below the four hours after which AWS deletes the NAT
    /// gateway by default.
    #[arg(long, value_name = "SECONDS", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..=14_400))]
    pub timeout: u64,
    /// Do the first boot's steps also on a host that is complete, e.g. on the backend after the database host was
    /// replaced. Needs the NAT window.
    #[arg(long)]
    pub again: bool,
    /// Backend: where the API says that it is ready, `http://ADDRESS:PORT/PATH` with an IP address of this host.
    #[arg(long, value_name = "URL", env = "BOOTSTRAP_READY_URL", default_value_t)]
    pub ready_url: ReadyUrl,
}

/// Why the bootstrap is not complete.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Another one is running.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state folder is not usable.
    #[error(transparent)]
    State(#[from] FileError),
    /// A step failed.
    #[error("step {step} failed")]
    Step {
        /// Which.
        step: Step,
        /// Why.
        #[source]
        source: Box<StepError>,
    },
    /// The whole took too long.
    #[error(
        "not complete after {seconds} s, stopped in step {step} while waiting for {awaited}; run `drawbridge-host bootstrap` again to continue"
    )]
    Deadline {
        /// Where it stood.
        step: Step,
        /// The value of `--timeout`.
        seconds: u64,
        /// What it was waiting for, and what was seen last.
        awaited: String,
    },
    /// Everything is done but one report.
    #[error(transparent)]
    Report(#[from] CompleteError),
}

/// The subcommand `bootstrap`: does it on this machine and reports everywhere, so the caller prints nothing more.
pub async fn run(args: BootstrapArgs) -> ExitCode {
    match bootstrap(&Host::this(), &MetadataService::here(), &args).await {
        Ok(_) => ExitCode::SUCCESS,
        Err(error @ (BootstrapError::Lock(_) | BootstrapError::State(_))) => {
            let error = chain(&error);
            tracing::error!(error, "bootstrap did not begin: {error}");
            ExitCode::FAILURE
        }
        // The reporter has told it.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Does what this boot needs and returns the final report.
///
/// # Errors
/// See [`BootstrapError`]; the local report, and SSM's as far as it is reachable, say the same.
pub async fn bootstrap(
    host: &Host,
    service: &MetadataService,
    args: &BootstrapArgs,
) -> Result<BootstrapReport, BootstrapError> {
    let _lock = Lock::take(host).await?;
    let mut reporter = Reporter::open(host)?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let mut step = Step::Metadata;
    let awaited = Awaited::default();
    let work = walk(host, service, args, deadline, &mut reporter, &mut step);
    let outcome = match timeout_at(deadline, awaited.during(work)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BootstrapError::Deadline {
            step,
            seconds: args.timeout,
            awaited: awaited.get().unwrap_or_else(|| "one of its tools".into()),
        }),
    };
    if let Err(error) = &outcome {
        let reason = match error {
            // The report names the step already.
            BootstrapError::Step { source, .. } => chain(source.as_ref()),
            other => chain(other),
        };
        reporter.fail(step, &reason).await;
    }
    outcome
}

async fn walk(
    host: &Host,
    service: &MetadataService,
    args: &BootstrapArgs,
    deadline: Instant,
    reporter: &mut Reporter,
    step: &mut Step,
) -> Result<BootstrapReport, BootstrapError> {
    let failed = |step: Step| {
        move |source: StepError| BootstrapError::Step {
            step,
            source: Box::new(source),
        }
    };
    reporter.enter(*step)?;
    let (identity, user_data) = read_metadata(service).await.map_err(failed(*step))?;
    let role = user_data.role();
    let boot = reporter.begin(&identity, role, args.again);
    if boot == Boot::Cloned {
        super::steps::forget(host).map_err(failed(*step))?;
    }
    let parameters = match boot {
        // Nothing on this path may need the internet, not even to find out that there is none.
        Boot::Again => None,
        Boot::First | Boot::Cloned | Boot::Untold => {
            let parameters = Parameters::connect(&user_data.region).await;
            reporter.tell(
                parameters.clone(),
                parameter::bootstrap_report(&user_data.name, role),
            );
            Some(parameters)
        }
    };
    let first = parameters.filter(|_| boot != Boot::Untold);
    let local_only = first.is_none();
    let mut worker = Worker::new(
        host,
        identity,
        user_data,
        first,
        deadline,
        args.ready_url.clone(),
    );
    for next in Step::sequence(role).iter().skip(1) {
        if local_only && !is_local(*next) {
            continue;
        }
        *step = *next;
        reporter.enter(*step)?;
        worker.perform(*step).await.map_err(failed(*step))?;
    }
    *step = Step::Complete;
    Ok(reporter
        .complete(deadline.saturating_duration_since(Instant::now()))
        .await?)
}

/// Whether a step is needed at every boot: what must run or be mounted again, and what may have changed with the
/// user data. The others concern secrets that are made once.
fn is_local(step: Step) -> bool {
    !matches!(
        step,
        Step::DatabaseRole | Step::Publish | Step::WaitForDatabase | Step::Seal
    )
}

async fn read_metadata(service: &MetadataService) -> Result<(Identity, UserData), StepError> {
    let identity = service.identity().await?;
    let user_data = service.user_data(&identity.region).await?;
    Ok((identity, user_data))
}
