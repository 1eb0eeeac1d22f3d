//! An output held against its expectation, on all threads: one reads from the device, the others widen and look.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::{CHUNK, Expectation};
use crate::backend::Fetched;
use crate::draw::Draw;
use crate::error::{Error, Result};
use crate::record::Verification;

/// Chunks that wait to be looked at, for each thread that looks.
const WAITING: usize = 2;

/// How an output is read: a range of its flat elements.
pub type Reader<'r> = dyn FnMut(Range<u64>) -> Result<Fetched> + 'r;

/// A part of an output that was read.
type Chunk = (Range<u64>, Fetched);

/// What one thread has seen.
struct Seen {
    tally: Tally,
    /// Of each row, its elements by the weights of Freivalds' check; empty where there is none.
    sums: Vec<f64>,
    /// The first chunk that is wrong at once, by where it starts.
    wrong: Option<(u64, Error)>,
}

impl Expectation {
    /// Compares an output, read in ranges of flat elements.
    ///
    /// # Errors
    /// [`Error::Wrong`] naming the worst element, or the reader's own error.
    pub fn compare(&self, named: &str, draw: Draw, read: &mut Reader<'_>) -> Result<Verification> {
        let mut seen = self.nothing();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min((self.elements / CHUNK) as usize);
        if threads < 2 {
            for range in self.chunks() {
                self.look(named, &mut seen, range.clone(), read(range)?);
            }
        } else {
            self.on_threads(named, threads, &mut seen, read)?;
        }
        match seen.wrong {
            Some((_, why)) => Err(why),
            None => self.judge(named, draw, seen.tally, &seen.sums),
        }
    }

    /// The same chunks, read by this thread and looked at by others.
    fn on_threads(&self, named: &str, threads: usize, seen: &mut Seen, read: &mut Reader<'_>) -> Result<()> {
        let (send, receive) = sync_channel::<Chunk>(WAITING * threads);
        let (receive, wrong) = (Arc::new(Mutex::new(receive)), AtomicBool::new(false));
        let work = |receive: Arc<Mutex<Receiver<Chunk>>>| {
            let mut own = self.nothing();
            let next = || receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok((range, fetched)) = next() {
                self.look(named, &mut own, range, fetched);
                wrong.fetch_or(own.wrong.is_some(), Ordering::Relaxed);
            }
            own
        };
        std::thread::scope(|scope| {
            let spawn = |receive| scope.spawn(|| work(receive));
            let workers: Vec<_> = (0..threads).map(|_| spawn(receive.clone())).collect();
            // Theirs alone, so that nothing is sent to nobody.
            drop(receive);
            // What is wrong needs no more reading.
            let mut wanted = self.chunks().take_while(|_| !wrong.load(Ordering::Relaxed));
            let done = wanted.try_for_each(|range| {
                let fetched = read(range.clone())?;
                // Nobody is there where all have panicked, which is told below.
                let _ = send.send((range, fetched));
                Ok(())
            });
            drop(send);
            for worker in workers {
                match worker.join() {
                    Ok(own) => seen.join(own),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            done
        })
    }

    fn nothing(&self) -> Seen {
        let rows = self.projection.as_ref().map_or(0, |projection| projection.sums.len());
        Seen { tally: Tally::default(), sums: vec![0.0; rows], wrong: None }
    }

    /// Whole rows, or pieces of one: `spans` sees to it that neither splits a run.
    fn chunks(&self) -> impl Iterator<Item = Range<u64>> {
        let (elements, columns) = (self.elements, self.columns);
        let step = if columns > CHUNK { CHUNK } else { CHUNK / columns * columns };
        let mut start = 0;
        std::iter::from_fn(move || {
            let row_end = if columns > CHUNK { (start / columns + 1) * columns } else { elements };
            let range = start..(start + step).min(row_end);
            start = range.end;
            (range.start < elements).then_some(range)
        })
    }

    /// Looks at one chunk.
    fn look(&self, named: &str, seen: &mut Seen, range: Range<u64>, fetched: Fetched) {
        let (start, values) = (range.start, fetched());
        let wrong = |why: String| Some((start, Error::Wrong(format!("{named}: {why}"))));
        if values.len() as u64 != range.end - start {
            let why = wrong(format!("{} elements came back where {} were asked for", values.len(), range.end - start));
            return seen.refuse(why);
        }
        if !all_finite(&values)
            && let Some(at) = values.iter().position(|v| !v.is_finite())
        {
            let bad = values.iter().filter(|v| !v.is_finite()).count();
            return seen.refuse(wrong(format!(
                "output element {} is {} ({bad} of {} read there are unwritten or not finite)",
                self.place(start + at as u64),
                values[at],
                values.len()
            )));
        }
        if let Some(truth) = self.uniform {
            let allowed = self.allowed(truth);
            // What equals a right first value is right, and no worse than it.
            let first = values.first().copied().filter(|first| !exceeds((first - truth).abs(), allowed)).unwrap_or(f64::NAN);
            let other = |&(i, &value): &(usize, &f64)| i == 0 || value != first;
            values.iter().enumerate().filter(other).for_each(|(i, &value)| seen.tally.take(start + i as u64, value, truth, allowed));
        }
        let runs = self.runs.partition_point(|run| run.start < start)..self.runs.partition_point(|run| run.start < range.end);
        for run in &self.runs[runs] {
            let at = (run.start - start) as usize;
            for (i, (&truth, &value)) in run.truth.iter().zip(&values[at..]).enumerate() {
                seen.tally.take(run.start + i as u64, value, truth, self.allowed(truth));
            }
        }
        if let Some(projection) = &self.projection {
            let offset = (start % self.columns) as usize;
            for (i, row) in values.chunks(self.columns as usize).enumerate() {
                seen.sums[(start / self.columns) as usize + i] +=
                    row.iter().zip(&projection.weights[offset..]).map(|(v, r)| v * r).sum::<f64>();
            }
        }
    }

    fn judge(&self, named: &str, draw: Draw, tally: Tally, sums: &[f64]) -> Result<Verification> {
        if tally.wrong > 0 {
            let (at, value, truth) = (self.place(tally.worst_at), tally.worst_value, tally.worst_truth);
            return Err(Error::Wrong(format!(
                "{named}: output element {at} is {value:e} where {truth:e} is right within {:.2e} ({} of {} checked elements are wrong)",
                tally.allowed, tally.wrong, self.checked
            )));
        }
        if let Some(projection) = &self.projection {
            let off = |(_, (got, want)): &(usize, (&f64, &f64))| exceeds((*got - *want).abs(), projection.allowed);
            if let Some((row, (got, want))) = sums.iter().zip(&projection.sums).enumerate().find(off) {
                return Err(Error::Wrong(format!(
                    "{named}: row {row} fails Freivalds' check ({got:e} where {want:e} is right within {:.2e})",
                    projection.allowed
                )));
            }
        }
        Ok(Verification {
            worst_error: tally.error,
            allowed: tally.allowed,
            elements_checked: self.checked,
            tiles_checked: self.tiles,
            draw,
        })
    }

    fn place(&self, flat: u64) -> String {
        format!("[{}, {}]", flat / self.columns, flat % self.columns)
    }
}

/// The worst of the elements compared so far, by share of what is allowed.
struct Tally {
    wrong: u64,
    share: f64,
    error: f64,
    allowed: f64,
    worst_at: u64,
    worst_value: f64,
    worst_truth: f64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally { wrong: 0, share: -1.0, error: 0.0, allowed: 0.0, worst_at: 0, worst_value: 0.0, worst_truth: 0.0 }
    }
}

impl Tally {
    fn take(&mut self, at: u64, value: f64, truth: f64, allowed: f64) {
        let error = (value - truth).abs();
        let share = if error == 0.0 { 0.0 } else { error / allowed };
        if exceeds(error, allowed) {
            self.wrong += 1;
        }
        if exceeds(share, self.share) {
            *self = Tally { wrong: self.wrong, share, error, allowed, worst_at: at, worst_value: value, worst_truth: truth };
        }
    }

    /// Both, as if one had taken all: of equal shares the element that comes first.
    fn join(&mut self, other: Tally) {
        let wrong = self.wrong + other.wrong;
        if exceeds(other.share, self.share) || (other.share == self.share && other.worst_at < self.worst_at) {
            *self = other;
        }
        self.wrong = wrong;
    }
}

impl Seen {
    fn refuse(&mut self, wrong: Option<(u64, Error)>) {
        let first = |(at, _): &(u64, Error)| self.wrong.as_ref().is_none_or(|(before, _)| at < before);
        if let Some(earlier) = wrong.filter(first) {
            self.wrong = Some(earlier);
        }
    }

    fn join(&mut self, other: Seen) {
        self.tally.join(other.tally);
        self.sums.iter_mut().zip(other.sums).for_each(|(own, more)| *own += more);
        self.refuse(other.wrong);
    }
}

/// Whether all values are finite: zero times any of them is then zero. Several sums side by side, for speed.
fn all_finite(values: &[f64]) -> bool {
    const LANES: usize = 8;
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().all(|v| v.is_finite());
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += 0.0 * chunk[lane];
        }
    }
    rest && sums == [0.0; LANES]
}

/// Whether a deviation is larger than its limit; one that is not a number always is.
fn exceeds(deviation: f64, limit: f64) -> bool {
    deviation.is_nan() || limit.is_nan() || deviation > limit
}
