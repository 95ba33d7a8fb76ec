"""A person consents in a browser that people use: its rules for forms, cookies and redirects hold."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.doors.chromium import chromium
from tests.servers.test_consents import machine, town

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.threat("T-53"),
    pytest.mark.needs("chromium"),
]


async def test_a_person_with_a_real_browser_consents_and_is_led_back(tmp_path: Path) -> None:
    async with town(tmp_path / "g") as it, chromium() as window:
        url = machine(await it.call(it.world.agent))["consent"]["url"]
        await window.open(url)
        asked = await window.reads("Only this person can agree")
        assert urlsplit(it.login.url).netloc in asked

        await window.type("#key", it.world.keys["ben"].token)
        await window.click("button")
        await window.reads("not a key of this person")
        assert it.login.grants == []

        await window.type("#key", it.world.keys["ann"].token)
        await window.click("button")
        await window.reads("may now act for ann")
        at = urlsplit(await window.url())
        assert f"{at.scheme}://{at.netloc}{at.path}" == f"{it.world.address}/consents/callback"
        assert not (await it.call(it.world.agent)).is_error
        said = [each for each in await window.complaints() if "403" not in each]
        assert not [each for each in said if "favicon" not in each]


async def test_no_page_of_another_site_shows_remits_in_a_frame_or_sends_its_form(
    tmp_path: Path,
) -> None:
    async with town(tmp_path / "g") as it, chromium() as window:
        url = machine(await it.call(it.world.agent))["consent"]["url"]
        key = it.world.keys["ann"].token
        await window.open(url)
        page = tmp_path / "elsewhere.html"
        page.write_text(
            f'<iframe src="{url}"></iframe><form method="post" action="{url}">'
            f'<input name="key" value="{key}"><input name="token" value="{"t" * 43}">'
            "<button>You won</button></form>"
        )
        await window.open(page.as_uri())
        assert any("frame-ancestors" in each for each in await window.complaints())
        await window.click("button")
        await window.reads("not sent by its own page")
        assert it.login.grants == []
