/* The flavor ldap: writing. */
#include <string.h>

#include "agent/directory/ldap_directory.h"
#include "agent/directory/ppolicy.h"

#define PASSWORD_MODIFY "1.3.6.1.4.1.4203.1.11.1"
enum { TAG_SEQUENCE = 0x30, TAG_USER = 0x80, TAG_OLD = 0x81, TAG_NEW = 0x82, HEADER_MAX = 5 };

static const struct berval NOTHING = { 0 };

/* BER, definite lengths of up to three octets: secrets and DNs are far below. */
static size_t put_header(uint8_t *out, unsigned tag, size_t size)
{
	uint8_t header[HEADER_MAX] = { tag };
	size_t at = 1;
	if (size >= 0x80) {
		unsigned octets = size > 0xFFFF ? 3 : size > 0xFF ? 2 : 1;
		header[at++] = 0x80 | octets;
		for (; octets > 0; octets--) {
			header[at++] = size >> 8 * (octets - 1);
		}
	} else {
		header[at++] = size;
	}
	if (out != NULL) {
		memcpy(out, header, at);
	}
	return at;
}

static size_t put_element(uint8_t *out, unsigned tag, struct bytes content)
{
	size_t at = put_header(out, tag, content.size);
	if (out != NULL) {
		memcpy(out + at, content.data, content.size);
	}
	return at + content.size;
}

/* PasswdModifyRequestValue, RFC 3062 section 2. With `out` NULL only its size. */
static size_t put_members(uint8_t *out, const char *dn, const struct directory_change *wanted)
{
	size_t at = put_element(out, TAG_USER, bytes_of_string(dn));
	if (wanted->old_password.size > 0) {
		at += put_element(out != NULL ? out + at : NULL, TAG_OLD, wanted->old_password);
	}
	return at + put_element(out != NULL ? out + at : NULL, TAG_NEW, wanted->password);
}

static enum status set_by_extension(struct change *change, const char *dn, const struct directory_change *wanted)
{
	size_t members = put_members(NULL, dn, wanted);
	enum status status = secret_new(members + HEADER_MAX, &change->request);
	if (status != STATUS_OK) {
		return status;
	}
	size_t header = put_header(change->request.data, TAG_SEQUENCE, members);
	put_members(change->request.data + header, dn, wanted);
	change->request.size = header + members;
	change->request_value = (struct berval){ change->request.size, (char *)change->request.data };
	change->extended = PASSWORD_MODIFY;
	return STATUS_OK;
}

static enum status set_by_modify(struct change *change, const struct directory_change *wanted)
{
	enum status status = secret_from(wanted->password, &change->password);
	if (status == STATUS_OK) {
		change_add(change, LDAP_MOD_REPLACE, "userPassword", (struct berval){ change->password.size, (char *)change->password.data });
	}
	return status;
}

static void clear_lockout(struct change *change, enum server_kind kind)
{
	if (kind == SERVER_389) {
		change_add(change, LDAP_MOD_REPLACE, "accountUnlockTime", NOTHING);
		change_add(change, LDAP_MOD_REPLACE, "passwordRetryCount", NOTHING);
	} else {
		change_add(change, LDAP_MOD_REPLACE, "pwdAccountLockedTime", NOTHING);
	}
}

/* A new password clears pwdReset on OpenLDAP, so it is written behind it, and only where a policy gives it a meaning. */
static enum status add_must_change(const struct view *view, struct change **ret_after)
{
	static char TRUE_TEXT[] = "TRUE";
	if (view->root->kind == SERVER_389) {
		return STATUS_OK; /* passwordMustChange: the server does it */
	}
	struct change *after = calloc(1, sizeof *after);
	if (after == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	change_add(after, LDAP_MOD_REPLACE, "pwdReset", (struct berval){ 4, TRUE_TEXT });
	*ret_after = after;
	return STATUS_OK;
}

/* It only asks for reasons, whatever `enforce_policy` says: the servers enforce the policy without it. */
static void add_control(struct change *change)
{
	static char OID[] = PPOLICY_CONTROL;
	change->control = (LDAPControl){ .ldctl_oid = OID };
	change->controls[0] = &change->control;
}

static enum status set_password(const struct view *view, const struct account *account, const struct directory_change *wanted, struct change *change, struct change **ret_after)
{
	/* 389 sets pwdReset by itself, dependably only behind the extended operation; that too sets the count of wrong tries to 0. */
	bool in_one = view->root->kind == SERVER_389 && wanted->old_password.size == 0 && !wanted->must_change;
	if (!utf8_valid(wanted->password)) {
		return STATUS_DIRECTORY_ENCRYPTION;
	}
	enum status status = in_one ? set_by_modify(change, wanted) : set_by_extension(change, account->dn, wanted);
	if (status == STATUS_OK && in_one && wanted->clear_lockout) {
		clear_lockout(change, SERVER_389);
	}
	return status == STATUS_OK && wanted->must_change ? add_must_change(view, ret_after) : status;
}

enum status ldap_change_new(const struct view *view, const struct account *account, const struct directory_change *wanted, const char *control, struct change **ret_change,
                            struct change **ret_after)
{
	*ret_after = NULL;
	if (wanted->must_change && !account->policy.must_change) {
		return STATUS_REQUEST_UNSUPPORTED;
	}
	struct change *change = calloc(1, sizeof *change);
	enum status status = change != NULL ? STATUS_OK : STATUS_AGENT_INTERNAL;
	if (status == STATUS_OK && wanted->set_password) {
		status = set_password(view, account, wanted, change, ret_after);
	} else if (status == STATUS_OK) {
		clear_lockout(change, view->root->kind);
	}
	if (status != STATUS_OK) {
		change_free(change);
		return status;
	}
	if (view->root->policy_control != NULL) {
		add_control(change);
	}
	*ret_change = change;
	return STATUS_OK;
}
