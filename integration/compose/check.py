"""Runs the README's commands for docker-compose against the running stack, and checks the answers.

python -m integration.compose.check docker-compose --project-name NAME --file envoy/docker-compose.yaml
"""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from integration.stack.process import REPOSITORY

DASHBOARD = REPOSITORY / "envoy/compose/grafana/dashboards/sigv4.json"
PORTS = {"8080": os.environ["PROXY_PORT"], "4566": os.environ["AWS_PORT"]}
PROMETHEUS = f"http://127.0.0.1:{os.environ['PROMETHEUS_PORT']}"
USER = 10001


def main() -> None:
    compose = sys.argv[1:]
    answers = run_readme()
    assert answers["GET", 200] == (REPOSITORY / "LICENSE").read_bytes(), "the object came back changed"
    assert b"AccessDenied" in answers["GET", 403], answers
    check_containers(compose)
    check_dashboard()
    print("compose: all is well", file=sys.stderr)


def run_readme() -> dict[tuple[str, int], bytes]:
    """Runs the `curl` lines of the README's block; the comment of each names its status."""
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if "docker-compose.yaml up" in block]
    lines = [line for line in block.splitlines() if line.startswith("curl ")]
    assert len(lines) >= 3, block
    answers = {}
    for line in lines:
        command, _, comment = line.partition("#")
        expected = int(re.match(r"\s*(\d{3})", comment)[1])
        for documented, actual in PORTS.items():
            command = command.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{actual}")
        with tempfile.NamedTemporaryFile() as body:
            quiet = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--output", body.name]
            arguments = [*shlex.split(command), *quiet, "--write-out", "%{http_code}"]
            done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=REPOSITORY)
            status, content = int(done.stdout), body.read()
        print(f"  {status}  {command}")
        assert status == expected, f"{expected} was promised: {content.decode(errors='replace')}"
        answers["PUT" if " -T " in command else "GET", status] = content
    return answers


def check_containers(compose: list[str]) -> None:
    """Checks that the containers are healthy, not root, and have a read-only root file system."""

    def states() -> dict[str, dict]:
        ids = subprocess.run([*compose, "ps", "--quiet"], capture_output=True, text=True, check=True).stdout.split()
        inspected = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=True).stdout
        return {entry["Config"]["Labels"]["com.docker.compose.service"]: entry for entry in json.loads(inspected)}

    def all_healthy() -> bool:
        return all(entry["State"]["Health"]["Status"] == "healthy" for entry in states().values())

    wait(all_healthy, "every container to be healthy")
    for service, entry in states().items():
        assert entry["HostConfig"]["ReadonlyRootfs"], service
        assert entry["RestartCount"] == 0, f"{service} was restarted"
        assert entry["Config"]["User"].partition(":")[0] not in ("", "0", "root"), service
        if service != "prometheus":
            assert entry["Config"]["User"] == f"{USER}:{USER}", service
    inside = [*compose, "exec", "-T", "envoy", "stat", "--format", "%u %a", "/run/sigv4", "/run/sigv4/credentials.sock"]
    owners = subprocess.run(inside, capture_output=True, text=True, check=True).stdout.split("\n")
    assert owners[:2] == [f"{USER} 700", f"{USER} 600"], owners


def check_dashboard() -> None:
    """Checks that Prometheus scrapes both, and has data for every panel."""
    wait(lambda: [value for _, value in query("up")] == ["1", "1"], "Prometheus to scrape both")
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]
    assert asked

    def missing() -> list[str]:
        # A rate needs a counter that rises, and a duration a request that was timed.
        for path in ["/s3/orders/license"] * 40 + ["/elsewhere"]:
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(f"http://127.0.0.1:{PORTS['8080']}{path}", timeout=10).close()
        return [f"{title}: {expression}" for title, expression in asked if not query(expression)]

    try:
        wait(lambda: not missing(), "data in every panel")
    except AssertionError as error:
        raise AssertionError(f"{error}; there is none in {missing()}") from None


def query(expression: str) -> list[tuple[dict, str]]:
    text = expression.replace("$__rate_interval", "1m")
    with urllib.request.urlopen(
        f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': text})}", timeout=10
    ) as it:
        return [(entry["metric"], entry["value"][1]) for entry in json.load(it)["data"]["result"]]


def wait(condition, what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            if condition():
                return
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{what}: {error.read().decode()}") from None
        except OSError:
            pass
        assert time.monotonic() < deadline, f"waited {timeout:g} s for {what}"
        time.sleep(0.5)


if __name__ == "__main__":
    main()
