"""reset-service against an agent written here, from proto/README.md alone, with python3-websockets and python3-jwcrypto."""
import asyncio, base64, contextlib, copy, hashlib, hmac, http.client, json, os, pwd, resource, shutil, signal, socket, sqlite3, ssl, subprocess, sys, tempfile, time, uuid

import pytest
import websockets
from jwcrypto import jwe, jwk, jws

import lab as lab_module
from lab import BUILD

BINARY = os.path.join(BUILD, "service", "reset-service")
PASSWORD = "Canary-Rosenkohl-77 ä"
SUBJECT = {"format": "userPrincipalName", "id": "alice@corp.example.test"}


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def new_key():
    return jwk.JWK.generate(kty="EC", crv="P-256")


def public(key, alg="ES256", use="sig"):
    full = key.export_public(as_dict=True)
    return {**{m: full[m] for m in ("kty", "crv", "x", "y")}, "kid": key.thumbprint(), "alg": alg, "use": use}


def sign(key, typ, claims, **header):
    token = jws.JWS(json.dumps(claims))
    token.add_signature(key, None, json.dumps({"alg": "ES256", "kid": key.thumbprint(), "typ": typ, **header}))
    return token.serialize(compact=True)


def peek(text):
    token = jws.JWS()
    token.deserialize(text)
    return json.loads(token.objects["protected"]), json.loads(token.objects["payload"])


def verify(text, key):
    token = jws.JWS()
    token.deserialize(text, key)
    return json.loads(token.payload)


class Service:
    """One reset-service in a folder."""

    def __init__(self, folder, settings="queue_wait: 300ms\ndiagnostics:\n  no_answer_after: 4s\n"):
        self.folder, self.process = str(folder), None
        self.certificate, key = self.path("tls.crt"), self.path("tls.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", self.certificate], check=True, stderr=subprocess.DEVNULL)
        self.issuer = "https://reset.example.test"
        with open(self.path("c.yaml"), "w") as f:
            f.write(f"issuer: {self.issuer}\nlisten: 127.0.0.1:0\ntls:\n  certificate_file: tls.crt\n  key_file: tls.key\nstate_directory: state\n" + settings)
        self.init = json.loads(self.command("init", "--json"))
        self.key = json.loads(self.command("api-key", "add", "tests", "--json"))["api_key"]
        self.start()

    def path(self, name):
        return os.path.join(self.folder, name)

    def command(self, *words, code=0):
        done = subprocess.run([BINARY, *words, "--config", self.path("c.yaml")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def start(self):
        self.log = open(self.path("log"), "ab")
        self.process = subprocess.Popen(lab_module.confined([BINARY, "serve", "--config", self.path("c.yaml"), "--log-format", "text"]), stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening https://127.0.0.1:"), (line, self.log_text())
        self.port = int(line.rsplit(":", 1)[1])
        self.tls = ssl.create_default_context(cafile=self.certificate)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(20)
        self.process.stdout.close()
        self.log.close()
        assert code == (-signal.SIGKILL if how == signal.SIGKILL else 0), (code, self.log_text()[-6000:])

    def log_text(self):
        with open(self.path("log"), encoding="utf-8") as f:
            return f.read()

    def http(self, method, path, body=None, key=None, headers=None):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.tls)
        try:
            all_headers = {"Authorization": f"Bearer {key or self.key}", **({"Content-Type": "application/json"} if body is not None else {}), **(headers or {})}
            connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, all_headers)
            answer = connection.getresponse()
            text = answer.read()
            self.headers = answer.headers
            return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text
        finally:
            connection.close()

    def raw(self, octets):
        with self.tls.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 5), server_hostname="127.0.0.1") as s:
            s.sendall(octets)
            return s.recv(65536)

    def ask(self, **members):
        body = {"operation_id": str(uuid.uuid4()), "op": "reset", "sub_id": SUBJECT, "new_password": PASSWORD, **members}
        return self.http("POST", "/v1/operations", {m: v for m, v in body.items() if v is not None})

    async def ask_later(self, **members):
        return await asyncio.get_running_loop().run_in_executor(None, lambda: self.ask(**members))

    def post_enrollment(self, text):
        return self.http("POST", "/v1/agents", text, headers={"Content-Type": "application/jose"})


class Agent:
    """The agent's side; `directories` and `operations` as it says hello."""

    def __init__(self, service, ticket=None, name="testhost"):
        self.service, self.name, self.boot, self.instance, self.max_in_flight = service, name, 1, str(uuid.uuid4()), 8
        self.signing, self.decryption, self.ws = new_key(), new_key(), None
        if ticket is not False:
            status, answer = service.post_enrollment(self.enrollment(ticket or json.loads(service.command("ticket", "--json"))["ticket"]))
            assert status == 201, answer
            self.id = answer["agent_id"]
            root = jwk.JWK(**answer["root_key"])
            assert root.thumbprint() == service.init["root_key"]
            self.service_keys = {k["kid"]: jwk.JWK(**k) for k in verify(answer["key_set"], root)["keys"]}

    def enrollment(self, ticket, key=None, **claims):
        now = int(time.time())
        return sign(key or self.signing, "wb-enroll+jwt", {
            "aud": self.service.issuer, "iat": now, "exp": now + 300, "ticket": ticket, "name": self.name, "signing_key": public(self.signing),
            "decryption_key": public(self.decryption, "ECDH-ES", "enc"), **claims})

    async def receive(self, typ):
        text = await asyncio.wait_for(self.ws.recv(), 5 * lab_module.SLOWNESS)
        header = peek(text)[0]
        assert header["typ"] == typ, header
        return text, verify(text, self.service_keys[header["kid"]])

    async def open(self, **options):
        self.ws = await websockets.connect(f"wss://127.0.0.1:{self.service.port}/v1/agent", ssl=self.service.tls, subprotocols=["writeback.v1"], compression=None, max_size=2**20, **options)
        assert self.ws.subprotocol == "writeback.v1"
        assert peek(await self.ws.recv())[0]["typ"] == "wb-keys+jwt"
        self.challenge = (await self.receive("wb-challenge+jwt"))[1]

    async def hello(self, key=None, **claims):
        nonce = b64(os.urandom(32))
        await self.ws.send(sign(key or self.signing, "wb-hello+jwt", {
            "iss": self.id, "aud": self.service.issuer, "iat": int(time.time()), "nonce": self.challenge["nonce"], "agent_nonce": nonce, "instance_id": self.instance,
            "boot": self.boot, "version": 1, "software": "test/1", "directories": [{"name": "corp", "flavor": "active-directory"}],
            "operations": ["reset", "unlock", "check"], "max_in_flight": self.max_in_flight, "decryption_key": self.decryption.thumbprint(), **claims}))
        return nonce

    async def connect(self, **claims):
        await self.open()
        nonce = await self.hello(**claims)
        welcome = (await self.receive("wb-welcome+jwt"))[1]
        assert (welcome["nonce"], welcome["aud"], welcome["iss"], welcome["max_frame_bytes"]) == (nonce, self.id, self.service.issuer, 65536)
        assert abs(welcome["time"] - time.time()) < 5
        self.session = welcome["session"]
        return self

    async def request(self):
        text, claims = await self.receive("wb-request+jwt")
        assert claims["aud"] == self.id and claims["iss"] == self.service.issuer and claims["exp"] - claims["iat"] == 30
        return text, claims

    def decrypt(self, claims):
        token = jwe.JWE()
        token.deserialize(claims["secret"], self.decryption)
        return json.loads(token.payload)

    def result(self, request, key=None, **claims):
        return sign(key or self.signing, "wb-result+jwt", {
            "iss": self.id, "aud": self.service.issuer, "iat": int(time.time()), "request_id": request["jti"], "operation_id": request["operation_id"], "status": "applied",
            "code": "ok", "user": {"object_guid": "6f9619ff-8b86-d011-b42d-00c04fc964ff"}, "was_locked": False,
            "directory": {"name": "corp", "server": "dc1.corp.example.test", "result_code": 0, "diagnostic": ""}, "warnings": [], "durations_ms": {"total": 5}, **claims})

    async def answer(self, request, **claims):
        await self.ws.send(self.result(request, **claims))
        assert (await self.receive("wb-ack+jwt"))[1]["request_ids"] == [request["jti"]]

    async def drain(self, session):
        await self.ws.send(sign(self.signing, "wb-drain+jwt", {"iss": self.id, "aud": self.service.issuer, "iat": int(time.time()), "session": session, "reason": "test"}))
        drained = asyncio.get_running_loop().time() + 5
        while session == self.session and f"agent.draining agent_id={self.id}" not in self.service.log_text():
            assert asyncio.get_running_loop().time() < drained
            await asyncio.sleep(0.01)

    async def closed(self, code):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await asyncio.wait_for(self.ws.recv(), 5)
        assert self.ws.close_code == code, (self.ws.close_code, self.ws.close_reason)

    def cut(self):
        self.ws.transport.abort()

    async def close(self):
        await self.ws.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.stop()
    assert PASSWORD not in service.log_text() and "Canary" not in service.log_text()
    for folder, _, files in os.walk(service.folder):
        for name in files:
            with open(os.path.join(folder, name), "rb") as f:
                assert b"Canary" not in f.read(), name


@pytest.fixture
def agent(service):
    """Enrolled for one test and revoked behind it, so that every test has the service to itself."""
    agent = Agent(service)
    yield agent
    service.http("DELETE", f"/v1/agents/{agent.id}")


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 25 * lab_module.SLOWNESS))


def test_discovery(service):
    status, found = service.http("GET", "/.well-known/writeback-configuration", headers={"Authorization": ""})
    assert status == 200 and found["issuer"] == service.issuer and found["channel_endpoints"] == ["wss://reset.example.test/v1/agent"]
    assert found["enrollment_endpoint"] == service.issuer + "/v1/agents" and found["limits"] == {"max_frame_bytes": 65536}
    root = jwk.JWK(**found["root_key"])
    key_set = verify(found["key_set"], root)
    assert root.thumbprint() == service.init["root_key"] and key_set["version"] == 1 and key_set["keys"][0]["kid"] == service.init["signing_key"]
    assert service.headers["X-Content-Type-Options"] == "nosniff" and service.headers["Cache-Control"] == "no-store"


def test_ticket_is_good_once(service):
    ticket = service.command("ticket").strip()
    assert len(ticket) == 91
    first, second = Agent(service, ticket), Agent(service, False)
    status, problem = service.post_enrollment(second.enrollment(ticket))
    assert status == 401 and problem["status"] == 401
    unknown = "wbt_" + b64(os.urandom(32)) + ticket[47:]
    assert service.post_enrollment(second.enrollment(unknown)) == (status, problem)  # not said which
    service.http("DELETE", f"/v1/agents/{first.id}")


def test_ticket_expires(service):
    ticket = service.command("ticket", "--ttl", "1s").strip()
    deadline = time.time() + 2.1  # whole seconds
    agent = Agent(service, False)
    text = agent.enrollment(ticket)
    time.sleep(deadline - time.time())
    assert service.post_enrollment(text)[0] == 401


@pytest.mark.parametrize("fault", ["foreign signature", "aud", "exp", "past", "same key", "private", "not a jws", "name", "kid"])
def test_wrong_proof_is_refused(service, fault):
    ticket = service.command("ticket").strip()
    agent, now = Agent(service, False), int(time.time())
    text = {"foreign signature": lambda: agent.enrollment(ticket, key=new_key()),
            "aud": lambda: agent.enrollment(ticket, aud="https://other.example.test"),
            "exp": lambda: agent.enrollment(ticket, exp=now + 301),
            "past": lambda: agent.enrollment(ticket, iat=now - 400, exp=now - 100),
            "same key": lambda: agent.enrollment(ticket, decryption_key=public(agent.signing, "ECDH-ES", "enc")),
            "private": lambda: agent.enrollment(ticket, signing_key={**public(agent.signing), "d": "AAAA"}),
            "not a jws": lambda: "nonsense",
            "name": lambda: agent.enrollment(ticket, name=""),
            "kid": lambda: agent.enrollment(ticket)[:-6] + "AAAAAA"}[fault]()
    assert service.post_enrollment(text)[0] == 400
    agent = Agent(service, ticket)  # and the ticket is still good
    service.http("DELETE", f"/v1/agents/{agent.id}")


def test_a_slow_clock_enrolls_within_a_minute(service):
    agent, now = Agent(service, False), int(time.time())
    status, answer = service.post_enrollment(agent.enrollment(service.command("ticket").strip(), iat=now - 330, exp=now - 30))
    assert status == 201
    service.http("DELETE", f"/v1/agents/{answer['agent_id']}")


def test_name_is_counted_in_characters(service):
    agent = Agent(service, name="\U0001f511" * 64)
    service.http("DELETE", f"/v1/agents/{agent.id}")
    other = Agent(service, False, name="\U0001f511" * 65)
    status, problem = service.post_enrollment(other.enrollment(service.command("ticket").strip()))
    assert status == 400 and "name" in problem["detail"]


def test_reset(service, agent):
    async def main():
        await agent.connect()
        status, agents = service.http("GET", "/v1/agents")
        mine = next(a for a in agents if a["agent_id"] == agent.id)
        assert mine["connected"] and mine["operations"] == ["reset", "unlock", "check"] and mine["decryption_key"]["kid"] == agent.decryption.thumbprint()
        operation_id = str(uuid.uuid4())
        asked = asyncio.ensure_future(service.ask_later(operation_id=operation_id, must_change=True))
        _, request = await agent.request()
        assert request["operation_id"] == operation_id and request["sub_id"] == SUBJECT and request["must_change"] is True
        assert agent.decrypt(request) == {"operation_id": operation_id, "op": "reset", "sub_id": SUBJECT, "new_password": PASSWORD}
        await agent.answer(request)
        status, operation = await asked
        assert status == 200 and operation["status"] == "applied" and operation["code"] == "ok" and operation["agent_id"] == agent.id
        assert operation["request_id"] == request["jti"] and operation["directory"]["server"] == "dc1.corp.example.test" and operation["user_message"] == "Done."
        assert service.http("GET", f"/v1/operations/{operation_id}") == (200, operation)
        assert json.loads(service.command("operation", operation_id, "--json")) == operation
        text = service.command("operation", operation_id)
        assert "applied" in text and "finished_at" in text and "ms later" in text and "dc1.corp.example.test" in text and SUBJECT["id"] in text
        assert "  connected       since " in service.command("agents").split(agent.id)[1].split("signing key")[0]
        assert operation_id in service.command("operations", "--limit", "1")
        # The agent did not hear the acknowledgement: it repeats itself and gets another.
        await agent.answer(request)
        # A later word does not change a final one.
        await agent.answer(request, status="refused", code="policy.history")
        assert service.http("GET", f"/v1/operations/{operation_id}") == (200, operation)
        await agent.close()
    run(main())


def readable_memory(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            start, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
            if " r" in line and "[v" not in line:
                memory.seek(start)
                with contextlib.suppress(OSError):
                    yield memory.read(end - start)


@pytest.mark.plain
def test_password_is_not_in_memory(service, agent):
    def search():
        return [needle for block in readable_memory(service.process.pid) for needle in (b"Canary-", b"Rosenkohl", b"kohl-77") if needle in block]

    async def main():
        await agent.connect()
        asked = [asyncio.ensure_future(service.ask_later()) for _ in range(4)]
        requests = [(await agent.request())[1] for _ in asked]
        assert search() == []  # not even while they are pending
        for request in requests:
            await agent.answer(request)
        assert [(await a)[1]["code"] for a in asked] == ["ok"] * 4 and search() == []
        # In chunks, with something behind it, and refused.
        body = json.dumps({"operation_id": str(uuid.uuid4()), "op": "reset", "sub_id": SUBJECT, "new_password": PASSWORD, "wait": 0}, ensure_ascii=False).encode()
        head = f"POST /v1/operations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nContent-Type: application/json\r\n".encode()
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:150], body[150:])) + b"0\r\n\r\n"
        for code, octets in (b"202", head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks), (b"400", head + b"Content-Length: %d\r\n\r\n" % len(body) + body + SMUGGLED), \
                (b"401", head.replace(b"wbk_", b"wbk-") + b"Content-Length: %d\r\n\r\n" % len(body) + body):
            with connect_tls(service) as s:
                s.sendall(octets)
                answer = s.recv(65536)
                assert answer.split(b" ")[1] == code, answer
                if code == b"202":
                    await agent.answer((await agent.request())[1])
                    assert search() == []
            await asyncio.sleep(0.1)
            assert search() == []
        await agent.close()
    run(main())


def test_idempotent(service, agent):
    async def main():
        await agent.connect()
        operation_id = str(uuid.uuid4())
        asked = [asyncio.ensure_future(service.ask_later(operation_id=operation_id)) for _ in range(3)]
        _, request = await agent.request()
        status, problem = await service.ask_later(operation_id=operation_id, new_password="another")
        assert status == 409
        status, pending = await service.ask_later(operation_id=operation_id, wait=0)
        assert status == 202 and pending["status"] == "pending" and service.headers["Location"] == f"/v1/operations/{operation_id}"
        await agent.answer(request, status="refused", code="policy.too_short", rules=[{"rule": "min_length", "required": 14, "given": 9}])
        answers = [await a for a in asked]
        assert answers[0] == answers[1] == answers[2] and answers[0][0] == 200 and answers[0][1]["rules"] == [{"rule": "min_length", "required": 14, "given": 9}]
        assert await service.ask_later(operation_id=operation_id) == answers[0]
        assert (await service.ask_later(operation_id=operation_id, must_change=True))[0] == 409
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(agent.ws.recv(), 0.2)  # one request only
        await agent.close()
    run(main())


def test_unlock_and_browser_secret(service, agent):
    async def main():
        await agent.connect()
        asked = asyncio.ensure_future(service.ask_later(op="unlock", new_password=None, actor={"type": "administrator", "id": "helpdesk-7"}))
        _, request = await agent.request()
        assert "secret" not in request and request["actor"] == {"type": "administrator", "id": "helpdesk-7"}
        await agent.answer(request, was_locked=True)
        assert (await asked)[1]["was_locked"] is True
        operation_id, kid = str(uuid.uuid4()), agent.decryption.thumbprint()
        token = jwe.JWE(json.dumps({"operation_id": operation_id, "op": "reset", "sub_id": SUBJECT, "new_password": PASSWORD}),
                        json.dumps({"alg": "ECDH-ES", "enc": "A256GCM", "kid": kid}), recipient=agent.decryption).serialize(compact=True)
        asked = asyncio.ensure_future(service.ask_later(operation_id=operation_id, new_password=None, secrets={kid: token}))
        _, request = await agent.request()
        assert request["secret"] == token
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        assert (await service.ask_later(new_password=None, secrets={kid: "a.b.c.d.e"}))[0] == 400
        assert (await service.ask_later(new_password=None, secrets={new_key().thumbprint(): token}))[1]["code"] == "service.no_agent"
        await agent.close()
    run(main())


ACCOUNT = {"user_principal_name": "alice@corp.example.test", "sam_account_name": "alice", "display_name": "Alice", "locked": True, "disabled": False, "expired": False,
           "must_change": False, "password_never_expires": False, "cannot_change": False, "password_last_set": 1790000000, "password_expires_at": 1797776000}
POLICY = {"source": "domain", "min_length": 10, "complexity": True, "history": 24, "min_age": 86400, "max_age": 7776000, "possible_at": 1790086400, "lockout_threshold": 5, "lockout_duration": 1800,
          "enforced": True}
OLD = "Before-the-2nd-try!"


@pytest.mark.parametrize("op,passwords,status,code,extra", [("change", {"old_password": OLD, "new_password": PASSWORD}, "applied", "ok", {}), ("verify", {"old_password": OLD}, "answered", "verified", {}),
                                                            ("verify", {"old_password": OLD}, "refused", "credential.must_change", {}), ("lookup", {}, "answered", "found", {"account": ACCOUNT}),
                                                            ("policy", {}, "answered", "found", {"policy": POLICY}), ("policy", {}, "answered", "found", {"policy": {"source": "unknown"}, "warnings": ["policy_unreadable"]})])
def test_every_operation(service, agent, op, passwords, status, code, extra):
    async def main():
        await agent.connect(operations=["reset", "change", "unlock", "check", "lookup", "verify", "policy"])
        operation_id = str(uuid.uuid4())
        members = {"op": op, "operation_id": operation_id, "new_password": None, **passwords}
        asked = asyncio.ensure_future(service.ask_later(**members))
        _, request = await agent.request()
        assert request["op"] == op and ("secret" in request) == bool(passwords)
        if passwords:
            assert agent.decrypt(request) == {"operation_id": operation_id, "op": op, "sub_id": SUBJECT, **passwords}
        # While the outcome is open each of the passwords is compared.
        for member in passwords:
            assert (await service.ask_later(**{**members, member: "Another-1-of-them"}, wait=0))[0] == 409
        assert (await service.ask_later(**members, wait=0))[0] == 202
        wrong = ("answered", "plausible") if status == "applied" else ("applied", "ok")
        await agent.ws.send(agent.result(request, status=wrong[0], code=wrong[1]))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(agent.ws.recv(), 0.2)
        await agent.answer(request, status=status, code=code, **extra)
        answer = (await asked)[1]
        assert (answer["status"], answer["code"]) == (status, code) and {name: answer.get(name) for name in extra} == extra
        assert service.http("GET", f"/v1/operations/{operation_id}") == (200, answer)
        assert OLD not in service.log_text() and OLD.encode() not in open(service.path("state/store.sqlite"), "rb").read()
        await agent.close()
    run(main())


def test_an_operation_that_no_agent_allows(service, agent):
    async def main():
        await agent.connect()
        assert (await service.ask_later(op="verify", new_password=None, old_password=OLD))[1]["code"] == "service.no_agent"
        await agent.close()
    run(main())


def test_forged_results_are_ignored(service, agent):
    async def main():
        await agent.connect()
        asked = asyncio.ensure_future(service.ask_later(op="unlock", new_password=None))
        _, request = await agent.request()
        stranger = new_key()
        # Correctly signed, but not for here, or of a type of a later version: ignored.
        for misdirected in (agent.result(request, iss=str(uuid.uuid4())), agent.result(request, aud="https://other.example.test"),
                            *[sign(agent.signing, "wb-news+jwt", {"iss": agent.id})] * 10):
            await agent.ws.send(misdirected)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(agent.ws.recv(), 0.3)
        assert service.log_text().count(f"message.ignored agent_id={agent.id}") == 5
        # Of a request that is not known: acknowledged, or the agent would repeat it for ever.
        await agent.answer({**request, "jti": str(uuid.uuid4())})
        # What does not verify ends the channel; the request is delivered again.
        for forged in (agent.result(request, key=stranger), agent.result(request)[:-8] + "AAAAAAAA",
                       sign(stranger, "wb-result+jwt", peek(agent.result(request))[1], jwk=public(stranger))):
            await agent.ws.send(forged)
            await agent.closed(1008)
            await agent.connect()
            assert (await agent.request())[1]["jti"] == request["jti"]
        assert not asked.done()
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        await agent.close()
    run(main())


def test_outcome_of_another_operation(service, agent):
    """A write that is said to have been answered, a check that is said to have been applied: neither is recorded nor acknowledged."""
    async def main():
        await agent.connect()
        for op, wrong, right in (("reset", ("answered", "plausible"), ("applied", "ok")), ("check", ("applied", "ok"), ("answered", "plausible"))):
            asked = asyncio.ensure_future(service.ask_later(op=op))
            _, request = await agent.request()
            await agent.ws.send(agent.result(request, status=wrong[0], code=wrong[1]))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(agent.ws.recv(), 0.2)
            assert not asked.done()
            await agent.answer(request, status=right[0], code=right[1])
            assert (await asked)[1]["status"] == right[0]
            await agent.ws.send(agent.result(request, status=wrong[0], code=wrong[1]))  # neither when it is finished
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(agent.ws.recv(), 0.2)
        await agent.close()
    run(main())


def test_replay_changes_nothing(service, agent):
    async def main():
        await agent.connect()
        asked = asyncio.ensure_future(service.ask_later())
        text, request = await agent.request()
        for claims in ({"frame_sha256": hashlib.sha256(text.encode()).hexdigest()}, {"request_id": request["jti"], "operation_id": request["operation_id"]}):
            await agent.ws.send(sign(agent.signing, "wb-result+jwt", {"iss": agent.id, "aud": service.issuer, "iat": int(time.time()), "status": "refused",
                                                                      "code": "request.replayed", **claims}))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(agent.ws.recv(), 0.3)
        assert not asked.done()
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        await agent.close()
    run(main())


def unverified(agent, text, iat=None):
    return sign(agent.signing, "wb-result+jwt", {"iss": agent.id, "aud": agent.service.issuer, "iat": iat or int(time.time()), "status": "refused", "code": "request.signature", "reason": "kid",
                                                 "frame_sha256": hashlib.sha256(text.encode()).hexdigest()})


def test_unverifiable_frame_settles_its_request(tmp_path):
    """Once it has expired: before that it is sent again, for the agent may have heard of the key meanwhile, and an earlier word says nothing of what was done with the frame later."""
    async def main(service):
        agent = await Agent(service).connect()
        asked = asyncio.ensure_future(service.ask_later())
        text, request = await agent.receive("wb-request+jwt")
        times = 0
        while time.time() < request["exp"]:
            await agent.ws.send(unverified(agent, text))
            assert await asyncio.wait_for(agent.ws.recv(), 5) == text
            times += 1
        assert times in (3, 4) and not asked.done()
        early = unverified(agent, text, request["exp"] - 1)
        await agent.ws.send(early)
        assert await asyncio.wait_for(agent.ws.recv(), 5) == text  # its clock may be behind ours
        await agent.ws.send(unverified(agent, text))
        status, operation = await asked
        assert (status, operation["status"], operation["code"], operation["reason"]) == (200, "refused", "request.signature", "kid")

        asked = asyncio.ensure_future(service.ask_later())
        text, request = await agent.receive("wb-request+jwt")
        await agent.ws.send(unverified(agent, text))
        for _ in range(2):  # the agent tells ten a second only, and may have passed over the first
            assert await asyncio.wait_for(agent.ws.recv(), 5) == text
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        await agent.close()
    service = Service(tmp_path, "request_lifetime: 2s\n")
    run(main(service))
    service.stop()


def failed_at(agent, text):
    return sign(agent.signing, "wb-result+jwt", {"iss": agent.id, "aud": agent.service.issuer, "iat": int(time.time()), "status": "failed", "code": "agent.internal",
                                                 "frame_sha256": hashlib.sha256(text.encode()).hexdigest()})


def test_what_the_agent_failed_at_is_sent_again(service, agent):
    """On the same channel, after a pause that grows; a copy of the agent's word, or one about another frame, has nothing sent."""
    async def main():
        await agent.connect()
        asked = asyncio.ensure_future(service.ask_later())
        text, request = await agent.request()
        await agent.ws.send(failed_at(agent, text + "x"))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(agent.ws.recv(), 0.8)
        for least in (0.25, 0.5, 1):
            failed = time.monotonic()
            for _ in range(3):
                await agent.ws.send(failed_at(agent, text))
            assert (await agent.request())[0] == text
            assert least <= time.monotonic() - failed < least + 0.8
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(agent.ws.recv(), 0.3)
        assert not asked.done()
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        await agent.close()
    run(main())


def test_what_the_agent_goes_on_failing_at(tmp_path):
    """It is sent until it has an outcome, behind its expiry too, when the agent that has never taken it says so."""
    async def main(service):
        agent = await Agent(service).connect()
        asked = asyncio.ensure_future(service.ask_later())
        text, request = await agent.receive("wb-request+jwt")
        times = []
        while len(times) < 4:
            await agent.ws.send(failed_at(agent, text))
            assert await asyncio.wait_for(agent.ws.recv(), 5) == text
            times.append(time.time())
        assert request["exp"] < times[-2] < times[-1] - 0.9 and not asked.done()
        agent.cut()
        await agent.connect()
        assert (await agent.receive("wb-request+jwt"))[0] == text
        await agent.answer(request, status="failed", code="request.expired")
        assert (await asked)[1]["code"] == "request.expired"
        await agent.close()
    service = Service(tmp_path, "request_lifetime: 1s\n")
    run(main(service))
    service.stop()


def test_what_the_agent_says_nothing_of(tmp_path):
    """It may have passed over the frame, and then knows nothing of it: at exp it is sent again, and every 4 s behind that. Not where there was a word of the request itself."""
    async def main(service):
        agent = Agent(service)
        agent.max_in_flight = 2
        await agent.connect()
        asked = [asyncio.ensure_future(service.ask_later()) for _ in range(2)]
        (settling, first), (text, request) = [await agent.receive("wb-request+jwt") for _ in range(2)]
        await agent.ws.send(agent.result(first, status="settling", code="settling"))
        assert await asyncio.wait_for(agent.ws.recv(), 5 * lab_module.SLOWNESS) == text
        assert request["exp"] <= time.time() < request["exp"] + lab_module.SLOWNESS
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(agent.ws.recv(), 0.5)
        await agent.answer(request, status="failed", code="request.expired")
        await agent.answer(first)
        assert sorted([(await a)[1]["code"] for a in asked]) == ["ok", "request.expired"]
        await agent.close()
    service = Service(tmp_path, "request_lifetime: 2s\n")
    run(main(service))
    service.stop()


def test_an_agent_that_cannot_verify_is_not_starved(tmp_path):
    """It tells ten a second, as the real one, and passes over the rest: what it passed over ends truly soon behind exp and gives its place free, and what comes again leaves answers to what is new."""
    async def main(service):
        agent, ids, seen, again, passed_over = Agent(service), [], [], [], []
        agent.max_in_flight = 12
        await agent.connect()

        async def ask():
            ids.append(str(uuid.uuid4()))
            assert (await service.ask_later(operation_id=ids[-1], wait=0))[0] == 202

        for _ in range(12):
            await ask()
        started, done = time.monotonic(), 0
        tokens, refilled = 6.0, started
        while done < 15 and time.monotonic() < started + 12 * lab_module.SLOWNESS:
            with contextlib.suppress(asyncio.TimeoutError):
                text, request = await asyncio.wait_for(agent.receive("wb-request+jwt"), 0.3)
                now = time.monotonic()
                tokens, refilled = min(10.0, tokens + (now - refilled) * 10), now
                if request["jti"] in seen:
                    again.append(now)
                else:
                    seen.append(request["jti"])
                if tokens < 1:
                    passed_over.append(request["jti"])
                else:
                    tokens -= 1
                    await agent.ws.send(unverified(agent, text))
            done = service.log_text().count("operation.done")
            if len(ids) < 15 and done > 2 * (len(ids) - 12) and now > started + 1:
                await ask()  # there is a place for it, while the others come again; behind the burst of the first ones
        assert {service.http("GET", f"/v1/operations/{i}")[1].get("code") for i in ids} == {"request.signature"} and len(ids) == len(seen) == 15, (done, again)
        assert passed_over and set(passed_over) <= set(seen[:12]), passed_over
        assert all(len([t for t in again if first <= t < first + 1]) <= 6 for first in again), again
        await agent.close()
    service = Service(tmp_path, "request_lifetime: 1s\nqueue_wait: 10s\n")
    run(main(service))
    service.stop()


def test_settling_then_final(service, agent):
    async def main():
        await agent.connect()
        operation_id = str(uuid.uuid4())
        asked = asyncio.ensure_future(service.ask_later(operation_id=operation_id, wait=0.3))
        _, request = await agent.request()
        await agent.ws.send(agent.result(request, status="settling", code="settling"))
        status, operation = await asked
        assert (status, operation["status"], operation["code"]) == (202, "settling", "settling")
        await agent.answer(request)
        assert service.http("GET", f"/v1/operations/{operation_id}")[1]["code"] == "ok"
        await agent.close()
    run(main())


def test_redelivery_after_a_cut(service, agent):
    async def main():
        await agent.connect()
        asked = asyncio.ensure_future(service.ask_later())
        first, _ = await agent.request()
        agent.cut()
        await agent.connect()  # the same boot and instance
        second, request = await agent.request()
        assert first == second
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        agent.boot += 1  # a restart while the old channel stands: that one is superseded
        old = agent.ws
        await agent.connect()
        await asyncio.wait_for(old.wait_closed(), 5)
        assert old.close_code == 1001
        await agent.close()
    run(main())


def test_in_flight_limit(service, agent):
    async def main():
        agent.max_in_flight = 1
        await agent.connect()
        accepted = service.log_text().count("operation.accepted")
        one = asyncio.ensure_future(service.ask_later())
        _, request = await agent.request()
        status, operation = await service.ask_later()  # waits queue_wait in vain
        assert (status, operation["code"]) == (200, "service.overloaded")
        two = asyncio.ensure_future(service.ask_later())
        while service.log_text().count("operation.accepted") < accepted + 3:
            await asyncio.sleep(0.01)
        await agent.ws.send(agent.result(request))
        texts = [await asyncio.wait_for(agent.ws.recv(), 5) for _ in range(2)]  # the place is free before the outcome is durable
        typs = {peek(text)[0]["typ"]: peek(text)[1] for text in texts}
        assert sorted(typs) == ["wb-ack+jwt", "wb-request+jwt"] and (await one)[1]["code"] == "ok"
        await agent.answer(typs["wb-request+jwt"])
        assert (await two)[1]["code"] == "ok"
        await agent.close()
    run(main())


def test_no_agent_at_once(service):
    started, operation_id = time.time(), str(uuid.uuid4())
    status, operation = service.ask(operation_id=operation_id)
    assert status == 200 and operation["status"] == "failed" and operation["code"] == "service.no_agent" and time.time() - started < 1
    assert service.http("GET", f"/v1/operations/{operation_id}")[1] == operation


def test_never_answered(service, agent):
    async def main():
        await agent.connect()
        operation_id = str(uuid.uuid4())
        status, operation = await service.ask_later(operation_id=operation_id)  # no_answer_after is 4 s here
        assert (status, operation["status"], operation["code"]) == (200, "unknown", "service.no_answer")
        _, request = await agent.request()
        await agent.answer(request)  # better late
        assert service.http("GET", f"/v1/operations/{operation_id}")[1]["code"] == "ok"
        await agent.close()
    run(main())


def test_least_loaded_agent(service, agent):
    async def main():
        other = Agent(service, name="second")
        await agent.connect()
        await other.connect()
        asked = [asyncio.ensure_future(service.ask_later()) for _ in range(4)]
        pending = [(a, (await a.request())[1]) for a in (agent, other) for _ in range(2)]
        for a, request in pending:
            await a.answer(request)
        assert [(await a)[1]["code"] for a in asked] == ["ok"] * 4
        # One that drains takes nothing new.
        await other.drain(str(uuid.uuid4()))  # another session's: ignored
        await agent.drain(agent.session)
        for _ in range(3):
            asked = asyncio.ensure_future(service.ask_later())
            await other.answer((await other.request())[1])
            assert (await asked)[1]["agent_id"] == other.id
        await agent.close()
        await other.close()
        service.http("DELETE", f"/v1/agents/{other.id}")
    run(main())


async def first_asked(agents):
    """(the agent that gets a frame first, that frame, {the other receives}, {receive: agent})."""
    waiting = {asyncio.ensure_future(agent.ws.recv()): agent for agent in agents}
    done, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    got = done.pop()
    return waiting[got], got.result(), rest, waiting


async def another_agent(service, agents, soonest, latest):
    """The first agent is lost with the request: some seconds later, or behind its expiry, another one is asked, by a request of its own."""
    for agent in agents:
        await agent.connect()
    operation_id = str(uuid.uuid4())
    asked = asyncio.ensure_future(service.ask_later(operation_id=operation_id, must_change=True))
    lost, frame, rest, waiting = await first_asked(agents)
    other, first = waiting[(later := rest.pop())], peek(frame)[1]
    await lost.ws.send(lost.result(first, status="settling", code="settling"))
    while service.http("GET", f"/v1/operations/{operation_id}")[1]["status"] != "settling":
        await asyncio.sleep(0.02)
    await lost.close()
    started = time.time()
    text = await asyncio.wait_for(later, 9)
    second = verify(text, other.service_keys[peek(text)[0]["kid"]])
    assert soonest < time.time() - started < latest * lab_module.SLOWNESS
    assert first["failover_after"] == (1 if latest < 5 else 60) and "failover_after" not in second  # there is no third one
    assert second["jti"] != first["jti"] and second["operation_id"] == operation_id and second["first_iat"] == first["iat"] and second["must_change"] is True
    assert second["aud"] == other.id and second["prior_server"] == "dc1.corp.example.test" and other.decrypt(second)["new_password"] == PASSWORD
    # The first comes back with a failure, which says nothing any more.
    await lost.connect()
    await lost.answer(first, status="failed", code="directory.unavailable")
    assert not asked.done()
    await other.answer(second)
    operation = (await asked)[1]
    assert (operation["code"], operation["agent_id"], operation["request_id"]) == ("ok", other.id, second["jti"])
    assert service.http("GET", f"/v1/operations/{operation_id}")[1] == operation
    for agent in agents:
        await agent.close()


async def a_later_refusal_does_not_hide_an_earlier_write(service, agents, last):
    """The second agent refuses because the first one, which was lost, has set that very password: nobody is told `refused` before the first has had its last word."""
    for agent in agents:
        await agent.connect()
    operation_id = str(uuid.uuid4())
    asked = asyncio.ensure_future(service.ask_later(operation_id=operation_id))
    lost, frame, rest, waiting = await first_asked(agents)
    other, first = waiting[(later := rest.pop())], peek(frame)[1]
    await lost.close()
    second = peek(await asyncio.wait_for(later, 9))[1]
    await other.answer(second, status="refused", code="policy.history_or_filter")
    await asyncio.sleep(0.2)
    assert not asked.done() and service.http("GET", f"/v1/operations/{operation_id}")[1]["status"] == "settling"
    if last != "never":
        await lost.connect()
        assert await asyncio.wait_for(lost.ws.recv(), 5) == frame  # it is asked again, by the same bytes
        await lost.answer(first, **({} if last == "applied" else {"status": "failed", "code": "request.expired"}))
    code, request = {"applied": ("ok", first), "expired": ("policy.history_or_filter", second), "never": ("service.no_answer", first)}[last]
    operation = (await asked)[1]
    assert (operation["code"], operation["request_id"]) == (code, request["jti"])
    assert service.http("GET", f"/v1/operations/{operation_id}")[1] == operation
    if last == "never":
        await lost.connect()
        await lost.answer(first)
        assert service.http("GET", f"/v1/operations/{operation_id}")[1]["code"] == "ok"
    for agent in agents:
        await agent.close()


async def a_word_while_another_agent_is_being_asked(service, agents):
    """The first agent is back with its word while the request for the second one is being recorded: it counts, and the second one is not asked."""
    for agent in agents:
        await agent.connect()
    asked = asyncio.ensure_future(service.ask_later())
    lost, frame, rest, _ = await first_asked(agents)
    first = peek(frame)[1]
    await lost.close()
    await asyncio.sleep(0.5)
    with contextlib.closing(sqlite3.connect(service.path("state/store.sqlite"), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(1)
        await lost.connect()
        await lost.ws.send(lost.result(first))
        await asyncio.sleep(0.3)
        assert not asked.done()
        db.execute("ROLLBACK")
    assert first["jti"] in (await lost.receive("wb-ack+jwt"))[1]["request_ids"]
    assert (await asked)[1]["code"] == "ok"
    assert (await asyncio.wait(rest, timeout=0.3))[0] == set() and "operation.other_agent" in service.log_text()
    for agent in agents:
        await agent.close()


async def the_first_agent_is_back_in_time(service, agents):
    """Its request is its own again, and nobody else is asked."""
    for agent in agents:
        await agent.connect()
    asked = asyncio.ensure_future(service.ask_later())
    lost, frame, rest, _ = await first_asked(agents)
    for _ in range(2):
        await lost.close()
        await asyncio.sleep(1.8)  # twice this is longer than failover_after
        await lost.connect()
        assert await asyncio.wait_for(lost.ws.recv(), 5) == frame
    assert (await asyncio.wait(rest, timeout=2))[0] == set()
    await lost.answer(peek(frame)[1])
    assert (await asked)[1]["code"] == "ok" and "operation.other_agent" not in service.log_text()
    for agent in agents:
        await agent.close()


async def every_agent_is_lost_but_one(service, agents):
    third = Agent(service, name="third")
    everyone = [*agents, third]
    for agent in everyone:
        await agent.connect()
    asked, requests = asyncio.ensure_future(service.ask_later()), []
    while everyone:
        agent, frame, rest, _ = await first_asked(everyone)
        for left in rest:
            left.cancel()
        requests.append(peek(frame)[1])
        everyone.remove(agent)
        if everyone:
            await agent.close()
    await agent.answer(requests[-1])
    assert (await asked)[1]["agent_id"] == agent.id and len({r["jti"] for r in requests}) == 3
    assert [r.get("failover_after") for r in requests] == [1, 1, None] and {r.get("first_iat") for r in requests} == {None, requests[0]["iat"]}
    await agent.close()


async def killed(service, host=None):
    """The service is killed and starts anew, perhaps on a host that has booted meanwhile."""
    await asyncio.get_running_loop().run_in_executor(None, service.stop, signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(service.path("state/store.sqlite"), isolation_level=None)) as db:
        assert db.execute("SELECT count(*) FROM agents WHERE connected").fetchone() == (2,)
        if host:
            db.execute("UPDATE meta SET value = ? WHERE name = 'host'", (host.encode(),))
    await asyncio.get_running_loop().run_in_executor(None, service.start)


async def another_agent_after_a_restart(service, agents, host, soonest, latest):
    """The first agent has taken the request, the service is killed, the first agent never comes back: what is needed to ask another one has outlived the service. Of a service whose host
    has booted the agents may not know yet that it is gone: nobody else is asked before `exp`."""
    for agent in agents:
        await agent.connect()
    operation_id = str(uuid.uuid4())
    await service.ask_later(operation_id=operation_id, must_change=True, wait=0)
    lost, frame, rest, waiting = await first_asked(agents)
    other, first = waiting[rest.pop()], peek(frame)[1]
    await lost.ws.send(lost.result(first, status="settling", code="settling"))
    while service.http("GET", f"/v1/operations/{operation_id}")[1]["status"] != "settling":
        await asyncio.sleep(0.02)
    issued = time.time()
    await killed(service, host)
    started = time.time()
    await other.connect()
    text = await asyncio.wait_for(other.ws.recv(), 9)
    second = verify(text, other.service_keys[peek(text)[0]["kid"]])
    assert soonest < time.time() - issued and time.time() - started < latest * lab_module.SLOWNESS, time.time() - started
    assert second["jti"] != first["jti"] and second["operation_id"] == operation_id and second["first_iat"] == first["iat"] and second["must_change"] is True
    assert second["prior_server"] == "dc1.corp.example.test" and "failover_after" not in second
    assert other.decrypt(second)["new_password"] == PASSWORD
    await other.answer(second)
    assert service.http("GET", f"/v1/operations/{operation_id}")[1]["code"] == "ok"
    with contextlib.closing(sqlite3.connect(service.path("state/store.sqlite"))) as db:
        assert db.execute("SELECT count(*) FROM spares").fetchone() == (0,)
    await other.close()


async def the_first_agent_is_back_after_a_restart(service, agents):
    """The same bytes go to the agent that had them, though another one is there first, and to nobody else."""
    for agent in agents:
        await agent.connect()
    operation_id = str(uuid.uuid4())
    await service.ask_later(operation_id=operation_id, wait=0)
    lost, frame, rest, waiting = await first_asked(agents)
    other = waiting[rest.pop()]
    await killed(service)
    await other.connect()
    heard = asyncio.ensure_future(other.ws.recv())
    await asyncio.sleep(1)
    await lost.connect()
    assert await asyncio.wait_for(lost.ws.recv(), 5) == frame
    assert (await asyncio.wait([heard], timeout=3))[0] == set()  # longer than failover_after
    await lost.answer(peek(frame)[1])
    assert service.http("GET", f"/v1/operations/{operation_id}")[1]["agent_id"] == lost.id and "operation.other_agent" not in service.log_text()
    heard.cancel()
    for agent in agents:
        await agent.close()


LOST = {
    "restart": (another_agent_after_a_restart, [None, 0.5, 3.5], "failover_after: 1s\n"),
    "host booted": (another_agent_after_a_restart, ["1000000 another", 3, 8], "failover_after: 1s\nrequest_lifetime: 1s\n"),
    "back after a restart": (the_first_agent_is_back_after_a_restart, [], "failover_after: 3s\n"),
    "another agent": (another_agent, [0.8, 3], "failover_after: 1s\n"),
    "behind exp": (another_agent, [3.5, 8], "failover_after: 60s\nrequest_lifetime: 1s\n"),
    "applied": (a_later_refusal_does_not_hide_an_earlier_write, ["applied"], "failover_after: 1s\ndiagnostics:\n  no_answer_after: 6s\n"),
    "expired": (a_later_refusal_does_not_hide_an_earlier_write, ["expired"], "failover_after: 1s\ndiagnostics:\n  no_answer_after: 6s\n"),
    "never": (a_later_refusal_does_not_hide_an_earlier_write, ["never"], "failover_after: 1s\ndiagnostics:\n  no_answer_after: 6s\n"),
    "a word": (a_word_while_another_agent_is_being_asked, [], "failover_after: 1s\ndiagnostics:\n  no_answer_after: 60s\n"),
    "back in time": (the_first_agent_is_back_in_time, [], "failover_after: 3s\n"),
    "third agent": (every_agent_is_lost_but_one, [], "failover_after: 1s\n"),
}


def test_an_agent_is_lost_with_the_request(tmp_path):
    """Each waits some seconds, so all of them wait together, each with a service of its own."""
    async def main():
        results = await asyncio.gather(*(case(services[name], agents[name], *more) for name, (case, more, _) in LOST.items()), return_exceptions=True)
        for name, result in zip(LOST, results):
            if result is not None:
                raise AssertionError(name) from result
    services, agents = {}, {}
    for name, (_, _, settings) in LOST.items():
        (tmp_path / name).mkdir()
        services[name] = Service(tmp_path / name, settings)
        agents[name] = [Agent(services[name], name=n) for n in ("first", "second")]
    run(main())
    for service in services.values():
        service.stop()


def test_database_holds_nothing_to_guess_against(tmp_path):
    def hashes(service):
        with contextlib.closing(sqlite3.connect(service.path("state/store.sqlite"))) as db:
            return db.execute("SELECT content, secret_key, secret_hash, (SELECT value FROM meta WHERE name = 'content_key') FROM operations").fetchone()

    async def main(service):
        agent = await Agent(service).connect()
        operation_id = str(uuid.uuid4())
        await service.ask_later(operation_id=operation_id, wait=0)
        _, request = await agent.request()
        content, key, secret, content_key = hashes(service)
        assert hmac.new(key, PASSWORD.encode(), "sha256").digest() == secret
        assert (await service.ask_later(operation_id=operation_id, new_password="another", wait=0))[0] == 409
        service.stop(signal.SIGKILL)  # a restart compares as before
        service.start()
        assert (await service.ask_later(operation_id=operation_id, new_password="another", wait=0))[0] == 409
        assert (await service.ask_later(operation_id=operation_id, wait=0))[0] == 202
        await agent.connect()
        await agent.request()
        await agent.answer(request)
        assert hashes(service) == (content, None, None, content_key)
        body = {"operation_id": operation_id, "op": "reset", "sub_id": SUBJECT}
        for guessed in (body, {**body, "new_password": PASSWORD}):
            text = json.dumps(guessed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
            assert (hmac.new(content_key, text, "sha256").digest() == content) == (guessed is body)
        assert (await service.ask_later(operation_id=operation_id))[0] == 200
        assert (await service.ask_later(operation_id=operation_id, must_change=True))[0] == 409
        await agent.close()
    service = Service(tmp_path)
    run(main(service))
    service.stop()


def test_api_key(service):
    assert service.http("GET", "/v1/agents", key="wbk_" + "A" * 43)[0] == 401
    assert service.http("GET", "/v1/agents", key="wbk_short")[0] == 401
    assert service.http("GET", "/v1/agents", headers={"Authorization": "Basic eDp5"})[0] == 401
    assert service.headers["WWW-Authenticate"] == "Bearer"
    key = json.loads(service.command("api-key", "add", "second", "--json"))["api_key"]
    service.command("api-key", "add", "second", code=65)
    assert service.http("GET", "/v1/agents", key=key)[0] == 200
    service.command("api-key", "revoke", "second")
    deadline = time.time() + 5
    while service.http("GET", "/v1/agents", key=key)[0] != 401:
        assert time.time() < deadline


@pytest.mark.parametrize("path", ["/v1/agents/", "/v1//agents", "//v1/agents", "/v1/./agents", "/v1/x/../agents", "/v1/agents?x=1", "/v1/agents%2f", "/v1/%61gents", "/V1/agents",
                                  "/v1/agents;x", "https://127.0.0.1/v1/agents", "/v1/operations/../agents", "/v1/operations/not-a-uuid", "/"])
def test_path_tricks(service, path):
    answer = service.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n\r\n".encode())
    assert answer.split(b" ")[1] in (b"404", b"400"), answer


@pytest.mark.parametrize("headers", ["Host: x\r\nContent-Length: 2\r\nContent-Length: 2", "Host: x\r\nContent-Length: +2", "Content-Length: 2", "Host: x\r\nHost: y\r\nContent-Length: 2",
                                     "Host: x\r\nContent-Length : 2", "Host: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked", "Host: x\r\nContent-Length: 0x2"])
def test_ambiguous_requests(service, headers):
    answer = service.raw(f"POST /v1/operations HTTP/1.1\r\nAuthorization: Bearer {service.key}\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{{}}".encode())
    assert answer.split(b" ")[1] == b"400", answer


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("head", ["HEAD /x", "GET /.well-known/writeback-configuration", "DELETE /v1/agents/6f9619ff-8b86-4011-b42d-00c04fc964ff", "OPTIONS /x", "TRACE /x",
                                  "POST /v1/agents|Transfer-Encoding: xchunked", "POST /v1/agents|Transfer-Encoding: gzip, chunked",
                                  "POST /v1/agents|Transfer-Encoding: chunked, identity", "POST /v1/agents|Content-Length: 2"])
def test_smuggling(service, head):
    """What a proxy in front may take for a body is never the next request: one answer, and the end of the connection."""
    line, _, header = head.partition("|")
    header = header or f"Content-Length: {len(SMUGGLED)}"
    body = b"0\r\n\r\n" if "Transfer" in header else b"{}" if header.endswith(": 2") else b""
    with service.tls.wrap_socket(socket.create_connection(("127.0.0.1", service.port), 5), server_hostname="127.0.0.1") as s:
        s.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose\r\n{header}\r\n\r\n".encode() + body + SMUGGLED)
        answer = b""
        while part := s.recv(65536):
            answer += part
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.split(b" ")[1] in (b"400", b"501"), answer


def connect_tls(service):
    return service.tls.wrap_socket(socket.create_connection(("127.0.0.1", service.port), 5), server_hostname="127.0.0.1")


def resident(service):
    with open(f"/proc/{service.process.pid}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


UPGRADE = (b"GET /v1/agent HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) +
           b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: writeback.v1\r\n\r\n")


class RecordClient:
    """A client whose TLS records and TCP segments are in the test's hands."""

    def __init__(self, service, version):
        context = ssl.create_default_context(cafile=service.certificate)
        context.minimum_version = context.maximum_version = version
        self.read, self.written = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.socket = socket.create_connection(("127.0.0.1", service.port), 5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context.wrap_bio(self.read, self.written, server_hostname="127.0.0.1")
        while True:
            try:
                self.tls.do_handshake()
                break  # the last flight is still to be sent
            except ssl.SSLWantReadError:
                self.send(self.records())
                self.read.write(self.socket.recv(65536))

    def records(self, *parts):
        for part in parts:
            self.tls.write(part)
        return self.written.read()

    def send(self, *segments, pause=0.0):
        for segment in segments:
            self.socket.sendall(segment)
            time.sleep(pause)

    def answers(self, count):
        return self.read_until(lambda text: text.count(b"HTTP/1.1 ") >= count and text.endswith(b"\n"))

    def read_until(self, there):
        text = b""
        while not there(text):
            try:
                text += (part := self.tls.read(65536))
                assert part, text
            except ssl.SSLWantReadError:
                octets = self.socket.recv(65536)
                assert octets, text
                self.read.write(octets)
        return text


# Each gets the last flight of the handshake and the two halves of a request.
RECORDS = {
    "one after the other": (3, lambda c, last, a, b: c.send(last + c.records(a), c.records(b))),
    "both at once": (3, lambda c, last, a, b: c.send(last, c.records(a, b))),
    "with the handshake's end": (7, lambda c, last, a, b: c.send(last + c.records(a, b))),
    "after a pause": (31, lambda c, last, a, b: c.send(last, c.records(a), c.records(b), pause=0.02)),
    "half a record and a pause": (31, lambda c, last, a, b: c.send(last + (first := c.records(a))[:9], first[9:] + (second := c.records(b))[:-5], second[-5:], pause=0.02)),
    "byte for byte": (997, lambda c, last, a, b: c.send(last + c.records(*((a + b)[n:n + 1] for n in range(300)), (a + b)[300:]))),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_request_comes_in_several_records(service, version):
    """However a request is cut into records, and those into segments, it is read to its end."""
    asked = f"GET /v1/agents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n\r\n".encode()
    posted = f"POST /v1/operations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nContent-Type: application/json\r\nContent-Length: 30000\r\n\r\n".encode()
    for request, body, status in ((asked, b"", b"200"), (posted, b"{}" + b" " * 29998, b"400")):
        for step, send in RECORDS.values():
            for at in range(1, len(request) + 1, step):
                client = RecordClient(service, version)
                send(client, client.records(), request[:at], request[at:] + body)
                assert client.answers(1).startswith(b"HTTP/1.1 " + status), (at, status)
                client.socket.close()
    # The next request's first half comes with the one before.
    client = RecordClient(service, version)
    client.send(client.records(asked, asked[:30]), client.records(asked[30:]))
    assert client.answers(2).count(b"HTTP/1.1 200") == 2


def test_a_request_in_crumbs(tmp_path, monkeypatch):
    """One octet to a TLS record, and to a chunk: a stranger gets no thousandfold of it. What is no such request lives on."""
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64")  # a sanitizer keeps what was freed
    service = Service(tmp_path)
    before = resident(service)
    clients = [RecordClient(service, ssl.TLSVersion.TLSv1_3) for _ in range(4)]
    for client in clients:
        client.send(client.records(b"POST /v1/operations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"))
        with contextlib.suppress(ConnectionError):
            for _ in range(80):
                client.send(client.records(*[b"1" + b" " * 60 + b"\r\n", b" ", b"\r\n"] * 250))
            while client.socket.recv(65536):
                pass
    assert resident(service) - before < (16 << 10) * lab_module.SLOWNESS
    # Each octet of many a request, on one connection.
    client = RecordClient(service, ssl.TLSVersion.TLSv1_3)
    for _ in range(20):
        client.send(client.records(*(bytes([octet]) for octet in b"GET /x HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 250 + b"\r\n\r\n")))
        assert client.read_until(lambda text: text.endswith(b"}\n")).startswith(b"HTTP/1.1 404 ")
    # And of a WebSocket's message.
    client.send(client.records(UPGRADE, b"\x81\xfe" + (5000).to_bytes(2) + bytes(4), *[b"x"] * 5000))
    client.read_until(lambda text: text.endswith(b"wb-hello+jwt was expected"))
    for c in (client, *clients):
        c.socket.close()
    service.stop()
    assert service.log_text().count("a request in crumbs") == 4


def test_slow_strangers_are_cut(tmp_path):
    """A chunk's size without end, a header a byte at a time, a TCP connection that says nothing, one that does not greet: none stays, none fills the memory."""
    service = Service(tmp_path, "diagnostics:\n  request_deadline: 4s\n  greeting_deadline: 2s\n")
    started, before = time.time(), resident(service)
    endless, slow, silent, ungreeted = connect_tls(service), connect_tls(service), socket.create_connection(("127.0.0.1", service.port)), connect_tls(service)
    ungreeted.sendall(UPGRADE)
    endless.sendall(b"POST /v1/agents HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose\r\nTransfer-Encoding: chunked\r\n\r\n")
    slow.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n")
    endless.settimeout(1)
    with pytest.raises(TimeoutError):
        for _ in range(64):
            endless.sendall(b"0" * (1 << 20))
    assert resident(service) - before < 8 << 10
    asked = time.time()
    assert service.http("GET", "/.well-known/writeback-configuration")[0] == 200 and time.time() - asked < 2
    ungreeted.settimeout(20)
    text = b""
    while part := ungreeted.recv(65536):
        text += part
    assert 1.9 < time.time() - started < 3.9 and text.endswith(b"the greeting took too long")
    cut = False
    while not cut and time.time() - started < 10:
        time.sleep(0.2)
        try:
            slow.sendall(b"a")
        except OSError:
            cut = True
    assert cut and 3.9 < time.time() - started < 8
    silent.settimeout(5)
    assert silent.recv(1) == b""
    with pytest.raises(OSError):
        endless.sendall(b"0")
        time.sleep(0.2)
        endless.sendall(b"0")
    for s in (endless, slow, silent, ungreeted):
        s.close()
    service.stop()


def test_a_waiting_caller_is_not_cut(tmp_path):
    """The time limit is one on requests, not on answers; behind an answer it begins anew."""
    async def main(service):
        agent = await Agent(service).connect()
        loop, caller = asyncio.get_running_loop(), connect_tls(service)
        body = json.dumps({"operation_id": str(uuid.uuid4()), "op": "reset", "sub_id": SUBJECT, "new_password": PASSWORD, "wait": 10}).encode()
        head = f"POST /v1/operations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await asyncio.sleep(1)
        caller.sendall(head + body)
        _, request = await agent.request()
        await asyncio.sleep(1.5)  # 2.5 s behind the accept
        await agent.answer(request)
        caller.settimeout(5)
        answer = b""
        while not answer.endswith(b"}\n"):
            answer += await loop.run_in_executor(None, caller.recv, 65536)
        assert b'"applied"' in answer
        caller.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 404 " in await loop.run_in_executor(None, caller.recv, 65536)
        caller.close()
        await agent.close()
    service = Service(tmp_path, "queue_wait: 300ms\ndiagnostics:\n  request_deadline: 2s\n")
    run(main(service))
    service.stop()


def test_strangers_keep_no_agent_out(tmp_path):
    async def main(service):
        agent = Agent(service)
        strangers = [connect_tls(service) for _ in range(12)]
        for stranger in strangers:
            stranger.sendall(UPGRADE)
            assert stranger.recv(65536).startswith(b"HTTP/1.1 101 ")
        await agent.connect()
        for stranger in strangers[:8]:
            stranger.settimeout(5)
            text = b""
            while part := stranger.recv(65536):
                text += part
            assert text.endswith(b"too many connections that do not greet")
        for stranger in strangers:
            stranger.close()
        # Nor do those who use up the enrolments that may be refused.
        other = Agent(service, False)
        assert any(service.post_enrollment("x")[0] == 429 for _ in range(int(35 * lab_module.SLOWNESS)))
        assert service.post_enrollment(other.enrollment("wbt_" + b64(os.urandom(32)) + "." + service.init["root_key"]))[0] == 429
        ticket = service.command("ticket").strip()
        deadline = time.time() + 5
        while (status := service.post_enrollment(other.enrollment(ticket))[0]) == 429:  # until the service has seen it in the store
            assert time.time() < deadline
            await asyncio.sleep(0.1)
        assert status == 201
        await agent.close()
    service = Service(tmp_path, "limits:\n  agents: 2\n")
    run(main(service))
    service.stop()


def test_no_descriptors(service):
    """Where no connection can be accepted the loop does not spin, and goes on when there are descriptors again."""
    def cpu():
        with open(f"/proc/{service.process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    soft, hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
    open_files = len(os.listdir(f"/proc/{service.process.pid}/fd"))
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (open_files + 4, hard))
    idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(12)]
    before, size = cpu(), len(service.log_text())
    time.sleep(2)
    assert cpu() - before < 0.5 and 1 <= service.log_text().count("http.accept_failed") <= 4 and len(service.log_text()) - size < 2000
    for s in idle:
        s.close()
    assert service.http("GET", "/.well-known/writeback-configuration")[0] == 200
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("members", [{"op": "format"}, {"op": "change"}, {"op": "verify"}, {"op": "verify", "old_password": OLD}, {"op": "verify", "new_password": None},
                                     {"op": "lookup"}, {"op": "policy", "new_password": None, "old_password": OLD}, {"op": "lookup", "new_password": None, "secrets": {"x": "y"}}, {"old_password": OLD},
                                     {"op": "change", "old_password": ""}, {"op": "unlock", "new_password": None, "must_change": True},
                                     {"op": "change", "old_password": OLD, "must_change": True}, {"operation_id": "x"}, {"sub_id": {"format": "userPrincipalName"}}, {"sub_id": None}, {"new_password": None},
                                     {"new_password": ""}, {"new_password": "x" * 257}, {"new_password": 7}, {"wait": 21}, {"wait": "1"}, {"must_change": 1}, {"extra": 1},
                                     {"op": "unlock"}, {"actor": {"type": "administrator"}}, {"actor": {"type": "king", "id": "x"}},
                                     {"actor": {"type": "administrator", "id": "x\u0007"}}, {"actor": {"type": "self", "id": "x"}}, {"directory": ""}, {"secrets": {}}])
def test_malformed_questions(service, members):
    status, problem = service.ask(**members)
    assert status == 400 and problem["code"] in ("request.invalid", "request.unsupported") and service.headers["Content-Type"] == "application/problem+json"


def test_other_http(service):
    assert service.http("POST", "/v1/operations", b'{"op":"reset","op":"check"}')[0] == 400
    assert service.http("POST", "/v1/operations", b"[]")[0] == 400
    assert service.http("POST", "/v1/operations", b"{}", headers={"Content-Type": "text/plain"})[0] == 415
    assert service.http("PUT", "/v1/agents", b"{}")[0] == 405 and service.headers["Allow"] == "POST, GET"
    assert service.http("GET", f"/v1/operations/{uuid.uuid4()}")[0] == 404
    assert service.http("DELETE", f"/v1/agents/{uuid.uuid4()}")[0] == 404
    assert service.http("GET", "/v1/agent")[0] == 426
    upgrade = "GET /v1/agent HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Version: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n"
    good = base64.b64encode(bytes(16)).decode()
    assert service.raw(upgrade.format(good, 13, "a, writeback.v1").encode()).startswith(b"HTTP/1.1 101 ")
    assert service.raw(upgrade.format(good, 12, "writeback.v1").encode()).startswith(b"HTTP/1.1 426 ")
    assert service.raw(upgrade.format("short", 13, "writeback.v1").encode()).startswith(b"HTTP/1.1 400 ")
    assert service.raw(upgrade.format(good, 13, "writeback.v2").encode()).startswith(b"HTTP/1.1 400 ")
    assert b" 413 " in service.raw(b"POST /v1/operations HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n")[:20]  # evhttp's own page


@pytest.mark.parametrize("claims, code", [({"nonce": b64(bytes(32))}, 1008), ({"aud": "https://other.example.test"}, 1008), ({"version": 2}, 4002), ({"iat": 1700000000}, 4005),
                                          ({"decryption_key": b64(bytes(32))}, 1008), ({"iss": str(uuid.uuid4())}, 4001), ({"key": new_key()}, 1008)])
def test_refused_hello(service, agent, claims, code):
    async def main():
        await agent.open()
        await agent.hello(**claims)
        await agent.closed(code)
        if code == 4005:
            assert abs(int(agent.ws.close_reason) - time.time()) < 5
    run(main())


def test_revocation(service):
    async def main():
        agent = await Agent(service).connect()
        service.command("revoke", agent.id)
        await agent.closed(4001)
        await agent.open()
        await agent.hello()
        await agent.closed(4001)
        agent = await Agent(service).connect()
        assert service.http("DELETE", f"/v1/agents/{agent.id}") == (204, b"")
        await agent.closed(4001)
        assert service.http("DELETE", f"/v1/agents/{agent.id}")[0] == 404
    run(main())


@pytest.mark.parametrize("standing", [True, False])
@pytest.mark.parametrize("change", ["lower boot", "other instance"])
def test_clone(service, agent, change, standing):
    async def main():
        agent.boot = 5
        await agent.connect()
        first = agent.ws
        if not standing:
            await agent.close()
        if change == "lower boot":
            agent.boot = 4
        else:
            agent.instance = str(uuid.uuid4())
        await agent.open()
        await agent.hello()
        await agent.closed(4003)
        await asyncio.wait_for(first.wait_closed(), 5)
        assert first.close_code == (4003 if standing else 1000)
        # Nobody is let in by raising its boot, until a person decides.
        agent.boot = 9
        await agent.open()
        await agent.hello()
        await agent.closed(4003)
        def seen():  # written behind the closing
            return next(a for a in json.loads(service.command("agents", "--json")) if a["agent_id"] == agent.id)["clone_seen_at"]
        recorded = time.time() + 5
        while not seen():
            assert time.time() < recorded
            await asyncio.sleep(0.02)
        assert abs(seen() - time.time()) < 10 and "CLONE SEEN" in service.command("agents")
        service.command("release", agent.id)
        service.command("release", agent.id, code=65)
        released = time.time() + 5
        while f"agent.released agent_id={agent.id}" not in service.log_text():
            assert time.time() < released
            await asyncio.sleep(0.02)
        agent.boot = 1
        await agent.connect()
        await agent.close()
    run(main())


def test_who_is_turned_away_again_and_again(tmp_path):
    """A line for each reason, not for each try; strangers have lines of their own; what was let in meanwhile is news again."""
    async def main(service):
        agent, other = Agent(service), Agent(service, name="other")

        async def turned_away(agent, code, **claims):
            await agent.open()
            await agent.hello(**claims)
            await agent.closed(code)

        async def said(agent, *expected):
            def lines():
                return [line.split("closed with ")[1] for line in service.log_text().splitlines() if f"claims={agent.id} " in line]
            until = time.monotonic() + 5  # lines are written behind what they tell
            while lines() != list(expected):
                assert time.monotonic() < until, lines()
                await asyncio.sleep(0.02)

        agent.boot = 5
        await agent.connect()
        await agent.close()
        for _ in range(3):
            await turned_away(agent, 4003, boot=4)
        first, second = "4003: another instance of this agent was connected", "4003: a clone of this agent was seen; an administrator of the service must decide"
        await said(agent, first, second)
        for _ in range(2):
            await turned_away(agent, 1008, key=new_key())
        await said(agent, first, second, "1008: kid")
        for _ in range(5):
            await turned_away(agent, 4001, iss=str(uuid.uuid4()))
        service.command("release", agent.id)
        while f"agent.released agent_id={agent.id}" not in service.log_text():
            await asyncio.sleep(0.02)
        await agent.connect(boot=6)
        await agent.close()
        for _ in range(2):
            await turned_away(agent, 4003, boot=5)
        await said(agent, first, second, "1008: kid", first, second)
        service.http("DELETE", f"/v1/agents/{other.id}")
        for _ in range(3):
            await turned_away(other, 4001)
        await said(other, "4001: unknown or revoked")
    service = Service(tmp_path)
    run(main(service))
    service.stop()
    assert service.log_text().count("closed with 4001: unknown or revoked") == 2  # to the other one, and to whom nobody knows


def test_clone_is_remembered(tmp_path):
    async def main(service):
        agent = Agent(service)
        agent.boot = 5
        await agent.connect()
        recorded = time.time() + 5
        while not json.loads(service.command("agents", "--json"))[0]["connected"]:  # written behind the welcome
            assert time.time() < recorded
            await asyncio.sleep(0.02)
        service.stop(signal.SIGKILL)
        service.start()
        agent.boot = 4
        await agent.open()
        await agent.hello()
        await agent.closed(4003)
        service.stop()
        service.start()
        agent.boot = 6
        await agent.open()
        await agent.hello()
        await agent.closed(4003)
    service = Service(tmp_path)
    run(main(service))
    service.stop()


@contextlib.contextmanager
def store_held(service):
    """Nothing becomes durable at the service."""
    with contextlib.closing(sqlite3.connect(service.path("state/store.sqlite"), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


async def is_not_welcomed(agent, seconds=0.4):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(agent.ws.recv(), seconds)


def test_a_boot_is_recorded_before_the_welcome(tmp_path):
    """kill -9 behind a welcome: the service knows the boot that it has let in. kill -9 before it: nobody was let in by it."""
    async def main(service):
        agent = Agent(service)
        for boot in range(1, 6):
            await agent.connect(boot=boot)
            service.stop(signal.SIGKILL)
            with contextlib.closing(sqlite3.connect(service.path("state/store.sqlite"))) as db:
                assert db.execute("SELECT boot, instance_id FROM agents").fetchall() == [(boot, agent.instance)]
            service.start()
        # Another copy, as high as the one before the kill.
        await agent.open()
        await agent.hello(boot=5, instance_id=str(uuid.uuid4()))
        await agent.closed(4003)
        service.command("release", agent.id)
        await asyncio.sleep(0.7)  # the service looks twice a second
        with store_held(service):
            await agent.open()
            await agent.hello(boot=9)
            await is_not_welcomed(agent)
            service.stop(signal.SIGKILL)
        service.start()
        await agent.connect(boot=6)  # 9 was never let in
        await agent.close()
    service = Service(tmp_path)
    run(main(service))
    service.stop()


def test_several_hellos_before_the_first_welcome(service, agent):
    async def main():
        agents = [agent] + [copy.copy(agent) for _ in range(4)]
        await agent.connect(boot=3)
        with store_held(service):
            for one in agents[1:3]:
                await one.open()
            await agents[1].hello(boot=4)
            await is_not_welcomed(agents[1])
            await agents[2].hello(boot=5)
            await agents[1].closed(1001)  # superseded; the one that stands goes on until the next is welcomed
            await agents[3].open()
            await agents[3].hello(boot=6)
            await agents[2].closed(1001)
            await agents[3].ws.send("x")
            await agents[3].closed(1008)  # nothing before the welcome
            await agents[4].open()
            await agents[4].hello(boot=7)
            assert agent.ws.open
        await agents[4].receive("wb-welcome+jwt")
        await agent.closed(1001)
        # Two instances, of which the first is not welcomed yet: both are stopped.
        with store_held(service):
            for one in agents[1:3]:
                await one.open()
            await agents[1].hello(boot=8)
            await is_not_welcomed(agents[1], 0.1)
            await agents[2].hello(boot=8, instance_id=str(uuid.uuid4()))
            for one in (agents[1], agents[2], agents[4]):
                await one.closed(4003)
    run(main())


def test_a_welcome_that_cannot_be_recorded_in_time(tmp_path):
    """The greeting has its time, whatever it waits for."""
    async def main(service):
        agent = Agent(service)
        with store_held(service):
            await agent.open()
            await agent.hello()
            await agent.closed(1008)
        await agent.connect()
        await agent.close()
    service = Service(tmp_path, "diagnostics:\n  greeting_deadline: 1s\n")
    run(main(service))
    service.stop()


def test_oversize_and_binary(service, agent):
    async def main():
        await agent.connect()
        await agent.ws.send("x" * 65537)
        await agent.closed(1009)
        await agent.connect()
        await agent.ws.send(b"binary")
        await agent.closed(1003)
    run(main())


def test_restart(service, agent):
    async def main():
        await agent.connect()
        operation_id = str(uuid.uuid4())
        status, _ = await service.ask_later(operation_id=operation_id, wait=0)
        assert status == 202
        first, _ = await agent.request()
        service.stop(signal.SIGKILL)
        service.start()
        await agent.connect()
        second, request = await agent.request()
        assert first == second
        assert service.http("GET", f"/v1/operations/{operation_id}")[1]["status"] == "pending"
        await agent.answer(request)
        assert service.http("GET", f"/v1/operations/{operation_id}")[1]["code"] == "ok"
        # A stop tells the agent and waits for what it owes.
        asked = asyncio.ensure_future(service.ask_later())
        _, request = await agent.request()
        service.process.send_signal(signal.SIGTERM)
        assert (await agent.receive("wb-drain+jwt"))[1]["aud"] == agent.id
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        await agent.closed(1001)
        assert service.process.wait(10) == 0, service.log_text()[-6000:]
        service.process.stdout.close()
        service.log.close()
        service.start()
    run(main())


def test_restart_without_the_agents_keys(tmp_path):
    async def main(service):
        agent = await Agent(service).connect()
        operation_id = str(uuid.uuid4())
        await service.ask_later(operation_id=operation_id, wait=0)
        await agent.request()
        service.stop(signal.SIGKILL)
        with contextlib.closing(sqlite3.connect(service.path("state/store.sqlite"), isolation_level=None)) as db:
            db.execute("UPDATE agents SET signing_key = '{}'")
        service.start()
        assert service.http("GET", f"/v1/operations/{operation_id}")[1]["code"] == "service.no_answer"
        assert (await service.ask_later(operation_id=operation_id))[1]["status"] == "unknown"
    service = Service(tmp_path)
    run(main(service))
    service.stop()


def test_a_place_that_comes_free_is_used(tmp_path):
    async def main(service):
        agent = Agent(service)
        agent.max_in_flight = 1
        await agent.connect()
        ids = [str(uuid.uuid4()) for _ in range(2)]
        await service.ask_later(operation_id=ids[0], wait=0)
        assert (await agent.request())[1]["operation_id"] == ids[0]
        await asyncio.sleep(1)
        asked = asyncio.ensure_future(service.ask_later(operation_id=ids[1]))
        _, request = await agent.request()  # the first has become service.no_answer
        assert request["operation_id"] == ids[1]
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok" and service.http("GET", f"/v1/operations/{ids[0]}")[1]["code"] == "service.no_answer"
        await agent.close()
    service = Service(tmp_path, "queue_wait: 10s\ndiagnostics:\n  no_answer_after: 2s\n")
    run(main(service))
    service.stop()


def test_flood_of_messages(service, agent):
    async def main():
        await agent.connect()
        message = sign(agent.signing, "wb-news+jwt", {"iss": agent.id})
        with contextlib.suppress(websockets.ConnectionClosed):
            for _ in range(30000):
                await agent.ws.send(message)
        await asyncio.wait_for(agent.ws.wait_closed(), 15 * lab_module.SLOWNESS)
        assert agent.ws.close_code in (4004, *([1006] if lab_module.SLOWNESS > 1 else []))  # too slow to read all that comes behind its close frame
        assert service.log_text().count(f"message.ignored agent_id={agent.id}") == 5
        await agent.connect()
        await agent.close()
    run(main())


def test_what_no_restart_heals(tmp_path):
    """Exit statuses that its unit does not restart, and a sentence with the cure."""
    service = Service(tmp_path)
    root, store = service.path("state/root.jwk"), service.path("state/store.sqlite")
    os.rename(root, service.path("safe.jwk"))
    refused = subprocess.run([BINARY, "rotate-keys", "--config", service.path("c.yaml")], stderr=subprocess.PIPE, text=True, timeout=20)
    assert refused.returncode == 78 and "--root FILE" in refused.stderr
    refused = subprocess.run([BINARY, "rotate-keys", "--root", root, "--config", service.path("c.yaml")], stderr=subprocess.PIPE, text=True, timeout=20)
    assert refused.returncode == 71 and "No such file" in refused.stderr
    service.command("rotate-keys", "--root", service.path("safe.jwk"))
    service.stop()

    def served():
        return subprocess.run([BINARY, "serve", "--config", service.path("c.yaml"), "--log-format", "text"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=20)
    os.chmod(store, 0o644)
    assert served().returncode == 77
    os.chmod(store, 0o600)
    with open(store, "r+b") as file:
        file.write(b"not a database at all")
    done = served()
    assert done.returncode == 65 and "is damaged" in done.stderr and done.stderr.count("service.failed") == 1
    service.command("agents", code=65)


def test_a_message_of_an_unknown_type(service, agent):
    """Ignored where the agent has signed it; from anybody else no message at all."""
    async def main():
        await agent.connect()
        await agent.ws.send(sign(agent.signing, "wb-news+jwt", {"iss": agent.id}))
        asked = asyncio.ensure_future(service.ask_later())
        await agent.answer((await agent.request())[1])
        assert (await asked)[1]["code"] == "ok"
        for forged in (sign(new_key(), "wb-news+jwt", {"iss": agent.id}), sign(agent.signing, "wb-news+jwt", {"iss": agent.id})[:-6] + "AAAAAA",
                       sign(new_key(), "wb-news+jwt", {"iss": agent.id}, kid=agent.signing.thumbprint())):
            await agent.ws.send(forged)
            await agent.closed(1008)
            await agent.connect()
        await agent.close()
    run(main())


def test_a_reload(tmp_path):
    """SIGHUP takes what is marked in the sample; a bad file changes nothing and the log says why."""

    def reload(service, text, event):
        with open(service.path("c.yaml"), encoding="utf-8") as f:
            head = f.read().split("queue_wait:")[0]
        with open(service.path("c.yaml"), "w", encoding="utf-8") as f:
            f.write(head + text)
        before = service.log_text().count(event)
        service.process.send_signal(signal.SIGHUP)
        deadline = time.time() + 5
        while service.log_text().count(event) == before or service.log_text().count("keys.loaded") < reload.count:
            assert time.time() < deadline, service.log_text()[-2000:]
            time.sleep(0.02)
        reload.count += 1
    reload.count = 1

    def answers(service, count=8):
        return [service.http("GET", "/v1/agents")[0] for _ in range(count)]
    service = Service(tmp_path)
    assert set(answers(service)) == {200}
    reload(service, "queue_wait: 300ms\nlimits:\n  api_requests: 1\n", "config.loaded")
    # By one key; another one has its own.
    assert answers(service)[:2] == [200, 200]
    status, problem = next(answer for answer in (service.http("GET", "/v1/agents") for _ in range(8)) if answer[0] == 429)
    assert problem["status"] == 429 and 1 <= int(service.headers["Retry-After"]) <= 2
    other = json.loads(service.command("api-key", "add", "others", "--json"))["api_key"]
    assert service.http("GET", "/v1/agents", key=other)[0] == 200
    time.sleep(1.05)
    assert service.http("GET", "/v1/agents")[0] == 200
    for bad, why in (("queue_wait: 300ms\nlimits:\n  api_requests: many\n", "c.yaml:9: "), ("queue_wait: 300ms\nlimit: 1\n", "c.yaml:8: ")):
        reload(service, bad, "config.refused")
        assert why in service.log_text() and 429 in answers(service)
    reload(service, "queue_wait: 300ms\nlimits:\n  api_requests: 0\n  connections: 77\n", "config.loaded")
    assert "need a restart: limits.connections" in service.log_text() and set(answers(service)) == {200}
    # Where there is no file any more, nothing changes either.
    os.rename(service.path("c.yaml"), service.path("away.yaml"))
    service.process.send_signal(signal.SIGHUP)
    deadline = time.time() + 5
    while service.log_text().count("config.refused") < 3:
        assert time.time() < deadline
        time.sleep(0.02)
    assert set(answers(service)) == {200}
    service.stop()


def test_new_keys(service, agent):
    async def main():
        await agent.connect()
        service.command("rotate-keys")
        service.process.send_signal(signal.SIGHUP)
        text = await asyncio.wait_for(agent.ws.recv(), 5)
        header, claims = peek(text)
        assert header["typ"] == "wb-keys+jwt" and claims["version"] >= 2 and len(claims["keys"]) >= 2
        agent.service_keys = {k["kid"]: jwk.JWK(**k) for k in claims["keys"]}
        asked = asyncio.ensure_future(service.ask_later())
        text, request = await agent.request()
        assert peek(text)[0]["kid"] == claims["keys"][0]["kid"]
        await agent.answer(request)
        assert (await asked)[1]["code"] == "ok"
        await agent.close()
    run(main())


def test_limits(tmp_path):
    async def main(service):
        agents = [Agent(service, name=f"agent {n}") for n in range(2)]
        await agents[0].connect()
        await agents[1].open()
        await agents[1].hello()
        await agents[1].closed(1013)
        # Two operations are open: a third is not taken in, and may be asked again.
        ids = [str(uuid.uuid4()) for _ in range(3)]
        for operation_id in ids[:2]:
            assert (await service.ask_later(operation_id=operation_id, wait=0))[0] == 202
        status, problem = await service.ask_later(operation_id=ids[2], wait=0)
        assert status == 503 and problem["code"] == "service.overloaded" and service.headers["Retry-After"]
        assert service.http("GET", f"/v1/operations/{ids[2]}")[0] == 404
        for request in [(await agents[0].request())[1] for _ in range(2)]:
            await agents[0].answer(request)
        assert (await service.ask_later(operation_id=ids[2], wait=0))[0] == 202
        await agents[0].answer((await agents[0].request())[1])
        # Four connections, the agent's included; the next waits until one ends.
        idle = [service.tls.wrap_socket(socket.create_connection(("127.0.0.1", service.port), 5), server_hostname="127.0.0.1") for _ in range(3)]
        waiting = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(None, service.http, "GET", "/v1/agents"))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        idle.pop().close()
        assert (await asyncio.wait_for(waiting, 5))[0] == 200
        for s in idle:
            s.close()
        await agents[0].close()
    service = Service(tmp_path, "limits:\n  agents: 1\n  connections: 4\n  operations_in_flight: 2\n")
    run(main(service))
    service.stop()


def test_command_line(service):
    assert subprocess.run([BINARY], stderr=subprocess.DEVNULL).returncode == 64
    assert subprocess.run([BINARY, "agents", "--config", "/nonexistent"], stderr=subprocess.DEVNULL).returncode == 78
    service.command("serve", "--check-config")
    service.command("init", code=65)  # never over existing keys
    assert "queue_wait" in service.command("serve", "--dump-config")
    service.command("revoke", str(uuid.uuid4()), code=65)
    shown = subprocess.run([BINARY, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "Exit codes:" in shown.stdout and "becomes the user" in shown.stdout


@pytest.mark.parametrize("words, said", [(["dance"], "no command 'dance'"), (["ticket", "--ttl", "15"], "--ttl 15: it should be 1s to 24h with a unit, e.g. 15min"),
                                         (["ticket", "--ttl", "25h"], "1s to 24h"), (["operations", "--limit", "0"], "--limit 0: "), (["serve", "--log-format", "xml"], "--log-format xml: "),
                                         (["revoke", "nope"], "'nope' is no id of an agent"), (["revoke"], "the id of the agent is missing"), (["operation", "nope"], "'nope' is no id of an operation"),
                                         (["agents", "x"], "'agents' takes no argument"), (["api-key", "make"], "'make' is nothing"), (["api-key", "add"], "name of the API key is missing")])
def test_wrong_command_lines_are_explained(service, words, said):
    done = subprocess.run([BINARY, *words, "--config", service.path("c.yaml")], capture_output=True, text=True, timeout=20)
    assert done.returncode == 64 and done.stdout == "" and done.stderr.startswith("reset-service: ") and said in done.stderr.split("\n")[0], done
    assert len(done.stderr.split("\n")) <= 4


def test_texts_for_people(service):
    done = subprocess.run([BINARY, "ticket", "--ttl", "1h", "--config", service.path("c.yaml")], capture_output=True, text=True, timeout=20)
    assert len(done.stdout) == 92 and done.stderr.startswith("good for one agent, until 2") and "Z" in done.stderr

    async def main():
        agent = Agent(service)
        assert "never connected" in service.command("agents").split(agent.id)[1].split("signing key")[0]
        await agent.connect()
        await agent.close()
        deadline = time.time() + 5
        while "not connected   last seen " not in (text := service.command("agents").split(agent.id)[1].split("signing key")[0]):
            assert time.time() < deadline, text
            await asyncio.sleep(0.05)
        assert "ago" in text or "just now" in text
        service.http("DELETE", f"/v1/agents/{agent.id}")
    run(main())


def certificate(folder, name):
    key, pem = os.path.join(folder, name + ".key"), os.path.join(folder, name + ".crt")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=x", "-keyout", key, "-out", pem],
                   check=True, stderr=subprocess.DEVNULL)


def test_check_config_finds_what_the_start_refuses(tmp_path):
    """Each fault alone: with its line, from --check-config and from the start alike."""
    for name in ("tls", "other"):
        certificate(tmp_path, name)
    path, key, pem = tmp_path / "c.yaml", tmp_path / "tls.key", tmp_path / "tls.crt"
    good = ["issuer: https://reset.example.test", "listen: 127.0.0.1:0", "tls:", "  certificate_file: tls.crt", "  key_file: tls.key", "state_directory: state"]

    def check(lines, line=0, *words):
        path.write_text("\n".join(lines) + "\n")
        done = subprocess.run([BINARY, "serve", "--check-config", "--config", path], capture_output=True, text=True, timeout=20)
        assert done.returncode == (78 if line else 0), (lines, done)
        if line:
            assert done.stderr.startswith(f"{path}:{line}: ") and all(word in done.stderr for word in words), done.stderr
            started = subprocess.run([BINARY, "serve", "--config", path], capture_output=True, text=True, timeout=20)
            assert (started.returncode, started.stderr) == (78, done.stderr)

    check(good)
    for index, text, *words in [(0, "issuer: https://reset.example.test/", "slash"), (0, "issuer: https://reset.example.test/base", "path"), (0, "issuer: http://reset.example.test", "https://"),
                                (1, "listen: 8443", "address:port"), (1, "listen: 256.1.1.1:8443", "address:port"), (1, "listen: no-such-host.invalid:8443", "no-such-host.invalid"),
                                (3, "  certificate_file: missing.crt", "missing.crt does not exist"), (3, "  certificate_file: c.yaml", "PEM"), (3, "  certificate_file: .", "no file"),
                                (4, "  key_file: missing.key", "missing.key does not exist"), (4, "  key_file: other.key", "other.key"), (4, "  key_file: empty.key", "empty.key")]:
        (tmp_path / "empty.key").touch(0o600)
        check([*good[:index], text, *good[index + 1:]], index + 1, *words)
    for url in ("wss://", "ws://x/v1/agent", "wss://x:0/"):
        check([*good, "channel_endpoints:", f"  - {url}"], 7, repr(url)[:-1])
    for mode, fine in [(0o600, True), (0o640, True), (0o644, False), (0o660, False), (0o604, False)]:
        key.chmod(mode)
        check(good, *(() if fine else (5, f"{key} has mode {mode:04o}", "0640", "root:reset-service", "0600")))
    pem.unlink()
    done = subprocess.run([BINARY, "serve", "--check-config", "--config", path], capture_output=True, text=True, timeout=20)
    assert done.stderr.count("\n") == 2 and f"{path}:4: " in done.stderr and f"{path}:5: " in done.stderr  # both at once


def test_key_that_became_readable_is_refused_at_a_reload(tmp_path):
    service = Service(tmp_path)
    os.chmod(service.path("tls.key"), 0o644)
    service.process.send_signal(signal.SIGHUP)
    deadline = time.time() + 5
    while "tls.refused" not in service.log_text():
        assert time.time() < deadline
        time.sleep(0.02)
    assert "mode 0644" in service.log_text() and service.http("GET", "/.well-known/writeback-configuration")[0] == 200
    service.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(bool(os.environ.get("UNDER_SECCOMP")), reason="its unit never starts it as root")
def test_root_becomes_the_owner():
    """What root does with another user's folder leaves nothing behind that the user cannot use."""
    nobody, folder = pwd.getpwnam("nobody"), tempfile.mkdtemp(dir="/tmp")
    os.chmod(folder, 0o755)
    os.mkdir(os.path.join(folder, "state"), 0o700)
    os.chown(os.path.join(folder, "state"), nobody.pw_uid, nobody.pw_gid)

    class Owned(Service):
        def start(self):
            os.chown(self.path("tls.key"), 0, nobody.pw_gid)
            os.chmod(self.path("tls.key"), 0o640)
            os.chmod(self.certificate, 0o644)
            super().start()
    try:
        service = Owned(folder)
        with open(f"/proc/{service.process.pid}/status") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        assert status["Uid"].split() == [str(nobody.pw_uid)] * 4 and status["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert status["Groups"].split() in ([], [str(nobody.pw_gid)])
        agent = Agent(service)
        service.command("revoke", agent.id)
        service.command("rotate-keys")
        service.stop()
        files = os.listdir(service.path("state"))
        assert {"store.sqlite", "root.jwk", "signing.jwk", "key-set.jws", "root-public.jwk"} <= set(files)
        for name in files:
            facts = os.stat(os.path.join(folder, "state", name))
            assert (facts.st_uid, facts.st_gid) == (nobody.pw_uid, nobody.pw_gid), name
    finally:
        shutil.rmtree(folder)
