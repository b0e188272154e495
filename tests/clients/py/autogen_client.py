"""autogen: an assistant agent's tool loop over three tasks on both model clients."""
import asyncio
import json
import logging
import warnings

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.messages import ToolCallRequestEvent
from autogen_core.tools import FunctionTool
from autogen_ext.models.anthropic import AnthropicChatCompletionClient
from autogen_ext.models.openai import OpenAIChatCompletionClient

from scenario import FUNCTIONS, KEY, LOOP, MODEL, SCHEMAS, SYSTEM, base_url, called, check

INFO = {"vision": False, "function_calling": True, "json_output": True, "family": "unknown", "structured_output": True}


class Tool(FunctionTool):
    """A tool whose parameters are declared in the order that the model learned."""

    def __init__(self, function, parameters):
        super().__init__(function, description=function.__doc__)
        self.parameters = parameters

    @property
    def schema(self):
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


async def loop(name, model, tools):
    agent = AssistantAgent("clerk", model, tools=tools, system_message=SYSTEM, reflect_on_tool_use=False, max_tool_iterations=3)
    for at, step in enumerate(LOOP):
        result = await agent.run(task=step["user"])
        found = [[call.name, json.loads(call.arguments)] for event in result.messages if isinstance(event, ToolCallRequestEvent)
                 for call in event.content]
        check(f"{name} call {at + 1}", found, [called(step)])
        check(f"{name} answer {at + 1}", result.messages[-1].content, step["answer"])
    await model.close()


async def main():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    openai = OpenAIChatCompletionClient(model=MODEL, base_url=base_url() + "/v1", api_key=KEY, model_info=INFO, temperature=0, max_tokens=64,
                                        max_retries=0, timeout=60)
    await loop("openai", openai, [Tool(function, schema) for function, schema in zip(FUNCTIONS, SCHEMAS)])
    anthropic = AnthropicChatCompletionClient(model=MODEL, base_url=base_url(), api_key=KEY, model_info=INFO, temperature=0, max_tokens=64,
                                              max_retries=0, timeout=60)
    await loop("anthropic", anthropic, [FunctionTool(function, description=function.__doc__) for function in FUNCTIONS])


asyncio.run(main())
