"""Compares two result files of `run.py`, or one with the verdicts of other tools.

    python benchmarks/compare.py A.csv B.csv
    python benchmarks/compare.py RESULT.csv --peers peers_cpu.csv

Instances are paired by family and file names; the last row of each counts. Solved means sat or
unsat, and not contradicting the reference. The time ratio is the geometric mean of B/A over the
instances that both solved: below 1, B is faster. Limits are not part of the pairing; where they
differ, a note says so.

Exit code: 2 when A and B contradict each other, else 0.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SOLVED = ("sat", "unsat")
SHORTEST_S = 0.001

Row = dict[str, str]
Key = tuple[str, str, str]
Table = Mapping[Key, Row]


def read_rows(path: Path, needed: Sequence[str] = ()) -> list[Row]:
    """Rows of a CSV file that has the columns of every result file, and those `needed`."""
    if not path.is_file():
        sys.exit(f"no such file: {path}")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = ("family", "onnx", "vnnlib", "verdict", "wall_s", "timeout_s", *needed)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            sys.exit(f"{path} lacks the columns {', '.join(sorted(missing))}")
        return [row for row in reader if None not in row.values()]


def by_instance(rows: Iterable[Row]) -> dict[Key, Row]:
    """The last row of each instance."""
    return {(row["family"], row["onnx"], row["vnnlib"]): row for row in rows}


def read_result(path: Path) -> dict[Key, Row]:
    """The last row of each instance of a result file; says so where several commits are in it."""
    rows = read_rows(path, ("agree", "commit", "reference"))
    commits = sorted({row["commit"] for row in rows})
    if len(commits) > 1:
        print(f"note: {path} mixes the commits {', '.join(commits)}; the last row counts")
    return by_instance(rows)


def is_solved(row: Row) -> bool:
    """Whether a row holds sat or unsat that no reference contradicts."""
    return row["verdict"] in SOLVED and row.get("agree") != "no"


def contradict(verdict: str, other: str) -> bool:
    """Whether one is sat and the other unsat."""
    return {verdict, other} == set(SOLVED)


def differing_limits(first: Table, second: Table) -> int:
    """Number of common instances whose time limits differ."""
    limits = [(first[key]["timeout_s"], second[key]["timeout_s"]) for key in first if key in second]
    return sum(float(one) != float(other) for one, other in limits)


def by_family(keys: Iterable[Key]) -> dict[str, list[Key]]:
    """Instances of each family in the order met, and of all under `total`."""
    families: dict[str, list[Key]] = {}
    total = list(keys)
    for key in total:
        families.setdefault(key[0], []).append(key)
    return families | {"total": total}


def print_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Prints lines in columns, the first to the left."""
    for line in (header, *lines):
        print(f"{line[0]:22}" + "".join(f"{cell:>11}" for cell in line[1:]))


def print_list(title: str, lines: Sequence[str]) -> None:
    """Prints a titled list; nothing where it is empty."""
    if lines:
        print("\n".join(["", f"{title} ({len(lines)}):", *(f"  {line}" for line in lines)]))


def time_ratio(first: Table, second: Table, keys: Iterable[Key]) -> str:
    """Geometric mean of the second's time over the first's, where both solved; else a dash."""
    logs = [
        math.log(max(float(second[key]["wall_s"]), SHORTEST_S))
        - math.log(max(float(first[key]["wall_s"]), SHORTEST_S))
        for key in keys
        if is_solved(first[key]) and is_solved(second[key])
    ]
    return f"{math.exp(sum(logs) / len(logs)):.2f}" if logs else "-"


def pair_line(name: str, first: Table, second: Table, keys: Sequence[Key]) -> list[str]:
    """One line of the table of two results."""
    solved_first = {key for key in keys if is_solved(first[key])}
    solved_second = {key for key in keys if is_solved(second[key])}
    gained, lost = solved_second - solved_first, solved_first - solved_second
    counts = map(len, (keys, solved_first, solved_second, gained, lost))
    return [name, *map(str, counts), time_ratio(first, second, keys)]


def change(key: Key, first: Table, second: Table) -> str:
    """An instance with both verdicts and times."""
    old, new = first[key], second[key]
    verdicts = f"{old['verdict']} {old['wall_s']} s -> {new['verdict']} {new['wall_s']} s"
    return f"{' '.join(key)}: {verdicts} {new.get('reason', '')}".rstrip()


def compare_results(first: Table, second: Table) -> int:
    """Prints the comparison of two results; returns the exit code."""
    common = [key for key in first if key in second]
    print(f"{len(common)} common; {len(first) - len(common)} only in A, ", end="")
    print(f"{len(second) - len(common)} only in B")
    if differing := differing_limits(first, second):
        print(f"note: the limits of {differing} common instances differ")
    header = ("family", "n", "solved A", "solved B", "new", "lost", "time B/A")
    groups = by_family(common).items()
    print_table(header, [pair_line(name, first, second, keys) for name, keys in groups])
    lost = [key for key in common if is_solved(first[key]) and not is_solved(second[key])]
    opposed = [k for k in common if contradict(first[k]["verdict"], second[k]["verdict"])]
    print_list("lost", [change(key, first, second) for key in lost])
    print_list("CONTRADICTIONS", [change(key, first, second) for key in opposed])
    return 2 if opposed else 0


def peer_cell(ours: Table, peer: Table, keys: Sequence[Key]) -> str:
    """Solved count of a tool, with the number it ran where that is not all; a dash for none."""
    ran = [key for key in keys if key in peer]
    solved = [
        key
        for key in ran
        if is_solved(peer[key]) and not contradict(peer[key]["verdict"], ours[key]["reference"])
    ]
    if not ran:
        return "-"
    return f"{len(solved)}" if len(ran) == len(keys) else f"{len(solved)} of {len(ran)}"


def peer_lines(ours: Table, peers: Mapping[str, Table], common: Sequence[Key]) -> list[list[str]]:
    """The table of solved counts, one column a tool."""
    lines = []
    for name, keys in by_family(common).items():
        solved = sum(is_solved(ours[key]) for key in keys)
        cells = [peer_cell(ours, peer, keys) for peer in peers.values()]
        lines.append([name, str(len(keys)), str(solved), *cells])
    return lines


def opposed_peers(ours: Table, peers: Mapping[str, Table]) -> list[str]:
    """Instances where a tool and our result are sat against unsat."""
    return [
        f"{tool} against ours, {change(key, peer, ours)} (reference: {ours[key]['reference']})"
        for tool, peer in peers.items()
        for key in peer
        if key in ours and contradict(peer[key]["verdict"], ours[key]["verdict"])
    ]


def compare_peers(ours: Table, rows: Sequence[Row]) -> int:
    """Prints the solved counts of our result and of each tool on the instances they share."""
    tools = sorted({row["tool"] for row in rows})
    peers = {tool: by_instance(row for row in rows if row["tool"] == tool) for tool in tools}
    theirs = by_instance(rows)
    common = [key for key in ours if key in theirs]
    print(f"{len(common)} common; {len(theirs) - len(common)} of the peers' have no row here")
    if differing := differing_limits(ours, theirs):
        print(f"note: the limits of {differing} common instances differ from the peers'")
    print_table(("family", "n", "ours", *tools), peer_lines(ours, peers, common))
    print_list("verdicts opposed to ours", opposed_peers(ours, peers))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compares what the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compare result files of run.py.")
    parser.add_argument("results", nargs="+", type=Path, metavar="CSV")
    parser.add_argument("--peers", type=Path, help="verdicts of other tools, with a column 'tool'")
    args = parser.parse_args(argv)
    if len(args.results) != (1 if args.peers else 2):
        parser.error("name two result files, or one and --peers")
    results = [read_result(path) for path in args.results]
    if args.peers:
        return compare_peers(results[0], read_rows(args.peers, ("tool",)))
    return compare_results(results[0], results[1])


if __name__ == "__main__":
    sys.exit(main())
