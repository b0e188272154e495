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

#[test]
fn a_gemma_like_template_renders_and_says_what_it_refuses() {
    let fine = chat(json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": " hi "},
        {"role": "assistant", "content": "yes"}, {"role": "user", "content": "ok"}]));
    let expected = "<bos><t>user\nBe kind.\n\nhi</t>\n<t>model\nyes</t>\n<t>user\nok</t>\n<t>model\n";
    assert_eq!(render(GEMMA_LIKE, &fine).unwrap(), expected);
    let two = chat(json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]));
    let refused = render(GEMMA_LIKE, &two).unwrap_err();
    assert!(
        matches!(&refused, TemplateError::Refused(reason) if reason == "roles must alternate"),
        "{refused}"
    );
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
fn broken_templates_are_refused_at_the_start_with_the_reason() {
    assert!(matches!(ChatTemplate::new(&Json::Null, "", ""), Err(TemplateError::Missing)));
    let syntax = ChatTemplate::new(&"{% if %}".into(), "", "").unwrap_err().to_string();
    assert!(syntax.contains("does not parse"), "{syntax}");
    let shape = ChatTemplate::new(&json!(3), "", "").unwrap_err().to_string();
    assert!(shape.contains('3') && shape.contains("expected a string"), "{shape}");
}
