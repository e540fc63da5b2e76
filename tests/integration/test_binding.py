"""Binding to Samba by GSSAPI and GSS-SPNEGO from a keytab; what goes wrong has its own sentence."""
import contextlib, os, shutil, socket, ssl, struct, subprocess, tempfile, threading

import pytest

import lab as lab_module
from directories import SAMBAS, missing
from lab import SambaDirectory, newer_samba, samba_template, wait_for
from relay import Relay

NEW = "Gr33n-Field-Harbour"
HOSTILE = {"LDAPTLS_REQCERT": "never", "LDAPTLS_CACERT": "/nonexistent", "LDAPURI": "ldap://127.0.0.1:1", "LDAPBASE": "DC=nowhere", "LDAPSASL_SECPROPS": "minssf=256",
           "LDAPSASL_MECH": "PLAIN", "LDAPSASL_CBINDING": "none", "LDAPREFERRALS": "on", "SASL_SECPROPS": "minssf=256", "SASL_PATH": "/nonexistent", "SASL_CONF_PATH": "/nonexistent",
           "KRB5CCNAME": "FILE:/nonexistent/cache", "KRB5_KTNAME": "FILE:/nonexistent/keytab", "KRB5_CLIENT_KTNAME": "FILE:/nonexistent/keytab"}


@pytest.fixture(scope="module", params=SAMBAS)
def samba(request):
    if missing(request.param):
        pytest.skip(missing(request.param))
    root = newer_samba() if request.param == "samba-newer" else ""
    folder = tempfile.mkdtemp(prefix="writebackd-binding-")
    directory = SambaDirectory(os.path.join(folder, "dc"), like=samba_template(root), root=root)
    directory.is_newer = request.param == "samba-newer"
    yield directory
    directory.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def kdc(samba, tmp_path):
    """The KDC behind a cable that can be cut, and a krb5.conf that names it."""
    relay = Relay(samba.host, 88)

    def config():
        with open(samba.krb5_config, encoding="utf-8") as f:
            lines = [f"  kdc = {relay.host}:{relay.port}\n" if "kdc = " in line and "lookup" not in line else line for line in f]
        path = tmp_path / "krb5.conf"
        path.write_text("".join(lines))
        return str(path)
    relay.config = config
    yield relay
    relay.close()


def keytab_bytes(principal, realm, key, version=1):
    """MIT's keytab file format: one AES-256 key."""
    def counted(text):
        return struct.pack(">H", len(text)) + text.encode()
    parts = principal.split("/")
    entry = struct.pack(">H", len(parts)) + counted(realm) + b"".join(map(counted, parts)) + struct.pack(">IIBHH", 1, 0, version & 255, 18, len(key)) + key + struct.pack(">I", version)
    return b"\5\2" + struct.pack(">i", len(entry)) + entry


def put_private(path, data):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
        f.write(data)
    return str(path)


def own_keytab(samba, path):
    with open(samba.keytab, "rb") as f:
        return put_private(path, f.read())


def by_kerberos(samba, keytab, mechanism="gssapi", server=None, principal="svc-writeback"):
    return ["--server", server or samba.dns_name, "--ca", samba.ca, "--mechanism", mechanism, "--keytab", keytab, "--principal", f"{principal}@{samba.realm}"]


@pytest.mark.parametrize("mechanism", ["gssapi", "gss-spnego"])
def test_a_reset_by_kerberos_whatever_the_environment_says(tool, samba, tmp_path, mechanism):
    rc = tmp_path / "ldaprc"
    rc.write_text("TLS_REQCERT never\nSASL_SECPROPS minssf=256\nURI ldap://127.0.0.1:1\n")
    t = tool(*by_kerberos(samba, own_keytab(samba, tmp_path / "keytab"), mechanism), inside=samba.inside,
             env={**HOSTILE, "LDAPCONF": str(rc), "LDAPRC": str(rc), "HOME": str(tmp_path)})
    assert mechanism.upper() in t.wait_up()["text"]
    password = NEW + mechanism
    assert t.ask("locate sam bob")["status"] == "ok"
    assert t.ask(f"reset {password} unlock")["status"] == "ok"
    assert samba.opens("bob", password)
    rows = t.rows()
    assert rows["bind"]["text"] == f"as svc-writeback@{samba.realm}, {mechanism.upper()}, {tmp_path}/keytab"
    assert rows["ticket"]["ok"] and f"from the KDC of {samba.realm}, until 20" in rows["ticket"]["text"]
    assert rows["account"]["ok"]


def test_the_units_system_calls_are_enough(tool, samba, tmp_path):
    pytest.importorskip("seccomp")
    confined = [*samba.inside, "env", "ASAN_OPTIONS=detect_leaks=0", os.path.join(lab_module.HERE, "seccomp-run"), "--kill", os.path.join(lab_module.ROOT, "systemd/writebackd.service")]
    t = tool(*by_kerberos(samba, own_keytab(samba, tmp_path / "keytab")), inside=[*confined, "/usr/bin/env"])
    t.wait_up()
    t.tell("retry")
    assert t.rows()["ticket"]["ok"]


def test_the_environment_does_not_switch_verification_off(tool, samba, tmp_path, build):
    ca, _, _ = lab_module.certificate(str(tmp_path), "stranger")
    options = by_kerberos(samba, own_keytab(samba, tmp_path / "keytab"))
    options[options.index("--ca") + 1] = ca
    t = tool(*options, inside=samba.inside, env=HOSTILE)
    assert t.wait_down("certificate")["status"] == "tls.untrusted"


def test_a_wrong_key_is_tried_once_a_minute_and_mended_in_place(tool, samba, tmp_path):
    keytab = put_private(tmp_path / "keytab", keytab_bytes("svc-writeback", samba.realm, bytes(range(32))))
    t = tool(*by_kerberos(samba, keytab), inside=samba.inside)
    health = t.wait_down(f"the key in {keytab} is not that of svc-writeback@{samba.realm}: its password was changed; export the keytab anew")
    assert health["status"] == "directory.credential"
    for _ in range(5):
        assert t.ask("locate sam alice")["status"] == "directory.credential"
    bad = int(samba.read("svc-writeback", "badPwdCount").get("badPwdCount", [b"0"])[0])
    assert bad <= 2  # libkrb5 asks the KDC and, where that refuses, the primary one: the same here
    own_keytab(samba, tmp_path / "keytab")
    t.tell("retry")
    t.wait_up()


def test_a_keytab_that_went_bad_is_told_while_the_ticket_lives(tool, samba, tmp_path):
    keytab = own_keytab(samba, tmp_path / "keytab")
    t = tool(*by_kerberos(samba, keytab), inside=samba.inside)
    t.wait_up()
    assert t.rows()["ticket"]["ok"]
    put_private(keytab, keytab_bytes("svc-writeback", samba.realm, bytes(range(32))))
    t.tell("retry")
    row = wait_for("the ticket's row to fail", lambda: not (r := t.rows()["ticket"])["ok"] and r)
    assert f"; it could not be renewed: the key in {keytab} is not that of" in row["text"] and t.health()["up"]
    own_keytab(samba, tmp_path / "keytab")
    t.tell("retry")
    wait_for("the ticket's row to be good again", lambda: t.rows()["ticket"]["ok"])


def test_an_account_that_is_not_there_and_a_file_that_is_no_keytab(tool, samba, tmp_path):
    keytab = put_private(tmp_path / "keytab", keytab_bytes("nobody", samba.realm, bytes(range(32))))
    t = tool(*by_kerberos(samba, keytab, principal="nobody"), inside=samba.inside)
    assert t.wait_down(f"the KDC knows no nobody@{samba.realm}: correct bind.principal, or export {keytab} anew")["status"] == "directory.credential"
    put_private(keytab, b"secret\n")
    t.tell("retry")
    t.wait_down("is not a keytab: export it anew")
    os.unlink(keytab)
    t.tell("retry")
    t.wait_down("does not exist: export the keytab")


def test_a_server_by_another_name_has_no_ticket(tool, samba, tmp_path):
    t = tool(*by_kerberos(samba, own_keytab(samba, tmp_path / "keytab"), server="localhost:" + str(port_of(samba))), inside=samba.inside)
    assert t.wait_down("the KDC knows no service ldap/localhost: name the server in `servers` as its own account does")["status"] == "directory.unavailable"


def port_of(samba):
    """Samba's LDAPS on localhost too, whose name its certificate has."""
    if not hasattr(samba, "by_localhost"):
        samba.by_localhost = Relay(samba.host, 636)
    return samba.by_localhost.port


def test_a_stopped_kdc_holds_nothing_up(tool, samba, kdc, tmp_path, capsys):
    kdc.hold_answers()
    t = tool(*by_kerberos(samba, own_keytab(samba, tmp_path / "keytab")), inside=samba.inside, env={"KRB5_CONFIG": kdc.config()})
    health = t.wait_down(f"the KDC of {samba.realm} does not answer")
    assert f"the KDC of {samba.realm} does not answer" in t.rows()["bind"]["text"]  # also where it waits behind another connection
    assert health["status"] in ("directory.timeout", "directory.unavailable")
    assert t.ask("locate sam bob")["status"] in ("directory.unavailable", "directory.timeout")
    gap = t.ask("gap")["gap_ms"]
    with capsys.disabled():
        print(f"\ndirectory-tool: longest gap of its loop with the KDC stopped: {gap:.1f} ms (aim: below 50)", end="", flush=True)
    assert gap < 1000
    assert t.close() < 5  # a thread that waits for a KDC does not hold the end up


def test_a_bound_connection_does_not_need_the_kdc(tool, samba, kdc, tmp_path):
    t = tool(*by_kerberos(samba, own_keytab(samba, tmp_path / "keytab")), inside=samba.inside, env={"KRB5_CONFIG": kdc.config()})
    t.wait_up()
    kdc.hold_answers()
    t.tell("retry")  # asks for a new ticket, which does not come
    for _ in range(3):
        assert t.ask("locate sam bob")["status"] == "ok"
    kdc.forward()


class Interceptor:
    """Ends TLS with a certificate by the right authority and begins it anew: what a network appliance does, and what channel binding is there to notice."""

    def __init__(self, samba, folder):
        def openssl(*args):
            subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)
        authority = os.path.join(os.path.dirname(samba.ca), "ca")
        with open(os.path.join(folder, "ext"), "w") as f:
            f.write(f"subjectAltName=DNS:{samba.dns_name}\n")
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=interceptor", "-keyout", "i.key", "-out", "i.csr")
        openssl("x509", "-req", "-in", "i.csr", "-CA", authority + ".pem", "-CAkey", authority + ".key", "-CAserial", "i.srl", "-CAcreateserial", "-days", "2", "-sha256", "-extfile", "ext", "-out", "i.pem")
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(os.path.join(folder, "i.pem"), os.path.join(folder, "i.key"))
        self.client = ssl._create_unverified_context()
        self.samba, self.listener = samba, socket.create_server((samba.host, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                end, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(end,), daemon=True).start()

    def serve(self, end):
        with contextlib.suppress(OSError, ssl.SSLError), self.server.wrap_socket(end, server_side=True) as near, \
                self.client.wrap_socket(socket.create_connection((self.samba.host, 636))) as far:
            threading.Thread(target=self.pump, args=(far, near), daemon=True).start()
            self.pump(near, far)

    @staticmethod
    def pump(source, sink):
        with contextlib.suppress(OSError, ssl.SSLError, ValueError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()


def test_a_wrong_channel_binding_is_refused(tool, samba, tmp_path):
    """Samba 4.17 does not look at it; the newer one does, as Windows does where it is told to."""
    interceptor = Interceptor(samba, str(tmp_path))
    try:
        t = tool(*by_kerberos(samba, own_keytab(samba, tmp_path / "keytab"), server=f"{samba.dns_name}:{interceptor.port}"), inside=samba.inside)
        if samba.is_newer:
            health = t.wait_down("it refused the channel binding: TLS ends somewhere before it")
            assert health["status"] == "directory.credential"
        else:
            t.wait_up()
    finally:
        interceptor.close()
