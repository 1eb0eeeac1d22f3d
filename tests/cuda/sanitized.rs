//! Sanitizers watch what they should: planted mistakes are reported, each by its name. `scripts/sanitize-cuda-kernels.sh` begins with this.

use rooftrace::draw::Draw;
use rooftrace::op::find;
use rooftrace::plan::{Precision, Tuned};

use super::cases::{Case, cases, module, plan};
use super::complaint;
use super::harness::{Module, build, compiler, folder, sanitizer};

/// A mistake, and a part of its report.
struct Planted {
    what: &'static str,
    variant: &'static str,
    precision: Precision,
    find: &'static str,
    replace: &'static str,
    report: &'static str,
}

const fn planted(
    what: &'static str,
    kernel: (&'static str, Precision),
    find: &'static str,
    replace: &'static str,
    report: &'static str,
) -> Planted {
    Planted { what, variant: kernel.0, precision: kernel.1, find, replace, report }
}

const TILED: (&str, Precision) = ("tiled", Precision::F32);
const MMA: (&str, Precision) = ("mma", Precision::F16);
const WGMMA: (&str, Precision) = ("wgmma", Precision::F16);
const RACE: &str = "data race";

const RACES: &[Planted] = &[
    planted("tiles are read before they are whole", TILED, "        __syncthreads(); // both tiles are whole\n", "", RACE),
    planted("tiles are filled while they are read", TILED, "        __syncthreads(); // and no longer needed\n", "", RACE),
    planted("all lanes store one output", TILED, "c[row * d.n + col] = T(sum)", "c[row * d.n] = T(sum)", RACE),
    planted("a stage is given back before all lanes have read it", MMA, "__syncwarp(); // all of", "// all of", RACE),
    planted("a stage is filled while it is read", MMA, "barrier_wait<false>(empty + 8 * next.stage, next.parity ^ 1);", "", RACE),
    planted("tiles are not waited for", WGMMA, "barrier_wait(full + 8 * turn.stage, turn.parity);", "", RACE),
];

const ADDRESSES: &[Planted] = &[
    planted("a row past the last is read", TILED, "row < d.m && across < d.k", "across < d.k", "heap-buffer-overflow"),
    planted("a column past a tile is read", TILED, "left[y][p] *", "left[y][p + 1] *", "out of bounds"),
    planted(
        "a stage that the launch does not give is filled",
        MMA,
        "pool + place(line, e / WIDE)",
        "pool + STAGE + place(line, e / WIDE)",
        "use-after-poison",
    ),
];

#[test]
#[ignore = "scripts/sanitize-cuda-kernels.sh runs it"]
fn planted_mistakes_are_reported() {
    let cxx = compiler().expect("the script looks for a compiler");
    let all = match sanitizer().as_deref() {
        Some("thread") => RACES,
        Some("address") => ADDRESSES,
        other => panic!("CUDACPU_SANITIZE is {other:?}; name address or thread"),
    };
    let alone = Tuned([("CLUSTER".to_string(), 1)].into());
    for (i, planted) in all.iter().enumerate() {
        let folder = folder(&format!("planted-{i}"));
        let mut cases = cases(&folder, find("matmul").expect("a listed op"), &[planted.precision]);
        cases.retain(|case| case.draw == Draw::Dense);
        let tuned = if planted.variant == "wgmma" { &alone } else { &Tuned::default() };
        let plans: Vec<_> = cases.iter().map(|case| plan(case, planted.variant, tuned)).collect();
        let clean = module("m".into(), &plans);
        assert_eq!(clean.text.matches(planted.find).count(), 1, "{}: '{}' is to be found once", planted.what, planted.find);
        let mistaken = Module { text: clean.text.replace(planted.find, planted.replace), ..clean };
        let program = build(&cxx, &folder, &[mistaken]).unwrap_or_else(|log| panic!("{log}"));
        let every: Vec<&Case> = cases.iter().collect();
        let found = complaint(&program, &folder, "m", &every, planted.variant, tuned);
        let reported = found.as_ref().is_some_and(|text| text.contains(planted.report));
        assert!(reported, "{}: '{}' is not in {found:?}", planted.what, planted.report);
        let _ = std::fs::remove_dir_all(&folder);
    }
}
