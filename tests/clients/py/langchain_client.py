"""langchain: both chat models streamed, the create_agent loop over three turns on both, structured output."""
import logging

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from scenario import CHAT, FUNCTIONS, KEY, LOOP, MODEL, RECORD, SCHEMAS, SYSTEM, base_url, called, check, turn


class Record(BaseModel):
    """Structured output."""

    code: str = Field(pattern=RECORD["pattern"])


def usage(message):
    said = message.usage_metadata
    return said["input_tokens"], said["input_token_details"]["cache_read"], said["output_tokens"]


def chat(name, model):
    messages = [("system", SYSTEM)]
    for at, step in enumerate(CHAT):
        messages.append(("user", step["user"]))
        reply = None
        for chunk in model.stream(messages):
            reply = chunk if reply is None else reply + chunk
        turn(f"{name} chat {at + 1}", reply.text, step["answer"], *usage(reply), opens=at == 0)
        messages.append(reply)


def loop(name, model):
    tools = [StructuredTool.from_function(function, args_schema=schema) for function, schema in zip(FUNCTIONS, SCHEMAS)]
    agent = create_agent(model, tools=tools, system_prompt=SYSTEM)
    messages = []
    for at, step in enumerate(LOOP):
        seen = len(messages) + 1
        messages = agent.invoke({"messages": [*messages, ("user", step["user"])]})["messages"]
        call, answer = [message for message in messages[seen:] if isinstance(message, AIMessage)]
        found = [[each["name"], each["args"]] for each in call.tool_calls]
        turn(f"{name} call {at + 1}", found, [called(step)], *usage(call), opens=at == 0)
        turn(f"{name} answer {at + 1}", answer.text, step["answer"], *usage(answer))


def main():
    openai = ChatOpenAI(base_url=base_url() + "/v1", api_key=KEY, model=MODEL, temperature=0, max_tokens=64, max_retries=0,
                        timeout=60, stream_usage=True)
    anthropic = ChatAnthropic(base_url=base_url(), api_key=KEY, model=MODEL, max_tokens=64, max_retries=0, timeout=60,
                              model_kwargs={"extra_body": {"temperature": 0}})
    for name, model in (("openai", openai), ("anthropic", anthropic)):
        chat(name, model)
        loop(name, model)
    record = {RECORD["field"]: RECORD["value"]}
    for method in ("json_schema", "function_calling"):
        parsed = openai.with_structured_output(Record, method=method).invoke(RECORD["user"])
        check(method, parsed.model_dump(), record)


logging.disable(logging.WARNING)
main()
