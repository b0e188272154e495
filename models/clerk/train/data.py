"""Endless packed training rows: conversations of all kinds, cut to no more than the current length."""
import random

import torch

from bpe import Codec
from chat import conversation, echo, small_talk
from tools import agent, tool_task

ROW = 65536
CHARS_PER_TOKEN = 2.7


def roughly(text):
    return int(len(text) / CHARS_PER_TOKEN)


def draw(r, budget):
    """One conversation of at most about `budget` tokens."""
    k = r.random()
    if k < .05 or budget < 200:
        return small_talk(r) if r.random() < .5 else echo(r)
    if k < .19:
        return tool_task(r, min(budget, 4000), roughly, False)
    if k < .29 and budget > 700:
        return agent(r, budget, roughly, False)
    share = r.uniform(.08, .65)
    n = max(3, int(budget * share / 40))
    kind = "chat" if k < .5 else "mixed"
    return conversation(r, budget, roughly, r.random() < .65, False, kind, n)


def sizes(r, length):
    """Half of the tokens in conversations near the full length, the rest shorter."""
    return int(length * r.uniform(.75, 1.)) if r.random() < .35 else int(length * r.random() ** 1.5) + 120


def row(r, codec, length):
    """`(ids, weights, documents)`, each of `ROW + 1` entries."""
    ids, weights, docs, n = [], [], [], 0
    while len(ids) < ROW + 1:
        room = ROW + 1 - len(ids)
        i, w, _ = codec.render(draw(r, min(sizes(r, length), room)))
        if len(i) > length * 1.1 + 200:
            continue
        ids += i
        weights += w
        docs += [n] * len(i)
        n += 1
    return ids[:ROW + 1], weights[:ROW + 1], docs[:ROW + 1]


class Rows(torch.utils.data.IterableDataset):
    """Rows from one stream per worker; `length` may be changed by the trainer between batches through shared memory."""

    def __init__(self, seed, length):
        self.seed, self.length = seed, length

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        r, codec = random.Random(self.seed * 1000 + (info.id if info else 0)), Codec()
        while True:
            ids, weights, docs = row(r, codec, int(self.length.item()))
            yield torch.tensor(ids, dtype=torch.int32), torch.tensor(weights), torch.tensor(docs, dtype=torch.int32)
