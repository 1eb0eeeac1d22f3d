//! Powers of two, vectorised.

use super::lanes::Lanes;

/// Lowest power that [`exp2`] tells from those below: smaller ones count as this, so that every result is a normal number.
const LOWEST: f32 = -126.0;
/// 1.5 · 2²³: a sum with it has its integer part in its lowest bits.
const INTEGER: f32 = 12_582_912.0;
/// Coefficients, highest first, of the polynomial of degree 6 that comes nearest to 2ˣ on [−½, ½]: within 3e-9 of it.
const SERIES: [f32; 6] = [1.559_467_8e-4, 1.340_664_4e-3, 9.617_693e-3, 5.550_310_6e-2, 2.402_265_3e-1, 6.931_472e-1];

/// 2ˣ for x ≤ 127, within 2 units in the last place; 2⁻¹²⁶ below −126.
///
/// # Safety
/// The CPU has the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn exp2<V: Lanes<Scalar = f32>>(x: V) -> V {
    // SAFETY: by the caller's promise.
    unsafe {
        let x = x.max(V::splat(LOWEST));
        let shifted = x.add(V::splat(INTEGER));
        let rest = x.add(shifted.add(V::splat(-INTEGER)).mul(V::splat(-1.0)));
        let mut sum = V::splat(SERIES[0]);
        for c in &SERIES[1..] {
            sum = sum.mul_add(rest, V::splat(*c));
        }
        sum.mul_add(rest, V::splat(1.0)).scaled(shifted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Isa;
    use super::super::lanes::{Kernel, dispatch};
    use super::*;

    struct Powers<'a>(&'a [f32], &'a mut [f32]);

    impl Kernel<f32> for Powers<'_> {
        #[inline(always)]
        unsafe fn run<V: Lanes<Scalar = f32>>(self) {
            for (x, y) in self.0.chunks_exact(V::COUNT).zip(self.1.chunks_exact_mut(V::COUNT)) {
                // SAFETY: chunks have a register's size; the instruction set is there by the caller's promise.
                unsafe { exp2(V::load(x.as_ptr())).store(y.as_mut_ptr()) };
            }
        }
    }

    #[test]
    fn powers_of_two_are_within_two_units_in_the_last_place_on_every_instruction_set() {
        let x: Vec<f32> = (0..1 << 20).map(|i| i as f32 * (253.0 / (1 << 20) as f32) - 126.0).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let mut y = vec![0.0; x.len()];
            dispatch(isa, Powers(&x, &mut y));
            let units = |(x, y): (&f32, &f32)| {
                let truth = (*x as f64).exp2();
                (*y as f64 - truth).abs() / ((truth as f32).next_up() - truth as f32) as f64
            };
            let worst = x.iter().zip(&y).map(units).fold(0.0, f64::max);
            assert!(worst <= 2.0, "{}: {worst} units in the last place", isa.name());
            let low = [f32::NEG_INFINITY, -1e30, -127.0, -126.5].repeat(4);
            let mut tiny = [0.0; 16];
            dispatch(isa, Powers(&low, &mut tiny));
            assert!(tiny.iter().all(|y| *y == f32::MIN_POSITIVE), "{}: {tiny:?}", isa.name());
        }
    }
}
