//! The cache against the simplest thing that could be right: a list of all prompts each tenant ever computed.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::disk::testing::disk_options;
use crate::key::Tenant;
use crate::stats::FlushOutcome;
use crate::testing::{assert_sound, cases, memory_dir, payload, restore, run, settled_bytes};
use crate::tuning::Tuning;

/// The sliding window of the model that the tests have in mind, in tokens.
const WINDOW_TOKENS: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A sequence that computes its prompt and ends.
    Serve(u8, Vec<u32>),
    /// One that lives on.
    Hold(u8, Vec<u32>),
    /// The oldest living one goes on by some tokens.
    Grow(Vec<u32>),
    /// The oldest living one ends.
    Release,
    Reuse(u8, Vec<u32>),
    /// A prefix is pinned, named as living, moved to disk and, where things may be gone, freed.
    Name(u8, Vec<u32>),
    Poll,
    Flush,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few tokens, so that prompts share, part and end at every place in a block.
    let tokens = || proptest::collection::vec(0_u32..3, 1..15);
    let step = prop_oneof![
        4 => (0_u8..2, tokens()).prop_map(|(tenant, prompt)| Step::Serve(tenant, prompt)),
        2 => (0_u8..2, tokens()).prop_map(|(tenant, prompt)| Step::Hold(tenant, prompt)),
        1 => proptest::collection::vec(0_u32..3, 1..6).prop_map(Step::Grow),
        2 => Just(Step::Release),
        4 => (0_u8..2, tokens()).prop_map(|(tenant, prompt)| Step::Reuse(tenant, prompt)),
        2 => (0_u8..2, tokens()).prop_map(|(tenant, prompt)| Step::Name(tenant, prompt)),
        1 => Just(Step::Poll),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

struct Living {
    tenant: u8,
    prompt: Vec<u32>,
    lease: Lease,
}

/// The cache under test, what is known of it, and the sequences that live.
struct Trial {
    cache: PrefixCache,
    options: CacheOptions,
    computed: Vec<(u8, Vec<u32>)>,
    living: Vec<Living>,
    /// Whether there is room for everything: then all that was computed is found.
    roomy: bool,
}

fn tenant(number: u8) -> Tenant {
    Tenant::from_bytes([number + 1; 32])
}

impl Trial {
    fn new(options: CacheOptions, roomy: bool) -> Self {
        let cache = open(options.clone());
        Self { cache, options, computed: Vec::new(), living: Vec::new(), roomy }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Serve(number, prompt) => {
                let (_, lease) = run(&mut self.cache, &tenant(number), &prompt);
                drop(lease);
                self.cache.evict_resident();
                self.computed.push((number, prompt));
            }
            Step::Hold(number, prompt) => {
                let (_, lease) = run(&mut self.cache, &tenant(number), &prompt);
                self.living.push(Living { tenant: number, prompt: prompt.clone(), lease });
                self.computed.push((number, prompt));
            }
            Step::Grow(more) => self.grow(&more),
            Step::Release if !self.living.is_empty() => {
                let ended = self.living.remove(0);
                drop(ended.lease);
                self.cache.evict_resident();
            }
            Step::Release => {}
            Step::Reuse(number, prompt) => self.reuse(number, &prompt),
            Step::Name(number, prompt) => self.name(number, &prompt),
            Step::Poll => self.cache.poll(),
            Step::Flush => {
                let outcome =
                    self.cache.flush(std::time::Instant::now() + std::time::Duration::from_secs(20));
                if self.roomy && self.options.disk.is_some() {
                    assert_eq!(outcome, FlushOutcome::Durable);
                }
            }
            Step::Restart => self.restart(),
        }
        self.cache.assert_invariants();
        for living in &self.living {
            let kept = &living.prompt[..living.lease.tokens()];
            let tokens = self.cache.lookup(&tenant(living.tenant), kept, kept.len()).tokens;
            assert_eq!(tokens, kept.len(), "a leased chain is found");
        }
    }

    /// Decoding: the living sequence gets tokens, and the blocks that they fill.
    fn grow(&mut self, more: &[u32]) {
        let Some(living) = self.living.first_mut() else { return };
        living.prompt.extend(more);
        let (prompt, lease) = (&living.prompt, &mut living.lease);
        while prompt.len() - lease.tokens() >= self.options.block_tokens {
            let (start, end) = (lease.tokens(), lease.tokens() + self.options.block_tokens);
            if !self.cache.advance(lease, &prompt[start..end]) {
                self.cache.insert(lease, &prompt[start..end], payload(&prompt[..end], start));
            }
        }
        self.computed.push((living.tenant, prompt[..lease.tokens()].to_vec()));
    }

    fn name(&mut self, number: u8, prompt: &[u32]) {
        let keys = self.cache.blocks_of(&tenant(number), prompt);
        self.cache.pin(&tenant(number), prompt, std::time::Duration::from_hours(1));
        self.cache.prefer(&keys);
        if self.options.disk.is_some() {
            self.cache.move_to_disk(&keys);
        }
        self.cache.assert_invariants();
        if !self.roomy {
            self.cache.unprefer(&keys);
            self.cache.free(&keys, &std::collections::HashSet::new());
        }
    }

    fn reuse(&mut self, number: u8, prompt: &[u32]) {
        let longest = self
            .computed
            .iter()
            .filter(|(tenant, _)| *tenant == number)
            .map(|(_, known)| known.iter().zip(prompt).take_while(|(a, b)| a == b).count())
            .max()
            .unwrap_or(0);
        let lookup = self.cache.lookup(&tenant(number), prompt, prompt.len());
        assert!(lookup.tokens <= longest, "{} tokens found, {longest} ever computed", lookup.tokens);
        if self.roomy {
            assert_eq!(lookup.tokens, longest);
        }
        let window_from = (lookup.tokens + 1).saturating_sub(WINDOW_TOKENS);
        let restored = restore(&mut self.cache, &lookup, window_from);
        assert_eq!((restored.tokens, restored.failure), (lookup.tokens, None));
        for brought in &restored.blocks {
            assert_sound(&brought.block, prompt, brought.used_tokens, brought.has_window);
            assert!(
                brought.has_window || brought.block.end() <= window_from,
                "what the window sees is there"
            );
        }
    }

    fn restart(&mut self) {
        for living in self.living.drain(..) {
            drop(living.lease);
            self.cache.evict_resident();
        }
        if self.options.disk.is_none() {
            self.computed.clear();
        }
        // One process at a time: the old cache lets go of the directory before the new one takes it.
        let without_disk = CacheOptions { disk: None, ..self.options.clone() };
        self.cache = PrefixCache::open(without_disk).unwrap();
        self.cache = open(self.options.clone());
    }
}

fn open(options: CacheOptions) -> PrefixCache {
    let tuning = Tuning { window_tokens: Some(WINDOW_TOKENS), ..Tuning::default() };
    PrefixCache::open_tuned(options, tuning).unwrap()
}

fn roomy(dir: &Path) -> CacheOptions {
    disk_options(dir)
}

/// Room for a few blocks in each tier.
fn tight(dir: &Path) -> CacheOptions {
    let mut options = disk_options(dir);
    let used = settled_bytes(&options);
    options.resident_bytes = 1_500;
    options.disk.as_mut().unwrap().budget_bytes = used + 32_768;
    options.disk.as_mut().unwrap().write_queue_bytes = 1_500;
    options
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn with_room_everything_ever_computed_is_found_across_restarts(steps in steps()) {
        let dir = memory_dir();
        let mut trial = Trial::new(roomy(dir.path()), true);
        for step in steps {
            trial.take(step);
        }
    }

    #[test]
    fn without_room_what_is_found_is_right_and_what_is_leased_is_found(steps in steps()) {
        let dir = memory_dir();
        let mut trial = Trial::new(tight(dir.path()), false);
        for step in steps {
            trial.take(step);
        }
    }

    #[test]
    fn in_ram_alone_everything_is_found_until_the_end_of_the_process(steps in steps()) {
        let dir = memory_dir();
        let mut trial = Trial::new(CacheOptions { disk: None, ..roomy(dir.path()) }, true);
        for step in steps {
            trial.take(step);
        }
    }
}
