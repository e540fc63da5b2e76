"""The observer sees what is right and, which matters more, what is not: each invariant with a breach of it that the test itself makes."""
import json, os, signal, types

import observer as observer_module
from lab import LOCKOUT_TIME, UNICODE_PWD


def test_what_is_right_is_no_violation(watched):
    lab, observer = watched
    observer.ask("bench001")
    observer.ask("bench002", unlock=True, locked=True)
    observer.ask("bench003", op="unlock", locked=True)
    refused = observer.ask("outsider")
    observer.settle()
    assert observer.check() == [] and refused.outcome["status"] == "refused"


def ask(observer, user, **options):
    one = observer.ask(user, **options)
    observer.settle()
    return one


def test_each_breach_is_seen(watched):
    lab, observer = watched
    one = ask(observer, "bench004")
    lab.directory.control(f"set bench004 password={one.password}")
    assert any("more than once" in line for line in observer.check())

    one = ask(observer, "bench005")
    one.outcome = {**one.outcome, "status": "failed"}
    found = observer.check()
    assert any("told as not done, and done" in line for line in found) and any("outcome changed" in line for line in found)

    one = ask(observer, "bench006")
    lab.directory.control("set bench006 password=Somebody-Else-3")
    assert any("does not open" in line for line in observer.check())

    one = ask(observer, "outsider")
    one.outcome = {**one.outcome, "status": "applied"}
    assert any("told as done, and not done" in line for line in observer.check())

    one = ask(observer, "bench007", op="unlock", locked=True)
    lab.directory.control("set bench007 locked=true")
    assert any("still locked" in line for line in observer.check())

    one = ask(observer, "bench009", unlock=True, locked=True)
    lab.directory.control("set bench009 locked=true")
    lab.directory.control("set bench009 locked=false")
    assert any("more often than asked" in line for line in observer.check())

    one = ask(observer, "bench015", locked=True)
    lab.directory.control("set bench015 locked=false")
    assert any("more often than asked" in line for line in observer.check())

    one = ask(observer, "bench016", op="unlock", locked=True)
    lab.directory.control("set bench016 password=Somebody-Else-4")
    assert any("nobody asked for" in line for line in observer.check())

    one = ask(observer, "outsider")
    lab.directory.control("set outsider password=Somebody-Else-5")
    found = observer.check()
    assert one.outcome["status"] == "refused" and any("nobody asked for" in line for line in found)

    ask(observer, "bench017")
    ask(observer, "bench017")
    lab.directory.control("set bench017 password=Somebody-Else-6")
    assert any("nobody asked for" in line for line in observer.check())

    one = ask(observer, "bench008")
    path = os.path.join(lab.agent.folder, "state", "a-note")
    with open(path, "w", encoding="utf-16-le") as f:
        f.write("x" + one.password)
    assert any(path in line for line in observer.check())
    os.unlink(path)


def test_a_count_by_version_sees_the_same(watched):
    """As on a directory that tells no passwords: Samba, and Windows."""
    lab, _ = watched
    observer = observer_module.Observer(lab.build, [lab.directory], lab.service, [lab.agent], lab.folder)
    observer.at = [observer_module.AtDirectory(lab.directory)]
    ask(observer, "bench010")
    ask(observer, "bench011", op="unlock", locked=False)
    assert observer.check() == []
    one = ask(observer, "bench012")
    lab.directory.control(f"set bench012 password={one.password}")
    assert any("more than once" in line for line in observer.check())
    one = ask(observer, "bench013")
    lab.directory.control("set bench013 password=Somebody-Else-3")
    observer.wrote("bench013", UNICODE_PWD)
    assert observer.check() == []
    one = ask(observer, "bench014")
    one.outcome = {**one.outcome, "status": "refused"}
    assert any("told as not done, and done" in line for line in observer.check())
    one = ask(observer, "bench018", op="unlock", locked=True)
    lab.directory.control("set bench018 password=Somebody-Else-4")
    assert any("nobody asked for" in line for line in observer.check())


def test_a_fault_is_told(watched):
    """In the log and in status, within 5 s; and it is seen where it is not."""
    lab, observer = watched
    lab.directory.kill()
    try:
        observer.wait_event(lab.agent.writebackd, event="directory.down", state=lambda status: status["directories"][0]["servers_up"] == 0)
        assert observer.violations == []
        observer.wait_event(lab.agent.writebackd, within=0.2, event="directory.down", state=lambda status: status["directories"][0]["servers_up"] == 1)
        observer.wait_event(lab.agent.writebackd, within=0.2, event="directory.up", count=99)
    finally:
        lab.directory.start()
    observer.settle()
    found = observer.check()
    assert len(found) == 2 and all("not told within" in line for line in found)


def test_a_death_that_nobody_asked_for_is_named(watched):
    """Though it is started again, and works: by its name, its status, and where its log lies. SIGKILL is how the crash points end it."""
    lab, observer = watched
    for how, found in ((signal.SIGABRT, True), (signal.SIGKILL, False)):
        program = lab.agent.writebackd
        os.kill(program.pid, how)
        program.process.wait(20)
        lab.agent.start_writebackd()
        lab.agent.wait_ready()
        said = observer.check()
        assert len(said) == found and all(text.startswith(f"writebackd ended with {program.process.returncode}: ") and program.log_path in text for text in said)


def test_samba_log_tells_who_was_asked(tmp_path):
    """What a client asked of this controller, not its own counting of bad tries, nor what was refused, nor half a line."""
    def line(user="bench001", address='"ipv4:127.0.0.1:1"', status=0, **attributes):
        values = {name: {"actions": [{"action": "replace", **({"values": [{"value": value}]} if value else {"redacted": True})}]} for name, value in attributes.items()}
        return '{"type": "dsdbChange", "dsdbChange": {"statusCode": %d, "operation": "Modify", "remoteAddress": %s, "dn": "CN=%s,OU=People,DC=corp", "attributes": %s}}\n' % (
            status, address, user, json.dumps(values))
    (tmp_path / "log").mkdir()
    log = tmp_path / "log" / "samba.out"
    at = observer_module.AtSamba(types.SimpleNamespace(folder=tmp_path))
    log.write_text("samba: ready\n" + line(unicodePwd=None, lockoutTime="0") + line(address="null", lockoutTime="134") + line(status=50, unicodePwd=None) + line(user="bench002", unicodePwd=None))
    assert at.made("bench001") == {UNICODE_PWD: 1, LOCKOUT_TIME: 1}
    with log.open("a") as f:
        f.write('{"type": "dsdbChange", "dsd\n' + line(unicodePwd=None) + line(unicodePwd=None)[:-20])
    assert at.made("bench001") == {UNICODE_PWD: 2, LOCKOUT_TIME: 1}
    assert at.made("bench002") == {UNICODE_PWD: 1, LOCKOUT_TIME: 0}
