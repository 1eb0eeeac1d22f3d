//! `rooftrace devices`: what can be measured here, what cannot, and why.

use serde_json::json;

use super::output;
use crate::backend::{self, Found};
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, DeviceKind, Library, Sensors};
use crate::units::Capacity;

/// What has never run on a GPU as it is now: a backend, an op and its variants a line. Made from the registry and the committed records.
const NEVER_RUN: &str = include_str!("never_run.txt");

/// Lists devices.
pub fn run(json: bool) -> Result<i32> {
    let found = backend::devices();
    if json {
        let list = found.iter().map(|found| match found {
            Found::Device(device) => json!({ "device": device }),
            Found::Absent(why) => json!({ "absent": why.to_string() }),
        });
        return output::print(&format!("{:#}\n", serde_json::Value::Array(list.collect())));
    }
    let lines: Vec<String> = found.iter().map(line).collect();
    output::print(&lines.join("\n"))?;
    output::print("\n")
}

fn line(found: &Found) -> String {
    match found {
        Found::Device(device) if device.kind == DeviceKind::Gpu => describe(device) + &unproven(&device.backend),
        Found::Device(device) => describe(device),
        Found::Absent(why) => format!("-         {why}"),
    }
}

/// Kernels of a backend that are compiled and tested, but have not yet run on a GPU, in a line of its own.
fn unproven(backend: &str) -> String {
    let ops: Vec<_> = NEVER_RUN.lines().filter_map(|line| line.strip_prefix(backend)).map(str::trim).collect();
    if ops.is_empty() { String::new() } else { format!("\n          compiled, not yet run on a GPU as they are now: {}", ops.join("; ")) }
}

/// One device in two lines, or three.
pub fn describe(device: &DeviceInfo) -> String {
    let precisions: Vec<_> = device.precisions.iter().map(|p| p.name()).collect();
    let caches: Vec<_> = device.caches.iter().map(|(level, bytes)| format!("L{level} {}", Capacity(*bytes))).collect();
    let software =
        if device.kind == DeviceKind::Cpu && device.backend == "wgpu" { " (software: plumbing, not GPU performance)" } else { "" };
    format!(
        "{:<9} {}{software}\n          {} units, {} usable, {}, {}{}",
        device.id,
        device.name,
        device.compute_units,
        Capacity(device.memory_bytes),
        precisions.join(" "),
        device.driver,
        if caches.is_empty() { String::new() } else { format!(", {}", caches.join(", ")) },
    ) + &device.sensors.as_ref().map_or(String::new(), sensors)
}

/// What tells of its state, or why nothing does, in a line of its own.
fn sensors(sensors: &Sensors) -> String {
    let driver = sensors.driver.as_ref().map(|driver| format!("driver {driver}"));
    let limit = sensors.power_limit_mw.map(|mw| format!("{:.0} W at most", mw as f64 / 1e3));
    let absent = sensors.absent.as_ref().map(|why| format!("clocks, power and energy are not read: {why}"));
    let told: Vec<String> = [driver, limit, absent].into_iter().flatten().collect();
    if told.is_empty() { String::new() } else { format!("\n          {}", told.join(", ")) }
}

/// The devices a command runs on: the selector's, all, or the best one.
///
/// # Errors
/// [`Error::Unavailable`] where a required backend has no device or a required library is missing; the backend's own where the selector cannot be opened.
pub fn choose(selector: Option<&str>, required: &[String]) -> Result<Vec<String>> {
    // Looking for devices loads drivers: not for nothing.
    let all = std::cell::LazyCell::new(backend::devices);
    for library in required.iter().filter_map(|name| Library::find(name)) {
        if let Some(why) = backend::absent(library) {
            return Err(why);
        }
    }
    for backend in required.iter().filter(|name| Library::find(name).is_none()) {
        let there = |f: &Found| matches!(f, Found::Device(d) if d.backend == *backend);
        if backend != "fake" && !all.iter().any(there) {
            return Err(missing(backend, &all));
        }
    }
    match selector {
        Some("all") => Ok(all.iter().filter_map(id).collect()),
        Some(selector) => Ok(vec![if selector.contains(':') || selector == "host" || selector == "fake" {
            selector.into()
        } else {
            format!("{selector}:0")
        }]),
        None => {
            let best = all.iter().find_map(|f| match f {
                Found::Device(d) if d.backend == "host" || d.kind == DeviceKind::Gpu => Some(d.id.clone()),
                _ => None,
            });
            Ok(best.into_iter().collect())
        }
    }
}

fn id(found: &Found) -> Option<String> {
    match found {
        Found::Device(device) => Some(device.id.clone()),
        Found::Absent(_) => None,
    }
}

/// The error for a required backend without a device: the backend's own reason and way out, where it gives them.
fn missing(required: &str, all: &[Found]) -> Error {
    let own = all.iter().find_map(|found| match found {
        Found::Absent(Error::Unavailable { backend, why, remedy }) if backend == required => Some((why.as_str(), remedy.clone())),
        _ => None,
    });
    let (why, remedy) = own.unwrap_or_else(|| ("no device was found", "leave out --require to go on without it".into()));
    Error::Unavailable { backend: required.into(), why: format!("it is required, and {why}"), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_backend_that_is_absent_is_one_sentence_with_one_way_out() {
        let (why, remedy) = ("its driver is not installed".into(), "install it".into());
        let found = [Found::Absent(Error::Unavailable { backend: "cuda".into(), why, remedy })];
        let said = missing("cuda", &found).to_string();
        assert_eq!(said, "cuda is not available: it is required, and its driver is not installed; install it");
        let said = missing("wgpu", &found).to_string();
        assert_eq!(said, "wgpu is not available: it is required, and no device was found; leave out --require to go on without it");
    }

    #[test]
    fn what_never_ran_is_told_by_backend() {
        let cuda = unproven("cuda");
        assert!(cuda.lines().count() <= 2 && (cuda.is_empty() || cuda.contains("not yet run")), "{cuda}");
        assert!(NEVER_RUN.lines().all(|line| line.starts_with("cuda ") || line.starts_with("wgpu ")), "{NEVER_RUN}");
        assert_eq!(unproven("host"), "");
    }
}
