/* ldap_entry: typed reading of one LDAP entry's attributes. Every peer's value is checked; what is malformed counts as absent. */
#ifndef AGENT_DIRECTORY_LDAP_ENTRY_H
#define AGENT_DIRECTORY_LDAP_ENTRY_H

#include <ldap.h>

#include "agent/account.h"

/* An entry, decoded once: libldap's own ldap_get_values_len decodes all of it for each attribute. Names and values point into the message. */
struct entry {
	struct berval dn;
	struct entry_attribute {
		struct berval name, *values; /* values: ended by one without bv_val; NULL: none */
	} *attributes;
	size_t count;
	BerElement *ber;
};

/* `message` must outlive it. What cannot be decoded is left out. */
void entry_read(LDAP *ldap, LDAPMessage *message, struct entry *ret_entry);
void entry_clear(struct entry *entry);
#define AUTO_ENTRY __attribute__((cleanup(entry_clear)))

/* NULL where absent; else an array that ends with a value without bv_val. */
const struct berval *entry_values(const struct entry *entry, const char *name);
/* The first value: malloc'ed, valid UTF-8 without U+0000, of 8 KiB at most; NULL where absent. */
char *entry_string(const struct entry *entry, const char *name);
/* Its DN, likewise. */
char *entry_dn(const struct entry *entry);
bool entry_number(const struct entry *entry, const char *name, int64_t *ret_value);
/* TRUE is true; all else false. */
bool entry_true(const struct entry *entry, const char *name);
bool entry_guid(const struct entry *entry, const char *name, uint8_t ret_guid[16]);
bool entry_sid(const struct entry *entry, const char *name, struct sid *ret_sid);
bool entry_has(const struct entry *entry, const char *name);
/* Whether one of the values is `text`, ignoring the case of ASCII letters. */
bool entry_has_value(const struct entry *entry, const char *name, const char *text);

#endif
