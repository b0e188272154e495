//! Prints the rates of packed products per format and number of rows, with weights that come from memory:
//! `cargo run --release -p prefixd-blas --example packed_rates [GROUP]`.
#![allow(clippy::cast_precision_loss, reason = "figures to print")]

use std::time::{Duration, Instant};

use prefixd_blas::packed::{Affine, Matrix, Numbers, product};

/// More than any cache holds.
const MEMORY: usize = 600 << 20;

fn main() {
    let group = std::env::args().nth(1).and_then(|group| group.parse().ok()).unwrap_or(64);
    let shapes = [(3072_usize, 8192_usize), (576, 1536)];
    println!(
        "{} threads, groups of {group}: GB/s of weights read, and GFLOP/s, by rows",
        prefixd_blas::threads::count()
    );
    for (inner, out) in shapes {
        for bits in [4, 8, 2, 3, 5, 6, 16, 32] {
            let make = |seed: u32| -> Matrix {
                let mut state = seed;
                let mut next = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state ^ state >> 13
                };
                match bits {
                    16 => {
                        let data: Vec<u16> =
                            (0..out * inner).map(|_| 0x3f00 | (next() >> 24) as u16).collect();
                        Matrix::plain(out, inner, Numbers::Bf16(&data))
                    }
                    32 => {
                        let data: Vec<f32> = (0..out * inner).map(|_| (next() >> 16) as f32).collect();
                        Matrix::plain(out, inner, Numbers::F32(&data))
                    }
                    _ => {
                        let codes: Vec<u32> = (0..out * inner * bits / 32).map(|_| next()).collect();
                        let scales = vec![0x3c00_u16; out * inner / group];
                        let (scales, biases) = (Numbers::F16(&scales), Numbers::F16(&scales));
                        Matrix::affine(out, inner, &Affine { codes: &codes, scales, biases, bits, group })
                    }
                }
                .unwrap_or_else(|error| panic!("{error}"))
            };
            let first = make(0);
            let copies = if inner > 1000 { MEMORY / first.bytes() } else { 60 };
            let matrices: Vec<Matrix> =
                std::iter::once(first).chain((1..copies.max(1)).map(|seed| make(seed as u32))).collect();
            let bytes: usize = matrices.iter().map(Matrix::bytes).sum();
            print!("K={inner} N={out} {bits:2} bits:");
            for rows in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 128, 512] {
                let x: Vec<f32> = (0..rows * inner).map(|i| (i % 17) as f32 - 8.0).collect();
                let mut y = vec![0.0; rows * out];
                // Many rows are not bound by memory.
                let used = if rows > 32 { 2.min(matrices.len()) } else { matrices.len() };
                let (start, mut best) = (Instant::now(), Duration::MAX);
                for matrix in matrices[..used].iter().cycle() {
                    let begun = Instant::now();
                    product(matrix, &x, std::hint::black_box(&mut y));
                    best = best.min(begun.elapsed());
                    if start.elapsed() > Duration::from_millis(250) {
                        break;
                    }
                }
                let seconds = best.as_secs_f64();
                let read = bytes as f64 / matrices.len() as f64 / seconds / 1e9;
                print!("  {rows}: {read:.1} {:.0}", 2.0 * (rows * inner * out) as f64 / seconds / 1e9);
            }
            println!();
        }
    }
}
