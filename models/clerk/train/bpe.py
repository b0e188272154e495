"""Text to token ids without any package, fast enough to feed training: pieces are cached, so BPE runs once per piece.

`Codec` also renders a conversation exactly as the chat template does (the check in verify.py compares them), with one
loss weight per token: 1 where the assistant speaks, a little elsewhere.
"""
import json
import pathlib
import re

# A word, a digit, punctuation (each may carry one space), or white space. ASCII classes: every regex engine agrees.
PIECE = re.compile(r" ?[A-Za-z]+|[0-9]| ?[^ \t\n\rA-Za-z0-9]+|[ \t\n\r]+")
# A value in one line of JSON: what stands in quotes and is no key, a number, true, false or null.
VALUE = re.compile(r'(?<=[:\[,] )"((?:[^"\\]|\\.)*)"(?!:)|(?<=\[)"((?:[^"\\]|\\.)*)"|(?<=: )(-?[0-9.]+|true|false|null)')
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]
TEXT_MARKS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
PAD, BOS, EOS, SYSTEM, USER, ASSISTANT, TOOL, END = range(8)
CALL, CALL_END, RESPONSE, RESPONSE_END = range(8, 12)
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
TEXT_WEIGHT = .05


def byte_letters():
    """GPT-2's table: each byte as a printable character."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 256
    for b in range(256):
        table[b] = chr(b) if b in keep else chr(extra)
        extra += b not in keep
    return table


HERE = pathlib.Path(__file__).parent


def default_path():
    """A tokenizer newly trained here, until export.py moves it into the model directory; else the model's own."""
    new = HERE / "tokenizer.json"
    return new if new.exists() else HERE.parent / "tokenizer.json"


class Codec:
    def __init__(self, path=None):
        path = path or default_path()
        spec = json.loads(pathlib.Path(path).read_text())["model"]
        self.vocab = spec["vocab"]
        self.ranks = {tuple(m.split(" ")) if isinstance(m, str) else tuple(m): i for i, m in enumerate(spec["merges"])}
        self.letters, self.cache = byte_letters(), {}
        self.newline = self.encode("\n")

    def piece(self, piece):
        parts = [self.letters[b] for b in piece.encode()]
        while len(parts) > 1:
            best = min(range(len(parts) - 1), key=lambda i: self.ranks.get((parts[i], parts[i + 1]), 1 << 30))
            pair = parts[best], parts[best + 1]
            if pair not in self.ranks:
                break
            i, merged = 0, []
            while i < len(parts):
                if tuple(parts[i:i + 2]) == pair:
                    merged.append(pair[0] + pair[1])
                    i += 2
                else:
                    merged.append(parts[i])
                    i += 1
            parts = merged
        return [self.vocab[p] for p in parts]

    def encode(self, text):
        out, cache = [], self.cache
        for p in PIECE.findall(text):
            ids = cache.get(p)
            if ids is None:
                ids = self.piece(p)
                if len(cache) < 500_000:
                    cache[p] = ids
            out += ids
        return out

    def count(self, text):
        return len(self.encode(text))

    def answer(self, expect):
        """The assistant's tokens for one expected answer, without the end token."""
        if "call" in expect:
            c = expect["call"]
            body = f"\n{{\"name\": {dumps(c['name'])}, \"arguments\": {dumps(c['arguments'])}}}\n"
            return [CALL] + self.encode(body) + [CALL_END]
        return self.encode(expect["text"])

    def value_weights(self, text):
        """Weights of a JSON text whose keys nobody told: 1 for the pieces of values and for the mark that ends each, little elsewhere."""
        inside = [False] * (len(text) + 1)
        for m in VALUE.finditer(text):
            a, b = m.span(m.lastindex)
            inside[a:b + 1] = [True] * (b + 1 - a)
        out = []
        for p in PIECE.finditer(text):
            out += [1. if any(inside[p.start():p.end()]) else TEXT_WEIGHT] * len(self.encode(p.group()))
        return out

    def render(self, conversation):
        """`(ids, weights, spans)`: spans are the `(start, end)` of the answers, end tokens included."""
        ids, spans, hidden, nl = [BOS], [], {}, self.newline
        messages, tools = conversation["messages"], conversation.get("tools")
        system = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
        if system or tools:
            text = system
            if tools:
                text += ("\n\n" if system else "") + "# Tools" + "".join("\n" + dumps(t["function"]) for t in tools)
            ids += [SYSTEM] + self.encode(text) + [END] + nl
        for m in messages[1:] if system else messages:
            ids += [ROLES[m["role"]]] + self.encode(m["content"]) + [END] + nl
        for t in conversation["turns"]:
            if "user" in t:
                ids += [USER] + self.encode(t["user"]) + [END] + nl
            ids.append(ASSISTANT)
            start = len(ids)
            ids += self.answer(t["expect"]) + [END]
            spans.append((start, len(ids)))
            if t.get("hidden"):
                hidden[start] = self.value_weights(t["expect"]["text"])
            ids += nl
            if "tool" in t:
                ids += [TOOL, RESPONSE] + self.encode("\n" + t["tool"] + "\n") + [RESPONSE_END, END] + nl
        weights = [TEXT_WEIGHT] * len(ids)
        for a, b in spans:
            weights[a:b] = hidden[a] + [1.] if a in hidden else [1.] * (b - a)
        return ids, weights, spans


def dumps(x):
    return json.dumps(x, ensure_ascii=False)
