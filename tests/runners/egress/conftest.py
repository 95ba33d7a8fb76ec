from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remit.runners.egress.client import EgressProxy
from remit.runners.egress.settings import EgressSettings
from tests.runners.egress.process import OWN_UID, Keeper, Place
from tests.runners.egress.world import Certificates, certificates, destination, ok


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority whose server is one.test, two.test, localhost and 127.0.0.1."""
    return certificates(Path(tmp_path_factory.mktemp("egress-certificates")))


@pytest.fixture
async def place(certs: Certificates) -> AsyncIterator[Place]:
    keeper = Keeper()
    async with destination(certs.chain) as there:
        there.reply = lambda asked: ok(asked.headers.get("authorization", "none").encode())
        settings = EgressSettings(
            internal=(f"localhost:{there.port}",), ca_pem=certs.authority, uid=OWN_UID
        )
        proxy = await EgressProxy.open(settings, keeper.renew)
        try:
            yield Place(proxy, keeper, there)
        finally:
            await proxy.aclose()
            keeper.close()
