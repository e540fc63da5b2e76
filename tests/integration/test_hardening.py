"""The shipped binaries, as `meson install` leaves them: what the compiler and the linker can do against a bug in them is in them. Of a build without sanitizers."""
import json, os, re, subprocess

import pytest

pytestmark = pytest.mark.plain
PROGRAMS = ["sbin/writebackd", "sbin/writebackd-channel", "bin/writebackctl", "sbin/reset-service"]
FLAGS = ["-fstack-protector-strong", "-fcf-protection", "-D_FORTIFY_SOURCE=2"]


def readelf(option, path):
    return subprocess.run(["readelf", "-W", option, path], check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope="module")
def installed(build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    done = subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--destdir", str(folder)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PATH": "/usr/bin:" + os.environ["PATH"]})
    assert done.returncode == 0, done.stdout + done.stderr
    with open(os.path.join(build, "meson-info", "intro-installed.json")) as file:
        places = json.load(file).values()
    return {program: str(folder) + next(place for place in places if place.endswith("/" + program)) for program in PROGRAMS}


@pytest.fixture(params=PROGRAMS)
def program(request, installed):
    return installed[request.param]


def faults(path):
    """What a binary lacks."""
    header, segments, dynamic, symbols = (readelf(option, path) for option in ("-h", "-l", "-d", "--dyn-syms"))
    stack = re.search(r"GNU_STACK.* ([RWE ]{3}) ", segments)
    checks = {
        "a position-independent executable": "DYN (Position-Independent Executable" in header and re.search(r"FLAGS_1\).*PIE", dynamic),
        "relocations read-only": "GNU_RELRO" in segments,
        "bound at the start": re.search(r"\(FLAGS\).*BIND_NOW", dynamic) and re.search(r"FLAGS_1\).*NOW", dynamic),
        "no executable stack": stack and "E" not in stack[1],
        "no segment both writable and executable": not re.search(r"LOAD .* RWE ", segments),
        "no relocations in the text": "TEXTREL" not in dynamic,
        "no path of libraries of its own": "RPATH" not in dynamic and "RUNPATH" not in dynamic,
        "a stack protector": "__stack_chk_fail" in symbols,
        "fortified calls": re.search(r"__v?[fsn]+printf_chk", symbols),
    }
    return [what for what, holds in checks.items() if not holds]


def test_a_shipped_binary_is_hardened(program):
    assert faults(program) == []


def test_the_test_notices(tmp_path):
    source, binary = tmp_path / "soft.c", str(tmp_path / "soft")
    source.write_text('#include <stdio.h>\nint main(int n, char **v) { char b[9]; sprintf(b, "%s", v[0]); return puts(b); }\n')
    subprocess.run(["gcc", "-O0", "-no-pie", "-fno-stack-protector", "-U_FORTIFY_SOURCE", "-Wl,-z,norelro,-z,lazy,-z,execstack,-rpath,/tmp", str(source), "-o", binary], check=True,
                   timeout=30)
    assert faults(binary) == ["a position-independent executable", "relocations read-only", "bound at the start", "no executable stack", "no path of libraries of its own",
                              "a stack protector", "fortified calls"]


def test_compile_flags(build):
    """Of every source of ours, and each object says that it was compiled for control-flow protection. (That the whole program says so needs crt1.o to say it, which Debian's does not.)"""
    with open(os.path.join(build, "compile_commands.json")) as file:
        rows = [row for row in json.load(file) if not row["file"].startswith("../tests/")]
    assert len(rows) > 100
    assert [row["file"] for row in rows if any(flag not in row["command"].split() for flag in FLAGS)] == []
    objects = [path for row in rows if os.path.exists(path := os.path.join(build, row["output"]))]
    assert len(objects) > 100
    if os.uname().machine == "x86_64":
        notes = subprocess.run(["readelf", "-Wn", *objects], check=True, capture_output=True, text=True, timeout=60).stdout
        assert notes.count("x86 feature: IBT, SHSTK") == len(objects)
