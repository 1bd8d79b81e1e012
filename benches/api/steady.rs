//! Latency: at a constant rate, which a slow answer does not slow down, and one request after the other.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{saturate::CONNECTIONS, support::client::Client};

/// The first part of a run that does not count.
const WARM_UP: f64 = 0.2;

/// Latencies of one run, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Asks `rate` times a second, over as many connections as saturate it, each of `requests` in turn.
///
/// A latency counts from the moment at which a request was due, not from when its connection was free again: who waits
/// behind a slow answer has waited too.
pub fn at_rate(address: SocketAddr, requests: &[Vec<u8>], rate: f64, time: Duration) -> Latency {
    let begin = Instant::now() + Duration::from_millis(50);
    let measured = begin + time.mul_f64(WARM_UP);
    #[allow(clippy::cast_precision_loss)]
    let gap = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    thread::scope(|scope| {
        let clients = (0..CONNECTIONS).map(|number| {
            scope.spawn(move || {
                // Without it the kernel may wake a sleeper 50 µs late to wake others with it.
                nix::sys::prctl::set_timerslack(1).unwrap();
                let mut client = Client::connect(address).expect("a connection");
                let mut latencies = Vec::new();
                #[allow(clippy::cast_precision_loss)]
                let mut due = begin + gap.mul_f64(number as f64 / CONNECTIONS as f64);
                let mut requests = requests.iter().cycle().skip(number);
                while due < begin + time {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let reply = client.ask(requests.next().unwrap()).expect("an answer");
                    assert_eq!(reply.status, 200, "{reply:?}");
                    if due >= measured {
                        latencies.push(due.elapsed());
                    }
                    due += gap;
                }
                latencies
            })
        });
        let clients: Vec<_> = clients.collect();
        let latencies = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        percentiles(latencies.collect())
    })
}

/// Asks one request after the other over one connection.
pub fn one_by_one(address: SocketAddr, requests: &[Vec<u8>], time: Duration) -> Latency {
    let mut client = Client::connect(address).expect("a connection");
    let begin = Instant::now();
    let mut latencies = Vec::new();
    for request in requests.iter().cycle() {
        let asked = Instant::now();
        let reply = client.ask(request).expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
        if begin.elapsed() > time.mul_f64(WARM_UP) {
            latencies.push(asked.elapsed());
        }
        if begin.elapsed() > time {
            break;
        }
    }
    percentiles(latencies)
}

fn percentiles(mut latencies: Vec<Duration>) -> Latency {
    assert!(!latencies.is_empty(), "nothing was asked");
    latencies.sort();
    let at = |hundredths: usize| {
        let index = (latencies.len() * hundredths / 100).min(latencies.len() - 1);
        latencies[index].as_secs_f64() * 1e6
    };
    Latency {
        p50: at(50),
        p99: at(99),
    }
}
