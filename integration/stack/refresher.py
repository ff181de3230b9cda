"""The refresher, run as an operator would run it."""

from pathlib import Path

from botocore.credentials import Credentials

from .aws_servers import REGION, AwsServer
from .process import REPOSITORY, Process, environment_without_aws
from .proxy import Proxy

BINARY = REPOSITORY / "dist" / "credential-refresher"


class Refresher(Process):
    """A credential-refresher that supplies `proxy`, with `credentials` in its environment and an AWS server's STS."""

    def __init__(
        self,
        directory: Path,
        proxy: Proxy | None,
        sts: AwsServer,
        *arguments: str,
        credentials: Credentials | None = None,
        **variables: str,
    ):
        if not BINARY.exists():
            raise FileNotFoundError(f"{BINARY} is not there: run make build")
        source = credentials or sts.user
        super().__init__(
            "credential-refresher",
            [BINARY, "--proxy", f"unix:{proxy.socket if proxy else 'nowhere'}", *arguments],
            directory / "credential-refresher.log",
            environment_without_aws(
                **{
                    "AWS_ACCESS_KEY_ID": source.access_key,
                    "AWS_SECRET_ACCESS_KEY": source.secret_key,
                    "AWS_REGION": REGION,
                    "AWS_ENDPOINT_URL_STS": sts.url,
                    **variables,
                }
            ),
        )
