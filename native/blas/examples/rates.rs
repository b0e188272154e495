//! Prints GFLOP/s per shape and weight layout: `cargo run --release -p prefixd-blas --example rates`.
use std::hint::black_box;
use std::time::Instant;

use prefixd_blas::cblas_sgemm;

fn gemm_crate(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], transposed: bool, c: &mut [f32]) {
    let (rs, cs) = if transposed { (1, k as isize) } else { (n as isize, 1) };
    unsafe {
        gemm::gemm(m, n, k, c.as_mut_ptr(), 1, n as isize, false, a.as_ptr(), 1, k as isize, b.as_ptr(), cs, rs, 0f32, 1f32, false, false, false, gemm::Parallelism::Rayon(0));
    }
}
fn time(flop: f64, mut f: impl FnMut()) -> f64 {
    f();
    let mut best = f64::MAX;
    let start = Instant::now();
    while start.elapsed().as_millis() < 120 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    flop / best / 1e9
}
fn main() {
    let other = std::env::args().any(|x| x == "gemm");
    println!("threads {}", rayon::current_num_threads());
    for (k, n) in [(384, 1024), (1024, 384), (1024, 1024), (64, 1000), (1000, 64)] {
        for transposed in [false, true] {
            print!("K={k:5} N={n:5} {} ", if transposed { "[N,K]" } else { "[K,N]" });
            for m in [1usize, 2, 3, 4, 6, 8, 12, 16, 24, 64, 256, 512] {
                let a: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
                let b: Vec<f32> = (0..n * k).map(|i| (i % 13) as f32 - 6.0).collect();
                let mut c = vec![0f32; m * n];
                let flop = 2.0 * (m * n * k) as f64;
                let g = time(flop, || if other { gemm_crate(m, n, k, &a, &b, transposed, black_box(&mut c)) } else { unsafe {
                    cblas_sgemm(101, 111, if transposed { 112 } else { 111 }, m as i32, n as i32, k as i32, 1.0, a.as_ptr(), k as i32, b.as_ptr(), if transposed { k } else { n } as i32, 0.0, black_box(c.as_mut_ptr()), n as i32) } });
                print!(" {m}:{g:6.1}");
            }
            println!();
        }
    }
}
