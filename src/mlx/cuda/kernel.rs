//! Kernels of our own on NVIDIA GPUs: CUDA source that MLX compiles at run time and runs among its own operations.
//!
//! mlx-rs wraps Metal's counterpart only, so this is the same over mlx-c's functions. A kernel compiles when its
//! result is first evaluated; an error in its source comes from there.
//!
//! Some versions of MLX keep a compiled kernel under its name and the constants it is called with, and under nothing
//! else: whatever changes the code, the types of inputs included, must therefore be one of the constants.

use std::ffi::{CString, c_int};

use mlx_rs::{Array, Dtype, Stream};

use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;

/// Names and text of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name; unique in the process.
    pub name: &'a str,
    /// Names of the inputs, as the body uses them.
    pub inputs: &'a [&'a str],
    /// Names of the outputs.
    pub outputs: &'a [&'a str],
    /// What stands before the function.
    pub header: &'a str,
    /// What stands inside.
    pub body: &'a str,
    /// Bytes of shared memory that it takes beside what it declares.
    pub shared_bytes: usize,
}

/// A kernel, ready to be called.
#[derive(Debug)]
pub struct CudaKernel {
    name: String,
    raw: mlx_sys::mlx_fast_cuda_kernel,
}

/// A compile-time constant of a call.
#[derive(Clone, Copy, Debug)]
pub enum Constant {
    /// `constexpr int`.
    Int(usize),
    /// `constexpr bool`.
    Flag(bool),
    /// `using`.
    Type(Dtype),
}

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks.
    pub blocks: [usize; 2],
    /// Threads of a block.
    pub threads: usize,
    /// Constants by name.
    pub constants: &'a [(&'a str, Constant)],
    /// Shapes and types of the outputs.
    pub outputs: &'a [(&'a [i32], Dtype)],
}

impl CudaKernel {
    /// Takes the source. Compiles nothing yet.
    pub fn new(_: &Mlx, source: Source<'_>) -> Result<Self> {
        // Every call hands the text over and hashes it: what the compiler skips would cost time in every step.
        let [header, body] = [source.header, source.body].map(bare);
        let [name, header, body] = [source.name, &header, &body].map(text);
        let (name, header, body) = (name?, header?, body?);
        let (inputs, outputs) = (Names::new(source.inputs)?, Names::new(source.outputs)?);
        // SAFETY: all pointers are live C strings and vectors; MLX copies what they hold.
        let raw = unsafe {
            mlx_sys::mlx_fast_cuda_kernel_new(
                name.as_ptr(),
                inputs.0,
                outputs.0,
                body.as_ptr(),
                header.as_ptr(),
                false,
                source.shared_bytes as c_int,
            )
        };
        if raw.ctx.is_null() {
            return Err(MlxError::backend(format!("MLX refused the CUDA kernel {}", source.name)));
        }
        Ok(Self { name: source.name.to_owned(), raw })
    }

    /// Calls it. Lazy. Inputs must be row-contiguous.
    ///
    /// # Safety
    /// For these inputs and constants the kernel must read and write inside its arrays only, write no input, and write
    /// every element of its outputs.
    pub unsafe fn call(&self, _: &Mlx, inputs: &[&Array], launch: Launch<'_>) -> Result<Vec<Array>> {
        let refused = || MlxError::backend(format!("MLX refused a call of the CUDA kernel {}", self.name));
        let check = |status: c_int| if status == 0 { Ok(()) } else { Err(refused()) };
        let size = |size: usize| c_int::try_from(size).map_err(|_| refused());
        let config = Config::new().ok_or_else(refused)?;
        let (threads, [across, down]) = (size(launch.threads)?, launch.blocks);
        // SAFETY: the configuration is live, and so are the shapes and names while MLX copies them.
        unsafe {
            for (shape, dtype) in launch.outputs {
                check(mlx_sys::mlx_fast_cuda_kernel_config_add_output_arg(
                    config.0,
                    shape.as_ptr(),
                    shape.len(),
                    (*dtype).into(),
                ))?;
            }
            // MLX counts the grid in threads.
            let across = size(across * launch.threads)?;
            check(mlx_sys::mlx_fast_cuda_kernel_config_set_grid(config.0, across, size(down)?, 1))?;
            check(mlx_sys::mlx_fast_cuda_kernel_config_set_thread_group(config.0, threads, 1, 1))?;
            for (name, constant) in launch.constants {
                let name = text(name)?;
                check(match constant {
                    Constant::Int(value) => mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_int(
                        config.0,
                        name.as_ptr(),
                        size(*value)?,
                    ),
                    Constant::Flag(value) => mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_bool(
                        config.0,
                        name.as_ptr(),
                        *value,
                    ),
                    Constant::Type(dtype) => mlx_sys::mlx_fast_cuda_kernel_config_add_template_arg_dtype(
                        config.0,
                        name.as_ptr(),
                        (*dtype).into(),
                    ),
                })?;
            }
        }
        let (inputs, mut outputs) = (Arrays::new(inputs), Arrays::new(&[]));
        let stream = Stream::thread_local_or_gpu();
        // SAFETY: every handle is live; the caller answers for the kernel.
        check(unsafe {
            mlx_sys::mlx_fast_cuda_kernel_apply(
                &raw mut outputs.0,
                self.raw,
                inputs.0,
                config.0,
                stream.as_ptr(),
            )
        })?;
        (0..launch.outputs.len()).map(|i| outputs.get(i).ok_or_else(refused)).collect()
    }
}

impl Drop for CudaKernel {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { mlx_sys::mlx_fast_cuda_kernel_free(self.raw) };
    }
}

/// The text without comments and indents.
fn bare(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| MlxError::backend(format!("text of a CUDA kernel: {error}")))
}

struct Names(mlx_sys::mlx_vector_string);

impl Names {
    fn new(names: &[&str]) -> Result<Self> {
        let owned = names.iter().map(|name| text(name)).collect::<Result<Vec<_>>>()?;
        let mut pointers: Vec<_> = owned.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the pointers are live C strings, which MLX copies.
        Ok(Self(unsafe { mlx_sys::mlx_vector_string_new_data(pointers.as_mut_ptr(), pointers.len()) }))
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { mlx_sys::mlx_vector_string_free(self.0) };
    }
}

struct Arrays(mlx_sys::mlx_vector_array);

impl Arrays {
    fn new(arrays: &[&Array]) -> Self {
        let handles: Vec<_> = arrays.iter().map(|array| array.as_ptr()).collect();
        // SAFETY: the handles are live; the vector takes references of its own.
        Self(unsafe { mlx_sys::mlx_vector_array_new_data(handles.as_ptr(), handles.len()) })
    }

    fn get(&self, index: usize) -> Option<Array> {
        // SAFETY: a fresh handle, filled by the call or freed; `Array` takes it over.
        unsafe {
            let mut handle = mlx_sys::mlx_array_new();
            let status = mlx_sys::mlx_vector_array_get(&raw mut handle, self.0, index);
            let array = Array::from_ptr(handle);
            (status == 0).then_some(array)
        }
    }
}

impl Drop for Arrays {
    fn drop(&mut self) {
        // SAFETY: made by `new` or filled by MLX, freed once.
        unsafe { mlx_sys::mlx_vector_array_free(self.0) };
    }
}

struct Config(mlx_sys::mlx_fast_cuda_kernel_config);

impl Config {
    fn new() -> Option<Self> {
        // SAFETY: no arguments.
        let raw = unsafe { mlx_sys::mlx_fast_cuda_kernel_config_new() };
        (!raw.ctx.is_null()).then_some(Self(raw))
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { mlx_sys::mlx_fast_cuda_kernel_config_free(self.0) };
    }
}
