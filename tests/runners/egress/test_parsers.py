"""What reads hostile bytes says no to them, never anything else."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import ssl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remit.addresses import Reach, authority, plain_host, reach, split_authority
from remit.errors import ConfigError
from remit.reach import plain_host as reach_plain_host
from remit.reach import plain_path as reach_plain_path
from remit.runners.egress.greeting import MAX_BYTES, Greeting, read_greeting
from remit.runners.egress.heads import read_head
from remit.runners.egress.purse import where
from remit.runners.egress.refusals import REFUSALS, Refusal, answer_bytes
from remit.runners.egress.rules import covers, path_key, plain_path, split_target
from remit.runners.egress.settings import EgressSettings

pytestmark = pytest.mark.threat("T-32")


# --------------------------------------------------------------------------------- greetings


def greeting_of(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


REAL = greeting_of("api.example.com")


def in_records(hello: bytes, cuts: list[int]) -> bytes:
    ends = [*sorted(cuts), len(hello)]
    parts = [hello[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts if part)


def hello_with(*extensions: tuple[int, bytes]) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    listed = b"".join(
        kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data for kind, data in extensions
    )
    body += len(listed).to_bytes(2, "big") + listed
    return in_records(b"\x01" + len(body).to_bytes(3, "big") + body, [])


def sni(name: bytes, kind: int = 0) -> tuple[int, bytes]:
    entry = bytes((kind,)) + len(name).to_bytes(2, "big") + name
    return 0, len(entry).to_bytes(2, "big") + entry


def test_a_real_greeting_gives_its_name_or_none():
    assert read_greeting(REAL) == Greeting(name="api.example.com")
    assert read_greeting(greeting_of(None)) == Greeting(name=None)


@given(st.lists(st.integers(1, len(REAL) - 6), max_size=12, unique=True), st.data())
def test_it_is_the_same_however_it_is_cut(cuts, data):
    whole = in_records(REAL[5:], cuts)
    upto = data.draw(st.integers(0, len(whole) - 1))
    assert read_greeting(whole[:upto]) is None
    assert read_greeting(whole) == Greeting(name="api.example.com")


@given(st.binary(max_size=400))
@example(b"")
@example(b"\x16")
@example(b"\x16\x03\x01\x00\x01\x01" * 3_000)
def test_any_bytes_are_a_greeting_or_unfinished_or_refused(data):
    with contextlib.suppress(ValueError):
        read_greeting(data)


@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_a_changed_byte_never_gives_half_a_name(at, byte):
    changed = REAL[:at] + bytes((byte,)) + REAL[at + 1 :]
    try:
        found = read_greeting(changed)
    except ValueError:
        return
    if found is not None and found.name is not None:
        assert re.fullmatch(r"[a-z0-9.-]+", found.name)
        assert found.name.encode() in changed.lower()


@pytest.mark.parametrize(
    "data",
    [
        hello_with(sni(b"one.test"), sni(b"two.test")),
        hello_with(sni(b"one.test", kind=1)),
        hello_with(sni(b"")),
        hello_with(sni(b"one.test\0.evil.test")),
        hello_with(sni("é.test".encode())),
        hello_with(sni(b"a" * 254)),
        hello_with((0, b"")),
        hello_with((0, sni(b"one.test")[1] + b"x")),
        in_records(REAL[5:] + b"x", []),
        in_records(REAL[5:], list(range(1, 60))),
        b"\x16\x03\x01\x40\x01" + b"\x01" * 10,
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x40\x00\x01\x00\x3f\xff" + bytes(MAX_BYTES),
    ],
)
def test_a_greeting_with_two_readings_is_refused(data):
    with pytest.raises(ValueError):
        assert read_greeting(data) is None
        raise AssertionError("taken")


def test_an_encrypted_greeting_is_seen():
    assert read_greeting(hello_with(sni(b"One.Test"), (0xFE0D, b"\0"))) == Greeting(
        name="one.test", hidden=True
    )


# ------------------------------------------------------------------------------------- heads


@given(st.binary(max_size=300))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
@example(b"\r\n\r\n")
def test_any_bytes_are_a_head_or_refused(data):
    try:
        head = read_head(data)
    except Refusal:
        return
    assert all(b"\r" not in value and b"\n" not in value for _, value in head.headers)


tokens = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True)
values = st.from_regex(r"(?:[!-~]([ -~]{0,20}[!-~])?)?", fullmatch=True)
SPECIAL = ("host", "content-length", "transfer-encoding", "expect", "upgrade", "http2-settings")


@given(st.lists(st.tuples(tokens.filter(lambda name: name.lower() not in SPECIAL), values)))
def test_a_right_head_is_read_as_it_is_written(pairs):
    pairs = pairs[:90]
    lines = ["GET /a HTTP/1.1", "Host: h", *(f"{name}:  {value} " for name, value in pairs)]
    head = read_head("\r\n".join([*lines, "", ""]).encode())
    assert (head.method, head.target, head.minor) == ("GET", "/a", 1)
    assert head.headers[1:] == tuple((n.lower().encode(), v.encode()) for n, v in pairs)


@given(st.integers(0, 60), st.sampled_from([b"\r", b"\n", b"\0", b"\x0b", b"\x7f"]))
def test_a_control_character_anywhere_is_refused(at, byte):
    raw = b"POST /some/path HTTP/1.1\r\nHost: h\r\nX-Some: value\r\n\r\n"
    at = min(at, len(raw) - 4)
    with pytest.raises(Refusal):
        read_head(raw[:at] + byte + raw[at:])


@pytest.mark.parametrize(
    "name", ["Transfer_Encoding", "content_length", "keep_alive", "HTTP2_Settings"]
)
def test_a_header_that_some_take_for_one_of_the_framing_is_refused(name):
    raw = f"POST / HTTP/1.1\r\nHost: h\r\n{name}: chunked\r\n\r\n".encode()
    with pytest.raises(Refusal):
        read_head(raw)


# ------------------------------------------------------------------------------------- paths

segments = st.sampled_from(
    [
        "a",
        "b",
        "..",
        ".",
        "",
        "%2e%2e",
        "%2E.",
        "..;x",
        "%2f",
        "a%2fb",
        "%5c",
        "%25",
        "a;b",
        ";",
        "%41",
    ]
)
paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))


@given(paths, st.sampled_from(["/a", "/a/b", "/", "/a/"]))
def test_a_plain_path_below_a_prefix_is_there_however_it_is_read(path, prefix):
    if plain_path(path) and covers(prefix, path):
        key = path_key(path).split(b"/")
        wanted = [part.encode() for part in prefix.split("/") if part]
        assert [part.split(b";")[0] for part in key][: len(wanted)] == wanted or wanted == []


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20))
def test_what_a_rule_may_hold_is_plain_here_too(text):
    if reach_plain_path("/" + text):
        assert plain_path("/" + text)
        assert split_target("/" + text) == ("/" + text, "")


@given(
    st.text("abcxyz0189.-_:[]%ABC", max_size=20)
    | st.ip_addresses().map(str)
    | st.sampled_from(
        ["0x7f", "127.1", "1.2.3.4.", "a..b", "-a", "a-", "::ffff:1.2.3.4", "fe80::1%lo"]
    )
)
def test_hosts_are_plain_exactly_where_rules_say_so(text):
    assert plain_host(text) == reach_plain_host(text)


@given(
    st.ip_addresses().map(str) | st.from_regex(r"[a-z]{1,9}\.test", fullmatch=True),
    st.integers(1, 65_535),
)
def test_an_authority_is_read_as_it_is_written(host, port):
    assert split_authority(authority(host, port)) == (host, port)
    assert split_authority(authority(host, 443, 443), 443) == (host, 443)


@given(st.text(max_size=30))
def test_any_text_is_an_authority_or_none(text):
    found = split_authority(text, 80)
    assert found is None or (plain_host(found[0]) and 0 < found[1] < 65_536)


@given(st.binary(max_size=60))
@example(b"https://[")
@example(b"//[::1")
@example(b"https://a:99999/")
def test_any_location_leads_somewhere_plain_or_nowhere(location):
    try:
        found = where("https://one.test/a/b", location)
    except Refusal:
        return
    assert found is None or plain_host(found[0])


# --------------------------------------------------------------------------------- addresses


@given(st.ip_addresses())
def test_no_address_is_public_that_is_known_not_to_be(address):
    if reach(str(address)) is Reach.PUBLIC:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_an_address_within_an_address_is_what_it_holds(address):
    number = int(address)
    for outer in (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(0x64_FF9B << 96 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    ):
        assert reach(str(outer)) <= reach(str(address))
    isatap = ipaddress.IPv6Address(0x2600 << 112 | 0x5EFE << 32 | number)
    assert reach(str(isatap)) <= reach(str(address))


@pytest.mark.parametrize(
    ("address", "how"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("64:ff9b::5db8:d822", Reach.PUBLIC),
        ("10.1.2.3", Reach.NAMED),
        ("100.64.0.1", Reach.NAMED),
        ("198.18.0.1", Reach.NAMED),
        ("192.0.2.1", Reach.NAMED),
        ("::1", Reach.NAMED),
        ("fd00::1", Reach.NAMED),
        ("2001:db8::1", Reach.NAMED),
        ("169.254.169.254", Reach.NEVER),
        ("169.254.170.2", Reach.NEVER),
        ("::ffff:169.254.169.254", Reach.NEVER),
        ("64:ff9b::a9fe:a9fe", Reach.NEVER),
        ("168.63.129.16", Reach.NEVER),
        ("100.100.100.200", Reach.NEVER),
        ("192.0.0.192", Reach.NEVER),
        ("fd00:ec2::254", Reach.NEVER),
        ("fd00:c1::a9fe:a9fe", Reach.NEVER),
        ("fd00:42::42", Reach.NEVER),
        ("fd00:a9fe:a9fe::1", Reach.NEVER),
        ("fe80::1", Reach.NEVER),
        ("fe80::1%lo", Reach.NEVER),
        ("2606:2800:220:1::1%lo", Reach.NEVER),
        ("224.0.0.1", Reach.NEVER),
        ("ff02::1", Reach.NEVER),
        ("255.255.255.255", Reach.NEVER),
        ("0.0.0.0", Reach.NEVER),
        ("::", Reach.NEVER),
        ("2001::1", Reach.NEVER),
        ("::7f00:1", Reach.NEVER),
        ("64:ff9b:1::7f00:1", Reach.NEVER),
        ("localhost", Reach.NEVER),
    ],
)
def test_each_kind_of_address_is_reached_as_it_should_be(address, how):
    assert reach(address) is how


# ---------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "text",
    [
        "*:443",
        "*.corp:443",
        "10.0.0.0/8:443",
        "a.corp",
        "a.corp:0",
        "a.corp:65536",
        "A_b:1",
        ":443",
        "169.254.169.254:80",
        "metadata.google.internal:80",
        "[fd00:ec2::254]:80",
        "[fe80::1]:80",
        "0.0.0.0:80",
        "224.0.0.1:80",
        "http://a.corp:80",
        "127.1:80",
        "::1:80",
    ],
)
@pytest.mark.parametrize("place", ["internal", "unsafe_plain"])
def test_a_setting_that_is_not_one_exact_destination_is_refused(text, place):
    with pytest.raises(ConfigError) as caught:
        if place == "internal":
            EgressSettings(internal=(text,))
        else:
            EgressSettings(unsafe_plain=(text,))
    assert caught.value.place == f"runners.egress.{place}[0]"


def test_the_digest_is_over_all_that_decides_what_is_reached():
    base = EgressSettings(internal=("a.corp:443", "[::1]:80"), unsafe_plain=("b.corp:80",))
    same = EgressSettings(internal=("[::1]:80", "a.corp:443"), unsafe_plain=("b.corp:80",), uid=7)
    assert base.digest == same.digest
    others = [
        EgressSettings(internal=("a.corp:443",), unsafe_plain=("b.corp:80",)),
        EgressSettings(internal=("a.corp:443", "[::1]:80")),
        EgressSettings(internal=base.internal, unsafe_plain=base.unsafe_plain, ca_pem="x"),
        EgressSettings(internal=base.internal, unsafe_plain=base.unsafe_plain, connections=1),
        EgressSettings(internal=base.internal, unsafe_plain=base.unsafe_plain, bytes_mb=1),
    ]
    assert len({each.digest for each in [base, *others]}) == 6


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_is_an_answer_that_people_and_programs_understand(code):
    head, _, body = answer_bytes(code).decode("ascii").partition("\r\n\r\n")
    assert f"X-Remit-Refused: {code}" in head
    assert f"Content-Length: {len(body)}" in head
    assert body == f"Remit egress: {REFUSALS[code][1]} [{code}].\n"
