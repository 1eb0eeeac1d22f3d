//! How far Linformer and Performer lie from exact attention, computed from the definitions in f64: no device has a part in it.
//!
//! One head, so many tokens, some of its queries; the error is the Frobenius norm of the outputs' difference over that of the exact
//! outputs. *Independent*: elements of q, k and v are near-normal draws with σ 0.577, so that scores have a σ of 1/3. *Smooth*: those of
//! k and v follow lines between such draws, which stand 16 tokens apart, so that neighbours are alike; q is drawn as before.
//!
//! Linformer learns e and f. Here they are drawn, as where it is verified: then nothing makes a projected key stand for keys, and what
//! comes out has little to do with attention. Or each of their rows averages a stretch of neighbours, one of the projections that its
//! authors name (Wang et al., 2020, section 4); among independent keys, which have no rank to find below their number, that is still a
//! worst case. Performer's w is drawn, as its authors do.

use std::sync::{Arc, OnceLock};

use crate::draw::{Draw, element, keys};
use crate::op::attention::Attention;
use crate::op::linformer::Linformer;
use crate::op::performer::Performer;
use crate::op::{Definition, Kept, Real, Tensors};

/// Tokens of the head.
pub(super) const TOKENS: u64 = 1024;
const HEAD_DIM: u64 = 64;
/// Every so many queries are compared.
const EVERY: u64 = 8;
/// Tokens between two draws of smooth inputs.
const APART: u64 = 16;
/// Ranks, and numbers of features.
const WIDTHS: [u64; 3] = [64, 256, 512];

/// How attention is approximated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Linformer over drawn e and f.
    Drawn,
    /// Linformer over averages of neighbours.
    Averaged,
    /// Performer.
    Features,
}

/// The relative errors of an approximation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Error {
    means: Means,
    width: u64,
    pub(super) independent: f64,
    pub(super) smooth: f64,
}

impl Error {
    /// As the table names it.
    pub(super) fn form(&self) -> String {
        match self.means {
            Means::Drawn => format!("Linformer {}, drawn", self.width),
            Means::Averaged => format!("Linformer {}, averages", self.width),
            Means::Features => format!("Performer {}", self.width),
        }
    }
}

/// `12 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{}%", if share < 0.1 { format!("{:.1}", 100.0 * share) } else { format!("{:.0}", 100.0 * share) })
}

/// All errors: the same on every machine, computed once.
pub(super) fn known() -> &'static [Error] {
    static KNOWN: OnceLock<Vec<Error>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let [independent, smooth] = [false, true].map(Inputs::of);
        let [exactly, exactly_smooth] = [&independent, &smooth].map(|inputs| outputs(&attention(), &inputs.reader(None)));
        let all = [Means::Drawn, Means::Averaged, Means::Features].into_iter().flat_map(|means| WIDTHS.map(|width| (means, width)));
        let error = |(means, width)| Error {
            means,
            width,
            independent: relative(&approximated(&independent, means, width), &exactly),
            smooth: relative(&approximated(&smooth, means, width), &exactly_smooth),
        };
        all.map(error).collect()
    })
}

/// The errors in words.
pub(super) fn told() -> Vec<String> {
    let of = |means: Means, get: fn(&Error) -> f64| {
        let all: Vec<String> = known().iter().filter(|error| error.means == means).map(|error| percent(get(error))).collect();
        all.join(", ")
    };
    vec![
        format!(
            "Error against exact attention, relative, of one head of {HEAD_DIM} and {TOKENS} tokens by the definitions in f64: Performer with \
             {} features {} over independent inputs (near-normal, scores with a σ of 1/3), {} over keys and values that change slowly.",
            WIDTHS.map(|width| width.to_string()).join(", "),
            of(Means::Features, |error| error.independent),
            of(Means::Features, |error| error.smooth),
        ),
        format!(
            "Linformer at these ranks, averaging neighbours: {} over slow inputs, {} over independent ones, which have no low rank to find and \
             are its worst case; with drawn e and f, {}: it has to learn them, and only its cost is measured here.",
            of(Means::Averaged, |error| error.smooth),
            of(Means::Averaged, |error| error.independent),
            of(Means::Drawn, |error| error.independent),
        ),
    ]
}

fn attention() -> Attention {
    Attention { batch: 1, heads: 1, kv_heads: 1, seq_q: TOKENS, seq_kv: TOKENS, head_dim: HEAD_DIM, causal: false }
}

fn approximated(inputs: &Inputs, means: Means, width: u64) -> Vec<f64> {
    let linformer = Linformer { batch: 1, heads: 1, seq: TOKENS, head_dim: HEAD_DIM, rank: width };
    let performer = Performer { batch: 1, heads: 1, seq: TOKENS, head_dim: HEAD_DIM, features: width };
    match means {
        Means::Features => outputs(&performer, &inputs.reader(Some(&|tensor, index| drawn(tensor, index)))),
        Means::Drawn => outputs(&linformer, &inputs.reader(Some(&|tensor, index| drawn(tensor, index)))),
        Means::Averaged => {
            let stretch = TOKENS / width;
            let average = |_: usize, index: u64| {
                let (row, column) = (index / TOKENS, index % TOKENS);
                if column / stretch == row { 1.0 / (stretch as f64 * linformer.unit()) } else { 0.0 }
            };
            outputs(&linformer, &inputs.reader(Some(&average)))
        }
    }
}

/// Every so many rows of outputs.
fn outputs<P: Definition>(problem: &P, inputs: &Reader<'_>) -> Vec<f64> {
    let mut all = vec![0.0; (TOKENS / EVERY * HEAD_DIM) as usize];
    for (row, out) in (0..TOKENS).step_by(EVERY as usize).zip(all.chunks_exact_mut(HEAD_DIM as usize)) {
        problem.row::<f64, _>(inputs, row, 0..HEAD_DIM, out);
    }
    all
}

fn relative(found: &[f64], exactly: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(exactly).map(|(a, b)| a - b)) / norm(&mut exactly.iter().copied())
}

/// Element `index` of tensor `tensor` in a plain draw.
fn drawn(tensor: usize, index: u64) -> f64 {
    element(Draw::Dense, &keys(1, tensor as u32), index) as f64
}

/// Queries, keys and values.
struct Inputs([Vec<f64>; 3]);

impl Inputs {
    fn of(smooth: bool) -> Self {
        let value = |tensor: usize, index: u64| {
            let (token, column) = (index / HEAD_DIM, index % HEAD_DIM);
            let at = |stop: u64| drawn(tensor, stop * HEAD_DIM + column);
            let part = (token % APART) as f64 / APART as f64;
            if smooth && tensor > 0 { at(token / APART) * (1.0 - part) + at(token / APART + 1) * part } else { at(token) }
        };
        Inputs([0, 1, 2].map(|tensor| (0..TOKENS * HEAD_DIM).map(|index| value(tensor, index)).collect()))
    }

    fn reader<'a>(&'a self, weights: Option<&'a dyn Fn(usize, u64) -> f64>) -> Reader<'a> {
        Reader { inputs: self, weights, kept: Kept::default() }
    }
}

/// Inputs, and the weights of one approximation.
struct Reader<'a> {
    inputs: &'a Inputs,
    weights: Option<&'a dyn Fn(usize, u64) -> f64>,
    kept: Kept,
}

impl Tensors for Reader<'_> {
    fn at<R: Real>(&self, tensor: usize, index: u64) -> R {
        R::from_f64(match (self.inputs.0.get(tensor), self.weights) {
            (Some(values), _) => values[index as usize],
            (None, Some(weights)) => weights(tensor, index),
            (None, None) => f64::NAN,
        })
    }
    /// No op here has words.
    fn word(&self, _: usize, _: u64) -> u32 {
        0
    }
    fn shared<R: Real>(&self, part: u64, make: impl FnOnce() -> Vec<R>) -> Arc<Vec<R>> {
        self.kept.of(part, make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(means: Means, width: u64) -> Error {
        *known().iter().find(|error| error.means == means && error.width == width).expect("one of the table")
    }

    #[test]
    fn averages_of_single_tokens_are_exact_and_errors_fall_with_features() {
        let inputs = Inputs::of(false);
        let exactly = outputs(&attention(), &inputs.reader(None));
        assert!(relative(&approximated(&inputs, Means::Averaged, TOKENS), &exactly) < 1e-12);
        let [few, more, most] = WIDTHS.map(|width| error(Means::Features, width).independent);
        assert!(few > 1.2 * more && more > 1.2 * most && most < 0.7, "{few} {more} {most}");
        let averaged = error(Means::Averaged, 256);
        assert!(averaged.smooth < 0.1 * averaged.independent, "{averaged:?}");
        assert!(error(Means::Drawn, 256).independent > 1.0);
    }
}
