"""The filter's counters, as a scrape of Prometheus sees them."""

import re
from collections import Counter

# Envoy removes its "wasmcustom." and adds no "envoy_" to a filter's metrics.
REQUESTS = "sigv4_requests"


def counts(proxy) -> Counter:
    """Returns the requests that the filter has counted, by route and outcome."""
    found = Counter()
    for line in proxy.envoy.admin("/stats/prometheus").splitlines():
        if line.startswith(REQUESTS + "{"):
            labels, value = re.fullmatch(r".*?\{(.*)\} (\d+)", line).groups()
            pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            assert set(pairs) == {"route", "outcome"}, line
            found[pairs["route"], pairs["outcome"]] = int(value)
    return found
