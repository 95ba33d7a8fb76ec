"""After a network, in a run that was given none."""

from __future__ import annotations

from tests.adversarial.hostile import Hostile, Without

T = ("T-19",)

_TRY = """
def attempt(family, kind, address, payload=b"leak"):
    with refused(), socket.socket(family, kind) as one:
        one.settimeout(2)
        one.connect(address)
        if kind == socket.SOCK_DGRAM:
            one.send(payload)
            one.recv(100)
        got(address)
"""

PROGRAMS = (
    Hostile(
        name="connects to addresses of the world",
        threats=T,
        without=Without.NETWORK,
        source=_TRY
        + """
for host, port in (("192.0.2.1", 80), ("8.8.8.8", 443), ("10.0.0.1", 22), ("192.0.2.1", 443)):
    attempt(socket.AF_INET, socket.SOCK_STREAM, (host, port))
    attempt(socket.AF_INET, socket.SOCK_DGRAM, (host, port))
""",
    ),
    Hostile(
        name="asks the metadata service",
        threats=T,
        without=Without.NETWORK,
        source=_TRY
        + """
for host in ("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376"):
    with refused():
        attempt(socket.AF_INET, socket.SOCK_STREAM, (socket.inet_ntoa(socket.inet_aton(host)), 80))
attempt(socket.AF_INET6, socket.SOCK_STREAM, ("fd00:ec2::254", 80))
attempt(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:169.254.169.254", 80))
""",
    ),
    Hostile(
        name="leaks by questions to name servers",
        threats=T,
        without=Without.NETWORK,
        source=_TRY
        + """
question = bytes.fromhex("123401000001000000000000") + b"\\x06secret\\x07example\\x03com\\0\\0\\x01\\0\\x01"
for host in ("8.8.8.8", "192.0.2.1", "10.0.0.1"):
    attempt(socket.AF_INET, socket.SOCK_DGRAM, (host, 53), question)
    attempt(socket.AF_INET, socket.SOCK_STREAM, (host, 53), question)
""",
    ),
    Hostile(
        name="has a name resolved",
        threats=T,
        without=None,
        why="what a name resolves to, and whether, is up to the machine that the tests are on",
        source="""
for name in ("example.com", "secret.example.com", facts["host"], "_gateway", "metadata.google.internal"):
    if name not in ("localhost", "job"):
        with refused():
            got(name, socket.getaddrinfo(name, 80)[0][4])
for path in ("/run/nscd/socket", "/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"):
    with refused(), socket.socket(socket.AF_UNIX) as one:
        one.connect(path)
        got(path)
""",
    ),
    Hostile(
        name="goes by IPv6",
        threats=T,
        without=Without.NETWORK,
        source=_TRY
        + """
for host in ("2001:db8::1", "fe80::1%lo", "fd00:ec2::254", "::ffff:192.0.2.1"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with refused():
            address = socket.getaddrinfo(host, 80, socket.AF_INET6, kind)[0][4]
            attempt(socket.AF_INET6, kind, address)
""",
    ),
    Hostile(
        name="reaches the host by its loopback",
        threats=T,
        without=Without.HOST,
        source=_TRY
        + """
for host in ("127.0.0.1", "localhost", "0.0.0.0", "127.1.2.3"):
    attempt(socket.AF_INET, socket.SOCK_STREAM, (host, facts["tcp_port"]))
    attempt(socket.AF_INET, socket.SOCK_DGRAM, (host, facts["udp_port"]))
attempt(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", facts["tcp_port"]))
""",
    ),
    Hostile(
        name="makes raw sockets",
        threats=T,
        without=Without.NETWORK,
        source="""
for family, protocol in ((socket.AF_INET, 1), (socket.AF_INET, 6), (socket.AF_INET, 255),
                         (socket.AF_INET6, 58), (17, 0x0300), (17, 0x0800)):
    for kind in (socket.SOCK_RAW, 10 if family == 17 else socket.SOCK_DGRAM):
        with refused():
            socket.socket(family, kind, protocol).close()
            got(family, kind, protocol)
""",
    ),
    Hostile(
        name="pings",
        threats=T,
        without=Without.NETWORK,
        source="""
for host in ("192.0.2.1", "8.8.8.8"):
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        with refused(), socket.socket(socket.AF_INET, kind, 1) as one:
            one.settimeout(2)
            one.sendto(bytes([8, 0, 0xf7, 0xff, 0, 0, 0, 0]), (host, 0))
            got(host, len(one.recv(100)))
""",
    ),
    Hostile(
        name="uses families of sockets that few know",
        threats=T,
        without=Without.HOST,
        source="""
for family, name in ((38, "alg"), (40, "vsock"), (31, "bluetooth"), (29, "can"), (44, "xdp"), (21, "rds"),
                     (30, "tipc"), (42, "qipcrtr"), (43, "smc"), (15, "key"), (24, "pppox"), (41, "kcm"),
                     (45, "mctp"), (33, "rxrpc"), (37, "caif"), (3, "ax25"), (9, "x25"), (4, "ipx")):
    for kind in (1, 2, 3, 5):
        with refused():
            socket.socket(family, kind, 0).close()
            got(name, kind)
""",
    ),
    Hostile(
        name="uses transports beside TCP and UDP",
        threats=T,
        without=None,
        why="most kernels have none of them",
        source="""
for kind, protocol, name in ((1, 132, "sctp"), (5, 132, "sctp"), (1, 262, "mptcp"), (6, 33, "dccp"),
                             (2, 136, "udplite"), (2, 115, "l2tp")):
    for family, host in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with refused(), socket.socket(family, kind, protocol) as one:
            one.settimeout(1)
            one.connect((host, 80))
            got(name)
""",
    ),
    Hostile(
        name="makes itself an interface, an address and a route",
        threats=T,
        without=Without.NETWORK,
        source="""
import fcntl
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    address = struct.pack("HH4s8x", 2, 0, socket.inet_aton("192.0.2.77"))
    for request, value in ((0x8914, struct.pack("16sH14x", b"lo", 0x49)),
                           (0x8916, struct.pack("16s16s", b"lo:9", address)),
                           (0x890B, bytes(120)), (0x89A0, b"bridge0"), (0x8922, struct.pack("16sI", b"lo", 1400))):
        with refused():
            fcntl.ioctl(one, request, value)
            got(hex(request))
with refused(), socket.socket(16, socket.SOCK_RAW, 0) as link:
    # RTM_NEWLINK of a dummy interface
    attribute = struct.pack("HH8s", 12, 3, b"leak0") + struct.pack("HH", 16, 18) + struct.pack("HH8s", 12, 1, b"dummy")
    body = struct.pack("BxHiII", 0, 0, 0, 0, 0) + attribute
    link.send(struct.pack("IHHII", 16 + len(body), 16, 0x605, 1, 0) + body)
    said = link.recv(4096)
    if struct.unpack_from("i", said, 16)[0] == 0:
        got("an interface")
with refused():
    fd = os.open("/dev/net/tun", os.O_RDWR)
    got("tun")
if len(socket.if_nameindex()) > 1:
    got("it has", socket.if_nameindex())
""",
    ),
    Hostile(
        name="sets options of sockets that lead elsewhere",
        threats=T,
        without=Without.NETWORK,
        source="""
with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
    for level, option, value in ((1, 36, 7), (0, 19, 1), (1, 33, 1), (1, 32, 4096), (6, 31, b"x")):
        with refused():
            one.setsockopt(level, option, value)
            got(level, option)
    for name in (b"eth0", b"docker0"):
        with refused():
            one.setsockopt(1, 25, name)
            got("bound to", name)
""",
    ),
    Hostile(
        name="sends with the first packet, without connecting",
        threats=T,
        without=Without.NETWORK,
        source="""
try:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.setblocking(False)
        one.sendto(b"leak", 0x20000000, ("192.0.2.1", 80))
        got("fast open")
except BlockingIOError:
    got("a connection on its way")
except OSError:
    pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    for host in ("192.0.2.1", "255.255.255.255", "224.0.0.251"):
        with refused():
            one.sendto(b"leak", (host, 80))
            got("datagram", host)
""",
    ),
    Hostile(
        name="talks to the kernel's firewall, audit and key services",
        threats=T,
        without=Without.NETWORK,
        source="""
for protocol in (4, 5, 6, 9, 10, 11, 12, 15, 16, 18, 19, 20, 21):
    with refused():
        socket.socket(16, socket.SOCK_RAW, protocol).close()
        got(protocol)
""",
    ),
)
