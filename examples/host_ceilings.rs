//! One host kernel, timed on request: for comparing it with another program in interleaved samples of one machine state.
//!
//! ```text
//! host_ceilings OP VARIANT PRECISION FIELDS TUNABLES LAUNCHES SETS
//! host_ceilings fma chains f32 '{"elements":4096,"trips":64,"steps":512}' '{"CHAINS":12}' 8 1
//! ```
//! Prints `ready WORK` (FLOPs, or bytes for `stream`, of one launch), then for every line on standard input the median and least
//! nanoseconds of one launch over seven samples of LAUNCHES launches, which go on through the SETS where the last one stopped.

use std::io::{BufRead, Write};
use std::sync::Arc;

use rooftrace::backend::host::Host;
use rooftrace::backend::{Backend, Checks};
use rooftrace::draw::{Draw, Seeded};
use rooftrace::op::{Op, find};
use rooftrace::plan::{Language, Precision, Tuned};

/// Samples behind one answer.
const SAMPLES: usize = 7;

fn main() {
    if let Err(error) = serve() {
        eprintln!("host_ceilings: {error}");
        std::process::exit(2);
    }
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [op, variant, precision, fields, tuned, launches, sets] = arguments.as_slice() else {
        return Err("give OP VARIANT PRECISION FIELDS TUNABLES LAUNCHES SETS".into());
    };
    let op: Arc<dyn Op> = (find(op)?.parse)(&serde_json::from_str(fields)?)?;
    let precision: Precision = serde_json::from_str(&format!("\"{precision}\""))?;
    let tuned: Tuned = serde_json::from_str(tuned)?;
    let (launches, sets): (u32, u32) = (launches.parse()?, sets.parse()?);

    let host = Host::new()?;
    let plan = op.plan(variant, precision, Language::Host, &tuned, host.device())?;
    let mut loaded = host.load(&plan, Seeded { draw: Draw::Dense, seed: 1 }, sets, Checks::Trusted)?;
    loaded.sample(launches, 0)?;
    let work = if op.name() == "stream" { plan.cost.compulsory } else { plan.cost.flops };
    println!("ready {work}");

    let mut first = 0;
    for line in std::io::stdin().lock().lines() {
        line?;
        let mut samples = Vec::new();
        for _ in 0..SAMPLES {
            samples.push(loaded.sample(launches, first)?.wall.as_nanos() as f64 / launches as f64);
            first = (first + launches) % sets;
        }
        samples.sort_by(f64::total_cmp);
        println!("{:.1} {:.1}", samples[SAMPLES / 2], samples[0]);
        std::io::stdout().flush()?;
    }
    Ok(())
}
