//! Kernel files and the registry's table agree, and every WGSL source is valid for every set of tunables. Needs no device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rooftrace::backend::host;
use rooftrace::op::{self, Op};
use rooftrace::plan::{Code, DeviceInfo, DeviceKind, Direction, Language, Library, Precision, SourceInfo, Tuned, Unit, VariantInfo};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every (op, variant, source) of the table that is a text.
fn listed() -> Vec<(&'static str, VariantInfo, SourceInfo)> {
    let mut all = Vec::new();
    for entry in op::OPS {
        for variant in small_problem(entry).variants() {
            for source in variant.sources.clone() {
                if source.is_text() {
                    all.push((entry.name, variant.clone(), source));
                }
            }
        }
    }
    all
}

/// One that every variant takes.
fn small_problem(entry: &op::Entry) -> Arc<dyn Op> {
    (entry.parse)(&(entry.awkward)()[0]).expect("awkward problems are legal")
}

/// A source as mutants find it: with what it includes.
fn compiled(op: &str, variant: &VariantInfo, source: &SourceInfo) -> String {
    let problem = small_problem(op::find(op).expect("a listed op"));
    let plan = problem.plan(variant.name, source.precisions[0], source.language, &Tuned::default(), &host::device());
    match plan.expect("it has this source").code {
        Code::Cuda { text, .. } | Code::Wgsl(text) => text,
        _ => source.text.into(),
    }
}

/// `kernels/matmul/naive.cu`, `shaders/matmul/naive.wgsl`.
fn file_of(op: &str, variant: &str, language: Language) -> PathBuf {
    match language {
        Language::Cuda => Path::new("kernels").join(op).join(format!("{variant}.cu")),
        _ => Path::new("shaders").join(op).join(format!("{variant}.wgsl")),
    }
}

fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the kernel folders are there") {
        let path = entry.expect("their entries can be read").path();
        if path.is_dir() {
            files_under(&path, found);
        } else {
            found.push(path.strip_prefix(root()).expect("it is under the root").to_path_buf());
        }
    }
}

/// Text without comments and spacing.
fn bare(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        kept.push_str(&rest[..start]);
        rest = rest[start..].find("*/").map_or("", |end| &rest[start + end + 2..]);
    }
    kept.push_str(rest);
    let code = kept.lines().map(|line| line.split("//").next().unwrap_or(""));
    code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_table_entry_is_the_text_of_its_file() {
    for (op, variant, source) in listed() {
        let file = file_of(op, variant.name, source.language);
        let text = std::fs::read_to_string(root().join(&file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(text, source.text, "{op}/{} does not embed {}", variant.name, file.display());
    }
}

#[test]
fn every_kernel_file_is_in_the_table() {
    let listed: Vec<PathBuf> = listed().iter().map(|(op, variant, source)| file_of(op, variant.name, source.language)).collect();
    let mut files = Vec::new();
    files_under(&root().join("kernels"), &mut files);
    files_under(&root().join("shaders"), &mut files);
    assert!(files.len() >= listed.len());
    for file in files {
        // The fill kernels, the one that reads clocks, and what stands before or in several sources.
        let shared = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(|stem| ["draw", "clock", "numbers", "warp", "warpgroup", "barrier", "ring", "fused"].contains(&stem));
        assert!(shared || listed.contains(&file), "{} belongs to no variant", file.display());
    }
}

#[test]
fn no_two_sources_are_equal_but_for_comments() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (op, variant, source) in listed() {
        let name = format!("{op}/{} in {:?}", variant.name, source.language);
        let code = bare(source.text);
        assert!(!code.is_empty(), "{name} has no code");
        if let Some(other) = seen.insert(code, name.clone()) {
            panic!("{name} and {other} are the same program");
        }
    }
}

#[test]
fn every_tunable_is_used_by_its_source() {
    for (op, variant, source) in listed() {
        let code = bare(&compiled(op, &variant, &source));
        for tunable in source.tunables {
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            // A mention in an assertion alone would not be a use.
            let uses = words.filter(|word| *word == tunable.name).count();
            assert!(uses >= 2, "{op}/{} in {:?} declares {} and does not use it", variant.name, source.language, tunable.name);
        }
    }
}

#[test]
fn names_are_unique_and_every_variant_has_a_source() {
    for entry in op::OPS {
        let variants = small_problem(entry).variants();
        for (at, variant) in variants.iter().enumerate() {
            assert!(!variant.sources.is_empty(), "{}/{} has no source", entry.name, variant.name);
            assert!(variants[..at].iter().all(|other| other.name != variant.name), "{}/{} is listed twice", entry.name, variant.name);
            for (at, source) in variant.sources.iter().enumerate() {
                assert!(variant.sources[..at].iter().all(|other| other.language != source.language));
                assert!(!source.precisions.is_empty());
            }
        }
    }
}

#[test]
fn a_reference_is_a_library_s_alone_named_after_it_behind_all_of_ours() {
    let mut references = 0;
    for entry in op::OPS {
        let variants = small_problem(entry).variants();
        for (at, variant) in variants.iter().enumerate() {
            assert_eq!(variant.library().is_some(), variant.unit == Unit::Library, "{}/{}", entry.name, variant.name);
            let Some(library) = variant.library() else { continue };
            references += 1;
            assert_eq!((variant.name, Library::find(variant.name)), (library.key(), Some(library)));
            assert!(variant.sources.len() == 1 && variant.sources[0].text.is_empty() && variant.sources[0].tunables.is_empty());
            assert!(variants[at..].iter().all(|later| later.library().is_some()), "{} has a kernel behind its references", entry.name);
            let ours = |&precision: &_| variants.iter().any(|v| v.library().is_none() && v.has(Language::Cuda, precision));
            assert!(variant.sources[0].precisions.iter().all(ours), "{}/{} has nothing of ours beside it", entry.name, variant.name);
            let plan = small_problem(entry).plan(
                variant.name,
                variant.sources[0].precisions[0],
                Language::Cuda,
                &Tuned::default(),
                &host::device(),
            );
            let plan = plan.expect("it has this source");
            let call = plan.library().expect("it calls a library");
            assert_eq!((call.library, plan.cost.workspace), (library, call.workspace));
            assert!(serde_json::to_value(&plan).is_ok_and(|json| json["code"]["Library"]["library"] == library.key()));
        }
    }
    assert_eq!(references, 4);
}

#[test]
fn a_copy_is_a_probe_s_alone_in_cuda_with_no_text_both_ways_and_counts_each_byte_once() {
    let mut copies = Vec::new();
    for entry in op::OPS {
        let variants = small_problem(entry).variants();
        for variant in variants.iter().filter(|variant| variant.sources.iter().any(|source| source.transfer)) {
            copies.push((entry.name, variant.name));
            assert!(entry.role == op::OpRole::Probe && variants.len() == 1 && variant.unit == Unit::Memory, "{}", entry.name);
            let [source] = &variant.sources[..] else { panic!("{}/{} has other sources", entry.name, variant.name) };
            assert!(source.language == Language::Cuda && source.text.is_empty() && source.tunables.is_empty() && source.library.is_none());
            assert!(!source.is_text() && source.precisions == [Precision::F32]);
            let mut ways = Vec::new();
            for fields in (entry.awkward)() {
                let problem = (entry.parse)(&fields).expect("awkward problems are legal");
                let plan = problem.plan(variant.name, Precision::F32, Language::Cuda, &Tuned::default(), &host::device());
                let plan = plan.expect("it has this source");
                let Code::Transfer(direction) = plan.code else { panic!("{fields} is no copy") };
                let bytes = plan.tensors[0].bytes();
                assert_eq!((plan.tensors.len(), plan.output(), plan.tensors[1].bytes()), (2, 1, bytes));
                let written = if direction == Direction::Down { bytes } else { 0 };
                assert_eq!(
                    (plan.cost.compulsory, plan.cost.moved, plan.cost.written, plan.cost.macs),
                    (bytes, bytes, written, 0),
                    "{fields}"
                );
                assert!(serde_json::to_value(&plan).is_ok_and(|json| json["code"]["Transfer"] == direction.name()));
                ways.push(direction);
            }
            assert!(Direction::ALL.iter().all(|way| ways.contains(way)), "{ways:?}");
        }
    }
    assert_eq!(copies, [("transfer", "copied")]);
}

fn validate(named: &str, text: &str) -> naga::Module {
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{named}: {}", e.emit_to_string(text)));
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    validator.validate(&module).unwrap_or_else(|e| panic!("{named}: {}", e.emit_to_string(text)));
    module
}

#[test]
fn every_wgsl_source_is_valid_for_every_tunable_set_and_precision() {
    let device = host::device();
    let mut validated = 0;
    for entry in op::OPS {
        let problem = small_problem(entry);
        for variant in problem.variants() {
            let Some(source) = variant.source(Language::Wgsl) else { continue };
            for &precision in source.precisions {
                for tuned in Tuned::all(source.tunables) {
                    let named = format!("{}/{} {precision} {tuned:?}", entry.name, variant.name);
                    let plan = problem.plan(variant.name, precision, Language::Wgsl, &tuned, &device);
                    let plan = plan.unwrap_or_else(|e| panic!("{named}: {e}"));
                    let Code::Wgsl(text) = &plan.code else { panic!("{named} rendered no WGSL") };
                    let module = validate(&named, text);
                    for dispatch in &plan.dispatches {
                        let point = module.entry_points.iter().find(|point| point.name == dispatch.entry);
                        let point = point.unwrap_or_else(|| panic!("{named} has no entry point {}", dispatch.entry));
                        assert_eq!(point.workgroup_size, dispatch.block, "{named}: the plan's block is not the source's");
                        assert_eq!(dispatch.shared_bytes, workgroup_bytes(&module), "{named}: workgroup memory");
                    }
                    validated += 1;
                }
            }
        }
    }
    assert!(validated >= 40, "only {validated} sources were validated");
}

/// Workgroup memory that a module declares, in bytes.
fn workgroup_bytes(module: &naga::Module) -> u32 {
    let workgroup = module.global_variables.iter().filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup);
    workgroup.map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx())).sum()
}

#[test]
fn the_fill_kernel_is_valid() {
    validate("draw", include_str!("../shaders/draw.wgsl"));
}

#[test]
fn every_entry_point_of_a_shader_is_reached_by_an_awkward_problem() {
    let device = host::device();
    for entry in op::OPS {
        let problems: Vec<_> = (entry.awkward)().iter().map(|fields| (entry.parse)(fields).expect("awkward problems are legal")).collect();
        for variant in problems[0].variants() {
            let Some(source) = variant.source(Language::Wgsl) else { continue };
            let plan = |problem: &Arc<dyn Op>| {
                problem.plan(variant.name, source.precisions[0], Language::Wgsl, &Tuned::default(), &device).expect("it has this source")
            };
            let plans: Vec<_> = problems.iter().map(plan).collect();
            let Code::Wgsl(text) = &plans[0].code else { continue };
            for point in validate(variant.name, text).entry_points {
                let reached = plans.iter().any(|plan| plan.dispatches.iter().any(|d| d.entry == point.name));
                assert!(reached, "no awkward problem of {} reaches entry {} of {}", entry.name, point.name, variant.name);
            }
        }
    }
}

#[test]
fn requested_bytes_are_at_least_moved_and_moved_at_least_compulsory() {
    let device = host::device();
    for entry in op::OPS {
        let grid = entry.grid(op::Size::Standard, &device);
        for fields in (entry.awkward)().iter().chain(&grid) {
            let problem = (entry.parse)(fields).expect("registry problems are legal");
            for variant in problem.variants() {
                for source in &variant.sources {
                    for &precision in source.precisions {
                        let Ok(plan) = problem.plan(variant.name, precision, source.language, &Tuned::default(), &device) else { continue };
                        let cost = plan.cost;
                        let named = format!("{}/{} in {:?} on {fields}: {cost:?}", entry.name, variant.name, source.language);
                        assert!(cost.moved >= cost.compulsory, "{named}");
                        if source.library.is_some() {
                            assert_eq!((cost.requested, cost.lane), (None, None), "{named}");
                            continue;
                        }
                        assert!(cost.lane >= cost.requested, "{named}");
                        assert!(cost.requested >= Some(cost.moved), "{named}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_mutant_finds_its_text_exactly_once_and_every_source_has_at_least_three() {
    use rooftrace::mutant;
    for entry in op::OPS {
        for variant in small_problem(entry).variants() {
            for source in variant.sources.iter().filter(|s| s.is_text()) {
                let own: Vec<_> =
                    mutant::all().filter(|m| (m.op, m.variant, m.language) == (entry.name, variant.name, source.language)).collect();
                assert!(own.len() >= 3, "{}/{} in {:?} has {} mutants", entry.name, variant.name, source.language, own.len());
                let text = compiled(entry.name, &variant, source);
                for mutant in own {
                    let found = text.matches(mutant.find).count();
                    assert_eq!(found, 1, "{}/{} {:?}: '{}'", entry.name, variant.name, source.language, mutant.name);
                }
            }
        }
    }
}

#[test]
fn every_size_on_every_kind_of_device_has_named_problems_of_every_kernel_op() {
    for layer in op::LAYERS {
        let entry = op::find(layer.op).expect("a layer's op");
        let problem = layer.problem(entry).unwrap_or_else(|| panic!("{} '{}' is refused", layer.op, layer.name));
        assert_eq!(op::layer_name(layer.op, &problem), Some(layer.name), "two names for {problem}");
    }
    let kernels = op::OPS.iter().filter(|entry| entry.role == op::OpRole::Kernel);
    for entry in kernels {
        for size in [op::Size::Small, op::Size::Standard, op::Size::Large] {
            for kind in [DeviceKind::Cpu, DeviceKind::Gpu] {
                let grid = entry.grid(size, &DeviceInfo { kind, ..host::device() });
                let twice = grid.iter().enumerate().any(|(at, problem)| grid[..at].contains(problem));
                assert!(!grid.is_empty() && !twice, "{} at {size:?} on {kind:?}: {grid:?}", entry.name);
            }
        }
    }
}
