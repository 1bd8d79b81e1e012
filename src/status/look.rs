//! Looks at everything side by side, for a limited time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use super::bound::{Bound, Last};
use super::inside::{Inside, ReadyOnHost, SessionFiles, WayIn, host};
use super::{Answer, Api, Bootstrap, Host, Image, Instance, Status, judge};
use crate::appliance::Role;
use crate::appliance::status::{Known, Moment};
use crate::bastion::host_keys::Pins;
use crate::bastion::{Access, Endpoint, Keyring, Login};
use crate::cloud::Cloud;
use crate::error_chain::chain;
use crate::nat::door::Door;
use crate::nat::gate;
use crate::nat::look::look as look_at_window;
use crate::nat::status::Status as Window;
use crate::nat::window::InState;
use crate::terraform::state::{State, StateError};
use crate::terraform::{Deployment, Terraform, TerraformError};

/// How to reach the hosts and the API.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Where the bastion answers instead of its public address and port 22.
    pub bastion: Option<Endpoint>,
    /// Private key files to use instead of the agent and the usual ones.
    pub identity: Vec<PathBuf>,
    /// Users and port.
    pub login: Login,
    /// Base address of the API instead of the load balancer's.
    pub url: Option<String>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Terraform does not tell what there is to look at.
    #[error(transparent)]
    Terraform(#[from] TerraformError),
    /// Its state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Terraform took too long.
    #[error(
        "terraform did not say within {} s what stands: is the state's bucket reachable? `terraform -chdir={directory} output deployment` shows it; --limit gives it longer",
        limit.as_secs()
    )]
    Slow {
        /// For everything.
        limit: Duration,
        /// The Terraform folder.
        directory: String,
    },
}

/// What was seen, and what it was seen by.
#[derive(Debug)]
pub struct Looked {
    /// For the user.
    pub status: Status,
    /// Terraform's output.
    pub deployment: Deployment,
    /// Terraform's state.
    pub state: State,
    /// Whether the credentials are the deployment's account's.
    pub account: Known<()>,
    /// The host keys in SSM.
    pub pins: Known<Pins>,
    /// The files for plain OpenSSH.
    pub session_files: Known<SessionFiles>,
    /// How far the way to each host went.
    pub ways: BTreeMap<Role, WayIn>,
}

/// Looks at everything, changes nothing, and returns within `limit`.
///
/// # Errors
/// When it cannot be learnt what there is to look at.
pub async fn look(terraform: &Terraform, way: &Way, limit: Duration) -> Result<Looked, LookError> {
    let begun = Instant::now();
    let taken_at = Moment(OffsetDateTime::now_utc());
    let bound = Bound {
        end: begun + limit,
        limit,
    };
    let both = async { tokio::try_join!(terraform.deployment(), terraform.state_pull()) };
    let (deployment, state) =
        timeout_at(bound.end, both)
            .await
            .map_err(|_| LookError::Slow {
                limit,
                directory: terraform.directory().display().to_string(),
            })??;
    let state = State::parse(&state)?;
    let cloud = Cloud::new(&deployment.region).await;
    let door = async {
        let door = Door::of(&deployment.load_balancer, way.url.as_deref());
        let ask = async { Ok::<_, String>(Answer::from(door.ask().await)) };
        bound.get(&Last::new("asking the load balancer"), ask).await
    };
    let seen = async {
        let account = cloud.check_account(&deployment.account_id);
        let account = bound
            .ask("asking AWS whose credentials these are", account)
            .await;
        // Of another account, or without credentials, nothing else that AWS says would be about this deployment.
        match &account {
            Known::Unknown(reason) => Seen::nothing(reason),
            Known::Value(()) => {
                Seen::look(terraform, way, &cloud, &deployment, &state, bound).await
            }
        }
        .by(account)
    };
    let (load_balancer, seen) = tokio::join!(door, seen);
    Ok(seen.into_looked(deployment, state, taken_at, begun, load_balancer))
}

/// What AWS and the hosts say.
struct Seen {
    account: Known<()>,
    window: Known<Window>,
    reports: Known<BTreeMap<Role, Bootstrap>>,
    images: Known<BTreeMap<String, Image>>,
    instances: Known<BTreeMap<String, Instance>>,
    pins: Known<Pins>,
    session_files: Known<SessionFiles>,
    inside: BTreeMap<Role, Inside>,
    direct: Known<Answer>,
}

impl Seen {
    fn nothing(reason: &str) -> Self {
        let unknown = || reason.to_owned();
        Self {
            account: Known::Unknown(unknown()),
            window: Known::Unknown(unknown()),
            reports: Known::Unknown(unknown()),
            images: Known::Unknown(unknown()),
            instances: Known::Unknown(unknown()),
            pins: Known::Unknown(unknown()),
            session_files: Known::Unknown(unknown()),
            inside: Role::ALL.map(|role| (role, Inside::unknown(reason))).into(),
            direct: Known::Unknown(unknown()),
        }
    }

    fn by(self, account: Known<()>) -> Self {
        Self { account, ..self }
    }

    async fn look(
        terraform: &Terraform,
        way: &Way,
        cloud: &Cloud,
        deployment: &Deployment,
        state: &State,
        bound: Bound,
    ) -> Self {
        let window = look_at_window(terraform, cloud, deployment, InState::of(state));
        let window = async { window.await.map_err(|error| chain(&error)) };
        let doing = Last::new("asking AWS for the window's gateway, address and route");
        let reports = cloud.reports(&deployment.name, &Role::ALL);
        let (image_ids, instance_ids) = ids(deployment);
        let images = cloud.images_of_ids(&image_ids);
        let instances = cloud.instances_of_ids(&instance_ids);
        let (window, reports, images, instances, hosts_seen) = tokio::join!(
            bound.get(&doing, window),
            bound.ask("reading the bootstrap reports", reports),
            bound.ask("looking for the images", images),
            bound.ask("looking for the instances", instances),
            hosts(terraform, way, cloud, deployment, bound),
        );
        let hosts = reports.map(|reports| gate_hosts(deployment, reports));
        let waiting = match &hosts {
            Known::Value(hosts) => {
                let mut waiting = gate::judge(hosts);
                waiting.retain(|waiting| gate::HOSTS.contains(&waiting.host));
                Ok(waiting)
            }
            Known::Unknown(reason) => Err(reason.clone()),
        };
        let now = OffsetDateTime::now_utc();
        Self {
            account: Known::Value(()),
            window: window.map(|seen| Window::new(deployment, seen, waiting, now)),
            reports: hosts.map(|hosts| hosts.iter().map(bootstrap).collect()),
            images: images.map(|images| {
                let image = |image: crate::cloud::images::Image| {
                    let seen = Image {
                        name: image.name,
                        created_at: Moment(image.created_at),
                    };
                    (image.id, seen)
                };
                images.into_iter().map(image).collect()
            }),
            instances: instances.map(|instances| {
                let instance = |instance: crate::cloud::images::Running| {
                    let seen = Instance {
                        state: instance.state,
                        launched_at: Moment(instance.launched_at),
                    };
                    (instance.id, seen)
                };
                instances.into_iter().map(instance).collect()
            }),
            ..hosts_seen
        }
    }

    fn into_looked(
        mut self,
        deployment: Deployment,
        state: State,
        taken_at: Moment,
        begun: Instant,
        load_balancer: Known<Answer>,
    ) -> Looked {
        let mut hosts = BTreeMap::new();
        let mut ways = BTreeMap::new();
        for role in Role::ALL {
            let place = place(&deployment, role);
            let inside = self
                .inside
                .remove(&role)
                .unwrap_or_else(|| Inside::unknown("it was not asked"));
            let instance = match &self.instances {
                Known::Value(all) => Known::from(all.get(place.instance_id).cloned().ok_or_else(
                    || "EC2 lists no such instance (any more): `terraform plan` shows what is missing".to_owned(),
                )),
                Known::Unknown(reason) => Known::Unknown(reason.clone()),
            };
            let report = |reports: BTreeMap<Role, Bootstrap>| reports.get(&role).cloned();
            let host = Host {
                instance_id: place.instance_id.to_owned(),
                private_ip: place.private_ip.to_owned(),
                public_ip: place.public_ip.map(str::to_owned),
                image_id: place.image_id.to_owned(),
                instance,
                image: self
                    .images
                    .clone()
                    .map(|images| images.get(place.image_id).cloned()),
                bootstrap: match self.reports.clone().map(report) {
                    Known::Value(Some(report)) => Known::Value(report),
                    Known::Value(None) => Known::Unknown("SSM gave no report of it".to_owned()),
                    Known::Unknown(reason) => Known::Unknown(reason),
                },
                host: inside.host,
                clock_ahead_seconds: inside.ahead,
            };
            hosts.insert(role, host);
            ways.insert(role, inside.way);
        }
        let mut status = Status {
            deployment: deployment.name.clone(),
            account: deployment.account_id.clone(),
            region: deployment.region.clone(),
            taken_at,
            seconds: begun.elapsed().as_secs_f64(),
            hosts,
            api: Api {
                load_balancer,
                direct: self.direct,
            },
            window: self.window,
            last_backup: None,
            findings: Vec::new(),
            unknown: Vec::new(),
        };
        status.findings = judge::findings(&status);
        status.unknown = status.all_unknown();
        Looked {
            status,
            deployment,
            state,
            account: self.account,
            pins: self.pins,
            session_files: self.session_files,
            ways,
        }
    }
}

fn ids(deployment: &Deployment) -> (Vec<&str>, Vec<&str>) {
    let places = Role::ALL.map(|role| place(deployment, role));
    let mut images: Vec<&str> = places.iter().map(|place| place.image_id).collect();
    images.sort_unstable();
    images.dedup();
    let instances = places.iter().map(|place| place.instance_id).collect();
    (images, instances)
}

fn gate_hosts(
    deployment: &Deployment,
    reports: Vec<(Role, crate::appliance::ReportState)>,
) -> Vec<gate::Host> {
    let host = |(role, report)| gate::Host {
        role,
        instance_id: place(deployment, role).instance_id.to_owned(),
        report,
    };
    reports.into_iter().map(host).collect()
}

fn bootstrap(host: &gate::Host) -> (Role, Bootstrap) {
    let seen = match host.waiting() {
        None => Bootstrap {
            is_complete: true,
            step: Some("complete".to_owned()),
            said: "complete".to_owned(),
        },
        Some(waiting) => Bootstrap {
            is_complete: false,
            step: waiting.step,
            said: waiting.reason,
        },
    };
    (host.role, seen)
}

/// Signs in to all three hosts side by side; what only AWS tells stays unknown here.
async fn hosts(
    terraform: &Terraform,
    way: &Way,
    cloud: &Cloud,
    deployment: &Deployment,
    bound: Bound,
) -> Seen {
    let pins = cloud.host_keys(&deployment.name);
    let pins = bound.ask("reading the pinned host keys", pins).await;
    let pinned = match &pins {
        Known::Value(pinned) => pinned.clone(),
        Known::Unknown(reason) => return Seen::nothing(reason),
    };
    let access = Access {
        deployment: deployment.clone(),
        pins: pinned,
        bastion: way.bastion.clone(),
        keys: Keyring::of(way.identity.iter().cloned()),
        login: way.login.clone(),
    };
    let session_files = Known::from(SessionFiles::look(terraform.directory(), &access));
    let refused = match &session_files {
        Known::Value(SessionFiles::Changed(reason)) | Known::Unknown(reason) => Some(reason),
        Known::Value(_) => None,
    };
    if let Some(reason) = refused {
        let nothing = Seen::nothing(reason);
        return Seen {
            pins,
            session_files,
            ..nothing
        };
    }
    let ready = ReadyOnHost::of(terraform, deployment);
    let (bastion, backend, database) = tokio::join!(
        host(&access, Role::Bastion, None, bound),
        host(&access, Role::Backend, Some(&ready), bound),
        host(&access, Role::Database, None, bound),
    );
    let inside = [
        (Role::Bastion, bastion.0),
        (Role::Backend, backend.0),
        (Role::Database, database.0),
    ];
    Seen {
        pins,
        session_files,
        inside: inside.into(),
        direct: backend.1,
        ..Seen::nothing("it was not asked")
    }
}

/// Where a host is, whichever it is.
pub(super) struct Place<'a> {
    pub instance_id: &'a str,
    pub private_ip: &'a str,
    pub public_ip: Option<&'a str>,
    pub image_id: &'a str,
}

pub(super) fn place(deployment: &Deployment, role: Role) -> Place<'_> {
    let private = match role {
        Role::Bastion => {
            let bastion = &deployment.bastion;
            return Place {
                instance_id: &bastion.instance_id,
                private_ip: &bastion.private_ip,
                public_ip: Some(&bastion.public_ip),
                image_id: &bastion.image_id,
            };
        }
        Role::Backend => &deployment.backend,
        Role::Database => &deployment.database,
    };
    Place {
        instance_id: &private.instance_id,
        private_ip: &private.private_ip,
        public_ip: None,
        image_id: &private.image_id,
    }
}
