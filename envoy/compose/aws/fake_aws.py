"""AWS for docker-compose: a private bucket, a user who may assume a role, and the user's key in a file for SDKs."""

import os
import signal
import sys
from pathlib import Path

from integration.stack.aws_servers import REGION, Ministack

BUCKET = "orders"
CREDENTIALS = Path("/run/aws/credentials")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    CREDENTIALS.unlink(missing_ok=True)
    with Ministack(Path("/tmp"), address="0.0.0.0", port=4566) as aws:
        aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        key = f"aws_access_key_id = {aws.user.access_key}\naws_secret_access_key = {aws.user.secret_key}\n"
        os.umask(0o077)
        # Renamed, so that no reader sees half of it.
        unfinished = CREDENTIALS.with_suffix(".new")
        unfinished.write_text(f"[default]\n{key}")
        unfinished.rename(CREDENTIALS)
        print(f"The bucket is {BUCKET}, the role {aws.role_arn}")
        signal.pause()


if __name__ == "__main__":
    main()
