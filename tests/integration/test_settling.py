"""The truth of a write whose answer was lost, while somebody else writes as well: an administrator through the same server or through another one, the user himself, or somebody who unlocks; the
server does ours late; the agent is killed. In each the directory says what is true, and the agent's outcome is held against that. At most one bind tells, and nobody is locked out by it.
Samba is slow to start and to ask: WRITEBACK_FAULT_ROUNDS has it play all of them."""
import contextlib, os, signal, sqlite3, time

import ldap
import pytest

import lab as lab_module
from lab import NETBIOS, wait_for
from relay import Relay
from scripted_service import ScriptedService

ON_SAMBA = {"test_nobody_else_writes[Samba-True-applied]", "test_nobody_else_writes[Samba-False-failed]", "test_an_administrators_write_behind_ours[Samba-True]",
            "test_an_administrators_write_behind_ours[Samba-False]", "test_an_administrator_sets_the_same[Samba-False]", "test_the_users_own_change_behind_ours[Samba-True]",
            "test_somebody_else_unlocks[Samba]", "test_a_controller_that_stood_still_does_it_late[Samba]", "test_the_agent_is_killed[Samba-True-False-applied-True]"}
NEW, ADMINS, OWN = "Gr33n-Field-Harbour", "Admin-Set-This-99", "Users-Own-Choice-77"


def quoted(password):
    return f'"{password}"'.encode("utf-16-le")


class Mock:
    """Its faults lose an answer: ours is done, or not."""
    keeps_old_passwords = False  # a password opens the account no more once another one is set

    def __init__(self, build, folder):
        self.directory = lab_module.MockDirectory(build, os.path.join(folder, "dc1"))

    def lose(self, scene, claims, user, done):
        self.directory.control(f"fault add on=modify user={user} {'swallow' if done else 'drop'}")
        scene.send(claims)
        wait_for("the modify", lambda: not self.directory.faults(), 15)

    def close(self):
        self.directory.close()


class Samba:
    """A cable that answers come through one by one: ours is on its way to the controller, or done and the answer on its way back, when it is cut."""
    keeps_old_passwords = True  # perhaps, for an hour (OldPasswordAllowedPeriod)

    def __init__(self, build, folder):
        self.directory = lab_module.SambaDirectory(os.path.join(folder, "dc1"), like=lab_module.samba_template())

    def lose(self, scene, claims, user, done):
        before = self.directory.password_record(user)
        self.hold_modify(scene, claims)
        if done:
            scene.relay.hold_answers()
            wait_for("our write", lambda: self.directory.password_record(user) != before, 15)
        else:
            assert self.directory.password_record(user) == before

    @staticmethod
    def hold_modify(scene, claims):
        """The agent says it behind the answer to its last reading, which it asks for behind the intent: an answer passes where there was no intent yet after it had come."""
        def intended():
            mark = scene.relay.answers()
            if scene.row(claims):
                return True
            scene.relay.let_pass(mark)
            return False
        scene.relay.step_answers()
        scene.send(claims)
        wait_for("the intent", intended, 30)
        wait_for("the answer to the last reading", lambda: scene.relay.answers() > scene.relay.passed, 15)
        scene.relay.hold_questions()
        wait_for("the modify", scene.relay.waiting_questions, 15)

    def close(self):
        self.directory.close()


class Scene:
    def __init__(self, build, kind, delay="2s"):
        self.lab = lab_module.Lab(build, "mock", keep=bool(os.environ.get("KEEP_LAB")))
        self.parts = []
        try:
            self.kind = kind(build, self.lab.folder)
            self.parts.append(self.kind)
            self.directory = self.kind.directory
            self.relay = Relay(self.directory.host, self.directory.port)
            self.parts.append(self.relay)
            self.service = ScriptedService(self.lab.folder + "/scripted")
            self.parts.append(self.service)
            self.agent = lab_module.Agent(build, self.lab.folder + "/agent", self.directory, self.service.endpoint, self.service.ca,
                directory_settings={"servers": [f"localhost:{self.relay.port}"], "timeouts": {"connect": "8s", "locate": "15s", "write": "6s"}},
                settings={"limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0}, "settling": {"delay": delay, "limit": "60s"}})
            self.parts.append(self.agent)
            self.agent.start()
            self.agent.enroll(self.service.issuer, self.service.ticket)
            wait_for("the greeting", lambda: self.service.ws)
            self.wait_up()
        except BaseException:
            self.close()
            raise

    def wait_up(self):
        wait_for("the directory", lambda: self.agent.status()["directories"][0]["servers_up"], 40)

    def claims(self, user, **members):
        if members.get("op") != "unlock":
            members.setdefault("new_password", NEW)
        return self.service.claims({"format": "sAMAccountName", "id": user, "domain": NETBIOS}, **members)

    def send(self, claims):
        self.frame = self.service.sign("wb-request+jwt", claims)
        self.service.send(self.frame)

    def row(self, claims):
        path = os.path.join(self.agent.folder, "state", "journal.db")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return db.execute("SELECT state FROM entries WHERE request_id = ?", (claims["jti"],)).fetchone()

    def lose(self, user, done, **members):
        """Asks, and cuts the cable when ours is done, or never will be."""
        claims = self.claims(user, **members)
        self.kind.lose(self, claims, user, done)
        self.cut()
        return claims

    def cut(self):
        self.relay.refuse()
        self.relay.reset()

    def mend(self):
        self.relay.forward()
        self.agent.writebackd.signal(signal.SIGHUP)  # else a server that was refused waits for its next try

    def set_password(self, user, password):
        """An administrator does, through this server; by no rule of the agent's."""
        connection = self.directory.connect()
        try:
            connection.modify_s(self.dn(connection, user), [(ldap.MOD_REPLACE, "unicodePwd", quoted(password))])
        finally:
            connection.unbind_s()

    def change_password(self, user, old, new):
        """The user does."""
        connection = self.directory.connect(f"{user}@{lab_module.DOMAIN}", old)
        try:
            connection.modify_s(self.dn(connection, user), [(ldap.MOD_DELETE, "unicodePwd", quoted(old)), (ldap.MOD_ADD, "unicodePwd", quoted(new))])
        finally:
            connection.unbind_s()

    def unlock(self, user):
        connection = self.directory.connect()
        try:
            connection.modify_s(self.dn(connection, user), [(ldap.MOD_REPLACE, "lockoutTime", b"0")])
        finally:
            connection.unbind_s()

    def dn(self, connection, user):
        return [e for e in connection.search_s(self.directory.base, ldap.SCOPE_SUBTREE, f"(sAMAccountName={user})", ["1.1"]) if e[0]][0][0]

    def kill(self):
        self.agent.writebackd.kill()

    def start(self, again):
        before = self.service.ws
        self.agent.channel.stop()  # else it waits for its next try
        self.agent.start_writebackd()
        self.agent.start_channel()
        wait_for("the channel", lambda: self.service.ws and self.service.ws is not before, 20)
        if again:
            self.service.send(self.frame)
        self.wait_up()

    def judge(self, claims, user, done, timeout=30):
        """The outcome, held against the directory."""
        result = self.service.result(claims["jti"], timeout)
        opens = self.directory.opens(user, NEW)
        if result["status"] == "applied":
            assert done or opens, result
        elif result["status"] != "unknown":
            assert not done and not opens, result
        assert not self.directory.locked(user)
        return result["status"]

    def replaced(self, done):
        """What may be told where another's write stands in place of ours, or of what was there before. Some servers let the password before in as well for a while, which then is ours."""
        return ("failed",) if not done else ("applied", "unknown") if self.kind.keeps_old_passwords else ("unknown",)

    def binds(self, claims):
        self.agent.writebackd.wait_event(event="request.end", request_id=claims["jti"])
        return len(self.agent.writebackd.events(event="request.proof", request_id=claims["jti"]))

    def close(self):
        try:
            lab_module.stop_all(part.close for part in reversed(self.parts))
        finally:
            self.lab.close()


@pytest.fixture(scope="module", params=[Mock, Samba])
def scene(build, request):
    if request.param is Samba and not os.path.exists("/usr/sbin/samba"):
        pytest.skip("Samba is not installed")
    scene = Scene(build, request.param)
    scene.taken = 0
    try:
        yield scene
        assert scene.agent.writebackd.process.poll() is None, scene.agent.writebackd.log_text()[-6000:]
    finally:
        scene.close()


@pytest.fixture
def user(scene, request):
    """Whom no other test has."""
    if isinstance(scene.kind, Samba) and request.node.name not in ON_SAMBA and not os.environ.get("WRITEBACK_FAULT_ROUNDS"):
        pytest.skip("on Samba where WRITEBACK_FAULT_ROUNDS is set")
    scene.mend()
    scene.wait_up()
    scene.taken += 1
    return f"bench{scene.taken:03}"


@pytest.mark.parametrize("done, status", [(True, "applied"), (False, "failed")])
def test_nobody_else_writes(scene, user, done, status):
    claims = scene.lose(user, done)
    scene.mend()
    assert scene.judge(claims, user, done) == status
    assert scene.binds(claims) == done and scene.directory.opens(user, NEW) == done


@pytest.mark.parametrize("done", [True, False])
def test_an_administrators_write_behind_ours(scene, user, done):
    claims = scene.lose(user, done)
    scene.set_password(user, ADMINS)
    tries = scene.directory.bad_tries(user)
    scene.mend()
    result = scene.service.result(claims["jti"], 30)
    assert scene.directory.bad_tries(user) <= tries + 1
    assert scene.judge(claims, user, done) in scene.replaced(done) and result["status"] in scene.replaced(done)
    assert scene.binds(claims) == 1 and scene.directory.opens(user, ADMINS)


@pytest.fixture(scope="module")
def pair(build):
    """A scene on mock-directory, and a second controller of the domain that the agent does not know."""
    scene = Scene(build, Mock)
    try:
        scene.other = lab_module.MockDirectory(build, os.path.join(scene.lab.folder, "dc2"), of=scene.directory)
        scene.parts.append(scene.other)
        scene.replication = lab_module.MockReplication(scene.directory.group)
        scene.parts.append(scene.replication)
        scene.taken = 50
        yield scene
    finally:
        scene.close()


@pytest.mark.parametrize("done, first, expected", [
    (True, False, ("unknown",)),   # over ours, which was there before
    (False, False, ("failed", "unknown")),
    (True, True, ("applied",)),    # written there before ours had come: ours is the greater version and stays
    (False, True, ("failed", "unknown")),
])
def test_an_administrators_write_through_another_controller(pair, done, first, expected):
    """Replicated over ours, or losing against it; what is told is never what is not so."""
    pair.mend()
    pair.wait_up()
    pair.taken += 1
    user, one, other = f"bench{pair.taken:03}", pair.directory, pair.other
    one.hold()
    if first:
        other.hold()
        pair.set_password(user, "Before-Both-11")  # so that ours is the second one since, and theirs the first
    before = one.password_record(user)
    claims = pair.lose(user, done)
    if not first:
        wait_for("ours to have come there", lambda: not done or other.password_record(user) == one.password_record(user) != before, 10)
    other.control(f'set {user} password="{ADMINS}"')
    one.release()
    other.release()
    wait_for("the controllers to be in step", lambda: one.password_record(user) == other.password_record(user), 10)
    stands = one.opens(user, NEW)
    pair.mend()
    result = pair.service.result(claims["jti"], 30)
    assert result["status"] in expected and (result["status"] != "applied" or done), result
    assert stands == one.opens(user, NEW) == other.opens(user, NEW) == (result["status"] == "applied"), "who wrote stands, and nothing was written again"
    assert not one.locked(user) and not other.locked(user)


@pytest.mark.parametrize("done", [True, False])
def test_an_administrator_sets_the_same(scene, user, done):
    claims = scene.lose(user, done)
    scene.set_password(user, NEW)
    scene.mend()
    assert scene.judge(claims, user, done) == "applied"
    assert scene.directory.opens(user, NEW) and scene.binds(claims) == 1


@pytest.mark.parametrize("done", [True, False])
def test_the_users_own_change_behind_ours(scene, user, done):
    if scene.kind.keeps_old_passwords:
        scene.directory.age(user)  # else his minimum age forbids it
    claims = scene.lose(user, done)
    try:
        scene.change_password(user, NEW if done else lab_module.forest()["bench"]["password"], OWN)
    except ldap.LDAPError:
        if not done:
            raise
        scene.set_password(user, OWN)  # ours is too recent for him: an administrator does it for him
    scene.mend()
    assert scene.judge(claims, user, done) in scene.replaced(done)
    assert scene.directory.opens(user, OWN)


def test_somebody_else_unlocks(scene, user):
    """An unlock is settled by what is there: who did it does not matter."""
    scene.directory.lock(user)
    claims = scene.lose(user, False, op="unlock")
    scene.unlock(user)
    scene.mend()
    assert scene.service.result(claims["jti"], 30)["status"] == "applied" and not scene.directory.locked(user)
    assert scene.binds(claims) == 0


def test_a_controller_that_stood_still_does_it_late(scene, user):
    """Stopped with our modify in its hands, and the agent has given it up long before it goes on: that is waited for, and never told as not done."""
    claims, before = scene.claims(user), scene.directory.password_record(user)
    if scene.kind.keeps_old_passwords:
        scene.kind.hold_modify(scene, claims)
    else:
        scene.directory.control(f"fault add on=modify user={user} delay=400")
        scene.send(claims)
        wait_for("the modify", lambda: not scene.directory.faults(), 15)
    scene.directory.pause()
    scene.relay.forward()
    try:
        scene.service.result(claims["jti"], 20, final=False)
        time.sleep(3)  # beyond the delay, and what is allowed for the times of records
        assert not [r for r in scene.service.results if r.get("request_id") == claims["jti"] and r["status"] != "settling"]
    finally:
        scene.directory.go()
    status = scene.service.result(claims["jti"], 30)["status"]
    done = scene.directory.password_record(user) != before
    assert status == ("applied" if done else "failed") and scene.judge(claims, user, done) == status
    if not scene.kind.keeps_old_passwords:
        assert done


@pytest.mark.parametrize("done, admin, expected, again", [
    (True, False, "applied", True), (False, False, "failed", True), (True, True, "unknown", True), (False, True, "failed", True),
    (True, False, "applied", False), (False, False, "failed", False), (False, True, "unknown", False),
])
def test_the_agent_is_killed(scene, user, done, admin, expected, again):
    """At that moment; `again`: the service delivers the request once more, and its password decides. Else the record alone has to do."""
    claims = scene.lose(user, done, exp=int(time.time()) + 20)
    scene.kill()
    if admin:
        time.sleep(5.1)  # a record from the moment of the intent is ours, and what is known of two clocks are whole seconds
        scene.set_password(user, ADMINS)
    scene.relay.forward()
    scene.start(again)
    status = scene.judge(claims, user, done, 40)
    assert status in (scene.replaced(True) if admin and done and again else (expected,))
    assert scene.binds(claims) == (again and (done or admin))


def test_delivered_again_long_after_its_time(scene, user):
    """It has expired, and still its password says whose write stands there."""
    claims = scene.claims(user)
    claims["exp"] = claims["iat"] + 6 if not scene.kind.keeps_old_passwords else claims["iat"] + 20
    scene.kind.lose(scene, claims, user, True)
    scene.kill()
    scene.cut()
    wait_for("its end", lambda: time.time() > claims["exp"] + 1, 30)
    scene.relay.forward()
    scene.start(again=True)
    assert scene.judge(claims, user, True) == "applied" and scene.binds(claims) == 1
