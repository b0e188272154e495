//! Codes of a cache as the kernels take a right operand.

use super::cached::VECTORS;
use super::format::STRIP;
use super::simd::Simd;

/// Pairs of a group.
const PAIRS: usize = VECTORS / 2;

/// See [`super::kernels::Unpack`]: vectors become columns, word by word, and a word's codes are taken apart.
///
/// # Safety
/// Rows of `groups` groups of codes of BITS bits, room for as many pairs, and the processor has the instructions of `S`.
#[inline(always)]
pub unsafe fn keys<S: Simd, const BITS: u32>(rows: &[*const u8; VECTORS], groups: usize, into: *mut u32) {
    // Codes of a half word, and words of a group.
    let (codes, words) = (16 / BITS as usize, 2 * BITS as usize);
    let mut turned = [0_u32; STRIP * STRIP];
    for (s, rows) in rows.as_chunks::<STRIP>().0.iter().enumerate() {
        for g in 0..groups {
            // SAFETY: the caller's rows and room.
            unsafe {
                S::turn(&rows.map(|row| row.add(g * words * 4)), words, turned.as_mut_ptr());
                let into = into.add((s * groups + g) * PAIRS * STRIP);
                for word in 0..words {
                    let mut left = S::pairs(turned.as_ptr().add(word * STRIP));
                    for pair in 0..codes {
                        let taken = S::take::<BITS, 0>(&mut left, &mut S::no_pairs());
                        S::store_pairs(into.add((word * codes + pair) * STRIP), taken);
                    }
                }
            }
        }
    }
}

/// See [`super::kernels::Unpack`]: two vectors' bytes are joined to pairs.
///
/// # Safety
/// As above.
#[inline(always)]
pub unsafe fn values<S: Simd, const BITS: u32>(rows: &[*const u8; VECTORS], groups: usize, into: *mut u32) {
    // Codes of a byte, and bytes of a group.
    let (codes, bytes) = (8 / BITS as usize, 8 * BITS as usize);
    for (pair, rows) in rows.as_chunks::<2>().0.iter().enumerate() {
        for g in 0..groups {
            for (piece, at) in (0..bytes).step_by(STRIP).enumerate() {
                // SAFETY: the caller's rows and room.
                unsafe {
                    let at = g * bytes + at;
                    let mut left = S::joined(rows[0].add(at), rows[1].add(at));
                    for code in 0..codes {
                        let strip = g * (VECTORS / STRIP) + piece * codes + code;
                        let taken = S::take::<BITS, 0>(&mut left, &mut S::no_pairs());
                        S::store_pairs(into.add((strip * PAIRS + pair) * STRIP), taken);
                    }
                }
            }
        }
    }
}
