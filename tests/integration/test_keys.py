"""Keys: the agent replaces its own, by hand and by age, whatever breaks in between; wraps their files; a copy of it is noticed; the service's key set is replaced at once."""
import base64, contextlib, glob, json, os, random, shutil, signal, subprocess, time

import pytest

import lab as lab_module
from lab import wait_for

NEW = "Gr33n-Field-Harbour"
OPEN = {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0}


def state(agent, name=""):
    return os.path.join(agent.settings["state_directory"], name)


def identity(agent):
    with open(state(agent, "identity.json"), encoding="utf-8") as f:
        return json.load(f)



def key_files(agent):
    return sorted(os.path.basename(path) for path in glob.glob(state(agent, "*.jwk*")))


def named_files(agent):
    """What should be there: those that identity.json names."""
    found = identity(agent)
    pairs = [found, found["next"]] if "next" in found else [found]
    return sorted([f"signing.{p['signing_key']}.jwk" for p in pairs] + [f"decryption.{p['decryption_key']}.jwk" for p in pairs + found["retired"]])


def at_service(lab):
    """{signing_key, decryption_key} of the one agent, as the service's administrator sees them."""
    agent = json.loads(lab.service.command("agents", "--json"))[0]
    return {name: agent[name] for name in ("signing_key", "decryption_key")}


def at_agent(lab):
    found = lab.agent.status()["identity"]
    return {name: found[name] for name in ("signing_key", "decryption_key")}


def agree(lab):
    """A working agent whose keys are the service's, and no key file too many."""
    lab.agent.wait_ready()
    wait_for("both ends to agree", lambda: at_agent(lab) == at_service(lab) and not lab.agent.status()["identity"]["keys"]["pending"], 30)
    wait_for("no other key files", lambda: key_files(lab.agent) == named_files(lab.agent))
    assert lab.ask("check", "bob", new_password=NEW)["code"] == "plausible"
    return at_agent(lab)


def rotate(lab, **options):
    return json.loads(lab.agent.ctl("--json", "rotate-keys", **options))


@pytest.fixture
def lab(build):
    lab = lab_module.Lab(build, "mock", settings={"limits": OPEN})
    try:
        lab.start()
        yield lab
    finally:
        lab.close()


# Rotation ----------------------------------------------------------------------------------------------------------------------------------

def test_by_hand_and_by_age(lab):
    first = agree(lab)
    answer = rotate(lab)
    second = agree(lab)
    assert answer["old"] == first and answer["new"] == second
    assert not set(first.values()) & set(second.values())
    event = lab.service.program.wait_event(event="agent.rekeyed")
    assert (event["old_signing_key"], event["signing_key"], event["old_decryption_key"], event["decryption_key"]) == (
        first["signing_key"], second["signing_key"], first["decryption_key"], second["decryption_key"])
    assert "->" in lab.agent.ctl("rotate-keys")
    third = agree(lab)
    former = json.loads(lab.service.command("agents", "--json"))[0]["former_keys"]
    assert [f["decryption_key"] for f in former] == [second["decryption_key"], first["decryption_key"]]
    # By age: the next channel after 90 days.
    lab.agent.writebackd.stop()
    found = identity(lab.agent)
    with open(state(lab.agent, "identity.json"), "w", encoding="utf-8") as f:
        json.dump({**found, "made_at": found["made_at"] - 90 * 86400}, f)
    lab.agent.start_writebackd()
    lab.agent.writebackd.wait_event(event="keys.rotated", count=3)
    assert agree(lab) != third
    # Both are still who they were after restarts.
    lab.service.program.stop()
    lab.service.start()
    lab.agent.writebackd.stop()
    lab.agent.start_writebackd()
    agree(lab)


def test_without_a_channel_it_is_refused(lab):
    lab.service.program.stop()
    wait_for("no channel", lambda: lab.agent.status()["channel"]["ready"] == 0)
    answer = json.loads(lab.agent.ctl("--json", "rotate-keys", check=False).split("\n", 1)[1])
    assert "there is no channel" in answer["text"]
    assert "next" not in identity(lab.agent)


def test_the_old_decryption_key_lives_an_hour_and_not_longer(lab):
    old = at_agent(lab)["decryption_key"]
    rotate(lab)
    found = identity(lab.agent)
    assert [r["decryption_key"] for r in found["retired"]] == [old] and 3500 < found["retired"][0]["until"] - time.time() <= 3600
    lab.agent.writebackd.stop()
    lab.agent.start_writebackd()
    assert f"decryption.{old}.jwk" in key_files(lab.agent)
    lab.agent.writebackd.stop()
    found = identity(lab.agent)
    found["retired"][0]["until"] = int(time.time()) - 1
    with open(state(lab.agent, "identity.json"), "w", encoding="utf-8") as f:
        json.dump(found, f)
    lab.agent.start_writebackd()
    agree(lab)
    assert identity(lab.agent)["retired"] == [] and f"decryption.{old}.jwk" not in key_files(lab.agent)


@pytest.mark.parametrize("who", ["agent", "service"])
def test_killed_at_any_moment(lab, who):
    """Ten rotations, kill -9 of one end a few milliseconds later each: whatever was written, sent or committed by then, both agree in the end."""
    dice = random.Random(who)
    for round_number in range(10):
        lab.agent.wait_ready()
        with subprocess.Popen([os.path.join(lab.build, "agent/ctl/writebackctl"), "--socket", lab.agent.control, "rotate-keys"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as call:
            time.sleep(dice.uniform(0, 0.06))
            if who == "agent":
                lab.agent.writebackd.kill()
                lab.agent.start_writebackd()
            else:
                lab.service.program.kill()
                lab.service.start()
            call.kill()
        # Its pause after so many cuts is not what is tested.
        lab.agent.channel.stop()
        lab.agent.start_channel()
        wait_for("both ends to agree", lambda: lab.agent.status()["identity"] and at_agent(lab) == at_service(lab) and not lab.agent.status()["identity"]["keys"]["pending"], 30)
        # Four in an hour are what it keeps old decryption keys for.
        lab.agent.writebackd.stop()
        found = identity(lab.agent)
        for retired in found["retired"]:
            retired["until"] = 1
        with open(state(lab.agent, "identity.json"), "w", encoding="utf-8") as f:
            json.dump(found, f)
        lab.agent.start_writebackd()
    agree(lab)
    assert not lab.service.program.events(event="agent.clone")
