//! What is computed: declared work equals counted work equals work written down by hand, and a second loop agrees.

use std::sync::Arc;

use rooftrace::draw::{Draw, Drawn, Seeded};
use rooftrace::op::{self, Arithmetic, Op, Role, counted_macs};
use rooftrace::plan::{DeviceInfo, Language, Precision, Tuned};
use serde_json::{Value, json};

const SEEDED: Seeded = Seeded { draw: Draw::Dense, seed: 3 };

fn parse(name: &str, problem: &Value) -> Arc<dyn Op> {
    (op::find(name).expect("a built-in op").parse)(problem).expect("a possible problem")
}

fn output_shape(op: &dyn Op) -> (u64, u64) {
    let tensors = op.tensors(Precision::F32).expect("a possible problem");
    let output = tensors.iter().find(|t| t.role == Role::Output).expect("an output");
    let columns = *output.shape.last().expect("an extent");
    (output.elements() / columns, columns)
}

#[test]
fn counted_multiply_adds_equal_declared_ones_for_every_op() {
    for entry in op::OPS {
        for problem in (entry.awkward)() {
            let op = parse(entry.name, &problem);
            let (rows, columns) = output_shape(&*op);
            let inputs = Drawn::new(&op.tensors(Precision::F32).expect("possible"), SEEDED);
            let counted = counted_macs(|| {
                for row in 0..rows {
                    op.row(Arithmetic::Counted, &inputs, row, 0..columns);
                }
            });
            assert_eq!(counted, op.macs(), "{} {problem}", entry.name);
        }
    }
}

#[test]
fn declared_work_of_known_layers_equals_figures_worked_out_by_hand() {
    let layers = [
        ("matmul", json!({"m": 1024, "n": 1024, "k": 1024}), 1_073_741_824u64, 12_582_912u64),
        ("matmul", json!({"m": 1, "n": 4096, "k": 4096}), 16_777_216, 67_141_632),
        ("matmul", json!({"m": 7, "n": 5, "k": 3}), 105, 284),
        // MobileNetV2's first depthwise layer: 112 · 112 · 32 outputs of 9 taps.
        ("depthwise", json!({"n": 1, "h": 112, "w": 112, "c": 32, "k": 3, "stride": 1, "padding": 1, "dilation": 1}), 3_612_672, 3_212_416),
        ("depthwise", json!({"n": 1, "h": 56, "w": 56, "c": 128, "k": 3, "stride": 2, "padding": 1, "dilation": 1}), 903_168, 2_011_648),
        (
            "depthwise",
            json!({"n": 16, "h": 112, "w": 112, "c": 64, "k": 3, "stride": 1, "padding": 1, "dilation": 1}),
            115_605_504,
            102_762_752,
        ),
        // No padding: 5 x 5 under 3 x 3 leaves 3 x 3.
        ("depthwise", json!({"n": 2, "h": 5, "w": 5, "c": 4, "k": 3, "stride": 1, "padding": 0, "dilation": 1}), 648, 1_232),
        // Dilation 2 makes the filter reach 5.
        ("depthwise", json!({"n": 1, "h": 7, "w": 7, "c": 1, "k": 3, "stride": 1, "padding": 0, "dilation": 2}), 81, 268),
        ("stream", json!({"kind": "triad", "elements": 1000, "passes": 3, "parts": 1}), 1000, 36_000),
        ("stream", json!({"kind": "copy", "elements": 1000, "passes": 1, "parts": 1}), 1000, 8_000),
        ("stream", json!({"kind": "read", "elements": 1000, "passes": 2, "parts": 10}), 1000, 8_000),
        ("stream", json!({"kind": "write", "elements": 1000, "passes": 2, "parts": 10}), 0, 8_000),
        ("fma", json!({"elements": 10, "trips": 3, "steps": 16}), 480, 80),
    ];
    for (name, problem, macs, compulsory) in layers {
        let op = parse(name, &problem);
        assert_eq!(op.macs(), macs, "{name} {problem}: multiply-adds");
        let variant = op.variants()[0].name;
        let plan = op.plan(variant, Precision::F32, Language::Host, &Tuned::default(), &device()).expect("a host plan");
        assert_eq!(plan.cost.compulsory, compulsory, "{name} {problem}: compulsory bytes");
        assert_eq!(plan.cost.flops, 2 * macs, "{name} {problem}: FLOPs");
    }
}

#[test]
fn requested_bytes_are_at_least_moved_and_moved_at_least_compulsory() {
    for entry in op::OPS {
        for problem in (entry.awkward)() {
            let op = parse(entry.name, &problem);
            for variant in op.variants() {
                for source in &variant.sources {
                    let plan = op.plan(variant.name, source.precisions[0], source.language, &Tuned::default(), &device()).expect("a plan");
                    let cost = plan.cost;
                    let named = format!("{}/{} {:?} {problem}: {cost:?}", entry.name, variant.name, source.language);
                    assert!(cost.requested >= cost.moved && cost.moved >= cost.compulsory && cost.lane >= cost.requested, "{named}");
                }
            }
        }
    }
}

/// The textbook's seven loops, outputs scattered instead of gathered, to stand beside `row`.
#[test]
fn depthwise_agrees_with_a_second_loop_written_the_other_way_round() {
    for problem in (op::find("depthwise").expect("built in").awkward)() {
        let op = parse("depthwise", &problem);
        let of = |name: &str| problem[name].as_u64().expect("a field");
        let (n, h, w, c, k) = (of("n"), of("h"), of("w"), of("c"), of("k"));
        let (stride, padding, dilation) = (of("stride"), of("padding"), of("dilation"));
        let tensors = op.tensors(Precision::F32).expect("possible");
        let (oh, ow) = (tensors[2].shape[1], tensors[2].shape[2]);
        let inputs = Drawn::new(&tensors, SEEDED);
        let mut scattered = vec![0f64; (n * oh * ow * c) as usize];
        for (image, y, x, ch) in
            (0..n).flat_map(|i| (0..h).flat_map(move |y| (0..w).flat_map(move |x| (0..c).map(move |ch| (i, y, x, ch)))))
        {
            let value = inputs.value(0, ((image * h + y) * w + x) * c + ch);
            for (r, s) in (0..k).flat_map(|r| (0..k).map(move |s| (r, s))) {
                // Which output sees this input through tap (r, s)?
                let (top, left) = ((y + padding).checked_sub(r * dilation), (x + padding).checked_sub(s * dilation));
                let (Some(top), Some(left)) = (top, left) else { continue };
                if top % stride == 0 && left % stride == 0 && top / stride < oh && left / stride < ow {
                    let at = ((image * oh + top / stride) * ow + left / stride) * c + ch;
                    scattered[at as usize] += value * inputs.value(1, (r * k + s) * c + ch);
                }
            }
        }
        for row in 0..n * oh * ow {
            let gathered = op.row(Arithmetic::F64, &inputs, row, 0..c);
            for (ch, value) in gathered.iter().enumerate() {
                let other = scattered[(row * c) as usize + ch];
                assert!((value - other).abs() <= 1e-12, "{problem}: row {row} channel {ch}: {value} and {other}");
            }
        }
    }
}

#[test]
fn impossible_shapes_are_refused_in_one_sentence_that_names_the_size() {
    let cases = [
        ("matmul", json!({"m": 0}), "extent 0"),
        ("matmul", json!({"m": u64::MAX, "n": 2, "k": 1}), "2^44"),
        ("matmul", json!({"q": 3}), "no field 'q'"),
        ("matmul", json!({"m": -1}), "matmul"),
        ("matmul", json!({"m": 1.5}), "matmul"),
        ("depthwise", json!({"stride": 0}), "stride 0"),
        ("depthwise", json!({"dilation": 0}), "dilation 0"),
        ("depthwise", json!({"h": 2, "w": 2, "k": 7, "padding": 0}), "does not fit"),
        ("depthwise", json!({"padding": u64::MAX}), "does not fit"),
        ("stream", json!({"kind": "sideways"}), "sideways"),
        ("stream", json!({"elements": 4, "parts": 9}), "parts 9"),
        ("fma", json!({"steps": 7}), "multiple of 8"),
    ];
    for (name, problem, says) in cases {
        let refused = (op::find(name).expect("built in").parse)(&problem);
        let message = refused.err().unwrap_or_else(|| panic!("{name} {problem} was accepted")).to_string();
        assert!(message.contains(says), "{name} {problem}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

fn device() -> DeviceInfo {
    rooftrace::backend::host::device()
}
