//! The way in: what every command that signs in takes, and `drawbridge ssh-config`, the same for plain OpenSSH.

use std::path::{Path, PathBuf};

use clap::Args;

use super::DeploymentArgs;
use crate::appliance::Role;
use crate::bastion::exec::command_line;
use crate::bastion::ssh_config::SshConfig;
use crate::bastion::{Access, Endpoint, Keyring, Login};
use crate::cloud::Cloud;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::status::look::Way;

/// Environment variable for `--bastion`.
pub const BASTION_VARIABLE: &str = "DRAWBRIDGE_BASTION";
/// Environment variable for `--identity`.
pub const IDENTITY_VARIABLE: &str = "DRAWBRIDGE_IDENTITY";
/// Environment variable for `--login`.
pub const LOGIN_VARIABLE: &str = "DRAWBRIDGE_LOGIN";

/// How to reach the hosts.
#[derive(Args, Clone, Debug)]
pub struct AccessArgs {
    /// Where the bastion answers, instead of port 22 of its public address
    #[arg(long, value_name = "HOST:PORT", env = BASTION_VARIABLE)]
    pub bastion: Option<Endpoint>,
    /// Private key file, or a .pub file whose private half the agent holds; may be given several times. Without it: the
    /// agent's keys, then ~/.ssh/id_ed25519 and id_ecdsa
    #[arg(long, value_name = "FILE", env = IDENTITY_VARIABLE)]
    pub identity: Vec<PathBuf>,
    /// Users and port of hosts that are not ours: USER:JUMP:PORT. For trying the program against any sshd
    #[arg(long, hide = true, value_name = "USER:JUMP:PORT", env = LOGIN_VARIABLE)]
    pub login: Option<Login>,
}

const HELP: &str = "\
Examples:
  drawbridge ssh-config
  ssh -F .drawbridge/ssh_config backend
  scp -F .drawbridge/ssh_config backend:/etc/os-release .
  rsync -e 'ssh -F .drawbridge/ssh_config' -a backend:/var/log/ logs/      # where the host has rsync
  GIT_SSH_COMMAND='ssh -F .drawbridge/ssh_config' git clone backend:repo   # where the host has git
  drawbridge ssh-config --accept backend     # a key that changed without a new instance, when you know why

Every later command that signs in keeps the two files in .drawbridge current and says so; those in another --output are
renewed by running this again.";

/// Write .drawbridge/ssh_config and known_hosts for plain OpenSSH: `ssh -F .drawbridge/ssh_config backend`
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct SshConfigArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Folder to write to; default: .drawbridge beside the Terraform folder
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Take the key that SSM holds for this host, although no new instance explains it; may be given several times
    #[arg(long, value_name = "HOST")]
    accept: Vec<Role>,
}

impl AccessArgs {
    /// The same for a look at everything; `url` is where the API answers instead of the load balancer. Nobody is asked for
    /// a passphrase: a look has little time, and is taken again and again.
    pub(super) fn way(&self, url: Option<String>) -> Way {
        Way {
            bastion: self.bastion.clone(),
            identity: self.identity.clone(),
            login: self.login.clone().unwrap_or_default(),
            url,
        }
    }

    /// The keys; an encrypted one is asked for on the terminal, once.
    #[must_use]
    pub fn keyring(&self, progress: &Progress, interrupt: &Interrupt) -> Keyring {
        Keyring::of(self.identity.iter().cloned()).asking(progress, interrupt)
    }
}

/// Reads the deployment and the pins, and keeps the files for OpenSSH current. Returns also the Terraform folder.
pub(super) async fn access(
    deployment: &DeploymentArgs,
    args: &AccessArgs,
    progress: &Progress,
    interrupt: &Interrupt,
) -> anyhow::Result<(Access, PathBuf)> {
    let (access, directory) = read(deployment, args, progress, interrupt).await?;
    for change in SshConfig(&access).keep(&beside(&directory))? {
        progress.say(&change);
    }
    Ok((access, directory))
}

/// Where OpenSSH's files are unless told otherwise.
pub(crate) fn beside(directory: &Path) -> PathBuf {
    directory.parent().unwrap_or(directory).join(".drawbridge")
}

async fn read(
    deployment: &DeploymentArgs,
    args: &AccessArgs,
    progress: &Progress,
    interrupt: &Interrupt,
) -> anyhow::Result<(Access, PathBuf)> {
    let terraform = deployment.terraform(progress, interrupt)?;
    let deployment = terraform.deployment().await?;
    let pins = Cloud::new(&deployment.region)
        .await
        .host_keys(&deployment.name)
        .await?;
    let access = Access {
        deployment,
        pins,
        bastion: args.bastion.clone(),
        keys: args.keyring(progress, interrupt),
        login: args.login.clone().unwrap_or_default(),
    };
    Ok((access, terraform.directory().to_owned()))
}

impl SshConfigArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When the deployment cannot be read or a file not written.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let (access, directory) = read(&self.deployment, &self.access, progress, interrupt).await?;
        let folder = self.output.unwrap_or_else(|| beside(&directory));
        let (written, changes) = SshConfig(&access).write(&folder, &self.accept)?;
        progress.clear();
        for change in changes {
            progress.say(&change);
        }
        for role in Role::ALL {
            if access.pins.get(role).is_none() {
                progress.say(&format!("{role} has not published its host key yet; ssh will refuse it until you run this again"));
            }
        }
        super::print(&format!(
            "ssh -F {} backend\n",
            command_line(&[written.ssh_config.display().to_string()])
        ));
        Ok(Exit::Done)
    }
}
