//! Record files: what was written can be read, whatever happened to the file since.

use std::path::{Path, PathBuf};

use rooftrace::Error;
use rooftrace::backend::Checks;
use rooftrace::backend::{Facts, Vitals};
use rooftrace::draw::{Draw, mix};
use rooftrace::op::OpRole;
use rooftrace::plan::{DeviceInfo, DeviceKind, Language, Limits, Precision, Sensors, Tuned, Unit};
use rooftrace::record::{
    Cache, Canary, Ceiling, CeilingKind, Clock, End, Energy, Environment, Header, Journal, Measurement, Record, Schema, Settings, Skip,
    State, Telemetry, Tool, Verification, encode, parse, read,
};
use serde_json::{Map, Value, json};

/// A file of version 1.0, kept for ever.
const GOLDEN: &str = include_str!("golden/records-1.0.jsonl");

fn header() -> Header {
    Header {
        schema: Schema { name: "rooftrace".into(), major: 1, minor: 0 },
        started: 1_795_334_400,
        tool: Tool { version: "0.1.0".into(), commit: "unknown".into(), dirty: true, executable: "0123456789abcdef".into() },
        environment: Environment {
            os: "linux".into(),
            arch: "x86_64".into(),
            cpu: "A \"quoted\" µ-architecture".into(),
            cpus: 2,
            memory_bytes: 8 << 30,
        },
        device: DeviceInfo {
            id: "fake".into(),
            backend: "fake".into(),
            name: "Fake 8".into(),
            kind: DeviceKind::Gpu,
            language: Language::Host,
            driver: "scripted".into(),
            compute_units: 8,
            caches: vec![(1, 256 << 10), (2, 4 << 20)],
            memory_bytes: 4 << 30,
            precisions: vec![Precision::F32, Precision::F64],
            features: vec!["fma".into()],
            limits: Limits {
                binding_bytes: u64::MAX,
                grid: 65_535,
                block: 1024,
                shared_bytes: 48 << 10,
                launch_ns: None,
                loop_trips: Some(60_000),
            },
            simulated: true,
            sensors: None,
        },
        clock: Clock {
            source: "device".into(),
            rejected: None,
            resolution_ns: 10,
            launch_ns: 1000,
            core_mhz: Some((3400, "inferred".into())),
        },
        settings: Settings { command: "run".into(), size: "small".into(), budget_ns: Some(60_000_000_000), seed: 1, ..Settings::default() },
        extra: Map::new(),
    }
}

fn measurement(id: &str) -> Measurement {
    Measurement {
        id: id.into(),
        op: "matmul".into(),
        problem: json!({"m": 64, "n": 64, "k": 64}),
        label: "64x64x64".into(),
        variant: "naive".into(),
        role: OpRole::Kernel,
        backend: "fake".into(),
        precision: Precision::F32,
        unit: Unit::Vector,
        tunables: Tuned([("BM".to_string(), 64)].into()),
        source_hash: u64::MAX,
        state: State::Ok,
        reasons: vec!["stopped at its budget".into()],
        launches: 7,
        sets: 3,
        samples_ns: vec![1000, 1010, 990],
        wall_ns: vec![6000, 6010, 5990],
        checked_ns: 1001,
        clock: "device".into(),
        cache: Cache::Cold,
        macs: 262_144,
        flops: 524_288,
        exponentials: 0,
        bytes_compulsory: 49_152,
        bytes_written: 16_384,
        bytes_moved: 49_152,
        bytes_requested: Some(49_152),
        bytes_lane: Some(2_113_536),
        workspace_bytes: 0,
        peak_bytes: Some(49_152),
        pool_bytes: 147_456,
        set_bytes: 49_152,
        dispatches: 1,
        groups: 4,
        candidate: false,
        canary_ns: Some(Canary { fma_before: 1, stream_before: 2, fma_after: 3, stream_after: 4, stream_bytes: 0 }),
        verification: Some(Verification {
            worst_error: 5e-324,
            allowed: 1.2345678901234567e-5,
            elements_checked: 4096,
            tiles_checked: 1,
            draw: Draw::Dense,
        }),
        facts: Facts { checks: Some(Checks::Trusted), compile_ns: Some(12), path: Some("avx2+fma".into()), ..Facts::default() },
        seed: 1,
        order: 0,
        telemetry: None,
        energy: None,
        extra: Map::new(),
    }
}

fn ceiling(id: &str, from: &[&str]) -> Ceiling {
    Ceiling {
        id: id.into(),
        name: "f32 vector".into(),
        kind: CeilingKind::Compute,
        precision: Some(Precision::F32),
        unit: Some(Unit::Vector),
        level: None,
        direction: None,
        capacity: None,
        from: from.iter().map(|f| f.to_string()).collect(),
        base: Vec::new(),
        state: State::Suspect,
        reasons: vec!["machine changed speed".into()],
        extra: Map::new(),
    }
}

fn skip(id: &str) -> Skip {
    Skip {
        id: id.into(),
        op: "depthwise".into(),
        variant: "direct".into(),
        problem: Some(json!({"n": 1})),
        precision: Some(Precision::F64),
        state: State::Timeout,
        why: "depthwise/direct gave no answer within 2s".into(),
        candidate: false,
        extra: Map::new(),
    }
}

/// What version 1.2 added, kept for ever.
const GOLDEN_1_2: &str = include_str!("golden/records-1.2.jsonl");

/// A run with all that version 1.2 added.
fn metered() -> Vec<Record> {
    let mut header = header();
    header.schema.minor = 2;
    header.device.sensors = Some(Sensors { driver: Some("580.95.05".into()), power_limit_mw: Some(700_000), ..Sensors::default() });
    let before = Vitals { sm_mhz: Some(1980), memory_mhz: Some(2619), power_mw: Some(301_000), celsius: Some(41), ..Vitals::default() };
    let after = Vitals {
        sm_mhz: Some(1410),
        power_mw: Some(699_000),
        throttle: vec!["sw_power_cap".into()],
        capped_ns: Some(u64::MAX),
        hot_ns: Some(0),
        ..Vitals::default()
    };
    let source = "NVML energy counter".into();
    let energy = Energy { source, launches: 1000, wall_ns: 2_000_000_000, uj: 1_398_000_000, updates: 20, idle_uw: 70_000_000 };
    let telemetry = Some(Telemetry { before, after, ..Telemetry::default() });
    vec![
        Record::Header(header),
        Record::Measurement(Measurement { telemetry, energy: Some(energy), ..measurement("m0") }),
        Record::End(End { measurements: 1, seconds: 3, status: 5, ..End::default() }),
    ]
}

/// What version 1.3 added, likewise.
const GOLDEN_1_3: &str = include_str!("golden/records-1.3.jsonl");

/// A run with all that version 1.3 added: a clock that the device counted, and a setting that does not compile.
fn counted() -> Vec<Record> {
    let mut header = header();
    header.schema.minor = 3;
    let telemetry = Some(Telemetry { core_mhz: Some(1755), ..Telemetry::default() });
    let why = "depthwise/direct.cu does not compile: spills".into();
    vec![
        Record::Header(header),
        Record::Measurement(Measurement { telemetry, ..measurement("m0") }),
        Record::Skip(Skip { state: State::NotCompiled, why, candidate: true, ..skip("s0") }),
        Record::End(End { measurements: 1, skips: 1, seconds: 3, ..End::default() }),
    ]
}

/// One run with every kind of record, numbers at the edges of their types among them.
fn run() -> Vec<Record> {
    let mut odd = measurement("m1");
    odd.verification = Some(Verification { worst_error: 0.1 + 0.2, allowed: 1.7976931348623157e308, ..odd.verification.expect("one") });
    let Value::Object(unknown) = json!({"celsius": [40.5, 41.25], "throttled": false}) else { unreachable!("an object") };
    odd.telemetry = Some(Telemetry { extra: unknown, ..Telemetry::default() });
    vec![
        Record::Header(header()),
        Record::Measurement(measurement("m0")),
        Record::Measurement(odd),
        Record::Ceiling(ceiling("c0", &["m0", "m1"])),
        Record::Skip(skip("s0")),
        Record::End(End { measurements: 2, ceilings: 1, skips: 1, seconds: 3, status: 5 }),
    ]
}

fn text(records: &[Record]) -> String {
    records.iter().map(|record| encode(record).expect("finite numbers") + "\n").collect()
}

/// A file name of its own in the system's folder for such things.
fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rooftrace-records-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn why(text: &str) -> String {
    match parse("x.jsonl", text.as_bytes()) {
        Err(Error::BadFile { path, why }) if path == "x.jsonl" => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_golden_file_of_each_version_is_read_and_written_again_byte_for_byte() {
    let file = parse("golden", GOLDEN.as_bytes()).expect("reads");
    assert_eq!(file.warnings, Vec::<String>::new());
    assert_eq!(text(&file.records), GOLDEN);
    // A changed field shows here: then the schema needs a new version and a golden file of its own.
    assert_eq!(text(&run()), GOLDEN, "the schema changed without a new version");
    let file = parse("golden", GOLDEN_1_2.as_bytes()).expect("reads");
    assert_eq!((file.records, file.warnings), (metered(), Vec::new()));
    assert_eq!(text(&metered()), GOLDEN_1_2, "the schema changed without a new version");
    let file = parse("golden", GOLDEN_1_3.as_bytes()).expect("reads");
    assert_eq!((file.records, file.warnings), (counted(), Vec::new()));
    assert_eq!(text(&counted()), GOLDEN_1_3, "the schema changed without a new version");
}

#[test]
fn a_journal_holds_every_record_whole_as_soon_as_it_is_appended() {
    let path = scratch("journal");
    let mut journal = Journal::create(&path).expect("creates");
    let all = run();
    for (done, record) in all.iter().enumerate() {
        journal.append(record).expect("appends");
        assert_eq!(read(&path).expect("reads").records, all[..=done]);
    }
    assert!(read(&path).expect("reads").warnings.is_empty());
    assert_eq!(std::fs::read_to_string(&path).expect("text"), text(&all));
    std::fs::remove_file(&path).expect("removes");
}

#[test]
fn floats_survive_a_thousand_trips_to_the_bit() {
    let mut draw = 1u32;
    let mut next = || {
        draw = mix(draw.wrapping_add(0x9e37_79b9));
        draw
    };
    for _ in 0..1000 {
        let bits = ((next() as u64) << 32) | next() as u64;
        let number = f64::from_bits(bits);
        let mut m = measurement("m");
        let verification = m.verification.as_mut().expect("one");
        verification.worst_error = number;
        match encode(&Record::Measurement(m)) {
            Ok(line) => {
                assert!(number.is_finite());
                let file = parse("x", (text(&[Record::Header(header())]) + &line).as_bytes()).expect("reads");
                let Some(Record::Measurement(back)) = file.records.last() else { panic!("no measurement") };
                assert_eq!(back.verification.as_ref().map(|v| v.worst_error.to_bits()), Some(bits), "{number:e}");
            }
            Err(why) => assert!(!number.is_finite(), "{number:e}: {why}"),
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_refused_before_it_is_written() {
    let path = scratch("finite");
    let mut journal = Journal::create(&path).expect("creates");
    journal.append(&run()[0]).expect("appends");
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut m = measurement("m0");
        m.verification.as_mut().expect("one").worst_error = bad;
        let refused = journal.append(&Record::Measurement(m)).expect_err("refused").to_string();
        assert!(refused.contains("verification.worst_error") && refused.contains("finite"), "{refused}");
    }
    journal.append(&run()[1]).expect("the journal goes on");
    assert_eq!(read(&path).expect("reads").records, run()[..2]);
    std::fs::remove_file(&path).expect("removes");
}

#[test]
fn a_file_cut_at_any_byte_keeps_every_whole_line() {
    let whole = run();
    let first = GOLDEN.find('\n').expect("a line");
    for cut in 0..GOLDEN.len() {
        let lines = GOLDEN[..GOLDEN.floor_char_boundary(cut)].matches('\n').count();
        match parse("cut", &GOLDEN.as_bytes()[..cut]) {
            Ok(file) => {
                // Where only the line's end is missing, the line itself is whole.
                let ended = GOLDEN.as_bytes()[cut] == b'\n';
                let kept = lines + ended as usize;
                assert_eq!(file.records, whole[..kept], "cut at {cut}");
                assert!(!file.warnings.is_empty(), "cut at {cut}");
            }
            Err(Error::BadFile { why, .. }) => {
                assert!(cut < first, "cut at {cut}: {why}");
                assert!(why.contains("line 1") || why.contains("no record"), "cut at {cut}: {why}");
            }
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
fn zeros_behind_the_last_record_are_a_cut() {
    let first_two: String = GOLDEN.split_inclusive('\n').take(2).collect();
    for tail in ["\0\0\0\0", "\0\0\n", "{\"record\":\"measur\0\0\0"] {
        let file = parse("x", (first_two.clone() + tail).as_bytes()).expect("reads");
        assert_eq!(file.records, run()[..2], "{tail:?}");
        assert!(file.warnings.iter().any(|w| w.contains("line 3") && w.contains("cut")), "{:?}", file.warnings);
    }
}

#[test]
fn twenty_thousand_mutations_never_panic_and_name_a_line() {
    let golden = GOLDEN.as_bytes();
    let (mut draw, mut refused) = (7u32, 0);
    let mut next = |below: usize| {
        draw = mix(draw.wrapping_add(0x9e37_79b9));
        draw as usize % below
    };
    let pieces: [&[u8]; 12] =
        [b"NaN", b"1e999", b"-1", b"null", b"\"", b"{", b"[[[[[[", b"}", b"\n", b"\xff\xfe", b"18446744073709551616", b"\xef\xbb\xbf"];
    for _ in 0..20_000 {
        let mut bytes = golden.to_vec();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            let end = (at + next(24)).min(bytes.len());
            match next(5) {
                0 => bytes[at] ^= 1 << next(8),
                1 => drop(bytes.drain(at..end)),
                2 => drop(bytes.splice(at..end, pieces[next(pieces.len())].iter().copied())),
                3 => drop(bytes.splice(at..at, pieces[next(pieces.len())].iter().copied())),
                _ => {
                    let copied = bytes[at..end].to_vec();
                    let to = next(bytes.len());
                    bytes.splice(to..to, copied);
                }
            }
        }
        match parse("mutant", &bytes) {
            Ok(file) => assert!(file.records.iter().all(|record| encode(record).is_ok())),
            Err(Error::BadFile { why, .. }) => {
                assert!(why.contains("line ") || why.contains("no record"), "{why}");
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 10_000, "mutations must hurt: {refused}");
}

/// The golden file with one piece of its text replaced.
fn with(from: &str, to: &str) -> String {
    assert!(GOLDEN.contains(from), "the golden file holds {from}");
    GOLDEN.replacen(from, to, 1)
}

#[test]
fn what_is_wrong_is_named_by_line_and_field() {
    let cases = [
        (with("\"elements_checked\":4096", "\"elements_checked\":-4096"), "line 2: field 'verification.elements_checked'"),
        (with("\"worst_error\":5e-324", "\"worst_error\":NaN"), "line 2"),
        (with("\"worst_error\":5e-324", "\"worst_error\":1e999"), "line 2"),
        (with("\"worst_error\":5e-324", "\"worst_error\":null"), "line 2: field 'verification.worst_error'"),
        (with("\"samples_ns\":[1000,1010,", "\"samples_ns\":[1000,1010.5,"), "line 2: field 'samples_ns.1'"),
        (with("\"launches\":7", "\"launches\":0"), "line 2: field 'launches'"),
        (with("\"wall_ns\":[6000,", "\"wall_ns\":["), "line 2: field 'wall_ns'"),
        (with("\"launches\":7", "\"launches\":18446744073709551616"), "line 2: field 'launches'"),
        (with("\"precision\":\"f32\"", "\"precision\":\"f31\""), "line 2: field 'precision'"),
        (with("\"state\":\"ok\"", "\"state\":[\"ok\"]"), "line 2: field 'state'"),
        (with("\"BM\":64", "\"BM\":\"64\""), "line 2: field 'tunables.BM'"),
        (with("\"core_mhz\":[3400,\"inferred\"]", "\"core_mhz\":[3400,\"inferred\",1]"), "line 1: field 'clock.core_mhz'"),
        (with("\"variant\":\"naive\",", ""), "missing field `variant`"),
        (with("\"op\":\"matmul\"", "\"op\":\"matmul\",\"op\":\"stream\""), "line 2: field 'op' stands twice"),
        (with("\"id\":\"m1\"", "\"id\":\"m0\""), "line 3: field 'id': 'm0' stands in line 2 already"),
        (with("\"id\":\"s0\"", "\"id\":\"c0\""), "line 5: field 'id': 'c0' stands in line 4 already"),
        (with("\"from\":[\"m0\",\"m1\"]", "\"from\":[\"m0\",\"m9\"]"), "line 4: field 'from': ceiling 'c0' stands on measurement 'm9'"),
        (with("\"from\":[\"m0\",\"m1\"]", "\"from\":[\"m0\",\"s0\"]"), "line 4: field 'from'"),
        (with("\"measurements\":2", "\"measurements\":3"), "line 6: the end counts [3, 1, 1]"),
        (with("\"record\":\"header\"", "\"record\":\"skip\""), "line 1: the first record must be 'header'"),
        (with("\"record\":\"measurement\",", ""), "line 2: field 'record'"),
        (with("\"record\":\"measurement\"", "\"record\":7"), "line 2: field 'record'"),
        (with("\"major\":1", "\"major\":2"), "line 1: the file has version 2.0 and this program reads up to 1.x; use a newer rooftrace"),
        (with("\"major\":1", "\"major\":0"), "line 1: the file has version 0.0, which was never released"),
        (with("\"major\":1", "\"major\":\"1\""), "line 1: field 'schema.major'"),
        (with("\"name\":\"rooftrace\"", "\"name\":\"other\""), "line 1: field 'schema.name' is 'other'"),
        (format!("{GOLDEN}{GOLDEN}"), "line 7: stands after the end in line 6"),
        (GOLDEN.split_inclusive('\n').take(1).collect::<String>().repeat(2), "line 2: is a second header"),
        (String::new(), "holds no record"),
        ("\n\n".into(), "holds no record"),
        ("hello".into(), "line 1: is not JSON"),
        ("[]\n".into(), "line 1: field 'record'"),
        ("[".repeat(100_000), "line 1: is not JSON: recursion limit"),
        (with("\"record\":\"skip\"", &format!("\"deep\":{}{},\"record\":\"skip\"", "[".repeat(500), "]".repeat(500))), "line 5"),
    ];
    for (text, expected) in &cases {
        let why = why(text);
        assert!(why.contains(expected), "expected {expected}\n     got {why}");
    }
    for count in ["launches\":1000", "wall_ns\":2000000000", "uj\":1398000000", "updates\":20"] {
        let (name, rest) = count.split_once("\":").expect("a field");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let zero = GOLDEN_1_2.replacen(&format!("{name}\":{digits}"), &format!("{name}\":0"), 1);
        assert!(why(&zero).contains(&format!("line 2: field 'energy.{name}' is 0")), "{}", why(&zero));
    }
    let verification = GOLDEN.find(",\"verification\"").expect("one")..GOLDEN.find(",\"facts\"").expect("one");
    let mut unverified = GOLDEN.to_string();
    unverified.replace_range(verification, "");
    assert!(why(&unverified).contains("line 2: field 'verification' is missing"));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_harm() {
    let text = format!("\u{feff}{}", GOLDEN.replace('\n', "\r\n"));
    let file = parse("x", text.as_bytes()).expect("reads");
    assert_eq!((file.records, file.warnings), (run(), Vec::new()));
}

#[test]
fn a_newer_minor_version_is_read_and_what_it_adds_is_kept() {
    let newer = with("\"minor\":0", "\"minor\":7,\"patch\":1")
        .replacen("\"op\":\"matmul\"", "\"op\":\"hologram\",\"joules\":[1.5,null]", 1)
        .replacen("\"seed\":1},", "\"seed\":1},\"mood\":\"good\",", 1)
        .replacen("{\"record\":\"skip\"", "{\"record\":\"energy\",\"watts\":3}\n{\"record\":\"skip\"", 1)
        .replacen("\"precision\":\"f64\"", "\"precision\":\"fp4\"", 1);
    let newer =
        newer.replacen("\"mood\":\"good\",", "", 1).replacen("{\"record\":\"header\",", "{\"record\":\"header\",\"mood\":\"good\",", 1);
    let file = parse("x", newer.as_bytes()).expect("reads");
    let warned = file.warnings.join("\n");
    for expected in ["version 1.7", "kind 'energy' are unknown", "line 6: field 'precision'"] {
        assert!(warned.contains(expected), "{expected} in {warned}");
    }
    assert_eq!(file.aside.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 6]);
    let (Record::Header(header), Record::Measurement(m)) = (&file.records[0], &file.records[1]) else { panic!("{:?}", file.records) };
    assert_eq!(header.extra.get("mood"), Some(&Value::from("good")));
    assert_eq!((m.op.as_str(), m.extra.get("joules")), ("hologram", Some(&json!([1.5, null]))));
    let again = text(&file.records);
    assert!(again.contains("\"joules\":[1.5,null]") && again.contains("\"mood\":\"good\""));
}

#[test]
fn bytes_that_nobody_counted_are_left_out_and_read_again_as_unknown() {
    let own = Measurement { bytes_requested: None, bytes_lane: None, variant: "try:my.wgsl".into(), ..measurement("m0") };
    let line = encode(&Record::Measurement(own.clone())).expect("a line");
    assert!(!line.contains("bytes_requested") && !line.contains("bytes_lane"), "{line}");
    let file = parse("x", text(&[Record::Header(header()), Record::Measurement(own.clone())]).as_bytes()).expect("reads");
    assert_eq!(file.records[1], Record::Measurement(own));
}

#[test]
fn a_run_that_did_not_end_is_read_with_a_warning() {
    let begun: String = GOLDEN.split_inclusive('\n').take(3).collect();
    let file = parse("x", begun.as_bytes()).expect("reads");
    assert_eq!(file.records, run()[..3]);
    assert!(file.warnings.len() == 1 && file.warnings[0].contains("incomplete"), "{:?}", file.warnings);
}

#[test]
fn a_file_above_the_cap_is_refused_without_being_read_whole() {
    let path = scratch("large");
    let file = std::fs::File::create(&path).expect("creates");
    file.set_len(10 << 30).expect("sparse");
    let why = read(&path).expect_err("refused").to_string();
    assert!(why.contains("64 MiB"), "{why}");
    std::fs::remove_file(&path).expect("removes");
    let line = format!("{{\"record\":\"header\",\"x\":\"{}\"}}\n", "y".repeat(9 << 20));
    assert!(parse("x", line.as_bytes()).expect_err("refused").to_string().contains("line 1: is longer than 8 MiB"));
}

#[test]
fn a_place_that_cannot_be_written_or_read_is_named_with_a_way_out() {
    let missing = Path::new("/no/such/folder/records.jsonl");
    let error = Journal::create(missing).expect_err("refused");
    assert!(matches!(error, Error::Io { .. }) && error.exit_code() == 2);
    let said = error.to_string();
    assert!(said.contains("/no/such/folder/records.jsonl") && said.contains("--out"), "{said}");
    let error = read(missing).expect_err("refused");
    assert!(error.exit_code() == 6 && error.to_string().contains("/no/such/folder/records.jsonl: cannot be read"), "{error}");
    assert!(read(&std::env::temp_dir()).expect_err("a folder").to_string().contains("cannot be read"));
}

#[test]
fn a_journal_never_overwrites_measurements() {
    let path = scratch("twice");
    Journal::create(&path).expect("creates").append(&run()[0]).expect("appends");
    let error = Journal::create(&path).expect_err("refused");
    assert!(error.to_string().contains("holds records already"), "{error}");
    assert_eq!(read(&path).expect("reads").records, run()[..1]);
    std::fs::remove_file(&path).expect("removes");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_that_names_the_file() {
    let mut journal = Journal::create(Path::new("/dev/full")).expect("opens");
    for _ in 0..2 {
        let error = journal.append(&run()[0]).expect_err("refused");
        assert!(error.to_string().starts_with("cannot write /dev/full: No space left"), "{error}");
    }
}
