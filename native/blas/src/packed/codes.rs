//! The ways in which a strip's weights are stored, as the kernels read them.

#![allow(
    clippy::cast_ptr_alignment,
    reason = "strips begin on lines of 64 bytes, and vectors may be read from anywhere"
)]

use super::format::STRIP;
use super::simd::Simd;

/// Codes of a group, two `k` after the other.
pub trait Codes: 'static {
    /// Consecutive `k` that one state serves.
    const RUN: usize;
    /// Do they come from memory, and not from a cache?
    const FROM_MEMORY: bool;
    /// What is left of a run.
    type State<S: Simd>: Copy;

    /// Run number `run` of the group whose codes begin at `codes`.
    ///
    /// # Safety
    /// The group is there, and the processor has the instructions of `S`.
    unsafe fn open<S: Simd>(codes: *const u8, group: usize, run: usize) -> Self::State<S>;

    /// The codes of the next two `k`, for 16 outputs.
    ///
    /// # Safety
    /// The run has not ended, and the processor has the instructions of `S`.
    unsafe fn next<S: Simd>(state: &mut Self::State<S>) -> S::Pairs;
}

/// Codes in words: a plane of LOW bits, then one of HIGH bits, which may be none. Codes of even `k` lie in a word's lower half
/// and the odd ones after them in the upper half, each from the lowest bits up.
pub struct Planes<const LOW: u32, const HIGH: u32>;

impl<const LOW: u32, const HIGH: u32> Codes for Planes<LOW, HIGH> {
    const RUN: usize = 32 / LOW as usize;
    const FROM_MEMORY: bool = true;
    type State<S: Simd> = (S::Pairs, S::Pairs);

    #[inline(always)]
    unsafe fn open<S: Simd>(codes: *const u8, group: usize, run: usize) -> Self::State<S> {
        let words = codes.cast::<u32>();
        // SAFETY: the caller's group.
        unsafe {
            let low = S::pairs(words.add(run * STRIP));
            if HIGH == 0 {
                return (low, low);
            }
            let bit = run * Self::RUN * HIGH as usize;
            let plane = words.add(group / Self::RUN * STRIP);
            let high = S::pairs(plane.add(bit / 32 * STRIP));
            (low, S::right_by(high, (bit % 32 / 2) as u32))
        }
    }

    #[inline(always)]
    unsafe fn next<S: Simd>(state: &mut Self::State<S>) -> S::Pairs {
        // SAFETY: the caller's processor.
        unsafe { S::take::<LOW, HIGH>(&mut state.0, &mut state.1) }
    }
}

/// Codes that were decoded for many rows.
pub struct DecodedCodes;

impl Codes for DecodedCodes {
    const RUN: usize = 16;
    const FROM_MEMORY: bool = false;
    type State<S: Simd> = *const u32;

    #[inline(always)]
    unsafe fn open<S: Simd>(codes: *const u8, _: usize, run: usize) -> Self::State<S> {
        codes.cast::<u32>().wrapping_add(run * Self::RUN / 2 * STRIP)
    }

    #[inline(always)]
    unsafe fn next<S: Simd>(state: &mut Self::State<S>) -> S::Pairs {
        // SAFETY: the caller's group.
        unsafe {
            let pairs = S::pairs(*state);
            *state = state.add(STRIP);
            pairs
        }
    }
}

/// Weights that are floats, 16 for each `k`.
pub trait Floats: 'static {
    /// Bytes of one.
    const BYTES: usize;
    /// Do they come from memory, and not from a cache?
    const FROM_MEMORY: bool;

    /// 16 of them.
    ///
    /// # Safety
    /// They are there, and the processor has the instructions of `S`.
    unsafe fn load<S: Simd>(from: *const u8) -> S::V;
}

/// Defines weights that lie as elements.
macro_rules! elements {
    ($(#[$doc:meta])* $name:ident, $kind:ty, $load:ident, $from_memory:literal) => {
        $(#[$doc])*
        pub struct $name;

        impl Floats for $name {
            const BYTES: usize = size_of::<$kind>();
            const FROM_MEMORY: bool = $from_memory;

            #[inline(always)]
            unsafe fn load<S: Simd>(from: *const u8) -> S::V {
                // SAFETY: the caller's.
                unsafe { S::$load(from.cast::<$kind>()) }
            }
        }
    };
}

elements!(/// Single precision.
    Singles, f32, load, true);
elements!(/// Weights that were decoded for many rows.
    DecodedFloats, f32, load, false);
elements!(/// Half precision.
    Halves, u16, f16, true);
elements!(/// The upper half of single precision.
    Brains, u16, bf16, true);
