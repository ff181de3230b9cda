"""Rounds in which listeners are driven in turn, and the tables of what they cost.

A round is short, and there are many: a machine's other load changes from second to second, and a ratio within a round
only cancels what affects all of the round.
"""

import random
import statistics
from collections.abc import Mapping

from integration.bench import statistic
from integration.bench.load import Load


class Comparison:
    """Compares listeners, and keeps the results of all tables."""

    def __init__(self, rounds: int, seconds: float):
        self.rounds = rounds
        self.seconds = seconds
        self.results: dict[str, dict] = {}
        self.noisy: list[str] = []
        """The titles of tables with rows whose interval is too wide."""

    @property
    def long_rounds(self) -> int:
        """The number of rounds where a single measurement takes seconds."""
        return max(1, self.rounds // 10)

    def in_turn(self, names: list[str], rounds: int) -> list[list[str]]:
        """Returns an order for each round, at random, so that none always follows the same one."""
        return [random.Random(number).sample(names, len(names)) for number in range(rounds)]

    def compare(
        self,
        title: str,
        load: Load,
        names: list[str],
        others: Mapping[str, Load] | None = None,
        is_long: bool = False,
        **options,
    ) -> dict[str, dict[str, float]]:
        """Drives the listeners of one server in turn; returns each one's cost, and its difference to the first one's.
        `others` are other programs than Envoy, whose difference to it would not be the cost of a filter. If `is_long`,
        a measurement takes half a second, for requests that take long."""
        others = others or {}
        seconds, number = (0.5, 4 * self.long_rounds) if is_long else (self.seconds, self.rounds)
        loads = {**dict.fromkeys(names, load), **others}
        for name, one in loads.items():
            one.measure(name, 1, **options)
        rounds = [
            {name: loads[name].measure(name, seconds, **options) for name in order}
            for order in self.in_turn(list(loads), number)
        ]
        native = next(name for name in names if name.endswith("native"))
        costs = [{name: cost.cpu_us for name, cost in one.items()} for one in rounds]
        table = {name: statistic.compare(costs, name, names[0], native) for name in names}
        table |= {name: {"cpu_us": statistics.median(one[name] for one in costs)} for name in others}
        for name, row in table.items():
            row["requests_per_second"] = statistics.median(one[name].requests_per_second for one in rounds)
        self.results[title] = table
        print(f"\n{title}")
        print(f"{'':28} {'CPU µs':>8} {'added':>7} {'95 %':>13} {'of native':>10} {'95 %':>12} {'requests/s':>11}")
        for name, row in table.items():
            added, share = _with_interval(row, "added_us", 1), _with_interval(row, "of_native", 2)
            print(
                f"{name:28} {row['cpu_us']:8.1f} {added[0]:>7} {added[1]:>13} {share[0]:>10} {share[1]:>12}"
                f" {row['requests_per_second']:11,.0f}"
            )
        if noisy := [name for name, row in table.items() if statistic.is_noisy(row, number)]:
            self.noisy.append(title)
            print(f"too noisy to quote: {', '.join(noisy)}; run it on a quieter machine, or with more --rounds")
        return table


def _with_interval(row: dict[str, float], name: str, digits: int) -> tuple[str, str]:
    if name not in row:
        return "", ""
    return f"{row[name]:.{digits}f}", f"{row[f'{name}_low']:.{digits}f}–{row[f'{name}_high']:.{digits}f}"
