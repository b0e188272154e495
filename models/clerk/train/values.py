"""Values and attributes: what can be asked about a person, a site, an item, an event or a service.

An attribute has a key that never changes, names that a text or a question may use for it (the first is the plain one),
a function that draws a value, and optional sentences and questions of its own. `{s}` is the subject, `{v}` the value.
"""
from words import COLORS, DAYS, ENGLISH, MONTHS, ROLES, any_word, digits, made_up, mash, name_part, phrase, pick

UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ"
MIXED = UPPER + "0123456789"


def code(r, _):
    k = r.random()
    if k < .4:
        return digits(r, 3 + int(r.random() * 4))
    if k < .7:
        return "".join(pick(r, UPPER) for _ in range(2 + int(r.random() * 2))) + "-" + digits(r, 2 + int(r.random() * 3))
    if k < .85:
        return "".join(pick(r, MIXED) for _ in range(4 + int(r.random() * 3)))
    if k < .93:
        return made_up(r) + pick(r, ("-", "_", "")) + digits(r, 2)
    w = mash(r)[:9]
    return pick(r, (w.upper(), w, w.capitalize())) + pick(r, ("-", "/", ".", "", "#")) + digits(r, 1 + int(r.random() * 3))


def number(r, _): return str(1 + int(r.random() ** 2 * 900))
def room(r, _): return pick(r, UPPER[:6]) + digits(r, 2) if r.random() < .4 else digits(r, 3)
def clock(r, _): return f"{int(r.random() * 24):02d}:{int(r.random() * 12) * 5:02d}"
def price(r, _): return f"{1 + int(r.random() * 400)}.{digits(r, 2)}"
def role(r, _): return pick(r, ROLES)
def day(r, _): return pick(r, DAYS)
def color(r, _): return pick(r, COLORS)
def date(r, _): return f"{1 + int(r.random() * 28)} {pick(r, MONTHS)}"
def person(r, v): return f"{name_part(r, v.first, v.held)} {name_part(r, v.last, v.held) if r.random() < .8 else made_up(r).capitalize()}"
def town(r, v):
    name = name_part(r, v.places, v.held) if r.random() < .4 else made_up(r).capitalize()
    return name if v.held or r.random() < .88 else f"{pick(r, ('New', 'San', 'Port', 'Saint', 'Los', 'El', 'Upper', any_word(r).capitalize()))} {name}"


def word(r, _): return made_up(r)
def port(r, _): return str(1024 + int(r.random() * 60000))
def seconds(r, _): return f"{1 + int(r.random() * 120)}s"
def size(r, _): return f"{1 + int(r.random() * 64)} GB"
def level(r, _): return pick(r, ("debug", "info", "warning", "error", "trace"))
def flag(r, _): return pick(r, ("true", "false"))
def wording(r, _): return phrase(r)
def region(r, _): return f"{pick(r, ('north', 'south', 'east', 'west', 'central'))}-{1 + int(r.random() * 9)}"
def version(r, _): return f"{int(r.random() * 9)}.{int(r.random() * 30)}.{int(r.random() * 20)}"


def attr(names, draw, says=(), asks=()):
    names = names.split("|")
    return {"key": names[0], "names": names, "draw": draw, "says": list(says), "asks": list(asks)}


PERSON = [
    attr("access code|entry code", code), attr("badge number|badge", code), attr("room|office", room,
         ["{s} sits in room {v}.", "You will find {s} in room {v}."], ["Where does {s} sit?", "In which room is {s}?"]),
    attr("phone extension|extension|desk phone", number, ["Dial {v} to reach {s}."], ["Which extension reaches {s}?"]),
    attr("locker number|locker", number), attr("parking bay|parking space", room, ["{s} parks in bay {v}."], ["Where does {s} park?"]),
    attr("job|role", role, ["{s} works as a {v}.", "{s} is the {v} of the team."], ["What does {s} do?", "What is {s} by profession?"]),
    attr("home town|town", town, ["{s} lives in {v}.", "{s} moved to {v}."], ["Where does {s} live?", "In which town does {s} live?"]),
    attr("mentor|adviser", person, ["{s} is coached by {v}."], ["Who mentors {s}?", "Who advises {s}?"]),
    attr("start date|first day", date, ["{s} joined on {v}."], ["When did {s} join?", "When did {s} start?"]),
    attr("free day|day off", day, ["{s} is away on {v}."], ["On which day is {s} away?"]),
    attr("password|passphrase", code), attr("laptop|computer", code), attr("employee id|staff id", code),
    attr("shift start|start time", clock, ["{s} begins work at {v}."], ["When does {s} begin work?"]),
    attr("deputy|substitute", person, ["When {s} is away, {v} takes over."], ["Who stands in for {s}?", "Who takes over when {s} is away?"]),
    attr("team color|color", color), attr("seat|place", room), attr("key code", code), attr("license plate|plate", code),
    attr("invoice number|invoice", code), attr("account number|account", code), attr("mailbox", number), attr("ticket number|ticket", code),
    attr("training level", number), attr("budget", price), attr("meal time", clock), attr("user name|login", word),
    attr("bus line", number), attr("project|assignment", word), attr("tool box", room), attr("contract number", code)]
SITE = [
    attr("door code|entrance code", code), attr("alarm code", code), attr("manager|head", person,
         ["{v} runs {s}.", "{s} is led by {v}.", "{v} is in charge of {s}."], ["Who runs {s}?", "Who is in charge of {s}?", "Who leads {s}?"]),
    attr("opening time", clock, ["{s} opens at {v}."], ["When does {s} open?", "At what time does {s} open?"]),
    attr("closing time", clock, ["{s} closes at {v}."], ["When does {s} close?", "At what time does {s} close?"]),
    attr("phone number|telephone", code), attr("postal code|zip code", code), attr("wifi password|network password", code),
    attr("town|location", town, ["{s} is located in {v}.", "{s} stands in {v}."], ["Where is {s}?", "In which town is {s}?"]),
    attr("closed day|rest day", day, ["{s} stays closed on {v}."], ["On which day is {s} closed?"]),
    attr("capacity", number, ["{s} holds up to {v} people."], ["How many people fit into {s}?"]),
    attr("entry fee|admission", price), attr("cleaner", person), attr("supplier", person), attr("meter number", code),
    attr("safe code|vault code", code), attr("inspection date", date), attr("gate color", color), attr("key holder", person), attr("fire exit", room)]
ITEM = [
    attr("price|cost", price, ["{s} costs {v}.", "You pay {v} for {s}."], ["How much does {s} cost?", "How much is {s}?"]),
    attr("stock|quantity", number, ["We have {v} pieces of {s}."], ["How many pieces of {s} do we have?"]),
    attr("shelf|bin", room, ["{s} lies on shelf {v}."], ["Where is {s} kept?", "On which shelf is {s}?"]),
    attr("serial number|serial", code), attr("order number|order code", code), attr("weight", number),
    attr("owner", person, ["{s} belongs to {v}."], ["Who owns {s}?", "Whom does {s} belong to?"]),
    attr("maker|manufacturer", word, ["{s} is made by {v}."], ["Who makes {s}?"]),
    attr("delivery date", date, ["{s} arrives on {v}."], ["When does {s} arrive?"]), attr("warranty code", code),
    attr("barcode", code), attr("color", color), attr("model|type", code), attr("last check", date), attr("discount", number), attr("batch", code)]
EVENT = [
    attr("day|weekday", day, ["{s} takes place on {v}."], ["On which day is {s}?"]),
    attr("time|start", clock, ["{s} starts at {v}.", "{s} begins at {v}."], ["When does {s} start?", "At what time is {s}?"]),
    attr("room|hall", room, ["{s} is held in room {v}."], ["Where is {s} held?", "In which room is {s}?"]),
    attr("host|organizer", person, ["{v} hosts {s}.", "{s} is organized by {v}."], ["Who hosts {s}?", "Who organizes {s}?"]),
    attr("fee|price", price, ["{s} costs {v}."], ["How much does {s} cost?"]), attr("seats|places", number),
    attr("sign-up code|registration code", code), attr("dial-in number", code), attr("speaker", person), attr("end", clock),
    attr("deadline", date), attr("guest", person)]
SERVICE = [
    attr("port", port, ["{s} listens on port {v}."], ["Which port does {s} listen on?"]), attr("timeout", seconds),
    attr("replicas", number, ["{s} runs {v} replicas."], ["How many replicas does {s} run?"]), attr("region|zone", region,
         ["{s} is deployed in {v}."], ["Where is {s} deployed?"]), attr("log level", level), attr("owner", person,
         ["{v} owns {s}."], ["Who owns {s}?"]), attr("memory limit|memory", size), attr("version|release", version,
         ["{s} is at version {v}."], ["Which version of {s} is deployed?"]), attr("retries|max retries", number),
    attr("queue name|queue", word), attr("api key|secret", code), attr("debug", flag), attr("batch size", number),
    attr("host", word), attr("database", word), attr("pager code", code), attr("cache size", size), attr("token", code)]
POLICY = [
    attr("approver|signer", person, ["{v} approves {s}.", "{s} must be signed by {v}."], ["Who approves {s}?", "Who signs off on {s}?"]),
    attr("limit|maximum", price, ["{s} may not exceed {v}."], ["How much is allowed for {s}?"]), attr("form number|form", code),
    attr("cost center", code), attr("contact", person, ["Questions about {s} go to {v}."], ["Whom do I ask about {s}?"]),
    attr("cut-off time", clock), attr("review date", date), attr("rule number", number), attr("notice days", number)]
FAMILIES = {"person": PERSON, "site": SITE, "item": ITEM, "event": EVENT, "service": SERVICE, "policy": POLICY}
DRAWS = [code, code, code, number, room, clock, price, role, day, color, date, person, town, word, port, version, wording, wording]
QUALIFIERS = "backup spare second old new private main winter summer night guest regional".split()


def attributes(kind, held):
    """Attributes for one side. Training never sees each family's held-out ones (every seventh); evaluation sees all, the
    held-out ones by their plain names, since nothing in training could tell that a "role" is a "job"."""
    plain = [dict(a, names=a["names"][:1], says=[], asks=[]) if i % 7 == 6 else a for i, a in enumerate(FAMILIES[kind])]
    return [a for i, a in enumerate(plain) if held or i % 7 != 6]


ATTRS = {(k, h): attributes(k, h) for k in FAMILIES for h in (False, True)}


def invented(r):
    """An attribute no list knows, so that any words can be one."""
    words = [pick(r, ENGLISH) if r.random() < .8 else any_word(r) for _ in range(1 if r.random() < .4 else 2)]
    return attr(" ".join(words), pick(r, DRAWS))
