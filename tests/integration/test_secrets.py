"""Passwords are searched for wherever they could have stayed: memory, files, logs, environment, command lines, and what crossed the socket between the processes; after a success, each
kind of refusal, a lost answer, a timeout, a crash. Of the programs as they are shipped: a sanitizer keeps what was freed."""
import base64, contextlib, glob, json, os, re, select, signal, socket, threading, time, uuid

import pytest

import lab as lab_module
from lab import DOMAIN, forest, wait_for
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


@pytest.fixture(scope="module")
def lab(build):
    lab = lab_module.Lab(build, "mock", keep=bool(os.environ.get("KEEP_LAB")), settings={
        "operations": ["reset", "unlock", "check", "change", "verify", "lookup", "policy"], "settling": {"delay": "1s", "limit": "60s"},
        "limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0, "unlocks_per_minute": 0}}, directory_settings={"timeouts": {"write": "1s"}})
    try:
        lab.start_directory()
        lab.start_service()
        os.makedirs(lab.folder + "/agent")
        lab.tap = Tap(lab.folder + "/agent/tap.sock", lab.folder + "/agent/channel.sock")
        lab.agent_options["channel_settings"] = {"agent_socket": lab.folder + "/agent/tap.sock"}
        lab.start_agent()
        lab.agent.enroll(lab.service.issuer, lab.service.ticket())
        lab.agent.wait_ready()
        yield lab
    finally:
        lab.close()


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


def crash(lab, number):
    """While the directory holds the answer back."""
    before = set(glob.glob("/tmp/core*") + glob.glob("core*"))
    lab.directory.control("fault add on=modify user=bench003 delay=3000 count=1")
    operation_id = str(uuid.uuid4())
    lab.service.operate("reset", upn("bench003"), wait=0, operation_id=operation_id, new_password=canary(f"crash{number}"))
    wait_for("the request", lambda: lab.agent.status()["in_flight"])
    lab.agent.writebackd.signal(number)
    assert lab.agent.writebackd.process.wait(10) == -number
    assert set(glob.glob("/tmp/core*") + glob.glob("core*")) == before
    lab.agent.start_writebackd()
    lab.agent.wait_ready(30)
    assert lab.service.wait_final(operation_id, 60)["code"] not in ("pending", "settling")


SCENES = {"success": success, "check": checked, "change and verify": change_and_verify, "refused by scope": refused_by_scope, "refused by policy": refused_by_policy,
          "refused by the directory": refused_by_the_directory, "lost answer, settled": lost_answer, "cut before": cut_before, "undecryptable": undecryptable,
          "kill -9": lambda lab: crash(lab, signal.SIGKILL), "SIGABRT": lambda lab: crash(lab, signal.SIGABRT)}


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


def test_the_channel_holds_no_secret(lab):
    """Neither the agent's keys nor the password of its account; and no key file is open in it."""
    blocks = list(memory(lab.agent.channel.pid))
    assert not any(lab.directory.bind_password.encode() in block for block in blocks)
    private = 0
    for path in glob.glob(lab.folder + "/agent/state/**", recursive=True):
        with contextlib.suppress(OSError, UnicodeDecodeError, ValueError):
            with open(path, "rb") as f:
                data = f.read()
            for scalar in re.findall(rb'"d"\s*:\s*"([A-Za-z0-9_-]{43})"', data):
                private += 1
                raw = base64.urlsafe_b64decode(scalar + b"=")
                assert not any(scalar in block or raw in block or raw[::-1] in block for block in blocks)
            if b"PRIVATE KEY" in data:
                private += 1
                body = data.split(b"-----")[2].replace(b"\n", b"")
                der = base64.b64decode(body)
                assert not any(body[:40] in block or der[-60:] in block or der[36:68] in block or der[36:68][::-1] in block for block in blocks)
    assert private >= 2
    held = [os.readlink(f"/proc/{lab.agent.channel.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{lab.agent.channel.pid}/fd")]
    assert not [path for path in held if "state" in path or "password" in path or path.endswith(".key")]


def test_secrets_lie_in_memory_that_is_locked_and_never_dumped(lab):
    for program in (lab.agent.writebackd, lab.service.program):
        with open(f"/proc/{program.pid}/smaps") as f:
            areas = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", f.read())
        kept = [area for area in areas if re.search(r"^VmFlags:.* lo\b.* dd\b|^VmFlags:.* dd\b.* lo\b", area, re.M)]
        assert any(int(re.search(r"^Size: +(\d+)", area, re.M)[1]) >= 1024 for area in kept), program.name
        with open(f"/proc/{program.pid}/limits") as f:
            assert re.search(r"^Max core file size +0 +0 ", f.read(), re.M), program.name
        with open(f"/proc/{program.pid}/status") as f:
            assert re.search(r"^VmSwap:\s+0 kB", f.read(), re.M), program.name
    with open(f"/proc/{lab.agent.channel.pid}/limits") as f:
        assert re.search(r"^Max core file size +0 +0 ", f.read(), re.M)
