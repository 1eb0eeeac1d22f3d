//! Sets of keys side by side: awkward problems are so small that all sets are. Here as few are as leave several bands, the last one narrower.

use rooftrace::draw::Draw;
use rooftrace::op::find;
use rooftrace::plan::{Precision, Tuned};
use serde_json::json;

use super::cases::{Case, module, plan};
use super::complaint;
use super::harness::{Module, asked_for, build, compiler, folder, skipped};

const NEAR: &str = "NEAR = 32u << 20;";
/// One set of keys at a time, and two of three.
const BYTES: [u32; 2] = [1, 16_000];

#[test]
fn attention_computes_the_same_however_few_sets_of_keys_are_side_by_side() {
    let Some(cxx) = compiler() else { return skipped("sets of keys side by side") };
    let entry = find("attention").expect("a listed op");
    // Three sets of 7680 bytes, two groups of rows each.
    let problem = json!({"batch": 1, "heads": 9, "kv_heads": 3, "seq_q": 65, "seq_kv": 80, "head_dim": 24, "causal": true});
    for variant in ["flash_mma", "flash_wgmma"].into_iter().filter(|variant| asked_for(&format!("attention/{variant}"))) {
        let folder = folder(&format!("sets-{variant}"));
        let op = (entry.parse)(&problem).expect("a legal problem");
        let case = Case::new(&folder, 0, op, Precision::F16, Draw::Dense);
        let tuned = Tuned::default();
        let made = plan(&case, variant, &tuned);
        let clean = module("m".into(), &[made]);
        assert_eq!(clean.text.matches(NEAR).count(), 1, "{variant}: '{NEAR}' is to be found once");
        let modules = BYTES.map(|bytes| {
            let text = clean.text.replace(NEAR, &format!("NEAR = {bytes};"));
            Module { name: format!("near{bytes}"), text, ..clean.clone() }
        });
        let program = build(&cxx, &folder, &modules).unwrap_or_else(|log| panic!("{log}"));
        for module in &modules {
            assert_eq!(complaint(&program, &folder, &module.name, &[&case], variant, &tuned), None, "{variant} {}", module.name);
        }
        let _ = std::fs::remove_dir_all(&folder);
    }
}
