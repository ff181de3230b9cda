"""The bench's figures say how sure they are."""

import random
import re

from integration.bench import statistic
from integration.bench.__main__ import Bench
from integration.stack.process import REPOSITORY


def rounds(number: int, noise: float, seed: int = 1) -> list[dict[str, float]]:
    """Returns rounds of a native filter that adds 10 µs and a signer that adds 8, on a machine that is slower by up to
    half in some rounds, with an error of each measurement."""
    chance = random.Random(seed)
    made = []
    for _ in range(number):
        pace = chance.uniform(1, 1.5)
        costs = {"plain": 20.0, "native": 30.0, "signer": 28.0}
        made.append({name: pace * cost + chance.gauss(0, noise) for name, cost in costs.items()})
    return made


def test_the_interval_of_a_share_holds_the_true_one():
    held = 0
    for seed in range(50):
        row = statistic.compare(rounds(15, 0.5, seed), "signer", "plain", "native")
        held += row["of_native_low"] <= 0.8 <= row["of_native_high"]
        assert row["of_native_low"] <= row["of_native"] <= row["of_native_high"]

    assert held >= 44, f"{held} of 50"


def test_a_slow_round_changes_no_share():
    row = statistic.compare(rounds(9, 0), "signer", "plain", "native")

    assert abs(row["of_native"] - 0.8) < 1e-9
    assert row["of_native_high"] - row["of_native_low"] < 1e-9
    # What is added in µs does follow the machine's pace.
    assert row["added_us_high"] - row["added_us_low"] > 0.5


def test_noise_is_said():
    def is_noisy(number: int, noise: float, name: str = "signer") -> bool:
        return statistic.is_noisy(statistic.compare(rounds(number, noise), name, "plain", "native"), number)

    assert not is_noisy(9, 0.3)
    assert is_noisy(9, 5)
    # The baseline has no share.
    assert not is_noisy(9, 5, "plain")
    # Too few for an interval.
    assert is_noisy(5, 0)


def test_an_interval_leaves_out_what_the_binomial_distribution_allows():
    # Of tables for the sign test.
    for number, left_out in [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7)]:
        assert statistic.interval(range(number)) == (left_out, number - 1 - left_out), number


def test_quantiles_are_medians_over_the_rounds():
    calm = list(range(1, 1001))
    row = statistic.quantiles([calm, calm, [9999] * 1000])

    assert [row[name] for name in ("p50", "p99", "p99.9")] == [500, 990, 999]
    assert (row["p99_low"], row["p99_high"]) == (990, 9999)


def test_only_the_parts_that_are_named_run(monkeypatch, tmp_path):
    ran = []
    for part in Bench.PARTS:
        monkeypatch.setattr(Bench, part, lambda _, part=part: ran.append(part))
    Bench(tmp_path, rounds=1, seconds=1).run(["latency", "sdk"])

    assert ran == ["latency", "sdk"]


def test_the_page_lists_the_parts():
    [line] = [line for line in (REPOSITORY / "docs/building.md").read_text().splitlines() if "| `make bench` |" in line]

    assert re.findall(r"`(\w+)`", line.partition("only these of")[2]) == list(Bench.PARTS)
