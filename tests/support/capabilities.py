"""capabilities: what the directories of the behaviour suite cannot do, by name. What is not listed a directory can, and its tests say so by passing.

    def test_history(lab, can):
        if not can("policy_hints", "the answer is directory.no_policy_control"):
            ...  # tested instead
            return

A line of each such place stands at the end of pytest's output. A new directory: a kind here, its class in lab.py, its column of LACKS."""

# Kinds of `lab`: what a directory is, and the variable that a run must set to have it (None: always).
KINDS = {"mock": ("mock-directory, which stands for Windows", None),
         "samba": ("Debian 12's Samba", None),
         "samba-newer": ("Samba of Debian unstable, in a folder of its own", "NEWER_SAMBA")}

# Those of the flavor ldap.
LDAP_KINDS = {"openldap": "OpenLDAP with the overlay ppolicy", "389": "389 Directory Server"}


def ldap(why):
    return dict.fromkeys(LDAP_KINDS, why)


# capability -> kind -> why not.
LACKS = {
    "policy_hints": {"samba": "knows no policy-hints control: a reset skips history and minimum age"},
    "must_change_with_hints": {"samba-newer": "judges the minimum age by the pwdLastSet of the same write: with policy hints, must_change is always too recent"},
    "one_usn": dict.fromkeys(("samba", "samba-newer"), "clears the lock under a number of its own, in the same transaction"),
    "twin_names": dict.fromkeys(("samba", "samba-newer"), "takes no second user with a userPrincipalName that there is"),
    "password_filter": {**dict.fromkeys(("samba", "samba-newer"), "has no password filter (a program instead, as root)"), **ldap("has no password filter")},
    "channel_binding": dict.fromkeys(("mock", "samba"), "does not look at channel bindings"),
    "primary_group": {"mock": "gives everybody Domain Users as the primary group"},
    "samba_tool": {"mock": "has no samba-tool", "samba-newer": "has a database that the samba-tool out here is too old for"},
    "sasl": {"mock": "knows no SASL"},
    "policy_changes": {"mock": "has the policy of its file for good"},
    # What only Active Directory knows.
    "complexity": {"openldap": "has no rule of character classes"},
    "counts_classes": {"389": "says that a password is too simple, and not what it lacks"},
    "utf16_length": {"389": "counts a character beyond the first plane as one"},
    "stays_locked": ldap("unlocks with every password that is written"),
    "logon_hours": ldap("knows no logon hours"),
    "counts_writes": ldap("does not count how often an attribute was written"),
    "hidden_policy": ldap("shows every policy to who may read one"),
    "smartcard": ldap("knows no logon by smart card only"),
    "account_expiry": ldap("knows no account that expires"),
    "source_anchor": ldap("knows no mS-DS-ConsistencyGuid"),
    "never_expires": ldap("says of a policy whether must_change has a meaning, not of an account"),
    "rights_by_place": {"openldap": "has one rule for userPassword, wherever it is (as docs/ldap.md gives it)"},
    # What only the flavor ldap does otherwise.
    "tells_history": {"389": "answers a password modify extended operation without a reason where the history refuses"},
    "tells_locked": {"openldap": "says of a locked account that the credentials are invalid (ppolicy_use_lockout is off, as it is by default)"},
    "faults": dict.fromkeys(("samba", "samba-newer"), "fails on nobody's command"),
}


def lacks(capability, kind):
    """Why this directory cannot; None: it can."""
    return LACKS[capability].get(kind)
