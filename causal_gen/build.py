"""The border: a config file, a `ConfigDict` or a workdir in; frozen dataclasses and built objects out.

    load_config("configs/x/y.py:mode", {"train.steps": 20})   ->  a locked ConfigDict
    build(config)                                             ->  Experiment
    train(experiment, workdir), restore(workdir)              ->  Run

Every section of a config is one frozen dataclass, whose fields are the schema (schema.py). The tables of names.py, an allow-list, are where
a name becomes a class, imported when asked for. A workdir is restored from its `config.json` and checkpoint alone: data, never code.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from ml_collections import ConfigDict

from causal_gen import schema
from causal_gen.data import kept
from causal_gen.data.placeholders import Described
from causal_gen.names import EVALUATION, NAMED, SAMPLING, SECTIONS
from causal_gen.types import ConfigError, GraphError, UserError, WorkdirError

if TYPE_CHECKING:
    from causal_gen.data.base import Source
    from causal_gen.models.base import Model
    from causal_gen.train.state import Run

KEPT = "data"  # the folder of a workdir for what was fitted before training


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """What a config describes. `config` is complete (defaults filled in), plain and JSON-able; the rest is built from it."""

    config: dict[str, Any]
    model: Model
    data: Source
    train: Any
    mesh: Any
    checkpoint: Any
    log: Any
    evaluate: Any


# -- configs -----------------------------------------------------------------------------------------------------------------


def load_config(path: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The locked config of `get_config(arg)` in the file `path`, "configs/x/y.py" or "configs/x/y.py:arg".

    `overrides` maps dotted paths to values; text is read by the type of the field it goes to ("none", "1e3", "yes", "1,2,2"). One that
    fits no field stays as it is, and `build` names it among all other problems. Raises `ConfigError` for a file that does not run.
    """
    file, _, arg = path.partition(".py:")
    file = file if not arg and not path.endswith(".py:") else file + ".py"
    found = _run_get_config(Path(file), arg)
    tree = found.to_dict() if isinstance(found, ConfigDict) else dict(found)
    config = ConfigDict(override(tree, overrides or {}), allow_dotted_keys=True)  # regexes of train.init_from may have dots
    return config.lock()


def override(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the nested `tree` with dotted paths replaced; names first, since they decide what the rest means.

    Raises `ConfigError` for a path that leads through a value.
    """
    tree = copy.deepcopy(dict(tree))
    for dotted in sorted(overrides, key=lambda dotted: not dotted.endswith(".name")):
        keys, value = tuple(dotted.split(".")), overrides[dotted]
        if isinstance(value, str):
            value = schema.parse(value, _hint(tree, keys)) if _hint(tree, keys) is not None else value
        node: Any = tree
        for depth, key in enumerate(keys[:-1]):
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{dotted}: {'.'.join(keys[: depth + 1])} is a value, not a section; override it as a whole")
        node[keys[-1]] = value
    return tree


def _run_get_config(file: Path, arg: str) -> Any:
    if not file.is_file():
        known = [str(other) for other in sorted(Path("configs").glob("*/*.py")) if other.name != "__init__.py"]
        hint = schema.suggest(str(file), known) if known else "give the path of a config file, from the repository root"
        raise ConfigError(f"config {file}: no such file; {hint}")
    spec = importlib.util.spec_from_file_location(f"_config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # whatever a config file does wrong is the user's to mend, in one line
        raise ConfigError(f"config {file}: does not run: {type(error).__name__}: {error}; mend the file") from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"config {file}: defines no get_config(arg); see configs/ for examples")
    try:
        return module.get_config(arg) if arg else module.get_config()
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"config {file}: get_config({arg!r}) failed: {type(error).__name__}: {error}") from error


def _resolve(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _schema_of(tree: Mapping[str, Any], section: str) -> Any:
    """The dataclass of a section, or None where its name is not in the tables."""
    if section == "sampling":
        model = tree.get("model")
        return _resolve(SAMPLING.get(str(model.get("name")) if isinstance(model, Mapping) else "", SECTIONS[section]))
    if section in SECTIONS:
        return _resolve(SECTIONS[section])
    body = tree.get(section)
    name = body.get("name") if isinstance(body, Mapping) else None
    target = NAMED.get(section, {}).get(name) if isinstance(name, str) else None
    return _resolve(target) if target else None


def _hint(tree: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    if keys[0] in NAMED and keys[1:] == ("name",):
        return str
    found = _schema_of(tree, keys[0])
    return schema.hint_at(found, keys[1:]) if found is not None and len(keys) > 1 else None


# -- objects -----------------------------------------------------------------------------------------------------------------


def build(config: ConfigDict | Mapping[str, Any]) -> Experiment:
    """Everything that a config describes, checked. Statistics of the data are fitted here unless `data.stats` holds them.

    Raises `ConfigError` with every problem at once: unknown keys (with the nearest known one), wrong types, values out of range or at odds.
    """
    tree = config.to_dict() if isinstance(config, ConfigDict) else copy.deepcopy(dict(config))
    parts, stats = _convert(tree)
    source = parts["data"].make()
    if stats is None:
        stats = json.loads(json.dumps(source.stats()))  # as a restored run will read it
    return _assemble(tree, parts, stats, source)


def outline(config: ConfigDict | Mapping[str, Any]) -> Experiment:
    """What `build` gives, without its data: nothing is downloaded, read or fitted, and where statistics are not in the config they are
    placeholders. Enough to trace and to compile, never to train. Raises `ConfigError` as `build` does."""
    tree = config.to_dict() if isinstance(config, ConfigDict) else copy.deepcopy(dict(config))
    parts, stats = _convert(tree)
    source = Described(tree["data"]["name"], parts["data"].entries)
    return _assemble(tree, parts, source.stats() if stats is None else stats, source)


def complete(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The checked config with every default filled in, as plain nested values; opens no data. Raises `ConfigError` as `build` does."""
    tree = config.to_dict() if isinstance(config, ConfigDict) else config
    return _to_tree(tree, _convert(tree)[0])


def _to_tree(tree: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    sections = {name: schema.to_tree(part) for name, part in parts.items()}
    return {name: {"name": tree[name]["name"], **body} if name in NAMED else body for name, body in sections.items()}


def _convert(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Every section as its dataclass, and `data.stats` where the tree holds it."""
    problems: list[str] = []
    sections = (*NAMED, *SECTIONS)
    for key in tree:
        if key not in sections:
            problems.append(f"{key}: unknown section; {schema.suggest(key, sections)}")
    parts, stats = {}, None
    for section in sections:
        body = tree.get(section, {})
        if not isinstance(body, Mapping):
            problems.append(f"{section}: expected a section, got {body!r}")
            continue
        body = dict(body)
        if section == "data":
            stats = body.pop("stats", None)
        if section in NAMED and not _check_name(section, body, problems):
            continue
        cls = _schema_of(tree, section)
        if "name" not in schema.hints_of(cls):
            body.pop("name", None)
        parts[section] = schema.convert(cls, body, section, problems)
    if problems:
        raise ConfigError(_with_homes(problems, tree))
    return parts, stats


def _check_name(section: str, body: Mapping[str, Any], problems: list[str]) -> bool:
    name, table = body.get("name"), NAMED[section]
    if name is None:
        problems.append(f"{section}.name: missing; known are {', '.join(table)}")
    elif name not in table:
        problems.append(f"{section}.name: unknown {name!r}; {schema.suggest(str(name), table)}")
    return name in table


def _with_homes(problems: list[str], tree: Mapping[str, Any]) -> list[str]:
    """A key that is known in another section is told where it lives."""
    homes: dict[str, list[str]] = {}
    for section in (*NAMED, *SECTIONS):
        cls = _schema_of(tree, section)
        for name in schema.hints_of(cls) if cls is not None else ():
            homes.setdefault(name, []).append(f"{section}.{name}")
    told = []
    for problem in problems:
        path, _, reason = problem.partition(": unknown key; known are ")
        home = homes.get(path.rpartition(".")[2]) if reason else None
        told.append(f"{path}: unknown key; did you mean {home[0]!r}?" if home else problem)
    return told


def _assemble(tree: Mapping[str, Any], parts: dict[str, Any], stats: dict[str, Any], source: Source) -> Experiment:
    config = _to_tree(tree, parts)
    config["data"]["stats"] = stats
    train = parts["train"]
    try:
        model = parts["model"].make(source.entries, stats, sampling=parts["sampling"], precision=train.precision, remat=train.remat)
    except GraphError as error:  # "graph: cycle a -> b -> a; ..." is about model.graph
        raise ConfigError(f"model.{error}") from error
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    rest = {name: parts[name] for name in ("train", "mesh", "checkpoint", "log", "evaluate")}
    return Experiment(config, model, source, **rest)


# -- runs --------------------------------------------------------------------------------------------------------------------


def train(experiment: Experiment, workdir: str | Path, profile: tuple[int, int] | None = None) -> Run:
    """Train into `workdir`, or go on where a run in it stopped. Raises `WorkdirError` if it holds another run, or one that goes on.

    `profile` are the first and last step to trace with JAX's profiler, into the workdir's `profile/`.
    """
    from causal_gen.evaluate.pictures import training_pictures
    from causal_gen.parallel import hosts
    from causal_gen.train.guard import check_workdir
    from causal_gen.train.loop import fit

    hosts.agree_on_run(experiment.config)
    check_workdir(Path(workdir), experiment.config)
    hosts.once(lambda: kept.store(Path(workdir) / KEPT, getattr(experiment.data, "files", {})))
    drawn = experiment.log.pictures_every > 0 and hasattr(experiment.model, "factors")
    return fit(
        experiment.model,
        experiment.data,
        Path(workdir),
        train=experiment.train,
        mesh=experiment.mesh,
        checkpoint=experiment.checkpoint,
        log=experiment.log,
        config=experiment.config,
        pictures=training_pictures(experiment.model, experiment.data) if drawn else None,
        argv=tuple(sys.argv),
        profile=profile,
    )


def stored_config(workdir: str | Path) -> dict[str, Any]:
    """The complete config of a workdir. Raises `WorkdirError` where there is none or it cannot be read."""
    folder = Path(workdir)
    file = folder / "config.json"
    if not file.is_file():
        beside = [str(path.parent) for path in sorted(folder.parent.glob("*/config.json"))] if folder.parent.is_dir() else []
        near = difflib.get_close_matches(str(folder), beside, n=1)
        hint = f"did you mean {near[0]}?" if near else "give the folder that was passed to train as --workdir"
        raise WorkdirError(f"workdir {folder}: not a workdir, it holds no config.json; {hint}")
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise WorkdirError(f"workdir {folder}: config.json cannot be read ({error}); restore it from metadata or a copy") from error


def reopen(workdir: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of a workdir, from its `config.json` alone; the data is opened when it is first touched."""
    tree = override(stored_config(workdir), overrides or {})
    parts, stats = _convert(tree)
    source: Any = kept.Deferred(parts["data"], Path(workdir) / KEPT, stats)
    return _assemble(tree, parts, source.stats() if stats is None else stats, source)


def restore(workdir: str | Path, overrides: Mapping[str, Any] | None = None, step: int | str | None = None) -> Run:
    """The model and its parameters (EMA where trained) from a workdir alone: the latest, those of `step`, or the "best".

    `overrides` changes its stored config, for instance {"sampling.steps": 25}. `run.data` is opened when it is first touched, so that a run
    restores where its dataset is gone. Parameters come to lie on the config's mesh as in training, whatever mesh they were saved from; a
    single device holds them all. Raises `WorkdirError`, `CheckpointError`, and `ConfigError` for a mesh that does not fit the devices.
    """
    from causal_gen.parallel import hosts, mesh, rules
    from causal_gen.train.checkpoint import load_params
    from causal_gen.train.state import Run

    experiment, folder = reopen(workdir, overrides), Path(workdir)
    abstract = jax.eval_shape(experiment.model.init, jax.random.key(0))
    hosts.agree_on_run(experiment.config)
    config = mesh.MeshConfig() if jax.device_count() == 1 else experiment.mesh
    abstract = rules.place(abstract, mesh.make_mesh(config), config.rules)
    params, found = load_params(folder, abstract, step, experiment.checkpoint)
    return Run(experiment.model, params, experiment.config, found, experiment.data, folder)


def section(config: Mapping[str, Any], name: str) -> Any:
    """One section of a complete config as its dataclass, for instance `section(run.config, "evaluate")`."""
    return _convert(config)[0][name]


def evaluate(run: Run, seed: int | None = None, progress: Callable[[str], Any] = print) -> dict[str, Any]:
    """What the command of that name measures of `run`, by its family and its config's section `evaluate`; written to its workdir.

    Of several processes each holds the parameters whole, since most parts read what they compute.
    """
    from causal_gen.parallel import hosts
    from causal_gen.parallel.mesh import current, replicate

    measure = _resolve(EVALUATION[run.config["model"]["name"]])
    if hosts.count() > 1:
        run = dataclasses.replace(run, params=replicate(run.params))
    with current(run.params):
        return measure(run, section(run.config, "evaluate"), seed, progress=progress)
