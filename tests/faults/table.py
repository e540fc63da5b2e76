"""The table of faults (faults.yaml), read."""
import os

import yaml


def load():
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "faults.yaml"), encoding="utf-8") as f:
        table = yaml.safe_load(f)
    return table["faults"] + table["rows"]


def name_of(entry):
    return str(entry.get("number") or entry["row"])


def summary():
    """How many faults have a case; what pytest says at its end."""
    faults = [entry for entry in load() if "number" in entry]
    cases = sum(bool(entry.get("tests")) for entry in faults)
    why_not = sum("why_not" in entry for entry in faults)
    line = f"faults: {cases} of {len(faults)} have a case, {why_not} say why not"
    open_ones = [name_of(entry) for entry in load() if not entry.get("tests") and "why_not" not in entry]
    partly = [name_of(entry) for entry in load() if entry.get("tests") and "missing" in entry]
    return line + (f"; open: {', '.join(open_ones)}" if open_ones else "") + (f"; a part of what is expected is not asserted yet: {', '.join(partly)}" if partly else "")
