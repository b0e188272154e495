"""litellm: both protocols, streamed chats and tool loops over three turns."""
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

from scenario import CHAT, KEY, LOOP, MODEL, RECORD, SYSTEM, TOOLS, base_url, called, check, result_of, turn  # noqa: E402

OPENAI_TOOLS = [{"type": "function", "function": tool} for tool in TOOLS]


def usage(reply):
    said = reply.usage
    return said.prompt_tokens, said.prompt_tokens_details.cached_tokens, said.completion_tokens


def ask(target, messages, **more):
    chunks = litellm.completion(messages=messages, stream=True, stream_options={"include_usage": True}, temperature=0, max_tokens=64,
                                timeout=60, max_retries=0, api_key=KEY, **target, **more)
    return litellm.stream_chunk_builder(list(chunks), messages=messages)


def chat(name, target):
    messages = [{"role": "system", "content": SYSTEM}]
    for at, step in enumerate(CHAT):
        messages.append({"role": "user", "content": step["user"]})
        reply = ask(target, messages)
        turn(f"{name} chat {at + 1}", reply.choices[0].message.content, step["answer"], *usage(reply), opens=at == 0)
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})


def loop(name, target):
    messages = [{"role": "system", "content": SYSTEM}]
    for at, step in enumerate(LOOP):
        messages.append({"role": "user", "content": step["user"]})
        reply = ask(target, messages, tools=OPENAI_TOOLS)
        message = reply.choices[0].message
        found = [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or []]
        turn(f"{name} call {at + 1}", found, [called(step)], *usage(reply), opens=at == 0)
        check("finish_reason", reply.choices[0].finish_reason, "tool_calls")
        messages.append(message.model_dump() | {"content": message.content or None})
        for call, (tool, arguments) in zip(message.tool_calls or [], found):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result_of(tool, arguments)})
        reply = ask(target, messages, tools=OPENAI_TOOLS)
        turn(f"{name} answer {at + 1}", reply.choices[0].message.content, step["answer"], *usage(reply))
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})


def main():
    openai = {"model": f"openai/{MODEL}", "api_base": base_url() + "/v1"}
    anthropic = {"model": f"anthropic/{MODEL}", "api_base": base_url()}
    for name, target in (("openai", openai), ("anthropic", anthropic)):
        chat(name, target)
        loop(name, target)
    schema = {"type": "object", "properties": {RECORD["field"]: {"type": "string", "pattern": RECORD["pattern"]}},
              "required": [RECORD["field"]], "additionalProperties": False}
    reply = litellm.completion(messages=[{"role": "user", "content": RECORD["user"]}], temperature=0, max_tokens=64, timeout=60, api_key=KEY,
                               response_format={"type": "json_schema", "json_schema": {"name": "record", "schema": schema, "strict": True}}, **openai)
    check("response_format", json.loads(reply.choices[0].message.content), {RECORD["field"]: RECORD["value"]})
    try:
        litellm.completion(messages=[{"role": "user", "content": "x"}], max_tokens=-2, api_key=KEY, max_retries=0, **openai)
        check("a wrong field", "taken", "refused")
    except litellm.BadRequestError as error:
        check("a wrong field", "max_tokens" in str(error), True)


main()
