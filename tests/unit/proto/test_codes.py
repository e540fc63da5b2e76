"""The tables of the protocol agree: codes.json, README.md, the schemas, openapi.yaml and the vectors."""
import base64, copy, json, os, re, subprocess

import jsonschema, pytest, yaml
from jwcrypto import jwe, jwk, jws
from jwcrypto.common import JWException, base64url_encode

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PROTO = os.path.join(ROOT, "proto")


def load(*path):
    return json.load(open(os.path.join(PROTO, *path), encoding="utf-8"))


SCHEMAS = {name[:-5]: load("schemas", name) for name in sorted(os.listdir(os.path.join(PROTO, "schemas"))) if name.endswith(".json")}
STORE = {schema["$id"]: schema for schema in SCHEMAS.values()}
CODES = [row for row in load("codes.json")["codes"] if row["outcome"]]
KEYS = load("vectors", "keys.json")
REQUESTS = load("vectors", "requests.json")["vectors"]
EXAMPLES = load("vectors", "examples.json")["messages"]


def validator(name):
    schema = SCHEMAS[name]
    resolver = jsonschema.RefResolver(schema["$id"], schema, store=STORE)
    return jsonschema.Draft202012Validator(schema, resolver=resolver)


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


# Codes ----------------------------------------------------------------------------------------------------------------------------


def test_codes_are_distinct_and_whole():
    rows = load("codes.json")["codes"]
    assert len({row["code"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == {"code", "outcome", "level", "retry", "user", "admin"}
        assert row["admin"] and (row["user"] is None) == (row["outcome"] is None)


def test_the_readme_has_the_table():
    text = open(os.path.join(PROTO, "README.md"), encoding="utf-8").read()
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z]+) \| ([a-z]+) \|$", text.split("## 8. Outcome codes")[1].split("## 9.")[0], re.M)
    assert rows == [(row["code"], row["outcome"], row["retry"]) for row in CODES]


def test_the_schemas_have_the_codes():
    assert SCHEMAS["common"]["$defs"]["code"]["enum"] == [row["code"] for row in CODES]
    by_status = {rule["if"]["properties"]["status"]["const"]: rule["then"]["properties"]["code"]["enum"] for rule in SCHEMAS["result"]["allOf"] if set(rule["if"]["properties"]) == {"status"}}
    for status in SCHEMAS["common"]["$defs"]["status"]["enum"]:
        assert by_status[status] == [row["code"] for row in CODES if row["outcome"] == status and not row["code"].startswith("service.")]


@pytest.mark.parametrize("code", ["request.signature", "request.replayed"])
def test_some_results_speak_of_a_frame_only(code):
    common = {"iss": "6f9619ff-8b86-4011-b42d-00cf4fc964ff", "aud": "https://reset.example", "iat": 1790000000, "status": "refused", "code": code}
    assert validator("result").is_valid({**common, "frame_sha256": "0" * 64})
    assert not validator("result").is_valid({**common, "request_id": "7d444840-9dc0-41d1-b245-5ffdce74fad2"})


# Schemas --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(SCHEMAS[name])):
        target, _, path = reference.partition("#/$defs/")
        assert path in SCHEMAS[(target or name + ".json")[:-5]]["$defs"], reference


def schema_of(typ):
    return validator(typ[3:-4])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["typ"])
def test_examples_fit_their_schemas(example):
    schema_of(example["typ"]).validate(example["payload"])
    header, payload, _ = example["frame"].split(".")
    validator("header-jws").validate(json.loads(decoded(header)))
    assert json.loads(decoded(payload)) == example["payload"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["typ"])
def test_schemas_refuse_what_lacks_a_member(example):
    schema = schema_of(example["typ"])
    for member in schema.schema["required"]:
        twin = {name: value for name, value in example["payload"].items() if name != member}
        assert not schema.is_valid(twin), member
        assert not schema.is_valid({**example["payload"], member: None}), member


def test_every_message_has_an_example_and_a_schema():
    typs = set(SCHEMAS["header-jws"]["properties"]["typ"]["enum"])
    assert typs == {example["typ"] for example in EXAMPLES}
    assert typs == set(re.findall(r'"(wb-[\w-]+\+jwt)"', open(os.path.join(PROTO, "messages.h"), encoding="utf-8").read()))


def payload_of(frame):
    try:
        return json.loads(decoded(frame.split(".")[1]))
    except (ValueError, IndexError):
        return None


# The form that a schema can see; times, audience and secrets it cannot. What Python's reader or the schema's language cannot tell apart is left out.
FORM = {"request.invalid": False, "ok": True, "request.expired": True, "request.not_yet_valid": True, "request.undecryptable": None, "request.secret_mismatch": True}
BEYOND = {"exp", "payload"}


@pytest.mark.parametrize("vector", [v for v in REQUESTS if FORM.get(v["code"]) is not None and v["reason"] not in BEYOND], ids=lambda vector: vector["name"])
def test_the_request_schema_agrees_with_the_vectors(vector):
    assert validator("request").is_valid(payload_of(vector["frame"])) == FORM[vector["code"]]


@pytest.mark.parametrize("op, members, good", [
    ("reset", {"new_password": "a"}, True), ("reset", {}, False), ("reset", {"new_password": "a", "old_password": "b"}, False), ("check", {"new_password": "a"}, True),
    ("change", {"new_password": "a", "old_password": "b"}, True), ("change", {"new_password": "a"}, False), ("verify", {"old_password": "b"}, True), ("verify", {"new_password": "a"}, False),
    ("unlock", {}, False), ("reset", {"new_password": ""}, False), ("reset", {"new_password": "a" * 257}, False), ("reset", {"new_password": "a", "note": 1}, False)])
def test_the_plaintext_schema(op, members, good):
    plaintext = {"operation_id": "7d444840-9dc0-41d1-b245-5ffdce74fad2", "op": op, "sub_id": {"format": "userPrincipalName", "id": "a@b"}, **members}
    assert validator("secret").is_valid(plaintext) == good


DISCOVERY = {
    "issuer": "https://reset.example", "root_key": {name: value for name, value in KEYS["root"].items() if name != "d"}, "key_set": EXAMPLES[0]["frame"],
    "enrollment_endpoint": "https://reset.example/v1/agents", "channel_endpoints": ["wss://reset.example/v1/agent"], "subprotocols_supported": ["writeback.v1"],
    "signing_alg_values_supported": ["ES256"], "encryption_alg_values_supported": ["ECDH-ES"], "encryption_enc_values_supported": ["A256GCM"], "limits": {"max_frame_bytes": 65536},
}


def test_discovery_and_enrolment():
    enrolled = {"agent_id": "6f9619ff-8b86-4011-b42d-00cf4fc964ff", **{name: DISCOVERY[name] for name in ("issuer", "root_key", "key_set", "channel_endpoints")}}
    for name, message in ("discovery", DISCOVERY), ("enrolled", enrolled):
        validator(name).validate(message)
        for member in message:
            twin = copy.deepcopy(message)
            del twin[member]
            assert not validator(name).is_valid(twin), member
    assert not validator("discovery").is_valid({**DISCOVERY, "root_key": KEYS["root"]})
    assert not validator("discovery").is_valid({**DISCOVERY, "issuer": "https://reset.example/"})


# OpenAPI --------------------------------------------------------------------------------------------------------------------------


def test_openapi():
    api = yaml.safe_load(open(os.path.join(PROTO, "openapi.yaml"), encoding="utf-8"))
    assert api["openapi"].startswith("3.1.")
    assert {(path, method) for path, item in api["paths"].items() for method in item if method in ("get", "post", "delete")} == {
        ("/.well-known/writeback-configuration", "get"), ("/v1/agents", "post"), ("/v1/agents", "get"), ("/v1/agents/{agent_id}", "delete"),
        ("/v1/operations", "post"), ("/v1/operations/{operation_id}", "get")}

    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(api):
        document, _, path = reference.partition("#")
        node = api if not document else SCHEMAS[re.fullmatch(r"schemas/([a-z-]+)\.json", document)[1]]
        for step in path.split("/")[1:]:
            node = node[step]
    for schema in api["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("op, members, good", [
    ("reset", {"new_password": "a"}, True), ("reset", {"secrets": 1}, True), ("reset", {}, False), ("reset", {"new_password": "a", "secrets": 1}, False), ("reset", {"new_password": "a", "old_password": "b"}, False),
    ("reset", {"new_password": "a", "must_change": True}, True), ("check", {"new_password": "a"}, True),
    ("change", {"new_password": "a", "old_password": "b"}, True), ("change", {"secrets": 1}, True), ("change", {"new_password": "a"}, False), ("change", {"old_password": "b"}, False), ("change", {}, False),
    ("change", {"secrets": 1, "old_password": "b"}, False), ("change", {"new_password": "a", "old_password": "b", "secrets": 1}, False), ("change", {"new_password": "a", "old_password": "b", "must_change": True}, False),
    ("verify", {"old_password": "b"}, True), ("verify", {"secrets": 1}, True), ("verify", {"new_password": "b"}, False), ("verify", {"old_password": "b", "new_password": "a"}, False), ("verify", {}, False),
    *((op, members, not members) for op in ("unlock", "lookup", "policy") for members in ({}, {"new_password": "a"}, {"old_password": "a"}, {"secrets": 1}, {"must_change": True})), ("delete", {}, False)])
def test_what_the_http_interface_takes_for_each_operation(op, members, good):
    api = yaml.safe_load(open(os.path.join(PROTO, "openapi.yaml"), encoding="utf-8"))
    resolver = jsonschema.RefResolver("https://writebackd.example/openapi.yaml", api, store=STORE)
    body = {"operation_id": "7d444840-9dc0-41d1-b245-5ffdce74fad2", "op": op, "sub_id": {"format": "userPrincipalName", "id": "a@b"}, **members}
    if "secrets" in body:
        body["secrets"] = {KEYS["agent_decryption"]["kid"]: payload_of(next(v["frame"] for v in REQUESTS if v["code"] == "ok"))["secret"]}
    schema = {"$ref": "#/components/schemas/OperationRequest"}
    assert jsonschema.Draft202012Validator(schema, resolver=resolver).is_valid(body) == good


# Vectors, by a JOSE implementation that is not ours -------------------------------------------------------------------------------


def test_vectors_are_what_their_script_writes():
    subprocess.run([os.path.join(PROTO, "vectors", "make.py"), "--check"], check=True)


@pytest.mark.parametrize("name", [name for name in KEYS if name != "$comment"])
def test_keys_are_named_by_their_thumbprints(name):
    assert jwk.JWK(**KEYS[name]).thumbprint() == KEYS[name]["kid"]


@pytest.mark.parametrize("vector", [v for v in REQUESTS if v["code"] == "ok"], ids=lambda vector: vector["name"])
def test_accepted_vectors_verify_with_jwcrypto(vector):
    message = jws.JWS()
    message.deserialize(vector["frame"])
    key = next(key for key in (KEYS["service"], KEYS["service2"]) if key["kid"] == json.loads(message.objects["protected"])["kid"])
    message.verify(jwk.JWK(**key), alg="ES256")
    claims = json.loads(message.payload)
    if "secret" in claims:
        secret = jwe.JWE()
        secret.deserialize(claims["secret"], jwk.JWK(**KEYS["agent_decryption"]))
        plaintext = json.loads(secret.payload)
        validator("secret").validate(plaintext)
        assert {name: claims[name] for name in ("operation_id", "op", "sub_id")} == {name: plaintext[name] for name in ("operation_id", "op", "sub_id")}
        assert plaintext["new_password"] == vector.get("new_password", "Correct-horse-7-battery")
        assert plaintext.get("old_password") == vector.get("old_password")


@pytest.mark.parametrize("vector", REQUESTS, ids=lambda vector: vector["name"])
def test_vectors_have_codes_and_reasons(vector):
    assert vector["code"] in {row["code"] for row in CODES}
    assert vector["name"].startswith("accepted") == (vector["code"] == "ok") == (vector["reason"] == "")
    if "unicode_pwd" in vector:
        assert bytes.fromhex(vector["unicode_pwd"]).decode("utf-16-le") == '"' + vector["new_password"] + '"'


# What comes to a service: a service in small, to hold against the vectors ---------------------------------------------------------------

TO_SERVICE = {name: load("vectors", name + ".json") for name in ("enrollments", "hellos", "results", "rekeys")}
TYPS = {"enrollments": "wb-enroll+jwt", "hellos": "wb-hello+jwt", "results": "wb-result+jwt", "rekeys": "wb-rekey+jwt"}
SERVICE_VECTORS = [pytest.param(name, vector, id=name + ": " + vector["name"]) for name, file in TO_SERVICE.items() for vector in file["vectors"]]


class Refused(Exception):
    pass


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def octets_of(part):
    require(re.fullmatch(r"[A-Za-z0-9_-]*", part) and base64url_encode(decoded(part)) == part, "base64url")
    return decoded(part)


def object_of(octets, reason):
    def once(pairs):
        require(len(dict(pairs)) == len(pairs), reason)
        return dict(pairs)

    try:
        value = json.loads(octets.decode("utf-8"), object_pairs_hook=once)
    except ValueError:
        value = None
    require(isinstance(value, dict), reason)
    return value


def fault_of_key(key):
    """Whether a JWK is a point of the curve under its own name."""
    try:
        public = jwk.JWK(**key)
        public.get_op_key("verify" if key["use"] == "sig" else "encrypt")
        return public.thumbprint() != key["kid"]
    except (JWException, ValueError):
        return True


def check_form(name, payload):
    """Members by the schema, but that a code of later is taken by its status."""
    for error in validator(TYPS[name][3:-4]).iter_errors(payload):
        if list(error.absolute_path) != ["code"]:
            missing = [member for member in error.validator_value if member not in payload] if error.validator == "required" and not error.path else []
            missing = {"dependentRequired": ["proof"], "anyOf": ["signing_key"]}.get(error.validator, missing) if name == "rekeys" else missing
            raise Refused((missing + list(error.absolute_path) + ["request_id"])[0])
    if name == "results":
        require(isinstance(payload["code"], str) and payload["code"], "code")
        require({row["code"]: row["outcome"] for row in CODES}.get(payload["code"], payload["status"]) == payload["status"], "code")


def key_for(name, file, payload):
    if name == "enrollments":
        check_form(name, payload)
        require(not fault_of_key(payload["signing_key"]), "signing_key")
        return payload["signing_key"]
    if name in ("results", "rekeys"):
        return file["signing_key"]
    agent = next((agent for agent in file["agents"] if agent["agent_id"] == payload.get("iss") and not agent["revoked"]), None)
    require(agent, "iss")
    return agent["signing_key"]


def opened(name, file, frame):
    parts = frame.split(".")
    require(len(parts) == 3, "form")
    header = object_of(octets_of(parts[0]), "header")
    require(set(header) == {"alg", "kid", "typ"} and all(isinstance(value, str) for value in header.values()), "header")
    require(header["alg"] == "ES256", "alg")
    later = header["typ"] not in SCHEMAS["header-jws"]["properties"]["typ"]["enum"]
    require(header["typ"] == TYPS[name] or (name in ("results", "rekeys") and later), "typ")
    payload = object_of(octets_of(parts[1]), "payload") if name not in ("results", "rekeys") else None
    key = key_for(name, file, payload)
    require(header["kid"] == key["kid"], "kid")
    require(len(octets_of(parts[2])) == 64, "signature")
    try:
        message = jws.JWS()
        message.deserialize(frame)
        message.verify(jwk.JWK(**key), alg="ES256")
    except JWException:
        raise Refused("signature")
    require(not later, "ignored")
    return object_of(message.payload, "payload")


def check_enrollment(file, now, payload):
    require(payload["iat"] <= now + 60, "iat")
    require(payload["iat"] < payload["exp"] <= payload["iat"] + 300 and payload["exp"] + 60 >= now, "exp")
    require(not fault_of_key(payload["decryption_key"]), "decryption_key")
    require(payload["ticket"] == file["ticket"], "ticket")


def check_hello(file, now, payload):
    agent = next(agent for agent in file["agents"] if agent["agent_id"] == payload["iss"])
    require(payload["nonce"] == file["nonce"], "nonce")
    require(abs(payload["iat"] - now) <= 60, "iat")
    require(payload["decryption_key"] == agent["decryption_key"]["kid"], "decryption_key")


def check_result(file, now, payload):
    require(payload["iss"] == file["agent_id"], "iss")
    mine = {request["request_id"] for request in file["requests"] if request["agent_id"] == file["agent_id"]}
    require("frame_sha256" in payload or payload["request_id"] in mine, "request_id")


def check_rekey(file, now, payload):
    require(payload["iss"] == file["agent_id"], "iss")
    require(abs(payload["iat"] - now) <= 60, "iat")
    require(payload["session"] == file["session"], "session")
    for member in "signing_key", "decryption_key":
        require(member not in payload or not fault_of_key(payload[member]), member)
    if "proof" in payload:
        header, claims = (json.loads(decoded(part)) for part in payload["proof"].split(".")[:2])
        require(header == {"alg": "ES256", "kid": payload["signing_key"]["kid"], "typ": "wb-rekey-proof+jwt"}, "proof")
        require(all(claims[member] == payload[member] for member in ("iss", "aud", "iat", "session")), "proof")
        try:
            message = jws.JWS()
            message.deserialize(payload["proof"])
            message.verify(jwk.JWK(**payload["signing_key"]), alg="ES256")
        except JWException:
            raise Refused("proof")


CHECKS = {"enrollments": check_enrollment, "hellos": check_hello, "results": check_result, "rekeys": check_rekey}


@pytest.mark.parametrize("name, vector", SERVICE_VECTORS)
def test_a_service_in_small_agrees_with_the_vectors(name, vector):
    file, reason = TO_SERVICE[name], None
    try:
        payload = opened(name, file, vector["frame"])
        check_form(name, payload)
        require(payload["aud"] == file["issuer"], "aud")
        CHECKS[name](file, vector["now"], payload)
    except Refused as refused:
        reason = refused.args[0]
    assert reason == vector.get("reason")


@pytest.mark.parametrize("name, vector", SERVICE_VECTORS)
def test_vectors_to_a_service_have_their_members(name, vector):
    assert vector["name"].startswith("accepted") == vector["accept"] == ("reason" not in vector)
    if name == "enrollments":
        assert vector["status"] == 201 if vector["accept"] else vector["status"] == 400 or (vector["status"], vector["reason"]) == (401, "ticket")
    elif name in ("hellos", "rekeys"):
        assert vector.get("close") in ([None] if vector["accept"] or vector["reason"] == "ignored" else [1008, 4001, 4002, 4005])
    elif vector["accept"]:
        payload = payload_of(vector["frame"])
        assert vector["status"] == payload["status"]
        assert vector["ack"] == ("request_id" in payload and payload["status"] != "settling")
    else:
        assert not vector["ack"] or vector["reason"] == "request_id"


@pytest.mark.parametrize("name", TO_SERVICE)
def test_names_of_vectors_to_a_service_are_distinct(name):
    names = [vector["name"] for vector in TO_SERVICE[name]["vectors"]]
    assert len(set(names)) == len(names)
