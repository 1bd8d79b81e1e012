use std::time::Duration;

use drawbridge::appliance::Role;

use super::stage::{Conditions, Stage};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn probe() {
    for round_trip in [0, 200] {
        let Some(stage) = Stage::start(Conditions {
            round_trip,
            ..Conditions::default()
        }) else {
            return;
        };
        stage.operate(async |access| {
            let begun = std::time::Instant::now();
            let session = access.connect(Role::Backend).await.unwrap();
            eprintln!("connect {:?}", begun.elapsed());
            let output = session.collect("id; hostname", LIMIT).await.unwrap();
            eprintln!("{:?} {:?}", begun.elapsed(), output);
            session.close().await;
        });
    }
}
