//! What the images were built from: the commit, and the revision of nixpkgs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// For a look at a repository on this machine.
const GIT_LIMIT: Duration = Duration::from_secs(30);
/// Where it cannot be told.
const UNKNOWN: &str = "unknown";

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// 40 hex digits, with `-dirty` behind them where files had been changed; or `unknown`.
    pub commit: String,
    /// The revision of nixpkgs in `flake.lock`; or `unknown`.
    pub nixpkgs: String,
}

impl Source {
    /// Looks at the folder with `flake.nix`. Nothing here keeps an image from being published, so what cannot be told
    /// is `unknown`.
    pub async fn of(flake: &Path) -> Self {
        let commit = match git(flake, &["rev-parse", "--verify", "HEAD"]).await {
            None => UNKNOWN.to_owned(),
            Some(commit) => {
                // Publishing writes one of these, and neither is in an image.
                let status = [
                    "status",
                    "--porcelain",
                    "--untracked-files=no",
                    "--",
                    ".",
                    ":(exclude)terraform/*.auto.tfvars.json",
                ];
                let is_clean = git(flake, &status)
                    .await
                    .is_some_and(|changes| changes.is_empty());
                format!("{commit}{}", if is_clean { "" } else { "-dirty" })
            }
        };
        let lock = std::fs::read_to_string(flake.join("flake.lock")).unwrap_or_default();
        Self {
            commit,
            nixpkgs: nixpkgs(&lock).unwrap_or_else(|| UNKNOWN.to_owned()),
        }
    }
}

async fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(GIT_LIMIT, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn nixpkgs(lock: &str) -> Option<String> {
    let lock: Value = serde_json::from_str(lock).ok()?;
    let root = lock["nodes"][lock["root"].as_str()?].clone();
    let node = root["inputs"]["nixpkgs"].as_str()?;
    let revision = lock["nodes"][node]["locked"]["rev"].as_str()?;
    let is_revision = revision.len() <= 64 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_revision.then(|| revision.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    async fn run(folder: &Path, line: &str) {
        let mut shell = Command::new("sh");
        let status = shell.args(["-ec", line]).current_dir(folder).status();
        assert!(status.await.unwrap().success(), "{line}");
    }

    #[tokio::test]
    async fn the_commit_says_whether_files_had_been_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let none = Source::of(path).await;
        assert_eq!(
            (none.commit.as_str(), none.nixpkgs.as_str()),
            (UNKNOWN, UNKNOWN)
        );
        fs::create_dir(path.join("terraform")).unwrap();
        let commit =
            "git init -q; git config user.email a@b; git config user.name a; echo 1 >flake.nix;
            echo 1 >terraform/images.auto.tfvars.json; git add .; git commit -qm one";
        run(path, commit).await;
        let clean = Source::of(path).await.commit;
        assert_eq!(clean.len(), 40, "{clean}");
        run(
            path,
            "echo 2 >terraform/images.auto.tfvars.json; echo 1 >untracked",
        )
        .await;
        assert_eq!(Source::of(path).await.commit, clean);
        run(path, "echo 2 >flake.nix").await;
        assert_eq!(Source::of(path).await.commit, format!("{clean}-dirty"));
    }

    #[test]
    fn the_revision_of_nixpkgs_is_that_of_the_lock_file() {
        let lock = include_str!("../../flake.lock");
        let revision = nixpkgs(lock).unwrap();
        assert!(lock.contains(&format!("\"rev\": \"{revision}\"")) && revision.len() == 40);
        assert_eq!(nixpkgs(""), None);
        assert_eq!(nixpkgs("{}"), None);
    }
}
