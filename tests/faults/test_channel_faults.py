"""writebackd-channel against a service that fails at each record, byte and frame. Eight endpoints at once: each has a pause of its own. What lasts is sampled here and
whole where SOAK is set."""
import json, os, resource, select, signal, socket, ssl, subprocess, threading, time

import pytest
from cryptography import x509

from channel_bench import GOOD_NAMES, PROGRAM, Authority, Proxy, Service, authority, bench, good_tls, service, until  # noqa: F401 (fixtures)
import lab
from raw_service import Cut, Peer, RawService

SOAK = bool(os.environ.get("SOAK"))
STEP = 3  # the second pause is at most a second; and what a loaded machine takes


class Bystander:
    """What came of each endpoint: its ends, frames, and when it was up."""

    def __init__(self, agent, count):
        self.agent, self.downs, self.frames, self.up = agent, [[] for _ in range(count)], [[] for _ in range(count)], [0] * count

    def look(self, limit):
        kind, number, payload = self.agent.take(limit)
        if kind == "D":
            self.downs[number].append(json.loads(payload))
        elif kind == "F":
            self.frames[number].append(payload)
        elif kind == "U":
            self.up[number] += 1

    def until(self, condition, limit=8):
        pinged = time.monotonic()
        end = pinged + limit
        while not condition():
            left = end - time.monotonic()
            assert left > 0, (self.downs, self.frames, self.up)
            if select.select([self.agent.peer], [], [], min(left, 1))[0]:
                self.look(left)
            if time.monotonic() - pinged > 5:  # else writebackd is taken for dead, whatever comes from the other side
                self.agent.send("P")
                pinged = time.monotonic()


@pytest.fixture
def raw(bench):
    made = []

    def make(script, context, **options):
        made.append(RawService(context, script, **options))
        return made[-1]
    yield make
    for each in made:
        each.close()


def again(bench, agent):
    """Everything anew, without a pause: the channel loses its agent and finds it again."""
    agent.peer.close()
    agent.accept()


def sampled(values, few):
    values = list(values)
    return values if SOAK or len(values) <= few else sorted({values[i * (len(values) - 1) // (few - 1)] for i in range(few)})


def run_cuts(bench, raw, context, cases, script):
    """script(peer, case) ends the first connection of each case; the second is a good one. (case, Bystander's row) for each; all are up again within a step."""
    rows = []
    for start in range(0, len(cases), 8):
        some = cases[start:start + 8]

        def good(peer):
            peer.upgrade()
            peer.write(peer.frame(b"after"))
            peer.read()  # its close
            peer.cut("fin")

        def play(case):
            return lambda peer, number: script(peer, case) if number == 0 else good(peer)
        services = [raw(play(case), context) for case in some]
        agent = bench.start(*[s.url() for s in services])
        seen = Bystander(agent, len(some))
        seen.until(lambda: all(seen.downs))
        seen.until(lambda: all(b"after" in frames for frames in seen.frames), STEP + 3)
        for case, service_, downs, frames, up in zip(some, services, seen.downs, seen.frames, seen.up):
            assert len(downs) == 1 and service_.accepted == 2, (case, downs)
            rows.append((case, downs[0], frames, up))
        bench.stop()
        assert len(bench.events("channel.down")) == len(some)  # once each
        agent.peer.close()
        for service_ in services:
            service_.close()
    return rows


# The handshake, the upgrade, the frame ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_cut_at_each_record_of_the_handshake(bench, raw, authority, version):
    tls = authority.server_context("records", GOOD_NAMES)
    tls.minimum_version = tls.maximum_version = version

    def script(peer, case):
        records, how = case
        try:
            peer.handshake(records)
            raise AssertionError("the handshake has fewer records")
        except Cut:
            peer.cut(how)
    last = 4 if version == ssl.TLSVersion.TLSv1_3 else 5
    cases = [(records, how) for records in range(last) for how in ("fin", "rst")]
    for case, down, frames, up in run_cuts(bench, raw, tls, cases, script):
        assert down["code"] in ("channel.refused", "tls.failed") and down["close_code"] == 0, (case, down)
        assert frames == [b"after"] and up == 1


def test_cut_at_each_byte_of_the_upgrade(bench, raw, good_tls):
    size = len(Peer.answer(b"dGhlIHNhbXBsZSBub25jZQ=="))

    def script(peer, at):
        peer.handshake()
        peer.write(peer.answer(peer.head())[:at])
        peer.cut("rst" if at % 2 else "fin")
    for at, down, frames, up in run_cuts(bench, raw, good_tls, sampled(range(size), 40), script):
        assert down["code"] == "channel.refused" and down["http_status"] == 0, (at, down)
        assert frames == [b"after"] and up == 1


@pytest.mark.parametrize("size", [5, 200])
def test_cut_at_each_byte_of_a_frame(bench, raw, good_tls, size):
    """A whole one before it arrives, what was begun never does."""
    whole = len(Peer.frame(b"x" * size))

    def script(peer, at):
        peer.upgrade()
        peer.write(peer.frame(b"before") + peer.frame(b"x" * size)[:at])
        peer.cut(("rst", "fin", "notify")[at % 3])
    for at, down, frames, up in run_cuts(bench, raw, good_tls, sampled(range(whole), 24), script):
        assert (down["code"], down["close_code"]) == ("channel.refused", 1006), (at, down)
        assert b"x" not in b"".join(frames) and frames[-1] == b"after" and up == 2, (at, frames)
        assert at % 3 == 0 or frames == [b"before", b"after"]  # an RST may overtake what was sent before it


@pytest.mark.parametrize("part", ["between fragments", "in a header", "in a payload"])
def test_every_way_to_end_tls_is_a_cut(bench, raw, good_tls, part):
    def script(peer, how):
        peer.upgrade()
        peer.write({"between fragments": peer.frame(b"half", 0x01), "in a header": b"\x81", "in a payload": peer.frame(b"halfway")[:6]}[part])
        time.sleep(0.1)
        peer.cut(how)
    for how, down, frames, up in run_cuts(bench, raw, good_tls, ["notify", "fin", "rst"], script):
        assert (down["code"], down["close_code"]) == ("channel.refused", 1006), (how, down)
        assert frames == [b"after"] and up == 2


@pytest.mark.parametrize("last, code, close_code", [(Peer.frame(b"\x03\xe9later", 0x88), "channel.closed", 1001), (Peer.frame(b"x" * 65537), "channel.too_big", 1006)])
def test_the_end_is_told_before_the_handshake_is_over(bench, raw, good_tls, last, code, close_code):
    """The service counts from the close frame before it asks another agent; its end of TCP may come much later, or never."""
    ended = []

    def script(peer, number):
        peer.upgrade()
        if number == 0:
            peer.write(peer.frame(b"before") + last)
            peer.swallow()
            ended.append(time.monotonic())
    agent = bench.start(raw(script, good_tls).url())
    agent.expect("U")
    assert agent.expect("F") == b"before"
    down, told = agent.expect("D"), time.monotonic()
    assert (down["code"], down["close_code"]) == (code, close_code)
    assert agent.take()[0] == "U"  # once, and it comes back
    until(lambda: ended)
    assert ended[0] - told > 0.5  # the second that a peer is given for its end of TCP


# Silence ----------------------------------------------------------------------------------------------------------------------------------------

class SynHole:
    """A port whose SYNs nobody answers: Linux ignores them while the queue of a listening socket is full."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port, self.plugs = self.listener.getsockname()[1], []
        for _ in range(4):
            plug = socket.socket()
            plug.setblocking(False)
            plug.connect_ex(("127.0.0.1", self.port))
            self.plugs.append(plug)

    def close(self):
        for end in (self.listener, *self.plugs):
            end.close()


def drip(peer, data, seconds=1.0):
    for byte in data:
        peer.write(bytes([byte]))
        time.sleep(seconds)


def test_silence_ends_at_its_deadline_and_holds_nobody(bench, raw, good_tls, service):
    """Four services that stand still, each at another place, and one that goes on serving: all four are given up after ten seconds, and its frames pass all the while."""
    def nothing(peer, number):
        pass

    def after_tls(peer, number):
        peer.handshake()

    def a_byte_a_second(peer, number):
        peer.handshake()
        drip(peer, peer.answer(peer.head()))
    hole, services = SynHole(), [raw(script, good_tls) for script in (nothing, after_tls, a_byte_a_second)]
    try:
        began = time.monotonic()
        agent = bench.start(service.url(), f"wss://localhost:{hole.port}/", *[s.url() for s in services])
        seen, longest = Bystander(agent, 5), 0
        seen.until(lambda: seen.up[0])
        while not all(seen.downs[1:]):
            asked, count = time.monotonic(), len(seen.frames[0])
            agent.send("F", b"are you there")
            seen.until(lambda: len(seen.frames[0]) > count, 2)
            longest = max(longest, time.monotonic() - asked)
            assert time.monotonic() - began < 17
            time.sleep(0.1)
        assert time.monotonic() - began > 9 and longest < 1
        assert [down[0]["code"] for down in seen.downs[1:]] == ["channel.timeout"] * 4
    finally:
        hole.close()


def test_half_open_is_noticed_by_silence(bench, raw, good_tls):
    """Nothing comes any more, and nothing says that it is over."""
    def script(peer, number):
        peer.upgrade()
        if number:
            peer.write(peer.frame(b"after"))
            peer.read()
            peer.cut("fin")
    service = raw(script, good_tls)
    agent = bench.start(service.url(), extra="ping_interval: 1s\nsilence_limit: 2s\n")
    agent.expect("U")
    began = time.monotonic()
    assert agent.expect("D")["code"] == "channel.timeout"
    assert 1.9 < time.monotonic() - began < 4
    seen = Bystander(agent, 1)
    seen.until(lambda: seen.frames[0] == [b"after"], STEP)


@pytest.mark.skipif(not SOAK, reason="half a minute: the soak; test_websocket.c has it with a shorter limit")
def test_a_message_of_a_byte_a_second(bench, raw, good_tls):
    def script(peer, number):
        peer.upgrade()
        if number == 0:
            drip(peer, peer.frame(b"x" * 100))
    agent = bench.start(raw(script, good_tls).url())
    agent.expect("U")
    began, packet = time.monotonic(), ("P",)
    while packet[0] == "P":  # writebackd pings, else it is taken for dead
        agent.send("P")
        packet = agent.take(40)
        time.sleep(1 if packet[0] == "P" else 0)
    assert packet[0] == "D" and json.loads(packet[2])["code"] == "channel.timeout"
    assert 28 < time.monotonic() - began < 40
    seen = Bystander(agent, 1)
    seen.until(lambda: seen.up[0], STEP)


def memory_kb(pid, what="VmRSS"):
    """VmPeak: the most there has been, touched or not."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith(what)).split()[1])


@pytest.fixture
def exact_memory(monkeypatch):
    """A sanitizer keeps what was freed, a quarter of a GiB of it."""
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")


def test_a_server_that_never_reads(exact_memory, bench, raw, good_tls):
    """What waits is bounded; then the channel is closed and there is another one."""
    def script(peer, number):
        peer.upgrade()
        if number == 0:
            time.sleep(20)
        else:
            peer.write(peer.frame(b"after"))
            peer.read()
            peer.cut("fin")
    service = raw(script, good_tls)
    agent = bench.start(service.url())
    agent.expect("U")
    before = memory_kb(bench.process.pid)
    agent.peer.setblocking(True)
    for _ in range(400):  # 25 MiB
        agent.send("F", b"z" * 65536)
    seen = Bystander(agent, 1)
    seen.until(lambda: seen.downs[0], 12)
    grown = memory_kb(bench.process.pid) - before
    assert seen.downs[0][0]["code"] == "channel.protocol"
    seen.until(lambda: b"after" in seen.frames[0], 5 + STEP)  # told at once; behind it the five seconds that its close frame is waited for
    assert grown < (16 << 10) * lab.SLOWNESS, grown  # with ThreadSanitizer's shadow it is slow and large


# Floods -----------------------------------------------------------------------------------------------------------------------------------------

def processor_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("flood, code", [
    (lambda peer: peer.frame(b"", 0x89) * 1000, "channel.protocol"),              # pings
    (lambda peer: peer.frame(b"", 0x8a) * 1000, "channel.protocol"),              # pongs that answer nothing
    (lambda peer: peer.frame(b"x", 0x01) + peer.frame(b"x", 0x00) * 1000, "channel.protocol"),  # fragments of a byte
    (lambda peer: os.urandom(1 << 16), "noise"),                       # no frames at all
    (lambda peer: b"\x81\x7f\x00\x00\x00\x00\x7f\xff\xff\xffx", "channel.too_big"),  # 2 GiB announced
], ids=["pings", "pongs", "fragments", "noise", "2 GiB"])
def test_a_flood_closes_the_channel_each_time(exact_memory, bench, raw, good_tls, flood, code):
    """With a pause that grows: a service that does it again and again costs next to nothing, and the first time no more than the next."""
    begin = threading.Event()

    def script(peer, number):
        peer.upgrade()
        begin.wait(20)
        peer.write(flood(peer))
        peer.read()
        peer.cut("rst")
    service = raw(script, good_tls)
    agent = bench.start(service.url())
    seen = Bystander(agent, 1)
    seen.until(lambda: seen.up[0])
    peak = memory_kb(bench.process.pid, "VmPeak")
    begin.set()
    seen.until(lambda: seen.downs[0])
    memory, used, began = memory_kb(bench.process.pid), processor_s(bench.process.pid), time.monotonic()
    seen.until(lambda: len(seen.downs[0]) >= 3)
    until(lambda: time.monotonic() - began > 1)
    assert processor_s(bench.process.pid) - used < 0.5 * (time.monotonic() - began)
    assert memory_kb(bench.process.pid) - memory < 4 << 10 and memory_kb(bench.process.pid, "VmPeak") - peak < 512 << 10  # a thread's heap reserves 64 MiB and as much to lie even
    codes = {down["code"] for down in seen.downs[0]}
    assert codes == {code} or (code == "noise" and codes <= {"channel.protocol", "channel.too_big"}), codes
    assert not seen.frames[0] and service.accepted <= 6


def test_no_descriptors_left(bench, raw, good_tls):
    """Not one: channels by name and by address are cut, then the socket to writebackd. Nothing spins, and all of it comes back."""
    def script(peer, number):
        peer.upgrade()
        peer.stay()
    services = [raw(script, good_tls) for _ in range(2)]
    agent = bench.start(services[0].url(), f"wss://127.0.0.1:{services[1].port}/")
    seen, pid = Bystander(agent, 2), bench.process.pid
    seen.until(lambda: all(seen.up))
    before, used, began = resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1])), processor_s(pid), time.monotonic()
    try:
        for service in services:
            service.peers[-1].ending.set()
        seen.until(lambda: all(len(downs) >= 2 for downs in seen.downs))
        while time.monotonic() - began < 1:
            if select.select([agent.peer], [], [], 0.1)[0]:
                seen.look(1)
        assert max(len(downs) for downs in seen.downs) < 10
        assert [downs[-1]["code"] for downs in seen.downs] == ["channel.name", "channel.refused"] and services[0].accepted == services[1].accepted == 1
        agent.peer.close()
        until(lambda: bench.events("agent.unreachable"))
        time.sleep(1)
        assert processor_s(pid) - used < 0.3 * (time.monotonic() - began) and bench.log_path.read_text().count("\n") < 30
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    agent.accept()
    seen = Bystander(agent, 2)
    seen.until(lambda: all(seen.up), STEP)


# Certificates -----------------------------------------------------------------------------------------------------------------------------------

def openssl(folder, *words):
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder, timeout=20)


def own_context(folder, authority_files, *, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), san="DNS:localhost", start="20200101000000Z", end="20400101000000Z", usage="serverAuth", digest="sha256"):
    """A server's context with a certificate of these properties."""
    ca, ca_key = authority_files
    os.makedirs(folder)
    with open(os.path.join(folder, "ca.cnf"), "w", encoding="utf-8") as f:
        f.write(f"[ca]\ndefault_ca=c\n[c]\ndatabase={folder}/index\nserial={folder}/serial\nnew_certs_dir={folder}\npolicy=p\ndefault_md={digest}\nx509_extensions=x\n"
                f"[p]\ncommonName=supplied\n[x]\nsubjectAltName={san}\nextendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n")
    for name, text in (("index", ""), ("serial", "1000\n")):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)
    openssl(folder, "req", "-new", "-newkey", *key, "-nodes", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    openssl(folder, "ca", "-batch", "-notext", "-config", "ca.cnf", "-cert", ca, "-keyfile", ca_key, "-startdate", start, "-enddate", end, "-in", "server.csr", "-out", "server.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(os.path.join(folder, "server.pem"), os.path.join(folder, "server.key"))
    return context


def authority_files(folder, name):
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return os.path.join(folder, f"{name}.pem"), os.path.join(folder, f"{name}.key")


BAD_CERTIFICATES = {
    "expired": ("tls.expired", {"end": "20210101000000Z"}), "not yet valid": ("tls.expired", {"start": "20390101000000Z"}), "another host": ("tls.name", {"san": "DNS:elsewhere.example"}),
    "its address as a name": ("tls.name", {"san": "DNS:127.0.0.1"}), "a key of 1024 bits": ("tls.untrusted", {"key": ("rsa:1024",)}), "for clients": ("tls.untrusted", {"usage": "clientAuth"}),
    "SHA-1": ("tls.untrusted", {"digest": "sha1"}), "another authority": ("tls.untrusted", None),
}


def test_each_bad_certificate_is_refused_and_stays_refused(bench, raw, tmp_path):
    """Nothing is said to such a server, whatever is tried again."""
    files, other = authority_files(tmp_path, "right"), authority_files(tmp_path, "other")
    upgrades = []

    def script(peer, number):
        peer.upgrade()
        upgrades.append(number)
    contexts = [own_context(str(tmp_path / name.replace(" ", "-")), other if options is None else files, **(options or {})) for name, (_, options) in BAD_CERTIFICATES.items()]
    services = [raw(script, context) for context in contexts]
    bench.authority = type("Files", (), {"file": files[0]})
    agent = bench.start(*[s.url() for s in services])
    seen = Bystander(agent, len(services))
    seen.until(lambda: all(len(downs) >= 2 for downs in seen.downs))
    assert {name: {down["code"] for down in downs} for name, downs in zip(BAD_CERTIFICATES, seen.downs)} == {name: {code} for name, (code, _) in BAD_CERTIFICATES.items()}
    assert not upgrades
    bench.stop()
    assert len(bench.events("channel.down")) == len(services)


def test_the_authority_is_changed_without_a_gap(bench, raw, tmp_path):
    """By a file with both: the channel that stands is not touched, a server with either certificate is taken; by the new one alone the old is refused."""
    old, new = authority_files(tmp_path, "old"), authority_files(tmp_path, "new")
    contexts = [own_context(str(tmp_path / "server-old"), old), own_context(str(tmp_path / "server-new"), new)]
    used, ends = [0], []

    def script(peer, number):
        peer.upgrade()
        peer.stay()
        ends.append(peer.ending.is_set())

    class Turned:  # which certificate is shown is chosen for each connection
        def wrap_bio(self, *words, **options):
            return contexts[used[0]].wrap_bio(*words, **options)
    service = raw(script, Turned())
    store = tmp_path / "store.pem"
    bench.authority = type("Files", (), {"file": store})

    def load(*files):
        store.write_bytes(b"".join(open(name, "rb").read() for name, _ in files))
        if bench.process:
            count = len(bench.events("config.loaded"))
            bench.process.send_signal(signal.SIGHUP)
            until(lambda: len(bench.events("config.loaded")) > count)

    def reconnect():
        service.peers[-1].ending.set()
        assert agent.expect("D")["code"] == "channel.refused"
    load(old)
    agent = bench.start(service.url())
    agent.expect("U")
    load(old, new)
    assert service.accepted == 1
    reconnect()
    agent.expect("U")
    used[0] = 1
    reconnect()
    agent.expect("U")
    load(new)
    used[0] = 0
    reconnect()
    assert agent.expect("D")["code"] == "tls.untrusted"
    used[0] = 1
    seen = Bystander(agent, 1)
    seen.until(lambda: seen.up[0], 6)
    assert all(ends)  # no channel was ended but by us


# The upgrade's answers --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("after", [None, 2, 7200])
def test_http_refusals(bench, raw, good_tls, after):
    """(status, Retry-After): its code, and not sooner than it was told, an hour at most."""
    statuses = [401, 403, 404, 429, 500, 503]

    def script(status):
        def play(peer, number):
            peer.handshake()
            peer.head()
            peer.write(f"HTTP/1.1 {status} No\r\n{f'Retry-After: {after}' if after else 'X: y'}\r\nContent-Length: 0\r\n\r\n".encode())
            peer.cut("fin")
        return play
    services = [raw(script(status), good_tls) for status in statuses]
    agent = bench.start(*[s.url() for s in services])
    seen = Bystander(agent, len(services))
    began = time.monotonic()
    seen.until(lambda: all(seen.downs))
    for status, downs in zip(statuses, seen.downs):
        down = downs[0]
        assert (down["http_status"], down["code"]) == (status, "channel.rejected" if status in (401, 403) else "channel.http")
        low = min(after or 0, 3600) * 1000
        assert low <= down["next_try_ms"] <= low + 1000 and down["retry_after"] == low // 1000
    if after == 2:
        seen.until(lambda: all(len(downs) > 1 for downs in seen.downs))
        assert time.monotonic() - began >= 2
    bench.stop()
    assert len(bench.events("channel.down")) == len(services)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_what_is_no_websocket(bench, raw, good_tls, authority):
    """Only h2, only TLS 1.1, a redirect to one that would do, another answer's body: each is refused and nothing is followed."""
    reached = []

    def good(peer, number):
        peer.upgrade()
        reached.append(number)
    right = raw(good, good_tls)

    def h2(peer, number):
        peer.handshake()
        peer.write(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\1\0\0\0\5\0\xff\xff\xff" + b"\0\0\0\x04\1\0\0\0\0" * 3 + b"\r\n\r\n")
        peer.read()

    def answers(text):
        def play(peer, number):
            peer.handshake()
            key = peer.head()
            peer.write(text.replace("KEY", peer.answer(key).split(b"Accept: ")[1].split(b"\r")[0].decode()).encode("latin-1"))
        return play
    old = authority.server_context("tls11", GOOD_NAMES)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    alpn = authority.server_context("alpn", GOOD_NAMES)
    alpn.set_alpn_protocols(["h2"])
    upgrade = "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n"
    rows = [(h2, alpn, "channel.http"), (good, old, "tls.failed"),
            (answers(f"HTTP/1.1 301 M\r\nLocation: {right.url()}\r\n\r\n"), good_tls, "channel.http"), (answers(f"HTTP/1.1 307 M\r\nLocation: {right.url()}\r\n\r\n"), good_tls, "channel.http"),
            (answers("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), good_tls, "channel.http"), (answers(upgrade + "\r\n"), good_tls, "channel.http"),
            (answers(upgrade + "Sec-WebSocket-Protocol: writeback.v1\r\nX: " + "y" * 17000 + "\r\n\r\n"), good_tls, "channel.http"),
            (answers(upgrade.replace("KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=") + "Sec-WebSocket-Protocol: writeback.v1\r\n\r\n"), good_tls, "channel.http")]
    services = [raw(script, context) for script, context, _ in rows]
    agent = bench.start(*[s.url() for s in services])
    seen = Bystander(agent, len(rows))
    seen.until(lambda: all(seen.downs), 12)
    assert [downs[0]["code"] for downs in seen.downs] == [code for _, _, code in rows]
    assert not reached and not right.accepted and not any(seen.up)


# Proxies ----------------------------------------------------------------------------------------------------------------------------------------

def test_a_proxy_that_hangs(bench, raw, service):
    """It takes the connection and never answers: given up after ten seconds; a reload with one that works does not wait."""
    proxy = raw(lambda peer, number: None, None)
    agent = bench.start(service.url(), extra=f"proxy:\n  address: 127.0.0.1:{proxy.port}\n")
    began = time.monotonic()
    assert agent.expect("D", 14)["code"] == "channel.timeout"
    assert 9 < time.monotonic() - began < 13
    working = Proxy(bench.loop, service.port)
    bench.write_config(service.url(), extra=f"proxy:\n  address: 127.0.0.1:{working.port}\n")
    bench.process.send_signal(signal.SIGHUP)
    seen = Bystander(agent, 1)
    seen.until(lambda: seen.up[0], STEP)


def test_a_proxy_that_is_down_and_comes(bench, service):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        agent = bench.start(service.url(), extra=f"proxy:\n  address: 127.0.0.1:{port}\n")
        down = agent.expect("D")
        assert down["code"] == "channel.refused" and str(port) in down["reason"]
        s.listen(8)
        s.settimeout(STEP + 3)
        end, _ = s.accept()  # the next try comes by itself
        end.close()
    assert not service.arrivals


def test_a_proxy_that_wants_credentials_for_ever(bench, raw, service):
    """407 each time, on a connection that it keeps open: asked once, then there is a pause of minutes."""
    def script(peer, number):
        for _ in range(50):
            peer.read()
            peer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n")
    proxy = raw(script, None)
    agent = bench.start(service.url(), extra=f"proxy:\n  address: 127.0.0.1:{proxy.port}\n")
    down = agent.expect("D")
    assert down["code"] == "channel.proxy_auth" and down["next_try_ms"] >= 270000
    with pytest.raises(AssertionError):
        agent.take(1)
    assert proxy.accepted == 1 and not service.arrivals


def test_a_proxy_that_intercepts_tls(bench, service, tmp_path):
    """It ends TLS itself with a certificate for the right name by an authority of its own."""
    stranger = Authority(tmp_path, "interceptor")
    inside = Service(bench.loop, stranger.server_context("interceptor", GOOD_NAMES))
    proxy = Proxy(bench.loop, inside.port)
    agent = bench.start(service.url(), extra=f"proxy:\n  address: 127.0.0.1:{proxy.port}\n")
    for _ in range(2):
        assert agent.expect("D")["code"] == "tls.untrusted"
    assert not inside.arrivals and not service.arrivals


# A thousand times -------------------------------------------------------------------------------------------------------------------------------

def test_it_comes_and_goes(exact_memory, bench, raw, good_tls, capsys):
    """Eight endpoints are up, cut and up again: memory and descriptors stay what they were."""
    rounds, up = 130 if SOAK else 40, 0

    def script(peer, number):
        peer.upgrade()
        peer.write(peer.frame(b"here"))
        peer.stay()
    services = [raw(script, good_tls) for _ in range(8)]
    agent = bench.start(*[s.url() for s in services])
    figures = []
    for number in range(rounds):
        seen = Bystander(agent, 8)
        seen.until(lambda: all(seen.frames))
        up += 8
        figures.append((memory_kb(bench.process.pid), len(os.listdir(f"/proc/{bench.process.pid}/fd"))))
        if number % 2:
            for service in services:
                service.peers[-1].ending.set()
            seen.until(lambda: all(seen.downs))
        for service in services:
            del service.peers[:-1]
        again(bench, agent)
    with capsys.disabled():
        print(f"\n{up} channels one after the other: memory {figures[9][0]} kB after 80, {figures[-1][0]} kB at the end; descriptors {figures[9][1]} and {figures[-1][1]}", end="", flush=True)
    assert figures[-1][0] - figures[9][0] < 8 << 10
    assert abs(figures[-1][1] - figures[9][1]) <= 2


# Names ------------------------------------------------------------------------------------------------------------------------------------------

class Names:
    """A DNS server of our own, which is the only one that the channel sees."""
    ADDRESS = f"127.53.{os.getpid() % 250}.1"

    def __init__(self, bench):
        self.folder = bench.folder
        (self.folder / "resolv.conf").write_text(f"nameserver {self.ADDRESS}\n")
        self.zone({})
        self.server = lab.Program(str(self.folder), "dns-server", [os.path.join(lab.HERE, "dns-server"), f"{self.ADDRESS}:53", str(self.folder / "zone.json")])
        self.server.wait_output("ready")
        bench.wrapper = ["unshare", "-m", "sh", "-c", f'mount --bind {self.folder / "resolv.conf"} /etc/resolv.conf && exec "$@"', "sh"]

    def zone(self, records):
        (self.folder / "zone.new").write_text(json.dumps(records))
        os.rename(self.folder / "zone.new", self.folder / "zone.json")


@pytest.fixture
def names(bench):
    if not lab.has_mount_namespaces():
        pytest.skip("no mount namespaces here (root and CAP_SYS_ADMIN are wanted)")
    made = Names(bench)
    yield made
    made.server.kill()


def test_dns(bench, raw, authority, names):
    """Each name says something else; one endpoint that needs none goes on all the while, and a name that has moved is followed."""
    hosts = ["missing.test", "failing.test", "silent.test", "six.test", "many.test", "thousand.test", "moved.test"]
    tls = authority.server_context("names", [x509.DNSName(host) for host in hosts] + GOOD_NAMES)

    def script(peer, number):
        peer.upgrade()
        while True:  # an echo
            data = peer.read()
            if data[0] != 0x81:
                return peer.cut("fin")
            size, mask = data[1] & 0x7f, data[2:6]
            peer.write(peer.frame(bytes(b ^ mask[i % 4] for i, b in enumerate(data[6:6 + size]))))
    four, six, first, then = (raw(script, tls), raw(script, tls, host="::1"), raw(lambda peer, number: (peer.upgrade(), peer.stay()), tls, host="127.0.53.2"), None)
    then = raw(script, tls, host="127.0.53.3", port=first.port)
    ports = {"six.test": six.port, "moved.test": first.port}
    names.zone({"failing.test": {"code": 2}, "silent.test": {"silent": True}, "six.test": {"aaaa": "::1"}, "moved.test": {"a": "127.0.53.2", "ttl": 3600},
                # nobody listens at the first ones, at this port
                "many.test": {"a": ["127.0.54.1", "127.0.54.2", "127.0.0.1"]}, "thousand.test": {"a": [f"127.0.{55 + n // 250}.{n % 250 + 1}" for n in range(1000)]}})
    agent = bench.start(*[f"wss://{host}:{ports.get(host, four.port)}/" for host in hosts], f"wss://127.0.0.1:{four.port}/")
    seen, longest, good = Bystander(agent, 8), 0, 7
    seen.until(lambda: seen.up[good] and all(seen.up[hosts.index(host)] for host in ("six.test", "many.test", "moved.test")))
    assert then.accepted == 0 and first.accepted == 1
    names.zone({**json.loads((names.folder / "zone.json").read_text()), "moved.test": {"a": "127.0.53.3"}})
    first.listener.close()
    first.peers[-1].ending.set()
    began = time.monotonic()
    while not all(seen.downs[n] for n in (0, 1, 2, 5)) or not then.accepted:
        asked, count = time.monotonic(), len(seen.frames[good])
        agent.send("F", b"are you there", endpoint=good)
        seen.until(lambda: len(seen.frames[good]) > count, 2)
        longest = max(longest, time.monotonic() - asked)
        assert time.monotonic() - began < 14, seen.downs
        time.sleep(0.05)
    assert longest < 1
    assert {seen.downs[n][0]["code"] for n in (0, 1, 2)} == {"channel.name"}
    assert seen.downs[5][0]["code"] in ("channel.name", "channel.refused")  # no more than eight are tried
    seen.until(lambda: seen.up[6] == 2, STEP)
    # SERVFAIL is mended: it comes up by itself, after a pause of at most a minute.
    names.zone({**json.loads((names.folder / "zone.json").read_text()), "failing.test": {"a": "127.0.0.1"}})
    seen.until(lambda: seen.up[1], 60 + STEP)
