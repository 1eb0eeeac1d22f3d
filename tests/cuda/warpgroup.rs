//! The emulation of warpgroups and barriers can tell right from wrong: right kernels pass in it, those of warpgroups as an H100 has verified
//! them, and what would be a race, a wrong descriptor or a hang on a GPU does not.

use rooftrace::op::find;
use rooftrace::plan::{Precision, Tuned};

use super::cases::{Case, cases, module, plan};
use super::complaint;
use super::harness::{Module, build, compiler, folder, skipped};

/// A patch of a source, and a part of the complaint about it; `None`, it stays right.
struct Patch {
    what: &'static str,
    find: &'static str,
    replace: &'static str,
    complaint: Option<&'static str>,
}

const fn patch(what: &'static str, find: &'static str, replace: &'static str, complaint: Option<&'static str>) -> Patch {
    Patch { what, find, replace, complaint }
}

/// In a wrong output.
const WRONG: Option<&str> = Some("expected");
/// Shared memory that the launch does not give.
const BEYOND: Option<&str> = Some("past what the launch gives");
const NEVER: Option<&str> = Some("never complete");

const WAIT: &str = "products_wait<0>();\n            products_done(sum);\n            give_back";
const MATMUL: &[Patch] = &[
    patch("nothing", "STAGES >= 2", "STAGES >= 2", None),
    patch("blocks of B too far apart", "A_BYTES, BLOCK, 8 * LINE", "A_BYTES, 2 * BLOCK, 8 * LINE", BEYOND),
    patch("lines of B too far apart", "BLOCK, 8 * LINE, SWIZZLE_128", "BLOCK, 16 * LINE, SWIZZLE_128", BEYOND),
    patch("rows of A too close", "16, 8 * LINE, SWIZZLE_128", "16, 4 * LINE, SWIZZLE_128", WRONG),
    patch("units of B where they were", "BLOCK, 8 * LINE, SWIZZLE_128", "BLOCK, 8 * LINE, SWIZZLE_NONE", BEYOND),
    patch("B along k", "product<T, MN_MAJOR>", "product<T, K_MAJOR>", BEYOND),
    patch("a mode of no device", "BLOCK, 8 * LINE, SWIZZLE_128", "BLOCK, 8 * LINE, Swizzle(2)", Some("not emulated")),
    patch("no fence", "    products_begin();\n", "", Some("without a fence")),
    patch("no group is closed", "    products_commit();\n", "", WRONG),
    patch("a stage is given back unread", "                products_wait<1>(); // those of the stage before have read it\n", "", WRONG),
    patch("sums are stored too early", WAIT, "products_wait<1>();\n            products_done(sum);\n            give_back", WRONG),
    patch("tiles are not waited for", "barrier_wait(full + 8 * turn.stage, turn.parity);", "", WRONG),
    patch("stages in use are filled", "barrier_wait(empty + 8 * turn.stage, turn.parity ^ 1);", "", Some("does not count")),
    patch("the other parity", "turn.parity ^ 1);", "turn.parity);", NEVER),
    patch("more bytes than come", "barrier_expect(barrier, STAGE)", "barrier_expect(barrier, STAGE + 128)", NEVER),
    patch("fewer bytes than come", "barrier_expect(barrier, STAGE)", "barrier_expect(barrier, STAGE - 128)", NEVER),
    patch("a box too few", "j < (rank + 1) * OWN_BLOCKS", "j + 1 < (rank + 1) * OWN_BLOCKS", NEVER),
    patch("a team's arrival too many", "empty + 8 * i, TEAMS * CLUSTER", "empty + 8 * i, TEAMS * CLUSTER + 1", NEVER),
    patch("stages are given back by one group alone", "empty + 8 * i, TEAMS * CLUSTER", "empty + 8 * i, TEAMS", Some("does not count")),
    patch("the other group is not told", "barrier_arrive_at(empty, lane)", "barrier_arrive_at(empty, cluster_rank())", NEVER),
    patch("the other group gets no part of B", "(1u << CLUSTER) - 1, block", "1u << rank, block", NEVER),
    patch("parts of B where others lie", "A_BYTES + j * BLOCK, col", "A_BYTES + j % OWN_BLOCKS * BLOCK, col", WRONG),
    patch("a group leaves before the others", "    if constexpr (CLUSTER > 1) meet(); //", "    //", Some("after its end")),
    patch("barriers are used before they are made", "    meet(); // barriers are made\n", "    __syncthreads();\n", Some("not made")),
    patch("a box beside its place", "box_copy(to, a,", "box_copy(to + 64, a,", Some("not aligned")),
    patch(
        "warps ask for different products",
        "stage + team * 64 * LINE",
        "stage + threadIdx.x / 64 * 32 * LINE",
        Some("different products"),
    ),
];

const MATRIX: &[Patch] = &[
    patch("nothing", "BATCH = 8", "BATCH = 8", None),
    patch("B's distances exchanged", "shared_address(right), BLOCK, ROWS", "shared_address(right), ROWS, BLOCK", WRONG),
    patch(
        "units of A exchanged",
        "shared_address(left), BLOCK, ROWS, SWIZZLE_NONE",
        "shared_address(left), BLOCK, ROWS, SWIZZLE_128",
        WRONG,
    ),
    patch("sums are read too early", "    products_wait<0>();\n", "    products_wait<1>();\n", WRONG),
];

const ATTENTION: &[Patch] = &[
    patch("nothing", "STAGES = 256 /", "STAGES = 256 /", None),
    patch("weighs scores that are not there", "            products_wait<1>(); // scores are there\n", "", WRONG),
    patch("shrinks sums that are not there", "\n    products_wait<0>();\n", "\n", WRONG),
    patch("gives values back before they are read", "tile - 2, true", "tile - 1, true", NEVER),
    patch("queries are not waited for", "        barrier_wait<false>(base + Tiles<D>::BARRIERS, 0);\n", "", WRONG),
    patch("keys are not waited for", "            barrier_wait<false>(keys.full, keys.parity);\n            if", "            if", WRONG),
    patch(
        "values are not waited for",
        "            barrier_wait<false>(values.full, values.parity);\n            add",
        "            add",
        WRONG,
    ),
    patch("rows of values too close", "descriptor(values, BK<D> * LINE, 8 * LINE", "descriptor(values, BK<D> * LINE, 4 * LINE", WRONG),
    patch("a turn is never given", "if (team == TEAMS - 1) give_turn(team);", "", NEVER),
    patch("unseen tiles are kept", "            if (leader) barrier_arrive(unseen.empty);\n", "", NEVER),
];

/// Of a ring that barriers of lanes keep.
const RING: &[Patch] = &[
    patch("nothing", "STAGES > 3", "STAGES > 3", None),
    patch("tiles are not waited for", "barrier_wait<false>(full + 8 * at.stage, at.parity);", "", Some("still to arrive")),
    patch("copies are not waited for", "copies_arrive(full + 8 * next", "barrier_arrive(full + 8 * next", WRONG),
    patch("the other parity", "next.parity ^ 1);", "next.parity);", NEVER),
    patch("one lane of a warp is waited for", "full + 8 * i, LANES)", "full + 8 * i, LANES / 32)", Some("does not count")),
    patch("stages in use are filled", "barrier_wait<false>(empty + 8 * next.stage, next.parity ^ 1);", "", WRONG),
    patch("a lane's copies too many", "full + 8 * i, LANES)", "full + 8 * i, LANES + 1)", NEVER),
    patch("a warp too many", "empty + 8 * i, LANES / 32)", "empty + 8 * i, LANES / 32 + 1)", NEVER),
    patch("stages are given back by one warp alone", "empty + 8 * i, LANES / 32)", "empty + 8 * i, 1)", NEVER),
    patch("a warp's lanes all give a stage back", "threadIdx.x % 32 == 0", "true", NEVER),
    patch("tiles past the last do not arrive", "copies_arrive(full + 8 * next", "if (left > AHEAD) copies_arrive(full + 8 * next", NEVER),
    patch("a tile that nobody waits for", "tile = 1; tile < AHEAD;", "tile = 1; tile + 1 < AHEAD;", Some("still to arrive")),
    patch("barriers are used before they are made", "    __syncthreads(); // barriers are made\n", "", Some("not made")),
];

fn hold(op: &str, variant: &str, precision: Precision, patches: &[Patch]) {
    let Some(cxx) = compiler() else { return skipped("the emulation of warpgroups") };
    let folder = folder(&format!("warpgroup-{op}-{variant}"));
    let cases = cases(&folder, find(op).expect("a listed op"), &[precision]);
    let plans: Vec<_> = cases.iter().map(|case| plan(case, variant, &Tuned::default())).collect();
    let patched = |(i, patch): (usize, &Patch)| {
        let clean = module(format!("m{i}"), &plans);
        assert_eq!(clean.text.matches(patch.find).count(), 1, "{op}/{variant}: '{}' is to be found once", patch.find);
        Module { text: clean.text.replace(patch.find, patch.replace), ..clean }
    };
    let modules: Vec<Module> = patches.iter().enumerate().map(patched).collect();
    let program = build(&cxx, &folder, &modules).unwrap_or_else(|log| panic!("{log}"));
    let every: Vec<&Case> = cases.iter().collect();
    let mut others = Vec::new();
    for (module, patch) in modules.iter().zip(patches) {
        let found = complaint(&program, &folder, &module.name, &every, variant, &Tuned::default());
        match (patch.complaint, &found) {
            (None, None) => {}
            (Some(part), Some(text)) if text.contains(part) => {}
            (expected, _) => others.push(format!("{}: {expected:?} is not in {found:?}", patch.what)),
        }
    }
    assert!(others.is_empty(), "{op}/{variant}: {others:#?}");
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn products_of_four_warps_show_wrong_descriptors_missing_waits_and_barriers_that_never_complete() {
    hold("matmul", "wgmma", Precision::BF16, MATMUL);
    hold("matrix", "wgmma", Precision::TF32, MATRIX);
    hold("attention", "flash_wgmma", Precision::F16, ATTENTION);
}

#[test]
fn barriers_of_lanes_show_missing_waits_and_what_they_do_not_count() {
    hold("matmul", "mma", Precision::F16, RING);
}
