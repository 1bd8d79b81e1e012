//! The process's own figures, under the names every Prometheus client gives them:
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use std::{
    fmt, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Looks at the process whenever somebody wants to know. What this system does not tell is left out.
#[derive(Debug)]
pub struct Process {
    began: f64,
}

impl Process {
    /// It counts as begun now: `serve` makes this among the first things it does.
    pub fn begun_now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            began: since.unwrap_or_default().as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut say = |name: &str, help: &str, unit: Option<Unit>, metric: &dyn Said| {
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor(name, help, unit.as_ref(), kind)?)
        };
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "CPU time used, user and system";
            say("process_cpu", help, Some(Unit::Seconds), &counter)?;
        }
        let began = ConstGauge::new(self.began);
        let help = "When the process began, since 1970";
        say("process_start_time", help, Some(Unit::Seconds), &began)?;
        for (name, key, help) in [
            ("process_resident_memory", "VmRSS:", "Memory in use"),
            ("process_virtual_memory", "VmSize:", "Address space in use"),
        ] {
            if let Some(bytes) = memory_bytes(key) {
                say(name, help, Some(Unit::Bytes), &ConstGauge::new(bytes))?;
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is for looking.
            let open = open.count().saturating_sub(1) as u64;
            say(
                "process_open_fds",
                "Files open",
                None,
                &ConstGauge::new(open),
            )?;
        }
        if let Ok((most, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let help = "Files that may be open at once";
            say("process_max_fds", help, None, &ConstGauge::new(most))?;
        }
        Ok(())
    }
}

/// A metric whose kind is not known where it is written.
trait Said {
    fn metric_type(&self) -> MetricType;
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error>;
}

impl<M: EncodeMetric> Said for M {
    fn metric_type(&self) -> MetricType {
        EncodeMetric::metric_type(self)
    }
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeMetric::encode(self, encoder)
    }
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// A size from `/proc/self/status`, which counts in KiB.
fn memory_bytes(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
