//! Ceilings from their measurements, and the view of a whole file.

mod fixture;

use fixture::{GFLOPS, MIB, kernel, traced};
use rooftrace::plan::Precision;
use rooftrace::record::{Ceiling, CeilingKind, Record, Skip, State};
use rooftrace::roofline::{Roof, ceiling_view, place, sweeps, view};

const MS: f64 = 1e6;

fn near(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a / b - 1.0).abs() < 1e-6)
}

#[track_caller]
fn assert_near(a: Option<f64>, b: f64) {
    assert!(near(a, b), "{a:?} is not {b}");
}

#[test]
fn a_ceiling_is_work_over_the_tenth_percentile_of_its_pooled_blocks() {
    let blocks: Vec<_> = ["a", "b", "c"].iter().map(|id| fixture::fma(id, Precision::F32, GFLOPS).spread(10.0 * MS, 0.02).done()).collect();
    let find = |id: &str| blocks.iter().find(|m| m.id == id);
    let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b", "c"]), find).unwrap();
    // 36 pooled times, three at each of 12 even steps over ±2 %; the 10th percentile has rank 3.5: the
    // second step, 10 ms × (0.98 + 0.04 / 11).
    assert!((c.value / 101_663_585_914.0 - 1.0).abs() < 1e-9, "{c:?}");
    assert!(c.low < c.value && c.value < c.high && c.state == State::Ok, "{c:?}");
}

#[test]
fn a_short_block_still_widens_the_interval_of_its_ceiling() {
    // 200 samples at 96, two at 98 and two at 94 GFLOP/s: too few to move the pooled 10th percentile or its ranks.
    let block = |id: &str, n, gflops: f64| fixture::fma(id, Precision::F32, gflops).samples(n).takes(1e9 / gflops).done();
    let blocks = [block("a", 200, 96.0), block("b", 2, 98.0), block("c", 2, 94.0)];
    let find = |id: &str| blocks.iter().find(|m| m.id == id);
    let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b", "c"]), find).unwrap();
    assert!(near(Some(c.value), 96e9) && near(Some(c.low), 94e9) && near(Some(c.high), 98e9), "{c:?}");
}

#[test]
fn blocks_with_other_launch_counts_are_pooled_by_work() {
    let a = fixture::fma("a", Precision::F32, GFLOPS).done();
    let b = fixture::fma("b", Precision::F32, GFLOPS).work(3_000_000_000, 1, 0).takes(30.0 * MS).with(|m| {
        m.launches = 10;
        m.samples_ns.iter_mut().for_each(|ns| *ns /= 10);
    });
    let b = b.done();
    let find = |id: &str| [&a, &b].into_iter().find(|m| m.id == id);
    let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b"]), find).unwrap();
    assert_near(Some(c.value), 100e9);
    assert_eq!(c.state, State::Ok);
}

#[test]
fn blocks_over_five_percent_apart_make_a_ceiling_suspect_where_no_two_agree() {
    for (gflops, state) in [(96.0, State::Ok), (94.0, State::Suspect)] {
        let (a, b) = (fixture::fma("a", Precision::F32, 100.0).done(), fixture::fma("b", Precision::F32, gflops).done());
        let find = |id: &str| [&a, &b].into_iter().find(|m| m.id == id);
        let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b"]), find).unwrap();
        assert_eq!(c.state, state);
        assert!(near(Some(c.low), gflops * 1e9) && near(Some(c.high), 100e9), "the interval holds every block: {c:?}");
    }
}

#[test]
fn a_slower_block_is_set_aside_where_two_agree_on_the_fastest() {
    let block = |id: &str, gflops: f64| fixture::fma(id, Precision::F32, gflops).ended(State::Suspect).done();
    for (third, state, low, why) in [
        (99.0, State::Ok, 98.0, None),
        (50.0, State::Ok, 98.0, Some("a slower block is set aside (c took 100 % longer than the others)")),
        // The fastest stands alone: two that agree on less do not outvote it.
        (130.0, State::Suspect, 98.0, Some("its blocks disagree (a took 30 % longer than the fastest)")),
    ] {
        let blocks = [block("a", 100.0), block("b", 98.0), block("c", third)];
        let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b", "c"]), |id| blocks.iter().find(|m| m.id == id)).unwrap();
        assert_eq!(c.state, state, "{c:?}");
        assert!(near(Some(c.low), low * 1e9), "{c:?}");
        assert_eq!(c.reasons.is_empty(), why.is_none(), "{c:?}");
        assert!(why.is_none_or(|why| c.reasons.iter().any(|r| r == why)), "{c:?}");
    }
}

#[test]
fn a_suspect_unusable_or_absent_block_makes_a_ceiling_suspect_with_the_reason() {
    let good = fixture::fma("good", Precision::F32, 100.0).done();
    let suspect = fixture::fma("suspect", Precision::F32, 100.0).ended(State::Suspect).done();
    let wrong = fixture::fma("wrong", Precision::F32, 500.0).ended(State::Wrong).done();
    let find = |id: &str| [&good, &suspect, &wrong].into_iter().find(|m| m.id == id);
    for (from, why) in [
        (&["suspect"][..], "one of its blocks is suspect (suspect)"),
        (&["good", "wrong"], "wrong ended wrong"),
        (&["good", "gone"], "gone is not in the file"),
    ] {
        let c = ceiling_view(&fixture::compute(Precision::F32, from), find).unwrap();
        assert_eq!((c.state, c.reasons.as_slice()), (State::Suspect, &[why.to_string()][..]));
        assert_near(Some(c.value), 100e9);
    }
    assert!(ceiling_view(&fixture::compute(Precision::F32, &["wrong"]), find).unwrap_err().contains("no usable measurement"));
    let power = fixture::fma("power", Precision::F32, 90.0).ended(State::PowerLimited).done();
    let c = ceiling_view(&fixture::compute(Precision::F32, &["power"]), |_| Some(&power)).unwrap();
    assert_eq!(c.state, State::PowerLimited);
}

#[test]
fn a_latency_is_the_slope_from_its_base_and_has_no_value_where_that_is_none() {
    let probe = |id: &str, dispatches, us: f64| kernel(id).named("launch", "counted").grid(1, dispatches).takes(1e3 * us).done();
    let all = [probe("few", 2, 50.0), probe("many", 258, 306.0), probe("more", 258, 308.56), probe("short", 258, 40.0)];
    let find = |id: &str| all.iter().find(|m| m.id == id);
    let of = |from: &[&str], base: &[&str]| Ceiling {
        kind: CeilingKind::Latency,
        base: base.iter().map(|id| id.to_string()).collect(),
        ..fixture::compute(Precision::F32, from)
    };
    let c = ceiling_view(&of(&["many", "more"], &["few"]), find).unwrap();
    assert!(near(Some(c.value), 1000.0) && near(Some(c.high), 1010.0) && c.state == State::Ok, "{c:?}");
    let why = ceiling_view(&of(&["short"], &["few"]), find).unwrap_err();
    assert!(why.contains("short has a sample of no longer than the base"), "{why}");
    assert!(ceiling_view(&of(&["few"], &["few"]), find).is_err(), "no steps, no slope");
    assert!(ceiling_view(&of(&["many"], &["gone"]), find).unwrap_err().contains("gone, which is taken off"));
}

#[test]
fn a_latency_of_memory_is_the_time_of_one_load_and_no_roof() {
    let chase = kernel("walk").named("chase", "cycle").takes(4e6).with(|m| m.problem = serde_json::json!({"lines": 64, "hops": 1_000_000}));
    let all = [chase.done()];
    let ceiling = Ceiling {
        name: "l2 latency".into(),
        kind: CeilingKind::Latency,
        level: Some("l2".into()),
        ..fixture::compute(Precision::F32, &["walk"])
    };
    let c = ceiling_view(&ceiling, |id| all.iter().find(|m| m.id == id)).unwrap();
    assert!(near(Some(c.value), 4.0), "{c:?}");
    let mut header = fixture::header();
    header.clock.launch_ns = 7;
    let roof = Roof::new(&header, vec![c], Vec::new());
    assert_eq!((roof.level_of(1000), roof.inward("dram")), (None, None));
}

#[test]
fn shared_memory_and_the_link_are_ceilings_that_hold_no_footprint_and_serve_no_level() {
    let mut records = traced();
    let without = Roof::from_records(&records).unwrap();
    records.push(kernel("tile").named("shared", "rotated").work(0, 1_000_000_000, 0).takes(MS).record());
    let shared = Ceiling { id: "c99".into(), name: "shared read".into(), ..fixture::bandwidth("shared", "read", None, &["tile"]) };
    records.push(Record::Ceiling(shared));
    records.push(kernel("copy").named("transfer", "copied").work(0, 1_000_000, 0).takes(MS).record());
    let link = Ceiling { id: "c98".into(), name: "pcie read".into(), ..fixture::bandwidth("pcie", "read", None, &["copy"]) };
    records.push(Record::Ceiling(link));
    let roof = Roof::from_records(&records).unwrap();
    assert_eq!(roof.ceilings().len(), without.ceilings().len() + 2);
    for bytes in [1, 100_000, 10_000_000, 1 << 40] {
        assert_eq!(roof.level_of(bytes), without.level_of(bytes));
    }
    for level in ["l1", "l2", "l3", "dram"] {
        assert_eq!(roof.inward(level), without.inward(level));
    }
}

#[test]
fn a_suspect_roof_is_said_on_the_rows_it_decides() {
    let mut records = traced();
    for record in &mut records {
        if let Record::Ceiling(c) = record
            && c.level.as_deref() == Some("dram")
        {
            c.state = State::Suspect;
        }
    }
    let roof = Roof::from_records(&records).unwrap();
    let memory = place(&kernel("k").work(1000, 20_000_000, 0).takes(2.0 * MS).done(), &roof);
    assert_eq!(memory.reasons, ["the ceiling it is judged by is suspect: dram read"]);
    let compute = place(&kernel("k").work(1_000_000_000, 1_000_000, 0).takes(20.0 * MS).done(), &roof);
    assert_eq!(compute.reasons, Vec::<String>::new());
}

#[test]
fn curves_keep_the_fastest_sound_configuration_at_each_size() {
    let size = 12 * MIB;
    let probes = [
        fixture::stream("slow", "copy", size, 10.0).with(|m| m.tunables.0.extend([("BLOCK".into(), 64)])).done(),
        fixture::stream("fast", "copy", size, 30.0).with(|m| m.tunables.0.extend([("BLOCK".into(), 256)])).done(),
        fixture::stream("odd", "copy", size, 900.0).named("stream", "other").ended(State::Suspect).done(),
        fixture::stream("wrong", "copy", size, 900.0).ended(State::Wrong).done(),
        fixture::stream("small", "copy", MIB / 8 * 8, 50.0).done(),
    ];
    let curves = sweeps(&probes);
    assert_eq!(curves.len(), 1);
    let curve = curves[0].curve();
    assert_eq!(curve.direction, "copy");
    let points: Vec<_> = curve.points.iter().map(|(bytes, rate)| (*bytes, (rate / 1e9).round())).collect();
    assert_eq!(points, [(MIB, 50.0), (size, 30.0)]);
    assert_eq!(curves[0].points[1].ids, ["fast"]);
}

// The view.

#[test]
fn the_view_places_kernels_alone_and_keeps_unknown_ops_and_skips() {
    let mut records = traced();
    records.push(kernel("k1").work(1_000_000_000, 20_000_000, 0).takes(12.5 * MS).record());
    records.push(kernel("k2").named("fft", "radix16").work(1000, 20_000_000, 0).takes(2.0 * MS).record());
    records.push(kernel("k3").work(1000, 1000, 0).ended(State::Wrong).record());
    let skip = r#"{"id":"s","op":"matmul","variant":"tiled","state":"unsupported","why":"needs f16"}"#;
    records.push(Record::Skip(serde_json::from_str::<Skip>(skip).unwrap()));
    records.push(Record::Ceiling(fixture::bandwidth("l9", "read", None, &["nowhere"])));
    let v = view(&records).unwrap();
    let ids: Vec<_> = v.rows.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["k1", "k2", "k3"]);
    assert_near(v.rows[1].roof_fraction, 0.5);
    assert_eq!((v.ceilings.len(), v.curves.len()), (17, 4));
    let skips: Vec<_> = v.skips.iter().map(|s| (s.op.as_str(), s.variant.as_str())).collect();
    assert_eq!(skips, [("matmul", "tiled"), ("ceiling", "l9 read")]);
    let text = serde_json::to_string(&v).unwrap();
    let back: rooftrace::view::View = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text, "the view survives the trip through JSON");
}

#[test]
fn files_without_a_header_or_with_ambiguous_ids_are_refused() {
    let of = |records: &[Record]| view(records).unwrap_err();
    assert_eq!(of(&traced()[1..]).exit_code(), 6);
    let mut twice = traced();
    twice.push(Record::Header(fixture::header()));
    assert!(of(&twice).to_string().contains("two header lines"));
    let mut same = traced();
    same.push(fixture::fma("fma", Precision::F32, 1.0).record());
    assert!(of(&same).to_string().contains("'fma'"));
}

#[test]
fn every_prefix_of_a_file_has_a_view() {
    let mut records = traced();
    records.push(kernel("k").work(1_000_000_000, 20_000_000, 0).takes(12.5 * MS).record());
    for end in 1..=records.len() {
        let v = view(&records[..end]).unwrap();
        assert!(v.skips.is_empty(), "{:?}", v.skips);
    }
}
