/* ldap_entry: typed reading of one LDAP entry's attributes. Every peer's value is checked; what is malformed counts as absent. */
#ifndef AGENT_DIRECTORY_LDAP_ENTRY_H
#define AGENT_DIRECTORY_LDAP_ENTRY_H

#include <ldap.h>

#include "agent/account.h"

/* The first value: malloc'ed, valid UTF-8 without U+0000; NULL where absent. */
char *entry_string(LDAP *ldap, LDAPMessage *entry, const char *name);
/* Its DN, likewise. */
char *entry_dn(LDAP *ldap, LDAPMessage *entry);
bool entry_number(LDAP *ldap, LDAPMessage *entry, const char *name, int64_t *ret_value);
/* TRUE is true; all else false. */
bool entry_true(LDAP *ldap, LDAPMessage *entry, const char *name);
bool entry_guid(LDAP *ldap, LDAPMessage *entry, const char *name, uint8_t ret_guid[16]);
bool entry_sid(LDAP *ldap, LDAPMessage *entry, const char *name, struct sid *ret_sid);
bool entry_has(LDAP *ldap, LDAPMessage *entry, const char *name);
/* Whether one of the values is `text`, ignoring the case of ASCII letters. */
bool entry_has_value(LDAP *ldap, LDAPMessage *entry, const char *name, const char *text);

#endif
