"""scripted_service: a reset service that sends what a test tells it to: wrong, forged, repeated and cut frames. It is examples/service-python with the
channel's last part replaced: after the greeting it waits for send() and collects what the agent answers."""
import argparse, asyncio, importlib.util, json, os, ssl, threading, time, uuid

import websockets

import lab

_spec = importlib.util.spec_from_file_location("service_python", os.path.join(lab.ROOT, "examples", "service-python", "service.py"))
example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)


class ScriptedService(example.Service):
    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.ca, pem, key = lab.certificate(folder, "scripted")
        super().__init__(argparse.Namespace(host="localhost", port=lab.free_port(), http_port=lab.free_port()), None)
        self.endpoint = f"wss://localhost:{self.args.port}/v1/agent"
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(pem, key)
        example.http_server(self, self.tls)
        self.results, self.closes, self.ws, self.agent_id, self.acknowledge = [], [], None, None, True
        self.rekeys, self.on_rekey = [], "answer"  # or: ignore; commit (and not answer); refuse; lie
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.server = self.call(self.listen())

    def call(self, coroutine, timeout=20):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    async def listen(self):
        return await websockets.serve(self.channel, "localhost", self.args.port, ssl=self.tls, subprotocols=["writeback.v1"], max_size=65536,
                                      ping_interval=25, compression=None)

    async def channel(self, ws):
        try:
            try:
                await self.greet(ws)
            except ValueError as error:
                return await ws.close(1008, str(error))
            async for text in ws:
                typ = example.peek(text)[0]["typ"]
                if typ == "wb-rekey+jwt":
                    await self.rekeyed(ws, text)
                if typ in ("wb-rekey+jwt", "wb-drain+jwt"):  # what it is sent though the agent stops is a test's choice
                    continue
                result = example.verify(text, "wb-result+jwt", self.agents[self.agent_id][0])
                self.results.append(result)
                if self.acknowledge and result.get("request_id") and result["status"] != "settling":
                    await ws.send(self.sign("wb-ack+jwt", {"iss": self.issuer, "aud": self.agent_id, "iat": int(time.time()), "request_ids": [result["request_id"]]}))
        finally:
            self.closes.append(ws.close_code)
            if self.ws is ws:
                self.ws = None

    async def rekeyed(self, ws, text):
        self.rekeys.append(text)
        if self.on_rekey == "refuse":
            return await ws.close(1008, "no new keys today")
        if self.on_rekey == "ignore":
            return
        answer = self.rekey(text, self.agent_id, self.session) if self.on_rekey != "lie" else self.sign("wb-rekeyed+jwt", {
            "iss": self.issuer, "aud": self.agent_id, "iat": int(time.time()), "session": self.session, "signing_key": self.root.thumbprint(), "decryption_key": self.signing.thumbprint()})
        if self.on_rekey != "commit":
            await ws.send(answer)

    async def greet(self, ws):
        nonce = example.b64(os.urandom(32))
        await ws.send(self.key_set)
        await ws.send(self.sign("wb-challenge+jwt", {"iss": self.issuer, "iat": int(time.time()), "nonce": nonce}))
        text = await asyncio.wait_for(ws.recv(), 15)
        agent_id = example.peek(text)[1]["iss"]
        self.hello = example.verify(text, "wb-hello+jwt", self.agents[agent_id][0])
        assert self.hello["nonce"] == nonce
        self.session = str(uuid.uuid4())
        await ws.send(self.sign("wb-welcome+jwt", {"iss": self.issuer, "aud": agent_id, "iat": int(time.time()), "nonce": self.hello["agent_nonce"],
                                                   "session": self.session, "max_frame_bytes": 65536, "time": int(time.time())}))
        self.agent_id, self.ws = agent_id, ws

    def sign(self, typ, claims, key=None):
        return example.sign(key or self.signing, typ, claims)

    def claims(self, user, op="reset", new_password=None, secret=None, **other):
        """A right request's claims; tests change what they like. `user` is a userPrincipalName or a sub_id object."""
        now = int(time.time())
        sub_id = user if isinstance(user, dict) else {"format": "userPrincipalName", "id": user}
        claims = {"iss": self.issuer, "aud": self.agent_id, "jti": str(uuid.uuid4()), "operation_id": str(uuid.uuid4()), "iat": now, "exp": now + 30,
                  "op": op, "sub_id": sub_id}
        if new_password is not None:
            claims["secret"] = self.secret(claims, new_password)
        return {**claims, **({"secret": secret} if secret else {}), **other}

    def secret(self, claims, new_password=None, **other):
        return example.encrypt(self.agents[self.agent_id][1], {"operation_id": claims["operation_id"], "op": claims["op"], "sub_id": claims["sub_id"],
                                                                **({"new_password": new_password} if new_password is not None else {}), **other})

    def send(self, frame):
        lab.wait_for("a channel", lambda: self.ws)
        self.call(self.ws.send(frame))

    def cut(self):
        """Drops the TCP connection without a close frame."""
        ws = self.ws
        self.ws = None
        self.loop.call_soon_threadsafe(ws.transport.abort)

    def result(self, request_id, timeout=15, final=True):
        return lab.wait_for(f"a result of {request_id}", lambda: next((r for r in self.results if r.get("request_id") == request_id and
                                                                       (not final or r["status"] != "settling")), None), timeout)

    def ask(self, claims, timeout=15, key=None):
        """Signs and sends a request, waits for its final result."""
        self.send(self.sign("wb-request+jwt", claims, key))
        return self.result(claims["jti"], timeout)

    def ask_by_frame(self, frame, timeout=15):
        """Sends a frame whose answer names no request; it is found by the frame's SHA-256."""
        import hashlib
        digest = hashlib.sha256(frame.encode()).hexdigest()
        self.send(frame)
        return lab.wait_for("the answer to the frame", lambda: next((r for r in self.results if r.get("frame_sha256") == digest), None), timeout)

    def close(self):
        async def end():
            self.server.close()
            await self.server.wait_closed()
        self.call(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
