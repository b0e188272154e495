"""Evaluation tasks as JSONL: `python3 tasks.py --seed S --per-task N --max-tokens 16384 > tasks.jsonl`, or with `--small` the
conversations of ../tasks-small.jsonl, or with `--structures` structures that training never shows.

One conversation a line: {"id", "task", "bucket", "tokens", "tools"?, "messages", "turns"}. `messages` come first. A turn:
{"user"?, "expect": {"text"} or {"call": {"name", "arguments"}}, "tool"?}. It passes when the stripped answer equals
`text`, or when the first tool call equals `call` (arguments compared as JSON). `tool` is the call's result, appended as a
tool message; a turn without `user` continues after it. `tokens` counts the rendered conversation with its answers.
Everything comes from the held-out side: names, phrasings, tools and, for `dense`, layouts that training never shows.
"""
import argparse
import json
import random
import sys

from bpe import Codec
import extract
import qualified
import scenes
import schemas
from chat import conversation, say, small_talk, told, unarmed
from loops import KINDS, loop
from manners import ONLY
from own import own
from tools import agent, natural_task, schema_task, text_history, tool_task
from words import pick

BUCKETS = [2048, 4096, 8192, 16384]
TASKS = ["fact", "dense", "chat", "absent", "tool", "agent"]

# Structures that training never shows: kinds of qualifiers at a position, forms, patterns of two facts.
KEPT = [f"{k}-{n}" for k, n in sorted(qualified.HELD_PAIRS)] + ["form", "old", "old-two"] + sorted(qualified.PAIRS)
# Structures that it does show, for comparison.
SHOWN = ["place-2", "place-4", "time-2", "purpose-4"]
STRUCTURES = {f"text-{x}": [1024, 2048, 4096] for x in KEPT} | {f"seen-{x}": [2048, 4096] for x in SHOWN} | {"scene": [1024, 4096]} | \
    {x: [2048] for x in ("natural", "natural-new")} | {f"schema-{x}": [2048] for x in schemas.BY_NAME} | \
    {f"{a}-{b}": [1024] for a in ("json", "fields") for b in ("scene", "list", "facts", "wide")} | {"manners": [1024], "wrapped": [4096], "history": [2048]} | \
    {"seen-scene": [1024, 4096], "hasty": [2048], "own": [1024], "unarmed": [1024]} | {f"loop-{x}": [2048] for x in KINDS}


def structured(task, bucket, r, count):
    kind, _, rest = task.partition("-")
    if task == "seen-scene":
        return told(r, bucket, count, True, made=True)
    if task == "hasty":
        c = conversation(r, bucket, count, r.random() < .3, True, "fact", 2)
        return dict(c, turns=[dict(t, user=t["user"].lower().rstrip("?.!")) for t in c["turns"]]) if c["messages"] else c
    if kind == "loop":
        return loop(r, True, rest)
    if task == "own":
        return own(r, True)
    if task == "unarmed":
        return {"messages": [], "turns": [say(unarmed(r, True), ONLY)]}
    if kind in ("text", "seen"):
        return conversation(r, bucket, count, r.random() < .3, True, "fact", 2, structure=rest)
    if kind == "scene":
        return told(r, bucket, count, True, pick(r, scenes.POOL[True]))
    if kind == "natural":
        return natural_task(r, bucket, count, True, whole=rest == "new", own=False, turns_wanted=1)
    if kind == "schema":
        styles = schemas.BY_NAME[rest]
        return schema_task(r, count, True, styles) if r.random() < .5 else natural_task(r, 600, count, True, style_of=styles, turns_wanted=1)
    if kind in ("json", "fields"):
        return extract.task(r, True, rest, hidden=kind == "fields")
    if kind == "manners":
        return small_talk(r, True, 1)
    return agent(r, bucket, count, True, wrapped=True) if kind == "wrapped" else text_history(r, True)


def build(task, bucket, r, count):
    if task in STRUCTURES:
        return structured(task, bucket, r, count)
    if task == "fact":
        return conversation(r, bucket, count, False, True, "fact", 2, unseen_layouts=r.random() < .3)
    if task == "dense":
        return conversation(r, bucket, count, True, True, "fact", 2, unseen_layouts=True, kinds=["person"])
    if task == "chat":
        return conversation(r, bucket, count, r.random() < .5, True, "chat", 6, unseen_layouts=r.random() < .3)
    if task == "absent":
        return conversation(r, bucket, count, r.random() < .5, True, "absent", 2, unseen_layouts=r.random() < .3)
    if task == "tool":
        return tool_task(r, bucket, count, True)
    return agent(r, bucket, count, True, ten=True)


def near(task, bucket, n):
    """Whether `n` tokens belong to the bucket: not above it, and close below it where the text can fill it."""
    if task in STRUCTURES:
        return (.7 if task[:5] in ("text-", "seen-", "scene") else 0) * bucket <= n <= bucket
    low = .85 if task in ("fact", "dense", "absent", "agent") else .5 if task == "chat" else .1
    return low * bucket <= n <= bucket


def make(task, bucket, number, seed, codec):
    r = random.Random(f"{seed}-{task}-{bucket}-{number}")
    while True:
        c = build(task, bucket, r, codec.count)
        n = len(codec.render(c)[0])
        if near(task, bucket, n):
            return dict({"id": f"{task}-{bucket}-{number:04d}", "task": task, "bucket": bucket, "tokens": n}, **c)


def plan(top, tasks=TASKS):
    """Which task runs in which bucket."""
    for task in tasks:
        if task in STRUCTURES:
            buckets = STRUCTURES[task]
        elif task in ("fact", "dense"):
            buckets = BUCKETS
        elif task == "agent":
            buckets = [12288]
        else:
            buckets = [2048, 4096]
        yield from ((task, min(b, top)) for b in buckets if b <= top or task == "agent")


def small():
    """Every task in short prompts: `(task, bucket, number)`."""
    for task in TASKS:
        for bucket, count in ((1024, 3), (2048, 3), (4096, 1)):
            yield from ((task, bucket, n) for n in range(count) if task != "agent" or bucket > 1024)
    # Keys that only an enforced schema tells are nothing to ask a client for.
    yield from ((task, buckets[0], 0) for task, buckets in STRUCTURES.items() if not task.startswith("fields-"))


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--per-task", type=int, default=50, help="conversations per task and bucket")
    p.add_argument("--max-tokens", type=int, default=16384)
    p.add_argument("--small", action="store_true", help="a few of everything up to 4,096 tokens; overrides the counts")
    p.add_argument("--only", nargs="*", default=TASKS, choices=TASKS + list(STRUCTURES))
    p.add_argument("--structures", action="store_true", help="the structures that training never shows, and those of tools and JSON")
    a = p.parse_args()
    codec = Codec()
    wanted = small() if a.small else ((task, bucket, i) for task, bucket in plan(a.max_tokens, STRUCTURES if a.structures else a.only) for i in range(a.per_task))
    for task, bucket, i in wanted:
        sys.stdout.write(json.dumps(make(task, bucket, i, a.seed, codec), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
