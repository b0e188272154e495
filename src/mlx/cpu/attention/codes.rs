//! The same over affine codes, which are multiplied as whole numbers and never become floats.
//!
//! The score of a key is the product of the query, as whole numbers of 16 bits with a step for each group of 64, and the key's codes. The weights of
//! a tile, times each value's scale, are whole numbers likewise, and meet the values' codes; biases are summed by themselves.

use prefixd_blas::packed::cached::{Bits, Left, Right, Seen, VECTORS};

use super::{KEYS, Task, finish};
use crate::mlx::cpu::simd::Arith;
use crate::mlx::cpu::store::{Encoding, GROUP, Run, Side};

const _: () =
    assert!(KEYS == VECTORS && GROUP == VECTORS, "a tile of keys, and a group of codes, is one product");

/// Bits of the codes of one side, where it has any.
pub fn bits(side: Side) -> Option<Bits> {
    match side.encoding {
        Encoding::F32 | Encoding::F16 => None,
        Encoding::Affine8 => Some(Bits::Eight),
        Encoding::Affine4 => Some(Bits::Four),
    }
}

/// What a tile holds of one side: 64 vectors' codes, and by group their scales and biases (f16). Vectors that are not there are 0.
struct Gathered<'a> {
    side: Side,
    bits: Bits,
    none: &'a [u8],
    codes: [&'a [u8]; KEYS],
    scales: Vec<[u16; KEYS]>,
    biases: Vec<[u16; KEYS]>,
}

impl<'a> Gathered<'a> {
    fn new(side: Side, bits: Bits, groups: usize, none: &'a [u8]) -> Self {
        let factors = vec![[0; KEYS]; groups];
        Self { side, bits, none, codes: [none; KEYS], scales: factors.clone(), biases: factors }
    }

    /// Takes a run as the tile's vectors from `at` on; without one the vector there is 0.
    #[inline(always)]
    fn take(&mut self, run: Option<Run<'a>>, at: usize) {
        let Some(run) = run else {
            self.codes[at] = self.none;
            self.scales.iter_mut().chain(&mut self.biases).for_each(|factors| factors[at] = 0);
            return;
        };
        let groups = self.scales.len();
        let bytes = groups * self.bits.group_bytes();
        let codes = &run.page[self.side.planes[0] + run.index * bytes..][..run.count * bytes];
        for (place, codes) in self.codes[at..].iter_mut().zip(codes.chunks_exact(bytes)) {
            *place = codes;
        }
        for (group, (scales, biases)) in self.scales.iter_mut().zip(&mut self.biases).enumerate() {
            let room = at..at + run.count;
            self.side.group_factors(run, groups, group, &mut scales[room.clone()], &mut biases[room]);
        }
    }
}

/// Computes one unit: `result` is `[queries, repeats, value_dim]`.
#[inline(always)]
pub fn fold<F: Arith, const N: usize>(
    task: &Task<'_>,
    [key_bits, value_bits]: [Bits; 2],
    result: &mut [f32],
) {
    let shape = task.shape;
    let (d, value_dim, vectors) = (shape.head_dim, shape.value_dim, task.vectors());
    let (key_groups, value_groups) = (d / GROUP, value_dim / GROUP);

    let scaled = task.scaled_queries();
    let mut turned = vec![0.0; scaled.len()];
    key_bits.like_keys(&scaled, &mut turned);
    let mut queries = Left::new(vectors, key_groups);
    queries.set(&turned);
    let none = vec![0_u8; d.max(value_dim)];
    let mut keys = Gathered::new(shape.keys, key_bits, key_groups, &none);
    let mut values = Gathered::new(shape.values, value_bits, value_groups, &none);
    let (mut right_keys, mut right_values) =
        (Right::new(key_bits, key_groups), Right::new(value_bits, value_groups));
    let mut scores = vec![0.0_f32; vectors * KEYS];
    let mut weights = Left::new(vectors, 1);
    let mut sums = vec![0.0_f32; vectors * value_dim];
    let mut seen = vec![Seen::NOTHING; vectors];

    for tile in task.tiles() {
        task.runs(tile, |run, at| {
            keys.take(run, at);
            values.take(run, at);
        });
        right_keys.set_keys(&keys.codes, &keys.scales, &keys.biases);
        right_values.set_values(&values.codes);
        right_keys.scores(&queries, &mut scores);
        for (i, scores) in scores.as_chunks_mut::<KEYS>().0.iter_mut().enumerate() {
            let grown = seen[i].weigh(scores, task.visible(tile, i));
            for sum in &mut sums[i * value_dim..][..value_dim] {
                *sum *= grown;
            }
        }
        for group in 0..value_groups {
            weights.set_weights(&scores, &values.scales[group], &values.biases[group]);
            right_values.add_values(group, &weights, &mut sums, value_dim);
        }
    }
    let mut ordered = vec![0.0; sums.len()];
    value_bits.from_values(&sums, &mut ordered);
    finish::<F>(task, &seen, &ordered, value_dim, result);
}
