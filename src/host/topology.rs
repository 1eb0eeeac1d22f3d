//! Which CPUs this process may use, what they are and which caches they have.
//!
//! Linux tells through `sched_getaffinity`, `/proc` and `/sys`; elsewhere only the number of threads is known.

use std::collections::BTreeSet;
use std::fs;

/// CPUs that this process may run on: those of its affinity mask, no more of them than `available_parallelism` (which knows of
/// control-group quotas). Empty where the system does not number them.
#[cfg(target_os = "linux")]
pub(crate) fn cpus() -> Vec<usize> {
    let Some(mask) = affinity() else { return Vec::new() };
    // SAFETY: `CPU_ISSET` reads within the fixed size of the set.
    let allowed = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &mask) });
    let quota = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    allowed.take(quota).collect()
}

/// See above.
#[cfg(not(target_os = "linux"))]
pub(crate) fn cpus() -> Vec<usize> {
    Vec::new()
}

/// Threads that can run at once.
pub(crate) fn workers() -> usize {
    match cpus().len() {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    }
}

/// Memory nodes of the machine; one where the system does not tell of several.
pub(crate) fn nodes() -> usize {
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok());
    let nodes = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    nodes.filter(|entry| entry.file_name().to_str().is_some_and(is_node)).count().max(1)
}

/// The calling thread's affinity mask.
#[cfg(target_os = "linux")]
pub(crate) fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: an all-zero `cpu_set_t` is a valid empty set.
    let mut mask: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size given.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut mask) };
    (status == 0).then_some(mask)
}

/// Sets the calling thread's affinity mask; whether that worked.
#[cfg(target_os = "linux")]
pub(crate) fn set_affinity(mask: &libc::cpu_set_t) -> bool {
    // SAFETY: the kernel reads at most the size given.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), mask) == 0 }
}

/// A mask of one CPU.
#[cfg(target_os = "linux")]
pub(crate) fn only(cpu: usize) -> libc::cpu_set_t {
    // SAFETY: an all-zero `cpu_set_t` is a valid empty set.
    let mut mask: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `CPU_SET` writes within the fixed size of the set; `cpu` came from such a set.
    unsafe { libc::CPU_SET(cpu, &mut mask) };
    mask
}

/// The processor's name as the system gives it.
pub(crate) fn processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        let value = line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" ");
        (!value.is_empty()).then_some(value)
    };
    field("model name")
        .or_else(|| field("Hardware"))
        .or_else(|| field("Model"))
        .unwrap_or_else(|| format!("{} CPU", std::env::consts::ARCH))
}

/// Data and unified caches of the CPUs used: level and total bytes, a cache that several share counted once.
pub(crate) fn caches() -> Vec<(u32, u64)> {
    let mut seen = BTreeSet::new();
    let mut levels: Vec<(u32, u64)> = Vec::new();
    for cpu in cpus() {
        for index in 0..16 {
            let folder = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}");
            let field = |name: &str| fs::read_to_string(format!("{folder}/{name}")).map(|text| text.trim().to_string()).ok();
            let (Some(level), Some(kind), Some(size)) = (field("level"), field("type"), field("size")) else { break };
            let (Ok(level), Some(size)) = (level.parse::<u32>(), capacity(&size)) else { continue };
            let shared = field("shared_cpu_list").unwrap_or_else(|| cpu.to_string());
            if kind == "Instruction" || !seen.insert((level, kind, shared)) {
                continue;
            }
            match levels.iter_mut().find(|(known, _)| *known == level) {
                Some((_, bytes)) => *bytes += size,
                None => levels.push((level, size)),
            }
        }
    }
    levels.sort_unstable();
    levels
}

/// `512K`, `32M` or plain bytes.
fn capacity(text: &str) -> Option<u64> {
    let (digits, scale) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

/// Bytes that can be allocated without swapping; absent where the system does not tell.
pub(crate) fn available_memory() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_sizes_are_read_in_binary_units() {
        assert_eq!(capacity("32K"), Some(32 << 10));
        assert_eq!(capacity("32M"), Some(32 << 20));
        assert_eq!(capacity("4096"), Some(4096));
        assert_eq!(capacity("much"), None);
    }

    #[test]
    fn there_is_at_least_one_worker_and_a_name() {
        assert!(workers() >= 1);
        assert!(!processor().is_empty());
    }
}
