//! The embedded model on a scheduler of its own, documents to ask about, and what sequences answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd::prompt::ModelText;
use prefixd::scheduler::{
    Event, FinishReason, Hold, Request, SchedulerOptions, SchedulerThread, StartError, Stream,
};
use prefixd_cache::{CacheOptions, Tenant};
use prefixd_engine::Sampling;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The embedded model: window and full layers, six query heads over two key heads.
pub fn clerk() -> PathBuf {
    root().join("models/clerk")
}

/// A scheduler over a model, with the cache that `cache` makes of the model's fingerprint.
pub fn start(
    dir: &Path,
    load: LoadOptions,
    options: SchedulerOptions,
    cache: impl FnOnce(prefixd_cache::Fingerprint) -> Option<CacheOptions> + Send + 'static,
) -> SchedulerThread {
    let dir = dir.to_owned();
    SchedulerThread::spawn(
        options,
        move |mx| {
            MlxEngine::load(mx, &dir, load, &mut |_| ())
                .map_err(|error| StartError::Engine(error.to_string()))
        },
        move |info| cache(info.fingerprint),
    )
    .unwrap()
}

/// A scheduler over the embedded model that reuses nothing and computes one sequence at a time: the reference.
pub fn alone() -> SchedulerThread {
    let options = SchedulerOptions { max_batch: 1, ..SchedulerOptions::default() };
    start(&clerk(), LoadOptions::default(), options, |_| None)
}

pub fn stop(scheduler: SchedulerThread) {
    scheduler.handle().drain(std::time::Duration::from_secs(30));
    scheduler.join().unwrap();
}

/// A handbook of at least `words` words that no other seed has.
pub fn handbook(seed: usize, words: usize) -> String {
    let people = ["Ada Larsen", "Bruno Keller", "Clara Novak", "Dmitri Stone", "Elena Marsh", "Farid Weber"];
    let facts = ["door code", "phone extension", "locker number", "parking bay", "badge number"];
    let mut text = format!("Handbook, edition {seed}.\n");
    let mut count = 0;
    for line in 0.. {
        let value = (line * 7919 + seed * 104_729) % 90_000 + 10_000;
        let sentence = format!(
            "The {} of {} in room {} is {value}.\n",
            facts[line % facts.len()],
            people[line / facts.len() % people.len()],
            line / 30
        );
        count += sentence.split_whitespace().count();
        text.push_str(&sentence);
        if count >= words {
            return text;
        }
    }
    text
}

/// Tokens of a chat about `handbook`.
pub fn chat(text: &ModelText, handbook: &str, question: &str) -> Vec<u32> {
    let conversation: serde_json::Value =
        serde_json::json!([{"role": "system", "content": handbook}, {"role": "user", "content": question}]);
    let conversation = prefixd::prompt::Conversation {
        messages: serde_json::from_value(conversation).unwrap(),
        add_generation_prompt: true,
        ..prefixd::prompt::Conversation::default()
    };
    let rendered = text.template.as_ref().unwrap().render(&conversation).unwrap();
    text.tokenizer.encode_rendered(&rendered).unwrap()
}

/// A greedy request that ends at one of `stop_tokens`.
pub fn request(prompt: Vec<u32>, max_tokens: usize, stop_tokens: &Arc<[u32]>) -> Request {
    Request {
        prompt,
        max_tokens,
        min_tokens: 0,
        stop_tokens: stop_tokens.clone(),
        sampling: Sampling::default(),
        constraint: None,
        top_logprobs: None,
        tenant: Tenant::PUBLIC,
        hold: Hold::default(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub reason: FinishReason,
}

/// Reads a stream to its end.
pub fn collect(mut stream: Stream) -> Answer {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next() {
            Some(Event::Started(_)) => {}
            Some(Event::Token(token)) => tokens.push(token.id),
            Some(Event::Finished(finish)) => {
                assert_eq!(stream.blocking_next(), None, "nothing follows the end");
                return Answer { tokens, reason: finish.reason };
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
