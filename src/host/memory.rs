//! Large blocks of zeroed memory straight from the system, on huge pages where it has them and is asked.

/// Size of a huge page on x86-64 and on aarch64 with 4 KiB pages.
pub(crate) const HUGE: usize = 2 << 20;

/// A block of memory. Untouched pages cost nothing, and each page lands on the node of the thread that touches it first.
pub(crate) struct Region {
    base: *mut u8,
    reserved: usize,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: a `Region` owns its memory and hands out addresses only.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// No memory.
    pub(crate) const fn empty() -> Self {
        Region { base: std::ptr::null_mut(), reserved: 0, start: std::ptr::null_mut(), bytes: 0 }
    }

    /// `bytes` zeroed bytes, aligned to a page, or to a huge page when at least that large; `None` when the system refuses.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let large = bytes >= HUGE;
        let reserved = bytes.max(1).checked_add(if large { HUGE } else { 0 })?;
        let base = reserve(reserved)?;
        let skip = if large { base.addr().next_multiple_of(HUGE) - base.addr() } else { 0 };
        // SAFETY: `skip` is below HUGE, which was reserved on top of `bytes`.
        let start = unsafe { base.add(skip) };
        Some(Region { base, reserved, start, bytes })
    }

    /// Asks for huge pages under the first `bytes` bytes, whole ones only, so that nothing beyond is touched along.
    pub(crate) fn huge(&self, bytes: usize) {
        #[cfg(target_os = "linux")]
        if self.bytes >= HUGE {
            // Refused where transparent huge pages are off: then small pages serve.
            // SAFETY: the range lies within the mapping.
            unsafe { libc::madvise(self.start.cast(), bytes.min(self.bytes) / HUGE * HUGE, libc::MADV_HUGEPAGE) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
    }

    /// First byte; null when empty.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Usable bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(unix)]
fn reserve(bytes: usize) -> Option<*mut u8> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh private mapping touches no memory of ours.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_PRIVATE | libc::MAP_ANON, -1, 0) };
    (base != libc::MAP_FAILED).then_some(base.cast())
}

#[cfg(not(unix))]
fn reserve(bytes: usize) -> Option<*mut u8> {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).ok()?;
    // SAFETY: `bytes` is not zero.
    let base = unsafe { std::alloc::alloc_zeroed(layout) };
    (!base.is_null()).then_some(base)
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.base.is_null() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: exactly the mapping that `reserve` made, and nobody uses it any more.
        unsafe {
            libc::munmap(self.base.cast(), self.reserved);
        }
        #[cfg(not(unix))]
        // SAFETY: the layout that `reserve` asked for.
        unsafe {
            std::alloc::dealloc(self.base, std::alloc::Layout::from_size_align_unchecked(self.reserved, 4096));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_aligned_zeroed_and_writable_to_the_end() {
        for bytes in [1, 4096, HUGE - 1, HUGE, 3 * HUGE + 5] {
            let region = Region::new(bytes).expect("a few MiB");
            let alignment = if bytes >= HUGE { HUGE } else { 4096 };
            assert!(region.start().addr().is_multiple_of(alignment), "{bytes}");
            // SAFETY: the region is ours and that long.
            let slice = unsafe { std::slice::from_raw_parts_mut(region.start(), bytes) };
            assert!(slice.iter().all(|&b| b == 0));
            slice[bytes - 1] = 1;
        }
    }

    #[test]
    fn an_impossible_size_is_refused() {
        assert!(Region::new(usize::MAX - 4096).is_none());
    }
}
