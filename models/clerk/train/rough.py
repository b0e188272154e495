"""How people put a request: as a question, a wish, a command, half a sentence, politely, or typed in haste."""
import re

from phrasings import cap
from words import pick

OF_NOUN = """What is {x}?|What's {x}?|Tell me {x}.|I need {x}.|I want to know {x}.|Can you give me {x}?|{X}?|{X}, please.|Could I get {x}?|Show me {x}.|I am looking for {x}.|Any idea about {x}?|I wonder about {x}.|Do you know {x}?
Give me {x}, please.|I would love to have {x}.|Let me have {x}.|How about {x}?|{X}, quick.|My boss asks for {x}.|Find out {x}.|Look up {x} for me.|{X}|{x} please|Could you find {x}?|I'd like {x}.|I wish I had {x}.|We could use {x}.|Would you get me {x}?
Is there {x}?|Please find {x}.|I am curious about {x}.|Help me to get {x}.|I must have {x}.|It would be great to have {x}.|Where do I get {x}?|I was asked for {x}.|All I need is {x}.|Can I have {x}?|Hand me {x}.""".replace("\n", "|").split("|")
OF_VERB = """{X}.|{X}.|Please {x}.|Can you {x}?|Could you please {x}?|I want you to {x}.|I need you to {x}.|Would you {x}?|It is time to {x}.|Let us {x}.|I would like to {x}.|Help me {x}.|Somebody should {x}.|You may {x} now.|Do me a favor and {x}.
{x}|{X}, please.|Is it possible to {x}?|I'd like you to {x}.|We have to {x}.|Make sure to {x}.|Go and {x}.|Don't forget to {x}.|I wish somebody would {x}.|Next, {x}.|Now {x}.|Would you be so kind and {x}?|I must {x}.|Why not {x}?|Be so good and {x}.
You should {x}.|It would be nice to {x}.|I am too lazy to {x}, do it for me.|Time to {x}.|{X} for me.|Quick, {x}!|I have no time to {x} myself.|My boss wants me to {x}.|How do I {x}? Do it for me.|Kindly {x}.""".replace("\n", "|").split("|")
IMPERATIVE = set("""find show open print read delete remove list run execute try test check give assign let hand look cancel close mark set book buy get write send drop text tell ping convert change wake ring count beep put schedule plan block search
google make turn play start stop track order reserve rent call translate define take create add raise lower switch restart deploy scale save note water feed clean vacuum launch bring roll pick draw compute work calculate log pay transfer move file report plot""".split())


def of_noun(r, x, forms=OF_NOUN):
    return pick(r, forms).replace("{x}", x).replace("{X}", cap(x))


def of_verb(r, x):
    return pick(r, OF_VERB).replace("{x}", x).replace("{X}", cap(x))


def verb_of(form):
    """The verb phrase of a command, or None."""
    if form.endswith(".") and not re.search(r"[.?!:;] ", form) and form.split(" ")[0].lower() in IMPERATIVE:
        return form[0].lower() + form[1:-1]
    return None


def slip(r, word):
    """A word with one slip of the finger."""
    if len(word) < 5 or not word.isalpha():
        return word
    i, k = 1 + int(r.random() * (len(word) - 2)), r.random()
    return word[:i] + word[i + 1:] if k < .35 else word[:i] + word[i + 1] + word[i] + word[i + 2:] if k < .7 else word[:i] + word[i] + word[i:]


def rough(r, form):
    """A request typed in haste: lower case, no mark at its end, perhaps a slip. What stands in braces stays as it is."""
    k = r.random()
    out = []
    for part in re.split(r"(\{\w+\})", form):
        if not part.startswith("{"):
            part = part.lower().replace("'", "") if k < .9 else part
            if k < .35:
                part = re.sub(r"[a-z]+", lambda m: slip(r, m.group()) if r.random() < .15 else m.group(), part)
        out.append(part)
    text = "".join(out)
    return text.rstrip(".?!") if k < .8 else text
