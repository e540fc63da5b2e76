"""The shipped systemd units: well-formed, as tight as promised, and in agreement with the programs."""
import json, os, re, shutil, subprocess

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


def test_the_agent_reaches_nothing_by_default():
    assert values("writebackd.service", "IPAddressDeny") == ["any"]
    assert values("writebackd.service", "IPAddressAllow") == []
    assert values("writebackd.service", "SocketBindDeny") == ["any"]
    allowed = [line for line in open(os.path.join(UNITS, "writebackd-directory.conf")) if line.startswith("IPAddress")]
    assert allowed and all(line.startswith("IPAddressAllow=") for line in allowed)
    # Documentation addresses only (RFC 5737, RFC 3849) and the local resolver: nobody's real network is opened by copying it.
    for address in " ".join(line.split("=")[1] for line in allowed).split():
        assert address == "127.0.0.53" or address.startswith(("192.0.2.", "2001:db8:"))


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
    assert value(name, "RestartPreventExitStatus") == "64 77 78"
    assert value(name, "ExecReload") == "+/bin/kill -HUP $MAINPID"
    assert value(name, "TimeoutStopSec") == "25s"
    assert value(name, "LimitCORE") == "0"
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
