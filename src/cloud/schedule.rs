//! The deadline of a window, as EventBridge Scheduler holds it.

use aws_sdk_scheduler::error::ProvideErrorMetadata as _;
use aws_sdk_scheduler::types::ScheduleState;
use serde::Serialize;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::{Cloud, CloudError, Trouble};

/// The schedule that deletes the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When it acts, or has acted.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Whether it will act at all.
    pub is_enabled: bool,
}

impl Cloud {
    /// The schedule of this name; `None` when there is none.
    ///
    /// # Errors
    /// When Scheduler cannot be asked, or the schedule is not one for a single instant in UTC.
    pub async fn schedule(&self, name: &str) -> Result<Option<Schedule>, CloudError> {
        let failed = |trouble| CloudError::Request {
            what: "read the window's deadline",
            region: self.region.clone(),
            trouble,
        };
        let answer = match self.scheduler.get_schedule().name(name).send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(None),
            Err(error) => return Err(failed(Trouble::of_sdk(&error))),
        };
        let expression = answer.schedule_expression.unwrap_or_default();
        let zone = answer.schedule_expression_timezone;
        let at = read_instant(&expression, zone.as_deref()).ok_or_else(|| {
            failed(Trouble::Other {
                message: format!(
                    "the schedule {name} runs `{expression}`, not at(…) of one instant in UTC"
                ),
            })
        })?;
        Ok(Some(Schedule {
            name: name.to_owned(),
            at,
            is_enabled: answer.state != Some(ScheduleState::Disabled),
        }))
    }

    /// The schedule that was made for this gateway, whatever its deadline: Terraform's name for it begins so.
    ///
    /// # Errors
    /// As [`Cloud::schedule`].
    pub async fn schedule_of(
        &self,
        deployment: &str,
        gateway: &str,
    ) -> Result<Option<Schedule>, CloudError> {
        let prefix = format!("{deployment}-{gateway}-");
        let asked = self.scheduler.list_schedules().name_prefix(prefix);
        let answer = asked.send().await.map_err(|error| CloudError::Request {
            what: "look for the window's deadline",
            region: self.region.clone(),
            trouble: Trouble::of_sdk(&error),
        })?;
        match answer.schedules.into_iter().find_map(|found| found.name) {
            Some(name) => self.schedule(&name).await,
            None => Ok(None),
        }
    }
}

/// Reads `at(2026-11-20T12:40:00)`. A schedule without a zone is in UTC.
fn read_instant(expression: &str, zone: Option<&str>) -> Option<OffsetDateTime> {
    if !matches!(zone, None | Some("UTC")) {
        return None;
    }
    let text = expression.strip_prefix("at(")?.strip_suffix(')')?;
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    Some(PrimitiveDateTime::parse(text, format).ok()?.assume_utc())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::read_instant;

    #[test]
    fn only_one_instant_in_utc_is_a_deadline() {
        let at = "at(2026-11-20T12:40:00)";
        let wanted = Some(datetime!(2026-11-20 12:40 UTC));
        assert_eq!(read_instant(at, None), wanted);
        assert_eq!(read_instant(at, Some("UTC")), wanted);
        assert_eq!(read_instant(at, Some("Asia/Kolkata")), None);
        for wrong in ["", "rate(4 hours)", "at(2026-11-20)", "2026-11-20T12:40:00"] {
            assert_eq!(read_instant(wrong, None), None, "{wrong}");
        }
    }
}
