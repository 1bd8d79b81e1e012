//! What can be wrong before anything is made: one clear line, status 1, nothing left.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use super::stage::{Rehearsal, Stage};
use crate::support::repository;

fn refused(stage: &Stage, command: Command) -> String {
    let ended = Rehearsal::start(command).end();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    let lines: Vec<&str> = ended.said.lines().collect();
    assert_eq!(lines.len(), 1, "not one line: {}", ended.said);
    stage.assert_nothing_is_left();
    lines[0].to_owned()
}

/// The command in a mount namespace where `script` has hidden something.
fn hiding(stage: &Stage, script: &str) -> Command {
    let inner = stage.command(&["--exit"]);
    let mut command = Command::new("unshare");
    command
        .current_dir(repository())
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-euc",
            &format!("{script}; exec \"$@\""),
            "sh",
        ])
        .arg(inner.get_program())
        .args(inner.get_args())
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    command
}

fn path_of(program: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn without_root_it_says_how_to_run_it() {
    let stage = Stage::new();
    // The test's folders are root's own.
    let open = Command::new("chmod")
        .args(["-R", "go+rX"])
        .arg(stage.terraform().parent().unwrap())
        .status()
        .unwrap();
    assert!(open.success());
    let inner = stage.command(&["--exit"]);
    // A copy where nobody may execute it, wherever the target folder is.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    for name in ["drawbridge", "drawbridge-host"] {
        let from = std::path::Path::new(env!("CARGO_BIN_EXE_drawbridge")).with_file_name(name);
        fs::copy(from, folder.path().join(name)).unwrap();
    }
    // CAP_SYS_ADMIN is what root has and somebody else has not: dropping to nobody drops it.
    let mut command = Command::new("setpriv");
    command
        .current_dir(repository())
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search",
        ])
        .arg(folder.path().join("drawbridge"))
        .args(inner.get_args());
    let said = refused(&stage, command);
    assert!(
        said.contains("needs root") && said.contains("sudo"),
        "{said}"
    );
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
    let stage = Stage::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = refused(&stage, stage.command(&["--exit", "--port", &port]));
    assert!(said.contains(&port) && said.contains("--port"), "{said}");
}

#[test]
fn missing_postgres_is_named_with_its_package() {
    let stage = Stage::new();
    let said = refused(
        &stage,
        hiding(&stage, "mount -t tmpfs none /usr/lib/postgresql"),
    );
    assert!(
        said.contains("postgres") && said.contains("apt-get install postgresql"),
        "{said}"
    );
}

#[test]
fn missing_terraform_is_named_with_where_to_get_it() {
    let stage = Stage::new();
    let terraform = path_of("terraform");
    let said = refused(
        &stage,
        hiding(&stage, &format!("mount --bind /dev/null {terraform}")),
    );
    assert!(
        said.contains("terraform") && said.contains("nix develop"),
        "{said}"
    );
}

#[test]
fn a_missing_emulator_is_named_with_what_installs_it() {
    let stage = Stage::new();
    let venv = repository().join(".drawbridge/venv");
    fs::create_dir_all(&venv).unwrap();
    let mut command = hiding(&stage, &format!("mount -t tmpfs none {}", venv.display()));
    // Debian's own Python has no moto; somebody's Python further up the PATH may have.
    let terraform = path_of("terraform").rsplit_once('/').unwrap().0.to_owned();
    command.env("PATH", format!("/usr/bin:/bin:/usr/sbin:/sbin:{terraform}"));
    let said = refused(&stage, command);
    assert!(
        said.contains("moto") && said.contains("scripts/rehearse"),
        "{said}"
    );
}

#[test]
fn an_unknown_host_in_flows_json_is_named() {
    let stage = Stage::new();
    stage.edit(
        "flows.json",
        "\"from\": \"backend\"",
        "\"from\": \"bakend\"",
    );
    let said = refused(&stage, stage.command(&["--exit"]));
    assert!(
        said.contains("flows.json") && said.contains("bakend") && said.contains("load_balancer"),
        "{said}"
    );
}

#[test]
fn a_malformed_position_file_is_named_with_its_shape() {
    let stage = Stage::new();
    fs::write(
        stage.terraform().join("nat.auto.tfvars.json"),
        "{\"nat_gateway\": \"yes\"}",
    )
    .unwrap();
    let said = refused(&stage, stage.command(&["--exit"]));
    assert!(
        said.contains("nat.auto.tfvars.json") && said.contains("true"),
        "{said}"
    );
}

#[test]
fn a_work_folder_with_somebodys_files_is_refused_and_kept() {
    let stage = Stage::new();
    let precious = stage.work_dir().join("precious");
    fs::create_dir_all(stage.work_dir()).unwrap();
    fs::write(&precious, "mine").unwrap();
    let ended = Rehearsal::start(stage.command(&["--exit"])).end();
    assert_eq!(ended.code, Some(1), "{}", ended.said);
    assert!(
        ended.said.contains("--work-dir") && ended.said.lines().count() == 1,
        "{}",
        ended.said
    );
    assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
}

#[test]
fn a_second_rehearsal_with_the_same_folder_is_refused() {
    let stage = Stage::new();
    fs::create_dir_all(stage.work_dir().parent().unwrap()).unwrap();
    let file = File::create(stage.work_dir().with_extension("lock")).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| errno)
        .unwrap();
    let said = refused(&stage, stage.command(&["--exit"]));
    assert!(
        said.contains("another rehearsal is running") && said.contains("--work-dir"),
        "{said}"
    );
    drop(lock);
}
