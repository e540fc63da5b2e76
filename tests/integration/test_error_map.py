"""The error map: what a directory answers, and the outcome code that comes out of it. Windows' answers are played by mock-directory, by its own rules or as a fault in Windows' words;
Samba's are Samba's own, wherever it can be made to give them. The table of a run is printed and written to error-map.md in the build folder."""
import copy, os, socket, uuid

import ldap
import pytest

import lab as lab_module
from lab import BASE, DOMAIN, forest_password, wait_for

NEW, OTHER = "Gr33n-Field-Harbour", "Blue-Harbour-Field-5"
OLD = "Old-Marble-Step-7"
ATR = "AtrErr: DSID-03191083, #1: 0: %s: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)"
SVC = "SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0"
BIND = "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data %s, v4563"
RESTRICTIONS = "0000052D: %s - check_password_restrictions: %s"
UNABLE = "it cannot be made to say that"


def upn(user):
    return f"{user}@{DOMAIN}"


def ask(op, user="bob", **members):
    secrets = {"reset": {"new_password": NEW}, "change": {"old_password": OLD, "new_password": NEW}, "verify": {"old_password": OLD}}.get(op, {})
    return lambda lab: lab.service.operate(op, user if isinstance(user, dict) else upn(user), **{**secrets, **members})


def locked(then):
    def run(lab):
        if not lab.directory.locked("outsider"):
            lab.directory.lock("outsider")
        return then(lab)
    return run


def administrator(lab):
    return lab.directory.connect(upn("Administrator"), "Adm1n-Passw0rd!")


def restart(agent):
    agent.close()
    agent.start()
    agent.wait_ready()
    agent.wait_first_second()


def with_longer_passwords(then):
    """The policy is changed behind the agent's back, which remembers the old one."""
    def run(lab):
        lab.service.operate("check", upn("bob"), new_password=NEW)
        connection = administrator(lab)
        try:
            connection.modify_s(BASE, [(ldap.MOD_REPLACE, "minPwdLength", [b"22"])])
            answer = then(lab)
        finally:
            connection.modify_s(BASE, [(ldap.MOD_REPLACE, "minPwdLength", [b"10"])])
            connection.unbind_s()
        assert {"rule": "min_length", "required": 22, "given": len(NEW)} in answer["rules"]
        restart(lab.agent)  # which has read the new one by now, and remembers that
        return answer
    return run


NOBODY = {"format": "objectGUID", "id": str(uuid.uuid4())}
RESET, UNLOCK, CHANGE, VERIFY = ask("reset"), ask("unlock", "outsider"), ask("change"), ask("verify")
# case; what is asked; what Windows says (None: the mock by its own rules); the code; what Samba is asked, or why it cannot be made to say it; the code there, where it is another.
ROWS = [
    ("reset refused by policy", RESET, (53, "0000052D: " + SVC), "policy.history_or_filter", with_longer_passwords(RESET), "policy.too_short"),
    ("reset refused by policy, as Samba up to 4.22 says it", RESET, (19, RESTRICTIONS % ("Constraint violation", "the password is too short. It should be equal to or longer than 10 characters!")), "policy.too_short", "its own row", None),
    ("reset refused by policy, not complex", RESET, (53, RESTRICTIONS % ("Unwilling to perform", "the password does not meet the complexity criteria!")), "policy.complexity", "refused before it is asked", None),
    ("reset refused by policy, too young", RESET, (53, RESTRICTIONS % ("Unwilling to perform", "password is too young to change!")), "policy.too_recent", "refused before it is asked", None),
    ("reset refused by policy, history", RESET, (53, RESTRICTIONS % ("Unwilling to perform", "the password was already used (in history)!")), "policy.history", "the behaviour suite asks the newer one", None),
    ("change refused by policy", ask("change", new_password=OLD + "!"), (19, "0000052D: " + ATR % "0000052D"), "policy.history_or_filter", ask("change", "dave", new_password=OLD), "policy.history"),
    ("change, wrong old password", ask("change", "carol", old_password=OTHER), None, "credential.wrong", ask("change", "carol", old_password=OTHER), None),
    ("no Reset Password right", ask("reset", "outsider"), None, "directory.denied", ask("reset", "outsider"), None),
    ("no Reset Password right, in Windows' words", RESET, (50, "00000005: SecErr: DSID-031A1190, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0"), "directory.denied", "its own row", None),
    ("no right to write an attribute", locked(UNLOCK), None, "directory.denied", locked(UNLOCK), None),
    ("not encrypted, or badly encoded", RESET, (53, "0000001F: SvcErr: DSID-031A126C, problem 5003 (WILL_NOT_PERFORM), data 0"), "directory.encryption", "the agent's connections are encrypted, and its encoding is right", None),
    ("badly encoded, as Samba says it", RESET, (53, "00002035: setup_io: it's not allowed to set the NT hash password directly'"), "directory.encryption", "the agent's encoding is right", None),
    ("invalid parameter", RESET, (53, "00000057: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0"), "directory.encryption", UNABLE, None),
    ("object gone, before it is read", ask("unlock", NOBODY), None, "user.not_found", ask("unlock", NOBODY), None),
    ("object gone, before it is written", RESET, (32, "0000208D: NameErr: DSID-0310028B, problem 2001 (NO_OBJECT), data 0, best match of: ''"), "user.not_found", "nobody can be removed in that moment", None),
    ("not bound", RESET, (1, "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a successful bind must be completed on the connection., data 0, v4563"), "directory.unavailable", "the agent is bound", None),
    ("not bound, as Samba says it", RESET, (1, "00002020: Operation unavailable without authentication"), "directory.unavailable", "the agent is bound", None),
    ("read-only or wrong controller", RESET, "referral=ldap://elsewhere.test/DC=test", "directory.referral", "a writable controller writes", None),
    ("busy", RESET, (51, "000020EE: SvcErr: DSID-03140001, problem 5001 (BUSY), data 0"), "directory.busy", UNABLE, None),
    ("shutting down", RESET, (52, "000020F5: SvcErr: DSID-03140002, problem 5002 (UNAVAILABLE), data 0"), "directory.busy", UNABLE, None),
    ("time limit", RESET, (3, "00002024: SvcErr: DSID-03140003, problem 5010, data 0"), "directory.busy", UNABLE, None),
    ("administrative limit", RESET, (11, "00002024: SvcErr: DSID-0314030D, problem 5008 (ADMIN_LIMIT_EXCEEDED), data 0"), "directory.busy", UNABLE, None),
    ("critical control not known", RESET, (12, "00002040: SvcErr: DSID-031401E7, problem 5010 (UNAVAIL_EXTENSION), data 0"), "directory.no_policy_control", "the agent sends no control that a server does not name", None),
    ("illegal modify", RESET, (53, "00002077: SvcErr: DSID-03190F8C, problem 5003 (WILL_NOT_PERFORM), data 0"), "directory.protocol", UNABLE, None),
    ("an answer that is in no table", RESET, (80, "000020EF: SvcErr: DSID-00000000, problem 5012 (DIR_ERROR), data -1"), "directory.protocol", UNABLE, None),
    ("verify: right", ask("verify", "carol"), None, "verified", ask("verify", "carol"), None),
    ("verify: no such user (525)", VERIFY, (49, BIND % "525"), "credential.wrong", "says 52e", None),
    ("verify: wrong password (52e)", ask("verify", "alice", old_password=OTHER), None, "credential.wrong", ask("verify", "alice", old_password=OTHER), None),
    ("verify: logon hours (530)", ask("verify", "hours1"), None, "user.logon_hours", ask("verify", "hours1"), None),
    ("verify: workstation (531)", VERIFY, (49, BIND % "531"), "user.logon_workstation", "a bind has no workstation there", None),
    ("verify: expired password (532)", ask("verify", "stale1"), None, "credential.expired", ask("verify", "stale1"), None),
    ("verify: disabled (533)", ask("verify", "disabled1"), None, "user.disabled", ask("verify", "disabled1"), None),
    ("verify: account expired (701)", ask("verify", "expired1"), None, "user.expired", ask("verify", "expired1"), None),
    ("verify: must change (773)", ask("verify", "must1"), None, "credential.must_change", ask("verify", "must1"), None),
    ("verify: locked (775)", ask("verify", "locked1"), None, "user.locked", ask("verify", "locked1"), None),
    ("verify: no logon servers (51f)", VERIFY, (49, BIND % "51f"), "directory.unavailable", UNABLE, None),
]
# The agent's own bind: case; what Windows says; the code; whom Samba takes the agent for, or in brackets why not.
BINDS = [
    ("bind: wrong password (52e)", (49, BIND % "52e"), "directory.credential", "alice"),
    ("bind: no such user (525)", (49, BIND % "525"), "directory.credential", "nobody"),
    ("bind: logon hours (530)", (49, BIND % "530"), "directory.credential", "hours1"),
    ("bind: workstation (531)", (49, BIND % "531"), "directory.credential", ("a bind has no workstation there",)),
    ("bind: expired password (532)", (49, BIND % "532"), "directory.credential", "stale1"),
    ("bind: disabled (533)", (49, BIND % "533"), "directory.credential", "disabled1"),
    ("bind: invalid parameter (57)", (49, BIND % "57"), "directory.credential", (UNABLE,)),
    ("bind: account expired (701)", (49, BIND % "701"), "directory.credential", "expired1"),
    ("bind: must change (773)", (49, BIND % "773"), "directory.credential", "must1"),
    ("bind: locked (775)", (49, BIND % "775"), "directory.credential", "locked1"),
    ("bind: channel binding", (49, "80090346: LdapErr: DSID-0C090711, comment: AcceptSecurityContext error, data 80090346, v4563"), "directory.credential", ("simple binds have none",)),
    ("bind: in clear", (8, "00002028: LdapErr: DSID-0C090256, comment: The server requires binds to turn on integrity checking if SSL/TLS are not already active on the connection"), "directory.encryption", ("the agent always speaks TLS",)),
]
table = {}


def note(lab, case, said, code, answer=None):
    """One cell of the table: what the directory said and what came out of it."""
    if answer and answer.get("directory", {}).get("diagnostic"):
        said = f"{answer['directory']['result_code']} {answer['directory']['diagnostic']}"
    table.setdefault(case, {})[lab.kind] = (said, code)


@pytest.fixture(scope="module")
def wide(lab):
    """Everybody is in scope, also those whom the agent has no rights on; every operation may be asked for, and nobody is asked too often."""
    agent = lab.agent
    agent.settings["directories"][0]["scope"] = {"users": "all"}
    agent.settings["operations"] = ["reset", "change", "unlock", "check", "verify"]
    agent.settings["limits"] = {**agent.settings.get("limits", {}), "wrong_per_user_hour": 0, "wrong_per_minute": 0}
    agent.write_config()
    restart(agent)
    return lab


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(wide, row):
    case, asked, windows, code, samba, samba_code = row
    if wide.kind != "mock" and isinstance(samba, str):
        note(wide, case, f"not asked: {samba}", "")
        return
    if wide.kind != "mock":
        asked, code = samba, samba_code or code
    elif windows:
        fault = windows if isinstance(windows, str) else f'result={windows[0]} text="{windows[1]}"'
        wide.directory.control(f"fault add on={'bind' if case.startswith('verify') else 'modify'} user=bob {fault}")
    answer = asked(wide)
    note(wide, case, "its own rules", answer["code"], answer)
    assert answer["code"] == code, answer
    wide.agent.wait_ready()


def test_a_referral_is_not_followed(wide, can):
    """Wherever it leads, nobody connects there; a server that refers does not write, and no other one is asked in its place."""
    if not can("faults", "nothing; a writable controller refers nobody"):
        return
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.3)
        address = f"127.0.0.1:{elsewhere.getsockname()[1]}"
        for scheme in ("ldap", "ldaps"):
            wide.directory.control(f"fault add on=modify user=bob referral={scheme}://{address}/DC=test")
            assert RESET(wide)["code"] == "directory.referral"
            wide.directory.control(f"fault add on=search user=bob referral={scheme}://{address}/DC=test")
            assert RESET(wide)["code"] == "directory.referral"
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    wide.directory.control("fault clear")
    wide.agent.wait_ready()


def test_binds(build, wide, tmp_path):
    """One agent with a directory for each row: all the same server, each bound to by another account."""
    agent = lab_module.Agent(build, str(tmp_path / "agent"), wide.directory, "wss://127.0.0.1:1/", wide.service.ca)
    entry, password = agent.settings["directories"][0], str(tmp_path / "password")
    with open(os.open(password, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
        f.write(OLD if wide.kind != "mock" else OTHER)
    entries = []
    for i, (case, (result, text), code, samba) in enumerate(BINDS):
        account = f"bench{100 + i}" if wide.kind == "mock" else samba
        if isinstance(account, tuple):
            note(wide, case, f"not asked: {account[0]}", "")
            continue
        if wide.kind == "mock":
            wide.directory.control(f'fault add on=bind user={account} count=forever result={result} text="{text}"')
        own = str(tmp_path / f"password{i}")
        with open(os.open(own, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write(OTHER if "52e" in case else OLD)
        entries.append((case, code, {**copy.deepcopy(entry), "name": f"d{i}", "bind": {"dn": upn(account), "password_file": own}}))
    agent.settings["directories"] = [entry for _, _, entry in entries]
    agent.write_config()
    agent.start_writebackd()
    try:
        def told():
            rows = {row["name"]: row for row in agent.status()["directories"]}
            return all(rows[entry["name"]].get("code") not in (None, "directory.unavailable") for _, _, entry in entries) and rows
        rows = wait_for("every bind to be refused", told, 20)
        for case, code, entry in entries:
            row = rows[entry["name"]]
            note(wide, case, row["text"].split(": ", 1)[1].split("; next")[0], row["code"])
            assert row["code"] == code, row
    finally:
        agent.close()
        if wide.kind == "mock":
            wide.directory.control("fault clear")


def test_the_table(build):
    """Last: every row came out, and the table is left where it can be read."""
    cases = [row[0] for row in ROWS] + [row[0] for row in BINDS]
    kinds = sorted({kind for cells in table.values() for kind in cells})
    def cell(case, kind):
        said, code = table.get(case, {}).get(kind, ("", ""))
        said = " ".join(said.split()).replace("|", "\\|")
        return f"{said[:110] + '…' if len(said) > 110 else said} | {'`' + code + '`' if code else ''}"
    lines = ["| case | " + " | ".join(f"{kind} says | outcome" for kind in kinds) + " |", "|---" * (1 + 2 * len(kinds)) + "|"]
    lines += [f"| {case} | " + " | ".join(cell(case, kind) for kind in kinds) + " |" for case in cases]
    with open(os.path.join(build, "error-map.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))
    for kind in kinds:
        assert [case for case in cases if kind not in table.get(case, {})] == [], kind
