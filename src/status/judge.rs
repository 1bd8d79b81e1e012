//! What is wrong with a deployment, decided from what was seen of it, and the command that mends it.
//!
//! What is not known is no finding: it is shown as unknown.

use time::Duration;

use super::{Host, Status};
use crate::appliance::Role;
use crate::appliance::status::{Disk, HostStatus, Known};
use crate::bastion::exec::command_line;
use crate::nat::finding::Finding;
use crate::nat::position::Position;
use crate::nat::status::for_people;
use crate::nat::window::Window;

/// Per cent of a disk in use. Postgres stops at 100; the journal is limited, so a disk that is this full goes on filling.
const DISK_FULL: u64 = 85;
/// Per cent of memory in use, caches not counted. Beyond it the kernel begins to kill.
const MEMORY_FULL: u64 = 95;
/// Per cent of the connections Postgres takes. The API's pool alone stays far below.
const CONNECTIONS_FULL: u64 = 85;
/// Seconds. AWS refuses signatures that are five minutes off; a host whose time service works is off by milliseconds.
const CLOCK_OFF: f64 = 5.0;
/// A window whose hosts have long been complete serves nobody.
const FORGOTTEN: Duration = Duration::hours(1);
/// A snapshot of nixpkgs this old lacks known fixes.
const OLD: Duration = Duration::days(90);

/// Everything that is wrong, the most urgent first.
#[must_use]
pub fn findings(status: &Status) -> Vec<Finding> {
    let mut found = Vec::new();
    for (role, host) in &status.hosts {
        outside(status, *role, host, &mut found);
    }
    api(status, &mut found);
    for (role, host) in &status.hosts {
        if let Known::Value(inside) = &host.host {
            within(*role, host, inside, &mut found);
        }
    }
    window(status, &mut found);
    found
}

/// What is no fault, but worth knowing: old images, an API in the clear.
#[must_use]
pub fn notes(status: &Status, url: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for (role, host) in &status.hosts {
        let Known::Value(Some(image)) = &host.image else {
            continue;
        };
        let age = status.taken_at.0 - image.created_at.0;
        if age > OLD {
            found.push(finding(
                "image-old",
                format!(
                    "{role} runs {}, which is {} days old: it lacks what was fixed since",
                    host.image_id,
                    age.whole_days()
                ),
                format!("scripts/publish-ami.sh --role {role}"),
            ));
        }
    }
    if url.starts_with("http://") {
        found.push(finding(
            "no-certificate",
            format!("the API is served in the clear at {url}: certificate_arn is not set"),
            "aws acm request-certificate --validation-method DNS --domain-name YOUR.DOMAIN, then certificate_arn and domain in terraform/terraform.tfvars",
        ));
    }
    found
}

fn finding(finding: &'static str, means: impl Into<String>, command: impl Into<String>) -> Finding {
    Finding {
        finding,
        means: means.into(),
        command: command.into(),
    }
}

fn outside(status: &Status, role: Role, host: &Host, found: &mut Vec<Finding>) {
    let region = &status.region;
    if let Known::Value(instance) = &host.instance
        && instance.state != "running"
    {
        let (id, state) = (&host.instance_id, &instance.state);
        let command = match state.as_str() {
            "stopped" => format!("aws ec2 start-instances --region {region} --instance-ids {id}"),
            "pending" | "stopping" => {
                format!("aws ec2 wait instance-running --region {region} --instance-ids {id}")
            }
            _ => "terraform -chdir=terraform apply".to_owned(),
        };
        found.push(finding(
            "instance-not-running",
            format!("{role}'s instance {id} is {state}"),
            command,
        ));
    }
    if let Known::Value(bootstrap) = &host.bootstrap
        && !bootstrap.is_complete
    {
        let is_open = status.window.value().is_none_or(|window| {
            matches!(window.window, Window::Open { .. }) || role == Role::Bastion
        });
        let command = match (is_open, &bootstrap.step) {
            (false, _) => "drawbridge nat open --for 30m".to_owned(),
            (true, Some(_)) => {
                format!("drawbridge exec {role} -- journalctl -u drawbridge-bootstrap -n 50")
            }
            (true, None) => format!(
                "aws ec2 get-console-output --region {region} --latest --output text --instance-id {}",
                host.instance_id
            ),
        };
        found.push(finding(
            "bootstrap-incomplete",
            format!("{role} ({}) {}", host.instance_id, bootstrap.said),
            command,
        ));
    }
    if host.image == Known::Value(None) {
        found.push(finding(
            "image-gone",
            format!(
                "{role} was started from {}, which does not exist any more: this host cannot be made anew",
                host.image_id
            ),
            format!("scripts/publish-ami.sh --role {role}"),
        ));
    }
}

fn api(status: &Status, found: &mut Vec<Finding>) {
    let direct = status.api.direct.value();
    if let Some(direct) = direct
        && !direct.is_ready
    {
        found.push(finding(
            "api-not-ready",
            format!("the API on the backend is not ready: {}", direct.seen),
            "drawbridge exec backend -- journalctl -u drawbridge-api -n 50",
        ));
    }
    if let Known::Value(balancer) = &status.api.load_balancer
        && !balancer.is_ready
    {
        // Without the backend's own answer it may be either.
        let command = match direct {
            Some(direct) if direct.is_ready => "drawbridge audit",
            _ => "drawbridge exec backend -- journalctl -u drawbridge-api -n 50",
        };
        let further = match direct {
            Some(direct) if direct.is_ready => {
                "; on the backend itself it is ready, so it is the load balancer, its rules or this machine's network"
            }
            _ => "",
        };
        found.push(finding(
            "api-not-ready-outside",
            format!(
                "the API is not ready through the load balancer: {}{further}",
                balancer.seen
            ),
            command,
        ));
    }
}

fn within(role: Role, host: &Host, inside: &HostStatus, found: &mut Vec<Finding>) {
    if let Known::Value(units) = &inside.failed_units {
        for unit in units {
            // On the bastion nobody is root.
            let command = match role {
                Role::Bastion => format!(
                    "aws ec2 reboot-instances --instance-ids {}",
                    host.instance_id
                ),
                _ => format!(
                    "drawbridge exec {role} -- sudo systemctl restart {}",
                    command_line(&[unit])
                ),
            };
            found.push(finding(
                "unit-failed",
                format!("{role}'s unit {unit} has failed"),
                command,
            ));
        }
    }
    if let Some(disk) = full(inside.root_disk.value()) {
        let command = match role {
            Role::Bastion => {
                "terraform -chdir=terraform apply -replace=aws_instance.bastion".to_owned()
            }
            _ => format!("drawbridge exec {role} -- sudo journalctl --vacuum-size=64M"),
        };
        found.push(finding(
            "disk-nearly-full",
            format!("{role}'s root disk is {disk} % full"),
            command,
        ));
    }
    if let Some(disk) = full(inside.volume.value().and_then(Option::as_ref)) {
        found.push(finding(
            "volume-nearly-full",
            format!("the database's volume is {disk} % full: at 100 % Postgres stops"),
            "raise database_volume_gib in terraform/terraform.tfvars, then terraform -chdir=terraform apply && drawbridge exec database -- sudo resize2fs /run/drawbridge/database-volume",
        ));
    }
    if let Known::Value(memory) = &inside.memory
        && memory.used_percent() >= MEMORY_FULL
    {
        found.push(finding(
            "memory-nearly-full",
            format!("{role}'s memory is {} % in use", memory.used_percent()),
            format!("a larger {role} in instance_types of terraform/terraform.tfvars, then terraform -chdir=terraform apply"),
        ));
    }
    if let Known::Value(Some(database)) = &inside.database {
        if database.used_percent() >= CONNECTIONS_FULL {
            found.push(finding(
                "connections-nearly-max",
                format!(
                    "{} of Postgres's {} connections are in use",
                    database.connections, database.max_connections
                ),
                "drawbridge exec database -- 'sudo -u postgres psql -c \"SELECT usename, state, count(*) FROM pg_stat_activity GROUP BY 1, 2\"'",
            ));
        }
        if database.is_in_recovery {
            found.push(finding(
                "database-in-recovery",
                "Postgres replays its log and takes no writes",
                "drawbridge exec database -- journalctl -u postgresql -n 50",
            ));
        }
    }
    if let Some(ahead) = host.clock_ahead_seconds
        && ahead.abs() > CLOCK_OFF
    {
        let seconds = for_people(ahead.abs().round() as u64);
        let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
        let command = match role {
            Role::Bastion => "drawbridge exec bastion -- timedatectl".to_owned(),
            _ => format!("drawbridge exec {role} -- sudo systemctl restart systemd-timesyncd"),
        };
        found.push(finding(
            "clock-off",
            format!("{role}'s clock is {seconds} {direction} this machine's"),
            command,
        ));
    }
}

/// Per cent in use, if that is too much.
fn full(disk: Option<&Disk>) -> Option<u64> {
    let used = disk?.used_percent();
    (used >= DISK_FULL).then_some(used)
}

fn window(status: &Status, found: &mut Vec<Finding>) {
    let Known::Value(window) = &status.window else {
        return;
    };
    found.extend(window.findings.iter().cloned());
    let (Window::Open { gateway }, Position::Open) = (&window.window, window.position) else {
        return;
    };
    let complete = window.waiting.as_ref().is_some_and(Vec::is_empty);
    let stood = window.stood.as_ref();
    if let Some(stood) = stood.filter(|stood| complete && long(stood.seconds)) {
        found.push(finding(
            "window-forgotten",
            format!(
                "{gateway} has stood for {} though both hosts are complete: {}",
                for_people(stood.seconds),
                stood.cost
            ),
            "drawbridge nat close",
        ));
    }
}

fn long(seconds: u64) -> bool {
    Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX)) > FORGOTTEN
}
