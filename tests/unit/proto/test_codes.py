"""The tables of the protocol agree: codes.json, README.md, the schemas, openapi.yaml and the vectors."""
import base64, copy, json, os, re, subprocess

import jsonschema, pytest, yaml
from jwcrypto import jwe, jwk, jws

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
    by_status = {rule["if"]["properties"]["status"]["const"]: rule["then"]["properties"]["code"]["enum"] for rule in SCHEMAS["result"]["allOf"]}
    for status in SCHEMAS["common"]["$defs"]["status"]["enum"]:
        assert by_status[status] == [row["code"] for row in CODES if row["outcome"] == status]


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
    assert typs == set(re.findall(r'"(wb-\w+\+jwt)"', open(os.path.join(PROTO, "messages.h"), encoding="utf-8").read()))


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


@pytest.mark.parametrize("vector", REQUESTS, ids=lambda vector: vector["name"])
def test_vectors_have_codes_and_reasons(vector):
    assert vector["code"] in {row["code"] for row in CODES}
    assert vector["name"].startswith("accepted") == (vector["code"] == "ok") == (vector["reason"] == "")
    if "unicode_pwd" in vector:
        assert bytes.fromhex(vector["unicode_pwd"]).decode("utf-16-le") == '"' + vector["new_password"] + '"'
