"""raw_service: a TLS server whose every octet is in a test's hands: it can stop or cut at each record of the handshake, each byte of the upgrade and of a frame.

    def script(peer, number):           # on a thread of its own, for the number-th connection (from 0)
        peer.handshake()                # or handshake(records=3): sends no more than three TLS records, then Cut
        key = peer.head()               # the request, whole
        peer.write(peer.answer(key))    # plaintext
        peer.cut("rst")                 # "fin": a bare FIN; "notify": close_notify and FIN
    service = RawService(context, script)

A script that returns holds the connection open until close(); whatever the peer says is read and thrown away. context None: no TLS."""
import base64, contextlib, hashlib, re, select, socket, ssl, struct, threading


class Cut(Exception):
    pass


class Peer:
    def __init__(self, sock, context):
        self.sock, self.plain, self.records, self.ending = sock, context is None, 0, threading.Event()
        if not self.plain:
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def _flush(self, limit=None):
        """Sends what TLS has to say, a record at a time."""
        data = b"" if self.plain else self.outgoing.read()
        while data:
            if limit is not None and self.records >= limit:
                raise Cut
            size = 5 + struct.unpack_from(">H", data, 3)[0]
            self.sock.sendall(data[:size])
            data = data[size:]
            self.records += 1

    def _step(self, function, limit=None):
        while True:
            try:
                result = function()
                self._flush(limit)
                return result
            except ssl.SSLWantReadError:
                self._flush(limit)
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError from None
                self.incoming.write(data)
            except ssl.SSLError:
                self._flush()  # the alert that says so
                raise

    def handshake(self, records=None):
        if not self.plain:
            self._step(self.tls.do_handshake, records)

    def read(self):
        return self.sock.recv(65536) if self.plain else self._step(lambda: self.tls.read(65536))

    def write(self, data):
        if self.plain:
            self.sock.sendall(data)
        elif data:
            self._step(lambda: self.tls.write(data))

    def head(self):
        """The upgrade's Sec-WebSocket-Key."""
        text = b""
        while b"\r\n\r\n" not in text:
            text += self.read()
        return re.search(rb"Sec-WebSocket-Key: (\S+)", text).group(1)

    @staticmethod
    def answer(key):
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        return b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: writeback.v1\r\n\r\n"

    def upgrade(self):
        self.handshake()
        self.write(self.answer(self.head()))

    @staticmethod
    def frame(payload, first=0x81):
        size = len(payload)
        head = bytes([first, size]) if size < 126 else bytes([first, 126]) + struct.pack(">H", size) if size < 65536 else bytes([first, 127]) + struct.pack(">Q", size)
        return head + payload

    def cut(self, how="rst"):
        if how == "notify":
            with contextlib.suppress(ssl.SSLError, EOFError):
                self.tls.unwrap()
            self._flush()
        if how == "rst":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):  # what it says still is read, lest the FIN become an RST
                self.sock.settimeout(5)
                while self.sock.recv(65536):
                    pass
        self.sock.close()

    def stay(self):
        """Until it says something more, which is its close, or a test sets `ending`: then RST."""
        while not self.ending.is_set() and not select.select([self.sock], [], [], 0.01)[0]:
            pass
        self.cut("rst")

    def swallow(self):
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass


class RawService:
    def __init__(self, context, script, host="127.0.0.1", port=0, name="localhost"):
        self.context, self.script, self.name = context, script, name
        self.listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self.listener.getsockname()[1]
        self.peers, self.errors = [], []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self):
        return f"wss://{self.name}:{self.port}/v1/agent"

    @property
    def accepted(self):
        return len(self.peers)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer = Peer(sock, self.context)
                self.peers.append(peer)
                threading.Thread(target=self._serve, args=(peer, len(self.peers) - 1), daemon=True).start()

    def _serve(self, peer, number):
        try:
            self.script(peer, number)
            peer.swallow()
        except (OSError, EOFError, ssl.SSLError) as error:
            self.errors.append(error)
            peer.sock.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.close()
