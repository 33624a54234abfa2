"""Builds the OpenTelemetry Collector of collector-config/builder.yaml: `make collector`.

It is built once for a manifest, with Go, outside the repository: in the folder that OTELCOL_CACHE
names, or in the user's cache folder. Prints where the binary is. With OTELCOL set, that binary is
taken as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "collector-config" / "builder.yaml"

_BUILDER = "go.opentelemetry.io/collector/cmd/builder@"

#: What to do where there is no collector and no Go to build one.
ADVICE = (
    "install Go 1.26 or newer and run `make collector`, or set OTELCOL to the path of an "
    "otelcol-contrib binary"
)


class CannotBuildError(Exception):
    """There is no collector, and none can be built; the text says what to do."""


def cache() -> Path:
    """The folder where built collectors are kept."""
    named = os.environ.get("OTELCOL_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "aiohttp-adaptive-retry"


def built() -> Path:
    """Where the collector of the present manifest is, or would be."""
    fingerprint = hashlib.sha256(MANIFEST.read_bytes()).hexdigest()[:12]
    return cache() / f"otelcol-{fingerprint}" / "otelcol"


def find() -> Path | None:
    """The collector to use, if there is one: OTELCOL, or what was built before."""
    named = os.environ.get("OTELCOL")
    if named:
        return Path(named)
    return built() if built().is_file() else None


def build() -> Path:
    """The collector to use, built if need be: some minutes at the first time.

    Raises:
        CannotBuildError: there is no Go.
        subprocess.CalledProcessError: the builder failed; what it printed says why.
    """
    found = find()
    if found is not None:
        return found
    go = shutil.which("go")
    if go is None:
        raise CannotBuildError(f"there is no Go to build a collector: {ADVICE}")
    target = built()
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest = MANIFEST.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="otelcol-build-") as folder:
        copy = Path(folder) / "builder.yaml"
        output = Path(folder) / "out"
        copy.write_text(manifest.replace("dist:\n", f"dist:\n  output_path: {output}\n", 1))
        subprocess.run(
            [go, "run", _BUILDER + version(), "--config", str(copy)],
            check=True,
            cwd=folder,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"},
            stdout=sys.stderr,
        )
        # The file is moved only when it is whole: a build that was cut short leaves nothing.
        partial = target.with_suffix(".partial")
        shutil.copy2(output / "otelcol", partial)
        partial.replace(target)
    return target


def version() -> str:
    """The builder's version: that of the collector's core in the manifest."""
    found = re.search(r"receiver/otlpreceiver (v[\d.]+)", MANIFEST.read_text(encoding="utf-8"))
    if found is None:
        raise CannotBuildError(f"{MANIFEST.name} names no version of otlpreceiver")
    return found[1]


def main() -> int:
    """Build, print the path; 1 with advice where that can't be."""
    try:
        print(build())
    except CannotBuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
