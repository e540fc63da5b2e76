"""The laboratory's controllers (tests/support/samba/samba-dc), asked without the agent: the tests of Kerberos, discovery and failover rest on what stands here."""
import os, shutil, signal, subprocess, tempfile

import dns.resolver
import ldap
import pytest

from directories import SAMBAS, missing
from lab import BASE, DOMAIN, Program, SambaDirectory, forest_password, newer_samba, samba_template, wait_for

NEW = "Gr33n-Field-Harbour"
SITE = "Default-First-Site-Name._sites"


@pytest.fixture(scope="module", params=SAMBAS)
def folder(request):
    if missing(request.param):
        pytest.skip(missing(request.param))
    folder = tempfile.mkdtemp(prefix="writebackd-dc-")
    yield folder, newer_samba() if request.param == "samba-newer" else ""
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def dc1(folder):
    path, root = folder
    controller = SambaDirectory(os.path.join(path, "dc1"), like=samba_template(root), root=root)
    yield controller
    controller.close()


@pytest.fixture(scope="module")
def dc2(dc1):
    controller = SambaDirectory(dc1.folder[:-1] + "2", of=dc1)
    yield controller
    controller.close()


@pytest.fixture(scope="module")
def dc3(dc2, dc1):
    controller = SambaDirectory(dc1.folder[:-1] + "3", of=dc1, read_only=True)
    yield controller
    controller.close()


def records(controller, name, kind="SRV"):
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.lifetime = [controller.host], 5
    try:
        return sorted(str(record).split()[-1].rstrip(".") for record in resolver.resolve(f"{name}.{DOMAIN}".lstrip("."), kind))
    except dns.resolver.NXDOMAIN:
        return []


def by_kerberos(controller, keytab, of=None, binding="tls-endpoint"):
    """ldapsearch's exit status and words, bound with a keytab."""
    env = {**os.environ, "KRB5_CLIENT_KTNAME": keytab, "KRB5CCNAME": "MEMORY:"}
    done = subprocess.run([*(of or controller).inside, "ldapsearch", "-Q", "-Y", "GSSAPI", "-O", "maxssf=0", "-o", f"SASL_CBINDING={binding}", "-o", "nettimeout=5",
                           "-H", f"ldaps://{controller.dns_name}", "-LLL", "-s", "base", "-b", "", "dnsHostName"],
                          env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
    return done.returncode, done.stdout


def test_names_and_keys(dc1, folder):
    assert records(dc1, "dc1", "A") == records(dc1, "", "A") == [dc1.host]
    for name in ("_ldap._tcp.dc._msdcs", "_ldap._tcp.pdc._msdcs", f"_ldap._tcp.{SITE}", f"_ldap._tcp.{SITE}.dc._msdcs", "_kerberos._tcp", "_gc._tcp"):
        assert records(dc1, name) == [f"dc1.{DOMAIN}"], name
    for user in ("svc-writeback", "alice"):
        status, said = by_kerberos(dc1, os.path.join(dc1.folder, "keytabs", user + ".keytab"))
        assert status == 0 and f"dnsHostName: {dc1.dns_name}" in said
    assert by_kerberos(dc1, "/nonexistent")[0] != 0
    # Only the newer one looks at channel bindings.
    assert (by_kerberos(dc1, dc1.keytab, binding="none")[0] == 0) is (folder[1] == "")


def test_what_runs_inside_is_the_process_itself(dc1):
    program = Program(dc1.folder, "inside", [*dc1.inside, "sh", "-c", "getent hosts dc1; grep -c . $KRB5_CONFIG; exec sleep 60"])
    wait_for("its words", lambda: dc1.host in program.output() and len(program.output().splitlines()) == 2)
    program.signal(signal.SIGTERM)
    assert program.process.wait(10) == -signal.SIGTERM


def test_a_killed_one_comes_back(dc1):
    assert dc1.opens("bob", forest_password("bob"))
    dc1.kill()
    with pytest.raises(ldap.SERVER_DOWN):
        dc1.connect()
    dc1.start()
    assert dc1.opens("bob", forest_password("bob"))


def test_certificates_that_are_wrong(dc1):
    for words in (["other.name"], [dc1.dns_name, "another"]):
        dc1.run("certificate", *words)
        dc1.stop()
        dc1.start()
        with pytest.raises(ldap.SERVER_DOWN):
            dc1.connect()
    dc1.run("certificate")
    dc1.stop()
    dc1.start()
    dc1.connect().unbind_s()


def test_a_second_controller(dc1, dc2):
    assert (dc2.dns_name, dc2.host) != (dc1.dns_name, dc1.host)
    for name in ("_ldap._tcp.dc._msdcs", f"_ldap._tcp.{SITE}"):
        assert records(dc1, name) == [dc1.dns_name, dc2.dns_name]
    assert records(dc1, "_ldap._tcp.pdc._msdcs") == [dc1.dns_name]
    assert by_kerberos(dc2, dc2.keytab)[0] == 0
    for one, other in ((dc1, dc2), (dc2, dc1)):
        version = one.password_record("bench001")[0]
        connection = one.connect()
        connection.modify_s(f"CN=bench001,OU=People,{BASE}", [(ldap.MOD_REPLACE, "unicodePwd", f'"{NEW}"'.encode("utf-16-le"))])
        connection.unbind_s()
        other.sync()
        assert other.password_record("bench001") == one.password_record("bench001") and one.password_record("bench001")[0] == version + 1


def test_a_stale_controller(dc1, dc2):
    dc2.hold()
    before = dc2.password_record("bench002")
    connection = dc1.connect()
    connection.modify_s(f"CN=bench002,OU=People,{BASE}", [(ldap.MOD_REPLACE, "unicodePwd", f'"{NEW}"'.encode("utf-16-le"))])
    connection.unbind_s()
    with pytest.raises(Exception, match="WERR_DS_DRA_SINK_DISABLED"):
        dc2.sync()
    assert dc2.password_record("bench002") == before
    dc2.release()
    dc2.sync()
    assert dc2.password_record("bench002") == dc1.password_record("bench002") != before


def test_a_read_only_controller(dc1, dc3):
    assert dc3.dns_name in records(dc1, f"_ldap._tcp.{SITE}") and dc3.dns_name not in records(dc1, "_ldap._tcp.dc._msdcs")
    connection = dc3.connect()
    settings = connection.search_s("", ldap.SCOPE_BASE, "(objectClass=*)", ["dsServiceName"])[0][1]["dsServiceName"][0].decode()
    assert connection.search_s(settings, ldap.SCOPE_BASE, "(objectClass=*)", ["msDS-isRODC"])[0][1]["msDS-isRODC"] == [b"TRUE"]
    with pytest.raises(ldap.REFERRAL):
        connection.modify_s(f"CN=alice,OU=People,{BASE}", [(ldap.MOD_REPLACE, "unicodePwd", f'"{NEW}"'.encode("utf-16-le"))])
    connection.unbind_s()
