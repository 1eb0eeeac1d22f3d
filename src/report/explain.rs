//! An explanation in words: the arithmetic line by line, what our kernels move, and the conventions behind the figures.

use super::text;
use crate::explain::{CORES, Ceiling, Explanation};
use crate::plan::Language;
use crate::record::State;
use crate::units::{ByteRate, Capacity, FlopRate, Intensity, Nanos};

/// Lines of name and worked value.
fn lines(e: &Explanation) -> Vec<(&'static str, String)> {
    let exact = |value: u64, unit: &str| format!("{} {unit}", grouped(value));
    let mut lines = vec![("work", format!("{} = {}", exact(e.macs, "MAC"), counted(e.flops, "FLOP")))];
    if e.exponentials > 0 {
        lines.push(("exponentials", format!("{}, not among the FLOPs", grouped(e.exponentials))));
    }
    if e.params > 0 {
        lines.push(("parameters", format!("{}: {}", grouped(e.params), parameters(e))));
    }
    lines.push(("activations", format!("{} handed on", grouped(e.activations))));
    lines.push((
        "bytes",
        format!("{} compulsory, each tensor once; {} of them written", exact(e.bytes_compulsory, "B"), Capacity(e.bytes_written)),
    ));
    lines.push(("intensity", format!("{} FLOP / {} B = {} FLOP/B", e.flops, e.bytes_compulsory, Intensity(e.intensity))));
    if let (Some(memory), Some(compute), Some(ridge), Some(bound)) = (e.t_memory_ns, e.t_compute_ns, e.ridge, e.bound) {
        lines.push((
            "T_compute",
            format!(
                "{} = {} / {}{}",
                Nanos(compute),
                counted(e.flops, "FLOP"),
                FlopRate(1e9 * e.flops as f64 / compute),
                compute_by(&e.ceilings)
            ),
        ));
        lines.push((
            "T_memory",
            format!(
                "{} = {} B / {}, {}",
                Nanos(memory),
                grouped(e.bytes_compulsory),
                ByteRate(1e9 * e.bytes_compulsory as f64 / memory),
                memory_by(e)
            ),
        ));
        let (long, short) = (memory.max(compute), memory.min(compute));
        let verdict = match bound {
            "memory" => format!("{:.1} times more reuse would make it compute-bound", long / short),
            _ => format!("memory has {:.1} times the time it needs", long / short),
        };
        lines.push((
            "bound",
            format!("{bound}: {} FLOP/B against a ridge of {} FLOP/B; {verdict}", Intensity(e.intensity), Intensity(ridge)),
        ));
    }
    if let Some(separable) = e.separable_flops {
        let ratio = e.flops as f64 / separable as f64;
        let (c_out, k) = (&e.problem["c_out"], &e.problem["k"]);
        lines.push((
            "separable",
            format!(
                "{} as depthwise and pointwise: {ratio:.2} times fewer, as separable / standard = 1/C_out + 1/k^2 = 1/{c_out} + 1/{k}^2",
                counted(separable, "FLOP")
            ),
        ));
    }
    lines
}

fn compute_by(ceilings: &[Ceiling]) -> String {
    ceilings.first().map_or(String::new(), |ceiling| format!(" ({})", ceiling.name))
}

/// The mix of reads and writes that memory is held to.
fn memory_by(e: &Explanation) -> String {
    let share = format!("{:.0} % written", 100.0 * e.bytes_written as f64 / e.bytes_compulsory.max(1) as f64);
    match e.ceilings.get(1..) {
        Some([one]) => format!("{share}: {}", one.name),
        Some([first, second]) => format!("{share}: between {} and {}", first.name, second.name),
        _ => format!("{share}; as given, for any mix"),
    }
}

/// What a recorded roof is called: the device it is of, when it was measured, and which of what the times stand on is doubted.
pub fn recorded(device: &str, seconds: u64, ceilings: &[Ceiling]) -> String {
    let doubted: Vec<&str> = ceilings.iter().filter(|c| c.state != State::Ok).map(|c| c.name.as_str()).collect();
    let doubt = if doubted.is_empty() { String::new() } else { format!("; SUSPECT: {}", doubted.join(", ")) };
    text::clean(&format!("the roof measured on {device} at {} UTC{doubt}", text::date(seconds)))
}

/// Bytes of all parameters as they are stored, and as they might be.
fn parameters(e: &Explanation) -> String {
    let width = e.precision.storage().bytes();
    let narrow = |width: u64, name: &str| format!("{} in {name}", Capacity(e.params * width));
    let packed = e.params_bytes < e.params * width;
    let widths = [(4, "f32"), (2, "f16 or bf16"), (1, "int8")].into_iter();
    let others: Vec<_> =
        widths.filter(|other| if packed { other.0 > 1 } else { other.0 != width }).map(|(w, name)| narrow(w, name)).collect();
    let stored = match packed {
        true => {
            let bits = crate::units::digits(8.0 * e.params_bytes as f64 / e.params as f64);
            format!("{} in words, with their scales {bits} bits each", Capacity(e.params_bytes))
        }
        false => narrow(width, e.precision.name()),
    };
    format!("{stored} ({})", others.join(", "))
}

/// What is meant, and what is often meant elsewhere.
const CONVENTIONS: &[&str] = &[
    "1 MAC is one multiply and one add: 2 FLOP. A figure half of ours is MACs that were called FLOPs.",
    "Padding taps count; softmax, scaling and index arithmetic do not. Activations are output elements.",
    "Vendors' peaks for matrix units are often for 2:4 sparsity: a dense kernel can reach half of them.",
    "Moved: what all launches read and write, so intermediate tensors show. Requested: distinct bytes of each work-group, default tiles.",
    "Lane: what all lanes' loads and stores name. Counted bytes, by hardware, are for a run to tell. Workspace: scratch of one launch.",
];

fn conventions() -> Vec<String> {
    CONVENTIONS.iter().map(|line| line.to_string()).chain([planned_for()]).collect()
}

/// What host kernels are planned for, whatever machine this is.
fn planned_for() -> String {
    format!("Rows of the host are planned for {CORES} cores with AVX2; no byte depends on this machine.")
}

/// Kernels that do not take this problem, by reason.
fn refused(e: &Explanation) -> Vec<String> {
    let mut reasons: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for r in &e.refused {
        let why = text::clean(&r.why);
        match reasons.iter_mut().find(|(variant, known, _)| *variant == r.variant && *known == why) {
            Some((.., languages)) => languages.push(language(r.language)),
            None => reasons.push((r.variant, why, vec![language(r.language)])),
        }
    }
    reasons.into_iter().map(|(variant, why, languages)| format!("left out: {variant} in {}: {why}", languages.join(", "))).collect()
}

fn language(language: Language) -> &'static str {
    match language {
        Language::Host => "host",
        Language::Wgsl => "wgsl",
        Language::Cuda => "cuda",
    }
}

const HEADERS: [&str; 7] = ["variant", "language", "moved", "requested", "lane", "workspace", "FLOP/B moved"];

fn rows(e: &Explanation) -> Vec<[String; 7]> {
    let row = |v: &crate::explain::VariantCost| {
        let capacity = |bytes: Option<u64>| bytes.map_or("?".into(), |bytes| Capacity(bytes).to_string());
        [
            v.variant.to_string(),
            language(v.language).to_string(),
            Capacity(v.bytes_moved).to_string(),
            capacity(v.bytes_requested),
            capacity(v.bytes_lane),
            if v.workspace_bytes > 0 { Capacity(v.workspace_bytes).to_string() } else { String::new() },
            Intensity(v.intensity_moved).to_string(),
        ]
    };
    e.variants.iter().map(row).collect()
}

/// For a terminal.
pub fn text(e: &Explanation, roof: Option<&str>) -> String {
    let mut out = format!("{}, {}\n\n", title(e), against(roof));
    for (name, value) in lines(e) {
        out += &format!("{name:<13}{value}\n");
    }
    let mut table = vec![HEADERS.map(str::to_string)];
    table.extend(rows(e));
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEADERS.len()).map(width).collect();
    out.push('\n');
    for row in &table {
        let cell =
            |(at, text): (usize, &String)| if at < 2 { format!("{text:<0$}", widths[at]) } else { format!("{text:>0$}", widths[at]) };
        let line: Vec<String> = row.iter().enumerate().map(cell).collect();
        out += &format!("{}\n", line.join("  ").trim_end());
    }
    refused(e).iter().for_each(|line| out += &format!("{line}\n"));
    out + "\n" + &conventions().iter().map(|line| format!("{line}\n")).collect::<String>()
}

/// The same as Markdown.
pub fn markdown(e: &Explanation, roof: Option<&str>) -> String {
    let mut out = format!("**{}**, {}\n\n| | |\n|---|---|\n", title(e), against(roof));
    for (name, value) in lines(e) {
        out += &format!("| {name} | {value} |\n");
    }
    out += &format!("\n| {} |\n|---|---|---:|---:|---:|---:|---:|\n", HEADERS.join(" | "));
    for row in rows(e) {
        out += &format!("| {} |\n", row.join(" | "));
    }
    out + "\n" + &refused(e).into_iter().chain(conventions()).map(|line| format!("- {line}\n")).collect::<String>()
}

fn title(e: &Explanation) -> String {
    format!("{} {} in {}", e.op, e.label, e.precision)
}

fn against(roof: Option<&str>) -> String {
    match roof {
        Some(roof) => format!("against {roof}"),
        None => "against no roof: give --roof FILE, or --peak and --bandwidth".into(),
    }
}

/// `231,211,008`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `231.2 MFLOP`.
fn counted(value: u64, unit: &str) -> String {
    let steps = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match steps.iter().find(|(scale, _)| value as f64 >= *scale) {
        Some((scale, prefix)) => format!("{:.1} {prefix}{unit}", value as f64 / scale),
        None => format!("{value} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_and_scaled() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_000), grouped(231_211_008)),
            ("0".into(), "999".into(), "1,000".into(), "231,211,008".into())
        );
        assert_eq!((counted(999, "FLOP"), counted(231_211_008, "FLOP")), ("999 FLOP".into(), "231.2 MFLOP".into()));
    }
}
