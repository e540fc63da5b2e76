"""Names and passwords that a careless hand breaks: found, judged by their place, and written, byte for byte, on each directory."""
import unicodedata

import ldap, ldap.filter
import pytest

from lab import BASE, DOMAIN, NETBIOS

NEW = "Gr33n-Field-Harbour"
ODD_OU = r'OU=Odd\, \"Unit\" \+ \#1 \<x\>\; \\2 \= /,' + f"OU=People,{BASE}"
# userPrincipalName's first part and sAMAccountName; what is odd about the CN stands in users.yaml.
NAMES = {"first.last": "odd-comma", "hash": "odd-hash", "plus": "odd-plus", "blank": "odd-blank", "paren": "odd-filter", "slash": "odd-slash", "lead": "odd-lead", "cr": "odd-cr", "lf": "odd-lf",
         "crlf": "odd-crlf", "wide": "odd-wide", "inner": "odd-inner", "zoe": "zoe", "o'neil": "o'neil", "under_score+tag": "odd-upn"}


def upn(name):
    return f"{name}@{DOMAIN}"


def dn_of(lab, sam):
    connection = lab.directory.connect()
    try:
        return next(dn for dn, _ in connection.search_s(BASE, ldap.SCOPE_SUBTREE, ldap.filter.filter_format("(sAMAccountName=%s)", [sam]), ["1.1"]) if dn)
    finally:
        connection.unbind_s()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_found_and_written_by_every_way(lab, name):
    sam = NAMES[name]
    guid, before = lab.directory.guid(sam), lab.directory.password_record(sam)[0]
    for sub_id in ({"format": "objectGUID", "id": guid}, {"format": "mS-DS-ConsistencyGuid", "id": guid}, {"format": "sAMAccountName", "domain": NETBIOS, "id": sam}, {"format": "userPrincipalName", "id": upn(name)}):
        answer = lab.service.operate("unlock", sub_id)
        assert (answer["code"], answer["user"]["object_guid"]) == ("ok", guid), sub_id
    assert lab.service.operate("reset", upn(name), new_password=NEW)["code"] == "ok"
    assert lab.directory.password_record(sam)[0] == before + 1
    assert lab.directory.opens(name, NEW)


def test_each_dn_is_a_base_of_the_scope(lab, rescope):
    """As the directory itself prints it; with the base of one the others are out of scope."""
    dns = {sam: dn_of(lab, sam) for sam in NAMES.values()}
    assert len(set(dns.values())) == len(dns)
    rescope(bases=list(dns.values()))
    assert {name: lab.service.operate("unlock", upn(name))["code"] for name in NAMES} == dict.fromkeys(NAMES, "ok")
    assert lab.service.operate("unlock", upn("dave"))["code"] == "user.out_of_scope"
    rescope(exclude_bases=list(dns.values()))
    assert {name: lab.service.operate("unlock", upn(name))["code"] for name in NAMES} == dict.fromkeys(NAMES, "user.out_of_scope")
    assert lab.service.operate("unlock", upn("dave"))["code"] == "ok"


@pytest.mark.parametrize("written", [ODD_OU, ODD_OU.upper(), r"OU=Odd\2C \22Unit\22 \2B \231 \3Cx\3E\3B \5C2 \3D \2F," + f"OU=People,{BASE}"])
def test_an_odd_unit_is_a_base_however_it_is_written(lab, rescope, written):
    rescope(bases=[written])
    assert lab.service.operate("unlock", upn("inner"))["code"] == "ok"
    assert lab.service.operate("unlock", upn("dave"))["code"] == "user.out_of_scope"
    assert lab.service.operate("unlock", upn("first.last"))["code"] == "user.out_of_scope"


@pytest.mark.parametrize("sub_id", [{"format": "userPrincipalName", "id": upn("nobody")}, {"format": "sAMAccountName", "domain": NETBIOS, "id": "odd-*"}, {"format": "sAMAccountName", "domain": NETBIOS, "id": "Last, First"},
                                    {"format": "sAMAccountName", "domain": "OTHER", "id": "zoe"}, {"format": "objectGUID", "id": "00000000-0000-0000-0000-000000000000"}])
def test_no_match_is_refused(lab, sub_id):
    assert lab.service.operate("unlock", sub_id)["code"] == "user.not_found"


# Passwords -----------------------------------------------------------------------------------------------------------------------------------

PASSWORDS = {
    "quotes": '"Quo"te\'s"93x"', "only quotes": '"""""""Aa1', "backslashes": "\\u0041\\n\\\\Aa-93", "percent": "%s%n%x-Aa-93", "composed": "Gr\u00fcn-Harbour-93", "decomposed": "Gru\u0308n-Harbour-93",
    "marks out of order": "q\u0307\u0323-Harbour-93", "a mark first": "\u0301Harbour-Aa-93", "surrogate pairs": "\U0001f4a9\U00010348\U0010fffd-Aa-93", "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467-Aa-93",
    "right to left": "\u05e9\u05dc\u05d5\u05dd-\u202eAa-93", "han": "\u6f22\u5b57\u6f22\u5b57-Aa-93", "hangul": "\ud55c\uae00\u1112\u1161\u11ab-Aa-93", "compatibility": "\ufb01\u2126\u212b-Aa-93xx",
    "blanks around": "  Blank-Harbour-93  ", "controls": "Tab\tLine\r\nBell\x07-Aa-93", "a byte order mark": "\ufeffHarbour-Aa-93", "noncharacters": "\uffff\ufdd0-Harbour-Aa-93", "128 pairs": "\U0001f600" * 126 + "Aa-9",
    "256 units": "x" * 250 + "Ab1-xy", "json": '{"new_password":"Aa-93"}', "xml": "<a>&amp;</a>-Aa-93",
}


@pytest.mark.parametrize("number,name", enumerate(PASSWORDS))
def test_a_password_is_written_byte_for_byte(lab, number, name):
    """A bind with exactly that password opens the account; with its other normal form it does not, and the result says that it has one."""
    user, password = f"bench{number + 25:03}", PASSWORDS[name]
    answer = lab.service.operate("reset", upn(user), new_password=password)
    assert answer["code"] == "ok"
    assert lab.directory.opens(user, password)
    warned = "password_not_nfc" in answer.get("warnings", [])
    assert warned == (not unicodedata.is_normalized("NFC", password))
    if warned:
        assert not lab.directory.opens(user, unicodedata.normalize("NFC", password))
    if lab.kind == "mock" and all(ord(c) >= 0x20 for c in password):
        stored = lab.directory.control(f"user {user}")
        assert password not in stored


@pytest.mark.parametrize("password", ["", "x" * 253 + "Aa-9", "\U0001f600" * 127 + "Aa-", "nul\0-Harbour-Aa-93", "half\ud83d-Aa-93"])
def test_what_is_no_password_is_refused(lab, password):
    """Nothing of it reaches the directory: the service or the agent says no."""
    before = lab.directory.password_record("bench024")
    try:
        answer = lab.service.operate("reset", upn("bench024"), new_password=password)
    except ValueError as refused:
        assert str(refused).startswith("400")
    else:
        assert answer["status"] == "refused" and answer["code"].startswith("request."), answer
    assert lab.directory.password_record("bench024") == before
