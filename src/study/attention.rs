//! What does flash attention save? The naive kernel keeps a score for every pair of tokens, the fused one keeps none: time, traffic and
//! memory over the length of the sequence, and over masks, heads and phases.
//!
//! Fused softmax: Milakov and Gimelshein, 2018; Dao et al., "FlashAttention", 2022. Shared keys: Shazeer, 2019 (one head of keys, MQA), Ainslie et
//! al., 2023 (several, GQA).

use std::sync::Arc;

use serde_json::json;

use super::words::{is_little, is_most, portion, power, same_time, time_against, time_saved};
use super::{
    Axis, FITTED, Figure, LONG, Line, Look, Mark, Panel, Quantity, Setting, Study, Telling, check, clear_limiter, counted_rate, median,
    peaks,
};
use crate::error::{Error, Result};
use crate::grid::{Column, Grid};
use crate::op::{self, Op, Size};
use crate::plan::{Language, Precision, Tuned};
use crate::record::Cache;
use crate::stats::exponent;
use crate::units::{Capacity, Nanos};
use crate::view::{Row, View};
use crate::worker::{Goal, Item};

/// The study.
pub const STUDY: Study = Study {
    name: "attention",
    question: "what does flash attention save?",
    precisions: &[Precision::F32],
    mix: super::Kind::Read,
    grid,
    tell,
};

/// Attention of one kind over the length of its sequences.
struct Kind {
    name: &'static str,
    kv_heads: u64,
    head_dim: u64,
    causal: bool,
    /// One query that sees all keys, instead of as many queries as keys.
    decode: bool,
    lengths: &'static [u64],
}

/// Sequences and heads of queries of all kinds: so many that tensors take 64 MiB at lengths that a CPU computes in time.
const BATCH: u64 = 10;
const HEADS: u64 = 8;

const fn kind(name: &'static str, kv_heads: u64, head_dim: u64, lengths: &'static [u64]) -> Kind {
    Kind { name, kv_heads, head_dim, causal: false, decode: false, lengths }
}

/// The kernel whose groups share the keys of one query.
const SPLIT: &str = "flash_decode";
/// Lengths of the other prefills.
const OTHERS: &[u64] = &[256, 1024];

/// The first is what growth is fitted on, and the picture shows.
const KINDS: [Kind; 8] = [
    kind("prefill, heads of 64", HEADS, 64, &[256, 512, 768, 1024, 2048, 4096, 8192, 16384, 32768]),
    Kind { decode: true, ..kind("decode", HEADS, 64, &[1024, 4096]) },
    Kind { decode: true, ..kind("decode, 4 queries a key (GQA)", HEADS / 4, 64, &[1024, 4096]) },
    Kind { decode: true, ..kind("decode, 8 queries a key (MQA)", 1, 64, &[1024, 4096]) },
    Kind { causal: true, ..kind("prefill, causal", HEADS, 64, OTHERS) },
    kind("prefill, 4 queries a key (GQA)", HEADS / 4, 64, OTHERS),
    kind("prefill, 8 queries a key (MQA)", 1, 64, OTHERS),
    kind("prefill, heads of 128", HEADS, 128, OTHERS),
];

impl Kind {
    fn op(&self, length: u64) -> Result<Arc<dyn Op>> {
        let queries = if self.decode { 1 } else { length };
        (op::find("attention")?.parse)(
            &json!({"batch": BATCH, "heads": HEADS, "kv_heads": self.kv_heads, "seq_q": queries, "seq_kv": length,
            "head_dim": self.head_dim, "causal": self.causal}),
        )
    }

    /// Prefill is bound by arithmetic, so it need not rotate through sets; decode reads its keys once.
    fn cache(&self) -> Cache {
        if self.decode { Cache::Cold } else { Cache::Warm }
    }

    /// Its kernels on a device, most telling first: one query leaves too few groups unless its keys are split.
    fn kernels(&self, language: Language) -> Result<Vec<&'static str>> {
        let variants = self.op(self.lengths[0])?.variants();
        let splits = variants.iter().any(|variant| variant.name == SPLIT && variant.has(language, Precision::F32));
        Ok(if self.decode && splits { vec!["flash", SPLIT, "naive"] } else { vec!["flash", "naive"] })
    }

    fn row<'a>(&self, view: &'a View, length: u64, variant: &str) -> Option<&'a Row> {
        let problem = self.op(length).ok()?.problem();
        view.rows.iter().find(|row| row.op == "attention" && row.problem == problem && row.variant == variant && row.time_ns.is_some())
    }

    /// Lengths at which both kernels were measured, with the naive row first.
    fn both<'a>(&'a self, view: &'a View) -> impl Iterator<Item = (u64, &'a Row, &'a Row)> {
        self.lengths.iter().filter_map(move |&length| Some((length, self.row(view, length, "naive")?, self.row(view, length, "flash")?)))
    }
}

fn grid(setting: &Setting<'_>) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (at, kind) in KINDS.iter().enumerate() {
        let kernels = kind.kernels(setting.device.language)?;
        // A length of all kernels before the next: what is cut short compares them as far as it comes.
        for &length in kind.lengths {
            for &variant in kernels.iter().filter(|&&variant| wanted(setting.size, at, length, variant == "naive")) {
                items.push(Item { goal: Goal::Measure(setting.brief()), ..setting.item(&*kind.op(length)?, variant, kind.cache()) });
            }
        }
    }
    Ok(items)
}

/// Whether a size has this length of the kind at this place, so that there is time for all kinds: what keeps its scores takes the longest.
fn wanted(size: Size, at: usize, length: u64, naive: bool) -> bool {
    let (first, last) = (KINDS[at].lengths.first() == Some(&length), KINDS[at].lengths.last() == Some(&length));
    match (size, at) {
        (Size::Large, _) | (Size::Standard, 0) => true,
        (Size::Small, 0) => length <= if naive { 1024 } else { 2048 },
        (Size::Small, _) => first,
        (Size::Standard, _) if KINDS[at].decode => last,
        (Size::Standard, _) => first || !naive,
    }
}

const COLUMNS: [Column; 10] = [
    Column::left("attention").shrinks(21),
    Column::right("tokens"),
    Column::left("kernel"),
    Column::right("time"),
    Column::right("FLOP/s"),
    Column::right("moved"),
    Column::right("peak memory").titled("peak"),
    Column::right("planned").drops(1),
    Column::left("limited by").shrinks_before_tail(14).drops(2),
    Column::left("check"),
];

/// What growth is fitted on, by length.
struct Growth {
    /// Peak memory over 64 MiB of flash.
    flash: Vec<(f64, f64)>,
    /// What naive takes beyond it.
    extra: Vec<(f64, f64)>,
    /// Times of flash and of naive where sequences are long.
    times: [Vec<(f64, f64)>; 2],
}

impl Growth {
    fn of(view: &View) -> Growth {
        let kind = &KINDS[0];
        let counts = |&(_, bytes): &(f64, f64)| bytes > FITTED as f64;
        let peak = |row: &Row| row.peak_bytes.map(|bytes| bytes as f64);
        let flash = kind.lengths.iter().filter_map(|&length| Some((length as f64, peak(kind.row(view, length, "flash")?)?)));
        let extra = kind.both(view).filter_map(|(length, naive, flash)| Some((length as f64, peak(naive)? - peak(flash)?)));
        let long = || kind.lengths.iter().filter(|&&length| length >= LONG);
        let times = |variant: &str| long().filter_map(|&length| Some((length as f64, median(kind.row(view, length, variant)?)))).collect();
        Growth { flash: flash.filter(counts).collect(), extra: extra.filter(counts).collect(), times: ["flash", "naive"].map(times) }
    }

    /// Lines of the table.
    fn cells(&self) -> Vec<Vec<String>> {
        let fitted = |name: &str, column: usize, points: &[(f64, f64)]| {
            let exponent = exponent(points)?;
            let mut cells = vec![String::new(); COLUMNS.len()];
            (cells[0], cells[2]) = (format!("growth over {} lengths", points.len()), name.into());
            cells[column] = format!("n^{exponent:.3}");
            Some(cells)
        };
        let [flash, naive] = &self.times;
        let all = [("flash", 3, flash), ("naive", 3, naive), ("flash", 6, &self.flash), ("naive's extra", 6, &self.extra)];
        all.into_iter().filter_map(|(name, column, points)| fitted(name, column, points)).collect()
    }
}

fn tell(view: &View) -> Telling {
    let growth = Growth::of(view);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for kind in &KINDS {
        let found =
            kind.lengths.iter().flat_map(|&length| ["naive", "flash", SPLIT].map(|variant| (length, kind.row(view, length, variant))));
        rows.extend(found.filter_map(|(length, row)| Some(cells(kind, length, row?))));
    }
    rows.extend(growth.cells());
    let told = [saved(view), because(view), grown(&growth), slowed(&growth), refused(view), agreed(view), masked(view), split(view)];
    let sentences = told.into_iter().flatten().chain(shared(view)).collect();
    Telling { sentences, grid: Grid { columns: COLUMNS.to_vec(), rows }, figure: figure(view) }
}

fn cells(kind: &Kind, length: u64, row: &Row) -> Vec<String> {
    vec![
        kind.name.into(),
        length.to_string(),
        row.kernel(),
        Nanos(median(row)).to_string(),
        row.flop_per_s.map_or(String::new(), counted_rate),
        Capacity(row.bytes_moved).to_string(),
        row.peak_bytes.map_or("?".into(), |bytes| Capacity(bytes).to_string()),
        Capacity(planned(row)).to_string(),
        row.limited_by(),
        check(row).into(),
    ]
}

/// Bytes of one set as planned: tensors and scratch.
fn planned(row: &Row) -> u64 {
    row.bytes_compulsory + row.workspace_bytes
}

/// The verdict, at the greatest length that both kernels reached.
fn saved(view: &View) -> Option<String> {
    let (length, naive, flash) = KINDS[0].both(view).last()?;
    let ratio = |of: fn(&Row) -> u64| of(naive) as f64 / of(flash) as f64;
    let time = time_saved(median(naive) / median(flash));
    Some(format!(
        "At {length} tokens flash takes {time}, moves {:.0} times fewer bytes and needs {:.0} times less memory than naive, for the same FLOPs.",
        ratio(|row| row.bytes_moved),
        ratio(planned)
    ))
}

/// Whether what naive moves is why it takes longer, at the same length.
fn because(view: &View) -> Option<String> {
    let (_, naive, flash) = KINDS[0].both(view).last()?;
    let ratio = median(naive) / median(flash);
    if ratio < 1.0 || same_time(ratio) {
        return None;
    }
    let (_, (_, byte_per_s)) = peaks(view, STUDY.mix)?;
    let moving = 1e9 * naive.bytes_moved as f64 / byte_per_s / median(naive);
    let cause = match moving {
        share if is_most(share) => "traffic is why",
        share if is_little(share) => "traffic is not why here",
        _ => "traffic is a part of why",
    };
    let limiter = clear_limiter(naive).map_or("no one resource explains its time".into(), |limiter| format!("its limiter is {limiter}"));
    let moving = portion(moving, "naive's time");
    Some(format!("As to time, {cause}: from DRAM all bytes that naive moves would take {moving}, and {limiter}."))
}

fn slowed(growth: &Growth) -> Option<String> {
    let [flash, naive] = growth.times.each_ref().map(|points| exponent(points).map(power));
    Some(format!("Time grows, from {LONG} tokens on, to the power of {} with flash and {} with naive.", flash?, naive?))
}

fn grown(growth: &Growth) -> Option<String> {
    let (flash, extra) = (exponent(&growth.flash)?, exponent(&growth.extra)?);
    Some(format!(
        "Peak memory, seen from outside, grows with the length to the power of {} with flash; what naive takes beyond it grows to the power of {}.",
        power(flash),
        power(extra)
    ))
}

/// The first length whose scores no memory of this device holds.
fn refused(view: &View) -> Option<String> {
    let device = &view.header.device;
    KINDS[0].lengths.iter().find_map(|&length| {
        match KINDS[0].op(length).ok()?.plan("naive", Precision::F32, device.language, &Tuned::default(), device) {
            Err(Error::OutOfMemory { need, .. }) => {
                Some(format!("At {length} tokens naive no longer fits this device: its plan needs {}.", Capacity(need)))
            }
            _ => None,
        }
    })
}

/// Whether memory seen from outside was another than planned.
fn unlike_plan(row: &Row) -> bool {
    row.reasons.iter().any(|reason| reason.contains("peak memory was"))
}

fn agreed(view: &View) -> Option<String> {
    let weighed: Vec<&Row> = view.rows.iter().filter(|row| row.peak_bytes.is_some()).collect();
    let off = weighed.iter().filter(|row| unlike_plan(row)).count();
    match (weighed.len(), off) {
        (0, _) => None,
        (_, 0) => Some("Wherever it was measured, memory seen from outside is what was planned, within 2 % and 8 MiB.".into()),
        (all, off) => {
            Some(format!("In {off} of {all} rows memory seen from outside differs from what was planned by more than 2 % and 8 MiB."))
        }
    }
}

/// What a causal mask saves of the time of each kernel, each at the greatest length that it was measured at with and without.
fn masked(view: &View) -> Option<String> {
    let causal = KINDS.iter().find(|kind| kind.causal)?;
    let faster = |variant: &str| {
        causal.lengths.iter().rev().find_map(|&length| {
            let (whole, masked) = (KINDS[0].row(view, length, variant)?, causal.row(view, length, variant)?);
            Some(format!("{} at {length} tokens", time_saved(median(whole) / median(masked))))
        })
    };
    let naive = faster("naive").map_or(String::new(), |faster| format!(", naive, which computes them, {faster}"));
    Some(format!("A causal mask halves the FLOPs: flash, which leaves masked tiles out, takes {}{naive}.", faster("flash")?))
}

/// What splitting the keys saves when one token is generated, at the greatest length of the first such kind that has it.
fn split(view: &View) -> Option<String> {
    let of = |kind: &'static Kind| kind.lengths.iter().rev().find_map(|&length| Some((kind, length, kind.row(view, length, SPLIT)?)));
    let (kind, length, split) = KINDS.iter().filter(|kind| kind.decode).find_map(of)?;
    let against = |variant: &str| Some(time_against(median(kind.row(view, length, variant)?) / median(split), variant));
    let told: Vec<String> = ["flash", "naive"].into_iter().filter_map(against).collect();
    let told = Some(told.join(" and ")).filter(|told| !told.is_empty())?;
    Some(format!("For a token generated after {length} others {SPLIT}, which splits the keys over groups, takes {told}."))
}

/// What shared keys save when one token is generated, by the fastest kernel that keeps no scores.
fn shared(view: &View) -> Option<String> {
    let decodes: Vec<&Kind> = KINDS.iter().filter(|kind| kind.decode).collect();
    let [own, grouped, .., one] = decodes.as_slice() else { return None };
    let fused = |kind: &Kind, length| {
        let sound = ["flash", SPLIT].into_iter().filter_map(|variant| kind.row(view, length, variant)).filter(|row| check(row) == "ok");
        sound.map(median).min_by(f64::total_cmp)
    };
    let length = *own.lengths.iter().rev().find(|&&length| decodes.iter().all(|kind| fused(kind, length).is_some()))?;
    let faster = |kind: &Kind| Some(time_saved(fused(own, length)? / fused(kind, length)?));
    Some(format!(
        "Generating a token means reading all keys and values: shared by 4 queries they take {}, by 8 {}.",
        faster(grouped)?,
        faster(one)?
    ))
}

/// Memory and time over length.
fn figure(view: &View) -> Figure {
    let kind = &KINDS[0];
    let line = |name: &str, look, family, marks| Line { name: name.into(), look, family, marks };
    let measured = |family: usize, variant: &str, of: &dyn Fn(&Row) -> Option<(f64, bool)>| {
        let mark = |&length: &u64| {
            let (y, doubted) = of(kind.row(view, length, variant)?)?;
            Some(Mark { doubted, ..Mark::at(length as f64, y) })
        };
        line(variant, Look::Measured, family, kind.lengths.iter().filter_map(mark).collect())
    };
    let device = &view.header.device;
    let plan = |family: usize, variant: &str| {
        let planned = |&length: &u64| {
            let plan = kind.op(length).ok()?.plan(variant, Precision::F32, device.language, &Tuned::default(), device);
            let bytes = match plan {
                Ok(plan) => plan.set_bytes(),
                Err(Error::OutOfMemory { need, .. }) => need,
                Err(_) => return None,
            };
            Some(Mark::at(length as f64, bytes as f64))
        };
        line(&format!("{variant}, planned"), Look::Predicted, family, kind.lengths.iter().filter_map(planned).collect())
    };
    let ends = [kind.lengths.first(), kind.lengths.last()].into_iter().flatten();
    let memory = ends.map(|&length| Mark::at(length as f64, device.memory_bytes as f64)).collect();
    // A machine that changed its speed changed no memory.
    let peak = |row: &Row| row.peak_bytes.map(|bytes| (bytes as f64, unlike_plan(row)));
    let x = Axis { name: "Tokens of a sequence", quantity: Quantity::Count };
    let space = Panel {
        x,
        y: Axis { name: "Peak memory of one launch, from outside", quantity: Quantity::Bytes },
        lines: vec![
            line("memory of the device", Look::Roof, 0, memory),
            plan(1, "naive"),
            plan(0, "flash"),
            Line { name: String::new(), ..measured(1, "naive", &peak) },
            Line { name: String::new(), ..measured(0, "flash", &peak) },
        ],
    };
    let time = |row: &Row| row.time_ns.map(|time| (time.median, check(row) != "ok"));
    let time = Panel {
        x,
        y: Axis { name: "Time of one launch", quantity: Quantity::Time },
        lines: vec![measured(1, "naive", &time), measured(0, "flash", &time)],
    };
    Figure { title: format!("Attention over the length of a sequence: {BATCH} sequences, {HEADS} heads of 64"), panels: vec![space, time] }
}
