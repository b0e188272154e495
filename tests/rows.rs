//! A row of MLX's matmul is the same to the last bit alone, in a batch and in a prompt.

use mlx_rs::error::Result;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, random};

fn bits(array: &Array) -> Result<Vec<u32>> {
    let array = array.contiguous()?;
    array.eval()?;
    Ok(array.as_slice::<f32>().iter().map(|x| x.to_bits()).collect())
}

#[test]
fn a_row_of_matmul_is_the_same_alone_in_a_batch_and_in_a_prompt() -> Result<()> {
    random::seed(3)?;
    let rows = 40;
    for (k, n) in [(64, 100), (100, 64), (384, 1024), (1024, 384), (832, 4097), (4097, 64)] {
        let x = random::normal::<f32>(&[rows, k], None, None, None)?;
        let weights = random::normal::<f32>(&[k, n], None, None, None)?;
        let transposed = weights.transpose()?.contiguous()?;
        for weights in [weights, transposed.transpose()?] {
            let together = x.matmul(&weights)?;
            let alone: Vec<Array> = (0..rows)
                .map(|i| x.try_index(i..=i)?.reshape(&[1, 1, k])?.matmul(&weights))
                .collect::<Result<_>>()?;
            for (i, alone) in (0..rows).zip(&alone) {
                assert_eq!(bits(alone)?, bits(&together.try_index(i)?)?, "row {i} of [{k}, {n}]");
            }
            for b in [2, 5, 40] {
                let batch = x.try_index(..b)?.reshape(&[b, 1, k])?.matmul(&weights)?;
                assert_eq!(
                    bits(&batch)?,
                    bits(&together.try_index(..b)?)?,
                    "a batch of {b} rows of [{k}, {n}]"
                );
                let prompt = x.try_index(..b)?.reshape(&[1, b, k])?.matmul(&weights)?;
                assert_eq!(
                    bits(&prompt)?,
                    bits(&together.try_index(..b)?)?,
                    "a prompt of {b} rows of [{k}, {n}]"
                );
            }
        }
    }
    Ok(())
}
