//! What arithmetic of few bits costs in quality on the embedded model: the distance of its predictions from those in single
//! precision throughout, token by token over real conversations. First what products with codes cost by themselves, whose
//! activations are whole numbers of 16 bits on the host; then each KV setting over them.
//!
//! `cargo bench --bench quality`. Per line: the mean and the 99th percentile of the Kullback-Leibler divergence in
//! nats (Kullback and Leibler, "On Information and Sufficiency", 1951), and how often the likeliest token is another one.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use mlx_rs::Dtype;
use prefixd::mlx::{Arithmetic, Kernels, LoadOptions, MlxEngine};
use prefixd::prompt::{Conversation, ModelText};
use prefixd_engine::{Engine, Gate, GateError, Steps};
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

const SETTINGS: [&str; 5] = ["32", "16", "8", "k8v4", "4"];
const CHUNK: usize = 256;
/// One conversation of so many: MLX's products with codes are slow on processors.
const EVERY: usize = 6;

/// The conversations of the small task file, as tokens: prompt, questions and the answers that are right.
fn conversations(dir: &Path) -> Result<Vec<Vec<u32>>, Failure> {
    let text = ModelText::open(dir)?;
    let template = text.template.as_ref().ok_or("the model has no chat template")?;
    let mut all = Vec::new();
    for line in std::fs::read_to_string(dir.join("tasks-small.jsonl"))?.lines() {
        let task: Value = serde_json::from_str(line)?;
        let mut messages = task["messages"].as_array().cloned().unwrap_or_default();
        for turn in task["turns"].as_array().into_iter().flatten() {
            let (Some(user), Some(answer)) = (turn["user"].as_str(), turn["expect"]["text"].as_str()) else {
                continue;
            };
            messages.push(serde_json::json!({"role": "user", "content": user}));
            messages.push(serde_json::json!({"role": "assistant", "content": answer}));
        }
        let messages = serde_json::from_value(messages.into())?;
        let rendered = template.render(&Conversation { messages, ..Conversation::default() })?;
        all.push(text.tokenizer.encode_rendered(&rendered)?);
    }
    Ok(all)
}

/// Logarithms of the probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    logits.iter().map(|logit| f64::from(logit - max) - sum.ln()).collect()
}

fn likeliest(values: &[f32]) -> Option<usize> {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]))
}

fn main() -> Result<(), Failure> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk");
    let conversations: Vec<Vec<u32>> = conversations(&dir)?.into_iter().step_by(EVERY).collect();
    let owner = Gate::new(|_| Err(GateError::Closed)).enter()?;
    let single = Arithmetic { kernels: Kernels::Device, float: Dtype::Float32 };
    let load = |setting: &str, arithmetic| {
        let options = LoadOptions { kv: setting.parse()?, arithmetic, ..LoadOptions::default() };
        Ok::<_, Failure>(MlxEngine::load(owner.thread(), &dir, options, &mut |_| ())?)
    };
    let mut exact = load("32", Some(single))?;
    let mut engines =
        SETTINGS.map(|setting| load(setting, None)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut divergences = vec![Vec::new(); SETTINGS.len()];
    let mut flips = [0_usize; SETTINGS.len()];
    for tokens in &conversations {
        let mut exact_row = exact.start()?;
        let mut rows = engines.iter_mut().map(Engine::start).collect::<Result<Vec<_>, _>>()?;
        for chunk in tokens.chunks(CHUNK) {
            let reference = exact.score(&mut exact_row, chunk)?;
            let expected: Vec<Vec<f64>> = reference.iter().map(|logits| log_softmax(logits)).collect();
            for (i, engine) in engines.iter_mut().enumerate() {
                for ((found, logits), p) in
                    engine.score(&mut rows[i], chunk)?.iter().zip(&reference).zip(&expected)
                {
                    let q = log_softmax(found);
                    divergences[i].push(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
                    flips[i] += usize::from(likeliest(found) != likeliest(logits));
                }
            }
        }
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["KV", "tokens", "mean KL, nats", "p99 KL, nats", "top-1 flips"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (i, setting) in SETTINGS.iter().enumerate() {
        let values = &mut divergences[i];
        values.sort_by(f64::total_cmp);
        let count = values.len();
        table.add_row([
            (*setting).to_owned(),
            count.to_string(),
            format!("{:.2e}", values.iter().sum::<f64>() / count as f64),
            format!("{:.2e}", values[count * 99 / 100]),
            format!("{:.2} %", 100.0 * flips[i] as f64 / count as f64),
        ]);
    }
    println!("Against single precision, over {} conversations\n{table}", conversations.len());
    Ok(())
}
