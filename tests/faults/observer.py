"""observer: knows what was asked, and the truth about it at the directory and at the service, not inside the agent.

    observer = Observer(lab.build, controllers=[lab.directory], service=lab.service, agents=[lab.agent], folder=lab.folder)
    one = observer.ask("bench001")                        # a reset with a password of its own; does not wait
    other = observer.ask("bench002", op="unlock")
    …                                                     # the fault
    observer.settle()                                     # every outcome is final, every agent ready again: without a hand
    assert observer.check() == []                         # what does not hold, in words

After settle() check() asserts, for what was asked since the last check:
 1. each operation wrote at most once on each server, always the same password;
 2. it has exactly one final outcome at the service, which does not change;
 3. that is true: `applied` iff the directory changed by it, `failed` and `refused` iff it did not, `unknown` only where it was asked with unknown=True;
 4. no other password was written, and none where none was to be: by an unlock, by what failed or was refused;
 5. no password that was asked for is in a log, a journal, a state file or a core dump;
 6. memory (not under a sanitizer), descriptors and the journal are bounded.
That a fault is told within 5 s, in the log and in status, says wait_event() where it is caused.

How the directory is asked. mock-directory keeps each write with the password's digest and its originator (--state), so writes are counted by password and server. Samba logs each modify
that was asked of it (dsdb_json_audit), and what it took over from others it does not: they are counted by user and server. Of both, and of any other Active Directory, unicodePwd's and
lockoutTime's version in replPropertyMetaData say whether anything was written at all, from before to after. Of what is counted by user one user has one operation at a time (`ask` says so
where passwords are not seen), and what a test itself writes is told by `wrote(user)`, or lies before `ask`. `service` is a lab.Service or a ScriptedService whose results have been observed (`observed`)."""
import base64, collections, contextlib, glob, hashlib, json, os, ssl, threading, time, uuid

import ldap

import lab as lab_module
from lab import LOCKOUT_TIME, Late, UNICODE_PWD, wait_for

FINAL = ("applied", "answered", "refused", "failed", "unknown")
CANARY = "Canary-" + uuid.uuid4().hex[:12]  # in every password that an observer makes
RSS_LIMIT_KIB, JOURNAL_LIMIT, FD_SLACK = 64 * 1024, 64 << 20, 4
notes = set()  # what no observer could assert here, once each; printed at the end


def canary():
    return f"{CANARY}-{uuid.uuid4().hex[:12]}-Aa1"


def forms(text):
    """How a text may stand in a file: as it is, in UTF-16, in hex, in base64 at each of the three places, and in base64 of UTF-16."""
    found = set()
    for raw in (text.encode(), text.encode("utf-16-le")):
        found |= {raw, raw.hex().encode(), raw.hex().upper().encode()}
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + raw)[4 if shift else 0:]
            coded = coded[:len(coded) // 4 * 4 - 4]
            found |= {coded, coded.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def vm_rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_sanitized(pid):
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as f:
        text = f.read()
        return any(name in text for name in ("libasan", "libtsan", "vgpreload"))


class Asked:
    """One operation and what is known of it."""

    def __init__(self, user, op, password, unlock, unknown, writes, subject):
        self.user, self.op, self.password, self.unlock, self.unknown, self.writes, self.subject = user, op, password, unlock or op == "unlock", unknown, writes, subject
        self.operation_id, self.request_id, self.frame = str(uuid.uuid4()), None, None
        self.outcome = self.before = self.after = self.made = None
        self.at = time.monotonic()

    @property
    def digest(self):
        return hashlib.sha256(self.password.encode()).hexdigest() if self.password else None

    def __str__(self):
        return f"{self.op} of {self.user} ({self.operation_id}, {self.outcome and (self.outcome['status'], self.outcome['code'])})"


# The service: what was accepted there and what became of it --------------------------------------------------------------------------------

class AtService:
    """reset-service over its own API. It may be down while it is asked: the same is asked until it is there."""

    def __init__(self, service):
        self.service = service

    def http(self, *words, timeout):
        end = time.monotonic() + timeout
        while True:
            try:
                status, answer = self.service.http(*words, timeout=10)
                if status != 503:
                    return status, answer
                error = Late(f"503: {answer}")
            except (OSError, ssl.SSLError, ValueError, EOFError) as failure:
                error = failure
            except Exception as failure:  # http.client's own, where the service died in the middle of an answer
                error = failure
            if time.monotonic() > end:
                raise error
            time.sleep(0.05)

    def ask(self, one, timeout, **members):
        body = {"operation_id": one.operation_id, "op": one.op, "sub_id": one.subject, "wait": 0, **members}
        if one.password:
            body["new_password"] = one.password
        status, answer = self.http("POST", "/v1/operations", body, timeout=timeout)
        if status not in (200, 202):
            raise ValueError(f"{status}: {answer}")

    def outcome(self, one, timeout=5):
        status, answer = self.http("GET", f"/v1/operations/{one.operation_id}", timeout=timeout)
        return answer if status == 200 else {"status": "lost", "code": str(status)}

    def finals(self, one):
        """The final words on it that this service has told of, by its log; one at most, for the first stands."""
        return [(e["status"], e["code"]) for e in self.service.program.events(event="operation.done", operation_id=one.operation_id)]


class AtScript:
    """A ScriptedService, which keeps every result that came."""

    def __init__(self, service):
        self.service = service

    def ask(self, one, timeout, **members):
        claims = self.service.claims(one.subject, one.op, new_password=one.password, operation_id=one.operation_id, **members)
        if one.password:
            claims["secret"] = self.service.secret(claims, one.password)
        one.request_id, one.frame = claims["jti"], self.service.sign("wb-request+jwt", claims)
        self.service.send(one.frame)

    def again(self, one):
        """The same bytes once more."""
        self.service.send(one.frame)

    def outcome(self, one):
        return next((r for r in list(self.service.results) if r.get("request_id") == one.request_id and r["status"] in FINAL), {"status": "pending", "code": ""})

    def finals(self, one):
        return list({(r["status"], r["code"]) for r in list(self.service.results) if r.get("request_id") == one.request_id and r["status"] in FINAL})


# The directory: what was written there ------------------------------------------------------------------------------------------------------

class AtMock:
    """Each write as the server itself kept it: of a password by its digest, and of lockoutTime."""
    by_password = True

    def __init__(self, directory):
        self.directory = directory
        self.own, self.read, self.passwords, self.opened = None, 0, {}, {}

    def _take(self):
        """What the file has more than at the last time. What was replicated from elsewhere is not counted, nor what stood there from the start."""
        self.own = self.own or json.loads(self.directory.control("changes 999999999"))["invocation_id"]
        with open(os.path.join(self.directory.folder, "state"), encoding="utf-8") as f:
            f.seek(self.read)
            while (line := f.readline()).endswith("\n"):
                self.read = f.tell()
                entry = json.loads(line)
                password, lockout = entry["password"], entry["lockout"]
                if password["record"]["originator"] == self.own:
                    self.passwords[password["record"]["usn"]] = password["value"][0]
                if lockout["record"]["originator"] == self.own and lockout["value"] == 0:
                    self.opened[lockout["record"]["usn"]] = entry["name"]

    def writes(self):
        """Password's digest -> how often it was written here."""
        self._take()
        return collections.Counter(self.passwords.values())

    def made(self, user):
        """How often lockoutTime was set to 0 here."""
        self._take()
        return {LOCKOUT_TIME: sum(name == user for name in self.opened.values())}

    def records(self, user):
        return self.directory.records(user)

    def opens(self, user, password):
        return self.directory.control(f"verify {user} {password}") == "true"

    def lock(self, user):
        self.directory.control(f"set {user} locked=true")


class AtDirectory:
    """By replPropertyMetaData, over LDAP."""
    by_password = False

    def __init__(self, directory):
        self.directory, self.connection = directory, None

    def made(self, user):
        return {}

    def _patient(self, what, timeout=15):
        """A controller that has just begun to run answers, and has nobody yet; and a connection that is kept may have ended."""
        end = time.monotonic() + timeout
        while True:
            try:
                self.connection = self.connection or self.directory.connect()
                return what()
            except (IndexError, ldap.LDAPError):
                self.connection = None
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def records(self, user):
        return self._patient(lambda: self.directory.records(user, over=self.connection))

    def opens(self, user, password):
        return self._patient(lambda: self.directory.opens(user, password))

    def lock(self, user):
        self.directory.lock(user)


class AtSamba(AtDirectory):
    """And by its log of the modifies that were asked of it over LDAP."""

    def __init__(self, directory):
        super().__init__(directory)
        self.read, self.counts = 0, collections.Counter()

    def made(self, user):
        """How often unicodePwd was written here, and lockoutTime set to 0."""
        with open(os.path.join(self.directory.folder, "log", "samba.out"), "rb") as f:
            f.seek(self.read)
            while (line := f.readline()).endswith(b"\n"):
                self.read = f.tell()
                if b'"dsdbChange"' not in line:
                    continue
                with contextlib.suppress(ValueError, KeyError):  # a line that another process wrote into, or that its own never ended
                    self._count(json.loads(line[line.index(b"{"):])["dsdbChange"])
        return {attribute: self.counts[user, attribute] for attribute in (UNICODE_PWD, LOCKOUT_TIME)}

    def _count(self, change):
        if change["statusCode"] != 0 or change["operation"] != "Modify" or not change["remoteAddress"]:
            return
        user = change["dn"].split(",")[0].partition("=")[2]
        if "unicodePwd" in change["attributes"]:
            self.counts[user, UNICODE_PWD] += 1
        if any(value.get("value") == "0" for action in change["attributes"].get("lockoutTime", {"actions": []})["actions"] for value in action.get("values", [])):
            self.counts[user, LOCKOUT_TIME] += 1


def at_directory(controller):
    return {lab_module.MockDirectory: AtMock, lab_module.SambaDirectory: AtSamba}.get(type(controller), AtDirectory)(controller)


class Observer:
    def __init__(self, build, controllers, service, agents, folder):
        """`folder`: whose files are searched for passwords, without those of the directories."""
        self.build, self.controllers, self.agents, self.folder = build, controllers, agents, folder
        self.at = [at_directory(c) for c in controllers]
        self.service = AtService(service) if isinstance(service, lab_module.Service) else AtScript(service)
        self.open, self.done, self.violations = [], [], []
        self.own_writes = collections.Counter()  # (user, attribute): the test's own, since the operation of this user was asked
        self.lock = threading.Lock()
        self.baseline()

    # What a test does ---------------------------------------------------------------------------------------------------------------------

    def ask(self, user, timeout=30, **options):
        """Asks the service, and does not wait for the outcome. Options as of prepare."""
        return self.send(self.prepare(user, **options), timeout)

    def prepare(self, user, op="reset", password=None, unlock=False, unknown=False, writes=1, locked=None, **members):
        """What needs the directory, before it is asked for by send(). `unlock`: with the reset. `locked`: locks the user first (a test's own write). `unknown`: that is allowed as an outcome.
        `writes`: 2 where a second server may be written to, too: its write may stand on the first one's."""
        if not self.at[0].by_password and any(one.user == user for one in self.open):
            raise ValueError(f"{user} has an operation under way: on this directory his writes could not be told apart")
        for at in self.at if locked else []:
            at.lock(user)
        one = Asked(user, op, None if op == "unlock" else password or canary(), unlock, unknown, writes, self.controllers[0].subject(user))
        one.before, one.made = [self.record(at, user) for at in self.at], [at.made(user) for at in self.at]
        one.members = {**({"unlock": True} if unlock and op == "reset" else {}), **members}
        return one

    def send(self, one, timeout=30):
        with self.lock:
            self.open.append(one)
        self.service.ask(one, timeout, **one.members)
        return one

    def wrote(self, user, attribute=UNICODE_PWD, count=1):
        """The test itself wrote that since this user's operation was asked."""
        self.own_writes[user, attribute] += count

    def settle(self, timeout=60):
        """Waits until everything asked has a final outcome, and every agent says that it is ready. What does not come is a violation at check()."""
        end = time.monotonic() + timeout
        for one in list(self.open):
            try:
                one.outcome = wait_for(f"the outcome of {one}", lambda: (o := self.service.outcome(one))["status"] in FINAL and o, max(0.1, end - time.monotonic()))
            except Exception as error:
                self.violations.append(f"no final outcome: {one} after {time.monotonic() - one.at:.0f} s: {error}")
        for agent in self.agents:
            try:
                agent.wait_ready(max(5, end - time.monotonic()))
            except Exception as error:
                self.violations.append(f"not ready again without a hand: {error}; {self.last_words(agent)}")

    def wait_event(self, program, within=5.0, state=None, **fields):
        """The stable event of a fault, `within` seconds of its deadline; `state`: a function of `writebackctl status`'s JSON that is true where it shows there too."""
        try:
            program.wait_event(timeout=within, **fields)
            if state:
                wait_for(f"{fields} in writebackctl status", lambda: any(state(agent.status()) for agent in self.agents), within)
        except Late as error:
            self.violations.append(f"not told within {within} s: {error}")

    def wait_in_step(self, timeout=30):
        """Every server has what was written on the others; they do so by themselves within seconds, and samba-tool, which tells them to, takes as long."""
        apart = {one.user for one in self.open}

        def in_step():
            apart.difference_update([user for user in apart if len({str(self.record(at, user)) for at in self.at}) == 1])
            return not apart
        try:
            wait_for("the servers to be in step", in_step, 10)
        except Late:
            for _ in range(2):
                for controller in self.controllers if not self.at[0].by_password else []:
                    controller.sync()
            wait_for("the servers to be in step", in_step, timeout)

    def check(self, files=True, bounds=True):
        """What does not hold, in words; [] where all does. What is settled by it is not looked at again."""
        if len(self.at) > 1:
            self.wait_in_step()
        settled = [one for one in self.open if one.outcome]
        for one in settled:
            self._judge_outcome(one)
        self._judge_writes(settled)
        if files:
            self._judge_files()
        if bounds:
            self._judge_bounds()
        self.violations += lab_module.verdicts(self.folder)
        self.open = [one for one in self.open if not one.outcome]
        self.done += settled
        found, self.violations = self.violations, []
        return found

    # What it looks at ---------------------------------------------------------------------------------------------------------------------

    def programs(self):
        return [p for agent in self.agents for p in (agent.writebackd, agent.channel) if p and p.process.poll() is None]

    def baseline(self):
        """Descriptors as they are now are what is compared with; called once all is up, and after one operation of each kind where connections are made on demand."""
        self.fds = {p.name: fd_count(p.pid) for p in self.programs()}

    @staticmethod
    def record(at, user):
        records = at.records(user)
        return {key: records.get(key, (0, 0)) for key in (UNICODE_PWD, LOCKOUT_TIME)}

    @staticmethod
    def last_words(agent):
        return " | ".join(p.log_text().strip().splitlines()[-1][-300:] for p in (agent.writebackd, agent.channel) if p and p.log_text().strip())

    def _judge_outcome(self, one):
        now = self.service.outcome(one)
        if (now["status"], now["code"]) != (one.outcome["status"], one.outcome["code"]):
            self.violations.append(f"the final outcome changed: {one} is now {now['status']}, {now['code']}")
        finals = self.service.finals(one)
        if len(set(finals)) > 1:
            self.violations.append(f"more than one final outcome: {one}: {finals}")
        if one.outcome["status"] == "unknown" and not one.unknown:
            self.violations.append(f"unknown, where the truth can be read: {one}")

    def _judge_writes(self, settled):
        counts = [at.writes() if at.by_password else None for at in self.at]
        for user in sorted({one.user for one in settled}):
            mine = [one for one in settled if one.user == user]
            if counts[0] is not None:
                for one in mine:
                    if one.digest:
                        self._judge_by_password(one, [count[one.digest] for count in counts])
                self._judge_others(mine[0], sum(count[digest] for count in counts for digest in {one.digest for one in mine if one.digest}))
            elif mine[0].op == "unlock":
                self._judge_others(mine[0], 0)
            else:
                self._judge_by_version(mine[0])
            if len(mine) == 1:
                self._judge_lockout(mine[0])
            self._judge_account(user, mine)
            for attribute in (UNICODE_PWD, LOCKOUT_TIME):
                self.own_writes.pop((user, attribute), None)

    def _judge_by_password(self, one, written):
        status = one.outcome["status"]
        if max(written) > 1:
            self.violations.append(f"written more than once on one server: {one}: {written}")
        if status == "applied" and not any(written):
            self.violations.append(f"told as done, and not done: {one}")
        if status in ("failed", "refused") and any(written):
            self.violations.append(f"told as not done, and done: {one}: {written}")

    def _writes_since(self, one, attribute):
        """How far the version went: the highest of all servers', for replication takes its time."""
        if one.after is None:
            one.after = [self.record(at, one.user) for at in self.at]
        before, after = max(record[attribute][0] for record in one.before), max(record[attribute][0] for record in one.after)
        return after - before - self.own_writes.get((one.user, attribute), 0)

    def _made_since(self, one, attribute):
        """How often each server itself was made to write it; [] where none of them tells."""
        return [now[attribute] - before[attribute] - self.own_writes.get((one.user, attribute), 0) for at, before in zip(self.at, one.made) if attribute in (now := at.made(one.user))]

    def _judge_by_version(self, one):
        status = one.outcome["status"]
        written, made = self._writes_since(one, UNICODE_PWD), self._made_since(one, UNICODE_PWD)
        if max(made, default=0) > 1:
            self.violations.append(f"written more than once on one server: {one}: {made}")
        # Where an answer was slow, the other server may have been written to as well: once each, as they count it themselves.
        if written > max(one.writes, sum(made)):
            self.violations.append(f"written more than once: {one}: {written}, by the servers' own count {made}")
        if status == "applied" and not written:
            self.violations.append(f"told as done, and not done: {one}")
        if status in ("failed", "refused") and written:
            self.violations.append(f"told as not done, and done: {one}: {written}")

    def _judge_others(self, one, asked):
        """`asked`: how many writes of the passwords that were asked for this user have been found, from this one on."""
        if (written := self._writes_since(one, UNICODE_PWD)) > asked:
            self.violations.append(f"a password was written that nobody asked for: {one}: {written}, {asked} of them asked for")

    def _judge_lockout(self, one):
        """An unlock sets lockoutTime to 0: once on each server, and of nothing where it is 0 already. A reset does so too, where nothing else was asked."""
        status, written, made = one.outcome["status"], self._writes_since(one, LOCKOUT_TIME), self._made_since(one, LOCKOUT_TIME)
        if max(made, default=0) > 1:
            self.violations.append(f"lockoutTime was set to 0 more often than asked on one server: {one}: {made}")
        if written > max(one.writes, sum(made)):
            self.violations.append(f"lockoutTime was written {written} times: {one}, by the servers' own count {made}")
        if status in ("failed", "refused") and written:
            self.violations.append(f"told as not done, and lockoutTime was written: {one}: {written}")
        if status == "applied" and one.unlock and any(at.directory.locked(one.user) for at in self.at):
            self.violations.append(f"told as done, and still locked: {one}")

    def _judge_account(self, user, mine):
        """The password of the last one that was applied opens the account, or that of one behind it whose fate is unknown."""
        resets = [one for one in mine if one.password]
        last = max((i for i, one in enumerate(resets) if one.outcome["status"] == "applied"), default=None)
        if last is None or self.own_writes.get((user, UNICODE_PWD)):
            return
        may = [resets[last], *(one for one in resets[last + 1:] if one.outcome["status"] == "unknown")]
        for at in self.at:
            if not any(at.opens(user, one.password) for one in may):
                self.violations.append(f"its password does not open the account on {at.directory.host}:{at.directory.port}: {may[0]}")

    def _files(self):
        skipped = {os.path.abspath(c.folder) for c in self.controllers}
        for path, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if os.path.abspath(os.path.join(path, name)) not in skipped]
            for name in names:
                yield os.path.join(path, name)

    def _judge_files(self):
        wanted = forms(CANARY)
        for path in self._files():
            with contextlib.suppress(OSError):
                if not os.path.isfile(path):
                    continue
                with open(path, "rb") as f:
                    data = f.read()
                if any(form in data for form in wanted):
                    self.violations.append(f"a password stands in {path}")

    def _judge_bounds(self):
        for program in self.programs():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):
                if is_sanitized(program.pid):
                    notes.add("memory is not judged: a sanitizer's build, or valgrind")
                elif vm_rss_kib(program.pid) > RSS_LIMIT_KIB:
                    self.violations.append(f"{program.name} takes {vm_rss_kib(program.pid)} KiB")
                before = self.fds.setdefault(program.name, fd_count(program.pid))
                try:  # one that is just being closed is no leak
                    wait_for("the descriptors", lambda: fd_count(program.pid) <= before + FD_SLACK, 3)
                except Late:
                    self.violations.append(f"{program.name} has {fd_count(program.pid)} descriptors; it had {before}")
        for agent in self.agents:
            size = sum(os.path.getsize(path) for path in glob.glob(os.path.join(agent.folder, "state", "*")) if os.path.isfile(path))
            if size > JOURNAL_LIMIT:
                self.violations.append(f"the agent's state takes {size} bytes")
