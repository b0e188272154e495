//! Gated activations: `act(gate) * up`, element by element.

use prefixd_blas::threads;

use super::norm::PARALLEL_ELEMENTS;
use super::simd::{Arith, exp, per_isa};

/// The nonlinearity of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)`.
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// gpt-oss's: `x` at most [`CLAMP`] times `1 / (1 + e^(-x STEEPNESS))`, and the other operand, held between plus and
    /// minus `CLAMP`, plus 1.
    ClampedSwiglu,
    /// `max(x, 0)`.
    Relu,
}

/// Bound of [`Activation::ClampedSwiglu`].
pub const CLAMP: f32 = 7.0;
/// Slope of its gate.
pub const STEEPNESS: f32 = 1.702;

/// Elements that a thread takes at once.
const PIECE: usize = 8192;

/// `out = act(gate) * up`.
pub fn gated(activation: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "gate, up and result differ in length");
    let work = |i: usize, out: &mut [f32]| {
        let (gate, up) = (&gate[i * PIECE..][..out.len()], &up[i * PIECE..][..out.len()]);
        match activation {
            Activation::Silu => silu(gate, up, out),
            Activation::GeluTanh => gelu(gate, up, out),
            Activation::ClampedSwiglu => clamped(gate, up, out),
            Activation::Relu => relu(gate, up, out),
        }
    };
    threads::pieces(out.len() >= PARALLEL_ELEMENTS, out, PIECE, work);
}

/// `out = x / (1 + e^-gate)`: as much of `x` as a gate lets through.
pub fn opened(gate: &[f32], x: &[f32], out: &mut [f32]) {
    assert!(gate.len() == x.len() && gate.len() == out.len(), "gate, operand and result differ in length");
    threads::pieces(out.len() >= PARALLEL_ELEMENTS, out, PIECE, |i, out| {
        open(&gate[i * PIECE..][..out.len()], &x[i * PIECE..][..out.len()], out);
    });
}

/// `out = cap * tanh(x / cap)`.
pub fn capped(cap: f32, x: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len(), "operand and result differ in length");
    threads::pieces(out.len() >= PARALLEL_ELEMENTS, out, PIECE, |i, out| {
        cap_each(cap, &x[i * PIECE..][..out.len()], out);
    });
}

per_isa! { fn cap_each(cap: f32, x: &[f32], out: &mut [f32]) = cap_body }
per_isa! { fn open(gate: &[f32], x: &[f32], out: &mut [f32]) = open_body }
per_isa! { fn silu(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_body }
per_isa! { fn gelu(gate: &[f32], up: &[f32], out: &mut [f32]) = gelu_body }
per_isa! { fn clamped(gate: &[f32], up: &[f32], out: &mut [f32]) = clamped_body }
per_isa! { fn relu(gate: &[f32], up: &[f32], out: &mut [f32]) = relu_body }

#[inline(always)]
fn open_body<F: Arith, const N: usize>(gate: &[f32], x: &[f32], out: &mut [f32]) {
    for ((out, gate), x) in out.iter_mut().zip(gate).zip(x) {
        *out = x * sigmoid::<F>(*gate);
    }
}

#[inline(always)]
fn cap_body<F: Arith, const N: usize>(cap: f32, x: &[f32], out: &mut [f32]) {
    // tanh(u) is 2 sigmoid(2u) - 1.
    let double = 2.0 / cap;
    for (out, x) in out.iter_mut().zip(x) {
        *out = F::fma(2.0 * cap, sigmoid::<F>(double * x), -cap);
    }
}

#[inline(always)]
fn silu_body<F: Arith, const N: usize>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, x), up) in out.iter_mut().zip(gate).zip(up) {
        *out = x * sigmoid::<F>(*x) * up;
    }
}

#[inline(always)]
fn gelu_body<F: Arith, const N: usize>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // (1 + tanh(u)) / 2 is sigmoid(2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
    const DOUBLE: f32 = 1.595_769;
    for ((out, x), up) in out.iter_mut().zip(gate).zip(up) {
        let inner = F::fma(0.044_715 * x * x, *x, *x);
        *out = x * sigmoid::<F>(DOUBLE * inner) * up;
    }
}

#[inline(always)]
fn clamped_body<F: Arith, const N: usize>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, x), up) in out.iter_mut().zip(gate).zip(up) {
        let x = if *x > CLAMP { CLAMP } else { *x };
        *out = x * sigmoid::<F>(STEEPNESS * x) * (up.clamp(-CLAMP, CLAMP) + 1.0);
    }
}

#[inline(always)]
fn relu_body<F: Arith, const N: usize>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, x), up) in out.iter_mut().zip(gate).zip(up) {
        *out = if *x > 0.0 { x * up } else { 0.0 };
    }
}

#[inline(always)]
fn sigmoid<F: Arith>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<F>(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_bends_what_is_far_from_0_and_keeps_the_order() {
        let x: Vec<f32> = (0..40_000).map(|i| (i as f32 - 20_000.0) / 200.0).collect();
        let mut all = vec![0.0; x.len()];
        capped(30.0, &x, &mut all);
        for (i, x) in x.iter().enumerate() {
            let mut alone = [0.0];
            capped(30.0, &[*x], &mut alone);
            assert_eq!(alone[0].to_bits(), all[i].to_bits(), "at {x}");
            let exact = 30.0 * (f64::from(*x) / 30.0).tanh();
            assert!((f64::from(all[i]) - exact).abs() < 1e-5, "at {x}: {}, expected {exact}", all[i]);
        }
        assert!(all.is_sorted());
    }

    #[test]
    fn activations_match_their_formulas_and_ignore_position() {
        let gate: Vec<f32> = (0..40_000).map(|i| (i as f32 - 20_000.0) / 1500.0).collect();
        let up = vec![2.0_f32; gate.len()];
        let all = [Activation::Silu, Activation::GeluTanh, Activation::ClampedSwiglu, Activation::Relu];
        for activation in all {
            let mut all = vec![0.0; gate.len()];
            gated(activation, &gate, &up, &mut all);
            for (i, x) in gate.iter().enumerate() {
                let mut alone = [0.0];
                gated(activation, &[*x], &[2.0], &mut alone);
                assert_eq!(alone[0].to_bits(), all[i].to_bits(), "{activation:?} at {x}");
                let x = f64::from(*x);
                let exact = match activation {
                    Activation::Silu => 2.0 * x / (1.0 + (-x).exp()),
                    Activation::GeluTanh => {
                        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                        x * (1.0 + u.tanh())
                    }
                    Activation::ClampedSwiglu => {
                        let x = x.min(7.0);
                        3.0 * x / (1.0 + (-1.702 * x).exp())
                    }
                    Activation::Relu => 2.0 * x.max(0.0),
                };
                assert!((f64::from(all[i]) - exact).abs() < 4e-6, "{activation:?} at {x}");
            }
        }
    }
}
