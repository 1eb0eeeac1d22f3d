//! A ceiling's value from the measurements it stands on.
//!
//! A ceiling says what the device can do: work over the 10th percentile of time, pooled over the blocks in which its winner was
//! measured. Samples of one block are not independent of each other, so the interval is widened to hold every block's own value.
//!
//! A latency is a time for each of so many steps; where it has a base, it is the slope from that to the blocks.
//!
//! Blocks lie minutes apart. Where two or more come within 5 % of the fastest, what else the machine did meanwhile is no part of what
//! it can do: slower blocks are set aside, and canaries that moved are outvoted. Otherwise all are pooled, and the ceiling is suspect.

use super::{launch_times, pace, state_name};
use crate::plan::Unit;
use crate::record::{Ceiling, CeilingKind, Measurement, State};
use crate::stats::{Estimate, estimate};
use crate::view::CeilingView;

/// Blocks within this of the fastest one agree with it.
const APART: f64 = 0.05;

/// A ceiling with its value and 95 % interval. `find` looks a measurement up by id.
///
/// # Errors
/// One sentence where no measurement it names can be used.
pub fn ceiling_view<'a>(ceiling: &Ceiling, find: impl Fn(&str) -> Option<&'a Measurement>) -> Result<CeilingView, String> {
    let (mut state, mut reasons) = (ceiling.state, ceiling.reasons.clone());
    let base = base(ceiling, &find)?;
    let mut blocks: Vec<Block> = Vec::new();
    for id in &ceiling.from {
        match find(id).ok_or_else(|| format!("{id} is not in the file")).and_then(|m| block(ceiling, m, base)) {
            Ok(block) => blocks.push(block),
            Err(why) => {
                state = State::Suspect;
                reasons.push(why);
            }
        }
    }
    let canary_ns = blocks.iter().min_by(|a, b| a.own.total_cmp(&b.own)).and_then(|fastest| fastest.canary_ns);
    let fastest = blocks.iter().map(|b| b.own).fold(f64::INFINITY, f64::min);
    let (agreeing, slower): (Vec<Block>, Vec<Block>) = blocks.into_iter().partition(|b| b.own <= fastest * (1.0 + APART));
    let agreed = agreeing.len() > 1;
    for block in agreeing.iter().chain(&slower).filter(|b| b.state != State::Ok && !(agreed && b.state == State::Suspect)) {
        state = worse(state, block.state);
        reasons.push(format!("one of its blocks is {} ({})", state_name(block.state), block.id));
    }
    for block in &slower {
        let percent = 100.0 * (block.own / fastest - 1.0);
        if agreed {
            reasons.push(format!("a slower block is set aside ({} took {percent:.0} % longer than the others)", block.id));
        } else {
            state = State::Suspect;
            reasons.push(format!("its blocks disagree ({} took {percent:.0} % longer than the fastest)", block.id));
        }
    }
    let pool = if agreed { agreeing } else { agreeing.into_iter().chain(slower).collect() };
    let Some(time) = pooled(pool) else {
        reasons.insert(0, format!("the ceiling '{}' stands on no usable measurement", ceiling.name));
        return Err(reasons.join("; "));
    };
    let value = if ceiling.kind == CeilingKind::Latency { time } else { time.rate(1e9) };
    Ok(CeilingView {
        name: ceiling.name.clone(),
        kind: ceiling.kind,
        precision: ceiling.precision,
        unit: ceiling.unit,
        level: ceiling.level.clone(),
        direction: ceiling.direction.clone(),
        capacity: ceiling.capacity,
        value: value.value,
        low: value.low,
        high: value.high,
        canary_ns,
        state,
        reasons,
    })
}

fn worse(a: State, b: State) -> State {
    if a == State::Suspect || b == State::Suspect { State::Suspect } else { b }
}

/// One block of samples.
struct Block {
    id: String,
    state: State,
    /// Times of one unit of work in ns: a FLOP, a byte, a step of a latency.
    times: Vec<f64>,
    /// Their 10th percentile.
    own: f64,
    /// The canary of what it measures.
    canary_ns: Option<f64>,
}

/// The lower end of a slope: ns of a launch, and its steps.
#[derive(Debug, Clone, Copy, Default)]
struct Base {
    ns: f64,
    steps: f64,
}

/// The fastest of a ceiling's bases; no time and no steps where it has none.
fn base<'a>(ceiling: &Ceiling, find: &impl Fn(&str) -> Option<&'a Measurement>) -> Result<Base, String> {
    let mut fastest: Option<Base> = None;
    for id in &ceiling.base {
        let m = find(id).ok_or_else(|| format!("{id}, which is taken off '{}', is not in the file", ceiling.name))?;
        let ns = estimate(&mut launch_times(m)?, 0.1).ok_or_else(|| format!("{id} holds no samples"))?.value;
        if fastest.is_none_or(|least| ns < least.ns) {
            fastest = Some(Base { ns, steps: steps(m) });
        }
    }
    Ok(fastest.unwrap_or_default())
}

/// Steps of a launch that follow each other: the loads of a chase, else its dispatches.
fn steps(m: &Measurement) -> f64 {
    m.problem["hops"].as_u64().unwrap_or(m.dispatches as u64) as f64
}

fn block(ceiling: &Ceiling, m: &Measurement, base: Base) -> Result<Block, String> {
    let work = match ceiling.kind {
        CeilingKind::Compute if ceiling.unit == Some(Unit::Exp) => m.exponentials as f64,
        CeilingKind::Compute => m.flops as f64,
        CeilingKind::Bandwidth => m.bytes_compulsory as f64,
        CeilingKind::Latency => steps(m) - base.steps,
    };
    let times: Vec<f64> = launch_times(m)?.into_iter().map(|ns| ns - base.ns).collect();
    if work <= 0.0 {
        return Err(format!("{} did no work that this ceiling counts", m.id));
    }
    if times.iter().any(|ns| *ns <= 0.0) {
        let than = if base.ns > 0.0 { "no longer than the base that is taken off it" } else { "0 ns" };
        return Err(format!("{} has a sample of {than}", m.id));
    }
    let mut times: Vec<f64> = times.into_iter().map(|ns| ns / work).collect();
    let own = estimate(&mut times, 0.1).ok_or_else(|| format!("{} holds no samples", m.id))?.value;
    let canary_ns = match (ceiling.kind, ceiling.level.as_deref()) {
        (CeilingKind::Compute, _) => pace::fma_ns(m),
        (CeilingKind::Bandwidth, Some("dram")) => pace::stream_ns(m),
        _ => None,
    };
    Ok(Block { id: m.id.clone(), state: m.state, times, own, canary_ns })
}

/// The pooled 10th percentile with its widened interval.
fn pooled(blocks: Vec<Block>) -> Option<Estimate> {
    let own = blocks.iter().map(|b| b.own);
    let (fastest, slowest) = (own.clone().fold(f64::INFINITY, f64::min), own.fold(0.0, f64::max));
    let mut pool: Vec<f64> = blocks.into_iter().flat_map(|b| b.times).collect();
    let mut time = estimate(&mut pool, 0.1)?;
    time.low = time.low.min(fastest);
    time.high = time.high.max(slowest);
    Some(time)
}
