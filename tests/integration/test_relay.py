"""tests/support/relay.py against a server that answers what it is told: the tests of a cut cable rest on it."""
import socket, socketserver, threading, time

import pytest

from lab import wait_for
from relay import Relay


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.server.seen = getattr(self.server, "seen", b"")
        while data := self.request.recv(65536):
            self.server.seen += data
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address, block_on_close = True, True, False


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def relay(server):
    relay = Relay(*server.server_address)
    yield relay
    relay.close()


def connect(relay, timeout=5):
    return socket.create_connection((relay.host, relay.port), timeout)


def says(connection, data, timeout=5):
    connection.settimeout(timeout)
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        part = connection.recv(65536)
        if not part:
            break
        answer += part
    return answer


def test_forwards_both_ways_and_the_end(relay):
    with connect(relay) as one, connect(relay) as two:
        big = bytes(range(256)) * 8192
        assert says(one, b"hello") == b"hello" and says(two, b"there") == b"there"
        sender = threading.Thread(target=one.sendall, args=(big,))
        sender.start()
        got = b""
        while len(got) < len(big):
            got += one.recv(65536)
        sender.join()
        assert got == big
        one.shutdown(socket.SHUT_WR)
        assert one.recv(10) == b""
        assert relay.accepted == 2
    wait_for("the connections' end", lambda: relay.established() == 0)


def test_silence_and_after(relay):
    with connect(relay) as standing:
        assert says(standing, b"before") == b"before"
        relay.silence()
        with pytest.raises(TimeoutError):
            says(standing, b"during", 0.3)
        with pytest.raises(TimeoutError):
            connect(relay, 0.3)
        relay.forward()
        standing.settimeout(5)
        assert standing.recv(100) == b"during"
        with connect(relay) as new:
            assert says(new, b"after") == b"after"


def test_a_held_answer(relay, server):
    with connect(relay) as connection:
        says(connection, b"one")
        relay.hold_answers()
        with pytest.raises(TimeoutError):
            says(connection, b"two", 0.3)
        assert server.seen == b"onetwo"
        relay.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_refused_and_reset(relay):
    with connect(relay) as connection:
        says(connection, b"x")
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(relay)
        assert says(connection, b"y") == b"y"
        relay.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    relay.forward()
    with connect(relay) as connection:
        assert says(connection, b"z") == b"z"


def test_delay(relay):
    with connect(relay) as connection:
        says(connection, b"x")
        relay.delay(0.15)
        start = time.monotonic()
        assert says(connection, b"y") == b"y"
        assert 0.3 <= time.monotonic() - start < 2


def test_a_server_that_is_away(relay, server):
    server.shutdown()
    server.server_close()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        with connect(relay) as connection:
            connection.settimeout(5)
            assert connection.recv(1) != b"", "an end is no reset"
