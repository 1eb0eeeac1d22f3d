//! Numbers with their units, and how they are written: rates decimal, capacities binary.

use std::fmt;

/// FLOP/s, shown as `37.3 GFLOP/s`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct FlopRate(pub f64);

/// Integer operations a second, two for a multiply and an add, shown as `260 TOP/s`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct OpRate(pub f64);

/// Exponentials a second, shown as `4.1 Gexp/s`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ExpRate(pub f64);

/// Byte/s, shown as `20.1 GB/s` (1e9 bytes).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct ByteRate(pub f64);

/// Nanoseconds, shown as `1.25 ms`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Nanos(pub f64);

/// Bytes of memory, shown as `32.0 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capacity(pub u64);

/// Joules, shown as `12.3 mJ`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Joules(pub f64);

/// FLOP per byte, shown with three digits.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Intensity(pub f64);

/// A number of things, shown as `231 M` (1e6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

/// Three significant digits.
pub(crate) fn digits(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_string();
    }
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 => format!("{value:.2}"),
        v if v >= 0.09995 => format!("{value:.3}"),
        0.0 => "0".to_string(),
        _ => format!("{value:.2e}"),
    }
}

fn scaled(value: f64, steps: &[(f64, &str)]) -> String {
    let chosen = steps.iter().find(|(scale, _)| value.abs() >= 0.9995 * scale).or(steps.last());
    match chosen {
        Some((scale, name)) => format!("{} {name}", digits(value / scale)),
        None => digits(value),
    }
}

impl fmt::Display for FlopRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(
            self.0,
            &[(1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"), (1e3, "kFLOP/s"), (1.0, "FLOP/s")],
        ))
    }
}

impl fmt::Display for OpRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, &[(1e15, "POP/s"), (1e12, "TOP/s"), (1e9, "GOP/s"), (1e6, "MOP/s"), (1e3, "kOP/s"), (1.0, "OP/s")]))
    }
}

impl fmt::Display for ExpRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, &[(1e12, "Texp/s"), (1e9, "Gexp/s"), (1e6, "Mexp/s"), (1.0, "exp/s")]))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, &[(1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")]))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, &[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")]))
    }
}

impl fmt::Display for Joules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&scaled(self.0, &[(1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ"), (1e-9, "nJ")]))
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const K: f64 = 1024.0;
        f.pad(&scaled(self.0 as f64, &[(K * K * K * K, "TiB"), (K * K * K, "GiB"), (K * K, "MiB"), (K, "KiB"), (1.0, "B")]))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            few @ 0..1000 => f.pad(&few.to_string()),
            many => f.pad(&scaled(many as f64, &[(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")])),
        }
    }
}

impl fmt::Display for Intensity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&digits(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_decimal_and_capacities_binary() {
        assert_eq!((FlopRate(74.6e9).to_string(), OpRate(1.979e15).to_string()), ("74.6 GFLOP/s".into(), "1.98 POP/s".into()));
        assert_eq!(ByteRate(999.96e9).to_string(), "1.00 TB/s");
        assert_eq!(Capacity(32 << 20).to_string(), "32.0 MiB");
        assert_eq!(Nanos(1_250_000.0).to_string(), "1.25 ms");
        assert_eq!(Nanos(0.0).to_string(), "0 ns");
        assert_eq!((Joules(0.0123).to_string(), Joules(-0.5e-3).to_string()), ("12.3 mJ".into(), "-500 uJ".into()));
        assert_eq!(
            (Count(0).to_string(), Count(999).to_string(), Count(231_211_008).to_string()),
            ("0".into(), "999".into(), "231 M".into())
        );
    }
}
