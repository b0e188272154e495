"""The openai client on /v1/responses: a streamed chat by whole inputs, a tool loop by `previous_response_id`, parsed output, errors."""
import json

import openai
from pydantic import BaseModel, Field

from scenario import CHAT, KEY, LOOP, MODEL, RECORD, SYSTEM, TOOLS, base_url, called, check, result_of, turn

GREEDY = {"model": MODEL, "temperature": 0, "max_output_tokens": 64}
FUNCTION_TOOLS = [{"type": "function", "strict": False, **tool} for tool in TOOLS]


class Record(BaseModel):
    """Structured output."""

    code: str = Field(pattern=RECORD["pattern"])


def usage(reply):
    return reply.usage.input_tokens, reply.usage.input_tokens_details.cached_tokens, reply.usage.output_tokens


def streamed(client, **request):
    with client.responses.stream(**GREEDY, **request) as events:
        told = list(events)
        reply = events.get_final_response()
    text = "".join(event.delta for event in told if event.type == "response.output_text.delta")
    if any(item.type == "function_call" for item in reply.output):
        deltas = [event for event in told if event.type == "response.function_call_arguments.delta"]
        check("arguments come as they are made", len(deltas) > 2, True)
    check("the deltas are the text", text, reply.output_text)
    check("status", reply.status, "completed")
    return reply


def chat(client):
    items = []
    for at, step in enumerate(CHAT):
        items.append({"role": "user", "content": step["user"]})
        reply = streamed(client, instructions=SYSTEM, input=items, store=False)
        turn(f"chat {at + 1}", reply.output_text, step["answer"], *usage(reply), opens=at == 0)
        items += [item.to_dict() for item in reply.output]


def loop(client):
    last = None
    for at, step in enumerate(LOOP):
        # Instructions are not carried over by `previous_response_id`; a system item is.
        items = [{"role": "developer", "content": SYSTEM}] if at == 0 else []
        items.append({"role": "user", "content": [{"type": "input_text", "text": step["user"]}]})
        reply = streamed(client, input=items, tools=FUNCTION_TOOLS, previous_response_id=last)
        calls = [item for item in reply.output if item.type == "function_call"]
        found = [[call.name, json.loads(call.arguments)] for call in calls]
        turn(f"call {at + 1}", found, [called(step)], *usage(reply), opens=at == 0)
        results = [{"type": "function_call_output", "call_id": call.call_id, "output": result_of(name, arguments)}
                   for call, (name, arguments) in zip(calls, found)]
        reply = streamed(client, input=results, tools=FUNCTION_TOOLS, previous_response_id=reply.id)
        turn(f"answer {at + 1}", reply.output_text, step["answer"], *usage(reply))
        last = reply.id
    asked = list(client.responses.input_items.list(last, order="asc"))
    check("input_items", asked[0].content[0].text, SYSTEM)
    counted = client.responses.input_tokens.count(model=MODEL, instructions=SYSTEM, input=LOOP[0]["user"], tools=FUNCTION_TOOLS)
    check("input_tokens", counted.input_tokens > 100, True)
    check("retrieve", client.responses.retrieve(last).output_text, LOOP[-1]["answer"])


def others(client):
    parsed = client.responses.parse(input=RECORD["user"], text_format=Record, **GREEDY)
    check("parse", parsed.output_parsed.model_dump(), {RECORD["field"]: RECORD["value"]})
    for name, request, kind in (
        ("a wrong field", {"input": "x", "max_output_tokens": -1}, openai.BadRequestError),
        ("an unknown response", {"input": "x", "previous_response_id": "resp_0"}, openai.APIStatusError),
    ):
        try:
            client.responses.create(**(GREEDY | request))
            check(name, "taken", "refused")
        except kind as error:
            check(name, 400 <= error.status_code < 500 and bool(error.param), True)


def main():
    client = openai.OpenAI(base_url=base_url() + "/v1", api_key=KEY, max_retries=0, timeout=60)
    chat(client)
    loop(client)
    others(client)


main()
