"""What an attacker tried: whoever owns the channel keeps frames and brings them again, whoever owns a signing key asks for what he should not, and a controller that stands still
at the worst moment. Each test is a proof that once succeeded."""
import signal, time

import pytest

import lab as lab_module
from lab import BASE, DOMAIN
from scripted_service import ScriptedService

NEW = "Gr33n-Field-Harbour"


class Scene:
    """A scripted service, mock-directory and an agent with settings of its own."""

    def __init__(self, build, prepare=None, bind_dn=None, **agent_options):
        self.lab = lab_module.Lab(build, "mock")
        self.lab.start_directory()
        self.directory = self.lab.directory
        if prepare:
            self.directory.control(prepare)
        if bind_dn:
            self.directory.bind_dn = bind_dn
        self.service = ScriptedService(self.lab.folder + "/scripted")
        self.agent = self.lab.agent = lab_module.Agent(build, self.lab.folder + "/agent", self.directory, self.service.endpoint, self.service.ca, **agent_options)
        self.agent.start()
        self.agent.enroll(self.service.issuer, self.service.ticket)
        lab_module.wait_for("the greeting", lambda: self.service.ws)
        lab_module.wait_for("the directory", lambda: self.agent.status()["directories"][0]["servers_up"])

    def request(self, user, **members):
        sub_id = user if isinstance(user, dict) else {"format": "sAMAccountName", "id": user, "domain": lab_module.NETBIOS}
        if members.get("op") != "unlock":
            members.setdefault("new_password", NEW)
        return self.service.claims(sub_id, **members)

    def frame(self, claims):
        return self.service.sign("wb-request+jwt", claims)

    def codes(self, claims):
        return [r["code"] for r in self.service.results if r.get("request_id") == claims["jti"]]

    def restart(self):
        self.agent.writebackd.stop()
        self.agent.start_writebackd()
        lab_module.wait_for("the channel", lambda: self.service.ws, 20)
        lab_module.wait_for("the directory", lambda: self.agent.status()["directories"][0]["servers_up"])

    def close(self):
        self.service.close()
        self.lab.close()
        assert self.agent.writebackd.process.returncode == 0, self.agent.writebackd.log_text()[-6000:]


def test_a_controller_stands_still_while_a_user_is_read(scene):
    s = scene()
    claims = s.request({"format": "objectGUID", "id": s.directory.guid("bob")})
    s.directory.pause()
    try:
        s.service.send(s.frame(claims))
        assert s.service.result(claims["jti"])["code"].startswith("directory.")
    finally:
        s.directory.go()


def test_what_was_overloaded_is_not_applied_later(scene):
    s = scene(settings={"limits": {"in_flight": 1}})
    s.directory.control("fault add on=search user=alice delay=1500 count=1")
    before = s.directory.password_record("bob")
    first, second = s.request("alice"), s.request("bob")
    frame = s.frame(second)
    s.service.send(s.frame(first))
    s.service.send(frame)
    assert s.service.result(second["jti"])["code"] == "agent.overloaded"
    s.service.result(first["jti"])
    s.service.send(frame)
    lab_module.wait_for("the answer again", lambda: len(s.codes(second)) > 1)
    s.restart()
    s.service.send(frame)
    lab_module.wait_for("an answer after the restart", lambda: len(s.codes(second)) > 2)
    assert s.codes(second) == ["agent.overloaded", "agent.overloaded", "request.expired"]
    assert s.directory.password_record("bob") == before


def test_what_was_not_yet_valid_is_remembered(scene):
    s = scene()
    claims = s.request("bob")
    claims = {**claims, "iat": claims["iat"] + 90, "exp": claims["exp"] + 90}
    assert s.service.ask(claims)["code"] == "request.not_yet_valid"
    claims = {**s.request("bob"), "iat": claims["iat"] + 100000, "exp": claims["exp"] + 100000}
    s.service.send(s.frame(claims))
    s.agent.writebackd.wait_event(event="request.ahead")
    assert not s.codes(claims)


def test_an_administrators_later_write_is_not_ours(scene):
    s = scene(settings={"settling": {"delay": "5s", "limit": "60s"}})
    s.directory.control("fault add on=modify user=bob cut-before")
    claims = s.request("bob")
    s.service.send(s.frame(claims))
    s.service.result(claims["jti"], final=False)
    time.sleep(4)  # replication's times are whole seconds, and two of them are allowed for
    s.directory.control('set bob password="Admin-Set-This-99"')
    # The one write since the intent, and not with our password: so ours was not done.
    assert s.service.result(claims["jti"], 30)["status"] == "failed"
    assert s.directory.opens("bob", "Admin-Set-This-99") and not s.directory.opens("bob", NEW)


QUICK = {"directory_settings": {"timeouts": {"write": "1s"}}, "settings": {"settling": {"delay": "1s", "limit": "60s"}}}


def test_an_administrators_write_over_ours_is_not_ours(scene):
    """Ours was done and its answer lost; before it is given up an administrator sets another password through the same controller. His time could be ours: that there were two writes
    is seen by the record's version, and that ours is the password is not told."""
    s = scene(**QUICK)
    s.directory.control("fault add on=modify user=bob swallow")
    claims = s.request("bob")
    s.service.send(s.frame(claims))
    lab_module.wait_for("our write", lambda: s.directory.control(f'verify bob "{NEW}"') == "true")
    s.directory.control('set bob password="Admin-Set-This-99"')
    assert s.service.result(claims["jti"], 30)["code"] == "outcome.unknown"
    assert s.directory.opens("bob", "Admin-Set-This-99")


def test_an_unlock_is_settled_by_its_value(scene):
    """An administrator's reset through the same controller, between our lost unlock and the settling, is no unlock of ours."""
    s = scene(**QUICK)
    s.directory.control("set carol locked=true")
    s.directory.control("fault add on=modify user=carol drop")
    claims = s.request("carol", op="unlock")
    s.service.send(s.frame(claims))
    s.service.result(claims["jti"], 30, final=False)
    s.directory.control('set carol password="Admin-Set-This-99"')
    assert s.service.result(claims["jti"], 30)["status"] == "failed"
    assert s.directory.locked("carol")


def test_the_name_of_a_directory_leads_to_no_other_user(scene):
    s = scene()
    elsewhere = {"format": "sAMAccountName", "id": "bob", "domain": "OTHERCORP"}
    assert s.service.ask(s.request(elsewhere, directory="corp"))["code"] == "user.not_found"
    assert not s.directory.opens("bob", NEW)


@pytest.mark.parametrize("bind_dn", [None, f"svc-writeback@{DOMAIN}"])
def test_the_agents_own_account(scene, bind_dn):
    """Bound as name@domain, which is not its userPrincipalName."""
    s = scene(scope={"users": "all"}, prepare="set svc-writeback upn=other@alias.example" if bind_dn else None, bind_dn=bind_dn)
    assert s.service.ask(s.request("svc-writeback", op="check"))["code"] == "user.protected"
    assert s.service.ask(s.request("bob", op="check"))["code"] == "plausible"


def test_nothing_is_told_of_protected_users(scene):
    s = scene()
    answer = s.service.ask(s.request("adm-amy", op="unlock"))
    assert answer["status"] == "refused" and "user" not in answer and "was_locked" not in answer
    answer = s.service.ask(s.request("bob", op="check"))
    assert answer["user"]["object_guid"] == s.directory.guid("bob")


def test_a_reload_refuses_nobody(scene):
    s = scene(scope={"users": "selected", "bases": [f"OU=People,{BASE}"], "protect": [f"CN=Helpdesk,OU=Groups,{BASE}"]})
    assert s.service.ask(s.request("dave", op="check"))["code"] == "plausible"
    for _ in range(3):
        s.directory.control("fault add on=search delay=400 count=1")
        s.agent.writebackd.signal(signal.SIGHUP)
        asked = [s.request(user, op="check") for user in ("dave", "bob", "carol")]
        for claims in asked:
            s.service.send(s.frame(claims))
        assert [s.service.result(claims["jti"])["code"] for claims in asked] == ["plausible"] * 3
        time.sleep(1.1)  # reloads are a second apart


def test_an_open_latch_stays_open(scene):
    s = scene(settings={"limits": {"latch_per_hour": 2}})
    assert [s.service.ask(s.request(f"bench00{i}"))["code"] for i in range(3)] == ["ok", "ok", "agent.latched"]
    s.agent.ctl("resume")
    s.restart()
    assert s.service.ask(s.request("bench003"))["code"] == "ok"


def test_wrong_passwords_latch_alone(scene):
    """One password tried on many users stops verify and change, and nothing else, until a person on the premises has looked: no restart, kill or reload opens it."""
    s = scene(settings={"operations": ["reset", "verify", "change"], "limits": {"wrong_per_minute": 3}})

    def verify(user, password="wrong"):
        claims = s.service.claims({"format": "sAMAccountName", "id": user, "domain": lab_module.NETBIOS}, op="verify")
        return s.service.ask({**claims, "secret": s.service.secret(claims, old_password=password)})["code"]
    assert [verify(f"bench01{i}") for i in range(4)] == ["credential.wrong"] * 3 + ["agent.latched"]
    assert len(s.agent.writebackd.events(event="agent.latched")) == 1
    s.agent.writebackd.kill()
    s.restart()
    s.agent.writebackd.signal(signal.SIGHUP)
    s.agent.writebackd.wait_event(event="config.loaded")
    assert verify("bench015") == "agent.latched"
    status = s.agent.status()
    assert status["state"] == "degraded" and status["guesses"].startswith("STOPPED") and status["resets"] == "allowed"
    assert s.service.ask(s.request("bench016"))["code"] == "ok"
    s.agent.ctl("resume")
    assert verify("bench015") == "credential.wrong" and s.agent.status()["guesses"] == "allowed"
    assert s.service.ask(s.request("bench016"))["code"] == "ok"
