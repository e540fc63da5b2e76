"""The three programs at work under the system-call lists of their units, as users of their own, with inherited sockets in a folder that is root's."""
import os, pwd, signal, socket, subprocess, threading

import pytest

import lab as lab_module
from lab import DOMAIN, ROOT

RUN = os.path.join(lab_module.HERE, "seccomp-run")
UNITS = os.path.join(ROOT, "systemd")
NEW = "Gr33n-Field-Harbour"
# Debian's base users stand in for the ones that writebackd.sysusers makes. Only root can become them; else all is one user.
USERS = {"writebackd": "daemon", "writebackd-channel": "nobody", "reset-service": "bin"} if os.geteuid() == 0 else {}
# The leak checker ends a program by ptrace, which is rightly not in the list; ASan itself needs nothing beside it.
SANITIZER = {"ASAN_OPTIONS": "detect_leaks=0", "LSAN_OPTIONS": ""}

pytestmark = [pytest.mark.native]

try:
    import seccomp  # noqa: F401
except ImportError:
    pytestmark.append(pytest.mark.skip(reason="python3-seccomp is not installed"))


def confined(name, *options):
    user = ["--user", USERS[name]] if USERS else []
    return ["/usr/bin/python3", RUN, "--kill", *user, *options, os.path.join(UNITS, name + ".service")]


def give(name, *paths):
    for path in paths:
        if USERS and os.path.exists(path):
            user = pwd.getpwnam(USERS[name])
            os.chown(path, user.pw_uid, user.pw_gid)


class Manager:
    """What systemd hears from a program. It listens all the time, as systemd does: sd_notify() waits for a reader where ten messages are in the queue."""

    def __init__(self, folder, name):
        self.path, self.heard = os.path.join(folder, name + ".notify"), []
        if os.path.exists(self.path):
            os.unlink(self.path)  # the program was started before
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o666)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            self.heard += self.socket.recv(4096).decode().splitlines()

    def wait(self, word, count=1):
        lab_module.wait_for(f"{word} ({self.heard})", lambda: self.heard.count(word) >= count)


class Program(lab_module.Program):
    def __init__(self, folder, name, argv, env=None):
        if os.path.exists(os.path.join(UNITS, name + ".service")):
            os.chmod(os.path.dirname(folder), 0o755)  # the lab's, which the users must pass
            self.manager = Manager(folder, name)
            env = {**SANITIZER, "NOTIFY_SOCKET": self.manager.path, "WATCHDOG_USEC": "500000"}
            sockets = []
            if name == "writebackd":
                give(name, *(os.path.join(folder, file) for file in ("state", "bind-password")))
                group = ":nogroup" if USERS else ""
                sockets = ["--socket", f"{UNITS}/writebackd.socket={folder}/channel.sock{group}", "--socket", f"{UNITS}/writebackd-control.socket={folder}/control.sock"]
            argv = [*confined(name, *sockets), *argv]
        super().__init__(folder, name, argv, env)


class Service(lab_module.Service):
    def command(self, *words):
        os.chmod(os.path.dirname(self.folder), 0o755)
        give("reset-service", *(os.path.join(self.folder, file) for file in ("state", "service.key")))
        done = subprocess.run([*confined("reset-service"), self.binary, *words, "--config", self.config], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, env={**os.environ, **SANITIZER})
        assert done.returncode == 0, f"reset-service {words}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def lab(build):
    with pytest.MonkeyPatch.context() as patch, lab_module.Lab(build, "mock", keep=bool(os.environ.get("KEEP_LAB"))) as lab:
        patch.setattr(lab_module, "Program", Program)
        patch.setattr(lab_module, "Service", Service)
        lab.start()
        yield lab


def programs(lab):
    return [lab.agent.writebackd, lab.agent.channel, lab.service.program]


def test_the_filter_is_in_force(lab):
    for program in programs(lab):
        with open(f"/proc/{program.pid}/status") as file:
            status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        assert int(status["Uid"].split()[1]) == (pwd.getpwnam(USERS[program.name]).pw_uid if USERS else os.getuid())


def test_they_are_ready(lab):
    for program in programs(lab):
        program.manager.wait("READY=1")


def test_reset(lab):
    answer = lab.service.operate("reset", f"alice@{DOMAIN}", new_password=NEW)
    assert (answer["status"], answer["code"]) == ("applied", "ok")
    assert lab.directory.opens("alice", NEW)


def test_unlock(lab):
    lab.directory.lock("bob")
    answer = lab.service.operate("unlock", f"bob@{DOMAIN}")
    assert (answer["status"], answer["was_locked"]) == ("applied", True)
    assert not lab.directory.locked("bob")


def test_what_an_administrator_asks(lab):
    assert "FAIL" not in lab.agent.ctl("check")
    assert "FAIL" not in lab.agent.ctl("check", "--user", f"carol@{DOMAIN}")
    assert "reset" in lab.agent.ctl("journal")
    assert lab.service.command("agents") and lab.service.command("operations")


def test_reload(lab):
    for program in programs(lab):
        program.signal(signal.SIGHUP)
        program.manager.wait("RELOADING=1")
        program.manager.wait("READY=1", 2)
    lab.agent.wait_ready()
    assert lab.service.operate("unlock", f"carol@{DOMAIN}")["status"] == "applied"


def test_the_watchdog_is_fed(lab):
    for program in programs(lab):
        program.manager.wait("WATCHDOG=1", program.manager.heard.count("WATCHDOG=1") + 1)


def test_the_agent_reconnects(lab):
    """The parts that run only when something has broken are under the filter too."""
    lab.directory.program.kill()
    lab.directory.start()
    lab.service.program.stop()
    lab.service.start()
    lab.agent.wait_ready()
    assert lab.service.operate("unlock", f"dave@{DOMAIN}")["status"] == "applied"


def test_they_end_and_leave_the_sockets(lab):
    """The sockets are systemd's: the agent neither needs to remove them nor can."""
    for program in programs(lab):
        assert program.stop() == 0
        program.manager.wait("STOPPING=1")
    for name in ("channel.sock", "control.sock"):
        facts = os.stat(os.path.join(lab.agent.folder, name))
        assert facts.st_uid == os.geteuid() and facts.st_mode & 0o777 == {"channel.sock": 0o660, "control.sock": 0o600}[name]


@pytest.mark.parametrize("unit", ["writebackd", "writebackd-channel", "reset-service"])
def test_the_filter_bites(unit):
    """What the lists leave out fails with the unit's error, or kills where it is asked to."""
    path = os.path.join(UNITS, unit + ".service")
    lax = subprocess.run(["/usr/bin/python3", RUN, path, "/usr/bin/nice", "-n", "5", "true"], capture_output=True, text=True, timeout=30)
    assert "Operation not permitted" in lax.stderr
    strict = subprocess.run(["/usr/bin/python3", RUN, "--kill", path, "/usr/bin/nice", "-n", "5", "true"], capture_output=True, timeout=30)
    assert strict.returncode == -signal.SIGSYS
    netlink = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"
    assert "[Errno 97]" in subprocess.run(["/usr/bin/python3", RUN, path, "/usr/bin/python3", "-c", netlink], capture_output=True, text=True, timeout=30).stderr
