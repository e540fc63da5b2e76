#!/usr/bin/python3
"""demo.py BUILD mock|samba [--keep]: what ./demo shows, step by step. Exit status 0 only if every step came out as it says."""
import json, sys, time, uuid

import lab as lab_module
from lab import DOMAIN, forest_password

NEW = "Gr33n-Field-Harbour"
failures = []


def title(text):
    print(f"\n{text}", flush=True)


def show(text, right=True):
    print(f"  {'ok   ' if right else 'WRONG'} {text}", flush=True)
    if not right:
        failures.append(text)


def outcome(answer):
    rules = "; ".join(", ".join(f"{k} {v}" for k, v in rule.items()) for rule in answer.get("rules") or [])
    return f"{answer['status']}, {answer['code']}" + (f" ({rules})" if rules else "")


def run(lab):
    began = time.monotonic()
    title("1. A directory, the reset service and the agent start")
    lab.start_directory()
    real = lab.kind == "samba"
    show(f"{lab.directory.name}{' ' + lab.directory.version if real else ''} serves the domain {DOMAIN} at ldaps://{lab.directory.host}:{lab.directory.port}")
    lab.start_service()
    show(f"reset-service made its root key and listens at {lab.service.issuer}")
    lab.start_agent()
    show("writebackd (holds the keys, reaches the directory) and writebackd-channel (holds nothing, reaches the service) run")

    title("2. The agent enrolls with a one-time ticket and is ready")
    print("  " + "\n  ".join(lab.agent.enroll(lab.service.issuer, lab.service.ticket()).strip().splitlines()))
    lab.agent.wait_ready()
    show("writebackctl status: " + lab.agent.ctl("status").strip().splitlines()[0])

    title("3. Alice forgot her password")
    old = forest_password("alice")
    show("her old password opens her account", lab.directory.opens("alice", old))
    answer = reset(lab, "alice", NEW)
    show(f"the service asks for a reset: {outcome(answer)}, written by {answer.get('directory', {}).get('server')}", answer["code"] == "ok")
    show("the new password opens the account", lab.directory.opens("alice", NEW))
    show("the old one does not", not lab.directory.opens("alice", old))
    followed = answer["operation_id"]

    title("4. Bob locked himself out")
    lab.directory.lock("bob")
    show("after five wrong passwords his account is locked", lab.directory.locked("bob"))
    answer = lab.service.operate("unlock", f"bob@{DOMAIN}")
    show(f"unlock: {outcome(answer)}, was locked: {answer.get('was_locked')}", answer["code"] == "ok" and answer.get("was_locked") is True)
    show("his own password opens the account again", lab.directory.opens("bob", forest_password("bob")))

    title("5. The organization's policy says no, and which rule it was")
    refuse(lab, "bob", "Sh0rt!", "policy.too_short", "a short password")
    refuse(lab, "bob", "alllowercaseletters", "policy.complexity", "a simple password")
    if lab.directory.policy_hints:
        refuse(lab, "bob", forest_password("bob"), "policy.history_or_filter", "a password from the history")
        refuse(lab, "erin", NEW, "policy.too_recent", "a change that comes too soon")
    else:
        print(f"        Samba {lab.directory.version} lacks the policy-hints control (1.2.840.113556.1.4.2239), so on a reset it enforces neither history nor")
        print("        minimum age: those two refusals cannot be shown here. The agent runs with `policy_hints: when-supported` and says so in each result:")
        warnings = lab.service.operation(followed).get("warnings") or []
        show(f"warnings of Alice's reset: {', '.join(warnings)}", "policy_not_enforced" in warnings)

    title("6. Whom the premises protect, nobody resets")
    refuse(lab, "adm-amy", NEW, "user.protected", "a Domain Admin")
    refuse(lab, "outsider", NEW, "user.out_of_scope", "a user outside the configured scope")

    title(f"7. Alice's reset, followed by its id {followed}")
    lines = lab.service.program.events(operation_id=followed) + lab.agent.writebackd.events(operation_id=followed)
    for event in sorted(lines, key=lambda e: e.get("time", "")):
        print("  " + json.dumps(event, ensure_ascii=False))
    show("the service and the agent both tell of it", any(e.get("event") == "request.end" for e in lines) and any(e.get("event") == "operation.done" for e in lines))
    logs = "".join(p.log_text() for p in (lab.service.program, lab.agent.writebackd, lab.agent.channel))
    show("no log has a password in it", NEW not in logs and old not in logs)

    title("8. Everything stops")
    show("both processes of the agent end by themselves when asked to", lab.agent.close() == [0, 0])
    print(f"\n{'Everything came out as it should' if not failures else 'NOT as it should: ' + '; '.join(failures)} ({time.monotonic() - began:.1f} s).")


def reset(lab, user, password):
    return lab.service.operate("reset", f"{user}@{DOMAIN}", new_password=password, operation_id=str(uuid.uuid4()))


def refuse(lab, user, password, code, what):
    before = lab.directory.password_record(user)
    answer = reset(lab, user, password)
    show(f"{what}: {outcome(answer)}", answer["code"] == code and answer["status"] == "refused" and lab.directory.password_record(user) == before)


def main():
    lab = lab_module.Lab(sys.argv[1], sys.argv[2], keep="--keep" in sys.argv)
    try:
        run(lab)
    except Exception as error:
        failures.append(str(error))
        print(f"\nStopped: {error}")
    finally:
        lab.close()
        for text in lab_module.verdicts():
            failures.append(text)
            print(text)
        if lab.keep:
            print("Logs and state are in", lab.folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
