"""A policy with very many roles: the memory, descriptors and STS calls of the refresher's release build."""

import time
from pathlib import Path

import pytest
from botocore.credentials import Credentials

from integration.harness.sts import QuickSts
from integration.stack.client import curl
from integration.stack.process import Process, environment_without_aws, free_port, wait_until
from integration.stack.refresher import BINARY

BASE = Credentials("AKIDBASE", "secret")


class ManyRoles(Process):
    """The refresher with few descriptors, and the peaks of its memory and descriptors."""

    def __init__(self, directory: Path, proxy, sts_url: str):
        self.port = free_port()
        environment = environment_without_aws(
            AWS_ACCESS_KEY_ID=BASE.access_key,
            AWS_SECRET_ACCESS_KEY=BASE.secret_key,
            AWS_REGION="eu-west-1",
            AWS_ENDPOINT_URL_STS=sts_url,
        )
        command = ["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', BINARY, "--proxy", f"unix:{proxy.socket}"]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        super().__init__("credential-refresher", command, directory / "credential-refresher.log", environment)
        self.most_descriptors = 0

    @property
    def resident_mib(self) -> float:
        """Returns the peak of its resident memory."""
        [line] = [
            line for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if line.startswith("VmHWM")
        ]
        return int(line.split()[1]) / 1024

    def look(self) -> None:
        descriptors = len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        self.most_descriptors = max(self.most_descriptors, descriptors)

    def metric(self, name: str) -> float:
        lines = curl(f"http://127.0.0.1:{self.port}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"credential_refresher_{name}{{"))


def policy_with(roles: int) -> dict:
    target = {"target": "https://s3.eu-west-1.amazonaws.com"}
    arn = "arn:aws:iam::123456789012:role/a-team/orders-reader-"
    return {"routes": {f"/{n}": {**target, "roleArn": f"{arn}{n}"} for n in range(roles)}}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("roles", "mib"), [(1000, 32), (10_000, 128)])
def test_many_roles_are_supplied_in_little_memory_with_few_descriptors(start_proxy, tmp_path, roles, mib):
    proxy = start_proxy(policy_with(roles))
    with QuickSts() as sts, ManyRoles(tmp_path, proxy, sts.url) as refresher:
        began, slowest = time.monotonic(), 0.0

        def supplied() -> bool:
            refresher.look()
            asked = time.monotonic()
            assert curl(f"http://127.0.0.1:{refresher.port}/healthz").status == 200
            nonlocal slowest
            slowest = max(slowest, time.monotonic() - asked)
            return refresher.metric("pushes_total") >= roles

        time.sleep(0.5)
        wait_until(supplied, f"{roles} pushes", timeout=roles / 20 + 30, every=0.2)
        took = time.monotonic() - began
        print(f"{roles} roles: supplied in {took:.0f} s, {refresher.resident_mib:.1f} MiB at most, "
              f"{refresher.most_descriptors} descriptors, {sts.most_in_flight} calls in flight, "
              f"slowest probe {slowest:.2f} s")  # fmt: skip
        assert sts.most_in_flight <= 16
        assert refresher.most_descriptors < 64
        assert refresher.resident_mib < mib
        assert slowest < 1
        assert sum(identity["held"] is not None for identity in proxy.identities().values()) == roles


@pytest.mark.parametrize("roles", [10_000])
def test_many_roles_without_an_sts_take_little_memory_and_few_descriptors(start_proxy, tmp_path, roles):
    proxy = start_proxy(policy_with(roles))
    with ManyRoles(tmp_path, proxy, f"http://127.0.0.1:{free_port()}") as refresher:
        wait_until(lambda: "can't get credentials" in refresher.log, "a failure")
        for _ in range(30):
            refresher.look()
            assert curl(f"http://127.0.0.1:{refresher.port}/healthz").status == 200
            time.sleep(0.5)
        print(
            f"{roles} roles without an STS: {refresher.resident_mib:.1f} MiB, {refresher.most_descriptors} descriptors"
        )
        assert refresher.resident_mib < 128
        assert refresher.most_descriptors < 64
