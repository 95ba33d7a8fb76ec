"""What all tests share: one seed, chaos counts, outside data, and marks that are checked."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from tests.plugins.machine import ROOT
from tests.requirements import THREATS

pytest_plugins = ["tests.plugins.skips"]

PR_GET_NO_NEW_PRIVS = 39
_AT_THE_START = ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
SHARED_DATA = ROOT.parent / "shared" / "data"
SOAK = bool(os.environ.get("REMIT_SOAK"))

hypothesis.settings.register_profile("quick", max_examples=60, deadline=None, print_blob=True)
hypothesis.settings.register_profile("soak", max_examples=2_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("soak" if SOAK else "quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threat", help="run only the tests marked with this threat, such as T-07")
    parser.addoption("--fuzz", type=int, default=1, help="how many times as much to fuzz")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed drives hypothesis and chaos; xdist's workers inherit it with the environment."""
    seed = os.environ.setdefault("REMIT_SEED", str(secrets.randbelow(2**32)))
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = seed


def pytest_report_header() -> str:
    counts = "full" if SOAK else "a tenth"
    return f"REMIT_SEED={os.environ['REMIT_SEED']} (set it to repeat this run), chaos: {counts}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--threat")
    left: list[pytest.Item] = []
    for item in items:
        threats = [name for mark in item.iter_markers("threat") for name in mark.args]
        for name in threats:
            if name not in THREATS:
                raise pytest.UsageError(f"{item.nodeid}: threat {name!r} is not in the manifest")
        if wanted is None or wanted in threats:
            left.append(item)
    if len(left) != len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in left])
        items[:] = left


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What a test does to this process for good would fail others, elsewhere and later."""
    if ctypes.CDLL(None).prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != _AT_THE_START:
        pytest.exit(f"{item.nodeid} took privileges from the process of all tests", returncode=3)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of this run; give it to `random.Random`, never to the global generator."""
    return int(os.environ["REMIT_SEED"])


@pytest.fixture(scope="session")
def chaos_count() -> Callable[[int], int]:
    """How often to repeat: all of `full` under `make soak`, else a tenth."""
    return lambda full: full if SOAK else max(1, full // 10)


@pytest.fixture(scope="session")
def fuzz_count(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How much to fuzz: so much, times what `--fuzz` says."""
    times: int = request.config.getoption("--fuzz")
    return lambda count: count * times


@pytest.fixture(scope="session")
def fuzz_seed(request: pytest.FixtureRequest, seed: int) -> int:
    """Always the same in `make test`, so that a change is what makes it fail; else the run's own."""
    return seed if request.config.getoption("--fuzz") > 1 else 1


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Where outside test data lies, which is never committed."""
    if not SHARED_DATA.is_dir():
        pytest.skip("outside test data is absent; to run it: put it in ../shared/data")
    return SHARED_DATA
