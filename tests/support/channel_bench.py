"""channel_bench: one writebackd-channel between a WebSocket service, a proxy and a writebackd of our own making. A test module imports the fixtures that it uses."""
import asyncio, base64, contextlib, datetime, http, ipaddress, json, os, select, signal, socket, ssl, subprocess, threading, time

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import lab
from lab import BUILD, ROOT

PROGRAM = os.path.join(BUILD, "agent", "channel", "writebackd-channel")


# Certificates ---------------------------------------------------------------------------------------------------------------------------

def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    def __init__(self, folder, label):
        self.folder, self.label = folder, label
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        self.certificate = (x509.CertificateBuilder().subject_name(name(label)).issuer_name(name(label)).public_key(self.key.public_key())
                            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=30))
                            .not_valid_after(now + datetime.timedelta(days=30)).add_extension(x509.BasicConstraints(True, None), True)
                            .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
                            .sign(self.key, hashes.SHA256()))
        self.file = folder / f"{label}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def server_context(self, label, names, expired=False):
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.utcnow()
        certificate = (x509.CertificateBuilder().subject_name(name("localhost")).issuer_name(self.certificate.subject).public_key(key.public_key())
                       .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=20))
                       .not_valid_after(now + datetime.timedelta(days=-1 if expired else 20))
                       .add_extension(x509.SubjectAlternativeName(names), False).sign(self.key, hashes.SHA256()))
        path = self.folder / f"{label}-server.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


GOOD_NAMES = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture(scope="module")
def good_tls(authority):
    return authority.server_context("good", GOOD_NAMES)


# The other sides ------------------------------------------------------------------------------------------------------------------------

class Loop:
    """An asyncio loop on a thread of its own, for servers; tests themselves are plain code."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine, limit=10):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(limit)

    def close(self):
        async def cancel():
            tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            self.run(cancel(), 3)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(3)


class Service:
    """Echoes text; remembers its connections."""

    def __init__(self, loop, tls, subprotocols=("writeback.v1",), answer=None, sock=None):
        self.loop, self.answer, self.connections, self.arrivals, self.closes, self.received, self.echo = loop, answer, [], [], [], 0, True

        async def serve():
            self.server = await websockets.serve(self.handle, "127.0.0.1", 0, ssl=tls, subprotocols=subprotocols and list(subprotocols), max_size=None,
                                                 ping_interval=None, compression=None, process_request=self.process_request, close_timeout=1)
            self.port = self.server.sockets[0].getsockname()[1]
        loop.run(serve())

    async def process_request(self, path, headers):
        self.arrivals.append(time.monotonic())
        return self.answer and (http.HTTPStatus(self.answer[0]), *self.answer[1:])

    async def handle(self, connection):
        self.connections.append(connection)
        try:
            async for message in connection:
                self.received += 1
                if self.echo:
                    await connection.send(message)
        except websockets.ConnectionClosed:
            pass
        self.closes.append((connection.close_code, connection.close_reason))

    def url(self, host="localhost"):
        return f"wss://{host}:{self.port}/v1/agent"

    def wait_for_connection(self, number=1, limit=5):
        until(lambda: len(self.connections) >= number, limit)
        return self.connections[number - 1]

    def close(self):
        async def close():
            self.server.close()
        self.loop.run(close())


class Proxy:
    def __init__(self, loop, target_port, credentials=None, status="200 OK", behind=b""):
        self.loop, self.requests, self.target_port, self.credentials, self.status, self.behind = loop, [], target_port, credentials, status, behind

        async def serve():
            self.server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
            self.port = self.server.sockets[0].getsockname()[1]
        loop.run(serve())

    async def handle(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        if self.credentials and f"Proxy-Authorization: Basic {base64.b64encode(self.credentials).decode()}\r\n" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n")
            writer.close()
            return
        if not self.status.startswith("200"):
            writer.write(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
            writer.close()
            return
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n" + self.behind)

        async def pump(source, sink):
            with contextlib.suppress(Exception):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()
        await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))


class Agent:
    """writebackd's end of the packet socket."""

    def __init__(self, path):
        self.path, self.peer = path, None
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(5 * lab.SLOWNESS)

    def accept(self):
        """Takes a connection and greets it, upon which the channel connects its endpoints. One that the channel gave up while it waited is passed over."""
        while True:
            self.peer, _ = self.listener.accept()
            with contextlib.suppress(BrokenPipeError):
                self.send("P")
                assert self.take() == ("P", 0, b"")
                return self

    def take(self, limit=5):
        """(kind, endpoint, payload); None at the end of the connection."""
        ready, _, _ = select.select([self.peer], [], [], limit * lab.SLOWNESS)
        assert ready, "no packet came"
        data = self.peer.recv(70000)
        return (chr(data[0]), data[1], data[2:]) if data else None

    def expect(self, kind, limit=5):
        packet = self.take(limit)
        assert packet and packet[0] == kind, packet
        return packet[2] if kind == "F" else json.loads(packet[2]) if packet[2] else None

    def send(self, kind, payload=b"", endpoint=0):
        self.peer.send(kind.encode() + bytes([endpoint]) + payload)

    def close(self):
        if self.peer:
            self.peer.close()
        self.listener.close()


def until(condition, limit=5):
    end = time.monotonic() + limit * lab.SLOWNESS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Bench:
    """One channel process, and everything round it."""

    def __init__(self, folder, authority):
        self.folder, self.authority, self.loop = folder, authority, Loop()
        self.agent = Agent(folder / "channel.sock")
        self.process, self.config, self.wrapper = None, folder / "channel.yaml", []  # what it is started by
        self.log_path = folder / "log"

    def write_config(self, *urls, extra="", ca=True):
        tls = f"tls:\n  ca_file: {self.authority.file}\n" if ca else ""
        self.config.write_text(f"agent_socket: {self.agent.path}\nendpoints:\n" + "".join(f"  - {url}\n" for url in urls) + tls +
                               "diagnostics:\n  loop_probe: 10ms\n" + extra)

    def start(self, *urls, **options):
        self.write_config(*urls, **options)
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(lab.confined([*self.wrapper, PROGRAM, "--config", str(self.config), "--log-format", "json"]), stderr=self.log, stdout=self.log)
        self.agent.accept()
        return self.agent

    def stop(self, code=0, limit=4):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(limit * lab.SLOWNESS) == code, self.log_path.read_text()
        self.process = None

    def events(self, event=None):
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if event is None or line["event"] == event]

    def close(self):
        try:
            if self.process and self.process.poll() is None:
                self.stop()
            elif self.process:
                assert self.process.returncode == 0, self.log_path.read_text()
        finally:
            if self.process and self.process.poll() is None:
                self.process.kill()
            self.agent.close()
            self.loop.close()
        assert "Sanitizer" not in self.log_path.read_text()


@pytest.fixture
def bench(tmp_path, authority):
    bench = Bench(tmp_path, authority)
    yield bench
    bench.close()


@pytest.fixture
def service(bench, good_tls):
    return Service(bench.loop, good_tls)
