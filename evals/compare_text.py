"""A comparison of two evaluations as plain text for a terminal."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lengthwise.report.comparison import Comparison, Pair, by_slice
from lengthwise.report.evaluations import Output
from lengthwise.report.wording import decimal, interval, metric_name, p_value, plural, ratio, target, whole

if TYPE_CHECKING:
    from evals.compare import Contrast, TaskContrast

FIRST_LINES, LAST_LINES = 5, 2
"""Lines of a text that are shown: how it begins, and how it ends (a loop or a cut shows there)."""
_NARROW = 72
"""Below this width two texts stand one above the other."""


def show(contrast: Contrast, *, num_shown: int, width: int) -> str:
    """Return what changed between two runs."""
    base, other = contrast.base, contrast.other
    lines = [f"{base.label} -> {other.label}", f"  {base.path}", f"  {other.path}"]
    lines += [f"WARNING: {problem}" for problem in contrast.problems]
    if contrast.warnings:
        lines.append("WARNING: not measured alike, which may explain a difference as well as the model does:")
        lines += [f"  {warning}" for warning in contrast.warnings]
    for task in contrast.tasks:
        lines += ["", *_task(task, num_shown, width)]
    return "\n".join(lines) + "\n"


def _task(task: TaskContrast, num_shown: int, width: int) -> list[str]:
    base, other = task.lead.base.label, task.lead.other.label
    lines = [f"{task.name}: {plural(task.lead.n, 'shared item')}"]
    lines += [f"  WARNING: {note}" for note in task.notes]
    head = ["metric", base, other, "difference", "95 % interval", "n", "p", "p (Holm)", "verdict"]
    lines += ["", *table([head, *(_row(c) for c in task.comparisons)], "llrrrrrrl")]
    lines += _reach(task.comparisons, width)
    lines += [
        "",
        *(_flip_lines(task) or ["flips: no metric of 0 and 1, and no --threshold METRIC=VALUE given"]),
    ]
    lines.append(f"replies: {_counts(task)}")
    slices = by_slice(task.lead)
    if slices:
        digits = task.lead.digits
        rows = [
            [
                f"{kind.replace('_', ' ')} {value}",
                decimal(d.estimate, digits, signed=True),
                interval(d.low, d.high, digits),
                str(d.n),
            ]
            for kind, value, d in slices
        ]
        head = ["by slice", f"{metric_name(task.lead.metric)} difference", "95 % interval", "n"]
        lines += ["", *table([head, *rows], "lrrr")]
    lost, won = task.changes(num_shown)
    titles = ("largest losses", "largest wins")
    if task.lead.higher_is_better is None:
        titles = ("largest changes", "")
    for title, pairs in zip(titles, (lost, won), strict=True):
        if pairs:
            lines += ["", f"{title} ({metric_name(task.lead.metric)}):"]
        for pair in pairs:
            lines += _pair(pair, task.lead, width)
    return lines


def _row(c: Comparison) -> list[str]:
    d = c.digits
    verdict = {"unclear": "no clear difference", "too few": "too few items"}.get(c.verdict, c.verdict)
    if verdict == c.verdict and not c.survives:
        verdict += ", not after Holm"
    name = metric_name(c.metric) + (" (median)" if c.summary == "median" else "")
    return [
        name,
        decimal(c.before, d),
        decimal(c.after, d),
        decimal(c.difference, d, signed=True),
        interval(c.low, c.high, d),
        whole(c.n),
        p_value(c.p_value),
        p_value(c.p_holm),
        verdict,
    ]


def _reach(comparisons: Sequence[Comparison], width: int) -> list[str]:
    """Say how large a true difference would have had to be: below that, "no clear difference" says little."""
    told = [
        f"{decimal(c.detectable, c.digits)} in {metric_name(c.metric)}"
        for c in comparisons
        if c.detectable is not None
    ]
    if not told:
        return []
    text = f"these items show a paired difference of about {', '.join(told)} (80 % power, 5 % level)"
    return wrap(text, width)


def _flip_lines(task: TaskContrast) -> list[str]:
    return [
        f"flips (right: {f.rule}): {f.sentence}; "
        + (
            "no test, as items share a prompt"
            if f.p_value is None
            else f"exact McNemar p {p_value(f.p_value)}"
        )
        + (
            f"; lost: {', '.join(p.id for p in f.lost[:8])}{', ...' if len(f.lost) > 8 else ''}"
            if f.lost
            else ""
        )
        for f in task.flips
    ]


def _counts(task: TaskContrast) -> str:
    old, new = task.counts
    return ", ".join(f"{key} {whole(old.get(key))} -> {whole(new.get(key))}" for key in {**old, **new})


def _pair(pair: Pair, comparison: Comparison, width: int) -> list[str]:
    d = comparison.digits
    change = decimal(pair.after - pair.before, d, signed=True)
    lines = [
        "",
        f"  {pair.id}: {decimal(pair.before, d)} -> {decimal(pair.after, d)} ({change})",
        *(f"  {line}" for line in wrap(f"{target(pair.base.requested)}: {pair.base.prompt}", width - 4)[:2]),
    ]
    headings = [
        f"{run.label}, {_length(output)}"
        for run, output in ((comparison.base, pair.base), (comparison.other, pair.other))
    ]
    texts = [pair.base.texts[0], pair.other.texts[0]]
    return lines + [f"  {line}".rstrip() for line in side_by_side(headings, texts, width - 2)]


def _length(output: Output) -> str:
    unit = output.requested.unit if output.requested else "words"
    share = ratio(output.length, output.requested)
    marks = [mark.upper() for mark in output.marks]
    return ", ".join([f"{whole(output.length)} {unit}{f' ({share})' if share else ''}", *marks])


def side_by_side(headings: Sequence[str], texts: Sequence[str], width: int) -> list[str]:
    """Return two texts in two columns, or one above the other where there is no room.

    Example:
        >>> side_by_side(["a", "b"], ["one", "two"], 80)[1]
        'one                                    | two'
    """
    if width < _NARROW:
        return [
            line
            for heading, text in zip(headings, texts, strict=True)
            for line in [f"{heading}:", *excerpt(text, width), ""]
        ]
    half = (width - 3) // 2
    columns = [
        [*wrap(heading, half)[:1], *excerpt(text, half)]
        for heading, text in zip(headings, texts, strict=True)
    ]
    return [
        f"{_pad(left, half)} | {right}".rstrip()
        for left, right in itertools.zip_longest(*columns, fillvalue="")
    ]


def excerpt(text: str, width: int) -> list[str]:
    """Return the first and the last lines of a text, and how many are left out between them."""
    lines = wrap(text, width) or ["(empty)"]
    left_out = len(lines) - FIRST_LINES - LAST_LINES
    if left_out <= 1:
        return lines
    return [*lines[:FIRST_LINES], f"[... {left_out} lines ...]", *lines[-LAST_LINES:]]


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` columns; a hanzi takes two, and lines may break beside it.

    Control characters become a replacement character: a reply must not steer the terminal.
    """
    lines, line = [], ""
    for token in _tokens(text):
        if columns(line + token.rstrip()) > width and line.strip():
            lines.append(line.rstrip())
            line = ""
        line = line + token if line else token.lstrip()
        while columns(line.rstrip()) > width:  # one token longer than the line
            cut = next(i for i in range(len(line), 0, -1) if i == 1 or columns(line[:i]) <= width)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() else lines


def _tokens(text: str) -> list[str]:
    """Return words with the space behind them, and wide characters one by one."""
    tokens, word = [], ""
    for character in " ".join(text.split()):
        shown = character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        word += shown
        if shown == " " or columns(shown) == 2:
            tokens.append(word)
            word = ""
    return [*tokens, word] if word else tokens


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    Example:
        >>> columns("ab"), columns("字数")
        (2, 4)
    """
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Return rows as lines with aligned columns: `l` left, `r` right."""
    widths = [max(columns(row[i]) for row in rows) for i in range(len(align))]
    lines = [
        "  ".join(_pad(cell, w, side) for cell, w, side in zip(row, widths, align, strict=True)).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(columns, lines)), *lines[1:]]


def _pad(text: str, width: int, side: str = "l") -> str:
    space = " " * max(width - columns(text), 0)
    return space + text if side == "r" else text + space
