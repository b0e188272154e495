//! A matrix product cut into jobs: panels of columns, and groups of rows where the columns are few.
//!
//! Invariant 2: how a product is cut, and by how many threads, is invisible in the result (kernel's invariant 1).

use std::cell::Cell;

use crate::kernel::{Kernels, MAX_HEIGHT, MAX_WIDTH, Shape, kernels};
use crate::operand::Operand;
use crate::threads;

/// A second thread is worth its while from this many multiply-adds,
const PARALLEL_FROM_WORK: usize = 768 * 1024;
/// or from this many elements of `b`, which come from memory.
const PARALLEL_FROM_ELEMENTS: usize = 192 * 1024;
/// Jobs per thread that still balance well when one thread is late.
const JOBS_PER_THREAD: usize = 3;

/// `c = alpha * a b + beta * c`, with rows of `c` `c_stride` apart.
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub alpha: f32,
    pub a: Operand,
    pub b: Operand,
    pub beta: f32,
    pub c: *mut f32,
    pub c_stride: usize,
}

// SAFETY: jobs write disjoint tiles of `c`, and the product ends before its memory does.
unsafe impl Sync for Product {}

thread_local! {
    /// Scratch for packed rows and for a packed panel. Taken out while in use, since a thread that waits for its jobs
    /// may run another product's.
    static ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static PANEL: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// How a product is cut.
struct Cut<'a> {
    product: &'a Product,
    kernels: &'static Kernels,
    shape: &'static Shape,
    /// Columns in panels of the shape's width; what is left over is in panels of the narrowest width.
    panels: usize,
    /// Rows in tiles of at most the shape's tallest, shared out evenly.
    tiles: usize,
    groups: usize,
    packed_rows: *const f32,
}

// SAFETY: the packed rows are only read, and outlive the jobs.
unsafe impl Sync for Cut<'_> {}

impl Product {
    /// Computes the product.
    ///
    /// # Safety
    /// The operands have the sizes that m, n and k say, and nothing else touches `c` meanwhile.
    pub unsafe fn run(&self) {
        if self.m == 0 || self.n == 0 {
            return;
        }
        if self.k == 0 || self.alpha == 0.0 {
            // SAFETY: within c.
            unsafe { self.scale() };
            return;
        }
        let elements = self.n.saturating_mul(self.k);
        let worth =
            elements >= PARALLEL_FROM_ELEMENTS || elements.saturating_mul(self.m) >= PARALLEL_FROM_WORK;
        let threads = if worth { threads::count() } else { 1 };
        let mut rows = ROWS.take();
        // SAFETY: the caller's sizes.
        let cut = unsafe { self.cut(threads, &mut rows) };
        let jobs = cut.panels * cut.groups;
        // SAFETY: the caller's sizes; every job has its own part of c.
        let work = |job| unsafe { cut.run(job) };
        threads::run(worth, jobs, work);
        ROWS.set(rows);
    }

    unsafe fn cut<'a>(&'a self, threads: usize, rows: &'a mut Vec<f32>) -> Cut<'a> {
        let kernels = kernels();
        let narrow = &kernels.shapes[0];
        let wanted = if threads == 1 { 1 } else { threads * JOBS_PER_THREAD };
        let fits = |shape: &&Shape| self.m <= shape.tiles.len() && self.n / shape.width >= wanted;
        let shape = kernels.shapes.iter().rev().find(fits).unwrap_or(narrow);
        let (whole, rest) = (self.n / shape.width, self.n % shape.width);
        let panels = whole + rest.div_ceil(narrow.width);
        let tiles = self.m.div_ceil(shape.tiles.len());
        let groups = if threads == 1 { 1 } else { wanted.div_ceil(panels).min(tiles) };
        let packed_rows = if self.m == 1 && self.a.column_stride == 1 {
            self.a.data
        } else {
            rows.clear();
            rows.reserve(self.m * self.k);
            for tile in 0..tiles {
                let (row, height) = share(self.m, tiles, tile);
                // SAFETY: within a.
                unsafe { self.a.pack_rows(row, height, self.k, rows.as_mut_ptr().add(row * self.k)) };
            }
            rows.as_ptr()
        };
        Cut { product: self, kernels, shape, panels, tiles, groups, packed_rows }
    }

    /// `c = beta * c`; c is not read where beta is zero.
    unsafe fn scale(&self) {
        for i in 0..self.m {
            for j in 0..self.n {
                // SAFETY: within c.
                unsafe {
                    let c = self.c.add(i * self.c_stride + j);
                    *c = if self.beta == 0.0 { 0.0 } else { self.beta * *c };
                }
            }
        }
    }
}

impl Cut<'_> {
    unsafe fn run(&self, job: usize) {
        let Product { n, k, b, .. } = *self.product;
        let (panel, group) = (job % self.panels, job / self.panels);
        let whole = n / self.shape.width;
        let (shape, column) = if panel < whole {
            (self.shape, panel * self.shape.width)
        } else {
            let narrow = &self.kernels.shapes[0];
            (narrow, whole * self.shape.width + (panel - whole) * narrow.width)
        };
        let count = shape.width.min(n - column);
        // One pass over the panel does not repay a copy that only straightens it.
        if self.tiles == 1 && b.column_stride == 1 && count == shape.width {
            // SAFETY: the caller's sizes.
            unsafe { self.tiles(group, shape, column, count, b.at(0, column), b.row_stride) };
            return;
        }
        let mut scratch = PANEL.take();
        scratch.clear();
        scratch.reserve(k * shape.width);
        let packed = scratch.as_mut_ptr();
        // SAFETY: the caller's sizes, and the room just reserved.
        unsafe {
            b.pack_columns(column, count, k, shape.width, self.kernels, packed);
            self.tiles(group, shape, column, count, packed, shape.width);
        }
        PANEL.set(scratch);
    }

    /// Computes a group's tiles of one panel.
    #[allow(
        clippy::float_cmp,
        reason = "one and zero are exact, and CBLAS gives them a meaning of their own"
    )]
    unsafe fn tiles(
        &self,
        group: usize,
        shape: &Shape,
        column: usize,
        count: usize,
        panel: *const f32,
        stride: usize,
    ) {
        let Product { m, k, alpha, beta, c, c_stride, .. } = *self.product;
        let (first, tiles) = share(self.tiles, self.groups, group);
        let plain = count == shape.width && alpha == 1.0 && beta == 0.0;
        for tile in first..first + tiles {
            let (row, height) = share(m, self.tiles, tile);
            let kernel = shape.tiles[height - 1];
            // SAFETY: the caller's sizes; packed rows lie tile after tile.
            unsafe {
                let rows = self.packed_rows.add(row * k);
                let into = c.add(row * c_stride + column);
                if plain {
                    kernel(k, rows, panel, stride, into, c_stride);
                    continue;
                }
                let mut sums = [0.0; MAX_HEIGHT * MAX_WIDTH];
                kernel(k, rows, panel, stride, sums.as_mut_ptr(), shape.width);
                for h in 0..height {
                    for w in 0..count {
                        let (sum, c) = (sums[h * shape.width + w], into.add(h * c_stride + w));
                        *c = if beta == 0.0 { alpha * sum } else { alpha * sum + beta * *c };
                    }
                }
            }
        }
    }
}

/// Where the part with this index starts, and its length, when a length is shared out evenly.
fn share(length: usize, parts: usize, index: usize) -> (usize, usize) {
    let (base, longer) = (length / parts, length % parts);
    (index * base + index.min(longer), base + usize::from(index < longer))
}
