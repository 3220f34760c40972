"""Causal generative models in JAX: one vocabulary for who depends on whom, one counterfactual for every family.

    import causal_gen as cg
    run = cg.restore("runs/demo")
    out = cg.counterfactual(run.model, run.params, key, evidence, cg.do(angle=20.0))

The names below are imported when first used (PEP 562), so that importing the package is quick and touches no device.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from causal_gen.build import build as build
    from causal_gen.build import load_config as load_config
    from causal_gen.build import restore as restore
    from causal_gen.build import train as train
    from causal_gen.scm.counterfactual import counterfactual as counterfactual
    from causal_gen.scm.counterfactual import sample as sample
    from causal_gen.scm.intervention import do as do
    from causal_gen.scm.intervention import shift as shift
    from causal_gen.scm.intervention import soft as soft
    from causal_gen.scm.intervention import stochastic as stochastic

__version__ = "0.1.0"

_HOMES = {
    "load_config": "causal_gen.build",
    "build": "causal_gen.build",
    "train": "causal_gen.build",
    "restore": "causal_gen.build",
    "counterfactual": "causal_gen.scm.counterfactual",
    "sample": "causal_gen.scm.counterfactual",
    "do": "causal_gen.scm.intervention",
    "shift": "causal_gen.scm.intervention",
    "soft": "causal_gen.scm.intervention",
    "stochastic": "causal_gen.scm.intervention",
}
__all__ = [*_HOMES, "__version__"]


class _Verb(ModuleType):
    """A submodule that shares its name with a function of build.py: calling the one calls the other."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function = getattr(importlib.import_module("causal_gen.build"), self.__name__.rpartition(".")[2])
        return function(*args, **kwargs)


class _Package(ModuleType):
    """Importing `causal_gen.train.loop` binds the name `train` to that module, which would hide the function `cg.train`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("build", "train") and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'causal_gen' has no attribute {name!r}; it offers {', '.join(_HOMES)}")
    if name in ("build", "train"):
        return importlib.import_module(f"causal_gen.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
