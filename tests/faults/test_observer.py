"""The observer sees what is right and, which matters more, what is not: each invariant with a breach of it that the test itself makes."""
import os

import observer as observer_module
from lab import UNICODE_PWD


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
