"""Sentences that say more than one fact: with qualifiers before, between and after, and with two or three facts at once.

A qualifier is words that are neither key nor value: a place, a time, a source, an old value. Forms mark with `^N` where one may
stand: 0 in front, 1 after the attribute, 2 after the subject, 3 after the verb, 4 at the end.
A structure is a pair of kind and position, a form, or a pattern of two facts; `HELD_*` are kept whole for evaluation.
"""
import pairs
from phrasings import cap
from words import DAYS, MONTHS, ROLES, WHEN, any_word, digits, made_up, name_part, phrase, pick
from values import clock, code, color, date, number, person, town

YEARS = [str(y) for y in range(1980, 2031)]


def place(r, v):
    return f"{pick(r, ('in', 'in', 'in', 'at', 'near', 'outside', 'from', 'of'))} {pick(r, (town(r, v), town(r, v), 'the ' + pick(r, PARTS), 'the ' + pick(r, v.goods) + ' ' + pick(r, PARTS), town(r, v) + ' ' + pick(r, PARTS)))}"


PARTS = "office hall building wing branch house basement yard north south east west city village school department plant hotel store gate market".split()
NOUNS = "visitors guests staff deliveries emergencies weekends members children tests repairs training holidays cleaning inspections summer winter".split()


def time(r, v):
    return pick(r, (f"since {pick(r, MONTHS)}", f"since {date(r, v)}", f"on {pick(r, DAYS)}s", f"until {date(r, v)}", f"from {clock(r, v)} on", f"as of {date(r, v)}", "this week", "this year", "at night",
                    f"in {pick(r, YEARS)}", f"since {pick(r, YEARS)}", "during the summer", "for the time being", f"after {pick(r, DAYS)}", "at the moment", f"between {clock(r, v)} and {clock(r, v)}", f"as of {pick(r, DAYS)}",
                    f"every {pick(r, DAYS)}", f"until {pick(r, MONTHS)}", f"before {clock(r, v)}", "these days", f"by {date(r, v)}", f"for {int(r.random() * 30) + 2} days"))


def source(r, v):
    return pick(r, (f"according to {person(r, v)}", f"according to the {pick(r, PARTS)}", f"as {person(r, v)} wrote", f"says {person(r, v)}", "by the register", "as far as we know", f"on page {number(r, v)}",
                    f"as noted by {person(r, v)}", f"in the words of {person(r, v)}", f"as listed under {code(r, v)}", "so the report says", f"if {person(r, v)} is right"))


def purpose(r, v):
    return pick(r, (f"for {pick(r, NOUNS)}", f"for the {any_word(r)}", f"for {phrase(r, 2)}", f"to {any_word(r)} the {any_word(r)}", f"in case of {pick(r, NOUNS)}", f"with {phrase(r, 2)}"))


def reason(r, v):
    return pick(r, (f"because of the {pick(r, ('storm', 'rain', 'repairs', 'new rules', 'holiday', 'strike', 'snow'))}", f"due to {phrase(r, 2)}", f"thanks to {person(r, v)}", f"after the {pick(r, ('move', 'change', 'audit', 'fire', 'repair'))}", f"at the request of {person(r, v)}"))


def adverb(r, v):
    return pick(r, ("currently", "still", "usually", "normally", "now", "today", "temporarily", "again", "officially", "at present", "already", "mostly", "exactly", "always"))


def anything(r, v):
    return f"{pick(r, ('in', 'on', 'at', 'by', 'with', 'under', 'over', 'for', 'from', 'to', 'of', 'about', 'like', 'near', 'without', 'behind', 'among', 'through', 'against', 'since'))} {pick(r, ('', 'the ', 'a ', ''))}{phrase(r, 3) if r.random() < .5 else any_word(r).capitalize()}"


def bracket(r, v):
    return pick(r, (f"({town(r, v)})", f"(see {code(r, v)})", f"(as of {date(r, v)})", f"({phrase(r, 3)})", f"({pick(r, ROLES)})", f"(page {number(r, v)})", f"({color(r, v)})", f"({place(r, v)})", f"({time(r, v)})"))


def relative(r, v):
    return pick(r, (f"who moved here from {town(r, v)}", f"which was painted {color(r, v)} in {pick(r, MONTHS)}", f"who works as a {pick(r, ROLES)}", f"which {person(r, v)} chose", f"that was opened in {pick(r, YEARS)}",
                    f"who came to us in {pick(r, YEARS)}", f"which stands near {town(r, v)}", f"whom everyone calls {made_up(r).capitalize()}", f"that {person(r, v)} looks after", f"which we got from {person(r, v)}", f"who likes {phrase(r, 2)}"))


def apposition(r, v):
    return pick(r, (f"a {pick(r, ROLES)} from {town(r, v)}", f"our {pick(r, ROLES)}", f"the {pick(r, ROLES)} of {town(r, v)}", f"the new {any_word(r)}", f"one of the {pick(r, ROLES)}s", f"the oldest of the {any_word(r)}s", f"a friend of {person(r, v)}"))


KINDS = {"place": place, "time": time, "source": source, "purpose": purpose, "reason": reason, "adverb": adverb, "any": anything, "bracket": bracket, "relative": relative, "apposition": apposition}
ENCLOSED = ("relative", "apposition")
# What may stand where.
PLACES = {0: ["place", "time", "source", "purpose", "reason", "any"], 1: ["place", "purpose", "bracket", "any", "time"], 2: ["place", "time", "purpose", "bracket", "relative", "apposition", "any", "reason", "source"],
          3: ["adverb", "time", "source", "place", "reason"], 4: ["place", "time", "source", "purpose", "reason", "bracket", "any"]}
HELD_PAIRS = {("reason", 0), ("reason", 2), ("reason", 3), ("reason", 4), ("relative", 2), ("bracket", 1), ("source", 3), ("time", 0)}
# Form, and whether a comma may close what stands after the subject.
FORMS = """^0 the {a}^1 of {s}^2 is^3 {v}^4.
^0 the {a}^1 for {s}^2 is^3 {v}^4.
^0 {s}^2 has^3 the {a} {v}^4.
^0 {s}^2 has^3 {a} {v}^4.
^0 {s}^2 uses^3 {v} as {a}^4.
{v}^3 is the {a} of {s}^4.
^0 the {a}^1 of {s}^2 was^3 {v}^4.
^0 {s}^2 was given^3 the {a} {v}^4.
^0 you find {s}^2 under the {a} {v}^4.
{A} of {s}^2: {v}^4
{b}^2: {a} {v}^4
{b}^2 - {a}: {v}^4
^0 {s}'s {a}^2 is^3 {v}^4.
^0 we gave {s}^2 the {a} {v}^4.
^0 the {a} that {s}^2 has is^3 {v}^4.
^0 {s}^2 keeps^3 {v} as its {a}^4.
^0 the {a}^1 belonging to {s}^2 is^3 {v}^4.
^0 it is {v} that {s}^2 has as {a}^4.
^0 the {a}^1 of {s}^2 reads^3 {v}^4.
^0 ask for {s}^2 and use the {a} {v}^4.
^0 {s}^2 goes by^3 the {a} {v}^4.
^0 the {a}^1 of {s}^2 must be^3 {v}^4.""".split("\n")
HELD_FORMS = [x for i, x in enumerate(FORMS) if i % 7 == 6]
TRAIN_FORMS = [x for i, x in enumerate(FORMS) if i % 7 != 6]
# An old value beside the new one.
OLD = ["The {a} of {s} is {v} (formerly {o}).", "The {a} of {s}, formerly {o}, is {v}.", "{S} has the {a} {v} instead of {o}.", "The {a} of {s} changed from {o} to {v}.", "The {a} of {s} is {v}, not {o}.",
       "The {a} of {s} is no longer {o} but {v}.", "Before it was {o}; now the {a} of {s} is {v}.", "{S} had the {a} {o} and has {v} today.", "The {a} of {s} was {o} until {d}; since then it is {v}.", "{A} of {s}: {v} (was {o})"]
HELD_OLD = OLD[5::5]
OLD += ["It was {o} and is now {v}: the {a} of {s}.", "{S} used to have the {a} {o}; it is {v} now.", "The {a} of {s} is {v}; {o} is out of date.", "Not {o} but {v} is the {a} of {s}.", "The {a} of {s}: {v} instead of {o}", "{v} replaced {o} as {a} of {s}.",
        "The {a} {o} of {s} is void, take {v}.", "{S} gave up the {a} {o} for {v}.", "The {a} of {s} is not {o}, it is {v}.", "Many think the {a} of {s} is {o}, but it is {v}.", "In the past {s} had the {a} {o}, but it is {v} these days.", "The {a} of {s} moved from {o} to {v}.",
        "Once {o}, the {a} of {s} is {v} since {d}.", "Do not use {o} for {s}: the {a} is {v}.", "Old {a} of {s}: {o}. New: {v}", "The {a} of {s} is {v} ({o} before {d}).", "Until {d} the {a} of {s} was {o}, from then on {v}.", "{b}: {a} {v}, previously {o}"]
TRAIN_OLD = [x for x in OLD if x not in HELD_OLD]
# One subject and two or three facts, one attribute of two subjects, or two facts that share nothing.
SAME_SUBJECT = """The {a} of {s} is {v} and the {a2} is {v2}.
{S} has the {a} {v} and the {a2} {v2}.
{S} has {a} {v}, {a2} {v2} and {a3} {v3}.
With {a} {v} and {a2} {v2}, {s} is on the list.
The {a} and the {a2} of {s} are {v} and {v2}.
{S}, whose {a} is {v}, has the {a2} {v2}.
{S}: {a} {v}, {a2} {v2}.
While the {a} of {s} is {v}, the {a2} is {v2}.
Besides the {a} {v}, {s} has the {a2} {v2}.
{S} was given {v} as {a} and {v2} as {a2}.
The {a} of {s} is {v}; the {a2}, {v2}.
For {s}, the {a} is {v} and the {a2} {v2}.
{v} is the {a} and {v2} the {a2} of {s}.
{S} ({a} {v}, {a2} {v2}) is known here.
{S} with the {a} {v} has the {a2} {v2}.
For {s} we noted {v} ({a}), {v2} ({a2}) and {v3} ({a3}).
{b} | {a} = {v} | {a2} = {v2}
The {a} of {s} is {v}. The {a2} is {v2}.
Not only the {a} of {s} is known ({v}), but also the {a2}: {v2}.
{S} has {v} as {a}, {v2} as {a2} and {v3} as {a3}.""".split("\n")
SAME_ATTRIBUTE = """The {a} of {s} is {v} and that of {s2} is {v2}.
{S} has the {a} {v}, {s2} {v2}.
{S} and {s2} have the {a} {v} and {v2}, respectively.
While {s} has the {a} {v}, {s2} has {v2}.
The {a} of {s} is {v}, but the one of {s2} is {v2}.
{A}: {v} for {s}, {v2} for {s2}.
Unlike {s} with the {a} {v}, {s2} has {v2}.
{v} is the {a} of {s}, {v2} that of {s2}.
As {a}, {s} has {v} and {s2} has {v2}.
The {a} is {v} for {s} and {v2} for {s2}.
{b} and {b2} differ in the {a}: {v} and {v2}.
{a}: {b} {v}, {b2} {v2}""".split("\n")
NOTHING_SHARED = """The {a} of {s} is {v}, and the {a2} of {s2} is {v2}.
{S} has the {a} {v}; the {a2} of {s2} is {v2}.
The {a} of {s} is {v}, whereas {s2} has the {a2} {v2}.
While the {a} of {s} is {v}, the {a2} of {s2} is {v2}.
{S} ({a} {v}) knows {s2} ({a2} {v2}).
{b}: {a} {v}; {b2}: {a2} {v2}
If {s} has the {a} {v}, then {s2} has the {a2} {v2}.
{S} uses {v} as {a} and {s2} uses {v2} as {a2}.
The {a} {v} belongs to {s}, the {a2} {v2} to {s2}.""".split("\n")
HELD_OLD_TWO = ["{S} dropped the {a} {o} in favor of {v}.", "{S} chose {v} over {o} as {a}."]
CONNECT = [" and ", ", and ", ", but ", "; ", ", while ", ", whereas ", " - ", "; also ", ", so ", ". Then ", ", just as ", " because "]
PAIRS = {"same-subject": SAME_SUBJECT, "same-attribute": SAME_ATTRIBUTE, "nothing-shared": NOTHING_SHARED}


def held_pair(i):
    return i % 5 == 4


KEPT = {pairs.bare(x) for xs in PAIRS.values() for i, x in enumerate(xs) if held_pair(i)}


def lower(s):
    return s[:1].lower() + s[1:] if s[:1].isupper() and s[1:2].islower() and s.split(" ")[0] in ("The", "For", "With", "While", "Besides", "As", "Unlike", "Not", "If") else s


def placed(r, form, kinds, v):
    """`form` with one qualifier at each position in `kinds`; returns the text and the first qualifier."""
    first = None
    for n in range(5):
        mark = f"^{n}"
        if mark not in form:
            continue
        if n not in kinds:
            form = form.replace("^0 ", "") if n == 0 else form.replace(mark, "")
            continue
        q = KINDS[kinds[n]](r, v).replace("{", "").replace("}", "")
        first = first or (q if kinds[n] not in ENCLOSED and kinds[n] != "bracket" else None)
        if n == 0:
            form = form.replace(mark, cap(q) + pick(r, (",", ",", ",", ":" if r.random() < .2 else ",", "")), 1)
        elif kinds[n] in ENCLOSED:
            form = form.replace(mark, f", {q}," if not form.split(mark)[1].startswith(":") else f", {q}", 1)
        elif kinds[n] == "bracket":
            form = form.replace(mark, " " + q, 1)
        elif n == 4:
            form = form.replace(mark, pick(r, (" ", " ", ", ", " - ")) + q, 1)
        elif n == 3 and kinds[n] != "adverb":
            form = form.replace(mark, pick(r, (f", {q},", f" {q},", f" - {q} -", f", {q},")), 1)
        else:
            form = form.replace(mark, pick(r, (" " + q, " " + q, " " + q, f", {q},", f" ({q})")) if n == 2 and not form.split(mark)[1].startswith(":") else " " + q, 1)
    return form, first


def choose(r, form, held):
    """Positions and kinds for the qualifiers of one sentence: one, sometimes two."""
    marks = [n for n in range(5) if f"^{n}" in form]
    out = {}
    for n in r.sample(marks, min(len(marks), 1 if r.random() < .65 else 2)):
        ks = [k for k in PLACES[n] if ((k, n) in HELD_PAIRS) == held]
        if ks:
            out[n] = pick(r, ks)
    return out


def qualified(r, fact, name, held=False, structure=None, v=None):
    """A sentence for `fact` with qualifiers, a qualifier that a question may name, or None, and a value that held before, or None. With
    `held` from the structures kept for evaluation: `structure` is `KIND-POSITION`, `form`, `old` or `old-two`."""
    (bare, the), a, value = fact
    if structure in ("old", "old-two") or structure is None and r.random() < (.14 if v.held else .26):
        forms = (HELD_OLD if structure == "old" else HELD_OLD_TWO) if held else TRAIN_OLD
        for _ in range(8):
            old = a["draw"](r, v)
            if old != value and old not in value and value not in old:
                break
        else:
            old = "unknown"
        if not v.held and r.random() < .8:
            form, once = pairs.denial(r)
            return write(form, bare, the, name, value, old, date(r, v)), None, old if once and old != "unknown" else None
        return write(pick(r, forms), bare, the, name, value, old, date(r, v)), None, None
    if structure == "form":
        form = pick(r, HELD_FORMS)
        kinds = choose(r, form, False)
    elif structure:
        kind, n = structure.split("-")
        n = int(n)
        form = pick(r, [f for f in TRAIN_FORMS if f"^{n}" in f])
        kinds = {n: kind}
    else:
        form = pick(r, TRAIN_FORMS)
        kinds = choose(r, form, False)
    form, q = placed(r, form, kinds, v)
    return write(form, bare, the, name, value, "", ""), q, None


def write(form, bare, the, name, value, old, d):
    return cap(form.format(s=the, S=cap(the), b=bare, a=name, A=cap(name), v=value, o=old, d=d).strip())


def together(r, facts, names, pattern):
    """Two or three facts in one sentence of `pattern`."""
    words = {}
    for i, ((bare, the), _, value) in enumerate(facts):
        n = "" if not i else str(i + 1)
        words |= {"s" + n: the, "S" + n: cap(the), "b" + n: bare, "a" + n: names[i], "A" + n: cap(names[i]), "v" + n: value}
    return pattern.format(**words)


def pattern_of(r, kind, held):
    if not held and r.random() < .8:
        return pairs.pattern(r, kind, KEPT)
    return pick(r, [x for i, x in enumerate(PAIRS[kind]) if held_pair(i) == held])
