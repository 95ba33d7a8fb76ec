"""Run where one.test is a name of this machine: `fetch` behind Remit, and a page that only the
egress proxy can reach. Arguments: an empty directory, and the environment that
the server is in. Prints what was answered and asked, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.runners.egress.world import certificates, destination, ok
from tests.upstream_servers.behind import Behind, said
from tests.upstream_servers.real import FETCH, entry

PAGE = b"<html><body><main><h1>Heading</h1><p>A page of the test.</p></main></body></html>"


async def main(folder: Path, environment: Path) -> None:
    """Fetch a page that is allowed, and one that is not."""
    gateway = folder / "gateway"
    gateway.mkdir()
    made = certificates(folder)
    async with destination(made.chain) as site:
        site.reply = lambda asked: ok(PAGE, "Content-Type: text/html")
        rule = {"host": "one.test", "port": site.port, "methods": ["GET"]}
        place = Behind(gateway, [entry(FETCH, folder, {FETCH.mount: environment}, egress=[rule])])
        (gateway / "authority.pem").write_text(made.authority)
        place.egress = {"internal": [f"one.test:{site.port}"], "ca_file": "authority.pem"}
        async with place.open() as behind:
            await behind.offered(FETCH.name)
            answers = {
                host: said(
                    await behind.call(
                        "fetch_fetch", {"url": f"https://{host}:{site.port}/page", "raw": False}
                    )
                )
                for host in ("one.test", "two.test")
            }
            traffic = (await behind.outcome()).get("traffic")
        asked = [f"{each.method} {each.target}" for each in site.asked]
    print(json.dumps({"answers": answers, "asked": asked, "traffic": traffic}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
