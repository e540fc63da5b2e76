"""The whole agent while its cable to the service is cut, and under floods; a request that comes too late; the directory that goes and comes. The truth is read at the directory."""
import contextlib, fcntl, json, os, time

import pytest

from lab import DOMAIN, SLOWNESS, wait_for
from line import Line, burst, memory_kb, processor_s

SOAK = bool(os.environ.get("SOAK"))


@pytest.fixture(scope="module")
def module_line():
    with pytest.MonkeyPatch.context() as patch:  # a sanitizer keeps what was freed
        patch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")
        made = Line()
        yield made
        made.close()


@pytest.fixture
def line(module_line):
    module_line.agent.channel.stop()
    module_line.agent.start_channel()  # the pause after a cut begins anew, as after a minute that was quiet
    module_line.wait_ready(10)
    yield module_line
    module_line.directory.control("fault clear")
    module_line.relay.forward()
    module_line.wait_ready(20)


def once(line, user, claims, before, status="applied"):
    """One final outcome, told as often as it likes; and so many writes as it says."""
    result = line.service.result(claims["jti"], 15)
    assert result["status"] == status, result
    assert {(r["status"], r["code"]) for r in line.results(claims) if r["status"] != "settling"} == {(result["status"], result["code"])}
    assert line.directory.password_record(user)[0] == before + (status == "applied")
    wait_for("the acknowledgement", lambda: line.agent.status()["journal"]["unacknowledged"] == 0)


# Cut ------------------------------------------------------------------------------------------------------------------------------------------------

def test_refused_is_told_once_and_shown(line):
    before = len(line.downs())
    line.relay.refuse()
    line.relay.reset()
    wait_for("it to be told", lambda: len(line.downs()) > before, 5)
    wait_for("the reason in status", lambda: "no channel to the service" in line.why(), 5)
    line.agent.writebackd.wait_event(event="channel.down")
    time.sleep(1.5)  # several tries
    assert {down["code"] for down in line.downs()[before:]} == {"channel.refused"} and len(line.downs()) <= before + 2  # lost, and then refused
    assert "Connection reset by peer" in line.downs()[before]["message"]
    line.relay.forward()
    line.wait_ready(10)


def test_silence_is_told_and_shown(line):
    before = len(line.downs())
    line.relay.silence()
    wait_for("it to be told", lambda: len(line.downs()) > before, 7)
    assert line.downs()[before]["code"] == "channel.timeout"
    wait_for("the reason in status", lambda: "no channel to the service" in line.why(), 5)
    line.relay.forward()
    line.wait_ready(10)


def test_cut_after_the_request_came_and_delivered_again(line):
    before = line.directory.password_record("alice")[0]
    came = line.suffered("on=search user=alice delay=500 count=1")
    claims, frame = line.send("alice")
    wait_for("it to be worked on", came)
    before_cut = line.service.ws
    line.relay.reset()
    wait_for("another channel", lambda: line.service.ws and line.service.ws is not before_cut, 10)
    line.service.send(frame)  # what a service does with what has no result
    once(line, "alice", claims, before)


def test_cut_while_it_is_worked_on(line):
    before = line.directory.password_record("bob")[0]
    came = line.suffered("on=search user=bob delay=700 count=1")
    claims, _ = line.send("bob")
    wait_for("it to be worked on", came)
    line.relay.refuse()
    line.relay.reset()
    wait_for("the write", lambda: line.directory.password_record("bob")[0] == before + 1, 10)
    assert not line.results(claims)
    line.relay.forward()
    once(line, "bob", claims, before)


def test_cut_after_the_write_before_its_result(line):
    """What the agent says is held up until the cable is cut: the result was sent and is lost."""
    before = line.directory.password_record("carol")[0]
    line.relay.hold_questions()
    claims, _ = line.send("carol")
    wait_for("the write", lambda: line.directory.password_record("carol")[0] == before + 1, 10)
    wait_for("the result in the journal", lambda: line.agent.status()["journal"]["unacknowledged"] == 1)
    assert not line.results(claims)
    line.relay.reset()
    line.relay.forward()
    once(line, "carol", claims, before)


def test_cut_after_the_result_before_its_acknowledgement(line):
    before = line.directory.password_record("dave")[0]
    line.service.acknowledge = False
    try:
        claims, _ = line.send("dave")
        line.service.result(claims["jti"])
        told = len(line.results(claims))
        line.relay.reset()
        wait_for("it to be told again", lambda: len(line.results(claims)) > told, 10)
    finally:
        line.service.acknowledge = True
    line.relay.reset()
    once(line, "dave", claims, before)


# Too much -------------------------------------------------------------------------------------------------------------------------------------------
SLOWLY = {"directory.timeout"} if SLOWNESS > 1 else set()  # under valgrind the agent is slower than it waits for a directory


def test_a_flood_of_valid_requests(line, capsys):
    """Each is answered, most of them at once with what says that it was too much; memory stays, and afterwards all is as before."""
    programs = (line.agent.writebackd, line.agent.channel)
    asked = [line.service.claims(f"bench{n % 100:03}@{DOMAIN}", op="lookup") for n in range(10000 if SOAK else 3000)]
    frames = [line.service.sign("wb-request+jwt", claims) for claims in asked]
    line.directory.control("fault add on=search delay=50 count=200")  # the directory does not keep up
    count, before = len(line.service.results), [memory_kb(p) for p in programs]
    rate = burst(line.service, frames)
    assert "channel" in line.why()  # whoever looks is answered meanwhile
    ids = {claims["jti"] for claims in asked}
    answered = wait_for("each to be answered", lambda: (found := {r["request_id"]: r["code"] for r in line.service.results[count:] if r.get("request_id") in ids}).keys() == ids and found, 60)
    codes = {code: list(answered.values()).count(code) for code in set(answered.values())}
    grown = [memory_kb(p) - b for p, b in zip(programs, before)]
    with capsys.disabled():
        print(f"\n{len(asked)} requests at {rate:.0f}/s: {codes}; memory grew by {grown} kB", end="", flush=True)
    assert set(codes) <= {"found", "agent.throttled", "agent.overloaded", "user.not_found", "directory.busy", *SLOWLY} and codes["agent.overloaded"] > 0
    assert codes["found"] <= 600 + 10  # a minute's
    assert max(grown) < (24 << 10) * SLOWNESS
    line.directory.control("fault clear")
    before = line.directory.password_record("bench090")[0]
    claims, _ = line.send("bench090")
    once(line, "bench090", claims, before)


def test_a_flood_of_frames_that_do_not_verify(line, capsys):
    count, seconds, used = len(line.service.results), time.monotonic(), processor_s(line.agent.writebackd)
    good = line.service.sign("wb-request+jwt", line.service.claims(f"alice@{DOMAIN}", op="lookup"))
    frames = [good[:-40] + f"{n:020}" + good[-20:] for n in range(2000)] + ["garbage %d" % n for n in range(2000)]
    downs = len(line.downs())
    burst(line.service, frames)
    before = line.directory.password_record("bench091")[0]
    claims, _ = line.send("bench091")
    once(line, "bench091", claims, before)
    seconds, used = time.monotonic() - seconds, processor_s(line.agent.writebackd) - used
    refused = [r for r in line.service.results[count:] if r["code"] == "request.signature"]
    with capsys.disabled():
        print(f"\n4000 frames that do not verify: {len(refused)} answers in {seconds:.1f} s, {used:.1f} s of processor time", end="", flush=True)
    assert 1 <= len(refused) <= 10 * (seconds + 2)
    assert len(line.downs()) == downs


@pytest.mark.native
def test_nobody_reads_the_log(line, capsys):
    """Its pipe is full and stays full: requests are done, no loop waits, what is lost is counted, and whoever reads again is told how much it was."""
    line.agent.writebackd.stop()
    fifo = line.agent.folder + "/log"
    os.mkfifo(fifo)
    far = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(far, fcntl.F_SETPIPE_SZ, 4096)
    line.agent.wrapper = ["sh", "-c", 'exec "$@" 2>' + fifo, "sh"]
    try:
        line.agent.start_writebackd()
        line.wait_ready(20)
        then = int(time.time()) - 3600
        for n in range(20):  # of the 4096 lines that wait, and more
            burst(line.service, [line.service.sign("wb-request+jwt", line.service.claims(f"alice@{DOMAIN}", op="unlock", iat=then, exp=then + 30)) for _ in range(500)])
            if n > 7 and line.agent.status()["log_dropped"]:
                break
        before = line.directory.password_record("bench094")[0]
        began = time.monotonic()
        claims, _ = line.send("bench094")
        assert line.service.result(claims["jti"])["code"] == "ok" and time.monotonic() - began < 5 * SLOWNESS
        assert line.directory.password_record("bench094")[0] == before + 1
        status = line.agent.status()
        assert status["log_dropped"] > 0 and status["loop_longest_gap_us"] < 1000000 * SLOWNESS, status
        text = bytearray()

        def told():
            with contextlib.suppress(BlockingIOError):
                while True:
                    text.extend(os.read(far, 65536))
            return b'"log.dropped"' in text
        wait_for("it to be told", told)
        with capsys.disabled():
            print(f"\na log that nobody reads: {status['log_dropped']} lines dropped, longest gap {status['loop_longest_gap_us'] / 1000:.0f} ms", end="", flush=True)
    finally:
        line.agent.writebackd.stop()
        line.agent.wrapper = []
        os.close(far)
        line.agent.start_writebackd()
        line.wait_ready(20)


# In turn ----------------------------------------------------------------------------------------------------------------------------------------------

def test_one_users_requests_come_one_by_one_and_in_order(line):
    before = line.directory.password_record("bench095")[0]
    modifies = json.loads(line.directory.control("stats"))["modify"]
    line.directory.control("fault add on=modify user=bench095 delay=700 count=3")
    count, asked = len(line.service.results), []
    for n in range(3):
        claims = line.service.claims(f"bench095@{DOMAIN}", new_password=f"Gr33n-Field-Harbour-{n}")
        line.service.send(line.service.sign("wb-request+jwt", claims))
        asked.append(claims["jti"])
    for n, jti in enumerate(asked):
        assert line.service.result(jti, 10)["code"] == "ok"
        assert line.directory.password_record("bench095")[0] == before + n + 1 and line.directory.opens("bench095", f"Gr33n-Field-Harbour-{n}")
    assert [r["request_id"] for r in line.service.results[count:] if r.get("request_id") in asked] == asked
    assert json.loads(line.directory.control("stats"))["modify"] == modifies + 3 * 2  # one that is put off is counted when it comes and when it is done


def test_it_expires_while_it_waits_for_its_turn(line):
    """Behind another one of the same user, whose controller does not answer for a while; a third one that has time is done."""
    before = line.directory.password_record("bench096")[0]
    came = line.suffered("on=modify user=bench096 delay=3000 count=1")
    first, _ = line.send("bench096")
    wait_for("the first modify", came)
    now = int(time.time())
    second, _ = line.send("bench096", iat=now, exp=now + 2)
    third = line.service.claims(f"bench096@{DOMAIN}", new_password="Gr33n-Field-Harbour-3")
    line.service.send(line.service.sign("wb-request+jwt", third))
    results = [line.service.result(claims["jti"], 15) for claims in (first, second, third)]
    assert [(r["status"], r["code"]) for r in results] == [("applied", "ok"), ("failed", "request.expired"), ("applied", "ok")]
    assert line.directory.password_record("bench096")[0] == before + 2 and line.directory.opens("bench096", "Gr33n-Field-Harbour-3")


def test_what_is_too_much_is_told_at_once(line):
    """The directory keeps all that are in flight waiting: who is above the limit does not wait for that, and nothing of him is kept."""
    line.directory.control("fault add on=search delay=2500 count=32")
    asked = [line.service.claims(f"bench{n:03}@{DOMAIN}", op="lookup") for n in range(40)]
    count, began = len(line.service.results), time.monotonic()
    burst(line.service, [line.service.sign("wb-request+jwt", claims) for claims in asked])
    ids = {claims["jti"]: n for n, claims in enumerate(asked)}
    told = wait_for("those above the limit to be told", lambda: len(r := [r for r in line.service.results[count:] if r.get("request_id") in ids]) >= 8 and r)
    assert time.monotonic() - began < 2 * SLOWNESS and {r["code"] for r in told} == {"agent.overloaded"} and sorted(ids[r["request_id"]] for r in told) == list(range(32, 40))
    codes = [line.service.result(claims["jti"], 15)["code"] for claims in asked]
    assert set(codes[:32]) <= {"found", *SLOWLY} and codes[32:] == ["agent.overloaded"] * 8


# Too late -------------------------------------------------------------------------------------------------------------------------------------------

def test_it_expires_behind_a_slow_directory(line):
    """Good when it came; the time is looked at once more before the write."""
    before = line.directory.password_record("bench093")
    line.directory.control("fault add on=search user=bench093 delay=2500 count=1")
    now = int(time.time())
    claims, _ = line.send("bench093", iat=now, exp=now + 2)
    result = line.service.result(claims["jti"])
    assert (result["status"], result["code"]) == ("failed", "request.expired")
    assert line.directory.password_record("bench093") == before


def test_a_year_old_request_needs_no_memory(line):
    """Its jti was never heard of here: its time alone refuses it, and nobody is asked for."""
    before = line.directory.password_record("alice")
    then = int(time.time()) - 365 * 86400
    claims, frame = line.send("alice", iat=then, exp=then + 30)
    assert line.service.result(claims["jti"])["code"] == "request.expired"
    assert line.directory.password_record("alice") == before


def test_what_waited_for_an_hour(line, capsys):
    """A service that was away brings everything that has no result: what has expired costs next to nothing, and those who wait now are served."""
    then = int(time.time()) - 3600
    old = [line.service.claims(f"bench{n % 100:03}@{DOMAIN}", op="unlock", iat=then + n // 10, exp=then + n // 10 + 30) for n in range(10000 if SOAK else 1000)]
    new = [line.service.claims(f"bench{70 + n:03}@{DOMAIN}", new_password="Gr33n-Field-Harbour") for n in range(5)]
    records = {n: line.directory.password_record(f"bench{70 + n:03}")[0] for n in range(5)}
    frames = [line.service.sign("wb-request+jwt", claims) for claims in old + new]
    count, began, used, codes, channel = len(line.service.results), time.monotonic(), processor_s(line.agent.writebackd), {}, line.service.ws
    burst(line.service, frames)

    def answered(some):
        nonlocal channel
        codes.update({r["request_id"]: r["code"] for r in line.service.results[count:] if "request_id" in r and r["status"] != "settling"})
        if line.service.ws not in (channel, None):  # this service may be too slow for its channel, and brings the rest again on the next one, as any does
            channel = line.service.ws
            burst(line.service, [frame for claims, frame in zip(old + new, frames) if claims["jti"] not in codes])
        return all(claims["jti"] in codes for claims in some)
    wait_for("those who wait now to be answered", lambda: answered(new), 60 if SOAK else 20)
    assert {codes[claims["jti"]] for claims in new} == {"ok"}
    wait_for("each to be answered", lambda: answered(old), 30)
    with capsys.disabled():
        print(f"\n{len(old)} that had expired and 5 that had not: {time.monotonic() - began:.1f} s, {processor_s(line.agent.writebackd) - used:.1f} s of processor time", end="", flush=True)
    assert {codes[claims["jti"]] for claims in old} == {"request.expired"}
    assert all(line.directory.password_record(f"bench{70 + n:03}")[0] == before + 1 for n, before in records.items())


# The directory --------------------------------------------------------------------------------------------------------------------------------------

def test_the_only_directory_dies_and_comes_back(line):
    before = line.directory.password_record("bench092")[0]
    line.directory.kill()
    wait_for("it to be shown", lambda: "directory corp" in line.why(), 5)
    claims, _ = line.send("bench092")
    result = line.service.result(claims["jti"])
    assert (result["status"], result["code"]) == ("failed", "directory.unavailable")
    assert len(line.agent.writebackd.events(event="directory.down")) >= 1
    line.directory.start()
    line.wait_ready(35)
    again, _ = line.send("bench092")
    once(line, "bench092", again, before)
