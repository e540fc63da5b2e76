"""Bad input, each with its stable code and nothing applied: a scripted service sends what no honest one would."""
import base64, json, time, uuid

import pytest
from jwcrypto import jwe, jwk, jws

import lab as lab_module
from lab import DOMAIN
from scripted_service import ScriptedService, example

USER, NEW = f"alice@{DOMAIN}", "Gr33n-Field-Harbour"


class Scripted:
    def __init__(self, build):
        self.lab = lab_module.Lab(build, "mock")
        self.lab.start_directory()
        self.service = ScriptedService(self.lab.folder + "/scripted")
        self.agent = lab_module.Agent(build, self.lab.folder + "/agent", self.lab.directory, self.service.endpoint, self.service.ca)
        self.lab.agent = self.agent
        self.agent.start()
        self.agent.enroll(self.service.issuer, self.service.ticket)
        lab_module.wait_for("the greeting", lambda: self.service.ws)

    def close(self):
        lab_module.stop_all([self.service.close, self.lab.close])


@pytest.fixture(scope="module")
def scripted(build):
    s = Scripted(build)
    yield s
    s.close()


@pytest.fixture(autouse=True)
def nothing_applied(request, scripted):
    before = scripted.lab.directory.password_record("alice")
    yield
    if "applies" not in request.keywords:
        assert scripted.lab.directory.password_record("alice") == before


def b64(value):
    return example.b64(value if isinstance(value, bytes) else json.dumps(value).encode())


def signed_with_header(service, header, claims):
    """A correct ES256 signature over whatever header."""
    head, body = b64(header), b64(claims)
    key = service.signing.get_op_key("sign")
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    r, s = utils.decode_dss_signature(key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
    return f"{head}.{body}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def good_header(service):
    return {"alg": "ES256", "kid": service.signing.thumbprint(), "typ": "wb-request+jwt"}


UNVERIFIABLE = {
    "wrong signature": lambda s, c: (lambda f: f[:-8] + ("AAAAAAAA" if f[-8:] != "AAAAAAAA" else "BBBBBBBB"))(s.sign("wb-request+jwt", c)),
    "unknown key": lambda s, c: s.sign("wb-request+jwt", c, jwk.JWK.generate(kty="EC", crv="P-256")),
    "signed by the root": lambda s, c: s.sign("wb-request+jwt", c, s.root),
    "alg none": lambda s, c: f'{b64({**good_header(s), "alg": "none"})}.{b64(c)}.',
    "HS256 keyed with the public key": lambda s, c: hs256(s, c),
    "jku": lambda s, c: signed_with_header(s, {**good_header(s), "jku": "https://evil.example/keys"}, c),
    "jwk": lambda s, c: signed_with_header(s, {**good_header(s), "jwk": example.public(s.signing)}, c),
    "zip": lambda s, c: signed_with_header(s, {**good_header(s), "zip": "DEF"}, c),
    "crit": lambda s, c: signed_with_header(s, {**good_header(s), "crit": ["exp"]}, c),
    "wrong typ": lambda s, c: s.sign("wb-result+jwt", c),
    "no kid": lambda s, c: signed_with_header(s, {"alg": "ES256", "typ": "wb-request+jwt"}, c),
    "padding": lambda s, c: s.sign("wb-request+jwt", c) + "=",
    "not a JWS": lambda s, c: "this is not a JWS",
    "two parts": lambda s, c: ".".join(s.sign("wb-request+jwt", c).split(".")[:2]),
}


def hs256(service, claims):
    token = jws.JWS(json.dumps(claims))
    public = service.signing.export_to_pem()
    key = jwk.JWK(kty="oct", k=example.b64(public))
    token.add_signature(key, None, json.dumps({**good_header(service), "alg": "HS256"}))
    return token.serialize(compact=True)


@pytest.mark.parametrize("name", UNVERIFIABLE)
def test_unverifiable(scripted, name):
    s = scripted.service
    time.sleep(0.12)  # the answers to unverifiable frames are limited to ten a second: stay below, to see each
    answer = s.ask_by_frame(UNVERIFIABLE[name](s, s.claims(USER, new_password=NEW)))
    assert (answer["status"], answer["code"]) == ("refused", "request.signature")
    assert answer["reason"] and "request_id" not in answer


def other_secret(s, c, **other):
    return example.encrypt(s.agents[s.agent_id][1], {"operation_id": c["operation_id"], "op": c["op"], "sub_id": c["sub_id"], "new_password": NEW, **other})


def changed(**members):
    return lambda s, c: {**c, **members}


SIGNED = {
    "wrong audience": ("request.audience", changed(aud=str(uuid.uuid4()))),
    "two audiences": ("request.audience", lambda s, c: {**c, "aud": [c["aud"], str(uuid.uuid4())]}),
    "one audience in an array": ("request.audience", lambda s, c: {**c, "aud": [c["aud"]]}),
    "wrong issuer": ("request.audience", changed(iss="https://elsewhere.example")),
    "expired": ("request.expired", lambda s, c: {**c, "iat": c["iat"] - 60, "exp": c["iat"] - 1}),
    "from the future": ("request.not_yet_valid", lambda s, c: {**c, "iat": c["iat"] + 120, "exp": c["iat"] + 150}),
    "lives too long": ("request.invalid", lambda s, c: {**c, "exp": c["iat"] + 3600}),
    "unknown member": ("request.invalid", changed(colour="green")),
    "unknown operation": ("request.unsupported", lambda s, c: {**c, "op": "delete"}),
    "operation that is off": ("request.unsupported", lambda s, c: {**c, "op": "verify"}),
    "no secret": ("request.invalid", lambda s, c: {k: v for k, v in c.items() if k != "secret"}),
    "sub_id of an unknown format": ("request.invalid", changed(sub_id={"format": "email", "id": USER})),
    "boolean as text": ("request.invalid", changed(must_change="true")),
    "policy switched off by message": ("request.unsupported", changed(enforce_policy=False)),
    "secret of another operation": ("request.secret_mismatch", lambda s, c: {**c, "secret": other_secret(s, c, operation_id=str(uuid.uuid4()))}),
    "secret of another user": ("request.secret_mismatch", lambda s, c: {**c, "secret": other_secret(s, c, sub_id={"format": "userPrincipalName", "id": f"bob@{DOMAIN}"})}),
    "secret of another op": ("request.secret_mismatch", lambda s, c: {**c, "secret": other_secret(s, c, op="check")}),
    "secret to another key": ("request.undecryptable", lambda s, c: {**c, "secret": example.encrypt(jwk.JWK.generate(kty="EC", crv="P-256"), {})}),
    "secret cut short": ("request.undecryptable", lambda s, c: {**c, "secret": c["secret"][:-6]}),
    "secret with zip": ("request.undecryptable", lambda s, c: {**c, "secret": zipped(s, c)}),
    "unpaired surrogate": ("request.undecryptable", lambda s, c: {**c, "secret": other_secret(s, c, new_password="Xx-12345678\ud800")}),
    "NUL in the password": ("request.undecryptable", lambda s, c: {**c, "secret": other_secret(s, c, new_password="Xx-12345678\0")}),
    "empty password": ("request.undecryptable", lambda s, c: {**c, "secret": other_secret(s, c, new_password="")}),
    "change without an old password": ("request.undecryptable", lambda s, c: change_of(s, c)),
    "change with an empty old password": ("request.undecryptable", lambda s, c: change_of(s, c, old_password="")),
    "change that must be changed": ("request.invalid", lambda s, c: {**change_of(s, c, old_password="x"), "must_change": True}),
    "reset with an old password": ("request.undecryptable", lambda s, c: {**c, "secret": other_secret(s, c, old_password="x")}),
    "lookup with a secret": ("request.invalid", lambda s, c: {**c, "op": "lookup"}),
    "unknown user": ("user.not_found", None),
    "two users with one UPN": ("user.ambiguous", None),
}


def change_of(s, c, **members):
    c = {**c, "op": "change"}
    return {**c, "secret": s.secret(c, NEW, **members)}


def zipped(s, c):
    key = s.agents[s.agent_id][1]
    return jwe.JWE(b"{}" * 100, json.dumps({"alg": "ECDH-ES", "enc": "A256GCM", "kid": key.thumbprint(), "zip": "DEF"}), recipient=key).serialize(compact=True)


@pytest.mark.parametrize("name", SIGNED)
def test_signed_and_refused(scripted, name):
    s = scripted.service
    code, change = SIGNED[name]
    user = {"unknown user": f"nobody@{DOMAIN}", "two users with one UPN": f"twin@{DOMAIN}"}.get(name, USER)
    claims = s.claims(user, new_password=NEW)
    answer = s.ask(change(s, claims) if change else claims)
    assert answer["code"] == code
    assert answer["status"] in ("refused", "failed")


def test_unparsable_payload(scripted):
    s = scripted.service
    token = jws.JWS(b'{"jti": "')
    token.add_signature(s.signing, None, json.dumps(good_header(s)))
    s.send(token.serialize(compact=True))
    lab_module.wait_for("a refusal", lambda: any(r["code"] == "request.invalid" and not r.get("request_id") for r in s.results))


def test_a_repeated_member_is_refused(scripted):
    s = scripted.service
    claims = json.dumps(s.claims(USER, new_password=NEW))
    token = jws.JWS((claims[:-1] + ', "op": "unlock"}').encode())
    token.add_signature(s.signing, None, json.dumps(good_header(s)))
    before = len(s.results)
    s.send(token.serialize(compact=True))
    lab_module.wait_for("a refusal", lambda: any(r["code"] == "request.invalid" for r in s.results[before:]))


def test_a_frame_of_65_kib_closes_the_channel_and_it_comes_back(scripted):
    s = scripted.service
    before = len(s.closes)
    s.send("A" * (65 * 1024))
    lab_module.wait_for("the close", lambda: len(s.closes) > before)
    assert s.closes[before] == 1009
    lab_module.wait_for("the channel to come back", lambda: s.ws)


@pytest.mark.applies
def test_replays(scripted):
    """The same frame again is answered with the recorded outcome and applied once; the same id with other content is refused."""
    s, directory = scripted.service, scripted.lab.directory
    version, _ = directory.password_record("alice")
    claims = s.claims(USER, new_password=NEW)
    frame = s.sign("wb-request+jwt", claims)
    s.send(frame)
    first = s.result(claims["jti"])
    assert first["code"] == "ok"
    for _ in range(3):
        count = len(s.results)
        s.send(frame)
        lab_module.wait_for("the answer again", lambda: len(s.results) > count)
        assert {k: s.results[-1][k] for k in ("status", "code", "request_id")} == {k: first[k] for k in ("status", "code", "request_id")}
    refusal = s.ask_by_frame(s.sign("wb-request+jwt", {**claims, "exp": claims["exp"] + 1}))
    assert refusal["code"] == "request.replayed" and "request_id" not in refusal
    assert directory.password_record("alice")[0] == version + 1


def test_a_lookup_that_is_delivered_again(scripted):
    """An answer with more than a code in it is remembered whole."""
    s = scripted.service
    claims = s.claims(USER, op="lookup")
    frame = s.sign("wb-request+jwt", claims)
    s.send(frame)
    first = s.result(claims["jti"])
    assert first["code"] == "found" and first["account"]["sam_account_name"] == "alice"
    count = len(s.results)
    s.send(frame)
    lab_module.wait_for("the answer again", lambda: len(s.results) > count)
    assert s.results[-1]["account"] == first["account"] and s.results[-1]["request_id"] == claims["jti"]


@pytest.mark.applies
def test_a_result_is_repeated_until_it_is_acknowledged(scripted):
    s = scripted.service
    s.acknowledge = False
    claims = s.claims(f"bench050@{DOMAIN}", new_password=NEW)
    first = s.ask(claims)
    s.cut()
    count = len(s.results)
    lab_module.wait_for("the result again", lambda: any(r.get("request_id") == claims["jti"] for r in s.results[count:]), 20)
    assert first["code"] == "ok"
    s.acknowledge = True
    s.cut()
    lab_module.wait_for("the journal to be acknowledged", lambda: s.ws and scripted.agent.status()["journal"]["unacknowledged"] == 0, 20)
