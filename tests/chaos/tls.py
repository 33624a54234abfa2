"""Certificates: one that is right, and some that are wrong."""

from __future__ import annotations

import functools
import ssl
from datetime import UTC, datetime, timedelta

import trustme

__all__ = ("HOST", "client_side", "expired", "misnamed", "old", "server_side", "untrusted")

HOST = "upstream.test"


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def client_side() -> ssl.SSLContext:
    """A client that trusts our authority, and takes TLS 1.3 only."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _authority().configure_trust(context)
    return context


def _with(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@functools.cache
def server_side() -> ssl.SSLContext:
    """What the client accepts."""
    return _with(_authority().issue_cert(HOST))


@functools.cache
def untrusted() -> ssl.SSLContext:
    """A certificate of another authority."""
    return _with(trustme.CA().issue_cert(HOST))


@functools.cache
def misnamed() -> ssl.SSLContext:
    """A certificate for another host."""
    return _with(_authority().issue_cert("elsewhere.test"))


@functools.cache
def expired() -> ssl.SSLContext:
    """A certificate that was right until yesterday."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return _with(_authority().issue_cert(HOST, not_after=yesterday))


@functools.cache
def old() -> ssl.SSLContext:
    """The right certificate, and TLS 1.2 at most."""
    context = _with(_authority().issue_cert(HOST))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
