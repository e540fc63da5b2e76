"""lab: starts a directory, the reset service and both processes of the agent on loopback, with keys and certificates made on the spot, and asks them things.

Used by ./demo and by tests/integration. Every wait has a deadline; everything that was started is stopped and its folder removed by close().

    with Lab(build, "mock") as lab:
        lab.start()
        print(lab.service.operate("reset", "alice@corp.example.test", new_password="…"))
"""
import atexit, contextlib, functools, http.client, json, os, re, shutil, signal, socket, ssl, struct, subprocess, sys, tempfile, threading, time, unittest, urllib.parse, uuid

import ldap
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(os.environ.get("BUILD_ROOT", os.path.join(ROOT, "build")))  # what is tested
FOREST = os.path.join(HERE, "mock-directory", "users.yaml")
DOMAIN, NETBIOS, BASE = "corp.example.test", "CORP", "DC=corp,DC=example,DC=test"
UNICODE_PWD, PWD_LAST_SET, LOCKOUT_TIME, USER_ACCOUNT_CONTROL = 0x9005A, 0x90060, 0x90296, 0x90008  # as replication numbers them


SLOWNESS = float(os.environ.get("SLOWNESS", "1"))  # 10 gives every wait ten times its time (tests/support/sanitize)


REPORT = re.compile(r"\w*Sanitizer\b|runtime error:")  # a sanitizer's words
ENDS = {signal.SIGTERM: (0, -signal.SIGTERM), signal.SIGINT: (0, -signal.SIGINT)}  # how what was asked to end may do so; before it has a handler, by the signal itself


class Late(Exception):
    pass


def wait_for(what, condition, timeout=10.0):
    """The first true value of condition(), looked at every 10 ms; Late after timeout seconds."""
    end = time.monotonic() + timeout * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Late(f"waited {timeout} s for {what}")
        time.sleep(0.01)


def stop_all(stops):
    """Calls each, also where an earlier one fails; what they returned. The first failure is raised afterwards, and says what the others were."""
    returned, failures = [], []
    for stop in stops:
        try:
            returned.append(stop())
        except Exception as error:
            failures.append(error)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"and then {type(other).__name__}: {other}")
        raise failures[0]
    return returned


def is_plain(build):
    """Built, and without sanitizers or what it is wrapped in (tests/support/sanitize)."""
    try:
        with open(os.path.join(build, "agent/writebackd"), "rb") as f:
            program = f.read()
            return program.startswith(b"\x7fELF") and b"__asan_init" not in program and b"__tsan_init" not in program
    except FileNotFoundError:
        return False


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificate(folder, name, san="DNS:localhost,IP:127.0.0.1"):
    """A certificate by a CA of its own: folder/name-ca.pem, folder/name.pem, folder/name.key."""
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *ec, "-days", "7", "-subj", f"/CN={name} test CA", "-keyout", f"{name}-ca.key", "-out", f"{name}-ca.pem",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", *ec, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
    with open(os.path.join(folder, f"{name}.ext"), "w") as f:
        f.write(f"subjectAltName={san}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{name}-ca.pem", "-CAkey", f"{name}-ca.key", "-CAcreateserial", "-days", "7",
            "-extfile", f"{name}.ext", "-out", f"{name}.pem")
    return os.path.join(folder, f"{name}-ca.pem"), os.path.join(folder, f"{name}.pem"), os.path.join(folder, f"{name}.key")


def confined(argv):
    """Where UNDER_SECCOMP is set: each of our daemons under the system-call list of its unit, and a call outside of it ends it by SIGSYS. For a build without sanitizers."""
    here = next((i for i, word in enumerate(argv) if os.path.isabs(word) and os.path.exists(unit_of(word))), None)
    if not os.environ.get("UNDER_SECCOMP") or here is None or any(os.path.basename(word) == "seccomp-run" for word in argv):
        return list(argv)
    as_root = ["--allow", "fchown"] if os.geteuid() == 0 else []  # SQLite gives what it makes to the database's owner; as root, which no unit is
    return [*argv[:here], "/usr/bin/python3", os.path.join(HERE, "seccomp-run"), "--kill", *as_root, unit_of(argv[here]), *argv[here:]]


def unit_of(program):
    return os.path.join(ROOT, "systemd", os.path.basename(program) + ".service")


class Program:
    """A program of ours that runs in the background, its standard error (JSON lines) in a file. How it ended is judged, whoever looks at it or not: verdicts()."""
    lock, unjudged, judged = threading.RLock(), [], []  # those of this process; (log_path, what is wrong in words)

    def __init__(self, folder, name, argv, env=None):
        self.name, self.log_path = name, os.path.join(folder, name + ".log")
        self.out_path = os.path.join(folder, name + ".out")
        self.expected = {-signal.SIGKILL}  # which is always a test's doing
        judge_the_dead()
        with open(self.log_path, "ab") as log, open(self.out_path, "wb") as out:
            self.log_begin = log.tell()
            self.process = subprocess.Popen(confined(argv), stdin=subprocess.DEVNULL, stdout=out, stderr=log, env={**os.environ, **(env or {})})
        with self.lock:
            self.unjudged.append(self)

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        with open(self.out_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_output(self, text, timeout=15):
        def look():
            if self.process.poll() is not None and text not in self.output():
                raise Late(f"{self.name} ended with {self.process.returncode}: {self.log_text()[-2000:]}")
            return text in self.output()
        wait_for(f"'{text}' from {self.name}", look, timeout)

    def log_text(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def events(self, **fields):
        """The log's JSON lines that have these fields."""
        found = []
        for line in self.log_text().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and all(event.get(k) == v for k, v in fields.items()):
                    found.append(event)
        return found

    def wait_event(self, timeout=15, count=1, **fields):
        def look():
            if len(self.events(**fields)) >= count:
                return self.events(**fields)[count - 1]
            if self.process.poll() is not None:
                raise Late(f"{self.name} ended with {self.process.returncode}: {self.log_text()[-2000:]}")
        return wait_for(f"{fields} from {self.name}", look, timeout)

    def expect(self, *statuses):
        """It may also end by one of these; where none is named by any, and the test itself judges it."""
        self.expected = self.expected | set(statuses or range(-64, 256))

    def signal(self, number):
        if number in ENDS:
            self.expect(*ENDS[number])
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        judge_the_dead()

    def stop(self, timeout=25):
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(timeout * SLOWNESS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
                raise Late(f"{self.name} did not end within {timeout} s of SIGTERM")
        judge_the_dead()
        return self.process.returncode

    def verdict(self):
        """What is wrong with how it ended, in words; None where nothing is."""
        status, log = self.process.returncode, ""
        with contextlib.suppress(FileNotFoundError), open(self.log_path, "rb") as f:
            f.seek(self.log_begin)
            log = f.read().decode(errors="replace")
        report = REPORT.search(log)
        if report or status not in self.expected:
            why = "a sanitizer's report" if report else "a system call that its unit does not allow" if status == -signal.SIGSYS else "nobody asked for that"
            return f"{self.name} ended with {status}: {why}: {self.log_path}: {log[max(0, report.start() - 200):][:4000] if report else log[-2000:]}"


def judge_the_dead():
    with Program.lock:
        dead = [program for program in Program.unjudged if program.process.poll() is not None]
        Program.unjudged[:] = [program for program in Program.unjudged if program not in dead]
        Program.judged += [(program.log_path, words) for program in dead if (words := program.verdict())]


def verdicts(folder="/", take=True):
    """What is wrong with how programs ended whose log lies in folder, in words, each told once: a sanitizer's report, or an end that nobody asked for. Where nobody takes it, pytest's
    teardown does, and fails (tests/conftest.py)."""
    with Program.lock:
        judge_the_dead()
        found = [one for one in Program.judged if one[0].startswith(os.path.join(folder, ""))]
        if take:
            Program.judged[:] = [one for one in Program.judged if one not in found]
        return [words for _, words in found]


# Directories -------------------------------------------------------------------------------------------------------------------------------

class Directory:
    """What both directories have in common: they are asked over LDAPS. host, port, ca and bind_password come from the subclass."""
    flavor = "active-directory"
    base = BASE
    bind_dn = f"CN=svc-writeback,OU=Service,{BASE}"
    people, outside, groups = f"OU=People,{BASE}", f"OU=Outside,{BASE}", f"OU=Groups,{BASE}"
    berlin, selected_group, nested_group = f"OU=Berlin,{people}", f"CN=SSPR-Test-Group,{groups}", f"CN=Nested-Group,{groups}"

    # Who is who: what a test of every flavor calls people by. LdapDirectory has the same.

    def called(self, user):
        """What the reset service and writebackctl call a user."""
        return f"{user}@{DOMAIN}"

    def subject(self, user):
        return {"format": "userPrincipalName", "id": self.called(user)}

    def other_subjects(self, user):
        """By what else an account is found: here user is a sAMAccountName."""
        return [{"format": "objectGUID", "id": self.guid(user)}, {"format": "sAMAccountName", "domain": DOMAIN, "id": user}]

    def other_spellings(self, user):
        return [{"format": "userPrincipalName", "id": self.called(user).upper()}, {"format": "sAMAccountName", "domain": NETBIOS, "id": user.upper()}]

    def protected(self):
        """{user: subject}: who is protected by what he is, without a word in the scope."""
        return {user: {"format": "sAMAccountName", "domain": NETBIOS, "id": user} for user in ("Administrator", "svc-writeback", "krbtgt")}

    def no_persons(self):
        return [{"format": "sAMAccountName", "domain": NETBIOS, "id": name} for name in ("PC1$", "gmsa1$", "SSPR-Test-Group")]

    def dn(self, user):
        """Of whom the CN is the name."""
        return f"CN={user},{self.people}"

    def password(self, user):
        return forest_password(user)

    def says_locked(self, user):
        """To who knows the password."""
        return self.bind_error(user, self.password(user)) == "775"

    def says_must_change(self, user, password):
        return self.bind_error(user, password) == "773"

    def state(self, user):
        """What no reset may touch."""
        return self.records(user).get(USER_ACCOUNT_CONTROL)

    def connect(self, who=None, password=None):
        connection = ldap.initialize(f"ldaps://{self.host}:{self.port}")
        connection.set_option(ldap.OPT_X_TLS_CACERTFILE, self.ca)
        connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.set_option(ldap.OPT_TIMEOUT, 10)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, 10)
        connection.simple_bind_s(who or self.bind_dn, password or self.bind_password)
        return connection

    def opens(self, user, password):
        """Does this password open the account? (A wrong one counts as a bad try.)"""
        try:
            self.connect(f"{user}@{DOMAIN}", password).unbind_s()
            return True
        except ldap.INVALID_CREDENTIALS:
            return False

    def bind_error(self, user, password):
        """The sub-code of a refused bind ("52e", "775", …), or None."""
        try:
            self.connect(f"{user}@{DOMAIN}", password).unbind_s()
        except ldap.INVALID_CREDENTIALS as error:
            return error.args[0].get("info", "").split("data ")[-1].split(",")[0]

    def lock(self, user):
        for _ in range(5):
            self.opens(user, "not the password 1!")

    def read(self, user, *attributes, over=None):
        """over: a connection that is kept."""
        connection = over or self.connect()
        try:
            found = [e for e in connection.search_s(self.base, ldap.SCOPE_SUBTREE, f"(sAMAccountName={user})", list(attributes)) if e[0]]
            return found[0][1]
        finally:
            if not over:
                connection.unbind_s()

    def guid(self, user):
        return str(uuid.UUID(bytes_le=self.read(user, "objectGUID")["objectGUID"][0]))

    def records(self, user, over=None):
        """{attribute's number: (version, originating USN)}: how often it was written, as the directory itself counts."""
        blob = self.read(user, "replPropertyMetaData", over=over)["replPropertyMetaData"][0]
        found = {}
        for i in range(struct.unpack_from("<I", blob, 8)[0]):
            attid, version, _, _, usn, _ = struct.unpack_from("<IIQ16sQQ", blob, 16 + 48 * i)
            found[attid] = version, usn
        return found

    def bad_tries(self, user):
        return int(self.read(user, "badPwdCount").get("badPwdCount", [b"0"])[0])

    def password_record(self, user):
        """Those of unicodePwd."""
        return self.records(user).get(UNICODE_PWD, (0, 0))

    def locked(self, user):
        connection = self.connect()
        try:
            dn = [e for e in connection.search_s(self.base, ldap.SCOPE_SUBTREE, f"(sAMAccountName={user})", ["1.1"]) if e[0]][0][0]
            value = connection.search_s(dn, ldap.SCOPE_BASE, "(objectClass=*)", ["msDS-User-Account-Control-Computed"])[0][1]
            return bool(int(value.get("msDS-User-Account-Control-Computed", [b"0"])[0]) & 0x10)
        finally:
            connection.unbind_s()


def forest():
    with open(FOREST, encoding="utf-8") as f:
        return yaml.safe_load(f)


class MockDirectory(Directory):
    """One controller; or a further one `of` another's domain, which replicates with it (MockReplication)."""
    name, version, policy_hints = "mock-directory", "", True

    def __init__(self, build, folder, *options, of=None):
        self.folder, self.bind_password = folder, forest_password("svc-writeback")
        os.makedirs(folder, exist_ok=True)
        self.control_path = os.path.join(folder, "control.sock")
        self.argv = [os.path.join(build, "tests/support/mock-directory/mock-directory"), "--users", FOREST, "--tls-dir", folder,
                     "--control", self.control_path, "--state", os.path.join(folder, "state"), *options]
        self.host, self.port = "127.0.0.1", 0
        self.ca = os.path.join(folder, "ca.pem")
        self.held, self.group = False, of.group if of else [self]
        if of:
            self.group.append(self)
            self.argv += ["--host", f"dc{len(self.group)}.{DOMAIN}"]
            for name in ("ca.pem", "ca.key"):
                shutil.copy(os.path.join(of.folder, name), folder)
        self.start()

    def start(self):
        self.program = Program(self.folder, "mock-directory", [*self.argv, "--listen", f"127.0.0.1:{self.port}"])
        self.program.wait_output("ready")
        for line in self.program.output().splitlines():
            if line.startswith("listening ldaps://"):
                self.port = int(line.rsplit(":", 1)[1])

    def control(self, command, timeout=10):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(self.control_path)
            s.sendall(command.encode() + b"\n")
            answer = s.makefile(encoding="utf-8").readline().strip()
        if not answer.startswith("ok"):
            raise ValueError(f"{command}: {answer}")
        return answer[2:].strip()

    def faults(self):
        """The faults that have not been suffered yet, a line each."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(self.control_path)
            s.sendall(b"fault list\n")
            lines = []
            for line in s.makefile(encoding="utf-8"):
                if line.strip() == ".":
                    return lines
                lines.append(line.strip())
        return lines

    def pause(self):
        self.program.signal(signal.SIGSTOP)

    def go(self):
        self.program.signal(signal.SIGCONT)

    def kill(self):
        self.program.kill()

    def stop(self):
        self.program.stop()

    def hold(self):
        """What the others write does not arrive here any more, until release."""
        self.held = True

    def release(self):
        self.held = False

    def certificate(self, foreign=False):
        """A new certificate, by another authority where `foreign`; in force after stop and start."""
        folder = os.path.join(self.folder, "foreign") if foreign else self.folder
        os.makedirs(folder, exist_ok=True)
        self.argv[self.argv.index("--tls-dir") + 1] = folder
        for name in ("dc.pem", "dc.key"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))

    def close(self):
        self.program.stop()


class MockReplication:
    """Carries what is written on one controller of a domain to the others, every 50 ms; what cannot be reached is tried again."""

    def __init__(self, group):
        self.group, self.taken, self.running = group, {}, True
        self.thread = threading.Thread(target=self.run, name="replication", daemon=True)
        self.thread.start()

    def pull(self, sink, source):
        key = (sink.folder, source.folder)
        changes = json.loads(source.control(f"changes {self.taken.get(key, 0)}", 0.5))
        for account in changes["accounts"]:
            if account["name"].endswith("$"):  # the controllers' own
                continue
            sink.control("replicate " + json.dumps(account), 0.5)
        self.taken[key] = changes["usn"]

    def run(self):
        while self.running:
            for sink in self.group:
                for source in self.group:
                    if sink is not source and not sink.held and self.running:
                        with contextlib.suppress(OSError, ValueError):
                            self.pull(sink, source)
            time.sleep(0.05)

    def close(self):
        self.running = False
        self.thread.join(20)


class SambaDirectory(Directory):
    """A Samba domain controller: `like` a provisioned one (samba_template) or provisioned itself, or a further controller `of` another's domain.
    Its name is dc1.corp.example.test and so on; who must resolve it runs under `inside`, a prefix of the command (samba-dc exec)."""
    name = "Samba"

    def __init__(self, folder, address=None, like=None, of=None, read_only=False, root=""):
        self.folder, self.bind_password, self.like, self.of, self.read_only, self.root = folder, forest_password("svc-writeback"), like, of, read_only, root
        want_mount_namespaces()
        self.script = os.path.join(HERE, "samba", "samba-dc")
        self.inside = [self.script, "exec", folder]
        self.start(address)

    def run(self, verb, *words, env=None):
        done = subprocess.run([self.script, verb, self.folder, *words], env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=180)
        if done.returncode:
            raise Late(f"samba-dc {verb} {' '.join(words)} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def start(self, address=None):
        # An address of 127.0.0.0/8 of its own, so that several may run on one machine.
        own = address or os.environ.get("SAMBA_DC_IP") or f"127.{20 + os.getpid() // 64516 % 200}.{1 + os.getpid() // 254 % 254}.{1 + os.getpid() % 254}"
        if self.of:
            text = self.run("join", "--of", self.of.folder, *(["--rodc"] if self.read_only else []), env={"SAMBA_DC_IP": address or ""})
        else:
            text = self.run("start", *(["--like", self.like] if self.like else []), env={"FOREST": FOREST, "SAMBA_DC_IP": own, "SAMBA_ROOT": self.root})
        facts = dict(line.split("=", 1) for line in text.splitlines())
        self.host, self.port, self.ca, self.version = facts["HOST"], 636, facts["CA"], facts["SAMBA_VERSION"].split("-")[0]
        self.dns_name, self.keytab, self.krb5_config, self.realm = facts["NAME"], facts["KEYTAB"], facts["KRB5_CONFIG"], facts["REALM"]
        # 4.17 and 4.22 lack the policy-hints control.
        self.policy_hints = tuple(int(n) for n in self.version.split(".")[:2]) >= (4, 23)

    def pause(self):
        self.run("pause")

    def go(self):
        self.run("go")

    def kill(self):
        self.run("kill")

    def stop(self):
        self.run("stop")

    def hold(self):
        """What the others write does not arrive here any more, until release."""
        self.run("hold")

    def release(self):
        self.run("release")

    def age(self, user, days=20):
        """Makes the password older, straight in the database, where Samba's own control allows it."""
        code = """import sys, time, ldb
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB
lp = LoadParm()
lp.load(sys.argv[1])
db = SamDB(session_info=system_session(), lp=lp)
message = ldb.Message()
message.dn = db.search(db.domain_dn(), ldb.SCOPE_SUBTREE, "(sAMAccountName=%s)" % sys.argv[2], [])[0].dn
when = str(int(time.time() - int(sys.argv[3]) * 86400 + 11644473600) * 10000000)
message["pwdLastSet"] = ldb.MessageElement(when, ldb.FLAG_MOD_REPLACE, "pwdLastSet")
db.modify(message, ["local_oid:1.3.6.1.4.1.7165.4.3.20:0"])
"""
        subprocess.run([self.script, "inside", self.folder, "/usr/bin/python3", "-", os.path.join(self.folder, "etc", "smb.conf"), user, str(days)], input=code, text=True,
                       check=True, timeout=30)

    def sync(self):
        """Takes over now what the others wrote; it does so by itself within seconds."""
        self.run("sync")

    def certificate(self, foreign=False):
        """As of MockDirectory."""
        self.run("certificate", *([self.dns_name, "other-ca"] if foreign else []))

    def close(self):
        self.run("destroy")


@functools.lru_cache
def newer_samba():
    """The folder with a newer Samba's system in it, or None. tests/support/samba/newer finds or makes it."""
    done = subprocess.run([os.path.join(HERE, "samba", "newer"), "--find"], stdout=subprocess.PIPE, text=True, timeout=60)
    return done.stdout.strip() or None


@functools.lru_cache
def has_mount_namespaces():
    return subprocess.run(["unshare", "-m", "--propagation", "private", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20).returncode == 0


def want_mount_namespaces():
    """Skips the test where this machine gives none: in an unprivileged container, or a chroot that is no mount point. Names of hosts and DNS servers are the lab's own in there."""
    if not has_mount_namespaces():
        raise unittest.SkipTest("no mount namespaces here (root and CAP_SYS_ADMIN are wanted), in which the lab's names live")


@functools.lru_cache
def samba_template(root=""):
    """A provisioned Samba that many are like: its folder, removed at the end of this process."""
    want_mount_namespaces()
    folder = tempfile.mkdtemp(prefix="writebackd-samba-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run([os.path.join(HERE, "samba", "samba-dc"), "provision", folder], env={**os.environ, "FOREST": FOREST, "SAMBA_ROOT": root},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    if done.returncode:
        raise Late("Samba was not provisioned: " + done.stdout)
    return folder


def forest_password(user):
    return next(u["password"] for u in forest()["users"] if u["name"] == user)


class Tool:
    """tests/support/directory-tool, asked line by line."""

    def __init__(self, build, *options, inside=(), env=None):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="directory-tool-", suffix=".log")
        extra = [f"{key}={value}" for key, value in (env or {}).items()]
        self.process = subprocess.Popen([*inside, "env", *extra, os.path.join(build, "tests/support/directory-tool"), "--timeout", "3000", *options], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Late(f"directory-tool ended: {self.log_text()[-3000:]}")
        return json.loads(line)

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def health(self):
        return self.ask("health")

    def wait_up(self, timeout=10):
        try:
            return wait_for("the server to be up", lambda: (h := self.health())["up"] and h, timeout)
        except Late as late:
            raise Late(f"{late}: {self.health()['text']}\n{self.log_text()[-2000:]}") from None

    def wait_down(self, words, timeout=10):
        try:
            return wait_for(f"the server to be down: {words}", lambda: not (h := self.health())["up"] and words in h["text"] and h, timeout)
        except Late as late:
            raise Late(f"{late}: {self.health()['text']}\n{self.log_text()[-2000:]}") from None

    def rows(self):
        return {row["step"]: row for row in self.ask("check")["rows"]}

    def log_text(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def close(self):
        """How long it took to go."""
        began = time.monotonic()
        self.process.stdin.close()
        try:
            assert self.process.wait(15) == 0, self.log_text()[-3000:]
        finally:
            self.process.kill()
            self.process.stdout.close()
        return time.monotonic() - began


# The service -------------------------------------------------------------------------------------------------------------------------------

class Service:
    """reset-service with a certificate of its own and an API key."""

    def __init__(self, build, folder, settings=None, port=None, env=None):
        os.makedirs(folder, exist_ok=True)
        self.env = env
        self.binary, self.folder, self.port = os.path.join(build, "service/reset-service"), folder, port or free_port()
        self.ca, pem, key = certificate(folder, "service")
        self.issuer = f"https://localhost:{self.port}"
        self.config = os.path.join(folder, "reset-service.yaml")
        with open(self.config, "w", encoding="utf-8") as f:
            yaml.safe_dump({"issuer": self.issuer, "listen": f"127.0.0.1:{self.port}", "tls": {"certificate_file": pem, "key_file": key},
                            "state_directory": os.path.join(folder, "state"), **(settings or {})}, f)
        os.makedirs(os.path.join(folder, "state"), mode=0o700, exist_ok=True)
        self.command("init")
        self.key = self.command("api-key", "add", "tests").split()[-1]
        self.start()

    def command(self, *words):
        done = subprocess.run([self.binary, *words, "--config", self.config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
        if done.returncode:
            raise ValueError(f"reset-service {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        self.program = Program(self.folder, "reset-service", [self.binary, "serve", "--config", self.config, "--log-format", "json"], self.env)
        wait_for("the service to listen", self.listens, 15)

    def listens(self):
        if self.program.process.poll() is not None:
            raise Late("reset-service ended: " + self.program.log_text()[-2000:])
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True

    def ticket(self):
        return next(word for word in self.command("ticket").split() if word.startswith("wbt_"))

    def http(self, method, path, body=None, key=None, headers=None, timeout=30):
        """(status, parsed body)"""
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=ssl.create_default_context(cafile=self.ca))
        try:
            connection.request(method, path, body if body is None or isinstance(body, (str, bytes)) else json.dumps(body),
                               {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            text = response.read().decode()
            return response.status, json.loads(text) if text else None
        finally:
            connection.close()

    def operate(self, op, user, wait=20, operation_id=None, **members):
        """Posts an operation for a userPrincipalName (or a sub_id object) and gives the operation as it stands after `wait` seconds."""
        sub_id = user if isinstance(user, dict) else {"format": "userPrincipalName", "id": user}
        operation_id = operation_id or str(uuid.uuid4())
        status, answer = self.http("POST", "/v1/operations", {"operation_id": operation_id, "op": op, "sub_id": sub_id, "wait": wait, **members}, timeout=wait + 15)
        if status not in (200, 202):
            raise ValueError(f"{status}: {answer}")
        return answer

    def operation(self, operation_id):
        return self.http("GET", f"/v1/operations/{operation_id}")[1]

    def wait_final(self, operation_id, timeout=60):
        return wait_for(f"the outcome of {operation_id}", lambda: (a := self.operation(operation_id))["status"] not in ("pending", "settling") and a, timeout)

    def agents(self):
        return self.http("GET", "/v1/agents")[1]

    def close(self):
        self.program.stop()


# The agent ---------------------------------------------------------------------------------------------------------------------------------

class Agent:
    """writebackd and writebackd-channel."""

    def __init__(self, build, folder, directory, endpoint, service_ca, settings=None, directory_settings=None, scope=None, channel_settings=None, kerberos=None, env=None):
        """env: more for the environment of either program, by its name. kerberos: gssapi or gss-spnego, for a directory with a keytab; it is then connected to by its own name."""
        os.makedirs(folder, exist_ok=True)
        self.build, self.folder, self.directory, self.env = build, folder, directory, env or {}
        self.wrapper = []  # what writebackd is started by
        self.control = os.path.join(folder, "control.sock")
        self.service_ca = service_ca
        os.makedirs(os.path.join(folder, "state"), mode=0o700, exist_ok=True)
        password_file = os.path.join(folder, "bind-password")
        with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(directory.bind_password + "\n")
        self.writebackd_config, self.channel_config = os.path.join(folder, "writebackd.yaml"), os.path.join(folder, "channel.yaml")
        entry = {"name": "corp", "flavor": "active-directory", "servers": [f"{directory.host}:{directory.port}"], "ca_file": directory.ca,
                 "bind": {"dn": directory.bind_dn, "password_file": password_file}, "domains": [DOMAIN, NETBIOS],
                 "policy_hints": "require" if directory.policy_hints else "when-supported",
                 "scope": scope or {"users": "selected", "bases": [directory.people]}, **(directory_settings or {})}
        if kerberos:
            self.wrapper = directory.inside
            keytab = os.path.join(folder, "keytab")
            with open(directory.keytab, "rb") as source, open(os.open(keytab, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as copy:
                copy.write(source.read())
            entry.update({"servers": [directory.dns_name], "bind": {"mechanism": kerberos, "principal": f"svc-writeback@{directory.realm}", "keytab": keytab}})
        self.settings = {"state_directory": os.path.join(folder, "state"), "channel_socket": os.path.join(folder, "channel.sock"),
                         "control_socket": self.control, "diagnostics": {"loop_probe": "10ms"}, "directories": [entry], **(settings or {})}
        self.channel_settings = {"agent_socket": os.path.join(folder, "channel.sock"), "endpoints": [endpoint], "tls": {"ca_file": service_ca},
                                 "diagnostics": {"loop_probe": "10ms"}, **(channel_settings or {})}
        self.write_config()
        self.writebackd = self.channel = None

    def write_config(self):
        for path, value in ((self.writebackd_config, self.settings), (self.channel_config, self.channel_settings)):
            with open(path, "w", encoding="utf-8") as f:
                yaml.safe_dump(value, f, sort_keys=False)

    def start_writebackd(self):
        self.started = time.time()
        self.writebackd = Program(self.folder, "writebackd", [*self.wrapper, os.path.join(self.build, "agent/writebackd"), "--config", self.writebackd_config,
                                                              "--log-format", "json"], self.env.get("writebackd"))
        def listens():
            if self.writebackd.process.poll() is not None:
                raise Late(f"writebackd ended with {self.writebackd.process.returncode}: {self.writebackd.log_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                s.connect(self.control)
                return True
        wait_for("writebackd's control socket", listens)

    def start_channel(self):
        self.channel = Program(self.folder, "writebackd-channel", [os.path.join(self.build, "agent/channel/writebackd-channel"), "--config", self.channel_config,
                                                                   "--log-format", "json"], self.env.get("writebackd-channel"))

    def start(self):
        self.start_writebackd()
        self.start_channel()

    def ctl(self, *words, check=True, timeout=60, **options):
        done = subprocess.run([os.path.join(self.build, "agent/ctl/writebackctl"), "--socket", self.control, *words], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **options)
        if check and done.returncode or REPORT.search(done.stdout):
            raise ValueError(f"writebackctl {' '.join(words)} ended with {done.returncode}: {done.stdout}")
        return done.stdout

    def enroll(self, issuer, ticket):
        ticket_file = os.path.join(self.folder, "ticket")
        with open(os.open(ticket_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(ticket + "\n")
        return self.ctl("enroll", issuer, "--ticket-file", ticket_file, "--ca-file", self.service_ca)

    def status(self):
        return json.loads(self.ctl("--json", "status", check=False))

    def wait_ready(self, timeout=20):
        wait_for("the agent to be ready", lambda: subprocess.run([os.path.join(self.build, "agent/ctl/writebackctl"), "--socket", self.control, "status"],
                                                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20).returncode == 0, timeout)

    def wait_first_second(self):
        """What is asked in the second of its start may have been done before it, and is held against the record first: one bind with the new password."""
        wait_for("the next second", lambda: int(time.time()) > int(self.started + 0.5), 5)  # it has read its clock by then

    def close(self):
        return stop_all(p.stop for p in (self.writebackd, self.channel) if p)


# All of it ---------------------------------------------------------------------------------------------------------------------------------

class Lab:
    def __init__(self, build, directory="mock", keep=False, shared=False, **agent_options):
        """directory: mock, samba or samba-newer; shared: Samba is a copy of one that is provisioned once a process."""
        self.build, self.kind, self.keep, self.shared, self.agent_options = os.path.abspath(build), directory, keep, shared, agent_options
        self.folder = tempfile.mkdtemp(prefix="writebackd-lab-")
        self.directory = self.service = self.agent = None

    def start_directory(self, *options):
        folder = os.path.join(self.folder, "directory")
        if self.kind == "mock":
            self.directory = MockDirectory(self.build, folder, *options)
        else:
            root = newer_samba() if self.kind == "samba-newer" else ""
            self.directory = SambaDirectory(folder, like=samba_template(root) if self.shared else None, root=root)

    def ask(self, op, user, **members):
        """An operation for a user of the directory's, whatever it calls him, or for a sub_id object."""
        return self.service.operate(op, user if isinstance(user, dict) else self.directory.subject(user), **members)

    def start_service(self, **options):
        self.service = Service(self.build, os.path.join(self.folder, "service"), **options)

    def start_agent(self):
        self.agent = Agent(self.build, os.path.join(self.folder, "agent"), self.directory, f"wss://localhost:{self.service.port}/v1/agent",
                           self.service.ca, **self.agent_options)
        self.agent.start()

    def start(self):
        self.start_directory()
        self.start_service()
        self.start_agent()
        self.agent.enroll(self.service.issuer, self.service.ticket())
        self.agent.wait_ready()

    def close(self):
        try:
            stop_all(part.close for part in (self.agent, self.service, self.directory) if part)
        finally:
            if not self.keep:
                shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
