"""awslabs' aws-sigv4-proxy, for comparison: built from its repository where a Go toolchain is found."""

import os
import shutil
import subprocess
from pathlib import Path

from integration.bench.envoys import HOST, KEY
from integration.stack.process import REPOSITORY, Process, environment_without_aws, free_port

RELEASE = "v1.11.1"
_SOURCE = "https://github.com/awslabs/aws-sigv4-proxy"
_BUILT = REPOSITORY / "target" / "bench" / f"aws-sigv4-proxy-{RELEASE}"


class Missing(Exception):
    """It can't be compared; the message says why."""


def binary() -> Path:
    """Returns `$AWS_SIGV4_PROXY`, or builds it.

    Raises `Missing` without a Go toolchain, or if it can't be built.
    """
    if named := os.environ.get("AWS_SIGV4_PROXY"):
        return Path(named)
    if not _BUILT.exists():
        _build()
    return _BUILT


def _build() -> None:
    if not shutil.which("go"):
        raise Missing("there is no Go toolchain (go), and AWS_SIGV4_PROXY names no binary")
    sources = _BUILT.with_name("aws-sigv4-proxy.sources")
    shutil.rmtree(sources, ignore_errors=True)
    commands = [
        ["git", "clone", "--quiet", "--depth=1", f"--branch={RELEASE}", _SOURCE, str(sources)],
        # Its dependencies are in its repository.
        ["go", "-C", str(sources), "build", "-mod=vendor", "-o", str(_BUILT), "./cmd/aws-sigv4-proxy"],
    ]
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise Missing(f"there is no {command[0]}") from error
        except subprocess.CalledProcessError as error:
            raise Missing(f"{' '.join(command[:2])} failed: {error.stderr.strip()}") from error


class AwsSigv4Proxy:
    """The proxy, which signs with the bench's key and sends everything to one upstream over http."""

    def __init__(self, path: Path, directory: Path, upstream_port: int):
        self._port = free_port()
        command = [path, "--port", f"127.0.0.1:{self._port}", "--name", "execute-api", "--region", "eu-west-1"]
        command += ["--host", f"127.0.0.1:{upstream_port}", "--sign-host", HOST, "--upstream-url-scheme", "http"]
        environment = environment_without_aws(
            AWS_ACCESS_KEY_ID=KEY.access_key, AWS_SECRET_ACCESS_KEY=KEY.secret_key, AWS_SESSION_TOKEN=KEY.token
        )
        self.process = Process("aws-sigv4-proxy", command, directory / "aws-sigv4-proxy.log", environment)

    def port(self, _: str) -> int:
        return self._port

    def __enter__(self):
        self.process.start()
        self.process.wait_ready(lambda: "Listening" in self.process.log)
        return self

    def __exit__(self, *_):
        self.process.stop()
