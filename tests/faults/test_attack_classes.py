"""Known failures of products, JOSE libraries and transports, tried on the whole agent. faults.yaml names which is which; the truth is read at mock-directory."""
import base64, hashlib, hmac, json, os, re, shutil, signal, socket, ssl, subprocess, time, uuid

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from jwcrypto import jwk

import lab as lab_module
from channel_bench import authority, bench, good_tls  # noqa: F401 (fixtures)
from lab import BUILD, DOMAIN, NETBIOS, ROOT, wait_for
from line import NEW, Line
from raw_service import RawService
from scripted_service import example
from test_channel_faults import authority_files, own_context
from test_directory_faults import agent_of_many

USER = "bench010"


@pytest.fixture(scope="module")
def line():
    made = Line(settings={"operations": ["reset", "change", "unlock", "check", "lookup", "verify"], "limits": {"per_user_hour": 0, "per_minute": 0, "latch_per_hour": 0}})
    yield made
    made.close()


@pytest.fixture
def untouched(line):
    before = line.directory.password_record(USER)
    yield
    assert line.directory.password_record(USER) == before


def b64(value):
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=").decode()


def header(line, **other):
    return {"alg": "ES256", "kid": line.service.signing.thumbprint(), "typ": "wb-request+jwt", **other}


def signed(line, head, claims):
    """A right ES256 signature over any header: a text as it is, or an object."""
    text = f"{b64(head.encode() if isinstance(head, str) else head)}.{b64(claims)}"
    r, s = utils.decode_dss_signature(line.service.signing.get_op_key("sign").sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def claims_of(line, **other):
    return {**line.service.claims(f"{USER}@{DOMAIN}", new_password=NEW), **other}


def refused(line, frame):
    time.sleep(0.11)  # ten answers a second to what does not verify
    began = time.monotonic()
    answer = line.service.ask_by_frame(frame)
    assert (answer["status"], answer["code"]) == ("refused", "request.signature") and "request_id" not in answer, answer
    return time.monotonic() - began


# J: signatures ------------------------------------------------------------------------------------------------------------------------------------------

def test_no_algorithm_is_none(line, untouched):
    for alg in ("none", "None", "nOnE", "NONE", "", None, 0, False, ["none"]):
        for signature in ("", b64(bytes(64))):
            refused(line, f"{b64(header(line, alg=alg))}.{b64(claims_of(line))}.{signature}")
    refused(line, f"{b64({k: v for k, v in header(line).items() if k != 'alg'})}.{b64(claims_of(line))}.")


def test_no_public_key_is_a_secret_one(line, untouched):
    public = line.service.signing.get_op_key("verify")
    numbers, encode = public.public_numbers(), serialization.Encoding
    xy = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    own = json.loads(line.service.signing.export_public())
    forms = {"PEM": public.public_bytes(encode.PEM, serialization.PublicFormat.SubjectPublicKeyInfo), "PEM without its last newline": public.public_bytes(encode.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).strip(),
             "DER": public.public_bytes(encode.DER, serialization.PublicFormat.SubjectPublicKeyInfo), "point": b"\x04" + xy, "x and y": xy, "x": xy[:32],
             "JWK": json.dumps(own).encode(), "JWK, canonical": json.dumps(own, sort_keys=True, separators=(",", ":")).encode(), "thumbprint": line.service.signing.thumbprint().encode(), "nothing": b""}
    for form in forms.values():
        for alg, function in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512"), ("ES256", "sha256")):
            text = f"{b64(header(line, alg=alg))}.{b64(claims_of(line))}"
            if alg == "HS256" or form is forms["PEM"]:
                refused(line, f"{text}.{b64(hmac.new(form, text.encode(), function).digest())}")


def test_no_key_comes_from_a_header(line, untouched):
    """Rightly signed by the key that is named or given there; and nobody connects to where it points."""
    stranger = jwk.JWK.generate(kty="EC", crv="P-256")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/keys.json"
        for more in ({"jku": url}, {"x5u": url}, {"x5c": [b64(b"x")]}, {"jwk": example.public(line.service.signing)}, {"x5t": "AAAA"}, {"jwk": json.loads(stranger.export_public())}):
            refused(line, signed(line, header(line, **more), claims_of(line)))
        for kid in (url, "../../../../etc/passwd", "/dev/null", "' OR '1'='1", "0", "", None, 1, ["x"], line.service.signing.thumbprint() + "\0", line.service.root.thumbprint(), stranger.thumbprint()):
            refused(line, signed(line, header(line, kid=kid), claims_of(line)))
        with pytest.raises(TimeoutError):
            listener.accept()


def test_one_serialization_and_no_extension(line, untouched):
    frame = line.service.sign("wb-request+jwt", claims_of(line))
    head, payload, signature = frame.split(".")
    one = {"protected": head, "signature": signature}
    for text in (json.dumps({"payload": payload, "signatures": [one, one]}), json.dumps({"payload": payload, **one}), frame + ".", "." + frame, f"{head}..{signature}", f"{head}.{payload}."):
        refused(line, text)
    for more in ({"crit": []}, {"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"b64": True}, {"zip": "DEF"}, {"cty": "JWT"}):
        refused(line, signed(line, header(line, **more), claims_of(line)))


def test_a_header_has_one_reading(line, untouched):
    good = json.dumps(header(line))
    kid = line.service.signing.thumbprint()
    twice = [good.replace('{"alg"', '{"alg": "none", "alg"'), good[:-1] + ', "alg": "ES256"}', good.replace('"alg"', '"\\u0061lg"')[:-1] + ', "alg": "none"}']
    for text in (*twice, good + " x", "\ufeff" + good, "[" + good + "]", good.replace(kid, kid + "\\u0000"), good.replace("ES256", "ES256\\ud800"), "[" * 10000, '{"alg":' * 5000, good[:-1] + ', "n": 1e400}', good[:-1] + ',}'):
        refused(line, signed(line, text, claims_of(line)))
    # The same reading by another spelling is the same header: no more and no less.
    claims = line.service.claims(f"{USER}@{DOMAIN}", op="lookup")
    line.service.send(signed(line, good.replace('"alg"', '"\\u0061lg"'), claims))
    assert line.service.result(claims["jti"])["code"] == "found"
    for tail in ("=", "==", "+", "/", " ", "\n", "\0"):
        frame = line.service.sign("wb-request+jwt", claims_of(line))
        if tail != "\0":  # which is no text that a service would send
            refused(line, frame + tail)


# J: secrets ---------------------------------------------------------------------------------------------------------------------------------------------

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def on_curve(x):
    """A y for this x on P-256, or None: then it is on the twist."""
    square = (x**3 - 3 * x + B) % P
    y = pow(square, (P + 1) // 4, P)
    return y if y * y % P == square else None


def coordinates(x, y, size=32, **other):
    return {"kty": "EC", "crv": "P-256", "x": b64(x.to_bytes(size, "big")), "y": b64(y.to_bytes(size, "big")), **other}


def bad_points():
    small = next(x for x in range(5, 1000) if on_curve(x))
    twisted = next(x for x in range(5, 1000) if on_curve(x) is None)
    koblitz, large = (ec.generate_private_key(curve()).public_key().public_numbers() for curve in (ec.SECP256K1, ec.SECP384R1))
    y = on_curve(small)
    return {"on the twist": coordinates(twisted, pow(twisted, 3, P)), "infinity": coordinates(0, 0), "x of p": coordinates(P, y), "x above p": coordinates(small + P, y), "y of p and more": coordinates(small, 2**256 - 1),
            "another curve's": coordinates(koblitz.x, koblitz.y), "a longer curve's": coordinates(large.x, large.y, 48), "a longer curve's by name": {**coordinates(large.x, large.y, 48), "crv": "P-384"},
            "secp256k1 by name": {**coordinates(koblitz.x, koblitz.y), "crv": "secp256k1"}, "33 bytes": coordinates(small, y, 33), "31 bytes": {**coordinates(small, y), "x": b64(bytes(31))},
            "compressed": {**coordinates(small, y), "y": b64(b"\x02")}, "without y": {k: v for k, v in coordinates(small, y).items() if k != "y"}, "with d": coordinates(small, y, d=b64(bytes(31) + b"\1")),
            "RSA": {"kty": "RSA", "n": b64(bytes(256)), "e": "AQAB"}, "OKP": {"kty": "OKP", "crv": "X25519", "x": b64(bytes(32))}, "a text": "x", "nothing": None}


def secret_with(line, **head):
    key = line.service.agents[line.service.agent_id][1]
    whole = {"alg": "ECDH-ES", "enc": "A256GCM", "epk": coordinates(5, on_curve(5) or 1), "kid": key.thumbprint(), **head}
    return f"{b64(whole)}..{b64(bytes(12))}.{b64(bytes(100))}.{b64(bytes(16))}"


def undecryptable(line, secret, tries=1):
    """(reason, milliseconds of the decryption, the least of the tries: what else the machine does comes on top)."""
    answers = [line.service.ask(claims_of(line, secret=secret)) for _ in range(tries)]
    assert {(answer["status"], answer["code"]) for answer in answers} == {("refused", "request.undecryptable")}, answers
    return answers[0]["reason"], min(answer["durations_ms"]["decrypt"] for answer in answers)


@pytest.fixture
def ordinary_ms(line):
    """What a secret costs whose point and header are good: an agreement of keys, and then its tag is wrong."""
    reason, took = undecryptable(line, secret_with(line), 5)
    assert reason == "decryption" and took > 0
    return took


def test_points_that_are_none_meet_no_key(line, untouched, ordinary_ms):
    """Each has the answer of any other secret that cannot be decrypted, and is refused as a point, which is before our key is used: so it costs no more than an ordinary one, and no time tells of the key."""
    for name, point in bad_points().items():
        reason, took = undecryptable(line, secret_with(line, epk=point), 3)
        assert reason == "epk" and took <= ordinary_ms + 3 * lab_module.SLOWNESS, (name, reason, took)


def test_algorithms_of_others_cost_nothing(line, untouched, ordinary_ms):
    """RSA1_5, PBES2 with two thousand million rounds, wrapped keys, compression: refused by name, before anything is computed."""
    rounds = {"p2s": b64(bytes(16)), "p2c": 2**31 - 1}
    for head in ({"alg": "RSA1_5"}, {"alg": "RSA-OAEP"}, {"alg": "RSA-OAEP-256"}, {"alg": "PBES2-HS256+A128KW", **rounds}, {"alg": "PBES2-HS512+A256KW", **rounds}, rounds, {"alg": "dir"}, {"alg": "ECDH-ES+A256KW"},
                 {"alg": "A256KW"}, {"alg": "none"}, {"enc": "A128GCM"}, {"enc": "A256CBC-HS512"}, {"enc": "none"}, {"zip": "DEF"}, {"zip": "none"}, {"apu": "QQ"}, {"apv": ""}, {"crit": []}, {"jku": "http://127.0.0.1:1/"}):
        reason, took = undecryptable(line, secret_with(line, **head), 3)
        assert reason in ("alg", "enc", "header") and took <= ordinary_ms + 3 * lab_module.SLOWNESS, (head, reason, took)
    assert undecryptable(line, secret_with(line, kid=line.service.signing.thumbprint()))[0] == "kid"
    whole = line.service.secret(claims_of(line), NEW).split(".")
    decode = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    for iv, tag in [(0, 16), (8, 16), (11, 16), (13, 16), (16, 16), (12, 0), (12, 1), (12, 4), (12, 8), (12, 12), (12, 15), (12, 17), (12, 32)]:
        undecryptable(line, ".".join([whole[0], "", b64((decode(whole[2]) + bytes(32))[:iv]), whole[3], b64((decode(whole[4]) + bytes(32))[:tag])]))


# K: products --------------------------------------------------------------------------------------------------------------------------------------------

NAUGHTY = ['"; id #', "$(id)", "`id`", "%s%n%s%n-Aa1", "'; DROP TABLE users; --A1", "| id Aa1", "&& id Aa1", "../../../etc/passwd-A1", "\n id\nAa1-xyz", "-rf / Aa1 --", "${jndi:ldap://127.0.0.1:1/a}A1", "{{7*7}}-Aa1",
           "<script>alert(1)</script>A1", "\u202eAa1-reversed", "\U0001f4a9-Aa1-poo", "\x07\x1b[2J-Aa1", "A1" + "a" * 125, "A1" + "a" * 126, "A1" + "a" * 254, "nul\0-Aa1-xyz", "%00-Aa1-xyz", "\ufeff-Aa1-bom!", "*)(uid=*))(|(uid=*A1"]


def test_no_password_starts_a_program(line):
    """Each is written byte for byte or refused; and neither process, nor any thread of it, asked the kernel for another program."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    trace = os.path.join(line.lab.folder, "trace")
    pids = [str(program.pid) for program in (line.agent.writebackd, line.agent.channel)]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=execve,execveat,fork,vfork,recvmsg,read", "-o", trace, "-p", ",".join(pids)], stderr=subprocess.PIPE)
    try:
        try:
            wait_for("the trace", lambda: os.path.exists(trace) and os.path.getsize(trace) or tracer.poll() is not None)
        finally:
            if tracer.poll() is not None:
                pytest.skip(f"strace cannot attach here: {tracer.stderr.read().decode()[:200]}")
        for number, password in enumerate(NAUGHTY):
            user = f"bench{20 + number:03}"
            claims = line.service.claims(f"{user}@{DOMAIN}", new_password=password)
            answer = line.service.ask(claims)
            if answer["code"] == "ok":
                assert line.directory.opens(user, password), password
            else:
                assert answer["status"] == "refused" and not line.directory.opens(user, password), (password, answer)
    finally:
        tracer.terminate()
        tracer.wait(10)
        tracer.stderr.close()
    with open(trace, encoding="utf-8", errors="replace") as f:
        calls = f.read()
    assert calls.count("\n") > 20 and not re.search(r"\b(execve|execveat|fork|vfork)\(", calls)


@pytest.mark.native
def test_nothing_that_is_linked_starts_one():
    """What the programs themselves ask their libraries for; and names are resolved by c-ares, never by libevent."""
    for program in ("agent/writebackd", "agent/channel/writebackd-channel"):
        names = subprocess.run(["nm", "-D", "--undefined-only", os.path.join(BUILD, program)], check=True, capture_output=True, text=True).stdout
        asked = {line.split()[-1].split("@")[0] for line in names.splitlines() if line.split()}
        assert not asked & {"execv", "execve", "execvp", "execvpe", "execl", "execlp", "execle", "fexecve", "fork", "vfork", "system", "popen", "posix_spawn", "posix_spawnp", "wordexp", "dlopen"}, program
        assert "ares_getaddrinfo" in asked and not any(name.startswith("evdns") or name in ("getaddrinfo", "gethostbyname") for name in asked), program


def test_a_name_is_counted_however_it_is_written(line):
    """Three wrong passwords an hour, of one user: by his name in any spelling, by any other name of his."""
    user = "bench060"
    guid = line.directory.guid(user)
    subjects = [{"format": "userPrincipalName", "id": f"{user}@{DOMAIN}"}, {"format": "userPrincipalName", "id": f"{user.upper()}@{DOMAIN.upper()}"}, {"format": "sAMAccountName", "domain": NETBIOS, "id": user},
                {"format": "sAMAccountName", "domain": DOMAIN, "id": user.upper()}, {"format": "objectGUID", "id": guid}, {"format": "mS-DS-ConsistencyGuid", "id": guid}]
    codes = []
    for subject in subjects:
        claims = line.service.claims(subject, op="verify")
        secret = example.encrypt(line.service.agents[line.service.agent_id][1], {"operation_id": claims["operation_id"], "op": "verify", "sub_id": subject, "old_password": f"Wrong-One-{len(codes)}"})
        codes.append(line.service.ask({**claims, "secret": secret})["code"])
    assert codes == ["credential.wrong"] * 3 + ["agent.throttled"] * 3
    assert line.directory.bad_tries(user) == 3


def test_no_empty_password_leaves_the_agent(line, tmp_path):
    """A bind without a password succeeds as nobody: neither the agent's own, nor a user's."""
    said = []
    ca, pem, key = lab_module.certificate(str(tmp_path), "listener")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)

    def script(peer, number):
        peer.handshake()
        said.append(peer.read())
    service = RawService(context, script)
    agent = agent_of_many(str(tmp_path / "agent"), line.directory, ca, {"one": service.port})
    with open(agent.settings["directories"][0]["bind"]["password_file"], "w", encoding="utf-8") as f:
        f.write("\n")
    try:
        try:
            agent.start_writebackd()
            time.sleep(2)
            assert agent.status()["directories"][0]["servers_up"] == 0
        except lab_module.Late:
            agent.writebackd.expect(78)
            assert agent.writebackd.process.returncode == 78 and "password" in agent.writebackd.log_text()
        assert not any(b"\x80\x00" in data for data in said), said
    finally:
        agent.close()
        service.close()
    before = line.directory.bad_tries(USER)
    for members in ({"old_password": ""}, {"old_password": None}, {"old_password": []}, {"old_password": {}}, {"old_password": 0}, {}):
        claims = line.service.claims(f"{USER}@{DOMAIN}", op="verify")
        secret = example.encrypt(line.service.agents[line.service.agent_id][1], {"operation_id": claims["operation_id"], "op": "verify", "sub_id": claims["sub_id"], **members})
        assert line.service.ask({**claims, "secret": secret})["code"] == "request.undecryptable"
    assert line.directory.bad_tries(USER) == before


@pytest.mark.parametrize("member", ["jti", "operation_id", "iat", "exp", "op", "sub_id", "secret", "must_change", "unlock", "enforce_policy", "directory", "actor"])
def test_every_field_has_its_type(line, untouched, member):
    good = claims_of(line)
    for value in (None, True, 0, -1, 1.5, "", "x", [], ["x"], {}, [good.get(member)], {"0": good.get(member)}):
        if value is True and member in ("must_change", "unlock", "enforce_policy") or value == "x" and member in ("secret", "directory"):
            continue
        claims = {**good, "jti": str(uuid.uuid4()), "operation_id": str(uuid.uuid4()), member: value}
        frame = line.service.sign("wb-request+jwt", claims)
        digest = hashlib.sha256(frame.encode()).hexdigest()
        count = len(line.service.results)
        line.service.send(frame)
        answer = wait_for(f"the answer to {member} {value!r}", lambda: next((r for r in line.service.results[count:] if claims["jti"] == r.get("request_id") or r.get("frame_sha256") == digest), None), 5)
        assert answer["code"].startswith("request."), (value, answer)


def test_no_message_changes_the_configuration(line, untouched):
    """Whatever a service signs: where the directory is, whom it trusts and who is in scope stands on the disk only."""
    def everything():
        files = [os.path.join(where, name) for where, _, names in os.walk(line.agent.folder) for name in names if name.endswith((".yaml", "bind-password", ".jwk"))]
        return {path: open(path, "rb").read() for path in files} | {"in force": [row["list"][0]["name"] for row in line.agent.status()["directories"]]}
    before, loaded = everything(), len(line.agent.writebackd.events(event="config.loaded"))
    base = {"iss": line.service.issuer, "aud": line.service.agent_id, "iat": int(time.time()), "exp": int(time.time()) + 30}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        members = {"servers": [address], "ca_file": "/dev/null", "scope": {"users": "all"}, "bind": {"dn": "x"}, "keytab": "/tmp/x", "base_dn": "DC=x", "channel_endpoints": [f"wss://{address}/"], "issuer": "https://elsewhere.example"}
        for typ in ("wb-config+jwt", "wb-update+jwt", "wb-keys+jwt", "wb-welcome+jwt", "wb-ack+jwt", "wb-drain+jwt", "wb-challenge+jwt"):
            line.service.send(line.service.sign(typ, {**base, **members, "request_ids": [str(uuid.uuid4())], "session": str(uuid.uuid4()), "reason": "x"}))
        for name, value in members.items():
            assert line.service.ask(claims_of(line, **{name: value}))["code"] == "request.invalid", name
        for op in ("configure", "set", "reload", "update", "resume", "enroll"):
            assert line.service.ask(claims_of(line, op=op))["code"] == "request.unsupported", op
        with pytest.raises(TimeoutError):
            listener.accept()
    assert everything() == before and len(line.agent.writebackd.events(event="config.loaded")) == loaded


def test_a_latch_stays_closed_over_restarts():
    """More than so many resets in an hour stop them all: a restart, even by a file without a ceiling, a reload and a signed request do not change that, the administrator does."""
    line = Line(settings={"limits": {"latch_per_hour": 2, "per_user_hour": 0}})
    try:
        def ask(user):
            return line.service.ask(line.service.claims(f"{user}@{DOMAIN}", new_password=NEW))["code"]
        assert [ask(f"bench00{n}") for n in range(4)] == ["ok", "ok", "agent.latched", "agent.latched"]
        assert "STOPPED" in line.why()
        line.agent.writebackd.stop()
        line.agent.settings["limits"]["latch_per_hour"] = 0  # what the journal tells of the last hour would close it again
        line.agent.write_config()
        line.agent.start_writebackd()
        wait_for("a channel", lambda: line.service.ws, 10)
        wait_for("the directory", lambda: line.agent.status()["directories"][0]["servers_up"])
        assert ask("bench004") == "agent.latched"
        count = len(line.agent.writebackd.events(event="config.loaded"))
        line.agent.writebackd.signal(signal.SIGHUP)
        line.agent.writebackd.wait_event(event="config.loaded", count=count + 1)
        assert ask("bench005") == "agent.latched" and "STOPPED" in line.why()
        assert [line.directory.opens(f"bench00{n}", NEW) for n in range(6)] == [True, True] + [False] * 4
        line.agent.ctl("resume")
        assert ask("bench006") == "ok"
    finally:
        line.close()


# K24, C7 ------------------------------------------------------------------------------------------------------------------------------------------------

def test_each_bad_certificate_of_a_directory(line, tmp_path):
    """Only subjectAltName counts; each has its code, and nothing is said to such a server."""
    files, other = authority_files(str(tmp_path), "right"), authority_files(str(tmp_path), "other")
    rows = {"cn": ("tls.name", {"san": "DNS:elsewhere.example"}), "address": ("tls.name", {"san": "IP:127.0.0.1"}), "wild": ("tls.name", {"san": "DNS:*"}), "expired": ("tls.expired", {"end": "20210101000000Z"}),
            "early": ("tls.expired", {"start": "20390101000000Z"}), "purpose": ("tls.untrusted", {"usage": "clientAuth"}), "unknown": ("tls.untrusted", None), "weak": ("tls.untrusted", {"key": ("rsa:1024",)})}
    said = []

    def script(peer, number):
        peer.handshake()
        said.append(peer.read())
    services = [RawService(own_context(str(tmp_path / name), other if options is None else files, **(options or {})), script) for name, (_, options) in rows.items()]
    agent = agent_of_many(str(tmp_path / "agent"), line.directory, files[0], {name: s.port for name, s in zip(rows, services)})
    agent.start_writebackd()
    try:
        codes = wait_for("each to be refused", lambda: (found := {row["name"]: row.get("code") for row in agent.status()["directories"]}) and all(code not in (None, "directory.unavailable") for code in found.values()) and found, 15)
        assert codes == {name: code for name, (code, _) in rows.items()}
        assert not any(said)
    finally:
        agent.close()
        for service in services:
            service.close()


ENDLESS = {"100 MB": None, "deep": "directories: " + "[" * 60000, "mappings": "a: {" * 16000, "aliases": "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n" * 50, "keys": "".join(f"k{n}: 1\n" for n in range(8000))}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_configuration_that_takes_for_ever(line, name):
    """Refused within a second; the old one stays."""
    text = ENDLESS[name]
    with open(line.agent.writebackd_config, encoding="utf-8") as f:
        good = f.read()
    try:
        with open(line.agent.writebackd_config, "w", encoding="utf-8") as f:
            f.write(text or "# filler\n")
            if not text:
                f.truncate(100 << 20)
        time.sleep(1.1)  # reloads are a second apart
        count, began = len(line.agent.writebackd.events(event="config.refused")), time.monotonic()
        line.agent.writebackd.signal(signal.SIGHUP)
        line.agent.writebackd.wait_event(event="config.refused", count=count + 1, timeout=5)
        assert time.monotonic() - began < 1.5
        claims = line.service.claims(f"{USER}@{DOMAIN}", op="lookup")
        assert line.service.ask(claims)["code"] == "found"
    finally:
        with open(line.agent.writebackd_config, "w", encoding="utf-8") as f:
            f.write(good)


# C2 -----------------------------------------------------------------------------------------------------------------------------------------------------

def test_a_thousand_masks(bench, good_tls):
    """RFC 6455, section 5.3: four fresh random octets for each frame."""
    masks = []

    def script(peer, number):
        peer.upgrade()
        data = b""
        while True:
            data += peer.read()
            while len(data) >= 10:
                masks.append(data[2:6])
                data = data[10:]
    service = RawService(good_tls, script)
    agent = bench.start(service.url())
    agent.expect("U")
    for _ in range(1000):
        agent.send("F", b"same")
    wait_for("them all", lambda: len(masks) >= 1000, 10)
    assert len(set(masks)) >= 998
    counts = [0] * 256
    for octet in b"".join(masks):
        counts[octet] += 1
    expected = 4 * len(masks) / 256
    assert sum((count - expected) ** 2 / expected for count in counts) < 400  # 255 degrees of freedom: six deviations above the mean
    service.close()


# J10 ----------------------------------------------------------------------------------------------------------------------------------------------------

def arguments(row, at):
    """What stands between the bracket at `at` and its partner."""
    depth = 0
    for end in range(at, len(row)):
        depth += {"(": 1, ")": -1}.get(row[end], 0)
        if depth == 0:
            return row[at + 1:end]
    return row[at + 1:]


def test_secrets_are_compared_in_constant_time():
    """bytes_equal is CRYPTO_memcmp; memcmp and strcmp are for names, numbers and prefixes that anybody may know."""
    call, public = re.compile(r"\b(?:memcmp|strcmp|strncmp|strcasecmp)\s*\("), ("PREFIX", "frame_sha256")  # a frame is no secret
    secret = re.compile(r"tag\b|\bmac\b|hmac|digest|password|secret|plaintext|\bcek\b|private|api_key|bearer|ticket|signature|hash", re.I)
    found, seen = [], 0
    for folder in ("proto", "agent", "service", "base"):
        for where, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in (name for name in names if name.endswith(".c")):
                with open(os.path.join(where, name), encoding="utf-8") as f:
                    for number, row in enumerate(f, 1):
                        for match in call.finditer(row):
                            seen += 1
                            compared = re.sub(r'"[^"]*"', '""', arguments(row, match.end() - 1))
                            if secret.search(compared) and not any(word in compared for word in public):
                                found.append(f"{os.path.join(where, name)}:{number}: {row.strip()}")
    assert seen > 50 and found == []
    with open(os.path.join(ROOT, "base", "bytes.c"), encoding="utf-8") as f:
        assert "CRYPTO_memcmp(a.data, b.data" in f.read()
