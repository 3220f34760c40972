"""The search by Optuna: its samplers and pruners, and its storage, which is a journal file in the study's folder or a database.

Every argument of a sampler and a pruner is given here and recorded, since Optuna changes its defaults. A sampler is made anew for every
trial, with a seed of the study's seed and the trial's number: a study that is taken up again does not draw its first trials again.

Nothing is unpickled from a storage: samplers that keep their state that way (CMA-ES) are not offered, nor is Redis.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.command import LaunchError
from launch.search import Asked
from launch.space import Drawer

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {  # our name: Optuna's class, and what it is given
    "tpe": ("TPESampler", {"n_startup_trials": 10, "n_ei_candidates": 24, "multivariate": True, "constant_liar": True}),
    "qmc": ("QMCSampler", {"qmc_type": "sobol", "scramble": True, "warn_asynchronous_seeding": False}),
}
PRUNERS = ("none", "median", "halving", "hyperband")
PASSWORD = "CAUSAL_GEN_STORAGE_PASSWORD"  # where the password of a database is read from; PostgreSQL's own PGPASSWORD serves as well
SECRET = (PASSWORD, "PGPASSWORD")


def pruner_settings(name: str, steps: int) -> dict[str, Any]:
    """What a pruner of PRUNERS is given, for trials of so many steps."""
    if name == "median":
        return {"n_startup_trials": 5, "n_warmup_steps": steps // 10, "interval_steps": 1, "n_min_trials": 1}
    if name == "halving":
        return {"min_resource": max(steps // 16, 1), "reduction_factor": 4, "min_early_stopping_rate": 0, "bootstrap_count": 0}
    return {"min_resource": max(steps // 27, 1), "max_resource": steps, "reduction_factor": 3, "bootstrap_count": 0}


def load_optuna() -> Any:
    """The package. Raises LaunchError where it is not installed."""
    try:
        optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise LaunchError(
            f"this sampler, pruner or storage needs Optuna, which cannot be imported ({error}): pip install '.[sweep]', or give "
            "--sampler=random, grid or list"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def redacted(text: str, environ: Any = os.environ) -> str:
    """A text without any password that the environment holds, nor one written in an address."""
    for name in SECRET:
        if environ.get(name):
            text = text.replace(environ[name], "***")
    head, mark, rest = text.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    return f"{head}{mark}{user.partition(':')[0]}:***@{host}{slash}{path}" if at and ":" in user else text


def check_address(storage: str) -> None:
    """Raises LaunchError for an address that is none, or that holds a password, which every user of the machine could read."""
    if "://" not in storage:
        raise LaunchError(
            f"--storage={storage}: no address; write postgresql://USER@HOST/DATABASE, or leave it out for a journal in the study"
        )
    place = storage.partition("://")[2].partition("/")[0]
    if ":" in place.rpartition("@")[0] or "password=" in storage:
        raise LaunchError(
            f"--storage={redacted(storage)}: others can read a command line; give the password by {PASSWORD} in the environment"
        )


class OptunaSearch:
    """A study of Optuna's: `storage` is a file of its journal, or the address of a database in which the study is called `name`.

    With a `drawer` the settings are its own, and Optuna keeps them and prunes; without one the sampler `sampler` makes them.
    """

    def __init__(
        self,
        storage: str | Path,
        name: str,
        space: Any,
        sampler: str,
        pruner: str,
        *,
        seed: int,
        steps: int,
        goal: str,
        drawer: Drawer | None,
    ):
        self._optuna = load_optuna()
        self._storage, self._drawer, self._seed = storage, drawer, seed
        self._sampler = SAMPLERS[sampler] if drawer is None else ("RandomSampler", {})
        if sampler == "qmc":
            self._sampler = (self._sampler[0], {**self._sampler[1], "independent_sampler": self._optuna.samplers.RandomSampler(seed=seed)})
        kinds = {"median": "MedianPruner", "halving": "SuccessiveHalvingPruner", "hyperband": "HyperbandPruner", "none": "NopPruner"}
        given = {} if pruner == "none" else pruner_settings(pruner, steps)
        self._choices: dict[str, list[Any]] = {}
        self._distributions = {key: self._distribution(key, dist) for key, dist in space.items()} if not isinstance(space, list) else {}
        with self._lost("cannot be opened"):
            self._study = self._optuna.create_study(
                storage=self._open(storage),
                study_name=name,
                sampler=self._optuna.samplers.RandomSampler(seed=seed),
                pruner=getattr(self._optuna.pruners, kinds[pruner])(**given),
                direction=f"{goal}imize",
                load_if_exists=True,
            )
            frozen = self._study.get_trials(deepcopy=False)
        self._ids = {trial.number: trial._trial_id for trial in frozen}
        self._reported = {trial.number: max(trial.intermediate_values, default=-1) for trial in frozen}

    def _open(self, storage: str | Path) -> Any:
        storages = self._optuna.storages
        if isinstance(storage, str):
            url = importlib.import_module("sqlalchemy").make_url(storage)  # comes with Optuna
            if os.environ.get(PASSWORD):
                url = url.set(password=os.environ[PASSWORD])
            return storages.RDBStorage(url.render_as_string(hide_password=False), engine_kwargs={"pool_pre_ping": True})
        file = storage.absolute()  # the lock beside it is a link to it: one to a relative path leads nowhere, and would never be taken over
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)  # of a launcher that was killed: the study is held by this one
        if file.exists():
            whole = file.read_bytes()
            if not whole.endswith(b"\n"):  # half a line
                os.truncate(file, whole.rfind(b"\n") + 1)
        return storages.JournalStorage(storages.journal.JournalFileBackend(str(file)))

    @contextlib.contextmanager
    def _lost(self, what: str) -> Iterator[None]:
        """Whatever the storage raises, as one line without secrets."""
        try:
            if isinstance(self._storage, Path) and what != "cannot be opened" and not self._storage.is_file():
                raise FileNotFoundError(2, "it is gone")  # Optuna would begin another file
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except LaunchError:
            raise
        except Exception as error:  # drivers have errors of their own
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).strip().partition("\n")[0]
            if isinstance(error, ImportError):
                text, what = "its driver is not installed; for PostgreSQL pip install 'psycopg[binary]'", "cannot be opened"
            where = f"the study's {'journal' if isinstance(self._storage, Path) else 'storage'} {self._storage}"
            raise LaunchError(
                redacted(f"{where} {what} ({type(error).__name__}: {text}): see to it, then run the same command again")
            ) from None

    def _distribution(self, key: str, given: Any) -> Any:
        made = self._optuna.distributions
        if given["kind"] == "categorical":  # by number: a list is no category to Optuna, and 1 and True would be one
            self._choices[key] = given["choices"]
            return made.CategoricalDistribution(list(range(len(given["choices"]))))
        if given["kind"] == "integer":
            return made.IntDistribution(given["low"], given["high"], step=given["step"])
        return made.FloatDistribution(given["low"], given["high"], log=given["kind"] == "log_uniform")

    def asked(self) -> list[Asked]:
        with self._lost("cannot be read"):
            trials = self._study.get_trials(deepcopy=False)
        states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        return [
            Asked(
                t.number,
                self._params(t),
                states.get(t.state.name, "open"),
                t.value if t.state.name == "COMPLETE" else t.user_attrs.get("value"),
            )
            for t in trials
        ]

    def _params(self, trial: Any) -> dict[str, Any]:
        """A trial's setting; {} where a kill came while it was being written."""
        if self._drawer is not None:
            return self._drawer(trial.number) or {}
        if set(trial.params) != set(self._distributions):
            return {}
        return {key: self._choices[key][value] if key in self._choices else value for key, value in trial.params.items()}

    def ask(self) -> Asked | None:
        with self._lost("cannot be written"):
            number = len(self._study.get_trials(deepcopy=False))
            if self._drawer is None:
                name, given = self._sampler
                constant = name == "QMCSampler"  # its place in the sequence is in the storage, and the sequence is one for all trials
                seed = self._seed if constant else int.from_bytes(hashlib.sha256(f"{self._seed}/{number}".encode()).digest()[:4])
                self._study.sampler = getattr(self._optuna.samplers, name)(seed=seed, **given)
                trial = self._study.ask(self._distributions)
            else:
                params = self._drawer(number)
                if params is None:
                    return None
                trial = self._study.ask()
                trial.set_user_attr("params", params)  # for Optuna's own pages
            self._ids[trial.number], self._reported[trial.number] = trial._trial_id, -1
            return Asked(trial.number, self._params(self._study._storage.get_trial(trial._trial_id)))

    def report(self, number: int, step: int, value: float) -> None:
        if step > self._reported[number]:  # a trial that resumed writes some steps again
            with self._lost("cannot be written"):
                self._optuna.trial.Trial(self._study, self._ids[number]).report(value, step)
            self._reported[number] = step

    def pruned(self, number: int) -> bool:
        with self._lost("cannot be read"):
            return self._reported[number] >= 0 and self._optuna.trial.Trial(self._study, self._ids[number]).should_prune()

    def tell(self, number: int, state: str, value: float | None) -> None:
        states = self._optuna.trial.TrialState
        with self._lost("cannot be written"):
            if state != "complete":
                trial = self._optuna.trial.Trial(self._study, self._ids[number])
                if value is not None and not self._study._storage.get_trial(self._ids[number]).state.is_finished():
                    trial.set_user_attr("value", value)
                self._study.tell(number, state=states.PRUNED if state == "pruned" else states.FAIL, skip_if_finished=True)
            else:
                self._study.tell(number, value, skip_if_finished=True)
