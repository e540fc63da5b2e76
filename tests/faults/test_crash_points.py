"""kill -9 of each process at every numbered crash point (base/crash.h), five times each, at two controllers of mock-directory and of Samba: nothing is written twice on one server, and
the one outcome that the service hears is true. The table stands at the end of pytest's output and in BUILD_ROOT/crash-points.md."""
import json, os, random, shlex, subprocess

import pytest

import crash_lab
import lab as lab_module

RUNS = int(os.environ.get("WRITEBACK_CRASH_RUNS", "5"))
CELLS = {"mock": 6, "samba": 6}


@pytest.mark.parametrize("kind", ["mock", "samba"])
def test_every_point(build, kind, print_table):
    if not crash_lab.has_points(build):
        pytest.skip("built without -Dcrash_points=true")
    if kind == "samba" and not (os.path.exists("/usr/sbin/samba") and lab_module.has_mount_namespaces()):
        pytest.skip("Samba is not installed, or there are no mount namespaces")
    seed = os.environ.get("WRITEBACK_CRASH_SEED") or str(random.randrange(1 << 32))
    points = [point for point in crash_lab.points() if kind == "mock" or point.name not in crash_lab.KEYS]
    jobs = sorted((point for _ in range(RUNS) for point in points), key=lambda p: p.name not in crash_lab.TWO and not p.name.endswith("second"))
    world = crash_lab.World(build, kind, keep=bool(os.environ.get("KEEP_LAB")))
    try:
        tally = crash_lab.run_points(world, jobs, CELLS[kind], seed)
    finally:
        world.close()
    lines = list(tally.lines(points))
    title = f"kill -9 at every crash point, {kind}, seed {seed}"
    print_table(title, lines)
    with open(os.path.join(build, "crash-points.md"), "w" if kind == "mock" else "a", encoding="utf-8") as f:
        f.write(f"# {title}\n\n" + "\n".join(lines) + "\n\n")
    assert not any(tally.violations.values()), (seed, {point.name: found for point, found in tally.violations.items() if found})
    assert all(sum(tally.ended[point].values()) >= RUNS for point in points)


def test_without_the_option_nothing_of_it_is_there(build, tmp_path):
    """Every source that has a point, compiled as the shipped build does."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        commands = json.load(f)
    sources = subprocess.run(["grep", "-rl", "--include=*.c", "CRASH_POINT(", "agent", "service", "proto", "base"], cwd=lab_module.ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert len(sources) > 10
    for source in sources:
        command = next(c for c in commands if os.path.abspath(os.path.join(c["directory"], c["file"])) == os.path.join(lab_module.ROOT, source))
        words = [w for w in shlex.split(command["command"]) if w not in ("-DWRITEBACK_CRASH_POINTS", "-MD") and not w.startswith(("-fsanitize", "-g"))]
        out = words.index("-o")
        words[out + 1] = str(tmp_path / "object.o")
        for option in ("-MF", "-MQ"):
            where = words.index(option)
            del words[where:where + 2]
        subprocess.run([w for w in words if w != "ccache"], cwd=command["directory"], check=True, timeout=60)
        with open(tmp_path / "object.o", "rb") as f:
            data = f.read()
        assert b"crash_point" not in data and b"WRITEBACK_CRASH" not in data, source
