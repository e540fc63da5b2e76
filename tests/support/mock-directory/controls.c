#include "server.h"

#include <string.h>

#define SD_FLAGS "1.2.840.113556.1.4.801"
#define POLICY_HINTS "1.2.840.113556.1.4.2239"
#define POLICY_HINTS_DEPRECATED "1.2.840.113556.1.4.2066"

const char *const controls_supported[] = {
	LDAP_CONTROL_PAGEDRESULTS,  /* 1.2.840.113556.1.4.319 */
	SD_FLAGS,
	"1.2.840.113556.1.4.417",   /* show deleted */
	"1.2.840.113556.1.4.1339",  /* domain scope: no references */
	"1.2.840.113556.1.4.1340",  /* search options */
	"1.2.840.113556.1.4.1413",  /* permissive modify */
	POLICY_HINTS_DEPRECATED,
	POLICY_HINTS,
	NULL,
};

static bool is_hints(const char *oid)
{
	return !strcmp(oid, POLICY_HINTS) || !strcmp(oid, POLICY_HINTS_DEPRECATED);
}

bool controls_offered(const struct server *server, const char *oid)
{
	return server->policy_hints || !is_hints(oid);
}

const struct control *controls_find(const struct request *request, const char *oid)
{
	for (size_t i = 0; i < request->control_count; i++)
		if (value_is(request->controls[i].oid, oid))
			return &request->controls[i];
	return NULL;
}

/* SEQUENCE { Flags INTEGER }, also with Microsoft's long lengths. */
static bool read_hints(struct value value, ber_int_t *ret_flags)
{
	BerElement *ber = message_reader(value.data, value.size);
	bool good = ber_scanf(ber, "{i}", ret_flags) != LBER_ERROR;
	ber_free(ber, 0);
	return good;
}

unsigned controls_descriptor_parts(const struct request *request)
{
	const struct control *control = controls_find(request, SD_FLAGS);
	ber_int_t parts = 0xf;
	return control && control->has_value && read_hints(control->value, &parts) ? (unsigned)parts : 0xf;
}

bool controls_check(const struct operation *operation, struct answer *answer, bool *ret_hints)
{
	const struct request *request = operation->request;
	*ret_hints = false;
	for (size_t i = 0; i < request->control_count; i++) {
		const struct control *control = &request->controls[i];
		const char *const *known = controls_supported;
		while (*known && !(value_is(control->oid, *known) && controls_offered(operation->server, *known)))
			known++;
		ber_int_t flags = 0;
		bool bad = *known && is_hints(*known) && (!control->has_value || !read_hints(control->value, &flags));
		if (flags & 1)
			*ret_hints = true;
		if ((!*known || bad) && control->critical) {
			answer_set(answer, LDAP_UNAVAILABLE_CRITICAL_EXTENSION, "00000057: LdapErr: DSID-0C090B16, comment: Error processing control, data 0, v4563");
			return false;
		}
	}
	return true;
}
