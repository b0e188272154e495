"""openai-agents: the runner's tool loop over three turns, streamed and not, and structured output.

With the chat model, or with the responses model when `responses` follows the address.
"""
import asyncio
import sys

from agents import Agent, AgentOutputSchema, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

from scenario import FUNCTIONS, KEY, LOOP, MODEL, RECORD, SCHEMAS, SYSTEM, base_url, check, turn

SETTINGS = ModelSettings(temperature=0, max_tokens=64, include_usage=True)


class Record(BaseModel):
    """Structured output."""

    code: str = Field(pattern=RECORD["pattern"])


def usage(response):
    said = response.usage
    return said.input_tokens, said.input_tokens_details.cached_tokens, said.output_tokens


def tools():
    for function, schema in zip(FUNCTIONS, SCHEMAS):
        tool = function_tool(function)
        tool.params_json_schema = schema
        yield tool


async def loop(name, model, streamed):
    agent = Agent("clerk", instructions=SYSTEM, tools=list(tools()), model=model,
                  model_settings=SETTINGS)
    history = []
    for at, step in enumerate(LOOP):
        asked = [*history, {"role": "user", "content": step["user"]}]
        if streamed:
            result = Runner.run_streamed(agent, asked)
            async for _ in result.stream_events():
                pass
        else:
            result = await Runner.run(agent, asked)
        history = result.to_input_list()
        call, answer = result.raw_responses
        names = [item.name for item in call.output if item.type == "function_call"]
        turn(f"{name} call {at + 1}", names, [step["tool"]], *usage(call), opens=at == 0)
        turn(f"{name} answer {at + 1}", result.final_output, step["answer"], *usage(answer))


async def main():
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=base_url() + "/v1", api_key=KEY, max_retries=0, timeout=60)
    model = (OpenAIResponsesModel if "responses" in sys.argv[2:] else OpenAIChatCompletionsModel)(MODEL, client)
    await loop("whole", model, streamed=False)
    await loop("streamed", model, streamed=True)
    agent = Agent("clerk", output_type=AgentOutputSchema(Record), model=model, model_settings=SETTINGS)
    result = await Runner.run(agent, RECORD["user"])
    check("output_type", result.final_output.model_dump(), {RECORD["field"]: RECORD["value"]})


asyncio.run(main())
