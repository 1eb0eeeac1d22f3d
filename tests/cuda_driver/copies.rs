//! The probe of the link between host and device over the stand-in, whose copies can be made to stop halfway.

use std::path::Path;

use serde_json::{Value, json};

use crate::stand_in::{program, stand_in};

/// What `verify` says of the copies.
fn verified(folder: &Path, variables: &[(&str, &str)]) -> (i32, Value) {
    let arguments = ["verify", "--device", "cuda:0", "--op", "transfer", "--json", "--quiet"];
    let (status, stdout, stderr) = program(folder, &arguments, variables);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
    assert!(!stderr.contains("panicked"), "{stderr}");
    (status, report[0]["variants"][0].clone())
}

#[test]
fn a_copy_that_stops_halfway_is_refused_both_ways_and_memory_that_is_not_to_be_had_is_told() {
    // The kernel that clocks are learnt with.
    let Some(folder) = stand_in("copies", |op, text| (op == "fma").then_some(text)) else { return };
    let (status, clean) = verified(&folder, &[]);
    assert_eq!((status, &clean["run"], &clean["failures"]), (0, &json!(6), &json!([])), "{clean}");

    let (status, halved) = verified(&folder, &[("CUDACPU_MISTAKE", "halved")]);
    let failures = halved["failures"].as_array().expect("a list");
    let told = |way: &str| failures.iter().filter(|why| why.as_str().is_some_and(|why| why.contains(way) && why.contains("NaN"))).count();
    assert_eq!((status, failures.len(), told(" up"), told(" down")), (4, 6, 3, 3), "{halved}");

    let (status, refused) = verified(&folder, &[("CUDACPU_REFUSES", "page-locked")]);
    let failures = refused["failures"].as_array().expect("a list");
    assert_eq!((status, failures.len()), (5, 6), "no output was wrong");
    assert!(failures[0].as_str().is_some_and(|why| why.contains("out of memory: page-locked host memory needs 3.91 KiB")), "{refused}");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_trace_lists_the_link_both_ways_as_ceilings_that_are_no_lines_of_the_chart() {
    let kept = |op: &str, text: String| ["fma", "stream"].contains(&op).then_some(text);
    let Some(folder) = stand_in("traced", kept) else { return };
    let out = folder.join("out");
    let out = out.to_str().expect("a plain path");
    let arguments = ["trace", "--device", "cuda:0", "--size", "small", "--quiet", "--json", "--out", out];
    // A small cache makes a short sweep.
    let (status, stdout, stderr) = program(&folder, &arguments, &[("CUDACPU_L2", "16384")]);
    // Kernels that were left out are holes, and those of other settings than the default ones are wrong here.
    assert!([0, 4, 5].contains(&status), "{status}: {stdout}{stderr}");
    let view: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
    let ceilings = view["ceilings"].as_array().expect("a list");
    for (name, direction) in [("pcie read", "read"), ("pcie write", "write")] {
        let found = ceilings.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{name}: {ceilings:?}"));
        assert_eq!((&found["kind"], &found["level"], &found["direction"]), (&json!("bandwidth"), &json!("pcie"), &json!(direction)));
        assert!(found["value"].as_f64().is_some_and(|rate| rate > 0.0) && found["capacity"].is_null(), "{found}");
    }
    let (_, shown, _) = program(&folder, &["show", "--markdown", &format!("{out}/records.jsonl")], &[]);
    for told in ["copies from page-locked host memory to the device", "copies from the device to page-locked host memory"] {
        assert_eq!(shown.matches(told).count(), 1, "{shown}");
    }
    let drawn = std::fs::read_to_string(format!("{out}/roofline.svg")).expect("a picture");
    assert!(drawn.contains("dram") && !drawn.contains("pcie"), "{drawn}");
    let _ = std::fs::remove_dir_all(&folder);
}
