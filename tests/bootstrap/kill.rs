//! Bootstraps that are killed on the way.

use std::time::{Duration, Instant};

use drawbridge::appliance::{Role, Step};

use super::world::{World, kill_group};

/// Kills the bootstrap as soon as its report is seen at this step, or at the next where a step is over too soon to be
/// seen. Returns where it was.
pub fn kill_at(world: &World, role: Role, step: Step) -> Step {
    let place = |step| {
        Step::sequence(role)
            .iter()
            .position(|other| *other == step)
            .unwrap_or(usize::MAX)
    };
    let mut child = world.start(&["--timeout", "60"]);
    let start = Instant::now();
    while world
        .local()
        .is_none_or(|report| place(report.step) < place(step))
    {
        assert!(
            start.elapsed() < Duration::from_secs(600),
            "never came to {step}"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
    kill_group(&child);
    child.wait().unwrap();
    world.local().unwrap().step
}

/// Kills it again and again, each time a little later, until it gets to the end.
pub fn kill_later_and_later(world: &World, by: Duration) -> u32 {
    for round in 1..200 {
        let mut child = world.start(&["--timeout", "60"]);
        let start = Instant::now();
        while start.elapsed() < by * round {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{}", world.story());
                return round;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_group(&child);
        child.wait().unwrap();
    }
    panic!("never came to the end")
}
