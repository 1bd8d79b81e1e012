//! Much at once, and much through one connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use drawbridge::appliance::Role;
use drawbridge::bastion::{Session, SshError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::data::{Bytes, Sum};
use super::stage::{API_PORT, Conditions, Stage};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;

/// There and back at once, through a `cat` on the backend.
async fn echo(session: &Session, length: usize) {
    let (mut back, mut errors) = (Sum::new(), Vec::new());
    let ended = session.run("cat", Bytes::new(length), &mut back, &mut errors);
    let ended = ended.await;
    assert!(
        matches!(ended, Ok(0)),
        "{ended:?} after {} bytes",
        back.length
    );
    assert_eq!((back.length, back.text()), (length, Bytes::sum(length)));
}

#[test]
fn three_hundred_megabytes_arrive_whole_each_way() {
    let Some(stage) = Stage::start(Conditions::default()) else {
        return;
    };
    let length = 300 * MIB;
    let sum = Bytes::sum(length);
    stage.operate(async |access| {
        let session = access.connect(Role::Backend).await.unwrap();
        let begun = Instant::now();
        let mut said = Vec::new();
        let ended = session.run("sha256sum", Bytes::new(length), &mut said, tokio::io::sink());
        assert_eq!(ended.await.unwrap(), 0);
        assert_eq!(String::from_utf8(said).unwrap(), format!("{sum}  -\n"));
        eprintln!("PUT {:?}", begun.elapsed());
        let begun = Instant::now();
        // The same bytes, made on the far side.
        let script = format!(
            "python3 -c 'import sys\nblock = bytes(i * 31 % 251 for i in range(4096))[8:]\n\
             for number in range({length} // 4096): sys.stdout.buffer.write(number.to_bytes(8, \"little\") + block)'"
        );
        let mut received = Sum::new();
        let ended = session.run(&script, tokio::io::empty(), &mut received, tokio::io::stderr());
        assert_eq!(ended.await.unwrap(), 0);
        assert_eq!((received.length, received.text()), (length, sum));
        eprintln!("GET {:?}", begun.elapsed());
    });
}

#[test]
fn new_keys_in_the_middle_lose_nothing() {
    // Both sshds want new ones after every mebibyte of either direction.
    let Some(stage) = Stage::start(Conditions {
        sshd: "RekeyLimit 1M\nLogLevel DEBUG1",
        ..Conditions::default()
    }) else {
        return;
    };
    stage.operate(async |access| {
        let session = access.connect(Role::Backend).await.unwrap();
        echo(&session, 20 * MIB).await;
        // And it is as good as new.
        assert_eq!(
            session.collect("echo still", LIMIT).await.unwrap().stdout,
            b"still\n"
        );
    });
    for role in [Role::Bastion, Role::Backend] {
        let log = std::fs::read_to_string(stage.folder.path().join(format!("{role}.log")));
        let times = log.unwrap().matches("rekeying").count();
        assert!(times >= 10, "{role} changed its keys {times} times");
    }
}

#[test]
fn much_in_both_directions_over_a_long_way_does_not_get_stuck() {
    let Some(stage) = Stage::start(Conditions {
        round_trip: 100,
        ..Conditions::default()
    }) else {
        return;
    };
    stage.operate(async |access| {
        let session = access.connect(Role::Backend).await.unwrap();
        echo(&session, 24 * MIB).await;
    });
}

#[test]
fn fifty_connections_at_once_share_one_session() {
    let Some(stage) = Stage::start(Conditions::default()) else {
        return;
    };
    // The API's place is taken by something that says everything again.
    let api = SocketAddr::from(([127, 0, 0, 1], API_PORT));
    let listener = stage.backend.inside(|| TcpListener::bind(api).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    stage.operate(async |access| {
        let session = access.connect(Role::Backend).await.unwrap();
        let length = 100_000;
        let mut all = Vec::new();
        for number in 0..50_u8 {
            all.push((number, session.dial("127.0.0.1", API_PORT).await.unwrap()));
        }
        // All are open now. Each says something else, and all at the same time.
        let mut talks = tokio::task::JoinSet::new();
        for (number, stream) in all {
            talks.spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let sent = vec![number; length];
                let say = async {
                    write.write_all(&sent).await.unwrap();
                    write.flush().await.unwrap();
                };
                let mut heard = vec![255; length];
                let (_, heard_all) = tokio::join!(say, read.read_exact(&mut heard));
                heard_all.unwrap();
                assert!(heard == sent, "connection {number} heard something else");
            });
        }
        while let Some(talk) = talks.join_next().await {
            talk.unwrap();
        }
        // What one of them may not is no matter to the session.
        let error = session.dial("127.0.0.1", 80).await.err().unwrap();
        assert!(matches!(error, SshError::NotForwarded { .. }), "{error}");
        assert_eq!(
            session.collect("echo on", LIMIT).await.unwrap().stdout,
            b"on\n"
        );
    });
}
