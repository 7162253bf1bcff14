//! Notices that a process whose request waits was signalled.
//!
//! The kernel announces this with `FUSE_INTERRUPT`, which fuser 0.18 does not
//! pass on. So a request that waits looks at its caller's pending signals in
//! `/proc/PID/status` (`proc_pid_status(5)`) until it is answered. Only signals
//! that ask a program to stop count: timers, child exits and job control also
//! become pending, and must not break a read.

use std::time::Duration;

/// First look, and time between looks: prompt for a person, nothing for the machine.
const PERIOD: Duration = Duration::from_millis(40);

const STOPPING: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGABRT,
    libc::SIGKILL,
    libc::SIGPIPE,
    libc::SIGTERM,
    libc::SIGXCPU,
];

/// Resolves once the thread `pid` has a stopping signal pending, or is gone. Never for 0,
/// a caller outside our pid namespace.
pub async fn interrupted(pid: u32) {
    if pid == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(PERIOD).await;
        match std::fs::read_to_string(format!("/proc/{pid}/status")) {
            Ok(status) if !is_stopping(&status) => {}
            _ => return,
        }
    }
}

fn is_stopping(status: &str) -> bool {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).ok()
    };
    let pending = field("SigPnd").unwrap_or(0) | field("ShdPnd").unwrap_or(0);
    let blocked = field("SigBlk").unwrap_or(0);
    let stopping = STOPPING.iter().fold(0_u64, |mask, signal| mask | 1 << (signal - 1));
    // SIGKILL can't be blocked, whatever the mask says.
    pending & stopping & (!blocked | 1 << (libc::SIGKILL - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unblocked_stopping_signals_count() {
        let status = |pending: u64, blocked: u64| {
            format!("Name:\tcat\nSigPnd:\t0000000000000000\nShdPnd:\t{pending:016x}\nSigBlk:\t{blocked:016x}\n")
        };
        let int = 1 << (libc::SIGINT - 1);
        assert!(is_stopping(&status(int, 0)));
        assert!(!is_stopping(&status(int, int)));
        assert!(!is_stopping(&status(1 << (libc::SIGCHLD - 1), 0)));
        assert!(!is_stopping(&status(0, 0)));
    }
}
