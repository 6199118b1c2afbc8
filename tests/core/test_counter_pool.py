"""Counters never repeat: not between threads, not after a release, not in the child of a fork."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burstwire.core import COUNTER_LIMIT, CounterPool, capabilities
from burstwire.errors import CryptoError


@given(st.lists(st.integers(1, (1 << 32) - 1), max_size=30))
def test_ranges_follow_one_another(steps: list[int]) -> None:
    pool = CounterPool(4)
    index = pool.acquire()
    expected = 0
    for n in steps:
        assert pool.peek(index) == expected
        assert pool.reserve(index, n) == expected
        expected += n
    assert pool.peek(index) == expected


@pytest.mark.repeat
def test_threads_never_get_the_same_counter() -> None:
    pool = CounterPool()
    index = pool.acquire()
    taken: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def work(me: int) -> None:
        for i in range(5000):
            n = 1 + (i * 7 + me) % 64
            taken[me].append((pool.reserve(index, n), n))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ranges = sorted(entry for entries in taken for entry in entries)
    end = 0
    for first, n in ranges:
        assert first == end
        end = first + n
    assert pool.peek(index) == end


def test_counters_are_independent_and_the_pool_grows() -> None:
    pool = CounterPool(1)
    indices = [pool.acquire() for _ in range(2000)]
    assert len(set(indices)) == 2000
    for i, index in enumerate(indices):
        assert pool.reserve(index, i + 1) == 0
    assert [pool.peek(index) for index in indices] == list(range(1, 2001))


def test_a_counter_ends_below_its_limit() -> None:
    pool = CounterPool()
    index = pool.acquire()
    pool.skip_to(index, COUNTER_LIMIT - 3)
    with pytest.raises(CryptoError, match="used up"):
        pool.reserve(index, 4)
    assert pool.reserve(index, 3) == COUNTER_LIMIT - 3
    with pytest.raises(CryptoError, match="used up"):
        pool.reserve(index, 1)


def test_a_counter_never_goes_back() -> None:
    pool = CounterPool()
    index = pool.acquire()
    pool.skip_to(index, 1 << 22)
    pool.skip_to(index, 1 << 22)
    with pytest.raises(ValueError, match="go back"):
        pool.skip_to(index, (1 << 22) - 1)
    assert pool.peek(index) == 1 << 22
    for value in (-1, COUNTER_LIMIT + 1):
        with pytest.raises(ValueError, match="2\\^62"):
            pool.skip_to(index, value)


def test_a_released_counter_is_dead_until_it_is_acquired_anew() -> None:
    pool = CounterPool()
    index = pool.acquire()
    pool.reserve(index, 10)
    pool.release(index)
    for use in (lambda: pool.reserve(index, 1), lambda: pool.peek(index), lambda: pool.skip_to(index, 99)):
        with pytest.raises(CryptoError, match="not in use"):
            use()
    with pytest.raises(CryptoError, match="not in use"):
        pool.release(index)
    assert pool.acquire() == index
    assert pool.reserve(index, 1) == 0


@pytest.mark.parametrize("index", [-1, 511, 1 << 40])
def test_an_index_that_does_not_exist_is_refused(index: int) -> None:
    pool = CounterPool()
    for use in (lambda: pool.reserve(index, 1), lambda: pool.peek(index), lambda: pool.release(index)):
        with pytest.raises(CryptoError, match="no such counter"):
            use()


@pytest.mark.parametrize("n", [0, -1, 1 << 32])
def test_only_a_sensible_number_can_be_reserved(n: int) -> None:
    pool = CounterPool()
    index = pool.acquire()
    with pytest.raises(ValueError, match="reserved"):
        pool.reserve(index, n)
    assert pool.peek(index) == 0


def test_the_child_of_a_fork_gets_no_counter_and_the_parent_goes_on() -> None:
    pool = CounterPool()
    index = pool.acquire()
    pool.reserve(index, 7)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answers = []
        for use in (
            lambda: pool.reserve(index, 1),
            lambda: pool.peek(index),
            pool.acquire,
            lambda: pool.release(index),
        ):
            try:
                answers.append(f"got {use()}")
            except CryptoError as error:
                answers.append("forked" if "fork" in str(error) else str(error))
            except BaseException as error:  # whatever it is, the parent shall see it
                answers.append(repr(error))
        own = CounterPool()
        answers.append(str(own.reserve(own.acquire(), 1)))
        os.write(write, "\n".join(answers).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        answers = pipe.read().decode().split("\n")
    os.waitpid(child, 0)
    assert answers == ["forked"] * 4 + ["0"]
    assert pool.reserve(index, 1) == 7


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="elsewhere the process id is compared instead")
def test_on_linux_the_kernel_does_the_wiping() -> None:
    assert capabilities()["wipe_on_fork"]
