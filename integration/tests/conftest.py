import contextlib
import signal
from collections.abc import Callable, Iterator

import pytest
from botocore.credentials import Credentials

from integration.harness.certificates import Authority
from integration.harness.keys import STATIC_KEY, TEMPORARY_KEY
from integration.harness.policies import api_route, policy, s3_route
from integration.harness.upstream import Upstream
from integration.harness.verifier import Verifier
from integration.stack.aws_servers import REGION, Ministack, Moto
from integration.stack.process import Process
from integration.stack.proxy import Proxy, StockConfiguration

StartProxy = Callable[..., Proxy]


def pytest_configure():
    # A terminated run still ends its processes: pytest unwinds its fixtures on KeyboardInterrupt.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def keys() -> dict[str, Credentials]:
    return {key.access_key: key for key in (STATIC_KEY, TEMPORARY_KEY)}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def api_verifier(keys) -> Verifier:
    return Verifier(keys, REGION, "execute-api")


@pytest.fixture(scope="session")
def s3_verifier(keys) -> Verifier:
    return Verifier(keys, REGION, "s3")


@pytest.fixture(scope="session")
def _api(api_verifier) -> Iterator[Upstream]:
    with Upstream(api_verifier) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def _s3(s3_verifier) -> Iterator[Upstream]:
    with Upstream(s3_verifier) as upstream:
        yield upstream


@pytest.fixture
def api(_api) -> Upstream:
    """An upstream that verifies signatures for execute-api."""
    _api.reset()
    return _api


@pytest.fixture
def s3(_s3) -> Upstream:
    """An upstream that verifies signatures for S3."""
    _s3.reset()
    return _s3


@pytest.fixture(scope="module")
def start_shared_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Returns a function that starts proxies, which run until the module's tests are done."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            Proxy(tmp_path_factory.mktemp("proxy"), *arguments, **options)
        )


@pytest.fixture
def start_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Returns a function that starts proxies, which run until the test is done."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            Proxy(tmp_path_factory.mktemp("proxy"), *arguments, **options)
        )


@pytest.fixture(scope="module")
def proxy(start_shared_proxy: StartProxy, _api: Upstream, _s3: Upstream) -> Proxy:
    """A proxy with a route to each upstream, signing with temporary credentials."""
    proxy = start_shared_proxy(policy({"/api": api_route(_api, "/prod"), "/s3": s3_route(_s3)}))
    proxy.push(TEMPORARY_KEY)
    return proxy


@pytest.fixture
def running() -> Iterator[Callable[[Process], Process]]:
    """Returns a function that starts a process, which runs until the test is done."""
    with contextlib.ExitStack() as stack:

        def run(process: Process) -> Process:
            process.start()
            stack.callback(process.stop)
            return process

        yield run


@pytest.fixture
def configuration() -> StockConfiguration:
    return StockConfiguration()
