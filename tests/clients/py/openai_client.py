"""The openai client: a streamed chat, a streamed tool loop, parsed structured output, several choices, stops, errors."""
import json

import openai
from pydantic import BaseModel, Field

from scenario import CHAT, KEY, LOOP, MODEL, RECORD, SYSTEM, TOOLS, base_url, called, check, result_of, turn

GREEDY = {"model": MODEL, "temperature": 0, "max_tokens": 64}
OPENAI_TOOLS = [{"type": "function", "function": tool} for tool in TOOLS]


class Record(BaseModel):
    """Structured output."""

    code: str = Field(pattern=RECORD["pattern"])


def usage(reply):
    said = reply.usage
    return said.prompt_tokens, said.prompt_tokens_details.cached_tokens, said.completion_tokens


def streamed(client, messages, **more):
    with client.chat.completions.stream(messages=messages, stream_options={"include_usage": True}, **GREEDY, **more) as events:
        told = list(events)
        reply = events.get_final_completion()
    text = "".join(event.delta for event in told if event.type == "content.delta")
    check("the deltas are the text", text, reply.choices[0].message.content or "")
    if reply.choices[0].message.tool_calls:
        deltas = [event for event in told if event.type == "tool_calls.function.arguments.delta"]
        check("arguments come as they are made", len(deltas) > 2, True)
    check("refusal", reply.choices[0].message.refusal, None)
    return reply


def chat(client):
    messages = [{"role": "developer", "content": SYSTEM}]
    for at, step in enumerate(CHAT):
        messages.append({"role": "user", "content": [{"type": "text", "text": step["user"]}]})
        reply = streamed(client, messages)
        choice = reply.choices[0]
        turn(f"chat {at + 1}", choice.message.content, step["answer"], *usage(reply), opens=at == 0)
        check("finish_reason", choice.finish_reason, "stop")
        messages.append({"role": "assistant", "content": choice.message.content})


def loop(client):
    messages = [{"role": "system", "content": SYSTEM}]
    for at, step in enumerate(LOOP):
        messages.append({"role": "user", "content": step["user"]})
        reply = streamed(client, messages, tools=OPENAI_TOOLS)
        message = reply.choices[0].message
        calls = message.tool_calls or []
        found = [[call.function.name, json.loads(call.function.arguments)] for call in calls]
        turn(f"call {at + 1}", found, [called(step)], *usage(reply), opens=at == 0)
        check("finish_reason", reply.choices[0].finish_reason, "tool_calls")
        messages.append(message.to_dict())
        for call, (name, arguments) in zip(calls, found):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result_of(name, arguments)})
        reply = streamed(client, messages, tools=OPENAI_TOOLS)
        turn(f"answer {at + 1}", reply.choices[0].message.content, step["answer"], *usage(reply))
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})


def formats(client):
    messages = [{"role": "user", "content": RECORD["user"]}]
    parsed = client.chat.completions.parse(messages=messages, response_format=Record, **GREEDY)
    check("parse", parsed.choices[0].message.parsed.model_dump(), {RECORD["field"]: RECORD["value"]})
    more = {"response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 2, "max_tokens": 400}
    json_mode = client.chat.completions.create(messages=messages, **(GREEDY | more))
    choice = json_mode.choices[0]
    check("json_object begins an object", choice.message.content.strip()[:1], "{")
    check("logprobs", all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in choice.logprobs.content), True)
    question = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": CHAT[0]["user"]}]
    for choice, name in (("required", None), ({"type": "function", "function": {"name": "open_door"}}, "open_door")):
        reply = client.chat.completions.create(messages=question, tools=OPENAI_TOOLS, tool_choice=choice, **GREEDY)
        calls = reply.choices[0].message.tool_calls
        check("a demanded call", calls is not None and name in (None, calls[0].function.name), True)
    reply = client.chat.completions.create(messages=question, tools=OPENAI_TOOLS, tool_choice="none", n=2, seed=1, stop=["20"], **GREEDY)
    check("n, stop, no call", [[choice.message.content, choice.finish_reason] for choice in reply.choices], [["90", "stop"]] * 2)


def cut_calls(client):
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": LOOP[0]["user"]}]
    for most in range(1, 24):
        reply = client.chat.completions.create(messages=messages, tools=OPENAI_TOOLS, **(GREEDY | {"max_tokens": most}))
        choice = reply.choices[0]
        check("a call that is cut off is no text", choice.message.content or "", "")
        calls = [[call.function.name, json.loads(call.function.arguments)] for call in choice.message.tool_calls or []]
        check("what is complete of it is a call", calls in ([], [called(LOOP[0])]) and (choice.finish_reason == "length" or len(calls) == 1), True)
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "open_door"}}]}
    reply = client.chat.completions.create(messages=messages, tools=OPENAI_TOOLS, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}, **GREEDY)
    names = {call.function.name for call in reply.choices[0].message.tool_calls or []}
    check("no other tool than allowed", names <= {"open_door"}, True)


def others(client):
    check("models", MODEL in [model.id for model in client.models.list()], True)
    check("a model", client.models.retrieve(MODEL).id, MODEL)
    try:
        client.chat.completions.create(messages=[{"role": "user", "content": "x"}], model=MODEL, max_tokens=-2)
        check("a wrong field", "taken", "refused")
    except openai.BadRequestError as error:
        check("a wrong field", error.param, "max_tokens")
    try:
        client.chat.completions.create(messages=[{"role": "user", "content": "word " * 400_000}], model=MODEL)
        check("too long", "taken", "refused")
    except openai.BadRequestError as error:
        check("too long", [error.code, "maximum context length is" in error.message], ["context_length_exceeded", True])
    try:
        client.models.retrieve("gpt-5")
        check("an unknown model", "found", "not found")
    except openai.NotFoundError as error:
        check("an unknown model", error.code, "model_not_found")


def main():
    client = openai.OpenAI(base_url=base_url() + "/v1", api_key=KEY, max_retries=0, timeout=60)
    chat(client)
    loop(client)
    formats(client)
    cut_calls(client)
    others(client)


main()
