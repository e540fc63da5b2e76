"""relay: a cable between a client and a TCP server, which a test can cut.

    relay = Relay("127.0.0.10", 636)        # listens on relay.host, relay.port
    relay.silence()                         # as a cut cable: nothing passes, no RST, and a new connection is never established
    relay.forward()                         # plugged in again: what was held flows
    relay.hold_answers()                    # what the server says is held, what the client says passes
    relay.hold_questions()                  # the other way round
    relay.reset()                           # every connection ends with RST; new ones are served
    relay.refuse()                          # new connections are refused, those that stand go on
    relay.step_answers()                    # what the server says is held until it is let pass
    mark = relay.answers()                  # how much of it has come
    relay.let_pass(mark)                    # that much of it flows
    relay.waiting_questions()               # octets that clients have said while questions are held
    relay.delay(0.2)                        # every octet takes so long in each direction; questions=0: every answer
    relay.close()

One thread; each call returns when it is in force.
"""
import collections, contextlib, errno, fcntl, selectors, socket, struct, termios, threading, time

CHUNK, BUFFERED = 65536, 1 << 20


class Half:
    """One direction of a connection: what was read from `source` and is not yet written to `sink`."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.chunks = collections.deque()  # (time from which it may be written, octets, number)
        self.size, self.ended, self.shut = 0, False, False


class Relay:
    def __init__(self, host, port, listen="127.0.0.1", listen_port=0):
        self.target = (host, port)
        self.lock = threading.RLock()
        self.halves, self.connections, self.accepted = [], {}, 0
        self.passes, self.latency, self.accepts, self.running = {"up": True, "down": True}, {"up": 0.0, "down": 0.0}, True, True
        self.stepping, self.passed, self.answered = False, 0, 0  # the answers are numbered; those up to `passed` may flow
        self.plugs = []
        self.listener = socket.create_server((listen, listen_port), backlog=128)
        self.listener.setblocking(False)
        self.host, self.port = self.listener.getsockname()
        self.wake_out, self.wake_in = socket.socketpair()
        self.wake_out.setblocking(False)
        self.thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self.thread.start()

    # What a test calls ----------------------------------------------------------------------------------------------------------------

    def forward(self):
        with self._change():
            self.passes, self.stepping = {"up": True, "down": True}, False
            self._listen()

    def silence(self):
        with self._change():
            self.passes, self.accepts = {"up": False, "down": False}, False
            # Linux ignores a SYN while the queue of a listening socket is full: keep it full.
            if self.listener and not self.plugs:
                self.listener.listen(0)
                for _ in range(4):
                    plug = socket.socket()
                    plug.setblocking(False)
                    plug.connect_ex((self.host, self.port))
                    self.plugs.append(plug)

    def hold_answers(self):
        with self._change():
            self.passes = {"up": True, "down": False}

    def hold_questions(self):
        with self._change():
            self.passes, self.stepping = {"up": False, "down": True}, False

    def step_answers(self):
        with self._change():
            self.passes, self.stepping, self.passed = {"up": True, "down": True}, True, self.answered

    def answers(self):
        with self.lock:
            return self.answered

    def let_pass(self, mark):
        with self._change():
            self.passed = mark

    def waiting_questions(self):
        with self.lock:
            return sum(struct.unpack("i", fcntl.ioctl(client, termios.FIONREAD, b"\0" * 4))[0] for client in self.connections)

    def reset(self):
        with self._change():
            for client in {half.source for half in self.halves if half.source in self.connections}:
                self._drop(client, rst=True)

    def refuse(self):
        with self._change():
            self._unplug()
            if self.listener:
                self.listener.close()
                self.listener = None

    def delay(self, seconds, questions=None):
        with self._change():
            self.latency = {"up": seconds if questions is None else questions, "down": seconds}

    def established(self):
        """How many connections stand."""
        with self.lock:
            return len(self.connections)

    def close(self):
        with self._change():
            self.running = False
        self.thread.join(10)

    # The thread -----------------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _change(self):
        with self.lock:
            yield
        with contextlib.suppress(OSError):
            self.wake_in.send(b"x")

    def _listen(self):
        if self.listener is None:
            self.listener = socket.create_server((self.host, self.port), backlog=128)
            self.listener.setblocking(False)
        self.listener.listen(128)
        self._unplug()
        self.accepts = True

    def _unplug(self):
        for plug in self.plugs:
            plug.close()
        self.plugs = []

    def _accept(self):
        with contextlib.suppress(BlockingIOError):
            client, _ = self.listener.accept()
            server = socket.socket()
            server.setblocking(False)
            client.setblocking(False)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.connect_ex(self.target) not in (0, errno.EINPROGRESS):
                self._close(client, True)
                server.close()
                return
            self.connections[client] = server
            self.accepted += 1
            self.halves += [Half(client, server), Half(server, client)]

    @staticmethod
    def _close(end, rst):
        if rst:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()

    def _drop(self, client, rst):
        server = self.connections.pop(client)
        self.halves = [half for half in self.halves if client not in (half.source, half.sink)]
        self._close(client, rst)
        self._close(server, rst)

    def _client_of(self, half):
        return half.source if half.source in self.connections else half.sink

    def _way(self, half):
        return "up" if half.source in self.connections else "down"

    def _open(self, half):
        return self.passes[self._way(half)]

    def _read(self, half):
        data = half.source.recv(CHUNK)
        if data:
            way = self._way(half)
            self.answered += way == "down"
            half.chunks.append((time.monotonic() + self.latency[way], data, self.answered if way == "down" else 0))
            half.size += len(data)
        else:
            half.ended = True

    def _may_flow(self, half, now):
        return half.chunks and half.chunks[0][0] <= now and not self._is_held(half)

    def _is_held(self, half):
        return self.stepping and half.chunks[0][2] > self.passed

    def _write(self, half, now):
        while self._may_flow(half, now):
            when, data, number = half.chunks[0]
            sent = half.sink.send(data)
            half.size -= sent
            if sent < len(data):
                half.chunks[0] = (when, data[sent:], number)
                return
            half.chunks.popleft()
        if half.ended and not half.chunks and not half.shut:
            half.shut = True
            half.sink.shutdown(socket.SHUT_WR)

    def _step(self, half, ready, now):
        try:
            if half.source in ready and self._open(half) and half.size < BUFFERED and not half.ended:
                with contextlib.suppress(BlockingIOError):
                    self._read(half)
            if self._open(half):
                with contextlib.suppress(BlockingIOError):
                    self._write(half, now)
        except OSError as error:
            # Not yet connected is no end; what one side reset is reset on the other.
            if error.errno != errno.ENOTCONN:
                self._drop(self._client_of(half), rst=True)

    def _wait(self):
        """The sockets that something can be done for. Everything is looked at anew each time: a test has few connections."""
        with selectors.DefaultSelector() as selector, self.lock:
            selector.register(self.wake_out, selectors.EVENT_READ)
            if self.listener and self.accepts:
                selector.register(self.listener, selectors.EVENT_READ)
            now, timeout, wants = time.monotonic(), None, {}
            for half in self.halves:
                if not self._open(half):
                    continue
                if not half.ended and half.size < BUFFERED:
                    wants[half.source] = wants.get(half.source, 0) | selectors.EVENT_READ
                if self._may_flow(half, now):
                    wants[half.sink] = wants.get(half.sink, 0) | selectors.EVENT_WRITE
                elif half.chunks and half.chunks[0][0] > now:
                    timeout = min(timeout or 1e9, half.chunks[0][0] - now)
            for end, events in wants.items():
                selector.register(end, events)
            self.lock.release()
            try:
                return {key.fileobj for key, _ in selector.select(timeout)}
            finally:
                self.lock.acquire()

    def _run(self):
        while self.running:
            try:
                ready = self._wait()
            except (OSError, ValueError):  # a socket that a test closed meanwhile
                ready = set()
            with self.lock:
                with contextlib.suppress(BlockingIOError):
                    self.wake_out.recv(4096)
                if self.listener in ready and self.accepts:
                    self._accept()
                now = time.monotonic()
                for half in list(self.halves):
                    if half in self.halves:
                        self._step(half, ready, now)
                for client in {self._client_of(half) for half in self.halves}:
                    if all(half.shut for half in self.halves if client in (half.source, half.sink)):
                        self._drop(client, rst=False)
        with self.lock:
            for client in list(self.connections):
                self._drop(client, rst=True)
            self._unplug()
            if self.listener:
                self.listener.close()
            self.wake_in.close()
            self.wake_out.close()
