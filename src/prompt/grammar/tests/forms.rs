//! Grammars of the forms that have no laws of their own elsewhere: what is let through and what is not, where a call is demanded and
//! where the model chose to make it.

use super::*;

#[test]
fn calls_have_the_form_of_the_model_and_the_types_of_the_schema() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"},
        "b": {"type": "boolean"}}, "required": ["n"]});
    let rules = CallRules { tools: vec![("f".into(), schema)], count: CallCount::Several };
    for (syntax, text, demanded, chosen) in [
        (ToolSyntax::Mistral, "[TOOL_CALLS]f[ARGS]{\"n\": 1}", true, true),
        (ToolSyntax::Mistral, "[TOOL_CALLS]f[ARGS]{\"n\": 1}[TOOL_CALLS]f[ARGS]{\"n\": 2}", true, true),
        (ToolSyntax::Mistral, "[TOOL_CALLS]f[ARGS]{\"n\":1}", false, true),
        (ToolSyntax::Mistral, "[TOOL_CALLS]f[ARGS]{\"n\": \"1\"}", false, false),
        (ToolSyntax::Mistral, "[TOOL_CALLS]g[ARGS]{\"n\": 1}", false, false),
        (ToolSyntax::MistralList, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"n\": 1}}]", true, true),
        (ToolSyntax::MistralList, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]", false, false),
        (
            ToolSyntax::MistralList,
            "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"n\": 1}}, {\"name\": \"f\", \"arguments\": {\"n\": 2}}]",
            true,
            true,
        ),
        (ToolSyntax::MistralList, "[TOOL_CALLS][]", false, false),
        (
            ToolSyntax::Nemotron,
            "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {\"n\": 1}}, {\"name\": \"f\", \"arguments\": {\"n\": 2}}]</TOOLCALL>",
            true,
            true,
        ),
        (ToolSyntax::Nemotron, "<TOOLCALL>[{\"name\": \"g\", \"arguments\": {}}]</TOOLCALL>", false, false),
        (ToolSyntax::Nemotron, "<TOOLCALL>[]</TOOLCALL>", false, false),
        (
            ToolSyntax::Kimi,
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"n\": 1}<|tool_call_end|><|tool_calls_section_end|>",
            true,
            true,
        ),
        (ToolSyntax::Kimi, "<|tool_calls_section_begin|><|tool_calls_section_end|>", false, false),
        (
            ToolSyntax::DeepSeek,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"n\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            true,
            true,
        ),
        (
            ToolSyntax::DeepSeekFenced,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"n\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            true,
            true,
        ),
        (
            ToolSyntax::Glm,
            "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
            true,
            true,
        ),
        (ToolSyntax::Glm, "<tool_call>f<arg_key>n</arg_key><arg_value>1</arg_value></tool_call>", true, true),
        (
            ToolSyntax::Glm,
            "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>one</arg_value>\n</tool_call>",
            false,
            false,
        ),
        (ToolSyntax::Glm, "<tool_call>f\n</tool_call>", false, false),
        (
            ToolSyntax::MiniMax,
            "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"n\">1</parameter>\n<parameter name=\"s\">a\nb</parameter>\n</invoke>\n</minimax:tool_call>",
            true,
            true,
        ),
        (
            ToolSyntax::MiniMax,
            "<minimax:tool_call>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
            false,
            false,
        ),
        (
            ToolSyntax::Lfm2,
            "<|tool_call_start|>[f(n=1, s=\"a\\n\", b=True), f(n=2)]<|tool_call_end|>",
            true,
            true,
        ),
        (ToolSyntax::Lfm2, "<|tool_call_start|>[f(n=1, b=False)]<|tool_call_end|>", true, true),
        (ToolSyntax::Lfm2, "<|tool_call_start|>[f(s=\"a\")]<|tool_call_end|>", false, false),
        (ToolSyntax::Lfm2, "<|tool_call_start|>[f(n=1, b=true)]<|tool_call_end|>", false, false),
        (ToolSyntax::Lfm2, "<|tool_call_start|>[]<|tool_call_end|>", false, false),
    ] {
        let grammars = grammars_of(syntax);
        for (format, fine) in
            [(Format::Calls(rules.clone()), demanded), (Format::TextOrCalls(rules.clone()), chosen)]
        {
            assert_eq!(takes_with(&grammars, ThoughtStart::Never, &format, text), fine, "{format:?}: {text}");
            let announced = format!("I look.{text}");
            let free = matches!(format, Format::TextOrCalls(_)) && fine;
            assert_eq!(takes_with(&grammars, ThoughtStart::Never, &format, &announced), free, "{announced}");
        }
    }
}
