//! Sequences on the way to their rows: known blocks are read, then imported piece by piece.
//!
//! Reading happens on the cache's threads. Importing copies bytes on the scheduler's thread, so while rows decode a step
//! imports no more than [`Pace`](super::pace::Pace) allows, and a long restore does not stall a running stream.

use std::collections::VecDeque;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

use prefixd_cache::{Block, Lookup, Restored, RestoredBlock, Tier};
use prefixd_engine::{Engine, EngineError, ImportBlock};

use super::options::Clock;
use super::persist::Persist;
use super::sequence::{Sequence, millis};

/// What a restore brought, under its ticket.
type Arrival = (u64, Restored);

/// A sequence whose blocks are being read.
struct Reading {
    ticket: u64,
    sequence: Sequence,
    wanted_tokens: usize,
    began: Instant,
}

/// A sequence whose blocks are being imported, into a row of its own.
struct Importing<Kv> {
    sequence: Sequence,
    kv: Kv,
    blocks: Vec<RestoredBlock>,
    /// The state of recurrent layers behind them.
    snapshot: Option<Arc<Block>>,
    /// Blocks that are in the row.
    done: usize,
    /// Tokens of all blocks.
    end_tokens: usize,
    began: Instant,
}

/// What has become of a sequence whose blocks have come.
pub(super) enum Came {
    /// It is being imported.
    Whole,
    /// Blocks were lost meanwhile. The sequence, and when its restore began.
    Lost(Box<Sequence>, Instant),
    /// Its client has left.
    Late,
}

/// A piece of a restore, imported.
pub(super) struct Piece<Kv> {
    /// Its tokens; 0 when it did not fit.
    pub tokens: usize,
    pub outcome: Imported<Kv>,
}

/// What a piece led to.
pub(super) enum Imported<Kv> {
    /// More pieces follow.
    More,
    /// A row, its state, and when its restore began.
    Row(Sequence, Kv, Instant),
    /// The row could not be had.
    Failed(Sequence, EngineError),
}

/// See the module's documentation.
pub(super) struct Restores<Kv> {
    clock: Clock,
    /// Restores that came back. Unbounded, since the bound is elsewhere: one message a restore, and a row restores once; a
    /// bound here could block a reader behind sequences that were abandoned meanwhile.
    arrivals: (Sender<Arrival>, Receiver<Arrival>),
    tickets: u64,
    reading: Vec<Reading>,
    /// The first is imported first.
    importing: VecDeque<Importing<Kv>>,
}

impl<Kv> Restores<Kv> {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            arrivals: crossbeam_channel::unbounded(),
            tickets: 0,
            reading: Vec::new(),
            importing: VecDeque::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.reading.len() + self.importing.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Blocks wait to be imported.
    pub fn can_import(&self) -> bool {
        !self.importing.is_empty()
    }

    pub fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        let importing = self.importing.iter().map(|importing| &importing.sequence);
        self.reading.iter().map(|reading| &reading.sequence).chain(importing)
    }

    /// Wakes whoever selects on it when blocks have come.
    pub fn arrivals(&self) -> &Receiver<Arrival> {
        &self.arrivals.1
    }

    /// Has the blocks of `lookup` read; window parts of those only that reach behind `window_from`.
    pub fn begin(
        &mut self,
        persist: &mut Persist,
        sequence: Sequence,
        lookup: &Lookup,
        window_from: usize,
        began: Instant,
    ) {
        self.tickets += 1;
        let (ticket, sender) = (self.tickets, self.arrivals.0.clone());
        self.reading.push(Reading { ticket, sequence, wanted_tokens: lookup.tokens, began });
        persist.restore(lookup, window_from, move |restored| {
            // A scheduler that is gone needs no blocks.
            sender.send((ticket, restored)).ok();
        });
    }

    /// Takes the next blocks that have come, if any have.
    pub fn take_arrived<E: Engine<Kv = Kv>>(&mut self, engine: &E, persist: &mut Persist) -> Option<Came> {
        let (ticket, restored) = self.arrivals.1.try_recv().ok()?;
        persist.absorb(&restored);
        // What was read for an abandoned sequence stays useful in RAM.
        let Some(at) = self.reading.iter().position(|reading| reading.ticket == ticket) else {
            return Some(Came::Late);
        };
        let Reading { mut sequence, wanted_tokens, began, .. } = self.reading.swap_remove(at);
        let parts = &mut sequence.usage.restore_parts;
        parts.read_ms += restored.read.as_secs_f64() * 1e3;
        parts.verify_ms += restored.verify.as_secs_f64() * 1e3;
        if restored.tokens < wanted_tokens {
            tracing::warn!(wanted_tokens, restored_tokens = restored.tokens, reason = ?restored.failure, "a block was lost; looking up again");
            return Some(Came::Lost(Box::new(sequence), began));
        }
        let end_tokens = restored.blocks.iter().map(|block| block.used_tokens).sum();
        let kv = engine.empty();
        let Restored { blocks, snapshot, .. } = restored;
        self.importing.push_back(Importing { sequence, kv, blocks, snapshot, done: 0, end_tokens, began });
        Some(Came::Whole)
    }

    /// Imports a piece of the sequence that waits longest: whole blocks of up to `most_tokens` tokens, one at least.
    /// Blocks that do not fit are left out.
    pub fn import<E: Engine<Kv = Kv>>(&mut self, engine: &mut E, most_tokens: usize) -> Option<Piece<Kv>> {
        let current = self.importing.front_mut()?;
        let asked = (self.clock)();
        let imported = current.append(engine, most_tokens);
        current.sequence.usage.restore_parts.import_ms += millis(asked, (self.clock)());
        let tokens = *imported.as_ref().unwrap_or(&0);
        if imported.is_ok() && current.done < current.blocks.len() {
            return Some(Piece { tokens, outcome: Imported::More });
        }
        let Importing { mut sequence, kv, blocks, began, .. } = self.importing.pop_front()?;
        let outcome = match imported {
            Ok(_) => {
                sequence.note_restored(tokens_of(&blocks, Tier::Resident), tokens_of(&blocks, Tier::Disk));
                Imported::Row(sequence, kv, began)
            }
            Err(error) => {
                tracing::warn!(%error, "restored blocks could not be imported; computing the whole prompt");
                match engine.start() {
                    Ok(kv) => Imported::Row(sequence, kv, began),
                    Err(error) => Imported::Failed(sequence, error),
                }
            }
        };
        Some(Piece { tokens, outcome })
    }

    /// Frees what belongs to clients that left. Returns how many there were.
    pub fn drop_abandoned(&mut self) -> usize {
        let before = self.len();
        self.reading.retain(|reading| !reading.sequence.is_abandoned());
        self.importing.retain(|importing| !importing.sequence.is_abandoned());
        before - self.len()
    }

    /// Gives all sequences up.
    pub fn take_all(&mut self) -> Vec<Sequence> {
        let importing = self.importing.drain(..).map(|importing| importing.sequence);
        self.reading.drain(..).map(|reading| reading.sequence).chain(importing).collect()
    }
}

impl<Kv> Importing<Kv> {
    /// Imports the next blocks of up to `most_tokens` tokens, one at least; behind the last, the snapshot. Returns their tokens.
    fn append<E: Engine<Kv = Kv>>(
        &mut self,
        engine: &mut E,
        most_tokens: usize,
    ) -> Result<usize, EngineError> {
        if self.done == 0 {
            self.kv = engine.start()?;
        }
        let (mut tokens, mut end) = (0, self.done);
        for block in &self.blocks[self.done..] {
            if tokens > 0 && block.used_tokens > most_tokens.saturating_sub(tokens) {
                break;
            }
            tokens += block.used_tokens;
            end += 1;
        }
        let blocks: Vec<ImportBlock<'_>> = self.blocks[self.done..end].iter().map(import_block).collect();
        engine.append(&mut self.kv, 0, &blocks, self.end_tokens)?;
        self.done = end;
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| end == self.blocks.len()) {
            engine.resume(&mut self.kv, 0, &snapshot.payload)?;
        }
        Ok(tokens)
    }
}

fn import_block(restored: &RestoredBlock) -> ImportBlock<'_> {
    ImportBlock {
        payload: &restored.block.payload,
        block_tokens: restored.block.tokens.len(),
        used_tokens: restored.used_tokens,
    }
}

fn tokens_of(blocks: &[RestoredBlock], tier: Tier) -> usize {
    blocks.iter().filter(|block| block.tier == tier).map(|block| block.used_tokens).sum()
}
