"""EXTERNAL to slapd by a client certificate, and revocation lists for the server's own: what is accepted, what is refused, and in which words."""
import os, subprocess, sys

import pytest

from lab import BUILD, Late, free_port, wait_for

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "support", "ldap"))
import servers  # noqa: E402
from ldap_lab import LdapLab, outcome  # noqa: E402

AUTHORITY = """
[ca]
default_ca = this
[this]
dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
crlnumber = {folder}/crlnumber
new_certs_dir = {folder}
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
default_days = 7
default_crl_days = 7
policy = any
copy_extensions = copy
unique_subject = no
[any]
organizationName = optional
commonName = supplied
"""


class Authority:
    """A CA that can revoke: folder/ca.pem, folder/NAME.pem, folder/NAME.key, folder/crl.pem."""

    def __init__(self, folder):
        self.folder = str(folder)
        os.makedirs(self.folder)
        self.put("openssl.cnf", AUTHORITY.format(folder=self.folder))
        self.put("index.txt", "")
        self.put("serial", "1000\n")
        self.put("crlnumber", "01\n")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7", "-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem",
                     "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.ca = self.path("ca.pem")

    def path(self, name):
        return os.path.join(self.folder, name)

    def put(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def openssl(self, *args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=self.folder)

    def issue(self, name, subject, san=None):
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr",
                     *(["-addext", f"subjectAltName={san}"] if san else []))
        os.chmod(self.path(f"{name}.key"), 0o600)
        self.openssl("ca", "-batch", "-config", "openssl.cnf", "-in", f"{name}.csr", "-out", f"{name}.pem", "-notext")
        return self.path(f"{name}.pem"), self.path(f"{name}.key")

    def crl(self, revoke=None, expired=False):
        if revoke:
            self.openssl("ca", "-config", "openssl.cnf", "-revoke", f"{revoke}.pem")
        times = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z"] if expired else []
        self.openssl("ca", "-config", "openssl.cnf", "-gencrl", "-out", "crl.pem", *times)
        return self.path("crl.pem")


class Slapd:
    """OpenLDAP with three entries, which maps the certificate /O=test/CN=agent to cn=agent,dc=example,dc=test."""

    def __init__(self, folder, authority, client_ca):
        os.makedirs(os.path.join(folder, "db"))
        self.port = free_port()
        certificate, key = authority.issue("server", "/CN=server", "DNS:localhost")
        conf = os.path.join(folder, "slapd.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(f"""include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile {client_ca}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
TLSVerifyClient try
authz-regexp "^cn=agent,o=test$" "cn=agent,dc=example,dc=test"
database mdb
suffix dc=example,dc=test
rootdn cn=root,dc=example,dc=test
directory {folder}/db
access to * by users read by * none
""")
        entries = "dn: dc=example,dc=test\nobjectClass: domain\ndc: example\n\n" + "".join(
            f"dn: {rdn},dc=example,dc=test\nobjectClass: inetOrgPerson\ncn: {name}\nsn: {name}\nuid: {name}\n\n" for rdn, name in (("cn=agent", "agent"), ("uid=alice", "alice")))
        subprocess.run(["slapadd", "-f", conf], input=entries, text=True, check=True, capture_output=True)
        self.log = open(os.path.join(folder, "slapd.log"), "w+")
        self.process = subprocess.Popen(["slapd", "-f", conf, "-h", f"ldaps://localhost:{self.port}", "-d", "0"], stdout=self.log, stderr=self.log)
        wait_for("slapd to answer", self.answers, 15)

    def answers(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise Late(f"slapd ended with {self.process.returncode}: {self.log.read()}")
        return subprocess.run(["ldapsearch", "-x", "-H", f"ldaps://localhost:{self.port}", "-s", "base", "-b", ""], env={**os.environ, "LDAPTLS_REQCERT": "never"},
                              capture_output=True, timeout=10).returncode == 0

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def slapd(authority, tmp_path_factory):
    if not os.path.exists("/usr/sbin/slapd"):
        pytest.skip("slapd is not installed")
    server = Slapd(str(tmp_path_factory.mktemp("slapd")), authority, authority.ca)
    yield server
    server.close()


def external(slapd, authority, certificate, key, *more):
    return ["--flavor", "ldap", "--base", "dc=example,dc=test", "--server", f"localhost:{slapd.port}", "--ca", authority.ca, "--mechanism", "external", "--certificate", certificate,
            "--key", key, *more]


def test_a_certificate_binds_and_the_server_tells_as_whom(tool, slapd, authority):
    certificate, key = authority.issue("agent", "/O=test/CN=agent")
    t = tool(*external(slapd, authority, certificate, key))
    assert "(LDAPS, EXTERNAL)" in t.wait_up()["text"]
    rows = t.rows()
    assert rows["bind"]["text"] == f"as cn=agent,dc=example,dc=test, EXTERNAL, {certificate}"
    assert rows["account"]["ok"]
    assert t.ask("locate uid alice")["status"] == "ok"


def test_an_account_that_the_directory_does_not_tell_is_named_by_bind_dn(tool, slapd, authority):
    certificate, key = authority.issue("unmapped", "/O=test/CN=unmapped")
    t = tool(*external(slapd, authority, certificate, key))
    assert "cannot be found: everybody is protected" in t.wait_up()["text"]
    t = tool(*external(slapd, authority, certificate, key, "--bind", "cn=agent,dc=example,dc=test"))
    assert "everybody is protected" not in t.wait_up()["text"]


def test_a_certificate_of_another_authority_binds_nobody(tool, slapd, authority, tmp_path):
    certificate, key = Authority(tmp_path / "other").issue("agent", "/O=test/CN=agent")
    t = tool(*external(slapd, authority, certificate, key))
    assert t.wait_down(f"it closed the connection during the bind: it may not trust the certificate in {certificate[:100]}")["status"] == "directory.unavailable"


def test_a_certificate_is_read_again_when_it_was_renewed(tool, slapd, authority, tmp_path):
    other, other_key = Authority(tmp_path / "other").issue("agent", "/O=test/CN=agent")
    certificate, key = authority.issue("late", "/O=test/CN=agent")
    shown, shown_key = str(tmp_path / "shown.pem"), str(tmp_path / "shown.key")

    def show(pair):
        for source, target in zip(pair, (shown, shown_key)):
            with open(source, "rb") as f, open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as g:
                g.write(f.read())
    show((other, other_key))
    t = tool(*external(slapd, authority, shown, shown_key))
    t.wait_down("it may not trust the certificate")
    show((certificate, other_key))
    t.tell("retry")
    wait_for("the word about the key", lambda: t.health() and f"{shown_key}: is not the key of {shown}" in t.log_text(), 5)
    show((certificate, key))
    t.tell("retry")
    t.wait_up()


def test_a_revocation_list_that_revokes_nobody_lets_the_server_pass(tool, slapd, authority):
    certificate, key = authority.issue("agent2", "/O=test/CN=agent")
    tool(*external(slapd, authority, certificate, key, "--crl", authority.crl())).wait_up()


def test_a_revocation_list_that_has_expired_is_named(tool, slapd, authority):
    certificate, key = authority.issue("agent3", "/O=test/CN=agent")
    crl = authority.crl(expired=True)
    health = tool(*external(slapd, authority, certificate, key, "--crl", crl)).wait_down(f"CRL has expired (crl_file: {crl[:70]}")
    assert health["status"] == "tls.revoked"


def test_a_list_that_misses_the_servers_authority_is_named(tool, slapd, authority, tmp_path):
    certificate, key = authority.issue("agent4", "/O=test/CN=agent")
    crl = Authority(tmp_path / "other").crl()
    assert tool(*external(slapd, authority, certificate, key, "--crl", crl)).wait_down("crl_file: ")["status"] == "tls.revoked"


def test_a_revoked_server_is_refused(tool, slapd, authority):
    """The last one: the authority does not take it back."""
    certificate, key = authority.issue("agent5", "/O=test/CN=agent")
    t = tool(*external(slapd, authority, certificate, key, "--crl", authority.crl()))
    t.wait_up()
    crl = authority.crl(revoke="server")
    t.tell("retry")  # reads the list again, for the next connection
    rows = t.rows()
    assert not rows["tls"]["ok"] and f"certificate revoked (crl_file: {crl[:70]}" in rows["tls"]["text"]


class TrustingOpenLdap(servers.OpenLdap):
    """Maps the certificate /O=test/CN=agent to the service's account."""

    def client_certificates(self):
        trusted = os.path.join(self.folder, "trusted.pem")
        with open(trusted, "w", encoding="utf-8") as f:
            f.write("".join(open(path, encoding="utf-8").read() for path in (self.ca, self.authority.ca)))
        return f'TLSCACertificateFile {trusted}\nTLSVerifyClient try\nauthz-regexp "^cn=agent,o=test$" "{self.bind_dn}"'


def test_the_whole_agent_by_a_certificate(authority, monkeypatch):
    """There is no bind.dn and no password: whom it is bound as the server tells."""
    if not os.path.exists("/usr/sbin/slapd"):
        pytest.skip("slapd is not installed")
    certificate, key = authority.issue("whole", "/O=test/CN=agent")
    monkeypatch.setitem(servers.KINDS, "trusting", type("Trusting", (TrustingOpenLdap,), {"authority": authority}))

    class ExternalLab(LdapLab):
        def start_directory(self):
            super().start_directory()
            self.agent_options["directory_settings"]["bind"] = {"mechanism": "external", "certificate": certificate, "key": key}

    with ExternalLab(BUILD, "trusting") as lab:
        lab.start()
        assert outcome(lab.ask("reset", "alice", new_password="New-Marble-Step-1")) == ("applied", "ok") and lab.directory.opens("alice", "New-Marble-Step-1")
        assert outcome(lab.ask("change", "alice", old_password="New-Marble-Step-1", new_password="New-Marble-Step-2")) == ("applied", "ok")
        lab.directory.lock("bob")
        assert lab.ask("unlock", "bob")["was_locked"] is True and lab.directory.opens("bob", servers.BENCH_PASSWORD)
        assert outcome(lab.ask("reset", "gina", new_password="New-Marble-Step-1")) == ("refused", "user.protected")
        assert f"as {lab.directory.bind_dn}, EXTERNAL" in lab.agent.ctl("check", check=False)
