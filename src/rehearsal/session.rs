//! One rehearsal from beginning to end: the steps in their order, and what they hand to each other.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::audit::Audit;
use super::authority::Authority;
use super::boot::{Fleet, Lane};
use super::emulator::Emulator;
use super::follower::Follower;
use super::machine::{Machine, quoted};
use super::namespaces::Network;
use super::publish::Port;
use super::report::{Report, Reporter};
use super::site::Site;
use super::stand_ins::StandIns;
use super::tools::Tools;
use super::topology::Topology;
use super::world::World;
use super::{
    RehearseArgs, closing, deploy, flow_matrix, invariants, keep_logs, proofs, reopening, sandbox,
    ssh, status, systemd, tunnel,
};
use crate::appliance::Role;
use crate::command::access::BASTION_VARIABLE;
use crate::flows;
use crate::progress::Progress;

/// File name of the certificate that vouches for the pretend AWS and the deployment's domain.
const AUTHORITY: &str = "authority.pem";

/// What a rehearsal begins with.
pub struct Session {
    /// Arguments of the command.
    pub args: RehearseArgs,
    /// The repository.
    pub root: PathBuf,
    /// The programs it uses.
    pub tools: Tools,
    /// The Terraform folder that is rehearsed; read, never written.
    pub source: PathBuf,
    /// Where to show how far it is.
    pub progress: Progress,
}

/// What stands at the end, until this is dropped.
struct Standing {
    invitation: String,
    _machines: (Machine, Fleet),
    _network: Follower,
    _emulator: Emulator,
}

impl Session {
    /// Rehearses, reports, and calls `stay` while everything stands, if all proofs held. Returns whether they did.
    ///
    /// # Errors
    /// If nothing could be begun, or the report could not be given; the rest is in the report.
    pub fn run(self, stay: impl FnOnce()) -> Result<bool> {
        let web = Port::take(self.args.web_port(), "--port")?;
        let ssh = Port::take(0, "--port")?;
        sandbox::cover_run(&self.args.work_dir)?;
        let world = World::create(&self.args.work_dir)?;
        systemd::name_after(&world.inside);
        let mut reporter = Reporter::new(self.progress.clone());
        let result = self.rehearse(&world, &mut reporter, web, ssh);
        let report = reporter.finish(result.as_ref().err());
        self.print(&report, result.as_ref().ok())?;
        if let Some(target) = &self.args.logs {
            keep_logs(&world.inside, target)?;
        }
        if let Ok(standing) = result {
            stay();
            drop(standing);
        }
        Ok(report.held)
    }

    fn rehearse(
        &self,
        world: &World,
        reporter: &mut Reporter,
        web: Port,
        ssh: Port,
    ) -> Result<Standing> {
        let authority = Authority::create(&world.inside.join(AUTHORITY))?;
        let (mut network, mut emulator) = reporter.step("Start the AWS emulator", |_| {
            let network = Network::start()?;
            let folder = world.inside.join("emulator");
            let emulator = Emulator::start(&self.tools.python, &folder, &authority)?;
            Ok((network, emulator))
        })?;
        let operator = deploy::Operator::new(self, world, &emulator)?;
        reporter.step("terraform apply", |step| {
            operator.apply(step, &mut emulator)
        })?;
        let flows = flows::read(&operator.terraform_dir.join("flows.json"))?;
        let (topology, stray) =
            reporter.step("Build the network that the state describes", |step| {
                let topology = operator.topology()?;
                invariants::prove(step, &topology);
                let stray = deploy::stray(&topology)?;
                network.follow(&topology, &stray)?;
                Ok((topology, stray))
            })?;
        let machine = operator.switch_on(&topology)?;
        let follower = Follower::start(operator.state_file(), network, topology, stray);
        let script = closing::Script {
            operator: &operator,
            machine: &machine,
            root: &self.root,
        };
        reporter.step("Close the window too early", |step| {
            closing::too_early(step, &script, &mut emulator)
        })?;
        let topology = follower.topology()?;
        let mut fleet = reporter.step("Boot every instance", |step| {
            let lane = self.lane()?;
            let fleet = Fleet::boot(lane, world, &self.tools, &topology, &authority, &flows)?;
            fleet.wait_for_bootstrap(step, &mut emulator)?;
            Ok(fleet)
        })?;
        let stand_ins = StandIns::listen(&topology, &flows)?;
        let load_balancer = topology
            .web_address()
            .context("no load balancer node has a public address")?;
        let local = local(&topology, lead(web, load_balancer)?, &authority)?;
        let ssh_address = lead(ssh, bastion_address(&topology)?)?;
        let ssh_folder = world.inside.join("ssh");
        reporter.step("Use it", |step| {
            proofs::browser(step, &topology, &authority, &local)?;
            proofs::nat_path(step, &topology, &emulator)?;
            ssh::prove(step, &operator, &machine, &ssh_folder, &topology, &flows)
        })?;
        reporter.step("Try what tunnel may not", |step| {
            let folder = world.inside.join("tunnel");
            let host = |role| fleet.instance(role);
            tunnel::prove(step, &operator, &machine, &folder, &topology, host)
        })?;
        reporter.step("Try every way in and across", |step| {
            flow_matrix::prove(step, &topology, follower.stray(), &flows, &stand_ins)
        })?;
        reporter.step("Look for the database password", |step| {
            proofs::secrets(step, &topology, &operator, &machine, &world.inside)
        })?;
        let trial = systemd::Trial {
            topology: &topology,
            flows: &flows,
            operator: &operator,
            machine: &machine,
            ssh_folder: &ssh_folder,
        };
        if let Some(images) = fleet.images() {
            reporter.step("Look into every booted host", |step| {
                trial.look(step, &fleet, images)
            })?;
            // Needs systemd too: the API's socket has to outlive the API.
            reporter.step("drawbridge rotate-password", |step| {
                trial.rotate(step, &fleet, &authority)?;
                proofs::secrets(step, &topology, &operator, &machine, &world.inside)
            })?;
        }
        let gateway = topology
            .nat_gateway()
            .and_then(|gateway| gateway.public)
            .context("there is no NAT gateway to close")?;
        reporter.step("scripts/destroy-nat.sh", |step| {
            closing::close(step, &script, &mut emulator)
        })?;
        let closed = follower.topology()?;
        let look = status::Look::start(&script, &world.inside)?;
        let audit = Audit::start(&script, &world.inside)?;
        reporter.step("Use it with the window closed", |step| {
            closing::nothing_left(step, &operator, gateway)?;
            proofs::no_egress(step)?;
            proofs::everyday(step, &closed, &authority, &operator, &machine, &ssh_folder)?;
            // Before a host is rebooted.
            look.prove(step)
        })?;
        // Without a systemd the database's host has nothing of its own to come back by that the backend's has not.
        let rebooted = match fleet.images() {
            None => &invariants::PRIVATE[..1],
            Some(_) => &invariants::PRIVATE,
        };
        for &role in rebooted {
            reporter.step(&format!("Reboot the {role} with no way out"), |step| {
                let kept = fleet
                    .images()
                    .map(|_| systemd::Kept::of(fleet.instance(role)?))
                    .transpose()?;
                fleet.reboot(world, &self.tools, role)?;
                proofs::no_egress(step)?;
                proofs::everyday(step, &closed, &authority, &operator, &machine, &ssh_folder)?;
                fleet.prove_booted_again(step, role)?;
                if let (Some(kept), Some(images)) = (kept, fleet.images()) {
                    kept.prove(step, images, role, fleet.instance(role)?)?;
                }
                Ok(())
            })?;
        }
        if let Some(images) = fleet.images() {
            // The state of the reboots before is behind, and nothing comes after that would boot an image again.
            reporter.step("drawbridge deploy, with no way out", |step| {
                trial.deploy(step, &fleet, &authority)
            })?;
            reporter.step("Break what runs, with no way out", |step| {
                trial.break_things(step, &fleet, images)
            })?;
        }
        reporter.step("drawbridge audit", |step| audit.prove(step))?;
        if self.args.reopen {
            let gateway = reporter.step("drawbridge nat open", |step| {
                reopening::prove(step, &script, &mut emulator, &world.inside, gateway)
            })?;
            reporter.step("Use it with the window closed again", |step| {
                closing::nothing_left(step, &operator, gateway)?;
                proofs::no_egress(step)?;
                proofs::everyday(step, &closed, &authority, &operator, &machine, &ssh_folder)
            })?;
        }
        let published = [(BASTION_VARIABLE.to_owned(), ssh_address.to_string())];
        ssh::write_config(&operator, &machine, &world.outside, published)?;
        if topology.load_balancer.has_certificate() {
            let file = world.outside.join(AUTHORITY);
            fs::write(&file, authority.certificate())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        world.give_to_caller()?;
        let invitation = invitation(&self.args.work_dir, &topology, local.base());
        Ok(Standing {
            invitation,
            _machines: (machine, fleet),
            _network: follower,
            _emulator: emulator,
        })
    }

    /// How instances are run, as the arguments say.
    fn lane(&self) -> Result<Lane> {
        if self.args.systemd {
            let images = systemd::Images::find(&self.root, self.args.evaluated.as_deref())?;
            Ok(Lane::Systemd(images))
        } else {
            Ok(Lane::Processes)
        }
    }

    fn print(&self, report: &Report, standing: Option<&Standing>) -> Result<()> {
        let say = |text: &str| text.lines().for_each(|line| self.progress.say(line));
        say(&report.summary());
        if !report.held && self.args.logs.is_none() {
            say("The logs are gone with the machines; --logs DIR keeps them.");
        }
        // Whoever reads our output may have gone, as `head` does; that is no reason to fail.
        let mut out = std::io::stdout().lock();
        if self.args.json {
            let json = serde_json::to_string_pretty(report).context("cannot write the report")?;
            let _ = writeln!(out, "{json}");
        }
        if let Some(standing) = standing.filter(|_| !self.args.exit) {
            if self.args.json {
                say(&standing.invitation);
            } else {
                let _ = writeln!(out, "{}", standing.invitation);
            }
        }
        Ok(())
    }
}

/// The API on a port of this machine.
fn local(topology: &Topology, at: SocketAddr, authority: &Authority) -> Result<Site> {
    let scheme = if topology.load_balancer.has_certificate() {
        "https"
    } else {
        "http"
    };
    Site::new(None, format!("{scheme}://{at}"), at, authority)
}

fn lead(port: Port, target: SocketAddr) -> Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()?));
    port.lead_to(target)?;
    Ok(address)
}

fn bastion_address(topology: &Topology) -> Result<SocketAddr> {
    let (host, _) = topology
        .instance_host(Role::Bastion)
        .context("the state holds no bastion")?;
    Ok(SocketAddr::from((
        host.public.context("the bastion has no public address")?,
        22,
    )))
}

fn invitation(folder: &Path, topology: &Topology, base: &str) -> String {
    let config = quoted(&folder.join("ssh_config"));
    let balancer = &topology.load_balancer;
    let (trust, note) = if balancer.has_certificate() {
        (
            format!("--cacert {} ", quoted(&folder.join(AUTHORITY))),
            format!(
                "\n                     It stands for {}; the browser warns of a certificate of the rehearsal's own.",
                balancer.url
            ),
        )
    } else {
        (String::new(), String::new())
    };
    format!(
        "\nOpen in a browser:   {base}/docs{note}\nor on a terminal:    curl {trust}{base}/items\nSign in:             \
         ssh -F {config} backend\n                     ssh -F {config} database\n\nEverything stands until Ctrl-C."
    )
}
