//! What is seen of the operator's machine. Looks only; what follows is [`super::judge`]'s.

use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use tokio::process::Command;
use tokio::time::timeout;

use super::version;
use crate::appliance::SshPublicKey;
use crate::appliance::status::Known;
use crate::error_chain::chain;
use crate::nat::position::FILE as POSITION_FILE;
use crate::terraform::{Deployment, Terraform, executable};
use crate::trust;

/// A program of this machine, or a server that only says what time it is.
const LIMIT: Duration = Duration::from_secs(8);
/// Amazon's own: one line with the address a request came from.
const CHECKIP: &str = "https://checkip.amazonaws.com";

/// The public halves of the keys that are offered without being named.
const USUAL_KEYS: [&str; 2] = ["id_ed25519.pub", "id_ecdsa.pub"];

/// What was seen of this machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Terraform's version.
    pub terraform: Known<String>,
    /// What the Terraform files want it to be; `None`: they do not say.
    pub required: Known<Option<String>>,
    /// Where the `aws` command is.
    pub aws: Option<PathBuf>,
    /// Variables that choose a region for the AWS tools.
    pub regions: Vec<(&'static str, String)>,
    /// The public halves of the keys to sign in with.
    pub keys: Vec<SshPublicKey>,
    /// The address this machine has in the internet; `None`: it was not asked for.
    pub address: Known<Option<Ipv4Addr>>,
    /// Seconds by which this machine's clock is ahead of AWS's.
    pub clock_ahead: Known<f64>,
    /// Whether this machine can build images.
    pub building: Result<(), String>,
    /// Who holds the state's lock; `None`: nobody.
    pub lock: Known<Option<Lock>>,
    /// Whether the position file differs from what is committed; `None`: it is in no repository.
    pub position_differs: Known<Option<bool>>,
}

/// A lock on the state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lock {
    /// For `force-unlock`.
    #[serde(rename = "ID")]
    pub id: String,
    /// `OperationTypeApply`…
    #[serde(default)]
    pub operation: String,
    /// `alice@laptop`
    #[serde(default)]
    pub who: String,
    /// When it was taken, RFC 3339.
    #[serde(default)]
    pub created: String,
}

impl Lock {
    /// How long it has been held at `now`; `None` when it does not say since when.
    #[must_use]
    pub fn age(&self, now: OffsetDateTime) -> Option<time::Duration> {
        Some(now - OffsetDateTime::parse(&self.created, &Rfc3339).ok()?)
    }
}

/// What the looks need to know of the deployment; as far as it is known.
#[derive(Debug)]
pub struct About<'a> {
    /// Terraform, if there is any.
    pub terraform: Option<&'a Terraform>,
    /// The deployment, if something is applied.
    pub deployment: Option<&'a Deployment>,
    /// The key files that were named.
    pub identity: &'a [PathBuf],
    /// Whether Amazon may be asked for this machine's address.
    pub checkip: bool,
}

/// Looks at everything of this machine, side by side.
pub async fn look(about: &About<'_>) -> Machine {
    let directory = about.terraform.map(Terraform::directory);
    let (terraform, keys, address, clock_ahead, building, position_differs) = tokio::join!(
        terraform_version(about.terraform),
        own_keys(about.identity),
        own_address(about.checkip),
        clock(about.deployment),
        building(),
        position_differs(directory),
    );
    Machine {
        terraform,
        required: directory.map_or_else(no_folder, |directory| required(directory).into()),
        aws: program("aws"),
        regions: ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .filter_map(|name| Some((name, env::var(name).ok()?)))
            .collect(),
        keys,
        address,
        clock_ahead,
        building,
        lock: directory.map_or_else(no_folder, |directory| lock(directory).into()),
        position_differs,
    }
}

fn no_folder<T>() -> Known<T> {
    Known::Unknown("there is no Terraform folder to look into".to_owned())
}

fn program(name: &str) -> Option<PathBuf> {
    executable(name, env::var_os("PATH").as_deref())
}

/// What a program of this machine prints, if it ends well.
async fn output(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let shown = program.display();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = timeout(LIMIT, command.output())
        .await
        .map_err(|_| format!("{shown} did not answer within {} s", LIMIT.as_secs()))?
        .map_err(|error| format!("cannot run {shown}: {error}"))?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty());
    Err(format!(
        "{shown} ended with {}: {}",
        ended.status,
        first.unwrap_or("no word of why").trim()
    ))
}

async fn terraform_version(terraform: Option<&Terraform>) -> Known<String> {
    #[derive(Deserialize)]
    struct Version {
        terraform_version: String,
    }
    let Some(terraform) = terraform else {
        return Known::Unknown("there is no terraform to ask".to_owned());
    };
    let asked = timeout(LIMIT, terraform.version_json()).await;
    let answer = match asked {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!(
            "terraform did not say within {} s",
            LIMIT.as_secs()
        )),
    };
    let read = answer.and_then(|json| {
        serde_json::from_str::<Version>(&json)
            .map_err(|error| format!("`terraform version -json` says something else: {error}"))
    });
    Known::from(read.map(|version| version.terraform_version))
}

fn required(directory: &Path) -> Result<Option<String>, String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|extension| extension == "tf") {
            let text = fs::read_to_string(&path).map_err(cannot)?;
            if let Some(required) = version::required(&text) {
                return Ok(Some(required.to_owned()));
            }
        }
    }
    Ok(None)
}

/// The named keys' `.pub` files, or what the agent holds and the usual ones. Nothing is signed and nobody is asked for a
/// passphrase.
async fn own_keys(named: &[PathBuf]) -> Vec<SshPublicKey> {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default() + "\n";
    let mut text = String::new();
    for file in named {
        text += &match file.extension().is_some_and(|extension| extension == "pub") {
            true => read(file.clone()),
            false => read(with_pub(file)),
        };
    }
    if named.is_empty() {
        if let (Some(ssh_add), Some(_)) = (program("ssh-add"), env::var_os("SSH_AUTH_SOCK")) {
            text += &output(&ssh_add, &["-L"]).await.unwrap_or_default();
        }
        let folder = PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".ssh");
        text += &USUAL_KEYS.map(|name| read(folder.join(name))).concat();
    }
    let lines = text.lines().filter_map(|line| line.trim().parse().ok());
    lines.collect()
}

fn with_pub(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

async fn own_address(may_ask: bool) -> Known<Option<Ipv4Addr>> {
    if !may_ask {
        return Known::Value(None);
    }
    let asked = tokio::task::spawn_blocking(|| {
        let mut answer = agent()
            .get(CHECKIP)
            .call()
            .map_err(|error| format!("{CHECKIP} does not answer: {}", chain(&error)))?;
        let text = answer.body_mut().with_config().limit(256).read_to_string();
        let text = text.map_err(|error| format!("{CHECKIP}: {}", chain(&error)))?;
        let address = text.trim().parse();
        address.map_err(|_| format!("{CHECKIP} answers something that is no IPv4 address"))
    });
    match asked.await {
        Ok(asked) => asked.map(Some).into(),
        Err(error) => Known::Unknown(error.to_string()),
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .http_status_as_error(false)
        .tls_config(trust::tls());
    ureq::Agent::new_with_config(config.build())
}

/// Compares with the `Date` that AWS answers anybody with, whatever it answers.
async fn clock(deployment: Option<&Deployment>) -> Known<f64> {
    let Some(deployment) = deployment else {
        return Known::Unknown("no deployment tells which region to ask".to_owned());
    };
    let region = &deployment.region;
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    let given = ["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"];
    let endpoint = given.into_iter().find_map(|name| env::var(name).ok());
    let endpoint = endpoint.unwrap_or_else(|| format!("https://sts.{region}.{domain}/"));
    let asked = tokio::task::spawn_blocking(move || {
        let before = OffsetDateTime::now_utc();
        let answer = agent()
            .get(&endpoint)
            .call()
            .map_err(|error| format!("{endpoint} does not answer: {}", chain(&error)))?;
        let after = OffsetDateTime::now_utc();
        let date = answer
            .headers()
            .get("date")
            .and_then(|date| date.to_str().ok());
        let date = date.ok_or_else(|| format!("{endpoint} does not say what time it is"))?;
        ahead(before, date, after).ok_or_else(|| format!("{endpoint} says a time in another shape"))
    });
    match asked.await {
        Ok(asked) => asked.into(),
        Err(error) => Known::Unknown(error.to_string()),
    }
}

/// Seconds by which our clock is ahead for certain. A `Date` has whole seconds.
fn ahead(before: OffsetDateTime, date: &str, after: OffsetDateTime) -> Option<f64> {
    let date = OffsetDateTime::parse(date, &Rfc2822).ok()?;
    let (early, late) = (before - date, after - date);
    Some(if early > time::Duration::SECOND {
        early.as_seconds_f64()
    } else if late < time::Duration::ZERO {
        late.as_seconds_f64()
    } else {
        0.0
    })
}

/// Images are built with Nix, flakes and KVM on Linux, and taken from elsewhere everywhere.
async fn building() -> Result<(), String> {
    if cfg!(not(target_os = "linux")) {
        return Err("images are built on Linux; `--image` of `drawbridge image publish` takes one from there".to_owned());
    }
    let nix = program("nix").ok_or("there is no `nix` on the PATH (https://nixos.org/download)")?;
    let features = output(&nix, &["config", "show", "experimental-features"]).await?;
    let has = |feature| features.split_whitespace().any(|one| one == feature);
    if !(has("flakes") && has("nix-command")) {
        return Err("nix has no flakes: add `experimental-features = nix-command flakes` to ~/.config/nix/nix.conf".to_owned());
    }
    let kvm = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    kvm.map(drop)
        .map_err(|error| format!("/dev/kvm cannot be used: {error}"))
}

/// A local state's lock. One in a bucket shows when somebody plans: its owner is named then.
fn lock(directory: &Path) -> Result<Option<Lock>, String> {
    let file = directory.join(".terraform.tfstate.lock.info");
    match fs::read_to_string(&file) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| format!("{} is not a lock's description: {error}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", file.display())),
    }
}

async fn position_differs(directory: Option<&Path>) -> Known<Option<bool>> {
    let Some(directory) = directory else {
        return no_folder();
    };
    let Some(git) = program("git") else {
        return Known::Value(None);
    };
    let folder = directory.to_string_lossy();
    let is_repository = ["-C", &folder, "rev-parse", "--is-inside-work-tree"];
    if output(&git, &is_repository).await.is_err() {
        return Known::Value(None);
    }
    let status = ["-C", &folder, "status", "--porcelain", "--", POSITION_FILE];
    let said = output(&git, &status).await;
    said.map(|said| Some(!said.trim().is_empty())).into()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_date_of_whole_seconds_is_compared_fairly() {
        let date = "Sat, 21 Nov 2026 18:00:00 GMT";
        let at = datetime!(2026-11-21 18:00:00.9 UTC);
        assert_eq!(ahead(at, date, at), Some(0.0));
        let late = datetime!(2026-11-21 18:10 UTC);
        assert_eq!(ahead(late, date, late), Some(600.0));
        let early = datetime!(2026-11-21 17:59 UTC);
        assert_eq!(ahead(early, date, early), Some(-60.0));
        assert_eq!(ahead(at, "soon", at), None);
    }

    #[test]
    fn a_lock_is_read_with_its_age() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(lock(folder.path()), Ok(None));
        let text = r#"{"ID":"0d4b-1","Operation":"OperationTypeApply","Info":"","Who":"alice@laptop","Version":"1.11.4","Created":"2026-11-21T17:00:00.5Z","Path":"terraform.tfstate"}"#;
        let file = folder.path().join(".terraform.tfstate.lock.info");
        fs::write(&file, text).unwrap();
        let held = lock(folder.path()).unwrap().unwrap();
        assert_eq!(
            (held.id.as_str(), held.who.as_str()),
            ("0d4b-1", "alice@laptop")
        );
        let age = held.age(datetime!(2026-11-21 18:00:00.5 UTC));
        assert_eq!(age, Some(time::Duration::HOUR));
        fs::write(file, "half").unwrap();
        assert!(lock(folder.path()).is_err());
    }
}
