"""The product's main job, from the service's HTTP interface to the directory and back: the same tests on mock-directory and on a real Samba domain controller."""
import uuid

import pytest

from lab import DOMAIN, NETBIOS, forest_password

NEW = "Gr33n-Field-Harbour"


def upn(user):
    return f"{user}@{DOMAIN}"


@pytest.fixture
def unchanged(lab):
    """Calls an operation and asserts that the user's password was not written by it."""
    def run(op, user, sub_id=None, **members):
        before = lab.directory.password_record(user)
        answer = lab.service.operate(op, sub_id or upn(user), **members)
        assert lab.directory.password_record(user) == before
        return answer
    return run


def test_reset_is_applied(lab):
    version, _ = lab.directory.password_record("alice")
    answer = lab.service.operate("reset", upn("alice"), new_password=NEW)
    assert (answer["status"], answer["code"]) == ("applied", "ok")
    assert lab.directory.opens("alice", NEW)
    assert not lab.directory.opens("alice", forest_password("alice"))
    assert lab.directory.password_record("alice")[0] == version + 1
    assert answer["directory"]["name"] == "corp" and answer["directory"]["server"]


def test_asking_twice_is_asking_once(lab):
    operation_id = str(uuid.uuid4())
    first = lab.service.operate("reset", upn("dave"), new_password=NEW, operation_id=operation_id)
    record = lab.directory.password_record("dave")
    again = lab.service.operate("reset", upn("dave"), new_password=NEW, operation_id=operation_id)
    assert first["status"] == again["status"] == "applied"
    assert lab.directory.password_record("dave") == record


def test_must_change(lab):
    assert lab.service.operate("reset", upn("carol"), new_password=NEW, must_change=True)["status"] == "applied"
    assert lab.directory.bind_error("carol", NEW) == "773"


def test_unlock_says_whether_it_was_locked(lab):
    lab.directory.lock("bob")
    assert lab.directory.locked("bob")
    before = lab.directory.password_record("bob")
    answer = lab.service.operate("unlock", upn("bob"))
    assert (answer["status"], answer["was_locked"]) == ("applied", True)
    assert not lab.directory.locked("bob")
    assert lab.directory.opens("bob", forest_password("bob"))
    answer = lab.service.operate("unlock", upn("bob"))
    assert (answer["status"], answer["was_locked"]) == ("applied", False)
    assert lab.directory.password_record("bob") == before


def test_reset_unlocks_unless_told_not_to(lab):
    for user, unlock in (("bench010", True), ("bench011", False)):
        lab.directory.lock(user)
        assert lab.service.operate("reset", upn(user), new_password=NEW, unlock=unlock)["status"] == "applied"
        assert lab.directory.locked(user) is (not unlock)


def test_too_short_names_the_required_length(lab, unchanged):
    answer = unchanged("reset", "bob", new_password="Sh0rt!")
    assert (answer["status"], answer["code"]) == ("refused", "policy.too_short")
    assert {"rule": "min_length", "required": 10, "given": 6} in answer["rules"]


def test_too_simple_names_the_missing_classes(lab, unchanged):
    answer = unchanged("reset", "bob", new_password="alllowercaseletters")
    assert (answer["status"], answer["code"]) == ("refused", "policy.complexity")
    rule = next(r for r in answer["rules"] if r["rule"] == "complexity")
    assert (rule["required_classes"], rule["given_classes"]) == (3, 1) and "upper" in rule["missing"]


def test_the_own_name_is_refused(lab, unchanged):
    assert unchanged("reset", "bob", new_password="Xx-Baker-2741")["code"] == "policy.complexity"


def test_history_and_age_where_the_server_enforces_them(lab, unchanged):
    if not lab.directory.policy_hints:
        pytest.skip(f"{lab.directory.name} {lab.directory.version} lacks the policy-hints control: neither history nor age is enforced on a reset")
    answer = unchanged("reset", "bob", new_password=forest_password("bob"))
    assert answer["code"] == "policy.history_or_filter"
    assert {"rule": "history_or_filter", "remembered": 5} in answer["rules"]
    answer = unchanged("reset", "erin", new_password=NEW)
    assert answer["code"] == "policy.too_recent"
    rule = next(r for r in answer["rules"] if r["rule"] == "min_age")
    assert rule["seconds"] == 86400 and rule["possible_at"] > 0


def test_a_fine_grained_policy_is_the_one_in_effect(lab, unchanged):
    answer = unchanged("reset", "frank", new_password="Fourteen-Char7")
    assert answer["code"] == "policy.too_short" and answer["rules"][0]["required"] == 16


@pytest.mark.parametrize("user,code", [("adm-amy", "user.protected"), ("outsider", "user.out_of_scope"), ("disabled1", "user.disabled"), ("smart1", "user.smartcard")])
def test_refused_users(lab, unchanged, user, code):
    answer = unchanged("reset", user, new_password=NEW)
    assert (answer["status"], answer["code"]) == ("refused", code)


def test_protected_by_rid_and_as_the_agent_itself(lab, unchanged):
    for user in ("Administrator", "svc-writeback", "krbtgt"):
        answer = unchanged("reset", user, sub_id={"format": "sAMAccountName", "domain": NETBIOS, "id": user}, new_password=NEW)
        assert answer["code"] == "user.protected", user


def test_must_change_needs_a_password_that_expires(lab, unchanged):
    assert unchanged("reset", "never1", new_password=NEW, must_change=True)["code"] == "user.never_expires"


def test_an_unknown_user(lab):
    assert lab.service.operate("reset", upn("nobody"), new_password=NEW)["code"] == "user.not_found"


def test_two_users_with_one_name(lab):
    if lab.kind == "samba":
        pytest.skip("Samba refuses a second user with the same userPrincipalName")
    assert lab.service.operate("reset", upn("twin"), new_password=NEW)["code"] == "user.ambiguous"


@pytest.mark.parametrize("name", ["*", "alice)(objectClass=*", "\\2a", "ali*", "admin)(|(cn=*"])
def test_filter_characters_are_names(lab, name):
    assert lab.service.operate("unlock", f"{name}@{DOMAIN}")["code"] == "user.not_found"


def test_check_writes_nothing(lab, unchanged):
    answer = unchanged("check", "bob", new_password=NEW)
    assert (answer["status"], answer["code"]) == ("answered", "plausible")
    assert unchanged("check", "bob", new_password="short")["code"] == "policy.too_short"


def test_every_subject_format(lab):
    guid = lab.directory.guid("bench001")
    for sub_id in ({"format": "objectGUID", "id": guid}, {"format": "userPrincipalName", "id": upn("bench001").upper()},
                   {"format": "sAMAccountName", "domain": NETBIOS, "id": "BENCH001"}, {"format": "sAMAccountName", "domain": DOMAIN, "id": "bench001"}):
        answer = lab.service.operate("unlock", sub_id)
        assert (answer["status"], answer["code"]) == ("applied", "ok"), sub_id


@pytest.mark.parametrize("number,password", enumerate(["Zoë-Müller-93 straße", "Pile-of-\U0001f4a9-93x", 'Quotes "in" it 93', "Cafe\u0301-Combining-93", "x" * 250 + "Ab1-xy"]))
def test_unicode_passwords_are_byte_exact(lab, number, password):
    user = f"bench02{number}"
    assert lab.service.operate("reset", upn(user), new_password=password)["status"] == "applied"
    assert lab.directory.opens(user, password)


def test_one_operation_is_followed_by_its_id_through_all_logs(lab):
    answer = lab.service.operate("reset", upn("bench003"), new_password=NEW)
    operation_id = answer["operation_id"]
    assert lab.service.program.wait_event(operation_id=operation_id, event="operation.done")["code"] == "ok"
    end = lab.agent.writebackd.wait_event(operation_id=operation_id, event="request.end")
    assert (end["code"], end["user"]) == ("ok", lab.directory.guid("bench003"))
    logs = lab.service.program.log_text() + lab.agent.writebackd.log_text() + lab.agent.channel.log_text()
    assert NEW not in logs and NEW.encode("utf-16-le").hex() not in logs


def test_the_journal_and_the_store_hold_no_password(lab):
    import glob
    password = "Canary-In-The-Coal-93"
    assert lab.service.operate("reset", upn("bench004"), new_password=password)["status"] == "applied"
    for path in glob.glob(lab.folder + "/agent/state/*") + glob.glob(lab.folder + "/service/state/*"):
        data = open(path, "rb").read()
        assert password.encode() not in data and password.encode("utf-16-le") not in data, path


def test_writebackctl_status_and_check(lab):
    text = lab.agent.ctl("status")
    assert "ready" in text.lower() and "corp" in text
    assert lab.agent.status()["directories"][0]["name"] == "corp"
    lab.agent.ctl("check")
    assert "protected" in lab.agent.ctl("check", "--user", upn("adm-amy"), check=False).lower()


def test_it_all_came_to_rest(lab):
    """Last: nothing is left unacknowledged, and the loops were never held up."""
    from lab import wait_for
    wait_for("the journal to be acknowledged", lambda: lab.agent.status()["journal"]["unacknowledged"] == 0)
