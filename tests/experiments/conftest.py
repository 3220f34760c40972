"""Commands are called in this process, on a toy run that is trained once a session."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

from experiments import cli

TOY = """
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict({
        "data": {"name": "pendulum", "size": 32, "test_size": 16, "image_size": 16},
        "model": {
            "name": "diffusion_ae",
            "graph": [["angle", "shadow_length"], ["light", "shadow_length"]],
            "nodes": ["angle", "light", "shadow_length"],
            "encoder": {"widths": (8, 8), "hidden": 0, "groups": 4},
            "unet": {"channels": 8, "multipliers": (1, 1), "groups": 4, "middle_attention": False},
            "mechanism_widths": (8,),
            "process": {"timesteps": 50},
        },
        "sampling": {"steps": 2},
        "train": {"steps": 2, "batch_size": 8},
        "log": {"every": 1, "pictures_every": 0},
        "evaluate": {"scenes": 2, "cycles": 1, "slider_scenes": 1, "slider_values": 2, "disentangle_images": 0},
    })
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capfd):
    """call("train", "--flag=value", ...) -> Answer; a command's exceptions other than the user's errors come through."""

    def run(name: str, *argv: str) -> Answer:
        capfd.readouterr()
        code = cli.main(importlib.import_module(f"experiments.{name}").COMMAND, argv)
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return run


@pytest.fixture
def refused(call):
    """refused("train", ...) -> the one line on stderr, after checking that it is one, and that the exit code is 2."""

    def run(name: str, *argv: str) -> str:
        answer = call(name, *argv)
        lines = [line for line in answer.err.splitlines() if line.startswith("error: ")]
        assert answer.code == 2 and len(lines) == 1 and "Traceback" not in answer.err, answer
        return lines[0]

    return run


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """A config file for a model of a few thousand parameters."""
    file = tmp_path_factory.mktemp("configs") / "toy.py"
    file.write_text(TOY)
    return file


@pytest.fixture(scope="session")
def trained(tmp_path_factory, toy) -> Path:
    """A workdir with two steps of training in it; not to be written to."""
    workdir = tmp_path_factory.mktemp("runs") / "toy"
    code = cli.main(importlib.import_module("experiments.train").COMMAND, [f"--config={toy}", f"--workdir={workdir}"])
    assert code == 0, "the toy run did not train; stderr says why"
    return workdir
