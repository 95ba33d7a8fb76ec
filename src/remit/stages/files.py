"""Files that a run left as results: kept by what they hold, named in the record by their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from remit.model import ResultFile
from remit.ports import Artifacts
from remit.telemetry import logger

log = logger()


async def keep_files(
    artifacts: Artifacts, run_id: str, files: Mapping[str, bytes]
) -> tuple[ResultFile, ...]:
    """Keep the files of a run. One that cannot be kept is still named: the run has its outcome."""
    return tuple([await _keep(artifacts, run_id, path, files[path]) for path in sorted(files)])


async def _keep(artifacts: Artifacts, run_id: str, path: str, data: bytes) -> ResultFile:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    try:
        kept = await artifacts.put(data) == digest
    except Exception as fault:  # a full disk must not lose the outcome
        log.warning("result_file_not_kept", run=run_id, exc_info=fault)
        kept = False
    return ResultFile(path=path, digest=digest, bytes=len(data), kept=kept)


def file_facts(files: tuple[ResultFile, ...]) -> list[dict[str, object]]:
    """Files as the record and replies name them."""
    return [
        {"path": each.path, "digest": each.digest, "bytes": each.bytes, "kept": each.kept}
        for each in files
    ]
