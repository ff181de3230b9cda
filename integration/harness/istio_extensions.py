"""Istio 1.30's schema of WasmPlugin and TrafficExtension, as far as the manifests need it.

The package with the models of Istio's custom resources has, for Python before 3.14, those of Istio 1.24: they lack
TrafficExtension, and FAIL_RELOAD in WasmPlugin.
"""


def _object(required: tuple[str, ...] = (), **properties: dict) -> dict:
    """Returns a schema that knows each field of an object."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _one_of(*values: str) -> dict:
    return {"enum": list(values)}


def _list(items: dict) -> dict:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_PORT = _object(("number",), number={"type": "integer", "minimum": 1, "maximum": 65535})
_VARIABLE = _object(("name",), name=_TEXT, value=_TEXT, valueFrom=_one_of("INLINE", "HOST"))
_TARGET = _object(("kind", "name"), group=_TEXT, kind=_TEXT, name=_TEXT, namespace=_TEXT)

# Where and for which traffic an extension runs.
_PLACE = {
    "selector": _object(matchLabels={"type": "object", "additionalProperties": _TEXT}),
    "targetRefs": _list(_TARGET),
    "priority": {"type": "integer"},
    "match": _list(_object(mode=_one_of("UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER"), ports=_list(_PORT))),
}
_WASM = {
    "url": _TEXT,
    "sha256": {"type": "string", "pattern": "(^$|^[a-f0-9]{64}$)"},
    "imagePullPolicy": _one_of("UNSPECIFIED_POLICY", "IfNotPresent", "Always"),
    "imagePullSecret": _TEXT,
    "verificationKey": _TEXT,
    "pluginConfig": {"type": "object"},
    "pluginName": _TEXT,
    "failStrategy": _one_of("FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"),
    "type": _one_of("UNSPECIFIED_PLUGIN_TYPE", "HTTP", "NETWORK"),
    "vmConfig": _object(env=_list(_VARIABLE)),
}

SPECS = {
    "WasmPlugin": _object(
        ("url",), phase=_one_of("UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"), targetRef=_TARGET, **_PLACE, **_WASM
    ),
    "TrafficExtension": {
        **_object(
            phase=_one_of("UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"),
            wasm=_object(("url",), **_WASM),
            lua=_object(("inlineCode",), inlineCode=_TEXT),
            **_PLACE,
        ),
        "oneOf": [{"required": ["wasm"]}, {"required": ["lua"]}],
    },
}
