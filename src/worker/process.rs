//! One child process: its pipes, the threads that empty them, and its end.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{self, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::death::{self, Death};
use crate::interrupt;

/// Longest line that is read from a child: above it, it is no answer.
const LINE: u64 = 8 << 20;
/// How much of standard error is kept.
const TAIL: usize = 4 << 10;
/// How often a waiting parent looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(20);
/// How long a dead or killed process may take to be reaped before it is left behind.
const REAP: Duration = Duration::from_millis(500);

/// Killed processes that the system has not let go yet, such as one inside a hung driver; swept now and then, so that none
/// stays a zombie once it can be reaped.
static UNDEAD: Mutex<Vec<process::Child>> = Mutex::new(Vec::new());

/// What came out of a child.
enum Event {
    Line(String),
    /// The pipe closed in the middle of a line.
    Cut,
    /// A line that is too long or not text.
    Garbage(String),
}

/// Why a line did not come.
pub(super) enum Silence {
    /// The time is up.
    Late,
    /// The user wants to stop.
    Interrupted,
    /// The pipe closed, in the middle of a line or before one.
    Closed { cut: bool },
    /// Something came that is no answer.
    Garbage(String),
}

/// A running child process.
pub(super) struct Process {
    /// Absent once it was reaped.
    child: Option<process::Child>,
    id: u32,
    input: Option<ChildStdin>,
    events: Receiver<Event>,
    tail: Arc<Mutex<VecDeque<u8>>>,
    threads: Vec<JoinHandle<()>>,
    memory_kills: Option<u64>,
}

impl Process {
    pub fn start(program: &PathBuf, arguments: &[OsString], environment: &[(OsString, OsString)]) -> std::io::Result<Process> {
        sweep();
        let memory_kills = death::memory_kills();
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(k, v)| (k, v)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, events) = mpsc::channel();
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let mut threads = Vec::new();
        let input = child.stdin.take();
        if let Some(output) = child.stdout.take() {
            threads.push(std::thread::spawn(move || answers(BufReader::new(output), &sender)));
        }
        if let Some(errors) = child.stderr.take() {
            let tail = Arc::clone(&tail);
            threads.push(std::thread::spawn(move || keep_tail(errors, &tail)));
        }
        Ok(Process { id: child.id(), child: Some(child), input, events, tail, threads, memory_kills })
    }

    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether it is still there.
    pub fn lives(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends one line; a child that is gone shows when its answer is awaited.
    pub fn send(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n")).and_then(|()| input.flush());
        }
    }

    /// The next line.
    pub fn receive(&mut self, limit: Duration) -> Result<String, Silence> {
        let started = Instant::now();
        loop {
            if interrupt::requested() {
                return Err(Silence::Interrupted);
            }
            let left = limit.saturating_sub(started.elapsed());
            match self.events.recv_timeout(left.min(LOOK)) {
                Ok(Event::Line(line)) => return Ok(line),
                Ok(Event::Cut) => return Err(Silence::Closed { cut: true }),
                Ok(Event::Garbage(text)) => return Err(Silence::Garbage(text)),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Closed { cut: false }),
                Err(RecvTimeoutError::Timeout) if left <= LOOK => return Err(Silence::Late),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Ends it without waiting for it to agree.
    pub fn kill(&mut self) {
        self.strike();
        self.bury();
    }

    /// How it ended, once its output has closed.
    pub fn death(&mut self) -> Death {
        let status = self.bury();
        // The counter is the machine's: it tells "killed for memory" from "killed by somebody" only together with the signal.
        let memory = matches!((self.memory_kills, death::memory_kills()), (Some(before), Some(after)) if after > before);
        Death::of(status, memory)
    }

    /// The last thing it said on standard error.
    pub fn last_words(&self) -> Option<String> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        death::last_words(&tail.iter().copied().collect::<Vec<u8>>())
    }

    fn strike(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails only where the process is gone already.
            let _ = child.kill();
        }
    }

    /// Waits a moment for the process and its threads; kills and leaves behind what does not end.
    fn bury(&mut self) -> Option<ExitStatus> {
        self.input = None;
        let deadline = Instant::now() + REAP;
        let mut status = None;
        while let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(Some(ended)) => {
                    status = Some(ended);
                    self.child = None;
                }
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                _ => break,
            }
        }
        self.strike();
        for thread in self.threads.drain(..) {
            // A pipe may be held open by a process that the child started: such a thread ends when that one does.
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        UNDEAD.lock().unwrap_or_else(PoisonError::into_inner).extend(self.child.take());
    }
}

/// Reaps what can be reaped by now.
fn sweep() {
    UNDEAD.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
}

/// Hands on the lines of a child until its pipe closes.
fn answers(mut output: impl BufRead, sender: &Sender<Event>) {
    loop {
        let mut line = Vec::new();
        let event = match output.by_ref().take(LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.last() != Some(&b'\n') => match line.len() as u64 >= LINE {
                true => Event::Garbage(String::from_utf8_lossy(&line[..64]).into_owned()),
                false => Event::Cut,
            },
            Ok(_) => match String::from_utf8(line) {
                Ok(text) => Event::Line(text),
                Err(text) => Event::Garbage(String::from_utf8_lossy(text.as_bytes()).chars().take(64).collect()),
            },
        };
        // Nothing that follows garbage is worth reading, and an endless line must not fill the memory.
        let last = matches!(event, Event::Cut | Event::Garbage(_));
        if sender.send(event).is_err() || last {
            return;
        }
    }
}

/// Keeps the end of what a child says on standard error.
fn keep_tail(mut errors: impl Read, tail: &Mutex<VecDeque<u8>>) {
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = errors.read(&mut chunk) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&chunk[..read]);
        let extra = tail.len().saturating_sub(TAIL);
        tail.drain(..extra);
    }
}
