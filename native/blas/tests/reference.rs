//! `cblas_sgemm` against the definition, in double precision, for every argument CBLAS knows.
#![allow(clippy::unwrap_used, clippy::many_single_char_names, reason = "a test of a, b, c and m, n, k")]

use prefixd_blas::cblas_sgemm;
use prefixd_blas::threads::on;
use proptest::prelude::*;

/// A stored matrix: `lines` runs of `length` elements, `leading` apart.
#[derive(Clone, Debug)]
struct Stored {
    leading: usize,
    data: Vec<f32>,
}

impl Stored {
    fn new(lines: usize, length: usize, gap: usize, seed: u32) -> Self {
        let leading = length.max(1) + gap;
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 23) - 1.0
        };
        #[allow(clippy::cast_possible_truncation, reason = "any float will do")]
        let data = (0..lines.max(1) * leading).map(|_| next() as f32).collect();
        Self { leading, data }
    }

    fn at(&self, line: usize, place: usize) -> f32 {
        self.data[line * self.leading + place]
    }
}

#[derive(Clone, Debug)]
struct Case {
    column_major: bool,
    transpose: [i32; 2],
    size: [usize; 3],
    gap: [usize; 3],
    alpha: f32,
    beta: f32,
    seed: u32,
}

/// Sizes around the edges of every tile, and some beyond one.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..20_usize, 2 => 20..70_usize, 1 => 120..300_usize]
}

fn case() -> impl Strategy<Value = Case> {
    let scale = || prop_oneof![Just(0.0), Just(1.0), Just(-0.5), -3.0..3.0_f32];
    let transpose = || prop_oneof![Just(111), Just(112), Just(113)];
    (
        any::<bool>(),
        [transpose(), transpose()],
        [size(), size(), size()],
        [0..9_usize, 0..9, 0..9],
        scale(),
        scale(),
        any::<u32>(),
    )
        .prop_map(|(column_major, transpose, size, gap, alpha, beta, seed)| Case {
            column_major,
            transpose,
            size,
            gap,
            alpha,
            beta,
            seed,
        })
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let Case { column_major, transpose, size: [m, n, k], gap, alpha, beta, seed } = *case;
    let transposed = transpose.map(|transpose| transpose != 111);
    // Stored lines are rows in row-major order, columns in column-major order; a transpose swaps them once more.
    let stored = |rows: usize, columns: usize, swapped: bool, gap, seed| {
        let (lines, length) = if swapped { (columns, rows) } else { (rows, columns) };
        Stored::new(lines, length, gap, seed)
    };
    let read = |matrix: &Stored, row, column, swapped: bool| {
        if swapped { matrix.at(column, row) } else { matrix.at(row, column) }
    };
    let swapped = transposed.map(|transposed| transposed != column_major);
    let a = stored(m, k, swapped[0], gap[0], seed);
    let b = stored(k, n, swapped[1], gap[1], seed ^ 0x5555);
    let mut c = stored(m, n, column_major, gap[2], seed ^ 0xaaaa);
    if beta == 0.0 {
        c.data.fill(f32::NAN); // must not be read
    }
    let before = c.clone();
    let int = |size: usize| i32::try_from(size).unwrap();
    // SAFETY: sizes and leading dimensions are those of the buffers.
    unsafe {
        cblas_sgemm(
            if column_major { 102 } else { 101 },
            transpose[0],
            transpose[1],
            int(m),
            int(n),
            int(k),
            alpha,
            a.data.as_ptr(),
            int(a.leading),
            b.data.as_ptr(),
            int(b.leading),
            beta,
            c.data.as_mut_ptr(),
            int(c.leading),
        );
    }
    let [alpha, beta] = [f64::from(alpha), f64::from(beta)];
    for i in 0..m {
        for j in 0..n {
            let products =
                (0..k).map(|p| f64::from(read(&a, i, p, swapped[0])) * f64::from(read(&b, p, j, swapped[1])));
            let (sum, size) =
                products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
            let old = if beta == 0.0 { 0.0 } else { f64::from(read(&before, i, j, column_major)) };
            let expected = alpha * sum + beta * old;
            let found = f64::from(read(&c, i, j, column_major));
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let bound =
                (k as f64 + 3.0) * f64::from(f32::EPSILON) * (alpha.abs() * size + (beta * old).abs());
            prop_assert!(
                (found - expected).abs() <= bound,
                "({i}, {j}): found {found}, expected {expected} within {bound}"
            );
        }
    }
    // What lies between the lines of C is not C.
    let length = if column_major { m } else { n };
    for (place, (now, then)) in c.data.iter().zip(&before.data).enumerate() {
        let inside = m > 0 && n > 0 && place % c.leading < length;
        prop_assert!(
            inside || now.to_bits() == then.to_bits(),
            "element {place} of C's memory is no element of C"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn a_product_is_what_cblas_defines(case in case()) {
        check(&case)?;
    }
}

#[test]
fn a_large_product_on_two_threads_is_what_cblas_defines() {
    for transpose in [[111, 111], [111, 112], [112, 111], [112, 112]] {
        for column_major in [false, true] {
            let case = Case {
                column_major,
                transpose,
                size: [131, 257, 129],
                gap: [3, 0, 1],
                alpha: 1.0,
                beta: 0.5,
                seed: 7,
            };
            on(2, || check(&case)).unwrap();
        }
    }
}
