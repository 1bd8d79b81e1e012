//! The programs a rehearsal needs, looked up before anything is made.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use serde::{Deserialize, Serialize};

use crate::postgres::Binaries;
use crate::terraform;

/// Programs and the Debian packages that bring them.
const PROGRAMS: [(&str, &str); 19] = [
    ("bash", "bash"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("setsid", "util-linux"),
    ("blkid", "util-linux"),
    ("unshare", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("systemd-creds", "systemd"),
    ("timeout", "coreutils"),
    ("env", "coreutils"),
    ("sh", "dash"),
];

/// What boots an instance.
const SYSTEMD_PROGRAM: (&str, &str) = ("systemd-nspawn", "systemd-container");

/// Where programs of the superuser are on Debian, also when an ordinary user's `PATH` lacks them.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Everything that was found. The outer half of a rehearsal looks and hands it to the inner one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tools {
    programs: HashMap<String, PathBuf>,
    /// `initdb` and `postgres`.
    pub postgres: Binaries,
    /// Python that can import moto.
    pub python: PathBuf,
    /// `drawbridge-host`, built beside this program.
    pub drawbridge_host: PathBuf,
    /// `PATH` with which all of it is found by name, the emulator's environment first.
    pub search_path: String,
}

impl Tools {
    /// Looks for everything; `root` is the repository, `with_systemd` is whether instances boot a systemd of their own.
    ///
    /// # Errors
    /// One error that names all that is missing and what to do about it.
    pub fn find(root: &Path, with_systemd: bool) -> Result<Tools> {
        let given = env::var_os("PATH").unwrap_or_default();
        let environment = root.join(".drawbridge/venv/bin");
        let folders = [environment.clone()]
            .into_iter()
            .chain(env::split_paths(&given));
        let search_path = env::join_paths(folders.chain(SYSTEM_FOLDERS.iter().map(PathBuf::from)))
            .context("PATH cannot be extended; it holds a folder with a colon")?
            .into_string()
            .map_err(|path| anyhow!("PATH holds a folder whose name is not Unicode: {path:?}"))?;
        let mut programs = HashMap::new();
        let mut packages = Vec::new();
        let mut problems = Vec::new();
        let more = with_systemd.then_some(SYSTEMD_PROGRAM);
        for (program, package) in PROGRAMS.into_iter().chain(more) {
            match terraform::executable(program, Some(search_path.as_ref())) {
                Some(path) => {
                    programs.insert(program.to_owned(), path);
                }
                None => {
                    problems.push(program.to_owned());
                    packages.push(package);
                }
            }
        }
        let postgres = Binaries::find();
        if postgres.is_err() {
            problems.push("postgres".to_owned());
            packages.push("postgresql");
        }
        let mut advice = Vec::new();
        if !packages.is_empty() {
            packages.sort_unstable();
            packages.dedup();
            advice.push(format!("run `apt-get install {}`", packages.join(" ")));
        }
        if terraform::executable("terraform", Some(search_path.as_ref())).is_none() {
            problems.push("terraform".to_owned());
            advice.push(
                "install Terraform 1.11 or newer (https://developer.hashicorp.com/terraform/install) or work in `nix \
                 develop`"
                    .to_owned(),
            );
        }
        let python = find_python(&environment);
        if python.is_none() || terraform::executable("aws", Some(search_path.as_ref())).is_none() {
            problems.push("the AWS emulator (moto) or the aws command".to_owned());
            advice
                .push("run scripts/rehearse, which installs both into .drawbridge/venv".to_owned());
        }
        let drawbridge_host = env::current_exe()
            .context("cannot find this program")?
            .with_file_name("drawbridge-host");
        if !drawbridge_host.exists() {
            problems.push(drawbridge_host.display().to_string());
            advice.push("run `cargo build`".to_owned());
        }
        match (postgres, python) {
            (Ok(postgres), Some(python)) if problems.is_empty() => Ok(Tools {
                programs,
                postgres,
                python,
                drawbridge_host,
                search_path,
            }),
            _ => bail!(
                "missing: {}. To mend it, {}",
                problems.join(", "),
                advice.join(", and ")
            ),
        }
    }

    /// As an argument for [`Tools::from_argument`].
    ///
    /// # Errors
    /// If a path cannot be written as JSON, because it is not Unicode.
    pub fn to_argument(&self) -> Result<String> {
        serde_json::to_string(self)
            .context("a folder of the PATH, or the repository's, has a name that is not Unicode")
    }

    /// What [`Tools::to_argument`] wrote.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn from_argument(argument: &str) -> Result<Tools> {
        serde_json::from_str(argument).context("not the tools of a rehearsal")
    }

    /// Path of one of the programs.
    ///
    /// # Errors
    /// If it is none of those looked for.
    pub fn path(&self, program: &str) -> Result<&Path> {
        self.programs
            .get(program)
            .map(PathBuf::as_path)
            .with_context(|| format!("{program} was not looked for"))
    }
}

fn find_python(environment: &Path) -> Option<PathBuf> {
    [environment.join("python"), PathBuf::from("python3")]
        .into_iter()
        .find(|python| {
            let imported = Command::new(python)
                .args(["-c", "import moto.server"])
                .output();
            imported.is_ok_and(|output| output.status.success())
        })
}
