//! Products of few and many rows against f64, on the device where there is one.

use mlx_rs::Array;

use super::{DeviceProducts, serves};
use crate::mlx::array::{from_f32, host};
use crate::mlx::backend::Backend;
use crate::mlx::layer::Codes;
use prefixd_engine::{Gate, GateError};

/// Numbers that look random, from -1 to 1.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0
    };
    (0..count).map(next).map(|x| x as f32).collect()
}

/// Needs CUDA; elsewhere only that no kernel is offered is checked.
#[test]
fn products_of_any_number_of_rows_are_those_of_f64() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let mx = owner.thread();
    let backend = Backend::detect(mx).unwrap();
    let Some(products) = DeviceProducts::new(mx, backend).unwrap() else {
        assert_ne!(backend, Backend::Cuda);
        return;
    };
    for (bits, group, [outputs, inner]) in
        [(4, 64, [1000, 2880]), (4, 32, [40, 512]), (8, 64, [264, 4096]), (8, 128, [24, 256])]
    {
        let weight = from_f32(mx, &numbers(outputs * inner, 7), &[outputs as i32, inner as i32]).unwrap();
        let weight = weight.as_dtype(mlx_rs::Dtype::Bfloat16).unwrap();
        let (codes, scales, biases) = mlx_rs::ops::quantize(&weight, group, bits).unwrap();
        let decoded = mlx_rs::ops::dequantize(&codes, &scales, &biases, group, bits).unwrap();
        let exact = floats(mx, &decoded);
        for rows in [1, 2, 7, 8, 9, 16, 17, 33, 48, 49, 130] {
            let x = from_f32(mx, &numbers(rows * inner, 11), &[rows as i32, inner as i32]).unwrap();
            let x = x.as_dtype(mlx_rs::Dtype::Bfloat16).unwrap();
            let [codes, scales, biases] = [&codes, &scales, &biases].map(Array::clone);
            let weight = Codes { codes, scales, biases, group, bits, products: None };
            products.prove(mx, bits, group);
            assert!(products.proven.borrow()[&(bits, group)] && serves(&x, &weight));
            let found = floats(mx, &products.product(mx, &x, &weight).unwrap());
            let values = floats(mx, &x);
            let (mut wrong, mut all) = (0.0, 0.0);
            for (row, found) in values.chunks(inner).zip(found.chunks(outputs)) {
                for (line, found) in exact.chunks(inner).zip(found) {
                    let dot: f64 = row.iter().zip(line).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    wrong += (dot - f64::from(*found)).powi(2);
                    all += dot * dot;
                }
            }
            let distance = (wrong / all).sqrt();
            assert!(distance < 5e-3, "{bits} bits, group {group}, {rows} rows: {distance:e}");
        }
    }
}

fn floats(mx: &crate::mlx::gate::Mlx, array: &Array) -> Vec<f32> {
    let array = array.as_dtype(mlx_rs::Dtype::Float32).unwrap().contiguous().unwrap();
    host::<f32>(mx, &array).unwrap().to_vec()
}
