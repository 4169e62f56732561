"""Files that someone might send to do harm: what each is, and what must be said about it."""

from hostile import external, files, found, graphs, nodes, sizes
from hostile.cases import CASES, Case

__all__ = ["CASES", "Case", "external", "files", "found", "graphs", "nodes", "sizes"]
