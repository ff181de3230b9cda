"""S3's control API keeps the encoded slashes of the ARNs in its paths; a bucket with the same name does not."""

import pytest

from integration.harness.keys import TEMPORARY_KEY
from integration.harness.policies import policy
from integration.stack.aws_servers import REGION
from integration.stack.proxy import StockConfiguration

ARN = "arn%3Aaws%3As3%3Aeu-west-1%3A123456789012%3Aaccess-grants%2Fdefault"
PATH = f"/v20180820/tags/{ARN}"


@pytest.fixture(scope="module")
def proxy(start_shared_proxy, _s3):
    configuration = StockConfiguration.leading_https_to(_s3.port)
    route = {"prefix": "/", "hosts": ["*.amazonaws.com"], "service": "s3", "region": REGION}
    proxy = start_shared_proxy(policy([route]), configuration)
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.mark.parametrize(
    "host",
    [
        f"123456789012.s3-control.{REGION}.amazonaws.com",
        f"123456789012.S3-CONTROL.{REGION}.amazonaws.com",
        f"123456789012.s3-control.{REGION}.amazonaws.com.",
        f"123456789012.s3-control.{REGION}.amazonaws.com:443",
        f"s3-control-fips.dualstack.{REGION}.amazonaws.com",
        f"s3express-control.{REGION}.amazonaws.com",
        f"s3-outposts.{REGION}.amazonaws.com",
        f"123456789012.control.vpce-1a2b-3c4d.s3.{REGION}.vpce.amazonaws.com",
    ],
)
def test_an_encoded_slash_stays_in_a_path_of_the_control_api(proxy, s3, host):
    assert proxy.request(PATH, headers={"Host": host}).status == 200, s3.last.refusal

    assert s3.last.request.target == PATH


@pytest.mark.parametrize(
    "host",
    [
        f"s3.{REGION}.amazonaws.com",
        f"s3-control.s3.{REGION}.amazonaws.com",
        f"my-s3-control-logs.s3.{REGION}.amazonaws.com",
        "s3-control.s3.amazonaws.com",
        f"s3express-control.s3.{REGION}.amazonaws.com",
        f"control.bucket.vpce-1a2b-3c4d.s3.{REGION}.vpce.amazonaws.com",
    ],
)
def test_an_encoded_slash_is_one_in_the_key_of_any_bucket(proxy, s3, host):
    assert proxy.request(PATH, headers={"Host": host}).status == 200, s3.last.refusal

    assert s3.last.request.target == PATH.replace("%2F", "/")
