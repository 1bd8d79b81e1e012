//! Where things are on a host: the same in the images and in the rehearsal.

/// State of `drawbridge-host`, root 0755.
pub const STATE: &str = "/var/lib/drawbridge";
/// What `drawbridge-host system` remembers: `state.json`, `staged.json`, `received` and `generations/N.json`, root 0755.
pub const SYSTEM: &str = "/var/lib/drawbridge/system";
/// Folder of the links to generations: `system-N-link`, and `system` to the one that boots.
pub const PROFILES: &str = "/nix/var/nix/profiles";
/// A link to the system that runs, and to the one that was booted.
pub const CURRENT_SYSTEM: &str = "/run/current-system";
/// See [`CURRENT_SYSTEM`].
pub const BOOTED_SYSTEM: &str = "/run/booted-system";
/// The last bootstrap report, kept locally.
pub const REPORT: &str = "/var/lib/drawbridge/bootstrap.json";
/// Folder of sshd's `AuthorizedKeysFile`: one file a login, `admin` and `tunnel`, root 0644.
pub const AUTHORIZED_KEYS: &str = "/var/lib/drawbridge/ssh/authorized_keys.d";
/// Backend: a symbolic link to the folder that holds everything the API is started with. It is replaced in one rename,
/// so that configuration, certificate and password change together.
pub const API: &str = "/var/lib/drawbridge/api";
/// Backend: the API's configuration file, written by the bootstrap, 0644; `DRAWBRIDGE_CONFIG` points at it.
pub const CONFIG: &str = "/var/lib/drawbridge/api/config.toml";
/// Backend: the same for programs that are not ours, 0644: libpq's variables (`PGHOST`, `PGUSER`, …) as an environment
/// file of systemd.
pub const ENVIRONMENT: &str = "/var/lib/drawbridge/api/environment";
/// Backend: the certificate the database published, the API's only trust anchor for it, 0644.
pub const DATABASE_CA: &str = "/var/lib/drawbridge/api/database-ca.pem";
/// Backend: the database password, sealed to this host with systemd-creds, 0600.
pub const SEALED_PASSWORD: &str = "/var/lib/drawbridge/api/database-password.cred";
/// Name under which the sealed password is a systemd credential.
pub const PASSWORD_CREDENTIAL: &str = "database-password";
/// Database: who may log in to Postgres.
pub const PG_HBA: &str = "/var/lib/drawbridge/postgresql/pg_hba.conf";
/// Database: which local users may act as the Postgres superuser.
pub const PG_IDENT: &str = "/var/lib/drawbridge/postgresql/pg_ident.conf";
/// Database: the settings that follow from this machine's memory and processors; postgresql.conf includes it.
pub const PG_TUNING: &str = "/var/lib/drawbridge/postgresql/tuning.conf";
/// Database: the certificate Postgres shows.
pub const SERVER_CERTIFICATE: &str = "/var/lib/drawbridge/postgresql/server.crt";
/// Database: its private key, 0640 root:postgres.
pub const SERVER_KEY: &str = "/var/lib/drawbridge/postgresql/server.key";
/// The host's only SSH host key.
pub const SSH_HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
/// Its public half.
pub const SSH_HOST_PUBLIC_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";
/// Database: mount point of the database's own volume.
pub const DATABASE_VOLUME: &str = "/var/lib/postgresql";
/// Database: a symbolic link to the volume's device, made once it is known to hold nobody else's data. What
/// [`DATABASE_VOLUME_UNIT`] mounts.
pub const DATABASE_VOLUME_LINK: &str = "/run/drawbridge/database-volume";
/// Database: the systemd unit that mounts [`DATABASE_VOLUME_LINK`] at [`DATABASE_VOLUME`].
pub const DATABASE_VOLUME_UNIT: &str = "var-lib-postgresql.mount";
/// Label of the file system on that volume.
pub const DATABASE_VOLUME_LABEL: &str = "drawbridge-db";
/// Folder of Postgres's unix socket.
pub const POSTGRES_SOCKET: &str = "/run/postgresql";
/// The serial console (`aws ec2 get-console-output` shows what is written here).
pub const CONSOLE: &str = "/dev/console";
