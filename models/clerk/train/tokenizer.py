"""Train the tokenizer: `python3 tokenizer.py` writes tokenizer.json here; export.py moves it beside the weights. Needs the `tokenizers` package; seeded.

Byte-level BPE of 4,096 pieces. A leading space is merged last, on purpose: " Baru" is the pieces of "Baru" with the first
one spaced, so a name has one spelling wherever it stands and copying it is a copy of pieces. Digits stand alone.
"""
import json
import pathlib
import random
from collections import Counter

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from bpe import PIECE, SPECIAL, TEXT_MARKS
from chat import conversation
from tools import agent, tool_task

HERE = pathlib.Path(__file__).parent
SIZE, SPACED, SEED = 4096, 1350, 7


def corpus():
    """Text of every kind of conversation, and ordinary English counted more often than it occurs."""
    r = random.Random(SEED)
    for i in range(1200):
        kind = (lambda: conversation(r, 1500, len, i % 2 == 0, False, pick_kind(i), 8), lambda: tool_task(r, 1500, len, False),
                lambda: agent(r, 6000, len, False))[i % 3]
        c = kind()
        for m in c["messages"]:
            yield 1, m["content"]
        for t in c.get("tools", []):
            yield 1, json.dumps(t["function"])
        for t in c["turns"]:
            yield 1, t.get("user", "") + "\n" + json.dumps(t["expect"])
    yield 12, (HERE / "english.txt").read_text()


def pick_kind(i):
    return ("fact", "chat", "mixed")[i % 7 % 3]


def main():
    counts = Counter()
    for weight, text in corpus():
        for piece in PIECE.findall(text):
            counts[piece] += weight
    bare = Counter()
    for piece, n in counts.items():
        # Codes would spend merges on random letters.
        if not (piece.strip().isupper() and len(piece.strip()) > 1 and n < 60):
            bare[piece.lstrip(" ") or piece] += n
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECE.pattern), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator((p for p, n in bare.items() for _ in range(min(n, 400))), trainers.BpeTrainer(
        vocab_size=SIZE - SPACED, special_tokens=SPECIAL + TEXT_MARKS, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=16))
    firsts = Counter()
    for piece, n in counts.items():
        if piece[0] == " " and piece.strip():
            firsts[t.encode(piece[1:], add_special_tokens=False).tokens[0]] += n
    spec = json.loads(t.to_str())
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    for first, _ in firsts.most_common():
        if len(vocab) == SIZE:
            break
        if "Ġ" + first not in vocab:
            vocab["Ġ" + first] = len(vocab)
            merges.append(["Ġ", first])
    for added in spec["added_tokens"]:
        added["special"] = added["content"] in SPECIAL
    spec["model"]["merges"] = [" ".join(m) for m in merges]
    (HERE / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")))
    print(len(vocab), "pieces")


if __name__ == "__main__":
    main()
