//! The host backend: kernels against the definition, draws, guards, poison and faults.

use std::ops::Range;
use std::sync::Arc;

use rooftrace::backend::host::{Host, device};
use rooftrace::backend::{Backend, Checks};
use rooftrace::draw::{Draw, Drawn, Seeded, eighths, element, keys, small, word};
use rooftrace::error::Error;
use rooftrace::host::{Call, Isa};
use rooftrace::op::{Arithmetic, OPS, Op, Role, find};
use rooftrace::plan::{Code, Language, Plan, Precision, Tuned};
use serde_json::{Value, json};

const DENSE: Seeded = Seeded { draw: Draw::Dense, seed: 11 };
const EXACT: Seeded = Seeded { draw: Draw::Exact, seed: 12 };

fn problem(op: &str, fields: Value) -> Arc<dyn Op> {
    (find(op).unwrap().parse)(&fields).unwrap()
}

fn tuned(pairs: &[(&str, u32)]) -> Tuned {
    Tuned(pairs.iter().map(|(name, value)| (name.to_string(), *value)).collect())
}

fn plan(op: &dyn Op, variant: &str, precision: Precision, tuned: &Tuned, host: &Host) -> Plan {
    op.plan(variant, precision, Language::Host, tuned, host.device()).unwrap()
}

fn isas() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available()).collect()
}

/// Output of one launch on poisoned memory, after which guards and inputs are whole.
fn output(host: &Host, plan: &Plan, seeded: Seeded) -> Vec<f64> {
    let number = plan.output();
    let elements = plan.tensors[number].elements();
    let mut loaded = host.load(plan, seeded, 2, Checks::Trusted).unwrap();
    loaded.poison(1).unwrap();
    loaded.sample(1, 1).unwrap();
    let audit = loaded.audit(1).unwrap();
    assert_eq!((audit.guards_broken, audit.inputs_changed), (0, 0), "{}/{} {}", plan.op, plan.variant, plan.problem);
    loaded.read(number, 1, 0..elements).unwrap()
}

/// Output by the definition.
fn defined(op: &dyn Op, precision: Precision, arithmetic: Arithmetic, seeded: Seeded) -> Vec<f64> {
    let tensors = op.tensors(precision).unwrap();
    let drawn = Drawn::new(&tensors, seeded);
    let out = tensors.iter().find(|t| t.role == Role::Output).unwrap();
    let columns = *out.shape.last().unwrap();
    (0..out.elements() / columns).flat_map(|row| op.row(arithmetic, &drawn, row, 0..columns)).collect()
}

/// Every tunable at every value, the others at their defaults.
fn settings(op: &dyn Op, variant: &str) -> Vec<Tuned> {
    let variants = op.variants();
    let source = variants.iter().find(|v| v.name == variant).and_then(|v| v.source(Language::Host)).unwrap();
    let mut all = vec![Tuned::default()];
    for tunable in source.tunables {
        all.extend(tunable.values[1..].iter().map(|&value| tuned(&[(tunable.name, value)])));
    }
    if op.name() == "stream" {
        all.extend([2, 8, 12].map(|unroll| tuned(&[("UNROLL", unroll), ("STORE", 1)])));
        all.extend([2, 8, 12].map(|unroll| tuned(&[("UNROLL", unroll), ("ABREAST", 2)])));
        all.extend([2, 8, 12].map(|unroll| tuned(&[("UNROLL", unroll), ("STORE", 1), ("ABREAST", 4)])));
    }
    all
}

fn assert_near(found: &[f64], oracle: &[f64], yardstick: &[f64], epsilon: f64, context: &str) {
    assert_eq!(found.len(), oracle.len(), "{context}");
    let yardstick_error = yardstick.iter().zip(oracle).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let largest = oracle.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    // Four times what plain arithmetic of the same width loses, and one rounding of the largest output.
    let allowed = 4.0 * yardstick_error + 2.0 * epsilon * largest;
    for (i, (x, want)) in found.iter().zip(oracle).enumerate() {
        assert!((x - want).abs() <= allowed, "{context}: element {i} is {x}, not {want} within {allowed:e}");
    }
}

fn check_all(name: &str, more: &[Value]) {
    let entry = find(name).unwrap();
    for isa in isas() {
        let host = Host::with(isa).unwrap();
        for fields in (entry.awkward)().into_iter().chain(more.iter().cloned()) {
            let op = (entry.parse)(&fields).unwrap();
            for variant in op.variants() {
                for precision in Precision::ALL {
                    // The widest instruction set differs from the one before in bf16 alone.
                    if !variant.has(Language::Host, precision) || isa == Isa::Avx512Bf16 && precision != Precision::BF16 {
                        continue;
                    }
                    let arithmetic = if precision == Precision::F64 { Arithmetic::F64 } else { Arithmetic::F32 };
                    let oracle = defined(&*op, precision, Arithmetic::F64, DENSE);
                    let yardstick = defined(&*op, precision, arithmetic, DENSE);
                    for setting in settings(&*op, variant.name) {
                        let plan = plan(&*op, variant.name, precision, &setting, &host);
                        let context = format!("{name}/{} {precision} {} {fields} {:?}", variant.name, isa.name(), setting.0);
                        let found = output(&host, &plan, DENSE);
                        // f64 kernels sum in another order than the f64 oracle: a few hundred roundings at most.
                        let epsilon = if precision == Precision::F64 { 256.0 * f64::EPSILON } else { precision.storage().epsilon() };
                        assert_near(&found, &oracle, &yardstick, epsilon, &context);
                    }
                }
            }
        }
    }
}

#[test]
fn matmul_kernels_follow_the_definition_on_awkward_shapes() {
    // Past one row block, one column block, one depth slice and one packed piece; few rows and few columns, whole blocks and parts of them.
    let few = [(1, 9, 70), (4, 1030, 131), (8, 520, 37), (5, 33, 4), (9, 8, 67), (13, 3, 129), (4, 2, 300), (66, 1, 513), (3, 1030, 523)];
    let few = few.map(|(m, n, k)| json!({"m": m, "n": n, "k": k}));
    check_all("matmul", &few);
    check_all("matmul", &[json!({"m": 170, "n": 300, "k": 520}), json!({"m": 9, "n": 3100, "k": 5}), json!({"m": 3080, "n": 10, "k": 3})]);
}

#[test]
fn quantized_kernels_follow_the_definition_on_awkward_shapes() {
    // Past one stretch of columns, one depth slice that ends inside a word's group, and one row block.
    let shapes = [(1, 4200, 72, 8, 36), (8, 1030, 96, 4, 24), (5, 517, 44, 8, 44), (40, 300, 520, 8, 40), (170, 90, 1040, 4, 104)];
    let more = shapes.map(|(m, n, k, bits, group)| json!({"m": m, "n": n, "k": k, "bits": bits, "group_size": group}));
    check_all("quantized", &more);
}

#[test]
fn depthwise_kernels_follow_the_definition_on_awkward_shapes() {
    let wide = |padding: u64| json!({"n": 1, "h": 4, "w": 3, "c": 9, "k": 3, "stride": 1, "padding": padding, "dilation": 1});
    // Larger filters: several bands and pieces, the last of each smaller, channels that fill no register, an image smaller than its filter.
    let large = |h: u64, w: u64, c: u64, k: u64| json!({"n": 2, "h": h, "w": w, "c": c, "k": k, "padding": k / 2});
    let larger = [large(101, 9, 83, 5), large(7, 23, 16, 4), large(5, 4, 33, 13), json!({"h": 9, "w": 8, "c": 5, "k": 7, "padding": 0})];
    let others = [wide(3), wide(4), json!({"n": 1, "h": 3, "w": 5, "c": 2, "k": 2, "stride": 3, "padding": 0, "dilation": 2})];
    check_all("depthwise", &[&larger[..], &others].concat());
}

#[test]
fn conv2d_kernels_follow_the_definition_on_awkward_shapes() {
    // Past one row block and two depth slices, one of which ends inside a tap.
    let deep = json!({"n": 1, "h": 16, "w": 15, "c_in": 60, "c_out": 34, "k": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 1});
    // Few pixels: the other tile of a kernel that has two, several depth slices, whole squares of filters and a part of one.
    let few = json!({"n": 1, "h": 5, "w": 6, "c_in": 60, "c_out": 130, "k": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 1});
    // Several groups in a register, more channels in than out and fewer, one out alone; bands of rows.
    let groups = |w: u64, c_in: u64, c_out: u64, stride: u64, groups: u64| json!({"n": 2, "h": 9, "w": w, "c_in": c_in, "c_out": c_out, "k": 3, "stride": stride, "padding": 1, "groups": groups});
    let dilated = json!({"n": 1, "h": 8, "w": 16, "c_in": 40, "c_out": 32, "k": 2, "padding": 2, "dilation": 3, "groups": 8});
    check_all(
        "conv2d",
        &[deep, few, groups(8, 48, 32, 2, 16), groups(150, 96, 16, 1, 8), groups(5, 16, 32, 1, 16), groups(9, 64, 16, 1, 16), dilated],
    );
}

#[test]
fn attention_kernels_follow_the_definition_on_awkward_shapes() {
    // Past several blocks of keys and panels of queries, and a panel that holds queries of several heads.
    let long = json!({"heads": 2, "seq_q": 150, "seq_kv": 333, "head_dim": 24, "causal": true});
    check_all("attention", &[long, json!({"heads": 8, "kv_heads": 2, "seq_q": 5, "seq_kv": 70, "head_dim": 33, "causal": true})]);
}

#[test]
fn linformer_kernels_follow_the_definition_on_awkward_shapes() {
    // Past two depth slices, a head that ends inside a panel of columns, few rows of many heads.
    let deep = json!({"heads": 3, "seq": 600, "head_dim": 40, "rank": 170});
    check_all("linformer", &[deep, json!({"batch": 2, "heads": 8, "seq": 300, "head_dim": 33, "rank": 20})]);
}

#[test]
fn performer_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("performer", &[json!({"heads": 3, "seq": 333, "head_dim": 24, "features": 150})]);
}

#[test]
fn stream_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("stream", &[json!({"kind": "read", "elements": 5, "passes": 2, "parts": 4})]);
}

#[test]
fn ramp_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("ramp", &[json!({"elements": 5000, "steps": 4}), json!({"elements": 3333, "steps": 47})]);
}

#[test]
fn launch_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("launch", &[json!({"dispatches": 300})]);
}

#[test]
fn chase_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("chase", &[json!({"lines": 1 << 14, "hops": 100_000})]);
}

#[test]
fn exp_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("exp", &[json!({"elements": 5000, "trips": 1024, "steps": 4})]);
}

#[test]
fn fma_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("fma", &[]);
}

#[test]
fn dot_kernels_follow_the_definition_on_awkward_shapes() {
    check_all("dot", &[json!({"elements": 5000, "trips": 64, "steps": 1456})]);
}

#[test]
fn exact_products_agree_with_the_oracle_to_the_bit_on_every_instruction_set() {
    let op = problem("matmul", json!({"m": 65, "n": 130, "k": 300}));
    let oracle = defined(&*op, Precision::F32, Arithmetic::F64, EXACT);
    for isa in isas() {
        let host = Host::with(isa).unwrap();
        for variant in ["naive", "packed"] {
            let plan = plan(&*op, variant, Precision::F32, &Tuned::default(), &host);
            assert_eq!(output(&host, &plan, EXACT), oracle, "{variant} {}", isa.name());
        }
    }
}

/// Exact draws give both kernels the same bits.
fn assert_window_is_naive(op: &dyn Op, precision: Precision, host: &Host) {
    let [naive, window] = ["naive", "window"].map(|v| output(host, &plan(op, v, precision, &Tuned::default(), host), EXACT));
    assert_eq!(naive, window, "{} {precision} {}", host.device().driver, op.label());
}

#[test]
fn depthwise_bands_and_blocks_of_every_extent_equal_the_naive_kernel() {
    // Bands of two to four rows, blocks of two to four columns at either edge or none, and channels in one piece and in two with some left over.
    let extents = (1..=11).flat_map(|h| (1..=11).flat_map(move |w| (0..=2).map(move |padding| (h, w, padding, 17))));
    let pieces = [(7, 5, 1, 217), (10, 14, 1, 400)];
    let fits = |&(h, w, padding, _): &(u64, u64, u64, u64)| h.min(w) + 2 * padding >= 3;
    for isa in isas() {
        let host = Host::with(isa).unwrap();
        for (h, w, padding, c) in extents.clone().chain(pieces).filter(fits) {
            let op = problem("depthwise", json!({"n": 2, "h": h, "w": w, "c": c, "k": 3, "padding": padding}));
            [Precision::F32, Precision::F64].into_iter().for_each(|precision| assert_window_is_naive(&*op, precision, &host));
        }
    }
}

#[test]
fn depthwise_outputs_streamed_past_the_cache_equal_those_of_the_naive_kernel() {
    // Larger than the last-level cache: an odd number of channels, so that rows start anywhere in a line, and whole lines, with an odd number of
    // columns, of which the last three are a block.
    let llc = device().llc_bytes();
    for (c, w) in [(37, 50), (48, 51)] {
        let h = llc / (c * w * 4) + 20;
        let op = problem("depthwise", json!({"n": 1, "h": h, "w": w, "c": c}));
        for isa in isas() {
            assert_window_is_naive(&*op, Precision::F32, &Host::with(isa).unwrap());
        }
    }
}

#[test]
fn draws_read_back_equal_the_definition_to_the_bit_in_every_storage_type() {
    let host = Host::new().unwrap();
    let op = problem("fma", json!({"elements": 100_003, "trips": 1}));
    for seeded in [DENSE, EXACT] {
        for precision in Precision::ALL {
            // The host has chains in f32 and f64 alone; its memory holds all.
            let mut plan = plan(&*op, "chains", Precision::F32, &Tuned::default(), &host);
            plan.tensors = op.tensors(precision).unwrap();
            let dtype = precision.storage();
            let mut loaded = host.load(&plan, seeded, 1, Checks::Trusted).unwrap();
            let read = loaded.read(1, 0, 0..100_003).unwrap();
            let keys = keys(seeded.seed, 1);
            for (i, x) in read.iter().enumerate() {
                let drawn = match precision {
                    Precision::Int8 => small(&keys, i as u64) as f64,
                    Precision::Fp8 if seeded.draw == Draw::Exact => eighths(&keys, i as u64) as f64,
                    _ => dtype.round(element(seeded.draw, &keys, i as u64) as f64),
                };
                assert_eq!(x.to_bits(), drawn.to_bits(), "{precision} {i}");
            }
            let values = if precision.is_integer() { [0.0, 1.0] } else { [0.6875, 1.0] };
            assert_eq!(loaded.read(0, 0, 0..2).unwrap(), values);
        }
    }
}

#[test]
fn words_and_scales_read_back_equal_the_definition_to_the_bit() {
    let host = Host::new().unwrap();
    let op = problem("quantized", json!({"n": 1003, "k": 1024, "bits": 4, "group_size": 16}));
    for seeded in [DENSE, EXACT] {
        // No scale is an integer.
        for precision in Precision::ALL.into_iter().filter(|precision| !precision.is_integer()) {
            // The host computes it in f32 alone.
            let mut plan = plan(&*op, "naive", Precision::F32, &Tuned::default(), &host);
            plan.tensors = op.tensors(precision).unwrap();
            let drawn = Drawn::new(&plan.tensors, seeded);
            let mut loaded = host.load(&plan, seeded, 1, Checks::Trusted).unwrap();
            for tensor in [1, 2] {
                let read = loaded.read(tensor, 0, 0..plan.tensors[tensor].elements()).unwrap();
                assert!(
                    read.iter().enumerate().all(|(i, x)| x.to_bits() == drawn.value(tensor, i as u64).to_bits()),
                    "{precision} {tensor}"
                );
                assert!(read.iter().all(|x| tensor == 1 && x.fract() == 0.0 || (1.0 / 64.0..=1.0 / 32.0).contains(x)));
            }
            let keys = keys(seeded.seed, 1);
            assert_eq!(loaded.read(1, 0, 5..6).unwrap(), [word(&keys, 5) as f64]);
            assert_eq!(loaded.audit(0).unwrap().inputs_changed, 0);
        }
    }
}

#[test]
fn every_set_holds_the_same_draw_and_its_own_output() {
    let host = Host::new().unwrap();
    let op = problem("matmul", json!({"m": 5, "n": 6, "k": 7}));
    let plan = plan(&*op, "packed", Precision::F32, &Tuned::default(), &host);
    let mut loaded = host.load(&plan, DENSE, 3, Checks::Trusted).unwrap();
    // Four launches from set 2: sets 2, 0, 1, 2.
    loaded.poison(1).unwrap();
    loaded.sample(2, 2).unwrap();
    let outputs: Vec<Vec<f64>> = (0..3).map(|set| loaded.read(2, set, 0..30).unwrap()).collect();
    assert!(outputs[1].iter().all(|x| x.is_nan()), "set 1 was not launched");
    assert_eq!(outputs[0], outputs[2]);
    assert_eq!(loaded.read(0, 0, 0..35).unwrap(), loaded.read(0, 2, 0..35).unwrap());
    assert!(loaded.read(2, 3, 0..1).is_err() && loaded.read(2, 0, 0..31).is_err() && loaded.read(3, 0, 0..1).is_err());
}

#[test]
fn poison_fills_exactly_the_output_with_nan() {
    let host = Host::new().unwrap();
    for precision in [Precision::F32, Precision::F64] {
        let op = problem("matmul", json!({"m": 129, "n": 67, "k": 3}));
        let plan = plan(&*op, "packed", precision, &Tuned::default(), &host);
        let mut loaded = host.load(&plan, DENSE, 1, Checks::Trusted).unwrap();
        loaded.sample(1, 0).unwrap();
        assert!(loaded.read(2, 0, 0..129 * 67).unwrap().iter().all(|x| x.is_finite()));
        loaded.poison(0).unwrap();
        assert!(loaded.read(2, 0, 0..129 * 67).unwrap().iter().all(|x| x.is_nan()));
        assert_eq!(loaded.audit(0).unwrap(), Default::default());
    }
}

#[test]
fn scratch_is_one_for_all_sets_guarded_and_poisoned_with_the_output() {
    let host = Host::new().unwrap();
    let op = problem("attention", json!({"heads": 2, "seq": 20, "head_dim": 8}));
    let mut plan = plan(&*op, "naive", Precision::F32, &Tuned::default(), &host);
    assert_eq!((plan.cost.workspace, plan.set_bytes()), (4 * 2 * 20 * 20, 4 * 2 * 20 * (4 * 8 + 20)));
    // It writes what it finds in scratch to the output, and the set's number of launches to scratch.
    plan.code = Code::Host(Arc::new(|call: &Call<'_>| {
        let (out, scratch) = (call.output::<f32>(3), call.output::<f32>(4));
        // SAFETY: one thread runs this.
        let (out, scratch) = unsafe { (out.slice(0..1), scratch.slice(0..800)) };
        out[0] = scratch[799];
        scratch.fill(if out[0].is_nan() { 1.0 } else { out[0] + 1.0 });
    }));
    let mut loaded = host.load(&plan, DENSE, 2, Checks::Trusted).unwrap();
    let found =
        |loaded: &mut Box<dyn rooftrace::backend::Loaded + '_>| (0..2).map(|set| loaded.read(3, set, 0..1).unwrap()[0]).collect::<Vec<_>>();
    loaded.sample(3, 0).unwrap();
    assert_eq!(found(&mut loaded), [2.0, 1.0], "the second set found what the first one's launch left");
    loaded.poison(1).unwrap();
    loaded.sample(1, 1).unwrap();
    assert!(found(&mut loaded)[1].is_nan());
    assert_eq!(loaded.audit(0).unwrap(), Default::default());
}

/// A plan whose kernel is replaced.
fn faulty(host: &Host, kernel: impl Fn(&Call<'_>) + Send + Sync + 'static) -> Plan {
    let op = problem("matmul", json!({"m": 100, "n": 100, "k": 100}));
    let mut plan = plan(&*op, "packed", Precision::F32, &Tuned::default(), host);
    plan.code = Code::Host(Arc::new(kernel));
    plan
}

#[test]
fn an_audit_counts_words_written_before_and_after_a_tensor() {
    let host = Host::new().unwrap();
    let plan = faulty(&host, |call| {
        let c = call.tensors[2];
        // SAFETY: one word past either end lies in the guards, which the backend allocates.
        unsafe {
            c.start.cast::<f32>().add(c.elements).write_unaligned(1.0);
            c.start.cast::<f32>().sub(1).write_unaligned(1.0);
        }
    });
    let mut loaded = host.load(&plan, DENSE, 2, Checks::Trusted).unwrap();
    assert_eq!(loaded.audit(1).unwrap().guards_broken, 0);
    loaded.sample(1, 1).unwrap();
    assert_eq!(loaded.audit(1).unwrap().guards_broken, 2);
    assert_eq!(loaded.audit(0).unwrap().guards_broken, 0);
}

#[test]
fn an_audit_counts_changed_inputs_to_the_bit() {
    let host = Host::new().unwrap();
    let plan = faulty(&host, |call| {
        for (tensor, index) in [(0, 0), (0, 5000), (1, 9999)] {
            let x = call.tensors[tensor].start.cast::<u32>().wrapping_add(index);
            // SAFETY: within tensors of 10,000 elements of 4 bytes, and nobody else uses them now.
            unsafe { *x ^= 1 };
        }
    });
    let mut loaded = host.load(&plan, DENSE, 1, Checks::Trusted).unwrap();
    loaded.sample(1, 0).unwrap();
    assert_eq!(loaded.audit(0).unwrap().inputs_changed, 3);
    loaded.sample(1, 0).unwrap();
    assert_eq!(loaded.audit(0).unwrap().inputs_changed, 0, "the second launch flips the same bits back");
}

#[test]
fn facts_name_the_path_and_time_the_first_launch() {
    let host = Host::new().unwrap();
    let plan = faulty(&host, |_| ());
    let mut loaded = host.load(&plan, DENSE, 3, Checks::Trusted).unwrap();
    assert_eq!(loaded.facts().first_launch_ns, None);
    let sample = loaded.sample(1000, 0).unwrap();
    let facts = loaded.facts();
    assert!(sample.device.is_none() && facts.first_launch_ns.unwrap() <= sample.wall.as_nanos() as u64);
    assert_eq!(facts.path.as_deref(), Some(Isa::detect().min(Isa::Avx512).name()));
    let tensors = plan.pool_bytes(3);
    assert!((tensors..tensors + 9 * 256).contains(&facts.allocated_bytes.unwrap()));
}

#[test]
fn a_problem_larger_than_memory_is_refused_with_the_numbers() {
    let host = Host::new().unwrap();
    let op = problem("matmul", json!({"m": 1 << 20, "n": 1 << 20, "k": 1 << 20}));
    let plan = plan(&*op, "packed", Precision::F32, &Tuned::default(), &host);
    match host.load(&plan, DENSE, 1, Checks::Trusted).err() {
        Some(Error::OutOfMemory { need, have, .. }) => assert!(need > 3 << 42 && have < need, "{need} {have}"),
        other => panic!("{other:?}"),
    }
    assert!(host.load(&plan, DENSE, u32::MAX, Checks::Trusted).is_err());
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    for isa in Isa::ALL {
        assert_eq!(Host::with(isa).is_ok(), isa.available(), "{}", isa.name());
    }
}

#[test]
fn demand_is_at_least_the_moved_and_compulsory_bytes_of_every_host_variant() {
    let host = Host::new().unwrap();
    for entry in OPS {
        for fields in (entry.awkward)() {
            let op = (entry.parse)(&fields).unwrap();
            for variant in op.variants() {
                for precision in Precision::ALL {
                    if variant.has(Language::Host, precision) {
                        let cost = plan(&*op, variant.name, precision, &Tuned::default(), &host).cost;
                        let context = format!("{}/{} {precision} {fields} {cost:?}", entry.name, variant.name);
                        assert!(
                            cost.requested >= Some(cost.moved) && cost.moved >= cost.compulsory && cost.lane >= cost.requested,
                            "{context}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_device_describes_this_machine() {
    let device = device();
    assert_eq!(device.id, "host");
    assert_eq!(device.compute_units as usize, rooftrace::host::Pool::new().workers());
    assert_eq!(device.driver, Isa::detect().name());
    assert!(device.has("portable") && device.memory_bytes > 1 << 20);
    let levels: Range<u32> = 1..5;
    assert!(device.caches.iter().all(|(level, bytes)| levels.contains(level) && *bytes >= 4096), "{:?}", device.caches);
}
