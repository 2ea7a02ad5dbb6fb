"""300 JSON schemas as APIs have them, always the same: objects in objects, lists, enums, patterns, formats, $ref, anyOf, maps,
discriminated unions, recursion. Texts are bounded, since a model that knows no JSON does not end them by itself."""
import random

STATES = ["active", "paused", "closed", "pending review", "archived"]
CODES = ["EUR", "USD", "NOK", "JPY"]


def text(r):
    return {"type": "string", "maxLength": r.choice([4, 8, 12])}


def number(r):
    low = r.randint(-50, 50)
    return r.choice([{"type": "integer", "minimum": low, "maximum": low + r.randint(1, 500)},
                     {"type": "integer", "exclusiveMinimum": 0, "maximum": 9999},
                     {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 5}])


def chosen(r):
    return r.choice([{"type": "string", "enum": r.sample(STATES, 3)}, {"enum": [1, 2, "three", None, True]},
                     {"const": r.choice(["v1", 7, False])}, {"type": "boolean"}, {"type": "null"}])


def pattern(r):
    return {"type": "string", "pattern": r.choice(["^[A-Z]{3}-[0-9]{4}$", "^(north|south)-[a-f0-9]{2,6}$", "^#[0-9a-fA-F]{6}$",
                                                   "^\\d{3}\\.\\d{1,2}$", "^[a-z][a-z0-9_]{0,8}$", "^\\+[1-9][0-9]{6,9}$"])}


def formatted(r):
    return {"type": "string", "format": r.choice(["date", "time", "date-time", "uuid", "ipv4"])}


def nullable(r):
    inner = leaf(r)
    if inner.get("type", "null") != "null" and "enum" not in inner:
        return r.choice([{"anyOf": [inner, {"type": "null"}]}, dict(inner, type=[inner["type"], "null"])])
    return {"anyOf": [inner, {"type": "null"}]}


def leaf(r):
    return r.choice([text, text, number, chosen, chosen, pattern, formatted])(r)


def listed(r, item):
    return {"type": "array", "items": item, "minItems": r.randint(0, 1), "maxItems": r.randint(2, 3)}


def record(r, fields, required=None, closed=True):
    schema = {"type": "object", "properties": fields, "required": list(fields) if required is None else required}
    if closed:
        schema["additionalProperties"] = False
    return schema


def some(r, names, count):
    return {name: r.choice([leaf, leaf, nullable])(r) for name in r.sample(names, count)}


def order(r):
    line = record(r, {"sku": pattern(r), "count": number(r), **some(r, ["note", "colour", "size"], 1)})
    return record(r, {"id": formatted(r), "currency": {"enum": CODES}, "lines": listed(r, line)})


def profile(r):
    address = record(r, {"street": text(r), "zip": pattern(r), "country": {"enum": ["NO", "DE", "FR"]}}, ["street", "country"])
    schema = record(r, {"name": text(r), "home": {"$ref": "#/$defs/address"}, "work": {"anyOf": [{"$ref": "#/$defs/address"},
                                                                                                {"type": "null"}]}})
    return dict(schema, **{"$defs": {"address": address}})


def event(r):
    kinds = [record(r, {"kind": {"const": "created"}, "at": formatted(r)}),
             record(r, {"kind": {"const": "moved"}, "from": chosen(r), "to": chosen(r)}),
             record(r, {"kind": {"const": "deleted"}, "reason": text(r)})]
    return record(r, {"event": {"anyOf": kinds}, "version": number(r)})


def tree(r):
    node = record(r, {"label": {"enum": ["leaf", "root", "branch"]},
                      "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1}}, ["label"])
    return {"$ref": "#/$defs/node", "$defs": {"node": node}}


def settings(r):
    return {"type": "object", "properties": {"debug": {"type": "boolean"}}, "required": ["debug"],
            "additionalProperties": False}


def tuple_of(r):
    return record(r, {"point": {"type": "array", "prefixItems": [number(r), number(r), chosen(r)], "items": False, "minItems": 3,
                                "maxItems": 3}, "unit": {"enum": ["m", "km"]}})


def flat(r):
    names = ["id", "title", "state", "owner", "created_at", "amount", "code", "flag"]
    fields = some(r, names, r.randint(2, 5))
    return record(r, fields, r.sample(sorted(fields), max(1, len(fields) - 1)))


def deep(r):
    schema = record(r, some(r, ["a", "b", "c"], 1))
    for name in r.sample(["inner", "data", "payload", "result"], 3):
        schema = record(r, {name: schema, **some(r, ["x", "y"], 1)})
    return schema


def several(r):
    return listed(r, record(r, some(r, ["key", "value", "weight"], 2)))


FAMILIES = [flat, order, profile, event, tree, settings, tuple_of, deep, several, flat]


def schemas():
    made = []
    for index in range(300):
        family = FAMILIES[index % len(FAMILIES)]
        made.append({"name": f"{family.__name__} {index}", "schema": family(random.Random(index))})
    return made
