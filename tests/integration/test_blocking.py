"""With the directory stopped (SIGSTOP) during a request nothing on either loop waits, heartbeats go on, and the caller gets a true answer in time."""
import copy, os, time

import pytest

import lab as lab_module
from directories import missing, running_lab
from lab import DOMAIN, forest_password, wait_for
from relay import Relay


def test_a_stopped_directory_blocks_nothing(build, capsys):
    lab = running_lab("mock", directory_settings={"timeouts": {"write": "3s", "locate": "2s"}}, channel_settings={"ping_interval": "1s", "silence_limit": "3s"},
                      settings={"settling": {"delay": "1s", "limit": "30s"}})
    try:
        assert lab.service.operate("unlock", f"bob@{DOMAIN}")["status"] == "applied"
        lab.directory.control("fault add on=modify user=alice delay=300 count=1")
        lab.directory.pause()
        began = time.monotonic()
        answer = lab.service.operate("reset", f"alice@{DOMAIN}", new_password="Gr33n-Field-Harbour")
        took = time.monotonic() - began
        assert took < 20
        assert answer["code"] in ("directory.timeout", "directory.unavailable", "settling", "ok")
        # The channel gives a peer up that is silent for 3 s: it stands after 5, so pings went out and were answered all the while.
        wait_for("five seconds of standstill", lambda: time.monotonic() - began > 5)
        assert lab.service.agents()[0]["connected"] and not lab.agent.channel.events(event="channel.down")
        lab.directory.go()
        wait_for("the directory to be up again", lambda: lab.service.operate("unlock", f"bob@{DOMAIN}")["status"] == "applied", 40)
        lab.agent.close()
        for program in (lab.agent.writebackd, lab.agent.channel):
            gap = float(program.events(event="loop.gap")[-1]["longest_gap_ms"])
            with capsys.disabled():
                print(f"\n{program.name}: longest gap of its loop with the directory stopped: {gap:.1f} ms (aim: below 50)", end="", flush=True)
            assert gap < 1000 * lab_module.SLOWNESS
    finally:
        lab.close()


def test_a_directory_stopped_between_modify_and_answer_settles(build):
    """The modify is applied and its answer lost: the caller hears settling or the truth, and at the end `applied`."""
    lab = running_lab("mock", directory_settings={"timeouts": {"write": "2s"}}, settings={"settling": {"delay": "1s", "limit": "30s"}})
    try:
        version, _ = lab.directory.password_record("alice")
        lab.directory.control("fault add on=modify cut-after count=1")
        answer = lab.service.operate("reset", f"alice@{DOMAIN}", new_password="Gr33n-Field-Harbour")
        final = lab.service.wait_final(answer["operation_id"], 40)
        assert final["status"] == "applied"
        assert lab.directory.password_record("alice")[0] == version + 1
        lab.directory.control("fault add on=modify cut-before count=1")
        answer = lab.service.operate("reset", f"bob@{DOMAIN}", new_password="Gr33n-Field-Harbour")
        final = lab.service.wait_final(answer["operation_id"], 40)
        assert final["status"] == "failed"
        assert lab.directory.opens("bob", forest_password("bob"))
    finally:
        lab.close()


def other_forest(build, folder):
    """A controller of another forest, other.example.test."""
    os.makedirs(folder)
    path = os.path.join(folder, "users.yaml")
    with open(lab_module.FOREST, encoding="utf-8") as f:
        text = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace(DOMAIN, OTHER).replace("netbios: CORP", "netbios: OTHER"))
    return lab_module.MockDirectory(build, folder, "--users", path, "--host", f"dc1.{OTHER}")


OTHER = "other.example.test"


def resets(lab, domain, users):
    """The longest of so many resets, in seconds; each is applied."""
    longest = 0
    for user in users:
        began = time.monotonic()
        answer = lab.service.operate("reset", f"{user}@{domain}", new_password="Gr33n-Field-Harbour")
        longest = max(longest, time.monotonic() - began)
        assert answer["status"] == "applied", answer
    return longest


def add_forest(lab, other):
    """A second directory in the agent's configuration, bound to by a password."""
    one, base = copy.deepcopy(lab.agent.settings["directories"][0]), "DC=other,DC=example,DC=test"
    bind = {"dn": f"CN=svc-writeback,OU=Service,{base}", "password_file": os.path.join(lab.agent.folder, "bind-password")}
    lab.agent.settings["directories"].append({**one, "name": "other", "servers": [f"{other.host}:{other.port}"], "ca_file": other.ca, "domains": [OTHER, "OTHER"], "bind": bind,
                                              "scope": {"users": "selected", "bases": [f"OU=People,{base}"]}})
    lab.agent.write_config()


def tell_gap(lab, capsys):
    lab.agent.close()
    gap = float(lab.agent.writebackd.events(event="loop.gap")[-1]["longest_gap_ms"])
    with capsys.disabled():
        print(f"\nwritebackd: longest gap of its loop meanwhile: {gap:.1f} ms (aim: below 50)", end="", flush=True)
    assert gap < 1000 * lab_module.SLOWNESS


def test_one_forests_stopped_controller_leaves_the_others_alone(build, capsys):
    lab = lab_module.Lab(build, "mock")
    other = None
    try:
        lab.start_directory()
        lab.start_service()
        other = other_forest(build, os.path.join(lab.folder, "other"))
        lab.agent = lab_module.Agent(build, lab.folder + "/agent", lab.directory, f"wss://localhost:{lab.service.port}/v1/agent", lab.service.ca,
                                     directory_settings={"timeouts": {"write": "2s", "locate": "1s"}}, settings={"settling": {"delay": "1s", "limit": "30s"}})
        add_forest(lab, other)
        lab.agent.start()
        lab.agent.enroll(lab.service.issuer, lab.service.ticket())
        wait_for("both directories", lambda: all(d["servers_up"] for d in lab.agent.status()["directories"]), 20)
        before = resets(lab, OTHER, [f"bench{n:03}" for n in range(20)])
        lab.directory.pause()
        status, asked = lab.service.http("POST", "/v1/operations", {"operation_id": "5a1f0c5e-3d0b-4f6e-9a51-7e0f4c1b2a77", "op": "reset", "wait": 0,
                                         "sub_id": {"format": "userPrincipalName", "id": f"alice@{DOMAIN}"}, "new_password": "Gr33n-Field-Harbour"})
        assert status in (200, 202)
        began, during = time.monotonic(), 0
        for n in range(20, 60):
            during = max(during, resets(lab, OTHER, [f"bench{n:03}"]))
            time.sleep(0.05)
        with capsys.disabled():
            print(f"\nlongest reset in another forest: {before * 1000:.0f} ms, {during * 1000:.0f} ms in {time.monotonic() - began:.1f} s with one forest's controller stopped", end="", flush=True)
        assert during < 1
        assert lab.service.wait_final(asked["operation_id"], 20)["status"] == "failed"
        lab.directory.go()
        wait_for("the stopped one to be used again", lambda: lab.service.operate("unlock", f"bob@{DOMAIN}")["status"] == "applied", 40)
        tell_gap(lab, capsys)
    finally:
        if other:
            lab_module.stop_all([other.go, other.close])
        lab.close()


def test_one_forests_stopped_kdc_leaves_the_others_alone(build, capsys):
    """The agent binds to Samba by Kerberos, and its KDC hears and does not answer; the other forest's users are reset all the while, and Samba is there once its KDC is."""
    if missing("samba"):
        pytest.skip(missing("samba"))
    lab = lab_module.Lab(build, "samba")
    other = kdc = None
    try:
        lab.start_directory()
        lab.start_service()
        other = other_forest(build, os.path.join(lab.folder, "other"))
        kdc = Relay(lab.directory.host, 88)
        kdc.hold_answers()
        krb5 = os.path.join(lab.folder, "krb5-relay.conf")
        with open(lab.directory.krb5_config, encoding="utf-8") as source, open(krb5, "w", encoding="utf-8") as copy_:
            copy_.writelines(f"  kdc = {kdc.host}:{kdc.port}\n" if "kdc = " in line and "lookup" not in line else line for line in source)
        lab.agent = lab_module.Agent(build, lab.folder + "/agent", lab.directory, f"wss://localhost:{lab.service.port}/v1/agent", lab.service.ca, kerberos="gssapi")
        lab.agent.wrapper = [*lab.directory.inside, "env", f"KRB5_CONFIG={krb5}"]
        add_forest(lab, other)
        lab.agent.start()
        lab.agent.enroll(lab.service.issuer, lab.service.ticket())

        def up():
            return [bool(d["servers_up"]) for d in lab.agent.status()["directories"]]
        wait_for("the other forest", lambda: up() == [False, True], 20)
        began, longest = time.monotonic(), 0
        for n in range(40):
            longest = max(longest, resets(lab, OTHER, [f"bench{n:03}"]))
            time.sleep(0.1)
        assert up() == [False, True] and lab.service.operate("unlock", f"bob@{DOMAIN}")["code"] == "directory.unavailable"
        with capsys.disabled():
            print(f"\nlongest reset in another forest: {longest * 1000:.0f} ms in {time.monotonic() - began:.1f} s with one forest's KDC stopped", end="", flush=True)
        assert longest < 1
        kdc.forward()
        wait_for("Samba, now that there is a ticket", lambda: up() == [True, True], 40)
        assert lab.service.operate("unlock", f"bob@{DOMAIN}")["status"] == "applied"
        tell_gap(lab, capsys)
    finally:
        lab_module.stop_all([part.close for part in (other, kdc) if part])
        lab.close()
