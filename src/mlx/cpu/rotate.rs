//! Rotary position embedding of head vectors.
//!
//! Su et al., "RoFormer" (2021): pairs of elements turn by `position * frequency`.

use prefixd_blas::threads;

use super::norm::PARALLEL_ELEMENTS;

/// Positions of a job.
const POSITIONS: usize = 8;

/// Which elements of a vector form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// `i` and `i + n / 2`.
    Halves,
    /// `2 i` and `2 i + 1`.
    Neighbours,
}

/// Cosine and sine of every position of a step, times an amplitude: `[positions, half]` each.
#[derive(Debug)]
pub struct Turns {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Turns {
    /// Angles `position * scale * frequency`, in f32 as MLX computes them, for each position and frequency.
    pub fn new(
        positions: impl Iterator<Item = usize>,
        frequencies: &[f32],
        scale: f32,
        amplitude: f32,
    ) -> Self {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in positions {
            let position = position as f32 * scale;
            for frequency in frequencies {
                let (s, c) = (position * frequency).sin_cos();
                cos.push(c * amplitude);
                sin.push(s * amplitude);
            }
        }
        Self { half: frequencies.len(), cos, sin }
    }
}

/// Turns `x`, `[positions, heads, head_dim]`, into `out`: the first elements of each head, two for a frequency. The others
/// stay as they are.
pub fn rotate(turns: &Turns, pairs: Pairs, [heads, head_dim]: [usize; 2], x: &[f32], out: &mut [f32]) {
    let (half, turned) = (turns.half, turns.half * 2);
    let width = heads * head_dim;
    assert!(turned <= head_dim, "{turned} elements turned of {head_dim}");
    assert!(width > 0 && x.len() == out.len() && x.len() == turns.cos.len() / half * width, "shape of x");
    let turn = |i: usize, out: &mut [f32]| {
        let (cos, sin) = (&turns.cos[i * half..][..half], &turns.sin[i * half..][..half]);
        let vectors = x[i * width..][..width].chunks_exact(head_dim);
        for (x, out) in vectors.zip(out.chunks_exact_mut(head_dim)) {
            let ((x, rest), (out, out_rest)) = (x.split_at(turned), out.split_at_mut(turned));
            out_rest.copy_from_slice(rest);
            match pairs {
                Pairs::Halves => {
                    let ((a, b), (p, q)) = (x.split_at(half), out.split_at_mut(half));
                    for j in 0..half {
                        p[j] = a[j] * cos[j] - b[j] * sin[j];
                        q[j] = a[j] * sin[j] + b[j] * cos[j];
                    }
                }
                Pairs::Neighbours => {
                    for (j, (x, out)) in x.chunks_exact(2).zip(out.chunks_exact_mut(2)).enumerate() {
                        out[0] = x[0] * cos[j] - x[1] * sin[j];
                        out[1] = x[0] * sin[j] + x[1] * cos[j];
                    }
                }
            }
        }
    };
    threads::pieces(x.len() >= PARALLEL_ELEMENTS, out, POSITIONS * width, |piece, out| {
        out.chunks_mut(width).enumerate().for_each(|(i, out)| turn(piece * POSITIONS + i, out));
    });
}
