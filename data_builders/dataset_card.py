"""The README.md of a built data set: what is in it, how long it is, what was refused and why (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BINS = (0, 250, 500, 1000, 2000, 4000, 8000, 16000)
"""Lower bounds of the histogram, in words."""

BAR = 40
"""Characters of the longest bar."""


def dataset_card(
    *,
    name: str,
    builder: str,
    models: Mapping[str, str],
    data: str,
    counts: Mapping[str, int],
    reasons: Mapping[str, int],
    words: Sequence[int],
    tokens: Sequence[int],
    languages: Mapping[str, int],
    length_scores: Sequence[float],
    usage: Mapping[str, int],
    cost_usd: float | None = None,
    groups: Mapping[str, Mapping[str, int]] | None = None,
    facts: Mapping[str, Any],
) -> str:
    """Return the card as Markdown with the hub's metadata on top.

    Args:
        name: the run's name.
        builder: the method.
        models: model by role.
        data: where the prompts came from.
        counts: inputs, kept, rejected, failed and what else was counted.
        reasons: rejected and failed inputs by reason.
        words: `cjk_alpha` words of every kept row.
        tokens: generated tokens of every kept row's text, where they are known.
        languages: kept rows by language.
        length_scores: S_l of the kept rows that have a stated length.
        usage: tokens and calls of the whole run, refused rows included.
        cost_usd: what they cost in US dollars, where prices are known.
        groups: kept rows by the values of an entry that the builder counts them by.
        facts: seed, commit and the like, one line each.
    """
    parts = [
        _front_matter(name, languages, len(words)),
        f"# {name}\n",
        f"{_made(models, builder, data, len(words))} `data.jsonl` holds each row with its whole provenance; "
        "`data.parquet` holds the same rows, the provenance as JSON text. Train on the column `messages`.\n",
        "## Counts\n",
        _table(("", "rows"), counts.items()),
        "## Length of the kept rows\n",
        _lengths(words, tokens, length_scores),
        *(
            part
            for name, numbers in (groups or {}).items()
            for part in (f"## Kept rows by `{name}`\n", _table((name, "rows"), numbers.items()))
        ),
        "## Why rows were refused\n",
        _table(("reason", "rows"), sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
        if reasons
        else "No row was refused.\n",
        *(["## Cost\n", _table(("", "tokens"), _costs(usage, cost_usd, len(words)))] if models else []),
        "## Made with\n",
        _table(("", ""), [*((f"{role} model", model) for role, model in models.items()), *facts.items()]),
        "## Licence\n",
        (_MODELS_TERMS if models else "Each row keeps the licence of its source. ")
        + "The texts were checked for "
        "form (length, repetition, language, ending), not for facts.\n",
    ]
    return "\n".join(parts)


_MODELS_TERMS = (
    "The texts are the output of the models above: the terms of those models decide what the rows may be used for, and "
    "some forbid training other models. The prompts keep the licence of their source. "
)


def _made(models: Mapping[str, str], builder: str, data: str, num_rows: int) -> str:
    if not models:
        return f"{num_rows} rows of {data} that the builder `{builder}` of Lengthwise let pass."
    return (
        f"{num_rows} rows written by {_and(sorted(set(models.values())))} with the builder `{builder}` of Lengthwise "
        f"from the prompts of {data}."
    )


def histogram(values: Sequence[int], bins: Sequence[int] = BINS) -> str:
    """Return counts per bin as text bars.

    Example:
        >>> print(histogram([10, 300, 300], bins=(0, 250)))
               0-249  #################### 1
                250+  ######################################## 2
    """
    counts = [
        sum(low <= value and (index + 1 == len(bins) or value < bins[index + 1]) for value in values)
        for index, low in enumerate(bins)
    ]
    most = max(counts, default=0)
    lines = []
    for index, (low, count) in enumerate(zip(bins, counts, strict=True)):
        label = f"{low}+" if index + 1 == len(bins) else f"{low}-{bins[index + 1] - 1}"
        bar = "#" * (-(-count * BAR // most) if most else 0)
        lines.append(f"{label:>12}  {bar}{' ' if bar else ''}{count}")
    return "\n".join(lines)


def _front_matter(name: str, languages: Mapping[str, int], num_rows: int) -> str:
    size = next((s for limit, s in _SIZES if num_rows < limit), "n>1M")
    codes = [code for code in sorted(languages) if code != "other"]
    language_lines = ["language:", *(f"- {code}" for code in codes)] if codes else []
    return "\n".join(
        [
            "---",
            f"pretty_name: {_quoted(name)}",
            "license: other",
            *language_lines,
            "task_categories:",
            "- text-generation",
            "size_categories:",
            f"- {size}",
            "tags:",
            "- synthetic",
            "- long-form",
            "- lengthwise",
            "configs:",
            "- config_name: default",
            "  data_files: data.parquet",
            "---",
            "",
        ]
    )


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def _lengths(words: Sequence[int], tokens: Sequence[int], length_scores: Sequence[float]) -> str:
    if not words:
        return "No row was kept.\n"
    facts = [
        f"words (`cjk_alpha`): median {_median(words):,.0f}, shortest {min(words):,}, longest {max(words):,}"
        + (f"; tokens: median {_median(tokens):,.0f}, {sum(tokens):,} in all" if tokens else "")
    ]
    if length_scores:
        mean = sum(length_scores) / len(length_scores)
        facts.append(f"S_l against the stated length: mean {mean:.1f} over {len(length_scores)} rows")
    return "\n".join([*(f"- {fact}" for fact in facts), "", "```", histogram(words), "```", ""])


def _costs(usage: Mapping[str, int], cost_usd: float | None, num_kept: int) -> list[tuple[str, str]]:
    generated = usage.get("completion_tokens", 0)
    rows = [
        ("prompt tokens", f"{usage.get('prompt_tokens', 0):,}"),
        ("of these from the prefix cache", f"{usage.get('cached_tokens', 0):,}"),
        ("generated tokens", f"{generated:,}"),
        ("generated tokens per kept row", f"{generated / num_kept:,.0f}" if num_kept else "no row was kept"),
        ("model calls", f"{usage.get('num_calls', 0):,}"),
    ]
    if cost_usd is not None:
        rows.append(("US dollars", f"{cost_usd:,.4f}"))
        if num_kept:
            rows.append(("US dollars per kept row", f"{cost_usd / num_kept:,.6f}"))
    return rows


def _table(head: tuple[str, str], rows: Any) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | ---: |" if head[1] else "| --- | --- |"]
    lines += [f"| {_cell(left)} | {_cell(right)} |" for left, right in rows]
    return "\n".join([*lines, ""])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _and(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _median(values: Sequence[int]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
