"""Servers that stand in for AWS and authenticate callers: ministack for S3 and STS, moto for STS, SQS and DynamoDB."""

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.credentials import Credentials

from .process import REPOSITORY, Process, environment_without_aws, free_port

REGION = "eu-west-1"
ROLE_NAME = "orders-reader"

_ALLOW_ALL = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})


class AwsServer:
    """A server with one IAM user, `user`, who may do anything, and one role that the user may assume, `role_arn`."""

    account: str
    _root: Credentials

    def __init__(self, directory: Path, port: int | None = None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: Process

    def __enter__(self):
        self._process.start()
        try:
            self._process.wait_ready(self._is_ready)
            self._create_principals()
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(self, *_):
        self._process.stop()

    @property
    def log(self) -> str:
        return self._process.log

    def client(self, service: str, credentials: Credentials | None = None, **config):
        """Returns a boto3 client of the server itself, by default as `user`."""
        signer = credentials or self.user
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=signer.access_key,
            aws_secret_access_key=signer.secret_key,
            aws_session_token=signer.token,
            config=Config(retries={"total_max_attempts": 1}, **config),
        )

    def assume_role(self, session_name: str = "tests") -> Credentials:
        """Returns temporary credentials of the role, from STS."""
        answer = self.client("sts").assume_role(RoleArn=self.role_arn, RoleSessionName=session_name)
        issued = answer["Credentials"]
        return Credentials(issued["AccessKeyId"], issued["SecretAccessKey"], issued["SessionToken"])

    def _create_principals(self) -> None:
        iam = self.client("iam", self._root)
        user_arn = iam.create_user(UserName="workload")["User"]["Arn"]
        iam.put_user_policy(UserName="workload", PolicyName="everything", PolicyDocument=_ALLOW_ALL)
        key = iam.create_access_key(UserName="workload")["AccessKey"]
        self.user = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"AWS": user_arn}, "Action": "sts:AssumeRole"}],
        }
        role = iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        iam.put_role_policy(RoleName=ROLE_NAME, PolicyName="everything", PolicyDocument=_ALLOW_ALL)
        self.role_arn: str = role["Arn"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self._health_path, timeout=2):
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


class Ministack(AwsServer):
    """Verifies S3 and STS: secret, path, query, headers, date, session token, region and service."""

    _health_path = "/_ministack/health"
    # Its root key. It is accepted with any signature, so only the set-up may use it.
    _root = Credentials("test", "test")

    def __init__(self, directory: Path, address: str = "127.0.0.1", port: int | None = None):
        super().__init__(directory, port)
        environment = environment_without_aws(
            AUTH="true",
            BIND_HOST=address,
            GATEWAY_PORT=str(self.port),
            # Its MQTT listener has a fixed port.
            IOT_MTLS_ENABLED="0",
            HOME=str(directory),
        )
        command = [sys.executable, "-m", "ministack"]
        self._process = Process("ministack", command, directory / "ministack.log", environment)


class Moto(AwsServer):
    """Verifies STS, SQS and DynamoDB: secret, path, query, headers, session token, body; it does not check dates."""

    _health_path = "/moto-api/"
    # Not checked: authentication is enabled once the principals exist.
    _root = Credentials("root", "root")

    def __init__(self, directory: Path):
        super().__init__(directory)
        command = [Path(sys.executable).with_name("moto_server"), "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = Process("moto", command, directory / "moto.log")

    def _create_principals(self) -> None:
        super()._create_principals()
        # Any type but a form, which moto would parse: it expects the plain number of calls to accept unchecked.
        switch_on = urllib.request.Request(
            self.url + "/moto-api/reset-auth", data=b"0", headers={"content-type": "text/plain"}
        )
        with urllib.request.urlopen(switch_on, timeout=10):
            pass


def s3s_fs_binary() -> str | None:
    """Returns `$S3S_FS`, else the one in the PATH, else the one that integration/setup-s3s-fs.sh built."""
    built = REPOSITORY / ".toolchain" / "s3s-fs" / "bin" / "s3s-fs"
    return os.environ.get("S3S_FS") or shutil.which("s3s-fs") or (str(built) if built.exists() else None)


class S3sFs(AwsServer):
    """Verifies S3: secret, dates, path, query, chunk and trailer signatures, checksums. It has no session tokens."""

    _health_path = "/"
    user = Credentials("AKIAS3SFSEXAMPLE", "s3s/fs+secret")

    def __init__(self, directory: Path):
        super().__init__(directory)
        root = directory / "objects"
        root.mkdir()
        command = [s3s_fs_binary(), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--access-key", self.user.access_key, "--secret-key", self.user.secret_key, root]
        self._process = Process("s3s-fs", command, directory / "s3s-fs.log")

    def _create_principals(self) -> None:
        """Creates none: it has only the one that it was started with."""
