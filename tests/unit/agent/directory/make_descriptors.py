#!/usr/bin/python3
"""Writes descriptors.h: security descriptors from SDDL (MS-DTYP 2.5.1), made by Samba's own code, for test_security_descriptor.c. And the fuzzer's corpus.

    /usr/bin/python3 make_descriptors.py > descriptors.h
"""
import os

from samba.dcerpc import security
from samba.ndr import ndr_pack

DOMAIN = "S-1-5-21-1-2-3"
AGENT, GROUP, USER, OTHER = (f"{DOMAIN}-{rid}" for rid in (1103, 1200, 1104, 1199))
PERSON, GROUP_CLASS = "bf967aba-0de6-11d0-a285-00aa003049e2", "bf967a9c-0de6-11d0-a285-00aa003049e2"
RESET, CHANGE, LOCKOUT = "00299570-246d-11d0-a768-00aa006e0529", "ab721a53-1e2f-11d0-9819-00aa0040529b", "28630ebf-41d5-11d1-a9c1-0000f80367c1"
LAST_SET, RESTRICTIONS = "bf967a0a-0de6-11d0-a285-00aa003049e2", "4c164200-20c0-11d0-a768-00aa006e0529"
PSO = "3bcd9db8-f84b-451c-952f-6c52b81f9ec6"
ROWS = {
    "RESET": f"O:DAD:(OA;ID;CR;{RESET};{PERSON};{AGENT})",
    "RESET_BY_GROUP": f"O:DAD:(A;;RP;;;WD)(OA;;CR;{RESET};;{GROUP})",
    "RESET_OTHERS": f"O:DAD:(OA;;CR;{RESET};;{OTHER})(OA;;CR;{CHANGE};;{AGENT})",
    "RESET_INHERIT_ONLY": f"O:DAD:(OA;CIIO;CR;{RESET};{PERSON};{AGENT})",
    "RESET_DENIED": f"O:DAD:(OD;;CR;{RESET};;{GROUP})(OA;;CR;{RESET};;{AGENT})",
    "RESET_DENIED_LATE": f"O:DAD:(OA;;CR;{RESET};;{AGENT})(OD;;CR;{RESET};;{GROUP})",
    "RESET_DENIED_ALL_RIGHTS": f"O:DAD:(D;;CR;;;{GROUP})(OA;;CR;{RESET};;{AGENT})",
    "ALL_EXTENDED": f"O:DAD:(A;;CR;;;{AGENT})",
    "GENERIC_ALL": f"O:DAD:(A;;GA;;;{AGENT})",
    "GENERIC_WRITE": f"O:DAD:(A;;GW;;;{AGENT})",
    "GENERIC_READ": f"O:DAD:(A;;GR;;;{AGENT})",
    "FULL_CONTROL": f"O:DAD:(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;{GROUP})",
    "WRITE_LOCKOUT": f"O:DAD:(OA;;WP;{LOCKOUT};;{AGENT})",
    "WRITE_SET": f"O:DAD:(OA;;RPWP;{RESTRICTIONS};;{AGENT})",
    "WRITE_ANY": f"O:DAD:(A;;WP;;;{AGENT})",
    "WRITE_SET_DENIED": f"O:DAD:(OD;;WP;{RESTRICTIONS};;{AGENT})(A;;WP;;;{AGENT})",
    "SELF_WRITES": f"O:DAD:(OA;;WP;{LOCKOUT};;PS)",
    "OWNER_RIGHTS": f"O:{AGENT}D:(A;;WP;;;S-1-3-4)",
    "OWNER_RIGHTS_OTHER": f"O:{OTHER}D:(A;;WP;;;S-1-3-4)",
    "NO_OWNER": f"D:(A;;WP;;;S-1-3-4)",
    "NO_LIST": "O:DA",
    "EMPTY_LIST": "O:DAD:",
    "CHANGE_DEFAULT": f"O:DAD:(OA;;CR;{CHANGE};;WD)(OA;;CR;{CHANGE};;PS)",
    "CHANGE_FORBIDDEN": f"O:DAD:(OD;;CR;{CHANGE};;WD)(OD;;CR;{CHANGE};;PS)(A;;RP;;;AU)",
    "CHANGE_FORBIDDEN_SELF": f"O:DAD:(OD;;CR;{CHANGE};;PS)(OA;;CR;{CHANGE};;WD)",
    "CHANGE_FORBIDDEN_EVERYONE": f"O:DAD:(OD;;CR;{CHANGE};;WD)(OA;;CR;{CHANGE};;PS)",
    "CHANGE_FORBIDDEN_LATE": f"O:DAD:(OA;;CR;{CHANGE};;WD)(OD;;CR;{CHANGE};;PS)",
    "CHANGE_FORBIDDEN_ELSEWHERE": f"O:DAD:(OD;CIIO;CR;{CHANGE};;WD)(OD;;CR;{CHANGE};;{OTHER})(OD;;CR;{RESET};;WD)",
    "CHANGE_NOBODY": "O:DAD:(A;;RP;;;AU)",
    "CHILDREN": f"O:DAD:(A;CI;RP;;;{AGENT})",
    "CHILDREN_ONLY": f"O:DAD:(OA;CIIO;RP;;{PSO};{AGENT})",
    "CHILDREN_OF_ANOTHER_CLASS": f"O:DAD:(OA;CIIO;RP;;{GROUP_CLASS};{AGENT})",
    "CHILDREN_NONE": f"O:DAD:(A;;RPLC;;;{AGENT})",
}


def main():
    corpus = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../fuzz/corpus/security_descriptor")
    print("/* By make_descriptors.py. The agent is …-1103, a group of its …-1200, the user …-1104, somebody else …-1199, all of S-1-5-21-1-2-3. */")
    for name, sddl in ROWS.items():
        octets = ndr_pack(security.descriptor.from_sddl(sddl, security.dom_sid(DOMAIN)))
        print(f"\n/* {sddl} */\nstatic const uint8_t {name}[] = {{")
        for i in range(0, len(octets), 24):
            print("\t" + " ".join(f"0x{octet:02x}," for octet in octets[i:i + 24]))
        print("};")
        if name in ("RESET_DENIED", "CHANGE_FORBIDDEN", "FULL_CONTROL", "NO_LIST", "CHILDREN_ONLY"):
            with open(os.path.join(corpus, name.lower()), "wb") as f:
                f.write(octets)


if __name__ == "__main__":
    main()
