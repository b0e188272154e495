//! Pages to blocks and back: a full page goes as it is, in both directions; only what is less than a page is copied.

use std::ops::Range;

use prefixd_cache::{Buffer, Bytes, Part, Payload, TensorBytes};
use prefixd_engine::ImportBlock;

use super::memory::PageMemory;
use super::row::PagedRow;
use super::table::PageTable;
use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::kv::block::{Chain, missing};
use crate::mlx::kv::format::Plane;
use crate::mlx::kv::spec::{KvSpec, Stored};

impl<M: PageMemory> PagedRow<M> {
    /// The tokens at absolute positions `range`: the page itself where they are all that it holds, else a copy.
    pub fn export(&self, spec: &KvSpec, range: Range<usize>) -> Result<Payload> {
        let held = self.window_from(spec);
        if spec.token_bytes(Part::Window) > 0 && held > range.start {
            let layer = spec.masks.iter().position(|mask| mask.part() == Part::Window).unwrap_or(0);
            return Err(missing(&range, layer, held));
        }
        let [full, window] = [Part::Full, Part::Window].map(|part| self.exported(spec, part, &range));
        let (full, window) = (full?, window?);
        let tensor = |stored: &Stored| {
            let from = stored.before * range.len();
            let bytes = if stored.part == Part::Full { &full } else { &window };
            TensorBytes {
                name: stored.name.clone(),
                part: stored.part,
                dtype: stored.plane.block_dtype,
                shape: vec![stored.plane.heads, range.len(), stored.plane.width],
                data: bytes.slice(from..from + range.len() * stored.plane.token_bytes()),
            }
        };
        Ok(Payload { tensors: spec.tensors().iter().map(tensor).collect() })
    }

    /// A part's tensors of `range`, one behind the other.
    fn exported(&self, spec: &KvSpec, part: Part, range: &Range<usize>) -> Result<Bytes> {
        let (memory, tokens, table) = (M::of(spec)?, spec.block_tokens, self.table(part));
        let whole = range.len() == tokens && range.start.is_multiple_of(tokens);
        if let Some(page) = table.shared(range.start / tokens).filter(|_| whole) {
            return memory.export(page);
        }
        let mut copy = spec.memory.buffer(range.len() * spec.token_bytes(part));
        for (number, page) in (table.first()..).zip(table.pages()) {
            let (from, to) = (range.start.max(number * tokens), range.end.min((number + 1) * tokens));
            if from >= to {
                continue;
            }
            let page = memory.read(page)?;
            for stored in spec.tensors_in(part) {
                let source =
                    Slots { tensor: &page[stored.before * tokens..], tokens, at: from - number * tokens };
                let into = &mut copy[stored.before * range.len()..];
                source.copy(&stored.plane, to - from, into, range.len(), from - range.start);
            }
        }
        Ok(copy.share())
    }

    /// Takes the tokens of a chain of blocks behind its own.
    ///
    /// # Errors
    /// See [`BatchKv::append`](crate::mlx::kv::BatchKv::append); and where the row's tokens, or a block but the last, are not whole
    /// pages.
    pub fn append(&mut self, spec: &KvSpec, chain: &Chain<'_>) -> Result<()> {
        let tokens = spec.block_tokens;
        let uneven = |(start, block): &(usize, &ImportBlock<'_>)| {
            !start.is_multiple_of(tokens) || block.block_tokens > tokens
        };
        if let Some((start, block)) = chain.blocks().find(uneven) {
            let held = block.block_tokens;
            return Err(MlxError::block(format!(
                "a block of {held} tokens begins at position {start}; expected {tokens} in each, fewer only in the last"
            )));
        }
        let [full, window] = [Part::Full, Part::Window].map(|part| brought::<M>(spec, part, chain));
        let (full, window) = (full?, window?);
        full.put_behind(&mut self.full, tokens, chain.held);
        window.put_behind(&mut self.window, tokens, chain.held);
        self.length = chain.length;
        self.states.lose();
        if self.window.first() == self.window.end() {
            self.window_origin = chain.length;
        }
        Ok(())
    }
}

/// What a chain of blocks brings to one part.
struct Brought<M: PageMemory> {
    /// First position of it.
    origin: usize,
    shared: Vec<M::Shared>,
    /// The last page, where it is this row's alone.
    own: Option<M::Own>,
}

impl<M: PageMemory> Brought<M> {
    /// Puts the pages behind a row's `held` tokens; what the table holds before `origin` is not needed any more.
    fn put_behind(self, table: &mut PageTable<M>, page_tokens: usize, held: usize) {
        if self.origin > held {
            *table = PageTable::starting_at(self.origin / page_tokens);
        } else {
            table.truncate(held / page_tokens);
        }
        self.shared.into_iter().for_each(|page| table.push_shared(page));
        self.own.into_iter().for_each(|page| table.push_own(page));
    }
}

/// First position to take: all of full layers; of window layers what the next query sees, and what a coming export may ask for
/// as far as the blocks carry it.
fn origin(spec: &KvSpec, part: Part, chain: &Chain<'_>) -> usize {
    let masks = || spec.masks.iter().filter(|mask| mask.part() == part);
    let Some(retained) = masks().filter_map(|mask| spec.retained(*mask)).max() else { return 0 };
    let needed = masks().map(|mask| mask.visible_from(chain.end)).min().unwrap_or(0);
    let carried = |block: &ImportBlock<'_>| {
        spec.tensors_in(part).all(|stored| block.payload.tensor(&stored.name).is_some())
    };
    chain.origin(needed, retained, carried)
}

fn brought<M: PageMemory>(spec: &KvSpec, part: Part, chain: &Chain<'_>) -> Result<Brought<M>> {
    let (memory, tokens) = (M::of(spec)?, spec.block_tokens);
    let mut brought = Brought { origin: origin(spec, part, chain), shared: Vec::new(), own: None };
    if spec.token_bytes(part) == 0 {
        return Ok(brought);
    }
    for (index, (start, block)) in chain.blocks().enumerate() {
        let ImportBlock { block_tokens, used_tokens, .. } = *block;
        if start + used_tokens <= brought.origin {
            continue;
        }
        let tensors = chain.tensors(index, spec.tensors_in(part))?;
        match Bytes::join(tensors.iter().map(|tensor| &tensor.data)) {
            Some(page) if block_tokens == tokens => brought.shared.push(memory.import(part, page)?),
            _ => {
                let page = copied(spec, part, &tensors, block_tokens, used_tokens);
                if used_tokens == tokens {
                    brought.shared.push(memory.import(part, page.share())?);
                } else {
                    brought.own = Some(memory.filled(part, page)?);
                }
            }
        }
    }
    Ok(brought)
}

/// A page of a block that cannot be one as it lies: a shorter one, or one whose tensors lie apart.
fn copied(
    spec: &KvSpec,
    part: Part,
    tensors: &[&TensorBytes],
    block_tokens: usize,
    used_tokens: usize,
) -> Buffer {
    let mut page = spec.memory.buffer(spec.block_tokens * spec.token_bytes(part));
    for (stored, tensor) in spec.tensors_in(part).zip(tensors) {
        let source = Slots { tensor: &tensor.data, tokens: block_tokens, at: 0 };
        let into = &mut page[stored.before * spec.block_tokens..];
        source.copy(&stored.plane, used_tokens, into, spec.block_tokens, 0);
    }
    page
}

/// Some tokens of a tensor `[heads, tokens, width]`, from number `at` on.
struct Slots<'a> {
    tensor: &'a [u8],
    tokens: usize,
    at: usize,
}

impl Slots<'_> {
    /// Copies `count` of them to the tensor `into` of `tokens` tokens, from its number `at` on.
    fn copy(&self, plane: &Plane, count: usize, into: &mut [u8], tokens: usize, at: usize) {
        let vector = plane.vector_bytes();
        for head in 0..plane.heads {
            let source = &self.tensor[(head * self.tokens + self.at) * vector..][..count * vector];
            into[(head * tokens + at) * vector..][..source.len()].copy_from_slice(source);
        }
    }
}
