"""The program of `make smoke-aws`: three read-only calls to AWS itself, through a real Envoy, with your own
credentials.

The refresher finds the credentials as any SDK does, and AWS_REGION names the region. SMOKE_ENDPOINT sends the calls
elsewhere than to AWS, as a test does. Nothing is created, changed or removed.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from integration.stack.client import Response
from integration.stack.process import Process, wait_until
from integration.stack.proxy import Proxy
from integration.stack.refresher import BINARY

REGION = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
# AWS's errors for an authenticated caller that lacks permission.
DENIED = ("AccessDenied", "not authorized")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="sigv4-smoke-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        proxy = stack.enter_context(Proxy(directory, policy()))
        command = [BINARY, "--proxy", f"unix:{proxy.socket}", "--interval", "1s"]
        refresher = stack.enter_context(Process("credential-refresher", command, directory / "log", os.environ))
        try:
            wait_until(lambda: proxy.intake("/v1/status").status == 200, "credentials")
        except TimeoutError:
            print(f"There are no credentials. The refresher says:\n{refresher.log}", file=sys.stderr)
            return 1
        results = [
            show("STS GetCallerIdentity", proxy.request("/sts/?Action=GetCallerIdentity&Version=2011-06-15")),
            show("S3 ListBuckets", proxy.request("/s3/")),
            show("DynamoDB ListTables", list_tables(proxy)),
        ]
    return 0 if all(results) else 1


def policy() -> dict:
    endpoint = os.environ.get("SMOKE_ENDPOINT")
    routes = {
        f"/{service}": {
            "target": endpoint or f"https://{service}.{REGION}.amazonaws.com",
            "service": service,
            "region": REGION,
            "hosts": ["127.0.0.1"],
        }
        for service in ("sts", "s3", "dynamodb")
    }
    print(f"Sends read-only calls to {urlsplit(endpoint).netloc if endpoint else f'AWS in {REGION}'}", flush=True)
    return {"routes": routes}


def list_tables(proxy: Proxy) -> Response:
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.ListTables"}
    return proxy.request("/dynamodb/", "POST", headers=headers, body=b'{"Limit": 1}')


def show(call: str, response: Response) -> bool:
    """Prints the outcome of a call; returns whether the signature was accepted."""
    accepted = response.status == 200 or (response.status in (400, 403) and any(e in response.text for e in DENIED))
    verdict = {200: "signature accepted"}.get(response.status, "signature accepted, but IAM denies the call")
    print(f"  {response.status}  {call}: {verdict if accepted else response.text}", flush=True)
    return accepted


if __name__ == "__main__":
    sys.exit(main())
