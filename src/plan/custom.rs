//! A plan from a user's own kernel: no table entry, but a text that the op's tensor list binds.

use serde::{Deserialize, Serialize};

use super::{DeviceInfo, Dispatch, Grid, Language, Plan, Precision, Tuned, Unit, checked_dims, cost_of, fnv1a, render};
use crate::error::{Error, Result};
use crate::op::{Op, Role, checked_precision, checked_shape};

/// Names that the rendering gives to types.
const TAKEN: [&str; 3] = ["T", "S", "Dims"];

fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether both languages take a text for a name.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_letter) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// A user's kernel: one launch over all tensors of its op, then `Dims`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    /// Name in place of a variant's, such as `try:my.wgsl`.
    pub name: String,
    /// Name of the file, for the compiler's messages; no folder.
    pub file: String,
    /// Its language: WGSL or CUDA C++.
    pub language: Language,
    /// Its text as written.
    pub text: String,
    /// Entry point.
    pub entry: String,
    /// Constants to compile it with.
    pub tile: Tuned,
    /// Lanes of a group; absent where the text states them, as WGSL does.
    pub group: Option<[u32; 3]>,
    /// Groups of the launch, over the sizes of `Dims` and the constants.
    pub grid: Grid,
    /// Unit that does its arithmetic.
    pub unit: Unit,
}

impl Custom {
    /// Lays the kernel out for a problem. What its groups and lanes load is not known, so the cost has no such bytes.
    ///
    /// # Errors
    /// [`Error::Usage`] for constants that cannot be rendered or that nothing uses, and for a grid that cannot be worked out;
    /// [`Error::Unsupported`] where the device speaks another language or the tensors do not fit 32-bit indices.
    pub fn plan(&self, op: &dyn Op, precision: Precision, device: &DeviceInfo) -> Result<Plan> {
        let named = format!("{}/{}", op.name(), self.name);
        if self.language != device.language || self.language == Language::Host {
            return Err(Error::unsupported(named, format!("a device for {}", self.language), format!("only {}", device.language)));
        }
        if !is_name(&self.entry) {
            return Err(Error::usage(format!("entry '{}' is no name; write that of a function in {}", self.entry, self.file)));
        }
        self.check_tile(op)?;
        checked_precision(op, precision)?;
        let tensors = op.tensors(precision)?;
        for tensor in &tensors {
            checked_shape(op.name(), tensor.name, &tensor.shape)?;
        }
        let dims = checked_dims(&named, op.dims(), &tensors, self.language)?;
        let grid = self.grid.groups(&self.values(op))?;
        let of = |wanted: fn(Role) -> bool| (0..tensors.len()).filter(|&t| wanted(tensors[t].role)).collect();
        let (reads, writes) = (of(Role::is_input), of(|role| role == Role::Output));
        let launch = Dispatch::over(tensors.len(), self.entry.clone(), grid, self.group.unwrap_or([1; 3]));
        let dispatches = vec![Dispatch { reads, writes, ..launch }];
        let cost = cost_of(op, precision, &tensors, &dispatches, None);
        let names: Vec<_> = tensors.iter().map(|t| t.name).collect();
        Ok(Plan {
            op: op.name(),
            problem: op.problem(),
            variant: self.name.clone().into(),
            unit: self.unit,
            precision,
            language: self.language,
            tuned: self.tile.clone(),
            code: render::own(self, precision, &dims, &names),
            tensors,
            scratch: Vec::new(),
            dims,
            dispatches,
            cost,
            own: true,
            source_hash: fnv1a(self.text.as_bytes()),
        })
    }

    /// What the names of a grid stand for: sizes, then constants.
    fn values(&self, op: &dyn Op) -> Vec<(&str, u64)> {
        let tile = self.tile.0.iter().map(|(name, &value)| (name.as_str(), value as u64));
        op.dims().into_iter().chain(tile).collect()
    }

    fn check_tile(&self, op: &dyn Op) -> Result<()> {
        let sizes = op.dims();
        for name in self.tile.0.keys() {
            if !is_name(name) {
                return Err(Error::usage(format!("tile '{name}' is no name; write letters, digits and underscores, as in BM=64")));
            }
            if TAKEN.contains(&name.as_str()) || sizes.iter().any(|(size, _)| size == name) {
                return Err(Error::usage(format!("tile '{name}' has the name of a type or size of {}; choose another", op.name())));
            }
            if !self.grid.names(name) && !self.text.split(|c: char| !is_letter(c)).any(|found| found == name) {
                return Err(Error::usage(format!("tile '{name}' stands neither in {} nor in its grid; leave it out", self.file)));
            }
        }
        Ok(())
    }
}
