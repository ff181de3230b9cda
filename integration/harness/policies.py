"""The policies of the tests, and their routes."""

from typing import Protocol

from integration.stack.aws_servers import REGION


class Target(Protocol):
    """What a route leads to: an upstream, an AWS server, or a capture before one."""

    url: str


def policy(routes: dict, **members) -> dict:
    """Returns a policy whose requests wait for the first credentials, so no test depends on when a push is seen."""
    return {"routes": routes, "credentialsWaitMs": 5000, **members}


def api_route(target: Target, path: str = "", **members) -> dict:
    return {"target": target.url + path, "service": "execute-api", "region": REGION, **members}


def s3_route(target: Target, path: str = "", **members) -> dict:
    return {"target": target.url + path, "service": "s3", "region": REGION, **members}
