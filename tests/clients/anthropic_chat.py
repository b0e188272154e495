"""A multi-turn chat through the anthropic client, streamed. Usage: anthropic_chat.py BASE_URL CONVERSATION.json

Prints one JSON object a turn: {"text", "expected", "prompt_tokens", "completion_tokens", "cached_tokens", "counted_tokens",
"finish_reason"}, then one for a call that is demanded and the answer to its result: {"tool", "input", "finish_reason", "after"}.
"""
import json
import sys

import anthropic

GREEDY = {"temperature": 0}


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens


def turn(client, system, messages):
    marked = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    counted = client.messages.count_tokens(model="default", system=marked, messages=messages).input_tokens
    text = ""
    with client.messages.stream(
        model="default", system=marked, messages=messages, max_tokens=64, extra_body=GREEDY,
    ) as stream:
        for piece in stream.text_stream:
            text += piece
        final = stream.get_final_message()
    assert text == "".join(block.text for block in final.content), (text, final)
    return text, final, counted


def demanded_call(client):
    tools = [{
        "name": "find_code",
        "description": "Finds the code of a door.",
        "input_schema": {
            "type": "object", "properties": {"door": {"enum": ["north", "south"]}},
            "required": ["door"], "additionalProperties": False,
        },
    }]
    messages = [{"role": "user", "content": "What is the code of the south door?"}]
    called = client.messages.create(
        model="default", messages=messages, tools=tools, max_tokens=64, extra_body=GREEDY,
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
    )
    call = called.content[-1]
    messages.append({"role": "assistant", "content": called.content})
    messages.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "4417"}]})
    after = client.messages.create(model="default", messages=messages, tools=tools, max_tokens=64, extra_body=GREEDY)
    print(json.dumps({
        "tool": call.name, "input": call.input, "finish_reason": called.stop_reason, "after": after.stop_reason,
    }))


def main(base_url, path):
    with open(path) as file:
        conversation = json.load(file)
    client = anthropic.Anthropic(base_url=base_url, api_key="unused", max_retries=0)
    (system,) = [message["content"] for message in conversation["messages"]]
    messages = []
    for step in conversation["turns"]:
        messages.append({"role": "user", "content": step["user"]})
        text, final, counted = turn(client, system, messages)
        messages.append({"role": "assistant", "content": final.content})
        print(json.dumps({
            "text": text,
            "expected": step["expect"]["text"],
            "prompt_tokens": prompt_tokens(final.usage),
            "completion_tokens": final.usage.output_tokens,
            "cached_tokens": final.usage.cache_read_input_tokens,
            "counted_tokens": counted,
            "finish_reason": final.stop_reason,
        }))
    demanded_call(client)


main(*sys.argv[1:])
