//! What a rehearsal says: each step with its time and what was proven in it.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::progress::Progress;

/// One thing that was tried and either held or did not.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// The claim, e.g. `internet → backend:8000 is dropped`.
    pub name: String,
    /// Whether it held.
    pub held: bool,
    /// What was seen.
    pub detail: String,
}

/// One step of the rehearsal.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// How long it took, terraform included.
    pub seconds: f64,
    /// How much of that was spent waiting for terraform, whose provider waits have floors.
    pub terraform_seconds: f64,
    /// What was proven.
    pub proofs: Vec<Proof>,
}

/// The whole rehearsal; what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether every step was reached and every proof held.
    pub held: bool,
    /// Why it ended early, if it did.
    pub error: Option<String>,
    /// Total time.
    pub seconds: f64,
    /// How much of it was spent waiting for terraform.
    pub terraform_seconds: f64,
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// Shows steps as they happen and keeps them.
pub struct Reporter {
    progress: Progress,
    begun: Instant,
    steps: Vec<Step>,
}

/// The step under way: where proofs and passing lines go.
pub struct Current<'a> {
    progress: &'a Progress,
    proofs: Vec<Proof>,
    terraform: Duration,
}

/// Why no further step makes sense.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Disproved(Vec<String>);

impl Reporter {
    /// Starts the clock.
    pub fn new(progress: Progress) -> Reporter {
        Reporter {
            progress,
            begun: Instant::now(),
            steps: Vec::new(),
        }
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// What `work` returns; or [`Disproved`] if a proof did not hold, because every later step would build on it.
    pub fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Current<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        self.progress.begin(&format!("{name} …"));
        let mut current = Current {
            progress: &self.progress,
            proofs: Vec::new(),
            terraform: Duration::ZERO,
        };
        let result = work(&mut current);
        let Current {
            proofs, terraform, ..
        } = current;
        let broken: Vec<String> = proofs
            .iter()
            .filter(|proof| !proof.held)
            .map(|proof| format!("{}: {}", proof.name, proof.detail))
            .collect();
        let mark = if result.is_ok() && broken.is_empty() {
            '✓'
        } else {
            '✗'
        };
        let seconds = begun.elapsed().as_secs_f64();
        let waited = match terraform.as_secs_f64() {
            none if none < 0.05 => String::new(),
            some => format!(", {some:.1} s of it terraform"),
        };
        self.progress
            .say(&format!("{mark} {name} ({seconds:.1} s{waited})"));
        for proof in &proofs {
            let mark = if proof.held { '✓' } else { '✗' };
            self.progress
                .say(&format!("    {mark} {}: {}", proof.name, proof.detail));
        }
        self.steps.push(Step {
            name: name.to_owned(),
            seconds,
            terraform_seconds: terraform.as_secs_f64(),
            proofs,
        });
        let value = result?;
        if broken.is_empty() {
            Ok(value)
        } else {
            Err(Disproved(broken).into())
        }
    }

    /// Sums up. `error` is why the rehearsal ended early, if it did.
    pub fn finish(self, error: Option<&anyhow::Error>) -> Report {
        self.progress.clear();
        Report {
            held: error.is_none(),
            error: error.map(|error| format!("{error:#}")),
            seconds: self.begun.elapsed().as_secs_f64(),
            terraform_seconds: self.steps.iter().map(|step| step.terraform_seconds).sum(),
            steps: self.steps,
        }
    }
}

impl Current<'_> {
    /// A passing line.
    pub fn line(&self, text: &str) {
        self.progress.line(text);
    }

    /// Where a wrapped program's lines may go.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Records a proof.
    pub fn prove(&mut self, name: impl Into<String>, held: bool, detail: impl Into<String>) {
        self.proofs.push(Proof {
            name: name.into(),
            held,
            detail: detail.into(),
        });
    }

    /// Records a proof that holds if `result` is an answer; its detail is the answer or the error.
    pub fn prove_result(&mut self, name: impl Into<String>, result: anyhow::Result<String>) {
        match result {
            Ok(detail) => self.prove(name, true, detail),
            Err(error) => self.prove(name, false, format!("{error:#}")),
        }
    }

    /// Adds to the time spent waiting for terraform.
    pub fn add_terraform(&mut self, spent: Duration) {
        self.terraform += spent;
    }
}

impl Report {
    /// How many proofs held, and how many there were.
    pub fn counts(&self) -> (usize, usize) {
        let proofs = || self.steps.iter().flat_map(|step| &step.proofs);
        (
            proofs().filter(|proof| proof.held).count(),
            proofs().count(),
        )
    }

    /// The closing lines for people.
    pub fn summary(&self) -> String {
        let (held, all) = self.counts();
        let own = self.seconds - self.terraform_seconds;
        let times = format!(
            "{own:.1} s of its own and {:.1} s of waiting for terraform in {} steps",
            self.terraform_seconds,
            self.steps.len()
        );
        match &self.error {
            None => format!("✓ all {all} proofs held; {times}"),
            Some(error) => {
                let step = self
                    .steps
                    .last()
                    .map_or("the beginning", |step| step.name.as_str());
                format!(
                    "✗ ended at \"{step}\", {held} of {all} proofs so far held; {times}\n✗ {error}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_does_not_hold_ends_the_rehearsal_and_is_named() {
        let mut reporter = Reporter::new(Progress::quiet());
        reporter
            .step("first", |step| {
                step.prove("sky", true, "blue");
                Ok(())
            })
            .unwrap();
        let error = reporter
            .step("second", |step| {
                step.prove("door", false, "open");
                step.prove("window", false, "ajar");
                Ok(())
            })
            .unwrap_err();
        assert_eq!(error.to_string(), "door: open; window: ajar");
        let report = reporter.finish(Some(&error));
        assert_eq!(report.counts(), (1, 3));
        assert!(!report.held);
        assert!(
            report
                .summary()
                .contains("ended at \"second\", 1 of 3 proofs"),
            "{}",
            report.summary()
        );
    }

    #[test]
    fn terraform_time_is_kept_apart() {
        let mut reporter = Reporter::new(Progress::quiet());
        reporter
            .step("apply", |step| {
                step.add_terraform(Duration::from_secs(90));
                Ok(())
            })
            .unwrap();
        let report = reporter.finish(None);
        assert!(report.held);
        assert_eq!(report.terraform_seconds, 90.0);
        assert_eq!(report.steps[0].terraform_seconds, 90.0);
    }
}
