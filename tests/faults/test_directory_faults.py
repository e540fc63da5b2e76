"""The directory that moves people, changes its certificate or lies: the truth is read at mock-directory, the lies are told by a server of our own."""
import functools, json, os, random, signal, socket, ssl, struct, threading, time

import pytest

import lab as lab_module
from lab import BUILD, wait_for
from line import memory_kb
from raw_service import RawService


@pytest.fixture
def line(module_line):
    yield module_line
    module_line.directory.control("fault clear")


def searches_of_a_reset(line, user):
    """How many searches of a reset concern its user, once his policy is known; the last one comes behind the result."""
    def left():
        return int(next(word for word in line.directory.faults()[0].split() if word.startswith("left=")).split("=")[1])

    def reset():
        claims, _ = line.send(user)
        assert line.service.result(claims["jti"])["code"] == "ok"
        seen = None
        while seen != left():
            seen = left()
            time.sleep(0.3)
        return seen
    line.directory.control(f"fault add on=search user={user} delay=1 count=40")
    first = reset()
    count = first - reset()
    line.directory.control("fault clear")
    return count


# Between the check and the write ---------------------------------------------------------------------------------------------------------------------

CHANGES = {
    "a Domain Admin": ('set {user} "member_of=SSPR-Test-Group,Domain Admins"', "user.protected"),
    "disabled": ("set {user} disabled=true", "user.disabled"),
    "marked by adminCount": ("set {user} admin_count=1", "user.protected"),
    "moved out of the scope": ("move {user} OU=Outside,DC=corp,DC=example,DC=test", "user.out_of_scope"),
}


def hold_last_reading(line, user):
    """(claims, version before): a reset of the user, of whom the last reading before the write is held up."""
    count = searches_of_a_reset(line, user)
    assert count >= 3  # the last one looks whether he became protected meanwhile
    before = line.directory.password_record(user)
    line.directory.control(f"fault add on=search user={user} delay=1 count={count - 2}")
    line.directory.control(f"fault add on=search user={user} delay=600 count=1")
    claims, _ = line.send(user)
    wait_for("the last reading", lambda: not line.directory.faults())
    return claims, before


@pytest.mark.parametrize("number, change", enumerate(CHANGES))
def test_who_changes_between_the_check_and_the_write(line, number, change):
    """The last reading before the write is held up, and it has happened meanwhile: nothing is written."""
    user, (command, code) = f"bench{80 + number:03}", CHANGES[change]
    claims, before = hold_last_reading(line, user)
    line.directory.control(command.format(user=user))
    assert line.service.result(claims["jti"])["code"] == code
    assert line.directory.password_record(user) == before


BERLIN = "OU=Berlin,OU=People,DC=corp,DC=example,DC=test"


def test_who_is_moved_before_the_write(line):
    """Within the scope and by another name, before the last reading or behind it: it is his objectGUID that is written to, once."""
    claims, before = hold_last_reading(line, "bench086")
    line.directory.control(f"move bench086 {BERLIN} elsewhere086")
    assert line.service.result(claims["jti"])["code"] == "ok" and line.directory.password_record("bench086")[0] == before[0] + 1
    before = line.directory.password_record("bench087")
    came = line.suffered("on=modify user=bench087 delay=600 count=1")
    claims, _ = line.send("bench087")
    wait_for("the modify", came)
    line.directory.control(f"move bench087 {BERLIN} elsewhere087")
    assert line.service.result(claims["jti"])["code"] == "ok" and line.directory.password_record("bench087")[0] == before[0] + 1
    assert json.loads(line.directory.control("user bench087"))["dn"] == f"CN=elsewhere087,{BERLIN}"


def test_another_takes_the_name_of_who_is_moved(line):
    """The name stands for somebody else when the write comes: nothing of it is done to him."""
    claims, before = hold_last_reading(line, "bench088")
    other = line.directory.password_record("bench089")
    line.directory.control(f"move bench088 {BERLIN} elsewhere088")
    line.directory.control("move bench089 OU=People,DC=corp,DC=example,DC=test bench088")
    assert line.service.result(claims["jti"])["code"] == "ok" and line.directory.password_record("bench088")[0] == before[0] + 1
    assert line.directory.password_record("bench089") == other


# Its certificate --------------------------------------------------------------------------------------------------------------------------------------

def test_the_directorys_authority_is_changed_with_sighup(line):
    """A file that has gone bad is told and changes nothing: the former authority counts on, for new connections too. The new certificate is refused by name; once the file has both authorities and SIGHUP was sent it is taken."""
    agent, directory = line.agent, line.directory
    with open(directory.ca, "r+b") as file:
        good = file.read()
        file.truncate(len(good) // 2)
    before = len(agent.writebackd.events(event="directory.up"))
    try:
        agent.writebackd.signal(signal.SIGHUP)
        told = agent.writebackd.wait_event(event="directory.tls", level="error")
        assert "those of before stay" in told["message"] and directory.ca in told["message"], told
        assert agent.writebackd.events(event="config.refused") and any("ca_file" in e["message"] for e in agent.writebackd.events(event="config.error"))
    finally:
        with open(directory.ca, "wb") as file:
            file.write(good)
    directory.program.stop()
    directory.start()
    agent.writebackd.wait_event(event="directory.up", count=before + 1)  # and nobody has told it to read the file again
    agent.wait_ready()
    claims, _ = line.send("bench084")
    assert line.service.result(claims["jti"])["code"] == "ok"
    directory.program.stop()
    directory.certificate(foreign=True)
    directory.start()
    wait_for("the refusal", lambda: agent.status()["directories"][0].get("code") == "tls.untrusted", 15)
    before = agent.writebackd.events(event="directory.up")
    claims, _ = line.send("bench085")
    assert line.service.result(claims["jti"])["status"] == "failed"
    with open(os.path.join(directory.folder, "foreign", "ca.pem"), "rb") as new, open(directory.ca, "ab") as both:
        both.write(new.read())
    agent.writebackd.signal(signal.SIGHUP)
    agent.writebackd.wait_event(event="directory.up", count=len(before) + 1, timeout=5)  # not when its next try would have come
    line.agent.wait_ready()
    claims, _ = line.send("bench085")
    assert line.service.result(claims["jti"])["code"] == "ok"


# A directory that lies ---------------------------------------------------------------------------------------------------------------------------------

def ber(tag, *parts):
    body = b"".join(parts)
    size = len(body)
    return bytes([tag]) + (bytes([size]) if size < 128 else b"\x84" + struct.pack(">I", size)) + body


def message_of(data):
    """The messageID of a request, whole or not."""
    at = 2 + (data[1] & 0x7f if data[1] & 0x80 else 0)
    return data[at:at + 2 + data[at + 1]]


def bound(peer):
    """Takes the bind, whoever it is; the first request behind it."""
    peer.handshake()
    peer.write(ber(0x30, message_of(peer.read()), ber(0x61, b"\x0a\x01\x00\x04\x00\x04\x00")))
    return peer.read()


def noise(peer, number):
    peer.handshake()
    peer.read()
    peer.write(random.Random(number).randbytes(70000))


def announces(head):
    def play(peer, number):
        peer.handshake()
        peer.read()
        peer.write(head)
    return play


def endless(kind):
    """Answers of this kind to the first search, as long as somebody takes them."""
    def play(peer, number):
        request = bound(peer)
        entry = {"entries": ber(0x64, b"\x04\x00", ber(0x30, ber(0x30, b"\x04\x01x", ber(0x31, ber(4, b"y" * 60000))))), "referrals": ber(0x73, ber(4, b"ldap://127.0.0.1:1/" + b"x" * 900)),
                 "intermediate": ber(0x79, b"\x80\x031.1")}[kind]
        data = ber(0x30, message_of(request), entry)
        data *= max(1, 60000 // len(data))
        while True:
            peer.write(data)
    return play


def deep(peer, number):
    request = bound(peer)
    peer.write(ber(0x30, message_of(request), ber(0x64, b"\x04\x00", b"\x30\x80" * 30000)))


LIES = {"noise": noise, "2 GiB": announces(b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01"), "16 EiB": announces(b"\x30\x88" + b"\xff" * 8 + b"\x02"), "no length": announces(b"\x30\x80\x02\x01\x01"),
        "a negative messageID": announces(ber(0x30, b"\x02\x04\xff\xff\xff\xff", ber(0x61, b"\x0a\x01\x00\x04\x00\x04\x00"))), "another operation's answer": announces(ber(0x30, b"\x02\x01\x01", ber(0x67, b"\x0a\x01\x00\x04\x00\x04\x00"))),
        "entries without end": endless("entries"), "referrals without end": endless("referrals"), "intermediate answers without end": endless("intermediate"), "nested without end": deep}


def agent_of_many(folder, directory, ca, ports, **more):
    """writebackd alone, with a directory for each port: {name: port}."""
    agent = lab_module.Agent(BUILD, folder, directory, "wss://127.0.0.1:1/", directory.ca)
    entry = agent.settings["directories"][0]
    agent.settings["directories"] = [{**entry, "name": name, "servers": [f"localhost:{port}"], "ca_file": ca, "bind": dict(entry["bind"]), "scope": {"users": "none"}, "domains": [f"{name}.test"],
                                      "timeouts": {"connect": "2s", "locate": "1s"}, **more} for name, port in ports.items()]
    agent.write_config()
    return agent


def test_a_directory_that_lies(line, tmp_path, capsys, monkeypatch):
    """Each lie at the same time: the agent goes on, tells of each, and takes no more memory than it has for answers."""
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")
    ca, pem, key = lab_module.certificate(str(tmp_path), "liar")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    services = [RawService(context, script) for script in LIES.values()]
    agent = agent_of_many(str(tmp_path / "agent"), line.directory, ca, {f"liar{n}": s.port for n, s in enumerate(services)})
    agent.start_writebackd()
    try:
        before, most, end = memory_kb(agent.writebackd), 0, time.monotonic() + 8
        while time.monotonic() < end:
            began = time.monotonic()
            rows = agent.status()["directories"]
            assert time.monotonic() - began < 2
            most = max(most, memory_kb(agent.writebackd))
            time.sleep(0.05)
        assert all(service.accepted for service in services)
        codes = {lie: row.get("code") for lie, row in zip(LIES, rows)}
        assert all(row["servers_up"] == 0 for row in rows) and all(code and code.startswith("directory.") for code in codes.values()), codes
        for service in services:  # and no storm of tries
            assert service.accepted <= 20, codes
    finally:
        agent.close()
        for service in services:
            service.close()
    gap = float(agent.writebackd.events(event="loop.gap")[-1]["longest_gap_ms"])
    with capsys.disabled():
        print(f"\n{codes}; memory {before} kB, at most {most} kB; longest gap of the loop {gap:.0f} ms", end="", flush=True)
    assert agent.writebackd.process.returncode == 0, agent.writebackd.log_text()[-4000:]
    assert most - before < 64 << 10 and gap < 1000


def test_an_answer_in_crumbs(line, tmp_path, capsys, monkeypatch):
    """An answer as long as it may be, of which each TLS record has one octet: it takes no more memory than it is long."""
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")
    sent = [0]

    def script(peer, number):
        request = bound(peer)
        peer.write(b"\x30\x83\x0f\xff\xf0" + message_of(request) + b"\x64\x83\x0f\xff\xe0")
        while sent[0] < 150000:
            for _ in range(500):
                peer.tls.write(b"x")
            peer.sock.sendall(peer.outgoing.read())
            sent[0] += 500
    ca, pem, key = lab_module.certificate(str(tmp_path), "crumbs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    service = RawService(context, script)
    agent = agent_of_many(str(tmp_path / "agent"), line.directory, ca, {"crumbs": service.port}, timeouts={"connect": "20s", "locate": "1s"})
    agent.start_writebackd()
    try:
        before = memory_kb(agent.writebackd)
        wait_for("the crumbs", lambda: sent[0] >= 150000, 18)
        time.sleep(0.3)
        grown = memory_kb(agent.writebackd) - before
        agent.status()
    finally:
        agent.close()
        service.close()
    with capsys.disabled():
        print(f"\n{sent[0]} records of one octet: memory grew by {grown} kB", end="", flush=True)
    assert grown < (16 << 10) * lab_module.SLOWNESS and agent.writebackd.process.returncode == 0, agent.writebackd.log_text()[-4000:]


def test_great_entries(tmp_path, monkeypatch):
    """A search for groups that is answered by a hundred entries of 900 KB: no more of them is kept than one message may be long, and what is not whole is refused."""
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")
    uuid, sent = b"12345678-1234-4234-8234-123456789abc", [0]

    def entry(request, dn, **attributes):
        return ber(0x30, message_of(request), ber(0x64, ber(4, dn), ber(0x30, *[ber(0x30, ber(4, name.encode()), ber(0x31, ber(4, value))) for name, value in attributes.items()])))

    def script(peer, number):
        data = bound(peer)
        while data:
            size = 2 + data[1] if data[1] < 0x80 else 2 + (data[1] & 0x7f) + int.from_bytes(data[2:2 + (data[1] & 0x7f)], "big")
            request, data = data[:size], data[size:]
            if b"uniqueMember" in request:
                for sent[0] in range(1, 101):
                    peer.write(entry(request, b"cn=g,dc=test", entryUUID=uuid, description=b"y" * 900000))
            elif b"namingContexts" in request:
                peer.write(entry(request, b"", objectClass=b"OpenLDAProotDSE", namingContexts=b"dc=test", supportedLDAPVersion=b"3"))
            else:
                peer.write(entry(request, b"uid=alice,dc=test", objectClass=b"person", uid=b"alice", entryUUID=uuid))
            peer.write(ber(0x30, message_of(request), ber(0x65, b"\x0a\x01\x00\x04\x00\x04\x00")))
            data = data or peer.read()
    ca, pem, key = lab_module.certificate(str(tmp_path), "great")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    service = RawService(context, script)
    password = tmp_path / "password"
    password.write_text("x\n")
    password.chmod(0o600)
    tool = lab_module.Tool(BUILD, "--flavor", "ldap", "--base", "dc=test", "--server", f"localhost:{service.port}", "--ca", ca, "--bind", "cn=a,dc=test", "--password-file", str(password))
    try:
        tool.wait_up()
        before = memory_kb(tool.process)
        tool.tell("locate uid alice")
        answer = tool.process.stdout.readline()
        grown = memory_kb(tool.process, "VmHWM") - before
        assert sent[0] == 100 and grown < 16 << 10, (answer, grown)
    finally:
        tool.process.kill()
        service.close()


def test_answers_with_flipped_bits(line, tmp_path, capsys):
    """A true server's answers, of which each connection has one octet or more altered: whatever comes of it, the agent lives and a whole answer is taken afterwards."""
    directory, flips = line.directory, [True]
    ca, pem, key = lab_module.certificate(str(tmp_path), "flipper")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 32)
    client = ssl._create_unverified_context()

    def script(peer, number, service):
        chance = random.Random(f"{seed} {service} {number}")
        peer.handshake()
        with client.wrap_socket(socket.create_connection((directory.host, directory.port))) as far:
            count = 0
            while True:
                far.sendall(peer.read())
                while True:
                    far.settimeout(0.15)
                    try:
                        answer = bytearray(far.recv(65536))
                    except TimeoutError:
                        break
                    if not answer:
                        return peer.cut("fin")
                    count += 1
                    if flips and count > number % 6:
                        for _ in range(chance.choice((1, 1, 3))):
                            answer[chance.randrange(len(answer))] ^= 1 << chance.randrange(8)
                    peer.write(bytes(answer))
    services = [RawService(context, functools.partial(script, service=n)) for n in range(16)]
    agent = agent_of_many(str(tmp_path / "agent"), directory, ca, {f"d{n}": s.port for n, s in enumerate(services)})
    agent.start_writebackd()
    try:
        wait_for("some connections", lambda: sum(s.accepted for s in services) >= 40, 25)
        agent.status()
        flips.clear()
        for service in services:
            for peer in service.peers:
                peer.sock.close()
        agent.writebackd.signal(signal.SIGHUP)
        wait_for("all to be up", lambda: all(row["servers_up"] for row in agent.status()["directories"]), 40)
    finally:
        with capsys.disabled():
            print(f"\nflipped bits: seed {seed}, {sum(s.accepted for s in services)} connections", end="", flush=True)
        for service in services:
            service.close()
        agent.close()
    assert agent.writebackd.process.returncode == 0, agent.writebackd.log_text()[-4000:]


# A KDC that says no -------------------------------------------------------------------------------------------------------------------------------------

class Kdc:
    """Answers every question with the same KRB-ERROR (RFC 4120, section 5.9.1), and counts."""

    def __init__(self, code):
        self.code, self.asked = code, 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        now = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + (3600 if self.code == 37 else 0))).encode()
        name = ber(0x30, ber(0xA0, b"\x02\x01\x02"), ber(0xA1, ber(0x30, ber(0x1B, b"krbtgt"), ber(0x1B, b"TEST"))))
        answer = ber(0x7E, ber(0x30, ber(0xA0, b"\x02\x01\x05"), ber(0xA1, b"\x02\x01\x1e"), ber(0xA4, ber(0x18, now)), ber(0xA5, b"\x02\x01\x00"), ber(0xA6, bytes([2, 1, self.code])), ber(0xA9, ber(0x1B, b"TEST")), ber(0xAA, name)))
        while True:
            try:
                _, who = self.socket.recvfrom(4096)
            except OSError:
                return
            self.asked += 1
            self.socket.sendto(answer, who)


# error code of the KDC: what becomes of it
SAYINGS = {37: ["agent.clock_skew"], 6: ["directory.credential"], 18: ["directory.credential"], 23: ["directory.credential"], 24: ["directory.credential"], 29: ["directory.unavailable", "directory.timeout"]}


@pytest.mark.parametrize("code", SAYINGS)
def test_a_kdc_that_refuses(line, tmp_path, code):
    """Its clock is off, it knows nobody, the account is revoked, its key too old or wrong, it is not there: each has its code, and none is asked again and again."""
    kdc = Kdc(code)
    config, keytab = tmp_path / "krb5.conf", tmp_path / "keytab"
    config.write_text(f"[libdefaults]\n default_realm = TEST\n dns_lookup_kdc = false\n dns_canonicalize_hostname = false\n rdns = false\n[realms]\n TEST = {{\n  kdc = 127.0.0.1:{kdc.port}\n }}\n[domain_realm]\n localhost = TEST\n")
    def counted(text):
        return struct.pack(">H", len(text)) + text
    entry = struct.pack(">H", 1) + counted(b"TEST") + counted(b"svc") + struct.pack(">IIBHH", 1, 0, 1, 18, 32) + bytes(range(32)) + struct.pack(">I", 1)
    keytab.write_bytes(b"\5\2" + struct.pack(">i", len(entry)) + entry)
    keytab.chmod(0o600)
    tool = lab_module.Tool(BUILD, "--server", f"localhost:{line.directory.port}", "--ca", line.directory.ca, "--mechanism", "gssapi", "--keytab", str(keytab), "--principal", "svc@TEST", env={"KRB5_CONFIG": str(config)})
    try:
        health = wait_for("it to be told", lambda: not (h := tool.health())["up"] and h["status"] in SAYINGS[code] and kdc.asked and h, 10)
        time.sleep(1.5)
        assert kdc.asked <= 8, kdc.asked
        assert tool.health()["status"] in SAYINGS[code], health
    finally:
        tool.close()
        kdc.socket.close()
