//! The units of an activation. All are transient: they outlive the connection that made them, and no reboot.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SystemError;
use crate::appliance::path;
use crate::host::Host;
use crate::host::command::{self, CommandError};

/// Migrations and switch.
pub const ACTIVATION: &str = "drawbridge-activation";
/// Goes back when nobody has confirmed in time. Armed once the switch is done.
pub const ROLLBACK: &str = "drawbridge-rollback";
/// The same from before the switch on, for one that never ends, or whose process is gone.
pub const SWITCH_LIMIT: &str = "drawbridge-switch-limit";
/// The new system's migrations.
const MIGRATION: &str = "drawbridge-migration";
/// systemd answers in milliseconds, on a busy machine in seconds.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// Beyond the limit of the migrations' own unit.
const GRACE: Duration = Duration::from_secs(30);

/// `drawbridge-host system …` in a unit of its own: by the program that runs now, whatever the new system brings.
pub struct Program {
    words: Vec<OsString>,
}

impl Program {
    /// This very program, with a subcommand and its arguments.
    ///
    /// # Errors
    /// If the system does not say where it is.
    pub fn this(host: &Host, arguments: &[&str]) -> Result<Self, SystemError> {
        let program = std::env::current_exe().map_err(SystemError::Program)?;
        let mut words = vec![program.into(), "system".into()];
        if host.path("/") != Path::new("/") {
            words.extend(["--root".into(), host.path("/").into()]);
        }
        words.extend(arguments.iter().map(OsString::from));
        Ok(Self { words })
    }
}

async fn run(words: &[OsString]) -> Result<(), CommandError> {
    let ran = command::run("systemd-run", words, None, ASK_LIMIT).await?;
    ran.checked().map(drop)
}

fn options(unit: &str, more: &[&str]) -> Vec<OsString> {
    let always = [
        "--quiet",
        "--collect",
        "--no-ask-password",
        // A unit has a bare one, and the program looks for systemd's.
        "--setenv=PATH",
    ];
    let mut options: Vec<OsString> = always
        .into_iter()
        .chain(more.iter().copied())
        .map(OsString::from)
        .collect();
    options.push(format!("--unit={unit}").into());
    options
}

/// Starts the program now; returns once it runs.
pub async fn start(unit: &str, program: Program) -> Result<(), SystemError> {
    let mut words = options(unit, &["--service-type=exec"]);
    words.extend(program.words);
    Ok(run(&words).await?)
}

/// Starts the program after a while, and again until it ends well.
pub async fn arm(unit: &str, after: Duration, program: Program) -> Result<(), SystemError> {
    let after = format!("--on-active={}ms", after.as_millis());
    let mut words = options(
        unit,
        &[
            &after,
            "--timer-property=AccuracySec=100ms",
            "--service-type=exec",
            "--property=Restart=on-failure",
            "--property=RestartSec=5s",
            "--property=StartLimitIntervalSec=0",
        ],
    );
    words.extend(program.words);
    Ok(run(&words).await?)
}

/// Takes timers away; they need not be there.
pub async fn disarm() {
    for unit in [ROLLBACK, SWITCH_LIMIT] {
        let unit = format!("{unit}.timer");
        // One that has gone off, or was never armed, is unknown to systemd.
        let _ = command::run("systemctl", &["stop", &unit], None, ASK_LIMIT).await;
    }
}

/// Ends an activation that hangs.
pub async fn stop_activation() {
    let unit = format!("{ACTIVATION}.service");
    let _ = command::run("systemctl", &["stop", &unit], None, ASK_LIMIT).await;
}

/// Whether a unit is anything but inactive or failed.
pub async fn is_alive(unit: &str) -> Result<bool, SystemError> {
    let show = ["show", "--property=ActiveState", "--value", unit];
    let said = command::run("systemctl", &show, None, ASK_LIMIT)
        .await?
        .checked()?;
    let state = String::from_utf8_lossy(&said);
    Ok(!["inactive", "failed", ""].contains(&state.trim()))
}

/// Whether something will still take an activation that waits to its end.
pub async fn is_guarded() -> Result<bool, SystemError> {
    for unit in [ROLLBACK, SWITCH_LIMIT] {
        for kind in ["timer", "service"] {
            if is_alive(&format!("{unit}.{kind}")).await? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Runs a system's migrations as the API's unit runs the API: its user, its configuration, its password.
pub async fn migrate(host: &Host, command: &[String], limit: Duration) -> Result<(), SystemError> {
    let sealed = host.path(path::SEALED_PASSWORD);
    let property = |name: &str, prefix: &str, value: &Path| {
        OsString::from(format!("--property={name}={prefix}{}", value.display()))
    };
    let mut words = options(
        MIGRATION,
        &[
            "--wait",
            "--pipe",
            "--service-type=exec",
            "--property=DynamicUser=yes",
            "--property=User=drawbridge",
            "--property=ProtectSystem=strict",
            "--property=ProtectHome=yes",
            "--property=PrivateDevices=yes",
            "--property=PrivateTmp=yes",
            "--property=CapabilityBoundingSet=",
            "--property=IPAddressDeny=169.254.169.254/32",
        ],
    );
    words.push(format!("--property=RuntimeMaxSec={}s", limit.as_secs()).into());
    words.push(property(
        "LoadCredentialEncrypted",
        "database-password:",
        &sealed,
    ));
    words.push(property(
        "EnvironmentFile",
        "-",
        &host.path(path::ENVIRONMENT),
    ));
    words.push(
        format!(
            "--setenv=DRAWBRIDGE_CONFIG={}",
            host.path(path::CONFIG).display()
        )
        .into(),
    );
    words.extend(command.iter().map(OsString::from));
    let ran = command::run("systemd-run", &words, None, limit + GRACE).await?;
    match ran.checked() {
        // The line is ours and long; what the program said is what helps.
        Err(CommandError::Failed { status, said, .. }) => {
            Err(SystemError::Migrations(format!("{status}: {said}")))
        }
        ran => Ok(ran.map(drop)?),
    }
}

/// `switch-to-configuration` of a system.
pub async fn switch(system: PathBuf, action: &str, limit: Duration) -> Result<(), CommandError> {
    let program = system.join("bin/switch-to-configuration");
    let ran = command::run(program, &[action], None, limit).await?;
    ran.checked().map(drop)
}
