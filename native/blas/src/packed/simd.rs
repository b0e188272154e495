//! Vectors of 16 lanes: what the kernels ask of an instruction set, and the answer in plain Rust.

/// Operations on 16 floats, 16 whole numbers, and 16 pairs of whole numbers of 16 bits.
///
/// Every method is unsafe: the processor must have the instructions, and pointers must have 16 elements.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Simd: Copy + 'static {
    /// 16 x f32.
    type V: Copy;
    /// 16 x i32.
    type Sums: Copy;
    /// 16 pairs of 16 bits.
    type Pairs: Copy;
    /// One pair, for all lanes.
    type Pair: Copy;

    /// Says that a line will be read soon. Any address will do.
    fn prefetch(_: *const u8) {}
    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn multiply(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, in one rounding where the instruction set can.
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn bf16(from: *const u16) -> Self::V;
    unsafe fn f16(from: *const u16) -> Self::V;

    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// Of two numbers the larger; `b` if that is none.
    unsafe fn larger(a: Self::V, b: Self::V) -> Self::V;
    /// Numbers without their signs.
    unsafe fn size(x: Self::V) -> Self::V;
    unsafe fn first(x: Self::V) -> f32;
    /// The largest lane.
    unsafe fn largest(x: Self::V) -> f32;
    /// Of all lanes: each of the first half with its fellow of the second, and so on.
    unsafe fn sum(x: Self::V) -> f32;
    /// `p` times two to the power that stands in the lowest bits of `shifted`; 0 where `x` is below `least`.
    unsafe fn times_two_to(p: Self::V, shifted: Self::V, x: Self::V, least: Self::V) -> Self::V;

    /// Numbers of at most 32,767, rounded to nearest, ties to even, as 16 bits.
    unsafe fn store_whole(to: *mut u16, x: Self::V);

    /// Words of two halves: the lower is a pair's first number.
    unsafe fn pairs(from: *const u32) -> Self::Pairs;
    unsafe fn store_pairs(to: *mut u32, pairs: Self::Pairs);
    /// Moves each half right, by less than 16. What comes in at the top is not defined.
    unsafe fn right_by(pairs: Self::Pairs, bits: u32) -> Self::Pairs;
    /// The lowest code of each half: its lower bits are the LOW lowest of `low`, its upper ones the HIGH lowest of `high`.
    /// Moves both on to the next.
    unsafe fn take<const LOW: u32, const HIGH: u32>(
        low: &mut Self::Pairs,
        high: &mut Self::Pairs,
    ) -> Self::Pairs;
    unsafe fn no_pairs() -> Self::Pairs;
    /// 16 bytes at each place: the first number of each pair is of `first`, the second of `second`.
    unsafe fn joined(first: *const u8, second: *const u8) -> Self::Pairs;
    /// Columns of the words that begin at 16 places: `into[word][row]`, for `words` words, a multiple of 8.
    unsafe fn turn(rows: &[*const u8; 16], words: usize, into: *mut u32) {
        for (lane, row) in rows.iter().enumerate() {
            for word in 0..words {
                // SAFETY: the caller's rows and room.
                unsafe { *into.add(word * 16 + lane) = row.cast::<u32>().add(word).read_unaligned() };
            }
        }
    }
    unsafe fn pair(from: *const u32) -> Self::Pair;
    unsafe fn no_sums() -> Self::Sums;
    /// Adds to each lane's sum the products of its pair with `x`, first with first and second with second.
    unsafe fn dot(sums: Self::Sums, x: Self::Pair, pairs: Self::Pairs) -> Self::Sums;
    /// The sums as floats, rounded to nearest.
    unsafe fn floats(sums: Self::Sums) -> Self::V;
}

/// What a shift or a mask does to both halves of a word.
pub const fn both(half: u32) -> u32 {
    half << 16 | half
}

/// A mask of the lowest bits.
pub const fn lowest(bits: u32) -> u32 {
    (1 << bits) - 1
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

/// The lower and the upper half, with their signs.
#[inline(always)]
fn halves(word: u32) -> [i32; 2] {
    [word.cast_signed() << 16 >> 16, word.cast_signed() >> 16]
}

impl Simd for Portable {
    type V = [f32; LANES];
    type Sums = [i32; LANES];
    type Pairs = [u32; LANES];
    type Pair = u32;

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
    unsafe fn multiply(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i] + c[i])
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
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn larger(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    unsafe fn size(x: Self::V) -> Self::V {
        lanes(|i| x[i].abs())
    }

    #[inline(always)]
    unsafe fn first(x: Self::V) -> f32 {
        x[0]
    }

    #[inline(always)]
    unsafe fn largest(x: Self::V) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, |largest, x| if x > largest { x } else { largest })
    }

    #[inline(always)]
    unsafe fn sum(mut x: Self::V) -> f32 {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                x[i] += x[i + width];
            }
        }
        x[0]
    }

    #[inline(always)]
    unsafe fn times_two_to(p: Self::V, shifted: Self::V, x: Self::V, least: Self::V) -> Self::V {
        let power = |shifted: f32| f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        lanes(|i| if x[i] < least[i] { 0.0 } else { p[i] * power(shifted[i]) })
    }

    #[inline(always)]
    unsafe fn store_whole(to: *mut u16, x: Self::V) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { *to.add(i) = (x + super::whole::ROUNDS).to_bits() as u16 };
        }
    }

    #[inline(always)]
    unsafe fn pairs(from: *const u32) -> Self::Pairs {
        // SAFETY: as above.
        unsafe { from.cast::<Self::Pairs>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_pairs(to: *mut u32, pairs: Self::Pairs) {
        // SAFETY: as above.
        unsafe { to.cast::<Self::Pairs>().write_unaligned(pairs) };
    }

    #[inline(always)]
    unsafe fn right_by(pairs: Self::Pairs, bits: u32) -> Self::Pairs {
        lanes(|i| pairs[i] >> bits)
    }

    #[inline(always)]
    unsafe fn take<const LOW: u32, const HIGH: u32>(
        low: &mut Self::Pairs,
        high: &mut Self::Pairs,
    ) -> Self::Pairs {
        let (from, above) = (*low, *high);
        *low = lanes(|i| from[i] >> LOW);
        *high = lanes(|i| above[i] >> HIGH);
        lanes(|i| from[i] & both(lowest(LOW)) | (above[i] & both(lowest(HIGH))) << LOW)
    }

    #[inline(always)]
    unsafe fn no_pairs() -> Self::Pairs {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn joined(first: *const u8, second: *const u8) -> Self::Pairs {
        // SAFETY: as above.
        let [first, second] =
            [first, second].map(|bytes| unsafe { bytes.cast::<[u8; LANES]>().read_unaligned() });
        lanes(|i| u32::from(second[i]) << 16 | u32::from(first[i]))
    }

    #[inline(always)]
    unsafe fn pair(from: *const u32) -> u32 {
        // SAFETY: as above.
        unsafe { *from }
    }

    #[inline(always)]
    unsafe fn no_sums() -> Self::Sums {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn dot(sums: Self::Sums, x: u32, pairs: Self::Pairs) -> Self::Sums {
        let [first, second] = halves(x);
        lanes(|i| {
            let [a, b] = halves(pairs[i]);
            sums[i] + first * a + second * b
        })
    }

    #[inline(always)]
    #[allow(clippy::cast_precision_loss, reason = "as it is defined")]
    unsafe fn floats(sums: Self::Sums) -> Self::V {
        lanes(|i| sums[i] as f32)
    }
}
