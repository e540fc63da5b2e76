"""The flavor ldap where the answer to a write is lost: OpenLDAP and 389 Directory Server, both real. What is told is true, and nothing is written a second time on a guess."""
import concurrent.futures, os, sys, time

import pytest

from lab import BUILD, wait_for
from relay import Relay

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support", "ldap"))
import servers  # noqa: E402
from ldap_lab import LdapLab, PROGRAMS, missing, outcome  # noqa: E402

OLD, NEW = servers.BENCH_PASSWORD, "New-Marble-Step-1"
ASK = {"reset": {"new_password": NEW}, "change": {"old_password": OLD, "new_password": NEW}, "unlock": {}}


class RelayLab(LdapLab):
    """The agent reaches the server by a cable that can be cut; `twin`: and a second server, which holds the same and does not replicate."""
    twin = None

    def start_directory(self):
        super().start_directory()
        self.taken, self.filled = 0, time.monotonic()
        self.relay = Relay(self.directory.host, self.directory.port)
        reached = [f"{self.relay.host}:{self.relay.port}"]
        if self.kind == "openldap":
            self.twin = servers.OpenLdapTwin(os.path.join(self.folder, "twin"), self.directory)
            reached.append(f"{self.twin.host}:{self.twin.port}")
        self.agent_options["directory_settings"].update(servers=reached, timeouts={"connect": "2s", "locate": "4s", "write": "2s"})

    def close(self):
        try:
            super().close()
        finally:
            self.relay.close()
            if self.twin:
                self.twin.close()


@pytest.fixture(scope="module", params=list(PROGRAMS))
def lab(request):
    if missing(request.param):
        pytest.skip(missing(request.param))
    lab = RelayLab(BUILD, request.param)
    try:
        lab.start()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def users(lab):
    """users(n) gives n whom no other test has; the last third is locked. Their passwords are old enough: younger ones look alike (YOUNG_S in ldap_user.c)."""
    def take(count):
        names = [f"bench{n:03}" for n in range(lab.taken, lab.taken + count)]
        lab.taken += count
        for name in names[count - count // 3:]:
            lab.directory.lock(name)
        wait_for("the passwords to be old enough", lambda: time.monotonic() - lab.filled > 6, 10)
        return names
    return take


def set_at(lab, uid):
    values = lab.directory.read(uid, "pwdChangedTime", "pwdUpdateTime")
    return values.get("pwdChangedTime", values.get("pwdUpdateTime"))


def operations(users):
    return [(("reset", "change", "unlock")[3 * i // len(users)], uid) for i, uid in enumerate(users)]


def ask(lab, op, uid):
    answer = lab.ask(op, uid, **ASK[op])
    return lab.service.wait_final(answer["operation_id"], 40)


def ask_all(lab, users, pause):
    pool, asked = concurrent.futures.ThreadPoolExecutor(len(users)), []
    for op, uid in operations(users):
        asked.append((op, uid, pool.submit(ask, lab, op, uid)))
        time.sleep(pause)
    return asked


def is_true(lab, op, uid, answer):
    """By the server that the answer names."""
    twin = lab.twin and answer["directory"].get("server", "").endswith(f":{lab.twin.port}")
    server, other = (lab.twin, lab.directory) if twin else (lab.directory, lab.twin)
    if op == "unlock":
        done, undone = not server.locked(uid), server.locked(uid)
    else:
        done, undone = server.opens(uid, NEW), server.opens(uid, OLD)
        assert not other or other.opens(uid, OLD), "no second write where nothing tells which would stand"
    return {"applied": done, "failed": undone, "unknown": done or undone}[answer["status"]]


def test_the_answers_are_lost_and_the_writes_were_done(lab, users):
    users = users(3)
    before = {uid: set_at(lab, uid) for uid in users}
    lab.relay.delay(0.6, questions=0)
    asked = ask_all(lab, users, 0)
    try:
        # Each is cut off where the server has done it and the answer is still on the cable.
        for op, uid, _ in asked:
            wait_for(f"the write of {uid}", (lambda: not lab.directory.locked(uid)) if op == "unlock" else (lambda: set_at(lab, uid) != before[uid]), 15)
        lab.relay.reset()
    finally:
        lab.relay.delay(0)
    answers = {uid: answer.result() for _, uid, answer in asked}
    assert {uid: outcome(answer) for uid, answer in answers.items()} == dict.fromkeys(users, ("applied", "ok"))
    assert len(lab.agent.writebackd.events(event="request.settling")) >= 1
    assert all(is_true(lab, op, uid, answers[uid]) for op, uid, _ in asked)


def lose(lab, how):
    if how == "killed":
        lab.directory.kill()
        lab.directory.start()
    else:
        lab.directory.pause()
        time.sleep(2.5)  # longer than a write is waited for
        lab.directory.go()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_whenever_the_server_is_lost_the_outcomes_are_true(lab, users, how):
    """Twelve operations, each in another phase when it happens."""
    lab.relay.delay(0.04)
    asked = ask_all(lab, users(12), 0.07)
    lose(lab, how)
    lab.relay.delay(0)
    answers = [(op, uid, answer.result()) for op, uid, answer in asked]
    assert not [(op, uid, outcome(answer)) for op, uid, answer in answers if not is_true(lab, op, uid, answer)]
    wait_for("the server to be used again", lambda: outcome(lab.ask("check", "bob", new_password=NEW)) == ("answered", "plausible"), 20)
