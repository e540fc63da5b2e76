"""What writebackd does without memory, locked memory and random numbers: it refuses, or ends; it never says what is not so."""
import os, shutil, signal, subprocess, uuid

import pytest

import lab as lab_module
from lab import DOMAIN, wait_for

pytestmark = pytest.mark.plain
FAIL_AT = [1, 2, 3, 5, 8, 13, 21, 30, 40, 55, 75, 100, 130, 170, 220, 300, 400, 550, 750, 1000]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("shim") / "scarce.so")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", path, os.path.join(lab_module.HERE, "scarce.c")], check=True, timeout=60)
    return path


@pytest.fixture
def lab(build, shim):
    lab = lab_module.Lab(build, "mock", settings={"limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0, "unlocks_per_minute": 0},
                                                  "settling": {"delay": "1s", "limit": "60s"}}, directory_settings={"timeouts": {"write": "1s"}})
    lab.scarce = lab.folder + "/scarce"
    try:
        lab.start_directory()
        lab.start_service()
        lab.agent = lab_module.Agent(lab.build, lab.folder + "/agent", lab.directory, f"wss://localhost:{lab.service.port}/v1/agent", lab.service.ca, **lab.agent_options)
        lab.agent.wrapper = ["env", f"LD_PRELOAD={shim}", f"SCARCE={lab.scarce}"]
        lab.agent.start()
        lab.agent.enroll(lab.service.issuer, lab.service.ticket())
        lab.agent.wait_ready()
        yield lab
    finally:
        lab.close()


def arm(lab, what):
    lab.agent.writebackd.expect()  # its test judges how it ends
    with open(lab.scarce + ".new", "w") as f:
        f.write(what)
    os.rename(lab.scarce + ".new", lab.scarce)


def again(lab):
    """Another writebackd, with nothing amiss."""
    if os.path.exists(lab.scarce):
        os.unlink(lab.scarce)
    lab.agent.writebackd.process.kill()
    lab.agent.writebackd.process.wait(10)
    lab.agent.start_writebackd()
    lab.agent.wait_ready(30)


def test_every_allocation_may_fail(lab, capsys):
    """The n-th one while a reset is done: refused, or the process dies and what it left is settled. What is said is what the directory shows."""
    seen = {}
    for n in FAIL_AT:
        user, password, operation_id = f"bench{FAIL_AT.index(n):03d}", f"Gr33n-Field-Harbour-{n}", str(uuid.uuid4())
        before = lab.directory.password_record(user)[0]
        arm(lab, str(n))
        lab.service.operate("reset", f"{user}@{DOMAIN}", wait=2, operation_id=operation_id, new_password=password)
        died = lab.agent.writebackd.process.poll() is not None
        if died:
            assert lab.agent.writebackd.process.returncode in (-signal.SIGABRT, -signal.SIGSEGV) or lab.agent.writebackd.process.returncode > 0
        again(lab)
        answer = lab.service.wait_final(operation_id, 90)
        writes = lab.directory.password_record(user)[0] - before
        is_ours = lab.directory.control(f'verify {user} "{password}"') == "true"
        assert writes <= 1 and is_ours == (writes == 1), (n, answer)
        if answer["status"] == "applied":
            assert is_ours, (n, answer)
        elif answer["status"] in ("refused", "failed"):
            assert not is_ours, (n, answer)
        key = f"{answer['code']}{', it had died' if died else ''}"
        seen[key] = seen.get(key, 0) + 1
    assert set(seen) != {"ok"}  # some did fail
    with capsys.disabled():
        print(f"\n{len(FAIL_AT)} failed allocations: {seen}")


def test_without_random_numbers_it_ends(lab):
    arm(lab, "random")
    lab.agent.channel.stop()
    lab.agent.start_channel()  # a greeting wants a nonce
    wait_for("writebackd to end", lambda: lab.agent.writebackd.process.poll() is not None)
    assert lab.agent.writebackd.process.returncode not in (0, -signal.SIGKILL)
    again(lab)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become who may lock no memory")
def test_no_memory_may_be_locked(build, tmp_path):
    """It says so at the start, and works."""
    folder = str(tmp_path)
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        os.chmod(path, 0o755)
    lab = lab_module.Lab(build, "mock")
    os.chmod(lab.folder, 0o755)
    try:
        lab.start_directory()
        agent = lab.agent = lab_module.Agent(lab.build, folder + "/agent", lab.directory, "wss://localhost:1/v1/agent", lab.directory.ca)
        for name, _, files in os.walk(folder + "/agent"):
            for path in (name, *(os.path.join(name, file) for file in files)):
                shutil.chown(path, "nobody", "nogroup")
        agent.wrapper = ["prlimit", "--memlock=0:0", "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        agent.start_writebackd()
        assert "LimitMEMLOCK" in agent.writebackd.wait_event(event="agent.memory")["message"]
        assert agent.status()["state"]
    finally:
        lab.close()
