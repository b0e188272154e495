//! The kernel against plain loops that add in the order that it promises: to the bit.

use half::f16;

use super::super::simd::{Fused, Plain, tree};
#[cfg(target_arch = "x86_64")]
use super::super::simd::{Isa, isa};
use super::super::store::{Encoding, GROUP};
use super::*;

const HEAD_DIM: usize = 64;
const KV_HEADS: usize = 2;
const HEADS: usize = 6;

/// Numbers that look like nothing.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 22) as f32 - 2.0
    }
}

/// One side of a row: the bytes of its pages, and the numbers they stand for, by head and position.
struct Stored {
    side: Side,
    page_bytes: usize,
    pages: Vec<Vec<u8>>,
    numbers: [Vec<[f32; HEAD_DIM]>; KV_HEADS],
}

fn stored(encoding: Encoding, page_tokens: usize, tokens: usize, fused: bool, seed: u64) -> Stored {
    let mut noise = Noise(seed);
    let vectors = KV_HEADS * page_tokens;
    let (bits, factors) = match encoding {
        Encoding::F32 => (32, 0),
        Encoding::F16 => (16, 0),
        Encoding::Affine8 => (8, HEAD_DIM / GROUP * 2),
        Encoding::Affine4 => (4, HEAD_DIM / GROUP * 2),
    };
    let vector = HEAD_DIM * bits / 8;
    let planes = [0, vectors * vector, vectors * (vector + factors)];
    let page_bytes = vectors * (vector + 2 * factors);
    let mut pages = vec![vec![0xff; page_bytes]; tokens.div_ceil(page_tokens)];
    let mut numbers = [const { Vec::new() }; KV_HEADS];
    for (head, numbers) in numbers.iter_mut().enumerate() {
        for position in 0..tokens {
            let page = &mut pages[position / page_tokens];
            let index = head * page_tokens + position % page_tokens;
            let [scale, bias] = [0.01, 1.0].map(|size| f16::from_f32(noise.number() * size));
            if factors > 0 {
                page[planes[1] + 2 * index..][..2].copy_from_slice(&scale.to_le_bytes());
                page[planes[2] + 2 * index..][..2].copy_from_slice(&bias.to_le_bytes());
            }
            let place = &mut page[index * vector..][..vector];
            let affine = |code: u8| {
                let (code, scale, bias) = (f32::from(code), scale.to_f32(), bias.to_f32());
                if fused { code.mul_add(scale, bias) } else { code * scale + bias }
            };
            let mut read = [0.0; HEAD_DIM];
            for (e, read) in read.iter_mut().enumerate() {
                let code = noise.bits() as u8;
                let number = noise.number();
                *read = match encoding {
                    Encoding::F32 => {
                        place[4 * e..][..4].copy_from_slice(&number.to_le_bytes());
                        number
                    }
                    Encoding::F16 => {
                        place[2 * e..][..2].copy_from_slice(&f16::from_f32(number).to_le_bytes());
                        f16::from_f32(number).to_f32()
                    }
                    Encoding::Affine8 => {
                        place[e] = code;
                        affine(code)
                    }
                    Encoding::Affine4 => {
                        let both = &mut place[e / 2];
                        *both = if e % 2 == 0 { code & 15 } else { *both & 15 | (code & 15) << 4 };
                        affine(code & 15)
                    }
                };
            }
            numbers.push(read);
        }
    }
    Stored { side: Side { encoding, planes }, page_bytes, pages, numbers }
}

/// Sum in a fixed order: 16 lanes, then a tree. The length is a multiple of 16.
fn sum16(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for chunk in values.chunks_exact(16) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    tree(lanes)
}

/// Attention of one query vector, already scaled, at `position`.
fn plain<F: Arith>(
    query: &[f32],
    keys: &[[f32; HEAD_DIM]],
    values: &[[f32; HEAD_DIM]],
    from: usize,
) -> Vec<f32> {
    let (mut max, mut sum, mut sums) = (f32::NEG_INFINITY, 0.0, [0.0; HEAD_DIM]);
    for start in (from / KEYS * KEYS..keys.len()).step_by(KEYS) {
        let mut weights = [f32::NEG_INFINITY; KEYS];
        for position in start.max(from)..keys.len().min(start + KEYS) {
            let key = &keys[position];
            weights[position - start] = (0..HEAD_DIM).fold(0.0, |sum, e| F::fma(query[e], key[e], sum));
        }
        let before = max;
        max = weights.iter().copied().fold(max, f32::max);
        let weights = weights.map(|weight| exp::<F>(weight - max));
        let grown = exp::<F>(before - max);
        sum = F::fma(sum, grown, sum16(&weights));
        for (e, total) in sums.iter_mut().enumerate() {
            *total *= grown;
            for (j, weight) in weights.iter().enumerate() {
                *total = F::fma(*weight, values.get(start + j).map_or(0.0, |value| value[e]), *total);
            }
        }
    }
    sums.map(|total| total * (1.0 / sum) + 0.0).to_vec()
}

#[test]
fn every_sum_has_the_order_that_is_promised_whatever_the_pages_and_neighbours() {
    #[cfg(target_arch = "x86_64")]
    let fused = isa() != Isa::Baseline;
    #[cfg(not(target_arch = "x86_64"))]
    let fused = cfg!(target_arch = "aarch64");
    let plain = if fused { plain::<Fused> } else { plain::<Plain> };
    let encodings = [Encoding::F32, Encoding::F16, Encoding::Affine8, Encoding::Affine4];
    for (case, (length, tokens, window)) in
        [(1, 1, None), (300, 1, None), (300, 70, None), (300, 1, Some(100)), (641, 130, Some(200))]
            .iter()
            .enumerate()
    {
        for encoding in encodings {
            let mut seen: Option<Vec<f32>> = None;
            for page_tokens in [16, 100, 256] {
                let seed = 7 + case as u64;
                let keys = stored(encoding, page_tokens, *length, fused, seed);
                let values = stored(encoding, page_tokens, *length, fused, seed + 100);
                // Keys and values of a page lie one behind the other.
                let both = keys.pages.iter().zip(&values.pages);
                let pages: Vec<Vec<u8>> =
                    both.map(|(keys, values)| [&keys[..], &values[..]].concat()).collect();
                let values_side =
                    Side { planes: values.side.planes.map(|begin| keys.page_bytes + begin), ..values.side };
                let position = length - tokens;
                let first =
                    window.map_or(0, |window: usize| (position + 1).saturating_sub(window)) / page_tokens;
                let row = Row {
                    pages: Pages {
                        first,
                        tokens: page_tokens,
                        memory: pages[first..].iter().map(Vec::as_slice).collect(),
                    },
                    position,
                    tokens: *tokens,
                };
                let shape = Shape {
                    heads: HEADS,
                    kv_heads: KV_HEADS,
                    head_dim: HEAD_DIM,
                    value_dim: HEAD_DIM,
                    joined: false,
                    window: *window,
                    scale: 0.11,
                    sinks: None,
                    keys: keys.side,
                    values: values_side,
                };
                let mut noise = Noise(99);
                let queries: Vec<f32> = (0..tokens * HEADS * HEAD_DIM).map(|_| noise.number()).collect();
                let mut found = vec![0.0; queries.len()];
                attend(shape, std::slice::from_ref(&row), &queries, &mut found);
                for (i, query) in queries.chunks_exact(HEAD_DIM).enumerate() {
                    let (position, head) = (position + i / HEADS, i % HEADS / (HEADS / KV_HEADS));
                    let scaled: Vec<f32> = query.iter().map(|q| q * 0.11).collect();
                    let from = window.map_or(0, |window| (position + 1).saturating_sub(window));
                    let expected = plain(
                        &scaled,
                        &keys.numbers[head][..=position],
                        &values.numbers[head][..=position],
                        from,
                    );
                    let found = &found[i * HEAD_DIM..][..HEAD_DIM];
                    // Codes are multiplied as whole numbers, and queries and weights rounded to some.
                    let rounded = matches!(encoding, Encoding::Affine8 | Encoding::Affine4);
                    let size = expected.iter().fold(0.0_f32, |size, x| size.max(x.abs()));
                    let near = |a: &f32, b: &f32| (a - b).abs() < 1e-3 * size;
                    let same = found
                        .iter()
                        .zip(&expected)
                        .all(|(a, b)| if rounded { near(a, b) } else { a.to_bits() == b.to_bits() });
                    assert!(same, "{encoding:?}, pages of {page_tokens}, case {case}, vector {i}");
                }
                // The last query by itself.
                let (alone, all) = (Row { position: length - 1, tokens: 1, ..row.clone() }, found.len());
                let mut last = vec![0.0; HEADS * HEAD_DIM];
                let query = &queries[all - last.len()..];
                attend(shape, &[alone], query, &mut last);
                assert!(last == found[all - last.len()..], "{encoding:?}, case {case}: a query alone");
                let first = seen.get_or_insert_with(|| found.clone());
                assert!(first.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }
}
