"""The parts of envoy/docker-compose.yaml that need no Docker engine; integration/compose/run.sh brings it up."""

import json
import re
import shutil
import subprocess
import urllib.request

import pytest
import yaml

from integration.harness.policies import policy, s3_route
from integration.stack.process import REPOSITORY, free_port, wait_until
from integration.stack.proxy import StockConfiguration
from integration.stack.refresher import Refresher

COMPOSE = REPOSITORY / "envoy" / "docker-compose.yaml"
FILES = REPOSITORY / "envoy" / "compose"
DASHBOARD = json.loads((FILES / "grafana" / "dashboards" / "sigv4.json").read_text())
RULES = [rule for group in yaml.safe_load((FILES / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_its_envoy_is_the_stock_one_but_for_three_places():
    document = yaml.safe_load((FILES / "envoy.yaml").read_text())
    stock = StockConfiguration()
    for listener in ("traffic", "statistics"):
        stock.listener(listener)["address"]["socket_address"]["address"] = "0.0.0.0"
    [statistics] = stock.http_connection_manager("statistics")["route_config"]["virtual_hosts"]
    statistics["domains"].append("envoy")
    stock.signer["configuration"] = None
    stock.loopback_names += "|envoy"
    listeners = {each["name"]: each for each in document["static_resources"]["listeners"]}
    clusters = {each["name"]: each for each in document["static_resources"]["clusters"]}
    filters = listeners["traffic"]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    [signer] = [each["typed_config"]["config"] for each in filters if each["name"] == "sigv4"]
    routes = json.loads(signer["configuration"]["value"])["routes"]
    assert {tuple(route["hosts"]) for route in routes.values()} == {("localhost", "127.0.0.1", "[::1]", "envoy")}
    signer["configuration"] = None
    document["static_resources"] = {"listeners": [*listeners.values()], "clusters": [*clusters.values()]}

    assert json.loads(json.dumps(document)) == stock.document


def test_every_container_is_confined():
    services = yaml.safe_load(COMPOSE.read_text())["services"]

    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


@pytest.fixture(scope="module")
def promtool():
    promtool = REPOSITORY / ".toolchain" / "prometheus" / "usr" / "bin" / "promtool"
    if not promtool.exists() and not shutil.which("apt-get"):
        pytest.skip("promtool comes from a Debian package")
    subprocess.run([REPOSITORY / "build" / "prometheus.sh"], check=True)
    return promtool


def test_prometheus_takes_its_configuration(promtool):
    command = [promtool, "check", "config", FILES / "prometheus.yaml"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr


def test_an_identity_that_is_wanted_and_not_supplied_alerts_after_a_minute(promtool, tmp_path):
    proxies = {"unix:/a.sock": "0x9", "unix:/late.sock": "2 2 0x7", "unix:/b.sock": "3x9"}
    series = [
        {"series": f'credential_refresher_proxy_unsupplied_identities{{proxy="{proxy}"}}', "values": values}
        for proxy, values in proxies.items()
    ]
    name = "CredentialsNotSupplied"
    [rule] = [rule for rule in RULES if rule["alert"] == name]
    lacking = {proxy: values[0] for proxy, values in proxies.items() if values[0] != "0"}

    def firing(proxy: str) -> dict:
        annotations = {
            key: text.replace("{{ $labels.proxy }}", proxy).replace("{{ $value }}", lacking[proxy])
            for key, text in rule["annotations"].items()
        }
        return {"exp_labels": {"severity": "critical", "proxy": proxy}, "exp_annotations": annotations}

    expected = [("0s", []), ("45s", []), ("2m", ["unix:/b.sock"])]
    tests = {
        "rule_files": [str(FILES / "rules.yaml")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": series,
                "alert_rule_test": [
                    {"eval_time": at, "alertname": name, "exp_alerts": [firing(proxy) for proxy in alerts]}
                    for at, alerts in expected
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))

    done = subprocess.run([promtool, "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def metrics(start_shared_proxy, ministack, tmp_path_factory) -> dict[str, set[str]]:
    """Returns the metrics of Envoy and the refresher after some requests, each with the names of its labels."""
    role = s3_route(ministack, roleArn=ministack.role_arn)
    proxy = start_shared_proxy(policy({"/s3": role}))
    port = free_port()
    with Refresher(
        tmp_path_factory.mktemp("refresher"), proxy, ministack, "--interval", "100ms", "--listen", f"127.0.0.1:{port}"
    ) as refresher:
        refresher.wait_ready(lambda: proxy.intake("/v1/status").status == 200)
        # One request of 32 is timed, on each of two workers.
        for path in ["/s3/nothing"] * 80 + ["/elsewhere"]:
            proxy.request(path)

        def text() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return answer.read().decode() + proxy.envoy.admin("/stats/prometheus")

        # Envoy publishes its histograms after their first five seconds.
        wait_until(lambda: "sigv4_signing_microseconds_bucket" in text(), "the histogram")
        found = {}
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", text(), re.MULTILINE):
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
        # A counter of failures has no line before the first one; the run book lists them.
        run_book = (REPOSITORY / "docs" / "operations.md").read_text()
        for name in re.findall(r"`(\w+_failures_total)`", run_book):
            found.setdefault(f"credential_refresher_{name}", set())
        return {**found, "up": {"job"}}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_there_are_and_is_documented(metrics, rule):
    names = re.findall(r"\b(?:credential_refresher|sigv4)_\w+", rule["expr"])
    assert names
    for name in names:
        assert name in metrics
    for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
        assert all(label in metrics[name] for name in names)
    assert f"`{rule['alert']}`" in (REPOSITORY / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_asks_for_metrics_that_there_are(metrics, expression):
    functions = {
        "sum",
        "min",
        "max",
        "count",
        "rate",
        "increase",
        "histogram_quantile",
        "time",
        "vector",
        "by",
        "or",
        "and",
        "on",
    }
    without_groups = re.sub(r"\b(by|on) \([^)]*\)", r"\1", expression)
    selectors = re.findall(r"\b([a-z][a-z0-9_]+)(?:\{([^}]*)\})?", re.sub(r"\[[^]]*\]", "", without_groups))
    asked = {name: re.findall(r"(\w+)[!=]", labels) for name, labels in selectors if name not in functions}
    grouped = {
        name.strip() for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for name in group.split(",")
    }

    assert asked or expression == "vector(0)"
    for name, labels in asked.items():
        assert name in metrics
        assert set(labels) <= metrics[name]
        assert grouped <= metrics[name]
