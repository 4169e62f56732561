import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from lpverify.search.pool import Pool

SHAPES = {"key": ((), np.int64), "row": ((3,), np.float64), "side": ((2, 2), np.int8)}
STEPS = st.one_of(
    st.tuples(st.just("push"), st.integers(0, 150)),
    st.tuples(st.just("take"), st.integers(0, 200)),
    st.tuples(st.just("reorder"), st.integers(0, 5)),
)


def entries(keys):
    keys = np.asarray(keys, np.int64)
    row = keys[:, None] * np.array([1.0, -2.0, 0.5])
    return {
        "key": keys,
        "row": row,
        "side": (keys[:, None, None] % np.array([[2, 3], [5, 7]])).astype(np.int8),
    }


def same(columns, keys):
    """All columns still belong together."""
    assert set(columns) == set(SHAPES)
    for name, expected in entries(keys).items():
        assert columns[name].dtype == SHAPES[name][1]
        assert np.array_equal(columns[name], expected)


@given(st.lists(STEPS, max_size=25))
@example([("push", 64), ("push", 1), ("take", 65), ("push", 200), ("take", 1)])
@example([("push", 1000), ("take", 999), ("push", 64), ("reorder", 1), ("take", 100)])
def test_behaves_as_a_list(steps):
    pool, model, fresh = Pool(SHAPES), [], 0
    for kind, number in steps:
        if kind == "push":
            keys = list(range(fresh, fresh + number))
            fresh += number
            pool.push(entries(keys))
            model += keys
        elif kind == "take":
            cut = max(len(model) - number, 0)
            same(pool.take(number), model[cut:])
            del model[cut:]
        else:
            order = np.random.default_rng(number).permutation(len(model))
            pool.reorder(order)
            model = [model[i] for i in order]
        assert len(pool) == len(model)
        same({name: pool.column(name) for name in SHAPES}, model)


def test_growth_beyond_the_first_slots_keeps_what_is_there():
    pool = Pool(SHAPES)
    for key in range(300):
        pool.push(entries([key]))
        if key % 3 == 0:
            same(pool.take(1), [key])
    left = [key for key in range(300) if key % 3]
    same({name: pool.column(name) for name in SHAPES}, left)
    pool.push(entries(range(300, 2000)))
    same(pool.take(10_000), [*left, *range(300, 2000)])
    assert len(pool) == 0


def test_taken_entries_and_columns_are_copies():
    pool = Pool(SHAPES)
    pool.push(entries(range(10)))
    pool.column("key")[:] = -1
    taken = pool.take(4)
    pool.push(entries(range(100, 104)))
    same(taken, range(6, 10))
    taken["row"][:] = -1
    same(pool.take(10), [*range(6), *range(100, 104)])


def test_an_empty_pool_gives_nothing():
    pool = Pool(SHAPES)
    assert all(len(column) == 0 for column in pool.take(5).values())
    pool.push(entries([]))
    pool.reorder(np.zeros(0, np.int64))
    assert len(pool) == 0 and pool.column("row").shape == (0, 3)
