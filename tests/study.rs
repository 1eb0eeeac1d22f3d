//! Studies on the fake device, whose roof is known: what they measure, what they tell, and that a file tells the same again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rooftrace::record::{self, Cache, Record};
use rooftrace::report::svg;
use rooftrace::roofline;
use rooftrace::study::{self, STUDIES};
use rooftrace::view::View;

/// 100 GFLOP/s, 20 GB/s behind two small caches, so that batches need not be large to pass them.
const SCRIPT: &str = r#"{"device": {"caches": [[1, 65536], [2, 524288]]},
    "speed": {"levels": [{"capacity": 65536, "byte_per_s": 8e11}, {"capacity": 524288, "byte_per_s": 2e11}], "dram_byte_per_s": 2e10}}"#;

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("study-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// Runs the program in a folder of its own, where no earlier run has left a roof.
fn rooftrace(folder: &Path, script: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    command.args(args).current_dir(folder).env("NO_COLOR", "1").env("COLUMNS", "160").env("ROOFTRACE_FAKE", script);
    command.output().expect("the program starts")
}

fn study(folder: &Path, name: &str, out: &str, extra: &[&str]) -> Output {
    let args = ["study", name, "--device", "fake", "--size", "small", "--quiet", "--out", out];
    let output = rooftrace(folder, SCRIPT, &[&args, extra].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn view(path: &Path) -> View {
    let file = record::read(&path.join("records.jsonl")).expect("a readable file");
    assert!(file.warnings.is_empty(), "{:?}", file.warnings);
    roofline::view(&file.records).expect("a view")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The sentences of a view, as one.
fn told(view: &View) -> String {
    let study = study::Study::of(view).expect("a study's view");
    study.answer(view).sentences.join("\n")
}

/// A sentence without measured figures: parentheses that open with a digit, with all that is in them.
fn words(sentence: &str) -> String {
    let (mut words, mut rest) = (String::new(), sentence);
    while let Some(at) = rest.find(" (") {
        let (before, from) = (&rest[..at], &rest[at + 2..]);
        words += before;
        let mut open = 1;
        let close = from.char_indices().find(|&(_, c)| {
            open += i32::from(c == '(') - i32::from(c == ')');
            open == 0
        });
        let end = at + 2 + close.map_or(from.len(), |(end, _)| end + 1);
        if !from.starts_with(|c: char| c.is_ascii_digit()) {
            words += &rest[at..end];
        }
        rest = &rest[end..];
    }
    words + rest
}

#[test]
fn words_are_sentences_without_measured_figures_alone() {
    let told =
        "8.7 times fewer FLOPs and less time (2.10 times): most of it (94 %), limited by compute (vector) (49 % for compute (vector)), ok";
    assert_eq!(words(told), "8.7 times fewer FLOPs and less time: most of it, limited by compute (vector), ok");
    assert_eq!(words("decode, 4 queries a key (GQA) 3"), "decode, 4 queries a key (GQA) 3");
}

#[test]
fn depthwise_tells_flops_saved_against_time_saved_and_a_file_tells_it_again() {
    let (told, view) = answered("depthwise");
    assert_eq!((view.header.settings.command.as_str(), view.header.settings.study.as_deref()), ("study", Some("depthwise")));
    // 1 / (1/256 + 1/9) = 8.69 and 2.25 FLOP/byte below a ridge at 5, on a device whose kernels reach their roofs.
    assert!(told.contains("8.7 times fewer FLOPs and less time (") && told.contains("most of the DRAM roof ("), "{told}");
    assert!(told.contains("from k = 3 to 31") && told.contains("so memory sets its time, whatever the arithmetic"), "{told}");
    let raised = view.rows.iter().filter(|row| row.op == "depthwise" && row.cache == Cache::Cold);
    assert!(raised.clone().all(|row| row.bytes_compulsory >= 4 * 524_288), "tensors pass 4 x the last cache");
    assert!(raised.count() >= 4 && view.rows.iter().any(|row| row.problem["n"] == 1 && row.cache == Cache::Warm));
    let study = study::find("depthwise").expect("a study");
    let picture = svg::figure(&study.answer(&view).figure, &view.header).expect("a picture");
    let form = |name: &str| picture.contains(&format!(">{name}</text>"));
    assert!(["standard", "grouped", "pointwise", "depthwise", "separable", "k = 31"].into_iter().all(form), "every mark is named");
}

/// The picture, the table and `show` of a study, and what it told.
fn answered(name: &str) -> (String, View) {
    let folder = scratch(name);
    let said = text(&study(&folder, name, "out", &[]));
    let view = view(&folder.join("out"));
    let shown = rooftrace(&folder, SCRIPT, &["show", "out/records.jsonl"]);
    let json = rooftrace(&folder, SCRIPT, &["show", "--json", "out/records.jsonl"]);
    let derived: View = serde_json::from_slice(&json.stdout).expect("a view");
    assert_eq!(derived.answer.join("\n"), told(&view), "JSON holds the answer");
    assert_eq!(Some(text(&shown).as_str()), said.split_once("\nwrote ").map(|(told, _)| told), "show tells what the live run told");
    let picture = std::fs::read_to_string(folder.join(format!("out/{name}.svg"))).expect("a picture");
    assert!(picture.contains("class=\"mark\"") && !picture.contains("NaN") && picture.ends_with("</svg>\n"));
    (told(&view), view)
}

#[test]
fn attention_tells_how_memory_grows_and_where_the_scores_no_longer_fit() {
    let (told, view) = answered("attention");
    assert!(told.contains("to the power of 1 (1.0") && told.contains("grows to the power of 2 ("), "{told}");
    assert!(words(&told).contains("Time grows, from 512 tokens on, to the power of 2 with flash and 2 with naive."), "{told}");
    // Both kernels of a length before the next length, and a mask at the greatest that both forms have.
    let order: Vec<_> = view.rows.iter().take(4).map(|row| (row.variant.as_str(), row.problem["seq_kv"].as_u64())).collect();
    assert_eq!(order, [("flash", Some(256)), ("naive", Some(256)), ("flash", Some(512)), ("naive", Some(512))]);
    assert!(told.contains("A causal mask halves the FLOPs") && told.contains(" at 256 tokens"), "{told}");
    assert!(words(&told).contains("over groups, takes about the time of flash and about the time of naive."), "{told}");
    assert!(told.contains("naive no longer fits this device") && told.contains("within 2 % and 8 MiB"), "{told}");
    let rows = |variant: &str| view.rows.iter().filter(|row| row.variant == variant).count();
    assert!(rows("naive") >= 5 && rows("flash") > rows("naive"));
}

#[test]
fn batch_tells_the_knee_and_the_crossing_of_the_roof() {
    let (told, view) = answered("batch");
    // 100 GFLOP/s over 20 GB/s: 5 FLOP/byte, and a batch of m does m/2 for each byte of the weights: 10, within an octave of which lies 8.
    assert!(told.contains("linear 4096 to 4096: while a batch is small, reading the weights takes longer"), "{told}");
    let line =
        told.lines().find(|line| line.starts_with("At a batch of 256 its throughput is higher than that of one (")).expect("its line");
    let crossing = line.rsplit_once('(').and_then(|(_, figure)| figure.trim_end_matches(").").parse::<f64>().ok());
    assert!(crossing.is_some_and(|batch| (8.0..12.0).contains(&batch)), "{line}");
    assert!(told.contains("It ends at 256: 1024 ") && !told.contains("about 1 times"), "{told}");
    assert!(told.contains("most of what DRAM can do") && told.contains("arithmetic bounds it from the first one on"), "{told}");
    assert!(view.rows.len() >= 7, "{:?}", view.rows.len());
}

#[test]
fn misnomer_compares_chains_whose_flops_are_equal_within_two_percent() {
    let (told, view) = answered("misnomer");
    assert_eq!(told.matches(", equal FLOPs: ").count(), 2, "{told}");
    let flops = |labels: &[(&str, u64)]| -> f64 {
        let of = |&(label, times): &(&str, u64)| {
            view.rows.iter().find(|row| row.label.ends_with(label)).map_or(f64::NAN, |row| (times * row.macs) as f64)
        };
        labels.iter().map(of).sum()
    };
    let efficient = flops(&[("14x14x112>672 k1", 3), ("14x14x672 k5", 3), ("14x14x672>112 k1", 3)]);
    let regnet = flops(&[("14x14x208>208 k1", 10), ("14x14x208>208 k3 g26", 5)]);
    let (standard, separable) = (flops(&[("56x56x64>64 k3", 1)]), flops(&[("56x56x188 k3", 1), ("56x56x188>188 k1", 1)]));
    assert!((efficient / regnet - 1.0).abs() < 0.02 && (standard / separable - 1.0).abs() < 0.01, "{}", efficient / regnet);
}

#[test]
fn precision_tells_bytes_against_time_and_both_kinds_of_error() {
    let (told, view) = answered("precision");
    // 67,141,632 bytes of f32 against 17,334,272 and 8,945,664, on a device whose kernels reach their roofs.
    let vector = "int8 has 3.9 times fewer bytes and takes less time; int4 has 7.5 times fewer bytes and takes less time.";
    assert!(words(&told).contains(&format!("One vector times weights, against f32: {vector}")), "{told}");
    let matrix = told.lines().find(|line| line.starts_with("A matrix times weights")).expect("its line");
    assert_eq!(matrix.matches("about the same time").count(), 2, "{told}");
    // Groups of 128 normal weights; what f32 sums lose is thousands of times less.
    let stored = told.split("off by ").nth(1).and_then(|rest| rest.split(" % in int8").next()).and_then(|share| share.parse::<f64>().ok());
    assert!(stored.is_some_and(|share| (0.55..0.75).contains(&share)), "{told}");
    assert!(told.contains("far more than any kernel here adds") && !told.contains("less than the worst rounding"), "{told}");
    assert!(told.contains("Not measured here: tf32, f16, bf16"), "{told}");
    // No kernel here knows tf32; those that know the others are not for this device, with a vector or a matrix.
    assert_eq!(view.skips.iter().filter(|skip| skip.why.contains("precision")).count(), 1 + 2 * 2, "{:?}", view.skips);
    let study = study::find("precision").expect("a study");
    let picture = svg::figure(&study.answer(&view).figure, &view.header).expect("a picture");
    let named = |name: &str| picture.contains(&format!(">{name}</text>"));
    assert!(["f32", "int8", "int4", "times a vector", "storing the weights"].into_iter().all(named), "every mark and line is named");
}

#[test]
fn attention_variants_tells_exponents_and_errors_that_no_device_changes() {
    let (told, view) = answered("attention-variants");
    // 2 · 256 / 1024 of the MACs; errors come from the definitions; 16 sequences, as the fake device is a GPU.
    assert!(
        told.contains("At 1024 tokens Linformer of rank 256") && told.contains("have 1/2 of the MACs") && told.contains("below 512 tokens"),
        "{told}"
    );
    assert!(told.contains("flash 2 (") && told.contains("Linformer 256 1 (") && told.contains("Performer 256 1 ("), "{told}");
    assert!(told.contains("Performer with 64, 256, 512 features") && told.contains("its worst case"), "{told}");
    let study = study::find("attention-variants").expect("a study");
    let telling = study.answer(&view);
    let errors = |form: &str| telling.grid.rows.iter().filter(|row| row[0].starts_with(form) && row[9].ends_with('%')).count();
    assert_eq!((errors("Linformer"), errors("Performer")), (6, 3));
    let macs = |op: &str| view.rows.iter().filter(move |row| row.op == op).map(|row| row.macs).max();
    assert_eq!(macs("linformer"), Some(4 * 16 * 8 * 2048 * 256 * 64));
    assert!(view.rows.iter().any(|row| row.op == "performer" && row.variant == "linear"));
}

#[test]
fn a_roof_recorded_here_within_a_day_is_taken_over_and_one_named_must_fit() {
    let folder = scratch("roof");
    let traced = rooftrace(&folder, SCRIPT, &["trace", "--device", "fake", "--size", "small", "--quiet"]);
    assert_eq!(traced.status.code(), Some(0), "{}", String::from_utf8_lossy(&traced.stderr));
    study(&folder, "depthwise", "first", &[]);
    let first = view(&folder.join("first"));
    let taken = first.header.settings.roof_started.expect("the time of the roof");
    assert!(!first.ceilings.is_empty() && first.header.started >= taken);
    // From a study's own file, the roof keeps its age and its ids.
    study(&folder, "depthwise", "second", &["--roof", "first/records.jsonl"]);
    let second = view(&folder.join("second"));
    assert_eq!((second.header.settings.roof_started, &second.ceilings), (Some(taken), &first.ceilings));
    assert_eq!(told(&second), told(&first));
    // Without its ceilings a file is no roof, nor is that of another device.
    let file = record::read(&folder.join("first/records.jsonl")).expect("a readable file");
    let bare = file.records.iter().filter(|record| matches!(record, Record::Header(_)));
    let lines: Vec<String> = bare.map(|record| record::encode(record).expect("a line")).collect();
    std::fs::write(folder.join("bare.jsonl"), lines.join("\n") + "\n").expect("a file");
    let other = lines[0].replace("\"compute_units\":", "\"compute_units\":9");
    std::fs::write(folder.join("other.jsonl"), other + "\n").expect("a file");
    for (file, says) in [("bare.jsonl", "no roof of f32"), ("other.jsonl", "its roof is that of"), ("nowhere.jsonl", "nowhere.jsonl")] {
        let refused = rooftrace(&folder, SCRIPT, &["study", "depthwise", "--device", "fake", "--quiet", "--roof", file, "--out", "none"]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(6) && stderr.contains(says) && !folder.join("none").exists(), "{file}: {stderr}");
    }
}

#[test]
fn a_study_that_is_cut_short_tells_what_it_can() {
    for study in STUDIES {
        let folder = scratch(&format!("cut-{}", study.name));
        let args = ["study", study.name, "--device", "fake", "--size", "small", "--quiet", "--budget", "1ms", "--out", "out"];
        let output = rooftrace(&folder, SCRIPT, &args);
        assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
        let view = view(&folder.join("out"));
        let told = told(&view);
        assert!(told.starts_with("The budget ended: ") && told.contains("items were not run; raise --budget."), "{told}");
        // Neither an empty table nor a blank picture.
        let said = text(&output);
        assert!(said.contains("left out") && said.contains(": the budget ended before it") && !said.contains("----"), "{said}");
        assert!(!folder.join(format!("out/{}.svg", study.name)).exists());
        let svg = rooftrace(&folder, SCRIPT, &["show", "out/records.jsonl", "--svg", "none.svg"]);
        assert!(svg.status.code() == Some(2) && !folder.join("none.svg").exists(), "{}", String::from_utf8_lossy(&svg.stderr));
    }
}

#[test]
fn how_a_study_was_interrupted_is_the_first_that_it_tells() {
    let folder = scratch("interrupted");
    let args = ["study", "depthwise", "--device", "fake", "--size", "small", "--quiet", "--budget", "1ms", "--out", "out"];
    rooftrace(&folder, SCRIPT, &args);
    let mut view = view(&folder.join("out"));
    let first = |view: &View| told(view).lines().next().map(str::to_string).expect("a line");
    let budget = first(&view);
    let items = budget.strip_prefix("The budget ended: ").and_then(|rest| rest.split(' ').next()).expect("a count");
    view.end.as_mut().expect("an end").status = 130;
    assert_eq!(first(&view), format!("Interrupted: {items} items were not run."));
    view.skips.clear();
    assert_eq!(first(&view), "Interrupted before the first of its items.");
}

#[test]
fn attention_tells_that_traffic_is_not_why_naive_is_slow_on_a_host_and_holds_decoding_against_it() {
    let told = words(&told(&view(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results/epyc-zen5-2cpu/2026-11-27T184016"))));
    // 1.33 GiB in 1.03 s, on a host that reads 118 GB/s.
    assert!(told.contains("traffic is not why here: from DRAM all bytes that naive moves would take little of naive's time"), "{told}");
    assert!(told.contains("and no one resource explains its time."), "{told}");
    assert!(told.contains("over groups, takes less time than flash and less time than naive."), "{told}");
}

#[test]
fn depthwise_blames_memory_only_for_what_reaches_its_roof() {
    let mut view = view(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results/epyc-zen5-2cpu/2026-11-27T1156"));
    let before = words(&told(&view));
    assert!(before.contains("so memory sets its time, whatever the arithmetic."), "{before}");
    assert!(before.contains("from k = 7 on arithmetic is its bound, and the best of these kernels reaches part of it, so"), "{before}");
    assert!(before.contains("At batch 1 the same depthwise layer has a limiter that is unexplained: none of"), "{before}");
    for row in view.rows.iter_mut().filter(|row| row.op == "depthwise") {
        row.limiter = "parallelism".into();
        row.shares.iter_mut().for_each(|share| share.share /= 2.0);
    }
    let after = words(&told(&view));
    assert!(after.contains("so memory would bound it; this kernel reaches part of that roof, and its limiter is parallelism."), "{after}");
}

#[test]
fn studies_are_listed_with_their_questions() {
    let listed = text(&rooftrace(&scratch("list"), SCRIPT, &["study"]));
    assert!(STUDIES.iter().all(|study| listed.contains(study.name) && listed.contains(study.question)), "{listed}");
}

#[test]
fn recordings_of_one_machine_tell_the_same_verdict() {
    let mut verdicts: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for device in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results")) {
        for recording in folders(&device).into_iter().filter(|folder| folder.join("records.jsonl").exists()) {
            let view = view(&recording);
            let Some(study) = study::Study::of(&view) else { continue };
            let key = (device.display().to_string(), study.name.to_string());
            verdicts.entry(key).or_default().push(words(&study.answer(&view).sentences[0]));
        }
    }
    let repeated: Vec<_> = verdicts.iter().filter(|(_, told)| told.len() > 1).collect();
    for (of, told) in &repeated {
        assert!(told.iter().all(|verdict| *verdict == told[0]), "{of:?}: {told:#?}");
    }
    let studies: BTreeSet<_> = repeated.iter().map(|((_, study), _)| study.as_str()).collect();
    assert_eq!(studies.len(), study::STUDIES.len(), "recorded twice on one machine: {studies:?}");
}

/// Folders in a folder.
fn folders(within: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(within).expect("results are there").map(|entry| entry.expect("they can be listed").path());
    entries.filter(|path| path.is_dir()).collect()
}
