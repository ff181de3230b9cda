"""boto3 as an application uses it: towards the proxy, with a key that gives no access."""

import boto3
from botocore.config import Config

from integration.harness.keys import THROWAWAY
from integration.stack.aws_servers import REGION


def sdk_client(service: str, url: str, verify: str | None = None, **config):
    """Returns a client of `service` at `url`, which tries each call once; `config` as for botocore's `Config`."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=THROWAWAY.access_key,
        aws_secret_access_key=THROWAWAY.secret_key,
        verify=verify,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, **config),
    )
