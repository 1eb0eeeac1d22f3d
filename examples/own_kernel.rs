//! An op of your own, `y[r, c] = shift[c] + x[r, c] * gain[c]`, in Rust and WGSL: verified, timed, and placed under this machine's roofs.
//! `cargo run --release --example own_kernel`

use std::ops::Range;

use rooftrace::campaign::{Scope, roofs};
use rooftrace::measure::Engine;
use rooftrace::op::{Definition, OpRole, Real, Size, TensorSpec, Tensors};
use rooftrace::plan::{Demand, Dispatch, Implementation, Precision, Source, Unit, Variant, fold};
use rooftrace::record::Record;
use rooftrace::report::{Style, table};
use rooftrace::worker::{Effort, Goal, Item, Local};
use rooftrace::{Result, backend, host, roofline};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Affine {
    rows: u64,
    columns: u64,
}

impl Definition for Affine {
    const NAME: &'static str = "affine";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] = &[PLAIN];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let (all, one, dtype) = ([self.rows, self.columns], [self.columns], precision.storage());
        let weight = |name| TensorSpec::weight(name, &one, dtype);
        Ok(vec![TensorSpec::input("x", &all, dtype), weight("gain"), weight("shift"), TensorSpec::output("y", &all, dtype)])
    }
    fn macs(&self) -> u64 {
        self.rows * self.columns
    }
    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        for (y, c) in out.iter_mut().zip(cols) {
            *y = x.at::<R>(2, c).mac(x.at(0, row * self.columns + c), x.at(1, c));
        }
    }
    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("rows", self.rows), ("columns", self.columns)]
    }
    fn label(&self) -> String {
        format!("{}x{}", self.rows, self.columns)
    }
}

const PLAIN: Variant<Affine> = Variant {
    name: "plain",
    unit: Unit::Vector,
    // `row` itself is the kernel in Rust, its rows split over the threads; a faster one would be a function of the problem and a `Call`.
    sources: &[
        Implementation { source: Source::Host(host::naive), precisions: &[Precision::F32], tunables: &[] },
        Implementation { source: Source::Wgsl(include_str!("own_kernel.wgsl")), precisions: &[Precision::F32], tunables: &[] },
    ],
    dispatches: |p, _| vec![Dispatch::over(4, "affine", fold(p.macs().div_ceil(256)), [256, 1, 1])],
    // Every lane loads three f32 and stores one.
    demand: |p, _| Demand::new(16 * p.macs(), 16 * p.macs()),
};

fn measured(selector: &str) -> Result<String> {
    let backend = backend::open(selector)?;
    let mut engine = Engine::new(&*backend)?;
    let scope = Scope { precisions: vec![Precision::F32], ..Scope::new(Size::Small) };
    let mut records = roofs(&mut Local::new(Box::new(&mut engine)), scope)?;
    let op = Affine { rows: 4096, columns: 1000 };
    let measurement = engine.perform(&op, &Item::new(&op, "plain", Goal::Measure(Effort::default())))?;
    records.push(Record::Measurement(measurement));
    Ok(table::terminal(&roofline::view(&records)?, &Style { width: 120, colour: false, ascii: false }))
}

fn main() -> Result<()> {
    println!("{}", measured("host")?);
    println!("{}", measured("wgpu:0").unwrap_or_else(|why| format!("wgpu:0 is left out: {why}")));
    Ok(())
}
