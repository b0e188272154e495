//! What the platform layer adds to mlx-c: half-precision access and a clock to seed from.

use half::{bf16, f16};
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::random::RandomState;
use mlx_rs::{Array, Dtype};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const VALUES: [f32; 4] = [-1.5, 0.0, 0.25, 1024.0];

#[test]
fn float16_arrays_read_back_as_written() -> Outcome {
    let array = Array::from_slice(&VALUES, &[4]).as_dtype(Dtype::Float16)?;
    assert_eq!(array.try_as_slice::<f16>()?, VALUES.map(f16::from_f32));
    assert_eq!(array.try_index(2)?.try_item_exact::<f16>()?, f16::from_f32(0.25));
    Ok(())
}

#[test]
fn bfloat16_arrays_read_back_as_written() -> Outcome {
    let array = Array::from_slice(&VALUES, &[4]).as_dtype(Dtype::Bfloat16)?;
    assert_eq!(array.try_as_slice::<bf16>()?, VALUES.map(bf16::from_f32));
    assert_eq!(array.try_index(2)?.try_item_exact::<bf16>()?, bf16::from_f32(0.25));
    Ok(())
}

#[test]
fn an_unseeded_random_state_differs_from_the_next() -> Outcome {
    let key = |state: RandomState| {
        Ok::<_, Box<dyn std::error::Error>>(state.as_array().try_as_slice::<u32>()?.to_vec())
    };
    let first = key(RandomState::new()?)?;
    assert_ne!(first, key(RandomState::new()?)?);
    Ok(())
}
