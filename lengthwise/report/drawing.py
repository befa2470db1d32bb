"""Makes a matplotlib figure a part of the page: static SVG in the page's font and colours, with its links."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

WIDTH = 360
"""Units of a drawing: about the pixels it gets on a phone and as one of three on a desktop page."""
PALETTE = {
    "light": ("#566a87", "#b4531c", "#14766b", "#7a4fb0", "#a3386b", "#6b6a1e"),
    "dark": ("#9db2d1", "#f0935c", "#52c7b8", "#c2a2ee", "#ee8fb8", "#cfcd6f"),
}
"""The runs' colours. The first two, slate and orange, also differ to eyes that tell red from green badly; no
chart relies on colour alone."""
INK, MUTED, RULE, LINE = "#1d2430", "#5b6472", "#b3bac5", "#dfe2e6"
"""The page's own colours in its light scheme (`page.css`)."""
FULL_NUMBER = "{x:,.10g}"
"""How a number beside an axis is written: 3,000 or 0.25."""
_VARIABLES = {
    **{INK: "--ink", MUTED: "--muted", RULE: "--rule", LINE: "--line"},
    **{colour: f"--series-{i}" for i, colour in enumerate(PALETTE["light"])},
}
_STYLE = {
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so a page is the same wherever it is made
    "font.size": 12,
    "text.color": MUTED,
    "text.parse_math": False,  # a name may have dollar signs
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.titlecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xaxis.labellocation": "right",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.pad": 6,  # a ring at the foot is as high
    **{f"{axis}tick.{kind}.size": 0 for axis in "xy" for kind in ("major", "minor")},
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.hspace": 0.1,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def page_style() -> Iterator[None]:
    """Draw in the page's style, whatever style the user has set for matplotlib; also a decorator."""
    import matplotlib.style

    with matplotlib.style.context(_STYLE, after_reset=True):
        yield


def run_colour(index: int) -> str:
    """Return the colour of the run at `index` (they repeat after six)."""
    return PALETTE["light"][index % len(PALETTE["light"])]


def log_ticks(axis: Axis, limits: tuple[float, float]) -> None:
    """Set numbers in full at 1, 3, 10, 30 ..., or closer where the axis spans little."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = limits
    axis.set_major_locator(LogLocator(subs=(1, 3) if high / low > 12 else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FULL_NUMBER)


class Drawing:
    """A figure whose marks say something when they are pointed at, and may lead to a place of the page.

    matplotlib knows a mark's address, but no hint: `mark` returns a number to set as the address (`set_url`,
    `set_urls`), and `svg` puts hint and place where the number stands.
    """

    def __init__(self, height: float, *, rows: int = 1) -> None:
        """Make `rows` plots, one above the other on one scale; the height is in units of WIDTH."""
        from matplotlib.figure import Figure

        # A figure that pyplot does not know needs no display and is gone with its last reference.
        self._figure = Figure(figsize=(WIDTH / 72, height / 72))
        self.plots: list[Axes] = list(
            self._figure.subplots(rows, sharex=True, sharey=True, squeeze=False)[:, 0]
        )
        self._marks: list[tuple[str, str]] = []

    def mark(self, hint: str, place: str = "") -> str:
        """Return the address of a mark that says `hint` and leads to the element with the id `place`."""
        self._marks.append((hint, place))
        return str(len(self._marks) - 1)

    def svg(self, name: str, label: str) -> str:
        """Return the SVG element.

        Args:
            name: unlike that of any other chart of the page; its ids come from it.
            label: a sentence that says what it shows, for those who cannot see it.
        """
        root = ET.fromstring(self._drawn(name))
        root.attrib = {
            "class": "chart",
            "viewBox": root.get("viewBox", ""),
            "role": "img",
            "aria-label": label,
        }
        del root[0]  # a style sheet, which would hold for the whole page
        for element in list(root.iter()):
            self._settle(element)
        return ET.tostring(root, encoding="unicode")

    def _drawn(self, name: str) -> str:
        import matplotlib

        drawn = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
            # The reader's browser draws the text, and has letters that the font for measuring lacks.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            stated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            self._figure.savefig(drawn, format="svg", metadata=stated)
        return drawn.getvalue()

    def _settle(self, element: ET.Element) -> None:
        """Make an element at home in HTML: no namespaces, the page's colours, classes where ids would recur."""
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.text = (element.text or "").strip() if element.tag == "text" else None
        element.tail = None
        if element.tag == "g" and "id" in element.attrib:
            element.set("class", element.attrib.pop("id"))
        if element.tag == "a":
            self._link(element)
        if "style" in element.attrib:
            style = re.sub("#[0-9a-f]{6}", lambda m: f"var({_VARIABLES[m[0]]})", element.attrib["style"])
            element.set("style", style)

    def _link(self, element: ET.Element) -> None:
        hint, place = self._marks[int(element.attrib["href"])]
        title = ET.Element("title")
        title.text = hint
        element.insert(0, title)
        element.tag = "a" if place else "g"
        # The samples below are the keyboard's way to the same place: thousands of tab stops help nobody.
        element.attrib = {"href": f"#{place}", "tabindex": "-1"} if place else {}
