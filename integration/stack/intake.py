"""The calls to a proxy's intake."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from botocore.credentials import Credentials

from .client import Response, curl
from .process import wait_until


class Intake:
    """A proxy with an intake at `socket`."""

    socket: Path

    def intake(self, path: str, method: str = "GET", body: bytes | None = None) -> Response:
        """Calls the intake over the Unix socket."""
        return curl(f"http://intake{path}", method, body=body, unix_socket=str(self.socket))

    def identities(self) -> dict[str, dict]:
        """Returns what the intake lists as wanted and held, by id."""
        return {entry["id"]: entry for entry in self.intake("/v1/identities").json["identities"]}

    def push(self, credentials: Credentials, identity: str = "default", **lifetime: float) -> None:
        """Pushes credentials and waits until the intake lists them as held; `lifetime` as for `timedelta`."""
        # The signer registers its identities when it has loaded, which may be later on another worker than the
        # intake's.
        wait_until(lambda: identity in self.identities(), f"the intake to want {identity}")
        document = credential_document(credentials, timedelta(**lifetime or {"hours": 1}))
        answer = self.intake(f"/v1/identities/{identity}/credentials", "PUT", document)
        assert answer.status == 204, answer

    def revoke(self, identity: str = "default") -> None:
        answer = self.intake(f"/v1/identities/{identity}/credentials", "DELETE")
        assert answer.status == 204, answer


def credential_document(credentials: Credentials, lifetime: timedelta = timedelta(hours=1)) -> bytes:
    """Returns the output of a `credential_process`."""
    document = {
        "Version": 1,
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "Expiration": (datetime.now(UTC) + lifetime).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if credentials.token:
        document["SessionToken"] = credentials.token
    return json.dumps(document).encode()
