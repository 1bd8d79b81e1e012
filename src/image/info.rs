//! `nix-support/image-info.json`: what `nixos/image.nix` says about the disk it has made.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::appliance::Role;

/// Where it is in the folder that `nix build` makes.
pub const FILE: &str = "nix-support/image-info.json";

/// A whole one, for messages.
const SHAPE: &str = r#"{"label": "26.05", "boot_mode": "legacy-bios", "system": "x86_64-linux", "role": "backend", "file": "drawbridge-backend-x86_64-linux.img", "logical_bytes": 2147483648}"#;

/// EBS's largest volume, 64 TiB: <https://docs.aws.amazon.com/ebs/latest/APIReference/API_StartSnapshot.html>
const LARGEST: u64 = 64 << 40;

/// The processor and kernel that the image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum System {
    /// Intel and AMD.
    #[serde(rename = "x86_64-linux")]
    X86_64,
    /// Graviton.
    #[serde(rename = "aarch64-linux")]
    Aarch64,
}

impl System {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// As Nix names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux",
            Self::Aarch64 => "aarch64-linux",
        }
    }

    /// As EC2 names it.
    #[must_use]
    pub fn architecture(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "arm64",
        }
    }

    /// This machine's; anything but ARM counts as x86_64, which `nix build` refuses by itself where it is neither.
    #[must_use]
    pub fn here() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl FromStr for System {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|system| system.as_str() == text);
        found.ok_or_else(|| "expected x86_64-linux or aarch64-linux".to_owned())
    }
}

/// How the image's boot loader wants to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// From the disk's first sector.
    LegacyBios,
    /// From an EFI system partition; the only one on arm64.
    Uefi,
    /// UEFI where the instance type has it, else BIOS.
    UefiPreferred,
}

impl BootMode {
    /// As EC2 names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LegacyBios => "legacy-bios",
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
        }
    }
}

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// The NixOS version, e.g. `26.05.20260814.02e0898`.
    pub label: String,
    /// How it boots.
    pub boot_mode: BootMode,
    /// For which processor.
    pub system: System,
    /// Whose image it is.
    pub role: Role,
    /// The disk, in the folder.
    pub file: PathBuf,
    /// Size of the disk, holes included.
    pub logical_bytes: u64,
}

/// Why a folder is not taken; nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum BadInfo {
    /// It is not what `nix build` makes.
    #[error(
        "{} cannot be read ({problem}): name the folder that `nix build .#ami-{role}` makes, e.g. --image {role}=result, not the disk in it", file.display()
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Whose image was expected.
        role: Role,
        /// Why.
        problem: String,
    },
    /// A field is missing or has another shape.
    #[error("{}: {field} {problem}; the whole is of the shape {SHAPE}: build it anew with `nix build .#ami-ROLE`", file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// Its name in the file.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// It is the image of something else.
    #[error(
        "{} holds the {field} {found}, and {wanted} was asked for: name the right folder with --image ROLE=FOLDER, or build it with `nix build .#packages.SYSTEM.ami-ROLE`", file.display()
    )]
    Other {
        /// The file.
        file: PathBuf,
        /// `role` or `system`.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
}

impl ImageInfo {
    /// Reads the description in `folder`, which is to be the image of `role`, and of `system` if that is given.
    ///
    /// # Errors
    /// [`BadInfo`]
    pub fn read(folder: &Path, role: Role, system: Option<System>) -> Result<Self, BadInfo> {
        let file = folder.join(FILE);
        let text = fs::read_to_string(&file).map_err(|error| BadInfo::Unreadable {
            file: file.clone(),
            role,
            problem: error.to_string(),
        })?;
        let info = parse(&text).map_err(|(field, problem)| BadInfo::Field {
            file: file.clone(),
            field,
            problem,
        })?;
        let other = |field, found: &str, wanted: &str| BadInfo::Other {
            file: file.clone(),
            field,
            found: found.to_owned(),
            wanted: wanted.to_owned(),
        };
        if info.role != role {
            return Err(other("role", info.role.as_str(), role.as_str()));
        }
        match system {
            Some(wanted) if wanted != info.system => {
                Err(other("system", info.system.as_str(), wanted.as_str()))
            }
            _ => Ok(info),
        }
    }
}

type Problem = (&'static str, String);

// Additional keys are left alone: nixpkgs' own image has some, and adds more.
fn parse(text: &str) -> Result<ImageInfo, Problem> {
    let whole = |problem: String| ("the file", problem);
    let value: Value =
        serde_json::from_str(text).map_err(|error| whole(format!("is not JSON ({error})")))?;
    let Value::Object(fields) = value else {
        return Err(whole("is not a JSON object".to_owned()));
    };
    let boot_mode = match word(&fields, "boot_mode", BOOT_SHAPE)?.as_str() {
        "legacy-bios" => BootMode::LegacyBios,
        "uefi" => BootMode::Uefi,
        "uefi-preferred" => BootMode::UefiPreferred,
        other => return Err(wrong("boot_mode", &format!("\"{other}\""), BOOT_SHAPE)),
    };
    let system = word(&fields, "system", SYSTEM_SHAPE)?;
    let system: System = system
        .parse()
        .map_err(|_| wrong("system", &format!("\"{system}\""), SYSTEM_SHAPE))?;
    if system == System::Aarch64 && boot_mode != BootMode::Uefi {
        let shape = "\"uefi\" for aarch64-linux, which EC2 boots no other way";
        return Err(wrong(
            "boot_mode",
            &format!("\"{}\"", boot_mode.as_str()),
            shape,
        ));
    }
    let role = word(&fields, "role", ROLE_SHAPE)?;
    let role = role
        .parse()
        .map_err(|_| wrong("role", &format!("\"{role}\""), ROLE_SHAPE))?;
    let file = PathBuf::from(word(&fields, "file", FILE_SHAPE)?);
    let is_inside = file
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_inside || file.as_os_str().is_empty() {
        return Err(wrong(
            "file",
            &format!("\"{}\"", file.display()),
            FILE_SHAPE,
        ));
    }
    let bytes = field(&fields, "logical_bytes", BYTES_SHAPE)?;
    let logical_bytes = bytes
        .as_u64()
        .filter(|bytes| (1..=LARGEST).contains(bytes))
        .ok_or_else(|| wrong("logical_bytes", &bytes.to_string(), BYTES_SHAPE))?;
    Ok(ImageInfo {
        label: word(&fields, "label", LABEL_SHAPE)?,
        boot_mode,
        system,
        role,
        file,
        logical_bytes,
    })
}

const BOOT_SHAPE: &str = "\"legacy-bios\", \"uefi\" or \"uefi-preferred\"";
const SYSTEM_SHAPE: &str = "\"x86_64-linux\" or \"aarch64-linux\"";
const ROLE_SHAPE: &str = "\"bastion\", \"backend\" or \"database\"";
const FILE_SHAPE: &str = "the name of the disk inside the folder";
const BYTES_SHAPE: &str = "the disk's size in bytes, 1 to 64 TiB";
// A tag's value has 256 characters at most.
const LABEL_SHAPE: &str = "a text of 1 to 256 characters, the NixOS version";

fn wrong(field: &'static str, found: &str, shape: &str) -> Problem {
    (field, format!("is {found} where {shape} belongs"))
}

fn field<'a>(
    fields: &'a Map<String, Value>,
    name: &'static str,
    shape: &str,
) -> Result<&'a Value, Problem> {
    fields
        .get(name)
        .ok_or_else(|| (name, format!("is missing: {shape}")))
}

fn word(fields: &Map<String, Value>, name: &'static str, shape: &str) -> Result<String, Problem> {
    let value = field(fields, name, shape)?;
    match value.as_str() {
        Some(text) if (1..=256).contains(&text.chars().count()) => Ok(text.to_owned()),
        _ => Err(wrong(name, &value.to_string(), shape)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shape_in_the_messages_is_one_that_is_taken() {
        let info = parse(SHAPE).unwrap();
        assert_eq!((info.role, info.system), (Role::Backend, System::X86_64));
        assert_eq!(info.logical_bytes, 2 << 30);
    }

    #[test]
    fn each_bad_field_is_named_with_its_shape() {
        for (field, bad) in [
            ("label", json!("")),
            ("label", json!(26.05)),
            ("boot_mode", json!("bios")),
            ("boot_mode", json!(null)),
            ("system", json!("riscv64-linux")),
            ("role", json!("frontend")),
            ("file", json!("/etc/passwd")),
            ("file", json!("../x.img")),
            ("file", json!("")),
            ("logical_bytes", json!(0)),
            ("logical_bytes", json!(-1)),
            ("logical_bytes", json!("2147483648")),
            ("logical_bytes", json!(65_u64 << 40)),
        ] {
            let mut info: Value = serde_json::from_str(SHAPE).unwrap();
            info[field] = bad.clone();
            let (named, problem) = parse(&info.to_string()).unwrap_err();
            assert!(
                named == field && problem.contains("where"),
                "{bad}: {named} {problem}"
            );
            info.as_object_mut().unwrap().remove(field);
            let (named, problem) = parse(&info.to_string()).unwrap_err();
            assert!(
                named == field && problem.contains("missing"),
                "{named} {problem}"
            );
        }
        for (text, said) in [
            ("", "not JSON"),
            ("[]", "not a JSON object"),
            ("{} x", "not JSON"),
        ] {
            assert!(parse(text).unwrap_err().1.contains(said), "{text}");
        }
    }

    #[test]
    fn arm_boots_by_uefi_only() {
        let arm = SHAPE.replace("x86_64-linux\", \"role", "aarch64-linux\", \"role");
        assert!(parse(&arm).unwrap_err().1.contains("aarch64"));
        assert!(parse(&arm.replace("legacy-bios", "uefi")).is_ok());
    }

    #[test]
    fn the_image_of_another_role_or_system_is_refused_and_the_wrong_folder_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("nix-support")).unwrap();
        fs::write(folder.path().join(FILE), SHAPE).unwrap();
        let read = |role, system| ImageInfo::read(folder.path(), role, system);
        assert!(read(Role::Backend, Some(System::X86_64)).is_ok());
        let said = read(Role::Database, None).unwrap_err().to_string();
        assert!(
            said.contains("holds the role backend, and database"),
            "{said}"
        );
        let said = read(Role::Backend, Some(System::Aarch64))
            .unwrap_err()
            .to_string();
        assert!(said.contains("holds the system x86_64-linux"), "{said}");
        let said = ImageInfo::read(Path::new("/nonexistent"), Role::Backend, None);
        let said = said.unwrap_err().to_string();
        assert!(said.contains("nix build .#ami-backend"), "{said}");
    }
}
