"""The whole agent bound by Kerberos, as an administrator sees it. In a file of its own: its Samba has the address that test_binding.py's had."""
from directories import running_lab

NEW = "Gr33n-Field-Harbour"


def test_the_whole_agent_by_kerberos(build, capsys):
    lab = running_lab("samba", kerberos="gssapi")
    try:
        assert lab.service.operate("reset", "alice@corp.example.test", new_password=NEW)["status"] == "applied"
        assert lab.directory.opens("alice", NEW)
        keytab = lab.agent.settings["directories"][0]["bind"]["keytab"]
        status, check = lab.agent.ctl("status"), lab.agent.ctl("check")
        with capsys.disabled():
            print("\n" + status + check)
        assert f"{lab.directory.dns_name} (LDAPS, GSSAPI)" in status
        assert f"as svc-writeback@{lab.directory.realm}, GSSAPI, {keytab}" in check
        assert f"from the KDC of {lab.directory.realm}, until 20" in check
        # The agent's own account is known by its principal, and is never touched.
        assert lab.service.operate("reset", "svc-writeback@corp.example.test", new_password=NEW)["status"] == "refused"
    finally:
        lab.close()
