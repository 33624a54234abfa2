"""The calls that wait are bounded over all origins, in number and in what they keep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._origin.waiting import WaitingCalls

MIB = 1024 * 1024


@given(
    most=st.integers(1, 5),
    megabytes=st.sampled_from([0.001, 0.5, 1, 3]),
    steps=st.lists(
        st.one_of(st.integers(0, 2 * MIB), st.sampled_from([None, None, 0, 1, MIB])), max_size=60
    ),
)
def test_neither_bound_is_passed_whatever_comes_and_goes(
    most: int, megabytes: float, steps: list[int | None]
) -> None:
    """A call gets in exactly if both bounds hold with it, or nobody else waits."""
    waiting = WaitingCalls(AdaptiveConfig(max_held_calls=most, max_held_mb=megabytes))
    inside: list[int] = []
    for size in steps:
        if size is None:
            if inside:
                waiting.leave(inside.pop(0))
        else:
            fits = len(inside) < most and sum(inside) + size <= int(megabytes * MIB)
            assert waiting.enter(size) is (fits or not inside)
            if fits or not inside:
                inside.append(size)
        assert (waiting.count, waiting.bytes) == (len(inside), sum(inside))
    assert waiting.count <= most


def test_one_who_is_alone_may_keep_anything() -> None:
    """A lone upload of any size is retried; a second one beside it is not."""
    waiting = WaitingCalls(AdaptiveConfig(max_held_mb=1))
    assert waiting.enter(500 * MIB)
    assert not waiting.enter(0)
    waiting.leave(500 * MIB)
    assert waiting.enter(0)


def test_a_forked_child_counts_from_zero() -> None:
    """Calls that began in the parent and end in the child make no number negative."""
    waiting = WaitingCalls(AdaptiveConfig())
    assert waiting.enter(10)
    waiting.reset()
    waiting.leave(10)
    assert (waiting.count, waiting.bytes) == (0, 0)
