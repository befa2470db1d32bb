"""The report: what it reads, what it states, and that nothing a model wrote can act in the page."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import ATTACK, STAMP, write_jsonl, write_manifest, write_runs, write_scores

from data_builders.agent_write_draft import Draft
from data_builders.plans import PlannedSection
from data_builders.sections import SectionTry
from lengthwise.config import ConfigError
from lengthwise.records import Completion, LengthTarget, Sample, user
from lengthwise.report import main, wording
from lengthwise.report.builds import KeptRow, sections_by_index
from lengthwise.report.cells import link
from lengthwise.report.collect import collect
from lengthwise.report.comparison import compare_all
from lengthwise.report.lineage import draw
from lengthwise.report.lineage_layout import NODE_WIDTH, Node, lay_out
from lengthwise.report.page import render
from lengthwise.report.samples import Text, browse, fit
from lengthwise.report.settings import package_table, settings_rows
from lengthwise.report.tables import score_tables


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


def test_the_score_table_holds_every_number(runs: dict[str, Path]) -> None:
    found = collect([runs["base"], runs["tuned"]])
    pairs = [(run, i) for i, run in enumerate(r for r in found if r.evaluation)]
    (table,) = score_tables(pairs, compare_all(found[0], found[1:2]), {})
    assert [block.name for block in table.blocks] == ["S_l", "abs_log_ratio", "words"]
    block = table.blocks[0]
    assert (block.about, block.rule) == ("cjk_alpha, higher is better", "S_l ≥ 80")
    assert [line.estimate.n for line in block.lines if line.estimate] == ["30", "30"]
    assert [line.change is not None for line in block.lines] == [False, True]
    tuned = table.accounts[1]
    assert (tuned.prompts, tuned.scored, tuned.unscored, tuned.failed, tuned.adds_up) == (30, 30, 0, 0, True)
    assert tuned.cells == [
        ("replies", 30, "#samples?task=longbench_write"),
        ("empty", 1, "#samples?task=longbench_write&run=run-2&flag=empty"),
        ("truncated", 4, "#samples?task=longbench_write&run=run-2&flag=truncated"),
        ("repetitive", 2, "#samples?task=longbench_write&run=run-2&flag=repetitive"),
    ]
    assert [s.name for s in table.slices] == ["length bin", "language"]
    assert [line.value for line in table.slices[0].lines] == ["[0,500)", "[500,2000)", "[2000,4000]"]
    first = table.slices[0].lines[0]
    assert (first.n, first.href) == ("10", "#samples?task=longbench_write&slice.length_bin=%5B0%2C500%29")
    worst = table.worst[0][2][0]
    assert (worst.id, worst.marks) == ("lbw-005", ["empty"])


def test_prompts_that_are_missing_from_the_account_are_named(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0, "b": None})
    file = base / f"results_{STAMP}.json"
    results = json.loads(file.read_text()) | {"n-samples": {"t": {"original": 9, "effective": 4}}}
    file.write_text(json.dumps(results))
    text = " ".join(Page(render(collect([base]))).text.split())
    assert "1 scored, 1 unscored and unknown failed prompts are not the 4 that were asked" in text


def test_build_outcomes_add_up_and_disagreement_is_said(tmp_path: Path) -> None:
    made = write_runs(tmp_path, num_samples=2)
    (run,) = collect([made["build"]])
    assert run.build is not None
    assert (run.build.kept, run.build.rejected, run.build.failed) == (48, 11, 2)
    assert [(r.outcome, r.text, r.num_rows) for r in run.build.reasons] == [
        ("rejected", "s_l below 80", 6),
        ("rejected", "final: repetition", 3),
        ("rejected", "plan not parsed", 2),
        ("failed", "engine: ContextOverflow", 2),
    ]
    text = " ".join(Page(render([run])).text.split())
    assert "61 inputs = 48 kept + 11 rejected + 2 failed" in text
    assert "generated tokens per kept row 3,925" in text
    assert "cost, at the prices that were given $0.75 cost per kept row $0.016" in text
    (made["build"] / "dropped.jsonl").write_text("")
    write_manifest(made["build"], "build", counts={"kept": 48, "rejected": 11, "failed": 2, "inputs": 70})
    problems = collect([made["build"]])[0].problems
    assert problems == [
        "the manifest states 11 rejected rows, the file holds 0",
        "the manifest states 2 failed rows, the file holds 0",
        "the outcomes add up to 61, but there were 70 inputs",
    ]


def test_a_reason_leads_to_its_first_rows(tmp_path: Path) -> None:
    made = write_runs(tmp_path, num_samples=2)
    (run,) = collect([made["build"]])
    assert run.build is not None
    reason = run.build.reasons[0]
    assert [row.id for row in reason.examples] == [f"seed-{i}" for i in range(50, 55)]
    assert (reason.examples[0].detail, reason.examples[0].prompt) == (
        "value 0.10",
        "Write about 900 words on a harbour.",
    )
    page = Page(render([run]))
    assert "dropped-run-1-4" in page.ids
    assert "The first 5 of 6; every dropped row in full" in " ".join(page.text.split())


def test_the_rows_of_a_training_add_up_on_the_page(runs: dict[str, Path]) -> None:
    text = " ".join(Page(render(collect([runs["train"]]))).text.split())
    assert "48 rows read = 47 kept + 1 rejected + 0 failed" in text
    assert "do not add up" not in text
    assert "num_tokens 4410" in text


def test_sections_are_gathered_by_their_place() -> None:
    def row(*sections: tuple[int | None, int | None, bool]) -> KeptRow:
        return KeptRow(
            id="a", requested=None, words=None, score=None, prompt="", excerpt="", sections=list(sections)
        )

    first, second = sections_by_index(
        [row((200, 180, False), (300, 330, True)), row((200, 220, False)), row((400, 260, True))]
    )
    assert (first.index, first.num_texts, first.planned, first.written) == (1, 3, 200, 220)
    assert (first.lower, first.upper, first.num_rewritten) == (200, 240, 1)
    assert (second.num_texts, second.lower, second.upper) == (1, 330, 330)
    assert sections_by_index([]) == []


def test_sections_are_read_as_agent_write_notes_them(tmp_path: Path) -> None:
    draft = Draft(Sample(id="a", messages=user("Write.")), {})
    tries = [
        SectionTry(
            attempt=attempt,
            reply=Completion(text=text, finish_reason="stop", num_tokens=9),
            text=text,
            faults=(),
            planned=200,
        )
        for attempt, text in enumerate(["one two three", "one"])
    ]
    draft.add_section(PlannedSection(index=1, main_point="a", num_words=200), tries, tries[0])
    write_jsonl(tmp_path / "build" / "data.jsonl", [draft.record()])
    (run,) = collect([write_manifest(tmp_path / "build", "build")])
    assert run.build is not None
    assert run.build.rows[0].sections == [(200, 3, True)]


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
    # Without the texts it is small enough for a message: 90 replies of up to 4,000 words are the rest.
    assert len(source.encode()) < 1_500_000
    assert page.policy.startswith("default-src 'none'; script-src 'sha256-")
    assert {"lineage", "scores", "lengths", "build", "training", "samples", "settings"} <= set(page.ids)


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    assert sorted(set(page.ids)) == sorted(page.ids)
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert all(link.startswith("#") for link in page.links)
    assert {link for link in inner if not link.startswith("samples?")} <= set(page.ids)
    assert len(inner) > len(set(page.ids) & inner) > 10


def test_what_a_model_wrote_is_text_and_nothing_else(source: str, page: Page) -> None:
    body = source[source.index("<body>") :]
    assert ATTACK not in source
    assert "&lt;script&gt;document.title" in body
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert ATTACK.split(" ")[0] in page.text


def test_names_from_files_are_escaped_everywhere(tmp_path: Path) -> None:
    name = "<b onclick=x>&"
    base = write_scores(tmp_path / "base", {f"{name}{i}": float(i) for i in range(3)})
    manifest = json.loads((base / "manifest.json").read_text())
    manifest |= {"name": name, "config": {name: name}, "packages": {name: name}, "git_commit": name}
    manifest["parents"] = [{"path": name, "job": name, "manifest_sha256": None}]
    (base / "manifest.json").write_text(json.dumps(manifest))
    source = render(collect([base]))
    assert "<b onclick" not in source
    assert "b" not in Page(source).tags


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
    browser = browse([(found[0], 0), (found[1], 1)], compare_all(found[0], found[1:2]))
    assert len(browser.cards) == browser.num_items == 30
    assert browser.num_texts == 90
    fifth = browser.cards[5]
    assert [cell.chips for cell in fifth.cells if cell] == [["empty"], ["empty"]]
    assert fifth.facts["slices"] == {"length_bin": "[2000,4000]", "language": "en"}
    assert fifth.facts["runs"] == {
        "run-1": {"score": 0.0, "length": 0, "flags": ["empty"], "change": None},
        "run-2": {"score": 0.0, "length": 0, "flags": ["empty", "both wrong"], "change": 0.0},
    }
    assert dict(browser.flags)["truncated"] == 4
    assert browser.slices == [
        ("length_bin", [("[0,500)", 10), ("[500,2000)", 10), ("[2000,4000]", 10)]),
        ("language", [("en", 29), ("zh", 1)]),
    ]


def test_of_too_many_prompts_the_farthest_stay_and_the_page_says_so(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lengthwise.report.samples.MAX_CARDS", 4)
    text = " ".join(Page(render(collect([runs["base"]]))).text.split())
    assert "4 of 30 prompts shown, those whose lengths are farthest from what was asked" in text


def test_a_run_without_the_item_leaves_its_place_empty(tmp_path: Path) -> None:
    base = write_scores(tmp_path / "base", {"a": 1.0})
    other = write_scores(tmp_path / "other", {"b": 2.0})
    text = Page(render(collect([base, other]))).text
    assert text.count("no such item in this run") == 2
    assert "share no scored items" in text


# The diagram and words


def test_an_address_of_samples_survives_odd_names() -> None:
    assert link(task="a&b=c", run=None, flag="") == "#samples?task=a%26b%3Dc"


def test_the_diagram_reads_from_left_to_right(runs: dict[str, Path]) -> None:
    diagram = draw(collect([runs["base"], runs["tuned"]]))
    columns = {node.title: node.column for node in diagram.nodes}
    assert columns == {
        "seeds.jsonl": 0, "embedded:smollm2-135m": 1, "agent_write": 1, "lora": 2, "base": 3, "tuned": 3,
    }  # fmt: skip
    assert len(diagram.edges) == 5
    boxes = {(node.column, node.row) for node in diagram.nodes}
    assert len(boxes) == len(diagram.nodes)


def test_a_curve_passes_between_the_boxes_it_crosses() -> None:
    sources = {
        "base": [], "rows": [], "data": ["base", "rows"], "model": ["base", "data"], "prompts": [],
        "plain": ["base", "prompts"], "tuned": ["model", "prompts"],
    }  # fmt: skip
    nodes = {
        key: Node(key=key, kind="x", heading="", title="", sources=list(found))
        for key, found in sources.items()
    }
    paths = lay_out(nodes, {"plain", "tuned"})
    assert len(paths) == sum(map(len, sources.values()))
    # Each lane is a "x,y Hx": its end and its height.
    lanes = [(int(end), int(y)) for path in paths for y, end in re.findall(r",(\d+) H(\d+)", path)]
    assert len(lanes) == 3  # base -> model crosses one column, base -> plain two
    for end, y in lanes:
        for box in nodes.values():
            assert box.x + NODE_WIDTH != end or not box.y <= y <= box.y + box.height


def test_a_run_that_names_itself_as_its_parent_is_drawn(tmp_path: Path) -> None:
    run = write_manifest(tmp_path / "loop", "build")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["parents"] = [{"path": str(run), "job": "build", "manifest_sha256": None}]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert len(draw(collect([run])).nodes) == 1


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
