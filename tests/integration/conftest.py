import contextlib, os, signal, sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support", "ldap"))
import capabilities
import lab as lab_module
from directories import KINDS, LAB_OPTIONS, missing, running_lab
from lab import BUILD

tested_instead = []


@pytest.fixture(scope="session")
def build():
    return BUILD


def pytest_collection_modifyitems(items):
    for item in items:
        if "samba" in item.nodeid.lower() or "test_error_map" in item.nodeid:  # which is one table of all directories
            item.add_marker("samba")
        if any(word in item.nodeid for word in ("samba", "openldap", "389", "test_ldap", "test_two_controllers", "test_discovery", "test_binding", "test_rights")):
            item.add_marker("elsewhere")


def pytest_runtest_setup(item):
    if item.get_closest_marker("plain") and not lab_module.is_plain(BUILD):
        pytest.skip("this build has sanitizers; check runs it on one without")


@pytest.fixture(scope="module", params=KINDS)
def lab(request):
    """A whole lab with each directory in turn: the same test runs on all of them (capabilities.py says which). A module's LAB_OPTIONS are those of lab.Agent.
    A module whose tests hold for the flavor ldap too says pytestmark = every_directory (directories.py)."""
    if missing(request.param):
        pytest.skip(missing(request.param))
    lab = running_lab(request.param, **{**LAB_OPTIONS, **getattr(request.module, "LAB_OPTIONS", {})})
    yield lab
    lab.close()


@pytest.fixture
def can(request, lab):
    """can(capability, instead): whether lab's directory can; where not, it is said at the end what was tested instead."""
    def ask(capability, instead):
        why = capabilities.lacks(capability, lab.kind)
        if why:
            name = f"{lab.directory.name} {lab.directory.version}".strip()
            tested_instead.append(f"{request.node.name}: {name} {why}. Tested instead: {instead}.")
        return not why
    return ask


@pytest.fixture
def rescope(lab):
    """Adds to the scope with SIGHUP, and puts everything back at the end."""
    agent, entry = lab.agent, lab.agent.settings["directories"][0]
    before = dict(entry["scope"])

    def change(**more):
        entry["scope"] = {k: v for k, v in {**before, **more}.items() if v is not None}
        agent.write_config()
        count = len(agent.writebackd.events(event="config.loaded"))
        agent.writebackd.signal(signal.SIGHUP)
        agent.writebackd.wait_event(event="config.loaded", count=count + 1)
        agent.wait_ready()
    yield change
    change()


@pytest.fixture
def second_agent(lab, tmp_path):
    """second_agent(…): another service and agent at lab's directory, with other settings (as lab.Agent's)."""
    with contextlib.ExitStack() as stack:
        def make(**options):
            service = lab_module.Service(BUILD, str(tmp_path / "service"))
            stack.callback(service.close)
            agent = lab_module.Agent(BUILD, str(tmp_path / "agent"), lab.directory, f"wss://localhost:{service.port}/v1/agent", service.ca, **options)
            stack.callback(agent.close)
            agent.start()
            agent.enroll(service.issuer, service.ticket())
            agent.wait_ready()
            return service
        yield make


@pytest.fixture
def scene(request, build):
    """scene(…): one more Scene, of which each module has its own."""
    scenes = []

    def make(**options):
        scenes.append(request.module.Scene(build, **options))
        return scenes[-1]
    yield make
    lab_module.stop_all(each.close for each in scenes)


@pytest.fixture(scope="module")
def mock_lab():
    lab = running_lab("mock")
    yield lab
    lab.close()


def pytest_terminal_summary(terminalreporter):
    if tested_instead:
        terminalreporter.section("what a directory cannot do")
        for line in tested_instead:
            terminalreporter.write_line(line)


@pytest.fixture
def tool(build):
    tools = []

    def make(*options, **more):
        tools.append(lab_module.Tool(build, *options, **more))
        return tools[-1]
    yield make
    lab_module.stop_all(t.close for t in tools)
