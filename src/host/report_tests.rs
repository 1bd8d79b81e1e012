use super::*;

fn identity(id: &str) -> Identity {
    Identity {
        instance_id: id.into(),
        image_id: "ami-1".into(),
        address: [10, 20, 2, 10].into(),
        region: "ap-south-1".into(),
    }
}

fn host() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::under(dir.path());
    file::folder(&host.path(path::STATE), 0o755, None).unwrap();
    (dir, host)
}

fn shown(host: &Host) -> BootstrapReport {
    serde_json::from_str(&show(host, &ReportArgs { json: true }).unwrap()).unwrap()
}

async fn completed(host: &Host) {
    let mut reporter = Reporter::open(host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-1"), Role::Bastion, false),
        Boot::First
    );
    reporter.complete(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_bootstrap_that_stopped_is_taken_up_with_its_first_time() {
    let (_dir, host) = host();
    let mut reporter = Reporter::open(&host).unwrap();
    reporter.begin(&identity("i-1"), Role::Database, false);
    reporter.enter(Step::Volume).unwrap();
    reporter.fail(Step::Volume, "no\nvolume").await;
    let before = shown(&host);
    assert_eq!(
        (before.step, before.error.as_deref()),
        (Step::Volume, Some("no volume"))
    );

    let mut reporter = Reporter::open(&host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-1"), Role::Database, false),
        Boot::First
    );
    reporter.enter(Step::AdminKeys).unwrap();
    let after = shown(&host);
    assert_eq!((after.step, after.error), (Step::AdminKeys, None));
    assert_eq!(after.started_at, before.started_at);
}

#[tokio::test]
async fn a_complete_instance_stays_complete_whatever_a_reboot_brings() {
    let (_dir, host) = host();
    completed(&host).await;
    let before = shown(&host);

    // Also when the metadata cannot be read, so that it is not known which instance this is.
    let mut reporter = Reporter::open(&host).unwrap();
    reporter.fail(Step::Metadata, "no answer").await;
    assert!(shown(&host).is_complete_for("i-1"));
    assert_eq!(shown(&host).error.as_deref(), Some("no answer"));

    let mut reporter = Reporter::open(&host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-1"), Role::Bastion, false),
        Boot::Again
    );
    reporter.enter(Step::AdminKeys).unwrap();
    reporter.complete(Duration::ZERO).await.unwrap();
    let after = shown(&host);
    assert_eq!((after.finished_at, after.error), (before.finished_at, None));
}

#[tokio::test]
async fn another_instance_starts_anew_and_so_does_one_that_is_asked_to() {
    let (_dir, host) = host();
    completed(&host).await;
    let mut reporter = Reporter::open(&host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-1"), Role::Bastion, true),
        Boot::First
    );
    let mut reporter = Reporter::open(&host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-2"), Role::Bastion, false),
        Boot::Cloned
    );
    reporter.enter(Step::AdminKeys).unwrap();
    assert_eq!(shown(&host).finished_at, None);
    // A kill now does not make the next run forget that it is a first boot.
    let mut reporter = Reporter::open(&host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-2"), Role::Bastion, false),
        Boot::First
    );
}

#[tokio::test]
async fn complete_but_untold_is_told_by_the_next_run() {
    let (_dir, host) = host();
    completed(&host).await;
    let file = host.path(path::REPORT);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("\"delivered\": true", "\"delivered\": false"),
    )
    .unwrap();
    let mut reporter = Reporter::open(&host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-1"), Role::Bastion, false),
        Boot::Untold
    );
}

#[tokio::test]
async fn a_broken_local_report_counts_as_none() {
    let (_dir, host) = host();
    assert!(matches!(
        show(&host, &ReportArgs { json: false }),
        Err(ReportError::None)
    ));
    std::fs::write(host.path(path::REPORT), "{\"step\":").unwrap();
    assert!(matches!(
        show(&host, &ReportArgs { json: false }),
        Err(ReportError::Unreadable { .. })
    ));
    let mut reporter = Reporter::open(&host).unwrap();
    assert_eq!(
        reporter.begin(&identity("i-1"), Role::Bastion, false),
        Boot::First
    );
}

#[tokio::test]
async fn the_console_hears_every_step_and_a_report_fits_into_its_parameter() {
    let (_dir, host) = host();
    std::fs::create_dir(host.path("/dev")).unwrap();
    std::fs::write(host.path(path::CONSOLE), "").unwrap();
    let mut reporter = Reporter::open(&host).unwrap();
    reporter.begin(&identity("i-1"), Role::Bastion, false);
    reporter.enter(Step::AdminKeys).unwrap();
    reporter
        .fail(Step::AdminKeys, &"\"\u{1b}[31mé".repeat(2000))
        .await;
    let report = shown(&host);
    let size = serde_json::to_string(&report).unwrap().len();
    assert!(
        size < crate::appliance::parameter::SIZE_LIMIT_BYTES,
        "{size}"
    );
    let heard = until(
        "the console",
        Duration::from_secs(5),
        Duration::from_millis(20),
        async || {
            let text = std::fs::read_to_string(host.path(path::CONSOLE)).unwrap();
            if text.contains("i-1: step admin-keys") && text.contains("STOPPED") {
                Look::Done(text)
            } else {
                Look::NotYet(text)
            }
        },
    )
    .await
    .unwrap();
    assert!(!heard.contains('\u{1b}'));
}
