"""A gateway's half, to be killed: lends as its arguments say, tells how far it is, and waits.

python gateway_script.py DIRECTORY API_ADDRESS
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.runners.credentials.keeping import github, keeping, lease, static


async def main(directory: Path, api: str) -> None:
    chosen = {"code": github(api, directory / "app.pem"), "static": static()}
    async with keeping(directory, chosen) as world:
        grant = await world.granted("code", "static")
        tell("pid", str(world.keeper.pid))
        lending = asyncio.ensure_future(world.keeper.lend(lease(grant)))
        tell("lending", grant.run_id)
        await lending
        tell("lent", grant.run_id)
        await asyncio.to_thread(sys.stdin.readline)
        await world.keeper.take_back(lease(grant))
        tell("returned", grant.run_id)


def tell(what: str, value: str) -> None:
    sys.stdout.write(f"{what} {value}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
