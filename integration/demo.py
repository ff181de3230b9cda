"""The program of `make demo`. Every request line that it shows was on the wire; every verdict is ministack's."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from integration.stack.aws_servers import REGION, ROLE_NAME, Ministack
from integration.stack.capture import Capture
from integration.stack.envoy import envoy_binary
from integration.stack.proxy import Proxy
from integration.stack.refresher import Refresher

BUCKET = "orders"
# The object "a b+c/ü(1).txt": signing proxies fail first with spaces, plus signs, umlauts and brackets.
KEY = "a%20b%2Bc/%C3%BC%281%29.txt"
WIDTH = 110

# Keeps out web pages that use a name of their own.
LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]

# The headers to show; the rest are curl's and Envoy's own.
TOLD_HEADERS = ("host", "authorization", "content-type", "content-length", "x-amz-")


class DemoFailed(Exception):
    """An answer was not the expected one."""


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="sigv4-demo-"))
    try:
        with contextlib.ExitStack() as stack:
            run(Stage(stack, directory))
    except KeyboardInterrupt:
        print()
    except DemoFailed as failure:
        print(f"\n{bold(red('The demo failed:'))} {failure}\nThe logs are in {directory}", file=sys.stderr)
        return 1
    except (OSError, RuntimeError) as error:
        print(f"\n{bold(red('The demo could not run:'))} {error}\nThe logs are in {directory}", file=sys.stderr)
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


class Stage:
    """All processes, started in order; they end with `stack`."""

    def __init__(self, stack: contextlib.ExitStack, directory: Path):
        self.directory = directory
        heading("AWS Signature Version 4, signed in Envoy")
        self.aws = stack.enter_context(Ministack(directory))
        started("ministack", "stands in for S3, SQS and STS, and verifies every signature", self.aws.url)
        self.aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        started("IAM", f"user workload may assume role {ROLE_NAME}; bucket {BUCKET} is private", "")

        self.wire = stack.enter_context(Capture(self.aws.port))
        started("a capture on the wire", "passes on to ministack, and records what arrives there", self.wire.url)
        target = {"target": self.wire.url, "region": REGION, "roleArn": self.aws.role_arn}
        routes = {f"/{service}": {**target, "service": service, "hosts": [*LOOPBACK]} for service in ("s3", "sqs")}
        self.policy = {"routes": routes, "accessLog": True}
        self.proxy = stack.enter_context(Proxy(directory, self.policy))
        # The port would change if Envoy restarted; it does not during a demo.
        self.url = self.proxy.url
        started(f"Envoy {envoy_version()}", "with dist/sigv4_filter.wasm", self.url)

        refresher = stack.enter_context(Refresher(directory, self.proxy, self.aws, "--interval", "1s"))
        refresher.wait_ready(lambda: self.proxy.intake("/v1/status").status == 200)
        # Every worker of Envoy sees a push within a second.
        time.sleep(1)
        [held] = [entry["held"] for entry in self.proxy.identities().values()]
        started("credential-refresher", f"assumed the role, pushed {held['accessKeyId']} into Envoy", "")


def run(stage: Stage) -> None:
    heading("The policy in Envoy")
    print(textwrap.indent(yaml.safe_dump(stage.policy, sort_keys=False).rstrip(), "    "))
    print(dim("    curl below holds no credential, and no file does: the refresher pushed one into Envoy's memory."))

    heading("1  Store an object whose name has a space, a plus sign, an umlaut and brackets")
    through_the_proxy(
        stage, ["-X", "PUT", "-H", "Content-Type: text/plain", "-d", "one order", f"{stage.url}/s3/{BUCKET}/{KEY}"]
    )

    heading("2  Read it back")
    through_the_proxy(stage, [f"{stage.url}/s3/{BUCKET}/{KEY}"])

    heading("3  List the bucket")
    through_the_proxy(stage, [f"{stage.url}/s3/{BUCKET}?list-type=2&prefix=a%20b"])

    heading("4  Another service: create a queue")
    create = "Action=CreateQueue&QueueName=orders&Version=2012-11-05"
    through_the_proxy(stage, ["-d", create, f"{stage.url}/sqs/"])

    heading("5  The same object straight from the upstream, past the proxy: refused")
    straight = [f"{stage.aws.url}/{BUCKET}/{KEY}"]
    exchange = curl(straight)
    show_request("sent by curl", exchange.sent)
    verdict(exchange, expected=403)

    heading("6  Through the proxy, but one byte is changed between Envoy and the upstream: refused")
    stage.wire.change(b"prefix=a", b"prefix=b")
    through_the_proxy(stage, [f"{stage.url}/s3/{BUCKET}?list-type=2&prefix=a%20b"], expected=403)
    stage.wire.change(b"", b"")

    if os.environ.get("KEEP", "") not in ("", "0"):
        keep(stage)
    else:
        print(f"\n{bold('That is all.')} Everything is stopped again. Next:")
        print_commands(
            ("leave it running, and play with it", "make demo KEEP=1"),
            ("three read-only calls to your own AWS account, with the credentials that its SDKs would find;\n"
             "nothing here has been tried with AWS itself yet", "AWS_PROFILE=… make smoke-aws"),
            ("your own policy and Envoy", "see \"Quick start\" in README.md"),
        )  # fmt: skip
        print()


def keep(stage: Stage) -> None:
    """Waits for Ctrl-C."""
    socket = stage.proxy.socket
    heading("It stays up until Ctrl-C. Try, in another terminal")
    print_commands(
        ("store and read an object", f"curl -i -T LICENSE {stage.url}/s3/{BUCKET}/license"),
        ("", f"curl {stage.url}/s3/{BUCKET}/license"),
        ("over HTTP/2", f"curl --http2-prior-knowledge '{stage.url}/s3/{BUCKET}?list-type=2'"),
        ("what leaves its target is refused", f"curl --path-as-is {stage.url}/s3/../secret"),
        ("what Envoy holds, without the secrets", f"curl --unix-socket {socket} http://intake/v1/identities"),
        ("take the credentials away; they are back in a second",
         f"curl -X DELETE --unix-socket {socket} "
         f"http://intake/v1/identities/{next(iter(stage.proxy.identities()))}/credentials"),
        ("past the proxy: refused", f"curl {stage.aws.url}/{BUCKET}/license"),
        ("the logs; one line for each request", f"tail -f {stage.directory}/*.log"),
    )  # fmt: skip
    sys.stdout.flush()
    signal.pause()


def print_commands(*commands: tuple[str, str]) -> None:
    for what, command in commands:
        for line in what.splitlines():
            print(dim(f"  # {line}"))
        print(f"  {command}")


# What goes over the wire


@dataclass(frozen=True)
class Exchange:
    """One request of curl and its answer."""

    sent: list[str]
    status: int
    body: str


def through_the_proxy(stage: Stage, arguments: list[str], expected: int = 200) -> None:
    stage.wire.sent.clear()
    exchange = curl(arguments)
    if not stage.wire.sent:
        raise DemoFailed(f"nothing reached the upstream; the proxy answered {exchange.status}: {exchange.body}")
    show_request("sent by curl", exchange.sent)
    if stage.wire.changed:
        print(f"  {red('changed on the way')}  prefix=a became prefix=b")
    head = stage.wire.sent.partition(b"\r\n\r\n")[0]
    show_request("sent by Envoy", head.decode().split("\r\n"))
    verdict(exchange, expected)


def curl(arguments: list[str]) -> Exchange:
    """Runs and prints one curl command; `sent` is what curl reports as sent."""
    print(f"  {dim('$')} {bold('curl ' + ' '.join(shlex.quote(argument) for argument in arguments))}")
    marker = "\n%{http_code}"
    quiet = ["--silent", "--show-error", "--verbose", "--noproxy", "*", "--max-time", "30", "--write-out", marker]
    done = subprocess.run(["curl", *quiet, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoFailed(f"curl ended with {done.returncode}: {done.stderr}")
    sent = [line[2:] for line in done.stderr.splitlines() if line.startswith("> ") and len(line) > 2]
    body, _, status = done.stdout.rpartition("\n")
    return Exchange(sent, int(status), body)


def show_request(who: str, lines: list[str]) -> None:
    """Prints the request line and the relevant headers, with secrets and signature shortened."""
    request_line, *headers = lines
    print(f"  {cyan(f'{who:<18}')}  {request_line.removesuffix(' HTTP/1.1')}")
    told = [tuple(line.split(": ", 1)) for line in headers if line.lower().startswith(TOLD_HEADERS)]
    for name, value in sorted((name.lower(), value) for name, value in told):
        wrapped = textwrap.wrap(f"{name}: {shortened(name, value)}", WIDTH - 22, subsequent_indent="    ",
                                break_long_words=False, break_on_hyphens=False)  # fmt: skip
        print(textwrap.indent("\n".join(wrapped), " " * 22))
    if not any(name.lower() == "authorization" for name, _ in told):
        print(" " * 22 + dim("(no authorization)"))


def shortened(name: str, value: str) -> str:
    if name == "x-amz-security-token":
        return value[:12] + "…"
    if name == "x-amz-content-sha256" and len(value) == 64:
        return value[:12] + "…"
    return re.sub(r"(Signature=[0-9a-f]{12})[0-9a-f]+", r"\1…", value)


def verdict(exchange: Exchange, expected: int) -> None:
    said = summary(exchange.body)
    mark = green("✓ accepted") if exchange.status == 200 else red("✗ refused")
    print(f"  {cyan('verdict')}             {mark}  {exchange.status}" + (f"  {said}" if said else ""))
    if exchange.status != expected:
        raise DemoFailed(f"expected {expected}, not {exchange.status}: {exchange.body}")


def summary(body: str) -> str:
    """Returns the relevant part of an answer: S3's error, the names in a listing, or a short text unchanged."""
    if error := re.search(r"<Code>(.*?)</Code>", body):
        return error[1]
    if listed := re.findall(r"<(?:Key|QueueUrl)>(.*?)</", body):
        return ", ".join(listed)
    return body if len(body) < 60 and "<" not in body else ""


def envoy_version() -> str:
    said = subprocess.run([envoy_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"/(\d+\.\d+\.\d+)", said)
    return found[1] if found else ""


# Formatting


def styled(code: str):
    on = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return lambda text: f"\033[{code}m{text}\033[0m" if on else text


bold, dim, red, green, cyan = (styled(code) for code in ("1", "2", "31", "32", "36"))


def heading(text: str) -> None:
    print(f"\n{bold(text)}\n{dim('─' * WIDTH)}", flush=True)


def started(what: str, does: str, where: str) -> None:
    print(f"  {green('✓')} {what:<22}{does:<64}{where}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
