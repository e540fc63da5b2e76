"""mock-directory itself: result codes, texts and rules of a Windows domain controller, as Microsoft documents them and as administrators see them in their logs."""
import json, os, signal, socket, ssl, struct, subprocess, tempfile, time

import ldap
import pytest
from ldap.controls import LDAPControl, SimplePagedResultsControl

BASE = "DC=corp,DC=example,DC=test"
HERE = os.path.dirname(os.path.abspath(__file__))
USERS = os.path.join(HERE, "..", "support", "mock-directory", "users.yaml")
SVC, SVC_PASSWORD, OLD = "svc-writeback@corp.example.test", "Svc-Marble-Step-7", "Old-Marble-Step-7"
HINTS = "1.2.840.113556.1.4.2239"


class Mock:
    def __init__(self, build, folder, *options, users=USERS):
        self.folder, self.control_path = folder, os.path.join(folder, "control")
        binary = os.path.join(build, "tests/support/mock-directory/mock-directory")
        self.process = subprocess.Popen([binary, "--users", users, "--tls-dir", folder, "--control", self.control_path, "--plain-listen", "127.0.0.1:0", *options],
                                        stdout=subprocess.PIPE, stderr=open(os.path.join(folder, "log"), "w"), text=True)
        lines = {}
        for line in self.process.stdout:
            if line.strip() == "ready":
                break
            word, value = line.split(maxsplit=1)
            lines[value.split(":")[0] if word == "listening" else word] = value.strip()
        self.ldaps, self.ldap, self.ca = lines["ldaps"], lines["ldap"], lines["ca"]
        self.port = int(self.ldaps.rsplit(":", 1)[1])

    def control(self, command):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.control_path)
            s.sendall(command.encode() + b"\n")
            return s.makefile(encoding="utf-8").readline().strip()

    def ok(self, command):
        answer = self.control(command)
        assert answer == "ok" or answer.startswith("ok "), answer
        return answer[3:]

    def user(self, name):
        return json.loads(self.ok(f"user {name}"))

    def connect(self, url=None):
        connection = ldap.initialize(url or self.ldaps)
        connection.set_option(ldap.OPT_X_TLS_CACERTFILE, self.ca)
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.timeout = 5
        return connection

    def bind(self, name=SVC, password=SVC_PASSWORD, url=None):
        connection = self.connect(url)
        connection.simple_bind_s(name, password)
        return connection

    def raw(self):
        context = ssl.create_default_context(cafile=self.ca)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 5), server_hostname="localhost")

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(10)
        self.process.stdout.close()
        assert status == 0, open(os.path.join(self.folder, "log")).read()


def start(build, *options, **more):
    folder = tempfile.mkdtemp(prefix="mock-directory-test.")
    return Mock(build, folder, *options, **more)


@pytest.fixture
def mock(build):
    """A fresh forest for each test: the start takes some milliseconds."""
    server = start(build)
    yield server
    server.close()


@pytest.fixture
def svc(mock):
    connection = mock.bind()
    yield connection
    connection.unbind_s()


def pwd(password):
    return f'"{password}"'.encode("utf-16-le", "surrogatepass")


def dn(name, ou="OU=People"):
    return f"CN={name},{ou},{BASE}"


def reset(connection, where, password, *more, controls=None):
    return connection.modify_ext_s(where, [(ldap.MOD_REPLACE, "unicodePwd", pwd(password)), *more], serverctrls=controls)


def change(connection, where, old, new):
    return connection.modify_s(where, [(ldap.MOD_DELETE, "unicodePwd", pwd(old)), (ldap.MOD_ADD, "unicodePwd", pwd(new))])


def hints(flags=1, long_form=False, critical=True, oid=HINTS):
    return [LDAPControl(oid, critical, encodedControlValue=bytes([0x30, 0x84, 0, 0, 0, 3, 2, 1, flags]) if long_form else bytes([0x30, 3, 2, 1, flags]))]


def refused(code, text, call, *args, **more):
    """The call fails with this result code and a diagnostic message that begins so."""
    with pytest.raises(ldap.LDAPError) as caught:
        call(*args, **more)
    facts = caught.value.args[0]
    assert facts.get("result") == code, facts
    # python-ldap puts the URL in the text's place.
    assert facts.get("info", "").startswith("Referral:\nldap://" if code == 10 else text), facts
    return facts


def bind_data(mock, name, password=OLD):
    """The sub-code of a refused bind, or None where it succeeds."""
    connection = mock.connect()
    try:
        connection.simple_bind_s(name, password)
        return None
    except ldap.INVALID_CREDENTIALS as e:
        info = e.args[0]["info"]
        assert info.startswith("80090308: LdapErr: DSID-0C09042A, comment: AcceptSecurityContext error, data ") and info.endswith(", v4563"), info
        return info.split("data ")[1].split(",")[0]
    finally:
        connection.unbind_s()


def one(connection, where, *attributes):
    return connection.search_s(where, ldap.SCOPE_BASE, "(objectClass=*)", list(attributes) or None)[0][1]


def names(connection, filter_text, base=BASE, scope=ldap.SCOPE_SUBTREE):
    return sorted(e[1]["sAMAccountName"][0].decode() for e in connection.search_s(base, scope, filter_text, ["sAMAccountName"]) if e[0] and e[1])


def metadata(blob):
    """replPropertyMetaData: attribute id -> version, seconds since 1601, originator, originating USN."""
    version, _, count, _ = struct.unpack_from("<IIII", blob)
    assert version == 1 and len(blob) == 16 + 48 * count
    rows = [struct.unpack_from("<IIQ16sQQ", blob, 16 + 48 * i) for i in range(count)]
    assert [r[0] for r in rows] == sorted(r[0] for r in rows)
    return {r[0]: r[1:5] for r in rows}


# rootDSE and what stands before a bind ---------------------------------------------------------------------------------------------------------

def test_root_dse_is_read_by_anybody(mock):
    found = one(mock.connect(), "")
    ntds = f"CN=NTDS Settings,CN=DC1,CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,{BASE}"
    assert found["defaultNamingContext"] == [BASE.encode()] and found["dsServiceName"] == [ntds.encode()]
    assert found["dnsHostName"] == [b"dc1.corp.example.test"] and found["serverName"][0].decode() == ntds.split(",", 1)[1]
    assert {b"1.2.840.113556.1.4.2239", b"1.2.840.113556.1.4.2066", b"1.2.840.113556.1.4.1413"} <= set(found["supportedControl"])
    assert b"1.2.840.113556.1.4.800" in found["supportedCapabilities"] and found["isSynchronized"] == [b"TRUE"]
    assert int(found["highestCommittedUSN"][0]) > 0 and found["supportedLDAPVersion"] == [b"3", b"2"] and b"GSSAPI" in found["supportedSASLMechanisms"]
    assert abs(time.time() - time.mktime(time.strptime(found["currentTime"][0].decode(), "%Y%m%d%H%M%S.0Z")) + time.timezone) < 5
    assert list(one(mock.connect(), "", "dnsHostName")) == ["dnsHostName"]


def test_everything_else_needs_a_bind(mock):
    text = "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a successful bind must be completed on the connection., data 0"
    refused(1, text, mock.connect().search_s, BASE, ldap.SCOPE_BASE)
    refused(1, text, mock.connect().search_s, "", ldap.SCOPE_SUBTREE)
    refused(1, text, reset, mock.connect(), dn("alice"), "New-Granite-Lake-9")


def test_texts_end_in_nul(mock):
    """python-ldap stops at the NUL, so this one looks at the octets: a bind with a wrong password, sent one octet at a time."""
    name, password = SVC.encode(), b"wrong"
    content = b"\x02\x01\x03\x04" + bytes([len(name)]) + name + b"\x80" + bytes([len(password)]) + password
    operation = b"\x60" + bytes([len(content)]) + content
    message = b"\x02\x01\x01" + operation
    with mock.raw() as s:
        for octet in b"\x30" + bytes([len(message)]) + message:
            s.sendall(bytes([octet]))
        answer = s.recv(4096)
    assert b"data 52e, v4563\x00" in answer and answer[-1] == 0
    with mock.raw() as s:  # two in one piece
        s.sendall((b"\x30" + bytes([len(message)]) + message) * 2)
        got = b""
        while got.count(b"52e, v4563\x00") < 2:
            piece = s.recv(4096)
            assert piece
            got += piece


# Binds ------------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", [dn("alice"), "alice@corp.example.test", "ALICE@CORP.EXAMPLE.TEST", r"CORP\alice", "cn=Alice , ou=people,dc=corp,dc=EXAMPLE,dc=test", "bench007@corp.example.test"])
def test_names_to_bind_by(mock, name):
    assert bind_data(mock, name) is None
    assert bind_data(mock, name, "wrong") == "52e"


def test_bind_sub_codes(mock):
    expected = {"nobody@corp.example.test": "52e", r"OTHER\alice": "52e", "twin@corp.example.test": "52e", dn("disabled1"): "533", "locked1@corp.example.test": "775",
                "must1@corp.example.test": "773", "stale1@corp.example.test": "532", "expired1@corp.example.test": "701", "hours1@corp.example.test": "530", "workstation1@corp.example.test": "531",
                "never1@corp.example.test": None, dn("smart1"): "52e", dn("twin1"): None}
    assert {name: bind_data(mock, name) for name in expected} == expected
    # All but 52e and 775 need the right password.
    assert {bind_data(mock, n, "wrong") for n in (dn("disabled1"), "must1@corp.example.test", "stale1@corp.example.test")} == {"52e"}


def test_empty_password_is_anonymous_not_the_user(mock):
    connection = mock.connect()
    connection.simple_bind_s(dn("alice"), "")
    refused(1, "000004DC", connection.search_s, BASE, ldap.SCOPE_BASE)
    assert connection.whoami_s() == ""


def test_failed_bind_ends_the_earlier_one(mock, svc):
    refused(49, "80090308", svc.simple_bind_s, SVC, "wrong")
    refused(1, "000004DC", svc.search_s, BASE, ldap.SCOPE_BASE)


def test_lockout(mock):
    for count in range(1, 6):
        assert bind_data(mock, dn("bob"), "wrong") == "52e"
        assert mock.user("bob")["badPwdCount"] == count
    assert bind_data(mock, dn("bob")) == "775"
    assert mock.user("bob")["locked"] and mock.user("bob")["lockoutTime"] > 0
    mock.ok("clock +31min")
    assert not mock.user("bob")["locked"] and mock.user("bob")["lockoutTime"] > 0
    assert bind_data(mock, dn("bob")) is None
    assert mock.user("bob")["lockoutTime"] == 0 and mock.user("bob")["badPwdCount"] == 0


def test_lockout_window(mock):
    for _ in range(4):
        bind_data(mock, dn("bob"), "wrong")
    mock.ok("clock +31min")
    assert bind_data(mock, dn("bob"), "wrong") == "52e" and mock.user("bob")["badPwdCount"] == 1


def test_who_am_i(svc):
    assert svc.whoami_s() == r"u:CORP\svc-writeback"


def test_sasl_is_not_offered_in_deed(mock):
    with mock.raw() as s:
        s.sendall(bytes.fromhex("301a 020101 6015 020103 0400 a30e 0406") + b"GSSAPI" + bytes.fromhex("0404 74657374"))
        answer = s.recv(4096)
    assert answer[5] == 0x61 and bytes.fromhex("0a0107") in answer and b"00002027: LdapErr" in answer


# Searches ---------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, expected", [
    ("(sAMAccountName=ALICE)", ["alice"]),
    ("(userPrincipalName=Alice@corp.example.test)", ["alice"]),
    ("(userPrincipalName=twin@corp.example.test)", ["twin1", "twin2"]),
    ("(displayName=ZOË MÜLLER)", ["zoe"]),
    ("(&(objectCategory=person)(objectClass=user)(sAMAccountName=alice))", ["alice"]),
    ("(&(objectCategory=computer)(cn=PC1))", ["PC1$"]),
    (f"(&(objectCategory=CN=Person,CN=Schema,CN=Configuration,{BASE})(cn=alice))", ["alice"]),
    ("(&(objectCategory=person)(sAMAccountName=gmsa1$))", []),
    ("(|(sAMAccountName=alice)(sAMAccountName=bob)(sAMAccountName=nobody))", ["alice", "bob"]),
    ("(&(sAMAccountName=al*)(!(sAMAccountName=bob)))", ["alice"]),
    ("(sAMAccountName=od*-b*nk)", ["odd-blank"]),
    ("(sAMAccountName=*rank)", ["frank"]),
    ("(&(mS-DS-ConsistencyGuid=*)(objectClass=user))", ["alice", "twin1", "twin2"]),
    (r"(mS-DS-ConsistencyGuid=\5e\0c\1f\5a\0b\3d\6e\4f\9a\51\7e\0f\4c\1b\2a\01)", ["alice"]),
    ("(&(userAccountControl:1.2.840.113556.1.4.803:=2)(sAMAccountName=disabled1))", ["disabled1"]),
    ("(&(userAccountControl:1.2.840.113556.1.4.803:=2)(sAMAccountName=alice))", []),
    ("(userAccountControl:1.2.840.113556.1.4.803:=262144)", ["smart1"]),
    ("(adminCount=1)", None),
    ("(&(lockoutTime>=1)(objectClass=user))", ["locked1"]),
    ("(&(badPwdCount<=0)(sAMAccountName=alice))", ["alice"]),
    (f"(&(objectClass=user)(memberOf=CN=Nested-Group,OU=Groups,{BASE}))", ["carol"]),
    (f"(&(sAMAccountName=carol)(memberOf:1.2.840.113556.1.4.1941:=CN=SSPR-Test-Group,OU=Groups,{BASE}))", ["carol"]),
    (f"(&(sAMAccountName=carol)(memberOf=CN=SSPR-Test-Group,OU=Groups,{BASE}))", []),
    (f"(&(sAMAccountName=dave)(memberOf:1.2.840.113556.1.4.1941:=CN=SSPR-Test-Group,OU=Groups,{BASE}))", []),
    (f"(&(sAMAccountName=alice)(memberOf:1.2.840.113556.1.4.1941:=CN=Domain Users,CN=Users,{BASE}))", []),
    ("(unicodePwd=*)", []),
    ("(msDS-User-Account-Control-Computed=16)", []),
    ("(nosuchattribute=1)", []),
    ("(!(nosuchattribute=1))", []),
    (r"(cn=Paren \28x\29 \2a y)", ["odd-filter"]),
])
def test_filters(svc, text, expected):
    found = names(svc, text)
    if expected is None:
        assert "adm-amy" in found and "krbtgt" in found and "alice" not in found
    else:
        assert found == expected


def test_octets_and_names_of_objects(svc):
    alice = one(svc, dn("alice"), "objectGUID", "objectSid")
    guid, sid = alice["objectGUID"][0], alice["objectSid"][0]
    octets = "".join(f"\\{b:02x}" for b in guid)
    assert names(svc, f"(objectGUID={octets})") == ["alice"]
    assert names(svc, "(objectSid=" + "".join(f"\\{b:02x}" for b in sid) + ")") == ["alice"]
    dashed = "%08x-%04x-%04x-%s-%s" % (*struct.unpack("<IHH", guid[:8]), guid[8:10].hex(), guid[10:].hex())
    text_sid = "S-1-5-" + "-".join(str(n) for n in struct.unpack_from("<5I", sid, 8))
    for name in (f"<GUID={guid.hex()}>", f"<GUID={dashed}>", f"<SID={text_sid}>", f"<SID={sid.hex()}>"):
        assert svc.search_s(name, ldap.SCOPE_BASE, attrlist=["cn"]) == [(dn("alice"), {"cn": [b"alice"]})], name
    reset(svc, f"<GUID={guid.hex()}>", "New-Granite-Lake-9")
    refused(32, "0000208D", svc.search_s, f"<GUID={'00' * 16}>", ldap.SCOPE_BASE)
    refused(34, "0000208F", svc.search_s, "<GUID=xyz>", ldap.SCOPE_BASE)


def test_scopes_references_and_limits(svc):
    entries = svc.search_s(BASE, ldap.SCOPE_SUBTREE, "(sAMAccountName=alice)", ["cn"])
    references = [e[1][0] for e in entries if e[0] is None]
    assert len(references) == 3 and any("CN=Configuration," in r for r in references) and any("DC=ForestDnsZones" in r for r in references)
    assert not [e for e in svc.search_s(f"OU=People,{BASE}", ldap.SCOPE_SUBTREE, "(cn=alice)") if e[0] is None]
    assert names(svc, "(cn=frank)", f"OU=People,{BASE}", ldap.SCOPE_ONELEVEL) == []
    assert names(svc, "(cn=frank)", f"OU=Berlin,OU=People,{BASE}", ldap.SCOPE_ONELEVEL) == ["frank"]
    with pytest.raises(ldap.SIZELIMIT_EXCEEDED):
        svc.search_ext_s(f"OU=People,{BASE}", ldap.SCOPE_SUBTREE, "(cn=bench*)", ["cn"], sizelimit=2)
    # A subtree of the domain holds nothing of the configuration's naming context.
    assert not [e for e in svc.search_s(BASE, ldap.SCOPE_SUBTREE, "(objectClass=nTDSDSA)") if e[0]]
    assert len(svc.search_s(f"CN=Sites,CN=Configuration,{BASE}", ldap.SCOPE_SUBTREE, "(invocationId=*)")) == 1


def test_paged_search(svc):
    control, found, pages = SimplePagedResultsControl(True, size=35, cookie=b""), [], 0
    while True:
        kind, entries, _, answered = svc.result3(svc.search_ext(f"OU=People,{BASE}", ldap.SCOPE_SUBTREE, "(cn=bench*)", ["cn"], serverctrls=[control]))
        found += [e[0] for e in entries]
        pages += 1
        control.cookie = answered[0].cookie
        if not control.cookie:
            break
    assert len(found) == len(set(found)) == 240 and pages == 7


def test_missing_names(svc):
    facts = refused(32, "0000208D: NameErr: DSID-0310028B, problem 2001 (NO_OBJECT), data 0, best match of:\n\t'OU=People,", svc.search_s, dn("nobody"), ldap.SCOPE_BASE)
    assert facts["matched"] == f"OU=People,{BASE}"
    refused(32, "0000208D", reset, svc, dn("nobody"), "New-Granite-Lake-9")
    refused(34, "0000208F: NameErr", svc.search_s, "no name at all", ldap.SCOPE_BASE)
    refused(10, "", svc.search_s, "DC=other,DC=test", ldap.SCOPE_BASE)


def test_odd_names(svc):
    for sam, name in {"odd-comma": r"CN=Last\, First", "odd-hash": r"CN=\#hash", "odd-blank": "CN=trailing blank\\ ", "odd-filter": "CN=Paren (x) * y",
                      "odd-plus": r'CN=One \+ Two \= \"three\" \<4\>\; \\5'}.items():
        found = [e[0] for e in svc.search_s(BASE, ldap.SCOPE_SUBTREE, f"(sAMAccountName={sam})") if e[0]]
        assert found == [f"{name},OU=People,{BASE}"]
        reset(svc, found[0], "New-Granite-Lake-9")
    reset(svc, rf"CN=Last\2C First,OU=People,{BASE}", "New-Granite-Lake-8")
    reset(svc, dn("Zoë Müller"), "New-Granite-Lake-9")
    reset(svc, dn("ZOË MÜLLER"), "New-Granite-Lake-8")


def test_constructed_attributes(mock, svc):
    locked = one(svc, dn("locked1"), "msDS-User-Account-Control-Computed", "userAccountControl", "lockoutTime")
    assert locked["msDS-User-Account-Control-Computed"] == [b"16"] and locked["userAccountControl"] == [b"512"] and int(locked["lockoutTime"][0]) > 0
    assert one(svc, dn("stale1"), "msDS-User-Account-Control-Computed")["msDS-User-Account-Control-Computed"] == [str(0x800000).encode()]
    assert one(svc, dn("never1"), "msDS-User-Account-Control-Computed")["msDS-User-Account-Control-Computed"] == [b"0"]
    assert one(svc, dn("never1"), "msDS-UserPasswordExpiryTimeComputed")["msDS-UserPasswordExpiryTimeComputed"] == [str(2 ** 63 - 1).encode()]
    alice = one(svc, dn("alice"), "pwdLastSet", "msDS-UserPasswordExpiryTimeComputed")
    assert int(alice["msDS-UserPasswordExpiryTimeComputed"][0]) - int(alice["pwdLastSet"][0]) == 90 * 86400 * 10 ** 7
    rids = {struct.unpack("<I", s[-4:])[0] for s in one(svc, dn("carol"), "tokenGroups")["tokenGroups"]}
    nested = struct.unpack("<I", one(svc, f"CN=SSPR-Test-Group,OU=Groups,{BASE}", "objectSid")["objectSid"][0][-4:])[0]
    assert {513, 545, nested} <= rids and 512 not in rids
    refused(1, "00002120", svc.search_s, f"OU=People,{BASE}", ldap.SCOPE_ONELEVEL, "(cn=alice)", ["tokenGroups"])
    assert set(one(svc, dn("alice"), "allowedAttributesEffective")["allowedAttributesEffective"]) == {b"lockoutTime", b"pwdLastSet"}
    assert one(svc, dn("outsider", "OU=Outside"), "allowedAttributesEffective") == {} == one(svc, dn("adm-amy"), "allowedAttributesEffective")
    assert one(svc, dn("alice"), "unicodePwd") == {} and "tokenGroups" not in one(svc, dn("alice"))
    assert one(svc, dn("alice"), "memberOf", "primaryGroupID", "1.1") == {"memberOf": [f"CN=SSPR-Test-Group,OU=Groups,{BASE}".encode()], "primaryGroupID": [b"513"]}


def test_policies(mock, svc):
    head = one(svc, BASE)
    day = 86400 * 10 ** 7
    assert {k: int(head[k][0]) for k in ("minPwdLength", "pwdProperties", "pwdHistoryLength", "minPwdAge", "maxPwdAge", "lockoutThreshold", "lockoutDuration", "lockOutObservationWindow")} == {
        "minPwdLength": 10, "pwdProperties": 1, "pwdHistoryLength": 5, "minPwdAge": -day, "maxPwdAge": -90 * day, "lockoutThreshold": 5,
        "lockoutDuration": -1800 * 10 ** 7, "lockOutObservationWindow": -1800 * 10 ** 7}
    assert head["fSMORoleOwner"] == one(mock.connect(), "", "dsServiceName")["dsServiceName"] and len(head["objectSid"][0]) == 24
    strict, bench = (f"CN={n},CN=Password Settings Container,CN=System,{BASE}" for n in ("Strict-PSO", "Bench-PSO"))
    assert one(svc, dn("frank", "OU=Berlin,OU=People"), "msDS-ResultantPSO") == {"msDS-ResultantPSO": [strict.encode()]}
    assert one(svc, dn("alice"), "msDS-ResultantPSO") == {}
    assert one(svc, strict)["msDS-MinimumPasswordLength"] == [b"16"]
    assert one(svc, bench) == {}  # the entry comes, without attributes, to those who may not read it
    assert one(mock.bind("Administrator@corp.example.test", "Adm1n-Marble-Step"), bench)["msDS-PasswordHistoryLength"] == [b"0"]


def test_configuration(mock, svc):
    ntds = one(svc, one(mock.connect(), "", "dsServiceName")["dsServiceName"][0].decode(), "invocationId", "msDS-isRODC", "objectGUID")
    assert len(ntds["invocationId"][0]) == 16 and ntds["msDS-isRODC"] == [b"FALSE"]
    assert b"MaxConnIdleTime=900" in one(svc, f"CN=Default Query Policy,CN=Query-Policies,CN=Directory Service,CN=Windows NT,CN=Services,CN=Configuration,{BASE}")["lDAPAdminLimits"]
    assert one(svc, f"CN=CORP,CN=Partitions,CN=Configuration,{BASE}", "nETBIOSName") == {"nETBIOSName": [b"CORP"]}


# Writes -----------------------------------------------------------------------------------------------------------------------------------------

def test_reset(mock, svc):
    reset(svc, dn("alice"), "New-Granite-Lake-9")
    assert bind_data(mock, dn("alice"), "New-Granite-Lake-9") is None and bind_data(mock, dn("alice")) == "52e"
    assert mock.ok("verify alice New-Granite-Lake-9") == "true" and mock.ok(f"verify alice {OLD}") == "false"
    assert mock.user("alice")["writes"] == 1


@pytest.mark.parametrize("password", ["Grünkohl-\U0001f600-Zug9", "ΑΒΓ-αβγ-123456", 'in"side"-Quote-9', "x" * 200 + "-Aa1"])
def test_reset_to_all_kinds(mock, svc, password):
    reset(svc, dn("alice"), password)
    assert bind_data(mock, dn("alice"), password) is None


@pytest.mark.parametrize("user, password", [
    ("alice", "Sh0rt-pwd"), ("alice", ""), ("alice", "alllowercase-only"), ("alice", "12345678901"), ("alice", "xxALICExx-99-A"), ("alice", "xx-arCHEr-99-A"),
    ("carol", "xxCarolxx-99-A"), ("carol", "xxCooperxx-99-A"), ("zoe", "xxmÜLLer-99-A"), ("alice", "Contoso-Marble-Step-9"), ("alice", "Mein-KENNWORT-123"), ("alice", "x" * 300 + "-Aa1"),
    ("frank", "New-Granite-9x"),
])
def test_reset_refused_by_policy(mock, svc, user, password):
    where = {"frank": dn("frank", "OU=Berlin,OU=People"), "zoe": dn("Zoë Müller")}.get(user, dn(user))
    before = mock.user(user)
    facts = refused(53, "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0\n", reset, svc, where, password, (ldap.MOD_REPLACE, "lockoutTime", b"0"))
    assert facts["info"] == "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0\n"
    assert mock.user(user) == before  # nothing at all was written


@pytest.mark.parametrize("user, password", [("alice", "Abcdefgh-1"), ("alice", "xx-Alic-archE-99"), ("frank", "New-Granite-9xyz"), ("bob", "xxAlicexx-99-A"), ("alice", "中文密码一二三四五-A1")])
def test_accepted_twins(svc, user, password):
    reset(svc, {"frank": dn("frank", "OU=Berlin,OU=People")}.get(user, dn(user)), password)


def test_short_names_do_not_count(mock, svc):
    """sAMAccountName and tokens of fewer than three characters are skipped: "bob" has three."""
    refused(53, "0000052D", reset, svc, dn("bob"), "xx-bob-Marble-99")
    reset(svc, dn("bob"), "xx-bo-Marble-99")


@pytest.mark.parametrize("long_form, oid", [(False, HINTS), (True, HINTS), (False, "1.2.840.113556.1.4.2066")])
def test_policy_hints(mock, svc, long_form, oid):
    use = hints(long_form=long_form, oid=oid)
    refused(53, "0000052D: SvcErr", reset, svc, dn("alice"), OLD, controls=use)             # history
    refused(53, "0000052D: SvcErr", reset, svc, dn("erin"), "New-Granite-Lake-9", controls=use)  # too recent
    reset(svc, dn("erin"), "New-Granite-Lake-9")
    reset(svc, dn("erin"), OLD)
    reset(svc, dn("alice"), "New-Granite-Lake-9", (ldap.MOD_REPLACE, "lockoutTime", b"0"), controls=use)
    refused(53, "0000052D: SvcErr", reset, svc, dn("alice"), "New-Granite-Lake-10", controls=use)
    mock.ok("clock +2d")
    refused(53, "0000052D: SvcErr", reset, svc, dn("alice"), OLD, controls=use)
    for number in range(5):
        reset(svc, dn("alice"), f"New-Granite-Lake-2{number}")
    mock.ok("set alice pwd_age=2d")
    reset(svc, dn("alice"), OLD, controls=use)  # the sixth back
    for number in range(3):
        reset(svc, dn("bench000"), f"New-Granite-Lake-3{number % 2}", controls=use)  # its PSO has neither rule


def test_policy_hints_that_ask_nothing(svc):
    reset(svc, dn("alice"), OLD, controls=hints(0))
    refused(12, "00000057", reset, svc, dn("alice"), OLD, controls=[LDAPControl(HINTS, True, None)])
    refused(12, "00000057", reset, svc, dn("alice"), OLD, controls=[LDAPControl("1.2.3.4.5", True, encodedControlValue=b"x")])
    reset(svc, dn("alice"), OLD, controls=[LDAPControl("1.2.3.4.5", False, encodedControlValue=b"x")])


def test_without_policy_hints(build):
    mock = start(build, "--no-policy-hints")
    svc = mock.bind()
    assert not {HINTS.encode(), b"1.2.840.113556.1.4.2066"} & set(one(svc, "")["supportedControl"])
    refused(12, "00000057", reset, svc, dn("alice"), "New-Granite-Lake-9", controls=hints())
    reset(svc, dn("alice"), OLD, controls=hints(critical=False))
    mock.close()


def test_rights(mock, svc):
    text = "00000005: SecErr: DSID-031A1190, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0\n"
    refused(50, text, reset, svc, dn("outsider", "OU=Outside"), "New-Granite-Lake-9")
    refused(50, text, reset, svc, dn("adm-amy"), "New-Granite-Lake-9")
    refused(50, text, reset, svc, dn("krbtgt", "CN=Users"), "New-Granite-Lake-9")
    refused(50, text, reset, svc, dn("svc-writeback", "OU=Service"), "New-Granite-Lake-9")
    refused(50, text, reset, mock.bind(dn("bob"), OLD), dn("bob"), "New-Granite-Lake-9")
    for attribute, value in (("lockoutTime", b"0"), ("pwdLastSet", b"-1")):
        refused(50, "00002098: SecErr: DSID-", svc.modify_s, dn("outsider", "OU=Outside"), [(ldap.MOD_REPLACE, attribute, value)])
    for attribute, value in (("userAccountControl", b"512"), ("description", b"x"), ("member", b"x")):
        refused(50, "00002098: SecErr: DSID-", svc.modify_s, dn("alice"), [(ldap.MOD_REPLACE, attribute, value)])
    refused(16, "00000057: LdapErr", svc.modify_s, dn("alice"), [(ldap.MOD_REPLACE, "nosuchattribute", b"x")])
    refused(50, "00000005", svc.delete_s, dn("alice"))
    refused(50, "00000005", svc.add_s, dn("fresh"), [("objectClass", [b"user"])])
    reset(mock.bind("Administrator@corp.example.test", "Adm1n-Marble-Step"), dn("adm-amy"), "New-Granite-Lake-9")


def test_protection_comes_with_sdprop(mock, svc):
    mock.ok('set alice member_of="Domain Admins"')
    assert "adminCount" not in one(svc, dn("alice"))
    reset(svc, dn("alice"), "New-Granite-Lake-9")  # up to an hour: a member, and not protected yet
    mock.ok("sdprop")
    assert one(svc, dn("alice"), "adminCount") == {"adminCount": [b"1"]}
    refused(50, "00000005", reset, svc, dn("alice"), "New-Granite-Lake-8")
    mock.ok("set alice member_of=SSPR-Test-Group")
    refused(50, "00000005", reset, svc, dn("alice"), "New-Granite-Lake-8")  # and it stays


def test_encoding_and_encryption(mock, svc):
    for value, text in ((b"New-Granite-Lake-9", "0000001F"), ("New-Granite-Lake-9".encode("utf-16-le"), "0000001F"), (b'"', "00000057"), (pwd("New-Granite-Lake-9") + b"\0", "00000057"), (b"", "0000001F")):
        refused(53, text, svc.modify_s, dn("alice"), [(ldap.MOD_REPLACE, "unicodePwd", value)])
    plain = mock.bind(url=mock.ldap)
    refused(53, "0000001F: SvcErr: DSID-031A126C, problem 5003 (WILL_NOT_PERFORM), data 0\n", reset, plain, dn("alice"), "New-Granite-Lake-9")
    plain.modify_s(dn("locked1"), [(ldap.MOD_REPLACE, "lockoutTime", b"0")])


def test_shapes_of_unicode_pwd(mock, svc):
    new, old = pwd("New-Granite-Lake-9"), pwd(OLD)
    for shape in ([(ldap.MOD_ADD, "unicodePwd", new)], [(ldap.MOD_DELETE, "unicodePwd", old)], [(ldap.MOD_REPLACE, "unicodePwd", [new, old])], [(ldap.MOD_DELETE, "unicodePwd", None)],
                  [(ldap.MOD_ADD, "unicodePwd", new), (ldap.MOD_DELETE, "unicodePwd", old)], [(ldap.MOD_REPLACE, "unicodePwd", new), (ldap.MOD_REPLACE, "unicodePwd", new)]):
        refused(53, "00000057: SvcErr", svc.modify_s, dn("alice"), shape)
    assert mock.user("alice")["writes"] == 0


def test_change(mock, svc):
    atr = ": AtrErr: DSID-03191083, #1:\n\t0: {0}: DSID-03191083, problem 1005 (CONSTRAINT_ATT_TYPE), data 0, Att 9005a (unicodePwd)\n"
    wrong, policy = ("00000056" + atr.format("00000056")), ("0000052D" + atr.format("0000052D"))
    refused(19, wrong, change, svc, dn("bob"), "wrong", "New-Granite-Lake-9")
    assert mock.user("bob")["badPwdCount"] == 1
    bob = mock.bind(dn("bob"), OLD)
    for new in ("short-A1", "lower-lower-lower", OLD, "xx-bob-Marble-99"):
        refused(19, policy, change, bob, dn("bob"), OLD, new)
    change(bob, dn("bob"), OLD, "New-Granite-Lake-9")
    refused(19, policy, change, bob, dn("bob"), "New-Granite-Lake-9", "New-Granite-Lake-10")  # minimum age
    change(svc, dn("carol"), OLD, "New-Granite-Lake-9")  # whoever knows the old one
    change(svc, dn("outsider", "OU=Outside"), OLD, "New-Granite-Lake-9")
    refused(19, "00000775", change, svc, dn("locked1"), OLD, "New-Granite-Lake-9")


def test_unlock(mock, svc):
    reset(svc, dn("locked1"), "New-Granite-Lake-9")
    assert mock.user("locked1")["locked"]  # a reset alone does not
    assert bind_data(mock, dn("locked1"), "New-Granite-Lake-9") == "775"
    refused(53, "00002077: SvcErr", svc.modify_s, dn("locked1"), [(ldap.MOD_DELETE, "lockoutTime", None)])
    refused(53, "00000057: SvcErr", svc.modify_s, dn("locked1"), [(ldap.MOD_REPLACE, "lockoutTime", b"1")])
    svc.modify_s(dn("locked1"), [(ldap.MOD_REPLACE, "lockoutTime", b"0")])
    assert one(svc, dn("locked1"), "lockoutTime", "badPwdCount") == {"lockoutTime": [b"0"], "badPwdCount": [b"0"]}
    assert bind_data(mock, dn("locked1"), "New-Granite-Lake-9") is None


def test_password_last_set(mock, svc):
    reset(svc, dn("alice"), "New-Granite-Lake-9", (ldap.MOD_REPLACE, "pwdLastSet", b"0"))
    assert one(svc, dn("alice"), "pwdLastSet")["pwdLastSet"] == [b"0"]
    assert one(svc, dn("alice"), "msDS-User-Account-Control-Computed")["msDS-User-Account-Control-Computed"] == [str(0x800000).encode()]
    assert bind_data(mock, dn("alice"), "New-Granite-Lake-9") == "773" and bind_data(mock, dn("alice"), "wrong") == "52e"
    svc.modify_s(dn("alice"), [(ldap.MOD_REPLACE, "pwdLastSet", b"-1")])
    assert bind_data(mock, dn("alice"), "New-Granite-Lake-9") is None
    refused(53, "00000057: SvcErr", svc.modify_s, dn("alice"), [(ldap.MOD_REPLACE, "pwdLastSet", b"133000000000000000")])
    svc.modify_s(dn("never1"), [(ldap.MOD_REPLACE, "pwdLastSet", b"0")])
    assert bind_data(mock, dn("never1")) is None  # no effect where the password never expires


def test_replication_metadata(mock, svc):
    def look(name):
        return metadata(one(svc, dn(name), "replPropertyMetaData")["replPropertyMetaData"][0])
    ntds = one(mock.connect(), "", "dsServiceName")["dsServiceName"][0].decode()
    invocation = one(svc, ntds, "invocationId")["invocationId"][0]
    committed = int(one(svc, "", "highestCommittedUSN")["highestCommittedUSN"][0])
    before = look("alice")
    assert 0x00090296 not in before and before[0x0009005A][0] == 2
    reset(svc, dn("alice"), "New-Granite-Lake-9", (ldap.MOD_REPLACE, "lockoutTime", b"0"), (ldap.MOD_REPLACE, "pwdLastSet", b"-1"))
    after = look("alice")
    assert after[0x0009005A][0] == 3 and after[0x00090060][0] == 3 and after[0x00090296][0] == 1
    assert after[0x0009005A][2] == invocation and after[0x0009005A][3] == after[0x00090060][3] == committed + 1
    assert abs(after[0x0009005A][1] - 11644473600 - time.time()) < 5
    assert int(one(svc, "", "highestCommittedUSN")["highestCommittedUSN"][0]) == committed + 1
    svc.modify_s(dn("alice"), [(ldap.MOD_REPLACE, "lockoutTime", b"0")])  # 0 over 0
    assert look("alice") == after
    refused(53, "0000052D", reset, svc, dn("alice"), "short")  # leaves no trace
    assert look("alice") == after
    reset(svc, dn("alice"), "New-Granite-Lake-9")  # the same again is a write
    assert look("alice")[0x0009005A][0] == 4 and mock.user("alice")["version"] == 4


def test_an_account_that_is_moved(mock, svc):
    """By its old name it is no more; by objectGUID it is the same, with its memberships and the record of its password (MS-ADTS 3.1.1.5.4)."""
    def look(where):
        return one(svc, where, "objectGUID", "objectSid", "memberOf", "replPropertyMetaData", "uSNChanged", "distinguishedName", "cn", "canonicalName")
    before = look(dn("alice"))
    guid = before["objectGUID"][0]
    assert mock.ok(f'move alice OU=Outside,{BASE} "Alice, moved"') == f"CN=Alice\\, moved,OU=Outside,{BASE}"
    refused(32, "0000208D", look, dn("alice"))
    after = look(f"<GUID={guid.hex()}>")
    assert after == look(f"cn=alice\\2C moved,OU=Outside,{BASE}") and int(after["uSNChanged"][0]) > int(before["uSNChanged"][0])
    assert after["cn"] == [b"Alice, moved"] and {k: after[k] for k in ("objectGUID", "objectSid", "memberOf", "replPropertyMetaData")} == {k: before[k] for k in ("objectGUID", "objectSid", "memberOf", "replPropertyMetaData")}
    assert names(svc, "(sAMAccountName=alice)", f"OU=Outside,{BASE}") == ["alice"] and not names(svc, "(sAMAccountName=alice)", f"OU=People,{BASE}")
    refused(50, "00000005", reset, svc, f"<GUID={guid.hex()}>", "New-Granite-Lake-9")  # what was delegated ends with the OU
    mock.ok(f"move alice OU=Berlin,OU=People,{BASE}")
    reset(svc, f"<GUID={guid.hex()}>", "New-Granite-Lake-9")
    assert mock.user("alice")["dn"] == f"CN=Alice\\, moved,OU=Berlin,OU=People,{BASE}"
    for bad in (f"move bob OU=Nowhere,{BASE}", f"move bob {dn('carol')}", f"move bob OU=People,{BASE} carol", "move bob", f"move nobody OU=People,{BASE}"):
        assert mock.control(bad).startswith("error"), bad
    mock.ok(f"move alice OU=People,{BASE} alice")
    assert look(dn("alice"))["objectGUID"] == [guid]


def test_reset_without_the_unexpire_right(build):
    text = open(USERS, encoding="utf-8").read().replace("  complexity: true", "  complexity: true\n  unexpire_needed: true", 1)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as forest:
        forest.write(text.replace("allow: [unexpire-password]", "allow: []"))
        forest.flush()
        mock = start(build, users=forest.name)
        svc = mock.bind()
        reset(svc, dn("alice"), "New-Granite-Lake-9")
        assert mock.user("alice")["pwdLastSet"] == 0
        reset(svc, dn("alice"), "New-Granite-Lake-8", (ldap.MOD_REPLACE, "pwdLastSet", b"-1"))
        assert mock.user("alice")["pwdLastSet"] > 0
        mock.close()


def test_read_only_controller(build):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as forest:
        forest.write("read_only: true\n" + open(USERS, encoding="utf-8").read())
        forest.flush()
        mock = start(build, users=forest.name)
        svc = mock.bind()
        refused(10, "", reset, svc, dn("alice"), "New-Granite-Lake-9")
        assert one(svc, one(svc, "")["dsServiceName"][0].decode(), "msDS-isRODC") == {"msDS-isRODC": [b"TRUE"]}
        assert b"1.2.840.113556.1.4.1920" in one(svc, "")["supportedCapabilities"]
        mock.close()


# Connections ------------------------------------------------------------------------------------------------------------------------------------

def test_unknown_extended_operation(svc):
    with pytest.raises(ldap.PROTOCOL_ERROR):
        svc.extop_s(ldap.extop.ExtendedRequest("1.2.3.4", None))


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x84\x00\x20\x00\x00", b"\x30\x05\x02\x01\x01\x7f\x00", b"\x30\x03\x02\x01\x01"])
def test_malformed_messages_end_the_connection(mock, octets):
    with mock.raw() as s:
        s.sendall(octets)
        got = b""
        try:
            while piece := s.recv(4096):
                got += piece
        except ssl.SSLError:
            pass  # closed without close_notify
    assert b"1.3.6.1.4.1.1466.20036" in got and got[2:5] == b"\x02\x01\x00"


def test_deep_filters_are_refused(mock):
    text = "(!" * 40 + "(cn=alice)" + ")" * 40
    with pytest.raises(ldap.LDAPError):
        mock.bind().search_s(BASE, ldap.SCOPE_SUBTREE, text)
    assert names(mock.bind(), "(!" * 20 + "(cn=alice)" + ")" * 20) == ["alice"]


def test_pipelining(svc):
    messages = [svc.modify(dn(f"bench{i % 200:03d}"), [(ldap.MOD_REPLACE, "unicodePwd", pwd(f"New-Granite-Lake-{i}"))]) for i in range(500)]
    assert all(svc.result(m)[0] == ldap.RES_MODIFY for m in messages)


def test_idle_connections_vanish(build):
    text = open(USERS, encoding="utf-8").read().replace("  complexity: true", "  complexity: true\n  max_conn_idle: 1s", 1)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as forest:
        forest.write(text)
        forest.flush()
        mock = start(build, users=forest.name)
        with mock.raw() as s:
            try:
                assert s.recv(100) == b""
            except ssl.SSLError:
                pass
        mock.close()


def test_wrong_name(build):
    mock = start(build, "--wrong-name")
    with pytest.raises(ssl.SSLCertVerificationError):
        mock.raw()
    mock.close()


def test_certificates_are_kept(build):
    mock = start(build)
    first = open(mock.ca).read(), open(os.path.join(mock.folder, "dc.pem")).read()
    mock.close()
    mock = Mock(build, mock.folder)
    assert (open(mock.ca).read(), open(os.path.join(mock.folder, "dc.pem")).read()) == first
    mock.raw().close()
    mock.close()


def test_require_signing(build):
    mock = start(build, "--require-signing")
    refused(8, "00002028: LdapErr: DSID-0C090256, comment: The server requires binds to turn on integrity checking", mock.bind, url=mock.ldap)
    mock.bind()
    mock.close()


@pytest.mark.parametrize("old, new", [("  complexity: true", "  complexity: perhaps"), ("netbios: CORP", "netbois: CORP"), ("netbios: CORP", "netbios: CORP\nnetbios: CORP"),
                                      ("member_of: [Nested-Group]", "member_of: [Nowhere]"), ("min_age: 1d", "min_age: 1w"), ("{name: dave,", "{name: alice,")])
def test_forest_file_errors(build, old, new):
    text = open(USERS, encoding="utf-8").read()
    assert old in text
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as forest:
        forest.write(text.replace(old, new, 1))
        forest.flush()
        done = subprocess.run([os.path.join(build, "tests/support/mock-directory/mock-directory"), "--users", forest.name], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2 and "line " in done.stderr, done.stderr


# Faults -----------------------------------------------------------------------------------------------------------------------------------------

def test_fault_results(mock, svc):
    mock.ok('fault add on=modify user=alice count=2 result=51 text="00002024: SvcErr: DSID-03152D0C, problem 5001 (BUSY), data 0"')
    reset(svc, dn("bob"), "New-Granite-Lake-9")
    for _ in range(2):
        refused(51, "00002024: SvcErr", reset, svc, dn("alice"), "New-Granite-Lake-9")
    assert mock.user("alice")["writes"] == 0
    reset(svc, dn("alice"), "New-Granite-Lake-9")
    mock.ok("fault add on=bind user=svc-writeback result=52")
    refused(52, "", mock.bind)
    mock.ok("fault add on=search user=carol forever result=3")
    refused(3, "", svc.search_s, BASE, ldap.SCOPE_SUBTREE, "(cn=carol)")
    assert names(svc, "(cn=bob)") == ["bob"]
    mock.ok("fault clear")
    assert names(svc, "(cn=carol)") == ["carol"]
    mock.ok("fault add on=modify referral=ldap://dc2.corp.example.test/x")
    refused(10, "", reset, svc, dn("alice"), "New-Granite-Lake-9")


def test_fault_delay_overtakes(mock, svc):
    mock.ok("fault add on=modify user=alice delay=200")
    slow = svc.modify(dn("alice"), [(ldap.MOD_REPLACE, "unicodePwd", pwd("New-Granite-Lake-9"))])
    assert names(svc, "(cn=bob)") == ["bob"]
    assert mock.user("alice")["writes"] == 0
    assert svc.result(slow)[0] == ldap.RES_MODIFY and mock.user("alice")["writes"] == 1
    mock.ok("fault add on=modify user=alice delay=100")
    svc.abandon(svc.modify(dn("alice"), [(ldap.MOD_REPLACE, "unicodePwd", pwd("New-Granite-Lake-8"))]))
    mock.ok("fault add on=modify user=bob delay=150")
    svc.modify_s(dn("bob"), [(ldap.MOD_REPLACE, "lockoutTime", b"0")])  # by its answer the abandoned one's time is over
    assert mock.user("alice")["writes"] == 1


@pytest.mark.parametrize("fault, applied, survives", [("cut-before", 0, False), ("cut-after", 1, False), ("garbage", 0, False), ("drop", 0, True), ("swallow", 1, True), ("stall", 0, False)])
def test_fault_silence(mock, svc, fault, applied, survives):
    mock.ok(f"fault add on=modify user=alice {fault}")
    svc.timeout = 0.3
    svc.set_option(ldap.OPT_TIMEOUT, 0.3)
    with pytest.raises(ldap.LDAPError):
        message = svc.modify(dn("alice"), [(ldap.MOD_REPLACE, "unicodePwd", pwd("New-Granite-Lake-9"))])
        svc.result(message, timeout=0.3)
    assert mock.user("alice")["writes"] == applied
    if survives:
        assert names(svc, "(cn=bob)") == ["bob"]
    else:
        with pytest.raises(ldap.LDAPError):
            names(svc, "(cn=bob)")
    mock.bind()


def test_fault_at_connecting(mock):
    mock.ok("fault add on=connect cut-before")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        mock.raw()
    mock.ok("fault add on=connect stall")
    with pytest.raises(TimeoutError):
        s = socket.create_connection(("127.0.0.1", mock.port), 0.3)
        ssl.create_default_context(cafile=mock.ca).wrap_socket(s, server_hostname="localhost")
    mock.raw().close()


def test_control_commands(mock, svc):
    assert mock.control("fault add on=modify").startswith("error") and mock.control("fault add on=nothing drop").startswith("error")
    assert mock.control("fault add on=modify drop result=1").startswith("error") and mock.control("nonsense").startswith("error") and mock.control("user nobody").startswith("error")
    assert mock.control('verify alice "open').startswith("error")
    mock.ok('set alice password="with blank-Aa1" locked=true disabled=true pwd_age=3d')
    state = mock.user("alice")
    assert state["locked"] and state["uac"] & 2 and mock.ok('verify alice "with blank-Aa1"') == "true" and "password" not in state
    mock.ok("set alice locked=false disabled=false")
    assert bind_data(mock, dn("alice"), "with blank-Aa1") is None
    before = json.loads(mock.ok("stats"))
    names(svc, "(cn=alice)")
    reset(svc, dn("alice"), "New-Granite-Lake-9")
    after = json.loads(mock.ok("stats"))
    assert after["search"] == before["search"] + 1 and after["modify"] == before["modify"] + 1 and after["passwordWrites"] == before["passwordWrites"] + 1
    assert mock.ok("clock -3h") == "-10800" and mock.ok("clock 0") == "0"


def test_log_holds_no_password(mock, svc):
    mock.ok("log on")
    reset(svc, dn("alice"), "New-Granite-Lake-9")
    mock.bind(dn("alice"), "New-Granite-Lake-9")
    mock.ok("log off")
    text = open(os.path.join(mock.folder, "log")).read()
    assert f"modify id=" in text and f"target={dn('alice')} attributes=unicodePwd result=0" in text and "bind" in text
    assert "Granite" not in text and "G\0r\0a" not in text
