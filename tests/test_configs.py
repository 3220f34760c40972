"""Every config loads, is locked, builds, and says what its golden text says (pytest --update-golden writes that anew)."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import pytest
from configs_at_hand import CONFIGS, FIRST, ROOT, modes

from causal_gen.build import build, complete, load_config
from causal_gen.types import ConfigError

GOLDEN = Path(__file__).parent / "golden"
# what makes a full config's data small; models and everything else stay as they are
SMALL = {
    "pendulum": {"data.size": 64, "data.test_size": 16},
    "morphomnist": {"data.size": 64, "data.test_size": 16, "data.standin": True},
    "text": {"data.size": 64, "data.test_size": 16, "data.documents": 4},
    "tagging": {"data.size": 64, "data.test_size": 16},
    "pairs": {"data.size": 64, "data.test_size": 16},
    "pixels": {"data.size": 64, "data.test_size": 16, "data.standin": True},
    "copy": {"data.size": 64, "data.test_size": 16},
    "video": {"data.size": 64, "data.test_size": 16},
    "objects": {"data.size": 64, "data.test_size": 16},
    "arrow": {"data.size": 64, "data.test_size": 16},
    "soundtrack": {"data.size": 64, "data.test_size": 16},
    "needles": {"data.size": 64, "data.test_size": 16},
    "scratchpad": {"data.size": 64, "data.test_size": 16},
    "demonstrations": {"data.size": 64, "data.test_size": 16},
    "references": {"data.size": 64, "data.test_size": 16},
    "triplets": {"data.size": 64, "data.test_size": 16},
    "markov": {"data.size": 64, "data.test_size": 16},
    "enumerable": {"data.size": 64, "data.test_size": 16},
    "grammar": {"data.size": 64, "data.test_size": 16},
    "facts": {"data.size": 64, "data.test_size": 16},
    "reversal": {"data.size": 64, "data.test_size": 16},
    "confounded": {"data.size": 64, "data.test_size": 16},
    "wired": {"data.size": 64, "data.test_size": 16},
    "scm": {"data.size": 64, "data.test_size": 16},
    "contexts": {"data.size": 64, "data.test_size": 16},
    "table": {"data.test_share": 0.2},
    "sudoku": {"data.size": 64, "data.test_size": 16},
    "codec": {"data.size": 64, "data.test_size": 16},
    "programs": {"data.size": 64, "data.test_size": 16},
}


def leaves(tree: Any, path: str = "") -> dict[str, str]:
    if isinstance(tree, dict):
        return {key: text for name, value in tree.items() for key, text in leaves(value, f"{path}.{name}" if path else name).items()}
    return {path: json.dumps(tree)}


def text_of(path: str) -> str:
    """Every leaf of the full config, and for the other modes those that differ, each mode with its number of parameters."""
    full = leaves(complete(load_config(path)))
    lines = []
    for mode in modes(path):
        found = leaves(complete(load_config(f"{path}:{mode}")))
        lines += [f"[{mode or 'full'}]", f"parameters = {count(path, mode):,}"]
        lines += [f"{key} = {value}" for key, value in found.items() if not mode or full.get(key) != value]
    return "\n".join(lines) + "\n"


def experiment(path: str, mode: str):
    config = load_config(f"{path}:{mode}")
    return build(load_config(f"{path}:{mode}", SMALL[config.data.name]))


def count(path: str, mode: str) -> int:
    shapes = jax.eval_shape(experiment(path, mode).model.init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: Path(path).stem)
def test_a_config_is_what_its_golden_text_says(path, update_golden):
    file = GOLDEN / f"{Path(path).parent.name}_{Path(path).stem}.txt"
    text = text_of(path)
    if update_golden:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.is_file(), f"{file.name} is missing: run pytest tests/test_configs.py --update-golden and read the difference"
    assert text == file.read_text(), f"{path} has changed: if it was meant to, run pytest tests/test_configs.py --update-golden"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: Path(path).stem)
def test_a_config_is_locked_has_a_tiny_mode_and_says_how_to_run_it(path):
    assert "tiny" in modes(path)
    config = load_config(path)
    assert config.is_locked
    with pytest.raises(AttributeError):
        config.train.stepz = 3
    text = (ROOT / path).read_text()
    assert f"python -m experiments.train --config={path}" in text.split('"""')[1]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: Path(path).stem)
def test_a_built_config_builds_again_from_what_it_stores(path):
    """config.json is complete: it needs no file of configs/, nor the data's statistics anew."""
    first = experiment(path, "tiny")
    stored = json.loads(json.dumps(first.config))
    again = build(stored)
    assert again.config == first.config == stored and again.model == first.model and again.train == first.train


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: Path(path).stem)
def test_every_leaf_can_be_overridden_by_its_own_text(path):
    """Whatever config.json holds, written on a command line as text, means the same: optional fields and tuples too."""
    plain = complete(load_config(f"{path}:tiny"))
    texts = {key: value if not value.startswith('"') else json.loads(value) for key, value in leaves(plain).items()}
    assert complete(load_config(f"{path}:tiny", texts)) == plain


def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown mode 'tinny'; the modes are .*tiny"):
        load_config(f"{FIRST[0]}:tinny")


def test_problems_of_all_sections_come_at_once():
    wrong = {
        "train.stepz": 1,
        "data.size": True,
        "model.unet.channels": "x",
        "sampling.encode": "sideways",
        "mesh": {"data": -1, "fsdp": -1},
    }
    with pytest.raises(ConfigError) as caught:
        build(load_config(f"{FIRST[0]}:tiny", wrong))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "data.size", "model.unet.channels", "sampling.encode", "train.stepz", "mesh",
    ]  # fmt: skip


def test_the_readmes_table_of_hybrids_names_every_config_and_no_other():
    table = (ROOT / "README.md").read_text().partition("## One network, any order")[2].partition("\n## ")[0]
    named = [name for line in table.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+\.py)`", line.split("|")[1])]
    assert sorted(named) == sorted(Path(path).name for path in CONFIGS if Path(path).parent.name == "hybrid_transformer")
