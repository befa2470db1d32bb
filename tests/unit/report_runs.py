"""Writes run folders as the jobs do, with made-up texts: what the report's tests read."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

from lengthwise.lengths import count_all, longbench_length_score
from lengthwise.records import LengthTarget

ATTACK = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\"> </details>"
"""What a model may write to break out of the page."""
STAMP = "2026-01-31T14-05-00.123456"
_NOUNS = [
    "harbour",
    "archive",
    "engine",
    "valley",
    "teacher",
    "letter",
    "winter",
    "market",
    "signal",
    "bridge",
    "garden",
    "theory",
    "river",
    "city",
]
_VERBS = [
    "describes",
    "follows",
    "repairs",
    "remembers",
    "measures",
    "crosses",
    "explains",
    "gathers",
    "answers",
    "keeps",
]
_ADJECTIVES = [
    "quiet",
    "patient",
    "early",
    "distant",
    "careful",
    "bright",
    "ordinary",
    "narrow",
    "honest",
    "late",
]


def write_runs(root: Path, *, num_samples: int = 30, seed: int = 7) -> dict[str, Path]:
    """Write a build, a training run on it, and the evaluations of the base and of the tuned model.

    The tuned model is closer to the requested lengths; it also loops twice and is cut more often.
    """
    rng = random.Random(seed)
    build = write_build(root / "build" / "agent_write", rng)
    train = write_training(root / "sft" / "lora", rng, parents=[build])
    base = write_evaluation(
        root / "eval" / "base", random.Random(seed + 1), num_samples=num_samples, skill=0.35
    )
    tuned = write_evaluation(
        root / "eval" / "tuned", random.Random(seed + 1), num_samples=num_samples, skill=0.8, parents=[train]
    )
    return {"build": build, "train": train, "base": base, "tuned": tuned}


def words(rng: random.Random, count: int) -> str:
    """Return a text of `count` words in sentences and paragraphs."""
    parts: list[str] = []
    while len(parts) < count:
        sentence = [
            "The",
            rng.choice(_ADJECTIVES),
            rng.choice(_NOUNS),
            rng.choice(_VERBS),
            "the",
            rng.choice(_NOUNS),
        ]
        if rng.random() < 0.5:
            sentence += ["and", rng.choice(_VERBS), "a", rng.choice(_ADJECTIVES), rng.choice(_NOUNS)]
        sentence[-1] += "."
        parts += sentence
    text = " ".join(parts[:count]).split(". ")
    return "".join(s + (".\n\n" if i % 6 == 5 else ". ") for i, s in enumerate(text)).strip()


def write_manifest(path: Path, job: str, *, parents: list[Path] | None = None, **extra: Any) -> Path:
    """Write a run's manifest; its parents must have theirs."""
    path.mkdir(parents=True, exist_ok=True)
    manifest = {
        "schema_version": 1,
        "job": job,
        "name": path.name,
        "created": "2026-01-31T13:00:00+00:00",
        "finished": "2026-01-31T14:05:00+00:00",
        "config": {"name": path.name, "seed": 1234, "engine": {"name": "vllm", "max_model_len": 4096}},
        "config_digest": hashlib.sha256(str(path.name).encode()).hexdigest(),
        "git_commit": "4e7e0d47f0123456789abcdef0123456789abcde",
        "packages": {"lengthwise": "0.1.0", "torch": "2.13.0", "trl": "1.16.0", "vllm": "0.32.0"},
        "seed": 1234,
        "inputs": [],
        "outputs": [],
        "parents": [_parent(p) for p in parents or []],
        "counts": {},
        "usage": {},
        "wall_seconds": 3905.4,
        **extra,
    }
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def write_build(path: Path, rng: random.Random) -> Path:
    """Write a build of 61 inputs: 48 kept, 11 rejected, 2 failed."""
    kept = []
    for i in range(48):
        asked = rng.choice([500, 800, 1200, 2000, 3000])
        reply = words(rng, round(asked * math.exp(rng.gauss(0, 0.12))))
        prompt = f"Write about {asked} words on the {rng.choice(_NOUNS)} and its {rng.choice(_NOUNS)}."
        counts = count_all(reply)
        length = {"requested": LengthTarget.about(asked).to_dict(), "words_longbench": counts["cjk_alpha"]}
        score = longbench_length_score(asked, counts["cjk_alpha"])
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        num_sections = max(2, asked // 400)
        sections = [
            {
                "index": k,
                "planned_words": round(asked / num_sections),
                "words": round(asked / num_sections * math.exp(rng.gauss(0.05 * k, 0.15))),
                "tries": [{"attempt": attempt} for attempt in range(1 + (rng.random() < 0.2))],
            }
            for k in range(num_sections)
        ]
        kept.append(
            {
                "id": f"seed-{i:03d}",
                "messages": messages,
                "length": length,
                "scores": {"s_l": score},
                "sections": sections,
                "calls": [],
            }
        )
    reasons = ["s_l below 80"] * 6 + ["final: repetition"] * 3 + ["plan not parsed"] * 2
    dropped: list[dict[str, Any]] = [
        {
            "id": f"seed-{50 + i}",
            "outcome": "rejected",
            "reason": reason,
            "detail": f"value {0.1 + i / 50:.2f}",
            "messages": [
                {"role": "user", "content": f"Write about 900 words on a {_NOUNS[i]}."},
                {"role": "assistant", "content": words(rng, 60)},
            ],
        }
        for i, reason in enumerate(reasons)
    ]
    dropped += [
        {"id": f"seed-{70 + i}", "outcome": "failed", "reason": "engine: ContextOverflow"} for i in range(2)
    ]
    write_jsonl(path / "data.jsonl", kept)
    write_jsonl(path / "dropped.jsonl", dropped)
    return write_manifest(
        path,
        "build",
        counts={"kept": 48, "rejected": 11, "failed": 2},
        usage={
            "prompt_tokens": 412_300,
            "cached_tokens": 301_200,
            "completion_tokens": 188_411,
            "num_calls": 527,
        },
        cost={"usd": 0.7537, "usd_per_kept": 0.015702},
        inputs=[{"path": "data/seeds.jsonl", "sha256": "ab" * 32, "num_rows": 61}],
    )


def write_training(path: Path, rng: random.Random, *, parents: list[Path]) -> Path:
    """Write a training run of 40 logged steps."""
    rows: list[dict[str, Any]] = [
        {"step": s, "epoch": s / 20, "loss": 2.1 * math.exp(-s / 18) + 1.05 + rng.gauss(0, 0.03)}
        for s in range(1, 41)
    ]
    rows += [
        {"step": s, "epoch": s / 20, "eval_loss": 2.0 * math.exp(-s / 18) + 1.16} for s in (10, 20, 30, 40)
    ]
    write_jsonl(path / "metrics.jsonl", rows)
    write_jsonl(
        path / "dropped.jsonl",
        [{"id": "seed-011", "outcome": "rejected", "reason": "over_length", "num_tokens": 4410}],
    )
    return write_manifest(
        path,
        "sft",
        parents=parents,
        counts={"read": 48, "kept": 47, "truncated": 0, "rejected": 1, "failed": 0, "drawn": 47},
        training={
            "num_rows": 47,
            "num_tokens": 81_204,
            "num_supervised_tokens": 76_912,
            "over_length": {"rows": 1, "tokens": 4410, "policy": "drop"},
            "base_model": {"name": "embedded:smollm2-135m", "identity": "c0ffee" * 10},
        },
    )


def write_evaluation(
    path: Path,
    rng: random.Random,
    *,
    num_samples: int = 30,
    skill: float,
    parents: list[Path] | None = None,
    temperature: float = 0.0,
) -> Path:
    """Write an evaluation; `skill` 1 writes the length asked for, 0 far too little."""
    rows = [sample_row(i, rng, skill) for i in range(num_samples)]
    write_jsonl(path / f"samples_longbench_write_{STAMP}.jsonl", rows)
    scores = [r["metrics"]["s_l"] for r in rows]
    logs = [r["metrics"]["abs_log_ratio"] for r in rows]
    flags = [r["flags"] for r in rows]
    results = {
        "schema_version": 1,
        "results": {
            "longbench_write": {
                "alias": "longbench_write",
                **_stated("s_l", scores),
                **_stated("abs_log_ratio", logs),
                **_stated("words", [float(r["counts"]["cjk_alpha"]) for r in rows]),
            }
        },
        "n-samples": {"longbench_write": {"original": num_samples, "effective": num_samples}},
        "n-scored": {
            "longbench_write": {
                "scored": num_samples,
                "empty": sum(f["empty"] for f in flags),
                "truncated": sum(f["truncated"] for f in flags),
                "repetitive": sum(f["repetitive"] for f in flags),
                "failed": 0,
            }
        },
        "counters": {
            "longbench_write": {"s_l": "cjk_alpha", "abs_log_ratio": "cjk_alpha", "words": "cjk_alpha"}
        },
        "higher_is_better": {"longbench_write": {"s_l": True, "abs_log_ratio": False}},
        "versions": {"longbench_write": 1},
        "configs": {"longbench_write": {}},
        "config": {
            "model": path.name,
            "adapter": None,
            "engine": {"name": "vllm"},
            "sampling": {"temperature": temperature, "max_tokens": 4096},
            "seed": 1234,
        },
        "model_identity": hashlib.sha256(path.name.encode()).hexdigest(),
        "date": STAMP,
        "total_evaluation_time_seconds": 512.3,
    }
    (path / f"results_{STAMP}.json").write_text(json.dumps(results), encoding="utf-8")
    model = {"name": "embedded:smollm2-135m", "identity": "c0ffee" * 10}
    return write_manifest(path, "eval", parents=parents, model=model, counts={"kept": num_samples})


def write_scores(
    path: Path,
    scores: dict[str, float | None],
    *,
    better: bool | None = True,
    metric: str = "m",
    summary: str = "mean",
    **row: Any,
) -> Path:
    """Write an evaluation with one task `t`, one metric `m` (or another metric) and the given scores by item."""
    rows = [
        {
            "id": key,
            "doc": {"prompt": key},
            "resps": ["word " * 9],
            "finish_reason": "stop",
            "metrics": {metric: value},
        }
        | row
        for key, value in scores.items()
    ]
    write_jsonl(path / f"samples_t_{STAMP}.jsonl", rows)
    known = [v for v in scores.values() if v is not None]
    mean = sum(known) / max(len(known), 1)
    results = {
        "results": {"t": {"alias": "t", f"{metric},none": mean, f"{metric}_stderr,none": 1.0}},
        "higher_is_better": {"t": {metric: better}},
        "summaries": {"t": {metric: summary}},
    }
    (path / f"results_{STAMP}.json").write_text(json.dumps(results), encoding="utf-8")
    return write_manifest(path, "eval")


def sample_row(index: int, rng: random.Random, skill: float) -> dict[str, Any]:
    """Return one row of a samples file. Index 3 attacks the page, 5 is empty, 6 is in Chinese."""
    asked = (200, 400, 800, 1500, 2500, 4000)[index % 6]
    noise = rng.gauss(0, 0.35)
    wrote = round(asked * math.exp((1 - skill) * (-0.3 * math.log(asked / 90) + noise)))
    topic = _NOUNS[index % len(_NOUNS)]
    text = words(random.Random(index * 2 + round(skill * 10)), wrote)
    prompt = f"Write a story about a {topic} in about {asked} words."
    language, finish_reason, repetitive = "en", "stop", False
    if index == 3:
        text = f"{ATTACK}\n{text}"
    if index == 5:
        text = ""
    if index == 6:
        prompt, language = f"写一篇关于城市与河流的文章，大约{asked}字。", "zh"
        text = "城市沿着河流慢慢长大。" * round(wrote / 10)
    if asked == 4000 and skill > 0.5 and index > 5:
        finish_reason, repetitive = "length", index > 20
    counts = count_all(text)
    produced = counts["cjk_alpha"]
    return {
        "doc_id": index,
        "id": f"lbw-{index:03d}",
        "doc": {"prompt": prompt},
        "target": None,
        "arguments": [[{"role": "user", "content": prompt}]],
        "resps": [text],
        "filtered_resps": [text],
        "requested": LengthTarget.about(asked).to_dict(),
        "finish_reason": finish_reason,
        "num_tokens": round(produced * 1.4),
        "counts": {**counts, "tokens": round(produced * 1.4)},
        "metrics": {
            "s_l": longbench_length_score(asked, produced),
            "abs_log_ratio": abs(math.log(max(produced, 0.5) / asked)),
            "words": float(produced),
        },
        "flags": {
            "empty": not text,
            "truncated": finish_reason == "length",
            "repetitive": repetitive,
            "repetition": 0.46 if repetitive else round(rng.random() * 0.05, 3),
        },
        "slices": {
            "length_bin": "[0,500)" if asked < 500 else "[500,2000)" if asked < 2000 else "[2000,4000]",
            "language": language,
        },
        "doc_hash": hashlib.sha256(prompt.encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(),
        "target_hash": "",
    }


def _stated(metric: str, values: list[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    stderr = math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1) / len(values))
    return {
        f"{metric},none": mean,
        f"{metric}_stderr,none": stderr,
        f"{metric}_ci,none": [mean - 2.05 * stderr, mean + 2.05 * stderr],
    }


def _parent(path: Path) -> dict[str, Any]:
    manifest = path / "manifest.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return {"path": str(path), "job": content["job"], "manifest_sha256": digest}
