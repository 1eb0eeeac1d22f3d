//! A view in a few words: the ridge, the best kernel, the biggest gap.

use serde::{Deserialize, Serialize};

use crate::op::stream::Kind;
use crate::plan::Precision;
use crate::record::{Cache, CeilingKind};
use crate::units::{ByteRate, FlopRate, Intensity};
use crate::view::{CeilingView, Row, View};

/// Where a precision's compute ceiling meets DRAM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ridge {
    /// Precision of the compute ceiling.
    pub precision: Precision,
    /// FLOP/byte at the meeting point.
    pub intensity: f64,
    /// FLOP/s.
    pub compute: f64,
    /// Byte/s.
    pub bandwidth: f64,
    /// Direction of the DRAM ceiling.
    pub direction: String,
}

/// One placed kernel, named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// Op, variant, problem, and `cold` or `warm`.
    pub name: String,
    /// Fraction of the roof.
    pub fraction: f64,
    /// What limits it.
    pub limiter: String,
}

/// What the sentences say, as data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// f32 over DRAM read, or over the fastest direction where read is absent.
    pub ridge: Option<Ridge>,
    /// The highest fraction that is not above the roof.
    pub best: Option<Placed>,
    /// The problem whose best variant is furthest from the roof; absent where that is `best` itself.
    pub gap: Option<Placed>,
    /// Rows above the roof.
    pub above_roof: usize,
    /// Rows whose output was wrong.
    pub wrong: usize,
}

impl Summary {
    /// The summary of a view.
    pub fn of(view: &View) -> Summary {
        let placed: Vec<(&Row, f64)> = view.rows.iter().filter(|r| !r.above_roof).filter_map(|r| r.roof_fraction.map(|f| (r, f))).collect();
        let best = placed.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        let gap = best_of_each(&placed).into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let gap = gap.filter(|g| best.is_some_and(|b| b.0.id != g.0.id));
        Summary {
            ridge: ridge(&view.ceilings, Precision::F32),
            best: best.map(named),
            gap: gap.map(named),
            above_roof: view.rows.iter().filter(|r| r.above_roof).count(),
            wrong: view.rows.iter().filter(|r| r.state == crate::record::State::Wrong).count(),
        }
    }

    /// One to three sentences.
    pub fn sentences(&self) -> String {
        let mut said = vec![match &self.ridge {
            Some(r) => format!(
                "The ridge of this device is at {} FLOP/byte ({}, {} over {} DRAM {}): below it memory is the limit, above it arithmetic.",
                Intensity(r.intensity),
                r.precision,
                FlopRate(r.compute),
                ByteRate(r.bandwidth),
                r.direction
            ),
            None => "No ridge can be given: the f32 or the DRAM ceiling is missing.".to_string(),
        }];
        let best = self.best.as_ref().map(|b| format!("The best kernel, {}, reaches {} of its roof", b.name, percent(b.fraction)));
        match (best, &self.gap) {
            (Some(best), Some(g)) => said.push(format!(
                "{best}; the biggest gap is {}, the fastest of its kind, at {} ({}).",
                g.name,
                percent(g.fraction),
                because(&g.limiter)
            )),
            (Some(best), None) => said.push(best + "."),
            (None, _) => {}
        }
        let above = |n: usize| if n == 1 { "1 kernel lies above its roof".into() } else { format!("{n} kernels lie above their roofs") };
        let wrong = |n: usize| if n == 1 { "1 output is wrong".into() } else { format!("{n} outputs are wrong") };
        let odd: Vec<String> = [(self.above_roof, above(self.above_roof)), (self.wrong, wrong(self.wrong))]
            .into_iter()
            .filter_map(|(n, text): (usize, String)| (n > 0).then_some(text))
            .collect();
        if !odd.is_empty() {
            said.push(format!("{}: see the reasons.", odd.join(" and ")));
        }
        said.join(" ")
    }
}

fn because(limiter: &str) -> String {
    if limiter.starts_with("unexplained") { "no measured share explains it".into() } else { format!("limited by {limiter}") }
}

fn percent(fraction: f64) -> String {
    format!("{:.0} %", 100.0 * fraction)
}

fn named((row, fraction): (&Row, f64)) -> Placed {
    let cache = match row.cache {
        Cache::Cold => "cold",
        Cache::Warm => "warm",
    };
    Placed { name: format!("{}/{} {} {cache}", row.op, row.variant, row.label), fraction, limiter: row.limiter.clone() }
}

/// For each problem its best variant: that a naive rung is slow is no news.
fn best_of_each<'a>(placed: &[(&'a Row, f64)]) -> Vec<(&'a Row, f64)> {
    let mut best: Vec<(&Row, f64)> = Vec::new();
    for &(row, fraction) in placed {
        let same = |r: &Row| r.op == row.op && r.problem == row.problem && r.precision == row.precision && r.cache == row.cache;
        match best.iter_mut().find(|b| same(b.0)) {
            Some(kept) if kept.1 >= fraction => {}
            Some(kept) => *kept = (row, fraction),
            None => best.push((row, fraction)),
        }
    }
    best
}

fn ridge(ceilings: &[CeilingView], precision: Precision) -> Option<Ridge> {
    let best = |fits: &dyn Fn(&CeilingView) -> bool| ceilings.iter().filter(|c| fits(c)).max_by(|a, b| a.value.total_cmp(&b.value));
    let compute = best(&|c| c.kind == CeilingKind::Compute && c.precision == Some(precision))?;
    let dram = |c: &CeilingView| c.kind == CeilingKind::Bandwidth && c.level.as_deref() == Some("dram");
    let read = best(&|c| dram(c) && c.direction.as_deref() == Some(Kind::Read.name()));
    let memory = read.or_else(|| best(&dram))?;
    Some(Ridge {
        precision,
        intensity: compute.value / memory.value,
        compute: compute.value,
        bandwidth: memory.value,
        direction: memory.direction.clone().unwrap_or_default(),
    })
}
