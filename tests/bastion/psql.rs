//! `drawbridge psql` and the connection string of `drawbridge tunnel`, with the real psql and a real Postgres that has the
//! rules of first boot.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use drawbridge::appliance::parameter;
use serde_json::json;

use super::sshd::Hosts;
use super::tunnel::operator;
use crate::support::postgres::TestPostgres;
use crate::support::{Operator, eventually, stub};

const PASSWORD: &str = "planted-4d1c-of-the-login";
/// Where the database's sshd answers, and what its certificate is for; psql connects to 127.0.0.1.
const DATABASE: &str = "127.0.0.2";
const LONG: Duration = Duration::from_secs(120);

struct Stage {
    hosts: Hosts,
    postgres: TestPostgres,
    operator: Operator,
    temporary: PathBuf,
}

impl Stage {
    async fn new() -> Self {
        let hba = drawbridge::host::pg_hba("10.20.2.0/24".parse().unwrap());
        // For the test's own superuser, who is not root everywhere. TCP has first boot's rules alone.
        let hba = format!("local all all trust\n{hba}");
        let postgres = TestPostgres::start_with(&hba, DATABASE).await;
        let client = postgres.session("postgres").await;
        let roles = format!(
            "CREATE ROLE drawbridge_a LOGIN PASSWORD '{PASSWORD}' IN ROLE drawbridge; \
             ALTER ROLE postgres PASSWORD '{PASSWORD}'"
        );
        client.batch_execute(&roles).await.unwrap();
        let database = "CREATE DATABASE drawbridge OWNER drawbridge";
        client.batch_execute(database).await.unwrap();

        let hosts = Hosts::start_with(|_| format!("ListenAddress {DATABASE}\n"));
        let operator = operator(&hosts, postgres.port());
        let mut deployment = serde_json::to_value(&hosts.access_to_all().deployment).unwrap();
        deployment["database"]["private_ip"] = json!(DATABASE);
        operator.deployment(&deployment);
        let login = json!({"username": "drawbridge_a", "password": PASSWORD}).to_string();
        operator.parameter(&parameter::database_login("drawbridge"), &login);
        let certificate = fs::read_to_string(postgres.certificate()).unwrap();
        operator.parameter(&parameter::database_certificate("drawbridge"), &certificate);
        let temporary = operator.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        Self {
            hosts,
            postgres,
            operator,
            temporary,
        }
    }

    fn drawbridge(&self, arguments: &[&str]) -> Command {
        let mut command = self.operator.drawbridge(&self.hosts.user_key(), arguments);
        command
            .env("TMPDIR", &self.temporary)
            .env_remove("XDG_RUNTIME_DIR")
            // What the caller has for another server must not matter.
            .env("PGHOST", "/nowhere")
            .env("PGSSLMODE", "disable")
            .env("PGPASSWORD", "of another server");
        command
    }

    fn psql(&self, arguments: &[&str]) -> Output {
        let words = [&["psql", "--", "-X"], arguments].concat();
        self.drawbridge(&words).output().unwrap()
    }

    /// psql, busy with a query that does not end.
    async fn busy(&self) -> Child {
        let query = "\\echo busy\nselect pg_sleep(600);\n";
        fs::write(self.operator.path().join("query.sql"), query).unwrap();
        let mut command = self.drawbridge(&["psql", "--", "-X", "-f", "query.sql"]);
        let mut child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "busy\n");
        // What psql gets before the query runs does not cancel it.
        let client = self.postgres.session("postgres").await;
        let query =
            "select from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
        let started = async {
            while client.query(query, &[]).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let started = tokio::time::timeout(LONG, started);
        started.await.expect("the query begins");
        assert_eq!(self.left_behind(), 1, "the password's folder");
        child
    }

    fn left_behind(&self) -> usize {
        fs::read_dir(&self.temporary).unwrap().count()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn kill(signal: &str, target: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, "--", target]);
    assert!(kill.status().unwrap().success());
}

fn end(child: &mut Child) -> Option<i32> {
    let ended = eventually(LONG, "the end of drawbridge psql", || {
        child.try_wait().unwrap().ok_or("still there".to_owned())
    });
    ended.code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_login_gets_in_over_tls_and_the_superuser_does_not() {
    let stage = Stage::new().await;
    let query = "select current_user, ssl, client_addr from pg_stat_ssl join pg_stat_activity using (pid) where pid = pg_backend_pid()";
    let output = stage.psql(&["-Atc", query]);
    assert_eq!(
        text(&output.stdout),
        "drawbridge_a|t|127.0.0.1\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(0));

    // psql's own statuses.
    let failed = stage.psql(&["-v", "ON_ERROR_STOP=1", "-c", "select 1/0"]);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    let lost = stage.psql(&["-U", "postgres", "-c", "select 1"]);
    assert_eq!(lost.status.code(), Some(2));
    assert!(
        text(&lost.stderr).contains("no pg_hba.conf entry"),
        "{}",
        text(&lost.stderr)
    );
    assert_eq!(stage.left_behind(), 0);

    // Another server in its place.
    let (other, _) = crate::support::postgres::self_signed(DATABASE);
    let name = parameter::database_certificate("drawbridge");
    stage.operator.parameter(&name, &other);
    let stranger = stage.psql(&["-c", "select 1"]);
    assert_eq!(stranger.status.code(), Some(2));
    assert!(
        text(&stranger.stderr).contains("certificate"),
        "{}",
        text(&stranger.stderr)
    );
    drop(stage.postgres);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_is_in_no_argument_environment_or_output() {
    let stage = Stage::new().await;
    let real = Command::new("sh")
        .args(["-c", "command -v psql"])
        .output()
        .unwrap();
    let real = text(&real.stdout);
    let seen = stage.operator.path().join("seen");
    // Looks at psql and at who started it, then is psql.
    let script = format!(
        "#!/bin/sh\nfor process in $$ $PPID; do cat /proc/$process/environ /proc/$process/cmdline >>'{}'; done\nexec {} \"$@\"\n",
        seen.display(),
        real.trim()
    );
    stage.operator.program("psql", &script);
    let search = |arguments: &[&str]| {
        let _ = fs::remove_file(&seen);
        let output = stage.psql(arguments);
        let looked = text(&fs::read(&seen).unwrap());
        assert!(looked.contains("PGPASSFILE=") && looked.contains("DRAWBRIDGE_"));
        let all = [looked, text(&output.stdout), text(&output.stderr)].concat();
        (output.status.code(), all.contains(PASSWORD))
    };
    assert_eq!(search(&["-c", "select 1"]), (Some(0), false));
    // The search finds what is there.
    let planted = format!("planted={PASSWORD}");
    assert_eq!(search(&["-v", &planted, "-c", "select 1"]), (Some(0), true));
    let printed = format!("select '{}'||'{}'", &PASSWORD[..9], &PASSWORD[9..]);
    assert_eq!(search(&["-Atc", &printed]), (Some(0), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_cancels_the_query_and_sigterm_ends_it_and_nothing_is_left() {
    let stage = Stage::new().await;
    // As a terminal does it: the whole group.
    let mut child = stage.busy().await;
    kill("INT", &format!("-{}", child.id()));
    assert_eq!(
        end(&mut child),
        Some(3),
        "psql's own status of a script that was cancelled"
    );
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("canceling statement due to user request"),
        "{said}"
    );
    assert_eq!(stage.left_behind(), 0);

    let mut child = stage.busy().await;
    kill("TERM", &child.id().to_string());
    assert_eq!(end(&mut child), Some(130));
    assert_eq!(stage.left_behind(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tunnels_connection_string_works_and_has_no_password() {
    let stage = Stage::new().await;
    let mut command = stage.drawbridge(&["tunnel", "database"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    assert!(
        url.starts_with("postgresql://drawbridge_a@127.0.0.2:"),
        "{url}"
    );
    assert!(!url.contains(PASSWORD), "{url}");
    let ask = || {
        let mut psql = Command::new("psql");
        psql.env("PGPASSWORD", PASSWORD)
            .args(["-XAtc", "select 1", url.trim()]);
        text(&psql.output().unwrap().stdout)
    };
    assert_eq!(ask(), "1\n", "{url}");
    // Side by side, as a program with a pool has it.
    thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        for one in asked {
            assert_eq!(one.join().unwrap(), "1\n");
        }
    });
    kill("TERM", &child.id().to_string());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

fn stderr(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let hosts = Hosts::start();
    let operator = operator(&hosts, 5432);
    let psql = || operator.drawbridge(&hosts.user_key(), &["psql"]);

    let said = stderr(&mut psql());
    assert!(said.contains("/drawbridge/database/login"), "{said}");
    let name = parameter::database_login("drawbridge");
    operator.parameter(&name, parameter::PENDING);
    let certificate = parameter::database_certificate("drawbridge");
    operator.parameter(&certificate, parameter::PENDING);
    let said = stderr(&mut psql());
    assert!(said.contains("drawbridge nat status"), "{said}");
    operator.parameter(&name, "sesame");
    let said = stderr(&mut psql());
    assert!(
        said.contains("not a login") && !said.contains("sesame"),
        "{said}"
    );

    // AWS says no to the login alone.
    let access = hosts.access_to_all();
    let mut known = json!({});
    for role in drawbridge::appliance::Role::ALL {
        let key = access.pins.get(role).unwrap().to_openssh().unwrap();
        known[parameter::ssh_host_key("drawbridge", role)] = json!(key.to_string());
    }
    let endpoint = stub::serve(move |_, body| {
        if text(body).contains("drawbridge/database/") {
            let denied = json!({"__type": "AccessDeniedException", "message": "no identity-based policy allows it"});
            return Some((400, denied.to_string()));
        }
        Some((200, stub::parameters(&known, body)?))
    });
    let said = stderr(psql().env("AWS_ENDPOINT_URL", endpoint));
    for wanted in [
        "ssm:GetParameters",
        "kms:Decrypt",
        "arn:aws:ssm:ap-south-1:123456789012:parameter/drawbridge/database/login",
        "drawbridge ssh database -- sudo -u postgres psql drawbridge",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }

    operator.program("psql", "#!/bin/sh\necho 'psql (PostgreSQL) 14.12'\n");
    let said = stderr(&mut psql());
    assert!(
        said.contains("is version 14") && said.contains("apt-get"),
        "{said}"
    );
    fs::remove_file(operator.path().join("bin/psql")).unwrap();
    let said = stderr(psql().env("PATH", operator.path().join("bin")));
    assert!(
        said.contains("no psql") && said.contains("postgresql-client"),
        "{said}"
    );
}
