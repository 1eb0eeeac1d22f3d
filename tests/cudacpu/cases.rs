//! Problems of an op with their inputs on disk and their outputs by definition, and the verdict on what a kernel made of them.

use std::path::Path;
use std::sync::Arc;

use rooftrace::backend::host;
use rooftrace::draw::{Draw, Drawn, Fill, Seeded};
use rooftrace::op::{Arithmetic, DType, Entry, Op, Role, TensorSpec, f8_of, f8_value, stored_i32};
use rooftrace::plan::{Arg, Code, Language, Plan, Precision, Tuned, Unit};

use crate::harness::{Data, Job, Module};

pub const SEED: u32 = 20;

/// One problem under one draw in one precision.
pub struct Case {
    pub op: Arc<dyn Op>,
    pub precision: Precision,
    pub draw: Draw,
    tensors: Vec<TensorSpec>,
    /// Prefix of its files.
    files: String,
    expected: Vec<f64>,
    /// The definition in the kernel's own arithmetic.
    yardstick: Vec<f64>,
}

impl Case {
    /// Draws the inputs into `folder` and computes the output by definition.
    pub fn new(folder: &Path, number: usize, op: Arc<dyn Op>, precision: Precision, draw: Draw) -> Self {
        let tensors = op.tensors(precision).expect("awkward problems are legal");
        let drawn = Drawn::new(&tensors, Seeded { draw, seed: SEED });
        let files = format!("{number}-{precision}-{}", if draw == Draw::Exact { "exact" } else { "dense" });
        for (t, spec) in tensors.iter().enumerate().filter(|(_, spec)| spec.role != Role::Output) {
            let values: Vec<f64> = (0..spec.elements()).map(|i| drawn.value(t, i)).collect();
            std::fs::write(folder.join(format!("{files}-{t}")), stored(spec.dtype, &values)).expect("the folder can be written");
        }
        let output = tensors.iter().find(|spec| spec.role == Role::Output).expect("every op has an output");
        let columns = *output.shape.last().expect("no tensor is a scalar");
        let by = |arithmetic| (0..output.elements() / columns).flat_map(|row| op.row(arithmetic, &drawn, row, 0..columns)).collect();
        let (expected, yardstick) = (by(Arithmetic::F64), by(op.arithmetic(precision, Unit::Mma)));
        Case { op, precision, draw, tensors, files, expected, yardstick }
    }

    /// The case in words.
    pub fn label(&self) -> String {
        format!("{} {} {:?} {}", self.op.name(), self.op.label(), self.draw, self.precision)
    }

    /// Elements of its output.
    pub fn outputs(&self) -> usize {
        self.expected.len()
    }

    fn out(&self) -> String {
        format!("{}-out", self.files)
    }

    /// The launches of `plan`, each dispatch as one job.
    pub fn jobs(&self, module: &str, plan: &Plan, order: u32) -> Vec<Job> {
        (0..plan.dispatches.len()).map(|number| self.job(module, plan, number, order)).collect()
    }

    fn job(&self, module: &str, plan: &Plan, number: usize, order: u32) -> Job {
        let dispatch = &plan.dispatches[number];
        assert_eq!(dispatch.args.last(), Some(&Arg::Dims), "the by-value struct comes last");
        let data = |arg: &Arg| match *arg {
            Arg::Tensor(t) if self.tensors[t].role == Role::Output => Some(Data::Out(self.out(), self.tensors[t].bytes())),
            Arg::Tensor(t) => Some(Data::In(format!("{}-{t}", self.files), self.tensors[t].bytes())),
            Arg::Scratch(i) => {
                let (file, bytes, at) = (format!("{}-scratch-{i}", self.files), plan.scratch[i].bytes(), plan.tensors.len() + i);
                let fresh = plan.dispatches[..number].iter().all(|d| !d.args.contains(arg));
                Some(match (fresh, dispatch.writes.contains(&at)) {
                    (true, _) => Data::Out(file, bytes),
                    (false, true) => Data::Through(file, bytes),
                    (false, false) => Data::In(file, bytes),
                })
            }
            Arg::Dims => None,
            Arg::Map { tensor, rows, columns } => {
                let spec = &self.tensors[tensor];
                let numbers = [*spec.shape.last().expect("no tensor is a scalar"), spec.dtype.bytes(), columns as u64, rows as u64];
                Some(Data::Map(format!("{}-{tensor}", self.files), spec.bytes(), numbers))
            }
        };
        Job {
            module: module.into(),
            entry: dispatch.entry.to_string(),
            grid: dispatch.grid,
            block: dispatch.block,
            dynamic_bytes: dispatch.dynamic_bytes,
            order,
            words: plan.dims.iter().map(|&(_, value)| value).collect(),
            tensors: dispatch.args.iter().filter_map(data).collect(),
        }
    }

    /// Whether the output on disk is that of the definition; takes the file away, so that no later job is judged by it.
    pub fn verdict(&self, folder: &Path) -> Result<(), String> {
        let file = folder.join(self.out());
        let bytes = std::fs::read(&file).map_err(|e| e.to_string())?;
        std::fs::remove_file(&file).map_err(|e| e.to_string())?;
        let output = self.tensors.iter().find(|spec| spec.role == Role::Output).expect("every op has an output");
        let found = widened(output.dtype, &bytes);
        if found.len() != self.expected.len() {
            return Err(format!("{} elements instead of {}", found.len(), self.expected.len()));
        }
        let deviation = self.expected.iter().zip(&self.yardstick).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        let largest = self.expected.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
        // Sums of exact draws are exact; elsewhere a kernel may err four times what the plain loop does, and some roundings.
        let allowed = match self.exact() {
            true => 0.0,
            false => 4.0 * deviation + 16.0 * output.dtype.epsilon() * largest,
        };
        for (i, (found, &expected)) in found.iter().zip(&self.expected).enumerate() {
            // A sum that is exact is rounded once, when it is stored.
            let expected = if self.exact() { output.dtype.round(expected) } else { expected };
            // Written so that NaN is not close.
            let close = (found - expected).abs() <= allowed;
            if !close {
                return Err(format!("element {i} is {found}, expected {expected} ± {allowed:e}"));
            }
        }
        Ok(())
    }

    /// Whether every order of summation gives the same bits: of integers and of factors that cancel in pairs always. The chains of `fma`,
    /// `ramp` and `exp`, the halved sums of `read` and the quotients of attention and its variants do not end in f32.
    fn exact(&self) -> bool {
        let halved = self.op.problem()["kind"] == "read";
        self.precision.is_integer()
            || self.tensors.iter().any(|spec| matches!(spec.fill, Fill::Pairs(_)))
            || self.draw == Draw::Exact
                && !["fma", "ramp", "exp", "attention", "linformer", "performer"].contains(&self.op.name())
                && !halved
    }
}

fn stored(dtype: DType, values: &[f64]) -> Vec<u8> {
    match dtype {
        DType::F64 => values.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        DType::F32 => values.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&x| half::f16::from_f64(x).to_ne_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| half::bf16::from_f64(x).to_ne_bytes()).collect(),
        DType::U32 => values.iter().flat_map(|&x| (x as u32).to_ne_bytes()).collect(),
        DType::F8 => values.iter().map(|&x| f8_of(x)).collect(),
        DType::I8 => values.iter().flat_map(|&x| (x as i8).to_ne_bytes()).collect(),
        DType::I32 => values.iter().flat_map(|&x| (x as i32).to_ne_bytes()).collect(),
    }
}

fn widened(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_ne_bytes(b)).collect(),
        DType::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_ne_bytes(b) as f64).collect(),
        DType::F16 => bytes.as_chunks().0.iter().map(|&b| half::f16::from_ne_bytes(b).to_f64()).collect(),
        DType::BF16 => bytes.as_chunks().0.iter().map(|&b| half::bf16::from_ne_bytes(b).to_f64()).collect(),
        DType::U32 => bytes.as_chunks().0.iter().map(|&b| u32::from_ne_bytes(b) as f64).collect(),
        DType::F8 => bytes.iter().map(|&b| f8_value(b)).collect(),
        DType::I8 => bytes.iter().map(|&b| b as i8 as f64).collect(),
        DType::I32 => bytes.as_chunks().0.iter().map(|&b| stored_i32(i32::from_ne_bytes(b))).collect(),
    }
}

/// All awkward problems of an op in these precisions, under both draws.
pub fn cases(folder: &Path, entry: &Entry, precisions: &[Precision]) -> Vec<Case> {
    let mut made = Vec::new();
    for (number, fields) in (entry.awkward)().iter().enumerate() {
        let op = (entry.parse)(fields).expect("awkward problems are legal");
        for &precision in precisions.iter().filter(|&&precision| op.tensors(precision).is_ok()) {
            made.extend([Draw::Dense, Draw::Exact].map(|draw| Case::new(folder, number, op.clone(), precision, draw)));
        }
    }
    made
}

/// The plan of a case.
pub fn plan(case: &Case, variant: &str, tuned: &Tuned) -> Plan {
    let plan = case.op.plan(variant, case.precision, Language::Cuda, tuned, &host::device());
    plan.unwrap_or_else(|e| panic!("{}: {e}", case.label()))
}

/// The module that all of these plans share: equal text and defines, and every entry point that any of them launches.
pub fn module(name: String, plans: &[Plan]) -> Module {
    let mut made = Module { name, text: String::new(), defines: Vec::new(), entries: Vec::new(), value: "Dims" };
    for plan in plans {
        let Code::Cuda { text, defines } = &plan.code else { panic!("{}/{} is not CUDA", plan.op, plan.variant) };
        assert!(made.text.is_empty() || (&made.text, &made.defines) == (text, defines), "{}: the text depends on the problem", plan.op);
        (made.text, made.defines) = (text.clone(), defines.clone());
        for dispatch in &plan.dispatches {
            let entry = (dispatch.entry.to_string(), dispatch.args.iter().filter(|arg| **arg != Arg::Dims).count());
            if !made.entries.contains(&entry) {
                made.entries.push(entry);
            }
        }
    }
    made
}

/// The fill kernels, which belong to no op.
pub const DRAW: &str = include_str!("../../kernels/draw.cu");

/// A module of `text`, which has the entries of the fill kernels.
pub fn draw_module(name: &str, text: &str) -> Module {
    let of = |what: &str, pointers: usize| {
        ["f64", "f32", "f16", "bf16", "f8", "u32", "i8", "i32"].map(|dtype| (format!("{what}_{dtype}"), pointers))
    };
    let entries = of("draw", 1).into_iter().chain(of("changed", 2)).collect();
    Module { name: name.into(), text: text.into(), defines: Vec::new(), entries, value: "Draw" }
}
