//! `rooftrace study`: a named question, answered by measuring.

use std::path::Path;

use super::run::{self, Mode};
use super::{Measuring, Scoping, Shape, Studying, output};
use crate::campaign::{roof_time, taken_over};
use crate::error::{Error, Result};
use crate::plan::DeviceInfo;
use crate::record::{self, Record};
use crate::study::{self, STUDIES, Study};

/// Roofs older than this many seconds are not taken unasked: a device may have another driver or neighbour by then.
const FRESH: u64 = 24 * 60 * 60;

/// A study, and the file whose roof it is to use.
pub struct Asked {
    /// The study.
    pub study: &'static Study,
    roof: Option<(String, Vec<Record>)>,
}

/// A roof from another file; without records it is traced.
#[derive(Default)]
pub struct Taken {
    pub records: Vec<Record>,
    /// When it was measured, in seconds since 1970.
    pub started: Option<u64>,
}

/// Lists the studies, or runs one.
pub fn run(args: &Studying) -> Result<i32> {
    let Some(name) = &args.name else {
        let line = |study: &Study| format!("{:<12} {}\n", study.name, study.question);
        return output::print(&STUDIES.iter().map(line).collect::<String>());
    };
    let study = study::find(name)?;
    let read = |path: &std::path::PathBuf| Ok::<_, Error>((path.display().to_string(), record::read(path)?.records));
    let asked = Asked { study, roof: args.roof.as_ref().map(read).transpose()? };
    let scope = Scoping { common: args.common.clone(), op: Vec::new(), variant: Vec::new(), precision: Vec::new() };
    run::run(
        &Measuring { scope, keeping: args.keeping.clone(), costing: args.costing.clone(), shape: Shape::default() },
        Mode::Study(&asked),
    )
}

impl Asked {
    /// The roof of the file that was named; else that of the last run in this folder, if it is fresh; else none.
    ///
    /// # Errors
    /// [`Error::BadFile`] where the named file has no roof for this.
    pub fn roof(&self, device: &DeviceInfo) -> Result<Taken> {
        if let Some((path, records)) = &self.roof {
            let taken = taken_over(records, self.study, device).map_err(|why| Error::BadFile { path: path.clone(), why })?;
            return Ok(Taken { records: taken, started: started(records) });
        }
        let mut latest = Taken::default();
        for records in recorded(Path::new("rooftrace-out")) {
            let (Some(time), Ok(taken)) = (started(&records), taken_over(&records, self.study, device)) else { continue };
            if output::now().saturating_sub(time) < FRESH && latest.started.is_none_or(|latest| time > latest) {
                latest = Taken { records: taken, started: Some(time) };
            }
        }
        Ok(latest)
    }
}

fn started(records: &[Record]) -> Option<u64> {
    records.iter().find_map(|record| if let Record::Header(header) = record { Some(roof_time(header)) } else { None })
}

/// Records of all runs in a folder; what cannot be read is none.
fn recorded(folder: &Path) -> Vec<Vec<Record>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| record::read(&entry.path().join("records.jsonl")).ok()).map(|file| file.records).collect()
}
