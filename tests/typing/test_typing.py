"""Two type checkers read the calls that users write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = Path(__file__).with_name("api.py")


def mypy(path: Path) -> subprocess.CompletedProcess[str]:
    """mypy --strict, which calls unneeded ignores an error."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def pyright(path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """basedpyright, as strict as pyright is, unneeded ignores an error."""
    config = folder / "pyrightconfig.json"
    config.write_text(
        json.dumps(
            {
                "include": [str(path)],
                "typeCheckingMode": "strict",
                "enableTypeIgnoreComments": True,
                "reportUnnecessaryTypeIgnoreComment": "error",
                "pythonVersion": "3.11",
            }
        )
    )
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "basedpyright",
            "--project",
            str(config),
            "--pythonpath",
            sys.executable,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_mypy_takes_what_is_right_and_refuses_what_is_wrong() -> None:
    """Every call has the type that is promised, every slip is seen."""
    done = mypy(API)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues found in 1 source file" in done.stdout


def test_pyright_does_so_too(tmp_path: Path) -> None:
    """The package is typed for both."""
    done = pyright(API, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "0 errors" in done.stdout


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_checker_notices(checker: str, tmp_path: Path) -> None:
    """With a wrong promise in the file both fail."""
    wrong = tmp_path / "api.py"
    text = API.read_text(encoding="utf-8")
    assert "assert_type(strategy.success_rate, float)" in text
    wrong.write_text(text.replace("success_rate, float", "success_rate, str"), encoding="utf-8")
    done = mypy(wrong) if checker == "mypy" else pyright(wrong, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
