//! The README's result block is what the program prints from the committed record that it names.

use std::path::Path;
use std::process::Command;

#[test]
fn the_result_block_is_what_the_program_prints_from_its_record() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let block =
        readme.split("<!-- results:begin -->").nth(1).and_then(|rest| rest.split("<!-- results:end -->").next()).expect("the block");
    let record = block
        .lines()
        .find_map(|line| line.strip_prefix("<!-- from ")?.strip_suffix(" -->"))
        .expect("the record's name, as `<!-- from results/… -->`");
    let output = Command::new(env!("CARGO_BIN_EXE_rooftrace"))
        .args(["show", "--markdown"])
        .arg(root.join(record))
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(block.contains(printed.trim()), "run scripts/refresh-readme.sh; the program prints:\n{printed}");
    let picture = record.replace("records.jsonl", "roofline.svg");
    assert!(root.join(&picture).exists() && block.contains(&picture), "the picture {picture} is shown");
}
