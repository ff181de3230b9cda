"""The policies of the tests, and their routes."""

from typing import Protocol

from integration.stack.aws_servers import REGION


class Target(Protocol):
    """A route's target: an upstream, an AWS server, or a capture before one."""

    url: str


def policy(routes: dict | list, **members) -> dict:
    """Returns a policy whose requests wait for the first credentials, so that no test depends on when a push
    arrives."""
    return {"routes": routes, "credentialsWaitMs": 5000, **members}


def route(service: str, target: Target, path: str = "", **members) -> dict:
    return {"target": target.url + path, "service": service, "region": REGION, **members}


def api_route(target: Target, path: str = "", **members) -> dict:
    return route("execute-api", target, path, **members)


def s3_route(target: Target, path: str = "", **members) -> dict:
    return route("s3", target, path, **members)
