"""servers: OpenLDAP (overlay ppolicy) and 389 Directory Server, each a private, disposable one on loopback with LDAPS, a CA of its own and the people of people.yaml.

    directory = OpenLdap(folder)        # or Directory389(folder); started, populated
    directory.lock("alice"); directory.opens("alice", "…"); directory.close()
"""
import contextlib, os, signal, subprocess, sys

import ldap, ldap.controls, ldap.dn, ldap.modlist
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from lab import Late, certificate, free_port, wait_for  # noqa: E402

BENCH_PASSWORD = "Old-Marble-Step-7"
PPOLICY, RELAX = "1.3.6.1.4.1.42.2.27.8.5.1", "1.3.6.1.4.1.4203.666.5.12"


def people():
    with open(os.path.join(HERE, "people.yaml"), encoding="utf-8") as f:
        facts = yaml.safe_load(f)
    known = {person["uid"] for person in facts["people"]}
    facts["people"] += [{"uid": f"bench{n:03}", "cn": f"Bench {n}", "groups": ["sspr"]} for n in range(facts["bench"]) if f"bench{n:03}" not in known]
    for person in facts["people"]:
        person.setdefault("password", BENCH_PASSWORD)
    return facts


class LdapDirectory:
    """What both have in common. `admin_dn` bypasses every rule: it sets the stage, and is never the agent's."""
    policy_hints, version, flavor = True, "", "ldap"
    admin_password = "Adm-Marble-Step-7"

    def __init__(self, folder, *names):
        """names: host names that its certificate is for, besides localhost."""
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)
        self.folder, self.facts = folder, people()
        self.base = self.facts["suffix"]
        self.people, self.outside, self.groups, self.policies = (f"ou={ou},{self.base}" for ou in ("people", "outside", "groups", "policies"))
        self.berlin, self.selected_group, self.nested_group = f"ou=berlin,{self.people}", self.group("sspr"), self.group("nested")
        self.bind_dn, self.bind_password = f"cn={self.facts['service']['name']},ou=service,{self.base}", self.facts["service"]["password"]
        self.host, self.port = "127.0.0.1", free_port()
        self.ca, self.certificate, self.key = certificate(folder, "directory", ",".join(["DNS:localhost,IP:127.0.0.1", *(f"DNS:{name}" for name in names)]))
        self.process = None
        self.prepare()
        self.start()
        try:
            self.populate()
        except BaseException:
            self.close()
            raise

    # The agent's side of it

    def settings(self, password_file):
        """Of the agent's configuration, the part that says which directory."""
        return {"flavor": "ldap", "servers": [f"{self.host}:{self.port}"], "base_dn": self.base, "ca_file": self.ca, "domains": [], "policy_hints": "require",
                "bind": {"dn": self.bind_dn, "password_file": password_file}, **self.more_settings}

    # Its process

    def start(self):
        self.log = open(os.path.join(self.folder, "server.log"), "ab")
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            wait_for(f"{self.name} to answer", self.answers, 30)
        except BaseException:
            self.close()
            raise

    def answers(self):
        if self.process.poll() is not None:
            self.log.flush()
            with open(self.log.name, encoding="utf-8", errors="replace") as f:
                raise Late(f"{self.name} ended with {self.process.returncode}: {f.read()[-2000:]}")
        with contextlib.suppress(ldap.SERVER_DOWN, ldap.CONNECT_ERROR, ldap.TIMEOUT):
            self.connect(self.admin_dn, self.admin_password).unbind_s()
            return True

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()

    # Asking it

    def connect(self, who, password):
        connection = ldap.initialize(f"ldaps://{self.host}:{self.port}")
        for option, value in ((ldap.OPT_X_TLS_CACERTFILE, self.ca), (ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND), (ldap.OPT_X_TLS_NEWCTX, 0),
                              (ldap.OPT_REFERRALS, 0), (ldap.OPT_TIMEOUT, 10), (ldap.OPT_NETWORK_TIMEOUT, 5)):
            connection.set_option(option, value)
        connection.simple_bind_s(who, password)
        return connection

    @contextlib.contextmanager
    def admin(self):
        connection = self.connect(self.admin_dn, self.admin_password)
        try:
            yield connection
        finally:
            connection.unbind_s()

    def person(self, uid):
        return next(p for p in self.facts["people"] if p["uid"] == uid)

    def dn(self, uid):
        return self.dn_of(self.person(uid))

    def dn_of(self, person):
        if not person.get("person", True):
            rdn = "cn", person["uid"]
        else:
            rdn = ("cn", person["cn"]) if person.get("by") == "cn" else ("uid", person["uid"])
        return ldap.dn.dn2str([[(*rdn, 1)]]) + f",ou={person.get('ou', 'people')},{self.base}"

    # Who is who, as Directory (lab.py) says it of Active Directory

    def called(self, uid):
        return uid

    def subject(self, uid):
        return {"format": "uid", "id": uid}

    def other_subjects(self, uid):
        return [{"format": "entryUUID", "id": self.uuid(uid)}]

    def other_spellings(self, uid):
        return [{"format": "uid", "id": uid.upper()}]

    def protected_entries(self):
        """For scope.protect: groups of three classes, and one person."""
        return [self.group("admins"), self.group("wheel"), self.dn("gina")]

    def protected(self):
        return {**{uid: self.subject(uid) for uid in ("ivan", "judy", "kevin", "gina")}, "robot": {"format": "entryUUID", "id": self.uuid("robot")}}

    def no_persons(self):
        return [self.subject("robot"), self.subject("sspr")]

    def password(self, uid):
        return self.person(uid)["password"]

    def guid(self, uid):
        return self.uuid(uid)

    def password_record(self, uid):
        """(how many former ones are remembered, the salted hash): the first grows by one with each that is written, up to the policy's history."""
        values = self.read(uid, "userPassword", "pwdHistory", "passwordHistory")
        return len(values.get("pwdHistory", values.get("passwordHistory", []))), values["userPassword"]

    def bad_tries(self, uid):
        values = self.read(uid, "pwdFailureTime", "passwordRetryCount")
        return int(values["passwordRetryCount"][0]) if "passwordRetryCount" in values else len(values.get("pwdFailureTime", []))

    def says_locked(self, uid):
        return not self.opens(uid, self.password(uid)) and self.locked(uid)

    def says_must_change(self, uid, password):
        """389 writes it behind its answer."""
        wait_for("pwdReset", lambda: self.must_change(uid), 5)
        return self.opens(uid, password)

    def state(self, uid):
        return self.read(uid, "nsAccountLock", "pwdPolicySubentry", "memberOf")

    def group(self, name):
        return f"cn={name},{self.groups}"

    def opens(self, uid, password):
        try:
            self.connect(self.dn(uid), password).unbind_s()
            return True
        except (ldap.INVALID_CREDENTIALS, ldap.CONSTRAINT_VIOLATION, ldap.UNWILLING_TO_PERFORM):
            return False

    def lock(self, uid):
        for _ in range(self.facts["policies"]["default"]["max_failure"]):
            self.opens(uid, "not the password 1!")

    def read(self, uid, *attributes):
        with self.admin() as connection:
            return connection.search_s(self.dn(uid), ldap.SCOPE_BASE, "(objectClass=*)", list(attributes))[0][1]

    def modify(self, dn, *changes):
        with self.admin() as connection:
            connection.modify_s(dn, [(kind, name, None if value is None else [v.encode() for v in ([value] if isinstance(value, str) else value)]) for kind, name, value in changes])

    # Filling it

    def add(self, connection, dn, **attributes):
        values = {name: [v.encode() for v in (value if isinstance(value, list) else [value])] for name, value in attributes.items()}
        connection.add_s(dn, ldap.modlist.addModlist(values))

    def add_person(self, connection, person):
        if person.get("person", True):
            self.add(connection, self.dn_of(person), objectClass="inetOrgPerson", uid=person["uid"], cn=person["cn"], sn=person["cn"].split()[-1], userPassword=person["password"])
        else:
            self.add(connection, self.dn(person["uid"]), objectClass=["organizationalRole", "simpleSecurityObject"], cn=person["uid"], userPassword=person["password"])

    def add_group(self, connection, group):
        people = [p for p in self.facts["people"] if group["name"] in p.get("groups", [])]
        if group["class"] == "posixGroup":
            self.add(connection, self.group(group["name"]), objectClass="posixGroup", cn=group["name"], gidNumber="5000", memberUid=[p["uid"] for p in people])
            return
        members = [self.dn_of(p) for p in people] + [self.group(name) for name in group["members"]]
        self.add(connection, self.group(group["name"]), objectClass=group["class"], cn=group["name"], **{"member" if group["class"] == "groupOfNames" else "uniqueMember": members})

    def populate(self):
        with self.admin() as connection:
            self.add_suffix(connection)
            for ou in ("people", "outside", "service", "groups", "policies"):
                self.add(connection, f"ou={ou},{self.base}", objectClass="organizationalUnit", ou=ou)
            self.add(connection, self.berlin, objectClass="organizationalUnit", ou="berlin")
            for name, policy in self.facts["policies"].items():
                self.add_policy(connection, name, policy)
            self.add(connection, self.bind_dn, objectClass=["organizationalRole", "simpleSecurityObject"], cn=self.facts["service"]["name"], userPassword=self.bind_password)
            for person in self.facts["people"]:
                self.add_person(connection, person)
                if "policy" in person:
                    connection.modify_s(self.dn_of(person), [(ldap.MOD_REPLACE, "pwdPolicySubentry", f"cn={person['policy']},{self.policies}".encode())])
                    connection.modify_s(self.dn_of(person), [(ldap.MOD_REPLACE, "userPassword", person["password"].encode())])  # under that policy
                if person.get("disabled"):
                    self.disable(connection, self.dn(person["uid"]))
                if person.get("must_change"):
                    self.must_change_now(connection, self.dn_of(person))
                if person.get("stale"):
                    self.make_stale(connection, self.dn_of(person))
            for group in self.facts["groups"]:
                self.add_group(connection, group)
        for person in self.facts["people"]:
            if person.get("locked"):
                self.lock(person["uid"])


class OpenLdap(LdapDirectory):
    name = "OpenLDAP"

    @property
    def admin_dn(self):
        return f"cn=root,{self.base}"

    @property
    def more_settings(self):
        return {"default_policy": f"cn=default,{self.policies}"}

    def prepare(self):
        os.makedirs(os.path.join(self.folder, "db"), exist_ok=True)
        self.conf = os.path.join(self.folder, "slapd.conf")
        with open(self.conf, "w", encoding="utf-8") as f:
            f.write("".join(f"include /etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson", "nis")) + f"""
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile {self.folder}/slapd.pid
TLSCACertificateFile {self.ca}
TLSCertificateFile {self.certificate}
TLSCertificateKeyFile {self.key}
{self.client_certificates()}
database mdb
suffix {self.base}
rootdn cn=root,{self.base}
rootpw {self.admin_password}
directory {self.folder}/db
dbnosync
index objectClass,uid,entryUUID,member,uniqueMember,memberUid eq
overlay ppolicy
ppolicy_default cn=default,ou=policies,{self.base}
ppolicy_hash_cleartext
{self.acl()}
""")

    def client_certificates(self):
        """More of the configuration's head."""
        return ""

    def acl(self):
        """As docs/ldap.md gives it."""
        return f"""
access to attrs=userPassword
  by dn.exact="{self.bind_dn}" =w
  by self =xw
  by anonymous auth
access to dn.subtree="{self.people}" attrs=pwdAccountLockedTime,pwdReset
  by dn.exact="{self.bind_dn}" write
access to attrs=pwdHistory
  by * none
access to *
  by dn.exact="{self.bind_dn}" read
  by users auth
"""

    def command(self):
        return ["slapd", "-d", "0", "-f", self.conf, "-h", f"ldaps://{self.host}:{self.port}"]

    def add_suffix(self, connection):
        self.add(connection, self.base, objectClass=["dcObject", "organization"], dc="example", o="example")

    def add_policy(self, connection, name, policy):
        self.add(connection, f"cn={name},{self.policies}", objectClass=["organizationalRole", "pwdPolicy"], cn=name, pwdAttribute="userPassword", pwdCheckQuality="2",
                 pwdMinLength=str(policy["min_length"]), pwdInHistory=str(policy["history"]), pwdMinAge=str(policy["min_age"]), pwdMaxAge=str(policy["max_age"]), pwdLockout="TRUE",
                 pwdMaxFailure=str(policy["max_failure"]), pwdLockoutDuration=str(policy["lockout"]), pwdMustChange=str(policy["must_change"]).upper(),
                 pwdAllowUserChange=str(policy.get("user_change", True)).upper())

    def grace(self, policy, logins):
        self.modify(f"cn={policy},{self.policies}", (ldap.MOD_REPLACE, "pwdGraceAuthnLimit", str(logins)))

    def disable(self, connection, dn):
        connection.modify_s(dn, [(ldap.MOD_REPLACE, "pwdAccountLockedTime", b"000001010000Z")])

    def must_change_now(self, connection, dn):
        connection.modify_s(dn, [(ldap.MOD_REPLACE, "pwdReset", b"TRUE")])

    def make_stale(self, connection, dn):
        connection.modify_ext_s(dn, [(ldap.MOD_REPLACE, "pwdChangedTime", b"20200101000000Z")], serverctrls=[ldap.controls.RequestControl(RELAX, True)])

    def locked(self, uid):
        return "pwdAccountLockedTime" in self.read(uid, "pwdAccountLockedTime")

    def must_change(self, uid):
        return self.read(uid, "pwdReset").get("pwdReset") == [b"TRUE"]

    def uuid(self, uid):
        return self.read(uid, "entryUUID")["entryUUID"][0].decode()



class OpenLdapTwin(OpenLdap):
    """Holds what `of` holds, with the same entryUUIDs, and never hears of it again: there is no replication."""

    def __init__(self, folder, of):
        self.of = of
        super().__init__(folder)

    def prepare(self):
        super().prepare()
        ldif = os.path.join(self.folder, "of.ldif")
        subprocess.run(["slapcat", "-f", self.of.conf, "-l", ldif], check=True, capture_output=True)
        subprocess.run(["slapadd", "-f", self.conf, "-l", ldif], check=True, capture_output=True)

    def populate(self):
        """It is all there."""


class Directory389(LdapDirectory):
    name = "389 Directory Server"
    admin_dn = "cn=Directory Manager"
    more_settings = {}

    def prepare(self):
        """What dscreate does, without systemd, without root's folders, and in a second: dse.ldif from its template, an NSS database with the certificate."""
        paths = {name: os.path.join(self.folder, name) for name in ("etc", "etc/schema", "inst", "db", "ldif", "bak", "lock", "log", "run")}
        for path in paths.values():
            os.makedirs(path, exist_ok=True)
        hashed = subprocess.run(["pwdhash", "-s", "PBKDF2-SHA512", self.admin_password], check=True, capture_output=True, text=True).stdout.strip()
        values = {"schema_dir": paths["etc/schema"], "lock_dir": paths["lock"], "tmp_dir": "/tmp", "cert_dir": paths["etc"], "ldif_dir": paths["ldif"], "bak_dir": paths["bak"],
                  "run_dir": paths["run"], "inst_dir": paths["inst"], "log_dir": paths["log"], "fqdn": "localhost", "ds_port": "0", "ds_user": "root", "rootdn": self.admin_dn,
                  "ds_passwd": hashed, "ldapi_enabled": "off", "ldapi": os.path.join(paths["run"], "ldapi"), "ldapi_autobind": "off", "ds_suffix": self.base,
                  "config_dir": paths["etc"], "db_dir": paths["db"], "db_home_dir": paths["db"], "db_lib": "bdb"}
        with open("/usr/share/dirsrv/data/template-dse.ldif", encoding="utf-8") as f:
            text = f.read()
        for name, value in values.items():
            text = text.replace(f"%{name}%", value)
        text = text.replace("nsslapd-localhost:", f"nsslapd-security: on\nnsslapd-securePort: {self.port}\nnsslapd-securelistenhost: {self.host}\nnsslapd-localhost:", 1)
        with open(os.path.join(paths["etc"], "dse.ldif"), "w", encoding="utf-8") as f:
            f.write(text)
        for name in ("slapd-collations.conf", "certmap.conf"):
            subprocess.run(["cp", f"/etc/dirsrv/config/{name}", paths["etc"]], check=True)
        subprocess.run(["cp", "-r", "/etc/dirsrv/schema/.", paths["etc/schema"]], check=True)
        bundle = os.path.join(self.folder, "server.p12")
        for command in (["certutil", "-N", "-d", paths["etc"], "--empty-password"],
                        ["openssl", "pkcs12", "-export", "-in", self.certificate, "-inkey", self.key, "-certfile", self.ca, "-name", "Server-Cert", "-passout", "pass:x", "-out", bundle],
                        ["pk12util", "-d", paths["etc"], "-i", bundle, "-W", "x", "-K", ""], ["certutil", "-A", "-d", paths["etc"], "-n", "CA", "-t", "CT,,", "-i", self.ca]):
            subprocess.run(command, check=True, capture_output=True)
        self.paths = paths

    def command(self):
        return ["ns-slapd", "-d", "0", "-D", self.paths["etc"], "-i", os.path.join(self.paths["run"], "pid")]

    def add_suffix(self, connection):
        self.add(connection, "cn=userRoot,cn=ldbm database,cn=plugins,cn=config", objectClass=["nsBackendInstance", "extensibleObject"], cn="userRoot", **{"nsslapd-suffix": self.base})
        self.add(connection, f'cn="{self.base}",cn=mapping tree,cn=config', objectClass=["nsMappingTree", "extensibleObject"], cn=self.base,
                 **{"nsslapd-state": "backend", "nsslapd-backend": "userRoot"})
        default = self.facts["policies"]["default"]
        switches = {**self.policy_attributes(default), "passwordTrackUpdateTime": "on", "nsslapd-plugin-binddn-tracking": "on", "nsslapd-pwpolicy-local": "on",
                    "passwordIsGlobalPolicy": "off"}
        connection.modify_s("cn=config", [(ldap.MOD_REPLACE, name, value.encode()) for name, value in switches.items()])
        connection.modify_s("cn=config", [(ldap.MOD_ADD, "aci", self.config_aci().encode())])
        self.add(connection, self.base, objectClass="domain", dc="example", aci=self.acis())

    def acis(self):
        """As docs/ldap.md gives them."""
        who = f'userdn = "ldap:///{self.bind_dn}"'
        return [f'(targetattr != "userPassword || passwordHistory")(version 3.0; acl "writebackd reads"; allow (read, search, compare) {who};)',
                f'(target = "ldap:///{self.policies}")(targetattr = "*")(version 3.0; acl "writebackd reads policies"; allow (read, search, compare) {who};)',
                f'(target = "ldap:///{self.people}")(targetattr = "userPassword || accountUnlockTime || passwordRetryCount")'
                f'(version 3.0; acl "writebackd writes"; allow (write) {who};)',
                '(targetattr = "userPassword")(version 3.0; acl "own password"; allow (write) userdn = "ldap:///self";)']

    def config_aci(self):
        names = " || ".join(["objectClass", *self.policy_attributes(self.facts["policies"]["default"])])
        return f'(target = "ldap:///cn=config")(targetattr = "{names}")(version 3.0; acl "writebackd reads the policy"; allow (read, search, compare) userdn = "ldap:///{self.bind_dn}";)'

    @staticmethod
    def policy_attributes(policy):
        def on(value):
            return "on" if value else "off"
        return {"passwordCheckSyntax": "on", "passwordMinLength": str(policy["min_length"]), "passwordHistory": on(policy["history"]), "passwordInHistory": str(policy["history"]),
                "passwordMinAge": str(policy["min_age"]), "passwordExp": on(policy["max_age"]), "passwordMaxAge": str(policy["max_age"] or 8640000), "passwordLockout": "on",
                "passwordMaxFailure": str(policy["max_failure"]), "passwordUnlock": "on", "passwordLockoutDuration": str(policy["lockout"]),
                "passwordMustChange": on(policy["must_change"]), "passwordChange": on(policy.get("user_change", True))}

    def add_policy(self, connection, name, policy):
        if name != "default":
            self.add(connection, f"cn={name},{self.policies}", objectClass=["top", "nsContainer", "ldapsubentry", "passwordPolicy"], cn=name,
                     passwordTrackUpdateTime="on", **self.policy_attributes(policy))

    def grace(self, policy, logins):
        self.modify(f"cn={policy},{self.policies}", (ldap.MOD_REPLACE, "passwordGraceLimit", str(logins)))

    def disable(self, connection, dn):
        connection.modify_s(dn, [(ldap.MOD_REPLACE, "nsAccountLock", b"true")])

    def must_change_now(self, connection, dn):
        """It is so already: another than himself set it, under a policy that says so."""

    def make_stale(self, connection, dn):
        connection.modify_s(dn, [(ldap.MOD_REPLACE, "passwordExpirationTime", b"20200101000000Z")])

    def locked(self, uid):
        values = self.read(uid, "passwordRetryCount", "accountUnlockTime")
        return "accountUnlockTime" in values and int(values.get("passwordRetryCount", [b"0"])[0]) > 0

    def must_change(self, uid):
        return self.read(uid, "pwdReset").get("pwdReset") == [b"TRUE"]

    def uuid(self, uid):
        digits = self.read(uid, "nsUniqueId")["nsUniqueId"][0].decode().replace("-", "")
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


KINDS = {"openldap": OpenLdap, "389": Directory389}
