"""A client of the admin API for command-line tools: standard library only, one request at a time.

It gives back the JSON that the server sent; `admin_json` says what is in it.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from remit.errors import Code, ConfigError, Conflict, NotFound, Refused, RemitError

TIMEOUT_S = 30.0
LOOK_S = 90.0
"""How long an answer may take for which a server has to be started and asked."""
_CHUNK = 64 * 1024

Json = dict[str, Any]


class AdminClient:
    """Speaks to one gateway's admin API as one operator.

    Args:
        url: where it listens, such as `http://127.0.0.1:8701`.
        token: the operator's credential; None for `healthz`, `readyz` and `metrics` alone.

    Raises:
        ConfigError: `url` is no http or https address.
        RemitError: from any method. `server_unreachable` when nothing answers there, else what
            the server said: `Refused`, `NotFound`, `Conflict`, or a plain one.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ConfigError(
                Code.CONFIG_INVALID,
                "the admin URL is not an http or https address",
                hint="give it as http://127.0.0.1:8701",
            )
        self._token = token
        self._timeout_s = timeout_s

    # Approvals

    def approvals(self, state: str | None = None, limit: int = 100) -> list[Json]:
        """Approvals, newest first."""
        return self._list("/v1/approvals", "approvals", state=state, limit=limit)

    def approval(self, approval_id: str) -> Json:
        """One approval with the plan that its approvers are shown."""
        return self._json("GET", f"/v1/approvals/{quote(approval_id, safe='')}")

    def vote(
        self, approval_id: str, plan_hash: str, verdict: str, reason: str | None = None
    ) -> Json:
        """Approve or deny, naming the plan hash that was looked at."""
        body = {"plan_hash": plan_hash, "verdict": verdict, "reason": reason}
        return self._json("POST", f"/v1/approvals/{quote(approval_id, safe='')}/votes", body)

    def revoke_approval(self, approval_id: str) -> Json:
        """Withdraw an approval that is not spent."""
        return self._json("POST", f"/v1/approvals/{quote(approval_id, safe='')}/revoke", {})

    # Requests for access

    def access_requests(self, state: str | None = None, limit: int = 100) -> list[Json]:
        """Requests for access, newest first."""
        return self._list("/v1/access-requests", "access_requests", state=state, limit=limit)

    def close_request(self, request_id: str, note: str) -> Json:
        """Say that a request for access was dealt with."""
        path = f"/v1/access-requests/{quote(request_id, safe='')}/close"
        return self._json("POST", path, {"note": note})

    # Runs

    def runs(self, state: str | None = None, limit: int = 100) -> list[Json]:
        """Runs, newest first."""
        return self._list("/v1/runs", "runs", state=state, limit=limit)

    def run(self, run_id: str) -> Json:
        return self._json("GET", f"/v1/runs/{quote(run_id, safe='')}")

    def run_output(self, run_id: str) -> Json:
        """What a run printed: `stdout` and `stderr` as text, and whether that is exact."""
        return self._json("GET", f"/v1/runs/{quote(run_id, safe='')}/output")

    def follow(self, run_id: str, start: int = 0) -> Iterator[Json]:
        """What a run under way writes from frame `start` on, a line for each piece, as it comes.

        Raises:
            RemitError: `server_unreachable` also when it breaks off before its end.
        """
        path = f"/v1/runs/{quote(run_id, safe='')}/stream?from={start}"
        connection, response = self._open("GET", path, None)
        try:
            _check(response)
            while line := response.readline():
                yield _object(line)
        except (OSError, http.client.HTTPException) as exc:
            raise self._unreachable(exc) from None
        finally:
            connection.close()

    def files(self, run_id: str) -> list[Json]:
        """The files that a run left: path, digest, bytes, and whether they were kept."""
        return self._list(f"/v1/runs/{quote(run_id, safe='')}/files", "files")

    def file(self, run_id: str, path: str) -> bytes:
        """A file that a run left."""
        where = f"/v1/runs/{quote(run_id, safe='')}/files/{quote(path)}"
        connection, response = self._open("GET", where, None)
        try:
            _check(response)
            return response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise self._unreachable(exc) from None
        finally:
            connection.close()

    def resolve(self, run_id: str, succeeded: bool, note: str) -> Json:
        """Say what became of a run whose outcome is unknown."""
        body = {"succeeded": succeeded, "note": note}
        return self._json("POST", f"/v1/runs/{quote(run_id, safe='')}/resolve", body)

    # The log

    def entries(self, match: Mapping[str, str] | None = None, limit: int = 100) -> list[Json]:
        """Entries of the log, newest first, whose public fields equal all of `match`."""
        where = [f"{name}={value}" for name, value in (match or {}).items()]
        return self._list("/v1/log/entries", "entries", match=where, limit=limit)

    def entry(self, index: int) -> Json:
        return self._json("GET", f"/v1/log/entries/{index}")

    def export(self) -> Iterator[bytes]:
        """The log as JSON lines, piece by piece as it comes.

        Raises:
            RemitError: `server_unreachable` also when it breaks off before its end.
        """
        connection, response = self._open("GET", "/v1/log/export", None)
        try:
            _check(response)
            while chunk := response.read(_CHUNK):
                yield chunk
        except (OSError, http.client.HTTPException) as exc:
            raise self._unreachable(exc) from None
        finally:
            connection.close()

    # The catalog, the switch, the gateway itself

    def tools(self) -> list[Json]:
        """All tools of the catalog."""
        return self._list("/v1/tools", "tools")

    def servers(self) -> list[Json]:
        """The MCP servers of the catalog, with their health and their tools."""
        return self._list("/v1/servers", "servers")

    def look(self, server: str) -> Json:
        """Have a server asked for its tools now."""
        asking = AdminClient(self._url.geturl(), self._token, timeout_s=LOOK_S)
        return asking._json("POST", f"/v1/servers/{quote(server, safe='')}/look", {})

    def differences(self, server: str, tool: str) -> Json:
        """A tool of a server, and what of its definition is not as it was accepted."""
        query = urlencode({"tool": tool})
        return self._json("GET", f"/v1/servers/{quote(server, safe='')}/differences?{query}")

    def pin(self, server: str, tool: str, digest: str) -> Json:
        """Accept the definition of a tool, naming the digest that was looked at."""
        body = {"tool": tool, "digest": digest}
        return self._json("POST", f"/v1/servers/{quote(server, safe='')}/pin", body)

    def consents(self) -> list[Json]:
        """What people consented to at MCP servers' authorization servers."""
        return self._list("/v1/consents", "consents")

    def ask_consent(self, credential: str, tenant: str, subject: str) -> Json:
        """A page on which this person can consent."""
        body = {"credential": credential, "tenant": tenant, "subject": subject}
        return self._json("POST", "/v1/consents/ask", body)

    def revoke_consent(self, credential: str, tenant: str, subject: str) -> Json:
        """End a consent; `confirmed` says whether the authorization server did too."""
        body = {"credential": credential, "tenant": tenant, "subject": subject}
        return self._json("POST", "/v1/consents/revoke", body)

    def freeze(self, reason: str) -> Json:
        """Stop all new effects."""
        return self._json("POST", "/v1/freeze", {"reason": reason})

    def thaw(self, reason: str) -> Json:
        """Let new effects go on."""
        return self._json("POST", "/v1/thaw", {"reason": reason})

    def status(self) -> Json:
        """How the gateway runs: mode, frozen, unsafe settings, policy revision, version."""
        return self._json("GET", "/v1/status")

    def ready(self) -> list[str]:
        """Why the gateway cannot take calls; empty when it can."""
        connection, response = self._open("GET", "/readyz", None)
        try:
            if response.status not in (200, 503):
                _check(response)
            found = _object(response.read()).get("reasons", [])
            return [str(reason) for reason in found]
        except (OSError, http.client.HTTPException) as exc:
            raise self._unreachable(exc) from None
        finally:
            connection.close()

    # How

    def _list(self, path: str, name: str, **query: Any) -> list[Json]:
        given = {key: value for key, value in query.items() if value not in (None, [])}
        url = f"{path}?{urlencode(given, doseq=True)}" if given else path
        found = self._json("GET", url).get(name)
        return found if isinstance(found, list) else []

    def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        connection, response = self._open(method, path, body)
        try:
            _check(response)
            return _object(response.read())
        except (OSError, http.client.HTTPException) as exc:
            raise self._unreachable(exc) from None
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, body: Json | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        host = self._url.hostname or ""
        connection: http.client.HTTPConnection
        if self._url.scheme == "https":
            connection = http.client.HTTPSConnection(
                host,
                self._url.port,
                timeout=self._timeout_s,
                context=ssl.create_default_context(),
            )
        else:
            connection = http.client.HTTPConnection(host, self._url.port, timeout=self._timeout_s)
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        try:
            connection.request(method, self._url.path.rstrip("/") + path, data, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as exc:
            connection.close()
            raise self._unreachable(exc) from None

    def _unreachable(self, exc: Exception) -> RemitError:
        why = "" if isinstance(exc, ConnectionRefusedError) else f" ({type(exc).__name__})"
        return RemitError(
            Code.SERVER_UNREACHABLE,
            f"no gateway answers at {self._url.scheme}://{self._url.netloc}{why}",
            hint="start it with `remit serve`, or name another address with --url",
        )


def _object(data: bytes) -> Json:
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RemitError(
            Code.SERVER_UNREACHABLE,
            "what answers there is not Remit's admin API",
            hint="the admin API listens on a port of its own, `server.admin` in remit.yaml",
        )
    return value


def _check(response: http.client.HTTPResponse) -> None:
    """Raise what the server said, with the class that its code belongs to."""
    if response.status < 400:
        return
    said = _object(response.read())
    try:
        code = Code(str(said.get("code")))
    except ValueError:
        code = Code.INTERNAL
    kind: type[RemitError] = {404: NotFound, 409: Conflict, 401: Refused, 403: Refused}.get(
        response.status, RemitError
    )
    place, hint = said.get("place"), said.get("hint")
    if code is Code.UNAUTHENTICATED:
        hint = "give an operator's token with --token-file FILE, or in REMIT_OPERATOR_TOKEN"
    raise kind(
        code,
        str(said.get("message", "the gateway refused without saying why")),
        place=place if isinstance(place, str) else None,
        hint=hint if isinstance(hint, str) else None,
    )
