"""The agent's life: signals, a configuration that is wrong, a loop that stands still, no descriptors, no locked memory, and a clock that jumps. The truth is read at the directory."""
import os, resource, select, signal, socket, time

import pytest

from lab import wait_for
from line import processor_s
from machine import Machine


@pytest.fixture(scope="module")
def machine():
    made = Machine(WATCHDOG_USEC="1000000")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def running(machine):
    yield
    machine.directory.control("fault clear")
    if machine.agent.writebackd.process.poll() is not None:
        machine.agent.start_writebackd()
    machine.agent.wait_ready(30)


def version(machine, user):
    return machine.directory.password_record(user)[0]


def in_flight(machine):
    wait_for("a request in flight", lambda: machine.agent.status()["in_flight"], 10)


# Ending -------------------------------------------------------------------------------------------------------------------------------------------------


def test_sigterm_finishes_what_is_in_flight(machine):
    before, process = version(machine, "bench070"), machine.agent.writebackd
    machine.directory.control("fault add on=modify user=bench070 delay=2000 count=1")
    operation = machine.begin("bench070")
    in_flight(machine)
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.process.wait(21) == 0 and time.monotonic() - began > 0.5
    assert any("STOPPING=1" in notice for notice in machine.notices)
    answer = machine.service.wait_final(operation, 5)  # told before it ended
    assert (answer["code"], version(machine, "bench070")) == ("ok", before + 1)


def test_what_cannot_be_finished_is_kept(machine):
    """The answer to the write is lost: the intent is settled by the next start, and its outcome is the truth."""
    before, process = version(machine, "bench071"), machine.agent.writebackd
    machine.directory.control("fault add on=modify user=bench071 swallow")
    operation = machine.begin("bench071")
    in_flight(machine)
    process.signal(signal.SIGTERM)
    assert process.process.wait(25) == 0
    machine.directory.control("fault clear")
    machine.agent.start_writebackd()
    answer = machine.service.wait_final(operation, 40)
    assert (answer["status"] == "applied") == (version(machine, "bench071") == before + 1), answer
    assert answer["status"] in ("applied", "failed") and version(machine, "bench071") <= before + 1


def test_a_second_signal_is_fast_and_consistent(machine):
    before, process = version(machine, "bench072"), machine.agent.writebackd
    machine.directory.control("fault add on=modify user=bench072 delay=6000 count=1")
    operation = machine.begin("bench072")
    in_flight(machine)
    process.signal(signal.SIGTERM)
    process.wait_event(event="agent.stopping")
    began = time.monotonic()
    process.signal(signal.SIGINT)
    assert process.process.wait(10) == 0 and time.monotonic() - began < 4
    machine.agent.start_writebackd()
    answer = machine.service.wait_final(operation, 40)
    assert (answer["status"] == "applied") == (version(machine, "bench072") == before + 1), answer
    assert version(machine, "bench072") <= before + 1


def test_the_other_process_notices_a_pause(machine):
    # Each with a user of its own: what is asked in the second of a start may have been done before it, and the same password is not written again.
    for user, program, start in (("bench073", "channel", machine.agent.start_channel), ("bench074", "writebackd", machine.agent.start_writebackd)):
        before = version(machine, user)
        getattr(machine.agent, program).kill()
        start()
        machine.agent.wait_ready(20)
        assert machine.reset(user)["code"] == "ok" and version(machine, user) == before + 1


# The configuration ------------------------------------------------------------------------------------------------------------------------------------


def spoil(path, how):
    if how == "gone":
        os.unlink(path)
    elif how == "mode":
        os.chmod(path, 0o666)
    elif how == "owner":
        os.chown(path, 65534, 65534)
    elif how == "folder":
        os.unlink(path)
        os.mkdir(path)
    else:
        with open(path, "a", encoding="utf-8") as file:
            file.write("limits: {in_flight: 0}\n" if how == "value" else "  : : [\n")


def mend(path):
    if os.path.isdir(path):
        os.rmdir(path)
    elif os.path.exists(path):
        os.unlink(path)


@pytest.mark.parametrize("how", ["value", "syntax", "gone", "mode", "folder", pytest.param("owner", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"))])
def test_a_bad_configuration_changes_nothing(machine, how):
    path, process = machine.agent.writebackd_config, machine.agent.writebackd
    refused, errors = len(process.events(event="config.refused")), len(process.events(event="config.error"))
    loaded = machine.agent.status()["config"]["loaded"]
    spoil(path, how)
    try:
        process.signal(signal.SIGHUP)
        process.wait_event(event="config.refused", count=refused + 1)
        told = process.events(event="config.error")[errors:]
        assert len(told) >= 1 and path in told[0]["message"] and ":0:" not in told[0]["message"], told
        config = machine.agent.status()["config"]
        assert config["loaded"] == loaded and path in config["refused"]
        assert "refused" in machine.agent.ctl("status", check=False)
        assert machine.reset("bench074")["code"] == "ok"
    finally:
        mend(path)
        machine.agent.write_config()
    time.sleep(1.1)  # reloads are a second apart
    process.signal(signal.SIGHUP)
    wait_for("the good one", lambda: not machine.agent.status()["config"]["refused"], 10)


def test_a_storm_of_sighup(machine):
    process = machine.agent.writebackd
    before, began = len(process.events(event="config.loaded")), time.monotonic()
    for _ in range(100):
        process.signal(signal.SIGHUP)
        time.sleep(0.01)
    assert machine.reset("bench075")["code"] == "ok"
    time.sleep(1.1)
    assert 1 <= len(process.events(event="config.loaded")) - before <= time.monotonic() - began + 2


# Standing still ---------------------------------------------------------------------------------------------------------------------------------------


def test_a_loop_that_stands_still_feeds_no_watchdog(machine):
    def fed():
        return machine.notices.count("WATCHDOG=1")
    wait_for("the watchdog to be fed", lambda n=fed(): fed() > n, 3)
    machine.agent.writebackd.signal(signal.SIGSTOP)
    time.sleep(0.2)
    still = fed()
    time.sleep(1.5)
    assert fed() == still
    machine.agent.writebackd.signal(signal.SIGCONT)
    wait_for("the watchdog to be fed again", lambda: fed() > still, 3)


def test_suspended(machine):
    """Both processes stand still, and the clock has gone on for two hours when they wake: what waited has expired, and the channel comes back."""
    before = version(machine, "bench076")
    programs = (machine.agent.writebackd, machine.agent.channel)
    for program in programs:
        program.signal(signal.SIGSTOP)
    operation = machine.begin("bench076")
    machine.set(clock_ms=7200000)
    for program in programs:
        program.signal(signal.SIGCONT)
    try:
        answer = machine.service.wait_final(operation, 40)
        assert answer["status"] == "failed" and answer["code"] in ("request.expired", "agent.clock_skew"), answer
        assert version(machine, "bench076") == before
    finally:
        machine.set(clock_ms=0)
    wait_for("a reset to be done again", lambda: machine.reset("bench076")["code"] == "ok", 60)


@pytest.mark.native
def test_no_descriptors_left(machine):
    """Who knocks is turned away at once, and nothing spins; what runs goes on; a directory that is lost cannot be reached again, and nothing spins there either; and all is well once there are some."""
    pid, knocking = machine.agent.writebackd.pid, []
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) + 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    try:
        for _ in range(12):
            knocking.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            knocking[-1].connect(machine.agent.control)
        wait_for("one to be turned away", lambda: select.select(knocking, [], [], 0)[0], 5)
        spent = processor_s(machine.agent.writebackd)
        time.sleep(1)
        assert processor_s(machine.agent.writebackd) - spent < 0.5
        assert machine.reset("bench077")["code"] == "ok"
        for s in knocking:
            s.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))  # what a connection gives back is not to be had either
        count = len(machine.agent.writebackd.events(event="directory.down"))
        machine.directory.kill()
        machine.directory.start()
        machine.agent.writebackd.wait_event(event="directory.down", count=count + 1)
        spent = processor_s(machine.agent.writebackd)
        time.sleep(1)
        assert processor_s(machine.agent.writebackd) - spent < 0.3
        answer = machine.reset("bench079")
        assert (answer["status"], answer["code"]) == ("failed", "directory.unavailable"), answer
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for s in knocking:
            s.close()
    machine.agent.wait_ready(20)
    assert machine.reset("bench079")["code"] == "ok"


# The clock --------------------------------------------------------------------------------------------------------------------------------------------

HOUR_MS, YEAR_MS = 3600000, 365 * 86400000


@pytest.mark.parametrize("jump", [HOUR_MS, -HOUR_MS, 10 * YEAR_MS, "1970"])
def test_the_clock_jumps(machine, jump):
    """Nothing is written by a clock that is wrong, timers go on, and with the clock all is well again."""
    before = version(machine, "bench078")
    machine.set(clock_ms=-int(time.time() * 1000) + 1000 if jump == "1970" else jump)
    try:
        answer = machine.reset("bench078", wait=3)
        # A request issued decades ahead gets no answer at all; ten years on, the service's keys have expired.
        assert answer["status"] == "pending" if jump == "1970" else answer["code"] in ("agent.clock_skew", "request.expired", "request.not_yet_valid", "request.signature"), answer
        assert version(machine, "bench078") == before
    finally:
        machine.set(clock_ms=0)
    wait_for("a reset to be done again", lambda: machine.reset("bench078")["code"] == "ok", 90)
    assert version(machine, "bench078") == before + 1
