"""Includes go one way: base <- proto, config <- agent, service; channel, gate, journal and directory never include one another."""
import os, re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MAY = {  # folder -> what it may include, besides itself
    "base": set(),
    "proto": {"base"},
    "config": {"base"},
    "agent/channel": {"base", "proto", "config"},
    "agent/gate": {"base", "proto", "agent"},
    "agent/journal": {"base"},
    "agent/directory": {"base", "agent"},
    "agent/ctl": {"base", "proto", "config", "agent"},
    "agent": {"base", "proto", "config", "agent/channel", "agent/gate", "agent/journal", "agent/directory"},
    "service": {"base", "proto", "config"},
}
# Of agent/ itself the parts below may include the plain data only: agent/account.h.
PLAIN = {"agent/account.h"}
# Of agent/channel (its own program) the agent may include only what both ends of the socket share.
SHARED = {"agent/channel/packet.h"}


def sources():
    for folder in MAY:
        for name in sorted(os.listdir(os.path.join(ROOT, folder))):
            if name.endswith((".c", ".h")):
                yield folder, os.path.join(folder, name)


def violations(folder, path, text):
    for line, include in enumerate(re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M), 1):
        target = os.path.dirname(include)
        if not target or target == folder:  # generated headers have no folder
            continue
        if target not in MAY[folder]:
            yield f"{path} includes {include}: {folder} may not use {target}"
        elif target == "agent" and folder != "agent/ctl" and include not in PLAIN:
            yield f"{path} includes {include}: only {', '.join(PLAIN)}"
        elif target == "agent/channel" and include not in SHARED:
            yield f"{path} includes {include}: only {', '.join(SHARED)}"


def test_includes_go_one_way():
    found = [v for folder, path in sources() for v in violations(folder, path, open(os.path.join(ROOT, path), encoding="utf-8").read())]
    assert not found, "\n".join(found)


def test_it_would_see_a_wrong_one():
    assert list(violations("base", "base/x.c", '#include "proto/jose.h"\n'))
    assert list(violations("agent/gate", "agent/gate/x.c", '#include "agent/journal/journal.h"\n'))
    assert list(violations("agent/gate", "agent/gate/x.c", '#include "agent/request.h"\n'))
    assert list(violations("agent", "agent/x.c", '#include "agent/channel/endpoint.h"\n'))
    assert not list(violations("agent/gate", "agent/gate/x.c", '#include "agent/account.h"\n#include "base/status.h"\n'))
