//! `drawbridge psql`: the local `psql` at the end of a tunnel, with the login that the database host has published.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::DeploymentArgs;
use super::access::AccessArgs;
use super::tunnel::{forwarding, target, teller};
use crate::appliance::{DATABASE_NAME, Login, Role};
use crate::bastion::forward::{self, Limits};
use crate::cloud::{Cloud, PublishedError};
use crate::exit::{Exit, as_shells_do};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::terraform::executable;

/// The first libpq that finds an address in a certificate; the database's has no name.
/// <https://www.postgresql.org/docs/15/release-15.html>
const OLDEST: u32 = 15;
const VERSION_LIMIT: Duration = Duration::from_secs(30);
/// After SIGTERM, which psql does not catch.
const GRACE: Duration = Duration::from_secs(5);

/// What remains of the caller's environment for libpq. The rest says where and how to connect, which is said here.
const KEPT: [&str; 6] = [
    "PGAPPNAME",
    "PGCLIENTENCODING",
    "PGCONNECT_TIMEOUT",
    "PGDATESTYLE",
    "PGOPTIONS",
    "PGTZ",
];

const ABOUT: &str = "\
Open the deployment's database in the local psql, through a tunnel of its own.

It signs in as the API does, with the login and the certificate that the database host has published in SSM, so your AWS
credentials have to be allowed to read them. The password is in a file that only you can read, and that is removed when psql
ends; it is in no argument, environment or output. When the session through the bastion is lost, psql loses its connection
and connects anew with \\c.";

const HELP: &str = "\
Examples:
  drawbridge psql
  drawbridge psql -- -c 'select count(*) from items'
  drawbridge psql -- -XAt -f report.sql > report.txt
  drawbridge psql -- -c '\\copy items to items.csv csv header'

Needs psql 15 or newer. As a superuser: `drawbridge ssh database -- sudo -u postgres psql drawbridge`.

Exit status: psql's own; 1 when it could not be started; 130 after SIGTERM. Ctrl-C is psql's: it cancels the query.";

/// Open the database in the local psql, through a tunnel of its own
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_help = HELP)]
pub struct PsqlArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// For psql
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

impl PsqlArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// Whatever keeps psql from being started.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let host = Role::Database;
        let prepare = async {
            let psql = find().await?;
            let (access, terraform) =
                forwarding(&self.deployment, &self.access, progress, interrupt).await?;
            let target = target(&terraform, host, None)?;
            progress.begin("reading the login that the database has published");
            let deployment = &access.deployment;
            let cloud = Cloud::new(&deployment.region).await;
            let (account, name) = (&deployment.account_id, &deployment.name);
            let (login, certificate) = tokio::join!(
                cloud.database_login(account, name),
                cloud.database_certificate(account, name)
            );
            let (login, certificate) = (login.map_err(advise)?, certificate.map_err(advise)?);
            let listeners = forward::listen(0).await.context("no free port")?;
            progress.begin("database: logging in");
            let session = access.connect(host).await?;
            anyhow::Ok((psql, access, target, login, certificate, listeners, session))
        };
        let prepared = tokio::select! {
            prepared = prepare => prepared?,
            () = interrupt.requested() => return Ok(Exit::Interrupted as u8),
        };
        let (psql, access, target, login, certificate, listeners, session) = prepared;
        let Some(address) = forward::addresses(&listeners)?.into_iter().next() else {
            bail!("no address to listen on");
        };
        let secrets = Secrets::write(&login, &certificate)?;
        progress.clear();

        let mut command = Command::new(psql);
        command.args(&self.arguments);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("PG") && !KEPT.contains(&name.as_ref()) {
                command.env_remove(name.as_ref());
            }
        }
        command
            // The name that the certificate has to bear, and where the connection goes.
            .env("PGHOST", &access.deployment.database.private_ip)
            .env("PGHOSTADDR", address.ip().to_string())
            .env("PGPORT", address.port().to_string())
            .env("PGDATABASE", DATABASE_NAME)
            .env("PGUSER", login.role.name())
            .env("PGSSLMODE", "verify-full")
            .env("PGGSSENCMODE", "disable")
            .env("PGSSLROOTCERT", secrets.certificate())
            .env("PGPASSFILE", secrets.password());
        let mut child = command.spawn().context("cannot run psql")?;
        // From here on the password is in that file alone.
        drop(login);

        let (over, stop) = oneshot::channel::<()>();
        let tell = teller(progress, host);
        let limits = Limits::default();
        let stop = async {
            let _ = stop.await;
        };
        let serve = forward::serve(&access, session, listeners, &target, limits, &tell, stop);
        let attend = async {
            let status = attend(&mut child, interrupt).await;
            let _ = over.send(());
            status
        };
        // psql stays when the tunnel does not come back: what it shows may still be wanted.
        let (served, status) = tokio::join!(
            async {
                if let Err(error) = serve.await {
                    let text = crate::error_chain::chain(&error);
                    progress.say_always(&format!(
                        "drawbridge: the session to {host} does not come back ({text}); leave psql and start again"
                    ));
                }
            },
            attend
        );
        let () = served;
        secrets.remove()?;
        status
    }
}

/// Waits for psql to end. A terminal's Ctrl-C reaches it without us; SIGTERM and SIGHUP are passed on.
async fn attend(child: &mut Child, interrupt: &Interrupt) -> anyhow::Result<u8> {
    let status = tokio::select! {
        status = child.wait() => status,
        () = interrupt.terminated(0) => {
            if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
                // It may have ended in between.
                let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
            }
            tokio::select! {
                _ = child.wait() => {}
                () = sleep(GRACE) => { let _ = child.kill().await; }
            }
            return Ok(Exit::Interrupted as u8);
        }
    };
    Ok(as_shells_do(status.context("lost psql")?))
}

/// Names the way that needs no right of AWS's.
fn advise(error: PublishedError) -> anyhow::Error {
    let is_denied = matches!(error, PublishedError::Denied { .. });
    let error = anyhow::Error::new(error);
    if !is_denied {
        return error;
    }
    let said = format!("{error:#}");
    anyhow::anyhow!(
        "{said}. Without them: `drawbridge ssh database -- sudo -u postgres psql {DATABASE_NAME}`"
    )
}

async fn find() -> anyhow::Result<PathBuf> {
    const INSTALL: &str = "apt-get install postgresql-client (Debian, Ubuntu), brew install libpq (macOS), or \
                           nix shell nixpkgs#postgresql";
    let Some(psql) = executable("psql", std::env::var_os("PATH").as_deref()) else {
        bail!("there is no psql on this machine; install it: {INSTALL}");
    };
    let asked = Command::new(&psql)
        .arg("--version")
        .kill_on_drop(true)
        .output();
    let said = timeout(VERSION_LIMIT, asked)
        .await
        .with_context(|| format!("{} --version does not answer", psql.display()))?
        .with_context(|| format!("cannot run {}", psql.display()))?;
    // A version that is not understood is tried.
    match major(&String::from_utf8_lossy(&said.stdout)) {
        Some(found) if found < OLDEST => bail!(
            "{} is version {found}, which cannot verify a certificate for an address; install {OLDEST} or newer: {INSTALL}",
            psql.display()
        ),
        _ => Ok(psql),
    }
}

/// `psql (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` and `psql (PostgreSQL) 19devel`.
fn major(said: &str) -> Option<u32> {
    let version = said.split_once(") ")?.1;
    let end = version.find(|character: char| !character.is_ascii_digit());
    version[..end.unwrap_or(version.len())].parse().ok()
}

/// A folder with the password and the certificate, which goes when this is dropped.
#[derive(Debug)]
struct Secrets(tempfile::TempDir);

impl Secrets {
    fn write(login: &Login, certificate: &str) -> anyhow::Result<Self> {
        // In memory, where the system has such a place for its users.
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let place = runtime.filter(|place| place.is_absolute() && place.is_dir());
        let place = place.unwrap_or_else(std::env::temp_dir);
        let write = || -> std::io::Result<Self> {
            let folder = tempfile::Builder::new()
                .prefix("drawbridge-psql-")
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir_in(&place)?;
            let secrets = Self(folder);
            fs::write(secrets.certificate(), certificate)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(secrets.password())?;
            // Any host and port: libpq asks by PGHOST here and by the address in other versions.
            let line = pgpass(login.role.name(), login.password.expose());
            file.write_all(line.as_bytes())?;
            Ok(secrets)
        };
        write().with_context(|| format!("cannot write the password file in {}", place.display()))
    }

    fn certificate(&self) -> PathBuf {
        self.0.path().join("database-ca.pem")
    }

    fn password(&self) -> PathBuf {
        self.0.path().join("pgpass")
    }

    fn remove(self) -> anyhow::Result<()> {
        let path = self.0.path().to_owned();
        self.0
            .close()
            .with_context(|| format!("cannot remove {}, which holds the password", path.display()))
    }
}

/// A line of a password file. <https://www.postgresql.org/docs/current/libpq-pgpass.html>
fn pgpass(user: &str, password: &str) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!(
        "*:*:{DATABASE_NAME}:{}:{}\n",
        escape(user),
        escape(password)
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::appliance::{LoginRole, Secret};

    #[test]
    fn versions_are_read_as_all_packagers_write_them() {
        for (said, version) in [
            ("psql (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", 15),
            ("psql (PostgreSQL) 19devel\n", 19),
            ("psql (PostgreSQL) 9.6.24", 9),
        ] {
            assert_eq!(major(said), Some(version));
        }
        assert_eq!(major("pgcli 4.0"), None);
    }

    #[test]
    fn the_password_is_for_its_owner_and_goes_with_the_folder() {
        let login = Login {
            role: LoginRole::B,
            password: Secret::new("a:b\\c"),
        };
        let secrets = Secrets::write(&login, "certificate").unwrap();
        let file = secrets.password();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "*:*:drawbridge:drawbridge_b:a\\:b\\\\c\n"
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        secrets.remove().unwrap();
        assert!(!file.parent().unwrap().exists());
    }
}
