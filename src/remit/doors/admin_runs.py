"""The admin door's routes about runs: what ran, what it writes and wrote, and what it left."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from remit.doors import admin_json as values
from remit.doors.visit import Act, Visit
from remit.model import Frame, RunState


async def _runs(visit: Visit) -> Response:
    found = await visit.gateway.runs(visit.operator, visit.state(RunState), visit.limit())
    return JSONResponse({"runs": [values.run_json(one) for one in found]})


async def _run(visit: Visit) -> Response:
    return JSONResponse(values.run_json(await visit.gateway.run(visit.operator, visit.name())))


async def _run_output(visit: Visit) -> Response:
    output = await visit.gateway.run_output(visit.operator, visit.name())
    said = await visit.gateway.run_end(visit.operator, visit.name())
    return JSONResponse({**values.output_json(output), **values.kept_json(said)})


async def _run_stream(visit: Visit) -> Response:
    # Refused before the first byte: later there is only breaking off.
    frames = await visit.gateway.run_stream(visit.operator, visit.name(), visit.start())
    lines = _lines(visit, frames)
    return StreamingResponse(lines, media_type="application/jsonl", headers=_NOT_KEPT)


_NOT_KEPT = {"cache-control": "no-store", "x-accel-buffering": "no"}


async def _lines(visit: Visit, frames: AsyncIterator[Frame | str | None]) -> AsyncIterator[bytes]:
    live = False
    async for frame in frames:
        match frame:
            case None:
                yield _line({"silent": True})
            case str():
                yield _line({"hidden": frame})
            case _:
                live = True
                yield _line(values.frame_json(frame))
    run = await visit.gateway.run(visit.operator, visit.name())
    yield _line({"end": values.run_json(run), "live": live})


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


async def _files(visit: Visit) -> Response:
    said = await visit.gateway.run_end(visit.operator, visit.name())
    return JSONResponse({"files": said.get("files", [])})


async def _file(visit: Visit) -> Response:
    found = await visit.gateway.run_file(visit.operator, visit.name(), visit.part("path"))
    headers = {
        "content-disposition": "attachment",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    return Response(found, media_type="application/octet-stream", headers=headers)


async def _resolve(visit: Visit) -> Response:
    body = visit.read(values.ResolveBody)
    after = await visit.gateway.resolve(visit.operator, visit.name(), body.succeeded, body.note)
    return JSONResponse(values.run_json(after))


RUN_ROUTES: tuple[tuple[str, str, Act], ...] = (
    ("GET", "/v1/runs", _runs),
    ("GET", "/v1/runs/{name}", _run),
    ("GET", "/v1/runs/{name}/output", _run_output),
    ("GET", "/v1/runs/{name}/stream", _run_stream),
    ("GET", "/v1/runs/{name}/files", _files),
    ("GET", "/v1/runs/{name}/files/{path:path}", _file),
    ("POST", "/v1/runs/{name}/resolve", _resolve),
)
