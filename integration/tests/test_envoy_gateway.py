"""envoy/gateway: the manifests sign in a real Envoy, configured as Envoy Gateway would.

No package has the custom resource definitions of Envoy Gateway and of the Gateway API, so only the manifests'
Kubernetes kinds are checked against schemas.
"""

import json
import re

import pytest
from botocore.credentials import Credentials

from integration.harness import raw
from integration.harness.authentication import token
from integration.harness.envoy_gateway import EnvoyGateway
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.manifests import MANIFESTS, build, check
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.process import REPOSITORY, Process, environment_without_aws, wait_until
from integration.stack.refresher import BINARY

S3 = f"s3.{REGION}.amazonaws.com"


@pytest.fixture(scope="module")
def _s3_over_tls(keys, authority):
    with Upstream(Verifier(keys, REGION, "s3"), authority.server_context(S3)) as upstream:
        yield upstream


@pytest.fixture
def s3_over_tls(_s3_over_tls):
    _s3_over_tls.reset()
    return _s3_over_tls


@pytest.fixture
def gateway(tmp_path, authority, s3_over_tls):
    manifests = build(MANIFESTS / "gateway")
    with EnvoyGateway(manifests, tmp_path, {S3: s3_over_tls.port}, authority) as gateway:
        yield gateway


def test_what_is_added_to_the_proxys_pod_fits_the_schema():
    manifests = build(MANIFESTS / "gateway")
    check(next(each for each in manifests if each["kind"] == "Namespace"))
    proxy = next(each for each in manifests if each["kind"] == "EnvoyProxy")
    patch = proxy["spec"]["provider"]["kubernetes"]["envoyDeployment"]["patch"]["value"]
    spec = patch["spec"]["template"]["spec"]
    envoy = next(each for each in spec["containers"] if each["name"] == "envoy")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "aws-egress"},
        "spec": {
            "selector": {"matchLabels": {"app": "envoy"}},
            "template": {
                "metadata": {"labels": {"app": "envoy"}},
                "spec": {**spec, "containers": [{"image": "envoy", **envoy}]},
            },
        },
    }

    check(deployment)


def test_the_gateway_signs_and_originates_tls(gateway, s3_over_tls):
    gateway.push(TEMPORARY_KEY)

    for path, body in [("/bucket/a%2Fb//c", None), ("/bucket/key", b"object")]:
        response = gateway.request(S3, path, "PUT" if body else "GET", body=body)
        assert response.status == 200, response.text
        assert s3_over_tls.last.request.header("host") == S3
        assert s3_over_tls.last.verdict.access_key_id == TEMPORARY_KEY.access_key
    assert s3_over_tls.received[0].request.path == "/bucket/a/b//c"


def test_a_connection_to_the_gateway_has_few_streams(gateway):
    assert raw.http2_most_streams(gateway.envoy.port("traffic")) == 100


def test_the_refresher_feeds_the_gateway_over_the_pods_volume(gateway, s3_over_tls, tmp_path):
    refresher = next(each for each in gateway.pod()["initContainers"] if each["name"] == "credential-refresher")
    arguments = [str(gateway.local(argument)).replace(":9903", ":0") for argument in refresher["args"]]
    environment = environment_without_aws(
        AWS_ACCESS_KEY_ID=STATIC_KEY.access_key, AWS_SECRET_ACCESS_KEY=STATIC_KEY.secret_key, AWS_REGION=REGION
    )

    with Process("credential-refresher", [BINARY, *arguments], tmp_path / "refresher.log", environment):
        wait_until(lambda: gateway.request(S3, "/bucket/key").status == 200, "the refresher to feed the gateway")

    assert s3_over_tls.last.verdict.access_key_id == STATIC_KEY.access_key


# The overlay: a claim of the client's token decides about the role.

TEAM_KEYS = {team: Credentials(f"ASIA{team.upper()}", f"secret-of-{team}", "token") for team in ("orders", "billing")}


@pytest.fixture(scope="module")
def s3_of_teams(authority):
    keys = {key.access_key: key for key in TEAM_KEYS.values()}
    with Upstream(Verifier(keys, REGION, "s3"), authority.server_context(S3)) as upstream:
        yield upstream


@pytest.fixture
def team_gateway(tmp_path, authority, s3_of_teams):
    s3_of_teams.reset()
    manifests = build(MANIFESTS / "gateway-overlay")
    with EnvoyGateway(manifests, tmp_path, {S3: s3_of_teams.port}, authority) as gateway:
        wait_until(lambda: len(gateway.identities()) == 2, "the identities of both teams")
        for id, identity in gateway.identities().items():
            gateway.push(TEAM_KEYS[identity["roleArn"].rpartition("/mesh-")[2]], id)
        yield gateway


def bearer(**claims) -> dict:
    return {"authorization": f"Bearer {token(aud='aws-egress', **claims)}"}


def test_the_claim_of_a_token_chooses_the_role(team_gateway, s3_of_teams):
    for team in TEAM_KEYS:
        for value in (team, ["first", team]):
            for body in (None, b"object"):
                headers = bearer(team=value)
                response = team_gateway.request(S3, "/bucket/key", "PUT" if body else "GET", headers=headers, body=body)
                assert response.status == 200, response.text
                assert s3_of_teams.last.verdict.access_key_id == TEAM_KEYS[team].access_key


@pytest.mark.parametrize("claims", [{}, {"team": "shop"}, {"team": ["orders", "billing"]}], ids=str)
def test_a_token_of_no_team_or_of_both_is_refused(team_gateway, s3_of_teams, claims):
    response = team_gateway.request(S3, "/bucket/key", headers=bearer(**claims))

    assert (response.status, response.json["error"]["code"]) == (403, "CallerNotAllowed")
    assert not s3_of_teams.received


@pytest.mark.parametrize("claims", [None, {"iss": "https://other.example"}], ids=["none", "another issuer's"])
def test_without_a_token_of_the_issuer_nothing_is_signed(team_gateway, s3_of_teams, claims):
    headers = bearer(team="orders", **claims) if claims else {}

    assert team_gateway.request(S3, "/bucket/key", headers=headers).status == 401
    assert not s3_of_teams.received


def test_the_page_shows_the_callers_of_the_overlay():
    page = (REPOSITORY / "docs" / "envoy-gateway.md").read_text()
    shown = json.loads(re.search(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[1])["routes"]
    [extension] = [each for each in build(MANIFESTS / "gateway-overlay") if each["kind"] == "EnvoyExtensionPolicy"]
    routes = extension["spec"]["wasm"][0]["config"]["routes"]

    for route in routes:
        del route["roleSessionName"]
    assert routes == shown
