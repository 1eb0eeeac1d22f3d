//! The journal: every record is on disk, whole, before the next item starts.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Measurement, Record, reader};
use crate::error::{Error, Result};

/// An append-only file of records, one JSON object a line.
#[derive(Debug)]
pub struct Journal {
    file: fs::File,
    path: PathBuf,
    /// Bytes of whole lines.
    length: u64,
}

impl Journal {
    /// Starts a new file. One that is there already is never overwritten: it may hold measurements.
    ///
    /// # Errors
    /// [`Error::Io`] where the file exists and is not empty, or its folder cannot be written.
    pub fn create(path: &Path) -> Result<Journal> {
        let refused = |source| Error::Io { action: "create", path: path.display().to_string(), source };
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(refused)?;
        if file.metadata().map_err(refused)?.len() > 0 {
            return Err(refused(io::Error::new(io::ErrorKind::AlreadyExists, "it holds records already")));
        }
        Ok(Journal { file, path: path.to_path_buf(), length: 0 })
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one record and waits until the system has it on disk.
    ///
    /// # Errors
    /// [`Error::BadFile`] for a record that cannot be read back (a number that is not finite), [`Error::Io`] where it cannot be
    /// written, such as a full disk. Either way the file keeps the whole lines that it had.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = encode(record).map_err(|why| Error::BadFile { path: self.path.display().to_string(), why })?;
        line.push('\n');
        let refused = |source| Error::Io { action: "write", path: self.path.display().to_string(), source };
        let written = self.file.write_all(line.as_bytes()).and_then(|()| synced(&self.file));
        if let Err(source) = written {
            // A part of the line may be there: cut it off, so that a later record starts on a line of its own.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(refused(source));
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Data on disk, where the file has a disk: pipes and terminals refuse with "invalid".
fn synced(file: &fs::File) -> io::Result<()> {
    match file.sync_data() {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

/// A record as its line, without the line's end.
///
/// # Errors
/// Why it cannot be written, naming the field: JSON has no NaN and no infinity, so a line is read back before it counts.
pub fn encode(record: &Record) -> Result<String, String> {
    let line = serde_json::to_string(record).map_err(|e| e.to_string())?;
    let value: Value = serde_json::from_str(&line).map_err(|e| e.to_string())?;
    match reader::typed(&value) {
        Ok(Some(back)) if back == *record => Ok(line),
        Ok(_) => Err("a record reads back as another one; its numbers must be finite and its extra fields new".into()),
        Err(why) => Err(format!("a record cannot be written: {why}; its numbers must be finite")),
    }
}

/// Why a measurement cannot be written, if so; asked by the child, where a sentence can still name the item.
pub(crate) fn unwritable(measurement: &Measurement) -> Option<String> {
    encode(&Record::Measurement(measurement.clone())).err()
}
