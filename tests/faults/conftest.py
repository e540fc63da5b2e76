import os, sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
sys.path.insert(0, os.path.dirname(__file__))
import lab as lab_module
import table
from crash_lab import SETTINGS
from lab import BUILD
from line import Line
from minute import Minute
from observer import Observer, notes

tables = []  # (title, lines), printed at the end


@pytest.fixture(scope="session")
def build():
    return BUILD


@pytest.fixture(scope="module")
def module_line():
    """A Line for all tests of a module, of which each puts back what it changed."""
    made = Line()
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def begun_minute(request, tmp_path_factory):
    """A Minute, where some test asks for one: begun before all of them, so that nobody need wait for it."""
    made = Minute(tmp_path_factory.mktemp("minute")) if any("minute" in item.fixturenames for item in request.session.items) else None
    yield made
    if made:
        made.close()


@pytest.fixture
def minute(begun_minute):
    return begun_minute


@pytest.fixture(scope="session")
def print_table():
    """print_table(title, lines): stands at the end of pytest's output."""
    return lambda title, lines: tables.append((title, lines))


def watched_lab(kind, **options):
    """A whole lab and its observer; close() the lab."""
    lab = lab_module.Lab(BUILD, kind, keep=bool(os.environ.get("KEEP_LAB")), shared=True, **{"settings": SETTINGS, **options})
    try:
        lab.start()
        return lab, Observer(BUILD, [lab.directory], lab.service, [lab.agent], lab.folder)
    except BaseException:
        lab.close()
        raise


@pytest.fixture(scope="module")
def watched():
    """(lab, observer) on mock-directory."""
    lab, observer = watched_lab("mock")
    yield lab, observer
    lab.close()


def pytest_terminal_summary(terminalreporter):
    for title, lines in tables:
        terminalreporter.section(title)
        for line in lines:
            terminalreporter.write_line(line)
    if notes:
        terminalreporter.section("what the observer could not judge")
        for line in sorted(notes):
            terminalreporter.write_line(line)
    terminalreporter.section("what the agent is to survive")
    for line in table.summary():
        terminalreporter.write_line(line)
