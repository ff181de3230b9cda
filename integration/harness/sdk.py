"""boto3 as an application uses it: towards the proxy, with a key that gives no access."""

import boto3
from botocore.config import Config

from integration.harness.keys import THROWAWAY
from integration.stack.aws_servers import REGION


def sdk_client(
    service: str,
    url: str | None,
    verify: str | None = None,
    *,
    session=boto3,
    region: str = REGION,
    use_ssl: bool = True,
    **config,
):
    """Returns a client of `service` at `url`, or at the service's own endpoint. It tries each call once, and has S3's
    buckets in the path unless `config`, as for botocore's `Config`, says otherwise."""
    return session.client(
        service,
        endpoint_url=url,
        region_name=region,
        use_ssl=use_ssl,
        aws_access_key_id=THROWAWAY.access_key,
        aws_secret_access_key=THROWAWAY.secret_key,
        verify=verify,
        config=Config(**{"retries": {"total_max_attempts": 1}, "s3": {"addressing_style": "path"}, **config}),
    )
