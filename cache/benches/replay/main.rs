//! Hit rate by tokens against capacity, for every eviction policy, on request traces.
//!
//! `cargo bench -p prefixd-cache --bench replay -- [TRACE.jsonl ...]`: traces in Mooncake's published format; without
//! one, generated agent traffic alone. The table says what each policy found of all tokens asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]

mod agents;
mod mooncake;
mod replay;

use agents::AgentTraffic;
use prefixd_cache::{CostAware, EvictionPolicy, Lru};
use replay::{BLOCK_TOKENS, Request, ideal, replay};

/// Makes a policy.
type Make = fn() -> Box<dyn EvictionPolicy>;

/// Policies by name. Positions in a replay count blocks, so that lengths in tokens are given in blocks as well.
fn policies() -> Vec<(&'static str, Make)> {
    fn cost_aware(change: fn(CostAware) -> CostAware) -> Box<dyn EvictionPolicy> {
        let policy = change(CostAware::default());
        let attention_tokens = policy.attention_tokens / BLOCK_TOKENS as f64;
        Box::new(CostAware { attention_tokens, ..policy })
    }
    vec![
        ("LRU", || Box::new(Lru)),
        ("cost-aware (default)", || cost_aware(|policy| policy)),
        ("  half-life 5 min", || cost_aware(|policy| CostAware { half_life_us: 300e6, ..policy })),
        ("  all uses count", || cost_aware(|policy| CostAware { most_reuse: f64::MAX, ..policy })),
        ("  depth 16k tokens", || cost_aware(|policy| CostAware { attention_tokens: 16_384.0, ..policy })),
    ]
}

fn table(name: &str, requests: &[Request], capacities: &[usize]) {
    let best = ideal(requests);
    println!("\n{name}: {:.1} % with room for everything", 100.0 * best.rate());
    print!("{:<22}", "capacity, M tokens");
    for capacity in capacities {
        print!("{:>9.1}", *capacity as f64 / 1e6);
    }
    println!();
    for (policy, make) in policies() {
        print!("{policy:<22}");
        for capacity in capacities {
            print!("{:>8.2}%", 100.0 * replay(requests, *capacity, make()).rate());
        }
        println!();
    }
}

fn main() {
    for seed in 1..=3 {
        let requests = AgentTraffic { seed, ..AgentTraffic::default() }.requests();
        let name = format!("agent traffic, seed {seed}, {}", agents::shape(&requests));
        table(&name, &requests, &[300_000, 500_000, 700_000, 1_000_000, 2_000_000]);
    }
    for path in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let text = std::fs::read_to_string(&path).expect("a trace that can be read");
        let requests = mooncake::parse(&text).expect("a trace in Mooncake's format");
        let name = format!("{path}, {}", agents::shape(&requests));
        table(&name, &requests, &[2_000_000, 5_100_000, 10_000_000, 15_000_000, 26_000_000]);
    }
}
