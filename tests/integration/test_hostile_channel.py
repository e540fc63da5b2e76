"""A writebackd-channel in the wrong hands: the test plays it on the socket, with a service's frames to keep, bend and bring again. Nothing is applied that a trusted service key did
not sign for this agent and this moment; nothing hangs; what it costs is bounded, and writebackctl is answered all the while."""
import contextlib, json, os, random, select, socket, time, uuid

import pytest

import lab as lab_module
from lab import wait_for
from scripted_service import ScriptedService, example

NEW, ENDPOINTS = "Gr33n-Field-Harbour", 8
LINES = 400  # of the log, by whatever one test does


class Channel:
    """writebackd-channel's end of the socket. take() answers pings, as long as it is called."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(path)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.frames = []

    def send(self, kind, payload=b"", endpoint=0):
        self.raw(kind.encode() + bytes([endpoint]) + (payload if isinstance(payload, bytes) else payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()))

    def raw(self, packet):
        self.socket.send(packet)

    def take(self, timeout=5):
        """(kind, endpoint, payload) of the next packet that is no ping; None at the end; Late where none comes."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not select.select([self.socket], [], [], 0.05)[0]:
                continue
            try:
                data = self.socket.recv(70000)
            except ConnectionResetError:
                return None
            if not data:
                return None
            if data[:1] != b"P":
                return chr(data[0]), data[1], data[2:]
            with contextlib.suppress(OSError):
                self.raw(b"P\0")
        raise lab_module.Late("no packet came")

    def frame(self, timeout=5, endpoint=0):
        kind, where, payload = self.take(timeout)
        assert (kind, where) == ("F", endpoint), (kind, where, payload)
        return payload.decode()

    def ended(self, timeout=5):
        """The agent let it go."""
        with contextlib.suppress(lab_module.Late):
            end = time.monotonic() + timeout
            while time.monotonic() < end:
                if self.take(end - time.monotonic()) is None:
                    return True
        return False

    def close(self):
        self.socket.close()


class Scene:
    """A directory, an agent without its writebackd-channel, and a service whose keys sign and whose WebSocket nobody uses."""

    def __init__(self, build):
        self.lab = lab_module.Lab(build, "mock")
        self.lab.start_directory()
        self.directory = self.lab.directory
        self.service = ScriptedService(self.lab.folder + "/scripted")
        self.agent = self.lab.agent = lab_module.Agent(build, self.lab.folder + "/agent", self.directory, self.service.endpoint, self.service.ca, settings={
            "log": {"level": "info"}, "limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0, "unlocks_per_minute": 0}})
        self.agent.start_writebackd()
        self.agent.enroll(self.service.issuer, self.service.ticket)
        self.service.agent_id = next(iter(self.service.agents))
        wait_for("the directory", lambda: self.agent.status()["directories"][0]["servers_up"])
        self.open = []

    def connect(self):
        """A connection that the agent has taken: its first packet is a ping."""
        def try_one():
            channel = Channel(self.agent.settings["channel_socket"])
            first = channel.socket.recv(70000)
            if first == b"P\0":
                self.open.append(channel)
                return channel
            channel.close()
        return wait_for("the agent's greeting", try_one)

    def up(self, channel, endpoint=0, url="wss://localhost/v1/agent"):
        channel.send("U", {"url": url, "tls": "TLSv1.3", "cipher": "x", "peer_sha256": "00", "peer_not_after": 2000000000, "peer_names": "localhost", "peer_issuer": "x", "proxy": ""}, endpoint)

    def greeting(self, channel, endpoint=0):
        """The frames of the service's side of it, the last one made when the agent has said hello."""
        s, now = self.service, int(time.time())
        nonce = example.b64(os.urandom(32))
        yield s.key_set
        yield s.sign("wb-challenge+jwt", {"iss": s.issuer, "iat": now, "nonce": nonce})
        hello = example.verify(channel.frame(endpoint=endpoint), "wb-hello+jwt", s.agents[s.agent_id][0])
        yield s.sign("wb-welcome+jwt", {"iss": s.issuer, "aud": s.agent_id, "iat": now, "nonce": hello["agent_nonce"], "session": str(uuid.uuid4()),
                                        "max_frame_bytes": 65536, "time": now})

    def greeted(self, endpoint=0):
        channel = self.connect()
        self.up(channel, endpoint)
        kept = []
        for frame in self.greeting(channel, endpoint):
            kept.append(frame)
            channel.send("F", frame, endpoint)
        channel.greeting = kept
        return channel

    def claims(self, user, **members):
        sub_id = {"format": "sAMAccountName", "id": user, "domain": lab_module.NETBIOS}
        if members.get("op") not in ("unlock", "lookup"):
            members.setdefault("new_password", NEW)
        return self.service.claims(sub_id, **members)

    def request(self, claims, key=None):
        return self.service.sign("wb-request+jwt", claims, key)

    def results(self, channel, wanted, timeout=15):
        """Reads until wanted(result); what came until then."""
        seen, end = [], time.monotonic() + timeout
        while not seen or not wanted(seen[-1]):
            frame = channel.frame(max(0.1, end - time.monotonic()))
            result = example.verify(frame, "wb-result+jwt", self.service.agents[self.service.agent_id][0])
            if "request_id" in result and result["status"] != "settling":
                self.acknowledge(channel, result["request_id"])
            seen.append(result)
        return seen

    def applied(self, channel, claims):
        return self.results(channel, lambda r: r.get("request_id") == claims["jti"] and r["status"] != "settling")[-1]["code"]

    def acknowledge(self, channel, *jtis):
        channel.send("F", self.service.sign("wb-ack+jwt", {"iss": self.service.issuer, "aud": self.service.agent_id, "iat": int(time.time()), "request_ids": list(jtis)}))

    def usual(self):
        """After whatever was done: the agent is alive, answers at once, and works."""
        before = time.monotonic()
        assert self.agent.status()["directories"][0]["servers_up"] == 1
        assert time.monotonic() - before < 3
        for channel in self.open:
            channel.close()
        self.open = []
        channel, claims = self.greeted(), self.claims("carol", op="lookup")
        channel.send("F", self.request(claims))
        assert self.applied(channel, claims) == "found"
        channel.close()

    def figures(self):
        with open(f"/proc/{self.agent.writebackd.pid}/status") as f:
            memory = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
        return memory, len(os.listdir(f"/proc/{self.agent.writebackd.pid}/fd")), len(self.agent.writebackd.log_text().splitlines())

    def close(self):
        self.service.close()
        self.lab.close()


@pytest.fixture(scope="module")
def shared(build):
    scene = Scene(build)
    yield scene
    for channel in scene.open:
        channel.close()
    assert scene.agent.writebackd.stop() == 0, scene.agent.writebackd.log_text()[-6000:]
    scene.close()


@pytest.fixture
def scene(shared, build):
    """Every test ends in what it must not have cost."""
    memory, descriptors, lines = shared.figures()
    written = shared.directory.password_record("bob")
    yield shared
    shared.usual()
    after = shared.figures()
    assert after[1] <= descriptors + 2
    assert after[2] - lines <= LINES
    if lab_module.is_plain(build):  # a sanitizer keeps what was freed
        assert after[0] - memory < 24 << 10
    assert max(len(line) for line in shared.agent.writebackd.log_text().splitlines()) < 8192
    assert shared.directory.password_record("bob") == written  # bob is whom the attacks are at


def test_what_is_right_is_applied(scene):
    """Or the rest would say nothing."""
    channel, claims = scene.greeted(), scene.claims("alice")
    channel.send("F", scene.request(claims))
    assert scene.applied(channel, claims) == "ok"
    assert scene.directory.opens("alice", NEW)


def test_altered_frames(scene):
    """One bit of every octet; then what was not altered, for somebody else's password, to show that such a frame is good."""
    channel, chance = scene.greeted(), random.Random(20261122)
    frame = scene.request(scene.claims("bob")).encode()
    for at in range(len(frame)):
        bent = bytearray(frame)
        bent[at] ^= 1 << chance.randrange(8)
        channel.send("F", bytes(bent))
    for size in [*range(0, len(frame), 13), len(frame) - 1]:
        channel.send("F", frame[:size])
    for more in (b".", b"A", b"=", b"\n", b"\0", frame):
        channel.send("F", frame + more)
        channel.send("F", more + frame)
    claims = scene.claims("dave")
    channel.send("F", scene.request(claims))
    seen = scene.results(channel, lambda r: r.get("request_id") == claims["jti"], 30)
    assert seen[-1]["code"] == "ok"
    assert {r["code"] for r in seen[:-1]} == {"request.signature"} and not any("request_id" in r for r in seen[:-1]) and 1 <= len(seen) <= 60  # ten a second


def test_forged_frames(scene):
    """Signed by whom the root did not name, or by nobody; with a header that says otherwise."""
    channel, s = scene.greeted(), scene.service
    claims = scene.claims("bob")
    stranger = example.jwk.JWK.generate(kty="EC", crv="P-256")
    good = scene.request(claims)
    _, payload, signature = good.split(".")
    headers = [{"alg": "none"}, {"alg": "HS256"}, {"kid": stranger.thumbprint()}, {"jwk": example.public(stranger)}, {"typ": "wb-result+jwt"}, {"typ": "wb-hello+jwt"}, {"crit": []}]
    forged = [scene.request(claims, stranger), scene.request(claims, s.root), s.sign("wb-result+jwt", claims), s.sign("wb-welcome+jwt", claims), s.sign("wb-ack+jwt", claims)]
    for change in headers:
        header = example.b64(json.dumps({"alg": "ES256", "kid": s.signing.thumbprint(), "typ": "wb-request+jwt", **change}).encode())
        forged += [f"{header}.{payload}.{signature}", f"{header}.{payload}."]
    # A key set that names the stranger, by the stranger, and by the service's own signing key: only the root may.
    mine = {"iss": s.issuer, "iat": int(time.time()), "exp": int(time.time()) + 86400, "version": 99, "keys": [example.public(stranger)]}
    for key in (stranger, s.signing):
        forged += [s.sign("wb-keys+jwt", mine, key), scene.request(claims, stranger)]
    for frame in forged:
        channel.send("F", frame)
    look = scene.claims("carol", op="lookup")
    channel.send("F", scene.request(look))
    seen = scene.results(channel, lambda r: r.get("request_id") == look["jti"])
    assert {r["code"] for r in seen} <= {"request.signature", "found"}


def test_frames_for_somebody_else(scene, build, tmp_path):
    """Of another agent, of another tenant with keys of its own, of another moment."""
    channel, s = scene.greeted(), scene.service
    now = int(time.time())
    asked = {"request.audience": scene.claims("bob", aud=str(uuid.uuid4())), "request.expired": scene.claims("bob", iat=now - 100, exp=now - 10),
             "request.not_yet_valid": scene.claims("bob", iat=now + 90, exp=now + 110)}
    for code, claims in asked.items():
        channel.send("F", scene.request(claims))
        assert scene.applied(channel, claims) == code
    other = ScriptedService.__new__(ScriptedService)
    other.signing, other.issuer = example.jwk.JWK.generate(kty="EC", crv="P-256"), s.issuer
    channel.send("F", other.sign("wb-request+jwt", scene.claims("bob")))
    # Another user's ciphertext in a request of bob's: the signature is good, the secret is not for him.
    claims = scene.claims("bob")
    claims["secret"] = scene.claims("alice")["secret"]
    channel.send("F", scene.request(claims))
    assert scene.applied(channel, claims) == "request.secret_mismatch"


def test_replayed_frames(scene):
    """The same bytes on the same endpoint, on another, in another session and after a restart: one write, one outcome."""
    channel, claims = scene.greeted(), scene.claims("bench001")
    frame = scene.request(claims)
    for _ in range(50):
        channel.send("F", frame)
    assert scene.applied(channel, claims) == "ok"
    once = scene.directory.password_record("bench001")
    scene.up(channel, 3)
    channel.send("F", frame, 3)  # a session that has not been greeted
    assert channel.take()[:2] == ("C", 3)
    channel.close()
    channel = scene.greeted()
    channel.send("F", frame)
    assert scene.applied(channel, claims) == "ok"
    channel.close()
    scene.agent.writebackd.stop()
    scene.agent.start_writebackd()
    channel = scene.greeted()
    channel.send("F", frame)
    assert scene.applied(channel, claims) == "ok"
    assert scene.directory.password_record("bench001") == once
    wait_for("the directory", lambda: scene.agent.status()["directories"][0]["servers_up"])


def test_reordered_and_withheld(scene):
    """A greeting in every wrong order, with one of its messages missing or said twice, and of another session; what is asked before the welcome is not done."""
    kept = scene.greeted()
    keys, challenge, welcome = kept.greeting
    ask = scene.request(scene.claims("bob"))
    kept.close()
    for order in ([challenge], [welcome], [ask], [keys, keys], [keys, welcome], [keys, ask], [keys, challenge, welcome], [keys, challenge, ask], [keys, challenge, challenge],
                  [keys, challenge, keys]):
        channel = scene.connect()
        scene.up(channel)
        for frame in order:
            channel.send("F", frame)
        said = channel.take()
        if said[0] == "F":  # the hello
            said = channel.take()
        assert said[:2] == ("C", 0) and json.loads(said[2])["close_code"] == 1008, order
        channel.send("F", ask)  # after which it does not listen
        channel.close()
    # An old drain, of a session that is gone, changes nothing.
    channel = scene.greeted()
    channel.send("F", scene.service.sign("wb-drain+jwt", {"iss": scene.service.issuer, "aud": scene.service.agent_id, "iat": int(time.time()), "session": str(uuid.uuid4()),
                                                          "reason": "x"}))
    claims = scene.claims("carol", op="lookup")
    channel.send("F", scene.request(claims))
    assert scene.applied(channel, claims) == "found"
    # A request that was held back until its time was over.
    late = scene.claims("bob", exp=int(time.time()) + 1)
    frame = scene.request(late)
    wait_for("its time to be over", lambda: time.time() >= late["exp"])
    channel.send("F", frame)
    assert scene.applied(channel, late) == "request.expired"


def test_garbage_packets(scene):
    """Every kind octet with sizes from nothing to more than fits, each on a connection of its own where the agent ends it."""
    sizes = (2, 3, 4096, 65538, 65539, 70000)
    channel, ended = scene.connect(), 0
    for kind in range(256):
        for size in sizes if chr(kind) in "FUDPC" or kind % 32 == 0 else (2 + kind % 7,):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                channel.raw((bytes([kind, kind % 16]) + bytes([kind]) * size)[:size])
            if not (chr(kind) == "F" and kind % 16 < ENDPOINTS and size <= 65538 or chr(kind) == "P" and size == 2):  # those are right
                assert channel.ended(), (kind, size)
                channel.close()
                scene.open.remove(channel)
                channel, ended = scene.connect(), ended + 1
    channel.raw(b"F")  # one octet; and none at all ends it as if it were gone
    assert channel.ended()
    assert ended > 250


BOMBS = {"deep": b"[" * 65000, "deep object": b'{"a":' * 13000, "wide": b'{"url":[' + b"0," * 32000 + b"0]}", "twice": b'{"url":"a","url":"b"}', "no text": b'{"url":"\xff\xfe"}',
         "nul": b'{"url":"a\\u0000b"}', "surrogate": b'{"url":"\\ud800"}', "a number": b"1e999", "long": b'{"url":"' + b"x" * 65000 + b'"}', "a list": b"[]", "nothing": b"",
         "types": b'{"url":1,"tls":[],"cipher":{},"peer_not_after":"x","peer_names":null,"retry_after":-1e300,"code":{},"reason":[[]]}',
         "numbers": b'{"url":"a","peer_not_after":9223372036854775807,"close_code":-9223372036854775808,"code":"numbers","reason":"x"}',
         "lines": b'{"url":"wss://x\\n2026-11-22T00:00:00Z notice agent.ready : all is well\\u001b[2J","code":"\\r\\n","reason":"%n%s%n"}',
         "cut": json.dumps({name: "x" + "\u20ac" * 200 for name in ("url", "tls", "cipher", "peer_names", "peer_issuer", "code", "reason")}, ensure_ascii=False).encode()}


@pytest.mark.parametrize("kind", "UD")
@pytest.mark.parametrize("bomb", BOMBS)
def test_json_bombs(scene, bomb, kind):
    before = len(scene.agent.writebackd.log_text().splitlines())
    channel, began = scene.connect(), time.monotonic()
    channel.send(kind, BOMBS[bomb], 5)
    text = scene.agent.ctl("status", check=False)
    assert time.monotonic() - began < 5 and "\x1b" not in text and "\n2026-11-22T00" not in text and text.startswith("State"), text
    for line in scene.agent.writebackd.log_text().splitlines()[before:]:
        assert isinstance(json.loads(line), dict)


def test_storms(scene):
    """Up, down, ping and a greeting that fails, as fast as they go."""
    channel = scene.connect()
    stranger = example.jwk.JWK.generate(kty="EC", crv="P-256")
    wrong = scene.service.sign("wb-keys+jwt", {}, stranger)
    reading = 0
    for i in range(6000):
        endpoint = i % ENDPOINTS
        scene.up(channel, endpoint, f"wss://host{i}/") if i % 2 else channel.send("D", {"url": f"wss://host{i}/", "code": f"c{i}", "reason": "r" * (i % 300)}, endpoint)
        channel.raw(b"P\0")
        channel.send("F", wrong, endpoint)
        while select.select([channel.socket], [], [], 0)[0]:
            channel.socket.recv(70000)
            reading += 1
        if i % 2000 == 1000:
            began = time.monotonic()
            scene.agent.ctl("status", check=False)
            assert time.monotonic() - began < 3
    assert reading > 100
    assert wait_for("what was left out", lambda: scene.agent.writebackd.log_text().count('"log.withheld"') or time.sleep(0.5) or channel.send("F", wrong) or
                    scene.up(channel) or channel.send("D", {"code": "x", "reason": str(time.monotonic())}))


def test_a_channel_that_does_not_read(scene):
    """Answers to it are kept as far as the limit goes; then it is let go, and the next one is served."""
    channel, claims = scene.greeted(), scene.claims("bench002")
    frame = scene.request(claims)
    channel.send("F", frame)
    assert scene.applied(channel, claims) == "ok"
    once = scene.directory.password_record("bench002")
    channel.socket.settimeout(20)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # it takes what it is sent until it gives up
        for _ in range(20000):
            channel.send("F", frame)
    assert scene.directory.password_record("bench002") == once
    scene.agent.writebackd.wait_event(event="link.detached")


def test_many_connections(scene):
    """One is served; the others are told, and nothing of theirs is kept."""
    first, frame = scene.greeted(), scene.request(scene.claims("bob"))
    others = []
    for _ in range(100):
        other = Channel(scene.agent.settings["channel_socket"])
        if len(others) % 2:
            with contextlib.suppress(OSError):
                other.send("F", frame)
        others.append(other)
        assert len(others) % 2 == 0 or other.take()[0] == "D"  # who has sent something may find the connection reset
        assert other.ended()
    for other in others:
        other.close()
    claims = scene.claims("carol", op="lookup")
    first.send("F", scene.request(claims))
    assert scene.applied(first, claims) == "found"


def test_what_no_message_can_change(scene):
    """Configuration comes from the disk alone: settings as members, as claims and as messages of types of their own are refused or passed over, and everything stays as it was."""
    def facts():
        with open(scene.agent.writebackd_config, "rb") as file:
            return file.read(), scene.agent.ctl("--json", "status", check=False).split('"directories"')[1].split('"servers_up"')[0]
    before = facts()
    evil = {"servers": ["evil.example:636"], "ca_file": "/tmp/evil.pem", "bind": {"dn": "x", "password_file": "/etc/shadow"}, "scope": {"users": "all"}, "keytab": "/tmp/evil"}
    channel, s = scene.greeted(), scene.service
    base = {"iss": s.issuer, "aud": s.agent_id, "iat": int(time.time()), "exp": int(time.time()) + 30, "jti": str(uuid.uuid4())}
    for typ in ("wb-config+jwt", "wb-settings+jwt", "wb-update+jwt"):
        channel.send("F", s.sign(typ, {**base, "directories": [evil], **evil}))
    claims = scene.claims("bob", directories=[evil])
    channel.send("F", scene.request(claims))
    assert scene.applied(channel, claims) == "request.invalid"
    for member, value in evil.items():
        claims = scene.claims("bob", **{member: value})
        channel.send("F", scene.request(claims))
        assert scene.applied(channel, claims) == "request.invalid"
    for op in ("configure", "reload", "resume", "set", "exec"):
        claims = {**scene.claims("bob"), "op": op}
        channel.send("F", scene.request(claims))
        assert scene.applied(channel, claims) == "request.unsupported"
    welcome = {**base, "nonce": "x" * 43, "session": str(uuid.uuid4()), "max_frame_bytes": 65536, "time": base["iat"], **evil}
    channel.send("F", s.sign("wb-welcome+jwt", welcome))
    scene.up(channel, 1, "wss://evil.example/v1/agent")
    assert facts() == before
