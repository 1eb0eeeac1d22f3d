//! Why a child process ended, in words fit for a record: no paths, one sentence.

use std::process::ExitStatus;

use super::serve::PANICKED;
use crate::record::State;

/// How a child process ended, as far as its parent can tell.
pub(super) struct Death {
    /// What to write down for the item that was running.
    pub state: State,
    /// Follows "its process": `died of signal 11 (SIGSEGV, …)`.
    pub what: String,
}

impl Death {
    /// From the exit status; absent where the process could not be reaped in time.
    pub fn of(status: Option<ExitStatus>, memory_ran_out: bool) -> Self {
        let Some(status) = status else {
            return Death { state: State::DeviceLost, what: "closed its output and does not end".into() };
        };
        if let Some(signal) = signal(status) {
            if signal == 9 && memory_ran_out {
                let what = "was killed by the system for want of memory; choose a smaller problem".into();
                return Death { state: State::OutOfMemory, what };
            }
            return Death { state: State::DeviceLost, what: format!("died of signal {signal} ({})", meaning(signal)) };
        }
        let what = match status.code() {
            Some(PANICKED) => "panicked".into(),
            Some(code) => format!("ended with status {code}"),
            None => "ended".into(),
        };
        Death { state: State::DeviceLost, what }
    }
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

/// The numbers that Linux and macOS share.
fn meaning(signal: i32) -> &'static str {
    match signal {
        4 => "SIGILL, an instruction this processor lacks",
        6 => "SIGABRT, it gave up",
        8 => "SIGFPE, an impossible integer division",
        9 => "SIGKILL, ended from outside",
        11 => "SIGSEGV, memory that is not its own",
        15 => "SIGTERM, ended from outside",
        7 | 10 => "SIGBUS, memory that is not there",
        _ => "unexpected",
    }
}

/// Processes that the system has killed for memory so far; absent where it does not count them.
pub(super) fn memory_kills() -> Option<u64> {
    let counters = std::fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// The last line of what a child wrote to standard error that says something, short and without paths.
pub(super) fn last_words(tail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(tail);
    let noise = |line: &&str| !line.is_empty() && !line.starts_with("note: ") && !line.starts_with("stack backtrace");
    let lines: Vec<&str> = text.lines().map(str::trim).filter(noise).collect();
    // A Rust panic says where on one line and why on the next ones.
    let from = lines.iter().rposition(|line| line.contains("panicked at")).map_or(lines.len().saturating_sub(1), |at| at + 1);
    let line = lines.get(from).or(lines.last())?;
    let words: Vec<String> = line.split_whitespace().map(without_folder).collect();
    let said: String = words.join(" ").chars().filter(|c| !c.is_control()).take(200).collect();
    Some(said)
}

/// A word with every folder of an absolute path left out: records name no path of the machine they come from.
fn without_folder(word: &str) -> String {
    let absolute = word.find('/').filter(|&at| !word[..at].chars().any(|c| c.is_alphanumeric() || c == '.'));
    match absolute {
        Some(at) if word[at..].matches('/').count() > 1 => {
            let name = word.rsplit('/').find(|part| !part.is_empty()).unwrap_or("");
            format!("{}…/{name}", &word[..at])
        }
        _ => word.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_kill_counts_as_want_of_memory_only_where_the_system_counted_one() {
        use std::os::unix::process::ExitStatusExt;
        let of = |raw, memory| Death::of(Some(ExitStatus::from_raw(raw)), memory);
        assert_eq!(of(9, true).state, State::OutOfMemory);
        assert!(of(9, true).what.contains("want of memory; choose a smaller problem"));
        assert_eq!((of(9, false).state, of(11, true).state), (State::DeviceLost, State::DeviceLost));
        assert_eq!(of(9, false).what, "died of signal 9 (SIGKILL, ended from outside)");
        assert_eq!(of(7 << 8, false).what, "ended with status 7");
        assert_eq!(Death::of(None, false).state, State::DeviceLost);
    }

    #[test]
    fn last_words_are_the_reason_of_a_panic_and_name_no_folder() {
        let panic =
            b"driver: hello\n\nthread 'main' panicked at /home/someone/x.rs:3:5:\nno file (/home/someone/data.bin): gone\nnote: run with\n";
        assert_eq!(last_words(panic).as_deref(), Some("no file (…/data.bin): gone"));
        assert_eq!(last_words(b"a\nMESA: error in 3/4 of /usr/lib/libx.so\n\n").as_deref(), Some("MESA: error in 3/4 of …/libx.so"));
        assert_eq!(last_words(b" \n\n"), None);
        assert_eq!(last_words(&[0xff, 0xfe, b'\n']).map(|words| words.chars().count()), Some(2));
    }
}
