"""With the directory stopped (SIGSTOP) during a request nothing on either loop waits, heartbeats go on, and the caller gets a true answer in time."""
import time

from conftest import running_lab
from lab import DOMAIN, forest_password, wait_for


def test_a_stopped_directory_blocks_nothing(build, capsys):
    lab = running_lab("mock", directory_settings={"timeouts": {"write": "3s", "locate": "2s"}}, channel_settings={"ping_interval": "1s", "silence_limit": "3s"},
                      settings={"settling": {"delay": "1s", "limit": "30s"}})
    try:
        assert lab.service.operate("unlock", f"bob@{DOMAIN}")["status"] == "applied"
        lab.directory.control("fault add on=modify user=alice delay=300 count=1")
        lab.directory.pause()
        began = time.monotonic()
        answer = lab.service.operate("reset", f"alice@{DOMAIN}", new_password="Gr33n-Field-Harbour")
        took = time.monotonic() - began
        assert took < 20
        assert answer["code"] in ("directory.timeout", "directory.unavailable", "settling", "ok")
        # The channel gives a peer up that is silent for 3 s: it stands after 5, so pings went out and were answered all the while.
        wait_for("five seconds of standstill", lambda: time.monotonic() - began > 5)
        assert lab.service.agents()[0]["connected"] and not lab.agent.channel.events(event="channel.down")
        lab.directory.go()
        wait_for("the directory to be up again", lambda: lab.service.operate("unlock", f"bob@{DOMAIN}")["status"] == "applied", 40)
        lab.agent.close()
        for program in (lab.agent.writebackd, lab.agent.channel):
            gap = float(program.events(event="loop.gap")[-1]["longest_gap_ms"])
            with capsys.disabled():
                print(f"\n{program.name}: longest gap of its loop with the directory stopped: {gap:.1f} ms (aim: below 50)", end="", flush=True)
            assert gap < 1000
    finally:
        lab.close()


def test_a_directory_stopped_between_modify_and_answer_settles(build):
    """The modify is applied and its answer lost: the caller hears settling or the truth, and at the end `applied`."""
    lab = running_lab("mock", directory_settings={"timeouts": {"write": "2s"}}, settings={"settling": {"delay": "1s", "limit": "30s"}})
    try:
        version, _ = lab.directory.password_record("alice")
        lab.directory.control("fault add on=modify cut-after count=1")
        answer = lab.service.operate("reset", f"alice@{DOMAIN}", new_password="Gr33n-Field-Harbour")
        final = lab.service.wait_final(answer["operation_id"], 40)
        assert final["status"] == "applied"
        assert lab.directory.password_record("alice")[0] == version + 1
        lab.directory.control("fault add on=modify cut-before count=1")
        answer = lab.service.operate("reset", f"bob@{DOMAIN}", new_password="Gr33n-Field-Harbour")
        final = lab.service.wait_final(answer["operation_id"], 40)
        assert final["status"] == "failed"
        assert lab.directory.opens("bob", forest_password("bob"))
    finally:
        lab.close()
