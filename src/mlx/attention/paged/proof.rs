//! A proof on the device, when a model is loaded: the kernels over pages against the definition in f64.

use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};
use prefixd_blas::threads;

use super::PagedAttention;
use super::step::Decoding;
use crate::mlx::array::{Result, dims, from_f32, host, host_contiguous, settle};
use crate::mlx::attention::Queries;
use crate::mlx::attention::device::inner;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, KvSpec, PoolRow};
use crate::mlx::mask::Mask;
use crate::mlx::step::Step;

/// Tokens of a row, by the steps it takes: a chunk, few, one.
const STEPS: [usize; 3] = [301, 3, 1];
/// Relative distance allowed between the kernels and the definition: queries and results have 8 bits.
const TOLERANCE: f32 = 5e-3;

/// What a layer's attention was compared on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// The layer.
    pub layer: usize,
    /// New tokens of the step.
    pub tokens: usize,
    /// What was compared.
    pub what: &'static str,
    /// Relative distance of the kernels' result.
    pub distance: f32,
    /// How far it may be.
    pub allowed: f32,
}

impl PagedAttention {
    /// Compiles the kernels and compares them with the definition, for one layer of each kind. `heads` queries, of type `dtype`.
    ///
    /// # Errors
    /// When they differ.
    pub fn prove(&self, mx: &Mlx, spec: &KvSpec, heads: usize, dtype: Dtype) -> Result<Vec<Proof>> {
        let mut proofs = Vec::new();
        let kind = |layer: usize| (spec.masks[layer], spec.sides_of(layer));
        let layers = 0..spec.masks.len();
        for layer in layers.filter(|layer| (0..*layer).all(|before| kind(before) != kind(*layer))) {
            self.prove_layer(mx, spec, layer, heads, dtype, &mut proofs)?;
        }
        let wrong = proofs.iter().find(|proof| proof.distance.is_nan() || proof.distance > proof.allowed);
        match wrong {
            None => Ok(proofs),
            Some(Proof { layer, tokens, what, distance, allowed }) => Err(MlxError::backend(format!(
                "{what} over pages: {distance:e} off at layer {layer} with {tokens} new tokens, expected at most {allowed:e}"
            ))),
        }
    }

    fn prove_layer(
        &self,
        mx: &Mlx,
        spec: &KvSpec,
        layer: usize,
        heads: usize,
        dtype: Dtype,
        proofs: &mut Vec<Proof>,
    ) -> Result<()> {
        let [keys_of, values_of] = spec.sides_of(layer);
        let (mask, length) = (spec.masks[layer], STEPS.iter().sum::<usize>());
        let mut seed = layer as u32;
        let mut noise = |shape: [usize; 3]| -> Result<Array> {
            let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| next(&mut seed)).collect();
            Ok(from_f32(mx, &numbers, &dims(shape))?.as_dtype(dtype)?)
        };
        let all = [
            noise([length, keys_of.heads, keys_of.width])?,
            noise([length, values_of.heads, values_of.width])?,
        ];
        let width = if spec.latent { keys_of.width + values_of.width } else { keys_of.width };
        // Scores that differ, or all that is compared is one mean.
        let scale = 3.0 * (width as f32).powf(-0.5);
        let cut = |array: &Array, from: usize, to: usize| array.try_index(from as i32..to as i32);
        let mut row = PoolRow::default();
        let mut position = 0;
        for tokens in STEPS {
            row.reserve(spec, tokens)?;
            let step = Step::new(mx, [(position, tokens)]);
            let query = noise([tokens, heads, width])?;
            let end = position + tokens;
            let new = [cut(&all[0], position, end)?, cut(&all[1], position, end)?];
            let queries = Queries { array: &query, scale, sinks: None };
            let from = mask.visible_from(position);
            let mut told = self.step(mx, spec, &step, &[&mut row])?;
            let found = told.attend_to(mx, layer, queries, Some([&new[0], &new[1]]))?;
            let decoding = Decoding { row: 0, range: from..end, slots: end - from, dtype: inner(dtype) };
            let [keys, values] = told.decoded(mx, layer, &found, &decoding)?;
            settle(mx, [&found, &keys, &values])?;
            row.advance(spec, tokens);
            let (keys, values) = (floats(mx, &keys)?, floats(mx, &values)?);
            for (side, decoded) in [&keys, &values].into_iter().enumerate() {
                let stored = floats(mx, &cut(&all[side], from, end)?.transpose_axes(&[1, 0, 2])?)?;
                let (distance, allowed) = (distance(decoded, &stored), loss(spec.formats[side]));
                proofs.push(Proof { layer, tokens, what: ["keys", "values"][side], distance, allowed });
            }
            let widths = [keys_of.width, values_of.width];
            let seen = Seen {
                latent: spec.latent,
                mask,
                position,
                from,
                tokens,
                heads,
                kv_heads: keys_of.heads,
                widths,
                scale,
            };
            let expected = seen.attention(&floats(mx, &query)?, &keys, &values);
            let found = floats(mx, &found)?;
            let distance = distance(&found, &expected);
            proofs.push(Proof { layer, tokens, what: "attention", distance, allowed: TOLERANCE });
            position = end;
        }
        Ok(())
    }
}

/// What queries see, and how.
struct Seen {
    latent: bool,
    mask: Mask,
    /// Of the first query.
    position: usize,
    /// Of the first key.
    from: usize,
    tokens: usize,
    heads: usize,
    kv_heads: usize,
    /// Elements of what lies on the two sides.
    widths: [usize; 2],
    scale: f32,
}

impl Seen {
    /// Softmax attention by its definition: queries `[tokens, heads, width]`, keys and values `[kv heads, keys, width]`.
    fn attention(&self, queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let [key_width, value_width] = self.widths;
        let width = if self.latent { key_width + value_width } else { key_width };
        let count = keys.len() / key_width / self.kv_heads;
        let mut out = vec![0.0; self.tokens * self.heads * value_width];
        threads::pieces(true, &mut out, value_width, |number, out| {
            let query = &queries[number * width..][..width];
            let (position, head) = (self.position + number / self.heads, number % self.heads);
            let kv_head = head * self.kv_heads / self.heads;
            let visible = self.mask.visible_from(position) - self.from..position + 1 - self.from;
            let vector = |side: &'_ [f32], key: usize, width: usize| -> Vec<f64> {
                side[(kv_head * count + key) * width..][..width].iter().map(|x| f64::from(*x)).collect()
            };
            let scores = visible.clone().map(|key| {
                let mut whole = if self.latent { vector(values, key, value_width) } else { Vec::new() };
                whole.extend(vector(keys, key, key_width));
                let dot: f64 = whole.iter().zip(query).map(|(k, q)| k * f64::from(*q)).sum();
                dot * f64::from(self.scale)
            });
            let scores: Vec<f64> = scores.collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let mut mixed = vec![0.0; value_width];
            for (weight, key) in weights.iter().zip(visible) {
                let value = vector(values, key, value_width);
                mixed.iter_mut().zip(value).for_each(|(mixed, value)| *mixed += weight / sum * value);
            }
            out.iter_mut().zip(mixed).for_each(|(out, mixed)| *out = mixed as f32);
        });
        out
    }
}

/// Numbers in -2..2 that look like nothing.
fn next(state: &mut u32) -> f32 {
    *state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((*state >> ((*state >> 28) + 4)) ^ *state).wrapping_mul(277_803_737);
    ((word >> 22) ^ word) as f32 / (1_u32 << 30) as f32 - 2.0
}

/// How far even numbers may be from what a format makes of them.
fn loss(format: Format) -> f32 {
    match format {
        Format::F32 => 1e-6,
        Format::F16 => 5e-4,
        Format::Affine8 => 1e-2,
        Format::Affine4 => 1e-1,
    }
}

fn floats(mx: &Mlx, array: &Array) -> Result<Vec<f32>> {
    let array = host_contiguous(mx, &array.as_dtype(Dtype::Float32)?)?;
    Ok(host::<f32>(mx, &array)?.to_vec())
}

/// `|found - expected| / |expected|`.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    let square = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let wrong = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (wrong / square(&mut expected.iter().copied())).sqrt() as f32
}
