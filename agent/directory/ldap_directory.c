/* The flavor ldap: finding, the server, policies. */
#include "agent/directory/ldap_directory.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/ldap_answer.h"
#include "agent/directory/ldap_filter.h"

static const char *const ROOT_ATTRIBUTES[] = { "objectClass", "vendorName", "namingContexts", "supportedControl", NULL };
static const char *const NO_ATTRIBUTES[] = { "1.1", NULL };
static const char *const IDENTITY_ATTRIBUTES[] = { "entryUUID", "nsUniqueId", NULL };
static const char *const POLICY_ATTRIBUTES[] = { "pwdAttribute", "pwdCheckQuality", "pwdMinLength", "pwdInHistory", "pwdMinAge", "pwdMaxAge", "pwdLockout", "pwdMaxFailure",
	"pwdLockoutDuration", "pwdMustChange", "passwordCheckSyntax", "passwordMinLength", "passwordHistory", "passwordInHistory", "passwordMinAge", "passwordExp",
	"passwordMaxAge", "passwordLockout", "passwordMaxFailure", "passwordUnlock", "passwordLockoutDuration", "passwordMustChange", NULL };

static const LDAPControl PPOLICY = { .ldctl_oid = (char *)PPOLICY_CONTROL };
static const LDAPControl *const BIND_CONTROLS[] = { &PPOLICY, NULL };

static enum status finish_search(struct ldap_search *search, const char *base, int scope, char *take_filter, const char *const *attributes)
{
	*search = (struct ldap_search){ .base = strdup(base), .scope = scope, .filter = take_filter, .attributes = attributes };
	if (search->base == NULL || take_filter == NULL) {
		ldap_search_clear(search);
		return STATUS_AGENT_INTERNAL;
	}
	return STATUS_OK;
}

/* "6f9619ff-8b86-d011-b42d-00cf4fc964ff" as 389 Directory Server writes it: 6f9619ff-8b86d011-b42d00cf-4fc964ff. */
static void unique_id(const char *uuid, char out[UUID_SIZE])
{
	char digits[33];
	size_t count = 0;
	for (; *uuid != 0 && count < 32; uuid++) {
		if (*uuid != '-') {
			digits[count++] = *uuid;
		}
	}
	digits[count] = 0;
	snprintf(out, UUID_SIZE, "%.8s-%.8s-%.8s-%.8s", digits, digits + 8, digits + 16, digits + 24);
}

/* An objectGUID is no entryUUID: requests of the other kinds name nobody here. */
static enum status find_user(const struct view *view, enum locate_by by, const char *id, struct ldap_search *ret_search, uint8_t ret_guid[16])
{
	char text[UUID_SIZE], *filter = NULL;
	const char *attribute = view->settings->login_attribute != NULL ? view->settings->login_attribute : "uid";
	*ret_search = (struct ldap_search){ 0 };
	if ((by != LOCATE_ENTRY_UUID && by != LOCATE_UID) || *id == 0 || (by == LOCATE_ENTRY_UUID && !uuid_valid(id))) {
		return STATUS_USER_NOT_FOUND;
	}
	if (by == LOCATE_ENTRY_UUID && view->root->kind == SERVER_389) {
		unique_id(id, text);
		id = text;
	}
	AUTO_FREE char *value = by == LOCATE_UID ? ldap_filter_escape(bytes_of_string(id)) : strdup(id);
	if (value == NULL || asprintf(&filter, "(%s=%s)", by == LOCATE_UID ? attribute : view->root->kind == SERVER_389 ? "nsUniqueId" : "entryUUID", value) < 0) {
		return STATUS_AGENT_INTERNAL;
	}
	enum status status = finish_search(ret_search, view->base_dn, LDAP_SCOPE_SUBTREE, filter, IDENTITY_ATTRIBUTES);
	ret_search->size_limit = 2;
	return status;
}

static enum status find_self(const struct view *view, const char *bind_name, struct ldap_search *ret_search)
{
	return finish_search(ret_search, bind_name, LDAP_SCOPE_BASE, strdup("(objectClass=*)"), IDENTITY_ATTRIBUTES);
}

static enum status find_groups(const struct view *view, const struct user_facts *facts, char *const *dns, size_t count, struct ldap_search *ret_search)
{
	char *filter = NULL;
	size_t size = 0;
	bool complete = true;
	if (count == 0) {
		return finish_search(ret_search, view->root->naming_context, LDAP_SCOPE_SUBTREE, strdup(facts->group_filter), IDENTITY_ATTRIBUTES);
	}
	FILE *stream = open_memstream(&filter, &size);
	if (stream == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	fputs("(|", stream);
	for (size_t i = 0; i < count; i++) {
		AUTO_FREE char *dn = ldap_filter_escape(bytes_of_string(dns[i]));
		complete &= dn != NULL;
		fprintf(stream, "(member=%s)(uniqueMember=%s)", complete ? dn : "", complete ? dn : "");
	}
	fputs(")", stream);
	if (fclose(stream) != 0 || !complete) {
		free(filter);
		return STATUS_AGENT_INTERNAL;
	}
	return finish_search(ret_search, view->root->naming_context, LDAP_SCOPE_SUBTREE, filter, IDENTITY_ATTRIBUTES);
}

/* Without one the policy of 389's own configuration holds. */
static const char *domain_dn(const struct view *view)
{
	return view->settings->default_policy != NULL ? view->settings->default_policy : view->root->kind == SERVER_389 ? "cn=config" : NULL;
}

/* `dn` is `base` or ends with it; both as they were written, but for blanks behind commas. What is spelled otherwise is not found, which is the safe side. */
static bool ends_with(const char *dn, const char *base)
{
	size_t i = strlen(dn), k = strlen(base);
	while (k > 0) {
		while (i > 0 && dn[i - 1] == ' ') {
			i--;
		}
		while (k > 0 && base[k - 1] == ' ') {
			k--;
		}
		if (i == 0 || k == 0 || strncasecmp(&dn[i - 1], &base[k - 1], 1) != 0) {
			return false;
		}
		i--;
		k--;
	}
	while (i > 0 && dn[i - 1] == ' ') {
		i--;
	}
	return i == 0 || dn[i - 1] == ',';
}

/* Who protects or excludes: a group of which a member can be seen (else its members may not be looked for, or are computed, and it would protect nobody), a posixGroup, which may be
 * that of a gidNumber alone, or a person; and in the naming context that users' groups are looked for in. */
static enum status find_object(const struct view *view, const char *name, bool any_object, struct ldap_search *ret_search)
{
	static const char MEMBERS[] = "(|(member=*)(uniqueMember=*)(memberUid=*)(objectClass=posixGroup)(objectClass=person)(objectClass=organizationalPerson)(objectClass=inetOrgPerson)"
		"(objectClass=posixAccount)(objectClass=account))";
	if (!any_object && !ends_with(name, view->root->naming_context)) {
		return STATUS_USER_NOT_FOUND;
	}
	return finish_search(ret_search, name, LDAP_SCOPE_BASE, strdup(any_object ? "(objectClass=*)" : MEMBERS), IDENTITY_ATTRIBUTES);
}

/* The one that holds base_dn: groups are looked for in all of it. */
static char *naming_context(const struct entry *entry, const char *base_dn)
{
	const struct berval *value = entry_values(entry, "namingContexts");
	for (; base_dn != NULL && value != NULL && value->bv_val != NULL; value++) {
		char *context = strndup(value->bv_val, value->bv_len);
		if (context != NULL && *context != 0 && ends_with(base_dn, context)) {
			return context;
		}
		free(context);
	}
	return NULL;
}

static void read_root(const struct directory_settings *settings, LDAP *ldap, LDAPMessage *message, struct root_facts *ret_facts)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	*ret_facts = (struct root_facts){ .synchronized = true, .naming_context = naming_context(&entry, settings->base_dn) };
	ret_facts->kind = entry_has_value(&entry, "vendorName", "389 Project")               ? SERVER_389
	                  : entry_has_value(&entry, "objectClass", "OpenLDAProotDSE") ? SERVER_OPENLDAP
	                                                                              : SERVER_UNKNOWN;
	if (entry_has_value(&entry, "supportedControl", PPOLICY_CONTROL)) {
		ret_facts->policy_control = PPOLICY_CONTROL;
	}
}

static void read_server(LDAP *ldap, LDAPMessage *message, struct server_facts *ret_facts)
{
	*ret_facts = (struct server_facts){ 0 };
}

static bool read_guid(LDAP *ldap, LDAPMessage *message, uint8_t ret_guid[16])
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	return ldap_entry_guid(&entry, ret_guid);
}

static bool read_sid(LDAP *ldap, LDAPMessage *message, struct sid *ret_sid)
{
	uint8_t guid[16];
	if (!read_guid(ldap, message, guid)) {
		return false;
	}
	sid_from_entry(guid, ret_sid);
	return true;
}

static const LDAPControl *const *read_controls(const char *const *attributes)
{
	return NULL;
}

static void read_token(LDAP *ldap, LDAPMessage *message, struct token *ret_token)
{
	*ret_token = (struct token){ 0 };
}

/* Neither server tells what may be written. */
static void read_rights(enum rights_entry of, LDAP *ldap, LDAPMessage *message, const struct token *token, struct directory_rights *rights)
{
}

static int64_t number(const struct entry *entry, const char *name, bool applies)
{
	int64_t value = 0;
	return applies && entry_number(entry, name, &value) && value > 0 && value <= INT32_MAX ? value : 0;
}

static bool is_on(const struct entry *entry, const char *name)
{
	return entry_has_value(entry, name, "on") || entry_has_value(entry, name, "TRUE");
}

/* draft-behera-ldap-password-policy-11 5.2, as OpenLDAP holds to it: without pwdCheckQuality no length is checked. */
static void read_openldap_policy(const struct entry *entry, struct password_policy *policy)
{
	int64_t quality = number(entry, "pwdCheckQuality", true);
	bool lockout = is_on(entry, "pwdLockout");
	policy->min_length = number(entry, "pwdMinLength", quality > 0);
	policy->history = number(entry, "pwdInHistory", true);
	policy->min_age_s = number(entry, "pwdMinAge", true);
	policy->max_age_s = number(entry, "pwdMaxAge", true);
	policy->lockout_threshold = number(entry, "pwdMaxFailure", lockout);
	policy->lockout_duration_s = number(entry, "pwdLockoutDuration", lockout);
	policy->must_change = is_on(entry, "pwdMustChange");
}

/* 389 answers by the name that it was asked by, and has two for each. */
static int64_t either_number(const struct entry *entry, const char *name, const char *alias, bool applies)
{
	return number(entry, entry_has(entry, name) ? name : alias, applies);
}

static bool either_on(const struct entry *entry, const char *name, const char *alias)
{
	return is_on(entry, name) || is_on(entry, alias);
}

static void read_389_policy(const struct entry *entry, struct password_policy *policy)
{
	bool lockout = either_on(entry, "passwordLockout", "pwdLockout");
	policy->min_length = either_number(entry, "passwordMinLength", "pwdMinLength", either_on(entry, "passwordCheckSyntax", "pwdCheckSyntax"));
	policy->history = either_number(entry, "passwordInHistory", "pwdInHistory", is_on(entry, "passwordHistory"));
	policy->min_age_s = either_number(entry, "passwordMinAge", "pwdMinAge", true);
	policy->max_age_s = either_number(entry, "passwordMaxAge", "pwdMaxAge", is_on(entry, "passwordExp"));
	policy->lockout_threshold = either_number(entry, "passwordMaxFailure", "pwdMaxFailure", lockout);
	policy->lockout_duration_s = either_number(entry, "passwordLockoutDuration", "pwdLockoutDuration", lockout && is_on(entry, "passwordUnlock"));
	policy->must_change = either_on(entry, "passwordMustChange", "pwdMustChange");
}

/* What may not be read is not there. cn=config shows an agent some of it without a right to the rest: then it is unknown. */
static void read_policy(LDAP *ldap, LDAPMessage *message, bool own, struct password_policy *ret_policy)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	*ret_policy = (struct password_policy){ .source_name = entry_dn(&entry) };
	if (entry_has(&entry, "pwdAttribute")) {
		read_openldap_policy(&entry, ret_policy);
	} else if (entry_has(&entry, "passwordCheckSyntax") || entry_has(&entry, "passwordMinAge") || entry_has(&entry, "passwordHistory")) {
		read_389_policy(&entry, ret_policy);
	} else {
		return;
	}
	ret_policy->source = own ? POLICY_SUBENTRY : POLICY_DOMAIN;
}

static enum status answer(enum ad_operation operation, int ldap_result, const char *diagnostic, LDAPControl *const *controls, uint32_t *ret_win32)
{
	struct ppolicy_answer ppolicy;
	if (ret_win32 != NULL) {
		*ret_win32 = 0;
	}
	return ldap_answer_status(operation, ldap_result, diagnostic, ppolicy_find(controls, &ppolicy) ? &ppolicy : NULL);
}

/* What stands in front of the server (OpenLDAP's back-ldap, chain and lloadd, 389's chaining) says these where it has lost it, or has waited too long, behind what it passed on. */
static bool leaves_open(int ldap_result)
{
	return ldap_result == LDAP_OPERATIONS_ERROR || ldap_result == LDAP_TIMELIMIT_EXCEEDED || ldap_result == LDAP_ADMINLIMIT_EXCEEDED || ldap_result == LDAP_UNAVAILABLE || ldap_result == LDAP_OTHER;
}

const struct flavor LDAP_DIRECTORY = {
	.name = "ldap",
	.words = { "entryUUID", "the password policy control (OpenLDAP: overlay ppolicy)", "the default one", "the user's own", "to read the policy (docs/ldap.md)",
		"a person, not listed in scope.protect, and not the agent's own account" },
	.changes_as_user = true,
	.leaves_open = leaves_open,
	.root_attributes = ROOT_ATTRIBUTES,
	.server_attributes = NO_ATTRIBUTES,
	.user_attributes = LDAP_USER_ATTRIBUTES,
	.domain_attributes = POLICY_ATTRIBUTES,
	.policy_attributes = POLICY_ATTRIBUTES,
	.first_attributes = ROOT_ATTRIBUTES,
	.rights_attributes = NO_ATTRIBUTES,
	.bind_controls = BIND_CONTROLS,
	.read_controls = read_controls,
	.find_user = find_user,
	.find_self = find_self,
	.find_object = find_object,
	.find_groups = find_groups,
	.domain_dn = domain_dn,
	.read_root = read_root,
	.read_server = read_server,
	.read_user = ldap_read_user,
	.read_guid = read_guid,
	.read_sid = read_sid,
	.read_token = read_token,
	.read_rights = read_rights,
	.read_policy = read_policy,
	.complete_user = ldap_complete_user,
	.change_new = ldap_change_new,
	.answer = answer,
};
