"""What users get wrong: each is one line that names cause, place and way out, with exit code 2, and nothing is lost."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

CONFIG = "--config={toy}"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.stepz=3", "train.stepz: unknown key; did you mean 'steps'?"),
        ("omega=3", "omega: unknown section"),
        ("train.omega=3", "train.omega: unknown key; did you mean 'sampling.omega'?"),
        ("train.steps=many", "train.steps: expected int, got 'many'"),
        ("train.steps=true", "train.steps: expected int, got 'true'"),
        ("train.steps=0", "train.steps: must be at least 1, got 0"),
        ("train.accumulate=3", "train: batch_size=8 must be a multiple of accumulate=3"),
        ("train.steps.more=3", "train.steps is a value, not a section"),
        ("model.name=difusion_ae", "model.name: unknown 'difusion_ae'; did you mean 'diffusion_ae'?"),
        ("model.unet.channels=7", "model.unet: channels 7 do not divide"),
        ('model.graph=[["angle","light"],["light","angle"]]', "model.graph: cycle"),
        ('model.graph=[["angle","ligth"]]', "'ligth' is not in the data"),
        ("sampling.encode=invrt", "did you mean 'invert'?"),
        ("sampling.steps=99", "sampling.steps must lie in 1..50"),
        ("mesh.data=3", "do not multiply to the 8 devices"),
        ("mesh.slices=3", "do not multiply to the 8 devices"),
        ("mesh.tensro=2", "mesh.tensro: unknown key; did you mean 'tensor'?"),
        ('mesh.rules=[["(",[]]]', "mesh: rules: '(' is no regular expression"),
        ('mesh.rules=[["unte/",[null]]]', "rule 'unte/' of mesh.rules matches no parameter"),
        ("train.batch_size=12", "train.batch_size=12 does not split into 8 devices (mesh.data x mesh.fsdp)"),
    ],
)
def test_a_config_that_does_not_build(refused, toy, tmp_path, override, said):
    workdir = tmp_path / "run"
    assert said in refused("train", f"--config={toy}", f"--workdir={workdir}", f"--config.{override}")
    assert not (workdir / "config.json").exists(), "nothing is left behind that would count as a run"


def test_a_length_that_a_ring_does_not_divide(refused, tmp_path):
    ring = ["--config.model.transformer.backend=ring", "--config.mesh.data=1", "--config.mesh.sequence=8", "--config.data.length=20"]
    said = refused("train", "--config=configs/causal_transformer/text.py:tiny", f"--workdir={tmp_path / 'run'}", *ring)
    assert "20 queries do not divide over mesh.sequence=8" in said
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_mesh_that_does_not_fit_a_trained_run(refused, trained):
    for command, *extra in (("sample",), ("counterfactual", "--do=angle=1"), ("evaluate",)):
        said = refused(command, f"--workdir={trained}", "--config.mesh.data=3", *extra)
        assert "mesh.data=3" in said and "8 devices" in said


def test_all_problems_of_a_config_are_named_in_one_line(refused, toy, tmp_path):
    said = refused(
        "train", f"--config={toy}", f"--workdir={tmp_path}", "--config.train.stepz=3", "--config.data.size=-1", "--config.log.every", "x"
    )
    assert all(path in said for path in ("train.stepz: unknown", "data.size: must be at least", "log.every: expected int"))


def test_a_config_file_that_is_missing_or_broken(refused, tmp_path):
    assert "no such file" in refused("train", "--config=configs/nowhere.py:tiny", f"--workdir={tmp_path}")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(arg:\n")
    assert "does not run: SyntaxError" in refused("train", f"--config={broken}", f"--workdir={tmp_path}")
    broken.write_text("x = 1\n")
    assert "defines no get_config" in refused("train", f"--config={broken}", f"--workdir={tmp_path}")
    broken.write_text("def get_config(arg=''):\n    raise ValueError(f'unknown mode {arg!r}')\n")
    assert "unknown mode 'tinny'" in refused("train", f"--config={broken}:tinny", f"--workdir={tmp_path}")


def test_a_workdir_of_another_run_is_refused_and_kept(refused, call, toy, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    said = refused("train", f"--config={toy}", f"--workdir={workdir}", "--config.model.block=2")
    assert "model.block" in said
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["sample", "counterfactual", "evaluate", "report"])
def test_a_folder_that_is_no_workdir(refused, tmp_path, command):
    extra = ["--do=angle=1"] if command == "counterfactual" else []
    said = refused(command, f"--workdir={tmp_path / 'nothing'}", *extra)
    assert "not a workdir" in said and "nothing" in said


def test_a_workdir_one_letter_off_is_named(refused, trained):
    assert f"did you mean {trained}?" in refused("evaluate", f"--workdir={trained}s")


def test_a_workdir_without_a_checkpoint_or_with_a_broken_config(refused, trained, tmp_path):
    shutil.copy(trained / "config.json", tmp_path / "config.json")
    assert "no checkpoint" in refused("sample", f"--workdir={tmp_path}")
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read" in refused("sample", f"--workdir={tmp_path}")


def test_a_workdir_that_cannot_be_written(refused, toy, tmp_path):
    (tmp_path / "file").write_text("")
    assert "give another --workdir" in refused("train", f"--config={toy}", f"--workdir={tmp_path / 'file' / 'run'}")


def test_an_answer_that_cannot_be_written(refused, trained, tmp_path):
    (tmp_path / "file").write_text("")
    said = refused("counterfactual", f"--workdir={trained}", "--do=angle=1", "--num=1", f"--out={tmp_path / 'file' / 'out'}")
    assert "choose another folder" in said


def test_another_network_than_the_checkpoints(refused, trained):
    said = refused("sample", f"--workdir={trained}", "--config.model.unet.channels=16")
    assert "of another model" in said


@pytest.mark.parametrize("command", ["sample", "evaluate", "export", "train"])
def test_checkpoints_of_which_none_is_whole(refused, trained, tmp_path, command):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    (workdir / "checkpoints" / "2" / "ema" / "_METADATA").write_bytes(b"")
    before = {path.name for path in (workdir / "checkpoints").iterdir()}
    said = refused(command, f"--workdir={workdir}")
    assert "is whole (2: ema" in said and "restore a copy" in said
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == before


def test_a_missing_data_folder(refused, toy, tmp_path):
    said = refused(
        "train", f"--config={toy}", f"--workdir={tmp_path / 'run'}", "--config.data", json.dumps({"name": "morphomnist", "root": "no/such"})
    )
    assert "no/such" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--do=angel=20"], "unknown factor 'angel'; did you mean 'angle'?"),
        (["--do=image=20"], "unknown factor 'image'"),
        (["--do=tokens[5]=17"], "unknown factor 'tokens[5]'"),
        ([], "--do, --shift or --soft is missing"),
        (["--do=angle=1", "--evidence=test:0:99"], "the split holds rows 0:16"),
        (["--do=angle=1", "--evidence=valid:0:2"], "unknown split 'valid'"),
        (["--do=angle=1", "--evidence=no/such.png"], "no such file or folder"),
    ],
)
def test_a_question_that_cannot_be_asked(refused, trained, flags, said):
    assert said in refused("counterfactual", f"--workdir={trained}", *flags)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"not a picture", "not a picture that can be read"),
        ("a.npz", b"not an archive", "not an .npz of plain arrays"),
        ("a.csv", b"colour,size\n1,2\n", "no column of"),
        ("a.csv", b"angle\n1\n", "entry 'image' is missing; abduction needs image"),
        ("a.csv", b"angle\nwide\n", "column 'angle', row 1: 'wide' is no number"),
        ("a.txt", b"", "cannot read .txt"),
    ],
)
def test_evidence_that_is_none(refused, trained, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert said in refused("counterfactual", f"--workdir={trained}", "--do=angle=1", f"--evidence={tmp_path / name}")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "has shape (2, 8, 8, 3); the model takes [b, 16, 16, 3]"),
        (np.full((2, 16, 16, 3), 200.0), "give floats in 0..1, or uint8"),
        (np.zeros((0, 16, 16, 3), np.float32), "has shape (0"),
    ],
)
def test_evidence_of_the_wrong_shape_or_range(refused, trained, tmp_path, array, said):
    np.savez(tmp_path / "a.npz", image=array)
    assert said in refused("counterfactual", f"--workdir={trained}", "--do=angle=1", f"--evidence={tmp_path / 'a.npz'}")


def test_a_folder_without_pictures(refused, trained, tmp_path):
    assert "holds no picture" in refused("counterfactual", f"--workdir={trained}", "--do=angle=1", f"--evidence={tmp_path}")


@pytest.mark.parametrize("window", ["10", "15:10", "0:3", "a:b"])
def test_a_profile_window_that_is_none(refused, toy, tmp_path, window):
    said = refused("train", f"--config={toy}", f"--workdir={tmp_path / 'run'}", f"--profile={window}")
    assert f"--profile={window}: write FIRST:LAST" in said


@pytest.mark.slow
def test_a_model_that_makes_a_nan_is_told_of_by_its_operation(refused, toy, tmp_path):
    """A rate so high that the second step's pictures overflow."""
    flags = ["--debug_nans", "--config.train.learning_rate=1e30", "--config.train.clip_norm=none", "--config.train.steps=6"]
    said = refused("train", f"--config={toy}", f"--workdir={tmp_path / 'run'}", *flags)
    assert "nan" in said and "encountered in" in said and "causal_gen" in said
