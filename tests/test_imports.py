"""The import arrows of the house, read from the syntax trees, and how little `import causal_gen` costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DIRECT = {  # room -> rooms it may import; whatever those may import comes with them
    "types": (),
    "schema": ("types",),
    "structure": ("types",),
    "process": ("types",),
    "scm": ("structure",),
    "nn": ("structure",),
    "losses": ("structure", "process"),
    "sampling": ("structure", "process"),
    "data": ("structure", "scm"),
    "models": ("structure", "process", "scm", "nn", "losses", "sampling"),
    "parallel": ("types",),
    "train": ("models", "data", "parallel"),
    "evaluate": ("train", "scm"),
    "names": (),
    "build": ("evaluate", "schema", "names"),
    "experiments": ("build",),
    "__init__": ("build",),
}
HOMES = {  # package -> where it may be imported
    "flax": ("causal_gen/nn/", "causal_gen/models/"),
    "ml_collections": ("configs/", "causal_gen/build.py", "experiments/"),
    "absl": ("experiments/",),
    "orbax": ("causal_gen/train/checkpoint.py",),
    "safetensors": ("causal_gen/train/export.py",),
    "tensorflow_datasets": ("causal_gen/data/",),
    "tokenizers": ("causal_gen/data/tokenizer.py",),
    "pyarrow": ("causal_gen/data/table.py",),
    "optuna": ("launch/",),
    "tensorflow": (),
    "torch": ("experiments/benchmark_peer.py",),
}


def allowed(room: str) -> set[str]:
    found, queue = {room}, [room]
    while queue:
        for other in DIRECT[queue.pop()]:
            if other not in found:
                found.add(other)
                queue.append(other)
    return found


def imports(source: str) -> list[str]:
    """Dotted names of everything imported, also inside functions; `from a import b` counts as a.b."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def violations(path: str, source: str) -> list[str]:
    parts = Path(path).with_suffix("").parts
    room = parts[1] if parts[0] == "causal_gen" else parts[0]
    wrong = []
    for name in imports(source):
        top, *rest = name.split(".")
        if top == "causal_gen" and rest and room in DIRECT:
            other = rest[0] if rest[0] in DIRECT else "__init__"
            if other not in allowed(room):
                wrong.append(f"{path} imports {name}: {room} may not import {other}")
        if top in HOMES and not path.startswith(HOMES[top] or ("-",)):
            wrong.append(f"{path} imports {name}: {top} belongs to {', '.join(HOMES[top]) or 'nobody'}")
        if room == "launch" and top in ("jax", "causal_gen"):
            wrong.append(f"{path} imports {name}: launch/ runs where neither is installed")
        if room != "experiments" and top in ("experiments", "launch", "configs") and top != room:
            wrong.append(f"{path} imports {name}")
    return wrong


def test_arrows_hold():
    wrong = []
    for top in ("causal_gen", "experiments", "configs", "launch"):
        for file in sorted((ROOT / top).rglob("*.py")):
            wrong += violations(file.relative_to(ROOT).as_posix(), file.read_text())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("causal_gen/sampling/x.py", "from causal_gen.models.base import Model"),
        ("causal_gen/losses/x.py", "import causal_gen.nn.unet"),
        ("causal_gen/models/x.py", "def f():\n    from causal_gen.train import loop"),
        ("causal_gen/process/x.py", "from causal_gen import build"),
        ("causal_gen/train/loop.py", "import orbax.checkpoint as ocp"),
        ("causal_gen/losses/x.py", "from flax import linen"),
        ("causal_gen/train/x.py", "from ml_collections import ConfigDict"),
        ("causal_gen/build.py", "from absl import flags"),
        ("causal_gen/data/x.py", "import torch"),
        ("causal_gen/build.py", "from experiments import cli"),
        ("launch/x.py", "import jax"),
        ("launch/x.py", "def f():\n    from causal_gen.types import UserError"),
    ],
)
def test_a_wrong_arrow_is_seen(path, source):
    assert len(violations(path, source)) == 1


def probe(code: str) -> dict:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def test_importing_the_package_is_light_and_touches_no_device():
    """Heavy packages stay out, no backend is started, and it costs less than 0.3 s over jax (best of three, machines being shared)."""
    code = """
import json, sys, time
import jax
start = time.perf_counter()
import causal_gen as cg
cg.do, cg.shift, cg.soft, dir(cg)
seconds = time.perf_counter() - start
from jax._src import xla_bridge
heavy = [n for n in ("flax", "orbax", "tensorflow", "tensorflow_datasets", "torch", "optuna", "matplotlib", "sklearn") if n in sys.modules]
print(json.dumps({"seconds": seconds, "heavy": heavy, "backends": len(xla_bridge._backends)}))
"""
    found = [probe(code) for _ in range(3)]
    assert all(run["heavy"] == [] and run["backends"] == 0 for run in found)
    assert min(run["seconds"] for run in found) < 0.3


def test_verbs_stay_functions_after_their_rooms_are_imported():
    """`causal_gen.train` is a room and `cg.train` a function; importing the one must not hide the other."""
    code = """
import json
import causal_gen.train.state, causal_gen.build
import causal_gen as cg
try:
    cg.build({"nonsense": {}})
except cg.build.ConfigError as error:
    said = str(error)
print(json.dumps({"said": said, "train": callable(cg.train), "room": cg.train.state.__name__}))
"""
    found = probe(code)
    assert "nonsense: unknown section" in found["said"] and found["train"] and found["room"] == "causal_gen.train.state"


def test_an_unknown_attribute_is_named():
    import causal_gen

    with pytest.raises(AttributeError, match="has no attribute 'couterfactual'"):
        causal_gen.couterfactual  # noqa: B018
