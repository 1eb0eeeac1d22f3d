//! What a definition reads: its inputs, and what its rows share.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Real;

/// Input values by tensor and flat index: slices for host kernels, lazily drawn values for the oracle.
pub trait Tensors {
    /// Element `index` of tensor number `tensor` (binding order), which holds numbers.
    fn at<R: Real>(&self, tensor: usize, index: u64) -> R;

    /// Word `index` of tensor number `tensor`, which holds words.
    fn word(&self, tensor: usize, index: u64) -> u32;

    /// What all rows of part `part` of the output share: made for the first of them that asks, where there is room to keep it. Its
    /// multiply-adds then count once, as they do in a kernel.
    fn shared<R: Real>(&self, _part: u64, make: impl FnOnce() -> Vec<R>) -> Arc<Vec<R>> {
        Arc::new(make())
    }
}

type Slot = Arc<OnceLock<Arc<dyn Any + Send + Sync>>>;

/// What was made once, by its number type and part.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<HashMap<(TypeId, u64), Slot>>>);

impl Kept {
    /// The numbers of a part; others that ask meanwhile wait for who makes them.
    pub fn of<R: Real>(&self, part: u64, make: impl FnOnce() -> Vec<R>) -> Arc<Vec<R>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((TypeId::of::<R>(), part)).or_default().clone();
        let mut make = Some(make);
        let mut made = || Arc::new(make.take().map_or_else(Vec::new, |make| make()));
        let kept = slot.get_or_init(|| made()).clone();
        // The type is part of the key.
        kept.downcast().unwrap_or_else(|_| made())
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_made_once_for_each_number_type() {
        let kept = Kept::default();
        let of = |part: u64, value: f64| kept.of(part, || vec![value])[0];
        assert_eq!((of(0, 1.0), of(0, 2.0), of(1, 3.0)), (1.0, 1.0, 3.0));
        assert_eq!(kept.of(0, || vec![4f32])[0], 4.0);
        assert_eq!(kept.clone().of(1, || vec![5f64])[0], 3.0);
    }
}
