//! What numbers are in memory: kernels compute with scalars and their registers, and tensors may hold something narrower.

use half::{bf16, f16};

use super::{Lanes, Scalar};
use crate::host::tally;

/// A type in which tensors hold numbers that kernels compute with as `S`.
pub(crate) trait Stored<S: Scalar>: bytemuck::Pod + Send + Sync {
    /// Whether it is the scalar itself.
    const SCALAR: bool;
    /// As a scalar, exactly.
    fn wide(self) -> S;
    /// The nearest number of this type.
    fn narrow(x: S) -> Self;
    /// `V::COUNT` of them as a register.
    ///
    /// # Safety
    /// As that of [`Lanes::load`].
    unsafe fn load<V: Lanes<Scalar = S>>(from: *const Self) -> V;
    /// A register, each lane rounded to the nearest.
    ///
    /// # Safety
    /// As that of [`Lanes::store`].
    unsafe fn store<V: Lanes<Scalar = S>>(register: V, to: *mut Self);
}

impl<S: Scalar> Stored<S> for S {
    const SCALAR: bool = true;
    #[inline(always)]
    fn wide(self) -> S {
        self
    }
    #[inline(always)]
    fn narrow(x: S) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn load<V: Lanes<Scalar = S>>(from: *const Self) -> V {
        // SAFETY: by the caller's promise.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn store<V: Lanes<Scalar = S>>(register: V, to: *mut Self) {
        // SAFETY: by the caller's promise.
        unsafe { register.store(to) }
    }
}

macro_rules! narrower {
    ($stored:ty, $load:ident, $store:ident) => {
        impl Stored<f32> for $stored {
            const SCALAR: bool = false;
            #[inline(always)]
            fn wide(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(x: f32) -> Self {
                <$stored>::from_f32(x)
            }
            #[inline(always)]
            unsafe fn load<V: Lanes<Scalar = f32>>(from: *const Self) -> V {
                tally::load(from, V::COUNT);
                // SAFETY: by the caller's promise.
                unsafe { V::$load(from) }
            }
            #[inline(always)]
            unsafe fn store<V: Lanes<Scalar = f32>>(register: V, to: *mut Self) {
                tally::store(to, V::COUNT);
                // SAFETY: by the caller's promise.
                unsafe { register.$store(to) }
            }
        }
    };
}

narrower!(f16, load_f16, store_f16);
narrower!(bf16, load_bf16, store_bf16);

/// Widens these.
///
/// # Safety
/// `to` has room for them, and the CPU has V.
#[inline(always)]
pub(crate) unsafe fn widen<V: Lanes, E: Stored<V::Scalar>>(from: &[E], to: *mut V::Scalar) {
    let whole = from.len() / V::COUNT * V::COUNT;
    // SAFETY: by the caller's promise.
    unsafe {
        for at in (0..whole).step_by(V::COUNT) {
            E::load::<V>(from.as_ptr().add(at)).store(to.add(at));
        }
        tally::read(&from[whole..]);
        tally::store(to.add(whole), from.len() - whole);
        for (at, x) in from.iter().enumerate().skip(whole) {
            to.add(at).write(x.wide());
        }
    }
}

/// Rounds so many sums.
///
/// # Safety
/// They and room for them exist, and the CPU has V.
#[inline(always)]
pub(crate) unsafe fn round<V: Lanes, E: Stored<V::Scalar>>(from: *const V::Scalar, to: *mut E, count: usize) {
    let whole = count / V::COUNT * V::COUNT;
    // SAFETY: by the caller's promise.
    unsafe {
        for at in (0..whole).step_by(V::COUNT) {
            E::store(V::load(from.add(at)), to.add(at));
        }
        tally::load(from.add(whole), count - whole);
        tally::store(to.add(whole), count - whole);
        for at in whole..count {
            to.add(at).write(E::narrow(*from.add(at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Isa;
    use crate::host::lanes::{Kernel, dispatch};

    /// Every number of a type to registers and back; then numbers between two of them, and those that are none.
    struct Through<'a, E> {
        from: &'a [E],
        wide: &'a mut [f32],
        near: &'a [f32],
        narrow: &'a mut [E],
    }

    impl<E: Stored<f32>> Kernel<f32> for Through<'_, E> {
        #[inline(always)]
        unsafe fn run<V: Lanes<Scalar = f32>>(self) {
            // SAFETY: all slices hold whole registers of the widest, and the CPU has V.
            unsafe {
                for at in (0..self.from.len()).step_by(V::COUNT) {
                    E::load::<V>(self.from.as_ptr().add(at)).store(self.wide.as_mut_ptr().add(at));
                }
                for at in (0..self.near.len()).step_by(V::COUNT) {
                    E::store(V::load(self.near.as_ptr().add(at)), self.narrow.as_mut_ptr().add(at));
                }
            }
        }
    }

    fn goes_through<E: Stored<f32>>(of: fn(u16) -> E, bits: fn(E) -> u16) {
        let all: Vec<E> = (0..=u16::MAX).map(of).collect();
        let wide: Vec<f32> = all.iter().map(|x| x.wide()).collect();
        // Either side of a number and of what lies halfway to the next, ties among them.
        let near: Vec<f32> = (0..1u32 << 20).map(|i| f32::from_bits(i << 12 | [0, 1, 0xfff][i as usize % 3])).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let (mut found, mut narrow) = (vec![0.0; all.len()], vec![of(0); near.len()]);
            dispatch(isa, Through { from: &all, wide: &mut found, near: &near, narrow: &mut narrow });
            for (x, y) in wide.iter().zip(&found) {
                assert!(x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(), "{isa:?}: {x} and {y}");
            }
            for (x, y) in near.iter().zip(narrow) {
                assert!(bits(E::narrow(*x)) == bits(y) || x.is_nan() && y.wide().is_nan(), "{isa:?}: {x:e} became {:x}", bits(y));
            }
        }
    }

    #[test]
    fn registers_widen_and_round_as_the_half_crate_does() {
        goes_through(f16::from_bits, f16::to_bits);
        goes_through(bf16::from_bits, bf16::to_bits);
    }
}
