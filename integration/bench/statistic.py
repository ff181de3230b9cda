"""What paired rounds say, and how surely."""

import math
import statistics
from collections.abc import Sequence

# An interval of a ratio that is wider than this says too little: the machine did too much else.
NOISY = 0.2
# An interval has 95 % from this many rounds on.
ROUNDS_OF_95 = 6


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns the confidence interval of the median, of 95 % from six values on. It is exact for any distribution: each
    value is below the true median with a probability of a half."""
    ordered, left_out, tail = sorted(values), 0, 0.5 ** len(values)
    while tail <= 0.025 and left_out < len(values) // 2:
        left_out += 1
        tail += math.comb(len(values), left_out) * 0.5 ** len(values)
    at = max(left_out - 1, 0)
    return ordered[at], ordered[-1 - at]


def compare(rounds: Sequence[dict[str, float]], name: str, plain: str, native: str) -> dict[str, float]:
    """Returns what `name` adds to `plain`, and the share of what `native` adds. Both are computed within each round, so
    that what slows down a whole round slows down both sides."""
    added = [one[name] - one[plain] for one in rounds]
    row = {"cpu_us": statistics.median(one[name] for one in rounds), "added_us": statistics.median(added)}
    row["added_us_low"], row["added_us_high"] = interval(added)
    if name != plain:
        shares = [(one[name] - one[plain]) / (one[native] - one[plain]) for one in rounds]
        row["of_native"] = statistics.median(shares)
        row["of_native_low"], row["of_native_high"] = interval(shares)
    return row


def quantiles(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Returns the median over the rounds of each of their quantiles, and its interval."""
    row = {}
    for name, share in {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}.items():
        values = [sorted(one)[math.ceil(share * len(one)) - 1] for one in rounds]
        row[name] = statistics.median(values)
        row[f"{name}_low"], row[f"{name}_high"] = interval(values)
    return row


def is_noisy(row: dict[str, float], rounds: int) -> bool:
    """Returns whether a row's share of the native filter is too uncertain to quote."""
    width = row.get("of_native_high", 0) - row.get("of_native_low", 0)
    return width > NOISY * max(1, row.get("of_native", 0)) or rounds < ROUNDS_OF_95
