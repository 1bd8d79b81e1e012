//! What `/proc` says of processes.

use std::fs;

use nix::unistd::Pid;

/// Those whose parent `of` is, now.
pub fn children(of: Pid) -> Vec<Pid> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw)
        .filter(|pid| stat(*pid).is_some_and(|fields| fields[1] == i64::from(of.as_raw())))
        .collect()
}

/// The numbers of `/proc/PID/stat` behind the name: the state as 0, then the parent.
pub fn stat(pid: Pid) -> Option<Vec<i64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, numbers) = text.rsplit_once(") ")?;
    let numbers = numbers.split_whitespace();
    Some(numbers.map(|field| field.parse().unwrap_or(0)).collect())
}
