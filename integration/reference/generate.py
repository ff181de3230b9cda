"""Writes docs/policy.md: policy.md, followed by every key of docs/policy.schema.json with its example of examples.yaml.

    .venv/bin/python -m integration.reference.generate

`integration/tests/test_documents.py` fails if the file differs from this program's output, and runs the examples.
"""

import json
import textwrap

import yaml

from integration.stack.process import REPOSITORY

OUTPUT = REPOSITORY / "docs" / "policy.md"
# The handwritten part: the rules that concern several keys.
HEAD = REPOSITORY / "integration" / "reference" / "policy.md"

# The order of the sections, as a reader needs them.
OBJECTS = {
    "Policy": ("Policy", "The plugin configuration itself."),
    "Route": ("RouteDocument", None),
    "Signing": ("SigningDocument", "The value of a route's `signing`."),
    "HeaderRules": ("HeaderRulesDocument", None),
}


def load_examples() -> dict[str, dict]:
    return yaml.safe_load((REPOSITORY / "integration" / "reference" / "examples.yaml").read_text())


def render() -> str:
    schema = json.loads((REPOSITORY / "docs" / "policy.schema.json").read_text())
    examples = load_examples()
    parts = [HEAD.read_text()]
    for name, (definition, intro) in OBJECTS.items():
        node = schema if definition == "Policy" else schema["$defs"][definition]
        parts.append(f"## {name}\n\n{intro or node['description']}\n")
        for key, value in node["properties"].items():
            place = f"{name}.{key}"
            if place not in examples:
                raise KeyError(f"{place} has no example in integration/reference/examples.yaml")
            parts.append(_key(schema, key, value, examples.pop(place)))
    if examples:
        raise KeyError(f"examples of keys that the schema does not have: {', '.join(examples)}")
    return "\n".join(parts).rstrip("\n") + "\n"


def _key(schema: dict, key: str, value: dict, example: dict) -> str:
    lines = [f"### {key}", "", _wrap(f"*{_type(schema, value)}.* {value['description']}"), ""]
    if choices := _choices(schema, value):
        lines += [*(_wrap(f'- `"{choice["const"]}"`: {choice["description"]}', "  ") for choice in choices), ""]
    lines += ["```json", example["policy"].rstrip(), "```", "", _wrap(_outcome(example)), ""]
    return "\n".join(lines)


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _outcome(example: dict) -> str:
    asked = f"`{example['request']}`"
    if host := example.get("host"):
        asked += f" with `host: {host}`"
    for name, value in example.get("with", {}).items():
        asked += f" with `{name}: {value}`"
    if client := example.get("client"):
        asked += f" from an SDK that signed for `{client.replace(' ', '`, `')}`"
    if status := example.get("answers"):
        return f"{asked} is answered with {status}."
    if example.get("unsigned"):
        return f"{asked} goes on untouched and unsigned."
    text = f"{asked} becomes `{example['sends']}`"
    if scope := example.get("scope"):
        text += f", signed for `{scope.replace(' ', '`, `')}`"
    for name, value in example.get("headers", {}).items():
        text += f", without `{name}`" if value is None else f", with `{name}: {value}`"
    for name, value in example.get("returns", {}).items():
        text += f"; the response gets `{name}: {value}`"
    if name := example.get("signs"):
        text += f", and `{name}` is signed"
    if logged := example.get("logs"):
        text += f", and the access log has `{logged}`"
    if query := example.get("query"):
        text += f", its query has `{query}`"
    return f"{text}."


def _resolve(schema: dict, value: dict) -> dict:
    reference = value.get("$ref", "")
    if reference == "#":
        return schema
    return schema["$defs"][reference.removeprefix("#/$defs/")] if reference else value


def _choices(schema: dict, value: dict) -> list[dict]:
    options = _resolve(schema, value).get("oneOf", [])
    return options if all("const" in option for option in options) else []


def _type(schema: dict, value: dict) -> str:
    resolved = _resolve(schema, value)
    if _choices(schema, value):
        return "String, one of the below"
    if options := resolved.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(schema, option).lower() for option in options)).capitalize()
    return {
        "array": lambda: f"List of {_type(schema, resolved['items']).lower().replace(' or ', 's or ')}s",
        "object": lambda: "Object",
        "string": lambda: "String",
        "integer": lambda: "Integer",
        "boolean": lambda: "Boolean",
    }[resolved["type"]]()


if __name__ == "__main__":
    OUTPUT.write_text(render())
