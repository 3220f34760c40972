"""The documentation: its notebook runs, its pages hold together, and the examples of CONTRIBUTING.md are what they say.

`make docs` builds the site from the same pages with mkdocs, in strict mode; what it would find wrong in includes and links is found here
without it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from test_docstrings import pages

from causal_gen import build as border

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "from_a_config_to_a_counterfactual.ipynb"


def test_the_notebook_runs_from_top_to_bottom():
    """Its cells assert what their texts say: errors far below doing nothing, what stands before an intervened token unmoved."""
    cache = str(jax.config.jax_compilation_cache_dir)
    environ = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "XLA_FLAGS": ""}
    words = [sys.executable, str(DOCS / "run_notebook.py"), str(NOTEBOOK), "--check"]
    before = NOTEBOOK.read_bytes()
    done = subprocess.run(words, cwd=DOCS, capture_output=True, text=True, env=environ, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert NOTEBOOK.read_bytes() == before


def test_a_cell_that_fails_ends_the_notebook_with_its_number(tmp_path):
    cells = [{"cell_type": "code", "source": [text], "outputs": [], "metadata": {}} for text in ("x = 1", "assert x == 2")]
    file = tmp_path / "a.ipynb"
    file.write_text(json.dumps({"cells": cells}))
    done = subprocess.run([sys.executable, str(DOCS / "run_notebook.py"), str(file)], capture_output=True, text=True)
    assert done.returncode == 1 and "cell 2: AssertionError" in done.stderr
    assert json.loads(file.read_text())["cells"][0]["outputs"] == []


def test_the_notebook_is_kept_with_what_it_shows():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    text = pages().notebook(NOTEBOOK)
    assert "data:image/png;base64," in text and "where doing nothing errs by" in text
    assert str(ROOT) not in text and "/home/" not in text and "/root/" not in text


def made() -> dict[str, str]:
    """The site's pages, as mkdocs is given them."""
    site = pages()
    found = {path.name: site.included(path.read_text()) for path in DOCS.glob("*.md")}
    found |= {page: site.linked((ROOT / file).read_text()) for page, file in site.WHOLE.items()}
    found["notebook.md"] = site.notebook(NOTEBOOK)
    return found


def test_pages_are_complete_and_link_to_pages_that_are_there():
    found = made()
    named = re.findall(r"^  - [^:]+: (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    assert len(named) >= 8 and set(named) <= found.keys()
    for name, text in found.items():
        assert "<!-- include" not in text, name
        links = re.findall(r"\]\(([^)#\s]+)", re.sub(r"^ {4}.*$|`[^`]*`", "", text, flags=re.M))
        assert all(link in found or link.startswith(("http", "data:")) for link in links), (name, links)


def test_an_include_of_a_section_that_is_gone_is_named():
    with pytest.raises(KeyError, match="has no section 'Nowhere'"):
        pages().included("<!-- include README.md: Nowhere -->")
    assert pages().included("<!-- include? README.md: Nowhere -->") == ""


def test_an_included_section_ends_where_the_next_begins():
    text = "# A\none\n## B\ntwo\n### C\nthree\n## D\nfour\n"
    assert pages().section(text, "B") == "## B\ntwo\n### C\nthree"
    assert pages().section(text, "D") == "## D\nfour"


def test_every_room_of_the_package_is_in_the_reference():
    rooms = {path.name for path in (ROOT / "causal_gen").iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert rooms <= pages().rooms().keys()
    assert "causal_gen.scm.counterfactual" in pages().rooms()["scm"] and "causal_gen.build" in pages().rooms()["causal_gen"]


def test_the_system_of_the_guide_is_a_config_that_builds_and_sees_what_it_says(tmp_path):
    """A window of 64 and the first four tokens of the row, none of the future."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    file = tmp_path / "sinks.py"
    file.write_text(next(text for text in blocks if "def get_config" in text))
    assert border.complete(border.load_config(f"{file}:causal"))["model"]["visibility"] == "causal()"
    config = border.complete(border.load_config(f"{file}:tiny"))
    from causal_gen.structure import expression

    seen = expression.read(config["model"]["visibility"]).show(80).splitlines()
    for i, row in enumerate(seen):
        assert row == "".join("#" if k <= i and (i - k < 64 or k < 4) else "." for k in range(80))


def test_a_page_says_its_title_once_and_tables_keep_their_bars():
    found = made()["commands.md"]
    assert found.count("# Commands") == 1 and "`experiments.benchmark --suite=unet_train|ddim" in found
    assert pages().linked("| `a\\|b` | [x](SYSTEMS.md) |") == "| `a|b` | [x](systems.md) |"
