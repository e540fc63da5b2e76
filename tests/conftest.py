import os, sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "support"))
import lab


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    """A sanitizer's report, or an end that nobody asked for, of any program that a test started fails it, however all of it was stopped."""
    outcome = yield
    if found := lab.verdicts():
        pytest.fail("\n".join(found + [f"and then {error}" for error in (outcome.excinfo or ())[1:2]]), pytrace=False)
