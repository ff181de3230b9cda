"""envoy/istio: what the manifests say is what Istio's schemas take, and it signs in a real Envoy."""

import copy

import pytest

from conftest import REGION, STATIC_KEY, TEMPORARY_KEY
from harness.manifests import ISTIO, Invalid, build, check
from harness.mesh import Mesh
from harness.process import Process, environment_without_aws, wait_until
from harness.refresher import BINARY
from harness.upstream import Upstream
from harness.verifier import Verifier

S3 = f"s3.{REGION}.amazonaws.com"
SQS = f"sqs.{REGION}.amazonaws.com"
KUSTOMIZATIONS = ["base", "wasm-plugin", "egress", "overlays/workload", "overlays/egress"]


@pytest.fixture(scope="module")
def aws(keys, authority):
    """S3 and SQS, each with the certificate of its host."""
    s3 = Upstream(Verifier(keys, REGION, "s3"), authority.server_context(S3))
    sqs = Upstream(Verifier(keys, REGION, "sqs"), authority.server_context(SQS))
    with s3, sqs:
        yield {S3: s3, SQS: sqs}


@pytest.fixture
def start(tmp_path, authority, aws):
    """Starts the proxy of a kustomization."""
    started = []

    def start(kustomization: str, change=lambda manifests: None, **options) -> Mesh:
        ports = {host: upstream.port for host, upstream in aws.items()}
        manifests = build(ISTIO / kustomization)
        change(manifests)
        mesh = Mesh(manifests, tmp_path, ports, authority, **options)
        started.append(mesh.__enter__())
        return mesh

    yield start
    for mesh in started:
        mesh.__exit__()


@pytest.mark.parametrize("kustomization", KUSTOMIZATIONS)
def test_every_manifest_fits_its_schema(kustomization):
    manifests = build(ISTIO / kustomization)

    assert manifests
    for manifest in manifests:
        check(manifest)


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("EnvoyFilter", ["spec", "configPatches", 0, "applyto"], "LISTENER"),
        ("EnvoyFilter", ["spec", "configPatches", 0, "applyTo"], "EXTENSION"),
        ("ServiceEntry", ["spec", "ports", 0, "targetport"], 443),
        ("DestinationRule", ["spec", "trafficPolicy", "tls", "mode"], "EASY"),
        ("AuthorizationPolicy", ["spec", "rules", 0, "form"], []),
        ("Deployment", ["spec", "template", "spec", "initContainers", 0, "restartpolicy"], "Always"),
    ],
)
def test_the_check_sees_what_is_wrong(kind, place, value):
    manifest = copy.deepcopy(next(each for each in build(ISTIO / "egress") if each["kind"] == kind))
    *parents, last = place
    node = manifest
    for part in parents:
        node = node[part]
    node[last] = value

    with pytest.raises(Invalid):
        check(manifest)


@pytest.mark.parametrize("kustomization", ["base", "overlays/workload"])
def test_a_sidecar_signs_for_the_hosts_of_the_mesh_and_originates_tls(start, aws, kustomization):
    mesh = start(kustomization)
    for identity in {entry["id"] for entry in mesh.intake("/v1/identities").json["identities"]}:
        mesh.push(TEMPORARY_KEY, identity)

    for host, path, body in [
        (S3, "/bucket/a%20key?list-type=2", None),
        (S3, "/bucket/key", b"object"),
        (SQS, "/", b'{"QueueName": "orders"}'),
        (SQS, "/", b"2 MiB " * 350_000),
    ]:
        response = mesh.request(host, path, "POST" if body else "GET", body=body)
        assert response.status == 200, response.text
        last = aws[host].last
        assert (last.request.header("host"), last.request.target, last.request.body) == (host, path, body or b"")
        assert last.verdict.access_key_id == TEMPORARY_KEY.access_key


def test_a_sidecar_leaves_other_hosts_to_the_mesh(start):
    # Istio would have a route for it; here there is none, which Envoy itself says.
    response = start("base").request("orders.internal", "/")

    assert (response.status, response.text) == (404, "")


def test_the_refresher_feeds_the_sidecar_over_the_pods_volume(start, aws, tmp_path):
    mesh = start("overlays/workload")
    deployment = mesh.of_kind("Deployment")[0]["spec"]["template"]["spec"]
    refresher = next(each for each in deployment["initContainers"] if each["name"] == "credential-refresher")
    arguments = [
        argument.replace("/var/run/sigv4", str(mesh.socket_volume)).replace(":9903", ":0")
        for argument in refresher["args"]
    ]
    assert mesh.socket.parent.stat().st_mode & 0o777 == 0o700
    assert mesh.socket_volume.stat().st_mode & 0o777 == 0o777
    environment = environment_without_aws(
        AWS_ACCESS_KEY_ID=STATIC_KEY.access_key, AWS_SECRET_ACCESS_KEY=STATIC_KEY.secret_key, AWS_REGION=REGION
    )

    with Process("credential-refresher", [BINARY, *arguments], tmp_path / "refresher.log", environment):
        wait_until(lambda: mesh.request(S3, "/bucket/key").status == 200, "the refresher to feed the proxy")

    assert aws[S3].last.verdict.access_key_id == STATIC_KEY.access_key


def test_a_wasm_plugin_shares_credentials_with_the_intake_and_streams_to_s3(start, aws):
    mesh = start("wasm-plugin")
    mesh.push(TEMPORARY_KEY)

    assert mesh.request(S3, "/bucket/key").status == 200
    assert mesh.request(S3, "/bucket/key", "PUT", body=b"object").status == 200
    assert aws[S3].last.verdict.payload == "unsigned"


def test_a_wasm_plugin_can_hash_no_body(start, aws):
    def hashing(manifests):
        next(each for each in manifests if each["kind"] == "WasmPlugin")["spec"]["pluginConfig"]["routes"]["/"] = {
            "hosts": [SQS]
        }

    mesh = start("wasm-plugin", change=hashing)
    mesh.push(TEMPORARY_KEY)

    response = mesh.request(SQS, "/", "POST", body=b"{}")
    assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
    assert "allow_on_headers_stop_iteration" in response.json["error"]["message"]


def test_the_egress_gateway_signs_for_clients_of_the_mesh_alone(start, aws, authority):
    mesh = start("overlays/egress", context="GATEWAY")
    mesh.push(TEMPORARY_KEY)
    client = authority.issue("orders.internal")

    response = mesh.request(SQS, "/", "POST", client, body=b"{}")
    assert response.status == 200, response.text
    assert aws[SQS].last.verdict.access_key_id == TEMPORARY_KEY.access_key

    refused = mesh.request(SQS, "/", "POST", body=b"{}")
    assert (refused.status, refused.json["error"]["code"]) == (401, "Unauthenticated")
    elsewhere = mesh.request("example.com", "/", certificate=client)
    assert (elsewhere.status, elsewhere.json["error"]["code"]) == (404, "NoRoute")


def test_the_refresher_and_the_proxy_run_as_one_user_with_no_rights(start):
    for kustomization in ("overlays/workload", "overlays/egress"):
        pod = next(each for each in build(ISTIO / kustomization) if each["kind"] == "Deployment")["spec"]["template"][
            "spec"
        ]
        containers = {each["name"]: each for each in pod["initContainers"]}
        assert containers["credential-refresher"]["restartPolicy"] == "Always"
        for container in containers.values():
            assert container["securityContext"]["runAsUser"] == 1337
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"]
