//! By which tags images and snapshots of ours are known.

use std::collections::BTreeMap;

use super::info::ImageInfo;
use super::manifest::Content;
use super::source::Source;

/// On everything that was published, whatever deployment uses it: the key and its value.
pub const PROJECT: (&str, &str) = ("Project", "drawbridge");
/// `bastion`, `backend` or `database`.
pub const ROLE: &str = "drawbridge:role";
/// `x86_64-linux` or `aarch64-linux`.
pub const SYSTEM: &str = "drawbridge:system";
/// The name of what is on the disk.
pub const CONTENT: &str = "drawbridge:content";
/// The commit it was built from; `-dirty` behind it where files had been changed.
pub const COMMIT: &str = "drawbridge:commit";
/// The revision of nixpkgs.
pub const NIXPKGS: &str = "drawbridge:nixpkgs";
/// The NixOS version.
pub const LABEL: &str = "drawbridge:label";
/// On a snapshot whose image is being removed: that image's id.
pub const PRUNED: &str = "drawbridge:pruned";

/// The name of the AMI: one for each content, so that EC2 itself refuses a second.
#[must_use]
pub fn name(info: &ImageInfo, content: &Content) -> String {
    format!(
        "drawbridge-{}-{}-{}",
        info.role,
        info.system,
        content.short()
    )
}

/// All tags of an image and its snapshot.
#[must_use]
pub fn all(info: &ImageInfo, content: &Content, source: &Source) -> BTreeMap<String, String> {
    let name = name(info, content);
    let pairs = [
        ("Name", name.as_str()),
        PROJECT,
        (ROLE, info.role.as_str()),
        (SYSTEM, info.system.as_str()),
        (CONTENT, content.as_str()),
        (COMMIT, &source.commit),
        (NIXPKGS, &source.nixpkgs),
        (LABEL, &info.label),
    ];
    let owned = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    owned.into_iter().collect()
}

/// By which one and the same image is found again.
#[must_use]
pub fn identity<'a>(info: &'a ImageInfo, content: &'a Content) -> [(&'static str, &'a str); 4] {
    [
        PROJECT,
        (ROLE, info.role.as_str()),
        (SYSTEM, info.system.as_str()),
        (CONTENT, content.as_str()),
    ]
}
