#include "agent/directory/ad_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/directory/ldap_entry.h"
#include "agent/directory/ldap_filter.h"

static const char *const ATTRIBUTES[] = { "nETBIOSName", "dnsRoot", "uPNSuffixes", NULL };
enum { NAME_LENGTH_MAX = 255 };

enum status ad_names_search(const struct root_facts *root, struct ldap_search *ret_search)
{
	*ret_search = (struct ldap_search){ .scope = LDAP_SCOPE_SUBTREE, .attributes = ATTRIBUTES };
	if (root->configuration == NULL || root->naming_context == NULL) {
		return STATUS_LOCAL_INPUT;
	}
	AUTO_FREE char *context = ldap_filter_escape(bytes_of_string(root->naming_context));
	if (context == NULL || asprintf(&ret_search->filter, "(|(&(objectClass=crossRef)(nCName=%s))(objectClass=crossRefContainer))", context) < 0) {
		ret_search->filter = NULL;
		return STATUS_AGENT_INTERNAL;
	}
	if (asprintf(&ret_search->base, "CN=Partitions,%s", root->configuration) < 0) {
		ret_search->base = NULL;
		ldap_search_clear(ret_search);
		return STATUS_AGENT_INTERNAL;
	}
	return STATUS_OK;
}

void ad_names_read(LDAP *ldap, LDAPMessage *message, void (*visit)(const char *name, void *arg), void *arg)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	for (size_t i = 0; ATTRIBUTES[i] != NULL; i++) {
		const struct berval *values = entry_values(&entry, ATTRIBUTES[i]);
		for (; values != NULL && values->bv_val != NULL; values++) {
			if (values->bv_len == 0 || values->bv_len > NAME_LENGTH_MAX || memchr(values->bv_val, 0, values->bv_len) != NULL) {
				continue;
			}
			AUTO_FREE char *name = strndup(values->bv_val, values->bv_len);
			if (name != NULL) {
				visit(name, arg);
			}
		}
	}
}

bool ad_names_context(const char *domain, char *out, size_t capacity)
{
	size_t used = 0;
	while (*domain != 0 && used < capacity) {
		size_t size = strcspn(domain, ".");
		int written = snprintf(out + used, capacity - used, "%sDC=%.*s", used > 0 ? "," : "", (int)size, domain);
		used += written > 0 ? (size_t)written : capacity;
		domain += size + (domain[size] == '.');
	}
	return used > 0 && used < capacity;
}
