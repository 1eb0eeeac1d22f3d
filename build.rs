//! Tells the program which commit it was built from; `unknown` outside a checkout.

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn main() {
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    // Only sources count: results and notes may change without making the program another one.
    let dirty = git(&["status", "--porcelain", "--", "src", "shaders", "kernels", "Cargo.toml", "build.rs"]).is_some_and(|s| !s.is_empty());
    println!("cargo::rustc-env=ROOFTRACE_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=ROOFTRACE_DIRTY={dirty}");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=shaders");
    println!("cargo::rerun-if-changed=kernels");
    // The log of HEAD grows with every commit, merge and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}
