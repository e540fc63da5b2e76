/* A user's entry of the flavor ldap: lines "name: value", the first one the DN. What is taken has an identity, and a filter that no value gets out of. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/directory/ldap_directory.h"

enum { ATTRIBUTES_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_line(struct entry *entry, struct berval (*values)[2], char *line, size_t size)
{
	char *colon = memchr(line, ':', size);
	if (colon == NULL || entry->count == ATTRIBUTES_MAX) {
		return;
	}
	size_t name = (size_t)(colon - line), skip = name + 2 <= size && colon[1] == ' ' ? name + 2 : name + 1;
	values[entry->count][0] = (struct berval){ size - skip, line + skip };
	entry->attributes[entry->count] = (struct entry_attribute){ { name, line }, values[entry->count] };
	entry->count++;
}

static void check(const struct user_facts *facts)
{
	size_t depth = 0;
	if (facts->account.dn == NULL || !facts->account.is_entry || facts->account.guid[0] == 0) {
		abort();
	}
	for (const char *at = facts->group_filter; *at != 0; at++) {
		depth += *at == '(';
		if ((*at == ')' && depth-- == 0) || *at == '*') {
			abort();
		}
	}
	if (depth != 0) {
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct directory_settings SETTINGS = { .kind = DIRECTORY_LDAP };
	static const struct root_facts ROOT = { .kind = SERVER_OPENLDAP };
	static const struct view VIEW = { .settings = &SETTINGS, .root = &ROOT, .self = "cn=svc" };
	struct berval values[ATTRIBUTES_MAX][2] = { 0 };
	struct entry_attribute attributes[ATTRIBUTES_MAX];
	struct entry entry = { .attributes = attributes };
	struct user_facts facts;
	struct server_position position = { 0 };
	char *text = malloc(size + 1);
	if (text == NULL) {
		return 0;
	}
	memcpy(text, data, size);
	for (size_t at = 0, end; at < size; at = end + 1) {
		const char *newline = memchr(text + at, '\n', size - at);
		end = newline != NULL ? (size_t)(newline - text) : size;
		if (at == 0) {
			entry.dn = (struct berval){ end, text };
		} else {
			take_line(&entry, values, text + at, end - at);
		}
	}
	if (ldap_user_from_entry(&VIEW, &entry, &facts) == STATUS_OK) {
		check(&facts);
		ldap_complete_user(&VIEW, &facts, &position);
		user_facts_clear(&facts);
	}
	free(text);
	return 0;
}
