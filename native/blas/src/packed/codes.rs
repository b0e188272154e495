//! The ways in which a strip's weights are stored, as the kernels read them: a run of `k` at a time.

#![allow(
    clippy::cast_ptr_alignment,
    reason = "strips begin on lines of 64 bytes, and vectors may be read from anywhere"
)]

use super::format::STRIP;
use super::simd::Simd;

/// Weights of a group, decoded one `k` after the other.
pub trait Codes: 'static {
    /// Consecutive `k` that one state serves.
    const RUN: usize;
    /// What is left of a run.
    type State<S: Simd>: Copy;

    /// Run number `run` of the group whose weights begin at `weights`.
    ///
    /// # Safety
    /// The group is there, and the processor has the instructions of `S`.
    unsafe fn open<S: Simd>(weights: *const u8, group: usize, run: usize) -> Self::State<S>;

    /// The next `k`'s 16 weights; without scale and bias, codes less their middle.
    ///
    /// # Safety
    /// The run has not ended, and the processor has the instructions of `S`.
    unsafe fn next<S: Simd>(state: &mut Self::State<S>) -> S::V;
}

/// Codes in words: a plane of LOW bits, then one of HIGH bits, which may be none. A word holds its output's codes from
/// the highest bits down, in two's complement.
pub struct Planes<const LOW: u32, const HIGH: u32>;

impl<const LOW: u32, const HIGH: u32> Codes for Planes<LOW, HIGH> {
    const RUN: usize = 32 / LOW as usize;
    type State<S: Simd> = (S::W, S::W);

    #[inline(always)]
    unsafe fn open<S: Simd>(weights: *const u8, group: usize, run: usize) -> Self::State<S> {
        let weights = weights.cast::<u32>();
        // SAFETY: the caller's group.
        unsafe {
            let low = S::words(weights.add(run * STRIP));
            if HIGH == 0 {
                return (low, low);
            }
            let bit = run * Self::RUN * HIGH as usize;
            let plane = weights.add(group / Self::RUN * STRIP);
            (low, S::high_words::<LOW>(plane.add(bit / 32 * STRIP), (bit % 32) as u32))
        }
    }

    #[inline(always)]
    unsafe fn next<S: Simd>(state: &mut Self::State<S>) -> S::V {
        // SAFETY: the caller's processor.
        unsafe { S::take::<LOW, HIGH>(&mut state.0, &mut state.1) }
    }
}

/// Defines weights that lie as elements, 16 for each `k`.
macro_rules! elements {
    ($(#[$doc:meta])* $name:ident, $kind:ty, $load:ident) => {
        $(#[$doc])*
        pub struct $name;

        impl Codes for $name {
            const RUN: usize = 8;
            type State<S: Simd> = *const $kind;

            #[inline(always)]
            unsafe fn open<S: Simd>(weights: *const u8, _: usize, run: usize) -> Self::State<S> {
                weights.cast::<$kind>().wrapping_add(run * Self::RUN * STRIP)
            }

            #[inline(always)]
            unsafe fn next<S: Simd>(state: &mut Self::State<S>) -> S::V {
                // SAFETY: the caller's group.
                unsafe {
                    let weights = S::$load(*state);
                    *state = state.add(STRIP);
                    weights
                }
            }
        }
    };
}

elements!(/// Codes of 8 bits, in two's complement.
    Bytes, i8, bytes);
elements!(/// Single precision; also codes that were decoded for many rows.
    Floats, f32, load);
elements!(/// Half precision.
    Halves, u16, f16);
elements!(/// The upper half of single precision.
    Brains, u16, bf16);
