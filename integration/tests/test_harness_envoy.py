"""Envoy starts on free ports, answers, restarts and is gone when it should be."""

import pytest

from harness.client import curl
from harness.envoy import Envoy, validate
from harness.process import ProcessEnded


def configuration(body: str = "hello") -> dict:
    filters = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "traffic",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{filters}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "traffic",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 8080}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener]}}


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
def test_answers_and_restarts(tmp_path, http2):
    with Envoy(configuration(), tmp_path) as envoy:
        for _ in range(2):
            assert curl(f"http://127.0.0.1:{envoy.port('traffic')}/", http2=http2).text == "hello"
            envoy.restart()
        assert envoy.stat("http.traffic.downstream_rq_total") == 0

    assert not envoy.process.running


def test_says_why_it_did_not_start(tmp_path):
    wrong = configuration()
    wrong["static_resources"]["listeners"][0]["colour"] = "red"

    with pytest.raises(ProcessEnded, match="colour"), Envoy(wrong, tmp_path):
        pass

    code, output = validate(wrong, tmp_path)
    assert code != 0
    assert "colour" in output
