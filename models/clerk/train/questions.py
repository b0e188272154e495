"""How a fact is asked for, corrected and referred to. All pools are split into training and held-out phrasings;
training takes most of its phrasings from phrasings.py."""
import phrasings
import rough
from phrasings import cap
from words import pick, split

NOT_STATED = "The notes do not say."

# {s} subject in a sentence, {S} the same capitalized, {b} its bare name, {a} attribute, {A} capitalized.
ASK = """What is the {a} of {s}?
What is the {a} for {s}?
Tell me the {a} of {s}.
Give me the {a} for {s}.
Which {a} does {s} have?
Do you know the {a} of {s}?
What's the {a} of {s}?
{S}: which {a}?
I need the {a} of {s}.
Please look up the {a} of {s}.
Can you find the {a} for {s}?
{A} that {s} has, please?
{b} {a}?
What {a} is listed for {s}?
For {s}, what is the {a}?
Say the {a} of {s}.
Could you read me the {a} of {s}?
Which {a} belongs to {s}?
The {a} of {s} is what?
How do the notes give the {a} of {s}?
Name the {a} of {s}.
What do the notes say about the {a} of {s}?
I am looking for the {a} that belongs to {s}.
What was the {a} of {s} again?
{a} {b}
{S} has which {a}?
Answer with the {a} of {s}.
Show me the {a} for {s}.
What is {s}'s {a}?
Find the {a} of {s}.
I forgot the {a} of {s}.
Regarding {s}: what is the {a}?
Let me know the {a} for {s}.
What is on file as {a} of {s}?
Someone asks for the {a} of {s}. What do I say?
Under which {a} do we know {s}?
{b} - {a}?
Is there a {a} for {s}, and what is it?
I would like to know the {a} of {s}.
What should I enter as the {a} of {s}?
{s}, {a}, please.
Remind me of the {a} of {s}.
Does {s} have a {a}? Which?
Write down the {a} of {s} for me.
What did they write for the {a} of {s}?
Check {s} and tell me the {a}.
Tell me, for {s}, the {a}.
May I have the {a} of {s}?
With {s}, what {a} do I use?
Which {a} has been noted for {s}?
Search for {s} and return the {a}.
What {a} goes with {s}?
Someone wants {s}'s {a}.
Look at {s}. What is the {a}?
Now the {a} of {s}.""".split("\n")
BEFORE = """Hi, |Please: |Quick question. |One more thing: |Hello. |Here is my question: |Okay. |Thanks. |Sorry to ask again. |Next. |
I have a question. |Going by the notes: |Now, |Good morning. |For my report: |Let me check something. |Excuse me. |
Just to be sure: |Great. |Fine, next question: |Hey! |My boss wants to know this. """.replace("\n", "").split("|")
AFTER = """ Thanks.| Please.| Answer briefly.| Only the value.| I am in a hurry.| My form asks for it.| Thank you!| Be exact.
 No explanation.| I lost my copy.| Please be quick.| Nothing besides it.| I asked before, I think.""".replace("\n", "|").split("|")
UPDATE = """From now on the {a} of {s} is {v}.
The {a} of {s} has changed to {v}.
Please note: the {a} of {s} is now {v}.
Update: {a} of {s} is {v}.
Change the {a} of {s} to {v}.
One correction: the {a} of {s} is {v}.
As of today, {s} has the {a} {v}.
Remember that the {a} of {s} is {v}.
New {a} for {s}: {v}.
We changed the {a} of {s}. It is {v} now.
{S} gets a new {a}: {v}.
Starting today the {a} of {s} is {v}.
Forget the old {a} of {s}, it is {v} now.
Set the {a} for {s} to {v}.
Please use {v} as the {a} of {s} from here on.
Make it {v} for the {a} of {s}.
The {a} of {s} just became {v}.
From this moment {s} has {a} {v}.""".split("\n")
SAME_SUBJECT = """And the {a}?
What about the {a}?
And what is the {a}?
And the {a}, please?
Now the {a}, same one.
The same for the {a}?
And which {a}?
Also the {a}, please.
And its {a}?
Okay, and the {a}?
How about the {a}?
And the {a} there?""".split("\n")
SAME_PERSON = ["And her {a}?", "And his {a}?", "And their {a}?", "What is her {a}?", "What about his {a}?", "And what is their {a}?"]
SAME_ATTRIBUTE = """And for {s}?
And of {s}?
What about {s}?
And {s}?
The same for {s}.
How about {s}?
And what about {s}?
Now for {s}, please.
Okay, and {s}?
Same question for {s}.
And that of {s}?
Also for {s}.""".split("\n")
LAST = """What was your last answer?|Repeat your last answer.|Say that again.|Once more, please.|Sorry, what was that?|Please repeat.|Again, please.
Come again?|Repeat that.|What did you just say?|I did not hear you.|May I hear that one more time?|Could you say that once more?|Pardon?|Repeat it, please.
Tell me again.|Please say it again.|Your answer just now, once more?|What was that again?|Say it once more.|Please repeat your last answer.|Repeat.
Give me your last answer again.|Would you repeat that?|The last answer again, please.|Sorry?|One more time.|Please repeat the answer.""".replace("\n", "|").split("|")
START = """What was your first answer?|Repeat your first answer.|What did you answer first?|Give me your very first answer again.|Which answer did you give first?
Your answer to my first question was what?|Your first answer again?|What was the first answer?|Repeat the first answer, please.|Go back to your first answer.
The first answer again, please.|The answer you gave me first, please.|What did you say first?|What was the very first thing you said?""".replace("\n", "|").split("|")
WHO = ["About whom did I ask first?", "Who was my first question about?", "Whose entry did I ask for first?",
       "Which name did I ask about first?", "Who did I start with?", "What name was in my first question?"]

# How a noun phrase is asked for, without the words of a question that is kept.
FACTS = [x for x in rough.OF_NOUN if not x.startswith("Do you know")]


def fill(form, subject, name, v=""):
    return form.format(s=subject[1], S=cap(subject[1]), b=subject[0], a=name, A=cap(name), v=v)


def name_of(r, a):
    return a["names"][0] if len(a["names"]) == 1 or r.random() < .6 else pick(r, a["names"])


def wrap(r, text, held):
    """Words around a question that change nothing."""
    if not held and r.random() < .6:
        return phrasings.framed(r, text)
    if r.random() < .25:
        text = pick(r, split(BEFORE, held)) + text
    if r.random() < .15:
        text += pick(r, split(AFTER, held))
    return text


def recall(r, held):
    """A request to repeat an answer, and the index of that answer."""
    if not held and r.random() < .75:
        return phrasings.repeat(r)
    if r.random() < .6:
        return pick(r, split(LAST, held)), -1
    return pick(r, split(START, held)), 0


def ask(r, subject, a, held):
    """A question for one attribute of one subject."""
    own = a["asks"]
    if own and (a["key"] in ("value", "default") or a["key"].startswith("step ") or r.random() < .4):
        text = fill(pick(r, own), subject, a["key"])
    elif not held and r.random() < .65:
        if r.random() < .15:
            text = rough.of_noun(r, f"the {name_of(r, a)} {pick(r, ('of', 'of', 'for'))} {subject[1]}", FACTS)
        else:
            text = phrasings.question(r, subject[1], subject[0], name_of(r, a))
    else:
        text = fill(pick(r, split(ASK, held)), subject, name_of(r, a))
    if not held and r.random() < .06:
        # Typed in haste.
        text = text.lower().rstrip("?.!")
    return wrap(r, text, held)


def update(r, subject, a, v, held):
    """A statement that gives an attribute a new value."""
    if not held and r.random() < .65:
        return phrasings.update(r, subject[1], subject[0], name_of(r, a), v)
    return fill(pick(r, split(UPDATE, held)), subject, name_of(r, a), v)
