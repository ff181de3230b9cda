#!/usr/bin/env python3
"""Draws the Grafana dashboard as a picture, panel by panel, from a running Prometheus; needs matplotlib.

make compose KEEP=1            # prints Prometheus' port; then let some requests pass
.venv/bin/pip install matplotlib==3.10.8
.venv/bin/python envoy/compose/render_dashboard.py http://127.0.0.1:PORT docs/dashboard.png [MINUTES]
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from datetime import datetime
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter

DASHBOARD = Path(__file__).parent / "grafana" / "dashboards" / "sigv4.json"
COLUMNS = 24
STEP = 5
PAGE, PANEL, BORDER, GRID, TEXT, FAINT = "#111217", "#181b1f", "#25282e", "#2a2d33", "#d8d9da", "#8e8e95"
LINES = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#b877d9", "#8ab8ff", "#f2495c", "#37872d"]
THRESHOLDS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}

Series = list[tuple[str, list[datetime], list[float]]]


def main() -> None:
    prometheus, picture = sys.argv[1:3]
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 15
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    end = time.time()
    window = datetime.fromtimestamp(end - 60 * minutes), datetime.fromtimestamp(end)
    plt.rcParams.update({"font.family": "DejaVu Sans", "text.color": TEXT, "font.size": 9})
    width, height, head = 15.0, rows * 0.36, 0.55
    figure = plt.figure(figsize=(width, height + head), facecolor=PAGE)
    top = height / (height + head)
    figure.text(0.008, (1 + top) / 2, dashboard["title"], fontsize=14, fontweight="bold", va="center")
    for panel in panels:
        at = panel["gridPos"]
        box = (at["x"] / COLUMNS, top * (1 - (at["y"] + at["h"]) / rows), at["w"] / COLUMNS, top * at["h"] / rows)
        draw(figure, panel, box, read(prometheus, panel, end - 60 * minutes, end), window)
    figure.savefig(picture, dpi=110, facecolor=PAGE)


def read(prometheus: str, panel: dict, start: float, end: float) -> Series:
    """Returns the series of all of a panel's queries, each with its legend."""
    found = []
    for target in panel["targets"]:
        query = {
            "query": target["expr"].replace("$__rate_interval", "30s"),
            "start": start,
            "end": end,
            "step": STEP,
        }
        url = f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            results = json.load(answer)["data"]["result"]
        for result in results:
            labels = result["metric"]
            legend = re.sub(r"{{(\w+)}}", lambda name, labels=labels: labels.get(name[1], ""), target["legendFormat"])
            # A quantile of nothing is not a number.
            points = [(datetime.fromtimestamp(at), float(value)) for at, value in result["values"] if value != "NaN"]
            if points:
                found.append((legend.strip(), *map(list, zip(*points, strict=True))))
    return found


def draw(figure: plt.Figure, panel: dict, box: tuple, series: Series, window: tuple) -> None:
    left, bottom, width, height = box
    gap = 0.0035
    frame = (left + gap, bottom + gap * 1.6), width - 2 * gap, height - 3.2 * gap
    figure.add_artist(
        FancyBboxPatch(*frame, boxstyle="round,pad=0,rounding_size=0.002", facecolor=PANEL, edgecolor=BORDER, zorder=0)
    )
    figure.text(left + 0.009, bottom + height - 0.012, panel["title"], va="top", fontsize=9.5, fontweight="medium")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "stat":
        draw_stat(figure, panel, box, series, unit)
    else:
        draw_lines(figure, panel, box, series, unit, window)


def draw_stat(figure: plt.Figure, panel: dict, box: tuple, series: Series, unit: str) -> None:
    left, bottom, width, height = box
    _, moments, values = series[0]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or values[-1] >= step["value"]]
    color = THRESHOLDS[reached[-1]]
    axes = figure.add_axes((left + 0.0037, bottom + 0.007, width - 0.0074, height * 0.38))
    axes.axis("off")
    axes.set_facecolor("none")
    axes.plot(moments, values, color=color, linewidth=1)
    axes.fill_between(moments, values, color=color, alpha=0.18)
    axes.set_ylim(0, max(values) * 1.3 or 1)
    axes.margins(x=0)
    figure.text(
        left + width / 2, bottom + height * 0.53, shown(values[-1], unit), color=color, fontsize=21, fontweight="bold",
        ha="center", va="center",
    )  # fmt: skip


def draw_lines(figure: plt.Figure, panel: dict, box: tuple, series: Series, unit: str, window: tuple) -> None:
    left, bottom, width, height = box
    legend_height = 0.0145 * ((len(series) + 1) // 2) + 0.006
    axes = figure.add_axes(
        (left + 0.037, bottom + legend_height + 0.03, width - 0.047, height - legend_height - 0.068), facecolor=PANEL
    )
    stacked = panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"] == "normal"
    series = sorted(series)
    below: dict[datetime, float] = {}
    for index, (_, moments, values) in enumerate(series):
        color = LINES[index % len(LINES)]
        floor = [below.get(moment, 0.0) if stacked else 0.0 for moment in moments]
        heights = [value + under for value, under in zip(values, floor, strict=True)]
        axes.plot(moments, heights, color=color, linewidth=1.4)
        axes.fill_between(moments, floor, heights, color=color, alpha=0.22 if stacked else 0.07, linewidth=0)
        if stacked:
            below.update(zip(moments, heights, strict=True))
    style(axes, unit)
    axes.set_xlim(*window)
    for index, (legend, _, values) in enumerate(series):
        column, row = index % 2, index // 2
        x, y = left + 0.012 + column * (width / 2 - 0.006), bottom + legend_height - 0.0145 * row
        figure.text(x, y, "━", color=LINES[index % len(LINES)], va="center", fontsize=9)
        room = int(width * 95) - len(shown(values[-1], unit))
        name = legend if len(legend) <= room else legend[: room - 1] + "…"
        figure.text(x + 0.013, y, name, va="center", fontsize=8)
        figure.text(x + width / 2 - 0.024, y, shown(values[-1], unit), va="center", ha="right", fontsize=8, color=FAINT)


def style(axes: Axes, unit: str) -> None:
    axes.set_ylim(bottom=0)
    axes.set_ylim(top=(axes.dataLim.y1 or 1) * 1.15)
    axes.margins(x=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=6))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.yaxis.set_major_locator(plt.MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))


def shown(value: float, unit: str) -> str:
    """Returns a value as Grafana shows it."""
    if unit == "s":
        return f"{value / 60:.1f} min" if value >= 60 else f"{value:.1f} s"
    if unit == "percentunit":
        return f"{100 * value:.0f} %" if value in (0, 1) else f"{100 * value:.1f} %"
    number = f"{value:.3g}"
    return {"reqps": f"{number} req/s", "ms": f"{number} ms", "µs": f"{number} µs"}.get(unit, number)


if __name__ == "__main__":
    main()
