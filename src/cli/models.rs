//! `prefixd models`: what can be served.

use comfy_table::{Table, presets};

use crate::mlx::{FAMILIES, WEIGHT_FORMATS};
use crate::prompt::{ThoughtMarks, ToolSyntax};

/// Prints families, what their layers keep, weight formats, and how calls and thoughts are written.
pub fn run() {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["model_type", "layers keep", "calls", "thoughts"]);
    for family in FAMILIES {
        let states: Vec<_> = family.states.iter().map(|state| state.name()).collect();
        let (calls, thoughts) = usual(family.model_types);
        let calls: Vec<_> = calls.iter().map(|syntax| syntax.name()).collect();
        let kinds = [family.model_types.join(", "), states.join(", "), calls.join(", "), thoughts.to_owned()];
        table.add_row(kinds);
    }
    println!("{table}\n");
    println!(
        "full: keys and values of every token; window: of the last tokens only, as the model sees no others; latent: one short \
         vector of every token, of which keys and values are made; recurrent: a state of fixed size after all tokens.\n"
    );
    println!("weights: {}\n", WEIGHT_FORMATS.join("; "));
    println!(
        "calls and thoughts are those of the makers' templates; what a model's own template shows decides. The syntaxes of calls:"
    );
    for syntax in ToolSyntax::ALL {
        println!("  {:<14} {}", syntax.name(), syntax.example());
    }
    let marks = ThoughtMarks::ALL.map(|marks| format!("{}...{}", marks.open(), marks.close()));
    println!("\nthoughts: {}; harmony: the channel analysis", marks.join("; "));
}

/// How the templates of a family's makers write calls and thoughts.
fn usual(model_types: &[&str]) -> (&'static [ToolSyntax], &'static str) {
    use ToolSyntax as S;
    let think = ThoughtMarks::Think.open();
    match model_types.first().copied().unwrap_or_default() {
        "llama" => (&[S::Llama3], ""),
        "mistral" | "mistral4" => (&[S::Mistral, S::MistralList], ThoughtMarks::Brackets.open()),
        "qwen2" => (&[S::Hermes], ""),
        "qwen3" | "qwen3_moe" | "qwen3_next" => (&[S::Hermes, S::Coder], think),
        "qwen3_5" | "qwen3_5_moe" => (&[S::Coder], think),
        "nemotron_h" => (&[S::Coder, S::Nemotron], think),
        "gemma3_text" => (&[S::FunctionGemma, S::Json], ""),
        "gemma4" => (&[S::Gemma4], ThoughtMarks::Gemma.open()),
        "gpt_oss" => (&[S::Harmony], "channel analysis"),
        "glm4_moe" | "glm4_moe_lite" => (&[S::Glm], think),
        "deepseek_v3" => (&[S::DeepSeek, S::DeepSeekFenced, S::Kimi], think),
        "lfm2" => (&[S::Lfm2], think),
        _ => (&[S::Json], ""),
    }
}
