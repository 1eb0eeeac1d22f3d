//! Reads record files that were cut, come from a newer version, or were never ours, and says which line and field is wrong.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::{Ceiling, End, Header, Measurement, Record, Schema, Skip, State, tracked, versions};
use crate::error::{Error, Result};

/// Largest file that is read.
pub const LARGEST: u64 = 64 << 20;
/// Longest line: parsed JSON takes up to sixteen times its text in memory.
const LONGEST: usize = 8 << 20;
/// The field that names a record's kind.
const TAG: &str = "record";

/// A file's records.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// All records that this program knows, in order; the first is the header.
    pub records: Vec<Record>,
    /// Lines of kinds that this program does not know, and their numbers.
    pub aside: Vec<(usize, Value)>,
    /// What is odd but not wrong: a run that did not end, a last line that was cut, a newer version.
    pub warnings: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// [`Error::BadFile`], which names line and field, for a file that cannot be read, is too large, comes from a newer major version
/// or contradicts itself.
pub fn read(path: &Path) -> Result<File> {
    let name = path.display().to_string();
    let refused = |why: String| Error::BadFile { path: name.clone(), why };
    let unreadable = |e: std::io::Error| refused(format!("cannot be read: {e}; check the name"));
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // Not by its metadata: a device or a pipe has no length.
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    parse(&name, &bytes)
}

/// Reads a file's contents; `name` is for messages.
///
/// # Errors
/// As [`read`].
pub fn parse(name: &str, bytes: &[u8]) -> Result<File> {
    read_all(bytes).map_err(|why| Error::BadFile { path: name.into(), why })
}

fn read_all(bytes: &[u8]) -> Result<File, String> {
    if bytes.len() as u64 > LARGEST {
        return Err(format!("is larger than {} MiB; no run writes that much", LARGEST >> 20));
    }
    let mut reader = Reader::default();
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let lines = bytes.split_inclusive(|&b| b == b'\n');
    for (number, line) in (1..).zip(lines) {
        let whole = line.ends_with(b"\n");
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match reader.line(number, line) {
            Ok(()) if !whole => reader.warn(format!("line {number}: the last line has no end, but is whole")),
            Ok(()) => {}
            // A power cut may leave zeros behind the last record, a kill half a line.
            Err(Refusal::Syntax(_)) if (!whole || line.starts_with(b"\0")) && reader.schema.is_some() => {
                reader.warn(format!("line {number}: the last line is cut and was left out"));
                break;
            }
            Err(Refusal::Syntax(why) | Refusal::Sense(why)) => return Err(format!("line {number}: {why}")),
        }
    }
    reader.finish()
}

/// Why a line is refused.
enum Refusal {
    /// It is no JSON: the file may have been cut here.
    Syntax(String),
    /// It is JSON, but not a record that fits here.
    Sense(String),
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    schema: Option<Schema>,
    records: Vec<Record>,
    aside: Vec<(usize, Value)>,
    warnings: Vec<String>,
    /// Line of each id.
    ids: HashMap<String, usize>,
    /// Ids of measurements that were put aside: ceilings may stand on them.
    aside_ids: Vec<String>,
    /// Line and ids of each ceiling.
    wanted: Vec<(usize, String, Vec<String>)>,
    /// Lines of each kind.
    counts: [u64; 3],
    /// Line of the end.
    end: Option<(usize, End)>,
}

impl Reader {
    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn line(&mut self, number: usize, line: &[u8]) -> Result<(), Refusal> {
        use Refusal::{Sense, Syntax};
        if line.len() > LONGEST {
            return Err(Sense(format!("is longer than {} MiB; no run writes that much", LONGEST >> 20)));
        }
        let value = tracked::parse(line).map_err(|e| match e.duplicate {
            true => Sense(e.what),
            false => Syntax(format!("is not JSON: {}", e.what)),
        })?;
        self.value(number, value).map_err(Sense)
    }

    fn value(&mut self, number: usize, value: Value) -> Result<(), String> {
        let kind = value.get(TAG).and_then(Value::as_str).ok_or("field 'record' is missing; this is no rooftrace record")?.to_string();
        if let Some((end, _)) = self.end {
            return Err(format!("stands after the end in line {end}"));
        }
        match (&self.schema, kind == "header") {
            (None, false) => return Err(format!("the first record must be 'header', not '{}'", kind.escape_debug())),
            (Some(_), true) => return Err("is a second header; one file holds one run".into()),
            (None, true) => {
                let schema = versions::readable(&value)?;
                if schema.minor > Schema::current().minor {
                    self.warn(format!("comes from version {}.{}; what is new there is kept, not shown", schema.major, schema.minor));
                }
                self.schema = Some(schema);
            }
            (Some(_), false) => {}
        }
        if let Some(at) = ["measurement", "ceiling", "skip"].iter().position(|&known| known == kind) {
            self.counts[at] += 1;
        }
        let newer = self.schema.as_ref().is_some_and(|s| s.minor > Schema::current().minor);
        match typed(&value) {
            Ok(Some(record)) => self.record(number, record),
            Ok(None) => {
                self.warn(format!("line {number}: records of kind '{}' are unknown and were put aside", kind.escape_debug()));
                self.aside.push((number, value));
                Ok(())
            }
            // A newer version may know values that this one does not, such as another precision.
            Err(why) if newer && kind != "header" => {
                self.warn(format!("line {number}: {why}; the line was put aside"));
                self.aside_ids.extend(value.get("id").and_then(Value::as_str).map(String::from));
                self.aside.push((number, value));
                Ok(())
            }
            Err(why) => Err(why),
        }
    }

    fn record(&mut self, number: usize, record: Record) -> Result<(), String> {
        let id = match &record {
            Record::Measurement(m) => {
                consistent(m)?;
                Some(&m.id)
            }
            Record::Ceiling(c) => {
                self.wanted.push((number, c.id.clone(), c.from.clone()));
                Some(&c.id)
            }
            Record::Skip(s) => Some(&s.id),
            Record::End(end) => {
                self.end = Some((number, end.clone()));
                None
            }
            Record::Header(_) => None,
        };
        if let Some(id) = id
            && let Some(first) = self.ids.insert(id.clone(), number)
        {
            return Err(format!("field 'id': '{}' stands in line {first} already", id.escape_debug()));
        }
        self.records.push(record);
        Ok(())
    }

    fn finish(mut self) -> Result<File, String> {
        if self.schema.is_none() {
            return Err("holds no record; a rooftrace file starts with a header".into());
        }
        let measured = |r: &Record| if let Record::Measurement(m) = r { Some(m.id.clone()) } else { None };
        let known: std::collections::HashSet<String> = self.records.iter().filter_map(measured).chain(self.aside_ids.drain(..)).collect();
        for (number, ceiling, from) in &self.wanted {
            if let Some(missing) = from.iter().find(|id| !known.contains(*id)) {
                return Err(format!(
                    "line {number}: field 'from': ceiling '{}' stands on measurement '{}', which is not in the file",
                    ceiling.escape_debug(),
                    missing.escape_debug()
                ));
            }
        }
        match &self.end {
            None => self.warn("the file is incomplete: its run did not end".into()),
            Some((number, end)) => {
                let said = [end.measurements, end.ceilings, end.skips];
                if said != self.counts {
                    return Err(format!(
                        "line {number}: the end counts {said:?} measurements, ceilings and skips, and the file has {:?}",
                        self.counts
                    ));
                }
            }
        }
        Ok(File { records: self.records, aside: self.aside, warnings: self.warnings })
    }
}

/// What must hold between the fields of a measurement.
fn consistent(m: &Measurement) -> Result<(), String> {
    let verified = matches!(m.state, State::Ok | State::Suspect | State::PowerLimited);
    if verified && m.verification.is_none() {
        return Err("field 'verification' is missing, and the state says that it was verified".into());
    }
    if m.samples_ns.len() != m.wall_ns.len() {
        return Err(format!("field 'wall_ns' has {} values for {} samples", m.wall_ns.len(), m.samples_ns.len()));
    }
    if !m.samples_ns.is_empty() && m.launches == 0 {
        return Err("field 'launches' is 0, and there are samples".into());
    }
    if let Some(energy) = &m.energy {
        let counts = [("launches", energy.launches), ("wall_ns", energy.wall_ns), ("uj", energy.uj), ("updates", energy.updates)];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(format!("field 'energy.{name}' is 0; energy that is not known is left out"));
        }
    }
    Ok(())
}

/// A line as the record that its kind says; none for a kind that this program does not know.
pub(super) fn typed(value: &Value) -> Result<Option<Record>, String> {
    let kind = value.get(TAG).and_then(Value::as_str).unwrap_or_default();
    Ok(Some(match kind {
        "header" => Record::Header(tracked::from_value::<Header>(value, TAG)?),
        "measurement" => Record::Measurement(tracked::from_value::<Measurement>(value, TAG)?),
        "ceiling" => Record::Ceiling(tracked::from_value::<Ceiling>(value, TAG)?),
        "skip" => Record::Skip(tracked::from_value::<Skip>(value, TAG)?),
        "end" => Record::End(tracked::from_value::<End>(value, TAG)?),
        _ => return Ok(None),
    }))
}
