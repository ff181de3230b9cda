"""The examples of a document: policies, requests that a reader would type, and the results that the text promises."""

import re
from dataclasses import dataclass

import yaml

from integration.stack.process import REPOSITORY
from integration.stack.proxy import StockConfiguration

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SIGNED = re.compile(r"Signed\s+for\s+`([^`]+)`\s+in\s+`([^`]+)`,\s+and\s+sent\s+to\s+`([^`]+)`")
_ANSWERED = re.compile(r"Answered\s+with\s+(\d{3})")


@dataclass(frozen=True)
class Example:
    """One policy of a document, with the requests below it."""

    place: str
    policy: str
    requests: list[tuple[str, str]]
    """Language and code."""
    scope: tuple[str, str, str] | None
    """Service, region and host that the text names."""
    status: int
    text: str

    def commands(self) -> list[str]:
        """Returns its curl commands, each in one line."""
        code = "".join(code for language, code in self.requests if language == "sh").replace("\\\n", " ")
        return [line for line in code.splitlines() if line.strip()]

    def code(self, language: str) -> list[str]:
        return [code for other, code in self.requests if other == language]


def examples(document: str) -> list[Example]:
    """Returns the examples of a document under docs/, in order. An example goes from its policy to the next heading or
    policy."""
    text = (REPOSITORY / "docs" / document).read_text()
    found = []
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        starts = [match.start() for match in re.finditer(r"^```json$", body, re.MULTILINE)]
        for start, end in zip(starts, [*starts[1:], len(body)], strict=False):
            part = body[start:end]
            (_, policy), *requests = _FENCE.findall(part)
            signed, answered = _SIGNED.search(part), _ANSWERED.search(part)
            status = int(answered[1]) if answered else 200
            found.append(Example(f"{document}: {title}", policy, requests, signed and signed.groups(), status, part))
    return found


def listeners(policies: dict[str, str]) -> StockConfiguration:
    """Returns the stock configuration with a traffic listener for each policy, by name."""
    configuration = StockConfiguration()
    all_listeners = configuration.document["static_resources"]["listeners"]
    traffic = configuration.listener("traffic")
    all_listeners.remove(traffic)
    for name, policy in policies.items():
        listener = yaml.safe_load(yaml.safe_dump(traffic))
        listener["name"] = name
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        # Envoy requires distinct statistics, not distinct names of filters.
        manager["stat_prefix"] = name
        plugin = next(each for each in manager["http_filters"] if each["name"] == "sigv4")["typed_config"]["config"]
        plugin["configuration"]["value"] = policy
        all_listeners.append(listener)
    return configuration
