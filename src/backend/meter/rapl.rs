//! RAPL, the energy counters of x86 processors, as Linux shows them under `/sys/class/powercap`: a folder for each domain with its
//! `name`, `energy_uj`, which wraps at `max_energy_range_uj`, and since Linux 5.10 no right to read for anybody but root
//! (Documentation/power/powercap; CVE-2020-8694). It counts whole packages, whoever uses them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Meter, Reading, Tally, unreadable};
use crate::error::{Error, Result};

/// Where Linux has the counters.
pub const ROOT: &str = "/sys/class/powercap";

/// The counters of all packages and their memory.
#[derive(Debug)]
pub struct Rapl {
    source: String,
    domains: Vec<Domain>,
    tally: Tally,
}

/// One counter.
#[derive(Debug)]
struct Domain {
    name: String,
    file: PathBuf,
    /// Where it wraps, in µJ, if the system tells.
    range: Option<u64>,
    last: u64,
}

impl Rapl {
    /// The counters below a folder: [`ROOT`], unless a test has its own.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is none, or none that may be read.
    pub fn open(root: &Path) -> Result<Self> {
        let mut folders: Vec<PathBuf> = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        folders.sort();
        let mut domains = Vec::new();
        for folder in folders {
            // `intel-rapl-mmio` counts the same packages once more.
            let named = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("intel-rapl:"));
            let name = fs::read_to_string(folder.join("name")).unwrap_or_default().trim().to_string();
            // Cores are part of their package, and the platform holds it.
            if named && (name.starts_with("package") || name == "dram") {
                domains.push(Domain::open(name, &folder)?);
            }
        }
        if domains.is_empty() {
            return Err(unreadable(
                "this system shows no RAPL counters (intel-rapl in /sys/class/powercap)",
                "measure on Linux on the machine itself, as virtual machines seldom pass them on",
            ));
        }
        let names: Vec<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
        Ok(Rapl { source: format!("RAPL: {}", names.join(", ")), domains, tally: Tally::new() })
    }
}

impl Domain {
    fn open(name: String, folder: &Path) -> Result<Self> {
        let range = fs::read_to_string(folder.join("max_energy_range_uj")).ok().and_then(|text| text.trim().parse().ok());
        let mut domain = Domain { name, file: folder.join("energy_uj"), range, last: 0 };
        domain.last = domain.now()?;
        Ok(domain)
    }

    fn now(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.file).map_err(|error| refused(&self.name, &error))?;
        text.trim().parse().map_err(|_| {
            let why = format!("RAPL's energy_uj of {} is no number", self.name);
            unreadable(why, "look at what the system says there")
        })
    }

    /// Microjoules since the last look.
    fn grown(&mut self) -> Result<u64> {
        let (now, last) = (self.now()?, self.last);
        self.last = now;
        match self.range {
            _ if now >= last => Ok(now - last),
            Some(range) if last <= range => Ok(range - last + now),
            _ => Err(unreadable(
                format!("RAPL's energy_uj of {} fell, and where it wraps is not told", self.name),
                "look whether the system gives max_energy_range_uj",
            )),
        }
    }
}

/// Why a counter cannot be read.
fn refused(name: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            unreadable("RAPL's energy_uj may be read by root alone", "run as root, or have root let you read it (chmod a+r)")
        }
        _ => unreadable(format!("RAPL's energy_uj of {name} cannot be read: {error}"), "run again, and look at it if this returns"),
    }
}

impl Meter for Rapl {
    fn source(&self) -> &str {
        &self.source
    }

    fn read(&mut self) -> Result<Reading> {
        let mut uj = 0;
        for domain in &mut self.domains {
            uj += domain.grown()?;
        }
        Ok(self.tally.add(uj, uj > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_for_root_alone_is_told_as_such() {
        let text = refused("package-0", &ErrorKind::PermissionDenied.into()).to_string();
        assert!(text.starts_with(super::super::UNREADABLE) && text.contains("root alone") && text.contains("run as root"), "{text}");
        let text = refused("dram", &ErrorKind::NotFound.into()).to_string();
        assert!(text.contains("of dram cannot be read") && !text.contains("root"), "{text}");
    }
}
