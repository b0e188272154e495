"""Sentences of several facts, and of an old value beside the new one, composed by grammar; training alone uses them.

A pattern has `{s}` a subject in a sentence, `{b}` its bare name, `{a}` an attribute, `{v}` its value; those of the second and third
fact end in 2 and 3; `{o}` is a value that no longer holds, `{d}` a date. What qualified.py keeps for evaluation is never composed.
"""
from phrasings import cap
from words import any_word, pick

JOINS = [" and ", ", ", " and ", "; ", ", and ", " / ", " as well as ", ", plus ", " | ", ", also ", "; then "]
TAILS = [".", ".", ".", "", ", as listed.", " in all.", ", nothing else.", "!"]
# What two subjects may do to each other.
MEET = "knows,met,likes,sits beside,works with,comes before,is listed after,stands near,called,replaced,follows,asked for,helps,differs from,goes with,came with".split(",")
DOES = "is known here,is on the list,came in today,was checked,is part of this,needs no more,is fine,can be found below,has been here for long,is new,was seen again".split(",")


def number(text, n):
    """`text` about the fact number `n`."""
    if n == 1:
        return text
    for x in "savb":
        text = text.replace("{" + x + "}", "{" + x + str(n) + "}")
    return text


def shared(text, n, kept):
    """The same, with one part that all facts share."""
    return number(text.replace("{" + kept + "}", "\0"), n).replace("\0", "{" + kept + "}")


def enumerated(r, parts):
    joint = " and " if len(parts) == 2 or r.random() < .6 else ", and "
    return ", ".join(parts[:-1]) + joint + parts[-1]


def lists(r, x, n, form="{}"):
    return enumerated(r, [form.format("{" + x + (str(i) if i > 1 else "") + "}") for i in range(1, n + 1)])


RESPECTIVELY = ["", "", "", ", respectively", ", in that order", ", in this order", " in turn"]


def same_subject(r):
    """Two or three facts of one subject."""
    n, k = 2 if r.random() < .72 else 3, r.random()
    who = pick(r, ("{s}", "{s}", "{s}", "{b}"))
    if k < .25:
        # One lead, and the facts in one form.
        lead = pick(r, ("{S} has ", "{S}: ", "For {s} we note ", "{S} comes with ", "{b} - ", "Known of {s}: ", "{S} is listed with ", "{S} got ", "In the case of {s}: ", "{S}, by the way, has ", "We know of {s}: ", "{S} always had ", "{S} uses ", "Entered for {s} were ",
                        "{S} keeps ", "They gave {s} ", "To {s} belong ", "Under {s} you find ", "As for {s}, it is ", "On {s}: "))
        part = pick(r, ("{a} {v}", "the {a} {v}", "{a}: {v}", "{a} = {v}", "{v} ({a})", "{v} for the {a}", "the {a}, {v},", "{v}, the {a}", "{a} \"{v}\"", "{v} - the {a} -", "{a} is {v}", "the {a} which is {v}", "{a} ({v})"))
        return lead + pick(r, JOINS).join(shared(part, i, "s") for i in range(1, n + 1)).rstrip(",").replace(",;", ";").replace(",,", ",") + pick(r, TAILS)
    if k < .5:
        # All attributes, then all values, or the other way about.
        many, values, what, wh = lists(r, "a", n), lists(r, "v", n), lists(r, "a", n, "the {}"), pick(r, RESPECTIVELY)
        return pick(r, ("{S} has as {m} {x}{w}.", "{S}'s {m}: {x}", "As {m}, {s} uses {x}{w}.", "For {s} we noted {m}: {x}{w}.", "{b} ({m}): {x}", "{S} goes by {x}, which are {t}{w}.", "{x} are {t} of {s}{w}.", "{x} belong to {s} as {m}{w}.", "{S} was handed {x} for {t}{w}.",
                        "Under {m} the list shows {x} for {s}{w}.", "Asked for {t}, {s} said {x}{w}.", "{m} of {s}: {x}{w}", "With {s}, {t} read {x}{w}.", "When it comes to {m}, {s} has {x}{w}.", "{b}: {m} = {x}", "{t} that {s} has read {x}{w}.", "{S} takes {x} for {m}{w}.",
                        "We call {s} by {m}, namely {x}{w}.", "{b} | {m} | {x}")).replace("{m}", many).replace("{x}", values).replace("{t}", what).replace("{w}", wh)
    if k < .62:
        rest = pick(r, ("has the {a2} {v2}", "comes with the {a2} {v2}", "uses {v2} as {a2}", "goes by the {a2} {v2}", "also has {a2} {v2}", "keeps the {a2} {v2}", "was given the {a2} {v2}", "takes {v2} for {a2}"))
        return pick(r, ("{S}, whose {a} is {v}, ", "{S} ({a} {v}) ", "{S} ({a}: {v}) ", "{S} - {a} {v} - ", "{S}, {a} {v}, ", "Having the {a} {v}, {s} ", "With {v} as {a}, {s} ", "{S}, known by the {a} {v}, ", "{S}, who has the {a} {v}, ", "Next to the {a} {v}, {s} ", "Apart from the {a} {v}, {s} ",
                        "As the {a} is {v}, {s} ", "{S} has the {a} {v} and ", "{S} uses {v} as {a}, and ", "If the {a} of {s} is {v}, it ")) + rest + pick(r, (".", ".", "", "!"))
    if k < .74:
        first = pick(r, ("The {a} of {s} is {v}", "{S} has the {a} {v}", "The {a} for {s} reads {v}", "{v} is {s}'s {a}", "The {a} of {s} was set to {v}", "{S} uses {v} as {a}", "{b}: {a} {v}", "We gave {s} the {a} {v}", "{S}'s {a} is {v}"))
        second = pick(r, (". Its {a2} is {v2}", ". The {a2}: {v2}", "; {v2} is the {a2}", ". {v2} is the {a2}", ", the {a2} however {v2}", ", and as {a2} {v2}", "; its {a2}, {v2}", ". There is also the {a2} {v2}", ", with {v2} as {a2}", " (the {a2} is {v2})", ", whose {a2} is {v2}" if first.endswith("{s}") else ". Its {a2} is {v2}",
                          ". Its {a2} reads {v2}", ". As {a2} it takes {v2}", " next to the {a2} {v2}", ". Do not mix it up with the {a2}, {v2}", ", unlike the {a2}, which is {v2}"))
        return first + second + pick(r, (".", ".", ""))
    if k < .86:
        # Values first.
        part = pick(r, ("{v} as {a}", "{v} ({a})", "{v} for the {a}", "{v} is the {a}", "{v}, the {a},", "the {a} {v}"))
        body = pick(r, (" and ", ", ", "; ", " and also ", " next to ")).join(shared(part, i, "s") for i in range(1, n + 1)).rstrip(",")
        form = pick(r, ("{x}: that is {s}.", "{x} belong to {s}.", "{x} - this is {s}", "{x} for {s}.", "{x} are all of {s}.", "{x} go to {s}.", "{x} stand beside {s}.", "{x} with {s}.", "{x} in the line of {s}.")) if part != "{v} is the {a}" else pick(r, ("{x}: both of {s}.", "For {s}, {x}.", "{x}, says the line of {s}.", "With {s}, {x}."))
        return form.replace("{x}", body)
    head = pick(r, ("{S}:\n", "{b}\n", "About {s}:\n", "[{b}]\n", "{S} has\n"))
    return head + "\n".join(shared(p, i, "s") for p in [pick(r, ("- {a}: {v}", "  {a} {v}", "* {v} ({a})", "  {a} = {v}", "> {a} is {v}"))] for i in range(1, n + 1))


def same_attribute(r):
    """One attribute of two or three subjects."""
    n, k = 2 if r.random() < .72 else 3, r.random()
    if k < .42:
        lead = pick(r, ("The {a}: ", "By {a}, ", "{A} of each: ", "{A}: ", "Each has a {a}: ", "As for the {a}, ", "The {a}s are ", "{A} - ", "We know the {a}: ", "", "The {a} differs: ", "When it comes to the {a}, ", "As {a} we have ", "Under {a} stands ", "For the {a} take ", "The {a} goes like this: ",
                        "Sorted by {a}: ", "The {a} was found to be ", "On the {a}: ", "{A}s: ", "As their {a} they named ", "The {a} reads ", "The {a} became ", "We set the {a} to "))
        parts = ["{v} with {s}", "{v} for {s}", "{s} has {v}", "{b} {v}", "{b} = {v}", "{s} {v}", "{s} takes {v}", "{v} ({b})", "{b}: {v}", "{v} of {s}", "{v} goes to {s}", "{v} belongs to {s}", "{s} ({v})", "{s} with {v}", "{s} uses {v}", "{v}, {b}", "{v} if it is {s}", "{v} in the case of {s}", "{v} at {s}",
                 "{v} when {s} is meant", "{s}, {v}", "{s} got {v}", "{v} -> {b}", "{b} -> {v}", "{v}: {b}"]
        part = pick(r, parts)
        if lead == "" or lead.startswith("The {a} was") or lead.startswith("We set") or lead[-5:] in ("eads ", "came "):
            part = pick(r, ("the {a} of {s} is {v}", "{s} has the {a} {v}", "{v} is the {a} of {s}", "{s} uses {v} as {a}", "{s}'s {a} is {v}", "the {a} for {s}: {v}", "{s} goes by the {a} {v}")) if lead == "" else pick(r, ("{v} with {s}", "{v} at {s}", "{v} in the case of {s}", "{v} when it was {s}", "{v} as far as {s} goes"))
        return lead + pick(r, JOINS).join(shared(part, i, "a") for i in range(1, n + 1)) + pick(r, TAILS)
    if k < .62:
        who, values, wh = lists(r, "s", n), lists(r, "v", n), pick(r, RESPECTIVELY)
        return pick(r, ("{m} use {x} as {a}{w}.", "The {a}s of {m} are {x}{w}.", "{m} were given {x} as their {a}{w}.", "For {m}, the {a} is {x}{w}.", "{x} are the {a}s of {m}{w}.", "{x} belong to {m} as {a}{w}.", "{A} of {m}: {x}{w}", "{m} come with {a} {x}{w}.", "{m} ({a}): {x}{w}",
                        "We gave {m} the {a} {x}{w}.", "{m} each have a {a}: {x}{w}", "As {a}, {m} take {x}{w}.", "{x}: the {a} of {m}{w}.", "Ask {m} for the {a} and you hear {x}{w}.")).replace("{m}", who).replace("{x}", values).replace("{w}", wh)
    first = pick(r, ("The {a} of {s} is {v}", "{S} has the {a} {v}", "The {a} for {s} reads {v}", "{v} is the {a} of {s}", "{S} uses {v} as {a}", "{S} goes by the {a} {v}", "{S}'s {a} is {v}", "We gave {s} the {a} {v}", "{S} took the {a} {v}", "The {a} that {s} has is {v}", "It is {v} that {s} has as {a}"))
    second = pick(r, (", {s2}'s is {v2}", "; {s2} has {v2}", ", for {s2} it is {v2}", ", {s2} {v2}", "; with {s2} it is {v2}", ", whereas {s2} has {v2}", ", and {s2} got {v2}", "; {v2} is for {s2}", ", {v2} goes to {s2}", ", unlike {s2}, whose {a} is {v2}", ", unlike {s2} with {v2}", ". For {s2} take {v2}",
                      ". {S2} has {v2}", "; that of {s2}: {v2}", " while {v2} belongs to {s2}", ", in the case of {s2} {v2}", ". {v2} is that of {s2}", ", not like {s2} ({v2})", ", but {s2} prefers {v2}", ", but not for {s2}: there it is {v2}", ". Not so {s2}: {v2}", " and in the same way {v2} for {s2}"))
    if k < .93:
        return first + second + pick(r, (".", ".", ""))
    head = pick(r, ("{A}:\n", "The {a}s:\n", "By {a}\n", "# {A}\n"))
    return head + "\n".join(shared(p, i, "a") for p in [pick(r, ("- {b}: {v}", "  {v} {b}", "* {v} ({b})", "{b} = {v}", "{v} for {s}"))] for i in range(1, n + 1))


def nothing_shared(r):
    """Facts of different subjects and attributes."""
    k = r.random()
    if k < .4:
        lead = pick(r, ("", "", "Note: ", "We know that ", "As listed, ", "It is true that ", "Remember that ", "They say that "))
        parts = ["the {a} of {s} is {v}", "{s} has the {a} {v}", "{v} is the {a} of {s}", "{s} takes {v} as {a}", "{b}: {a} {v}", "{s}'s {a} is {v}", "{s} goes by the {a} {v}", "the {a} for {s} reads {v}", "{v} ({a}) belongs to {s}", "{s} was given the {a} {v}", "{s} uses the {a} {v}", "{v} stands for the {a} of {s}"]
        one = pick(r, parts)
        other = one if r.random() < .4 else pick(r, parts)
        joint = pick(r, (" and ", ", ", " and ", "; ", ", and ", " / ", " as well as ", ", while ", ", whereas ", ", but ", " | ", "; also ", ", just as ", " because ", ", yet "))
        return lead + one + joint + number(other, 2) + pick(r, (".", ".", ".", ""))
    if k < .78:
        # A part beside each subject, and a verb between them.
        told = pick(r, ((", {a} {v},", ", {a} {v}"), (" with the {a} {v}", " with the {a} {v}"), (", whose {a} is {v},", ", whose {a} is {v}"), (" - {a} {v} -", " - {a} {v}"), (" [{a} {v}]", " [{a} {v}]"), (" ({v} as {a})", " ({v} as {a})"), (" (the {a} is {v})", " (the {a} is {v})"),
                        (" (with {a} {v})", " (with {a} {v})"), (" ({v}, the {a})", " ({v}, the {a})"), (" under the {a} {v}", " under the {a} {v}"), (" / {a} {v} /", " / {a} {v}"), (" having {a} {v}", " having {a} {v}")))
        if r.random() < .25:
            told = told[0], pick(r, (", {a} {v}", " with the {a} {v}", ", whose {a} is {v}", " ({v} as {a})"))
        if r.random() < .5:
            return "{S}" + told[0] + " " + (pick(r, MEET) if r.random() < .75 else any_word(r) + "s") + " {s2}" + number(told[1], 2) + pick(r, (".", ".", ""))
        return "{S}" + told[0] + pick(r, (" and ", " and ", " and also ", ", then ")) + "{s2}" + number(told[0], 2) + pick(r, (" are listed", " are here", " belong together", " were seen", " go first", " are old friends")) + "."
    if k < .9:
        return pick(r, ("{v} and {v2} are the {a} of {s} and the {a2} of {s2}.", "The {a} of {s} and the {a2} of {s2} read {v} and {v2}{w}.", "{S} and {s2} have {a} {v} and {a2} {v2}{w}.", "{a} and {a2}: {v} of {s}, {v2} of {s2}", "{S} has {v}, {s2} {v2}: {a} and {a2}{w}.", "{A} {v}: {s}. {A2} {v2}: {s2}.",
                        "Take {v} for {s} ({a}) and {v2} for {s2} ({a2}).", "{v} for {s}, {v2} for {s2}; the first is the {a}, the second the {a2}.", "{v} ({s}, {a}), {v2} ({s2}, {a2})", "{S} | {a} | {v} | {s2} | {a2} | {v2}", "Under {a} you find {s} with {v}, under {a2} {s2} with {v2}.",
                        "To {s} belongs {v} as {a}, to {s2} {v2} as {a2}.", "Before {s2} got the {a2} {v2}, {s} had the {a} {v}.", "Whoever needs the {a} of {s} takes {v}; for the {a2} of {s2} it is {v2}.")).replace("{w}", pick(r, RESPECTIVELY))
    return "{S} has the {a} {v}. " + pick(r, ("{S2} is another matter: the {a2} is {v2}.", "The {a2} {v2} is that of {s2}.", "{S2} (see above) has {a2} {v2}.", "Next comes {s2}; {a2}: {v2}.", "Do not forget {s2} and the {a2} {v2}."))


MAKERS = {"same-subject": same_subject, "same-attribute": same_attribute, "nothing-shared": nothing_shared}


def pattern(r, kind, kept):
    """A pattern of `kind` that is none of `kept`, whatever marks and numbers they have."""
    while True:
        form = MAKERS[kind](r)
        if bare(form) not in kept:
            return form


def bare(form):
    """A pattern's words alone."""
    return "".join(c for c in form.lower().replace("the ", "").replace("{b", "{s") if c.isalnum() or c in "{} ").strip()


NOW = ["now", "today", "by now", "these days", "at present", "nowadays", "since {d}", "from {d} on", "as of {d}", "this time", "currently"]
THEN = ["once", "before", "earlier", "until {d}", "in the past", "last year", "formerly", "originally", "at first", "before {d}", "long ago"]
GONE = ["out of date", "wrong", "void", "history", "not right any more", "cancelled", "invalid", "a mistake", "outdated", "not in use any more", "an old entry", "expired", "no good", "withdrawn", "a typo", "struck out"]


def denial(r):
    """`(pattern, whether the old value held once)`: an old value beside the one that holds; which comes first does not tell which it is."""
    of = pick(r, ("The {a} of {s}", "The {a} of {s}", "The {a} for {s}", "{S}'s {a}", "The {a} that {s} has", "The {a} belonging to {s}"))
    now, then, gone, k = pick(r, NOW), pick(r, THEN), pick(r, GONE), r.random()
    low = of[:1].lower() + of[1:] if of[0] == "T" else "{s}'s {a}"
    if k < .22:
        # Denied, then told.
        form = pick(r, ("{of} is not {o} but {v}.", "{of} is not {o} any longer but {v}.", "{of} isn't {o} any more but {v}.", "{of} is not {o}; it is {v}.", "{of} is not {o} any more, it is {v}.", "{of} is not {o}. It is {v}.", "{of} cannot be {o}, it must be {v}.", "{of} was never {o} but always {v}.", "Not {o} but {v} is {low}.",
                        "It is not {o} but {v} that {s} has as {a}.", "{of} is by no means {o} but {v}.", "{of} is hardly {o}; in fact it is {v}.", "{of} has ceased to be {o}; it is {v}.", "{of}: not {o}, {v}", "{S} does not have the {a} {o} but {v}.", "{S} does not use {o} as {a}, but {v}.", "{S} has not the {a} {o} but the {a} {v}.",
                        "Nobody should take {o} for {low}; take {v}.", "If you read {o} as {low}, it is {v} instead.", "{of} is {o} no more but {v}.", "Far from being {o}, {low} is {v}.", "{of} did not stay {o} but became {v}.", "{of} is neither {o} nor unknown but {v}."))
    elif k < .44:
        # Told, then denied.
        form = pick(r, ("{of} is {v}, not {o}.", "{of} is {v} and not {o}.", "{of} is {v} rather than {o}.", "{of} is {v} instead of {o}.", "{of} is {v} in place of {o}.", "{of} is {v} after {o}.", "{v}, not {o}, is {low}.", "{v} and not {o} is {low}.", "{of} is {v}, and not {o} any more.", "{of}: {v} (not {o})",
                        "{S} has the {a} {v}, not {o}.", "{S} uses {v} and not {o} as {a}.", "{of} is {v}; {o} is {gone}.", "{of} is {v}, whatever you heard about {o}.", "{v} is {low}, {o} is {gone}.", "Take {v} for {low}, not {o}.", "{of} is {v}; do not use {o}.", "{of} is {v}. Forget {o}.", "{of} is {v}. It was {o} {then}."))
    elif k < .6:
        # By time.
        form = pick(r, ("{of} was {o}, {now} it is {v}.", "{of} was {o}, now {v}.", "{of} was {o} {then} and is {v} {now}.", "{Then} {low} was {o}; {now} it is {v}.", "{of} is {v} {now}; {then} it was {o}.", "{of}, {o} {then}, is {v} {now}.", "{of} is {v} (it was {o} {then}).", "{Now} {low} is {v}, {then} it was {o}.", "{S} had the {a} {o} {then} and has {v} {now}.",
                        "{S} has the {a} {v} {now} and had {o} {then}.", "{of}: {o} {then}, {v} {now}", "{of}: {v} {now}, {o} {then}", "{of} used to be {o}; it is {v} {now}.", "{of} is {v} {now} but used to be {o}.", "{Then} it was {o}, {now} it is {v}: {low}."))
    elif k < .8:
        # By a change.
        form = pick(r, ("{of} changed from {o} to {v}.", "{of} went from {o} to {v}.", "{v} replaces {o} as {a} of {s}.", "{v} replaces {o}: {low}.", "{o} was replaced by {v} as {a} of {s}.", "{of} became {v} after having been {o}.", "{of} is {v} since {o} was given up.", "We changed {low} from {o} into {v}.", "{S} changed the {a} to {v} from {o}.",
                        "{S} gave back the {a} {o} and got {v}.", "{S} got the {a} {v} and gave back {o}.", "{S} swapped the {a} {o} for {v}.", "{o} made way for {v} as {a} of {s}.", "{v} took the place of {o} as {a} of {s}.", "{of} was switched to {v}, away from {o}.", "{of}: {o} -> {v}", "{of}: {v} <- {o}", "From {o}, {low} moved on to {v}.",
                        "To {v}, from {o}: that is how {low} changed.", "{of} was corrected from {o} to {v}.", "Strike {o} and write {v} as {a} of {s}.", "Write {v} as {a} of {s} and strike {o}.", "Where it says {o} for {low}, read {v}.", "{S} traded {o} for {v} as {a}."))
    else:
        # The old one is called so.
        form = pick(r, ("{o} is {gone} as {a} of {s}; it is {v}.", "{o} is {gone}; {low} is {v}.", "Instead of {o}, {s} has the {a} {v}.", "Instead of {o}, {v} is {low}.", "Forget {o}: {low} is {v}.", "{of} {o} is {gone}, use {v}.", "{of} {o} is {gone}; the new one is {v}.", "The new {a} of {s} is {v}, the old one {o} is {gone}.", "The old {a} of {s} is {o}, the new one {v}.",
                        "The new {a} of {s} is {v}, the old one was {o}.", "{b}: {a} {o} (old), {v} (new)", "{b}: {a} {v} (new), {o} (old)", "{b} | {a} | ~~{o}~~ {v}", "{of} is {v}, {o} is only {gone}.", "Some still write {o}, but {low} is {v}.", "{of} is {v}, though some still write {o}.", "Never use {o} for {s}: {low} is {v}.", "Whoever says {o} is behind the times: {low} is {v}.",
                        "You may have seen {o}; {low} is {v}.", "Correct {low}: {v}. Wrong: {o}.", "Wrong {a} of {s}: {o}. Right: {v}.", "{b} had {a} {o}, correction: {v}", "{o} no longer counts as {a} of {s}; {v} does.", "{v} counts as {a} of {s}; {o} no longer does."))
    form = form.replace("{of}", of).replace("{low}", low).replace("{now}", now).replace("{Now}", cap(now)).replace("{then}", then).replace("{Then}", cap(then)).replace("{gone}", gone)
    return form, .44 <= k < .8
