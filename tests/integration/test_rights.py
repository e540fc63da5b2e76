"""The rights of the agent's account, taken away one by one: check --user names each, and what really fails then is what it says. And what explain tells."""
import json, os, re, signal, subprocess

import ldap
import pytest
from ldap.controls import RequestControl
from samba.dcerpc import security
from samba.ndr import ndr_pack, ndr_unpack

import lab as lab_module
from lab import BASE, DOMAIN

NEW_ONE = [0]


def ctl(lab, *words, agent=None):
    """(exit status, standard output)"""
    agent = agent or lab.agent
    done = subprocess.run([os.path.join(agent.build, "agent/ctl/writebackctl"), "--socket", agent.control, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def rows(lab, user, agent=None):
    status, out = ctl(lab, "--json", "check", "--user", user, agent=agent)
    answer = json.loads(out)
    return status, answer, {row["question"].removeprefix("right: "): row for row in answer["rows"] if "answer" in row}


def missing(lab, user):
    return {name for name, row in rows(lab, user)[2].items() if row["answer"] == "no"}


def make_old(lab, user):
    """So that no minimum age forbids the next reset, where the directory minds it."""
    if lab.kind == "mock":
        lab.directory.control(f"set {user} pwd_age=20d")
    elif lab.directory.policy_hints:
        lab.directory.age(user)


def reset(lab, user, **members):
    """The code; each time with another password, and old enough for it."""
    NEW_ONE[0] += 1
    make_old(lab, user)
    return lab.service.operate("reset", f"{user}@{DOMAIN}", new_password=f"Gr33n-Field-Harbour-{NEW_ONE[0]}", **members)["code"]


class Rights:
    """Takes a right away from the agent's account, and gives it back: on Samba in the access lists themselves, on the mock over its control socket."""
    names = {"Reset Password": "reset-password", "write lockoutTime": "write-lockoutTime", "write pwdLastSet": "write-pwdLastSet", "Unexpire Password": "unexpire-password"}
    people, user = f"OU=People,{BASE}", "bf967aba-0de6-11d0-a285-00aa003049e2"
    table = {"Reset Password": (people, [f"(OA;CIIO;CR;00299570-246d-11d0-a768-00aa006e0529;{user};%s)"]),
             "write lockoutTime": (people, [f"(OA;CIIO;WP;28630ebf-41d5-11d1-a9c1-0000f80367c1;{user};%s)"]),
             "write pwdLastSet": (people, [f"(OA;CIIO;WP;bf967a0a-0de6-11d0-a285-00aa003049e2;{user};%s)"]),
             # every domain gives it to Authenticated Users
             "Unexpire Password": (BASE, ["(OA;;CR;ccc2dc7d-a6ad-4a7a-8846-c04e3cc53501;;%s)", "(OA;;CR;ccc2dc7d-a6ad-4a7a-8846-c04e3cc53501;;AU)"])}

    def __init__(self, lab):
        self.lab, self.samba = lab, lab.kind != "mock"
        if self.samba:
            self.sid = ndr_unpack(security.dom_sid, lab.directory.read("svc-writeback", "objectSid")["objectSid"][0])
            self.domain = security.dom_sid(str(self.sid).rsplit("-", 1)[0])

    def edit(self, dn, change):
        """The access list as SDDL, replaced by what change() makes of it."""
        control = RequestControl("1.2.840.113556.1.4.801", True, b"\x30\x03\x02\x01\x04")
        connection = self.lab.directory.connect(f"CN=Administrator,CN=Users,{BASE}", "Adm1n-Passw0rd!")
        try:
            value = connection.search_ext_s(dn, ldap.SCOPE_BASE, attrlist=["nTSecurityDescriptor"], serverctrls=[control])[0][1]["nTSecurityDescriptor"][0]
            sddl = change(ndr_unpack(security.descriptor, value).as_sddl(self.domain))
            descriptor = ndr_pack(security.descriptor.from_sddl(sddl, self.domain))
            connection.modify_ext_s(dn, [(ldap.MOD_REPLACE, "nTSecurityDescriptor", [descriptor])], serverctrls=[control])
        finally:
            connection.unbind_s()

    def canonical(self, ace):
        return security.descriptor.from_sddl("D:" + ace, self.domain).as_sddl(self.domain)[2:]

    def add(self, dn, aces):
        self.edit(dn, lambda sddl: sddl.replace("(", "".join(aces) + "(", 1))

    def remove(self, dn, aces):
        def without(sddl):
            for ace in map(self.canonical, aces):
                assert ace in sddl, ace + " is not in " + sddl
                sddl = sddl.replace(ace, "")
            return sddl
        self.edit(dn, without)

    def take(self, name):
        if self.samba:
            dn, aces = self.table[name]
            self.remove(dn, [ace.replace("%s", str(self.sid)) for ace in aces])
        else:
            self.lab.directory.control(f"revoke svc-writeback {self.names[name]}")

    def give(self, name):
        if self.samba:
            dn, aces = self.table[name]
            self.add(dn, [ace.replace("%s", str(self.sid)) for ace in aces])
        else:
            self.lab.directory.control(f"grant svc-writeback {self.names[name]}")


@pytest.fixture(scope="module")
def rights(lab):
    return Rights(lab)


@pytest.fixture
def without(rights):
    taken = []

    def take(name):
        taken.append(name)
        rights.take(name)
    yield take
    for name in taken:
        rights.give(name)


POLICIES = {"read Password Settings"}


def test_with_all_of_them(lab, rights):
    status, answer, found = rows(lab, "bob")
    assert status == 0 and answer["code"] == "plausible"
    assert {name for name, row in found.items() if row["answer"] == "yes"} == {"read the user", "Reset Password", "write lockoutTime", "write pwdLastSet", "Unexpire Password", "Change Password"}
    # the objects' container shows nothing to ordinary accounts; a policy of one's own that was read proves itself
    assert missing(lab, "bob") == POLICIES and not found["read Password Settings"]["needed"]
    assert rows(lab, "frank")[2]["read Password Settings"]["answer"] == "yes"


@pytest.mark.parametrize("name, code", [("Reset Password", "directory.denied"), ("write pwdLastSet", "ok"), ("write lockoutTime", "ok")])
def test_each_right_is_named_and_its_lack_felt(lab, rights, without, name, code):
    make_old(lab, "bob")
    without(name)
    assert missing(lab, "bob") == {name} | POLICIES
    status, answer, found = rows(lab, "bob")
    assert status == 1 and answer["code"] == "directory.denied" and name in answer["text"]
    assert f"OU=People,{BASE}" in found[name]["grant"]["windows"] and "samba-tool dsacl set" in found[name]["grant"]["samba"]
    status, out = ctl(lab, "explain", "bob")
    assert status == 1 and re.search(rf"^Rights +MISSING: {name}$", out, re.M)
    assert reset(lab, "bob") == code
    if name == "write pwdLastSet":
        assert reset(lab, "bob", must_change=True) == "directory.denied"
    if name == "write lockoutTime":
        lab.directory.lock("bob")
        assert reset(lab, "bob", unlock=True) == "directory.denied"
        assert lab.service.operate("unlock", f"bob@{DOMAIN}")["code"] == "directory.denied"
        rights.give(name)
        assert lab.service.operate("unlock", f"bob@{DOMAIN}")["code"] == "ok"
        rights.take(name)


def test_the_commands_that_it_prints_grant_it(lab, rights, without, can):
    """Each line for Samba, as it is printed."""
    if not can("samba_tool", "that each right is named (the test before)"):
        return
    for name in ("Reset Password", "write lockoutTime", "write pwdLastSet", "Unexpire Password"):
        without(name)
    printed = [row["grant"]["samba"] for row in rows(lab, "carol")[2].values() if row["answer"] == "no"]
    assert len(printed) == 5
    for command in printed:
        done = subprocess.run(command + f" -s {lab.directory.folder}/etc/smb.conf", shell=True, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    assert missing(lab, "carol") == set()
    # back to what it was
    sid = str(rights.sid)
    for name, (dn, aces) in rights.table.items():
        rights.remove(dn, [ace.replace("%s", sid).replace(";WP;", ";RPWP;") for ace in aces[:1]])
    rights.remove(f"CN=Password Settings Container,CN=System,{BASE}", [f"(A;CI;LCRPRC;;;{sid})"])


def test_the_documented_commands_on_samba(lab, can):
    """The block of docs/active-directory.md, for another account: afterwards its token has every right."""
    if not can("samba_tool", "the rights that the laboratory gives (test_with_all_of_them)"):
        return
    text = open(os.path.join(lab_module.ROOT, "docs", "active-directory.md"), encoding="utf-8").read()
    block = "\n".join(line[4:] for line in text.split("### Samba\n")[1].split("\n## ")[0].splitlines() if line.startswith("    "))
    block = block.replace("DC=corp,DC=example,DC=com", BASE).replace("user create svc-writeback", "user create svc-doc Doc-Marble-Step-7").replace("svc-writeback", "svc-doc")
    script = f'set -e; samba-tool() {{ command samba-tool "$@" -s {lab.directory.folder}/etc/smb.conf; }}\n' + block
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "28630ebf-41d5-11d1-a9c1-0000f80367c1" in done.stdout, done.stdout + done.stderr
    connection = lab.directory.connect(f"CN=svc-doc,OU=Service,{BASE}", "Doc-Marble-Step-7")
    try:
        allowed = connection.search_s(f"CN=bob,OU=People,{BASE}", ldap.SCOPE_BASE, attrlist=["allowedAttributesEffective"])[0][1]["allowedAttributesEffective"]
        assert {b"lockoutTime", b"pwdLastSet"} <= set(allowed)
        connection.modify_s(f"CN=bob,OU=People,{BASE}", [(ldap.MOD_REPLACE, "unicodePwd", '"Gr33n-Doc-Harbour"'.encode("utf-16-le")), (ldap.MOD_REPLACE, "pwdLastSet", b"-1")])
        control = RequestControl("1.2.840.113556.1.4.801", True, b"\x30\x03\x02\x01\x07")  # what check --user looks at
        assert connection.search_ext_s(f"CN=Password Settings Container,CN=System,{BASE}", ldap.SCOPE_BASE, attrlist=["nTSecurityDescriptor"], serverctrls=[control])[0][1]["nTSecurityDescriptor"][0]
        assert connection.search_s(f"CN=Strict-PSO,CN=Password Settings Container,CN=System,{BASE}", ldap.SCOPE_BASE, attrlist=["msDS-MinimumPasswordLength"])[0][1]
    finally:
        connection.unbind_s()


def test_a_reset_goes_on_without_the_right_to_unexpire(lab, without, can):
    """It is named. pwdLastSet -1 would not help: Samba refuses that without the right, and with it the whole reset."""
    without("Unexpire Password")
    status, answer, found = rows(lab, "carol")
    assert status == 1 and answer["code"] == "plausible" and not found["Unexpire Password"]["ok"] and "expired" in found["Unexpire Password"]["text"]
    assert f'"{BASE}"' in found["Unexpire Password"]["grant"]["windows"]
    assert reset(lab, "carol") == "ok"
    if can("must_change_with_hints", "the plain reset"):
        assert reset(lab, "carol", must_change=True) == "ok"


def test_explain(lab):
    make_old(lab, "bob")
    status, out = ctl(lab, "explain", "bob")
    assert status == 0
    for line in (r"Reset now +yes: ", rf"Found +CN=bob,OU=People,{BASE}", rf'Scope +in scope: below "OU=People,{BASE}"', r"Protected +no: ", r"State +enabled$", r"Locked +no$",
                 r"Password +set 20\d\d-\d\d-\d\d \d\d:\d\d UTC \(.*\); expires 20", rf"Policy +the domain's \({BASE}\)", r"Rules +at least 10 characters, characters of three kinds", r" +none of the last 5",
                 r"Enforced +" + ("yes" if lab.directory.policy_hints else "NO: history"), r"Next change +(possible at once|not before 20)", r"Rights +the agent's account has all"):
        assert re.search("^" + line, out, re.M), line + "\n" + out
    for user, line in (("frank", r"Policy +a Password Settings object \(CN=Strict-PSO,"), ("adm-amy", r"Protected +YES: adminCount is 1; member of .*Domain Admins"),
                       ("outsider", rf'Scope +OUT of scope: below none of "OU=People,{BASE}" \(scope.bases\)'), ("disabled1", r"State +DISABLED"), ("nobody", r"Reset now +NO: no user of this name .* \(user.not_found(, directory corp)?\)$")):
        out = ctl(lab, "explain", user)[1]
        assert re.search("^" + line, out, re.M), line + "\n" + out


def test_when_the_next_change_is_possible(lab):
    """erin's password was set an hour ago, the minimum age is a day: by the user's own change it always counts, by a reset where the server enforces it."""
    status, answer, _ = rows(lab, "erin")
    when = next(row["text"] for row in answer["rows"] if row["question"] == "when")
    out = ctl(lab, "explain", "erin")[1]
    facts = json.loads(ctl(lab, "--json", "explain", "erin")[1])["facts"]
    assert facts["next_own_change"] > facts["password_set"]
    if lab.directory.policy_hints:
        assert answer["code"] == "policy.too_recent" and when.startswith("not before 20") and facts["next_change"] == facts["next_own_change"]
        assert re.search(r"^Next change +not before 20.* UTC: the minimum age$", out, re.M)
    else:
        assert status == 0 and "does not apply to resets here; to the user's own change it does, until 20" in when and facts["next_change"] == 0
        assert re.search(r"^Next change +possible at once by a reset; the user's own change not before 20.* UTC: the minimum age$", out, re.M)


def test_what_to_do_about_a_state_is_said(lab):
    for user, word in (("disabled1", "disabled"), ("expired1", "expired"), ("smart1", "smartcard")):
        assert f"and scope.allow does not have '{word}' (user.{word})" in ctl(lab, "explain", user)[1]
        assert f"scope.allow does not have '{word}'" in ctl(lab, "check", "--user", user)[1]


def test_nothing_is_granted_on_whom_nobody_resets(lab):
    for user in ("outsider", "CORP\\svc-writeback"):
        status, answer, found = rows(lab, user)
        assert status == 1 and found["Reset Password"]["answer"] == "no" and "grant" not in found["Reset Password"]
        assert "not to be reset" in found["Reset Password"]["note"]


def test_who_is_exempted_is_called_an_administrator(lab, tmp_path):
    scope = {"users": "selected", "bases": [f"OU=People,{BASE}"], "exempt_administrators": ["S-1-5-32-550"], "groups": [f"CN=SSPR-Test-Group,OU=Groups,{BASE}", f"CN=Typo,{BASE}"]}
    other = lab_module.Agent(lab.build, str(tmp_path / "agent"), lab.directory, "wss://127.0.0.1:1/", lab.service.ca, scope=scope)
    other.start_writebackd()
    try:
        other.writebackd.wait_event(event="scope.unresolved")
        status, out = ctl(lab, "explain", "adm-pat", agent=other)
        assert re.search(r"^Protected +EXEMPTED: an administrator \(member of Print Operators\)", out, re.M) and "Warning      this is an administrator" in out
        assert "exempted: an administrator (member of Print Operators)" in ctl(lab, "check", "--user", "adm-pat", agent=other)[1]
        assert re.search(r"^Protected +no: ", ctl(lab, "explain", "bob", agent=other)[1], re.M)
        # a name that is not there is said where it matters, and not where it does not
        assert re.search(r"^Scope +OUT of scope: member of none of .*; not there: \"CN=Typo,", ctl(lab, "explain", "dave", agent=other)[1], re.M)
        assert "Typo" not in ctl(lab, "explain", "nobody", agent=other)[1]
    finally:
        other.close()


def test_a_typo_that_refuses_everybody_is_an_error(lab, tmp_path):
    scope = {"users": "all", "protect": [f"CN=Brake-Glass,OU=Groups,{BASE}"]}
    other = lab_module.Agent(lab.build, str(tmp_path / "agent"), lab.directory, "wss://127.0.0.1:1/", lab.service.ca, scope=scope)
    other.start_writebackd()
    try:
        event = other.writebackd.wait_event(event="scope.unresolved")
        assert event["level"] == "error" and "everybody is refused" in event["message"]
        assert re.search(r"^Protected +YES: .* protects everybody; not there: \"CN=Brake-Glass,", ctl(lab, "explain", "bob", agent=other)[1], re.M)
    finally:
        other.close()


def test_explain_a_lock(lab):
    lab.directory.lock("bob")
    try:
        assert re.search(r"^Locked +YES since 20.* UTC, until 20.* UTC, or an unlock or a reset before$", ctl(lab, "explain", "bob")[1], re.M)
    finally:
        assert lab.service.operate("unlock", f"bob@{DOMAIN}")["code"] == "ok"


@pytest.mark.parametrize("name", ["bob", "CORP\\bob", f"bob@{DOMAIN}", "GUID"])
def test_by_whichever_name(lab, name):
    name = lab.directory.guid("bob") if name == "GUID" else name
    for words in (["explain", name], ["check", "--user", name]):
        answer = json.loads(ctl(lab, "--json", *words)[1])
        assert answer["dn"] == f"CN=bob,OU=People,{BASE}" and answer["directory"] == "corp"


def test_two_directories(lab, tmp_path):
    """A bare name is looked for in each; who is in both must be chosen."""
    other = lab_module.Agent(lab.build, str(tmp_path / "agent"), lab.directory, "wss://127.0.0.1:1/", lab.service.ca)
    second = json.loads(json.dumps(other.settings["directories"][0]))
    second.update(name="second", base_dn=f"OU=Service,{BASE}", domains=["second.test"], scope={"users": "selected", "bases": [f"OU=Service,{BASE}"]})
    other.settings["directories"].append(second)
    other.write_config()
    other.start_writebackd()
    try:
        other.writebackd.wait_event(event="directory.up", count=2)
        assert json.loads(ctl(lab, "--json", "explain", "bob", agent=other)[1])["directory"] == "corp"
        status, out = ctl(lab, "explain", "svc-writeback", agent=other)
        assert status == 1 and "corp and second both have such a user" in out
        answer = json.loads(ctl(lab, "--json", "explain", "svc-writeback", "--directory", "second", agent=other)[1])
        assert answer["directory"] == "second" and answer["code"] == "user.protected"
        assert json.loads(ctl(lab, "--json", "explain", "nobody", agent=other)[1])["code"] == "user.not_found"
    finally:
        other.close()


# Who cannot change the password ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def cannot_change(lab, rights):
    """Denied to Everyone and SELF, as Windows' tools do it."""
    dn, aces = f"CN=dave,OU=People,{BASE}", [f"(OD;;CR;ab721a53-1e2f-11d0-9819-00aa0040529b;;{who})" for who in ("WD", "PS")]
    if rights.samba:
        rights.add(dn, aces)
    else:
        lab.directory.control("set dave cannot_change=true")
    yield
    if rights.samba:
        rights.remove(dn, aces)
    else:
        lab.directory.control("set dave cannot_change=false")


def test_who_cannot_change_is_not_reset(lab, cannot_change):
    record = lab.directory.password_record("dave")
    assert reset(lab, "dave") == "user.cannot_change"
    assert lab.directory.password_record("dave") == record
    status, out = ctl(lab, "explain", "dave")
    assert status == 1 and "the user may not change the password" in out and "user.cannot_change" in out


def test_who_cannot_change_is_reset_where_that_is_allowed(lab, cannot_change, rescope):
    rescope(allow=["cannot_change"])
    before = lab.directory.password_record("dave")[0]
    assert reset(lab, "dave") == "ok"
    assert lab.directory.password_record("dave")[0] == before + 1
    rescope(allow=["disabled", "expired", "smartcard"])
    assert reset(lab, "dave") == "user.cannot_change"


def test_who_can_again(lab):
    assert reset(lab, "dave") == "ok"


def test_a_descriptor_that_cannot_be_read_is_said(mock_lab):
    mock_lab.directory.control("set dave sealed=true")
    try:
        status, answer, found = rows(mock_lab, "dave")
        assert answer["code"] == "plausible" and found["Reset Password"]["answer"] == "unknown" and "could not be read" in found["Reset Password"]["text"]
        assert "could not be read" in next(row["text"] for row in answer["rows"] if row["question"] == "state")
        assert "could not be read" in ctl(mock_lab, "explain", "dave")[1]
        assert reset(mock_lab, "dave") == "ok"
    finally:
        mock_lab.directory.control("set dave sealed=false")


# What may not be read ----------------------------------------------------------------------------------------------------------------------------

HIDDEN = {"adminCount": "bf967918-0de6-11d0-a285-00aa003049e2", "msDS-ResultantPSO": "b77ea093-88d0-4780-9a98-911f8e8b1dca"}


@pytest.fixture
def hidden(lab, rights):
    """hidden(user, attribute): the user's access list denies the agent's account reading it."""
    undo = []

    def hide(user, attribute):
        if lab.kind == "mock":
            lab.directory.control(f"set {user} hidden={attribute}")
            undo.append(lambda: lab.directory.control(f"set {user} hidden="))
        else:
            dn, ace = lab.directory.read(user, "distinguishedName")["distinguishedName"][0].decode(), f"(OD;;RP;{HIDDEN[attribute]};;{rights.sid})"
            rights.add(dn, [ace])
            undo.append(lambda: rights.remove(dn, [ace]))
    yield hide
    for one in undo:
        one()


def test_an_admin_count_that_may_not_be_read_is_not_taken_as_none(lab, hidden):
    record = lab.directory.password_record("dave")
    hidden("dave", "adminCount")
    assert reset(lab, "dave") == "user.protected"
    assert lab.directory.password_record("dave") == record
    assert "may not read adminCount" in ctl(lab, "explain", "dave")[1]
    assert "adminCount" in rows(lab, "dave")[2]["read the user"]["text"]
    assert reset(lab, "bob") == "ok"


def test_a_policy_of_ones_own_that_may_not_be_seen_is_not_taken_as_none(lab, hidden):
    def source(user):
        answer = lab.service.operate("policy", f"{user}@{DOMAIN}")
        return answer["policy"]["source"], "policy_unreadable" in answer.get("warnings", [])
    assert source("frank") == ("pso", False) and source("dave") == ("domain", False)
    for user in ("frank", "dave"):
        hidden(user, "msDS-ResultantPSO")
        assert source(user) == ("unknown", True)
    told = lab.agent.writebackd.wait_event(event="policy.unreadable")
    assert told["level"] == "warning" and "msDS-ResultantPSO" in told["message"] and '"Read all properties"' in told["message"]
    assert len([e for e in lab.agent.writebackd.events(event="policy.unreadable") if "msDS-ResultantPSO" in e["message"]]) == 1
    assert reset(lab, "dave") == "ok"
