//! `rooftrace explain`: worked arithmetic for one problem; needs no device.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Explaining, output};
use crate::campaign::roof_time;
use crate::cost::Nominal;
use crate::error::{Error, Result};
use crate::explain::{Explanation, Peaks, explain};
use crate::op::{self, OpRole};
use crate::plan::Precision;
use crate::record::{self, Header};
use crate::report;
use crate::roofline::Roof;
use crate::units::{ByteRate, FlopRate};

/// What `explain --help` ends with.
pub const HELP: &str = "\
Examples:

  rooftrace explain conv2d --n 1 --h 14 --w 14 --c-in 256 --c-out 256 --k 3 --padding 1
  rooftrace explain matmul --m 4096 --n 4096 --k 4096 --precision bf16 --peak 989TFLOP/s --bandwidth 4.8TB/s
  rooftrace explain attention --heads 32 --seq 4096 --head-dim 128 --causal --roof rooftrace-out/host-…/records.jsonl";

/// How an explanation is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal
    Text,
    /// Markdown
    Md,
    /// JSON
    Json,
}

/// Explains one problem.
pub fn run(args: &Explaining) -> Result<i32> {
    if args.json {
        return Err(Error::usage("explain has no --json; use --format json"));
    }
    let entry = op::find(&args.op)?;
    if entry.role == OpRole::Probe {
        let kernels: Vec<_> = op::OPS.iter().filter(|e| e.role == OpRole::Kernel).map(|e| e.name).collect();
        return Err(Error::usage(format!("{} is a probe, which makes roofs; explain one of {}", args.op, kernels.join(", "))));
    }
    let problem = args.shape.problem(std::slice::from_ref(&args.op))?.map_or(Value::Object(Map::new()), |(_, problem)| problem);
    let op = (entry.parse)(&problem)?;
    let recorded = args.roof.as_deref().map(recorded).transpose()?;
    let peaks = match (&recorded, args.bandwidth) {
        (Some((roof, _)), _) => Some(Peaks::Recorded(roof)),
        (None, Some(byte_per_s)) => Some(Peaks::Given { flop_per_s: given(&args.peak, args.precision)?, byte_per_s }),
        (None, None) => None,
    };
    let explanation = explain(&*op, args.precision, peaks.as_ref())?;
    let against = match (&recorded, peaks) {
        (Some((_, header)), _) => Some(report::explain::recorded(&header.device.name, roof_time(header), &explanation.ceilings)),
        (None, Some(Peaks::Given { flop_per_s, byte_per_s })) => {
            Some(format!("{} and {}, as given", FlopRate(flop_per_s), ByteRate(byte_per_s)))
        }
        _ => None,
    };
    output::print(&match args.format {
        Format::Text => report::explain::text(&explanation, against.as_deref()),
        Format::Md => report::explain::markdown(&explanation, against.as_deref()),
        Format::Json => json(&explanation, against)?,
    })
}

/// The roof in a file, with the header that dates it.
fn recorded(path: &Path) -> Result<(Roof, Header)> {
    let file = record::read(path)?;
    file.warnings.iter().for_each(|warning| eprintln!("rooftrace: {}: {warning}", path.display()));
    let (roof, header) = (Roof::from_records(&file.records)?, crate::roofline::view(&file.records)?.header);
    if Precision::ALL.iter().all(|&precision| roof.compute(precision, None).is_none()) || roof.memory_ns(1, 0).is_none() {
        let why = "it has no roof of arithmetic and DRAM; record one with rooftrace trace".into();
        return Err(Error::BadFile { path: path.display().to_string(), why });
    }
    Ok((roof, header))
}

/// The given peak of a precision: its own, or the one that names none.
fn given(peaks: &[(Option<Precision>, f64)], precision: Precision) -> Result<f64> {
    let nominal = Nominal { compute: peaks.to_vec(), byte_per_s: None };
    nominal.flop_per_s(precision).ok_or_else(|| {
        Error::usage(format!("--peak names no rate of {precision}; write --peak {precision}=RATE, or choose with --precision"))
    })
}

/// The explanation, and what it was held against.
fn json(explanation: &Explanation, against: Option<String>) -> Result<String> {
    #[derive(Serialize)]
    struct Told<'a> {
        #[serde(flatten)]
        explanation: &'a Explanation,
        against: Option<String>,
    }
    let json = serde_json::to_string_pretty(&Told { explanation, against });
    Ok(json.map_err(|e| Error::usage(e.to_string()))? + "\n")
}

/// `989TFLOP/s`, `355 GFLOP/s` or plain FLOP/s.
pub fn flop_rate(text: &str) -> std::result::Result<f64, String> {
    rate(text, "FLOP/s", "989TFLOP/s")
}

/// `4.8TB/s`, `43 GB/s` or plain byte/s.
pub fn byte_rate(text: &str) -> std::result::Result<f64, String> {
    rate(text, "B/s", "4.8TB/s")
}

fn rate(text: &str, unit: &str, example: &str) -> std::result::Result<f64, String> {
    let refused = |why: &str| format!("'{text}' {why}; write something like {example}");
    // An exponent belongs to the number, so letters but `e` end it.
    let split = text.find(|c: char| c.is_ascii_alphabetic() && !c.eq_ignore_ascii_case(&'e')).unwrap_or(text.len());
    let (number, suffix) = (text[..split].trim(), text[split..].trim());
    let number: f64 = number.parse().map_err(|_| refused("has no number"))?;
    let scales = [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)];
    let scale = match suffix {
        "" => Some(1.0),
        _ => scales.iter().find(|(prefix, _)| suffix.strip_prefix(prefix) == Some(unit)).map(|(_, scale)| *scale),
    };
    let value = number * scale.ok_or_else(|| refused(&format!("is not in {unit}")))?;
    if (1.0..=1e21).contains(&value) { Ok(value) } else { Err(refused("is no rate above 0")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_take_decimal_prefixes_and_refuse_everything_else() {
        assert_eq!((flop_rate("989TFLOP/s"), byte_rate("4.8 TB/s"), byte_rate("3.35e12")), (Ok(989e12), Ok(4.8e12), Ok(3.35e12)));
        for text in ["", "fast", "-3TB/s", "0GB/s", "4.8TiB/s", "4.8TFLOP/s", "nanB/s", "1e400B/s"] {
            assert!(byte_rate(text).is_err_and(|why| why.contains("4.8TB/s")), "{text}");
        }
    }
}
