"""The origins in use: what is one origin, who goes first, and what a sweep does."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from .table import Table


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://a.example/x", True),
        ("http://a.example:80/", True),
        ("http://A.EXAMPLE/", True),
        ("HTTP://a.example/", True),
        ("http://user:pw@a.example/?q#f", True),
        ("http://a.example:8080/", False),
        ("https://a.example/", False),
        ("ws://a.example/", False),
        ("http://b.example/", False),
    ],
)
def test_an_origin_is_scheme_host_and_effective_port(url: str, same: bool) -> None:
    """The default port and the host's case make no second origin; nothing else of a URL counts."""
    registry = Table().registry
    first = registry.find(URL("http://a.example/"))
    assert (registry.find(URL(url)) is first) is same
    assert (registry.find(URL(url, encoded=True)) is first) is same
    assert len(registry) == (1 if same else 2)


def test_two_schemes_of_one_host_and_port_are_two_origins_whichever_goes_first() -> None:
    """They share a place in the table; each is found again, and takes the place when it is free."""
    table = Table(max_origins=2)
    plain, secure = "http://a.example:8443/", "https://a.example:8443/"
    for first, second in [(plain, secure), (secure, plain)]:
        table.registry.reset_after_fork()
        one, other = (table.registry.find(URL(url)) for url in (first, second))
        for _ in range(2):
            assert table.registry.find(URL(first)) is one
            assert table.registry.find(URL(second)) is other
        assert (one.scheme, other.scheme) == (URL(first).scheme, URL(second).scheme)
        # `one` has to go, as the least recently used.
        table.use("http://b.example/")
        assert table.hosts == ["a.example", "b.example"]
        assert table.registry.find(URL(second)) is other
        assert table.registry.table[URL(second).host_port_subcomponent] is other
        assert table.registry.find(URL(first)) is not one
        assert len(table.registry) == 2


def test_spellings_that_yarl_leaves_alone_are_one_origin() -> None:
    """A host in capitals in a URL that is taken as encoded is the same host."""
    registry = Table().registry
    first = registry.find(URL("https://a.example:443/"))
    for _ in range(3):
        assert registry.find(URL("https://A.Example:443/", encoded=True)) is first
        assert registry.find(URL.build(scheme="https", host="A.example")) is first
    assert len(registry) == 1
    assert (first.scheme, first.host, first.port) == ("https", "a.example", 443)


def test_ipv6_and_international_hosts() -> None:
    """Hosts that need brackets or an encoding are told apart like others."""
    registry = Table().registry
    v6 = registry.find(URL("http://[::1]:8080/"))
    assert (v6.host, v6.port) == ("::1", 8080)
    assert registry.find(URL("http://[::1]:8081/")) is not v6
    assert registry.find(URL("http://bücher.example/")) is registry.find(
        URL("http://xn--bcher-kva.example/")
    )


def test_odd_urls_are_one_origin_of_their_own() -> None:
    """A relative URL breaks nothing and gets no label of its own."""
    registry = Table().registry
    odd = registry.find(URL("/path?q"))
    assert registry.find(URL("other")) is odd
    assert odd.counters.label == ("_OTHER", None)


def test_the_least_recently_used_goes_first() -> None:
    """The bound is hard, and use counts, not age."""
    table = Table(max_origins=3)
    for host in ("a", "b", "c", "a", "c", "d"):
        table.use(f"http://{host}/")
        assert len(table.registry) <= 3
    assert table.hosts == ["a", "c", "d"]
    assert table.counters.origins_evicted["origin_limit"] == 1
    assert table.counters.cleanups["origin_limit"] == 1
    assert table.counters.evicted["origin"] == 1


def test_an_origin_with_a_call_in_flight_is_passed_over() -> None:
    """Where there is another choice, what is in use stays."""
    table = Table(max_origins=2)
    table.use("http://a/")
    table.registry.find(URL("http://a/")).begun += 1
    table.use("http://b/")
    table.use("http://c/")
    assert table.hosts == ["a", "c"]


def test_one_place_is_enough() -> None:
    """With one origin permitted, alternating hosts work, and calls in flight still record."""
    table = Table(max_origins=1)
    first = table.registry.find(URL("http://a/"))
    first.begun += 1
    table.use("http://b/")
    assert len(table.registry) == 1
    first.window.append(table.clock.now, 0)
    first.ended += 1
    evicted = table.counters.evicted
    recorded = sum(len(origin.window) for origin in table.registry.listed())
    assert recorded + sum(evicted.values()) == 2


def test_a_sweep_lets_idle_origins_go() -> None:
    """No attempt left in the window and no call in flight: the origin goes, and its label stays."""
    table = Table(cleanup_frequency=1, window_duration=timedelta(seconds=10))
    for number in range(20):
        table.use(f"http://h{number}/", code=number % 2)
    table.registry.find(URL("http://h3/")).begun += 1
    table.clock.now += 11
    table.use("http://late/")
    assert table.hosts == ["h3", "late"] or table.hosts == ["late", "h3"]
    assert table.counters.origins_evicted["idle"] == 19
    assert table.counters.evicted["expired"] == 19


def test_a_sweep_looks_at_the_least_recent_end_only() -> None:
    """However many origins there are, one sweep looks at a bounded number of them."""
    table = Table(cleanup_frequency=10**6, window_duration=timedelta(seconds=10))
    for number in range(1000):
        table.use(f"http://h{number}/")
    table.clock.now += 11
    table.sweeper.operations = 0
    table.sweeper.tick(table.clock.now)
    assert len(table.registry) == 1000 - 64
    for _ in range(20):
        table.sweeper.operations = 0
        table.sweeper.tick(table.clock.now)
    assert len(table.registry) == 0


def test_pressure_is_one_clean_up_and_cuts_all_windows() -> None:
    """One episode is one event; windows stay small through it and grow again after it."""
    table = Table(pressure_window_size=10, window_size=100)
    for _ in range(100):
        table.use("http://a/")
        table.use("http://b/", code=1)
    table.registry.find(URL("http://idle/"))
    table.resident = 400
    for _ in range(5):
        table.clock.now += 1
        table.use("http://a/")
    origins = {origin.host: origin.window for origin in table.registry.listed()}
    assert {host: len(window) for host, window in origins.items()} == {"a": 10, "b": 10}
    assert table.counters.cleanups["memory"] == 1
    assert table.counters.origins_evicted["memory"] == 1
    for _ in range(50):
        table.use("http://new/")
    assert len(table.registry.find(URL("http://new/")).window) == 10
    table.resident = 200
    table.clock.now += 1
    for _ in range(200):
        table.use("http://a/")
        table.use("http://new/")
    assert len(origins["a"]) == 100
    assert len(table.registry.find(URL("http://new/")).window) == 100
    assert table.counters.cleanups["memory"] == 1


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([0.0, 0.1, 3.0, 20.0]), st.integers(0, 3)),
        max_size=150,
    ),
    bound=st.integers(1, 8),
)
def test_what_is_in_windows_and_what_left_them_is_all(
    steps: list[tuple[int, float, int]], bound: int
) -> None:
    """Lengths and evictions add up to the attempts recorded, through evictions of all kinds."""
    table = Table(
        max_origins=bound,
        window_size=5,
        window_duration=timedelta(seconds=10),
        cleanup_frequency=3,
        pressure_window_size=2,
    )
    for number, (host, seconds, code) in enumerate(steps):
        table.clock.now += seconds
        table.resident = 400 if number % 17 > 13 else 200
        table.use(f"http://h{host}/", code)
        assert len(table.registry) <= bound
    windows = [origin.window for origin in table.registry.listed()]
    out = sum(table.counters.evicted.values()) + sum(
        window.evicted_capacity + window.evicted_expired + window.evicted_memory
        for window in windows
    )
    assert sum(map(len, windows)) + out == len(steps)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.example/x?q", "https://a.example:443"),
        ("http://me:pw@A.example:8080/", "http://a.example:8080"),
        ("ws://[::1]/", "ws://::1:80"),
    ],
)
def test_a_policy_is_made_for_each_origin_by_its_name(url: str, name: str) -> None:
    """Scheme, host and port, the default one too; nothing else of a URL reaches the policy."""
    table = Table()
    for _ in range(3):
        table.use(url)
    assert table.made == [name]


def test_an_evicted_origin_gets_a_new_policy() -> None:
    """What a policy has learnt goes with its origin."""
    table = Table(max_origins=1)
    first = table.registry.find(URL("http://a/")).policy
    table.use("http://b/")
    assert table.registry.find(URL("http://a/")).policy is not first
    assert table.made == ["http://a:80", "http://b:80", "http://a:80"]
