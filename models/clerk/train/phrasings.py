"""Phrasings for training, composed from parts: questions, updates, requests to repeat, and the words around them.

A list of fifty sentences is learned by heart; these grammars have millions, so that a phrasing kept for evaluation is one
more sample. What decides an answer is left unambiguous: a question names a subject and an attribute and no value, an update
names all three and has a copula, a request to repeat names none. The sentences kept for evaluation are built
from words that occur here, in an order that these grammars do not have ("May I have", "Remind me of", "Going by the notes").
"""
from words import DAYS, MONTHS, any_word, phrase, pick, sentence

POLITE = ["", "", "", "Please ", "Could you ", "Can you ", "Will you ", "Kindly ", "Now ", "I want you to ", "You may ", "Would you kindly "]
HAND = "give,tell,show,send,read,bring,hand,quote,write,print,state,name,look up,check,fetch,get,report,spell out,dig out,recall,confirm".split(",")
MODAL = ["Can I", "Could I", "Should I", "May we", "Could we", "Can we", "Might I", "May somebody", "Do I", "Can he", "Could they"]
SEE = "see,hear,get,read,have,copy,learn,use,look up,find out,ask for,know,check,write down".split(",")
SURE = ["Do you see", "Do you remember", "Do you have", "Do you recall", "Did you find", "Are you sure about", "Have you got", "Is there", "Did they write"]
ABOUT = ["Remind me about", "Inform me about", "Remind us of", "Remind them of", "I was asked for", "We lost", "I cannot find", "I have to enter",
         "My colleague needs", "We would like", "Somebody wants", "They asked about", "Help me with", "Let us see", "Let us hear", "I forgot about", "Look for",
         "It is about", "This is about", "The question is", "What about", "How about", "Let me have", "I must have", "I am after", "I wonder about"]
THEN = ["", "", "", " today", " now", " exactly", " then", " please", " once more", " at the moment", " in the notes", " really", " in here"]
VERBS = "use,need,list,call,enter,find,give,read,reach,keep,store,file,write,see,note,take,have,put,look for".split(",")
WHERE = ["With", "By", "At", "On", "In", "Through", "For", "From", "Behind", "Under", "Beside", "To"]
SAW = ["Check", "Open", "Take", "See", "Go to", "Find", "Think of", "This is about", "I mean", "I am at", "I asked about", "Here is"]
SINGLE = ["code", "name", "form", "word", "report", "desk", "friend", "note", "letter", "list", "table", "book", "meeting", "joke", "price", "day"]
TIMES = ["now on", "here on", "tomorrow", "this week", "this hour", "tonight", "next week", "noon", "this minute", "this point", "next month", "then on", "May", "the start"]
SOURCES = ["the notes", "the list", "the text", "the handbook", "your papers", "this document", "the register", "what you know", "the page above", "our records"]
REPEAT = "repeat,say,tell me,give me,write,read,show me,send me,state,print,type,let me hear,quote".split(",")
REPLY = ["answer", "reply", "message", "response", "line", "output", "sentence", "words"]
RECENT = ["last", "previous", "latest", "most recent", "preceding", "final"]
EARLY = ["first", "very first", "earliest", "opening", "initial"]
AGAIN = [" again", " once more", " one more time", " a second time", " once again", " for me again", " another time"]
ENDINGS = ["?", "?", ".", "", "!"]


def cap(s):
    return s[:1].upper() + s[1:]


def clause(r):
    """A short statement or remark that says nothing about the notes."""
    k = r.random()
    if k < .3:
        what = pick(r, (phrase(r, 3), pick(r, SINGLE), "a " + pick(r, SINGLE), "my " + pick(r, SINGLE), "the " + any_word(r), any_word(r).capitalize()))
        return f"{pick(r, ('It', 'That', 'This', 'It', 'Mine', 'She', 'He', 'Everything'))} {pick(r, ('is', 'was', 'will be', 'is only', 'must be'))} " \
               f"{pick(r, ('for', 'about', 'in', 'part of', 'because of', 'on', 'with', 'from', 'just', 'not', ''))} {what}.".replace("  ", " ")
    if k < .5:
        return f"{pick(r, ('I', 'We', 'They', 'You'))} {pick(r, ('need', 'want', 'lost', 'forgot', 'must have', 'am in', 'have', 'know', 'like', 'am'))} {phrase(r, 3)}."
    if k < .65:
        return f"{pick(r, ('Only', 'Just', 'No', 'Not', 'Quick', 'Short', 'Exact', 'Be', 'Stay', 'Very'))} {phrase(r, 2)}{pick(r, ('.', '.', '!', ', please.'))}"
    if k < .8:
        return sentence(r)
    return cap(phrase(r, 5)) + pick(r, ".!")


def opening(r):
    k = r.random()
    if k < .3:
        return clause(r) + " "
    if k < .55:
        return f"{pick(r, ('According to', 'From', 'In', 'Based on', 'As in', 'With', 'By'))} {pick(r, SOURCES + [phrase(r, 3)])}{pick(r, (', ', ': '))}"
    if k < .75:
        return f"{pick(r, ('For', 'To', 'About', 'On', 'Just', 'Only', 'Before', 'After'))} {phrase(r, 3)}{pick(r, (', ', ': ', ' - '))}"
    return cap(phrase(r, 3)) + pick(r, (": ", ", ", ". ", "! ", "? ", " - "))


def framed(r, text):
    """Words around a question that change nothing."""
    if r.random() < .3:
        text = opening(r) + text
    if r.random() < .3:
        text += " " + clause(r)
    return text


def key_of(r, the, bare, name):
    """A noun phrase that names the subject and the attribute."""
    s = the if r.random() < .7 else bare
    return pick(r, ("the {n} of {s}", "the {n} of {s}", "the {n} for {s}", "{s}'s {n}", "the {n} that {s} has", "the {n} {w} {s}", "{n} of {s}", "{s} {n}",
                    "the {s} {n}", "{n}, {s}", "{s}: {n}", "{n} {s}", "{s} {w} {n}", "{n} for {s}", "{n} ({s})", "a {n} for {s}",
                    "that {n} of {s}", "the right {n} of {s}", "{s}, the {n},", "the {n} belonging to {s}")).format(n=name, s=s, w=phrase(r, 2))


def question(r, the, bare, name):
    key, k, s, w = key_of(r, the, bare, name), r.random(), the if r.random() < .8 else bare, any_word(r)
    if k < .13:
        text = f"{pick(r, POLITE)}{pick(r, HAND)} {pick(r, ('', 'me ', 'us ', 'him ', 'for me '))}{key}{pick(r, THEN)}"
    elif k < .23:
        text = f"{pick(r, MODAL)} {pick(r, SEE)} {key}{pick(r, THEN)}"
    elif k < .31:
        text = f"{pick(r, SURE)} {key}{pick(r, THEN)}"
    elif k < .4:
        text = f"{pick(r, ABOUT)} {key}{pick(r, THEN)}"
    elif k < .52:
        text = f"{pick(r, ('What', 'Which', 'What', 'How', 'Where'))} {pick(r, ('is', 'was', 'were', 'will be', 'could be', 'may be', 'did you call', 'again is'))} {key}{pick(r, THEN)}"
    elif k < .64:
        verb = pick(r, VERBS + [w])
        text = pick(r, (f"Which {name} does {s} {verb}", f"Which {name} {verb}s {pick(r, ('to', 'with', 'at', 'for', 'of', ''))} {s}", f"What {name} {pick(r, ('did', 'do', 'can', 'should'))} {pick(r, ('we', 'I', 'you', 'they'))} {verb} {pick(r, ('for', 'of', 'with', 'at'))} {s}",
                        f"Which {name} is {verb} {pick(r, ('for', 'of', 'with', 'by', 'under'))} {s}", f"{pick(r, WHERE)} {pick(r, ('which', 'what'))} {name} {pick(r, ('do', 'can', 'should', 'did'))} {pick(r, ('we', 'I', 'you', 'they'))} {verb} {s}"))
    elif k < .72:
        text = f"{pick(r, SAW)} {s}{pick(r, ('. ', ': ', ', ', ' and tell me: ', '; '))}{pick(r, ('What is', 'Which is', 'Give me', 'Read', 'I need', 'Tell me', 'And', 'Say'))} {pick(r, ('the', 'its', 'that', 'the full'))} {name}"
    else:
        text = f"{phrase(r, 5)} {key}" if r.random() < .7 else key
        if r.random() < .4:
            text += " " + phrase(r, 4)
    return (cap(text) if r.random() < .8 else text) + pick(r, ENDINGS)


def update(r, the, bare, name, v):
    """A statement that gives an attribute a new value."""
    time = pick(r, TIMES + DAYS + MONTHS + [phrase(r, 2)])
    lead = pick(r, ("", "", "", f"From {time} ", f"As of {time}, ", f"From {time} on ", f"Since {time} ", f"Starting {time}, ", f"Beginning {time} ", "Please note that ", "Note: ",
                    "Be aware that ", "News: ", "Change: ", "You should know that ", "Keep in mind that ", "They told me that ", f"{cap(phrase(r, 3))}: ", "Update: ", "Remember: "))
    k, s = r.random(), the if r.random() < .85 else bare
    tail = pick(r, ("", "", "", "", " from now on", " now", " instead", ", not the old one", " until further notice", f" since {time}", f", {phrase(r, 2)}"))
    if k < .35:
        core = f"{pick(r, ('the ', 'the ', 'the new ', ''))}{name} {pick(r, ('of', 'for'))} {s} {pick(r, ('is', 'is', 'is now', 'becomes', 'will be', 'has become', 'changes to', 'was set to', 'reads', 'equals'))} {v}"
    elif k < .6:
        core = f"{s} {pick(r, ('has', 'has', 'gets', 'now has', 'uses', 'is given', 'will have', 'takes', 'received'))} {pick(r, ('', 'the ', 'the new ', 'a new ', 'as '))}{name}{pick(r, (' ', ' ', ': '))}{v}"
    elif k < .75:
        core = f"{pick(r, ('set', 'change', 'switch', 'move', 'turn', 'correct', 'put', 'update'))} {pick(r, ('the ', ''))}{name} {pick(r, ('of', 'for'))} {s} {pick(r, ('to', 'to', 'into', '='))} {v}"
    elif k < .9:
        core = f"{pick(r, ('new ', '', '', ''))}{pick(r, (f'{name} of {s}', f'{s} {name}', f'{name} for {s}', f'{s}, {name}'))}{pick(r, (' = ', ': ', ' is ', ' -> ', ' := '))}{v}"
    else:
        core = f"{v} {pick(r, ('is now', 'is', 'replaces', 'becomes', 'will be'))} the {name} of {s}"
    text = lead + core + tail
    return (cap(text) if r.random() < .85 else text) + pick(r, (".", ".", ".", "", "!"))


def repeat(r):
    """A request to repeat an answer, and whether it means the first one (0) or the last one (-1)."""
    index = -1 if r.random() < .6 else 0
    which = pick(r, RECENT if index else EARLY)
    thing = f"{pick(r, ('your', 'your', 'the', 'that'))} {which} {pick(r, REPLY)}"
    k = r.random()
    if k < .4:
        vague = index and r.random() < .5
        verb = pick(r, REPEAT)
        again = pick(r, AGAIN) if vague and verb != "repeat" or r.random() < .4 else ""
        text = pick(r, POLITE) + verb + " " + (pick(r, ("that", "it", "this", "what you said", "that one")) if vague else thing) + again
    elif k < .55:
        text = f"{pick(r, ('What was', 'Which was', 'What is', 'How was', 'I missed', 'I need', 'Back to', 'I mean'))} {thing}{pick(r, ['', ''] + AGAIN)}"
    elif k < .65:
        text = thing + pick(r, AGAIN)
    elif index:
        text = pick(r, ("What did you {v}{t}", "How did you {v}{t}", "Sorry, what did you {v}{t}", "What have you just said{a}", "Once more", "Again", "Repeat", "Sorry", "Pardon me", "One more time",
                        "I did not {h} that", "What was that{a}", "Say it{a}", "Please{a}", "I could not {h} it", "That{a}", "Come again please", "And once more")).format(
            v=pick(r, ("say", "answer", "reply", "tell me", "write")), t=pick(r, (" just now", " last", " a moment ago", " before this", " right now")), a=pick(r, AGAIN), h=pick(r, ("hear", "get", "catch", "see", "understand")))
    else:
        text = pick(r, ("What did you {v} first", "What did you {v} to my {f} {q}", "How did you {v} to my {f} {q}", "Which answer did my {f} {q} get", "What did my {f} {q} get as an answer",
                        "How did you start", "Go back to {t}", "At the start, what did you {v}", "What came first from you", "With what did you begin", "What did I hear from you first")).format(
            v=pick(r, ("answer", "reply", "say", "respond")), f=pick(r, EARLY), q=pick(r, ("question", "message", "request", "line", "turn")), t=thing)
    if r.random() < .12:
        text += ", please"
    return (cap(text) if r.random() < .85 else text) + pick(r, ("?", ".", "?", ".", "", "!")), index


def follow_up(r, what):
    """A turn that names only what differs from the question before it."""
    lead = pick(r, ("and", "what about", "how about", "then", "now", "also", "okay,", "and what about", "same for", "next,", "and now", "the same for", "so", "" if r.random() < .5 else phrase(r, 2)))
    text = f"{lead} {what}{pick(r, ('', '', '', ' then', ' now', ', please', ' too', ' there', ' as well', ' ' + phrase(r, 2)))}".strip()
    return (cap(text) if r.random() < .8 else text) + pick(r, ("?", "?", ".", ""))
