"""Figures that answer to a reader: drawings in HTML and CSS, without a script.

Nothing is fetched, and nothing has to run: radio buttons switch what is shown, and a browser shows
the text of what the pointer is on. Where HTML is not rendered, the page's other figures remain.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML

from .search import _ticks
from .style import BLUE, COLOURS, INK, ORANGE

WIDTH, HEIGHT = 640, 480  # pixels; a phone scrolls, so that text stays legible
STYLE = """<style>
.{name} {{ background: #fff; color: {ink}; padding: .5rem; border-radius: .4rem; overflow-x: auto }}
.{name} fieldset {{ border: 0; margin: 0 0 .3rem; padding: 0 }}
.{name} label {{ margin: 0 .9rem 0 .2rem }}
.{name} svg {{ width: {width}px; height: auto; display: block }}
{rules}
</style>"""


def _framed(name: str, rules: str, body: str) -> HTML:
    style = STYLE.format(name=name, ink=INK, width=WIDTH, rules=rules)
    return HTML(f'{style}<div class="{name}">{body}</div>')


def _switch(name: str, title: str, choices: Sequence[str]) -> tuple[str, str]:
    """Radio buttons, and the rules by which each shows its group of the drawing alone."""
    buttons, rules = [], [f".{name} g[class] {{ display: none }}"]
    for k, choice in enumerate(choices):
        checked = " checked" if k == 0 else ""
        buttons.append(
            f'<input type="radio" name="{name}" id="{name}-{k}"{checked}>'
            f'<label for="{name}-{k}">{html.escape(choice)}</label>'
        )
        rules.append(f".{name}:has(#{name}-{k}:checked) g.g{k} {{ display: inline }}")
    legend = f"<legend>{html.escape(title)}</legend>"
    return f"<fieldset>{legend}{''.join(buttons)}</fieldset>", "\n".join(rules)


def switched_fields(
    points: np.ndarray,
    labels: pd.Series,
    fields: Mapping[str, np.ndarray],
    told: Mapping[str, np.ndarray],
) -> HTML:
    """Draw cells and their arrows in several velocity fields, of which a reader chooses one.

    Parameters
    ----------
    points
        (cells, 2).
    labels
        Cell types, (cells,).
    fields
        Name: arrows (cells, 2), all drawn with the same mean length.
    told
        Name of a field: a number for each cell, shown where the pointer is.

    Returns
    -------
    The drawing.
    """
    low, size = points.min(0), np.ptp(points, axis=0)
    unit = ((np.array([WIDTH, HEIGHT]) - 20) / size).min()
    height = size[1] * unit + 20
    x, y = ((points - low) * unit + 10).T
    y = height - y
    dots = []
    for k, name in enumerate(labels.astype(str)):
        values = "; ".join(f"{field} {value[k]:.2f}" for field, value in told.items())
        title = html.escape(f"{name}: {values}")
        dots.append(
            f'<circle cx="{x[k]:.0f}" cy="{y[k]:.0f}" r="3" fill="{COLOURS.get(name, INK)}">'
            f"<title>{title}</title></circle>"
        )
    groups = []
    for k, arrows in enumerate(fields.values()):
        length = np.linalg.norm(arrows, axis=1)
        ends = arrows / max(length.mean(), 1e-12) * 9
        path = "".join(
            f"M{a:.0f} {b:.0f}l{u:.0f} {v:.0f}"
            for a, b, (u, v) in zip(x, y, ends * [1, -1], strict=True)
        )
        groups.append(f'<g class="g{k}"><path d="{path}" stroke="{INK}" fill="none"/></g>')
    switch, rules = _switch("fields", "Arrows of", list(fields))
    drawing = (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="UMAP of the test '
        f'cells with the arrows of the field that is chosen">{"".join(dots)}{"".join(groups)}</svg>'
    )
    return _framed("fields", rules, switch + drawing)


def switched_lines(
    studies: Mapping[str, tuple[pd.DataFrame, pd.Series, Sequence[int]]],
) -> HTML:
    """Draw configurations as lines through their parameters, a study at a time.

    The line under the pointer stands out, and its values are shown.

    Parameters
    ----------
    studies
        Name: parameters, by configuration; its gain; the best configurations. See
        :func:`~splicedvae_book.plots.parallel_coordinates`.

    Returns
    -------
    The drawing.
    """
    height, groups = 320, []
    for k, (parameters, gain, best) in enumerate(studies.values()):
        frame = parameters.assign(rank=gain.rank(pct=True))
        step, marks, places = WIDTH / frame.shape[1], [], {}
        for i, name in enumerate(frame):
            spot = step * (i + 0.4)
            places[name], ticks, texts = _ticks(frame[name])
            marks.append(f'<path d="M{spot:.0f} 40V{height - 20}" stroke="#999"/>')
            head = html.escape(name.replace("_", " "))
            marks.append(
                f'<text x="{spot:.0f}" y="{18 + 14 * (i % 2)}" font-size="11" '
                f'text-anchor="middle">{head}</text>'
            )
            for tick, text in zip(ticks, texts, strict=True) if name != "rank" else ():
                at = height - 20 - tick * (height - 60)
                words = "".join(
                    f'<tspan x="{spot + 3:.0f}" dy="{10 * (j > 0)}">{html.escape(word)}</tspan>'
                    for j, word in enumerate(str(text).split())
                )
                marks.append(f'<text y="{at:.0f}" font-size="10">{words}</text>')
        lines = []
        for number, row in pd.DataFrame(places, index=frame.index).iterrows():
            path = "L".join(
                f"{step * (i + 0.4):.0f} {height - 20 - at * (height - 60):.0f}"
                for i, at in enumerate(row)
            )
            given = ", ".join(f"{name} {value}" for name, value in parameters.loc[number].items())
            title = html.escape(f"{given}: gain {gain[number]:.2f} %")
            colour, width = (ORANGE, 2.5) if number in best else (BLUE, 1)
            lines.append(
                f'<path d="M{path}" stroke="{colour}" stroke-width="{width}" '
                f'fill="none"><title>{title}</title></path>'
            )
        groups.append(f'<g class="g{k}">{"".join(lines)}{"".join(marks)}</g>')
    switch, rules = _switch("lines", "Configurations of", list(studies))
    rules += "\n.lines g path { opacity: .6 }\n.lines g path:hover { opacity: 1; stroke-width: 5 }"
    drawing = (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Parallel coordinates of the '
        f'study that is chosen">{"".join(groups)}</svg>'
    )
    return _framed("lines", rules, switch + drawing)
