"""What mkdocs asks of this site: pages that stand elsewhere are taken from there, so that nothing is said twice.

    <!-- include README.md: Sweeps -->     in a page: that section of that file
    <!-- include? README.md: Effects -->   the same; nothing where there is no such section
    contributing.md, systems.md            CONTRIBUTING.md and SYSTEMS.md
    notebook.md                            the notebook with its outputs
    reference/ROOM.md                      the docstrings of that room's modules, read without importing them

A page of docs/ that `nav` in mkdocs.yml does not name is added to it under "Guides".
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "docs/from_a_config_to_a_counterfactual.ipynb"
WHOLE = {"contributing.md": "CONTRIBUTING.md", "systems.md": "SYSTEMS.md"}
INCLUDE = re.compile(r"^<!-- include(\??) (\S+): (.+) -->$", re.M)


def section(text: str, title: str) -> str | None:
    """A section of a Markdown text with its heading, up to the next of its level; None where there is none."""
    found = re.search(rf"^(#+) {re.escape(title)}$.*?(?=^#{{1,2}} |\Z)", text, re.M | re.S)
    return found[0].strip() if found else None


def included(page: str) -> str:
    """A page with its includes. Raises KeyError for a section that is not there, unless the include is marked with a question mark."""

    def fill(match: re.Match[str]) -> str:
        found = section((ROOT / match[2]).read_text(encoding="utf-8"), match[3])
        if found is None and not match[1]:
            raise KeyError(f"{match[2]} has no section {match[3]!r}: mend the include, or mark it as include?")
        return (found or "").removeprefix(f"## {title}")  # the page has said it

    title = page.partition("\n")[0].lstrip("# ")
    return linked(INCLUDE.sub(fill, page))


def linked(text: str) -> str:
    """Links between files of the repository as links between pages, and code in tables as Python-Markdown reads it."""
    for page, file in WHOLE.items():
        text = text.replace(f"]({file})", f"]({page})")
    # GitHub wants bars of a code span in a table escaped, Python-Markdown shows the backslash
    text = re.sub(r"^\|.*$", lambda row: re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), row[0]), text, flags=re.M)
    return re.sub(r"\]\(docs/([\w.]+)\)", r"](\1)", text)


def rooms() -> dict[str, list[str]]:
    """The modules of every room of causal_gen that have something public, by dotted name."""
    found: dict[str, list[str]] = {}
    for file in sorted((ROOT / "causal_gen").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if any(part.startswith("_") for part in module.split(".")) or not public(file):
            continue
        parts = module.split(".")
        found.setdefault(parts[1] if len(parts) > 2 else "causal_gen", []).append(module)
    return found


def public(file: Path) -> bool:
    """Whether a module defines a function or class for others."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") for node in body)


def notebook(path: Path) -> str:
    """A notebook as Markdown: code cells with what they printed, and pictures in the page."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})")
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{text.rstrip()}\n```")
    return linked("\n\n".join(parts))


# -- what mkdocs calls -------------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Complete the navigation: pages that it does not name, and the reference."""
    named = {path for entry in config.nav for path in entry.values()}
    extra = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in named]
    if extra:
        config.nav.insert(4, {"Guides": [{path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "): path.name} for path in extra]})
    config.nav.append({"Reference": [{room: f"reference/{room}.md"} for room in rooms()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """The pages that stand elsewhere."""
    from mkdocs.structure.files import File

    made = {page: linked((ROOT / file).read_text(encoding="utf-8")) for page, file in WHOLE.items()}
    made["notebook.md"] = notebook(ROOT / NOTEBOOK)
    for room, modules in rooms().items():
        made[f"reference/{room}.md"] = f"# {room}\n\n" + "\n\n".join(f"::: {module}" for module in modules) + "\n"
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """A page of docs/ with its includes."""
    del kwargs
    return included(markdown)
