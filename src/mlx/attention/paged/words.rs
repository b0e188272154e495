//! What a step tells the kernels over pages: positions, tables of pages, and how the work is cut, as 32-bit words in the device's
//! memory. `step.cu` reads them.

use std::rc::Rc;

use mlx_rs::Array;
use prefixd_cache::Part;

use crate::mlx::array::{Result, settle};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{DeviceMemory, DevicePage, PoolRow};
use crate::mlx::mask::Mask;
use crate::mlx::step::{RowStep, Step};

/// Tokens of a share at least, and shares of a query at most.
const SHARE_TOKENS: usize = 64;
const MOST_SHARES: usize = 64;
/// Tokens that `part.cu` takes at a time: shares end where those do.
const TILE: usize = 16;
/// Words in front: places of positions, rows and tables, pages of a table, places of runs and states, rows; then two places for
/// each mask.
const HEAD: usize = 8;
/// Every list begins at a multiple of 16 bytes.
const ALIGNED: usize = 4;
const FIRST_CAPACITY: usize = 1 << 20;

/// The words' memory on the device, which grows.
pub struct Words {
    device: Rc<dyn DeviceMemory>,
    address: u64,
    capacity: usize,
    /// `[1]`, u64: the address.
    pub array: Array,
}

/// How many shares and queries a step has under one mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Shares of all queries.
    pub shares: usize,
    /// Queries.
    pub queries: usize,
}

impl Words {
    /// Room for a small step.
    pub fn new(mx: &Mlx, device: &Rc<dyn DeviceMemory>) -> Result<Self> {
        let array = Array::from_slice(&[0_u64], &[1]);
        let mut words = Self { device: device.clone(), address: 0, capacity: 0, array };
        words.grow(mx, FIRST_CAPACITY)?;
        Ok(words)
    }

    fn grow(&mut self, mx: &Mlx, bytes: usize) -> Result<()> {
        if bytes <= self.capacity {
            return Ok(());
        }
        let capacity = bytes.next_power_of_two();
        let address = self.device.allocate(capacity)?;
        if self.capacity > 0 {
            self.device.free(self.address);
        }
        (self.address, self.capacity) = (address, capacity);
        self.array = Array::from_slice(&[address], &[1]);
        settle(mx, [&self.array])
    }

    /// Tells the device a step over `rows`. Those with at most `few` new tokens are cut into shares, under each mask.
    pub fn tell(
        &mut self,
        mx: &Mlx,
        step: &Step,
        rows: &[&mut PoolRow],
        masks: &[Mask],
        few: usize,
    ) -> Result<Vec<Counts>> {
        let mut words = vec![0_u32; HEAD + 2 * masks.len()];
        let positions: Vec<u32> = step.positions().map(|position| position as u32).collect();
        let row_of = step.rows().iter().enumerate();
        let row_of: Vec<u32> =
            row_of.flat_map(|(row, at)| std::iter::repeat_n(row as u32, at.tokens)).collect();
        words[0] = put(&mut words, &positions);
        words[1] = put(&mut words, &row_of);
        let parts = [Part::Full, Part::Window];
        let pages =
            rows.iter().flat_map(|row| parts.map(|part| row.table(part).end())).max().unwrap_or(0).max(1);
        for (number, part) in parts.into_iter().enumerate() {
            let mut table = Vec::with_capacity(rows.len() * pages * 2);
            for row in rows {
                let row = row.table(part);
                // Pages that have left at the front are read by nobody.
                let addresses =
                    std::iter::repeat_n(0, row.first()).chain(row.pages().map(DevicePage::address));
                let addresses = addresses.chain(std::iter::repeat(0)).take(pages);
                table.extend(addresses.flat_map(halves));
            }
            words[2 + number] = put(&mut words, &table);
        }
        words[4] = pages as u32;
        let runs: Vec<u32> = step.rows().iter().flat_map(|at| [at.first as u32, at.tokens as u32]).collect();
        words[5] = put(&mut words, &runs);
        let layers = 0..rows.iter().map(|row| row.states.layers()).max().unwrap_or(0);
        let states = layers.flat_map(|layer| rows.iter().map(move |row| row.states.both(layer)));
        let states = states.collect::<Result<Vec<_>>>()?;
        let states: Vec<u32> =
            states.into_iter().flatten().flat_map(|state| halves(state.address())).collect();
        words[6] = put(&mut words, &states);
        words[7] = rows.len() as u32;
        let mut counts = Vec::with_capacity(masks.len());
        for (number, mask) in masks.iter().enumerate() {
            let (shares, queries) = shares(*mask, step.rows(), few);
            words[HEAD + 2 * number] = put(&mut words, &shares);
            words[HEAD + 2 * number + 1] = put(&mut words, &queries);
            counts.push(Counts { shares: shares.len() / 4, queries: queries.len() / 4 });
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.grow(mx, bytes.len())?;
        self.device.upload(self.address, &bytes)?;
        Ok(counts)
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.device.free(self.address);
    }
}

/// An address as words.
fn halves(address: u64) -> [u32; 2] {
    [address as u32, (address >> 32) as u32]
}

/// Puts a list behind the others. Returns its place.
fn put(words: &mut Vec<u32>, list: &[u32]) -> u32 {
    words.resize(words.len().next_multiple_of(ALIGNED), 0);
    let place = words.len() as u32;
    words.extend(list);
    place
}

/// The shares, four words each: token, row, first position, position behind the last; and the queries: token, first share, number of
/// shares, 0. How many shares a query has depends on what it sees alone, so its result does not depend on its neighbours.
fn shares(mask: Mask, rows: &[RowStep], few: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut shares, mut queries) = (Vec::new(), Vec::new());
    for (row, at) in rows.iter().enumerate().filter(|(_, at)| at.tokens <= few) {
        for (token, position) in at.range().zip(at.position..) {
            let (from, to) = (mask.visible_from(position), position + 1);
            let count = (to - from).div_ceil(SHARE_TOKENS).min(MOST_SHARES);
            let each = (to - from).div_ceil(count).next_multiple_of(TILE);
            let count = (to - from).div_ceil(each);
            queries.extend([token as u32, shares.len() as u32 / 4, count as u32, 0]);
            for share in 0..count {
                let begin = (from + share * each).min(to);
                let end = (begin + each).min(to);
                shares.extend([token, row, begin, end].map(|number| number as u32));
            }
        }
    }
    (shares, queries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_what_a_query_sees_once_and_lie_behind_one_another() {
        for mask in [Mask::Causal, Mask::Window { tokens: 100 }] {
            for position in [0, 1, 63, 64, 65, 99, 100, 4_095, 4_096, 4_097, 131_071] {
                let rows = [
                    RowStep { position: 7, tokens: 1, first: 0 },
                    RowStep { position: 0, tokens: 99, first: 1 },
                    RowStep { position, tokens: 3, first: 100 },
                ];
                let (shares, queries) = super::shares(mask, &rows, 8);
                assert_eq!(queries.chunks(4).map(|query| query[0]).collect::<Vec<_>>(), [0, 100, 101, 102]);
                for query in queries.chunks(4).skip(1) {
                    let position = position as u32 + query[0] - 100;
                    let own = &shares[query[1] as usize * 4..][..query[2] as usize * 4];
                    let mut at = mask.visible_from(position as usize) as u32;
                    for share in own.chunks(4) {
                        assert_eq!(share[..3], [query[0], 2, at], "{mask:?} {position}");
                        assert!(share[3] > at, "no share is empty");
                        at = share[3];
                    }
                    assert_eq!(at, position + 1);
                    assert!(query[2] as usize <= MOST_SHARES);
                }
            }
        }
    }
}
