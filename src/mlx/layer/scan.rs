//! Recurrent layers on NVIDIA GPUs: kernels over states in pages of the device, all rows of a step in one launch.
//!
//! They go through a row's new tokens in order, so neither chunks nor neighbours change what a token does to a state. States are read where
//! they are and written where the step has made room for the next ones ([`PoolRow::reserve`](crate::mlx::kv::PoolRow::reserve)).

use std::cell::RefCell;

use mlx_rs::{Array, Dtype};

use super::norm::RmsNorm;
use crate::mlx::array::{Result, dims, settle};
use crate::mlx::attention::STEP;
use crate::mlx::backend::Backend;
use crate::mlx::cpu::scan::StateShape;
use crate::mlx::cuda::{BLOCK_SUM, Constant, CudaKernel, Launch, Source};
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::pass::Pass;

/// Threads of a block at most: elements that share a norm.
const MOST_THREADS: usize = 256;
/// Threads of a block of `rule.cu`, and columns of a state that it serves.
const RULE_THREADS: usize = 128;
const COLUMNS: usize = 32;
/// What a key's elements must be a multiple of, for `rule.cu`.
const KEY_STEP: usize = 16;

/// The kernels, ready to be called.
#[derive(Debug)]
pub struct ScanKernels {
    conv: CudaKernel,
    rule: CudaKernel,
    gated_norm: CudaKernel,
    opened_norm: CudaKernel,
    /// `[1]`, i32, of each recurrent layer: its number.
    numbers: RefCell<Vec<Array>>,
}

/// What is done to a convolution's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing.
    Nothing,
    /// An activation.
    Silu,
    /// An activation; queries and keys of this shape, in front, are then made unit vectors.
    Delta(StateShape),
}

/// What states are changed by: projections of the tokens, and numbers of the layer.
#[derive(Clone, Copy, Debug)]
pub struct Gates<'a> {
    /// `[tokens, value heads]`.
    pub decay: &'a Array,
    /// `[value heads]`, f32.
    pub rate: &'a Array,
    /// `[value heads]`.
    pub bias: &'a Array,
    /// What one of the two rules has besides.
    pub rule: RuleGates<'a>,
}

/// See [`Gates`].
#[derive(Clone, Copy, Debug)]
pub enum RuleGates<'a> {
    /// How far the state goes to the value, before it is brought between 0 and 1, `[tokens, value heads]`.
    Delta(&'a Array),
    /// `[value heads + 2]`, f32: how much of a value goes past the state, and the least and the longest step.
    Mamba(&'a Array),
}

impl ScanKernels {
    /// `None` where MLX's operations serve.
    pub fn new(mx: &Mlx, backend: Backend) -> Result<Option<Self>> {
        if backend != Backend::Cuda {
            return Ok(None);
        }
        let header = format!("#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n{STEP}{BLOCK_SUM}");
        let kernel = |name, inputs, outputs, body| {
            CudaKernel::new(mx, Source { name, inputs, outputs, header: &header, body, shared_bytes: 0 })
        };
        let conv = ["step", "at", "x", "kernel"];
        let rule = ["step", "at", "mixed", "decays", "strengths", "rate", "bias", "own"];
        let norm = ["x", "gate", "weight", "eps"];
        Ok(Some(Self {
            conv: kernel("prefixd_short_conv", &conv, &["mixed"], include_str!("scan/conv.cu"))?,
            rule: kernel("prefixd_rule", &rule, &["read"], include_str!("scan/rule.cu"))?,
            gated_norm: kernel("prefixd_gated_norm", &norm, &["y"], include_str!("scan/gated_norm.cu"))?,
            opened_norm: kernel("prefixd_opened_norm", &norm, &["y"], include_str!("scan/opened_norm.cu"))?,
            numbers: RefCell::default(),
        }))
    }

    /// The convolution of `taps` of each row's new vectors `x`, `[tokens, width]`, with those that recurrent layer `layer` holds. `weight`
    /// is `[taps, width]`, or has a bias as one row more. Result `[tokens, width]`, f32. Lazy.
    pub fn conv(
        &self,
        mx: &Mlx,
        pass: &Pass<'_>,
        layer: usize,
        [x, weight]: [&Array; 2],
        taps: usize,
        behind: Behind,
    ) -> Result<Array> {
        let (x, weight) = (x.contiguous()?, weight.as_dtype(x.dtype())?);
        let (tokens, width) = (x.dim(0) as usize, x.dim(1) as usize);
        let (unit, units, queries) = match behind {
            Behind::Nothing | Behind::Silu => (MOST_THREADS, 0, 0),
            Behind::Delta(shape) => (shape.key_dim, 2 * shape.key_heads, shape.key_heads),
        };
        if unit > MOST_THREADS {
            return Err(MlxError::input(format!("keys of {unit} elements; expected at most {MOST_THREADS}")));
        }
        let number = self.number(mx, layer)?;
        // SAFETY: the words name a state before and after the step for each row, which begin with so many vectors of this type and
        // width; every element is written.
        let mut out = unsafe {
            self.conv.call(
                mx,
                &[pass.words()?, &number, &x, &weight],
                Launch {
                    blocks: [width.div_ceil(unit), tokens],
                    threads: unit.next_multiple_of(32),
                    constants: &[
                        ("WIDTH", Constant::Int(width)),
                        ("TAPS", Constant::Int(taps)),
                        ("BIASED", Constant::Flag(weight.dim(0) as usize > taps)),
                        ("UNIT", Constant::Int(unit)),
                        ("UNITS", Constant::Int(units)),
                        ("QUERIES", Constant::Int(queries)),
                        ("SILU", Constant::Flag(behind != Behind::Nothing)),
                        ("T", Constant::Type(x.dtype())),
                    ],
                    outputs: &[(&dims([tokens, width]), Dtype::Float32)],
                },
            )?
        };
        Ok(out.remove(0))
    }

    /// What the states of recurrent layer `layer` are read as by each token, `[tokens, value heads * value dim]`, f32. `mixed` is
    /// what [`conv`](Self::conv) gives. Lazy.
    pub fn rule(
        &self,
        mx: &Mlx,
        pass: &Pass<'_>,
        layer: usize,
        shape: StateShape,
        mixed: &Array,
        gates: Gates<'_>,
    ) -> Result<Array> {
        let StateShape { key_heads, value_heads, key_dim, value_dim } = shape;
        if !key_dim.is_multiple_of(KEY_STEP) {
            return Err(MlxError::input(format!(
                "keys of {key_dim} elements; on this device expected a multiple of {KEY_STEP}"
            )));
        }
        let (tokens, rows) = (mixed.dim(0) as usize, pass.step().rows().len());
        let decay = gates.decay.contiguous()?;
        let (strength, own, mamba) = match gates.rule {
            RuleGates::Delta(strength) => (strength.contiguous()?, gates.rate, false),
            RuleGates::Mamba(own) => (decay.clone(), own, true),
        };
        let number = self.number(mx, layer)?;
        let constants = [
            ("KEY_HEADS", Constant::Int(key_heads)),
            ("VALUE_HEADS", Constant::Int(value_heads)),
            ("K", Constant::Int(key_dim)),
            ("V", Constant::Int(value_dim)),
            ("BEGIN", Constant::Int(pass.state_begin(1))),
            ("MAMBA", Constant::Flag(mamba)),
            ("T", Constant::Type(decay.dtype())),
        ];
        let bias = gates.bias.as_dtype(decay.dtype())?;
        // SAFETY: as above, with a head's matrices behind the vectors; a row's tokens lie one behind the other, and each block writes
        // its columns of every one.
        let mut out = unsafe {
            self.rule.call(
                mx,
                &[pass.words()?, &number, mixed, &decay, &strength, gates.rate, &bias, own],
                Launch {
                    blocks: [value_heads * value_dim.div_ceil(COLUMNS), rows],
                    threads: RULE_THREADS,
                    constants: &constants,
                    outputs: &[(&dims([tokens, value_heads * value_dim]), Dtype::Float32)],
                },
            )?
        };
        Ok(out.remove(0))
    }

    /// The norm of each head of `read`, times the activation of `gate`, both `[tokens, heads * width]`. Of the gate's type. Lazy.
    pub fn gated_norm(&self, mx: &Mlx, read: &Array, gate: &Array, norm: &RmsNorm) -> Result<Array> {
        let gate = gate.contiguous()?;
        let (tokens, all, width) =
            (gate.dim(0) as usize, gate.dim(1) as usize, norm.weight().dim(0) as usize);
        if width > MOST_THREADS {
            return Err(MlxError::input(format!(
                "values of {width} elements; expected at most {MOST_THREADS}"
            )));
        }
        let weight = norm.weight().as_dtype(gate.dtype())?;
        // SAFETY: a thread an element of contiguous arrays of these shapes.
        let mut out = unsafe {
            self.gated_norm.call(
                mx,
                &[read, &gate, &weight, norm.eps()],
                Launch {
                    blocks: [all / width, tokens],
                    threads: width.next_multiple_of(32),
                    constants: &[("V", Constant::Int(width)), ("T", Constant::Type(gate.dtype()))],
                    outputs: &[(&dims([tokens, all]), gate.dtype())],
                },
            )?
        };
        Ok(out.remove(0))
    }

    /// `read` times the activation of `gate`, both `[tokens, groups * width]`, and the norm of each group of so many elements, weighed by
    /// `weight`, `[groups * width]`. Of the gate's type. Lazy.
    pub fn opened_norm(
        &self,
        mx: &Mlx,
        [read, gate, weight, eps]: [&Array; 4],
        width: usize,
    ) -> Result<Array> {
        let (gate, weight) = (gate.contiguous()?, weight.as_dtype(gate.dtype())?);
        let (tokens, all) = (gate.dim(0) as usize, gate.dim(1) as usize);
        // SAFETY: contiguous arrays of these shapes; every element is written.
        let mut out = unsafe {
            self.opened_norm.call(
                mx,
                &[read, &gate, &weight, eps],
                Launch {
                    blocks: [all / width, tokens],
                    threads: MOST_THREADS,
                    constants: &[
                        ("V", Constant::Int(width)),
                        ("THREADS", Constant::Int(MOST_THREADS)),
                        ("T", Constant::Type(gate.dtype())),
                    ],
                    outputs: &[(&dims([tokens, all]), gate.dtype())],
                },
            )?
        };
        Ok(out.remove(0))
    }

    fn number(&self, mx: &Mlx, layer: usize) -> Result<Array> {
        let mut numbers = self.numbers.borrow_mut();
        while numbers.len() <= layer {
            let number = Array::from_slice(&[numbers.len() as i32], &[1]);
            settle(mx, [&number])?;
            numbers.push(number);
        }
        Ok(numbers[layer].clone())
    }
}
