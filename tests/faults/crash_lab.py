"""crash_lab: several agents, each with a service of its own, at one pair of domain controllers; what dies is started again at once, as systemd would; and any of their processes can
be made to die at a point of base/crash.h (build with -Dcrash_points=true)."""
import collections, contextlib, glob, json, os, random, re, shutil, signal, sqlite3, subprocess, tempfile, threading, time

import lab as lab_module
from lab import Late, wait_for
from observer import FINAL, Observer
from relay import Relay

# Users are reset again and again; the ceilings have tests of their own. Settling waits for a second instead of 30.
SETTINGS = {"limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0, "unlocks_per_minute": 0}, "settling": {"delay": "1s", "limit": "60s"}}
TIMEOUTS = {"mock": {"connect": "2s", "locate": "2s", "write": "1s"}, "samba": {"connect": "5s", "locate": "5s", "write": "1s"}}  # a controller of a busy host may take its time to judge a bind
Point = collections.namedtuple("Point", "number process name what")
PROCESSES = ("writebackd", "writebackd-channel", "reset-service")
TWO = ("SETTLING_BEGUN", "SECOND_INTENT_GIVEN", "SECOND_INTENT_RECORDED", "SECOND_MODIFY_MADE", "SECOND_MODIFY_ANSWERED")  # reached where the first server's answer is lost
RESTART = ("SETTLING_RESTORED", "SETTLING_READ", "SETTLED")  # reached by who finds an intent at its start
KEYS = ("KEYS_MADE", "KEYS_NAMED", "REKEY_SENT", "REKEYED", "KEYS_SWITCHED", "KEYS_REPLACED", "KEYS_DESTROYED")  # reached where the agent's own keys are replaced; no directory is asked


def points():
    """The table of base/crash.h, the write's second passing of MODIFY_SENT, and the service's of FRAME_SENT."""
    found, process = [], None
    with open(os.path.join(lab_module.ROOT, "base", "crash.h"), encoding="utf-8") as f:
        for line in f:
            if line.strip("\t\n /*") in PROCESSES:
                process = line.strip("\t\n /*")
            match = re.match(r"\tCRASH_(\w+) = (\d+),\s*/\* (.*) \*/", line)
            if match:
                found.append(Point(int(match[2]), process, match[1], match[3]))
    sent = next(p for p in found if p.name == "FRAME_SENT")
    found.append(sent._replace(process="reset-service"))
    found.append(Point(10, "writebackd", "MODIFY_SENT second", "the second write's"))
    return sorted(found)


def has_points(build):
    with open(os.path.join(build, "agent", "writebackd"), "rb") as f:
        return b"WRITEBACK_CRASH_FILE" in f.read()


class World:
    """Two controllers of a domain; mock or samba. `users` that nobody has taken yet."""

    def __init__(self, build, kind, keep=False):
        self.build, self.kind, self.keep, self.lock = build, kind, keep, threading.Lock()
        self.folder = tempfile.mkdtemp(prefix="writebackd-lab-")
        self.taken, self.holders, self.parts = 0, 0, []
        try:
            if kind == "mock":
                self._add(lab_module.MockDirectory(build, os.path.join(self.folder, "dc1")))
                self._add(lab_module.MockDirectory(build, os.path.join(self.folder, "dc2"), of=self.parts[0]))
                self.controllers = list(self.parts)
                self._add(lab_module.MockReplication(self.controllers), first=True)
            else:
                self._add(lab_module.SambaDirectory(os.path.join(self.folder, "dc1"), like=lab_module.samba_template()))
                self._add(lab_module.SambaDirectory(os.path.join(self.folder, "dc2"), of=self.parts[0]), first=True)
                self.controllers = list(reversed(self.parts))
        except BaseException:
            self.close()
            raise

    def _add(self, part, first=False):
        self.parts.insert(0 if first else len(self.parts), part)

    def user(self):
        """One after the other of all of them: there are more than a whole run asks for, since an observer knows nothing of what another one asks for the same user."""
        with self.lock:
            self.taken += 1
            return f"bench{(self.taken - 1) % 240:03}"

    @contextlib.contextmanager
    def held(self):
        """Nothing replicates meanwhile: else the first write is seen on the second server before that is written to."""
        with self.lock:
            self.holders += 1
            for controller in self.controllers if self.holders == 1 else []:
                controller.hold()
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                for controller in self.controllers if self.holders == 0 else []:
                    controller.release()

    def close(self):
        try:
            lab_module.stop_all(part.close for part in self.parts)
        finally:
            if not self.keep and not lab_module.verdicts(self.folder, take=False):
                shutil.rmtree(self.folder, ignore_errors=True)


class Cell:
    """One service and one agent, watched over, and their observer."""

    def __init__(self, world, name):
        self.world, self.folder, self.name = world, os.path.join(world.folder, name), name
        os.makedirs(self.folder)
        self.files = {process: os.path.join(self.folder, process + ".crash") for process in PROCESSES}
        env = {process: {"WRITEBACK_CRASH_FILE": path} for process, path in self.files.items()}
        self.parts, self.watching, self.held, self.forgotten, self.deaths, self.restarts, self.slow_channel = [], True, False, 0, collections.Counter(), 0, 0.0
        self.rekeyed = 0
        try:
            self.relays = [Relay(c.host, c.port) for c in world.controllers]
            self.parts += self.relays
            self.service = lab_module.Service(world.build, os.path.join(self.folder, "service"), {"queue_wait": "20s"}, env=env["reset-service"])
            self.parts.insert(0, self.service)
            self.agent = lab_module.Agent(world.build, os.path.join(self.folder, "agent"), world.controllers[0], f"wss://localhost:{self.service.port}/v1/agent", self.service.ca,
                                          settings=SETTINGS, directory_settings={"servers": [f"localhost:{r.port}" for r in self.relays], "timeouts": TIMEOUTS[world.kind]}, env=env)
            self.parts.insert(0, self.agent)
            self.agent.start()
            self.agent.enroll(self.service.issuer, self.service.ticket())
            self.wait_ready()
            self.observer = Observer(world.build, world.controllers, self.service, [self.agent], self.folder)
        except BaseException:
            self.close()
            raise
        self.thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self.thread.start()

    # As systemd would ---------------------------------------------------------------------------------------------------------------------

    def program(self, process):
        return {"writebackd": self.agent.writebackd, "writebackd-channel": self.agent.channel, "reset-service": self.service.program}[process]

    def _watch(self):
        start = {"writebackd": self.agent.start_writebackd, "writebackd-channel": self.agent.start_channel, "reset-service": self.service.start}
        while self.watching:
            for process in PROCESSES:
                if self.watching and not self.held and self.program(process).process.poll() is not None:
                    self.deaths[process, self.program(process).process.returncode] += 1
                    if process == "writebackd" and self.slow_channel:  # what is delivered again comes late
                        self.agent.channel.signal(signal.SIGSTOP)
                        threading.Timer(self.slow_channel, self.agent.channel.signal, (signal.SIGCONT,)).start()
                        self.slow_channel = 0.0
                    try:
                        start[process]()
                        self.restarts += 1
                    except Late:  # it died again before it listened: the next round starts it
                        pass
            time.sleep(0.02)

    def killed(self, process):
        return self.deaths[process, -signal.SIGKILL]

    def ready(self):
        try:
            status = self.agent.status()
            return status["state"] == "ready" and status["directories"][0]["servers_up"] == len(self.relays) and status
        except (OSError, ValueError, KeyError):
            return None

    def wait_ready(self, timeout=30):
        end = time.monotonic() + timeout
        while not self.ready():
            if time.monotonic() > end:
                raise Late(f"{self.name} is not ready: {Observer.last_words(self.agent)}")
            time.sleep(0.1)

    def arm(self, process, name, count=1, how="kill"):
        path = self.files[process]
        with open(path + ".new", "w", encoding="ascii") as f:
            f.write(f"{name} {count} {how}\n")
        os.rename(path + ".new", path)

    def passed(self, process, timeout=15):
        try:
            wait_for(f"{process} of {self.name} to pass its point", lambda: not os.path.exists(self.files[process]), timeout)
        except Late as late:
            raise Late(f"{late}; {Observer.last_words(self.agent)}") from None

    # One cycle ----------------------------------------------------------------------------------------------------------------------------

    def crash(self, point, rng):
        """Lets the process die at the point while a request passes it; what was asked, settled. Raises Late where it never came there."""
        if point.name in KEYS:
            return self._crash_rotating(point)
        second = point.name.split()[0] in TWO or point.name.endswith("second")
        with self.world.held() if second else contextlib.nullcontext():
            return self._crash(point, rng, second)

    def _crash(self, point, rng, second):
        self._calm_down()
        name, process = point.name.split()[0], point.process
        self.wait_ready()
        kinds = ["reset", "reset", "unlocking"] if second or name == "DECRYPTED" else ["reset", "reset", "unlocking", "unlock"]
        kind, before = rng.choice(kinds), self.killed(process)
        late = rng.choice([0.0, 0.0, 1.5]) if process == "writebackd" else 0.0
        # The servers' own events: an answer is lost because the cable holds it, from the moment before the write on.
        if second:
            self.arm(process, "RECHECKED", how="stop")
        elif name in RESTART:
            self.arm(process, rng.choice(["MODIFY_SENT", "MODIFY_ANSWERED", "INTENT_RECORDED"]))
        else:
            self.arm(process, name)
        self.slow_channel, self.held = late, name in RESTART
        one = self.observer.ask(self.world.user(), op="unlock" if kind == "unlock" else "reset", unlock=kind == "unlocking", locked=kind != "reset", writes=2 if second else 1)
        self.passed(process)
        if second:
            self._lose_the_answer(point)
        elif name in RESTART:
            wait_for("it to be dead", lambda: self.program(process).process.poll() is not None)
            self.arm(process, name)
            self.held = False
            self.passed(process, 20)
        wait_for(f"{process} to be killed at {name}", lambda: self.killed(process) > before, 10)
        if second:
            time.sleep(rng.choice([0, 0, 1.0]))
            for relay in self.relays:
                relay.forward()
        self.slow_channel = 0.0
        return self._outcome(one, point)

    def _calm_down(self):
        # A service that ends again and again within a minute is called at longer and longer intervals, up to a minute: a channel that has just begun knows nothing of that.
        if self.killed("reset-service") > self.forgotten:
            self.forgotten = self.killed("reset-service")
            self.agent.channel.stop()

    def _crash_rotating(self, point):
        """The agent is told to replace its keys and dies at the point; started again it has one pair, the service's, and no other file; and works by it."""
        self._calm_down()
        self.wait_ready()
        self.held = True
        self.arm("writebackd", point.name)
        self.rekeyed += 1
        with subprocess.Popen([os.path.join(self.world.build, "agent/ctl/writebackctl"), "--socket", self.agent.control, "rotate-keys"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as call:
            self.passed("writebackd")
            wait_for("it to be dead", lambda: self.agent.writebackd.process.poll() is not None)
            call.wait(10)
        self._let_the_overlap_pass()
        self.held = False
        self.agent.channel.stop()  # its pause after so many cuts is not what is tested
        wait_for(f"both ends of {self.name} to agree on the keys", self._keys_agree, 30)
        return self._outcome(self.observer.ask(self.world.user(), op="reset"), point)

    def _let_the_overlap_pass(self):
        """An hour: old decryption keys are kept for it, and no more than four."""
        path = os.path.join(self.agent.settings["state_directory"], "identity.json")
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
        with open(path, "w", encoding="utf-8") as f:
            json.dump({**found, "retired": [{**retired, "until": 1} for retired in found["retired"]]}, f)

    def _keys_agree(self):
        """True where the service has the agent's one pair, and identity.json and the key files are of that, and of what is retired."""
        status, at_service = self.ready(), json.loads(self.service.command("agents", "--json"))[0]
        if not status or status["identity"]["keys"]["pending"]:
            return False
        with open(os.path.join(self.agent.settings["state_directory"], "identity.json"), encoding="utf-8") as f:
            found = json.load(f)
        named = sorted([f"signing.{found['signing_key']}.jwk"] + [f"decryption.{k['decryption_key']}.jwk" for k in [found] + found["retired"]])
        files = sorted(os.path.basename(path) for path in glob.glob(os.path.join(self.agent.settings["state_directory"], "*.jwk*")))
        return "next" not in found and files == named and all(status["identity"][k] == at_service[k] == found[k] for k in ("signing_key", "decryption_key"))

    def _outcome(self, one, point):
        end = time.monotonic() + 45
        while (outcome := self.observer.service.outcome(one))["status"] not in FINAL:
            if time.monotonic() > end:
                raise Late(f"no final outcome of {one} after the crash at {point.name}: {outcome['status']}; {Observer.last_words(self.agent)}")
            time.sleep(0.05)
        one.outcome = outcome
        return one

    def _lose_the_answer(self, point):
        """writebackd stands just before the write: that is done, and its answer held."""
        used = next(i for i, relay in enumerate(self.relays) if f"localhost:{relay.port}" == self._server_of_intent())
        self.relays[used].hold_answers()
        self.arm("writebackd", point.name.split()[0], 2 if point.name.endswith("second") else 1)
        self.agent.writebackd.signal(signal.SIGCONT)
        self.passed("writebackd")

    def _server_of_intent(self):
        with contextlib.closing(sqlite3.connect(f"file:{self.agent.folder}/state/journal.db?mode=ro", uri=True, timeout=5)) as database:
            return database.execute("SELECT server FROM entries ORDER BY sequence DESC LIMIT 1").fetchone()[0]

    def close(self):
        self.watching = False
        if hasattr(self, "thread"):
            self.thread.join(30)
        for relay in getattr(self, "relays", []):
            relay.forward()
        lab_module.stop_all(part.close for part in self.parts)


class Tally:
    """How each cycle ended, by point."""

    def __init__(self):
        self.lock, self.ended, self.violations = threading.Lock(), collections.defaultdict(collections.Counter), collections.defaultdict(list)

    def add(self, point, one):
        word = "expired" if one.outcome["code"] == "request.expired" else one.outcome["status"]
        with self.lock:
            self.ended[point][word] += 1

    def violate(self, point, text):
        with self.lock:
            self.violations[point].append(text)

    def lines(self, wanted):
        words = ("applied", "failed", "refused", "unknown", "expired")
        yield f"| {'no.':>3} | {'process':18} | {'point':24} | runs | " + " | ".join(words) + " | violations |"
        yield "|" + "|".join(["---"] * (5 + len(words))) + "|"
        for point in wanted:
            ended = self.ended[point]
            yield f"| {point.number:3} | {point.process:18} | {point.name:24} | {sum(ended.values()):4} | " + " | ".join(f"{ended[word]:{len(word)}}" for word in words) + \
                  f" | {len(self.violations[point]):10} |"
        yield f"{sum(sum(e.values()) for e in self.ended.values())} runs, {sum(len(v) for v in self.violations.values())} violations"


def run_points(world, jobs, cells, seed, tally=None, deadline=None):
    """Does the jobs (points) by so many cells side by side; the Tally. Stops early at the deadline (time.monotonic)."""
    tally, queue, lock = tally or Tally(), collections.deque(jobs), threading.Lock()

    def violate(point, text):
        world.keep = True  # its logs are wanted
        tally.violate(point, f"{text} ({world.folder})")

    def end(cell, of, point):
        try:
            cell.held = False
            cell.agent.writebackd.signal(signal.SIGCONT)  # where a run was given up before the point at which it stops
            cell.wait_ready(75)  # that may be a minute
            for text in cell.observer.check():
                violate(next((of[i] for i in of if i in text), point), text)
        except Exception as error:
            violate(point, f"at the end of {cell.name}: {type(error).__name__}: {error}")
        finally:
            try:
                cell.close()
            except Exception as error:
                violate(point, f"as {cell.name} was stopped: {type(error).__name__}: {error}")
            for text in lab_module.verdicts(cell.folder):
                violate(point, text)

    def work(number):
        of, cell, point = {}, None, None
        rng = random.Random(f"{seed}.{number}")
        try:
            while not deadline or time.monotonic() < deadline:
                with lock:
                    if not queue:
                        break
                    point = queue.popleft()
                if cell and cell.rekeyed >= 15:  # a service takes sixteen an hour
                    end(cell, of, point)
                    of, cell = {}, None
                cell = cell or Cell(world, f"cell{number}-{time.monotonic_ns()}")
                try:
                    one = cell.crash(point, rng)
                    of[one.operation_id] = point
                    tally.add(point, one)
                except Exception as error:  # the next one gets another cell
                    violate(point, f"{type(error).__name__}: {error}")
                    end(cell, of, point)
                    cell = None
        except Exception as error:
            violate(point, f"{type(error).__name__}: {error}")
        if cell:
            end(cell, of, point)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(min(cells, len(queue)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if queue and not deadline:
        violate(queue[0], f"{len(queue)} runs were not begun: every cell ended early")
    return tally
