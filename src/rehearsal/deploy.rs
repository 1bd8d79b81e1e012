//! The operator's side: a copy of the Terraform folder, keys, the environment that leads to the emulator, and the
//! machine in the rehearsed internet from which commands are given.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::emulator::{Emulator, IMAGES};
use super::follower::read_state;
use super::machine::{Files, Machine};
use super::namespaces;
use super::network::{INTERNET, OPERATOR, Stray};
use super::report::Current;
use super::sandbox::SCRATCH;
use super::session::Session;
use super::topology::Topology;
use super::world::World;
use crate::command::access::IDENTITY_VARIABLE;
use crate::nat::position::Position;
use crate::terraform::{self, CliConfig, Terraform};

/// One that fits [`IMAGES`], whatever processor somebody has chosen for theirs: nothing here runs on it.
const INSTANCE_TYPE: &str = "t3.micro";

/// Who gives the commands, and with what.
pub struct Operator {
    /// The rehearsed Terraform folder with its state.
    pub terraform_dir: PathBuf,
    /// Everything a command needs to find the emulator, the Terraform folder and the key.
    pub environment: Vec<(String, String)>,
    /// Private key that may sign in as `admin`.
    pub identity: PathBuf,
    /// Private key that may sign in as `tunnel` only.
    pub tunnel_identity: PathBuf,
    terraform: Terraform,
    folder: PathBuf,
    plugins: PathBuf,
}

impl Operator {
    /// Copies the Terraform folder and makes a key.
    ///
    /// # Errors
    /// If a file cannot be copied or written.
    pub fn new(session: &Session, world: &World, emulator: &Emulator) -> Result<Operator> {
        let terraform_dir = world.inside.join("terraform");
        copy_configuration(&session.source, &terraform_dir)?;
        let (identity, public_key) = make_key(&world.outside, "id_ed25519")?;
        let (tunnel_identity, tunnel_key) = make_key(&world.outside, "tunnel_ed25519")?;
        let type_of_each = IMAGES.map(|(role, _)| (role.to_owned(), json!(INSTANCE_TYPE)));
        let variables = json!({
            "admin_cidrs": [format!("{OPERATOR}/32")],
            "admin_ssh_keys": { "rehearsal": public_key },
            "tunnel_ssh_keys": { "tunnel": tunnel_key },
            "images": serde_json::Map::from_iter(IMAGES.map(|(role, id)| (role.to_owned(), json!(id)))),
            "instance_types": serde_json::Map::from_iter(type_of_each),
        });
        // Read after the position and the published images, in alphabetical order, and so stronger than them.
        let file = terraform_dir.join("rehearsal.auto.tfvars.json");
        fs::write(&file, variables.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        // The state stays in the copy, whatever backend somebody has configured.
        let file = terraform_dir.join("rehearsal_override.tf");
        fs::write(&file, "terraform {\n  backend \"local\" {}\n}\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
        // A committed position may be closed; a rehearsal begins where a deployment does.
        Position::Open.write(&terraform_dir)?;
        let mut environment = aws_environment(emulator);
        let program = std::env::current_exe().context("cannot find this program")?;
        let programs = program.parent().unwrap_or(Path::new("/"));
        let path = format!("{}:{}", programs.display(), session.tools.search_path);
        let home = world.inside.join("operator");
        fs::create_dir_all(&home).context("cannot create the operator's home")?;
        environment.extend([
            ("PATH".to_owned(), path),
            ("TMPDIR".to_owned(), SCRATCH.to_owned()),
            ("HOME".to_owned(), home.display().to_string()),
            ("DRAWBRIDGE_BIN".to_owned(), program.display().to_string()),
            (
                terraform::DIRECTORY_VARIABLE.to_owned(),
                terraform_dir.display().to_string(),
            ),
            (IDENTITY_VARIABLE.to_owned(), identity.display().to_string()),
        ]);
        let binary = terraform::executable("terraform", Some(session.tools.search_path.as_ref()))
            .context("terraform has gone from the PATH")?;
        let mut terraform = Terraform::new(binary, terraform_dir.clone())?;
        // Where providers come from is this machine's affair. Our own calls find that out by themselves, from the
        // environment and the home folder of whoever rehearses.
        for (name, value) in environment.iter().filter(|(name, _)| name != "HOME") {
            terraform = terraform.with_variable(name, value);
        }
        // And how much memory terraform and its providers may take to spare processor time.
        for name in [terraform::MIRROR_VARIABLE, "TF_CLI_CONFIG_FILE", "GOGC"] {
            environment.extend(
                std::env::var(name)
                    .ok()
                    .map(|value| (name.to_owned(), value)),
            );
        }
        let plugins = session.root.join(".drawbridge/terraform-plugins");
        Ok(Operator {
            terraform_dir,
            environment,
            identity,
            tunnel_identity,
            terraform,
            folder: world.inside.join("internet"),
            plugins,
        })
    }

    /// `terraform init` and `terraform apply`.
    ///
    /// # Errors
    /// What Terraform says, and whether the emulator still runs.
    pub fn apply(&self, step: &mut Current<'_>, emulator: &mut Emulator) -> Result<()> {
        let terraform = self.terraform.clone().with_progress(step.progress());
        let before = terraform.spent();
        let mut with_cache = terraform.clone();
        // Where there is no mirror, the provider comes from its registry, which only this namespace reaches; it is
        // kept on disk for the next rehearsal.
        if !matches!(terraform::cli_config(), CliConfig::Generate(_)) {
            fs::create_dir_all(&self.plugins)
                .context("cannot create the folder for Terraform's plugins")?;
            with_cache = with_cache.with_variable("TF_PLUGIN_CACHE_DIR", &self.plugins);
        }
        let applying = terraform.clone();
        let result = emulator.while_it_runs(move || {
            run_async(with_cache.init())?;
            namespaces::inside(INTERNET, || run_async(applying.apply_everything()))?
        });
        step.add_terraform(terraform.spent().saturating_sub(before));
        result?;
        let resources = read_state(&self.state_file())?.resource_count();
        step.prove(
            "terraform apply",
            resources > 0,
            format!("{resources} resources in the state"),
        );
        Ok(())
    }

    /// Terraform's state.
    pub fn state_file(&self) -> PathBuf {
        self.terraform_dir.join("terraform.tfstate")
    }

    /// What the state describes.
    ///
    /// # Errors
    /// If it is not understood; names the resource.
    pub fn topology(&self) -> Result<Topology> {
        Ok(Topology::read(&read_state(&self.state_file())?)?)
    }

    /// Switches the operator's machine on. The load balancer's name, and the deployment's, lead to the load balancer's
    /// nodes there, as DNS would have it.
    ///
    /// # Errors
    /// See [`Machine::start`].
    pub fn switch_on(&self, topology: &Topology) -> Result<Machine> {
        let balancer = &topology.load_balancer;
        let mut hosts = String::from("127.0.0.1 localhost\n");
        for address in topology
            .load_balancer_nodes()
            .filter_map(|node| node.public)
        {
            hosts.push_str(&format!(
                "{address} {} {}\n",
                balancer.dns_name,
                balancer.host()
            ));
        }
        let etc = Machine::etc(&self.folder);
        fs::create_dir_all(&etc).context("cannot create the operator's etc")?;
        fs::write(etc.join("hosts"), hosts).context("cannot write the operator's hosts file")?;
        Machine::start(INTERNET, &self.folder, &Files::Shared)
    }
}

/// A place for the rehearsal's own machine: beside the bastion, where an intruder would want to be.
///
/// # Errors
/// If no subnet has an address left.
pub fn stray(topology: &Topology) -> Result<Stray> {
    let subnet = topology
        .hosts
        .iter()
        .find(|host| host.public.is_some())
        .map(|host| host.subnet)
        .context("no host has a public address, so nobody can get in")?;
    let address: Ipv4Addr = topology
        .spare_address(subnet)
        .with_context(|| format!("{} has no address left", topology.subnets[subnet].address))?;
    Ok(Stray { address, subnet })
}

/// Credentials that are nobody's, and no way to find somebody's: what the rehearsal does must never reach an account.
fn aws_environment(emulator: &Emulator) -> Vec<(String, String)> {
    let fixed = [
        ("AWS_ACCESS_KEY_ID", "rehearsal"),
        ("AWS_SECRET_ACCESS_KEY", "rehearsal"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_MAX_ATTEMPTS", "2"),
        ("LANG", "C.UTF-8"),
    ];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let emulator = Emulator::environment(emulator.authority())
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    fixed.into_iter().chain(emulator).collect()
}

/// Copies what Terraform reads, and no state.
fn copy_configuration(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("cannot create {}", target.display()))?;
    let entries =
        fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", source.display()))?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text == ".terraform" || text.contains(".tfstate") {
            continue;
        }
        let (from, to) = (entry.path(), target.join(&name));
        if from.is_dir() {
            copy_configuration(&from, &to)?;
        } else {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

/// Makes a key. Returns the private one's file and the public one's line.
fn make_key(folder: &Path, name: &str) -> Result<(PathBuf, String)> {
    let path = folder.join(name);
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "rehearsal", "-f"])
        .arg(&path)
        .output()
        .context("cannot run ssh-keygen")?;
    if !output.status.success() {
        bail!(
            "ssh-keygen: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .context("cannot protect the operator's key")?;
    let public_key =
        fs::read_to_string(path.with_extension("pub")).context("cannot read the operator's key")?;
    Ok((path, public_key.trim().to_owned()))
}

/// Runs a future to its end on this thread, so that the processes it starts are born in this thread's namespace.
fn run_async<T, E: Into<anyhow::Error>>(future: impl Future<Output = Result<T, E>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(future).map_err(Into::into)
}
