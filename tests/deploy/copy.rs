//! What the host lacks arrives whole, once, and nothing else does.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use drawbridge::appliance::Role;
use drawbridge::appliance::store::{Closure, StorePath};
use drawbridge::appliance::system::STREAM_MAGIC;
use drawbridge::closure::copy::{copy, stage};
use drawbridge::closure::pack::pack;
use drawbridge::closure::remote::{Remote, RemoteError};
use drawbridge::closure::source::Source;
use drawbridge::progress::Progress;

use super::stage::{Stage, path};

#[tokio::test]
async fn a_connection_lost_on_the_way_costs_only_what_was_on_its_way() {
    let stage_ = Stage::start();
    let folder = stage_.closure("new", 3_000_000);
    // The first stream breaks off in its third path, with the whole session; each is kept to be looked at.
    stage_.hook(
        "[ $1 = receive ] || return 0\n\
         n=$(ls $(dirname $0)/stream.* 2>/dev/null | wc -l)\n\
         if [ $n = 0 ]; then\n\
             head -c 2200000 | tee $(dirname $0)/stream.$n | $(tail -n 1 $0 | cut -d ' ' -f 2-5) receive\n\
             kill -9 $PPID; exit 1\n\
         fi\n\
         tee $(dirname $0)/stream.$n | $(tail -n 1 $0 | cut -d ' ' -f 2-5) receive; exit $?",
    );
    let access = stage_.hosts.access();
    let mut remote = Remote::new(&access, Role::Backend);
    let source = Source::given(&folder).await.unwrap();
    let first = stage(&mut remote, &source).await.unwrap();
    assert_eq!(first.missing.len(), 4);
    let (staged, sent) = copy(&mut remote, &source, first, &Progress::quiet())
        .await
        .unwrap();
    assert!(staged.missing.is_empty());
    let size = |n| {
        fs::metadata(stage_.bin.join(format!("stream.{n}")))
            .unwrap()
            .len()
    };
    assert_eq!(size(0), 2_200_000);
    // Two paths of a megabyte had come whole.
    assert!(size(1) < 1_100_000, "{}", size(1));
    assert!(sent > 3_000_000, "{sent}");
    for one in source.closure.paths() {
        let arrived = stage_.root.join(&one.path.as_str()[1..]);
        let found = arrived.symlink_metadata().unwrap();
        assert_eq!(
            (found.mode() & 0o7777, found.mtime()),
            (0o555, 1),
            "{}",
            one.path
        );
        let (mut here, mut there) = (Vec::new(), Vec::new());
        pack(&source.place(&one.path), &mut here).unwrap();
        pack(&arrived, &mut there).unwrap();
        assert!(here == there, "{}", one.path);
    }
    // Once more: nothing is sent.
    let again = stage(&mut remote, &source).await.unwrap();
    assert_eq!((again.missing.len(), again.missing_bytes), (0, 0));
}

#[tokio::test]
async fn what_the_host_refuses_is_told_in_its_words_and_not_tried_again() {
    let stage_ = Stage::start();
    let source = Source::given(&stage_.closure("new", 300)).await.unwrap();
    let access = stage_.hosts.access();
    let mut remote = Remote::new(&access, Role::Backend);
    stage_.hook(
        "[ $1 = receive ] || return 0; echo 1 >>$(dirname $0)/tries; echo 'no room' >&2; exit 4",
    );
    let first = stage(&mut remote, &source).await.unwrap();
    let error = copy(&mut remote, &source, first, &Progress::quiet())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RemoteError::Refused(why) if why == "backend: no room"),
        "{error}"
    );
    let tries = fs::read_to_string(stage_.bin.join("tries")).unwrap();
    assert_eq!(tries.lines().count(), 1);
    stage_.hook("echo 'sudo: a password is required' >&2; exit 1");
    let error = stage(&mut remote, &source).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "backend: sudo: a password is required (exit status 1)"
    );
}

fn receive(stage: &Stage, stream: &[u8]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge-host"))
        .args(["system", "--root"])
        .arg(&stage.root)
        .arg("receive")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that is refused early is not read to its end.
    let _ = child.stdin.take().unwrap().write_all(stream);
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn staged(stage: &Stage, closure: &Closure) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge-host"))
        .args(["system", "--root"])
        .arg(&stage.root)
        .arg("stage")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let list = serde_json::to_vec(closure).unwrap();
    child.stdin.take().unwrap().write_all(&list).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_stream_that_is_not_what_was_staged_leaves_nothing() {
    let stage = Stage::start();
    let source = Source::given(&stage.closure("new", 300)).await.unwrap();
    staged(&stage, &source.closure);
    let mut paths = source.closure.paths().iter().map(|it| &it.path);
    let content = |path: &StorePath| source.place(path).join("content");
    let one = paths.find(|path| content(path).exists()).unwrap();
    let mut archive = Vec::new();
    pack(&source.place(one), &mut archive).unwrap();
    let stream = |name: &str, archive: &[u8]| {
        let name_length = [u8::try_from(name.len()).unwrap()];
        [STREAM_MAGIC, &name_length, name.as_bytes(), archive, &[0]].concat()
    };
    let mut malformed = archive.clone();
    let end = malformed.len() - 40;
    malformed[end] ^= 1;
    // A whole archive of the right length, with one bit of a file's content changed.
    let content = fs::read(content(one)).unwrap();
    let mut windows = archive.windows(content.len());
    let place = windows.position(|window| window == content).unwrap();
    let mut other = archive.clone();
    other[place] ^= 1;
    // A whole archive, but not as long as was said; the rest is filled up.
    let empty = stage.root.join("empty");
    fs::write(&empty, "").unwrap();
    let mut short = Vec::new();
    pack(&empty, &mut short).unwrap();
    short.resize(archive.len(), 0);
    let image = path("nixos-system-image");
    let elsewhere = path("nobody-asked");
    let before = fs::read_dir(stage.root.join("nix/store")).unwrap().count();
    for (stream, words) in [
        (
            b"GET / HTTP/1.1\r\n\r\nxxxxxxxxx".to_vec(),
            "not one of this version",
        ),
        (
            stream(elsewhere.name(), &archive),
            "not part of what is staged",
        ),
        (stream("../../etc", &archive), "not part of what is staged"),
        // The image's own are there already, and stay what they are.
        (stream(image.name(), &archive), "not missing here"),
        (
            stream(one.name(), &malformed),
            "did not arrive as it should",
        ),
        (stream(one.name(), &other), "its hash is"),
        (stream(one.name(), &short), "bytes before it should"),
        (STREAM_MAGIC.to_vec(), "broke off"),
        (stream(one.name(), &archive)[..200].to_vec(), "broke off"),
    ] {
        let (code, said) = receive(&stage, &stream);
        assert_eq!(code, Some(1), "{words}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        let now = fs::read_dir(stage.root.join("nix/store")).unwrap().count();
        assert_eq!(now, before, "{words}");
    }
    let (code, said) = receive(&stage, &stream(one.name(), &archive));
    assert_eq!(code, Some(0), "{said}");
}
