"""How facts are written down: sentences, lists, tables, JSON, YAML, INI, dialogue, code.

`section(world, held)` states some facts and returns their text. Line forms and block forms are split like every pool:
evaluation on dense documents uses only forms that training never shows.
"""
import json

import qualified
from phrasings import cap
from words import GOODS, MONTHS, SERVICE_A, STEPS, TOPICS, VERBS, any_word, made_up, phrase, pick, sentence, split
from values import code, number

# {s} subject in a sentence, {S} the same capitalized, {b} its bare name, {a} attribute, {A} capitalized, {v} value.
LINES = """The {a} of {s} is {v}.
The {a} for {s} is {v}.
{S} has the {a} {v}.
{A} of {s}: {v}
{b}: {a} {v}
{b} -> {a}: {v}
{S} has {a} {v}.
{A} for {s}: {v}
{b} - {a}: {v}
{v} is the {a} of {s}.
For {s}, the {a} is {v}.
{b}, {a}: {v}
{S} was given the {a} {v}.
{S} uses {v} as {a}.
{a} ({b}): {v}
{b} ({a}): {v}
Note that the {a} of {s} is {v}.
As for {s}, write down {v} as the {a}.
| {b} | {a} | {v} |
{a} | {b} | {v}
Set the {a} of {s} to {v}.
{S}: the {a} is {v}.
The {a} that belongs to {s} is {v}.
{v}: {a} of {b}
"{b}": {{"{a}": "{v}"}}
{{"name": "{b}", "{a}": "{v}"}}
Q: What is the {a} of {s}? A: {v}.
We use the {a} {v} for {s}.
If somebody asks for the {a} of {s}, say {v}.
[{b}] {a}: {v}
{b} / {a} = {v}
{a}[{b}] = {v}
{A}: {v} ({b})
{S}, whose {a} is {v}, is on the list.
It was agreed that {s} gets the {a} {v}.
{b}; {a}; {v}
{b}.{a} = {v}
{b} => {a}: {v}
{{"key": "{b}", "field": "{a}", "value": "{v}"}}
In the case of {s} the {a} reads {v}.
{a} of {b} = {v}
The register lists {v} as {a} of {s}.
# {b}: {a} = {v}
Anyone who needs the {a} of {s} should take {v}.
Ask for {s} and you get the {a} {v}.
{S} keeps the {a} {v}.
{A}, {b}: {v}
{S} goes with {a} {v}.""".split("\n")
OWN = ["I have {a} {v}.", "My {a} is {v}.", "Please note my {a}: {v}.", "{v} is my {a}."]
BULLETS = ["", "", "- ", "* ", "+ "]
HEADS = """Directory|Notes|Overview|Current values|Register|Entries|Reference|Data|Details|List|Summary|Records|From the log|Facts
Handover|Table|Inventory|Appendix""".replace("\n", "|").split("|")



def write(r, form, fact):
    (bare, the), a, v = fact
    name = a["names"][0] if len(a["names"]) == 1 or r.random() < .7 else pick(r, a["names"])
    return form.format(s=the, S=cap(the), b=bare, a=name, A=cap(name), v=v)


JOINTS = [": ", " - ", " = ", ", ", " | ", "; ", " -> ", " / ", " => ", " :: ", ". ", " (", " ~ ", "\t", " > ", ">", "<", "=\"", " is ", " has ", " with "]


def free_form(r):
    """A line form that nobody wrote: the three parts in any order between marks or random words."""
    def joint():
        return pick(r, JOINTS) if r.random() < .6 else f" {phrase(r)} "
    parts = ["{a}" if r.random() < .8 else "{A}", "{v}", pick(r, ("{s}", "{b}", "{b}", '"{b}"'))]
    r.shuffle(parts)
    head = "" if r.random() < .5 else phrase(r, 4) + " " if r.random() < .7 else pick(r, ("> ", "# ", "| ", "[", "* ", "~ ", "@", "<", "<"))
    tail = pick(r, (".", "", "", ";", " |", ",", "]", " " + phrase(r)))
    return head + parts[0] + joint() + parts[1] + joint() + parts[2] + tail


def lines(w, held):
    """Facts one by one, in one form or in many."""
    r = w.r
    forms = split(LINES, held)
    facts = w.scattered(4 + int(r.random() * 16))
    one = pick(r, forms) if r.random() < .6 else None
    if not held and r.random() < .4:
        forms = [free_form(r) for _ in range(1 + int(r.random() * 4))]
        one = forms[0] if r.random() < .5 else None
    out = []
    for f in facts:
        if not one and f[1]["says"] and r.random() < .3:
            out.append(cap(write(r, pick(r, f[1]["says"]), f)))
        else:
            out.append(write(r, one or pick(r, forms), f))
    bullet = pick(r, BULLETS)
    if r.random() < .2:
        return "\n".join(f"{i + 1}. {x}" for i, x in enumerate(out))
    if not bullet and r.random() < .4 and all(x[-1] == "." for x in out):
        return " ".join(out)
    return "\n".join(bullet + x for x in out)


def tellings(w, held, structure=None):
    """Facts in sentences that say more than one fact needs; `structure` names one that is kept for evaluation."""
    r, out = w.r, []
    n = 3 + int(r.random() * 9)
    double = structure in qualified.PAIRS or structure is None and r.random() < (.45 if w.held else .58)
    while len(out) < n and double:
        kind = structure or pick(r, ("same-subject", "same-subject", "same-attribute", "same-attribute", "nothing-shared", "nothing-shared", "joined"))
        pattern = pick(r, qualified.CONNECT) if kind == "joined" else qualified.pattern_of(r, kind, structure is not None)
        facts = pair(w, kind, 3 if "{v3}" in pattern else 2)
        if not facts:
            n -= .2
            continue
        names = [named(r, f[1]) for f in facts]
        if kind == "joined":
            parts = [write(r, pick(r, LINES[:1] + LINES[2:3] + SENTENCES), f) for f in facts]
            out.append(parts[0].rstrip(".") + pattern + qualified.lower(parts[1]))
        else:
            out.append(cap(qualified.together(r, facts, names, pattern)))
    kind = pick(r, w.families)
    while len(out) < n:
        s, a = w.subject(kind), w.attribute(kind)
        facts = apart_by_place(w, s, a) if structure is None and r.random() < .12 else []
        if facts:
            out += facts
            continue
        f = w.state(s, a)
        if not f:
            n -= .2
            continue
        text, q, old = qualified.qualified(r, f, named(r, a), structure is not None, structure, w.vocab)
        if old and r.random() < .5:
            w.stated[s[0], "former " + a["key"]] = s, former(a), old
        if q and r.random() < .5 and not a["key"].startswith("step"):
            asks = [f"What is the {{a}} of {{s}} {q}?", f"{cap(q)}, what is the {{a}} of {{s}}?", f"Which {{a}} does {{s}} have {q}?", f"Tell me the {{a}} of {{s}} {q}.", f"{{b}} {q}: {{a}}?"]
            w.stated[s[0], a["key"]] = f[0], dict(a, asks=a["asks"] + asks), f[2]
        if a["says"] and structure is None and r.random() < .25 and (w.held or not q and not old):
            text = cap(write(r, pick(r, a["says"]), f)).rstrip(".") + f" {qualified.KINDS[pick(r, ('place', 'time', 'purpose', 'any'))](r, w.vocab)}."
        out.append(text)
    bullet = pick(r, BULLETS)
    if r.random() < .5:
        # In one paragraph every sentence has its end, or a value would run into the next one.
        return " ".join(out) if w.held else "\n".join(out) if any("\n" in x for x in out) else " ".join(x if x[-1] in ".!?" else x + "." for x in out)
    return "\n".join(bullet + x for x in out)


def former(a):
    """The attribute that an old value answers."""
    n = a["names"][0]
    return {"key": "former " + n, "names": ["former " + n, "previous " + n], "draw": None, "says": [],
            "asks": [f"What was the {n} of {{s}} before?", f"Which {n} did {{s}} have before?", f"What did the {n} of {{s}} use to be?", f"What was the {n} of {{s}} in the past?", f"Which {n} of {{s}} holds no more?"]}


SENTENCES = ["The {a} for {s} is {v}.", "{S} was given the {a} {v}.", "{S} uses {v} as {a}.", "{v} is the {a} of {s}."]


def named(r, a):
    return a["names"][0] if len(a["names"]) == 1 or r.random() < .7 else pick(r, a["names"])


def pair(w, kind, n):
    """New facts for one sentence: of one subject, of one attribute, or of neither."""
    r = w.r
    family = pick(r, w.families)
    subjects = w.subjects(family, 1) * n if kind == "same-subject" else w.subjects(family, n)
    attributes = w.attributes(family, 1) * n if kind == "same-attribute" else w.attributes(family, n)
    if len(subjects) < n or len(attributes) < n or any((s[0], a["key"]) in w.stated for s, a in zip(subjects, attributes)):
        return None
    facts = [w.state(s, a) for s, a in zip(subjects, attributes)]
    return facts if all(facts) else None


APART = [("{S} {q} has the {a} {v}.", "{S} {q}"), ("The {a} of {s} {q} is {v}.", ""), ("{Q}, the {a} of {s} is {v}.", ""), ("{A} of {s} {q}: {v}", ""), ("{b} ({q}): {a} {v}", ""), ("The {a} of {s} is {v} {q}.", "")]


def apart_by_place(w, s, a):
    """One attribute of one subject in two places: only the qualifier tells the values apart, and every question names it."""
    r = w.r
    if (s[0], a["key"]) in w.stated:
        return []
    out, form = [], pick(r, APART)[0]
    draw = qualified.KINDS[pick(r, ("place", "place", "purpose"))]
    qs = {draw(r, w.vocab) for _ in range(2)}
    if len(qs) < 2 or not a["draw"]:
        return []
    for q in sorted(qs):
        f = w.state((f"{s[0]} {q}", f"{s[1]} {q}"), a)
        if f:
            n = named(r, a)
            out.append(form.format(s=s[1], S=cap(s[1]), b=s[0], q=q, Q=cap(q), a=n, A=cap(n), v=f[2]))
    w.closed.add((s[0], a["key"]))
    return out


def grid(w, held):
    """Records as a table, a list of blocks, JSON, YAML or INI; a table stays inside the attention window."""
    r = w.r
    kind, attributes, matrix = w.records(2 + int(r.random() * 9), 1 + int(r.random() * 5))
    if not matrix:
        return lines(w, held)
    names = [pick(r, a["names"]) if r.random() < .3 else a["names"][0] for a in attributes]
    rows = [(row[0][0], [f[2] for f in row]) for row in matrix]
    form = free_grid if not held and r.random() < .45 else pick(r, split(GRIDS, held))
    return form(r, kind, names, rows)


def table(r, kind, names, rows):
    head, cells = ["name"] + names, [[b] + v for (b, _), v in rows]
    if kind == "person" and r.random() < .3:
        head = ["first name", "last name"] + names
        cells = [b.split(" ", 1) + v for (b, _), v in rows]
    if r.random() < .5:
        head = [cap(h) for h in head]
    return head, cells


def markdown(r, kind, names, rows):
    head, cells = table(r, kind, names, rows)
    rule = "|" + "|".join("---" for _ in head) + "|"
    return "\n".join(["| " + " | ".join(head) + " |", rule] + ["| " + " | ".join(c) + " |" for c in cells])


def commas(r, kind, names, rows):
    head, cells = table(r, kind, names, rows)
    sep = pick(r, (",", ", ", "\t", " | ", " / ", " : ", "  ", " - "))
    return "\n".join(sep.join(c) for c in [head] + cells)


def blocks(r, kind, names, rows):
    mark, sep = pick(r, ("  ", "- ", "  - ", "* ", "")), pick(r, (": ", ": ", " = ", " - "))
    head = pick(r, ("{}", "{}:", "## {}", "**{}**", "[{}]", "# {}"))
    return "\n\n".join(head.format(cap(b)) + "\n" + "\n".join(mark + n + sep + v for n, v in zip(names, vs)) for (b, _), vs in rows)


def objects(r, kind, names, rows):
    out = [dict([("name", b)] + list(zip(names, vs))) for (b, _), vs in rows]
    if r.random() < .5:
        return "[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]"
    return json.dumps(out, indent=2) if r.random() < .5 else "\n".join(json.dumps(o) for o in out)


def keyed(r, kind, names, rows):
    return json.dumps({b: dict(zip(names, vs)) for (b, _), vs in rows}, indent=pick(r, (None, 2, 2)))


def semicolons(r, kind, names, rows):
    head, cells = table(r, kind, names, rows)
    return "\n".join("; ".join(c) for c in [head] + cells)


def yaml(r, kind, names, rows):
    if r.random() < .5:
        return "\n".join(f"{b}:\n" + "\n".join(f"  {n}: {v}" for n, v in zip(names, vs)) for (b, _), vs in rows)
    return "\n".join(f"- name: {b}\n" + "\n".join(f"  {n}: {v}" for n, v in zip(names, vs)) for (b, _), vs in rows)


def joined(r, kind, names, rows):
    out = []
    for (b, the), vs in rows:
        parts = [f"{n} {v}" for n, v in zip(names, vs)]
        body = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
        out.append(pick(r, (f"{cap(the)} has {body}.", f"{cap(the)}: {body}.", f"Known about {the}: {body}.")))
    return pick(r, ("\n", " ")).join(out)


def by_attribute(r, kind, names, rows):
    sep, head = pick(r, (": ", " - ", " = ", ": ")), pick(r, ("{}:", "## {}", "{} (all)", "{} list", "Every {}:"))
    return "\n\n".join(head.format(n) + "\n" + "\n".join(f"- {b}{sep}{vs[i]}" for (b, _), vs in rows) for i, n in enumerate(names))


def spoken(r, kind, names, rows):
    out = []
    for (b, the), vs in rows:
        for n, v in zip(names, vs):
            own = f"{b}: " + pick(r, OWN).format(a=n, v=v)
            out.append(own if kind == "person" else f"{pick(r, ('Guide', 'Host', 'A', 'B'))}: The {n} of {the} is {v}.")
    return "\n".join(out)


def ini(r, kind, names, rows):
    sep = pick(r, (" = ", "=", ": "))
    return "\n".join(f"[{b}]\n" + "\n".join(n.replace(" ", "_") + sep + v for n, v in zip(names, vs)) + "\n" for (b, _), vs in rows)[:-1]


def tagged(r, kind, names, rows):
    return "\n".join(f'<entry name="{b}">' + "".join(f"<{n.replace(' ', '-')}>{v}</{n.replace(' ', '-')}>" for n, v in zip(names, vs))
                     + "</entry>" for (b, _), vs in rows)


CELLS = [",", "|", "/", ":", "~", "#", "!", "*", "--", "->", "=", "\t", " | ", " , ", " / ", " - ", "   ", " : ", " ; ", ";;", "||", " > ", "&", "\n"]


def free_grid(r, kind, names, rows):
    """Records in a layout that nobody wrote: columns between random marks, or fields in random brackets."""
    if r.random() < .5:
        head, cells = table(r, kind, names, rows)
        sep, first, last = pick(r, CELLS[:-1]), "", ""
        if r.random() < .3:
            first, last = pick(r, (("[", "]"), ("(", ")"), ("", sep), ("- ", ""), ("<", ">"), ('"', '"'), ("# ", ""), ("", "."), (phrase(r, 2) + " ", "")))
        return "\n".join(first + sep.join(c) + last for c in [head] + cells)
    tag, mark = any_word(r), pick(r, CELLS)
    field = pick(r, ("<{n}>{v}</{n}>", '{n}="{v}"', "{n}={v}", "<{n} value=\"{v}\"/>", "({n}: {v})", "[{n} {v}]", "{n} {v}", "{n}: {v}", "'{n}': '{v}'",
                     "{v} ({n})", "{n}->{v}", "{v} as {n}", "{{{n}: {v}}}", ":{n} {v}", "{n} is {v}", "@{n} {v}", "{v}/{n}", "<{n}>{v}", "{n}('{v}')"))
    dash = pick(r, (" ", " ", "-", "_")) if "<" in field or "=" in field else " "
    outer = pick(r, ("<{t}><name>{b}</name>{f}</{t}>", "<{t} {f}>{b}</{t}>", "{b}{m}{f}", "{t} {b}: {f}", "{t}({b}, {f})", "{f}{m}{b}", "{b} [{f}]", "{b}\n{f}\n",
                     "({t} {b} {f})", "{t}: {b}{m}{f}", "<{t}>{b}: {f}</{t}>", "{b} => {{ {f} }}", "** {b} **\n{f}", "{t} \"{b}\" {{\n{f}\n}}", "name: {b}{m}{f}"))
    inner = pick(r, ("", " ", "\n", "\n  ")) if "<" in field else mark if mark in outer else pick(r, (", ", "; ", " ", "\n", "\n  ", " / "))
    return "\n".join(outer.format(t=tag, m=mark, b=b, f=inner.join(field.format(n=n.replace(" ", dash), v=v) for n, v in zip(names, vs))) for (b, _), vs in rows)


# Positions 5 and 11 are held out by `split`.
GRIDS = [markdown, commas, blocks, objects, keyed, semicolons, yaml, joined, by_attribute, spoken, ini, tagged]


def custom(key, draw, asks):
    return {"key": key, "names": [key], "draw": draw, "says": [], "asks": asks}


def procedure(w, held):
    r = w.r
    name = f"{pick(r, split(VERBS, held))} the {pick(r, w.vocab.goods)} {made_up(r)}"
    steps = [s if r.random() < .6 or held else phrase(r, 6) for s in r.sample(STEPS, 3 + int(r.random() * 4))]
    for i, s in enumerate(steps):
        w.stated[name, f"step {i + 1}"] = (name, name), custom(f"step {i + 1}", None, [
            f"What is step {i + 1} when I {name}?", f"To {name}, what is step {i + 1}?",
            f"Which step is number {i + 1} when you {name}?"]), s
    return pick(r, (f"How to {name}:\n", f"## To {name}\n", f"Procedure: {name}\n")) + "\n".join(f"{i + 1}. {s}" for i, s in enumerate(steps))


def source(w, held):
    """A few lines of code whose constants and defaults are facts."""
    r, out = w.r, []
    style = pick(r, ("{} = {}", "const {} = {};", "export {}={}", "{}: {}", "#define {} {}"))
    for _ in range(2 + int(r.random() * 6)):
        word = (pick(r, TOPICS if r.random() < .5 else GOODS) if r.random() < .5 else any_word(r)).replace("-", "_")
        name = f"{pick(r, ('MAX', 'MIN', 'DEFAULT', 'BASE', 'LAST'))}_{word.upper()}_{pick(r, ('SIZE', 'LIMIT', 'COUNT', 'CODE', 'PORT'))}"
        v = pick(r, (number, code, number))(r, None)
        if (name, "value") not in w.stated:
            w.stated[name, "value"] = (name, name), custom("value", None, [
                f"What is {name} set to?", f"Which value does {name} have?", f"What is the value of {name}?"]), v
            out.append(style.format(name, v))
    if r.random() < .5:
        f = f"{pick(r, ('load', 'read', 'send', 'make', 'find'))}_{pick(r, SERVICE_A)}_{made_up(r)}"
        v = number(r, None)
        w.stated[f, "default"] = (f, f), custom("default", None, [f"What is the default limit in {f}?", f"Which default does limit have in {f}?"]), v
        out.append(f"def {f}(path, limit={v}):\n    return open(path)[:limit]")
    return "```\n" + "\n".join(out) + "\n```"


BARE = ["The {n} is {v}.", "{N}: {v}", "Our {n} is {v}.", "{n} = {v}", "Use {v} as {n}.", "{v} is the {n}.", "The {n} here is {v}.", "The {n} is {v} {q}.", "- {n}: {v}", "The {n} {q} is {v}.", "We have the {n} {v}.", "{N} - {v}", "As {n} we use {v}."]


def bare(w, held):
    """Facts of nobody in particular: the wifi password, the deadline."""
    r, out = w.r, []
    for _ in range(1 + int(r.random() * 5)):
        a = w.attribute(pick(r, w.families))
        n = named(r, a)
        if (n, "value") in w.stated or not a["draw"]:
            continue
        v = a["draw"](r, w.vocab)
        asks = [f"What is the {n}?", f"What is our {n}?", f"Tell me the {n}.", f"{cap(n)}?", f"Which {n} do we have?", f"I need the {n}.", f"What's the {n}?", f"Do you know the {n}?", f"Give me the {n}, please.", f"{n}", f"Could you tell me the {n}?", f"What was the {n} again?"]
        w.stated[n, "value"] = (n, n), custom("value", None, asks), v
        out.append(cap(pick(r, BARE).format(n=n, N=cap(n), v=v, q=qualified.KINDS[pick(r, ("place", "time", "purpose", "any"))](r, w.vocab))))
    return pick(r, ("\n", "\n", " ")).join(out) or prose(w, held)


def prose(w, held):
    return " ".join(sentence(w.r) for _ in range(2 + int(w.r.random() * 6)))


def section(w, held, structure=None):
    """The text of one section, with or without a heading."""
    r = w.r
    k = r.random()
    if structure:
        return tellings(w, True, structure)
    # Worlds of evaluation keep the shares that their figures were measured with.
    most, few = (.2, .24) if w.held else (.8, .84) if w.focus else (.23, .28)
    if k < few and not held:
        body = tellings(w, held) if k < most else bare(w, held)
        return body if r.random() < .7 else headed(r, held, body)
    k = r.random()
    body = (lines if k < .45 else grid if k < .87 else procedure if k < .9 else source if k < .94 else prose)(w, held)
    if r.random() < .35:
        body = headed(r, held, body)
    elif r.random() < .3:
        body = sentence(r) + "\n" + body
    return body


def headed(r, held, body):
    """A section's text under a heading."""
    h = f"{pick(r, HEADS) if held or r.random() < .6 else phrase(r).capitalize()}{pick(r, ('', ' ' + str(1 + int(r.random() * 20)), ' of ' + pick(r, MONTHS)))}"
    return pick(r, ("## {}\n", "{}:\n", "# {}\n\n", "{}\n", "=== {} ===\n")).format(h) + body
