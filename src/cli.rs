//! The command line: one file per command; the only code that prints or draws progress.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::op::{self, Size};
use crate::plan::{Precision, Unit};

mod budget;
mod cost;
mod devices;
mod explain;
mod output;
mod own;
mod run;
mod scope;
mod show;
mod study;
mod verify;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 no such device or feature, 4 a kernel gave a wrong output, 5 finished with
holes (partial file saved), 6 unreadable input, 130 interrupted (partial file saved).";

/// Measures a processor's roofline and places verified, hand-written kernels on it.
#[derive(Debug, Parser)]
#[command(name = "rooftrace", version, args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Measuring,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace the roofs, measure every kernel and place it (the default command)
    Run(Measuring),
    /// Trace the roofs only
    Trace(Measuring),
    /// List what can be measured here, and why the rest cannot
    Devices {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check every variant against the oracle on awkward shapes; no timing
    Verify(Verifying),
    /// Measure a kernel of your own beside ours: bound by the op's tensors, verified, timed, placed
    #[command(name = "try", after_help = own::HELP)]
    Try(Box<Trying>),
    /// Work out one problem: operations, bytes, intensity, and what it waits for on a recorded or given roof; needs no device
    #[command(after_help = explain::HELP)]
    Explain(Box<Explaining>),
    /// Answer a named question by measuring: a verdict, a table and a picture; alone, lists the questions
    Study(Studying),
    /// Show table and chart of a recorded run; needs no device
    Show(Showing),
}

/// On which device, how much of it, and what is said meanwhile.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Device: host, wgpu:0, cuda:0 or all [default: cuda, else a hardware wgpu device, else host; for `try` what runs the file]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// How many problems, and how much time each
    #[arg(long, value_enum, default_value_t = Size::Standard)]
    size: Size,
    /// Fail with exit code 3 where this backend has no device, or this library of a vendor is not installed
    #[arg(long, value_name = "BACKEND")]
    require: Vec<String>,
    /// Seed of all inputs
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
    /// Say more on standard error
    #[arg(long, short)]
    verbose: bool,
}

/// What is measured, on which device.
#[derive(Debug, Clone, Args)]
struct Scoping {
    #[command(flatten)]
    common: Common,
    /// Only these ops (comma-separated)
    #[arg(long, value_delimiter = ',', value_name = "OP")]
    op: Vec<String>,
    /// Only these variants (comma-separated)
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    variant: Vec<String>,
    /// Only these precisions (comma-separated)
    #[arg(long, value_enum, value_delimiter = ',')]
    precision: Vec<Precision>,
}

#[derive(Debug, Clone, Args)]
struct Measuring {
    #[command(flatten)]
    scope: Scoping,
    #[command(flatten)]
    keeping: Keeping,
    #[command(flatten)]
    costing: cost::Costing,
    #[command(flatten)]
    shape: Shape,
}

/// A user's own kernel.
#[derive(Debug, Clone, Args)]
struct Trying {
    /// The op that it computes
    op: String,
    /// Its file: .wgsl or .cu
    #[arg(required_unless_present = "template")]
    file: Option<PathBuf>,
    /// Print a kernel to start from, with the command that runs it
    #[arg(long, value_enum, value_name = "LANGUAGE", conflicts_with = "file")]
    template: Option<own::Template>,
    /// Entry point
    #[arg(long, default_value = "main", value_name = "NAME")]
    entry: String,
    /// Constants to compile it with: BM=64,BN=64
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    tile: Vec<String>,
    /// Lanes of a group: 256, 16x16, 8x8x4 [default: 64; WGSL states its own]
    #[arg(long, value_name = "XxYxZ")]
    group: Option<String>,
    /// Groups of the launch, over sizes and tiles: n/BN,m/BM (`/` rounds up)
    #[arg(long, value_name = "X,Y,Z")]
    grid: Option<String>,
    /// Number format of tensors and sums
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// Unit that does its arithmetic
    #[arg(long, value_enum, default_value_t = Unit::Vector)]
    unit: Unit,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    keeping: Keeping,
    #[command(flatten)]
    costing: cost::Costing,
    #[command(flatten)]
    shape: Shape,
}

/// A question.
#[derive(Debug, Clone, Args)]
struct Studying {
    /// Which; left out, all are listed
    name: Option<String>,
    /// A records.jsonl whose roof is taken [default: that of the last run here within a day, else it is traced]
    #[arg(long, value_name = "FILE", requires = "name")]
    roof: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    keeping: Keeping,
    #[command(flatten)]
    costing: cost::Costing,
}

/// One problem, and the roof that it is held against.
#[derive(Debug, Clone, Args)]
struct Explaining {
    /// The op
    op: String,
    /// Number format of tensors and sums
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,
    /// A records.jsonl whose roof is taken
    #[arg(long, value_name = "FILE", conflicts_with_all = ["peak", "bandwidth"])]
    roof: Option<PathBuf>,
    /// Peak of arithmetic: 989TFLOP/s
    #[arg(long, value_parser = explain::flop_rate, value_name = "RATE", requires = "bandwidth", allow_hyphen_values = true)]
    peak: Option<f64>,
    /// Peak of memory: 4.8TB/s
    #[arg(long, value_parser = explain::byte_rate, value_name = "RATE", requires = "peak", allow_hyphen_values = true)]
    bandwidth: Option<f64>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = explain::Format::Text)]
    format: explain::Format,
    #[command(flatten)]
    shape: Shape,
}

/// For how long, and into which folder.
#[derive(Debug, Clone, Args)]
struct Keeping {
    /// Time to spend: 90s, 2m; what does not fit is listed as not run
    #[arg(long, value_parser = budget::duration, value_name = "TIME")]
    budget: Option<Duration>,
    /// Folder for records.jsonl and the picture [default: rooftrace-out/<device>-<UTC time>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
struct Verifying {
    #[command(flatten)]
    scope: Scoping,
    /// Plant known mistakes in the sources and demand that each is refused
    #[arg(long)]
    mutants: bool,
}

#[derive(Debug, Clone, Args)]
struct Showing {
    /// A records.jsonl
    file: PathBuf,
    /// Print the derived view as JSON
    #[arg(long)]
    json: bool,
    /// Print the table as Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Draw the chart with plain ASCII
    #[arg(long)]
    ascii: bool,
    /// Also write the picture here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    costing: cost::Costing,
}

/// Fields of one problem, in place of the grid; needs exactly one --op.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "One problem of one op, by its fields")]
struct Shape {
    /// Rows of A and C (matmul)
    #[arg(long, value_name = "N")]
    m: Option<u64>,
    /// Columns of B and C (matmul), images (convolutions)
    #[arg(long, value_name = "N")]
    n: Option<u64>,
    /// Columns of A (matmul), filter extent (convolutions)
    #[arg(long, value_name = "N")]
    k: Option<u64>,
    /// Input rows
    #[arg(long, value_name = "N")]
    h: Option<u64>,
    /// Input columns
    #[arg(long, value_name = "N")]
    w: Option<u64>,
    /// Channels (depthwise)
    #[arg(long, value_name = "N")]
    c: Option<u64>,
    /// Input channels (conv2d)
    #[arg(long, value_name = "N")]
    c_in: Option<u64>,
    /// Output channels (conv2d)
    #[arg(long, value_name = "N")]
    c_out: Option<u64>,
    /// Filter rows, where not --k (conv2d)
    #[arg(long, value_name = "N")]
    kh: Option<u64>,
    /// Filter columns, where not --k (conv2d)
    #[arg(long, value_name = "N")]
    kw: Option<u64>,
    /// Step between outputs
    #[arg(long, value_name = "N")]
    stride: Option<u64>,
    /// Zeros around the input
    #[arg(long, value_name = "N")]
    padding: Option<u64>,
    /// Step between filter taps
    #[arg(long, value_name = "N")]
    dilation: Option<u64>,
    /// Groups of channels that see nothing of each other (conv2d)
    #[arg(long, value_name = "N")]
    groups: Option<u64>,
    /// Sequences (attention)
    #[arg(long, value_name = "N")]
    batch: Option<u64>,
    /// Heads of queries (attention)
    #[arg(long, value_name = "N")]
    heads: Option<u64>,
    /// Heads of keys and values; as many as --heads unless given (attention)
    #[arg(long, value_name = "N")]
    kv_heads: Option<u64>,
    /// Queries and keys of a head (attention)
    #[arg(long, value_name = "N")]
    seq: Option<u64>,
    /// Queries of a head, where not --seq (attention)
    #[arg(long, value_name = "N")]
    seq_q: Option<u64>,
    /// Keys of a head, where not --seq (attention)
    #[arg(long, value_name = "N")]
    seq_kv: Option<u64>,
    /// Elements of a query, a key and a value (attention)
    #[arg(long, value_name = "N")]
    head_dim: Option<u64>,
    /// A query sees no key behind its own position (attention)
    #[arg(long)]
    causal: bool,
    /// Keys and values of a head once projected (linformer)
    #[arg(long, value_name = "N")]
    rank: Option<u64>,
    /// Random features (performer)
    #[arg(long, value_name = "N")]
    features: Option<u64>,
}

impl Shape {
    /// The one problem asked for, with its op.
    fn problem(&self, ops: &[String]) -> Result<Option<(String, Value)>> {
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

impl Cli {
    /// Runs the command; the status is 0, or what stands for holes and wrong outputs in a finished run.
    ///
    /// # Errors
    /// The library's own, to be printed as a chain.
    pub fn run(self) -> anyhow::Result<u8> {
        let status = match self.command {
            None => run::run(&self.run, run::Mode::Run),
            Some(Command::Run(args)) => run::run(&args, run::Mode::Run),
            Some(Command::Trace(args)) => run::run(&args, run::Mode::Trace),
            Some(Command::Devices { json }) => devices::run(json),
            Some(Command::Verify(args)) => verify::run(&args),
            Some(Command::Try(args)) => own::run(&args),
            Some(Command::Explain(args)) => explain::run(&args),
            Some(Command::Study(args)) => study::run(&args),
            Some(Command::Show(args)) => show::run(&args),
        }?;
        Ok(status as u8)
    }
}

/// Name of a size as typed.
fn size_name(size: Size) -> String {
    size.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default()
}
