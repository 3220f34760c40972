"""The page: well formed, self-contained, complete, and there even where parts of the run are missing or damaged."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from causal_gen.evaluate import charts, graph_drawing, pictures, report, report_sequences
from causal_gen.evaluate import workdir as left
from causal_gen.structure.graph import Dag
from causal_gen.types import WorkdirError

# what texts.side_by_side writes: a position set, the first other that differs, and one that does
ANSWER = "     7  factual         <b>abc\n        counterfactual  <b>de f\n                           =^ ~"
EDGES = [["angle", "shadow"], ["light", "shadow"]]
VOID = {"meta", "input", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Checks that tags nest and collects what a browser would load."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.loads += [named[key] for key in ("src", "href", "data", "srcset") if named.get(key)]
        self.loads += re.findall(r"url\(([^)]*)\)", named.get("style") or "")
        assert tag not in {"iframe", "object", "embed", "base"}
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.stack and self.stack[-1] in ("style", "script"):
            assert "http" not in data and "@import" not in data and "fetch(" not in data


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A bare run: only its config."""
    config = {"data": {"name": "pendulum"}, "model": {"name": "diffusion_ae", "graph": EDGES}, "train": {"steps": 200, "seed": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def fill(workdir: Path) -> None:
    """Everything else that a run leaves behind, made up."""
    rng = np.random.default_rng(0)
    rows = [{"step": step, "loss": 100 / step, "examples_per_s": 10.0} for step in range(10, 210, 10)]
    rows[9]["eval_loss"] = rows[19]["eval_loss"] = 0.7
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 210, "lo')
    argv = ["experiments/train.py", "--config=configs/x/y.py:tiny", "--workdir=runs/a b"]
    (workdir / "metadata.json").write_text(json.dumps({"argv": argv, "resumed_from": 100, "versions": {"jax": "1"}}))
    image = rng.random((2, 8, 8, 3)).astype(np.float32)
    pictures.grid({"factual": image, "counterfactual": image, "truth": image[::-1]}, workdir / "counterfactual" / "grid.png")
    pictures.grid({"factual": image}, workdir / "samples" / "counterfactuals_00000100.png")
    pictures.grid({"factual": image}, workdir / "samples" / "counterfactuals_00000200.png")
    shots = rng.integers(0, 255, (2, 3, 8, 8, 3)).astype(np.uint8)
    (workdir / "evaluate").mkdir()
    np.savez(
        workdir / "evaluate" / "sliders.npz", factors=np.array(["angle"]), factual=shots[:, 0], reconstruction=shots[:, 0],
        values_angle=np.array([-30.0, 0.0, 30.0]), unit_angle=np.array("degree"), counterfactual_angle=shots, truth_angle=shots,
    )  # fmt: skip
    found = {"low": -30.0, "high": 30.0, "mae": 0.02, "copy": 0.04, "not_propagated": 0.01, "reversibility": None}
    metrics = {"step": 200, "scenes": 5, "seed": 0, "composition": {"mae": {"1": 0.001, "10": 0.01}}, "do": {"angle": found}}
    (workdir / "evaluate" / "metrics.json").write_text(json.dumps(metrics))


def page(workdir: Path) -> tuple[Page, str]:
    path = report.write(workdir)
    assert path == workdir / "report.html"
    text = path.read_text(encoding="utf-8")
    return Page(text), text


def test_a_full_page_is_well_formed_and_loads_nothing(workdir):
    fill(workdir)
    parsed, text = page(workdir)
    assert parsed.loads and all(load.startswith("data:image/png;base64,") for load in parsed.loads)
    assert "//" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]*", "", text).replace("<!-- -->", "")
    said = " ".join(" ".join(parsed.texts).split())
    for words in ("do(angle", "of the fitted model", "not propagated", "no better than a baseline", "10 null interventions", "held out"):
        assert words in said, words
    assert "python -m experiments.train --config=configs/x/y.py:tiny '--workdir=runs/a b'" in said
    assert "counterfactuals_00000200" in said and "counterfactuals_00000100" not in said  # the latest of a series
    assert "Not evaluated yet" not in said and 'max="2"' in text


def test_a_bare_workdir_gets_a_page_that_says_what_is_missing(workdir):
    parsed, _ = page(workdir)
    said = " ".join(parsed.texts)
    assert "Not evaluated yet" in said and f"python -m experiments.evaluate --workdir={workdir}" in said
    assert "No curves" in said and "No pictures" in said and "No slider pictures" in said


def test_damaged_parts_are_treated_as_missing(workdir):
    fill(workdir)
    (workdir / "evaluate" / "sliders.npz").write_bytes(b"PK\x03\x04 cut short")
    (workdir / "evaluate" / "metrics.json").write_text('{"step": 2')
    (workdir / "metadata.json").write_text("[]")
    (workdir / "samples" / "broken_1.png").write_bytes(b"not a picture")
    parsed, _ = page(workdir)
    said = " ".join(parsed.texts)
    assert "Not evaluated yet" in said and "No slider pictures" in said and "broken" not in said


def test_names_from_the_config_cannot_inject_markup(workdir):
    evil = "<script>alert(1)</script>"
    config = {"data": {"name": evil}, "model": {"name": evil, "graph": [[evil, "b"]]}}
    (workdir / "config.json").write_text(json.dumps(config))
    _, text = page(workdir)
    assert evil not in text and "&lt;script&gt;alert" in text


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_folder_that_is_no_workdir_is_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(WorkdirError, match="not a workdir") as error:
        report.write(tmp_path)
    assert "\n" not in str(error.value)


def test_half_a_line_is_left_out_and_repeated_steps_are_marked(workdir):
    (workdir / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 2, "loss": 1.0}\n[]\n{"step": 3, "lo'
    )
    lines = left.read_lines(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 2]
    _, text = page(workdir)
    assert 'class="mark"' in text


def test_curves_go_where_the_numbers_say():
    """A falling series falls on the page (y grows downwards), infinities are left out, all points lie in the frame."""
    svg = charts.curves({"loss": [(0, 4.0), (1, 2.0), (2, float("nan")), (3, 1.0)]}, log=True)
    path = re.search(r'class="line0" d="(M[^"]*L[^"]*)"', svg)
    assert path
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path[1])[1:]]
    assert len(points) == 3 and points[0][1] < points[1][1] < points[2][1]
    assert points[1][1] - points[0][1] == pytest.approx(points[2][1] - points[1][1], abs=0.2)  # halving twice, on a log axis
    assert all(0 < x < charts.WIDTH and 0 < y < charts.HEIGHT for x, y in points)
    assert charts.curves({"loss": []}) == ""


def test_graph_shows_every_node_and_edge_with_causes_above_effects():
    dag = Dag.from_edges([("a", "b"), ("b", "c"), ("a", "c")])
    svg = graph_drawing.draw(dag, "image")
    assert svg.count('class="edge"') == 4  # three edges and the one to the image
    heights = {name: float(y) for y, name in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)" text-anchor="middle">(\w+)<', svg)}
    assert heights["a"] < heights["b"] < heights["c"] < heights["image"]


def test_a_run_over_tokens_gets_a_page_about_texts_and_positions(tmp_path):
    data = {"name": "text", "tokenizer": "bytes", "length": 64, "stats": {"tokens": {"vocabulary": 256}}}
    model = {"name": "causal_transformer", "visibility": "causal() & same_document()"}
    (tmp_path / "config.json").write_text(json.dumps({"data": data, "model": model}))
    said = " ".join(page(tmp_path)[0].texts)
    assert "No answer yet" in said and "Not evaluated yet" in said and "picture" not in said.partition('{\n  "data"')[0]
    assert "'--do=tokens[5]=1'" in said and "experiments.sample" in said
    text = (tmp_path / "report.html").read_text()
    assert text.count('class="seen"') == 2 * 8 * 9 // 2, "the visibility is drawn, two documents of eight"
    metrics = {
        "step": 4, "scenes": 2, "seed": 0, "accuracy": 0.1, "null": 1.0, "takes": 1.0, "before": 0.0, "after": 0.25,
        "heldout": {"rows": 9, "tokens": 5000, "likelihood": "exact", "bits_per_byte": {"value": 2.125, "se": 0.5}},
        "noise": {"mean": 0.58, "std": 1.3, "ks": 0.01},
        "example": {"do": "tokens[7]=3", "row": 6, "factual": "a", "counterfactual": "b", "side_by_side": ANSWER},
    }  # fmt: skip
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "samples.txt").write_text("once <i>upon</i>" + "x" * 30_000)
    parsed, text = page(tmp_path)
    said = " ".join(" ".join(parsed.texts).split())
    for words in (
        "2.125",
        "0.5 standard error",
        "5,000 held-out tokens",
        "1 must be",
        "<b> d",  # letters that are marked stand in elements of their own
        "once <i>upon",
        "more characters",
        "0.25",
    ):
        assert words in said, words
    assert '&lt;b&gt;<mark class="set">d</mark><mark class="first">e</mark> <mark class="moved">f</mark>' in text
    assert "<b>d" not in text and "<i>" not in text and "'--do=tokens[7]=3'" in said


def test_a_visibility_over_a_field_of_the_users_own_is_named_and_not_drawn(tmp_path):
    config = {"data": {"stats": {"tokens": {"vocabulary": 4}}}, "model": {"visibility": 'same("speaker")'}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    parsed, text = page(tmp_path)
    assert '<svg class="mask"' not in text and "Who sees whom" in " ".join(parsed.texts)


def test_a_model_of_rows_gets_a_page_that_does_not_speak_of_pictures(workdir):
    """Its graph has no picture under it, each node has the colour of its mechanism, and answers are rows with what moved."""
    model = {
        "name": "structural",
        "graph": [["dose", "relapse"]],
        "default": {"name": "additive"},
        "mechanisms": {"dose": {"name": "spline"}},
    }
    data = {"name": "table", "stats": {"dose": {"mean": 2.5}, "relapse": {"categories": ["no", "yes"]}}}
    (workdir / "config.json").write_text(json.dumps({"data": data, "model": model}))
    (workdir / "counterfactual").mkdir()
    (workdir / "counterfactual" / "counterfactual.csv").write_text(
        "row,factual_dose,counterfactual_dose,factual_relapse,counterfactual_relapse\n0,1,9,<i>no,<i>no\n"
    )
    (workdir / "counterfactual" / "metrics.json").write_text(json.dumps({"intervention": {"do(dose)": "9"}}))
    parsed, text = page(workdir)
    body = " ".join(" ".join(parsed.texts).split()).partition("structural on table: report")[2]
    said = body.partition("-- a study --")[2].partition('{ "data"')[0]  # neither the style nor the script, which serve all pages
    assert "picture" not in said and "scene" not in said and "had dose been different, with relapse following as its effect" in said
    assert re.search(r"spline\s+dose", said) and re.search(r"discrete\s+relapse", said)
    assert (
        '<mark class="moved">9</mark>' in text
        and "<td>&lt;i&gt;no</td>" in text
        and "'--do=dose=2.5'" not in text
        and "--do=dose=2.5" in text
    )
    assert text.count('class="node set"') == 1 and text.count('class="node moves"') == 1 and "do(dose = 9)" in said


def test_an_intervention_cuts_what_leads_into_it_and_moves_what_lies_below():
    dag = Dag.from_edges([("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")])
    act = graph_drawing.asked(dag, {"do(b)": "1"})
    assert act == graph_drawing.Asked(frozenset("b"), frozenset({("a", "b")}), frozenset("c"))
    assert graph_drawing.asked(dag, {"shift(b)": "1"}) == graph_drawing.Asked(frozenset("b"), frozenset(), frozenset("c"))
    path = graph_drawing.asked(dag, {"do(a->c)": "1"})
    assert path == graph_drawing.Asked(frozenset("c"), frozenset({("a", "c")}), frozenset())
    assert graph_drawing.asked(dag, {"do(tokens[5])": "1"}) is None
    svg = graph_drawing.draw(dag, act=act)
    assert svg.count('class="edge cut"') == 1 and svg.count('class="edge"') == 3 and svg.count('class="node stays"') == 2


def test_every_layer_that_sees_otherwise_has_a_mask_and_every_objective_its_own():
    layers = report_sequences.masks({"model": {"visibility": "per_layer(causal(), full(), causal())", "transformer": {"layers": 3}}})
    assert [one["layers"] for one in layers] == ["0, 2", "1"]
    assert [one["svg"].count('class="seen"') for one in layers] == [16 * 17 // 2, 16 * 16]
    objectives = [{"kind": "next"}, {"kind": "masked", "name": "filled"}, {"kind": "prefix"}]
    mixed = report_sequences.masks({"model": {"visibility": "causal()", "objectives": objectives}})
    assert [(one["title"], one["text"]) for one in mixed] == [("next", "causal()"), ("filled", "full()"), ("prefix", "causal() | prefix()")]
    assert mixed[2]["svg"].count('class="seen"') == 16 * 17 // 2 + 6 * 5 // 2  # a prefix of six sees itself whole


def test_all_resumes_are_marked(workdir):
    rows = [{"step": step, "loss": 1.0} for step in range(10, 110, 10)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workdir / "metadata.json").write_text(json.dumps({"resumed_from": 70, "resumes": [30, 70, 500]}))
    parsed, text = page(workdir)
    assert text.count('class="mark"') == 2 and "Taken up again from step 30, 70" in " ".join(parsed.texts)


def test_figures_of_models_that_fill_in_have_rows_with_what_they_are_held_against(tmp_path):
    """As evaluate/hybrid.py writes them; a figure that is not there takes no row."""
    config = {"data": {"stats": {"tokens": {"vocabulary": 4}}}, "model": {"visibility": "full()"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    order, plan = {"calls": 8.0, "places": 9.0, "solved": 0.875, "local_2": 1.0}, {"counts": [1, 2], "nats": 5.5, "nats_even": 6.5}
    metrics = {
        "null": 1.0, "takes": 1.0, "earlier": 0.0, "later": 0.375, "exact": 0.625, "heldout": {}, "noise": {},
        "objectives": {"masked": {"value": 1.5, "se": 0.02}}, "pseudo": {"value": 1.25, "se": 0.03},
        "infill": {"both": {"bits": 3.5}, "left": {"bits": 4.5}}, "statements": {"scoring": "pseudo", "accuracy": 0.75, "chance": 0.1},
        "unmasking": {"order": order, "plan": plan},
        "quality": {"draws": 9, "frechet": {"value": 150.5, "real": 14.5, "tokens": 15.5}},
    }  # fmt: skip
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "metrics.json").write_text(json.dumps(metrics))
    said = " ".join(" ".join(page(tmp_path)[0].texts).split())
    beside = (
        "1.5 nat 0.02 standard error",
        "3.5 bit 4.5 left side alone",
        "0.75 0.1 chance",
        "5.5 nat 6.5 evenly",
        "150.5 14.5 test pictures",
    )
    for words in (*beside, "0.875", "0.375", "0.625", "Moved though filled in before"):
        assert words in said, words
    assert "Moved before it" not in said and "\u2014" not in said.partition('{ "data"')[0]
