//! A batch: rows in order, each with keys and values of its own.
//!
//! 1. There is no padding and no mask between rows. A row that joins, leaves or moves copies no token of another. (Measured
//!    on the CPU: attention is one task per row and head anyway, so padding could only add work; on CUDA an additive mask
//!    costs a third more than none.) What rows share they only read.
//! 2. Every method returns with its work done: nothing lazy is left behind.
//! 3. A row's length changes last: a step that fails half-way leaves the row as it was.
//! 4. All rows are of the kind that the spec's kernels read.

use std::rc::Rc;

use mlx_rs::Array;

use super::device::{DeviceRow, LayerKv};
use super::paged::{HostRow, PoolRow};
use super::spec::KvSpec;
use crate::mlx::array::{Result, settle};
use crate::mlx::backend::Kernels;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;

/// One row.
#[derive(Debug)]
pub enum RowKv {
    /// Its tokens lie in pages of host memory.
    Host(HostRow),
    /// Its tokens lie in pages of a device's memory.
    Pool(PoolRow),
    /// Its tokens lie in arrays.
    Device(DeviceRow),
}

impl RowKv {
    fn empty(spec: &KvSpec) -> Self {
        match spec.kernels {
            Kernels::Host => Self::Host(HostRow::default()),
            Kernels::Device if spec.pool.is_some() => Self::Pool(PoolRow::default()),
            Kernels::Device => Self::Device(DeviceRow::empty(spec)),
        }
    }

    /// Tokens held.
    pub fn length(&self) -> usize {
        match self {
            Self::Host(row) => row.length(),
            Self::Pool(row) => row.length(),
            Self::Device(row) => row.length,
        }
    }

    /// Counts `more` tokens as held: all layers have them, evaluated.
    pub fn advance(&mut self, spec: &KvSpec, more: usize) {
        match self {
            Self::Host(row) => row.advance(spec, more),
            Self::Pool(row) => row.advance(spec, more),
            Self::Device(row) => {
                row.length += more;
                row.states.commit();
            }
        }
    }

    /// Makes room for `more` tokens behind its end.
    ///
    /// # Errors
    /// When there is no memory, or a recurrent layer's state is missing.
    pub fn reserve(&mut self, mx: &Mlx, spec: &KvSpec, more: usize) -> Result<()> {
        match self {
            Self::Host(row) => row.reserve(spec, more),
            Self::Pool(row) => row.reserve(spec, more),
            Self::Device(row) => row.reserve(mx, spec, more),
        }
    }

    /// The arrays that belong to it: none where it lies in pages.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        let row = match self {
            Self::Host(_) | Self::Pool(_) => None,
            Self::Device(row) => Some(row),
        };
        row.into_iter().flat_map(|row| {
            let states = row.states.all().flat_map(|state| &state.tensors);
            row.layers.iter().flat_map(LayerKv::planes).chain(states)
        })
    }
}

/// Rows in order.
#[derive(Debug)]
pub struct BatchKv {
    spec: Rc<KvSpec>,
    rows: Vec<RowKv>,
}

impl BatchKv {
    /// A batch without rows.
    pub fn new(spec: Rc<KvSpec>) -> Self {
        Self { spec, rows: Vec::new() }
    }

    /// A batch of one row without tokens.
    pub fn start(spec: Rc<KvSpec>) -> Self {
        let row = RowKv::empty(&spec);
        Self { spec, rows: vec![row] }
    }

    /// A batch of one row.
    pub(in crate::mlx) fn of(spec: Rc<KvSpec>, row: RowKv) -> Self {
        Self { spec, rows: vec![row] }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No rows?
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Tokens of each row.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(RowKv::length)
    }

    /// Shapes and formats.
    pub fn spec(&self) -> &Rc<KvSpec> {
        &self.spec
    }

    pub(in crate::mlx) fn rows(&self) -> &[RowKv] {
        &self.rows
    }

    pub(in crate::mlx) fn rows_mut(&mut self) -> &mut [RowKv] {
        &mut self.rows
    }

    /// A row by number.
    pub(in crate::mlx) fn row(&self, row: usize) -> Result<&RowKv> {
        let count = self.rows.len();
        self.rows.get(row).ok_or_else(|| MlxError::input(format!("row {row} of a batch of {count}")))
    }

    /// Keeps the rows named, in that order. The others are freed.
    pub fn filter(&mut self, mx: &Mlx, keep: &[usize]) -> Result<()> {
        let count = self.rows.len();
        let mut rows: Vec<Option<RowKv>> = (0..count).map(|_| None).collect();
        let distinct = keep.iter().all(|&row| row < count) && {
            let mut sorted = keep.to_vec();
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair[0] != pair[1])
        };
        if !distinct {
            return Err(MlxError::input(format!(
                "rows {keep:?} of a batch of {count}: each may be named once"
            )));
        }
        for (slot, row) in rows.iter_mut().zip(self.rows.drain(..)) {
            *slot = Some(row);
        }
        let kept = keep.iter().filter_map(|&row| rows[row].take()).collect();
        self.rows = kept;
        self.settle(mx)
    }

    /// Moves the rows of `other` behind these.
    pub fn extend(&mut self, mx: &Mlx, other: Self) -> Result<()> {
        if !Rc::ptr_eq(&self.spec, &other.spec) {
            return Err(MlxError::input("rows of another model or KV setting cannot join the batch".into()));
        }
        self.rows.extend(other.rows);
        self.settle(mx)
    }

    /// One batch of the rows of all, in order.
    pub fn merge(mx: &Mlx, spec: Rc<KvSpec>, batches: impl IntoIterator<Item = Self>) -> Result<Self> {
        let mut merged = Self::new(spec);
        for batch in batches {
            merged.extend(mx, batch)?;
        }
        Ok(merged)
    }

    /// A copy of one row, as a batch of its own. It shares the row's pages, if it has some, but for those being written.
    pub fn extract(&self, mx: &Mlx, row: usize) -> Result<Self> {
        let row = match self.row(row)? {
            RowKv::Host(row) => RowKv::Host(row.duplicate(&self.spec)?),
            RowKv::Pool(row) => RowKv::Pool(row.duplicate(&self.spec)?),
            RowKv::Device(row) => RowKv::Device(row.copied(mx, &self.spec)?),
        };
        Ok(Self::of(self.spec.clone(), row))
    }

    /// Forgets a row's tokens from `length` on. Window layers must still hold what the next query sees; the state of a
    /// recurrent layer cannot be cut.
    pub fn trim(&mut self, mx: &Mlx, row: usize, length: usize) -> Result<()> {
        let held = self.row(row)?.length();
        if length > held {
            return Err(MlxError::input(format!("cannot trim a row of {held} tokens to {length}")));
        }
        if self.spec.states.is_some() && length < held {
            return Err(MlxError::input(format!(
                "cannot trim to {length} tokens: recurrent layers hold the state after {held}"
            )));
        }
        match &mut self.rows[row] {
            RowKv::Host(row) => row.trim(&self.spec, length)?,
            RowKv::Pool(row) => row.trim(&self.spec, length)?,
            RowKv::Device(row) => row.trim(length)?,
        }
        self.settle(mx)
    }

    /// Evaluates every array.
    pub(in crate::mlx) fn settle(&self, mx: &Mlx) -> Result<()> {
        settle(mx, self.rows.iter().flat_map(RowKv::arrays))
    }
}
