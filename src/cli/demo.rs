//! `prefixd demo`: one long prompt cold, warm, and after a restart of the process, side by side.

use anyhow::Context;
use serde_json::json;

use super::child::{Server, ServerCommand};
use super::client::Answer;
use super::conversation::Conversation;
use super::progress::Progress;
use super::table::Table;

/// A handbook of about 4,000 tokens and a question about it, made by the embedded model's task generator.
const CONVERSATION: &str = include_str!("../../models/clerk/demo.json");

/// What `demo` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the demo. False when the three answers differ or a warm row reused nothing.
pub fn run(args: &DemoArgs) -> anyhow::Result<bool> {
    let conversation =
        Conversation::read_all(CONVERSATION)?.into_iter().next().context("the demo's prompt is missing")?;
    let turn = conversation.turns.first().context("the demo's question is missing")?;
    let question = turn.user.clone().unwrap_or_default();
    let mut messages = conversation.messages.clone();
    messages.push(json!({"role": "user", "content": question}));
    let body = json!({"messages": messages, "temperature": 0, "max_tokens": 64});

    let dir = tempfile::tempdir().context("no directory for the demo's cache")?;
    let command = ServerCommand { model: None, cache_dir: dir.path().into(), kv_bits: None, max_batch: None };
    let progress = Progress::of_steps();
    let say = |text: &'static str| progress.say(text);

    say("starting the server");
    let server = Server::start(&command)?;
    say("sending the prompt for the first time");
    let cold = server.client().chat(body.clone())?;
    say("sending it again");
    let warm = server.client().chat(body.clone())?;
    say("stopping the server: its blocks go to disk");
    server.stop()?;
    say("starting a new process over the same blocks");
    let server = Server::start(&command)?;
    say("sending the prompt once more");
    let restored = server.client().chat(body)?;
    server.stop()?;
    progress.end();

    let rows = [("cold", &cold), ("warm", &warm), ("after restart", &restored)];
    if args.json {
        print_json(&question, &rows);
    } else {
        print_table(&question, &rows);
    }
    let same = cold.text == warm.text && cold.text == restored.text;
    Ok(same && warm.usage.cached_tokens > Some(0) && restored.usage.cached_tokens > Some(0))
}

fn print_json(question: &str, rows: &[(&str, &Answer)]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, answer)| {
            json!({
                "run": name,
                "ttft_ms": answer.ttft.as_secs_f64() * 1e3,
                "prompt_tokens": answer.usage.prompt_tokens,
                "cached_tokens": answer.usage.cached_tokens,
                "answer": answer.text,
            })
        })
        .collect();
    println!("{}", json!({"question": question, "runs": rows}));
}

fn print_table(question: &str, rows: &[(&str, &Answer)]) {
    let cold = rows.first().map_or(0.0, |(_, answer)| answer.ttft.as_secs_f64());
    let heads = ["run", "prompt tokens", "cached tokens", "TTFT", "against cold", "answer"];
    let mut table = Table::new(&heads, &[1, 2, 3, 4]);
    for (name, answer) in rows {
        let ttft = answer.ttft.as_secs_f64();
        table.add([
            (*name).to_owned(),
            answer.usage.prompt_tokens.unwrap_or(0).to_string(),
            answer.usage.cached_tokens.unwrap_or(0).to_string(),
            format!("{:.0} ms", ttft * 1e3),
            format!("{:.1}x", cold / ttft),
            answer.text.trim().to_owned(),
        ]);
    }
    println!("{question}\n{table}");
}
