//! A roof that an earlier run recorded, for `study` and `try`: from the file that was named, or that of the last run here.

use std::path::{Path, PathBuf};

use super::output;
use crate::campaign::{roof_time, taken_over};
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, Precision};
use crate::record::{self, Record};

/// Roofs older than this many seconds are not taken unasked: a device may have another driver or neighbour by then.
const FRESH: u64 = 24 * 60 * 60;

/// The file that was named, if one was.
pub struct Named(Option<(String, Vec<Record>)>);

/// A roof from another file; without records it is to be traced.
#[derive(Default)]
pub struct Taken {
    pub records: Vec<Record>,
    /// The file.
    pub path: String,
    /// When it was measured, in seconds since 1970.
    pub started: Option<u64>,
}

impl Named {
    /// Reads it.
    ///
    /// # Errors
    /// [`Error::BadFile`].
    pub fn read(path: Option<&PathBuf>) -> Result<Self> {
        let read = |path: &PathBuf| Ok::<_, Error>((path.display().to_string(), record::read(path)?.records));
        Ok(Named(path.map(read).transpose()?))
    }

    /// The roof of the file that was named; else that of the last run in this folder, if it is fresh; else none.
    ///
    /// # Errors
    /// [`Error::BadFile`] where the named file has no roof of DRAM and these precisions on this device.
    pub fn roof(&self, precisions: &[Precision], device: &DeviceInfo) -> Result<Taken> {
        if let Some((path, records)) = &self.0 {
            let taken = taken_over(records, precisions, device).map_err(|why| Error::BadFile { path: path.clone(), why })?;
            return Ok(Taken { records: taken, path: path.clone(), started: started(records) });
        }
        let mut latest = Taken::default();
        for (path, records) in recorded(Path::new(output::DEFAULT)) {
            let (Some(time), Ok(taken)) = (started(&records), taken_over(&records, precisions, device)) else { continue };
            if output::now().saturating_sub(time) < FRESH && latest.started.is_none_or(|latest| time > latest) {
                latest = Taken { records: taken, path: path.display().to_string(), started: Some(time) };
            }
        }
        Ok(latest)
    }
}

impl Taken {
    /// Where it is from; or where none was found, and what is done about it.
    pub fn told(&self) -> String {
        match self.records.is_empty() {
            true => format!(
                "no roof of this device from the last day under {}, so it is traced; --roof FILE takes one from elsewhere",
                output::DEFAULT
            ),
            false => format!("the roof is that of {}", self.path),
        }
    }
}

fn started(records: &[Record]) -> Option<u64> {
    records.iter().find_map(|record| if let Record::Header(header) = record { Some(roof_time(header)) } else { None })
}

/// Files of all runs in a folder, with their records; what cannot be read is none.
fn recorded(folder: &Path) -> Vec<(PathBuf, Vec<Record>)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path().join("records.jsonl"));
    files.filter_map(|path| record::read(&path).ok().map(|file| (path, file.records))).collect()
}
