"""A judge and an individual person, both held against the other people: the part of a calibration with many ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lengthwise.records import Sample
from lengthwise.review_metrics import Review, review_metrics
from lengthwise.statistics import Interval

_TITLES = {
    "mse": "proxy MSE",
    "mae": "proxy MAE",
    "spearman": "rank correlation",
    "order_accuracy": "pairs in order",
    "decision_accuracy": "decision accuracy",
    "macro_f1": "decision macro-F1",
}


def review_document(
    samples: Sequence[Sample], predictions: Sequence[float | None], accept_from: float | None
) -> dict[str, Any] | None:
    """Return the measures of judge and person on the samples that have several ratings; None if none has.

    Both are measured on the same samples, those with a prediction; the others are counted.

    Args:
        samples: from `evals.labels.read_label`.
        predictions: of each sample on the human scale, None where it is unscored.
        accept_from: see `review_metrics`.
    """
    num_rated = sum(bool(sample.metadata["ratings"]) for sample in samples)
    if not num_rated:
        return None
    reviews = reviews_of(samples, predictions)
    measures = review_metrics(reviews, accept_from=accept_from) if reviews else {}
    return {
        "n": len(reviews),
        "num_unscored": num_rated - len(reviews),
        **{
            who: {name: None if one is None else _value(one) for name, one in found.items()}
            for who, found in measures.items()
        },
    }


def reviews_of(samples: Sequence[Sample], predictions: Sequence[float | None]) -> list[Review]:
    """Return the labelled samples that have several ratings and a prediction, on the human scale."""
    return [
        Review(
            ratings=tuple(sample.metadata["ratings"]),
            prediction=prediction,
            decision=sample.metadata["decision"],
            predicted_decision=sample.metadata["predicted_decision"],
        )
        for sample, prediction in zip(samples, predictions, strict=True)
        if prediction is not None and sample.metadata["ratings"]
    ]


def review_lines(document: Mapping[str, Any] | None) -> list[str]:
    """Return the measures as a table, the judge beside the person; empty without several ratings."""
    if document is None or not document["n"]:
        return []
    num = document["n"] + document["num_unscored"]
    lines = [f"against the mean of the other people's ratings, {document['n']} of {num} texts scored"]
    lines.append(f"{'':<20}{'judge':<26}{'an individual person':<26}judge - person")
    for name, title in _TITLES.items():
        cells = [_cell(document[who].get(name)) for who in ("judge", "human", "difference")]
        lines.append(f"{title:<20}{cells[0]:<26}{cells[1]:<26}{cells[2]}".rstrip())
    return lines


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = ("-" if end is None else f"{end:.3f}" for end in found["ci"])
    return f"{found['value']:.3f} [{low}, {high}]"


def _value(found: Interval) -> dict[str, Any]:
    return {"value": found.estimate, "ci": [found.low, found.high], "n": found.n, "method": found.method}
