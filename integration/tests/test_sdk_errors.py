"""boto3 shows why the proxy refused a request, whatever the protocol of the service."""

import json

import boto3
import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from integration.harness.policies import api_route, route
from integration.harness.sdk import sdk_client

SESSION = boto3.Session()


def _protocols(service: str) -> set[str]:
    metadata = SESSION._session.get_service_model(service).metadata
    return {metadata["protocol"], *metadata.get("protocols", [])}


def _has_no_json(service: str) -> bool:
    return bool(_protocols(service) & {"query", "ec2", "rest-xml", "smithy-rpc-v2-cbor"})


# All that have XML or CBOR, and of those that have JSON each kind.
SERVICES = [name for name in SESSION.get_available_services() if _has_no_json(name)] + ["dynamodb", "sqs", "lambda"]


def _client(service: str, url: str, **config):
    return sdk_client(service, url, session=SESSION, parameter_validation=False, **config)


def _call(client) -> None:
    """Calls an operation that needs nothing but an account in its path, with what it may lack beside that."""
    model = client.meta.service_model
    operations = [model.operation_model(name) for name in model.operation_names]
    has_path = {operation.name for operation in operations if "{" in operation.http["requestUri"]}
    name = next(each.name for each in operations if each.name not in has_path and each.http["method"] != "HEAD")
    client._make_api_call(name, {"AccountId": "123456789012"} if model.service_name == "s3control" else {})


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _api):
    """A proxy without credentials, with a route for each service."""
    routes = {
        f"/{service}": route(SESSION._session.get_service_model(service).signing_name, _api) for service in SERVICES
    }
    routes["/authenticated"] = route("s3", _api, allowUnauthenticatedRequests=False)
    routes["/orders"] = api_route(_api)
    return start_shared_proxy({"routes": routes})


@pytest.mark.parametrize("service", SERVICES)
def test_an_sdk_shows_code_and_message(proxy, service):
    # S3 Control puts the account before the host; a name that nothing resolves goes to the proxy all the same.
    client = _client(service, f"http://proxy.test/{service}", proxies={"http": proxy.url})
    with pytest.raises(ClientError) as raised:
        _call(client)

    response = raised.value.response
    assert response["Error"]["Code"] == "NoCredentials"
    assert "the proxy holds no valid credentials for identity default" in response["Error"]["Message"]
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 503


@pytest.mark.parametrize("service", ["s3", "sts", "ec2", "cloudwatch", "dynamodb", "lambda"])
def test_an_sdk_that_does_not_sign_is_known_by_its_headers(proxy, service):
    client = _client(service, f"{proxy.url}/{service}", signature_version=UNSIGNED)
    with pytest.raises(ClientError, match=r"\(NoCredentials\).*the proxy holds no valid credentials"):
        _call(client)


@pytest.mark.parametrize("service", ["s3", "sts", "dynamodb", "cloudwatch"])
def test_an_sdk_shows_that_no_route_took_its_request(proxy, service):
    with pytest.raises(ClientError, match=r"\(NoRoute\).*no route of the signing policy matches"):
        _call(_client(service, f"{proxy.url}/unknown"))


def test_an_sdk_shows_that_it_is_not_authenticated(proxy):
    with pytest.raises(ClientError, match=r"\(Unauthenticated\).*verified client certificate"):
        _call(_client("s3", f"{proxy.url}/authenticated"))


def test_an_sdk_shows_that_its_path_is_refused(proxy):
    with pytest.raises(ClientError, match=r"\(InvalidPath\)"):
        _client("s3", f"{proxy.url}/s3").get_object(Bucket="bucket", Key="a/../<b>&amp;")


@pytest.mark.parametrize("path", ["/s3/key", "/sts", "/dynamodb", "/orders", "/unknown"])
def test_a_plain_client_gets_plain_json(proxy, path):
    response = proxy.request(path, "POST", body=b"Action=GetCallerIdentity")
    assert response.headers["content-type"] == "application/json"
    assert set(json.loads(response.body)) == {"error"}
