//! Whether what an image starts runs, and how much its units are denied.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::image::Image;
use super::{ASK_LIMIT, ask, properties};
use crate::rehearsal::machine::Machine;
use crate::rehearsal::report::Current;

/// What `systemd-analyze security` calls an exposure of 2.0 and less is "OK"; 10 is a unit that nothing is denied.
const WORST_EXPOSURE: f64 = 2.0;
/// Boot is over a second or two after bootstrap is.
const SETTLE_LIMIT: Duration = Duration::from_secs(600);

/// Every unit of the image runs or has done its work, and nothing on the host has failed.
pub fn prove_running(step: &mut Current<'_>, image: &Image, machine: &Machine) {
    step.prove_result(
        format!(
            "{}: every unit of its image runs, none has failed",
            machine.name()
        ),
        running(image, machine),
    );
}

fn running(image: &Image, machine: &Machine) -> Result<String> {
    let state = settled(machine)?;
    let failed = ask(
        machine,
        &["systemctl", "--failed", "--plain", "--no-legend"],
    )?;
    ensure!(failed.is_empty(), "{state}; failed: {failed}");
    ensure!(state == "running", "systemd says {state}");
    let mut active = Vec::new();
    for unit in image.units()? {
        let seen = properties(
            machine,
            &unit,
            &["ActiveState", "Result", "Type", "RemainAfterExit"],
        )?;
        let is_active = seen["ActiveState"] == "active";
        // Did its work and ended, or had nothing to do: host keys that are there already.
        let is_done = seen["ActiveState"] == "inactive"
            && seen["Type"] == "oneshot"
            && seen["RemainAfterExit"] == "no"
            && seen["Result"] == "success";
        ensure!(
            is_active || is_done,
            "{unit} is {}, its last result {}",
            seen["ActiveState"],
            seen["Result"]
        );
        if is_active {
            active.push(unit);
        }
    }
    ensure!(!active.is_empty(), "no unit of the image is active");
    Ok(active.join(", "))
}

/// What systemd says of the whole host once boot is over.
fn settled(machine: &Machine) -> Result<String> {
    let deadline = Instant::now() + SETTLE_LIMIT;
    loop {
        let output = machine
            .command(&["systemctl", "is-system-running"], ASK_LIMIT)
            .output()?;
        let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !["starting", "initializing"].contains(&state.as_str()) {
            return Ok(state);
        }
        let jobs = ask(
            machine,
            &["systemctl", "list-jobs", "--plain", "--no-legend"],
        )?;
        ensure!(
            Instant::now() < deadline,
            "still {state} after {} s: {jobs}",
            SETTLE_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What the project's own services are denied, as systemd judges it.
///
/// # Errors
/// If the image cannot be read.
pub fn prove_exposure(step: &mut Current<'_>, image: &Image, machine: &Machine) -> Result<()> {
    let units = image.units()?;
    let ours = units
        .iter()
        .filter(|unit| unit.starts_with("drawbridge-") && unit.ends_with(".service"));
    for unit in ours {
        let exposure = exposure(machine, unit);
        step.prove_result(
            format!(
                "{}: systemd-analyze security {unit} is at most {WORST_EXPOSURE:.1}",
                machine.name()
            ),
            exposure.and_then(|exposure| {
                ensure!(exposure <= WORST_EXPOSURE, "{exposure:.1}");
                Ok(format!("{exposure:.1}"))
            }),
        );
    }
    Ok(())
}

fn exposure(machine: &Machine, unit: &str) -> Result<f64> {
    let said = ask(
        machine,
        &["systemd-analyze", "security", "--no-pager", unit],
    )?;
    let marker = format!("exposure level for {unit}: ");
    said.lines()
        .find_map(|line| {
            line.split_once(&marker)?
                .1
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("systemd-analyze does not judge {unit}: {said}"))
}
