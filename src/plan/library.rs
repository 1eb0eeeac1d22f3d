//! A routine of a vendor's library as plain data: what a reference asks for. An op's table makes it, a backend that knows no op has it done.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::op::TensorSpec;

/// A library that a device's vendor ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Library {
    /// Dense linear algebra.
    Cublas,
    /// Matrix products whose algorithm the caller chooses.
    CublasLt,
    /// Convolutions.
    Cudnn,
}

impl Library {
    /// Every library that has a routine in a table.
    pub const ALL: [Library; 3] = [Library::Cublas, Library::CublasLt, Library::Cudnn];

    /// Its name in commands: that of the variants that call it.
    pub const fn key(self) -> &'static str {
        match self {
            Library::Cublas => "cublas",
            Library::CublasLt => "cublaslt",
            Library::Cudnn => "cudnn",
        }
    }

    /// The library of that name in commands.
    pub fn find(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|library| library.key() == key)
    }

    /// Bytes of device memory that a call may use beyond its tensors: 32 MiB, as much as its vendor advises for its largest devices; for
    /// convolutions room as well to lay every tensor out anew, without which some of its algorithms are not to be had.
    pub fn workspace(self, tensors: &[TensorSpec]) -> u64 {
        const ROOM: u64 = 32 << 20;
        match self {
            Library::Cublas | Library::CublasLt => ROOM,
            Library::Cudnn => ROOM + tensors.iter().map(TensorSpec::bytes).sum::<u64>(),
        }
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Library::Cublas => "cuBLAS",
            Library::CublasLt => "cuBLASLt",
            Library::Cudnn => "cuDNN",
        })
    }
}

/// A product of tensors 0 and 1 into tensor 2, row-major: `C[m,n] = A[m,k] · B[k,n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gemm {
    /// Rows of A and C.
    pub m: u64,
    /// Columns of B and C.
    pub n: u64,
    /// Columns of A, rows of B.
    pub k: u64,
}

/// How filters lie in memory, the last letter fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterLayout {
    /// Output channel, row, column, input channel of the group.
    Krsc,
    /// Row, column, channel: one filter a channel.
    Rsc,
}

/// A convolution of tensor 0 (NHWC) with the filters of tensor 1 into tensor 2 (NHWC), zeros around the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Images.
    pub n: u64,
    /// Input rows.
    pub h: u64,
    /// Input columns.
    pub w: u64,
    /// Input channels.
    pub c_in: u64,
    /// Output rows.
    pub oh: u64,
    /// Output columns.
    pub ow: u64,
    /// Output channels.
    pub c_out: u64,
    /// Filter rows.
    pub kh: u64,
    /// Filter columns.
    pub kw: u64,
    /// Step between outputs in both directions.
    pub stride: u64,
    /// Zeros on every side.
    pub padding: u64,
    /// Step between taps.
    pub dilation: u64,
    /// Groups of channels.
    pub groups: u64,
    /// Layout of the filters.
    pub filter: FilterLayout,
}

/// What a library is to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routine {
    /// A matrix product.
    Gemm(Gemm),
    /// A convolution.
    Conv(Conv),
}

/// A routine, who computes it, and in how much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryCall {
    /// The library.
    pub library: Library,
    /// The routine.
    pub routine: Routine,
    /// Bytes that it may use beyond its tensors: [`Library::workspace`].
    pub workspace: u64,
}
