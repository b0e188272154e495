//! The law that lets a server compare cached with uncached and batched with solo runs bit for bit: a row of a product
//! does not depend on the other rows, nor on the number of threads.
#![allow(clippy::unwrap_used, clippy::many_single_char_names, reason = "a test of a, b, c and m, n, k")]

use prefixd_blas::cblas_sgemm;
use prefixd_blas::threads::on;

const ROWS: [usize; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 33, 256, 300];
const SIZES: [usize; 6] = [64, 100, 384, 832, 1024, 4097];

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap()) / 32_768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The first `m` rows of a times b, with the weights `[K, N]` or, transposed, `[N, K]`.
fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3], transposed: bool) -> Vec<f32> {
    let mut c = vec![0.0; m * n];
    let [m, n, k] = [m, n, k].map(|size| i32::try_from(size).unwrap());
    let (transpose, ldb) = if transposed { (112, k) } else { (111, n) };
    // SAFETY: the buffers hold these sizes.
    unsafe {
        cblas_sgemm(
            101,
            111,
            transpose,
            m,
            n,
            k,
            1.0,
            a.as_ptr(),
            k,
            b.as_ptr(),
            ldb,
            0.0,
            c.as_mut_ptr(),
            n,
        );
    };
    c
}

fn rows_are_equal(threads: usize, transposed: bool) {
    for k in SIZES {
        let a = numbers(300 * k, 1);
        for n in SIZES {
            // The largest products say nothing that the others do not.
            let most = if k * n > 1 << 22 { 9 } else { 300 };
            let b = numbers(k * n, 2);
            // Every row alone, by one thread.
            let alone: Vec<f32> =
                on(1, || (0..most).flat_map(|i| product(&a[i * k..], &b, [1, n, k], transposed)).collect());
            for m in ROWS.into_iter().filter(|&m| m <= most) {
                let together = on(threads, || product(&a, &b, [m, n, k], transposed));
                let equal = together.iter().zip(&alone).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(
                    equal,
                    "m {m}, n {n}, k {k}, {threads} threads: a row differs from the same row alone"
                );
            }
        }
    }
}

#[test]
fn a_row_is_the_same_in_any_batch() {
    rows_are_equal(1, false);
}

#[test]
fn a_row_is_the_same_in_any_batch_with_transposed_weights() {
    rows_are_equal(1, true);
}

#[test]
fn a_row_is_the_same_by_any_number_of_threads() {
    rows_are_equal(2, false);
}

#[test]
fn a_row_is_the_same_by_any_number_of_threads_with_transposed_weights() {
    rows_are_equal(2, true);
}

#[test]
fn both_weight_layouts_give_the_same_bits() {
    let [m, n, k] = [13, 100, 384];
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
    let (one, other) = (product(&a, &b, [m, n, k], false), product(&a, &transposed, [m, n, k], true));
    assert!(one.iter().zip(&other).all(|(x, y)| x.to_bits() == y.to_bits()));
}
