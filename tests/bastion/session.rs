use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use drawbridge::appliance::Role;
use drawbridge::bastion::host_keys::Pins;
use drawbridge::bastion::{Endpoint, Keyring, SshError};

use super::sshd::Hosts;

const LIMIT: Duration = Duration::from_secs(20);

async fn failure(access: &drawbridge::bastion::Access) -> SshError {
    match access.connect(Role::Backend).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_command_keeps_its_status_and_its_two_outputs_apart() {
    let hosts = Hosts::start();
    let session = hosts.access().connect(Role::Backend).await.unwrap();
    let output = session
        .collect("echo out; echo err >&2; exit 7", LIMIT)
        .await
        .unwrap();
    assert_eq!(
        (output.status, output.stdout, output.stderr),
        (7, b"out\n".to_vec(), b"err\n".to_vec())
    );
    let output = session.collect("true", LIMIT).await.unwrap();
    assert_eq!(output.status, 0, "a session runs more than one command");
    session.close().await;
}

#[tokio::test]
async fn input_and_output_arrive_whole_in_both_directions() {
    let hosts = Hosts::start();
    let session = hosts.access().connect(Role::Backend).await.unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let (mut received, mut errors) = (Vec::new(), Vec::new());
    let status = session
        .run("cat", sent.as_slice(), &mut received, &mut errors)
        .await
        .unwrap();
    assert_eq!(status, 0);
    assert!(
        received == sent,
        "{} of {} bytes came back",
        received.len(),
        sent.len()
    );
}

#[tokio::test]
async fn a_lost_session_is_a_failure_and_a_signal_is_named() {
    let hosts = Hosts::start();
    let session = hosts.access().connect(Role::Backend).await.unwrap();
    let killed = session.collect("kill -9 $$", LIMIT).await.unwrap_err();
    assert!(
        matches!(&killed, SshError::Signal { signal, .. } if signal == "KILL"),
        "{killed}"
    );
    // The shell's parent is the sshd that serves this very connection.
    let lost = session
        .collect("kill -9 $PPID; sleep 5", LIMIT)
        .await
        .unwrap_err();
    assert!(
        matches!(
            lost,
            SshError::Lost {
                host: Role::Backend
            }
        ),
        "{lost}"
    );
}

#[tokio::test]
async fn a_command_that_does_not_end_is_given_up() {
    let hosts = Hosts::start();
    let session = hosts.access().connect(Role::Backend).await.unwrap();
    let error = session
        .collect("sleep 60", Duration::from_millis(300))
        .await
        .unwrap_err();
    assert!(matches!(error, SshError::TimedOut { .. }), "{error}");
}

#[test]
fn a_team_behind_one_address_gets_in_at_once_and_a_crowd_does_not() {
    let hosts = Hosts::start();
    let mut held = Vec::new();
    // None of them signs in. sshd greets those that it takes, and tells the others why not.
    let greeting = loop {
        let mut stream = TcpStream::connect(("127.0.0.1", hosts.bastion_port())).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut greeting = [0; 8];
        let read = stream.read(&mut greeting).unwrap();
        if !greeting.starts_with(b"SSH-2.0-") {
            break greeting[..read].to_vec();
        }
        held.push(stream);
        assert!(held.len() < 200, "everybody is let in");
    };
    assert!(
        greeting.is_empty() || greeting.starts_with(b"Exceeded"),
        "{greeting:?}"
    );
    assert!(held.len() >= 50, "only {} of a team of 50", held.len());
}

#[tokio::test]
async fn a_changed_key_stops_at_either_host() {
    let hosts = Hosts::start();
    for role in [Role::Bastion, Role::Backend] {
        let mut access = hosts.access();
        access
            .pins
            .insert_published(role, "other", &hosts.other_key())
            .unwrap();
        let error = failure(&access).await;
        assert!(
            matches!(&error, SshError::HostKeyChanged { host, pinned, offered, .. } if *host == role && pinned != offered),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_host_without_a_pinned_key_is_not_even_knocked_at() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let hosts = Hosts::start();
    let mut access = hosts.access();
    access.bastion = Some(Endpoint {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
    });
    access.pins = Pins::default();
    let error = failure(&access).await;
    assert!(
        matches!(
            error,
            SshError::HostKeyUnknown {
                host: Role::Bastion
            }
        ),
        "{error}"
    );
    assert!(listener.accept().is_err(), "somebody connected");
}

#[tokio::test]
async fn a_key_nobody_authorized_is_refused_by_name() {
    let hosts = Hosts::start();
    let mut access = hosts.access();
    hosts.other_key();
    access.keys = Keyring::of([hosts.folder.path().join("other")]);
    let error = failure(&access).await;
    assert!(
        matches!(
            error,
            SshError::NotAuthorized {
                host: Role::Bastion,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("/other"), "{error}");
}

#[tokio::test]
async fn identities_that_cannot_be_used_say_why() {
    let hosts = Hosts::start();
    let mut access = hosts.access();
    access.keys = Keyring::of([hosts.folder.path().join("missing")]);
    assert!(matches!(failure(&access).await, SshError::Identity { .. }));
    let generate = |name: &str, kind: &str, passphrase: &str| {
        let path = hosts.folder.path().join(name);
        let mut command = std::process::Command::new("ssh-keygen");
        command
            .args(["-q", "-t", kind, "-N", passphrase, "-f"])
            .arg(&path);
        assert!(command.status().unwrap().success());
        path
    };
    access.keys = Keyring::of([generate("locked", "ed25519", "secret")]);
    assert!(matches!(
        failure(&access).await,
        SshError::IdentityLocked { .. }
    ));
    access.keys = Keyring::of([generate("rsa", "rsa", "")]);
    assert!(matches!(
        failure(&access).await,
        SshError::IdentityRsa { .. }
    ));
}

#[tokio::test]
async fn a_dead_bastion_and_a_dead_host_are_given_up_in_time() {
    let mut hosts = Hosts::start();
    hosts.stop_backend();
    let error = failure(&hosts.access()).await;
    assert!(
        matches!(
            error,
            SshError::NoWayThrough {
                host: Role::Backend,
                ..
            }
        ),
        "{error}"
    );

    // It accepts and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut access = hosts.access();
    access.bastion = Some(Endpoint {
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
    });
    let start = Instant::now();
    let error = failure(&access).await;
    assert!(
        matches!(
            error,
            SshError::TimedOut {
                host: Role::Bastion,
                ..
            }
        ),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_secs(15));

    let port = silent.local_addr().unwrap().port();
    drop(silent);
    access.bastion = Some(Endpoint {
        host: "127.0.0.1".into(),
        port,
    });
    let error = failure(&access).await;
    assert!(
        matches!(
            error,
            SshError::Unreachable {
                host: Role::Bastion,
                ..
            }
        ),
        "{error}"
    );
}
