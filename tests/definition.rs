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

fn conv(hw: u64, c_in: u64, c_out: u64, k: u64, stride: u64, groups: u64) -> Value {
    json!({"n": 1, "h": hw, "w": hw, "c_in": c_in, "c_out": c_out, "k": k, "stride": stride, "padding": k / 2, "dilation": 1, "groups": groups})
}

fn attended(batch: u64, heads: u64, kv_heads: u64, (seq_q, seq_kv): (u64, u64), head_dim: u64, causal: bool) -> Value {
    json!({"batch": batch, "heads": heads, "kv_heads": kv_heads, "seq_q": seq_q, "seq_kv": seq_kv, "head_dim": head_dim, "causal": causal})
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
        // 3×3 256→256 at 14×14, the first layer of ResNet-50, one of ResNeXt-50's grouped ones, one of ResNet-50's 1×1.
        ("conv2d", conv(14, 256, 256, 3, 1, 1), 115_605_504, 2_760_704),
        ("conv2d", conv(224, 3, 64, 7, 2, 1), 118_013_952, 3_851_008),
        ("conv2d", conv(56, 128, 128, 3, 1, 32), 14_450_688, 3_229_696),
        ("conv2d", conv(56, 64, 256, 1, 1, 1), 51_380_224, 4_079_616),
        // 8 heads of 512 · 512 pairs of 64; causal: 1 + 2 + 3 + 4 pairs; 3 + 4 + 5 of them; one query sees all keys.
        ("attention", attended(1, 8, 8, (512, 512), 64, false), 268_435_456, 4_194_304),
        ("attention", attended(1, 2, 2, (4, 4), 3, true), 120, 384),
        ("attention", attended(1, 1, 1, (3, 5), 2, true), 48, 128),
        ("attention", attended(2, 4, 2, (1, 5), 8, true), 640, 1_792),
        // Weights of 4096 · 4096 bytes or half as many, 32 · 4096 scales, 4096 numbers in and out. 18 words and 3 · 5 scales.
        ("quantized", json!({"m": 1, "n": 4096, "k": 4096, "bits": 8, "group_size": 128}), 16_777_216, 17_334_272),
        ("quantized", json!({"m": 1, "n": 4096, "k": 4096, "bits": 4, "group_size": 128}), 16_777_216, 8_945_664),
        ("quantized", json!({"m": 7, "n": 5, "k": 24, "bits": 4, "group_size": 8}), 840, 4 * (168 + 15 + 15 + 35)),
        // 4 products of 8 heads of 512 · 256 · 64: two that project, two over what is projected; 2 · 3 · (5 · 4 · 7) of them.
        ("linformer", json!({"batch": 1, "heads": 8, "seq": 512, "head_dim": 64, "rank": 256}), 268_435_456, 5_242_880),
        ("linformer", json!({"batch": 2, "heads": 3, "seq": 5, "head_dim": 4, "rank": 7}), 3_360, 4 * (4 * 120 + 70)),
        ("performer", json!({"batch": 1, "heads": 8, "seq": 512, "head_dim": 64, "features": 256}), 268_435_456, 4_259_840),
        ("performer", json!({"batch": 2, "heads": 3, "seq": 5, "head_dim": 4, "features": 7}), 3_360, 4 * (4 * 120 + 28)),
        ("stream", json!({"kind": "triad", "elements": 1000, "passes": 3, "parts": 1}), 1000, 36_000),
        ("stream", json!({"kind": "copy", "elements": 1000, "passes": 1, "parts": 1}), 1000, 8_000),
        ("stream", json!({"kind": "read", "elements": 1000, "passes": 2, "parts": 10}), 1000, 8_000),
        ("stream", json!({"kind": "write", "elements": 1000, "passes": 2, "parts": 10}), 0, 8_000),
        ("fma", json!({"elements": 10, "trips": 3, "steps": 16}), 480, 80),
        // 7 blocks of 128 elements at 12 steps for eight, and 104 more: one each, and one more for the 64 of the first four lines.
        ("exp", json!({"elements": 10, "trips": 3, "steps": 16}), 0, 80),
        ("launch", json!({"dispatches": 16}), 0, 128),
        ("chase", json!({"lines": 64, "hops": 160}), 0, 160 * 4 + 2 * 4),
        ("ramp", json!({"elements": 1000, "steps": 12}), 7 * 192 + 104 + 64, 8_000),
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

/// 4,089,184,256 MACs, so 8.18 GFLOP: what model cards call "4.1 GFLOPs" (He et al., 2016; with the stride in the 3×3 convolution).
#[test]
fn resnet_50_and_a_block_of_attention_cost_what_is_told_of_them() {
    let macs = |name: &str, problem: Value| parse(name, &problem).macs();
    let layer = |hw, c_in, c_out, k, stride| macs("conv2d", conv(hw, c_in, c_out, k, stride, 1));
    let mut resnet = layer(224, 3, 64, 7, 2) + macs("matmul", json!({"m": 1, "n": 1000, "k": 2048}));
    let (mut hw, mut channels) = (56, 64);
    for (blocks, width, first) in [(3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)] {
        resnet += layer(hw, channels, 4 * width, 1, first);
        for stride in std::iter::once(first).chain(std::iter::repeat_n(1, blocks - 1)) {
            resnet += layer(hw, channels, width, 1, 1) + layer(hw, width, width, 3, stride);
            (hw, channels) = (hw / stride, 4 * width);
            resnet += layer(hw, width, channels, 1, 1);
        }
    }
    assert_eq!((hw, channels, resnet), (7, 2048, 4_089_184_256));

    // Four projections of n tokens of width c, and attention of c / 64 heads: 4·n·c² + 2·n²·c.
    let (n, c) = (512, 768);
    let block = 4 * macs("matmul", json!({"m": n, "n": c, "k": c})) + macs("attention", attended(1, c / 64, c / 64, (n, n), 64, false));
    assert_eq!(block, 4 * n * c * c + 2 * n * n * c);
}

#[test]
fn attention_declares_an_exponential_for_each_pair_that_is_not_masked() {
    for (problem, exponentials) in [
        (attended(1, 8, 8, (512, 512), 64, false), 8 * 512 * 512),
        (attended(1, 2, 2, (4, 4), 3, true), 2 * (1 + 2 + 3 + 4)),
        (attended(2, 4, 2, (1, 5), 8, true), 2 * 4 * 5),
    ] {
        assert_eq!(parse("attention", &problem).exponentials(), exponentials, "{problem}");
    }
    assert_eq!(parse("linformer", &json!({"batch": 2, "heads": 3, "seq": 5, "rank": 7})).exponentials(), 2 * 3 * 5 * 7);
    assert_eq!(parse("performer", &json!({"batch": 2, "heads": 3, "seq": 5, "features": 7})).exponentials(), 2 * 2 * 3 * 5 * 7);
    assert_eq!(parse("exp", &json!({"elements": 10, "trips": 3, "steps": 16})).exponentials(), 480);
    assert_eq!(parse("matmul", &json!({"m": 7})).exponentials(), 0);
}

#[test]
fn requested_bytes_are_at_least_moved_and_moved_at_least_compulsory() {
    for entry in op::OPS {
        for problem in (entry.awkward)() {
            let op = parse(entry.name, &problem);
            for variant in op.variants() {
                for source in &variant.sources {
                    let legal = |&precision: &Precision| op.tensors(precision).is_ok();
                    let precision = source.precisions.iter().copied().find(legal).expect("one takes it");
                    let plan = op.plan(variant.name, precision, source.language, &Tuned::default(), &device()).expect("a plan");
                    let cost = plan.cost;
                    let named = format!("{}/{} {:?} {problem}: {cost:?}", entry.name, variant.name, source.language);
                    // Nobody knows what a library requests.
                    let counted = cost.requested >= Some(cost.moved) && cost.lane >= cost.requested;
                    assert!(cost.moved >= cost.compulsory && (counted || source.library.is_some()), "{named}");
                }
            }
        }
    }
}

/// The textbook's loops, outputs scattered instead of gathered, to stand beside `row`. Depthwise is the convolution with as many groups
/// as channels, but for the order of its filters.
#[test]
fn convolutions_agree_with_a_second_loop_written_the_other_way_round() {
    for (name, problem) in
        ["depthwise", "conv2d"].into_iter().flat_map(|op| (op::find(op).expect("built in").awkward)().into_iter().map(move |p| (op, p)))
    {
        let op = parse(name, &problem);
        let tensors = op.tensors(Precision::F32).expect("possible");
        let of = |name: &str| problem[name].as_u64();
        let (stride, padding, dilation) =
            (of("stride").expect("a field"), of("padding").expect("a field"), of("dilation").expect("a field"));
        let (x, y) = (tensors[0].shape.clone(), tensors[2].shape.clone());
        let (kh, kw) = (of("kh").or(of("k")).expect("a field"), of("kw").or(of("k")).expect("a field"));
        let groups = of("groups").unwrap_or(x[3]);
        let (inputs, outputs) = (x[3] / groups, y[3] / groups);
        let drawn = Drawn::new(&tensors, SEEDED);
        let filter = |o: u64, r: u64, s: u64, c: u64| match name {
            "depthwise" => drawn.value(1, (r * kw + s) * x[3] + o),
            _ => drawn.value(1, ((o * kh + r) * kw + s) * inputs + c),
        };
        let mut scattered = vec![0f64; y.iter().product::<u64>() as usize];
        for at in 0..x.iter().product::<u64>() {
            let (image, row, col, channel) = (at / x[3] / x[2] / x[1], at / x[3] / x[2] % x[1], at / x[3] % x[2], at % x[3]);
            let value = drawn.value(0, at);
            for (r, s) in (0..kh).flat_map(|r| (0..kw).map(move |s| (r, s))) {
                // Which outputs see this input through tap (r, s)?
                let (top, left) = ((row + padding).checked_sub(r * dilation), (col + padding).checked_sub(s * dilation));
                let (Some(top), Some(left)) = (top, left) else { continue };
                if top % stride == 0 && left % stride == 0 && top / stride < y[1] && left / stride < y[2] {
                    let group = channel / inputs;
                    for o in group * outputs..(group + 1) * outputs {
                        let to = ((image * y[1] + top / stride) * y[2] + left / stride) * y[3] + o;
                        scattered[to as usize] += value * filter(o, r, s, channel % inputs);
                    }
                }
            }
        }
        for row in 0..y[0] * y[1] * y[2] {
            let gathered = op.row(Arithmetic::F64, &drawn, row, 0..y[3]);
            for (channel, value) in gathered.iter().enumerate() {
                let other = scattered[row as usize * y[3] as usize + channel];
                assert!((value - other).abs() <= 1e-10, "{name} {problem}: row {row} channel {channel}: {value} and {other}");
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
        ("conv2d", json!({"groups": 3}), "3 groups do not divide 128"),
        ("conv2d", json!({"groups": 0}), "groups 0"),
        ("conv2d", json!({"h": 2, "w": 2, "k": 7, "padding": 0}), "a 7x7 filter"),
        ("conv2d", json!({"kh": 0}), "a 0x3 filter"),
        ("depthwise", json!({"stride": 0}), "stride 0"),
        ("depthwise", json!({"dilation": 0}), "dilation 0"),
        ("depthwise", json!({"h": 2, "w": 2, "k": 7, "padding": 0}), "does not fit"),
        ("depthwise", json!({"padding": u64::MAX}), "does not fit"),
        ("attention", json!({"head_dim": 0}), "extent 0"),
        ("attention", json!({"heads": 6, "kv_heads": 4}), "4 heads of keys do not divide 6"),
        ("attention", json!({"kv_heads": 0}), "0 heads of keys"),
        ("attention", json!({"seq_q": 9, "seq_kv": 8, "causal": true}), "9 need more than 8 keys"),
        ("attention", json!({"seq": 1u64 << 36, "head_dim": 1}), "2^60"),
        ("attention", json!({"causal": 2}), "attention"),
        ("quantized", json!({"bits": 5}), "weights of 5 bits; there are 8 and 4"),
        ("quantized", json!({"bits": 0}), "weights of 0 bits"),
        ("quantized", json!({"group_size": 0}), "group_size 0"),
        ("quantized", json!({"bits": 4, "group_size": 12}), "no multiple of the 8 weights of a word"),
        ("quantized", json!({"k": 100, "group_size": 32}), "k 100 is no multiple of group_size 32"),
        ("quantized", json!({"n": 0}), "extent 0"),
        ("quantized", json!({"group": 32}), "its fields are m, n, k, bits, group_size"),
        ("linformer", json!({"rank": 0}), "extent 0"),
        ("linformer", json!({"causal": true}), "no field 'causal'"),
        ("performer", json!({"features": 0}), "extent 0"),
        ("performer", json!({"seq": 1u64 << 40, "features": 1u64 << 16}), "2^60"),
        ("stream", json!({"kind": "sideways"}), "sideways"),
        ("stream", json!({"elements": 4, "parts": 9}), "parts 9"),
        ("fma", json!({"steps": 7}), "multiple of 8"),
        ("transfer", json!({"direction": "sideways"}), "sideways"),
        ("transfer", json!({"elements": 0}), "extent 0"),
        ("dot", json!({"trips": 65}), "trips 65 must be 1 to 64"),
        ("dot", json!({"trips": 64, "steps": 1 << 20}), "more than 31 bits hold"),
    ];
    for (name, problem, says) in cases {
        let refused = (op::find(name).expect("built in").parse)(&problem);
        let message = refused.err().unwrap_or_else(|| panic!("{name} {problem} was accepted")).to_string();
        assert!(message.contains(says), "{name} {problem}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn attention_hides_the_future_shares_keys_and_weighs_by_softmax() {
    // Two heads of queries share one of keys; the second query of each sees both keys.
    let op = parse("attention", &attended(1, 2, 1, (2, 2), 1, true));
    let tensors = op.tensors(Precision::F32).expect("possible");
    let drawn = Drawn::new(&tensors, SEEDED);
    for head in 0..2 {
        let (q, k, v) = (drawn.value(0, 2 * head + 1), [0, 1].map(|j| drawn.value(1, j)), [0, 1].map(|j| drawn.value(2, j)));
        assert_eq!(op.row(Arithmetic::F64, &drawn, 2 * head, 0..1), [v[0]], "the first query sees the first key alone");
        let second = 1.0 / (1.0 + (q * k[0] - q * k[1]).exp());
        let found = op.row(Arithmetic::F64, &drawn, 2 * head + 1, 0..1)[0];
        assert!((found - (v[0] * (1.0 - second) + v[1] * second)).abs() < 1e-12, "head {head}: {found}");
    }
}

/// Weights by their bytes and halves of bytes, as files have them, to stand beside `row`; signs by subtraction.
#[test]
fn a_quantized_product_agrees_with_a_second_loop_over_bytes() {
    for problem in (op::find("quantized").expect("built in").awkward)() {
        let op = parse("quantized", &problem);
        let tensors = op.tensors(Precision::F32).expect("possible");
        let drawn = Drawn::new(&tensors, SEEDED);
        let [m, n, k, bits, group] = ["m", "n", "k", "bits", "group_size"].map(|name| problem[name].as_u64().expect("a field"));
        let bytes: Vec<u8> = (0..tensors[1].elements()).flat_map(|w| (drawn.value(1, w) as u32).to_le_bytes()).collect();
        assert_eq!(bytes.len() as u64, n * k * bits / 8, "each weight once");
        let weight = |l: u64, j: u64| {
            let (pack, range) = (32 / bits, 1i64 << bits);
            let byte = (l / pack * n + j) * 4 + l % pack * bits / 8;
            let unsigned = i64::from(bytes[byte as usize]) >> (l * bits % 8) & (range - 1);
            let signed = if unsigned >= range / 2 { unsigned - range } else { unsigned };
            signed as f64 * drawn.value(2, l / group * n + j)
        };
        for row in 0..m {
            for (j, value) in (0..n).zip(op.row(Arithmetic::F64, &drawn, row, 0..n)) {
                let other: f64 = (0..k).map(|l| drawn.value(0, row * k + l) * weight(l, j)).sum();
                assert!((value - other).abs() <= 1e-9, "{problem}: row {row} column {j}: {value} and {other}");
            }
        }
        assert_eq!(op.params(), Some(n * k));
    }
}

#[test]
fn seq_stands_for_both_lengths_and_heads_for_those_of_keys() {
    let given = |fields: Value| parse("attention", &fields).problem();
    let both = given(json!({"heads": 3, "seq": 7}));
    assert_eq!((&both["seq_q"], &both["seq_kv"], &both["kv_heads"]), (&json!(7), &json!(7), &json!(3)));
    let apart = given(json!({"heads": 4, "kv_heads": 2, "seq_q": 1, "seq_kv": 7}));
    assert_eq!((&apart["seq_q"], &apart["seq_kv"], &apart["kv_heads"]), (&json!(1), &json!(7), &json!(2)));
    let twice = json!({"seq": 7, "seq_q": 1});
    let refused = (op::find("attention").expect("an op").parse)(&twice).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.contains("and seq_q too"), "{refused}");
}

#[test]
fn attention_without_a_score_matrix_moves_each_tensor_once_and_naive_moves_the_matrix_four_times() {
    let op = parse("attention", &attended(1, 2, 2, (300, 300), 64, true));
    let plan = |variant, device: &DeviceInfo| op.plan(variant, Precision::F32, device.language, &Tuned::default(), device);
    let (naive, flash) = (plan("naive", &device()).expect("a plan"), plan("flash", &device()).expect("a plan"));
    let (matrix, tensor) = (4 * 2 * 300 * 300, 4 * 2 * 300 * 64);
    assert_eq!((naive.cost.moved, naive.cost.workspace), (4 * tensor + 4 * matrix, matrix));
    assert_eq!((flash.cost.moved, flash.cost.compulsory), (4 * tensor, 4 * tensor));
    assert!(flash.scratch.is_empty() && flash.cost.workspace < matrix);
    // What no memory holds is refused with both numbers, by naive alone; what no tile holds, by flash on devices alone.
    let small = DeviceInfo { memory_bytes: 4 * tensor + matrix - 1, ..device() };
    let refused = plan("naive", &small).expect_err("too large").to_string();
    assert!(refused.contains("[1, 2, 300, 300]") && refused.contains(&(4 * tensor + matrix).to_string()), "{refused}");
    assert!(plan("flash", &small).is_ok());
    let wide = parse("attention", &json!({"head_dim": 200}));
    for language in [Language::Wgsl, Language::Cuda] {
        let refused = wide.plan("flash", Precision::F32, language, &Tuned::default(), &device()).expect_err("too wide").to_string();
        assert!(refused.contains("head_dim needs 200") && refused.contains("128"), "{refused}");
    }
}

/// The formulas of both papers, written with whole matrices.
#[test]
fn linformer_and_performer_agree_with_their_matrices_multiplied_out() {
    let (n, d, r) = (9u64, 5u64, 4u64);
    let matrix = |x: &Drawn, tensor: usize, first: u64, rows: u64, columns: u64| -> Vec<Vec<f64>> {
        (0..rows).map(|i| (0..columns).map(|j| x.value(tensor, first + i * columns + j)).collect()).collect()
    };
    let times = |a: &[Vec<f64>], b: &[Vec<f64>]| -> Vec<Vec<f64>> {
        a.iter().map(|row| (0..b[0].len()).map(|j| row.iter().zip(b).map(|(x, b)| x * b[j]).sum()).collect()).collect()
    };
    let turned = |a: &[Vec<f64>]| -> Vec<Vec<f64>> { (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect() };
    let each =
        |a: &[Vec<f64>], of: &dyn Fn(f64) -> f64| -> Vec<Vec<f64>> { a.iter().map(|row| row.iter().map(|&x| of(x)).collect()).collect() };
    for (name, field) in [("linformer", "rank"), ("performer", "features")] {
        let op = parse(name, &json!({"heads": 2, "seq": n, "head_dim": d, field: r}));
        let drawn = Drawn::new(&op.tensors(Precision::F32).expect("possible"), SEEDED);
        for head in 0..2 {
            let [q, k, v] = [0, 1, 2].map(|t| matrix(&drawn, t, head * n * d, n, d));
            let root = (d as f64).sqrt();
            let (weights, values) = if name == "linformer" {
                let [e, f] = [3, 4].map(|t| each(&matrix(&drawn, t, 0, r, n), &|x| x * (3.0 / n as f64).sqrt()));
                (each(&times(&q, &turned(&times(&e, &k))), &|x| (x / root).exp()), times(&f, &v))
            } else {
                let w = each(&matrix(&drawn, 3, 0, r, d), &|x| x * 3f64.sqrt());
                let features = |x: &[Vec<f64>]| -> Vec<Vec<f64>> {
                    let x = each(x, &|x| x / root.sqrt());
                    let squares: Vec<f64> = x.iter().map(|row| row.iter().map(|x| x * x).sum::<f64>() / 2.0).collect();
                    times(&x, &turned(&w)).iter().zip(&squares).map(|(row, s)| row.iter().map(|y| (y - s).exp()).collect()).collect()
                };
                // All pairs, where the op goes through the features.
                (times(&features(&q), &turned(&features(&k))), v)
            };
            let outputs = times(&weights, &values);
            for i in 0..n as usize {
                let sum: f64 = weights[i].iter().sum();
                let found = op.row(Arithmetic::F64, &drawn, head * n + i as u64, 0..d);
                let off = found.iter().zip(&outputs[i]).map(|(found, o)| (found - o / sum).abs()).fold(0.0, f64::max);
                assert!(off < 1e-12, "{name}: head {head}, row {i} is {off:e} off");
            }
        }
    }
}

fn device() -> DeviceInfo {
    rooftrace::backend::host::device()
}
