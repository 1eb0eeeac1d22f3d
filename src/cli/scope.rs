//! Names of ops, variants and backends, refused before anything runs.

use serde_json::{Map, Value};

use super::Scoping;
use crate::error::{Error, Result};
use crate::op;
use crate::plan::Library;

impl Scoping {
    /// Refuses unknown names before anything runs.
    pub(super) fn check(&self) -> Result<()> {
        for op in &self.op {
            op::find(op)?;
        }
        let entries = op::OPS.iter().filter(|entry| self.op.is_empty() || self.op.iter().any(|o| o == entry.name));
        let mut known = Vec::new();
        for entry in entries {
            known.extend((entry.parse)(&Value::Object(Map::new()))?.variants().into_iter().map(|v| v.name));
        }
        if let Some(unknown) = self.variant.iter().find(|v| !known.contains(&v.as_str())) {
            return Err(Error::usage(format!("there is no variant '{unknown}'; known variants are {}", known.join(", "))));
        }
        let backends = ["host", "wgpu", "cuda", "fake"];
        if let Some(unknown) = self.common.require.iter().find(|r| !backends.contains(&r.as_str()) && Library::find(r).is_none()) {
            let known = "write host, wgpu, cuda, cublas, cublaslt or cudnn";
            return Err(Error::usage(format!("--require {unknown}: there is no such backend or library; {known}")));
        }
        Ok(())
    }
}
