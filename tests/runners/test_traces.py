"""No usual spelling of a secret gets past blanking, however it is cut."""

from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remit.runners.traces import Blanker, all_forms, blank, forms

pytestmark = pytest.mark.threat("T-33")

secrets = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="*#~^|_"),
    min_size=8,
    max_size=60,
)
junk = st.binary(max_size=40)


_CAPITAL = re.compile(r"\\u[0-9a-f]{4}")


def _in_json(secret: str, further: str) -> str:
    """As a JSON writer spells it that escapes more than it has to."""
    return "".join(
        f"\\u{ord(each):04x}" if each in further else json.dumps(each)[1:-1] for each in secret
    )


@given(secrets, junk, junk)
def test_a_secret_is_not_found_after_blanking_as_it_is(secret, before, after):
    data, found = blank(before + secret.encode() + after, forms(secret))
    assert secret.encode() not in data
    assert found >= 1
    assert len(data) == len(before + secret.encode() + after)


@given(secrets, junk, junk)
def test_base64_of_anything_around_a_secret_keeps_at_most_its_edges(secret, before, after):
    raw = secret.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(before + raw + after)
        data, found = blank(whole, forms(secret))
        assert found >= 1
        padded = data.replace(b"*", b"A")
        decode = (
            base64.urlsafe_b64decode if encode is base64.urlsafe_b64encode else base64.b64decode
        )
        left = decode(padded)[len(before) : len(before) + len(raw)]
        assert left[1:-1].strip(b"\0") == b""


@given(secrets)
@pytest.mark.parametrize(
    "spell",
    [
        quote,
        quote_plus,
        lambda secret: quote(secret, safe=""),
        lambda secret: re.sub("%..", lambda each: each[0].lower(), quote(secret, safe="")),
        lambda secret: "".join(f"%{byte:02x}" for byte in secret.encode()),
        lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
        lambda secret: secret.encode().hex(),
        lambda secret: secret.encode().hex().upper(),
        lambda secret: json.dumps(secret)[1:-1],
        lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
        lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
        html.escape,
        lambda secret: _in_json(secret, "<>&"),
        lambda secret: _in_json(secret, "<>&='"),
        lambda secret: _CAPITAL.sub(
            lambda each: "\\u" + each[0][2:].upper(), _in_json(secret, "<>&'\"+`")
        ),
        lambda secret: html.escape(secret).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
        lambda secret: html.escape(secret).replace("=", "&#x3D;").replace("`", "&#x60;"),
    ],
    ids=[
        "path",
        "form",
        "all",
        "lower",
        "every",
        "EVERY",
        "hex",
        "HEX",
        "json",
        "utf8",
        "js",
        "html",
        "go",
        "gson",
        "net",
        "markup",
        "handlebars",
    ],
)
def test_each_spelling_is_blanked(spell, secret):
    spelt = spell(secret).encode()
    data, found = blank(b"<" + spelt + b">", forms(secret))
    assert data == b"<" + b"*" * len(spelt) + b">"
    assert found == 1


@given(st.lists(secrets, min_size=1, max_size=3), st.data())
def test_pieces_are_blanked_as_the_whole_is(chosen, data):
    wanted = all_forms(chosen)
    spelt = st.sampled_from(wanted)
    cut = spelt.flatmap(lambda form: st.integers(0, len(form)).map(lambda at: form[:at]))
    whole = b"".join(data.draw(st.lists(spelt | cut | junk, max_size=6)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    blanker, out = Blanker(wanted), b""
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        out += blanker.feed(whole[start:stop])
    out += blanker.finish()
    assert (out, blanker.found) == blank(whole, wanted)
    assert not any(form in out for form in wanted)


@given(st.binary(max_size=200), st.lists(st.binary(min_size=1, max_size=4), max_size=5))
@example(b"aaab", [b"aab", b"aaa"])
@example(b"ababa", [b"aba"])
def test_every_byte_of_every_place_is_blanked_and_no_other(data, wanted):
    covered: set[int] = set()
    for form in wanted:
        for at in range(len(data)):
            if data[at : at + len(form)] == form:
                covered.update(range(at, at + len(form)))
    out, found = blank(data, wanted)
    assert len(out) == len(data)
    assert all(out[at] == data[at] for at in range(len(data)) if at not in covered)
    assert all(out[at : at + 1] in (b"*", b"#", b"~", b"^", b"|", b"_") for at in covered)
    assert (found > 0) == bool(covered)


def test_what_cannot_be_the_beginning_of_a_form_is_let_go_at_once():
    blanker = Blanker(forms("swordfish-77"))
    assert blanker.feed(b"data: one\n\n") == b"data: one\n\n"
    assert blanker.feed(b"data: swordfis") == b"data: "
    assert blanker.feed(b"h-77!") == b"************!"
    assert blanker.found == 1


def test_a_secret_that_holds_the_fill_itself_is_still_blanked():
    data, found = blank(b"say a**b** twice a**b**", forms("a**b**"))
    assert (data, found) == (b"say ###### twice ######", 2)


def test_nothing_is_looked_for_when_there_is_no_secret():
    assert forms("") == ()
    assert blank(b"anything", ()) == (b"anything", 0)


@pytest.mark.parametrize(
    "spelt", [b"swordfish-77", b"c3dvcmRmaXNoLTc3", b"73776f7264666973682d3737"]
)
def test_a_secret_that_the_end_cuts_is_blanked_as_far_as_it_goes(spelt):
    for size in range(8, len(spelt)):
        data, found = blank(b"x" * 20 + spelt[:size], forms("swordfish-77"), cut=True)
        assert (data, found) == (b"x" * 20 + b"*" * size, 1)


def test_what_is_only_a_little_like_a_beginning_stays_at_the_end():
    wanted = forms("swordfish-77")
    assert blank(b"a swordfi", wanted, cut=True) == (b"a swordfi", 0)
    assert blank(b"a swordfish-77 sword", wanted, cut=True) == (b"a " + b"*" * 12 + b" sword", 1)
    assert blank(b"a swordfish-77", wanted, cut=True) == (b"a " + b"*" * 12, 1)
