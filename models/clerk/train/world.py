"""Subjects and facts. A `World` hands out subjects and never states two values for one subject and attribute.

A subject is `(bare, the)`: its name alone ("Selby depot") and inside a sentence ("the Selby depot").
A fact is `(subject, attribute, value)`.

A dense world draws its subjects from products of small pools (20 first x 15 last names and the like), so every part of a
key is shared by many facts and only the whole key is unique. A wide world draws from everything, made-up names included.
"""
import relations
from values import ATTRS, QUALIFIERS, invented
from words import ENVS, GATHERINGS, KINDS, SERVICE_B, VOCAB, any_word, made_up, name_part, pick

POLICIES = """overtime travel parking catering printing training cleaning transport storage repairs software hardware
furniture shipping insurance advertising photography translation""".split()
KIND_WEIGHTS = ["person"] * 10 + ["site"] * 4 + ["item"] * 4 + ["event"] * 3 + ["service"] * 4 + ["policy"] * 2


# The families in which an attribute's name occurs.
HOME = {}
for (_kind, _held), _attrs in ATTRS.items():
    for _a in _attrs:
        if _held and _kind not in HOME.setdefault(_a["key"], []):
            HOME[_a["key"]].append(_kind)
# In training, those of the relations too.
HOME_ALL = {key: list(kinds) for key, kinds in HOME.items()}
for _kind, _attrs in relations.ATTRIBUTES.items():
    for _a in _attrs:
        HOME_ALL.setdefault(_a["key"], []).append(_kind)
WIDE = KIND_WEIGHTS + ["company"] * 3 + ["vehicle", "animal"]


def sample(r, xs, n):
    return r.sample(xs, min(n, len(xs)))


class World:
    def __init__(self, r, dense, held=False, kinds=None):
        self.families = kinds or (["person"] if dense and r.random() < .4 else KIND_WEIGHTS if held else WIDE)
        self.r, self.dense, self.held, self.vocab = r, dense, held, VOCAB[held]
        self.stated, self.closed = {}, set()
        self.qualified = r.random() < .15
        # Most sections in sentences that say more than one fact.
        self.focus = not held and r.random() < .2
        v = self.vocab
        self.share = 0 if held else pick(r, (0, 0, .3, .9))
        self.invented = [invented(r) for _ in range(5 + int(r.random() * 12))]
        if dense:
            self.firsts, self.lasts = self.names(v.first, 20), self.names(v.last, 15)
            self.places, self.kinds = self.names(v.places, 9), sample(r, KINDS, 9)
            self.shades, self.goods = self.words(v.shades, 8), self.words(v.goods, 9)
            self.topics, self.gatherings = self.words(v.topics, 8), sample(r, GATHERINGS, 6)
            self.service_a, self.service_b = self.words(v.service_a, 8), sample(r, SERVICE_B, 7)

    def names(self, pool, n):
        """`n` capitalized names; in training the pool's share is anything from none to all."""
        share = 1 if self.held else self.r.random() * 1.2
        return list(dict.fromkeys(pick(self.r, pool) if self.r.random() < share else any_word(self.r).capitalize() for _ in range(n * 2)))[:n] \
            if not self.held else sample(self.r, pool, n)

    def words(self, pool, n):
        return [w.lower() for w in self.names(pool, n)]

    def subject(self, kind):
        r, v, dense = self.r, self.vocab, self.dense
        if kind in relations.SUBJECTS:
            return relations.subject(r, kind, v)
        if kind == "person":
            if dense:
                s = f"{pick(r, self.firsts)} {pick(r, self.lasts)}"
            else:
                first = name_part(r, v.first, self.held) if r.random() < .7 else made_up(r).capitalize()
                s = f"{first} {name_part(r, v.last, self.held) if r.random() < .5 else made_up(r).capitalize()}"
            if not self.held and not dense and r.random() < .15:
                first, last = s.split(" ", 1)
                s = pick(r, (first, f"{first[0]}. {last}", f"{first} {made_up(r).capitalize()} {last}", f"{pick(r, ('Dr.', 'Mrs', 'Mr', 'Ms', 'Doctor', 'Professor'))} {last}", f"{first}-{any_word(r).capitalize()} {last}"))
            return s, s
        if kind == "site":
            s = (f"{pick(r, self.places)} {pick(r, self.kinds)}" if dense else
                 f"{name_part(r, v.places, self.held) if r.random() < .5 else made_up(r).capitalize()} {pick(r, KINDS)}")
        elif kind == "item":
            s = (f"{pick(r, self.shades)} {pick(r, self.goods)}" if dense else
                 f"{pick(r, v.shades)} {pick(r, v.goods)}" if r.random() < .4 else f"{pick(r, v.goods)} {made_up(r) if self.held else any_word(r)}")
        elif kind == "event":
            s = (f"{pick(r, self.topics)} {pick(r, self.gatherings)}" if dense else
                 f"{pick(r, v.topics) if r.random() < .5 else made_up(r) if self.held else any_word(r)} {pick(r, GATHERINGS)}")
        elif kind == "service":
            s = (f"{pick(r, self.service_a)}-{pick(r, self.service_b)}" if dense else
                 f"{pick(r, v.service_a) if r.random() < .5 else made_up(r)}-{pick(r, SERVICE_B)}")
            if r.random() < .3:
                s += " in " + pick(r, ENVS)
            return s, s
        else:
            s = pick(r, POLICIES)
            if not dense or r.random() < .6:
                s = f"{pick(r, QUALIFIERS) if dense or r.random() < .5 else made_up(r)} {s}"
            return s, s
        return s, "the " + s

    def subjects(self, kind, n):
        seen = {}
        for _ in range(n * 4):
            s = self.subject(kind)
            seen[s[0]] = s
            if len(seen) == n:
                break
        return list(seen.values())

    def attribute(self, kind):
        k = self.r.random()
        if k < self.share:
            a = pick(self.r, self.invented)
        elif not self.held and kind in relations.ATTRIBUTES and (kind in relations.SUBJECTS or self.r.random() < .4):
            a = pick(self.r, relations.ATTRIBUTES[kind])
        else:
            a = pick(self.r, ATTRS[kind, self.held])
        if self.qualified and self.r.random() < .4:
            q = pick(self.r, QUALIFIERS)
            a = {"key": f"{q} {a['key']}", "names": [f"{q} {n}" for n in a["names"]], "draw": a["draw"], "says": [], "asks": []}
        return a

    def attributes(self, kind, n):
        seen = {}
        for _ in range(n * 4):
            a = self.attribute(kind)
            seen[a["key"]] = a
            if len(seen) == n:
                break
        return list(seen.values())

    def state(self, subject, attribute):
        """A new fact, or None when the pair already has a value."""
        key = subject[0], attribute["key"]
        if key in self.stated or key in self.closed:
            return None
        fact = subject, attribute, attribute["draw"](self.r, self.vocab)
        self.stated[key] = fact
        return fact

    def scattered(self, n):
        """About `n` facts whose subjects and attributes repeat in no order."""
        kind = pick(self.r, self.families)
        out = [self.state(self.subject(kind), self.attribute(kind)) for _ in range(n)]
        return [f for f in out if f]

    def records(self, rows, columns):
        """A matrix: the attributes, and one list of facts (None where already stated) per subject."""
        kind = pick(self.r, self.families)
        attributes = self.attributes(kind, columns)
        matrix = []
        for s in self.subjects(kind, rows):
            row = [self.state(s, a) for a in attributes]
            if all(row):
                matrix.append(row)
            else:
                for f in row:
                    if f:
                        del self.stated[s[0], f[1]["key"]]
        return kind, attributes, matrix

    def absent(self):
        """A pair that is not stated: half of the time both of its parts are, in other facts."""
        facts, home = list(self.stated.values()), HOME if self.held else HOME_ALL
        for _ in range(40):
            one, two = pick(self.r, facts), pick(self.r, facts)
            if not one[1]["draw"] or not two[1]["draw"]:
                continue
            known = home.get(one[1]["key"])
            if self.r.random() < .5 and known:
                s, a = self.subject(pick(self.r, known) if len(self.families) > 1 else "person"), one[1]
            else:
                s, a = two[0], one[1]
                if home.get(two[1]["key"]) != known:
                    continue
            if all((s[0], k) not in self.stated and (s[0], k) not in self.closed for k in self.related(a)):
                return s, a
        return None

    def related(self, a):
        return {a["key"]} | {f"{q} {a['key']}" for q in QUALIFIERS}
