"""A port that was chosen stays free until its server starts."""

from __future__ import annotations

import socket

from tests.ports import HOST, free_port

MANY = 500


def test_ports_chosen_differ_from_each_other_and_from_all_that_others_are_given() -> None:
    chosen = {free_port() for _ in range(MANY)}
    assert len(chosen) == MANY
    taken = []
    try:
        for number in range(MANY):
            each = socket.socket()
            taken.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, number % 2)
            each.bind((HOST, 0))
        assert chosen.isdisjoint(each.getsockname()[1] for each in taken)
    finally:
        for each in taken:
            each.close()


def test_a_server_can_take_it_and_until_then_nobody_listens() -> None:
    port = free_port()
    with socket.socket() as caller:
        assert caller.connect_ex((HOST, port)) != 0
    with socket.create_server((HOST, port)) as server, socket.socket() as caller:
        caller.connect(server.getsockname())
