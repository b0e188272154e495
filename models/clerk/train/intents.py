"""Tools of everyday life and how people ask for what they do, half of the time in none of the tool's own words.

intents.txt: `# NAMES | DESCRIPTIONS | PARAMETERS`, then one request a line. A parameter is `NAME,ALIAS,...=KIND`; `{0}` in a
request is the first one's value. Evaluation keeps every fourth request of a tool and every eighth tool whole.
intents-more.txt is for training alone: more tools, and after `+ NAME` more for a tool of the first file. A line `n WORDS` is a noun
phrase, `v WORDS` a verb phrase; rough.py makes questions, wishes and commands of them.
"""
import json
import pathlib

import rough
import schemas
from values import COLORS, code, clock, date, number, person, port, role, town, version
from words import DAYS, ENGLISH, GOODS, KINDS, MONTHS, SERVICE_A, SERVICE_B, VOCAB, any_word, digits, line, made_up, name_part, phrase, pick, split

UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ"
CUISINES = "Italian Thai Greek Indian Mexican Chinese Turkish French Spanish Korean Japanese Lebanese".split()
DISHES = "pizza soup burger salad lasagna curry ramen pancakes dumplings risotto taco omelette stew falafel goulash sushi pie kebab".split()
LANGUAGES = "French Spanish German Italian Dutch Polish Greek Turkish Russian Japanese Korean Swedish Danish Arabic Hindi Finnish".split()
CURRENCIES = "EUR USD GBP JPY CHF SEK NOK PLN INR CAD AUD CZK euros dollars pounds yen francs crowns".split()
UNITS = "meters feet miles kilometers inches grams pounds ounces liters gallons cups hours minutes seconds acres tons knots yards".split()
ROOMS = "kitchen bedroom garage cellar hall attic office bathroom nursery workshop terrace garden library lounge study corridor".split()
RELATIVE = "today tomorrow tonight|next week|next Monday|this weekend|next Friday|the day after tomorrow".replace(" tomorrow tonight", "|tomorrow|tonight").split("|")
EXTENSIONS = "py rs txt md toml json js ts go java csv yaml html log c sh".split()


def when(r, v):
    k = r.random()
    return pick(r, DAYS) if k < .35 else date(r, v) if k < .55 else f"20{digits(r, 2)}-{1 + int(r.random() * 12):02d}-{1 + int(r.random() * 28):02d}" if k < .75 else pick(r, RELATIVE)


def path(r, v):
    folder = "/".join([""] * (r.random() < .2) + [any_word(r) for _ in range(int(r.random() * 3))])
    return (folder + "/" if folder else "") + any_word(r) + pick(r, ("_", "", "-")) + (any_word(r) if r.random() < .3 else "") + "." + pick(r, EXTENSIONS)


def folder(r, v): return pick(r, ("", "/", "./", "~/")) + "/".join(any_word(r) for _ in range(1 + int(r.random() * 2)))
def url(r, v): return f"{pick(r, ('https://', 'http://', 'https://www.', ''))}{made_up(r)}.{pick(r, ('com', 'org', 'net', 'io', 'example'))}" + ("/" + any_word(r) if r.random() < .5 else "")
def words(r, v): return (phrase(r, 4) if r.random() < .6 else f"{pick(r, ('buy', 'call', 'the', 'clean', 'pay', 'new', 'a', 'bring', 'old'))} {pick(r, GOODS + TASK_WORDS)}" + (f" {pick(r, ('for', 'with', 'of', 'and'))} {pick(r, TASK_WORDS)}" if r.random() < .4 else ""))
def ident(r, v): return pick(r, ("_".join(any_word(r) for _ in range(1 + int(r.random() * 2))), any_word(r) + any_word(r).capitalize(), any_word(r).upper()))
def cmd(r, v): return pick(r, ("ls -la", "git status", "make " + any_word(r), "cat " + path(r, v), "echo " + any_word(r), "cargo test", "npm run " + any_word(r), "pwd", "df -h", "python3 " + path(r, v), line(r, 4).strip()))
def title(r, v): return " ".join(any_word(r).capitalize() for _ in range(1 + int(r.random() * 3)))
def service(r, v): return f"{pick(r, SERVICE_A) if r.random() < .4 else any_word(r)}{pick(r, ('-', '_', '-'))}{pick(r, SERVICE_B) if r.random() < .6 else any_word(r)}"
def ticker(r, v): return "".join(pick(r, UPPER) for _ in range(3 + int(r.random() * 2))) if r.random() < .6 else town(r, v)
def flight(r, v): return pick(r, UPPER) + pick(r, UPPER) + digits(r, 3 + int(r.random() * 2))
def expr(r, v): return pick(r, (" ", "")).join([number(r, v)] + [x for _ in range(1 + int(r.random() * 2)) for x in (pick(r, "+-*/"), number(r, v))])
def email(r, v): return f"{made_up(r)}{pick(r, ('', '.', '_'))}{made_up(r)}@{made_up(r)}.{pick(r, ('org', 'com', 'net', 'example'))}"


TASK_WORDS = "milk bread paint lunch report taxes flowers meeting budget garden music history science cooking travel sports health weather politics bikes letters windows keys papers photos books".split()
def where(r, v): return town(r, v) + (", " + pick(r, UPPER) + pick(r, UPPER) if r.random() < .06 else ", " + made_up(r).capitalize() if r.random() < .04 else "")


KINDS_OF = {"town": where, "when": when, "int": None, "ticker": ticker, "cur": lambda r, v: pick(r, CURRENCIES), "email": email, "words": words, "person": person,
            "clock": clock, "url": url, "path": path, "folder": folder, "ident": ident, "cmd": cmd, "code": code, "flight": flight, "title": title, "dish": lambda r, v: pick(r, DISHES) if r.random() < .6 else any_word(r),
            "cuisine": lambda r, v: pick(r, CUISINES), "roomname": lambda r, v: pick(r, ROOMS), "good": lambda r, v: pick(r, v.goods) if r.random() < .6 else any_word(r), "expr": expr,
            "unit": lambda r, v: pick(r, UNITS), "lang": lambda r, v: pick(r, LANGUAGES), "word": lambda r, v: any_word(r), "topicword": lambda r, v: pick(r, TASK_WORDS) if r.random() < .5 else any_word(r),
            "service": service, "version": version, "room": lambda r, v: pick(r, UPPER) + digits(r, 2) if r.random() < .5 else digits(r, 3), "month": lambda r, v: pick(r, MONTHS),
            "year": None, "role": role}
# Optional parameters that a request may leave unsaid: name, type, values.
EXTRAS = [("unit", ["celsius", "fahrenheit"]), ("units", ["metric", "imperial"]), ("limit", None), ("language", ["en", "de", "fr"]), ("format", ["json", "text", "csv"]), ("max_results", None),
          ("verbose", "boolean"), ("timeout", None), ("order", ["asc", "desc"]), ("page", None), ("category", "string"), ("note", "string"), ("mode", ["fast", "full"]), ("include_details", "boolean"),
          ("offset", None), ("country_code", "string"), ("priority", ["low", "normal", "high"]), ("tags", "array"), ("dry_run", "boolean"), ("radius", None)]


class Intent:
    def __init__(self, head, requests):
        names, texts, params = (x.strip() for x in head[1:].split("|"))
        self.names, self.texts = names.split(), [x.strip() for x in texts.split(";")]
        self.params = []
        for p in params.split(";"):
            aliases, kind = p.strip().split("=")
            self.params.append((aliases.split(","), kind))
        self.requests = requests
        # For training alone: more requests, noun phrases and verb phrases.
        self.more, self.nouns, self.verbs = [], [], []


def read():
    out = []
    for row in (pathlib.Path(__file__).parent / "intents.txt").read_text().splitlines():
        if row.startswith("# "):
            out.append(Intent(row, []))
        else:
            out[-1].requests.append(row)
    return out


def read_more(known):
    """The tools that only training has; adds to those of `known` that both sides have."""
    out = []
    for row in (pathlib.Path(__file__).parent / "intents-more.txt").read_text().splitlines():
        if row.startswith("# "):
            out.append(Intent(row, []))
            this = out[-1]
        elif row.startswith("+ "):
            this = known[row[2:]]
        else:
            (this.nouns if row.startswith("n ") else this.verbs if row.startswith("v ") else this.more).append(row[2:] if row[:2] in ("n ", "v ") else row)
    return out


ALL = read()
POOL = {False: [x for i, x in enumerate(ALL) if i % 8 != 7], True: ALL[7::8]}
# What training shows; evaluation asks for those of the first file alone.
TRAINING = POOL[False] + read_more({x.names[0]: x for x in POOL[False]})


def described_as(r, name, kind):
    words = name.replace("_", " ")
    return pick(r, (f"The {words}.", f"The {words}", f"{words.capitalize()} to use", f"Name of the {words}", f"The {words}, for example {sample_of(r, kind)}", f"{words.capitalize()}"))


def sample_of(r, kind):
    draw = KINDS_OF.get(kind)
    return draw(r, VOCAB[False]) if draw else str(1 + int(r.random() * 90))


def some_number(r, kind):
    n = 1 + int(r.random() ** 2 * 500)
    return n + (1 + int(r.random() * 9)) / 10 if kind == "number" and r.random() < .4 else n


class Wanted:
    """One of these tools as a server declares it, and a request for it."""

    def __init__(self, r, intent, written, style=None, extras=True):
        self.r, self.intent = r, intent
        self.name = written(pick(r, intent.names) if r.random() < .6 else intent.names[0])
        self.text = pick(r, intent.texts) if r.random() < .9 else ""
        self.params, self.keys = [], []
        for aliases, kind in intent.params:
            key = written_param(r, written, aliases[0] if r.random() < .5 else pick(r, aliases))
            if key in self.keys:
                key = written_param(r, written, aliases[0])
            p = {"name": key, "type": pick(r, ("integer", "integer", "number")) if kind == "int" else "integer" if kind == "year" else "string"}
            if kind.startswith("enum:"):
                p["enum"] = kind[5:].split("/")
            self.keys.append(key)
            self.params.append(p)
        self.kinds = [kind for _, kind in intent.params]
        if r.random() < .6:
            for p, kind in zip(self.params, self.kinds):
                p["text"] = described_as(r, p["name"], kind)
        self.extra = []
        if extras and r.random() < .4:
            for name, values in r.sample(EXTRAS, 1 + int(r.random() * 2)):
                if name not in self.keys:
                    p = {"name": name, "type": "integer" if values is None else values if isinstance(values, str) else "string", "optional": True}
                    if isinstance(values, list):
                        p["enum"] = values
                    if r.random() < .4:
                        p["text"] = described_as(r, name, "word")
                    self.extra.append(p)
        self.declaration, self.unsaid = schemas.declare(r, self.name, self.text, self.params + self.extra, style)

    def values(self, v):
        r = self.r
        out = []
        for p, kind in zip(self.params, self.kinds):
            draw = KINDS_OF.get(kind)
            out.append(pick(r, p["enum"]) if "enum" in p else draw(r, v) if draw else 1900 + int(r.random() * 200) if kind == "year" else some_number(r, p["type"]))
        return out

    def request(self, v, forms):
        """`(text, call)` in one of `forms`."""
        r, vs = self.r, self.values(v)
        text = pick(r, forms).format(*vs)
        args = dict(zip(self.keys, vs))
        for p in self.extra:
            value = self.unsaid
            if p["type"] in ("string", "integer") and r.random() < .2:
                value = pick(r, p["enum"]) if "enum" in p else 1 + int(r.random() * 60) if p["type"] != "string" else made_up(r)
                text = text.rstrip(".") + pick(r, (", {n} {v}", ", {n}: {v}", " with {n} {v}", " ({n} {v})", ". Use {n} {v}", "; {n} = {v}")).format(n=p["name"].replace("_", " "), v=value) + "."
            if value is not schemas.OMITTED:
                args[p["name"]] = value
        return text, {"name": self.name, "arguments": args}

    def own_words(self):
        """Words of the tool's name, without endings."""
        return {w for n in [self.name] for w in stems(n)}


def stems(text):
    out, w = [], ""
    for c in text + " ":
        if c.isalpha() and not (c.isupper() and w and w[-1].islower()):
            w += c.lower()
        else:
            if len(w) > 2:
                out.append(w.rstrip("s")[:6])
            w = c.lower() if c.isalpha() else ""
    return out


def written_param(r, written, name):
    """A parameter's name: in the style of the tool's, without its server's."""
    return getattr(written, "inner", written)(name) if r.random() < .5 else name


def forms_of(intent, held, whole):
    """Requests of one side; an intent kept whole for evaluation gives all of them."""
    if whole:
        return intent.requests
    last = len(intent.requests) - 1
    return [x for i, x in enumerate(intent.requests) if (i % 4 == 3 or i == last < 3) == held]


def training_form(r, tool):
    """A request for `tool` as only training makes them; most in none of the words of its name."""
    intent = tool.intent
    for _ in range(4):
        k = r.random()
        if k < .3 and intent.nouns:
            form = rough.of_noun(r, pick(r, intent.nouns))
        elif k < .6 and intent.verbs:
            form = rough.of_verb(r, pick(r, intent.verbs))
        else:
            plain = forms_of(intent, False, False) + intent.more
            form = pick(r, plain) if plain else rough.of_verb(r, pick(r, intent.verbs))
            verb = rough.verb_of(form)
            if verb and r.random() < .4:
                form = rough.of_verb(r, verb)
        if form not in kept_forms(intent) and (r.random() < .4 or unnamed([form], tool)):
            break
    return rough.rough(r, form) if r.random() < .16 else form


def kept_forms(intent):
    return forms_of(intent, True, False) if intent.requests else []


def unnamed(forms, tool):
    """Forms that share no word with the tool's name."""
    own = tool.own_words()
    return [f for f in forms if not own & set(stems(f))]
