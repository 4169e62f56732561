"""Columns of text."""

from collections.abc import Iterable, Sequence


def aligned(header: Sequence[str], sides: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines whose columns are as wide as their widest cell.

    Args:
        header: Names of the columns.
        sides: `<` or `>` for each column after the first, which is to the left.
        rows: A cell for each column.
    """
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[j]) for row in cells) for j in range(len(header))]
    layout = list(zip("<" + sides, widths, strict=True))
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(row, layout, strict=True)).rstrip()
        for row in cells
    ]
