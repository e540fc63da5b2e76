/* The flavor ldap: reading a user. */
#include <limits.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/directory/ad_time.h"
#include "agent/directory/ldap_directory.h"
#include "agent/directory/ldap_filter.h"
#include "base/clock.h"

/* And the attribute that the premises name users by. */
const char *const LDAP_USER_ATTRIBUTES[] = { "objectClass", "uid", "cn", "displayName", "gidNumber", "entryUUID", "nsUniqueId", "pwdChangedTime", "pwdUpdateTime", "pwdAccountLockedTime", "pwdReset", "pwdPolicySubentry", "pwdEndTime",
	"accountUnlockTime", "passwordRetryCount", "pwdFailureTime", "passwordExpirationTime", "nsAccountLock", "createTimestamp", "modifyTimestamp", "modifiersName", NULL };

/* Permanently locked, by an administrator: draft-behera-ldap-password-policy-11 5.3.3. */
#define LOCKED_FOR_GOOD "000001010000Z"
enum { YOUNG_S = 5, LOGIN_NAMES_MAX = 32 };

bool ldap_entry_guid(const struct entry *entry, uint8_t ret_guid[16])
{
	char uuid[UUID_SIZE];
	AUTO_FREE char *unique = entry_string(entry, "nsUniqueId");
	AUTO_FREE char *text = unique == NULL ? entry_string(entry, "entryUUID") : NULL;
	if (unique != NULL && strlen(unique) == 35) {
		snprintf(uuid, sizeof uuid, "%.8s-%.4s-%.4s-%.4s-%.4s%.8s", unique, unique + 9, unique + 13, unique + 18, unique + 22, unique + 27);
		return guid_parse(uuid, ret_guid) == STATUS_OK;
	}
	return text != NULL && guid_parse(text, ret_guid) == STATUS_OK;
}

/* Seconds since 1970; -1 where there is none. */
static int64_t read_time(const struct entry *entry, const char *name)
{
	int64_t seconds = -1;
	AUTO_FREE char *text = entry_string(entry, name);
	return text != NULL && ad_time_generalized(text, &seconds) ? seconds : -1;
}

static bool is_person(const struct entry *entry)
{
	static const char *const CLASSES[] = { "inetOrgPerson", "organizationalPerson", "person", "posixAccount", "account" };
	for (size_t i = 0; i < sizeof CLASSES / sizeof CLASSES[0]; i++) {
		if (entry_has_value(entry, "objectClass", CLASSES[i])) {
			return true;
		}
	}
	return false;
}

/* 389 counts, OpenLDAP has the time of each. */
static int bad_passwords(const struct entry *entry)
{
	int64_t tries;
	int count = 0;
	const struct berval *failures = entry_values(entry, "pwdFailureTime");
	if (entry_number(entry, "passwordRetryCount", &tries)) {
		return tries >= 0 && tries < INT_MAX ? (int)tries : -1;
	}
	while (failures != NULL && failures[count].bv_val != NULL) {
		count++;
	}
	return failures != NULL ? count : -1;
}

static void read_lockout(const struct entry *entry, struct account *account)
{
	int64_t tries = 0;
	bool for_good = entry_has_value(entry, "pwdAccountLockedTime", LOCKED_FOR_GOOD);
	account->uac = UAC_NORMAL_ACCOUNT | (for_good || entry_true(entry, "nsAccountLock") ? UAC_ACCOUNTDISABLE : 0);
	/* On 389 the time stays after a reset, and the count alone says that it is over. */
	bool over = entry_number(entry, "passwordRetryCount", &tries) && tries == 0;
	account->lockout_time_set = !for_good && (entry_has(entry, "pwdAccountLockedTime") || (entry_has(entry, "accountUnlockTime") && !over));
	int64_t until = read_time(entry, "accountUnlockTime");
	/* The epoch: until an administrator unlocks. */
	account->locked = account->lockout_time_set && (until <= 0 || until > clock_now_ms() / 1000);
	account->lockout_began_s = read_time(entry, "pwdAccountLockedTime");
	account->bad_passwords = bad_passwords(entry);
}

static void read_times(const struct entry *entry, struct account *account)
{
	int64_t set = read_time(entry, "pwdChangedTime"), end = read_time(entry, "pwdEndTime"), expires = read_time(entry, "passwordExpirationTime");
	set = set >= 0 ? set : read_time(entry, "pwdUpdateTime");
	set = set >= 0 ? set : read_time(entry, "createTimestamp");
	account->pwd_last_set_s = entry_true(entry, "pwdReset") || set < 0 ? 0 : set;
	account->account_expires_s = end >= 0 ? end : INT64_MAX;
	account->password_expires_s = expires > 0 ? expires : 0;
}

/* Sixteen octets that stand for who wrote an entry last: of a DN as the server spells it. */
static void name_hash(const char *dn, uint8_t out[16])
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	size_t size = 0;
	char folded[1024];
	for (; *dn != 0 && size < sizeof folded; dn++) {
		if (*dn != ' ') {
			folded[size++] = *dn >= 'A' && *dn <= 'Z' ? *dn | 0x20 : *dn;
		}
	}
	SHA256((const uint8_t *)folded, size, digest);
	memcpy(out, digest, 16);
}

static void read_record(const struct entry *entry, struct replication_record *record)
{
	AUTO_FREE char *writer = entry_string(entry, "modifiersName");
	int64_t set = read_time(entry, "pwdChangedTime"), modified = read_time(entry, "modifyTimestamp");
	set = set >= 0 ? set : read_time(entry, "pwdUpdateTime");
	set = set >= 0 ? set : modified;
	bool known = set >= 0 && writer != NULL;
	*record = (struct replication_record){ .known = known, .young = known && clock_now_ms() / 1000 - set < YOUNG_S, .originating_usn = set > 0 ? set : 0, .time_s = set };
	if (writer != NULL) {
		name_hash(writer, record->originator);
	}
}

/* The groups that name the user: by his DN, and posixGroups by his login name or as his primary one. */
static char *make_group_filter(const struct entry *entry, const char *dn)
{
	char *filter = NULL;
	size_t size = 0;
	int64_t gid;
	AUTO_FREE char *escaped = ldap_filter_escape(bytes_of_string(dn));
	FILE *stream = escaped != NULL ? open_memstream(&filter, &size) : NULL;
	if (stream == NULL) {
		return NULL;
	}
	fprintf(stream, "(|(member=%s)(uniqueMember=%s)", escaped, escaped);
	const struct berval *name = entry_values(entry, "uid");
	bool all = true;
	for (size_t i = 0; all && name != NULL && name[i].bv_val != NULL; i++) {
		AUTO_FREE char *value = ldap_filter_escape(bytes_of(name[i].bv_val, name[i].bv_len));
		all = value != NULL && i < LOGIN_NAMES_MAX; /* a name left out may be the one in a group that protects him */
		fprintf(stream, "(memberUid=%s)", all ? value : "");
	}
	if (entry_number(entry, "gidNumber", &gid)) {
		fprintf(stream, "(&(objectClass=posixGroup)(gidNumber=%lld))", (long long)gid);
	}
	fputs(")", stream);
	if (fclose(stream) != 0 || !all) {
		free(filter);
		return NULL;
	}
	return filter;
}

enum status ldap_read_user(const struct view *view, LDAP *ldap, LDAPMessage *message, struct user_facts *ret_facts)
{
	AUTO_ENTRY struct entry entry;
	entry_read(ldap, message, &entry);
	return ldap_user_from_entry(view, &entry, ret_facts);
}

enum status ldap_user_from_entry(const struct view *view, const struct entry *entry, struct user_facts *ret_facts)
{
	uint8_t guid[16];
	*ret_facts = (struct user_facts){ 0 };
	struct account *account = &ret_facts->account;
	account->dn = entry_dn(entry);
	/* Without these the agent's account lacks rights, and nothing is guessed. */
	if (account->dn == NULL || !entry_has(entry, "objectClass") || !ldap_entry_guid(entry, guid) || (ret_facts->group_filter = make_group_filter(entry, account->dn)) == NULL) {
		user_facts_clear(ret_facts);
		return STATUS_DIRECTORY_DENIED;
	}
	guid_format(guid, account->guid);
	sid_from_entry(guid, &account->sid);
	account->is_entry = true;
	account->is_user = is_person(entry);
	read_lockout(entry, account);
	read_times(entry, account);
	account->uid = entry_string(entry, view->settings->login_attribute != NULL ? view->settings->login_attribute : "uid");
	account->display_name = entry_string(entry, entry_has(entry, "displayName") ? "displayName" : "cn");
	read_record(entry, &ret_facts->password_record);
	ret_facts->policy_dn = entry_string(entry, "pwdPolicySubentry");
	return STATUS_OK;
}

void ldap_complete_user(const struct view *view, struct user_facts *facts, struct server_position *position)
{
	struct account *account = &facts->account;
	const struct password_policy *policy = &account->policy;
	int64_t began = account->lockout_began_s;
	/* OpenLDAP leaves the time when the lockout is over. */
	if (account->locked && began > 0 && policy->source != POLICY_UNKNOWN && policy->lockout_duration_s > 0) {
		account->locked = began + policy->lockout_duration_s > clock_now_ms() / 1000;
	}
	if (account->password_expires_s == 0 && policy->source != POLICY_UNKNOWN) {
		account->password_expires_s = policy->max_age_s == 0 ? INT64_MAX : account->pwd_last_set_s > 0 ? account->pwd_last_set_s + policy->max_age_s : 0;
	}
	/* Of whom a write would come, and from when: see the header. */
	if (view->self != NULL && *view->self != 0) {
		name_hash(view->self, position->invocation_id);
	}
	name_hash(account->dn, position->own_id);
	position->own_known = true;
	position->highest_committed_usn = facts->password_record.originating_usn > 0 ? facts->password_record.originating_usn : 1;
}
