"""Access to the intake, and its answers."""

import hashlib
import json
import socket
import stat

import pytest

from integration.harness import raw
from integration.harness.certificates import Authority
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route, policy
from integration.stack.client import curl
from integration.stack.intake import credential_document
from integration.stack.process import wait_until
from integration.stack.proxy import StockConfiguration

ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"
TOKEN = "correct-horse"
PUSH = "/v1/identities/default/credentials"


@pytest.fixture
def proxy(start_proxy, api):
    return start_proxy(policy({"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}))


@pytest.fixture(scope="module")
def lasting_proxy(start_shared_proxy, _api):
    """Returns a proxy for tests that begin with a push, and do not depend on earlier state."""
    return start_shared_proxy(policy({"/api": api_route(_api)}))


def error_code(response) -> str:
    return response.json["error"]["code"]


def test_lists_what_the_policy_wants(proxy):
    proxy.push(TEMPORARY_KEY)
    identities = proxy.identities()

    assert identities["default"]["held"]["accessKeyId"] == TEMPORARY_KEY.access_key
    [role] = [entry for entry in identities.values() if entry["id"] != "default"]
    assert (role["roleArn"], role["roleSessionName"], role["held"]) == (ROLE_ARN, "tempAssumeRoleSession", None)


def test_no_answer_and_no_log_holds_a_secret(proxy):
    proxy.push(TEMPORARY_KEY)
    proxy.request("/api")
    broken = credential_document(TEMPORARY_KEY)[:-1]
    answers = [
        proxy.intake("/v1/identities"),
        proxy.intake("/v1/status"),
        proxy.intake(PUSH, "PUT", broken),
    ]

    told = "".join(answer.text for answer in answers) + proxy.envoy.log
    assert TEMPORARY_KEY.secret_key not in told
    assert TEMPORARY_KEY.token not in told


def test_status_is_ready_when_every_identity_holds_credentials(proxy):
    proxy.push(TEMPORARY_KEY)
    [role] = set(proxy.identities()) - {"default"}
    assert proxy.intake("/v1/status").status == 503
    assert role in proxy.intake("/v1/status").text

    proxy.push(TEMPORARY_KEY, role)
    assert proxy.intake("/v1/status").status == 200


@pytest.mark.parametrize(
    "document", [b"", b"not json", b"{}", b'{"Version": 2}', b"\xff", b'{"Version": 1, "AccessKeyId": "A/B"}']
)
def test_refuses_what_is_no_credential_document(lasting_proxy, document):
    lasting_proxy.push(STATIC_KEY)

    assert lasting_proxy.intake(PUSH, "PUT", document).status == 400
    assert lasting_proxy.identities()["default"]["held"]["accessKeyId"] == STATIC_KEY.access_key


def test_refuses_an_identity_that_no_policy_wants(proxy):
    document = credential_document(STATIC_KEY)

    assert proxy.intake("/v1/identities/other/credentials", "PUT", document).status == 404


@pytest.mark.parametrize(
    ("size", "status"), [(64 * 1024, 204), (64 * 1024 + 1, 413), (8 << 20, 413)], ids=["64 KiB", "a byte more", "8 MiB"]
)
@pytest.mark.parametrize("framing", [{}, {"Transfer-Encoding": "chunked"}], ids=["length", "chunked"])
def test_a_document_has_at_most_64_kib(lasting_proxy, size, status, framing):
    lasting_proxy.push(STATIC_KEY)
    document = credential_document(TEMPORARY_KEY).ljust(size)

    # Envoy may close the connection before it has read everything, which curl reports as an error.
    answer = curl(f"http://intake{PUSH}", "PUT", framing, document, unix_socket=str(lasting_proxy.socket))
    assert answer.status == status
    held = TEMPORARY_KEY if status == 204 else STATIC_KEY
    assert lasting_proxy.identities()["default"]["held"]["accessKeyId"] == held.access_key


@pytest.mark.parametrize("method", ["POST", "PATCH", "GET", "HEAD", "OPTIONS"])
def test_other_methods_are_refused_and_change_nothing(lasting_proxy, method):
    lasting_proxy.push(STATIC_KEY)
    answer = lasting_proxy.intake(
        PUSH, method, None if method in ("GET", "HEAD") else credential_document(TEMPORARY_KEY)
    )

    assert (answer.status, answer.headers.get("allow")) == (405, "PUT, DELETE")
    assert lasting_proxy.intake("/v1/identities", "DELETE").headers.get("allow") == "GET"
    assert lasting_proxy.identities()["default"]["held"]["accessKeyId"] == STATIC_KEY.access_key


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"{PUSH}?unless_revoked"),
        ("PUT", f"{PUSH}?unless-revoked=1"),
        ("DELETE", f"{PUSH}?unless-revoked"),
        ("GET", "/v1/identities?after=now"),
        ("GET", "/v1/identities?since=1"),
        ("GET", "/v1/status?x"),
    ],
)
def test_a_query_that_a_call_does_not_have_is_refused_and_changes_nothing(lasting_proxy, method, path):
    lasting_proxy.push(STATIC_KEY)
    lasting_proxy.revoke()
    revoked = lasting_proxy.identities()["default"]["revoked"]

    answer = lasting_proxy.intake(path, method, credential_document(STATIC_KEY) if method == "PUT" else None)

    assert (answer.status, error_code(answer)) == (400, "InvalidQuery")
    default = lasting_proxy.identities()["default"]
    assert (default["held"], default["revoked"]) == (None, revoked)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/identities/other/credentials",
        "/v1/identities/%64efault/credentials",
        "/v1/identities/default%00/credentials",
        "/v1/identities/../identities/default/credentials/..",
        "/v1/identities//credentials",
        "/v1/identities/default/credentials/",
        "/v1/identities/default",
        "//v1/identities",
        "/",
    ],
)
def test_an_identity_or_a_resource_that_is_not_there(lasting_proxy, path):
    lasting_proxy.push(STATIC_KEY)

    assert lasting_proxy.intake(path, "PUT", credential_document(TEMPORARY_KEY)).status == 404
    assert lasting_proxy.intake(path, "DELETE").status == 404
    assert lasting_proxy.identities()["default"]["held"]["accessKeyId"] == STATIC_KEY.access_key


def test_the_socket_is_for_its_owner_alone(proxy):
    assert stat.S_IMODE(proxy.socket.stat().st_mode) == 0o600


@pytest.fixture(scope="module")
def network_intake(start_shared_proxy, _api):
    """Starts a proxy whose intake listens on TCP; returns its URL."""
    configuration = StockConfiguration()
    configuration.listener("intake")["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    configuration.configure(configuration.intake, {"intake": {"tokenSha256": [digest]}})
    proxy = start_shared_proxy(policy({"/api": api_route(_api)}), configuration)
    return f"http://127.0.0.1:{proxy.envoy.port('intake')}"


def test_over_the_network_a_listed_token_lets_in(network_intake):
    headers = {"Authorization": f"Bearer {TOKEN}"}

    assert curl(network_intake + "/v1/identities", headers=headers).status == 200
    assert curl(network_intake + PUSH, "PUT", headers, credential_document(STATIC_KEY)).status == 204


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", f"Basic {TOKEN}", TOKEN])
def test_over_the_network_nobody_else_is_let_in(network_intake, authorization):
    headers = {"Authorization": authorization} if authorization else {}

    for method, path, body in [("GET", "/v1/identities", None), ("PUT", PUSH, credential_document(STATIC_KEY))]:
        response = curl(network_intake + path, method, headers, body)
        assert (response.status, error_code(response)) == (401, "Unauthenticated")


@pytest.mark.parametrize("value", [b"Bearer \xff", b"Bearer " + TOKEN.encode() + b"\x80", b"Bearer\t" + TOKEN.encode()])
def test_a_token_that_is_no_text_lets_nobody_in(network_intake, value):
    port = int(network_intake.rpartition(":")[2])
    request = b"GET /v1/identities HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: " + value + b"\r\n\r\n"

    [status] = raw.statuses(raw.http1(port, request))
    assert status == 401


# A client certificate.


@pytest.fixture(scope="module")
def tls_intake(start_shared_proxy, _api, authority):
    """Starts a proxy whose intake listens on TCP with TLS, and accepts a CA's certificates; returns a function to call
    it."""
    configuration = StockConfiguration()
    configuration.listener("intake")["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    configuration.serve_tls("intake", *authority.issue("localhost"), authority.certificate)
    proxy = start_shared_proxy(policy({"/api": api_route(_api)}), configuration)

    def call(path: str, method: str = "GET", body: bytes | None = None, client=None, headers=()):
        options = ["--cacert", str(authority.certificate)]
        if client:
            options += ["--cert", str(client[0]), "--key", str(client[1])]
        url = f"https://localhost:{proxy.envoy.port('intake')}{path}"
        return curl(url, method, headers, body, options=options)

    return call


def test_a_verified_client_certificate_lets_in(tls_intake, authority):
    client = authority.issue("refresher")

    assert tls_intake(PUSH, "PUT", credential_document(STATIC_KEY), client).status == 204
    [identity] = json.loads(tls_intake("/v1/identities", client=client).body)["identities"]
    assert identity["held"]["accessKeyId"] == STATIC_KEY.access_key


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {TOKEN}"},
        {"X-Forwarded-Client-Cert": f'Hash={"4" * 64};Subject="CN=refresher"'},
    ],
    ids=["nothing", "a token that is not listed", "a claim"],
)
def test_tls_without_a_client_certificate_lets_nobody_in(tls_intake, headers):
    for method, path, body in [("GET", "/v1/identities", None), ("PUT", PUSH, credential_document(STATIC_KEY))]:
        response = tls_intake(path, method, body, headers=headers)
        assert (response.status, error_code(response)) == (401, "Unauthenticated")


def test_a_certificate_of_a_strange_authority_gets_nowhere(tls_intake, tmp_path):
    stranger = Authority(tmp_path).issue("refresher")

    with pytest.raises(RuntimeError, match="curl ended with"):
        tls_intake("/v1/identities", client=stranger)


@pytest.mark.parametrize(
    ("expiration", "status"),
    [
        ("1960-01-01T00:00:00Z", 400),
        ("1969-12-31T23:59:59.999999999Z", 400),
        ("1970-01-01T00:30:00+01:00", 400),
        ("0000-01-01T00:00:00Z", 400),
        ("0001-01-01T00:00:00+23:59", 400),
        ("9999-12-31T23:59:59-00:01", 400),
        ("10000-01-01T00:00:00Z", 400),
        ("18446744073709551615-01-01T00:00:00Z", 400),
        ("9999-12-31T23:59:59.999999999Z", 204),
        ("9999-12-31T23:59:59+23:59", 204),
        ("2999-02-29T00:00:00Z", 400),
        ("2999-01-01T00:00:00.1234567890123456789Z", 204),
    ],
)
def test_no_expiration_ends_the_virtual_machine(lasting_proxy, expiration, status):
    lasting_proxy.push(TEMPORARY_KEY)
    document = json.loads(credential_document(TEMPORARY_KEY)) | {"Expiration": expiration}

    answer = lasting_proxy.intake(PUSH, "PUT", json.dumps(document).encode())

    assert answer.status == status, answer
    if status == 400:
        assert error_code(answer) == "InvalidCredentials"
        assert "Expiration" in answer.json["error"]["message"]
    assert lasting_proxy.identities()["default"]["held"]["accessKeyId"] == TEMPORARY_KEY.access_key
    assert lasting_proxy.request("/api").status == 200
    assert not lasting_proxy.envoy.dead_vms


def test_callers_that_are_idle_or_slow_are_not_waited_for(start_proxy, api):
    """With the timeouts of the stock configuration, except a shorter idle timeout."""
    configuration = StockConfiguration()
    manager = configuration.http_connection_manager("intake")
    assert manager["common_http_protocol_options"] == {"idle_timeout": "60s"}
    manager["common_http_protocol_options"]["idle_timeout"] = "2s"
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
    head = b"PUT /v1/identities/default/credentials HTTP/1.1\r\nhost: intake\r\n"
    beginnings = [b"", head, head + b"content-length: 1000\r\n\r\n{"]
    callers = [connect(proxy, beginnings[n % 3]) for n in range(300)]

    assert proxy.intake("/v1/identities").status == 200
    wait_until(lambda: all(is_closed(caller) for caller in callers), "Envoy to close them all", timeout=20)


def connect(proxy, beginning: bytes) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(proxy.socket))
    caller.sendall(beginning)
    caller.setblocking(False)
    return caller


def is_closed(caller: socket.socket) -> bool:
    try:
        while caller.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True
