"""The endpoint data of the Rust tests matches botocore, and what its clients really sign for."""

import re

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from integration.endpoints.data import DATA, UNSIGNED_OPERATIONS, read_data
from integration.endpoints.generate import Endpoints, render, render_unsigned_operations


def test_the_data_is_what_botocore_gives():
    endpoints = Endpoints()
    for file, written in ((DATA, render(endpoints)), (UNSIGNED_OPERATIONS, render_unsigned_operations(endpoints))):
        assert list(written) == file.read_text().splitlines(), (
            "run python -m integration.endpoints.generate and look at the change"
        )


SCOPE = re.compile(rb"AWS4-HMAC-SHA256 Credential=[^/]*/\d{8}/([^/]*)/([^/]*)/aws4_request")

# Loading the descriptions of all services takes its time.
pytestmark = pytest.mark.timeout(600)


class Sent(Exception):
    def __init__(self, request):
        self.request = request


def stop(request, **_):
    raise Sent(request)


def signed_by_clients(partition, region, **variant):
    """Returns where each service's client sends an operation that needs no input, and what it signs it for."""
    endpoints = Endpoints()
    session = endpoints.session
    session.set_credentials("AKIAIOSFODNN7EXAMPLE", "secret")
    for name in session.get_available_services():
        service = session.get_service_model(name)
        if region not in endpoints.regions_of(service, partition):
            continue
        operations = [service.operation_model(operation) for operation in service.operation_names]
        without_input = [o for o in operations if o.input_shape is None or not o.input_shape.required_members]
        client = session.create_client(name, region, config=Config(retries={"max_attempts": 0}, **variant))
        client.meta.events.register_first("before-send", stop)
        for operation in without_input[:3]:
            try:
                client._make_api_call(operation.name, {})
            except Sent as sent:
                authorization = sent.request.headers.get("Authorization", b"")
                scope = SCOPE.search(authorization)
                if scope:
                    host = re.sub(r"^https://([^/:]*).*$", r"\1", sent.request.url)
                    yield host, scope[2].decode(), scope[1].decode()
            except BotoCoreError:
                # The service has no such variant, or requires input after all.
                continue


@pytest.mark.parametrize(
    ("partition", "region", "variant"),
    [("aws", "eu-west-1", {}), ("aws-us-gov", "us-gov-west-1", {"use_fips_endpoint": True})],
)
def test_clients_sign_for_what_the_data_says(partition, region, variant):
    signed = set(signed_by_clients(partition, region, **variant))
    assert len(signed) > 300
    assert sorted(signed - read_data()) == []
