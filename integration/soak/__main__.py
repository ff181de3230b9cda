"""Whether a request is ever lost: credentials rotate every second, under load, while things are killed and reloaded.

A real Envoy with two workers signs as two roles, for an upstream that verifies every request with AWS's own `aws-sigv4`
crate. The real refresher assumes the roles, whose sessions last three seconds. Four parts:

1. At full speed, the refresher is killed (SIGKILL) and started again and again, and Envoy gets one new listener after
   another. No request may fail, and the upstream must have verified every one.
2. The same beside strangers, who stall uploads, flood with headers, send bodies a byte at a time, reset connections,
   and stream to an upstream that dies in the middle; and the disk of the access log is full. No honest request may
   fail, no virtual machine end, and Envoy must stay below 256 MiB more than it took before. Each of the attacks must
   have taken place.
3. The same with sessions of a quarter of an hour, and a clock of Envoy's machine that jumps by four minutes, forwards
   and back. AWS takes signatures that are five minutes off: no honest request may fail.
4. Idle connections take the last of Envoy's file descriptors, for half a second each time. No request that comes over a
   connection that was there before may fail.
5. Envoy is killed and started again, several times. Until it is ready, it may take forty times as much of a processor
   as an Envoy without filters, and it must sign half a second later. How busy the machine is shows in the time until
   it is ready: the latter may take as much longer.
6. At full speed, an access key is revoked (DELETE). One second later no request may be signed with it.

SOAK_REQUESTS and SOAK_SECONDS say how long each of the first four parts lasts, whichever is later; from the second on
with a tenth of the requests. Prints the figures, and writes them to target/soak/soak.json. Ends with 1 where one is not
as it must be.
"""

import http.client
import itertools
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from botocore.credentials import Credentials

from integration.soak.clock import Clock
from integration.soak.exhaustion import FewDescriptors, small_disk
from integration.soak.strangers import Strangers
from integration.stack.client import curl
from integration.stack.envoy import Envoy
from integration.stack.process import REPOSITORY, Process, environment_without_aws, free_port, wait_until
from integration.stack.proxy import WASM, StockConfiguration
from integration.stack.refresher import BINARY

PROGRAMS = REPOSITORY / "target" / "debug"
REPORT = REPOSITORY / "target" / "soak" / "soak.json"
KEY = Credentials("AKIASOAKUSER", "soak/user+secret")
REGION = "eu-west-1"
ROLES = {name: f"arn:aws:iam::123456789012:role/{name}" for name in ("orders", "billing")}
CONNECTIONS = 16
SESSION_SECONDS = 3
# Beside strangers all takes longer, and the refresher has to get at the proxy when it has no descriptor.
SESSION_SECONDS_BESIDE_STRANGERS = 10
# AWS's shortest, for a clock that jumps forwards: by then, none may have expired.
LONG_SESSION_SECONDS = 900
# Signatures of the load's upstream may be 300 s off, as AWS's.
CLOCK_OFFSETS = [240, 0, -240, 0]
# Beside strangers fewer requests show as much.
SHARE_BESIDE_STRANGERS = 10
RESTARTS = 3
# What Envoy's start takes of a processor, most of it to compile the filter, as a multiple of the start of an Envoy
# without filters: twenty here.
READY_WITHIN = 40
# From the moment at which Envoy is ready.
SIGNS_WITHIN = 0.5
MIB = 1 << 20
# What Envoy may take more than before the strangers came.
MOST_GROWTH = 256 * MIB


class Upstream(Process):
    """STS, and the API behind the proxy."""

    def __init__(self, directory: Path):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = environment_without_aws(AWS_ACCESS_KEY_ID=KEY.access_key, AWS_SECRET_ACCESS_KEY=KEY.secret_key)
        command = [PROGRAMS / "soak_upstream", str(self.port)]
        super().__init__("upstream", command, directory / "upstream.log", environment)

    def __enter__(self):
        super().__enter__()
        self.wait_ready(lambda: _answers(self.port, "/soak/report"))
        return self

    def sessions_last(self, seconds: float) -> None:
        """Sets how long sessions last, from the next one on."""
        curl(f"{self.url}/soak/session-seconds/{seconds}", "POST")

    def report(self) -> dict:
        """Returns what it has seen."""
        return curl(f"{self.url}/soak/report").json


class Proxy:
    """A real Envoy whose traffic listener comes from a file (LDS), and the refresher beside it."""

    def __init__(self, directory: Path, upstream: Upstream):
        self.directory, self._upstream = directory, upstream
        self.clock = Clock(directory)
        self.port = free_port()
        self.socket = directory / "credentials.sock"
        self._lds = directory / "lds.json"
        configuration = StockConfiguration()
        configuration.use_wasm(WASM)
        configuration.use_socket(self.socket)
        self._traffic = configuration.listener("traffic")
        self._traffic["address"]["socket_address"]["port_value"] = self.port
        self._configuration, self._signer = configuration, configuration.signer
        self._connections = configuration.http_connection_manager("traffic")
        self.reloads = 0
        self.clock_jumps = 0
        self.dying_url: str | None = None
        self.access_log: Path | None = None
        self._write()
        document = configuration.document
        document["static_resources"]["listeners"] = [configuration.listener("intake")]
        document["node"] = {"id": "soak", "cluster": "soak"}
        document["dynamic_resources"] = {"lds_config": {"path_config_source": {"path": str(self._lds)}}}
        # Old listeners go within five seconds, and not, as by default, within ten minutes. What is under way then is
        # cut off, and on a busy machine some requests take a second.
        self.envoy = Envoy(document, directory, 2, "warning", "--drain-time-s", "5", **self.clock.environment)
        command = [BINARY, "--proxy", f"unix:{self.socket}", "--interval", "1s"]
        environment = environment_without_aws(
            AWS_ACCESS_KEY_ID=KEY.access_key,
            AWS_SECRET_ACCESS_KEY=KEY.secret_key,
            AWS_REGION=REGION,
            AWS_ENDPOINT_URL_STS=upstream.url,
        )
        self.refresher = Process("credential-refresher", command, directory / "refresher.log", environment)
        self.kills = 0

    def __enter__(self):
        try:
            self.envoy.start()
            self.refresher.start()
            self.refresher.wait_ready(self.is_ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.refresher.stop()
        self.envoy.stop()

    def is_ready(self) -> bool:
        """Returns whether each identity of the policy holds credentials."""
        return (
            len(self.identities()) == len(ROLES)
            and curl("http://intake/v1/status", unix_socket=str(self.socket)).status == 200
        )

    def identities(self) -> dict[str, dict]:
        """Returns what is required and held, by role."""
        listing = curl("http://intake/v1/identities", unix_socket=str(self.socket)).json
        return {entry["roleArn"]: entry for entry in listing["identities"]}

    def revoke(self, role: str) -> str:
        """Revokes what is held for a role, and says which access key that was."""
        held = self.identities()[role]
        answer = curl(f"http://intake/v1/identities/{held['id']}/credentials", "DELETE", unix_socket=str(self.socket))
        if answer.status != 204:
            raise RuntimeError(f"DELETE was answered {answer.status}")
        return held["held"]["accessKeyId"]

    def kill_refresher(self) -> None:
        """Kills the refresher, which comes back as soon as a supervisor would see it."""
        self.refresher.stop(signal.SIGKILL)
        time.sleep(0.3)
        self.refresher.start()
        self.kills += 1

    def set_clock(self) -> None:
        """Sets the clock of Envoy's machine off, or right again."""
        self.clock.set(CLOCK_OFFSETS[self.clock_jumps % len(CLOCK_OFFSETS)])
        self.clock_jumps += 1

    def reload(self) -> None:
        """Gives Envoy another policy and waits until its workers have it."""
        before = self.envoy.stat("listener_manager.lds.update_success")
        self.reloads += 1
        self._write()
        wait_until(lambda: self.envoy.stat("listener_manager.lds.update_success") > before, "the new listener")

    def _write(self) -> None:
        target = {"target": self._upstream.url, "service": "execute-api", "region": REGION}
        routes = {f"/{name}": {**target, "roleArn": arn} for name, arn in ROLES.items()}
        routes[f"/reload/{self.reloads}"] = {**target, "roleArn": ROLES["orders"]}
        routes["/bucket"] = {**target, "service": "s3", "payload": "unsigned", "roleArn": ROLES["orders"]}
        if self.dying_url:
            routes["/dying"] = {**routes["/orders"], "target": self.dying_url, "payload": "unsigned"}
        policy = {"routes": routes}
        self._configuration.configure(self._signer, policy)
        access_log = {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(self.access_log),
            },
        }
        self._connections["access_log"] = [access_log] if self.access_log else []
        listener = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **self._traffic}
        document = {"version_info": str(self.reloads), "resources": [listener]}
        # Envoy looks when a file is moved to the place.
        new = self._lds.with_suffix(".new")
        new.write_text(json.dumps(document))
        new.rename(self._lds)


class Load(Process):
    """Requests at full speed, numbered from `first` on: so many, and for so many seconds."""

    def __init__(self, directory: Path, port: int, first: int, requests: int, seconds: int):
        numbers = (port, CONNECTIONS, first, requests, seconds)
        command = [PROGRAMS / "soak_load", *map(str, numbers)]
        super().__init__("load", command, directory / f"load-{first}.log")

    def figures(self) -> dict:
        """Returns their results, once all have been sent."""
        if self.wait(600) != 0:
            raise RuntimeError(f"the load failed: {self.log_tail()}")
        return json.loads(self.log)


def no_request_is_lost(proxy: Proxy, upstream: Upstream, first: int, requests: int, seconds: int) -> dict:
    """Runs part 1."""
    reloads, kills = proxy.reloads, proxy.kills
    figures = under_load(proxy, upstream, first, requests, seconds, proxy.kill_refresher, proxy.reload)
    figures |= {"refresher_kills": proxy.kills - kills, "envoy_reloads": proxy.reloads - reloads}
    return {**figures, "passed": figures["passed"] and proxy.kills > kills and proxy.reloads > reloads}


def under_load(
    proxy: Proxy, upstream: Upstream, first: int, requests: int, seconds: int, *disturbances: Callable[[], None]
) -> dict:
    """Sends the load, with one disturbance after the other. No request may fail, and keys must have rotated."""
    before = upstream.report()
    with Load(proxy.directory, proxy.port, first, requests, seconds) as load:
        for disturb in itertools.cycle(disturbances):
            time.sleep(1.2)
            if not load.running:
                break
            disturb()
        figures = load.figures()
    report = upstream.report()
    sent = figures["requests"]
    rotations = report["sessions"] - before["sessions"]
    verified = report["verified"] - before["verified"]
    return {
        **figures,
        "requests_per_second": sent / figures["seconds"],
        "verified": verified,
        "refused": report["refused"],
        "repeated": report["repeated"],
        "rotations": rotations,
        "seconds_between_rotations": len(ROLES) * figures["seconds"] / max(rotations, 1),
        "envoy_vm_failures": proxy.envoy.stat("wasm.envoy.wasm.runtime.v8.failed"),
        "passed": sent >= requests
        and (figures["answered"], verified, report["repeated"]) == (sent, sent, 0)
        and not figures["failures"]
        and not report["refused"]
        and rotations > 0,
    }


def beside_strangers(proxy: Proxy, part: Callable[[], dict]) -> dict:
    """Runs a part while strangers attack and the access log's disk is full, and adds what came of that."""
    baseline = peak = proxy.envoy.resident_bytes()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, proxy.envoy.resident_bytes())

    watcher = threading.Thread(target=watch)
    with small_disk(proxy.directory / f"disk-{proxy.reloads}") as proxy.access_log:
        unwritten = proxy.envoy.stat("filesystem.write_failed")
        with Strangers(proxy.port) as strangers:
            proxy.dying_url = strangers.dying_url
            proxy.reload()
            watcher.start()
            try:
                figures = part()
            finally:
                ended.set()
                watcher.join()
        unwritten = proxy.envoy.stat("filesystem.write_failed") - unwritten
        disk, proxy.access_log, proxy.dying_url = proxy.access_log, None, None
        proxy.reload()
    died, failed = proxy.envoy.dead_vms, strangers.failed()
    return {
        **figures,
        **strangers.figures(),
        "attacks_that_did_not_take_place": ", ".join(failed) or "none",
        "the_full_disk": "/dev/full" if disk.is_char_device() else "a tmpfs",
        "writes_to_the_full_disk": unwritten,
        "envoy_grew_by_mib": (peak - baseline) / MIB,
        "vms_that_died": len(died),
        "passed": figures["passed"] and peak - baseline < MOST_GROWTH and not died and not failed and unwritten > 0,
    }


def strangers_do_no_harm(proxy: Proxy, upstream: Upstream, first: int, requests: int, seconds: int) -> dict:
    """Runs part 2."""
    renew_with(proxy, upstream, SESSION_SECONDS_BESIDE_STRANGERS)
    return beside_strangers(
        proxy,
        lambda: no_request_is_lost(proxy, upstream, first, requests // SHARE_BESIDE_STRANGERS, seconds),
    )


def a_jumping_clock_does_no_harm(proxy: Proxy, upstream: Upstream, first: int, requests: int, seconds: int) -> dict:
    """Runs part 3."""
    renew_with(proxy, upstream, LONG_SESSION_SECONDS)
    jumps = proxy.clock_jumps
    disturbances = (proxy.set_clock, proxy.kill_refresher, proxy.set_clock, proxy.reload)
    figures = beside_strangers(
        proxy,
        lambda: under_load(proxy, upstream, first, requests // SHARE_BESIDE_STRANGERS, seconds, *disturbances),
    )
    proxy.clock.set(0)
    skew = upstream.report()["largest_skew_seconds"]
    figures |= {"clock_jumps": proxy.clock_jumps - jumps, "largest_skew_seconds": skew}
    return {**figures, "passed": figures["passed"] and skew > max(CLOCK_OFFSETS) - 10}


def few_descriptors_do_no_harm(proxy: Proxy, upstream: Upstream, first: int, requests: int, seconds: int) -> dict:
    """Runs part 4."""
    renew_with(proxy, upstream, SESSION_SECONDS_BESIDE_STRANGERS)
    few = FewDescriptors()
    figures = under_load(
        proxy, upstream, first, requests // SHARE_BESIDE_STRANGERS, seconds,
        lambda: few.take(proxy.envoy.process.pid, proxy.port), proxy.kill_refresher,
    )  # fmt: skip
    return {**figures, "times_without_descriptors": few.rounds, "passed": figures["passed"] and few.rounds > 0}


def renew_with(proxy: Proxy, upstream: Upstream, session_seconds: float) -> None:
    """Lets sessions last so long from now on, and waits until the proxy has such."""
    upstream.sessions_last(session_seconds)
    old = {role: entry["held"]["accessKeyId"] for role, entry in proxy.identities().items()}
    # What comes back has no credentials, and gets new ones.
    proxy.kill_refresher()
    wait_until(lambda: all(proxy.identities()[role]["held"]["accessKeyId"] != key for role, key in old.items()), "keys")


def plain_start(directory: Path) -> float:
    """Starts an Envoy without filters, and returns what that takes of a processor."""
    directory.mkdir(exist_ok=True)
    with Envoy({"static_resources": {"listeners": [], "clusters": []}}, directory, 2, "warning") as plain:
        return processor_seconds(plain.process.pid)


def signing_resumes(proxy: Proxy, first: int) -> dict:
    """Runs part 5."""
    ready, processor, plain, signs = [], [], [], []
    for _ in range(RESTARTS):
        plain.append(plain_start(proxy.directory / "plain"))
        proxy.envoy.process.stop(signal.SIGKILL)
        began = time.monotonic()
        proxy.envoy.start()
        ready.append(time.monotonic() - began)
        processor.append(processor_seconds(proxy.envoy.process.pid))
        while not all(_answers(proxy.port, f"/{name}/?n={first}") for name in ROLES):
            if time.monotonic() - began > 30:
                raise TimeoutError("Envoy does not sign again")
            time.sleep(0.005)
        signs.append(time.monotonic() - began - ready[-1])
        wait_until(proxy.is_ready, "all credentials")
    slowdown = max(1, statistics.median(ready) / statistics.median(processor))
    return {
        "restarts": RESTARTS,
        "ready_after_seconds": ready,
        "of_a_processor": processor,
        "of_a_processor_without_filters": plain,
        "signs_when_ready_for_seconds": signs,
        "passed": statistics.median(processor) < READY_WITHIN * statistics.median(plain)
        and statistics.median(signs) < SIGNS_WITHIN * slowdown,
    }


def processor_seconds(pid: int) -> float:
    """Returns what a process has taken of all processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def a_revoked_key_is_gone(proxy: Proxy, upstream: Upstream, first: int) -> dict:
    """Runs part 6. The sessions would last for an hour."""
    renew_with(proxy, upstream, 3600)
    with Load(proxy.directory, proxy.port, first, 0, 5) as load:
        time.sleep(1.5)
        # On a busy machine, the refresher may replace the key before this process reads the answer.
        asked = time.time()
        key = proxy.revoke(ROLES["orders"])
        revoked = time.time()
        figures = load.figures()
    keys = upstream.report()["keys"]
    new = proxy.identities()[ROLES["orders"]]["held"]["accessKeyId"]
    last, resumed = keys[key]["last"] - revoked, keys[new]["first"] - asked
    return {
        "requests": figures["requests"],
        "with_the_revoked_key": keys[key]["requests"],
        "last_with_it_after_seconds": last,
        "first_with_a_new_one_after_seconds": resumed,
        "failures": figures["failures"],
        "passed": last < 1
        and 0 < resumed < 3
        and key != new
        and keys[key]["requests"] > 0
        # Until the refresher has asked, requests are refused, as they must be.
        and set(figures["failures"]) <= {"status 503"},
    }


def main() -> None:
    """Runs the six parts."""
    requests, seconds = int(os.environ.get("SOAK_REQUESTS", "100000")), int(os.environ.get("SOAK_SECONDS", "30"))
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    results, first = {}, 0
    try:
        with Upstream(directory) as upstream:
            upstream.sessions_last(SESSION_SECONDS)
            with Proxy(directory, upstream) as proxy:
                for part in (
                    no_request_is_lost,
                    strangers_do_no_harm,
                    a_jumping_clock_does_no_harm,
                    few_descriptors_do_no_harm,
                ):
                    name = part.__name__.replace("_", " ")
                    results[name] = part(proxy, upstream, first, requests, seconds)
                    first += results[name]["requests"]
                results["signing resumes"] = signing_resumes(proxy, first)
                results["a revoked key is gone"] = a_revoked_key_is_gone(proxy, upstream, first + 1)
    except BaseException:
        for log in sorted(directory.glob("*.log")):
            print(f"--- the end of {log.name}:", *log.read_text(errors="replace").splitlines()[-30:], sep="\n")
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report(results)
    if not all(part["passed"] for part in results.values()):
        sys.exit("soak: a figure is not as it must be")


def report(results: dict[str, dict]) -> None:
    """Prints the table and writes it as JSON."""
    for part, figures in results.items():
        print(f"{part}: {'passed' if figures['passed'] else 'FAILED'}")
        for name, value in figures.items():
            if name != "passed":
                print(f"  {name.replace('_', ' '):36} {_shown(value)}")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\n{REPORT.relative_to(REPOSITORY)}")


def _shown(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_shown(each) for each in value)
    if isinstance(value, str):
        return value
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
