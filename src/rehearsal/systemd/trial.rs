//! What is tried on booted hosts only, in the order in which a rehearsal comes to it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{Images, ask, crashes, draining, firewall, sandboxing, units};
use crate::appliance::Role;
use crate::flows::Flow;
use crate::rehearsal::boot::Fleet;
use crate::rehearsal::deploy::Operator;
use crate::rehearsal::machine::Machine;
use crate::rehearsal::proofs;
use crate::rehearsal::report::Current;
use crate::rehearsal::ssh;
use crate::rehearsal::topology::Topology;

/// With systemd holding it, the API's socket survives the API.
const API_SOCKET: &str = "drawbridge-api.socket";

/// What the rehearsal has by then.
pub struct Trial<'a> {
    /// The network.
    pub topology: &'a Topology,
    /// All of `flows.json`.
    pub flows: &'a [Flow],
    /// Whose keys open the hosts.
    pub operator: &'a Operator,
    /// Where the operator is.
    pub machine: &'a Machine,
    /// Folder of the operator's `ssh_config`.
    pub ssh_folder: &'a Path,
}

impl Trial<'_> {
    /// Looks at every host and changes nothing.
    ///
    /// # Errors
    /// If an image cannot be read, or the state holds no such host.
    pub fn look(&self, step: &mut Current<'_>, fleet: &Fleet, images: &Images) -> Result<()> {
        for role in Role::ALL {
            let machine = fleet.instance(role)?;
            let image = images.of(role)?;
            let (host, _) = self
                .topology
                .instance_host(role)
                .with_context(|| format!("the state holds no {role}"))?;
            units::prove_running(step, &image, machine);
            units::prove_exposure(step, &image, machine)?;
            firewall::prove(step, machine, host, self.flows);
            step.prove_result(
                if image.has_sudo() {
                    format!("{role}: an operator may become root")
                } else {
                    format!("{role}: nobody may become root")
                },
                self.root(role, image.has_sudo()),
            );
        }
        sandboxing::prove(step, fleet.instance(Role::Backend)?);
        step.prove_result(
            "no booted host has the database password in clear outside of its credentials",
            self.no_password(fleet),
        );
        Ok(())
    }

    /// Kills and restarts things, one after the other; each has to serve again before the next.
    ///
    /// # Errors
    /// If the state holds no such host.
    pub fn break_things(
        &self,
        step: &mut Current<'_>,
        fleet: &Fleet,
        images: &Images,
    ) -> Result<()> {
        let backend = fleet.instance(Role::Backend)?;
        crashes::prove_api(step, backend);
        crashes::prove_postgres(step, fleet.instance(Role::Database)?, backend);
        for role in Role::ALL {
            let sign_in = || ssh::sign_in(self.operator, self.machine, self.ssh_folder, role);
            crashes::prove_sshd(step, fleet.instance(role)?, &sign_in);
        }
        let keeps_socket = images.of(Role::Backend)?.units()?.contains(API_SOCKET);
        draining::prove(step, self.topology, backend, keeps_socket)
    }

    fn root(&self, role: Role, allowed: bool) -> Result<String> {
        let output = ssh::run(
            self.operator,
            self.machine,
            self.ssh_folder,
            role,
            "sudo -n id -un",
        )?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let problem = String::from_utf8_lossy(&output.stderr);
        let problem = problem.lines().last().unwrap_or_default().trim();
        if allowed {
            ensure!(said == "root", "sudo -n id -un says {said:?}: {problem}");
            return Ok("sudo -n id -un says root".to_owned());
        }
        // 255 is ssh's own: the command was not even tried.
        ensure!(
            output.status.code() != Some(255) && !output.status.success(),
            "sudo -n id -un: {} {said} {problem}",
            output.status
        );
        Ok(problem.to_owned())
    }

    /// Logs, environments and `/run`; disks and arguments are searched with everything else of the rehearsal.
    fn no_password(&self, fleet: &Fleet) -> Result<String> {
        let secret = proofs::login(self.topology, self.operator, self.machine)?.password;
        let looks: BTreeMap<&str, &str> = BTreeMap::from([
            ("journal", "journalctl --no-pager --output=cat"),
            (
                "environments",
                "cat /proc/[0-9]*/environ 2>/dev/null || true",
            ),
            (
                "/run",
                "find /run -xdev -type f -not -path '/run/credentials/*' -exec cat {} + 2>/dev/null || true",
            ),
        ]);
        let mut searched = 0;
        for role in Role::ALL {
            for (place, look) in &looks {
                let found = ask(fleet.instance(role)?, &["sh", "-c", look])?;
                ensure!(!found.is_empty(), "{role}: nothing to search in {place}");
                ensure!(!found.contains(&secret), "{role}: found in {place}");
                searched += found.len();
            }
        }
        Ok(format!(
            "{} kB of journals, environments and /run searched",
            searched / 1000
        ))
    }
}
