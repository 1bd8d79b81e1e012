//! The images: a raw disk that `nix build` made becomes an EBS snapshot, the snapshot an AMI, and its id a line of
//! `terraform/images.auto.tfvars.json`.
//!
//! [`info`] and [`disk`] say what is published and refuse what is not a raw disk; [`manifest`] reads it once and names
//! its content; [`upload`] sends the blocks and [`journal`] remembers which have arrived, so that a run that was ended
//! anywhere goes on from there. [`mod@publish`] puts the three together; [`mod@prune`] decides which AMIs go and takes
//! them down. [`target`] is the account and region, [`source`] the commit they were built from, [`variables`] the file
//! that Terraform reads.
//!
//! Blocks go through AWS's SDK for the EBS direct APIs. The `coldsnap` library would do the same, but pulls the SDK for
//! EC2 (8 GB and ten minutes to compile), and neither it nor the tool resumes or tells what it has sent.

pub mod build;
pub mod disk;
pub mod info;
pub mod journal;
pub mod manifest;
pub mod prune;
pub mod publish;
pub mod source;
pub mod tags;
pub mod target;
pub mod upload;
pub mod variables;

use std::path::PathBuf;

pub use self::disk::BadDisk;
pub use self::info::{BadInfo, ImageInfo, System};
pub use self::prune::prune;
pub use self::publish::publish;
use crate::cloud::CloudError;
use crate::terraform::TerraformError;

/// Why publishing or pruning ended.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nothing was begun.
    #[error("--image names two folders for one role: leave one of them out; nothing was begun")]
    TwoImages,
    /// Nothing was begun.
    #[error(transparent)]
    Info(#[from] BadInfo),
    /// Nothing was begun, unless the message says that the file changed meanwhile.
    #[error(transparent)]
    Disk(#[from] BadDisk),
    /// Nothing was begun.
    #[error(transparent)]
    Target(#[from] target::BadTarget),
    /// Nothing was begun.
    #[error(transparent)]
    Variables(#[from] variables::VariablesError),
    /// The images are there and Terraform's file does not name them.
    #[error("the images are published, but: {0}; then run this again, nothing is uploaded twice")]
    NotListed(variables::VariablesError),
    /// There is no folder to write the result to.
    #[error(transparent)]
    Terraform(#[from] TerraformError),
    /// The state of an upload cannot be kept.
    #[error(transparent)]
    Journal(#[from] journal::JournalError),
    /// AWS could not be asked, or said no.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// Nothing was begun.
    #[error(transparent)]
    Build(#[from] build::BuildError),
    /// A wait reached its limit.
    #[error("{0}; run this again, it goes on from there")]
    GaveUp(String),
    /// EBS works in other blocks than all of this is made for.
    #[error(
        "EBS answers with blocks of {answered} bytes for {snapshot}, where its direct APIs are documented to have {}: nothing was uploaded; check AWS_ENDPOINT_URL",
        manifest::BLOCK
    )]
    BlockSize {
        /// `snap-…`
        snapshot: String,
        /// Bytes.
        answered: i32,
    },
    /// AWS gave the upload up, or somebody did.
    #[error("the snapshot {snapshot} is {state} and not completed: run this again, it begins anew")]
    Lost {
        /// `snap-…`
        snapshot: String,
        /// What EC2 says it is.
        state: String,
    },
    /// AWS made an image of it that cannot be started.
    #[error(
        "the image {image} is {state}: deregister it (`aws ec2 deregister-image --image-id {image}`) and run this again"
    )]
    BadImage {
        /// `ami-…`
        image: String,
        /// What EC2 says it is.
        state: String,
    },
}

impl ImageError {
    /// Whether it says what stands in the way, with nothing changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TwoImages | Self::Info(_) | Self::Variables(_) => true,
            Self::Target(bad) => bad.is_refusal(),
            Self::Disk(bad) => bad.is_refusal(),
            _ => false,
        }
    }
}

/// One image to publish: the folder that `nix build .#ami-ROLE` made.
#[derive(Clone, Debug)]
pub struct Folder {
    /// The folder, a link into the store most of the time.
    pub path: PathBuf,
    /// What it says it holds.
    pub info: ImageInfo,
}
