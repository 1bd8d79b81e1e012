//! Links as they are on trains and across oceans.

use std::time::{Duration, Instant};

use drawbridge::appliance::Role;

use super::data::{Bytes, Sum};
use super::stage::{Conditions, Stage};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_far_link_that_loses_three_of_a_hundred_packets_is_slow_and_nothing_else() {
    let Some(stage) = Stage::start(Conditions {
        round_trip: 200,
        loss: 3,
        ..Conditions::default()
    }) else {
        return;
    };
    eprintln!("delayed by {}", stage.delayed_by);
    stage.operate(async |access| {
        let begun = Instant::now();
        // A step may take ten seconds, and bad luck is not what is tried here.
        let session = loop {
            match access.connect(Role::Backend).await {
                Ok(session) => break session,
                Err(error) => assert!(
                    error.is_passing() && begun.elapsed() < LIMIT,
                    "{error} after {:?}",
                    begun.elapsed()
                ),
            }
        };
        // TCP, two handshakes and two logins cannot be had in less: the delay is real.
        assert!(
            begun.elapsed() > Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        let output = session.collect("echo out; echo err >&2; exit 7", LIMIT);
        let output = output.await.unwrap();
        assert_eq!(
            (output.status, output.stdout, output.stderr),
            (7, b"out\n".to_vec(), b"err\n".to_vec())
        );
        let (length, mut back) = (200_000, Sum::new());
        let ended = session.run("cat", Bytes::new(length), &mut back, tokio::io::sink());
        assert_eq!(ended.await.unwrap(), 0);
        assert_eq!((back.length, back.text()), (length, Bytes::sum(length)));
    });
    assert!(stage.lost() > 0, "no packet was lost");
}
