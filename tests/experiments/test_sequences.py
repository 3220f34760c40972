"""The commands over sequences: tiny runs of text in bytes and in BPE, and of pixels, each trained once."""

from __future__ import annotations

import importlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import causal_gen as cg
from experiments import cli

CONFIG = "configs/causal_transformer/text.py:tiny"
LENGTH = 16
CORPUS = "In the year 1812 there was war, and in the year 1912 there was none.\n" * 40

PIXELS = """
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict({
        "data": {"name": "pixels", "standin": True, "size": 32, "test_size": 8, "shrink": 7, "levels": 4},
        "model": {"name": "causal_transformer", "classes": ("digit",), "transformer": {"width": 16, "layers": 1, "heads": 2}},
        "train": {"steps": 2, "batch_size": 8},
        "log": {"every": 1, "pictures_every": 0},
    })
"""


def trained_as(workdir, *overrides, config=CONFIG):
    argv = [f"--config={config}", f"--workdir={workdir}", "--config.train.steps=2", *overrides]
    assert cli.main(importlib.import_module("experiments.train").COMMAND, argv) == 0, "the tiny run did not train; stderr says why"
    return workdir


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "speech.txt"
    file.write_text(CORPUS)
    return file


@pytest.fixture(scope="module")
def text(tmp_path_factory, corpus):
    """A run over bytes; not to be written to."""
    return trained_as(tmp_path_factory.mktemp("runs") / "text", f"--config.data.corpus={corpus}")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory, corpus):
    """A run over BPE tokens; not to be written to."""
    flags = ("--config.data.tokenizer=bpe", "--config.data.vocabulary=270")
    return trained_as(tmp_path_factory.mktemp("runs") / "bpe", f"--config.data.corpus={corpus}", *flags)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A run over 16 grey pixels, given the digit's class."""
    file = tmp_path_factory.mktemp("configs") / "pixels.py"
    file.write_text(PIXELS)
    return trained_as(tmp_path_factory.mktemp("runs") / "pixels", config=str(file))


def last_json(answer):
    assert answer.code == 0, answer
    return json.loads(answer.out.strip().splitlines()[-1])


def test_a_token_is_set_and_nothing_before_it_moves(call, text, tmp_path):
    answer = call("counterfactual", f"--workdir={text}", "--do=tokens[5]=17", "--num=3", f"--out={tmp_path}")
    metrics, arrays = last_json(answer), np.load(tmp_path / "counterfactual.npz")
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["null"], metrics["takes"], metrics["before"]) == (1.0, 1.0, 0.0)
    np.testing.assert_array_equal(arrays["reconstruction_tokens"], arrays["factual_tokens"])
    found = arrays["counterfactual_tokens"]
    assert found.shape == (3, LENGTH) and (found[:, 5] == 17).all()
    np.testing.assert_array_equal(found[:, :5], arrays["factual_tokens"][:, :5])
    moved = (found != arrays["factual_tokens"]) & (np.arange(LENGTH) != 5)
    assert metrics["first_difference"] == [int(row.argmax()) if row.any() else -1 for row in moved]
    assert metrics["after"] == pytest.approx(moved[:, 6:].mean())
    assert not (tmp_path / "grid.png").exists() and "no grid.png" in answer.err and "Gumbel-max" in answer.err
    shown = (tmp_path / "counterfactual.txt").read_text()
    assert "do(tokens[5]) = 17" in shown and shown.count("==== row") == 3 and "reconstruction" in shown


def test_a_span_of_text_is_its_bytes_and_a_file_is_evidence(call, text, tmp_path):
    (tmp_path / "mine.txt").write_text("In 1812 we.")
    asked = [f"--workdir={text}", f"--evidence={tmp_path / 'mine.txt'}"]
    metrics = last_json(call("counterfactual", *asked, '--do=text[3:7]="1912"', f"--out={tmp_path / 'span'}"))
    bytes_ = [f"--do=tokens[{3 + i}]={byte}" for i, byte in enumerate(b"1912")]
    assert metrics["intervention"] == {"do(text[3:7])": '"1912"'}
    assert metrics["null"] == last_json(call("counterfactual", *asked, *bytes_, f"--out={tmp_path / 'bytes'}"))["null"] == 1.0
    span, single = (np.load(tmp_path / name / "counterfactual.npz") for name in ("span", "bytes"))
    np.testing.assert_array_equal(span["counterfactual_tokens"], single["counterfactual_tokens"])
    assert bytes(span["factual_tokens"][0].astype(np.uint8)) == b"In 1812 we." + bytes(5)
    assert bytes(span["counterfactual_tokens"][0, :7].astype(np.uint8)) == b"In 1912"
    shown = (tmp_path / "span" / "counterfactual.txt").read_text()
    lines = shown.splitlines()
    at = next(i for i, line in enumerate(lines) if "In 1912" in line)
    assert lines[at + 1].index("====") == lines[at].index("1912")
    assert "In 1812 we." in shown and "In 1812 we.\u2205" not in shown, "what the row was filled up with is not shown"


def test_a_long_file_makes_rows_of_which_num_are_taken(call, text, tmp_path):
    (tmp_path / "long.txt").write_text("x" * 40)
    flags = (f"--evidence={tmp_path / 'long.txt'}", "--do=tokens[15]=1")
    answer = call("counterfactual", f"--workdir={text}", *flags, "--num=2", f"--out={tmp_path / 'out'}")
    assert last_json(answer)["num"] == 2 and "40 tokens make 3 rows of up to 16, the first 2 are taken" in answer.err
    everything = last_json(call("counterfactual", f"--workdir={text}", *flags, f"--out={tmp_path / 'out'}"))
    assert everything["num"] == 3 and everything["first_difference"][2] == -1, "the last row has 8 tokens of its own"


def test_a_range_adds_an_axis_and_answers_can_be_evidence(call, text, tmp_path):
    metrics = last_json(call("counterfactual", f"--workdir={text}", "--do=tokens[2]=48:57:4", "--num=2", f"--out={tmp_path}"))
    arrays = np.load(tmp_path / "counterfactual.npz")
    assert arrays["counterfactual_tokens"].shape == (2, 4, LENGTH) and metrics["takes"] == [1.0] * 4
    np.testing.assert_array_equal(arrays["counterfactual_tokens"][:, :, 2], np.tile([48, 51, 54, 57], (2, 1)))
    np.testing.assert_array_equal(arrays["axis_tokens[2]"], [48, 51, 54, 57])
    again = [f"--evidence={tmp_path / 'counterfactual.npz'}", "--do=tokens[2]=51", f"--out={tmp_path / 'again'}"]
    last_json(call("counterfactual", f"--workdir={text}", *again))
    one = np.load(tmp_path / "again" / "counterfactual.npz")["counterfactual_tokens"]
    np.testing.assert_array_equal(one, arrays["counterfactual_tokens"][:, 1])


def test_samples_begin_with_the_prompt_and_an_intervention_moves_nothing_before_it(call, text, tmp_path):
    answers = {}
    for name, flags in {"plain": [], "prompt": ["--prompt=In 19"], "do": ["--prompt=In 19", "--do=tokens[9]=65"]}.items():
        answer = call("sample", f"--workdir={text}", "--num=3", *flags, f"--out={tmp_path / name}")
        assert answer.code == 0 and "samples.txt" in answer.out, answer
        answers[name] = np.load(tmp_path / name / "samples.npz")["tokens"]
    assert all(found.shape == (3, LENGTH) for found in answers.values())
    assert {bytes(row[:5].astype(np.uint8)) for row in answers["prompt"]} == {b"In 19"}
    np.testing.assert_array_equal(answers["do"][:, :9], answers["prompt"][:, :9])
    assert (answers["do"][:, 9] == 65).all() and (answers["plain"] != answers["prompt"]).any()
    assert (tmp_path / "prompt" / "samples.txt").read_text().count("\nIn 19") == 3


def test_evaluate_and_report_know_sequences(call, text, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(text, workdir)
    call("sample", f"--workdir={workdir}", "--num=1")
    call("counterfactual", f"--workdir={workdir}", "--do=tokens[5]=17", "--num=1")
    metrics = last_json(call("evaluate", f"--workdir={workdir}"))
    assert (metrics["null"], metrics["takes"], metrics["before"]) == (1.0, 1.0, 0.0)
    assert 0 < metrics["heldout"]["bits_per_byte"]["value"] < 12
    assert call("report", f"--workdir={workdir}").code == 0
    page = (workdir / "report.html").read_text()
    for said in (
        "Bits per byte",
        "Null intervention",
        "counterfactual/counterfactual.txt",
        "samples/samples.txt",
        "causal()",
        "Gumbel-max",
    ):
        assert said in page, said
    assert "picture" not in page.partition("<header>")[2].partition("The whole config")[0], "text has none"


def test_a_bpe_run_goes_on_with_the_tokenizer_that_it_kept(call, refused, bpe, corpus, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(bpe, workdir)
    kept = (workdir / "data" / "tokenizer.json").read_bytes()
    answer = call("train", f"--workdir={workdir}", "--config.train.steps=3")
    assert answer.code == 0 and cg.restore(workdir).step == 3 and (workdir / "data" / "tokenizer.json").read_bytes() == kept
    before = corpus.read_text()
    try:
        corpus.write_text("wholly other words, again and again and again. " * 60)
        assert "differs from what this corpus gives" in refused("train", f"--workdir={workdir}", "--config.train.steps=4")
        answer = call("sample", f"--workdir={workdir}", "--num=1", "--prompt=year")
        assert answer.code == 0 and "---- 0 ----\nyear" in answer.out, "what a run draws needs no corpus"
    finally:
        corpus.write_text(before)
    metrics = last_json(call("counterfactual", f"--workdir={workdir}", "--do=tokens[5]=17", "--num=2"))
    assert (metrics["null"], metrics["before"]) == (1.0, 0.0)
    assert "|" in (workdir / "counterfactual" / "counterfactual.txt").read_text()


def test_pixels_are_answered_and_sampled_as_pictures(call, refused, pixels, tmp_path):
    metrics = last_json(call("counterfactual", f"--workdir={pixels}", "--do=tokens[5]=3", "--num=2", f"--out={tmp_path / 'cf'}"))
    assert (metrics["null"], metrics["before"]) == (1.0, 0.0) and not (tmp_path / "cf" / "counterfactual.txt").exists()
    with Image.open(tmp_path / "cf" / "grid.png") as picture:
        assert picture.size[0] > 300
    answer = call("sample", f"--workdir={pixels}", "--num=2", "--prompt=3,3", f"--out={tmp_path / 's'}")
    assert answer.code == 0 and "digit as in the first rows" in answer.err and (tmp_path / "s" / "grid.png").is_file()
    assert (np.load(tmp_path / "s" / "samples.npz")["tokens"][:, :2] == 3).all()
    assert "give numbers" in refused("sample", f"--workdir={pixels}", "--prompt=three")
    assert "are of numbers, not of text" in refused("counterfactual", f"--workdir={pixels}", "--do=text[0:1]=a")


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("counterfactual", ["--do=tokens[16]=1"], "no position 16 in a row; they are 0..15"),
        ("counterfactual", ["--do=tokens[5]=256"], "256 is no token"),
        ("counterfactual", ["--do=text[0:4]=19"], "the span has 4 bytes and the text 2"),
        ("counterfactual", ["--do=angle=20"], "write --do='tokens[5]=17'"),
        ("counterfactual", ["--shift=tokens[5]=1"], "cannot be shifted"),
        ("counterfactual", [], "write --do='tokens[5]=17'"),
        ("counterfactual", ["--do=tokens[5]=1", "--evidence={tmp}"], "has no image among its entries"),
        ("counterfactual", ["--do=tokens[5]=1", "--evidence={tmp}/latin.txt"], "not UTF-8 text"),
        ("counterfactual", ["--do=tokens[5]=1", "--evidence={tmp}/empty.txt"], "holds no text"),
        ("counterfactual", ["--do=tokens[5]=1", "--evidence={tmp}/short.txt"], "has 3 tokens a row, and tokens[5] lies beyond"),
        ("counterfactual", ["--do=tokens[5]=1", "--evidence={tmp}/some.npz"], "300 is outside of the vocabulary"),
        ("counterfactual", ["--do=tokens[5]=1", "--evidence={tmp}/some.csv"], "no column of numbers"),
        ("counterfactual", ["--do=tokens[5]=1", "--config.sampling.top_k=1"], "has probability 0 under sampling.top_k"),
        ("sample", ["--prompt=0123456789abcdef"], "16 tokens, but a row has 16 and one at least"),
        ("sample", ["--prompt=\udcff"], "not UTF-8 text"),
        ("sample", ["--prompt=abc", "--do=tokens[1]=1"], "position"),
    ],
)
def test_what_cannot_be_asked_of_a_text_is_one_line(refused, text, tmp_path, command, flags, said):
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "some.csv").write_text("tokens\n1\n")
    np.savez(tmp_path / "some.npz", tokens=np.full((1, LENGTH), 300))
    assert said in refused(command, f"--workdir={text}", *(flag.replace("{tmp}", str(tmp_path)) for flag in flags))


def test_a_span_of_text_is_refused_where_tokens_are_not_bytes(refused, bpe, trained):
    assert "BPE tokens, not of bytes" in refused("counterfactual", f"--workdir={bpe}", '--do=text[0:4]="1912"')
    assert "are about a sequence, and this model draws none" in refused("sample", f"--workdir={trained}", "--prompt=a")
