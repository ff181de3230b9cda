import signal

import pytest
from botocore.credentials import Credentials

from harness.certificates import Authority
from harness.stand_ins import Ministack, Moto
from harness.verifier import Verifier

STATIC_KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY_KEY = Credentials("ASIDEXAMPLE", "bPxRfiCYEXAMPLEKEY/K7MDENG+wJalrXUtnFEMI", "FwoGZXIvYXdzEXAMPLE//token==")


def pytest_configure():
    # A terminated run still takes its processes down: pytest unwinds its fixtures on KeyboardInterrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def keys() -> dict[str, Credentials]:
    return {key.access_key: key for key in (STATIC_KEY, TEMPORARY_KEY)}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory):
    with Ministack(tmp_path_factory.mktemp("ministack")) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory):
    with Moto(tmp_path_factory.mktemp("moto")) as stand_in:
        yield stand_in


@pytest.fixture
def s3_verifier(keys) -> Verifier:
    return Verifier(keys, "eu-west-1", "s3")


@pytest.fixture
def api_verifier(keys) -> Verifier:
    return Verifier(keys, "eu-west-1", "execute-api")
