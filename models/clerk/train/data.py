"""Endless packed training rows: conversations of all kinds, cut to no more than the current length."""
import random

import torch

from bpe import Codec
import extract
from chat import conversation, echo, small_talk, told
from loops import loop
from own import own
from tools import agent, natural_task, schema_task, text_history, tool_task
import schemas

ROW = 65536
CHARS_PER_TOKEN = 2.7


def roughly(text):
    return int(len(text) / CHARS_PER_TOKEN)


# Below this share of the draws are kinds that stay short however long a conversation may be.
SHORT = .47


def draw(r, budget, k):
    """One conversation of at most about `budget` tokens; `k` from 0 to 1 picks its kind."""
    if k < .02:
        return small_talk(r, wide=True)
    if k < .05:
        return own(r, False)
    if k < .063 or budget < 200:
        return echo(r) if r.random() < .6 else extract.task(r, False)
    if k < .115:
        return tool_task(r, min(budget, 2500), roughly, False)
    if k < .225:
        return natural_task(r, min(budget, 2500), roughly, False)
    if k < .285:
        return loop(r, False)
    if k < .325:
        return schema_task(r, roughly, False, schemas.STYLES)
    if k < .345:
        return text_history(r, False)
    if k < SHORT:
        return extract.task(r, False) if r.random() < .8 else extract.from_document(r, min(budget, 3000), roughly, False)
    if k < .49:
        return tool_task(r, min(budget, 4000), roughly, False) if r.random() < .5 else natural_task(r, min(budget, 4000), roughly, False)
    if k < .575 and budget > 700:
        return agent(r, budget, roughly, False)
    if k < .66:
        return told(r, min(budget, 6000), roughly, False)
    share = r.uniform(.08, .65)
    n = max(3, int(budget * share / 40))
    kind = "chat" if k < .775 else "mixed"
    return conversation(r, budget, roughly, r.random() < .65, False, kind, n)


def sizes(r, length):
    """Half of the tokens in conversations near the full length, the rest shorter."""
    return int(length * r.uniform(.75, 1.)) if r.random() < .35 else int(length * r.random() ** 1.5) + 120


def row(r, codec, length):
    """`(ids, weights, documents)`, each of `ROW + 1` entries."""
    ids, weights, docs, n = [], [], [], 0
    while len(ids) < ROW + 1:
        k = r.random()
        # Long conversations fill more of a row; short kinds come several at a time to keep their share.
        for _ in range(1 + length // 6000 if k < SHORT else 1):
            room = ROW + 1 - len(ids)
            i, w, _ = codec.render(draw(r, min(sizes(r, length), room), k))
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
