#include "agent/directory/ldap_entry.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/ad_time.h"

enum { NUMBER_SIZE = 24, FIRST_CAPACITY = 32, TEXT_MAX = 8192 };

static bool add_attribute(struct entry *entry, size_t *capacity, struct berval name, struct berval *take_values)
{
	if (entry->count == *capacity) {
		size_t more = *capacity == 0 ? FIRST_CAPACITY : *capacity * 2;
		struct entry_attribute *grown = realloc(entry->attributes, more * sizeof *grown);
		if (grown == NULL) {
			ber_memfree(take_values);
			return false;
		}
		entry->attributes = grown;
		*capacity = more;
	}
	entry->attributes[entry->count++] = (struct entry_attribute){ name, take_values };
	return true;
}

void entry_read(LDAP *ldap, LDAPMessage *message, struct entry *ret_entry)
{
	size_t capacity = 0;
	*ret_entry = (struct entry){ 0 };
	if (ldap_get_dn_ber(ldap, message, &ret_entry->ber, &ret_entry->dn) != LDAP_SUCCESS) {
		ret_entry->dn = (struct berval){ 0 };
		return;
	}
	for (;;) {
		struct berval name = { 0 }, *values = NULL;
		int result = ldap_get_attribute_ber(ldap, message, ret_entry->ber, &name, &values);
		if (result != LDAP_SUCCESS || name.bv_val == NULL || !add_attribute(ret_entry, &capacity, name, values)) {
			return;
		}
	}
}

void entry_clear(struct entry *entry)
{
	for (size_t i = 0; i < entry->count; i++) {
		ber_memfree(entry->attributes[i].values);
	}
	free(entry->attributes);
	ber_free(entry->ber, 0);
	*entry = (struct entry){ 0 };
}

const struct berval *entry_values(const struct entry *entry, const char *name)
{
	size_t size = strlen(name);
	for (size_t i = 0; i < entry->count; i++) {
		const struct entry_attribute *attribute = &entry->attributes[i];
		if (attribute->name.bv_len == size && strncasecmp(attribute->name.bv_val, name, size) == 0) {
			return attribute->values != NULL && attribute->values[0].bv_val != NULL ? attribute->values : NULL;
		}
	}
	return NULL;
}

static struct bytes value_bytes(const struct berval *value)
{
	return bytes_of(value->bv_val, value->bv_len);
}

static char *text_copy(const struct berval *value)
{
	bool good = value->bv_val != NULL && value->bv_len <= TEXT_MAX && memchr(value->bv_val, 0, value->bv_len) == NULL && utf8_valid(value_bytes(value));
	return good ? strndup(value->bv_val, value->bv_len) : NULL;
}

char *entry_string(const struct entry *entry, const char *name)
{
	const struct berval *values = entry_values(entry, name);
	return values != NULL ? text_copy(values) : NULL;
}

char *entry_dn(const struct entry *entry)
{
	return text_copy(&entry->dn);
}

bool entry_number(const struct entry *entry, const char *name, int64_t *ret_value)
{
	const struct berval *values = entry_values(entry, name);
	char text[NUMBER_SIZE];
	if (values == NULL || values[0].bv_len >= sizeof text || memchr(values[0].bv_val, 0, values[0].bv_len) != NULL) {
		return false;
	}
	memcpy(text, values[0].bv_val, values[0].bv_len);
	text[values[0].bv_len] = '\0';
	return ad_number(text, ret_value);
}

bool entry_true(const struct entry *entry, const char *name)
{
	return entry_has_value(entry, name, "TRUE");
}

bool entry_guid(const struct entry *entry, const char *name, uint8_t ret_guid[16])
{
	const struct berval *values = entry_values(entry, name);
	if (values == NULL || values[0].bv_len != 16) {
		return false;
	}
	memcpy(ret_guid, values[0].bv_val, 16);
	return true;
}

bool entry_sid(const struct entry *entry, const char *name, struct sid *ret_sid)
{
	const struct berval *values = entry_values(entry, name);
	return values != NULL && sid_from_octets(value_bytes(values), ret_sid) == STATUS_OK;
}

bool entry_has(const struct entry *entry, const char *name)
{
	return entry_values(entry, name) != NULL;
}

bool entry_has_value(const struct entry *entry, const char *name, const char *text)
{
	const struct berval *value = entry_values(entry, name);
	size_t size = strlen(text);
	for (; value != NULL && value->bv_val != NULL; value++) {
		if (value->bv_len == size && strncasecmp(value->bv_val, text, size) == 0) {
			return true;
		}
	}
	return false;
}
