"""Sentences of a page, each with the tests that hold it. A sentence that only one of the two has is found."""

import functools
import re
from collections import Counter
from dataclasses import dataclass
from enum import Enum

from integration.stack.process import REPOSITORY


class Without(Enum):
    """Why a sentence has no test."""

    PROMISE = "it explains, advises or leads to the next one"
    CONTROL = "it is about Envoy, AWS, Kubernetes or a browser, or is measured once"
    PROTECTION = "it says what somebody can do, or what is not covered"


PROMISES = re.compile(r"\b(never|no|none|nothing|nobody|neither|nowhere|not|\w+n't)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """One sentence, or one row of a table, and the tests of this project that fail once it is not true any more.

    A test is named by its function, Python's or Rust's; after its file and `::` if there are several of that name.
    """

    sentence: str
    tests: tuple[str, ...]
    without: Without | None = None

    def __init__(self, sentence: str, *held_by: str | Without):
        object.__setattr__(self, "sentence", sentence)
        object.__setattr__(self, "tests", tuple(each for each in held_by if isinstance(each, str)))
        object.__setattr__(self, "without", next((each for each in held_by if isinstance(each, Without)), None))


def sentences(page: str, whole_rows: bool = True) -> dict[str, list[str]]:
    """Returns the sentences below each heading of a Markdown text, and its tables' rows, or their first cells alone.

    What is in blocks of code is left out.
    """
    found: dict[str, list[str]] = {}
    paragraph: list[str] = []
    page = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    heading = ""

    def end_paragraph() -> None:
        text = " ".join(" ".join(paragraph).split())
        paragraph.clear()
        below = found.setdefault(heading, [])
        below.extend(filter(None, re.split(r"(?<=[.!?])(?:\*\*)?\s+(?=[*`A-Z\[])", text)))

    for line in page.splitlines():
        if line.startswith("#"):
            end_paragraph()
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            end_paragraph()
            if not re.fullmatch(r"[|\s-]+", line):
                found[heading].append(line.strip("| ") if whole_rows else line.strip("| ").partition(" | ")[0])
        elif not line.strip():
            end_paragraph()
        else:
            if line.startswith("- "):
                end_paragraph()
                line = line[2:]
            paragraph.append(line)
    end_paragraph()
    return {heading: below for heading, below in found.items() if below}


def differences(page: str, sections: dict[str, list[Claim]], whole_rows: bool = True) -> list[str]:
    """Returns what a page says and the sections don't, and the reverse."""
    below = sentences(page, whole_rows)
    said = Counter((heading, sentence) for heading in below for sentence in below[heading])
    carried = Counter((heading, claim.sentence) for heading, claims in sections.items() for claim in claims)
    return [f"no test carries, under {heading!r}: {sentence}" for heading, sentence in said - carried] + [
        f"the page does not say, under {heading!r}: {sentence}" for heading, sentence in carried - said
    ]


def missing_tests(claims: list[Claim]) -> list[str]:
    """Returns names that claims give to tests and no test has, and the claims that have both tests and a reason for
    none, or neither."""
    undecided = [claim.sentence for claim in claims if bool(claim.tests) == bool(claim.without)]
    named = [test for claim in claims for test in claim.tests]
    return undecided + [test for test in named if test not in known_tests() and not (REPOSITORY / test).is_file()]


def untested_promises(claims: list[Claim]) -> list[str]:
    """Returns what is said not to happen, and is neither held by a test nor somebody else's to keep."""
    explained = [claim.sentence for claim in claims if claim.without is Without.PROMISE]
    return [sentence for sentence in explained if PROMISES.search(sentence)]


@functools.cache
def known_tests() -> frozenset[str]:
    """Returns the names of this project's tests: alone if there is no other of the name, and after their file's."""
    python = [
        (path.name, name)
        for path in (REPOSITORY / "integration" / "tests").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    ]
    rust = [
        (path.name, name)
        for path in (REPOSITORY / "src").rglob("*.rs")
        for name in re.findall(
            r"#\[(?:tokio::)?test(?:\([^]]*\))?\]\s+(?:#\[[^]]*\]\s+)*(?:async )?fn (\w+)\(", path.read_text()
        )
    ]
    names = Counter(name for _, name in python + rust)
    only = {name for name, count in names.items() if count == 1}
    return frozenset(only | {f"{file}::{name}" for file, name in python + rust})
