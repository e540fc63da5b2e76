#!/usr/bin/python3
"""count.py REPORT.xml…: adds up JUnit reports, says what failed and why something was skipped; the last line is `N passed, N failed, N skipped`."""
import sys, xml.etree.ElementTree as xml

passed, failed, skipped = 0, [], []
for path in sys.argv[1:]:
    for case in xml.parse(path).iter("testcase"):
        name = f'{case.get("classname", "")}.{case.get("name", "")}'.strip(".")
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is not None:
            skipped.append((name, (case.find("skipped").get("message") or case.find("skipped").text or "no reason given").strip()))
        else:
            passed += 1
for name in failed:
    print("failed:", name)
for name, why in skipped:
    print(f"skipped: {name}: {why}")
print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
sys.exit(1 if failed or not passed else 0)
