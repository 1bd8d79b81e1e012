//! What a reboot may not take away.

use anyhow::{Result, ensure};

use super::{Images, ask, units};
use crate::appliance::Role;
use crate::rehearsal::hosts::BOOTSTRAP_UNIT;
use crate::rehearsal::machine::Machine;
use crate::rehearsal::report::Current;

/// Sealed credentials of a host, and their checksums.
const SEALED: &str = "find /var/lib/drawbridge -name '*.cred' -exec sha256sum {} +";

/// What a host has before a reboot.
pub struct Kept {
    sealed: String,
}

impl Kept {
    /// Looks at a host before its reboot.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn of(machine: &Machine) -> Result<Kept> {
        let sealed = ask(machine, &["sh", "-c", SEALED])?;
        Ok(Kept { sealed })
    }

    /// Looks again, afterwards.
    ///
    /// # Errors
    /// If the image cannot be read.
    pub fn prove(
        &self,
        step: &mut Current<'_>,
        images: &Images,
        role: Role,
        machine: &Machine,
    ) -> Result<()> {
        units::prove_running(step, &images.of(role)?, machine);
        step.prove_result(
            format!("{role}: the journal of the boot before is kept"),
            journal(machine),
        );
        if role == Role::Backend {
            step.prove_result(
                "backend: the sealed password is the same and still opens",
                self.sealed(machine),
            );
        }
        Ok(())
    }

    /// The API is ready by then, so what it was given opened.
    fn sealed(&self, machine: &Machine) -> Result<String> {
        let now = ask(machine, &["sh", "-c", SEALED])?;
        ensure!(!now.is_empty(), "nothing is sealed");
        ensure!(now == self.sealed, "before: {}; now: {now}", self.sealed);
        super::crashes::ready(machine)
    }
}

fn journal(machine: &Machine) -> Result<String> {
    let boots = ask(
        machine,
        &["journalctl", "--list-boots", "--quiet", "--no-pager"],
    )?;
    let before = ask(
        machine,
        &[
            "journalctl",
            "--boot=-1",
            "--quiet",
            "--no-pager",
            "--output=cat",
            "--unit",
            BOOTSTRAP_UNIT,
        ],
    )?;
    ensure!(
        !before.is_empty(),
        "it says nothing of {BOOTSTRAP_UNIT} in the boot before; boots: {boots}"
    );
    Ok(format!(
        "{} boots, {} lines of first boot",
        boots.lines().count(),
        before.lines().count()
    ))
}
