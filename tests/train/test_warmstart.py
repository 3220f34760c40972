"""Starting from another run: leaves arrive as they were saved, once, and stay recorded; what does not fit is told in a line."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from causal_gen.parallel.mesh import MeshConfig
from causal_gen.train.checkpoint import CheckpointConfig, load_params
from causal_gen.train.log import LogConfig
from causal_gen.train.loop import fit
from causal_gen.train.state import TrainConfig
from causal_gen.types import CheckpointError, ConfigError, WorkdirError
from tests.train.toy import CONFIG, ToyModel, ToySource


def run(workdir, init_from=None, steps=2, rate=1e-2, model=None):
    train = TrainConfig(steps=steps, batch_size=16, learning_rate=rate, ema_decay=0.9, init_from=init_from or {})
    log = LogConfig(every=1, eval_every=0, tensorboard=False)
    settings = {"mesh": MeshConfig(), "checkpoint": CheckpointConfig(every=1), "log": log, "config": CONFIG}
    return fit(model or ToyModel(), ToySource(), workdir, train=train, **settings)


def same(one, other):
    """To the rounding of an average of equals, which is what a run keeps."""
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return folder, jax.device_get(run(folder).params)


def test_what_is_named_is_taken_the_rest_is_fresh_and_a_resume_reads_no_source(source, tmp_path):
    """A rate of 0 keeps every parameter where it started; the source is gone when the run goes on."""
    folder, theirs = source
    away = tmp_path / "away"
    folder.rename(away)
    taken = jax.device_get(run(tmp_path / "new", {"^first": str(away)}, steps=1, rate=0.0).params)
    away.rename(folder)
    fresh = jax.device_get(run(tmp_path / "fresh", steps=1, rate=0.0).params)
    jax.tree.map(same, taken["first"], theirs["first"])
    np.testing.assert_array_equal(taken["second"]["kernel"], fresh["second"]["kernel"])
    assert (taken["first"]["kernel"] != fresh["first"]["kernel"]).any()
    origin = {"^first": {"workdir": str(away), "step": 2, "leaves": 2}}
    assert json.loads((tmp_path / "new" / "metadata.json").read_text())["init_from"] == origin
    run(tmp_path / "new", {"^first": str(away)}, steps=2, rate=0.0)  # its folder is no longer there
    assert json.loads((tmp_path / "new" / "metadata.json").read_text())["init_from"] == origin
    abstract = jax.eval_shape(ToyModel().init, jax.random.key(0))
    jax.tree.map(same, load_params(tmp_path / "new", abstract)[0]["first"], theirs["first"])


def test_a_subtree_stands_for_what_the_regex_found(source, tmp_path):
    folder, theirs = source
    model = ToyModel(width=1)
    with pytest.raises(ConfigError, match=r"first/bias is \(8,\) in .*, \(1,\) in this config"):
        run(tmp_path / "a", {"^first": str(folder)}, model=model)
    with pytest.raises(ConfigError, match=r"holds no third/kernel, for second/kernel; its entries are first, second, state"):
        run(tmp_path / "b", {"^second": f"{folder}:third"})
    there = run(tmp_path / "c", {"^second": f"{folder}:second"}, steps=1, rate=0.0)
    same(there.params["second"]["kernel"], theirs["second"]["kernel"])


def test_what_cannot_be_taken_is_told_in_a_line(source, tmp_path):
    with pytest.raises(WorkdirError, match="train.init_from '\\^first': .*nowhere is no workdir of a trained run"):
        run(tmp_path / "a", {"^first": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match="train.init_from 'third' is found in no parameter; they begin with first, second, state"):
        run(tmp_path / "b", {"third": str(source[0])})
    with pytest.raises(ConfigError, match=r"init_from '\(' is no regular expression"):
        TrainConfig(init_from={"(": "x"})
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="train.init_from 'first': no checkpoint"):
        run(tmp_path / "c", {"first": str(tmp_path / "empty")})
