"""pydantic-ai: a tool loop over three turns on both of its models, an output tool, a native JSON schema."""
from pydantic import BaseModel, Field
from pydantic_ai import Agent, ModelSettings, NativeOutput, ToolOutput
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from scenario import CHAT, FUNCTIONS, KEY, LOOP, MODEL, RECORD, SYSTEM, base_url, called, check, turn

SETTINGS = ModelSettings(max_tokens=64, timeout=60, extra_body={"temperature": 0})


class Record(BaseModel):
    """Structured output."""

    code: str = Field(pattern=RECORD["pattern"])


def usage(reply):
    return reply.usage.input_tokens, reply.usage.cache_read_tokens, reply.usage.output_tokens


def chat(name, model):
    agent = Agent(model, instructions=SYSTEM, model_settings=SETTINGS)
    history = []
    for at, step in enumerate(CHAT):
        result = agent.run_stream_sync(step["user"], message_history=history)
        text = "".join(result.stream_text(delta=True))
        history = result.all_messages()
        turn(f"{name} chat {at + 1}", text, step["answer"], *usage(history[-1]), opens=at == 0)


def loop(name, model):
    agent = Agent(model, instructions=SYSTEM, tools=FUNCTIONS, model_settings=SETTINGS)
    history = []
    for at, step in enumerate(LOOP):
        result = agent.run_sync(step["user"], message_history=history)
        history = result.all_messages()
        call, answer = [message for message in result.new_messages() if isinstance(message, ModelResponse)]
        found = [[part.tool_name, part.args_as_dict()] for part in call.parts if part.part_kind == "tool-call"]
        turn(f"{name} call {at + 1}", found, [called(step)], *usage(call), opens=at == 0)
        turn(f"{name} answer {at + 1}", result.output, step["answer"], *usage(answer))


def main():
    openai = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=base_url() + "/v1", api_key=KEY))
    anthropic = AnthropicModel(MODEL, provider=AnthropicProvider(base_url=base_url(), api_key=KEY))
    for name, model in (("openai", openai), ("anthropic", anthropic)):
        chat(name, model)
        loop(name, model)
    for output in (ToolOutput(Record), NativeOutput(Record)):
        result = Agent(openai, output_type=output, model_settings=SETTINGS).run_sync(RECORD["user"])
        check(type(output).__name__, result.output.model_dump(), {RECORD["field"]: RECORD["value"]})


main()
