//! Activations in the order the kernels read: tiles of rows, `[k][height]`, with each group's sum.

use std::ops::Range;

use rayon::prelude::*;

/// Elements from which a second thread helps.
const PARALLEL_FROM: usize = 64 * 1024;

/// Packed rows: `[block][tile][k][height]`, and sums `[block][tile][group][height]`. A tile may be higher than it has rows;
/// the rest is zero.
pub struct Rows<'a> {
    memory: &'a [f32],
    tiles: Vec<Tile>,
    /// Heights of all tiles together.
    height: usize,
    group: usize,
    groups: usize,
    /// Groups in a block.
    block: usize,
    /// Where the sums begin.
    sums: usize,
}

struct Tile {
    first: usize,
    rows: usize,
    /// Place among the heights that there are.
    shape: usize,
    height: usize,
    /// Heights of the tiles before it.
    before: usize,
}

impl<'a> Rows<'a> {
    /// Packs `x`, `[rows, inner]`, for tiles of these heights (ascending) and blocks of so many groups.
    pub fn pack(
        x: &[f32],
        [rows, inner, group]: [usize; 3],
        heights: &[usize],
        block: usize,
        threads: usize,
        memory: &'a mut Vec<f32>,
    ) -> Self {
        let tallest = heights.last().copied().unwrap_or(1);
        let count = rows.div_ceil(tallest);
        let mut height = 0;
        let tiles: Vec<Tile> = (0..count)
            .map(|i| {
                let (first, rows) = share(rows, count, i);
                let shape = heights.iter().position(|&height| height >= rows).unwrap_or(0);
                let tile = Tile { first, rows, shape, height: heights[shape], before: height };
                height += heights[shape];
                tile
            })
            .collect();
        let groups = inner.div_ceil(group);
        let (data, sums) = (groups * group * height, groups * height);
        memory.clear();
        memory.resize(data + sums, 0.0);
        let (data_memory, sums_memory) = memory.split_at_mut(data);
        // One piece for each tile of each block.
        let (mut pieces, mut data_rest, mut sums_rest) = (Vec::new(), data_memory, sums_memory);
        for first in (0..groups).step_by(block) {
            let count = block.min(groups - first);
            for tile in &tiles {
                let (data, rest) = data_rest.split_at_mut(count * group * tile.height);
                data_rest = rest;
                let (sums, rest) = sums_rest.split_at_mut(count * tile.height);
                sums_rest = rest;
                pieces.push((tile, first * group, data, sums));
            }
        }
        let fill = |(tile, from, data, sums): (&Tile, usize, &mut [f32], &mut [f32])| {
            for h in 0..tile.rows {
                let row = &x[(tile.first + h) * inner..][..inner];
                let row = &row[from..inner.min(from + data.len() / tile.height)];
                for (k, x) in row.iter().enumerate() {
                    data[k * tile.height + h] = *x;
                }
                for (g, x) in row.chunks(group).enumerate() {
                    sums[g * tile.height + h] = sum(x);
                }
            }
        };
        if threads == 1 || x.len() < PARALLEL_FROM {
            pieces.into_iter().for_each(fill);
        } else {
            pieces.into_par_iter().for_each(fill);
        }
        Self { memory, tiles, height, group, groups, block, sums: data }
    }

    pub fn tiles(&self) -> usize {
        self.tiles.len()
    }

    pub fn blocks(&self) -> usize {
        self.groups.div_ceil(self.block)
    }

    /// Groups of a block.
    pub fn groups(&self, block: usize) -> Range<usize> {
        block * self.block..self.groups.min((block + 1) * self.block)
    }

    /// Rows of a tile.
    pub fn range(&self, tile: usize) -> Range<usize> {
        let tile = &self.tiles[tile];
        tile.first..tile.first + tile.rows
    }

    /// Place of a tile's height among those that there are.
    pub fn shape(&self, tile: usize) -> usize {
        self.tiles[tile].shape
    }

    /// A tile's activations in a block, and their sums.
    pub fn of(&self, block: usize, tile: usize) -> (*const f32, *const f32) {
        let (groups, tile) = (self.groups(block), &self.tiles[tile]);
        let place = groups.start * self.height + groups.len() * tile.before;
        let (data, sums) = (&self.memory[place * self.group..], &self.memory[self.sums + place..]);
        (data.as_ptr(), sums.as_ptr())
    }
}

/// Sixteen chains and a tree.
fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for x in x.chunks(16) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += x;
        }
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// Where the part with this index starts, and its length, when a length is shared out evenly.
fn share(length: usize, parts: usize, index: usize) -> (usize, usize) {
    let (base, longer) = (length / parts, length % parts);
    (index * base + index.min(longer), base + usize::from(index < longer))
}
