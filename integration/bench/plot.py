"""The picture in docs/performance.md."""

from xml.sax.saxutils import escape

from integration.stack.process import REPOSITORY

PICTURE = REPOSITORY / "docs" / "performance.svg"
WIDTH, ROW, LABELS, VALUES = 780, 34, 280, 70


def bars(title: str, unit: str, values: dict[str, float]) -> None:
    """Draws a bar for each value, on a background of its own for dark pages."""
    height = 56 + ROW * len(values)
    scale = (WIDTH - LABELS - VALUES - 20) / max(values.values())
    rows = []
    for number, (name, value) in enumerate(values.items()):
        y = 44 + ROW * number
        color = "#c2410c" if name.startswith("signer") else "#94a3b8"
        rows.append(
            f'<text x="{LABELS - 10}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABELS}" y="{y}" width="{max(value, 0) * scale:.1f}" height="22" rx="3" fill="{color}"/>'
            f'<text x="{LABELS + max(value, 0) * scale + 8:.1f}" y="{y + 16}">{value:.1f}</text>'
        )
    PICTURE.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="14" fill="#0f172a"><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        f'<text x="20" y="26" font-weight="bold">{escape(title)}, {escape(unit)}</text>{"".join(rows)}</svg>\n'
    )
