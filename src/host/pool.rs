//! The thread pool: one pinned worker per allowed CPU.
//!
//! The thread that calls [`Pool::run`] is worker 0; the others are threads of the pool, pinned for life. Workers spin for some tens
//! of microseconds after a job, so that jobs in a row start within a microsecond or two, and park after that, so that an idle
//! pool costs nothing. Making a pool does not touch the caller's affinity: [`Pool::pin`] does, until its guard is dropped.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};

use super::memory::Region;
use super::topology;

type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Spins before a worker parks: some tens of microseconds.
const WORKER_SPINS: u32 = 4_000;
/// Spins before the caller parks: about a millisecond, because waking it would stand inside a measured time.
const CALLER_SPINS: u32 = 60_000;

thread_local! {
    /// Whether this thread is inside a job; a job started from a job runs on this thread alone.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What callers and workers share.
struct Shared {
    /// Number of the current job; a worker that sees it change takes `job`.
    epoch: AtomicUsize,
    /// The job of this epoch. Written only while no worker is in a job.
    job: UnsafeCell<Option<&'static Work<'static>>>,
    /// Workers still in the job.
    remaining: AtomicUsize,
    /// Set when the caller has parked or is about to.
    waiting: AtomicBool,
    caller: Mutex<Option<Thread>>,
    /// First panic of a worker in this job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    stop: AtomicBool,
    /// For each pool thread: parked, or about to.
    parked: Vec<AtomicBool>,
}

// SAFETY: `job` is written by the one caller that holds `Pool::turn` while `remaining` is 0, and read by workers only between the
// epoch's release store and their decrement of `remaining`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the job itself is `Sync`.
unsafe impl Send for Shared {}

/// A pool of pinned workers.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// CPU of each worker; empty where threads cannot be pinned.
    cpus: Vec<usize>,
    /// Held while a job runs.
    turn: Mutex<()>,
    /// Memory that kernels reuse between calls.
    scratch: Mutex<Region>,
    llc_bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// One worker per CPU that this process may use; fewer where the system refuses threads, which [`Pool::workers`] tells.
    pub fn new() -> Self {
        let (cpus, wanted) = (topology::cpus(), topology::workers());
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            remaining: AtomicUsize::new(0),
            waiting: AtomicBool::new(false),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
            stop: AtomicBool::new(false),
            parked: (1..wanted).map(|_| AtomicBool::new(false)).collect(),
        });
        // All are spawned before any runs a job, so `workers` below is the final number.
        let mut threads = Vec::new();
        let (send, receive) = std::sync::mpsc::channel::<usize>();
        let receive = Arc::new(Mutex::new(receive));
        for worker in 1..wanted {
            let (shared, cpu, receive) = (shared.clone(), cpus.get(worker).copied(), receive.clone());
            let spawned = thread::Builder::new().name(format!("worker {worker}")).spawn(move || {
                pin_to(cpu);
                let workers = lock(&receive).recv();
                if let Ok(workers) = workers {
                    serve(&shared, worker, workers);
                }
            });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(_) => break,
            }
        }
        let workers = threads.len() + 1;
        for _ in &threads {
            // The receivers wait for exactly this many messages.
            let _ = send.send(workers);
        }
        let llc_bytes = topology::caches().iter().map(|&(_, bytes)| bytes).max().unwrap_or(256 << 20);
        Pool { shared, threads, cpus, turn: Mutex::new(()), scratch: Mutex::new(Region::empty()), llc_bytes }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// The CPU of each worker; empty where the system does not pin threads.
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Last-level cache in bytes, 256 MiB where the system reports none: outputs that cannot stay in it are worth streaming.
    pub fn llc_bytes(&self) -> u64 {
        self.llc_bytes
    }

    /// Pins the calling thread to worker 0's CPU until the guard is dropped, which restores its affinity.
    pub fn pin(&self) -> Pinned {
        #[cfg(target_os = "linux")]
        let before = self.cpus.first().and_then(|&cpu| {
            let before = topology::affinity()?;
            topology::set_affinity(&topology::only(cpu)).then_some(before)
        });
        Pinned {
            #[cfg(target_os = "linux")]
            before,
            here: PhantomData,
        }
    }

    /// Memory of at least `bytes` bytes, aligned to 4096, kept between calls; its content is arbitrary. `None` when the system
    /// has no more.
    pub(crate) fn scratch(&self, bytes: usize) -> Option<Scratch<'_>> {
        let mut region = lock(&self.scratch);
        if region.bytes() < bytes {
            // The old one goes first, so that both never exist at once.
            *region = Region::empty();
            *region = Region::new(bytes)?;
            region.huge(bytes);
        }
        Some(Scratch(region))
    }

    /// Runs `work(worker, workers)` on every worker and waits for all. Callers take turns; a job started inside a job runs as
    /// `work(0, 1)` on the thread that started it.
    ///
    /// # Panics
    /// With the first panic of a worker, once all have finished.
    pub fn run(&self, work: &(dyn Fn(usize, usize) + Sync)) {
        if INSIDE.get() {
            return work(0, 1);
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        if !self.threads.is_empty() {
            // SAFETY: only the lifetime changes; no worker holds the job once `remaining` is 0, and we wait for that below.
            let job = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
            shared.remaining.store(self.threads.len(), Ordering::Relaxed);
            // SAFETY: `turn` is ours and no worker is in a job.
            unsafe { *shared.job.get() = Some(job) };
            shared.epoch.fetch_add(1, Ordering::SeqCst);
            for (parked, thread) in shared.parked.iter().zip(&self.threads) {
                if parked.load(Ordering::SeqCst) {
                    thread.thread().unpark();
                }
            }
        }
        let mine = guarded(work, 0, self.workers());
        self.wait();
        let theirs = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    fn wait(&self) {
        let shared = &*self.shared;
        for _ in 0..CALLER_SPINS {
            if shared.remaining.load(Ordering::Acquire) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        *lock(&shared.caller) = Some(thread::current());
        shared.waiting.store(true, Ordering::SeqCst);
        while shared.remaining.load(Ordering::SeqCst) != 0 {
            thread::park();
        }
        shared.waiting.store(false, Ordering::SeqCst);
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A worker catches its panics, so joining cannot fail.
            let _ = thread.join();
        }
    }
}

/// Runs one worker's part with panics caught and nested jobs kept on this thread.
fn guarded(work: &Work<'_>, worker: usize, workers: usize) -> Result<(), Box<dyn Any + Send>> {
    INSIDE.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| work(worker, workers)));
    INSIDE.set(false);
    outcome
}

fn serve(shared: &Shared, worker: usize, workers: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.epoch.load(Ordering::Acquire) == seen {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            if spins < WORKER_SPINS {
                spins += 1;
                std::hint::spin_loop();
                continue;
            }
            let parked = &shared.parked[worker - 1];
            parked.store(true, Ordering::SeqCst);
            if shared.epoch.load(Ordering::SeqCst) == seen && !shared.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        }
        seen = seen.wrapping_add(1);
        // SAFETY: the epoch's release store came after the job was written, and it stays until `remaining` falls.
        if let Some(work) = unsafe { *shared.job.get() }
            && let Err(panic) = guarded(work, worker, workers)
        {
            lock(&shared.panic).get_or_insert(panic);
        }
        if shared.remaining.fetch_sub(1, Ordering::SeqCst) == 1
            && shared.waiting.load(Ordering::SeqCst)
            && let Some(caller) = &*lock(&shared.caller)
        {
            // Not taken: a worker late from the job before may come here too, and one wake-up too many is harmless.
            caller.unpark();
        }
    }
}

fn pin_to(cpu: Option<usize>) {
    #[cfg(target_os = "linux")]
    if let Some(cpu) = cpu {
        topology::set_affinity(&topology::only(cpu));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cpu;
}

/// Keeps a thread pinned; made by [`Pool::pin`].
pub struct Pinned {
    #[cfg(target_os = "linux")]
    before: Option<libc::cpu_set_t>,
    /// Affinity belongs to a thread, so the guard stays on it.
    here: PhantomData<*const ()>,
}

impl Pinned {
    /// Whether the system pinned the thread.
    pub fn held(&self) -> bool {
        let _ = self.here;
        #[cfg(target_os = "linux")]
        return self.before.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(before) = &self.before {
            topology::set_affinity(before);
        }
    }
}

/// The pool's reusable memory, exclusively held.
pub(crate) struct Scratch<'a>(MutexGuard<'a, Region>);

impl Scratch<'_> {
    /// First byte.
    pub(crate) fn start(&self) -> *mut u8 {
        self.0.start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_runs_every_job_once() {
        let pool = Pool::new();
        let counts: Vec<AtomicUsize> = (0..pool.workers()).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..10_000 {
            pool.run(&|worker, workers| {
                assert_eq!(workers, counts.len());
                counts[worker].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 10_000));
    }

    #[test]
    fn a_parked_pool_wakes_up_and_a_slow_worker_is_waited_for() {
        let pool = Pool::new();
        let done = AtomicUsize::new(0);
        for _ in 0..5 {
            thread::sleep(std::time::Duration::from_millis(5));
            pool.run(&|worker, _| {
                if worker != 0 {
                    thread::sleep(std::time::Duration::from_millis(20));
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(done.load(Ordering::Relaxed), 5 * pool.workers());
    }

    #[test]
    fn a_panicking_worker_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new();
        for guilty in 0..pool.workers() {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&|worker, _| {
                    if worker == guilty {
                        resume_unwind(Box::new("deliberate"));
                    }
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"deliberate"));
        }
        let ran = AtomicUsize::new(0);
        pool.run(&|_, _| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.load(Ordering::Relaxed), pool.workers());
    }

    #[test]
    fn a_job_inside_a_job_runs_whole_on_its_own_thread() {
        let pool = Pool::new();
        let inner = AtomicUsize::new(0);
        pool.run(&|_, _| {
            pool.run(&|worker, workers| {
                assert_eq!((worker, workers), (0, 1));
                inner.fetch_add(1, Ordering::Relaxed);
            })
        });
        assert_eq!(inner.load(Ordering::Relaxed), pool.workers());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pinning_lasts_as_long_as_its_guard_and_making_a_pool_pins_nobody() {
        let before = topology::cpus();
        let pool = Pool::new();
        assert_eq!(topology::cpus(), before);
        let pinned = pool.pin();
        assert!(pinned.held());
        assert_eq!(topology::cpus(), [pool.cpus()[0]]);
        drop(pinned);
        assert_eq!(topology::cpus(), before);
    }
}
