//! References without a GPU: vendor's libraries as rows of a run, over stand-ins that compute on the CPU (`cudacpu/cublas.cpp`,
//! `cudacpu/cudnn.cpp`) beside the stand-in for the driver.
#![cfg(feature = "cuda")]

// Each test program uses a part of these.
#[allow(dead_code)]
#[path = "cudacpu/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "cudacpu/harness.rs"]
mod harness;
#[allow(dead_code)]
#[path = "cudacpu/stand_in.rs"]
mod stand_in;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rooftrace::op::{OPS, OpRole};
use rooftrace::plan::{Library, Unit, VariantInfo};
use rooftrace::record::{Measurement, State};
use rooftrace::worker::{Answer, Bench, Launch};
use serde_json::{Value, json};
use stand_in::{CACHE, beside, install, library, program, stand_in};

/// Folders with the stand-in for the driver, without libraries and with them; `None`, said aloud, where there is no compiler.
fn folders() -> Option<&'static (PathBuf, PathBuf)> {
    static MADE: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
    MADE.get_or_init(|| {
        // The kernels that clocks are learnt with, and that a GPU is kept awake with; one of ours to compare with.
        let kept = |op: &str, text: String| ["fma", "stream", "launch", "matmul"].contains(&op).then_some(text);
        let without = stand_in("no-libraries", kept)?;
        let with = beside(&without, "libraries");
        for (source, stems) in [("cublas.cpp", &["cublas", "cublasLt"][..]), ("cudnn.cpp", &["cudnn"])] {
            let built = with.join("library");
            library(source, &built);
            install(&with, stems, &built);
        }
        Some((without, with))
    })
    .as_ref()
}

const ALL: &str = "cublas,cublaslt,cudnn";

/// What `verify` says of each of these references.
fn verified(folder: &Path, variants: &str, more: &[&str], variables: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let arguments = [&["verify", "--device", "cuda:0", "--variant", variants, "--json", "--quiet"], more].concat();
    let (status, stdout, stderr) = program(folder, &arguments, variables);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status, report[0]["variants"].as_array().expect("a list of variants").clone())
}

fn references() -> Vec<(&'static str, VariantInfo)> {
    let of = |entry: &'static rooftrace::op::Entry| {
        let problem = (entry.parse)(&json!({})).expect("the default problem");
        problem.variants().into_iter().filter(|v| v.library().is_some()).map(move |v| (entry.name, v))
    };
    OPS.iter().flat_map(of).collect()
}

#[test]
fn every_reference_is_right_on_every_awkward_problem_in_every_precision() {
    let Some((_, with)) = folders() else { return };
    let (status, variants) = verified(with, ALL, &[], &[]);
    assert_eq!(status, 0, "{variants:?}");
    let precisions = references().iter().flat_map(|(_, v)| v.sources.iter().map(|s| s.precisions.len())).sum::<usize>();
    assert_eq!(variants.len(), precisions);
    for variant in &variants {
        assert!(variant["name"].as_str().is_some_and(|name| name.ends_with(" (reference)")), "{variant}");
        assert_eq!((&variant["run"], &variant["skipped"]), (&variant["expected"], &json!(0)), "{variant}");
    }
    // Which of both a library does to the lower bits of factors in tf32 is its secret.
    let (status, variants) = verified(with, "cublaslt,cudnn", &["--precision", "tf32"], &[("CUDACPU_FACTORS", "cut")]);
    assert!(status == 0 && variants.len() == 2, "{variants:?}");
}

#[test]
fn a_library_that_is_wrong_is_refused() {
    let Some((_, with)) = folders() else { return };
    // The last: factors of eleven bits where f32 was asked for.
    for (mistake, wanted) in [("turned", ALL), ("shortened", "cublas,cublaslt"), ("unpadded", "cudnn"), ("coarse", "cublas")] {
        let precision = if mistake == "turned" { "f32,f16" } else { "f32,bf16" };
        let (status, variants) = verified(with, wanted, &["--precision", precision], &[("CUDACPU_MISTAKE", mistake)]);
        assert!(status == 4 && !variants.is_empty(), "{mistake}: {variants:?}");
        for variant in &variants {
            assert!(!variant["failures"].as_array().expect("a list").is_empty(), "{mistake}: {variant}");
        }
    }
}

#[test]
fn an_absent_library_is_a_skip_with_its_remedy_and_no_failure() {
    let Some((without, with)) = folders() else { return };
    let (status, variants) = verified(without, ALL, &[], &[]);
    assert_eq!(status, 0, "{variants:?}");
    for variant in &variants {
        assert_eq!((&variant["run"], &variant["skipped"]), (&json!(0), &variant["expected"]), "{variant}");
        let why = variant["reasons"][0].as_str().expect("a reason");
        assert!(why.contains("is not installed; put lib") && why.ends_with("on LD_LIBRARY_PATH"), "{why}");
    }
    for library in Library::ALL {
        let arguments = ["verify", "--device", "cuda:0", "--op", "launch", "--quiet", "--size", "small", "--require", library.key()];
        let (status, _, stderr) = program(without, &arguments, &[]);
        assert!(status == 3 && stderr.contains(&format!("{library} is not installed")), "{status}: {stderr}");
        assert_eq!(program(with, &arguments, &[]).0, 0);
    }
    let (status, _, stderr) = program(with, &["verify", "--require", "cufft"], &[]);
    assert!(status == 2 && stderr.contains("no such backend or library"), "{stderr}");
}

/// One reference measured in a child process.
fn measured(folder: &Path, op: &str, variant: &str, precision: &str, problem: Value, variables: &[(&str, &str)]) -> Answer {
    let program = env!("CARGO_BIN_EXE_rooftrace");
    let launch = Launch::new("cuda:0").program(program).variable("LD_LIBRARY_PATH", folder).variable(CACHE, "");
    let launch = variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
    let mut child = launch.start().expect("the stand-in has a device");
    let effort = json!({"samples": 10, "least_ns": 1_000_000, "budget_ns": 50_000_000, "canary": false});
    let item = json!({"id": "reference", "op": op, "problem": problem, "variant": variant, "precision": precision, "cache": "cold",
        "draw": "dense", "seed": 1, "goal": {"measure": effort}, "order": 1, "llc_bytes": 1 << 14});
    child.run(&serde_json::from_value(item).expect("an item"), Duration::from_secs(60))
}

fn done(answer: Answer) -> Measurement {
    match answer {
        Answer::Done(measurement) => measurement,
        Answer::Failed(state, why) => panic!("{state:?}: {why}"),
    }
}

#[test]
fn a_reference_is_measured_as_kernels_are_and_recorded_as_what_it_is() {
    let Some((_, with)) = folders() else { return };
    let problem = json!({"m": 40, "n": 24, "k": 64});
    let plain = done(measured(with, "matmul", "cublas", "f32", problem.clone(), &[]));
    assert_eq!((plain.role, plain.unit, plain.state), (OpRole::Reference, Unit::Library, State::Ok));
    assert!(plain.sets > 1 && plain.verification.is_some() && !plain.samples_ns.is_empty());
    assert_eq!((plain.bytes_moved, plain.bytes_requested, plain.groups), (plain.bytes_compulsory, None, 0));
    assert_eq!((plain.workspace_bytes, plain.set_bytes), (32 << 20, (32 << 20) + plain.bytes_compulsory));
    let path = plain.facts.path.as_deref();
    assert!([Some("cuBLAS 13.0.2, pedantic f32"), Some("cuBLAS 13.0.2, default f32")].contains(&path), "{path:?}");
    let tiny = |refused| done(measured(with, "matmul", "cublas", "f32", json!({"m": 3, "n": 2, "k": 4}), &[("CUDACPU_REFUSES", refused)]));
    assert_eq!(tiny("nothing").facts.launched.as_deref(), Some("graph"));
    let launched = tiny("captured-library").facts.launched.expect("it is told");
    assert!(launched.starts_with("stream, as graphs are refused: ") && launched.contains("cuBLAS"), "{launched}");
    assert!(plain.facts.allocated_bytes >= Some(plain.pool_bytes + plain.workspace_bytes));

    // Of the five that the stand-in proposes one is refused at once, one is too large and one fails when called; the last is the fastest.
    let chosen = done(measured(with, "matmul", "cublaslt", "bf16", problem.clone(), &[]));
    assert_eq!(chosen.facts.path.as_deref(), Some("cuBLASLt 13.0.2, number 3 of the 3 algorithms it proposes"));
    let turned = done(measured(with, "matmul", "cublaslt", "bf16", problem, &[("CUDACPU_MISTAKE", "turned")]));
    assert!(turned.state == State::Wrong && turned.verification.is_none());

    let image = json!({"n": 2, "h": 9, "w": 7, "c": 8, "k": 3});
    let depthwise = done(measured(with, "depthwise", "cudnn", "f16", image, &[]));
    assert!(
        depthwise.facts.path.as_deref().is_some_and(|path| path.starts_with("cuDNN 9.10.2, implicit product")),
        "{:?}",
        depthwise.facts
    );
    assert_eq!(depthwise.workspace_bytes, (32 << 20) + depthwise.bytes_compulsory);
}

#[test]
fn what_a_library_does_not_support_is_a_skip_with_the_status_it_gave() {
    let Some((_, with)) = folders() else { return };
    let image = json!({"n": 1, "h": 9, "w": 7, "c_in": 8, "c_out": 4, "k": 3});
    let refused = measured(with, "conv2d", "cudnn", "tf32", image.clone(), &[("CUDACPU_REFUSES", "all")]);
    let Answer::Failed(State::Unsupported, why) = refused else { panic!("{refused:?}") };
    assert!(why.contains("conv2d/cudnn tf32") && why.contains("CUDNN_STATUS_NOT_SUPPORTED (3000)"), "{why}");
    let broken = measured(with, "conv2d", "cudnn", "tf32", image.clone(), &[("CUDACPU_REFUSES", "start")]);
    let Answer::Failed(State::Unsupported, why) = broken else { panic!("{broken:?}") };
    assert!(
        why.contains("cuDNN does not start (conv2d/cudnn tf32: starting gave ") && why.contains("all its parts, of one release"),
        "{why}"
    );
    let one = done(measured(with, "conv2d", "cudnn", "tf32", image, &[("CUDACPU_REFUSES", "precomputed")]));
    assert_eq!(one.facts.path.as_deref(), Some("cuDNN 9.10.2, implicit product"));
    let none = measured(with, "matmul", "cublaslt", "f16", json!({"m": 3, "n": 4, "k": 5}), &[("CUDACPU_REFUSES", "all")]);
    assert!(matches!(&none, Answer::Failed(State::Unsupported, why) if why.contains("CUBLAS_STATUS_NOT_SUPPORTED (15)")), "{none:?}");
}
