//! Python programs that start at once: the emulator, calls by boto3, and the `aws` command. `python.py` says how.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::{eventually, repository, without_cloud_settings};

/// The process that forks, one per run of the tests. It lives as long as this process holds its stdin.
struct Forge {
    /// Removed by the process at its end.
    folder: PathBuf,
}

impl Forge {
    fn start() -> Self {
        let python = python();
        let folder = tempfile::Builder::new()
            .prefix("drawbridge-python-")
            .tempdir();
        let folder = folder.expect("a temporary folder").keep();
        let client = folder.join("client");
        let text = include_str!("python_client.py");
        // Neither the user's packages nor anything else is needed, and each would be looked for.
        let first_line = format!("#!{} -ISB\n", python.display());
        fs::write(&client, first_line + text).expect("the client");
        fs::set_permissions(&client, fs::Permissions::from_mode(0o755)).expect("its permissions");
        fs::create_dir(folder.join("bin")).expect("a folder for the aws command");
        symlink(&client, folder.join("bin/aws")).expect("the aws command");

        let log = folder.join("log");
        let file = File::create(&log).expect("a log");
        let mut command = Command::new(&python);
        let mut process = without_cloud_settings(&mut command)
            .arg(repository().join("tests/support/python.py"))
            .arg(&folder)
            .arg(repository().join("src/rehearsal/emulator.py"))
            .stdin(Stdio::piped())
            .stdout(file.try_clone().expect("the log, once more"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", python.display()));
        eventually(Duration::from_secs(600), "the Python that forks", || {
            if let Some(status) = process.try_wait().expect("its status") {
                let said = fs::read_to_string(&log).unwrap_or_default();
                panic!("it ended with {status}:\n{said}");
            }
            folder
                .join("socket")
                .exists()
                .then_some(())
                .ok_or("it is starting".to_owned())
        });
        // Its end is this process's end, which closes its stdin.
        std::mem::forget(process);
        Self { folder }
    }
}

fn folder() -> &'static Path {
    static FORGE: OnceLock<Forge> = OnceLock::new();
    &FORGE.get_or_init(Forge::start).folder
}

/// `emulator` with moto's arguments, or the text of a program with its own.
pub fn program(what: &str) -> Command {
    let mut command = Command::new(folder().join("client"));
    command.arg(what);
    command
}

/// The PATH of this process, with an `aws` before it that is the one scripts/rehearse installs, started at once.
pub fn path_with_aws() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(folder().join("bin")).chain(std::env::split_paths(&path));
    std::env::join_paths(path).expect("a PATH")
}

/// A Python that can run the emulator: the one `scripts/rehearse` installs, or the machine's.
fn python() -> PathBuf {
    let candidates = [
        repository().join(".drawbridge/venv/bin/python"),
        PathBuf::from("/usr/bin/python3"),
    ];
    let works = |python: &PathBuf| {
        let mut probe = Command::new(python);
        probe
            .args(["-c", "import moto.server, boto3, flask, awscli"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    candidates.into_iter().find(works).expect(
        "no Python here can import moto and awscli: run scripts/rehearse, which installs both into .drawbridge/venv",
    )
}
