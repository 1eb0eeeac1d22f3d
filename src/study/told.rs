//! A layer or a chain of layers as a table and a picture show it: the sum of its rows.

use super::{Mark, check, counted, counted_rate, median};
use crate::grid::Column;
use crate::units::{Capacity, Intensity, Nanos};
use crate::view::Row;

/// Columns of [`Told::cells`].
pub(super) const COLUMNS: [Column; 13] = [
    Column::left("form"),
    Column::left("shape").shrinks_before_tail(24),
    Column::right("parameters").titled("params").drops(2),
    Column::right("MACs").drops(1),
    Column::right("FLOPs"),
    Column::right("bytes"),
    Column::right("FLOP/B"),
    Column::right("attainable FLOP/s").titled("attain."),
    Column::right("achieved FLOP/s").titled("achieved"),
    Column::right("latency"),
    Column::right("of one image").titled("an image").drops(3),
    Column::left("limited by").shrinks_before_tail(14),
    Column::left("check"),
];

/// Launches that follow each other: measured rows, each so many times.
pub(super) struct Told<'a> {
    pub name: String,
    pub parts: Vec<(u64, &'a Row)>,
    /// Elements of all weights.
    pub params: u64,
    /// Images.
    pub n: u64,
}

impl Told<'_> {
    fn sum(&self, of: impl Fn(&Row) -> f64) -> f64 {
        self.parts.iter().map(|&(times, row)| times as f64 * of(row)).sum()
    }

    fn count(&self, of: impl Fn(&Row) -> u64) -> u64 {
        self.parts.iter().map(|&(times, row)| times * of(row)).sum()
    }

    pub fn flops(&self) -> f64 {
        2.0 * self.count(|row| row.macs) as f64
    }

    /// ns of all launches.
    pub fn time(&self) -> f64 {
        self.sum(median)
    }

    /// ns of one image.
    pub fn each(&self) -> f64 {
        self.time() / self.n as f64
    }

    /// ns that the roof allows, where it has all parts.
    pub fn bound(&self) -> Option<f64> {
        let bounds = self.parts.iter().map(|&(times, row)| Some(2e9 * (times * row.macs) as f64 / row.roof_flop_per_s?));
        bounds.sum()
    }

    /// FLOP per compulsory byte.
    pub fn intensity(&self) -> f64 {
        self.flops() / self.count(|row| row.bytes_compulsory) as f64
    }

    /// FLOP/s.
    pub fn achieved(&self) -> f64 {
        1e9 * self.flops() / self.time()
    }

    /// FLOP/s of its roof, where each part has one.
    pub fn attainable(&self) -> Option<f64> {
        self.bound().map(|ns| 1e9 * self.flops() / ns)
    }

    fn doubted(&self) -> bool {
        self.parts.iter().any(|(_, row)| check(row) != "ok")
    }

    /// Cells for [`COLUMNS`].
    pub fn cells(&self) -> Vec<String> {
        let (shape, limiter, state) = match self.parts.as_slice() {
            [(1, row)] => (row.label.clone(), row.limited_by(), check(row)),
            [(times, row)] => (format!("{times} x {}", row.label), row.limited_by(), check(row)),
            _ => ("their sum".into(), String::new(), if self.doubted() { "SUSPECT" } else { "ok" }),
        };
        let macs = self.count(|row| row.macs);
        vec![
            self.name.clone(),
            shape,
            counted(self.params),
            counted(macs),
            counted(2 * macs),
            Capacity(self.count(|row| row.bytes_compulsory)).to_string(),
            Intensity(self.intensity()).to_string(),
            self.attainable().map_or(String::new(), counted_rate),
            counted_rate(self.achieved()),
            Nanos(self.time()).to_string(),
            Nanos(self.each()).to_string(),
            limiter,
            state.into(),
        ]
    }

    /// Its place on a roofline.
    pub fn mark(&self) -> Mark {
        Mark { x: self.intensity(), y: self.achieved(), name: self.name.clone(), doubted: self.doubted() }
    }
}
