//! `prefixd models`: what can be served.

use comfy_table::{Table, presets};

use crate::mlx::{FAMILIES, WEIGHT_FORMATS};
use crate::prompt::{ThoughtMarks, ToolSyntax};

/// Prints families, what their layers keep, weight formats, and how calls and thoughts are written.
pub fn run() {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["model_type", "layers keep"]);
    for family in FAMILIES {
        let states: Vec<_> = family.states.iter().map(|state| state.name()).collect();
        table.add_row([family.model_types.join(", "), states.join(", ")]);
    }
    println!("{table}\n");
    println!(
        "full: keys and values of every token; window: of the last tokens only, as the model sees no others; recurrent: a \
         state of fixed size after all tokens.\n"
    );
    println!("weights: {}\n", WEIGHT_FORMATS.join("; "));
    println!("tool calls, as the model's template shows them:");
    for syntax in ToolSyntax::ALL {
        println!("  {:<14} {}", syntax.name(), syntax.example());
    }
    let marks = ThoughtMarks::ALL.map(|marks| format!("{}...{}", marks.open(), marks.close()));
    println!("\nthoughts: {}; harmony: the channel analysis", marks.join("; "));
}
