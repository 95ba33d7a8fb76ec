"""What the keeper signs: one history of one log, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.errors import ConfigError
from remit.keeper.signing import ACCOUNT, CheckpointSigner, Unsigned
from remit.keeper.state import StateDirectory
from remit.ledger.checkpoint import VerifierKey, checkpoint_text, open_checkpoint
from remit.ledger.merkle import Frontier, consistency_proof, leaf_hash
from remit.ledger.signer import FileSigner
from remit.runners.credentials.signer import KeeperSigner, pack_request, unpack_request

ORIGIN = "gateway.example/log"


class Log:
    """A tree that can be cut off and grown another way."""

    def __init__(self, *leaves: bytes) -> None:
        self.tree = Frontier()
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.grow(*leaves)

    def grow(self, *leaves: bytes) -> Log:
        for leaf in leaves:
            index = self.tree.size
            self.tree, made = self.tree.append(leaf_hash(leaf))
            self.nodes.update({(level, index >> level): node for level, node in enumerate(made)})
        return self

    def text(self, origin: str = ORIGIN) -> bytes:
        return checkpoint_text(origin, self.tree.size, self.tree.root())

    def since(self, size: int) -> list[bytes]:
        return consistency_proof(size, self.tree.size, lambda *at: self.nodes[at])


@pytest.fixture
def key(tmp_path: Path) -> FileSigner:
    return FileSigner.create(tmp_path / "log.key", ORIGIN)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "keeper")


@pytest.fixture
def signer(key: FileSigner, state: StateDirectory) -> CheckpointSigner:
    return CheckpointSigner(key, state)


@pytest.fixture
def asking(signer: CheckpointSigner) -> Iterator[KeeperSigner]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    signer.serve(theirs)
    asked = KeeperSigner(signer.verifier_key, lambda _: None)
    asked.connect(ours, signer.mark.size)
    yield asked
    asked.close()


def test_a_log_that_grows_is_signed_as_the_log_itself_would(
    asking: KeeperSigner, key: FileSigner
) -> None:
    log = Log(b"a")
    for leaves in ((), (b"b",), (b"c", b"d", b"e"), ()):
        first = asking.signed
        log.grow(*leaves)
        proof = log.since(first) if 0 < first < log.tree.size else []
        note = f"{log.text().decode()}\n{asking.sign(log.text(), proof)}\n"
        assert open_checkpoint(note, VerifierKey.parse(key.verifier_key)).size == log.tree.size
        assert asking.signed == log.tree.size


@pytest.mark.threat("T-38")
def test_a_second_history_is_not_signed(signer: CheckpointSigner) -> None:
    log = Log(b"a", b"b", b"c")
    signer.sign(log.text(), [])
    for fork in (Log(b"a", b"b"), Log(b"a", b"b", b"x"), Log(b"a", b"b", b"x", b"d")):
        size = fork.tree.size
        proof = fork.since(3) if size > 3 else []
        with pytest.raises(Unsigned):
            signer.sign(fork.text(), proof)
    assert signer.mark.size == 3


@pytest.mark.threat("T-38")
def test_a_longer_log_without_its_proof_is_not_signed(signer: CheckpointSigner) -> None:
    log = Log(b"a", b"b", b"c")
    signer.sign(log.text(), [])
    log.grow(b"d", b"e")
    with pytest.raises(Unsigned):
        signer.sign(log.text(), [])
    assert signer.sign(log.text(), log.since(3))


@pytest.mark.threat("T-38")
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello",
        b"other.example/log\n1\n" + b"A" * 43 + b"=\n",
        b"gateway.example/log\n01\n" + b"A" * 43 + b"=\n",
        b"gateway.example/log\n1\nAAAA\n",
        Log(b"a").text() + b"one line more\n",
        Log(b"a").text() + "\n— other.example AAAAAAAA\n".encode(),
        Log(b"a").text().replace(b"\n", b"\r\n"),
        b"\xff" + Log(b"a").text(),
    ],
)
def test_nothing_but_a_checkpoint_of_this_log_is_signed(
    signer: CheckpointSigner, text: bytes
) -> None:
    with pytest.raises(Unsigned):
        signer.sign(text, [])
    assert signer.mark.size == 0


@pytest.mark.threat("T-38")
def test_what_was_signed_is_known_to_the_next_keeper(
    key: FileSigner, state: StateDirectory
) -> None:
    log = Log(b"a", b"b")
    CheckpointSigner(key, state).sign(log.text(), [])
    again = CheckpointSigner(key, state)
    assert (again.mark.size, again.mark.root) == (2, log.tree.root())
    with pytest.raises(Unsigned):
        again.sign(Log(b"a").text(), [])


def test_a_write_cut_short_leaves_the_mark_before_it(
    key: FileSigner, state: StateDirectory
) -> None:
    log = Log(b"a")
    first = CheckpointSigner(key, state)
    first.sign(log.text(), [])
    log.grow(b"b")
    first.sign(log.text(), log.since(1))
    data = bytearray(state.read(ACCOUNT) or b"")
    data[512 + 30 : 512 + 60] = bytes(30)
    state.write(ACCOUNT, bytes(data))
    assert CheckpointSigner(key, state).mark.size == 1


def test_the_account_of_another_log_is_refused(
    key: FileSigner, state: StateDirectory, tmp_path: Path
) -> None:
    CheckpointSigner(key, state).sign(Log(b"a").text(), [])
    other = FileSigner.create(tmp_path / "other.key", "other.example/log")
    with pytest.raises(ConfigError):
        CheckpointSigner(other, state)


def test_a_request_that_is_none_is_answered_with_a_no(asking: KeeperSigner) -> None:
    sock = asking._socket
    assert sock is not None
    for data in (b"x", b"\xff\xff", pack_request(b"text", [])[:-1], pack_request(b"t", []) + b"1"):
        sock.send(data)
        assert sock.recv(4_096)[:1] == b"-"
    assert unpack_request(pack_request(b"t", [bytes(32)])) == (b"t", [bytes(32)])
