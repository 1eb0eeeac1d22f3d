//! An open device whose errors all come back as results.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use wgpu::{BufferDescriptor, BufferUsages, CommandBuffer, ErrorFilter, MapMode, PollError, PollType};

use super::adapter;
use crate::error::{Error, Result};

/// Bytes that one staging copy takes at most.
pub(super) const STAGING: u64 = 16 << 20;

/// What the callbacks of the device have told.
#[derive(Default)]
struct Health {
    lost: Option<String>,
    error: Option<String>,
}

/// Device and queue, their health, and the longest wait.
pub(super) struct Device {
    pub(super) raw: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) timeout: Duration,
    /// Nanoseconds of a timestamp's unit; absent where the device has no timestamps.
    pub(super) period: Option<f64>,
    health: Arc<Mutex<Health>>,
}

impl Device {
    /// Opens the adapter with all its limits.
    pub(super) fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        let features = adapter::features(adapter);
        let opened = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("rooftrace"),
            required_features: features,
            required_limits: adapter.limits(),
            // SAFETY: the one experimental feature asked for is that of cooperative matrices, whose kernels `verify` runs like all others.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        }));
        let (raw, queue) = opened.map_err(|e| Error::Unavailable {
            backend: "wgpu".into(),
            why: format!("the driver of {} refused to open it ({e})", adapter.get_info().name),
            remedy: "update the driver, or use --device host".into(),
        })?;
        let health = Arc::new(Mutex::new(Health::default()));
        let seen = health.clone();
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&seen, |h| &mut h.error, error.to_string())));
        let seen = health.clone();
        raw.set_device_lost_callback(move |reason, message| note(&seen, |h| &mut h.lost, format!("{reason:?}: {message}")));
        let period = features.contains(wgpu::Features::TIMESTAMP_QUERY).then(|| queue.get_timestamp_period() as f64);
        Ok(Device { raw, queue, timeout: Duration::from_secs(20), period, health })
    }

    /// What the callbacks have told since the last look, as an error.
    pub(super) fn health(&self) -> Result<()> {
        let mut health = self.health.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(why) = &health.lost {
            return Err(Error::DeviceLost(why.clone()));
        }
        match health.error.take() {
            Some(why) => Err(Error::Backend { backend: "wgpu", why: one_line(&why) }),
            None => Ok(()),
        }
    }

    /// Runs `make` and returns what it made, or the first error that wgpu found in it.
    pub(super) fn scoped<T>(&self, make: impl FnOnce() -> T) -> std::result::Result<T, wgpu::Error> {
        let filters = [ErrorFilter::Internal, ErrorFilter::OutOfMemory, ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.raw.push_error_scope(filter));
        let made = make();
        // Popped innermost first, all of them.
        let errors: Vec<_> = scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
        errors.into_iter().next().map_or(Ok(made), Err)
    }

    /// As [`Device::scoped`], with `what` and its size for the message.
    pub(super) fn made<T>(&self, what: &str, bytes: u64, make: impl FnOnce() -> T) -> Result<T> {
        self.health()?;
        let made = self.scoped(make).map_err(|error| match error {
            wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.into(), need: bytes, have: 0 },
            other => Error::Backend { backend: "wgpu", why: format!("{what}: {}", one_line(&other.to_string())) },
        });
        self.health().and(made)
    }

    /// A buffer of `bytes` bytes.
    pub(super) fn buffer(&self, what: &str, bytes: u64, usage: BufferUsages) -> Result<wgpu::Buffer> {
        let descriptor = BufferDescriptor { label: Some(what), size: bytes, usage, mapped_at_creation: false };
        self.made(what, bytes, || self.raw.create_buffer(&descriptor))
    }

    /// A uniform buffer of these words, padded to 16 bytes.
    pub(super) fn uniform(&self, what: &str, words: &[u32]) -> Result<wgpu::Buffer> {
        let mut padded = words.to_vec();
        padded.resize(words.len().next_multiple_of(4).max(4), 0);
        let buffer = self.buffer(what, 4 * padded.len() as u64, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&padded));
        Ok(buffer)
    }

    /// Submits and waits until the device has finished.
    pub(super) fn finish(&self, what: &str, commands: CommandBuffer) -> Result<()> {
        let index = self.queue.submit([commands]);
        let waited = self.raw.poll(PollType::Wait { submission_index: Some(index), timeout: Some(self.timeout) });
        self.answer(what, waited)
    }

    fn answer(&self, what: &str, waited: std::result::Result<wgpu::PollStatus, PollError>) -> Result<()> {
        self.health()?;
        match waited {
            Ok(_) => Ok(()),
            Err(PollError::Timeout) => Err(Error::Timeout(format!(
                "{what} did not finish within {:.1} s; choose a smaller problem, or a variant that does less in one launch",
                self.timeout.as_secs_f64()
            ))),
            Err(other) => Err(Error::Backend { backend: "wgpu", why: format!("{what}: {other}") }),
        }
    }

    /// A buffer that the host can map.
    pub(super) fn staging(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.buffer("staging buffer", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)
    }

    /// The first `bytes` bytes of a staging buffer whose copies have been submitted.
    pub(super) fn map(&self, what: &str, staging: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
        staging.map_async(MapMode::Read, 0..bytes, |_| {});
        let waited = self.raw.poll(PollType::Wait { submission_index: None, timeout: Some(self.timeout) });
        self.answer(what, waited)?;
        let mapped = staging.get_mapped_range(0..bytes);
        let copied = mapped.map(|view| view.to_vec()).map_err(|e| Error::Backend { backend: "wgpu", why: format!("{what}: {e}") });
        staging.unmap();
        self.health().and(copied)
    }

    /// An encoder for one submission.
    pub(super) fn encoder(&self, what: &str) -> wgpu::CommandEncoder {
        self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(what) })
    }
}

fn note(health: &Mutex<Health>, field: fn(&mut Health) -> &mut Option<String>, message: String) {
    let mut health = health.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // The first message names the cause; later ones are its consequences.
    field(&mut health).get_or_insert(message);
}

/// wgpu's nested messages on one line.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
