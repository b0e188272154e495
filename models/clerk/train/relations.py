"""Attributes that have sentences and questions of their own: where somebody was born, what a firm makes, who drives a bus.

relations.txt: `# FAMILY`, then one relation a line: `NAME,ALIAS,~KEY,...=KIND | VERB PHRASES | QUESTIONS | OTHERS`. A verb phrase goes on after
the subject, so it also asks: "was born in Kelso" - "Who was born in Kelso?". Others are whole sentences, or verbs ("lead leads") that the
value does to the subject. A KEY is a name in JSON alone. Training alone uses all this.
"""
import pathlib

from intents import KINDS_OF
from values import FAMILIES, date, day, price, role
from words import COLORS, any_word, digits, made_up, pick

ANIMALS = "dog cat horse rabbit parrot goat hamster turtle pony donkey sheep duck goose mouse snake owl".split()
VEHICLES = "bus train bike car tram taxi ferry van scooter boat plane motorbike subway".split()
HOBBIES = "chess,painting,fishing,old radios,the garden,sailing,long walks,card games,swimming,model trains,poetry,knitting,running,bird watching,puzzles".split(",")
DRINKS = "tea coffee milk water cider lemonade cocoa juice beer wine soda".split()
OCCASIONS = "peace,the harvest,the new bridge,a wedding,the first snow,old films,clean water,the town's birthday,a victory,spring,safety at work,local music".split(",")
FILES = "toml yaml json ini conf cfg".split()


def listed(xs):
    return lambda r, v: pick(r, xs)


def phone(r, v):
    return pick(r, ("", "0", "+")) + digits(r, 3) + pick(r, (" ", "-", "", "/")) + digits(r, 4)


def between(low, high):
    return lambda r, v: str(low + int(r.random() * (high - low)))


DRAW = {**KINDS_OF, "date": date, "day": day, "role": role, "price": price, "phone": phone, "number": lambda r, v: str(1 + int(r.random() ** 2 * 900)), "small": between(1, 60), "age": between(17, 95), "year": between(1880, 2031),
        "height": between(140, 205), "shoe": between(34, 49), "color": listed(COLORS), "haircolor": listed("black brown grey red white blond dark".split()), "animal": listed(ANIMALS),
        "vehicle": listed(VEHICLES), "hobbies": lambda r, v: pick(r, HOBBIES) if r.random() < .7 else any_word(r), "drinks": listed(DRINKS), "occasions": lambda r, v: pick(r, OCCASIONS) if r.random() < .6 else "the " + any_word(r),
        "instrument": listed("piano violin flute drums guitar trumpet harp cello organ oboe".split()), "fuel": listed("oil gas wood coal pellets steam".split()), "material": listed("oak,steel,glass,wool,brass,leather,copper,paper,cotton,clay,rubber,silk,tin,marble".split(",")),
        "proglang": listed("Rust Python Go Java Ruby C Swift Kotlin Perl Haskell Lua TypeScript".split()), "ip": lambda r, v: ".".join(str(int(r.random() * 256)) for _ in range(4)),
        "street": lambda r, v: f"{1 + int(r.random() * 200)} {any_word(r).capitalize()} {pick(r, ('Street', 'Road', 'Lane', 'Avenue', 'Square', 'Hill', 'Way', 'Court'))}",
        "path": lambda r, v: pick(r, ("", "etc/", "conf/", "/etc/")) + any_word(r).lower() + "." + pick(r, FILES), "good": lambda r, v: pick(r, v.goods) if r.random() < .6 else any_word(r).lower().rstrip("s") or "box"}
def company(r, v):
    s = " ".join(any_word(r).capitalize() for _ in range(1 + int(r.random() * 2)))
    return s + pick(r, ("", "", " Ltd", " Inc", " and Sons", " GmbH", " Group", " Works", " Bank", " Foods"))


def vehicle(r, v):
    return f"{pick(r, ('bus', 'train', 'ferry', 'truck', 'tram', 'flight', 'boat', 'van'))} {pick(r, (digits(r, 2), digits(r, 3), any_word(r).capitalize(), pick(r, 'ABCDEFGHKLM') + digits(r, 2)))}"


def animal(r, v):
    return any_word(r).capitalize() if r.random() < .6 else made_up(r).capitalize()


# Families that only training has, and how their subjects are called.
SUBJECTS = {"company": company, "vehicle": vehicle, "animal": animal}
# Kinds whose values are so few that two subjects may share one.
FEW = ("small", "age", "year", "height", "shoe", "color", "haircolor", "animal", "vehicle", "hobbies", "drinks", "occasions", "instrument", "fuel", "material", "proglang", "role", "number", "month", "lang", "dish", "good", "clock", "date", "day", "when", "int")
PLURAL = ("children", "floors", "rooms", "passengers", "visitors")
NUMBERS = ("small", "age", "year", "height", "shoe", "number")


class Relation:
    def __init__(self, row):
        head, phrases, asks, *others = (x.strip() for x in row.split(" | "))
        # `(sentence, question for the subject or "")`
        self.others = []
        for x in others[0].split("; ") if others else []:
            words = x.split(" ")
            self.others.append((x, "") if "{" in x else ("{v} " + " ".join(words[len(words) // 2:]) + " {s}", "does {v} " + " ".join(words[:len(words) // 2])))
        names, self.kind = head.split("=")
        words = names.split(",")
        self.names, self.keys = [x for x in words if x[0] != "~"], [x.lstrip("~") for x in words]
        self.phrases, self.asks = phrases.split("; "), asks.split("; ")
        self.draw = DRAW[self.kind]
        # Names that stand after "the"; the others are keys alone.
        self.nouns = [n for n in self.names if n.split(" ")[-1] not in ("by", "in", "to", "of", "on", "from", "call") and n.split(" ")[0] not in PLURAL]

    def attribute(self):
        """The same as a World wants it."""
        return {"key": self.nouns[0], "names": self.nouns, "draw": self.draw, "says": ["{s} " + p + "." for p in self.phrases], "asks": self.asks}


def read():
    out = {}
    for row in (pathlib.Path(__file__).parent / "relations.txt").read_text().splitlines():
        if row.startswith("# "):
            family = out.setdefault(row[2:], [])
        else:
            family.append(Relation(row))
    return out


RELATIONS = read()
KEPT = {f: {n for i, a in enumerate(attrs) if i % 7 == 6 for n in a["names"]} for f, attrs in FAMILIES.items()}
for _f, _all in RELATIONS.items():
    # A name that evaluation keeps is never shown.
    RELATIONS[_f] = [x for x in _all if not set(x.names) & KEPT.get(_f, set())]
ATTRIBUTES = {f: [x.attribute() for x in xs] for f, xs in RELATIONS.items()}


def subject(r, family, v):
    """`(bare, the)` of a subject of one of these families."""
    name = SUBJECTS[family](r, v)
    return name, ("the " if family == "vehicle" and not name.startswith("flight") else "") + name
