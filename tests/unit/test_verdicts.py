"""How a program of a lab ended is judged, whoever looks at it: here by what a shell does in its place."""
import os, signal, sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
import lab

WAITS = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done"
LEAKS = WAITS.replace("exit 0", 'echo "==7==ERROR: LeakSanitizer: detected memory leaks" >&2; exit 23')
UNDEFINED = "echo 'base/text.c:3:1: runtime error: signed integer overflow' >&2; "


def program(folder, script, name="shell"):
    made = lab.Program(str(folder), name, ["sh", "-c", script])
    if "ready" in script:
        made.wait_output("ready")
    return made


@pytest.mark.parametrize("script, end, words", [
    (WAITS, lambda p: p.stop(), None),
    (WAITS, lambda p: p.kill(), None),
    (WAITS, lambda p: p.signal(signal.SIGTERM), None),
    (WAITS, lambda p: os.kill(p.pid, signal.SIGKILL), None),
    ("exit 65", lambda p: p.expect(65), None),
    ("exit 65", lambda p: p.expect(), None),
    (LEAKS, lambda p: p.stop(), "ended with 23: a sanitizer's report"),
    (UNDEFINED + WAITS, lambda p: p.stop(), "base/text.c:3:1: runtime error"),
    (UNDEFINED + WAITS, lambda p: p.kill(), "base/text.c:3:1: runtime error"),
    (UNDEFINED + "exit 65", lambda p: p.expect(65), "ended with 65: a sanitizer's report"),
    ("exit 65", lambda p: p.expect(78), "ended with 65: nobody asked"),
    ("exit 0", lambda p: None, "ended with 0: nobody asked"),
    (WAITS.replace("exit 0", "exit 70"), lambda p: p.stop(), "ended with 70: nobody asked"),
    (WAITS, lambda p: os.kill(p.pid, signal.SIGUSR1), "ended with -10: nobody asked"),
    (WAITS, lambda p: p.process.send_signal(signal.SIGABRT), "ended with -6: nobody asked"),
])
def test_how_it_ended(tmp_path, script, end, words):
    one = program(tmp_path, script)
    end(one)
    one.process.wait(10)
    found = lab.verdicts(str(tmp_path))
    assert len(found) == bool(words) and all(words in text and one.log_path in text for text in found), found
    assert lab.verdicts(str(tmp_path)) == []


def test_the_report_of_one_before_it_is_its_own(tmp_path):
    """A log goes on where a program is started again; and who was replaced is judged, too, though nobody stopped him."""
    program(tmp_path, "echo 'ERROR: AddressSanitizer: heap-use-after-free' >&2; exit 1").process.wait(10)
    other = program(tmp_path, WAITS)
    assert lab.verdicts(str(tmp_path / "elsewhere")) == []
    assert len(lab.verdicts(str(tmp_path), take=False)) == 1
    assert len(lab.verdicts(str(tmp_path))) == 1
    assert other.stop() == 0 and lab.verdicts(str(tmp_path)) == []


def test_all_are_stopped_and_all_failures_told():
    called = []

    def stop(number):
        called.append(number)
        raise ValueError(f"the {number}.")
    with pytest.raises(ValueError, match="the 1.") as raised:
        lab.stop_all([lambda: stop(1), lambda: stop(2)])
    assert called == [1, 2] and "the 2." in raised.value.__notes__[0]
