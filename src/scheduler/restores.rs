//! Sequences on the way to their rows: known blocks are read, then imported piece by piece.
//!
//! Reading happens on the cache's threads, and a long prefix is read in parts, so that one is imported while the next is read.
//! Importing copies bytes on the scheduler's thread, so while rows decode a step imports no more than
//! [`Pace`](super::pace::Pace) allows, and a long restore does not stall a running stream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;

use prefixd_cache::{Block, Lookup, Restored, RestoredBlock, Tier};
use prefixd_engine::{Engine, EngineError, ImportBlock};

use super::options::Clock;
use super::persist::Persist;
use super::sequence::{Sequence, millis};

/// Blocks that are read before the first of them are imported.
const PART_BLOCKS: usize = 8;

/// A part of a restore that was read.
pub(super) struct Arrival {
    ticket: u64,
    /// Its place among the parts of the restore.
    part: usize,
    restored: Restored,
}

/// A sequence whose known prefix is read and imported.
struct Restoring<Kv> {
    ticket: u64,
    sequence: Sequence,
    began: Instant,
    /// Parts that are not ready to be imported.
    parts: VecDeque<Part>,
    /// Parts that are.
    ready_parts: usize,
    /// From the beginning to the last part that has come.
    read_for: Duration,
    /// Blocks that are imported next.
    blocks: VecDeque<RestoredBlock>,
    /// The state of recurrent layers behind them.
    snapshot: Option<Arc<Block>>,
    /// The row, once something was imported.
    kv: Option<Kv>,
    /// Tokens of all parts.
    end_tokens: usize,
    /// Tokens that were imported from memory and from disk.
    resident_tokens: usize,
    disk_tokens: usize,
}

/// A part that is read, or was read before one that comes first.
struct Part {
    end_tokens: usize,
    restored: Option<Restored>,
}

/// What has become of a sequence a part of whose blocks has come.
pub(super) enum Came {
    /// It is being imported.
    Part,
    /// Blocks were lost meanwhile. The sequence, and when its restore began.
    Lost(Box<Sequence>, Instant),
    /// Its client has left, or it is looked up again.
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
    block_tokens: usize,
    /// Parts that came back. Unbounded, since the bound is elsewhere: a row restores once, in parts of its own; a
    /// bound here could block a reader behind sequences that were abandoned meanwhile.
    arrivals: (Sender<Arrival>, Receiver<Arrival>),
    tickets: u64,
    /// In order of arrival; the first that has blocks is imported first.
    restoring: Vec<Restoring<Kv>>,
}

impl<Kv> Restores<Kv> {
    pub fn new(clock: Clock, block_tokens: usize) -> Self {
        let arrivals = crossbeam_channel::unbounded();
        Self { clock, block_tokens, arrivals, tickets: 0, restoring: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.restoring.len()
    }

    pub fn is_empty(&self) -> bool {
        self.restoring.is_empty()
    }

    /// Blocks wait to be imported.
    pub fn can_import(&self) -> bool {
        self.restoring.iter().any(Restoring::is_ready)
    }

    pub fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.restoring.iter().map(|restoring| &restoring.sequence)
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
        let ticket = self.tickets;
        let lookups = lookup.parts(PART_BLOCKS * self.block_tokens);
        let parts = lookups.iter().map(|part| Part { end_tokens: part.tokens, restored: None }).collect();
        self.restoring.push(Restoring {
            ticket,
            sequence,
            began,
            parts,
            ready_parts: 0,
            read_for: Duration::ZERO,
            blocks: VecDeque::new(),
            snapshot: None,
            kv: None,
            end_tokens: lookup.tokens,
            resident_tokens: 0,
            disk_tokens: 0,
        });
        for (part, lookup) in lookups.iter().enumerate() {
            let sender = self.arrivals.0.clone();
            persist.restore(lookup, window_from, move |restored| {
                // A scheduler that is gone needs no blocks.
                sender.send(Arrival { ticket, part, restored }).ok();
            });
        }
    }

    /// Takes the next blocks that have come, if any have.
    pub fn take_arrived(&mut self, persist: &mut Persist) -> Option<Came> {
        let Arrival { ticket, part, restored } = self.arrivals.1.try_recv().ok()?;
        persist.absorb(&restored);
        // What was read for an abandoned sequence stays useful in RAM.
        let Some(at) = self.restoring.iter().position(|restoring| restoring.ticket == ticket) else {
            return Some(Came::Late);
        };
        let restoring = &mut self.restoring[at];
        restoring.note_reading(&restored);
        let Some(slot) = restoring.parts.get_mut(part - restoring.ready_parts) else {
            return Some(Came::Late);
        };
        if restored.tokens < slot.end_tokens {
            let (wanted_tokens, restored_tokens) = (slot.end_tokens, restored.tokens);
            tracing::warn!(wanted_tokens, restored_tokens, reason = ?restored.failure, "a block was lost; looking up again");
            let Restoring { sequence, began, .. } = self.restoring.remove(at);
            return Some(Came::Lost(Box::new(sequence), began));
        }
        slot.restored = Some(restored);
        restoring.line_up();
        Some(Came::Part)
    }

    /// Imports a piece of the sequence that waits longest: whole blocks of up to `most_tokens` tokens, one at least.
    /// Blocks that do not fit are left out.
    pub fn import<E: Engine<Kv = Kv>>(&mut self, engine: &mut E, most_tokens: usize) -> Option<Piece<Kv>> {
        let at = self.restoring.iter().position(Restoring::is_ready)?;
        let current = &mut self.restoring[at];
        let asked = (self.clock)();
        let imported = current.append(engine, most_tokens);
        current.sequence.usage.restore_parts.import_ms += millis(asked, (self.clock)());
        let tokens = *imported.as_ref().unwrap_or(&0);
        if imported.is_ok() && !current.is_done() {
            return Some(Piece { tokens, outcome: Imported::More });
        }
        let Restoring { mut sequence, kv, began, resident_tokens, disk_tokens, .. } =
            self.restoring.remove(at);
        let kv = match (imported, kv) {
            (Ok(_), Some(kv)) => {
                sequence.note_restored(resident_tokens, disk_tokens);
                Ok(kv)
            }
            (imported, _) => {
                let error = imported.err();
                tracing::warn!(?error, "restored blocks could not be imported; computing the whole prompt");
                engine.start()
            }
        };
        let outcome = match kv {
            Ok(kv) => Imported::Row(sequence, kv, began),
            Err(error) => Imported::Failed(sequence, error),
        };
        Some(Piece { tokens, outcome })
    }

    /// Frees what belongs to clients that left. Returns how many there were.
    pub fn drop_abandoned(&mut self) -> usize {
        let before = self.len();
        self.restoring.retain(|restoring| !restoring.sequence.is_abandoned());
        before - self.len()
    }

    /// Gives all sequences up.
    pub fn take_all(&mut self) -> Vec<Sequence> {
        self.restoring.drain(..).map(|restoring| restoring.sequence).collect()
    }
}

impl<Kv> Restoring<Kv> {
    /// There is something to import, or to end with.
    fn is_ready(&self) -> bool {
        !self.blocks.is_empty() || self.is_done()
    }

    fn is_done(&self) -> bool {
        self.parts.is_empty() && self.blocks.is_empty()
    }

    /// Adds what the part makes the reading longer. Parts are read side by side: only the last to come counts whole.
    fn note_reading(&mut self, restored: &Restored) {
        let longer = restored.elapsed.saturating_sub(self.read_for).as_secs_f64() * 1e3;
        self.read_for = self.read_for.max(restored.elapsed);
        let (read, verify) = (restored.read.as_secs_f64(), restored.verify.as_secs_f64());
        if read + verify > 0.0 {
            let parts = &mut self.sequence.usage.restore_parts;
            parts.read_ms += longer * read / (read + verify);
            parts.verify_ms += longer * verify / (read + verify);
        }
    }

    /// Makes those parts ready that have come and that no missing one precedes.
    fn line_up(&mut self) {
        while self.parts.front().is_some_and(|part| part.restored.is_some()) {
            let Some(Part { restored: Some(restored), .. }) = self.parts.pop_front() else { return };
            self.ready_parts += 1;
            self.blocks.extend(restored.blocks);
            self.snapshot = restored.snapshot;
        }
    }

    /// Imports the next blocks of up to `most_tokens` tokens, one at least; behind the last, the snapshot. Returns their tokens.
    fn append<E: Engine<Kv = Kv>>(
        &mut self,
        engine: &mut E,
        most_tokens: usize,
    ) -> Result<usize, EngineError> {
        let mut kv = match self.kv.take() {
            Some(kv) => kv,
            None => engine.start()?,
        };
        let (mut tokens, mut count) = (0, 0);
        for block in &self.blocks {
            if tokens > 0 && block.used_tokens > most_tokens.saturating_sub(tokens) {
                break;
            }
            tokens += block.used_tokens;
            count += 1;
        }
        let blocks: Vec<RestoredBlock> = self.blocks.drain(..count).collect();
        let imports: Vec<ImportBlock<'_>> = blocks.iter().map(import_block).collect();
        engine.append(&mut kv, 0, &imports, self.end_tokens)?;
        self.resident_tokens += tokens_of(&blocks, Tier::Resident);
        self.disk_tokens += tokens_of(&blocks, Tier::Disk);
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| self.is_done()) {
            engine.resume(&mut kv, 0, &snapshot.payload)?;
        }
        self.kv = Some(kv);
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
