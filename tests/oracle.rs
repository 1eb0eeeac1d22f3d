//! The oracle raises no false alarm: ten thousand clean outputs, every variant, shape, draw and seed, all pass. That it refuses
//! wrong ones is shown by `verify --mutants`, by the fake device's faults (`tests/cli.rs`) and here, at every place of an output.

use rooftrace::Error;
use rooftrace::backend::{self, Checks};
use rooftrace::draw::{Draw, Drawn, Seeded, mix};
use rooftrace::op::{self, Arithmetic, OPS};
use rooftrace::oracle::{Oracle, named};
use rooftrace::plan::{Precision, Tuned, Unit};
use serde_json::json;

const CLEAN: usize = 10_000;

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
                            expectation.compare(&named(&*op, &plan), seeded.draw, &mut |range| loaded.read(plan.output(), 0, range));
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
    let verdict =
        |output: &[f64]| expectation.compare("matmul", Draw::Dense, &mut |r| Ok(output[r.start as usize..r.end as usize].to_vec()));
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
                expectation.compare("matrix", draw, &mut |r| Ok(output[r.start as usize..r.end as usize].to_vec()))
            };
            assert_eq!(verdict(&clean).expect("the clean output passes").allowed, 0.0);
            let short: Vec<f64> = clean.iter().map(|sum| sum / trips as f64 * (trips - 1) as f64).collect();
            assert!(verdict(&short).is_err_and(|e| matches!(e, Error::Wrong(_))), "{trips} trips");
        }
    }
}
