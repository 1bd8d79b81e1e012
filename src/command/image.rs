//! `drawbridge image build`, `publish` and `prune`.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;

use super::{DeploymentArgs, duration, json as to_json, print, report_error};
use crate::appliance::Role;
use crate::exit::Exit;
use crate::image::prune::{Plan, Rules, decide, look};
use crate::image::publish::{Options, Outcome, Report};
use crate::image::source::Source;
use crate::image::target::Target;
use crate::image::variables::{FILE, Variables};
use crate::image::{Folder, ImageError, ImageInfo, System, build, prune, publish};
use crate::interrupt::Interrupt;
use crate::nat::position::instant_text;
use crate::progress::{Progress, escape};
use crate::terraform::{Terraform, TerraformError, directory};

/// How many blocks are on their way at a time, where nobody says.
pub(super) const PARALLEL: u8 = 32;

/// The images that the hosts start from: build, publish, prune
#[derive(Clone, Debug, Subcommand)]
#[command(after_help = IMAGE_HELP)]
pub enum ImageCommand {
    #[allow(missing_docs, reason = "what `--help` says stands at the arguments")]
    Build(BuildArgs),
    #[allow(missing_docs, reason = "what `--help` says stands at the arguments")]
    Publish(PublishArgs),
    #[allow(missing_docs, reason = "what `--help` says stands at the arguments")]
    Prune(PruneArgs),
}

const IMAGE_HELP: &str = "\
Examples:
  drawbridge image publish
  drawbridge image prune

The exit statuses are in the help of each.";

const BUILD_HELP: &str = "\
Examples:
  drawbridge image build                                        all three, for this machine's processor
  drawbridge image build --role backend --system aarch64-linux

Exit status:
  0    built; stdout has a line ROLE=FOLDER for each, as `image publish --image` takes it
  1    failed
  2    wrong usage
  130  interrupted";

const PUBLISH_ABOUT: &str = "\
Make AMIs of raw images and write their ids to images.auto.tfvars.json.

Each image is a folder that `nix build .#ami-ROLE` made; without --image it is built. A disk that is truncated, no raw
disk, or still changing is refused before anything is begun. Its blocks go to an EBS snapshot by the EBS direct APIs:
no bucket, no import role; blocks of zeros are not sent. The AMI demands IMDSv2, has ENA and a gp3 root disk, and its
tags name role, system, content, commit and nixpkgs revision.

An image whose content is published already is used as it is. Interrupted anywhere, run it again: what has arrived is
remembered in .drawbridge/publish and not sent twice. Other roles' entries in the file stay. Where terraform is
initialised and its state holds a deployment, another account or region than its own is refused.

Costs: the snapshots, about 0.05 USD a month per GB that is not zeros; `drawbridge image prune` removes old ones.";

const PUBLISH_HELP: &str = "\
Examples:
  drawbridge image publish                                      build and publish all three
  drawbridge image publish --role backend --region ap-south-1
  drawbridge image publish --image backend=result --image database=result-1 --json

JSON: account, region, file, is_file_changed; images [{role, system, image, snapshot, outcome (existed, registered,
resumed, uploaded), content, bytes, blocks, sent, seconds, bytes_per_second}].

Exit status:
  0    published, and images.auto.tfvars.json says so
  1    failed; run it again and it goes on
  2    wrong usage
  4    refused: not a disk that can boot, two folders for one role, another account or region, credentials missing or
       expired at the start, a malformed images.auto.tfvars.json; nothing was begun
  130  interrupted; run it again and it goes on";

const PRUNE_ABOUT: &str = "\
Show which AMIs are too many, and with --yes remove them and their snapshots.

Of each role and system the newest stay, and so does every image that an instance in any state but terminated, a launch
template (its default or latest version) or images.auto.tfvars.json names. Only what `image publish` made is looked at,
by its tags. Also removed: snapshots whose image an interrupted prune has removed, and uploads that never ended.";

const PRUNE_HELP: &str = "\
Examples:
  drawbridge image prune                                        only shows
  drawbridge image prune --keep 1 --yes

JSON: account, region, is_done; plan {images [{image, name, created_at, snapshots}], snapshots [{snapshot, why,
started_at, gib}], kept [{image, name, why}]}.

Exit status:
  0    shown, or removed
  1    failed; run it again and it goes on
  2    wrong usage
  4    refused: another account or region, missing or expired credentials, a malformed images.auto.tfvars.json; nothing
       was removed
  130  interrupted; run it again and it goes on";

/// Build images with Nix: `nix build .#ami-ROLE`
#[derive(Args, Clone, Debug)]
#[command(after_help = BUILD_HELP)]
pub struct BuildArgs {
    /// Which image; may be repeated; default: all three
    #[arg(long)]
    role: Vec<Role>,
    /// x86_64-linux or aarch64-linux; default: this machine's
    #[arg(long)]
    system: Option<System>,
}

/// Make AMIs of raw images; resumes, and does nothing twice
#[derive(Args, Clone, Debug)]
#[command(long_about = PUBLISH_ABOUT, after_help = PUBLISH_HELP)]
pub struct PublishArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Which image; may be repeated; default: those of --image, else all three
    #[arg(long)]
    role: Vec<Role>,
    /// x86_64-linux or aarch64-linux; default: what --image holds, and to build, this machine's
    #[arg(long)]
    system: Option<System>,
    /// A finished image, e.g. backend=result; may be repeated
    #[arg(long, value_name = "ROLE=FOLDER", value_parser = image)]
    image: Vec<(Role, PathBuf)>,
    /// AWS region; default: AWS_REGION, else the deployment's
    #[arg(long)]
    region: Option<String>,
    /// How many blocks of 512 KiB are on their way at a time, 1 to 128
    #[arg(long, value_name = "N", default_value_t = PARALLEL, value_parser = clap::value_parser!(u8).range(1..=128))]
    parallel: u8,
    /// Print JSON; the fields are listed below
    #[arg(long)]
    json: bool,
}

/// Remove old AMIs with their snapshots; shows only, without --yes
#[derive(Args, Clone, Debug)]
#[command(long_about = PRUNE_ABOUT, after_help = PRUNE_HELP)]
pub struct PruneArgs {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// How many of each role and system stay, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    keep: u8,
    /// Snapshots without an image that are younger are left, because a publish may be under way: 90s, 15m, 24h
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    unfinished_after: Duration,
    /// AWS region; default: AWS_REGION, else the deployment's
    #[arg(long)]
    region: Option<String>,
    /// Remove what is shown
    #[arg(long)]
    yes: bool,
    /// Print JSON; the fields are listed below
    #[arg(long)]
    json: bool,
}

impl ImageCommand {
    /// Runs it and returns the exit status; an error is for [`report_error`].
    ///
    /// # Errors
    /// Anything that kept it from finishing.
    pub async fn run(self, progress: &Progress, interrupt: &Interrupt) -> anyhow::Result<u8> {
        let work = async {
            match self {
                Self::Build(args) => args.run(progress).await,
                Self::Publish(args) => args.run(progress, interrupt).await,
                Self::Prune(args) => args.run(progress, interrupt).await,
            }
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = interrupt.requested() => {
                progress.clear();
                progress.say_always("drawbridge: interrupted; run it again and it goes on");
                return Ok(Exit::Interrupted as u8);
            }
        };
        match ended {
            Ok(()) => Ok(Exit::Done as u8),
            Err(error) if error.is_refusal() => {
                let _ = report_error(&error.into(), progress, interrupt);
                Ok(Exit::Refused as u8)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl BuildArgs {
    async fn run(self, progress: &Progress) -> Result<(), ImageError> {
        let roles = wanted(&self.role, Vec::new());
        for role in roles {
            let folder = build_one(role, self.system, progress).await?;
            progress.clear();
            print(&format!("{role}={}\n", folder.display()));
        }
        Ok(())
    }
}

impl PublishArgs {
    async fn run(self, progress: &Progress, interrupt: &Interrupt) -> Result<(), ImageError> {
        let asked = self.image.len();
        let given: BTreeMap<_, _> = self.image.into_iter().collect();
        if given.len() < asked {
            return Err(ImageError::TwoImages);
        }
        let (directory, terraform) = place(&self.deployment, progress, interrupt)?;
        let target = Target::find(self.region, terraform.as_ref()).await?;
        // Before hours go into building the others.
        for (role, folder) in &given {
            ImageInfo::read(folder, *role, self.system)?;
        }
        let mut folders = Vec::new();
        for role in wanted(&self.role, given.keys().copied().collect()) {
            folders.push(match given.get(&role) {
                Some(path) => Folder {
                    info: ImageInfo::read(path, role, self.system)?,
                    path: path.clone(),
                },
                None => build_folder(role, self.system, progress).await?,
            });
        }
        let report = publish_folders(&target, folders, self.parallel, &directory, progress).await?;
        progress.clear();
        print(&if self.json {
            json_text(&report)
        } else {
            text(&report)
        });
        Ok(())
    }
}

impl PruneArgs {
    async fn run(self, progress: &Progress, interrupt: &Interrupt) -> Result<(), ImageError> {
        let (directory, terraform) = place(&self.deployment, progress, interrupt)?;
        let listed = Variables::read(&directory)?;
        let target = Target::find(self.region, terraform.as_ref()).await?;
        let rules = Rules {
            keep: usize::from(self.keep),
            unfinished_after: self.unfinished_after,
        };
        progress.line("looking at images, snapshots, instances and launch templates");
        let listed = listed
            .images()
            .values()
            .map(|id| (id.clone(), FILE.to_owned()));
        let seen = look(&target, listed.collect()).await?;
        let plan = decide(&seen, rules, OffsetDateTime::now_utc());
        if self.yes {
            prune(&target, &plan, progress).await?;
        }
        progress.clear();
        print(&if self.json {
            json_text(&json!({
                "account": target.account,
                "region": target.cloud.region(),
                "is_done": self.yes,
                "plan": plan,
            }))
        } else {
            plan_text(&plan, self.yes)
        });
        Ok(())
    }
}

/// The terraform directory, and Terraform where it is installed: only the comparison with a deployment needs that.
fn place(
    deployment: &DeploymentArgs,
    progress: &Progress,
    interrupt: &Interrupt,
) -> Result<(PathBuf, Option<Terraform>), TerraformError> {
    match deployment.terraform(progress, interrupt) {
        Ok(terraform) => Ok((terraform.directory().to_owned(), Some(terraform))),
        Err(TerraformError::NotInstalled) => {
            let here = env::current_dir().map_err(TerraformError::Scratch)?;
            let directory = directory(deployment.terraform_dir.as_deref(), &here)?;
            Ok((directory, None))
        }
        Err(error) => Err(error),
    }
}

async fn build_one(
    role: Role,
    system: Option<System>,
    progress: &Progress,
) -> Result<PathBuf, ImageError> {
    let looked = env::current_dir().unwrap_or_default();
    let flake = build::find_flake(&looked);
    let flake = flake.ok_or(build::BuildError::NoFlake { looked, role })?;
    let system = system.unwrap_or_else(System::here);
    // nix shows by itself how far it is.
    progress.clear();
    Ok(build::build(&flake, role, system).await?)
}

/// Builds the image of a role and reads what it says it holds.
pub(super) async fn build_folder(
    role: Role,
    system: Option<System>,
    progress: &Progress,
) -> Result<Folder, ImageError> {
    let path = build_one(role, system, progress).await?;
    let info = ImageInfo::read(&path, role, system)?;
    Ok(Folder { path, info })
}

/// Publishes these for the Terraform files of `directory`.
pub(super) async fn publish_folders(
    target: &Target,
    folders: Vec<Folder>,
    parallel: u8,
    directory: &Path,
    progress: &Progress,
) -> Result<Report, ImageError> {
    let beside = directory.parent().unwrap_or(directory);
    let options = Options {
        source: Source::of(beside).await,
        at_a_time: usize::from(parallel),
        directory: directory.to_owned(),
    };
    publish(target, folders, &options, progress).await
}

/// Those of --role, those with --image, or all.
fn wanted(roles: &[Role], given: Vec<Role>) -> Vec<Role> {
    let is_wanted = |role: &Role| {
        roles.contains(role) || given.contains(role) || (roles.is_empty() && given.is_empty())
    };
    Role::ALL.into_iter().filter(is_wanted).collect()
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn image(text: &str) -> Result<(Role, PathBuf), String> {
    let shape = "an image is given as ROLE=FOLDER, e.g. backend=result";
    let (name, folder) = text.split_once('=').ok_or(shape)?;
    if folder.is_empty() {
        return Err(shape.to_owned());
    }
    Ok((role(name)?, PathBuf::from(folder)))
}

// These hold nothing that JSON cannot say.
fn json_text(value: &impl serde::Serialize) -> String {
    to_json(value).unwrap_or_default()
}

pub(super) fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for one in &report.images {
        let sent = match one.outcome {
            Outcome::Existed => "was published already; nothing was uploaded".to_owned(),
            Outcome::Registered => "registered from its snapshot; nothing was uploaded".to_owned(),
            Outcome::Resumed | Outcome::Uploaded => {
                let speed = one.bytes_per_second.unwrap_or_default() >> 20;
                let (sent, all) = (one.sent, one.blocks);
                format!("sent {sent} of {all} blocks of 512 KiB, {speed} MiB/s")
            }
        };
        lines.push(format!(
            "{}  {} for {}: {sent}",
            one.image, one.role, one.system
        ));
    }
    let file = report.file.display();
    lines.push(if report.is_file_changed {
        format!("wrote {file}: `terraform apply` replaces each host whose image is another one now")
    } else {
        format!("{file} says so already")
    });
    escaped(&lines)
}

fn plan_text(plan: &Plan, is_done: bool) -> String {
    let mut lines = Vec::new();
    let (verb, end) = if is_done {
        ("removed", "")
    } else {
        ("remove ", "  ")
    };
    for one in &plan.images {
        let since = instant_text(one.created_at);
        let snapshots = one.snapshots.join(", ");
        lines.push(format!(
            "{verb} {}  {}, of {since}, with {snapshots}",
            one.image, one.name
        ));
    }
    for one in &plan.snapshots {
        let since = instant_text(one.started_at);
        lines.push(format!(
            "{verb} {}  of {since}, {} GiB at most: {}",
            one.snapshot, one.gib, one.why
        ));
    }
    for one in &plan.kept {
        lines.push(format!(
            "keep{end}   {}  {}: {}",
            one.image, one.name, one.why
        ));
    }
    if plan.is_empty() {
        lines.push("nothing to remove".to_owned());
    } else if !is_done {
        lines.push(
            "nothing was removed: `drawbridge image prune --yes` (with the same options) does it"
                .to_owned(),
        );
    }
    escaped(&lines)
}

fn escaped(lines: &[String]) -> String {
    lines.iter().map(|line| escape(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_are_those_that_were_named_or_all() {
        use Role::{Backend, Bastion, Database};
        assert_eq!(wanted(&[], vec![]), Role::ALL);
        assert_eq!(wanted(&[Database], vec![]), [Database]);
        assert_eq!(wanted(&[], vec![Backend]), [Backend]);
        assert_eq!(
            wanted(&[Database, Bastion], vec![Database]),
            [Bastion, Database]
        );
    }

    #[test]
    fn an_image_is_a_role_and_a_folder() {
        let read = image("backend=a=b").unwrap();
        assert_eq!(read, (Role::Backend, PathBuf::from("a=b")));
        for wrong in ["backend", "backend=", "frontend=x", "=x", ""] {
            assert!(image(wrong).is_err(), "{wrong}");
        }
    }
}
