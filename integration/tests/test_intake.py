"""Who may push credentials, and what the intake says of them."""

import hashlib
import stat

import pytest

from conftest import STATIC_KEY, TEMPORARY_KEY, api_route, policy
from harness.client import curl
from harness.proxy import StockConfiguration, credential_document

ROLE_ARN = "arn:aws:iam::123456789012:role/orders-reader"
TOKEN = "correct-horse"
PUSH = "/v1/identities/default/credentials"


@pytest.fixture
def proxy(start_proxy, api):
    return start_proxy(policy({"/api": api_route(api), "/role": api_route(api, roleArn=ROLE_ARN)}))


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
def test_refuses_what_is_no_credential_document(proxy, document):
    proxy.push(STATIC_KEY)

    assert proxy.intake(PUSH, "PUT", document).status == 400
    assert proxy.identities()["default"]["held"]["accessKeyId"] == STATIC_KEY.access_key


def test_refuses_an_identity_that_no_policy_wants(proxy):
    document = credential_document(STATIC_KEY)

    assert proxy.intake("/v1/identities/other/credentials", "PUT", document).status == 404


def test_the_socket_is_for_its_owner_alone(proxy):
    assert stat.S_IMODE(proxy.socket.stat().st_mode) == 0o600


@pytest.fixture
def network_intake(start_proxy, api):
    """A proxy whose intake listens on TCP; its URL."""
    configuration = StockConfiguration()
    configuration.listener("intake")["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    configuration.configure(configuration.intake, {"intake": {"tokenSha256": [digest]}})
    proxy = start_proxy(policy({"/api": api_route(api)}), configuration)
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
