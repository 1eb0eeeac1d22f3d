//! Builds and drives the C++ side: rendered CUDA text in, outputs out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The C++ compiler of this machine: `$CXX`, g++ or clang++.
pub fn compiler() -> Option<String> {
    let named = std::env::var("CXX").ok();
    let known = ["g++", "clang++", "c++"].map(String::from);
    named.into_iter().chain(known).find(|cxx| Command::new(cxx).arg("--version").output().is_ok_and(|o| o.status.success()))
}

/// What `scripts/sanitize-cuda-kernels.sh` asks for: `address` or `thread`; nothing in a plain run.
pub fn sanitizer() -> Option<String> {
    std::env::var("CUDACPU_SANITIZE").ok()
}

/// Whether a kernel, `op/variant`, is among those asked for: all, but where a part of their names is given.
pub fn asked_for(kernel: &str) -> bool {
    std::env::var("CUDACPU_ONLY").map_or(true, |part| kernel.contains(&part))
}

/// Options of the compiler by which a program watches itself.
fn watched() -> &'static [&'static str] {
    match sanitizer().as_deref() {
        None => &[],
        Some("address") => &["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        Some("thread") => &["-g", "-fsanitize=thread"],
        Some(other) => panic!("CUDACPU_SANITIZE is {other}; name address or thread"),
    }
}

/// Says that a test could not run here. Visible with `--nocapture`, and to whoever greps a log; a failure where `ROOFTRACE_REQUIRE` names
/// `cuda-shim`, among others or alone.
pub fn skipped(test: &str) {
    let required = std::env::var("ROOFTRACE_REQUIRE").is_ok_and(|names| names.split(',').any(|name| name == "cuda-shim"));
    assert!(!required, "cuda-shim is required here: {test}: no C++ compiler (g++ or clang++) is installed");
    eprintln!("SKIPPED: {test}: no C++ compiler (g++ or clang++) is installed, so no CUDA kernel was run on the CPU");
}

/// One rendered source.
#[derive(Clone)]
pub struct Module {
    /// A C++ identifier, unique in a program.
    pub name: String,
    pub text: String,
    pub defines: Vec<String>,
    /// Entry points and the number of pointers or maps that each takes before the by-value struct.
    pub entries: Vec<(String, usize)>,
    /// The by-value struct.
    pub value: &'static str,
}

/// A tensor of a job.
#[derive(Clone)]
pub enum Data {
    /// File in the program's folder, and its size.
    In(String, u64),
    /// File to be written there, and its size.
    Out(String, u64),
    /// File that is read first and written again, and its size.
    Through(String, u64),
    /// The map of a tensor that is read: file and size, columns of its matrix, bytes of an element, columns and rows of a box.
    Map(String, u64, [u64; 4]),
}

/// One launch.
#[derive(Clone)]
pub struct Job {
    pub module: String,
    pub entry: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Shared memory sized at launch.
    pub dynamic_bytes: u32,
    pub order: u32,
    pub words: Vec<u32>,
    pub tensors: Vec<Data>,
}

impl Job {
    fn line(&self) -> String {
        let mut line = format!("{} {}", self.module, self.entry);
        for number in
            self.grid.iter().chain(&self.block).chain([&self.dynamic_bytes, &self.order, &(self.words.len() as u32)]).chain(&self.words)
        {
            let _ = write!(line, " {number}");
        }
        let _ = write!(line, " {}", self.tensors.len());
        for tensor in &self.tensors {
            let (role, file, bytes) = match tensor {
                Data::In(file, bytes) => ("in", file, bytes),
                Data::Out(file, bytes) => ("out", file, bytes),
                Data::Through(file, bytes) => ("inout", file, bytes),
                Data::Map(file, bytes, _) => ("map", file, bytes),
            };
            let _ = write!(line, " {role} {bytes} {file}");
            if let Data::Map(_, _, numbers) = tensor {
                numbers.iter().for_each(|number| _ = write!(line, " {number}"));
            }
        }
        line
    }
}

/// Runs these side by side, on as many threads as there are CPUs; the panics of any are the caller's.
pub fn side_by_side<T: Sync>(items: &[T], run: impl Fn(&T) + Sync) {
    let (next, run) = (AtomicUsize::new(0), &run);
    let worker = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            run(item);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(worker)));
}

/// A fresh folder for a test under the target folder.
pub fn folder(test: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cudacpu-{test}"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the target folder can be written");
    path
}

/// A built program.
pub struct Program {
    path: PathBuf,
    folder: PathBuf,
}

/// Blocks of a cluster of this entry: what its `__cluster_dims__` names is a define.
fn blocks_together(text: &str, entry: &str, defines: &[String]) -> u32 {
    let named = text.split("extern \"C\"").find(|part| part.contains(&format!(" {entry}("))).and_then(|part| {
        let (name, _) = part.split_once("__cluster_dims__(")?.1.split_once(", 1, 1)")?;
        defines.iter().find_map(|define| define.strip_prefix(name)?.strip_prefix('='))
    });
    named.map_or(1, |blocks| blocks.parse().expect("a number of blocks"))
}

/// Shared memory sized at launch is as much as any device gives. Where a kernel aligns it to 1024 bytes by itself, it lies as badly as it may.
fn sized(text: &str) -> String {
    const MOST: u32 = 232_448;
    let badly = format!(
        "__shared__ __align__(1024) unsigned char room[{MOST} + 1024]; \
         static unsigned char (&pool)[{MOST}] = reinterpret_cast<unsigned char (&)[{MOST}]>(room[16]);"
    );
    let text = text.replace("extern __shared__ __align__(1024) unsigned char pool[];", &badly);
    text.replace("extern __shared__", "__shared__").replace("pool[];", &format!("pool[{MOST}];"))
}

/// C++ that includes modules and lists their entries; each module lies in a namespace, names of C would be one for all, and its entries
/// are renamed, as `read` is also libc's.
fn table(folder: &Path, modules: &[Module]) -> String {
    let mut includes = String::new();
    let mut table = String::from("static const cudacpu::Entry ENTRIES[] = {\n");
    for Module { name, text, defines, entries, value } in modules {
        let pool = text.contains("extern __shared__");
        let text = sized(text);
        let within = text.replace("extern \"C\" __global__", "__global__");
        std::fs::write(folder.join(format!("{name}.cu")), within).expect("the folder can be written");
        let macros: Vec<(String, String)> = defines
            .iter()
            .filter_map(|define| define.split_once('='))
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .chain(entries.iter().map(|(entry, _)| (entry.clone(), format!("{name}_{entry}"))))
            .collect();
        macros.iter().for_each(|(from, to)| includes += &format!("#define {from} {to}\n"));
        includes += &format!("namespace {name} {{\n#include \"{name}.cu\"\n}}\n");
        macros.iter().for_each(|(from, _)| includes += &format!("#undef {from}\n"));
        for (entry, pointers) in entries {
            let blocks = blocks_together(&text, entry, defines);
            let cluster =
                if pool { format!("{{{blocks}, {name}::pool, sizeof {name}::pool}}") } else { format!("{{{blocks}, nullptr, 0}}") };
            let arguments: String = (0..*pointers).map(|i| format!("t[{i}], ")).collect();
            let call = format!("{name}::{name}_{entry}({arguments}cudacpu::by_value<{name}::{value}>(v, n))");
            table += &format!(
                "{{\"{name} {entry}\", {pointers}, cudacpu::maps_of(&{name}::{name}_{entry}), {cluster}, sizeof({name}::{value}), \
                 [](const cudacpu::Any* t, const void* v, size_t n) {{ {call}; }}}},\n"
            );
        }
    }
    format!("#include \"jobs.h\"\n{includes}{table}}};\nstatic const size_t COUNT = sizeof ENTRIES / sizeof *ENTRIES;\n")
}

/// Compiles `main.cpp` of a folder; the compiler's messages where it refuses.
fn compile(cxx: &str, folder: &Path, main: &str, options: &[&str], into: &Path) -> Result<(), String> {
    std::fs::write(folder.join("main.cpp"), main).expect("the folder can be written");
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cudacpu");
    let mut command = Command::new(cxx);
    command.args(["-std=c++17", "-O1", "-w", "-fno-strict-aliasing", "-I"]).arg(shim).args(options).arg("-o").arg(into);
    let done = command.arg(folder.join("main.cpp")).output().expect("the compiler starts");
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// Compiles modules into one program; the compiler's messages where it refuses.
pub fn build(cxx: &str, folder: &Path, modules: &[Module]) -> Result<Program, String> {
    let main = table(folder, modules) + "int main(int, char** a) { return cudacpu::run_jobs(a[1], ENTRIES, COUNT); }\n";
    let path = folder.join("program");
    compile(cxx, folder, &main, watched(), &path)?;
    Ok(Program { path, folder: folder.into() })
}

/// Compiles modules and `driver.h` into a library that stands in for libcuda and libnvrtc.
pub fn build_driver(cxx: &str, folder: &Path, modules: &[Module], library: &Path) -> Result<(), String> {
    let main = table(folder, modules) + "#include \"driver.h\"\n";
    compile(cxx, folder, &main, &["-shared", "-fPIC", "-O2"], library)
}

/// Compiles modules, `driver.h` and a `main` over it into one program; the compiler's messages where it refuses.
pub fn build_over_driver(cxx: &str, folder: &Path, modules: &[Module], main: &str) -> Result<PathBuf, String> {
    let path = folder.join("over-driver");
    compile(cxx, folder, &(table(folder, modules) + "#include \"driver.h\"\n" + main), &[], &path)?;
    Ok(path)
}

impl Program {
    /// Runs jobs in one process; one answer a job: `Ok`, or why its output cannot be taken.
    pub fn run(&self, jobs: &[Job]) -> Vec<Result<(), String>> {
        let lines: Vec<_> = jobs.iter().map(Job::line).collect();
        std::fs::write(self.folder.join("jobs.txt"), lines.join("\n")).expect("the folder can be written");
        let done = Command::new(&self.path).arg("jobs.txt").current_dir(&self.folder).output().expect("the program starts");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        let ended = || Err(format!("the program ended with {}: {}", done.status, err.trim()));
        let mut answers = out.lines();
        let mut answer = || match answers.next() {
            Some("ok") => Ok(()),
            Some(other) => Err(format!("overran a tensor: {other}")),
            None => ended(),
        };
        let mut all: Vec<Result<(), String>> = jobs.iter().map(|_| answer()).collect();
        // It may fail behind its last answer too.
        if let (Some(last @ Ok(())), false) = (all.last_mut(), done.status.success()) {
            *last = ended();
        }
        all
    }
}
