"""machine: the whole agent on a machine whose clock and disk a test holds in its hand (tests/support/preload.c), at mock-directory and with a service."""
import os, signal, socket, struct, subprocess, threading, uuid

import yaml

import lab as lab_module
from crash_lab import SETTINGS
from lab import BUILD, DOMAIN

NEW = "Gr33n-Field-Harbour"
NUMBERS = {"clock_ms": 0, "fsync": 1, "full": 2}


class SmallDisk:
    """A file system of a few KiB in a mount namespace of its own; who is started by `wrapper` has it in the place of `folder`."""

    def __init__(self, folder, size):
        lab_module.want_mount_namespaces()
        self.folder = folder
        self.holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", 'mount -t tmpfs -o mode=0700,size="$2" none "$1" && echo ready && exec sleep 3600', "sh", folder, str(size)],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "ready\n"
        self.wrapper = ["nsenter", "-m", "-t", str(self.holder.pid)]

    @property
    def seen(self):
        """Where it can be reached from outside."""
        return f"/proc/{self.holder.pid}/root{self.folder}"

    def used(self):
        facts = os.statvfs(self.seen)
        return (facts.f_blocks - facts.f_bfree) * facts.f_frsize

    def remount(self, options):
        subprocess.run([*self.wrapper, "mount", "-o", f"remount,{options}", self.folder], check=True, timeout=20)

    def close(self):
        self.holder.send_signal(signal.SIGKILL)
        self.holder.wait(10)
        self.holder.stdout.close()


class Machine:
    def __init__(self, wrapper=(), disk=None, **environment):
        """wrapper, environment: of writebackd alone. disk: the size of its state directory's file system."""
        self.disk = None
        self.lab = lab_module.Lab(BUILD, "mock", keep=bool(os.environ.get("KEEP_LAB")), settings=SETTINGS)
        self.control = os.path.join(self.lab.folder, "preload")
        with open(self.control, "wb") as f:
            f.write(bytes(8 * len(NUMBERS)))
        # systemd's end
        self.notices, self.notify = [], socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(self.lab.folder, "notify"))
        self.reader = threading.Thread(target=self.read_notices, daemon=True)
        self.reader.start()
        try:
            self.lab.start_directory()
            self.lab.start_service()
            service = self.lab.service
            agent = self.lab.agent = lab_module.Agent(BUILD, os.path.join(self.lab.folder, "agent"), self.lab.directory, f"wss://localhost:{service.port}/v1/agent", service.ca, settings=SETTINGS)
            environment = {"NOTIFY_SOCKET": self.notify.getsockname(), "PRELOAD_CONTROL": self.control, "LD_PRELOAD": os.path.join(BUILD, "tests/support/libpreload.so"),
                           "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0", **environment}
            if disk:
                self.disk = SmallDisk(agent.settings["state_directory"], disk)
            agent.wrapper = [*(self.disk.wrapper if disk else ()), *wrapper, "env", *(f"{name}={value}" for name, value in environment.items())]
            agent.start()
            agent.enroll(service.issuer, service.ticket())
            agent.wait_ready()
        except BaseException:
            self.close()
            raise
        self.directory, self.service, self.agent = self.lab.directory, self.lab.service, self.lab.agent

    def read_notices(self):
        while True:
            try:
                self.notices.append(self.notify.recv(8192).decode())
            except OSError:
                return

    def set(self, **numbers):
        with open(self.control, "r+b") as f:
            for name, value in numbers.items():
                f.seek(8 * NUMBERS[name])
                f.write(struct.pack("q", value))
                f.flush()

    def lifetime(self, seconds):
        """Of the requests that the service makes from now on."""
        with open(self.service.config, encoding="utf-8") as f:
            settings = yaml.safe_load(f)
        with open(self.service.config, "w", encoding="utf-8") as f:
            yaml.safe_dump({**settings, "request_lifetime": f"{seconds}s"}, f)
        count = len(self.service.program.events(event="config.loaded"))
        self.service.program.signal(signal.SIGHUP)
        self.service.program.wait_event(event="config.loaded", count=count + 1)

    def reset(self, user, **members):
        return self.service.operate("reset", f"{user}@{DOMAIN}", new_password=NEW, **members)

    def begin(self, user):
        """The id of a reset that is on its way."""
        operation = str(uuid.uuid4())
        self.reset(user, operation_id=operation, wait=0)
        return operation

    def close(self):
        try:
            self.lab.close()
        finally:
            self.notify.close()
            if self.disk:
                self.disk.close()
