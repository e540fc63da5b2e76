import os, sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support"))
import lab as lab_module

BUILD = os.path.abspath(os.environ.get("BUILD_ROOT", os.path.join(lab_module.ROOT, "build")))


@pytest.fixture(scope="session")
def build():
    return BUILD


def running_lab(kind, **options):
    lab = lab_module.Lab(BUILD, kind, keep=bool(os.environ.get("KEEP_LAB")), shared=True, **options)
    try:
        lab.start()
    except BaseException:
        lab.close()
        raise
    return lab


@pytest.fixture(scope="module", params=["mock", "samba"])
def lab(request):
    """A whole lab with each directory in turn: the same test runs on both."""
    if request.param == "samba" and not os.path.exists("/usr/sbin/samba"):
        pytest.skip("Samba is not installed")
    lab = running_lab(request.param)
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def mock_lab():
    lab = running_lab("mock")
    yield lab
    lab.close()
