"""What the manifests and the systemd unit take from the refresher, and whom they keep away from it."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from harness.manifests import ISTIO, MANIFESTS, build, check

UNIT = MANIFESTS / "systemd" / "credential-refresher.service"
OVERLAYS = [ISTIO / "overlays" / "workload", ISTIO / "overlays" / "egress", MANIFESTS / "gateway-overlay"]
PROBES = 9903


@pytest.fixture(params=OVERLAYS, ids=lambda path: str(path.relative_to(MANIFESTS)))
def manifests(request) -> list[dict]:
    return build(request.param)


def pod(manifests: list[dict]) -> dict:
    """The pod that the refresher is in: a Deployment's, or what is patched into Envoy Gateway's."""
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
    """As in a kustomization of one's own, without the overlays."""
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
    """The TCP ports that a policy closes to nobody."""
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
    """What it is still exposed by, it needs: the network, Unix sockets, and its home to read."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=13", UNIT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
