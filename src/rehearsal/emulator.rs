//! The AWS emulator: moto behind a launcher of ours, on an address outside the pretend VPC, with a certificate of the
//! rehearsal's authority.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::authority::Authority;
use super::namespaces;
use super::network::{CLOUD, INTERNET};
use super::world::log_tail;

/// Ids of images that nobody has to build for a rehearsal, by role.
pub const IMAGES: [(&str, &str); 3] = [
    ("bastion", "ami-0000000000000ba51"),
    ("backend", "ami-0000000000000bac0"),
    ("database", "ami-00000000000000db0"),
];

const LAUNCHER: &str = include_str!("emulator.py");
/// Where security groups let private hosts go.
const PORT: u16 = 443;
/// moto imports for one to three seconds; a busy machine stretches that.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How soon its end is noticed.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The running emulator.
pub struct Emulator {
    process: Child,
    log: PathBuf,
    authority: PathBuf,
}

impl Emulator {
    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// If it does not come up; with the end of its log.
    pub fn start(python: &Path, folder: &Path, authority: &Authority) -> Result<Emulator> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let launcher = folder.join("emulator.py");
        fs::write(&launcher, LAUNCHER).context("cannot write the emulator's launcher")?;
        let images = folder.join("images.json");
        fs::write(&images, describe_images().to_string())
            .context("cannot write the emulator's images")?;
        let (certificate, key) = make_certificate(folder, authority)?;
        let log = folder.join("emulator.log");
        let output = File::create(&log).context("cannot create the emulator's log")?;
        let errors = output
            .try_clone()
            .context("cannot share the emulator's log")?;
        let mut command = Command::new(python);
        command
            .arg(&launcher)
            .args(["-H", &CLOUD.to_string(), "-p", &PORT.to_string(), "-s"])
            .arg("-c")
            .arg(&certificate)
            .arg("-k")
            .arg(&key)
            .env("MOTO_AMIS_PATH", &images)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        let process = namespaces::inside(INTERNET, || command.spawn())?
            .with_context(|| format!("cannot run {}", python.display()))?;
        let mut emulator = Emulator {
            process,
            log,
            authority: authority.file().to_owned(),
        };
        let deadline = Instant::now() + START_LIMIT;
        loop {
            emulator.check()?;
            let last = match namespaces::inside(INTERNET, || {
                TcpStream::connect_timeout(&SocketAddr::from((CLOUD, PORT)), Duration::from_secs(1))
            })? {
                Ok(_) => return Ok(emulator),
                Err(error) => error,
            };
            if Instant::now() > deadline {
                bail!(
                    "the AWS emulator does not accept connections after {} s ({last}); its log ends:\n{}",
                    START_LIMIT.as_secs(),
                    log_tail(&emulator.log)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it has ended; with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self
            .process
            .try_wait()
            .context("cannot look after the AWS emulator")?
        {
            bail!(
                "the AWS emulator has ended ({status}); its log ends:\n{}",
                log_tail(&self.log)
            );
        }
        Ok(())
    }

    /// Runs `work`, which talks to the emulator, and gives up on it as soon as the emulator has ended: a client would
    /// go on trying for minutes. Work that was given up ends with the rehearsal.
    ///
    /// # Errors
    /// What `work` returns, or why the emulator has ended.
    pub fn while_it_runs<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody listens any more once the emulator has ended.
            let _ = sender.send(work());
        });
        loop {
            match receiver.recv_timeout(CHECK_INTERVAL) {
                Ok(result) => {
                    self.check()?;
                    return result;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.check()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("the work with the AWS emulator broke off")
                }
            }
        }
    }

    /// The certificate of the authority that vouches for it.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// What makes AWS clients of any kind use the emulator (terraform, the aws command, the SDKs), where the
    /// authority's certificate is at `authority`.
    pub fn environment(authority: &Path) -> Vec<(&'static str, String)> {
        let authority = authority.display().to_string();
        vec![
            ("AWS_ENDPOINT_URL", format!("https://{CLOUD}:{PORT}")),
            ("AWS_CA_BUNDLE", authority.clone()),
            // Our own programs read the system's trust store, which this replaces.
            ("SSL_CERT_FILE", authority),
            // This machine's way to the internet does not lead to the rehearsed one.
            ("NO_PROXY", CLOUD.to_string()),
            ("no_proxy", CLOUD.to_string()),
        ]
    }

    /// Where it listens.
    pub fn address() -> SocketAddr {
        SocketAddr::from((CLOUD, PORT))
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

/// The images as moto wants them described.
fn describe_images() -> Value {
    let images = IMAGES.iter().map(|(role, id)| {
        json!({
            "ami_id": id,
            "name": format!("drawbridge-{role}"),
            "description": format!("stands for the {role}'s image"),
            "architecture": "x86_64",
            "state": "available",
            "public": false,
            "root_device_name": "/dev/xvda",
            "root_device_type": "ebs",
            "virtualization_type": "hvm",
        })
    });
    images.collect()
}

fn make_certificate(folder: &Path, authority: &Authority) -> Result<(PathBuf, PathBuf)> {
    let issued = authority.issue(&[&CLOUD.to_string()])?;
    let certificate = folder.join("emulator.pem");
    let key = folder.join("emulator.key");
    fs::write(&certificate, issued.certificate)
        .context("cannot write the emulator's certificate")?;
    fs::write(&key, issued.key).context("cannot write the emulator's key")?;
    Ok((certificate, key))
}
