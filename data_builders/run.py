"""The build job: runs a builder over prompts and writes a data set with its provenance.

    lengthwise build --config configs/data/agent_write.yaml

The run folder gets data.jsonl (one kept row a line, with everything that made it), data.parquet (the same
rows for training tools), dropped.jsonl (the refused and the failed, with reason and what was written),
README.md (the dataset card), journal.jsonl (every model call) and, last, manifest.json. A killed run goes on
where it stopped.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from data_builders.build_config import BuildConfig
from data_builders.dataset_card import dataset_card
from data_builders.roles import RoleSpec, open_engines, role_specs
from data_builders.rows import Tally, bare_record, write_parquet
from data_builders.sources import (
    DUPLICATE,
    Columns,
    Refusal,
    Source,
    duplicate_prompts,
    limited,
    read_source,
    repeated,
)
from data_builders.written_rows import WrittenRows, code_digest, row_key
from lengthwise.budget import LimitReached, Meter
from lengthwise.caller import Caller
from lengthwise.config import (
    ConfigError,
    build_component,
    component_name,
    config_to_dict,
    is_dry_run,
    parse_config,
)
from lengthwise.dry_run import asked_words, check_models, run_line
from lengthwise.engines import started
from lengthwise.engines.base import Engine, require
from lengthwise.files import atomic_write
from lengthwise.job import run_main
from lengthwise.journal import Journal
from lengthwise.models import run_of_model
from lengthwise.outcomes import Counts, Outcome, Rejected
from lengthwise.plugins import load_plugin, plugin_label
from lengthwise.records import Sample, digest
from lengthwise.rows import BAD_ROW
from lengthwise.run_dir import InputFile, RunDir, git_commit, run_folder
from lengthwise.workflow import run_async, run_samples

PACKAGE = "data_builders"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; see `--help`."""
    return run_main(_job, argv)


def _job(argv: Sequence[str] | None) -> int:
    config = parse_config(BuildConfig, argv, prog="lengthwise build")
    name = component_name(config.builder, where="builder")
    builder = load_plugin(PACKAGE, name, wanted="build")
    method = build_component(builder.Config, config.builder, where="builder")
    specs = _specs(config, name, _roles(builder, method))
    engines = open_engines(specs)
    for engine in engines.values():
        require(engine, getattr(builder, "REQUIRES", frozenset()), f"builder {name}")
    folder = run_folder("build", config.name, config.output_dir)
    source = read_source(
        config.data,
        Columns(prompt=config.prompt_column, id=config.id_column, length=config.length_column),
        with_answers=getattr(builder, "WITH_ANSWERS", False),
        on_bad_row=config.on_bad_row,
        split=config.split,
        subset=config.subset,
        revision=config.data_revision,
    )
    originals = limited(source.samples, config.limit, config.seed)
    samples, origin = repeated(originals, config.rows_per_prompt)
    if config.rows_per_prompt > 1 and getattr(builder, "WITH_ANSWERS", False):
        raise ConfigError(
            f"rows_per_prompt is {config.rows_per_prompt}, but builder {name} takes rows that have their answers: "
            "leave it out"
        )
    if is_dry_run(argv):
        run = RunDir.check("build", folder, config)
        return _dry_run(run, name, specs, source, samples, _refused(builder, originals, origin, method))
    run = RunDir.open_for("build", folder, config)
    build = Build(
        config=config,
        builder_name=name,
        builder=builder,
        method=method,
        specs=specs,
        engines=engines,
        source=source,
        originals=originals,
        samples=samples,
        origin=origin,
        run=run,
    )
    try:
        run_async(build.execute())
    finally:
        run.close()
    return 0


def _roles(builder: ModuleType, method: Any) -> Sequence[str]:
    """Return the models that a builder asks: always the same ones, or as its options say."""
    return builder.roles(method) if hasattr(builder, "roles") else getattr(builder, "ROLES", ("model",))


def _specs(config: BuildConfig, builder: str, roles: Sequence[str]) -> dict[str, RoleSpec]:
    """Return who plays the roles of a builder; one without roles asks no model.

    Raises:
        ConfigError: a model is missing, or would not be asked.
    """
    if not roles:
        for key in ("model", "adapter", "roles"):
            if getattr(config, key):
                raise ConfigError(f"{key} is set, but builder {builder} asks no model: leave it out")
        return {}
    if config.model is None:
        raise ConfigError(
            f"model is not set, and builder {builder} asks one: set model, as in {BuildConfig.EXAMPLE}"
        )
    default = RoleSpec(model=config.model, adapter=config.adapter, engine=config.engine)
    return role_specs(default, config.roles, roles)


def _refused(
    builder: ModuleType, originals: Sequence[Sample], origin: Mapping[str, str], method: Any
) -> dict[str, Refusal]:
    """Return the samples refused at once: by the builder's own rule, else those that ask what was asked before.

    Given plans and material belong to the question. The rows of one prompt are refused together.
    """
    if hasattr(builder, "refused"):
        found = builder.refused(originals, method)
    else:
        columns = (getattr(method, "plan_column", None), getattr(method, "context_column", None))
        found = duplicate_prompts(originals, *columns)
    return {copy: found[key] for copy, key in origin.items() if key in found}


def _dry_run(
    run: RunDir,
    builder: str,
    specs: Mapping[str, RoleSpec],
    source: Source,
    samples: Sequence[Sample],
    refused: Mapping[str, Refusal],
) -> int:
    """Say what the run would do; nothing was loaded, nothing is written."""
    check_models((spec.model, spec.adapter, spec.engine) for spec in specs.values())
    print(run_line(run))
    for role, spec in specs.items():
        print(f"model       {role}: {spec.full_name} through {spec.engine.get('name', 'vllm')}")
    print(
        f"rows        {len(source.samples):,} read, {len(samples):,} taken, {len(refused):,} of them to be rejected "
        f"({_counted(refused)}); {asked_words(samples)}\n"
        f"calls       {f'{builder} decides: at least one a row' if specs else 'none'}\n"
        "dry run     nothing was written"
    )
    return 0


def _counted(refused: Mapping[str, Refusal]) -> str:
    counts = Counter(refusal.reason for refusal in refused.values())
    return ", ".join(f"{number:,} {reason}" for reason, number in counts.most_common()) or "none"


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
    originals: Sequence[Sample]
    samples: Sequence[Sample]
    """Each original once, or as often as `rows_per_prompt` says."""
    origin: Mapping[str, str]
    """Of each sample's id, that of the row it was made of."""
    run: RunDir

    async def execute(self) -> None:
        """Open the engines, run the builder on every sample, write the data set."""
        refused = _refused(self.builder, self.originals, self.origin, self.method)
        settled = getattr(self.builder, "settled", None)
        method = self.method if settled is None else settled(self.samples, self.method)
        keys = {sample.id: row_key(sample, refused.get(sample.id)) for sample in self.samples}
        bad_rows = {digest(row.to_dict()): row for row in self.source.bad_rows}
        journal = Journal(self.run.file("journal.jsonl"))
        meter = Meter(usage=journal.usage, num_calls=journal.num_calls, limits=self.config)
        try:
            async with AsyncExitStack() as stack:
                await self._start_engines(stack)
                identities = {role: engine.weights_identity() for role, engine in self.engines.items()}
                also_read = [file.sha256 or file.path for file in _also_read(self.builder, self.method)]
                made_by = [code_digest(self.builder), identities, also_read]
                rows = WrittenRows(self.run, digest(made_by))
                stack.callback(rows.close)
                for key, row in bad_rows.items():
                    if not rows.has_ended(key):
                        rows.add(key, "rejected", BAD_ROW, row.to_dict())
                await self._make_rows(rows, keys, refused, method, journal, meter)
        finally:
            journal.close()
        inputs = [*bad_rows, *keys.values()]
        rows.counts(list(keys.values())).refuse_total_failure()
        rows.finish(inputs)
        self._finish(rows.counts(inputs), identities, meter)

    async def _start_engines(self, stack: AsyncExitStack) -> None:
        """Start each engine once (roles may share one); they are stopped when `stack` closes."""
        for engine in {id(engine): engine for engine in self.engines.values()}.values():
            await stack.enter_async_context(started(engine))

    async def _make_rows(
        self,
        rows: WrittenRows,
        keys: Mapping[str, str],
        refused: Mapping[str, Refusal],
        method: Any,
        journal: Journal,
        meter: Meter,
    ) -> None:
        """Run the builder on every sample that has not ended before.

        Raises:
            LimitReached: saying how far the run got.
        """

        async def worker(sample: Sample) -> Outcome:
            if sample.id in refused:
                reason, detail = refused[sample.id]
                return Rejected(reason, bare_record(sample, detail))
            callers = {
                role: Caller(
                    engine=engine,
                    journal=journal,
                    sample_id=sample.id,
                    run_seed=self.config.seed,
                    role=role,
                    meter=meter,
                )
                for role, engine in self.engines.items()
            }
            return await self.builder.build(sample, callers, method)

        todo = [sample for sample in self.samples if not rows.has_ended(keys[sample.id])]
        try:
            await run_samples(
                todo,
                worker,
                max_concurrent_samples=self.config.max_concurrent_samples,
                label=plugin_label(self.builder_name),
                on_outcome=lambda sample, outcome: rows.write(keys[sample.id], sample, outcome),
                num_ended=len(self.samples) - len(todo),
                meter=meter,
            )
        except LimitReached as limit:
            limit.how_far = rows.counts(list(keys.values())).how_far(len(self.samples))
            raise

    def _finish(self, counts: Counts, identities: Mapping[str, str], meter: Meter) -> None:
        """Write Parquet, card and manifest; the counts must add up first."""
        num_bad = len(self.source.bad_rows)
        num_inputs = len(self.samples) + num_bad
        ends = {"kept": counts.kept, "rejected": counts.rejected, "failed": counts.failed}
        with self.run.file("dropped.jsonl").open("rb") as dropped:
            num_dropped = sum(1 for _ in dropped)
        tally = write_parquet(self.run, getattr(self.builder, "COUNTED_BY", None))
        assert len(tally.words) == counts.kept, (len(tally.words), ends)
        assert num_dropped == counts.rejected + counts.failed, (num_dropped, ends)
        assert counts.total == num_inputs, (num_inputs, ends)
        reasons = dict(sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0])))
        numbers = {
            "inputs": num_inputs,
            **ends,
            "duplicate_prompts": counts.reasons.get(DUPLICATE, 0),
            "renamed_ids": self.source.num_renamed,
            "bad_rows": num_bad,
            "rows_in_source": len(self.source.samples) + num_bad,
        }
        groups = dict(tally.groups.most_common())
        self._write_card(tally, numbers, reasons, meter)
        cost = meter.cost_dict(counts.kept)
        self.run.finish(
            seed=self.config.seed,
            inputs=[*self.source.inputs, *_also_read(self.builder, self.method)],
            outputs=["data.jsonl", "data.parquet", "dropped.jsonl", "README.md"],
            parents=dict.fromkeys([*self.source.parents, *self._trainings()]),
            counts={
                **numbers,
                "reasons": reasons,
                **({} if tally.counted_by is None else {tally.counted_by: groups}),
            },
            usage=meter.to_dict(),
            extra={
                **self._model(identities),
                "roles": {
                    role: {"model": spec.full_name, "identity": identities[role]}
                    for role, spec in self.specs.items()
                },
                "builder": {"name": self.builder_name, **config_to_dict(self.method)},
                **({} if cost is None else {"cost": cost}),
            },
        )
        print(f"{self.run.path}: {counts} of {counts.total}; {meter.summary(counts.kept, 'kept row')}")
        _warn_of_little(self.run, counts, reasons, self.config.min_kept_frac)

    def _model(self, identities: Mapping[str, str]) -> dict[str, Any]:
        """Return the manifest's entry of the model, where one was asked."""
        if not identities:
            return {}
        return {"model": {"name": self.config.model, "identity": next(iter(identities.values()))}}

    def _trainings(self) -> list[Path]:
        """Return the runs that trained the models which were asked."""
        asked = [spec for role in self.specs.values() for spec in (role.model, role.adapter)]
        return [run for spec in asked if (run := run_of_model(spec)) is not None]

    def _write_card(
        self, tally: Tally, numbers: Mapping[str, int], reasons: Mapping[str, int], meter: Meter
    ) -> None:
        card = dataset_card(
            name=self.run.name,
            builder=self.builder_name,
            models={role: spec.full_name for role, spec in self.specs.items()},
            data="Lengthwise's own list of writing instructions"
            if self.config.data is None
            else self.config.data,
            counts=numbers,
            reasons=reasons,
            words=tally.words,
            tokens=tally.tokens,
            languages=tally.languages,
            length_scores=tally.length_scores,
            groups={} if tally.counted_by is None else {tally.counted_by: dict(tally.groups.most_common())},
            usage=meter.to_dict(),
            cost_usd=meter.cost_usd,
            facts={"seed": self.config.seed, "commit of Lengthwise": git_commit() or "unknown"},
        )
        atomic_write(self.run.file("README.md"), card)


def _also_read(builder: ModuleType, method: Any) -> list[InputFile]:
    """Return the files that a builder read beside the data."""
    return builder.inputs(method) if hasattr(builder, "inputs") else []


def _warn_of_little(run: RunDir, counts: Counts, reasons: Mapping[str, int], min_kept_frac: float) -> None:
    """Say loudly, with the reasons, if too little was kept, or nothing at all."""
    if counts.total and (not counts.kept or counts.kept < min_kept_frac * counts.total):
        lines = [f"  {count:>6}  {reason}" for reason, count in reasons.items()]
        print(
            f"WARNING: only {counts.kept} of {counts.total} rows were kept (min_kept_frac {min_kept_frac:g}):\n"
            + "\n".join(lines)
            + f"\nSee {run.path / 'dropped.jsonl'} for what was written.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    raise SystemExit(main())
