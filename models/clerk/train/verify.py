"""Check and score the exported directory under mlx-lm: `python3 verify.py [--tasks FILE] [--top 2048] [--kv 8,4]`.

First the tokenizer and the template: bytes round-trip, a rendering is a prefix of its continuation, calls render back to the
generated tokens, and template and trainer agree token for token. Then the tasks, greedily, with the model's own answers in the
history, and a table. `--kv 8,4` quantizes K and V of the global layers as they enter the cache.
"""
import argparse
import json
import pathlib
import random
import time
from collections import defaultdict

import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import KVCache, make_prompt_cache

from bpe import CALL, Codec
from tasks import TASKS, make

HERE = pathlib.Path(__file__).parent
MAX_NEW, CHUNK = 160, 512
SAMPLES = ["  two  spaces\n\n\tand tabs\r\n", "def f(x):\n    return x[0] + 1  # ok", "日本語のテキスト 한국어 中文", "naïve café Ω ≤ ∑ — “quotes”",
           "🎉👩‍👩‍👧‍👦 emoji", "\x00\x01\x7f\x85\u2028", "BX-42 13:05 12.50 {\"a\": [1, 2]}", " leading", "trailing \n"]


class CoarseCache(KVCache):
    """A KV cache whose entries are quantized once, on entry, and used as a server would read them back."""

    bits = 8, 4

    def update_and_fetch(self, keys, values):
        stored = []
        for x, bits in zip((keys, values), self.bits):
            q = mx.quantize(x.reshape(-1, x.shape[-1]), group_size=64, bits=bits)
            stored.append(mx.dequantize(*q, group_size=64, bits=bits).reshape(x.shape).astype(x.dtype))
        return super().update_and_fetch(*stored)


def load_tasks(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def messages_of(conversation, upto):
    """OpenAI messages before turn `upto` answers, with the expected answers in the history."""
    out = list(conversation["messages"])
    for i, t in enumerate(conversation["turns"][:upto + 1]):
        if "user" in t:
            out.append({"role": "user", "content": t["user"]})
        if i < upto:
            out += answered(t)
    return out


def answered(turn):
    e = turn["expect"]
    if "call" not in e:
        return [{"role": "assistant", "content": e["text"]}]
    call = {"id": "call_1", "type": "function", "function": {"name": e["call"]["name"], "arguments": json.dumps(e["call"]["arguments"], ensure_ascii=False)}}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1", "content": turn.get("tool", "")}]


def check_format(tokenizer, codec, tasks):
    hf = tokenizer._tokenizer
    r = random.Random(0)
    samples = SAMPLES + ["".join(chr(r.choice([r.randrange(32, 127), r.randrange(1, 0xD7FF), 10, 32])) for _ in range(200)) for _ in range(50)]
    for s in samples:
        ids = hf.encode(s, add_special_tokens=False)
        assert hf.decode(ids) == s and ids == codec.encode(s), s
    for c in tasks:
        tools, previous = c.get("tools"), None
        for i in range(len(c["turns"])):
            prompt = tokenizer.apply_chat_template(messages_of(c, i), tools=tools, add_generation_prompt=True, return_dict=False)
            assert previous is None or prompt[:len(previous)] == previous, c["id"]
            previous = prompt + codec.answer(c["turns"][i]["expect"]) + [7] + codec.newline
        whole = tokenizer.apply_chat_template(messages_of(c, len(c["turns"]) - 1) + answered(c["turns"][-1])[:1], tools=tools, return_dict=False)
        assert whole == codec.render(dict(c, turns=c["turns"][:-1] + [{k: v for k, v in c["turns"][-1].items() if k != "tool"}]))[0], c["id"]
    print(f"format: {len(samples)} samples and {len(tasks)} conversations agree")


def greedy(model, cache, ids, stop):
    """Feed `ids`, then decode until a stop token; the cache keeps everything but that token."""
    x = mx.array(ids)[None]
    while x.shape[1] > CHUNK:
        mx.eval(model(x[:, :CHUNK], cache=cache))
        x = x[:, CHUNK:]
    out = []
    token = mx.argmax(model(x, cache=cache)[0, -1]).item()
    while token not in stop and len(out) < MAX_NEW:
        out.append(token)
        token = mx.argmax(model(mx.array([[token]]), cache=cache)[0, -1]).item()
    return out, token in stop


def turn_passes(text, expect):
    if "text" in expect:
        return text.strip() == expect["text"]
    try:
        return json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0]) == expect["call"]
    except (IndexError, ValueError):
        return False


def play(model, tokenizer, codec, c, cache_of):
    """One conversation with the model's own answers in the history; `[(passed, ended)]` per turn."""
    cache, results, answers = cache_of(model), [], []
    for i, turn in enumerate(c["turns"]):
        prompt = tokenizer.apply_chat_template(messages_of(c, i), tools=c.get("tools"), add_generation_prompt=True, return_dict=False)
        # The rendering holds the expected answers; splice in what the model said.
        tail = prompt if i == 0 else prompt[len(rendered):]
        out, ended = greedy(model, cache, tail, {7, 2})
        text = codec_decode(tokenizer, out)
        results.append((turn_passes(text, turn["expect"]), ended and bool(out)))
        answers.append(text)
        rendered = prompt + codec.answer(turn["expect"])
        if not ended:
            results += [(False, False)] * (len(c["turns"]) - i - 1)
            break
        if "tool" in turn and CALL not in out:
            results += [(False, True)] * (len(c["turns"]) - i - 1)
            break
    return results, answers


def codec_decode(tokenizer, ids):
    return tokenizer._tokenizer.decode(ids, skip_special_tokens=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--model", default=str(HERE.parent))
    p.add_argument("--tasks", help="a JSONL file; otherwise tasks are generated")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--per-task", type=int, default=5)
    p.add_argument("--top", type=int, default=2048, help="largest bucket")
    p.add_argument("--kv", help="bits of K and V in the global layers, for example 8,4")
    p.add_argument("--show", action="store_true", help="print wrong answers")
    a = p.parse_args()
    model, tokenizer = load(a.model)
    codec = Codec(pathlib.Path(a.model) / "tokenizer.json")
    tasks = load_tasks(a.tasks) if a.tasks else [make(t, a.top, i, a.seed, codec) for t in TASKS if t != "agent" for i in range(a.per_task)]
    tasks = [t for t in tasks if t["bucket"] <= a.top]
    check_format(tokenizer, codec, tasks[:40])
    if a.kv:
        CoarseCache.bits = tuple(int(b) for b in a.kv.split(","))

    def cache_of(m):
        return [CoarseCache() if a.kv and type(c) is KVCache else c for c in make_prompt_cache(m)]

    sums, start = defaultdict(lambda: [0, 0, 0]), time.time()
    for t in tasks:
        results, answers = play(model, tokenizer, codec, t, cache_of)
        for i, (ok, ended) in enumerate(results):
            if t["task"] != "chat" or i:
                s = sums[t["task"], t["bucket"]]
                s[0] += ok
                s[1] += ended
                s[2] += 1
            if a.show and not ok and i < len(answers):
                print(t["id"], i, t["turns"][i].get("user", "")[-120:], "| expected", t["turns"][i]["expect"], "| got", repr(answers[i]))
    print(f"{'task':8} {'bucket':>6} {'turns':>6} {'exact':>7} {'ended':>7}   ({time.time() - start:.0f} s)")
    for (task, bucket), (ok, ended, n) in sums.items():
        print(f"{task:8} {bucket:6} {n:6} {100 * ok / n:6.1f}% {100 * ended / n:6.1f}%")


if __name__ == "__main__":
    main()
