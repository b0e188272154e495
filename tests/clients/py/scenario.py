"""What every Python client is put through (scenario.json), and the lines it reports, which run.py judges.

A client is a script `CLIENT.py BASE_URL`. It prints one JSON object a line, by [turn] or [check].
"""
import json
import os
import sys

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scenario.json")) as file:
    SCENARIO = json.load(file)
SYSTEM = "\n".join(SCENARIO["system"])
CHAT = SCENARIO["chat"]
TOOLS = SCENARIO["tools"]
LOOP = SCENARIO["loop"]
RECORD = SCENARIO["record"]
MODEL = "default"
KEY = "unused"


def base_url():
    """The server's address, without a path."""
    return sys.argv[1]


def turn(name, found, expected, prompt, cached, completion, opens=False):
    """One answer of the model with its usage in tokens. `opens`: it begins a conversation, so nothing of it was known."""
    print(json.dumps({"turn": name, "found": found, "expected": expected, "prompt": prompt, "cached": cached,
                      "completion": completion, "opens": opens}), flush=True)


def check(name, found, expected):
    """Anything else that has to be exactly so."""
    print(json.dumps({"check": name, "found": found, "expected": expected}), flush=True)


def result_of(name, arguments):
    """What the tool answers. Other arguments than the scenario's are an answer too: one that turns out wrong."""
    for step in LOOP:
        if (step["tool"], step["arguments"]) == (name, arguments):
            return json.dumps(step["result"])
    return json.dumps({"error": f"{name} was called with {arguments}"})


# The scenario's tools, for frameworks that declare tools from functions.

def get_water_level(station: str) -> str:
    """Get the water level."""
    return result_of("get_water_level", {"station": station})


def find_parcel(order_id: str) -> str:
    """Find the parcel."""
    return result_of("find_parcel", {"order_id": order_id})


def open_door(code: str) -> str:
    """Open the door."""
    return result_of("open_door", {"code": code})


FUNCTIONS = [get_water_level, find_parcel, open_door]
# Their parameters as JSON Schema, for frameworks whose own order of its keys is not the one that the model learned.
SCHEMAS = [tool["parameters"] for tool in TOOLS]


def called(step):
    """The call that a turn of the loop expects, as checks compare it."""
    return [step["tool"], step["arguments"]]
