//! One problem of one op, by flags that are named like its fields.

use clap::Args;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::op;

/// Fields of one problem, in place of the grid; needs exactly one --op.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "One problem of one op, by its fields")]
pub(super) struct Shape {
    /// Rows of A and C (matmul, quantized)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    m: Option<u64>,
    /// Columns of B and C (matmul, quantized), images (convolutions)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    n: Option<u64>,
    /// Columns of A (matmul, quantized), filter extent (convolutions)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    k: Option<u64>,
    /// Input rows
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    h: Option<u64>,
    /// Input columns
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    w: Option<u64>,
    /// Channels (depthwise)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    c: Option<u64>,
    /// Input channels (conv2d)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    c_in: Option<u64>,
    /// Output channels (conv2d)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    c_out: Option<u64>,
    /// Filter rows, where not --k (conv2d)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    kh: Option<u64>,
    /// Filter columns, where not --k (conv2d)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    kw: Option<u64>,
    /// Step between outputs
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    stride: Option<u64>,
    /// Zeros around the input
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    padding: Option<u64>,
    /// Step between filter taps
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    dilation: Option<u64>,
    /// Groups of channels that see nothing of each other (conv2d)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    groups: Option<u64>,
    /// Sequences (attention)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    batch: Option<u64>,
    /// Heads of queries (attention)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    heads: Option<u64>,
    /// Heads of keys and values; as many as --heads unless given (attention)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    kv_heads: Option<u64>,
    /// Queries and keys of a head (attention)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    seq: Option<u64>,
    /// Queries of a head, with --seq-kv in place of --seq (attention)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    seq_q: Option<u64>,
    /// Keys of a head, with --seq-q in place of --seq (attention)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    seq_kv: Option<u64>,
    /// Elements of a query, a key and a value (attention)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    head_dim: Option<u64>,
    /// Bits of a weight, 8 or 4 (quantized)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    bits: Option<u64>,
    /// Weights of a column that share a scale (quantized)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    group_size: Option<u64>,
    /// A query sees no key behind its own position (attention)
    #[arg(long)]
    causal: bool,
    /// Keys and values of a head once projected (linformer)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    rank: Option<u64>,
    /// Random features (performer)
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    features: Option<u64>,
}

/// A size as typed. A sign is read too, so that it is refused in these words.
fn whole(text: &str) -> std::result::Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is no whole number from 0 to 2^64 - 1; write something like 512"))
}

impl Shape {
    /// The one problem asked for, with its op.
    pub(super) fn problem(&self, ops: &[String]) -> Result<Option<(String, Value)>> {
        let given = [
            ("m", self.m),
            ("n", self.n),
            ("k", self.k),
            ("h", self.h),
            ("w", self.w),
            ("c", self.c),
            ("c_in", self.c_in),
            ("c_out", self.c_out),
            ("kh", self.kh),
            ("kw", self.kw),
            ("stride", self.stride),
            ("padding", self.padding),
            ("dilation", self.dilation),
            ("groups", self.groups),
            ("batch", self.batch),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("seq", self.seq),
            ("seq_q", self.seq_q),
            ("seq_kv", self.seq_kv),
            ("head_dim", self.head_dim),
            ("rank", self.rank),
            ("features", self.features),
            ("bits", self.bits),
            ("group_size", self.group_size),
        ];
        let numbers = given.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?.into())));
        let fields: Map<String, Value> = numbers.chain(self.causal.then(|| ("causal".to_string(), true.into()))).collect();
        if fields.is_empty() {
            return Ok(None);
        }
        let [op] = ops else {
            return Err(Error::usage("shape flags describe one problem: name its op with --op, for example --op matmul --m 512"));
        };
        let problem = Value::Object(fields);
        // Parsed here so that an impossible shape is refused before anything is measured; defaults are filled in.
        let parsed = (op::find(op)?.parse)(&problem)?;
        Ok(Some((op.clone(), parsed.problem())))
    }
}
