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
    """What pytest says at its end: how many faults have a case, and which have none yet."""
    faults = [entry for entry in load() if "number" in entry]
    cases, why_not = sum(bool(entry.get("tests")) for entry in faults), sum("why_not" in entry for entry in faults)
    lines = [f"faults: {cases} of {len(faults)} have a case, {why_not} say why not"]
    for title, some in (("open", [e for e in load() if not e.get("tests") and "why_not" not in e]), ("open in part", [e for e in load() if e.get("tests") and "missing" in e])):
        if some:
            lines.append(f"{title}: {', '.join(name_of(entry) for entry in some)}")
    return lines
