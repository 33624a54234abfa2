"""Which configuration holds for which origin: the middleware's, or one of `origins=`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from yarl import URL

from .._checks import shown, wrong_type
from ..config import AdaptiveConfig
from .classify import Classifier

#: Fields of what all origins share, where the middleware's own configuration holds.
SHARED: Final = (
    "window_size",
    "window_duration",
    "cleanup_frequency",
    "cleanup_interval",
    "memory_threshold_mb",
    "memory_baseline_mb",
    "pressure_window_size",
    "max_error_type_length",
    "record_error_messages",
    "max_error_message_length",
    "max_held_calls",
    "max_held_mb",
    "max_origins",
    "max_labelled_origins",
    "attempt_spans",
)
_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# As many classifiers are kept; more come of calls with options of their own.
_MOST_CLASSIFIERS: Final = 256

# Scheme, host and port; an empty scheme and no port stand for any.
_Place = tuple[str, str, int | None]


class Setups:
    """The configurations of one middleware by origin. `of` is O(1). One loop."""

    def __init__(self, config: AdaptiveConfig, origins: object) -> None:
        self._given = _checked(origins)
        self.config = config
        self.use(config)

    def use(self, config: AdaptiveConfig) -> None:
        """Take another configuration for the middleware; those of `origins=` stay."""
        # Calls that are under way go on by the former one.
        former, self.config = self.config, config
        shared = {name: getattr(config, name) for name in SHARED}
        self._by_place = {
            place: dataclasses.replace(given, **shared) for place, given in self._given.items()
        }
        self.all = (config, *self._by_place.values())
        #: Answers with one of these may be failures.
        self.retry_statuses = frozenset[int](former.retry_statuses).union(
            *(setup.retry_statuses for setup in self.all)
        )
        self._classifiers: dict[int, tuple[AdaptiveConfig, Classifier]] = {}
        for setup in self.all:
            self.classifier(setup)

    def of(self, name: str) -> AdaptiveConfig:
        """The configuration of an origin, by its name "scheme://host:port".

        An origin's key wins over that of a host with its port, and this over a host's alone.
        """
        found = self._by_place
        if not found:
            return self.config
        scheme, _, rest = name.partition("://")
        host, _, port_text = rest.rpartition(":")
        if not port_text.isdecimal():
            # An odd request, which has no port.
            return self.config
        host, port = host.strip("[]"), int(port_text)
        for place in ((scheme, host, port), ("", host, port), ("", host, None)):
            if place in found:
                return found[place]
        return self.config

    def classifier(self, config: AdaptiveConfig) -> Classifier:
        """Says what attempts came to by this configuration."""
        known = self._classifiers.get(id(config))
        if known is not None:
            return known[1]
        if len(self._classifiers) >= _MOST_CLASSIFIERS:
            self._classifiers.clear()
        made = Classifier(config)
        # With the configuration, as another one could get its identity.
        self._classifiers[id(config)] = config, made
        return made


def _checked(origins: object) -> dict[_Place, AdaptiveConfig]:
    """The configurations by place; what is wrong with a key or a value is named."""
    if origins is None:
        return {}
    if not isinstance(origins, Mapping):
        wanted = "a mapping of origins or hosts to AdaptiveConfigs, or None"
        raise wrong_type("origins", wanted, origins)
    places: dict[_Place, AdaptiveConfig] = {}
    for key, config in origins.items():
        place = _place(key)
        if not isinstance(config, AdaptiveConfig):
            raise wrong_type(f"origins[{shown(key)}]", "an AdaptiveConfig", config)
        if place in places:
            raise ValueError(f"origins has two keys for the same place, one is {shown(key)}")
        places[place] = config
    return places


def _place(key: object) -> _Place:
    """What a key of `origins=` names.

    >>> _place("https://API.example.com"), _place("batch.example.com"), _place("localhost:8080")
    (('https', 'api.example.com', 443), ('', 'batch.example.com', None), ('', 'localhost', 8080))
    """
    if not isinstance(key, str):
        raise wrong_type("each key of origins", "a str", key)
    wanted = "must be an origin, as 'https://example.com', or a host, as 'example.com'"
    named = "://" in key
    try:
        url = URL(key if named else f"http://{key}")
        host = (url.raw_host or "").lower()
        port = url.port if named else url.explicit_port
    except ValueError:
        host, port, url = "", None, URL()
    bare = url.raw_path in ("", "/") and not url.raw_query_string and not url.raw_fragment
    userinfo = url.raw_user is not None or url.raw_password is not None
    odd = not host or any(character.isspace() or character in "*?#@" for character in key)
    if odd or not bare or userinfo or (not named and "/" in key):
        # What stands behind the host may be a secret.
        raise ValueError(f"each key of origins {wanted}, got {_safe(key)}")
    if named and url.scheme not in _DEFAULT_PORTS:
        known = ", ".join(sorted(_DEFAULT_PORTS))
        raise ValueError(f"each key of origins must have one of the schemes {known}, got {key!r}")
    return (url.scheme if named else "", host, port)


def _safe(key: str) -> str:
    """A key without userinfo, path and query, for an error text."""
    scheme, separator, rest = key.rpartition("://") if "://" in key else ("", "", key)
    rest = rest.rpartition("@")[2]
    for end in "/?#":
        rest = rest.partition(end)[0] + ("/..." if end in rest else "")
    return shown(scheme + separator + rest)
