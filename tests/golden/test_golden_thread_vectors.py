"""The main table of "Spinning the Golden Thread" (arXiv 2409.02076, section 4): wAvg is the product of CR and STIC-2.

The texts and verdicts behind it are not public, so that this is all of it that can be computed again.
"""

from __future__ import annotations

import pytest

from lengthwise.pooled import pooled_value

PRINTED = {
    "16K": [
        ("Mamba-2.8B", 11.3, 2.1, 0.2),
        ("FILM-7B", 36.0, 9.0, 3.2),
        ("Mistral-7B-v0.2", 81.8, 20.4, 16.7),
        ("Phi-3-mini", 22.9, 5.4, 1.2),
        ("Qwen2-7B", 60.0, 13.5, 8.1),
        ("LongWriter-Llama3.1-8B", 46.0, 14.2, 6.5),
        ("Phi-3.5-MoE", 26.9, 11.3, 3.0),
        ("Llama-3.1-70B", 79.3, 29.2, 23.1),
        ("Qwen2-72B", 94.4, 27.1, 25.5),
        ("GPT-4o-mini", 97.0, 33.4, 32.4),
    ],
    "32K": [
        ("Mamba-2.8B", 5.6, 1.6, 0.1),
        ("FILM-7B", 37.4, 10.9, 4.1),
        ("Mistral-7B-v0.2", 48.2, 15.7, 7.6),
        ("Phi-3-mini", 7.4, 2.4, 0.2),
        ("Llama-3.1-8B", 77.6, 20.6, 16.0),
        ("Qwen2-7B", 40.0, 12.6, 5.0),
        ("LongWriter-Llama3.1-8B", 34.5, 10.8, 3.7),
        ("Mixtral-8x7B", 60.5, 20.3, 12.3),
        ("Phi-3.5-MoE", 7.4, 6.0, 0.4),
        ("Llama-3.1-70B", 63.1, 26.3, 16.6),
        ("Qwen2-72B", 66.2, 21.7, 14.4),
    ],
}
"""Model, CR, STIC-2 and wAvg in percent."""

MISPRINTED = [
    ("Llama-3.1-8B", 93.5, 22.0, 21.6),  # the product is 20.6, which the repository's table has
    ("Mixtral-8x7B", 83.0, 28.1, 22.6),  # wAvg needs a STIC-2 of 27.2
    ("GPT-4o", 67.2, 24.4, 15.3),  # the repository's CR is 62.7, which wAvg needs
]
"""Rows of 16K that do not agree with themselves."""


def wavg(cr: float, stic_2: float) -> float:
    value = pooled_value([(cr / 100, 1, stic_2 / 100, 1)], "ratio")
    assert value is not None
    return 100 * value


@pytest.mark.parametrize("row", [row for rows in PRINTED.values() for row in rows], ids=lambda row: row[0])
def test_the_printed_wavg_is_the_product(row):
    _, cr, stic_2, printed = row
    assert wavg(cr, stic_2) == pytest.approx(printed, abs=0.1)


@pytest.mark.parametrize("row", MISPRINTED, ids=lambda row: row[0])
def test_rows_that_do_not_agree_with_themselves(row):
    _, cr, stic_2, printed = row
    assert abs(wavg(cr, stic_2) - printed) > 0.5


def test_the_repositorys_completion_rate_repairs_a_row():
    assert wavg(62.7, 24.4) == pytest.approx(15.3, abs=0.05)
