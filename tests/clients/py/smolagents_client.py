"""smolagents: a chat through its model, which sends content as parts, and three tasks of its tool-calling agent.

The agent demands a call in every step, the one that ends a task included, which is beyond the embedded model: every task ends here
with its first call. It writes calls and results into the history as text of its own, so only prompts are found again.
"""
from smolagents import LogLevel, OpenAIModel, ToolCallingAgent, tool
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage

from scenario import CHAT, KEY, LOOP, MODEL, SYSTEM, base_url, called, result_of, turn


@tool
def get_water_level(station: str) -> str:
    """Get the water level.

    Args:
        station: The station.
    """
    return result_of("get_water_level", {"station": station})


@tool
def find_parcel(order_id: str) -> str:
    """Find the parcel.

    Args:
        order_id: The order id.
    """
    return result_of("find_parcel", {"order_id": order_id})


@tool
def open_door(code: str) -> str:
    """Open the door.

    Args:
        code: The code.
    """
    return result_of("open_door", {"code": code})


def usage(message):
    said = message.raw.usage
    return said.prompt_tokens, said.prompt_tokens_details.cached_tokens


def said(role, text):
    return ChatMessage.from_dict({"role": role, "content": [{"type": "text", "text": text}]})


def chat(model):
    messages = [said("system", SYSTEM)]
    for at, step in enumerate(CHAT):
        messages.append(said("user", step["user"]))
        reply = model.generate(messages)
        turn(f"chat {at + 1}", reply.content, step["answer"], *usage(reply), reply.token_usage.output_tokens, opens=at == 0)
        messages.append(said("assistant", reply.content))


def tasks(model):
    agent = ToolCallingAgent(tools=[get_water_level, find_parcel, open_door], model=model, verbosity_level=LogLevel.OFF)
    agent.prompt_templates["system_prompt"] = SYSTEM
    for at, step in enumerate(LOOP):
        events = agent.run(step["user"], stream=True, reset=at == 0)
        action = next(event for event in events if isinstance(event, ActionStep))
        found = [[call.name, call.arguments] for call in action.tool_calls or []]
        turn(f"task {at + 1}", found, [called(step)], *usage(action.model_output_message), 0, opens=at == 0)


def main():
    model = OpenAIModel(model_id=MODEL, api_base=base_url() + "/v1", api_key=KEY, temperature=0, max_tokens=64,
                        client_kwargs={"max_retries": 0, "timeout": 60})
    chat(model)
    tasks(model)


main()
