#!/usr/bin/python3
# generate-status.py codes.json: prints status_codes.h, the rows of base/status.h's enum and table.
import json, sys

def text(s):
    return "NULL" if s is None else json.dumps(s, ensure_ascii=True)

codes = json.load(open(sys.argv[1], encoding="utf-8"))["codes"]
print("/* Made from proto/codes.json by base/generate-status.py. STATUS_CODES(X): X(name, code, outcome, level, retry, user, admin) */")
print("#define STATUS_CODES(X) \\")
for c in codes:
    name = "STATUS_" + c["code"].upper().replace(".", "_")
    outcome = "OUTCOME_" + (c["outcome"] or "none").upper()
    print(f'\tX({name}, "{c["code"]}", {outcome}, LOG_{c["level"].upper().replace("ERROR", "ERR").replace("CRITICAL", "CRIT")}, '
          f'RETRY_{c["retry"].upper()}, {text(c["user"])}, {text(c["admin"])}) \\')
print()
