//! Scratch: a matmul on the CPU.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use mlx_rs::{Array, Device};
    let a = Array::from_slice(&[1f32, 2., 3., 4.], &[2, 2]);
    let c = a.matmul(&a)?;
    c.eval()?;
    println!("{:?} {c:?}", c.as_slice::<f32>());
    println!("{:?}", Device::default());
    Ok(())
}
