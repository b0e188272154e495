//! As `rates`, with 192 MB of weights walked through, so that they come from memory.
use prefixd_blas::cblas_sgemm;
use std::time::Instant;
fn main() {
    println!("threads {}", rayon::current_num_threads());
    for (k, n) in [(384usize, 1024usize), (1024, 384), (1024, 1024)] {
        let copies = 192 * 1024 * 1024 / (4 * k * n);
        let w: Vec<Vec<f32>> = (0..copies).map(|c| (0..n * k).map(|i| ((i + c) % 13) as f32 - 6.0).collect()).collect();
        for transposed in [false, true] {
            print!("K={k:5} N={n:5} {} ", if transposed { "[N,K]" } else { "[K,N]" });
            for m in [1usize, 2, 4, 8, 64] {
                let a: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 - 8.0).collect();
                let mut c = vec![0f32; m * n];
                let mut best = f64::MAX;
                for _ in 0..3 {
                    let t = Instant::now();
                    for b in &w {
                        unsafe { cblas_sgemm(101, 111, if transposed { 112 } else { 111 }, m as i32, n as i32, k as i32, 1.0, a.as_ptr(), k as i32, b.as_ptr(), if transposed { k } else { n } as i32, 0.0, c.as_mut_ptr(), n as i32) }
                    }
                    best = best.min(t.elapsed().as_secs_f64() / copies as f64);
                }
                print!(" {m}: {:6.1} GF {:5.1} GB/s", 2.0 * (m * n * k) as f64 / best / 1e9, 4.0 * (n * k) as f64 / best / 1e9);
            }
            println!();
        }
    }
}
