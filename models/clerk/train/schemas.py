"""Declarations of tools as people's frameworks write them: plain, pydantic, zod, OpenAI's strict mode and MCP.

A parameter is `{"name", "type", "text"?, "enum"?, "optional"?, "fields"?, "items"?}`. `declare` gives the declaration and the
value that a parameter has in a call that does not name it: `OMITTED`, or null where the framework demands every key.
"""
from words import any_word, pick, sentence

OMITTED = object()
LIMIT = 9007199254740991


def titled(name):
    """pydantic's title of a field."""
    return name.replace("_", " ").replace("-", " ").title()


def camel(name):
    return "".join(x[:1].upper() + x[1:] for x in name.replace("-", "_").split("_"))


def plain_type(p):
    """JSON schema of a parameter without its framework's additions."""
    if "enum" in p:
        return {"type": "string", "enum": p["enum"]}
    if p["type"] == "array":
        return {"type": "array", "items": {"type": p.get("items", "string")}}
    if p["type"] == "object":
        return {"type": "object", "properties": {f["name"]: plain_type(f) for f in p["fields"]}, "required": [f["name"] for f in p["fields"]]}
    return {"type": p["type"]}


def described(schema, p, first=False):
    if "text" not in p:
        return schema
    return {"description": p["text"], **schema} if first else {**schema, "description": p["text"]}


def plain(r, name, params):
    """By hand: type and perhaps a description."""
    out = {"type": "object", "properties": {p["name"]: described(plain_type(p), p) for p in params}, "required": [p["name"] for p in params if not p.get("optional")]}
    k = r.random()
    if k < .25:
        out["additionalProperties"] = False
    elif k < .35:
        out = {"type": "object", "required": out["required"], "properties": out["properties"]}
    if not out["required"] and r.random() < .5:
        del out["required"]
    return out


def pydantic_field(p, defs):
    if p["type"] == "object":
        inner = camel(p["name"])
        defs[inner] = {"properties": {f["name"]: pydantic_field(f, defs) for f in p["fields"]}, "required": [f["name"] for f in p["fields"]], "title": inner, "type": "object"}
        return {"$ref": f"#/$defs/{inner}"} if "text" not in p else {"$ref": f"#/$defs/{inner}", "description": p["text"]}
    s = plain_type(p)
    if "enum" in p:
        s = {"enum": p["enum"], "type": "string"}
    if p.get("optional"):
        s = {"anyOf": [s, {"type": "null"}], "default": None}
    if p["type"] == "array":
        s = {"items": s["items"], "type": "array"} if not p.get("optional") else s
    both = dict(s, title=titled(p["name"]))
    if "text" in p:
        both["description"] = p["text"]
    keys = ["anyOf", "default", "description", "enum", "items", "title", "type"]
    return {k: both[k] for k in keys if k in both}


def pydantic(r, name, params, doc=None):
    """What `model_json_schema` writes: keys in the order of the alphabet, titles everywhere, nested models by reference."""
    defs = {}
    properties = {p["name"]: pydantic_field(p, defs) for p in params}
    out = {"$defs": defs} if defs else {}
    if doc:
        out["description"] = doc
    out["properties"] = properties
    required = [p["name"] for p in params if not p.get("optional")]
    if required:
        out["required"] = required
    out |= {"title": pick(r, (camel(name), camel(name) + "Args", camel(name) + "Input", name)), "type": "object"}
    return out


def zod_field(r, p):
    if p["type"] == "object":
        s = {"type": "object", "properties": {f["name"]: zod_field(r, f) for f in p["fields"]}, "required": [f["name"] for f in p["fields"]], "additionalProperties": False}
    else:
        s = plain_type(p)
    return described(s, p)


def zod(r, name, params):
    """zod-to-json-schema: a closed object with its dialect at the end."""
    out = {"type": "object", "properties": {p["name"]: zod_field(r, p) for p in params}}
    required = [p["name"] for p in params if not p.get("optional")]
    if required:
        out["required"] = required
    return out | {"additionalProperties": False, "$schema": "http://json-schema.org/draft-07/schema#"}


def zod_four(r, name, params):
    """zod 4's own `toJSONSchema`: the dialect first, safe bounds on integers, descriptions first."""
    def field(p):
        s = zod_field(r, {k: v for k, v in p.items() if k != "text"})
        if s.get("type") == "integer":
            s |= {"minimum": -LIMIT, "maximum": LIMIT}
        return described(s, p, first=True)
    out = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {p["name"]: field(p) for p in params}}
    required = [p["name"] for p in params if not p.get("optional")]
    if required:
        out["required"] = required
    return out | {"additionalProperties": False}


def strict_field(r, p, titles=False):
    if p["type"] == "object":
        s = {"type": "object", "properties": {f["name"]: strict_field(r, f) for f in p["fields"]}, "required": [f["name"] for f in p["fields"]], "additionalProperties": False}
    else:
        s = plain_type(p)
    if p.get("optional"):
        if "enum" in p and not titles and r.random() < .5:
            s = {"type": ["string", "null"], "enum": [*p["enum"], None]}
        else:
            s = {"anyOf": [s, {"type": "null"}]} if titles or "enum" in p or s["type"] == "array" else s | {"type": [s["type"], "null"]}
    if titles and p["type"] != "object":
        s["title"] = titled(p["name"])
    return described(s, p, first=titles)


def strict(r, name, params):
    """OpenAI's strict mode: closed, every key required, optional ones may be null."""
    return {"type": "object", "properties": {p["name"]: strict_field(r, p) for p in params}, "required": [p["name"] for p in params], "additionalProperties": False}


def strict_titles(r, name, params):
    """openai-agents: pydantic's schema made strict."""
    return {"properties": {p["name"]: strict_field(r, p, True) for p in params}, "required": [p["name"] for p in params],
            "title": name + "_args", "type": "object", "additionalProperties": False}


def mcp(r, name, params):
    """An MCP server in TypeScript: zod's schema, sometimes with its dialect."""
    out = zod(r, name, params)
    if r.random() < .4:
        del out["$schema"]
    if r.random() < .3:
        out["type"] = out.pop("type")
    return out


def mcp_titles(r, name, params):
    """FastMCP: pydantic's schema under the title NAMEArguments."""
    out = pydantic(r, name, params)
    out["title"] = name + "Arguments"
    return out


def langchain(r, name, params):
    """langchain's converter: pydantic's schema without titles."""
    def bare(x):
        return {k: bare(v) if k != "properties" else {n: bare(s) for n, s in v.items()} for k, v in x.items() if k != "title"} if isinstance(x, dict) else x
    out = bare(pydantic(r, name, params))
    out.pop("$defs", None)
    return {k: out[k] for k in ("properties", "required", "type") if k in out}


# How a framework writes parameters; `zod_four` and `strict_titles` are kept for evaluation.
STYLES = [plain, pydantic, zod, strict, mcp, mcp_titles, langchain]
HELD_STYLES = [zod_four, strict_titles]
BY_NAME = {"plain": [plain], "pydantic": [pydantic, langchain], "zod": [zod], "strict": [strict], "mcp": [mcp, mcp_titles], "zod-four": [zod_four], "strict-titles": [strict_titles]}
DEMANDING = (strict, strict_titles)


def declare(r, name, text, params, style=None):
    """`(declaration, value of parameters that are not named)`."""
    style = style or pick(r, STYLES)
    if style is langchain and any(p["type"] == "object" for p in params):
        style = plain
    schema = style(r, name, params)
    function = {"name": name, "description": text, "parameters": schema}
    k = r.random()
    if style in DEMANDING and k < .7:
        function = {"name": name, "description": text, "strict": True, "parameters": schema} if k < .35 else function | {"strict": True}
    elif style is not plain and k < .15:
        function = {"description": text, "name": name, "parameters": schema}
    elif text == "" or k > .97:
        del function["description"]
    return {"type": "function", "function": function}, None if style in DEMANDING else OMITTED
