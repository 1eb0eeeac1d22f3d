//! What only the operating system can do for the process that owns a device: keep its answers apart from what drivers print,
//! ignore the terminal's interrupt, tell how much memory it took, and end without running exit handlers that may hang.

use std::fs::File;
use std::io;
use std::sync::OnceLock;

/// The pipe that answers go through, once [`claim_stdout`] has taken it.
static ANSWERS: OnceLock<File> = OnceLock::new();

/// Takes standard output for answers alone: whatever a driver prints there from now on goes to standard error.
///
/// # Errors
/// The system's own, when no descriptor is free.
pub fn claim_stdout() -> io::Result<&'static File> {
    let kept = redirect()?;
    Ok(ANSWERS.get_or_init(|| kept))
}

/// The answer pipe, where this process has one.
pub fn answers() -> Option<&'static File> {
    ANSWERS.get()
}

#[cfg(unix)]
fn redirect() -> io::Result<File> {
    use std::os::fd::AsFd;
    let kept = io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: both descriptors are open for the life of the process; dup2 touches no memory.
    if unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(File::from(kept))
}

#[cfg(windows)]
fn redirect() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(File::from(io::stdout().as_handle().try_clone_to_owned()?))
}

/// Ignores the terminal's interrupt, which reaches the whole process group: the parent decides what becomes of its children.
pub fn ignore_interrupts() {
    #[cfg(unix)]
    // SAFETY: SIG_IGN is a valid disposition and no handler of ours is replaced.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
}

/// Forgets how much memory this process once had: from here on its high-water mark is that of now. Whether the system does that.
pub fn forget_peak() -> bool {
    // "5" stands for the mark of the resident set (proc_pid_clear_refs(5), Linux 4.0); elsewhere there is no such file.
    cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Gives free heap memory back to the system, so that what takes its place is seen to be taken.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that this process had in memory at most since [`forget_peak`], where the system says.
pub fn peak_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Ends the process at once: no destructor and no exit handler runs, since those of a hung driver may never return.
pub fn exit_now(status: i32) -> ! {
    #[cfg(unix)]
    // SAFETY: `_exit` takes any status and does not return.
    unsafe {
        libc::_exit(status)
    }
    #[cfg(not(unix))]
    std::process::exit(status)
}

/// Dies of a segmentation fault, for the fake device; Rust's own handler for stack overflows would swallow a mere `raise`.
pub fn segfault() -> ! {
    #[cfg(unix)]
    // SAFETY: the default disposition is restored first, so that the signal ends the process.
    unsafe {
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::raise(libc::SIGSEGV);
    }
    std::process::abort()
}
