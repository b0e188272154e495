//! Logits on their way to the host.
//!
//! An array that the host reads moves to memory that host and device share. Where there is a driver, a kernel writes into page-locked
//! memory instead: the array stays where it is, and the bus runs at its rate.

use std::cell::RefCell;
use std::rc::Rc;

use mlx_rs::{Array, Dtype};

use super::array::{Result, dims, host, host_contiguous, settle};
use super::cuda::{Constant, CudaKernel, Driver, Launch, Pinned, Source};
use super::gate::Mlx;

const THREADS: usize = 256;

/// The way to the host.
pub enum ToHost {
    /// By reading the array.
    Read,
    /// By a kernel.
    Written(Box<Written>),
}

/// See the module's documentation.
pub struct Written {
    kernel: CudaKernel,
    driver: Rc<Driver>,
    /// Where it writes, and the address of that as an array `[1]`, u64.
    target: RefCell<(Pinned, Array)>,
}

impl ToHost {
    /// Over the driver, if there is one.
    pub fn new(mx: &Mlx, driver: Option<&Rc<Driver>>, vocab: usize) -> Result<Self> {
        let Some(driver) = driver else { return Ok(Self::Read) };
        let kernel = Source {
            name: "prefixd_to_host",
            inputs: &["x", "to"],
            outputs: &["done"],
            header: "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n",
            body: include_str!("logits.cu"),
            shared_bytes: 0,
        };
        Ok(Self::Written(Box::new(Written {
            kernel: CudaKernel::new(mx, kernel)?,
            driver: driver.clone(),
            target: RefCell::new(target(mx, driver, vocab)?),
        })))
    }

    /// Evaluates `logits`, `[rows, vocab]`, beside `others`. Result: each row's.
    pub fn bring<'a>(
        &self,
        mx: &Mlx,
        logits: &Array,
        others: impl Iterator<Item = &'a Array>,
        vocab: usize,
    ) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Read => {
                let logits = host_contiguous(mx, &logits.as_type::<f32>()?)?;
                settle(mx, others)?;
                Ok(host::<f32>(mx, &logits)?.chunks_exact(vocab).map(<[f32]>::to_vec).collect())
            }
            Self::Written(written) => written.bring(mx, logits, others, vocab),
        }
    }
}

impl Written {
    fn bring<'a>(
        &self,
        mx: &Mlx,
        logits: &Array,
        others: impl Iterator<Item = &'a Array>,
        vocab: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let count = logits.size();
        let mut target_now = self.target.borrow_mut();
        if target_now.0.len() < count * size_of::<f32>() {
            *target_now = target(mx, &self.driver, count)?;
        }
        let (pinned, address) = &mut *target_now;
        let others: Vec<&Array> = others.collect();
        let logits = logits.contiguous()?.reshape(&dims([count]))?;
        let constants = [("T", Constant::Type(logits.dtype()))];
        // SAFETY: the target has room for so many floats, and lives until they are there.
        let done = unsafe {
            self.kernel.call(
                mx,
                &[&logits, address],
                Launch {
                    blocks: [count.div_ceil(THREADS), 1],
                    threads: THREADS,
                    constants: &constants,
                    outputs: &[(&[1], Dtype::Int32)],
                },
            )?
        };
        settle(mx, others.into_iter().chain(&done))?;
        let bytes = &pinned.bytes_mut()[..count * size_of::<f32>()];
        // SAFETY: every pattern of bits is a float, and page-locked memory begins at a page.
        let (_, floats, _) = unsafe { bytes.align_to::<f32>() };
        Ok(floats.chunks_exact(vocab).map(<[f32]>::to_vec).collect())
    }
}

fn target(mx: &Mlx, driver: &Driver, count: usize) -> Result<(Pinned, Array)> {
    let pinned = driver.pinned((count * size_of::<f32>()).next_power_of_two())?;
    let address = Array::from_slice(&[pinned.address()], &[1]);
    settle(mx, [&address])?;
    Ok((pinned, address))
}
