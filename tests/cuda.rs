//! The cuda backend as far as it goes without a GPU: every CUDA source is run on the CPU against its definition, every mutant of it
//! is refused there. `tests/cuda_driver.rs` holds the backend itself.
#![cfg(feature = "cuda")]

#[path = "cudacpu/cases.rs"]
mod cases;
// Each test program uses a part of it.
#[allow(dead_code)]
#[path = "cudacpu/harness.rs"]
mod harness;
#[path = "cuda/pool.rs"]
mod pool;
#[path = "cuda/sanitized.rs"]
mod sanitized;
#[path = "cuda/sets.rs"]
mod sets;
#[path = "cuda/warpgroup.rs"]
mod warpgroup;

use cases::{Case, DRAW, cases, draw_module, module, plan};
use harness::{Data, Job, Module, Program, asked_for, build, compiler, folder, sanitizer, side_by_side, skipped};
use rooftrace::draw::{Cycle, Draw, Fill, Pairs, Rows, Seeded, eighths, element, keys, scale, small, word};
use rooftrace::mutant;
use rooftrace::op::{Entry, OPS, f8_of, f8_value};
use rooftrace::plan::{Language, Precision, SourceInfo, Tuned, VariantInfo};

/// Forward, backward, shuffled.
const ORDERS: [u32; 3] = [0, 1, 7];
/// Outputs of a problem that goes in one order of lanes alone: what it runs, smaller ones run in all of them; it is large for real devices.
const LARGE: usize = 1 << 20;

/// Every variant with a CUDA source.
fn variants() -> Vec<(&'static Entry, VariantInfo)> {
    let of = |entry: &'static Entry| {
        let problem = (entry.parse)(&(entry.awkward)()[0]).expect("awkward problems are legal");
        problem.variants().into_iter().map(move |variant| (entry, variant))
    };
    let text = |v: &VariantInfo| v.source(Language::Cuda).is_some_and(SourceInfo::is_text);
    OPS.iter().flat_map(of).filter(|(entry, v)| text(v) && asked_for(&format!("{}/{}", entry.name, v.name))).collect()
}

/// Blocks of a cluster have their shared memory at one place by turns, which to a race sanitizer is one memory.
fn can_be_watched(tuned: &Tuned) -> bool {
    sanitizer().as_deref() != Some("thread") || tuned.0.get("CLUSTER").is_none_or(|&blocks| blocks == 1)
}

/// Runs one module over cases; the first complaint, if any. Dense draws go in every order, [`LARGE`] ones in one; exact ones, whose sums have no
/// order, go in one and are compared to the bit. A sanitizer sees in one order of one draw what it would in all.
fn complaint(program: &Program, folder: &std::path::Path, module: &str, cases: &[&Case], variant: &str, tuned: &Tuned) -> Option<String> {
    let watched = sanitizer().is_some();
    for &order in if watched { &ORDERS[..1] } else { &ORDERS[..] } {
        let goes = |case: &&&Case| match case.draw {
            Draw::Dense => watched || order == ORDERS[2] || case.outputs() < LARGE,
            Draw::Exact => order == ORDERS[0] && !watched,
        };
        let of: Vec<_> = cases.iter().filter(goes).collect();
        // A few at a time, so that a mutant is refused early.
        for some in of.chunks(8) {
            let jobs: Vec<Vec<Job>> = some.iter().map(|case| case.jobs(module, &plan(case, variant, tuned), order)).collect();
            let mut answers = program.run(&jobs.concat()).into_iter();
            for (jobs, case) in jobs.iter().zip(some) {
                let all = answers.by_ref().take(jobs.len()).collect::<Result<(), _>>();
                if let Err(why) = all.and_then(|()| case.verdict(folder)) {
                    return Some(format!("{} in order {order} with {tuned:?}: {why}", case.label()));
                }
            }
        }
    }
    None
}

#[test]
fn every_cuda_source_computes_its_definition_with_any_tunables_and_in_any_order_of_lanes() {
    let Some(cxx) = compiler() else { return skipped("CUDA sources against their definition") };
    assert!(!variants().is_empty());
    side_by_side(&variants(), |(entry, variant)| {
        let folder = folder(&format!("clean-{}-{}", entry.name, variant.name));
        let source = variant.source(Language::Cuda).expect("filtered");
        let cases = cases(&folder, entry, source.precisions);
        let mut modules = Vec::new();
        let mut settings = Vec::new();
        for &precision in source.precisions {
            let of: Vec<&Case> = cases.iter().filter(|case| case.precision == precision).collect();
            for tuned in Tuned::all(source.tunables).into_iter().filter(can_be_watched) {
                let plans: Vec<_> = of.iter().map(|case| plan(case, variant.name, &tuned)).collect();
                modules.push(module(format!("m{}", modules.len()), &plans));
                settings.push((of.clone(), tuned));
            }
        }
        let program = build(&cxx, &folder, &modules).unwrap_or_else(|log| panic!("{}/{}: {log}", entry.name, variant.name));
        for (module, (of, tuned)) in modules.iter().zip(&settings) {
            if let Some(complaint) = complaint(&program, &folder, &module.name, of, variant.name, tuned) {
                panic!("{}/{}: {complaint}", entry.name, variant.name);
            }
        }
        let _ = std::fs::remove_dir_all(&folder);
    });
}

#[test]
fn every_mutant_of_a_cuda_source_is_refused() {
    let Some(cxx) = compiler() else { return skipped("mutants of CUDA sources") };
    side_by_side(&variants(), |(entry, variant)| {
        let of: Vec<_> = mutant::all().filter(|m| (m.language, m.op, m.variant) == (Language::Cuda, entry.name, variant.name)).collect();
        assert!(of.len() >= 3, "{}/{} has {} mutants", entry.name, variant.name, of.len());
        let precisions = variant.source(Language::Cuda).expect("filtered").precisions;
        // Those of probes alone have sums of their own.
        for (_, &precision) in precisions.iter().enumerate().filter(|(i, precision)| *i == 0 || precision.is_of_probes()) {
            let folder = folder(&format!("mutants-{}-{}-{precision}", entry.name, variant.name));
            let cases = cases(&folder, entry, &[precision]);
            let plans: Vec<_> = cases.iter().map(|case| plan(case, variant.name, &Tuned::default())).collect();
            let mutated = of.iter().enumerate().map(|(i, mutant)| {
                let clean = module(format!("m{i}"), &plans);
                assert_eq!(clean.text.matches(mutant.find).count(), 1, "{}: '{}' is to be found once", mutant.name, mutant.find);
                Module { text: clean.text.replace(mutant.find, mutant.replace), ..clean }
            });
            let modules: Vec<Module> = mutated.collect();
            let program = build(&cxx, &folder, &modules).unwrap_or_else(|log| panic!("a mutant of {} is no C++: {log}", entry.name));
            let every: Vec<&Case> = cases.iter().collect();
            for (module, mutant) in modules.iter().zip(&of) {
                let refused = complaint(&program, &folder, &module.name, &every, variant.name, &Tuned::default());
                assert!(refused.is_some(), "{}/{} survives in {precision} though it {}", entry.name, variant.name, mutant.name);
            }
            let _ = std::fs::remove_dir_all(&folder);
        }
    });
}

/// `Draw` of kernels/draw.cu as words, its padding included.
fn draw_words(seeded: Seeded, tensor: u32, elements: u64, fill: &Fill) -> Vec<u32> {
    let exact = (seeded.draw == Draw::Exact) as u32;
    let head = [vec![elements as u32, (elements >> 32) as u32], keys(seeded.seed, tensor).to_vec(), vec![exact]].concat();
    [head, fill.words().to_vec(), vec![0]].concat()
}

/// Element bytes as src/draw.rs has them.
fn drawn_bytes(dtype: &str, seeded: Seeded, tensor: u32, elements: u64, fill: &Fill) -> Vec<u8> {
    let keys = keys(seeded.seed, tensor);
    let all = (0..elements).map(|i| match fill {
        Fill::Rows(rows) => rows.element(seeded.draw, &keys, i),
        Fill::Cycle(cycle) => cycle.element(i),
        Fill::Scale => scale(seeded.draw, &keys, i),
        Fill::Pairs(pairs) => pairs.element(&keys, i),
        _ if dtype == "f8" && seeded.draw == Draw::Exact => eighths(&keys, i),
        _ => element(seeded.draw, &keys, i),
    });
    match dtype {
        "u32" => (0..elements).flat_map(|i| word(&keys, i).to_ne_bytes()).collect(),
        "i8" => (0..elements).flat_map(|i| (small(&keys, i) as i8).to_ne_bytes()).collect(),
        "i32" => (0..elements).flat_map(|i| small(&keys, i).to_ne_bytes()).collect(),
        "f8" => all.map(|x| f8_of(x as f64)).collect(),
        "f64" => all.flat_map(|x| (x as f64).to_ne_bytes()).collect(),
        "f32" => all.flat_map(|x| x.to_ne_bytes()).collect(),
        "bf16" => all.flat_map(|x| half::bf16::from_f32(x).to_ne_bytes()).collect(),
        _ => all.flat_map(|x| half::f16::from_f32(x).to_ne_bytes()).collect(),
    }
}

#[test]
fn the_draw_kernels_make_the_bits_of_the_rust_draw_and_find_what_changed() {
    let Some(cxx) = compiler() else { return skipped("the draw kernels") };
    let folder = folder("draw");
    let program = build(&cxx, &folder, &[draw_module("draw", DRAW)]).unwrap_or_else(|log| panic!("{log}"));
    let queries = Fill::Rows(Rows { columns: 40, rows: 77, first: 52, keys: 129, shift: 3, step: 2 });
    let cycle = Fill::Cycle(Cycle { line: 32, lines: 4096 });
    let pairs = |apart, opposed| (Fill::Pairs(Pairs { depth: 32, apart, opposed }), 100_003);
    let fills = [(Fill::Draw, 100_003), (queries, 100_003), (cycle, 32 * 4096), (Fill::Scale, 100_003), pairs(1, false), pairs(256, true)];
    let draws = [Draw::Dense, Draw::Exact].into_iter().flat_map(|draw| fills.clone().map(|(fill, elements)| (draw, fill, elements)));
    for (draw, fill, elements) in draws {
        for (tensor, dtype) in [(0, "f64"), (1, "f32"), (2, "f16"), (3, "bf16"), (4, "u32"), (5, "i8"), (6, "i32"), (7, "f8")] {
            let seeded = Seeded { draw, seed: 3 };
            let mut expected = drawn_bytes(dtype, seeded, tensor, elements, &fill);
            let job = |entry: &str, tensors| Job {
                module: "draw".into(),
                entry: format!("{entry}_{dtype}"),
                grid: [7, 1, 1],
                block: [256, 1, 1],
                dynamic_bytes: 0,
                order: 0,
                words: draw_words(seeded, tensor, elements, &fill),
                tensors,
            };
            let filled = program.run(&[job("draw", vec![Data::Out("filled".into(), expected.len() as u64)])]);
            assert_eq!(filled, [Ok(())]);
            assert!(std::fs::read(folder.join("filled")).expect("written") == expected, "{dtype} {draw:?}: other bits");
            // The counter starts as the harness leaves it, all ones: minus one.
            for changes in [0u64, 3] {
                (0..changes).for_each(|i| expected[i as usize * 1000] ^= 1);
                std::fs::write(folder.join("data"), &expected).expect("the folder can be written");
                let tensors = vec![Data::In("data".into(), expected.len() as u64), Data::Out("count".into(), 8)];
                assert_eq!(program.run(&[job("changed", tensors)]), [Ok(())]);
                let count = std::fs::read(folder.join("count")).expect("written").try_into().map(u64::from_ne_bytes).expect("8 bytes");
                assert_eq!(count.wrapping_add(1), changes, "{dtype} {draw:?}");
            }
        }
    }
}

#[test]
fn f16_rounding_in_integers_is_that_of_the_half_crate_for_every_float_in_range() {
    let Some(cxx) = compiler() else { return skipped("f16 rounding") };
    let folder = folder("half");
    // The shipped rounding, asked for 2^18 floats spread over all that a draw may hold.
    let probe = "extern \"C\" __global__ void halves(const float* x, Half* y, const Draw d) { \
                 for (unsigned long long i = first(); i < d.elements; i += stride()) y[i] = half_of(x[i]); }";
    let mut module = draw_module("draw", &format!("{DRAW}\n{probe}"));
    module.entries.push(("halves".into(), 2));
    let program = build(&cxx, &folder, &[module]).unwrap_or_else(|log| panic!("{log}"));
    let floats: Vec<f32> = (0..1u32 << 18)
        .map(|i| f32::from_bits((i % 0x4780).wrapping_mul(0x1_0000) | i.wrapping_mul(0x9e37_79b9) >> 16 | i << 31))
        .collect();
    assert!(floats.iter().all(|x| x.abs() < 65520.0));
    std::fs::write(folder.join("x"), floats.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>()).expect("the folder can be written");
    let job = Job {
        module: "draw".into(),
        entry: "halves".into(),
        grid: [4, 1, 1],
        block: [64, 1, 1],
        dynamic_bytes: 0,
        order: 0,
        words: draw_words(Seeded { draw: Draw::Dense, seed: 0 }, 0, floats.len() as u64, &Fill::Draw),
        tensors: vec![Data::In("x".into(), 4 << 18), Data::Out("y".into(), 2 << 18)],
    };
    assert_eq!(program.run(&[job]), [Ok(())]);
    let halves = std::fs::read(folder.join("y")).expect("written");
    for (x, found) in floats.iter().zip(halves.as_chunks().0) {
        assert_eq!(u16::from_ne_bytes(*found), half::f16::from_f32(*x).to_bits(), "{x:e}");
    }
}

#[test]
fn e4m3_rounding_in_integers_is_that_of_the_draw_in_rust_for_every_float_in_range() {
    let Some(cxx) = compiler() else { return skipped("E4M3 rounding") };
    let folder = folder("eights");
    let probe = "extern \"C\" __global__ void eights(const float* x, Float8* y, const Draw d) { \
                 for (unsigned long long i = first(); i < d.elements; i += stride()) y[i] = f8_of(x[i]); }";
    let mut module = draw_module("draw", &format!("{DRAW}\n{probe}"));
    module.entries.push(("eights".into(), 2));
    let program = build(&cxx, &folder, &[module]).unwrap_or_else(|log| panic!("{log}"));
    // All upper halves below that of 464, ties among them, with lower halves that are zero every other time.
    let lower = |i: u32| if (i / 0x43e8).is_multiple_of(2) { 0 } else { i.wrapping_mul(0x9e37_79b9) >> 16 };
    let floats: Vec<f32> =
        (0..1u32 << 18).map(|i| f32::from_bits((i % 0x43e8) << 16 | lower(i) | i << 31)).chain([464.0, -464.0]).collect();
    assert!(floats.iter().all(|x| x.abs() <= 464.0));
    std::fs::write(folder.join("x"), floats.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>()).expect("the folder can be written");
    let elements = floats.len() as u64;
    let job = Job {
        module: "draw".into(),
        entry: "eights".into(),
        grid: [4, 1, 1],
        block: [64, 1, 1],
        dynamic_bytes: 0,
        order: 0,
        words: draw_words(Seeded { draw: Draw::Dense, seed: 0 }, 0, elements, &Fill::Draw),
        tensors: vec![Data::In("x".into(), 4 * elements), Data::Out("y".into(), elements)],
    };
    assert_eq!(program.run(&[job]), [Ok(())]);
    let eights = std::fs::read(folder.join("y")).expect("written");
    for (x, &found) in floats.iter().zip(&eights) {
        assert_eq!(found, f8_of(*x as f64), "{x:e}");
    }
}

#[test]
fn the_shim_reads_e4m3_and_cuts_its_sums_as_units_are_reported_to() {
    let Some(cxx) = compiler() else { return skipped("the shim in fp8") };
    let folder = folder("cut");
    let entry = OPS.iter().find(|entry| entry.name == "matrix").expect("built in");
    let case = cases(&folder, entry, &[Precision::Fp8]).into_iter().next().expect("fp8 has problems");
    let mut made = module("m".into(), &[plan(&case, "mma", &Tuned::default())]);
    // One product, 1 · 1, is added to x.
    made.text += "\nextern \"C\" __global__ void add(const float* x, float* y, const Dims d) { \
        const unsigned one = threadIdx.x % 4 == 0 ? 0x38 : 0, a[4] = {one, one, 0, 0}; \
        for (unsigned i = 0; i < d.groups; ++i) { \
            float sum[4] = {x[i], x[i], x[i], x[i]}; mma<T>(sum, a, one, 0); if (threadIdx.x == 0) y[i] = sum[0]; } }\n\
        extern \"C\" __global__ void widen(const T* x, float* y, const Dims d) { \
            for (unsigned i = threadIdx.x; i < d.groups; i += 32) y[i] = float(x[i]); }\n";
    made.entries.extend(["add", "widen"].map(|entry| (entry.to_string(), 2)));
    let program = build(&cxx, &folder, &[made]).unwrap_or_else(|log| panic!("{log}"));
    let run = |entry: &str, x: &[u8], elements: usize| -> Vec<f32> {
        std::fs::write(folder.join("x"), x).expect("the folder can be written");
        let job = Job {
            module: "m".into(),
            entry: entry.into(),
            grid: [1, 1, 1],
            block: [32, 1, 1],
            dynamic_bytes: 0,
            order: 0,
            words: vec![elements as u32, 8],
            tensors: vec![Data::In("x".into(), x.len() as u64), Data::Out("y".into(), 4 * elements as u64)],
        };
        assert_eq!(program.run(&[job]), [Ok(())]);
        std::fs::read(folder.join("y")).expect("written").as_chunks().0.iter().map(|&b| f32::from_ne_bytes(b)).collect()
    };
    let bytes = |x: &[f32]| x.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<_>>();
    let sums = run("add", &bytes(&[0.0, 0.75, 8191.0, 16383.0, 16384.0, -16384.0, 40_000.0]), 7);
    assert_eq!(sums, [1.0, 1.75, 8192.0, 16384.0, 16384.0, -16384.0, 40_000.0]);
    let codes: Vec<u8> = (0..=255).collect();
    let values = run("widen", &codes, 256);
    assert!(codes.iter().zip(values).all(|(&code, x)| f8_value(code) == x as f64 || f8_value(code).is_nan() && x.is_nan()));
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn without_a_compiler_a_test_says_so_and_fails_where_the_shim_is_required() {
    let test = "the_shim_runs_warp_shuffles_and_refuses_barriers_that_part_of_a_block_never_reaches";
    let without = |required: &str| {
        let mut same = std::process::Command::new(std::env::current_exe().expect("this test is a program"));
        same.args(["--exact", test, "--nocapture"]).env("PATH", "").env_remove("CXX").env("ROOFTRACE_REQUIRE", required);
        let done = same.output().expect("it starts again");
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (passed, text) = without("wgpu");
    assert!(passed && text.contains("SKIPPED: the shim itself"), "{text}");
    let (passed, text) = without("wgpu,cuda-shim");
    assert!(!passed && text.contains("cuda-shim is required here: the shim itself"), "{text}");
}

#[test]
fn the_shim_runs_warp_shuffles_and_refuses_barriers_that_part_of_a_block_never_reaches() {
    let Some(cxx) = compiler() else { return skipped("the shim itself") };
    let folder = folder("shim");
    let text = "struct Dims { unsigned n; };\n\
        extern \"C\" __global__ void sums(unsigned* y, const Dims d) { unsigned v = threadIdx.x; \
            for (int m = 16; m > 0; m /= 2) v += __shfl_xor_sync(~0u, v, m); \
            for (unsigned o = 16; o > 0; o /= 2) { const unsigned w = __shfl_down_sync(~0u, 1u, o); v += w - 1; } \
            v += 10000 * __any_sync(~0u, threadIdx.x == 40) + 20000 * __any_sync(~0u, threadIdx.x / 32 == 0); \
            y[threadIdx.x] = v + __shfl_sync(~0u, threadIdx.x, 3); }\n\
        extern \"C\" __global__ void parted(unsigned* y, const Dims d) { if (threadIdx.x < 40) __syncthreads(); y[threadIdx.x] = 0; }\n\
        extern \"C\" __global__ void strayed(unsigned* y, const Dims d) { \
            if (threadIdx.x < 40) { __syncthreads(); y[0] = 1; } else { __syncthreads(); y[1] = 2; } }\n";
    let entries = ["sums", "parted", "strayed"].map(|entry| (entry.to_string(), 1)).to_vec();
    let module = Module { name: "shim".into(), text: text.into(), defines: Vec::new(), entries, value: "Dims" };
    let program = build(&cxx, &folder, &[module]).unwrap_or_else(|log| panic!("{log}"));
    let job = |entry: &str, order| Job {
        module: "shim".into(),
        entry: entry.into(),
        grid: [1, 1, 1],
        block: [64, 1, 1],
        dynamic_bytes: 0,
        order,
        words: vec![64],
        tensors: vec![Data::Out("y".into(), 256)],
    };
    for order in ORDERS {
        assert_eq!(program.run(&[job("sums", order)]), [Ok(())]);
        let found = std::fs::read(folder.join("y")).expect("written");
        // Lanes 0 to 31 sum to 496, lanes 32 to 63 to 1520; a warp adds what one of its lanes says, and the index of lane 3.
        let expected = (0..64u32).map(|lane| if lane < 32 { 496 + 20_000 + 3 } else { 1520 + 10_000 + 35 });
        assert!(found.as_chunks().0.iter().map(|&b| u32::from_ne_bytes(b)).eq(expected), "order {order}");
        for (entry, why) in [("parted", "left before a __syncthreads"), ("strayed", "different __syncthreads")] {
            let [answer] = &program.run(&[job(entry, order)])[..] else { panic!("one job, one answer") };
            assert!(answer.as_ref().is_err_and(|text| text.contains(why)), "{entry}: {answer:?}");
        }
    }
}
