"""The anthropic client: a streamed chat with marked blocks, a streamed tool loop, its own tool runner, formats, counts, errors."""
import json

import anthropic

from scenario import CHAT, FUNCTIONS, KEY, LOOP, MODEL, RECORD, SCHEMAS, SYSTEM, TOOLS, base_url, called, check, result_of, turn

# This client knows no temperature any more.
GREEDY = {"model": MODEL, "max_tokens": 64, "extra_body": {"temperature": 0}}
ANTHROPIC_TOOLS = [{"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]} for tool in TOOLS]
MARKED = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]


def usage(reply):
    said = reply.usage
    prompt = said.input_tokens + said.cache_creation_input_tokens + said.cache_read_input_tokens
    return prompt, said.cache_read_input_tokens, said.output_tokens


def text_of(reply):
    return "".join(block.text for block in reply.content if block.type == "text")


def calls_of(reply):
    return [[block.name, block.input] for block in reply.content if block.type == "tool_use"]


def streamed(client, **request):
    with client.messages.stream(**GREEDY, **request) as events:
        told = list(events)
        reply = events.get_final_message()
    check("the deltas are the text", "".join(event.text for event in told if event.type == "text"), text_of(reply))
    check("message_start comes first", told[0].type, "message_start")
    if reply.stop_reason == "tool_use":
        check("arguments come as they are made", len([event for event in told if event.type == "input_json"]) > 2, True)
    return reply


def chat(client):
    messages = []
    for at, step in enumerate(CHAT):
        messages.append({"role": "user", "content": step["user"]})
        counted = client.messages.count_tokens(model=MODEL, system=MARKED, messages=messages).input_tokens
        reply = streamed(client, system=MARKED, messages=messages)
        turn(f"chat {at + 1}", text_of(reply), step["answer"], *usage(reply), opens=at == 0)
        check("stop_reason", reply.stop_reason, "end_turn")
        check("count_tokens", counted, usage(reply)[0])
        messages.append({"role": "assistant", "content": reply.content})


def loop(client):
    messages = []
    for at, step in enumerate(LOOP):
        messages.append({"role": "user", "content": [{"type": "text", "text": step["user"]}]})
        reply = streamed(client, system=SYSTEM, messages=messages, tools=ANTHROPIC_TOOLS)
        turn(f"call {at + 1}", calls_of(reply), [called(step)], *usage(reply), opens=at == 0)
        check("stop_reason", reply.stop_reason, "tool_use")
        messages.append({"role": "assistant", "content": reply.content})
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": result_of(block.name, block.input)}]}
                   for block in reply.content if block.type == "tool_use"]
        messages.append({"role": "user", "content": results})
        reply = streamed(client, system=SYSTEM, messages=messages, tools=ANTHROPIC_TOOLS)
        turn(f"answer {at + 1}", text_of(reply), step["answer"], *usage(reply))
        check("stop_reason", reply.stop_reason, "end_turn")
        messages.append({"role": "assistant", "content": reply.content})


def tool_runner(client):
    for at, step in enumerate(LOOP):
        runner = client.beta.messages.tool_runner(
            messages=[{"role": "user", "content": step["user"]}], system=SYSTEM,
            tools=[anthropic.beta_tool(input_schema=schema)(function) for function, schema in zip(FUNCTIONS, SCHEMAS)], **GREEDY)
        for nth, reply in enumerate(runner):
            if nth == 0:
                turn(f"runner calls {at + 1}", calls_of(reply), [called(step)], *usage(reply), opens=True)
            else:
                turn(f"runner answers {at + 1}", text_of(reply), step["answer"], *usage(reply))
        check("requests", nth + 1, 2)


def formats(client):
    schema = {"type": "object", "properties": {RECORD["field"]: {"type": "string", "pattern": RECORD["pattern"]}},
              "required": [RECORD["field"]], "additionalProperties": False}
    reply = client.messages.create(messages=[{"role": "user", "content": RECORD["user"]}],
                                   output_config={"format": {"type": "json_schema", "schema": schema}}, **GREEDY)
    check("a schema", json.loads(text_of(reply)), {RECORD["field"]: RECORD["value"]})
    question = [{"role": "user", "content": CHAT[0]["user"]}]
    for choice in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "open_door"}):
        reply = client.messages.create(system=SYSTEM, messages=question, tools=ANTHROPIC_TOOLS, tool_choice=choice, **GREEDY)
        check("a demanded call", [len(calls_of(reply)), reply.stop_reason], [1, "tool_use"])
    reply = client.messages.create(system=SYSTEM, messages=question, stop_sequences=["20"], **GREEDY)
    check("a stop sequence", [text_of(reply), reply.stop_reason, reply.stop_sequence], ["90", "stop_sequence", "20"])
    old = [*question, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "9020."}]},
           {"role": "user", "content": CHAT[1]["user"]}]
    reply = client.beta.messages.create(system=SYSTEM, messages=old, **GREEDY)
    check("thinking in the history", text_of(reply), CHAT[1]["answer"])


def errors(client):
    for name, request, kind in (
        ("an empty history", {"messages": []}, anthropic.BadRequestError),
        ("too long", {"messages": [{"role": "user", "content": "word " * 400_000}]}, anthropic.BadRequestError),
        ("an unknown model", {"messages": [{"role": "user", "content": "x"}], "model": "claude-9"}, anthropic.NotFoundError),
    ):
        try:
            client.messages.create(**(GREEDY | request))
            check(name, "taken", "refused")
        except kind as error:
            check(name, error.body["type"], "error")
            check(name, name != "too long" or "prompt is too long: " in str(error), True)


def main():
    client = anthropic.Anthropic(base_url=base_url(), api_key=KEY, max_retries=0, timeout=60)
    chat(client)
    loop(client)
    tool_runner(client)
    formats(client)
    errors(client)


main()
