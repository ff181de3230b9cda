"""Real-world output of sources, compared with botocore: the refresher interprets it the same way."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from botocore.credentials import Credentials, EnvProvider, ProcessProvider, SharedCredentialProvider
from botocore.exceptions import BotoCoreError

from integration.harness.policies import api_route
from integration.stack.refresher import Refresher

AT = (datetime.now(UTC) + timedelta(hours=2)).replace(microsecond=0)
KEYS = {"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "hush-hush", "SessionToken": "token"}


class Nowhere:
    """The refresher has only the keys and the STS of its test."""

    url = "http://127.0.0.1:9"


@pytest.fixture
def held(start_proxy, api, tmp_path):
    """Returns the refresher's push, `(access key id, expiration)`, or its log if it pushes nothing."""

    def held(environment: dict[str, str]):
        proxy = start_proxy({"routes": {"/api": api_route(api)}})
        blank = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        arguments = ["--once", "--timeout", "5s"]
        refresher = Refresher(
            tmp_path, proxy, Nowhere, *arguments, credentials=Credentials("x", "x"), **{**blank, **environment}
        )
        with refresher:
            code = refresher.wait(30)
        found = proxy.identities()["default"]["held"]
        assert (code == 0) == bool(found)
        if not found:
            return refresher.log
        expiration = found.get("expiration")
        return found["accessKeyId"], expiration and datetime.fromisoformat(expiration)

    return held


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"Expiration": f"{AT:%Y-%m-%dT%H:%M:%S}Z"},
        {"Expiration": f"{AT:%Y-%m-%dT%H:%M:%S}+0000"},
        {"Expiration": f"{AT:%Y-%m-%dT%H:%M:%S}+00:00"},
        {"Expiration": f"{AT:%Y-%m-%dT%H:%M:%S}.123456+00:00"},
        {"Expiration": f"{AT + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}+02:00"},
        {"Expiration": None},
        {"SessionToken": None},
        {"SessionToken": ""},
        {"AccountId": "123456789012"},
        {"Expiration": int(AT.timestamp())},
        {"Expiration": "tomorrow-ish"},
        {"Version": 2},
        {"Version": None},
        {"AccessKeyId": None},
    ],
    ids=json.dumps,
)
def test_a_credential_process_means_what_it_means_to_botocore(held, tmp_path, members):
    document, config = tmp_path / "document", tmp_path / "config"
    document.write_text(json.dumps(KEYS | members) + "\n")
    config.write_text(f"[default]\ncredential_process = cat {document}\n")
    ours = held({"AWS_CONFIG_FILE": str(config)})
    profiles = {"profiles": {"default": {"credential_process": f"cat {document}"}}}
    try:
        theirs = ProcessProvider("default", lambda: profiles).load()
        theirs = theirs.get_frozen_credentials().access_key, getattr(theirs, "_expiry_time", None)
    except (BotoCoreError, TypeError, ValueError, AttributeError):
        theirs = None
    if theirs and theirs[0] and (not theirs[1] or theirs[1].tzinfo):
        assert ours == (theirs[0], theirs[1] and theirs[1].replace(microsecond=0))
    else:
        [name] = members
        assert f"{name}: " in ours, ours
        assert "hush-hush" not in ours


@pytest.mark.parametrize("token", ["", "token"])
@pytest.mark.parametrize("source", ["environment", "file"])
def test_keys_with_and_without_a_token_mean_what_they_mean_to_botocore(held, tmp_path, source, token):
    names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]
    keys = dict(zip(names, ["AKIDSTATIC", "secret", token], strict=True))
    if source == "environment":
        environment = {name.upper(): value for name, value in keys.items()}
        theirs = EnvProvider(environment).load()
    else:
        file = tmp_path / "credentials"
        file.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items()))
        environment = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
        theirs = SharedCredentialProvider(str(file), "default").load()
    assert held(environment) == (theirs.access_key, None)
