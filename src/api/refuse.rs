//! Fields that would change the answer and that an endpoint does not act on: refused unless they ask for nothing.
//!
//! Clients write what other servers take. A field that is dropped in silence is found by its user weeks later, so each that is
//! known somewhere is refused by name, with the name that it has here where there is one.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Says whether a field's value asks for nothing.
pub type Neutral = fn(&Value) -> bool;

/// Refuses the first field of `table` that is there and asks for something.
pub fn refuse(object: &Map<String, Value>, table: &[(&'static str, Neutral)]) -> Result<(), ApiError> {
    table.iter().try_for_each(|(param, neutral)| refuse_one(object, param, *neutral, ""))
}

/// Refuses what no endpoint acts on.
pub fn refuse_foreign(object: &Map<String, Value>) -> Result<(), ApiError> {
    FOREIGN.iter().try_for_each(|(param, neutral, instead)| refuse_one(object, param, *neutral, instead))
}

/// Refuses what has another name here, each with that name.
pub fn refuse_misnamed(
    object: &Map<String, Value>,
    names: &[(&'static str, &'static str)],
) -> Result<(), ApiError> {
    names.iter().try_for_each(|(param, instead)| refuse_one(object, param, empty, instead))
}

/// Refuses a number outside the range that the endpoint's dialect has for it.
pub fn within(object: &Map<String, Value>, param: &'static str, low: f64, high: f64) -> Result<(), ApiError> {
    match object.get(param).and_then(Value::as_f64).filter(|value| !(low..=high).contains(value)) {
        Some(value) => Err(ApiError::field(param, format!("{param} is {value}; expected {low} to {high}"))),
        None => Ok(()),
    }
}

fn refuse_one(
    object: &Map<String, Value>,
    param: &'static str,
    neutral: Neutral,
    instead: &str,
) -> Result<(), ApiError> {
    let Some(value) = object.get(param).filter(|value| !value.is_null() && !neutral(value)) else {
        return Ok(());
    };
    let shown: String = value.to_string().chars().take(60).collect();
    let instead = if instead.is_empty() { String::new() } else { format!(" (here: {instead})") };
    Err(ApiError::Unsupported { param, what: format!("{param} = {shown}{instead}") })
}

/// `false`.
pub fn off(value: &Value) -> bool {
    *value == false
}

/// `true`.
fn on(value: &Value) -> bool {
    *value == true
}

/// 0, whole or not.
fn zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

/// 1, whole or not.
fn one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

/// A number below 0: no limit, or not at all.
fn negative(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number < 0.0)
}

/// `[]`, `{}` or `""`.
pub fn empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(Map::is_empty)
        || *value == ""
}

/// Nothing but null.
pub fn never(_: &Value) -> bool {
    false
}

const SCHEMA: &str = "response_format with type json_schema";
const LENGTH: &str = "max_tokens";

/// What other servers take and no endpoint of this one acts on: the value that asks for nothing, and the name here.
const FOREIGN: &[(&str, Neutral, &str)] = &[
    // Samplers.
    ("repeat_penalty", one, "repetition_penalty"),
    ("repeat_last_n", zero, ""),
    ("mirostat", zero, ""),
    ("mirostat_mode", zero, ""),
    ("typical_p", one, ""),
    ("tfs", one, ""),
    ("tfs_z", one, ""),
    ("top_a", zero, ""),
    ("top_n_sigma", negative, ""),
    ("dynatemp_range", zero, ""),
    ("dynamic_temperature", off, ""),
    ("smoothing_factor", zero, ""),
    ("dry_multiplier", zero, ""),
    ("xtc_probability", zero, ""),
    ("eta_cutoff", zero, ""),
    ("epsilon_cutoff", zero, ""),
    ("penalty_alpha", zero, ""),
    ("guidance_scale", one, ""),
    ("negative_prompt", empty, ""),
    ("samplers", empty, ""),
    ("logits_processors", empty, ""),
    ("custom_logit_processor", empty, ""),
    ("watermark", off, ""),
    ("do_sample", on, "temperature 0"),
    ("length_penalty", one, ""),
    ("early_stopping", off, ""),
    ("use_beam_search", off, ""),
    ("num_beams", one, ""),
    ("best_of", one, "n"),
    ("bad_words", empty, "logit_bias"),
    ("custom_token_bans", empty, "logit_bias"),
    ("allowed_token_ids", empty, "logit_bias"),
    ("sampling_params", empty, "each of its fields by itself"),
    ("parameters", empty, "each of its fields by itself"),
    ("options", empty, "each of its fields by itself"),
    // Lengths and ends.
    ("n_predict", negative, LENGTH),
    ("num_predict", negative, LENGTH),
    ("max_new_tokens", never, LENGTH),
    ("max_length", never, LENGTH),
    ("max_tokens_to_sample", never, LENGTH),
    ("min_new_tokens", zero, "min_tokens"),
    ("min_length", zero, "min_tokens"),
    ("t_max_predict_ms", zero, ""),
    ("thinking_token_budget", never, ""),
    ("reasoning_budget", negative, ""),
    ("include_stop_str_in_output", off, ""),
    ("no_stop_trim", off, ""),
    ("stop_regex", empty, "stop"),
    ("stopping_strings", empty, "stop"),
    ("custom_stopping_strings", empty, "stop"),
    ("ban_eos_token", off, "ignore_eos"),
    // What is read and what is shown.
    ("truncate", never, ""),
    ("truncate_prompt_tokens", never, ""),
    ("num_ctx", never, ""),
    ("n_keep", zero, ""),
    ("skip_special_tokens", on, ""),
    ("spaces_between_special_tokens", on, ""),
    ("return_token_ids", off, ""),
    ("return_tokens", off, ""),
    ("return_tokens_as_token_ids", off, ""),
    ("return_full_text", off, ""),
    ("n_probs", zero, "logprobs"),
    ("prompt_logprobs", |value| zero(value) || off(value), ""),
    ("post_sampling_probs", off, ""),
    ("echo", off, ""),
    ("suffix", empty, ""),
    ("raw", off, "/v1/completions"),
    ("chat_template", empty, "chat_template_kwargs, for the variables of the model's own"),
    ("template", empty, "chat_template_kwargs, for the variables of the model's own"),
    ("instruction_template", empty, "chat_template_kwargs, for the variables of the model's own"),
    ("continue_final_message", off, ""),
    ("response_prefix", empty, ""),
    ("documents", empty, ""),
    ("mm_processor_kwargs", empty, ""),
    ("image_data", empty, ""),
    ("images", empty, ""),
    ("audio", empty, ""),
    ("modalities", |value| value.as_array().is_some_and(|list| list.iter().all(|kind| *kind == "text")), ""),
    ("transforms", empty, ""),
    ("plugins", empty, ""),
    ("web_search_options", never, ""),
    ("lora", empty, ""),
    ("lora_path", empty, ""),
    ("adapter_id", empty, ""),
    // Forms of the answer.
    ("format", empty, SCHEMA),
    ("json_schema", empty, SCHEMA),
    ("guided_json", never, SCHEMA),
    ("guided_regex", never, ""),
    ("guided_choice", never, ""),
    ("guided_grammar", never, ""),
    ("structured_outputs", empty, SCHEMA),
    ("grammar", empty, ""),
    ("regex", empty, ""),
    ("ebnf", empty, ""),
    ("functions", empty, "tools"),
    ("function_call", |value| *value == "none" || *value == "auto", "tool_choice"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_foreign_field_is_refused_by_name_unless_it_asks_for_nothing() {
        for (param, neutral, instead) in FOREIGN {
            let asked = json!({*param: {"x": 0.37}});
            let error = refuse_foreign(asked.as_object().unwrap()).unwrap_err().to_string();
            assert!(error.contains(param) && error.contains(instead), "{error}");
            let values =
                [json!(0), json!(0.0), json!(1), json!(-1), json!(true), json!(false), json!(""), json!([])];
            for value in values.iter().filter(|value| neutral(value)) {
                let asked = json!({*param: value});
                assert!(refuse_foreign(asked.as_object().unwrap()).is_ok(), "{asked}");
            }
        }
    }

    #[test]
    fn ranges_are_inclusive_and_other_types_are_left_to_their_reader() {
        let check = |value: Value| within(json!({"t": value}).as_object().unwrap(), "t", 0.0, 2.0);
        for fine in [json!(0), json!(2), json!(2.0), json!(null), json!("x")] {
            assert!(check(fine).is_ok());
        }
        for wrong in [json!(-0.1), json!(2.01), json!(100)] {
            let error = check(wrong).unwrap_err().to_string();
            assert!(error.contains("expected 0 to 2"), "{error}");
        }
    }
}
