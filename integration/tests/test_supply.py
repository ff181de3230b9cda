"""Failures in the supply of credentials: each line of docs/operations.md's table that involves a proxy."""

import contextlib
import copy
import functools
import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from botocore.credentials import Credentials

from integration.harness.certificates import Authority
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route
from integration.harness.sts import QuickSts
from integration.harness.wasm_host import WasmHost
from integration.stack.capture import Capture
from integration.stack.client import curl
from integration.stack.intake import credential_document
from integration.stack.process import Process, free_port, wait_until
from integration.stack.proxy import WASM, StockConfiguration
from integration.stack.refresher import Refresher

PLACE = "/v1/identities/default/credentials"
ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"
NOWHERE = "http://127.0.0.1:9"


class StaticSource:
    """A refresher's environment: one key, and no STS."""

    url = NOWHERE

    def __init__(self, user: Credentials):
        self.user = user


@pytest.fixture
def start_refresher(tmp_path_factory, running):
    def start(proxy, *arguments, key=STATIC_KEY, **variables) -> Refresher:
        directory = tmp_path_factory.mktemp("refresher")
        return running(Refresher(directory, proxy, StaticSource(key), *arguments, **variables))

    return start


@pytest.fixture
def proxy(start_proxy, api):
    return start_proxy({"routes": {"/api": api_route(api)}})


def pushes(refresher) -> int:
    return refresher.log.count("pushed credentials")


def by_hand(proxy, key: Credentials, query: str = "") -> int:
    return proxy.intake(PLACE + query, "PUT", credential_document(key)).status


def statuses_of(send, count: int = 40) -> set[int]:
    """Returns the statuses of this many requests, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(lambda _: send(), range(count)))


def probe(refresher, path: str = "/readyz"):
    wait_until(lambda: "listening for probes" in refresher.log, "the probes")
    address = refresher.log.split("address=")[1].split()[0]
    return curl(f"http://{address}{path}")


# The proxy's credentials, and conflicts between refreshers.


def test_a_wrong_secret_under_the_right_key_is_corrected(proxy, api, start_refresher):
    refresher = start_refresher(proxy, "--interval", "1h")
    proxy.wait_for_status("/api", 200)
    for wrong in ["not-the-secret", "not-the-secret", "nor-this-one"]:
        assert by_hand(proxy, Credentials(STATIC_KEY.access_key, wrong)) == 204
        proxy.wait_for_status("/api", 200, timeout=3)
        held = proxy.identities()["default"]["held"]
        assert held["fingerprint"]
        assert wrong not in refresher.log

    assert "holds another secret" in refresher.log
    assert STATIC_KEY.secret_key not in json.dumps(proxy.identities()) + refresher.log


def test_a_revocation_that_is_taken_back_by_hand_is_taken_back_for_the_refresher(proxy, api, start_refresher):
    refresher = start_refresher(proxy, "--listen", "127.0.0.1:0")
    proxy.wait_for_status("/api", 200)
    proxy.revoke()
    proxy.wait_for_status("/api", 503)
    wait_until(
        lambda: "still returns the revoked access key" in probe(refresher).text, "the refresher to see the revocation"
    )
    assert by_hand(proxy, STATIC_KEY, "?unless-revoked") == 409

    assert by_hand(proxy, STATIC_KEY) == 204
    proxy.wait_for_status("/api", 200)
    wait_until(lambda: probe(refresher).text == "ok\n", "the refresher to be content")
    proxy.envoy.restart()
    proxy.wait_for_status("/api", 200)


def test_another_key_by_hand_is_left_and_the_only_key_revoked_makes_the_proxy_unready(proxy, api, start_refresher):
    refresher = start_refresher(proxy, "--listen", "127.0.0.1:0", "--interval", "200ms")
    proxy.wait_for_status("/api", 200)
    assert by_hand(proxy, TEMPORARY_KEY) == 204
    time.sleep(1.5)
    assert proxy.identities()["default"]["held"]["accessKeyId"] == TEMPORARY_KEY.access_key
    assert probe(refresher).text == "ok\n"

    assert by_hand(proxy, STATIC_KEY) == 204
    proxy.revoke()
    wait_until(lambda: probe(refresher).status == 503, "the proxy to be unready")
    assert proxy.request("/api").status == 503


def test_two_refreshers_do_not_take_turns(proxy, api, start_refresher):
    first = start_refresher(proxy, "--interval", "200ms")
    proxy.wait_for_status("/api", 200)
    second = start_refresher(proxy, "--interval", "200ms", key=TEMPORARY_KEY)
    wait_until(lambda: pushes(second) == 1, "the second push")
    time.sleep(2)
    assert (pushes(first), pushes(second)) == (1, 1)

    # One of the two keys is revoked: the other's refresher supplies, once.
    proxy.revoke()
    wait_until(lambda: pushes(first) == 2, "the first one's push")
    proxy.wait_for_status("/api", 200)
    time.sleep(2)
    assert (pushes(first), pushes(second)) == (2, 1)
    assert proxy.identities()["default"]["held"]["accessKeyId"] == STATIC_KEY.access_key


def test_a_push_that_crosses_a_revocation_leaves_nothing_of_the_revoked_key(proxy, api):
    """Through both workers, in any order; the native tests cover each order."""
    proxy.push(STATIC_KEY)
    for number in range(15):
        key = Credentials(f"AKIDROUND{number}", "secret")
        assert by_hand(proxy, key) == 204
        push = functools.partial(by_hand, proxy, key, "?unless-revoked")
        calls = [push] * 3
        calls.insert(number % 4, lambda: proxy.intake(PLACE, "DELETE").status)
        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda call: call(), calls))
        assert statuses.pop(number % 4) == 204
        assert set(statuses) <= {204, 409}
        default = proxy.identities()["default"]
        assert (default["held"], key.access_key in default["revoked"]) == (None, True)
        assert proxy.request("/api").status == 503


def test_of_pushes_that_cross_one_is_left_whole(proxy, api):
    proxy.push(STATIC_KEY)
    proxy.wait_for_status("/api", 200)
    keys = [STATIC_KEY, TEMPORARY_KEY] * 4
    for _ in range(10):
        before = proxy.intake("/v1/identities").json["generation"]
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda key: by_hand(proxy, key), keys)) == {204}
        assert proxy.intake("/v1/identities").json["generation"] == before + len(keys)
        # The upstream would refuse a mixture of the two.
        assert statuses_of(lambda: proxy.request("/api").status, 8) == {200}


# A policy that is removed, or never existed.


LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


class ListenerFile:
    """The traffic listener of a stock configuration, served to Envoy through a file (LDS)."""

    def __init__(self, configuration, directory):
        self.path = directory / "listeners.json"
        self.listener = configuration.listener("traffic")
        self.listener["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        configuration.document["node"] = {"id": "test", "cluster": "test"}
        source = {"path_config_source": {"path": str(self.path)}}
        configuration.document["dynamic_resources"] = {"lds_config": source}

    def take_out(self, configuration) -> None:
        """Takes the listener out; call it when the configuration is complete."""
        configuration.document["static_resources"]["listeners"].remove(self.listener)
        self.write([self.listener])

    def write(self, listeners: list[dict]) -> None:
        partial = self.path.with_suffix(".partial")
        resources = [{"@type": LISTENER, **listener} for listener in listeners]
        partial.write_text(json.dumps({"version_info": str(time.time()), "resources": resources}))
        partial.rename(self.path)


@pytest.fixture
def dynamic(start_proxy, configuration, api, tmp_path):
    """Returns a proxy whose traffic listener can be removed, moved and restored, and its file."""
    configuration.envoy_arguments = ["--drain-time-s", "1"]
    listeners = ListenerFile(configuration, tmp_path)
    configuration.configure(configuration.signer, {"routes": {"/api": api_route(api)}})
    configuration.use_wasm(WASM)
    listeners.take_out(configuration)
    return start_proxy(None, configuration), listeners


def test_credentials_of_a_policy_that_is_gone_can_be_deleted_immediately(dynamic):
    """Its lease lasts for 30 more seconds."""
    proxy, listeners = dynamic
    proxy.push(STATIC_KEY)
    listeners.write([])
    wait_until(lambda: "traffic" not in proxy.envoy.admin("/listeners"), "the listener to go")
    proxy.revoke()
    assert proxy.identities()["default"]["held"] is None


INTAKE = {"intake": {}}


def intake_in_a_host(shared_data: dict[str, bytes]) -> WasmHost:
    """Returns the intake over shared data that Envoy has only for an instant, or that another version wrote."""
    host = WasmHost(WASM, INTAKE, shared_data)
    host.properties[b"source\0address"] = b"/run/sigv4/credentials.sock"
    return host


def call(host: WasmHost, method: str, path: str, body: bytes | None = None):
    headers = {":method": method, ":path": path, ":authority": "intake", ":scheme": "http"}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return host.send(pairs, *([body] if body else [])).reply


def test_credentials_that_no_policy_wants_can_be_deleted():
    """Between the end of the last lease and the intake's sweep."""
    document = credential_document(STATIC_KEY)
    host = intake_in_a_host({"sigv4.credentials.default": document, "sigv4.generation": b"1"})
    assert call(host, "PUT", PLACE, document).status == 404
    assert host.shared_data["sigv4.credentials.default"] == document
    assert call(host, "DELETE", PLACE).status == 204
    assert host.shared_data["sigv4.credentials.default"] == b""
    assert call(host, "DELETE", PLACE).status == 404


def test_credentials_go_when_the_last_policy_goes(dynamic, api):
    proxy, listeners = dynamic
    proxy.push(STATIC_KEY)
    proxy.wait_for_status("/api", 200)
    listeners.write([])
    wait_until(lambda: "traffic" not in proxy.envoy.admin("/listeners"), "the listener to go")
    # Its lease of 30 seconds must expire after it has drained.
    wait_until(lambda: not proxy.identities(), "the intake to forget the policy", timeout=60)
    assert proxy.intake(PLACE, "DELETE").status == 404
    assert "no policy is loaded" in proxy.intake("/v1/status").json["problem"]

    listeners.write([listeners.listener])
    wait_until(lambda: "default" in proxy.identities(), "the policy to be back")
    assert proxy.identities()["default"]["held"] is None
    assert proxy.request("/api").status == 503


def moved_listener(listeners: ListenerFile, policy: dict) -> dict:
    """Returns the listener with another name, another port, and a policy of its own."""
    moved = copy.deepcopy(listeners.listener)
    moved["name"] = "moved"
    moved["address"]["socket_address"]["port_value"] = free_port()
    return with_policy(moved, policy)


def with_policy(listener: dict, policy: dict) -> dict:
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    [plugin] = [each for each in filters if each["name"] == "sigv4"]
    plugin["typed_config"]["config"]["configuration"]["value"] = json.dumps(policy)
    return listener


def test_a_listener_that_moved_is_supplied_within_a_second(dynamic, api, start_refresher):
    """It wants an identity that no policy did before: the others are there already, as the shared data outlasts a
    listener."""
    proxy, listeners = dynamic
    with QuickSts() as sts:
        start_refresher(proxy, "--interval", "1h", AWS_ENDPOINT_URL_STS=sts.url)
        proxy.wait_for_status("/api", 200)
        policy = {"routes": {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}}
        listeners.write([moved_listener(listeners, policy)])
        wait_until(lambda: "moved" in proxy.envoy.admin("/listeners"), "the new listener")
        began = time.monotonic()
        url = f"http://127.0.0.1:{proxy.envoy.port('moved')}"
        # The upstream does not know the session's key.
        wait_until(lambda: curl(f"{url}/role").status == 403, "the new listener to sign", timeout=5)
        print(f"signs {time.monotonic() - began:.2f} s after it was there, at an interval of an hour")
        assert time.monotonic() - began < 1
        assert curl(f"{url}/api").status == 200


def test_what_a_new_policy_requires_is_supplied_at_once(dynamic, api, start_refresher):
    proxy, listeners = dynamic
    with QuickSts() as sts:
        start_refresher(proxy, "--interval", "1h", AWS_ENDPOINT_URL_STS=sts.url)
        proxy.wait_for_status("/api", 200)
        policy = {"routes": {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}}
        listeners.write([with_policy(copy.deepcopy(listeners.listener), policy)])
        wait_until(lambda: proxy.request("/role").status != 404, "the new policy")
        began = time.monotonic()
        proxy.wait_for_status("/role", 403, timeout=5)
        assert time.monotonic() - began < 1


def test_an_intake_that_shares_no_vm_id_is_not_ready(start_proxy, configuration, api, start_refresher):
    configuration.intake["vm_config"]["vm_id"] = "another"
    proxy = start_proxy({"routes": {"/api": api_route(api)}}, configuration)
    status = proxy.intake("/v1/status")
    assert status.status == 503
    assert "no policy is loaded under the intake's vm_id" in status.json["problem"]

    refresher = start_refresher(proxy, "--listen", "127.0.0.1:0")
    wait_until(lambda: "the proxy requires no credentials" in refresher.log, "the warning")
    assert probe(refresher).status == 503
    assert "no policy is loaded" in probe(refresher).text
    assert proxy.request("/api").status == 503


def test_three_hundred_roles_with_fifty_tags_keep_nobody_from_being_supplied(start_proxy, api, start_refresher):
    """As long as AWS allows tags: a listing of 6 MiB."""
    tags = {f"{n:0>128}": "v" * 256 for n in range(50)}
    role = {"roleArn": ROLE_ARN, "roleTags": tags}
    routes = {f"/{n}": api_route(api, **role, roleSessionName=f"session-{n}") for n in range(300)}
    proxy = start_proxy({"routes": {"/api": api_route(api), **routes}})
    refresher = start_refresher(proxy, AWS_ENDPOINT_URL_STS="http://127.0.0.1:9")
    proxy.wait_for_status("/api", 200, timeout=60)
    assert len(proxy.identities()) == 301
    assert "can't ask the proxy" not in refresher.log


# Readiness.


class FadingSource:
    """A credential_process whose credentials are valid for a few seconds, until it is `down`."""

    def __init__(self, directory):
        self._up = directory / "up"
        self._up.touch()
        script, self.config = directory / "source", directory / "config"
        document = {
            "Version": 1,
            "AccessKeyId": TEMPORARY_KEY.access_key,
            "SecretAccessKey": TEMPORARY_KEY.secret_key,
            "SessionToken": TEMPORARY_KEY.token,
            "Expiration": "AT",
        }
        at = "$(date -u -d '+6 seconds' +%Y-%m-%dT%H:%M:%SZ)"
        script.write_text(
            f"""#!/bin/sh\ntest -e {self._up} && echo '{json.dumps(document)}' | sed "s/AT\\"/{at}\\"/"\n"""
        )
        script.chmod(0o700)
        self.config.write_text(f"[default]\ncredential_process = {script}\n")

    def down(self) -> None:
        self._up.unlink()

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": str(self.config)}


def test_a_pod_is_ready_that_can_sign_or_could_until_the_source_failed(start_proxy, api, start_refresher, tmp_path):
    """One of two identities can't be obtained; then the source fails; then Envoy restarts while it does."""
    proxy = start_proxy({"routes": {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}})
    source = FadingSource(tmp_path)
    refresher = start_refresher(proxy, "--listen", "127.0.0.1:0", **source.environment)
    proxy.wait_for_status("/api", 200)
    wait_until(lambda: ROLE_ARN in probe(refresher).text, "the role to be reported")
    assert probe(refresher).status == 200
    assert proxy.intake("/v1/status").status == 503
    assert 'proxy_unsupplied_identities{proxy="' in probe(refresher, "/metrics").text

    source.down()
    proxy.wait_for_status("/api", 503)
    wait_until(lambda: "default: " in probe(refresher).text, "the failure to be reported")
    assert probe(refresher).status == 200

    proxy.envoy.restart()
    wait_until(lambda: probe(refresher).status == 503, "the new Envoy to be unready")
    time.sleep(1)
    assert probe(refresher).status == 503


# Pauses and restarts.


def test_a_pause_of_the_process_takes_nothing_away(start_proxy, configuration, api):
    """Two policies, and the pause outlasts both leases: the first signer to resume must not end the other's."""
    configuration.add_traffic_listener("second", {"routes": {"/role": api_route(api, roleArn=ROLE_ARN)}})
    proxy = start_proxy({"routes": {"/api": api_route(api)}}, configuration)
    wait_until(lambda: len(proxy.identities()) == 2, "both policies")
    [role] = set(proxy.identities()) - {"default"}
    proxy.push(STATIC_KEY)
    proxy.push(TEMPORARY_KEY, role)
    proxy.revoke(role)
    proxy.push(STATIC_KEY, role)
    before = proxy.identities()
    # Long enough for a lease's age to be trusted.
    time.sleep(32)
    proxy.envoy.process.send_signal(signal.SIGSTOP)
    time.sleep(33)
    proxy.envoy.process.send_signal(signal.SIGCONT)
    for _ in range(30):
        assert proxy.identities() == before
        assert proxy.request("/api").status == 200
        time.sleep(0.1)
    assert before[role]["revoked"] == [TEMPORARY_KEY.access_key]


class HotRestarts:
    """Envoys that take over from each other (`--restart-epoch`), all at one port."""

    def __init__(self, proxy, directory: Path):
        proxy.envoy.stop()
        self._directory = directory
        self._command = [each for each in proxy.envoy.process.command if each != "--disable-hot-restart"]
        self._command += ["--base-id", str(free_port()), "--drain-time-s", "3", "--parent-shutdown-time-s", "5"]
        self.port = free_port()
        document = yaml.safe_load((proxy.envoy.process.log_path.parent / "envoy.yaml").read_text())
        traffic = next(each for each in document["static_resources"]["listeners"] if each["name"] == "traffic")
        traffic["address"]["socket_address"]["port_value"] = self.port
        fixed = directory / "envoy.yaml"
        fixed.write_text(yaml.safe_dump(document))
        self._command[self._command.index("--config-path") + 1] = str(fixed)
        self._envoys = []

    def next(self) -> None:
        """Starts the next one, and waits until it is ready."""
        epoch = len(self._envoys)
        address = self._directory / f"admin-{epoch}"
        self._command[self._command.index("--admin-address-path") + 1] = str(address)
        command = [*self._command, "--restart-epoch", str(epoch)]
        envoy = Process(f"envoy {epoch}", command, self._directory / f"envoy-{epoch}.log")
        self._envoys.append(envoy)
        envoy.start()

        def is_ready() -> bool:
            return address.exists() and curl("http://admin/ready", unix_socket=address.read_text()).text == "LIVE\n"

        envoy.wait_ready(is_ready)

    def status(self) -> int:
        return curl(f"http://127.0.0.1:{self.port}/api").status

    def stop(self) -> None:
        for envoy in self._envoys:
            envoy.stop()


@pytest.fixture
def start_hot_restarts(start_proxy, configuration, tmp_path):
    with contextlib.ExitStack() as stack:

        def start(policy: dict):
            proxy = start_proxy(policy, configuration)
            restarts = HotRestarts(proxy, tmp_path)
            stack.callback(restarts.stop)
            restarts.next()
            return proxy, restarts

        yield start


def test_a_hot_restart_is_noticed_within_a_second(start_hot_restarts, api, start_refresher):
    """The old Envoy still answers, and drains, while the new one holds nothing yet."""
    proxy, envoys = start_hot_restarts({"routes": {"/api": api_route(api)}})
    start_refresher(proxy, "--interval", "1h")
    wait_until(lambda: envoys.status() == 200, "the first one to sign", 5)
    time.sleep(1)
    envoys.next()
    ready = time.monotonic()
    refused = [time.monotonic() for _ in range(100) if envoys.status() == 503 or time.sleep(0.05)]
    print(f"last 503 {max(refused, default=ready) - ready:.2f} s after the new one was ready, of {len(refused)}")
    assert max(refused, default=ready) - ready < 1
    assert envoys.status() == 200


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_restarted_envoy_is_supplied_within_a_second(start_proxy, api, start_refresher, how):
    proxy = start_proxy({"routes": {"/api": api_route(api)}})
    start_refresher(proxy, "--interval", "1h")
    proxy.wait_for_status("/api", 200)
    time.sleep(1)
    if how == "killed":
        proxy.envoy.process.stop(signal.SIGKILL)
    else:
        proxy.envoy.stop()
    proxy.envoy.start()
    began = time.monotonic()
    proxy.wait_for_status("/api", 200, timeout=5)
    took = time.monotonic() - began
    print(f"signs {took:.2f} s after its new start, at an interval of an hour")
    assert took < 1


def test_a_pod_that_is_replaced_is_noticed_within_a_second(start_proxy, configuration, api, start_refresher):
    """Another Envoy with another socket at the same path takes over when the old one ends."""
    proxy = start_proxy({"routes": {"/api": api_route(api)}}, configuration)
    old, path = proxy.envoy, proxy.socket
    successor = start_proxy({"routes": {"/api": api_route(api)}}, StockConfiguration())
    start_refresher(proxy, "--interval", "1h")
    proxy.wait_for_status("/api", 200)
    assert successor.request("/api").status == 503
    time.sleep(1)
    old.process.send_signal(signal.SIGKILL)
    successor.socket.rename(path)
    began = time.monotonic()
    successor.wait_for_status("/api", 200, timeout=5)
    took = time.monotonic() - began
    print(f"signs {took:.2f} s after the old one was killed, at an interval of an hour")
    assert took < 1


@pytest.fixture(scope="module")
def faketime() -> str:
    """Returns the library of Debian's package `faketime`, which shows a process another time."""
    if not (found := list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))):
        for command in (["apt-get", "update"], ["apt-get", "install", "--yes", "--no-install-recommends", "faketime"]):
            as_root = command if os.geteuid() == 0 else ["sudo", "--non-interactive", *command]
            with contextlib.suppress(FileNotFoundError):
                subprocess.run(as_root, capture_output=True, timeout=300, check=False)
        found = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime can't be installed here (Debian: apt-get install faketime)")
    return str(found[0])


class Clock:
    """The wall clock of one process. The monotonic one is not affected, as on a machine whose clock is set."""

    def __init__(self, library: str, directory: Path):
        self._file = directory / "clock"
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(f"{offset}\n")
        partial.rename(self._file)


def test_a_clock_that_jumps_stops_nobody_else_and_is_recovered_from(
    start_proxy, api, start_refresher, faketime, tmp_path
):
    """With the clock two hours ahead, new sessions look expired; two hours behind, valid for longer."""
    proxy = start_proxy({"routes": {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}})
    clock = Clock(faketime, tmp_path)
    with QuickSts() as sts:
        refresher = start_refresher(proxy, "--interval", "1h", AWS_ENDPOINT_URL_STS=sts.url, **clock.environment)
        # The upstream does not know the session's key.
        signed = {"/api": 200, "/role": 403}
        for path, status in signed.items():
            proxy.wait_for_status(path, status)

        clock.set("+2h")
        wait_until(lambda: "expired already" in refresher.log, "the jump to be seen")
        proxy.envoy.restart()
        began = time.monotonic()
        proxy.wait_for_status("/api", 200, timeout=5)
        assert time.monotonic() - began < 1
        assert proxy.request("/role").status == 503

        clock.set("+0")
        began = time.monotonic()
        proxy.wait_for_status("/role", 403, timeout=5)
        print(f"signs {time.monotonic() - began:.2f} s after the clock was set right")
        assert time.monotonic() - began < 1.5

        for offset in ["-2h", "+0"]:
            clock.set(offset)
            proxy.envoy.restart()
            began = time.monotonic()
            for path, status in signed.items():
                proxy.wait_for_status(path, status, timeout=5)
            assert time.monotonic() - began < 1.5, offset


def test_a_clock_that_is_set_back_stalls_no_renewal(start_proxy, api, start_refresher, faketime, tmp_path):
    """Two hours ahead when the credentials were obtained; by the wall clock alone, the next renewal is that far
    away."""
    proxy = start_proxy({"routes": {"/api": api_route(api)}})
    clock = Clock(faketime, tmp_path)
    clock.set("+2h")
    source = FadingSource(tmp_path)
    # Renewed after 2 or 3 seconds.
    refresher = start_refresher(proxy, "--interval", "1h", **source.environment, **clock.environment)
    wait_until(lambda: "got credentials" in refresher.log, "credentials")
    clock.set("+0")
    wait_until(lambda: "the clock was set" in refresher.log, "the jump to be seen", timeout=5)
    got = refresher.log.count("got credentials")
    wait_until(lambda: refresher.log.count("got credentials") > got, "a renewal", timeout=8)
    # By the right clock, those are valid for six seconds.
    proxy.wait_for_status("/api", 200)


WAITING = {"credentialsWaitMs": 2000}


def test_no_request_fails_after_envoy_was_killed(start_proxy, api, start_refresher):
    proxy = start_proxy({"routes": {"/api": api_route(api)}, **WAITING})
    start_refresher(proxy, "--interval", "1h")
    proxy.wait_for_status("/api", 200)
    time.sleep(1)
    proxy.envoy.process.stop(signal.SIGKILL)
    proxy.envoy.start()
    assert statuses_of(lambda: proxy.request("/api").status) == {200}


def test_no_request_fails_during_a_hot_restart(start_hot_restarts, api, start_refresher):
    """From before the new Envoy starts until the old one has ended."""
    proxy, envoys = start_hot_restarts({"routes": {"/api": api_route(api)}, **WAITING})
    start_refresher(proxy, "--interval", "1h")
    wait_until(lambda: envoys.status() == 200, "the first one to sign", 5)
    time.sleep(1)
    end = threading.Event()

    def send_on() -> set[int]:
        statuses = set()
        while not end.is_set():
            statuses.add(envoys.status())
        return statuses

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send_on) for _ in range(4)]
        try:
            envoys.next()
            time.sleep(6)
        finally:
            end.set()
        assert set.union(*(sender.result() for sender in senders)) == {200}


def test_no_request_fails_after_a_pod_was_replaced(start_proxy, configuration, api, start_refresher):
    policy = {"routes": {"/api": api_route(api)}, **WAITING}
    proxy = start_proxy(policy, configuration)
    successor = start_proxy(policy, StockConfiguration())
    start_refresher(proxy, "--interval", "1h")
    proxy.wait_for_status("/api", 200)
    time.sleep(1)
    proxy.envoy.process.send_signal(signal.SIGKILL)
    successor.socket.rename(proxy.socket)
    assert statuses_of(lambda: successor.request("/api").status) == {200}


def test_no_request_fails_after_a_listener_moved(dynamic, api, start_refresher):
    proxy, listeners = dynamic
    with QuickSts() as sts:
        start_refresher(proxy, "--interval", "1h", AWS_ENDPOINT_URL_STS=sts.url)
        proxy.wait_for_status("/api", 200)
        time.sleep(1)
        policy = {"routes": {"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}, **WAITING}
        listeners.write([moved_listener(listeners, policy)])
        wait_until(lambda: "moved" in proxy.envoy.admin("/listeners"), "the new listener")
        url = f"http://127.0.0.1:{proxy.envoy.port('moved')}"
        # The upstream does not know the session's key.
        assert statuses_of(lambda: curl(f"{url}/role").status) == {403}
        assert statuses_of(lambda: curl(f"{url}/api").status) == {200}


# Over a port, both sides show certificates.


@pytest.fixture
def tls_proxy(start_proxy, configuration, api, authority):
    """Returns a proxy whose intake is a port that requires certificates of the CA."""
    configuration.listener("intake")["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    configuration.serve_tls("intake", *authority.issue("localhost", "127.0.0.1"), authority.certificate)
    return start_proxy({"routes": {"/api": api_route(api)}}, configuration)


class TlsRefresher(Refresher):
    """A refresher that authenticates its proxy by certificates; `files` are those of CA, client and key."""

    def __init__(self, directory, port: int, files):
        options = ["--proxy-ca", "--client-cert", "--client-key"]
        arguments = [str(part) for pair in zip(options, files, strict=True) for part in pair]
        super().__init__(directory, None, StaticSource(STATIC_KEY), *arguments)
        self.command[1:3] = ["--proxy", f"https://127.0.0.1:{port}"]


def test_a_port_is_supplied_with_certificates_that_are_read_again(tls_proxy, api, authority, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other")
    files = [tmp_path / "ca.pem", tmp_path / "tls.crt", tmp_path / "tls.key"]

    def rotate(trusted: Authority, client: Authority) -> None:
        certificate, key = client.issue("refresher")
        for target, source in zip(files, [trusted.certificate, certificate, key], strict=True):
            target.write_bytes(source.read_bytes())

    rotate(authority, stranger)
    with TlsRefresher(tmp_path, tls_proxy.envoy.port("intake"), files) as refresher:
        wait_until(lambda: "can't ask the proxy" in refresher.log, "the proxy to refuse the certificate")
        assert tls_proxy.request("/api").status == 503
        rotate(stranger, authority)
        wait_until(
            lambda: "TLS with the proxy failed" in refresher.log, "the refresher to refuse the proxy's certificate"
        )
        assert tls_proxy.request("/api").status == 503
        rotate(authority, authority)
        tls_proxy.wait_for_status("/api", 200)
        assert "PRIVATE KEY" not in refresher.log


def test_who_has_bound_the_port_of_a_proxy_that_is_down_is_told_nothing(authority, tmp_path):
    (tmp_path / "other").mkdir()
    impostor = Authority(tmp_path / "other").server_context("127.0.0.1")
    certificate, key = authority.issue("refresher")
    with Capture(free_port(), impostor) as capture:
        with TlsRefresher(tmp_path, capture.port, [authority.certificate, certificate, key]) as refresher:
            wait_until(lambda: "TLS with the proxy failed" in refresher.log, "the impostor to be noticed")
        assert not capture.sent
    assert "invalid peer certificate" in refresher.log


def test_plain_http_is_refused_with_the_cure(tmp_path):
    refresher = Refresher(tmp_path, None, StaticSource(STATIC_KEY))
    refresher.command[1:3] = ["--proxy", "http://127.0.0.1:9902"]
    with refresher:
        assert refresher.wait(10) == 2
    assert "use https:// with --proxy-ca, --client-cert" in refresher.log


# Signals.


def test_sighup_looks_again_and_sigterm_ends_it(proxy, api, start_refresher, tmp_path):
    profile = tmp_path / "credentials"

    def write(key: Credentials) -> None:
        profile.write_text(
            f"[default]\naws_access_key_id = {key.access_key}\naws_secret_access_key = {key.secret_key}\n"
        )

    write(Credentials(STATIC_KEY.access_key, "outdated"))
    empty = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    refresher = start_refresher(proxy, "--interval", "1h", AWS_SHARED_CREDENTIALS_FILE=str(profile), **empty)
    proxy.wait_for_status("/api", 403)
    write(STATIC_KEY)
    time.sleep(1.2)
    refresher.send_signal(signal.SIGHUP)
    proxy.wait_for_status("/api", 200, timeout=5)
    assert refresher.running
    began = time.monotonic()
    refresher.stop(signal.SIGTERM)
    assert (refresher.exit_code, time.monotonic() - began < 1) == (0, True)
