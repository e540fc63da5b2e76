"""Frames that come to a service: enrolments, hellos and results, good ones and those that it must refuse."""

import hmac

from common import *

OTHER_SIGNING = Key("other agent signing", "ES256", "sig")
REVOKED_AGENT = "b3d1c9a0-5a52-4c57-9f0e-6a3f2f1d7e11"
REVOKED_SIGNING = Key("revoked agent signing", "ES256", "sig")
REVOKED_DECRYPTION = Key("revoked agent decryption", "ECDH-ES", "enc")
NEXT_SIGNING = Key("next agent signing", "ES256", "sig")
NEXT_DECRYPTION = Key("next agent decryption", "ECDH-ES", "enc")
SESSION, OTHER_SESSION = "f81d4fae-7dec-41d0-a765-00a0c91e6bf6", "f81d4fae-7dec-41d0-a765-00a0c91e6bf7"
NONCE, OTHER_NONCE, AGENT_NONCE = (b64(hashed(name)) for name in ("nonce", "another nonce", "agent nonce"))
TICKET = f"wbt_{NONCE}.{ROOT.kid}"
OTHER_ISSUERS = ("of another issuer", "https://other.example"), ("with a slash", ISSUER + "/"), ("of a path", ISSUER + "/v1"), ("of an array", [ISSUER])


def without(payload, member):
    return {name: value for name, value in payload.items() if name != member}


class Frames:
    """Rows of one file. `unknown_typ`: the reason where the typ is none of this version. `refusal`: members of each refused row that does not say others."""

    def __init__(self, typ, other_typ, good, unknown_typ="typ", **refusal):
        self.typ, self.other_typ, self.good, self.unknown_typ, self.refusal, self.rows = typ, other_typ, good, unknown_typ, refusal, []

    def accept(self, name, payload=None, frame=None, **more):
        frame = frame or jws(SIGNING, self.typ, payload or self.good)
        self.rows.append({"name": "accepted: " + name if name else "accepted", "now": NOW, "frame": frame, "accept": True, **more})

    def refuse(self, name, reason, frame, **more):
        self.rows.append({"name": name, "now": NOW, "frame": frame, "accept": False, "reason": reason, **self.refusal, **more})

    def member(self, name, member, value, **more):
        """Rightly signed, with another value of one member."""
        self.refuse(f"{member} {name}", member, jws(SIGNING, self.typ, {**self.good, member: value}), **more)

    def missing(self, *members):
        for member in members:
            self.refuse("without " + member, member, jws(SIGNING, self.typ, without(self.good, member)))

    def accept_signatures(self):
        self.accept("")
        self.accept("header in another order", frame=join({"typ": self.typ, "kid": SIGNING.kid, "alg": "ES256"}, self.good, es256(SIGNING)))
        self.accept("high s", frame=join(header_of(SIGNING, self.typ), self.good, high_s(SIGNING)))
        self.accept("a member of later", {**self.good, "later": {"a": [1]}})

    def refuse_signatures(self):
        right = header_of(SIGNING, self.typ)

        def forged(name, reason, header=right, signature=es256(SIGNING)):
            self.refuse(name, reason, join(header, self.good, signature))

        forged("signature of another key", "signature", signature=es256(STRANGER))
        forged("signature of another agent's key", "signature", signature=es256(OTHER_SIGNING))
        forged("signature of the service's key", "signature", signature=es256(SERVICE))
        forged("signature of zeros", "signature", signature=lambda text: bytes(64))
        forged("signature of 65 bytes", "signature", signature=lambda text: raw(*ecdsa(SIGNING.d, text)) + b"\0")
        forged("signature in DER", "signature", signature=lambda text: der(*ecdsa(SIGNING.d, text)))
        forged("no signature", "signature", signature=lambda text: b"")
        header, payload, signature = jws(SIGNING, self.typ, self.good).split(".")
        other = b64(compact({**self.good, "iat": self.good["iat"] - 1}).encode())
        self.refuse("signature of another payload", "signature", ".".join([header, other, signature]))
        forged("kid of another key", "kid", {**right, "kid": STRANGER.kid})
        forged("kid as a path", "kid", {**right, "kid": "../../etc/passwd"})
        for name, key in ("another key", STRANGER), ("another agent's key", OTHER_SIGNING), ("the service's key", SERVICE), ("the root", ROOT):
            self.refuse(f"signed by {name}", "kid", jws(key, self.typ, self.good))
        forged("alg none", "alg", {**right, "alg": "none"}, lambda text: b"")
        forged("alg none with signature", "alg", {**right, "alg": "none"})
        public = compact({m: SIGNING.public[m] for m in ("crv", "kty", "x", "y")}).encode()
        forged("HS256 keyed with the public key", "alg", {**right, "alg": "HS256"}, lambda text: hmac.digest(public, text, "sha256"))
        forged("alg ES384", "alg", {**right, "alg": "ES384"})
        for member, value in (("jwk", STRANGER.public), ("jku", "http://127.0.0.1:1/keys"), ("x5u", "http://127.0.0.1:1/cert"), ("x5c", ["MAA="]), ("crit", ["exp"]),
                              ("b64", False), ("zip", "DEF"), ("cty", "JWT"), ("nonce", NONCE)):
            forged(f"header with {member}", "header", {**right, member: value}, es256(STRANGER if member == "jwk" else SIGNING))
        for member in right:
            forged(f"header without {member}", "header", without(right, member))
        forged("jwk instead of kid", "header", {**without(right, "kid"), "jwk": SIGNING.public})
        forged("duplicate header member", "header", compact(right)[:-1] + ',"alg":"ES256"}')
        for typ in self.other_typ, "wb-request+jwt", "JWT":
            forged(f"typ {typ}", self.unknown_typ if typ == "JWT" else "typ", {**right, "typ": typ})
        self.refuse("padding in the signature", "base64url", ".".join([header, payload, signature]) + "==")
        self.refuse("line feed behind the frame", "base64url", ".".join([header, payload, signature]) + "\n")
        self.refuse("two parts", "form", header + "." + payload)
        self.refuse("four parts", "form", ".".join([header, payload, signature, ""]))
        self.refuse("JSON serialization", "form", compact({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}))
        self.refuse("empty", "form", "")
        for name, text in (("of no JSON", "hello"), ("of an array", "[]"), ("with a repeated member", compact(self.good)[:-1] + f',"iat":{NOW}}}'),
                           ("with something behind", compact(self.good) + "{}"), ("with a byte order mark", "\ufeff" + compact(self.good))):
            self.refuse("payload " + name, "payload", jws(SIGNING, self.typ, text))

    def refuse_iat_and_aud(self):
        self.member("of text", "iat", str(NOW))
        self.member("with a fraction", "iat", NOW + 0.5)
        for name, value in OTHER_ISSUERS:
            self.member(name, "aud", value)


# Enrolments -----------------------------------------------------------------------------------------------------------------------


def wrong_keys(frames, signing, decryption):
    for member, key, other in ("signing_key", signing, decryption), ("decryption_key", decryption, signing):
        right = key.public
        for name, value in (("with d", key.private), ("whose kid is not its thumbprint", {**right, "kid": STRANGER.kid}), ("without kid", without(right, "kid")), ("without use", without(right, "use")),
                            ("for the other use", {**right, "alg": other.public["alg"], "use": other.public["use"]}), ("off the curve", {**right, "y": right["x"]}),
                            ("of zeros", {**right, "x": b64(bytes(32)), "y": b64(bytes(32))}), ("above the prime", {**right, "x": b64(b"\xff" * 32)}),
                            ("called P-384", {**right, "crv": "P-384"}), ("of P-384", {**right, "crv": "P-384", "x": b64(hashed("x") + bytes(16)), "y": b64(hashed("y") + bytes(16))}),
                            ("of RSA", {"kty": "RSA", "n": b64(b"\xff" * 256), "e": "AQAB", "kid": right["kid"], "alg": "RS256", "use": "sig"}),
                            ("with another member", {**right, "x5u": "https://other.example/"}), ("of text", right["kid"])):
            frames.member(name, member, value)


def enrolment_keys(frames):
    wrong_keys(frames, SIGNING, DECRYPTION)
    frames.member("of another holder than kid", "signing_key", STRANGER.public)
    frames.rows[-1]["reason"] = "kid"


def enrollments():
    good = {"aud": ISSUER, "iat": NOW, "exp": NOW + 300, "ticket": TICKET, "name": "agent1.corp.example", "signing_key": SIGNING.public, "decryption_key": DECRYPTION.public}
    frames = Frames("wb-enroll+jwt", "wb-hello+jwt", good, status=400)
    frames.accept_signatures()
    frames.accept("iat 60 s ahead", {**good, "iat": NOW + 60, "exp": NOW + 120})
    frames.accept("last second", {**good, "iat": NOW - 299, "exp": NOW + 1})
    frames.accept("name of 64 characters", {**good, "name": "ü" * 64})
    for row in frames.rows:
        row["status"] = 201
    frames.refuse_signatures()
    frames.refuse_iat_and_aud()
    frames.missing(*good)
    frames.member("61 s ahead", "iat", NOW + 61)
    frames.member("301 s after iat", "exp", NOW + 301)
    frames.refuse("exp before iat", "exp", jws(SIGNING, frames.typ, {**good, "iat": NOW + 30, "exp": NOW + 10}))
    frames.refuse("expired", "exp", jws(SIGNING, frames.typ, {**good, "iat": NOW - 120, "exp": NOW - 61}))
    for name, value in ("of nothing", ""), ("of 65 characters", "a" * 65), ("with a line feed", "agent1\n"), ("of a number", 7):
        frames.member(name, "name", value)
    for name, value in ("cut short", TICKET[:-1]), ("without the root's thumbprint", f"wbt_{NONCE}"), ("of a number", 7):
        frames.member(name, "ticket", value)
    frames.member("that nobody made", "ticket", f"wbt_{OTHER_NONCE}.{ROOT.kid}", status=401)
    frames.member("of another root", "ticket", f"wbt_{NONCE}.{STRANGER.kid}", status=401)
    enrolment_keys(frames)
    return {"issuer": ISSUER, "root": ROOT.kid, "ticket": TICKET, "vectors": frames.rows}


# Hellos ---------------------------------------------------------------------------------------------------------------------------


def hello(**others):
    return {"iss": AGENT, "aud": ISSUER, "iat": NOW, "nonce": NONCE, "agent_nonce": AGENT_NONCE, "instance_id": OTHER_AGENT, "boot": 7, "version": 1,
            "software": "writebackd/0.1.0", "directories": [{"name": "corp", "flavor": "active-directory"}],
            "operations": ["reset", "unlock", "check"], "max_in_flight": 256, "decryption_key": DECRYPTION.kid, **others}


def hello_members(frames):
    frames.missing(*without(frames.good, "iss"))
    for member, values in (
            ("nonce", (("of another challenge", OTHER_NONCE), ("that is the agent's own", AGENT_NONCE), ("of 31 bytes", b64(hashed("nonce")[:31])), ("with padding", NONCE + "="), ("null", None))),
            ("agent_nonce", (("of 31 bytes", b64(hashed("agent nonce")[:31])), ("of nothing", ""))),
            ("decryption_key", (("of another agent", OTHER_DECRYPTION.kid), ("that is the signing key", SIGNING.kid), ("as a JWK", DECRYPTION.public), ("cut short", DECRYPTION.kid[:-1]))),
            ("instance_id", (("in upper case", OTHER_AGENT.upper()), ("that is no UUID", "first"))), ("boot", (("below 0", -1), ("of text", "7"), ("with a fraction", 7.5))), ("version", (("of text", "1"),)),
            ("directories", (("of text", "corp"), ("of words", ["corp"]), ("without flavor", [{"name": "corp"}]))), ("operations", (("of text", "reset"), ("of numbers", [1]))),
            ("max_in_flight", (("of 0", 0), ("of text", "256")))):
        for name, value in values:
            frames.member(name, member, value)


def hellos():
    frames = Frames("wb-hello+jwt", "wb-result+jwt", hello(), close=1008)
    frames.accept_signatures()
    frames.accept("iat 60 s ahead", hello(iat=NOW + 60))
    frames.accept("iat 60 s behind", hello(iat=NOW - 60))
    frames.accept("an operation of later", hello(operations=["reset", "teleport"]))
    frames.accept("no directory, no operation, first boot", hello(directories=[], operations=[], boot=0))
    frames.accept("another agent", frame=jws(OTHER_SIGNING, frames.typ, hello(iss=OTHER_AGENT, decryption_key=OTHER_DECRYPTION.kid)))
    frames.refuse_signatures()
    frames.refuse_iat_and_aud()
    hello_members(frames)
    frames.accept("every operation", hello(operations=["reset", "unlock", "check", "change", "lookup", "verify", "policy"]))
    frames.refuse("iss of another agent", "kid", jws(SIGNING, frames.typ, hello(iss=OTHER_AGENT, decryption_key=OTHER_DECRYPTION.kid)))
    frames.refuse("signature by another agent's key under the kid of iss", "signature", join(header_of(OTHER_SIGNING, frames.typ), hello(iss=OTHER_AGENT, decryption_key=OTHER_DECRYPTION.kid), es256(SIGNING)))
    frames.refuse("iss of nobody", "iss", jws(STRANGER, frames.typ, hello(iss="00000000-0000-4000-8000-000000000000")), close=4001)
    frames.refuse("revoked", "iss", jws(REVOKED_SIGNING, frames.typ, hello(iss=REVOKED_AGENT, decryption_key=REVOKED_DECRYPTION.kid)), close=4001)
    frames.member("2", "version", 2, close=4002)
    frames.member("61 s ahead", "iat", NOW + 61, close=4005)
    frames.member("61 s behind", "iat", NOW - 61, close=4005)
    return {"issuer": ISSUER, "nonce": NONCE, "agents": [{"agent_id": agent_id, "revoked": agent_id == REVOKED_AGENT, "signing_key": signing.public, "decryption_key": decryption.public} for agent_id, signing, decryption in (
        (AGENT, SIGNING, DECRYPTION), (OTHER_AGENT, OTHER_SIGNING, OTHER_DECRYPTION), (REVOKED_AGENT, REVOKED_SIGNING, REVOKED_DECRYPTION))], "vectors": frames.rows}


# New keys -------------------------------------------------------------------------------------------------------------------------


def proof(key=NEXT_SIGNING, **others):
    return jws(key, "wb-rekey-proof+jwt", {"iss": AGENT, "aud": ISSUER, "iat": NOW, "session": SESSION, **others})


def rekey(**others):
    same = {member: others[member] for member in ("iss", "aud", "iat", "session") if member in others}
    return {"iss": AGENT, "aud": ISSUER, "iat": NOW, "session": SESSION, "signing_key": NEXT_SIGNING.public, "decryption_key": NEXT_DECRYPTION.public, "proof": proof(**same), **others}


def rekeys():
    frames = Frames("wb-rekey+jwt", "wb-hello+jwt", rekey(), unknown_typ="ignored", close=1008)
    frames.accept_signatures()
    frames.accept("the decryption key alone", without(without(rekey(), "signing_key"), "proof"))
    frames.accept("the signing key alone", without(rekey(), "decryption_key"))
    frames.accept("the keys that are in force already", rekey(signing_key=SIGNING.public, decryption_key=DECRYPTION.public, proof=proof(SIGNING)))
    frames.accept("iat 60 s ahead", rekey(iat=NOW + 60))
    frames.accept("iat 60 s behind", rekey(iat=NOW - 60))
    frames.accept("a member of later in the proof", rekey(proof=proof(later=1)))
    frames.refuse_signatures()
    frames.refuse_iat_and_aud()
    frames.missing("iss", "aud", "iat", "session", "proof")
    frames.refuse("without signing_key", "proof", jws(SIGNING, frames.typ, without(rekey(), "signing_key")))
    frames.refuse("without keys", "signing_key", jws(SIGNING, frames.typ, {m: v for m, v in rekey().items() if m in ("iss", "aud", "iat", "session")}))
    for name, member, value in (("of another agent", "iss", OTHER_AGENT), ("of another channel", "session", OTHER_SESSION), ("61 s ahead", "iat", NOW + 61), ("61 s behind", "iat", NOW - 61)):
        frames.refuse(f"{member} {name}", member, jws(SIGNING, frames.typ, rekey(**{member: value})))
    for name, value in (("by the present key", proof(SIGNING)), ("by another key", proof(STRANGER)), ("of another agent", proof(iss=OTHER_AGENT)), ("for another issuer", proof(aud="https://other.example")),
                        ("of another moment", proof(iat=NOW - 1)), ("of another channel", proof(session=OTHER_SESSION)), ("of another typ", jws(NEXT_SIGNING, frames.typ, without(rekey(), "proof"))),
                        ("with the signature of another key", join(header_of(NEXT_SIGNING, "wb-rekey-proof+jwt"), {"iss": AGENT, "aud": ISSUER, "iat": NOW, "session": SESSION}, es256(STRANGER))),
                        ("of nothing", ""), ("of a number", 7)):
        frames.member(name, "proof", value)
    wrong_keys(frames, NEXT_SIGNING, NEXT_DECRYPTION)
    frames.rows = [without(row, "close") if row.get("reason") == "ignored" else row for row in frames.rows]
    return {"issuer": ISSUER, "agent_id": AGENT, "session": SESSION, "signing_key": SIGNING.public, "decryption_key": DECRYPTION.public, "vectors": frames.rows}


# Results --------------------------------------------------------------------------------------------------------------------------

REQUEST_ID, OTHER_REQUEST_ID, UNKNOWN_REQUEST_ID = (f"00000000-0000-4000-8000-{number:012x}" for number in (1, 2, 3))
FRAME_SHA256 = hashed("frame").hex()


ACCOUNT = {"user_principal_name": "anna.müller@corp.example", "sam_account_name": "amueller", "display_name": "Anna Müller", "locked": False, "disabled": False, "expired": False,
           "must_change": False, "password_never_expires": False, "cannot_change": False, "password_last_set": NOW - 86400, "password_expires_at": NOW + 41 * 86400}
POLICY = {"source": "domain", "min_length": 14, "complexity": True, "history": 24, "min_age": 86400, "max_age": 3628800, "possible_at": NOW + 3600, "lockout_threshold": 10, "lockout_duration": 1800, "enforced": True}


def result(status="applied", code="ok", **others):
    return {"iss": AGENT, "aud": ISSUER, "iat": NOW, "request_id": REQUEST_ID, "operation_id": OPERATION, "status": status, "code": code, **others}


def of_frame(code, **others):
    return {**without(without(result("refused", code), "request_id"), "operation_id"), "frame_sha256": FRAME_SHA256, **others}


def accepted_results(frames):
    def accept(name, payload, ack=True):
        frames.accept(name, payload, status=payload["status"], ack=ack)

    accept("plausible", result("answered", "plausible", warnings=["password_not_nfc"]))
    entry = {"uid": "anna", **{name: True for name, value in ACCOUNT.items() if value is False}}
    accept("found an account", result("answered", "found", user={"object_guid": AGENT}, account=ACCOUNT))
    accept("found an account of another kind of directory", result("answered", "found", user={"entry_uuid": AGENT}, account=entry))
    accept("found a policy", result("answered", "found", policy=POLICY))
    accept("found a policy of the user's own, with nothing in it", result("answered", "found", policy={name: 0 if type(value) is int else value for name, value in without(POLICY, "possible_at").items()} | {"source": "pso"}))
    accept("found no policy that could be read", result("answered", "found", policy={"source": "unknown"}, warnings=["policy_unreadable"]))
    accept("verified", result("answered", "verified"))
    for code in "credential.wrong", "credential.expired", "credential.must_change", "user.locked", "user.logon_hours", "user.logon_workstation", "user.cannot_change":
        accept("refused: " + code, result("refused", code))
    accept("answered with a code of later and an account", result("answered", "found.partly", account=ACCOUNT))
    accept("members of later in account and policy", result("answered", "found", account={**ACCOUNT, "mood": "good"}))
    accept("refused by two rules", result("refused", "policy.too_short", rules=[{"rule": "min_length", "required": 14, "given": 9}, {"rule": "contains_account_name"}]))
    accept("failed", result("failed", "directory.busy", retry_after=20, directory={"name": "corp", "server": "dc1.corp.example", "result_code": 51, "diagnostic": "busy"}))
    accept("unknown", result("unknown", "outcome.unknown"))
    accept("settling", result("settling", "settling"), ack=False)
    accept("operation_id could not be read", without(result("refused", "request.invalid", reason="operation_id"), "operation_id"))
    accept("an hour old", result(iat=NOW - 3600))
    for status, code in ("applied", "ok.partly"), ("answered", "likely"), ("refused", "policy.dictionary"), ("failed", "directory.asleep"), ("unknown", "outcome.lost"), ("settling", "settling.long"):
        accept(f"{status} with a code of later", result(status, code), ack=status != "settling")
    accept("a rule, a warning and a stage of later", result("refused", "policy.rejected", rules=[{"rule": "dictionary", "word": 3}], warnings=["full_moon"], durations_ms={"sleep": 2, "total": 9.5}))
    accept("a frame that did not verify", of_frame("request.signature", reason="kid"), ack=False)
    accept("a frame without usable jti", of_frame("request.invalid", reason="jti"), ack=False)
    accept("a frame with the jti of another", of_frame("request.replayed"), ack=False)


def result_members(frames):
    frames.missing("iss", "aud", "iat", "status", "code")
    for name, value in ("of another agent", OTHER_AGENT), ("of the service", ISSUER):
        frames.member(name, "iss", value)
    frames.member("of nobody's request", "request_id", UNKNOWN_REQUEST_ID, ack=True)
    frames.member("of a request to another agent", "request_id", OTHER_REQUEST_ID, ack=True)
    frames.member("in upper case", "request_id", "0000000A-0000-4000-8000-00000000000A")
    frames.member("of a number", "request_id", 1)
    frames.refuse("neither request_id nor frame_sha256", "request_id", jws(SIGNING, frames.typ, without(result(), "request_id")))
    frames.refuse("both request_id and frame_sha256", "request_id", jws(SIGNING, frames.typ, of_frame("request.replayed", request_id=REQUEST_ID)))
    for name, value in ("of 63 digits", FRAME_SHA256[:-1]), ("in base64url", b64(hashed("frame"))):
        frames.refuse("frame_sha256 " + name, "frame_sha256", jws(SIGNING, frames.typ, of_frame("request.signature", frame_sha256=value)))
    for name, value in ("of later", "postponed"), ("in upper case", "APPLIED"), ("of a number", 200), ("pending", "pending"):
        frames.member(name, "status", value)
    for status, code in ("applied", "policy.too_short"), ("refused", "ok"), ("failed", "ok"), ("settling", "ok"), ("applied", "settling"), ("answered", "ok"), ("refused", "directory.busy"), ("applied", "found"), ("refused", "verified"), ("answered", "credential.wrong"):
        frames.refuse(f"status {status} with code {code}", "code", jws(SIGNING, frames.typ, result(status, code)))
    for name, value in ("of nothing", ""), ("of a number", 0):
        frames.member(name, "code", value)
    for name, value in (("without locked", without(ACCOUNT, "locked")), ("with text for a truth", {**ACCOUNT, "disabled": "no"}), ("with a time of text", {**ACCOUNT, "password_last_set": "yesterday"}),
                        ("with a number for a name", {**ACCOUNT, "display_name": 7})):
        frames.member(name, "account", value)
    for name, value in (("without source", without(POLICY, "source")), ("without history", without(POLICY, "history")), ("with a length of text", {**POLICY, "min_length": "14"}),
                        ("with an age below nothing", {**POLICY, "min_age": -1}), ("with a number for a truth", {**POLICY, "enforced": 1})):
        frames.member(name, "policy", value)
    for name, value in (("without an id", {}), ("with two ids", {"object_guid": AGENT, "entry_uuid": AGENT}), ("with an id that is none", {"entry_uuid": "anna"})):
        frames.member(name, "user", value)
    for member, value in ("account", "anna"), ("policy", "strict"), ("rules", "min_length"), ("was_locked", "yes"), ("warnings", "password_not_nfc"), ("user", "anna"), ("directory", "corp"), ("retry_after", "soon"):
        frames.member("of text", member, value)


def results():
    frames = Frames("wb-result+jwt", "wb-hello+jwt", result(), unknown_typ="ignored", ack=False)
    frames.accept_signatures()
    for row in frames.rows:
        row.update(status="applied", ack=True)
    accepted_results(frames)
    frames.refuse_signatures()
    frames.refuse_iat_and_aud()
    result_members(frames)
    frames.refuse("typ of later", "ignored", jws(SIGNING, "wb-progress+jwt", {**result(), "percent": 50}))
    frames.refuse("typ of later, signed by another key", "kid", jws(STRANGER, "wb-progress+jwt", result()))
    frames.refuse("typ of later, signature of another key", "signature", join(header_of(SIGNING, "wb-progress+jwt"), result(), es256(STRANGER)))
    requests = [{"request_id": REQUEST_ID, "operation_id": OPERATION, "agent_id": AGENT, "frame_sha256": FRAME_SHA256},
                {"request_id": OTHER_REQUEST_ID, "operation_id": OPERATION, "agent_id": OTHER_AGENT, "frame_sha256": hashed("other frame").hex()}]
    return {"issuer": ISSUER, "agent_id": AGENT, "signing_key": SIGNING.public, "requests": requests, "vectors": frames.rows}
