"""Conversations over a document: questions, absent facts, updates, references to earlier turns, and small talk.

A conversation is `{"messages": [...], "turns": [...], "tools": [...]?}`: messages come first; each turn has what the user
says and what the assistant must answer (`expect`), see tasks.py.
"""
import scenes
from intents import POOL, TRAINING, Wanted, training_form
from layouts import section
from manners import ONLY, small
from phrasings import follow_up
from questions import (NOT_STATED, SAME_ATTRIBUTE, SAME_PERSON, SAME_SUBJECT, WHO, ask, fill, name_of, recall, update,
                       wrap)
from rough import rough
from words import DAYS, VOCAB, any_word, line, made_up, phrase, pick, sentence, split
from values import COLORS, code, invented
from world import World

HEAD = """You are a helpful assistant. Answer from the notes below.
Handbook.
Notes for the team:
Answer questions using this document.
Internal directory
You answer from the handbook. If it is not there, say so.
# Site notes
You are clerk. Use only the text below.
Reference material for the assistant
The following pages describe our staff, places and stock.
Read the notes and answer short questions about them.
Use these notes. Answer with the value only.
You help the front desk. Everything you know is written here.
Company guide, internal
You are a careful assistant who quotes the document exactly.
Below is everything that has been written down so far.
Context:
You work at the information counter. These are your papers.""".split("\n")
SAID = [("My favorite color is {v}.", "What is my favorite color?", lambda r: pick(r, COLORS)),
        ("My name is {v}.", "What is my name?", lambda r: made_up(r).capitalize()),
        ("I live in {v}.", "Where do I live?", lambda r: made_up(r).capitalize()),
        ("My order number is {v}.", "What is my order number?", lambda r: code(r, None)),
        ("We meet on {v}.", "When do we meet?", lambda r: pick(r, DAYS)),
        ("Remember the code {v}.", "Which code did I tell you to remember?", lambda r: code(r, None)),
        ("The password for today is {v}.", "What is the password for today?", lambda r: code(r, None)),
        ("Please keep this in mind: the word is {v}.", "What is the word?", lambda r: any_word(r))]


def say(text, answer):
    return {"user": text, "expect": {"text": answer}}


def document(r, budget, count, dense, held, unseen_layouts=None, kinds=None, structure=None):
    """A world and its text of at most `budget` tokens as `count(text)` measures them. With `structure`, half of its sections are of
    that kept structure, and `facts` are theirs alone."""
    w = World(r, dense, held, kinds)
    parts, used, misses, theirs = [pick(r, HEAD)], 16, 0, set()
    while misses < 4 and used < budget - 10:
        before, last = dict(w.stated), budget - used >= 700 and not structure
        this = structure if structure and r.random() < .5 else None
        text = section(w, held if unseen_layouts is None else unseen_layouts, this)
        n = count(text) + 1
        if used + n > budget:
            # What is not shown is not known.
            w.stated = before
            if last:
                break
            misses += 1
            continue
        parts.append(text)
        used += n
        if this:
            theirs |= set(w.stated) - set(before)
    w.facts = [f for k, f in w.stated.items() if k in theirs] if structure else list(w.stated.values())
    return w, "\n\n".join(parts)


def place(r, text, turns):
    """The document as the system message or, more rarely, as a user's message before the first question or in front of it."""
    k = r.random()
    if k < .8 or not turns:
        return {"messages": [{"role": "system", "content": text}], "turns": turns}
    if k < .9:
        return {"messages": [{"role": "user", "content": pick(r, ("", "", "Here are my notes.\n\n", "Read this first.\n\n")) + text}], "turns": turns}
    first = dict(turns[0], user=pick(r, ("{d}\n\n{q}", "Here are my notes.\n\n{d}\n\n{q}", "{d}\n\nQuestion: {q}")).format(d=text, q=turns[0]["user"]))
    return {"messages": [], "turns": [first] + turns[1:]}


def questions(w, n, held, absent=.1):
    """`n` questions that do not depend on each other."""
    r, turns = w.r, []
    while len(turns) < n:
        if r.random() < absent:
            pair = w.absent()
            if pair:
                turns.append(say(ask(r, *pair, held), NOT_STATED))
                continue
        s, a, v = pick(r, w.facts)
        if not held and a["draw"] and r.random() < .05 and sum(x[2] == v and x[1]["key"] == a["key"] for x in w.facts) == 1:
            turns.append(say(wrap(r, reverse(r, s, a, v), held), s[0] + "."))
        else:
            turns.append(say(ask(r, s, a, held), v + "."))
    return turns


def reverse(r, s, a, v):
    """A question for the subject that has a value."""
    what = s[0].split(" ")[-1] if s[0] != s[1] else "one"
    forms = ["Who has the {a} {v}?", "Whose {a} is {v}?", "To whom does the {a} {v} belong?", "Who goes with the {a} {v}?"] if s[0] == s[1] and s[0][0].isupper() else \
        ["Which {w} has the {a} {v}?", "What has the {a} {v}?", "To which {w} does the {a} {v} belong?", "The {a} {v} belongs to what?"]
    return pick(r, forms).format(a=name_of(r, a), v=v, w=what)


def told(r, budget, count, held, scene=None, made=False):
    """Scenes told one after the other, and questions about their parts; `made`: with held-out names in scenes composed as in training."""
    v, pool = VOCAB[held], [scene] if scene else scenes.POOL[held]
    parts, used, asks, known = [pick(r, HEAD)], 40, [], set()
    while used < budget - 60:
        if held and scene and len(parts) % 2:
            one = pick(r, scenes.POOL[False])
        else:
            one = scenes.invented(r) if made or not held and r.random() < .8 else pick(r, pool)
        values = scenes.draw(r, one, v)
        names = {values[x] for x in one.slots if scenes.sure(one, x)}
        # A name that two scenes share could be meant by a question about either.
        if known & names:
            used += 4
            continue
        known |= names
        text = scenes.tell(r, one, values)
        parts.append(text if r.random() < .8 else sentence(r) + " " + text)
        used += count(parts[-1]) + 1
        if not held or made or one in pool:
            asks += [(q, slot, values) for slot, (_, _, qs) in one.slots.items() for q in qs if scenes.clear(one, q)]
    turns = []
    for _ in range(2 if held else 3 + int(r.random() * max(10, used / 80)) if asks else 0):
        q, slot, values = pick(r, asks)
        q = rough(r, q) if not held and r.random() < .08 else q
        turns.append(say(wrap(r, q.format(**values), held), values[slot].rstrip(".") + "."))
    if not turns:
        return small_talk(r)
    between = pick(r, ("\n", "\n", " ", "\n\n"))
    if between == " " and not held:
        # In one paragraph every scene has its end, or its last value would run into the next one.
        parts = [x + "\n" if "\n" in x else x if x[-1] in ".!?:" else x + "." for x in parts]
    return place(r, between.join(parts), turns)


def own_fact(r):
    """Something the user says about themselves, and its question."""
    a = invented(r)
    n = a["names"][0]
    return (pick(r, (f"My {n} is {{v}}.", f"I have the {n} {{v}}.", f"Remember my {n}: {{v}}.", f"The {n} is {{v}}.", f"Keep in mind that my {n} is {{v}}.")),
            pick(r, (f"What is my {n}?", f"Tell me my {n}.", f"What was the {n} I told you?", f"Which {n} did I mention?")), lambda r: a["draw"](r, VOCAB[False]))


class Talk:
    """A dialogue that depends on its own past: updates, pronouns, repeats, things the user said."""

    def __init__(self, w, held):
        self.w, self.r, self.held = w, w.r, held
        self.now = {(s[0], a["key"]): v for s, a, v in w.facts}
        self.attrs = {}
        for s, a, v in w.facts:
            self.attrs.setdefault(s[0], []).append((s, a))
        self.subjects = {}
        for s, a, v in w.facts:
            self.subjects.setdefault(a["key"], []).append((s, a))
        self.told, self.turns, self.last, self.first = [], [], None, None
        self.changed = []

    def answer(self, text, s, a):
        self.last = s, a
        self.first = self.first or s
        self.turns.append(say(text, self.now[s[0], a["key"]] + "."))

    def other(self, turn):
        """A turn after which "and the price?" would refer to nothing certain."""
        self.last = None
        self.turns.append(turn)

    def step(self):
        r, held, k = self.r, self.held, self.r.random()
        if .18 <= k < .33 and not self.changed or .33 <= k < .64 and not self.last:
            k = 1.
        if k < .18:
            s, a, _ = pick(r, self.w.facts)
            if a["draw"]:
                v = a["draw"](r, self.w.vocab)
                self.now[s[0], a["key"]] = v
                self.changed.append((s, a))
                self.other(say(update(r, s, a, v, held), f"Noted: {v}."))
        elif k < .33:
            s, a = pick(r, self.changed)
            self.answer(ask(r, s, a, held), s, a)
        elif k < .5:
            s, a = self.last
            more = [x for x in self.attrs[s[0]] if x[1]["key"] != a["key"] and x[1]["draw"]]
            if more:
                s, a = pick(r, more)
                forms = split(SAME_SUBJECT, held) + (split(SAME_PERSON, held) if " " in s[0] and s[0][0].isupper() and s[0] == s[1] else [])
                text = fill(pick(r, forms), s, name_of(r, a))
                if not held and r.random() < .5:
                    text = follow_up(r, pick(r, ("the ", "the ", "its ", "", "that ", "which ", "her ", "his ")) + name_of(r, a))
                self.answer(text, s, a)
        elif k < .64:
            more = [x for x in self.subjects[self.last[1]["key"]] if x[0] != self.last[0] and x[1]["draw"]]
            if more:
                s, a = pick(r, more)
                text = fill(pick(r, split(SAME_ATTRIBUTE, held)), s, "")
                if not held and r.random() < .5:
                    text = follow_up(r, pick(r, ("", "", "of ", "for ", "that of ", "with ")) + s[1])
                self.answer(text, s, a)
        elif k < .71 and self.turns:
            text, i = recall(r, held)
            self.turns.append(say(wrap(r, text, held), self.turns[i]["expect"]["text"]))
        elif k < .74 and self.first and self.turns[0].get("about"):
            self.other(say(pick(r, split(WHO, held)), self.turns[0]["about"] + "."))
        elif k < .81:
            tell, question, draw = pick(r, SAID) if held or r.random() < .5 else own_fact(r)
            if question not in [q for q, _ in self.told]:
                v = draw(r)
                self.told.append((question, v))
                self.other(say(tell.format(v=v), f"Noted: {v}."))
        elif k < .87 and self.told:
            question, v = pick(r, self.told)
            self.other(say(wrap(r, question, held), v + "."))
        elif k < .9:
            pair = self.w.absent()
            if pair and (pair[0][0], pair[1]["key"]) not in self.now:
                self.other(say(ask(r, *pair, held), NOT_STATED))
        elif k < .92:
            self.other(say(*small(r, held)))
        else:
            s, a, _ = pick(r, self.w.facts)
            self.answer(ask(r, s, a, held), s, a)
            if len(self.turns) == 1:
                self.turns[0]["about"] = s[0]


def dialogue(w, n, held):
    t = Talk(w, held)
    while len(t.turns) < n:
        t.step()
    for turn in t.turns:
        turn.pop("about", None)
    return t.turns[:n]


def echo(r):
    """Texts to repeat: every piece of the vocabulary is copied somewhere, whatever the pools favor."""
    turns = []
    for _ in range(3 + int(r.random() * 12)):
        text = line(r, 8) if r.random() < .3 else phrase(r, 7)
        text = pick(r, (text, text, text.capitalize(), text.title(), text.upper())).strip()
        turns.append(say(pick(r, ("Repeat: {}", "Say: {}", "Repeat after me: {}", "Echo: {}", "Please say {}", "Write: {}")).format(text), text))
    return {"messages": [], "turns": turns}


# Requests that need no tool to be granted are none of these.
UNARMED = [x for x in TRAINING if x.names[0] not in ("create_note", "send_message", "set_status", "add_shopping_list", "log_meal", "log_workout", "log_hours", "set_timer", "run_command")]


def unarmed(r, held=False):
    """A request that only a tool could fulfil, where none is declared."""
    tool = Wanted(r, pick(r, POOL[True][3:] if held else UNARMED), str, extras=False)
    return tool.request(VOCAB[held], tool.intent.requests if held else [training_form(r, tool)])[0]


def small_talk(r, held=False, most=4, wide=False):
    """A short chat without notes, so that nothing ever ends empty. `wide`: with requests that would need a tool."""
    turns = []
    for _ in range(1 + int(r.random() * most)):
        turns.append(say(unarmed(r), ONLY) if wide and r.random() < .15 else say(*small(r, held)))
        if r.random() < .3 and not held:
            tell, question, draw = pick(r, SAID)
            v = draw(r)
            turns += [say(tell.format(v=v), f"Noted: {v}."), say(question, v + ".")]
    system = [] if r.random() < .5 else [{"role": "system", "content": pick(r, ("You are a helpful assistant.", "Be brief.", pick(r, HEAD)))}]
    if system and r.random() < .3:
        system[0]["content"] += "\n" + " ".join(sentence(r) for _ in range(3))
    return {"messages": system, "turns": turns}


def conversation(r, budget, count, dense, held, kind="fact", n=8, unseen_layouts=None, kinds=None, structure=None):
    """One conversation over a document that leaves room for its turns inside `budget` tokens."""
    room = budget - 40 * n - 20
    w, text = document(r, max(room, 80), count, dense, held, unseen_layouts, kinds, structure)
    if not w.facts:
        return small_talk(r)
    turns = dialogue(w, n, held) if kind == "chat" else questions(w, n, held, {"fact": 0, "absent": 1, "mixed": .15}[kind])
    return place(r, text, turns)

