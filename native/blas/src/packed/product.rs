//! A product cut into jobs: spans of strips, shared out among threads.
//!
//! Invariant 2: how a product is cut, and by how many threads, is invisible in the result (tile's invariant 1).

use std::cell::Cell;
use std::ops::Range;

use super::format::STRIP;
use super::kernels::{Kernels, Shape, index, kernels};
use super::matrix::{Line, Matrix};
use super::rows::{Form, Rows};
use super::tile::{MAX_HEIGHT, MAX_STRIPS};
use crate::threads;

/// A second thread is worth its while from this many weights, times rows and a little more.
const PARALLEL_FROM: usize = 1024 * 1024;
/// Jobs per thread that still balance well when one thread is late.
const JOBS_PER_THREAD: usize = 4;
/// Inputs of a block: what is decoded at a time, and stays in the cache with the activations that meet it.
const BLOCK: usize = 512;
/// Tiles whose activations of one block stay in the cache.
const TILES: usize = 43;

/// A matrix, and where its product goes.
pub struct Target<'a> {
    /// `[out, inner]`.
    pub matrix: &'a Matrix,
    /// `[rows, out]`, overwritten.
    pub out: &'a mut [f32],
}

/// `out = x W^T` for `x` `[rows, inner]`.
///
/// A row of the result depends on that row of `x` alone, to the last bit.
///
/// # Panics
/// The slices do not have these sizes.
pub fn product(matrix: &Matrix, x: &[f32], out: &mut [f32]) {
    products(x, &mut [Target { matrix, out }]);
}

/// The same for several matrices over the same `x`, sharing what they have in common.
///
/// # Panics
/// The slices do not have these sizes.
pub fn products(x: &[f32], targets: &mut [Target<'_>]) {
    run(kernels(), x, targets);
}

pub(super) fn run(kernels: &Kernels, x: &[f32], targets: &mut [Target<'_>]) {
    let mut rest = targets;
    while let Some(first) = rest.first() {
        // Neighbours whose activations are packed alike.
        let of = |matrix: &Matrix| (matrix.inner(), matrix.layout().group, matrix.layout().kind.is_codes());
        let alike = |target: &&Target<'_>| of(target.matrix) == of(first.matrix);
        let count = rest.iter().take_while(alike).count();
        let (now, later) = rest.split_at_mut(count);
        same(kernels, x, now);
        rest = later;
    }
}

fn same(kernels: &Kernels, x: &[f32], targets: &mut [Target<'_>]) {
    let (inner, group) = (targets[0].matrix.inner(), targets[0].matrix.layout().group);
    let rows = x.len().checked_div(inner).unwrap_or(0);
    assert_eq!(x.len(), rows * inner, "activations are not rows of {inner}");
    let places: Vec<Place<'_>> = targets.iter_mut().map(|target| Place::new(target, rows)).collect();
    if rows == 0 {
        return;
    }
    let weights: usize = places.iter().map(|place| place.matrix.out() * inner).sum();
    let threads = if weights * (rows + 1) < PARALLEL_FROM { 1 } else { threads::count() };
    let stored = rows <= kernels.stored_rows;
    let mut memory = ROWS.take();
    let kind = places[0].matrix.layout().kind;
    let shapes = match (stored, kind.is_codes()) {
        (true, _) => kernels.stored[index(kind)],
        (false, true) => kernels.decoded_codes,
        (false, false) => kernels.decoded_floats,
    };
    let form = if kind.is_codes() { Form::Whole(kernels.whole) } else { Form::Floats };
    let block = if stored { inner.div_ceil(group) } else { (BLOCK / group).max(1) };
    let heights: Vec<usize> = shapes.iter().map(|shape| shape.height).collect();
    // SAFETY: kernels are those of this processor.
    let rows = unsafe { Rows::pack(x, [rows, inner, group], form, &heights, block, threads, &mut memory) };
    let jobs: Vec<(usize, Range<usize>)> =
        jobs(&places, threads, if stored { MAX_STRIPS } else { shapes[0].strips });
    let work = |job: usize| {
        let (place, strips) = &jobs[job];
        let cut = Cut { place: &places[*place], rows: &rows, kernels, shapes };
        if stored {
            cut.as_stored(strips.clone());
        } else {
            cut.once_decoded(strips.clone());
        }
    };
    threads::run(threads > 1, jobs.len(), work);
    ROWS.set(memory);
}

/// Spans of each matrix's strips, whole multiples of `step` but for the last.
fn jobs(places: &[Place<'_>], threads: usize, step: usize) -> Vec<(usize, Range<usize>)> {
    let total: usize = places.iter().map(|place| place.matrix.strips()).sum();
    let jobs = if threads == 1 { 1 } else { threads * JOBS_PER_THREAD };
    let span = total.div_ceil(jobs).next_multiple_of(step).max(step);
    let spans = places.iter().enumerate().flat_map(|(i, place)| {
        let strips = place.matrix.strips();
        (0..strips).step_by(span).map(move |strip| (i, strip..strips.min(strip + span)))
    });
    spans.collect()
}

thread_local! {
    /// Scratch for packed activations and for decoded weights, kept from one product to the next.
    static ROWS: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
    static DECODED: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// A target whose jobs write disjoint columns.
struct Place<'a> {
    matrix: &'a Matrix,
    out: *mut f32,
    _out: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: jobs write disjoint columns of `out`, which is borrowed for as long as the place lives.
unsafe impl Sync for Place<'_> {}

impl<'a> Place<'a> {
    fn new(target: &'a mut Target<'_>, rows: usize) -> Self {
        let matrix = target.matrix;
        assert_eq!(
            target.out.len(),
            rows * matrix.out(),
            "the result is not {rows} rows of {}",
            matrix.out()
        );
        Self { matrix, out: target.out.as_mut_ptr(), _out: std::marker::PhantomData }
    }
}

struct Cut<'a> {
    place: &'a Place<'a>,
    rows: &'a Rows<'a>,
    kernels: &'a Kernels,
    shapes: &'static [Shape],
}

impl Cut<'_> {
    fn as_stored(&self, strips: Range<usize>) {
        let matrix = self.place.matrix;
        let shapes = self.kernels.stored[index(matrix.layout().kind)];
        // Several tiles of rows meet the same few strips while these are in the cache.
        for near in steps(strips, MAX_STRIPS) {
            for tile in 0..self.rows.tiles() {
                let shape = &shapes[self.rows.shape(tile)];
                for strip in steps(near.clone(), shape.strips) {
                    let part = matrix.part(strip.start, 0..matrix.groups());
                    // SAFETY: a part of the matrix over the inputs that the rows hold, all in one block.
                    unsafe { self.tile(shape, &part, 0, tile, strip) };
                }
            }
        }
    }

    fn once_decoded(&self, strips: Range<usize>) {
        let matrix = self.place.matrix;
        let width = self.shapes[0].strips;
        let layout = matrix.layout();
        let decode = self.kernels.decode[index(layout.kind)];
        let mut scratch = DECODED.take();
        for tiles in steps(0..self.rows.tiles(), TILES) {
            for block in 0..self.rows.blocks() {
                let groups = self.rows.groups(block);
                let lines = layout.decoded_lines();
                scratch.clear();
                scratch.reserve(width * groups.len() * lines);
                for strip in steps(strips.clone(), width) {
                    let mut part = matrix.part(strip.start, groups.clone());
                    let strip_lines = |s: usize| s.min(strip.len() - 1) * groups.len() * lines;
                    for s in 0..strip.len() {
                        // SAFETY: room for one strip's groups was just reserved at its place.
                        unsafe { decode(&part, s, scratch.as_mut_ptr().add(strip_lines(s)).cast()) };
                    }
                    for (s, weights) in part.weights.iter_mut().enumerate() {
                        *weights = scratch.as_ptr().wrapping_add(strip_lines(s)).cast();
                    }
                    part.weights_stride = lines * Line::BYTES;
                    for tile in tiles.clone() {
                        // SAFETY: the decoded part, over the block's inputs.
                        unsafe {
                            self.tile(&self.shapes[self.rows.shape(tile)], &part, block, tile, strip.clone());
                        };
                    }
                }
            }
        }
        DECODED.set(scratch);
    }

    /// Adds a part's products to a tile of the result; the first block's begin it.
    ///
    /// # Safety
    /// The part holds `strips` over the inputs of `block`.
    unsafe fn tile(
        &self,
        shape: &Shape,
        part: &super::tile::Part,
        block: usize,
        tile: usize,
        strips: Range<usize>,
    ) {
        let (out, rows) = (self.place.matrix.out(), self.rows.range(tile));
        let mut y = [0.0_f32; MAX_HEIGHT * MAX_STRIPS * STRIP];
        let (x, factors) = self.rows.of(block, tile);
        let pieces = || {
            rows.clone().enumerate().flat_map(|(h, row)| {
                strips.clone().enumerate().map(move |(s, strip)| {
                    let column = strip * STRIP;
                    // SAFETY: within the result: a row of it, and a column that it has.
                    let at = unsafe { self.place.out.add(row * out + column) };
                    ((h * shape.strips + s) * STRIP, at, STRIP.min(out - column))
                })
            })
        };
        if block > 0 {
            for (at, from, count) in pieces() {
                // SAFETY: as above; nobody else writes these columns.
                unsafe { y.as_mut_ptr().add(at).copy_from_nonoverlapping(from, count) };
            }
        }
        // SAFETY: the caller's part; packed rows and a tile of this shape.
        unsafe { (shape.tile)(part, x, factors, y.as_mut_ptr()) };
        for (at, to, count) in pieces() {
            // SAFETY: as above.
            unsafe { to.copy_from_nonoverlapping(y.as_ptr().add(at), count) };
        }
    }
}

/// A range in steps; the last may be shorter.
fn steps(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(step).map(move |start| start..end.min(start + step))
}
