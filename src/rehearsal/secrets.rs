//! Looks for a secret where none may be.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where the secret belongs (below `run` it is unsealed for the API), and volumes, devices and the machines' own mounts.
const NOT_SEARCHED: [&str; 4] = ["volumes", "dev", "run", "etc.work"];
/// Arguments of processes are as public as files on this machine.
const PROCESSES: &str = "/proc";

/// Searches everything below `inside`, the arguments of all processes, and `more` (name and content). Returns the
/// places where the secret was found, and how many were searched.
///
/// # Errors
/// If a folder or a file cannot be read.
pub fn search(
    secret: &str,
    inside: &Path,
    more: impl Iterator<Item = (String, String)>,
) -> Result<(Vec<String>, usize)> {
    let mut places = Vec::new();
    let mut searched = 0;
    let mut look = |place: String, content: &[u8]| {
        searched += 1;
        if contains(content, secret.as_bytes()) {
            places.push(place);
        }
    };
    for file in files(inside)? {
        match fs::read(&file) {
            Ok(content) => look(file.display().to_string(), &content),
            // Written under another name first, and renamed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        }
    }
    for entry in fs::read_dir(PROCESSES).context("cannot list processes")? {
        let path = entry
            .context("cannot list processes")?
            .path()
            .join("cmdline");
        // A process may have ended since; folders that are no processes have no such file.
        if let Ok(arguments) = fs::read(&path) {
            look(path.display().to_string(), &arguments);
        }
    }
    for (place, content) in more {
        look(place, content.as_bytes());
    }
    Ok((places, searched))
}

/// All logs below `inside`.
///
/// # Errors
/// If a folder cannot be read.
pub fn log_files(inside: &Path) -> Result<Vec<PathBuf>> {
    let mut logs = files(inside)?;
    logs.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    Ok(logs)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let kind = entry
            .file_type()
            .with_context(|| format!("cannot look at {}", entry.path().display()))?;
        if kind.is_dir() {
            if !NOT_SEARCHED.iter().any(|name| entry.file_name() == *name) {
                found.append(&mut files(&entry.path())?);
            }
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn contains(content: &[u8], secret: &[u8]) -> bool {
    !secret.is_empty() && content.windows(secret.len()).any(|window| window == secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_planted_secret_is_found_in_a_file_in_an_argument_and_in_user_data() {
        let folder = tempfile::tempdir().unwrap();
        let secret = "planted-5f1c0a9e7d3b";
        fs::create_dir_all(folder.path().join("machines/backend/here/log")).unwrap();
        let log = folder.path().join("machines/backend/here/log/api.log");
        fs::write(&log, format!("connecting with {secret}\n")).unwrap();
        let mut process = std::process::Command::new("sleep")
            .arg0(secret)
            .arg("30")
            .spawn()
            .unwrap();
        let arguments = PathBuf::from(format!("/proc/{}/cmdline", process.id()));
        // The new program's arguments are there a moment after the process is.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !fs::read_to_string(&arguments).unwrap().contains(secret) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (places, _) = search(
            secret,
            folder.path(),
            [("user data".to_owned(), secret.to_owned())].into_iter(),
        )
        .unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(places.contains(&log.display().to_string()), "{places:?}");
        assert!(
            places.contains(&arguments.display().to_string()),
            "{places:?}"
        );
        assert!(places.contains(&"user data".to_owned()), "{places:?}");
    }

    #[test]
    fn the_unsealed_credential_and_clean_files_are_not_reported() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("backend/run/credentials")).unwrap();
        fs::write(
            folder.path().join("backend/run/credentials/x"),
            "absent-secret-1",
        )
        .unwrap();
        fs::write(folder.path().join("terraform.tfstate"), "{}").unwrap();
        let (places, searched) =
            search("absent-secret-1", folder.path(), std::iter::empty()).unwrap();
        assert_eq!(places, Vec::<String>::new());
        assert!(searched > 1);
    }
}
