"""The strangers of `make soak` notice when they did not get through."""

from integration.soak.strangers import KINDS, Strangers
from integration.stack.process import free_port


def test_attacks_that_never_connect_did_not_take_place():
    with Strangers(free_port()) as strangers:
        for attack in strangers.attacks:
            attack.wait(0.5)

    assert strangers.failed() == [*(kind.__name__ for kind in KINDS), "upstream_deaths"]
    for attack in strangers.attacks:
        assert (attack.rounds, attack.connections, attack.bytes) == (0, 0, 0)
        assert attack.broken > 0
