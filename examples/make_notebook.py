"""Makes `tutorial.ipynb` of `tutorial.py`.

    python examples/make_notebook.py [--check]

A line that starts with `# %%` starts a cell, `# %% [markdown]` one of text. Cells marked `active="ipynb"` are
code of the notebook alone, commented out in the script; those marked `active="py"`, and what stands before
the first mark, are left out.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
SCRIPT, NOTEBOOK = FOLDER / "tutorial.py", FOLDER / "tutorial.ipynb"
MARK = "# %%"
KNOWN = ("", "[markdown]", 'active="ipynb"', 'active="py"')


def cells(script: str) -> Iterator[tuple[str, str]]:
    """Kind (`code` or `markdown`) and text of each cell.

    Raises:
        ValueError: A mark says something unknown.
    """
    for part in re.split(rf"^{MARK}", script, flags=re.MULTILINE)[1:]:
        mark, _, body = part.partition("\n")
        mark, body = mark.strip(), body.strip("\n")
        if mark not in KNOWN:
            raise ValueError(f"{MARK} {mark}: expected one of {', '.join(filter(None, KNOWN))}")
        if mark in ("[markdown]", 'active="ipynb"'):
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        if mark != 'active="py"':
            yield ("markdown" if mark == "[markdown]" else "code"), body


def notebook(script: str) -> dict[str, Any]:
    """The notebook in the format 4.5 of nbformat, without outputs.

    Raises:
        ValueError: A mark says something unknown.
    """
    found: list[dict[str, Any]] = []
    for number, (kind, text) in enumerate(cells(script)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        found.append(cell if kind == "markdown" else cell | {"execution_count": None, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": found, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def text_of(script: str) -> str:
    """The notebook as it is written to its file.

    Raises:
        ValueError: A mark says something unknown.
    """
    return json.dumps(notebook(script), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Writes the notebook, or says with exit code 1 that it is not up to date."""
    parser = argparse.ArgumentParser(description="Makes tutorial.ipynb of tutorial.py.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1: not up to date")
    text = text_of(SCRIPT.read_text())
    if parser.parse_args().check:
        return int(not NOTEBOOK.exists() or NOTEBOOK.read_text() != text)
    NOTEBOOK.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
