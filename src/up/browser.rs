//! An address in the browser of whoever sits in front of this machine.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::terraform::executable;

/// A launcher that has not failed within this time has handed the address over, or is the browser itself.
const LIMIT: Duration = Duration::from_secs(5);

/// What opening a browser goes by.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `BROWSER`: programs, colons between them, as other tools take it. `%s` in one is the address.
    pub browser: Option<String>,
    /// Whether somebody sees a window that this machine opens.
    pub has_display: bool,
    /// Whether this is a CI job.
    pub is_ci: bool,
    /// `PATH`
    pub path: Option<OsString>,
}

impl Surroundings {
    /// This process's.
    #[must_use]
    pub fn of_this_process() -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            browser: env::var("BROWSER").ok().filter(|name| !name.is_empty()),
            // A Mac has its one display; sessions over ssh say so.
            has_display: match cfg!(target_os = "macos") {
                true => !is_set("SSH_CONNECTION"),
                false => is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"),
            },
            is_ci: is_ci(),
            path: env::var_os("PATH"),
        }
    }

    /// The program that opens `address`, and its arguments; `None` where nobody would see it.
    #[must_use]
    fn command(&self, address: &str) -> Option<(PathBuf, Vec<String>)> {
        if self.is_ci {
            return None;
        }
        let find = |words: &str| {
            let mut words = words.split_whitespace();
            let program = executable(words.next()?, self.path.as_deref())?;
            let mut words: Vec<_> = words.map(|word| word.replace("%s", address)).collect();
            if !words.iter().any(|word| word.contains(address)) {
                words.push(address.to_owned());
            }
            Some((program, words))
        };
        match &self.browser {
            // Also without a display: it may be one for terminals.
            Some(named) => named.split(':').find_map(find),
            None if !self.has_display => None,
            None if cfg!(target_os = "macos") => find("open"),
            None => find("xdg-open"),
        }
    }
}

/// Whether this is a CI job: GitHub, GitLab and most others set `CI`.
#[must_use]
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Opens `address` where somebody sees it; whether a program was started for it.
///
/// # Errors
/// A text that says what went wrong; the address is of use all the same.
pub async fn open(address: &str, surroundings: &Surroundings) -> Result<bool, String> {
    // Nothing else is for a browser, and none of it is an option.
    if !["http://", "https://"]
        .iter()
        .any(|scheme| address.starts_with(scheme))
    {
        return Err(format!("`{address}` is no http address: it was not opened"));
    }
    let Some((program, arguments)) = surroundings.command(address) else {
        return Ok(false);
    };
    let failed = |why: String| {
        let program = program.display();
        format!(
            "{program} did not open it ({why}): open the address by hand, or name another program in BROWSER"
        )
    };
    let child = Command::new(&program)
        .args(&arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C on this terminal is not the browser's.
        .process_group(0)
        .spawn();
    let mut child = child.map_err(|error| failed(error.to_string()))?;
    match timeout(LIMIT, child.wait()).await {
        Ok(Ok(status)) if !status.success() => Err(failed(status.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(_)) | Err(_) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ADDRESS: &str = "http://lb.example/docs";

    /// A folder with these programs; each writes its arguments to `<name>.called` and ends with `status`.
    fn programs(names: &[&str], status: u8) -> (tempfile::TempDir, Surroundings) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let file = folder.path().join(name);
            fs::write(
                &file,
                format!("#!/bin/sh\necho \"$*\" >\"$0.called\"\nexit {status}\n"),
            )
            .unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let surroundings = Surroundings {
            has_display: true,
            path: Some(folder.path().into()),
            ..Surroundings::default()
        };
        (folder, surroundings)
    }

    #[tokio::test]
    async fn the_desktops_own_program_opens_it_and_browser_wins_over_it() {
        let desktop = if cfg!(target_os = "macos") {
            "open"
        } else {
            "xdg-open"
        };
        let (folder, mut here) = programs(&[desktop, "lynx"], 0);
        let called = |name: &str| fs::read_to_string(folder.path().join(format!("{name}.called")));
        assert_eq!(open(ADDRESS, &here).await, Ok(true));
        assert_eq!(called(desktop).unwrap(), format!("{ADDRESS}\n"));

        here.browser = Some("no-such:lynx -x %s -y".into());
        here.has_display = false;
        assert_eq!(open(ADDRESS, &here).await, Ok(true));
        assert_eq!(called("lynx").unwrap(), format!("-x {ADDRESS} -y\n"));
    }

    #[tokio::test]
    async fn where_nobody_sees_it_nothing_is_started() {
        let (_folder, here) = programs(&["xdg-open", "open"], 0);
        let blind = Surroundings {
            has_display: false,
            ..here.clone()
        };
        assert_eq!(open(ADDRESS, &blind).await, Ok(false));
        let ci = Surroundings {
            is_ci: true,
            browser: Some("open".into()),
            ..here
        };
        assert_eq!(open(ADDRESS, &ci).await, Ok(false));
    }

    #[tokio::test]
    async fn what_is_no_web_address_is_never_handed_to_a_program() {
        let (_folder, here) = programs(&["xdg-open", "open"], 0);
        for wrong in ["--help", "file:///etc/passwd", "javascript:alert(1)", ""] {
            assert!(open(wrong, &here).await.is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_is_named() {
        let (_folder, here) = programs(&["xdg-open", "open"], 3);
        let said = open(ADDRESS, &here).await.unwrap_err();
        assert!(said.contains("BROWSER") && said.contains('3'), "{said}");
    }
}
