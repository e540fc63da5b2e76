"""A bounded share of the soak: faults of every kind at random under load, and the seed in the output to do the same again."""
import os, random, subprocess

import pytest

import crash_lab
from lab import BUILD

SOAK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "soak")


def soak(*words, timeout=180):
    done = subprocess.run([SOAK, *words, "--build", BUILD], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    return done.returncode, done.stdout


def test_half_a_minute_at_random(build, print_table):
    if not crash_lab.has_points(build):
        pytest.skip("built without -Dcrash_points=true")
    seed = os.environ.get("WRITEBACK_SOAK_SEED") or str(random.randrange(1 << 32))
    status, output = soak("--minutes", "0.4", "--seed", seed)
    print_table(f"soak, mock, seed {seed}", [line for line in output.splitlines() if line.startswith("|") or "cycles," in line])
    assert status == 0, output
