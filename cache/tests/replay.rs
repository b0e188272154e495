//! The replay bench's parts: the trace format, the shape of the generated traffic, and that the default policy wins.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the bench prints more than is tested")]
#[path = "../benches/replay/agents.rs"]
mod agents;
#[path = "../benches/replay/mooncake.rs"]
mod mooncake;
#[path = "../benches/replay/replay.rs"]
mod replay;

use agents::AgentTraffic;
use prefixd_cache::{CostAware, Lru};
use replay::{BLOCK_TOKENS, Found, Request, ideal, replay};

#[test]
fn a_trace_in_mooncakes_format_is_read_and_its_hits_counted_by_tokens() {
    let text = "\
{\"timestamp\": 0, \"input_length\": 1300, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}
{\"timestamp\": 3000, \"input_length\": 1024, \"output_length\": 5, \"hash_ids\": [0, 1]}

{\"timestamp\": 4000, \"input_length\": 1300, \"output_length\": 5, \"hash_ids\": [0, 1, 2]}
";
    let requests = mooncake::parse(text).unwrap();
    assert_eq!(requests[1], Request { at_ms: 3_000, tokens: 1_024, blocks: vec![0, 1] });
    assert_eq!(ideal(&requests), Found { asked_tokens: 3_624, hit_tokens: 2_324 });
    // Room for one block: only the first one of each prompt can be there.
    let found = replay(&requests, BLOCK_TOKENS, Box::new(Lru));
    assert_eq!(found.hit_tokens, 1_024);
}

#[test]
fn a_line_that_contradicts_itself_is_named() {
    let error = mooncake::parse("{\"timestamp\": 0, \"input_length\": 600, \"hash_ids\": [1]}").unwrap_err();
    assert_eq!(error, "line 1: 1 hash_ids for 600 tokens, expected 2");
    assert!(mooncake::parse("nonsense").unwrap_err().starts_with("line 1: "));
}

#[test]
fn generated_traffic_has_the_shape_of_agents() {
    let requests = AgentTraffic::default().requests();
    assert_eq!(requests, AgentTraffic::default().requests(), "the same seed gives the same trace");
    let mut lengths: Vec<usize> = requests.iter().map(|request| request.tokens).collect();
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!((90_000..120_000).contains(&median), "{median} tokens in the median; public traces say 105,000");
    let rate = ideal(&requests).rate();
    assert!((0.94..0.98).contains(&rate), "{rate}; public traces say 96 %");
    assert!(requests.iter().all(|request| request.blocks.len() == request.tokens.div_ceil(BLOCK_TOKENS)));
}

#[test]
fn the_default_policy_finds_more_than_lru_where_room_is_short() {
    let policy = CostAware::default();
    let in_blocks = CostAware { attention_tokens: policy.attention_tokens / BLOCK_TOKENS as f64, ..policy };
    let (mut lru, mut cost_aware) = (0.0, 0.0);
    for seed in 1..=2 {
        let requests = AgentTraffic { seed, hours: 2.0, ..AgentTraffic::default() }.requests();
        for capacity_tokens in [400_000, 600_000] {
            lru += replay(&requests, capacity_tokens, Box::new(Lru)).rate();
            cost_aware += replay(&requests, capacity_tokens, Box::new(in_blocks)).rate();
        }
    }
    assert!(cost_aware > lru, "cost-aware {:.4}, LRU {:.4} on average", cost_aware / 4.0, lru / 4.0);
}
