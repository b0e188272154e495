"""Word pools of the generator, each split into a part for training and a part kept for evaluation.

Training must not learn the pools by heart, so half of its names and many of its attributes come from `any_word`: made-up
words, English words, and mashes of both, which together use every piece of the tokenizer.

Invariants:
1. `Vocab(held=True)` and `Vocab(held=False)` share no first name, last name, place, item, service or topic.
2. Every sixth entry of a pool is held out, so the split never depends on a seed.
"""

import json
import pathlib
import re

FIRST = """Ada Bruno Clara Dmitri Elena Farid Gwen Hugo Ines Jonas Kira Liam Mina Nils Olga Pavel Qadir Rosa Stefan Tara
Umar Vera Walter Xenia Yara Zoe Amir Beth Carl Dora Erik Fay Gil Hana Ivan Jill Kurt Lena Mark Nora Omar Pia Rene Sven
Tess Uri Vito Wade Agnes Boris Celia Dario Edith Felix Greta Henry Ida Jacob Karin Leon Maya Niko Oscar Paula Quinn Ralf
Sara Theo Ursula Victor Wanda Yusuf Zelda Anton Bella Conrad Diana Emil Flora Georg Helen Igor Julia Kamal Linda Milo
Nadia Otto Petra Rafael Sonia Tomas Una Valentin Wilma Adam Bianca Cyril Daphne Ezra Frida Gustav Hilda Isaac Jana Klaus
Laura Marco Nina Orson Priya Robin Silvia Tim Vanessa Werner Alice Basil Cora Derek Elsa Fritz Gloria Hector Irene Jasper
Katya Lars Monica Noah Odette Philip Ruth Simon Tilda Ulrich Violet William Anna Ben Chloe David Eva Frank Grace Harold
Ilse John Kate Lucas Mary Nick Olive Peter Rachel Sam Tina Vincent""".split()
LAST = """Stone Marsh Keller Novak Silva Brandt Okafor Lindgren Moreau Rossi Tanaka Weber Fischer Baker Carver Dalton
Eriksen Foster Garcia Holm Ibarra Jensen Kowalski Larsen Mendes Nakamura Olsen Petrov Quist Ramos Sato Turner Ulrich
Vargas Winter Young Zimmer Abbott Becker Castro Drake Ellis Fuchs Grant Haas Iversen Joshi Klein Lopez Meyer Nolan Ortega
Park Reyes Schmidt Torres Unger Vogel Walsh Yilmaz Zapata Archer Bishop Cole Duran Engel Flynn Gomez Hansen Ingram Jonas
Kaya Lund Mason Nash Oakley Perez Roth Sharma Thorne Underwood Vance Wolf Yates Zeller Adler Blum Cortez Dietrich Evans
Ford Graf Hill Ismail Jung Krause Lang Morris Neumann Owens Pohl Richter Stein Tran Urban Voss Wagner Yoder Ziegler Ames
Braun Chen Doyle Falk Green Hardy Kim Lane Moss Reed""".split()
PLACES = """Ashford Brimley Calder Dunmore Eastwick Fairholm Glenbay Harrow Inverleigh Kelso Larkhill Marlow Northgate
Oakridge Pinewood Quarrydale Ravenna Selby Thornbury Upton Valmont Westmere Yarrow Zandvoort Alder Birch Cedar Delta Elm
Foxglove Granite Hazel Iris Juniper Kestrel Lotus Maple Nettle Orchid Poplar Quartz Rowan Sorrel Tulip Umber Violet Willow
Amber Basalt Cobalt Dover Ember Flint Garnet Heron Ivory Jasper Lagoon""".split()
KINDS = """office depot clinic library station harbor archive lab market school warehouse kitchen workshop garage museum
hangar studio bakery tower annex pier garden hotel theater""".split()
SHADES = """red blue green amber violet white black silver orange teal brown grey small large heavy light old new round
square wide short tall narrow spare used copper wooden""".split()
GOODS = """lamp kettle drill ladder rope tent pump mirror desk clock scale printer radio bench filter valve cable hammer
bucket candle carpet basket bottle chair crate fan funnel glove helmet hinge jacket kite lantern magnet needle oven paddle
pillow rake ribbon saddle shovel spool stamp tarp tile torch tray vase wheel""".split()
TOPICS = """welding pottery chess yoga first-aid budget safety harvest sailing painting archery cooking drama physics
welcome planning design coding music history fishing dance garden choir robotics poetry language tax""".split()
GATHERINGS = """meeting class tour shift workshop lecture rehearsal seminar course session review briefing""".split()
SERVICE_A = """auth billing search image queue mail report user order cache video payment event audit token metric file
stock route chat label export session profile""".split()
SERVICE_B = """gateway worker api server proxy store index runner monitor sync bridge engine hub agent""".split()
ENVS = "staging production test preview backup canary".split()
ROLES = """director engineer nurse librarian driver analyst chef guard teacher pilot gardener plumber editor cashier
welder surveyor translator accountant electrician painter""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November December""".split()
COLORS = "red blue green amber violet white black silver orange teal brown grey pink yellow".split()
VERBS = """restart clean inspect replace calibrate close open refill test drain lock unlock paint label pack move""".split()
STEPS = """switch off the power|open the side panel|remove the old filter|wait two minutes|check the seal|wipe the sensor
press the green button|note the reading|close the cover|turn the key twice|call the control room|fill the tank
tighten the four bolts|unplug the cable|wear gloves|sign the log sheet|hang the warning sign|rinse with warm water
reset the counter|measure the pressure|lift the lid|lower the lever|attach the hose|empty the tray|send a photo
scan the label|drain the line|print a receipt|warm up the motor|turn the valve left|empty the bin|ring the bell
count the parts|dry the surface|replace the fuse|ask for a witness""".replace("\n", "|").split("|")
SYL = """ba be bi bo bu da de di do du fa fe fi fo ga ge gi go ka ke ki ko ku la le li lo lu ma me mi mo mu na ne ni no
pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo za ze zo sha tri bre flo qui cla dro gre""".split()
ENDS = ["n", "r", "s", "l", "t", "nd", "rk", "th", "x", "m", "nt", "ss", "", "", "", "", "", ""]
AGENT = "gardener teacher driver visitor manager guard cook child nurse sailor clerk farmer doctor painter".split()
ACTS = """carries opens cleans watches repairs borrows finds paints checks leaves counts forgets brings hides moves sells
draws returns keeps needs""".split()
THINGS = """a heavy ladder|the old map|two wooden boxes|a cup of tea|the morning paper|a broken chair|the blue umbrella
some fresh bread|the spare key|a long letter|the garden hose|a small parcel|three empty bottles|the guest list
a warm coat|the yellow folder""".replace("\n", "|").split("|")
WHEN = """before noon|after the rain|in the evening|every other week|near the north gate|behind the hall|without a word
on the first floor|during the storm|when the bell rings|at the end of the day|for a friend|in spring|by mistake
under the stairs|next to the river""".replace("\n", "|").split("|")


ENGLISH = sorted({w.lower() for w in re.findall(r"[A-Za-z]{2,12}", (pathlib.Path(__file__).parent / "english.txt").read_text())})
MARKS = ["-", "_", ".", "/", ":", "=", "#", "@", "+", "~", "%", "&", "*", "--", "::", "->", "|", "<", ">", "(", ")", "[", "]", "{{", "}}", "'", '"', "$", "!", ";", ","]


def split(pool, held):
    """The part of a pool for training, or with `held` the part kept for evaluation."""
    return pool[5::6] if held else [x for i, x in enumerate(pool) if i % 6 != 5]


class Vocab:
    """All entity pools for one side of the split."""

    def __init__(self, held):
        self.held = held
        for name, pool in (("first", FIRST), ("last", LAST), ("places", PLACES), ("shades", SHADES), ("goods", GOODS),
                           ("topics", TOPICS), ("service_a", SERVICE_A)):
            setattr(self, name, split(pool, held))


VOCAB = {False: Vocab(False), True: Vocab(True)}


def pick(r, xs):
    """`random.choice` without its overhead; the generator calls it millions of times."""
    return xs[int(r.random() * len(xs))]


def made_up(r):
    """A pronounceable word that is in no list."""
    w = "".join(pick(r, SYL) for _ in range(2 if r.random() < .5 else 3))
    return w + pick(r, ENDS)


def pieces():
    """The tokenizer's own words, once it exists: a piece that is never written would stay untrained."""
    here = pathlib.Path(__file__).parent
    for path in (here / "tokenizer.json", here.parent / "tokenizer.json"):
        if path.exists():
            return sorted(t for t in json.loads(path.read_text())["model"]["vocab"] if re.fullmatch("[A-Za-z]+", t))
    return ENGLISH


PIECES = pieces()


def mash(r):
    """A few pieces of the tokenizer, or of English words, run together."""
    if r.random() < .65:
        return "".join(pick(r, PIECES) for _ in range(1 + int(r.random() * 2.5)))
    out = ""
    for _ in range(2 + int(r.random() * 2)):
        w = pick(r, ENGLISH)
        i = int(r.random() * len(w))
        out += w[i:i + 1 + int(r.random() * 5)]
    return out


def any_word(r):
    k = r.random()
    return made_up(r) if k < .2 else pick(r, ENGLISH) if k < .5 else mash(r)


def phrase(r, most=3):
    """One to `most` lower-case words."""
    return " ".join(any_word(r) for _ in range(1 + int(r.random() * most)))


def name_part(r, pool, held):
    """A capitalized name: from its pool, or in training from anywhere."""
    return pick(r, pool) if held or r.random() < .5 else any_word(r).capitalize()


def line(r, most=6):
    """Words, numbers, paths and marks in no order, as commands and their outputs have."""
    out = ""
    for i in range(1 + int(r.random() * most)):
        k = r.random()
        w = any_word(r) if k < .5 else pick(r, ENGLISH).upper() if k < .58 else str(int(r.random() * 10 ** (1 + int(r.random() * 5)))) if k < .75 else \
            any_word(r) + pick(r, MARKS) + any_word(r) if k < .9 else pick(r, MARKS)
        out += (" " if i and r.random() < .85 else "") + w
    return out.replace("{{", "{").replace("}}", "}")


def digits(r, n):
    """`n` random decimal digits, leading zeros allowed."""
    return str(int(r.random() * 10 ** n)).zfill(n)


def sentence(r):
    """An ordinary sentence that states nothing the questions ask for."""
    k = r.random()
    if k < .6:
        s = f"The {pick(r, AGENT)} {pick(r, ACTS)} {pick(r, THINGS)} {pick(r, WHEN)}."
    elif k < .8:
        s = f"{pick(r, WHEN).capitalize()}, the {pick(r, AGENT)} {pick(r, ACTS)} {pick(r, THINGS)}."
    elif k < .9:
        s = pick(r, FILLER)
    else:
        s = phrase(r, 9).capitalize() + "."
    return s


FILLER = """Please keep this page up to date.
Ask the front desk when in doubt.
Nothing here may leave the building.
Visitors must sign in at the gate before they enter.
The list below was checked last week.
All staff should read the notes before the shift begins.
If a code changes, tell the office the same day.
Lunch is served in the hall from noon.
Keep the doors closed during a storm.
Spare keys hang behind the counter.
Do not share these details with strangers.
Older entries were moved to the archive.
This part is for internal use only.
Some values may change without notice.
Every request is logged and reviewed.
Write short messages and answer politely.
When two entries differ, trust the later one.
The night team hands over at six in the morning.
Deliveries go to the back entrance.
Report lost badges at once.""".split("\n")
