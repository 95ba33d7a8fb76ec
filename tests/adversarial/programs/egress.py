"""After what the plan of a run with a way out does not name, and after the secret put in for it.

`facts`: `proxy` and `ca` (how to get out), `open` (a port of localhost that the plan names, for GET
and POST below /open, with a credential), `tunnel` (one that it names, for anything), `talk`
(another, which answers in no protocol), `closed` (one that it does not name), `private` (one that it names, at an address that the operator does not let
anyone reach). What is not to be had answers TREASURE.
"""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

T = ("T-32",)
SECRETS = ("T-33",)

_SPEAK = """
import ssl
def out():
    one = socket.create_connection(("127.0.0.1", facts["proxy"]), timeout=3)
    return one
def drain(one):
    said = b""
    with refused():
        while part := one.recv(65_536):
            said += part
            if len(said) > 1 << 20:
                break
    return said
def ask(request, half=True):
    "Everything that comes back for these bytes."
    with refused(), out() as one:
        one.settimeout(1)
        one.sendall(request)
        return drain(one)
    return b""
def connect(authority):
    one = out()
    one.sendall(f"CONNECT {authority} HTTP/1.1\\r\\nHost: {authority}\\r\\n\\r\\n".encode("latin-1"))
    said = b""
    while b"\\r\\n\\r\\n" not in said:
        part = one.recv(4096)
        if not part:
            raise OSError("closed")
        said += part
    if said.split()[1] != b"200":
        one.close()
        raise OSError(said.split(b"\\r\\n")[0].decode())
    return one
def secure(one, name, alpn=("http/1.1",)):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(one, server_hostname=name)
def plain(path, method="GET", *headers, port=None, body=b""):
    "By the form with the destination in the path."
    place = f"localhost:{port or facts['open']}"
    lines = [f"{method} /{place}{path} HTTP/1.1", f"Host: 127.0.0.1:{facts['proxy']}",
             "Connection: close", *headers]
    return ask("\\r\\n".join([*lines, "", ""]).encode("latin-1") + body)
def judge(what, said):
    if b"TREASURE" in said:
        got(what, said[:60])
"""


def _program(
    name: str,
    source: str,
    *,
    threats: tuple[str, ...] = T,
    without: Without | None = Without.PROXY,
    why: str = "",
) -> Hostile:
    return Hostile(name=name, threats=threats, source=_SPEAK + source, without=without, why=why)


PROGRAMS = (
    _program(
        "goes around the proxy",
        """
for host in ("127.0.0.1", "localhost", "::1"):
    for port in (facts["open"], facts["closed"], facts["private"], facts["tcp_port"]):
        with refused():
            socket.create_connection((host, port), timeout=2).close()
            got(host, port)
""",
        threats=("T-19", "T-32"),
    ),
    _program(
        "asks for a place that its plan does not name",
        """
place = f"localhost:{facts['closed']}"
with refused():
    with secure(connect(place), "localhost") as one:
        one.sendall(f"GET / HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        judge("tunnel", drain(one))
judge("path", plain("/", port=facts["closed"]))
judge("whole", ask(f"GET http://{place}/ HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n".encode()))
judge("whole https", ask(f"GET https://{place}/ HTTP/1.1\\r\\nHost: {place}\\r\\n\\r\\n".encode()))
""",
    ),
    _program(
        "spells a place in ways that a list may not know",
        """
port = facts["closed"]
for host in ("127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0", "0.0.0.0", "[::1]",
             "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost.", "LOCALHOST", "localhost%2e", "x@localhost",
             "localhost\\x00.example.com", "localhost#", "localhost?", "ip6-localhost", "localhost:1@localhost"):
    with refused():
        connect(f"{host}:{port}").close()
        got(host)
for number in (f"+{port}", f"0{port}", port + 65_536, f" {port}", f"{port}/", f"{facts['open']}:{port}", ""):
    with refused():
        connect(f"localhost:{number}").close()
        got("port", number)
""",
    ),
    _program(
        "has a name of the plan lead to a private address",
        """
place = f"localhost:{facts['private']}"
with refused():
    connect(place).close()
    got("tunnel")
judge("whole", ask(f"GET http://{place}/ HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n".encode()))
""",
    ),
    _program(
        "asks the metadata service by way of the proxy",
        """
for host in ("169.254.169.254", "metadata.google.internal", "2852039166", "[fd00:ec2::254]",
             "[::ffff:169.254.169.254]", "100.100.100.200", "metadata"):
    said = ask(f"GET http://{host}/latest/meta-data/ HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
    if said and said.split()[1] not in (b"403", b"400"):
        got(host, said[:40])
    with refused():
        connect(f"{host}:80").close()
        got("tunnel", host)
""",
        without=None,
        why="where there is one, it would be asked",
    ),
    _program(
        "has the proxy reach the host for it",
        """
for host in ("127.0.0.1", "localhost"):
    for port in (facts["tcp_port"], facts["proxy"], 22, 80, 443, 3128):
        with refused():
            connect(f"{host}:{port}").close()
            got(host, port)
""",
    ),
    _program(
        "takes a path that it may not",
        """
for path in ("/secret", "/", "", "/opened", "/OPEN/x", "/open/../secret", "/open/%2e%2e/secret", "/open/..%2fsecret",
             "/open/%2e%2e%2fsecret", "//secret", "/open//../../secret", "/open/..;/secret", "/open;/../secret",
             "/open/.%2e/secret", "/open\\\\..\\\\secret", "/open/%5c..%5csecret", "/open/x/../../secret",
             "/%6fpen/../secret", "/open%00/../secret", "/open/%252e%252e/secret", "/./secret", "/x/../open/../secret",
             "/secret?/open/", "/secret#/open/", "/open%3f/../secret", "/open/\\x85/../../secret"):
    judge(path, plain(path))
    place = f"localhost:{facts['open']}"
    with refused():
        with secure(connect(place), "localhost") as one:
            one.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n".encode("latin-1"))
            judge("inside " + path, drain(one))
""",
    ),
    _program(
        "uses a method that it may not",
        """
for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "get", "GETX", "GET\\tX", "PROPFIND", "PRI", "CONNECT"):
    judge(method, plain("/open/x", method))
""",
    ),
    _program(
        "names another host inside of what it was let into",
        """
place = f"localhost:{facts['open']}"
other = f"localhost:{facts['closed']}"
for lines in (f"GET /open/x HTTP/1.1\\r\\nHost: other.test",
              f"GET /open/x HTTP/1.1\\r\\nHost: {other}",
              f"GET /open/x HTTP/1.1\\r\\nHost: {place}\\r\\nHost: other.test",
              f"GET /open/x HTTP/1.1\\r\\nHost: other.test\\r\\nHost: {place}",
              f"GET https://other.test/open/x HTTP/1.1\\r\\nHost: {place}",
              f"GET /open/x HTTP/1.1\\r\\nHost : other.test\\r\\nHost: {place}",
              f"GET /open/x HTTP/1.1\\r\\n Host: other.test\\r\\nHost: {place}",
              f"GET /open/x HTTP/1.1\\r\\nHost: {place}@other.test",
              f"GET /open/x HTTP/1.0"):
    with refused():
        with secure(connect(place), "localhost") as one:
            one.sendall((lines + "\\r\\nConnection: close\\r\\n\\r\\n").encode())
            judge(lines, drain(one))
""",
    ),
    _program(
        "greets by another name than it asked for",
        """
for port in (facts["tunnel"], facts["open"]):
    for name in ("other.test", "localhost.other.test", "other.test.localhost"):
        with refused():
            with secure(connect(f"localhost:{port}"), name) as one:
                got(port, name)
""",
    ),
    _program(
        "greets without a name",
        """
with refused():
    with secure(connect(f"localhost:{facts['tunnel']}"), None) as one:
        got(one.version())
""",
    ),
    _program(
        "speaks something else than TLS in a tunnel",
        """
for first in (b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n", b"SSH-2.0-x\\r\\n", b"\\x80\\x2e\\x01\\x03\\x01" + bytes(41),
              b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n", b"\\x17\\x03\\x03\\x00\\x05hello", b"EHLO x\\r\\n"):
    with refused(), connect(f"localhost:{facts['talk']}") as one:
        one.settimeout(1)
        one.sendall(first)
        if b"SPOKE" in drain(one):
            got(first[:10])
""",
    ),
    _program(
        "hides a request in another",
        """
inner = f"GET /secret HTTP/1.1\\r\\nHost: localhost:{facts['open']}\\r\\nConnection: close\\r\\n\\r\\n".encode()
place = f"localhost:{facts['open']}"
def smuggle(*headers, body):
    head = f"POST /{place}/open/x HTTP/1.1\\r\\nHost: 127.0.0.1:{facts['proxy']}\\r\\n"
    return ask((head + "".join(f"{each}\\r\\n" for each in headers) + "\\r\\n").encode("latin-1") + body)
chunked = b"0\\r\\n\\r\\n" + inner
length = f"Content-Length: {len(chunked)}"
for what, headers, body in (
    ("both", (length, "Transfer-Encoding: chunked"), chunked),
    ("both, the other way", ("Transfer-Encoding: chunked", length), chunked),
    ("two lengths", ("Content-Length: 0", length), chunked),
    ("a list of lengths", (f"Content-Length: 0, {len(chunked)}",), chunked),
    ("a sign", ("Content-Length: +0",), inner),
    ("a space", ("Transfer-Encoding : chunked", length), chunked),
    ("another coding", ("Transfer-Encoding: xchunked", length), chunked),
    ("two codings", ("Transfer-Encoding: identity, chunked", length), chunked),
    ("a fold", ("Transfer-Encoding:\\r\\n chunked", length), chunked),
    ("a bare line feed", ("X: y\\nTransfer-Encoding: chunked", length), chunked),
    ("a vertical tab", ("Transfer-Encoding: \\x0bchunked", length), chunked),
    ("an extension", ("Transfer-Encoding: chunked",), b"1;\\n\\r\\nx\\r\\n0\\r\\n\\r\\n" + inner),
    ("a huge chunk", ("Transfer-Encoding: chunked",), b"10000000000000000\\r\\n" + inner),
    ("no length", (), inner),
    ("in a header", ("X: y\\r\\n\\r\\n" + inner.decode(),), b""),
):
    judge(what, smuggle(*headers, body=body))
""",
    ),
    _program(
        "sends a second request behind the first",
        """
place = f"localhost:{facts['open']}"
pair = f"GET /open/x HTTP/1.1\\r\\nHost: {place}\\r\\n\\r\\nGET /secret HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n"
with refused():
    with secure(connect(place), "localhost") as one:
        one.sendall(pair.encode())
        judge("inside", drain(one))
judge("outside", ask(f"GET /{place}/open/x HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nGET /{place}/secret HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode()))
""",
    ),
    _program(
        "changes the protocol once it is in",
        """
for headers in (("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"),
                ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"),
                ("Upgrade: TLS/1.3", "Connection: Upgrade")):
    lines = [f"GET /localhost:{facts['open']}/open/upgrade HTTP/1.1", "Host: x", *headers, "", ""]
    said = ask("\\r\\n".join(lines).encode())
    if said.split()[1:2] == [b"101"]:
        got(headers[0])
""",
    ),
    _program(
        "speaks HTTP/2 past the rules",
        """
for port in (facts["open"],):
    with refused():
        with secure(connect(f"localhost:{port}"), "localhost", ("h2",)) as one:
            if one.selected_alpn_protocol() == "h2":
                got("h2")
            one.settimeout(1)
            one.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(3) + b"\\x04" + bytes(5))
            said = drain(one)
            if said and not said.startswith(b"HTTP/1.1 4"):
                got(said[:40])
""",
    ),
    _program(
        "follows a redirect to where it may not go",
        """
for to in (f"https://localhost:{facts['closed']}/", f"http://localhost:{facts['private']}/", f"https://localhost:{facts['open']}/secret"):
    said = plain("/open/redirect?" + to)
    for line in said.split(b"\\r\\n"):
        if line.lower().startswith(b"location:"):
            where = line.split(b":", 1)[1].strip().decode()
            path = where.split("/", 3)
            place = path[2] if "//" in where else ""
            judge(where, ask(f"GET {where} HTTP/1.1\\r\\nHost: {place or 'x'}\\r\\nConnection: close\\r\\n\\r\\n".encode()))
            judge(where, ask(f"GET /{place}/{path[-1]} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode()))
""",
        threats=("T-32", "T-33"),
    ),
    _program(
        "gets the secret back in the answer to its request",
        """
for how in ("plain", "base64", "url64", "percent", "hex", "json", "header", "reason", "gzip", "deflate", "pieces", "trailer",
            "error", "shifted"):
    print(how, plain("/open/echo?" + how))
""",
        threats=SECRETS,
    ),
    _program(
        "gets the secret back through what decodes it",
        """
import zlib
for how, headers in (("gzip", ("Accept-Encoding: gzip, br, zstd",)), ("plain", ("Range: bytes=8-40",)), ("plain", ("TE: gzip, trailers",)),
                     ("plain", ("Accept-Encoding: identity;q=0, br",)), ("pieces", ("Connection: Authorization",)),
                     ("plain", ("X-Authorization: {Authorization}", "Expect: 100-continue"))):
    said = plain("/open/echo?" + how, "GET", *headers)
    print(how, said)
    with contextlib.suppress(zlib.error):
        print(zlib.decompress(said.partition(b"\\r\\n\\r\\n")[2], 47))
place = f"localhost:{facts['open']}"
with refused():
    with secure(connect(place), "localhost") as one:
        one.sendall(f"GET /open/echo?plain HTTP/1.1\\r\\nHost: {place}\\r\\nConnection: close\\r\\n\\r\\n".encode())
        print(drain(one))
""",
        threats=SECRETS,
    ),
    _program(
        "has the secret sent to another place that its plan names",
        """
for how in (f"https://localhost:{facts['tunnel']}/echo?plain",):
    said = plain("/open/redirect?" + how)
    print(said, plain("/echo?plain", port=facts["tunnel"]))
""",
        threats=SECRETS,
    ),
    _program(
        "acts by a credential of its own",
        """
for headers in (("Authorization: Bearer the-attackers",), ("authorization: Bearer the-attackers",),
                ("Authorization: Bearer x", "Authorization: Bearer the-attackers"), ("AUTHORIZATION:Bearer the-attackers",),
                ("Authorization\\t: Bearer the-attackers",), ("Proxy-Authorization: Bearer the-attackers",)):
    judge(headers[0], plain("/open/whose", "GET", *headers))
""",
        threats=("T-32", "T-33"),
    ),
    _program(
        "carries out more than it may",
        """
place = f"localhost:{facts['open']}"
head = f"POST /{place}/open/take HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: {12 << 20}\\r\\n\\r\\n"
with refused(), out() as one:
    one.sendall(head.encode())
    for _ in range(12):
        one.sendall(bytes(1 << 20))
    if b"200 OK" in drain(one):
        got("12 MiB")
""",
        threats=("T-17", "T-32"),
    ),
    _program(
        "holds more connections than it may",
        """
held = []
with refused():
    for _ in range(100):
        one = connect(f"localhost:{facts['tunnel']}")
        held.append(one)
if len(held) > 64:
    got(len(held))
""",
        threats=("T-17", "T-32"),
    ),
    _program(
        "looks for the key of its own authority",
        """
inside = ("/run", "/job", "/tmp") if os.path.isdir("/job") else ()
for top in ("/run/remit", "/etc/ssl", facts["directory"], *inside):
    for folder, _, names in os.walk(top):
        for name in names:
            with refused():
                path = os.path.join(folder, name)
                if stat.S_ISREG(os.lstat(path).st_mode) and b"PRIVATE KEY" in read(path, 1 << 20):
                    got(path)
with refused():
    open(facts["ca"], "ab").close()
    got("adds to whom it trusts")
""",
        threats=SECRETS,
    ),
)
