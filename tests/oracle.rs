//! The oracle raises no false alarm: ten thousand clean outputs, every variant, shape, draw and seed, all pass. That it refuses
//! wrong ones is shown by `verify --mutants`, by the fake device's faults (`tests/cli.rs`) and here, at every place of an output.

use std::ops::Range;

use rooftrace::Error;
use rooftrace::backend::{self, Checks, Fetched};
use rooftrace::draw::{Draw, Drawn, Seeded, mix};
use rooftrace::op::{self, Arithmetic, OPS};
use rooftrace::oracle::{Oracle, named};
use rooftrace::plan::{Precision, Tuned, Unit};
use serde_json::json;

const CLEAN: usize = 10_000;

/// A range of an output that is at hand.
fn some(output: &[f64], range: Range<u64>) -> Fetched {
    let values = output[range.start as usize..range.end as usize].to_vec();
    Box::new(|| values)
}

#[test]
fn ten_thousand_clean_outputs_raise_no_alarm() {
    let backend = backend::open("host").expect("the host is always there");
    let device = backend.device();
    let (mut checks, mut seed, mut closest) = (0, 0u32, 0f64);
    while checks < CLEAN {
        let mut oracle = Oracle::default();
        for entry in OPS {
            for problem in (entry.awkward)() {
                let op = (entry.parse)(&problem).expect("an awkward problem");
                for variant in op.variants() {
                    for precision in Precision::ALL.into_iter().filter(|&p| variant.has(device.language, p)) {
                        let seeded = Seeded { draw: if seed.is_multiple_of(4) { Draw::Exact } else { Draw::Dense }, seed };
                        let plan = op.plan(variant.name, precision, device.language, &Tuned::default(), device).expect("a plan");
                        let mut loaded = backend.load(&plan, seeded, 1, Checks::Trusted).expect("a small problem");
                        loaded.sample(1, 0).expect("the host answers");
                        let expectation = oracle.expect(&*op, precision, Unit::Vector, seeded).expect("a possible problem");
                        let checked =
                            expectation.compare(&named(&*op, &plan), seeded.draw, &mut |range| loaded.fetch(plan.output(), 0, range));
                        let verified = checked.unwrap_or_else(|alarm| panic!("check {checks}, seed {seed}: {alarm}"));
                        if verified.allowed > 0.0 {
                            closest = closest.max(verified.worst_error / verified.allowed);
                        }
                        checks += 1;
                    }
                }
            }
        }
        seed += 1;
    }
    println!("{checks} clean checks, {seed} seeds; the closest came to {:.0} % of what is allowed", 100.0 * closest);
}

#[test]
fn a_wrong_element_is_refused_wherever_it_stands() {
    let op = (OPS[0].parse)(&json!({"m": 65, "n": 67, "k": 33})).expect("a matmul");
    let tensors = op.tensors(Precision::F32).expect("possible");
    let seeded = Seeded { draw: Draw::Dense, seed: 5 };
    let inputs = Drawn::new(&tensors, seeded);
    let clean: Vec<f64> = (0..65).flat_map(|row| op.row(Arithmetic::F32, &inputs, row, 0..67)).collect();
    let expectation = Oracle::default().expect(&*op, Precision::F32, Unit::Vector, seeded).expect("possible");
    let verdict = |output: &[f64]| expectation.compare("matmul", Draw::Dense, &mut |r| Ok(some(output, r)));
    verdict(&clean).expect("the clean output passes");
    for trial in 0..10_000u32 {
        let at = mix(trial) as usize % clean.len();
        let mut output = clean.clone();
        output[at] = match trial % 4 {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => output[at] + 1e-3,
            _ => output[(at + 1) % clean.len()],
        };
        assert!(matches!(verdict(&output), Err(Error::Wrong(_))), "trial {trial}: element {at} became {}", output[at]);
    }
}

#[test]
fn in_fp8_one_trip_left_out_of_any_number_is_refused() {
    let entry = op::find("matrix").expect("built in");
    for (trips, seed) in [(8u64, 1), (2048, 2), (3072, 3)] {
        let op = (entry.parse)(&json!({"groups": 2, "trips": trips, "depth": 32})).expect("a product");
        for draw in [Draw::Dense, Draw::Exact] {
            let seeded = Seeded { draw, seed };
            let inputs = Drawn::new(&op.tensors(Precision::Fp8).expect("possible"), seeded);
            let clean = op.row(Arithmetic::F64, &inputs, 0, 0..256);
            let expectation = Oracle::default().expect(&*op, Precision::Fp8, Unit::Wgmma, seeded).expect("possible");
            let verdict = |row: &[f64]| {
                let output = [row, row].concat();
                expectation.compare("matrix", draw, &mut |r| Ok(some(&output, r)))
            };
            assert_eq!(verdict(&clean).expect("the clean output passes").allowed, 0.0);
            let short: Vec<f64> = clean.iter().map(|sum| sum / trips as f64 * (trips - 1) as f64).collect();
            assert!(verdict(&short).is_err_and(|e| matches!(e, Error::Wrong(_))), "{trips} trips");
        }
    }
}

#[test]
fn an_output_of_many_chunks_is_refused_wherever_it_is_wrong() {
    // Every element of it is compared, on all threads.
    let op = (op::find("stream").expect("built in").parse)(&json!({"kind": "write", "elements": 5_000_000, "passes": 1, "parts": 4}));
    let op = op.expect("a stream");
    let seeded = Seeded { draw: Draw::Dense, seed: 3 };
    let inputs = Drawn::new(&op.tensors(Precision::F32).expect("possible"), seeded);
    let right = op.row(Arithmetic::F64, &inputs, 0, 0..1)[0];
    let expectation = Oracle::default().expect(&*op, Precision::F32, Unit::Memory, seeded).expect("possible");
    let mut output = vec![right; 5_000_000];
    let verdict = |output: &[f64]| expectation.compare("stream", Draw::Dense, &mut |r| Ok(some(output, r)));
    assert_eq!(verdict(&output).expect("the clean output passes").elements_checked, 5_000_000);
    for at in [0, 1, 1_048_575, 1_048_576, 2_500_000, 4_999_999] {
        for wrong in [f64::NAN, right + 1.0] {
            output[at] = wrong;
            let why = verdict(&output).expect_err("it is wrong").to_string();
            assert!(why.contains(&format!("output element [0, {at}] is ")), "{why}");
        }
        output[at] = right;
    }
    // Of several the first is named, and what ends the reading ends it all.
    (output[4_000_000], output[1_500_000]) = (f64::NAN, f64::NAN);
    assert!(verdict(&output).expect_err("it is wrong").to_string().contains("output element [0, 1500000] is NaN"));
    let clean = vec![right; 1 << 20];
    let mut lost = |range: Range<u64>| match range.start {
        0..2_000_000 => Ok(some(&clean, 0..range.end - range.start)),
        _ => Err(Error::DeviceLost("gone".into())),
    };
    assert!(matches!(expectation.compare("stream", Draw::Dense, &mut lost), Err(Error::DeviceLost(_))));
    let mut short = |_: Range<u64>| Ok(some(&clean, 0..1));
    assert!(expectation.compare("stream", Draw::Dense, &mut short).is_err_and(|why| why.to_string().contains("1 elements came back")));
}
