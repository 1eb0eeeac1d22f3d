//! The cuda backend as far as it goes without a GPU: every CUDA source is run on the CPU against its definition, every mutant of it
//! is refused there, and a machine without a driver or device gets one clear sentence.
#![cfg(feature = "cuda")]

#[path = "cudacpu/cases.rs"]
mod cases;
#[path = "cudacpu/harness.rs"]
mod harness;

use cases::{Case, cases, combinations, module, plan};
use harness::{Data, Job, Module, Program, build, compiler, folder, skipped};
use rooftrace::backend::Found;
use rooftrace::draw::{Draw, Seeded, element, keys};
use rooftrace::mutant::MUTANTS;
use rooftrace::op::{Entry, OPS};
use rooftrace::plan::{Language, Tuned, VariantInfo};

/// Forward, backward, shuffled.
const ORDERS: [u32; 3] = [0, 1, 7];

/// Every variant with a CUDA source.
fn variants() -> Vec<(&'static Entry, VariantInfo)> {
    let of = |entry: &'static Entry| {
        let problem = (entry.parse)(&(entry.awkward)()[0]).expect("awkward problems are legal");
        problem.variants().into_iter().map(move |variant| (entry, variant))
    };
    OPS.iter().flat_map(of).filter(|(_, variant)| variant.source(Language::Cuda).is_some()).collect()
}

/// Runs one module over cases; the first complaint, if any. Dense draws go in every order; exact ones, whose sums have no order, go in
/// one and are compared to the bit.
fn complaint(program: &Program, folder: &std::path::Path, module: &str, cases: &[&Case], variant: &str, tuned: &Tuned) -> Option<String> {
    for order in ORDERS {
        let of: Vec<_> = cases.iter().filter(|case| case.draw == Draw::Dense || order == ORDERS[0]).collect();
        // A few at a time, so that a mutant is refused early.
        for some in of.chunks(8) {
            let jobs: Vec<Job> = some.iter().map(|case| case.job(module, &plan(case, variant, tuned), order)).collect();
            for (answer, case) in program.run(&jobs).into_iter().zip(some) {
                if let Err(why) = answer.and_then(|()| case.verdict(folder)) {
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
    for (entry, variant) in variants() {
        let folder = folder(&format!("clean-{}-{}", entry.name, variant.name));
        let source = variant.source(Language::Cuda).expect("filtered");
        let cases = cases(&folder, entry, source.precisions);
        let mut modules = Vec::new();
        let mut settings = Vec::new();
        for &precision in source.precisions {
            let of: Vec<&Case> = cases.iter().filter(|case| case.precision == precision).collect();
            for tuned in combinations(source.tunables) {
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
    }
}

#[test]
fn every_mutant_of_a_cuda_source_is_refused() {
    let Some(cxx) = compiler() else { return skipped("mutants of CUDA sources") };
    for (entry, variant) in variants() {
        let of: Vec<_> = MUTANTS.iter().filter(|m| (m.language, m.op, m.variant) == (Language::Cuda, entry.name, variant.name)).collect();
        assert!(of.len() >= 3, "{}/{} has {} mutants", entry.name, variant.name, of.len());
        let folder = folder(&format!("mutants-{}-{}", entry.name, variant.name));
        let precision = variant.source(Language::Cuda).expect("filtered").precisions[0];
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
            assert!(refused.is_some(), "{}/{} survives though it {}", entry.name, variant.name, mutant.name);
        }
        let _ = std::fs::remove_dir_all(&folder);
    }
}

const DRAW: &str = include_str!("../kernels/draw.cu");

fn draw_module(text: &str) -> Module {
    let of = |what: &str, pointers: usize| ["f64", "f32", "f16"].map(|dtype| (format!("{what}_{dtype}"), pointers));
    let entries = of("draw", 1).into_iter().chain(of("changed", 2)).collect();
    Module { name: "draw".into(), text: text.into(), defines: Vec::new(), entries, value: "Draw" }
}

/// `Draw` of kernels/draw.cu as words, its padding included.
fn draw_words(seeded: Seeded, tensor: u32, elements: u64) -> Vec<u32> {
    let exact = (seeded.draw == Draw::Exact) as u32;
    [vec![elements as u32, (elements >> 32) as u32], keys(seeded.seed, tensor).to_vec(), vec![exact, 0]].concat()
}

/// Element bytes as src/draw.rs has them.
fn drawn_bytes(dtype: &str, seeded: Seeded, tensor: u32, elements: u64) -> Vec<u8> {
    let keys = keys(seeded.seed, tensor);
    let all = (0..elements).map(|i| element(seeded.draw, &keys, i));
    match dtype {
        "f64" => all.flat_map(|x| (x as f64).to_ne_bytes()).collect(),
        "f32" => all.flat_map(|x| x.to_ne_bytes()).collect(),
        _ => all.flat_map(|x| half::f16::from_f32(x).to_ne_bytes()).collect(),
    }
}

#[test]
fn the_draw_kernels_make_the_bits_of_the_rust_draw_and_find_what_changed() {
    let Some(cxx) = compiler() else { return skipped("the draw kernels") };
    let folder = folder("draw");
    let program = build(&cxx, &folder, &[draw_module(DRAW)]).unwrap_or_else(|log| panic!("{log}"));
    const ELEMENTS: u64 = 100_003;
    for draw in [Draw::Dense, Draw::Exact] {
        for (tensor, dtype) in [(0, "f64"), (1, "f32"), (2, "f16")] {
            let seeded = Seeded { draw, seed: 3 };
            let mut expected = drawn_bytes(dtype, seeded, tensor, ELEMENTS);
            let job = |entry: &str, tensors| Job {
                module: "draw".into(),
                entry: format!("{entry}_{dtype}"),
                grid: [7, 1, 1],
                block: [256, 1, 1],
                order: 0,
                words: draw_words(seeded, tensor, ELEMENTS),
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
    let mut module = draw_module(&format!("{DRAW}\n{probe}"));
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
        order: 0,
        words: draw_words(Seeded { draw: Draw::Dense, seed: 0 }, 0, floats.len() as u64),
        tensors: vec![Data::In("x".into(), 4 << 18), Data::Out("y".into(), 2 << 18)],
    };
    assert_eq!(program.run(&[job]), [Ok(())]);
    let halves = std::fs::read(folder.join("y")).expect("written");
    for (x, found) in floats.iter().zip(halves.as_chunks().0) {
        assert_eq!(u16::from_ne_bytes(*found), half::f16::from_f32(*x).to_bits(), "{x:e}");
    }
}

/// What `devices` says in a process that sees these libraries and no other of their names.
struct Seen {
    answer: String,
    stderr: String,
}

/// Makes the calling test run once more in a child process that finds `libcuda` and `libnvrtc` as given: a C source, or a file that is
/// no library at all where there is none. Names come from the bindings themselves, so nothing installed here can be found instead.
fn devices_seen_with(test: &str, libcuda: Option<&str>, libnvrtc: Option<&str>) -> Option<Seen> {
    const CHILD: &str = "ROOFTRACE_TEST_LISTS_DEVICES";
    if std::env::var_os(CHILD).is_some() {
        for found in rooftrace::backend::cuda::devices() {
            match found {
                Found::Device(device) => println!("ANSWER device {} {}", device.id, device.name),
                Found::Absent(why) => println!("ANSWER {why}"),
            }
        }
        if let Err(why) = rooftrace::backend::cuda::Cuda::open(0) {
            println!("OPEN {why}");
        }
        std::process::exit(0);
    }
    let folder = folder(test);
    for (stem, names, source) in [("cuda", ["cuda", "nvcuda"], libcuda), ("nvrtc", ["nvrtc", "nvrtc"], libnvrtc)] {
        let library = folder.join(format!("{stem}.built"));
        match source {
            Some(source) => library_from(&folder, stem, source, &library)?,
            None => std::fs::write(&library, "no library").expect("the folder can be written"),
        }
        for name in names.iter().flat_map(|name| cudarc::get_lib_name_candidates(name)) {
            std::fs::copy(&library, folder.join(name)).expect("the folder can be written");
        }
    }
    let child = std::process::Command::new(std::env::current_exe().expect("this test is a program"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", &folder)
        .output()
        .expect("this test starts again");
    let (stdout, stderr) = (String::from_utf8_lossy(&child.stdout).into_owned(), String::from_utf8_lossy(&child.stderr).into_owned());
    assert!(child.status.success(), "{}: {stdout}{stderr}", child.status);
    let after = |mark: &str| stdout.lines().filter_map(|line| line.split_once(mark)).map(|(_, text)| text.to_string()).collect::<Vec<_>>();
    let (answer, opened) = (after("ANSWER "), after("OPEN "));
    assert_eq!(answer.len(), 1, "one sentence: {stdout}");
    assert_eq!(answer, opened, "`open` gives the reason that `devices` gives");
    let _ = std::fs::remove_dir_all(&folder);
    Some(Seen { answer: answer.concat(), stderr })
}

/// Builds a shared library; `None`, said aloud, where there is no compiler.
fn library_from(folder: &std::path::Path, stem: &str, source: &str, library: &std::path::Path) -> Option<()> {
    let Some(cxx) = compiler() else {
        skipped("a stand-in for the NVIDIA libraries");
        return None;
    };
    let file = folder.join(format!("{stem}.cpp"));
    std::fs::write(&file, source).expect("the folder can be written");
    let done = std::process::Command::new(cxx).args(["-shared", "-fPIC", "-o"]).arg(library).arg(&file).output().expect("it starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(())
}

#[test]
fn without_libcuda_there_is_one_clear_sentence_and_no_panic() {
    let test = "without_libcuda_there_is_one_clear_sentence_and_no_panic";
    let Some(seen) = devices_seen_with(test, None, None) else { return };
    assert_eq!(
        seen.answer,
        "cuda is not available: the NVIDIA driver (libcuda) is not installed; install the driver, or measure with --device wgpu:0 or --device host"
    );
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

/// Three functions, as little as a driver can be.
fn stub(code: u32) -> String {
    format!(
        "extern \"C\" int cuInit(unsigned) {{ return {code}; }}\n\
         extern \"C\" int cuGetErrorName(int, const char** s) {{ *s = \"NAME\"; return 0; }}\n\
         extern \"C\" int cuGetErrorString(int, const char** s) {{ *s = \"text\"; return 0; }}\n"
    )
}

#[test]
fn a_driver_that_finds_no_device_is_told_from_one_that_is_missing() {
    let test = "a_driver_that_finds_no_device_is_told_from_one_that_is_missing";
    let Some(seen) = devices_seen_with(test, Some(&stub(100)), None) else { return };
    assert!(
        seen.answer.contains("finds no device (CUDA_ERROR_NO_DEVICE)") && seen.answer.contains("CUDA_VISIBLE_DEVICES"),
        "{}",
        seen.answer
    );
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

#[test]
fn the_toolkits_stub_of_libcuda_is_named_as_such() {
    let test = "the_toolkits_stub_of_libcuda_is_named_as_such";
    let Some(seen) = devices_seen_with(test, Some(&stub(34)), None) else { return };
    assert!(seen.answer.contains("stub") && seen.answer.contains("LD_LIBRARY_PATH"), "{}", seen.answer);
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

#[test]
fn a_device_without_nvrtc_is_a_missing_compiler_not_a_missing_device() {
    let test = "a_device_without_nvrtc_is_a_missing_compiler_not_a_missing_device";
    let driver = stub(0) + "extern \"C\" int cuDeviceGetCount(int* n) { *n = 1; return 0; }\n";
    let Some(seen) = devices_seen_with(test, Some(&driver), None) else { return };
    assert!(
        seen.answer.contains("NVRTC (libnvrtc) is not found") && seen.answer.contains("pip install nvidia-cuda-nvrtc"),
        "{}",
        seen.answer
    );
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

#[test]
fn a_driver_with_symbols_missing_is_an_error_and_ends_nothing() {
    let test = "a_driver_with_symbols_missing_is_an_error_and_ends_nothing";
    let Some(seen) = devices_seen_with(test, Some(&stub(0)), None) else { return };
    assert!(seen.answer.contains("cuDeviceGetCount"), "{}", seen.answer);
}
