"""Names that nobody called cost nothing until they have succeeded; neither do names that are none.

A server can redirect to as many names as it likes, so whatever an unknown name gets by itself is
multiplied.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_adaptive_retry._origin import counters
from aiohttp_adaptive_retry._origin.counters import OTHER_LABEL, OTHER_NAME
from aiohttp_adaptive_retry._origin.newcomers import Newcomers, can_be_label
from aiohttp_adaptive_retry._origin.origin import Origin

from .table import Table


class Site(Table):
    """A registry, called by name and by redirects."""

    def named(self, host: str, ok: bool = True) -> Origin:
        """One call that began at that host."""
        return self._called(host, False, 200 if ok else None)

    def brought(self, host: str, status: int | None = 200) -> Origin:
        """One call that a redirect led to that host; None if it failed."""
        return self._called(host, True, status)

    def _called(self, host: str, brought: bool, status: int | None) -> Origin:
        url = URL.build(scheme="http", host=host)
        origin = self.registry.find(url, brought=brought)
        origin.begun += 1
        origin.window.append(self.clock.now, 0 if status else 1)
        if status and not origin.settled:
            self.registry.settle(origin, url, "", status, by_name=not brought)
        origin.ended += 1
        self.clock.now += 0.001
        return origin

    @property
    def places(self) -> set[str]:
        """The hosts in the table."""
        return {origin.host for origin in self.registry.table.values()}


def test_what_a_redirect_brings_has_no_place_before_it_succeeds() -> None:
    """All unknown names are one origin, `_OTHER`, with one budget and no label."""
    site = Site()
    one, two = site.brought("a.example", None), site.brought("b.example", None)
    assert one is two is site.registry.others
    assert (one.host, one.counters.label) == (OTHER_NAME, OTHER_LABEL)
    assert site.places == set()
    assert site.made == [OTHER_NAME]
    # Redirects that lead on, and errors, prove nothing.
    for status in (301, 302, 303, 307, 308, 400, 404, 410):
        site.brought("a.example", status)
    assert site.places == set()
    site.brought("a.example", 200)
    assert site.places == {"a.example"}
    (known,) = site.registry.table.values()
    assert site.brought("a.example", None) is known
    assert known.counters.label == ("a.example", 80)


def test_what_is_called_by_name_has_a_place_at_once() -> None:
    """Also after a redirect led there in vain."""
    site = Site()
    site.brought("a.example", None)
    origin = site.named("a.example", ok=False)
    assert site.places == {"a.example"}
    assert origin.counters.label == ("a.example", 80)
    assert not origin.proven
    assert site.brought("a.example", None) is origin


def test_redirects_take_no_more_than_a_quarter_of_the_places() -> None:
    """However many names succeed for whoever redirects to them, those of the application stay."""
    site = Site(max_origins=40)
    mine = {f"m{number}.example" for number in range(30)}
    for host in sorted(mine):
        site.named(host)
    for number in range(500):
        site.brought(f"n{number}.evil")
    assert mine <= site.places
    assert len(site.places) == 40
    # In a full table of known origins there is room for one of them.
    site = Site(max_origins=40)
    for number in range(40):
        site.named(f"m{number}.example")
    for number in range(500):
        site.brought(f"n{number}.evil")
    assert len([host for host in site.places if host.endswith(".evil")]) == 1


def test_redirects_take_no_more_than_a_quarter_of_the_labels() -> None:
    """And who is called by name later gets a label of its own after all."""
    site = Site(max_labelled_origins=20)
    for number in range(100):
        site.brought(f"n{number}.evil")
    labels = {label.label[0] for label in site.counters.labels} - {OTHER_NAME}
    assert len(labels) == 5
    origin = site.brought("cdn.example")
    origin = site.brought("cdn.example")
    assert origin.counters.label == OTHER_LABEL
    origin.window.renew_lease(100, site.clock.now + 10)
    for _ in range(3):
        assert origin.window.record_fast(site.clock.now)
    before = origin.counters.first_success
    shared = origin.counters
    site.named("cdn.example")
    assert origin.counters.label == ("cdn.example", 80)
    # What was counted under the shared label stays there, and is counted once.
    assert shared.first_success == before + 3
    assert origin.window.fast_total == 0
    for number in range(30):
        site.named(f"m{number}.example")
    labels = {label.label[0] for label in site.counters.labels} - {OTHER_NAME}
    assert len(labels) == 20
    assert len([name for name in labels if name.endswith(".evil")]) == 5


def test_a_flush_forgets_those_first_that_never_succeeded() -> None:
    """Known origins, dead or alive, stay while names that never answered come and go."""
    site = Site(max_origins=10)
    for number in range(8):
        site.named(f"m{number}.example")
    for number in range(1000):
        site.named(f"n{number}.evil", ok=False)
    assert {f"m{number}.example" for number in range(8)} <= site.places


def test_of_known_origins_the_healthy_ones_go_first() -> None:
    """What is down, or owes tokens, is worth more in memory than what is well."""
    site = Site(max_origins=4)
    down = site.named("down.example")
    down.policy.outage.down_since = site.clock.now  # type: ignore[union-attr]
    debtor = site.named("debtor.example")
    debtor.policy._flow.tokens = 0.0  # type: ignore[union-attr]
    for number in range(10):
        site.named(f"m{number}.example")
    assert {"down.example", "debtor.example", "m8.example", "m9.example"} == site.places


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["named", "brought"]),
            st.integers(0, 30),
            st.sampled_from([None, 200, 204, 302, 404]),
        ),
        max_size=150,
    ),
    most=st.integers(1, 8),
    labels=st.integers(0, 8),
)
def test_the_bounds_hold_in_any_order(
    steps: list[tuple[str, int, int | None]], most: int, labels: int
) -> None:
    """Places, labels and permits: never too many, none lost, and nothing counted twice."""
    counters._registry = counters.LabelRegistry()
    site = Site(max_origins=most, max_labelled_origins=labels)
    registry = site.registry
    for calls, (kind, number, status) in enumerate(steps, 1):
        if kind == "named":
            site.named(f"h{number}.example", status is not None)
        else:
            site.brought(f"h{number}.example", status)
        assert len(registry.table) <= most
        assert len(site.counters.labels) <= labels + 1
        assert set(registry._unproven) | set(registry._brought) <= set(registry.table.values())
        assert all(not origin.proven for origin in registry._unproven)
        assert all(origin.proven and not origin.named for origin in registry._brought)
        assert all(origin.key == key for key, origin in registry.table.items())
        recorded = sum(len(origin.window) for origin in registry.listed())
        assert recorded + site.counters.evicted["origin"] == calls
    assert site.counters.faults.count == 0


# Names.


@pytest.mark.parametrize(
    ("length", "own"), [(1, True), (253, True), (254, False), (8_000, False), (60_000, False)]
)
def test_a_name_that_is_too_long_belongs_to_the_others(length: int, own: bool) -> None:
    """In the table and in labels, called by name or not, and whatever it answers."""
    site = Site()
    host = ("a" * 50 + ".") * (length // 51) + "b" * (length % 51)
    assert len(host) == length
    for _ in range(2):
        origin = site.named(host)
        assert (origin.host == host) is own
        assert (origin.counters.label == OTHER_LABEL) is not own
    site.brought(host)
    assert site.places == ({host} if own else set())


def test_a_last_dot_is_no_part_of_a_name() -> None:
    """An absolute name may have one character more."""
    site = Site()
    assert site.named("a" * 253 + ".").host == "a" * 253 + "."


@pytest.mark.parametrize("host", ['x"} 1', "a{b=c}", "it's.example", "a\\b", "a\nb", "a,b", ""])
def test_what_no_name_can_hold_is_no_label(host: str) -> None:
    """Exporters write labels between quotes and braces."""
    assert not can_be_label(host)


@pytest.mark.parametrize(
    "host", ["example.com", "a_b", "xn--bcher-kva.example", "::1", "fe80::1%1"]
)
def test_names_and_addresses_are_labels(host: str) -> None:
    """As they are."""
    assert can_be_label(host)


def test_permits_are_bounded_and_come_back() -> None:
    """Successes bring a tenth of one each; an origin that succeeds gives its own back."""
    newcomers = Newcomers(2.0)
    assert [newcomers.take() for _ in range(4)] == [True, True, False, False]
    newcomers.earn(9)
    assert not newcomers.take()
    newcomers.earn(1)
    assert newcomers.take()
    for _ in range(10):
        newcomers.give_back()
    newcomers.earn(1000)
    assert newcomers.permits == 2.0


def _origins(site: Any, count: int) -> list[Origin]:
    return [site.registry.find(URL(f"http://n{number}.example/")) for number in range(count)]


def test_many_unknown_origins_share_their_first_retries() -> None:
    """Twenty of them may be retried; more as others succeed; each as often as it likes."""
    site = Site(max_origins=1000)
    origins = _origins(site, 100)
    assert [origin.may_retry() for origin in origins].count(True) == 20
    assert [origin.may_retry() for origin in origins].count(True) == 20
    # One of them succeeds, so it needs no permit, and another one gets it.
    site.registry.settle(origins[0], URL("http://n0.example/"), "", 200, by_name=True)
    assert origins[0].may_retry()
    assert [origin.may_retry() for origin in origins].count(True) == 21


def test_a_client_of_many_hosts_is_not_starved() -> None:
    """Where nine of ten new hosts are well, every blip of a new one may be retried."""
    site = Site(max_origins=2000)
    granted = 0
    for number in range(1000):
        url = URL(f"http://n{number}.example/")
        origin = site.registry.find(url)
        if number % 10 == 0:
            granted += origin.may_retry()
        else:
            site.registry.newcomers.earn(1)
        site.registry.settle(origin, url, "", 200, by_name=True)
    assert granted == 100
