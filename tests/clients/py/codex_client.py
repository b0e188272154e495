"""codex, a coding agent that speaks /v1/responses: runs a command in each of two turns of one thread.

It wraps a command's output in lines that the embedded model never saw, so what it then says is not judged. It tells a thread's usage.
"""
import json
import os
import subprocess
import tempfile

from scenario import KEY, MODEL, base_url, check

PROGRAM = os.path.join(os.environ["CLIENT_PACKAGES"], "node_modules/.bin/codex")
PROVIDER = {"name": "prefixd", "base_url": base_url() + "/v1", "wire_api": "responses", "env_key": "CLIENT_KEY",
            "request_max_retries": 0, "stream_max_retries": 0}


def run(home, *arguments):
    """The events of one run."""
    settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in PROVIDER.items())
    options = ["--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--model", MODEL,
               "-c", "model_provider=prefixd", "-c", f"model_providers.prefixd={{{settings}}}"]
    project = os.path.join(home, "project")
    os.makedirs(project, exist_ok=True)
    done = subprocess.run([PROGRAM, "exec", *arguments[:-1], *options, arguments[-1]], cwd=project, stdin=subprocess.DEVNULL, capture_output=True,
                          env=dict(os.environ, HOME=home, CODEX_HOME=home, CLIENT_KEY=KEY), text=True, timeout=120)
    check("exit code", [done.returncode, (done.stdout + done.stderr)[-1000:] if done.returncode else ""], [0, ""])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main():
    with tempfile.TemporaryDirectory() as home:
        thread, before = [], [0, 0]
        for at, word in enumerate(("depot-4417", "depot-9020")):
            events = run(home, *thread, f"$ echo {word}")
            items = [event["item"] for event in events if event["type"] == "item.completed"]
            ran = [[item["exit_code"], item["aggregated_output"].strip()] for item in items if item["type"] == "command_execution"]
            check(f"command {at + 1}", ran, [[0, word]])
            check(f"messages {at + 1}", len([item for item in items if item["type"] == "agent_message"]), 1)
            # The program goes on in the same thread, in a process of its own.
            thread = ["resume", next(event["thread_id"] for event in events if event["type"] == "thread.started")]
            usage = next(event["usage"] for event in events if event["type"] == "turn.completed")
            prompt, cached = usage["input_tokens"] - before[0], usage["cached_input_tokens"] - before[1]
            before = [usage["input_tokens"], usage["cached_input_tokens"]]
            if at:
                check("99 % of the second turn's prompts are cached", [prompt, cached] if cached < .99 * prompt else True, True)


main()
