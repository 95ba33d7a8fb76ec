"""The keeper: holds the log's key, the issuer's keys and what brokers log in with.

    python -I keeper/__main__.py CONTROL_FD SIGNING_FD

Started before the gateway holds secrets or threads, with an environment of nothing but the
variables that references of its credentials name. It acts for runs that it finds in the ledger
itself; of the gateway it believes nothing but a run's name. When the control socket ends, it ends
all that it has lent, and itself.

Control (each request has a number `n`, which its one answer repeats; an answer with `fault` is a no):

    hello   key_file, state_dir, base, credentials, issuer, uid   -> ready {verifier_key, signed,
                                                                   digests, consented}
    ledger  path                        -> done     from here on it lends, as its own user
    proxy   + the socket to the proxy   -> done
    lend    run, fence                  -> lent {loans, files} + a descriptor for each file
    look    run, ref                    -> lent     outside of runs; only where a section says so
    return  run                         -> returned {loans}
    scrub   run + data                  -> scrubbed {found} + data
    sweep   live                        -> swept {runs, loans}
    keys                                -> keys {jwks}
    unaccepted  run, scopes             -> done     a server did not accept what the run was lent
    consent         ref, tenant, subject, scopes         -> consent {state}
    consent_begin   as before, redirect_uri, client_document -> begun {page}
    consent_finish  state, answer                        -> given {consent}
    consents        tenant                               -> consents {consents}
    consent_end     ref, tenant, subject                 -> ended {confirmed}

What is asked on the signing socket: see `remit.runners.credentials.signer`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

if __name__ == "__main__":  # started as a file: the same code as the gateway's, by its place
    _HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [each for each in sys.path if each != _HERE]
    _OTHERS = (at for at, each in enumerate(sys.path) if each.endswith("-packages"))
    sys.path.insert(next(_OTHERS, len(sys.path)), os.path.dirname(os.path.dirname(_HERE)))

from remit.errors import ConfigError
from remit.keeper.confine import harden
from remit.runners.wire import close_all, receive, send


def main() -> None:
    """Serve one gateway."""
    harden()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(each, signal.SIG_IGN)  # it ends with its gateway, and not before
    control = socket.socket(fileno=int(sys.argv[1]))
    signing = socket.socket(fileno=int(sys.argv[2]))
    received = receive(control)
    if received is None:
        return
    hello, fds = received
    close_all(fds)
    from remit.keeper.opening import Opened

    try:
        opened = Opened(hello)
    except ConfigError as exc:
        send(control, {"n": hello.get("n"), "ev": "refused", **_told(exc)})
        return
    opened.signer.serve(signing)
    ready = {
        "n": hello.get("n"),
        "ev": "ready",
        "verifier_key": opened.signer.verifier_key,
        "signed": opened.signer.mark.size,
        "digests": {ref: each.digest for ref, each in opened.credentials.items()},
        "consented": opened.consented,
    }
    send(control, ready)
    _serve(control, opened)


def _told(exc: ConfigError) -> dict[str, Any]:
    return {
        "code": exc.code.value,
        "fault": exc.message,
        "place": exc.place,
        "hint": exc.hint,
    }


def _serve(control: socket.socket, opened: Any) -> None:
    import asyncio

    from remit.keeper.desk import Desk
    from remit.keeper.lending import Lending

    async def serve() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # may quote secrets
        lending = Lending(
            opened.credentials, opened.journal, opened.proxy, lambda: opened.signer.mark
        )
        desk = Desk(control, opened, lending)
        stocking = asyncio.ensure_future(opened.stock_key())
        await desk.serve()
        stocking.cancel()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
    os._exit(0)  # what was lent is ended; nothing here is worth waiting for
