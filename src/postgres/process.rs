//! What a process number stands for by now.

use std::{fs, path::Path};

use nix::{sys::signal::kill, unistd::Pid};

/// Whether a process has this number. One that has ended and waits for its parent does not count.
pub fn is_alive(pid: Pid) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    if let Some((_, rest)) = state
        .as_deref()
        .ok()
        .and_then(|text| text.rsplit_once(") "))
    {
        return !rest.starts_with(['Z', 'X']);
    }
    kill(pid, None) != Err(nix::errno::Errno::ESRCH)
}

/// Whether the process was started with this path among its arguments. Without `/proc`, `ps` is asked.
pub fn is_command_with(pid: Pid, argument: &Path) -> bool {
    let argument = argument.as_os_str().as_encoded_bytes();
    if let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) {
        return arguments
            .split(|byte| *byte == 0)
            .any(|part| part == argument);
    }
    let listed = std::process::Command::new("ps")
        .args(["-o", "command=", "-p", &pid.to_string()])
        .output();
    listed.is_ok_and(|listed| {
        listed
            .stdout
            .windows(argument.len())
            .any(|part| part == argument)
    })
}
