"""What the verbs' pictures are drawn with: SVG, made of nothing but text.

A picture is dark on a dark page and light on a light one where a viewer knows of that (CSS Media Queries 5,
prefers-color-scheme), and light elsewhere. Its background is its own, so that it can be read on any page.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

_LIGHT = ".paper { fill: #ffffff } .ink { fill: #1f2328 } .faint { fill: #59636e } .frame { stroke: #8c959f }"
_DARK = ".paper { fill: #0d1117 } .ink { fill: #e6edf3 } .faint { fill: #9198a1 } .frame { stroke: #656c76 }"
_FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""


def picture(title: str, width: float, height: float, parts: Iterable[str], *, light: str, dark: str) -> str:
    """Return a whole picture.

    Args:
        title: what it shows, for who cannot see it.
        width, height: in pixels.
        parts: what is drawn, in this order, on the background.
        light, dark: the style of more classes than those that there are here: paper, ink, faint and frame.
    """
    size = f'width="{number(width)}" height="{number(height)}"'
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {number(width)} {number(height)}" '
        f'{_FONT} role="img" aria-label={quoteattr(title)}>'
    )
    style = f"{_LIGHT}\n{light}\n@media (prefers-color-scheme: dark) {{\n{_DARK}\n{dark}\n}}"
    return "\n".join(
        [opening, f"<style>\n{style}\n</style>", f'<rect class="paper" {size}/>', *parts, "</svg>", ""]
    )


def line(kind: str, x1: float, y1: float, x2: float, y2: float, *, dash: str = "") -> str:
    """Return a line of a class; `dash` is its stroke-dasharray."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="{kind}" d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"{dashes}/>'


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 13,
    anchor: str = "start",
    weight: int = 400,
    kind: str = "ink",
) -> str:
    """Return a text of a class; `size` is in pixels."""
    return (
        f'<text class="{kind}" x="{number(x)}" y="{number(y)}" font-size="{size:g}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def number(value: float) -> str:
    """Return a coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
