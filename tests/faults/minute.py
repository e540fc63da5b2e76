"""minute: what needs a minute of real time to be seen: agents that nobody starts again and whose channels stand, and a service. It passes beside the other tests."""
import json, os, signal, time

from jwcrypto import jwk

import lab as lab_module
from lab import BUILD, DOMAIN, SLOWNESS, wait_for
from line import Line, NEW
from scripted_service import ScriptedService, example

SOON_S = int(25 * SLOWNESS)  # behind all that is prepared, and where nothing is slow before the first minute is over


def key_set(issuer, root, signing):
    """Version 2, of which 14 days are left soon."""
    now = int(time.time())
    return example.sign(root, "wb-keys+jwt", {"iss": issuer, "iat": now - 10, "exp": now + 14 * 86400 + SOON_S, "version": 2, "keys": [example.public(signing)]})


class Minute:
    """old: a line whose agent's keys are an hour old soon, at which they are to be replaced, and `retired`, the file of the decryption key before them, has been kept for an hour.
    agent: another one, at `scripted`, which acknowledges nothing and whose key set nears its end; `claims` has its result. service: a real one, whose key set nears its end."""

    def __init__(self, folder):
        self.old, self.parts = Line(settings={"keys": {"rotate_after": "1h"}}), []
        try:
            self.begin_service(folder)
            self.begin_agent(folder)
            self.begin_old()
            self.began = time.monotonic()
            assert os.path.exists(self.retired) and self.count() == (1, 1, 1), "SOON_S was over too soon"
        except BaseException:
            self.close()
            raise

    def begin_service(self, folder):
        self.service = lab_module.Service(BUILD, str(folder / "service"))
        self.parts.append(self.service)
        state, keys = os.path.join(self.service.folder, "state"), []
        for name in "root", "signing":
            with open(os.path.join(state, name + ".jwk"), encoding="ascii") as f:
                keys.append(jwk.JWK(**json.load(f)))
        with open(os.path.join(state, "key-set.jws"), "w", encoding="ascii") as f:
            f.write(key_set(self.service.issuer, *keys))
        self.service.program.signal(signal.SIGHUP)
        self.service.program.wait_event(event="keys.expiry")

    def begin_agent(self, folder):
        self.scripted = ScriptedService(str(folder / "scripted"))
        self.parts.append(self.scripted)
        self.agent = lab_module.Agent(BUILD, str(folder / "agent"), self.old.directory, self.scripted.endpoint, self.scripted.ca)
        self.parts.append(self.agent)
        self.agent.start()
        self.agent.enroll(self.scripted.issuer, self.scripted.ticket)
        self.agent.wait_ready()
        self.scripted.send(key_set(self.scripted.issuer, self.scripted.root, self.scripted.signing))
        self.agent.writebackd.wait_event(event="keys.expiry")
        self.scripted.acknowledge = False
        self.claims = self.scripted.claims(f"bench009@{DOMAIN}", op="reset", new_password=NEW)
        self.scripted.ask(self.claims)
        self.session = self.scripted.session, self.scripted.ws

    def begin_old(self):
        agent, state = self.old.agent, self.old.agent.settings["state_directory"]
        agent.ctl("rotate-keys")
        agent.writebackd.stop()
        path, soon = os.path.join(state, "identity.json"), int(time.time()) + SOON_S
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
        found["made_at"] = soon - 3600
        [retired] = found["retired"]
        retired["until"] = soon
        with open(path, "w", encoding="utf-8") as f:
            json.dump(found, f)
        agent.start_writebackd()
        self.old.wait_ready(20)
        self.retired = os.path.join(state, f"decryption.{retired['decryption_key']}.jwk")
        self.old_session = self.old.service.session, self.old.service.ws

    def count(self):
        """How often keys were replaced, and the two key sets' ends were warned of."""
        return len(self.old.agent.writebackd.events(event="keys.rotated")), *(len(program.events(event="keys.expiry")) for program in (self.agent.writebackd, self.service.program))

    def results(self):
        return [r for r in self.scripted.results if r.get("request_id") == self.claims["jti"]]

    def wait_for(self, what, condition):
        return wait_for(what, condition, max(self.began + 65 - time.monotonic(), 1))

    def close(self):
        lab_module.stop_all([part.close for part in reversed(self.parts)] + [self.old.close])
