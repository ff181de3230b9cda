"""credential-refresher and the proxy together: from a base credential to requests that AWS's stand-ins accept."""

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.credentials import Credentials

from integration.harness.policies import s3_route
from integration.harness.sts import QuickSts
from integration.stack.aws_servers import REGION
from integration.stack.capture import Capture
from integration.stack.process import wait_until
from integration.stack.refresher import Refresher

BUCKET = "refresher"
SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture
def proxy(start_proxy, ministack):
    """Returns a proxy with a route that signs as the base identity, and one as the role."""
    ministack.client("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    ) if BUCKET not in bucket_names(ministack) else None
    route = s3_route(ministack)
    return start_proxy({"routes": {"/base": route, "/role": {**route, "roleArn": ministack.role_arn}}})


def bucket_names(ministack) -> set[str]:
    return {bucket["Name"] for bucket in ministack.client("s3").list_buckets()["Buckets"]}


def test_a_role_is_assumed_and_its_requests_are_accepted(proxy, ministack, tmp_path):
    with Refresher(tmp_path, proxy, ministack, "--interval", "1s"):
        proxy.wait_for_status("/base/", 200)
        proxy.wait_for_status("/role/", 200)
        held = {entry.get("roleArn"): entry["held"]["accessKeyId"] for entry in proxy.identities().values()}

    assert held[None] == ministack.user.access_key
    assert held[ministack.role_arn] not in (None, ministack.user.access_key)


def test_a_session_behind_a_chain_is_what_the_policy_says(start_proxy, ministack, tmp_path):
    """STS checks the trust policies, and S3 the tags: each link, id and tag is needed."""
    iam = ministack.client("iam")
    account = ministack.role_arn.split(":")[4]
    user_arn = f"arn:aws:iam::{account}:user/workload"
    hub_arn = create_role(iam, "hub", user_arn, {}, {"Action": "sts:AssumeRole"})
    conditions = {"StringEquals": {"sts:ExternalId": "x-1", "aws:RequestTag/team": "orders"}}
    tagged = {"StringEquals": {"aws:PrincipalTag/team": "orders"}}
    spoke_arn = create_role(iam, "spoke", hub_arn, conditions, {"Action": "s3:*", "Condition": tagged})
    session = {"roleArn": spoke_arn, "roleChain": [hub_arn], "externalId": "x-1", "roleTags": {"team": "orders"}}
    lacking = {
        "/direct": {**session, "roleChain": [ministack.role_arn]},
        "/id": {**session, "externalId": "x-2"},
        "/tag": {**session, "roleTags": {"team": "sales"}},
    }
    routes = {"/whole": {**session, "roleDurationSeconds": 1800}, **lacking}
    target = s3_route(ministack)
    proxy = start_proxy({"routes": {prefix: {**target, **route} for prefix, route in routes.items()}})
    with Refresher(tmp_path, proxy, ministack, "--interval", "1s") as refresher:
        proxy.wait_for_status("/whole/", 200)

        def refused() -> set[str]:
            lines = [line for line in refresher.log.splitlines() if "can't get credentials" in line]
            assert all("AccessDenied" in line for line in lines)
            return {line.split(" identity=")[1].split()[0] for line in lines}

        wait_until(lambda: len(refused()) == len(lacking), "the other identities to be refused")

    [whole] = [entry for entry in proxy.identities().values() if entry["held"]]
    assert (whole["roleArn"], whole["roleChain"], whole["roleTags"]) == (spoke_arn, [hub_arn], {"team": "orders"})
    left = datetime.fromisoformat(whole["held"]["expiration"]) - datetime.now(UTC)
    assert timedelta(minutes=29) < left <= timedelta(minutes=30)
    assert [proxy.request(f"{prefix}/").status for prefix in lacking] == [503] * 3


def test_a_route_does_only_what_its_session_policies_allow_whatever_its_role_may(start_proxy, ministack, tmp_path):
    """The role may do anything; S3 enforces what STS was sent."""
    s3 = ministack.client("s3")
    s3.create_bucket(Bucket="limited", CreateBucketConfiguration={"LocationConstraint": REGION})
    for key in ["reports/a", "salaries/a"]:
        s3.put_object(Bucket="limited", Key=key, Body=b"content")
    read_reports = statement("s3:GetObject", "arn:aws:s3:::limited/reports/*")
    managed = ministack.client("iam").create_policy(PolicyName="reader", PolicyDocument=json.dumps(read_reports))
    session = {
        "free": {},
        "inline": {"sessionPolicy": read_reports},
        "text": {"sessionPolicy": json.dumps(read_reports, indent=1)},
        "managed": {"policyArns": [managed["Policy"]["Arn"]]},
        "both": {
            "policyArns": [managed["Policy"]["Arn"]],
            "sessionPolicy": statement("s3:PutObject", "arn:aws:s3:::limited/reports/*"),
        },
        "chain": {
            "roleChain": [create_hub(ministack)],
            "sessionPolicy": read_reports,
            "sourceIdentity": "me@example.com",
        },
    }
    route = s3_route(ministack, "/limited", roleArn=ministack.role_arn)
    proxy = start_proxy({"routes": {f"/{name}": {**route, **limits} for name, limits in session.items()}})
    with Capture(ministack.port) as sts, Refresher(tmp_path, proxy, ministack, AWS_ENDPOINT_URL_STS=sts.url):
        for name in session:
            proxy.wait_for_status(f"/{name}/reports/a", 200)

    def statuses(name: str) -> list[int]:
        written = proxy.request(f"/{name}/reports/b", "PUT", body=b"new").status
        return [proxy.request(f"/{name}/salaries/a").status, written]

    assert {name: statuses(name) for name in session} == {
        "free": [200, 200],
        "inline": [403, 403],
        "text": [403, 403],
        "managed": [403, 403],
        "both": [403, 200],
        "chain": [403, 403],
    }
    # The same policy is the same session.
    inline = [entry for entry in proxy.identities().values() if "sessionPolicy" in entry]
    assert len(inline) == len(["inline", "both", "chain"])
    # STS keeps no record of it.
    assert sts.sent.count(b"SourceIdentity=me%40example.com") == 2


def create_hub(ministack) -> str:
    """Creates a role that the user may assume, and lets it assume the user's role."""
    iam, account = ministack.client("iam"), ministack.role_arn.split(":")[4]
    hub = create_role(iam, "source-hub", f"arn:aws:iam::{account}:user/workload", {}, {"Action": "sts:AssumeRole"})
    trusted = {"AWS": [hub, f"arn:aws:iam::{account}:user/workload"]}
    trust = {"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.update_assume_role_policy(RoleName=ministack.role_arn.rsplit("/")[-1], PolicyDocument=document)
    return hub


def statement(action: str, resource: str) -> dict:
    """Returns an IAM policy that allows one action."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}],
    }


def create_role(iam, name: str, trusted: str, conditions: dict, allowed: dict) -> str:
    """Creates a role that `trusted` may assume and tag under `conditions`, with the permissions `allowed`."""
    trust = {"Effect": "Allow", "Principal": {"AWS": trusted}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    document = {"Version": "2012-10-17", "Statement": [{**trust, "Condition": conditions}]}
    permissions = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **allowed}]}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))["Role"]
    iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=json.dumps(permissions))
    return role["Arn"]


def test_signing_resumes_after_envoy_restarts(proxy, ministack, tmp_path):
    with Refresher(tmp_path, proxy, ministack, "--interval", "1s") as refresher:
        proxy.wait_for_status("/role/", 200)
        proxy.envoy.restart()
        proxy.wait_for_status("/role/", 200)
        proxy.wait_for_status("/base/", 200)
        assert refresher.running


def test_a_refresher_that_starts_before_envoy_keeps_trying(proxy, ministack, tmp_path):
    proxy.envoy.stop()
    with Refresher(tmp_path, proxy, ministack, "--interval", "1s"):
        proxy.envoy.start()
        proxy.wait_for_status("/role/", 200)


def test_once_pushes_everything_and_ends(proxy, ministack, tmp_path):
    refresher = Refresher(tmp_path, proxy, ministack, "--once")
    with refresher:
        assert refresher.wait(30) == 0, refresher.log

    assert proxy.intake("/v1/status").status == 200
    proxy.wait_for_status("/role/", 200)


def test_once_fails_and_names_the_role_that_can_not_be_assumed(start_proxy, ministack, tmp_path):
    forbidden = "arn:aws:iam::000000000000:role/not-there"
    route = s3_route(ministack)
    proxy = start_proxy({"routes": {"/base": route, "/role": {**route, "roleArn": forbidden}}})
    refresher = Refresher(tmp_path, proxy, ministack, "--once", "--timeout", "5s")
    with refresher:
        assert refresher.wait(60) != 0

    assert forbidden in refresher.log
    proxy.wait_for_status("/base/", 200)
    assert proxy.request("/role/").status == 503


def test_a_role_that_is_not_allowed_is_not_assumed(proxy, ministack, tmp_path):
    allow = ["--allow-role", "arn:aws:iam::*:role/other-*"]
    with Refresher(tmp_path, proxy, ministack, "--once", *allow) as refresher:
        assert refresher.wait(60) != 0

    assert "the base identity needs --allow-default" in refresher.log
    assert [proxy.request("/base/").status, proxy.request("/role/").status] == [503, 503]
    with Refresher(tmp_path, proxy, ministack, "--once", *allow, "--allow-default") as refresher:
        assert refresher.wait(60) != 0

    assert ministack.role_arn in refresher.log
    proxy.wait_for_status("/base/", 200)
    assert proxy.request("/role/").status == 503


def test_a_wrong_base_credential_is_reported_without_its_secret(proxy, ministack, tmp_path):
    liar = Credentials(ministack.user.access_key, "not-the-secret-but-secret")
    refresher = Refresher(tmp_path, proxy, ministack, "--once", "--timeout", "5s", credentials=liar)
    with refresher:
        assert refresher.wait(60) != 0

    assert ministack.role_arn in refresher.log
    assert liar.secret_key not in refresher.log
    # The claimed expiry is pushed; only AWS knows whether it is true.
    proxy.wait_for_status("/base/", 403)


def test_an_sts_that_is_not_trusted_is_told_with_its_cure(proxy, ministack, authority, tmp_path):
    with (
        QuickSts(tls=authority.server_context("localhost")) as sts,
        Refresher(tmp_path, proxy, ministack, "--interval", "1s", AWS_ENDPOINT_URL_STS=sts.url) as refresher,
    ):
        cure = "add its authority to the system's certificates, or name it with SSL_CERT_FILE"
        wait_until(lambda: cure in refresher.log, "the cure")
        proxy.wait_for_status("/base/", 200)


def test_ends_on_sigterm(proxy, ministack, tmp_path):
    with Refresher(tmp_path, proxy, ministack, "--interval", "1s") as refresher:
        proxy.wait_for_status("/role/", 200)
        refresher.stop(signal.SIGTERM)

    assert refresher.exit_code == 0


def test_it_is_small_and_idle(start_proxy, ministack, authority, tmp_path):
    """The figures of docs/operations.md: twenty roles over TLS, the default interval, the release build."""
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(SYSTEM_AUTHORITIES.read_bytes() + authority.certificate.read_bytes())
    target = s3_route(ministack, roleArn=ministack.role_arn)
    proxy = start_proxy({"routes": {f"/{n}": {**target, "roleSessionName": f"session-{n}"} for n in range(20)}})
    with (
        Capture(ministack.port, authority.server_context("localhost")) as sts,
        Refresher(tmp_path, proxy, ministack, AWS_ENDPOINT_URL_STS=sts.url, SSL_CERT_FILE=str(trusted)) as refresher,
    ):
        wait_until(lambda: proxy.intake("/v1/status").status == 200, "all credentials")
        began, before = time.monotonic(), processor_seconds(refresher.pid)
        time.sleep(6)
        share = (processor_seconds(refresher.pid) - before) / (time.monotonic() - began)
        resident = resident_mib(refresher.pid)

    print(f"resident memory {resident:.1f} MiB, {100 * share:.2f} % of a processor")
    assert resident < 20
    assert share < 0.01


def processor_seconds(pid: int) -> float:
    """Returns a process's processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Returns the peak of a process's resident memory."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def test_nothing_of_a_secret_is_logged(proxy, ministack, tmp_path):
    with Refresher(tmp_path, proxy, ministack, "--interval", "1s") as refresher:
        proxy.wait_for_status("/role/", 200)

    assert ministack.user.secret_key not in refresher.log
    assert ministack.user.secret_key not in proxy.envoy.log
