//! `drawbridge exec` and `drawbridge ssh-config`: the way in.

use std::path::PathBuf;

use clap::Args;

use super::DeploymentArgs;
use crate::appliance::Role;
use crate::bastion::exec::command_line;
use crate::bastion::ssh_config::SshConfig;
use crate::bastion::{Access, Endpoint, Login, SshError};
use crate::cloud::Cloud;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::Progress;

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
    /// Private key file, instead of the agent's keys and ~/.ssh/id_ed25519
    #[arg(long, value_name = "FILE", env = IDENTITY_VARIABLE)]
    pub identity: Option<PathBuf>,
    /// Users and port of hosts that are not ours: USER:JUMP:PORT. For trying the program against any sshd
    #[arg(long, hide = true, value_name = "USER:JUMP:PORT", env = LOGIN_VARIABLE)]
    pub login: Option<Login>,
}

/// Run a command on a host, through the bastion; its exit status becomes ours
#[derive(Args, Clone, Debug)]
pub struct ExecArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// bastion, backend or database
    host: Role,
    /// One word is a line for the host's shell; several words are run as they are
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Write .drawbridge/ssh_config and known_hosts for plain OpenSSH: `ssh -F .drawbridge/ssh_config backend`
#[derive(Args, Clone, Debug)]
pub struct SshConfigArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Folder to write to; default: .drawbridge beside the Terraform folder
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(super) async fn access(
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
        identity: args.identity.clone(),
        login: args.login.clone().unwrap_or_default(),
    };
    Ok((access, terraform.directory().to_owned()))
}

impl ExecArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// Anything that kept the command from being run to its end.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let work = async {
            let (access, _) = access(&self.deployment, &self.access, progress, interrupt).await?;
            let session = access.connect(self.host).await?;
            progress.clear();
            let line = match self.command.as_slice() {
                [line] => line.clone(),
                words => command_line(words),
            };
            let (stdin, stdout, stderr) =
                (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
            let ended = session.run(&line, stdin, stdout, stderr).await;
            session.close().await;
            ended.map_err(anyhow::Error::from)
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = interrupt.requested() => return Ok(Exit::Interrupted as u8),
        };
        match ended {
            // Statuses above 255 do not exist on POSIX hosts; what cannot be passed on is no success.
            Ok(status) => Ok(u8::try_from(status).unwrap_or(Exit::NoStatus as u8)),
            Err(error) => {
                let closed_pipe = matches!(
                    error.downcast_ref(),
                    Some(SshError::Local { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe
                );
                if closed_pipe {
                    return Ok(Exit::Done as u8);
                }
                let _ = super::report_error(&error, progress, interrupt);
                Ok(Exit::NoStatus as u8)
            }
        }
    }
}

impl SshConfigArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When the deployment cannot be read or a file not written.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let (access, directory) =
            access(&self.deployment, &self.access, progress, interrupt).await?;
        let beside = || directory.parent().unwrap_or(&directory).join(".drawbridge");
        let folder = self.output.unwrap_or_else(beside);
        let written = SshConfig(&access).write(&folder).map_err(|error| {
            anyhow::Error::new(error).context(format!("cannot write to {}", folder.display()))
        })?;
        progress.clear();
        for role in Role::ALL {
            if access.pins.get(role).is_none() {
                progress.say(&format!("{role} has not published its host key yet; ssh will refuse it until you run this again"));
            }
        }
        println!("ssh -F {} backend", written.ssh_config.display());
        Ok(Exit::Done)
    }
}
