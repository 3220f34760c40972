"""What every command shares: flags, config overrides, one-line errors, and the environment that XLA wants on a CPU.

Nothing here imports jax, so that --help and a mistyped flag answer at once. A command is a module with a `COMMAND`; its
work is imported inside `run`. Exit codes: 0 done (or stopped and saved), 2 something that the user can mend, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import os
import platform
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

_OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_USER_ERRNO = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)

# XLA takes its temporaries from malloc at every step, and glibc returns large blocks to the kernel, so that each step
# faults its pages in anew. Large pages that are kept make a U-Net step about a quarter faster (SYSTEMS.md).
ALLOCATOR = {
    "glibc.malloc.hugetlb": "1",
    "glibc.malloc.mmap_max": "0",
    "glibc.malloc.trim_threshold": "100000000000",
    "glibc.malloc.arena_max": "1",  # other arenas are unmapped whenever they are empty: each step of several devices maps them again
}
_ACCELERATORS = ("/dev/nvidia0", "/dev/accel0", "/dev/kfd")
_TUNED = "CAUSAL_GEN_ALLOCATOR_TUNED"  # set in the environment of the process that was started anew


class UsageError(Exception):
    """A command line that cannot be meant: one line with the way out."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: its module's name, what it does (first line: a summary), an example, its flags, and the work itself.

    `run` is given the parsed flags and the overrides {dotted path: text} of all `--config.a.b=value`. `tune` says
    whether the process is worth starting anew with the allocator setting, `spread` whether it may cut a CPU into several devices,
    `hosts` whether it may be one of several processes that do the work together.
    """

    name: str
    text: str | None
    example: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[Any, dict[str, str]], None]
    tune: bool = False
    spread: bool = False
    hosts: bool = False


def start(command: Command) -> NoReturn:
    """Run a command as a process of its own: `python -m experiments.NAME ...`."""
    environment = allocator_environment(sys.argv[1:], os.environ) if command.tune else None
    if environment is not None and not _wants_help(sys.argv[1:]):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    try:
        code = main(command, sys.argv[1:], prepare=_keep_compiled_programs)
        _part(code)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`| head`) has seen enough; nothing is left to flush at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _part(code := 141)
    except Exception:
        if not _several():
            raise
        sys.modules["causal_gen.parallel.interrupt"].wait_if_ending()
        traceback.print_exc()
        _part(code := 1)
    sys.exit(code)


def _several() -> bool:
    """Whether this process has joined others."""
    hosts = sys.modules.get("causal_gen.parallel.hosts")
    return hosts is not None and hosts.count() > 1


def _part(code: int) -> None:
    """Leave the other processes, if there are any: after all of them where all is well, at once where not."""
    if _several():
        from causal_gen.parallel import hosts

        hosts.abandon(code) if code else hosts.leave()


def main(command: Command, argv: Sequence[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Run a command on `argv` (without the program's name) in this process and return its exit code.

    `prepare` is called once the flags are understood, before the work.
    """
    values = flags.FlagValues()
    command.define(values)
    if command.tune:
        flags.DEFINE_boolean("no-allocator-tuning", False, "do not start anew with glibc's allocator set for XLA", flag_values=values)
    if command.spread:
        text = "cut the CPU into so many devices, over which the mesh spreads; one a core is faster for transformers"
        flags.DEFINE_integer("cpu-devices", None, text, lower_bound=1, flag_values=values)
    if command.hosts:
        _hosts_flags(values)
    if _wants_help(argv):
        print(help_text(command, values))
        return 0
    try:
        rest, overrides = split_overrides(argv)
        _parse(values, rest)
        prepare()
        if command.spread and values["cpu-devices"].value:
            import jax

            jax.config.update("jax_num_cpu_devices", values["cpu-devices"].value)
        with _connected(values) if command.hosts else contextlib.nullcontext():
            command.run(values, overrides)
        return 0
    except UsageError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in _USER_ERRNO:
            raise
        return _fail(f"{error.filename or 'disk'}: {error.strerror}; free space or choose another folder")
    except Exception as error:
        from causal_gen.types import UserError

        if not isinstance(error, UserError):
            raise
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Takes `--config.a.b=value` and `--config.a.b value` out of `argv`: the rest, and {"a.b": "value"}."""
    rest, overrides, tokens = [], {}, iter(argv)
    for token in tokens:
        found = _OVERRIDE.fullmatch(token)
        if not found:
            rest.append(token)
            continue
        path, value = found.groups()
        if value is None:
            value = next(tokens, None)
            if value is None or value.startswith("--"):
                raise UsageError(f"--config.{path} needs a value; write --config.{path}=VALUE")
        overrides[path] = value
    return rest, overrides


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> None:
    try:
        extra = values(["command", *argv])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, list(values), n=1)
        hint = f"did you mean --{near[0]}?" if near else "--help lists them"
        raise UsageError(f"unknown flag --{error.flagname}; {hint}") from error
    except flags.Error as error:
        raise UsageError(f"{error}; --help shows an example") from error
    if extra:
        raise UsageError(f"unexpected argument {extra[0]!r}; flags are written --name=value")


def require(values: Any, *names: str) -> None:
    """Raises `UsageError` for the first of the named flags that was not given."""
    for name in names:
        if values[name].value is None:
            raise UsageError(f"--{name} is missing; --help shows an example")


_JOINING = ("coordinator", "processes", "process", "distributed")


def _hosts_flags(values: flags.FlagValues) -> None:
    """Who the other processes are, for parallel/hosts.py."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several processes work together", flag_values=values)
    flags.DEFINE_integer("processes", None, "how many they are", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process", None, "which one this is, from 0", lower_bound=0, flag_values=values)
    flags.DEFINE_boolean("distributed", False, "ask SLURM, the TPU or GKE for these three", flag_values=values)
    text = "seconds in which all processes have to come"
    flags.DEFINE_integer("initialization-timeout", 300, text, lower_bound=1, flag_values=values)
    text = "seconds without a sign of life after which a process counts as lost, and all end"
    flags.DEFINE_integer("heartbeat-timeout", 100, text, lower_bound=1, flag_values=values)


@contextlib.contextmanager
def _connected(values: Any) -> Iterator[None]:
    """Join the other processes, if there are any; all but process 0 then keep their stdout to themselves."""
    given = [values[name].value for name in _JOINING]
    if given[-1] and given[:-1] != [None] * 3:
        raise UsageError("--distributed finds coordinator and processes by itself; give either it, or the three flags")
    if all(value is None or value is False for value in given):
        yield
        return
    from causal_gen.parallel import hosts, interrupt

    hosts.connect(
        *given[:-1],
        initialization_timeout=values["initialization-timeout"].value,
        heartbeat_timeout=values["heartbeat-timeout"].value,
    )  # fmt: skip
    interrupt.end_together()
    if hosts.first():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def intervention_flags(values: flags.FlagValues) -> None:
    """--do, --shift and --soft, read by questions.py."""
    text = "FACTOR=VALUE in physical units (degrees, ...), or FACTOR=LOW:HIGH:COUNT; repeat for a joint intervention"
    tokens = 'tokens[5]=17, or text[10:14]="1912" where tokens are bytes, at equal length'
    flags.DEFINE_multi_string("do", [], f"set a factor: {text}. In a sequence {tokens}", flag_values=values)
    flags.DEFINE_multi_string("shift", [], f"add to a factor's own value: {text}", flag_values=values)
    kinds = "scale, affine, clip, or a draw by --seed: normal (mean,sd), uniform (low,high), bernoulli (p), jitter (sd)"
    text = f"a function of a factor's own value, KIND:FACTOR=ARGUMENT,ARGUMENT with KIND one of {kinds}; repeat for a joint intervention"
    flags.DEFINE_multi_string("soft", [], text, flag_values=values)


def warn(lines: Sequence[str]) -> None:
    """Lines on stderr, so that stdout stays a command's answer."""
    for line in lines:
        print(line, file=sys.stderr)


def help_text(command: Command, values: flags.FlagValues) -> str:
    """Usage, flags and an example, as --help prints them."""
    lines = [f"usage: python -m experiments.{command.name} [--flag=value ...]", "", (command.text or "").strip(), "", "flags:"]
    for name in values:
        flag = values[name]
        default = f" [{flag.default}]" if flag.default not in (None, False, []) else ""
        words = flag.help.partition(";\n    repeat this option")[0]  # absl's own remark on repeated flags
        text = f"--{name}  {words}{default}"
        lines += textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False)
    return "\n".join([*lines, "", "example:", textwrap.indent(command.example.strip(), "  ")])


def _wants_help(argv: Sequence[str]) -> bool:
    return any(token in ("--help", "-h", "-help", "--helpfull", "--helpshort") for token in argv)


def allocator_environment(argv: Sequence[str], environ: Any) -> dict[str, str] | None:
    """The environment to start anew with, or None where it is refused, in force, not glibc's, or there is an accelerator.

    What the user set in GLIBC_TUNABLES wins over what is set here.
    """
    refused = any(token.lstrip("-") == "no-allocator-tuning" for token in argv)
    accelerator = environ.get("JAX_PLATFORMS", "") != "cpu" and any(Path(node).exists() for node in _ACCELERATORS)
    if refused or accelerator or environ.get(_TUNED) or platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    theirs = [pair for pair in environ.get("GLIBC_TUNABLES", "").split(":") if pair]
    named = {pair.partition("=")[0] for pair in theirs}
    ours = [f"{name}={value}" for name, value in ALLOCATOR.items() if name not in named]
    return {**environ, "GLIBC_TUNABLES": ":".join([*theirs, *ours]), _TUNED: "1"}


def allocator_is_tuned(environ: Any) -> bool:
    """Whether this process runs with every setting of `ALLOCATOR`."""
    return all(f"{name}={value}" in environ.get("GLIBC_TUNABLES", "").split(":") for name, value in ALLOCATOR.items())


def _keep_compiled_programs() -> None:
    """In the user's cache folder, unless the environment already says where, or that they are not kept."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() not in ("0", "false"):
        from causal_gen.parallel.compile import enable_compile_cache

        enable_compile_cache()
