//! Forwarded ports: many connections at once, ends told apart from cuts, slow readers, and sessions that are lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drawbridge::appliance::Role;
use drawbridge::bastion::forward::{Event, Limits, Target, addresses, listen, serve};
use drawbridge::bastion::reconnect::Patience;
use drawbridge::bastion::{Access, SshError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::sshd::Hosts;
use crate::support::{Operator, free_port};

/// No step takes a tenth of it, on any machine.
const LONG: Duration = Duration::from_secs(120);

/// A tunnel to a port of this machine, and what it told.
struct Tunnel {
    address: SocketAddr,
    told: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Result<(), SshError>>,
}

impl Tunnel {
    async fn open(access: Access, port: u16, limits: Limits) -> Self {
        let session = access.connect(Role::Backend).await.unwrap();
        let listeners = listen(0).await.unwrap();
        let address = addresses(&listeners).unwrap()[0];
        let told = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel::<()>();
        let target = Target {
            address: "127.0.0.1".into(),
            port,
        };
        let heard = Arc::clone(&told);
        let ended = tokio::spawn(async move {
            let tell = move |event: Event| {
                let name = match event {
                    Event::Lost => "lost".to_owned(),
                    Event::Back { .. } => "back".to_owned(),
                    Event::Refused(error) => error.to_string(),
                    Event::Stalled => "stalled".to_owned(),
                };
                heard.lock().unwrap().push(name);
            };
            let stop = async {
                let _ = stopped.await;
            };
            serve(&access, session, listeners, &target, limits, &tell, stop).await
        });
        Self {
            address,
            told,
            stop: Some(stop),
            ended,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    async fn until_told(&self, what: &str) {
        let wait = async {
            while !self.told().iter().any(|told| told == what) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(LONG, wait).await;
        assert!(waited.is_ok(), "not told {what}: {:?}", self.told());
    }
}

fn patient() -> Limits {
    Limits {
        reconnect: Patience {
            attempts: 200,
            first: Duration::from_millis(100),
            longest: Duration::from_millis(500),
        },
        waiting: LONG,
        stall: LONG,
    }
}

/// Serves every connection with `work` until the test ends.
async fn server<F: Future<Output = ()> + Send>(
    work: impl Fn(TcpStream) -> F + Send + Sync + Clone + 'static,
) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let work = work.clone();
            tokio::spawn(async move { work(stream).await });
        }
    });
    port
}

/// The same bytes for the same seed, and never the same twice in a row.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next)
        .take(length.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(LONG, stream.read_to_end(&mut all))
        .await
        .expect("an end in time")?;
    Ok(all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_connections_at_once_each_get_their_own_bytes_back() {
    const MANY: usize = 50;
    let hosts = Hosts::start();
    // It answers nobody before all are there.
    let all = Arc::new(Barrier::new(MANY));
    let port = server(move |mut stream| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        }
    })
    .await;
    let tunnel = Tunnel::open(hosts.access(), port, patient()).await;
    let mut clients = JoinSet::new();
    for number in 0..MANY {
        let mut stream = tunnel.connect().await;
        clients.spawn(async move {
            let sent = pattern(number as u64, 100_000);
            let (mut from, mut to) = stream.split();
            let write = async {
                to.write_all(&sent).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let mut received = Vec::new();
            let (_, read) = tokio::join!(write, from.read_to_end(&mut received));
            read.unwrap();
            assert!(received == sent, "{number}: {} bytes", received.len());
        });
    }
    let done = timeout(LONG, async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    });
    done.await.expect("all of them in time");
    assert_eq!(tunnel.told(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_arrives_whole_both_ways_and_each_way_ends_by_itself() {
    const MUCH: usize = 24 << 20;
    let hosts = Hosts::start();
    // It says all it has to say and closes its half before it has read anything.
    let (arrived, arrives) = oneshot::channel();
    let arrived = Arc::new(Mutex::new(Some(arrived)));
    let port = server(move |mut stream| {
        let arrived = Arc::clone(&arrived);
        async move {
            stream.write_all(&pattern(1, MUCH)).await.unwrap();
            stream.shutdown().await.unwrap();
            let all = read_all(&mut stream).await.unwrap();
            let sender = arrived.lock().unwrap().take().unwrap();
            sender.send(all).unwrap();
        }
    })
    .await;
    let tunnel = Tunnel::open(hosts.access(), port, patient()).await;
    let mut stream = tunnel.connect().await;
    let received = read_all(&mut stream).await.unwrap();
    assert!(received == pattern(1, MUCH), "{} bytes", received.len());
    // The far half is closed, ours is not.
    stream.write_all(&pattern(2, MUCH)).await.unwrap();
    stream.shutdown().await.unwrap();
    let sent = timeout(LONG, arrives).await.expect("in time").unwrap();
    assert!(sent == pattern(2, MUCH), "{} bytes", sent.len());
}

/// Sends without an end.
async fn endless() -> u16 {
    server(|mut stream| async move { while stream.write_all(&[7; 4096]).await.is_ok() {} }).await
}

async fn a_lost_session_cuts_and_comes_back(lost: Role) {
    let mut hosts = Hosts::start();
    let port = endless().await;
    let tunnel = Tunnel::open(hosts.access(), port, patient()).await;
    let mut under_way = tunnel.connect().await;
    let mut some = vec![0; 100_000];
    timeout(LONG, under_way.read_exact(&mut some))
        .await
        .unwrap()
        .unwrap();
    tokio::task::block_in_place(|| hosts.kill(lost));
    // A part must not look like the whole.
    let cut = read_all(&mut under_way).await.unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset, "{cut}");
    tunnel.until_told("lost").await;
    // The port is there, and whoever comes now waits.
    let mut early = tunnel.connect().await;
    tokio::task::block_in_place(|| hosts.start_again(lost));
    timeout(LONG, early.read_exact(&mut some))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tunnel.told(), ["lost", "back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_host_is_lost_connections_are_reset_and_new_ones_wait() {
    a_lost_session_cuts_and_comes_back(Role::Backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_bastion_is_lost_connections_are_reset_and_new_ones_wait() {
    a_lost_session_cuts_and_comes_back(Role::Bastion).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_does_not_come_back_ends_the_tunnel_with_the_reason() {
    let mut hosts = Hosts::start();
    let port = endless().await;
    let mut limits = patient();
    limits.reconnect.attempts = 3;
    let tunnel = Tunnel::open(hosts.access(), port, limits).await;
    tokio::task::block_in_place(|| hosts.kill(Role::Backend));
    let ended = timeout(LONG, tunnel.ended).await.expect("in time").unwrap();
    assert!(
        matches!(ended, Err(SshError::NoWayThrough { .. })),
        "{ended:?}"
    );
    assert!(TcpStream::connect(tunnel.address).await.is_err());
    assert_eq!(*tunnel.told.lock().unwrap(), ["lost"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_listens_connections_are_reset_and_the_tunnel_stays() {
    let hosts = Hosts::start();
    let nobody = free_port();
    let mut tunnel = Tunnel::open(hosts.access(), nobody, patient()).await;
    for _ in 0..2 {
        let mut stream = tunnel.connect().await;
        let refused = read_all(&mut stream).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionReset, "{refused}");
    }
    let wanted = format!("backend does not forward to 127.0.0.1:{nobody}");
    tunnel.until_told(&wanted).await;
    // Ended in order, the tunnel ends well.
    tunnel.stop.take().unwrap().send(()).unwrap();
    timeout(LONG, tunnel.ended)
        .await
        .expect("in time")
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_its_sender_up_and_one_that_stopped_is_reset() {
    let hosts = Hosts::start();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let port = server(move |mut stream| {
        let sent = Arc::clone(&counter);
        async move {
            while let Ok(written) = stream.write(&[7; 65536]).await {
                sent.fetch_add(written as u64, Ordering::Relaxed);
            }
        }
    })
    .await;
    let limits = Limits {
        stall: Duration::from_secs(20),
        ..patient()
    };
    let tunnel = Tunnel::open(hosts.access(), port, limits).await;
    let mut stream = tunnel.connect().await;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.unwrap();
    // Nobody reads: the server must come to a halt.
    let halted = async {
        let mut before = 0;
        loop {
            sleep(Duration::from_secs(2)).await;
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return now;
            }
            before = now;
        }
    };
    let halted = timeout(LONG, halted).await.expect("it never stops sending");
    // What kernels, two sshds and their windows hold; endless without backpressure.
    assert!(halted < 100 << 20, "{halted} bytes are under way");
    tunnel.until_told("stalled").await;
    let cut = read_all(&mut stream).await.unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionReset, "{cut}");
    // The others of this session go on.
    let mut next = tunnel.connect().await;
    timeout(LONG, next.read_exact(&mut byte))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tunnel.told(), ["stalled"]);
}

/// The real program, with a table of flows that leads to `far`.
pub fn operator(hosts: &Hosts, far: u16) -> Operator {
    let operator = Operator::new(&hosts.access_to_all());
    let flow = |to: &str, port: u16| serde_json::json!({"from": "bastion", "to": to, "port": port, "why": "test"});
    let flows = serde_json::json!([
        flow("backend", 22),
        flow("backend", far),
        flow("database", far)
    ]);
    std::fs::write(
        operator.path().join("terraform/flows.json"),
        flows.to_string(),
    )
    .unwrap();
    operator
}

#[test]
fn the_program_says_where_it_listens_and_ends_with_130() {
    let hosts = Hosts::start();
    let far = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let operator = operator(&hosts, far.local_addr().unwrap().port());
    let mut command = operator.drawbridge(&hosts.user_key(), &["tunnel", "backend", "--json"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let open: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| {
        let mut said = String::new();
        let _ = child.kill();
        let _ = child.stderr.take().unwrap().read_to_string(&mut said);
        panic!("{line:?}: {error}: {said}");
    });
    let port = u16::try_from(open["port"].as_u64().unwrap()).unwrap();
    assert_eq!(open["url"], format!("http://127.0.0.1:{port}"));
    assert_eq!(open["listens"][0], format!("127.0.0.1:{port}"));

    let mut near = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    near.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    far.accept().unwrap().0.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");

    // The port is taken now.
    let port = port.to_string();
    let arguments = ["tunnel", "backend", "--port", &port];
    let second = operator.drawbridge(&hosts.user_key(), &arguments).output();
    let second = second.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        said.contains(&format!("port {port} ")) && said.contains("--port"),
        "{said}"
    );

    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
