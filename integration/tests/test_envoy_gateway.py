"""envoy/gateway: the manifests sign in a real Envoy, configured as Envoy Gateway would.

No package has the custom resource definitions of Envoy Gateway and of the Gateway API, so only the manifests'
Kubernetes kinds are checked against schemas.
"""

import pytest

from integration.harness import raw
from integration.harness.envoy_gateway import EnvoyGateway
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.manifests import MANIFESTS, build, check
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.process import Process, environment_without_aws, wait_until
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
