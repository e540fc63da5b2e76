"""What only the flavor ldap has, against OpenLDAP and 389 Directory Server, both real; where one of the two does otherwise, the test says how. What it shares is in test_behaviour.py."""
import contextlib, json, os, re, signal, sys

import ldap
import pytest

from lab import Agent, BUILD, wait_for
from scripted_service import ScriptedService

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support", "ldap"))
from ldap_lab import LdapLab, PROGRAMS, missing, outcome  # noqa: E402


@pytest.fixture(scope="module", params=list(PROGRAMS))
def lab(request):
    if missing(request.param):
        pytest.skip(missing(request.param))
    lab = LdapLab(BUILD, request.param)
    try:
        lab.start()
        yield lab
    finally:
        lab.close()


def test_a_name_of_odd_characters(lab):
    assert outcome(lab.ask("reset", 'odd, name+"1"', new_password="Pässwörd-Step-𝄞-1")) == ("applied", "ok")
    assert lab.directory.opens('odd, name+"1"', "Pässwörd-Step-𝄞-1")


def test_the_service_knows_the_flavor(lab):
    agents = lab.service.http("GET", "/v1/agents")[1]
    assert {(directory["name"], directory["flavor"]) for agent in agents for directory in agent["directories"]} == {(lab.agent.settings["directories"][0]["name"], "ldap")}


def test_an_entry_named_by_two_attributes(lab):
    """Whichever way round the directory keeps them; it is found, in its group, and excluded by its DN, written the other way round."""
    dn, turned = (f"{rdn},{lab.directory.people}" for rdn in (r"cn=Multi\, Part+uid=multi", r"uid=multi+cn=Multi\2C Part"))
    with lab.directory.admin() as connection:
        lab.directory.add(connection, dn, objectClass="inetOrgPerson", uid="multi", cn="Multi, Part", sn="Part", userPassword="Old-Marble-Step-7")
        connection.modify_s(lab.directory.group("sspr"), [(ldap.MOD_ADD, "member", dn.encode())])
    answer = lab.ask("reset", "multi", new_password="New-Marble-Step-1")
    assert outcome(answer) == ("applied", "ok")
    lab.directory.connect(turned, "New-Marble-Step-1").unbind_s()
    assert outcome(lab.ask("change", "multi", old_password="New-Marble-Step-1", new_password="New-Marble-Step-2")) == ("applied", "ok")
    lab.directory.connect(dn, "New-Marble-Step-2").unbind_s()
    scope = lab.agent.settings["directories"][0]["scope"]
    scope["exclude_bases"] = [turned]
    try:
        reload(lab)
        assert outcome(lab.ask("reset", "multi", new_password="New-Marble-Step-3")) == ("refused", "user.out_of_scope")
    finally:
        del scope["exclude_bases"]
        reload(lab)


def reload(lab):
    lab.agent.write_config()
    count = len(lab.agent.writebackd.events(event="config.loaded"))
    lab.agent.writebackd.signal(signal.SIGHUP)
    lab.agent.writebackd.wait_event(event="config.loaded", count=count + 1)
    lab.agent.wait_ready()


@pytest.mark.parametrize("sub_id", [{"format": "userPrincipalName", "id": "alice@example.test"}, {"format": "sAMAccountName", "id": "alice", "domain": "EXAMPLE"}])
def test_nobody_is_found_by_a_name_of_active_directory(lab, sub_id):
    assert outcome(lab.ask("reset", sub_id, new_password="New-Marble-Step-1")) == ("refused", "user.not_found")


def test_the_policy_of_the_users_own(lab):
    answer = lab.ask("policy", "erin")
    assert outcome(answer) == ("answered", "found") and answer["policy"]["source"] == "subentry"
    assert (answer["policy"]["min_length"], answer["policy"]["min_age"], answer["policy"]["history"]) == (12, 86400, 5)
    answer = lab.ask("policy", "bob")
    assert answer["policy"]["source"] == "domain" and answer["policy"]["min_length"] == 10 and answer["policy"]["enforced"] is True


def test_must_change(lab):
    answer = lab.ask("reset", "heidi", new_password="New-Marble-Step-1", must_change=True)
    assert outcome(answer) == ("applied", "ok") and not answer.get("warnings")
    wait_for("pwdReset, which 389 writes behind its answer", lambda: lab.directory.must_change("heidi"), 5)
    assert outcome(lab.ask("verify", "heidi", old_password="New-Marble-Step-1")) == ("refused", "credential.must_change")
    assert outcome(lab.ask("check", "heidi", new_password="New-Marble-Step-2", must_change=True)) == ("answered", "plausible")


OLD, NEW, WRONG = "Old-Marble-Step-7", "New-Marble-Step-1", "not the password 1!"


def test_a_change_in_the_users_own_right(lab):
    assert outcome(lab.ask("change", "nora", old_password=OLD, new_password=NEW)) == ("applied", "ok")
    assert lab.directory.read("nora", "modifiersName")["modifiersName"] == [lab.directory.dn("nora").encode()], "the user wrote, not the agent"
    assert lab.directory.opens("nora", NEW) and not lab.directory.opens("nora", OLD)
    assert outcome(lab.ask("reset", 'odd, name+"1"', new_password="Pässwörd-Step-𝄞-3")) == ("applied", "ok")
    assert outcome(lab.ask("change", 'odd, name+"1"', old_password="Pässwörd-Step-𝄞-3", new_password="Pässwörd-Step-𝄞-2")) == ("applied", "ok")
    assert lab.directory.opens('odd, name+"1"', "Pässwörd-Step-𝄞-2")


@pytest.mark.parametrize("uid, old, new, code", [("bob", OLD, "short", "policy.too_short"), ("bob", OLD, OLD, "policy.history"), ("erin", OLD, "New-Marble-Step-1", "policy.too_recent"),
                                                 ("rosa", OLD, NEW, "user.cannot_change"), ("dave", OLD, NEW, "user.out_of_scope"), ("disabled1", OLD, NEW, "user.disabled")])
def test_a_change_that_is_refused(lab, can, uid, old, new, code):
    if code == "policy.history" and not can("tells_history", "policy.history_or_filter"):
        code = "policy.history_or_filter"
    assert outcome(lab.ask("change", uid, old_password=old, new_password=new)) == ("refused", code)
    assert uid == "disabled1" or lab.directory.opens(uid, OLD)


def test_a_wrong_old_password_is_a_failed_logon_and_does_not_lock(lab):
    """The directory counts it and locks at three: the agent stops short of that, and the user's own failed logon locks him."""
    answers = [outcome(lab.ask("change", "peter", old_password=WRONG, new_password=NEW)) for _ in range(3)]
    assert answers == [("refused", "credential.wrong")] * 2 + [("failed", "agent.throttled")] and not lab.directory.locked("peter")
    for _ in range(lab.directory.facts["policies"]["default"]["max_failure"] - 2):
        assert not lab.directory.locked("peter") and not lab.directory.opens("peter", WRONG)
    assert lab.directory.locked("peter"), "the agent's tries were two of three"
    assert outcome(lab.ask("change", "peter", old_password=OLD, new_password=NEW)) == ("refused", "user.locked")
    assert lab.ask("unlock", "peter")["was_locked"] is True and lab.directory.opens("peter", OLD)


def test_who_must_change_can(lab):
    assert outcome(lab.ask("reset", "quinn", new_password="Given-Marble-Step-1", must_change=True)) == ("applied", "ok")
    wait_for("pwdReset, which 389 writes behind its answer", lambda: lab.directory.must_change("quinn"), 5)
    assert outcome(lab.ask("change", "quinn", old_password=WRONG, new_password=NEW)) == ("refused", "credential.wrong")
    assert outcome(lab.ask("change", "quinn", old_password="Given-Marble-Step-1", new_password=NEW)) == ("applied", "ok")
    assert not lab.directory.must_change("quinn") and outcome(lab.ask("verify", "quinn", old_password=NEW)) == ("answered", "verified")


def test_an_expired_password_is_changed_where_the_server_lets_him_in(lab):
    """Grace logins do; without them neither server takes even a change."""
    wait_for("the password to expire", lambda: outcome(lab.ask("verify", "sven", old_password=OLD)) == ("refused", "credential.expired"), 10)
    assert outcome(lab.ask("change", "sven", old_password=OLD, new_password=NEW)) == ("refused", "credential.expired")
    lab.directory.grace("fleeting", 2)
    assert outcome(lab.ask("change", "sven", old_password=OLD, new_password=NEW)) == ("applied", "ok")


@pytest.fixture
def scripted(lab):
    """A service that asks what it is told, with an agent of its own."""
    service = ScriptedService(lab.folder + "/scripted")
    agent = Agent(BUILD, lab.folder + "/scripted-agent", lab.directory, service.endpoint, service.ca, **lab.agent_options)
    try:
        agent.start()
        agent.enroll(service.issuer, service.ticket)
        wait_for("the greeting", lambda: service.ws)
        agent.wait_ready()
        agent.wait_first_second()
        yield service
    finally:
        agent.close()
        service.close()


def test_what_another_agent_set_seconds_ago_is_not_set_again(lab, scripted):
    """Two writes within one second look like one here, so nothing is settled by so young a record; that it is there counts all the same."""
    first = scripted.claims(lab.directory.subject("carol"), new_password="New-Marble-Step-1")
    assert outcome(scripted.ask(first)) == ("applied", "ok")
    stands = lab.directory.password_record("carol")
    behind = scripted.claims(lab.directory.subject("carol"), operation_id=first["operation_id"], first_iat=first["iat"])
    assert outcome(scripted.ask({**behind, "secret": scripted.secret(behind, "New-Marble-Step-1")})) == ("applied", "ok")
    other = scripted.claims(lab.directory.subject("carol"), new_password="New-Marble-Step-2", first_iat=first["iat"])
    assert outcome(scripted.ask(other)) == ("unknown", "outcome.unknown")
    assert lab.directory.password_record("carol") == stands


def test_lookup(lab):
    answer = lab.ask("lookup", "bob")
    assert outcome(answer) == ("answered", "found")
    account = answer["account"]
    assert account["uid"] == "bob" and account["display_name"] == "Bob Baker" and not account["locked"] and not account["disabled"]


@contextlib.contextmanager
def scope_with(lab, **members):
    scope = lab.agent.settings["directories"][0]["scope"]
    before = dict(scope)

    def write(**members):
        scope.clear()
        scope.update(members)
        lab.agent.write_config()
        lab.agent.writebackd.signal(1)

    write(**{**before, **members})
    try:
        yield
    finally:
        write(**before)
        wait_for("the scope of before", lambda: outcome(lab.ask("check", "nora", new_password="Another-Marble-Step-1")) == ("answered", "plausible"), 15)


@pytest.mark.parametrize("key, code", [("protect", "user.protected"), ("exclude_groups", "user.out_of_scope")])
def test_what_has_no_members_protects_everybody(lab, key, code):
    """An entry that is no group would be resolved, and protect nobody; so would a group of which the agent sees no member."""
    assert outcome(lab.ask("check", "nora", new_password="Another-Marble-Step-1")) == ("answered", "plausible")
    with scope_with(lab, **{key: [lab.directory.groups]}):
        wait_for("the new scope", lambda: outcome(lab.ask("check", "nora", new_password="Another-Marble-Step-1")) == ("refused", code), 15)


def test_groups_behind_a_referral_are_not_taken_as_none(lab):
    dn = f"ou=elsewhere,{lab.directory.base}"
    with lab.directory.admin() as connection:
        lab.directory.add(connection, dn, objectClass=["referral", "extensibleObject"], ou="elsewhere", ref=f"ldaps://other.example.test/{dn}")
    try:
        assert outcome(lab.ask("check", "nora", new_password="Another-Marble-Step-1")) == ("refused", "user.protected")
    finally:
        with lab.directory.admin() as connection:
            connection.set_option(ldap.OPT_SERVER_CONTROLS, [ldap.controls.simple.ManageDSAITControl()])
            connection.delete_s(dn)
    assert outcome(lab.ask("check", "nora", new_password="Another-Marble-Step-1")) == ("answered", "plausible")


def test_a_server_that_was_killed_and_comes_back(lab):
    lab.directory.kill()
    answer = lab.ask("reset", "alice", new_password="New-Marble-Step-3", wait=15)
    assert answer["code"] in ("directory.unavailable", "directory.timeout") and answer["status"] == "failed"
    lab.directory.start()
    wait_for("the directory to be used again", lambda: outcome(lab.ask("check", "alice", new_password="New-Marble-Step-3")) == ("answered", "plausible"), 20)
    assert lab.directory.opens("alice", OLD)
    assert outcome(lab.ask("reset", "alice", new_password="New-Marble-Step-3")) == ("applied", "ok")


def test_the_administrator_asks_for_a_user(lab):
    said = lab.agent.ctl("check", "--user", "bob", check=False)
    assert lab.directory.dn("bob") in said and "subentry" not in said
    assert lab.directory.dn("bob") in lab.agent.ctl("check", "--user", lab.directory.uuid("bob"), check=False)


def test_check_finds_nothing_wrong_where_nothing_is(lab):
    """No row for what only Active Directory has; the default policy by its own name."""
    report = json.loads(lab.agent.ctl("--json", "check"))
    steps = {row["step"]: row["text"] for row in report["rows"] if row.get("server") and row["what"] == "corp"}
    assert report["ok"] and "position" not in steps and steps["policy"].startswith("minimum length 10")


def test_explain_speaks_of_what_the_directory_has(lab):
    said = lab.agent.ctl("explain", "bob", check=False)
    for line in (r" +entryUUID [0-9a-f-]{36}, on ", r"Protected +no: a person, not listed in scope.protect", r"Policy +the default one \(cn=(default|config)"):
        assert re.search("^" + line, said, re.M), line + "\n" + said


def test_what_the_administrator_reads_speaks_of_this_directory(lab):
    said = {" ".join(words): lab.agent.ctl(*words, check=False) for words in (["status"], ["check"], ["check", "--user", "bob"], ["explain", "bob"], ["explain", "erin"])}
    foreign = ("policy-hints", "invocationId", "domain controller", "NETBIOS", "objectGUID", "sAMAccountName", "the domain's", "adminCount", "lockoutTime")
    assert not [(command, word) for command, text in said.items() for word in foreign if word in text]
    assert "the user's own (" in said["explain erin"]
