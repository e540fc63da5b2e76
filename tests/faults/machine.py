"""machine: the whole agent on a machine whose clock and disk a test holds in its hand (tests/support/preload.c), at mock-directory and with a service."""
import os, socket, struct, threading, uuid

import lab as lab_module
from conftest import BUILD, SETTINGS
from lab import DOMAIN

NEW = "Gr33n-Field-Harbour"
NUMBERS = {"clock_ms": 0, "fsync": 1, "full": 2}


class Machine:
    def __init__(self, wrapper=(), **environment):
        """wrapper, environment: of writebackd alone."""
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
            agent.wrapper = [*wrapper, "env", *(f"{name}={value}" for name, value in environment.items())]
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
