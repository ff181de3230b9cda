"""Writes docs/policy.md: every key of the policy, from docs/policy.schema.json, with its example of examples.yaml.

    .venv/bin/python -m integration.reference.generate

`integration/tests/test_documents.py` fails when the file is not what this gives, and runs the examples.
"""

import json
import textwrap

import yaml

from integration.stack.process import REPOSITORY

OUTPUT = REPOSITORY / "docs" / "policy.md"

HEAD = """\
# Policy reference

Every key of the policy, made from [its JSON schema](policy.schema.json), which an editor can check a policy with. How
paths, payloads and headers are treated as a whole is in the [README](../README.md#policy). A test runs each example.
"""

TAIL = """
## What a target does not limit

A target's path bounds which paths a route reaches, and for S3 the objects that `x-amz-copy-source` and
`x-amz-rename-source` name. It does not bound what is done there, or what else a request names:

- The action. `GET`, `PUT` and `DELETE` all pass, and so do subresources such as `?acl` and `?policy`.
- `x-amz-target`, `Action=` and other selectors of services whose path is always `/` (DynamoDB, SQS, KMS, STS).
- Names in a body or a query: the keys of S3's `DeleteObjects`, `?prefix=`, tables, queues, `x-amz-acl=`, grants.
- Headers that name something other than an object to read: `x-amz-acl`, `x-amz-grant-*`, a KMS key,
  `x-amz-website-redirect-location`; and `x-http-method-override`, which some APIs of your own may read.

IAM does. Give the route a [role](#rolearn) whose policy allows the actions and resources that its callers need, and
nothing else:

```json
{"Version": "2012-10-17",
 "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::my-bucket/reports/*"}]}
```

Headers can be removed as well: `"requestHeaders": {"remove": ["x-amz-acl", "x-http-method-override"]}`.

Outside of AWS, a host name does not tell whether it begins with a bucket. There a copy's source is refused with a
message that asks for [`s3Domain`](#s3domain). An address, a name of one label and one that begins with `s3.` have no
bucket in them. With [`signing.redirect`](#redirect) the client sends the request itself, with headers that the signer
does not see: there it is the upstream that has to refuse `x-amz-*` headers that are not signed, as S3 does.
"""

# What comes after what, in the order in which a reader meets it.
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
    parts = [HEAD]
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
    return "\n".join(parts) + TAIL


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
        text += ", and the access log has " + ", ".join(f"`{name}: {value}`" for name, value in logged.items())
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
        "array": lambda: f"List of {_type(schema, resolved['items']).lower()}s",
        "object": lambda: "Object",
        "string": lambda: "String",
        "integer": lambda: "Integer",
        "boolean": lambda: "Boolean",
    }[resolved["type"]]()


if __name__ == "__main__":
    OUTPUT.write_text(render())
