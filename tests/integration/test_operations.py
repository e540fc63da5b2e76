"""change, lookup, verify and policy, from the service's HTTP interface to the directory and back, on all the directories of the behaviour suite (capabilities.py)."""
import base64, concurrent.futures, contextlib, glob, os, time

import pytest

from directories import every_directory
from lab import DOMAIN, forest, forest_password, wait_for

NEW = "Gr33n-Field-Harbour"
OLD = forest()["bench"]["password"]
ALL = ["reset", "change", "unlock", "check", "lookup", "policy", "verify"]


LAB_OPTIONS = {"settings": {"operations": ALL, "limits": {"per_user_hour": 0, "wrong_per_minute": 0}, "settling": {"delay": "1s", "limit": "5s"}}}


def upn(user):
    return f"{user}@{DOMAIN}"


def ask(lab, op, user, **members):
    """(status, code), and the whole answer."""
    answer = lab.ask(op, user, **members)
    return (answer["status"], answer["code"]), answer


def bad_tries(lab, user):
    return lab.directory.bad_tries(user)


def refused(lab, op, user, code, **members):
    """Refused with this code, and the password was not written."""
    before = lab.directory.password_record(user)
    outcome, answer = ask(lab, op, user, **members)
    assert outcome == ("refused", code)
    assert lab.directory.password_record(user) == before
    return answer


# Change ---------------------------------------------------------------------------------------------------------------------------


def test_change(lab):
    version, _ = lab.directory.password_record("bench020")
    outcome, answer = ask(lab, "change", "bench020", old_password=OLD, new_password=NEW)
    assert outcome == ("applied", "ok") and "was_locked" not in answer
    assert lab.directory.opens("bench020", NEW)
    assert lab.directory.password_record("bench020")[0] == version + 1
    # and back: the whole of it is in Unicode
    odd = "Ünïcode \"quoted\" \\ 🔑"
    assert ask(lab, "change", "bench020", old_password=NEW, new_password=odd)[0] == ("applied", "ok")
    assert ask(lab, "change", "bench020", old_password=odd, new_password=OLD)[0] == ("applied", "ok")
    assert lab.directory.opens("bench020", OLD)


@every_directory
def test_a_wrong_old_password(lab):
    refused(lab, "change", "bench021", "credential.wrong", old_password="wrong", new_password=NEW)
    assert bad_tries(lab, "bench021") == 1
    assert ask(lab, "change", "bench021", old_password=OLD, new_password=NEW)[0] == ("applied", "ok")


@every_directory
def test_a_locked_account_is_not_changed_and_not_tried(lab):
    lab.directory.lock("bench022")
    tries = bad_tries(lab, "bench022")
    refused(lab, "change", "bench022", "user.locked", old_password=OLD, new_password=NEW)
    refused(lab, "change", "bench022", "user.locked", old_password="wrong", new_password=NEW)
    assert lab.directory.locked("bench022") and bad_tries(lab, "bench022") == tries


def test_the_policy_holds_for_a_change(lab):
    short = refused(lab, "change", "dave", "policy.too_short", old_password=forest_password("dave"), new_password="Sh0rt!")
    assert {"rule": "min_length", "required": 10, "given": 6} in short["rules"]
    refused(lab, "change", "dave", "policy.complexity", old_password=forest_password("dave"), new_password="alllowercaseletters")
    # whether the server has the policy-hints control or not
    young = refused(lab, "change", "erin", "policy.too_recent", old_password=forest_password("erin"), new_password=NEW)
    rule = next(rule for rule in young["rules"] if rule["rule"] == "min_age")
    assert rule["seconds"] == 86400 and rule["possible_at"] > time.time()
    assert bad_tries(lab, "dave") == bad_tries(lab, "erin") == 0
    # Of a policy that may not be read the agent judges nothing: the directory does.
    outcome, answer = ask(lab, "change", "bench023", old_password=OLD, new_password="Sh0rt!")
    assert outcome == ("refused", "policy.rejected" if lab.kind == "mock" else "policy.too_short") and answer["warnings"] == ["policy_unreadable"]
    assert answer["directory"]["result_code"] == 19 and not lab.directory.opens("bench023", "Sh0rt!")


def test_the_history_holds_for_a_change(lab):
    # Samba's text names the rule, Windows' does not.
    rule = "history_or_filter" if lab.kind == "mock" else "history"
    answer = refused(lab, "change", "bob", f"policy.{rule}", old_password=forest_password("bob"), new_password=forest_password("bob"))
    assert answer["rules"] == [{"rule": rule, "remembered": 5}]
    assert answer["directory"]["result_code"] == 19


@pytest.mark.parametrize("user,code", [("adm-amy", "user.protected"), ("outsider", "user.out_of_scope"), ("disabled1", "user.disabled"), ("expired1", "user.expired"), ("smart1", "user.smartcard")])
def test_refused_users(lab, user, code):
    refused(lab, "change", user, code, old_password=OLD, new_password=NEW)
    assert bad_tries(lab, user) == 0


def test_a_change_whose_answer_is_lost(lab, can):
    """Settled by the record of the very server, as a reset is."""
    if not can("faults", "a change that is answered, as in test_change"):
        return
    lab.directory.control("fault add on=modify user=bench052 cut-after")
    assert ask(lab, "change", "bench052", old_password=OLD, new_password=NEW)[0] == ("applied", "ok")
    assert lab.directory.opens("bench052", NEW)
    lab.directory.control("fault add on=modify user=bench053 cut-before")
    outcome, _ = ask(lab, "change", "bench053", old_password=OLD, new_password=NEW)
    assert outcome[0] == "failed" and lab.directory.opens("bench053", OLD)
    # It may have been compared, and counts: two more tries, and no third.
    codes = [ask(lab, "change", "bench053", old_password="wrong", new_password=NEW)[0][1] for _ in range(3)]
    assert codes == ["credential.wrong", "credential.wrong", "agent.throttled"]


# Verify ---------------------------------------------------------------------------------------------------------------------------


@every_directory
def test_verify(lab):
    right = lab.directory.password("alice")
    outcome, answer = ask(lab, "verify", "alice", old_password=right)
    assert outcome == ("answered", "verified") and answer["directory"]["result_code"] == 0
    outcome, answer = ask(lab, "verify", "alice", old_password="wrong")
    assert outcome == ("refused", "credential.wrong") and answer["directory"]["result_code"] == 49
    assert bad_tries(lab, "alice") == 1
    assert ask(lab, "verify", "alice", old_password=right)[0] == ("answered", "verified")


@pytest.mark.parametrize("user,code", [("disabled1", "user.disabled"), ("must1", "credential.must_change"), ("stale1", "credential.expired"), ("expired1", "user.expired"),
                                       ("hours1", "user.logon_hours"), ("workstation1", "user.logon_workstation")])
def test_what_the_directory_says_of_a_right_password(lab, user, code):
    refused(lab, "verify", user, code, old_password=forest_password(user))
    # Nothing of that is said to who does not know it.
    refused(lab, "verify", user, "credential.wrong", old_password="wrong")


def test_a_directory_that_cannot_say(lab, can):
    if not can("faults", "verifications that are answered, as in test_verify"):
        return
    lab.directory.control("fault add on=bind user=bench054 result=51")
    assert ask(lab, "verify", "bench054", old_password=OLD)[0] == ("failed", "directory.busy")
    lab.directory.control("fault add on=bind user=bench054 cut-before")
    assert ask(lab, "verify", "bench054", old_password=OLD)[0] == ("failed", "directory.unavailable")
    assert ask(lab, "verify", "bench054", old_password=OLD)[0] == ("answered", "verified")


@every_directory
def test_verify_of_a_locked_account(lab, can):
    lab.directory.lock("bench024")
    told = can("tells_locked", "credential.wrong, and the account stays locked")
    refused(lab, "verify", "bench024", "user.locked" if told else "credential.wrong", old_password=OLD)
    assert lab.directory.locked("bench024")


@every_directory
@pytest.mark.parametrize("user,code", [("adm-amy", "user.protected"), ("outsider", "user.out_of_scope")])
def test_who_is_not_verified(lab, user, code):
    refused(lab, "verify", user, code, old_password=OLD)
    assert bad_tries(lab, user) == 0


def test_wrong_passwords_never_lock(lab):
    """Three an hour of one user, by verify and change together, also those that come at once; then the directory is not asked, not even for a right one. A restart forgets nothing."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda number: ask(lab, "verify", "bench025", old_password=f"wrong {number}")[0][1], range(8)))
    assert sorted(codes) == ["agent.throttled"] * 5 + ["credential.wrong"] * 3
    assert bad_tries(lab, "bench025") == 3 and not lab.directory.locked("bench025")
    for op, members in ("verify", {}), ("change", {"new_password": NEW}):
        outcome, answer = ask(lab, op, "bench025", old_password=OLD, **members)
        assert outcome == ("failed", "agent.throttled") and 3000 < answer["retry_after"] <= 3600
    lab.agent.writebackd.stop()
    lab.agent.start_writebackd()
    lab.agent.wait_ready()
    assert ask(lab, "verify", "bench025", old_password=OLD)[0] == ("failed", "agent.throttled")
    assert bad_tries(lab, "bench025") == 3 and lab.directory.opens("bench025", OLD)
    assert ask(lab, "verify", "bench026", old_password=OLD)[0] == ("answered", "verified")


def test_verifications_leave_the_agents_own_connections_alone(lab):
    seen = len(lab.agent.writebackd.events(event="directory.down"))
    users = [f"bench{number:03}" for number in range(29, 49)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        codes = set(pool.map(lambda user: ask(lab, "verify", user, old_password=OLD if user[-1] in "02468" else "wrong")[0][1], users))
    assert codes == {"verified", "credential.wrong"}
    assert len(lab.agent.writebackd.events(event="directory.down")) == seen
    assert lab.agent.status()["directories"][0]["servers_up"] == 1


# Lookup and policy ----------------------------------------------------------------------------------------------------------------


def test_lookup(lab):
    outcome, answer = ask(lab, "lookup", "alice")
    account = answer["account"]
    assert outcome == ("answered", "found")
    assert (account["user_principal_name"], account["sam_account_name"], account["display_name"]) == (upn("alice"), "alice", "Alice Archer")
    assert not any(account[name] for name in ("locked", "disabled", "expired", "must_change", "password_never_expires", "cannot_change"))
    assert account["password_expires_at"] - account["password_last_set"] == 90 * 86400
    assert abs(account["password_last_set"] - (time.time() - 10 * 86400)) < 3600


@pytest.mark.parametrize("user,true", [("disabled1", "disabled"), ("expired1", "expired"), ("must1", "must_change"), ("never1", "password_never_expires"), ("bench027", "locked")])
def test_lookup_whatever_the_state(lab, user, true):
    if true == "locked":
        lab.directory.lock(user)
    outcome, answer = ask(lab, "lookup", user)
    assert outcome == ("answered", "found")
    assert [name for name, value in answer["account"].items() if value is True] == [true]
    assert ("password_last_set" in answer["account"]) == (user != "must1")
    assert ("password_expires_at" in answer["account"]) == (user not in ("must1", "never1"))


@every_directory
@pytest.mark.parametrize("op", ["lookup", "policy"])
@pytest.mark.parametrize("user,code", [("adm-amy", "user.protected"), ("outsider", "user.out_of_scope"), ("nobody", "user.not_found")])
def test_nothing_is_told_of_others(lab, op, user, code):
    outcome, answer = ask(lab, op, user)
    assert outcome == ("refused", code) and "account" not in answer and "policy" not in answer
    assert "Amy" not in str(answer) and "Olga" not in str(answer)


def test_policy(lab):
    outcome, answer = ask(lab, "policy", "alice")
    assert outcome == ("answered", "found")
    assert answer["policy"] == {"source": "domain", "min_length": 10, "complexity": True, "history": 5, "min_age": 86400, "max_age": 90 * 86400, "lockout_threshold": 5, "lockout_duration": 1800,
                                "enforced": lab.directory.policy_hints}
    frank = ask(lab, "policy", "frank")[1]["policy"]
    assert (frank["source"], frank["min_length"]) == ("pso", 16)
    assert ask(lab, "policy", "disabled1")[0] == ("answered", "found")
    assert abs(ask(lab, "policy", "erin")[1]["policy"]["possible_at"] - time.time() - 86400) < 2 * 3600


# Traces ---------------------------------------------------------------------------------------------------------------------------


def forms(password):
    return [password.encode(), password.encode("utf-16-le"), password.encode().hex().encode(), password.encode("utf-16-le").hex().encode(), base64.b64encode(password.encode()),
            base64.b64encode(f'"{password}"'.encode("utf-16-le"))]


def use_passwords(lab, user, other, old, new, wrong, reset):
    """Each way that a password takes to the directory. Two users: an hour of one may have one wrong password only."""
    assert ask(lab, "change", user, old_password=OLD, new_password=old)[0] == ("applied", "ok")
    assert ask(lab, "verify", user, old_password=old)[0] == ("answered", "verified")
    assert ask(lab, "change", user, old_password=wrong, new_password=new)[0] == ("refused", "credential.wrong")
    assert ask(lab, "verify", other, old_password=wrong)[0] == ("refused", "credential.wrong")
    assert ask(lab, "change", user, old_password=old, new_password=new)[0] == ("applied", "ok")
    assert ask(lab, "reset", user, new_password=reset)[0] == ("applied", "ok")


@every_directory
def test_no_password_is_left_anywhere(lab):
    canaries = ["Canary-Old-In-The-Coal-93", "Canary-New-In-The-Coal-94", "Canary-Wrong-In-The-Coal-95", "Canary-Reset-In-The-Coal-96"]
    use_passwords(lab, "bench018", "bench028", *canaries)
    looked_at = 0
    for path in glob.glob(lab.folder + "/agent/**", recursive=True) + glob.glob(lab.folder + "/service/**", recursive=True):
        if os.path.isfile(path):
            looked_at += 1
            data = open(path, "rb").read()
            assert not [form for canary in canaries for form in forms(canary) if form in data], path
    assert looked_at > 10


def readable_memory(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
            if " r" in line and "[v" not in line:
                memory.seek(start)
                with contextlib.suppress(OSError):
                    yield memory.read(end - start)


@pytest.mark.plain
@every_directory
def test_no_password_is_left_in_the_agents_memory(lab):
    """Neither as it came nor as the directory gets it: jansson's, libldap's and the buffers of TLS are wiped."""
    lab.agent.wait_first_second()
    pid = lab.agent.writebackd.pid
    use_passwords(lab, "bench016", "bench017", "Nachtigall-Old-1!", "Rotkehlchen-New-2!", "Zaunkoenig-Wrong-3!", "Goldammer-Reset-4!")
    words = ("chtigall", "kehlchen", "nkoenig", "dammer")  # parts: a buffer may have lost its first octets
    needles = [form for word in words for form in (word.encode(), word.encode("utf-16-le"))]
    memory = list(readable_memory(pid))
    assert [needle for block in memory for needle in needles if needle in block] == []
    assert any(lab.directory.bind_password.encode() in block for block in memory)  # the one that it keeps is seen


def test_it_all_came_to_rest(lab):
    wait_for("the journal to be acknowledged", lambda: lab.agent.status()["journal"]["unacknowledged"] == 0)


def test_verify_is_off_unless_it_is_written_out(mock_lab):
    answer = mock_lab.service.operate("verify", upn("alice"), old_password=forest_password("alice"), wait=2)
    assert answer["code"] == "service.no_agent"
    assert sorted(mock_lab.service.agents()[0]["operations"]) == sorted(set(ALL) - {"verify"})
