"""opencode, a coding agent: runs a command with its bash tool in one turn and says the output in the next, twice in one session.

Its prompts hold ten tools and some 30 kB of text. It tells the usage of every step itself.
"""
import json
import os
import subprocess
import sys
import tempfile

from scenario import KEY, MODEL, base_url, check, turn

CONFIG = {
    "provider": {"prefixd": {
        "npm": "@ai-sdk/openai-compatible", "options": {"baseURL": base_url() + "/v1", "apiKey": KEY},
        "models": {MODEL: {"limit": {"context": 32768, "output": 256}, "tool_call": True, "temperature": True}},
    }},
    "agent": {"build": {"temperature": 0}},
    "permission": "allow", "share": "disabled", "autoupdate": False,
}
PROGRAM = os.path.join(os.environ["CLIENT_PACKAGES"], "node_modules/.bin/opencode")


def run(home, *arguments):
    """The events of one run."""
    environment = dict(os.environ, HOME=home, XDG_CONFIG_HOME=home, XDG_DATA_HOME=home, XDG_CACHE_HOME=home, XDG_STATE_HOME=home,
                       OPENCODE_CONFIG_CONTENT=json.dumps(CONFIG), OPENCODE_DISABLE_MODELS_FETCH="1", OPENCODE_DISABLE_AUTOUPDATE="1")
    project = os.path.join(home, "project")
    os.makedirs(project, exist_ok=True)
    done = subprocess.run([PROGRAM, "run", "--format", "json", "--model", f"prefixd/{MODEL}", *arguments], env=environment, cwd=project,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    check("exit code", [done.returncode, done.stderr[-1000:] if done.returncode else ""], [0, ""])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def steps(events):
    """What each step called or said, with its usage in tokens: prompt, cached, completion."""
    found = []
    for event in events:
        part = event.get("part", {})
        if event["type"] == "tool_use":
            found.append([part["tool"], part["state"]["input"].get("command"), part["state"].get("output", "").strip()])
        elif event["type"] == "text":
            found.append(part["text"])
        elif event["type"] == "step_finish":
            tokens = part["tokens"]
            yield found, (tokens["input"] + tokens["cache"]["read"], tokens["cache"]["read"], tokens["output"])
            found = []


def main():
    with tempfile.TemporaryDirectory() as home:
        session = []
        for at, word in enumerate(("depot-4417", "harbor-8855")):
            events = run(home, *session, "Run:", "echo", word)
            # The program goes on in the same session, in a process of its own.
            session = ["--session", events[0]["sessionID"]]
            call, *rest = steps(events)
            turn(f"call {at + 1}", call[0], [["bash", f"echo {word}", word]], *call[1], opens=at == 0)
            for answer, usage in rest:
                turn(f"answer {at + 1}", answer, [f"Output: {word}"], *usage)
                check("99 % cached", usage if usage[1] < .99 * usage[0] else True, True)
            check("steps", 1 + len(rest), 2)


main()
