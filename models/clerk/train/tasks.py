"""Evaluation tasks as JSONL: `python3 tasks.py --seed S --per-task N --max-tokens 16384 > tasks.jsonl`, or with `--small` the
forty conversations of ../tasks-small.jsonl.

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
from chat import conversation
from tools import agent, tool_task

BUCKETS = [2048, 4096, 8192, 16384]
TASKS = ["fact", "dense", "chat", "absent", "tool", "agent"]


def build(task, bucket, r, count):
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
        if task in ("fact", "dense"):
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


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--per-task", type=int, default=50, help="conversations per task and bucket")
    p.add_argument("--max-tokens", type=int, default=16384)
    p.add_argument("--small", action="store_true", help="a few of everything up to 4,096 tokens; overrides the counts")
    p.add_argument("--only", nargs="*", default=TASKS, choices=TASKS)
    a = p.parse_args()
    codec = Codec()
    wanted = small() if a.small else ((task, bucket, i) for task, bucket in plan(a.max_tokens, a.only) for i in range(a.per_task))
    for task, bucket, i in wanted:
        sys.stdout.write(json.dumps(make(task, bucket, i, a.seed, codec), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
