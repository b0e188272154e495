//! What a model keeps for a row, layer by layer: all that scheduling and caching know of a model's architecture.
//!
//! | kind of layer | rule | in the cache | bytes a token | bytes a row |
//! |---|---|---|---|---|
//! | attention, latent attention | [`ReuseRule::All`] | [`Part::Full`] | K and V, or one latent and one rotary key | 0 |
//! | attention with a window | [`ReuseRule::Last`] | [`Part::Window`] | K and V | 0 |
//! | recurrent | [`ReuseRule::At`] | [`Part::State`] | 0 | the state |
//! | one that reads another's K and V | [`LayerState::Shared`] | | 0 | 0 |
//!
//! [`Part::Full`]: prefixd_cache::Part::Full
//! [`Part::Window`]: prefixd_cache::Part::Window
//! [`Part::State`]: prefixd_cache::Part::State

/// Which of a layer's state a row needs in order to go on from a prefix of n tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReuseRule {
    /// What all n tokens left. Can be cut to any shorter prefix.
    All,
    /// What the last so many tokens left: as many as the next token sees, itself not counted. Can be cut while they are
    /// held.
    Last(usize),
    /// The state after exactly n tokens. Cannot be cut.
    At,
}

impl ReuseRule {
    /// The first of the tokens whose state is needed to go on from `tokens` tokens; `tokens` when none is.
    pub fn needed_from(self, tokens: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Last(reach) => tokens.saturating_sub(reach),
            Self::At => tokens,
        }
    }
}

/// What a layer keeps that has state of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnState {
    /// What of it a prefix needs.
    pub rule: ReuseRule,
    /// Bytes that a token leaves.
    pub token_bytes: u64,
    /// Bytes that a row takes, however many tokens it holds.
    pub row_bytes: u64,
}

/// What one layer keeps for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// State of its own.
    Own(OwnState),
    /// Nothing of its own: it reads what an earlier layer keeps.
    Shared {
        /// That layer.
        with: usize,
    },
}

/// A list of layers that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("layer {layer} shares the state of layer {with}; expected an earlier layer with a state of its own")]
pub struct StateSpecError {
    /// The layer that shares.
    pub layer: usize,
    /// What it names.
    pub with: usize,
}

/// The layers of a model, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpec {
    layers: Vec<LayerState>,
}

impl StateSpec {
    /// # Errors
    /// A layer that shares with one that keeps nothing, or does not come before it.
    pub fn new(layers: Vec<LayerState>) -> Result<Self, StateSpecError> {
        for (layer, state) in layers.iter().enumerate() {
            let LayerState::Shared { with } = *state else { continue };
            if with >= layer || matches!(layers[with], LayerState::Shared { .. }) {
                return Err(StateSpecError { layer, with });
            }
        }
        Ok(Self { layers })
    }

    /// Layers that all keep a state of their own.
    pub fn own(layers: impl IntoIterator<Item = OwnState>) -> Self {
        Self { layers: layers.into_iter().map(LayerState::Own).collect() }
    }

    /// In order.
    pub fn layers(&self) -> &[LayerState] {
        &self.layers
    }

    /// Bytes of a row that holds so many tokens.
    pub fn row_bytes(&self, tokens: usize) -> u64 {
        self.states().fold(0, |sum: u64, state| {
            let held = (tokens - state.rule.needed_from(tokens)) as u64;
            sum.saturating_add(state.token_bytes.saturating_mul(held)).saturating_add(state.row_bytes)
        })
    }

    /// The most tokens, up to `most`, that a row of at most so many bytes holds.
    pub fn tokens_within(&self, bytes: u64, most: usize) -> usize {
        if self.row_bytes(most) <= bytes {
            return most;
        }
        let (mut fits, mut too_many) = (0, most);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if self.row_bytes(middle) <= bytes { fits = middle } else { too_many = middle }
        }
        fits
    }

    /// Bytes that one more token costs for good, in layers that keep all tokens.
    pub fn token_bytes(&self) -> u64 {
        self.states().filter(|state| state.rule == ReuseRule::All).map(|state| state.token_bytes).sum()
    }

    /// The widest sliding window: tokens that a token sees, itself included. `None` when no layer has one.
    pub fn window_tokens(&self) -> Option<usize> {
        let window = |state: &OwnState| match state.rule {
            ReuseRule::Last(reach) => Some(reach + 1),
            ReuseRule::All | ReuseRule::At => None,
        };
        self.states().filter_map(window).max()
    }

    /// Does a row keep state that only a snapshot can restore?
    pub fn has_snapshots(&self) -> bool {
        self.states().any(|state| state.rule == ReuseRule::At)
    }

    /// Bytes of a row's snapshot.
    pub fn snapshot_bytes(&self) -> u64 {
        self.states().filter(|state| state.rule == ReuseRule::At).map(|state| state.row_bytes).sum()
    }

    fn states(&self) -> impl Iterator<Item = &OwnState> {
        self.layers.iter().filter_map(|layer| match layer {
            LayerState::Own(state) => Some(state),
            LayerState::Shared { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(rule: ReuseRule, token_bytes: u64, row_bytes: u64) -> LayerState {
        LayerState::Own(OwnState { rule, token_bytes, row_bytes })
    }

    #[test]
    fn a_row_s_bytes_are_those_of_the_tokens_that_each_layer_holds() {
        let mixed = StateSpec::new(vec![
            own(ReuseRule::All, 10, 0),
            own(ReuseRule::Last(4), 100, 0),
            own(ReuseRule::At, 0, 5000),
            LayerState::Shared { with: 0 },
        ])
        .unwrap();
        assert_eq!([0, 3, 9].map(|tokens| mixed.row_bytes(tokens)), [5000, 5330, 5490]);
        assert_eq!((mixed.token_bytes(), mixed.window_tokens()), (10, Some(5)));
        let most = StateSpec::new(vec![own(ReuseRule::All, 7, 0)]).unwrap();
        assert_eq!(most.row_bytes(usize::MAX), u64::MAX, "no overflow");
    }

    #[test]
    fn a_row_of_some_bytes_holds_as_many_tokens_as_they_pay_for() {
        let spec =
            StateSpec::new(vec![own(ReuseRule::All, 10, 50), own(ReuseRule::Last(4), 100, 0)]).unwrap();
        for (bytes, tokens) in [(0, 0), (50, 0), (160, 1), (489, 3), (490, 4), (509, 5), (1_000_000, 1000)] {
            assert_eq!(spec.tokens_within(bytes, 1000), tokens, "{bytes}");
        }
    }

    #[test]
    fn what_a_prefix_needs_follows_the_rule() {
        let from = |rule: ReuseRule| [0, 3, 9].map(|tokens| rule.needed_from(tokens));
        assert_eq!(from(ReuseRule::All), [0, 0, 0]);
        assert_eq!(from(ReuseRule::Last(4)), [0, 0, 5]);
        assert_eq!(from(ReuseRule::At), [0, 3, 9]);
    }

    #[test]
    fn a_layer_shares_with_an_earlier_one_that_keeps_something() {
        let all = own(ReuseRule::All, 1, 0);
        for (layers, error) in [
            (vec![LayerState::Shared { with: 0 }], (0, 0)),
            (vec![all, LayerState::Shared { with: 2 }, all], (1, 2)),
            (vec![all, LayerState::Shared { with: 0 }, LayerState::Shared { with: 1 }], (2, 1)),
        ] {
            let (layer, with) = error;
            assert_eq!(StateSpec::new(layers), Err(StateSpecError { layer, with }));
        }
    }
}
