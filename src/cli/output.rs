//! Standard output, folders and the time of day.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Where runs go that name no folder, and where their roofs are looked for.
pub const DEFAULT: &str = "rooftrace-out";

/// Prints to standard output. A closed pipe (`| head`) is no error.
pub fn print(text: &str) -> Result<i32> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Io { action: "write", path: "standard output".into(), source: error })
        }
        _ => Ok(0),
    }
}

/// Whether to colour standard output: a terminal, and no `NO_COLOR`.
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Columns of the terminal, or 120 where there is none.
pub fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let terminal = || terminal_size::terminal_size().map(|(width, _)| width.0 as usize);
    columns.or_else(terminal).unwrap_or(120).clamp(60, 240)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `2026-11-22T0736` in UTC, by the days-from-civil algorithm (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let ordinal = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * ordinal + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}T{:02}{:02}", ordinal - (153 * shifted + 2) / 5 + 1, rest / 3600, rest / 60 % 60)
}

/// The folder of a run, made. One that was named and already holds records is refused: nothing measured is ever lost.
pub fn folder(wanted: Option<&Path>, device: &str, several: bool) -> Result<PathBuf> {
    let slug = device.replace(':', "-");
    let folder = match wanted {
        Some(wanted) if several => wanted.join(slug),
        Some(wanted) => wanted.to_path_buf(),
        None => return fresh(&Path::new(DEFAULT).join(format!("{slug}-{}", stamp(now())))),
    };
    std::fs::create_dir_all(&folder).map_err(|source| not_made(&folder, source))?;
    let records = folder.join("records.jsonl");
    if records.exists() {
        return Err(Error::usage(format!(
            "{} is already there; choose another folder with --out, nothing measured is overwritten",
            records.display()
        )));
    }
    Ok(folder)
}

/// This folder, or the first of `…-2`, `…-3` that is not there yet: runs of one minute have one stamp.
fn fresh(folder: &Path) -> Result<PathBuf> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(|source| not_made(parent, source))?;
    }
    let mut made = folder.to_path_buf();
    for number in 2u32.. {
        match std::fs::create_dir(&made) {
            Err(taken) if taken.kind() == std::io::ErrorKind::AlreadyExists => made = suffixed(folder, number),
            done => return done.map(|()| made.clone()).map_err(|source| not_made(&made, source)),
        }
    }
    Ok(made)
}

fn suffixed(folder: &Path, number: u32) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(format!("-{number}"));
    name.into()
}

fn not_made(folder: &Path, source: std::io::Error) -> Error {
    Error::Io { action: "create", path: folder.display().to_string(), source }
}

/// Writes a file aside and renames it into place.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |source| Error::Io { action: "write", path: path.display().to_string(), source };
    let aside = path.with_extension("part");
    std::fs::write(&aside, text).map_err(failed)?;
    std::fs::rename(&aside, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_one_minute_are_numbered() {
        let parent = std::env::temp_dir().join(format!("rooftrace-folders-{}", std::process::id()));
        let wanted = parent.join("host-2026-11-22T0736");
        let made: Vec<_> = (0..3).map(|_| fresh(&wanted).expect("a folder")).collect();
        assert!(made.iter().all(|folder| folder.is_dir()));
        std::fs::remove_dir_all(&parent).expect("it is ours");
        let names = made.iter().map(|folder| folder.file_name().expect("a name").to_string_lossy().to_string());
        let ends = ["", "-2", "-3"].map(|end| format!("host-2026-11-22T0736{end}"));
        assert_eq!(names.collect::<Vec<_>>(), ends);
    }

    #[test]
    fn stamps_are_utc_calendar_dates() {
        assert_eq!(stamp(0), "1970-01-01T0000");
        assert_eq!(stamp(951_782_400), "2000-02-29T0000");
        assert_eq!(stamp(1_795_332_960), "2026-11-22T0736");
    }
}
