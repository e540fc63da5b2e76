"""writebackd-channel against a WebSocket service, a proxy and a writebackd of our own making, each with faults on demand."""
import asyncio, itertools, json, os, select, signal, socket, subprocess, time

import pytest
from cryptography import x509

from lab import SLOWNESS
from channel_bench import GOOD_NAMES, PROGRAM, ROOT, Authority, Proxy, Service, authority, bench, good_tls, service, until  # noqa: F401 (fixtures)


# Frames ---------------------------------------------------------------------------------------------------------------------------------

def test_frames_pass_both_ways(bench, service):
    agent = bench.start(service.url())
    up = agent.expect("U")
    assert up["url"] == service.url() and up["tls"] == "TLSv1.3" and len(up["peer_sha256"]) == 64 and up["peer_not_after"] > time.time()
    assert service.wait_for_connection().subprotocol == "writeback.v1"
    agent.send("F", b"hello")
    assert agent.expect("F") == b"hello"
    agent.send("F", b"x" * 65536)
    assert agent.expect("F") == b"x" * 65536
    for i in range(300):
        agent.send("F", b"%d" % i)
    assert [agent.expect("F") for i in range(300)] == [b"%d" % i for i in range(300)]
    agent.send("P")
    assert agent.take() == ("P", 0, b"")


def test_messages_above_the_limit_close_with_1009(bench, service):
    agent = bench.start(service.url())
    agent.expect("U")
    bench.loop.run(service.wait_for_connection().send("y" * 65536))
    assert agent.expect("F") == b"y" * 65536
    bench.loop.run(service.wait_for_connection().send("y" * (65 * 1024)))
    assert agent.expect("D")["code"] == "channel.too_big"
    until(lambda: service.closes)
    assert service.closes[0][0] == 1009
    agent.expect("U")


def test_binary_closes_with_1003(bench, service):
    agent = bench.start(service.url())
    agent.expect("U")
    bench.loop.run(service.wait_for_connection().send(b"binary"))
    assert agent.expect("D")["code"] == "channel.protocol"
    until(lambda: service.closes)
    assert service.closes[0][0] == 1003


def test_pings_are_answered_and_sent(bench, service):
    agent = bench.start(service.url("127.0.0.1"), extra="ping_interval: 1s\nsilence_limit: 2s\n")
    agent.expect("U")

    async def ping():
        await asyncio.wait_for(await service.wait_for_connection().ping(), 2)
    bench.loop.run(ping())
    # The service sends nothing by itself: only its pongs keep the channel past the limit.
    ready, _, _ = select.select([agent.peer], [], [], 3)
    assert not ready


# TLS ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fault, code", [("name", "tls.name"), ("authority", "tls.untrusted"), ("expired", "tls.expired")])
def test_certificates_are_verified(bench, authority, tmp_path, fault, code):
    issuer = Authority(tmp_path, "stranger") if fault == "authority" else authority
    names = [x509.DNSName("elsewhere.example.org")] if fault == "name" else GOOD_NAMES
    service = Service(bench.loop, issuer.server_context("bad-" + fault, names, expired=fault == "expired"))
    agent = bench.start(service.url())
    down = agent.expect("D")
    assert down["code"] == code and down["reason"] and down["close_code"] == 0
    again = agent.expect("D")
    assert again["code"] == code
    assert not service.connections
    # Once per change, not per try.
    bench.stop()
    assert len(bench.events("channel.down")) == 1


def test_a_service_without_tls_is_refused(bench):
    service = Service(bench.loop, None)
    agent = bench.start(service.url())
    assert agent.expect("D")["code"] == "tls.failed"


# The upgrade ----------------------------------------------------------------------------------------------------------------------------

def test_a_missing_subprotocol_is_refused(bench, good_tls):
    service = Service(bench.loop, good_tls, subprotocols=None)
    down = bench.start(service.url()).expect("D")
    assert down["code"] == "channel.http" and "subprotocol" in down["reason"] and down["http_status"] == 101


def test_redirects_are_not_followed(bench, service, good_tls):
    redirect = Service(bench.loop, good_tls, answer=(301, [("Location", service.url())], b""))
    down = bench.start(redirect.url()).expect("D")
    assert (down["code"], down["http_status"]) == ("channel.http", 301)
    assert not service.arrivals


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_agent_is_told(bench, good_tls, status):
    service = Service(bench.loop, good_tls, answer=(status, [], b""))
    down = bench.start(service.url()).expect("D")
    assert (down["code"], down["http_status"]) == ("channel.rejected", status)


def test_retry_after_is_obeyed(bench, good_tls):
    service = Service(bench.loop, good_tls, answer=(503, [("Retry-After", "1")], b""))
    agent = bench.start(service.url())
    down = agent.expect("D")
    assert (down["code"], down["http_status"], down["retry_after"]) == ("channel.http", 503, 1)
    assert 1000 <= down["next_try_ms"] <= 2000
    service.answer = None
    agent.expect("U")
    assert service.arrivals[1] - service.arrivals[0] >= 0.99


# Reaching it ----------------------------------------------------------------------------------------------------------------------------

def test_nobody_listens(bench):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    down = bench.start(f"wss://127.0.0.1:{port}/").expect("D")
    assert down["code"] == "channel.refused" and str(port) in down["reason"]


def test_a_name_that_does_not_exist(bench):
    down = bench.start("wss://does-not-exist.invalid/").expect("D", limit=12)
    assert down["code"] == "channel.name"


def test_it_is_back_within_a_second_of_a_cut(bench, service):
    agent = bench.start(service.url())
    agent.expect("U")
    cut = time.monotonic()
    bench.loop.loop.call_soon_threadsafe(service.wait_for_connection().transport.abort)
    down = agent.expect("D")
    assert (down["code"], down["close_code"]) == ("channel.refused", 1006)
    agent.expect("U")
    assert time.monotonic() - cut < 1


def test_two_endpoints(bench, service, good_tls):
    other = Service(bench.loop, good_tls)
    agent = bench.start(service.url(), other.url())
    kinds = sorted(agent.take()[:2] for _ in range(2))
    assert kinds == [("U", 0), ("U", 1)]
    agent.send("F", b"to the second", endpoint=1)
    assert agent.take() == ("F", 1, b"to the second")
    bench.loop.run(other.wait_for_connection().close(4005, "1790000000"))
    kind, endpoint, payload = agent.take()
    down = json.loads(payload)
    assert (kind, endpoint, down["code"], down["close_code"], down["reason"]) == ("D", 1, "channel.closed", 4005, "1790000000")
    agent.send("F", b"to the first")
    while (packet := agent.take())[0] != "F":
        pass
    assert packet == ("F", 0, b"to the first")


@pytest.mark.parametrize("close_code", [1012, 4001])
def test_the_services_close_codes_arrive(bench, service, close_code):
    agent = bench.start(service.url())
    agent.expect("U")
    bench.loop.run(service.wait_for_connection().close(close_code, "because"))
    down = agent.expect("D")
    assert (down["close_code"], down["reason"]) == (close_code, "because")
    assert down["code"] == ("channel.rejected" if close_code == 4001 else "channel.closed")


def test_a_refused_agent_says_so_once(bench, service):
    """It opens its channel again and again; what it says is the first refusal, another reason, that it is let in, and a refusal behind that."""
    agent, numbers = bench.start(service.url()), itertools.count(1)

    def opened(messages):
        agent.expect("U", 12)
        connection = service.wait_for_connection(next(numbers))
        for _ in range(messages):
            bench.loop.run(connection.send("greeting"))
            agent.expect("F")
        return connection

    def said(ups, downs):  # lines are written behind what they tell
        until(lambda: (len(bench.events("channel.up")), len(bench.events("channel.down"))) == (ups, downs))

    def refused(reason, ups, downs, messages=2):
        bench.loop.run(opened(messages).close(4003, reason))
        assert agent.expect("D")["reason"] == reason
        said(ups, downs)

    refused("another instance", 1, 1)
    refused("another instance", 1, 1)
    refused("a clone", 1, 2)
    refused("a clone", 2, 3, messages=3)  # the third is the welcome: it was let in
    opened(0)
    said(3, 3)
    assert [e["close_code"] for e in bench.events("channel.down")] == ["4003"] * 3


# Proxies --------------------------------------------------------------------------------------------------------------------------------

def proxy_config(folder, proxy, password="secret: word"):
    path = folder / "proxy-password"
    path.write_text(password + "\n")
    path.chmod(0o600)
    return f"proxy:\n  address: 127.0.0.1:{proxy.port}\n  username: channel\n  password_file: {path}\n"


def test_a_proxy_is_gone_through(bench, service):
    proxy = Proxy(bench.loop, service.port, credentials=b"channel:secret: word")
    agent = bench.start(service.url(), extra=proxy_config(bench.folder, proxy))
    assert agent.expect("U")["proxy"] == f"127.0.0.1:{proxy.port}"
    assert proxy.requests[0].startswith(f"CONNECT localhost:{service.port} HTTP/1.1\r\nHost: localhost:{service.port}\r\n")
    agent.send("F", b"through")
    assert agent.expect("F") == b"through"
    bench.stop()
    assert b"secret" not in bench.log_path.read_bytes()


def test_a_proxy_that_wants_other_credentials_is_asked_once(bench, service):
    proxy = Proxy(bench.loop, service.port, credentials=b"channel:another")
    agent = bench.start(service.url(), extra=proxy_config(bench.folder, proxy))
    down = agent.expect("D")
    assert (down["code"], down["http_status"]) == ("channel.proxy_auth", 407)
    assert down["next_try_ms"] >= 270000
    assert len(proxy.requests) == 1
    # Mended by the administrator: a reload does not wait for the pause.
    proxy_config(bench.folder, proxy, password="another")
    bench.process.send_signal(signal.SIGHUP)
    agent.expect("U")


@pytest.mark.parametrize("options", [{"status": "403 Forbidden"}, {"status": "502 Bad Gateway"}, {"behind": b"\x16\x03"}])
def test_a_proxy_refuses(bench, service, options):
    proxy = Proxy(bench.loop, service.port, **options)
    agent = bench.start(service.url(), extra=f"proxy:\n  address: localhost:{proxy.port}\n")
    assert agent.expect("D")["code"] == "channel.proxy_refused"
    assert not service.arrivals


# The agent's socket ---------------------------------------------------------------------------------------------------------------------

def test_losing_the_agent_closes_with_1001(bench, service):
    agent = bench.start(service.url())
    agent.expect("U")
    agent.peer.close()
    until(lambda: service.closes)
    assert service.closes[0][0] == 1001
    agent.accept().expect("U")


@pytest.mark.parametrize("packet", [b"F", b"X\0", b"F\x08x", b"U\0{}", b"P\0x", b"C\0{}", b'C\0{"close_code":1006}', b"C\0[", b"F\0\xff", b"F\0" + b"x" * 65537])
def test_a_malformed_packet_ends_the_connection(bench, service, packet):
    agent = bench.start(service.url())
    agent.expect("U")
    agent.peer.send(packet)
    assert agent.take() is None
    until(lambda: service.closes)
    assert service.closes[0][0] == 1001


def test_the_agent_closes_an_endpoint(bench, service):
    agent = bench.start(service.url())
    agent.expect("U")
    agent.send("C", b'{"close_code":1008,"reason":"greeting"}')
    down = agent.expect("D")
    assert down["code"] == "channel.closed"
    until(lambda: service.closes)
    assert service.closes[0] == (1008, "greeting")
    agent.expect("U")


def test_what_is_queued_goes_out_before_the_close(bench, service):
    agent = bench.start(service.url())
    agent.expect("U")
    service.echo = False
    for _ in range(40):
        agent.send("F", b"z" * 65536)
    agent.send("C", b'{"close_code":1000}')
    agent.expect("D")
    until(lambda: service.closes)
    assert service.received == 40 and service.closes[0][0] == 1000


# Signals --------------------------------------------------------------------------------------------------------------------------------

def test_sigterm_closes_with_1001_and_tells_the_longest_gap(bench, service):
    agent = bench.start(service.url())
    agent.expect("U")
    bench.stop(limit=2.5)
    until(lambda: service.closes)
    assert service.closes[0] == (1001, "agent stops")
    gap = bench.events("loop.gap")[0]
    assert float(gap["longest_gap_ms"]) < 500 * SLOWNESS


def test_reload(bench, service, good_tls):
    agent = bench.start(service.url())
    agent.expect("U")
    bench.config.write_text("endpoints: [http://elsewhere/]\n")
    bench.process.send_signal(signal.SIGHUP)
    until(lambda: bench.events("config.refused"))
    (error,) = bench.events("config.error")
    assert error["message"].startswith(f"{bench.config}:1: 'http://elsewhere/' is not a URL")
    agent.send("F", b"still there")
    assert agent.expect("F") == b"still there"
    other = Service(bench.loop, good_tls)
    bench.write_config(service.url(), other.url())
    time.sleep(1)  # a second SIGHUP within a second is coalesced
    bench.process.send_signal(signal.SIGHUP)
    assert agent.take()[:2] == ("U", 1)
    assert not service.closes
    # One endpoint fewer: writebackd is told at once, and what it had sent there meanwhile harms no other.
    bench.write_config(service.url())
    time.sleep(1)
    bench.process.send_signal(signal.SIGHUP)
    kind, endpoint, down = agent.take()
    assert (kind, endpoint) == ("D", 1) and json.loads(down)["reason"] == "removed from the settings" and json.loads(down)["url"] == other.url()
    agent.send("F", b"a result", 1)
    agent.send("C", b'{"close_code":1001,"reason":"drained"}', 1)
    agent.send("F", b"still there")
    assert agent.expect("F") == b"still there"
    until(lambda: other.closes)
    assert other.closes == [(1001, "removed from the settings")] and not service.closes
    time.sleep(1)
    bench.write_config(other.url())
    bench.process.send_signal(signal.SIGHUP)
    kinds = {agent.take()[:2] for _ in range(2)}
    assert kinds == {("D", 0), ("U", 0)}
    until(lambda: service.closes)
    assert service.closes[0][0] == 1001


def test_usage_and_configuration_errors(tmp_path):
    def run(*arguments):
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=10)
        return done.returncode, done.stdout, done.stderr
    sample = os.path.join(ROOT, "config", "channel.yaml")
    assert run("--config", sample, "--check-config")[0] == 0
    assert "ping_interval: 25s" in run("--config", sample, "--dump-config")[1]
    assert run("--version")[1].startswith("writebackd-channel ")
    assert run("--nonsense")[0] == 64
    assert run("more")[0] == 64
    assert run("--log-format", "xml")[0] == 64
    assert run("--config", tmp_path / "missing")[0] == 78
    bad = tmp_path / "bad.yaml"
    for text, expected in [
            ("{}", "endpoints"), ("endpoints: []", "endpoints"), ("endpoints: [ws://a/]", "wss://"), ("endpoints: [wss://a/, wss://a/]", "twice"),
            ("endpoints: [wss://u@a/]", "user"), ("endpoints: ['wss://a/#x']", "fragment"), ("endpoints: [wss://a:0/]", "port"), ("endpoints: [wss://1.2.3/]", "host"),
            ("endpoints: [wss://a/]\nproxy:\n  address: a", "port"), ("endpoints: [wss://a/]\nproxy:\n  username: x", "proxy.address"),
            ("endpoints: [wss://a/]\nping_interval: 40s", "twice"), ("endpoints: [wss://a/]\nping_interval: 40", "unit"),
            ("endpoints: [wss://a/]\ntls:\n  ca_file: /missing", "/missing"), ("endpoints: [" + ",".join(f"wss://a{i}/" for i in range(9)) + "]", "8")]:
        bad.write_text(text)
        code, _, errors = run("--config", bad, "--check-config")
        assert code == 78 and expected in errors and "bad.yaml" in errors, (text, errors)
