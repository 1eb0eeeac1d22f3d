//! Samples of many small launches as graphs, over a stand-in that captures them and lets any step fail.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rooftrace::backend::cuda::Cuda;
use rooftrace::backend::{Backend, Checks, Loaded, Occupied};
use rooftrace::draw::{Draw, Drawn, Seeded};
use rooftrace::op::find;
use rooftrace::plan::Precision;
use rooftrace::record::{Measurement, State};
use rooftrace::worker::{Answer, Bench, Launch};
use serde_json::json;

use crate::cases::{DRAW, SEED, draw_module};
use crate::harness::{build_over_driver, compiler, folder, skipped};
use crate::stand_in::{CACHE, again, in_child, planned, stand_in};

/// Captures a launch, changes what its arguments were read from, and replays it.
const CHANGED_LATER: &str = r#"
#define MUST(call) if (int code = (call)) return printf("%s: %d\n", #call, code), 1
int main() {
    void *stream, *module, *first, *second;
    const void* fill;
    MUST(cuStreamCreate(&stream, 0));
    MUST(cuModuleLoadData(&module, "draw.cu"));
    MUST(cuModuleGetFunction(&fill, module, "draw_f32"));
    MUST(cuMemAlloc_v2(&first, 4));
    MUST(cuMemAlloc_v2(&second, 4));
    MUST(cuMemsetD8_v2(first, 0xff, 4));
    MUST(cuMemsetD8_v2(second, 0xff, 4));
    struct { uint64_t elements; unsigned keys[4], exact, rows[6]; } draw = {1, {1, 2, 3, 4}, 0, {}};
    void *at = first, *parameters[] = {&at, &draw};
    Graph *graph, *program;
    MUST(cuStreamBeginCapture_v2(stream, 1));
    MUST(cuLaunchKernel(fill, 1, 1, 1, 256, 1, 1, 0, stream, parameters, nullptr));
    MUST(cuStreamEndCapture(stream, &graph));
    const auto untouched = [](void* at) { return *static_cast<unsigned*>(at) == 0xffffffffu; };
    if (!untouched(first)) return puts("a captured launch ran"), 1;
    at = second, draw.elements = 0;
    MUST(cuGraphInstantiateWithFlags(&program, graph, 0));
    MUST(cuGraphDestroy(graph));
    MUST(cuGraphUpload(program, stream));
    MUST(cuGraphLaunch(program, stream));
    MUST(cuGraphExecDestroy(program));
    if (untouched(first) || !untouched(second)) return puts("a later change of the arguments shows"), 1;
    // What waits spoils a capture, and the stream goes on.
    MUST(cuStreamBeginCapture_v2(stream, 1));
    if (cuStreamSynchronize(stream) != 900 || cuStreamEndCapture(stream, &graph) != 901 || graph) return puts("a wait was captured"), 1;
    MUST(cuStreamSynchronize(stream));
    return 0;
}
"#;

#[test]
fn the_stand_in_copies_arguments_when_it_captures_a_launch() {
    let Some(cxx) = compiler() else { return skipped("the stand-in's graphs") };
    let folder = folder("changed-later");
    let program = build_over_driver(&cxx, &folder, &[draw_module("draw_cu", DRAW)], CHANGED_LATER).unwrap_or_else(|log| panic!("{log}"));
    let done = Command::new(program).output().expect("it starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_sample_of_many_small_launches_is_one_graph_with_the_same_outputs_in_the_same_sets() {
    let test = "graphs::a_sample_of_many_small_launches_is_one_graph_with_the_same_outputs_in_the_same_sets";
    if !in_child() {
        let Some(folder) = stand_in("graphs", |op, text| (op == "matmul").then_some(text)) else { return };
        again(test, &folder);
        let _ = std::fs::remove_dir_all(&folder);
        return;
    }
    const SETS: u32 = 20;
    let device = Cuda::open(0).expect("the stand-in has a device");
    let taken = || match device.occupied() {
        Occupied::Device(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    let problem = find("matmul").and_then(|e| (e.parse)(&json!({"m": 3, "n": 2, "k": 4}))).expect("legal");
    let plan = planned(&problem, "naive", Precision::F32);
    let seeded = Seeded { draw: Draw::Exact, seed: SEED };
    let drawn = Drawn::new(&plan.tensors, seeded);
    let expected: Vec<f64> = (0..3).flat_map(|row| problem.row(problem.arithmetic(Precision::F32, plan.unit), &drawn, row, 0..2)).collect();
    let free = taken();
    let mut loaded = device.load(&plan, seeded, SETS, Checks::Trusted).expect("it loads");
    let full = taken();
    // Poisons all sets, launches, and holds the written sets against the definition, the others against NaN.
    let check = |loaded: &mut Box<dyn Loaded + '_>, launches: u32, first: u32, way: &str| {
        (0..SETS).for_each(|set| loaded.poison(set).expect("it is set"));
        let sample = loaded.sample(launches, first).expect("it runs");
        assert!(sample.device.is_some_and(|device| !device.is_zero() && device <= sample.wall), "{sample:?}");
        assert_eq!(loaded.facts().launched.as_deref(), Some(way), "{launches} from {first}");
        for set in 0..SETS {
            let found = loaded.read(2, set, 0..6).expect("the range is legal");
            let written = (set + SETS - first % SETS) % SETS < launches;
            let right = if written { found == expected } else { found.iter().all(|x| x.is_nan()) };
            assert!(right, "{launches} from {first}: set {set} is {found:?}");
        }
    };
    check(&mut loaded, 16, 0, "stream"); // the first of all
    check(&mut loaded, 15, 0, "stream");
    assert_eq!(taken(), full);
    check(&mut loaded, 16, 7, "graph");
    check(&mut loaded, 16, 7, "graph");
    check(&mut loaded, 16, 7 + SETS, "graph");
    let each = taken() - full;
    assert!(each > 0, "one graph for the same calls");
    check(&mut loaded, 17, 7, "graph");
    check(&mut loaded, 40, 3, "graph");
    for first in [0, 1, 2, 19, 7] {
        check(&mut loaded, 16, first, "graph");
    }
    assert_eq!(taken(), full + 4 * each, "the oldest are dropped");
    check(&mut loaded, 4097, 5, "stream");
    drop(loaded);
    assert_eq!(taken(), free, "all are destroyed");
}

/// A call of twenty dispatches, measured in a child process.
fn measured(folder: &Path, variables: &[(&str, &str)]) -> Measurement {
    let launch = Launch::new("cuda:0").program(env!("CARGO_BIN_EXE_rooftrace")).variable("LD_LIBRARY_PATH", folder).variable(CACHE, "");
    let launch = variables.iter().fold(launch, |launch, (name, value)| launch.variable(name, value));
    let mut child = launch.start().expect("the stand-in has a device");
    let effort = json!({"samples": 10, "least_ns": 1_000_000, "budget_ns": 50_000_000, "canary": false});
    let item = json!({"id": "graph", "op": "launch", "problem": {"dispatches": 20}, "variant": "counted", "precision": "f32",
        "cache": "warm", "draw": "exact", "seed": 1, "goal": {"measure": effort}, "order": 1});
    match child.run(&serde_json::from_value(item).expect("an item"), Duration::from_secs(60)) {
        Answer::Done(measurement) => measurement,
        Answer::Failed(state, why) => panic!("{variables:?}: {state:?}: {why}"),
    }
}

#[test]
fn a_driver_that_refuses_graphs_has_its_launches_one_by_one_and_its_reason_on_record() {
    let Some(folder) = stand_in("refused", |op, text| ["fma", "launch"].contains(&op).then_some(text)) else { return };
    let whole = |m: &Measurement| m.state != State::Wrong && m.verification.is_some() && m.samples_ns.iter().all(|&time| time > 0);
    let as_graph = measured(&folder, &[]);
    assert!(whole(&as_graph) && as_graph.facts.launched.as_deref() == Some("graph"), "{as_graph:?}");
    assert!(as_graph.samples_ns.iter().zip(&as_graph.wall_ns).all(|(device, wall)| device <= wall), "{as_graph:?}");
    let refused = [
        ("CUDACPU_REFUSES", "capture", "capturing a graph failed with CUDA_ERROR_NOT_SUPPORTED"),
        ("CUDACPU_REFUSES", "captured-launch", "failed with CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        ("CUDACPU_REFUSES", "end", "ending the capture of a graph failed with CUDA_ERROR_NOT_SUPPORTED"),
        ("CUDACPU_REFUSES", "instantiate", "instantiating a graph failed with CUDA_ERROR_NOT_SUPPORTED"),
        ("CUDACPU_REFUSES", "upload", "uploading a graph failed with CUDA_ERROR_NOT_SUPPORTED"),
        ("CUDACPU_REFUSES", "graph-launch", "launching a graph failed with CUDA_ERROR_NOT_SUPPORTED"),
        ("CUDACPU_MISTAKE", "no-events", "events in a graph show"),
    ];
    for (variable, value, why) in refused {
        let m = measured(&folder, &[(variable, value)]);
        let told = m.facts.launched.as_deref().unwrap_or_default();
        assert!(told.starts_with("stream, as graphs are refused: ") && told.contains(why), "{value}: {told}");
        assert!(whole(&m), "{value}: {m:?}");
    }
    let _ = std::fs::remove_dir_all(&folder);
}
