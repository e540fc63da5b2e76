"""proto/jose against two other implementations, both ways: libjose (the jose command) and python3-jwcrypto."""
import json, os, subprocess

import pytest
from jwcrypto import jwe, jwk, jws
from jwcrypto.common import json_encode

from lab import BUILD, ROOT

TOOL = os.path.join(BUILD, "tests", "support", "jose-tool")
TYP = "wb-request+jwt"
TEXTS = {"a word": b"{}", "umlauts": '{"new_password":"Grüße 🔑"}'.encode(), "one byte": b"a", "15 bytes": b"b" * 15, "16 bytes": b"b" * 16, "17 bytes": b"b" * 17, "4 KiB": b"c" * 4096}
texts = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
PUBLIC = ("kty", "crv", "x", "y", "kid", "alg", "use")


def run(*command, text=b"", fails=False):
    done = subprocess.run(command, input=text, capture_output=True, timeout=60)
    assert (done.returncode != 0) == fails, done.stderr.decode()
    return done.stderr.decode().strip() if fails else done.stdout


def tool(*arguments, text=b"", fails=False):
    return run(TOOL, *arguments, text=text, fails=fails)


class Keys:
    """One private key in a file for each side, and its public half."""

    def __init__(self, folder, use, private):
        self.jwk = private
        self.private, self.public = str(folder / (use + ".jwk")), str(folder / (use + ".pub"))
        for path, members in ((self.private, private), (self.public, {name: private[name] for name in PUBLIC})):
            with open(path, "w") as file:
                json.dump(members, file)

    def header(self, **others):
        return {"alg": self.jwk["alg"], "kid": self.jwk["kid"], **others}


def ours(use):
    return json.loads(tool("keygen", use))


def of_libjose(use):
    # Without key_ops, and from the curve: {"alg":"ECDH-ES"} makes a P-521 key.
    key = json.loads(run("jose", "jwk", "gen", "-i", '{"kty":"EC","crv":"P-256"}'))
    key["kid"] = run("jose", "jwk", "thp", "-a", "S256", "-i-", text=json.dumps(key).encode()).decode().strip()
    return {**{name: key[name] for name in ("kty", "crv", "x", "y", "d", "kid")}, "alg": "ES256" if use == "sig" else "ECDH-ES", "use": use}


def of_jwcrypto(use):
    key = jwk.JWK.generate(kty="EC", crv="P-256")
    return {**json.loads(key.export_private()), "kid": key.thumbprint(), "alg": "ES256" if use == "sig" else "ECDH-ES", "use": use}


@pytest.fixture(params=[ours, of_libjose, of_jwcrypto], ids=["our key", "key of libjose", "key of jwcrypto"])
def signing(request, tmp_path):
    return Keys(tmp_path, "sig", request.param("sig"))


@pytest.fixture(params=[ours, of_libjose, of_jwcrypto], ids=["our key", "key of libjose", "key of jwcrypto"])
def decryption(request, tmp_path):
    return Keys(tmp_path, "enc", request.param("enc"))


# libjose wants keys without a use that contradicts what it is asked for.
def bare(path):
    with open(path) as file:
        return json.dumps({name: value for name, value in json.load(file).items() if name in ("kty", "crv", "x", "y", "d")})


def test_thumbprints(signing):
    expected = signing.jwk["kid"]
    assert tool("thumbprint", signing.private).decode() == expected
    assert tool("thumbprint", signing.public).decode() == expected
    assert run("jose", "jwk", "thp", "-a", "S256", "-i-", text=bare(signing.public).encode()).decode().strip() == expected
    assert jwk.JWK.from_json(bare(signing.public)).thumbprint() == expected
    assert json.loads(tool("public", signing.private)) == {name: signing.jwk[name] for name in PUBLIC}


# Signatures -----------------------------------------------------------------------------------------------------------------------


@texts
def test_what_we_sign_others_verify(signing, text, tmp_path):
    frame = tool("sign", signing.private, TYP, text=text).decode()
    (tmp_path / "bare").write_text(bare(signing.public))
    assert run("jose", "jws", "ver", "-i-", "-k", str(tmp_path / "bare"), "-O-", text=frame.encode()) == text
    message = jws.JWS()
    message.deserialize(frame)
    message.verify(jwk.JWK.from_json(bare(signing.public)), alg="ES256")
    assert message.payload == text
    assert message.jose_header == signing.header(typ=TYP)


@texts
def test_what_libjose_signs_we_verify(signing, text, tmp_path):
    (tmp_path / "bare").write_text(bare(signing.private))
    (tmp_path / "payload").write_bytes(text)
    frame = run("jose", "jws", "sig", "-I", str(tmp_path / "payload"), "-k", str(tmp_path / "bare"), "-s", json.dumps({"protected": signing.header(typ=TYP)}), "-c")
    assert tool("verify", signing.public, TYP, text=frame) == text
    assert tool("verify", signing.public, "wb-result+jwt", text=frame, fails=True) == "typ"


@texts
def test_what_jwcrypto_signs_we_verify(signing, text):
    message = jws.JWS(text)
    message.add_signature(jwk.JWK.from_json(bare(signing.private)), None, json_encode(signing.header(typ=TYP)), None)
    frame = message.serialize(compact=True)
    assert tool("verify", signing.public, TYP, text=frame.encode()) == text
    other = ours("sig")
    message = jws.JWS(text)
    message.add_signature(jwk.JWK(**{name: other[name] for name in ("kty", "crv", "x", "y", "d")}), None, json_encode(signing.header(typ=TYP)), None)
    assert tool("verify", signing.public, TYP, text=message.serialize(compact=True).encode(), fails=True) == "signature"


# Encryption -----------------------------------------------------------------------------------------------------------------------


@texts
def test_what_we_encrypt_others_decrypt(decryption, text, tmp_path):
    secret = tool("encrypt", decryption.public, text=text)
    (tmp_path / "bare").write_text(bare(decryption.private))
    assert run("jose", "jwe", "dec", "-i-", "-k", str(tmp_path / "bare"), "-O-", text=secret) == text
    message = jwe.JWE()
    message.deserialize(secret.decode(), jwk.JWK.from_json(bare(decryption.private)))
    assert message.payload == text
    assert tool("decrypt", decryption.private, text=secret) == text


@texts
def test_what_libjose_encrypts_we_decrypt(decryption, text, tmp_path):
    (tmp_path / "bare").write_text(bare(decryption.public))
    (tmp_path / "plaintext").write_bytes(text)
    header = decryption.header(enc="A256GCM")
    secret = run("jose", "jwe", "enc", "-I", str(tmp_path / "plaintext"), "-k", str(tmp_path / "bare"), "-i", json.dumps({"protected": header}), "-c")
    assert tool("decrypt", decryption.private, text=secret) == text


@texts
def test_what_jwcrypto_encrypts_we_decrypt(decryption, text):
    message = jwe.JWE(text, json_encode(decryption.header(enc="A256GCM")))
    message.add_recipient(jwk.JWK.from_json(bare(decryption.public)))
    assert tool("decrypt", decryption.private, text=message.serialize(compact=True).encode()) == text


@pytest.mark.parametrize("members, reason", [({"enc": "A128GCM"}, "enc"), ({"alg": "ECDH-ES+A256KW"}, "form"), ({"zip": "DEF"}, "header"), ({"apu": "QQ", "apv": "Qg"}, "header")])
def test_other_encryptions_of_jwcrypto_are_refused(tmp_path, members, reason):
    keys = Keys(tmp_path, "enc", ours("enc"))
    message = jwe.JWE(b"{}", json_encode({**keys.header(enc="A256GCM"), **members}))
    message.add_recipient(jwk.JWK.from_json(bare(keys.public)))
    assert tool("decrypt", keys.private, text=message.serialize(compact=True).encode(), fails=True) == reason
