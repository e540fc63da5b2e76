"""The agent's journal on a disk that is full or fails, damaged, and brought back from a backup: each a clear state, and never a second write. The truth is read at the directory.
What a lost or altered octet does to the files themselves: tests/unit/agent/journal/test_journal_damage.c."""
import os, shutil, subprocess, threading, time

import pytest

from lab import BUILD, SLOWNESS, wait_for
from line import Line
from machine import Machine


@pytest.fixture(scope="module")
def machine():
    made = Machine()
    yield made
    made.close()


def version(machine, user):
    return machine.directory.password_record(user)[0]


@pytest.mark.parametrize("fault, user", [("full", "bench060"), ("fsync", "bench061")])
def test_a_disk_that_takes_nothing(machine, fault, user):
    """Refused before anything is written to the directory; shown at once, and told when the request has expired: the agent could be ended before, would not know of it, and whoever owns the channel could bring it again.
    Over within seconds of the fault's end, without a hand."""
    before, shown = version(machine, user), len(machine.agent.writebackd.events(event="journal.unwritable"))
    machine.lifetime(4)
    machine.set(**{fault: 1})
    try:
        began = time.monotonic()
        first = machine.begin(user)
        wait_for("status to say so", lambda: machine.agent.status()["why"] == "the journal cannot be written", 3)
        second = machine.begin(user)
        assert len(machine.agent.writebackd.events(event="journal.unwritable", level="critical")) == shown + 1
        for operation in (first, second):
            answer = machine.service.wait_final(operation, 8)
            assert (answer["status"], answer["code"]) == ("failed", "agent.journal") and time.monotonic() - began > 2.5
        assert version(machine, user) == before
    finally:
        machine.set(**{fault: 0})
        machine.lifetime(30)
    wait_for("the journal to be written again", lambda: machine.agent.status()["journal"]["writable"], 12)
    assert machine.agent.writebackd.events(event="journal.writable")
    assert machine.reset(user)["code"] == "ok" and version(machine, user) == before + 1
    machine.agent.writebackd.kill()
    machine.agent.start_writebackd()
    machine.agent.wait_ready()
    assert version(machine, user) == before + 1


@pytest.mark.parametrize("fault, user", [("full", "bench062"), ("fsync", "bench063")])
def test_it_fails_between_write_and_outcome(machine, fault, user):
    """The intent is on disk, the directory has written, the outcome cannot be recorded: it is told once it can be, and the agent that is killed meanwhile finds it at the directory."""
    before, unwritten = version(machine, user), len(machine.agent.writebackd.events(event="journal.unwritten"))
    machine.directory.control(f"fault add on=modify user={user} delay=3000 count=1")
    operation = machine.begin(user)
    wait_for("the modify", lambda: not machine.directory.faults(), 10)
    machine.set(**{fault: 1})
    machine.agent.writebackd.wait_event(event="journal.unwritten", count=unwritten + 1)
    machine.agent.writebackd.kill()
    machine.set(**{fault: 0})
    machine.agent.start_writebackd()
    machine.agent.wait_ready()
    answer = machine.service.wait_final(operation, 40)
    assert (answer["status"], version(machine, user)) == ("applied", before + 1)


def test_new_keys_on_a_disk_that_fails(machine):
    """The present ones stay in use, and whoever asked hears why; once the disk is well it is done."""
    def keys():
        return {name: machine.agent.status()["identity"][name] for name in ("signing_key", "decryption_key")}
    machine.agent.wait_ready()
    before = keys()
    machine.set(fsync=1)
    try:
        said = machine.agent.ctl("rotate-keys", check=False)
        assert "the present ones stay in use" in said and "Input/output error: the disk does not take" in said, said
        assert keys() == before
    finally:
        machine.set(fsync=0)
    machine.agent.ctl("rotate-keys")
    assert not set(keys().values()) & set(before.values())


def test_an_enrolment_that_the_disk_does_not_keep_loses_no_request(machine):
    """What comes while it is being written is not taken in; the agent stays who it was, and the service delivers it again."""
    machine.agent.wait_ready()
    before, ticket = version(machine, "bench099"), os.path.join(machine.agent.folder, "ticket")
    with open(ticket, "w", encoding="utf-8") as f:
        f.write(machine.service.ticket() + "\n")
    machine.set(fsync=2000)
    enrolling = threading.Thread(target=lambda: said.append(machine.agent.ctl("enroll", machine.service.issuer, "--ticket-file", ticket, "--ca-file", machine.service.ca, "--replace", check=False)))
    said = []
    enrolling.start()
    try:
        wait_for("the new keys' files", lambda: [name for name in os.listdir(machine.agent.settings["state_directory"]) if name.endswith(".jwk.new")])
        operation = machine.begin("bench099")
        machine.service.program.wait_event(event="request.sent", operation_id=operation)
    finally:
        machine.set(fsync=0)
    enrolling.join(20)
    assert "what was before it stays" in said[0], said
    assert machine.service.wait_final(operation, 20)["status"] == "applied"
    assert version(machine, "bench099") == before + 1


# A disk of a few KiB ------------------------------------------------------------------------------------------------------------------------------------

PAGE, AMPLE = 4096, 64 << 20


@pytest.fixture(scope="module")
def small():
    made = Machine(disk=AMPLE)
    yield made
    made.close()


def test_a_disk_that_is_full_at_each_write(small, capsys):
    """So many pages are left when requests come, and one by one they are taken: whatever the write is that finds none, nothing is told that is not so, and with room all is well without a hand."""
    seen, user = {}, 0
    for pages in range(0, 24, 1 if os.environ.get("SOAK") else 3):
        users = [f"bench{user + n:03}" for n in range(4)]
        user += 4
        before = {name: version(small, name) for name in users}
        small.disk.remount(f"size={small.disk.used() + pages * PAGE}")
        asked = {name: small.begin(name) for name in users}
        # Each has its answer, or waits: for an outcome that cannot be recorded there is no answer before it can.
        wait_for("the requests to end or wait", lambda: all(small.service.operation(o)["status"] != "pending" for o in asked.values()) or not small.agent.status()["journal"]["writable"], 15)
        for name, operation in asked.items():
            answer = small.service.operation(operation)
            if answer["status"] not in ("pending", "settling"):
                assert (answer["status"] == "applied") == (version(small, name) == before[name] + 1), answer
        small.disk.remount(f"size={AMPLE}")
        for name, operation in asked.items():
            answer = small.service.wait_final(operation, 40)
            assert answer["status"] == "applied" or (answer["status"], answer["code"]) == ("failed", "agent.journal"), answer
            assert version(small, name) == before[name] + (answer["status"] == "applied"), answer
            seen[answer["code"]] = seen.get(answer["code"], 0) + 1
        wait_for("the journal to be written again", lambda: small.agent.status()["journal"]["writable"], 15)
    with capsys.disabled():
        print(f"\n{user} requests on a disk that was full at one write or another: {seen}", end="", flush=True)
    assert seen["ok"] and seen["agent.journal"]
    small.agent.writebackd.kill()
    small.agent.start_writebackd()
    small.agent.wait_ready()
    assert small.reset("bench099")["code"] == "ok"


@pytest.mark.parametrize("how, status, says, user", [("ro", 71, "mounted read-only: mount it for writing", "bench097"), ("full", 75, "is full (0 KiB are left): make room on it", "bench098")])
def test_a_start_on_a_disk_that_takes_nothing(small, how, status, says, user):
    small.agent.writebackd.stop()
    small.disk.remount("ro" if how == "ro" else f"size={small.disk.used()}")
    try:
        code, log = start_alone(small)
        assert code == status and says in log, (code, log)
    finally:
        small.disk.remount(f"rw,size={AMPLE}")
    small.agent.start_writebackd()
    small.agent.wait_ready()
    before = version(small, user)
    assert small.reset(user)["code"] == "ok" and version(small, user) == before + 1


# At the start -------------------------------------------------------------------------------------------------------------------------------------------


def flip(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        octet = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([octet[0] ^ 1]))


def link(path):
    os.rename(path, path + ".elsewhere")
    os.symlink(path + ".elsewhere", path)


DAMAGES = [("empty", lambda p: open(p, "w").close(), 65, "missing or empty"), ("gone", os.unlink, 65, "missing or empty"), ("no mark", lambda p: os.unlink(p + ".mark"), 65, "mark is missing"),
           ("flipped mark", lambda p: flip(p + ".mark"), 65, "is damaged"), ("no database", lambda p: open(p, "w").write("x" * 8192), 65, "not a database"),
           ("link", link, 77, "not a link"), ("mode", lambda p: os.chmod(p, 0o644), 77, "should have 0600"), ("owner", lambda p: os.chown(p, 65534, 65534), 77, "should belong to"),
           ("folder", lambda p: (os.unlink(p), os.mkdir(p)), 77, "regular file")]


def start_alone(machine):
    """Starts what should end at once: (exit status, the event)."""
    wrapper = machine.disk.wrapper if machine.disk else []
    log = subprocess.run([*wrapper, os.path.join(BUILD, "agent/writebackd"), "--config", machine.agent.writebackd_config, "--log-format", "json"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE, text=True, timeout=30)
    return log.returncode, log.stderr


def test_a_start_with_a_damaged_journal(machine):
    machine.agent.writebackd.stop()
    state = machine.agent.settings["state_directory"]
    whole = state + ".whole"
    shutil.copytree(state, whole)
    journal = os.path.join(state, "journal.db")
    try:
        for name, damage, status, says in DAMAGES:
            damage(journal)
            code, log = start_alone(machine)
            assert code == status and says in log, (name, code, log)
            event = "journal.damaged" if status == 65 else "agent.failed"
            assert log.count(f'"{event}"') == 1, (name, log)
            shutil.rmtree(state)
            shutil.copytree(whole, state)
    finally:
        shutil.rmtree(whole)
    machine.agent.start_writebackd()
    machine.agent.wait_ready()


def test_a_state_from_a_backup(machine):
    """It has started less often than the service remembers: kept out as a copy, which both ends say, until a person decides."""
    agent, user = machine.agent, "bench064"
    agent.writebackd.stop()
    state = agent.settings["state_directory"]
    backup = state + ".backup"
    shutil.copytree(state, backup)
    agent.start_writebackd()
    agent.wait_ready()
    operation = machine.begin(user)
    assert machine.service.wait_final(operation)["code"] == "ok"
    written = version(machine, user)
    agent.writebackd.stop()
    agent.start_writebackd()
    agent.wait_ready()
    agent.writebackd.stop()
    shutil.rmtree(state)
    shutil.move(backup, state)
    agent.start_writebackd()
    wait_for("the agent to say so", lambda: any("channel.rejected" in e["text"] for e in agent.status()["channel"]["endpoints"]), 15)
    assert agent.status()["state"] == "degraded"
    machine.service.program.wait_event(event="agent.clone")
    assert "CLONE SEEN" in machine.service.command("agents")
    machine.service.command("release", agent.status()["identity"]["agent_id"])
    agent.channel.stop()  # its pause after a refusal is minutes
    agent.start_channel()
    agent.wait_ready()
    assert version(machine, user) == written
    assert machine.service.operation(operation)["code"] == "ok"


def test_what_comes_again_to_a_former_or_an_empty_journal():
    """The service does not judge who comes, and sends the same bytes again to an agent that has no memory of them: the directory's record and one bind tell that it is done. Where the bind could lock the user
    an empty journal leaves it unknown, and what has expired meanwhile."""
    line = Line()
    try:
        agent, state = line.agent, line.agent.settings["state_directory"]
        backup = state + ".backup"

        def start():
            agent.start_writebackd()
            agent.channel.stop()
            agent.start_channel()
            line.wait_ready(20)

        def bring_back(without_journal=False):
            agent.writebackd.stop()
            shutil.rmtree(state)
            shutil.copytree(backup, state)
            for name in os.listdir(state):
                if without_journal and name.startswith("journal.db"):
                    os.unlink(os.path.join(state, name))
            start()

        def again(request):
            claims, frame = request
            count = len(line.results(claims))
            line.service.send(frame)
            return wait_for("an answer", lambda: line.results(claims)[count:], 15)[-1]["code"]

        agent.writebackd.stop()
        shutil.copytree(state, backup)
        start()
        now = int(time.time())
        before = {user: version(line, user) for user in ("bench065", "bench066", "bench067")}
        done, near_lockout, short = (line.send(user, iat=now, exp=now + seconds) for user, seconds in (("bench065", 120), ("bench066", 120), ("bench067", int(3 * SLOWNESS))))
        for claims, _ in done, near_lockout, short:
            assert line.service.result(claims["jti"])["code"] == "ok"
        written = {user: version(line, user) for user in before}
        assert written == {user: before[user] + 1 for user in before}
        for _ in range(3):  # of five
            assert not line.directory.opens("bench066", "not the password 1!")

        bring_back()
        assert again(done) == "ok"
        bring_back(without_journal=True)
        assert again(done) == "ok" and again(near_lockout) == "outcome.unknown"
        proofs = agent.writebackd.events(event="request.proof")
        assert len(proofs) == 2 and all("it is the user's" in e["message"] for e in proofs)
        wait_for("the end of a request", lambda: time.time() >= short[0]["exp"], 10)
        assert again(short) == "outcome.unknown"
        bring_back()
        assert again(short) == "request.expired"
        assert {user: version(line, user) for user in before} == written
    finally:
        line.close()
