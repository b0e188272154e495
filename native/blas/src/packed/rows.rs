//! Activations in the order the kernels read: tiles of rows, as `tile` describes them.

use std::ops::Range;

use super::kernels::Whole;
use crate::threads;

/// Elements from which a second thread helps.
const PARALLEL_FROM: usize = 64 * 1024;

/// What the kernels of a matrix want for activations.
#[derive(Clone, Copy)]
pub enum Form {
    /// Pairs of whole numbers, and each group's step and sum.
    Whole(Whole),
    Floats,
}

impl Form {
    /// Words of a group in one row.
    fn words(self, group: usize) -> usize {
        match self {
            Self::Whole(_) => group / 2,
            Self::Floats => group,
        }
    }

    /// Factors of a group in one row.
    fn factors(self) -> usize {
        match self {
            Self::Whole(_) => 2,
            Self::Floats => 0,
        }
    }
}

/// Packed rows: `[block][tile][word][height]`, and then factors `[block][tile][group][factor][height]`. A tile may be higher
/// than it has rows; the rest is zero.
pub struct Rows<'a> {
    memory: &'a [u32],
    tiles: Vec<Tile>,
    /// Heights of all tiles together.
    height: usize,
    groups: usize,
    /// Groups in a block.
    block: usize,
    /// Words and factors of a group in one row.
    sizes: [usize; 2],
    /// Where the factors begin.
    factors: usize,
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
    ///
    /// # Safety
    /// The processor has the instructions of `form`.
    pub unsafe fn pack(
        x: &[f32],
        [rows, inner, group]: [usize; 3],
        form: Form,
        heights: &[usize],
        block: usize,
        threads: usize,
        memory: &'a mut Vec<u32>,
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
        let sizes = [form.words(group), form.factors()];
        let [words, factors] = sizes.map(|size| size * groups * height);
        memory.clear();
        memory.resize(words + factors, 0);
        let (mut words_rest, mut factors_rest) = memory.split_at_mut(words);
        // One piece for each tile of each block.
        let mut pieces = Vec::new();
        for first in (0..groups).step_by(block) {
            let count = block.min(groups - first);
            for tile in &tiles {
                let [words, factors] = sizes.map(|size| size * count * tile.height);
                let (words, rest) = words_rest.split_at_mut(words);
                words_rest = rest;
                let (factors, rest) = factors_rest.split_at_mut(factors);
                factors_rest = rest;
                pieces.push(Piece { tile, from: first * group, count: count * group, words, factors });
            }
        }
        let fill = |piece: &mut Piece<'_>| {
            for h in 0..piece.tile.rows {
                let row = &x[(piece.tile.first + h) * inner..][..inner];
                let row = &row[piece.from..inner.min(piece.from + piece.count)];
                match form {
                    // SAFETY: the caller's processor.
                    Form::Whole(whole) => unsafe { piece.whole(h, row, group, whole) },
                    Form::Floats => piece.floats(h, row),
                }
            }
        };
        let worth = threads > 1 && x.len() >= PARALLEL_FROM;
        threads::pieces(worth, &mut pieces, 1, |_, piece| piece.iter_mut().for_each(fill));
        Self { memory, tiles, height, groups, block, sizes, factors: words }
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

    /// A tile's activations in a block, and their factors.
    pub fn of(&self, block: usize, tile: usize) -> (*const u32, *const f32) {
        let (groups, tile) = (self.groups(block), &self.tiles[tile]);
        let place = groups.start * self.height + groups.len() * tile.before;
        let [words, factors] = self.sizes.map(|size| size * place);
        (self.memory[words..].as_ptr(), self.memory[self.factors + factors..].as_ptr().cast())
    }
}

/// A tile's part of a block.
struct Piece<'a> {
    tile: &'a Tile,
    /// Its first element in each row, and the number of elements.
    from: usize,
    count: usize,
    words: &'a mut [u32],
    factors: &'a mut [u32],
}

impl Piece<'_> {
    fn floats(&mut self, h: usize, row: &[f32]) {
        for (words, x) in self.words.chunks_exact_mut(self.tile.height).zip(row) {
            words[h] = x.to_bits();
        }
    }

    /// # Safety
    /// The processor has the instructions of `whole`.
    unsafe fn whole(&mut self, h: usize, row: &[f32], group: usize, whole: Whole) {
        let height = self.tile.height;
        let groups = self.words.chunks_exact_mut(group / 2 * height);
        let groups = groups.zip(self.factors.chunks_exact_mut(2 * height));
        let mut numbers = [0; 128];
        for ((words, factors), x) in groups.zip(row.chunks_exact(group)) {
            let numbers = &mut numbers[..group];
            // SAFETY: the caller's.
            let told = unsafe { whole(x, numbers) };
            put(numbers, told, h, height, words, factors);
        }
    }
}

/// Writes a group of row `h` of a tile: its whole numbers into `words`, `[pair][height]`, their step and sum into `factors`,
/// `[2][height]`, as bits of floats.
#[inline(always)]
pub fn put(
    numbers: &[u16],
    [step, sum]: [f32; 2],
    h: usize,
    height: usize,
    words: &mut [u32],
    factors: &mut [u32],
) {
    (factors[h], factors[height + h]) = (step.to_bits(), sum.to_bits());
    for (words, pair) in words.chunks_exact_mut(height).zip(numbers.as_chunks::<2>().0) {
        words[h] = u32::from(pair[1]) << 16 | u32::from(pair[0]);
    }
}

/// Where the part with this index starts, and its length, when a length is shared out evenly.
fn share(length: usize, parts: usize, index: usize) -> (usize, usize) {
    let (base, longer) = (length / parts, length % parts);
    (index * base + index.min(longer), base + usize::from(index < longer))
}
