"""Routes without a target sign requests for listed hosts: authority and path stay the request's."""

import json

import pytest

from integration.harness import raw
from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.aws_servers import REGION
from integration.stack.client import http2
from integration.stack.process import wait_until
from integration.stack.proxy import StockConfiguration

API_HOST = f"abc123.execute-api.{REGION}.amazonaws.com"
OTHER_API_HOST = f"other.execute-api.{REGION}.amazonaws.com"


def start_mesh_proxy(start, upstream, routes: list, **members):
    proxy = start(policy(routes, **members), StockConfiguration.leading_https_to(upstream.port))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    """Returns a proxy that signs everything to `*.amazonaws.com`; other hosts get a header that names their route."""

    def marked(mark: str, **members) -> dict:
        return {
            "prefix": "/",
            "service": "execute-api",
            "region": REGION,
            "requestHeaders": {"set": {"x-route": mark}},
            **members,
        }

    routes = [
        {"prefix": "/", "hosts": ["*.amazonaws.com"]},
        marked("wildcard", hosts=["*.orders.internal"]),
        marked("deeper wildcard", hosts=["*.eu.orders.internal"]),
        marked("exact", hosts=["a.eu.orders.internal"]),
        marked("port", hosts=["*.ports.internal:8443"]),
        marked("longer prefix", prefix="/special", hosts=["*.orders.internal"]),
        marked("no hosts", prefix="/special/any", target=_api.url),
        {"prefix": "/client", "hosts": ["*.scope.internal"], "signing": {"scope": "client"}},
        {"prefix": "/infer", "hosts": ["*.scope.internal"], "service": "execute-api", "region": REGION},
        {"prefix": "/fixed", "hosts": ["*.scope.internal"], "service": "execute-api", "region": REGION,
         "signing": {"scope": "client"}},
        {"prefix": "/client-aws", "hosts": ["*.amazonaws.com"], "signing": {"scope": "client"}},
        {"prefix": "/first", "hosts": ["*.amazonaws.com"], "signing": {"scope": "client-first"}},
        {"prefix": "/first-fixed", "hosts": ["*.amazonaws.com"], "service": "execute-api", "region": REGION,
         "signing": {"scope": "client-first"}},
    ]  # fmt: skip
    return start_mesh_proxy(start_shared_proxy, _api, routes, unmatched="pass")


@pytest.mark.parametrize(
    "host",
    [API_HOST, OTHER_API_HOST, API_HOST.upper(), f"{API_HOST}:443", f"{API_HOST}:8443", f"{API_HOST}."],
)
def test_a_requests_own_authority_and_path_are_kept_and_signed_for(proxy, api, host):
    response = proxy.request("/prod/orders?b=2&a=1", headers={"Host": host})

    assert response.status == 200, api.last.refusal
    assert api.last.request.header("host") == host
    assert api.last.request.target == "/prod/orders?b=2&a=1"
    assert api.last.verdict.access_key_id == TEMPORARY_KEY.access_key


def test_bodies_go_along(proxy, api):
    body = b"order" * 10_000
    assert proxy.request("/prod", "POST", headers={"Host": API_HOST}, body=body).status == 200, api.last.refusal

    assert api.last.request.body == body
    assert api.last.verdict.payload == "signed"


def test_http2_requests_are_signed_for_their_authority(proxy, api):
    assert proxy.request("/prod", headers={"Host": API_HOST}, http2=True).status == 200, api.last.refusal

    assert api.last.request.header("host") == API_HOST


@pytest.mark.parametrize(
    ("host", "path", "mark"),
    [
        ("us.orders.internal", "/a", "wildcard"),
        ("a.b.us.orders.internal", "/a", "wildcard"),
        ("b.eu.orders.internal", "/a", "deeper wildcard"),
        ("a.eu.orders.internal", "/a", "exact"),
        ("A.EU.Orders.Internal", "/a", "exact"),
        ("a.eu.orders.internal.", "/a", "exact"),
        ("a.eu.orders.internal.:8080", "/a", "exact"),
        ("x.a.eu.orders.internal", "/a", "deeper wildcard"),
        ("a.ports.internal:8443", "/a", "port"),
        # The longest prefix comes first, then the most exact hosts.
        ("a.eu.orders.internal", "/special", "longer prefix"),
        ("a.eu.orders.internal", "/specials", "exact"),
        ("a.eu.orders.internal", "/special/any", "no hosts"),
    ],
)
def test_the_longest_prefix_and_then_the_most_exact_hosts_win(proxy, api, host, path, mark):
    assert proxy.request(path, headers={"Host": host}).status == 200, api.last.refusal

    assert api.last.request.header("x-route") == mark


@pytest.mark.parametrize(
    "host",
    [
        "amazonaws.com",
        "notamazonaws.com",
        f"{API_HOST}.evil.example",
        f"evil.example/.{API_HOST}",
        f"user@{API_HOST}",
        f"{API_HOST}:99999",
        f"{API_HOST}..",
        "orders.internal",
        "a.ports.internal",
        "a.ports.internal:443",
        "127.0.0.1",
    ],
)
def test_other_hosts_pass_untouched_and_unsigned(proxy, api, host):
    own = {"authorization": "Bearer mine", "x-amz-date": "20200101T000000Z", "x-amz-security-token": "mine"}
    response = proxy.request("/a%2Fb?x=1+2", headers={"Host": host, **own, "x-route": "mine"})

    if response.status == 400:  # Envoy itself refuses an invalid authority.
        assert not api.received
        return
    assert api.last.request.target == "/a%2Fb?x=1+2"
    assert api.last.request.header("host") == host
    for name, value in {**own, "x-route": "mine"}.items():
        assert api.last.request.header(name) == value
    assert api.last.request.header("x-amz-content-sha256") is None


def test_bodies_of_unmatched_requests_pass_untouched(proxy, api):
    body = bytes(range(256)) * 1000
    proxy.request("/a", "POST", headers={"Host": "elsewhere.example"}, body=body)

    assert api.last.request.body == body
    assert api.last.refusal == "no Authorization header"


def test_a_path_that_is_refused_elsewhere_passes_where_no_route_would_take_it(proxy, api):
    proxy.request("/a/../b", headers={"Host": "elsewhere.example"})

    assert api.last.request.target == "/a/../b"


def test_a_path_that_is_refused_does_not_get_past_its_route_by_that(proxy, api):
    response = proxy.request("/a/../b", headers={"Host": API_HOST})

    assert (response.status, response.json["error"]["code"]) == (400, "InvalidPath")
    assert not api.received


# The scope of a client that signs with a throw-away key of its own.


def own_signature(service: str, region: str = REGION) -> dict:
    credential = f"AKIDTHROWAWAY/20260101/{region}/{service}/aws4_request"
    signature = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    return {"authorization": signature, "x-amz-date": "20260101T000000Z", "x-amz-security-token": "throw-away"}


def test_the_scope_that_the_client_signed_under_is_used(proxy, api):
    headers = {"Host": "a.scope.internal", **own_signature("execute-api")}
    assert proxy.request("/client", headers=headers).status == 200, api.last.refusal

    assert api.last.verdict.access_key_id == TEMPORARY_KEY.access_key


def test_another_scope_of_the_client_is_used_as_it_is(proxy, api):
    proxy.request("/client", headers={"Host": "a.scope.internal", **own_signature("es", "eu-central-1")})

    assert "/eu-central-1/es/aws4_request" in api.last.refusal


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer garbage",
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1",
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/eu west/execute-api/aws4_request",
        "AWS4-HMAC-SHA256 Credential=AKID/20260101/../execute-api/aws4_request/x",
        "AWS4-ECDSA-P256-SHA256 Credential=AKID/20260101/execute-api/aws4_request",
    ],
)
def test_without_a_scope_of_the_client_the_request_is_refused(proxy, api, authorization):
    headers = {"Host": "a.scope.internal", **({"authorization": authorization} if authorization else {})}
    response = proxy.request("/client", headers=headers)

    assert (response.status, response.json["error"]["code"]) == (400, "UnsupportedRequest")
    assert response.json["error"]["route"] == "/client"
    assert "throw-away key" in response.json["error"]["message"]
    assert not api.received


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/infer", "a.scope.internal"),
        ("/fixed", "a.scope.internal"),
        ("/client-aws", API_HOST),
        ("/first-fixed", f"iam.{REGION}.amazonaws.com"),
    ],
)
def test_the_policy_and_the_hosts_name_win_over_the_client(proxy, api, path, host):
    headers = {"Host": host, **own_signature("iam", "us-east-1")}

    assert proxy.request(path, headers=headers).status == 200, api.last.refusal


def mismatches(proxy) -> int:
    line = 'sigv4_scope_mismatches{route="/client-aws",outcome="Signed"}'
    found = [text for text in proxy.envoy.admin("/stats/prometheus").splitlines() if text.startswith(line)]
    return int(found[0].split()[-1]) if found else 0


def test_a_scope_of_the_client_that_is_not_used_is_counted_and_logged(proxy, api):
    proxy.envoy.admin("/logging?wasm=debug", "POST")
    before = mismatches(proxy)

    assert proxy.request("/client-aws", headers={"Host": API_HOST, **own_signature("execute-api")}).status == 200
    assert mismatches(proxy) == before
    assert proxy.request("/client-aws", headers={"Host": API_HOST, **own_signature("iam", "us-east-1")}).status == 200

    wait_until(lambda: mismatches(proxy) == before + 1, "the mismatch to be counted")
    line = f"the client signed for iam in us-east-1, but {API_HOST} is signed for execute-api in {REGION}"
    wait_until(lambda: line in proxy.envoy.log, "the line")
    proxy.envoy.admin("/logging?wasm=info", "POST")


def test_with_client_first_the_clients_scope_wins_over_the_hosts_name(proxy, api):
    host = f"unheard-of.{REGION}.amazonaws.com"
    assert proxy.request("/first", headers={"Host": host, **own_signature("execute-api")}).status == 200
    assert proxy.request("/first", headers={"Host": API_HOST}).status == 200, api.last.refusal

    proxy.request("/first", headers={"Host": API_HOST, **own_signature("iam", "us-east-1")})
    assert "/us-east-1/iam/aws4_request" in api.last.refusal


def test_a_client_that_signs_for_s3_does_not_get_the_body_past_the_signature(proxy, api):
    """The host's name decides on the form of path and body."""
    headers = {"Host": API_HOST, **own_signature("s3")}
    proxy.request("/first/a%2Fb", "PUT", headers=headers, body=b"order")

    assert api.last.request.target == "/first/a%2Fb"
    assert api.last.request.header("x-amz-content-sha256") != "UNSIGNED-PAYLOAD"


def test_a_host_that_does_not_tell_its_service_is_refused_where_nothing_else_does(proxy, api):
    response = proxy.request("/", headers={"Host": "unheard-of-service.amazonaws.com"})

    assert (response.status, response.json["error"]["code"]) == (400, "UnsupportedRequest")
    assert "set both" in response.json["error"]["message"]
    assert not api.received


def test_what_can_not_be_signed_is_refused_before_its_body_has_come(proxy, api):
    """Also over HTTP/2, where the stream stays open."""
    headers, host = [("content-type", "text/plain")], "unheard-of-service.amazonaws.com"
    response = http2(proxy.port, "POST", "/", headers=headers, body=b"x", authority=host, ends=False)

    assert (response.status, response.json["error"]["code"]) == (400, "UnsupportedRequest")
    assert not api.received


def test_a_host_that_takes_sigv4a_alone_says_what_to_set(proxy, api):
    response = proxy.request("/", headers={"Host": "m1.mrap.accesspoint.s3-global.amazonaws.com"})

    assert (response.status, response.json["error"]["code"]) == (400, "UnsupportedRequest")
    assert "signing.algorithm: sigv4a" in response.json["error"]["message"]
    assert not api.received


@pytest.fixture(scope="module")
def denying_proxy(start_shared_proxy, _api):
    return start_mesh_proxy(start_shared_proxy, _api, [{"prefix": "/", "hosts": ["*.amazonaws.com"]}])


@pytest.mark.parametrize("unmatched", ["deny", "pass"])
@pytest.mark.parametrize("target", [f"{API_HOST}:443", f"{API_HOST.upper()}:8443"])
def test_a_tunnel_to_a_signed_host_is_refused_with_advice(request, api, target, unmatched):
    proxy = request.getfixturevalue("proxy" if unmatched == "pass" else "denying_proxy")
    connect = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    answer = raw.http1(proxy.port, connect)

    assert raw.statuses(answer) == [400]
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "UnsupportedRequest"
    assert "http_proxy" in error["message"]
    assert not api.received


def test_what_no_host_matches_is_denied_where_the_policy_says_so(start_proxy, api):
    proxy = start_mesh_proxy(start_proxy, api, [{"prefix": "/", "hosts": ["*.amazonaws.com"]}])

    assert proxy.request("/a", headers={"Host": API_HOST}).status == 200
    api.reset()
    response = proxy.request("/a", headers={"Host": "elsewhere.example"})
    assert (response.status, response.json["error"]["code"]) == (404, "NoRoute")
    assert not api.received


def test_a_route_with_a_target_beside_it_keeps_to_its_target(start_proxy, api):
    routes = [{"prefix": "/", "hosts": ["*.amazonaws.com"]}, {"prefix": "/api", **api_route(api, "/prod")}]
    proxy = start_mesh_proxy(start_proxy, api, routes)

    assert proxy.request("/api/a", headers={"Host": API_HOST}).status == 200, api.last.refusal
    assert api.last.request.target == "/prod/a"
    assert api.last.request.header("host") == f"127.0.0.1:{api.port}"


def test_a_policy_of_the_hosts_alone_needs_no_target(start_proxy, api):
    proxy = start_proxy(policy({"/": {"hosts": ["*.amazonaws.com"]}}), StockConfiguration.leading_https_to(api.port))
    proxy.push(TEMPORARY_KEY)

    assert proxy.request("/a", headers={"Host": API_HOST}).status == 200


# TLS to the upstream, which the policy knows and the filter can't see.

S3_HOST = f"bucket.s3.{REGION}.amazonaws.com"


@pytest.mark.parametrize(("member", "payload"), [({}, "unsigned"), ({"upstreamTls": True}, "unsigned"),
                                                 ({"upstreamTls": False}, "signed")])  # fmt: skip
def test_a_body_to_s3_is_hashed_where_the_policy_says_that_there_is_no_tls(start_proxy, s3, member, payload):
    proxy = start_mesh_proxy(start_proxy, s3, [{"prefix": "/", "hosts": ["*.amazonaws.com"], **member}])

    assert proxy.request("/key", "PUT", headers={"Host": S3_HOST}, body=b"object").status == 200, s3.last.refusal
    assert s3.last.verdict.payload == payload


def test_a_large_body_to_s3_streams_without_a_target_too(start_proxy, s3):
    proxy = start_mesh_proxy(start_proxy, s3, [{"prefix": "/", "hosts": ["*.amazonaws.com"]}])

    body = bytes(30 << 20)
    assert proxy.request("/key", "PUT", headers={"Host": S3_HOST}, body=body).status == 200, s3.last.refusal
    assert len(s3.last.request.body) == len(body)


def through(cluster: str, upstream, *, weighted: bool = False) -> StockConfiguration:
    """Sends all requests without a target through a cluster of this name."""
    configuration = StockConfiguration.leading_https_to(upstream.port)
    configuration.cluster("client_hosts")["name"] = cluster
    [targets] = configuration.http_connection_manager("traffic")["route_config"]["virtual_hosts"]
    route = targets["routes"][-1]["route"]
    del route["cluster"]
    clusters = {"clusters": [{"name": cluster, "weight": 1}]}
    route |= {"weighted_clusters": clusters} if weighted else {"cluster": cluster}
    return configuration


PASS_THROUGH = ["PassthroughCluster", "InboundPassthroughCluster", "InboundPassthroughClusterIpv4"]


@pytest.mark.parametrize(("cluster", "weighted"), [(PASS_THROUGH[0], True), *((name, False) for name in PASS_THROUGH)])
def test_nothing_signed_leaves_through_istios_pass_through_cluster(start_proxy, api, cluster, weighted):
    routes = [
        {"prefix": "/", "hosts": ["*.amazonaws.com"]},
        {"prefix": "/plain", "hosts": ["*.amazonaws.com"], "upstreamTls": False},
        {"prefix": "/query", "hosts": ["*.amazonaws.com"], "signing": {"location": "query"}},
    ]
    proxy = start_proxy(policy(routes, unmatched="pass"), through(cluster, api, weighted=weighted))
    proxy.push(TEMPORARY_KEY)

    for path, body in [("/a", None), ("/a", b"body"), ("/query/a", None)]:
        response = proxy.request(path, "POST" if body else "GET", headers={"Host": API_HOST}, body=body)
        assert (response.status, response.json["error"]["code"]) == (500, "SigningFailed")
        message = response.json["error"]["message"]
        assert API_HOST in message and "ServiceEntry" in message and "upstreamTls" in message
    assert not api.received
    # Requests that the policy itself sends in clear text, and those that it does not sign.
    assert proxy.request("/plain", headers={"Host": API_HOST}).status == 200, api.last.refusal
    assert proxy.request("/a", headers={"Host": "elsewhere.example"}).status == 403
    assert api.last.refusal == "no Authorization header"


@pytest.mark.parametrize("cluster", ["outbound|80||s3.eu-west-1.amazonaws.com", "passthrough", "MyPassthroughCluster"])
def test_other_clusters_are_taken_for_what_the_policy_says(start_proxy, api, cluster):
    proxy = start_proxy({"routes": {"/": {"hosts": ["*.amazonaws.com"]}}}, through(cluster, api))
    proxy.push(TEMPORARY_KEY)

    wait_until(lambda: proxy.request("/a", headers={"Host": API_HOST}).status == 200, "the credentials")
