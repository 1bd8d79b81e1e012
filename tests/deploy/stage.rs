//! A host in a folder: a store, links to generations, a small systemd, and systems that write down what is done to them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use drawbridge::appliance::store::StorePath;
use drawbridge::appliance::system::{Activation, Phase, SystemStatus};
use drawbridge::closure::pack::pack;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::bastion::sshd::Hosts;
use crate::support::{Outcome, always_ready, eventually, run};

/// Nothing here takes a second; a busy machine stretches it.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Transient units as far as an activation needs them: a process each, by its unit's name.
const SYSTEMD_RUN: &str = r#"#!/bin/bash
after= unit= wait= restart=
while [[ $1 == --* ]]; do
    case $1 in
        --unit=*) unit=${1#*=} ;;
        --on-active=*ms) after=${1#*=}; after=${after%ms} ;;
        --wait) wait=1 ;;
        --property=Restart=on-failure) restart=1 ;;
    esac
    shift
done
here=$(dirname "$0")/units
mkdir -p "$here"
echo "$unit${after:+ after $after}: $*" >>"$here/../journal"
if [ -n "$wait" ]; then exec "$@"; fi
kind=service
[ -z "$after" ] || kind=timer
export here unit after restart
setsid bash -c '
    if [ -n "$after" ]; then
        sleep "$((after / 1000)).$(printf %03d $((after % 1000)))"
        mv "$here/$unit.timer" "$here/$unit.service"
    fi
    until "$@" || [ -z "$restart" ]; do sleep 0.2; done
    rm -f "$here/$unit.service"
' unit "$@" >>"$here/../journal" 2>&1 </dev/null &
echo $! >"$here/$unit.$kind"
"#;

const SYSTEMCTL: &str = r#"#!/bin/bash
here=$(dirname "$0")/units
unit=${*: -1}
pid=$(cat "$here/$unit" 2>/dev/null)
case $1 in
    show)
        if [ -n "$pid" ] && kill -0 -- "-$pid" 2>/dev/null; then echo active; else echo inactive; fi ;;
    stop)
        [ -z "$pid" ] || kill -KILL -- "-$pid" 2>/dev/null
        rm -f "$here/$unit" ;;
esac
"#;

/// A host and, in front of it, two sshds.
pub struct Stage {
    pub hosts: Hosts,
    pub root: PathBuf,
    pub bin: PathBuf,
    folder: tempfile::TempDir,
}

impl Stage {
    /// With the image's own system running as generation 1.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, bin) = (folder.path().join("root"), folder.path().join("bin"));
        for part in [
            "nix/store",
            "nix/var/nix/profiles",
            "run",
            "var/lib/drawbridge",
        ] {
            fs::create_dir_all(root.join(part)).unwrap();
        }
        fs::create_dir_all(&bin).unwrap();
        let program = env!("CARGO_BIN_EXE_drawbridge-host");
        script(&bin, "systemd-run", SYSTEMD_RUN);
        script(&bin, "systemctl", SYSTEMCTL);
        // What the operator's side calls: `sudo -n drawbridge-host system WORDS`.
        let sudo = format!(
            "#!/bin/bash\nexport PATH={}:/usr/bin:/bin\n[ \"$1 $2 $3\" = '-n drawbridge-host system' ] || exit 9\nshift 3\n\
             . {0}/hook\nexec {program} system --root {} \"$@\"\n",
            bin.display(),
            root.display()
        );
        script(&bin, "sudo", &sudo);
        script(&bin, "hook", "");
        let path = bin.display().to_string();
        let hosts = Hosts::start_with(|_| format!("SetEnv PATH={path}:/usr/bin:/bin\n"));
        let url = format!("{}/ready\n", always_ready());
        fs::write(root.join("var/lib/drawbridge/ready-url"), url).unwrap();
        let stage = Self {
            hosts,
            root,
            bin,
            folder,
        };
        let image = stage.write_system(&stage.root.join("nix/store"), "image", "backend");
        let links = stage.root.join("nix/var/nix/profiles");
        symlink(image.as_str(), links.join("system-1-link")).unwrap();
        symlink("system-1-link", links.join("system")).unwrap();
        symlink(image.as_str(), stage.root.join("run/current-system")).unwrap();
        symlink(image.as_str(), stage.root.join("run/booted-system")).unwrap();
        stage
    }

    /// Runs before each word of the operator's to the host, with the words as `$@`.
    pub fn hook(&self, script_text: &str) {
        script(&self.bin, "hook", script_text);
    }

    /// A system with a library of `bytes` bytes, as a folder for `--closure`.
    pub fn closure(&self, name: &str, bytes: usize) -> PathBuf {
        self.closure_for(name, bytes, "backend")
    }

    /// The same for another role.
    pub fn closure_for(&self, name: &str, bytes: usize, role: &str) -> PathBuf {
        let folder = self.folder.path().join(format!("closure-{name}"));
        let store = folder.join("nix/store");
        fs::create_dir_all(&store).unwrap();
        let system = self.write_system(&store, name, role);
        let mut references = Vec::new();
        let mut list = Vec::new();
        for part in ["one", "two", "three"] {
            let library = path(&format!("lib-{part}-{name}"));
            let place = store.join(library.name());
            fs::create_dir(&place).unwrap();
            // Nothing that would compress, and something else in each.
            let mut state = part.len() as u32 + name.len() as u32;
            let content: Vec<u8> = (0..bytes / 3)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            fs::write(place.join("content"), content).unwrap();
            list.push(info(&store, &library, &[]));
            references.push(library.to_string());
        }
        list.push(info(&store, &system, &references));
        fs::write(folder.join("closure.json"), Value::Array(list).to_string()).unwrap();
        folder
    }

    fn write_system(&self, store: &Path, name: &str, role: &str) -> StorePath {
        let system = path(&format!("nixos-system-{name}"));
        let place = store.join(system.name());
        fs::create_dir_all(place.join("etc/drawbridge")).unwrap();
        let migrate = self.bin.join("migrate").display().to_string();
        let description = json!({ "role": role, "migrate": [migrate, name] });
        fs::write(
            place.join("etc/drawbridge/system.json"),
            description.to_string(),
        )
        .unwrap();
        script(
            &self.bin,
            "migrate",
            "#!/bin/sh\n. $(dirname $0)/migration\n",
        );
        if !self.bin.join("migration").exists() {
            script(&self.bin, "migration", "");
            script(&self.bin, "switching", "");
        }
        fs::create_dir(place.join("bin")).unwrap();
        // Where a test says so it fails, or hangs.
        let text = format!(
            "#!/bin/sh\necho \"{name} $1\" >>{0}/switched\n. {0}/switching\ncase $1 in test|switch) ln -sfn {system} {1}/run/current-system ;; esac\n",
            self.bin.display(),
            self.root.display()
        );
        script(&place.join("bin"), "switch-to-configuration", &text);
        system
    }

    /// Runs in every `switch-to-configuration`; `$1` is what it is to do, `$0` says of which system.
    pub fn switching(&self, text: &str) {
        script(&self.bin, "switching", text);
    }

    /// Runs as every system's migrations; `$1` is the system's name.
    pub fn migration(&self, text: &str) {
        script(&self.bin, "migration", text);
    }

    /// What was switched, in order.
    pub fn switched(&self) -> Vec<String> {
        let text = fs::read_to_string(self.bin.join("switched")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What the small systemd was asked for, and what its units said.
    pub fn journal(&self) -> String {
        fs::read_to_string(self.bin.join("journal")).unwrap_or_default()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge-host"));
        let path = format!("{}:/usr/bin:/bin", self.bin.display());
        command.env("PATH", path).args(["system", "--root"]);
        command.arg(&self.root).args(words);
        command
    }

    /// `drawbridge-host system WORDS` on the host.
    pub fn host(&self, words: &[&str]) -> Outcome {
        run(&mut self.command(words), LIMIT)
    }

    /// The same, begun in a process group of its own.
    pub fn begin(&self, words: &[&str]) -> Child {
        self.command(words).process_group(0).spawn().unwrap()
    }

    /// The host's word.
    pub fn status(&self) -> SystemStatus {
        let said = self.host(&["status"]).expect_success("status");
        serde_json::from_str(&said).unwrap()
    }

    /// Waits for a phase.
    pub fn until(&self, phase: Phase) -> Activation {
        eventually(LIMIT, &phase.to_string(), || {
            match self.status().activation {
                Some(last) if last.phase == phase => Ok(last),
                other => Err(format!("{other:?}\n{}", self.journal())),
            }
        })
    }

    /// Kills a unit's processes.
    pub fn kill(&self, unit: &str) {
        let file = self.bin.join("units").join(unit);
        let pid = fs::read_to_string(&file).unwrap();
        let group = format!("-{}", pid.trim());
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
        assert!(killed.unwrap().success());
        fs::remove_file(file).unwrap();
    }

    /// Whether a unit is there.
    pub fn has(&self, unit: &str) -> bool {
        self.bin.join("units").join(unit).exists()
    }

    /// Where a path of a closure is on the host.
    pub fn store(&self, name: &str) -> PathBuf {
        self.root.join(path(name).as_str().trim_start_matches('/'))
    }

    /// Generations and the one that boots.
    pub fn generations(&self) -> (Vec<u64>, u64) {
        let status = self.status();
        let numbers = status.generations.iter().map(|one| one.number).collect();
        (numbers, status.boots.unwrap().number)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for unit in fs::read_dir(self.bin.join("units"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let pid = fs::read_to_string(unit.path()).unwrap_or_default();
            let group = format!("-{}", pid.trim());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).output();
        }
    }
}

/// A path of the store with this name.
pub fn path(name: &str) -> StorePath {
    let hash: String = digest(&SHA256, name.as_bytes()).as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    StorePath::named(&format!("{hash}-{name}")).unwrap()
}

fn info(store: &Path, path: &StorePath, references: &[String]) -> Value {
    let mut archive = Vec::new();
    pack(&store.join(path.name()), &mut archive).unwrap();
    let hash: String = digest(&SHA256, &archive)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({ "path": path, "narHash": format!("sha256:{hash}"), "narSize": archive.len(), "references": references })
}

fn script(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    // In one step: another process may be about to run it.
    let draft = folder.join(format!(".{name}"));
    fs::write(&draft, text).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, file).unwrap();
}
