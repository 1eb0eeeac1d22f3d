//! What a script says, as it stands in its JSON.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::VARIABLE;
use super::battery::Battery;
use super::fault::Fault;
use super::model::{Ease, Speed};
use crate::backend::Vitals;
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, DeviceKind, Language, Limits, Precision};

/// Everything that can be scripted; what is left out is that of a healthy device.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Fields of [`DeviceInfo`] to replace, by their names.
    pub device: Map<String, Value>,
    /// How fast it is.
    pub speed: Speed,
    /// How its clocks behave.
    pub clock: Timing,
    /// Speed over the samples since it was opened: throttling and drift.
    pub pace: Vec<Pace>,
    /// Whether `pace` is interpolated between its points instead of stepping.
    pub ramp: bool,
    /// Kernels that do not reach the model's time; the first that matches counts.
    pub ease: Vec<Ease>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Seed of the noise.
    pub seed: u32,
    /// What it says of itself, one after the other; the last again and again.
    pub vitals: Vec<Vitals>,
    /// Its energy; without it there is no counter.
    pub energy: Option<Battery>,
}

/// From sample `after` on, times are multiplied by `factor`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Samples since the device was opened.
    pub after: u64,
    /// 1 is full speed; 1.25 takes a quarter longer.
    pub factor: f64,
}

/// How the device's own clock behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClock {
    /// It tells the truth.
    #[default]
    True,
    /// There is none.
    Absent,
    /// It always says 0.
    Zero,
    /// Its two timestamps are out of step: every other difference is negative and saturates at 0.
    Negative,
    /// Its differences wrap around: far more than any wall time.
    Wrapping,
    /// It says twice the wall time.
    AboveWall,
    /// It says the time of one launch, however many there were.
    Constant,
    /// Its period is wrong: it says half of the truth.
    Half,
}

/// How the clocks behave.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// The device's own clock.
    pub device: DeviceClock,
    /// Smallest step of the device clock in nanoseconds.
    pub step_ns: u64,
    /// Smallest step of the wall clock in nanoseconds.
    pub wall_step_ns: u64,
    /// What wall time adds to a sample, in nanoseconds.
    pub submit_ns: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing { device: DeviceClock::True, step_ns: 10, wall_step_ns: 20, submit_ns: 5_000 }
    }
}

impl Script {
    /// Reads a script: JSON, or the name of a file that holds it.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the file or the place in the text.
    pub fn read(text: &str) -> Result<Script> {
        let inline = text.trim_start().starts_with('{');
        let text = match inline {
            true => text.to_string(),
            false => std::fs::read_to_string(text)
                .map_err(|e| Error::usage(format!("{VARIABLE} names '{text}', which cannot be read: {e}; write JSON or a file name")))?,
        };
        let script: Script = serde_json::from_str(&text).map_err(|e| Error::usage(format!("{VARIABLE} is not a script: {e}")))?;
        script.speed.check()?;
        Ok(script)
    }

    /// The device, with the script's fields over those of a healthy one.
    ///
    /// # Errors
    /// [`Error::Usage`] for a field that does not exist or has the wrong type.
    pub fn device(&self) -> Result<DeviceInfo> {
        let refused = |why: String| Error::usage(format!("{VARIABLE}: device: {why}"));
        let mut fields = serde_json::to_value(healthy()).map_err(|e| refused(e.to_string()))?;
        if let Value::Object(known) = &mut fields {
            for (name, value) in &self.device {
                match (known.get_mut(name), value) {
                    // Limits are a table of their own; naming one of them leaves the others.
                    (Some(Value::Object(into)), Value::Object(from)) => into.extend(from.clone()),
                    (Some(into), _) => *into = value.clone(),
                    (None, _) => return Err(refused(format!("there is no field '{name}'"))),
                }
            }
        }
        let info: DeviceInfo = serde_json::from_value(fields).map_err(|e| refused(e.to_string()))?;
        // A script may dress the device up, never pass it off as a real one.
        let fixed = healthy();
        Ok(DeviceInfo { id: fixed.id, backend: fixed.backend, language: fixed.language, simulated: true, ..info })
    }
}

fn healthy() -> DeviceInfo {
    DeviceInfo {
        id: "fake".into(),
        backend: "fake".into(),
        name: "Fake 8".into(),
        kind: DeviceKind::Gpu,
        driver: "scripted".into(),
        compute_units: 8,
        caches: vec![(1, 256 << 10), (2, 4 << 20)],
        memory_bytes: 4 << 30,
        precisions: vec![Precision::F32, Precision::F64],
        features: Vec::new(),
        language: Language::Host,
        limits: Limits { binding_bytes: 1 << 30, grid: 65_535, block: 1024, shared_bytes: 48 << 10, launch_ns: None, loop_trips: None },
        simulated: true,
        sensors: None,
    }
}
