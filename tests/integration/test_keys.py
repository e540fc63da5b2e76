"""Keys: the agent replaces its own, by hand and by age, whatever breaks in between; wraps their files; a copy of it is noticed; the service's key set is replaced at once."""
import contextlib, glob, json, os, random, shutil, signal, subprocess, time

import pytest

import lab as lab_module
from lab import wait_for
from scripted_service import ScriptedService, example

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


def test_a_lost_identity_is_an_error_that_names_it(lab):
    lab.agent.writebackd.stop()
    os.rename(state(lab.agent, "identity.json"), state(lab.agent, "kept"))
    lab.agent.start_writebackd()
    assert "identity.json is missing" in lab.agent.writebackd.wait_event(event="agent.identity", level="critical")["message"]
    for words in (["status"], ["check"]):
        said = lab.agent.ctl(*words, check=False)
        assert "identity.json is missing" in said and "restore it" in said, said
    lab.agent.writebackd.stop()
    os.rename(state(lab.agent, "kept"), state(lab.agent, "identity.json"))
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
    """Six rotations, kill -9 of one end a few milliseconds later each: whatever was written, sent or committed by then, both agree in the end."""
    dice = random.Random(who)
    for _ in range(6):
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


# Where only the service knows ----------------------------------------------------------------------------------------------------------------

class Scene:
    """A scripted service that says what it likes to new keys; no directory is needed."""

    def __init__(self, build, **agent_options):
        self.lab = lab_module.Lab(build, "mock")
        self.lab.start_directory()
        self.service = ScriptedService(self.lab.folder + "/scripted")
        self.agent = self.lab.agent = lab_module.Agent(build, self.lab.folder + "/agent", self.lab.directory, self.service.endpoint, self.service.ca, **agent_options)
        self.agent.start()
        self.agent.enroll(self.service.issuer, self.service.ticket)
        self.welcomed()

    def welcomed(self):
        wait_for("the welcome", lambda: self.service.ws and self.agent.status()["channel"]["ready"], 30)

    def keys(self):
        found = self.agent.status()["identity"]
        return found["signing_key"], found["decryption_key"]

    def service_keys(self):
        return tuple(key.thumbprint() for key in self.service.agents[self.service.agent_id])

    def ask_for_rotation(self):
        return subprocess.Popen([os.path.join(self.lab.build, "agent/ctl/writebackctl"), "--socket", self.agent.control, "rotate-keys"],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def restart_agent(self):
        self.agent.writebackd.kill()
        self.agent.start_writebackd()
        self.welcomed()

    def close(self):
        self.service.close()
        self.lab.close()


def test_sent_and_not_committed(scene):
    """kill -9 once it is sent, at a service that has never seen it: the former keys greet, and it is told again."""
    s = scene()
    before = s.keys()
    s.service.on_rekey = "ignore"
    with s.ask_for_rotation() as call:
        wait_for("the message", lambda: s.service.rekeys)
        following = identity(s.agent)["next"]
        s.restart_agent()
        call.wait(10)
    assert s.keys() == before
    wait_for("it again", lambda: len(s.service.rekeys) == 2)
    assert s.agent.status()["identity"]["keys"]["pending"]
    assert "has not confirmed" in s.agent.ctl("status", check=False)
    s.service.on_rekey = "answer"
    s.service.cut()
    wait_for("the new keys", lambda: s.keys() == (following["signing_key"], following["decryption_key"]), 30)
    assert s.service_keys() == s.keys() and "next" not in identity(s.agent)


def test_committed_and_not_confirmed(scene):
    """kill -9 once the service has it and before it could say so: the former pair is refused once, then the next one greets; requests to either key are read all the while."""
    s = scene()
    before = s.keys()
    s.service.on_rekey = "commit"
    former = s.service.agents[s.service.agent_id][1]
    with s.ask_for_rotation() as call:
        wait_for("the message", lambda: s.service.rekeys)
        wait_for("the commit", lambda: s.service_keys() != before)
        wait_for("the directory", lambda: s.agent.status()["directories"][0]["servers_up"])
        for recipient in s.service.agents[s.service.agent_id][1], former:
            assert ask_encrypted_to(s, recipient) == "plausible"
        s.restart_agent()
        call.wait(10)
    assert s.keys() == s.service_keys() != before
    assert len(s.service.rekeys) == 1 and 1008 in s.service.closes
    wait_for("the directory", lambda: s.agent.status()["directories"][0]["servers_up"])
    for recipient in s.service.agents[s.service.agent_id][1], former:
        assert ask_encrypted_to(s, recipient) == "plausible"
    stranger = fresh_key()
    assert ask_encrypted_to(s, stranger) == "request.undecryptable"


def fresh_key():
    from jwcrypto import jwk
    return jwk.JWK.generate(kty="EC", crv="P-256")


def ask_encrypted_to(s, recipient):
    claims = s.service.claims(s.lab.directory.subject("bob"), op="check")
    secret = example.encrypt(recipient, {"operation_id": claims["operation_id"], "op": "check", "sub_id": claims["sub_id"], "new_password": NEW})
    s.service.send(s.service.sign("wb-request+jwt", {**claims, "secret": secret}))
    # By whichever signing key: that is not what is asked here.
    return s.service.result(claims["jti"])["code"]


@pytest.mark.parametrize("how, words", [("refuse", "no new keys today"), ("lie", "others than it was told")])
def test_a_refusal_is_told_and_not_repeated(scene, how, words):
    s = scene()
    before = s.keys()
    s.service.on_rekey = how
    with s.ask_for_rotation() as call:
        assert words in call.communicate(timeout=30)[0] and call.returncode == 1
    s.welcomed()
    s.service.cut()
    s.welcomed()
    s.service.cut()
    s.welcomed()
    assert len(s.service.rekeys) == 1 and s.keys() == before
    assert len(s.agent.writebackd.events(event="keys.rotation_refused")) == 1
    assert "which the service refuses" in s.agent.ctl("status", check=False)
    # By hand at once.
    s.service.on_rekey = "answer"
    s.agent.ctl("rotate-keys")
    assert s.keys() == s.service_keys() != before


def test_an_earlier_answer_refuses_nothing(scene):
    """Whoever owns the channel brings again what he has seen: the answer to the rotation before, and one of another channel. No line is written for each."""
    s = scene()

    def answer(**claims):
        signing, decryption = s.service_keys()
        return s.service.sign("wb-rekeyed+jwt", {"iss": s.service.issuer, "aud": s.service.agent_id, "iat": int(time.time()), "session": s.service.session, "signing_key": signing,
                                                 "decryption_key": decryption, **claims})
    s.agent.ctl("rotate-keys")
    earlier, elsewhere = answer(), answer(session="6f9619ff-8b86-4d01-b42d-00c04fc964ff")
    s.service.on_rekey = "ignore"
    with s.ask_for_rotation() as call:
        wait_for("the message", lambda: len(s.service.rekeys) == 2)
        for frame in [earlier] * 3 + [elsewhere] * 300:
            s.service.send(frame)
        s.service.send(s.service.rekey(s.service.rekeys[1], s.service.agent_id, s.service.session))
        assert call.wait(30) == 0, call.stdout.read()
    assert s.keys() == s.service_keys()
    assert not s.agent.writebackd.events(event="keys.rotation_refused") and len(s.agent.writebackd.events(event="keys.answer_refused")) < 100


# The service's key set -----------------------------------------------------------------------------------------------------------------------

def show_key_set(s, version, keys=None, lifetime=86400, by=None):
    now = int(time.time())
    s.service.key_set = example.sign(by or s.service.root, "wb-keys+jwt", {"iss": s.service.issuer, "iat": now - 10, "exp": now + lifetime, "version": version,
                                                                           "keys": [example.public(k) for k in keys or [s.service.signing]]})
    s.service.send(s.service.key_set)
    return s.service.key_set


def test_a_stolen_signing_key_is_cured_at_once(scene):
    """On the standing channel: what the dropped key signs is refused from the frame that says so on. What was answered before has that answer still."""
    s = scene()
    stolen, fresh = s.service.signing, fresh_key()
    wait_for("the directory", lambda: s.agent.status()["directories"][0]["servers_up"])
    claims = s.service.claims(s.lab.directory.subject("bob"), op="check", new_password=NEW)
    assert s.service.ask(claims)["code"] == "plausible"
    show_key_set(s, 2, [fresh])
    again = s.service.claims(s.lab.directory.subject("bob"), op="check", new_password=NEW)
    answer = s.service.ask_by_frame(s.service.sign("wb-request+jwt", again, stolen))
    assert (answer["code"], answer["reason"]) == ("request.signature", "kid")
    count = len(s.service.results)
    s.service.send(s.service.sign("wb-request+jwt", claims, stolen))
    wait_for("the answer again", lambda: len(s.service.results) > count)
    assert (s.service.results[count]["code"], s.service.results[count].get("request_id")) == ("plausible", claims["jti"])
    s.service.signing = fresh
    assert s.service.ask(again)["code"] == "plausible"
    assert s.agent.status()["identity"]["key_set"]["version"] == 2


def test_only_the_root_and_only_upwards(scene):
    """Lower, other bytes of the same version, by another root, expired: ignored on a standing channel, refused in a greeting; restarts do not forget the highest."""
    s = scene()
    good = show_key_set(s, 3)
    s.agent.writebackd.wait_event(event="keys.new", message="key set 3 of the service is in force")
    attempts = [{"version": 2}, {"version": 3, "lifetime": 86401}, {"version": 4, "by": fresh_key()}, {"version": 4, "lifetime": -5}]
    for number, wrong in enumerate(attempts, 1):
        show_key_set(s, **wrong)
        s.agent.writebackd.wait_event(event="keys.refused", count=number)
        assert s.agent.status()["channel"]["ready"] == 1
    show_key_set(s, **attempts[0])
    os.unlink(state(s.agent, "key-set.jws"))
    s.agent.writebackd.kill()
    s.agent.start_writebackd()
    wait_for("a greeting that is refused", lambda: "older" in json.dumps(s.agent.status()["channel"]), 20)
    s.service.key_set = good
    s.welcomed()


def test_the_key_set_expires(scene):
    """A clear state and no spin; a new one heals it."""
    s = scene()
    show_key_set(s, 2, lifetime=3)
    s.agent.writebackd.wait_event(event="keys.new", message="key set 2 of the service is in force")
    wait_for("the expiry in the status", lambda: "key set has expired" in s.agent.status()["why"])
    claims = s.service.claims("bob@x.test", op="lookup")
    assert s.service.ask_by_frame(s.service.sign("wb-request+jwt", claims))["code"] == "request.signature"
    greetings = len(s.service.closes)
    s.service.cut()
    wait_for("a greeting that is refused", lambda: len(s.service.closes) > greetings + 1, 20)
    assert "key set has expired" in s.agent.ctl("status", check=False)
    time.sleep(2)
    assert len(s.service.closes) < greetings + 8
    now = int(time.time())
    s.service.key_set = example.sign(s.service.root, "wb-keys+jwt", {"iss": s.service.issuer, "iat": now, "exp": now + 9 * 86400, "version": 3, "keys": [example.public(s.service.signing)]})
    s.welcomed()
    assert "key set has expired" not in s.agent.status()["why"]


def test_the_end_is_warned_of_at_the_agent(scene):
    s = scene()
    for version, (days, warned) in enumerate([(31, False), (29, True), (13, True), (6, True), (0.5, True), (365, False)], 2):
        before = len(s.agent.writebackd.events(event="keys.expiry"))
        show_key_set(s, version, lifetime=int(days * 86400))
        s.agent.writebackd.wait_event(event="keys.new", message=f"key set {version} of the service is in force")
        s.agent.status()  # one turn of its loop later
        assert len(s.agent.writebackd.events(event="keys.expiry")) == before + warned, days


def test_the_end_is_warned_of_at_the_service(lab):
    from jwcrypto import jwk
    folder = os.path.join(lab.service.folder, "state")
    keys = {}
    for name in "root", "signing":
        with open(os.path.join(folder, name + ".jwk"), encoding="ascii") as f:
            keys[name] = jwk.JWK(**json.load(f))
    program, now = lab.service.program, int(time.time())
    assert not program.events(event="keys.expiry")
    for version, days in (2, 29), (3, 13), (4, 6), (5, 0.5), (6, 400):
        with open(os.path.join(folder, "key-set.jws"), "w", encoding="ascii") as f:
            f.write(example.sign(keys["root"], "wb-keys+jwt", {"iss": lab.service.issuer, "iat": now, "exp": int(now + days * 86400), "version": version, "keys": [example.public(keys["signing"])]}))
        program.signal(signal.SIGHUP)
        program.wait_event(event="keys.loaded", message=f"key set version {version}")
    assert len(program.events(event="keys.expiry")) == 4


def test_the_administrator_of_the_service_drops_a_stolen_key(lab):
    """reset-service rotate-keys --root --drop-old with the root from its safe, then a reload: standing channels go on by the new key."""
    safe = os.path.join(lab.folder, "root.jwk")
    shutil.move(os.path.join(lab.service.folder, "state", "root.jwk"), safe)
    with pytest.raises(ValueError):
        lab.service.command("rotate-keys")
    lab.service.command("rotate-keys", "--root", safe, "--drop-old")
    with open(os.path.join(lab.service.folder, "state", "key-set.jws"), encoding="utf-8") as f:
        assert len(example.peek(f.read().strip())[1]["keys"]) == 1
    lab.service.program.signal(signal.SIGHUP)
    lab.agent.writebackd.wait_event(event="keys.new", message="key set 3 of the service is in force")
    assert lab.ask("check", "bob", new_password=NEW)["code"] == "plausible"
    assert not lab.agent.writebackd.events(event="channel.down")


# Copies ---------------------------------------------------------------------------------------------------------------------------------------

def copy_of(lab, name="copy"):
    """Another host with the agent's whole state."""
    twin = lab_module.Agent(lab.build, os.path.join(lab.folder, name), lab.directory, f"wss://localhost:{lab.service.port}/v1/agent", lab.service.ca)
    shutil.rmtree(twin.settings["state_directory"])
    shutil.copytree(lab.agent.settings["state_directory"], twin.settings["state_directory"], copy_function=shutil.copy2)
    os.chmod(twin.settings["state_directory"], 0o700)
    return twin


@contextlib.contextmanager
def running(agent):
    agent.start()
    try:
        yield agent
    finally:
        agent.close()


def clone_seen(lab):
    return json.loads(lab.service.command("agents", "--json"))[0]["clone_seen_at"]


def both_are_out(lab, *agents):
    wait_for("the alarm", lambda: clone_seen(lab), 30)
    for agent in agents:
        wait_for("its end", lambda agent=agent: agent.status()["channel"]["ready"] == 0, 20)
    assert lab.ask("check", "bob", new_password=NEW)["code"] == "service.no_agent"
    lab.service.program.wait_event(event="agent.clone")


def test_a_copy_of_the_agent_stops_both(lab):
    lab.agent.writebackd.stop()
    twin = copy_of(lab)
    lab.agent.start_writebackd()
    lab.agent.wait_ready()
    lab.agent.channel.stop()
    lab.agent.start_channel()
    with running(twin):  # both were started as often as each other: a machine that was copied while it was off
        both_are_out(lab, lab.agent, twin)
        assert any(word in json.dumps(lab.agent.status()["channel"]) for word in ("4003", "clone", "another instance"))
        agent_id = lab.service.agents()[0]["agent_id"]
    # The person decides.
    lab.service.command("release", agent_id)
    lab.agent.channel.stop()
    lab.agent.start_channel()
    lab.agent.wait_ready(30)
    agree(lab)


def test_a_thief_who_replaces_the_keys_first(lab):
    """His is the key in force, then; the agent that comes by the one that was replaced is the alarm, and nobody is let in any more."""
    twin = copy_of(lab)
    lab.agent.close()
    with running(twin):
        twin.wait_ready()
        twin.ctl("rotate-keys")
        twin.writebackd.stop()
        twin.start_writebackd()
        twin.wait_ready()
        with running(lab.agent):
            both_are_out(lab, lab.agent, twin)
            assert lab.service.program.events(event="agent.former_key")
            agent_id = lab.service.agents()[0]["agent_id"]
            lab.service.command("revoke", agent_id)
            lab.agent.enroll_again = lab.agent.ctl("enroll", lab.service.issuer, "--ticket-file", ticket_file(lab), "--ca-file", lab.service.ca, "--replace")
            lab.agent.wait_ready(30)
            assert lab.ask("check", "bob", new_password=NEW)["code"] == "plausible"
            assert twin.status()["channel"]["ready"] == 0
            refused = twin.ctl("rotate-keys", check=False)
            assert "there is no channel" in refused


def ticket_file(lab):
    path = os.path.join(lab.folder, "second-ticket")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(lab.service.ticket() + "\n")
    return path


def test_a_restored_backup_is_noticed(lab):
    """An older state of the same host, from before a start: a lower boot."""
    backup = copy_of(lab, "backup")
    for _ in range(2):
        lab.agent.writebackd.stop()
        lab.agent.start_writebackd()
        lab.agent.wait_ready()
    lab.agent.close()
    with running(backup):
        both_are_out(lab, backup)


def test_a_revoked_agent_gets_no_new_keys(lab):
    agent_id = lab.service.agents()[0]["agent_id"]
    before = at_service(lab)
    lab.service.command("revoke", agent_id)
    wait_for("its end", lambda: lab.agent.status()["channel"]["ready"] == 0)
    assert "no channel" in lab.agent.ctl("rotate-keys", check=False)
    lab.agent.writebackd.stop()
    lab.agent.start_writebackd()
    wait_for("4001", lambda: "revoked" in json.dumps(lab.agent.status()["channel"]), 20)
    assert at_service(lab) == before


# Wrapped files ---------------------------------------------------------------------------------------------------------------------------------

def wrap_key(lab, name="wrap-key", size=32):
    path = os.path.join(lab.folder, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400), "wb") as f:
        f.write(os.urandom(size - 1) + b"\n")
    return path


def start_refused(agent):
    """Its exit status and what it said: the critical line, or what is wrong with the configuration."""
    before = len(agent.writebackd.log_text())
    agent.writebackd = lab_module.Program(agent.folder, "writebackd", [os.path.join(agent.build, "agent/writebackd"), "--config", agent.writebackd_config, "--log-format", "json"])
    agent.writebackd.expect()
    return agent.writebackd.process.wait(20), agent.writebackd.log_text()[before:]


def unwrap(path, key_file):
    """By another implementation."""
    from jwcrypto import jwe, jwk
    with open(key_file, "rb") as f:
        key = jwk.JWK(kty="oct", k=example.b64(f.read()))
    message = jwe.JWE()
    with open(path, encoding="ascii") as f:
        message.deserialize(f.read().strip(), key)
    assert json.loads(message.objects["protected"]) == {"alg": "dir", "enc": "A256GCM", "cty": "jwk+json"}
    return json.loads(message.payload)


def test_wrapped_files(lab):
    agent = lab.agent
    plain = {}
    for name in key_files(agent):
        with open(state(agent, name), encoding="ascii") as f:
            plain[name] = json.load(f)
    path = wrap_key(lab)

    def settle(**keys):
        agent.writebackd.stop()
        agent.settings["keys"] = keys
        agent.write_config()
    settle(wrap_key_file=path)
    agent.start_writebackd()
    agree(lab)
    assert len(agent.writebackd.events(event="keys.wrapped")) == 2
    assert {name: unwrap(state(agent, name), path) for name in key_files(agent)} == plain
    secrets = [key["d"].encode() for key in plain.values()]
    # Rotated ones never touch the disk in the clear.
    agent.ctl("rotate-keys")
    agree(lab)
    for name in key_files(agent):
        secrets.append(unwrap(state(agent, name), path)["d"].encode())
    for folder, _, names in os.walk(agent.folder):
        for name in names:
            with contextlib.suppress(OSError), open(os.path.join(folder, name), "rb") as f:
                text = f.read()
                assert not any(secret in text for secret in secrets), name
    assert "wrapped" in agent.ctl("status", check=False)

    settle()
    assert start_refused(agent)[0] == 78 and "keys.wrap_key_file" in start_refused(agent)[1]
    settle(wrap_key_file=wrap_key(lab, "another"))
    assert start_refused(agent)[0] == 78 and "is not the key that it was wrapped with" in start_refused(agent)[1]
    settle(wrap_key_file=wrap_key(lab, "short", 31))
    code, text = start_refused(agent)
    assert code == 78 and "exactly 32 bytes" in text and f"{agent.writebackd_config}:" in text
    os.chmod(wrap_key(lab, "open"), 0o644)
    settle(wrap_key_file=os.path.join(lab.folder, "open"))
    code, text = start_refused(agent)
    assert code == 78 and "keys.wrap_key_file" in text and "its mode is 0644" in text
    settle(wrap_key_file=path)
    torn = state(agent, [name for name in key_files(agent) if name.startswith("signing")][0])
    with open(torn, "rb") as f:
        whole = f.read()
    for part in whole[:60], whole[:-9] + b"\n", b"{" + whole[1:]:
        with open(torn, "wb") as f:
            f.write(part)
        code, text = start_refused(agent)
        assert code == 78 and os.path.basename(torn) in text, text
    with open(torn, "wb") as f:
        f.write(whole)
    agent.start_writebackd()
    agree(lab)
