//! The C interface: CBLAS's `cblas_sgemm`, by the name libmlx looks up.

use std::ffi::c_int;

use crate::operand::Operand;
use crate::product::Product;

const ROW_MAJOR: c_int = 101;
const COLUMN_MAJOR: c_int = 102;
const NO_TRANSPOSE: c_int = 111;
const TRANSPOSE: c_int = 112;
/// Of a real matrix, the same as the transpose.
const CONJUGATE_TRANSPOSE: c_int = 113;

/// `C = alpha * op(A) op(B) + beta * C`, as CBLAS defines it: op(A) is m x k, op(B) is k x n, C is m x n.
///
/// A row of C is the same to the last bit whatever m is and however many threads there are. An argument that makes no
/// sense ends the process, as in the reference implementation: there is no way to report it.
///
/// # Safety
/// The matrices have the sizes and leading dimensions given, and nothing else touches C meanwhile.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "CBLAS's signature")]
pub unsafe extern "C" fn cblas_sgemm(
    order: c_int,
    transpose_a: c_int,
    transpose_b: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: f32,
    a: *const f32,
    lda: c_int,
    b: *const f32,
    ldb: c_int,
    beta: f32,
    c: *mut f32,
    ldc: c_int,
) {
    let row_major = match order {
        ROW_MAJOR => true,
        COLUMN_MAJOR => false,
        _ => refuse("order", order, "101 (row-major) or 102 (column-major)"),
    };
    let a_transposed = transposed("transpose of A", transpose_a);
    let b_transposed = transposed("transpose of B", transpose_b);
    let [m, n, k] = [("m", m), ("n", n), ("k", k)].map(|(name, size)| {
        usize::try_from(size).unwrap_or_else(|_| refuse(name, size, "a size of at least 0"))
    });
    // The length of what is contiguous bounds a leading dimension from below.
    let leading = |name, leading: c_int, transposed: bool, (rows, columns)| {
        let least = if transposed == row_major { rows } else { columns };
        let found = usize::try_from(leading).ok().filter(|&leading| leading >= usize::max(least, 1));
        found.unwrap_or_else(|| {
            refuse(name, leading, "a leading dimension of at least 1 and of the matrix's own")
        })
    };
    let operand = |data, leading, transposed: bool| {
        let stored = Operand { data, row_stride: leading, column_stride: 1 };
        if transposed == row_major { stored.transposed() } else { stored }
    };
    let lda = leading("lda", lda, a_transposed, (m, k));
    let ldb = leading("ldb", ldb, b_transposed, (k, n));
    let ldc = leading("ldc", ldc, false, (m, n));
    let a = operand(a, lda, a_transposed);
    let b = operand(b, ldb, b_transposed);
    let product = if row_major {
        Product { m, n, k, alpha, a, b, beta, c, c_stride: ldc }
    } else {
        // Row-major memory of C transposed, which is op(B) transposed times op(A) transposed.
        Product { m: n, n: m, k, alpha, a: b.transposed(), b: a.transposed(), beta, c, c_stride: ldc }
    };
    // SAFETY: the caller's sizes.
    unsafe { product.run() };
}

fn transposed(name: &str, value: c_int) -> bool {
    match value {
        NO_TRANSPOSE => false,
        TRANSPOSE | CONJUGATE_TRANSPOSE => true,
        _ => refuse(name, value, "111 (no), 112 (yes) or 113 (conjugate)"),
    }
}

fn refuse(name: &str, found: c_int, expected: &str) -> ! {
    eprintln!("cblas_sgemm: {name} is {found}, expected {expected}");
    std::process::abort()
}
