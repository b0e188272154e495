//! Instruction sets: one source, compiled for each, picked at run time.

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

/// How a product is added to a sum.
pub trait Arith: Copy + Send + Sync {
    /// `a * b + c`.
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// One rounding, where the hardware does it in one instruction.
#[derive(Clone, Copy)]
pub struct Fused;

/// Two roundings, where fusing would be a library call.
#[cfg(any(test, not(target_arch = "aarch64")))]
#[derive(Clone, Copy)]
pub struct Plain;

impl Arith for Fused {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg(any(test, not(target_arch = "aarch64")))]
impl Arith for Plain {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// What an x86-64 processor offers. Others have one instruction set here.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// 16 lanes, fused.
    Avx512,
    /// 8 lanes, fused.
    Avx2,
    /// What every machine of the target has.
    Baseline,
}

/// The instruction set in use, decided once.
#[cfg(target_arch = "x86_64")]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
            Isa::Avx512
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Isa::Avx2
        } else {
            Isa::Baseline
        }
    })
}

/// Arithmetic of what every machine of the target has: aarch64 always fuses, x86-64 without FMA cannot.
#[cfg(target_arch = "aarch64")]
pub type Baseline = Fused;
/// Arithmetic of what every machine of the target has: aarch64 always fuses, x86-64 without FMA cannot.
#[cfg(not(target_arch = "aarch64"))]
pub type Baseline = Plain;

/// Defines a function whose generic body is compiled per instruction set. The body takes the arithmetic and the
/// width in lanes at which a register tile is best; neither changes the order of any sum.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        $vis fn $name($($arg: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,fma,f16c")]
                fn avx512($($arg: $kind),*) {
                    $body::<$crate::mlx::cpu::simd::Fused, 32>($($arg),*);
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $kind),*) {
                    $body::<$crate::mlx::cpu::simd::Fused, 16>($($arg),*);
                }
                match $crate::mlx::cpu::simd::isa() {
                    // SAFETY: `isa` names it only when the processor has it.
                    $crate::mlx::cpu::simd::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::mlx::cpu::simd::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::mlx::cpu::simd::Isa::Baseline => {}
                }
            }
            #[allow(unreachable_code)]
            $body::<$crate::mlx::cpu::simd::Baseline, 16>($($arg),*);
        }
    };
}
pub(crate) use per_isa;

/// `e^x` for `x <= 88`, to about one unit in the last place; 0 below -87. The same steps for every lane.
#[inline(always)]
pub fn exp<F: Arith>(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, the first exact in few bits, so that `x - n * ln 2` keeps its precision.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = F::fma(clamped, LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = F::fma(n, -LN2_LOW, F::fma(n, -LN2_HIGH, clamped));
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = F::fma(p, r, coefficient);
    }
    // The low bits of the shifted number are `n`: they become the exponent.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

/// The lanes' sum, pairwise.
#[inline(always)]
pub fn tree(mut lanes: [f32; 16]) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let (exact, fused, plain) = (f64::from(x).exp(), exp::<Fused>(x), exp::<Plain>(x));
            for value in [fused, plain] {
                worst = worst.max(((f64::from(value) - exact) / exact).abs());
            }
        }
        assert!(worst < 2.4e-7, "worst relative error {worst:e}");
        assert_eq!(exp::<Fused>(f32::NEG_INFINITY).to_bits(), 0);
    }
}
