//! What rows cost, against figures worked out by hand, and from files recorded before anybody asked.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixture::*;
use rooftrace::cost::{Asked, Limit, Nominal, fill};
use rooftrace::op;
use rooftrace::plan::Precision;
use rooftrace::record::{Cache, Ceiling, Energy, Measurement, Record, State};
use rooftrace::roofline;
use rooftrace::view::{Cost, View};
use serde_json::{Value, json};

/// 3.60 an hour: a thousandth a second.
fn asked() -> Asked {
    Asked { price: Some(3.6), ..Asked::default() }
}

fn ms(amount: f64) -> Option<Limit> {
    Some(Limit { amount, unit: "ms", scale: 1e6 })
}

fn mib(amount: f64) -> Option<Limit> {
    Some(Limit { amount, unit: "MiB", scale: MIB as f64 })
}

/// The costs of kernels on the traced fixture: 100 GFLOP/s, 20 GB/s of DRAM reads.
fn costs(kernels: Vec<Build>, asked: &Asked) -> Vec<Cost> {
    on(traced(), kernels, asked)
}

fn on(mut records: Vec<Record>, kernels: Vec<Build>, asked: &Asked) -> Vec<Cost> {
    records.extend(kernels.into_iter().map(Build::record));
    let mut view = roofline::view(&records).expect("a view");
    fill(&mut view, asked);
    view.rows.into_iter().map(|row| row.cost.expect("a cost")).collect()
}

/// A cold kernel of a problem that takes so many ns.
fn cold(op: &str, problem: Value, flops: u64, bytes: u64, ns: f64) -> Build {
    let known = (op::find(op).expect("an op").parse)(&problem).expect("a problem");
    assert_eq!(known.flops(), flops, "{op}: the FLOPs by hand are the op's");
    kernel(op).named(op, "naive").work(flops, bytes, 0).takes(ns).with(|m| m.problem = problem)
}

#[track_caller]
fn near(got: Option<f64>, want: f64) {
    assert!((got.expect("a value") / want - 1.0).abs() < 1e-6, "{got:?} for {want}");
}

#[test]
fn a_matmul_costs_what_was_worked_out_by_hand() {
    // 2·128·256·512 FLOP; 4·(128·512 + 512·256 + 128·256) bytes; in 1 ms 33.55 of 100 GFLOP/s and 0.9175 of 20 GB/s.
    let kernel = cold("matmul", json!({"m": 128, "n": 256, "k": 512}), 33_554_432, 917_504, 1e6).with(|m| m.peak_bytes = Some(950_000));
    let cost = costs(vec![kernel], &asked()).remove(0);
    assert_eq!((cost.params, cost.activations, cost.peak_bytes), (Some(131_072), Some(32_768), Some(950_000)));
    near(cost.latency_ns, 1e6);
    near(cost.problems_per_s, 1000.0);
    near(cost.mfu, 0.335_544_32);
    near(cost.mbu, 0.045_875_2);
    near(cost.price_per_million, 1.0);
    assert_eq!((cost.samples_per_s, cost.fits, cost.why), (None, None, vec![]), "a matmul's rows are no samples");
}

#[test]
fn a_convolution_costs_what_was_worked_out_by_hand() {
    // 2 images of 115,605,504 MAC; 4·(2·50,176 + 589,824 + 2·50,176) bytes; 10 ms.
    let problem = json!({"n": 2, "h": 14, "w": 14, "c_in": 256, "c_out": 256, "k": 3, "padding": 1});
    let cost = costs(vec![cold("conv2d", problem, 462_422_016, 3_162_112, 1e7)], &asked()).remove(0);
    assert_eq!((cost.params, cost.activations, cost.peak_bytes), (Some(589_824), Some(100_352), None));
    near(cost.problems_per_s, 100.0);
    near(cost.samples_per_s, 200.0);
    near(cost.mfu, 0.462_422_016);
    near(cost.mbu, 0.015_810_56);
    near(cost.price_per_million, 10.0);
}

#[test]
fn a_depthwise_convolution_costs_what_was_worked_out_by_hand() {
    // 9 MAC for each of 56·56·128 outputs; 4·(2·401,408 + 1,152) bytes; 0.2 ms.
    let problem = json!({"n": 1, "h": 56, "w": 56, "c": 128, "k": 3, "padding": 1});
    let cost = costs(vec![cold("depthwise", problem, 7_225_344, 3_215_872, 2e5)], &asked()).remove(0);
    assert_eq!((cost.params, cost.activations), (Some(1152), Some(401_408)));
    near(cost.samples_per_s, 5000.0);
    near(cost.mfu, 0.361_267_2);
    near(cost.mbu, 0.803_968);
    near(cost.price_per_million, 0.2);
}

#[test]
fn attention_costs_what_was_worked_out_by_hand() {
    // 4·8 heads of 2·512·512·64 MAC; four tensors of 4·8·512·64 elements; 40 ms.
    let problem = json!({"batch": 4, "heads": 8, "seq": 512, "head_dim": 64});
    let cost = costs(vec![cold("attention", problem, 2_147_483_648, 16_777_216, 4e7)], &asked()).remove(0);
    assert_eq!((cost.params, cost.activations), (Some(0), Some(1_048_576)));
    near(cost.problems_per_s, 25.0);
    near(cost.samples_per_s, 100.0);
    near(cost.mfu, 0.536_870_912);
    near(cost.mbu, 0.020_971_52);
    near(cost.price_per_million, 40.0);
}

#[test]
fn what_is_not_known_is_absent_and_never_zero() {
    let plain = || kernel("m0").work(1_000_000, 1_000_000, 0).takes(1e6);
    let without = |gone: fn(&Ceiling) -> bool| traced().into_iter().filter(|r| !matches!(r, Record::Ceiling(c) if gone(c))).collect();
    let dark: Vec<Record> = without(|c| c.level.as_deref() == Some("dram") && c.direction.as_deref() == Some("read"));
    let cost = on(dark, vec![plain()], &asked()).remove(0);
    assert!(cost.mbu.is_none() && cost.mfu.is_some(), "{cost:?}");
    let cost = on(without(|c| c.precision.is_some()), vec![plain()], &asked()).remove(0);
    assert!(cost.mfu.is_none() && cost.mbu.is_some(), "{cost:?}");
    let cost = costs(vec![plain().warm(MIB)], &asked()).remove(0);
    assert!(cost.mbu.is_none() && cost.mfu.is_some(), "warm data does not come from DRAM: {cost:?}");
    let newer = plain().named("stft", "naive");
    let field = plain().with(|m| m.problem = json!({"m": 64, "n": 64, "k": 64, "layout": "col"}));
    for cost in costs(vec![newer.with(|m| m.id = "m1".into()), field], &asked()) {
        assert!(cost.params.is_none() && cost.activations.is_none() && cost.samples_per_s.is_none(), "{cost:?}");
        assert!(cost.mfu.is_some() && cost.price_per_million.is_some(), "{cost:?}");
    }
    let cost = costs(vec![plain().ended(State::Wrong)], &asked()).remove(0);
    assert!([cost.latency_ns, cost.problems_per_s, cost.mfu, cost.mbu, cost.price_per_million].iter().all(Option::is_none), "{cost:?}");
    assert_eq!(cost.params, Some(4096), "a shape has its parameters whatever the output was");
}

#[test]
fn a_row_fits_or_says_which_limit_it_breaks_or_what_is_not_known() {
    let limits = Asked { max_latency: ms(10.0), max_memory: mib(64.0), ..Asked::default() };
    let judged = |ns: f64, peak: Option<u64>, limits: &Asked| {
        let kernel = kernel("m0").work(1_000_000, 1_000_000, 0).takes(ns).with(|m| m.peak_bytes = peak);
        let cost = costs(vec![kernel], limits).remove(0);
        (cost.fits, cost.why.join(", "))
    };
    assert_eq!(judged(1e6, Some(MIB), &limits), (Some(true), String::new()));
    assert_eq!(judged(1e7, Some(64 * MIB), &limits), (Some(true), String::new()), "a limit may be reached");
    assert_eq!(judged(22.9e6, Some(MIB), &limits), (Some(false), "22.9 ms > 10 ms".into()));
    assert_eq!(judged(22.9e6, Some(100 * MIB), &limits), (Some(false), "22.9 ms > 10 ms, 100 MiB > 64 MiB".into()));
    assert_eq!(judged(1e6, None, &limits), (None, "memory not measured".into()));
    assert_eq!(judged(22.9e6, None, &limits), (Some(false), "22.9 ms > 10 ms".into()), "one broken limit decides");
    assert_eq!(judged(1e6, None, &Asked { max_memory: None, ..limits.clone() }), (Some(true), String::new()));
}

#[test]
fn energy_nominal_peaks_and_a_limit_of_energy_are_worked_out_by_hand() {
    // 33,554,432 FLOP in 1 ms; 2,000 launches in 2 s take 90 J, 10 W of them idle: 45 mJ, 35 of them above idle; 745.65 MFLOP/J.
    let energy =
        Energy { source: "by hand".into(), launches: 2000, wall_ns: 2_000_000_000, uj: 90_000_000, updates: 20, idle_uw: 10_000_000 };
    let kernel = |energy| cold("matmul", json!({"m": 128, "n": 256, "k": 512}), 33_554_432, 917_504, 1e6).with(|m| m.energy = energy);
    let compute = vec![(Some(Precision::BF16), 989e12), (None, 67e9)];
    let limit = |amount| Some(Limit { amount, unit: "mJ", scale: 1e-3 });
    let asked = Asked { nominal: Nominal { compute, byte_per_s: Some(40e9) }, max_energy: limit(50.0), ..Asked::default() };
    let cost = costs(vec![kernel(Some(energy.clone()))], &asked).remove(0);
    near(cost.energy_j, 0.045);
    near(cost.energy_above_idle_j, 0.035);
    near(cost.flop_per_j, 745_654_044.4);
    near(cost.mfu, 0.335_544_32);
    near(cost.mfu_nominal, 0.500_812_418);
    near(cost.mbu_nominal, 0.022_937_6);
    assert_eq!((cost.fits, &cost.why[..]), (Some(true), &[][..]));
    let strict = Asked { max_energy: limit(10.0), ..asked.clone() };
    let cost = costs(vec![kernel(Some(energy.clone()))], &strict).remove(0);
    assert_eq!((cost.fits, cost.why.join(", ")), (Some(false), "45.0 mJ > 10 mJ".into()));
    let cost = costs(vec![kernel(None)], &strict).remove(0);
    assert_eq!((cost.energy_j, cost.flop_per_j, cost.fits, cost.why.join(", ")), (None, None, None, "energy not measured".into()));
    let half = |m: &mut Measurement| (m.precision, m.cache) = (Precision::BF16, Cache::Warm);
    let cost = costs(vec![kernel(None).with(half)], &asked).remove(0);
    near(cost.mfu_nominal, 33_554_432e3 / 989e12);
    assert_eq!((cost.mfu, cost.mbu_nominal), (None, None), "a peak of its own, no ceiling measured, warm data");
    let wrong = kernel(Some(energy)).ended(State::Wrong);
    let cost = costs(vec![wrong], &asked).remove(0);
    assert_eq!((cost.energy_j, cost.flop_per_j, cost.mfu_nominal), (None, None, None));
    let only = Nominal { compute: vec![(Some(Precision::BF16), 989e12)], byte_per_s: None };
    assert_eq!((only.flop_per_s(Precision::F32), only.flop_per_s(Precision::BF16)), (None, Some(989e12)));
}

fn show(record: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    command.arg("show").arg(record).args(args).env("NO_COLOR", "1").env("COLUMNS", "100").output().expect("the program starts")
}

fn recorded(folder: &Path) -> Vec<PathBuf> {
    let inside = |path: PathBuf| if path.is_dir() { recorded(&path) } else { vec![path] };
    let all = std::fs::read_dir(folder).expect("a folder").flatten().flat_map(|entry| inside(entry.path()));
    all.filter(|path| path.file_name().is_some_and(|name| name == "records.jsonl")).collect()
}

#[test]
fn every_committed_record_shows_its_costs() {
    let records = recorded(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results"));
    assert!(records.len() > 10);
    for record in records {
        let output = show(&record, &["--price", "2.50/h", "--max-memory", "1GiB"]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success() && text.contains("cost"), "{}: {text}", record.display());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{}: {text}", record.display());
        let known = |view: &View| view.rows.iter().all(|row| row.cost.as_ref().is_some_and(|cost| cost.activations.is_some()));
        let json = show(&record, &["--columns", "cost", "--json"]).stdout;
        assert!(known(&serde_json::from_slice(&json).expect("a view")), "{}", record.display());
    }
}

#[test]
fn json_has_costs_only_where_they_were_asked_for() {
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/epyc-zen5-2cpu/2026-11-27T0829/records.jsonl");
    let view = |args: &[&str]| serde_json::from_slice::<Value>(&show(&record, args).stdout).expect("JSON");
    let (plain, asked) = (view(&["--json"]), view(&["--json", "--max-latency", "10ms"]));
    let rows = |view: &Value| view["rows"].as_array().expect("rows").clone();
    assert!(rows(&plain).iter().all(|row| row.get("cost").is_none()));
    for (plain, mut asked) in rows(&plain).into_iter().zip(rows(&asked)) {
        let cost = asked.as_object_mut().and_then(|row| row.remove("cost")).expect("a cost");
        assert_eq!(plain, asked, "the rest is as it was");
        let within = plain["time_ns"]["median"].as_f64().expect("a time") <= 10e6;
        assert_eq!(cost["fits"], json!(within), "{cost}");
        assert!(cost["mfu"].is_f64() && cost["mbu"].is_f64() == (plain["cache"] == "cold"), "{cost}");
    }
}
