//! What a host says of itself when it is asked: printed by `drawbridge-host status`, read by `drawbridge status` and
//! `drawbridge doctor`.
//!
//! Host and operator may be of different versions: fields that are not known here are ignored, and one that is missing
//! or of another shape is [`Known::Unknown`] with that as its reason, without making the rest unreadable.

use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use time::OffsetDateTime;

use super::BootstrapReport;

/// A value, or why it is not known. As JSON the value itself, or `{"unknown": "why"}` in its place, so that what is not
/// known cannot be taken for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It was learnt.
    Value(T),
    /// It was not, for this reason.
    Unknown(String),
}

impl<T> Known<T> {
    /// The value, if it is known.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// The reason, if it is not known.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Value(_) => None,
            Self::Unknown(reason) => Some(reason),
        }
    }

    /// Another value made of this one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Self::Value(value) => Known::Value(change(value)),
            Self::Unknown(reason) => Known::Unknown(reason),
        }
    }
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self::Unknown(
            "this host's drawbridge-host does not tell it: it is older than this drawbridge"
                .to_owned(),
        )
    }
}

impl<T> From<Result<T, String>> for Known<T> {
    fn from(learnt: Result<T, String>) -> Self {
        learnt.map_or_else(Self::Unknown, Self::Value)
    }
}

impl<T: Serialize> Serialize for Known<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Unknown<'a> {
            unknown: &'a str,
        }
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Unknown(reason) => Unknown { unknown: reason }.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Known<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Some(reason) = value.get("unknown").and_then(Value::as_str) {
            return Ok(Self::Unknown(reason.to_owned()));
        }
        Ok(T::deserialize(value)
            .map_err(|error| format!("the host tells it in another shape ({error})"))
            .into())
    }
}

/// An instant as RFC 3339 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(#[serde(with = "time::serde::rfc3339")] pub OffsetDateTime);

/// One host at one moment. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostStatus {
    /// The host's own clock.
    pub time: Known<Moment>,
    /// Version of its `drawbridge-host`.
    pub version: Known<String>,
    /// The local copy of the bootstrap's report: role, instance and image.
    pub bootstrap: Known<BootstrapReport>,
    /// The NixOS systems, as store paths.
    pub system: Known<System>,
    /// Seconds since it booted.
    pub uptime_seconds: Known<u64>,
    /// Processors that it may use.
    pub processors: Known<u32>,
    /// Processes that run or wait, on average over 1, 5 and 15 minutes.
    pub load: Known<[f64; 3]>,
    /// Main memory.
    pub memory: Known<Memory>,
    /// The root disk.
    pub root_disk: Known<Disk>,
    /// systemd's units that have failed.
    pub failed_units: Known<Vec<String>>,
    /// The API's unit; null on other hosts than the backend.
    pub api: Known<Option<ApiUnit>>,
    /// The database's own volume; null on other hosts than the database.
    pub volume: Known<Option<Disk>>,
    /// Postgres; null on other hosts than the database.
    pub database: Known<Option<Database>>,
}

/// Which system a host runs, and which it was booted into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// `/nix/store/…` that was booted.
    pub booted: String,
    /// `/nix/store/…` that is in force now: another one after a deploy.
    pub current: String,
}

/// Main memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What programs can still get, caches given up.
    pub available_bytes: u64,
}

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// All of it.
    pub total_bytes: u64,
    /// What programs that are not root's can still write.
    pub available_bytes: u64,
}

/// The API's unit, as systemd knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiUnit {
    /// `active`, `inactive`, `failed`, `activating`…
    pub state: String,
    /// When it came to be in that state.
    pub since: Option<Moment>,
    /// How often systemd has started it again by itself.
    pub restarts: u32,
    /// The file it runs: in an image a store path, which names the version.
    pub program: Known<String>,
}

/// Postgres and the application's database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Postgres's version, e.g. `17.6`.
    pub version: String,
    /// When Postgres started.
    pub started_at: Moment,
    /// Size of the database `drawbridge`.
    pub size_bytes: u64,
    /// Connections of clients, this look's own included.
    pub connections: u32,
    /// How many there may be.
    pub max_connections: u32,
    /// Whether Postgres replays its log: after a crash, or as a replica.
    pub is_in_recovery: bool,
}

impl Memory {
    /// What is in use, in whole per cent.
    #[must_use]
    pub fn used_percent(&self) -> u64 {
        used_percent(self.total_bytes, self.available_bytes)
    }
}

impl Disk {
    /// What is in use, in whole per cent.
    #[must_use]
    pub fn used_percent(&self) -> u64 {
        used_percent(self.total_bytes, self.available_bytes)
    }
}

impl Database {
    /// Connections in use, in whole per cent of what there may be.
    #[must_use]
    pub fn used_percent(&self) -> u64 {
        let (used, most) = (u64::from(self.connections), u64::from(self.max_connections));
        used_percent(most, most.saturating_sub(used))
    }
}

fn used_percent(total: u64, available: u64) -> u64 {
    let used = u128::from(total.saturating_sub(available));
    let percent = (used * 100).div_ceil(u128::from(total.max(1)));
    u64::try_from(percent).unwrap_or(100)
}

impl HostStatus {
    /// Reads what `drawbridge-host status` printed.
    ///
    /// # Errors
    /// A text that says what it is instead; nothing of it is quoted.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("`drawbridge-host status` did not print one JSON object but {what}")
        };
        let value: Value = serde_json::from_slice(text).map_err(|error| {
            wrong(&format!(
                "something else (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
        if !value.is_object() {
            return Err(wrong("another kind of value"));
        }
        Self::deserialize(value).map_err(|error| wrong(&format!("one of another shape ({error})")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let moment = Moment(time::macros::datetime!(2026-11-21 18:00:00.5 UTC));
        let status = HostStatus {
            time: Known::Value(moment),
            load: Known::Value([0.5, 1.0, 1.5]),
            volume: Known::Value(None),
            database: Known::Unknown("only root may ask".into()),
            ..HostStatus::default()
        };
        let text = serde_json::to_string(&status).unwrap();
        assert!(
            text.contains(r#""time":"2026-11-21T18:00:00.5Z""#),
            "{text}"
        );
        assert!(
            text.contains(r#""database":{"unknown":"only root may ask"}"#),
            "{text}"
        );
        assert_eq!(HostStatus::parse(text.as_bytes()).unwrap(), status);
    }

    #[test]
    fn a_host_of_another_version_is_read_as_far_as_it_goes() {
        let told = json!({
            "time": "2026-11-21T18:00:00Z", "uptime_seconds": "long", "moons": 2,
            "memory": {"total_bytes": 1000, "available_bytes": 400, "colour": "blue"},
        });
        let status = HostStatus::parse(told.to_string().as_bytes()).unwrap();
        assert_eq!(
            status.memory.value().map(Memory::used_percent),
            Some(60),
            "{status:?}"
        );
        let reason = status.uptime_seconds.reason().unwrap();
        assert!(reason.contains("another shape"), "{reason}");
        let reason = status.load.reason().unwrap();
        assert!(reason.contains("older"), "{reason}");
    }

    #[test]
    fn what_is_no_status_says_so_without_quoting_it() {
        for text in ["", "sesame", "[\"sesame\"]", "{\"a\":"] {
            let error = HostStatus::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains("drawbridge-host status"), "{error}");
            assert!(!error.contains("sesame"), "{error}");
        }
    }

    #[test]
    fn a_share_is_rounded_up_and_nothing_divides_by_nothing() {
        assert_eq!(used_percent(1000, 999), 1);
        assert_eq!(used_percent(1000, 0), 100);
        assert_eq!(used_percent(0, 0), 0);
        assert_eq!(used_percent(10, 20), 0);
    }
}
