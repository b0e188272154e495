//! Templates of our own that use what the families' templates use.

use super::super::message::{Message, Role};
use super::*;

fn chat(messages: Json) -> Conversation {
    Conversation {
        messages: serde_json::from_value(messages).unwrap(),
        add_generation_prompt: true,
        ..Conversation::default()
    }
}

fn render(source: &str, conversation: &Conversation) -> Result<String, TemplateError> {
    ChatTemplate::new(&source.into(), "<bos>", "<eos>")?.render(conversation)
}

/// Constructs of Llama 3: slicing, `strftime_now`, a date that may be set, tools in the first user message, JSON with an indent.
const LLAMA_LIKE: &str = "\
{{- bos_token }}
{%- if date_string is not defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now(\"%d %b %Y\") %}
    {%- endif %}
{%- endif %}
{%- if tools is not defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = \"\" %}
{%- endif %}
{{- \"<h>system</h>\\n\" + \"Date: \" + date_string + \"\\n\" + system_message + \"<eot>\" }}
{%- if tools is not none and messages | length != 0 %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- \"\\n\" }}
    {%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception(\"one call at a time\") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '{\"name\": \"' + call.name + '\", \"parameters\": ' }}
        {{- call.arguments | tojson }}
        {{- \"}<eot>\" }}
    {%- elif message.role == \"tool\" or message.role == \"ipython\" %}
        {{- \"<h>ipython</h>\" }}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- \"<eot>\" }}
    {%- else %}
        {{- '<h>' + message['role'] + '</h>\\n' + message['content'] | trim + '<eot>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<h>assistant</h>\\n' }}
{%- endif %}
";

/// Constructs of Qwen 3: a namespace, a reversed walk, Python string methods, `loop.first/last`, switches from the client.
const QWEN_LIKE: &str = "\
{%- if tools %}
    {{- '<|s|>system\\n' }}
    {%- for tool in tools %}
        {{- \"\\n\" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- \"<|e|>\\n\" }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == \"user\" and message.content is string and not(message.content.startswith('<r>') and message.content.endswith('</r>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == \"assistant\" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}
            {{- '<|s|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|s|>assistant\\n' + content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}
                {{- '\\n' }}
            {%- endif %}
            {%- if tool_call.function %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '<tool_call>\\n{\"name\": \"' ~ tool_call.name ~ '\", \"arguments\": ' }}
            {%- if tool_call.arguments is string %}
                {{- tool_call.arguments }}
            {%- else %}
                {{- tool_call.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|e|>\\n' }}
    {%- elif message.role == \"tool\" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != \"tool\") %}
            {{- '<|s|>user' }}
        {%- endif %}
        {{- '\\n<r>' ~ content ~ '</r>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != \"tool\") %}
            {{- '<|e|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|s|>' + message.role + '\\n' + content + '<|e|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|s|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
";

/// Constructs of Gemma 3: system text moved into the first turn, roles that must alternate, parts or text, inline conditions.
const GEMMA_LIKE: &str = "\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_prefix = \"\" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception(\"roles must alternate\") }}
    {%- endif -%}
    {%- set role = \"model\" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<t>' + role + '\n' + (first_prefix if loop.first else \"\") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '</t>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<t>model\n'}}
{%- endif -%}
";

#[test]
fn a_llama_like_template_renders() {
    let mut conversation = chat(json!([
        {"role": "developer", "content": " Be brief. "},
        {"role": "user", "content": [{"type": "text", "text": "Weather & <wind>?"}]},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "w", "arguments": "{\"z\": \"é\", \"a\": [1, 2]}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "sun"}]));
    conversation.variables.insert("date_string".into(), "26 Jul 2024".into());
    conversation.tools = vec![json!({"type": "function", "function": {"name": "w"}})];
    let expected = "<bos><h>system</h>\nDate: 26 Jul 2024\nBe brief.<eot>{\n    \"type\": \"function\",\n    \"function\": {\n        \"name\": \"w\"\n    }\n}\n\
        <h>user</h>\nWeather & <wind>?<eot>{\"name\": \"w\", \"parameters\": {\"z\": \"é\", \"a\": [1, 2]}}<eot><h>ipython</h>sun<eot><h>assistant</h>\n";
    assert_eq!(render(LLAMA_LIKE, &conversation).unwrap(), expected);
}

#[test]
fn today_comes_from_the_clock_in_the_format_asked_for() {
    let text =
        render("{{ strftime_now('%Y|%d %b') }}", &chat(json!([{"role": "user", "content": "x"}]))).unwrap();
    let (year, day) = text.split_once('|').unwrap();
    assert!(year.parse::<u32>().unwrap() >= 2024 && day.len() == 6, "{text}");
}

#[test]
fn a_qwen_like_template_renders() {
    let mut conversation = chat(json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nhello"},
        {"role": "user", "content": "run it"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "function": {"name": "ls", "arguments": "{\"path\": \"/\"}"}}, {"id": "2", "function": {"name": "pwd", "arguments": ""}}]},
        {"role": "tool", "content": "a b"}, {"role": "tool", "content": "/"}]));
    conversation.variables.insert("enable_thinking".into(), false.into());
    let expected = "<|s|>user\nhi<|e|>\n<|s|>assistant\nhello<|e|>\n<|s|>user\nrun it<|e|>\n\
        <|s|>assistant\n<tool_call>\n{\"name\": \"ls\", \"arguments\": {\"path\": \"/\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"pwd\", \"arguments\": {}}\n</tool_call><|e|>\n\
        <|s|>user\n<r>a b</r>\n<r>/</r><|e|>\n<|s|>assistant\n<think>\n\n</think>\n\n";
    assert_eq!(render(QWEN_LIKE, &conversation).unwrap(), expected);
    conversation.tools = vec![json!({"function": {"parameters": {}, "name": "ls"}})];
    assert!(
        render(QWEN_LIKE, &conversation)
            .unwrap()
            .starts_with("<|s|>system\n\n{\"function\": {\"parameters\": {}, \"name\": \"ls\"}}<|e|>\n")
    );
}

/// Constructs of Mistral's templates: ids of nine characters, texts that alternate as if calls were not there.
const MISTRAL_LIKE: &str = "\
{%- if messages[0].role == 'system' %}
    {%- set system_message = messages[0].content %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if message.role == 'user' or (message.role == 'assistant' and message.tool_calls is not defined) %}
        {%- if (message.role == 'user') != (ns.index % 2 == 0) %}
            {{- raise_exception('roles must alternate user/assistant') }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message.role == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- '[I]' + system_message + '\\n\\n' + message.content + '[/I]' }}
        {%- else %}
            {{- '[I]' + message.content + '[/I]' }}
        {%- endif %}
    {%- elif message.tool_calls is defined %}
        {{- '[C]' }}
        {%- for call in message.tool_calls %}
            {%- if call.id|length != 9 %}
                {{- raise_exception('ids have 9 characters') }}
            {%- endif %}
            {{- call.function.name + call.function.arguments|tojson + call.id }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif message.role == 'assistant' %}
        {{- ' ' + message.content + eos_token }}
    {%- elif message.role == 'tool' %}
        {%- if message.tool_call_id|length != 9 %}
            {{- raise_exception('ids have 9 characters') }}
        {%- endif %}
        {{- '[R]' + message.content + message.tool_call_id + '[/R]' }}
    {%- else %}
        {{- raise_exception('only user, assistant and tool') }}
    {%- endif %}
{%- endfor %}
";

/// Refuses every role but two, which must alternate.
const TWO_ROLES: &str = "\
{%- for message in messages %}
    {%- if message.role not in ['user', 'assistant'] %}
        {{- raise_exception('Only user and assistant roles are supported!') }}
    {%- elif (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {{- '<' + message.role + '>' + message.content + '</>' }}
{%- endfor %}
";

/// Refuses nothing and leaves out what it does not know.
const FORGETFUL: &str = "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}<{{ m.role }}>{{ m.content }}</>{% endif %}{% endfor %}";

/// Wants a word of the user's.
const ASKED: &str = "{% if messages | selectattr('role', 'equalto', 'user') | list | length == 0 %}{{ raise_exception('No user query found') }}{% endif %}\
{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}</>{% endfor %}";

#[test]
fn a_gemma_like_template_renders() {
    let fine = chat(json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": " hi "},
        {"role": "assistant", "content": "yes"}, {"role": "user", "content": "ok"}]));
    let expected = "<bos><t>user\nBe kind.\n\nhi</t>\n<t>model\nyes</t>\n<t>user\nok</t>\n<t>model\n";
    assert_eq!(render(GEMMA_LIKE, &fine).unwrap(), expected);
    let two = chat(
        json!([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
    );
    assert_eq!(render(GEMMA_LIKE, &two).unwrap(), "<bos><t>user\ns\n\na\n\nb</t>\n<t>model\n");
}

#[test]
fn what_a_template_refuses_for_another_reason_is_told_in_its_words() {
    let picky = "{% if messages[-1].content == 'no' %}{{ raise_exception('not that') }}{% endif %}{{ messages[0].content }}";
    let refused = render(picky, &chat(json!([{"role": "user", "content": "no"}]))).unwrap_err();
    assert!(matches!(&refused, TemplateError::Refused(reason) if reason == "not that"), "{refused}");
}

#[test]
fn templates_that_show_everything_are_given_everything_as_it_stands() {
    for source in [QWEN_LIKE, "{% for m in messages %}{{ m | tojson }}{% endfor %}"] {
        let template = ChatTemplate::new(&source.into(), "", "").unwrap();
        assert_eq!(template.shown, [Shown::ALL; 2], "{source}");
    }
    let clerk: Json =
        serde_json::from_str(include_str!("../../../models/clerk/tokenizer_config.json")).unwrap();
    let template = ChatTemplate::new(&clerk["chat_template"], "", "").unwrap();
    assert_eq!(template.shown, [Shown::ALL; 2]);
}

/// The messages that a letter stands for, with their words: a call, its result.
fn said(letter: char, at: usize) -> Vec<(Json, Vec<String>)> {
    let word = |n: usize| format!("word-{at}-{n}");
    let call = |n: usize| json!({"id": format!("call_{at}_{n}"), "function": {"name": "f", "arguments": {"x": word(n)}}});
    let result = |n: usize| {
        let of = n - 10;
        (
            json!({"role": "tool", "tool_call_id": format!("call_{at}_{of}"), "content": word(n)}),
            vec![word(n)],
        )
    };
    let text = |role: &str| vec![(json!({"role": role, "content": word(0)}), vec![word(0)])];
    match letter {
        's' => text("system"),
        'u' => text("user"),
        'a' => text("assistant"),
        't' => {
            vec![(json!({"role": "tool", "tool_call_id": "call_lost", "content": word(0)}), vec![word(0)])]
        }
        'c' => vec![
            (json!({"role": "assistant", "content": null, "tool_calls": [call(0)]}), vec![word(0)]),
            result(10),
        ],
        _ => vec![
            (json!({"role": "assistant", "tool_calls": [call(0), call(1)]}), vec![word(0), word(1)]),
            result(10),
            result(11),
        ],
    }
}

#[test]
fn every_conversation_is_shown_whole_and_keeps_the_beginning_of_the_shorter() {
    // Qwen's templates show the last answer in another way than those before, whatever we do.
    let templates = [LLAMA_LIKE, GEMMA_LIKE, MISTRAL_LIKE, TWO_ROLES, FORGETFUL, ASKED];
    for source in templates {
        let template = ChatTemplate::new(&source.into(), "<bos>", "<eos>").unwrap();
        for count in 1..=4_u32 {
            for number in 0..6_usize.pow(count) {
                let letters: String = (0..count)
                    .map(|at| ['s', 'u', 'a', 't', 'c', 'd'][number / 6_usize.pow(at) % 6])
                    .collect();
                check_conversation(&template, &letters)
                    .unwrap_or_else(|wrong| panic!("{letters}: {wrong}\n{source}"));
            }
        }
    }
}

fn check_conversation(template: &ChatTemplate, letters: &str) -> Result<(), String> {
    let mut messages = Vec::new();
    let mut words = Vec::new();
    // The shorter conversation's text, up to its last word.
    let mut before = String::new();
    for (at, letter) in letters.chars().enumerate() {
        // Calls and their results come together: nobody asks in between.
        for (message, its_words) in said(letter, at) {
            messages.push(message);
            words.extend(its_words);
        }
        let conversation = Conversation {
            messages: serde_json::from_value(Json::Array(messages.clone())).unwrap(),
            ..Conversation::default()
        };
        let text = template.render(&conversation).map_err(|error| error.to_string())?;
        if !text.starts_with(&before) {
            return Err(format!("{text:?} does not begin with {before:?}"));
        }
        let end = |word: &String| {
            text.find(word.as_str()).map(|at| at + word.len()).ok_or(format!("{word} is not in {text:?}"))
        };
        let ends = words.iter().map(end).collect::<Result<Vec<_>, _>>()?;
        before = text[..ends.iter().max().copied().unwrap_or(0)].to_owned();
    }
    Ok(())
}

#[test]
fn a_template_that_only_reads_parts_gets_parts() {
    let source = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}[{{ p.text }}]{% endif %}{% endfor %}{% endfor %}";
    assert_eq!(render(source, &chat(json!([{"role": "user", "content": "plain"}]))).unwrap(), "[plain]");
}

#[test]
fn blocks_are_trimmed_and_values_printed_as_in_python() {
    let source = "{% if true %}\n  {% for n in [1, 2, 3] %}\n{% if n == 2 %}{% continue %}{% endif %}{{ n }},{{ n == 3 }},{{ none }}\n  {% endfor %}\n{% endif %}\nend\n";
    assert_eq!(render(source, &chat(json!([]))).unwrap(), "1,False,None\n3,True,None\nend");
}

#[test]
fn generation_marks_have_no_effect() {
    let source =
        "a{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration %}{% endfor %}";
    assert_eq!(render(source, &chat(json!([{"role": "user", "content": "b"}]))).unwrap(), "ab");
}

#[test]
fn named_templates_are_chosen_by_need() {
    let named = json!([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools | length }} tools"}]);
    let template = ChatTemplate::new(&named, "", "").unwrap();
    let mut conversation =
        Conversation { messages: vec![Message::text(Role::User, "x")], ..Conversation::default() };
    assert_eq!(template.render(&conversation).unwrap(), "plain");
    conversation.tools = vec![json!({}), json!({})];
    assert_eq!(template.render(&conversation).unwrap(), "2 tools");
}

#[test]
fn tools_are_refused_where_the_template_would_drop_them() {
    let conversation = Conversation { tools: vec![json!({})], ..Conversation::default() };
    assert!(matches!(render("no t00ls here", &conversation), Err(TemplateError::NoTools)));
}

#[test]
fn a_template_that_does_not_come_to_an_end_is_refused_soon() {
    let loops = "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}x{% endfor %}{% endfor %}{% endfor %}";
    let calls = "{% macro m(n) %}{% for i in range(50) %}{{ m(n + 1) }}{% endfor %}{% endmacro %}{{ m(0) }}";
    let later = |when: &str| format!("{{{{ messages[0].content }}}}{{% if {when} %}}{loops}{{% endif %}}");
    for (source, at_once) in [
        (loops.to_owned(), true),
        (calls.to_owned(), false),
        (later("messages | length > 2"), false),
        (later("tools"), false),
    ] {
        let begun = std::time::Instant::now();
        let made = ChatTemplate::new(&source.as_str().into(), "", "");
        assert_eq!(matches!(made, Err(TemplateError::Endless(_))), at_once, "{source}");
        let long = chat(
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]),
        );
        let tools = if source.contains("tools") { vec![json!({})] } else { Vec::new() };
        let rendered = made.and_then(|template| template.render(&Conversation { tools, ..long }));
        assert!(rendered.is_err(), "{source}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}: {source}", begun.elapsed());
    }
}

#[test]
fn broken_templates_are_refused_at_the_start_with_the_reason() {
    assert!(matches!(ChatTemplate::new(&Json::Null, "", ""), Err(TemplateError::Missing)));
    let syntax = ChatTemplate::new(&"{% if %}".into(), "", "").unwrap_err().to_string();
    assert!(syntax.contains("does not parse"), "{syntax}");
    let shape = ChatTemplate::new(&json!(3), "", "").unwrap_err().to_string();
    assert!(shape.contains('3') && shape.contains("expected a string"), "{shape}");
}

#[test]
fn a_text_is_not_filled_up_without_bound() {
    let hello = chat(json!([{"role": "user", "content": "7"}]));
    assert_eq!(render("{{ messages[0].content.zfill(3) }}|{{ 'a'.ljust(3) }}|", &hello).unwrap(), "007|a  |");
    let error = render("{{ 'a'.rjust(1000000000000) }}", &hello).unwrap_err().to_string();
    assert!(
        error.contains("rjust to 1000000000000 characters") && error.contains("at most 65536"),
        "{error}"
    );
}

#[test]
fn tools_are_shown_by_templates_that_call_them_otherwise_or_set_them_first() {
    let tool = json!({"type": "function", "function": {"name": "get_weather"}});
    for source in [
        "{%- set tools = tools or [] -%}{% for tool in tools %}{{ tool.function.name }}{% endfor %}{{ messages[0].content }}",
        "{% if xml_tools %}{{ xml_tools | tojson }}{% endif %}{{ messages[0].content }}",
    ] {
        let template = ChatTemplate::new(&source.into(), "", "").unwrap();
        let mut conversation = Conversation {
            messages: vec![Message::text(Role::User, "Hello")],
            tools: vec![tool.clone()],
            ..Conversation::default()
        };
        assert!(template.render(&conversation).unwrap().contains("get_weather"), "{source}");
        conversation.tools.clear();
        assert_eq!(template.render(&conversation).unwrap(), "Hello");
    }
}
