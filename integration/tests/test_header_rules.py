"""Header rules: headers that pass, are dropped or set, and those that no rule changes."""

import pytest

from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.harness.upstream import Answer

SENT = {
    "accept": "text/plain",
    "content-type": "text/plain",
    "cookie": "session=1",
    "x-one": "1",
    "x-two": "2",
    "other": "3",
}
OWNED = {
    "x-amz-date": "20200101T000000Z",
    "x-amz-security-token": "the client's",
    "x-amz-content-sha256": "0" * 64,
    "authorization": "Bearer mine",
}


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    request_rules = {
        "/all": {},
        "/allow": {"allow": ["accept", "X-*"]},
        "/none": {"allow": []},
        "/remove": {"remove": ["cookie", "X-*"]},
        "/both": {"allow": ["x-*"], "remove": ["x-two"]},
        "/set": {"set": {"x-team": "a", "X-One": "the policy's"}},
        "/set-over": {"allow": ["x-*"], "remove": ["x-t*"], "set": {"x-two": "the policy's", "x-team": "a b\tc"}},
        # A pattern that would match the signature and the framing if they were not protected.
        "/greedy": {"remove": ["x-*", "a*", "c*", "h*", "t*"]},
    }
    routes = {prefix: api_route(_api, requestHeaders=rules) for prefix, rules in request_rules.items()}
    signed = {"set": {"x-team": "a", "x-empty": "", "x-blanks": "  two   blanks  "}}
    routes["/signed"] = api_route(
        _api, requestHeaders=signed, signedHeaders=["X-Team", "x-absent", "x-empty", "x-blanks"]
    )
    routes["/signed-own"] = api_route(_api, signedHeaders=["x-one", "cookie"])
    for prefix, rules in {
        "/response/allow": {"allow": ["content-type", "x-*"]},
        "/response/none": {"allow": []},
        "/response/remove": {"remove": ["set-cookie", "x-*"]},
        "/response/set": {"remove": ["x-two"], "set": {"x-two": "the policy's", "x-new": "n"}},
        "/response/all": {},
    }.items():
        routes[prefix] = api_route(_api, responseHeaders=rules)
    proxy = start_shared_proxy(policy(routes))
    proxy.push(TEMPORARY_KEY)
    return proxy


def forwarded(api) -> dict[str, str]:
    """Returns the headers of `SENT` and the rules that arrived."""
    names = {*SENT, "x-team", "x-empty", "x-blanks"}
    return {name: value for name, value in api.last.request.headers if name.lower() in names}


def only(*names: str) -> dict[str, str]:
    return {name: SENT[name] for name in names}


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("path", "arrive"),
    [
        ("/all", SENT),
        ("/allow", only("accept", "x-one", "x-two")),
        ("/none", {}),
        ("/remove", only("accept", "content-type", "other")),
        ("/both", only("x-one")),
        ("/set", {**SENT, "x-team": "a", "x-one": "the policy's"}),
        ("/set-over", {**only("x-one"), "x-two": "the policy's", "x-team": "a b\tc"}),
        ("/greedy", only("other")),
    ],
)
def test_request_headers_go_by_the_rules(proxy, api, path, arrive, http2):
    assert proxy.request(path, headers={"User-Agent": "", **SENT}, http2=http2).status == 200, api.last.refusal

    assert forwarded(api) == arrive


@pytest.mark.parametrize("path", ["/none", "/greedy", "/allow"])
def test_no_rule_takes_the_body_or_the_signature_along(proxy, api, path):
    body = b"x" * 70_000
    assert proxy.request(path, "PUT", headers=SENT, body=body).status == 200, api.last.refusal

    assert api.last.request.body == body
    assert api.last.request.header("host") == f"127.0.0.1:{api.port}"


@pytest.mark.parametrize("path", ["/all", "/allow", "/none", "/remove", "/greedy", "/signed"])
def test_what_the_client_sends_of_the_signatures_headers_gives_way(proxy, api, path):
    assert proxy.request(path, headers=OWNED).status == 200, api.last.refusal

    for name, value in OWNED.items():
        assert value not in [sent for other, sent in api.last.request.headers if other.lower() == name]


def test_the_signatures_headers_of_a_client_go_where_the_signature_has_none(start_proxy, api):
    proxy = start_proxy(policy({"/api": api_route(api)}))
    proxy.push(STATIC_KEY)

    assert proxy.request("/api", headers=OWNED).status == 200, api.last.refusal
    assert api.last.request.header("x-amz-security-token") is None


def test_repeated_headers_all_give_way_to_what_is_set(proxy, api):
    headers = [("x-one", "a"), ("x-two", "2"), ("X-One", "b")]
    assert proxy.request("/set", headers=headers).status == 200, api.last.refusal

    assert [value for name, value in api.last.request.headers if name.lower() == "x-one"] == ["the policy's"]


def test_what_is_set_can_be_signed(proxy, api):
    headers = {"x-team": "the client's", "x-empty": "the client's", "x-blanks": "the client's"}
    assert proxy.request("/signed", headers=headers).status == 200, api.last.refusal

    assert {"x-team", "x-empty", "x-blanks"} <= set(api.last.verdict.signed_headers)
    assert forwarded(api)["x-team"] == "a"


def test_what_is_not_there_is_not_signed(proxy, api):
    assert proxy.request("/signed").status == 200, api.last.refusal

    assert "x-absent" not in api.last.verdict.signed_headers


def test_what_the_client_sends_can_be_signed(proxy, api):
    headers = [("x-one", "  two   blanks "), ("x-one", "again"), ("cookie", "a=1"), ("cookie", "b=2")]
    assert proxy.request("/signed-own", headers=headers).status == 200, api.last.refusal

    assert {"x-one", "cookie"} <= set(api.last.verdict.signed_headers)


ANSWERED = [
    ("content-type", "text/plain"),
    ("set-cookie", "a=1"),
    ("set-cookie", "b=2"),
    ("x-one", "1"),
    ("x-two", "2"),
    ("x-two", "again"),
    ("other", "3"),
]


@pytest.mark.parametrize(
    ("path", "arrive"),
    [
        ("/response/all", {"content-type", "set-cookie", "x-one", "x-two", "other"}),
        ("/response/allow", {"content-type", "x-one", "x-two"}),
        ("/response/none", set()),
        ("/response/remove", {"content-type", "other"}),
    ],
)
def test_response_headers_go_by_the_rules(proxy, api, path, arrive):
    api.answer = Answer(206, ANSWERED, [b"body"])
    response = proxy.request(path)

    assert (response.status, response.body) == (206, b"body")
    assert {name for name, _ in ANSWERED} & set(response.headers) == arrive


def test_response_headers_are_set(proxy, api):
    api.answer = Answer(200, ANSWERED, [b"body"])
    response = proxy.request("/response/set")

    assert (response.headers["x-two"], response.headers["x-new"]) == ("the policy's", "n")
    assert response.body == b"body"


def test_a_refusal_of_the_filter_keeps_its_own_headers(proxy):
    response = proxy.request("/response/none/../x")

    assert response.status == 400
    assert response.headers["content-type"] == "application/json"
