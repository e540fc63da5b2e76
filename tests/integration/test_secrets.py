"""Passwords are searched for wherever they could have stayed: memory, files, logs, environment, command lines, and what crossed the socket between the processes; after a success, each
kind of refusal, a lost answer, a second write, a timeout, a crash. Of the programs as they are shipped: a sanitizer keeps what was freed."""
import base64, contextlib, glob, json, os, re, resource, select, signal, socket, ssl, subprocess, threading, time, uuid

import pytest

import lab as lab_module
from lab import DOMAIN, forest, wait_for
from relay import Relay
from scripted_service import example

pytestmark = pytest.mark.plain
MARK = "Zaunkönig"


def canary(name):
    return f"Kohl-{MARK}-{name}-47"


def forms(text):
    """{name: octets} of how a text may stand somewhere; of base64 what does not depend on where it begins."""
    plain = {"UTF-8": text.encode(), "UTF-16LE": text.encode("utf-16-le"), "JSON": json.dumps(text)[1:-1].encode(), "hexadecimal": text.encode().hex().encode(),
             "hexadecimal UTF-16LE": text.encode("utf-16-le").hex().encode()}
    found = dict(plain)
    for name in ("UTF-8", "UTF-16LE", "JSON"):
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + plain[name])[4 if shift else 0:]
            coded = coded[:len(coded) - 4]
            found[f"base64 {name}, {shift}"] = coded
            found[f"base64url {name}, {shift}"] = coded.translate(bytes.maketrans(b"+/", b"-_"))
    return found


# The mark alone tells: a buffer that was used again in part still has it. For unicodePwd's quotes it makes no difference.
NEEDLES = forms(MARK)


def found_in(data):
    return [name for name, octets in NEEDLES.items() if octets in data]


def memory(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as file:
        for line in maps:
            if " r" in line and "[v" not in line:
                start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
                with contextlib.suppress(OSError):
                    file.seek(start)
                    yield file.read(end - start)


class Tap:
    """Stands between writebackd-channel and writebackd, and keeps all that passes."""

    def __init__(self, path, target):
        self.target, self.kept = target, bytearray()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            with contextlib.suppress(OSError):
                near = self.listener.accept()[0]
                far = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with near, far:
                    far.connect(self.target)
                    self.pass_on(near, far)

    def pass_on(self, near, far):
        while True:
            for source in select.select([near, far], [], [])[0]:
                data = source.recv(70000)
                if not data:
                    return
                self.kept += data
                (far if source is near else near).sendall(data)


class ServiceTap:
    """Stands between writebackd-channel and the service as a trusted proxy would, and keeps all that passes inside TLS."""

    def __init__(self, folder, service):
        self.ca, pem, key = lab_module.certificate(folder, "tap")
        self.near, self.far = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=service.ca)
        self.near.load_cert_chain(pem, key)
        self.service, self.said, self.answered = service, [], bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"wss://localhost:{self.listener.getsockname()[1]}/v1/agent"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            threading.Thread(target=self.pass_on, args=(self.listener.accept()[0],), daemon=True).start()

    def pass_on(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("localhost", self.service.port)) as server:
            with self.near.wrap_socket(client, server_side=True) as near, self.far.wrap_socket(server, server_hostname="localhost") as far:
                said = bytearray()
                self.said.append(said)
                while True:
                    for source in [end for end in (near, far) if end.pending()] or select.select([near, far], [], [])[0]:
                        source.setblocking(False)
                        try:
                            data = source.recv(70000)
                        except ssl.SSLWantReadError:  # no more than a session ticket
                            continue
                        finally:
                            source.setblocking(True)
                        if not data:
                            return
                        (said if source is near else self.answered).extend(data)
                        (far if source is near else near).sendall(data)

    def frames(self):
        """What the agent said, unmasked (RFC 6455 5.3)."""
        for said in self.said:
            data = bytes(said)
            at = data.find(b"\r\n\r\n") + 4
            yield data[:at]
            while at + 6 < len(data):
                size, at = data[at + 1] & 127, at + 2
                if size == 126:
                    size, at = int.from_bytes(data[at:at + 2], "big"), at + 2
                mask, body = data[at:at + 4], data[at + 4:at + 4 + size]
                yield bytes(octet ^ mask[i % 4] for i, octet in enumerate(body))
                at += 4 + size


@pytest.fixture(scope="module")
def lab(build):
    lab = lab_module.Lab(build, "mock", keep=bool(os.environ.get("KEEP_LAB")), settings={
        "operations": ["reset", "unlock", "check", "change", "verify", "lookup", "policy"], "settling": {"delay": "1s", "limit": "60s"},
        "limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0, "unlocks_per_minute": 0}}, directory_settings={"timeouts": {"write": "1s"}})
    parts = [lab.close]
    try:
        lab.start_directory()
        lab.start_service()
        os.makedirs(lab.folder + "/agent")
        lab.tap = Tap(lab.folder + "/agent/tap.sock", lab.folder + "/agent/channel.sock")
        lab.service_tap = ServiceTap(lab.folder, lab.service)
        lab.agent_options["channel_settings"] = {"agent_socket": lab.folder + "/agent/tap.sock", "endpoints": [lab.service_tap.endpoint], "tls": {"ca_file": lab.service_tap.ca}}
        lab.wrap_key = lab.folder + "/wrap-key"
        with open(os.open(lab.wrap_key, os.O_WRONLY | os.O_CREAT, 0o400), "wb") as f:
            f.write(os.urandom(32))
        lab.agent_options["settings"]["keys"] = {"wrap_key_file": lab.wrap_key}
        lab.other = lab_module.MockDirectory(build, lab.folder + "/directory2", of=lab.directory)
        parts.insert(0, lab.other.close)
        parts.insert(0, lab_module.MockReplication([lab.directory, lab.other]).close)
        lab.cable = Relay(lab.other.host, lab.other.port)  # the other controller is there where a scene wants it
        parts.insert(0, lab.cable.close)
        lab.cable.refuse()
        lab.agent_options["directory_settings"]["servers"] = [f"{lab.directory.host}:{lab.directory.port}", f"localhost:{lab.cable.port}"]
        lab.start_agent()
        lab.agent.enroll(lab.service.issuer, lab.service.ticket())
        lab.agent.wait_ready()
        yield lab
    finally:
        lab_module.stop_all(parts)


def upn(user):
    return f"{user}@{DOMAIN}"


def ask(lab, op, user, **members):
    answer = lab.service.operate(op, upn(user), **members)
    if answer["status"] in ("pending", "settling"):
        answer = lab.service.wait_final(answer["operation_id"], 60)
    return answer["code"]


def places(lab):
    """(where, octets) of everything that is ours and stays after a request."""
    programs = {"writebackd": lab.agent.writebackd.pid, "writebackd-channel": lab.agent.channel.pid, "reset-service": lab.service.program.pid}
    for name, pid in programs.items():
        for block in memory(pid):
            yield f"memory of {name}", block
        for file in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{file}", "rb") as f:
                yield f"{file} of {name}", f.read()
    for path in glob.glob(lab.folder + "/agent/**", recursive=True) + glob.glob(lab.folder + "/service/**", recursive=True):
        if os.path.isfile(path):
            with open(path, "rb") as f:
                yield "logs" if path.endswith((".log", ".out")) else "state and configuration", f.read()
    yield "socket between the processes", bytes(lab.tap.kept)
    yield "inside TLS, from the service", bytes(lab.service_tap.answered)
    for frame in lab.service_tap.frames():
        yield "inside TLS, from the agent", frame


def search(lab):
    """{where: (pieces, octets)}, and what was found."""
    looked, found = {}, []
    for where, data in places(lab):
        pieces, octets = looked.get(where, (0, 0))
        looked[where] = pieces + 1, octets + len(data)
        found += [(where, name, data[max(0, data.find(NEEDLES[name]) - 60):][:160]) for name in found_in(data)]
    return looked, found


def success(lab):
    assert ask(lab, "reset", "alice", new_password=canary("applied")) == "ok"
    assert lab.directory.opens("alice", canary("applied"))


def checked(lab):
    assert ask(lab, "check", "bench010", new_password=canary("checked")) == "plausible"


def change_and_verify(lab):
    assert ask(lab, "change", "bench055", old_password=canary("wrong"), new_password=canary("new")) == "credential.wrong"
    assert ask(lab, "verify", "bench055", old_password=canary("wrong")) == "credential.wrong"
    assert ask(lab, "change", "bench055", old_password=forest()["bench"]["password"], new_password=canary("changed")) == "ok"
    assert ask(lab, "verify", "bench055", old_password=canary("changed")) == "verified"


def refused_by_scope(lab):
    assert ask(lab, "reset", "adm-amy", new_password=canary("protected")) == "user.protected"
    assert ask(lab, "reset", "nobody-at-all", new_password=canary("unknown")) == "user.not_found"


def refused_by_policy(lab):
    assert ask(lab, "reset", "frank", new_password=MARK) == "policy.too_short"


def refused_by_the_directory(lab):
    lab.directory.control("fault add on=modify user=bob result=53 count=1")
    code = ask(lab, "reset", "bob", new_password=canary("refused"))
    assert code not in ("ok", "outcome.unknown"), code


def lost_answer(lab):
    lab.directory.control("fault add on=modify user=carol swallow")
    assert ask(lab, "reset", "carol", new_password=canary("lost")) == "ok"


def second_write(lab):
    """Done on both controllers; and lost on both."""
    def servers():
        return lab.agent.status()["directories"][0]["list"]
    lab.cable.forward()
    lab.agent.writebackd.signal(signal.SIGHUP)
    wait_for("both controllers, the first the next to be asked", lambda: all(s["up"] for s in servers()) and servers()[0]["next"], 30)
    lab.other.hold()
    try:
        lab.directory.control("fault add on=modify user=bench060 cut-after")
        assert ask(lab, "reset", "bench060", new_password=canary("twice")) == "ok"
        assert lab.directory.opens("bench060", canary("twice")) and lab.other.opens("bench060", canary("twice"))
        lab.directory.control("fault add on=modify user=bench061 drop")
        lab.other.control("fault add on=modify user=bench061 drop")
        assert ask(lab, "reset", "bench061", new_password=canary("twice-lost")) in ("directory.timeout", "directory.unavailable")
    finally:
        lab.other.release()
        lab.cable.refuse()
        lab.cable.reset()
    wait_for("the other controller to be away", lambda: [s["up"] for s in servers()] == [True, False], 30)


def cut_before(lab):
    lab.directory.control("fault add on=modify user=dave cut-before")
    assert ask(lab, "reset", "dave", new_password=canary("cut")) != "outcome.unknown"


def undecryptable(lab):
    """For another agent's key."""
    operation_id, stranger = str(uuid.uuid4()), example.jwk.JWK.generate(kty="EC", crv="P-256")
    kid = lab.service.agents()[0]["decryption_key"]["kid"]
    sub_id = {"format": "userPrincipalName", "id": upn("bob")}
    secret = example.encrypt(stranger, {"operation_id": operation_id, "op": "reset", "sub_id": sub_id, "new_password": canary("stranger")})
    header, rest = secret.split(".", 1)
    fields = {**json.loads(base64.urlsafe_b64decode(header + "==")), "kid": kid}
    secret = example.b64(json.dumps(fields).encode()) + "." + rest
    assert ask(lab, "reset", "bob", operation_id=operation_id, secrets={kid: secret}) == "request.undecryptable"


@contextlib.contextmanager
def cores_in(folder):
    """Of every process of this machine that leaves one; through a pipe, as systemd-coredump has them, for which the kernel knows no limit."""
    os.makedirs(folder, exist_ok=True)
    script = folder + "/keep"
    with open(script, "w") as f:
        f.write(f"#!/bin/sh\ncat >{folder}/core.$1.part && mv {folder}/core.$1.part {folder}/core.$1\n")
    os.chmod(script, 0o755)
    try:
        with open("/proc/sys/kernel/core_pattern", "r+") as f:
            before = f.read()
            f.seek(0)
            f.write(f"|{script} %p\n")
    except OSError as error:
        pytest.skip(f"/proc/sys/kernel/core_pattern cannot be written: {error}")
    try:
        yield lambda process: os.path.exists(f"{folder}/core.{process.pid}")
    finally:
        with open("/proc/sys/kernel/core_pattern", "w") as f:
            f.write(before)


def abort_unlimited(process):
    with contextlib.suppress(PermissionError):  # a container without CAP_SYS_RESOURCE
        resource.prlimit(process.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    process.send_signal(signal.SIGABRT)
    assert process.wait(10) == -signal.SIGABRT


def abort_with_cores(lab):
    with cores_in(lab.folder + "/cores") as cores:
        processes = [lab.agent.writebackd.process, lab.agent.channel.process]
        for program in (lab.agent.writebackd, lab.agent.channel):
            program.expect(-signal.SIGABRT)
        crash(lab, lambda program: abort_unlimited(program.process))
        abort_unlimited(lab.agent.channel.process)
        lab.agent.start_channel()
        twin = subprocess.Popen(["sleep", "60"])
        abort_unlimited(twin)
        wait_for("the core of what does not forbid it", lambda: cores(twin), 10)
        assert not any(cores(process) for process in processes)
    lab.agent.wait_ready(30)


def kill(program):
    program.signal(signal.SIGKILL)
    assert program.process.wait(10) == -signal.SIGKILL


def crash(lab, end):
    """While the directory holds the answer back."""
    lab.directory.control("fault add on=modify user=bench003 delay=3000 count=1")
    operation_id = str(uuid.uuid4())
    lab.service.operate("reset", upn("bench003"), wait=0, operation_id=operation_id, new_password=canary("crash"))
    wait_for("the request", lambda: lab.agent.status()["in_flight"])
    end(lab.agent.writebackd)
    lab.agent.start_writebackd()
    lab.agent.wait_ready(30)
    assert lab.service.wait_final(operation_id, 60)["code"] not in ("pending", "settling")


SCENES = {"success": success, "check": checked, "change and verify": change_and_verify, "refused by scope": refused_by_scope, "refused by policy": refused_by_policy,
          "refused by the directory": refused_by_the_directory, "lost answer, settled": lost_answer, "second write": second_write, "cut before": cut_before, "undecryptable": undecryptable,
          "kill -9": lambda lab: crash(lab, kill), "SIGABRT": abort_with_cores}


@pytest.mark.parametrize("name", SCENES)
def test_no_password_stays(lab, name, capsys):
    SCENES[name](lab)
    wait_for("the journal to be acknowledged", lambda: lab.agent.status()["journal"]["unacknowledged"] == 0, 30)
    looked, found = search(lab)
    with capsys.disabled():
        print(f"\n{name}: " + "; ".join(f"{where} {pieces}, {octets >> 10} KiB" for where, (pieces, octets) in looked.items()))
    assert found == []


def test_the_search_finds(lab):
    """What is there is seen: the bind password, which the agent keeps, in its memory; the forms, in what they stand in."""
    password = lab.directory.bind_password.encode()
    assert any(password in block for block in memory(lab.agent.writebackd.pid))
    for text in (canary("x"), f'"{canary("x")}"'):
        for data in (text.encode(), text.encode("utf-16-le"), json.dumps({"p": text}).encode(), base64.b64encode(text.encode()), base64.urlsafe_b64encode(text.encode("utf-16-le")),
                     base64.b64encode(json.dumps({"new_password": text}).encode())):
            assert found_in(b"before" + data + b"after"), data


    assert any(b"GET /v1/agent" in frame for frame in lab.service_tap.frames()) and sum(frame.count(b".") == 2 for frame in lab.service_tap.frames()) > 1
    assert b"101 Switching Protocols" in lab.service_tap.answered


def private_keys(lab):
    """{file: the forms of its key's private scalar}, unwrapped by another implementation."""
    from jwcrypto import jwe, jwk
    with open(lab.wrap_key, "rb") as f:
        wrap_key, found = jwk.JWK(kty="oct", k=example.b64(f.read())), {}
    for path in glob.glob(lab.folder + "/agent/state/**/*.jwk", recursive=True):
        message = jwe.JWE()
        with open(path, encoding="ascii") as f:
            message.deserialize(f.read().strip(), wrap_key)
        text = json.loads(message.payload)["d"]
        raw = base64.urlsafe_b64decode(text + "=")
        found[os.path.basename(path)] = [text.encode(), base64.b64encode(raw), raw, raw[::-1], raw.hex().encode()]
    return found


def test_the_channel_holds_no_secret(lab):
    """Neither the agent's keys nor the password of its account; and no key file is open in it."""
    blocks, keys = list(memory(lab.agent.channel.pid)), private_keys(lab)
    assert not any(lab.directory.bind_password.encode() in block for block in blocks)
    assert {name.split(".")[0] for name in keys} == {"signing", "decryption"}
    for name, forms_of_key in keys.items():
        assert not any(form in block for block in blocks for form in forms_of_key), name
        assert any(form in block for block in memory(lab.agent.writebackd.pid) for form in forms_of_key), "the twin: writebackd has it"
    held = [os.readlink(f"/proc/{lab.agent.channel.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{lab.agent.channel.pid}/fd")]
    assert not [path for path in held if "state" in path or "password" in path or path.endswith(".key")]


def test_no_private_key_lies_on_disk_unwrapped(lab):
    keys = [form for forms_of_key in private_keys(lab).values() for form in forms_of_key]
    for path in glob.glob(lab.folder + "/agent/**", recursive=True):
        if os.path.isfile(path):
            with open(path, "rb") as f:
                data = f.read()
            assert not any(form in data for form in keys), path


def test_a_debugger_finds_no_password(lab, tmp_path):
    """Root may dump either process; what was asked is over, and nothing of it is there."""
    assert ask(lab, "reset", "bench062", new_password=canary("dumped")) == "ok"
    wait_for("the journal to be acknowledged", lambda: lab.agent.status()["journal"]["unacknowledged"] == 0, 30)
    for program in (lab.agent.writebackd, lab.agent.channel):
        done = subprocess.run(["gcore", "-a", "-o", str(tmp_path / "dump"), str(program.pid)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
        assert done.returncode == 0, done.stdout
        data = (tmp_path / f"dump.{program.pid}").read_bytes()
        assert found_in(data) == [], program.name
        assert program.log_path.rsplit("/", 1)[0].encode() in data, "the twin: what it knows is there"
        os.unlink(tmp_path / f"dump.{program.pid}")


def test_secrets_lie_in_memory_that_is_locked_and_never_dumped(lab):
    for program in (lab.agent.writebackd, lab.service.program):
        with open(f"/proc/{program.pid}/smaps") as f:
            areas = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", f.read())
        kept = [area for area in areas if re.search(r"^VmFlags:.* lo\b.* dd\b|^VmFlags:.* dd\b.* lo\b", area, re.M)]
        assert any(int(re.search(r"^Size: +(\d+)", area, re.M)[1]) >= 1024 for area in kept), program.name
    for program in (lab.agent.writebackd, lab.agent.channel, lab.service.program):
        with open(f"/proc/{program.pid}/limits") as f:
            assert re.search(r"^Max core file size +0 +0 ", f.read(), re.M), program.name
        with open(f"/proc/{program.pid}/status") as f:
            assert re.search(r"^VmSwap:\s+0 kB", f.read(), re.M), program.name  # and on a machine that has swap it is MemorySwapMax= (test_units.py)
