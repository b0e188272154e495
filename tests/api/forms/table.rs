//! Every form in which models write calls: a template of our own that shows calls in it, and two calls as a model writes them, one of
//! `put` with [`ARGUMENTS`] and one of `now` with none.

/// The arguments, as templates write JSON. `text` would be a number if its schema did not say otherwise.
pub const ARGUMENTS: &str = r#"{"count": 5, "deep": true, "list": [1, "two"], "nested": {"a": {"b": [1.5, false]}, "z": "</x>"}, "note": "a <b> \"c\"\n\\ é", "ratio": 0.5, "text": "42"}"#;

/// One form.
pub struct Form {
    /// As `ToolSyntax::name` has it.
    pub name: &'static str,
    pub template: &'static str,
    /// The token that ends an answer.
    pub stop: &'static str,
    /// Around a thought, up to what follows it.
    pub thought: [&'static str; 2],
    /// Around a text that a call follows, and around one that ends the answer.
    pub lead: [&'static str; 2],
    pub last: [&'static str; 2],
    /// What begins calls, the one of `put`, what stands between two, the one of `now`, and what ends calls. An answer with one call at
    /// most has no second.
    pub call: [String; 5],
    /// Tells calls from text; empty where calls are the whole answer.
    pub mark: &'static str,
}

impl Form {
    /// The first call, or as many as an answer may have.
    pub fn calls(&self, all: bool) -> String {
        let [open, first, between, second, close] = &self.call;
        if all { format!("{open}{first}{between}{second}{close}") } else { format!("{open}{first}{close}") }
    }

    /// Calls that an answer may have.
    pub fn most(&self) -> usize {
        if self.call[3].is_empty() { 1 } else { 2 }
    }
}

const THINK: [&str; 2] = ["<think>\n", "\n</think>\n\n"];
/// How most templates begin messages with a thought.
const THOUGHT: &str =
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}";

/// Text as it is, the rest as JSON.
const TEXT_OR_JSON: &str = "{{ v if v is string else v | tojson }}";

/// A template whose messages stand between `<|start|>` and `<|end|>`. `calls` writes those of the message `m`.
fn template(thought: &str, calls: &str) -> &'static str {
    format!(
        "{{{{ bos_token }}}}{{% if tools %}}Tools: {{{{ tools | tojson }}}}\n{{% endif %}}\
         {{% for m in messages %}}<|start|>{{{{ m.role }}}}\n{thought}{{{{ m.content }}}}\
         {{% if m.tool_calls %}}{calls}{{% endif %}}<|end|>{{% endfor %}}\
         {{% if add_generation_prompt %}}<|start|>assistant\n{{% endif %}}"
    )
    .leak()
}

/// Writes each call, whose function is `f`, with `between` between two.
fn each(between: &str, call: &str) -> String {
    let between = if between.is_empty() {
        String::new()
    } else {
        format!("{{% if not loop.first %}}{{{{ {between:?} }}}}{{% endif %}}")
    };
    format!("{{% for c in m.tool_calls %}}{{% set f = c.function %}}{between}{call}{{% endfor %}}")
}

/// Writes the arguments of `f` one by one.
fn arguments(each: &str) -> String {
    format!("{{% for k, v in f.arguments | items %}}{each}{{% endfor %}}")
}

fn owned(parts: [&str; 5]) -> [String; 5] {
    parts.map(str::to_owned)
}

/// Two calls that are JSON.
fn json(key: &str) -> [String; 2] {
    let call = |name: &str, arguments: &str| format!(r#"{{"name": "{name}", "{key}": {arguments}}}"#);
    [call("put", ARGUMENTS), call("now", "{}")]
}

/// The part of a template that writes such a call.
fn json_template(key: &str) -> String {
    format!(
        "{{{{ '{{' }}}}\"name\": \"{{{{ f.name }}}}\", \"{key}\": {{{{ f.arguments | tojson }}}}{{{{ '}}' }}}}"
    )
}

/// The arguments, each written by `each`.
fn written(each: impl Fn(&str, &str) -> String) -> String {
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(ARGUMENTS).unwrap();
    let texts = [
        ("count", "5"),
        ("deep", "true"),
        ("list", r#"[1, "two"]"#),
        ("nested", r#"{"a": {"b": [1.5, false]}, "z": "</x>"}"#),
        ("note", "a <b> \"c\"\n\\ é"),
        ("ratio", "0.5"),
        ("text", "42"),
    ];
    assert!(value.keys().eq(texts.iter().map(|(key, _)| *key)));
    texts.map(|(key, text)| each(key, text)).concat()
}

fn gemma(name: &'static str, [open, close, quote]: [&'static str; 3], thought: [&'static str; 2]) -> Form {
    let macros = format!(
        "{{%- macro show(v) -%}}{{%- if v is string -%}}{quote}{{{{ v }}}}{quote}{{%- elif v is mapping -%}}\
         {{{{ '{{' }}}}{{%- for k, w in v | dictsort -%}}{{{{ ',' if not loop.first }}}}{{{{ k }}}}:{{{{ show(w) }}}}{{%- endfor -%}}{{{{ '}}' }}}}\
         {{%- elif v is iterable -%}}[{{%- for w in v -%}}{{{{ ',' if not loop.first }}}}{{{{ show(w) }}}}{{%- endfor -%}}]\
         {{%- else -%}}{{{{ v | tojson }}}}{{%- endif -%}}{{%- endmacro -%}}"
    );
    let call = format!("{open}call:{{{{ f.name }}}}{{{{ show(f.arguments) }}}}{close}");
    let shown = format!(
        "{{% if m.reasoning_content %}}{}{{{{ m.reasoning_content }}}}{}{{% endif %}}",
        thought[0], thought[1]
    );
    let q = quote;
    let put = format!(
        "call:put{{count:5,deep:true,list:[1,{q}two{q}],nested:{{a:{{b:[1.5,false]}},z:{q}</x>{q}}},\
         note:{q}a <b> \"c\"\n\\ é{q},ratio:0.5,text:{q}42{q}}}"
    );
    Form {
        name,
        template: format!("{macros}{}", template(&shown, &each("", &call))).leak(),
        thought,
        call: [
            String::new(),
            format!("{open}{put}{close}"),
            String::new(),
            format!("{open}call:now{{}}{close}"),
            String::new(),
        ],
        mark: open,
        ..base()
    }
}

/// What most forms share.
fn base() -> Form {
    Form {
        name: "",
        template: "",
        stop: "<|end|>",
        thought: THINK,
        lead: ["", ""],
        last: ["", ""],
        call: Default::default(),
        mark: "",
    }
}

/// A form between two marks with a call's name and JSON between marks within.
fn named(
    name: &'static str,
    [open, close]: [&'static str; 2],
    call: impl Fn(&str, usize, &str) -> String,
) -> Form {
    let shown = call("{{ f.name }}", 9, "{{ f.arguments | tojson }}");
    // Numbers of calls come from their ids.
    let shown = shown.replace("functions.{{ f.name }}:9", "{{ c.id }}");
    Form {
        name,
        template: template(THOUGHT, &format!("{open}{}{close}", each("", &shown))),
        call: owned([open, &call("put", 0, ARGUMENTS), "", &call("now", 1, "{}"), close]),
        mark: if open.is_empty() { "[TOOL_CALLS]" } else { open },
        ..base()
    }
}

/// Between the two calls stands what `between` says, beside the marks of the form.
fn with_between(mut form: Form, between: &str, calls: &str) -> Form {
    form.template = template(THOUGHT, calls);
    between.clone_into(&mut form.call[2]);
    form
}

fn harmony() -> Form {
    const CALL: &str = "<|channel|>commentary to=functions.";
    let template = "{{ bos_token }}{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}\
        {% for m in messages %}{% if m.role == 'assistant' %}<|start|>assistant\n\
        {% if m.tool_calls and m.content and m.thinking %}{{ raise_exception('one of both') }}{% endif %}\
        {% set thought = m.thinking or (m.content if m.tool_calls) %}\
        {% if thought %}<|channel|>analysis<|message|>{{ thought }}<|end|><|start|>assistant{% endif %}\
        {% if m.tool_calls %}{% set f = m.tool_calls[0].function %}<|channel|>commentary to=functions.{{ f.name }} <|constrain|>json<|message|>{{ f.arguments | tojson }}<|call|>\
        {% else %}<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}\
        {% else %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endif %}{% endfor %}\
        {% if add_generation_prompt %}<|start|>assistant\n{% endif %}";
    Form {
        name: "harmony",
        template,
        stop: "<|return|>",
        thought: ["<|channel|>analysis<|message|>", "<|end|><|start|>assistant"],
        lead: ["<|channel|>commentary<|message|>", "<|end|><|start|>assistant"],
        last: ["<|channel|>final<|message|>", "<|return|>"],
        call: owned(["", &format!("{CALL}put <|constrain|>json<|message|>{ARGUMENTS}<|call|>"), "", "", ""]),
        mark: CALL,
    }
}

fn lfm2() -> Form {
    let macros = "{%- macro show(v) -%}{%- if v is mapping -%}{{ '{' }}{%- for k, w in v | items -%}{{ ', ' if not loop.first }}{{ k | tojson }}: {{ show(w) }}\
        {%- endfor -%}{{ '}' }}{%- elif v is iterable and v is not string -%}[{%- for w in v -%}{{ ', ' if not loop.first }}{{ show(w) }}\
        {%- endfor -%}]{%- elif v is string -%}{{ v | tojson }}{%- else -%}{{ v }}{%- endif -%}{%- endmacro -%}";
    let [open, close] = ["<|tool_call_start|>[", "]<|tool_call_end|>"];
    let one = format!(
        "{{{{ f.name }}}}({})",
        arguments("{% if not loop.first %}{{ \", \" }}{% endif %}{{ k }}={{ show(v) }}")
    );
    let calls = format!("{open}{}{close}", each(", ", &one));
    let put = r#"put(count=5, deep=True, list=[1, "two"], nested={"a": {"b": [1.5, False]}, "z": "</x>"}, note="a <b> \"c\"\n\\ é", ratio=0.5, text="42")"#;
    Form {
        name: "lfm2",
        template: format!("{macros}{}", template(THOUGHT, &calls)).leak(),
        call: owned([open, put, ", ", "now()", close]),
        mark: "<|tool_call_start|>",
        ..base()
    }
}

/// All of them.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn forms() -> Vec<Form> {
    let [put, now] = json("arguments");
    let hermes = |call: &str| format!("<tool_call>\n{call}\n</tool_call>");
    let bare = json_template("arguments");
    let [llama_put, llama_now] = json("parameters");
    let coder = |name: &str, arguments: &str| {
        format!("<tool_call>\n<function={name}>\n{arguments}</function>\n</tool_call>")
    };
    let coder_argument = |key: &str, text: &str| format!("<parameter={key}>\n{text}\n</parameter>\n");
    let glm = |name: &str, arguments: &str| format!("<tool_call>{name}\n{arguments}</tool_call>");
    let glm_argument =
        |key: &str, text: &str| format!("<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value>\n");
    let minimax = |name: &str, arguments: &str| format!("<invoke name=\"{name}\">\n{arguments}</invoke>");
    let minimax_argument = |key: &str, text: &str| format!("<parameter name=\"{key}\">{text}</parameter>\n");
    let [minimax_open, minimax_close] = ["<minimax:tool_call>\n", "\n</minimax:tool_call>"];
    let shown = |argument: String| arguments(&argument);
    let deepseek = ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"];
    let [begin, sep, end] = ["<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"];
    let fenced = |name: &str, _: usize, arguments: &str| {
        format!("{begin}function{sep}{name}\n```json\n{arguments}\n```{end}")
    };
    let fenced_template = fenced("{{ f.name }}", 0, "{{ f.arguments | tojson }}");
    vec![
        Form {
            name: "hermes",
            template: template(THOUGHT, &each("\n", &hermes(&bare))),
            call: owned(["", &hermes(&put), "\n", &hermes(&now), ""]),
            mark: "<tool_call>",
            ..base()
        },
        Form {
            name: "llama 3",
            template: template(
                THOUGHT,
                &format!("{{# ipython #}}{}", each("; ", &json_template("parameters"))),
            ),
            call: owned(["", &llama_put, "; ", &llama_now, ""]),
            ..base()
        },
        Form {
            name: "json",
            template: template(THOUGHT, &each("\n", &bare)),
            call: owned(["", &put, "\n", &now, ""]),
            ..base()
        },
        gemma("functiongemma", ["<start_function_call>", "<end_function_call>", "<escape>"], THINK),
        gemma("gemma 4", ["<|tool_call>", "<tool_call|>", "<|\"|>"], ["<|channel>thought\n", "\n<channel|>"]),
        Form {
            name: "qwen3 coder",
            template: template(
                THOUGHT,
                &each("\n", &coder("{{ f.name }}", &shown(coder_argument("{{ k }}", TEXT_OR_JSON)))),
            ),
            call: owned(["", &coder("put", &written(coder_argument)), "\n", &coder("now", ""), ""]),
            mark: "<tool_call>",
            ..base()
        },
        Form {
            name: "glm",
            template: template(
                THOUGHT,
                &each("\n", &glm("{{ f.name }}", &shown(glm_argument("{{ k }}", TEXT_OR_JSON)))),
            ),
            call: owned(["", &glm("put", &written(glm_argument)), "\n", &glm("now", ""), ""]),
            mark: "<tool_call>",
            ..base()
        },
        Form {
            name: "minimax",
            template: template(
                THOUGHT,
                &format!(
                    "{minimax_open}{}{minimax_close}",
                    each("\n", &minimax("{{ f.name }}", &shown(minimax_argument("{{ k }}", TEXT_OR_JSON))))
                ),
            ),
            call: owned([
                minimax_open,
                &minimax("put", &written(minimax_argument)),
                "\n",
                &minimax("now", ""),
                minimax_close,
            ]),
            mark: "<minimax:tool_call>",
            ..base()
        },
        harmony(),
        Form {
            thought: ["[THINK]", "[/THINK]"],
            template: template(
                "{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}",
                &each("", "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}"),
            ),
            ..named("mistral", ["", ""], |name, _, arguments| format!("[TOOL_CALLS]{name}[ARGS]{arguments}"))
        },
        Form {
            name: "mistral list",
            template: template(THOUGHT, &format!("[TOOL_CALLS][{}]", each(", ", &bare))),
            call: owned(["[TOOL_CALLS][", &put, ", ", &now, "]"]),
            mark: "[TOOL_CALLS]",
            ..base()
        },
        Form {
            name: "nemotron",
            template: template(THOUGHT, &format!("<TOOLCALL>[{}]</TOOLCALL>", each(", ", &bare))),
            call: owned(["<TOOLCALL>[", &put, ", ", &now, "]</TOOLCALL>"]),
            mark: "<TOOLCALL>",
            ..base()
        },
        named("deepseek v3.1", deepseek, |name, _, arguments| format!("{begin}{name}{sep}{arguments}{end}")),
        with_between(
            named("deepseek v3", deepseek, fenced),
            "\n",
            &format!("{}{}{}", deepseek[0], each("\n", &fenced_template), deepseek[1]),
        ),
        named(
            "kimi k2",
            ["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
            |name, number, arguments| {
                format!(
                    "<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
                )
            },
        ),
        lfm2(),
    ]
}
