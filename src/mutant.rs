//! Mutants: textual patches of the shipped sources that must all be refused.
//!
//! A check that cannot fail proves nothing. Each mutant is a small, plausible mistake; `verify --mutants` runs them and the list
//! of survivors must be empty. Faults that need no source (an output of NaN, one shifted by one, one that goes wrong after the
//! tenth launch, one that stops writing) are scripted on the fake device instead.

use crate::error::{Error, Result};
use crate::plan::{Code, Language, Plan};

mod cuda;
mod wgsl;

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
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    wgsl::MUTANTS.iter().chain(cuda::MUTANTS)
}

/// The mutant of that name for a plan's source.
///
/// # Errors
/// [`Error::Usage`] where there is none.
pub fn find(plan: &Plan, name: &str) -> Result<&'static Mutant> {
    let of = |m: &&Mutant| m.op == plan.op && m.variant == plan.variant && m.language == plan.language && m.name == name;
    all().find(of).ok_or_else(|| Error::usage(format!("{}/{} has no mutant '{name}' in {:?}", plan.op, plan.variant, plan.language)))
}

impl Mutant {
    /// Patches the plan's text.
    ///
    /// # Errors
    /// [`Error::Usage`] where the text does not hold `find` exactly once: the source changed and the mutant did not.
    pub fn apply(&self, plan: &mut Plan) -> Result<()> {
        let text = match &mut plan.code {
            Code::Wgsl(text) | Code::Cuda { text, .. } => text,
            Code::Host(_) | Code::Library(_) | Code::Transfer(_) => {
                return Err(Error::usage(format!("mutant '{}': Rust kernels, libraries and copies have no text to patch", self.name)));
            }
        };
        if text.matches(self.find).count() != 1 {
            return Err(Error::usage(format!(
                "mutant '{}' of {}/{}: its text is not found exactly once in the source; mend the table",
                self.name, self.op, self.variant
            )));
        }
        *text = text.replace(self.find, self.replace);
        Ok(())
    }
}
