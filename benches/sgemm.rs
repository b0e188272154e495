//! MLX's f32 product on the CPU, against the same product by the BLAS that MLX's wheel carries.
//!
//! The program fails where ours is not at least 20 times as fast, or where MLX does not call ours.

use std::ffi::{c_float, c_int};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::Criterion;
use libloading::{Library, Symbol};
use mlx_rs::{Array, random};

const M: i32 = 256;
const K: i32 = 1024;
const N: i32 = 1024;
const AT_LEAST: f64 = 20.0;

type Failure = Box<dyn std::error::Error>;
type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_float,
    *const c_float,
    c_int,
    *const c_float,
    c_int,
    c_float,
    *mut c_float,
    c_int,
);

/// The BLAS beside the library this program was built with.
fn wheels_blas() -> Result<PathBuf, Failure> {
    let root = Path::new(env!("PREFIXD_MLX_ROOT"));
    for entry in root.join("mlx_cpu.libs").read_dir()? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libblas")) {
            return Ok(path);
        }
    }
    Err(format!("no libblas in {}/mlx_cpu.libs", root.display()).into())
}

fn fastest(runs: u32, mut run: impl FnMut() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn main() -> Result<(), Failure> {
    random::seed(1)?;
    let a = random::normal::<f32>(&[M, K], None, None, None)?;
    let b = random::normal::<f32>(&[K, N], None, None, None)?;
    mlx_rs::transforms::eval([&a, &b])?;
    let product = || -> Result<Array, Failure> {
        let c = a.matmul(&b)?;
        c.eval()?;
        Ok(c)
    };

    let blas = wheels_blas()?;
    // SAFETY: a BLAS runs nothing when it is loaded.
    let library = unsafe { Library::new(&blas)? };
    // SAFETY: CBLAS's signature.
    let reference: Symbol<'_, Sgemm> = unsafe { library.get(b"cblas_sgemm\0")? };
    let (left, right) = (a.try_as_slice::<f32>()?, b.try_as_slice::<f32>()?);
    let mut result = vec![0.0_f32; left.len() / K as usize * N as usize];
    let mut by_reference = || {
        // SAFETY: the arrays and the result have these sizes, row after row.
        unsafe {
            reference(
                101,
                111,
                111,
                M,
                N,
                K,
                1.0,
                left.as_ptr(),
                K,
                right.as_ptr(),
                N,
                0.0,
                result.as_mut_ptr(),
                N,
            );
        }
        Ok(())
    };

    let slow = fastest(3, &mut by_reference)?;
    let fast = fastest(50, || product().map(|c| drop(black_box(c))))?;
    let ratio = slow.as_secs_f64() / fast.as_secs_f64();
    let rate = |time: Duration| 2.0 * f64::from(M) * f64::from(K) * f64::from(N) / time.as_secs_f64() / 1e9;
    println!("{M} x {K} x {N} f32: wheel's BLAS {slow:.1?} ({:.1} GFLOP/s)", rate(slow));
    println!(
        "{M} x {K} x {N} f32: MLX matmul {fast:.1?} ({:.1} GFLOP/s), {ratio:.0} times as fast",
        rate(fast)
    );

    let c = product()?;
    let worst = c.try_as_slice::<f32>()?.iter().zip(&result).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    if worst > 1e-2 {
        return Err(format!("the two products differ by {worst}, expected at most 0.01").into());
    }
    if ratio < AT_LEAST {
        return Err(
            format!("{ratio:.1} times as fast as the wheel's BLAS, expected at least {AT_LEAST}").into()
        );
    }

    let mut criterion = Criterion::default().configure_from_args();
    criterion
        .bench_function("mlx matmul 256x1024x1024 f32", |bench| bench.iter(|| product().map(black_box).ok()));
    criterion.final_summary();
    Ok(())
}
