//! The documents are true: the README's result block, its study's verdict and its table of CUDA kernels are what the committed records
//! that they name say, and METHODOLOGY's list of kernels that have never run on a GPU is the registry minus the committed records.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rooftrace::backend::host;
use rooftrace::op;
use rooftrace::plan::{DeviceKind, Language, Precision, Tunable, Tuned, VariantInfo};
use rooftrace::record::{self, Record, State};
use rooftrace::units::{ByteRate, FlopRate, Nanos};
use rooftrace::view::View;
use serde_json::json;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn block(text: &str, name: &str) -> String {
    let after = text.split(&format!("<!-- {name}:begin -->")).nth(1).unwrap_or_else(|| panic!("a block '{name}'"));
    after.split(&format!("<!-- {name}:end -->")).next().unwrap_or_default().to_string()
}

/// What `rooftrace show` prints of a record.
fn shown(form: &str, record: &str) -> String {
    let program = env!("CARGO_BIN_EXE_rooftrace");
    let output = Command::new(program).args(["show", form]).arg(root().join(record)).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_result_block_is_what_the_program_prints_from_its_record() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let block = block(&readme, "results");
    let record = block.lines().find_map(|line| line.strip_prefix("<!-- from ")?.strip_suffix(" -->"));
    let record = record.expect("the record's name, as `<!-- from results/… -->`");
    let printed = shown("--markdown", record);
    assert!(block.contains(printed.trim()), "run scripts/refresh-readme.sh; the program prints:\n{printed}");
    let picture = record.replace("records.jsonl", "roofline.svg");
    assert!(root().join(&picture).exists() && block.contains(&picture), "the picture {picture} is shown");
}

/// Holds a block of a document to what it is made of, or writes it there with `UPDATE_DOCS=1`.
fn keep(document: &str, name: &str, body: &str) {
    static ONE: Mutex<()> = Mutex::new(()); // tests run side by side
    let _alone = ONE.lock();
    let path = root().join(document);
    let text = std::fs::read_to_string(&path).expect("the document");
    let now = block(&text, name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let marked = |body: &str| format!("<!-- {name}:begin -->{body}<!-- {name}:end -->");
        std::fs::write(&path, text.replace(&marked(&now), &marked(&format!("\n{body}")))).expect("the document is writable");
        return;
    }
    assert_eq!(now.trim(), body.trim(), "run UPDATE_DOCS=1 cargo test --release --test readme");
}

/// Records of an H100, and the problems whose ladders README shows from each.
const LADDERS: &[(&str, &[(&str, &str)])] = &[
    (
        "results/h100-cuda/2026-11-27T0640/records.jsonl",
        &[("matmul", "4096x4096x4096"), ("depthwise", "64x56x56x128 k3"), ("depthwise", "64x56x56x128 k3 s2")],
    ),
    ("results/h100-cuda/2026-11-27T0806/records.jsonl", &[("conv2d", "32x28x28x128>128 k3"), ("attention", "2x16x2048x128 causal")]),
];

#[test]
fn the_table_of_cuda_kernels_is_what_their_records_say() {
    let mut table = String::from("| problem | kernel | time | rate | of its roof | |\n|---|---|---:|---:|---:|---|\n");
    for (file, problems) in LADDERS {
        let view: View = serde_json::from_str(&shown("--json", file)).expect("a view");
        let records = record::read(&root().join(file)).unwrap_or_else(|error| panic!("{error}")).records;
        let hash = |id: &str| {
            records.iter().find_map(|record| match record {
                Record::Measurement(m) if m.id == id => Some(m.source_hash),
                _ => None,
            })
        };
        for &(op, label) in *problems {
            let entry = op::find(op).expect("a listed op");
            for row in view.rows.iter().filter(|row| row.op == op && row.label == label) {
                let (Some(time), Some(share)) = (row.time_ns, row.roof_fraction) else { continue };
                let variant = small(entry).into_iter().find(|v| v.name == row.variant).expect("a listed variant");
                let source = variant.source(Language::Cuda).expect("a CUDA source");
                let now = hash_of(entry, variant.name, Language::Cuda, source.precisions[0], source.tunables);
                let suspect = (row.state != State::Ok).then_some("suspect");
                let notes: Vec<_> = suspect.into_iter().chain((hash(&row.id) != Some(now)).then_some("source changed since")).collect();
                let rate = match op {
                    "depthwise" => ByteRate(row.byte_per_s.unwrap_or(0.0)).to_string(),
                    _ => FlopRate(row.flop_per_s.unwrap_or(0.0)).to_string(),
                };
                let (kernel, time) = (format!("`{}` {}", row.variant, row.precision), Nanos(time.median));
                table += &format!("| {op} {label} | {kernel} | {time} | {rate} | {:.0} % | {} |\n", share * 100.0, notes.join(", "));
            }
        }
    }
    keep("README.md", "cuda", &table);
}

fn small(entry: &op::Entry) -> Vec<VariantInfo> {
    (entry.parse)(&json!({})).expect("the default problem").variants()
}

/// A paragraph as lines of at most 140 characters that begin alike.
fn lines(text: &str, start: &str) -> String {
    let mut lines = vec![String::from(start)];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        let space = if line.is_empty() { "" } else { " " };
        match line.chars().count() + 1 + word.chars().count() <= 140 {
            true => *line += &format!("{space}{word}"),
            false => lines.push(format!("{start}{}{word}", if start.is_empty() { "" } else { " " })),
        }
    }
    lines.join("\n")
}

/// Sentences of a study that the README quotes: the verdict and its reason.
const QUOTED: usize = 2;

#[test]
fn the_quoted_answer_is_what_the_program_tells_of_its_record() {
    let now = block(&std::fs::read_to_string(root().join("README.md")).expect("the README"), "study");
    let record = now.lines().find_map(|line| line.strip_prefix("<!-- from ")?.strip_suffix(" -->"));
    let record = record.expect("the record's name, as `<!-- from results/… -->`");
    let printed = shown("--markdown", record);
    // The question, the device, then the answer: a sentence a line.
    let answer = printed.split("\n\n").nth(2).expect("an answer");
    let told = lines(&answer.lines().take(QUOTED).collect::<Vec<_>>().join(" "), ">");
    let picture = record.replace("records.jsonl", "depthwise.svg");
    assert!(root().join(&picture).exists(), "the picture {picture} is shown");
    let wanted = format!("<!-- from {record} -->\n\n{told}\n\n![depthwise]({picture})\n");
    keep("README.md", "study", &wanted);
}

/// Records below a folder.
fn recorded(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(recorded(&path)),
            false if path.file_name().is_some_and(|name| name == "records.jsonl") => found.push(path),
            false => {}
        }
    }
    found
}

/// Kernels of a file that ran, verified, on a GPU: backend, op and variant, and the hash of what ran.
fn ran_on_a_gpu(path: &Path) -> BTreeSet<(String, String, String, u64)> {
    let records = record::read(path).unwrap_or_else(|error| panic!("{error}")).records;
    let gpu = records.iter().any(|r| matches!(r, Record::Header(h) if h.device.kind == DeviceKind::Gpu && !h.device.simulated));
    let ran = records.into_iter().filter_map(|r| match r {
        Record::Measurement(m) if gpu && m.verification.is_some() => Some((m.backend, m.op, m.variant, m.source_hash)),
        _ => None,
    });
    ran.collect()
}

/// The hash of a variant's source as it is now, which no problem, precision or setting changes.
fn hash_of(entry: &op::Entry, variant: &str, language: Language, precision: Precision, tunables: &[Tunable]) -> u64 {
    let problem = entry.awkward_in(precision).first().map(entry.parse).expect("every kernel has an awkward problem").expect("its fields");
    let tuned = Tuned::all(tunables).into_iter().next().expect("one choice at least");
    problem.plan(variant, precision, language, &tuned, &host::device()).expect("a plan of an awkward problem").source_hash
}

#[test]
fn the_list_of_kernels_that_never_ran_on_a_gpu_is_registry_minus_records() {
    let ran: BTreeSet<_> = recorded(&root().join("results")).iter().flat_map(|path| ran_on_a_gpu(path)).collect();
    let (mut list, mut names) = (String::new(), String::new());
    for (language, backend, folder, suffix) in [(Language::Cuda, "cuda", "kernels", "cu"), (Language::Wgsl, "wgpu", "shaders", "wgsl")] {
        for entry in op::OPS {
            let mut of_op = Vec::new();
            for variant in small(entry) {
                let Some(source) = variant.source(language) else { continue };
                let name = (backend, entry.name, variant.name);
                let of = |(b, o, v, hash): &(String, String, String, u64)| ((b.as_str(), o.as_str(), v.as_str()) == name).then_some(*hash);
                let hashes: Vec<u64> = ran.iter().filter_map(of).collect();
                let note = match hashes.is_empty() {
                    true => "",
                    false if hashes.contains(&hash_of(entry, variant.name, language, source.precisions[0], source.tunables)) => continue,
                    false => " (changed since it ran)",
                };
                of_op.push(variant.name);
                list += &match source.library {
                    Some(library) => format!("- {library} as `{}/{}`{note}\n", entry.name, variant.name),
                    None if source.transfer => format!("- copies as `{}/{}`{note}\n", entry.name, variant.name),
                    None => format!("- `{folder}/{}/{}.{suffix}`{note}\n", entry.name, variant.name),
                };
            }
            if !of_op.is_empty() {
                names += &format!("{backend} {} {}\n", entry.name, of_op.join(", "));
            }
        }
    }
    keep("METHODOLOGY.md", "never-run", &list);
    let unrun = |backend: &str| {
        let of = names.lines().filter_map(|line| line.strip_prefix(backend)?.trim().split_once(' '));
        of.map(|(op, variants)| format!("{op} `{}`", variants.replace(", ", "`, `"))).collect::<Vec<_>>().join("; ")
    };
    let told = format!("Compiled, not yet run on a GPU as they are now: on CUDA {}; in WGSL {}.", unrun("cuda"), unrun("wgpu"));
    keep("README.md", "not-yet-run", &format!("{}\n", lines(&told, "")));
    // The same in short, for `rooftrace devices`.
    let path = root().join("src/cli/never_run.txt");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &names).expect("the list is writable");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("the list"), names, "run UPDATE_DOCS=1 cargo test --release --test readme");
}
