//! Prints the rate of `cblas_sgemm` per shape, weight layout and number of rows, with weights that stay in the caches and
//! with weights that come from memory: `cargo run --release -p prefixd-blas --example product_rates`.
#![allow(
    clippy::cast_precision_loss,
    clippy::many_single_char_names,
    reason = "figures to print, of a, b, c and m, n, k"
)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use prefixd_blas::cblas_sgemm;

const ROWS: [i32; 10] = [1, 2, 4, 8, 12, 16, 32, 64, 256, 512];
const SHAPES: [(i32, i32); 5] = [(384, 1024), (1024, 384), (1024, 1024), (64, 1000), (1000, 64)];
/// More than any cache holds.
const MEMORY: usize = 192 << 20;

fn numbers(count: usize) -> Vec<f32> {
    (0..=u8::MAX).map(|i| f32::from(i % 17) - 8.0).cycle().take(count).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "GFLOP/s by {} threads, of x [M, K] and weights in the layout shown",
        prefixd_blas::threads::count()
    );
    for from_memory in [false, true] {
        for (k, n) in SHAPES {
            let size = usize::try_from(k * n)?;
            let copies = if from_memory { MEMORY / 4 / size } else { 1 };
            let weights: Vec<Vec<f32>> = (0..copies).map(|_| numbers(size)).collect();
            for transposed in [false, true] {
                let (transpose, ldb, layout) =
                    if transposed { (112, k, "[N, K]") } else { (111, n, "[K, N]") };
                print!("{} K={k:4} N={n:4} {layout}", if from_memory { "memory" } else { "cached" });
                for m in ROWS {
                    let x = numbers(usize::try_from(m * k)?);
                    let mut y = numbers(usize::try_from(m * n)?);
                    let mut walk = || {
                        for w in &weights {
                            let (x, w, y) = (x.as_ptr(), w.as_ptr(), black_box(y.as_mut_ptr()));
                            // SAFETY: the buffers have these sizes.
                            unsafe {
                                cblas_sgemm(101, 111, transpose, m, n, k, 1.0, x, k, w, ldb, 0.0, y, n);
                            };
                        }
                    };
                    walk();
                    let (start, mut best) = (Instant::now(), Duration::MAX);
                    while start.elapsed() < Duration::from_millis(60) {
                        let begun = Instant::now();
                        walk();
                        best = best.min(begun.elapsed());
                    }
                    let work = 2.0 * f64::from(m) * size as f64 * copies as f64;
                    print!("  {m}: {:.1}", work / best.as_secs_f64() / 1e9);
                }
                println!();
            }
        }
    }
    Ok(())
}
