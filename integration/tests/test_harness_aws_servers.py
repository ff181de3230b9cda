"""The AWS servers accept the callers that AWS would accept, and nobody else."""

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError


@pytest.fixture(params=["ministack", "moto"])
def server(request):
    return request.getfixturevalue(request.param)


def error_code(call, *arguments, **keywords) -> str:
    with pytest.raises(ClientError) as error:
        call(*arguments, **keywords)
    return error.value.response["Error"]["Code"]


def test_knows_the_user(server):
    assert server.client("sts").get_caller_identity()["Arn"].endswith(":user/workload")


def test_issues_a_role_whose_credentials_are_let_in(server):
    identity = server.client("sts", server.assume_role("a-session")).get_caller_identity()

    assert identity["Arn"].endswith(":assumed-role/orders-reader/a-session")


def test_refuses_a_wrong_secret(server):
    liar = Credentials(server.user.access_key, "not-the-secret")

    assert error_code(server.client("sts", liar).get_caller_identity) == "SignatureDoesNotMatch"


def test_refuses_an_unknown_key(server):
    stranger = Credentials("AKIAXXXXXXXXXXXXXXXX", "secret")

    assert error_code(server.client("sts", stranger).get_caller_identity) == "InvalidClientTokenId"


def test_refuses_a_wrong_session_token(ministack):
    role = ministack.assume_role()
    forged = Credentials(role.access_key, role.secret_key, "forged")

    assert error_code(ministack.client("s3", forged).list_buckets) == "InvalidToken"


def test_s3_refuses_a_wrong_secret(ministack):
    liar = Credentials(ministack.user.access_key, "not-the-secret")

    assert error_code(ministack.client("s3", liar).list_buckets) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(("service", "operation"), [("sqs", "list_queues"), ("dynamodb", "list_tables")])
def test_moto_refuses_a_wrong_secret(moto, service, operation):
    liar = Credentials(moto.user.access_key, "not-the-secret")

    assert getattr(moto.client(service), operation)()
    # The code is "403": moto refuses in XML, which SDKs of services with a JSON protocol can't read.
    assert error_code(getattr(moto.client(service, liar), operation)) == "403"
