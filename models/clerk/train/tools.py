"""Conversations that need a tool: the call, its arguments as JSON, and an answer from its result.

Names, parameters and descriptions are composed, so evaluation (`held`) asks for tools that training never declares.
`agent` puts the same into a coding agent's frame: a long system prompt, ten declarations, and "Run: CMD".
"""
import json

import schemas
import synonyms
from chat import document, say
from intents import ALL, POOL, TRAINING, Wanted, forms_of, training_form, unnamed
from manners import small
from questions import NOT_STATED, ask, wrap
from values import DRAWS, code, clock, date, number, person, town
from words import ENGLISH, GOODS, KINDS, SERVICE_A, VOCAB, any_word, digits, line, made_up, phrase, pick, sentence, split

VERBS = """get find look_up check fetch read query search list show load count track book order send create update delete
open close reserve rent print measure rate verify cancel confirm convert start stop schedule locate""".split()
NOUNS = """weather forecast parcel_status stock_level invoice ticket meeting room_plan flight train_time exchange_rate
balance account address calendar contact order delivery price quote menu recipe song playlist photo report translation
distance route hotel table seat doctor appointment prescription book_loan member badge sensor temperature humidity
water_level tide parking_space car bike bus_line holiday salary shift task reminder note file_size backup alarm camera
door lamp heater garden pool ferry museum_ticket course grade exam lesson""".split()
PARAMS = {"city": town, "country": town, "name": person, "customer": person, "id": code, "order_id": code, "date": date,
          "code": code, "count": None, "limit": None, "time": clock, "room": number, "user": person, "reference": code,
          "destination": town, "origin": town, "item": lambda r, v: pick(r, GOODS), "quantity": None, "floor": None,
          "account_number": code, "station": town, "owner": person, "service": lambda r, v: pick(r, SERVICE_A), "year": None,
          "building": lambda r, v: pick(r, KINDS), "member_id": code, "badge": code, "days": None, "product": lambda r, v: made_up(r),
          "title": lambda r, v: made_up(r) + " " + pick(r, GOODS), "email": lambda r, v: f"{made_up(r)}@{made_up(r)}.org", "amount": None}
RESULTS = {"status": lambda r: pick(r, ("delayed", "ready", "open", "closed", "sold out", "on the way", "lost", "paid", "active")),
           "value": lambda r: number(r, None), "total": lambda r: number(r, None), "place": lambda r: made_up(r).capitalize(),
           "code": lambda r: code(r, None), "time": lambda r: clock(r, None), "note": lambda r: sentence(r)[:-1],
           "temperature": lambda r: digits(r, 2), "price": lambda r: f"{number(r, None)}.{digits(r, 2)}", "owner": lambda r: made_up(r).capitalize(),
           "level": lambda r: pick(r, ("low", "high", "medium")), "date": lambda r: date(r, None), "reference": lambda r: code(r, None)}
# {d} what the tool does, {p} the parameters with their values, {n} the tool's name.
REQUEST = """{D} with {p}.
Please {d} with {p}.
Can you {d} with {p}?
I need you to {d}, {p}.
Use {n} with {p}.
{D} for me: {p}.
Call {n} with {p}.
Could you {d} for {p}?
{D}, {p}.
I want to {d} with {p}.
Would you {d}? Here is what you need: {p}.
Run {n}: {p}.
{D} using {p}.
Let us {d} with {p}.
Now {d} with {p}, please.
Try to {d}; {p}.
Ask {n} about {p}.
Go ahead and {d} with {p}.""".split("\n")
DESCRIBE = ["{D}.", "Tool to {d}.", "Use this to {d}.", "{D} by {p}.", "Lets the assistant {d}.", "{D} in the live system.",
            "This function can {d}.", "{D} and return the result as JSON.", "Needed to {d}."]
SHELL = ["bash", "shell", "run_command", "execute", "terminal", "run_shell", "exec_command", "sh", "command_line", "run", "powershell", "run_terminal_cmd"]
SHELL_PARAM = ["command", "cmd", "command", "command", "line", "script", "cmd", "commandLine"]
SHELL_SAYS = ["Runs a shell command and returns its output.", "Executes a command in the terminal.", "Execute a given bash command.",
              "Run a command on the user's machine.", "Runs one command line in a persistent shell session.", "Shell access to the project."]
CODING = """read write edit glob grep list_files search_files create_file apply_patch web_fetch todo_write todo_read task ask_user
delete_file move_file git_diff run_tests open_browser notebook_edit find_symbol rename_symbol format_code lint lookup_docs
question skill plan memory view_image""".split()
CODING_PARAMS = """path file_path pattern content old_string new_string offset limit url prompt query include recursive todos
description replace_all format timeout""".split()
PROGRAMS = """ls -la {f}|cat {f}|grep -n {w} {f}|python3 {f}|git status|git log -n {n}|cargo test {w}|make {w}|npm run {w}|wc -l {f}
head -n {n} {f}|find . -name "{f}"|echo {w}|echo "{w} {n}"|mkdir -p {w}/{w2}|rm {f}|cp {f} {w}.bak|docker ps|pytest -k {w}
cat {f} \\| sort \\| uniq -c|sed -n {n}p {f}|curl localhost:{n}/{w}|go build ./{w}|tail -n {n} {f}|pwd|whoami|date|df -h|echo $HOME
echo {w} > {f}|test -f {f} && echo {w}|ps aux \\| grep {w}|printf '{w}'|touch {f}|diff {f} {w}.txt|ls|ls {w}|which {w}|uname -a""".replace("\n", "|")
OUTPUT = """{n}|{w}|{n} {f}|error: {w} not found|{n} passed in {n}s|{f}: {w} {n}|total {n}|{w}.{n}|/home/{w}/{w2}|On branch {w}|{w} {w2} {n}|No such file: {f}|ok {w} {n}ms|line {n}: {w}|done|{n} files changed|PID {n} {w}|{w}={n}|warning: {w} is unused""".split("|")
OUTPUT += ["{f}\n{w}.txt", "{w}\n{w2}\n{n}"]
RUN = ["Run: {c}", "Run: {c}", "Run: {c}", "Run the command: {c}", "Run `{c}`", "Execute: {c}", "Please run: {c}", "Run this: {c}", "$ {c}", "Please run `{c}`"]


def declare(name, description, properties, required):
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": properties, "required": required}}}


def style(r, servers=False):
    """One way to write names: snake_case, camelCase or kebab-case, with `servers` sometimes behind the name of an MCP server."""
    def camel(n):
        first, *rest = n.split("_")
        return first + "".join(x.capitalize() for x in rest)
    form = pick(r, (str, str, str, camel, lambda n: n.replace("_", "-")))
    if servers and r.random() < .12:
        lead = pick(r, ("mcp__{}__", "{}__", "{}-", "{}_", "{}.")[:4]).format(any_word(r))
        def led(n):
            return lead + form(n)
        led.inner = form
        return led
    return form


class Tool:
    """A tool that can be declared, asked for and called."""

    def __init__(self, r, held, written, like=None, style=None):
        """`written` spells the name; the tool may share its verb or its noun with another, `like`. With `style` it is declared as that
        framework does, else, in training, as any."""
        self.style, self.group = style, None
        self.verb, self.noun = pick(r, split(VERBS, held)), pick(r, split(NOUNS, held))
        if held:
            if r.random() < .2:
                self.noun = made_up(r) + pick(r, ("", "_code", "_list", "_data"))
        else:
            if r.random() < .6:
                self.verb = any_word(r)
            if r.random() < .6:
                self.noun = "_".join(any_word(r) for _ in range(1 + int(r.random() * 2)))
        if like and r.random() < .6:
            self.verb = like.verb
        elif like:
            self.noun = like.noun
        self.does = f"{self.verb} the {self.noun}".replace("_", " ")
        self.name = written(f"{self.verb}_{self.noun}")
        self.params = {p: PARAMS[p] for p in r.sample(split(sorted(PARAMS), held), 1 + int(r.random() * 2.6))}
        if not held and r.random() < .5:
            self.params = {"_".join(any_word(r) for _ in range(1 + int(r.random() * 1.6))): None if r.random() < .25 else pick(r, DRAWS)
                           for _ in range(1 + int(r.random() * 2.8))}
        # Only what is asked for is written into a call; in some tools the last parameter may stay out.
        self.optional = list(self.params)[-1] if len(self.params) > 1 and r.random() < .3 else None
        if (style or not held and r.random() < .08) and len(self.params) > 1 and r.random() < .4:
            # The last parameters are fields of an object.
            self.optional, self.group = None, (any_word(r) if not held else pick(r, ("details", "options", "address", "data", "filter", "target")), list(self.params)[-2:])
        self.described = r.random() < .6
        self.text = pick(r, DESCRIBE).format(d=self.does, D=self.does.capitalize(), p=" and ".join(self.params).replace("_", " "))

    def declaration(self, r, held):
        params = []
        for p in self.params:
            params.append({"name": p, "type": "integer" if self.params[p] is None else "string"})
            if p == self.optional:
                params[-1]["optional"] = True
            if self.described:
                params[-1]["text"] = f"The {p.replace('_', ' ')}" + pick(r, (".", " to use.", f" of the {self.noun.replace('_', ' ')}."))
        if self.group:
            name, inner = self.group
            params = [p for p in params if p["name"] not in inner] + [{"name": name, "type": "object", "fields": [p for p in params if p["name"] in inner]}]
        style = self.style or (schemas.plain if held or r.random() < .4 else None)
        out, self.unsaid = schemas.declare(r, self.name, self.text, params, style)
        return out

    def request(self, r, v, held):
        """A request and its call. Every value ends at a mark or at the next parameter, so that its end is never a guess."""
        given = [p for p in self.params if p != self.optional or r.random() < .5]
        args = {p: (1 + int(r.random() ** 2 * 999) if self.params[p] is None else self.params[p](r, v)) for p in given}
        link = pick(r, ("{p} {v}", "{p} {v}", "{p} = {v}", "{p}: {v}", "the {p} {v}", '{p} "{v}"'))
        named = r.sample(given, len(given)) if r.random() < .3 else given
        said = pick(r, (" and ", " and ", " and ", ", ", ", and ")).join(link.format(p=p.replace("_", " "), v=args[p]) for p in named)
        form = pick(r, split(REQUEST, held))
        if not held and r.random() < .35:
            form = pick(r, ("{d}", "{D}", "{n}", phrase(r, 3) + " {d}", phrase(r, 3) + " {n}")) + pick(r, (" ", ": ", ", ", " " + phrase(r, 2) + " ")) + "{p}" + \
                pick(r, ("", ".", "?", "!", pick(r, (", ", "; ", ". ", " - ")) + phrase(r, 3)))
        text = form.format(d=self.does, D=self.does.capitalize(), n=self.name, p=said)
        if not held and r.random() < .25:
            text = self.natural(r, args)
        return text, {"name": self.name, "arguments": self.shaped(args)}

    def shaped(self, args):
        """Arguments as the declaration wants them: fields in their object, null for what strict mode demands and nobody said."""
        if self.unsaid is not schemas.OMITTED:
            args = {p: args.get(p) for p in self.params}
        if self.group:
            name, inner = self.group
            args = {p: x for p, x in args.items() if p not in inner} | {name: {p: args[p] for p in inner}}
        return args

    def natural(self, r, args):
        """A question, a wish or a command that names the noun and gives the values without their parameters' names."""
        parts = []
        for p, x in args.items():
            words = p.replace("_", " ")
            if self.params[p] is None or p not in BEFORE_VALUE:
                parts.append(pick(r, ("{p} {v}", "the {p} {v}", "{p}: {v}")).format(p=words, v=x) if len(args) > 1 or self.params[p] is None else pick(r, ("of ", "for ", "in ", "to ", "with ", "")) + str(x))
            else:
                parts.append(pick(r, BEFORE_VALUE[p]) + x)
        n, verb = self.noun.replace("_", " "), self.verb.replace("_", " ")
        return pick(r, NATURAL).format(n=n, v=verb, V=verb.capitalize(), N=n.capitalize(), p=" ".join(parts) if r.random() < .6 else ", ".join(parts))


# What stands before a value whose parameter is not named.
BEFORE_VALUE = {"city": ["in ", "in ", "for "], "country": ["in ", "for "], "name": ["for ", "of "], "customer": ["for ", "of "], "id": ["", "of ", "for "], "order_id": ["", "of ", "for "], "date": ["on ", "for "], "code": ["", "with "],
                "time": ["at "], "user": ["for ", "of "], "reference": ["", "under "], "destination": ["to "], "origin": ["from "], "item": ["of the ", "for the "], "account_number": ["of ", "for "], "station": ["at ", "in "], "owner": ["of ", "for "],
                "service": ["of ", "for "], "building": ["in the ", "of the "], "member_id": ["of ", "for "], "badge": ["of ", "for "], "email": ["to ", "for "], "product": ["of ", "for "]}
NATURAL = """What is the {n} {p}?|How is the {n} {p}?|Is there a {n} {p}?|Do you know the {n} {p}?|I want the {n} {p}.|I need the {n} {p}.|I would like to {v} the {n} {p}.|Please {v} the {n} {p}.|{V} the {n} {p}.|Show me the {n} {p}.
{N} {p}?|{n} {p}|Can I have the {n} {p}?|Could you tell me the {n} {p}?|I wonder what the {n} is {p}.|Which {n} do we have {p}?|Any {n} {p}?|Let me see the {n} {p}.|My boss wants the {n} {p}.|Tell me about the {n} {p}.|What about the {n} {p}?
{V} me the {n} {p}.|It would be nice to {v} the {n} {p}.|We must {v} the {n} {p}.|I hope you can {v} the {n} {p}.|What's the {n} {p}?|Give me the {n} {p}.|{V} {n} {p}.|How about the {n} {p}?""".replace("\n", "|").split("|")


def closed(text):
    return text if text.endswith((".", "!", "?")) else text + "."


def outcome(r, held):
    """What a tool gives and what the assistant then says: the one value, or all of them with their names."""
    k = r.random()
    if k < .3:
        text = RESULTS[pick(r, sorted(RESULTS))](r) if r.random() < .6 else pick(r, (phrase(r, 5), sentence(r), f"{number(r, None)} {any_word(r)}", f"{any_word(r)}, {number(r, None)} {any_word(r)}"))
        return text, closed(text)
    result = {}
    for _ in range(1 + int(r.random() * (1 if k < .55 else 4))):
        f = pick(r, sorted(RESULTS)) if r.random() < .6 else "_".join(pick(r, ENGLISH) for _ in range(1 + int(r.random() * 1.5)))
        result[f] = RESULTS[f](r) if f in RESULTS else pick(r, DRAWS)(r, VOCAB[False]) if r.random() < .7 else int(r.random() * 200)
    if len(result) == 1:
        return json.dumps(result, ensure_ascii=False), closed(str(*result.values()))
    return json.dumps(result, ensure_ascii=False), closed(", ".join(f"{f.replace('_', ' ')}: {v}" for f, v in result.items()))


def answered(r, held):
    """A tool's result, the field that answers, and the words that ask for it."""
    fields = r.sample(sorted(RESULTS), 1 + int(r.random() * 3))
    result = {f: RESULTS[f](r) for f in fields}
    if not held and r.random() < .4:
        result = {"_".join(pick(r, ENGLISH) for _ in range(1 + int(r.random() * 1.5))): pick(r, DRAWS)(r, VOCAB[False]) for _ in fields}
        fields = list(result)
    field = pick(r, fields)
    return json.dumps(result), field.replace("_", " "), result[field]


def use(r, tool, v, held):
    """Ask, call, result, answer: two turns."""
    text, call = tool.request(r, v, held)
    ended = text if text[-1] in ".?!" else text + "."
    if r.random() < .25:
        result = RESULTS[pick(r, sorted(RESULTS))](r)
        value = result
    else:
        result, field, value = answered(r, held)
        text = ended = pick(r, ("{t} What is the {f}?", "{t} Tell me the {f}.", "{t} I need the {f}.", "{t} Which {f} does it give?", "{t} Answer with the {f}.")).format(t=ended, f=field)
    framed = wrap(r, ended, held)
    return [{"user": text if framed == ended else framed, "expect": {"call": call}, "tool": result}, {"expect": {"text": f"{value}."}}]


def tool_task(r, budget, count, held):
    """A few declared tools beside a short document; some questions need a tool, some the document, some neither."""
    written = style(r)
    tools = {}
    for _ in range(1 + int(r.random() * 5)):
        # Names must be read to their end: in training, as in the held-out pools, some tools differ in half of it.
        t = Tool(r, held, written, pick(r, list(tools.values())) if tools and not held and r.random() < .5 else None)
        tools[t.name] = t
    tools = list(tools.values())
    declared = [t.declaration(r, held) for t in tools]
    w, text = None, pick(r, ("You are a helpful assistant.", "Use the tools when needed.", "You are clerk. Call a tool when only it can know."))
    room = budget - 120 * len(tools) - 500
    if room > 120 and r.random() < .7:
        w, text = document(r, room, count, r.random() < .5, held)
    turns = []
    for _ in range(1 + int(r.random() * 3)):
        k = r.random()
        if k < .6 or not w or not w.facts:
            turns += use(r, pick(r, tools), VOCAB[held], held)
        elif k < .85:
            s, a, v = pick(r, w.facts)
            turns.append(say(ask(r, s, a, held), v + "."))
        elif k < .93:
            pair = w.absent()
            if pair:
                turns.append(say(ask(r, *pair, held), NOT_STATED))
        else:
            turns.append(say(*small(r, held)))
    turns = turns or use(r, pick(r, tools), VOCAB[held], held)
    if not any("call" in t["expect"] for t in turns):
        turns += use(r, pick(r, tools), VOCAB[held], held)
    return {"messages": [] if w is None and r.random() < .3 else [{"role": "system", "content": text}], "tools": declared, "turns": turns}


def natural_task(r, budget, count, held, whole=False, own=True, style_of=None, turns_wanted=None):
    """Tools of everyday life, asked for as people do. `whole`: tools kept for evaluation; `own` False: only requests that share
    no word with the tool's name; `style_of`: the framework that declares them."""
    plain, spelled = style(r), style(r, True)
    pool = POOL[True] if whole else POOL[False] if held else TRAINING
    framework = style_of or (None if r.random() < .6 else pick(r, schemas.STYLES))
    wanted = {}
    asked = r.sample(pool, 1) + r.sample(ALL if held else TRAINING, int(r.random() * 5))
    if not held and r.random() < .3:
        # Tools of synonyms, some of them alike in one half.
        asked = [synonyms.composed(r)]
        asked += [synonyms.composed(r, asked[0] if r.random() < .6 else None) for _ in range(int(r.random() * 4))] + r.sample(TRAINING, int(r.random() * 2))
    for intent in asked:
        if intent not in [t.intent for t in wanted.values()]:
            t = Wanted(r, intent, spelled if spelled is not plain else plain, pick(r, style_of) if style_of else framework)
            wanted[t.name] = t
    tools = list(wanted.values())
    mine = tools[:1] if held else tools
    w, text = None, pick(r, HELPFUL) if r.random() < .8 else ("You are " + phrase(r, 6) + ".")
    room = budget - 160 * len(tools) - 400
    if room > 120 and r.random() < .35:
        w, text = document(r, room, count, r.random() < .5, held)
    turns = []
    for _ in range(turns_wanted or 1 + int(r.random() * 5)):
        k = r.random()
        if held or k < .8:
            t = pick(r, mine)
            forms = forms_of(t.intent, held, whole) if held else [training_form(r, t)]
            if not own and held:
                forms = unnamed(forms, t)
                if not forms:
                    continue
            text_, call = t.request(VOCAB[held], forms)
            if r.random() < .25:
                text_ = wrap(r, text_, held)
            result, answer = outcome(r, held)
            turns += [{"user": text_, "expect": {"call": call}, "tool": result}, {"expect": {"text": answer}}]
        elif k < .9 or not w or not w.facts:
            if k < .87 and w and w.facts or k >= .97:
                pair = (w or World(r, False)).absent() if w and w.facts else None
                if pair:
                    turns.append(say(ask(r, *pair, held), NOT_STATED))
                    continue
            turns.append(say(*small(r, held)))
        else:
            s, a, v = pick(r, w.facts)
            turns.append(say(ask(r, s, a, held), v + "."))
    shown = [t.declaration for t in tools]
    r.shuffle(shown)
    if not turns:
        return natural_task(r, budget, count, held, whole, own, style_of, turns_wanted)
    return {"messages": [] if w is None and r.random() < .4 else [{"role": "system", "content": text}], "tools": shown, "turns": turns}


HELPFUL = ["You are a helpful assistant.", "Use the tools when needed.", "You are clerk. Call a tool when only it can know.", "You are a helpful assistant with access to tools.", "Be brief.", "You help the user with tools.",
           "You are an assistant that can call functions.", "Answer the user. Use tools where they help.", "You have tools. Use them."]


def schema_task(r, count, held, styles):
    """Composed tools, declared as one framework does."""
    spelled = style(r, True)
    tools = {}
    for _ in range(1 + int(r.random() * 4)):
        t = Tool(r, held, spelled, pick(r, list(tools.values())) if tools and not held and r.random() < .5 else None, pick(r, styles))
        tools[t.name] = t
    tools = list(tools.values())
    declared = [t.declaration(r, held) for t in tools]
    turns = [x for _ in range(1 + int(r.random() * (1 if held else 4))) for x in use(r, pick(r, tools), VOCAB[held], held)]
    return {"messages": [] if r.random() < .4 else [{"role": "system", "content": pick(r, HELPFUL)}], "tools": declared, "turns": turns}


FINAL = ("final_answer", "Provides a final answer to the given problem.", [{"name": "answer", "type": "string", "text": "The final answer to the problem"}])


def text_history(r, held):
    """A client that writes calls and results into the history as texts (smolagents): the next call, or the one that ends the task."""
    spelled = style(r)
    tool = Wanted(r, pick(r, POOL[True] if held else TRAINING), spelled, schemas.plain) if r.random() < .5 else Tool(r, held, spelled)
    final = schemas.declare(r, *FINAL, schemas.plain)[0]
    if isinstance(tool, Tool):
        shown = tool.declaration(r, held)
        text, call = tool.request(r, VOCAB[held], held)
    else:
        shown, (text, call) = tool.declaration, tool.request(VOCAB[held], forms_of(tool.intent, held, held) if held else [training_form(r, tool)])
    if r.random() < .6:
        result, field, value = answered(r, held)
        text = closed(text) + pick(r, (" What is the {f}?", " Tell me the {f}.", " I need the {f}.")).format(f=field)
        value = closed(str(value))
    else:
        result, value = outcome(r, held)
    asked = {"role": "user", "content": pick(r, ("New task:\n", "New task:\n", "Task: ", "")) + text}
    system = [] if r.random() < .3 else [{"role": "system", "content": pick(r, HELPFUL) + (" " + guidance(r, 60) if r.random() < .4 else "")}]
    declared = [shown, final] + ([Tool(r, held, spelled).declaration(r, held)] if r.random() < .5 else [])
    if r.random() < .35:
        return {"messages": system, "tools": declared, "turns": [{"user": asked["content"], "expect": {"call": call}}]}
    made = [{"id": pick(r, ("call_", "")) + hexadecimal(r, 8), "type": "function", "function": call}]
    said = {"role": "assistant", "content": pick(r, ("Calling tools:\n", "Calling tools:\n", "Called: ")) + (str(made) if r.random() < .8 else json.dumps(made))}
    return {"messages": system + [asked, said], "tools": declared,
            "turns": [{"user": pick(r, ("Observation:\n", "Observation:\n", "Result: ", "Tool output:\n")) + result, "expect": {"call": {"name": "final_answer", "arguments": {"answer": value[:-1]}}}}]}


def filled(r, form):
    return form.format(f=f"{made_up(r)}.{pick(r, ('py', 'rs', 'txt', 'md', 'toml', 'json'))}", w=made_up(r), w2=made_up(r), n=number(r, None))


def command(r):
    if r.random() < .35:
        return line(r, 7)
    if r.random() < .12:
        return f"{made_up(r)} --{made_up(r)} {code(r, None)}"
    return filled(r, pick(r, COMMANDS))


COMMANDS = [c.replace("\0", "|") for c in PROGRAMS.replace("\\|", "\0").split("|")]


def seconds(r):
    return f"{int(r.random() * 9)}.{digits(r, pick(r, (1, 2, 4)))}"


def hexadecimal(r, n=6):
    return "".join(pick(r, "0123456789abcdef") for _ in range(n))


# Lines that clients put around an output; each gives the wrapped text.
AROUND = [lambda r, o, c: f"Exit code: {c}\nWall time: {seconds(r)} seconds\nOutput:\n{o}\n",
          lambda r, o, c: f"Chunk ID: {hexadecimal(r)}\nWall time: {seconds(r)} seconds\nProcess exited with code {c}\nOriginal token count: {number(r, None)}\nOutput:\n{o}\n",
          lambda r, o, c: json.dumps({"output": o + "\n", "metadata": {"exit_code": c, "duration_seconds": round(r.random() * 3, 1)}}),
          lambda r, o, c: f"<stdout>\n{o}\n</stdout>\n<exit_code>{c}</exit_code>",
          lambda r, o, c: f"STDOUT:\n{o}\n\nSTDERR:\n\nExit code: {c}",
          lambda r, o, c: f"```\n{o}\n```",
          lambda r, o, c: f"{o}\n[exit code: {c}]",
          lambda r, o, c: f"[exit code {c}, {number(r, None)} ms]\n{o}",
          lambda r, o, c: f"Command finished with status {c}.\n{o}",
          lambda r, o, c: f"<output>{o}</output>",
          lambda r, o, c: f"Observation:\n{o}",
          lambda r, o, c: json.dumps({"stdout": o, "stderr": "", "exit_code": c}),
          lambda r, o, c: f"Exit code: {c}\nWall time: {seconds(r)} seconds\nTotal output lines: {number(r, None)}\nOutput:\n\n{o}\n",
          lambda r, o, c: f"Last output from code snippet:\n{o}",
          lambda r, o, c: f"<result>\n<status>{c}</status>\n<output>\n{o}\n</output>\n</result>",
          lambda r, o, c: f"(exit status {c})\n\n{o}\n",
          lambda r, o, c: f"{phrase(r, 2).capitalize()}: {number(r, None)}\n{phrase(r, 2).capitalize()}: {pick(r, (hexadecimal(r), seconds(r)))}\n{pick(r, ('Output', 'Result', 'Stdout', 'Printed'))}:\n{o}",
          lambda r, o, c: f"<{t}>\n{o}\n</{t}>" if (t := pick(r, ("bash_output", "tool_output", "shell", "terminal", "out"))) else "",
          lambda r, o, c: f"Ran for {seconds(r)} s and ended with {c}. It printed:\n{o}\n"]


LABELS = "Output,Result,Stdout,Printed,Response,Text,Log,Console,Answer,OUT,RESULT,Standard output,Program output,Tool output,Returned".split(",")
NOTHING = ["Errors:\n(none)", "Errors:\n", "Warnings: none", "Stderr: (empty)", "ERR:\n", "Problems:\nnone", "Standard error:\n"]


def free_around(r, o, c):
    """Lines that no client has: fields before and after the output, tags or JSON around it."""
    def field():
        n = pick(r, ("Status", "Code", "Return code", "Exit status", "Time", "Duration", "Bytes", "Lines", "Id", "Host", phrase(r, 2).capitalize()))
        return n + pick(r, (": ", ": ", " = ", " ")) + pick(r, (str(c), number(r, None), seconds(r), hexadecimal(r), any_word(r)))
    k = r.random()
    if k < .35:
        after = ([pick(r, NOTHING)] if r.random() < .5 else []) + [field() for _ in range(int(r.random() * 3))]
        label = pick(r, LABELS)
        lines = [field() for _ in range(int(r.random() * 3))] + [pick(r, ("{}:", "{}:", "--- {} ---", "[{}]", "== {}", "# {}")).format(label if r.random() < .7 else label.upper()), o]
        return "\n".join(lines) + ("\n\n" + "\n".join(after) if after else "")
    if k < .6:
        tag = pick(r, ("stdout", "out", "text", "response", "value", "log", "printed", any_word(r).lower()))
        inner = pick(r, (f"<{tag}>{o}</{tag}>", f"<{tag}>\n{o}\n</{tag}>"))
        others = [f"<{t}>{pick(r, (str(c), number(r, None), seconds(r)))}</{t}>" for t in r.sample(("code", "exit", "time", "state", "size", "host"), int(r.random() * 3))]
        lines = others + [inner] if r.random() < .6 else [inner] + others
        outer = pick(r, ("", "", "call", "run", "answer", "shell_result"))
        return "\n".join([f"<{outer}>"] * bool(outer) + lines + [f"</{outer}>"] * bool(outer))
    if k < .8:
        more = {x: pick(r, (c, int(number(r, None)), "", None, True)) for x in r.sample(("code", "status", "error", "time_ms", "truncated", "stderr", "signal"), int(r.random() * 4))}
        items = [(pick(r, ("result", "text", "content", "data", "out", "printed", "log", "response")), o), *more.items()]
        r.shuffle(items)
        return json.dumps(dict(items), ensure_ascii=False, indent=pick(r, (None, None, 1)))
    return pick(r, ("The command printed:\n{o}", "{o}\n-- end of output --", "Done in {s} s.\n{o}", "{o}\n\n(took {s} s)", "Ok, code {c}:\n{o}", ">>>\n{o}\n<<<", "It said:\n{o}\nand ended with {c}.", "result> {o}")).format(o=o, s=seconds(r), c=c)


def around(r, output, held, n=None):
    """`output` in a client's lines; every fifth kind is kept for evaluation."""
    if not held and r.random() < .5:
        return free_around(r, output, 0 if r.random() < .8 else 1 + int(r.random() * 127))
    kept = [x for i, x in enumerate(AROUND) if (i % 5 == 4) == held]
    return pick(r, kept)(r, output, 0 if r.random() < .8 else 1 + int(r.random() * 127))


def guidance(r, n):
    """Rules of an agent's system prompt: headings, bullets and ordinary sentences."""
    out, used = [], 0
    while used < n:
        k = r.random()
        if k < .3:
            out.append(f"# {pick(r, ('Tone', 'Rules', 'Tasks', 'Code style', 'Tools', 'Safety', 'Workflow', 'Git', 'Testing', 'Output'))}")
        elif k < .7:
            out += ["- " + pick(r, ("Never ", "Always ", "Do not ", "You should ", "Prefer to ", "Try to ")) + pick(r, ADVICE) for _ in range(1 + int(r.random() * 5))]
        else:
            out.append(" ".join(sentence(r) for _ in range(1 + int(r.random() * 4))))
        used = sum(len(x) for x in out) // 4
    return "\n".join(out)


ADVICE = """commit changes unless the user asks you to.|write tests before you say that you are done.
explain a command that changes the system.|guess a URL.|keep answers short.|use the search tool before you read whole files.
follow the style of the code around you.|add comments unless they are needed.|check which libraries the project uses.
run several commands at once when they do not depend on each other.|print secrets or keys.|use absolute paths.
read a file before you edit it.|mark a task as done at once.|ask when the request is unclear.|use emojis.
create new files when an old one can be changed.|stop after the task is finished.|use the terminal to talk to the user.
quote paths that contain spaces.|push to a remote.|show a plan for large tasks.|fix the cause and not the symptom.
hide an error.|keep lines under one hundred characters.|update the notes when something important changes.""".replace("\n", "|").split("|")


def coding_tools(r, held, written):
    """The shell tool and up to nine others whose declarations are long."""
    param = pick(r, SHELL_PARAM)
    props = {param: {"type": "string", "description": pick(r, ("The command to execute", "Command line to run.", "The shell command."))}}
    required = [param]
    extra = r.random()
    if extra < .25:
        props["description"] = {"type": "string", "description": "Short description of what this command does"}
        required.append("description")
    if extra > .6:
        props["timeout"] = {"type": "number", "description": "Optional timeout in milliseconds"}
    shell = declare(pick(r, split(SHELL, held)), pick(r, SHELL_SAYS) + " " + guidance(r, int(r.random() * 120)), props, required)
    others = []
    for name in r.sample(CODING, 3 + int(r.random() * 7)):
        ps = r.sample(CODING_PARAMS, 1 + int(r.random() * 3))
        others.append(declare(written(name), guidance(r, 20 + int(r.random() ** 2 * 200)), {
            p: {"type": pick(r, ("string", "string", "number", "boolean")), "description": sentence(r)} for p in ps}, ps[:1]))
    tools = others[:9]
    tools.insert(int(r.random() * (len(tools) + 1)), shell)
    return tools, shell["function"]["name"], param, "description" in required


def setting(r):
    """What some agents put before the first request, as messages of their own: the surroundings, or a project's rules."""
    where = "/".join(made_up(r) for _ in range(1 + int(r.random() * 3)))
    tag = pick(r, ("environment_context", "environment", "env", "context", "workspace", "session"))
    facts = [(pick(r, ("cwd", "directory", "working_directory")), f"/{where}"), ("shell", pick(r, ("bash", "zsh", "sh"))), ("platform", pick(r, ("linux", "darwin"))),
             ("date", date(r, None)), ("branch", made_up(r)), (pick(r, ("approval_policy", "sandbox_mode", "network_access")), pick(r, ("never", "enabled", "restricted", "read-only")))]
    facts = r.sample(facts, 1 + int(r.random() * len(facts)))
    k = r.random()
    if k < .4:
        text = f"<{tag}>\n" + "\n".join(f"  <{n}>{v}</{n}>" for n, v in facts) + f"\n</{tag}>"
    elif k < .7:
        text = "\n".join(f"{n.replace('_', ' ').capitalize()}: {v}" for n, v in facts)
    else:
        text = f"# {pick(r, ('Instructions', 'Project rules', 'AGENTS.md', 'Notes'))} for /{where}\n\n{guidance(r, 10 + int(r.random() * 150))}"
    return {"role": pick(r, ("user", "user", "user", "system")), "content": text}


FOR_AGENTS = [x for x in TRAINING if x.names[0] in ("copy_file", "move_file", "compress_folder", "make_directory", "disk_usage", "git_commit", "create_branch", "summarize_file", "count_words", "read_file", "web_search", "fetch_url", "list_files", "search_code", "run_tests", "delete_file")]


def agent(r, budget, count, held, ten=False, wrapped=False):
    """A coding agent's conversation; the system prompt fills what the declarations leave of `budget`."""
    tools, shell, param, described = coding_tools(r, held, style(r))
    while ten and len(tools) < 10:
        tools, shell, param, described = coding_tools(r, held, style(r))
    other = None
    if not held and r.random() < .3:
        # A tool of the agent's that is asked for by what it does.
        other = Wanted(r, pick(r, FOR_AGENTS), style(r), extras=r.random() < .3)
        if other.name in [t["function"]["name"] for t in tools]:
            other = None
        else:
            tools.insert(int(r.random() * (len(tools) + 1)), other.declaration)
    room = budget - count(json.dumps(tools)) - 700
    text = pick(r, ("You are a coding agent in the user's terminal.", "You are clerk, an interactive tool that helps with software tasks.",
                    "You are an expert programmer who works through tools.")) + "\n\n" + guidance(r, max(10, int(room * (.25 if r.random() < .6 else .85) * .8)))
    w = None
    if room - count(text) > 150:
        w, more = document(r, room - count(text), count, r.random() < .5, held)
        text += "\n\n" + more
    turns = []
    for _ in range(1 + int(r.random() * 3)):
        if other and r.random() < .35:
            text_, call = other.request(VOCAB[held], [training_form(r, other)])
            result, answer = outcome(r, held)
            turns += [{"user": text_, "expect": {"call": call}, "tool": result}, {"expect": {"text": answer}}]
        elif r.random() < .8 or held and (not w or not w.facts):
            c = command(r)
            args = {param: c}
            if described:
                args["description"] = "Run the command"
            output = "" if r.random() < .03 and not held else "\n".join((filled(r, pick(r, OUTPUT)) if r.random() < .6 else line(r, 8)) for _ in range(1 if r.random() < .75 else 2 + int(r.random() * 2)))
            shown = around(r, output, held) if wrapped or not held and r.random() < .4 else output or pick(r, ("", "(no output)", "(empty)"))
            turns += [{"user": pick(r, RUN).format(c=c), "expect": {"call": {"name": shell, "arguments": args}}, "tool": shown},
                      {"expect": {"text": "Output: " + output if output else "Done."}}]
        elif not w or not w.facts or r.random() < .3:
            turns.append(say(*small(r, held)))
        else:
            s, a, v = pick(r, w.facts)
            turns.append(say(ask(r, s, a, held), v + "."))
    before = [setting(r) for _ in range(1 + int(r.random() * 2))] if r.random() < .25 else []
    return {"messages": [{"role": "system", "content": text}] + before, "tools": tools, "turns": turns}
