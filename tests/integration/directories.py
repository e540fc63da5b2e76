"""The directories at which the tests run, and a lab with one of them."""
import os

import pytest

import capabilities
import lab as lab_module
import ldap_lab
from lab import BUILD

KINDS = [kind for kind, (_, variable) in capabilities.KINDS.items() if variable is None or os.environ.get(variable)]
SAMBAS = [kind for kind in KINDS if kind.startswith("samba")]
EVERY = KINDS + list(capabilities.LDAP_KINDS)
# Users are reset again and again here; the ceilings have tests of their own.
LAB_OPTIONS = {"settings": {"limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0, "unlocks_per_minute": 0}}}


def running_lab(kind, **options):
    make = ldap_lab.SuiteLab if kind in capabilities.LDAP_KINDS else lab_module.Lab
    lab = make(BUILD, kind, keep=bool(os.environ.get("KEEP_LAB")), shared=True, **options)
    try:
        lab.start()
    except BaseException:
        lab.close()
        raise
    return lab


def missing(kind):
    """Why this machine has no directory of this kind, or None."""
    if kind in capabilities.LDAP_KINDS:
        return ldap_lab.missing(kind)
    if kind.startswith("samba") and not lab_module.has_mount_namespaces():
        return "no mount namespaces here (root and CAP_SYS_ADMIN are wanted), in which Samba's names live"
    if kind == "samba" and not os.path.exists("/usr/sbin/samba"):
        return "Samba is not installed"
    if kind == "samba-newer" and not lab_module.newer_samba():
        return "no newer Samba: tests/support/samba/newer could not fetch one"


every_directory = pytest.mark.parametrize("lab", EVERY, indirect=True, scope="module")
