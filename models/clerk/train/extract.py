"""Values of a text as JSON: from scenes, from sentences with qualifiers, and from the records of a document.

Half of the time the keys are told, as a list, a schema, an example or a class. The other half they are not: a server that enforces a schema
writes the keys itself, so a turn with `hidden` teaches the values alone.
"""
import json

import qualified
import scenes
import schemas
from chat import document, say
from phrasings import cap
from tools import Tool, style
from words import VOCAB, any_word, made_up, phrase, pick, sentence
from world import World

TASKS = ["Extract the data.", "Extract the information from the text.", "Extract the event information.", "Extract the details.", "Return the data as JSON.", "You extract structured data from text.", "Parse the text.",
         "Fill in the fields from the text.", "Turn this into a record.", "You are an expert at structured data extraction.", "Read the text and answer in JSON.", "Convert the text to JSON.", "Give me this as JSON.",
         "Find the values in the text below.", "Structure this.", "Pull out the facts.", "Record this.", "Make a JSON object of this.", "Collect the values.", "Write down what the text says, as JSON."]
HEADERS = ["Text: {}", "{}", "{}", '"{}"', "Text:\n{}", "Input: {}", "Here is the text: {}", "<text>\n{}\n</text>", "Message: {}", "'''\n{}\n'''"]


def key_style(r):
    def camel(n):
        first, *rest = n.split("_")
        return first + "".join(x.capitalize() for x in rest)
    return pick(r, (str, str, str, camel, lambda n: n.replace("_", "-")))


# A field's type: False for a string, True for a number, or what JSON calls it.
TYPES = {False: "string", True: "integer", "boolean": "boolean"}
PYTHON = {False: "str", True: "int", "boolean": "bool"}


def asked_fields(r, fields, hints={}):
    """Words that tell the keys. `fields`: `(key, type)`; `hints`: a question for a key."""
    keys = [k for k, _ in fields]
    params = [{"name": k, "type": TYPES[n]} for k, n in fields]
    if hints and r.random() < .3:
        sep, mark = pick(r, (("\n", "- {k}: {q}"), ("\n", "{k}: {q}"), (" ", "{k}: {q}"), ("; ", "{k} ({q})"), ("\n", '"{k}": {q}'), (" ", "{k} = {q}")))
        return pick(r, ("Answer as JSON. {x}", "Fill in this JSON:\n{x}", "Keys and what they mean:\n{x}", "Return an object. {x}", "Questions, answered in one JSON object:\n{x}")).format(x=sep.join(mark.format(k=k, q=hints.get(k, k.replace("_", " "))) for k in keys))
    k = r.random()
    if k < .25:
        listed = pick(r, (", ".join(keys), ", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0], "\n".join("- " + x for x in keys), ", ".join(f'"{x}"' for x in keys)))
        return pick(r, ("Extract {k} as JSON.", "Return JSON with the keys {k}.", "Give me {k} as a JSON object.", "Answer with a JSON object that has {k}.", "I need {k} in JSON.", "Keys: {k}", "Fields: {k}. Answer in JSON.", "JSON with {k}, please.", "Return an object with {k}.")).format(k=listed)
    if k < .4:
        shape = "{" + ", ".join(f'"{x}": {pick(r, ("...", "true or false")) if n == "boolean" else pick(r, ("...", "number")) if n else pick(r, (chr(34) + "..." + chr(34), "string"))}' for x, n in fields) + "}"
        return pick(r, ("Answer in this form: {s}", "Use this format: {s}", "Return JSON like {s}", "Format:\n{s}", "Reply only with {s}")).format(s=shape)
    if k < .5:
        return f"class {cap(made_up(r))}(BaseModel):\n" + "\n".join(f"    {x}: {PYTHON[n]}" for x, n in fields) + "\n\nReturn it as JSON."
    style = pick(r, schemas.STYLES[:5])
    schema = json.dumps(style(r, made_up(r), params), indent=pick(r, (None, None, 2)))
    return pick(r, ("Answer with JSON that follows this schema:\n{s}", "JSON schema:\n{s}", "As a genius expert, your task is to understand the content and provide the parsed objects in json that match the following json_schema:\n\n{s}\n\nMake sure to return an instance of the JSON, not the schema itself",
                    "The output should be formatted as a JSON instance that conforms to the JSON schema below.\n\nHere is the output schema:\n```\n{s}\n```", "Respond with a JSON object matching this schema: {s}", "Follow the schema.\n{s}")).format(s=schema)


def value_of(r, text, number):
    return int(text) if number and text.isdigit() and (text == "0" or text[0] != "0") else text


def scene_record(r, held):
    """`(text, record)` of a scene; keys in any order, sometimes not all."""
    v, style = VOCAB[held], key_style(r)
    scene = scenes.invented(r) if not held and r.random() < .75 else pick(r, scenes.POOL[held])
    values = scenes.draw(r, scene, v)
    slots = list(scene.slots)
    if r.random() < .3:
        r.shuffle(slots)
    if r.random() < .25 and len(slots) > 2:
        slots = slots[:-1]
    record, numbers, hints = {}, {}, {}
    for s in slots:
        aliases, kind, asks = scene.slots[s]
        key = style(aliases[0] if r.random() < .6 else pick(r, aliases))
        number = scenes.is_number(kind) and r.random() < .75
        if key not in record:
            record[key], numbers[key] = value_of(r, values[s], number), number
            if not held and asks:
                hints[key] = pick(r, asks).format(**values)
    text = scenes.tell(r, scene, values)
    return text, *(widened(r, text, record, numbers) if not held else (record, numbers)), hints


# Yes or no: key, what is said, its contrary.
FLAGS = """open,is_open=open,closed|paid=paid,unpaid|active,is_active=active,idle|urgent,is_urgent=urgent,in no hurry|available,is_available=available,gone|free,is_free=free,taken|ready,done=ready,unfinished|new,is_new=new,old|insured=insured,without insurance|verified,checked=verified,unchecked
late,is_late=late,on time|public,is_public=public,private|online,is_online=online,offline|full,is_full=full,empty|safe=safe,dangerous|confirmed=confirmed,still in doubt|broken,is_broken=broken,in good order|expensive=expensive,cheap|allowed=allowed,forbidden|heated=heated,cold|member,is_member=a member,no member
married,is_married=married,single|vegetarian=a vegetarian,a meat eater|retired=retired,still at work|visible=visible,hidden|locked,is_locked=locked,unlocked|enabled=enabled,disabled|fragile=fragile,sturdy|cancelled=cancelled,still on|signed=signed,not signed yet""".replace("\n", "|").split("|")
NEVER = "nickname,fax,fax_number,middle_name,blood_type,eye_color,warranty,discount_code,guarantee,signature,latitude,altitude,postal_code,license,sponsor_id,humidity,barcode,isbn,notes,comment,second_phone,godfather,budget_code,deposit,footnote,rating,invoice_address,tax_class".split(",")


def some(r, xs, held):
    """One of a list whose every fifth entry is kept for evaluation."""
    return pick(r, xs[4::5] if held else [x for i, x in enumerate(xs) if i % 5 != 4])


def with_key(r, record, numbers, key, value, kind):
    """The record and its types with one key more, anywhere."""
    at = int(r.random() * (len(record) + 1))
    items, kinds = list(record.items()), list(numbers.items())
    items.insert(at, (key, value))
    kinds.insert(at, (key, kind))
    return dict(items), dict(kinds)


def flagged(r, record, numbers, held=False):
    """A sentence that says whether something is so, and its key put anywhere into the record."""
    keys, words = some(r, FLAGS, held).split("=")
    yes, no = words.split(",")
    key, value = pick(r, keys.split(",")), r.random() < .5
    if key in record:
        return "", record, numbers
    it = pick(r, ("It is", "This one is", "All in all it is", "Today it is", "As you know, it is"))
    said = pick(r, (f"{it} {yes}.", f"{it} {yes}.", f"{it} not {no}.", f"{it} {yes}, of course.")) if value else pick(r, (f"{it} not {yes}.", f"{it} not {yes}.", f"{it} {no}.", f"{it} anything but {yes}.", f"{it} not {yes} at all."))
    return " " + said, *with_key(r, record, numbers, key, value, "boolean")


def widened(r, text, record, numbers, held=False):
    """Some records have a key that the text does not tell: null."""
    if held or r.random() < .12:
        key = some(r, NEVER, held)
        if key not in record and key.split("_")[0] not in text:
            return with_key(r, record, numbers, key, None, False)
    return record, numbers


def several(r, held):
    """A list in one sentence: names under one key."""
    v = VOCAB[held]
    draw = pick(r, (scenes.DRAW["person"], scenes.DRAW["town"], lambda r, v: any_word(r).capitalize(), lambda r, v: any_word(r)))
    xs = list(dict.fromkeys(draw(r, v) for _ in range(2 + int(r.random() * 3))))
    joined = ", ".join(xs[:-1]) + " and " + xs[-1] if len(xs) > 1 else xs[0]
    date = scenes.DRAW["when"](r, v)
    event = scenes.DRAW["words"](r, v)
    text = pick(r, ("{x} are going to the {e} on {d}.", "On {d} there is the {e} with {x}.", "The {e} on {d}: {x}.", "{x} take part in the {e} ({d}).", "We invite {x} to the {e} on {d}.")).format(x=joined, e=event, d=date)
    style = key_style(r)
    record = {pick(r, ("name", "event", "title", "event_name")): event, pick(r, ("date", "day", "when")): date, style(pick(r, ("participants", "people", "names", "guests", "members", "items", "who"))): xs}
    return text, record, {k: False for k in record}, {}


def fact_record(r, held):
    """Facts of one subject in sentences with qualifiers."""
    w = World(r, False, held)
    kind = pick(r, w.families)
    s = w.subject(kind)
    facts = [f for f in (w.state(s, a) for a in w.attributes(kind, 1 + int(r.random() * 4))) if f]
    if not facts:
        return scene_record(r, held)
    names = [f[1]["names"][0] for f in facts]
    if len(facts) == 2 and r.random() < .4 or len(facts) == 3 and r.random() < .4:
        patterns = [p for i, p in enumerate(qualified.SAME_SUBJECT) if qualified.held_pair(i) == held and ("{a3}" in p) == (len(facts) == 3)] if held else \
            [p for p in [qualified.pattern_of(r, "same-subject", False) for _ in range(4)] if ("{a3}" in p) == (len(facts) == 3)]
        text = qualified.together(r, facts, names, pick(r, patterns)) if patterns else ""
    else:
        text = ""
    text = text or " ".join(qualified.qualified(r, f, n, False, None, w.vocab)[0] for f, n in zip(facts, names))
    record, numbers, style = {}, {}, key_style(r)
    if r.random() < .5:
        key = style(pick(r, ("name", "subject", kind if kind != "person" else "person", "of")))
        record[key], numbers[key] = s[0], False
    for f, n in zip(facts, names):
        key = style(n.replace(" ", "_").replace("-", "_"))
        number = f[2].isdigit() and f[2][0] != "0" and r.random() < .6
        record[key], numbers[key] = value_of(r, f[2], number), number
    if held:
        return text, record, numbers, {}
    if r.random() < .3:
        items = list(record)
        r.shuffle(items)
        record, numbers = {k: record[k] for k in items}, {k: numbers[k] for k in items}
    return text, *widened(r, text, record, numbers), {}


def request_record(r, held):
    """A request to a tool that is none: its parameters are the keys."""
    t = Tool(r, held, style(r))
    t.optional = t.group = None
    t.declaration(r, True)
    text, call = t.request(r, VOCAB[held], held)
    return text, call["arguments"], {k: not isinstance(v, str) for k, v in call["arguments"].items()}, {}


def nested(r, record):
    """Some keys inside an object of their own."""
    keys = list(record)
    if len(keys) < 3 or r.random() > .12:
        return record
    inner = keys[-2:]
    return {**{k: v for k, v in record.items() if k not in inner}, pick(r, ("details", "data", "info", "address", "where", any_word(r))): {k: record[k] for k in inner}}


def task(r, held, kind=None, hidden=None):
    """One extraction. `kind`: `scene`, `list`, `facts`, or `wide`: facts with yes or no and null."""
    k = r.random()
    text, record, numbers, hints = (scene_record if kind == "scene" or kind is None and k < .5 else several if kind == "list" or kind is None and k < .62 else fact_record if kind in ("facts", "wide") or k < .9 else request_record)(r, held)
    if kind == "wide":
        more, record, numbers = flagged(r, *widened(r, text, record, numbers, held), held)
        text += more
    if not held and r.random() < .2 and not any(isinstance(x, list) for x in record.values()):
        more, record, numbers = flagged(r, record, numbers)
        text += more
    hidden = r.random() < .5 if hidden is None else hidden
    before = " ".join(sentence(r) for _ in range(1 + int(r.random() * 3))) + " " if r.random() < .3 else ""
    after = " " + " ".join(sentence(r) for _ in range(1 + int(r.random() * 3))) if r.random() < .3 else ""
    if hidden:
        ask = pick(r, TASKS) if held or r.random() < .7 else cap(phrase(r, 5)) + pick(r, ".:")
        if not any(isinstance(x, list) for x in record.values()):
            record = nested(r, record)
    elif any(isinstance(x, list) for x in record.values()):
        ask = pick(r, ("Return JSON with the keys {k}; {l} is a list.", "Extract {k} as JSON, {l} as a list.", "JSON: {k}. {l} is an array.")).format(k=", ".join(record), l=list(record)[-1])
    else:
        ask = asked_fields(r, list(numbers.items()), hints)
    body = pick(r, HEADERS).format(before + text + after)
    k = r.random()
    if k < .4:
        messages, user = [{"role": "system", "content": ask}], body
    elif k < .7:
        messages, user = [], ask + pick(r, ("\n\n", "\n", " ")) + body
    elif k < .85:
        messages, user = [], body + pick(r, ("\n\n", "\n", " ")) + ask
    elif hidden and k < .93:
        messages, user = ([] if r.random() < .5 else [{"role": "system", "content": pick(r, ("You are a helpful assistant.", "You are a helpful AI."))}]), before + text + after
    else:
        messages, user = [{"role": "system", "content": body}], ask
    turn = say(user, json.dumps(record, ensure_ascii=False))
    if hidden:
        turn["hidden"] = True
    return {"messages": messages, "turns": [turn]}


def from_document(r, budget, count, held, hidden=None):
    """Values of one subject of a document, as JSON."""
    w, text = document(r, max(budget - 200, 80), count, r.random() < .5, held)
    by = {}
    for s, a, v in w.facts:
        if a["draw"]:
            by.setdefault(s, {})[a["key"]] = v
    if not by:
        return task(r, held, hidden=hidden)
    turns = []
    for _ in range(1 + int(r.random() * 3)):
        s = pick(r, [x for x in by if len(by[x]) > 1] or list(by))
        style, record, numbers = key_style(r), {}, {}
        facts = list(by[s].items())
        r.shuffle(facts)
        if r.random() < .4:
            key = pick(r, ("name", "subject", "of"))
            record[key], numbers[key] = s[0], False
        for a, v in facts[:4]:
            key = style(a.replace(" ", "_").replace("-", "_"))
            number = v.isdigit() and v[0] != "0" and r.random() < .6
            record[key], numbers[key] = value_of(r, v, number), number
        secret = r.random() < .5 if hidden is None else hidden
        who = pick(r, ("Give me the data of {s} as JSON.", "Record of {s} as JSON.", "What do we know about {s}? Answer in JSON.", "Return the entry of {s}.", "Fill the form for {s}.", "Extract the data of {s}.")).format(s=s[1])
        turn = say(who if secret else who + " " + asked_fields(r, list(numbers.items())), json.dumps(record, ensure_ascii=False))
        if secret:
            turn["hidden"] = True
        turns.append(turn)
    return {"messages": [{"role": "system", "content": text}], "turns": turns}
