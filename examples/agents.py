"""Agents with contexts of their own take turns over one server: each turn costs only its new tokens.

    pip install openai==3.52.0
    python examples/agents.py [http://127.0.0.1:8000]

Three workers read a context of their own, phase by phase, interleaved. A coordinator's prompt grows by what they found.
Every request names its session, so the server knows the agents by name; at the end it is asked what it knows of them.
The script fails if a turn computed more than what was new in it.
"""

import json
import sys
import time
import urllib.request

from openai import OpenAI

# The end of a sequence that is shorter than this is cheaper to compute again than to keep.
SHORTEST_TAIL = 16
PLACES = ["depot", "office", "harbour", "tower", "garden", "station"]


def context(worker: str, number: int) -> str:
    """Notes that only this worker has."""
    lines = [f"You answer from the notes of {worker}."]
    for room in range(40):
        place = PLACES[(room + number) % len(PLACES)]
        lines.append(f"The door code of the {place} in hall {room} of {worker} is {1000 + 97 * room + number}.")
    return "\n".join(lines)


class Agent:
    """A conversation that grows, and what it may cost."""

    def __init__(self, client: OpenAI, name: str, system: str) -> None:
        self.client, self.name = client, name
        self.messages = [{"role": "system", "content": system}]
        self.known = 0

    def turn(self, phase: str, text: str) -> dict:
        self.messages.append({"role": "user", "content": text})
        began = time.perf_counter()
        response = self.client.chat.completions.create(
            model="default",
            messages=self.messages,
            temperature=0,
            max_tokens=24,
            extra_headers={"X-Session-ID": self.name},
        )
        milliseconds = 1000 * (time.perf_counter() - began)
        answer = response.choices[0].message.content
        self.messages.append({"role": "assistant", "content": answer})
        usage = response.usage
        row = {
            "agent": self.name,
            "phase": phase,
            "prompt": usage.prompt_tokens,
            "cached": usage.prompt_tokens_details.cached_tokens,
            "new": usage.prompt_tokens - self.known,
            "computed": usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens,
            "ms": round(milliseconds),
        }
        # All that the turn before left, but for the answer's last token and a tail too short to keep.
        assert row["computed"] <= row["new"] + SHORTEST_TAIL, row
        self.known = usage.total_tokens
        return row


def main(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    run = f"{time.time():.0f}"
    workers = [Agent(client, f"{name}-{run}", context(f"{name} {run}", number)) for number, name in enumerate(["ada", "ben", "cy"])]
    coordinator = Agent(client, f"coordinator-{run}", context(f"the coordinator {run}", 9))
    rows = []
    for phase, place in enumerate(PLACES[:3]):
        found = []
        for worker in workers:
            question = f"What is the door code of the {place} in hall {phase}?"
            rows.append(worker.turn(f"{phase + 1} ask", question))
            found.append(f"{worker.name} says: {worker.messages[-1]['content']}")
        # The coordinator's prompt of this phase begins with the whole of the one before.
        rows.append(coordinator.turn(f"{phase + 1} collect", "\n".join(found)))
    for worker in workers:
        rows.append(worker.turn("4 review", coordinator.messages[-1]["content"] or "Nothing."))

    names = list(rows[0])
    widths = [max(len(name), *(len(str(row[name])) for row in rows)) for name in names]
    for line in [dict(zip(names, names)), *rows]:
        print("  ".join(str(line[name]).rjust(width) for name, width in zip(names, widths)))
    first = {row["agent"]: row for row in reversed(rows)}
    later = [row for row in rows if row is not first[row["agent"]]]
    cold = sum(row["prompt"] for row in later)
    computed = sum(row["computed"] for row in later)
    print(f"\nafter each agent's first turn: {computed} of {cold} prompt tokens computed")
    with urllib.request.urlopen(f"{url}/v1/agents/list") as response:
        known = {agent["agent_id"]: agent for agent in json.load(response)["agents"]}
    for agent in [*workers, coordinator]:
        state = known[f"oai_{agent.name}"]
        turns = sum(row["agent"] == agent.name for row in rows)
        assert (state["turns"], state["tokens"]) == (turns, agent.known), state
        print(f"{state['agent_id']}: {state['turns']} turns, {state['tokens']} tokens in {state['blocks']} blocks")


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8000")
