"""The table of proof nodes, and whether it sees open branches as the rule for lists of nodes does."""

from dataclasses import replace

import numpy as np
import pytest

from lpverify.errors import InternalError
from lpverify.multipliers import Effort
from lpverify.proof import (
    Combination,
    InputSplit,
    Leaf,
    NeuronSplit,
    NodeTable,
    Proof,
    ProofNode,
    covers,
    split_columns,
)

POINTS = (0.0, -0.0, 0.25, -1.5, 1e300)


def random_split(rng):
    point, upper = float(rng.choice(POINTS)), bool(rng.integers(2))
    if rng.integers(2):
        return InputSplit(int(rng.integers(4)), point, upper)
    return NeuronSplit(int(rng.integers(4)), int(rng.integers(4)), upper, point, bool(rng.integers(2)))


def random_tree(rng, cases, splits):
    """Nodes of a complete tree without their children, parents before children."""
    nodes = [ProofNode(-1, case, None) for case in range(cases)]
    for _ in range(splits):
        open_ = [k for k, n in enumerate(nodes) if n.leaf is None]
        inner = {n.parent for n in nodes}
        k = int(rng.choice([k for k in open_ if k not in inner]))
        split = random_split(rng)
        nodes += [ProofNode(k, nodes[k].case, s) for s in (split, split.opposite())]
    inner = {n.parent for n in nodes}
    return [n if k in inner else replace(n, leaf=Leaf()) for k, n in enumerate(nodes)]


def table_of(nodes):
    table = NodeTable()
    for node in nodes:
        columns = {} if node.split is None else split_columns(node.split)
        table.append(1, parent=node.parent, case=node.case, leaf=node.leaf is not None, **columns)
    return table


def accepted(cases, nodes):
    try:
        Proof(cases, nodes, False)
    except InternalError:
        return False
    return True


def agreed(cases, nodes):
    """What both say about a list of nodes."""
    table = table_of(nodes)
    first, second = accepted(cases, table), accepted(cases, list(table))
    assert first == second
    return first


def without(nodes, index):
    """The nodes without a leaf."""
    assert nodes[index].leaf is not None
    kept = [n for k, n in enumerate(nodes) if k != index]
    return [replace(n, parent=n.parent - (n.parent > index)) for n in kept]


# Damage: each gets the nodes, an inner node and one of its children.


def child_dropped(nodes, rng, inner, child):
    leaves = [k for k, n in enumerate(nodes) if n.leaf is not None and n.parent >= 0]
    return without(nodes, int(rng.choice(leaves)))


def leaf_reopened(nodes, rng, inner, child):
    k = int(rng.choice([k for k, n in enumerate(nodes) if n.leaf is not None]))
    return [*nodes[:k], replace(nodes[k], leaf=None), *nodes[k + 1 :]]


def changed(nodes, child, **fields):
    split = replace(nodes[child].split, **fields)
    return [*nodes[:child], replace(nodes[child], split=split), *nodes[child + 1 :]]


def point_moved(nodes, rng, inner, child):
    return changed(
        nodes, child, point=float(np.nextafter(nodes[child].split.point, rng.choice([-1e308, 1e308])))
    )


def side_turned(nodes, rng, inner, child):
    return changed(nodes, child, upper=not nodes[child].split.upper)


def other_place(nodes, rng, inner, child):
    if isinstance(nodes[child].split, InputSplit):
        return changed(nodes, child, index=nodes[child].split.index + 1)
    name = str(rng.choice(["value", "element"]))
    return changed(nodes, child, **{name: getattr(nodes[child].split, name) + 1})


def point_on_the_other_side(nodes, rng, inner, child):
    split = nodes[child].split
    if isinstance(split, InputSplit):
        return changed(nodes, child, upper=not split.upper)
    return changed(nodes, child, above=not split.above)


def other_kind(nodes, rng, inner, child):
    old = nodes[child].split
    index = old.index if isinstance(old, InputSplit) else old.value
    split = (
        NeuronSplit(index, 0, old.upper, old.point)
        if isinstance(old, InputSplit)
        else InputSplit(index, old.point, old.upper)
    )
    return [*nodes[:child], replace(nodes[child], split=split), *nodes[child + 1 :]]


def no_split(nodes, rng, inner, child):
    return [replace(n, split=None) if n.parent == inner else n for n in nodes]


def third_child(nodes, rng, inner, child):
    return [*nodes, replace(nodes[child], leaf=Leaf())]


def no_child_at_all(nodes, rng, inner, child):
    return [*nodes, replace(nodes[child], split=nodes[child].split, leaf=None)]


def infinite_point(nodes, rng, inner, child):
    point = float(rng.choice([np.inf, -np.inf, np.nan]))
    return [replace(n, split=replace(n.split, point=point)) if n.parent == inner else n for n in nodes]


def child_of_another(nodes, rng, inner, child):
    """A child moves to another inner node, which has three then."""
    others = [k for k, n in enumerate(nodes) if n.leaf is None and k != inner and k < child]
    parent = int(rng.choice(others)) if others else -1
    return [*nodes[:child], replace(nodes[child], parent=parent), *nodes[child + 1 :]]


DAMAGE = [
    child_dropped,
    leaf_reopened,
    point_moved,
    side_turned,
    other_place,
    point_on_the_other_side,
    other_kind,
    no_split,
    third_child,
    no_child_at_all,
    infinite_point,
    child_of_another,
]


def some_child(rng, nodes):
    inner = int(rng.choice([k for k, n in enumerate(nodes) if n.leaf is None]))
    children = [k for k, n in enumerate(nodes) if n.parent == inner]
    return inner, int(rng.choice(children))


@pytest.mark.parametrize("seed", range(30))
def test_complete_trees_are_accepted(seed):
    rng = np.random.default_rng(seed)
    cases = int(rng.integers(1, 4))
    nodes = random_tree(rng, cases, int(rng.integers(0, 40)))
    assert agreed(cases, nodes)
    assert not agreed(cases + 1, nodes), "a case without a root"
    if cases > 1:
        assert not agreed(cases - 1, nodes), "a root without a case"


def test_no_cases_need_no_nodes():
    assert agreed(0, []) and not agreed(1, [])


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("seed", range(25))
def test_damage_is_seen_alike(seed, damage):
    rng = np.random.default_rng(seed)
    nodes = random_tree(rng, 1 + seed % 2, int(rng.integers(1, 25)))
    assert not agreed(1 + seed % 2, damage(nodes, rng, *some_child(rng, nodes)))


@pytest.mark.parametrize("seed", range(200))
def test_much_damage_is_judged_alike(seed):
    """Several faults may cancel each other; both rules must notice that too."""
    rng = np.random.default_rng(1000 + seed)
    nodes = random_tree(rng, 1, int(rng.integers(1, 8)))
    for _ in range(int(rng.integers(1, 4))):
        inner = [k for k, n in enumerate(nodes) if n.leaf is None and any(c.parent == k for c in nodes)]
        splits = [n for k in inner for n in nodes if n.parent == k]
        if not inner or any(n.split is None for n in splits):
            break
        nodes = rng.choice(DAMAGE)(nodes, rng, *some_child_of(rng, nodes, inner))
    agreed(1, nodes)


def some_child_of(rng, nodes, inner):
    k = int(rng.choice(inner))
    return k, int(rng.choice([i for i, n in enumerate(nodes) if n.parent == k]))


def test_turning_both_sides_is_no_damage():
    rng = np.random.default_rng(3)
    nodes = random_tree(rng, 1, 6)
    inner, child = some_child(rng, nodes)
    assert agreed(1, [
        replace(n, split=n.split.opposite()) if n.parent == inner else n for n in nodes
    ])  # fmt: skip
    assert not agreed(1, side_turned(nodes, rng, inner, child))


def test_what_is_below_a_refuted_node_does_not_matter():
    rng = np.random.default_rng(5)
    nodes = random_tree(rng, 1, 12)
    inner, child = some_child(rng, nodes)
    closed = [replace(n, leaf=Leaf()) if k == inner else n for k, n in enumerate(nodes)]
    assert agreed(1, closed)
    assert agreed(1, third_child(closed, rng, inner, child))
    assert agreed(1, infinite_point(closed, rng, inner, child))
    assert agreed(1, no_split(closed, rng, inner, child))


def test_nodes_come_back_as_they_were_added():
    rng = np.random.default_rng(0)
    nodes = random_tree(rng, 3, 100)
    table = table_of(nodes)
    assert len(table) == len(nodes) == 203
    for k, node in enumerate(nodes):
        assert table[k].children == [i for i, n in enumerate(nodes) if n.parent == k]
        assert replace(table[k], children=[]) == node
        assert table.split(k) == node.split
        assert isinstance(table[k].parent, int) and isinstance(table[k].clipped, bool)
    assert list(table) == [table[k] for k in range(len(table))]
    assert table[5:20:3] == [table[k] for k in range(5, 20, 3)]
    assert table[-3:] == [table[k] for k in range(200, 203)] and table[300:] == []
    for index in (203, 10**6):
        with pytest.raises(IndexError):
            table[index]


def test_children_are_current_while_the_table_grows():
    table = NodeTable()
    root = table.append(1, parent=-1)
    assert table[root].children == []
    split = InputSplit(0, 0.5, False)
    first = table.append(1, parent=root, **split_columns(split))
    assert table[root].children == [first]
    second = table.append(1, parent=root, **split_columns(split.opposite()))
    assert table[root].children == [first, second] and table[first].children == []
    many = table.append(100, parent=np.repeat([first, second], 50), kind=1, value=np.arange(100))
    assert table[first].children == list(range(many, many + 50))
    assert table[second].children == list(range(many + 50, many + 100))
    assert table[many + 7].split == InputSplit(7, 0.0, False)


def test_rare_properties_are_kept():
    table = NodeTable()
    table.append(2, parent=-1, case=np.array([0, 1]))
    plain, alpha = Effort("ibp"), Effort("crown")
    assert table.effort_number(alpha) == table.effort_number(alpha) != table.effort_number(plain)
    table.column("effort")[1] = table.effort_number(alpha)
    table.column("leaf")[1] = True
    leaf = Leaf((Combination((0,), (1.0,), ()),))
    table.leaves[1], table.rows[1], table.multipliers[1] = leaf, (0, 2), None
    assert table[0] == ProofNode(-1, 0, None)
    assert table[1] == ProofNode(-1, 1, None, alpha, False, None, (0, 2), leaf)
    table.column("clipped")[0] = True
    assert table[0].clipped


def test_covers_needs_a_split_and_its_complement():
    for split in (InputSplit(1, 0.5, True), NeuronSplit(1, 2, False, 0.5, False)):
        assert covers([split, split.opposite()]) and covers([split.opposite(), split])
        assert not covers([split, split]) and not covers([split]) and not covers([])
        assert not covers([split, None]) and not covers([split, split.opposite(), split])
        assert not covers([split, replace(split.opposite(), point=0.25)])
        endless = replace(split, point=np.inf)
        assert not covers([endless, endless.opposite()])
