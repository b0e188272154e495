"""aiperf, a load generator: four conversations of three turns over one shared system prompt, two at a time, on both chat protocols.

Its texts are random, so what is judged is usage: every answer has the length asked for, every later turn finds the prompt before it,
every later conversation the shared blocks. (Random answers read as other tokens than were sampled, so only prompts are sure to be found.)
"""
import json
import os
import subprocess
import sys
import tempfile

from scenario import MODEL, base_url, check, turn

CONVERSATIONS, TURNS, SHARED, ANSWER = 4, 3, 600, 16
CLERK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../models/clerk")
LOAD = {
    "--concurrency": 2, "--conversation-num": CONVERSATIONS, "--conversation-turn-mean": TURNS, "--conversation-turn-stddev": 0,
    "--shared-system-prompt-length": SHARED, "--synthetic-input-tokens-mean": 40, "--output-tokens-mean": ANSWER, "--random-seed": 7,
    "--request-timeout-seconds": 60, "--workers-max": 1, "--ui": "none",
}


def run(folder, protocol):
    """What it wrote about every request, in the order of their ends."""
    artifacts = os.path.join(folder, protocol)
    command = [sys.executable, "-m", "aiperf", "profile", "--model", MODEL, "--url", base_url(), "--endpoint-type", protocol, "--streaming",
               "--tokenizer", os.path.abspath(CLERK), "--artifact-dir", artifacts, "--no-gpu-telemetry", "--no-server-metrics",
               "--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0"]
    command += [str(word) for option in LOAD.items() for word in option]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    check("exit code", [done.returncode, (done.stdout + done.stderr)[-2000:] if done.returncode else ""], [0, ""])
    with open(os.path.join(artifacts, "profile_export.jsonl")) as file:
        return [json.loads(line) for line in file]


def main():
    with tempfile.TemporaryDirectory() as folder:
        for protocol in ("chat", "messages"):
            records = run(folder, protocol)
            check("requests", len(records), CONVERSATIONS * TURNS)
            place = lambda record: (record["metadata"]["x_correlation_id"], record["metadata"]["turn_index"])
            found = []
            for record in sorted(records, key=place):
                check("error", record.get("error"), None)
                conversation, nth = place(record)
                said = lambda name: record["metrics"][f"usage_{name}_tokens"]["value"]
                cached = said("prompt_cache_read")
                turn(f"{protocol} {conversation[:6]} turn {nth + 1}", said("completion"), ANSWER, said("prompt"), cached, 0, opens=nth == 0)
                found.append(cached >= SHARED // 256 * 256)
            # Two begin at once, and whichever comes first computes them.
            check("all but one find the shared blocks", found.count(False) <= 1, True)


main()
