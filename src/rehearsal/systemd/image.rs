//! What an instance boots with: the units, scripts and settings that the NixOS modules evaluate to (`nixos/evaluated/`),
//! put over the root file system, with Debian's programs in the places of the store that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::appliance::Role;

/// Where `drawbridge-host` is on a host.
pub const PROGRAM: &str = "/nix/store/drawbridge-host/bin/drawbridge-host";
const STORE: &str = "/nix/store/";
/// Folders of programs in Debian's packages.
const PROGRAM_FOLDERS: [&str; 5] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib/postgresql/17/bin",
];
/// Packages of nixpkgs, and those of Debian whose programs stand in for theirs.
const PACKAGES: [(&str, &[&str]); 16] = [
    ("bash", &["bash"]),
    // Debian's coreutils lack kill.
    ("coreutils", &["coreutils", "procps"]),
    ("dbus", &["dbus", "dbus-bin"]),
    ("e2fsprogs", &["e2fsprogs"]),
    ("findutils", &["findutils"]),
    ("gnugrep", &["grep"]),
    ("gnused", &["sed"]),
    ("iproute2", &["iproute2"]),
    ("nftables", &["nftables"]),
    ("openssh", &["openssh-client", "openssh-server"]),
    ("postgresql", &["postgresql-17", "postgresql-client-17"]),
    (
        "postgresql-and-plugins",
        &["postgresql-17", "postgresql-client-17"],
    ),
    ("shadow", &["passwd", "login"]),
    ("sudo", &["sudo"]),
    ("systemd", &["systemd", "systemd-sysv"]),
    ("util-linux", &["util-linux", "mount", "login"]),
];
/// Paths of nixpkgs' packages that are no programs, and Debian's; `LIB` is the folder of this processor's libraries.
const FOLDERS: [(&str, &str); 4] = [
    ("glibc-locales/lib/locale", "/usr/lib/locale"),
    ("linux-pam/lib/security", "LIB/security"),
    ("systemd/lib", "LIB"),
    ("tzdata/share/zoneinfo", "/usr/share/zoneinfo"),
];

/// One role's evaluated settings.
pub struct Image {
    folder: PathBuf,
    role: Role,
}

/// The texts of an image by their name in its folder, e.g. `units/sshd.service`.
type Texts = BTreeMap<String, String>;

impl Image {
    /// The image of `role` in `evaluated`, a folder like `nixos/evaluated/`.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(evaluated: &Path, role: Role) -> Result<Image> {
        let folder = evaluated.join(role.as_str());
        ensure!(
            folder.join("units").is_dir(),
            "no evaluated units in {}: run scripts/evaluate, which writes them",
            folder.display()
        );
        Ok(Image { folder, role })
    }

    /// Names of its units that the project itself writes, and so answers for.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn units(&self) -> Result<BTreeSet<String>> {
        let texts = read(&self.folder.join("units"), "")?;
        Ok(texts.into_keys().collect())
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Whether people may become root on the host.
    pub fn has_sudo(&self) -> bool {
        self.folder.join("files/etc/sudoers").exists()
    }

    /// Writes the image onto a disk over `rootfs`.
    ///
    /// # Errors
    /// If a file cannot be written, or a text names something of the store that nothing stands in for.
    pub fn install(&self, disk: &Path, rootfs: &Path) -> Result<()> {
        let texts = read(&self.folder, "")?;
        let guest = Guest { disk, rootfs };
        for (name, text) in &texts {
            if let Some(unit) = name.strip_prefix("units/") {
                guest.write(&format!("/etc/systemd/system/{unit}"), text, 0o644)?;
            } else if let Some(path) = name.strip_prefix("files") {
                let mode = if path == "/etc/sudoers" { 0o440 } else { 0o644 };
                guest.write(path, text, mode)?;
            }
        }
        // Each line a target and a unit that it starts.
        for line in self.text("wants")?.lines() {
            let (target, unit) = line
                .split_once(' ')
                .with_context(|| format!("{}: wants: {line:?} is no target and unit", self.role))?;
            let link = format!("/etc/systemd/system/{target}.wants/{unit}");
            guest.link(&link, &format!("/etc/systemd/system/{unit}"))?;
        }
        for (path, named_by) in references(&texts) {
            guest
                .stand_in(&path, &texts)
                .with_context(|| format!("{}: {named_by} names {STORE}{path}", self.role))?;
        }
        Ok(())
    }
}

/// All files below a folder by their path in it.
fn read(folder: &Path, prefix: &str) -> Result<Texts> {
    let mut texts = Texts::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot list {}", folder.display()))?
            .path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            texts.extend(read(&path, &format!("{name}/"))?);
        } else {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            texts.insert(name, text);
        }
    }
    Ok(texts)
}

/// Paths below the store that the host uses, and the text that names each: of units and files, and of scripts that those
/// run.
fn references(texts: &Texts) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut scripts = Vec::new();
    let mut look = |name: &String, text: &String, scripts: &mut Vec<String>| {
        // systemd ignores keys that begin so; NixOS tells its own tools something by them.
        let lines = text.lines().filter(|line| !line.starts_with("X-"));
        for part in lines.flat_map(|line| line.split(STORE).skip(1)) {
            let is_end = |c: char| !c.is_ascii_alphanumeric() && !"+-._/".contains(c);
            let path = part.split(is_end).next().unwrap_or_default();
            let path = path.trim_end_matches(['.', '/']).to_owned();
            scripts.push(script(&path));
            found.entry(path).or_insert_with(|| name.clone());
        }
    };
    let of_boot = |name: &str| {
        ["units/", "files/"]
            .iter()
            .any(|part| name.starts_with(part))
    };
    let files = texts.iter().filter(|(name, _)| of_boot(name));
    for (name, text) in files {
        look(name, text, &mut scripts);
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = scripts.pop() {
        if let Some(text) = texts.get(&name)
            && seen.insert(name.clone())
        {
            look(&name, text, &mut scripts);
        }
    }
    found
}

/// Where the text of a script is, given a path below the store.
fn script(path: &str) -> String {
    format!("scripts/{}", path.split('/').next().unwrap_or_default())
}

/// A host's files before it boots.
struct Guest<'a> {
    disk: &'a Path,
    rootfs: &'a Path,
}

impl Guest<'_> {
    /// Makes sure that a path below the store leads somewhere.
    fn stand_in(&self, path: &str, texts: &Texts) -> Result<()> {
        let (package, rest) = path.split_once('/').unwrap_or((path, ""));
        if let Some(text) = texts.get(&script(path)) {
            let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
            return self.write(&format!("{STORE}{path}"), text, mode);
        }
        if texts.contains_key(&format!("files{STORE}{path}")) || PROGRAM == format!("{STORE}{path}")
        {
            return Ok(());
        }
        for (folder, target) in FOLDERS {
            if path == folder
                || path
                    .strip_prefix(folder)
                    .is_some_and(|rest| rest.starts_with('/'))
            {
                let target = target.replace(
                    "LIB",
                    &format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH),
                );
                let rest = &path[folder.len()..];
                ensure!(
                    rest.is_empty()
                        || rest == "/locale-archive"
                        || self.rootfs.join(&target[1..]).join(&rest[1..]).exists(),
                    "the root file system has no {target}{rest}"
                );
                return self.link(&format!("{STORE}{folder}"), &target);
            }
        }
        let known = PACKAGES.iter().find(|(name, _)| *name == package);
        let (Some((_, packages)), Some(folder)) = (known, rest.split('/').next()) else {
            bail!(
                "nothing stands in for it: src/rehearsal/systemd/image.rs says what does for others"
            );
        };
        ensure!(
            ["bin", "sbin"].contains(&folder),
            "only programs of {package} have something that stands in for them"
        );
        let programs = self.programs(packages)?;
        if let Some((_, program)) = rest.split_once('/') {
            ensure!(
                programs.contains_key(program),
                "Debian's {} have no program {program}",
                packages.join(" and ")
            );
        }
        programs.iter().try_for_each(|(program, target)| {
            self.link(&format!("{STORE}{package}/{folder}/{program}"), target)
        })
    }

    /// Programs of some Debian packages, and their paths.
    fn programs(&self, packages: &[&str]) -> Result<BTreeMap<String, String>> {
        let mut programs = BTreeMap::new();
        for package in packages {
            let file = self
                .rootfs
                .join(format!("var/lib/dpkg/info/{package}.list"));
            // One that another release has split off.
            let Ok(list) = fs::read_to_string(&file) else {
                continue;
            };
            for path in list.lines() {
                if let Some((folder, program)) = path.rsplit_once('/')
                    && PROGRAM_FOLDERS.contains(&folder)
                {
                    programs.insert(program.to_owned(), path.to_owned());
                }
            }
        }
        ensure!(
            !programs.is_empty(),
            "the root file system has none of the packages {}",
            packages.join(", ")
        );
        Ok(programs)
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        let path = self.place(path)?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("cannot set the mode of {}", path.display()))
    }

    fn link(&self, path: &str, target: &str) -> Result<()> {
        let path = self.place(path)?;
        if path.is_symlink() {
            return Ok(());
        }
        symlink(target, &path).with_context(|| format!("cannot link {}", path.display()))
    }

    /// A path of the host on its disk, in a folder that is there.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let path = self.disk.join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_store_ends_where_a_shell_or_systemd_ends_it() {
        let unit = "[Service]\nX-Restart-Triggers=/nix/store/x\nEnvironment=\"PATH=/nix/store/a/bin:/nix/store/b/sbin\"\n\
                    ExecStart=\"/nix/store/c-d/bin/run\" \"serve\"\n";
        let texts = Texts::from([("units/a.service".to_owned(), unit.to_owned())]);
        let found: Vec<String> = references(&texts).into_keys().collect();
        assert_eq!(found, ["a/bin", "b/sbin", "c-d/bin/run"]);
    }

    #[test]
    fn a_program_that_nothing_stands_in_for_is_named_with_its_unit() {
        let folder = tempfile::tempdir().unwrap();
        let units = folder.path().join("evaluated/backend/units");
        fs::create_dir_all(&units).unwrap();
        fs::write(folder.path().join("evaluated/backend/wants"), "").unwrap();
        fs::write(
            units.join("odd.service"),
            "[Service]\nExecStart=/nix/store/odd/bin/odd\n",
        )
        .unwrap();
        let image = Image::open(&folder.path().join("evaluated"), Role::Backend).unwrap();
        let error = image
            .install(&folder.path().join("disk"), folder.path())
            .unwrap_err();
        let said = format!("{error:#}");
        assert!(
            said.contains("units/odd.service names /nix/store/odd/bin/odd"),
            "{said}"
        );
        assert!(said.contains("nothing stands in for it"), "{said}");
    }
}
