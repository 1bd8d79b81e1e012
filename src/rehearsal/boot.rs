//! Switches all machines on and waits until first boot has finished on each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::authority::Authority;
use super::emulator::Emulator;
use super::hosts::{self, API_UNIT, BOOTSTRAP_UNIT};
use super::load_balancer;
use super::machine::{Files, HERE, Machine};
use super::metadata_service;
use super::report::Current;
use super::systemd;
use super::tools::Tools;
use super::topology::{Instance, Topology};
use super::volumes::Volume;
use super::world::World;
use crate::appliance::{BootstrapReport, ReportState, Role, Step, path};
use crate::flows::Flow;

/// First boot takes some two seconds here; a busy machine stretches that.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(600);
/// As long as no host comes a step further; none takes more than a few seconds.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// haproxy's unit on a load balancer's node.
const HAPROXY_UNIT: &str = "haproxy.service";

/// How instances are run.
pub enum Lane {
    /// As plain processes in namespaces, with files and units written by [`hosts`].
    Processes,
    /// Booted, as their images would.
    Systemd(systemd::Images),
}

/// All machines that are switched on.
pub struct Fleet {
    lane: Lane,
    /// The instances by role.
    pub instances: BTreeMap<Role, Machine>,
    /// The load balancer's nodes.
    pub nodes: Vec<Machine>,
    volumes: Vec<Volume>,
    topology: Arc<Topology>,
}

impl Fleet {
    /// Switches everything on.
    ///
    /// # Errors
    /// The machine that does not come up.
    pub fn boot(
        lane: Lane,
        world: &World,
        tools: &Tools,
        topology: &Arc<Topology>,
        authority: &Authority,
        flows: &[Flow],
    ) -> Result<Fleet> {
        metadata_service::start(topology)?;
        let mut volumes = Vec::new();
        for (id, gib) in topology
            .instances()
            .flat_map(|(_, instance)| &instance.volumes)
        {
            volumes.push(Volume::attach(&world.inside.join("volumes"), id, *gib)?);
        }
        let mut fleet = Fleet {
            lane,
            instances: BTreeMap::new(),
            nodes: Vec::new(),
            volumes,
            topology: Arc::clone(topology),
        };
        for (_, instance) in topology.instances() {
            let folder = folder(world, instance.role.as_str());
            match &fleet.lane {
                Lane::Processes => {
                    hosts::prepare(&folder, instance, topology, tools, authority.file(), flows)?
                }
                Lane::Systemd(images) => {
                    let links = fleet.devices(instance);
                    images.prepare(&folder, instance, &links, authority.file())?;
                }
            }
            fleet.start_instance(world, tools, instance)?;
        }
        for node in topology.load_balancer_nodes() {
            let folder = folder(world, &node.name);
            let resolve = |id: &str| {
                topology
                    .instances()
                    .find(|(_, i)| i.id == id)
                    .map(|(host, _)| host.address)
            };
            let balancer = &topology.load_balancer;
            let config =
                load_balancer::haproxy_config(balancer, node.address, Path::new(HERE), resolve);
            let units = folder.join("here/units");
            fs::create_dir_all(&units)
                .with_context(|| format!("cannot create {}", units.display()))?;
            if balancer.has_certificate() {
                // Also for this machine's own browser, to which the node is at 127.0.0.1.
                let issued = authority.issue(&[balancer.host(), "localhost", "127.0.0.1"])?;
                fs::write(
                    folder.join("here").join(load_balancer::CERTIFICATE),
                    issued.certificate + &issued.key,
                )
                .context("cannot write the load balancer's certificate")?;
            }
            fs::write(folder.join("here/haproxy.cfg"), config)
                .context("cannot write haproxy.cfg")?;
            let unit = "exec haproxy -db -f /run/rehearsal/haproxy.cfg\n";
            fs::write(units.join(HAPROXY_UNIT), unit).context("cannot write haproxy's unit")?;
            hosts::write_systemctl(&folder)?;
            let machine = Machine::start(&node.name, &folder, &Files::Shared)?;
            machine.start_units(&[HAPROXY_UNIT])?;
            fleet.nodes.push(machine);
        }
        Ok(fleet)
    }

    fn start_instance(&mut self, world: &World, tools: &Tools, instance: &Instance) -> Result<()> {
        let folder = folder(world, instance.role.as_str());
        let devices = self.devices(instance);
        let machine = match &self.lane {
            Lane::Processes => hosts::boot(&folder, instance, tools, &devices)?,
            Lane::Systemd(images) => images.boot(&folder, instance, tools, &devices)?,
        };
        self.instances.insert(instance.role, machine);
        Ok(())
    }

    /// The volumes attached to an instance: device and the path it is known by there.
    fn devices(&self, instance: &Instance) -> Vec<(PathBuf, String)> {
        let attached = |volume: &&Volume| instance.volumes.iter().any(|(id, _)| *id == volume.id);
        self.volumes
            .iter()
            .filter(attached)
            .map(|volume| (volume.device.clone(), volume.link.clone()))
            .collect()
    }

    /// Reboots an instance: no process survives, its disks do. One with a systemd goes down by itself; the power of
    /// another is cut.
    ///
    /// # Errors
    /// If it does not go down or come up.
    pub fn reboot(&mut self, world: &World, tools: &Tools, role: Role) -> Result<()> {
        if let Some(machine) = self.instances.get_mut(&role)
            && machine.systemd().is_some()
        {
            systemd::go_down(machine)?;
        }
        drop(self.instances.remove(&role));
        let topology = Arc::clone(&self.topology);
        let (_, instance) = topology
            .instance_host(role)
            .with_context(|| format!("the state holds no {role}"))?;
        self.start_instance(world, tools, instance)
    }

    /// What instances were booted from, if they have a systemd.
    pub fn images(&self) -> Option<&systemd::Images> {
        match &self.lane {
            Lane::Processes => None,
            Lane::Systemd(images) => Some(images),
        }
    }

    /// An instance's machine.
    ///
    /// # Errors
    /// If the state describes none.
    pub fn instance(&self, role: Role) -> Result<&Machine> {
        self.instances
            .get(&role)
            .with_context(|| format!("the state holds no {role}"))
    }

    /// Waits until every instance's own report says complete, and says how long each took.
    ///
    /// # Errors
    /// The instance that is not complete in time, the step it stands at, and the end of its log.
    pub fn wait_for_bootstrap(
        &self,
        step: &mut Current<'_>,
        emulator: &mut Emulator,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut changed = begun;
        let mut shown = String::new();
        // A bootstrap that fails begins again: only what was never seen before is progress.
        let mut seen = BTreeSet::new();
        let mut failures: BTreeMap<Role, String> = BTreeMap::new();
        let mut missing: Vec<Role> = self.instances.keys().copied().collect();
        loop {
            emulator.check()?;
            let mut standing = Vec::new();
            for role in std::mem::take(&mut missing) {
                let report = self.report(role)?;
                let instance = self
                    .topology
                    .instance_host(role)
                    .map(|(_, instance)| instance.id.as_str());
                if instance.is_some_and(|id| {
                    report
                        .as_ref()
                        .is_some_and(|report| report.is_complete_for(id))
                }) {
                    let seconds = begun.elapsed().as_secs_f64();
                    step.prove(
                        format!("{role} has bootstrapped"),
                        true,
                        format!("complete after {seconds:.1} s"),
                    );
                    continue;
                }
                standing.push(match report {
                    Some(BootstrapReport {
                        step,
                        error: Some(error),
                        ..
                    }) => {
                        let failure = format!("{role} at {step}: {error}");
                        failures.insert(role, failure.clone());
                        failure
                    }
                    Some(BootstrapReport { step, .. }) => format!("{role} at {step}"),
                    None => format!("{role} has not begun"),
                });
                missing.push(role);
            }
            if missing.is_empty() {
                return Ok(());
            }
            let standing = standing.join(", ");
            if standing != shown {
                step.line(&standing);
                shown.clone_from(&standing);
                if seen.insert(standing.clone()) {
                    changed = Instant::now();
                }
            }
            if begun.elapsed() > BOOTSTRAP_LIMIT || changed.elapsed() > STEP_LIMIT {
                let logs: Vec<String> = missing
                    .iter()
                    .filter_map(|role| self.instances.get(role))
                    .flat_map(|machine| [BOOTSTRAP_UNIT, API_UNIT].map(|unit| (machine, unit)))
                    .filter_map(|(machine, unit)| {
                        let tail = machine.log_tail(unit)?;
                        Some(format!(
                            "\n{}'s log of {unit} ends:\n{tail}",
                            machine.name()
                        ))
                    })
                    .collect();
                let before: String = missing
                    .iter()
                    .filter_map(|role| failures.get(role))
                    .filter(|failure| !standing.contains(*failure))
                    .map(|failure| format!("; before that, {failure}"))
                    .collect();
                bail!(
                    "not bootstrapped after {} s: {standing}{before}{}",
                    begun.elapsed().as_secs(),
                    logs.concat()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// After a reboot: the bootstrap has looked at everything again and found it complete, with no way out. The report
    /// alone would not do: it said complete before.
    ///
    /// # Errors
    /// If it does not come to an end, or left no report.
    pub fn prove_booted_again(&self, step: &mut Current<'_>, role: Role) -> Result<()> {
        let machine = self.instance(role)?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = machine.outcome(BOOTSTRAP_UNIT)? {
                break status;
            }
            ensure!(
                begun.elapsed() < BOOTSTRAP_LIMIT,
                "{role}: {BOOTSTRAP_UNIT} does not end"
            );
            std::thread::sleep(Duration::from_millis(100));
        };
        let report = self
            .report(role)?
            .with_context(|| format!("{role} has no report"))?;
        step.prove(
            format!("{role}'s bootstrap is complete without the internet"),
            status == "0" && report.step == Step::Complete && report.error.is_none(),
            match report.error {
                Some(error) => error,
                None if status == "0" => report.step.to_string(),
                None => format!(
                    "it ended with {status:?} and said last: {}",
                    machine
                        .log_tail(BOOTSTRAP_UNIT)
                        .unwrap_or_default()
                        .lines()
                        .last()
                        .unwrap_or_default()
                ),
            },
        );
        Ok(())
    }

    fn report(&self, role: Role) -> Result<Option<BootstrapReport>> {
        let file = self.instance(role)?.file(path::REPORT);
        Ok(match fs::read_to_string(&file) {
            Ok(text) => match ReportState::parse(&text) {
                ReportState::Reported(report) => Some(report),
                ReportState::Pending => None,
                ReportState::Unreadable { reason } => bail!("{role}: {}: {reason}", file.display()),
            },
            Err(_) => None,
        })
    }
}

/// Where a machine's files are.
fn folder(world: &World, machine: &str) -> PathBuf {
    world.inside.join("machines").join(machine)
}
