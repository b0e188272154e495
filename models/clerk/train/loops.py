"""Agent loops: several calls before the answer, a call whose argument is an earlier result, results that are errors, a second try.

The answer gives each result in its turn, as `tools.outcome` words it; an error is told as "Error: MESSAGE." Every fourth wording is
kept for evaluation.
"""
import json

from chat import say
from intents import KINDS_OF, POOL, TRAINING, Wanted, forms_of, training_form
from manners import small
from tools import HELPFUL, closed, outcome, style
from values import code, number
from words import VOCAB, any_word, phrase, pick

THEN = ["{a} {b}", "{a} And then: {b}", "{a} Then {l}", "First: {a} After that: {b}", "{a} Also: {b}", "{a} One more thing: {b}", "1. {a} 2. {b}", "Do two things. {a} {b}", "{a}\n{b}", "{a} When that is done, {l}", "Two requests: {a} {b}", "Start with this: {a} Go on with this: {b}",
        "- {a}\n- {b}", "I have two wishes. {a} {b}", "{a} Besides: {b}", "Both, please: {a} {b}"]
# What the second call takes from the first one's result: kinds of parameters, and fields that hold such a value.
FIELDS = {"town": "city town place location", "email": "email mail address", "person": "name owner contact person manager", "code": "id number code reference", "path": "path file filename", "url": "url link page", "title": "title name book", "word": "name label key",
          "service": "service app component", "words": "text message summary note", "room": "room place", "ident": "symbol table key"}
CHAIN = ["{a} Take the {f} and do this with it: {b}", "{a} With the {f} you get: {b}", "{a} Then, with that {f}: {b}", "{a} Use its {f} for this: {b}", "First: {a} The result has the {f}. Second: {b}", "{a} It gives you the {f}. {b}", "{a} Once you know the {f}: {b}", "{b} To know the {f}: {a}", "{b} You find the {f} like this: {a}",
         "{a} As soon as you have the {f}, {l}", "Look for the {f} first. {a} {b}", "{b} Get the {f} this way first: {a}"]
IT = ["that {f}", "the {f}", "this {f}", "the {f} you found", "the {f} from there", "the right {f}", "the {f} in the result", "its {f}"]
ERRORS = """not found|no such {w}|permission denied|timeout after {n} seconds|{w} is not available|service unavailable|invalid {w}|{w} not found|rate limit reached|connection refused|unknown {w}: {c}|{w} must be a number|code {n}|quota exceeded|no results for {c}|the server is busy|{w} {c} does not exist
access to {w} is forbidden|network is down|{w} expired|cannot reach {w}|too many requests|bad request: {w}|internal error {n}|login required|{w} is locked""".replace("\n", "|").split("|")
RETRY = ["Try {v}.", "Try {v} instead.", "I mean {v}.", "Sorry, {v}.", "Then take {v}.", "Use {v} then.", "And with {v}?", "It should be {v}.", "Do it again with {v}.", "What about {v}?", "My mistake: {v}.", "Correct is {v}.", "{v}, I wanted to say.", "No, {v}.", "Once more, with {v}.", "Maybe {v} works."]
ONLY_FIELD = ["{t} What is the {f}?", "{t} Just the {f}.", "{t} Tell me the {f} only.", "{t} I want the {f}.", "{t} The {f} is enough.", "{t} Which {f} do you get?", "{t} Answer with the {f}.", "{t} Only its {f}, please.", "{t} Give me nothing but the {f}."]


def split(xs, held):
    return xs[3::4] if held else [x for i, x in enumerate(xs) if i % 4 != 3]


def lower(s):
    return s[:1].lower() + s[1:] if s[1:2].islower() else s


def asked(r, tool, held, values=None):
    """`(text, call)` for a tool; `values` are the arguments by position where they are given."""
    form = pick(r, forms_of(tool.intent, True, False)) if held else training_form(r, tool)
    if values is None:
        text, call = tool.request(VOCAB[held], [form])
        return closed(text), call
    text = form.format(*values["text"])
    args = dict(zip(tool.keys, values["call"])) | ({p["name"]: None for p in tool.extra} if tool.unsaid is None else {})
    return closed(text), {"name": tool.name, "arguments": args}


def declared(r, tools, held, spelled):
    more = [Wanted(r, x, spelled) for x in r.sample(POOL[False] if held else TRAINING, int(r.random() * 4))]
    names = [t.name for t in tools]
    out = [t.declaration for t in tools] + [x.declaration for x in more if x.name not in names and x.intent not in [t.intent for t in tools]]
    r.shuffle(out)
    return out


def fresh(r, held, spelled, n):
    """Tools with different names."""
    while True:
        tools = [Wanted(r, x, spelled) for x in r.sample(POOL[False] if held else TRAINING, n)]
        if len({t.name for t in tools}) == n:
            return tools


def failure(r, held):
    """A result that is an error, and what the assistant says."""
    message = pick(r, split(ERRORS, held)).format(w=any_word(r).lower(), n=number(r, None), c=code(r, None))
    text = pick(r, (json.dumps({"error": message}), json.dumps({"error": message}), f"Error: {message}", json.dumps({"status": "error", "error": message}), json.dumps({"error": {"message": message}}), f"error: {message}"))
    return text, f"Error: {message}."


def two(r, held, spelled):
    """Two requests in one message; both calls, then both results."""
    same = r.random() < .4
    tools = fresh(r, held, spelled, 1 if same else 2)
    (a, one), (b, other) = asked(r, tools[0], held), asked(r, tools[-1], held)
    if one == other:
        return two(r, held, spelled)
    results = [failure(r, held) if r.random() < .1 else outcome(r, held) for _ in range(2)]
    text = pick(r, split(THEN, held)).format(a=a, b=b, l=lower(b))
    return tools, [{"user": text, "expect": {"call": one}, "tool": results[0][0]}, {"expect": {"call": other}, "tool": results[1][0]}, {"expect": {"text": f"{results[0][1]} {results[1][1]}"}}]


def chain(r, held, spelled):
    """A call whose argument is found in the result before it."""
    while True:
        first, second = fresh(r, held, spelled, 2)
        spots = [i for i, (p, k) in enumerate(zip(second.params, second.kinds)) if k in FIELDS and p["type"] == "string" and "enum" not in p]
        if spots:
            break
    spot = pick(r, spots)
    kind = second.kinds[spot]
    field = pick(r, FIELDS[kind].split(" "))
    value = KINDS_OF[kind](r, VOCAB[held])
    result = {field: value}
    for _ in range(int(r.random() * 3)):
        result.setdefault(any_word(r).lower(), pick(r, (number(r, None), code(r, None), phrase(r, 2))))
    items = list(result.items())
    r.shuffle(items)
    values = second.values(VOCAB[held])
    shown = list(values)
    shown[spot] = pick(r, split(IT, held)).format(f=field)
    values[spot] = value
    a, one = asked(r, first, held)
    b, other = asked(r, second, held, {"text": shown, "call": values})
    text = pick(r, split(CHAIN, held)).format(a=a, b=b, l=lower(b), f=field)
    if r.random() < .12:
        result, answer = failure(r, held)
        return [first, second], [{"user": text, "expect": {"call": one}, "tool": result}, {"expect": {"text": answer}}]
    last, answer = outcome(r, held)
    return [first, second], [{"user": text, "expect": {"call": one}, "tool": json.dumps(dict(items), ensure_ascii=False)}, {"expect": {"call": other}, "tool": last}, {"expect": {"text": answer}}]


def error(r, held, spelled):
    """A call that fails, and often a second try with another value."""
    tool = fresh(r, held, spelled, 1)[0]
    text, call = asked(r, tool, held)
    result, answer = failure(r, held)
    turns = [{"user": text, "expect": {"call": call}, "tool": result}, {"expect": {"text": answer}}]
    spots = [i for i, (p, k) in enumerate(zip(tool.params, tool.kinds)) if k in FIELDS and p["type"] == "string" and "enum" not in p]
    if len(tool.params) == 1 and spots and r.random() < .7:
        key = tool.keys[0]
        value = KINDS_OF[tool.kinds[0]](r, VOCAB[held])
        last, answer = failure(r, held) if r.random() < .15 else outcome(r, held)
        turns += [{"user": pick(r, split(RETRY, held)).format(v=value), "expect": {"call": {"name": tool.name, "arguments": call["arguments"] | {key: value}}}, "tool": last}, {"expect": {"text": answer}}]
    return [tool], turns


def field(r, held, spelled):
    """A request that wants one field of the result."""
    tool = fresh(r, held, spelled, 1)[0]
    text, call = asked(r, tool, held)
    result = {}
    for _ in range(2 + int(r.random() * 4)):
        result[" ".join(any_word(r).lower() for _ in range(1 + int(r.random() * 1.4))).replace(" ", "_")] = pick(r, (number(r, None), code(r, None), phrase(r, 2), int(r.random() * 300), any_word(r).capitalize()))
    wanted = pick(r, list(result))
    shown = {pick(r, ("result", "data", "response")): result} if r.random() < .15 else result
    return [tool], [{"user": pick(r, split(ONLY_FIELD, held)).format(t=text, f=wanted.replace("_", " ")), "expect": {"call": call}, "tool": json.dumps(shown, ensure_ascii=False, indent=pick(r, (None, None, 1)))},
                    {"expect": {"text": closed(str(result[wanted]))}}]


KINDS = {"two": two, "chain": chain, "error": error, "field": field}


def loop(r, held, kind=None):
    spelled = style(r, True)
    tools, turns = KINDS[kind or pick(r, ("two", "two", "chain", "chain", "chain", "error", "error", "field"))](r, held, spelled)
    if not held and r.random() < .2:
        turns.append(say(*small(r, held)))
    return {"messages": [] if r.random() < .35 else [{"role": "system", "content": pick(r, HELPFUL)}], "tools": declared(r, tools, held, spelled), "turns": turns}
