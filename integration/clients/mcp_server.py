"""An MCP server behind IAM: it accepts only requests that are signed for AgentCore.

PYTHONPATH=. .toolchain/clients/bin/python integration/clients/mcp_server.py PORT ACCESS_KEY SECRET_KEY TOKEN
"""

import sys

import uvicorn
from botocore.credentials import Credentials
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from integration.harness.verifier import Refused, Verifier, WireRequest

server = MCPServer("orders")


@server.tool()
async def count(item: str, context: Context) -> str:
    """Counts what there is of an item, and reports while it does."""
    await context.report_progress(1, 2)
    return f"2 of {item}"


class Signed:
    """Passes requests with a valid signature to an application; others get 403, and why."""

    def __init__(self, application, verifier: Verifier):
        self._application, self._verifier = application, verifier

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        target = scope["raw_path"].decode() + (f"?{query}" if (query := scope["query_string"].decode()) else "")
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        try:
            self._verifier.verify(WireRequest(scope["method"], target, headers, body))
        except Refused as refusal:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": str(refusal).encode()})
            return
        whole = iter([{"type": "http.request", "body": body}])

        async def again():
            return next(whole, None) or await receive()

        await self._application(scope, again, send)


if __name__ == "__main__":
    port, access_key, secret_key, token = sys.argv[1:]
    key = Credentials(access_key, secret_key, token)
    # It is called by the gateway's name.
    any_host = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    verifier = Verifier({access_key: key}, "us-east-1", "bedrock-agentcore")
    uvicorn.run(Signed(server.streamable_http_app(transport_security=any_host), verifier), port=int(port))
