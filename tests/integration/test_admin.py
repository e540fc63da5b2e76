"""What an administrator does and sees: wrong configurations, wrong names, wrong passwords, a second enrolment, and what each of them is told."""
import json, os, re, signal, socket, subprocess

import pytest
import yaml

import lab as lab_module
from lab import BASE, DOMAIN, ROOT, wait_for

NEW = "Gr33n-Field-Harbour"
SAMPLE = os.path.join(ROOT, "config", "writebackd.yaml")


def ctl(agent, *words, input=""):
    """(exit status, standard output, standard error)"""
    done = subprocess.run([os.path.join(agent.build, "agent/ctl/writebackctl"), "--socket", agent.control, *words], input=input, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def agent(mock_lab):
    return mock_lab.agent


@pytest.fixture
def configure(mock_lab):
    """Takes changes of the scope with SIGHUP, and puts everything back at the end."""
    agent = mock_lab.agent
    entry = agent.settings["directories"][0]
    before = dict(entry["scope"])

    def change(scope):
        entry["scope"] = scope
        agent.write_config()
        count = len(agent.writebackd.events(event="config.loaded"))
        agent.writebackd.signal(signal.SIGHUP)
        agent.writebackd.wait_event(event="config.loaded", count=count + 1)
    yield change
    change(before)
    agent.wait_ready()


def check_rows(agent):
    status, out, _ = ctl(agent, "--json", "check")
    return status, json.loads(out)


def upn(user):
    return f"{user}@{DOMAIN}"


# Names of the scope ---------------------------------------------------------------------------------------------------------------------

def test_every_name_of_the_scope_is_a_row(agent, configure):
    configure({"users": "selected", "bases": [f"OU=People,{BASE}"], "exclude_bases": [f"OU=Berlin,OU=People,{BASE}"], "groups": [f"CN=SSPR-Test-Group,OU=Groups,{BASE}"],
               "exclude_groups": [f"CN=Helpdesk,OU=Groups,{BASE}"], "protect": ["S-1-5-21-1-2-3-1104"]})
    agent.wait_ready()
    status, answer = check_rows(agent)
    rows = {row["step"]: row for row in answer["rows"] if row["what"] == "corp"}
    assert status == 0 and answer["failed"] == 0
    assert "is there" in rows["scope.bases"]["text"] and "is there" in rows["scope.exclude_bases"]["text"]
    assert "S-1-5-21-" in rows["scope.groups"]["text"] and "S-1-5-21-" in rows["scope.exclude_groups"]["text"]
    assert "not of this domain" in rows["scope.protect"]["text"]


@pytest.mark.parametrize("key, name, consequence", [
    ("bases", f"OU=Peple,{BASE}", "selects nobody"), ("exclude_bases", f"OU=Berlni,OU=People,{BASE}", "everybody is refused"), ("groups", f"CN=Nobody,OU=Groups,{BASE}", "selects nobody"),
    ("exclude_groups", f"CN=Nobody,OU=Groups,{BASE}", "everybody is refused"), ("protect", f"CN=Nobody,OU=Groups,{BASE}", "everybody is refused"),
    ("groups", f"OU=People,{BASE}", "selects nobody"),
    ("exclude_groups", "S-1-5-21-1004336348-1177238915-682003330-99999", "everybody is refused"), ("protect", "S-1-5-21-1004336348-1177238915-682003330-99999", "everybody is refused")])
def test_a_name_that_does_not_exist(mock_lab, agent, configure, key, name, consequence):
    configure({"users": "selected", "bases": [f"OU=People,{BASE}"], **({key: [name]})})
    def degraded():
        code, out, _ = ctl(agent, "status")
        return code == 1 and f"scope.{key}" in out and out
    text = wait_for("the status to be degraded", degraded)
    assert name in text and "does not exist" in text
    status, answer = check_rows(agent)
    row = next(row for row in answer["rows"] if row["step"] == f"scope.{key}")
    assert status == 1 and answer["failed"] == 1 and not row["ok"] and consequence in row["text"]
    # Whatever is missing, nobody is reset, and the log says why.
    answer = mock_lab.service.operate("reset", upn("bob"), new_password=NEW)
    assert answer["status"] == "refused" and answer["code"] in ("user.out_of_scope", "user.protected")
    event = agent.writebackd.events(event="request.end", operation_id=answer["operation_id"])[0]
    assert event["reason"] and event["reason"] in event["message"]
    assert "bob" not in json.dumps(event)


def test_a_missing_name_is_logged_once_and_its_return_too(agent, configure):
    configure({"users": "selected", "bases": [f"OU=Nowhere,{BASE}"]})
    before = len(agent.writebackd.events(event="scope.unresolved"))
    wait_for("the warning", lambda: any("OU=Nowhere" in e["message"] for e in agent.writebackd.events(event="scope.unresolved")))
    for _ in range(3):
        check_rows(agent)
    found = [e for e in agent.writebackd.events(event="scope.unresolved") if "OU=Nowhere" in e["message"]]
    assert len(found) == 1 and len(agent.writebackd.events(event="scope.unresolved")) <= before + 1


# check --user ---------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("user, status, code, says", [
    ("alice", 0, "plausible", "everything but the write itself"), ("erin", 1, "policy.too_recent", "not before 20"), ("adm-amy", 1, "user.protected", "adminCount is 1"),
    ("disabled1", 1, "user.disabled", "disabled"), ("outsider", 1, "user.out_of_scope", "below none of scope.bases"), ("locked1", 0, "plausible", "locked"),
    ("nobody", 1, "user.not_found", "no user"), ("twin", 1, "user.ambiguous", "more than one")])
def test_check_user(agent, user, status, code, says):
    result, out, _ = ctl(agent, "check", "--user", upn(user))
    assert result == status and says in out
    result, out, _ = ctl(agent, "--json", "check", "--user", upn(user))
    answer = json.loads(out)
    assert answer["code"] == code and answer["ok"] == (status == 0)
    questions = {row["question"]: row for row in answer["rows"]}
    if user == "disabled1":
        assert questions["in scope"]["ok"] and not questions["state"]["ok"]
    if user == "outsider":
        assert [q for q, row in questions.items() if row.get("answer") == "no" and row["needed"]] == ["right: Reset Password", "right: write lockoutTime", "right: write pwdLastSet"]


def test_check_of_what_is_not_there(agent):
    assert ctl(agent, "check", "--directory", "nope")[::2] == (64, 'writebackctl: no directory "nope"; there is corp\n')
    assert ctl(agent, "check", "--user", "alice", "--directory", "nope")[0] == 64
    for words in (["journal", "--last", "x"], ["journal", "--last", "0"], ["journal", "--last", "121"], ["status", "--bogus"]):
        assert ctl(agent, *words)[0] == 64
    status, _, err = ctl(agent, "check", "--user", "x@elsewhere.test")
    assert status == 1 and "elsewhere.test" in err
    status, out, _ = ctl(agent, "check", "--directory", "corp")
    assert status == 0 and re.search(r"^\d+ ok, 0 failed$", out.splitlines()[-1])
    assert "certificate" in out and "localhost" in out


def test_a_wrong_base_dn_is_named(build, mock_lab, tmp_path):
    """Nobody is found by name: neither ready, nor green, nor directory.protocol."""
    other = lab_module.Agent(build, str(tmp_path / "agent"), mock_lab.directory, "wss://127.0.0.1:1/", mock_lab.service.ca, directory_settings={"base_dn": "OU=Nonsense,DC=nowhere"})
    other.start_writebackd()
    try:
        wait_for("the row", lambda: not next(r for r in check_rows(other)[1]["rows"] if r["step"] == "base_dn")["ok"])
        status, out, _ = ctl(other, "check", "--user", upn("alice"))
        assert status == 1 and "base_dn" in out and "does not exist" in out
    finally:
        other.close()


# The command line -----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words, status, says", [
    (["fly"], 64, "unknown command fly"), ([], 64, "a command is missing"), (["enroll"], 64, "URL is missing"), (["status", "x"], 64, "too many"), (["--nonsense"], 64, ""),
    (["enroll", "http://a"], 64, "https://"), (["enroll", "https://a/path"], 64, "path"), (["enroll", "https://a?q"], 64, "query"), (["enroll", "https://u@a"], 64, "user name"),
    (["enroll", "https://a/"], 64, "slash"), (["enroll", "https://"], 64, "no host"), (["enroll", "https://a", "--ca-file", "/nonexistent"], 66, "does not exist"),
    (["enroll", "https://a"], 77, "enrolled already"), (["enroll", "https://a", "--replace", "--ticket-file", "/nonexistent"], 66, "/nonexistent does not exist"),
    (["enroll", "https://a", "--replace"], 66, "standard input")])
def test_mistakes_are_told_in_words_and_in_json(agent, words, status, says):
    result, out, err = ctl(agent, *words)
    assert (result, out) == (status, "") and says in err
    result, out, _ = ctl(agent, "--json", *words)
    assert result == status and says in json.loads(out)["text"]


def test_not_running_is_an_object_too(agent):
    done = subprocess.run([os.path.join(agent.build, "agent/ctl/writebackctl"), "--socket", "/nonexistent", "--json", "status"], capture_output=True, text=True)
    assert done.returncode == 3 and json.loads(done.stdout)["error"] == "not_running"


def test_a_ticket_that_nobody_knows(mock_lab, agent, tmp_path):
    ticket = mock_lab.service.ticket()
    kid = ticket.rsplit(".", 1)[1]
    unknown = "wbt_" + "A" * 43 + "." + kid
    status, _, err = ctl(agent, "enroll", mock_lab.service.issuer, "--replace", "--ca-file", mock_lab.service.ca, input=unknown + "\n")
    assert status == 77 and "unknown, used or expired" in err
    status, _, err = ctl(agent, "enroll", mock_lab.service.issuer, "--replace", input=ticket + "\n")
    assert status == 69 and "--ca-file" in err
    secret = tmp_path / "ticket"
    secret.write_text(ticket + "\n")
    secret.chmod(0o644)
    status, _, err = ctl(agent, "enroll", mock_lab.service.issuer, "--replace", "--ticket-file", str(secret))
    assert status == 66 and str(secret) in err and "open to everybody" in err


# The configuration ----------------------------------------------------------------------------------------------------------------------

def writebackd(build, *words):
    done = subprocess.run([os.path.join(build, "agent/writebackd"), *words], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


def test_the_sample_explains_every_key(build, tmp_path):
    """All of it is valid once uncommented, but for files that are not there, and for what is there instead of something else."""
    with open(SAMPLE, encoding="utf-8") as f:
        text = f.read()
    path = tmp_path / "all.yaml"
    path.write_text(re.sub(r"^( *)#(?! \S)(?=\S|  )", r"\1", text, flags=re.M))
    status, out, err = writebackd(build, "--config", str(path), "--dump-config")
    others = ("keep either", "means nothing with mechanism simple", "means something only with flavor: ldap")
    findings = [line for line in err.splitlines() if not any(words in line for words in others)]
    assert status == 78 and all("does not exist" in line for line in findings) and len(findings) == 4, err
    assert all(str(path) in line for line in out.splitlines()), out
    for line in out.splitlines():
        key = line.split(":")[0].split(".")[-1].split("[")[0]
        assert re.search(rf"\b{key}:", text), key


def test_a_start_that_is_refused_ends_with_78(build, agent, tmp_path):
    settings = yaml.safe_load(open(agent.writebackd_config, encoding="utf-8"))
    settings["directories"][0]["servers"] = ["ldaps://dc1"]
    settings["state_directory"] = str(tmp_path / "state")
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(settings))
    for words in ([], ["--check-config"]):
        status, _, err = writebackd(build, "--config", str(path), *words)
        assert status == 78 and re.search(r"wrong.yaml:\d+: .*scheme", err)


def test_help_says_signals_and_exit_codes(build, agent):
    status, out, _ = writebackd(build, "--help")
    assert status == 0 and "SIGHUP" in out and "78" in out
    assert "77" in ctl(agent, "--help")[1]


def test_a_restart_that_is_needed_is_told_once(agent):
    agent.settings["log"] = {"format": "text"}
    agent.write_config()
    for n in range(2):
        count = len(agent.writebackd.events(event="config.loaded"))
        agent.writebackd.signal(signal.SIGHUP)
        agent.writebackd.wait_event(event="config.loaded", count=count + 1)
    assert agent.status()["config"]["restart"] == "log.format"
    assert "these keys wait for a restart: log.format" in ctl(agent, "status")[1] and "these keys wait for a restart: log.format" in ctl(agent, "check")[1]
    del agent.settings["log"]
    agent.write_config()
    agent.writebackd.signal(signal.SIGHUP)
    agent.writebackd.wait_event(event="config.loaded", count=count + 2)
    assert agent.status()["config"]["restart"] == ""
    told = agent.writebackd.events(event="config.restart")
    assert len(told) == 1 and told[0]["message"].endswith("restart: log.format")


def test_the_service_learns_what_a_reload_allows(agent, mock_lab):
    """It knows the operations from the greeting only, so there is another one; and none where nothing of it has changed."""
    def reload(**settings):
        agent.settings.update(settings)
        agent.write_config()
        count = len(agent.writebackd.events(event="config.loaded"))
        agent.writebackd.signal(signal.SIGHUP)
        agent.writebackd.wait_event(event="config.loaded", count=count + 1)

    def allowed():
        return next(a["operations"] for a in mock_lab.service.http("GET", "/v1/agents")[1] if a["connected"])
    before, greetings = agent.settings.get("operations"), len(agent.writebackd.events(event="channel.ready"))
    reload(operations=["reset", "unlock"])
    wait_for("the other greeting", lambda: len(agent.writebackd.events(event="channel.ready")) == greetings + 1)
    assert allowed() == ["reset", "unlock"]
    reload(log={"level": "debug"})
    assert agent.status()["channel"]["ready"] == 1 and len(agent.writebackd.events(event="channel.ready")) == greetings + 1
    del agent.settings["log"]
    if before:
        reload(operations=before)
    else:
        del agent.settings["operations"]
        reload()
    wait_for("the third greeting", lambda: len(agent.writebackd.events(event="channel.ready")) == greetings + 2)
    assert "lookup" in allowed()


# The bind's password --------------------------------------------------------------------------------------------------------------------

def test_a_refused_bind_is_told_in_words_and_mended_by_sighup(build, mock_lab, tmp_path):
    other = lab_module.Agent(build, str(tmp_path / "agent"), mock_lab.directory, "wss://127.0.0.1:1/", mock_lab.service.ca)
    password = other.settings["directories"][0]["bind"]["password_file"]
    with open(password, "w") as f:
        f.write("not this one 1!\n")
    other.start_writebackd()
    try:
        def told():
            out = ctl(other, "status")[1]
            return "next try at 20" in out and out
        text = wait_for("the reason", told)
        assert "the password or the name is wrong (52e)" in text
        with open(password, "w") as f:
            f.write(mock_lab.directory.bind_password + "\n")
        other.writebackd.signal(signal.SIGHUP)
        other.writebackd.wait_event(event="directory.up", timeout=5)
    finally:
        other.close()


# Enrolment and the channel --------------------------------------------------------------------------------------------------------------

def test_a_channel_waits_for_the_enrolment_and_a_second_one_is_told_why(build, mock_lab, tmp_path):
    service, folder = mock_lab.service, str(tmp_path / "agent")
    other = lab_module.Agent(build, folder, mock_lab.directory, f"wss://localhost:{service.port}/v1/agent", service.ca)
    other.start()
    second = None
    try:
        other.channel.wait_event(event="agent.waits")
        assert not other.channel.events(event="channel.up") and not other.channel.events(event="channel.down")
        second = lab_module.Program(str(tmp_path), "second", [os.path.join(build, "agent/channel/writebackd-channel"), "--config", other.channel_config, "--log-format", "json"])
        assert "another writebackd-channel" in second.wait_event(event="agent.waits")["message"]
        assert len(second.events(event="agent.waits")) == 1 and not second.events(event="channel.up")
        second.stop() # else either may be the one that is let in when the first is let go
        other.enroll(service.issuer, service.ticket())
        other.wait_ready()
        assert len(other.channel.events(event="agent.waits")) == 1
        # A second enrolment replaces only where it is told to.
        first = other.status()["identity"]["agent_id"]
        status, _, err = ctl(other, "enroll", service.issuer, "--ca-file", service.ca, input=service.ticket() + "\n")
        assert status == 77 and first in err and "--replace" in err
        status, out, _ = ctl(other, "--json", "enroll", service.issuer, "--replace", "--ca-file", service.ca, input=service.ticket() + "\n")
        answer = json.loads(out)
        assert status == 0 and answer["agent_id"] != first and answer["replaced"]["agent_id"] == first and answer["endpoints_differ"] == ""
        other.wait_ready()
    finally:
        if second:
            second.stop()
        other.close()


def ask_agent(agent, **members):
    """What writebackctl would: one packet each way."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.settimeout(10)
        s.connect(agent.control)
        s.send(json.dumps(members).encode())
        return json.loads(s.recv(65536))


def test_two_enrolments_at_once(build, mock_lab, tmp_path):
    """The second one is begun while the first is at the service: the first does not end with the keys of the second, and hears what to do; the second one stands."""
    service, began = mock_lab.service, []
    other = lab_module.Agent(build, str(tmp_path / "agent"), mock_lab.directory, f"wss://localhost:{service.port}/v1/agent", service.ca)
    other.start()
    try:
        root = service.http("GET", "/.well-known/writeback-configuration")[1]["root_key"]
        for name in ("first", "second"):
            begun = ask_agent(other, command="enroll-begin", issuer=service.issuer, root_key=root, ticket=service.ticket(), name=name)
            status, made = service.http("POST", "/v1/agents", begun["jws"], headers={"Content-Type": "application/jose"})
            assert status == 201
            began.append({"command": "enroll-finish", "signing_key": begun["signing_key"], "agent_id": made["agent_id"], "key_set": made["key_set"]})
        first, second = began
        answer = ask_agent(other, **first)
        assert answer.get("error") == "local.input" and "another enrolment was begun" in answer["text"] and f"reset-service revoke {first['agent_id']}" in answer["text"], answer
        assert ask_agent(other, **{**second, "signing_key": None})["error"] == "local.input"
        assert "error" not in ask_agent(other, **second)
        other.wait_ready()
        assert other.status()["identity"]["agent_id"] == second["agent_id"]
        service.command("revoke", first["agent_id"])
    finally:
        other.close()


def test_other_endpoints_than_the_service_names_are_told(build, mock_lab, tmp_path):
    service = mock_lab.service
    other = lab_module.Agent(build, str(tmp_path / "agent"), mock_lab.directory, f"wss://localhost:{lab_module.free_port()}/v1/agent", service.ca, settings={"log": {"level": "debug"}})
    other.start()
    try:
        out = other.enroll(service.issuer, service.ticket())
        assert "channel.yaml names other endpoints" in out
        # Each try fails alike: that is told once.
        other.writebackd.wait_event(event="channel.down")
        other.writebackd.wait_event(event="channel.retry", count=2)
        assert len(other.writebackd.events(event="channel.down")) == 1
    finally:
        other.close()
