//! Mutants: textual patches of the shipped sources that must all be refused.
//!
//! A check that cannot fail proves nothing. Each mutant is a small, plausible mistake; `verify --mutants` runs them and the list
//! of survivors must be empty. Faults that need no source (an output of NaN, one shifted by one, one that goes wrong after the
//! tenth launch, one that stops writing) are scripted on the fake device instead.

use crate::error::{Error, Result};
use crate::plan::{Code, Language, Plan};

/// One patch of one shipped source.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// Op.
    pub op: &'static str,
    /// Variant.
    pub variant: &'static str,
    /// Language of the source.
    pub language: Language,
    /// The mistake, in a few words.
    pub name: &'static str,
    /// Text to be found, exactly once.
    pub find: &'static str,
    /// What it becomes.
    pub replace: &'static str,
}

/// All mutants.
pub const MUTANTS: &[Mutant] = &[
    wgsl("matmul", "naive", "loses the last step of k", "p < dims.k; p++", "p + 1u < dims.k; p++"),
    wgsl("matmul", "naive", "reads B transposed", "b[p * dims.n + id.x]", "b[id.x * dims.k + p]"),
    wgsl("matmul", "naive", "skips the tail guard", "id.x >= dims.n || id.y >= dims.m", "id.y >= dims.m"),
    wgsl("matmul", "register", "loses the last k tile", "p < dims.k / 4u; p++", "p + 1u < dims.k / 4u; p++"),
    wgsl("matmul", "register", "takes the wrong component of A", "vec4<S>(left[i].y), r1", "vec4<S>(left[i].z), r1"),
    wgsl("matmul", "register", "stores past the last column", "row + i < dims.m && at < dims.n", "row + i < dims.m"),
    wgsl("matmul", "register", "stores past the last row", "row + i < dims.m && col + 8u * j < cols", "col + 8u * j < cols"),
    wgsl("depthwise", "naive", "loses the last filter row", "r < dims.k; r++", "r + 1u < dims.k; r++"),
    wgsl("depthwise", "naive", "transposes the filter", "(r * dims.k + s) * dims.c", "(s * dims.k + r) * dims.c"),
    wgsl("depthwise", "naive", "wraps round the image's edge", "h < dims.h && w < dims.w", "h < dims.h"),
    wgsl("depthwise", "window", "does not slide its window", "window[t] = window[t + 3u];", "window[t] = window[t];"),
    wgsl("depthwise", "window", "transposes the filter", "vec4<S>(f4[(r * dims.k + s)", "vec4<S>(f4[(s * dims.k + r)"),
    wgsl("depthwise", "window", "runs past the end of its row", "min(first + STRIP, dims.ow)", "first + STRIP"),
    wgsl("depthwise", "window", "transposes the filter of odd channels", "S(f[(r * dims.k + s)", "S(f[(s * dims.k + r)"),
    wgsl("stream", "linear", "omits the barrier of the reduction", "        workgroupBarrier();", "        "),
    wgsl("stream", "linear", "loses the first element of the tail", "let tail = max(end * 4u, head_end);", "let tail = max(end * 4u, head_end) + 1u;"),
    wgsl("stream", "linear", "copies shifted by one vector", "out[i] = s * a[i];", "out[i] = s * a[i + 1u];"),
    wgsl("stream", "linear", "swaps the operands of triad", "fma(vec4<T>(s), a[i], b[i])", "fma(vec4<T>(s), b[i], a[i])"),
    wgsl("stream", "linear", "writes the first pass's scalar in all", "out[i] = vec4<T>(s);", "out[i] = vec4<T>(coef[0]);"),
    wgsl("fma", "chains", "stops one trip early", "trip < dims.trips", "trip + 1u < dims.trips"),
    wgsl("fma", "chains", "never grows the addend", "b += step;", "b += T();"),
    wgsl("fma", "chains", "skips half of the steps", "s += 8u", "s += 16u"),
];

const fn wgsl(op: &'static str, variant: &'static str, name: &'static str, find: &'static str, replace: &'static str) -> Mutant {
    Mutant { op, variant, language: Language::Wgsl, name, find, replace }
}

/// The mutant of that name for a plan's source.
///
/// # Errors
/// [`Error::Usage`] where there is none.
pub fn find(plan: &Plan, name: &str) -> Result<&'static Mutant> {
    let of = |m: &&Mutant| m.op == plan.op && m.variant == plan.variant && m.language == plan.language && m.name == name;
    MUTANTS.iter().find(of).ok_or_else(|| Error::usage(format!("{}/{} has no mutant '{name}' in {:?}", plan.op, plan.variant, plan.language)))
}

impl Mutant {
    /// Patches the plan's text.
    ///
    /// # Errors
    /// [`Error::Usage`] where the text does not hold `find` exactly once: the source changed and the mutant did not.
    pub fn apply(&self, plan: &mut Plan) -> Result<()> {
        let text = match &mut plan.code {
            Code::Wgsl(text) | Code::Cuda { text, .. } => text,
            Code::Host(_) => return Err(Error::usage(format!("mutant '{}': a Rust kernel has no text to patch", self.name))),
        };
        if text.matches(self.find).count() != 1 {
            return Err(Error::usage(format!("mutant '{}' of {}/{}: its text is not found exactly once in the source; mend the table", self.name, self.op, self.variant)));
        }
        *text = text.replace(self.find, self.replace);
        Ok(())
    }
}
