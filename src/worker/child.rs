//! The parent's end: starts the child, sets its time limits, and starts another after a loss.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::process::{Process, Silence};
use super::serve::{ARGUMENT, ONCE};
use super::wire::{End, Hello, Order, Prepared, Reply};
use super::{Answer, Bench, Item, failed, interrupted};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::plan::DeviceInfo;
use crate::record::{Clock, State};

/// Starts in a row that may fail before the device counts as gone.
const STARTS: u32 = 3;
/// Pause after the first failed restart; it doubles. A driver that resets its device needs about a second.
const PAUSE: Duration = Duration::from_millis(250);
/// How long compiling what was begun in time may take.
const PREPARED: Duration = Duration::from_secs(60);
/// How long opening a device and examining its clocks may take.
const START: Duration = Duration::from_secs(60);

/// How a child process is started.
#[derive(Debug, Clone)]
pub struct Launch {
    selector: String,
    program: Option<PathBuf>,
    arguments: Option<Vec<OsString>>,
    /// Whether the child is to serve one item only.
    once: bool,
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
}

impl Launch {
    /// This executable again, for the device that `selector` names.
    pub fn new(selector: &str) -> Self {
        Launch { selector: selector.into(), program: None, arguments: None, once: false, environment: Vec::new(), limit: START }
    }

    /// Another executable; its `main` must call [`super::enter`].
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Other arguments than `__worker SELECTOR`.
    #[must_use]
    pub fn arguments<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments = Some(arguments.into_iter().map(S::into).collect());
        self
    }

    /// One more environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// How long opening the device may take; a minute by default.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the child and waits until it has opened the device.
    ///
    /// # Errors
    /// Whatever opening the device gave in the child; [`Error::Timeout`] when it takes too long, [`Error::DeviceLost`] when the
    /// child dies over it, [`Error::Unavailable`] when it cannot be started at all, [`Error::Interrupted`].
    pub fn start(self) -> Result<Child> {
        let (process, device, clock) = self.begin()?;
        Ok(Child { launch: self, process: Some(process), device, clock, gone: None })
    }

    fn begin(&self) -> Result<(Process, DeviceInfo, Clock)> {
        let unable = |why: std::io::Error| Error::Unavailable {
            backend: self.selector.clone(),
            why: format!("its process could not be started: {why}"),
            remedy: "free some memory or processes and try again".into(),
        };
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(unable)?,
        };
        let usual = || vec![ARGUMENT.into(), self.selector.clone().into()];
        let mut arguments = self.arguments.clone().unwrap_or_else(usual);
        arguments.extend(self.once.then(|| ONCE.into()));
        let mut process = Process::start(&program, &arguments, &self.environment).map_err(unable)?;
        match greeting(&mut process, self.limit) {
            Ok(Hello::Ready { device, clock }) => Ok((process, device, clock)),
            Ok(Hello::Refused(refusal)) => Err(refusal.into()),
            Err(Silence::Interrupted) => Err(Error::Interrupted),
            Err(Silence::Late) => {
                let why = format!("device {} was not open after {:.1?}; close what else uses it", self.selector, self.limit);
                Err(Error::Timeout(why))
            }
            Err(silence) => {
                let (_, what) = end_of(&mut process, silence);
                Err(Error::DeviceLost(format!("the process that opens {} {what}; `rooftrace devices` lists what works", self.selector)))
            }
        }
    }
}

/// The child's first line. What loaders and preloaded libraries print before `main` takes the pipe over is passed by.
fn greeting(process: &mut Process, limit: Duration) -> Result<Hello, Silence> {
    let started = Instant::now();
    loop {
        let line = process.receive(limit.saturating_sub(started.elapsed()))?;
        if line.starts_with('{')
            && let Ok(hello) = serde_json::from_str(&line)
        {
            return Ok(hello);
        }
    }
}

/// What became of a process that gave no line: the state to record, and words that follow "its process".
fn end_of(process: &mut Process, silence: Silence) -> (State, String) {
    let (state, mut what) = match silence {
        Silence::Garbage(text) => {
            process.kill();
            (State::DeviceLost, format!("wrote '{}', which is no answer, and was ended", text.escape_debug()))
        }
        Silence::Closed { cut } => {
            let death = process.death();
            (death.state, format!("{}{}", death.what, if cut { " in the middle of its answer" } else { "" }))
        }
        Silence::Late | Silence::Interrupted => {
            process.kill();
            (State::Timeout, "was ended".into())
        }
    };
    if let Some(words) = process.last_words() {
        what.push_str(&format!(" (its last words: {words})"));
    }
    (state, what)
}

/// A device in a child process. After a crash or a hang the next item starts another one.
pub struct Child {
    launch: Launch,
    process: Option<Process>,
    device: DeviceInfo,
    clock: Clock,
    /// Why no more processes are started, once they keep failing.
    gone: Option<String>,
}

impl Child {
    /// Starts this executable again as the child for `selector`, with more environment variables.
    ///
    /// # Errors
    /// As [`Launch::start`].
    pub fn spawn(selector: &str, extra_env: &[(&str, &str)]) -> Result<Child> {
        extra_env.iter().fold(Launch::new(selector), |launch, (name, value)| launch.variable(name, value)).start()
    }

    /// Process id of the child, where one is running.
    pub fn process_id(&mut self) -> Option<u32> {
        self.process.as_mut().and_then(|process| process.lives().then(|| process.id()))
    }

    /// Makes sure that a process is running. One that died between items took no item with it.
    fn revive(&mut self) -> Result<()> {
        if self.process.as_mut().is_some_and(Process::lives) {
            return Ok(());
        }
        self.process = None;
        let mut pause = PAUSE;
        for start in 1.. {
            match self.launch.begin() {
                Ok((process, device, _)) if (&device.name, &device.driver) == (&self.device.name, &self.device.driver) => {
                    self.process = Some(process);
                    break;
                }
                Ok((_, device, _)) => {
                    let why = format!("{} answers as {} now, not as {}", self.launch.selector, device.name, self.device.name);
                    return Err(Error::DeviceLost(why));
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                // A device that hangs when it is opened would hang again.
                Err(error) if start == STARTS || matches!(error, Error::Timeout(_)) => return Err(error),
                Err(_) => sleep(pause)?,
            }
            pause *= 2;
        }
        Ok(())
    }

    /// The child's answer. Absent where it died before it had begun: that death was none of this item's.
    fn ask(&mut self, item: &Item, limit: Duration) -> Option<Answer> {
        let (Some(process), Ok(line)) = (&mut self.process, serde_json::to_string(item)) else {
            return Some(Answer::Failed(State::Unsupported, format!("{} cannot be put into words", item.named())));
        };
        process.send(&line);
        let silence = match reply(process, item, limit) {
            Ok(End::Done(measurement)) => return Some(Answer::Done(measurement)),
            Ok(End::Failed { state, why }) => {
                if matches!(state, State::DeviceLost | State::Timeout) {
                    // What is lost to one process may be there for the next.
                    self.process = None;
                }
                return Some(Answer::Failed(state, why));
            }
            Ok(End::Begun) | Err(None) => {
                self.process = None;
                return None;
            }
            Err(Some(silence)) => silence,
        };
        let answer = match silence {
            Silence::Interrupted => interrupted(item),
            Silence::Late => {
                let why = format!(
                    "{} gave no answer within {limit:.1?} and was ended; allow more time or choose a smaller problem",
                    item.named()
                );
                Answer::Failed(State::Timeout, why)
            }
            silence => {
                let (state, what) = end_of(process, silence);
                Answer::Failed(state, format!("{} gave no answer: its process {what}; the next item gets a fresh one", item.named()))
            }
        };
        self.process = None;
        Some(answer)
    }
}

/// How the item ended, or why there is no answer; no reason where the process died before it had begun.
fn reply(process: &mut Process, item: &Item, limit: Duration) -> Result<End, Option<Silence>> {
    let started = Instant::now();
    let mut begun = false;
    loop {
        let line = match process.receive(limit.saturating_sub(started.elapsed())) {
            Ok(line) => line,
            Err(Silence::Closed { cut: false }) if !begun => return Err(None),
            Err(silence) => return Err(Some(silence)),
        };
        match serde_json::from_str::<Reply>(&line) {
            Ok(Reply { id, end: End::Begun }) if id == item.id && !begun => begun = true,
            Ok(Reply { id, end: End::Done(m) }) if id == item.id && m.id == id && begun => return Ok(End::Done(m)),
            Ok(Reply { id, end: End::Failed { state, why } }) if id == item.id && begun => return Ok(End::Failed { state, why }),
            _ => return Err(Some(Silence::Garbage(line.trim_end().chars().take(64).collect()))),
        }
    }
}

impl Bench for Child {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn run(&mut self, item: &Item, limit: Duration) -> Answer {
        if interrupt::requested() {
            self.process = None;
            return interrupted(item);
        }
        for _ in 0..STARTS {
            if self.gone.is_some() {
                break;
            }
            match self.revive().map(|()| self.ask(item, limit)) {
                Ok(Some(answer)) => return answer,
                Ok(None) => {}
                Err(Error::Interrupted) => return interrupted(item),
                Err(error) => self.gone = Some(format!("{} cannot be started again: {error}", self.launch.selector)),
            }
        }
        let gone = || format!("the processes of {} end before they begin", self.launch.selector);
        self.gone.get_or_insert_with(gone);
        let why = self.gone.as_deref().unwrap_or_default();
        Answer::Failed(State::DeviceLost, format!("{} was not run: {why}", item.named()))
    }

    fn prepare(&mut self, items: &[Item], within: Duration) {
        let order = Order::Prepare { prepare: items.to_vec(), within_ms: within.as_millis() as u64 };
        if interrupt::requested() || self.gone.is_some() || self.revive().is_err() {
            return;
        }
        let (Some(process), Ok(line)) = (&mut self.process, serde_json::to_string(&order)) else { return };
        process.send(&line);
        let ready = process.receive(within + PREPARED).is_ok_and(|line| serde_json::from_str::<Prepared>(&line).is_ok());
        if !ready {
            // The items get a process that compiles what each needs.
            self.process = None;
        }
    }

    fn fresh(&mut self, item: &Item, limit: Duration) -> Option<Answer> {
        let started = Instant::now();
        let launch = Launch { once: true, limit: limit.min(self.launch.limit), ..self.launch.clone() };
        Some(match launch.start() {
            Ok(mut child) => child.ask(item, limit.saturating_sub(started.elapsed())).unwrap_or_else(|| {
                Answer::Failed(State::DeviceLost, format!("the process started for {} ended before it had begun", item.named()))
            }),
            Err(Error::Interrupted) => interrupted(item),
            Err(error) => {
                let (state, why) = failed(&error);
                Answer::Failed(state, why)
            }
        })
    }
}

fn sleep(pause: Duration) -> Result<()> {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
