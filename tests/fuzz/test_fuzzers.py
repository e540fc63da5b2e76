"""Every fuzzer under libFuzzer for a while, from its corpus (./check --all). FUZZ_SECONDS each, 30 by default."""
import glob, os, shutil, subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, "build-fuzz")
NAMES = sorted(os.path.basename(folder) for folder in glob.glob(os.path.join(ROOT, "tests", "fuzz", "corpus", "*")))


@pytest.fixture(scope="session")
def fuzzers():
    env = {**os.environ, "CC": "clang", "PATH": "/usr/bin:" + os.environ["PATH"]}
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        subprocess.run(["meson", "setup", BUILD, ROOT, "-Dfuzz=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"], env=env, check=True, capture_output=True)
    subprocess.run(["ninja", "-C", BUILD], env=env, check=True, capture_output=True)
    return {os.path.basename(path)[len("fuzz_"):]: path for path in glob.glob(BUILD + "/tests/**/fuzz_*", recursive=True) if os.access(path, os.X_OK) and os.path.isfile(path)}


@pytest.mark.parametrize("name", NAMES)
def test_fuzzer(fuzzers, name, tmp_path):
    corpus = tmp_path / "corpus"  # what libFuzzer finds on its way stays out of the repository
    shutil.copytree(os.path.join(ROOT, "tests", "fuzz", "corpus", name), corpus)
    done = subprocess.run([fuzzers[name], f"-max_total_time={os.environ.get('FUZZ_SECONDS', '30')}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={tmp_path}/", str(corpus)],
                          env={**os.environ, "LSAN_OPTIONS": f"suppressions={ROOT}/tests/support/leaks.txt:print_suppressions=0"}, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr[-3000:]
