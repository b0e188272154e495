//! A matrix product, with a bias where the model has one.

use mlx_rs::Array;

use super::host::HostMatrix;
use super::source::{Codes, Source};
use crate::mlx::array::{Result, dims, from_vec, host, settle};
use crate::mlx::error::{LoadError, MlxError};
use crate::mlx::gate::Mlx;
use crate::mlx::microfloat::MicroFloats;

/// `x W^T + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Array>,
}

/// A weight matrix, ready to multiply.
#[derive(Debug)]
pub enum Weight {
    /// On the host, in any format.
    Host(HostMatrix),
    /// `[in, out]`, a view.
    Dense(Array),
    /// `[out, in]` as codes.
    Codes(Codes),
    /// `[out, in]` as floats of few bits.
    Micro(MicroFloats),
}

impl Weight {
    /// `[n, in]` to `[n, out]`.
    pub fn product(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        Ok(match self {
            Self::Host(matrix) => {
                let product = HostMatrix::products(mx, x, &[matrix])?.remove(0);
                let shape = dims([product.len() / matrix.out(), matrix.out()]);
                from_vec(mx, product, &shape)?
            }
            Self::Dense(weight) => x.matmul(weight)?,
            Self::Micro(weight) => weight.product(mx, x)?,
            Self::Codes(codes) => codes.product(mx, x)?,
        })
    }

    /// Of stacked matrices on a device: `x`, `[…, 1, in]`, by the matrices `indices`, `[…]`, to `[…, 1, out]`.
    pub fn gathered(&self, mx: &Mlx, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        Ok(match self {
            Self::Host(_) => return Err(MlxError::backend("a matrix on the host is not stacked".into())),
            Self::Dense(weight) => mlx_rs::ops::gather_mm(x, weight, None, indices, sorted)?,
            Self::Micro(weight) => weight.gathered(mx, x, indices, sorted)?,
            Self::Codes(Codes { codes, scales, biases, group, bits, .. }) => {
                mlx_rs::ops::gather_qmm(x, codes, scales, biases, None, indices, true, *group, *bits, sorted)?
            }
        })
    }

    /// The arrays it holds; what lies on the host is no array.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Host(_) => Vec::new(),
            Self::Dense(weight) => vec![weight],
            Self::Micro(weight) => weight.arrays().to_vec(),
            Self::Codes(codes) => codes.arrays().to_vec(),
        }
    }
}

impl Linear {
    /// Of a weight that is ready.
    pub fn new(weight: Weight, bias: Option<Array>) -> Self {
        Self { weight, bias }
    }

    /// Module `path` with `out` outputs over `inner` inputs.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        [out, inner]: [usize; 2],
        bias: bool,
    ) -> std::result::Result<Self, LoadError> {
        let weight = source.matrix(mx, path, out, inner)?.into_weight(mx)?;
        let bias = if bias { Some(source.tensor(mx, &format!("{path}.bias"), &[out])?) } else { None };
        Ok(Self { weight, bias })
    }

    /// One matrix with the outputs of all, in order: one product instead of several. `None` where they are not stored alike, and on
    /// the host, where several products are as good.
    pub fn side_by_side(mx: &Mlx, linears: &[&Self]) -> Result<Option<Self>> {
        let joined = |arrays: Vec<&Array>, axis| -> Result<Array> {
            let joined = mlx_rs::ops::concatenate(&arrays, axis)?;
            settle(mx, [&joined])?;
            Ok(joined)
        };
        let dense = linears.iter().map(|linear| match &linear.weight {
            Weight::Dense(weight) => Some(weight),
            Weight::Host(_) | Weight::Codes(_) | Weight::Micro(_) => None,
        });
        let codes = linears.iter().map(|linear| match &linear.weight {
            Weight::Codes(codes) => Some(codes),
            Weight::Host(_) | Weight::Dense(_) | Weight::Micro(_) => None,
        });
        let (dense, codes): (Option<Vec<_>>, Option<Vec<_>>) = (dense.collect(), codes.collect());
        let weight = match (dense, codes) {
            (Some(dense), _) => Weight::Dense(joined(dense, 1)?),
            (None, Some(codes)) => {
                let first = codes[0];
                let kind = |codes: &Codes| (codes.bits, codes.group, codes.scales.dtype());
                if codes.iter().any(|codes| kind(codes) != kind(first)) {
                    return Ok(None);
                }
                Weight::Codes(Codes {
                    codes: joined(codes.iter().map(|codes| &codes.codes).collect(), 0)?,
                    scales: joined(codes.iter().map(|codes| &codes.scales).collect(), 0)?,
                    biases: joined(codes.iter().map(|codes| &codes.biases).collect(), 0)?,
                    ..first.clone()
                })
            }
            (None, None) => return Ok(None),
        };
        let biases: Vec<&Array> = linears.iter().filter_map(|linear| linear.bias.as_ref()).collect();
        Ok(match biases.len() {
            0 => Some(Self { weight, bias: None }),
            some if some == linears.len() => Some(Self { weight, bias: Some(joined(biases, 0)?) }),
            _ => None,
        })
    }

    /// `[n, in]` to `[n, out]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        let [product] = Self::forward_all(mx, x, [self])?;
        Ok(product)
    }

    /// Several projections of the same `[n, in]`.
    pub fn forward_all<const N: usize>(mx: &Mlx, x: &Array, linears: [&Self; N]) -> Result<[Array; N]> {
        let products = Self::forward_each(mx, x, &linears)?;
        products.try_into().map_err(|_| MlxError::backend("a product was lost".into()))
    }

    /// The same for a number of them that is known later. On the host threads are woken once for all of them.
    pub fn forward_each(mx: &Mlx, x: &Array, linears: &[&Self]) -> Result<Vec<Array>> {
        let on_host = linears.iter().filter_map(|linear| match &linear.weight {
            Weight::Host(matrix) => Some(matrix),
            Weight::Dense(_) | Weight::Codes(_) | Weight::Micro(_) => None,
        });
        let on_host: Vec<&HostMatrix> = on_host.collect();
        if on_host.len() == linears.len() {
            let products = HostMatrix::products(mx, x, &on_host)?;
            let with_bias =
                linears.iter().zip(&on_host).zip(products).map(|((linear, matrix), mut product)| {
                    if let Some(bias) = &linear.bias {
                        let bias = host::<f32>(mx, bias)?;
                        product
                            .chunks_exact_mut(bias.len())
                            .flat_map(|row| row.iter_mut().zip(bias))
                            .for_each(|(y, b)| *y += b);
                    }
                    let shape = dims([product.len() / matrix.out(), matrix.out()]);
                    from_vec(mx, product, &shape)
                });
            with_bias.collect()
        } else {
            let each = linears.iter().map(|linear| {
                let product = linear.weight.product(mx, x)?;
                Ok(match &linear.bias {
                    Some(bias) => product.add(bias)?,
                    None => product,
                })
            });
            each.collect()
        }
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        self.weight.arrays().into_iter().chain(&self.bias).collect()
    }
}
