"""The refresher's restrictions in the manifests and the systemd unit, and who can reach it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from integration.harness import seccomp
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.manifests import ISTIO, MANIFESTS, build, check
from integration.harness.policies import api_route
from integration.stack.intake import credential_document
from integration.stack.refresher import Refresher

UNIT = MANIFESTS / "systemd" / "credential-refresher.service"
OVERLAYS = [ISTIO / "overlays" / "workload", ISTIO / "overlays" / "egress", MANIFESTS / "gateway-overlay"]
PROBES = 9903


@pytest.fixture(params=OVERLAYS, ids=lambda path: str(path.relative_to(MANIFESTS)))
def manifests(request) -> list[dict]:
    return build(request.param)


def pod(manifests: list[dict]) -> dict:
    """Returns the refresher's pod: a Deployment's, or the patch of Envoy Gateway's."""
    for each in manifests:
        if each["kind"] == "Deployment":
            return each["spec"]["template"]["spec"]
        if each["kind"] == "EnvoyProxy":
            patch = each["spec"]["provider"]["kubernetes"]["envoyDeployment"]["patch"]["value"]
            return patch["spec"]["template"]["spec"]
    raise AssertionError("no pod")


def containers(manifests: list[dict]) -> dict[str, dict]:
    return {each["name"]: each for each in pod(manifests)["initContainers"]}


def test_no_pod_gets_a_token_of_the_api_server(manifests):
    assert pod(manifests)["automountServiceAccountToken"] is False


def test_each_container_of_ours_is_confined_and_has_the_limits_that_were_measured(manifests):
    """1,000 roles take 32 MiB: test_many_roles.py."""
    ours = containers(manifests)
    assert set(ours) == {"sigv4-directory", "credential-refresher"}
    for container in ours.values():
        context = container["securityContext"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["runAsNonRoot"] and context["readOnlyRootFilesystem"]
        assert context["allowPrivilegeEscalation"] is False
        assert set(container["resources"]) == {"requests", "limits"}
    resources = ours["credential-refresher"]["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("32Mi", "64Mi")


def test_the_kubelet_alone_and_prometheus_reach_the_probes_port(manifests):
    policies = [each for each in manifests if each["kind"] == "NetworkPolicy"]
    assert policies
    for policy in policies:
        check(policy)
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        for rule in policy["spec"]["ingress"]:
            covers = [port for port in rule["ports"] if port["port"] <= PROBES <= port.get("endPort", port["port"])]
            if [port for port in covers if port.get("protocol") == "TCP"]:
                [peer] = rule["from"]
                assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}


def test_the_component_alone_keeps_strangers_from_the_probes_port(tmp_path):
    """As in a user's own kustomization, without the overlays."""
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "mine", "labels": {"aws-signing": "true"}},
        "spec": {
            "selector": {"matchLabels": {"app": "mine"}},
            "template": {
                "metadata": {"labels": {"app": "mine"}},
                "spec": {"containers": [{"name": "mine", "image": "registry.example/mine:1"}]},
            },
        },
    }
    kustomization = {
        "namespace": "mine",
        "resources": ["deployment.yaml"],
        "components": [os.path.relpath(ISTIO / "refresher", tmp_path)],
    }
    for name, document in [("deployment", deployment), ("kustomization", kustomization)]:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    built = {each["kind"]: each for each in build(tmp_path)}
    assert set(built) == {"Deployment", "NetworkPolicy"}
    policy, template = built["NetworkPolicy"], built["Deployment"]["spec"]["template"]
    check(policy)
    assert policy["metadata"]["namespace"] == "mine"
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert reached_by_all(policy) == set(range(1, 65536)) - {PROBES}


def reached_by_all(policy: dict) -> set[int]:
    """Returns the TCP ports that a policy leaves open to everybody."""
    ports = set()
    for rule in policy["spec"]["ingress"]:
        if "from" not in rule:
            for port in rule["ports"]:
                if port["protocol"] == "TCP":
                    ports |= set(range(port["port"], port.get("endPort", port["port"]) + 1))
    return ports


@pytest.mark.parametrize("gateway", OVERLAYS[1:], ids=["istio", "envoy-gateway"])
def test_only_the_namespaces_that_are_named_reach_a_gateway(gateway):
    [policy] = [each for each in build(gateway) if each["kind"] == "NetworkPolicy"]
    assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_every_image_is_named_by_its_digest(manifests):
    text = str(manifests)
    images = re.findall(r"registry\.[\w./-]+[\w:@.-]+", text)
    ours = [image for image in images if "/orders" not in image]
    assert len(ours) >= 3
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in ours), ours
    assert "busybox:" not in text


def test_the_unit_takes_all_that_the_refresher_can_do_without():
    settings = UNIT.read_text().splitlines()
    for setting in ["PrivateUsers=yes", "UMask=0077", "RemoveIPC=yes", "ProcSubset=pid",
                    "SystemCallFilter=~@privileged @resources", "ProtectHome=read-only"]:  # fmt: skip
        assert setting in settings


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_the_unit_tight():
    """It needs the rest of its exposure: the network, Unix sockets, and read access to its home."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=13", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_knows_every_setting_of_the_unit(tmp_path):
    """It ignores unknown settings."""
    unit = tmp_path / UNIT.name
    text = (
        UNIT.read_text().replace("/usr/local/bin/credential-refresher", "/bin/true").replace("User=envoy", "User=root")
    )
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# With the system calls that the unit allows, as not every machine has a systemd to run it.


class ConfinedRefresher(Refresher):
    def __init__(self, *arguments, **variables):
        super().__init__(*arguments, **variables)
        self.command[:0] = [sys.executable, seccomp.__file__, UNIT]


@pytest.fixture
def confined(start_proxy, api, tmp_path):
    """Runs the refresher once, confined; returns what the proxy then holds, and the log."""
    if not (shutil.which("systemd-analyze") and seccomp.NUMBERS.exists()):
        pytest.skip("it takes systemd-analyze and the numbers of x86-64's system calls (linux-libc-dev)")

    def run(**environment: str) -> tuple[dict | None, str]:
        proxy = start_proxy({"routes": {"/api": api_route(api)}})
        environment |= {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)}
        refresher = ConfinedRefresher(
            tmp_path, proxy, Nowhere, "--once", "--timeout", "10s", credentials=STATIC_KEY, **environment
        )
        with refresher:
            refresher.wait(30)
        return proxy.identities()["default"]["held"], refresher.log

    return run


class Nowhere:
    url = "http://127.0.0.1:9"


def test_a_credential_process_runs_under_the_unit(confined, tmp_path):
    config, document, script = tmp_path / "config", tmp_path / "document", tmp_path / "source"
    document.write_bytes(credential_document(TEMPORARY_KEY))
    # Only forbidden calls fail: this one belongs to @resources.
    script.write_text(f"#!/bin/sh\nnice -n 5 true 2> {tmp_path}/refused\nsed 's/x/x/' {document} | cat\n")
    script.chmod(0o700)
    config.write_text(f"[default]\ncredential_process = {script}\n")

    held, log = confined(AWS_CONFIG_FILE=str(config))

    assert held and held["accessKeyId"] == TEMPORARY_KEY.access_key, log
    assert "Operation not permitted" in (tmp_path / "refused").read_text()


class Portal(BaseHTTPRequestHandler):
    """Single sign-on: refreshes a token, and returns credentials for it."""

    def _answer(self, document: dict) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self._answer({"accessToken": "new-token", "expiresIn": 3600, "tokenType": "Bearer", "refreshToken": "r"})

    def do_GET(self):
        assert self.headers["x-amz-sso_bearer_token"] == "new-token"
        key = {"accessKeyId": "ASIASSO", "secretAccessKey": "secret", "sessionToken": "token"}
        self._answer({"roleCredentials": {**key, "expiration": int((time.time() + 3600) * 1000)}})

    def log_message(self, *_):
        pass


def test_a_single_sign_on_runs_under_the_unit_and_keeps_its_token(confined, tmp_path):
    config = tmp_path / "config"
    config.write_text(
        "[default]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\n"
        "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n"
    )
    cache = tmp_path / ".aws" / "sso" / "cache" / f"{hashlib.sha1(b'corp').hexdigest()}.json"
    cache.parent.mkdir(parents=True)
    old = {"accessToken": "old-token", "expiresAt": "2026-01-01T00:00:00Z", "refreshToken": "r", "clientId": "c"}
    old |= {"clientSecret": "s", "registrationExpiresAt": "2099-01-01T00:00:00Z", "region": "eu-west-1"}
    cache.write_text(json.dumps({**old, "startUrl": "https://corp.awsapps.com/start"}))
    portal = ThreadingHTTPServer(("127.0.0.1", 0), Portal)
    threading.Thread(target=portal.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{portal.server_port}"
    try:
        held, log = confined(AWS_CONFIG_FILE=str(config), AWS_ENDPOINT_URL_SSO=url, AWS_ENDPOINT_URL_SSO_OIDC=url)
    finally:
        portal.shutdown()

    assert held and held["accessKeyId"] == "ASIASSO", log
    assert json.loads(cache.read_text())["accessToken"] == "new-token"
