"""The shipped systemd units: well-formed, as tight as promised, and in agreement with the programs."""
import ipaddress, json, os, re, shutil, subprocess

import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
UNITS = os.path.join(ROOT, "systemd")
SERVICES = ["writebackd.service", "writebackd-channel.service", "reset-service.service"]
SOCKETS = ["writebackd.socket", "writebackd-control.socket"]
AGENT = SERVICES[:2]

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read(name):
    """Every assignment of a unit, [(section, key, value)], with comments and continued lines resolved."""
    section, rows = None, []
    with open(os.path.join(UNITS, name)) as file:
        text = re.sub(r"\\\n", " ", file.read())
    for line in text.splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            section = line.strip("[]")
            continue
        key, separator, value = line.partition("=")
        assert separator and section, f"{name}: {line!r} is no assignment"
        rows.append((section, key, value))
    return rows


def values(name, key):
    return [value for _, k, value in read(name) if k == key]


def value(name, key):
    found = values(name, key)
    assert len(found) == 1, f"{name}: {key}= stands {len(found)} times"
    return found[0]


@needs_analyze
def test_verify():
    paths = [os.path.join(UNITS, name) for name in SERVICES + SOCKETS]
    output = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60).stderr
    # Before installation the programs are not where the units look for them.
    faults = [line for line in output.splitlines() if "is not executable: No such file or directory" not in line
              and any(name in line for name in SERVICES + SOCKETS)]
    assert faults == []


@needs_analyze
@pytest.mark.parametrize("name", SERVICES)
def test_exposure_is_at_most_1_1(name):
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=11", os.path.join(UNITS, name)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


@needs_analyze
def test_the_exposure_test_notices(tmp_path):
    """A unit without one of the settings must fail, or the test above says nothing."""
    with open(os.path.join(UNITS, "writebackd-channel.service")) as file:
        text = file.read()
    path = tmp_path / "writebackd-channel.service"
    path.write_text(text.replace("PrivateMounts=yes\n", "").replace("NoNewPrivileges=yes\n", "").replace("CapabilityBoundingSet=\n", ""))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=11", str(path)]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0


# Address lists. No systemd runs here to enforce them: they are read as systemd.resource-control(5) reads them, where what is allowed wins over what is denied.

def addresses(rows):
    """{IPAddressAllow: [network or word], IPAddressDeny: […]} of a unit and its drop-ins, in order; an empty assignment forgets what stood before."""
    lists = {"IPAddressAllow": [], "IPAddressDeny": []}
    for _, key, text in rows:
        if key in lists:
            lists[key] = lists[key] + [network(word) for word in text.split()] if text else []
    return lists


def network(word):
    return word if word in ("any", "localhost", "link-local", "multicast") else ipaddress.ip_network(word, strict=True)


def faults_of_the_agent(rows):
    """Why this is no list by which the agent reaches its directory and nothing else."""
    lists = addresses(rows)
    if lists["IPAddressDeny"] != ["any"]:
        yield "not everything is denied"
    for item in lists["IPAddressAllow"]:
        if isinstance(item, str):
            yield f"{item} is no directory"
        elif item.is_loopback and item != ipaddress.ip_network("127.0.0.53/32"):
            yield f"{item}: every service of this host"
        elif item.prefixlen < (16 if item.version == 4 else 48):
            yield f"{item} is wider than an organization"
        elif item.is_global:
            yield f"{item} is on the Internet"


def faults_of_the_channel(rows, directory):
    """Why these lists let the channel reach a directory's addresses, or nothing at all."""
    lists = addresses(rows)
    deny, allow = lists["IPAddressDeny"], lists["IPAddressAllow"]
    if "any" in deny and not allow:
        yield "the service cannot be reached"
    for item in directory:
        if any(other == "any" or not isinstance(other, str) and other.version == item.version and other.overlaps(item) for other in allow):
            yield f"{item} is allowed, which wins over its being denied"
        elif "any" not in deny and not any(not isinstance(other, str) and other.version == item.version and item.subnet_of(other) for other in deny):
            yield f"{item} can be reached"
    if "localhost" in deny or ipaddress.ip_network("127.0.0.53/32") in deny:
        yield "names cannot be resolved"


AGENT_SERVICE, CHANNEL_SERVICE = read("writebackd.service"), read("writebackd-channel.service")
ALLOWED = [item for item in addresses(read("writebackd-directory.conf"))["IPAddressAllow"] if not item.is_loopback]


def test_the_agent_reaches_nothing_by_default():
    assert addresses(AGENT_SERVICE) == {"IPAddressDeny": ["any"], "IPAddressAllow": []}
    assert values("writebackd.service", "SocketBindDeny") == ["any"] == values("writebackd-channel.service", "SocketBindDeny")
    assert addresses(CHANNEL_SERVICE)["IPAddressAllow"] == []


def test_the_drop_ins_open_what_they_say():
    assert list(faults_of_the_agent(AGENT_SERVICE + read("writebackd-directory.conf"))) == []
    assert list(faults_of_the_channel(CHANNEL_SERVICE + read("writebackd-channel-deny.conf"), ALLOWED)) == []
    for name in ("writebackd-directory.conf", "writebackd-channel-deny.conf"):
        assert {key for _, key, _ in read(name)} <= {"IPAddressAllow", "IPAddressDeny"} and {section for section, _, _ in read(name)} == {"Service"}
    # Documentation addresses only (RFC 5737, RFC 3849): nobody's real network is opened by copying it.
    documentation = [ipaddress.ip_network(text) for text in ("192.0.2.0/24", "2001:db8::/32")]
    assert len(ALLOWED) >= 4 and all(any(item.version == net.version and item.subnet_of(net) for net in documentation) for item in ALLOWED)


def test_the_other_way_of_the_channels_drop_in():
    """The lines that stand there as a comment: through a proxy alone."""
    with open(os.path.join(UNITS, "writebackd-channel-deny.conf")) as file:
        lines = [line[1:].strip() for line in file if line.startswith("#IPAddress")]
    rows = CHANNEL_SERVICE + [("Service", *line.split("=")) for line in lines]
    assert addresses(rows)["IPAddressDeny"] == ["any"] and len(addresses(rows)["IPAddressAllow"]) == 1
    assert list(faults_of_the_channel(rows, ALLOWED)) == []


@pytest.mark.parametrize("lines", [["IPAddressAllow=any"], ["IPAddressAllow=0.0.0.0/0"], ["IPAddressAllow=::/0"], ["IPAddressAllow=localhost"], ["IPAddressAllow=127.0.0.0/8"],
                                   ["IPAddressAllow=10.0.0.0/8"], ["IPAddressAllow=8.8.8.8"], ["IPAddressAllow=10.1.2.3 2000::/3"], ["IPAddressDeny="],
                                   ["IPAddressDeny=", "IPAddressDeny=192.0.2.1"]], ids=" ".join)
def test_a_wrong_list_of_the_agent_is_seen(lines):
    assert list(faults_of_the_agent(AGENT_SERVICE + [("Service", *line.split("=")) for line in lines]))


@pytest.mark.parametrize("lines", [[], ["IPAddressDeny=any"], ["IPAddressDeny=192.0.2.10"], ["IPAddressDeny=192.0.2.10 192.0.2.11 2001:db8::/64", "IPAddressAllow=any"],
                                   ["IPAddressDeny=any", "IPAddressAllow=192.0.2.0/24"], ["IPAddressDeny=192.0.2.0/24 2001:db8::/64 localhost"]], ids=" ".join)
def test_a_wrong_list_of_the_channel_is_seen(lines):
    assert list(faults_of_the_channel(CHANNEL_SERVICE + [("Service", *line.split("=")) for line in lines], ALLOWED))


def test_the_channel_stands_on_the_socket_alone():
    assert value("writebackd-channel.service", "After") == "writebackd.socket"
    for key in ("Requires", "BindsTo", "PartOf", "Requisite"):
        assert values("writebackd-channel.service", key) == []
    assert value("writebackd-channel.service", "User") != value("writebackd.service", "User")
    assert "-/var/lib/writebackd" in value("writebackd-channel.service", "InaccessiblePaths")


def test_sockets():
    for name, path, descriptor, user, group, mode in [
            ("writebackd.socket", "/run/writebackd/channel.sock", "channel", "root", "writebackd-channel", "0660"),
            ("writebackd-control.socket", "/run/writebackd/control.sock", "control", "root", "root", "0600")]:
        assert value(name, "ListenSequentialPacket") == path
        assert value(name, "FileDescriptorName") == descriptor
        assert (value(name, "SocketUser"), value(name, "SocketGroup"), value(name, "SocketMode")) == (user, group, mode)
        # Without it systemd would look for writebackd-control.service.
        assert value(name, "Service") == "writebackd.service"
        assert name in value("writebackd.service", "Sockets").split()


def test_the_agent_cannot_replace_its_sockets():
    """Who owns the folder may unlink what is in it, whoever owns that. RuntimeDirectory= would give the folder and the sockets to the agent."""
    for name in SOCKETS:
        assert value(name, "DirectoryMode") == "0755" and value(name, "SocketUser") == "root"
    for name in SERVICES:
        assert [row for row in read(name) if row[1].startswith("RuntimeDirectory")] == []
    with open(os.path.join(UNITS, "writebackd.tmpfiles")) as file:
        assert [line.split() for line in file if " /run/" in line] == [["d", "/run/writebackd", "0755", "root", "root", "-"]]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("systemd-tmpfiles") is None, reason="needs root and systemd-tmpfiles")
def test_tmpfiles_makes_them(tmp_path):
    """What systemd-sysusers and systemd-tmpfiles make of an installation, also where an older one gave the folder to the agent."""
    (tmp_path / "etc" / "writebackd").mkdir(parents=True)
    (tmp_path / "etc" / "reset-service").mkdir()
    (tmp_path / "run" / "writebackd").mkdir(parents=True)
    os.chown(tmp_path / "run" / "writebackd", 12345, 12345)
    files = {"etc/writebackd/writebackd.yaml": "writebackd", "etc/writebackd/channel.yaml": "writebackd-channel", "etc/reset-service/reset-service.yaml": "reset-service"}
    for file in files:
        (tmp_path / file).write_text("")
    for program, kind, options in (("systemd-sysusers", "sysusers", []), ("systemd-tmpfiles", "tmpfiles", ["--create"])):
        paths = [os.path.join(UNITS, f"{name}.{kind}") for name in ("writebackd", "reset-service")]
        result = subprocess.run([program, f"--root={tmp_path}", *options, *paths], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
    ids = {}
    for kind in ("passwd", "group"):
        for line in (tmp_path / "etc" / kind).read_text().splitlines():
            ids[kind, line.split(":")[0]] = int(line.split(":")[2])

    def look(path):
        facts = os.stat(tmp_path / path)
        return facts.st_mode & 0o7777, facts.st_uid, facts.st_gid
    assert look("run/writebackd") == look("etc/writebackd") == look("etc/reset-service") == (0o755, 0, 0)
    for name in ("writebackd", "reset-service"):
        assert look("var/lib/" + name) == (0o700, ids["passwd", name], ids["group", name])
    for file, group in files.items():
        assert look(file) == (0o640, 0, ids["group", group])


def test_the_agent_knows_the_descriptors():
    with open(os.path.join(ROOT, "agent", "main.c")) as file:
        source = file.read()
    for name in SOCKETS:
        assert f'"{value(name, "FileDescriptorName")}"' in source


@pytest.mark.parametrize("name", SERVICES)
def test_traps(name):
    assert value(name, "Type") == "notify"
    assert value(name, "RestartPreventExitStatus") == ("64 77 78" if name == "writebackd-channel.service" else "64 65 77 78")
    assert value(name, "ExecReload") == "+/bin/kill -HUP $MAINPID"
    assert value(name, "TimeoutStopSec") == "25s"
    assert value(name, "LimitCORE") == "0" and value(name, "MemorySwapMax") == "0"
    assert "glibc.malloc.perturb=90:glibc.malloc.tcache_count=0" in value(name, "Environment")
    assert values(name, "WatchdogSec")
    # Restarts by themselves stay below the start limit.
    assert int(value(name, "RestartSec").rstrip("s")) * int(value(name, "StartLimitBurst")) > int(value(name, "StartLimitIntervalSec"))
    program = value(name, "ExecStart").split()[0]
    assert program in value(name, "ExecPaths").split()
    # 252 has no such group; a filter that names it would be ignored with a warning.
    assert "@sandbox" not in " ".join(values(name, "SystemCallFilter"))


def installed_files():
    build = os.environ.get("BUILD_ROOT", os.path.join(ROOT, "build"))
    path = os.path.join(build, "meson-info", "intro-installed.json")
    if not os.path.exists(path):
        pytest.skip("no build folder")
    with open(path) as file:
        return list(json.load(file).values())


@pytest.mark.parametrize("name", SERVICES + SOCKETS)
def test_documentation_exists(name):
    place = value(name, "Documentation").removeprefix("file:///usr/share")
    assert place.startswith("/doc/writebackd/") and any(path.endswith("/share" + place) for path in installed_files())


def test_samples_are_documentation():
    """/etc is the administrator's: an installation writes nothing there."""
    installed = installed_files()
    for name in ("writebackd.yaml", "channel.yaml", "reset-service.yaml", "writebackd-directory.conf", "writebackd-channel-deny.conf"):
        assert [path for path in installed if path.endswith("/" + name)] == [path for path in installed if path.endswith("/share/doc/writebackd/examples/" + name)] != []
    assert not any("/etc/" in path for path in installed)


@pytest.mark.parametrize("name", SERVICES)
def test_state_is_private(name):
    if name != "writebackd-channel.service":
        assert value(name, "StateDirectoryMode") == "0700"
        assert value(name, "StateDirectory") == name.partition(".")[0]


def test_users_exist():
    known = set()
    for name in ("writebackd.sysusers", "reset-service.sysusers"):
        with open(os.path.join(UNITS, name)) as file:
            known |= {line.split()[1] for line in file if line.startswith("u ")}
    for name in SERVICES:
        assert value(name, "User") in known and value(name, "Group") in known
    for name in ("writebackd.tmpfiles", "reset-service.tmpfiles"):
        with open(os.path.join(UNITS, name)) as file:
            for line in file:
                if line[0] in "dz":
                    assert {line.split()[3], line.split()[4]} <= known | {"root"}


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_sysusers_takes_them(tmp_path):
    (tmp_path / "etc").mkdir()
    paths = [os.path.join(UNITS, name) for name in ("writebackd.sysusers", "reset-service.sysusers")]
    result = subprocess.run(["systemd-sysusers", f"--root={tmp_path}", *paths], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    made = (tmp_path / "etc" / "passwd").read_text()
    assert all(f"\n{user}:" in "\n" + made for user in ("writebackd", "writebackd-channel", "reset-service"))


def test_programs_are_installed_where_the_units_look():
    installed = installed_files()
    for name in SERVICES:
        program = value(name, "ExecStart").split()[0].removeprefix("/usr")
        assert any(place.endswith(program) for place in installed), f"{name} starts /usr{program}, which is installed elsewhere"
