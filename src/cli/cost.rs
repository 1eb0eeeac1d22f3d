//! The flags that ask what rows cost, and how prices, times and sizes are written.

use clap::{Args, ValueEnum};

use super::explain::{byte_rate, flop_rate};
use crate::cost::{Asked, Limit, Nominal};
use crate::plan::Precision;

/// Columns beyond those of the roofline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Columns {
    /// Parameters, activations, memory, latency, throughput, MFU, MBU, energy
    Cost,
}

/// What rows cost, and what they are held against.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "What it costs; a price, peak or limit asks for --columns cost")]
pub struct Costing {
    /// A further table: parameters, activations, memory, latency, throughput, utilisation, energy where it was measured
    #[arg(long, value_enum)]
    columns: Option<Columns>,
    /// Price of the machine, for the price of a million problems: 2.50/h
    #[arg(long, value_parser = price, value_name = "PRICE", allow_hyphen_values = true)]
    price: Option<f64>,
    /// Mark rows that take longer: 30ms
    #[arg(long, value_parser = latency, value_name = "TIME", allow_hyphen_values = true)]
    max_latency: Option<Limit>,
    /// Mark rows that need more memory: 4GiB
    #[arg(long, value_parser = memory, value_name = "SIZE", allow_hyphen_values = true)]
    max_memory: Option<Limit>,
    /// Mark rows that take more energy, as --energy measures it: 5mJ
    #[arg(long, value_parser = energy, value_name = "ENERGY", allow_hyphen_values = true)]
    max_energy: Option<Limit>,
    /// A vendor's peaks of arithmetic, for MFU of nominal beside that of the measured one: 67TFLOP/s, bf16=989TFLOP/s
    #[arg(long, value_parser = peak, value_delimiter = ',', value_name = "[PRECISION=]RATE", allow_hyphen_values = true)]
    peak: Vec<(Option<Precision>, f64)>,
    /// A vendor's peak of memory, for MBU of nominal: 4.8TB/s
    #[arg(long, value_parser = byte_rate, value_name = "RATE", allow_hyphen_values = true)]
    bandwidth: Option<f64>,
}

impl Costing {
    /// What was asked for, if anything; energy that is measured is to be seen.
    pub fn asked(&self, energy: bool) -> Option<Asked> {
        let asked = Asked {
            price: self.price,
            max_latency: self.max_latency,
            max_memory: self.max_memory,
            max_energy: self.max_energy,
            nominal: Nominal { compute: self.peak.clone(), byte_per_s: self.bandwidth },
        };
        (energy || self.columns.is_some() || asked != Asked::default()).then_some(asked)
    }
}

const TIMES: &[(&str, f64)] = &[("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];

const ENERGIES: &[(&str, f64)] = &[("nJ", 1e-9), ("uJ", 1e-6), ("mJ", 1e-3), ("J", 1.0), ("kJ", 1e3), ("Wh", 3600.0)];

const SIZES: &[(&str, f64)] = &[
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

/// `2.50/h` or `2.50`.
fn price(text: &str) -> Result<f64, String> {
    let refused = |why: &str| format!("'{text}' {why}; write something like 2.50/h");
    let (number, unit) = text.split_once('/').unwrap_or((text, "h"));
    if unit.trim() != "h" {
        return Err(refused("is not a price for an hour"));
    }
    let value: f64 = number.trim().parse().map_err(|_| refused("has no plain number, without a currency"))?;
    if (1e-9..=1e9).contains(&value) { Ok(value) } else { Err(refused("is no price above 0")) }
}

/// `30ms`.
fn latency(text: &str) -> Result<Limit, String> {
    limit(text, TIMES, "time", "30ms")
}

/// `5mJ`.
fn energy(text: &str) -> Result<Limit, String> {
    limit(text, ENERGIES, "energy", "5mJ")
}

/// `67TFLOP/s` or `bf16=989TFLOP/s`.
pub(super) fn peak(text: &str) -> Result<(Option<Precision>, f64), String> {
    let Some((name, rate)) = text.split_once('=') else { return Ok((None, flop_rate(text)?)) };
    let found = Precision::ALL.into_iter().find(|precision| precision.name() == name.trim());
    let known = || Precision::ALL.map(|precision| precision.name()).join(", ");
    Ok((Some(found.ok_or_else(|| format!("'{name}' is none of {}; write something like bf16=989TFLOP/s", known()))?), flop_rate(rate)?))
}

/// `4GiB`.
fn memory(text: &str) -> Result<Limit, String> {
    limit(text, SIZES, "size", "4GiB")
}

fn limit(text: &str, units: &[(&'static str, f64)], what: &str, example: &str) -> Result<Limit, String> {
    let refused = |why: &str| format!("'{text}' {why}; write something like {example}");
    // An exponent belongs to the number, so letters but `e` end it.
    let split = text.find(|c: char| c.is_alphabetic() && !c.eq_ignore_ascii_case(&'e')).unwrap_or(text.len());
    let (number, suffix) = (text[..split].trim(), text[split..].trim());
    let amount: f64 = number.parse().map_err(|_| refused("has no number"))?;
    let known = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = units.iter().find(|(name, _)| *name == suffix);
    let (unit, scale) = *found.ok_or_else(|| refused(&format!("is in none of {}", known())))?;
    let value = amount * scale;
    if (1e-9..=1e18).contains(&value) { Ok(Limit { amount, unit, scale }) } else { Err(refused(&format!("is no {what} above 0"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_for_an_hour_and_have_no_currency() {
        assert_eq!((price("2.50/h"), price("2.50"), price("3 / h"), price("1e-3/h")), (Ok(2.5), Ok(2.5), Ok(3.0), Ok(0.001)));
        for text in ["", "0/h", "-2.50/h", "2.50/d", "2.50/h/h", "$2.50/h", "free", "nan/h", "inf", "1e400", "/h", "2.50/"] {
            assert!(price(text).is_err_and(|why| why.contains(&format!("'{text}'")) && why.contains("2.50/h")), "{text}");
        }
    }

    #[test]
    fn peaks_are_of_one_precision_or_of_all() {
        assert_eq!((peak("67TFLOP/s"), peak("bf16=989TFLOP/s")), (Ok((None, 67e12)), Ok((Some(Precision::BF16), 989e12))));
        for text in ["", "=1TFLOP/s", "bf16=", "bf16", "fp4=9PFLOP/s", "bf16=989TB/s", "f32=-1TFLOP/s"] {
            assert!(peak(text).is_err_and(|why| why.contains("989TFLOP/s")), "{text}");
        }
    }

    #[test]
    fn limits_keep_their_unit() {
        let of = |limit: Result<Limit, String>| limit.map(|l| (l.amount, l.unit, l.amount * l.scale));
        assert_eq!(of(latency("30ms")), Ok((30.0, "ms", 30e6)));
        assert_eq!(of(latency("1.5 s")), Ok((1.5, "s", 1.5e9)));
        assert_eq!((of(latency("5us")), of(latency("250ns"))), (Ok((5.0, "us", 5e3)), Ok((250.0, "ns", 250.0))));
        assert_eq!(of(memory("4GiB")), Ok((4.0, "GiB", 4_294_967_296.0)));
        assert_eq!((of(memory("80 GB")), of(memory("512KiB"))), (Ok((80.0, "GB", 80e9)), Ok((512.0, "KiB", 524_288.0))));
        for text in ["", "30", "30min", "-30ms", "0ms", "ms", "nans", "1e400s", "30 Ms", "4GiB"] {
            assert!(latency(text).is_err_and(|why| why.contains(&format!("'{text}'")) && why.contains("30ms")), "{text}");
        }
        let joules = |text| energy(text).map(|l| (l.unit, l.amount * l.scale));
        assert_eq!((joules("5mJ"), joules("2 J"), joules("1Wh")), (Ok(("mJ", 0.005)), Ok(("J", 2.0)), Ok(("Wh", 3600.0))));
        for text in ["", "5", "5mj", "5W", "-5mJ", "0J", "mJ", "nanJ"] {
            assert!(energy(text).is_err_and(|why| why.contains(&format!("'{text}'")) && why.contains("5mJ")), "{text}");
        }
        for text in ["", "4", "4 gib", "-4GiB", "0B", "4Gib", "GiB", "30ms"] {
            assert!(memory(text).is_err_and(|why| why.contains(&format!("'{text}'")) && why.contains("4GiB")), "{text}");
        }
    }
}
