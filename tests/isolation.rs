//! The child process under every way of dying: one clear sentence, the right state, and the next item runs.
//!
//! Children are this very test binary: [`child_process`] and the scenes are ignored tests that other tests start as processes.

use std::time::{Duration, Instant};

use rooftrace::backend;
use rooftrace::draw::mix;
use rooftrace::plan::DeviceInfo;
use rooftrace::record::{Clock, Journal, Measurement, Record, State, read};
use rooftrace::worker::{self, Answer, Bench, Item, Launch, Local, Runner};
use rooftrace::{Error, Result};
use serde_json::{Value, json};

#[path = "isolation/child.rs"]
mod child;
#[path = "isolation/scenes.rs"]
mod scenes;

use child::{AMPLE, Small, done, failed, golden, item, launch, process_state, scratch, signal, small, start, within};

#[test]
#[ignore = "the process that other tests start"]
fn child_process() {
    worker::enter(small);
}

#[test]
fn a_healthy_child_says_its_device_and_answers_items_in_order() {
    let mut child = start(json!({"device": {"name": "Far away"}}));
    assert_eq!((child.device().name.as_str(), child.device().simulated, child.clock().launch_ns), ("Far away", true, 1000));
    let process = child.process_id();
    for order in 0..20 {
        let wanted = item(["matmul", "stream"][order as usize % 2], order);
        let measurement = done(child.run(&wanted, AMPLE));
        assert_eq!((measurement.id, measurement.order, measurement.samples_ns.len()), (wanted.id, order, 5));
    }
    assert_eq!(child.process_id(), process, "one process served them all");
}

/// Every way to die in the middle of an item.
#[test]
fn every_death_is_one_clear_sentence_with_its_state_and_the_next_item_runs() {
    let lost = State::DeviceLost;
    let cases = [
        ("segfault", lost, "died of signal 11 (SIGSEGV"),
        ("abort", lost, "died of signal 6 (SIGABRT"),
        ("exit", lost, "ended with status 3;"),
        ("half_line", lost, "ended with status 0 in the middle of its answer"),
        ("garbage", lost, "wrote '!! 0xdeadbeef', which is no answer, and was ended"),
        ("panic", lost, "panicked (its last words: scripted panic in matmul/naive)"),
        ("device_lost", lost, "device lost: the fake device is gone"),
        ("hang", State::Timeout, "gave no answer within 400.0ms and was ended; allow more time or choose a smaller problem"),
        ("out_of_memory", State::OutOfMemory, "out of memory: matmul/naive needs"),
        ("unsupported", State::Unsupported, "matmul/naive needs a feature"),
        ("nan", State::Wrong, "wrong output: matmul/naive differs"),
        ("stops_writing", State::Wrong, "wrong output"),
        ("writes_inputs", State::Wrong, "wrong output"),
        ("breaks_guard", State::Wrong, "wrong output"),
    ];
    for (kind, state, said) in cases {
        let mut child = start(json!({"faults": [{"kind": kind, "op": "matmul", "variant": "naive"}]}));
        done(child.run(&item("stream", 0), AMPLE));
        let limit = if kind == "hang" { Duration::from_millis(400) } else { AMPLE };
        let started = Instant::now();
        let (found, why) = failed(child.run(&item("matmul", 1), limit));
        assert!(started.elapsed() < limit + Duration::from_secs(2), "{kind} took {:?}", started.elapsed());
        assert_eq!(found, state, "{kind}: {why}");
        assert!(why.contains(said) && why.contains("matmul/naive") != (kind == "device_lost"), "{kind}: {why}");
        assert!(!why.contains('\n') && why.len() < 400, "{kind}: {why}");
        assert_eq!(done(child.run(&item("stream", 2), AMPLE)).order, 2, "after {kind} the next item runs");
    }
}

#[test]
fn a_crash_in_the_third_sample_strikes_one_item_and_no_other() {
    // Counted in the process: the first item takes six samples, so the fault meets the item's own third one only.
    let marker = scratch("third");
    let mut child = start(json!({"faults": [{"kind": "segfault", "op": "matmul", "call": 9, "once": marker}]}));
    let states: Vec<_> = (0..4).map(|order| child.run(&item("matmul", order), AMPLE)).map(|a| matches!(a, Answer::Done(_))).collect();
    assert_eq!(states, [true, false, true, true]);
    std::fs::remove_file(marker).expect("the fault left its mark");
}

#[test]
fn a_kernel_that_hangs_for_ever_costs_its_limit_and_no_more() {
    let mut child = start(json!({"faults": [{"kind": "hang", "op": "matmul"}]}));
    let process = child.process_id().expect("runs");
    let started = Instant::now();
    failed(child.run(&item("matmul", 0), Duration::from_millis(300)));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1300), "{took:?}");
    assert_eq!(process_state(process), None, "it is gone and reaped");
}

#[test]
fn a_child_that_was_stopped_is_killed_all_the_same() {
    let mut child = start(json!({}));
    let process = child.process_id().expect("runs");
    signal("STOP", &process.to_string());
    assert!(within(AMPLE, || process_state(process) == Some('T')));
    let (state, _) = failed(child.run(&item("matmul", 0), Duration::from_millis(300)));
    assert_eq!((state, process_state(process)), (State::Timeout, None));
    done(child.run(&item("matmul", 1), AMPLE));
}

#[test]
fn a_child_killed_from_outside_between_items_costs_no_item() {
    let mut child = start(json!({}));
    for order in 0..3 {
        let process = child.process_id().expect("runs");
        signal("KILL", &process.to_string());
        assert!(within(AMPLE, || matches!(process_state(process), None | Some('Z'))));
        done(child.run(&item("matmul", order), AMPLE));
    }
}

#[test]
fn what_a_driver_prints_on_standard_output_is_no_answer_and_no_harm() {
    let mut child = start(json!({"faults": [{"kind": "chatter", "at": "open"}, {"kind": "chatter"}]}));
    done(child.run(&item("matmul", 0), AMPLE));
    done(child.run(&item("stream", 1), AMPLE));
}

#[test]
fn a_slow_start_is_waited_for() {
    let mut child = start(json!({"faults": [{"kind": "sleep", "at": "open", "ms": 700}]}));
    done(child.run(&item("matmul", 0), AMPLE));
}

#[test]
fn a_device_that_cannot_be_opened_is_the_error_that_it_was_in_the_child() {
    let open = |script: Value, limit| launch(&script.to_string()).limit(limit).start().err().expect("refused");
    let fault = |kind: &str| json!({"faults": [{"kind": kind, "at": "open"}]});
    let cases = [
        (fault("unavailable"), 3, "fake is not available: its script says so; choose another device"),
        (fault("unsupported"), 3, "the device needs a feature, and this device has none"),
        (fault("out_of_memory"), 5, "out of memory: the device"),
        (fault("device_lost"), 5, "device lost: the fake device is gone"),
        (json!({"devise": 1}), 2, "unknown field `devise`"),
        (fault("segfault"), 5, "the process that opens fake died of signal 11 (SIGSEGV"),
        (fault("exit"), 5, "the process that opens fake ended with status 3; `rooftrace devices` lists what works"),
        (fault("panic"), 5, "the process that opens fake panicked (its last words: scripted panic in the device)"),
    ];
    for (script, code, said) in cases {
        let error = open(script.clone(), AMPLE);
        assert!(error.exit_code() == code && error.to_string().contains(said), "{script}: {error} ({})", error.exit_code());
    }
    let error = open(fault("hang"), Duration::from_millis(300));
    assert!(matches!(error, Error::Timeout(_)) && error.to_string().contains("not open after 300.0ms"), "{error}");
    let error = Launch::new("fake").program("/no/such/program").start().err().expect("refused");
    assert!(matches!(error, Error::Unavailable { .. }) && error.exit_code() == 3, "{error}");
}

#[test]
fn a_device_that_is_gone_for_good_is_said_for_every_item_without_more_processes() {
    let script = scratch("gone");
    std::fs::write(&script, "{}").expect("writes");
    let mut child = launch(script.to_str().expect("text")).start().expect("starts");
    done(child.run(&item("matmul", 0), AMPLE));
    std::fs::write(&script, json!({"faults": [{"kind": "unavailable"}]}).to_string()).expect("writes");
    signal("KILL", &child.process_id().expect("runs").to_string());
    assert!(within(AMPLE, || child.process_id().is_none()));
    let (state, why) = failed(child.run(&item("matmul", 1), AMPLE));
    assert_eq!(state, State::DeviceLost);
    assert!(why.contains("matmul/naive was not run: fake cannot be started again: fake is not available"), "{why}");
    let started = Instant::now();
    for order in 2..1000 {
        let (state, again) = failed(child.run(&item("matmul", order), AMPLE));
        assert_eq!((state, &again), (State::DeviceLost, &why));
    }
    assert!(started.elapsed() < Duration::from_millis(500), "no process was started: {:?}", started.elapsed());
    std::fs::remove_file(script).expect("removes");
}

#[test]
fn a_device_that_comes_back_within_a_second_costs_nothing_more() {
    let script = scratch("back");
    std::fs::write(&script, json!({"faults": [{"kind": "segfault", "op": "matmul"}]}).to_string()).expect("writes");
    let mut child = launch(script.to_str().expect("text")).start().expect("starts");
    std::fs::write(&script, json!({"faults": [{"kind": "unavailable"}]}).to_string()).expect("writes");
    failed(child.run(&item("matmul", 0), AMPLE));
    let repair = std::thread::spawn({
        let script = script.clone();
        move || {
            std::thread::sleep(Duration::from_millis(400));
            // Renamed into place: a half-written script would be another fault.
            let whole = script.with_extension("whole");
            std::fs::write(&whole, "{}").and_then(|()| std::fs::rename(&whole, &script)).expect("writes");
        }
    });
    done(child.run(&item("matmul", 1), AMPLE));
    repair.join().expect("repairs");
    std::fs::remove_file(script).expect("removes");
}

#[test]
fn another_device_in_place_of_the_lost_one_is_not_measured_under_its_name() {
    let script = scratch("other");
    std::fs::write(&script, json!({"faults": [{"kind": "abort", "op": "matmul"}]}).to_string()).expect("writes");
    let mut child = launch(script.to_str().expect("text")).start().expect("starts");
    std::fs::write(&script, json!({"device": {"name": "Impostor"}}).to_string()).expect("writes");
    failed(child.run(&item("matmul", 0), AMPLE));
    let (state, why) = failed(child.run(&item("stream", 1), AMPLE));
    assert!(state == State::DeviceLost && why.contains("answers as Impostor now, not as Fake 8"), "{why}");
    std::fs::remove_file(script).expect("removes");
}

#[test]
fn two_hundred_kills_at_random_moments_lose_nothing_that_was_measured() {
    let path = scratch("kills");
    let mut journal = Journal::create(&path).expect("creates");
    journal.append(&golden().records[0]).expect("appends");
    // A matmul takes six samples of a millisecond each: kills strike before, amid and after them.
    let mut child = start(json!({"faults": [{"kind": "sleep", "op": "matmul", "ms": 1}]}));
    let (mut draw, mut measured, mut killed) = (1u32, Vec::new(), 0);
    for order in 0..200 {
        draw = mix(draw.wrapping_add(0x9e37_79b9));
        let delay = Duration::from_micros(draw as u64 % 12_000);
        let process = child.process_id();
        let killer = process.map(|process| {
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                signal("KILL", &process.to_string());
            })
        });
        match child.run(&item("matmul", order), AMPLE) {
            Answer::Done(measurement) => {
                measured.push(measurement.id.clone());
                journal.append(&Record::Measurement(measurement)).expect("appends");
            }
            // Counted by its words: a kill that strikes before the item has begun costs nothing.
            Answer::Failed(state, why) => {
                killed += 1;
                assert_eq!(state, State::DeviceLost, "{why}");
                assert!(why.contains("died of signal 9 (SIGKILL, ended from outside)"), "{why}");
            }
        }
        if let Some(killer) = killer {
            killer.join().expect("kills");
        }
    }
    assert!(killed >= 20 && measured.len() >= 50, "{killed} killed, {} measured", measured.len());
    let ids = read(&path).expect("reads").records;
    let ids: Vec<_> = ids.into_iter().filter_map(|r| if let Record::Measurement(m) = r { Some(m.id) } else { None }).collect();
    assert_eq!(ids, measured);
    std::fs::remove_file(path).expect("removes");
}

#[test]
fn items_run_the_same_without_a_process() {
    let script = json!({"faults": [{"kind": "out_of_memory", "op": "stream"}]});
    let fake = rooftrace::backend::fake::Fake::scripted(&script.to_string()).expect("opens");
    let mut local = Local::new(Box::new(Small(Box::new(fake))));
    let mut child = start(script);
    for (order, op) in ["matmul", "stream", "matmul"].into_iter().enumerate() {
        let wanted = item(op, order as u32);
        assert_eq!(local.run(&wanted, AMPLE), child.run(&wanted, AMPLE));
    }
    assert_eq!((local.device(), local.clock()), (child.device(), child.clock()));
}

#[test]
fn a_fresh_process_serves_one_item_and_its_death_is_felt_by_nobody_else() {
    let mut child = start(json!({"faults": [{"kind": "segfault", "op": "matmul"}, {"kind": "hang", "op": "fma"}]}));
    let process = child.process_id();
    let answer = child.fresh(&item("stream", 0), AMPLE).expect("there are processes");
    assert_eq!(done(answer).order, 0);
    let (state, why) = failed(child.fresh(&item("matmul", 1), AMPLE).expect("there are processes"));
    assert!(state == State::DeviceLost && why.contains("SIGSEGV"), "{why}");
    let hangs = Item { op: "fma".into(), variant: "chains".into(), problem: json!({"elements": 64}), ..item("stream", 2) };
    let started = Instant::now();
    let (state, why) = failed(child.fresh(&hangs, Duration::from_millis(700)).expect("there are processes"));
    assert!(state == State::Timeout && started.elapsed() < Duration::from_millis(1700), "{why} after {:?}", started.elapsed());
    assert_eq!(child.process_id(), process, "the process of the other items is the same");
    done(child.run(&item("stream", 3), AMPLE));
    let mut local = Local::new(Box::new(Small(backend::open("fake").expect("opens"))));
    assert!(local.fresh(&item("stream", 4), AMPLE).is_none(), "there is no process here");
}

#[test]
fn a_compiler_that_crashes_ahead_of_the_items_costs_a_process_and_no_item() {
    let mut child = start(json!({}));
    let process = child.process_id();
    child.prepare(&[item("matmul", 0), item("stream", 1)], AMPLE);
    done(child.run(&item("matmul", 0), AMPLE));
    assert_eq!(child.process_id(), process, "the process that has prepared them runs them");
    let crashes = Item { op: "fma".into(), variant: "chains".into(), problem: json!({"elements": 64}), ..item("stream", 2) };
    child.prepare(&[crashes], AMPLE);
    done(child.run(&item("stream", 3), AMPLE));
    assert_ne!(child.process_id(), process);
}

#[test]
fn a_record_that_cannot_be_written_is_a_failed_item_and_not_a_lost_device() {
    struct Infinite(Small);
    impl Runner for Infinite {
        fn device(&self) -> (DeviceInfo, Clock) {
            self.0.device()
        }
        fn run(&mut self, item: &Item) -> Result<Measurement, (State, String)> {
            let mut measurement = self.0.run(item)?;
            measurement.verification.as_mut().expect("verified").worst_error = f64::INFINITY;
            Ok(measurement)
        }
    }
    let mut runner = Infinite(Small(backend::open("fake").expect("opens")));
    let line = serde_json::to_string(&item("matmul", 0)).expect("an item");
    let mut output = Vec::new();
    worker::serve(&mut runner, [Ok(line)], &mut output).expect("serves");
    let lines: Vec<Value> = output.split(|&b| b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(lines[0]["ready"]["device"]["id"], "fake");
    assert_eq!(lines[1], json!({"id": "matmul-0", "begun": null}));
    assert_eq!((&lines[2]["id"], &lines[2]["failed"]["state"]), (&json!("matmul-0"), &json!("wrong")));
    assert!(lines[2]["failed"]["why"].as_str().is_some_and(|why| why.contains("verification.worst_error")), "{}", lines[2]);
    assert!(worker::serve(&mut runner, [Ok("{}".to_string())], Vec::new()).is_err(), "a line that is no item");
}
