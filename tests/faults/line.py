"""line: the whole agent with a cable to the service that can be cut, at mock-directory; and what a test counts of a program."""
import os, time

import lab as lab_module
from lab import BUILD, DOMAIN, wait_for
from relay import Relay
from scripted_service import ScriptedService

NEW = "Gr33n-Field-Harbour"


class Line:
    """A scripted service, a relay before it, the agent, and mock-directory."""

    def __init__(self, **agent_options):
        self.lab = lab_module.Lab(BUILD, "mock", keep=bool(os.environ.get("KEEP_LAB")))
        self.lab.start_directory()
        self.directory = self.lab.directory
        self.service = ScriptedService(self.lab.folder + "/scripted")
        self.relay = Relay("127.0.0.1", self.service.args.port)
        options = {"settings": {"limits": {"in_flight": 32, "per_user_hour": 0, "latch_per_hour": 0}, "settling": {"delay": "1s", "limit": "30s"}},
                   "channel_settings": {"ping_interval": "1s", "silence_limit": f"{2 * lab_module.SLOWNESS:g}s"}, **agent_options}
        self.agent = self.lab.agent = lab_module.Agent(BUILD, self.lab.folder + "/agent", self.directory, f"wss://localhost:{self.relay.port}/v1/agent", self.service.ca, **options)
        self.agent.start()
        self.agent.enroll(self.service.issuer, self.service.ticket)
        self.wait_ready()
        self.agent.wait_first_second()

    def wait_ready(self, timeout=10):
        wait_for("a channel", lambda: self.service.ws, timeout)
        self.agent.wait_ready(timeout)

    def send(self, user, op="reset", **members):
        """(claims, frame) of a request that is on its way."""
        claims = self.service.claims(f"{user}@{DOMAIN}", op=op, **({"new_password": NEW} if op == "reset" else {}), **members)
        frame = self.service.sign("wb-request+jwt", claims)
        self.service.send(frame)
        return claims, frame

    def results(self, claims):
        return [r for r in self.service.results if r.get("request_id") == claims["jti"]]

    def downs(self):
        return self.agent.channel.events(event="channel.down")

    def why(self):
        return self.agent.ctl("status", check=False)

    def suffered(self, fault):
        """Adds a fault; what it gives says whether it has befallen somebody."""
        self.directory.control(f"fault add {fault}")
        return lambda: not self.directory.faults()

    def close(self):
        try:
            self.relay.forward()
            self.service.close()
            self.lab.close()
        finally:
            self.relay.close()
        assert self.agent.writebackd.process.returncode == 0, self.agent.writebackd.log_text()[-6000:]
        assert self.agent.channel.process.returncode == 0, self.agent.channel.log_text()[-6000:]


def memory_kb(program, what="VmRSS"):
    """VmHWM: the most there has been."""
    with open(f"/proc/{program.pid}/status", encoding="ascii") as f:
        return int(next(row for row in f if row.startswith(what)).split()[1])


def processor_s(program):
    with open(f"/proc/{program.pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def burst(service, frames):
    """All of them, as fast as they are taken."""
    ws = lab_module.wait_for("a channel", lambda: service.ws)

    async def send():
        for frame in frames:
            await ws.send(frame)
    began = time.monotonic()
    service.call(send(), 60)
    return len(frames) / (time.monotonic() - began)
