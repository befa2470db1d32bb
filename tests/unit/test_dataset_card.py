from __future__ import annotations

import yaml

from data_builders.dataset_card import dataset_card, histogram

FACTS = {
    "name": "my run: 'one'",
    "builder": "agent_write",
    "models": {"planner": "big", "writer": "small"},
    "data": "prompts.jsonl",
    "counts": {"inputs": 4, "kept": 2, "rejected": 1, "failed": 1},
    "reasons": {"engine: EngineError": 1, "plan: sum | off": 3},
    "words": [600, 2400],
    "tokens": [800, 3200],
    "languages": {"en": 1, "zh": 1, "other": 0},
    "length_scores": [90.0, 100.0],
    "usage": {"prompt_tokens": 9000, "cached_tokens": 4000, "completion_tokens": 6000, "num_calls": 20},
    "facts": {"seed": 7},
}


def test_card_has_valid_hub_metadata():
    _, front, _ = dataset_card(**FACTS).split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["pretty_name"] == "my run: 'one'"
    assert metadata["language"] == ["en", "zh"]
    assert metadata["size_categories"] == ["n<1K"]
    assert metadata["configs"] == [{"config_name": "default", "data_files": "data.parquet"}]


def test_card_says_counts_lengths_reasons_and_cost():
    card = dataset_card(**FACTS)
    assert "| inputs | 4 |" in card and "| failed | 1 |" in card
    assert "median 1,500, shortest 600, longest 2,400; tokens: median 2,000, 4,000 in all" in card
    assert "mean 95.0 over 2 rows" in card
    assert card.index("plan: sum \\| off | 3") < card.index("engine: EngineError | 1")
    assert "| generated tokens per kept row | 3,000 |" in card
    assert "| planner model | big |" in card and "| seed | 7 |" in card
    assert "`big` and `small`" in card
    assert "licence" in card.lower()


def test_card_of_an_empty_set():
    card = dataset_card(
        **{**FACTS, "words": [], "tokens": [], "length_scores": [], "reasons": {}, "languages": {}}
    )
    assert "No row was kept." in card and "No row was refused." in card
    assert "no row was kept |" in card


def test_histogram_counts_every_value_once():
    lines = histogram([0, 249, 250, 16000, 99999]).splitlines()
    assert [int(line.split()[-1]) for line in lines] == [2, 1, 0, 0, 0, 0, 0, 2]
    assert lines[0].count("#") == 40 and lines[1].count("#") == 20 and lines[2].count("#") == 0
    assert lines[-1].split()[0] == "16000+"
