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
    """Without options of its own: every operation is on, and who is below people and in the group sspr is in scope."""

    def start_directory(self):
        self.directory = d = servers.KINDS[self.kind](os.path.join(self.folder, "directory"))
        scope = {"users": "selected", "bases": [d.people], "groups": [d.selected_group], "protect": d.protected_entries()}
        self.agent_options = {"settings": {"operations": ALL, "settling": {"delay": "1s", "limit": "20s"}, "limits": {"per_user_hour": 0}}, "scope": scope, **self.agent_options,
                              "directory_settings": {**d.settings(os.path.join(self.folder, "agent", "bind-password")), "timeouts": {"write": "2s", "locate": "2s"}}}

    def start(self):
        """The people are seconds old: what is asked in the agent's first second would be held against that."""
        super().start()
        self.agent.wait_first_second()


class SuiteLab(LdapLab):
    """In the behaviour suite: as the others there, with whoever is below people in scope."""

    def start_directory(self):
        super().start_directory()
        del self.agent_options["scope"]["groups"]
