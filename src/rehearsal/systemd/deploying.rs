//! `drawbridge deploy` with systems that are made up of scripts: what is copied, switched, confirmed and taken back is
//! real, only the switch itself is a stand-in that restarts the API with what the system brings.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::Trial;
use super::rotation::no_failure;
use super::{ask, crashes};
use crate::appliance::Role;
use crate::appliance::store::{STORE, StorePath};
use crate::appliance::system::{Activation, DESCRIPTION};
use crate::closure::pack::pack;
use crate::rehearsal::authority::Authority;
use crate::rehearsal::boot::Fleet;
use crate::rehearsal::machine::{Machine, quoted};
use crate::rehearsal::proofs;
use crate::rehearsal::report::Current;

/// A deploy takes some seconds.
const LIMIT: Duration = Duration::from_secs(180);
/// For what happens on the host by itself.
const BACK_LIMIT: Duration = Duration::from_secs(120);
/// What is confirmed is so within a second or two; the rehearsal may be slow.
const LONG: &str = "90";
/// What is not confirmed costs the rehearsal this long.
const SHORT: &str = "5";
/// The image's own system, which a Debian has not: what it would say of itself is what the modules evaluate to.
const IMAGE: &str = "nixos-system-image";
/// Made when the operator's command is gone; the system that waits for it goes on then.
const GONE: &str = "/run/operator-is-gone";

/// A system's `switch-to-configuration`: the API is restarted with the system's settings for it.
const SWITCH: &str = r#"#!/bin/sh
set -eu
here=$(dirname "$(dirname "$(readlink -f "$0")")")
[ "$1" != boot ] || exit 0
[ ! -e "$here/waits" ] || timeout 90 sh -c 'until [ -e /run/operator-is-gone ]; do sleep 0.1; done'
mkdir -p /run/systemd/system/drawbridge-api.service.d
cp "$here/api.conf" /run/systemd/system/drawbridge-api.service.d/system.conf
ln -sfn "$here" /run/current-system
systemctl daemon-reload
systemctl restart drawbridge-api.service
"#;

impl Trial<'_> {
    /// A system that works, one whose API does not, and one whose operator is killed.
    ///
    /// # Errors
    /// If a system cannot be made or a command not be run.
    pub fn deploy(
        &self,
        step: &mut Current<'_>,
        fleet: &Fleet,
        authority: &Authority,
    ) -> Result<()> {
        let backend = fleet.instance(Role::Backend)?;
        let site = proofs::entrance(self.topology, authority)?;
        let systems = Systems {
            folder: self.ssh_folder.with_file_name("systems"),
            described: ask(backend, &["cat", &format!("/{DESCRIPTION}")])?,
        };
        systems.install_image(backend)?;
        let good = systems.make(
            "good",
            "exec /nix/store/drawbridge-host/bin/drawbridge-host \"$@\"",
        )?;
        let (output, took, answers) = self.under_load(&site, &self.words(&good, LONG), LIMIT)?;
        step.prove_result(
            "drawbridge deploy: another system runs on the backend, is seen at work and kept",
            outcome(&output, 0, "confirmed").map(|said| format!("{said}; {took:.1} s")),
        );
        step.prove_result(
            "internet → API: no request fails while the system is switched",
            no_failure(answers),
        );
        step.prove_result(
            "drawbridge deploy: the same system again is nothing to do",
            self.operated(&self.words(&good, LONG))
                .and_then(|output| outcome(&output, 0, "current")),
        );
        // Migrations still work, or it would not come to the switch.
        let broken = systems.make("broken", "[ \"$1\" != serve ] || exit 1; exec /nix/store/drawbridge-host/bin/drawbridge-host \"$@\"")?;
        step.prove_result(
            "drawbridge deploy: a system whose API does not answer is taken back",
            self.operated(&self.words(&broken, SHORT))
                .and_then(|output| outcome(&output, 1, "rolled-back"))
                .and_then(|said| Ok(format!("{said}; {}", crashes::ready(backend)?))),
        );
        let left = systems.make(
            "left",
            "exec /nix/store/drawbridge-host/bin/drawbridge-host \"$@\"",
        )?;
        let system = left
            .join(&STORE[1..])
            .join(path("nixos-system-left")?.name());
        fs::write(system.join("waits"), "").context("cannot write a system")?;
        systems.list(&left)?;
        step.prove_result(
            "drawbridge deploy: a host whose operator is killed in the switch goes back by itself",
            self.abandoned(backend, &left),
        );
        Ok(())
    }

    fn words(&self, system: &Path, confirm_timeout: &str) -> Vec<String> {
        let system = system.display().to_string();
        [
            "drawbridge",
            "deploy",
            "backend",
            "--json",
            "--closure",
            &system,
            "--confirm-timeout",
            confirm_timeout,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn operated(&self, words: &[String]) -> Result<Output> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = self.machine.command(&words, LIMIT);
        command
            .environment(self.operator.environment.clone())
            .output()
    }

    /// The command is killed while the system is being switched to, which waits for just that.
    fn abandoned(&self, backend: &Machine, system: &Path) -> Result<String> {
        let note = system.join("operator");
        let line: Vec<String> = self
            .words(system, SHORT)
            .iter()
            .map(|word| quoted(Path::new(word)))
            .collect();
        let script = format!("echo $$ >{}; exec {}", quoted(&note), line.join(" "));
        let mut operator = self
            .machine
            .command(&["sh", "-c", &script], LIMIT)
            .environment(self.operator.environment.clone())
            .build()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run drawbridge deploy")?;
        let switching = until(backend, "switching");
        let pid = fs::read_to_string(&note).unwrap_or_default();
        let killed = self
            .machine
            .command(&["kill", "-KILL", pid.trim()], LIMIT)
            .output()?;
        operator
            .wait()
            .context("cannot wait for drawbridge deploy")?;
        switching?;
        ensure!(killed.status.success(), "the command had ended by itself");
        ask(backend, &["touch", GONE])?;
        let last = until(backend, "rolled-back")?;
        ensure!(last.reason.contains("nobody confirmed"), "{}", last.reason);
        Ok(format!("{}; {}", last.reason, crashes::ready(backend)?))
    }
}

/// What the command says, if it ended so.
fn outcome(output: &Output, status: i32, wanted: &str) -> Result<String> {
    let problem = String::from_utf8_lossy(&output.stderr);
    let problem = problem.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: no report; {problem}", output.status))?;
    let reason = report["reason"].as_str().unwrap_or_default();
    ensure!(
        output.status.code() == Some(status) && report["outcome"] == wanted,
        "{}, {}: {reason} {problem}",
        output.status,
        report["outcome"]
    );
    Ok(format!("generation {}: {reason}", report["generation"]))
}

/// Waits for a phase of the backend's activation.
fn until(backend: &Machine, phase: &str) -> Result<Activation> {
    let begun = Instant::now();
    loop {
        // Before the first activation there is no such file.
        let text = ask(
            backend,
            &[
                "sh",
                "-c",
                "cat /var/lib/drawbridge/system/state.json || echo null",
            ],
        )?;
        let state: Value = serde_json::from_str(&text).context("state.json is no JSON")?;
        if state["phase"] == phase {
            return serde_json::from_value(state).context("state.json is no activation");
        }
        if begun.elapsed() > BACK_LIMIT {
            bail!("not {phase} within {} s: {state}", BACK_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Systems {
    folder: PathBuf,
    /// What the modules evaluate to.
    described: String,
}

impl Systems {
    /// A folder for `--closure` with a system whose API's program is `script`.
    fn make(&self, name: &str, script: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        let store = folder.join(&STORE[1..]);
        let program = path(&format!("drawbridge-host-{name}"))?;
        let command = format!("{program}/bin/drawbridge-host");
        write(
            &store.join(program.name()).join("bin/drawbridge-host"),
            &format!("#!/bin/sh\n{script}\n"),
        )?;
        let mut described: Value =
            serde_json::from_str(&self.described).context("the image's description is no JSON")?;
        let migrate = described["migrate"]
            .as_array_mut()
            .context("the backend's description has no migrate")?;
        *migrate.first_mut().context("migrate is empty")? = command.as_str().into();
        let api = format!("[Service]\nExecStart=\nExecStart={command} serve\n");
        self.write_system(
            &store,
            &format!("nixos-system-{name}"),
            &described.to_string(),
            &api,
        )?;
        self.list(&folder)?;
        Ok(folder)
    }

    fn write_system(
        &self,
        store: &Path,
        name: &str,
        described: &str,
        api: &str,
    ) -> Result<StorePath> {
        let system = path(name)?;
        let place = store.join(system.name());
        write(&place.join("bin/switch-to-configuration"), SWITCH)?;
        write(&place.join(DESCRIPTION), described)?;
        write(&place.join("api.conf"), api)?;
        Ok(system)
    }

    /// Writes the list of a folder's paths as `nix path-info` would.
    fn list(&self, folder: &Path) -> Result<()> {
        let store = folder.join(&STORE[1..]);
        let mut names: Vec<String> = fs::read_dir(&store)
            .context("cannot list a system")?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_by_key(|name| name.contains("nixos-system"));
        let mut paths = serde_json::Map::new();
        let mut before = Vec::new();
        for name in names {
            let mut archive = Vec::new();
            pack(&store.join(&name), &mut archive).context("cannot read a system")?;
            let hash: String = digest(&SHA256, &archive)
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let path = format!("{STORE}/{name}");
            let info = json!({ "narHash": format!("sha256:{hash}"), "narSize": archive.len(), "references": before });
            paths.insert(path.clone(), info);
            before.push(path);
        }
        let list = Value::Object(paths).to_string();
        fs::write(folder.join("closure.json"), list).context("cannot write a list of paths")
    }

    /// What every image has, and a Debian has not: a system of its own, as generation 1.
    fn install_image(&self, backend: &Machine) -> Result<()> {
        let store = self.folder.join("image");
        let system = self.write_system(&store, IMAGE, &self.described, "")?;
        let place = store.join(system.name());
        let mut archive = Vec::new();
        for name in ["bin/switch-to-configuration", DESCRIPTION, "api.conf"] {
            let text = fs::read_to_string(place.join(name)).context("cannot read a system")?;
            archive.push((name, text));
        }
        for (name, text) in archive {
            let script =
                "mkdir -p \"$(dirname \"$1\")\" && printf %s \"$2\" >\"$1\" && chmod 555 \"$1\"";
            ask(
                backend,
                &["sh", "-c", script, "sh", &format!("{system}/{name}"), &text],
            )?;
        }
        let script = "mkdir -p /nix/var/nix/profiles && cd /nix/var/nix/profiles && ln -s \"$1\" system-1-link && \
                      ln -s system-1-link system && ln -s \"$1\" /run/current-system && ln -s \"$1\" /run/booted-system";
        ask(backend, &["sh", "-c", script, "sh", system.as_str()])?;
        Ok(())
    }
}

fn path(name: &str) -> Result<StorePath> {
    let hash: String = digest(&SHA256, name.as_bytes()).as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    StorePath::named(&format!("{hash}-{name}")).context("a name of the rehearsal's own")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))
        .with_context(|| format!("cannot create a folder for {}", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
