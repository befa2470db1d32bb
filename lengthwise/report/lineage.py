"""Lays out the runs as a diagram: data -> model -> scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lengthwise.report.collect import Run
from lengthwise.report.files import count, mapping, number
from lengthwise.report.wording import day, duration, plural, whole

NODE_WIDTH, NODE_HEIGHT = 226, 130
"""Pixels; the height is what a row of the diagram takes, boxes with fewer facts are lower."""
GAP_X, GAP_Y = 56, 24
KINDS = {
    "build": "Data",
    "sft": "Model · SFT",
    "dpo": "Model · DPO",
    "grpo": "Model · GRPO",
    "train": "Model",
    "eval": "Scores",
}


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


@dataclass(kw_only=True)
class Diagram:
    """Boxes and the curves between them."""

    nodes: list[Node]
    edges: list[str]
    """SVG path data, from a source's right side to a node's left side."""
    width: int
    height: int


def draw(runs: Sequence[Run]) -> Diagram:
    """Return the diagram of the runs, of the files and models they started from, and of missing parents."""
    nodes: dict[str, Node] = {}
    for run in runs:
        nodes[run.anchor] = _run_node(run)
    for colour, run in enumerate(run for run in runs if run.evaluation is not None):
        nodes[run.anchor].colour = colour
    for run in runs:
        node = nodes[run.anchor]
        node.sources += [parent.anchor for parent in run.parents]
        for missing in run.missing_parents:
            key = f"missing:{missing}"
            nodes.setdefault(
                key,
                Node(
                    key=key,
                    kind="missing",
                    heading="Missing",
                    title=missing,
                    warning="not found on this machine",
                ),
            )
            node.sources.append(key)
        for source in [*_input_nodes(run), *_model_nodes(run)]:
            nodes.setdefault(source.key, source)
            node.sources.append(source.key)
    placed = _place(nodes, {run.anchor for run in runs if run.job == "eval"})
    return Diagram(
        nodes=placed,
        edges=[_curve(nodes[s], node) for node in placed for s in dict.fromkeys(node.sources)],
        width=max((n.x for n in placed), default=0) + NODE_WIDTH,
        height=max((n.middle for n in placed), default=0) + NODE_HEIGHT // 2,
    )


def short(digest: Any, length: int = 8) -> str:
    """Return the first digits of a digest or commit."""
    return str(digest)[:length] if digest else "unknown"


def _run_node(run: Run) -> Node:
    manifest = run.manifest
    facts = [
        _rows(run),
        ("finished", day(manifest.get("finished") or manifest.get("created"))),
        ("took", duration(number(manifest.get("wall_seconds")))),
    ]
    section = {"eval": "scores", "build": "build"}.get(run.job, "training" if run.training else "settings")
    warning = None if run.finished else "unfinished"
    if run.finished and run.problems:
        warning = plural(len(run.problems), "warning")
    return Node(
        key=run.anchor,
        kind="train" if run.training else run.job,
        heading=KINDS.get(run.job, run.job.capitalize()),
        title=run.label,
        facts=facts,
        href=f"#{section}-{run.anchor}",
        warning=warning,
    )


def _rows(run: Run) -> tuple[str, str]:
    if run.build is not None:
        return "rows kept", whole(run.build.kept)
    if run.training is not None:
        return "rows trained on", whole(count(run.training.facts.get("num_rows")))
    if run.evaluation is not None:
        return "replies", whole(sum(len(t.outputs) for t in run.evaluation.tasks.values()))
    return "rows", "unknown"


def _input_nodes(run: Run) -> list[Node]:
    """Return the files a run read that no run on the page wrote."""
    roots = [parent.path.resolve() for parent in run.parents]
    nodes = []
    for entry in run.manifest.get("inputs") or []:
        recorded = mapping(entry)
        path = str(recorded.get("path") or "")
        place = Path(path).resolve() if path else Path()
        if not path or any(place.is_relative_to(root) for root in roots):
            continue
        if recorded.get("num_rows") is None and not Path(path).suffix:
            continue  # a model folder: drawn as a model below
        digest = recorded.get("sha256")
        nodes.append(
            Node(
                key=f"input:{digest or path}",
                kind="source",
                heading="Input",
                title=Path(path).name,
                facts=[("rows", whole(count(recorded.get("num_rows")))), ("sha256", short(digest))],
            )
        )
    return nodes


def _model_nodes(run: Run) -> list[Node]:
    """Return the models a run started from, unless the model is a run on the page."""
    if any(parent.training for parent in run.parents):
        return []
    if run.training is not None:
        recorded = [run.training.facts.get("base_model")]
    else:
        roles = mapping(run.manifest.get("roles"))
        recorded = list(roles.values()) or [run.manifest.get("model")]
    nodes: dict[str, Node] = {}
    for entry in recorded:
        described = mapping(entry) or {"name": entry}
        name = str(described.get("name") or described.get("model") or "")
        if name:
            facts = [("weights", short(described.get("identity")))]
            title = "/".join(Path(name).parts[-2:]) if name.startswith(("/", ".")) else name
            nodes[name] = Node(
                key=f"model:{name}", kind="model", heading="Base model", title=title, facts=facts
            )
    return list(nodes.values())


def _place(nodes: dict[str, Node], last: set[str]) -> list[Node]:
    """Give each node its column (longest way from a source; scores last) and its row (near its sources)."""

    def depth(key: str, seen: tuple[str, ...] = ()) -> int:
        if key in seen:
            return 0  # a manifest that names itself as its ancestor
        return max((depth(s, (*seen, key)) + 1 for s in nodes[key].sources), default=0)

    for key, node in nodes.items():
        node.column = depth(key)
    deepest = max((node.column for node in nodes.values()), default=0)
    for key in last:
        nodes[key].column = deepest
    columns: dict[int, list[Node]] = {}
    for node in nodes.values():
        columns.setdefault(node.column, []).append(node)
    # A source stands just before what is made from it, so that its curve is short.
    for key, node in nodes.items():
        users = [n.column for n in nodes.values() if key in n.sources]
        if not node.sources and users and min(users) - 1 > node.column:
            columns[node.column].remove(node)
            node.column = min(users) - 1
            columns.setdefault(node.column, []).append(node)
    tallest = max((len(c) for c in columns.values()), default=0)
    for column in sorted(columns):
        members = columns[column]
        members.sort(key=lambda n: _mean_row(n, nodes))
        for index, node in enumerate(members):
            node.row = index + (tallest - len(members)) / 2
    return sorted(nodes.values(), key=lambda n: (n.column, n.row))


def _mean_row(node: Node, nodes: dict[str, Node]) -> float:
    rows = [nodes[s].row for s in node.sources if nodes[s].column < node.column]
    return sum(rows) / len(rows) if rows else 0.0


def _curve(source: Node, node: Node) -> str:
    x0, y0 = source.x + NODE_WIDTH, source.middle
    x1, y1 = node.x, node.middle
    bend = GAP_X // 2 if x1 - x0 <= GAP_X else (x1 - x0) // 2
    return f"M{x0},{y0} C{x0 + bend},{y0} {x1 - bend},{y1} {x1},{y1}"
