"""Scenes composed by grammar from English verbs: who did what, to whom, for whom, with whom, where, when, how, for how much, how many, why.

`deed(r)` gives the sentences and the slots of a scene: a verb in some tense, the roles that it can have in any order, questions for each.
"""
from words import pick

# base, third person, past, participle | what its object is: t a thing, p a person, - none | the roles that it can have besides those that all have.
VERBS = """buy buys bought bought|t|source price quantity beneficiary
sell sells sold sold|t|recipient price quantity
rent rents rented rented|t|source price duration
lend lends lent lent|t|recipient duration quantity
borrow borrows borrowed borrowed|t|source duration quantity
send sends sent sent|t|recipient code quantity vehicle
bring brings brought brought|t|recipient quantity vehicle
show shows showed shown|t|recipient
return returns returned returned|t|recipient quantity
deliver delivers delivered delivered|t|recipient code quantity vehicle
ship ships shipped shipped|t|recipient code quantity vehicle price
order orders ordered ordered|t|source price quantity code beneficiary
collect collects collected collected|t|source quantity vehicle
paint paints painted painted|t|price beneficiary color
repair repairs repaired repaired|t|price beneficiary tool
build builds built built|t|price beneficiary quantity
clean cleans cleaned cleaned|t|price tool
store stores stored stored|t|duration code room quantity
find finds found found|t|room
lose loses lost lost|t|quantity
print prints printed printed|t|beneficiary quantity price
test tests tested tested|t|tool
count counts counted counted|t|beneficiary
photograph photographs photographed photographed|t|beneficiary price
bake bakes baked baked|f|beneficiary quantity duration
cook cooks cooked cooked|f|beneficiary duration
serve serves served served|f|recipient price
eat eats ate eaten|f|
design designs designed designed|t|beneficiary price
measure measures measured measured|t|tool
hide hides hid hidden|t|room
carry carries carried carried|t|recipient quantity
exchange exchanges exchanged exchanged|t|recipient quantity
register registers registered registered|t|code price
call calls called called|p|phone
meet meets met met|p|room
visit visits visited visited|p|duration vehicle
interview interviews interviewed interviewed|p|room duration lang
train trains trained trained|p|duration price
examine examines examined examined|p|room price
hire hires hired hired|p|price role
help helps helped helped|p|duration
invite invites invited invited|p|occasion
teach teaches taught taught|p|topic price room lang
drive drives drove driven|p|vehicle price
follow follows followed followed|p|vehicle
discuss discusses discussed discussed|s|audience room lang
study studies studied studied|s|source2 room duration lang
practice practices practiced practiced|s|room duration beneficiary
present presents presented presented|s|audience room lang
review reviews reviewed reviewed|s|room price beneficiary
travel travels traveled -|-|origin destination vehicle price duration
fly flies flew -|-|origin destination price
go goes went -|-|origin destination vehicle
walk walks walked -|-|origin destination duration
sail sails sailed -|-|origin destination duration vehicle
wait waits waited -|-|room duration
work works worked -|-|role firm duration
speak speaks spoke -|-|topic lang room
stay stays stayed -|-|hotel duration price
sing sings sang -|-|occasion price
play plays played -|-|instrument occasion firm
vote votes voted -|-|topic
apply applies applied -|-|role firm
pay pays paid paid|m|recipient beneficiary2 code
win wins won won|m|occasion
earn earns earned earned|m|firm role
owe owes owed owed|m|recipient beneficiary2""".split("\n")
# role: kind, phrases, question words (with {o}: the object as the question names it), names as a JSON key.
ROLES = {
    "audience": ("int", ["before {x} people", "with {x} others", "in front of {x} guests", "among {x} listeners"], ["Before how many people", "How many people|with"], "audience,people,listeners,class_size,attendance"),
    "source2": ("person", ["with the help of {x}", "under {x}", "guided by {x}"], ["With whose help", "Under whom"], "teacher,lecturer,guide,mentor,by"),
    "place": ("town", ["in {x}", "in {x}", "near {x}", "outside {x}"], ["Where", "In which town", "In what place", "Where exactly"], "place,city,town,location,where"),
    "room": ("room", ["in room {x}", "in room {x}"], ["In which room", "Where"], "room,room_number,where,location"),
    "day": ("day", ["on {x}", "on {x}", "this {x}"], ["When", "On which day", "On what day of the week"], "day,weekday,when,date"),
    "date": ("date", ["on {x}", "on {x}"], ["When", "On which date", "On which day"], "date,when,day,on"),
    "clock": ("clock", ["at {x}", "at {x}", "shortly after {x}"], ["When", "At what time", "At which hour"], "time,hour,at,when"),
    "month": ("month", ["in {x}"], ["When", "In which month"], "month,when,date"),
    "yeardate": ("yeardate", ["in {x}"], ["When", "In which year"], "year,when,date"),
    "companion": ("person", ["with {x}", "together with {x}", "in the company of {x}"], ["With whom", "Together with whom"], "companion,with,partner,second_person,colleague"),
    "reason": ("reason", ["because of {x}", "due to {x}", "on account of {x}"], ["Why", "For what reason", "Because of what"], "reason,cause,why,because"),
    "recipient": ("person", ["to {x}"], ["To whom", "Whom|to"], "recipient,to,receiver,customer"),
    "beneficiary": ("person", ["for {x}", "on behalf of {x}"], ["For whom", "On whose behalf"], "for,client,customer,beneficiary"),
    "beneficiary2": ("goods", ["for the {x}"], ["For what", "What|for"], "for,item,purpose,what_for"),
    "source": ("source", ["from {x}"], ["From whom", "Whom|from"], "source,from,seller,owner"),
    "price": ("price", ["for {x}", "at a price of {x}", "for {x} in all"], ["For how much", "At what price", "For how much money"], "price,cost,amount,total,fee"),
    "duration": ("span", ["for {x}", "for about {x}"], ["For how long", "How long"], "duration,length,time,period"),
    "code": ("code", ["under the number {x}", "under {x}", "as {x}"], ["Under which number", "As what"], "code,number,id,reference"),
    "vehicle": ("vehicle", ["by {x}"], ["How", "By what means", "By which vehicle"], "vehicle,transport,means,by"),
    "tool": ("goods", ["with the {x}", "using the {x}"], ["With what", "With which tool"], "tool,with,instrument,using"),
    "color": ("color", ["in {x}"], ["In which color", "In what color"], "color,colour,paint"),
    "phone": ("phone", ["on {x}", "under {x}"], ["Under which number", "On which number"], "phone,phone_number,number"),
    "lang": ("lang", ["in {x}"], ["In which language", "In what language"], "language,lang,tongue"),
    "topic": ("topicword", ["about {x}", "on the subject of {x}"], ["About what", "On which subject"], "topic,subject,about,theme"),
    "role": ("role", ["as a {x}"], ["As what", "In which position"], "role,job,position,as"),
    "firm": ("company", ["for {x}", "at {x}"], ["For whom", "For which company"], "company,employer,firm,organization"),
    "hotel": ("company", ["at the {x}"], ["In which hotel", "At which hotel"], "hotel,accommodation,name_of_hotel"),
    "occasion": ("event", ["at the {x}", "during the {x}"], ["At what occasion", "At which event"], "occasion,event,at,event_name"),
    "instrument": ("instrument", ["on the {x}"], ["On which instrument", "On what"], "instrument,on"),
    "origin": ("town", ["from {x}"], ["From where", "From which town", "Where|from"], "origin,from,start,departure"),
    "destination": ("town", ["to {x}"], ["To which town", "Where|to", "To where"], "destination,to,arrival,target"),
}
COMMON = ["place", "place", "day", "date", "clock", "month", "yeardate", "companion", "reason"]
TIMES = ("day", "date", "month", "yeardate")
FRONT = ("place", "day", "date", "clock", "month", "yeardate", "reason", "companion")
OBJECTS = {"t": ("goods", "item,thing,object,what,product"), "f": ("dish", "dish,food,meal,what"), "p": ("person", "person,whom,other,guest,second_person"), "s": ("topicword", "subject,topic,course,what,theme"), "m": ("price", "amount,sum,money,total")}


def deed(r):
    """`(sentences, slots)` of one scene; a slot has its names, its kind and its questions."""
    verb, kind, own = pick(r, VERBS).split("|")
    base, third, past, done = verb.split(" ")
    tense = pick(r, ("past", "past", "past", "now", "will", "must"))
    finite = {"past": past, "now": third, "will": "will " + base, "must": "must " + base}[tense]
    aux = {"past": "did", "now": "does", "will": "will", "must": "must"}[tense]
    firm = kind not in "-p" and r.random() < .12
    roles = []
    for role in r.sample(own.split(), int(r.random() * (1 + min(3, len(own.split()))))) + r.sample(COMMON, 1 + int(r.random() * 2.6)):
        same = TIMES if role in TIMES else ("place", "room", "hotel") if role in ("place", "room", "hotel") else ("recipient", "beneficiary", "firm") if role in ("recipient", "beneficiary", "firm") else (role,)
        if not any(x in roles for x in same) and not (role == "lang" and "place" in roles):
            roles.append(role)
    quantity = "quantity" in roles
    roles = [x for x in roles if x != "quantity"]
    slots, parts = {}, {}
    agent = "{agent}"
    slots["agent"] = (["name", "who", "person", pick(r, ("seller", "agent", "user", "subject", "customer"))] if not firm else ["company", "who", "firm"], "company" if firm else "person", [])
    obj = named = ""
    if kind != "-":
        k, names = OBJECTS[kind]
        questions = [f"{'Whom' if kind == 'p' else 'How much' if kind == 'm' else 'What'} {aux} {{agent}} {base}?"]
        if kind in "tf":
            questions.append(f"What is it that {{agent}} {finite}?")
        elif kind == "p":
            questions.append(f"Who {'was' if tense == 'past' else 'is' if tense == 'now' else aux + ' be'} {done} by {{agent}}?")
        slots["object"] = (names.split(","), k, questions)
        if quantity:
            slots["quantity"] = (["quantity", "count", "number", "how_many", "amount"], "int", [f"How many {{object}}s {aux} {{agent}} {base}?", f"How many {aux} {{agent}} {base}?"])
            obj = pick(r, ("{quantity} {object}s", "{quantity} {object}s", "{quantity} pieces of {object}"))
            named = "the {object}s"
        else:
            obj = {"t": pick(r, ("a new {object}", "the {object}", "the {object}", "one {object}", "our {object}", "this {object}")), "f": pick(r, ("{object}", "the {object}", "some {object}")), "p": "{object}", "m": "{object}", "s": "{object}"}[kind]
            named = {"t": "the {object}", "f": "the {object}", "p": "{object}", "m": "{object}", "s": "{object}"}[kind]
    tail = " " + named if named else ""
    for role in roles:
        k, phrases, words, names = ROLES[role]
        questions = []
        # Where an hour is told beside a day, "when" asks for the day.
        words = [w for w in words if w != "When"] if role == "clock" and any(x in roles for x in TIMES) else words
        for w in words:
            w, _, after = w.partition("|")
            questions.append(f"{w} {aux} {{agent}} {base}{tail}{' ' + after if after else ''}?")
        if kind == "t" and role in ("place", *TIMES, "clock", "price", "room") and done != "-":
            be = {"past": "were" if quantity else "was", "now": "are" if quantity else "is", "will": "will", "must": "must"}[tense]
            middle = f"{named} be {done}" if be in ("will", "must") else f"{named} {done}"
            questions.append(f"{words[0].partition('|')[0]} {be} {middle} by {{agent}}?")
        slots[role] = (names.split(","), k, questions)
        parts[role] = pick(r, phrases).replace("{x}", "{" + role + "}")
    # Who it was, by a part that no other scene shares.
    for role in ("recipient", "source", "beneficiary", "companion", "code", "hotel", "firm", "phone"):
        if role in roles and (kind != "-" or role in ("companion", "hotel")):
            slots["agent"][2].append(f"Who {finite}{' ' + obj if obj and not quantity else tail} {parts[role]}?")
    if kind == "p":
        slots["agent"][2].extend([f"Who {finite} {{object}}?", f"By whom {'was' if tense == 'past' else 'is'} {{object}} {done}?"] if tense in ("past", "now") else [f"Who {finite} {{object}}?"])
    order = list(parts)
    r.shuffle(order)
    said = [parts[x] for x in order]
    front = [x for x in order if x in FRONT]
    core = f"{agent} {finite}{' ' + obj if obj else ''}"
    k = r.random()
    if k < .26 and front:
        f = pick(r, front)
        text = parts[f] + pick(r, (", ", ", ", " ")) + core + joined([parts[x] for x in order if x != f])
    elif k < .36 and done != "-" and kind in "tfps" and tense in ("past", "now", "will"):
        be = {"past": "were" if quantity else "was", "now": "are" if quantity else "is", "will": "will be"}[tense]
        mine = [parts[x] for x in order]
        cut = int(r.random() * (len(mine) + 1))
        text = f"{obj} {be} {done}{joined(mine[:cut])} by {agent}{joined(mine[cut:])}"
    elif k < .44:
        text = f"it {'was' if tense == 'past' else 'is'} {agent} who {finite}{' ' + obj if obj else ''}" + joined(said)
    elif k < .52 and order:
        last = order[-1]
        text = core + joined(said[:-1]) + pick(r, (". It {be} ", ". That {be} ", ", and it {be} ", ", namely ")).format(be={"past": "was", "now": "is", "will": "will be", "must": "must be"}[tense]) + parts[last]
    elif k < .6 and len(order) > 1:
        text = core + pick(r, (" (", " - ", ", ")) + pick(r, (", ", "; ")).join(said)
        text += ")" if "(" in text else ""
    elif k < .68:
        text = pick(r, ("we heard that ", "note that ", "the plan says that ", "as you know, ", "they say that ", "it is true that ", "I can tell you that ", "news: ", "please note: ")) + core + joined(said)
    elif k < .76 and front:
        text = core + joined(said[:1]) + joined([", " + x for x in said[1:]], "")
    else:
        text = core + joined(said)
    return [text[:1].upper() + text[1:] + pick(r, (".", ".", ".", ".", "!", ""))], slots


def joined(parts, space=" "):
    return "".join(space + x for x in parts)
