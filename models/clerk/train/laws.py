"""Laws of the generator: `python3 laws.py`. What evaluation keeps is never trained on, answers stand in their texts, a seed decides everything."""
import random

import extract
import intents
import pairs
import qualified
import scenes
from bpe import Codec
from chat import conversation, told
from data import draw
from words import VOCAB


def kept_patterns():
    """No composed pattern has the words of one that is kept, and no denial those of a kept one."""
    r, held = random.Random(1), {pairs.bare(x) for x in qualified.HELD_OLD + qualified.HELD_OLD_TWO}
    for _ in range(40000):
        for kind in pairs.MAKERS:
            assert pairs.bare(pairs.pattern(r, kind, qualified.KEPT)) not in qualified.KEPT
        form = pairs.bare(pairs.denial(r)[0])
        assert form not in held and "no longer {o}" not in form and "in favor of" not in form, form
    assert not held & {pairs.bare(x) for x in qualified.TRAIN_OLD}


def kept_tools():
    """Tools that are kept share no name with those of training, and a kept request is never composed."""
    r, names = random.Random(2), {n for x in intents.POOL[True] for n in x.names}
    kept = {f.lower() for x in intents.POOL[True] for f in x.requests}
    for x in intents.TRAINING:
        assert not names & set(x.names), x.names
        own = {f.lower().rstrip(".?!") for f in intents.kept_forms(x)}
        for _ in range(200):
            form = intents.training_form(r, intents.Wanted(r, x, str)).lower()
            assert form.rstrip(".?!") not in own, (x.names, form)
            assert form not in kept or x.names[0] in ("read_file", "play_music"), (x.names, form)


def scenes_whole():
    """Every part of a scene is told once and fits its question; every value stands in the text."""
    r = random.Random(3)
    for _ in range(20000):
        s = scenes.invented(r)
        values = scenes.draw(r, s, VOCAB[False])
        text = scenes.tell(r, s, values)
        # An object that a noun phrase begins may be capitalized by its sentence.
        assert all(v.lower() in text.lower() for v in values.values()), (text, values)
        assert all(set(scenes.mentions(q)) <= set(values) and slot not in scenes.mentions(q) for slot, (_, _, qs) in s.slots.items() for q in qs), s.slots


def answers_stand():
    """A value that is asked for stands in the document, unless the answer is that it does not."""
    r = random.Random(4)
    for i in range(600):
        c = conversation(r, 1500, len, i % 2 == 0, False, "mixed", 6) if i % 3 else told(r, 1500, len, False)
        text = "\n".join(m["content"] for m in c["messages"]) + "\n" + "\n".join(t["user"] for t in c["turns"])
        for t in c["turns"] if c["messages"] and len(text) > 900 else []:
            said = t["expect"]["text"]
            assert said == "The notes do not say." or all(w in text.lower() for w in said.rstrip(".").lower().split(" ")), (said, t["user"])
    for _ in range(3000):
        c = extract.task(r, False, "scene")
        assert c["turns"][0]["expect"]["text"].startswith("{")


def seeded():
    codec = Codec()
    for k in range(40):
        one, two = (codec.render(draw(random.Random(k), 2000, (k + .5) / 40)) for _ in range(2))
        assert one == two, k


if __name__ == "__main__":
    for law in (kept_patterns, kept_tools, scenes_whole, answers_stand, seeded):
        law()
        print(law.__name__)
