"""Once and only once on the way: several agents at one service, cut off and killed with a request in hand, and the service itself killed. The directory's own count of writes and the
service's word are the truth: every request is written at most once on a server, always with the password that was asked for, and has one final outcome, which nothing replaces."""
import contextlib, http.client, os, signal, sqlite3, threading, time, uuid

import pytest
import websockets

import lab as lab_module
from lab import wait_for
from relay import Relay
from scripted_service import ScriptedService

LIMITS = {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0, "unlocks_per_minute": 0}
FAILOVER = 3
QUEUED = 10000 if int(os.environ.get("WRITEBACK_FAULT_ROUNDS", "1")) > 1 else 2500
numbers, users = iter(range(100, 1000)), (f"bench{n:03}" for n in range(100, 200))  # a password has a minimum age: everybody is asked for once


class Site:
    """A directory, the service and agents at it, each behind a cable of its own."""

    def __init__(self, build, count):
        self.lab = lab_module.Lab(build, "mock")
        self.lab.start_directory()
        self.directory = self.lab.directory
        self.start(build, count)

    def start(self, build, count, **directory_settings):
        self.lab.start_service(settings={"failover_after": f"{FAILOVER}s", "request_lifetime": "8s"})
        self.service, self.agents, self.relays = self.lab.service, [], []
        for number in range(count):
            relay = Relay("127.0.0.1", self.service.port)
            agent = lab_module.Agent(build, f"{self.lab.folder}/agent{number}", self.directory, f"wss://localhost:{relay.port}/v1/agent", self.service.ca,
                                     settings={"limits": LIMITS, "settling": {"delay": "1s"}}, directory_settings={"timeouts": {"write": "3s", "locate": "8s"}, **directory_settings})
            self.relays.append(relay)
            self.agents.append(agent)
            agent.start()
            agent.enroll(self.service.issuer, self.service.ticket())
            agent.wait_ready()
            agent.id = next(a["agent_id"] for a in self.service.agents() if a["agent_id"] not in {getattr(other, "id", None) for other in self.agents})

    def mend(self):
        """As at the beginning."""
        with contextlib.suppress(ValueError):
            self.directory.control("fault clear")
        if self.service.program.process.poll() is not None:
            self.service.start()
        for agent, relay in zip(self.agents, self.relays):
            relay.forward()
            for program, start in ((agent.writebackd, agent.start_writebackd), (agent.channel, agent.start_channel)):
                if program.process.poll() is not None:
                    start()
                program.signal(signal.SIGCONT)
        for agent in self.agents:
            # Cut several times a minute, it waits longer and longer before its next try: not here.
            if not next(a["connected"] for a in self.service.agents() if a["agent_id"] == agent.id):
                agent.channel.kill()
                agent.start_channel()
        for agent in self.agents:
            agent.wait_ready(30)
        wait_for("every agent at the service", lambda: all(a["connected"] for a in self.service.agents()), 30)

    def ask(self, op, user):
        return self.service.operate(op, self.directory.subject(user))

    def ask_later(self, user, password, wait=20, fault=None):
        """The operation that is under way, which agent has it, and the others. `fault`: what the directory does to it."""
        operation = Operation(self, user, password, wait, fault)
        sent = self.service.program.wait_event(event="request.sent", operation_id=operation.id)
        operation.first = next(a for a in self.agents if a.id == sent["agent_id"])
        operation.others = [a for a in self.agents if a is not operation.first]
        operation.relay = self.relays[self.agents.index(operation.first)]
        return operation

    def come_to_rest(self):
        """Nothing is owed any more, by either end."""
        wait_for("acknowledgements", lambda: all(a.status()["journal"]["unacknowledged"] == 0 for a in self.agents), 20)

    def close(self):
        try:
            lab_module.stop_all([*(a.close for a in self.agents), *(r.close for r in self.relays)])
        finally:
            self.lab.close()


class Operation:
    def __init__(self, site, user, password, wait, fault):
        self.site, self.user, self.password, self.id = site, user, password, str(uuid.uuid4())
        self.version, self.answer, self.began = site.directory.password_record(user)[0], None, time.monotonic()
        if fault:
            site.directory.control(f"fault add user={user} count=1 {fault}")
        self.thread = threading.Thread(target=self.run, args=(wait,), daemon=True)
        self.thread.start()

    def run(self, wait):
        # The service may die meanwhile: then it is asked again for the outcome.
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.answer = self.site.service.operate("reset", self.site.directory.subject(self.user), wait, self.id, new_password=self.password)

    def end(self, timeout=30):
        """The final outcome, how long it took, and what the directory holds: the service says the same, now and later."""
        self.thread.join(timeout)
        final = self.site.service.wait_final(self.id, timeout)
        self.took = time.monotonic() - self.began
        return final

    def is_applied_once(self):
        final = self.end()
        assert (final["status"], final["code"]) == ("applied", "ok"), final
        self.site.mend()
        self.site.come_to_rest()
        assert self.site.service.operation(self.id) == final
        assert self.site.directory.password_record(self.user)[0] == self.version + 1
        assert self.site.directory.opens(self.user, self.password)
        done = self.site.service.program.events(event="operation.done", operation_id=self.id)
        assert len(done) == 1 and not self.site.service.program.events(event="operation.late", operation_id=self.id)
        return final

    def was_asked(self, agent):
        return bool(self.site.service.program.events(event="request.sent", operation_id=self.id, agent_id=agent.id))

    def ended(self, agent):
        return [e["code"] for e in agent.writebackd.events(event="request.end", operation_id=self.id)]


@pytest.fixture(scope="module")
def pair(build):
    site = Site(build, 2)
    yield site
    site.close()


@pytest.fixture
def site(pair):
    pair.mend()
    return pair


def fresh():
    return f"Gr33n-Field-Harbour-{next(numbers)}"


# Several agents ---------------------------------------------------------------------------------------------------------------------------

def test_the_load_is_balanced(build):
    """Each has its share, also where they do one after the other."""
    site = Site(build, 3)
    try:
        answers = []

        def ask(users):
            for user in users:
                answers.append(site.service.operate("reset", site.directory.subject(user), new_password=fresh()))
        site.directory.control("fault add on=modify count=forever delay=30")
        threads = [threading.Thread(target=ask, args=([f"bench{n:03}" for n in range(begin, 60, 6)],)) for begin in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        ask([f"bench{n:03}" for n in range(60, 66)])
        assert [a["code"] for a in answers] == ["ok"] * 66
        shares = [sum(a["agent_id"] == agent.id for a in answers) for agent in site.agents]
        assert min(shares) >= 14, shares
        assert [sum(a["agent_id"] == agent.id for a in answers[60:]) for agent in site.agents] == [2, 2, 2]
    finally:
        site.close()


@pytest.mark.parametrize("what", ["both", "writebackd", "channel", "stands still"])
def test_an_agent_dies_with_a_request_in_hand(site, what):
    """Before it has written: the other one does it within seconds, and what the first has in hand still it does not write."""
    user, password = next(users), fresh()
    operation = site.ask_later(user, password, fault="on=search delay=1000")
    if what in ("both", "writebackd"):
        operation.first.writebackd.kill()
    if what != "writebackd":
        operation.first.channel.kill()
    if what == "stands still":
        operation.first.writebackd.signal(signal.SIGSTOP)  # wakes with the directory's answer and the loss of its channel at once
    final = operation.is_applied_once()
    assert final["agent_id"] == operation.others[0].id and FAILOVER <= operation.took < FAILOVER + 4, operation.took
    if what in ("channel", "stands still"):
        # Its channel's program is back, and the request is not delivered to it again: it expires.
        operation.first.writebackd.wait_event(event="request.waits", operation_id=operation.id)
        wait_for("the first agent's end of it", lambda: operation.ended(operation.first) == ["request.expired"], 15)
        operation.is_applied_once()


def test_an_agent_that_is_back_in_time_does_it(site):
    """Only the program of its channel dies: the request is delivered again, and nobody else is asked."""
    user, password = next(users), fresh()
    operation = site.ask_later(user, password, fault="on=search delay=600")
    operation.first.channel.kill()
    operation.first.writebackd.wait_event(event="request.waits", operation_id=operation.id)
    operation.first.start_channel()
    final = operation.is_applied_once()
    assert final["agent_id"] == operation.first.id and not operation.was_asked(operation.others[0])


def test_an_agent_is_cut_off_before_it_has_written(site):
    user, password = next(users), fresh()
    operation = site.ask_later(user, password, fault="on=search delay=600")
    operation.relay.refuse()
    operation.relay.reset()
    operation.first.writebackd.wait_event(event="request.waits", operation_id=operation.id)
    final = operation.is_applied_once()
    assert final["agent_id"] == operation.others[0].id
    wait_for("the first agent's end of it", lambda: operation.ended(operation.first) == ["request.expired"], 15)


@pytest.mark.parametrize("user,back", [("alice", True), ("bob", False), ("bench090", False)])
def test_an_agent_is_cut_off_after_it_has_written(site, user, back):
    """Its write stands, its word is lost. The other one finds that very password set and says so: it writes nothing, and nobody is told of history or minimum age. Neither agent may read
    the policy of bench090, but that no wrong password is counted for him."""
    said = site.ask("policy", user)
    assert (said["policy"]["source"] == "unknown") == (user == "bench090"), said
    operation = site.ask_later(user, fresh(), fault="on=modify swallow")
    wait_for("the write", lambda: site.directory.password_record(user)[0] == operation.version + 1)
    operation.relay.refuse()
    operation.relay.reset()
    if back:
        site.service.program.wait_event(event="operation.other_agent", operation_id=operation.id)
        operation.relay.forward()
    final = operation.is_applied_once()
    assert operation.ended(operation.others[0]) == ["ok"] and final["agent_id"] == operation.others[0].id and operation.took < FAILOVER + 4
    wait_for("the first agent's word", lambda: operation.ended(operation.first) == ["ok"], 20)
    site.come_to_rest()
    assert site.service.operation(operation.id) == final


@pytest.mark.parametrize("user", ["bench091"])
def test_nobody_can_tell_whose_write_it_is(site, user):
    """As above, but the policy cannot be read and a wrong password is counted: one more might lock the account, so no agent tries any. The second one does not write again either; the
    outcome is what the first one says once it is back."""
    operation = site.ask_later(user, fresh(), fault="on=modify swallow")
    wait_for("the write", lambda: site.directory.password_record(user)[0] == operation.version + 1)
    operation.relay.refuse()
    operation.relay.reset()
    assert site.directory.bind_error(user, "mistyped")
    wait_for("the second agent's end of it", lambda: operation.ended(operation.others[0]), 15)
    assert operation.ended(operation.others[0]) == ["outcome.unknown"]
    assert site.service.operation(operation.id)["status"] in ("pending", "settling")
    operation.relay.forward()
    assert operation.is_applied_once()["agent_id"] == operation.first.id


def test_what_an_agent_that_drains_has_not_been_sent_goes_to_another(site):
    """An agent is restarted under load: nobody notices."""
    answers, stop = [], time.monotonic() + 4

    def ask(user):
        while time.monotonic() < stop:
            answers.append(site.service.operate("reset", site.directory.subject(user), new_password=fresh()))
    threads = [threading.Thread(target=ask, args=(f"bench{n:03}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    agent = site.agents[0]
    assert agent.writebackd.stop() == 0
    agent.start_writebackd()
    for thread in threads:
        thread.join(60)
    assert {a["code"] for a in answers} == {"ok"} and len(answers) > 20
    site.mend()
    site.come_to_rest()


class SambaSite(Site):
    """Two controllers, of which every agent may use either, each behind a cable that all agents share."""

    def __init__(self, build):
        template = lab_module.samba_template()
        self.lab = lab_module.Lab(build, "samba")
        self.controllers, self.cables = [], []
        self.lab.directory = self.directory = lab_module.SambaDirectory(self.lab.folder + "/dc1", like=template)
        self.controllers = [self.directory, lab_module.SambaDirectory(self.lab.folder + "/dc2", of=self.directory)]
        self.cables = [Relay(c.host, c.port) for c in self.controllers]
        self.start(build, 2, servers=[f"localhost:{cable.port}" for cable in self.cables])

    def slow(self, seconds):
        for cable in self.cables:
            cable.delay(seconds)

    def records(self, user):
        return [controller.password_record(user) for controller in self.controllers]

    def sync(self):
        for _ in range(2):
            for controller in self.controllers:
                controller.sync()

    def close(self):
        self.lab.directory = None
        lab_module.stop_all([*(a.close for a in self.agents), *(r.close for r in (*self.relays, *self.cables)), *(c.close for c in reversed(self.controllers)), self.lab.close])


@pytest.mark.skipif(not os.path.exists("/usr/sbin/samba"), reason="Samba is not installed")
def test_samba_two_controllers_and_two_agents(build):
    """The agent that was asked writes and is not heard any more: cut off, or killed. The other one writes nothing: each controller's record has risen by one, by the same write, and there is one outcome."""
    site = SambaSite(build)
    try:
        for user, how in (("bench000", "cut off"), ("bench001", "killed")):
            site.sync()
            before = site.records(user)
            assert before[0] == before[1]
            site.slow(0.2)
            operation = site.ask_later(user, fresh())
            operation.relay.silence()  # its word is on its way for ever
            wait_for("the write", lambda: any(after != before[0] for after in site.records(user)))
            if how == "killed":
                operation.first.writebackd.kill()
                operation.first.channel.kill()
            operation.relay.refuse()
            operation.relay.reset()
            site.slow(0)
            final = operation.end()
            assert (final["status"], final["code"], final["agent_id"]) == ("applied", "ok", operation.others[0].id) and operation.took < 12, (final, operation.took)
            assert operation.ended(operation.others[0]) == ["ok"]
            operation.relay.forward()
            if how == "killed":
                operation.first.start()
                wait_for("the killed agent's end of it", lambda: operation.ended(operation.first), 20)
            else:
                wait_for("the first agent's word", lambda: operation.ended(operation.first) == ["ok"], 20)
            operation.first.wait_ready(30)
            site.come_to_rest()
            site.sync()
            after = site.records(user)
            assert after[0] == after[1] and after[0][0] == before[0][0] + 1, (before, after)
            assert all(controller.opens(user, operation.password) for controller in site.controllers)
            assert site.service.operation(operation.id) == final
            assert len(site.service.program.events(event="operation.done", operation_id=operation.id)) == 1
    finally:
        site.close()


# The service dies -------------------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def store_held(site):
    """Nothing becomes durable at the service."""
    with contextlib.closing(sqlite3.connect(os.path.join(site.service.folder, "state", "store.sqlite"), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def test_the_service_dies_before_the_result_comes(site):
    user, password = next(users), fresh()
    operation = site.ask_later(user, password, fault="on=modify delay=700")
    site.service.program.kill()
    site.service.start()
    operation.first.channel.kill()
    operation.first.start_channel()  # at once, where the pauses of one that was cut before may be longer than the failover
    final = operation.is_applied_once()
    assert final["agent_id"] == operation.first.id and not operation.was_asked(operation.others[0])


def test_the_service_dies_between_the_result_and_its_record(site):
    user, password = next(users), fresh()
    operation = site.ask_later(user, password, fault="on=modify delay=500")
    with store_held(site):
        site.service.program.wait_event(event="result.received", operation_id=operation.id)
        site.service.program.kill()
    assert operation.first.status()["journal"]["unacknowledged"] == 1
    site.service.start()
    operation.is_applied_once()


def test_the_service_dies_between_the_record_and_the_acknowledgement(site):
    user, password = next(users), fresh()
    operation = site.ask_later(user, password, fault="on=modify delay=500")
    operation.relay.hold_answers()
    site.service.program.wait_event(event="operation.done", operation_id=operation.id)
    assert operation.first.status()["journal"]["unacknowledged"] == 1
    site.service.program.kill()
    operation.relay.forward()
    site.service.start()
    final = operation.is_applied_once()
    again = site.service.program.events(event="result.received", code="ok", agent_id=operation.first.id)
    assert final["request_id"] in {e.get("request_id") for e in again}


@pytest.mark.parametrize("written", [False, True])
def test_the_service_dies_and_then_the_agent(site, written):
    """The first agent has the request, the service is killed, and when it is back the first agent is gone for good: the other one is asked, as if the service had never been away."""
    operation = site.ask_later(next(users), fresh(), fault="on=modify swallow" if written else "on=search delay=1000")
    if written:
        wait_for("the write", lambda: site.directory.password_record(operation.user)[0] == operation.version + 1)
    site.service.program.kill()
    operation.first.writebackd.kill()
    operation.first.channel.kill()
    site.service.start()
    final = operation.is_applied_once()
    assert final["agent_id"] == operation.others[0].id and operation.took < FAILOVER + 6, operation.took


def test_both_ends_die_with_everything_open(site):
    """Agents and service are killed while requests of ten users are on their way; each has one true outcome."""
    operations = [site.ask_later(next(users), fresh(), wait=0, fault="on=modify delay=300") for _ in range(10)]
    site.agents[0].writebackd.kill()
    site.service.program.kill()
    site.agents[1].channel.kill()
    site.mend()
    for operation in operations:
        final, written = operation.end(90), site.directory.password_record(operation.user)[0] - operation.version
        assert final["status"] in ("applied", "failed") and written == (final["status"] == "applied"), (final, written)
        assert site.directory.opens(operation.user, operation.password) == bool(written)
    site.come_to_rest()


# The agent dies ---------------------------------------------------------------------------------------------------------------------------

class Scene:
    def __init__(self, build, **agent_options):
        self.lab = lab_module.Lab(build, "mock")
        self.lab.start_directory()
        self.directory = self.lab.directory
        self.service = ScriptedService(self.lab.folder + "/scripted")
        self.agent = self.lab.agent = lab_module.Agent(build, self.lab.folder + "/agent", self.directory, self.service.endpoint, self.service.ca, **agent_options)
        self.agent.start()
        self.agent.enroll(self.service.issuer, self.service.ticket)
        self.agent.wait_ready()

    def user(self, name):
        return {"format": "sAMAccountName", "id": name, "domain": lab_module.NETBIOS}

    def frame(self, claims):
        return self.service.sign("wb-request+jwt", claims)

    def results(self, claims):
        return [r for r in self.service.results if r.get("request_id") == claims["jti"]]

    def close(self):
        self.service.close()
        self.agent.close()
        self.lab.close()


def test_an_agent_that_is_killed_tells_its_outcome_until_it_is_acknowledged(scene):
    s = scene()
    s.service.acknowledge = False
    claims = s.service.claims(s.user("alice"), new_password=fresh())
    s.service.send(s.frame(claims))
    wait_for("the result", lambda: s.results(claims))
    for round in (1, 2):
        s.agent.writebackd.kill()
        count = len(s.results(claims))
        s.service.acknowledge = round == 2
        s.agent.start_writebackd()
        wait_for("the result again", lambda: len(s.results(claims)) > count, 20)
    wait_for("the acknowledgement", lambda: s.agent.status()["journal"]["unacknowledged"] == 0)
    said = [{m: v for m, v in r.items() if m not in ("iat", "durations_ms")} for r in s.results(claims)]
    assert said[0]["code"] == "ok" and all(each == said[0] for each in said)
    s.agent.writebackd.kill()
    count = len(s.results(claims))
    s.agent.start_writebackd()
    s.agent.wait_ready()
    lookup = s.service.claims(s.user("bob"), op="unlock")
    assert s.service.ask(lookup)["code"] == "ok" and len(s.results(claims)) == count  # acknowledged is acknowledged


# Limits -----------------------------------------------------------------------------------------------------------------------------------

def test_too_much_is_refused_at_once(scene):
    """The directory stands still: what is more than the limit is told so at once, not when its time is up."""
    s = scene(settings={"limits": {"in_flight": 4}})
    s.directory.pause()
    try:
        asked = [s.service.claims(s.user(f"bench{n:03}"), new_password=fresh()) for n in range(12)]
        began = time.monotonic()
        for claims in asked:
            s.service.send(s.frame(claims))
        wait_for("the refusals", lambda: sum(bool(s.results(c)) for c in asked) >= 8, 5)
        assert time.monotonic() - began < 2
        assert [r["code"] for c in asked[4:] for r in s.results(c)] == ["agent.overloaded"] * 8 and not any(s.results(c) for c in asked[:4])
    finally:
        s.directory.go()
    wait_for("the others", lambda: all(s.results(c) for c in asked), 20)


def test_thousands_are_queued_after_an_hour(scene, build):
    """The service redelivers all of an hour at once, and again at each new channel what has no outcome yet: what has expired is answered cheaply, the newest users are served, nothing
    that has expired is written, the throttle holds, and nothing grows beyond bounds."""
    s = scene(settings={"limits": {**LIMITS, "in_flight": 64, "per_minute": 30}}, directory_settings={"timeouts": {"locate": "20s"}})  # on a slow machine, sanitized
    late = {"iat": int(time.time()) - 3600, "exp": int(time.time()) - 3570}
    first = 0
    before = {n: s.directory.password_record(f"bench{n:03}")[0] for n in range(first, first + 40)}
    old = s.service.claims(s.user(f"bench{first:03}"), new_password=fresh())
    frames = {jti: s.frame({**old, "jti": jti, "operation_id": str(uuid.uuid4()), **late}) for jti in (str(uuid.uuid4()) for _ in range(QUEUED))}
    newest = [s.service.claims(s.user(f"bench{n:03}"), new_password=fresh(), exp=int(time.time()) + 110) for n in before]
    frames |= {claims["jti"]: s.frame(claims) for claims in newest}

    def resident():
        with open(f"/proc/{s.agent.writebackd.pid}/status") as f:
            return int(next(line for line in f if line.startswith("VmRSS")).split()[1])

    def answered():
        return {r["request_id"] for r in s.service.results}
    at_first = resident()

    async def deliver():
        ws = s.service.ws
        for jti in [jti for jti in frames if jti not in answered()] if ws else []:
            await ws.send(frames[jti])
        return ws
    began = time.monotonic()
    while len(answered()) < len(frames):
        assert time.monotonic() - began < 60, (len(answered()), s.agent.writebackd.log_text()[-2000:])
        with contextlib.suppress(websockets.ConnectionClosed):
            channel = s.service.call(deliver(), 60)
            wait_for("an answer to each, or another channel", lambda: len(answered()) == len(frames) or s.service.ws is not channel, 60)
        time.sleep(0.05)
    assert not s.agent.writebackd.events(event="link.detached")  # frames that come too fast are held back, not an end of everything
    codes = {jti: {r["code"] for r in s.service.results if r["request_id"] == jti} for jti in (c["jti"] for c in newest)}
    assert sorted("".join(code) for code in codes.values()) == ["agent.throttled"] * 10 + ["ok"] * 30, codes
    assert {r["code"] for r in s.service.results if r["request_id"] not in codes} == {"request.expired"}
    assert [s.directory.password_record(f"bench{n:03}")[0] - before[n] for n in before] == [codes[c["jti"]] == {"ok"} for c in newest]
    assert not lab_module.is_plain(build) or resident() - at_first < 60000, (at_first, resident())
