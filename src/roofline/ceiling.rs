//! A ceiling's value from the measurements it stands on.
//!
//! A ceiling says what the device can do: work over the 10th percentile of time, pooled over the blocks in which its winner was
//! measured. Samples of one block are not independent of each other, so the interval is widened to hold every block's own value.

use super::{launch_times, state_name};
use crate::record::{Ceiling, CeilingKind, Measurement, State};
use crate::stats::{Estimate, estimate};
use crate::view::CeilingView;

/// Blocks that lie further apart make a ceiling suspect.
const APART: f64 = 0.05;

/// A ceiling with its value and 95 % interval. `find` looks a measurement up by id.
///
/// # Errors
/// One sentence where no measurement it names can be used.
pub fn ceiling_view<'a>(ceiling: &Ceiling, find: impl Fn(&str) -> Option<&'a Measurement>) -> Result<CeilingView, String> {
    let (mut state, mut reasons) = (ceiling.state, ceiling.reasons.clone());
    let mut blocks: Vec<Vec<f64>> = Vec::new();
    for id in &ceiling.from {
        let found = find(id).ok_or_else(|| format!("{id} is not in the file")).and_then(|m| block(ceiling.kind, m).map(|b| (b, m.state)));
        match found {
            Ok((times, measured)) => {
                if measured != State::Ok {
                    state = worse(state, measured);
                    reasons.push(format!("{id} is {}", state_name(measured)));
                }
                blocks.push(times);
            }
            Err(why) => {
                state = State::Suspect;
                reasons.push(why);
            }
        }
    }
    let Some((time, apart)) = pooled(&mut blocks) else {
        reasons.insert(0, format!("the ceiling '{}' stands on no usable measurement", ceiling.name));
        return Err(reasons.join("; "));
    };
    if apart > APART {
        state = State::Suspect;
        reasons.push(format!("its {} blocks lie {:.1} % apart", blocks.len(), 100.0 * apart));
    }
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
        state,
        reasons,
    })
}

fn worse(a: State, b: State) -> State {
    if a == State::Suspect || b == State::Suspect { State::Suspect } else { b }
}

/// Times of one unit of work in ns: a FLOP, a byte, or for a latency the launch itself.
fn block(kind: CeilingKind, m: &Measurement) -> Result<Vec<f64>, String> {
    let work = match kind {
        CeilingKind::Compute => m.flops as f64,
        CeilingKind::Bandwidth => m.bytes_compulsory as f64,
        CeilingKind::Latency => 1.0,
    };
    let times = launch_times(m)?;
    if work == 0.0 {
        return Err(format!("{} did no work that this ceiling counts", m.id));
    }
    if times.contains(&0.0) {
        return Err(format!("{} has a sample of 0 ns", m.id));
    }
    Ok(times.into_iter().map(|ns| ns / work).collect())
}

/// The pooled 10th percentile with its widened interval, and how far the blocks' own lie apart.
fn pooled(blocks: &mut [Vec<f64>]) -> Option<(Estimate, f64)> {
    let mut pool = blocks.concat();
    let mut time = estimate(&mut pool, 0.1)?;
    let (mut fastest, mut slowest) = (f64::INFINITY, 0f64);
    for block in blocks {
        let own = estimate(block, 0.1)?.value;
        (fastest, slowest) = (fastest.min(own), slowest.max(own));
    }
    time.low = time.low.min(fastest);
    time.high = time.high.max(slowest);
    Some((time, slowest / fastest - 1.0))
}
