"""boto3 in a run, with a session that the keeper got by web identity, against a real moto.

moto verifies no token and asks no policy: what is shown is that the whole way works, and what of it
stays where. A session has to be a file of the run, since boto3 signs with it. So what nothing of the
run may hold are the keys behind it: the issuer's, the log's, and the operator's own secrets.
"""

from __future__ import annotations

import base64
import configparser
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from remit.runners.traces import all_forms, forms
from tests.egress_clients.servers import Relay
from tests.egress_clients.world import ISSUER, Look, Place, Wait, opened
from tests.plugins.machine import moto_python
from tests.runners.credentials.processes import moto
from tests.runners.egress.world import certificates

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.needs("bwrap", "userns", "cgroup", "moto"),
    pytest.mark.threat("T-33", "T-34"),
]

FILE = "/run/remit/credentials/aws"
ROLE = "arn:aws:iam::123456789012:role/agents/logs"
SESSION_POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "ReadLogs", "Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}
CONTENT = (
    "[default]\naws_access_key_id={access_key_id}\n"
    "aws_secret_access_key={secret_access_key}\naws_session_token={session_token}\n"
)
BOTO3 = """
import os, sys
import boto3, botocore.config
from hold import hold
how = botocore.config.Config(s3={"addressing_style": "path"})
where = {"endpoint_url": sys.argv[1], "config": how}
print(boto3.client("sts", **where).get_caller_identity()["Arn"])
s3 = boto3.client("s3", **where)
s3.create_bucket(Bucket="logs")
s3.put_object(Bucket="logs", Key="yesterday", Body=b"all was quiet")
print(s3.get_object(Bucket="logs", Key="yesterday")["Body"].read().decode())
print(open(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).read())
hold()
"""


def boto3_libraries(folder: Path) -> Path:
    """boto3 and what it imports, of moto's environment; of the services, those that are called."""
    python = moto_python()
    assert python is not None
    (site,) = python.parent.parent.glob("lib/python*/site-packages")
    services = site / "botocore" / "data"

    def unused(at: str, names: list[str]) -> set[str]:
        left = {name for name in names if (services / name).is_dir()} if at == str(services) else ()
        return {*left, "__pycache__"} - {"sts", "s3"}

    for name in ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "urllib3"):
        shutil.copytree(site / name, folder / name, ignore=unused)
    shutil.copyfile(site / "six.py", folder / "six.py")
    return folder


class World:
    """The gateway, and the moto that the keeper asks plainly and the run by TLS."""

    def __init__(self, place: Place, wait: Wait) -> None:
        self.place, self.wait = place, wait

    def long_lived(self) -> tuple[bytes, ...]:
        """Every spelling of every secret that outlives a run."""
        data = self.place.folder / "data"
        secrets = [self.place.secret, (data / "keys" / "log.key").read_text().strip()]
        found = set(all_forms(secrets))
        stored = json.loads((data / "keeper" / "issuer.keys").read_bytes())["keys"]
        assert stored
        for each in stored:
            found |= key_forms(each["pem"])
        return tuple(found)


def key_forms(pem: str) -> set[bytes]:
    """A piece of a private key's secret numbers, in every spelling that PEM, DER, JWK and memory have."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.private_numbers()
    found = {line.encode() for line in pem.splitlines()[10:13]}
    for number in (numbers.d, numbers.p, numbers.q):
        piece = number.to_bytes((number.bit_length() + 7) // 8, "big")[40:64]
        found |= {piece, piece[::-1], piece.hex().encode(), piece.hex().upper().encode()}
        for before in range(3):  # base64 has it in one of three ways, by what stands before
            core = base64.b64encode(bytes(before) + piece)[4:-4]
            found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="remit-aws-") as name, moto(Path(name)) as url:
        folder = Path(name)
        folder.chmod(0o755)
        made = certificates(folder)
        place = Place(folder / "gateway", made.authority)
        with Relay(made.chain, int(url.rpartition(":")[2])) as relay:
            configure(place, url, relay.port, boto3_libraries(folder / "boto3"))
            with opened(place) as wait:
                yield World(place, wait)


def configure(place: Place, sts: str, port: int, libraries: Path) -> None:
    place.reach(port)
    place.put_in(port)
    place.credentials["session"] = {
        "broker": "aws",
        "role_arn": ROLE,
        "endpoint": sts,
        "policy": json.dumps(SESSION_POLICY),
        "file": {"name": "aws", "content": CONTENT},
    }
    place.tool(
        "boto3", "/usr/bin/python3", "/job/ask.py", f"https://localhost:{port}", ask__py=BOTO3,
        port=port, methods=None, credential="session", scopes=["ReadLogs"],
        libraries=libraries, env={"AWS_SHARED_CREDENTIALS_FILE": FILE, "AWS_DEFAULT_REGION": "us-east-1"},
    )  # fmt: skip


def session(look: Look) -> tuple[str, str]:
    """The session's secrets, as the run has them in its file."""
    (text,) = [data.decode() for name, data in look.held if name == f"file {FILE}"]
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    found = parser["default"]
    return found["aws_secret_access_key"], found["aws_session_token"]


def test_boto3_works_with_a_session_by_web_identity_and_holds_no_key_behind_it(
    world: World,
) -> None:
    look: Look = world.wait(world.place.watched("boto3"))
    run = world.wait(world.place.gateway.ledger.runs(limit=1))[0].id
    assert f"assumed-role/logs/remit-{run.replace('_', '-')}" in look.said.replace("_", "-")
    assert "all was quiet" in look.said
    assert look.holds(*world.long_lived()) == []
    # Nor a token of the issuer, by which a session could be had again.
    assert look.holds(*(form for form in forms(ISSUER) if form != ISSUER.encode())) == []
    secret, token = session(look)
    assert any(name.startswith("memory") for name in look.holds(secret.encode()))
    assert look.holds(world.place.marker.encode())
    assert token in look.said or "*" * len(token) in look.said


def test_the_session_is_gone_with_its_run(world: World) -> None:
    look: Look = world.wait(world.place.watched("boto3"))
    secret, token = session(look)
    outcome = world.wait(world.place.outcome())
    assert outcome["destruction"]["complete"]
    assert outcome["destruction"]["credentials_left"] == 0
    (loan,) = outcome["loans"]
    assert (loan["broker"], loan["delivered"]) == ("aws", "file")
    assert "cannot revoke" in loan["note"]
    assert outcome["blanked"] >= 2
    assert f"aws_secret_access_key={'*' * len(secret)}" in look.said
    for each in (secret, token):
        assert each not in look.said
        assert each not in json.dumps(outcome)
        assert world.place.left(*forms(each)) == []


def test_the_search_would_find_the_issuers_key(world: World) -> None:
    """The same spellings, over the file in which the keeper has it."""
    stored = (world.place.folder / "data/keeper/issuer.keys").read_bytes()
    held = [("keeper", stored)]
    for each in json.loads(stored)["keys"]:
        der = base64.b64decode("".join(each["pem"].splitlines()[1:-1]))
        held += [("der", der), ("within", base64.urlsafe_b64encode(b"x" + der)), ("der", der[::-1])]
        held += [("pem", each["pem"].encode()), ("hex", der.hex().encode())]
    assert len(Look(held=held).holds(*world.long_lived())) == len(held) > 1
