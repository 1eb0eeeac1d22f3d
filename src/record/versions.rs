//! Which files this program can read: newer minor versions with what they add kept, newer majors not at all.

use serde_json::Value;

use super::Schema;

/// The version that a header states, or why the file is refused.
pub(super) fn readable(header: &Value) -> Result<Schema, String> {
    let current = Schema::current();
    let schema = header.get("schema").ok_or("field 'schema' is missing; this is no rooftrace file")?;
    let number = |field: &str| schema.get(field).and_then(Value::as_u64).ok_or(format!("field 'schema.{field}' is no count"));
    let (major, minor) = (number("major")?, number("minor")?);
    match schema.get("name").and_then(Value::as_str) {
        Some(name) if name == current.name => {}
        Some(name) => return Err(format!("field 'schema.name' is '{}', not '{}'", name.escape_debug(), current.name)),
        None => return Err("field 'schema.name' is no text".into()),
    }
    if major > current.major as u64 {
        return Err(format!(
            "the file has version {major}.{minor} and this program reads up to {}.x; use a newer rooftrace to read it",
            current.major
        ));
    }
    // There has been no older major so far; the first one that there is gets an upgrade here.
    if major < current.major as u64 {
        return Err(format!("the file has version {major}.{minor}, which was never released"));
    }
    let minor = u32::try_from(minor).map_err(|_| format!("field 'schema.minor' is {minor}, too large for a version"))?;
    Ok(Schema { name: current.name, major: current.major, minor })
}
