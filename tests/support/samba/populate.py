#!/usr/bin/python3
"""populate.py SMB.CONF FOREST.JSON KEYTABS: writes the users, groups, policies and rights of mock-directory's forest file into a freshly provisioned Samba domain, straight
into its database, so that the same tests run on both; into the folder KEYTABS those of the service account and of alice. What Samba cannot hold is left out with a line on
standard output: second users with one userPrincipalName."""
import json, os, re, sys, time

import ldb
import samba.sd_utils
from samba import enable_net_export_keytab
from samba.auth import system_session
from samba.dcerpc import security
from samba.ndr import ndr_unpack
from samba.net import Net
from samba.param import LoadParm
from samba.samdb import SamDB

TICKS = 10000000
UNITS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1, "": 1}
FLAGS = {"disabled": 0x2, "password_not_required": 0x20, "dont_expire": 0x10000, "smartcard": 0x40000}
BYPASS_LAST_SET = "local_oid:1.3.6.1.4.1.7165.4.3.20:0"  # Samba's own: pwdLastSet as a copy of another domain would bring it
USER_CLASS = "bf967aba-0de6-11d0-a285-00aa003049e2"
RIGHTS = {"reset-password": f"(OA;CIIO;CR;00299570-246d-11d0-a768-00aa006e0529;{USER_CLASS};%s)",
          "write-lockoutTime": f"(OA;CIIO;WP;28630ebf-41d5-11d1-a9c1-0000f80367c1;{USER_CLASS};%s)",
          "write-pwdLastSet": f"(OA;CIIO;WP;bf967a0a-0de6-11d0-a285-00aa003049e2;{USER_CLASS};%s)",
          "unexpire-password": "(OA;;CR;ccc2dc7d-a6ad-4a7a-8846-c04e3cc53501;;%s)", "read-pso": "(A;CI;RP;;;%s)"}


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)([a-z]*)", str(text)).groups()
    return int(number) * UNITS[unit]


def interval(text):
    return str(-seconds(text) * TICKS)


def filetime(when):
    return str(int(when + 11644473600) * TICKS)


class Domain:
    def __init__(self, conf):
        lp = LoadParm()
        lp.load(conf)
        self.lp = lp
        self.db = SamDB(session_info=system_session(), lp=lp)
        self.base = str(self.db.domain_dn())
        self.sd = samba.sd_utils.SDUtils(self.db)

    def replace(self, dn, controls=(), **attributes):
        message = ldb.Message()
        message.dn = ldb.Dn(self.db, dn)
        for name, value in attributes.items():
            message[name] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, name)
        self.db.modify(message, list(controls))

    def below(self, ou, otherwise="CN=Users"):
        ou = ou or otherwise
        return self.base if ou == "domain" else f"{ou},{self.base}"

    def find(self, name):
        """The DN of an account, a group, or a container named relative to the domain."""
        found = self.db.search(self.base, ldb.SCOPE_SUBTREE, f"(|(sAMAccountName={ldb.binary_encode(name)})(sAMAccountName={ldb.binary_encode(name)}$))", ["objectSid"])
        return str(found[0].dn) if len(found) else self.below(name)

    def sid(self, name):
        return str(ndr_unpack(security.dom_sid, self.db.search(self.find(name), ldb.SCOPE_BASE, attrs=["objectSid"])[0]["objectSid"][0]))

    def add_user(self, user):
        kind = user.get("kind", "user")
        name = user["name"] + ("" if kind == "user" else "$")
        existing = self.db.search(self.base, ldb.SCOPE_SUBTREE, f"(sAMAccountName={ldb.binary_encode(name)})")
        dn = ldb.Dn(self.db, self.below(user.get("ou"), {"user": "CN=Users", "computer": "CN=Computers", "gmsa": "CN=Managed Service Accounts"}[kind]))
        dn.add_child(ldb.Dn(self.db, "CN=x"))
        dn.set_component(0, "CN", user.get("cn", name.rstrip("$")))
        if len(existing):
            dn = existing[0].dn
        else:
            entry = {"dn": dn, "objectClass": {"user": "user", "computer": "computer", "gmsa": "msDS-GroupManagedServiceAccount"}[kind], "sAMAccountName": name}
            for key, attribute in (("upn", "userPrincipalName"), ("display_name", "displayName"), ("mail", "mail"), ("description", "description"), ("spn", "servicePrincipalName")):
                if user.get(key):
                    entry[attribute] = user[key]
            if kind == "computer":
                entry["userAccountControl"] = str(0x1000)
            if kind == "gmsa":
                entry["msDS-ManagedPasswordInterval"] = "30"
            try:
                self.db.add(entry)
            except ldb.LdbError as error:
                if "upn" not in user:
                    raise
                print(f"{name}: without its userPrincipalName, because {error.args[1].strip()}")
                del entry["userPrincipalName"]
                self.db.add(entry)
        dn = str(dn)
        if user.get("consistency_guid"):
            import uuid
            self.replace(dn, **{"mS-DS-ConsistencyGuid": uuid.UUID(user["consistency_guid"]).bytes_le})
        if kind == "user" and name not in ("krbtgt", "Administrator"):
            if user.get("password"):
                self.replace(dn, unicodePwd=f'"{user["password"]}"'.encode("utf-16-le"))
            flags = user.get("flags", [])
            self.replace(dn, userAccountControl=str(0x200 | sum(FLAGS.get(f, 0) for f in flags)))
            if "must_change" in flags:
                self.replace(dn, pwdLastSet="0")
            elif user.get("password"):
                self.replace(dn, [BYPASS_LAST_SET], pwdLastSet=filetime(time.time() - seconds(user.get("password_age", "10d"))))
            if "expired" in flags:
                self.replace(dn, accountExpires="116444736010000000")
            if "locked" in flags:
                self.replace(dn, lockoutTime=filetime(time.time()), badPwdCount="5")
            if "logon_hours" in flags:
                self.replace(dn, logonHours=bytes(21))
            if "workstation" in flags:
                self.replace(dn, userWorkstations="ANOTHER")
        for group in user.get("member_of", []):
            self.join(dn, group)
        if user.get("admin_count"):
            self.replace(dn, adminCount=str(user["admin_count"]))

    def join(self, dn, group):
        message = ldb.Message()
        message.dn = ldb.Dn(self.db, self.find(group))
        message["member"] = ldb.MessageElement(dn, ldb.FLAG_MOD_ADD, "member")
        try:
            self.db.modify(message)
        except ldb.LdbError as error:
            if error.args[0] != ldb.ERR_ENTRY_ALREADY_EXISTS and error.args[0] != ldb.ERR_ATTRIBUTE_OR_VALUE_EXISTS:
                raise

    def set_policy(self, policy):
        self.replace(self.base, minPwdLength=str(policy.get("min_length", 7)), pwdHistoryLength=str(policy.get("history", 24)),
                     pwdProperties="1" if policy.get("complexity", True) else "0", minPwdAge=interval(policy.get("min_age", "1d")), maxPwdAge=interval(policy.get("max_age", "42d")),
                     lockoutThreshold=str(policy.get("lockout_threshold", 0)), lockoutDuration=interval(policy.get("lockout_duration", "30min")),
                     lockOutObservationWindow=interval(policy.get("lockout_window", "30min")))

    def add_pso(self, pso, policy):
        have = {**policy, **pso}
        dn = f"CN={pso['name']},CN=Password Settings Container,CN=System,{self.base}"
        self.db.add({"dn": dn, "objectClass": "msDS-PasswordSettings", "msDS-PasswordSettingsPrecedence": str(pso.get("precedence", 10)),
                     "msDS-PasswordReversibleEncryptionEnabled": "FALSE", "msDS-PasswordHistoryLength": str(have.get("history", 24)),
                     "msDS-PasswordComplexityEnabled": "TRUE" if have.get("complexity", True) else "FALSE", "msDS-MinimumPasswordLength": str(have.get("min_length", 7)),
                     "msDS-MinimumPasswordAge": interval(have.get("min_age", "1d")), "msDS-MaximumPasswordAge": interval(have.get("max_age", "42d")),
                     "msDS-LockoutThreshold": str(have.get("lockout_threshold", 0)), "msDS-LockoutObservationWindow": interval(have.get("lockout_window", "30min")),
                     "msDS-LockoutDuration": interval(have.get("lockout_duration", "30min")), "msDS-PSOAppliesTo": [self.find(n) for n in pso.get("applies_to", [])]})
        for reader in pso.get("readable_by", []):
            self.sd.dacl_add_ace(dn, f"(A;;RP;;;{self.sid(reader)})")

    def grant(self, grant):
        where = self.below(grant.get("ou"), "domain")
        for right in grant["allow"]:
            target = f"CN=Password Settings Container,CN=System,{self.base}" if right == "read-pso" else where
            self.sd.dacl_add_ace(target, RIGHTS[right] % self.sid(grant["who"]))

    def protect(self):
        """What SDProp does on Windows and Samba's 4.17 does not: AdminSDHolder's protected descriptor on everyone with adminCount=1."""
        holder = self.db.search(f"CN=AdminSDHolder,CN=System,{self.base}", ldb.SCOPE_BASE, attrs=["nTSecurityDescriptor"])[0]["nTSecurityDescriptor"][0]
        descriptor = ndr_unpack(security.descriptor, holder)
        descriptor.type |= security.SEC_DESC_DACL_PROTECTED
        for user in self.db.search(self.base, ldb.SCOPE_SUBTREE, "(&(objectClass=user)(adminCount=1))", []):
            self.sd.modify_sd_on_dn(str(user.dn), descriptor)

    def keytab(self, folder, name):
        enable_net_export_keytab()
        path, principal = os.path.join(folder, name + ".keytab"), f"{name}@{self.lp.get('realm')}"
        try:
            Net(None, self.lp).export_keytab(keytab=path, principal=principal)
        except TypeError:  # newer Sambas want the database as well
            Net(None, self.lp).export_keytab(samdb=self.db, keytab=path, principal=principal)


def main():
    domain = Domain(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as f:
        forest = json.load(f)
    # Users come under the freshly provisioned domain's own policy: a lax one until all have their passwords.
    domain.set_policy({"min_length": 0, "history": 0, "complexity": False, "min_age": "0s"})
    for ou in forest.get("ous", []):
        domain.db.add({"dn": f"{ou},{domain.base}", "objectClass": "organizationalUnit"})
    for group in forest.get("groups", []):
        if not len(domain.db.search(domain.base, ldb.SCOPE_SUBTREE, f"(sAMAccountName={ldb.binary_encode(group['name'])})")):
            domain.db.add({"dn": f"CN={group['name']},{domain.below(group.get('ou'))}", "objectClass": "group", "sAMAccountName": group["name"]})
    for group in forest.get("groups", []):
        for outer in group.get("member_of", []):
            domain.join(domain.find(group["name"]), outer)
    for user in forest["users"]:
        domain.add_user(user)
    bench = forest.get("bench") or 0
    bench = bench if isinstance(bench, dict) else {"count": bench}
    for i in range(bench.get("count", 0)):  # 30 ms each
        name = f"bench{i:03}"
        domain.add_user({"name": name, "ou": bench.get("ou", "OU=People"), "upn": f"{name}@{forest['domain']}", "display_name": f"Bench {i:03}",
                         "password": bench.get("password", "Old-Marble-Step-7"), "password_age": bench.get("password_age", "10d"), "member_of": bench.get("member_of", [])})
    for pso in forest.get("psos", []):
        domain.add_pso(pso, forest["policy"])
    domain.set_policy(forest["policy"])
    for grant in forest.get("rights", []):
        domain.grant(grant)
    domain.protect()
    for name in ("svc-writeback", "alice"):
        domain.keytab(sys.argv[3], name)


if __name__ == "__main__":
    main()
