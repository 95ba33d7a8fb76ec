"""The admin door, through its own client and through plain HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from anyio import to_thread

from remit.doors.admin import ROUTES, admin_app
from remit.doors.client import AdminClient
from remit.doors.settings import DoorSettings
from remit.errors import Code, Conflict, NotFound, Refused, RemitError
from tests.doors.fake_admin import PLAN, FakeAdmin
from tests.doors.serving import http, raw, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

T = TypeVar("T")


async def ask(act: Callable[[], T]) -> T:
    """The client is synchronous; the server shares this loop."""
    return await to_thread.run_sync(act)


@asynccontextmanager
async def admin(
    gateway: FakeAdmin, token: str | None = "op-olga"
) -> AsyncIterator[tuple[str, AdminClient]]:
    async with served(admin_app(gateway, DoorSettings())) as url:
        yield url, AdminClient(url, token)


async def test_an_approval_shows_the_plan_and_keeps_the_agents_words_apart() -> None:
    async with admin(FakeAdmin()) as (_, client):
        (listed,) = await ask(lambda: client.approvals("pending"))
        shown = await ask(lambda: client.approval("apr_1"))
    assert listed == shown
    assert shown["shown"] == {
        "consequence": "Changes two services.",
        "claimed": {"purpose": "trust me"},
    }
    assert shown["plan_hash"] == PLAN
    assert shown["rule"]["groups"] == ["ops"]
    assert shown["caller"]["kind"] == "agent"


@pytest.mark.parametrize(("verdict", "state"), [("approve", "approved"), ("deny", "denied")])
async def test_a_vote_decides_and_says_who_gave_it(verdict: str, state: str) -> None:
    async with admin(FakeAdmin()) as (_, client):
        after = await ask(lambda: client.vote("apr_1", PLAN, verdict, "looked at it"))
    assert after["state"] == state
    assert after["votes"][0] | {"voted_ms": 0} == {
        "subject": "olga",
        "verdict": verdict,
        "voted_ms": 0,
        "groups": [],
        "reason": "looked at it",
    }


@pytest.mark.threat("T-07")
async def test_a_vote_for_another_plan_is_refused_with_its_code() -> None:
    gateway = FakeAdmin()
    async with admin(gateway) as (_, client):
        with pytest.raises(Conflict) as refused:
            await ask(lambda: client.vote("apr_1", "sha256:other", "approve"))
    assert refused.value.code is Code.APPROVAL_MISMATCH
    assert gateway.approval_now.votes == ()


async def test_a_second_vote_is_a_conflict() -> None:
    async with admin(FakeAdmin()) as (_, client):
        await ask(lambda: client.vote("apr_1", PLAN, "approve"))
        with pytest.raises(Conflict) as refused:
            await ask(lambda: client.vote("apr_1", PLAN, "approve"))
    assert refused.value.code is Code.WRONG_STATE


async def test_an_operator_who_may_only_read_cannot_vote() -> None:
    async with admin(FakeAdmin(), "op-ray") as (_, client):
        with pytest.raises(Refused) as refused:
            await ask(lambda: client.vote("apr_1", PLAN, "approve"))
    assert refused.value.code is Code.APPROVAL_NOT_ELIGIBLE


async def test_a_request_for_access_keeps_the_agents_words_apart_and_is_closed_once() -> None:
    gateway = FakeAdmin()
    async with admin(gateway) as (_, client):
        (listed,) = await ask(lambda: client.access_requests("pending"))
        after = await ask(lambda: client.close_request("req_1", "ask the owner"))
        assert await ask(lambda: client.access_requests("pending")) == []
        with pytest.raises(Conflict) as again:
            await ask(lambda: client.close_request("req_1", "ask the owner"))
        with pytest.raises(NotFound):
            await ask(lambda: client.close_request("req/../2", "no"))
        with pytest.raises(RemitError) as empty:
            await ask(lambda: client.close_request("req_1", ""))
    assert listed["claimed"] == {"reason": "trust me", "arguments": {"service": "db"}}
    assert (listed["codes"], listed["decision_id"]) == (["not_yours"], "dec_1")
    assert "trust me" not in str({k: v for k, v in listed.items() if k != "claimed"})
    assert (after["state"], after["closed_by"], after["note"]) == (
        "closed",
        "olga",
        "ask the owner",
    )
    assert again.value.code is Code.WRONG_STATE
    assert empty.value.code is Code.INVALID_ARGUMENTS


async def test_an_operator_who_may_only_read_closes_no_request() -> None:
    async with admin(FakeAdmin(), "op-ray") as (_, client):
        assert len(await ask(client.access_requests)) == 1
        with pytest.raises(Refused) as refused:
            await ask(lambda: client.close_request("req_1", "no"))
    assert refused.value.code is Code.APPROVAL_NOT_ELIGIBLE


async def test_runs_are_listed_shown_and_resolved() -> None:
    async with admin(FakeAdmin()) as (_, client):
        assert await ask(lambda: client.runs("succeeded")) == []
        (run,) = await ask(lambda: client.runs("unknown"))
        assert (await ask(lambda: client.run("run_1"))) == run
        after = await ask(lambda: client.resolve("run_1", True, "it did happen"))
    assert (run["state"], run["tool"], run["kind"]) == ("unknown", "apply", "main")
    assert (after["resolved_by"], after["resolved_as"]) == ("olga", "succeeded")


async def test_output_that_is_not_text_comes_exactly_too() -> None:
    async with admin(FakeAdmin()) as (_, client):
        output = await ask(lambda: client.run_output("run_1"))
    assert output["stdout"] == {"text": "done ✓\n", "bytes": 9}
    assert base64.b64decode(output["stderr"]["base64"]) == b"\xff\x00"


async def test_the_log_is_searched_shown_and_exported() -> None:
    gateway = FakeAdmin()
    async with admin(gateway) as (_, client):
        found = await ask(lambda: client.entries({"event": "start", "tool": "a=b"}, limit=5))
        one = await ask(lambda: client.entry(0))
        export = await ask(lambda: b"".join(client.export()))
    assert gateway.asked == [({"event": "start", "tool": "a=b"}, 5)]
    assert found == [one]
    assert one["entry"] == {"event": "start", "seq": 0}
    assert [json.loads(line)["seq"] for line in export.splitlines()] == [0, 1, 2]


@pytest.mark.threat("T-22")
async def test_an_export_that_breaks_off_is_not_taken_for_the_whole() -> None:
    gateway = FakeAdmin()

    async def broken(operator: object) -> AsyncIterator[bytes]:
        async def lines() -> AsyncIterator[bytes]:
            yield b'{"seq": 0}\n'
            raise OSError("the disk went away")

        return lines()

    gateway.export = broken  # type: ignore[method-assign]
    async with admin(gateway) as (_, client):
        with pytest.raises(RemitError) as refused:
            await ask(lambda: list(client.export()))
    assert refused.value.code is Code.SERVER_UNREACHABLE


async def test_everything_is_frozen_and_thawed() -> None:
    gateway = FakeAdmin()
    async with admin(gateway) as (_, client):
        await ask(lambda: client.freeze("incident 7"))
        assert gateway.frozen == "incident 7"
        assert (await ask(client.status))["unsafe"] == ["unsafe_same_user"]
        await ask(lambda: client.thaw("over"))
    assert gateway.frozen is None


async def test_tools_are_listed_with_what_their_digest_covers() -> None:
    async with admin(FakeAdmin()) as (_, client):
        (tool,) = await ask(client.tools)
    assert (tool["name"], tool["effect"]) == ("apply", "destructive")
    assert tool["command"]["argv"] == ["true"]
    assert tool["input_schema"]["type"] == "object"


async def test_readiness_names_each_reason() -> None:
    gateway = FakeAdmin()
    async with admin(gateway, None) as (url, client):
        assert await ask(client.ready) == []
        gateway.not_ready = ["policy: not loaded"]
        assert await ask(client.ready) == ["policy: not loaded"]
        async with http() as plain:
            assert (await plain.get(f"{url}/readyz")).status_code == 503
            assert (await plain.get(f"{url}/healthz")).json() == {"ok": True}
            assert "remit_calls" in (await plain.get(f"{url}/metrics")).text


@pytest.mark.threat("T-02")
async def test_every_route_but_the_open_ones_wants_an_operators_credential() -> None:
    async with served(admin_app(FakeAdmin(), DoorSettings())) as url, http() as plain:
        for method, path, _ in ROUTES:
            for key in (None, "Bearer key-ann", "Bearer x", "Basic b3A6b2xnYQ=="):
                headers = {} if key is None else {"authorization": key}
                answer = await plain.request(method, url + path, headers=headers)
                assert answer.status_code == 401, path
                assert answer.json()["code"] == "unauthenticated"
                assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_cookie_is_no_credential() -> None:
    async with served(admin_app(FakeAdmin(), DoorSettings())) as url, http() as plain:
        answer = await plain.get(f"{url}/v1/tools", headers={"cookie": "token=op-olga"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.threat("T-04")
@pytest.mark.parametrize("path", ["/v1/status", "/metrics", "/readyz"])
async def test_a_page_of_another_site_is_turned_away(path: str) -> None:
    gateway = FakeAdmin()
    async with served(admin_app(gateway, DoorSettings())) as url:
        port = url.rsplit(":", 1)[1]
        key = "Authorization: Bearer op-olga"
        good = f"Host: 127.0.0.1:{port}"
        foreign = [f"GET {path} HTTP/1.1", good, "Origin: https://evil.example", key]
        rebound = [f"GET {path} HTTP/1.1", "Host: evil.example", key]
        twice = [f"GET {path} HTTP/1.1", good, good, key]
        assert (await raw(url, foreign)).status == 403
        assert (await raw(url, rebound)).status == 421
        assert (await raw(url, twice)).status == 400
        assert (await raw(url, [f"GET {path} HTTP/1.1", good, key])).status == 200


@pytest.mark.threat("T-06")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"reason":"a","reason":"b"}', "duplicate_key"),
        (b'{"reason":"a","more":1}', "invalid_arguments"),
        (b'{"reason":7}', "invalid_arguments"),
        (b'{"reason":""}', "invalid_arguments"),
        (b"reason=a", "malformed_json"),
        (b'{"reason":"\\ud800"}', "invalid_unicode"),
    ],
)
async def test_a_body_that_could_be_read_two_ways_does_nothing(body: bytes, code: str) -> None:
    gateway = FakeAdmin()
    headers = {"authorization": "Bearer op-olga", "content-type": "application/json"}
    async with served(admin_app(gateway, DoorSettings())) as url, http() as plain:
        answer = await plain.post(f"{url}/v1/freeze", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert gateway.frozen is None


@pytest.mark.parametrize("succeeded", ['"yes"', "1", '"true"', "null"])
async def test_what_became_of_a_run_is_said_as_true_or_false_and_nothing_else(
    succeeded: str,
) -> None:
    body = f'{{"succeeded": {succeeded}, "note": "looked"}}'.encode()
    headers = {"authorization": "Bearer op-olga", "content-type": "application/json"}
    async with served(admin_app(FakeAdmin(), DoorSettings())) as url, http() as plain:
        answer = await plain.post(f"{url}/v1/runs/run_1/resolve", content=body, headers=headers)
    assert (answer.status_code, answer.json()["place"]) == (400, "/succeeded")


async def test_what_a_form_of_a_web_page_can_send_does_nothing() -> None:
    gateway = FakeAdmin()
    headers = {"authorization": "Bearer op-olga", "content-type": "text/plain"}
    async with served(admin_app(gateway, DoorSettings())) as url, http() as plain:
        answer = await plain.post(f"{url}/v1/freeze", content=b'{"reason":"x"}', headers=headers)
    assert answer.status_code == 415
    assert gateway.frozen is None


@pytest.mark.threat("T-05")
async def test_a_body_over_the_limit_is_turned_away() -> None:
    headers = {"authorization": "Bearer op-olga", "content-type": "application/json"}
    settings = DoorSettings(body_limit_bytes=100)
    async with served(admin_app(FakeAdmin(), settings)) as url, http() as plain:
        answer = await plain.post(
            f"{url}/v1/freeze", content=json.dumps({"reason": "x" * 200}), headers=headers
        )
    assert answer.status_code == 413
    assert answer.json()["code"] == "body_too_large"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        f"limit=000000001{'0' * 12}",
        f"limit={'9' * 5000}",
        "state=nothing",
        "state=",
    ],
)
async def test_a_query_that_means_nothing_is_refused_and_not_repeated(query: str) -> None:
    async with served(admin_app(FakeAdmin(), DoorSettings())) as url, http() as plain:
        answer = await plain.get(
            f"{url}/v1/approvals?{query}", headers={"authorization": "Bearer op-olga"}
        )
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_arguments"
    assert "nothing" not in answer.json()["message"]


async def test_what_is_not_there_is_said_in_json() -> None:
    async with admin(FakeAdmin()) as (url, client), http() as plain:
        for path in ("/", "/v1/nothing", "/v1/tools/", "/healthz/"):
            answer = await plain.get(url + path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        with pytest.raises(NotFound):
            await ask(lambda: client.approval("apr_2"))
        with pytest.raises(NotFound):
            await ask(lambda: client.entry(-1))
        with pytest.raises(NotFound):
            await ask(lambda: client.run("../../healthz"))


@pytest.mark.threat("T-26")
async def test_an_unforeseen_error_says_nothing_of_itself() -> None:
    gateway = FakeAdmin()

    async def broken(operator: object) -> Any:
        raise RuntimeError("the inside of the gateway")

    gateway.status = broken  # type: ignore[method-assign]
    async with admin(gateway) as (_, client):
        with pytest.raises(RemitError) as refused:
            await ask(client.status)
    assert refused.value.code is Code.INTERNAL
    assert "inside" not in str(refused.value)


async def test_a_gateway_that_is_not_there_is_named_with_the_next_step() -> None:
    with pytest.raises(RemitError) as refused:
        await ask(AdminClient("http://127.0.0.1:1", "x").status)
    assert refused.value.code is Code.SERVER_UNREACHABLE
    assert "remit serve" in (refused.value.hint or "")


async def test_something_else_that_answers_there_is_not_taken_for_the_gateway() -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"<html>hello</html>"})

    async with served(other) as url:
        with pytest.raises(RemitError) as refused:
            await ask(AdminClient(url, "op-olga").status)
    assert refused.value.code is Code.SERVER_UNREACHABLE


@pytest.mark.parametrize("url", ["127.0.0.1:8701", "ftp://x", "http://"])
def test_an_address_that_is_none_is_a_configuration_error(url: str) -> None:
    with pytest.raises(RemitError) as refused:
        AdminClient(url)
    assert refused.value.code is Code.CONFIG_INVALID


async def test_run_is_followed_frame_by_frame_to_its_end_and_from_any_frame() -> None:
    async with admin(FakeAdmin()) as (_, client):
        lines = await ask(lambda: list(client.follow("run_1")))
        later = await ask(lambda: list(client.follow("run_1", 1)))
    assert lines[0] == {"silent": True}
    assert lines[1] == {"seq": 0, "channel": "stdout", "text": "begun\n", "bytes": 6}
    assert (lines[2]["channel"], base64.b64decode(lines[2]["base64"])) == (
        "stderr",
        b"\xff warned\n",
    )
    assert (lines[3]["live"], lines[3]["end"]["id"]) == (True, "run_1")
    assert [line["seq"] for line in later if "seq" in line] == [1]


async def test_stored_output_says_that_it_was_cut_and_why_it_is_not_all_there() -> None:
    async with admin(FakeAdmin()) as (_, client):
        output = await ask(lambda: client.run_output("run_1"))
    assert output["truncated"] is True
    assert "policy redacts" in output["withheld"]


async def test_files_of_a_run_are_listed_and_come_exactly_and_inert() -> None:
    async with admin(FakeAdmin()) as (url, client):
        (file,) = await ask(lambda: client.files("run_1"))
        data = await ask(lambda: client.file("run_1", file["path"]))
        headers = {"authorization": "Bearer op-ray"}
        async with http() as session:
            where = f"{url}/v1/runs/run_1/files/out/plan.json"
            response = await session.get(where, headers=headers)
        with pytest.raises(NotFound):
            await ask(lambda: client.file("run_1", "../../etc/passwd"))
    assert (file["path"], data) == ("out/plan.json", b"\x00\x01\x02")
    assert response.headers["content-disposition"] == "attachment"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("start", ["-1", "x", "1&from=2", "9999999999"])
async def test_number_of_a_frame_that_means_nothing_is_refused(start: str) -> None:
    async with admin(FakeAdmin()) as (url, _):
        headers = {"authorization": "Bearer op-olga"}
        async with http() as session:
            where = f"{url}/v1/runs/run_1/stream?from={start}"
            response = await session.get(where, headers=headers)
    assert response.status_code == 400
