//! Vectors of 16 lanes: what the kernels ask of an instruction set, and the answer in plain Rust.

/// Operations on 16 floats and 16 words.
///
/// Every method is unsafe: the processor must have the instructions, and pointers must have 16 elements.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Simd: Copy + 'static {
    /// 16 x f32.
    type V: Copy;
    /// 16 x u32.
    type W: Copy;

    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// `a * b + c`, in one rounding where the instruction set can.
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Signed bytes as floats.
    unsafe fn bytes(from: *const i8) -> Self::V;
    unsafe fn bf16(from: *const u16) -> Self::V;
    unsafe fn f16(from: *const u16) -> Self::V;
    unsafe fn words(from: *const u32) -> Self::W;
    /// Words of a plane of high bits, moved left so that the next code's come first; and by LOW more in a circle where
    /// `take` wants them there.
    unsafe fn high_words<const LOW: u32>(from: *const u32, left: u32) -> Self::W;
    /// The next code: its LOW lower bits are the upper ones of `low`, its HIGH upper bits those of `high`. It is in
    /// two's complement. Moves both words to the code after it.
    unsafe fn take<const LOW: u32, const HIGH: u32>(low: &mut Self::W, high: &mut Self::W) -> Self::V;
}

/// One lane's code, as [`Simd::take`] defines it.
#[inline(always)]
pub fn signed<const LOW: u32, const HIGH: u32>(low: u32, high: u32) -> i32 {
    if HIGH == 0 {
        return low.cast_signed() >> (32 - LOW);
    }
    // A shift by 32 - 0 is not taken: HIGH is above 0 here.
    let top = high.cast_signed() >> (32 - HIGH.max(1));
    (top << LOW) | (low >> (32 - LOW)).cast_signed()
}

/// f16 to f32, exactly, without branches: the exponent is rebased by a multiplication, which subnormals survive.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
    // 2^112 is the distance of the two exponents' zeros.
    let magnitude = f32::from_bits(rest) * f32::from_bits(0x7780_0000);
    // Infinities and what is no number have all exponent bits in either type.
    let magnitude = if bits & 0x7c00 == 0x7c00 { f32::from_bits(rest | 0x7f80_0000) } else { magnitude };
    f32::from_bits(magnitude.to_bits() | sign)
}

#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Any processor.
#[derive(Clone, Copy)]
pub struct Portable;

const LANES: usize = 16;

#[inline(always)]
fn lanes<T: Copy + Default>(make: impl Fn(usize) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for (i, lane) in out.iter_mut().enumerate() {
        *lane = make(i);
    }
    out
}

impl Simd for Portable {
    type V = [f32; LANES];
    type W = [u32; LANES];

    #[inline(always)]
    unsafe fn zero() -> Self::V {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller has 16 elements there.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: as above.
        unsafe { to.cast::<Self::V>().write_unaligned(v) };
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    unsafe fn bytes(from: *const i8) -> Self::V {
        // SAFETY: as above.
        let bytes = unsafe { from.cast::<[i8; LANES]>().read_unaligned() };
        lanes(|i| f32::from(bytes[i]))
    }

    #[inline(always)]
    unsafe fn bf16(from: *const u16) -> Self::V {
        // SAFETY: as above.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        lanes(|i| bf16_to_f32(halves[i]))
    }

    #[inline(always)]
    unsafe fn f16(from: *const u16) -> Self::V {
        // SAFETY: as above.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        lanes(|i| f16_to_f32(halves[i]))
    }

    #[inline(always)]
    unsafe fn words(from: *const u32) -> Self::W {
        // SAFETY: as above.
        unsafe { from.cast::<Self::W>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn high_words<const LOW: u32>(from: *const u32, left: u32) -> Self::W {
        // SAFETY: as above.
        let words = unsafe { Self::words(from) };
        lanes(|i| words[i] << left)
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(low: &mut Self::W, high: &mut Self::W) -> Self::V {
        let (from, above) = (*low, *high);
        *low = lanes(|i| from[i] << LOW);
        *high = lanes(|i| above[i] << HIGH);
        #[allow(clippy::cast_precision_loss, reason = "codes of few bits")]
        lanes(|i| signed::<LOW, HIGH>(from[i], above[i]) as f32)
    }
}
