//! What a long prompt costs that is known already, on the embedded model, by its length: its text, and the time to the first
//! token after a prefix in RAM.
//!
//! `cargo bench --bench warm`. Lengths take turns, so that whatever else the machine does meets all of them. The times of the
//! text are those of rendering a conversation, of encoding it whole, and of encoding it when the turn before is in the token
//! index. The others are those of the scheduler, from the request to its first token, and of its parts. HTTP is in none.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd::prompt::{Conversation, Message, ModelText, Role, TokenIndex};
use prefixd::scheduler::{
    Event, Handle, Hold, PromptUsage, Request, SchedulerOptions, SchedulerThread, StartError,
};
use prefixd_cache::{CacheOptions, Tenant};
use prefixd_engine::Sampling;

type Failure = Box<dyn std::error::Error>;

const LENGTHS: [usize; 4] = [256, 1024, 4096, 16_384];
const ROUNDS: usize = 41;
/// Tokens of conversations whose text is measured, about.
const TEXTS: [usize; 3] = [1024, 16_384, 65_536];
/// Tokens of one of its messages, about.
const MESSAGE_TOKENS: usize = 256;

fn model() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk")
}

/// A conversation of about so many tokens.
fn conversation(tokens: usize) -> Conversation {
    let said = |at: usize| {
        let words =
            (0..MESSAGE_TOKENS / 16).map(|word| format!("Room {} holds {word} chairs.", at * 31 + word));
        let role = if at.is_multiple_of(2) { Role::User } else { Role::Assistant };
        Message::text(role, words.collect::<Vec<_>>().join(" "))
    };
    let messages = (0..tokens / MESSAGE_TOKENS).chain([0]).map(said).collect();
    Conversation {
        messages,
        tools: Vec::new(),
        variables: serde_json::Map::new(),
        add_generation_prompt: true,
    }
}

/// Milliseconds of `work`.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64() * 1e3)
}

/// What the text of a turn costs that goes on from a known one.
fn texts() -> Result<(), Failure> {
    let text = ModelText::open(&model())?;
    let template = text.template.as_ref().ok_or("a model without a template")?;
    let index = TokenIndex::new(&text.tokenizer, &text.stop_tokens, false);
    println!("tokens | render, ms | encode whole | encode the new turn");
    let mut taken = TEXTS.map(|_| (Vec::new(), Vec::new(), Vec::new(), 0));
    for round in 0..ROUNDS {
        for (tokens, (render, whole, turn, count)) in TEXTS.into_iter().zip(&mut taken) {
            let mut asked = conversation(tokens);
            let before = template.render(&asked)?;
            index.encode(&text.tokenizer, &Tenant::PUBLIC, &before)?;
            let more = [(Role::Assistant, "None."), (Role::User, "And now, once more?")];
            asked.messages.extend(more.map(|(role, said)| Message::text(role, format!("{said} {round}"))));
            let (rendered, ms) = timed(|| template.render(&asked));
            render.push(ms);
            let rendered = rendered?;
            let (expected, ms) = timed(|| text.tokenizer.encode_rendered(&rendered));
            whole.push(ms);
            let (found, ms) = timed(|| index.encode(&text.tokenizer, &Tenant::PUBLIC, &rendered));
            turn.push(ms);
            let found = found?;
            *count = found.len();
            if found != expected? {
                return Err("the index gives other tokens".into());
            }
        }
    }
    for (render, whole, turn, count) in taken {
        let [render, whole, turn] = [render, whole, turn].map(median);
        println!("{count:6} | {render:.2} | {whole:.2} | {turn:.2}");
    }
    Ok(())
}

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens).map(|i| ((i * 7919 + tokens * 104_729 + 13) % 4000) as u32 + 20).collect()
}

/// Milliseconds to the first token, and the scheduler's account.
fn first_token(handle: &Handle, tokens: usize) -> Result<(f64, PromptUsage), Failure> {
    let request = Request {
        prompt: prompt(tokens),
        max_tokens: 1,
        min_tokens: 0,
        stop_tokens: Arc::from([]),
        sampling: Sampling::default(),
        constraint: None,
        top_logprobs: None,
        tenant: Tenant::PUBLIC,
        hold: Hold::default(),
    };
    let begin = Instant::now();
    let (mut stream, mut usage, mut first) = (handle.submit(request)?, None, None);
    loop {
        match stream.blocking_next() {
            Some(Event::Started(started)) => usage = Some(started),
            Some(Event::Token(_)) => first = first.or(Some(begin.elapsed().as_secs_f64() * 1e3)),
            Some(Event::Finished(_)) => break,
            other => return Err(format!("the stream ended early: {other:?}").into()),
        }
    }
    Ok(first.zip(usage).ok_or("a stream without a token")?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Failure> {
    texts()?;
    let load = |mx: &_| {
        let loaded = MlxEngine::load(mx, &model(), LoadOptions::default(), &mut |_| ());
        loaded.map_err(|error| StartError::Engine(error.to_string()))
    };
    let scheduler = SchedulerThread::spawn(SchedulerOptions::default(), load, |info| {
        Some(CacheOptions {
            fingerprint: info.fingerprint,
            block_tokens: 256,
            resident_bytes: 1 << 30,
            disk: None,
        })
    })?;
    let handle = scheduler.handle().clone();
    for tokens in LENGTHS {
        first_token(&handle, tokens)?;
    }
    let mut taken = LENGTHS.map(|_| (Vec::new(), Vec::new(), Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for (tokens, (whole, lookup, import, prefill)) in LENGTHS.into_iter().zip(&mut taken) {
            let (ms, usage) = first_token(&handle, tokens)?;
            whole.push(ms);
            lookup.push(usage.restore_parts.lookup_ms);
            import.push(usage.restore_parts.import_ms);
            prefill.push(usage.prefill_ms);
        }
    }
    println!("tokens | to the first token, ms | times that of {} | lookup | import | prefill", LENGTHS[0]);
    let mut shortest = None;
    for (tokens, (whole, lookup, import, prefill)) in LENGTHS.into_iter().zip(taken) {
        let [whole, lookup, import, prefill] = [whole, lookup, import, prefill].map(median);
        let ratio = whole / *shortest.get_or_insert(whole);
        println!("{tokens:6} | {whole:.2} | {ratio:.2} | {lookup:.2} | {import:.2} | {prefill:.2}");
    }
    handle.drain(Duration::ZERO);
    Ok(scheduler.join()?)
}
