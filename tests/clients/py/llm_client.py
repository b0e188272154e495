"""The `llm` command: a chat continued over three calls of the program, with the usage that `-u` prints."""
import os
import re
import subprocess
import sys
import tempfile

from scenario import CHAT, KEY, MODEL, SYSTEM, base_url, check, turn

MODELS = f"""
- model_id: served
  model_name: {MODEL}
  api_base: {base_url()}/v1
  api_key_name: served
"""


def ask(home, at, step, *options):
    command = [sys.executable, "-m", "llm", "-m", "served", "-u", "-o", "temperature", "0", "-o", "max_tokens", "64", "--key", KEY, *options]
    command += ["-s", SYSTEM] if at == 0 else ["-c"]
    done = subprocess.run([*command, step["user"]], env=dict(os.environ, LLM_USER_PATH=home), capture_output=True, text=True, timeout=60)
    check("exit code", [done.returncode, done.stderr if done.returncode else ""], [0, ""])
    return done.stdout.strip(), done.stderr


def main():
    with tempfile.TemporaryDirectory() as home:
        with open(os.path.join(home, "extra-openai-models.yaml"), "w") as file:
            file.write(MODELS)
        for name, options in (("streamed", []), ("whole", ["--no-stream"])):
            for at, step in enumerate(CHAT):
                text, said = ask(home, at, step, *options)
                print(said, file=sys.stderr)
                usage = re.search(r"([\d,]+) input, ([\d,]+) output(.*)", said)
                cached = re.search(r'"cached_tokens": (\d+)', usage[3])
                number = lambda digits: int(digits.replace(",", ""))
                turn(f"{name} chat {at + 1}", text, step["answer"], number(usage[1]), int(cached[1]) if cached else 0, number(usage[2]),
                     opens=at == 0)


main()
