//! What only a process of its own can show: signals to a whole group, the death of a parent, leaks.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rooftrace::backend::fake::VARIABLE;
use rooftrace::interrupt;
use rooftrace::worker::{Bench, Local, Stay};
use serde_json::{Value, json};

use crate::child::{AMPLE, done, failed, item, launch, process_state, signal, small, start, within};

/// This binary, running one of the scenes below as a process group of its own, as a shell would start it.
#[cfg(unix)]
fn scene(name: &str, script: Value) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args([&format!("scenes::{name}"), "--exact", "--ignored", "--nocapture"]).env(VARIABLE, script.to_string());
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
}

/// Lines of a scene, without those of the test harness.
fn lines(scene: &mut std::process::Child) -> impl Iterator<Item = String> + use<> {
    let output = BufReader::new(scene.stdout.take().expect("a pipe"));
    output.lines().map_while(|line| line.ok()).filter_map(|line| line.split_once("scene: ").map(|(_, said)| said.to_string()))
}

#[test]
#[ignore = "a scene that another test watches from outside"]
fn scene_child_hangs() {
    interrupt::install().expect("installs");
    let mut child = launch(&std::env::var(VARIABLE).expect("a script")).start().expect("starts");
    println!("scene: {}", child.process_id().expect("runs"));
    println!("scene: {:?}", child.run(&item("matmul", 0), AMPLE));
    println!("scene: {:?}", child.run(&item("stream", 1), AMPLE));
}

#[test]
#[ignore = "a scene that another test watches from outside"]
fn scene_local_hangs() {
    interrupt::install().expect("installs");
    let mut local = Local::new(small("fake", Stay::Long).expect("opens"));
    println!("scene: {}", std::process::id());
    println!("scene: {:?}", local.run(&item("matmul", 0), AMPLE));
}

#[test]
#[ignore = "a scene that another test watches from outside"]
fn scene_many_deaths() {
    let mut child = launch(&std::env::var(VARIABLE).expect("a script")).start().expect("starts");
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let files = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = (threads(), files());
    for order in 0..60 {
        failed(child.run(&item("matmul", order), Duration::from_millis(200)));
        done(child.run(&item("stream", order), AMPLE));
    }
    let after = (threads(), files());
    drop(child);
    let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap_or_default();
    let mut tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let left: String = tasks.by_ref().map(|t| std::fs::read_to_string(t.path().join("children")).unwrap_or_default()).collect();
    println!("scene: {before:?} {after:?} '{}{}'", children.trim(), left.trim());
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_ends_the_item_at_once_and_the_child_with_it() {
    let mut scene = scene("scene_child_hangs", json!({"faults": [{"kind": "hang", "op": "matmul"}]}));
    let mut lines = lines(&mut scene);
    let child: u32 = lines.next().expect("a process id").parse().expect("a number");
    std::thread::sleep(Duration::from_millis(150));
    let pressed = Instant::now();
    // To the whole group, as a terminal does: the child must leave the matter to its parent.
    signal("INT", &format!("-{}", scene.id()));
    for op in ["matmul/naive", "stream/linear"] {
        let said = lines.next().expect("an answer");
        assert!(said.starts_with("Failed(NotRun") && said.contains(&format!("{op} was interrupted")), "{said}");
    }
    assert!(pressed.elapsed() < Duration::from_secs(1), "{:?}", pressed.elapsed());
    assert_eq!(process_state(child), None, "the child is gone and reaped");
    assert!(scene.wait().expect("ends").success());
}

#[test]
#[cfg(target_os = "linux")]
fn the_terminal_s_interrupt_does_not_reach_an_item_that_is_measured() {
    let mut child = start(json!({"faults": [{"kind": "sleep", "op": "matmul", "ms": 50}]}));
    let process = child.process_id().expect("runs");
    let interrupter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        signal("INT", &process.to_string());
    });
    done(child.run(&item("matmul", 0), AMPLE));
    interrupter.join().expect("interrupts");
}

#[test]
#[cfg(target_os = "linux")]
fn a_second_ctrl_c_exits_with_130_even_where_nothing_answers_the_first() {
    let mut scene = scene("scene_local_hangs", json!({"faults": [{"kind": "hang", "op": "matmul"}]}));
    let process = lines(&mut scene).next().expect("a process id");
    std::thread::sleep(Duration::from_millis(100));
    signal("INT", &process);
    std::thread::sleep(Duration::from_millis(200));
    assert!(scene.try_wait().expect("asks").is_none(), "the first one waits for an orderly end");
    let pressed = Instant::now();
    signal("INT", &process);
    assert_eq!(scene.wait().expect("ends").code(), Some(130));
    assert!(pressed.elapsed() < Duration::from_millis(500), "{:?}", pressed.elapsed());
}

#[test]
#[cfg(target_os = "linux")]
fn a_child_outlives_its_killed_parent_by_no_more_than_a_moment() {
    let mut scene = scene("scene_child_hangs", json!({"faults": [{"kind": "hang", "op": "matmul"}]}));
    let child: u32 = lines(&mut scene).next().expect("a process id").parse().expect("a number");
    assert!(process_state(child).is_some());
    scene.kill().expect("kills");
    scene.wait().expect("ends");
    // Whoever inherits it may be slow to reap it.
    assert!(within(Duration::from_secs(2), || matches!(process_state(child), None | Some('Z'))), "{:?}", process_state(child));
}

#[test]
#[cfg(target_os = "linux")]
fn sixty_deaths_leave_no_thread_no_descriptor_and_no_zombie() {
    let marker = json!({"faults": [{"kind": "segfault", "op": "matmul"}]});
    let mut scene = scene("scene_many_deaths", marker);
    let said: String = lines(&mut scene).collect();
    assert!(scene.wait().expect("ends").success(), "{said}");
    let parts: Vec<&str> = said.splitn(3, ") ").collect();
    assert_eq!((parts[0], parts[2]), (parts[1], "''"), "threads and files before and after, then children left");
}
