"""What state an account may be in, and which administrators the premises let through: refused by default, allowed word by word and group by group. On each directory."""
import json, signal, threading

import ldap
import pytest

import lab as lab_module
from lab import BASE, wait_for

NEW = "Gr33n-Field-Harbour"
PRINT, BACKUP = f"CN=Print Operators,CN=Builtin,{BASE}", "S-1-5-32-551"


@pytest.fixture
def rescope(lab):
    """Adds to the scope with SIGHUP, and puts everything back at the end."""
    agent, entry = lab.agent, lab.agent.settings["directories"][0]
    before = dict(entry["scope"])

    def change(**more):
        entry["scope"] = {**before, **more}
        agent.write_config()
        count = len(agent.writebackd.events(event="config.loaded"))
        agent.writebackd.signal(signal.SIGHUP)
        agent.writebackd.wait_event(event="config.loaded", count=count + 1)
    yield change
    change()
    agent.wait_ready()


def code(lab, op, user, **members):
    return lab.service.operate(op, f"{user}@corp.example.test", **({"new_password": NEW} if op == "reset" else {}), **members)["code"]


STATES = {"disabled": ("disabled1", "user.disabled"), "expired": ("expired1", "user.expired"), "smartcard": ("smart1", "user.smartcard")}


@pytest.mark.parametrize("word", STATES)
def test_a_state_is_refused_unless_it_is_allowed(lab, rescope, word):
    user, refused = STATES[word]
    record = lab.directory.password_record(user)
    assert code(lab, "reset", user) == refused
    rescope(allow=[w for w in (*STATES, "cannot_change") if w != word])
    assert code(lab, "reset", user) == refused
    assert lab.directory.password_record(user) == record
    rescope(allow=[word])
    assert code(lab, "reset", user) == "ok"
    assert lab.directory.password_record(user)[0] == record[0] + 1


def test_an_unlock_asks_for_disabled_and_expired_only(lab, rescope):
    for user, refused in (("disabled1", "user.disabled"), ("expired1", "user.expired")):
        assert code(lab, "unlock", user) == refused
    assert code(lab, "unlock", "smart1") == "ok"
    rescope(allow=["disabled", "expired"])
    assert [code(lab, "unlock", user) for user in ("disabled1", "expired1")] == ["ok", "ok"]


def test_must_change_of_a_password_that_never_expires_is_refused_whatever_is_allowed(lab, rescope):
    rescope(allow=[*STATES, "cannot_change"])
    assert code(lab, "reset", "never1", must_change=True) == "user.never_expires"


def test_an_administrator_is_let_through_group_by_group(lab, rescope):
    if lab.kind == "mock":  # Samba has no SDProp; here it has not seen them yet
        for user in ("adm-pat", "adm-two"):
            lab.directory.control(f"set {user} admin_count=0")
    record = lab.directory.password_record("adm-two")
    assert [code(lab, "reset", user) for user in ("adm-pat", "adm-two", "adm-spn", "was-admin")] == ["user.protected"] * 4
    rescope(exempt_administrators=[BACKUP])
    assert code(lab, "reset", "adm-pat") == "user.protected"
    rescope(exempt_administrators=[PRINT])
    lab.agent.wait_ready()
    # One of two groups is not enough, a service stays one, and a stale adminCount is explained by nothing.
    assert [code(lab, "reset", user) for user in ("adm-two", "adm-spn", "was-admin", "Administrator")] == ["user.protected"] * 3 + ["user.not_found"]
    assert lab.directory.password_record("adm-two") == record
    assert code(lab, "reset", "adm-pat") == "ok"
    rescope(exempt_administrators=[PRINT, BACKUP])
    assert code(lab, "reset", "adm-two") == "ok"
    assert lab.directory.password_record("adm-two")[0] == record[0] + 1
    rescope(exempt_administrators=[PRINT, BACKUP], protect=["S-1-5-32-550"])
    assert [code(lab, "reset", user) for user in ("adm-pat", "adm-two")] == ["user.protected"] * 2


def test_a_primary_group_counts_as_any_other(lab, can):
    """It stands in no member attribute: only in the user's token."""
    if not can("primary_group", "tokenGroups with every group of the file"):
        return
    dn, admins = f"CN=bench031,OU=People,{BASE}", f"CN=Domain Admins,CN=Users,{BASE}"
    connection = lab.directory.connect("Administrator@corp.example.test", "Adm1n-Passw0rd!")
    try:
        assert code(lab, "unlock", "bench031") == "ok"
        connection.modify_s(admins, [(ldap.MOD_ADD, "member", dn.encode())])
        connection.modify_s(dn, [(ldap.MOD_REPLACE, "primaryGroupID", [b"512"])])
        members = connection.search_s(admins, ldap.SCOPE_BASE, attrlist=["member"])[0][1].get("member", [])
        assert dn.encode() not in members
        connection.modify_s(dn, [(ldap.MOD_REPLACE, "adminCount", [b"0"])])
        assert code(lab, "reset", "bench031") == "user.protected"
        assert "S-1-5-21" in (said := lab.agent.ctl("explain", "bench031", check=False)) and "(Domain Admins)" in said
    finally:
        connection.modify_s(dn, [(ldap.MOD_REPLACE, "primaryGroupID", [b"513"])])
        connection.modify_s(admins, [(ldap.MOD_DELETE, "member", dn.encode())])
        connection.modify_s(dn, [(ldap.MOD_DELETE, "adminCount", None)])
        connection.unbind_s()
    assert code(lab, "unlock", "bench031") == "ok"


def test_what_sdprop_took_away_no_exemption_gives_back(lab, rescope):
    """adm-amy has AdminSDHolder's descriptor: the delegation of the OU does not reach her, and the directory says so."""
    rescope(exempt_administrators=[f"CN=Domain Admins,CN=Users,{BASE}", f"CN=Administrators,CN=Builtin,{BASE}"])
    lab.agent.wait_ready()
    assert code(lab, "reset", "adm-amy") == "directory.denied"
    rescope(exempt_administrators=[f"CN=Domain Admins,CN=Users,{BASE}"])
    assert code(lab, "reset", "adm-amy") == "user.protected"


def test_a_name_that_is_no_protected_group_exempts_nobody_and_is_told(lab, rescope):
    rescope(exempt_administrators=[f"CN=Helpdesk,OU=Groups,{BASE}", f"CN=Nobody,OU=Groups,{BASE}"])
    wait_for("the look-up", lambda: len(lab.agent.writebackd.events(event="scope.unresolved")) >= 2)
    answer = json.loads(lab.agent.ctl("--json", "check", check=False))
    rows = {row["text"]: row["ok"] for row in answer["rows"] if row["step"] == "scope.exempt_administrators"}
    assert len(rows) == 2 and not any(rows.values()) and all("exempts nobody" in text for text in rows)
    assert code(lab, "reset", "adm-pat") == "user.protected"


def test_who_becomes_protected_while_he_is_written_to_is_told(lab, can):
    """The truth stays what it is; whoever runs the agent hears of it."""
    told = lab.agent.writebackd.events(event="request.protected_after")
    assert code(lab, "reset", "carol") == "ok"
    if not can("faults", "nothing is told without a reason"):  # no modify can be held up there
        assert lab.agent.writebackd.events(event="request.protected_after") == told
        return
    lab.directory.control("fault add on=modify user=alice delay=1000")
    codes = []
    asked = threading.Thread(target=lambda: codes.append(code(lab, "reset", "alice")))
    asked.start()
    wait_for("the modify", lambda: not lab.directory.faults())
    lab.directory.control("set alice \"member_of=SSPR-Test-Group,Domain Admins\"")
    asked.join(20)
    assert codes == ["ok"]
    event = lab.agent.writebackd.wait_event(event="request.protected_after")
    assert event["level"] == "critical" and "(Administrators)" in event["reason"] and event["user"] == lab.directory.guid("alice")
    assert code(lab, "reset", "alice") == "user.protected"
    lab.directory.control("set alice member_of=SSPR-Test-Group")
    assert told == []


def test_a_refused_bind_says_nothing_of_the_names(build, mock_lab, tmp_path):
    """A typo in the scope is one only where a server was asked; till then everybody waits, and nobody is told that a group is not there."""
    mock_lab.directory.control('fault add on=bind user=svc-writeback count=forever result=1 text="not now"')
    agent = lab_module.Agent(build, str(tmp_path / "agent"), mock_lab.directory, "wss://127.0.0.1:1/", mock_lab.service.ca,
                             scope={"users": "all", "protect": [f"CN=Helpdesk,OU=Groups,{lab_module.BASE}"]})
    try:
        agent.start_writebackd()
        agent.writebackd.wait_event(event="directory.down", code="directory.protocol")
        names = wait_for("the names to be looked up", lambda: [row for row in json.loads(agent.ctl("--json", "check", check=False))["rows"] if row["step"] == "scope.protect"])
        assert not names[0]["ok"] and "could not be looked up yet" in names[0]["text"]
        mock_lab.directory.control("fault clear")
        agent.writebackd.wait_event(event="directory.up", timeout=15)
        wait_for("the group", lambda: "is there" in agent.ctl("check", check=False), 15)
        assert agent.writebackd.events(event="scope.unresolved") == []
    finally:
        mock_lab.directory.control("fault clear")
        agent.close()


def test_exemptions_are_told_at_every_start_and_reload(build, lab, tmp_path):
    agent = lab_module.Agent(build, str(tmp_path / "agent"), lab.directory, "wss://127.0.0.1:1/", lab.service.ca,
                             scope={"users": "all", "exempt_administrators": [PRINT, BACKUP]})
    try:
        for start in range(2):
            agent.start_writebackd()
            told = agent.writebackd.wait_event(event="scope.exempts_administrators", count=2 * start + 1)
            assert told["level"] == "warning" and PRINT in told["message"] and "S-1-5-32-551 (Backup Operators)" in told["message"]
            agent.writebackd.signal(signal.SIGHUP)
            agent.writebackd.wait_event(event="scope.exempts_administrators", count=2 * start + 2)
            status = agent.ctl("status", check=False)
            assert "ADMINISTRATORS MAY BE RESET" in status and PRINT in status
            agent.writebackd.stop()
        assert len(agent.writebackd.events(event="scope.exempts_administrators")) == 4
    finally:
        agent.close()
    assert "ADMINISTRATORS" not in lab.agent.ctl("status", check=False)


# The policy ------------------------------------------------------------------------------------------------------------------------------------

def test_a_policy_that_cannot_be_read_is_not_taken_as_none(lab):
    """Nobody let the agent read Bench-PSO: the result says so, and the log names the missing right."""
    answer = lab.service.operate("policy", "bench030@corp.example.test")
    assert answer["code"] == "found" and answer["policy"]["source"] == "unknown" and "policy_unreadable" in answer["warnings"]
    told = lab.agent.writebackd.wait_event(event="policy.unreadable")
    assert told["level"] == "warning" and "Bench-PSO" in told["message"] and '"Read all properties" on CN=Password Settings Container' in told["message"]
    answer = lab.service.operate("reset", "bench030@corp.example.test", new_password=NEW)
    assert answer["code"] == "ok" and "policy_unreadable" in answer["warnings"]
    assert "could not be read" in lab.agent.ctl("check", "--user", "bench030@corp.example.test", check=False)


def test_a_changed_policy_is_seen_when_the_cache_is_over(lab, can, second_agent):
    if not can("policy_changes", "a refusal that the remembered policy does not explain, in Windows' words (test_error_map.py)"):
        return
    service = second_agent(directory_settings={"policy_cache": "1s"})
    def check():
        return service.operate("check", "dave@corp.example.test", new_password=NEW)["code"]
    assert check() == "plausible"
    connection = lab.directory.connect("Administrator@corp.example.test", "Adm1n-Passw0rd!")
    try:
        connection.modify_s(BASE, [(ldap.MOD_REPLACE, "minPwdLength", [b"22"])])
        wait_for("the new policy", lambda: check() == "policy.too_short", 5)
        connection.modify_s(BASE, [(ldap.MOD_REPLACE, "minPwdLength", [b"10"])])
        wait_for("the old one again", lambda: check() == "plausible", 5)
    finally:
        connection.modify_s(BASE, [(ldap.MOD_REPLACE, "minPwdLength", [b"10"])])
        connection.unbind_s()


def test_a_server_without_the_control_is_told_with_the_remedy(build):
    with lab_module.Lab(build, "mock", directory_settings={"policy_hints": "require"}) as lab:
        lab.start_directory("--no-policy-hints")
        lab.start_service()
        lab.start_agent()
        lab.agent.enroll(lab.service.issuer, lab.service.ticket())
        lab.agent.wait_ready()
        assert code(lab, "reset", "bob") == "directory.no_policy_control"
        assert "set policy_hints to when-supported" in lab.agent.writebackd.wait_event(event="request.end", code="directory.no_policy_control")["message"]
