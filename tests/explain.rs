//! `explain`: figures worked out by hand, and its commands from outside.

use std::process::{Command, Output};

use rooftrace::explain::{Explanation, Peaks, explain, separable};
use rooftrace::op::find;
use rooftrace::plan::{Language, Precision};
use serde_json::{Value, json};

fn explained(op: &str, fields: Value, precision: Precision, peaks: Option<&Peaks<'_>>) -> Explanation {
    let op = (find(op).expect("an op").parse)(&fields).expect("a problem");
    explain(&*op, precision, peaks).expect("an explanation")
}

fn layer(channels: u64) -> Value {
    json!({"n": 1, "h": 14, "w": 14, "c_in": channels, "c_out": channels, "k": 3, "padding": 1})
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rooftrace")).arg("explain").args(args).output().expect("the program starts")
}

/// 14·14·256·256·9 = 115,605,504 MAC; separable 14·14·256·9 + 14·14·256·256 = 13,296,640.
#[test]
fn a_resnet_layer_is_what_it_is_by_hand() {
    let e = explained("conv2d", layer(256), Precision::F32, None);
    assert_eq!((e.macs, e.flops), (115_605_504, 231_211_008));
    assert_eq!(e.separable_flops, Some(26_593_280));
    assert_eq!((e.params, e.params_bytes, e.activations), (589_824, 2_359_296, 50_176));
    assert_eq!((e.bytes_compulsory, e.bytes_written), (4 * (2 * 50_176 + 589_824), 4 * 50_176));
    assert_eq!((e.ridge, e.t_memory_ns, e.bound), (None, None, None));
    // The 924 and 105 MFLOP that one meets for it are those of twice the channels: 14·14·512·9 + 14·14·512·512 = 52,283,392 MAC.
    let wide = explained("conv2d", layer(512), Precision::F32, None);
    assert_eq!((wide.flops, wide.separable_flops), (924_844_032, Some(104_566_784)));
}

/// Howard et al., 2017, section 3.1: separable / standard = 1 / C_out + 1 / k².
#[test]
fn the_separable_pair_costs_what_its_paper_says() {
    let op = (find("conv2d").expect("an op").parse)(&layer(256)).expect("a problem");
    let [depthwise, pointwise] = separable(&*op).expect("a pair");
    let ratio = (depthwise.macs() + pointwise.macs()) as f64 / op.macs() as f64;
    assert!((ratio - (1.0 / 256.0 + 1.0 / 9.0)).abs() < 1e-12, "{ratio}");
    for (fields, why) in [(json!({"k": 1, "padding": 0}), "pointwise already"), (json!({"groups": 2}), "grouped already")] {
        let op = (find("conv2d").expect("an op").parse)(&fields).expect("a problem");
        assert!(separable(&*op).is_none(), "{why}");
    }
}

/// 4096³ in bf16 on a dense H200: 137.4 GFLOP over 989 TFLOP/s; 3 · 32 MiB over 4.8 TB/s.
#[test]
fn given_peaks_bound_a_matmul_by_hand() {
    let peaks = Peaks::Given { flop_per_s: 989e12, byte_per_s: 4.8e12 };
    let e = explained("matmul", json!({"m": 4096, "n": 4096, "k": 4096}), Precision::BF16, Some(&peaks));
    let near = |got: Option<f64>, want: f64| assert!((got.expect("a value") / want - 1.0).abs() < 1e-9, "{got:?} for {want}");
    near(e.t_compute_ns, 2.0 * 4096f64.powi(3) / 989e3);
    near(e.t_memory_ns, 3.0 * 2.0 * 4096f64.powi(2) / 4.8e3);
    near(e.ridge, 989.0 / 4.8);
    assert_eq!(e.bound, Some("compute"));
    let vector = explained("matmul", json!({"m": 4096, "n": 1, "k": 4096}), Precision::BF16, Some(&peaks));
    assert_eq!(vector.bound, Some("memory"));
}

#[test]
fn naive_attention_moves_its_scores_and_flash_does_not() {
    let e = explained("attention", json!({"heads": 8, "seq": 2048, "head_dim": 64}), Precision::F32, None);
    let of = |name: &str| e.variants.iter().find(|v| v.variant == name).expect("a variant");
    assert_eq!((of("naive").workspace_bytes, of("flash").bytes_moved), (4 * 8 * 2048 * 2048, e.bytes_compulsory));
    assert!(of("naive").bytes_moved > 16 * e.bytes_compulsory && e.exponentials > 0);
}

/// 32 · 65536² scores of 4 B are half a TiB, more than most machines have.
#[test]
fn a_kernel_that_no_machine_has_room_for_is_counted_all_the_same_and_one_that_refuses_says_why() {
    let e = explained("attention", json!({"heads": 32, "seq": 65536, "head_dim": 128}), Precision::F32, None);
    let naive = e.variants.iter().find(|v| v.variant == "naive" && v.language == Language::Host).expect("its row");
    assert!(naive.workspace_bytes == 4 * 32 * 65536 * 65536 && naive.bytes_moved > naive.workspace_bytes);
    let wgsl = e.refused.iter().find(|r| r.variant == "naive" && r.language == Language::Wgsl).expect("2^37 scores pass 32 bits");
    assert!(wgsl.why.contains("32-bit indices"), "{}", wgsl.why);
    let text = String::from_utf8(run(&["attention", "--heads", "32", "--seq", "65536", "--head-dim", "128"]).stdout).expect("UTF-8");
    let row = text.lines().find(|line| line.starts_with("naive")).expect("its row");
    assert!(row.contains("512 GiB") && text.contains("left out: naive in wgsl, cuda: "), "{text}");
}

/// A matmul of 64³ in one block: every lane of `naive` names both operands of each multiply-add.
#[test]
fn bytes_grow_from_compulsory_to_what_lanes_name() {
    let e = explained("matmul", json!({"m": 64, "n": 64, "k": 64}), Precision::F32, None);
    let naive = e.variants.iter().find(|v| v.variant == "naive" && v.language == Language::Cuda).expect("a row");
    let (requested, lane) = (naive.bytes_requested.expect("counted"), naive.bytes_lane.expect("counted"));
    assert_eq!(lane, 4 * (2 * 64 * 64 * 64 + 64 * 64));
    assert!(e.bytes_compulsory <= naive.bytes_moved && naive.bytes_moved <= requested && requested <= lane);
}

#[test]
fn json_has_the_fields_of_the_contract_and_text_the_figures() {
    let shape = ["conv2d", "--n", "1", "--h", "14", "--w", "14", "--c-in", "256", "--c-out", "256", "--k", "3", "--padding", "1"];
    let json = run(&[&shape[..], &["--format", "json", "--peak", "355GFLOP/s", "--bandwidth", "43GB/s"]].concat());
    let value: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    for field in [
        "op",
        "problem",
        "precision",
        "macs",
        "flops",
        "params",
        "activations",
        "bytes_compulsory",
        "intensity",
        "ridge",
        "t_memory_ns",
        "t_compute_ns",
        "bound",
        "variants",
    ] {
        assert!(!value[field].is_null(), "{field}");
    }
    for field in ["variant", "bytes_moved", "bytes_requested", "workspace_bytes", "intensity_moved"] {
        assert!(!value["variants"][0][field].is_null(), "{field}");
    }
    for format in ["text", "md"] {
        let output = run(&[&shape[..], &["--format", format]].concat());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(
            output.status.success() && ["231.2 MFLOP", "26.6 MFLOP", "8.69", "1/256 + 1/3^2", "lane"].iter().all(|f| text.contains(f)),
            "{text}"
        );
    }
}

#[test]
fn a_recorded_roof_bounds_what_it_has_and_names_what_it_lacks() {
    let roof = concat!(env!("CARGO_MANIFEST_DIR"), "/results/xeon-avx512-2cpu/2026-11-26T1740/records.jsonl");
    let text = String::from_utf8(run(&["matmul", "--roof", roof]).stdout).expect("UTF-8");
    assert!(text.contains("against the roof measured on") && text.contains("at 2026-11-26 17:40 UTC") && text.contains("bound"), "{text}");
    assert!(text.contains("33 % written: dram triad"), "{text}");
    let lacking = run(&["matmul", "--precision", "tf32", "--roof", roof]);
    let why = String::from_utf8_lossy(&lacking.stderr).to_string();
    assert_eq!(lacking.status.code(), Some(2), "{why}");
    assert!(why.contains("no tf32 ceiling; it has f32"), "{why}");
}

#[test]
fn a_doubted_roof_is_said_to_be_so_and_a_file_without_one_is_refused() {
    let roof = concat!(env!("CARGO_MANIFEST_DIR"), "/results/epyc-zen5-2cpu/2026-11-28T0200/records.jsonl");
    let (text, json) = (run(&["matmul", "--roof", roof]), run(&["matmul", "--roof", roof, "--format", "json"]));
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.contains("; SUSPECT: dram triad (non-temporal stores)"), "{text}");
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["ceilings"][0]["state"], &json["ceilings"][1]["state"]), (&json!("ok"), &json!("suspect")));
    assert!(json["against"].as_str().is_some_and(|against| against.contains("2026-11-28 02:00 UTC")), "{}", json["against"]);
    let bare = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("explain-bare.jsonl");
    let records = std::fs::read_to_string(roof).expect("the record");
    std::fs::write(&bare, records.lines().next().expect("a header").to_string() + "\n").expect("a file");
    let refused = run(&["matmul", "--roof", &bare.to_string_lossy()]);
    let why = String::from_utf8_lossy(&refused.stderr).to_string();
    assert_eq!(refused.status.code(), Some(6), "{why}");
    assert!(why.contains("it has no roof of arithmetic and DRAM"), "{why}");
}

#[test]
fn a_peak_may_name_its_precision() {
    let peak = |given: &str| run(&["matmul", "--precision", "bf16", "--peak", given, "--bandwidth", "4.8TB/s", "--format", "json"]);
    let of = |given: &str| serde_json::from_slice::<Value>(&peak(given).stdout).expect("JSON")["t_compute_ns"].as_f64().expect("a time");
    assert_eq!(of("bf16=989TFLOP/s"), of("989TFLOP/s"));
    assert_eq!(of("f32=67TFLOP/s,bf16=989TFLOP/s"), of("989TFLOP/s"));
    let refused = peak("f32=67TFLOP/s");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--peak names no rate of bf16"));
}

#[test]
fn bad_input_is_one_sentence_with_status_2_or_6() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&["conv9"], 2, "no op 'conv9'"),
        (&["stream"], 2, "is a probe"),
        (&["matmul", "--m", "0"], 2, "extent 0"),
        (&["matmul", "--n", "-1"], 2, "'-1' is no whole number"),
        (&["matmul", "--n", "5.5"], 2, "'5.5' is no whole number"),
        (&["matmul", "--json"], 2, "use --format json"),
        (&["depthwise", "--k", "0"], 2, "k 0 must be at least 1"),
        (&["conv2d", "--k", "0"], 2, "k must be at least 1"),
        (&["attention", "--seq", "10", "--seq-q", "5"], 2, "seq is given, which stands for seq_q and seq_kv, and seq_q too"),
        (&["matmul", "--peak", "1TFLOP/s"], 2, "--bandwidth"),
        (&["matmul", "--peak", "-1TFLOP/s", "--bandwidth", "1TB/s"], 2, "is no rate above 0"),
        (&["matmul", "--peak", "1TB/s", "--bandwidth", "1TB/s"], 2, "is not in FLOP/s"),
        (&["matmul", "--roof", "x", "--peak", "1TFLOP/s", "--bandwidth", "1TB/s"], 2, "cannot be used with"),
        (&["attention", "--heads", "3", "--kv-heads", "2"], 2, "do not divide"),
        (&["matmul", "--roof", "/nowhere/records.jsonl"], 6, "/nowhere/records.jsonl"),
    ];
    for (args, status, says) in cases {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*status), "{args:?}: {stderr}");
        assert!(
            stderr.contains(says) && !stderr.contains("panicked") && !stderr.contains("tip:") && output.stdout.is_empty(),
            "{args:?}: {stderr}"
        );
    }
}
