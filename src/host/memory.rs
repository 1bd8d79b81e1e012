//! The kernel's own account of the machine's memory.

/// Where the kernel gives it.
pub(super) const FILE: &str = "/proc/meminfo";

/// A field of that file (`MemTotal`), in bytes.
pub(super) fn bytes(meminfo: &str, field: &str) -> Option<u64> {
    let kibibytes = meminfo.lines().find_map(|line| {
        line.strip_prefix(field)?
            .strip_prefix(':')?
            .strip_suffix("kB")
    })?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}
