"""`make` on a system that lacks tools, and its output for a step."""

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wasmtime import Engine, Module

from integration.stack.process import REPOSITORY
from integration.stack.proxy import WASM

# The programs of a minimal Debian that the scripts use before the first installation.
PROGRAMS = (
    "awk bash cat cmp cp cut df dirname env grep head id install make mkdir mktemp mv nproc rm sed seq sh sleep sort"
    " tail tee timeout tr uname"
)
NOBODY = 65534


class System:
    """A copy of the project in a path with a blank, and a minimal PATH."""

    def __init__(self, root: Path) -> None:
        self.project = root / "the project"
        self.programs = root / "programs"
        self.programs.mkdir(parents=True)
        for name in PROGRAMS.split():
            (self.programs / name).symlink_to(shutil.which(name))
        shutil.copytree(REPOSITORY / "build", self.project / "build")
        for name in ("Cargo.toml", "Makefile"):
            shutil.copy(REPOSITORY / name, self.project)

    def add(self, name: str, script: str) -> None:
        program = self.programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def run(self, *command: str, user: int | None = None, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd="/", env={"PATH": str(self.programs), **environment}, user=user, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
        )  # fmt: skip

    def make(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        return self.run("make", "-C", str(self.project), *arguments, **options)

    def step(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return self.run(str(self.project / "build" / "step.sh"), *arguments, **environment)

    def files(self) -> set[Path]:
        return set(self.project.rglob("*"))


@pytest.fixture
def system() -> Iterator[System]:
    # Not pytest's directory, in which other users can't run anything.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        yield System(Path(directory))


@pytest.mark.parametrize("target", ["build", "demo", "test", "check", "fuzz", "bench", "lint"])
def test_a_system_without_apt_get_is_refused_with_a_list_of_all_that_is_missing(system, target):
    files = system.files()
    begin = time.monotonic()
    done = system.make(target)
    assert time.monotonic() - begin < 5
    assert done.returncode != 0
    for part in ("no apt-get", "Rust 1.95 or newer", "wasm32-unknown-unknown", "https://rustup.rs", "C compiler",
                 "wasm-opt", "curl", "Python 3.11", "venv"):  # fmt: skip
        assert part in done.stdout
    assert " … " not in done.stdout, "a step has begun"
    assert system.files() == files


@pytest.mark.parametrize("version", ["1.63.0", "1.94.1", "1.9.0"])
def test_an_old_rust_is_none(system, version):
    for name in ("rustc", "cargo"):
        system.add(name, f"echo {name} {version}")
    done = system.make("build")
    assert done.returncode != 0
    assert f"({version} is in PATH)" in done.stdout


@pytest.mark.parametrize("version", ["1.95.0", "1.100.0", "2.0.0"])
def test_a_new_rust_may_lack_the_target_only(system, version):
    for name in ("rustc", "cargo"):
        system.add(name, f'[ "$1" = --version ] && echo {name} {version}')
    done = system.make("build")
    assert done.returncode != 0
    assert f"({version} in PATH lacks it: rustup target add wasm32-unknown-unknown)" in done.stdout


def test_a_rust_that_has_the_target_is_not_missing(system):
    libraries = system.programs.parent / "libraries"
    libraries.mkdir()
    (libraries / "libstd-0123.rlib").touch()
    system.add("cargo", "echo cargo 1.95.0")
    system.add("rustc", f"case $1 in --version) echo rustc 1.95.0 ;; *) echo '{libraries}' ;; esac")
    done = system.make("build")
    assert "no apt-get" in done.stdout
    assert "Rust 1.95" not in done.stdout


def test_a_sudo_that_wants_a_password_does_not_hold_make_up(system):
    system.add("apt-get", "echo apt-get was called; exit 1")
    system.add("sudo", '[ "$1" = -n ] && exit 1; exec sleep 50')
    begin = time.monotonic()
    done = system.make("build", user=NOBODY if os.geteuid() == 0 else None)
    assert time.monotonic() - begin < 5
    assert done.returncode != 0
    assert "As root, run:\n    apt-get update && " in done.stdout
    for package in ("gcc", "binaryen", "curl", "python3-venv"):
        assert f" {package}" in done.stdout
    assert "apt-get was called" not in done.stdout


def test_what_an_installation_did_not_bring_is_named(system):
    system.add("apt-get", "exit 0")
    system.add("sudo", 'shift; [ "$1" = true ] || "$@"')
    (system.project / "build" / "rust-toolchain.sh").write_text("#!/bin/sh\necho path\n")
    done = system.make("build")
    assert done.returncode != 0
    assert "still missing:" in done.stdout
    assert "wasm-opt" in done.stdout.partition("still missing:")[2]


def test_a_step_is_one_line_with_its_time(system):
    done = system.step("compile it", "sh", "-c", "echo Compiling; echo a warning >&2")
    assert done.returncode == 0
    assert done.stdout.startswith("compile it … ")
    assert done.stdout.endswith(" s\n")
    assert done.stdout.count("\n") == 1
    assert (system.project / "target/logs/compile-it.log").read_text() == "Compiling\na warning\n"


def test_a_failed_step_shows_the_end_of_its_log_and_names_it(system):
    done = system.step(
        "compile it", "sh", "-c", "seq 1000 2>/dev/null || for i in 1 2 3; do echo line $i; done; exit 3"
    )
    assert done.returncode == 3
    assert "compile it … FAILED after" in done.stdout
    assert "\n1000\n" in done.stdout
    assert "\n100\n" not in done.stdout
    assert "target/logs/compile-it.log" in done.stdout


def test_all_output_is_shown_on_request(system):
    done = system.step("compile it", "echo", "Compiling", V="1")
    assert "\nCompiling\n" in done.stdout
    assert (system.project / "target/logs/compile-it.log").read_text() == "Compiling\n"
    assert system.step("fail", "sh", "-c", "exit 7", V="1").returncode == 7


CARGO = "test result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s"
PYTEST = "======== {} passed, 2 skipped in 61.01s (0:01:01) ========"


@pytest.mark.parametrize("closing", [CARGO, PYTEST], ids=["cargo test", "pytest"])
def test_tests_are_shown_and_counted(system, closing):
    done = system.step("--tests", "the tests", "printf", r"%s\n", "....", closing.format(3), closing.format(4))
    assert done.returncode == 0, done.stdout
    assert closing.format(3) in done.stdout
    assert "== the tests: 7 passed, " in done.stdout


@pytest.mark.parametrize(
    "output", [CARGO.format(0), "======== 2 skipped in 0.01s ========", "", "3 passed", "test a_passed ... ok"]
)
def test_a_run_without_a_test_fails(system, output):
    done = system.step("--tests", "the tests", "printf", r"%s\n", output)
    assert done.returncode == 1
    assert "no test passed" in done.stdout


def test_the_filter_imports_the_proxy_wasm_abi_alone():
    """No WASI: a host that loads proxy-wasm need not have it."""
    imports = Module.from_file(Engine(), str(WASM)).imports

    assert imports
    assert {each.module for each in imports} == {"env"}
    assert all(each.name.startswith("proxy_") for each in imports)
