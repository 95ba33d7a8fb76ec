"""Files of runs kept in memory, and the contract that every `Artifacts` must keep."""

from __future__ import annotations

import hashlib

import pytest

from remit.ports import Artifacts


class MemoryArtifacts:
    """The `Artifacts` port without a disk; nothing is pruned by age."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        name = "sha256:" + hashlib.sha256(data).hexdigest()
        self.kept[name] = data
        return name

    async def get(self, digest: str) -> bytes | None:
        return self.kept.get(digest)

    async def prune(self, now_ms: int) -> int:
        return 0


class ArtifactsContract:
    """What every `Artifacts` must do: subclass, and override the `artifacts` fixture."""

    @pytest.fixture
    def artifacts(self) -> Artifacts:
        raise NotImplementedError

    @pytest.mark.parametrize("data", [b"", b"text\n", bytes(range(256)) * 4096])
    async def test_what_was_put_is_found_by_its_digest(
        self, artifacts: Artifacts, data: bytes
    ) -> None:
        name = await artifacts.put(data)
        assert name == "sha256:" + hashlib.sha256(data).hexdigest()
        assert await artifacts.get(name) == data

    async def test_the_same_bytes_are_kept_once(self, artifacts: Artifacts) -> None:
        assert await artifacts.put(b"same") == await artifacts.put(b"same")

    @pytest.mark.parametrize(
        "name", ["sha256:" + "0" * 64, "sha256:../../etc/passwd", "md5:abc", "", "sha256:"]
    )
    async def test_what_was_never_put_is_not_found(self, artifacts: Artifacts, name: str) -> None:
        assert await artifacts.get(name) is None
