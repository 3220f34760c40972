"""What is built without data: the same model, over statistics that nobody measured."""

from __future__ import annotations

import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from configs_at_hand import CONFIGS, FIRST, ROOT, tiny

from causal_gen.build import load_config, outline
from causal_gen.data.placeholders import Described
from causal_gen.types import DataError, Entry

QUICK = {*FIRST, "configs/diffusion_ae/morphomnist.py", "configs/causal_transformer/pod.py"}
WORKED = [pytest.param(path, id=Path(path).stem, marks=() if path in QUICK else pytest.mark.slow) for path in CONFIGS]


@pytest.mark.parametrize("path", WORKED)
def test_a_full_config_is_outlined_without_its_data_and_has_its_parameters(path, monkeypatch):
    """Their number is that of the golden text, which comes from the built model; data.root is a folder that does not exist."""
    golden = ROOT / "tests" / "golden" / f"{Path(path).parent.name}_{Path(path).stem}.txt"
    known = re.search(r"\[full\]\nparameters = ([\d,]+)", golden.read_text())
    config = load_config(path)
    if "root" in config.data or config.data.name in ("morphomnist", "pixels", "text"):
        config = load_config(path, {"data.root": "no/such/folder"})
    shapes = jax.eval_shape(outline(config).model.init, jax.random.key(0))
    assert known and sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == int(known[1].replace(",", ""))


@pytest.mark.parametrize("path", FIRST)
def test_statistics_in_the_config_are_used_as_they_are(path):
    built = tiny(path)
    again = outline(built.config)
    assert again.model == built.model and again.config == built.config


@pytest.mark.parametrize("path", FIRST)
def test_batches_are_described_as_they_come(path):
    """Entries, shapes and dtypes of a described source are those of the rows that the real one gives."""
    rows = tiny(path).data.gather("train", np.arange(2))
    entries = outline(load_config(f"{path}:tiny")).data.entries
    assert {name: ((2, *entry.shape), np.dtype(entry.dtype)) for name, entry in entries.items()} == {
        name: (value.shape, value.dtype) for name, value in rows.items()
    }


def test_placeholders_are_the_uniform_law_on_the_support():
    entries = {"angle": Entry((), low=-30.0, high=30.0), "free": Entry(()), "image": Entry((4, 4, 1))}
    stats = Described("made up", entries).stats()
    assert list(stats) == ["angle", "free"]
    assert (stats["angle"]["low"], stats["angle"]["high"], stats["free"]["low"], stats["free"]["high"]) == (-30.0, 30.0, 0.0, 1.0)
    assert np.isclose(stats["angle"]["std"], 60 / math.sqrt(12), rtol=0.05)


def test_its_rows_are_asked_for_in_vain():
    with pytest.raises(DataError, match="described, not opened"):
        Described("made up", {}).gather("train", np.arange(2))
