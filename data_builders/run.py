"""The build job: runs a builder over prompts and writes a data set with its provenance.

    lengthwise build --config configs/data/agent_write.yaml

The run folder gets data.jsonl (one kept row a line, with everything that made it), data.parquet (the same
rows for training tools), dropped.jsonl (the refused and the failed, with reason and what was written),
README.md (the dataset card), journal.jsonl (every model call) and, last, manifest.json. A killed run goes on
where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import IO, Any, ClassVar

from data_builders.dataset_card import dataset_card
from data_builders.roles import RoleSpec, open_engines, role_specs
from data_builders.rows import Tally, bare_record, to_line, write_parquet
from data_builders.sources import Columns, Source, duplicate_prompts, limited, read_source
from lengthwise.config import (
    ConfigError,
    build_component,
    component_name,
    config_to_dict,
    is_dry_run,
    option,
    parse_config,
)
from lengthwise.dry_run import asked_words, check_models, run_line
from lengthwise.engines.base import Engine, require
from lengthwise.job import run_main
from lengthwise.journal import Journal
from lengthwise.plugins import load_plugin
from lengthwise.records import Sample
from lengthwise.run_dir import RunDir, atomic_write, git_commit, run_folder
from lengthwise.workflow import Caller, Counts, Kept, Meter, Outcome, Rejected, run_async, run_samples

PACKAGE = "data_builders"


@dataclass(kw_only=True)
class BuildConfig:
    """Settings of a build run."""

    EXAMPLE: ClassVar[str] = "lengthwise build --config configs/data/agent_write_debug.yaml"

    builder: dict[str, Any] = option(
        default_factory=lambda: {"name": "agent_write"}, help="{name: agent_write, its options}"
    )
    model: str = option(help="embedded:smollm2-135m, a folder, or a hub id; roles may name others")
    adapter: str | None = option(None, help="LoRA adapter on the model: a folder or hub id")
    engine: dict[str, Any] = option(
        default_factory=lambda: {"name": "vllm"},
        help="{name: vllm | openai_http | hf | scripted, its options}",
        component="lengthwise.engines",
    )
    roles: dict[str, Any] = option(
        default_factory=dict,
        help="other models for single roles, as in {planner: {model: ..., engine: {name: ...}}}; what is "
        "left out is as above",
    )
    data: str | None = option(
        None, help="file, folder, build run or hub id with prompts; null: the shipped instructions"
    )
    split: str = option("train", help="split of a hub data set")
    data_revision: str | None = option(None, help="commit, tag or branch of a hub data set")
    prompt_column: str = option("prompt", help="column with a text or a list of {role, content} turns")
    id_column: str | None = option("id", help="column with the row's id, if it is there")
    length_column: str | None = option(
        "length",
        help="column with the wanted words (number, or map as LengthTarget), if it is there; null ignores it",
    )
    limit: int | None = option(
        None, help="take this many random rows (a larger limit adds to them)", operational=True
    )
    seed: int = option(0, help="of the row choice and of every request")
    max_concurrent_samples: int = option(64, help="samples under way at once", operational=True)
    min_kept_frac: float = option(
        0.5, help="below this share of kept rows the job says so loudly", operational=True
    )
    name: str | None = option(None, help="the run's name; it is written to outputs/build/<name>")
    output_dir: str | None = option(None, help="the run folder, in place of outputs/build/<name>")

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        for name, least in (("max_concurrent_samples", 1), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: it must be at least {least}")
        if not 0 <= self.min_kept_frac <= 1:
            raise ConfigError(f"min_kept_frac is {self.min_kept_frac}: it must lie between 0 and 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; see `--help`."""
    return run_main(_job, argv)


def _job(argv: Sequence[str] | None) -> int:
    config = parse_config(BuildConfig, argv, prog="lengthwise build")
    name = component_name(config.builder, where="builder")
    builder = load_plugin(PACKAGE, name, wanted="build")
    method = build_component(builder.Config, config.builder, where="builder")
    specs = role_specs(
        RoleSpec(model=config.model, adapter=config.adapter, engine=config.engine),
        config.roles,
        getattr(builder, "ROLES", ("model",)),
    )
    engines = open_engines(specs)
    for engine in engines.values():
        require(engine, getattr(builder, "REQUIRES", frozenset()), f"builder {name}")
    folder = run_folder("build", config.name, config.output_dir)
    source = read_source(
        config.data,
        Columns(prompt=config.prompt_column, id=config.id_column, length=config.length_column),
        split=config.split,
        revision=config.data_revision,
    )
    samples = limited(source.samples, config.limit, config.seed)
    if is_dry_run(argv):
        run = RunDir.check("build", folder, config)
        return _dry_run(run, name, specs, source, samples, _duplicates(samples, method))
    run = RunDir.open_for("build", folder, config)
    build = Build(
        config=config,
        builder_name=name,
        builder=builder,
        method=method,
        specs=specs,
        engines=engines,
        source=source,
        samples=samples,
        run=run,
    )
    try:
        run_async(build.execute())
    finally:
        run.close()
    return 0


def _duplicates(samples: Sequence[Sample], method: Any) -> dict[str, str]:
    """Return the samples that ask what an earlier one asked; given plans and material belong to the question."""
    columns = (getattr(method, "plan_column", None), getattr(method, "context_column", None))
    return duplicate_prompts(samples, *columns)


def _dry_run(
    run: RunDir,
    builder: str,
    specs: Mapping[str, RoleSpec],
    source: Source,
    samples: Sequence[Sample],
    repeats: Mapping[str, str],
) -> int:
    """Say what the run would do; nothing was loaded, nothing is written."""
    check_models((spec.model, spec.adapter, spec.engine) for spec in specs.values())
    print(run_line(run))
    for role, spec in specs.items():
        print(f"model       {role}: {spec.full_name} through {spec.engine.get('name', 'vllm')}")
    print(
        f"rows        {len(source.samples):,} read, {len(samples):,} taken, {len(repeats):,} of them duplicates, "
        f"to be rejected; {asked_words(samples)}\n"
        f"calls       {builder} decides: at least one a row\n"
        "dry run     nothing was written"
    )
    return 0


# --- the run --------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Build:
    """One build run: its parts, and what is done with them."""

    config: BuildConfig
    builder_name: str
    builder: ModuleType
    method: Any
    specs: Mapping[str, RoleSpec]
    engines: Mapping[str, Engine]
    source: Source
    samples: Sequence[Sample]
    run: RunDir
    meter: Meter = field(default_factory=Meter)
    tally: Tally = field(default_factory=Tally)

    async def execute(self) -> None:
        """Open the engines, run the builder on every sample, write the data set."""
        repeats = _duplicates(self.samples, self.method)
        journal = Journal(self.run.file("journal.jsonl"))
        try:
            async with AsyncExitStack() as stack:
                await self._start_engines(stack)

                async def worker(sample: Sample) -> Outcome:
                    if sample.id in repeats:
                        return Rejected("duplicate prompt", bare_record(sample, f"as {repeats[sample.id]}"))
                    callers = {
                        role: self._caller(engine, journal, sample, role)
                        for role, engine in self.engines.items()
                    }
                    return await self.builder.build(sample, callers, self.method)

                with (
                    self.run.file("data.jsonl").open("w", encoding="utf-8", errors="replace") as kept,
                    self.run.file("dropped.jsonl").open("w", encoding="utf-8", errors="replace") as dropped,
                ):
                    counts = await run_samples(
                        self.samples,
                        worker,
                        max_concurrent_samples=self.config.max_concurrent_samples,
                        label=self.builder_name,
                        on_outcome=lambda sample, outcome: self._write(sample, outcome, kept, dropped),
                        total=len(self.samples),
                        meter=self.meter,
                    )
                identities = {role: engine.weights_identity() for role, engine in self.engines.items()}
        finally:
            journal.close()
        self._finish(counts, identities, num_duplicates=len(repeats))

    async def _start_engines(self, stack: AsyncExitStack) -> None:
        """Start each engine once (roles may share one); they are stopped when `stack` closes."""
        for engine in {id(engine): engine for engine in self.engines.values()}.values():
            stack.push_async_callback(engine.stop)
            try:
                await engine.start()
            except ValueError as error:  # a model that cannot be had
                raise ConfigError(str(error)) from error

    def _caller(self, engine: Engine, journal: Journal, sample: Sample, role: str) -> Caller:
        return Caller(
            engine=engine,
            journal=journal,
            sample_id=sample.id,
            run_seed=self.config.seed,
            role=role,
            meter=self.meter,
        )

    def _write(self, sample: Sample, outcome: Outcome, kept: IO[str], dropped: IO[str]) -> None:
        if isinstance(outcome, Kept):
            self.tally.add(outcome.record)
            kept.write(to_line(outcome.record))
            kept.flush()
            return
        head = {
            "id": sample.id,
            "outcome": "rejected" if isinstance(outcome, Rejected) else "failed",
            "reason": outcome.reason,
        }
        dropped.write(to_line({**bare_record(sample), **outcome.record, **head}))
        dropped.flush()

    def _finish(self, counts: Counts, identities: Mapping[str, str], *, num_duplicates: int) -> None:
        """Write Parquet, card and manifest; the counts must add up first."""
        ends = {"kept": counts.kept, "rejected": counts.rejected, "failed": counts.failed}
        num_kept = sum(1 for _ in self.run.file("data.jsonl").open(encoding="utf-8"))
        num_dropped = sum(1 for _ in self.run.file("dropped.jsonl").open(encoding="utf-8"))
        assert num_kept == counts.kept == len(self.tally.words), (num_kept, ends)
        assert num_dropped == counts.rejected + counts.failed, (num_dropped, ends)
        assert counts.total == len(self.samples), (len(self.samples), ends)
        reasons = dict(sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0])))
        write_parquet(self.run)
        numbers = {
            "inputs": len(self.samples),
            **ends,
            "duplicate_prompts": num_duplicates,
            "renamed_ids": self.source.num_renamed,
            "rows_in_source": len(self.source.samples),
        }
        self._write_card(numbers, reasons)
        self.run.finish(
            seed=self.config.seed,
            inputs=self.source.inputs,
            outputs=["data.jsonl", "data.parquet", "dropped.jsonl", "README.md"],
            parents=self.source.parents,
            counts={**numbers, "reasons": reasons},
            usage=self.meter.to_dict(),
            extra={
                "model": {"name": self.config.model, "identity": next(iter(identities.values()))},
                "roles": {
                    role: {"model": spec.full_name, "identity": identities[role]}
                    for role, spec in self.specs.items()
                },
                "builder": {"name": self.builder_name, **config_to_dict(self.method)},
            },
        )
        _report(self.run, ends, reasons, self.config.min_kept_frac)

    def _write_card(self, numbers: Mapping[str, int], reasons: Mapping[str, int]) -> None:
        card = dataset_card(
            name=self.run.name,
            builder=self.builder_name,
            models={role: spec.full_name for role, spec in self.specs.items()},
            data="Lengthwise's own list of writing instructions"
            if self.config.data is None
            else self.config.data,
            counts=numbers,
            reasons=reasons,
            words=self.tally.words,
            tokens=self.tally.tokens,
            languages=self.tally.languages,
            length_scores=self.tally.length_scores,
            usage=self.meter.to_dict(),
            facts={"seed": self.config.seed, "commit of Lengthwise": git_commit() or "unknown"},
        )
        atomic_write(self.run.file("README.md"), card)


def _report(run: RunDir, ends: Mapping[str, int], reasons: Mapping[str, int], min_kept_frac: float) -> None:
    """Say how the run ended; loudly, with the reasons, if too little was kept."""
    total = sum(ends.values())
    print(f"{run.path}: {ends['kept']} kept, {ends['rejected']} rejected, {ends['failed']} failed of {total}")
    if total and ends["kept"] < min_kept_frac * total:
        lines = [f"  {count:>6}  {reason}" for reason, count in reasons.items()]
        print(
            f"WARNING: only {ends['kept']} of {total} rows were kept (min_kept_frac {min_kept_frac:g}):\n"
            + "\n".join(lines)
            + f"\nSee {run.path / 'dropped.jsonl'} for what was written.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    raise SystemExit(main())
