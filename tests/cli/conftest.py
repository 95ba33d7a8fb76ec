"""The command line as a person uses it, in the same process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from remit.cli.main import run


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Remit = Callable[..., Ended]


@pytest.fixture
def remit(capfd: pytest.CaptureFixture[str]) -> Remit:
    """Run a command; gives its exit code and what it printed."""

    def command(*words: str | Path) -> Ended:
        capfd.readouterr()
        try:
            code = run([str(word) for word in words])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ended(code, out, err)

    return command


@pytest.fixture
def home(tmp_path: Path, remit: Remit, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory in which `remit init` was just run."""
    monkeypatch.chdir(tmp_path)
    for name in ("REMIT_CONFIG", "REMIT_OPERATOR_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert remit("init").code == 0
    return tmp_path
