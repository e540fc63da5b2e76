#!/usr/bin/python3
"""make.py [--check]: writes the test vectors beside it, or says whether they are what it would write.

Everything follows from this file, common.py and to_services.py: keys, ephemeral keys and IVs are SHA-256 of names, signatures those of RFC 6979.
tests/unit/proto/test_codes.py checks them with python3-jwcrypto too. These keys are public: never use them."""

import base64, hashlib, hmac, json, os, sys

sys.dont_write_bytecode = True
import to_services
from common import *
from to_services import without

HERE = os.path.dirname(os.path.abspath(__file__))

# Requests -------------------------------------------------------------------------------------------------------------------------

UPN = {"format": "userPrincipalName", "id": "anna.müller@corp.example"}
GUID = {"format": "objectGUID", "id": "f1e2d3c4-b5a6-4789-9abc-def012345678"}
PASSWORDS = [
    ("ASCII", "Correct-horse-7-battery"),
    ("one character", "x"),
    ("quotes and backslashes", "\"quoted\" \\ 'single' / </script>"),
    ("umlauts", "Grüße-aus-Köln-42"),
    ("surrogate pairs", "Key🔑and🗝️1A"),
    ("combining marks", "Cafe\u0301-Mu\u0308nchen-1"),
    ("the same composed", "Café-München-1"),
    ("beyond Latin", "пароль-密码-١٢٣"),
    ("noncharacter and control", "a\ufffeb\x01c\td"),
    ("256 code units", "🔑" * 128),
]


def inner(request, password, **others):
    return {"operation_id": request["operation_id"], "op": request["op"], "sub_id": request["sub_id"], "new_password": password, **others}


vectors = []


def jti(number):
    return f"00000000-0000-4000-8000-{number:012x}"


def claims(op="reset", sub_id=UPN, **others):
    request = {"iss": ISSUER, "aud": AGENT, "jti": jti(len(vectors) + 1), "operation_id": OPERATION, "iat": NOW, "exp": NOW + 30, "op": op, "sub_id": sub_id}
    for member, value in others.items():
        request[member] = value
        if value is None:
            del request[member]
    return request


def with_secret(name, request, password="Correct-horse-7-battery", **how):
    return {**request, "secret": secret(name, inner(request, password), **how)}


def with_passwords(name, request, **passwords):
    return {**request, "secret": secret(name, {**without(inner(request, ""), "new_password"), **passwords})}


def vector(name, frame, code, reason="", **more):
    vectors.append({"name": name, "now": NOW, "frame": frame, "code": code, "reason": reason, **more})


def signed(name, request, code="ok", reason="", **more):
    vector(name, jws(SERVICE, "wb-request+jwt", request), code, reason, **more)


def changed(name, code, reason, **others):
    """A reset with other claims, rightly signed, its secret right too."""
    request = claims(**others)
    if isinstance(request.get("sub_id"), dict) and request.get("op") in ("reset", "check") and "operation_id" in request:
        request = with_secret(name, request)
    signed(name, request, code, reason)


def accepted_requests():
    for name, password in PASSWORDS:
        name = "accepted: password of " + name
        signed(name, with_secret(name, claims(), password), new_password=password, unicode_pwd=unicode_pwd(password))
    name = "accepted: password with JSON escapes"
    request = claims()
    text = compact(inner(request, "@")).replace('"@"', '"\\ud83d\\udd11\\u0041\\"\\\\\\/"')
    signed(name, {**request, "secret": secret(name, text)}, new_password='🔑A"\\/', unicode_pwd=unicode_pwd('🔑A"\\/'))
    for op in "check", "reset":
        name = f"accepted: {op} with every member"
        signed(name, with_secret(name, claims(op, GUID, must_change=True, unlock=False, directory="corp", first_iat=NOW - 20, prior_server="dc1.corp.example", failover_after=4,
                                              actor={"type": "administrator", "id": "help desk"})))
    for name, old in ("accepted: change", "Wrong-mule-8-stapler"), ("accepted: change of a password beyond ASCII", "Grüße🔑\"\\"):
        signed(name, with_passwords(name, claims("change", directory="corp", unlock=False), old_password=old, new_password="Correct-horse-7-battery"),
               old_password=old, new_password="Correct-horse-7-battery", unicode_pwd=unicode_pwd("Correct-horse-7-battery"))
    for op in "lookup", "policy":
        signed("accepted: " + op, claims(op))
        signed(f"accepted: {op} by an administrator", claims(op, GUID, directory="corp", actor={"type": "administrator", "id": "help desk"}))
    signed("accepted: lookup by entryUUID", claims("lookup", {"format": "entryUUID", "id": GUID["id"]}))
    signed("accepted: lookup by uid", claims("lookup", {"format": "uid", "id": "amüller"}))
    signed("accepted: unlock", claims("unlock"))
    signed("accepted: unlock of a sAMAccountName", claims("unlock", {"format": "sAMAccountName", "id": "amueller", "domain": "CORP"}))
    signed("accepted: unlock of a source anchor", claims("unlock", {"format": "mS-DS-ConsistencyGuid", "id": GUID["id"]}))
    signed("accepted: lifetime of 120 s", claims("unlock", exp=NOW + 120))
    signed("accepted: issued 60 s ahead", claims("unlock", iat=NOW + 60, exp=NOW + 90))
    signed("accepted: last second", claims("unlock", iat=NOW - 29, exp=NOW + 1))
    vector("accepted: second key of the key set", jws(SERVICE2, "wb-request+jwt", claims("unlock")), "ok")
    request = claims("unlock")
    vector("accepted: header in another order", join({"typ": "wb-request+jwt", "kid": SERVICE.kid, "alg": "ES256"}, request, es256(SERVICE)), "ok")
    vector("accepted: high s", join(header_of(SERVICE, "wb-request+jwt"), claims("unlock"), high_s(SERVICE)), "ok")


def forged_requests():
    """Refused before the payload is looked at: code request.signature."""
    code = "request.signature"
    good = claims("unlock")

    def forged(name, reason, header, signature=es256(SERVICE), payload=good):
        vector(name, join(header, payload, signature), code, reason)

    right = header_of(SERVICE, "wb-request+jwt")
    forged("signature of another key", "signature", right, es256(STRANGER))
    forged("signature of the root", "signature", right, es256(ROOT))
    forged("signature of zeros", "signature", right, lambda text: bytes(64))
    forged("signature with r = n", "signature", right, lambda text: raw(N, ecdsa(SERVICE.d, text)[1]))
    forged("signature with s = 0", "signature", right, lambda text: raw(ecdsa(SERVICE.d, text)[0], 0))
    forged("signature with r above n", "signature", right, lambda text: raw(2**256 - 1, ecdsa(SERVICE.d, text)[1]))
    forged("signature of 63 bytes", "signature", right, lambda text: raw(*ecdsa(SERVICE.d, text))[:63])
    forged("signature of 65 bytes", "signature", right, lambda text: raw(*ecdsa(SERVICE.d, text)) + b"\0")
    forged("signature in DER", "signature", right, lambda text: der(*ecdsa(SERVICE.d, text)))
    forged("no signature", "signature", right, lambda text: b"")
    frame = jws(SERVICE, "wb-request+jwt", good)
    header, payload, signature = frame.split(".")
    other = b64(compact({**good, "aud": OTHER_AGENT}).encode())
    vector("payload of another request", ".".join([header, other, signature]), code, "signature")
    vector("unknown key", jws(STRANGER, "wb-request+jwt", good), code, "kid")
    vector("signed by the root", jws(ROOT, "wb-request+jwt", good), code, "kid")
    vector("signed by the agent itself", jws(SIGNING, "wb-request+jwt", good), code, "kid")
    forged("kid of an unknown key", "kid", {**right, "kid": STRANGER.kid})
    forged("kid as a path", "kid", {**right, "kid": "../../etc/passwd"})
    forged("alg none", "alg", {**right, "alg": "none"}, lambda text: b"")
    forged("alg none with signature", "alg", {**right, "alg": "none"})
    forged("alg None", "alg", {**right, "alg": "None"}, lambda text: b"")
    for name, key in ("JWK", compact({m: SERVICE.public[m] for m in ("crv", "kty", "x", "y")}).encode()), ("point", b"\4" + raw(*SERVICE.point)):
        forged(f"HS256 keyed with the public key as {name}", "alg", {**right, "alg": "HS256"}, lambda text, key=key: hmac.digest(key, text, "sha256"))
    for alg in "ES384", "ES256K", "PS256", "EdDSA":
        forged("alg " + alg, "alg", {**right, "alg": alg})
    for member, value in (("jku", "http://127.0.0.1:1/keys"), ("jwk", STRANGER.public), ("zip", "DEF"), ("crit", ["exp"]), ("x5u", "http://127.0.0.1:1/cert"),
                          ("x5c", ["MAA="]), ("b64", False), ("cty", "JWT"), ("p2c", 2147483647), ("nonce", "a")):
        forged(f"header with {member}", "header", {**right, member: value}, es256(STRANGER if member == "jwk" else SERVICE))
    for member in right:
        forged(f"header without {member}", "header", {m: v for m, v in right.items() if m != member})
    forged("duplicate header member", "header", compact(right)[:-1] + ',"alg":"ES256"}')
    forged("duplicate header member with escape", "header", compact(right)[:-1] + ',"\\u0061lg":"ES256"}')
    forged("header of an array", "header", "[]")
    forged("header with a byte order mark", "header", "\ufeff" + compact(right))
    forged("header of no JSON", "header", "alg=ES256")
    forged("kid of a number", "header", {**right, "kid": 7})
    forged("typ of a result", "typ", {**right, "typ": "wb-result+jwt"})
    forged("typ of an acknowledgement", "typ", {**right, "typ": "wb-ack+jwt"})
    forged("typ JWT", "typ", {**right, "typ": "JWT"})
    vector("a result presented as request", jws(SIGNING, "wb-result+jwt", {"iss": AGENT, "aud": ISSUER, "iat": NOW, "request_id": good["jti"], "status": "applied", "code": "ok"}), code, "typ")
    vector("padding in the signature", frame + "==", code, "base64url")
    vector("padding in the header", header + "=." + payload + "." + signature, code, "base64url")
    padded = b64(header.encode() and compact(right).encode()) + "." + base64.urlsafe_b64encode(compact({**good, "jti": jti(len(vectors) + 1)}).encode() + b" ").decode()
    padded = padded if padded.endswith("=") else b64(compact(right).encode()) + "." + base64.urlsafe_b64encode(compact({**good, "jti": jti(len(vectors) + 1)}).encode() + b"  ").decode()
    vector("padding in the payload", padded + "." + b64(es256(SERVICE)(padded.encode())), code, "base64url")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    vector("stray bits in the signature", frame[:-1] + alphabet[alphabet.index(frame[-1]) | 1], code, "base64url")
    vector("line feed behind the frame", frame + "\n", code, "base64url")
    vector("plus and slash", header + "." + payload + ".+/" + signature[2:], code, "base64url")
    vector("two parts", header + "." + payload, code, "form")
    vector("four parts", frame + ".", code, "form")
    vector("a JWE", secret("a JWE", inner(claims(), "a")), code, "form")
    vector("JSON serialization", compact({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}), code, "form")
    vector("empty", "", code, "form")


def invalid_requests():
    invalid = "request.invalid"
    for name, payload in (("empty payload", ""), ("payload of no JSON", "reset anna"), ("payload of an array", "[]"), ("payload of a string", '"reset"'), ("payload cut short", compact(claims())[:-1]),
                          ("payload with something behind", compact(claims("unlock")) + "{}"), ("payload with a byte order mark", "\ufeff" + compact(claims("unlock"))),
                          ("payload of 33 levels", "[" * 33 + "]" * 33), ("payload in Latin-1", compact(claims("unlock")).encode("latin-1"))):
        vector(name, jws(SERVICE, "wb-request+jwt", payload), invalid, "payload")
    vector("duplicate member", jws(SERVICE, "wb-request+jwt", compact(claims("unlock"))[:-1] + ',"op":"reset"}'), invalid, "payload")
    for member in "iss", "aud", "jti", "operation_id", "iat", "exp", "op", "sub_id":
        changed(f"without {member}", invalid, member, **{member: None})
    signed("without secret", claims(), invalid, "secret")
    for op in "unlock", "lookup", "policy":
        signed(f"secret in {op}", with_secret(f"secret in {op}", claims(op)), invalid, "secret")
        signed(f"must_change in {op}", claims(op, must_change=True), invalid, "must_change")
    signed("change without secret", claims("change"), invalid, "secret")
    signed("verify without secret", claims("verify"), invalid, "secret")
    signed("must_change in a change", with_passwords("must_change in a change", claims("change", must_change=True), old_password="a", new_password="b"), invalid, "must_change")
    changed("old password in the clear", invalid, "unknown_member", old_password="a")
    changed("unknown member", invalid, "unknown_member", later=1)
    changed("sub besides sub_id", invalid, "unknown_member", sub="anna")
    changed("password in the clear", invalid, "unknown_member", new_password="a")
    changed("iat of text", invalid, "iat", iat=str(NOW))
    changed("iat with a fraction", invalid, "iat", iat=NOW + 0.5)
    changed("jti in upper case", invalid, "jti", jti="7D444840-9DC0-41D1-B245-5FFDCE74FAD2")
    changed("must_change of text", invalid, "must_change", must_change="true")
    changed("unknown actor", invalid, "actor", actor={"type": "root"})
    changed("self with an id", invalid, "actor", actor={"type": "self", "id": "a"})
    for name, sub_id in (("of another format", {"format": "opaque", "id": "a"}), ("of text", "anna"), ("with another member", {**UPN, "tenant": "a"}), ("without id", {"format": "userPrincipalName"}),
                         ("with an empty id", {"format": "userPrincipalName", "id": ""}), ("with a control character", {"format": "userPrincipalName", "id": "a\n"}),
                         ("of a GUID in upper case", {"format": "objectGUID", "id": GUID["id"].upper()}), ("of an entryUUID that is none", {"format": "entryUUID", "id": "anna"}),
                         ("of a uid with a domain", {"format": "uid", "id": "anna", "domain": "CORP"}), ("of a sAMAccountName without domain", {"format": "sAMAccountName", "id": "a"}),
                         ("of 1,025 bytes", {"format": "userPrincipalName", "id": "a" * 1025})):
        signed("sub_id " + name, claims("unlock", sub_id), invalid, "sub_id")
    signed("lifetime of 121 s", claims("unlock", exp=NOW + 121), invalid, "exp")
    signed("lifetime of nothing", claims("unlock", iat=NOW + 30, exp=NOW + 30), invalid, "exp")
    signed("lifetime below nothing", claims("unlock", iat=NOW + 40), invalid, "exp")
    signed("two audiences", claims("unlock", aud=[AGENT, OTHER_AGENT]), "request.audience", "aud")
    signed("one audience in an array", claims("unlock", aud=[AGENT]), "request.audience", "aud")
    signed("audience of another agent", claims("unlock", aud=OTHER_AGENT), "request.audience", "aud")
    signed("another issuer", claims("unlock", iss="https://other.example"), "request.audience", "iss")
    signed("issuer with a slash", claims("unlock", iss=ISSUER + "/"), "request.audience", "iss")
    signed("expired", claims("unlock", iat=NOW - 31, exp=NOW - 1), "request.expired", "exp")
    signed("expires now", claims("unlock", iat=NOW - 30, exp=NOW), "request.expired", "exp")
    signed("issued 61 s ahead", claims("unlock", iat=NOW + 61, exp=NOW + 91), "request.not_yet_valid", "iat")
    signed("unknown operation", claims("delete"), "request.unsupported", "op")
    signed("operation in upper case", claims("UNLOCK"), "request.unsupported", "op")
    signed("operation that this agent's settings do not allow", with_passwords("verify", claims("verify"), old_password="Correct-horse-7-battery"), "request.unsupported", "op")
    signed("policy not enforced by the user himself", claims("unlock", enforce_policy=False), "request.unsupported", "enforce_policy")


def undecryptable_requests():
    def undecryptable(name, reason, **how):
        signed("secret: " + name, with_secret(name, claims(), **how), "request.undecryptable", reason)

    def malformed(name, change, reason):
        request = with_secret(name, claims())
        signed("secret: " + name, {**request, "secret": change(request["secret"].split("."))}, "request.undecryptable", reason)

    def plaintext(name, code, reason, text):
        request = claims()
        text = text(inner(request, "a"))
        signed("secret: " + name, {**request, "secret": secret(name, text)}, code, reason)

    epk = Key("ephemeral of vectors", "ECDH-ES", "enc").public
    point = {m: epk[m] for m in ("kty", "crv", "x", "y")}
    undecryptable("kid of another key", "kid", header={"kid": OTHER_DECRYPTION.kid})
    undecryptable("encrypted to another key", "kid", to=OTHER_DECRYPTION)
    undecryptable("encrypted to another key under this one's kid", "decryption", to=OTHER_DECRYPTION, header={"kid": DECRYPTION.kid})
    undecryptable("epk of another message", "decryption", epk=point)
    undecryptable("epk off the curve", "epk", epk={**point, "y": point["x"]})
    undecryptable("epk of zeros", "epk", epk={**point, "x": b64(bytes(32)), "y": b64(bytes(32))})
    undecryptable("epk above the prime", "epk", epk={**point, "x": b64(b"\xff" * 32)})
    undecryptable("epk of P-384", "epk", epk={"kty": "EC", "crv": "P-384", "x": b64(hashed("x") + bytes(16)), "y": b64(hashed("y") + bytes(16))})
    undecryptable("epk called P-384", "epk", epk={**point, "crv": "P-384"})
    undecryptable("epk without y", "epk", epk={m: point[m] for m in ("kty", "crv", "x")})
    undecryptable("epk with d", "epk", epk={**point, "d": epk["x"]})
    undecryptable("epk with kid", "epk", epk={**point, "kid": epk["kid"]})
    undecryptable("zip", "header", header={"zip": "DEF"})
    undecryptable("apu", "header", header={"apu": "QQ"})
    undecryptable("typ", "header", header={"typ": "JWT"})
    undecryptable("crit", "header", header={"crit": ["zip"]})
    undecryptable("no kid", "header", header={"kid": None})
    undecryptable("no epk", "header", header={"epk": None})
    undecryptable("alg ECDH-ES+A256KW", "alg", header={"alg": "ECDH-ES+A256KW"})
    undecryptable("alg dir", "alg", header={"alg": "dir"})
    undecryptable("alg PBES2-HS256+A128KW", "alg", header={"alg": "PBES2-HS256+A128KW"})
    undecryptable("enc A128GCM", "enc", header={"enc": "A128GCM"})
    for size in 0, 1, 4, 8, 12, 15:
        undecryptable(f"tag of {size} bytes", "decryption", tag=size)
    for size in 8, 16:
        undecryptable(f"IV of {size} bytes", "decryption", iv=size)
    malformed("tag of 17 bytes", lambda parts: ".".join(parts[:4] + [b64(unb64(parts[4]) + b"\0")]), "decryption")
    malformed("another tag", lambda parts: ".".join(parts[:4] + [b64(bytes(16))]), "decryption")
    malformed("IV of 11 bytes", lambda parts: ".".join(parts[:2] + [b64(unb64(parts[2])[:11])] + parts[3:]), "decryption")
    malformed("another ciphertext", lambda parts: ".".join(parts[:3] + [b64(bytes([unb64(parts[3])[0] ^ 1]) + unb64(parts[3])[1:])] + parts[4:]), "decryption")
    malformed("an encrypted key", lambda parts: ".".join(parts[:1] + ["AAAA"] + parts[2:]), "form")
    malformed("four parts", lambda parts: ".".join(parts[:4]), "form")
    malformed("no ciphertext", lambda parts: ".".join(parts[:3] + ["", parts[4]]), "form")
    malformed("padding", lambda parts: ".".join(parts[:4] + [parts[4] + "=="]), "base64url")
    malformed("no JWE", lambda parts: "Correct-horse-7-battery", "form")
    undecryptable_code, mismatch = "request.undecryptable", "request.secret_mismatch"
    plaintext("of another operation", mismatch, "operation_id", lambda text: {**text, "operation_id": "7d444840-9dc0-41d1-b245-5ffdce74fad3"})
    plaintext("of another user", mismatch, "sub_id", lambda text: {**text, "sub_id": {**UPN, "id": "bob@corp.example"}})
    plaintext("of the same user by another format", mismatch, "sub_id", lambda text: {**text, "sub_id": GUID})
    plaintext("of another op", mismatch, "op", lambda text: {**text, "op": "check"})
    plaintext("no JSON", undecryptable_code, "plaintext", lambda text: "Correct-horse-7-battery")
    plaintext("unknown member", undecryptable_code, "unknown_member", lambda text: {**text, "note": "a"})
    plaintext("without operation_id", undecryptable_code, "operation_id", lambda text: {m: v for m, v in text.items() if m != "operation_id"})
    plaintext("without new_password", undecryptable_code, "new_password", lambda text: {m: v for m, v in text.items() if m != "new_password"})
    plaintext("an old password too", undecryptable_code, "old_password", lambda text: {**text, "old_password": "b"})
    plaintext("an empty password", undecryptable_code, "new_password", lambda text: {**text, "new_password": ""})
    plaintext("a password of 257 code units", undecryptable_code, "new_password", lambda text: {**text, "new_password": "a" * 257})
    plaintext("a password of a number", undecryptable_code, "new_password", lambda text: {**text, "new_password": 12345678})
    for name, passwords, reason in (("old password", {"new_password": "a"}, "old_password"), ("new password", {"old_password": "b"}, "new_password"),
                                    ("old password that is not empty", {"new_password": "a", "old_password": ""}, "old_password")):
        signed("secret: change without " + name, with_passwords("change without " + name, claims("change"), **passwords), undecryptable_code, reason)
    plaintext("of a change", mismatch, "op", lambda text: {**text, "op": "change", "old_password": "b"})
    for name, escape in ("unpaired high surrogate", "\\ud83d"), ("unpaired low surrogate", "\\udd11"), ("surrogates in the wrong order", "\\udd11\\ud83d"), ("U+0000", "a\\u0000b"):
        plaintext("password with " + name, undecryptable_code, "new_password", lambda text, escape=escape: compact({**text, "new_password": "@"}).replace('"@"', f'"{escape}"'))


# Key sets, results and everything else --------------------------------------------------------------------------------------------


def key_set(**others):
    return {"iss": ISSUER, "iat": NOW - 86400, "exp": NOW + 90 * 86400, "version": 3, "keys": [SERVICE.public, SERVICE2.public], **others}


def key_sets():
    """code is that of the agent's log: local.trust where the root does not vouch for it, local.input where it is malformed."""
    rows = []

    def row(name, code, frame):
        rows.append({"name": name, "now": NOW, "frame": frame, "code": code})

    row("accepted", "ok", jws(ROOT, "wb-keys+jwt", key_set()))
    row("accepted: with a member of later", "ok", jws(ROOT, "wb-keys+jwt", key_set(later=1)))
    row("signed by a key of the key set", "local.trust", jws(SERVICE, "wb-keys+jwt", key_set()))
    row("signed by a stranger who calls himself root", "local.trust", join(header_of(ROOT, "wb-keys+jwt"), key_set(), es256(STRANGER)))
    row("another typ", "local.trust", jws(ROOT, "wb-request+jwt", key_set()))
    row("another issuer", "local.trust", jws(ROOT, "wb-keys+jwt", key_set(iss="https://other.example")))
    row("expired", "local.trust", jws(ROOT, "wb-keys+jwt", key_set(exp=NOW)))
    row("no keys", "local.input", jws(ROOT, "wb-keys+jwt", key_set(keys=[])))
    row("a key twice", "local.input", jws(ROOT, "wb-keys+jwt", key_set(keys=[SERVICE.public, SERVICE.public])))
    row("a key to encrypt to", "local.input", jws(ROOT, "wb-keys+jwt", key_set(keys=[DECRYPTION.public])))
    row("a private key", "local.input", jws(ROOT, "wb-keys+jwt", key_set(keys=[SERVICE.private])))
    row("a kid that is not the thumbprint", "local.input", jws(ROOT, "wb-keys+jwt", key_set(keys=[{**SERVICE.public, "kid": STRANGER.kid}])))
    row("a key off the curve", "local.input", jws(ROOT, "wb-keys+jwt", key_set(keys=[{**SERVICE.public, "y": SERVICE.public["x"]}])))
    row("version 0", "local.input", jws(ROOT, "wb-keys+jwt", key_set(version=0)))
    return rows


def examples():
    """One of each message, as payload and frame."""
    request_id = jti(1)
    nonce, agent_nonce, session = b64(hashed("nonce")), b64(hashed("agent nonce")), "f81d4fae-7dec-41d0-a765-00a0c91e6bf6"
    request = claims()
    rows = [
        ("wb-keys+jwt", ROOT, key_set()),
        ("wb-challenge+jwt", SERVICE, {"iss": ISSUER, "iat": NOW, "nonce": nonce}),
        ("wb-hello+jwt", SIGNING, to_services.hello()),
        ("wb-welcome+jwt", SERVICE, {"iss": ISSUER, "aud": AGENT, "iat": NOW, "nonce": agent_nonce, "session": session, "max_frame_bytes": 65536, "time": NOW}),
        ("wb-request+jwt", SERVICE, {**request, "secret": secret("example", inner(request, "Correct-horse-7-battery"))}),
        *(("wb-request+jwt", SERVICE, with_passwords("example of " + op, claims(op), **passwords)) for op, passwords in (
            ("change", {"old_password": "Wrong-mule-8-stapler", "new_password": "Correct-horse-7-battery"}), ("verify", {"old_password": "Correct-horse-7-battery"}))),
        ("wb-request+jwt", SERVICE, claims("lookup")),
        ("wb-request+jwt", SERVICE, claims("policy")),
        ("wb-result+jwt", SIGNING, to_services.result("answered", "found", user={"object_guid": GUID["id"]}, account=to_services.ACCOUNT)),
        ("wb-result+jwt", SIGNING, to_services.result("answered", "found", user={"object_guid": GUID["id"]}, policy=to_services.POLICY)),
        ("wb-result+jwt", SIGNING, to_services.result("answered", "verified", user={"object_guid": GUID["id"]})),
        ("wb-result+jwt", SIGNING, to_services.result("refused", "credential.wrong", directory={"name": "corp", "server": "dc1.corp.example", "result_code": 49})),
        ("wb-result+jwt", SIGNING, {"iss": AGENT, "aud": ISSUER, "iat": NOW + 1, "request_id": request_id, "operation_id": OPERATION, "status": "applied", "code": "ok",
                                    "user": {"object_guid": GUID["id"]}, "was_locked": True, "directory": {"name": "corp", "server": "dc1.corp.example", "result_code": 0},
                                    "durations_ms": {"verify": 0.055, "locate": 2.5, "decrypt": 0.05, "intent": 1.25, "write": 4.5, "record": 1, "total": 9.5}}),
        ("wb-result+jwt", SIGNING, {"iss": AGENT, "aud": ISSUER, "iat": NOW + 1, "request_id": request_id, "operation_id": OPERATION, "status": "refused", "code": "policy.too_short",
                                    "rules": [{"rule": "min_length", "required": 14, "given": 9}], "warnings": ["password_not_nfc"]}),
        ("wb-result+jwt", SIGNING, {"iss": AGENT, "aud": ISSUER, "iat": NOW + 1, "request_id": request_id, "operation_id": OPERATION, "status": "refused", "code": "policy.complexity",
                                    "rules": [{"rule": "complexity", "required_classes": 3, "given_classes": 2, "missing": ["upper", "digit"]}, {"rule": "contains_account_name"}]}),
        ("wb-result+jwt", SIGNING, {"iss": AGENT, "aud": ISSUER, "iat": NOW + 1, "request_id": request_id, "operation_id": OPERATION, "status": "failed", "code": "agent.throttled", "retry_after": 20}),
        ("wb-result+jwt", SIGNING, {"iss": AGENT, "aud": ISSUER, "iat": NOW + 1, "status": "refused", "code": "request.signature", "reason": "kid", "frame_sha256": hashed("frame").hex()}),
        ("wb-ack+jwt", SERVICE, {"iss": ISSUER, "aud": AGENT, "iat": NOW + 1, "request_ids": [request_id]}),
        ("wb-drain+jwt", SERVICE, {"iss": ISSUER, "aud": AGENT, "iat": NOW, "session": session, "reason": "restart"}),
        ("wb-enroll+jwt", SIGNING, {"aud": ISSUER, "iat": NOW, "exp": NOW + 300, "ticket": f"wbt_{nonce}.{ROOT.kid}", "name": "agent1.corp.example",
                                    "signing_key": SIGNING.public, "decryption_key": DECRYPTION.public}),
        ("wb-rekey+jwt", SIGNING, to_services.rekey()),
        ("wb-rekey-proof+jwt", to_services.NEXT_SIGNING, {"iss": AGENT, "aud": ISSUER, "iat": NOW, "session": session}),
        ("wb-rekeyed+jwt", SERVICE, {"iss": ISSUER, "aud": AGENT, "iat": NOW + 1, "session": session, "signing_key": to_services.NEXT_SIGNING.kid, "decryption_key": to_services.NEXT_DECRYPTION.kid}),
    ]
    return [{"typ": typ, "kid": key.kid, "payload": payload, "frame": jws(key, typ, payload)} for typ, key, payload in rows]


def unicode_pwd(password):
    """MS-ADTS 3.1.1.3.1.5: in quotes, UTF-16LE, without byte order mark."""
    return ('"' + password + '"').encode("utf-16-le").hex()


def files():
    accepted_requests()
    forged_requests()
    invalid_requests()
    undecryptable_requests()
    yield "keys.json", {"$comment": "Keys of the test vectors. They are public: never use them.", "root": ROOT.private, "service": SERVICE.private, "service2": SERVICE2.private,
                        "stranger": STRANGER.private, "agent_signing": SIGNING.private, "agent_decryption": DECRYPTION.private, "other_decryption": OTHER_DECRYPTION.private, "other_signing": to_services.OTHER_SIGNING.private,
                        "revoked_signing": to_services.REVOKED_SIGNING.private, "next_signing": to_services.NEXT_SIGNING.private, "next_decryption": to_services.NEXT_DECRYPTION.private}
    yield "key_sets.json", {"issuer": ISSUER, "root": ROOT.kid, "vectors": key_sets()}
    yield "requests.json", {"issuer": ISSUER, "agent_id": AGENT, "key_set": jws(ROOT, "wb-keys+jwt", key_set()), "vectors": vectors}
    yield "passwords.json", {"vectors": [{"name": name, "password": password, "unicode_pwd": unicode_pwd(password)} for name, password in PASSWORDS]}
    yield "enrollments.json", to_services.enrollments()
    yield "hellos.json", to_services.hellos()
    yield "results.json", to_services.results()
    yield "rekeys.json", to_services.rekeys()
    yield "examples.json", {"issuer": ISSUER, "agent_id": AGENT, "now": NOW, "messages": examples()}


def main():
    check, stale = "--check" in sys.argv, []
    for name, content in files():
        path = os.path.join(HERE, name)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        if check:
            stale += [name] if open(path, encoding="utf-8").read() != text else []
        else:
            open(path, "w", encoding="utf-8").write(text)
    if stale:
        sys.exit("not what make.py writes: " + ", ".join(stale))


if __name__ == "__main__":
    main()
