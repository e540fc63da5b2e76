"""Two controllers of one domain while resets flow: one of them is killed, silent, stopped, restarted with another certificate, or behind. Every request gets one outcome, what was
`applied` is the user's password in the end, nothing is written twice on one server, nothing is written that was refused. WRITEBACK_FAULT_ROUNDS makes it longer."""
import collections, hashlib, json, os, signal, threading, time, uuid

import ldap
import pytest

import lab as lab_module
from lab import NETBIOS, Late, wait_for
from relay import Relay
from scripted_service import ScriptedService

ROUNDS = int(os.environ.get("WRITEBACK_FAULT_ROUNDS", "1"))
FINAL = ("applied", "refused", "failed", "unknown")


class Outcomes(list):
    """The service's results; the final ones by request."""

    def __init__(self):
        super().__init__()
        self.final = collections.defaultdict(list)

    def append(self, result):
        super().append(result)
        if result["status"] in FINAL and result.get("request_id"):
            self.final[result["request_id"]].append((time.monotonic(), result))


class Mocks:
    users, pace, timeouts = [f"bench{n:03}" for n in range(16)], 0.8, {"connect": "1s", "locate": "1s", "write": "1s"}

    def __init__(self, build, folder):
        self.controllers = [lab_module.MockDirectory(build, os.path.join(folder, "dc1"))]
        self.controllers.append(lab_module.MockDirectory(build, os.path.join(folder, "dc2"), of=self.controllers[0]))
        self.read_only = None
        self.replication = lab_module.MockReplication(self.controllers)

    def wait_in_step(self):
        def records():
            found = [json.loads(c.control("changes 0"))["accounts"] for c in self.controllers]
            return [{a["name"]: [a["password"]["record"][key] for key in ("version", "originator", "usn")] for a in each if a["name"] in self.users} for each in found]
        wait_for("the controllers to be in step", lambda: (r := records())[0] == r[1], 20)

    def lose_answers(self, used):
        """It does the next two writes and does not answer them."""
        self.controllers[used].control("fault add on=modify swallow count=2")

    def writes(self):
        """For each controller: password (as its digest) -> how often it was written there, by its own record of its writes."""
        return [self.written_on(controller) for controller in self.controllers]

    @staticmethod
    def written_on(controller):
        own, seen = json.loads(controller.control("changes 999999999"))["invocation_id"], {}
        with open(os.path.join(controller.folder, "state"), encoding="utf-8") as f:
            for line in f:
                if line.endswith("\n"):
                    password = json.loads(line)["password"]
                    if password["record"]["originator"] == own:
                        seen[password["record"]["usn"]] = password["value"][0]
        return collections.Counter(seen.values())

    def close(self):
        self.replication.close()
        lab_module.stop_all(c.close for c in self.controllers)


class Sambas:
    users, pace, timeouts = [f"bench{n:03}" for n in range(24)], 3.0, {"connect": "1s", "locate": "1s", "write": "2s"}

    def __init__(self, build, folder):
        template = lab_module.samba_template()
        self.controllers = [lab_module.SambaDirectory(os.path.join(folder, "dc1"), like=template)]
        self.controllers.append(lab_module.SambaDirectory(os.path.join(folder, "dc2"), of=self.controllers[0]))
        self.read_only = lab_module.SambaDirectory(os.path.join(folder, "dc3"), of=self.controllers[0], read_only=True)

    def wait_in_step(self):
        for _ in range(2):
            for controller in self.controllers:
                controller.sync()

        def same():
            return all(self.controllers[0].password_record(user) == self.controllers[1].password_record(user) for user in self.users)
        wait_for("the controllers to be in step", same, 30)

    def lose_answers(self, used):
        pass

    def writes(self):
        return None

    def close(self):
        lab_module.stop_all(c.close for c in (self.read_only, *reversed(self.controllers)))


class Scene:
    def __init__(self, build, domain, **settings):
        self.lab = lab_module.Lab(build, "mock", keep=bool(os.environ.get("KEEP_LAB")))
        self.outcomes = Outcomes()
        self.parts = []
        try:
            self.domain = domain(build, self.lab.folder)
            self.parts.append(self.domain)
            self.controllers = self.domain.controllers
            everyone = [*self.controllers, *([self.domain.read_only] if self.domain.read_only else [])]
            self.relays = [Relay(c.host, c.port) for c in everyone]
            self.parts += self.relays
            self.service = ScriptedService(self.lab.folder + "/scripted")
            self.parts.insert(0, self.service)
            self.service.results = self.outcomes
            self.agent = lab_module.Agent(build, self.lab.folder + "/agent", self.controllers[0], self.service.endpoint, self.service.ca,
                directory_settings={"servers": [f"localhost:{relay.port}" for relay in self.relays], "timeouts": domain.timeouts},
                settings={"limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0}, "settling": {"delay": "3s", "limit": "60s"}, **settings})
            self.parts.insert(0, self.agent)
            self.agent.start()
            self.agent.enroll(self.service.issuer, self.service.ticket)
            wait_for("the greeting", lambda: self.service.ws)
            self.wait_up(2)
        except BaseException:
            self.close()
            raise

    def health(self):
        return self.agent.status()["directories"][0]

    def wait_up(self, count, timeout=40):
        wait_for(f"{count} servers to be up", lambda: self.health()["servers_up"] == count, timeout)

    def server(self, result):
        """0 for dc1, 1 for dc2; None."""
        name = result.get("directory", {}).get("server")
        return next((i for i, relay in enumerate(self.relays) if name == f"localhost:{relay.port}"), None)

    def claims(self, user, password, prefer=None):
        """`prefer`: 0 for dc1; None: the agent chooses."""
        return self.service.claims({"format": "sAMAccountName", "id": user, "domain": NETBIOS}, new_password=password,
                                   **({} if prefer is None else {"prior_server": f"localhost:{self.relays[prefer].port}"}))

    def ask(self, user, password, timeout=40, prefer=None):
        """Asks for a reset and waits for its end: (claims, final result, seconds)."""
        began = time.monotonic()
        claims = self.claims(user, password, prefer)
        self.service.send(self.service.sign("wb-request+jwt", claims))
        ended, result = wait_for(f"the outcome for {user}", lambda: self.outcomes.final.get(claims["jti"]), timeout)[0]
        return claims, result, ended - began

    def close(self):
        try:
            lab_module.stop_all(part.close for part in self.parts)
        finally:
            self.lab.close()


class Flow:
    """Resets of several users, one in flight for each, each with a password of its own, not faster for one user than replication goes."""

    def __init__(self, scene):
        self.scene, self.done, self.stopping, self.failures = scene, [], False, []
        self.threads = [threading.Thread(target=self.run, args=(user, n / len(scene.domain.users)), daemon=True) for n, user in enumerate(scene.domain.users)]
        for thread in self.threads:
            thread.start()

    def run(self, user, phase):
        try:
            time.sleep(phase * self.scene.domain.pace)
            while not self.stopping:
                password = f"Flow-{uuid.uuid4().hex[:16]}-Aa1"
                claims, result, seconds = self.scene.ask(user, password)
                self.done.append({"user": user, "password": password, "jti": claims["jti"], "status": result["status"], "code": result["code"], "seconds": seconds,
                                  "server": self.scene.server(result), "at": time.monotonic()})
                time.sleep(self.scene.domain.pace)
        except Exception as error:
            self.failures.append(error)

    def since(self, at, status="applied", server=None):
        return [one for one in list(self.done) if one["at"] > at and one["status"] == status and (server is None or one["server"] == server)]

    def wait_served(self, at, server=None, count=6, timeout=30):
        """So many were applied since, on that server."""
        def served():
            if self.failures:
                raise self.failures[0]
            return len(self.since(at, server=server)) >= count
        wait_for(f"{count} resets to be applied{'' if server is None else f' on dc{server + 1}'}", served, timeout)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self.threads)
        if self.failures:
            raise self.failures[0]


def opens(directory, user, password):
    try:
        return directory.opens(user, password)
    except ldap.LDAPError:
        return False


def judge(scene, flow):
    """What must hold of everything that was asked."""
    for one in flow.done:
        finals = scene.outcomes.final[one["jti"]]
        assert len({(r["status"], r["code"]) for _, r in finals}) == 1, finals
    scene.domain.wait_in_step()
    for user in scene.domain.users:
        mine = [one for one in flow.done if one["user"] == user]
        last = max((i for i, one in enumerate(mine) if one["status"] == "applied"), default=None)
        assert last is not None, f"nothing was applied for {user}"
        may = [mine[last], *(one for one in mine[last + 1:] if one["status"] == "unknown")]
        for controller in scene.controllers:
            assert any(opens(controller, user, one["password"]) for one in may), (user, controller.folder, [(o["status"], o["code"], o["server"], o["password"]) for o in mine[-6:]])
    written = scene.domain.writes()
    if written is None:
        return
    by_digest = {hashlib.sha256(one["password"].encode()).hexdigest(): one for one in flow.done}
    for index, counts in enumerate(written):
        for digest, one in by_digest.items():
            assert counts[digest] <= 1, f"written {counts[digest]} times on dc{index + 1}: {one}"
    for digest, one in by_digest.items():
        if one["status"] in ("refused", "failed"):
            assert not any(counts[digest] for counts in written), f"told as not done, and done: {one}"
        elif one["status"] == "applied":
            assert any(counts[digest] for counts in written), f"told as done, and not done: {one}"


class Report:
    def __init__(self, scene, flow, capsys):
        self.scene, self.flow, self.capsys = scene, flow, capsys

    def say(self, text):
        with self.capsys.disabled():
            print("\n" + text, end="", flush=True)

    def fault(self, name, blow, heal, aim=1.0, limit=8.0):
        """A blow at the controller that is in use: the flow goes on with the other one; then it is healed, and the flow goes on. Both get this one, its cable and the other one."""
        at = time.monotonic()
        self.flow.wait_served(at, count=6)
        used = collections.Counter(one["server"] for one in self.flow.since(at)).most_common(1)[0][0]
        spared = 1 - used
        whom = self.scene.controllers[used], self.scene.relays[used], self.scene.controllers[spared]
        before = len(self.flow.done)
        self.scene.domain.lose_answers(used)
        time.sleep(self.scene.domain.pace / 4)
        blown = time.monotonic()
        blow(*whom)
        self.flow.wait_served(blown, server=spared, count=12)
        over = min(one["at"] for one in self.flow.since(blown, server=spared)) - blown
        longest = max(one["seconds"] for one in self.flow.done[before:])
        codes = collections.Counter(one["code"] for one in self.flow.done[before:] if one["status"] != "applied")
        heal(*whom)
        self.scene.wait_up(2)
        self.flow.wait_served(time.monotonic(), count=6)
        self.say(f"{self.scene.controllers[0].name}: {name}: first reset by the other controller after {over:.2f} s (aim: {aim:.1f} s), longest request {longest:.2f} s, "
                 f"{len(self.flow.done) - before} requests, {dict(codes) or 'all applied'}")
        assert over < limit


def seconds(text):
    return float(text.rstrip("s"))


@pytest.mark.parametrize("kind", [Mocks, Sambas])
def test_one_of_two_fails_while_resets_flow(build, capsys, kind):
    if kind is Sambas and not os.path.exists("/usr/sbin/samba"):
        pytest.skip("Samba is not installed")
    scene = Scene(build, kind)
    try:
        flow = Flow(scene)
        report = Report(scene, flow, capsys)
        if scene.domain.read_only:
            assert scene.health()["servers"] == 3 and scene.health()["servers_up"] == 2
        quiet = seconds(kind.timeouts["write"]) + 0.5

        def restart(controller, foreign):
            controller.stop()
            controller.certificate(foreign)
            controller.start()

        def mend(controller):
            restart(controller, False)
            scene.agent.writebackd.signal(signal.SIGHUP)  # else it waits for its next try, up to half a minute

        def kill_before_replication(this, cable, other):
            other.hold()
            this.kill()

        def start_and_replicate(this, cable, other):
            this.start()
            other.release()
        for n in range(ROUNDS):
            report.fault("killed", lambda this, *_: this.kill(), lambda this, *_: this.start())
            report.fault("silent", lambda this, cable, _: cable.silence(), lambda this, cable, _: cable.forward(), aim=quiet)
            if kind is Mocks or n:
                report.fault("its answers held", lambda this, cable, _: cable.hold_answers(), lambda this, cable, _: cable.forward(), aim=quiet)
            report.fault("stopped", lambda this, *_: this.pause(), lambda this, *_: this.go(), aim=quiet)
            report.fault("another authority's certificate", lambda this, *_: restart(this, True), lambda this, *_: mend(this))
            report.fault("killed while the other is behind", kill_before_replication, start_and_replicate)
        flow.stop()
        judge(scene, flow)
        codes = collections.Counter(each["code"] for each in flow.done)
        report.say(f"{scene.controllers[0].name}: {len(flow.done)} requests in all: {dict(codes)}")
        assert codes["ok"] > len(flow.done) / 2
    finally:
        scene.close()


# One race at a time -------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def mocks(build):
    scene = Scene(build, Mocks)
    yield scene
    scene.close()
    assert scene.agent.writebackd.process.returncode == 0, scene.agent.writebackd.log_text()[-6000:]


NEW = "Gr33n-Field-Harbour"


def digest_of(password):
    return hashlib.sha256(password.encode()).hexdigest()


def writes_of(scene, password):
    """How often it was written on dc1, on dc2."""
    return tuple(counts[digest_of(password)] for counts in scene.domain.writes())


@pytest.fixture
def race(mocks):
    one, other = mocks.controllers
    mocks.wait_up(2)
    mocks.domain.wait_in_step()
    yield mocks, one, other
    for controller in (one, other):
        controller.control("fault clear")
        controller.release()


def test_lost_and_done_and_known_to_the_other(race):
    """The first write comes to the other controller before the agent asks there: nothing is written again, and whose it is the bind at the first one says."""
    scene, one, other = race
    one.control("fault add on=modify user=alice swallow")
    _, result, took = scene.ask("alice", NEW + "1", prefer=0)
    assert result["code"] == "ok" and took < 4
    assert writes_of(scene, NEW + "1") == (1, 0)


def test_anothers_write_comes_to_the_other(race):
    """Ours is dropped, and an administrator sets one through the same controller before that is known: one write, and it comes by replication as ours would have."""
    scene, one, other = race
    one.control("fault add on=modify user=bench090 drop")
    threading.Timer(0.4, lambda: one.control('set bench090 password="Admin-Set-This-99"')).start()
    _, result, _ = scene.ask("bench090", NEW + "7", prefer=0)
    assert result["status"] in ("failed", "unknown"), result
    assert writes_of(scene, NEW + "7") == (0, 0)
    assert one.opens("bench090", "Admin-Set-This-99")


def test_lost_and_done_while_the_other_is_behind(race):
    """Both write it, and whichever stands is right. Policy hints hold for both: the minimum age is a day."""
    scene, one, other = race
    other.hold()
    one.control("fault add on=modify user=bob cut-after")
    claims, result, took = scene.ask("bob", NEW + "2", prefer=0)
    assert result["code"] == "ok" and took < 2.5 and scene.server(result) == 1
    assert writes_of(scene, NEW + "2") == (1, 1)
    assert took >= 1 or not [r for r in scene.outcomes if r["status"] == "settling" and r["request_id"] == claims["jti"]], "nobody hears of settling where the other one helps at once"
    other.release()
    scene.domain.wait_in_step()
    assert one.opens("bob", NEW + "2") and other.opens("bob", NEW + "2")


def test_lost_and_not_done(race):
    scene, one, other = race
    one.control("fault add on=modify user=carol cut-before")
    _, result, took = scene.ask("carol", NEW + "3", prefer=0)
    assert result["code"] == "ok" and took < 2.5
    assert writes_of(scene, NEW + "3") == (0, 1)


def test_a_success_is_no_history_refusal(race):
    """The first write comes to the other controller just before the second does: refused as too recent, because it has been done."""
    scene, one, other = race
    other.hold()
    one.control("fault add on=modify user=dave cut-after")
    other.control("fault add on=modify user=dave delay=600")
    threading.Timer(0.3, other.release).start()
    _, result, took = scene.ask("dave", NEW + "4", prefer=0)
    assert result["status"] == "applied", result
    assert writes_of(scene, NEW + "4") == (1, 0)


def test_a_stalled_controller_does_it_later(race):
    """Stopped with the modify in its hands; it goes on after the other one was written: the same password twice, once on each."""
    scene, one, other = race
    one.control("fault add on=modify user=zoe delay=300")
    done = []
    asked = threading.Thread(target=lambda: done.append(scene.ask("zoe", NEW + "5", prefer=0)))
    asked.start()
    wait_for("the modify to have come", lambda: json.loads(one.control("stats"))["modify"] and "user=zoe" not in faults(one))
    one.pause()
    asked.join(20)
    one.go()
    assert done[0][1]["code"] == "ok" and scene.server(done[0][1]) == 1
    wait_for("the first write", lambda: writes_of(scene, NEW + "5") == (1, 1))
    scene.domain.wait_in_step()
    assert one.opens("zoe", NEW + "5") and other.opens("zoe", NEW + "5")


def faults(controller):
    import socket
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(controller.control_path)
        s.sendall(b"fault list\n")
        text = ""
        with s.makefile(encoding="utf-8") as lines:
            for line in lines:
                if line == ".\n":
                    return text
                text += line


def test_no_second_write_that_would_be_wrong(race):
    """Ours was lost and not done, and the other controller could be written. But an administrator has set the password there since; or it has not heard of two writes at the first one, which
    would outlast ours. Ours is written nowhere, and not told as done. No rule of the directory would refuse it: these users have neither minimum age nor history."""
    scene, one, other = race
    since, behind = "bench091", "bench092"
    other.hold()
    for password in ("Admin-Set-This-97", "Admin-Set-This-98"):
        one.control(f'set {behind} password="{password}"')
    passwords = {since: NEW + "6", behind: NEW + "8"}
    claims = {user: scene.claims(user, password, prefer=0) for user, password in passwords.items()}
    for user in passwords:
        one.control(f"fault add on=modify user={user} drop")
        scene.service.send(scene.service.sign("wb-request+jwt", claims[user]))
    wait_for("the first write to be lost", lambda: f"user={since}" not in faults(one))
    other.control(f'set {since} password="Admin-Set-This-99"')
    results = {user: wait_for("the outcome", lambda: scene.outcomes.final.get(claims[user]["jti"]), 20)[0][1] for user in passwords}
    assert {user: writes_of(scene, password) for user, password in passwords.items()} == {since: (0, 0), behind: (0, 0)}, results
    assert results[since]["status"] in ("failed", "unknown") and results[behind]["status"] == "failed", results
    other.release()
    wait_for("the controllers to be in step", lambda: other.opens(behind, "Admin-Set-This-98"), 10)
    for controller in (one, other):
        assert controller.opens(since, "Admin-Set-This-99") and controller.opens(behind, "Admin-Set-This-98")


@pytest.mark.parametrize("user, first, second, expected, writes", [
    ("never1", "swallow", "delay=700", "applied", (1, 0)),     # it ends between the second intent and the second write
    ("twin1", "drop", "swallow", "applied", (0, 1)),           # the second write is done, its answer lost, and the agent ends
    ("twin2", "drop", "drop", "failed", (0, 0)),
])
def test_the_agent_is_killed_between_two_writes(race, user, first, second, expected, writes):
    scene, one, other = race
    password = f"{NEW}-{first}-{second}"
    other.hold()
    one.control(f"fault add on=modify user={user} {first}")
    other.control(f"fault add on=modify user={user} {second}")
    claims = scene.claims(user, password, prefer=0)
    scene.service.send(scene.service.sign("wb-request+jwt", claims))
    wait_for("the second write to be on its way", lambda: f"user={user}" not in faults(other))
    if second.startswith("delay"):
        other.pause()  # what is put off does not come to be done after all: its connection is gone by then
    scene.agent.writebackd.kill()
    if second.startswith("delay"):
        other.go()
    scene.agent.start_writebackd()
    result = wait_for("the outcome", lambda: scene.outcomes.final.get(claims["jti"]), 40)[0][1]
    assert result["status"] == expected, result
    assert writes_of(scene, password) == writes
    other.release()
