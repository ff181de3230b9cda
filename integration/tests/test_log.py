"""The log lines that requests can cause: one for each refusal at debug, and no warning more than once a second."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.stack.process import wait_until

WITHHELD = "the proxy does not show the body to the filter"


def test_a_refusal_is_one_line_at_debug_and_none_at_info(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api)}))
    before = len(proxy.envoy.log)
    assert proxy.request("/nowhere").status == 404
    proxy.envoy.admin("/logging?wasm=debug", "POST")
    assert proxy.request("/elsewhere").status == 404
    assert proxy.intake("/v1/identities/other/credentials", "DELETE").status == 404

    def lines(what: str) -> int:
        return sum(what in line and "[debug][wasm]" in line for line in proxy.envoy.log[before:].splitlines())

    wait_until(lambda: lines("the intake answers 404"), "the intake's refusal in the log")
    assert lines("refused with NoRoute") == 1
    assert lines("the intake answers 404") == 1


def test_clients_can_not_fill_the_log(start_proxy, api, configuration):
    # A misconfiguration that makes every request with a body cause an error.
    configuration.signer["allow_on_headers_stop_iteration"] = False
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    proxy.push(TEMPORARY_KEY)

    with ThreadPoolExecutor(25) as clients:
        answers = list(clients.map(lambda _: proxy.request("/api", "POST", body=b"x" * 5000), range(50)))

    assert {answer.status for answer in answers} == {500}
    assert all(WITHHELD in json.loads(answer.body)["error"]["message"] for answer in answers)
    lines = [line for line in proxy.envoy.log.splitlines() if WITHHELD in line and "[error]" in line]
    # Two workers, and two rounds of a second or two.
    assert 1 <= len(lines) <= 10, lines
    assert any("more like it were left out" in line for line in lines), lines


def test_a_payload_mode_that_its_service_does_not_take_is_noted_at_load(start_proxy, api, s3):
    routes = {"/api": api_route(api, payload="unsigned"), "/s3": s3_route(s3, payload="unsigned")}
    proxy = start_proxy(policy(routes))

    lines = [line for line in proxy.envoy.log.splitlines() if "UNSIGNED-PAYLOAD" in line]
    assert lines
    for line in lines:
        assert "[warning][wasm]" in line
        assert '/api: "payload": "unsigned"' in line
        assert "execute-api is not known to accept UNSIGNED-PAYLOAD" in line


def test_a_tunnel_is_a_warning_with_advice_as_clients_do_not_show_the_answer(start_proxy):
    proxy = start_proxy({"routes": {"/": {"hosts": ["*.amazonaws.com"]}}})
    host = "sqs.eu-west-1.amazonaws.com"
    command = ["curl", "-sS", "--noproxy", "", "--proxy", proxy.url, f"https://{host}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)

    assert done.returncode != 0
    assert "CONNECT tunnel failed, response 400" in done.stderr

    def lines() -> list[str]:
        return [line for line in proxy.envoy.log.splitlines() if "CONNECT" in line and "[warning][wasm]" in line]

    wait_until(lines, "the line")
    assert "through http_proxy, not to https:// URLs through https_proxy" in lines()[0]
