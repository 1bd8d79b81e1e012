//! The AWS provider as a package of one line that starts the real one.
//!
//! Every terraform compares its providers' packages with the lock file first: 700 MB through SHA-256, which is most of what
//! `terraform output` costs. The real package against the committed lock is for
//! `terraform_files_are_formatted_and_valid` and the rehearsal of what is shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use drawbridge::terraform::{MIRROR_VARIABLE, mirror_config};

use super::{repository, run};

const LOCK: &str = ".terraform.lock.hcl";
/// May download the provider.
const LIMIT: Duration = Duration::from_secs(1800);

/// What terraform needs to use it.
pub struct Provider {
    /// For [`MIRROR_VARIABLE`].
    mirror: PathBuf,
    cli_config: PathBuf,
    lock: String,
}

/// The one of this run of the tests.
pub fn light() -> &'static Provider {
    static PROVIDER: OnceLock<Provider> = OnceLock::new();
    PROVIDER.get_or_init(Provider::prepare)
}

impl Provider {
    fn prepare() -> Self {
        let folder = repository().join(".drawbridge/light-provider");
        fs::create_dir_all(&folder).expect("a folder below .drawbridge/");
        let work = tempfile::tempdir().expect("a temporary folder");
        let real = real_package(work.path());
        let below = real
            .split_once("/registry.terraform.io/")
            .expect("a package")
            .1;
        let (package, program) = below.rsplit_once('/').expect("a program in a package");
        // Under a name of its own content, and whole at once: other runs of the tests may use it.
        let script = format!("#!/bin/sh\nexec '{real}' \"$@\"\n");
        let mirror = folder.join(real.replace('/', "%"));
        let making = tempfile::Builder::new()
            .prefix("light-provider-")
            .tempdir_in(&folder);
        let making = making.expect("a folder below .drawbridge/").keep();
        let inside = making.join("registry.terraform.io").join(package);
        fs::create_dir_all(&inside).expect("the package's folder");
        fs::write(inside.join(program), script).expect("the provider's stand-in");
        fs::set_permissions(inside.join(program), fs::Permissions::from_mode(0o755))
            .expect("its permissions");
        if fs::rename(&making, &mirror).is_err() {
            // It is there, of the same content.
            let _ = fs::remove_dir_all(&making);
        }
        let cli_config = mirror.with_extension("tfrc");
        fs::write(&cli_config, mirror_config(&mirror)).expect("terraform's own configuration");

        // Terraform writes the lock for it.
        let folder = work.path().join("light");
        fs::create_dir(&folder).expect("a folder");
        fs::copy(
            repository().join("terraform/versions.tf"),
            folder.join("versions.tf"),
        )
        .expect("a copy");
        let mut init = terraform(&folder, &["init"]);
        init.env("TF_CLI_CONFIG_FILE", &cli_config);
        run(&mut init, LIMIT).expect_success("terraform init with a light provider");
        let lock = fs::read_to_string(folder.join(LOCK)).expect("a lock");
        Self {
            mirror,
            cli_config,
            lock,
        }
    }

    /// In the place of the committed lock in a copy of `terraform/`.
    pub fn lock(&self, directory: &Path) {
        fs::write(directory.join(LOCK), &self.lock).expect("a lock");
    }

    /// Has terraform take it, also where one of our own programs starts terraform.
    pub fn lead_to(&self, command: &mut Command) {
        command
            .env("TF_CLI_CONFIG_FILE", &self.cli_config)
            .env(MIRROR_VARIABLE, &self.mirror);
    }
}

/// Where the real provider is, once it has been installed as the committed lock wants it.
fn real_package(work: &Path) -> String {
    let folder = work.join("real");
    fs::create_dir(&folder).expect("a folder");
    for file in ["versions.tf", LOCK] {
        fs::copy(repository().join("terraform").join(file), folder.join(file)).expect("a copy");
    }
    let kept = repository().join(".drawbridge/terraform-plugins");
    fs::create_dir_all(&kept).expect("a folder for downloaded providers");
    let mut init = terraform(&folder, &["init", "-lockfile=readonly"]);
    init.env("TF_PLUGIN_CACHE_DIR", kept);
    super::stack::usual_provider(&mut init, &folder);
    run(&mut init, LIMIT).expect_success("terraform init with the committed lock");
    let pattern = folder.join(
        ".terraform/providers/registry.terraform.io/hashicorp/aws/*/*/terraform-provider-aws*",
    );
    let mut list = Command::new("sh");
    list.args(["-c", &format!("realpath {}", pattern.display())]);
    let found = run(&mut list, LIMIT).expect_success("a provider");
    found.lines().next().expect("a provider").to_owned()
}

fn terraform(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("terraform");
    super::without_cloud_settings(&mut command)
        .current_dir(folder)
        .args(arguments)
        .env("CHECKPOINT_DISABLE", "1");
    command
}
