"""The page: complete, self-contained, escaped, the same every time, and honest about what is not there."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tomli_w

from conrec.artefacts import hash_file, read_json, write_json
from conrec.config import load_config
from conrec.errors import ArtefactError, MissingExtraError
from conrec.evaluation.evaluate import evaluate
from conrec.filtering.analysis.analyse import ANALYSIS
from conrec.filtering.calibrating.threshold import BOUNDS, Choice, best_within
from conrec.items.diagnosis.diagnose import QUANTISER
from conrec.report.build import SECTIONS, build_report
from conrec.report.content import number

VOID = {"meta", "img", "source", "br", "hr", "input", "link"}


class Page(HTMLParser):
    """Reads the page as a browser does: tags with attributes, and text by enclosing tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts.setdefault(tag, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self, tag: str = "body") -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts.get(tag, [])))


@pytest.fixture(scope="module")
def page_text(finished_run: Path) -> str:
    return build_report(finished_run).read_text(encoding="utf-8")


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def light_copy(run_copy: Path) -> Path:
    """Without learning curves and the analysis of the filter, whose plots take most of the time."""
    shutil.rmtree(run_copy / "models")
    (run_copy / ANALYSIS).unlink()
    return run_copy


def test_it_is_well_formed_and_has_every_section(page_text: str) -> None:
    page = Page(page_text)
    assert page.open == []
    assert len(page.all("section")) == len(SECTIONS)
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {attributes["href"] for attributes in page.all("a")} <= {f"#{one}" for one in targets}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_it_loads_nothing(page_text: str) -> None:
    page = Page(page_text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/svg+xml;base64,", "#"))
    style = page.text("style")
    assert "url(" not in style
    assert "@import" not in style
    for image in page.all("img"):
        svg = base64.b64decode(str(image["src"]).split(",")[1]).decode()
        assert svg.count("<svg") == 1
        assert not re.search(r'(?:href|src)="(?!#)', svg), "a plot refers to something outside"
        assert "<script" not in svg
        assert "<!DOCTYPE" not in svg


def test_titles_are_text_and_nothing_else(finished_run: Path, page_text: str) -> None:
    assert "<script" not in page_text
    assert "<img src=x" not in page_text
    assert "<script>alert('title')</script>" in Page(page_text).text(), "it is shown as it is written"


def test_tables_and_figures_can_be_read_without_seeing(page_text: str) -> None:
    page = Page(page_text)
    assert len(page.all("caption")) == len(page.all("table")) > 10
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert all(len(str(attributes.get("alt"))) > 20 for attributes in page.all("img"))
    assert len(page.all("figcaption")) == len(page.all("figure")) == len(page.all("img")) > 8
    assert {one["media"] for one in page.all("source")} == {"screen and (prefers-color-scheme: dark)"}
    assert page.all("html")[0]["lang"] == "en"
    style = page.text("style")
    for needed in ("prefers-color-scheme: dark", "@media print", "max-width"):
        assert needed in style


def test_the_table_shows_the_metrics(finished_run: Path, page_text: str) -> None:
    text = Page(page_text).text()
    for row in read_json(finished_run / "results" / "metrics.json").values():
        for key in ("hr@20", "fhr@20", "luf@20", "lif@20", "candidate_accuracy", "fhr@20/no_negative_history"):
            assert f"{number(row[key]['value'])} {number(row[key]['low'])} to {number(row[key]['high'])}" in text
    against = read_json(finished_run / "results" / "comparisons.json")["conrec"]
    assert f"{number(against['sasrec']['fhr@20']['low'])} to {number(against['sasrec']['fhr@20']['high'])}" in text


def test_the_best_of_a_column_is_bold_whoever_it_is(light_copy: Path) -> None:
    path = light_copy / "results" / "metrics.json"
    metrics = read_json(path)
    metrics["most-disliked"]["hr@20"] = {"value": 0.98765, "low": 0.9, "high": 1.0, "anchors": 68}
    write_json(path, metrics)
    assert "<strong>0.9877</strong>" in build_report(light_copy).read_text(encoding="utf-8")


def test_counts_refusals_settings_and_rewards_are_there(finished_run: Path, page_text: str) -> None:
    page = Page(page_text)
    text = page.text()
    for needed in ("4,015", "no rating", "unknown item", "torch", "2.13.0", "1 h 01 min", "2020-09-13"):
        assert needed in text
    assert page.text("pre").strip() == re.sub(r"\s+", " ", (finished_run / "config.toml").read_text()).strip()
    for model in ("conrec-grpo-1", "conrec-grpo-2", "conrec"):
        points = read_json(finished_run / "models" / model / "curve.json")["validation_reward"]
        assert f"{model} from {number(points[0][1])} to {number(points[-1][1])}" in page_text


def test_examples_drop_what_the_filter_drops(finished_run: Path, page_text: str) -> None:
    examples = page_text[page_text.index('id="examples"') : page_text.index('id="settings"')]
    assert examples.count('<article class="example">') == 5
    threshold = read_json(finished_run / "filter" / "conrec.json")["threshold"]
    rows = re.findall(r'<td(?: class="bad")?>(dropped|kept)</td>\s*<td>([−\d.]+)</td>', examples)
    assert len(rows) == 100
    assert {word for word, _ in rows} == {"dropped", "kept"}
    for word, similarity in rows:
        difference = float(similarity.replace("−", "-")) - threshold
        assert abs(difference) < 1e-4 or (word == "dropped") == (difference > 0)


def test_the_same_run_gives_the_same_bytes(run_copy: Path, page_text: str) -> None:
    assert build_report(run_copy).read_text(encoding="utf-8") == page_text


OPTIONAL = (
    "data/counts.json",
    "environment.json",
    "filter",
    "items",
    "models",
    "predictions",
    "results/alignment.json",
    "results/comparisons.json",
    "results/filter.json",
    "results/motivation.json",
    "timings.json",
)


def test_left_over_rows_are_not_shown(run_copy: Path) -> None:
    """What the run was, was made with more stages; its files are still there."""
    path = run_copy / "config.toml"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    content["grpo"]["stages"] = [{"context": "both"}, {"context": "recent"}]
    content["prediction"]["context"] = "negative"
    content["filter"]["models"] = ["most-disliked"]
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    evaluate(run_copy, load_config(file=path))
    shutil.rmtree(run_copy / "models" / "sasrec")
    text = Page(build_report(run_copy).read_text(encoding="utf-8")).text()
    assert "conrec-grpo-1" in text
    alignment = text[text.index("Which of four items") : text.index("Every series that a model wrote")]
    assert "conrec-grpo-2" in alignment, "alignment.json is taken as it is"
    assert "conrec-grpo-2" not in text.replace(alignment, "")
    ablation = text[text.index("CoNRec after each of its stages; each row") :]
    assert "+ GRPO, all feedback conrec-grpo-1" in ablation
    assert "+ GRPO, recent negatives conrec" in ablation
    assert text.count("asked with the same context: all negatives (“negative”)") == 2
    assert "Learning curves of sasrec" not in text
    filters = text[text.index("Thresholds chosen on validation anchors") : text.index("The chosen thresholds on test")]
    assert "most-disliked" in filters
    assert "conrec" not in filters


def test_rules_of_the_items_alone_stand_beside_the_models(finished_run: Path, page_text: str, light_copy: Path) -> None:
    rules = read_json(finished_run / "results" / "alignment.json")["item_only"]
    text = Page(page_text).text()
    for name, one in rules.items():
        assert f"{name} items alone {number(one['value'])} {number(one['low'])} to {number(one['high'])}" in text
        assert f"{name} (items alone), {one['value']:.3f}" in page_text
    path = light_copy / "results" / "alignment.json"
    content = read_json(path)
    del content["item_only"]
    write_json(path, content)
    assert "items alone" not in build_report(light_copy).read_text(encoding="utf-8")


def test_captions_say_what_was_measured(page_text: str) -> None:
    text = Page(page_text).text()
    assert text.count("contexts of the validation period: n = 461") == 1 + 3
    assert text.count("distinct_items: distinct items in a group of 16 rollouts") == 3
    assert page_text.count("distinct_items from 1") == 3, "the panels are told in words too"
    assert text.count("asked with the same context: all feedback (“both”)") == 2


def test_other_bounds_are_shown(finished_run: Path, page_text: str) -> None:
    text = Page(page_text).text()
    table = text[text.index("What other bounds would do") :]
    content = read_json(finished_run / "filter" / "conrec.json")
    choices = [Choice(**choice) for choice in content["choices"]]
    shown = 0
    for bound in BOUNDS:
        assert f"Bound {bound:.0%}" in table
        choice = best_within(choices, bound)
        if choice is not None:
            rates = f"liked {number(choice.user_rate)} of a user's {number(choice.false_filter_rate)} of all"
            assert f"{rates} above {number(choice.threshold)}" in table
            shown += 1
    assert shown >= 1
    assert table.count("0 keeps everything") >= len(BOUNDS) - shown


def test_a_threshold_of_one_is_said_to_keep_everything(light_copy: Path) -> None:
    path = light_copy / "filter" / "conrec.json"
    write_json(path, {**read_json(path), "threshold": 1.0, "statement": "many likes have the codes of a prediction."})
    text = Page(build_report(light_copy).read_text(encoding="utf-8")).text()
    assert "The filter of conrec drops nothing. many likes have the codes of a prediction." in text
    assert "1.0000 keeps everything" in text
    assert "No candidate is dropped: the filter of conrec keeps everything." in text


def test_what_is_not_there_is_said(run_copy: Path) -> None:
    for name in OPTIONAL:
        path = run_copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(build_report(run_copy).read_text(encoding="utf-8"))
    assert len(page.all("section")) == len(SECTIONS)
    said = ("data/counts.json", "environment.json", "filter/*.json", "items/diagnostics.json", "models/*/curve.json")
    said += ("predictions/conrec.parquet", *(one for one in OPTIONAL if one.startswith("results/alignment")))
    said += ("results/comparisons.json", "results/motivation.json", "timings.json")
    for name in said:
        assert f"is not there: this run has no {name}" in page.text().replace("are not", "is not")


def test_a_filter_that_keeps_everything_is_shown_so(light_copy: Path) -> None:
    for name in ("conrec", "most-disliked"):
        path = light_copy / "filter" / f"{name}.json"
        content = read_json(path)
        empty = {"threshold": None, "positives": 0, "false_filters": 0, "curve": [], "choices": []}
        write_json(path, {**content, **empty, "statement": "nothing could be learned"})
    write_json(light_copy / "filter" / "conrec.manifest.json", {"inputs": {}, "threshold": 1})
    write_json(light_copy / "results" / "filter.json", {"conrec": {"threshold": None}})
    (light_copy / "items" / "rebuilt.safetensors").unlink()
    text = Page(build_report(light_copy).read_text(encoding="utf-8")).text()
    assert "keeps everything" in text
    assert "nothing could be learned" in text
    assert "conrec.manifest" not in text


def test_a_row_that_ranks_nothing_says_why(light_copy: Path) -> None:
    name = "sasrec"
    table = pq.read_table(light_copy / "predictions" / f"{name}.parquet")
    empty = table.slice(0, 0).replace_schema_metadata({"conrec.unranked": "it would read <many> titles"})
    pq.write_table(empty, light_copy / "predictions" / f"{name}.parquet")
    evaluate(light_copy, load_config(file=light_copy / "config.toml"))
    text = Page(build_report(light_copy).read_text(encoding="utf-8")).text()
    assert "sasrec scores candidates alone: it would read <many> titles." in text


def test_a_run_with_one_row_and_no_anchors_of_a_kind(light_copy: Path) -> None:
    path = light_copy / "results" / "metrics.json"
    write_json(path, {"my own $x_1$ 方法": {"hr@20": {"value": 0.5, "low": None, "high": None, "anchors": 3}}})
    text = Page(build_report(light_copy).read_text(encoding="utf-8")).text()
    assert "my own $x_1$ 方法" in text
    assert "no stages of CoNRec" in text
    assert "no anchors without negative history" in text


@pytest.mark.parametrize(
    "name", ["config.toml", "data/events.parquet", "data/anchors.parquet", "data/periods.json", "results/metrics.json"]
)
def test_what_is_essential_is_asked_for(run_copy: Path, name: str) -> None:
    (run_copy / "report.html").write_text("of an earlier time")
    (run_copy / name).unlink()
    with pytest.raises(ArtefactError, match=Path(name).name.replace(".", r"\.") + r".*missing"):
        build_report(run_copy)
    assert (run_copy / "report.html").read_text() == "of an earlier time"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results/metrics.json", [1]),
        ("models/sasrec/curve.json", {"loss": [1, 2]}),
        ("models/sasrec/curve.json", [3]),
    ],
)
def test_damage_is_named(run_copy: Path, name: str, content: object) -> None:
    (run_copy / name).write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match=Path(name).name.replace(".", r"\.")):
        build_report(run_copy)


def test_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there is no run here"):
        build_report(tmp_path / "none")


@pytest.mark.parametrize(
    ("package", "modules"),
    [
        ("matplotlib", ("matplotlib.axes", "conrec.report.canvas")),
        ("jinja2", ("jinja2", "conrec.report.build")),
    ],
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, package: str, modules: tuple[str, str]) -> None:
    import importlib  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, modules[0], None)
    monkeypatch.delitem(sys.modules, modules[1])
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*conrec\[report\]"):
        importlib.import_module(modules[1])


def codes_section(run: Path) -> str:
    text = Page(build_report(run).read_text(encoding="utf-8")).text()
    return text[text.index("Every later stage sees an item through its codes alone") :]


def test_semantic_ids_are_described(finished_run: Path, light_copy: Path, page_text: str) -> None:
    found = read_json(finished_run / "items" / "diagnostics.json")
    text = codes_section(light_copy)
    for level in found["levels"]:
        figures = (f"{level['coverage']:.3f}", f"{level['perplexity']:.1f}", f"{level['entropy_ratio']:.3f}")
        assert f"level {level['level']} {level['used']} {level['dead']} {' '.join(figures)} {level['gini']:.3f}" in text
    hits = found["neighbour_hit_rate"]["raw"]
    assert f"neighbour hit rate, raw codes {hits['all']:.3f} {hits['training']:.3f} {hits['other']:.3f}" in text
    for level in found["category_purity"]["levels"]:
        assert f"{level['prefixes']} {level['alone']} {level['purity']:.3f} {level['random']:.3f}" in text
    example = found["category_purity"]["levels"][0]["purest"][0]
    assert f"{example['prefix']} {example['items']} {example['category']} {example['purity']:.2f}" in text
    assert page_text.count("one panel a level") == 1
    assert "How stable the codes are was not asked" in text


STABLE = {
    "noise": [{"relative_norm": 0.05, "items": 120, "kept": [0.987, 0.876, 0.765]}],
    "paraphrase": [{"rule": "year", "items": 0, "cosine": None, "kept": None}],
    "retrained": {
        "within_parents": [0.91, 0.82, 0.73],
        "chance": [0.11, 0.42, 0.63],
        "globally": [0.91, 0.31, 0.21],
        "pairs": [
            {"kept": 0.55, "adjusted_rand": 0.44},
            {"kept": 0.5, "adjusted_rand": 0.4},
            {"kept": None, "adjusted_rand": None},
        ],
    },
    "fewer": None,
    "appended": None,
}


def test_stability_is_shown_where_it_is_of_these_codebooks(light_copy: Path) -> None:
    (light_copy / "items" / QUANTISER).write_bytes(b"codebooks")
    written = {**STABLE, "quantiser": hash_file(light_copy / "items" / QUANTISER)}
    write_json(light_copy / "items" / "stability.json", written)
    text = codes_section(light_copy)
    assert "noise of 5% of the length 120 0.987 0.876 0.765" in text
    assert "other words: year (cosine –) 0 – – –" in text
    assert "another seed: within matched parents 0.910 0.820 0.730" in text
    assert "another seed: pairs that stay together 0.550 0.500 –" in text
    assert "without a tenth" not in text
    lacking = [{key: value for key, value in one.items() if key != "relative_norm"} for one in STABLE["noise"]]
    write_json(light_copy / "items" / "stability.json", {**written, "noise": lacking})
    assert "items/stability.json was written by an earlier version" in codes_section(light_copy)
    write_json(light_copy / "items" / "stability.json", written)
    (light_copy / "items" / QUANTISER).write_bytes(b"other codebooks")
    text = codes_section(light_copy)
    assert "items/stability.json is of other codebooks than this run has now" in text
    assert "noise of 5%" not in text


def test_diagnostics_of_an_earlier_version(light_copy: Path) -> None:
    path = light_copy / "items" / "diagnostics.json"
    found = read_json(path)
    write_json(path, {name: found[name] for name in ("items", "training_items", "codebook_size", "levels")})
    assert "items/diagnostics.json was written by an earlier version" in codes_section(light_copy)
