use std::collections::HashMap;

use clap::Parser;
use proptest::prelude::*;

use super::*;

/// Settings as a user writes them.
pub fn workload(flags: &str) -> Workload {
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        workload: Workload,
    }
    Flags::try_parse_from(std::iter::once("bench").chain(flags.split_whitespace())).unwrap().workload
}

fn plan(workload: &Workload, salt: &str, scenario: Scenario) -> Plan {
    Planner { workload, salt, tokens_per_word: 1.3, can_restart: true, trace: None }.plan(scenario)
}

/// What each request of a plan sends when answers are `answer`.
fn prompts(plan: &Plan, answer: &str) -> Vec<(Option<usize>, Vec<Value>)> {
    let mut histories = HashMap::<usize, Vec<Value>>::new();
    let mut sent = Vec::new();
    for ask in plan.rounds.iter().flat_map(|round| &round.asks) {
        let mut messages = ask.conversation.and_then(|number| histories.remove(&number)).unwrap_or_default();
        messages.extend_from_slice(&ask.messages);
        sent.push((ask.conversation, messages.clone()));
        if let Some(number) = ask.conversation {
            messages.push(json!({"role": "assistant", "content": answer}));
            histories.insert(number, messages);
        }
    }
    sent
}

fn any() -> impl Strategy<Value = Scenario> {
    proptest::sample::select(Scenario::DEFAULT.to_vec())
}

proptest! {
    #[test]
    fn the_same_seed_and_salt_make_the_same_workload_and_others_do_not(scenario in any(), seed in 0u64..9) {
        let of = |seed, salt| plan(&workload(&format!("--seed {seed} --contexts 64 --context 64")), salt, scenario);
        prop_assert_eq!(of(seed, "a"), of(seed, "a"));
        prop_assert_ne!(of(seed, "a"), of(seed, "b"));
        prop_assert_ne!(of(seed, "a"), of(seed + 1, "a"));
    }

    #[test]
    fn a_later_turn_starts_with_the_whole_earlier_one(
        scenario in proptest::sample::select(vec![Scenario::Agents, Scenario::Chat, Scenario::Phases, Scenario::Mixed]),
        agents in 2u16..6, turns in 2u16..5, repeats in 1u32..3,
    ) {
        let workload = workload(&format!("--agents {agents} --turns {turns} --repeats {repeats} --context 64"));
        let mut before = HashMap::<usize, Vec<Value>>::new();
        let mut later = 0;
        for (conversation, messages) in prompts(&plan(&workload, "a", scenario), "yes") {
            let Some(number) = conversation else { continue };
            if let Some(before) = before.insert(number, messages.clone()) {
                later += 1;
                prop_assert_eq!(&messages[..before.len()], &before[..]);
                prop_assert_eq!(messages.len(), before.len() + 2);
            }
        }
        prop_assert!(later > 0);
    }

    #[test]
    fn a_conversation_asks_at_most_once_in_a_round(scenario in any(), agents in 2u16..6, requests in 3u16..9) {
        let workload = workload(&format!("--agents {agents} --requests {requests} --context 64 --contexts 64"));
        for round in plan(&workload, "a", scenario).rounds {
            let mut numbers: Vec<_> = round.asks.iter().filter_map(|ask| ask.conversation).collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), count);
            prop_assert!(!round.asks.is_empty());
            prop_assert!(round.asks.is_sorted_by_key(|ask| ask.due));
        }
    }

    #[test]
    fn opening_lengths_are_as_asked(tokens in 32u32..4000, rate in 0.5f64..4.0) {
        let workload = workload("");
        let planner =
            Planner { workload: &workload, salt: "", tokens_per_word: rate, can_restart: false, trace: None };
        let words: usize = planner
            .opening("x", tokens)
            .iter()
            .map(|message| message["content"].as_str().unwrap().split_whitespace().count())
            .sum();
        // Each of the two parts is rounded and has one word at least.
        prop_assert!((words as f64 * rate - f64::from(tokens)).abs() <= 2.0 * rate, "{words}");
    }
}

#[test]
fn a_sweep_asks_the_same_cold_warm_and_restored_and_each_length_anew() {
    let workload = workload("--contexts 64,128 --repeats 2");
    let plan = plan(&workload, "a", Scenario::Sweep);
    let of = |phase: &str| -> Vec<Vec<Value>> {
        let asks = plan.rounds.iter().flat_map(|round| &round.asks);
        asks.filter(|ask| ask.series == phase).map(|ask| ask.messages.clone()).collect()
    };
    let mut cold = of("cold");
    assert_eq!((cold.len(), &of("warm"), &of("restored")), (4, &cold, &cold));
    cold.dedup();
    assert_eq!(cold.len(), 4);
    assert_eq!(plan.rounds.iter().filter(|round| round.restart).count(), 1);
}

#[test]
fn nothing_is_restored_by_a_server_that_is_not_ours() {
    let workload = workload("");
    let planner =
        Planner { workload: &workload, salt: "a", tokens_per_word: 1.0, can_restart: false, trace: None };
    let rounds = planner.plan(Scenario::Sweep).rounds;
    assert!(
        rounds.iter().all(|round| !round.restart && round.asks.iter().all(|ask| ask.series != "restored"))
    );
}

#[test]
fn arrivals_are_staggered_by_the_gap_on_average() {
    let workload = workload("--requests 2000 --repeats 1 --gap-ms 100 --context 32");
    let plan = plan(&workload, "a", Scenario::Staggered);
    let asks = &plan.rounds[0].asks;
    let mean_ms = asks[1999].due.as_secs_f64() * 1e3 / 1999.0;
    assert!((90.0..110.0).contains(&mean_ms), "{mean_ms}");
    assert_eq!(asks[0].due, Duration::ZERO);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    #[derive(Parser, Debug)]
    struct Flags {
        #[command(flatten)]
        _workload: Workload,
    }
    for flags in
        ["--clients 0", "--repeats 0", "--agents 1", "--contexts 8", "--trace-speed 0", "--trace-lengths nan"]
    {
        let flags = std::iter::once("bench").chain(flags.split(' '));
        assert!(Flags::try_parse_from(flags.clone()).is_err(), "{:?}", flags.collect::<Vec<_>>());
    }
}
