"""Rounds in which listeners are driven in turn, and the tables of what they cost."""

import statistics
from typing import Protocol

from integration.bench import statistic
from integration.bench.load import Cost


class Measures(Protocol):
    """Measures what a request to a listener costs."""

    def measure(self, listener: str, seconds: float, **options) -> Cost: ...


class Comparison:
    """Compares listeners, and keeps the results of all tables."""

    def __init__(self, rounds: int, seconds: int):
        self.rounds = rounds
        self.seconds = seconds
        self.results: dict[str, dict] = {}
        self.noisy: list[str] = []
        """The titles of tables with rows whose interval is too wide."""

    def in_turn(self, names: list[str]) -> list[list[str]]:
        """Returns the order of each round. Each begins with another listener, so that none always follows the same
        one."""
        return [names[first:] + names[:first] for first in (number % len(names) for number in range(self.rounds))]

    def compare(self, title: str, load: Measures, names: list[str], **options) -> dict[str, dict[str, float]]:
        """Drives listeners in turn; returns each one's cost, and its difference to the first one's."""
        for name in names:
            load.measure(name, 1, **options)
        rounds = [
            {name: load.measure(name, self.seconds, **options) for name in order} for order in self.in_turn(names)
        ]
        native = next(name for name in names if name.endswith("native"))
        costs = [{name: cost.cpu_us for name, cost in one.items()} for one in rounds]
        table = {name: statistic.compare(costs, name, names[0], native) for name in names}
        for name, row in table.items():
            row["requests_per_second"] = statistics.median(one[name].requests_per_second for one in rounds)
        self.results[title] = table
        print(f"\n{title}")
        print(f"{'':28} {'CPU µs':>8} {'added':>7} {'95 %':>13} {'of native':>10} {'95 %':>12} {'requests/s':>11}")
        for name, row in table.items():
            shares = ("", "")
            if "of_native" in row:
                shares = (f"{row['of_native']:.2f}", f"{row['of_native_low']:.2f}–{row['of_native_high']:.2f}")
            spread = f"{row['added_us_low']:.1f}–{row['added_us_high']:.1f}"
            print(
                f"{name:28} {row['cpu_us']:8.1f} {row['added_us']:7.1f} {spread:>13} {shares[0]:>10} {shares[1]:>12}"
                f" {row['requests_per_second']:11,.0f}"
            )
        if noisy := [name for name, row in table.items() if statistic.is_noisy(row)]:
            self.noisy.append(title)
            print(f"too noisy to quote: {', '.join(noisy)}; run it on a quieter machine, or with more --rounds")
        return table
