//! `drawbridge-host`: what runs on the instances.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use drawbridge::appliance::system::REFUSED;
use drawbridge::auth::{self, Email, Role};
use drawbridge::config::{self, Config, LogFormat, LogSettings};
use drawbridge::db::migrate;
use drawbridge::host::metadata::MetadataService;
use drawbridge::host::{self, BootstrapArgs, Host, ReportArgs, RotateArgs, SystemArgs, egress};
use drawbridge::{api, serve, telemetry, version};

/// glibc's allocator took a tenth of the processor time of a request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What runs on the instances of a Drawbridge deployment: first boot, and the API
///
/// Exit status: 0 done, 1 failed (the last line says why), 2 wrong usage; `egress` has two more.
#[derive(Debug, Parser)]
#[command(name = "drawbridge-host", version = version::line())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the database's schema up to date and serve the API until SIGTERM
    Serve(ConfigArgs),
    /// Bring the database's schema up to date and end
    Migrate(ConfigArgs),
    /// Make the profile with this e-mail address a student, an alumni or an admin
    ///
    /// This is how the first admin comes about: register through the API, then run this once. Sessions follow at once.
    ///
    /// On a deployed backend only the API's own service is given the database password, so give it to this as well:
    ///
    /// sudo systemd-run --pipe --wait --setenv=DRAWBRIDGE_CONFIG=/var/lib/drawbridge/api/config.toml
    ///   --property=LoadCredentialEncrypted=database-password:/var/lib/drawbridge/api/database-password.cred
    ///   drawbridge-host set-role ada@example.org admin
    ///
    /// Exit status: 0 done, 1 not (the last line says why, such as an unknown address), 2 wrong usage.
    #[command(verbatim_doc_comment)]
    SetRole(SetRoleArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Print the reference of all configuration keys: a Markdown table with defaults, shapes and meanings
    Keys,
    /// Make this instance what its user data says; safe to run again, at every boot
    Bootstrap(BootstrapArgs),
    /// Replace the database password while requests go on; on the database host and the backend side by side
    ///
    /// As root, with the NAT window open; safe to run again. `drawbridge rotate-password` runs it on both.
    ///
    /// Exit status: 0 rotated, 1 not (the last line says why and what still works), 2 wrong usage.
    RotatePassword(RotateArgs),
    /// Show how far the bootstrap of this instance is
    Report(ReportArgs),
    /// Print what this host says of itself as one JSON document: disks, memory, load, failed units, API, database
    ///
    /// `drawbridge status` asks for it through ssh. What the caller may not read is {"unknown": "why"} in its place; as
    /// root everything can be read. Sizes are in bytes, times are RFC 3339.
    Status,
    /// Put another system on this host, or see which one runs; as root, by `drawbridge deploy`
    ///
    /// Exit status: 0 done, 1 failed (the last line says why), 2 wrong usage, 4 refused and nothing was changed.
    System(SystemArgs),
    /// Try a TCP connection; status 0 if it reaches the target, 3 if it comes to nothing, 4 if the name is unknown
    Egress(EgressArgs),
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// Configuration file (TOML) [default: /etc/drawbridge/config.toml, if there is one]
    ///
    /// Environment variables override it: DRAWBRIDGE_HTTP__LISTEN sets listen in [http].
    #[arg(long, env = "DRAWBRIDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct SetRoleArgs {
    /// The address it was registered with; capitals do not matter
    #[arg(value_name = "EMAIL")]
    email: Email,
    /// student, alumni or admin
    #[arg(value_name = "ROLE")]
    role: Role,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, clap::Args)]
struct EgressArgs {
    /// Where to connect to; nothing is sent there
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// How long to try
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(args) => with_config(&args, |config| async {
            serve::serve(config).await.map_err(anyhow::Error::from)
        }),
        Command::Migrate(args) => with_config(&args, |config| async move {
            // On a task of its own: a migration blocks the thread it runs on.
            let migration = tokio::spawn(async move { migrate::migrate(&config.database).await });
            migration.await?.map(drop).map_err(anyhow::Error::from)
        }),
        Command::SetRole(args) => with_config(&args.config, |config| async move {
            let before = auth::set_role(&config.database, &args.email, args.role).await?;
            let (email, role) = (args.email.as_str(), args.role);
            say(format_args!("{email}: {role}, before {before}"));
            Ok(())
        }),
        Command::Openapi => {
            say(format_args!("{:#}", api::document()));
            Ok(())
        }
        Command::Keys => {
            say(format_args!("{}", config::reference().trim_end()));
            Ok(())
        }
        Command::Bootstrap(args) => return bootstrap(args),
        Command::RotatePassword(args) => rotate(&args),
        Command::Report(args) => host::show(&Host::this(), &args)
            .map(|text| say(format_args!("{text}")))
            .map_err(anyhow::Error::from),
        Command::Status => show_status(),
        Command::System(args) => return system(&args),
        Command::Egress(args) => {
            let reach = egress::try_to_reach(&args.target, Duration::from_secs(args.timeout));
            say(format_args!("{reach}"));
            return ExitCode::from(reach.status());
        }
    };
    finish(outcome)
}

/// Loads the configuration, starts the log and runs `work` to its end.
fn with_config<F: Future<Output = anyhow::Result<()>>>(
    args: &ConfigArgs,
    work: impl FnOnce(Config) -> F,
) -> anyhow::Result<()> {
    let config = Config::load(args.config.as_deref())?;
    telemetry::install(&config.log).map_err(anyhow::Error::msg)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(work(config));
    // A migration that a signal interrupted must not keep the process alive.
    runtime.shutdown_background();
    outcome
}

fn bootstrap(args: BootstrapArgs) -> ExitCode {
    let started = telemetry::install(&LogSettings::default()).map_err(anyhow::Error::msg);
    match started.and_then(|()| runtime()) {
        Ok(runtime) => runtime.block_on(host::run(args)),
        Err(error) => finish(Err(error)),
    }
}

/// Tells a person on standard error how far it is, and the outcome on standard output.
fn rotate(args: &RotateArgs) -> anyhow::Result<()> {
    let log = LogSettings {
        format: LogFormat::Text,
        filter: "warn,drawbridge=info".into(),
    };
    telemetry::install(&log).map_err(anyhow::Error::msg)?;
    let (host, service) = (Host::this(), MetadataService::here());
    let rotated = runtime()?.block_on(host::rotate(&host, &service, args))?;
    say(format_args!("{rotated}"));
    Ok(())
}

fn show_status() -> anyhow::Result<()> {
    let status = runtime()?.block_on(host::status(&Host::this()));
    say(format_args!("{}", serde_json::to_string(&status)?));
    Ok(())
}

fn system(args: &SystemArgs) -> ExitCode {
    let log = LogSettings {
        format: LogFormat::Text,
        filter: "warn,drawbridge=info".into(),
    };
    match telemetry::install(&log).map_err(anyhow::Error::msg) {
        Ok(()) => match args.run() {
            Err(error) if error.is_refusal() => {
                let _ = finish(Err(error.into()));
                ExitCode::from(REFUSED)
            }
            ended => finish(ended.map_err(anyhow::Error::from)),
        },
        Err(error) => finish(Err(error)),
    }
}

/// A line for whoever called; that nobody reads it changes nothing of what was done.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")
}

fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Once there is a log, all of standard error is log.
            if tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{error:#}");
            } else {
                eprintln!("drawbridge-host: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
