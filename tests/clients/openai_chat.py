"""A multi-turn chat through the openai client, streamed. Usage: openai_chat.py BASE_URL CONVERSATION.json

Prints one JSON object a turn: {"text", "expected", "prompt_tokens", "completion_tokens", "cached_tokens", "finish_reason"}.
"""
import json
import sys

import openai


def turn(client, messages):
    text, usage, reason = "", None, None
    stream = client.chat.completions.create(
        model="default", messages=messages, temperature=0, max_tokens=64,
        stream=True, stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, usage, reason


def main(base_url, path):
    with open(path) as file:
        conversation = json.load(file)
    client = openai.OpenAI(base_url=base_url + "/v1", api_key="unused", max_retries=0)
    messages = list(conversation["messages"])
    for step in conversation["turns"]:
        messages.append({"role": "user", "content": step["user"]})
        text, usage, reason = turn(client, messages)
        messages.append({"role": "assistant", "content": text})
        print(json.dumps({
            "text": text,
            "expected": step["expect"]["text"],
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.prompt_tokens_details.cached_tokens,
            "finish_reason": reason,
        }))


main(*sys.argv[1:])
