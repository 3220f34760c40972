"""The commands on a toy run: what they write, what they print last, and that they answer what was asked."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import causal_gen as cg


def last_json(answer):
    assert answer.code == 0, answer
    return json.loads(answer.out.strip().splitlines()[-1])


def test_train_leaves_a_workdir_and_says_what_comes_next(trained):
    held = {path.name for path in trained.iterdir()}
    assert {"config.json", "metadata.json", "metrics.jsonl", "checkpoints"} <= held
    config = json.loads((trained / "config.json").read_text())
    assert config["train"]["steps"] == 2 and config["train"]["schedule"] == "cosine", "defaults are written out"
    assert set(config["data"]["stats"]) >= {"angle", "light", "shadow_length"}


def test_train_goes_on_from_the_workdir_alone(call, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    answer = call("train", f"--workdir={workdir}", "--config.train.steps=3")
    assert answer.code == 0 and "3 steps of 8" in answer.out and "finished at step 3" in answer.out
    assert cg.restore(workdir).step == 3


def test_counterfactual_writes_answers_truth_and_picture(call, trained, tmp_path):
    answer = call("counterfactual", f"--workdir={trained}", "--do=angle=60", "--num=3", f"--out={tmp_path}")
    metrics = last_json(answer)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["num"] == 3 and metrics["factors"]["angle"]["counterfactual"] == pytest.approx(60, abs=1e-3)
    assert "warning: do(angle=60) lies outside" in answer.err and "counterfactuals of the fitted model" in answer.err
    arrays = np.load(tmp_path / "counterfactual.npz")
    for kind in ("factual", "reconstruction", "counterfactual", "truth"):
        assert arrays[f"{kind}_image"].shape == (3, 16, 16, 3) and arrays[f"{kind}_angle"].shape == (3,)
    np.testing.assert_allclose(arrays["truth_angle"], 60)
    np.testing.assert_allclose(metrics["truth_mae"], np.abs(arrays["counterfactual_image"] - arrays["truth_image"]).mean(), rtol=1e-4)
    np.testing.assert_array_equal(arrays["counterfactual_light"], arrays["reconstruction_light"])
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size[0] > 5 * 16


def test_ranges_add_an_axis_each_and_agree_with_single_questions(call, trained, tmp_path):
    grid, single = tmp_path / "grid", tmp_path / "single"
    last_json(call("counterfactual", f"--workdir={trained}", "--do=angle=-30:30:3", "--do=light=60:90:2", "--num=2", f"--out={grid}"))
    last_json(call("counterfactual", f"--workdir={trained}", "--do=angle=0", "--do=light=90", "--num=2", f"--out={single}"))
    many, one = np.load(grid / "counterfactual.npz"), np.load(single / "counterfactual.npz")
    assert many["counterfactual_image"].shape == (2, 3, 2, 16, 16, 3) and many["truth_image"].shape == (2, 3, 2, 16, 16, 3)
    np.testing.assert_array_equal(many["axis_angle"], [-30, 0, 30])
    np.testing.assert_allclose(many["counterfactual_image"][:, 1, 1], one["counterfactual_image"], atol=1e-6)


def test_a_shift_moves_every_scene_by_the_same_amount(call, trained, tmp_path):
    last_json(call("counterfactual", f"--workdir={trained}", "--shift=light=-5", "--num=3", f"--out={tmp_path}"))
    arrays = np.load(tmp_path / "counterfactual.npz")
    np.testing.assert_allclose(arrays["counterfactual_light"], arrays["reconstruction_light"] - 5, atol=1e-3)


def test_pictures_of_the_users_own_are_fitted_and_have_no_truth(call, trained, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.new("L", (40, 30), 128).save(folder / "a.png")
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(folder / "b.png")
    answer = call("counterfactual", f"--workdir={trained}", "--do=angle=1", f"--evidence={folder}", f"--out={tmp_path / 'out'}")
    assert "truth_mae" not in last_json(answer) and "resized to 16x16: a.png from 40x30" in answer.err
    arrays = np.load(tmp_path / "out" / "counterfactual.npz")
    assert "truth_image" not in arrays and arrays["factual_image"].shape == (2, 16, 16, 3)
    np.testing.assert_allclose(arrays["factual_image"][0], 128 / 255, atol=1e-6)
    np.testing.assert_allclose(arrays["factual_image"][1], 1.0, err_msg="transparency is laid on white")


def test_evidence_means_the_same_from_an_array_file_and_a_table(call, trained, tmp_path):
    answers = []
    first = tmp_path / "first"
    last_json(call("counterfactual", f"--workdir={trained}", "--do=angle=1", "--evidence=test:3:5", f"--out={first}"))
    factual = np.load(first / "counterfactual.npz")["factual_image"]
    np.savez(tmp_path / "some.npz", image=np.round(factual * 255).astype(np.uint8))
    for place, picture in enumerate(factual):
        Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(tmp_path / f"{place}.png")
    (tmp_path / "some.csv").write_text("image,angle\n0.png,1.5\n1.png,2.5\n")
    for name in ("counterfactual.npz", "some.npz", "some.csv"):
        path = first / name if name == "counterfactual.npz" else tmp_path / name
        out = tmp_path / name.replace(".", "_")
        last_json(call("counterfactual", f"--workdir={trained}", "--do=angle=1", f"--evidence={path}", f"--out={out}"))
        answers.append(np.load(out / "counterfactual.npz")["counterfactual_image"])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    np.testing.assert_allclose(answers[0], answers[2], atol=1e-4)


def test_sample_draws_under_an_intervention(call, trained, tmp_path):
    answer = call("sample", f"--workdir={trained}", "--num=3", "--do=angle=-10:10:2", f"--out={tmp_path}", "--config.sampling.steps=1")
    assert answer.code == 0 and (tmp_path / "grid.png").is_file()
    arrays = np.load(tmp_path / "samples.npz")
    assert arrays["image"].shape == (3, 2, 16, 16, 3)
    np.testing.assert_allclose(arrays["angle"], np.tile([-10.0, 10.0], (3, 1)), atol=1e-3)


def test_evaluate_prints_what_it_writes_and_report_reads_it(call, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    metrics = last_json(call("evaluate", f"--workdir={workdir}"))
    assert metrics == json.loads((workdir / "evaluate" / "metrics.json").read_text())
    assert metrics["scenes"] == 2 and set(metrics["do"]) == {"angle", "light", "shadow_length"}
    answer = call("report", f"--workdir={workdir}")
    assert answer.code == 0 and "<html" in (workdir / "report.html").read_text()


def test_a_run_restores_without_its_dataset(trained, tmp_path, monkeypatch):
    """Only the workdir is needed: the data is made when it is touched, and not before."""
    import causal_gen.data.pendulum as pendulum

    monkeypatch.setattr(pendulum.PendulumConfig, "make", lambda self: pytest.fail("the dataset was opened"))
    run = cg.restore(trained, {"sampling.steps": 1})
    assert run.step == 2 and run.model.sampling.steps == 1 and run.config["sampling"]["steps"] == 1
