"""The seeds of the fuzz targets break nothing in the compiled filter. `make fuzz` feeds it more inputs."""

import pytest

from integration.harness.fuzz_inputs import TARGETS, Machine, seeds
from integration.stack.process import REPOSITORY
from integration.stack.proxy import WASM


@pytest.mark.parametrize("target", TARGETS)
def test_no_seed_traps(target):
    machine = Machine(WASM)
    for path in seeds(target):
        machine.feed(target, path.read_bytes())


def test_every_fuzz_target_is_fed_to_the_compiled_filter():
    assert {path.stem for path in (REPOSITORY / "fuzz" / "targets").iterdir()} == set(TARGETS)
