//! `drawbridge ssh-config` is only right if OpenSSH says so.

use std::path::Path;
use std::process::{Command, Output};

use drawbridge::appliance::Role;
use drawbridge::bastion::Access;
use drawbridge::bastion::ssh_config::SshConfig;

use super::sshd::Hosts;

fn write(access: &Access, folder: &Path) -> std::path::PathBuf {
    SshConfig(access).write(folder, &[]).unwrap().0.ssh_config
}

pub fn ssh(config: &Path, host: &str) -> Output {
    // BatchMode: a question would wait for ever. No agent: the identity in the file must do.
    let mut command = Command::new("ssh");
    command
        .env_remove("SSH_AUTH_SOCK")
        .arg("-F")
        .arg(config)
        .args(["-o", "BatchMode=yes", host, "echo there"]);
    command.output().unwrap()
}

#[test]
fn openssh_reaches_bastion_and_backend_with_the_written_files_alone() {
    let hosts = Hosts::start();
    let access = hosts.access();
    // A folder that needs quoting.
    let config = write(&access, &hosts.folder.path().join("a folder/100%"));
    for host in ["bastion", "backend"] {
        let output = ssh(&config, host);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"there\n", "{host}: {errors}");
    }
    // Written again it is the same, and nothing temporary is left.
    write(&access, &hosts.folder.path().join("a folder/100%"));
    assert_eq!(
        std::fs::read_dir(config.parent().unwrap()).unwrap().count(),
        2
    );
}

#[test]
fn openssh_refuses_a_host_with_another_key_and_one_without_a_pin() {
    let hosts = Hosts::start();
    let mut access = hosts.access();
    access
        .pins
        .insert_published(Role::Backend, "other", &hosts.other_key())
        .unwrap();
    let config = write(&access, &hosts.folder.path().join("changed"));
    assert_eq!(ssh(&config, "bastion").stdout, b"there\n");
    let output = ssh(&config, "backend");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Host key verification failed"));
    assert!(
        !ssh(&config, "database").status.success(),
        "no key is pinned for it"
    );
}

#[test]
fn scp_and_git_go_through_the_written_files() {
    let hosts = Hosts::start();
    let folder = hosts.folder.path().join("a folder");
    let config = write(&hosts.access(), &folder);
    let run = |command: &mut Command| {
        let output = command.env_remove("SSH_AUTH_SOCK").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
    };
    let (here, there) = (folder.join("here"), folder.join("there"));
    std::fs::write(&here, "content").unwrap();
    let scp = || {
        let mut command = Command::new("scp");
        command.arg("-q").arg("-F").arg(&config);
        command
    };
    run(scp().arg(&here).arg(format!("backend:{}", there.display())));
    run(scp()
        .arg(format!("backend:{}", there.display()))
        .arg(folder.join("back")));
    assert_eq!(std::fs::read(folder.join("back")).unwrap(), b"content");

    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(words)
            .current_dir(&folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_SSH_COMMAND", format!("ssh -F '{}'", config.display()));
        run(&mut command);
    };
    git(&["init", "-q", "repo"]);
    git(&["-C", "repo", "commit", "-q", "--allow-empty", "-m", "first"]);
    git(&[
        "clone",
        "-q",
        &format!("backend:{}/repo", folder.display()),
        "copy",
    ]);
    git(&["-C", "copy", "rev-parse", "HEAD"]);
}
