"""Every command of README, docs and CONTRIBUTING.md: its flags parse, its config takes its overrides, a few are run as they stand.

A command is a line of a code block that begins with `python -m`, `make` or `pytest`, with or without a `$` and variables before it. What
stands in capitals for something of the reader's (FILE.jsonl.gz, NAME) is taken as such. The longer ones of those that are run are slow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import importlib
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from PIL import Image

from causal_gen import build as border
from causal_gen.types import UserError
from experiments import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
STANDS_FOR = re.compile(r"\b[A-Z]{3,}\b|\.\.\.|my_config|mine\.py|NAME")  # in a value: something of the reader's


@dataclasses.dataclass(frozen=True)
class Line:
    """A command as a page has it: where, its words, and the variables before it."""

    page: str
    number: int
    words: tuple[str, ...]
    variables: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def lines_of(page: str) -> list[Line]:
    """The commands in the code blocks of a page, continued lines joined, one for each side of `&&`."""
    found, held, start, fenced = [], "", 0, ""
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if fence := re.match(r"```(\w*)", line):
            fenced = "" if fenced else fence[1] or "text"
            continue
        if not held and not (line.startswith("    ") or fenced):
            continue
        start = start if held else number
        held = (held + " " if held else "") + line.strip().removeprefix("$ ").removesuffix("\\").strip()
        if line.rstrip().endswith("\\"):
            continue
        if re.match(r"([A-Z_]+=\S+ )*(python -m|make|pytest)\b", held):
            for part in shlex.join(split(held)).replace("'&&'", "&&").split(" && "):
                words = shlex.split(part)
                variables = tuple(itertools.takewhile(lambda word: re.match(r"[A-Z_]+=", word), words))
                found.append(Line(page, start, tuple(words[len(variables) :]), variables))
        held = ""
    return found


def split(text: str) -> list[str]:
    """As a shell would, without what stands behind `#`, nor behind two blanks and a word that is no flag (columns of `make` lines)."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = list(lexer)
    return words[: 3 if words[1:2] and words[0] == "make" and "=" in "".join(words[2:3]) else 2] if words[0] == "make" else words


LINES = [line for page in PAGES for line in lines_of(page)]
MODULES = [line for line in LINES if line.words[:2] == ("python", "-m")]


def test_commands_are_found():
    """The collection itself: all commands of experiments/ and launch/ have an example, and nothing is lost that a plain search finds."""
    named = {line.words[2] for line in MODULES} | {module for module, _ in rows_of_tables()}
    commands = {path.stem for path in (ROOT / "experiments").glob("*.py") if "COMMAND = cli.Command" in path.read_text()}
    assert {f"experiments.{name}" for name in commands} <= named
    assert {f"launch.{name}" for name in ("sweep", "worker", "slurm", "tpu_vm", "gke", "local")} <= named
    for page in PAGES:
        text = (ROOT / page).read_text()
        plain = len(re.findall(r"^(?: {4}|\$ )+(?:[A-Z_]+=\S+ )*python -m", text, re.M))
        assert sum(line.words[0] == "python" for line in lines_of(page)) >= plain, page


@pytest.mark.parametrize("line", MODULES, ids=str)
def test_a_documented_command_is_understood(line, tmp_path):
    """Its flags by its own parser to the end, its config file with its overrides by the schema; a command behind -- likewise."""
    wrong = misunderstood(line.words[2], [example(word, line.page, tmp_path) for word in line.words[3:]], tmp_path)
    assert not wrong, wrong


@pytest.mark.parametrize(
    ("module", "word", "said"),
    [
        ("experiments.train", "--config.train.stepps=3", "stepps"),
        ("experiments.nothing", "--workdir=runs/x", "there is no"),
        ("experiments.report", "--wordkir=runs/x", "not understood"),
        ("launch.local", "--proceses=2", "--proceses"),
    ],
)
def test_a_command_with_a_slip_is_not_understood(module, word, said, tmp_path):
    words = ["--config=configs/structural/linear.py", "--workdir=runs/x", word] if module == "experiments.train" else [word]
    assert said in misunderstood(module, words, tmp_path)


def example(word: str, page: str, folder: Path) -> str:
    """`--config=FILE` of a config that the page itself gives, in a block whose docstring names the file, as one that is there."""
    found = re.fullmatch(r"--config=(configs/\w+/\w+\.py)", word)
    if not found or (ROOT / found[1]).is_file():
        return word
    block = next((text for text in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S) if found[1] in text), None)
    assert block, f"{page}: {found[1]} is not there, and the page does not give it"
    (folder / "example.py").write_text(block)
    return f"--config={folder / 'example.py'}"


def misunderstood(module: str, argv: list[str], folder: Path) -> str:
    """What is wrong with a command's words; empty where they are understood."""
    if module == "pytest":
        return ""
    room, _, name = module.partition(".")
    if not (ROOT / room / f"{name}.py").is_file():
        return f"there is no {module}"
    own, behind = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv and room == "launch" else (argv, [])
    if behind:
        if behind[:2] != ["python", "-m"]:
            return f"not a command of ours behind --: {shlex.join(behind)}"
        if wrong := misunderstood(behind[2], [word.replace("{task}", "3") for word in behind[3:]], folder):
            return wrong
    if room == "experiments":
        return experiment(name, [word.replace("{task}", "3") for word in own])
    return launcher(name, own, behind, folder)


def experiment(name: str, argv: list[str]) -> str:
    command = importlib.import_module(f"experiments.{name}").COMMAND
    seen: dict[str, Any] = {}
    # the parser of the command itself, with other work behind it
    idle = dataclasses.replace(command, run=lambda values, overrides: seen.update(values=values, overrides=overrides), hosts=False)
    words = [
        word
        for word in argv
        if not re.match(r"--(distributed|coordinator|processes|process|initialization-timeout|heartbeat-timeout)\b", word)
    ]
    if len(words) < len(argv) and not command.hosts:
        return f"{name} takes no flags of several processes"
    if cli.main(idle, words) or not seen:
        return f"experiments.{name} {shlex.join(argv)} was not understood"
    values: flags.FlagValues = seen["values"]
    file = values["config"].value if "config" in values else None
    if file and not STANDS_FOR.search(file):
        overrides = {key: value for key, value in seen["overrides"].items() if not STANDS_FOR.search(value)}
        try:
            border.complete(border.load_config(str(ROOT / file), overrides))
        except UserError as error:
            return str(error)
    return ""


def launcher(name: str, own: list[str], behind: list[str], folder: Path) -> str:
    """A launcher that can print what it would do does so; of the others the parser ends well."""
    module = importlib.import_module(f"launch.{name}")
    tail = ["--", *behind] if behind else []
    words = [re.sub(r"\b(NAME|ZONE|IMAGE|CLAIM|DIR)\b", lambda found: found[1].lower(), word) for word in own]
    words = [word.replace("runs/study", str(folder / "study")) for word in words]
    if name == "sweep" and not any(word.startswith("--config=") for word in words):  # goes on with a study: one is begun here
        words = [word for word in words if word != "--list"] + ["--config=configs/causal_transformer/text.py:tiny"]
    if name in ("local", "worker"):
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
            module.main(["--help"])
        known = set(re.findall(r"--[\w-]+", said.getvalue()))
        return ", ".join(sorted({word.partition("=")[0] for word in words} - known))
    if not words and not behind:
        return ""
    return f"{name} refused {shlex.join(words)}" if module.main([*words, "--print", *tail]) else ""


def rows_of_tables() -> list[tuple[str, list[str]]]:
    """Commands in the first column of a table: the module, and the flags that the cell names, in brackets or not."""
    cells = [cell for page in PAGES for cell in re.findall(r"^\| `((?:experiments|launch)\..*?)`", (ROOT / page).read_text(), re.M)]
    return [(cell.split()[0], re.findall(r"(?<![\w-])--([a-z][\w-]*)", cell)) for cell in cells]


@pytest.mark.parametrize(("module", "named"), rows_of_tables(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_flags_in_the_table_of_commands_are_there(module, named, capsys):
    if module.startswith("experiments."):
        assert cli.main(importlib.import_module(module).COMMAND, ["--help"]) == 0
    else:
        with pytest.raises(SystemExit) as end:
            importlib.import_module(module).main(["--help"])
        assert not end.value.code
    said = capsys.readouterr().out
    known = set(re.findall(r"--(?:\[no\])?([a-z][\w-]*)", said))
    assert named and set(named) - {"config"} <= known, (set(named) - known, said)


@pytest.mark.parametrize("line", [line for line in LINES if line.words[0] == "make"], ids=str)
def test_a_documented_target_of_make_is_there(line):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert line.words[1] in targets, line.words


@pytest.mark.parametrize("line", [line for line in LINES if line.words[0] == "pytest"], ids=str)
def test_the_files_of_a_documented_pytest_are_there(line):
    assert all((ROOT / word).exists() for word in line.words[1:] if word.startswith("tests/"))


# -- run as they stand, in a folder of the test's own --------------------------------------------------------------------------


def documented(*begins: str) -> list[Line]:
    """The commands of the README whose words say one of these."""
    lines = [line for line in MODULES if line.page == "README.md"]
    found = [line for line in lines if any(begin in " ".join(line.words) for begin in begins)]
    assert found, begins
    return found


def runs(lines: list[Line], folder: Path, *more: str) -> list[tuple[int, str]]:
    """Exit code and words of each, in turn; `more` overrides are for those that train."""
    told = []
    for line in lines:
        words = [sys.executable, "-m", *(word.replace("=runs/", f"={folder}/") for word in line.words[2:])]
        words += more if line.words[2] == "experiments.train" else ()
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
        told.append((done.returncode, done.stdout + done.stderr))
    return told


def test_the_example_of_an_identified_effect_says_what_the_readme_prints(capfd):
    line, *_ = documented("experiments.identify --graph")
    assert cli.main(importlib.import_module("experiments.identify").COMMAND, line.words[3:]) == 0
    printed = capfd.readouterr().out
    below = (ROOT / "README.md").read_text().splitlines()[line.number :]
    block = list(itertools.takewhile(lambda row: not row or row.startswith("    "), below))
    said = [row.strip() for row in block if row.strip()]
    assert len(said) >= 3 and all(row in printed for row in said), printed


def of_the_reader(folder: Path) -> dict[str, Path]:
    """What stands in the README for something of the reader's, made small."""
    found = {name: folder / name for name in ("a_folder_of_my_pictures", "words.txt", "speeches.jsonl.gz", "speech.txt", "my.csv")}
    found["words.txt"].write_text("def stands_for_a_text_of_yours(self):\n    return self\n" * 40)
    rows = [{"year": 1900 + i, "party": "rd"[i % 2], "text": "Fellow citizens of the Senate, " * 8} for i in range(12)]
    with gzip.open(found["speeches.jsonl.gz"], "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found["speech.txt"].write_text("year=1942 party=d\nFellow citizens of the Senate, it is my duty")
    found["my.csv"].write_text((ROOT / "configs/structural/clinic.csv").read_text())
    found["a_folder_of_my_pictures"].mkdir()
    for i in range(2):
        Image.new("RGB", (16, 16), (255, 200, 40 * i)).save(found["a_folder_of_my_pictures"] / f"{i}.png")
    return found


@pytest.mark.slow
def test_the_readmes_commands_run_in_turn_where_trainings_are_tiny(tmp_path):
    """All that train, ask, score and show, each on the run that the line before it made; the explorer and launchers have their own."""
    own = of_the_reader(tmp_path)
    given = {"FILE_OR_FOLDER": "words.txt", "FILE.jsonl.gz": "speeches.jsonl.gz"} | {name: name for name in own}
    others = ("explore", "identify", "dry_run", "=/shared/", "=runs/study", "--config=my_config.py", "runs/seed{task}", "=runs/sinks")
    lines = [line for line in MODULES if line.page == "README.md" and not any(word in " ".join(line.words) for word in others)]
    for line in lines:
        words = [word.replace("=runs/", f"={tmp_path}/") for word in line.words]
        words = [re.sub(r"(--config=configs/[\w/]+\.py)(:\w+)?$", r"\1:tiny", word) for word in words if "train.steps=" not in word]
        words = [word.replace("test:100:108", "test:0:8") for word in words]  # a tiny run has 16 test rows
        for name, file in given.items():
            words = [re.sub(rf"={re.escape(name)}$", f"={own[file]}", word) for word in words]
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # `python` is that of the environment
        given_to = os.environ | path | dict(one.split("=", 1) for one in line.variables)
        done = subprocess.run(words, cwd=ROOT, env=given_to, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, (line, words, done.stdout[-500:], done.stderr[-1500:])
    assert len(lines) >= 20, lines


@pytest.mark.slow
def test_effects_of_the_linear_example_are_those_of_the_readme(tmp_path):
    told = runs(documented("configs/structural/linear.py", "--cause=a"), tmp_path, "--config.log.tensorboard=no")
    assert [code for code, _ in told] == [0, 0], told
    total = re.search(r"^total +([\d.]+)", told[1][1], re.M)
    assert total and float(total[1]) == pytest.approx(0.7413, abs=0.005)


@pytest.mark.slow
def test_the_sweep_of_the_readme_runs_goes_on_and_has_a_page(tmp_path):
    lines = [
        line
        for line in documented("launch.sweep --config=configs/causal_transformer/text.py:tiny", "--trials=12", "--list")
        if "..." not in str(line.words)
    ]
    told = runs(lines, tmp_path)
    assert [code for code, _ in told] == [0, 0, 0] and "12 of 12 trials" in told[-1][1], told
    words = [sys.executable, "-m", "experiments.report", f"--workdir={tmp_path / 'study'}"]
    assert subprocess.run(words, cwd=ROOT, capture_output=True).returncode == 0
    assert (tmp_path / "study" / "best.py").is_file() and "parallel" in (tmp_path / "study" / "report.html").read_text()
