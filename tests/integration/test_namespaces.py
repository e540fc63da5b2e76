"""The shipped picture in network namespaces: writebackd has a wire to the directory and none out, writebackd-channel one to the service and none to the directory; between them is the
socket. (In an installation the units' address lists draw it; no systemd runs here, so wires do.)"""
import os, shutil, subprocess

import pytest

import lab as lab_module
from lab import DOMAIN, MockDirectory, Program, free_port

NEW = "Gr33n-Field-Harbour"
PROBE = """import errno, socket, sys
for text in sys.argv[1:]:
    host, port = text.rsplit(":", 1)
    kind = socket.SOCK_DGRAM if port == "53" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as s:
        s.settimeout(5)
        try:
            s.connect((host, int(port)))
            print("connected")
        except OSError as error:
            print(errno.errorcode.get(error.errno, error))
"""


def ip(words):
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise OSError(f"ip {words}: {done.stderr}")


class Wires:
    """Namespaces "agent", "channel" and "directory"; the service is outside of them."""

    def __init__(self):
        self.names = {name: f"wb{name[0]}{os.getpid()}" for name in ("agent", "channel", "directory")}
        third = os.getpid() % 250
        self.agent, self.directory, self.channel, self.service = (f"198.19.{third}.{n}" for n in (1, 2, 5, 6))
        for space in self.names.values():
            ip(f"netns add {space}")
            ip(f"-n {space} link set lo up")
        self.wire(("agent", self.agent), ("directory", self.directory))
        self.wire(("channel", self.channel), (None, self.service))

    def wire(self, *ends):
        near, far = (f"{self.names[ends[0][0]]}{n}" for n in (0, 1))
        ip(f"link add {near} type veth peer name {far}")
        for device, (name, address) in zip((near, far), ends):
            inside = f"-n {self.names[name]} " if name else ""
            if name:
                ip(f"link set {device} netns {self.names[name]}")
            ip(f"{inside}addr add {address}/30 dev {device}")
            ip(f"{inside}link set {device} up")

    def inside(self, name):
        return ["nsenter", f"--net=/run/netns/{self.names[name]}"]

    def probe(self, name, *places):
        return subprocess.run([*self.inside(name), "/usr/bin/python3", "-c", PROBE, *places], capture_output=True, text=True, timeout=60, check=True).stdout.split()

    def close(self):
        for space in self.names.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=20)


class Directory(MockDirectory):
    def __init__(self, build, folder, wires):
        os.makedirs(folder)
        self.wires = wires
        ca, _, _ = lab_module.certificate(folder, "dc", f"DNS:dc1.{DOMAIN},IP:{wires.directory}")
        shutil.copy(ca, os.path.join(folder, "ca.pem"))
        shutil.copy(os.path.join(folder, "dc-ca.key"), os.path.join(folder, "ca.key"))
        super().__init__(build, folder)

    def start(self):
        self.host, self.port = self.wires.directory, 636
        self.program = Program(self.folder, "mock-directory", [*self.wires.inside("directory"), *self.argv, "--listen", f"{self.host}:{self.port}"])
        self.program.wait_output("ready")


class Agent(lab_module.Agent):
    def start_channel(self):
        program = os.path.join(self.build, "agent/channel/writebackd-channel")
        self.channel = Program(self.folder, "writebackd-channel", [*self.wires.inside("channel"), program, "--config", self.channel_config, "--log-format", "json"])


@pytest.fixture(scope="module")
def lab(build):
    if os.geteuid() != 0 or not shutil.which("nsenter"):
        pytest.skip("network namespaces want root")
    try:
        wires = Wires()
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    lab = lab_module.Lab(build, "mock", keep=bool(os.environ.get("KEEP_LAB")))
    lab.wires = wires
    try:
        with pytest.MonkeyPatch.context() as patch:
            make = lab_module.certificate
            patch.setattr(lab_module, "certificate", lambda folder, name, san=f"DNS:localhost,IP:127.0.0.1,IP:{wires.service}": make(folder, name, san))
            lab.directory = Directory(lab.build, lab.folder + "/directory", wires)
            port = free_port()
            lab.service = lab_module.Service(lab.build, lab.folder + "/service", {"listen": f"0.0.0.0:{port}"}, port)
        lab.agent = Agent(lab.build, lab.folder + "/agent", lab.directory, f"wss://{wires.service}:{port}/v1/agent", lab.service.ca)
        lab.agent.wires, lab.agent.wrapper = wires, wires.inside("agent")
        lab.agent.start()
        lab.agent.enroll(lab.service.issuer, lab.service.ticket())
        lab.agent.wait_ready()
        yield lab
    finally:
        try:
            lab.close()
        finally:
            wires.close()


def test_a_reset_passes(lab):
    assert lab.service.operate("reset", f"alice@{DOMAIN}", new_password=NEW)["code"] == "ok"
    assert lab.directory.control(f'verify alice "{NEW}"') == "true"


def test_the_programs_are_where_they_should_be(lab):
    for program, name in ((lab.agent.writebackd, "agent"), (lab.agent.channel, "channel")):
        assert os.stat(f"/proc/{program.pid}/ns/net").st_ino == os.stat(f"/run/netns/{lab.wires.names[name]}").st_ino
    assert os.stat(f"/proc/{lab.agent.channel.pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino


def test_the_agent_has_no_way_out(lab):
    service = f"{lab.wires.service}:{lab.service.port}"
    assert lab.wires.probe("agent", service, f"{lab.wires.channel}:9", "192.0.2.1:443", "198.51.100.7:53", "2001:db8::1:443") == ["ENETUNREACH"] * 5
    assert lab.wires.probe("agent", f"127.0.0.1:{lab.service.port}") == ["ECONNREFUSED"]  # its own loopback, where nobody listens
    assert lab.wires.probe("agent", f"{lab.wires.directory}:636") == ["connected"]


def test_the_channel_does_not_reach_the_directory(lab):
    assert lab.wires.probe("channel", f"{lab.wires.directory}:636", f"{lab.wires.agent}:9", "192.0.2.1:443") == ["ENETUNREACH"] * 3
    assert lab.wires.probe("channel", f"{lab.wires.service}:{lab.service.port}") == ["connected"]


def test_the_channel_reads_nothing_of_the_agents(lab):
    """As a user of its own: the state, with the keys, and the password file have an owner and a mode."""
    code = "import sys\nfor path in sys.argv[1:]:\n    try:\n        open(path, 'rb').read()\n        print('read', path)\n    except PermissionError:\n        pass\n"
    secret = [os.path.join(lab.agent.folder, "bind-password"), *(os.path.join(folder, name) for folder, _, names in os.walk(os.path.join(lab.agent.folder, "state")) for name in names)]
    os.chmod(lab.folder, 0o755)
    assert len(secret) >= 3
    done = subprocess.run(["/usr/bin/python3", "-c", code, *secret], user="nobody", group="nogroup", extra_groups=[], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("", "")
