//! Code that does not compile, or not to what was written, and libraries that lack what is called: failures that are counted, never skips.

use std::path::Path;

use serde_json::Value;

use crate::stand_in::{install, program, stand_in};

/// What `verify` says of these variants of `op`: the exit code, and of each its name, its failures and its skips.
fn verified(folder: &Path, op: &str, more: &[&str], variables: &[(&str, &str)]) -> (i32, Vec<(String, Vec<String>, u64)>) {
    let arguments = [&["verify", "--device", "cuda:0", "--size", "small", "--op", op, "--json", "--quiet"], more].concat();
    let (status, stdout, stderr) = program(folder, &arguments, variables);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
    assert!(!stderr.contains("panicked"), "{stderr}");
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let of = |variant: &Value| {
        let failures = variant["failures"].as_array().expect("a list").iter().map(text).collect();
        (text(&variant["name"]), failures, variant["skipped"].as_u64().expect("a count"))
    };
    (status, report[0]["variants"].as_array().expect("a list").iter().map(of).collect())
}

#[test]
fn a_shipped_kernel_that_does_not_compile_is_a_failed_check_and_no_skip() {
    let Some(folder) = stand_in("code", |op, text| ["fma", "matmul"].contains(&op).then_some(text)) else { return };
    let f32s = ["--variant", "naive,tiled", "--precision", "f32"];
    for (variable, said) in [("CUDACPU_SPILLS", "spill stores"), ("CUDACPU_SERIALISES", "(C7515)")] {
        let (status, variants) = verified(&folder, "matmul", &f32s, &[(variable, "matmul/tiled.cu")]);
        let [(naive, right, 0), (tiled, failures, 0)] = &variants[..] else { panic!("{variable}: {variants:?}") };
        assert!(status == 1 && naive == "matmul/naive f32" && tiled == "matmul/tiled f32" && right.is_empty(), "{variable}: {variants:?}");
        assert!(!failures.is_empty(), "{variable}");
        for why in failures {
            assert!(why.starts_with("matmul/tiled.cu does not compile: ") && why.contains(said), "{why}");
        }
    }
    let mutants = ["--variant", "naive", "--mutants"];
    let (status, variants) = verified(&folder, "matmul", &mutants, &[("CUDACPU_SPILLS", "matmul/naive.cu")]);
    assert!(status == 1 && variants.len() >= 3, "{variants:?}");
    for (name, failures, _) in &variants {
        assert!(failures.len() == 1 && failures[0].starts_with("was not tried: matmul/naive.cu does not compile"), "{name}: {failures:?}");
    }
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn an_entry_that_a_driver_lacks_is_a_failure_of_what_calls_it() {
    let Some(folder) = stand_in("lacking", |op, text| (op == "fma").then_some(text)) else { return };
    let whole = std::fs::read(folder.join("libcuda.so.1")).expect("it was installed");
    let (name, other) = (b"cuMemHostAlloc\0", b"cuMemHostOther\0");
    let mut lacking = whole.clone();
    let places: Vec<usize> = whole.windows(name.len()).enumerate().filter_map(|(at, bytes)| (bytes == name).then_some(at)).collect();
    assert!(!places.is_empty(), "the driver has it");
    places.iter().for_each(|&at| lacking[at..at + other.len()].copy_from_slice(other));
    let file = folder.join("lacking");
    std::fs::write(&file, lacking).expect("the folder can be written");
    install(&folder, &["cuda", "nvcuda"], &file);
    let (status, variants) = verified(&folder, "transfer", &[], &[]);
    let [(_, failures, 0)] = &variants[..] else { panic!("{variants:?}") };
    assert!(
        status == 5 && failures.iter().all(|why| why.contains("cuMemHostAlloc") && why.contains("do not work together")),
        "{failures:?}"
    );
    assert!(!failures.is_empty());
    let _ = std::fs::remove_dir_all(&folder);
}
