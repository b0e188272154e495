//! Law 1 over random histories: requests, cancels, evictions, restarts and crashes, in whatever order. On the engine that digests
//! tokens, without and with a recurrent layer, and on a small random Qwen3.5.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd::scheduler::{FinishReason, SchedulerThread, SnapshotPoint, StartError, Stream};
use prefixd_cache::{CacheOptions, SnapshotKind};
use prefixd_engine::sim::SimEngine;
use prefixd_engine::{EngineInfo, EngineThread};
use proptest::prelude::*;
use tempfile::TempDir;

use super::support::{
    BLOCK, collect, disk, engine, hybrid, options, prompt, reference_of, request, start_on_disk,
};

/// Bytes that the store's index takes, about; what comes on top is for blocks.
const INDEX_BYTES: u64 = 560 << 10;

/// Whose history it is.
trait Subject {
    /// Bytes that a block of it takes in RAM, and on disk.
    fn block_bytes(&self) -> (u64, u64);
    /// A server of it.
    fn start(&self, dir: &Path, resident_bytes: u64, budget_bytes: u64) -> SchedulerThread;
    /// What it answers without a cache, alone.
    fn reference(&self, prompt: &[u32], max_tokens: usize) -> (Vec<u32>, FinishReason);
}

/// The engine of tests.
struct Sim(fn() -> SimEngine);

impl Subject for Sim {
    fn block_bytes(&self) -> (u64, u64) {
        (16 * BLOCK as u64, 8 << 10)
    }

    fn start(&self, dir: &Path, resident_bytes: u64, budget_bytes: u64) -> SchedulerThread {
        start_on_disk((self.0)(), dir, resident_bytes, budget_bytes)
    }

    fn reference(&self, prompt: &[u32], max_tokens: usize) -> (Vec<u32>, FinishReason) {
        reference_of((self.0)(), prompt, max_tokens)
    }
}

/// A small random Qwen3.5.
struct Recurrent {
    alone: SchedulerThread,
}

fn load(thread: &EngineThread) -> Result<MlxEngine, StartError> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/qwen3_5");
    let options = LoadOptions { block_tokens: BLOCK, ..LoadOptions::default() };
    MlxEngine::load(thread, &dir, options, &mut |_| ()).map_err(|error| StartError::Engine(error.to_string()))
}

impl Recurrent {
    fn new() -> Self {
        Self { alone: SchedulerThread::spawn(options(), load, |_| None).unwrap() }
    }
}

impl Subject for Recurrent {
    fn block_bytes(&self) -> (u64, u64) {
        // Half of it is for states, each of which takes as much as several.
        (16 << 10, 32 << 10)
    }

    fn start(&self, dir: &Path, resident_bytes: u64, budget_bytes: u64) -> SchedulerThread {
        let disk = disk(dir, budget_bytes);
        let cache = move |info: &EngineInfo| {
            let (fingerprint, block_tokens) = (info.fingerprint, BLOCK);
            Some(CacheOptions { fingerprint, block_tokens, resident_bytes, disk: Some(disk) })
        };
        SchedulerThread::spawn(options(), load, cache).unwrap()
    }

    fn reference(&self, prompt: &[u32], max_tokens: usize) -> (Vec<u32>, FinishReason) {
        let outcome = collect(self.alone.handle().submit(request(prompt.to_vec(), max_tokens)).unwrap());
        (outcome.answer, outcome.reason)
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    /// A request for `family`'s prompt of `tokens` plus an own ending.
    Ask { family: u32, tokens: usize, ending: u32, max_tokens: usize },
    /// The oldest open stream is dropped.
    Leave,
    /// The oldest open stream is read to its end.
    Read,
    /// The server ends in order and starts again.
    Restart,
    /// The server stops between two instructions: what goes on is a copy of its directory as it was at that moment, torn
    /// wherever something was being written.
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (0_u32..3, 1_usize..300, 0_u32..4, 1_usize..40)
            .prop_map(|(family, tokens, ending, max_tokens)| Act::Ask { family, tokens, ending, max_tokens }),
        2 => Just(Act::Leave),
        5 => Just(Act::Read),
        1 => Just(Act::Restart),
        1 => Just(Act::Crash),
    ]
}

/// Copies what can be copied of a directory in use.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy(&entry.path(), &target),
            // A file that is gone by now was not there at the crash.
            _ => drop(std::fs::copy(entry.path(), target)),
        }
    }
}

struct History<'a> {
    subject: &'a dyn Subject,
    dir: TempDir,
    scheduler: Option<SchedulerThread>,
    resident_bytes: u64,
    budget_bytes: u64,
    open: VecDeque<(Vec<u32>, usize, Stream)>,
}

impl<'a> History<'a> {
    fn start(subject: &'a dyn Subject, resident_blocks: u64, disk_blocks: u64) -> Self {
        let (resident_bytes, disk_bytes) = subject.block_bytes();
        let mut history = Self {
            subject,
            dir: tempfile::tempdir().unwrap(),
            scheduler: None,
            resident_bytes: resident_blocks * resident_bytes,
            budget_bytes: INDEX_BYTES + disk_blocks * disk_bytes,
            open: VecDeque::new(),
        };
        history.begin();
        history
    }

    fn begin(&mut self) {
        let path = self.dir.path().join("store");
        self.scheduler = Some(self.subject.start(&path, self.resident_bytes, self.budget_bytes));
    }

    /// Ends the server; open streams are read first, or end with it.
    fn end(&mut self, grace: Duration) {
        let scheduler = self.scheduler.take().unwrap();
        let handle = scheduler.handle().clone();
        handle.drain(grace);
        if grace.is_zero() {
            self.open.clear();
        }
        while let Some(open) = self.open.pop_front() {
            self.check(open);
        }
        scheduler.join().unwrap();
        let status = handle.status();
        assert_eq!((status.waiting, status.prefilling, status.decoding), (0, 0, 0));
        assert_eq!(status.cache.pinned_blocks, 0);
    }

    fn check(&self, (asked, max_tokens, stream): (Vec<u32>, usize, Stream)) {
        let outcome = collect(stream);
        let expected = self.subject.reference(&asked, max_tokens);
        assert_eq!((outcome.answer, outcome.reason), expected);
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Ask { family, tokens, ending, max_tokens } => {
                let asked = [prompt(family, tokens), prompt(50 + ending, 5)].concat();
                let handle = self.scheduler.as_ref().unwrap().handle();
                let mut request = request(asked.clone(), max_tokens);
                // Only a model with recurrent layers looks at them.
                let points = [(tokens / 2, SnapshotKind::Anchor), (tokens, SnapshotKind::Message)];
                let points = points.map(|(tokens, kind)| SnapshotPoint { tokens, kind });
                request.hold.snapshots = points[ending.min(2) as usize..].to_vec();
                let stream = handle.submit(request).unwrap();
                self.open.push_back((asked, max_tokens, stream));
            }
            Act::Leave => drop(self.open.pop_front()),
            Act::Read => {
                if let Some(open) = self.open.pop_front() {
                    self.check(open);
                }
            }
            Act::Restart => {
                self.end(Duration::from_secs(30));
                self.begin();
            }
            Act::Crash => {
                let image = tempfile::tempdir().unwrap();
                copy(&self.dir.path().join("store"), &image.path().join("store"));
                self.end(Duration::ZERO);
                self.dir = image;
                self.begin();
            }
        }
    }
}

fn run(subject: &dyn Subject, acts: &[Act], resident_blocks: u64, disk_blocks: u64) {
    // Budgets of a few blocks evict all the time.
    let mut history = History::start(subject, resident_blocks, disk_blocks);
    for act in acts {
        history.act(act);
    }
    history.end(Duration::from_secs(30));
}

thread_local! {
    static RECURRENT: Recurrent = Recurrent::new();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_is_transparent_to_a_model_with_recurrent_layers(
        acts in prop::collection::vec(act(), 1..30),
        resident_blocks in 0_u64..40,
        disk_blocks in 0_u64..60,
    ) {
        RECURRENT.with(|subject| run(subject, &acts, resident_blocks, disk_blocks));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_is_transparent(
        acts in prop::collection::vec(act(), 1..30),
        resident_blocks in 0_u64..40,
        disk_blocks in 0_u64..60,
    ) {
        run(&Sim(engine), &acts, resident_blocks, disk_blocks);
    }

    #[test]
    fn the_cache_is_transparent_to_recurrent_layers(
        acts in prop::collection::vec(act(), 1..30),
        resident_blocks in 0_u64..40,
        disk_blocks in 0_u64..60,
    ) {
        run(&Sim(hybrid), &acts, resident_blocks, disk_blocks);
    }
}
