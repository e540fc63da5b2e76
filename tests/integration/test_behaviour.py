"""The behaviour suite: what the product does, from the service's HTTP interface to the directory and back. The same tests on mock-directory, on real domain controllers and, of the
flavor ldap, on OpenLDAP and 389 Directory Server. Whom a test names is called in each as lab.directory says; what one of them cannot do stands in tests/support/capabilities.py, with another test in its place."""
import uuid

import pytest

from directories import every_directory
from lab import LOCKOUT_TIME, PWD_LAST_SET, UNICODE_PWD, USER_ACCOUNT_CONTROL

pytestmark = every_directory
NEW = "Gr33n-Field-Harbour"
TWINS_ANCHOR = "5a1f0c5e-3d0b-4f6e-9a51-7e0f4c1b2a7a"


@pytest.fixture
def unchanged(lab):
    """Calls an operation and asserts that the user's password was not written by it."""
    def run(op, user, sub_id=None, **members):
        before = lab.directory.password_record(user)
        answer = lab.ask(op, sub_id or user, **members)
        assert lab.directory.password_record(user) == before
        return answer
    return run


# reset -----------------------------------------------------------------------------------------------------------------------------------------

def test_reset_is_applied(lab):
    version, _ = lab.directory.password_record("alice")
    answer = lab.ask("reset", "alice", new_password=NEW)
    assert (answer["status"], answer["code"]) == ("applied", "ok")
    assert lab.directory.opens("alice", NEW)
    assert not lab.directory.opens("alice", lab.directory.password("alice"))
    assert lab.directory.password_record("alice")[0] == version + 1
    assert answer["was_locked"] is False
    assert answer["directory"]["name"] == "corp" and answer["directory"]["server"]


def test_asking_twice_is_asking_once(lab):
    operation_id = str(uuid.uuid4())
    first = lab.ask("reset", "bench016", new_password=NEW, operation_id=operation_id)
    record = lab.directory.password_record("bench016")
    again = lab.ask("reset", "bench016", new_password=NEW, operation_id=operation_id)
    assert first["status"] == again["status"] == "applied"
    assert lab.directory.password_record("bench016") == record


def test_must_change(lab, unchanged, can):
    if not can("must_change_with_hints", "it is told and nothing is written; without must_change the same is fine"):
        assert unchanged("reset", "bench019", new_password=NEW, must_change=True)["code"] == "policy.too_recent"
        assert lab.ask("reset", "bench019", new_password=NEW)["code"] == "ok"
        return
    assert lab.ask("reset", "bench019", new_password=NEW, must_change=True)["status"] == "applied"
    assert lab.directory.says_must_change("bench019", NEW)


@pytest.mark.parametrize("user", ["stale1", "must1", "never1", "frank"])
def test_reset_of_every_usable_state(lab, user):
    state = lab.directory.state(user)
    assert lab.ask("reset", user, new_password=NEW)["code"] == "ok"
    assert lab.directory.opens(user, NEW)
    assert lab.directory.state(user) == state


def test_reset_does_not_open_the_hours(lab, can):
    if not can("logon_hours", "an account that is disabled stays so"):
        state = lab.directory.state("disabled1")
        assert lab.ask("reset", "disabled1", new_password=NEW)["code"] == "user.disabled" and lab.directory.state("disabled1") == state
        return
    assert lab.ask("reset", "hours1", new_password=NEW)["code"] == "ok"
    assert lab.directory.bind_error("hours1", NEW) == "530"


def test_one_reset_is_one_write(lab, can):
    """Password, lock and the day of the change in one Modify: nothing is ever half done."""
    lab.directory.lock("bench012")
    if not can("counts_writes", "the answer is the end of all of it"):
        version, _ = lab.directory.password_record("bench012")
        answer = lab.ask("reset", "bench012", new_password=NEW)
        assert (answer["code"], answer["was_locked"]) == ("ok", True) and not lab.directory.locked("bench012")
        assert lab.directory.password_record("bench012")[0] == version + 1 and lab.directory.opens("bench012", NEW)
        return
    before = lab.directory.records("bench012")
    assert lab.ask("reset", "bench012", new_password=NEW)["code"] == "ok"
    after = lab.directory.records("bench012")
    written = {number for number in after if after[number] != before.get(number)}
    assert {UNICODE_PWD, PWD_LAST_SET, LOCKOUT_TIME} <= written and USER_ACCOUNT_CONTROL not in written
    assert all(after[number][0] == before.get(number, (0,))[0] + 1 for number in (UNICODE_PWD, LOCKOUT_TIME))
    numbers = {after[number][1] for number in (UNICODE_PWD, PWD_LAST_SET, LOCKOUT_TIME)}
    if can("one_usn", "the numbers follow each other"):
        assert len(numbers) == 1
    else:
        assert len(numbers) == 2 and max(numbers) - min(numbers) == 1


def test_a_refused_reset_unlocks_nobody(lab, unchanged, can):
    """The policy of bench017 is one that the agent cannot read: it is the directory that refuses."""
    lab.directory.lock("bench017")
    answer = unchanged("reset", "bench017", new_password="Sh0rt!")
    if can("hidden_policy", "it is the agent that refuses, by the policy as it was read; and the directory, by its history"):
        assert answer["status"] == "refused" and answer["code"] in ("policy.too_short", "policy.rejected") and answer["directory"]["result_code"] in (19, 53)
    else:
        assert (answer["status"], answer["code"]) == ("refused", "policy.too_short")
        answer = unchanged("reset", "bench017", new_password=lab.directory.password("bench017"))
        assert (answer["status"], answer["code"]) == ("refused", "policy.history") and answer["directory"]["result_code"] in (19, 53)
    assert lab.directory.locked("bench017")


# unlock ----------------------------------------------------------------------------------------------------------------------------------------

def test_unlock_of_who_was_locked_before_the_agent_came(lab):
    assert lab.directory.says_locked("locked1")
    assert lab.ask("unlock", "locked1")["was_locked"] is True
    assert lab.directory.opens("locked1", lab.directory.password("locked1"))


def test_unlock_says_whether_it_was_locked(lab):
    lab.directory.lock("bob")
    assert lab.directory.locked("bob")
    before = lab.directory.password_record("bob")
    answer = lab.ask("unlock", "bob")
    assert (answer["status"], answer["was_locked"]) == ("applied", True)
    assert not lab.directory.locked("bob")
    assert lab.directory.opens("bob", lab.directory.password("bob"))
    answer = lab.ask("unlock", "bob")
    assert (answer["status"], answer["was_locked"]) == ("applied", False)
    assert lab.directory.password_record("bob") == before


def test_reset_unlocks_unless_told_not_to(lab, can):
    stays = can("stays_locked", "the account is open, and the answer says that it was locked")
    for user, unlock in (("bench010", True), ("bench011", False)):
        lab.directory.lock(user)
        answer = lab.ask("reset", user, new_password=NEW, unlock=unlock)
        assert answer["status"] == "applied"
        assert lab.directory.locked(user) is (stays and not unlock)
        assert stays or answer["was_locked"] is True
        assert lab.ask("unlock", user)["was_locked"] is (stays and not unlock)


# policy ----------------------------------------------------------------------------------------------------------------------------------------

def test_too_short_names_the_required_length(lab, unchanged):
    answer = unchanged("reset", "bob", new_password="Sh0rt!")
    assert (answer["status"], answer["code"]) == ("refused", "policy.too_short")
    assert {"rule": "min_length", "required": 10, "given": 6} in answer["rules"]


def test_too_simple_names_the_missing_classes(lab, unchanged, can):
    if not can("complexity", "the same password is taken"):
        assert lab.ask("reset", "bench005", new_password="alllowercaseletters")["code"] == "ok"
        return
    answer = unchanged("reset", "bob", new_password="alllowercaseletters")
    assert (answer["status"], answer["code"]) == ("refused", "policy.complexity")
    rule = next(r for r in answer["rules"] if r["rule"] == "complexity")
    if not can("counts_classes", "the rule's name is told"):
        return
    assert (rule["required_classes"], rule["given_classes"]) == (3, 1) and "upper" in rule["missing"]


def test_the_own_name_is_refused(lab, unchanged, can):
    if not can("complexity", "the same password is taken"):
        assert lab.ask("reset", "bench006", new_password="Xx-Bench006-2741")["code"] == "ok"
        return
    assert unchanged("reset", "bob", new_password="Xx-Baker-2741")["code"] == "policy.complexity"


def test_history_and_age(lab, unchanged, can, second_agent):
    if not can("policy_hints", "each reset says policy_not_enforced, and with `policy_hints: require` the answer is directory.no_policy_control"):
        answer = lab.ask("reset", "erin", new_password=NEW)
        assert (answer["code"], answer["warnings"]) == ("ok", ["policy_not_enforced"])
        record = lab.directory.password_record("erin")
        assert second_agent(directory_settings={"policy_hints": "require"}).operate("reset", lab.directory.subject("erin"), new_password=NEW + "-2")["code"] == "directory.no_policy_control"
        assert lab.directory.password_record("erin") == record
        return
    answer = unchanged("reset", "bob", new_password=lab.directory.password("bob"))
    # Samba's text names the rule, Windows' does not.
    rule = "history_or_filter" if lab.kind == "mock" else "history"
    assert answer["code"] == f"policy.{rule}"
    assert {"rule": rule, "remembered": 5} in answer["rules"]
    answer = unchanged("reset", "erin", new_password=NEW)
    assert answer["code"] == "policy.too_recent"
    rule = next(r for r in answer["rules"] if r["rule"] == "min_age")
    assert rule["seconds"] == 86400 and rule["possible_at"] > 0
    # Nobody is told of a rule that does not hold: without history and age in the policy in effect the same is fine.
    for _ in range(2):
        answer = lab.ask("reset", "bench013", new_password=NEW)
        assert answer["code"] == "ok" and "policy_not_enforced" not in answer.get("warnings", [])


def test_a_password_filter(lab, unchanged, can):
    if not can("password_filter", "the same password is taken"):
        assert lab.ask("reset", "bench014", new_password="Xx-Contoso-2741")["code"] == "ok"
        return
    assert unchanged("reset", "bench014", new_password="Xx-Contoso-2741")["code"] in ("policy.history_or_filter", "policy.rejected")


@pytest.mark.parametrize("password,code", [("Nine-Char", "policy.too_short"), ("aa1aaaaaaa", "policy.complexity"), ("Pile\U0001f4a9\U0001f4a91", "policy.too_short")])
def test_just_not_enough(lab, unchanged, can, password, code):
    if code == "policy.complexity" and not can("complexity", "the same password is taken"):
        assert lab.ask("reset", "bench007", new_password=password)["code"] == "ok"
        return
    assert unchanged("reset", "bob", new_password=password)["code"] == code


@pytest.mark.parametrize("number,password", enumerate(["Ten-Chars1", "Aa1aaaaaaa", "ÄÖÜäöü-ßß1", "Piles\U0001f4a9\U0001f4a91"]))
def test_just_enough(lab, unchanged, can, number, password):
    """Length counts UTF-16 units: a character beyond the first plane is two."""
    user = f"bench03{number}"
    if max(password) > "\uffff" and not can("utf16_length", "it is the directory that refuses, and takes two characters more"):
        assert unchanged("reset", user, new_password=password)["code"] == "policy.too_short"
        password += "-x"
    assert lab.ask("reset", user, new_password=password)["code"] == "ok"
    assert lab.directory.opens(user, password)


def test_a_fine_grained_policy_is_the_one_in_effect(lab, unchanged):
    answer = unchanged("reset", "frank", new_password="Fourteen-Char7")
    assert answer["code"] == "policy.too_short" and answer["rules"][0]["required"] == 16


# scope, protection, states (those that the premises may allow: test_states.py) ------------------------------------------------------------------------

@pytest.mark.parametrize("user,code", [("adm-amy", "user.protected"), ("outsider", "user.out_of_scope"), ("disabled1", "user.disabled"), ("smart1", "user.smartcard"),
                                       ("expired1", "user.expired")])
def test_refused_users(lab, unchanged, can, user, code):
    capability = {"smart1": "smartcard", "expired1": "account_expiry"}.get(user)
    if capability and not can(capability, "who is disabled is refused an unlock and a check too"):
        assert [unchanged(op, "disabled1", **members)["code"] for op, members in (("unlock", {}), ("check", {"new_password": NEW}))] == ["user.disabled"] * 2
        return
    answer = unchanged("reset", user, new_password=NEW)
    assert (answer["status"], answer["code"]) == ("refused", code)


def test_protected_by_what_they_are_and_as_the_agent_itself(lab, unchanged):
    for user, sub_id in lab.directory.protected().items():
        answer = unchanged("reset", user, sub_id=sub_id, new_password=NEW)
        assert (answer["status"], answer["code"]) == ("refused", "user.protected"), user


def test_must_change_needs_a_password_that_expires(lab, unchanged, can):
    if not can("never_expires", "request.unsupported where the policy gives must_change no meaning"):
        for op in ("reset", "check"):
            assert unchanged(op, "bob", new_password=NEW, must_change=True)["code"] == "request.unsupported"
        return
    assert unchanged("reset", "never1", new_password=NEW, must_change=True)["code"] == "user.never_expires"


def test_what_is_no_person_is_not_found(lab):
    for sub_id in lab.directory.no_persons():
        assert lab.ask("unlock", sub_id)["code"] == "user.not_found", sub_id


def test_selected_by_nested_groups_and_organizational_units(lab, rescope, unchanged):
    """carol is a member by a nested group, dave is none; adm-amy stays protected whatever is selected."""
    def codes(*users):
        return [unchanged("check", user, new_password=NEW)["code"] for user in users]

    fine, out = "plausible", "user.out_of_scope"
    group = lab.directory.selected_group
    rescope(bases=None, groups=[group])
    assert codes("bob", "carol", "dave", "outsider", "adm-amy") == [fine, fine, out, fine, "user.protected"]
    rescope(groups=[group])
    assert codes("bob", "carol", "dave", "outsider") == [fine, fine, out, out]
    rescope(groups=[group], exclude_groups=[lab.directory.nested_group])
    assert codes("bob", "carol") == [fine, out]
    rescope(exclude_bases=[lab.directory.berlin])
    assert codes("bob", "frank") == [fine, out]
    rescope(users="all", bases=None)
    assert codes("dave", "outsider", "adm-amy") == [fine, fine, "user.protected"]
    rescope(protect=[lab.directory.dn("bob")])
    assert codes("bob", "carol") == ["user.protected", fine]
    rescope(users="none", bases=None)
    assert codes("bob", "dave") == [out, out]


def test_the_directory_has_the_last_word(lab, rescope, unchanged, can):
    """The agent's account has rights on OU=People only: who is in scope elsewhere is the directory's to refuse."""
    rescope(users="all", bases=None)
    for op, members in (("reset", {"new_password": NEW}), ("unlock", {})):
        if op == "unlock":
            lab.directory.lock("outsider")
        elif not can("rights_by_place", "the unlock, for which its account lacks the right there"):
            continue
        answer = unchanged(op, "outsider", **members)
        assert (answer["status"], answer["code"]) == ("failed", "directory.denied") and answer["directory"]["result_code"] == 50
    assert lab.directory.locked("outsider")


# who -------------------------------------------------------------------------------------------------------------------------------------------

def test_an_unknown_user(lab):
    assert lab.ask("reset", "nobody", new_password=NEW)["code"] == "user.not_found"


def test_two_users_with_one_name(lab, can):
    if not can("twin_names", "two users with one mS-DS-ConsistencyGuid, as on the others"):
        assert lab.ask("reset", "twin", new_password=NEW)["code"] == "ok"
    else:
        assert lab.ask("reset", "twin", new_password=NEW)["code"] == "user.ambiguous"
    if not can("source_anchor", "two users of one name, as on the others"):
        return
    anchor = {"format": "mS-DS-ConsistencyGuid", "id": TWINS_ANCHOR}
    assert lab.ask("unlock", anchor)["code"] == "user.ambiguous"


def test_the_source_anchor(lab, can):
    """mS-DS-ConsistencyGuid where it is set, and only there where it is: else objectGUID."""
    if not can("source_anchor", "the entryUUID, which is none and no objectGUID"):
        entry = lab.directory.uuid("alice")
        assert lab.ask("unlock", {"format": "entryUUID", "id": entry})["code"] == "ok"
        for kind, name in (("mS-DS-ConsistencyGuid", entry), ("objectGUID", entry), ("entryUUID", "5a1f0c5e-3d0b-4f6e-9a51-7e0f4c1b2a02")):
            assert lab.ask("unlock", {"format": kind, "id": name})["code"] == "user.not_found", kind
        return
    for user, anchor, code in (("alice", "5a1f0c5e-3d0b-4f6e-9a51-7e0f4c1b2a01", "ok"), ("alice", lab.directory.guid("alice"), "user.not_found"),
                               ("bob", lab.directory.guid("bob"), "ok"), (None, "5a1f0c5e-3d0b-4f6e-9a51-7e0f4c1b2a02", "user.not_found")):
        answer = lab.ask("unlock", {"format": "mS-DS-ConsistencyGuid", "id": anchor})
        assert answer["code"] == code, (user, anchor)
        if code == "ok":
            assert answer["user"]["object_guid"] == lab.directory.guid(user)


@pytest.mark.parametrize("name,sam", [("first.last", "odd-comma"), ("hash", "odd-hash"), ("plus", "odd-plus"), ("blank", "odd-blank"), ("paren", "odd-filter"), ("zoe", "zoe")])
def test_names_that_break_a_careless_hand(lab, name, sam):
    """Their DNs are full of what RFC 4514 escapes; the reset goes by the object itself."""
    sam = sam if lab.directory.flavor == "active-directory" else name
    before = lab.directory.password_record(sam)[0]
    for sub_id in lab.directory.other_subjects(sam):
        assert lab.ask("unlock", sub_id)["code"] == "ok"
    assert lab.ask("reset", name, new_password="Wide-Quay-Cutter-4")["code"] == "ok"
    assert lab.directory.password_record(sam)[0] == before + 1
    assert lab.directory.opens(name, "Wide-Quay-Cutter-4")


@pytest.mark.parametrize("name", ["*", "alice)(objectClass=*", "\\2a", "ali*", "admin)(|(cn=*"])
def test_filter_characters_are_names(lab, name):
    assert lab.ask("unlock", name)["code"] == "user.not_found"


# check -----------------------------------------------------------------------------------------------------------------------------------------

def test_check_writes_nothing(lab, unchanged):
    answer = unchanged("check", "bob", new_password=NEW)
    assert (answer["status"], answer["code"]) == ("answered", "plausible")
    assert unchanged("check", "bob", new_password="short")["code"] == "policy.too_short"
    for user, code in (("adm-amy", "user.protected"), ("outsider", "user.out_of_scope"), ("disabled1", "user.disabled")):
        assert unchanged("check", user, new_password=NEW)["code"] == code


def test_every_subject_format(lab):
    for sub_id in lab.directory.other_subjects("bench001") + lab.directory.other_spellings("bench001"):
        answer = lab.ask("unlock", sub_id)
        assert (answer["status"], answer["code"]) == ("applied", "ok"), sub_id


# passwords -------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number,password", enumerate(["Zoë-Müller-93 straße", "Pile-of-\U0001f4a9-93x", 'Quotes "in" it 93', "Cafe\u0301-Combining-93", "x" * 250 + "Ab1-xy"]))
def test_unicode_passwords_are_byte_exact(lab, number, password):
    user = f"bench02{number}"
    assert lab.ask("reset", user, new_password=password)["status"] == "applied"
    assert lab.directory.opens(user, password)


# what is written down --------------------------------------------------------------------------------------------------------------------------

def test_one_operation_is_followed_by_its_id_through_all_logs(lab):
    answer = lab.ask("reset", "bench003", new_password=NEW)
    operation_id = answer["operation_id"]
    assert lab.service.program.wait_event(operation_id=operation_id, event="operation.done")["code"] == "ok"
    end = lab.agent.writebackd.wait_event(operation_id=operation_id, event="request.end")
    assert (end["code"], end["user"]) == ("ok", lab.directory.guid("bench003"))
    logs = lab.service.program.log_text() + lab.agent.writebackd.log_text() + lab.agent.channel.log_text()
    assert NEW not in logs and NEW.encode("utf-16-le").hex() not in logs


def test_the_journal_and_the_store_hold_no_password(lab):
    import glob
    password = "Canary-In-The-Coal-93"
    assert lab.ask("reset", "bench004", new_password=password)["status"] == "applied"
    for path in glob.glob(lab.folder + "/agent/state/*") + glob.glob(lab.folder + "/service/state/*"):
        data = open(path, "rb").read()
        assert password.encode() not in data and password.encode("utf-16-le") not in data, path


def test_writebackctl_status_and_check(lab):
    text = lab.agent.ctl("status")
    assert "ready" in text.lower() and "corp" in text
    assert lab.agent.status()["directories"][0]["name"] == "corp"
    lab.agent.ctl("check")
    assert "protected" in lab.agent.ctl("check", "--user", lab.directory.called("adm-amy"), check=False).lower()


def test_it_all_came_to_rest(lab):
    """Last: nothing is left unacknowledged, and the loops were never held up."""
    from lab import wait_for
    wait_for("the journal to be acknowledged", lambda: lab.agent.status()["journal"]["unacknowledged"] == 0)
