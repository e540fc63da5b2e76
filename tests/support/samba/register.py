#!/usr/bin/python3
"""register.py SMB.CONF DOMAIN NETBIOS HOST IP [rodc]: what a controller's dnsupdate and spnupdate would do, straight into the first controller's database (also while it
runs): the servicePrincipalNames of LDAP, by name and by address, and the DNS records by which it is found. Records of another address are replaced."""
import sys

import ldb
from samba import WERRORError
from samba.auth import system_session
from samba.ndr import ndr_pack
from samba.param import LoadParm
from samba.provision.sambadns import ARecord, CNAMERecord, SRVRecord
from samba.samdb import SamDB

SITE = "Default-First-Site-Name._sites."
# (name below the domain, port); a read-only controller stands under its site only.
OF_SITE = [(f"_ldap._tcp.{SITE}", 389), (f"_ldap._tcp.{SITE}dc._msdcs.", 389), (f"_kerberos._tcp.{SITE}", 88), (f"_kerberos._tcp.{SITE}dc._msdcs.", 88),
           (f"_gc._tcp.{SITE}", 3268)]
OF_DOMAIN = [("_ldap._tcp.", 389), ("_ldap._tcp.dc._msdcs.", 389), ("_kerberos._tcp.", 88), ("_kerberos._udp.", 88), ("_kerberos._tcp.dc._msdcs.", 88),
             ("_kpasswd._tcp.", 464), ("_kpasswd._udp.", 464), ("_gc._tcp.", 3268), ("_ldap._tcp.gc._msdcs.", 3268)]


def principals(db, base, host, name, domain, netbios, ip):
    account = db.search(base, expression=f"(sAMAccountName={host}$)", attrs=["servicePrincipalName"])[0]
    have = {str(value).lower() for value in account.get("servicePrincipalName", [])}
    wanted = [f"ldap/{name}", f"ldap/{host.upper()}", f"ldap/{name}/{domain}", f"ldap/{name}/{netbios}", f"GC/{name}/{domain}", f"ldap/{ip}"]
    new = [value for value in wanted if value.lower() not in have]
    if new:
        message = ldb.Message()
        message.dn = account.dn
        message["spn"] = ldb.MessageElement(new, ldb.FLAG_MOD_ADD, "servicePrincipalName")
        db.modify(message)


def add(db, base, name, record, stays, zone, partition="Domain"):
    """The record, beside those of others that stay."""
    try:
        _, records = db.dns_lookup(name)
        db.dns_replace(name, [r for r in records if r.wType != record.wType or stays(r)] + [record])
    except WERRORError:
        db.add({"dn": f"DC={name[:-len(zone) - 1]},DC={zone},CN=MicrosoftDNS,DC={partition}DnsZones,{base}", "objectClass": "dnsNode", "dnsRecord": ndr_pack(record)})


def main():
    conf, domain, netbios, host, ip = sys.argv[1:6]
    read_only = sys.argv[6:] == ["rodc"]
    lp = LoadParm()
    lp.load(conf)
    db = SamDB(session_info=system_session(), lp=lp)
    base, name, first = str(db.domain_dn()), f"{host}.{domain}", host == "dc1"
    principals(db, base, host, name, domain, netbios, ip)
    settings = f"CN=NTDS Settings,CN={host},CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,{base}"
    guid = db.schema_format_value("objectGUID", db.search(settings, ldb.SCOPE_BASE, attrs=["objectGUID"])[0]["objectGUID"][0]).decode()
    add(db, base, name, ARecord(ip), lambda r: False, domain)
    # By this name the others find it for replication; samba-tool's join leaves it out for a loopback address.
    add(db, base, f"{guid}._msdcs.{domain}", CNAMERecord(name), lambda r: False, f"_msdcs.{domain}", "Forest")
    for below, port in OF_SITE + ([] if read_only else OF_DOMAIN):
        add(db, base, below + domain, SRVRecord(name, port), lambda r: r.data.nameTarget.lower() != name.lower(), domain)
    if not read_only:
        for shared in (domain, f"gc._msdcs.{domain}"):
            add(db, base, shared, ARecord(ip), lambda r: not first and r.data != ip, domain)


if __name__ == "__main__":
    main()
