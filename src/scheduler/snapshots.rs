//! Where in a prompt snapshots are taken.
//!
//! A model with recurrent layers can only go on from where a snapshot of their state lies. So snapshots are taken where later
//! prompts are likely to part from this one, while it is computed: a chunk ends at each of these places. They are:
//!
//! 1. what the request names (ends of messages), and the prefixes that it pins;
//! 2. the place up to which blocks are known and no snapshot is, and the place up to which a waiting request shares the prompt;
//! 3. in long prompts, powers of two: whatever is edited, at most half of what lies before it is computed again;
//! 4. without any of these, the end of what may be known of a prompt.
//!
//! Invariant: places are in order, each is there once, and none is passed without its snapshot being taken.

use prefixd_cache::{Lookup, SnapshotKind};

use super::message::{Request, SnapshotPoint};

/// Prompts longer than this have snapshots at powers of two, from half of it on.
const LONG_TOKENS: usize = 8_192;

/// See the module's documentation. Models without recurrent layers have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SnapshotPoints {
    points: Vec<SnapshotPoint>,
    /// Those at the front that the sequence has passed.
    passed: usize,
    /// Nearer than this to another place, a place that nobody named is not worth a snapshot.
    apart: usize,
}

impl SnapshotPoints {
    /// The places of a request of which `lookup` is known. Places are moved down to multiples of `multiple` tokens; tokens
    /// between two are at least `apart` where nobody named them.
    pub fn of(request: &Request, lookup: &Lookup, multiple: usize, apart: usize) -> Self {
        let mut places = Self { points: Vec::new(), passed: 0, apart };
        let reusable = request.prompt.len() - 1;
        let pins = request
            .hold
            .pins
            .iter()
            .map(|pin| SnapshotPoint { tokens: pin.tokens, kind: SnapshotKind::Anchor });
        let mut points: Vec<SnapshotPoint> = request.hold.snapshots.iter().copied().chain(pins).collect();
        if points.is_empty() {
            points.push(SnapshotPoint { tokens: reusable, kind: SnapshotKind::Message });
        }
        for point in points {
            let tokens = point.tokens.min(reusable);
            places.put(SnapshotPoint { tokens: tokens - tokens % multiple, ..point }, lookup.tokens);
        }
        let junction = lookup.tokens + lookup.no_state_tokens;
        let lattice = std::iter::successors(Some(LONG_TOKENS / 2), |at| at.checked_mul(2));
        let lattice =
            lattice.take_while(|at| request.prompt.len() > LONG_TOKENS && at < &request.prompt.len());
        for tokens in lattice.chain([junction]) {
            places.part(tokens - tokens % multiple, lookup.tokens);
        }
        places
    }

    /// The next place, in tokens.
    pub fn next(&self) -> Option<usize> {
        self.points.get(self.passed).map(|point| point.tokens)
    }

    /// A place at which another prompt parts from this one, which is in KV up to `done_tokens`.
    pub fn part(&mut self, tokens: usize, done_tokens: usize) {
        let near = |point: &SnapshotPoint| point.tokens.abs_diff(tokens) < self.apart;
        if !self.points.iter().any(near) && tokens >= done_tokens + self.apart {
            self.put(SnapshotPoint { tokens, kind: SnapshotKind::Junction }, done_tokens);
        }
    }

    fn put(&mut self, point: SnapshotPoint, done_tokens: usize) {
        if point.tokens <= done_tokens {
            return;
        }
        match self.points.binary_search_by_key(&point.tokens, |known| known.tokens) {
            Ok(at) => self.points[at].kind = self.points[at].kind.min(point.kind),
            Err(at) => self.points.insert(at, point),
        }
    }

    /// The prompt is in KV up to `done_tokens`: what the snapshot is for that is to be taken there, if one is.
    pub fn pass(&mut self, done_tokens: usize) -> Option<SnapshotKind> {
        let mut here = None;
        while let Some(point) = self.points.get(self.passed).filter(|point| point.tokens <= done_tokens) {
            here = (point.tokens == done_tokens).then_some(point.kind);
            self.passed += 1;
        }
        here
    }

    /// A snapshot is still to be taken behind `least` tokens or more, and at most `most`.
    pub fn has_between(&self, least: usize, most: usize) -> bool {
        self.points[self.passed..].iter().any(|point| (least..=most).contains(&point.tokens))
    }
}

#[cfg(test)]
mod tests {
    use prefixd_cache::SnapshotKind::{Anchor, End, Junction, Message};
    use prefixd_cache::{Miss, Tenant};
    use prefixd_engine::Sampling;

    use super::*;
    use crate::scheduler::{Hold, PrefixPin};

    fn request(tokens: usize, snapshots: &[(usize, SnapshotKind)], pins: &[usize]) -> Request {
        let snapshots = snapshots.iter().map(|(tokens, kind)| SnapshotPoint { tokens: *tokens, kind: *kind });
        let pins = pins.iter().map(|tokens| PrefixPin { tokens: *tokens, time: std::time::Duration::ZERO });
        Request {
            prompt: vec![0; tokens],
            max_tokens: 1,
            min_tokens: 0,
            stop_tokens: [].into(),
            sampling: Sampling::default(),
            constraint: None,
            top_logprobs: None,
            tenant: Tenant::PUBLIC,
            hold: Hold { snapshots: snapshots.collect(), pins: pins.collect(), ..Hold::default() },
        }
    }

    fn known(tokens: usize, no_state_tokens: usize) -> Lookup {
        let (hits, snapshot, miss) = (Vec::new(), None, Miss::Absent);
        Lookup { asked_tokens: 0, tokens, hits, snapshot, no_state_tokens, miss }
    }

    fn places(request: &Request, lookup: &Lookup, multiple: usize) -> Vec<(usize, SnapshotKind)> {
        let places = SnapshotPoints::of(request, lookup, multiple, 10);
        places.points.iter().map(|point| (point.tokens, point.kind)).collect()
    }

    #[test]
    fn places_come_from_the_request_its_pins_the_tree_and_its_length() {
        let nothing = known(0, 0);
        assert_eq!(places(&request(100, &[], &[]), &nothing, 1), [(99, Message)]);
        let asked = request(100, &[(30, Anchor), (80, Message), (90, End)], &[50]);
        assert_eq!(places(&asked, &nothing, 1), [(30, Anchor), (50, Anchor), (80, Message), (90, End)]);
        assert_eq!(
            places(&asked, &known(40, 25), 1),
            [(50, Anchor), (65, Junction), (80, Message), (90, End)]
        );
        assert_eq!(
            places(&asked, &known(40, 12), 1),
            [(50, Anchor), (80, Message), (90, End)],
            "not worth it"
        );
        assert_eq!(
            places(&asked, &nothing, 32),
            [(32, Anchor), (64, Message)],
            "the first is moved to nothing"
        );
        let long = request(20_000, &[(9_000, Message)], &[]);
        assert_eq!(
            places(&long, &known(4_500, 0), 1),
            [(8_192, Junction), (9_000, Message), (16_384, Junction)]
        );
        assert_eq!(places(&request(8_192, &[], &[]), &nothing, 1), [(8_191, Message)]);
        assert_eq!(places(&request(1, &[], &[]), &nothing, 1), []);
    }

    #[test]
    fn each_place_is_passed_once_and_others_may_come_before_the_next() {
        let mut places =
            SnapshotPoints::of(&request(100, &[(30, Anchor), (80, Message)], &[]), &known(0, 0), 1, 16);
        assert_eq!((places.next(), places.pass(20)), (Some(30), None));
        assert!(places.has_between(16, 30) && !places.has_between(31, 79));
        places.part(40, 20);
        places.part(60, 20);
        places.part(70, 20);
        assert_eq!(places.points.len(), 3, "40 is near 30, and 70 is near 60");
        assert_eq!((places.pass(30), places.next()), (Some(Anchor), Some(60)));
        assert!(!places.has_between(16, 30));
        assert_eq!((places.pass(61), places.next()), (None, Some(80)));
        assert_eq!((places.pass(80), places.next()), (Some(Message), None));
    }
}
