"""ldap_lab: the whole agent in front of OpenLDAP or 389 Directory Server, with the scope that people.yaml is made for."""
import os, shutil

from lab import Lab
import servers

ALL = ["reset", "unlock", "check", "change", "lookup", "verify", "policy"]
PROGRAMS = {"openldap": "slapd", "389": "ns-slapd"}


def missing(kind):
    """Why this machine has no directory of this kind, or None."""
    return None if shutil.which(PROGRAMS[kind]) else f"{PROGRAMS[kind]} is not installed"


def outcome(answer):
    return answer["status"], answer["code"]


class LdapLab(Lab):
    def start_directory(self):
        self.directory = servers.KINDS[self.kind](os.path.join(self.folder, "directory"))
        d = self.directory
        scope = {"users": "selected", "bases": [d.people], "groups": [d.group("sspr")], "protect": [d.group("admins"), d.group("wheel"), d.dn("gina")]}
        self.agent_options = {"settings": {"operations": ALL, "settling": {"delay": "1s", "limit": "20s"}, "limits": {"per_user_hour": 0}}, "scope": scope,
                              "directory_settings": {**d.settings(os.path.join(self.folder, "agent", "bind-password")), "timeouts": {"write": "2s", "locate": "2s"}}}

    def user(self, uid):
        return {"format": "uid", "id": uid}

    def ask(self, op, uid, **members):
        return self.service.operate(op, uid if isinstance(uid, dict) else self.user(uid), **members)
