"""The clients of docs/clients.md: the program or the commands of each, and how to run them."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from integration.stack.process import REPOSITORY, environment_without_aws

PAGE = REPOSITORY / "docs" / "clients.md"
# Clients that are too large, or too many, for each change; integration/setup.sh clients installs them.
NIGHTLY_VENV = REPOSITORY / ".toolchain" / "clients"

ADDRESS = "127.0.0.1:8080"
_SECTION = re.compile(r"^### ([^\n]+)\n\n```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILES = {"sh": "commands.sh", "python": "program.py", "js": "program.mjs", "java": "Report.java"}


@dataclass(frozen=True)
class ClientExample:
    """What a user of one client would copy."""

    client: str
    language: str
    code: str

    def run(self, directory: Path, address: str, nightly: bool) -> subprocess.CompletedProcess[str]:
        """Runs it in a directory with a report, towards a proxy's address."""
        file = _FILES[self.language]
        (directory / file).write_text(self.code.replace(ADDRESS, address))
        interpreter = {
            "sh": ["sh", "-eu"],
            "python": [_programs(nightly) / "python"],
            "js": ["node"],
            "java": ["java"],
        }[self.language]
        return run([*interpreter, file], directory, nightly)


def client_examples() -> dict[str, ClientExample]:
    """Returns the examples of the page by their client."""
    found = (ClientExample(*match.groups()) for match in _SECTION.finditer(PAGE.read_text()))
    return {example.client: example for example in found}


def table() -> dict[str, tuple[str, str]]:
    """Returns what the page's table says of each client: what to set, and when it is tested."""
    lines = re.findall(r"^\| (\[.*?) \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    return {
        client: (setting, tested) for clients, setting, tested in lines for client in re.findall(r"\[(.*?)\]", clients)
    }


def run(
    command: list[str | Path], directory: Path, nightly: bool, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command as the page has it: with the throw-away key, and with no settings of the machine."""
    environment = environment_without_aws(
        PATH=f"{_programs(nightly)}{os.pathsep}{os.environ['PATH']}",
        HOME=str(directory),
        AWS_CONFIG_FILE=str(_empty(directory)),
        AWS_SHARED_CREDENTIALS_FILE=str(_empty(directory)),
        **exported_variables() | variables,
    )
    return subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip


def exported_variables() -> dict[str, str]:
    """Returns the variables of the page's first command."""
    [export] = re.findall(r"^export (AWS_ACCESS_KEY_ID.*)$", PAGE.read_text(), re.MULTILINE)
    return dict(pair.split("=") for pair in export.split())


def install_duckdb_extension(directory: Path) -> None:
    """Puts DuckDB's client of S3 where it would be after its download."""
    [extension] = NIGHTLY_VENV.glob("lib/*/site-packages/duckdb_extension_httpfs/extensions/*/*.duckdb_extension")
    home = directory / ".duckdb" / "extensions" / extension.parent.name / "linux_amd64"
    home.mkdir(parents=True)
    shutil.copy(extension, home)


def _programs(nightly: bool) -> Path:
    return NIGHTLY_VENV / "bin" if nightly else Path(sys.executable).parent


def _empty(directory: Path) -> Path:
    path = directory / ".empty"
    path.touch()
    return path
