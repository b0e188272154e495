"""Claude Code, a coding agent that speaks /v1/messages: two turns of one conversation, each in a process of its own.

Its prompts hold two dozen tools and 28,000 tokens, so the embedded model has no use for them: what it says is not judged, how much of the
prompt was found is. It tells a turn's usage.
"""
import glob
import json
import os
import subprocess
import tempfile

from scenario import KEY, MODEL, base_url, check

# The program itself: npm may refuse to run the script that would put it into node_modules/.bin.
[PROGRAM] = glob.glob(os.path.join(os.environ["CLIENT_PACKAGES"], "node_modules/@anthropic-ai/claude-code-*/claude"))
SERVED = {"ANTHROPIC_BASE_URL": base_url(), "ANTHROPIC_AUTH_TOKEN": KEY, "ANTHROPIC_MODEL": MODEL, "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODEL,
          "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def run(home, *arguments):
    """What one run says of itself."""
    project = os.path.join(home, "project")
    os.makedirs(project, exist_ok=True)
    done = subprocess.run([PROGRAM, "--output-format", "json", "--print", *arguments], env=dict(os.environ, HOME=home, **SERVED), cwd=project,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)
    check("exit code", [done.returncode, (done.stdout + done.stderr)[-1000:] if done.returncode else ""], [0, ""])
    return json.loads(done.stdout)


def main():
    with tempfile.TemporaryDirectory() as home:
        for at, (arguments, text) in enumerate([((), "Who are you?"), (("--continue",), "Who wrote the letter?")]):
            said = run(home, *arguments, text)
            check(f"turn {at + 1} is no error", said["is_error"], False)
            check(f"turn {at + 1} says something", bool(said["result"].strip()), True)
            usage = said["usage"]
            cached = usage["cache_read_input_tokens"]
            prompt = usage["input_tokens"] + usage["cache_creation_input_tokens"] + cached
            if at:
                check("99 % of the second turn's prompt is cached", [prompt, cached] if cached < .99 * prompt else True, True)


main()
