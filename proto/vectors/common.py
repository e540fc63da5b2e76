"""What the makers of the vectors share: the curve, JOSE, the keys and the names. The curve is computed here, so that the vectors owe nothing to the
implementations that they test. These keys are public: never use them."""

import base64, hashlib, hmac, json
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ISSUER = "https://reset.example"
AGENT = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
OTHER_AGENT = "2c1743a3-91d4-4fbf-a0c1-5f5e0f1f3b68"
OPERATION = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
NOW = 1790000000

# P-256 (FIPS 186-4 D.1.2.3) and ECDSA with the nonce of RFC 6979 ------------------------------------------------------------------

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(number, point):
    total = None
    while number:
        if number & 1:
            total = add(total, point)
        point, number = add(point, point), number >> 1
    return total


def nonces(d, digest):
    """RFC 6979 section 3.2."""
    v, k = b"\1" * 32, b"\0" * 32
    seed = d.to_bytes(32, "big") + (int.from_bytes(digest, "big") % N).to_bytes(32, "big")
    for octet in b"\0", b"\1":
        k = hmac.digest(k, v + octet + seed, "sha256")
        v = hmac.digest(k, v, "sha256")
    while True:
        v = hmac.digest(k, v, "sha256")
        yield int.from_bytes(v, "big")
        k = hmac.digest(k, v + b"\0", "sha256")
        v = hmac.digest(k, v, "sha256")


def ecdsa(d, text):
    digest = hashlib.sha256(text).digest()
    for nonce in nonces(d, digest):
        if 0 < nonce < N:
            r = multiply(nonce, G)[0] % N
            s = pow(nonce, -1, N) * (int.from_bytes(digest, "big") + r * d) % N
            if r and s:
                return r, s


# JOSE -----------------------------------------------------------------------------------------------------------------------------


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number64(number):
    return b64(number.to_bytes(32, "big"))


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def hashed(name):
    return hashlib.sha256(("writeback test vectors: " + name).encode()).digest()


class Key:
    def __init__(self, name, alg, use):
        self.d = int.from_bytes(hashed(name), "big") % N
        self.point = multiply(self.d, G)
        x, y = map(number64, self.point)
        self.kid = b64(hashlib.sha256(f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'.encode()).digest())
        self.public = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "alg": alg, "use": use}
        self.private = {"kty": "EC", "crv": "P-256", "d": number64(self.d), "x": x, "y": y, "kid": self.kid, "alg": alg, "use": use}


ROOT = Key("root", "ES256", "sig")
SERVICE = Key("service signing", "ES256", "sig")
SERVICE2 = Key("second service signing", "ES256", "sig")
STRANGER = Key("stranger", "ES256", "sig")
SIGNING = Key("agent signing", "ES256", "sig")
DECRYPTION = Key("agent decryption", "ECDH-ES", "enc")
OTHER_DECRYPTION = Key("other agent decryption", "ECDH-ES", "enc")


def join(header, payload, signature):
    header = header if isinstance(header, str) else compact(header)
    payload = payload if isinstance(payload, (str, bytes)) else compact(payload)
    payload = payload if isinstance(payload, bytes) else payload.encode()
    text = b64(header.encode()) + "." + b64(payload)
    return text + "." + b64(signature(text.encode()))


def raw(r, s):
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def high_s(key):
    """The other signature of the same text, which is as good."""
    def signature(text):
        r, s = ecdsa(key.d, text)
        return raw(r, max(s, N - s))

    return signature


def der(r, s):
    def integer(number):
        octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
        return bytes([2, len(octets)]) + octets

    body = integer(r) + integer(s)
    return bytes([0x30, len(body)]) + body


def es256(key):
    return lambda text: raw(*ecdsa(key.d, text))


def header_of(key, typ, **others):
    return {"alg": "ES256", "kid": key.kid, "typ": typ, **others}


def jws(key, typ, payload):
    return join(header_of(key, typ), payload, es256(key))


def secret(name, plaintext, to=DECRYPTION, header=None, epk=None, tag=16, iv=12, more=None):
    """A JWE of RFC 7518 section 4.6: Concat KDF of one round. `header` changes members (None takes one away)."""
    ephemeral = Key("ephemeral " + name, "ECDH-ES", "enc")
    members = {"alg": "ECDH-ES", "enc": "A256GCM", "epk": {m: ephemeral.public[m] for m in ("kty", "crv", "x", "y")} if epk is None else epk, "kid": to.kid}
    for member, value in (header or {}).items():
        members[member] = value
        if value is None:
            del members[member]
    info = b"\0\0\0\7A256GCM" + b"\0" * 8 + (256).to_bytes(4, "big")
    z = multiply(ephemeral.d, to.point)[0].to_bytes(32, "big")
    cek = hashlib.sha256(b"\0\0\0\1" + z + info).digest()
    part = b64(compact(members).encode())
    nonce = hashed("iv " + name)[:iv]
    text = plaintext if isinstance(plaintext, str) else compact(plaintext)
    sealed = AESGCM(cek).encrypt(nonce, text.encode(), part.encode())
    return ".".join([part, "", b64(nonce), b64(sealed[:-16]), b64(sealed[-16:][:tag])])
