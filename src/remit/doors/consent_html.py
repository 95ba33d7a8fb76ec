"""The pages of Remit that people see: plain HTML, no script, nothing that is not escaped.

Names of servers, hosts, scopes and people come from outside; each is shown as text, with what could
not be seen written out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from remit.visible import visible

STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:38rem;margin:3rem auto;padding:0 1rem}"
    "dt{font-weight:600}dd{margin:0 0 .75rem;overflow-wrap:anywhere}"
    "input,button{font:inherit;padding:.5rem;width:100%;box-sizing:border-box;margin:.25rem 0 1rem}"
    ".error{border-left:.25rem solid;padding-left:.75rem}"
)
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()


def asking(
    *,
    server: str,
    host: str,
    scopes: Sequence[str],
    subject: str,
    action: str,
    token: str,
    error: str | None = None,
) -> str:
    """The page that says what is asked of whom, and asks for a key of theirs.

    Args:
        host: of the authorization server to which it leads.
        scopes: what that is asked for; none where it decides itself.
        action: where the form goes; a path of this site.
        token: what the form brings back, so that no other page can send it.
        error: what was wrong with the last try.
    """
    asked = "".join(f"<li>{_text(each)}</li>" for each in scopes)
    wanted = f"<ul>{asked}</ul>" if asked else "what the server gives by itself"
    wrong = "" if error is None else f'<p class="error" role="alert">{_text(error)}</p>'
    return _page(
        "Let Remit act for you?",
        f"""<p>An agent wants to use an MCP server for <b>{_text(subject)}</b>. Only this person can
agree to that, at the server's own sign-in.</p>
<dl>
<dt>MCP server</dt><dd>{_text(server)}</dd>
<dt>You sign in at</dt><dd>{_text(host)}</dd>
<dt>Remit asks there for</dt><dd>{wanted}</dd>
<dt>For</dt><dd>{_text(subject)}</dd>
</dl>
<p>If you did not expect this, or are not this person, close the page: nothing has happened.</p>
{wrong}<form method="post" action="{_text(action)}">
<input type="hidden" name="token" value="{_text(token)}">
<label for="key">Your Remit key, to show that it is you; it is not sent to {_text(host)}</label>
<input id="key" name="key" type="password" autocomplete="off" required maxlength="200">
<button type="submit">Go on to {_text(host)}</button>
</form>""",
    )


def done(*, server: str, subject: str) -> str:
    """The page of somebody who consented."""
    return _page(
        "Done",
        f"""<p>Remit may now act for <b>{_text(subject)}</b> at the MCP server
<b>{_text(server)}</b>, in calls that policy allows. A call that waits goes on by itself; otherwise
have it made again.</p>
<p>You can close this page. To take it back, ask whoever runs Remit, or sign in at the server and
remove Remit there.</p>""",
    )


def failed(*, title: str, message: str, hint: str) -> str:
    """A page that says what went wrong, and the next thing to do."""
    return _page(
        title,
        f'<p class="error" role="alert">{_sentence(message)}</p>\n<p>{_sentence(hint)}</p>',
    )


def _sentence(text: str) -> str:
    return _text(text[:1].upper() + text[1:].rstrip(".") + ".")


def _text(text: str) -> str:
    return escape(visible(text), quote=True)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)} - Remit</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{_text(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )
