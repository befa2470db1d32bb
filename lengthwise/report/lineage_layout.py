"""Gives the boxes of the lineage their places, and the curves between them their way.

Columns go from sources to scores. A curve that spans several columns gets a lane of its own in each column it
crosses, so that it passes between the boxes and not behind them (the dummy nodes of Sugiyama, Tagawa and Toda 1981).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

NODE_WIDTH, NODE_HEIGHT = 226, 130
"""Pixels; the height is what a row of the diagram takes, boxes with fewer facts are lower."""
GAP_X, GAP_Y = 56, 24
LANE = 0.3
"""Height of a lane, in boxes."""
SWEEPS = 3
"""How often the order in the columns is improved, from left to right and back."""


@dataclass(kw_only=True)
class Node:
    """A run, a file or a model in the diagram."""

    key: str
    kind: str
    """source, model, missing, or the run's job: the style of the box."""
    heading: str
    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    """(name, value) lines."""
    href: str | None = None
    warning: str | None = None
    colour: int | None = None
    """Of an evaluation: the colour it has in the charts."""
    sources: list[str] = field(default_factory=list)
    """Keys of the nodes it was made from."""
    column: int = 0
    row: float = 0.0

    @property
    def x(self) -> int:
        """Left edge in pixels."""
        return self.column * (NODE_WIDTH + GAP_X)

    @property
    def y(self) -> int:
        """Upper edge in pixels."""
        return self.middle - self.height // 2

    @property
    def height(self) -> int:
        """Pixels that the heading, two lines of title and the facts take."""
        return min(64 + 21 * len(self.facts), NODE_HEIGHT)

    @property
    def middle(self) -> int:
        """Where curves arrive and leave, in pixels from the top."""
        return round(self.row * (NODE_HEIGHT + GAP_Y)) + NODE_HEIGHT // 2


def lay_out(nodes: dict[str, Node], last: set[str]) -> list[str]:
    """Set column and row of each node; return the curves as SVG path data.

    Args:
        nodes: by their keys; `sources` says what leads to them.
        last: keys of those that stand in the last column.
    """
    _set_columns(nodes, last)
    lanes: dict[tuple[str, int], Node] = {}
    for node in nodes.values():
        for source in dict.fromkeys(node.sources):
            before = source
            for column in range(nodes[source].column + 1, node.column):
                key = f"{source} in column {column}"
                lane = Node(key=key, kind="lane", heading="", title="", column=column, sources=[before])
                lanes.setdefault((source, column), lane)
                before = key
    _set_rows(nodes, lanes)
    return [
        _curve(nodes[source], [lanes[source, c] for c in range(nodes[source].column + 1, node.column)], node)
        for node in sorted(nodes.values(), key=lambda n: (n.column, n.row))
        for source in dict.fromkeys(node.sources)
    ]


def _set_columns(nodes: Mapping[str, Node], last: set[str]) -> None:
    """Give each node the longest way from a source as its column; scores stand last."""

    def depth(key: str, seen: tuple[str, ...] = ()) -> int:
        if key in seen:
            return 0  # a manifest that names itself as its ancestor
        return max((depth(s, (*seen, key)) + 1 for s in nodes[key].sources), default=0)

    for key, node in nodes.items():
        node.column = depth(key)
    deepest = max((node.column for node in nodes.values()), default=0)
    for key in last:
        nodes[key].column = deepest
    # A source stands just before what is made from it, so that its curve is short.
    for key, node in nodes.items():
        users = [n.column for n in nodes.values() if key in n.sources]
        if not node.sources and users:
            node.column = max(node.column, min(users) - 1)


def _set_rows(nodes: Mapping[str, Node], lanes: Mapping[tuple[str, int], Node]) -> None:
    """Order each column by the mean place of its neighbours, and centre it."""
    every = {**nodes, **{lane.key: lane for lane in lanes.values()}}
    # An edge by its last piece: what a node hangs on in the column before it.
    left = {
        key: [
            lanes[s, n.column - 1].key if (s, n.column - 1) in lanes and n.kind != "lane" else s
            for s in n.sources
        ]
        for key, n in every.items()
    }
    right: dict[str, list[str]] = {key: [] for key in every}
    for key, sources in left.items():
        for source in sources:
            right[source].append(key)
    columns: dict[int, list[Node]] = {}
    for node in every.values():
        columns.setdefault(node.column, []).append(node)
    tallest = max((_height(members) for members in columns.values()), default=0.0)
    for _ in range(SWEEPS):
        for neighbours, order in (
            (left, sorted(columns)),
            (right, sorted(columns, reverse=True)),
            (left, sorted(columns)),
        ):
            for column in order:
                members = columns[column]
                members.sort(key=lambda n: _mean_row(n, [every[k] for k in neighbours[n.key]]))
                top = (tallest - _height(members)) / 2
                for node in members:
                    node.row = top + _slot(node) / 2 - 0.5
                    top += _slot(node)


def _slot(node: Node) -> float:
    return LANE if node.kind == "lane" else 1.0


def _height(members: Iterable[Node]) -> float:
    return sum(_slot(node) for node in members)


def _mean_row(node: Node, neighbours: list[Node]) -> float:
    rows = [other.row for other in neighbours if other.column != node.column]
    return sum(rows) / len(rows) if rows else node.row


def _curve(source: Node, lanes: list[Node], node: Node) -> str:
    x, y = source.x + NODE_WIDTH, source.middle
    path = f"M{x},{y}"
    for stop in [*lanes, node]:
        path += f" C{x + GAP_X // 2},{y} {stop.x - GAP_X // 2},{stop.middle} {stop.x},{stop.middle}"
        x, y = stop.x + NODE_WIDTH, stop.middle
        path += f" H{x}" if stop.kind == "lane" else ""
    return path
