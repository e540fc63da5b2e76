"""The processes of the agent are killed, stopped and ended at bad moments, seen from both sides: one write at the directory, one outcome at the service."""
import glob, os, signal, time

import pytest

from channel_bench import Authority, Bench
from lab import SLOWNESS, wait_for
from line import Line


@pytest.fixture
def line(module_line):
    yield module_line
    module_line.directory.control("fault clear")
    module_line.service.acknowledge = True
    module_line.relay.forward()
    for program, start in ((module_line.agent.writebackd, module_line.agent.start_writebackd), (module_line.agent.channel, module_line.agent.start_channel)):
        if program.process.poll() is not None:
            start()
        else:
            program.signal(signal.SIGCONT)
    module_line.wait_ready(20)


def restart(line):
    line.agent.start_writebackd()
    line.agent.channel.stop()
    line.agent.start_channel()  # without the pause that grew meanwhile
    wait_for("a channel", lambda: line.service.ws, 15)


def worked_on(line, user, ms=700):
    """(version before, claims, frame): the request is being worked on, and nothing of it is written."""
    before = line.directory.password_record(user)[0]
    came = line.suffered(f"on=search user={user} delay={ms} count=1")
    claims, frame = line.send(user)
    wait_for("it to be worked on", came)
    return before, claims, frame


def once(line, user, claims, before):
    result = line.service.result(claims["jti"], 20)
    assert result["status"] == "applied", result
    assert {(r["status"], r["code"]) for r in line.results(claims) if r["status"] != "settling"} == {("applied", "ok")}
    assert line.directory.password_record(user)[0] == before + 1
    wait_for("the acknowledgement", lambda: line.agent.status()["journal"]["unacknowledged"] == 0, 10)


@pytest.fixture(scope="module", autouse=True)
def standing_still(tmp_path_factory):
    """A quarter of a minute passes until somebody notices, so it begins before all else: (line, claims, began) of an agent whose channel is stopped, and a channel whose writebackd greets it once."""
    line, folder = Line(), tmp_path_factory.mktemp("still")
    bench = Bench(folder, Authority(folder, "ca"))
    try:
        before, claims, _ = worked_on(line, "bench005")
        line.agent.channel.signal(signal.SIGSTOP)
        began = time.monotonic()
        bench.start("wss://127.0.0.1:1/")
        yield line, before, claims, began, bench
    finally:
        line.agent.channel.signal(signal.SIGCONT)
        bench.close()
        line.close()


def test_killed_before_the_intent(line):
    """Nothing is written; delivered again it is applied once."""
    before, claims, frame = worked_on(line, "bench001")
    line.agent.writebackd.kill()
    time.sleep(1)  # the search is over by then
    assert line.directory.password_record("bench001")[0] == before
    restart(line)
    wait_for("the agent", lambda: line.agent.status()["directories"][0]["servers_up"], 10)
    line.service.send(frame)
    once(line, "bench001", claims, before)


def test_killed_after_the_outcome_before_it_was_sent(line):
    before = line.directory.password_record("bench002")[0]
    line.relay.hold_questions()
    claims, _ = line.send("bench002")
    wait_for("the outcome in the journal", lambda: line.agent.status()["journal"]["unacknowledged"] == 1)
    assert not line.results(claims)
    line.agent.writebackd.kill()
    line.relay.reset()
    line.relay.forward()
    restart(line)
    once(line, "bench002", claims, before)


def test_killed_after_it_was_sent_before_the_acknowledgement(line):
    before = line.directory.password_record("bench003")[0]
    line.service.acknowledge = False
    claims, _ = line.send("bench003")
    line.service.result(claims["jti"])
    line.agent.writebackd.kill()
    count = len(line.results(claims))
    restart(line)
    wait_for("it to be told again", lambda: len(line.results(claims)) > count, 10)
    line.service.acknowledge = True
    line.service.cut()
    once(line, "bench003", claims, before)


def test_the_channels_process_is_killed(line):
    """writebackd goes on with what it has, and the new one brings the result."""
    before, claims, _ = worked_on(line, "bench004")
    pid = line.agent.writebackd.pid
    line.agent.channel.kill()
    wait_for("it to be shown", lambda: "writebackd-channel is not connected" in line.why(), 5)
    wait_for("the write", lambda: line.directory.password_record("bench004")[0] == before + 1, 5)
    line.agent.start_channel()
    once(line, "bench004", claims, before)
    assert line.agent.writebackd.pid == pid and line.agent.writebackd.process.poll() is None


def test_sigterm_with_requests_in_flight(line):
    """What is worked on is finished and told, nothing new is taken, and it ends with 0. What came meanwhile has no answer, and is applied when it is delivered again."""
    before, claims, _ = worked_on(line, "bench006", 1500)
    new_before, stopping = line.directory.password_record("bench008"), len(line.agent.writebackd.events(event="agent.stopping"))
    began = time.monotonic()
    line.agent.writebackd.signal(signal.SIGTERM)
    line.agent.writebackd.wait_event(event="agent.stopping", count=stopping + 1)
    new, frame = line.send("bench008")
    assert line.agent.writebackd.process.wait(22) == 0 and time.monotonic() - began < 20
    assert line.directory.password_record("bench006")[0] == before + 1
    assert line.directory.password_record("bench008") == new_before and not line.results(new)
    restart(line)
    once(line, "bench006", claims, before)
    assert line.directory.password_record("bench008") == new_before and not line.results(new)
    line.service.send(frame)
    once(line, "bench008", new, new_before[0])


def test_suspended(line):
    """Both processes stand still for longer than the service waits and the request lasts: another channel, and nothing is written."""
    before = line.directory.password_record("bench007")
    now = int(time.time())
    line.agent.writebackd.signal(signal.SIGSTOP)
    claims, frame = line.send("bench007", iat=now, exp=now + 2)
    time.sleep(0.3)  # it is in the socket between the processes by now
    line.agent.channel.signal(signal.SIGSTOP)
    time.sleep(3)
    for program in (line.agent.channel, line.agent.writebackd):
        program.signal(signal.SIGCONT)
    result = line.service.result(claims["jti"], 15)
    assert (result["status"], result["code"]) == ("failed", "request.expired")
    line.service.send(frame)
    time.sleep(0.5)
    assert line.directory.password_record("bench007") == before


def test_one_of_the_processes_stands_still(standing_still):
    """The socket's heartbeat notices after 15 s, and looks every 5 s; what is worked on goes on."""
    line, before, claims, began, bench = standing_still
    wait_for("writebackd to notice", lambda: "writebackd-channel is not connected" in line.why(), began + 25 - time.monotonic())
    assert line.directory.password_record("bench005")[0] == before + 1
    line.agent.channel.signal(signal.SIGCONT)
    once(line, "bench005", claims, before)
    lost = wait_for("the channel to notice", lambda: bench.events("agent.lost"), 10)
    assert "silent" in lost[0]["message"]
    bench.agent.accept()  # it is tried again


# What the agent's timers of a minute and of half of one bring ----------------------------------------------------------------------------------------

def test_on_a_standing_channel_a_result_is_told_again_within_a_minute(minute):
    minute.wait_for("it again", lambda: len(minute.results()) > 1)
    first, again = minute.results()[:2]
    assert 29 <= again["iat"] - first["iat"] <= 65 * SLOWNESS
    assert all(first[name] == again[name] for name in first if name not in ("iat", "durations_ms"))
    service = minute.scripted
    assert (service.session, service.ws) == minute.session and service.ws
    service.send(service.sign("wb-ack+jwt", {"iss": service.issuer, "aud": service.agent_id, "iat": int(time.time()), "request_ids": [minute.claims["jti"]]}))
    wait_for("the acknowledgement", lambda: minute.agent.status()["journal"]["unacknowledged"] == 0)


def test_on_a_standing_channel_keys_are_replaced_by_age(minute):
    """Without a restart and without another channel; and the file of the key whose hour is over is gone."""
    minute.wait_for("new keys", lambda: minute.count()[0] == 2)
    service, agent = minute.old.service, minute.old.agent
    wait_for("the old key's end", lambda: not os.path.exists(minute.retired))
    signing, decryption = (key.thumbprint() for key in service.agents[service.agent_id])
    found = agent.status()["identity"]
    assert (found["signing_key"], found["decryption_key"]) == (signing, decryption)
    wait_for("no file too many", lambda: len(glob.glob(os.path.join(agent.settings["state_directory"], "*.jwk*"))) == 3)  # the present ones and the decryption key of before
    assert (service.session, service.ws) == minute.old_session and len(service.rekeys) == 2
    claims, _ = minute.old.send("bench010")
    assert service.result(claims["jti"])["code"] == "ok"


def test_as_time_passes_the_key_sets_end_is_warned_of_again(minute):
    minute.wait_for("the warnings", lambda: minute.count()[1:] == (2, 2))
    for program in minute.agent.writebackd, minute.service.program:
        assert len(program.events(event="keys.expiry", level="warning")) == 2
    assert len(minute.agent.writebackd.events(event="keys.new")) == 1
