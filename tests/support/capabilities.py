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

# capability -> kind -> why not.
LACKS = {
    "policy_hints": {"samba": "knows no policy-hints control: a reset skips history and minimum age"},
    "must_change_with_hints": {"samba-newer": "judges the minimum age by the pwdLastSet of the same write: with policy hints, must_change is always too recent"},
    "one_usn": dict.fromkeys(("samba", "samba-newer"), "clears the lock under a number of its own, in the same transaction"),
    "twin_names": dict.fromkeys(("samba", "samba-newer"), "takes no second user with a userPrincipalName that there is"),
    "password_filter": dict.fromkeys(("samba", "samba-newer"), "has no password filter (a program instead, as root)"),
    "channel_binding": dict.fromkeys(("mock", "samba"), "does not look at channel bindings"),
    "primary_group": {"mock": "gives everybody Domain Users as the primary group"},
    "samba_tool": {"mock": "has no samba-tool", "samba-newer": "has a database that the samba-tool out here is too old for"},
    "sasl": {"mock": "knows no SASL"},
    "policy_changes": {"mock": "has the policy of its file for good"},
    # Of the flavor ldap (test_ldap.py): lab.kind is openldap or 389.
    "tells_history": {"389": "answers a password modify extended operation without a reason where the history refuses"},
    "tells_locked": {"openldap": "says of a locked account that the credentials are invalid (ppolicy_use_lockout is off, as it is by default)"},
    "faults": dict.fromkeys(("samba", "samba-newer"), "fails on nobody's command"),
}


def lacks(capability, kind):
    """Why this directory cannot; None: it can."""
    return LACKS[capability].get(kind)
