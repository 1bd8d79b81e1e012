//! Replacing the system that runs: each step is written down before it is taken, so that whoever comes next, be it after a
//! kill or a reboot, knows what to do.

use std::time::Duration;

use time::OffsetDateTime;

use super::units::{self, Program};
use super::{SystemError, files, store};
use crate::appliance::Role;
use crate::appliance::system::{Activation, Generation, Phase};
use crate::error_chain::chain;
use crate::host::Host;
use crate::host::file;
use crate::host::lock::Lock;

/// A table that grows an index takes minutes.
const MIGRATION_LIMIT: Duration = Duration::from_secs(600);
/// Units stop within their 45 s and start within seconds; the boot loader writes a file.
const SWITCH_LIMIT: Duration = Duration::from_secs(180);
/// How long the one before may take to let go.
const PATIENCE: Duration = Duration::from_secs(20);
/// Changes with every boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Takes the right to change anything; see [`Lock`].
pub async fn lock(host: &Host, patience: Duration) -> Result<Lock, SystemError> {
    files::prepare(host)?;
    let taken = Lock::take_file(&files::lock(host), patience).await?;
    taken.ok_or(SystemError::Busy(
        "another `drawbridge-host system` is at work".into(),
    ))
}

fn boot_id() -> Result<String, SystemError> {
    let read = file::read(std::path::Path::new(BOOT_ID))?;
    Ok(read.unwrap_or_default().trim().to_owned())
}

/// Writes the next phase.
fn enter(host: &Host, activation: &mut Activation, phase: Phase) -> Result<(), SystemError> {
    activation.phase = phase;
    activation.since = OffsetDateTime::now_utc();
    tracing::info!(generation = activation.to.number, "{phase}");
    files::set_activation(host, activation)
}

fn end(
    host: &Host,
    activation: &mut Activation,
    phase: Phase,
    reason: impl Into<String>,
) -> Result<(), SystemError> {
    activation.reason = reason.into();
    enter(host, activation, phase)
}

/// The last activation, with what a kill or a reboot left of it brought to its end.
pub async fn settled(host: &Host) -> Result<Option<Activation>, SystemError> {
    let Some(mut last) = files::activation(host)? else {
        return Ok(None);
    };
    if last.phase.is_over() {
        return Ok(Some(last));
    }
    let before_switch = matches!(last.phase, Phase::Staged | Phase::Migrating);
    if last.boot_id != boot_id()? {
        let (phase, reason) = match before_switch {
            true => (Phase::Failed, "the host restarted before the switch"),
            false => (
                Phase::RolledBack,
                "the host restarted before it was confirmed",
            ),
        };
        end(host, &mut last, phase, reason)?;
    } else if before_switch && !units::is_alive(&format!("{}.service", units::ACTIVATION)).await? {
        let reason = format!("it was cut off while {}", last.phase);
        end(host, &mut last, Phase::Failed, reason)?;
    } else if !before_switch && !units::is_guarded().await? {
        // Its timers are gone, which no one of ours takes away: what they would have done is done now.
        start_rollback(host, &last, Duration::ZERO).await?;
    }
    Ok(Some(last))
}

async fn start_rollback(
    host: &Host,
    last: &Activation,
    after: Duration,
) -> Result<(), SystemError> {
    units::arm(units::ROLLBACK, after, expiry(host, &last.to)?).await
}

fn expiry(host: &Host, to: &Generation) -> Result<Program, SystemError> {
    Program::this(host, &["expire", "--generation", &to.number.to_string()])
}

/// Whether an activation is under way, as an error that says which.
pub async fn refuse_second(host: &Host) -> Result<(), SystemError> {
    match settled(host).await? {
        Some(last) if !last.phase.is_over() => Err(SystemError::Busy(format!(
            "generation {} is {} here",
            last.to.number, last.phase
        ))),
        _ => Ok(()),
    }
}

/// Begins to activate what is staged, in a unit of its own.
pub async fn activate(
    host: &Host,
    role: Role,
    confirm_timeout: u64,
) -> Result<Activation, SystemError> {
    let _lock = lock(host, PATIENCE).await?;
    refuse_second(host).await?;
    let staging = files::staging(host)?.ok_or(SystemError::NothingStaged)?;
    if let Some(closure) = &staging.closure {
        let missing = store::missing(host, closure).len();
        if missing > 0 {
            return Err(SystemError::Incomplete(missing));
        }
    }
    let described = files::description(&host.store(&staging.to.toplevel))?;
    match described.map(|it| it.role) {
        Some(found) if found != role => {
            return Err(SystemError::OtherRole { found, role });
        }
        None if !staging.is_back => return Err(SystemError::NotOurs(staging.to.toplevel)),
        _ => {}
    }
    let from = files::boots(host).ok_or(SystemError::NoGeneration)?;
    if files::current(host).as_ref() != Some(&from.toplevel) {
        return Err(SystemError::OtherCurrent(from.number));
    }
    let mut activation = Activation {
        phase: Phase::Staged,
        is_back: staging.is_back,
        to: staging.to,
        from,
        confirm_timeout,
        reason: String::new(),
        since: OffsetDateTime::now_utc(),
        boot_id: boot_id()?,
    };
    enter(host, &mut activation, Phase::Staged)?;
    let run = Program::this(host, &["run"])?;
    if let Err(error) = units::start(units::ACTIVATION, run).await {
        end(host, &mut activation, Phase::Failed, chain(&error))?;
        return Err(error);
    }
    Ok(activation)
}

/// What [`units::ACTIVATION`] does.
pub async fn run(host: &Host) -> Result<(), SystemError> {
    let _lock = lock(host, PATIENCE).await?;
    let Some(mut activation) = files::activation(host)?.filter(|it| it.phase == Phase::Staged)
    else {
        return Err(SystemError::NothingStaged);
    };
    let system = host.store(&activation.to.toplevel);
    let migrate = files::description(&system)?.and_then(|it| it.migrate);
    // Going back brings no schema: the one there is stays.
    if let Some(command) = migrate.filter(|_| !activation.is_back) {
        enter(host, &mut activation, Phase::Migrating)?;
        if let Err(error) = units::migrate(host, &command, MIGRATION_LIMIT).await {
            return end(host, &mut activation, Phase::Failed, chain(&error));
        }
    }
    // A way back that was cut off at its very end leaves its timers, and their names are wanted again.
    units::disarm().await;
    let confirm = Duration::from_secs(activation.confirm_timeout);
    let armed = units::arm(
        units::SWITCH_LIMIT,
        SWITCH_LIMIT + confirm,
        expiry(host, &activation.to)?,
    );
    if let Err(error) = armed.await {
        let reason = format!("no timer for going back: {}", chain(&error));
        return end(host, &mut activation, Phase::Failed, reason);
    }
    enter(host, &mut activation, Phase::Switching)?;
    if let Err(error) = units::switch(system, "test", SWITCH_LIMIT).await {
        return go_back(host, &mut activation, chain(&error)).await;
    }
    // Written first: the timer may go off before this process has ended.
    enter(host, &mut activation, Phase::Waiting)?;
    match start_rollback(host, &activation, confirm).await {
        Ok(()) => Ok(()),
        Err(error) => go_back(host, &mut activation, chain(&error)).await,
    }
}

/// What the timers do: goes back, unless it was confirmed.
pub async fn expire(host: &Host, generation: u64) -> Result<(), SystemError> {
    // It holds the lock, and has had more than its time; its children go with it.
    if files::activation(host)?.is_some_and(|it| it.phase == Phase::Switching) {
        units::stop_activation().await;
    }
    let _lock = lock(host, PATIENCE).await?;
    let Some(mut activation) = files::activation(host)? else {
        return Ok(());
    };
    if activation.to.number != generation {
        return Ok(());
    }
    let reason = match activation.phase {
        Phase::Switching => "the switch did not end".to_owned(),
        Phase::Waiting => format!(
            "nobody confirmed it within {} s",
            activation.confirm_timeout
        ),
        // A run before this one was cut off; its reason stands.
        Phase::RollingBack => std::mem::take(&mut activation.reason),
        _ => return Ok(()),
    };
    go_back(host, &mut activation, reason).await
}

/// The old system again, by whoever holds the lock.
async fn go_back(
    host: &Host,
    activation: &mut Activation,
    reason: String,
) -> Result<(), SystemError> {
    end(host, activation, Phase::RollingBack, reason)?;
    // A confirmation that was cut off may have told the boot loader already.
    let mut action = "test";
    if files::boots(host).is_none_or(|boots| boots != activation.from) {
        files::set_boots(host, &activation.from)?;
        action = "switch";
    }
    if !activation.is_back {
        files::forget(host, activation.to.number)?;
    }
    let old = host.store(&activation.from.toplevel);
    if let Err(error) = units::switch(old, action, SWITCH_LIMIT).await {
        // A unit that does not start with either system is no reason to try for ever.
        if files::current(host).as_ref() != Some(&activation.from.toplevel) {
            return Err(error.into());
        }
        let said = format!("; with the old system again: {}", chain(&error));
        activation.reason.push_str(&said);
    }
    enter(host, activation, Phase::RolledBack)?;
    units::disarm().await;
    Ok(())
}

/// Makes the generation that runs and waits the one that boots.
pub async fn confirm(host: &Host, generation: u64) -> Result<Activation, SystemError> {
    let _lock = lock(host, PATIENCE).await?;
    let last = settled(host).await?;
    let mut activation = last
        .filter(|it| it.to.number == generation)
        .ok_or(SystemError::OtherGeneration(generation))?;
    match activation.phase {
        // Said once already; the answer was lost.
        Phase::Confirmed => return Ok(activation),
        Phase::Waiting => {}
        _ => return Err(SystemError::TooLate(Box::new(activation))),
    }
    let over = activation.since + Duration::from_secs(activation.confirm_timeout);
    if OffsetDateTime::now_utc() > over {
        return Err(SystemError::TooLate(Box::new(activation)));
    }
    if files::current(host).as_ref() != Some(&activation.to.toplevel) {
        return Err(SystemError::OtherCurrent(generation));
    }
    if let Some(closure) = files::staging(host)?.and_then(|it| it.closure) {
        files::set_closure(host, generation, &closure)?;
    }
    files::set_boots(host, &activation.to)?;
    // What is forgotten has to be so before the boot loader lists what there is.
    store::forget_old(host)?;
    // Where this fails the timers stay, and going back tells the boot loader of the old system again.
    let new = host.store(&activation.to.toplevel);
    let told = units::switch(new, "boot", SWITCH_LIMIT).await;
    told.map_err(SystemError::BootLoader)?;
    enter(host, &mut activation, Phase::Confirmed)?;
    units::disarm().await;
    Ok(activation)
}
