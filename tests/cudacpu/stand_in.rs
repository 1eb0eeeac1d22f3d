//! The stand-in for the NVIDIA libraries in a folder, and processes that find it there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rooftrace::backend::host;
use rooftrace::op::{OPS, Op};
use rooftrace::plan::{Language, Plan, Precision, Tuned, VariantInfo};

use crate::cases::{DRAW, draw_module, module};
use crate::harness::{Module, build_driver, compiler, folder, skipped};

/// Set in the process that a test starts to see other libraries than its own.
pub const CHILD: &str = "ROOFTRACE_TEST_CHILD";

/// Where compiled code is kept; empty, nowhere.
pub const CACHE: &str = "ROOFTRACE_CACHE";

/// The one name that NVML is looked for under.
pub const NVML: &str = "libnvidia-ml.so.1";

pub fn in_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Copies a library to every name that the bindings look for, so that nothing installed here is found instead.
pub fn install(folder: &Path, stems: &[&str], library: &Path) {
    for name in stems.iter().flat_map(|stem| cudarc::get_lib_name_candidates(stem)) {
        std::fs::copy(library, folder.join(name)).expect("the folder can be written");
    }
}

/// Runs the calling test once more where libraries are taken from `folder`; its standard output and error.
pub fn again(test: &str, folder: &Path) -> (String, String) {
    let mut child = Command::new(std::env::current_exe().expect("this test is a program"));
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env("LD_LIBRARY_PATH", folder).env(CACHE, "").env_remove("RUST_BACKTRACE");
    let done = child.output().expect("this test starts again");
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr).into_owned());
    assert!(done.status.success(), "{}: {stdout}{stderr}", done.status);
    (stdout, stderr)
}

/// The kernel that reads clocks, which belongs to no op.
fn clock_module() -> Module {
    let (text, entries) = (include_str!("../../kernels/clock.cu").into(), vec![("clock_read".to_string(), 1)]);
    Module { name: "clock_cu".into(), text, defines: Vec::new(), entries, value: "Clock" }
}

/// Every CUDA source with default tunables, and those that fill tensors and read clocks, under the names that the stand-in looks for; `patched` may change texts,
/// and leave some out.
pub fn modules(patched: impl Fn(&str, String) -> Option<String>) -> Vec<Module> {
    let mut made = vec![draw_module("draw_cu", DRAW), clock_module()];
    for entry in OPS {
        let parsed = |fields: &serde_json::Value| (entry.parse)(fields).expect("legal");
        for variant in parsed(&(entry.awkward)()[0]).variants().into_iter().filter(runs_here) {
            for &precision in variant.source(Language::Cuda).filter(|s| s.is_text()).map_or(&[][..], |source| source.precisions) {
                let problems: Vec<Arc<dyn Op>> = entry.awkward_in(precision).iter().map(parsed).collect();
                let plans: Vec<_> = problems.iter().map(|problem| planned(problem, variant.name, precision)).collect();
                let alias = match precision {
                    Precision::F64 => "double",
                    Precision::F32 | Precision::TF32 => "float",
                    Precision::F16 => "Half",
                    Precision::BF16 => "Brain",
                    Precision::Fp8 => "Float8",
                    Precision::Int8 => "signed_char",
                };
                let clean = module(format!("{}_{}_cu_{alias}", entry.name, variant.name), &plans);
                made.extend(patched(entry.name, clean.text.clone()).map(|text| Module { text, ..clean }));
            }
        }
    }
    made
}

/// Whether a variant is a kernel, which a CPU can run, or a copy.
pub fn runs_here(variant: &VariantInfo) -> bool {
    variant.library().is_none()
}

pub fn planned(problem: &Arc<dyn Op>, variant: &str, precision: Precision) -> Plan {
    problem.plan(variant, precision, Language::Cuda, &Tuned::default(), &host::device()).expect("awkward problems are legal")
}

/// A folder with the stand-in under every name, and no vendor's library; `None`, said aloud, where there is no compiler.
pub fn stand_in(test: &str, patched: impl Fn(&str, String) -> Option<String>) -> Option<PathBuf> {
    let Some(cxx) = compiler() else {
        skipped("the cuda backend over a stand-in for the driver");
        return None;
    };
    let folder = folder(test);
    let library = folder.join("built");
    build_driver(&cxx, &folder, &modules(patched), &library).unwrap_or_else(|log| panic!("{log}"));
    install(&folder, &["cuda", "nvcuda", "nvrtc"], &library);
    let none = folder.join("none");
    std::fs::write(&none, "no library").expect("the folder can be written");
    install(&folder, &["cublas", "cublasLt", "cudnn"], &none);
    std::fs::copy(&none, folder.join(NVML)).expect("the folder can be written");
    Some(folder)
}

/// A second folder beside one of [`stand_in`], with the same files.
pub fn beside(folder: &Path, test: &str) -> PathBuf {
    let copy = crate::harness::folder(test);
    for file in std::fs::read_dir(folder).expect("it was made").map(|file| file.expect("it can be read").path()) {
        if file.is_file() {
            std::fs::copy(&file, copy.join(file.file_name().expect("a file has a name"))).expect("the folder can be written");
        }
    }
    copy
}

/// Builds a shared library of one source of `tests/cudacpu`.
pub fn library(source: &str, to: &Path) {
    let mut command = Command::new(compiler().expect("one built the driver"));
    command.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(to);
    let done = command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cudacpu").join(source)).output().expect("the compiler starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The program over the stand-ins of a folder: exit code, standard output, standard error.
pub fn program(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    program.args(arguments).env("LD_LIBRARY_PATH", folder).env(CACHE, "").envs(variables.iter().copied()).env_remove("RUST_BACKTRACE");
    let done = program.output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr))
}
