"""Envoy starts on free ports, answers, restarts and ends when it should."""

import time

import pytest
from wasmtime import wat2wasm

from integration.stack.client import curl
from integration.stack.envoy import Envoy, validate
from integration.stack.process import ProcessEnded


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


# A filter whose VM dies in the request's headers.
DIES = """(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) i32.const 1024)
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 1)
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"""


def with_filter_that_dies(directory) -> dict:
    wasm = directory / "dies.wasm"
    wasm.write_bytes(wat2wasm(DIES))
    dying = configuration()
    manager = dying["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    plugin = {
        "name": "dies",
        "failure_policy": "FAIL_RELOAD",
        "reload_config": {"backoff": {"base_interval": "0.1s"}},
        "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": {"local": {"filename": str(wasm)}}},
    }
    typed = {"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": plugin}
    manager["http_filters"].insert(0, {"name": "dies", "typed_config": typed})
    return dying


@pytest.mark.parametrize("requests", [1, 3])
def test_a_vm_that_died_is_noticed(tmp_path, requests):
    envoy = Envoy(with_filter_that_dies(tmp_path), tmp_path, concurrency=1)
    with pytest.raises(AssertionError, match="wasm VMs died"), envoy:
        assert not envoy.dead_vms
        for _ in range(requests):
            assert curl(f"http://127.0.0.1:{envoy.port('traffic')}/").status == 503
            # Until then the VM is not replaced.
            time.sleep(0.3)
        # Nothing is counted before the next request.
        assert envoy.stat("wasm.dies.vm_reload_success") == requests - 1
        assert len(envoy.dead_vms) >= requests
    assert not envoy.process.running


def test_a_test_may_expect_a_vm_to_die(tmp_path):
    envoy = Envoy(with_filter_that_dies(tmp_path), tmp_path, concurrency=1)
    envoy.expects_dead_vm = "the filter has no other purpose"
    with envoy:
        assert curl(f"http://127.0.0.1:{envoy.port('traffic')}/").status == 503
    assert envoy.dead_vms
