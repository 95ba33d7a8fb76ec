"""What agent and operator read when a real client does not get through: where, why, and what to do."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from remit.model import Reply
from tests.egress_clients.servers import Server, repository, serving
from tests.egress_clients.test_aws import boto3_libraries
from tests.egress_clients.world import Place, Wait, libraries, opened
from tests.plugins.machine import moto_python, node_binary
from tests.runners.egress.world import certificates

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.needs("bwrap", "userns", "cgroup", "git", "curl"),
    pytest.mark.threat("T-32"),
]

PYTHON = "/usr/bin/python3"
URLLIB = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1]).status)\n"
HTTPX = "import sys, httpx2\nprint(httpx2.get(sys.argv[1]).raise_for_status())\n"
BOTO3 = """
import sys, boto3, botocore.config
once = botocore.config.Config(retries={"total_max_attempts": 1})
keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
print(boto3.client("sts", endpoint_url=sys.argv[1], config=once, **keys).get_caller_identity())
"""
NODE = """
fetch(process.argv[2]).then((answer) => { if (!answer.ok) throw new Error(answer.status); });
"""
SCRIPTS = {"urllib": URLLIB, "httpx": HTTPX, "boto3": BOTO3}
PIP = ("-m", "pip", "download", "-q", "--retries", "0", "--no-cache-dir", "--dest", "/job/got")
TRUSTING = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"),
    "AWS_CA_BUNDLE",
)
PROXIED = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NODE_USE_ENV_PROXY")
CLIENTS = [
    *("git", "pip", "curl", "urllib", "httpx"),
    pytest.param("node", marks=pytest.mark.needs("node-env-proxy")),
    pytest.param("boto3", marks=pytest.mark.needs("moto")),
]


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that is wrong: with the rule, or with the client's environment."""

    env: Mapping[str, str]
    methods: Sequence[str] = ("GET", "POST")
    other_port: bool = False


WRONG = {
    "unlisted": Wrong({}, other_port=True),
    "method": Wrong({}, methods=("DELETE",)),
    "untrusting": Wrong(
        {**dict.fromkeys(TRUSTING, "/etc/ssl/certs/ca-certificates.crt"), "NODE_EXTRA_CA_CERTS": ""}
    ),
    "direct": Wrong(dict.fromkeys(PROXIED, "")),
}


class World:
    """A gateway with every client as a tool for everything that can be wrong."""

    def __init__(self, folder: Path, place: Place, port: int) -> None:
        self.folder, self.place, self.port = folder, place, port
        self.wait: Wait

    def add(self) -> None:
        folder = self.folder
        wanted = ("httpx2", "httpcore2", "h11", "anyio", "idna", "truststore", "typing_extensions")
        mounts = {
            "pip": libraries(folder / "pip", "pip"),
            "httpx": libraries(folder / "httpx", *wanted),
            "node": folder / "node",
        }
        (folder / "node").mkdir()
        if (node := node_binary()) is not None:
            shutil.copy(node.resolve(), folder / "node" / "node")
        if moto_python() is not None:
            mounts["boto3"] = boto3_libraries(folder / "boto3")
        for name, wrong in WRONG.items():
            base = f"https://localhost:{self.unlisted if wrong.other_port else self.port}"
            for client, argv in commands(base).items():
                self.place.tool(
                    f"{client}-{name}", *argv, port=self.port, env=dict(wrong.env),
                    methods=wrong.methods, libraries=mounts.get(client), credential="",
                    ask__py=SCRIPTS.get(client, ""), ask__js=NODE,
                )  # fmt: skip

        self.place.tool(
            "curl-not-given", *commands(f"https://localhost:{self.port}")["curl"],
            port=self.port, credential="",
        )  # fmt: skip

    @property
    def unlisted(self) -> int:
        return self.port - 1

    def call(self, name: str) -> str:
        reply: Reply = self.wait(self.place.call(name))
        said = "".join(block["text"] for block in reply.content.value())
        assert reply.decision["code"] == "run_failed", said
        return said

    def refused(self) -> list[str | None]:
        outcome = self.wait(self.place.outcome())
        return [each.get("refused") for each in outcome["traffic"]["connections"]]


def commands(base: str) -> dict[str, tuple[str, ...]]:
    return {
        "git": ("/bin/sh", "-c", "git clone -q $1 /job/repo", "x", f"{base}/git/work.git"),
        "pip": (PYTHON, *PIP, "--index-url", f"{base}/simple/", "parcel"),
        "curl": ("/usr/bin/curl", "-sSf", f"{base}/who"),
        "urllib": (PYTHON, "/job/ask.py", f"{base}/who"),
        "httpx": (PYTHON, "/job/ask.py", f"{base}/who"),
        "node": ("/mnt/libraries/node", "/job/ask.js", f"{base}/who"),
        "boto3": (PYTHON, "/job/ask.py", base),
    }


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="remit-refused-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = certificates(folder)
        place = Place(folder / "gateway", made.authority)
        repository(folder / "repositories")
        server = Server(made.chain, folder / "repositories", place.secret)
        found = World(folder, place, server.port)
        place.reach(server.port)
        found.add()
        with serving(server), opened(place) as found.wait:
            yield found


@pytest.mark.parametrize("client", CLIENTS)
def test_a_host_that_no_rule_names_is_told_to_the_agent_whatever_the_client_says(
    world: World, client: str
) -> None:
    said = world.call(f"{client}-unlisted")
    assert f"refused localhost:{world.unlisted} [not_allowed]" in said, said
    assert "the tool's egress and in policy" in said
    assert set(world.refused()) == {"not_allowed"}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_method_that_no_rule_has_is_told(world: World, client: str) -> None:
    said = world.call(f"{client}-method")
    assert f"refused localhost:{world.port} [method]" in said, said
    assert set(world.refused()) == {"method"}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_does_not_trust_the_runs_authority_is_shown_the_file(
    world: World, client: str
) -> None:
    said = world.call(f"{client}-untrusting")
    assert "SSL_CERT_FILE" in said, said
    assert f"localhost:{world.port}" in said
    # With GnuTLS, as Debian's git has it, a client gives up without a word.
    assert set(world.refused()) <= {"client_tls", None}


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_goes_by_no_proxy_is_shown_the_way_out(world: World, client: str) -> None:
    said = world.call(f"{client}-direct")
    assert "HTTPS_PROXY" in said, said
    assert world.refused() == []


def test_a_host_that_policy_did_not_give_is_told(world: World) -> None:
    said = world.call("curl-not-given")
    assert "policy and the runner's profile gave none" in said, said
    assert "traffic" not in world.wait(world.place.outcome())


@pytest.mark.parametrize(
    ("client", "shown"),
    [("urllib", "403 Forbidden (Remit egress: not_allowed)"), ("httpx", "Remit egress: not_allowed")],
)  # fmt: skip
def test_clients_that_show_the_status_line_show_the_reason(
    world: World, client: str, shown: str
) -> None:
    assert shown in world.call(f"{client}-unlisted")
