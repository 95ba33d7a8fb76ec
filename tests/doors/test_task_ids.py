"""No task is ever made here, so whatever names one was made up or is another gateway's."""

from __future__ import annotations

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import EmptyResult, Request

from remit.doors.mcp import mcp_app
from remit.doors.settings import DoorSettings
from tests.doors.fake import FakeGateway
from tests.doors.serving import LEGACY, call_body, client, modern_meta, served
from tests.doors.test_mcp_edge import one, post

pytestmark = [pytest.mark.anyio, pytest.mark.threat("T-48")]

METHODS = ["tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "tasks/list"]


@pytest.mark.parametrize("method", METHODS)
async def test_a_forged_task_id_is_refused_as_any_unknown_method_is(method: str) -> None:
    gateway = FakeGateway()
    params = {"taskId": "01J0000000000000000000000", "_meta": modern_meta()}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with served(mcp_app(gateway, DoorSettings())) as url:
        answer = await post(url, body, {"mcp-name": "01J0000000000000000000000"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
    assert gateway.calls == []


@pytest.mark.parametrize("method", METHODS)
async def test_a_client_of_the_handshake_learns_nothing_from_a_forged_task_id(method: str) -> None:
    gateway = FakeGateway()
    async with (
        served(mcp_app(gateway, DoorSettings())) as url,
        client(url, mode="legacy") as asking,
    ):
        assert asking.session.protocol_version == LEGACY
        with pytest.raises(MCPError) as refused:
            await asked(asking, method)
    assert refused.value.error.code == -32601
    assert gateway.calls == []


async def asked(asking: Client, method: str) -> None:
    request: Request[dict[str, str], str] = Request(method=method, params={"taskId": "made up"})
    await asking.session.send_request(request, EmptyResult)


async def test_a_call_that_asks_to_be_a_task_is_answered_whole() -> None:
    body = call_body("echo", {"text": "x"})
    body["params"]["task"] = {"ttl": 60_000}
    answer = await one(body)
    assert answer.json()["result"]["resultType"] == "complete"
    assert "task" not in answer.json()["result"]
