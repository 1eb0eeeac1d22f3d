//! Shared memory sized at launch: a kernel that is given less than it uses is refused, however little is missing.

use rooftrace::backend::host;
use rooftrace::draw::Draw;
use rooftrace::op::Entry;
use rooftrace::plan::{Language, Precision, Tuned, VariantInfo};

use super::cases::{Case, cases, module, plan};
use super::harness::{Job, Program, build, compiler, folder, side_by_side, skipped};
use super::variants;

/// Too few by two vectors, as a kernel that aligns its tiles by itself asks for 16 bytes more than it may need; and by the smallest stage.
const MISSING: [u32; 2] = [32, 8 << 10];

/// Whether any launch of this variant is given shared memory.
fn sized_at_launch(entry: &Entry, variant: &VariantInfo, precision: Precision) -> bool {
    (entry.awkward)().iter().any(|fields| {
        let op = (entry.parse)(fields).expect("awkward problems are legal");
        let plan = op.plan(variant.name, precision, Language::Cuda, &Tuned::default(), &host::device());
        plan.is_ok_and(|plan| plan.dispatches.iter().any(|dispatch| dispatch.dynamic_bytes > 0))
    })
}

/// What becomes of a case whose launches are given so many bytes too few.
fn short(program: &Program, folder: &std::path::Path, case: &Case, variant: &str, missing: u32) -> Result<(), String> {
    let jobs = case.jobs("m", &plan(case, variant, &Tuned::default()), 0).into_iter();
    let jobs: Vec<Job> = jobs.map(|job| Job { dynamic_bytes: job.dynamic_bytes.saturating_sub(missing), ..job }).collect();
    program.run(&jobs).into_iter().collect::<Result<(), _>>()?;
    case.verdict(folder)
}

#[test]
fn a_plan_that_gives_too_little_shared_memory_is_refused() {
    let Some(cxx) = compiler() else { return skipped("shared memory sized at launch") };
    let precision = |variant: &VariantInfo| variant.source(Language::Cuda).expect("filtered").precisions[0];
    let mut given = variants();
    given.retain(|(entry, variant)| sized_at_launch(entry, variant, precision(variant)));
    assert!(given.len() >= 5, "{} variants", given.len());
    side_by_side(&given, |(entry, variant)| {
        let folder = folder(&format!("pool-{}-{}", entry.name, variant.name));
        let mut cases = cases(&folder, entry, &[precision(variant)]);
        cases.retain(|case| case.draw == Draw::Dense);
        let plans: Vec<_> = cases.iter().map(|case| plan(case, variant.name, &Tuned::default())).collect();
        let program = build(&cxx, &folder, &[module("m".into(), &plans)]).unwrap_or_else(|log| panic!("{log}"));
        let refused = |case: &Case, missing: u32| short(&program, &folder, case, variant.name, missing).err();
        let named = format!("{}/{}", entry.name, variant.name);
        // A ring of more stages than there are tiles is not filled: some problem has to find it.
        for missing in MISSING {
            let why = cases.iter().find_map(|case| refused(case, missing));
            assert!(why.as_ref().is_some_and(|why| why.contains("past what the launch gives")), "{named}, {missing} too few: {why:?}");
        }
        assert_eq!(refused(&cases[0], 0), None, "{named}");
        let _ = std::fs::remove_dir_all(&folder);
    });
}
