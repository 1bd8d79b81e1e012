//! `drawbridge ssh-config` is only right if OpenSSH says so.

use std::path::Path;
use std::process::{Command, Output};

use drawbridge::appliance::Role;
use drawbridge::bastion::Access;
use drawbridge::bastion::ssh_config::SshConfig;

use super::sshd::Hosts;

fn write(access: &Access, folder: &Path) -> std::path::PathBuf {
    SshConfig(access).write(folder).unwrap().ssh_config
}

fn ssh(config: &Path, host: &str) -> Output {
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
