//! From a file's rows to strips.

use super::format::{Affine, Kind, Layout, Numbers, STRIP};

/// Bits of a code in the plane of lower bits and in that of upper bits.
pub fn planes(bits: usize) -> (usize, usize) {
    match bits {
        2 => (2, 0),
        3 => (2, 1),
        4 => (4, 0),
        5 => (4, 1),
        6 => (4, 2),
        _ => (8, 0),
    }
}

/// Writes a strip of a matrix of codes. What lies beyond the last row stays as it is.
pub fn affine(stored: &Affine<'_>, [out, inner]: [usize; 2], strip: usize, memory: &mut [u8]) {
    let Affine { bits, group, .. } = *stored;
    let layout = Layout { kind: Kind::Affine(bits, stored.scales.float()), group };
    let (rows, groups) = (out.min((strip + 1) * STRIP) - strip * STRIP, inner / group);
    let (row_words, group_words) = (inner * bits / 32, group * bits / 32);
    let mut codes = [0_u8; 128];
    for (g, memory) in memory.chunks_exact_mut(layout.group_bytes()).enumerate() {
        let (weights, scales) = memory.split_at_mut(layout.weight_bytes());
        for lane in 0..rows {
            let row = strip * STRIP + lane;
            let words = &stored.codes[row * row_words + g * group_words..][..group_words];
            if bits == 4 {
                fours(words, lane, weights);
            } else {
                spread(words, bits, &mut codes[..group]);
                place(&codes[..group], bits, lane, weights);
            }
            copy(stored.scales, row * groups + g, scales, lane);
            copy(stored.biases, row * groups + g, scales, STRIP + lane);
        }
    }
}

/// Writes a strip of a matrix of floats.
pub fn plain(stored: Numbers<'_>, [out, inner]: [usize; 2], strip: usize, memory: &mut [u8]) {
    let rows = out.min((strip + 1) * STRIP) - strip * STRIP;
    for lane in 0..rows {
        let row = strip * STRIP + lane;
        for k in 0..inner {
            copy(stored, row * inner + k, memory, k * STRIP + lane);
        }
    }
}

fn copy(from: Numbers<'_>, index: usize, to: &mut [u8], at: usize) {
    match from {
        Numbers::F32(data) => to[4 * at..][..4].copy_from_slice(&data[index].to_le_bytes()),
        Numbers::F16(data) | Numbers::Bf16(data) => {
            to[2 * at..][..2].copy_from_slice(&data[index].to_le_bytes());
        }
    }
}

fn put(word: u32, to: &mut [u8], at: usize) {
    to[4 * at..][..4].copy_from_slice(&word.to_le_bytes());
}

/// The codes of a group, one to a byte.
fn spread(words: &[u32], bits: usize, codes: &mut [u8]) {
    let (mut buffer, mut held, mut words) = (0_u64, 0, words.iter());
    for code in codes {
        if held < bits {
            buffer |= u64::from(words.next().copied().unwrap_or(0)) << held;
            held += 32;
        }
        *code = (buffer & ((1 << bits) - 1)) as u8;
        buffer >>= bits;
        held -= bits;
    }
}

/// Places a group's codes in planes.
fn place(codes: &[u8], bits: usize, lane: usize, weights: &mut [u8]) {
    let (low, high) = planes(bits);
    let mut plane = |at: usize, skipped: usize, width: usize| {
        for (i, codes) in codes.chunks(32 / width).enumerate() {
            let word = codes.chunks(2).rev().fold(0_u32, |word, pair| {
                let [even, odd] =
                    [pair[0], pair[1]].map(|code| u32::from(code) >> skipped & ((1 << width) - 1));
                word << width | odd << 16 | even
            });
            put(word, weights, at + i * STRIP + lane);
        }
    };
    plane(0, 0, low);
    if high > 0 {
        plane(codes.len() * low / 32 * STRIP, low, high);
    }
}

/// Codes of 4 bits: a file's word has its eight codes in order from the lowest bits up, a strip's the even ones and then the
/// odd ones.
fn fours(words: &[u32], lane: usize, weights: &mut [u8]) {
    for (i, word) in words.iter().enumerate() {
        // Swaps the middle two of every four, for fours of codes, then of pairs of codes.
        let swapped = |word: u32, bits: u32, mask: u32| {
            let moved = (word ^ word >> bits) & mask;
            word ^ moved ^ moved << bits
        };
        let word = swapped(swapped(*word, 4, 0x00f0_00f0), 8, 0x0000_ff00);
        put(word, weights, i * STRIP + lane);
    }
}
