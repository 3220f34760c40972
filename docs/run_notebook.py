"""Run a notebook's cells from top to bottom and keep what they show: python docs/run_notebook.py FILE.ipynb [--check]

Its outputs are what cells print, the value of their last line, and pictures of matplotlib. `--check` runs and writes nothing. No Jupyter is
needed. An error in a cell ends it, with the cell's number, and the file stays as it was.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(cells: list[dict[str, Any]]) -> None:
    """Execute the code cells in one namespace and put their outputs into them."""
    import matplotlib

    matplotlib.use("agg")
    space: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        try:
            cell["outputs"] = outputs("".join(cell["source"]), space, f"cell {number + 1}")
        except Exception as error:
            raise SystemExit(f"error: cell {number + 1}: {type(error).__name__}: {error}") from error
        cell["execution_count"] = number + 1


def outputs(source: str, space: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Run one cell; what it showed, as nbformat 4 has it."""
    from matplotlib import pyplot

    tree, printed, value = ast.parse(source, name), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, name, "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)})
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    for figure in figures:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=80, bbox_inches="tight")
        picture = base64.b64encode(drawn.getvalue()).decode()
        found.append({"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}})
    pyplot.close("all")
    if value is not None and not figures:
        found.append({"output_type": "execute_result", "execution_count": 0, "metadata": {}, "data": {"text/plain": [repr(value)]}})
    return found


if __name__ == "__main__":
    path = Path(sys.argv[1])
    sys.path.insert(0, str(path.resolve().parents[1]))
    notebook = json.loads(path.read_text(encoding="utf-8"))
    run(notebook["cells"])
    if "--check" not in sys.argv[2:]:
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {sum(cell['cell_type'] == 'code' for cell in notebook['cells'])} cells ran")
