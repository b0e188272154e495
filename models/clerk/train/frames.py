"""Scenes composed from relations: several facts of one subject in a sentence or two, told by their verbs, by their nouns, or by nothing."""
import relations
from phrasings import cap
from words import pick

WEIGHTS = ["person"] * 9 + ["company"] * 4 + ["vehicle"] * 2 + ["animal"] * 2 + ["site", "site", "item", "event", "event", "service"]
# Kinds whose values tell by themselves what they are.
PLAIN = ("email", "phone", "url", "ip", "street", "path")
WHO = ("person", "animal")


def frame(r):
    """`(sentences, slots)` of one scene; a slot has its names, its kind and its questions."""
    family = pick(r, WEIGHTS)
    picked = r.sample(relations.RELATIONS[family], 2 + int(r.random() * 2.7))
    the = "the " if family in ("site", "item", "event") or family == "vehicle" and r.random() < .5 else ""
    who = the + "{subject}"
    he = pick(r, ("He", "She")) if family == "person" else pick(r, ("It", "It", "He", "She")) if family == "animal" else "It"
    own = {"He": "His", "She": "Her", "It": "Its"}[he]
    which = "who" if family in WHO else "which"
    slots = {"subject": (["name", "name", family, "subject", "who" if family in WHO else "title"], "subject:" + family, [])}
    verbs, nouns, kinds, others = [], [], [], []
    for i, x in enumerate(picked):
        key, n = f"r{i}", pick(r, x.nouns)
        slot = "{" + key + "}"
        phrase = pick(r, x.phrases).replace("{v}", slot)
        keys = [y.replace(" ", "_").replace("-", "_") for y in x.keys]
        slots[key] = (keys + [keys[0].split("_")[-1]] * (len(keys[0].split("_")) == 2), x.kind, [y.replace("{s}", who) for y in x.asks] + [f"What is the {n} of {who}?"])
        other, asks = pick(r, x.others) if x.others else ("", "")
        others.append(other.replace("{v}", slot).replace("{s}", who))
        verbs.append(phrase)
        nouns.append((n, slot))
        kinds.append(x.kind)
        if x.kind not in relations.FEW:
            w = "Who" if family in WHO else "Which company" if family == "company" else "What"
            slots["subject"][2].append(pick(r, ("{w} {p}?", "{w} is it that {p}?", "Tell me {w2} {p}.")).format(w=w, w2=w.lower(), p=phrase))
            if family in ("person", "company", "animal"):
                slots["subject"][2].append(pick(r, ("Whose {n} is {v}?", "Who has the {n} {v}?")).format(n=n, v=slot))
            if asks:
                slots["subject"][2].append(f"{pick(r, (dict(person='Whom', animal='Which animal').get(family, 'Which ' + family), 'Whom' if family == 'person' else 'What'))} {asks.replace('{v}', slot)}?")
    return [tell(r, who, he, own, which, verbs, nouns, kinds, others)], slots


def tell(r, who, he, own, which, verbs, nouns, kinds, others):
    S = cap(who)
    n0, v0 = nouns[0]
    rest = verbs[1:]
    k = r.random()
    told = [i for i, x in enumerate(others) if x]
    if told and r.random() < .45:
        return told_by_others(r, who, he, own, which, verbs, nouns, others, told)
    if k < .2:
        text = f"{S} {listed(verbs)}."
    elif k < .32:
        text = f"{S} {listed(verbs[:-1])}. {he} {verbs[-1]}."
    elif k < .44:
        text = f"{S}, {which} {verbs[0]}, {listed(rest)}."
    elif k < .52:
        text = f"With the {n0} {v0}, {who} {listed(rest)}."
    elif k < .6:
        inside = v0 if kinds[0] in PLAIN and r.random() < .6 else f"{n0} {v0}" if r.random() < .6 else f"{n0}: {v0}"
        text = f"{S} ({inside}) {listed(rest)}."
    elif k < .68:
        sep, between = pick(r, (", ", "; ", " | ", " - ")), pick(r, (" ", ": ", " = "))
        text = S + pick(r, (": ", " - ", ", ", " | ")) + sep.join(v if kind in PLAIN and r.random() < .5 else n + between + v for (n, v), kind in zip(nouns, kinds))
    elif k < .76:
        text = f"The {n0} of {who} is {v0}" + pick(r, (". {h} {v}.", "; {l} {v}.", ", and {l} {v}.")).format(h=he, l=he.lower(), v=listed(rest))
    elif k < .82:
        text = pick(r, ("It is {s} that {v}. {h} {w}.", "There is {s}, {x} {v} and {w}.", "Meet {s}: {l} {v}. {h} {w}.", "About {s}: {l} {v}, and {l} {w}.", "You know {s}, {x} {v}? {h} {w}.")).format(
            s=who, v=verbs[0], h=he, l=he.lower(), w=listed(rest), x=which)
    elif k < .88:
        text = f"{S} {verbs[0]}. " + " ".join(f"{own} {n} is {v}." for n, v in nouns[1:])
    elif k < .94:
        text = f"{S} {verbs[0]}" + "".join(pick(r, (", and {l} {v}", "; {l} {v}", " and also {v}", ". Besides, {l} {v}")).format(l=he.lower(), v=v) for v in rest) + "."
    else:
        text = "\n".join([S] + [f"{n[:1].upper()}{n[1:]}: {v}" for n, v in nouns])
    return text


def told_by_others(r, who, he, own, which, verbs, nouns, others, told):
    """One or two parts in sentences in which the subject comes last or between; the rest by verbs or nouns."""
    r.shuffle(told)
    told = told[:1 if r.random() < .6 else 2]
    rest = [x for i, x in enumerate(verbs) if i not in told]
    n, v = nouns[-1]
    text = others[told[0]]
    if len(told) > 1:
        text += pick(r, (" and {b}", ". {B}", ". {B}", "; {b}")).format(b=others[told[1]].replace(who, pick(r, (who, he.lower() if others[told[1]].startswith(who) else who))), B=cap(others[told[1]]))
    if rest and text.endswith(who) and r.random() < .5:
        text += f", {which} {listed(rest)}"
    elif rest:
        text += pick(r, (". {h} {v}", "; {l} {v}", ", and {l} {v}")).format(h=he, l=he.lower(), v=listed(rest))
    return cap(text) + pick(r, (".", ".", ".", "!"))


def listed(xs):
    return xs[0] if len(xs) == 1 else ", ".join(xs[:-1]) + " and " + xs[-1]
