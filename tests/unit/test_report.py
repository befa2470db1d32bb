"""The report: what it reads, what it states, and that nothing a model wrote can act in the page."""

from __future__ import annotations

import json
import random
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import ATTACK, STAMP, write_evaluation, write_jsonl, write_manifest, write_runs

from lengthwise.config import ConfigError
from lengthwise.records import LengthTarget
from lengthwise.report import charts, main, wording
from lengthwise.report.collect import collect
from lengthwise.report.findings import compare, headline, setting_differences
from lengthwise.report.lineage import draw
from lengthwise.report.page import embed_json, render
from lengthwise.report.samples import Text, browse, fit
from lengthwise.report.tables import package_table, score_tables, settings_rows


class Page(HTMLParser):
    """Collects what a browser would see: tags, ids, links and text outside of scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.policy = ""
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.text += " "
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values.get("content") or ""
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if tag == "a" and "href" in values else []
        self.loads += [values[k] or "" for k in ("src", "srcset") if k in values]
        if tag == "link":
            self.loads.append(values.get("href") or "")

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_runs(tmp_path_factory.mktemp("outputs"))


@pytest.fixture(scope="module")
def source(runs: dict[str, Path]) -> str:
    return render(collect([runs["base"], runs["tuned"]]))


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def evaluation(
    path: Path, scores: dict[str, float | None], *, better: bool | None = True, **row: Any
) -> Path:
    """Write an evaluation with one task `t`, one metric `m` and the given scores by item."""
    rows = [
        {
            "id": key,
            "doc": {"prompt": key},
            "resps": ["word " * 9],
            "finish_reason": "stop",
            "metrics": {"m": value},
        }
        | row
        for key, value in scores.items()
    ]
    write_jsonl(path / f"samples_t_{STAMP}.jsonl", rows)
    known = [v for v in scores.values() if v is not None]
    results = {
        "results": {"t": {"alias": "t", "m,none": sum(known) / max(len(known), 1), "m_stderr,none": 1.0}},
        "higher_is_better": {"t": {"m": better}},
    }
    (path / f"results_{STAMP}.json").write_text(json.dumps(results), encoding="utf-8")
    return write_manifest(path, "eval")


# What it reads


def test_parents_are_followed_to_the_data(runs: dict[str, Path]) -> None:
    found = collect([runs["tuned"]])
    assert [(r.name, r.job, r.given) for r in found] == [
        ("tuned", "eval", True),
        ("lora", "sft", False),
        ("agent_write", "build", False),
    ]
    assert [r.problems for r in found] == [[], [], []]


def test_a_run_named_twice_is_shown_once(runs: dict[str, Path]) -> None:
    assert len(collect([runs["base"], runs["base"] / "." / ".." / "base"])) == 1


def test_a_missing_parent_is_said_to_be_missing(runs: dict[str, Path], tmp_path: Path) -> None:
    lone = tmp_path / "tuned"
    shutil.copytree(runs["tuned"], lone)
    manifest = json.loads((lone / "manifest.json").read_text())
    manifest["parents"][0]["path"] = "gone/sft/lora"
    (lone / "manifest.json").write_text(json.dumps(manifest))
    found = collect([lone])
    assert found[0].missing_parents == ["sft gone/sft/lora"]
    assert "gone/sft/lora" in Page(render(found)).text


def test_a_changed_parent_is_warned_of(tmp_path: Path) -> None:
    made = write_runs(tmp_path, num_samples=2)
    write_manifest(made["train"], "sft", parents=[made["build"]], seed=99)
    assert "has changed since" in collect([made["tuned"]])[0].problems[0]


def test_a_path_that_is_no_run_folder_stops_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty' is no run folder"):
        collect([tmp_path / "empty"])
    with pytest.raises(ConfigError, match=r"no folder .*nowhere"):
        collect([tmp_path / "nowhere"])
    assert main([str(tmp_path / "nowhere"), "--output", str(tmp_path / "r.html")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_folder_of_runs_is_answered_with_the_runs_in_it(runs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"name the runs in it: .*eval/base"):
        collect([runs["base"].parent])


@pytest.mark.parametrize("job", ["base", "build", "train"])
def test_an_unfinished_run_is_shown_with_a_warning(runs: dict[str, Path], tmp_path: Path, job: str) -> None:
    copy = tmp_path / job
    shutil.copytree(runs[job], copy)
    (copy / "manifest.json").unlink()
    found = collect([copy])
    assert not found[0].finished
    text = Page(render(found)).text
    assert "unfinished" in text
    assert "there is no manifest" in text


def test_a_torn_line_and_missing_files_are_counted_not_raised(tmp_path: Path) -> None:
    run = tmp_path / "torn"
    run.mkdir()
    (run / f"samples_t_{STAMP}.jsonl").write_text(
        '{"id": "a", "metrics": {"m": 1}, "resps": ["x"]}\n{"id": "b", "met'
    )
    (found,) = collect([run])
    assert found.evaluation is not None
    assert [o.id for o in found.evaluation.tasks["t"].outputs] == ["a"]
    text = Page(render([found])).text
    assert "1 unreadable line(s) skipped (line 2)" in text
    assert "there is no results file" in text


def test_rows_of_other_tools_do_not_break_the_page(tmp_path: Path) -> None:
    run = tmp_path / "odd"
    rows: list[Any] = [
        {},
        {
            "id": None,
            "doc_id": 4,
            "resps": [["nested"]],
            "metrics": None,
            "flags": 3,
            "requested": {"min": 5},
        },
        {
            "id": "n",
            "resps": [None],
            "metrics": {"m": float("nan"), "k": "text"},
            "counts": [],
            "finish_reason": None,
        },
        {
            "id": "s",
            "resps": ["a\ud800b\x00"],
            "requested": LengthTarget.about(3).to_dict(),
            "metrics": {"m": True},
        },
        [1, 2],
    ]
    (run).mkdir()
    (run / f"samples_t_{STAMP}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (run / f"results_{STAMP}.json").write_text('{"results": {"t": {"m,none": "high"}}, "config": []}')
    output = tmp_path / "r.html"
    assert main([str(run), "--output", str(output)]) == 0
    assert "nested" in output.read_text(encoding="utf-8")


def test_the_newest_results_are_read(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(runs["base"], copy)
    (copy / "results_2025-01-01T00-00-00.json").write_text("{}")
    (found,) = collect([copy])
    assert found.evaluation is not None
    assert found.evaluation.tasks["longbench_write"].scores["s_l"].n == 30
    assert any("2 results files" in p for p in found.problems)


# What it states


def test_the_verdict_follows_the_interval(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {str(i): float(i) for i in range(10)})
    up = evaluation(tmp_path / "up", {str(i): i + 2 + i % 2 / 10 for i in range(10)})
    down = evaluation(tmp_path / "down", {str(i): i - 2 - i % 2 / 10 for i in range(10)})
    same = evaluation(tmp_path / "same", {str(i): i + (-1.0) ** i for i in range(10)})
    for path, verdict, words in [
        (up, "better", "up is better than base on t"),
        (down, "worse", "down is worse than base on t"),
        (same, "unclear", "No clear difference between base and same on t"),
    ]:
        found = collect([base, path])
        (comparison,) = compare(found[0], found[1])
        lead = headline(found, [comparison])
        assert (comparison.verdict, lead.opening) == (verdict, words)
        assert comparison.n == 10
    assert "m 4.5 → 6.5" in headline(collect([base, up]), compare(*collect([base, up]))).figures


def test_each_later_run_gets_its_sentence(tmp_path: Path) -> None:
    paths = [
        evaluation(tmp_path / name, {str(i): i + shift + i % 2 / 10 * (shift > 0) for i in range(10)})
        for name, shift in (("base", 0.0), ("mid", 1.0), ("last", 2.0))
    ]
    found = collect(paths)
    lead = headline(found, [c for other in found[1:] for c in compare(found[0], other)])
    assert lead.opening == "last is better than base on t"
    assert any(aside.startswith("mid is better than base on t: m 4.5 → 5.5") for aside in lead.asides)


def test_a_fall_is_better_where_lower_is_better(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {str(i): float(i) for i in range(5)}, better=False)
    less = evaluation(tmp_path / "less", {str(i): i - 1 - i / 100 for i in range(5)}, better=False)
    assert compare(*collect([base, less]))[0].verdict == "better"


def test_a_metric_without_direction_is_neither_better_nor_worse(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {str(i): float(i) for i in range(5)}, better=None)
    more = evaluation(tmp_path / "more", {str(i): i + 1 + i / 100 for i in range(5)}, better=None)
    assert compare(*collect([base, more]))[0].verdict == "changed"


def test_only_shared_scored_items_with_the_same_prompt_are_paired(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {"a": 1.0, "b": 2.0, "c": None, "d": 4.0})
    other = evaluation(tmp_path / "other", {"a": 2.0, "b": 3.0, "c": 9.0, "e": 9.0})
    (comparison,) = compare(*collect([base, other]))
    assert (comparison.n, comparison.before, comparison.after, comparison.difference) == (2, 1.5, 2.5, 1.0)
    assert comparison.notes == [
        "1 item(s) only in base",
        "1 item(s) only in other",
        "1 item(s) in both left out: m unscored in one of the runs, or asked with another prompt",
    ]
    changed = evaluation(tmp_path / "changed", {"a": 2.0, "b": 3.0}, prompt_hash="other")
    assert compare(*collect([base, changed])) == []


def test_one_shared_item_gives_no_verdict(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {"a": 1.0})
    other = evaluation(tmp_path / "other", {"a": 2.0})
    found = collect([base, other])
    lead = headline(found, compare(*found))
    assert (lead.tone, lead.opening) == ("too few", "One shared item cannot tell base and other apart on t")


def test_several_replies_to_a_prompt_count_as_one_item(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {"a": 1.0, "b": 2.0})
    other = evaluation(tmp_path / "other", {"a": 2.0, "b": 3.0})
    file = other / f"samples_t_{STAMP}.jsonl"
    again = json.loads(file.read_text().splitlines()[0]) | {"metrics": {"m": 4.0}}
    file.write_text(file.read_text() + json.dumps(again) + "\n")
    (comparison,) = compare(*collect([base, other]))
    assert (comparison.n, comparison.after) == (2, 3.0)


def test_one_evaluation_states_its_score_and_what_is_missing(runs: dict[str, Path]) -> None:
    lead = headline(collect([runs["base"]]), [])
    assert lead.opening == "base on longbench_write"
    assert lead.figures.startswith("S_l ")
    assert "name a second evaluation" in lead.asides[0]


def test_no_evaluation_says_so(runs: dict[str, Path]) -> None:
    lead = headline(collect([runs["build"]]), [])
    assert lead.opening == "No evaluation yet"


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", random.Random(1), num_samples=2, skill=0.5)
    warm = write_evaluation(tmp_path / "warm", random.Random(1), num_samples=2, skill=0.5, temperature=0.7)
    found = collect([base, warm])
    assert setting_differences(*found) == ["sampling.temperature: 0.0 in base, 0.7 in warm"]
    assert "was not measured as the base was" in Page(render(found)).text


def test_the_score_table_holds_every_number(runs: dict[str, Path]) -> None:
    found = collect([runs["base"], runs["tuned"]])
    pairs = [(run, i) for i, run in enumerate(r for r in found if r.evaluation)]
    (table,) = score_tables(pairs, compare(found[0], found[1]))
    assert [row.metric for row in table.rows] == ["S_l", "abs_log_ratio", "words"]
    row = table.rows[0]
    assert (row.counter, row.direction) == ("cjk_alpha", "higher is better")
    assert [cell.n for cell in row.cells if cell] == ["30", "30"]
    accounts = {run.name: dict(numbers) for run, _, numbers in table.accounts}
    assert accounts["tuned"] == {
        "outputs": 30, "scored": 30, "empty": 1, "truncated": 4, "repetitive": 2, "failed": 0,
    }  # fmt: skip
    assert [s.name for s in table.slices] == ["length bin", "language"]
    assert [v for v, _ in table.slices[0].rows] == ["[0,500)", "[500,2000)", "[2000,4000]"]


def test_build_outcomes_add_up_and_disagreement_is_said(tmp_path: Path) -> None:
    made = write_runs(tmp_path, num_samples=2)
    (run,) = collect([made["build"]])
    assert run.build is not None
    assert (run.build.kept, run.build.rejected, run.build.failed) == (48, 11, 2)
    assert run.build.reasons == [
        ("rejected", "s_l below 80", 6),
        ("rejected", "final: repetition", 3),
        ("rejected", "plan not parsed", 2),
        ("failed", "engine: ContextOverflow", 2),
    ]
    text = " ".join(Page(render([run])).text.split())
    assert "48 kept + 11 rejected + 2 failed = 61 inputs" in text
    assert "generated tokens per kept row 3,925" in text
    (made["build"] / "dropped.jsonl").write_text("")
    write_manifest(made["build"], "build", counts={"kept": 48, "rejected": 11, "failed": 2, "inputs": 70})
    problems = collect([made["build"]])[0].problems
    assert problems == [
        "the manifest states 11 rejected rows, the file holds 0",
        "the manifest states 2 failed rows, the file holds 0",
        "the outcomes add up to 61, but there were 70 inputs",
    ]


def test_unknown_and_zero_counts_are_written_out(tmp_path: Path) -> None:
    run = write_manifest(tmp_path / "sft", "sft")
    text = " ".join(Page(render(collect([run]))).text.split())
    assert "supervised tokens unknown" in text
    assert "dropped rows 0" in text
    assert "No loss is on record." in text


# The page


def test_the_page_holds_everything_and_loads_nothing(source: str, page: Page) -> None:
    assert page.loads == []
    assert "link" not in page.tags
    assert source.count("* plotly.js v") == 1
    assert len(source.encode()) < 10_000_000
    assert page.policy.startswith("default-src 'none'; script-src 'sha256-")
    assert {"lineage", "scores", "lengths", "build", "training", "samples", "settings"} <= set(page.ids)


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    assert sorted(set(page.ids)) == sorted(page.ids)
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert all(link.startswith("#") for link in page.links)
    assert inner <= set(page.ids)


def test_what_a_model_wrote_is_text_and_nothing_else(source: str, page: Page) -> None:
    body = source[source.index("<body>") :]
    assert ATTACK not in source
    assert "&lt;script&gt;document.title" in body
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert ATTACK.split(" ")[0] in page.text


def test_names_from_files_are_escaped_everywhere(tmp_path: Path) -> None:
    name = "<b onclick=x>&"
    base = evaluation(tmp_path / "base", {f"{name}{i}": float(i) for i in range(3)})
    manifest = json.loads((base / "manifest.json").read_text())
    manifest |= {"name": name, "config": {name: name}, "packages": {name: name}, "git_commit": name}
    manifest["parents"] = [{"path": name, "job": name, "manifest_sha256": None}]
    (base / "manifest.json").write_text(json.dumps(manifest))
    source = render(collect([base]))
    assert "<b onclick" not in source
    assert "b" not in Page(source).tags


def test_data_blocks_cannot_end_their_script() -> None:
    assert embed_json({"a": "</script><!--"}) == '{"a":"\\u003c/script\\u003e\\u003c!--"}'
    assert json.loads(embed_json(["<&>\u2028"])) == ["<&>\u2028"]


def test_long_texts_are_cut_evenly_and_the_page_says_how_many(runs: dict[str, Path]) -> None:
    found = collect([runs["base"], runs["tuned"]])
    full = render(found)
    limit = len(full.encode()) - 100_000
    small = render(found, max_bytes=limit)
    assert len(small.encode()) <= limit
    text = " ".join(Page(small).text.split())
    assert "of 90 texts are cut in this page" in text
    assert f"samples_longbench_write_{STAMP}.jsonl, row 1" in text
    assert "All 90 texts are here in full." in Page(full).text


def test_cutting_takes_from_the_longest_first() -> None:
    class Shelf:
        texts = [Text(full="a" * 10, shown=""), Text(full="b" * 100, shown=""), Text(full="&" * 20, shown="")]  # noqa: RUF012
        num_cut = cap = 0

    shelf: Any = Shelf()
    fit(shelf, 110)
    # "&" takes five bytes in the page.
    assert [len(t.shown) for t in shelf.texts] == [10, 50, 10]
    assert shelf.num_cut == 2
    fit(shelf, 210)
    assert [t.cut for t in shelf.texts] == [False, False, False]


def test_the_browser_pairs_by_id_and_marks_what_is_wrong(runs: dict[str, Path]) -> None:
    found = collect([runs["base"], runs["tuned"]])
    browser = browse([(found[0], 0), (found[1], 1)])
    assert len(browser.cards) == browser.num_items == 30
    assert browser.num_texts == 90
    fifth = browser.cards[5]
    assert [cell.chips for cell in fifth.cells if cell] == [["empty"], ["empty"]]
    assert fifth.marks == ["run-1:empty", "run-2:empty"]
    assert ("run-2:truncated", "tuned: truncated (4)") in browser.filters


def test_a_run_without_the_item_leaves_its_place_empty(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {"a": 1.0})
    other = evaluation(tmp_path / "other", {"b": 2.0})
    text = Page(render(collect([base, other]))).text
    assert text.count("no such item in this run") == 2
    assert "share no scored items" in text


# The diagram, charts and words


def test_the_diagram_reads_from_left_to_right(runs: dict[str, Path]) -> None:
    diagram = draw(collect([runs["base"], runs["tuned"]]))
    columns = {node.title: node.column for node in diagram.nodes}
    assert columns == {
        "seeds.jsonl": 0, "embedded:smollm2-135m": 1, "agent_write": 1, "lora": 2, "base": 3, "tuned": 3,
    }  # fmt: skip
    assert len(diagram.edges) == 5
    boxes = {(node.column, node.row) for node in diagram.nodes}
    assert len(boxes) == len(diagram.nodes)


def test_a_run_that_names_itself_as_its_parent_is_drawn(tmp_path: Path) -> None:
    run = write_manifest(tmp_path / "loop", "build")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["parents"] = [{"path": str(run), "job": "build", "manifest_sha256": None}]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert len(draw(collect([run])).nodes) == 1


def test_figures_are_valid_plotly(runs: dict[str, Path]) -> None:
    import plotly.graph_objects as go

    found = collect([runs["base"], runs["tuned"]])
    pairs = [(found[0], 0), (found[1], 1)]
    outputs = [
        (run, c, run.evaluation.tasks["longbench_write"].outputs) for run, c in pairs if run.evaluation
    ]
    training = next(run.training for run in found if run.training)
    made = [
        charts.intervals(pairs, "longbench_write"),
        charts.target_against_actual(outputs, {}, "words"),
        charts.length_histogram([("a", "@ink", [1, 10, 100, 0], False)], "words"),
        charts.training_curve(training.curve),
    ]
    for figure in made:
        assert figure is not None
        plain = json.loads(json.dumps(figure).replace('"@', '"#123456').replace("#123456series-", "#12345"))
        text = json.dumps(plain)
        for name in ("ink", "muted", "line", "panel"):
            text = text.replace(f"#123456{name}", "#123456")
        for index in range(6):
            text = text.replace(f'"#12345{index}"', f'"#12345{index}"')
        go.Figure(json.loads(text))


def test_hover_texts_are_escaped(tmp_path: Path) -> None:
    base = evaluation(tmp_path / "base", {"<a href='x'>": 1.0}, requested=LengthTarget.about(5).to_dict())
    (run,) = collect([base])
    assert run.evaluation is not None
    figure = charts.target_against_actual([(run, 0, run.evaluation.tasks["t"].outputs)], {}, "words")
    assert figure is not None
    assert "&lt;a href=" in figure["data"][1]["hovertext"][0]


def test_charts_without_data_are_left_out() -> None:
    assert charts.length_histogram([("a", "@ink", [], False)], "words") is None
    assert charts.length_histogram([("a", "@ink", [0], False)], "words") is None
    assert charts.training_curve([{"step": 1, "lr": 0.1}]) is None
    assert charts.target_against_actual([], {}, "words") is None


def test_histogram_shares_add_up_to_all() -> None:
    figure = charts.length_histogram([("a", "@ink", [1, 2, 3, 500, 4096], False)], "words")
    assert figure is not None
    assert sum(figure["data"][0]["y"]) == pytest.approx(100)


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (LengthTarget.about(1500), "1,500 words"),
        (LengthTarget(min=800, relation="at_least"), "at least 800 words"),
        (LengthTarget(max=80, relation="at_most", unit="tokens"), "at most 80 tokens"),
        (LengthTarget(min=400, max=600, relation="range"), "400 to 600 words"),
        (None, "no length asked"),
    ],
)
def test_targets_read_as_a_person_would_say_them(length: LengthTarget | None, words: str) -> None:
    assert wording.target(length) == words


def test_decimals_follow_the_scale_of_the_metric() -> None:
    assert [wording.digits_for(v) for v in ([0.2, None], [41.2], [1200.0], [])] == [3, 1, 0, 3]
    assert wording.decimal(-6.74, 1, signed=True) == "\N{MINUS SIGN}6.7"


def test_settings_are_flattened_and_long_ones_cut() -> None:
    rows = dict(settings_rows({"a": {"b": 1}, "c": [], "d": {}, "e": "x" * 3000}))
    assert (rows["a.b"], rows["c"], rows["d"]) == ("1", "[]", "{}")
    assert rows["e"].endswith("… (cut)")


def test_differing_package_versions_come_first(tmp_path: Path) -> None:
    one = write_manifest(tmp_path / "one", "build", packages={"a": "1", "b": "1"})
    two = write_manifest(tmp_path / "two", "build", packages={"a": "1", "b": "2"})
    assert package_table(collect([one, two])) == [("b", ["1", "2"], True), ("a", ["1", "1"], False)]


def test_main_writes_the_page_and_says_where(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "report.html"
    assert main([str(runs["base"]), str(runs["tuned"]), "--output", str(output)]) == 0
    assert "4 run(s)" in capsys.readouterr().out
    assert "tuned is better than base on longbench_write" in output.read_text(encoding="utf-8")


def test_a_folder_as_output_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    assert main([str(runs["base"]), "--output", str(tmp_path)]) == 2
