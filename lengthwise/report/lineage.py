"""Shows the runs as a diagram: data -> model -> scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lengthwise.models import run_of_model
from lengthwise.report.collect import Run
from lengthwise.report.files import count, mapping, number
from lengthwise.report.lineage_layout import NODE_HEIGHT, NODE_WIDTH, Node, lay_out
from lengthwise.report.wording import day, duration, plural, whole

KINDS = {
    "build": "Data",
    "sft": "Model · SFT",
    "dpo": "Model · DPO",
    "kto": "Model · KTO",
    "orpo": "Model · ORPO",
    "grpo": "Model · GRPO",
    "train": "Model",
    "eval": "Scores",
}


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
    edges = lay_out(nodes, {run.anchor for run in runs if run.job == "eval"})
    placed = sorted(nodes.values(), key=lambda n: (n.column, n.row))
    return Diagram(
        nodes=placed,
        edges=edges,
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
    trainings = [parent.path.resolve() for parent in run.parents if parent.training]
    if trainings and run.build is None:
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
        made_in = run_of_model(name) if trainings else None
        if name and (made_in is None or made_in.resolve() not in trainings):
            facts = [("weights", short(described.get("identity")))]
            title = "/".join(Path(name).parts[-2:]) if name.startswith(("/", ".")) else name
            nodes[name] = Node(
                key=f"model:{name}", kind="model", heading="Base model", title=title, facts=facts
            )
    return list(nodes.values())
