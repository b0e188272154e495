"""Small events told in a sentence or two, with what each of their parts is called: for questions and for extraction into JSON.

A scene: sentences over named slots, and for each slot its names, its kind, and questions about it. Every fifth scene is kept
for evaluation.
"""
import re

import relations
from deeds import deed
from frames import frame
from intents import KINDS_OF
from values import QUALIFIERS, price, role
from words import GATHERINGS, KINDS, MONTHS, SERVICE_B, any_word, digits, made_up, name_part, pick

SCENES = """trip
> {name} travels from {origin} to {destination} on {date}.|On {date}, {name} goes from {origin} to {destination}.|{name} will leave {origin} on {date} and arrive in {destination}.|{name} is flying to {destination} on {date}, starting in {origin}.
name,traveler,passenger,person=person ? Who travels to {destination}?|Who is going to {destination}?
origin,from,departure_city,start=town ? Where does {name} start?|From where does {name} travel?
destination,to,arrival_city,target=town ? Where does {name} travel?|Where is {name} going?
date,day,travel_date,when=when ? When does {name} travel?|On which day does {name} leave?
meeting
> {person} meets {other} on {date} at {time} in {place}.|{person} and {other} will meet in {place} on {date} at {time}.|There is a meeting of {person} with {other}: {date}, {time}, {place}.|On {date} at {time}, {person} sees {other} in {place}.
person,name,host,organizer=person ? Who meets {other}?
other,guest,with,partner=person ? Whom does {person} meet?|Who will {person} see?
date,day,when,meeting_date=when ? When does {person} meet {other}?|On which day do {person} and {other} meet?
time,start,start_time,hour=clock ? At what time does {person} meet {other}?|At which hour does {person} see {other}?
place,location,city,where=town ? Where does {person} meet {other}?|In which town do {person} and {other} meet?
person
> My name is {name}, I am {age} years old and I live in {city}.|{name} is {age} years old and lives in {city}.|{name}, {age}, comes from {city}.|Meet {name} from {city}, who is {age}.|I am {name} ({age}) from {city}.|{name} lives in {city} and has just turned {age}.
name,full_name,person,user_name=person ? Who lives in {city}?
age,years,age_in_years,years_old=int ? How old is {name}?|What is the age of {name}?
city,town,location,home=town ? Where does {name} live?|Where is {name} from?
job
> {name} works as a {job} at {company} and earns {salary} a month.|{company} hired {name} as a {job} for {salary} a month.|{name} is a {job} with {company}; the pay is {salary}.|As a {job} at {company}, {name} gets {salary}.
name,employee,person,full_name=person ? Who works at {company}?
job,role,position,job_title,occupation=role ? What does {name} do at {company}?|What is the profession of {name}?
company,employer,firm,organization=title ? Where does {name} work?|Which company pays {name}?
salary,pay,income,monthly_salary=int ? How much does {name} earn?|What is {name} paid?
contact
> You can reach {name} at {email} or by phone under {phone}.|{name}: {email}, {phone}|Write to {email} or call {phone} if you need {name}.|The address of {name} is {email}, the number is {phone}.|Please contact {name} ({email}, tel. {phone}).
name,contact,person,contact_name=person ? Whose address is {email}?
email,mail,email_address,address=email ? What is the email address of {name}?|How can I write to {name}?
phone,phone_number,telephone,number=phone ? What is the phone number of {name}?|Under which number do I reach {name}?
order
> {customer} ordered {quantity} {product}s for {price} each.|We sold {quantity} {product}s to {customer} at {price}.|{customer} wants {quantity} {product}s; one costs {price}.|Order: {quantity} x {product}, {customer}, {price}|{quantity} {product}s go to {customer} at a price of {price}.
customer,name,buyer,client=person ? Who ordered {quantity} {product}s?
quantity,count,amount,pieces=int ? How many {product}s did {customer} order?|How many pieces does {customer} get?
product,item,article,product_name=good ? What did {customer} order?|What does {customer} want?
price,unit_price,cost,price_each=price ? What does one {product} cost?|How much does {customer} pay for each {product}?
delivery
> Parcel {code} for {name} arrives in {city} on {date}.|{name} gets parcel {code} on {date} in {city}.|On {date} the courier brings {code} to {name} in {city}.|The package {code} was sent to {name}, {city}, and comes on {date}.
code,tracking_number,parcel,id=code ? Which parcel does {name} get?|What is the number of the parcel for {name}?
name,recipient,receiver,customer=person ? Who gets parcel {code}?|For whom is {code}?
city,town,destination,place=town ? Where does parcel {code} arrive?|Where does {name} get the parcel?
date,delivery_date,day,arrival=when ? When does parcel {code} arrive?|When does {name} get the parcel?
event
> {name} and {other} are going to the {event} on {date}.|The {event} on {date} will be visited by {name} and {other}.|On {date}, {name} takes {other} to the {event}.|{name} and {other} plan to see the {event} on {date}.
name,first_person,guest,visitor=person ? Who goes to the {event} with {other}?
other,second_person,companion,friend=person ? Who goes to the {event} with {name}?
event,title,event_name,occasion=words ? Where do {name} and {other} go?|What do {name} and {other} visit?
date,day,when,event_date=when ? When do {name} and {other} go to the {event}?|When is the {event}?
book
> {author} wrote "{title}" in {year}.|"{title}" by {author} came out in {year}.|In {year}, {author} published "{title}".|The book "{title}" ({year}) is by {author}.
author,writer,by,name=person ? Who wrote "{title}"?|Who is the author of "{title}"?
title,book,name_of_book,book_title=title ? What did {author} write?|Which book is by {author}?
year,published,publication_year,year_of_publication=year ? When did "{title}" come out?|In which year did {author} publish "{title}"?
company
> {company} from {city} has {employees} employees and is led by {boss}.|{boss} leads {company}, a firm of {employees} people in {city}.|{company}, founded in {city}, employs {employees} people under {boss}.|With {employees} employees, {company} of {city} is headed by {boss}.
company,name,company_name,firm=title ? Which company does {boss} lead?
city,town,location,headquarters=town ? Where is {company}?|In which city is {company}?
employees,staff,size,number_of_employees=int ? How many people work at {company}?|How many employees does {company} have?
boss,ceo,head,director=person ? Who leads {company}?|Who is the boss of {company}?
invoice
> Invoice {number} over {total} is due on {date} and goes to {customer}.|{customer} must pay invoice {number} ({total}) by {date}.|We sent {customer} invoice {number} for {total}, payable until {date}.|Invoice {number}: {customer}, {total}, due {date}
number,invoice_number,id,invoice_id=code ? Which invoice must {customer} pay?
total,amount,sum,total_amount=price ? How much is invoice {number}?|What must {customer} pay?
date,due_date,due,deadline=when ? When is invoice {number} due?|Until when must {customer} pay?
customer,client,recipient,name=person ? Who must pay invoice {number}?|For whom is invoice {number}?
flat
> The flat in {city} has {rooms} rooms, costs {rent} a month and belongs to {owner}.|{owner} rents out a flat of {rooms} rooms in {city} for {rent}.|For {rent} a month you get {rooms} rooms in {city} from {owner}.|{city}: {rooms} rooms, {rent} a month, ask {owner}
city,town,location,place=town ? Where is the flat of {owner}?
rooms,number_of_rooms,room_count,bedrooms=int ? How many rooms does the flat in {city} have?
rent,price,monthly_rent,cost=int ? What does the flat in {city} cost?|How much is the flat of {owner}?
owner,landlord,contact,name=person ? Whom does the flat in {city} belong to?|Who owns the flat in {city}?
server
> The service {service} runs version {version} on port {port} in {region}.|{service} {version} listens on port {port} ({region}).|In {region}, {service} is at {version} and uses port {port}.|We deployed {service} {version} to {region}; its port is {port}.
service,name,app,service_name=service ? What runs on port {port}?
version,release,tag,app_version=version ? Which version of {service} runs?
port,port_number,listen_port,tcp_port=int ? On which port is {service}?
region,zone,location,place=town ? Where does {service} run?
doctor
> {patient} has an appointment with Doctor {doctor} on {date} at {time}.|Doctor {doctor} sees {patient} on {date} at {time}.|On {date} at {time}, {patient} goes to Doctor {doctor}.|{date}, {time}: {patient} at Doctor {doctor}
patient,name,patient_name,person=person ? Who sees Doctor {doctor}?
doctor,physician,doctor_name,with=surname ? Which doctor does {patient} see?
date,day,appointment_date,when=when ? When does {patient} see Doctor {doctor}?
time,hour,appointment_time,at=clock ? At what time does {patient} see Doctor {doctor}?
pet
> {owner} has a {color} {animal} called {pet}.|{pet} is the {color} {animal} of {owner}.|The {animal} of {owner} is {color} and hears to the name {pet}.|{owner} walks a {color} {animal}, {pet}.
owner,name,person,holder=person ? Who has a {animal} called {pet}?
color,colour,fur,fur_color=color ? Which color is {pet}?
animal,kind,species,type=animal ? What kind of animal is {pet}?
pet,pet_name,called,animal_name=word ? What is the {animal} of {owner} called?
bug
> {user} reports that {service} answers with error {code} since {date}.|Since {date}, {service} gives error {code}, says {user}.|Error {code} in {service}, seen by {user} on {date}.|{user} sees error {code} from {service} since {date}.
user,reporter,name,reported_by=person ? Who reports error {code}?
service,component,app,system=service ? Which service gives error {code}?
code,error_code,error,id=code ? Which error does {service} give?
date,since,first_seen,when=when ? Since when does {service} fail?
recipe
> Take {grams} grams of {thing} and bake it for {minutes} minutes at {degrees} degrees.|Bake {grams} grams of {thing} at {degrees} degrees for {minutes} minutes.|{grams} grams of {thing} need {minutes} minutes in the oven at {degrees} degrees.
grams,amount,weight,quantity=int ? How many grams of {thing} do I need?
thing,ingredient,food,item=dish ? What do I bake at {degrees} degrees?
minutes,time,duration,baking_time=int ? How long do I bake the {thing}?
degrees,temperature,heat,oven_temperature=int ? How hot must the oven be for the {thing}?
match
> {team} beat {loser} {score} in front of {spectators} people.|{loser} lost to {team} {score} before {spectators} people.|{spectators} people saw {team} win {score} against {loser}.
team,winner,home,winning_team=town ? Who beat {loser}?|Which team won against {loser}?
loser,opponent,away,losing_team=town ? Whom did {team} beat?
score,result,final_score,goals=score ? What was the score when {team} beat {loser}?
spectators,attendance,crowd,visitors=int ? How many people saw {team} win?
loan
> {name} borrowed {amount} from {bank} and pays it back by {date}.|{bank} lent {name} {amount} until {date}.|By {date}, {name} owes {bank} {amount}.
name,borrower,customer,person=person ? Who borrowed {amount}?
amount,sum,loan,total=int ? How much did {name} borrow?
bank,lender,creditor,institute=title ? Who lent {name} money?
date,due,until,due_date=when ? When must {name} pay back?
course
> {teacher} teaches {subject} to {students} students in room {room}.|{students} students learn {subject} from {teacher} in room {room}.|The {subject} class of {teacher} has {students} students and meets in room {room}.|In room {room}, {teacher} explains {subject} to {students} students.
teacher,lecturer,instructor,name=person ? Who teaches {subject}?
subject,course,topic,class_name=topicword ? What does {teacher} teach?
students,class_size,participants,count=int ? How many students learn {subject}?
room,classroom,room_number,where=room ? In which room is {subject} taught?
""".strip().split("\n")
EXTRA = {"role": role, "price": price, "phone": lambda r, v: pick(r, ("", "0", "+")) + digits(r, 3) + pick(r, (" ", "-", "")) + digits(r, 4), "animal": lambda r, v: pick(r, "dog cat horse rabbit parrot goat hamster turtle pony donkey".split()),
         "color": lambda r, v: pick(r, "red blue green white black brown grey yellow orange".split()), "surname": lambda r, v: KINDS_OF["person"](r, v).split(" ")[-1], "score": lambda r, v: f"{int(r.random() * 9) + 1}:{int(r.random() * 9)}"}
REASONS = "the storm,a flood,the strike,bad weather,a broken pump,the holiday,illness,a lost key,heavy snow,the new rules,an accident,a wedding,high prices,a missing part,the heat,lack of money,a fire,too much work,an urgent order".split(",")
# What only composed scenes have.
MORE = {"goods": KINDS_OF["good"], "source": KINDS_OF["person"], "company": relations.company, "span": lambda r, v: f"{2 + int(r.random() ** 2 * 40)} {pick(r, ('days', 'weeks', 'hours', 'months', 'minutes', 'years'))}",
        "yeardate": lambda r, v: str(1900 + int(r.random() * 131)), "month": lambda r, v: pick(r, MONTHS), "event": lambda r, v: f"{pick(r, v.topics) if r.random() < .5 else any_word(r).lower()} {pick(r, GATHERINGS)}",
        "reason": lambda r, v: pick(r, REASONS) if r.random() < .5 else f"{pick(r, ('the', 'a', 'the new', 'the old', 'another'))} {any_word(r).lower()}",
        "subject:person": KINDS_OF["person"], "subject:company": relations.company, "subject:vehicle": relations.vehicle, "subject:animal": relations.animal,
        "subject:site": lambda r, v: f"{name_part(r, v.places, v.held)} {pick(r, KINDS)}", "subject:item": lambda r, v: f"{pick(r, v.shades)} {any_word(r).lower() if r.random() < .5 else pick(r, v.goods)}",
        "subject:event": lambda r, v: f"{pick(r, v.topics) if r.random() < .4 else any_word(r).lower()} {pick(r, GATHERINGS)}", "subject:service": lambda r, v: f"{pick(r, v.service_a) if r.random() < .5 else made_up(r)}-{pick(r, SERVICE_B)}"}
DRAW = {**relations.DRAW, **KINDS_OF, **EXTRA, **MORE}


class Scene:
    def __init__(self, name):
        # `loose`: a question may name parts that other scenes share, beside one that none does.
        self.name, self.says, self.slots, self.loose = name, [], {}, False


def read():
    out = []
    for row in SCENES:
        if row.startswith("> "):
            out[-1].says = row[2:].split("|")
        elif "=" in row:
            head, asks = row.split(" ? ")
            names, kind = head.split("=")
            names = names.split(",")
            out[-1].slots[names[0]] = names, kind, asks.split("|")
        else:
            out.append(Scene(row))
    return out


ALL = read()
POOL = {False: [x for i, x in enumerate(ALL) if i % 5 != 4], True: ALL[4::5]}


def draw(r, scene, v):
    """A value for each slot; no two alike."""
    while True:
        values = {}
        for slot, (_, kind, _) in scene.slots.items():
            d = DRAW[kind]
            values[slot] = d(r, v) if d else str(1 + int(r.random() ** 2 * 900)) if kind == "int" else str(1900 + int(r.random() * 130))
        if len(set(values.values())) == len(values):
            return values


def tell(r, scene, values):
    text = pick(r, scene.says)
    if scene.loose and "a {" in text:
        text = re.sub(r"\ba \{(\w+)\}", lambda m: m.group().replace("a ", "an ", 1) if values[m.group(1)][0] in "aeiou" else m.group(), text)
    return text.format(**values)


def is_number(kind):
    return kind in ("int", "year", "yeardate") or kind in relations.NUMBERS


# Slots whose kinds have few values: several scenes may share one, so no question may name a scene by them alone.
FEW = ("int", "when", "role", "color", "animal", "good", "topicword", "dish", "clock", "year", "score", "lang", "goods", "yeardate", "span", "event", "reason", *relations.FEW)


def mentions(question):
    return [x.split("}")[0] for x in question.split("{")[1:]]


def sure(scene, slot):
    return scene.slots[slot][1] not in FEW


def clear(scene, question):
    """Whether a question means this scene alone."""
    return (any if scene.loose else all)(sure(scene, x) for x in mentions(question))


def invented(r):
    """A scene that nobody wrote."""
    k = r.random()
    if k < .34:
        return composed(r)
    s = Scene("deed" if k < .7 else "frame")
    s.says, s.slots = deed(r) if k < .7 else frame(r)
    s.loose = True
    return s


def base_verb(r):
    w = any_word(r).lower() if r.random() < .7 else pick(r, VERBS)
    return w if w[-1] not in "sxy" else w + "e"


VERBS = "teach paint sell repair carry rent buy lend guard count order visit lead call clean test build print open send move store train watch cook show keep report meet bring check plan need want hire owe borrow own".split()
TYPED = {"person": "name,person,who,user,customer,employee,contact,member", "town": "city,town,place,location,where", "when": "date,day,when", "clock": "time,start,at,hour", "price": "price,cost,amount,total,fee", "email": "email,mail,email_address",
         "phone": "phone,phone_number,telephone", "url": "url,link,website", "title": "title,company,name,firm", "color": "color,colour", "role": "job,role,position"}
WITH = {"person": ["with", "for", "from", "to", "beside", "through"], "town": ["in", "in", "near", "outside"], "when": ["on", "on", "from"], "clock": ["at", "after", "until"], "price": ["for", "at"], "email": ["under", "through"], "phone": ["under"], "url": ["on"]}
ASKS = {"person": ["{W} whom does {{subject}} {v}?", "Whom does {{subject}} {v} {w}?", "Who does {{subject}} {v} {w}?"], "town": ["Where does {{subject}} {v}?", "In which town does {{subject}} {v}?", "Where do you find {{subject}}?"],
        "when": ["When does {{subject}} {v}?", "On which day does {{subject}} {v}?", "When will {{subject}} {v}?"], "clock": ["At what time does {{subject}} {v}?", "At which hour will {{subject}} {v}?"],
        "price": ["For how much does {{subject}} {v}?", "How much does {{subject}} {v} for?", "What does {{subject}} pay?"], "email": ["What is the email address of {{subject}}?", "How do I write to {{subject}}?"],
        "phone": ["What is the phone number of {{subject}}?", "How do I call {{subject}}?"], "url": ["Where on the web is {{subject}}?", "Which page does {{subject}} have?"]}


def noun_of(r):
    w = any_word(r).lower()
    return w if w[-1] not in "sxy" else w + "e"


def composed(r):
    """A scene that nobody wrote: somebody does something, with parts in any order, each told by its preposition, its noun or its place."""
    s, v = Scene("composed"), base_verb(r)
    k = r.random()
    kind = "person" if k < .6 else "title" if k < .8 else "service" if k < .9 else "code"
    lead = noun_of(r) if kind == "code" or r.random() < .15 else ""
    parts = {}
    s.slots["subject"] = (["subject", "subject", v + "er", *([lead] if lead else []), *TYPED.get(kind, "name,id").split(",")], kind, [])
    if lead:
        s.slots["subject"][0].remove("subject")
    if r.random() < .75:
        obj = pick(r, ("word", "words", "good", "title", "topicword", "code", "dish"))
        s.slots["object"] = (["what", "object", "thing", "item", v + "ed"], obj, [f"What does {{subject}} {v}?", f"What will {{subject}} {v}?", f"What is it that {{subject}} {v}s?"])
        parts["object"] = pick(r, ("{object}", "{object}", "the {object}", '"{object}"'))
        if obj in ("title", "code"):
            s.slots["subject"][2].extend([f"Who {v}s {{object}}?", f"By whom is {{object}} {v}ed?", f"Who {v}s {{object}}?"])
    for t in r.sample(sorted(WITH), 1 + int(r.random() * 3)):
        w = pick(r, WITH[t])
        key = {"person": ["other", w, "second_person", "partner"]}.get(t) or TYPED[t].split(",")
        s.slots[t] = (key, t, [q.format(v=v, w=w, W=w.capitalize()) for q in ASKS[t]])
        parts[t] = f"{w} {{{t}}}"
    for _ in range(int(r.random() * 2.6)):
        n = noun_of(r)
        if n in s.slots or n == lead:
            continue
        if r.random() < .5:
            s.slots[n] = ([n + "s", n + "s", n, "number_of_" + n + "s", n + "_count"], "int", [f"How many {n}s does {{subject}} {v}?", f"How many {n}s are there with {{subject}}?", f"What number of {n}s does {{subject}} have?"])
            parts[n] = pick(r, ("", "with ", "for ", "and ")) + f"{{{n}}} {n}s"
        else:
            s.slots[n] = ([n, n, n + "_number", n + "_id"], pick(r, ("code", "room", "version", "word", "color", "role")), [f"Which {n} does {{subject}} {v}?", f"What is the {n} of {{subject}}?", f"In which {n} does {{subject}} {v}?", f"Which {n} belongs to {{subject}}?"])
            parts[n] = pick(r, ("with ", "in ", "under ", "and ", "as ", "")) + n + " " + f"{{{n}}}"
    who = (pick(r, ("the ", "", "our ")) + lead + " " if lead else "") + "{subject}"
    order = list(parts)
    r.shuffle(order)
    if "object" in parts and r.random() < .7:
        order.remove("object")
        order.insert(0, "object")
    k = r.random()
    if k < .2 and len(order) > 1:
        text = parts[order[-1]] + ", " + who + f" {v}s " + " ".join(parts[x] for x in order[:-1])
    elif k < .35 and "object" in parts:
        rest = [x for x in order if x != "object"]
        text = parts["object"] + f" {pick(r, ('is', 'was', 'will be'))} {v}ed by " + who + " " + " ".join(parts[x] for x in rest)
    elif k < .45:
        text = who + pick(r, (": ", " - ", ", ")) + pick(r, (", ", "; ", " / ")).join(parts[x] for x in order)
    elif k < .55:
        text = who + f" {pick(r, ('will', 'must', 'can', 'wants to', 'has to', 'is going to'))} {v} " + " ".join(parts[x] for x in order)
    elif k < .65 and len(order) > 2:
        text = who + f" {v}s {parts[order[0]]} and {base_verb(r)}s " + " ".join(parts[x] for x in order[1:])
    elif k < .75:
        text = f"{pick(r, ('There is', 'Here is', 'We have', 'Note', 'Meet'))} {who}, who {v}s " + " ".join(parts[x] for x in order)
    else:
        text = who + f" {v}{pick(r, ('s', 's', 'ed'))} " + " ".join(parts[x] for x in order)
    text = text.strip()
    s.says = [text[:1].upper() + text[1:] + pick(r, (".", ".", ".", ""))]
    return s
