/* The flavor active-directory: Windows domain controllers and Samba's. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "agent/directory/ad_names.h"
#include "agent/directory/ad_rights.h"
#include "agent/directory/ad_time.h"
#include "agent/directory/flavor.h"
#include "agent/directory/ldap_entry.h"
#include "agent/directory/ldap_filter.h"
#include "agent/directory/repl_metadata.h"

/* LDAP_SERVER_POLICY_HINTS_OID and its first, deprecated number, MS-ADTS 3.1.1.3.4.1.27. */
static const char *const POLICY_HINTS[] = { "1.2.840.113556.1.4.2239", "1.2.840.113556.1.4.2066", NULL };

/* LDAP_CAP_ACTIVE_DIRECTORY_PARTIAL_SECRETS_OID, MS-ADTS 3.1.1.3.4.3.6: a read-only controller of Windows; Samba's does not say so. */
#define PARTIAL_SECRETS "1.2.840.113556.1.4.1920"

static const char *const ROOT_ATTRIBUTES[] = { "defaultNamingContext", "dnsHostName", "dsServiceName", "supportedControl", "isSynchronized", "currentTime",
	"highestCommittedUSN", NULL };
static const char *const FIRST_ATTRIBUTES[] = { "defaultNamingContext", "configurationNamingContext", "dnsHostName", "dsServiceName", "supportedControl", "supportedCapabilities",
	"isSynchronized", "currentTime", "highestCommittedUSN", "tokenGroups", NULL };
static const char *const SERVER_ATTRIBUTES[] = { "invocationId", "msDS-isRODC", NULL };
static const char *const USER_ATTRIBUTES[] = { "objectGUID", "objectSid", "objectClass", "sAMAccountName", "userPrincipalName", "displayName", "userAccountControl",
	"msDS-User-Account-Control-Computed", "accountExpires", "pwdLastSet", "lockoutTime", "badPwdCount", "adminCount", "servicePrincipalName", "isCriticalSystemObject", "primaryGroupID",
	"tokenGroups", "replPropertyMetaData", "msDS-ResultantPSO", "nTSecurityDescriptor", "msDS-UserPasswordExpiryTimeComputed", NULL };
static const char *const DOMAIN_ATTRIBUTES[] = { "objectSid", "fSMORoleOwner", "minPwdLength", "pwdProperties", "pwdHistoryLength", "minPwdAge", "maxPwdAge", "lockoutThreshold",
	"lockoutDuration", NULL };
static const char *const PSO_ATTRIBUTES[] = { "msDS-MinimumPasswordLength", "msDS-PasswordComplexityEnabled", "msDS-PasswordHistoryLength", "msDS-MinimumPasswordAge",
	"msDS-MaximumPasswordAge", "msDS-LockoutThreshold", "msDS-LockoutDuration", NULL };
static const char *const GUID_ATTRIBUTES[] = { "objectGUID", NULL };
static const char *const SID_ATTRIBUTES[] = { "objectSid", NULL };
static const char *const RIGHTS_ATTRIBUTES[] = { "objectSid", "allowedAttributesEffective", "nTSecurityDescriptor", NULL };
static const char *const CONTAINER_ATTRIBUTES[] = { "objectClass", "nTSecurityDescriptor", NULL };

enum { DOMAIN_PASSWORD_COMPLEX = 1 };

/* LDAP_SERVER_SD_FLAGS_OID, MS-ADTS 3.1.1.3.4.1.11: owner and discretionary list, 1 + 4. Without it the server means all four parts, which an ordinary account may not read, and shows none. */
static const LDAPControl SD_FLAGS = { .ldctl_oid = (char *)"1.2.840.113556.1.4.801", .ldctl_value = { 5, (char *)"\x30\x03\x02\x01\x05" } };
static const LDAPControl *const DESCRIPTOR_CONTROLS[] = { &SD_FLAGS, NULL };

static const LDAPControl *const *read_controls(const char *const *attributes)
{
	for (; *attributes != NULL; attributes++) {
		if (strcmp(*attributes, "nTSecurityDescriptor") == 0) {
			return DESCRIPTOR_CONTROLS;
		}
	}
	return NULL;
}

static enum status subtree_search(const char *base_dn, const char *format, const char *value, const char *const *attributes, struct ldap_search *ret_search)
{
	*ret_search = (struct ldap_search){ .base = strdup(base_dn), .scope = LDAP_SCOPE_SUBTREE, .attributes = attributes, .size_limit = 2 };
	if (asprintf(&ret_search->filter, format, value, value) < 0) {
		ret_search->filter = NULL;
	}
	if (ret_search->base == NULL || ret_search->filter == NULL) {
		ldap_search_clear(ret_search);
		return STATUS_AGENT_INTERNAL;
	}
	return STATUS_OK;
}

#define PERSON "(objectCategory=person)(objectClass=user)"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

static enum status find_user(const struct view *view, enum locate_by by, const char *id, struct ldap_search *ret_search, uint8_t ret_guid[16])
{
	static const char *const FILTERS[] = {
		/* The source anchor of Entra Connect: mS-DS-ConsistencyGuid where it is set, else objectGUID. */
		[LOCATE_CONSISTENCY_GUID] = "(&" PERSON "(|(mS-DS-ConsistencyGuid=%s)(&(objectGUID=%s)(!(mS-DS-ConsistencyGuid=*)))))",
		[LOCATE_UPN] = "(&" PERSON "(userPrincipalName=%s))",
		[LOCATE_SAM] = "(&" PERSON "(sAMAccountName=%s))",
	};
	*ret_search = (struct ldap_search){ 0 };
	struct bytes value = bytes_of_string(id);
	bool is_guid = by == LOCATE_OBJECT_GUID || by == LOCATE_CONSISTENCY_GUID;
	if (value.size == 0 || by == LOCATE_ENTRY_UUID || by == LOCATE_UID || (is_guid && guid_parse(id, ret_guid) != STATUS_OK)) {
		return STATUS_USER_NOT_FOUND;
	}
	if (by == LOCATE_OBJECT_GUID) {
		return STATUS_OK;
	}
	AUTO_FREE char *escaped = ldap_filter_escape(is_guid ? bytes_of(ret_guid, 16) : value);
	/* Who may write mS-DS-ConsistencyGuid may give another's to somebody: one that stands twice in the domain is refused, wherever users are looked for otherwise. */
	const char *base_dn = by == LOCATE_CONSISTENCY_GUID && view->root->naming_context != NULL ? view->root->naming_context : view->base_dn;
	return escaped == NULL ? STATUS_AGENT_INTERNAL : subtree_search(base_dn, FILTERS[by], escaped, GUID_ATTRIBUTES, ret_search);
}

/* bind_name: a DN, a userPrincipalName or DOMAIN\sAMAccountName. */
static enum status find_self(const struct view *view, const char *bind_name, struct ldap_search *ret_search)
{
	const char *backslash = strchr(bind_name, '\\');
	bool is_dn = strchr(bind_name, '=') != NULL;
	if (is_dn) {
		*ret_search = (struct ldap_search){ .base = strdup(bind_name), .scope = LDAP_SCOPE_BASE, .attributes = SID_ATTRIBUTES };
		return ret_search->base != NULL ? STATUS_OK : STATUS_AGENT_INTERNAL;
	}
	/* name@domain binds also where it is nobody's userPrincipalName: it then means the sAMAccountName (MS-ADTS 5.1.1.1.1). */
	const char *at = backslash == NULL ? strrchr(bind_name, '@') : NULL, *account = backslash != NULL ? backslash + 1 : bind_name;
	AUTO_FREE char *whole = ldap_filter_escape(bytes_of_string(account));
	AUTO_FREE char *name = ldap_filter_escape(at != NULL ? bytes_of(bind_name, (size_t)(at - bind_name)) : bytes_of_string(account));
	*ret_search = (struct ldap_search){ .base = strdup(view->root->naming_context), .scope = LDAP_SCOPE_SUBTREE, .attributes = SID_ATTRIBUTES, .size_limit = 3 };
	if (whole == NULL || name == NULL || asprintf(&ret_search->filter, "(|(userPrincipalName=%s)(sAMAccountName=%s))", whole, name) < 0) {
		ret_search->filter = NULL;
	}
	if (ret_search->base == NULL || ret_search->filter == NULL) {
		ldap_search_clear(ret_search);
		return STATUS_AGENT_INTERNAL;
	}
	return STATUS_OK;
}
#pragma GCC diagnostic pop

static enum status find_object(const struct view *view, const char *name, bool any_object, struct ldap_search *ret_search)
{
	*ret_search = (struct ldap_search){ .base = strdup(name), .scope = LDAP_SCOPE_BASE, .attributes = SID_ATTRIBUTES };
	return ret_search->base != NULL ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static const char *domain_dn(const struct view *view)
{
	return view->root->naming_context;
}

static void name_user(const uint8_t guid[16], char out[64])
{
	ldap_guid_name(guid, out);
}

static void read_root(const struct directory_settings *settings, LDAP *ldap, LDAPMessage *message, struct root_facts *ret_facts)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	*ret_facts = (struct root_facts){
		.naming_context = entry_string(&entry, "defaultNamingContext"),
		.host_name = entry_string(&entry, "dnsHostName"),
		.service_name = entry_string(&entry, "dsServiceName"),
		.configuration = entry_string(&entry, "configurationNamingContext"),
		.read_only = entry_has_value(&entry, "supportedCapabilities", PARTIAL_SECRETS),
		.synchronized = !entry_has_value(&entry, "isSynchronized", "FALSE"),
	};
	int64_t usn = 0;
	if (entry_number(&entry, "highestCommittedUSN", &usn) && usn > 0) {
		ret_facts->highest_committed_usn = usn;
	}
	AUTO_FREE char *time = entry_string(&entry, "currentTime");
	if (time == NULL || !ad_time_generalized(time, &ret_facts->current_time_s)) {
		ret_facts->current_time_s = 0;
	}
	for (size_t i = 0; POLICY_HINTS[i] != NULL && ret_facts->policy_control == NULL; i++) {
		if (entry_has_value(&entry, "supportedControl", POLICY_HINTS[i])) {
			ret_facts->policy_control = POLICY_HINTS[i];
		}
	}
}

static void read_server(LDAP *ldap, LDAPMessage *message, struct server_facts *ret_facts)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	*ret_facts = (struct server_facts){ .read_only = entry_true(&entry, "msDS-isRODC") };
	ret_facts->invocation_known = entry_guid(&entry, "invocationId", ret_facts->invocation_id);
}

static char *read_role_owner(LDAP *ldap, LDAPMessage *message)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	return entry_string(&entry, "fSMORoleOwner");
}

static bool is_user(const struct entry *entry)
{
	static const char *const NOT_PEOPLE[] = { "computer", "msDS-ManagedServiceAccount", "msDS-GroupManagedServiceAccount", "msDS-DelegatedManagedServiceAccount" };
	if (!entry_has_value(entry, "objectClass", "user")) {
		return false;
	}
	for (size_t i = 0; i < sizeof NOT_PEOPLE / sizeof NOT_PEOPLE[0]; i++) {
		if (entry_has_value(entry, "objectClass", NOT_PEOPLE[i])) {
			return false;
		}
	}
	return true;
}

/* All or none: a group that cannot be read is a refusal, never a gap. */
static void read_groups(const struct entry *entry, struct account *account)
{
	const struct berval *values = entry_values(entry, "tokenGroups");
	size_t count = 0;
	while (values != NULL && values[count].bv_val != NULL) {
		count++;
	}
	account->groups = count > 0 ? calloc(count, sizeof *account->groups) : NULL;
	for (size_t i = 0; i < count && account->groups != NULL; i++) {
		if (sid_from_octets(bytes_of(values[i].bv_val, values[i].bv_len), &account->groups[i]) != STATUS_OK) {
			free(account->groups);
			account->groups = NULL;
		}
	}
	account->group_count = account->groups != NULL ? count : 0;
}

static void read_times(const struct entry *entry, struct account *account)
{
	int64_t value = 0;
	account->account_expires_s = entry_number(entry, "accountExpires", &value) ? ad_time_expiry(value) : INT64_MAX;
	account->pwd_last_set_s = entry_number(entry, "pwdLastSet", &value) ? ad_time_from_filetime(value) : 0;
	/* 0: it must be changed before anything else */
	account->password_expires_s = entry_number(entry, "msDS-UserPasswordExpiryTimeComputed", &value) && value != 0 ? ad_time_expiry(value) : 0;
	account->lockout_time_set = entry_number(entry, "lockoutTime", &value) && value != 0;
	account->lockout_began_s = account->lockout_time_set ? ad_time_from_filetime(value) : 0;
	account->bad_passwords = entry_number(entry, "badPwdCount", &value) && value >= 0 && value < INT_MAX ? (int)value : -1;
}

static void read_password_record(const struct entry *entry, struct replication_record *ret_record)
{
	const struct berval *values = entry_values(entry, "replPropertyMetaData");
	*ret_record = (struct replication_record){ 0 };
	if (values != NULL && repl_metadata_find(bytes_of(values[0].bv_val, values[0].bv_len), ATTID_UNICODE_PWD, ret_record) != STATUS_OK) {
		ret_record->known = false;
	}
}

/* What must be readable to judge a user at all: without one of these the agent's account lacks rights, and nothing is guessed. */
static enum status read_identity(const struct entry *entry, struct account *account)
{
	uint8_t guid[16];
	int64_t uac = 0, computed = 0;
	bool has_uac = entry_number(entry, "userAccountControl", &uac);
	bool has_computed = entry_number(entry, "msDS-User-Account-Control-Computed", &computed);
	account->dn = entry_dn(entry);
	account->is_user = is_user(entry);
	if (account->dn == NULL || !entry_has(entry, "objectClass") || !entry_guid(entry, "objectGUID", guid) ||
	    (account->is_user && (!has_uac || !entry_sid(entry, "objectSid", &account->sid)))) {
		return STATUS_DIRECTORY_DENIED;
	}
	guid_format(guid, account->guid);
	account->uac = uac;
	account->uac_computed = computed;
	account->locked = has_computed ? (computed & UAC_LOCKOUT) != 0 : account->lockout_time_set;
	return STATUS_OK;
}

/* Absent, each of them means "not protected": only where it could have been seen. */
static void read_protection(const struct view *view, const struct entry *entry, struct account *account)
{
	static const char *const PROTECTING[] = { "adminCount", "servicePrincipalName", "isCriticalSystemObject" };
	account->has_spn = entry_has(entry, "servicePrincipalName");
	account->is_critical_system_object = entry_true(entry, "isCriticalSystemObject");
	if (!entry_number(entry, "adminCount", &account->admin_count)) {
		account->admin_count = 0;
	}
	for (size_t i = 0; i < sizeof PROTECTING / sizeof PROTECTING[0] && account->hidden == NULL; i++) {
		account->hidden = ad_rights_hide(entry, view->token, PROTECTING[i]) ? PROTECTING[i] : NULL;
	}
}

static enum status read_user(const struct view *view, LDAP *ldap, LDAPMessage *message, struct user_facts *ret_facts)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	*ret_facts = (struct user_facts){ 0 };
	struct account *account = &ret_facts->account;
	read_times(&entry, account);
	enum status status = read_identity(&entry, account);
	if (status != STATUS_OK) {
		user_facts_clear(ret_facts);
		return status;
	}
	account->sam_account_name = entry_string(&entry, "sAMAccountName");
	account->user_principal_name = entry_string(&entry, "userPrincipalName");
	account->display_name = entry_string(&entry, "displayName");
	read_protection(view, &entry, account);
	account->cannot_change = ad_rights_cannot_change(&entry, &account->sid, &account->cannot_change_known);
	read_groups(&entry, account);
	read_password_record(&entry, &ret_facts->password_record);
	ret_facts->policy_dn = entry_string(&entry, "msDS-ResultantPSO");
	ret_facts->policy_hidden = ad_rights_hide(&entry, view->token, "msDS-ResultantPSO");
	return STATUS_OK;
}

static bool read_guid(LDAP *ldap, LDAPMessage *message, uint8_t ret_guid[16])
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	return entry_guid(&entry, "objectGUID", ret_guid);
}

static bool read_sid(LDAP *ldap, LDAPMessage *message, struct sid *ret_sid)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	return entry_sid(&entry, "objectSid", ret_sid);
}

static void read_token(LDAP *ldap, LDAPMessage *message, struct token *ret_token)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	ad_rights_token(&entry, ret_token);
}

static void read_rights(enum rights_entry of, LDAP *ldap, LDAPMessage *message, const struct token *token, struct directory_rights *rights)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	ad_rights_read(of, &entry, token, rights);
}

static unsigned small_number(const struct entry *entry, const char *name)
{
	int64_t value = 0;
	return entry_number(entry, name, &value) && value > 0 && value <= INT32_MAX ? value : 0;
}

static int64_t interval(const struct entry *entry, const char *name)
{
	int64_t value = 0;
	return entry_number(entry, name, &value) ? ad_time_interval(value) : 0;
}

static void read_policy(LDAP *ldap, LDAPMessage *message, bool own, struct password_policy *ret_policy)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	static const char *const NAMES[2][6] = {
		{ "minPwdLength", "pwdHistoryLength", "minPwdAge", "maxPwdAge", "lockoutThreshold", "lockoutDuration" },
		{ "msDS-MinimumPasswordLength", "msDS-PasswordHistoryLength", "msDS-MinimumPasswordAge", "msDS-MaximumPasswordAge", "msDS-LockoutThreshold", "msDS-LockoutDuration" },
	};
	const char *const *names = NAMES[own];
	int64_t properties = 0;
	*ret_policy = (struct password_policy){ .source_name = entry_dn(&entry) };
	bool complexity_known = own ? entry_has(&entry, "msDS-PasswordComplexityEnabled") : entry_number(&entry, "pwdProperties", &properties);
	/* A policy object that may not be read comes as an entry without attributes and with result 0. */
	if (!complexity_known) {
		return;
	}
	for (size_t i = 0; i < 6; i++) {
		if (!entry_has(&entry, names[i])) {
			return;
		}
	}
	ret_policy->source = own ? POLICY_PSO : POLICY_DOMAIN;
	ret_policy->complexity = own ? entry_true(&entry, "msDS-PasswordComplexityEnabled") : (properties & DOMAIN_PASSWORD_COMPLEX) != 0;
	ret_policy->min_length = small_number(&entry, names[0]);
	ret_policy->history = small_number(&entry, names[1]);
	ret_policy->min_age_s = interval(&entry, names[2]);
	ret_policy->max_age_s = interval(&entry, names[3]);
	ret_policy->lockout_threshold = small_number(&entry, names[4]);
	ret_policy->lockout_duration_s = interval(&entry, names[5]);
}

/* MS-ADTS 3.1.1.3.1.5.1: in double quotes, UTF-16LE, no BOM. */
static enum status quote_password(struct bytes password, struct secret *ret_secret)
{
	if (!utf8_valid(password)) {
		return STATUS_DIRECTORY_ENCRYPTION;
	}
	size_t size = 2 * utf8_utf16_units(password);
	enum status status = secret_new(size + 4, ret_secret);
	if (status != STATUS_OK) {
		return status;
	}
	memcpy(ret_secret->data, "\"\0", 2);
	utf8_to_utf16le(password, ret_secret->data + 2);
	memcpy(ret_secret->data + 2 + size, "\"\0", 2);
	ret_secret->size = size + 4;
	return STATUS_OK;
}

static void add_control(struct change *change, const char *oid)
{
	/* SEQUENCE { Flags INTEGER 1 }: the history's length is enforced on a set, too */
	static char VALUE[] = { 0x30, 0x03, 0x02, 0x01, 0x01 };
	change->control = (LDAPControl){ .ldctl_oid = (char *)oid, .ldctl_value = { sizeof VALUE, VALUE }, .ldctl_iscritical = 1 };
	change->controls[0] = &change->control;
}

static enum status add_value(struct change *change, int mod_op, struct bytes password, struct secret *ret_secret)
{
	enum status status = quote_password(password, ret_secret);
	if (status == STATUS_OK) {
		change_add(change, mod_op, "unicodePwd", (struct berval){ ret_secret->size, (char *)ret_secret->data });
	}
	return status;
}

/* MS-ADTS 3.1.1.3.1.5.1: replaced, it is a reset; the old one deleted and the new one added, in this order, a change. */
static enum status add_password(struct change *change, const struct directory_change *wanted)
{
	bool is_change = wanted->old_password.size > 0;
	enum status status = is_change ? add_value(change, LDAP_MOD_DELETE, wanted->old_password, &change->old_password) : STATUS_OK;
	return status == STATUS_OK ? add_value(change, is_change ? LDAP_MOD_ADD : LDAP_MOD_REPLACE, wanted->password, &change->password) : status;
}

static enum status change_new(const struct view *view, const struct account *account, const struct directory_change *wanted, const char *control, struct change **ret_change,
                              struct change **ret_after)
{
	static char ZERO[] = "0";
	struct berval zero = { 1, ZERO };
	struct change *change = calloc(1, sizeof *change);
	*ret_after = NULL;
	if (change == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	if (wanted->set_password) {
		enum status status = add_password(change, wanted);
		if (status != STATUS_OK) {
			change_free(change);
			return status;
		}
	}
	if (wanted->clear_lockout) {
		change_add(change, LDAP_MOD_REPLACE, "lockoutTime", zero);
	}
	if (wanted->must_change) {
		change_add(change, LDAP_MOD_REPLACE, "pwdLastSet", zero);
	}
	if (control != NULL) {
		add_control(change, control);
	}
	*ret_change = change;
	return STATUS_OK;
}

static enum status answer(enum ad_operation operation, int ldap_result, const char *diagnostic, LDAPControl *const *controls, uint32_t *ret_win32)
{
	return ad_answer_status(operation, ldap_result, diagnostic, ret_win32);
}

const struct flavor ACTIVE_DIRECTORY = {
	.name = "active-directory",
	.words = { "objectGUID", "the policy-hints control", "the domain's", "a Password Settings object", "read Password Settings", "neither an administrator nor a service or computer account" },
	.settles_by_position = true,
	.root_attributes = ROOT_ATTRIBUTES,
	.server_attributes = SERVER_ATTRIBUTES,
	.user_attributes = USER_ATTRIBUTES,
	.domain_attributes = DOMAIN_ATTRIBUTES,
	.policy_attributes = PSO_ATTRIBUTES,
	.first_attributes = FIRST_ATTRIBUTES,
	.rights_attributes = RIGHTS_ATTRIBUTES,
	.container_attributes = CONTAINER_ATTRIBUTES,
	.container_rdn = "CN=Password Settings Container,CN=System",
	.read_controls = read_controls,
	.policy_rights = { "\"Read Domain Password & Lockout Policies\" on the domain's head", "\"Read all properties\" on CN=Password Settings Container,CN=System and what is below it" },
	.find_user = find_user,
	.find_self = find_self,
	.find_object = find_object,
	.name_user = name_user,
	.domain_dn = domain_dn,
	.read_root = read_root,
	.read_server = read_server,
	.read_user = read_user,
	.read_role_owner = read_role_owner,
	.find_names = ad_names_search,
	.read_names = ad_names_read,
	.read_guid = read_guid,
	.read_sid = read_sid,
	.read_token = read_token,
	.read_rights = read_rights,
	.read_policy = read_policy,
	.change_new = change_new,
	.answer = answer,
};
