"""The admin interface: which parts are reachable, and what Envoy logs after a caller raises its log level."""

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.client import curl
from integration.stack.process import REPOSITORY, wait_until

METHODS = ("POST", "PUT", "DELETE", "HEAD", "OPTIONS")


@pytest.fixture
def proxy(start_proxy, api):
    query = {"location": "query"}
    proxy = start_proxy(policy({"/api": api_route(api), "/presigned": api_route(api, signing=query)}, accessLog=True))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.fixture
def statistics(proxy) -> str:
    return f"http://127.0.0.1:{proxy.envoy.port('statistics')}"


def test_the_port_shows_the_statistics_and_readiness(proxy, statistics):
    assert proxy.request("/api").status == 200

    assert curl(f"{statistics}/ready").text == "LIVE\n"
    wait_until(lambda: "sigv4_requests" in curl(f"{statistics}/stats/prometheus").text, "the request in the statistics")


def test_no_other_path_of_the_admin_interface_can_be_reached_over_tcp(proxy, statistics):
    shown = re.findall(r"^  (/[\w/]*)(?: \(POST\))?:", proxy.envoy.admin("/help"), re.MULTILINE)
    allowed = {"/ready", "/stats/prometheus"}
    assert allowed < set(shown)
    assert {"/config_dump", "/logging", "/quitquitquit"} < set(shown)
    levels = proxy.envoy.admin("/logging", "POST")

    for path in sorted({*shown, "/"} - allowed):
        for method in ("GET", "POST"):
            assert curl(f"{statistics}{path}", method).status == 404, path
    for path in allowed:
        for spelling in (f"{path}/", f"/{path}", f"{path}/../logging", f"{path}%2f..%2flogging", f"{path};/logging"):
            assert curl(f"{statistics}{spelling}").status in (400, 404), spelling
        for method in METHODS:
            assert curl(f"{statistics}{path}", method).status == 404, method
    # Envoy answers as before, at the same levels of its log.
    assert proxy.envoy.admin("/logging", "POST") == levels
    assert curl(f"{statistics}/ready").text == "LIVE\n"


def test_a_web_page_with_a_name_of_its_own_reads_no_statistics(statistics):
    for host in ("page.example", "page.example:9901", "localhost.page.example"):
        assert curl(f"{statistics}/stats/prometheus", headers={"host": host}).status == 404, host
    for host in ("localhost", "localhost:9901", "[::1]:9901"):
        assert curl(f"{statistics}/stats/prometheus", headers={"host": host}).status == 200, host


def test_the_admin_interface_is_a_socket_of_its_user_alone(proxy):
    """No TCP port of the process answers as the admin interface does."""
    address = proxy.socket.with_name("admin.sock")
    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(address.stat().st_mode)

    listeners = json.loads(proxy.envoy.admin("/listeners?format=json"))["listener_statuses"]
    known = {each["local_address"].get("socket_address", {}).get("port_value") for each in listeners} - {None}
    assert len(known) == 2
    assert ports_of(proxy.envoy.process.pid) == known


def test_no_level_of_the_filters_log_shows_a_token_and_envoys_own_debug_log_does(proxy):
    secret = TEMPORARY_KEY.secret_key
    shown = {"the token": TEMPORARY_KEY.token, "a signature": "Signature="}

    def log_of_requests() -> str:
        before = len(proxy.envoy.log)
        for path in ("/api", "/presigned/x"):
            assert proxy.request(path).status == 200
        wait_until(lambda: proxy.envoy.log[before:].count('"sigv4":"outcome=Signed ') == 2, "the access log")
        return proxy.envoy.log[before:]

    for level in ("info", "debug", "trace"):
        proxy.envoy.admin(f"/logging?wasm={level}", "POST")
        log = log_of_requests()
        assert not [what for what, text in shown.items() if text in log], level
        assert secret not in log
    proxy.envoy.admin("/logging?wasm=info", "POST")
    # So the above could have found them, and docs/security.md says why the interface is not on a port.
    proxy.envoy.admin("/logging?router=debug", "POST")
    log = log_of_requests()
    assert [what for what, text in shown.items() if text in log] == list(shown)
    assert secret not in log


PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"]
COMMANDS = {
    f"{path.name}: {command}": command
    for path in PAGES
    for command in re.findall(r"curl [^`\n]*(?:admin\.sock|127\.0\.0\.1:9901)[^`\n]*", path.read_text())
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_of_the_pages_is_answered(proxy, statistics, command):
    assert proxy.request("/api").status == 200
    here = command.replace("/run/sigv4/admin.sock", str(proxy.socket.with_name("admin.sock")))
    here = here.replace("http://127.0.0.1:9901", statistics).replace("curl ", "curl --silent --show-error --fail ")

    def answered() -> bool:
        # A request is in the statistics after a second at most.
        done = subprocess.run(["bash", "-o", "pipefail", "-c", here], capture_output=True, text=True, timeout=20)
        return done.returncode == 0 and bool(done.stdout)

    wait_until(answered, f"an answer to {here}", 5)


def test_the_pages_have_such_commands():
    assert len(COMMANDS) >= 4


def ports_of(pid: int) -> set[int]:
    """Returns the TCP ports on which a process listens."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                inodes.add(found[1])
        except FileNotFoundError:
            continue
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in inodes:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports
