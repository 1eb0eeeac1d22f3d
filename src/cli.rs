//! The command line: one file per command; the only code that prints or draws progress.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::op::Size;
use crate::plan::{Precision, Unit};

mod budget;
mod cost;
mod devices;
mod explain;
mod output;
mod own;
mod roof;
mod run;
mod scope;
mod shape;
mod show;
mod study;
mod verify;

use shape::Shape;

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
    /// A records.jsonl whose roof is taken [default: that of the last run here within a day, else it is traced]
    #[arg(long, value_name = "FILE", conflicts_with = "template")]
    roof: Option<PathBuf>,
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
    /// Peak of arithmetic: 989TFLOP/s, bf16=989TFLOP/s
    #[arg(long, value_parser = cost::peak, value_delimiter = ',', value_name = "[PRECISION=]RATE", requires = "bandwidth", allow_hyphen_values = true)]
    peak: Vec<(Option<Precision>, f64)>,
    /// Peak of memory: 4.8TB/s
    #[arg(long, value_parser = explain::byte_rate, value_name = "RATE", requires = "peak", allow_hyphen_values = true)]
    bandwidth: Option<f64>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = explain::Format::Text)]
    format: explain::Format,
    /// What other commands call it; refused with the way out
    #[arg(long, hide = true)]
    json: bool,
    #[command(flatten)]
    shape: Shape,
}

/// For how long, what beside times, and into which folder.
#[derive(Debug, Clone, Args)]
struct Keeping {
    /// Time to spend: 90s, 2m; what does not fit is listed as not run
    #[arg(long, value_parser = budget::duration, value_name = "TIME")]
    budget: Option<Duration>,
    /// Measure energy too, where a counter can be read: a pass of 3 s for each kernel, within --budget; shows what it costs
    #[arg(long)]
    energy: bool,
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
