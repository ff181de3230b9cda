"""envoy/istio: the manifests match Istio's schemas, and sign in a real Envoy."""

import copy
import fnmatch
import json
import os
import re
import shlex
import ssl
import subprocess
import sys

import pytest
import yaml
from botocore.credentials import Credentials

from integration.harness import raw
from integration.harness.certificates import Authority
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.manifests import ISTIO, MANIFESTS, Invalid, build, check
from integration.harness.mesh import Mesh
from integration.harness.sts import QuickSts
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION
from integration.stack.process import REPOSITORY, Process, environment_without_aws, wait_until
from integration.stack.refresher import BINARY

S3 = f"s3.{REGION}.amazonaws.com"
SQS = f"sqs.{REGION}.amazonaws.com"
BUCKETS = f"*.s3.{REGION}.amazonaws.com"
BUCKET = f"orders.s3.{REGION}.amazonaws.com"
EGRESS_OVERLAYS = ["overlays/egress", "overlays/egress-by-namespace"]
EXTENSIONS = ["wasm-plugin", "traffic-extension"]
KUSTOMIZATIONS = ["base", *EXTENSIONS, "egress", "overlays/workload", *EGRESS_OVERLAYS]


@pytest.fixture(scope="module")
def aws(keys, authority):
    """Returns S3 and SQS, each with the certificate of its host."""
    s3 = Upstream(Verifier(keys, REGION, "s3"), authority.server_context(S3))
    sqs = Upstream(Verifier(keys, REGION, "sqs"), authority.server_context(SQS))
    buckets = Upstream(Verifier(keys, REGION, "s3"), authority.server_context(BUCKETS))
    with s3, sqs, buckets:
        yield {S3: s3, SQS: sqs, BUCKETS: buckets}


@pytest.fixture(scope="module")
def _plain(keys):
    with Upstream(Verifier(keys, REGION, "s3")) as upstream:
        yield upstream


@pytest.fixture
def plain(_plain):
    """Returns the upstream of the sidecar's pass-through, without TLS."""
    _plain.reset()
    return _plain


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


def set_at(manifest: dict, place: list, value) -> None:
    """Sets the value at a path into a manifest."""
    *parents, last = place
    node = manifest
    for part in parents:
        node = node[part]
    node[last] = value


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
    set_at(manifest, place, value)

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


@pytest.mark.parametrize("host", ["orders.internal", f"ec2.{REGION}.amazonaws.com", "my-lb-1.elb.amazonaws.com"])
def test_a_sidecar_leaves_other_hosts_to_the_mesh(start, plain, host):
    mesh = start("base", pass_through=plain.port)
    mesh.push(TEMPORARY_KEY)
    mesh.request(host, "/")

    assert plain.last.request.header("host") == host
    assert plain.last.refusal == "no Authorization header"
    assert plain.last.request.header("x-amz-security-token") is None


@pytest.mark.parametrize("kustomization", ["base", "overlays/workload", *EXTENSIONS])
def test_a_bucket_in_the_host_name_is_signed_for(start, aws, kustomization):
    mesh = start(kustomization)
    for identity in {entry["id"] for entry in mesh.intake("/v1/identities").json["identities"]}:
        mesh.push(TEMPORARY_KEY, identity)

    for method, body in [("GET", None), ("PUT", b"object")]:
        response = mesh.request(BUCKET, "/a%20key", method, body=body)
        assert response.status == 200, response.text
        assert aws[BUCKETS].last.request.header("host") == BUCKET
        assert aws[BUCKETS].last.verdict.payload == ("unsigned" if body else "signed")


def extension(manifest: dict) -> dict:
    """Returns what a WasmPlugin or a TrafficExtension says of its module."""
    return manifest["spec"].get("wasm", manifest["spec"])


def with_policy(policy: dict):
    """Sets another policy for the signer."""

    def change(manifests):
        for each in manifests:
            if each["kind"] in ("WasmPlugin", "TrafficExtension"):
                extension(each)["pluginConfig"] = policy
            elif each["metadata"]["name"] == "sigv4-signer":
                plugin = each["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"]
                plugin["configuration"]["value"] = json.dumps(policy)

    return change


@pytest.mark.parametrize("kustomization", ["base", *EXTENSIONS])
def test_a_signed_host_that_the_mesh_has_no_tls_for_is_refused(start, aws, plain, kustomization):
    everything = with_policy({"routes": {"/": {"hosts": ["*.amazonaws.com"], "payload": "unsigned"}}})
    mesh = start(kustomization, everything, pass_through=plain.port)
    mesh.push(TEMPORARY_KEY)

    for host in (f"ec2.{REGION}.amazonaws.com", f"orders.s3.dualstack.{REGION}.amazonaws.com", f"{SQS}:8080"):
        for method in ("GET", "POST"):
            response = mesh.request(host, "/", method, body=b"a" if method == "POST" else None)
            assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
            assert host in response.json["error"]["message"] and "ServiceEntry" in response.json["error"]["message"]
    assert not plain.received
    assert mesh.request(S3, "/bucket").status == 200


# The signed hosts compared with those with TLS.


def check_hosts(manifests: list[dict]) -> tuple[int, str]:
    """Runs envoy/check_hosts.py on manifests."""
    command = [sys.executable, MANIFESTS / "check_hosts.py"]
    done = subprocess.run(command, input=yaml.safe_dump_all(manifests), capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("kustomization", [*(ISTIO / each for each in KUSTOMIZATIONS), MANIFESTS / "gateway"], ids=str)
def test_no_host_is_signed_for_without_tls(kustomization):
    assert check_hosts(build(kustomization)) == (0, "")


def signer_policy(manifests: list[dict]) -> dict:
    [signer] = [each for each in manifests if each["metadata"]["name"] == "sigv4-signer"]
    plugin = signer["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"]
    return json.loads(plugin["configuration"]["value"])


def signed_hosts(manifests: list[dict]) -> set[str]:
    routes = signer_policy(manifests)["routes"]
    return {host for route in (routes.values() if isinstance(routes, dict) else routes) for host in route["hosts"]}


def listed(manifests: list[dict], kind: str) -> list[dict]:
    return [each["spec"] for each in manifests if each["kind"] == kind]


@pytest.mark.parametrize("kustomization", ["base", "overlays/workload"])
def test_the_sidecar_signs_for_the_very_hosts_that_get_tls(kustomization):
    manifests = build(ISTIO / kustomization)

    entries = listed(manifests, "ServiceEntry")
    assert signed_hosts(manifests) == {host for entry in entries for host in entry["hosts"]} == {S3, SQS, BUCKETS}
    for entry in entries:
        assert [port["targetPort"] for port in entry["ports"]] == [443]
        # A pattern can't be resolved.
        assert entry["resolution"] == ("NONE" if any("*" in host for host in entry["hosts"]) else "DNS")


@pytest.mark.parametrize("kustomization", ["egress", *EGRESS_OVERLAYS])
def test_the_egress_gateway_signs_for_the_very_hosts_that_it_has_routes_to(kustomization):
    manifests = build(ISTIO / kustomization)
    [service], [gateway] = listed(manifests, "VirtualService"), listed(manifests, "Gateway")
    [access] = listed(manifests, "AuthorizationPolicy")

    onward = [
        (match["authority"]["exact"], route["route"][0]["destination"])
        for route in service["http"]
        for match in route["match"]
        if "authority" in match
    ]
    assert {host for host, _ in onward} == signed_hosts(manifests) == {S3, SQS}
    assert all(destination == {"host": host, "port": {"number": 80}} for host, destination in onward)
    assert (
        set(service["hosts"])
        == {host for server in gateway["servers"] for host in server["hosts"]}
        == {host for rule in access["rules"] for to in rule["to"] for host in to["operation"]["hosts"]}
        == {S3, SQS, BUCKETS}
    )


def without_host(manifests):
    listed(manifests, "ServiceEntry")[0]["hosts"].remove(SQS)


def without_rule(manifests):
    manifests[:] = [each for each in manifests if each["kind"] != "DestinationRule"]


def with_tls(tls: dict | None, **rule):
    """Replaces the TLS settings of the port."""

    def change(manifests):
        [spec] = listed(manifests, "DestinationRule")
        spec["trafficPolicy"]["portLevelSettings"][0] = {"port": {"number": 80}, **({"tls": tls} if tls else {})}
        spec.update(rule)

    return change


def with_rule_for_one_host(manifests):
    rule = {"kind": "DestinationRule", "metadata": {"name": "plain"}, "spec": {"host": S3, "trafficPolicy": {}}}
    manifests.append({"apiVersion": "networking.istio.io/v1", **rule})


def with_entry(manifests):
    entry = {"hosts": [BUCKET], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"}
    manifests.append({"kind": "ServiceEntry", "metadata": {"name": "plain"}, "spec": entry})
    rule = {"host": BUCKET, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    manifests.append({"kind": "DestinationRule", "metadata": {"name": "plain"}, "spec": rule})


def with_virtual_service(route: dict, subsets: list[dict] = ()):
    """Sends a host elsewhere, and adds subsets to the DestinationRule."""

    def change(manifests):
        service = {"hosts": [S3], "http": [route]}
        manifests.append({"kind": "VirtualService", "metadata": {"name": "plain"}, "spec": service})
        [rule] = listed(manifests, "DestinationRule")
        rule["subsets"] = list(subsets)

    return change


def to(host: str, **destination) -> list[dict]:
    return [{"destination": {"host": host, **destination}}]


def seen_by_some(kind: str, **limit):
    def change(manifests):
        for spec in listed(manifests, kind):
            spec.update(limit)

    return change


def with_rule(host: str = S3, mode: str = "DISABLE", namespace: str = "orders", **limit):
    """Adds a rule of another namespace."""

    def change(manifests):
        rule = {"host": host, "trafficPolicy": {"tls": {"mode": mode}}, **limit}
        metadata = {"name": "plain", "namespace": namespace}
        manifests.append({"kind": "DestinationRule", "metadata": metadata, "spec": rule})

    return change


def with_port(**port):
    def change(manifests):
        entry = {"hosts": [SQS], "ports": [{"number": 8080, "name": "plain", **port}], "resolution": "DNS"}
        manifests.append({"kind": "ServiceEntry", "metadata": {"name": "plain"}, "spec": entry})

    return change


def with_delegate(manifests):
    with_virtual_service({"delegate": {"name": "there"}})(manifests)
    spec = {"http": [{"route": to("proxy.internal")}]}
    manifests.append({"kind": "VirtualService", "metadata": {"name": "there"}, "spec": spec})


PLAIN_SUBSET = {"name": "plain", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
PLAIN_PORT = {"name": "plain", "trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}}]}}


@pytest.mark.parametrize(
    ("change", "host"),
    [
        (with_virtual_service({"route": to("proxy.internal")}), S3),
        (with_virtual_service({"route": [*to(S3, port={"number": 80}), *to("proxy.internal")]}), S3),
        (with_virtual_service({"route": to(S3, port={"number": 80}), "mirror": {"host": "proxy.internal"}}), S3),
        (with_virtual_service({"route": to(S3, port={"number": 80}, subset="plain")}, [PLAIN_SUBSET]), S3),
        (with_virtual_service({"route": to(S3, port={"number": 80}, subset="plain")}, [PLAIN_PORT]), S3),
        (with_delegate, S3),
        (with_rule(), S3),
        (with_rule(exportTo=["."]), S3),
        (with_rule(workloadSelector={"matchLabels": {"app": "other"}}), S3),
        (with_rule("*.com"), SQS),
        (with_rule("*"), SQS),
        (with_port(protocol="HTTP"), SQS),
        (with_port(protocol="GRPC-Web"), SQS),
        (with_port(), SQS),
        (seen_by_some("DestinationRule", workloadSelector={"matchLabels": {"app": "other"}}), S3),
        (seen_by_some("DestinationRule", exportTo=["."]), SQS),
        (seen_by_some("ServiceEntry", exportTo=["other"]), SQS),
        (without_host, SQS),
        (without_rule, S3),
        (with_tls({"mode": "DISABLE"}), S3),
        (with_tls(None), S3),
        (with_tls({"mode": "SIMPLE", "insecureSkipVerify": True}), S3),
        (with_tls({"mode": "SIMPLE"}, host=f"*.s3.{REGION}.amazonaws.com"), SQS),
        (with_rule_for_one_host, S3),
        (with_entry, BUCKET),
        (with_policy({"routes": {"/": {"hosts": ["*.amazonaws.com"]}}}), "*.amazonaws.com"),
        (with_policy({"routes": [{"prefix": "/", "hosts": ["ec2.amazonaws.com"]}]}), "ec2.amazonaws.com"),
        (with_policy({"/a": "https://ec2.amazonaws.com/x"}), "ec2.amazonaws.com"),
        (with_policy({"proxysigv4": {"/a": {"target": "https://ec2.amazonaws.com"}}}), "ec2.amazonaws.com"),
    ],
)
@pytest.mark.parametrize("kustomization", ["base", *EXTENSIONS])
def test_a_host_that_is_signed_without_tls_is_found(kustomization, change, host):
    manifests = build(ISTIO / kustomization)
    with_policy({"routes": {"/": {"hosts": [S3, SQS, BUCKETS]}}})(manifests)
    change(manifests)

    code, told = check_hosts(manifests)

    assert code == 1
    assert host in told and "TLS" in told


@pytest.mark.parametrize(
    "policy",
    [
        {"routes": {"/": {"hosts": [SQS, BUCKET, f"{S3}:80"]}}},
        {"routes": {"/": {"hosts": [SQS]}, "/plain": {"hosts": ["plain.internal"], "upstreamTls": False}}},
        {"routes": {"/": {"hosts": [SQS]}, "/plain": "http://plain.internal"}},
        {"routes": {"/plain": "http://plain.internal"}},
    ],
)
def test_what_the_policy_itself_sends_in_clear_is_left_to_it(policy):
    manifests = build(ISTIO / "base")
    with_policy(policy)(manifests)

    assert check_hosts(manifests) == (0, "")


@pytest.mark.parametrize(
    "change", [with_port(protocol="TLS"), with_rule(mode="SIMPLE"), with_rule("*.local"), with_rule("x.amazonaws.com")]
)
def test_what_takes_no_tls_away_is_accepted(change):
    manifests = build(ISTIO / "base")
    change(manifests)

    assert check_hosts(manifests) == (0, "")


def test_a_virtual_service_that_keeps_tls_is_accepted():
    manifests = build(ISTIO / "base")
    tls = {"name": "tls", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}}
    with_virtual_service({"route": [*to(S3, port={"number": 80}), *to(S3, subset="tls")]}, [tls, PLAIN_SUBSET])(
        manifests
    )

    assert check_hosts(manifests) == (0, "")


def test_manifests_without_a_policy_are_not_taken_for_good():
    manifests = [each for each in build(ISTIO / "base") if each["kind"] != "EnvoyFilter"]

    code, told = check_hosts(manifests)

    assert (code, "no signing policy" in told) == (1, True)


@pytest.mark.parametrize("kind", ["BackendTLSPolicy", "Backend", "HTTPRoute"])
def test_a_host_of_envoy_gateway_that_is_signed_without_tls_is_found(kind):
    manifests = [each for each in build(MANIFESTS / "gateway") if each["kind"] != kind]

    code, told = check_hosts(manifests)

    # A route to a missing backend leads nowhere.
    assert (code, S3 in told) == ((0, False) if kind == "Backend" else (1, True))


def with_mirror(manifests):
    [route] = listed(manifests, "HTTPRoute")
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "plain", "port": 80}}}
    route["rules"][0]["filters"] = [mirror]


def with_grpc_route(manifests):
    spec = {"hostnames": [S3], "rules": [{"backendRefs": [{"name": "plain", "port": 80}]}]}
    manifests.append({"kind": "GRPCRoute", "metadata": {"name": "plain"}, "spec": spec})


def with_policy_elsewhere(manifests):
    for manifest in manifests:
        if manifest["kind"] == "BackendTLSPolicy":
            manifest["metadata"]["namespace"] = "elsewhere"


@pytest.mark.parametrize("change", [with_mirror, with_grpc_route, with_policy_elsewhere])
def test_a_way_of_envoy_gateway_without_tls_is_found(change):
    manifests = build(MANIFESTS / "gateway")
    change(manifests)

    code, told = check_hosts(manifests)

    assert (code, S3 in told) == (1, True)


def test_a_route_for_hosts_that_no_other_names_is_accepted():
    manifests = build(MANIFESTS / "gateway")
    spec = {"rules": [{"backendRefs": [{"name": "shop", "port": 80}]}]}
    manifests.append({"kind": "HTTPRoute", "metadata": {"name": "shop"}, "spec": spec})

    assert check_hosts(manifests) == (0, "")


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


@pytest.mark.parametrize("kustomization", EXTENSIONS)
def test_a_wasm_plugin_shares_credentials_with_the_intake_and_streams_to_s3(start, aws, kustomization):
    mesh = start(kustomization)
    mesh.push(TEMPORARY_KEY)

    assert mesh.request(S3, "/bucket/key").status == 200
    assert mesh.request(S3, "/bucket/key", "PUT", body=b"object").status == 200
    assert aws[S3].last.verdict.payload == "unsigned"


@pytest.mark.parametrize("kustomization", EXTENSIONS)
def test_a_wasm_plugin_can_hash_no_body(start, aws, kustomization):
    mesh = start(kustomization, change=with_policy({"routes": {"/": {"hosts": [SQS]}}}))
    mesh.push(TEMPORARY_KEY)

    response = mesh.request(SQS, "/", "POST", body=b"{}")
    assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
    assert "allow_on_headers_stop_iteration" in response.json["error"]["message"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["spec", "wasm", "vmConfig"], {"vmId": "sigv4"}),
        (["spec", "wasm", "allowOnHeadersStopIteration"], True),
        (["spec", "wasm", "capabilityRestrictionConfig"], {}),
        (["spec", "wasm", "failStrategy"], "RELOAD"),
        (["spec", "pluginConfig"], {}),
        (["spec", "lua"], {"inlineCode": ""}),
    ],
)
def test_what_a_traffic_extension_has_no_field_for_is_seen(place, value):
    manifest = next(each for each in build(ISTIO / "traffic-extension") if each["kind"] == "TrafficExtension")
    set_at(manifest, place, value)

    with pytest.raises(Invalid):
        check(manifest)


@pytest.fixture(scope="module")
def hasher(tmp_path_factory) -> list[dict]:
    """Returns the manifests of the component."""
    directory = tmp_path_factory.mktemp("hasher")
    component = os.path.relpath(ISTIO / "hasher", directory)
    (directory / "kustomization.yaml").write_text(f"components: [{component}]\n")
    return build(directory)


@pytest.mark.parametrize("kustomization", ["base", *EXTENSIONS])
@pytest.mark.parametrize("forged", [{}, {"x-amz-content-sha256": "a" * 64}], ids=["", "forged"])
def test_the_sidecars_envoy_hashes_bodies_for_the_signer(start, aws, hasher, kustomization, forged):
    def hashing(manifests):
        routes = {"/": {"hosts": [S3, SQS], "payload": "envoy"}}
        with_policy({"routes": routes, "unmatched": "pass"})(manifests)
        # Without this, which a WasmPlugin does not have, the signer can hash no body.
        for patch in (patch for each in manifests for patch in each["spec"].get("configPatches", [])):
            if patch["applyTo"] == "EXTENSION_CONFIG" and patch["patch"]["value"]["name"] == "sigv4-signer":
                del patch["patch"]["value"]["typed_config"]["config"]["allow_on_headers_stop_iteration"]
        manifests.extend(hasher)

    mesh = start(kustomization, change=hashing)
    mesh.push(TEMPORARY_KEY)

    assert mesh.request(SQS, "/", "POST", headers=forged, body=b"{}").status == 200, aws[SQS].last.refusal
    assert aws[SQS].last.verdict.payload == "signed"
    # The matcher does not name this host.
    assert mesh.request(S3, "/bucket/key", "PUT", headers=forged, body=b"{}").status == 500


def test_the_hasher_fits_its_schema(hasher):
    for manifest in hasher:
        check(manifest)


def test_the_egress_gateway_signs_for_clients_of_the_mesh_alone(start, aws, authority):
    mesh = start("egress", context="GATEWAY")
    mesh.push(TEMPORARY_KEY)
    client = authority.issue("orders.internal")

    response = mesh.request(SQS, "/", "POST", client, body=b"{}")
    assert response.status == 200, response.text
    assert aws[SQS].last.verdict.access_key_id == TEMPORARY_KEY.access_key

    refused = mesh.request(SQS, "/", "POST", body=b"{}")
    assert (refused.status, refused.json["error"]["code"]) == (401, "Unauthenticated")
    for host in ("example.com", BUCKET):
        elsewhere = mesh.request(host, "/", certificate=client)
        assert (elsewhere.status, elsewhere.json["error"]["code"]) == (404, "NoRoute")
        assert "list the host in the hosts of a route" in elsewhere.json["error"]["message"]


# The egress gateway of several teams: the namespace of the client's certificate decides about the role.

TEAM_KEYS = {team: Credentials(f"ASIA{team.upper()}", f"secret-of-{team}", "token") for team in ("orders", "billing")}


@pytest.fixture(scope="module")
def aws_of_teams(authority):
    """Returns S3 and SQS, which know the keys of the teams' roles."""
    keys = {key.access_key: key for key in TEAM_KEYS.values()}
    s3 = Upstream(Verifier(keys, REGION, "s3"), authority.server_context(S3))
    sqs = Upstream(Verifier(keys, REGION, "sqs"), authority.server_context(SQS))
    with s3, sqs:
        yield {S3: s3, SQS: sqs}


@pytest.fixture
def team_gateway(tmp_path, authority, aws_of_teams):
    """Returns the gateway with the key of each role."""
    for upstream in aws_of_teams.values():
        upstream.reset()
    ports = {host: upstream.port for host, upstream in aws_of_teams.items()}
    with Mesh(build(ISTIO / "overlays/egress"), tmp_path, ports, authority, context="GATEWAY") as mesh:
        wait_until(lambda: len(mesh.identities()) == 2, "the identities of both teams")
        for id, identity in mesh.identities().items():
            mesh.push(TEAM_KEYS[identity["roleArn"].rpartition("/mesh-")[2]], id)
        yield mesh


def test_each_namespace_signs_as_its_own_role(team_gateway, authority, aws_of_teams):
    for team in TEAM_KEYS:
        for account in ("default", "reports"):
            client = authority.issue(f"spiffe://cluster.local/ns/{team}/sa/{account}")
            for host, method, body in [(S3, "GET", None), (S3, "PUT", b"object"), (SQS, "POST", b"{}")]:
                response = team_gateway.request(host, "/bucket/key", method, client, body=body)
                assert response.status == 200, response.text
                assert aws_of_teams[host].last.verdict.access_key_id == TEAM_KEYS[team].access_key


@pytest.mark.parametrize(
    "name",
    [
        "spiffe://cluster.local/ns/shop/sa/default",
        "spiffe://cluster.local/ns/orders-2/sa/default",
        "spiffe://other.local/ns/orders/sa/default",
        "spiffe://cluster.local/ns/orders/sa/default/more",
        "orders.internal",
    ],
)
def test_another_namespace_or_trust_domain_is_refused(team_gateway, authority, aws_of_teams, name):
    response = team_gateway.request(S3, "/bucket/key", certificate=authority.issue(name))

    assert (response.status, response.json["error"]["code"]) == (403, "CallerNotAllowed"), response
    assert not aws_of_teams[S3].received


def test_a_certificate_of_another_mesh_and_none_at_all_are_refused(team_gateway, tmp_path, aws_of_teams):
    stranger = Authority(tmp_path).issue("spiffe://cluster.local/ns/orders/sa/default")
    with pytest.raises(RuntimeError, match="curl ended with"):
        team_gateway.request(S3, "/bucket/key", certificate=stranger)

    response = team_gateway.request(S3, "/bucket/key")
    assert (response.status, response.json["error"]["code"]) == (401, "Unauthenticated")
    assert not aws_of_teams[S3].received


@pytest.fixture
def sts():
    with QuickSts() as sts:
        yield sts


@pytest.fixture
def aws_of_sts(authority, sts):
    """Returns S3, which knows the keys that STS gave."""
    with Upstream(Verifier(sts.keys, REGION, "s3"), authority.server_context(S3)) as s3:
        yield s3


@pytest.fixture
def namespace_gateway(tmp_path, authority, aws_of_sts, sts):
    """Returns the gateway for all namespaces, and the refresher with the arguments of its pod."""
    manifests = build(ISTIO / "overlays/egress-by-namespace")
    with Mesh(manifests, tmp_path, {S3: aws_of_sts.port}, authority, context="GATEWAY") as mesh:
        [pod] = mesh.pods()
        [container] = [each for each in pod["initContainers"] if each["name"] == "credential-refresher"]
        arguments = [str(mesh.local(argument)).replace(":9903", ":0") for argument in container["args"]]
        arguments = [argument.replace("/var/run/sigv4", str(mesh.socket_volume)) for argument in arguments]
        environment = environment_without_aws(
            AWS_ACCESS_KEY_ID=STATIC_KEY.access_key,
            AWS_SECRET_ACCESS_KEY=STATIC_KEY.secret_key,
            AWS_REGION=REGION,
            AWS_ENDPOINT_URL_STS=sts.url,
        )
        with Process("credential-refresher", [BINARY, *arguments], tmp_path / "refresher.log", environment):
            yield mesh


def test_every_namespace_signs_as_the_role_of_its_name(namespace_gateway, authority, aws_of_sts, sts):
    for namespace, account in [("orders", "default"), ("new-team", "reports"), ("orders", "default")]:
        client = authority.issue(f"spiffe://cluster.local/ns/{namespace}/sa/{account}")
        response = namespace_gateway.request(S3, "/bucket/key", certificate=client)
        assert response.status == 200, response.text
        assumed = next(
            call
            for call, key in zip(sts.assumed, sts.keys, strict=True)
            if key == aws_of_sts.last.verdict.access_key_id
        )
        assert assumed["RoleArn"] == f"arn:aws:iam::123456789012:role/mesh-{namespace}"
        assert assumed["RoleSessionName"] == account
        assert (assumed["Tags.member.1.Key"], assumed["Tags.member.1.Value"]) == ("team", namespace)
    assert sts.calls == 2


def test_a_namespace_without_a_role_and_another_trust_domain_are_refused(namespace_gateway, authority, aws_of_sts, sts):
    sts.denied.add("mesh-shop")
    for name, status, code in [
        ("spiffe://cluster.local/ns/shop/sa/default", 503, "NoCredentials"),
        ("spiffe://other.local/ns/orders/sa/default", 403, "CallerNotAllowed"),
        ("spiffe://cluster.local/ns/orders", 403, "CallerNotAllowed"),
        (f"spiffe://cluster.local/ns/{'n' * 70}/sa/default", 403, "CallerNotAllowed"),
    ]:
        response = namespace_gateway.request(S3, "/bucket/key", certificate=authority.issue(name))
        assert (response.status, response.json["error"]["code"]) == (status, code), name
    assert not aws_of_sts.received
    assert {call["RoleArn"].rpartition("/")[2] for call in sts.assumed} == {"mesh-shop"}


def test_the_gateways_own_checks_name_the_same_namespaces_as_the_policy():
    """AuthorizationPolicy and NetworkPolicy, which run before the signer, neither open nor close more than it does."""
    manifests = build(ISTIO / "overlays/egress")
    callers = {caller for route in signer_policy(manifests)["routes"] for caller in route["callers"]}
    [access] = listed(manifests, "AuthorizationPolicy")
    [network] = listed(manifests, "NetworkPolicy")

    assert {
        f"spiffe://{name}" for rule in access["rules"] for name in rule["from"][0]["source"]["principals"]
    } == callers
    labels = [peer["namespaceSelector"]["matchLabels"] for peer in network["ingress"][0]["from"]]
    namespaces = {label["kubernetes.io/metadata.name"] for label in labels}
    assert {caller.split("/")[4] for caller in callers} == namespaces == set(TEAM_KEYS)


def test_the_gateways_refresher_assumes_the_roles_of_the_policy_alone():
    manifests = build(ISTIO / "overlays/egress")
    [deployment] = [each for each in manifests if each["kind"] == "Deployment"]
    containers = deployment["spec"]["template"]["spec"]["initContainers"]
    [refresher] = [each for each in containers if each["name"] == "credential-refresher"]
    [allowed] = [each.partition("=")[2] for each in refresher["args"] if each.startswith("--allow-role=")]

    assert all(fnmatch.fnmatchcase(route["roleArn"], allowed) for route in signer_policy(manifests)["routes"])
    assert not any(each.startswith("--allow-default") for each in refresher["args"])


def test_a_connection_to_the_egress_gateway_has_few_streams(start, authority):
    mesh = start("overlays/egress", context="GATEWAY")
    tls = ssl.create_default_context(cafile=str(authority.certificate))
    tls.check_hostname = False

    assert raw.http2_most_streams(mesh.envoy.port("traffic"), tls) == 100


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


def test_the_application_gets_no_token_of_the_role():
    """EKS mounts one into each container that this annotation does not name."""
    [deployment] = [each for each in build(ISTIO / "overlays/workload") if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]

    assert [each["name"] for each in pod["spec"]["containers"]] == ["orders"]
    assert pod["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"] == "orders"


@pytest.mark.parametrize("kustomization", EXTENSIONS)
def test_a_wasm_plugin_that_failed_is_replaced(kustomization):
    """As `failure_policy: FAIL_RELOAD` in the other configurations."""
    [signer] = [each for each in build(ISTIO / kustomization) if each["apiVersion"].startswith("extensions.")]
    assert extension(signer)["failStrategy"] == "FAIL_RELOAD"


def test_the_page_leads_with_the_policy_of_the_overlay(tmp_path):
    page = (REPOSITORY / "docs" / "istio.md").read_text()
    shown = json.loads(re.search(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[1])
    command = re.search(r"^```sh\ncredential-refresher (check-policy .*?)\n```$", page, re.MULTILINE)[1]
    roles = {route["roleArn"]: route["callers"] for route in shown["routes"]}
    (tmp_path / "policy.json").write_text(json.dumps(shown))
    done = subprocess.run([BINARY, *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, check=True)

    policy = signer_policy(build(ISTIO / "overlays/egress"))
    assert roles == {route["roleArn"]: route["callers"] for route in policy["routes"]}
    assert re.search(r"^/ +.* mesh-orders", done.stdout, re.MULTILINE)
