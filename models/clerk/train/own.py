"""What users say about themselves, asked for turns later or in the same message; every fifth wording is kept for evaluation."""
import relations
from chat import HEAD, say
from manners import small
from questions import NOT_STATED, wrap
from rough import rough
from values import PERSON, clock, code, invented, number, person, price, room, town
from words import DAYS, VOCAB, any_word, pick, sentence

# {n} what it is, {v} its value.
TELL = """My {n} is {v}.|I have the {n} {v}.|Remember my {n}: {v}.|Keep in mind that my {n} is {v}.|The {n} I use is {v}.|Please note my {n}, it is {v}.|{v} is my {n}.|I got the {n} {v} today.|As for my {n}, it is {v}.|You should know my {n}: {v}.|By the way, my {n} is {v}.|my {n} is {v}|They gave me {v} as {n}.
For your records: my {n} is {v}.|I was given the {n} {v}.|My {n}? It is {v}.|Write down {v} as my {n}.|I use {v} as my {n}.|I forgot to say that my {n} is {v}.|My {n} happens to be {v}.""".replace("\n", "|").split("|")
AGAIN = """My {n} is {v} now.|Sorry, my {n} is {v}.|I was wrong, my {n} is {v}.|My {n} has changed to {v}.|Correction: my {n} is {v}.|I have a new {n}: {v}.|No, my {n} is {v}, not {o}.|My {n} is not {o} but {v}.|Forget {o}, my {n} is {v}.|I gave up the {n} {o} for {v}.|Instead of {o} I have the {n} {v}.|From today my {n} is {v}.|My {n} was {o}, now it is {v}.
Please change my {n} to {v}.|I moved from the {n} {o} to {v}.""".replace("\n", "|").split("|")
ASK = """What is my {n}?|Tell me my {n}.|What was the {n} I told you?|Which {n} did I mention?|Do you remember my {n}?|Which {n} do I have?|What's my {n}?|my {n}?|I forgot my {n}, what is it?|Can you tell me my {n}?|What did I say my {n} is?|And my {n}?|Give me my {n} again.|What {n} do I have?|I need my {n}.|Say my {n}.
Please repeat my {n}.|What {n} did I give you?|what is my {n}|Could you remind me what my {n} is?""".replace("\n", "|").split("|")
# What it is about (no two statements of one conversation share it), statement, questions, how a value is drawn.
LIFE = [("home town", "I live in {v}.", "Where do I live?|In which town do I live?", town), ("birthplace", "I was born in {v}.", "Where was I born?|In which town was I born?", town), ("employer", "I work for {v}.", "Who employs me?|For whom do I work?|Which company do I work for?", relations.company),
        ("pet", "My dog is called {v}.", "What is my dog called?|How is my dog called?", lambda r, v: any_word(r).capitalize()), ("age", "I am {v} years old.", "How old am I?|What is my age?", relations.DRAW["age"]), ("name", "Call me {v}.", "What should you call me?|How do you call me?|What is my name?", lambda r, v: any_word(r).capitalize()),
        ("arrival", "I arrive at {v}.", "When do I arrive?|At what time do I arrive?", clock), ("departure", "I leave on {v}.", "When do I leave?|On which day do I leave?", lambda r, v: pick(r, DAYS)), ("spouse", "My wife is {v}.", "Who is my wife?|What is my wife called?", person), ("brother", "My brother is {v}.", "Who is my brother?|What is the name of my brother?", person),
        ("paid", "I paid {v} for it.", "How much did I pay?|What did I pay for it?", price), ("room", "I sit in room {v}.", "Where do I sit?|In which room do I sit?", room), ("chairs", "I need {v} chairs.", "How many chairs do I need?", number), ("people", "We are {v} people.", "How many are we?|How many people are we?", number),
        ("mother tongue", "I speak {v}.", "Which language do I speak?|What do I speak?", relations.DRAW["lang"]), ("vehicle", "I come by {v}.", "How do I come?|By what do I come?", relations.DRAW["vehicle"]), ("hotel", "I am staying at the hotel {v}.", "Where am I staying?|In which hotel am I?", relations.company), ("profession", "I work as {v}.", "What is my profession?|What am I by trade?", relations.DRAW["role"]),
        ("seat", "I am in seat {v}.", "In which seat am I?|Which seat do I have?", room), ("meeting", "My meeting is with {v}.", "Who is my meeting with?|Whom do I meet?", person), ("allergy", "I am allergic to {v}.", "What am I allergic to?|What can I not eat?", relations.DRAW["dish"]), ("parking bay", "I parked in bay {v}.", "Where did I park?|In which bay did I park?", room),
        ("son's school", "My son goes to {v}.", "Where does my son go to school?|Which school does my son go to?", relations.company), ("ordered", "I ordered the {v}.", "What did I order?", relations.DRAW["good"]), ("cats", "I have {v} cats.", "How many cats do I have?", relations.DRAW["small"]), ("flight time", "My flight leaves at {v}.", "When does my flight leave?|At what time does my flight leave?", clock)]
MINE = [(a["names"][0], a["draw"]) for a in PERSON if a["names"][0] not in relations.KEPT["person"]] + [(x.nouns[0], x.draw) for x in relations.RELATIONS["person"]] + \
       [(n, code) for n in "order number,booking code,ticket,flight,pin,customer number,tracking number,membership,case number,reference".split(",")]


def split(xs, held):
    return xs[4::5] if held else [x for i, x in enumerate(xs) if i % 5 != 4]


def statement(r, held, said):
    """A new statement: `(text, key, its questions, value, a correction or None)`."""
    v = VOCAB[held]
    if r.random() < .35:
        key, text, asks, draw = pick(r, split(LIFE, held))
        value = draw(r, v)
        return text.format(v=value), key, asks.split("|"), value, None
    if not held and r.random() < .25:
        a = invented(r)
        n, draw = a["names"][0], a["draw"]
    else:
        n, draw = pick(r, MINE)
    value = draw(r, v)

    def again():
        new = draw(r, v)
        return pick(r, split(AGAIN, held)).format(n=n, v=new, o=said.get(n, ("", value))[1]), new
    return pick(r, split(TELL, held)).format(n=n, v=value), n, [x.format(n=n) for x in split(ASK, held)], value, again


def typed(r, text, held):
    """As people type: in training sometimes in haste."""
    return rough(r, text) if not held and r.random() < .12 else text


def own(r, held):
    """Statements over turns, corrections, questions between and after them; or all in one message."""
    said, turns, told = {}, [], []
    for _ in range(2 + int(r.random() * 4)):
        text, key, asks, value, again = statement(r, held, said)
        if key not in said and value not in [x[1] for x in said.values()]:
            said[key] = asks, value
            told.append((text, key, value, again))
    system = [] if r.random() < .5 else [{"role": "system", "content": pick(r, ("You are a helpful assistant.", "Be brief.", "You remember what the user says.", pick(r, HEAD)))}]
    if r.random() < .3:
        key = pick(r, list(said))
        asks, value = said[key]
        lines = [x[0] if x[0][-1] in ".!?" else x[0] + "." for x in told]
        if r.random() < .4:
            lines.insert(int(r.random() * len(lines)), sentence(r))
        return {"messages": system, "turns": [say(" ".join(lines) + pick(r, (" ", "\n", "\n\n")) + pick(r, asks), value + ".")]}
    for text, key, value, again in told:
        turns.append(say(text, f"Noted: {value}."))
        k = r.random()
        if k < .25:
            q = pick(r, list(x[1] for x in told[:told.index((text, key, value, again)) + 1]))
            turns.append(say(typed(r, pick(r, said[q][0]), held), said[q][1] + "."))
        elif k < .4:
            turns.append(say(*small(r, held)))
        elif k < .55 and again:
            text, new = again()
            if new != value and new not in value and value not in new:
                said[key] = said[key][0], new
                turns.append(say(text, f"Noted: {new}."))
    for _ in range(1 + int(r.random() * 4)):
        key = pick(r, list(said))
        asks, value = said[key]
        turns.append(say(wrap(r, typed(r, pick(r, asks), held), held), value + "."))
    if r.random() < .15:
        _, key, asks, _, again = statement(r, held, said)
        if key not in said and again and not any(w in " ".join(said) for w in key.split(" ")):
            turns.append(say(pick(r, asks), NOT_STATED))
    return {"messages": system, "turns": turns}
