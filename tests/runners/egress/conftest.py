from __future__ import annotations

from pathlib import Path

import pytest

from tests.runners.egress.world import Certificates, certificates


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority whose server is one.test, two.test, localhost and 127.0.0.1."""
    return certificates(Path(tmp_path_factory.mktemp("egress-certificates")))
