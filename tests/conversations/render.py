"""Conversations as transformers renders them: the reference.

`render.py` alone writes goldens.json from the templates beside it. `run` uses the rest for the families' own templates.
"""
import copy
import datetime
import json
import pathlib

import jinja2
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).resolve().parent
BOS, EOS = "<bos>", "<eos>"


class Clock(datetime.datetime):
    """The day on which everything is rendered."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


chat_template_utils.datetime = Clock


def conversations():
    """Every conversation with its name."""
    for name, said in json.loads((HERE / "conversations.json").read_text()).items():
        yield name, {"tools": [], "variables": {}, "add_generation_prompt": True, **said}


def as_the_family_has_them(messages, template):
    """Messages under the names that the template's family uses in its own examples: transformers leaves that to its user."""
    messages, ids = copy.deepcopy(messages), {}
    for message in messages:
        if ".thinking" in template and message.get("reasoning_content"):
            message["thinking"] = message["reasoning_content"]
        for call in message.get("tool_calls", []):
            name = call["function"]["name"]
            number = f"functions.{name}:{len(ids)}" if "<|tool_calls_section_begin|>" in template else call["id"]
            ids[call["id"]] = (number, name)
            call["id"] = number
        if message["role"] == "tool":
            message["tool_call_id"], message["name"] = ids[message["tool_call_id"]]
    return messages


def render(template, conversation):
    """`text`, and whether it `hides` a word; or why there is none, as `refused`."""
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[as_the_family_has_them(conversation["messages"], template)],
            tools=conversation["tools"] or None,
            chat_template=template,
            add_generation_prompt=conversation["add_generation_prompt"],
            bos_token=BOS,
            eos_token=EOS,
            **conversation["variables"],
        )
    except (jinja2.TemplateError, TypeError, AttributeError, KeyError, ValueError, RecursionError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    return {"text": texts[0]}


def cases(templates):
    """What every template makes of every conversation."""
    return {
        name: {
            "template": template,
            "rendered": {title: render(template, said) for title, said in conversations()},
        }
        for name, template in templates
    }


if __name__ == "__main__":
    own = ((path.stem, path.read_text()) for path in sorted((HERE / "templates").glob("*.jinja")))
    goldens = {name: case["rendered"] for name, case in cases(own).items()}
    text = json.dumps(goldens, ensure_ascii=False, indent=1)
    (HERE / "goldens.json").write_text(text + "\n")
