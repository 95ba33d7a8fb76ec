"""The AWS broker: its request's shape against moto, its reading of answers against hostile ones.

moto gives credentials to anybody: it verifies no token and holds no session to its policy. What
these tests show is the request and the use of the answer, not that AWS would refuse anything.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remit.errors import ConfigError
from remit.runners.credentials.aws import AwsBroker
from remit.runners.credentials.broker import BrokerFault, Held
from tests.plugins.machine import moto_python
from tests.runners.credentials.fakes import Reply, Request, Scripted, serving
from tests.runners.credentials.processes import moto
from tests.runners.credentials.world import TokenIssuer, kit, now_ms, order, section

pytestmark = pytest.mark.anyio

ROLE = "arn:aws:iam::123456789012:role/agents/deploy"
SESSION = "arn:aws:sts::123456789012:assumed-role/deploy/remit-run-01ABCDEF"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "ReadLogs",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::logs/*",
        },
        {
            "Sid": "WriteBackups",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": "arn:aws:s3:::backups/*",
        },
        {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::logs/private/*"},
    ],
}


class FakeSts(Scripted):
    """Answers as STS does, with whatever is changed in it."""

    def __init__(self) -> None:
        super().__init__()
        self.arn = SESSION
        self.expires_in_s = 900
        self.head = '<?xml version="1.0" encoding="UTF-8"?>'
        self.secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE"

    def answer(self, request: Request) -> Reply:
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.expires_in_s)
        return Reply(
            200,
            f"""{self.head}
            <AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
              <AssumeRoleWithWebIdentityResult>
                <AssumedRoleUser><Arn>{self.arn}</Arn><AssumedRoleId>A:b</AssumedRoleId>
                </AssumedRoleUser>
                <Credentials>
                  <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE</SessionToken>
                  <SecretAccessKey>{self.secret}</SecretAccessKey>
                  <Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration>
                  <AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>
                </Credentials>
              </AssumeRoleWithWebIdentityResult>
            </AssumeRoleWithWebIdentityResponse>""".encode(),
        )

    @property
    def policy(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.seen[-1].form["Policy"])
        return found


@pytest.fixture
def sts() -> FakeSts:
    return FakeSts()


@pytest.fixture
def address(sts: FakeSts) -> Iterator[str]:
    with serving(sts) as url:
        yield url


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    made = TokenIssuer()
    made.url = "https://remit.example.com"
    return made


def make(address: str | None, issuer: TokenIssuer | None, **written: Any) -> AwsBroker:
    words = {"role_arn": ROLE, "policy": json.dumps(POLICY), "endpoint": address, **written}
    words = {key: value for key, value in words.items() if value is not None}
    return AwsBroker(kit(section(broker="aws", **words), issuer))


async def refused(broker: AwsBroker, **changed: Any) -> str:
    with pytest.raises(BrokerFault) as caught:
        await broker.lend(order(**changed))
    await broker.aclose()
    return caught.value.message


async def test_the_request_is_of_the_documented_shape(
    address: str, sts: FakeSts, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer)
    asked = order()
    advance = await broker.lend(asked)
    request = sts.seen[-1]
    assert (request.method, request.path) == ("POST", "/")
    form = request.form
    assert form["Action"] == "AssumeRoleWithWebIdentity"
    assert form["Version"] == "2011-06-15"
    assert form["RoleArn"] == ROLE
    assert form["RoleSessionName"] == "remit-run-01ABCDEF"
    assert form["DurationSeconds"] == "900"
    assert form["WebIdentityToken"].count(".") == 2
    assert set(form) - set(advance.fields) == {
        "Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "WebIdentityToken",
        "Policy",
    }  # fmt: skip
    assert advance.fields["access_key_id"] == "ASgeIAIOSFODNN7EXAMPLE"
    assert advance.secrets == (sts.secret, advance.fields["session_token"])
    assert advance.lease == SESSION
    assert sts.secret not in repr(advance)
    await broker.aclose()


async def test_the_session_policy_denies_all_once_the_run_is_over(
    address: str, sts: FakeSts, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer, policy=None)
    asked = order(lives_s=100)
    advance = await broker.lend(asked)
    allow, deny = sts.policy["Statement"]
    assert (allow["Effect"], allow["Action"], allow["Resource"]) == ("Allow", "*", "*")
    assert (deny["Effect"], deny["Action"], deny["Resource"]) == ("Deny", "*", "*")
    said = datetime.datetime.fromisoformat(deny["Condition"]["DateGreaterThan"]["aws:CurrentTime"])
    assert asked.ends_ms - 1_000 < said.timestamp() * 1000 <= asked.ends_ms
    assert advance.note is not None
    assert "cannot revoke" in advance.note
    assert advance.expires_ms is not None
    assert advance.expires_ms - now_ms() > 890_000
    await broker.aclose()


async def test_it_cannot_be_revoked_and_says_so(address: str, issuer: TokenIssuer) -> None:
    broker = make(address, issuer)
    advance = await broker.lend(order())
    held = Held(loan_id="loan-1", run_id="run-1", lease=advance.lease, key=advance.key)
    assert await broker.revoke(held) is False
    await broker.aclose()


async def test_scopes_leave_only_their_statements_and_every_deny(
    address: str, sts: FakeSts, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer)
    assert broker.narrows
    await broker.lend(order(scopes=("ReadLogs",)))
    read, private, last = sts.policy["Statement"]
    assert read == POLICY["Statement"][0]
    assert private == POLICY["Statement"][2]
    assert last["Effect"] == "Deny"
    assert "no Sid" in await refused(broker, scopes=("ReadLogs", "DropAll"))


async def test_without_a_policy_there_is_nothing_to_narrow(
    address: str, issuer: TokenIssuer
) -> None:
    broker = make(address, issuer, policy=None)
    assert not broker.narrows
    assert "no Sid" in await refused(broker, scopes=("All",))
    unnamed = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*"}}
    assert not make(address, issuer, policy=json.dumps(unnamed)).narrows


@pytest.mark.parametrize(("lives_s", "asked"), [(60, 900), (1_800.9, 1_800), (90_000, 43_200)])
async def test_the_session_is_as_short_as_aws_lets_it_be(
    address: str, sts: FakeSts, issuer: TokenIssuer, lives_s: float, asked: int
) -> None:
    broker = make(address, issuer)
    await broker.lend(order(lives_s=lives_s))
    assert int(sts.seen[-1].form["DurationSeconds"]) in (asked, asked - 1)
    await broker.aclose()


async def test_a_session_that_is_not_the_asked_one_is_not_lent(
    address: str, sts: FakeSts, issuer: TokenIssuer
) -> None:
    for arn in (
        SESSION.replace("/deploy/", "/admin/"),
        SESSION + "x",
        "arn:aws:sts::123456789012:assumed-role/remit-run-01ABCDEF",
    ):
        sts.arn = arn
        assert "another role or name" in await refused(make(address, issuer))
    sts.arn = SESSION
    sts.expires_in_s = 3_600
    assert "longer life" in await refused(make(address, issuer))


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE x [<!ENTITY e "expanded">]>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE x [<!ENTITY e SYSTEM "http://127.0.0.1:1/">]>',
        "<twice/><AssumeRoleWithWebIdentityResponse/>",
        "<open>",
        "no xml",
    ],
)
async def test_an_answer_with_entities_or_of_no_sense_is_refused(
    address: str, sts: FakeSts, issuer: TokenIssuer, head: str
) -> None:
    sts.head = head
    if "ENTITY" in head:
        sts.secret = "&e;"
    assert "no XML that can be read" in await refused(make(address, issuer))


async def test_utf_16_does_not_hide_a_document_type(
    address: str, sts: FakeSts, issuer: TokenIssuer
) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE x [<!ENTITY e "x">]><x>&e;</x>'
    sts.first = [Reply(200, text.encode("utf-16"))]
    assert "no XML that can be read" in await refused(make(address, issuer))


async def test_something_said_twice_is_refused(
    address: str, sts: FakeSts, issuer: TokenIssuer
) -> None:
    sts.secret = "a</SecretAccessKey><SecretAccessKey>b"
    assert "no XML that can be read" in await refused(make(address, issuer))


async def test_each_refusal_says_what_to_mend_and_nothing_that_aws_wrote(
    address: str, sts: FakeSts, issuer: TokenIssuer
) -> None:
    for code, said in (
        ("AccessDenied", "trust policy"),
        ("ExpiredTokenException", "clocks"),
        ("InvalidIdentityToken", "identity provider"),
        ("PackedPolicyTooLarge", "too large"),
        ("SomethingNew-with-a-secret", "status 400"),
    ):
        body = f"<ErrorResponse><Error><Code>{code}</Code><Message>secret</Message></Error></ErrorResponse>"
        sts.first = [Reply(400, body.encode())]
        message = await refused(make(address, issuer))
        assert said in message
        assert "secret" not in message


def wrong(**written: Any) -> str | None:
    issuer = TokenIssuer()
    with pytest.raises(ConfigError) as caught:
        make(None, issuer, **written)
    return caught.value.place


@pytest.mark.parametrize(
    "policy",
    [
        "no JSON",
        "[]",
        '{"Statement": []}',
        '{"Version": "2012-10-17"}',
        '{"Version": "2008-10-17", "Statement": []}',
        '{"Version": "2012-10-17", "Statement": [{"Effect": "allow"}]}',
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Sid": "a b"}]}',
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Sid": "a"}] * 2}),
        '{"Version": "2012-10-17", "Version": "2012-10-17", "Statement": []}',
        json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "x" * 2000}]}),
    ],
)  # fmt: skip
def test_a_session_policy_that_aws_would_not_take_is_refused_at_the_start(policy: str) -> None:
    assert wrong(policy=policy) == "policy"


def test_a_role_or_region_that_is_none_is_refused() -> None:
    assert wrong(role_arn="arn:aws:iam::123:role/x") == "role_arn"
    assert wrong(role_arn="arn:aws:iam::123456789012:user/x") == "role_arn"
    assert wrong(region="evil.example.com/") == "region"
    assert wrong(endpoint="http://sts.example.com") == "endpoint"


def test_the_address_follows_the_region(issuer: TokenIssuer) -> None:
    for region, url in (
        ("eu-central-1", "https://sts.eu-central-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
    ):
        assert make(None, issuer, region=region)._service._url == url


USE = """
import boto3, configparser, sys
print(boto3.client("sts", endpoint_url=sys.argv[1], region_name="us-east-1").get_caller_identity()["Arn"])
"""


@pytest.mark.slow
@pytest.mark.needs("moto")
async def test_boto3_takes_the_file_that_the_section_makes(
    tmp_path: Path, issuer: TokenIssuer
) -> None:
    content = "[default]\naws_access_key_id={access_key_id}\n"
    content += "aws_secret_access_key={secret_access_key}\naws_session_token={session_token}\n"
    python = moto_python()
    assert python is not None
    with moto(tmp_path) as url:
        broker = make(url, issuer)
        advance = await broker.lend(order())
        file = tmp_path / "aws"
        file.write_text(content.format(**advance.fields))
        done = subprocess.run(
            [str(python), "-c", USE, url],
            env={"AWS_SHARED_CREDENTIALS_FILE": str(file), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        await broker.aclose()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == SESSION
    assert advance.lease == SESSION
