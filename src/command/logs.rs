//! `drawbridge logs`: the journal of a host, or those of all hosts as one.

use std::collections::VecDeque;
use std::io::ErrorKind;

use clap::Args;
use serde_json::{Map, Value, json};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime, UtcOffset};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::access::{AccessArgs, access};
use super::{DeploymentArgs, duration, json_line};
use crate::appliance::Role;
use crate::bastion::Access;
use crate::bastion::journal::{self, Entry, News, Query};
use crate::bastion::reconnect::Patience;
use crate::error_chain::chain;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::progress::{Progress, escape};

/// Without `--since` and `--lines`: a screenful or two.
const NEWEST: u32 = 100;
/// Entries of a host that wait for those of the others.
const AHEAD: usize = 64;
const SECONDS_A_DAY: i64 = 24 * 60 * 60;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

const ABOUT: &str = "\
Show the journal of a host, or those of all hosts as one.

Without a host, the three journals are merged by time, each line with its host in front; with -f lines come as they arrive.
Control characters in messages are shown as escapes. A lost session is made again, and goes on behind the last entry. A
host that cannot be reached is named, and the others are shown.";

const HELP: &str = "\
Examples:
  drawbridge logs                               # the newest 100 lines of each host
  drawbridge logs backend -f -u drawbridge-api
  drawbridge logs database --since 2h -u postgresql
  drawbridge logs --since '2026-11-21 09:30' --json | jq -r 'select(.PRIORITY <= \"3\") | [.host, .MESSAGE] | @tsv'

Times are UTC.

Exit status:
  0    shown
  1    a host's journal could not be read, or not to its end; stderr says which and why
  2    wrong usage
  130  Ctrl-C: the usual end with -f";

/// Show the journal of a host, or those of all hosts as one
#[derive(Args, Clone, Debug)]
#[command(long_about = ABOUT, after_help = HELP)]
pub struct LogsArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// bastion, backend or database; default: all
    host: Option<Role>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only entries since then: 90s, 15m, 2h or 3d ago, `2026-11-21 09:30` (UTC) or 2026-11-21T09:30:00+01:00
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<OffsetDateTime>,
    /// The newest N of each host; default: 100, or all with --since
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u32>,
    /// Only this unit, e.g. drawbridge-api; * and ? stand for others
    #[arg(short, long, value_parser = unit)]
    unit: Option<String>,
    /// One JSON object a line: journald's fields, and `host`
    #[arg(long)]
    json: bool,
}

fn unit(text: &str) -> Result<String, String> {
    // As systemd names units, and what journalctl takes for patterns.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@*?[]".contains(&byte);
    if text.is_empty() || text.len() > 255 || text.starts_with('-') || !text.bytes().all(plain) {
        return Err(format!(
            "`{text}` is not a unit, e.g. drawbridge-api.service"
        ));
    }
    Ok(text.to_owned())
}

fn since(text: &str) -> Result<OffsetDateTime, String> {
    const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
    const MINUTE: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day] [hour]:[minute]");
    const SECOND: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<u16>().ok());
    let ago = match days {
        Some(days) => Some(time::Duration::seconds(i64::from(days) * SECONDS_A_DAY)),
        None => duration(text)
            .ok()
            .and_then(|found| time::Duration::try_from(found).ok()),
    };
    if let Some(ago) = ago {
        let then = OffsetDateTime::now_utc().checked_sub(ago);
        return then.ok_or_else(|| format!("`{text}` is too long ago"));
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let local = [MINUTE, SECOND]
        .iter()
        .find_map(|format| PrimitiveDateTime::parse(text, format).ok());
    let local = local.or_else(|| Some(Date::parse(text, DATE).ok()?.midnight()));
    local.map(PrimitiveDateTime::assume_utc).ok_or_else(|| {
        format!(
            "`{text}` is not a time like 15m, 2h, 3d, `2026-11-21 09:30` or 2026-11-21T09:30:00Z"
        )
    })
}

impl LogsArgs {
    /// Runs it; an error is for [`super::report_error`].
    ///
    /// # Errors
    /// When the deployment or the cloud cannot be read, or the output not written.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<Exit> {
        let work = async {
            let (access, _) = access(&self.deployment, &self.access, progress, interrupt).await?;
            let hosts = self.host.map_or(Role::ALL.to_vec(), |host| vec![host]);
            let query = Query {
                since: self.since,
                newest: match (self.lines, self.since) {
                    (None, None) => Some(NEWEST),
                    (lines, _) => lines,
                },
                unit: self.unit.clone(),
                is_following: self.follow,
                is_whole: self.json,
            };
            // A journal may have nothing to say for hours.
            progress.clear();
            let mut output = tokio::io::BufWriter::new(tokio::io::stdout());
            let shown = Shown {
                output: &mut output,
                is_json: self.json,
                progress,
            };
            show(&access, &hosts, &query, Patience::default(), shown).await
        };
        tokio::select! {
            ended = work => ended,
            () = interrupt.requested() => Ok(Exit::Interrupted),
        }
    }
}

/// Where entries go, and how.
pub struct Shown<'a, W> {
    /// Their lines.
    pub output: &'a mut W,
    /// As JSON instead of text.
    pub is_json: bool,
    /// Everything else.
    pub progress: &'a Progress,
}

/// Shows the journals of `hosts`. A closed output ends it quietly.
///
/// # Errors
/// When an entry cannot be written.
pub async fn show<W: AsyncWrite + Unpin>(
    access: &Access,
    hosts: &[Role],
    query: &Query,
    patience: Patience,
    mut shown: Shown<'_, W>,
) -> anyhow::Result<Exit> {
    let mut readers = Vec::new();
    let mut journals = Vec::new();
    for host in hosts {
        let (sender, receiver) = mpsc::channel(AHEAD);
        readers.push(journal::read(access, *host, query, patience, sender));
        journals.push(Journal {
            host: *host,
            news: receiver,
            next: VecDeque::new(),
            is_over: false,
        });
    }
    let progress = shown.progress.clone();
    let read = async {
        let mut all_read = true;
        let mut results = Vec::new();
        for (reader, host) in readers.into_iter().zip(hosts) {
            let progress = &progress;
            results.push(Box::pin(async move {
                let ended = reader.await;
                if let Err(error) = &ended {
                    progress.say_always(&format!("{host}: {}", chain(error)));
                }
                ended.is_ok()
            }));
        }
        // At most three: polled together by hand, one after the other they would wait for each other.
        for is_ok in join_all(results).await {
            all_read &= is_ok;
        }
        all_read
    };
    let print = async {
        let written = match query.is_following && journals.len() > 1 {
            true => shown.as_they_come(journals).await,
            false => shown.by_time(journals).await,
        };
        match written {
            Ok(()) => shown.output.flush().await,
            written => written,
        }
    };
    tokio::pin!(read, print);
    let (all_read, written) = tokio::select! {
        all_read = &mut read => (all_read, print.await),
        written = &mut print => match written {
            Ok(()) => (read.await, written),
            // Nobody looks any more; what is still to come is not waited for.
            Err(_) => (true, written),
        },
    };
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write the lines")),
        Ok(()) if all_read => Ok(Exit::Done),
        Ok(()) => Ok(Exit::Failed),
    }
}

async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut results: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context)
            {
                *result = Some(output);
            }
        }
        match results.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// What has come of one host and is not shown yet.
struct Journal {
    host: Role,
    news: mpsc::Receiver<News>,
    next: VecDeque<Entry>,
    is_over: bool,
}

impl<W: AsyncWrite + Unpin> Shown<'_, W> {
    /// The oldest entry first; each host's next one has to be there to know it.
    async fn by_time(&mut self, mut journals: Vec<Journal>) -> std::io::Result<()> {
        loop {
            for journal in &mut journals {
                while journal.next.is_empty() && !journal.is_over {
                    if journal.news.is_empty() {
                        self.output.flush().await?;
                    }
                    match journal.news.recv().await {
                        Some(news) => journal.next.extend(self.heard(journal.host, news)),
                        None => journal.is_over = true,
                    }
                }
            }
            let ready = journals.iter_mut();
            let oldest = ready
                .filter(|journal| !journal.next.is_empty())
                .min_by_key(|journal| journal.next.front().map(|entry| entry.microseconds));
            let Some(oldest) = oldest else {
                return Ok(());
            };
            if let Some(entry) = oldest.next.pop_front() {
                self.write(oldest.host, entry).await?;
            }
        }
    }

    async fn as_they_come(&mut self, journals: Vec<Journal>) -> std::io::Result<()> {
        let (sender, mut all) = mpsc::channel(AHEAD);
        let mut passing = tokio::task::JoinSet::new();
        for mut journal in journals {
            let sender = sender.clone();
            passing.spawn(async move {
                while let Some(news) = journal.news.recv().await {
                    if sender.send((journal.host, news)).await.is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        loop {
            if all.is_empty() {
                self.output.flush().await?;
            }
            let Some((host, news)) = all.recv().await else {
                return Ok(());
            };
            if let Some(entry) = self.heard(host, news) {
                self.write(host, entry).await?;
            }
        }
    }

    fn heard(&self, host: Role, news: News) -> Option<Entry> {
        match news {
            News::Entry(entry) => return Some(*entry),
            News::Lost => self
                .progress
                .say_always(&format!("lost the session to {host}; making it again")),
            News::Back => self
                .progress
                .say_always(&format!("the session to {host} is back")),
        }
        None
    }

    async fn write(&mut self, host: Role, entry: Entry) -> std::io::Result<()> {
        let text = match self.is_json {
            true => object(host, entry)?,
            false => line(host, &entry),
        };
        self.output.write_all(text.as_bytes()).await
    }
}

fn object(host: Role, entry: Entry) -> std::io::Result<String> {
    let mut object = Map::new();
    object.insert("host".into(), json!(host));
    object.insert("__CURSOR".into(), json!(entry.cursor));
    object.insert(
        "__REALTIME_TIMESTAMP".into(),
        json!(entry.microseconds.to_string()),
    );
    object.extend(entry.fields);
    json_line(&Value::Object(object)).map_err(std::io::Error::other)
}

/// Time, host, who, message; further lines of a message are indented, so that none looks like another entry.
fn line(host: Role, entry: &Entry) -> String {
    let nanoseconds = i128::from(entry.microseconds) * 1000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok();
    let time = time.and_then(|time| time.to_offset(UtcOffset::UTC).format(TIME).ok());
    let time = time.unwrap_or_else(|| "?".to_owned());
    let message = entry.text("MESSAGE").unwrap_or_default();
    let mut text = format!("{time} {host:<8} {}:", escape(&entry.source()));
    for (number, part) in message.trim_end_matches('\n').split('\n').enumerate() {
        text.push_str(if number == 0 { " " } else { "\n    " });
        text.push_str(&escape(part));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str) -> Entry {
        let fields = json!({
            "__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "1700000000123456",
            "MESSAGE": message, "_SYSTEMD_UNIT": "drawbridge-api.service",
        });
        Entry::parse(&fields.to_string()).unwrap()
    }

    #[test]
    fn a_line_is_harmless_and_no_message_can_pretend_to_be_another_entry() {
        let forged = "first\n2023-11-14T22:13:20.000Z database sshd: let in\u{1b}[2J\r\n";
        assert_eq!(
            line(Role::Backend, &entry(forged)),
            "2023-11-14T22:13:20.123Z backend  drawbridge-api.service: first\n    \
             2023-11-14T22:13:20.000Z database sshd: let in\\u{1b}[2J\\r\n"
        );
    }

    #[test]
    fn an_object_is_one_line_with_its_host_first() {
        let text = object(Role::Database, entry("a\nb\u{9b}2J")).unwrap();
        assert!(
            text.starts_with(r#"{"host":"database","__CURSOR":"s=1","#),
            "{text}"
        );
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.contains("\\u009b"), "{text}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["MESSAGE"], "a\nb\u{9b}2J");
    }

    #[test]
    fn times_are_ago_or_utc_or_with_their_offset() {
        let at = |text: &str| since(text).map(OffsetDateTime::unix_timestamp);
        assert_eq!(at("2026-11-21T09:30:00+01:00"), at("2026-11-21 08:30"));
        assert_eq!(at("2026-11-21 00:00:00"), at("2026-11-21"));
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let ago = |text: &str| now - at(text).unwrap();
        assert!((3600..3610).contains(&ago("1h")), "{}", ago("1h"));
        assert!((259_200..259_210).contains(&ago("3d")), "{}", ago("3d"));
        for wrong in ["", "yesterday", "1", "$(id)", "2026-13-01", "1h ago", "@1"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_unit_is_a_name_or_a_pattern() {
        for right in ["drawbridge-api", "user@1000.service", "sshd*"] {
            assert!(unit(right).is_ok(), "{right}");
        }
        for wrong in ["", "-x", "a b", "$(id)", "a\nb"] {
            assert!(unit(wrong).is_err(), "{wrong}");
        }
    }
}
