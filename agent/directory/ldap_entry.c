#include "agent/directory/ldap_entry.h"

#include <string.h>
#include <strings.h>

#include "agent/directory/ad_time.h"

static void free_values(struct berval ***values)
{
	if (*values != NULL) {
		ldap_value_free_len(*values);
	}
}
#define AUTO_VALUES __attribute__((cleanup(free_values)))

static struct bytes value_bytes(const struct berval *value)
{
	return bytes_of(value->bv_val, value->bv_len);
}

char *entry_string(LDAP *ldap, LDAPMessage *entry, const char *name)
{
	AUTO_VALUES struct berval **values = ldap_get_values_len(ldap, entry, name);
	if (values == NULL || values[0] == NULL || memchr(values[0]->bv_val, 0, values[0]->bv_len) != NULL || !utf8_valid(value_bytes(values[0]))) {
		return NULL;
	}
	return strndup(values[0]->bv_val, values[0]->bv_len);
}

char *entry_dn(LDAP *ldap, LDAPMessage *entry)
{
	char *dn = ldap_get_dn(ldap, entry);
	char *copy = dn != NULL && utf8_valid(bytes_of_string(dn)) ? strdup(dn) : NULL;
	ldap_memfree(dn);
	return copy;
}

bool entry_number(LDAP *ldap, LDAPMessage *entry, const char *name, int64_t *ret_value)
{
	AUTO_FREE char *text = entry_string(ldap, entry, name);
	return text != NULL && ad_number(text, ret_value);
}

bool entry_true(LDAP *ldap, LDAPMessage *entry, const char *name)
{
	return entry_has_value(ldap, entry, name, "TRUE");
}

bool entry_guid(LDAP *ldap, LDAPMessage *entry, const char *name, uint8_t ret_guid[16])
{
	AUTO_VALUES struct berval **values = ldap_get_values_len(ldap, entry, name);
	if (values == NULL || values[0] == NULL || values[0]->bv_len != 16) {
		return false;
	}
	memcpy(ret_guid, values[0]->bv_val, 16);
	return true;
}

bool entry_sid(LDAP *ldap, LDAPMessage *entry, const char *name, struct sid *ret_sid)
{
	AUTO_VALUES struct berval **values = ldap_get_values_len(ldap, entry, name);
	return values != NULL && values[0] != NULL && sid_from_octets(value_bytes(values[0]), ret_sid) == STATUS_OK;
}

bool entry_has(LDAP *ldap, LDAPMessage *entry, const char *name)
{
	AUTO_VALUES struct berval **values = ldap_get_values_len(ldap, entry, name);
	return values != NULL && values[0] != NULL;
}

bool entry_has_value(LDAP *ldap, LDAPMessage *entry, const char *name, const char *text)
{
	AUTO_VALUES struct berval **values = ldap_get_values_len(ldap, entry, name);
	size_t size = strlen(text);
	for (size_t i = 0; values != NULL && values[i] != NULL; i++) {
		if (values[i]->bv_len == size && strncasecmp(values[i]->bv_val, text, size) == 0) {
			return true;
		}
	}
	return false;
}
