"""Work done ahead in other threads."""

import threading
import time
from contextlib import closing
from itertools import count

import pytest

from facelm.predict.ahead import WAITING, ahead


def flat(lists):
    return [one for part in lists for one in part]


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (3, 1), (3, 4)])
def test_all_comes_in_order(workers, most):
    def slower_at_first(number):
        time.sleep(0.002 * (10 - number))
        return number

    parts = list(ahead(range(10), slower_at_first, workers, most))
    assert flat(parts) == list(range(10))
    assert max(map(len, parts)) <= most


def test_what_is_ready_comes_together():
    results = ahead(range(WAITING), lambda number: number, most=WAITING)
    first = next(results)
    time.sleep(0.2)
    assert [first, *results] == [[0], [1, 2, 3]] or len(first) > 1


def test_the_next_is_made_while_the_one_before_is_used():
    made = []
    with closing(ahead(range(3), made.append)) as results:
        next(results)
        time.sleep(0.2)
        assert made == [0, 1, 2]


def test_an_error_comes_in_its_turn():
    def work(number):
        if number == 2:
            raise ValueError("the third")
        return number

    results = ahead(range(4), work, most=4)
    got = []
    with pytest.raises(ValueError, match="the third"):
        for part in results:
            got += part
    assert got == [0, 1]


def test_items_that_fail_do_so_in_their_turn():
    def items():
        yield 1
        raise OSError("gone")

    results = ahead(items(), lambda number: number)
    assert next(results) == [1]
    with pytest.raises(OSError, match="gone"):
        next(results)


def test_one_who_stops_leaves_no_thread_behind():
    before = threading.active_count()
    with closing(ahead(count(), lambda number: number)) as results:
        next(results)
    assert threading.active_count() == before
