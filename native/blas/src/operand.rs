//! Operands as strided views, and their copies in the order the kernels read.

use crate::kernel::Kernels;

/// A matrix to read: element (i, j) lies `i * row_stride + j * column_stride` after the first. One stride is 1.
#[derive(Clone, Copy)]
pub struct Operand {
    pub data: *const f32,
    pub row_stride: usize,
    pub column_stride: usize,
}

// SAFETY: only ever read, and the product that holds it ends before its memory does.
unsafe impl Send for Operand {}
// SAFETY: as above.
unsafe impl Sync for Operand {}

impl Operand {
    pub fn transposed(self) -> Self {
        Self { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    pub fn at(&self, row: usize, column: usize) -> *const f32 {
        self.data.wrapping_add(row * self.row_stride + column * self.column_stride)
    }

    /// Writes rows `row..row + height` as `[k][height]`.
    ///
    /// # Safety
    /// The matrix has these rows and k columns; `into` has room for `k * height` elements.
    pub unsafe fn pack_rows(&self, row: usize, height: usize, k: usize, into: *mut f32) {
        const SIDE: usize = 4;
        let (whole_rows, whole_k) =
            if self.column_stride == 1 { (height / SIDE * SIDE, k / SIDE * SIDE) } else { (0, 0) };
        // SAFETY: within the matrix and the room.
        unsafe {
            for h in (0..whole_rows).step_by(SIDE) {
                for p in (0..whole_k).step_by(SIDE) {
                    let rows: [[f32; SIDE]; SIDE] = std::array::from_fn(|i| {
                        self.at(row + h + i, p).cast::<[f32; SIDE]>().read_unaligned()
                    });
                    for j in 0..SIDE {
                        let column = rows.map(|row| row[j]);
                        into.add((p + j) * height + h).cast::<[f32; SIDE]>().write_unaligned(column);
                    }
                }
            }
            for h in 0..height {
                let done = if h < whole_rows { whole_k } else { 0 };
                for p in done..k {
                    *into.add(p * height + h) = *self.at(row + h, p);
                }
            }
        }
    }

    /// Writes columns `column..column + count` as `[k][width]`, with zeros where the count falls short of the width.
    ///
    /// # Safety
    /// The matrix has these columns and k rows; `into` has room for `k * width` elements; `count <= width`.
    pub unsafe fn pack_columns(
        &self,
        column: usize,
        count: usize,
        k: usize,
        width: usize,
        kernels: &Kernels,
        into: *mut f32,
    ) {
        // SAFETY: within the matrix and the panel.
        unsafe {
            if count < width {
                for p in 0..k {
                    into.add(p * width + count).write_bytes(0, width - count);
                }
            }
            if self.column_stride == 1 {
                for p in 0..k {
                    into.add(p * width).copy_from_nonoverlapping(self.at(p, column), count);
                }
                return;
            }
            let lanes = kernels.lanes;
            let (whole_columns, whole_k) = (count / lanes * lanes, k / lanes * lanes);
            for w in (0..whole_columns).step_by(lanes) {
                for p in (0..whole_k).step_by(lanes) {
                    (kernels.transpose)(
                        self.at(p, column + w),
                        self.column_stride,
                        into.add(p * width + w),
                        width,
                    );
                }
            }
            for w in 0..count {
                let done = if w < whole_columns { whole_k } else { 0 };
                for p in done..k {
                    *into.add(p * width + w) = *self.at(p, column + w);
                }
            }
        }
    }
}
