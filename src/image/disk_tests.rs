use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::*;

/// 1 MiB with one MBR partition of type 0x83.
fn mbr() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[446 + 4] = 0x83;
    disk[446 + 8..446 + 12].copy_from_slice(&1u32.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&2047u32.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn gpt() -> Vec<u8> {
    let mut disk = mbr();
    disk[446 + 4] = GPT;
    let last = disk.len() - 512;
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[512 + 32..512 + 40].copy_from_slice(&2047u64.to_le_bytes());
    disk[last..last + 8].copy_from_slice(b"EFI PART");
    disk
}

fn open(content: &[u8], wanted: u64) -> Result<Disk, BadDisk> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, content).unwrap();
    Disk::open(&path, wanted)
}

fn refused(content: &[u8]) -> String {
    let bad = open(content, content.len() as u64).unwrap_err();
    assert!(bad.is_refusal());
    bad.to_string()
}

#[test]
fn raw_disks_with_either_table_are_taken() {
    for disk in [mbr(), gpt()] {
        assert_eq!(open(&disk, 1 << 20).unwrap().bytes(), 1 << 20);
    }
}

#[test]
fn other_formats_are_named_with_what_makes_a_raw_disk_of_them() {
    for (magic, named, _) in FORMATS {
        let mut disk = mbr();
        disk[..magic.len()].copy_from_slice(magic);
        let said = refused(&disk);
        assert!(
            said.contains(named) && said.contains("nix build .#ami-ROLE"),
            "{said}"
        );
    }
    let mut fixed = mbr();
    fixed.extend(b"conectix");
    fixed.resize((1 << 20) + 512, 0);
    assert!(refused(&fixed).contains("VHD image of fixed size"));
}

#[test]
fn what_is_no_whole_disk_is_refused() {
    assert!(refused(b"").contains("is empty"));
    let disk = mbr();
    let said = open(&disk[..1 << 19], 1 << 20).unwrap_err().to_string();
    assert!(
        said.contains("has 524288 bytes") && said.contains("truncated"),
        "{said}"
    );
    let said = open(&disk, 1 << 19).unwrap_err().to_string();
    assert!(said.contains("still growing"), "{said}");
    assert!(refused(&disk[..(1 << 20) - 7]).contains("no multiple of 512"));
    assert!(
        refused(&disk[..1 << 19]).contains("a partition ends at sector 2048, the file at 1024")
    );
    assert!(refused(&gpt()[..1 << 19]).contains("second GPT header belongs at sector 2047"));
    let mut lost = gpt();
    let last = lost.len() - 512;
    lost[last..].fill(0);
    assert!(refused(&lost).contains("second GPT header"));
    let mut announced = gpt();
    announced[512] = 0;
    assert!(refused(&announced).contains("protective MBR"));
    let mut unsigned = mbr();
    unsigned[511] = 0;
    assert!(refused(&unsigned).contains("boot signature"));
    let mut blank = mbr();
    blank[446..510].fill(0);
    assert!(refused(&blank).contains("partition table"));
    assert!(refused(&[0; 512]).contains("boot signature"));
    assert!(refused(&[7; 100]).contains("no multiple of 512"));
}

#[test]
fn folders_and_missing_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let said = Disk::open(folder.path(), 1).unwrap_err().to_string();
    assert!(said.contains("is a folder"), "{said}");
    let said = Disk::open(&folder.path().join("none"), 1).unwrap_err();
    assert!(matches!(said, BadDisk::Unreadable { .. }));
}

#[test]
fn a_file_that_grows_shrinks_is_written_or_replaced_is_seen() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 4] = [
        (
            |path| {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(b"more").unwrap();
            },
            "it had 1048576 bytes and has 1048580",
        ),
        (
            |path| {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(512).unwrap();
            },
            "and has 512",
        ),
        (
            |path| {
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(b"x", 4096).unwrap();
                // As coarse as a file system's clock may be.
                file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                    .unwrap();
            },
            "it was written to",
        ),
        (
            |path| {
                let copy = path.with_extension("new");
                fs::copy(path, &copy).unwrap();
                fs::rename(copy, path).unwrap();
            },
            "another file has its name",
        ),
    ];
    for (change, what) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        fs::write(&path, mbr()).unwrap();
        let disk = Disk::open(&path, 1 << 20).unwrap();
        disk.check_unchanged("read").unwrap();
        change(&path);
        let read = disk.check_unchanged("read").unwrap_err();
        assert!(
            read.to_string().contains(what) && read.is_refusal(),
            "{read}"
        );
        let uploaded = disk.check_unchanged("uploaded").unwrap_err();
        assert!(!uploaded.is_refusal(), "{uploaded}");
    }
}

#[test]
fn a_read_that_fails_under_an_upload_is_no_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, mbr()).unwrap();
    let disk = Disk::open(&path, 1 << 20).unwrap();
    for kind in [
        std::io::ErrorKind::UnexpectedEof,
        std::io::ErrorKind::TimedOut,
    ] {
        assert!(disk.unreadable("read", kind.into()).is_refusal());
        let bad = disk.unreadable("uploaded", kind.into());
        assert!(
            !bad.is_refusal() && !bad.to_string().contains("nothing was begun"),
            "{bad}"
        );
    }
}
