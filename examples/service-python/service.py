#!/usr/bin/python3
"""The service side of proto/README.md in Python: discovery, enrolment, channel, one reset, its verified result.

    service.py --certificate PEM --key PEM --port N [--http-port N] --user userPrincipalName:alice@corp.example.test < new-password

Prints the ticket for `writebackctl enroll`, waits for the agent, has it reset the password and prints the verified result.
Debian: python3-websockets python3-jwcrypto (it cannot take a POST, so enrolment has a port of its own).
"""
import argparse, asyncio, base64, hashlib, http.server, json, os, ssl, sys, threading, time, uuid

import websockets
from jwcrypto import jwe, jwk, jws

PUBLIC = ("kty", "crv", "x", "y")


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def public(key, alg="ES256", use="sig"):  # section 2
    full = key.export_public(as_dict=True)
    return {**{m: full[m] for m in PUBLIC}, "kid": key.thumbprint(), "alg": alg, "use": use}


def sign(key, typ, claims):  # section 2.1
    token = jws.JWS(json.dumps(claims))
    token.add_signature(key, None, json.dumps({"alg": "ES256", "kid": key.thumbprint(), "typ": typ}))
    return token.serialize(compact=True)


def peek(text):  # header and unverified payload: good for finding the key and for nothing else
    token = jws.JWS()
    token.deserialize(text)
    return json.loads(token.objects["protected"]), json.loads(token.objects["payload"])


def verify(text, typ, key):
    if peek(text)[0] != {"alg": "ES256", "kid": key.thumbprint(), "typ": typ}:
        raise ValueError("header")
    token = jws.JWS()
    token.deserialize(text, key)
    return json.loads(token.payload)


def encrypt(recipient, claims):  # section 2.2
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "kid": recipient.thumbprint()}
    return jwe.JWE(json.dumps(claims), json.dumps(header), recipient=recipient).serialize(compact=True)


class Service:
    def __init__(self, args, password):
        self.args, self.password = args, password
        self.issuer = f"https://{args.host}:{args.http_port}"
        self.root, self.signing = (jwk.JWK.generate(kty="EC", crv="P-256") for _ in range(2))
        self.ticket = f"wbt_{b64(os.urandom(32))}.{self.root.thumbprint()}"  # section 4
        self.ticket_hash, self.ticket_until = hashlib.sha256(self.ticket.encode()).digest(), time.time() + 900
        now = int(time.time())
        self.key_set = sign(self.root, "wb-keys+jwt", {"iss": self.issuer, "iat": now, "exp": now + 86400, "version": 1, "keys": [public(self.signing)]})
        self.agents = {}  # id -> (signing key, decryption key)

    def discovery(self):  # section 3
        return {"issuer": self.issuer, "root_key": public(self.root), "key_set": self.key_set, "enrollment_endpoint": self.issuer + "/v1/agents",
                "channel_endpoints": [f"wss://{self.args.host}:{self.args.port}/v1/agent"], "subprotocols_supported": ["writeback.v1"],
                "signing_alg_values_supported": ["ES256"], "encryption_alg_values_supported": ["ECDH-ES"],
                "encryption_enc_values_supported": ["A256GCM"], "limits": {"max_frame_bytes": 65536}}

    def enroll(self, body):  # section 4
        claims = peek(body)[1]
        key = jwk.JWK(**{m: claims["signing_key"][m] for m in PUBLIC})
        claims = verify(body, "wb-enroll+jwt", key)
        if hashlib.sha256(claims["ticket"].encode()).digest() != self.ticket_hash or time.time() > self.ticket_until:
            raise PermissionError("ticket")
        if claims["aud"] != self.issuer or not claims["iat"] - 60 <= time.time() <= claims["exp"]:
            raise ValueError("aud, iat or exp")
        self.ticket_hash, agent_id = None, str(uuid.uuid4())
        self.agents[agent_id] = key, jwk.JWK(**{m: claims["decryption_key"][m] for m in PUBLIC})
        return {"agent_id": agent_id, "issuer": self.issuer, "root_key": public(self.root), "key_set": self.key_set,
                "channel_endpoints": self.discovery()["channel_endpoints"]}

    def rekey(self, text, agent_id, session):  # section 5.3
        key, recipient = self.agents[agent_id]
        claims, now = verify(text, "wb-rekey+jwt", key), int(time.time())
        bound = {"iss": agent_id, "aud": self.issuer, "iat": claims["iat"], "session": session}
        if any(claims[name] != value for name, value in bound.items()) or abs(claims["iat"] - now) > 60:
            raise ValueError("rekey")
        if "signing_key" in claims:
            key = jwk.JWK(**{m: claims["signing_key"][m] for m in PUBLIC})
            if verify(claims["proof"], "wb-rekey-proof+jwt", key) != bound:
                raise ValueError("proof")
        if "decryption_key" in claims:
            recipient = jwk.JWK(**{m: claims["decryption_key"][m] for m in PUBLIC})
        self.agents[agent_id] = key, recipient  # durable before it is told, where it matters
        return sign(self.signing, "wb-rekeyed+jwt", {"iss": self.issuer, "aud": agent_id, "iat": now, "session": session,
                                                     "signing_key": key.thumbprint(), "decryption_key": recipient.thumbprint()})

    async def channel(self, ws):  # section 5
        nonce, now = b64(os.urandom(32)), lambda: int(time.time())
        await ws.send(self.key_set)
        await ws.send(sign(self.signing, "wb-challenge+jwt", {"iss": self.issuer, "iat": now(), "nonce": nonce}))
        text = await asyncio.wait_for(ws.recv(), 15)
        agent_id = peek(text)[1]["iss"]
        if agent_id not in self.agents:
            return await ws.close(4001, "agent unknown")
        key, recipient = self.agents[agent_id]
        try:
            hello = verify(text, "wb-hello+jwt", key)
        except (ValueError, jws.InvalidJWSSignature):  # by a former key, say: 1008 has the agent greet by the next one (5.3)
            return await ws.close(1008, "signature")
        if (hello["nonce"], hello["aud"], hello["decryption_key"]) != (nonce, self.issuer, recipient.thumbprint()):
            return await ws.close(1008, "hello")
        session = str(uuid.uuid4())
        await ws.send(sign(self.signing, "wb-welcome+jwt", {"iss": self.issuer, "aud": agent_id, "iat": now(), "nonce": hello["agent_nonce"],
                                                            "session": session, "max_frame_bytes": 65536, "time": now()}))
        form, _, name = self.args.user.partition(":")  # section 6
        sub_id, operation_id, request_id = {"format": form, "id": name}, str(uuid.uuid4()), str(uuid.uuid4())
        secret = encrypt(recipient, {"operation_id": operation_id, "op": "reset", "sub_id": sub_id, "new_password": self.password})
        request, pause = sign(self.signing, "wb-request+jwt", {"iss": self.issuer, "aud": agent_id, "jti": request_id, "operation_id": operation_id, "iat": now(),
                                                               "exp": now() + 30, "op": "reset", "sub_id": sub_id, "secret": secret}), 0.25
        await ws.send(request)
        while True:  # section 7
            text = await ws.recv()
            if peek(text)[0]["typ"] == "wb-rekey+jwt":
                await ws.send(self.rekey(text, agent_id, session))
                continue
            key = next(k for k in (self.agents[agent_id][0], key) if k.thumbprint() == peek(text)[0]["kid"])  # what was on its way is by the former key
            result = verify(text, "wb-result+jwt", key)
            if (result["code"], result.get("frame_sha256")) == ("agent.internal", hashlib.sha256(request.encode()).hexdigest()):
                await asyncio.sleep(pause)  # it has judged nothing: the same bytes again
                await ws.send(request)
                pause = min(2 * pause, 4)
            if (result["iss"], result["aud"], result.get("request_id")) == (agent_id, self.issuer, request_id) and result["status"] != "settling":
                break
        await ws.send(sign(self.signing, "wb-ack+jwt", {"iss": self.issuer, "aud": agent_id, "iat": now(), "request_ids": [request_id]}))
        await ws.close(1000)
        print(json.dumps(result), flush=True)
        self.done.set_result(result["status"] == "applied")

    async def run(self, tls):
        self.done = asyncio.get_running_loop().create_future()
        async with websockets.serve(self.channel, self.args.host, self.args.port, ssl=tls, subprotocols=["writeback.v1"],
                                    max_size=65536, ping_interval=25, compression=None):
            print("ticket", self.ticket, flush=True)
            return await asyncio.wait_for(self.done, self.args.timeout)


def http_server(service, tls):
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self):
            found = self.path == "/.well-known/writeback-configuration"
            self.answer(200, service.discovery()) if found else self.answer(404, {"title": "not found", "status": 404})
        def do_POST(self):
            try:
                self.answer(201, service.enroll(self.rfile.read(min(int(self.headers["Content-Length"]), 65536)).decode()))
            except Exception as error:
                status = 401 if isinstance(error, PermissionError) else 400
                self.answer(status, {"title": "ticket refused" if status == 401 else "malformed enrolment", "status": status})

    server = http.server.ThreadingHTTPServer((service.args.host, service.args.http_port), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--host", "localhost"), ("--port", 8444), ("--http-port", 8445), ("--timeout", 60), ("--certificate", None), ("--key", None), ("--user", None)):
        parser.add_argument(name, type=type(default or ""), default=default, required=default is None)
    arguments = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate, arguments.key)
    service = Service(arguments, sys.stdin.readline().rstrip("\n"))
    http_server(service, context)
    sys.exit(not asyncio.run(service.run(context)))
