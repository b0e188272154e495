//! A weight matrix on the host: products by our own kernels, over weights that stay as they are stored.

use std::rc::Rc;

use half::slice::HalfFloatSliceExt;
use mlx_rs::{Array, Dtype};
use prefixd_blas::packed::{Affine, Matrix, Numbers, ShapeError, Target, products};

use super::source::Codes;
use crate::mlx::array::{Result, dims, from_vec, host};
use crate::mlx::error::{LoadError, MlxError};
use crate::mlx::gate::Mlx;

/// `[out, in]`, in memory of its own. A clone shares it.
#[derive(Clone, Debug)]
pub struct HostMatrix(Rc<Matrix>);

impl HostMatrix {
    /// Repacks codes. `name` is the module's, for errors.
    pub fn affine(
        mx: &Mlx,
        name: &str,
        [out, inner]: [usize; 2],
        codes: &Codes,
    ) -> std::result::Result<Self, LoadError> {
        let stored = Affine {
            codes: host(mx, &codes.codes)?,
            scales: numbers(mx, &codes.scales)?,
            biases: numbers(mx, &codes.biases)?,
            bits: codes.bits as usize,
            group: codes.group as usize,
        };
        Self::named(name, Matrix::affine(out, inner, &stored))
    }

    /// Repacks floats, keeping their type.
    pub fn plain(
        mx: &Mlx,
        name: &str,
        [out, inner]: [usize; 2],
        weights: &Array,
    ) -> std::result::Result<Self, LoadError> {
        Self::named(name, Matrix::plain(out, inner, numbers(mx, weights)?))
    }

    fn named(
        name: &str,
        matrix: std::result::Result<Matrix, ShapeError>,
    ) -> std::result::Result<Self, LoadError> {
        let matrix = matrix.map_err(|error| LoadError::Weights(format!("{name}: {error}")))?;
        Ok(Self(Rc::new(matrix)))
    }

    /// `x W^T` of each matrix, for `x` `[n, in]`, f32.
    pub fn products(mx: &Mlx, x: &Array, matrices: &[&Self]) -> Result<Vec<Vec<f32>>> {
        let x = host::<f32>(mx, x)?;
        let mut results: Vec<Vec<f32>> =
            matrices.iter().map(|Self(matrix)| vec![0.0; x.len() / matrix.inner() * matrix.out()]).collect();
        let targets = matrices.iter().zip(&mut results).map(|(Self(matrix), out)| Target { matrix, out });
        products(x, &mut targets.collect::<Vec<_>>());
        Ok(results)
    }

    /// Rows `[n]` (u32) of the matrix, decoded: `[n, in]`, f32.
    pub fn rows(&self, mx: &Mlx, rows: &Array) -> Result<Array> {
        let (rows, inner) = (host::<u32>(mx, rows)?, self.0.inner());
        let mut decoded = vec![0.0; rows.len() * inner];
        for (row, decoded) in rows.iter().zip(decoded.chunks_exact_mut(inner)) {
            self.0.row(*row as usize, decoded);
        }
        from_vec(mx, decoded, &dims([rows.len(), inner]))
    }

    /// Number of outputs.
    pub fn out(&self) -> usize {
        self.0.out()
    }
}

fn numbers<'a>(mx: &Mlx, array: &'a Array) -> Result<Numbers<'a>> {
    Ok(match array.dtype() {
        Dtype::Float32 => Numbers::F32(host(mx, array)?),
        Dtype::Float16 => Numbers::F16(host::<half::f16>(mx, array)?.reinterpret_cast()),
        Dtype::Bfloat16 => Numbers::Bf16(host::<half::bf16>(mx, array)?.reinterpret_cast()),
        other => return Err(MlxError::backend(format!("weights of {other:?}, expected floats"))),
    })
}
