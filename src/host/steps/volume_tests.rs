use std::os::unix::fs::FileExt;
use std::process::Command;

use super::*;

const OWNER: Owner = (0, 0);

const SIZE: u64 = 32 * 1024 * 1024;

fn blank() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(SIZE).unwrap();
    (dir, disk)
}

fn put(disk: &Path, bytes: &[u8], offset: u64) {
    let file = File::options().write(true).open(disk).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn tool(program: &str, arguments: &[&str], disk: &Path) {
    let output = Command::new(program)
        .args(arguments)
        .arg(disk)
        .output()
        .unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

fn volume() -> VolumeId {
    "vol-0123456789abcdef0".parse().unwrap()
}

/// Runs the decision with a state folder of its own and says what it came to.
async fn prepared(dir: &Path, disk: &Path) -> Result<(), VolumeError> {
    let host = Host::under(dir);
    file::folder(&host.path(path::STATE), 0o755, None).unwrap();
    prepare(&host, disk, &volume(), OWNER).await
}

#[tokio::test]
async fn a_blank_volume_is_formatted_once() {
    let (dir, disk) = blank();
    assert_eq!(look(&disk).await.unwrap(), Content::Blank);
    prepared(dir.path(), &disk).await.unwrap();
    assert_eq!(look(&disk).await.unwrap(), Content::Ours);
    assert!(!dir.path().join(&FORMATTING_NOTE[1..]).exists());

    let before = std::fs::read(&disk).unwrap();
    prepared(dir.path(), &disk).await.unwrap();
    assert!(
        before == std::fs::read(&disk).unwrap(),
        "a second run wrote to the volume"
    );
}

#[tokio::test]
async fn a_volume_with_any_signature_or_data_is_left_alone() {
    type Plant = fn(&Path);
    let plant: [(&str, Plant); 16] = [
        ("TYPE=ext4", |disk| {
            tool("mkfs.ext4", &["-q", "-F", "-L", "other"], disk)
        }),
        ("TYPE=ext2", |disk| {
            tool("mkfs.ext2", &["-q", "-F", "-L", "drawbridge-db"], disk)
        }),
        ("TYPE=swap", |disk| tool("mkswap", &[], disk)),
        ("TYPE=xfs", |disk| put(disk, b"XFSB\0\0\x10\0", 0)),
        ("PTTYPE=dos", |disk| {
            put(
                disk,
                &[0x80, 0, 2, 0, 0x83, 0, 4, 0, 0, 8, 0, 0, 0, 16, 0, 0],
                446,
            );
            put(disk, &[0x55, 0xaa], 510);
        }),
        ("TYPE=crypto_LUKS", |disk| {
            put(disk, b"LUKS\xba\xbe\0\x01aes\0", 0)
        }),
        ("TYPE=crypto_LUKS", |disk| {
            put(disk, b"LUKS\xba\xbe\0\x02", 0)
        }),
        // The others are recognised with a valid checksum only, which a tool would write; without one they still are
        // data, at the places where those tools put them.
        ("", |disk| put(disk, b"EFI PART\0\0\x01\0\x5c\0\0\0", 512)),
        ("", |disk| {
            put(disk, b"EFI PART\0\0\x01\0\x5c\0\0\0", SIZE - 512)
        }),
        ("", |disk| put(disk, b"_BHRfS_M", 0x1_0040)),
        ("", |disk| {
            put(
                disk,
                b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001",
                512,
            )
        }),
        // mdraid 1.2 at the beginning, 0.90 and 1.0 near the end
        ("", |disk| put(disk, b"\xfc\x4e\x2b\xa9\x01\0\0\0", 4096)),
        ("", |disk| {
            put(disk, b"\xfc\x4e\x2b\xa9\0\0\0\0", SIZE - 64 * 1024)
        }),
        // zfs keeps two labels at each end; here only the last is left
        ("", |disk| {
            put(disk, b"\x0c\xb1\xba\0\0\0\0\0", SIZE - 128 * 1024)
        }),
        ("without a known signature", |disk| {
            put(disk, b"dm-crypt without header", 5000)
        }),
        ("without a known signature", |disk| {
            put(disk, b"tail", SIZE - 4)
        }),
    ];
    for (seen, plant) in plant {
        let (dir, disk) = blank();
        plant(&disk);
        let before = std::fs::read(&disk).unwrap();
        let error = prepared(dir.path(), &disk).await.unwrap_err();
        assert!(
            matches!(error, VolumeError::Foreign { .. }),
            "{seen}: {error}"
        );
        // xfs is only recognised with a valid superblock; then it still is data.
        let said = error.to_string();
        assert!(said.contains(seen) || seen == "TYPE=xfs", "{said}");
        assert!(
            before == std::fs::read(&disk).unwrap(),
            "{seen}: the volume was written to"
        );
    }
}

#[tokio::test]
async fn a_format_cut_short_is_done_again_but_only_for_the_noted_volume() {
    let (dir, disk) = blank();
    put(&disk, b"half an inode table", 40_000);
    let host = Host::under(dir.path());
    file::folder(&host.path(path::STATE), 0o755, None).unwrap();
    let note = host.path(FORMATTING_NOTE);

    std::fs::write(&note, "vol-00000000\n").unwrap();
    assert!(prepared(dir.path(), &disk).await.is_err());
    std::fs::write(&note, format!("{}\n", volume())).unwrap();
    prepared(dir.path(), &disk).await.unwrap();
    assert_eq!(look(&disk).await.unwrap(), Content::Ours);

    // The note does not open the door to a volume that came to hold something else.
    std::fs::write(&note, format!("{}\n", volume())).unwrap();
    tool("mkfs.ext4", &["-q", "-F", "-L", "other"], &disk);
    assert!(prepared(dir.path(), &disk).await.is_err());
}

#[tokio::test]
async fn an_unreadable_device_is_not_taken_for_a_blank_one() {
    let error = look(Path::new("/nonexistent/disk")).await.unwrap_err();
    assert!(matches!(error, VolumeError::File(_)), "{error}");
    let (_dir, disk) = blank();
    File::options()
        .write(true)
        .open(&disk)
        .unwrap()
        .set_len(0)
        .unwrap();
    assert_ne!(look(&disk).await.ok(), Some(Content::Blank));
}
