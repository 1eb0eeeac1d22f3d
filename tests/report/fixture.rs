//! Views built by hand: a plausible machine, and hostile ones.

use rooftrace::op::OpRole;
use rooftrace::plan::{DeviceInfo, DeviceKind, Language, Limits, Precision, Unit};
use rooftrace::record::{Cache, CeilingKind, Clock, Environment, Header, Schema, Settings, State, Tool};
use rooftrace::view::{CeilingView, Curve, Interval, Row, SkipView, View};
use serde_json::json;

pub const F32: f64 = 74.6e9;
pub const DRAM: f64 = 19.0e9;

pub fn header() -> Header {
    Header {
        schema: Schema::current(),
        started: 1_795_333_405,
        tool: Tool { version: "0.1.0".into(), commit: "0123456".into(), dirty: false, executable: String::new() },
        environment: Environment::default(),
        device: DeviceInfo {
            id: "host".into(),
            backend: "host".into(),
            name: "AMD EPYC 7763 64-Core Processor".into(),
            kind: DeviceKind::Cpu,
            language: Language::Host,
            driver: "avx2+fma".into(),
            compute_units: 2,
            caches: vec![(1, 65_536), (2, 1 << 20), (3, 32 << 20)],
            memory_bytes: 8 << 30,
            precisions: vec![Precision::F32, Precision::F64],
            features: vec![],
            limits: Limits { binding_bytes: 1 << 30, grid: 65_535, block: 1024, shared_bytes: 0, launch_ns: None, loop_trips: None },
            simulated: false,
            sensors: None,
        },
        clock: Clock::default(),
        settings: Settings::default(),
        extra: Default::default(),
    }
}

pub fn compute(name: &str, precision: Precision, value: f64) -> CeilingView {
    CeilingView {
        name: name.into(),
        kind: CeilingKind::Compute,
        precision: Some(precision),
        unit: Some(Unit::Vector),
        level: None,
        direction: None,
        capacity: None,
        value,
        low: value * 0.994,
        high: value * 1.004,
        canary_ns: None,
        state: State::Ok,
        reasons: vec![],
    }
}

pub fn bandwidth(level: &str, direction: &str, capacity: Option<u64>, value: f64) -> CeilingView {
    CeilingView {
        name: format!("{level} {direction}"),
        kind: CeilingKind::Bandwidth,
        precision: None,
        unit: None,
        level: Some(level.into()),
        direction: Some(direction.into()),
        capacity,
        value,
        low: value * 0.97,
        high: value * 1.03,
        canary_ns: None,
        state: State::Ok,
        reasons: vec![],
    }
}

/// A row of `flops` FLOPs over `bytes` that runs at `rate`; moved bytes are `more` times the compulsory ones.
#[allow(clippy::too_many_arguments)]
pub fn row(op: &str, variant: &str, label: &str, cache: Cache, flops: f64, bytes: f64, rate: f64, limiter: (&str, f64)) -> Row {
    let median = flops / rate * 1e9;
    let intensity = flops / bytes;
    let slope = if cache == Cache::Cold { DRAM } else { 42.0e9 };
    let roof = F32.min(slope * intensity);
    Row {
        id: format!("{op}/{variant}/{label}/{cache:?}").to_lowercase(),
        op: op.into(),
        problem: json!({ "label": label }),
        label: label.into(),
        variant: variant.into(),
        role: OpRole::Kernel,
        backend: "host".into(),
        precision: Precision::F32,
        unit: Unit::Vector,
        cache,
        clock: "wall".into(),
        state: State::Ok,
        reasons: vec![],
        time_ns: Some(Interval { median, low: median * 0.996, high: median * 1.005 }),
        flop_per_s: Some(rate),
        byte_per_s: Some(rate / intensity),
        intensity,
        intensity_moved: intensity,
        roof_fraction: Some(rate / roof),
        roof_flop_per_s: Some(roof),
        above_roof: false,
        level: Some(if cache == Cache::Cold { "dram" } else { "l3" }.into()),
        limiter: limiter.0.into(),
        limiter_share: Some(limiter.1),
        macs: flops as u64 / 2,
        bytes_compulsory: bytes as u64,
        bytes_moved: bytes as u64,
        bytes_requested: Some(bytes as u64),
        peak_bytes: None,
        workspace_bytes: 0,
        shares: vec![],
        verification: None,
        telemetry: None,
        energy: None,
        cost: None,
    }
}

fn matmul(variant: &str, (m, n, k): (u64, u64, u64), cache: Cache, rate: f64, limiter: (&str, f64)) -> Row {
    let bytes = 4 * (m * k + k * n + m * n);
    let row = row("matmul", variant, &format!("{m}x{n}x{k}"), cache, 2.0 * (m * n * k) as f64, bytes as f64, rate * 1e9, limiter);
    Row { problem: json!({ "m": m, "n": n, "k": k }), ..row }
}

fn depthwise(variant: &str, (n, hw, c, k): (u64, u64, u64, u64), cache: Cache, rate: f64, limiter: (&str, f64)) -> Row {
    let out = n * hw * hw * c;
    let (flops, bytes) = (2 * out * k * k, 4 * (2 * out + k * k * c));
    let label = format!("{n}x{hw}x{hw}x{c} k{k}");
    let row = row("depthwise", variant, &label, cache, flops as f64, bytes as f64, rate * 1e9, limiter);
    Row { problem: json!({ "n": n, "h": hw, "w": hw, "c": c, "k": k, "padding": k / 2 }), ..row }
}

/// About what a two-core host gives: 18 rows, one wrong, one above its roof, one unexplained, one with more traffic than it need have.
pub fn host() -> View {
    use Cache::{Cold, Warm};
    let mut rows = vec![
        matmul("naive", (512, 512, 512), Cold, 2.31, ("l2", 0.81)),
        matmul("naive", (1024, 1024, 1024), Cold, 1.12, ("l3", 0.74)),
        matmul("naive", (1024, 1024, 1024), Warm, 1.13, ("l3", 0.74)),
        matmul("blocked", (512, 512, 512), Cold, 55.2, ("compute (vector)", 0.74)),
        matmul("blocked", (1024, 1024, 1024), Cold, 61.7, ("compute (vector)", 0.83)),
        matmul("blocked", (1024, 1024, 1024), Warm, 63.0, ("compute (vector)", 0.84)),
        matmul("blocked", (2048, 2048, 2048), Cold, 65.4, ("compute (vector)", 0.88)),
        matmul("blocked", (1000, 1, 4096), Cold, 9.1, ("dram", 0.95)),
        matmul("blocked", (37, 53, 129), Warm, 21.0, ("unexplained", 0.35)),
        matmul("tiled", (1024, 1024, 1024), Cold, 40.0, ("compute (vector)", 0.54)),
        depthwise("naive", (16, 112, 64, 3), Cold, 8.4, ("compute (vector)", 0.61)),
        depthwise("naive", (1, 56, 128, 3), Warm, 9.1, ("compute (vector)", 0.63)),
        depthwise("rows", (16, 112, 64, 3), Cold, 38.0, ("dram", 0.89)),
        depthwise("rows", (16, 112, 64, 3), Warm, 38.4, ("dram", 0.90)),
        depthwise("rows", (1, 56, 128, 3), Warm, 60.1, ("l3 + compute (vector)", 0.72)),
        depthwise("rows", (8, 56, 144, 5), Cold, 58.9, ("compute (vector)", 0.79)),
        depthwise("rows", (1, 7, 960, 3), Warm, 6.2, ("launch", 0.41)),
        depthwise("rows", (4, 28, 96, 3), Cold, 49.9, ("dram", 0.93)),
    ];
    rows[9].state = State::Wrong;
    rows[9].reasons = vec!["12 of 4096 checked elements differ; worst error 3.1 at (17, 1023) where 2.0e-5 is allowed".into()];
    (rows[9].time_ns, rows[9].flop_per_s, rows[9].byte_per_s, rows[9].roof_fraction) = (None, None, None, None);
    rows[17].above_roof = true;
    rows[17].state = State::Suspect;
    rows[1].intensity_moved = rows[1].intensity / 6.0;
    rows[10].intensity_moved = rows[10].intensity / 2.5;
    View { header: header(), ceilings: ceilings(), rows, skips: skips(), curves: curves(), ramp: vec![], end: None, answer: vec![] }
}

fn ceilings() -> Vec<CeilingView> {
    let (l1, l2, l3) = (Some(64 << 10), Some(1 << 20), Some(30 << 20));
    let mut all = vec![compute("f32 vector", Precision::F32, F32), compute("f64 vector", Precision::F64, 37.2e9)];
    for (level, capacity, read, triad) in [("l1", l1, 402.0e9, 310.0e9), ("l2", l2, 171.0e9, 128.0e9), ("l3", l3, 61.0e9, 42.0e9)] {
        all.push(bandwidth(level, "read", capacity, read));
        all.push(bandwidth(level, "triad", capacity, triad));
    }
    for (direction, value) in [("read", 22.4e9), ("write", 12.1e9), ("copy", 18.2e9), ("triad", DRAM)] {
        all.push(bandwidth("dram", direction, None, value));
    }
    let last = all.len() - 3;
    all[last].state = State::Suspect;
    all[last].reasons = vec!["the last two octaves differ by 6 %".into()];
    all
}

fn skips() -> Vec<SkipView> {
    let skip = |op: &str, variant: &str, state, why: &str| SkipView {
        op: op.into(),
        variant: variant.into(),
        label: None,
        precision: None,
        state,
        why: why.into(),
    };
    vec![
        skip("matmul", "blocked", State::Unsupported, "precision f16 needs native f16 arithmetic, and this device has f32 and f64"),
        skip("depthwise", "rows", State::NotRun, "the budget of 60 s ended before it; --budget gives more"),
    ]
}

fn curves() -> Vec<Curve> {
    let point = |i: u32| {
        (
            4096u64 << i,
            if i < 5 {
                310.0e9
            } else if i < 9 {
                128.0e9
            } else if i < 14 {
                42.0e9
            } else {
                DRAM
            },
        )
    };
    vec![Curve { direction: "triad".into(), points: (0..18).map(point).collect() }]
}

/// A graphics card: four precisions' worth of distance between points, simulated.
pub fn card() -> View {
    let mut view = host();
    view.header.device.name = "Scripted Card 9000".into();
    view.header.device.backend = "fake".into();
    view.header.device.driver = "fake 1".into();
    view.header.device.simulated = true;
    view.ceilings = vec![
        compute("f32 vector", Precision::F32, 60.1e12),
        compute("f16 vector", Precision::F16, 118.0e12),
        compute("f64 vector", Precision::F64, 30.2e12),
        bandwidth("l2", "triad", Some(50 << 20), 9.8e12),
        bandwidth("dram", "triad", None, 4.05e12),
        bandwidth("dram", "copy", None, 4.01e12),
    ];
    for (index, row) in view.rows.iter_mut().enumerate() {
        row.flop_per_s = row.flop_per_s.map(|rate| rate * if index % 2 == 0 { 780.0 } else { 210.0 });
        row.time_ns = row.time_ns.map(|t| Interval { median: t.median / 500.0, low: t.low / 500.0, high: t.high / 500.0 });
    }
    view
}

/// `count` rows over the plane, by a multiplicative hash, on the host's roofs.
pub fn crowd(count: u32) -> View {
    let mut view = host();
    let one = |i: u32| {
        let (a, b) = (i.wrapping_mul(2_654_435_761) % 1000, i.wrapping_mul(40_503) % 997);
        let (x, y) = (10f64.powf(f64::from(a) / 250.0 - 1.0), 10f64.powf(8.0 + f64::from(b) / 350.0));
        let names = [("matmul", "naive"), ("matmul", "tiled"), ("depthwise", "rows"), ("conv2d", "direct"), ("attention", "flash")];
        let (op, variant) = names[i as usize % names.len()];
        let mut row = row(op, variant, "1024x1024x1024", Cache::Cold, x * 1e8, 1e8, y, ("dram", 0.9));
        row.id = format!("row {i}");
        row
    };
    view.rows = (0..count).map(one).collect();
    view
}
