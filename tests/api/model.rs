//! A byte-level tokenizer and a chat template of our own.

use prefixd::prompt::{ModelText, TokenizerConfig};
use serde_json::{Value, json};

pub const END: u32 = 257;
pub const START: u32 = 258;
pub const SCRIPT: u32 = 261;
pub const GO: u32 = 262;
/// Two letters that are a token of their own.
const PAIR: u32 = 263;
/// Tokens that calls and thoughts are written with, special in their families' tokenizers.
const MARKS: [&str; 37] = [
    "<start_function_call>",
    "<end_function_call>",
    "<escape>",
    "<start_function_response>",
    "<|tool_call>",
    "<tool_call|>",
    "<|\"|>",
    "<|tool_response>",
    "<|channel>",
    "<channel|>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|observation|>",
    "<minimax:tool_call>",
    "</minimax:tool_call>",
    "<|channel|>",
    "<|constrain|>",
    "<|message|>",
    "<|call|>",
    "<|return|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[THINK]",
    "[/THINK]",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|tool_call_start|>",
];
pub const VOCAB: usize = 264 + MARKS.len();

pub const TEMPLATE: &str = "\
{{ bos_token }}{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}
{%- for m in messages %}
{%- if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}{% endif %}
{%- if m.content == 'unsayable' %}{{ raise_exception('not this') }}{% endif %}
<|start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|end|>
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}";

/// The template of a model that thinks first, unless it is told not to.
pub const THINKING: &str = "\
{{ bos_token }}{% if tools %}Tools: {{ tools | tojson }}<tool_call>\n{% endif %}
{%- for m in messages %}
<|start|>{{ m.role }}\n{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|end|>
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant\n{% if enable_thinking is false %}<think></think>{% endif %}{% if open %}<think>{% endif %}{% endif %}";

/// The template of a model that calls without marks.
pub const LLAMA: &str = "\
{{ bos_token }}{% if tools %}Environment: ipython\n{{ tools | tojson }}{% endif %}
{%- for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}";

/// The template of a model that calls as FunctionGemma does, with flat arguments.
pub const GEMMA: &str = "\
{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}
{%- for c in m.tool_calls %}<start_function_call>call:{{ c.function.name }}{
{%- for key, value in c.function.arguments | dictsort %}{{ ',' if not loop.first }}{{ key }}:{% if value is string %}<escape>{{ value }}<escape>{% else %}{{ value }}{% endif %}{% endfor %}
{{- '}' }}<end_function_call>{% endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|start|>assistant\n{% endif %}";

/// Every byte is a token (id = byte), then special tokens, with `qq` among them; bos goes before plain texts.
fn tokenizer() -> Vec<u8> {
    let plain = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100;
    let mut spelled = |byte| {
        if plain(byte) {
            return byte;
        }
        next += 1;
        next - 1
    };
    let mut vocab: serde_json::Map<String, Value> =
        (0..256).map(|byte| (char::from_u32(spelled(byte)).unwrap().to_string(), byte.into())).collect();
    let special = ["<s>", "<|end|>", "<|start|>", "<tool_call>", "</tool_call>", "<script>", "<go>"];
    let special: Vec<(u32, &str)> = (256..).zip(special).chain((PAIR + 1..).zip(MARKS)).collect();
    // Added tokens that are not in the vocabulary would be numbered anew.
    vocab.extend(special.iter().map(|(id, content)| ((*content).into(), (*id).into())));
    vocab.insert("qq".into(), PAIR.into());
    let added: Vec<Value> = special
        .into_iter()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": [["q", "q"]]}})
    .to_string()
    .into_bytes()
}

/// `stop` is the one token that ends an answer.
pub fn text(template: Option<&str>, stop: &str) -> ModelText {
    let mut config = json!({"bos_token": "<s>", "eos_token": stop});
    if let Some(template) = template {
        config["chat_template"] = template.into();
    }
    let config: TokenizerConfig = serde_json::from_value(config).unwrap();
    let text = ModelText::new(&tokenizer(), &config, &Value::Null, &Value::Null).unwrap();
    text.tokenizer.check().unwrap();
    text
}
