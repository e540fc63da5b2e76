/* Reading a user: found by a name where need be, then the account, the server's position and the policies, pipelined on one connection. */
#include <string.h>

#include "agent/directory/call.h"
#include "base/clock.h"
#include "base/log.h"

enum { NAME_SIZE = 64 };

/* Everything has been read: account, policy and position go into `located`. */
static void complete_reading(struct directory_call *call, const struct password_policy *take_policy)
{
	struct located *located = call->located;
	if (located == NULL) {
		located = call->located = calloc(1, sizeof *located);
		if (located == NULL) {
			free(take_policy->source_name);
			call_finish(call, STATUS_AGENT_INTERNAL);
			return;
		}
		located->references = 1;
		located->connection = connection_ref(call->connection);
		located->generation = call->generation;
		located->name = strdup(call->name);
		memcpy(located->guid, call->guid, sizeof located->guid);
		if (located->name == NULL) {
			free(take_policy->source_name);
			call_finish(call, STATUS_AGENT_INTERNAL);
			return;
		}
	}
	call->user.account.policy = *take_policy;
	call->user.account.self_unknown = call->connection->self_count == 0;
	for (unsigned i = 0; i < call->connection->self_count; i++) {
		call->user.account.is_self |= sid_equal(&call->connection->self[i], &call->user.account.sid);
	}
	if (call->directory->flavor->complete_user != NULL) {
		struct view view = connection_view(call->connection);
		call->directory->flavor->complete_user(&view, &call->user, &call->position);
	}
	user_facts_clear(&located->user);
	position_clear(&located->position);
	located->user = call->user;
	located->position = call->position;
	call->user = (struct user_facts){ 0 };
	call->position = (struct server_position){ 0 };
	call_finish(call, STATUS_OK);
}

static const char *domain_dn(const struct directory_call *call)
{
	struct view view = connection_view(call->connection);
	return call->directory->flavor->domain_dn(&view);
}

/* A policy that may not be read comes as an entry without attributes, or not at all. Told as often as it is asked for: once in the cache's time. */
static void warn_if_unreadable(const struct directory_call *call, const char *dn, const struct password_policy *policy, bool own)
{
	if (policy->source == POLICY_UNKNOWN) {
		const char *right = call->directory->flavor->policy_rights[own];
		log_event(LOG_WARNING, "policy.unreadable", LOG_FIELDS({ "directory", call->directory->settings->name }, { LOG_SERVER, call->connection->name }),
		          "directory %s: the password policy %s cannot be read, so refusals are not explained and nothing is judged beforehand: grant the agent's account %s ('writebackctl check --user' tells more)",
		          call->directory->settings->name, dn, right != NULL ? right : "the right to read this entry");
	}
}

/* A server that has no time says nothing about the policy, nor about anybody's rights. */
static bool take_policy_reply(struct directory_call *call, size_t slot, const struct reply *reply)
{
	if (!call_take_reply(call, slot, reply)) {
		return false;
	}
	uint32_t win32;
	enum status status = call->directory->flavor->answer(AD_READ, reply->ldap_result, reply->diagnostic, reply->controls, &win32);
	bool other_time = status == STATUS_DIRECTORY_BUSY || status == STATUS_DIRECTORY_UNAVAILABLE;
	if (other_time) {
		call_finish(call, call_judge(call, AD_READ, reply));
	}
	return !other_time;
}

static void on_policy(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	struct password_policy policy = { .source = POLICY_UNKNOWN };
	if (!take_policy_reply(call, OPERATION_POLICY, reply)) {
		return;
	}
	if (reply->ldap_result == LDAP_SUCCESS && reply->count == 1) {
		call->directory->flavor->read_policy(reply->ldap, reply->entries[0], true, &policy);
	}
	if (policy.source_name == NULL) {
		policy.source_name = strdup(call->user.policy_dn);
	}
	warn_if_unreadable(call, call->user.policy_dn, &policy, true);
	policy_cache_put(&call->directory->policies, call->user.policy_dn, clock_monotonic_us(), &policy);
	complete_reading(call, &policy);
}

/* He may have a policy of his own, and the agent's account may not see which. Told once in the cache's time. */
static void complete_without_policy(struct directory_call *call)
{
	static const char HIDDEN[] = "msDS-ResultantPSO";
	struct directory *directory = call->directory;
	struct password_policy policy = { .source = POLICY_UNKNOWN }, told;
	if (policy_cache_get(&directory->policies, HIDDEN, clock_monotonic_us(), directory->settings->policy_cache_ms * 1000, &told)) {
		free(told.source_name);
	} else {
		policy_cache_put(&directory->policies, HIDDEN, clock_monotonic_us(), &policy);
		log_event(LOG_WARNING, "policy.unreadable", LOG_FIELDS({ "directory", directory->settings->name }, { LOG_SERVER, call->connection->name }),
		          "directory %s: which password policy %s has cannot be read, so refusals are not explained and nothing is judged beforehand: grant the agent's account \"Read all properties\" "
		          "on the users, %s among them", directory->settings->name, call->user.account.dn, HIDDEN);
	}
	complete_reading(call, &policy);
}

/* The user has been read: whose policy is it? */
static void choose_policy(struct directory_call *call)
{
	const char *dn = call->user.policy_dn != NULL ? call->user.policy_dn : domain_dn(call);
	struct password_policy policy = { .source = POLICY_UNKNOWN };
	if (dn == NULL) {
		complete_reading(call, &policy);
		return;
	}
	if (call->user.policy_hidden) {
		complete_without_policy(call);
		return;
	}
	/* ten seconds more: the domain's, found fresh when the reading began, must not run out before its end */
	bool cached = policy_cache_get(&call->directory->policies, dn, clock_monotonic_us(), call->directory->settings->policy_cache_ms * 1000 + 10000000, &policy);
	if (cached || call->user.policy_dn == NULL) {
		complete_reading(call, &policy);
		return;
	}
	enum status status = operation_read(call->connection, dn, call->directory->flavor->policy_attributes, call_attempt_ms(call), on_policy, call, &call->operations[OPERATION_POLICY]);
	if (status != STATUS_OK) {
		call_fail_attempt(call, status);
	}
}

static void one_read_done(struct directory_call *call)
{
	if (--call->pending > 0) {
		return;
	}
	if (call->user_status != STATUS_OK) {
		call_finish(call, call->user_status);
	} else if (!groups_start(call, choose_policy)) {
		choose_policy(call);
	}
}

static void on_user(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	uint8_t guid[16];
	if (!call_take_reply(call, OPERATION_USER, reply)) {
		return;
	}
	call->user_status = call_judge(call, AD_READ, reply);
	if (call->user_status == STATUS_OK) {
		struct view view = connection_view(call->connection);
		call->user_status = reply->count == 0 ? STATUS_USER_NOT_FOUND : call->directory->flavor->read_user(&view, reply->ldap, reply->entries[0], &call->user);
	}
	/* Another entry bears the name by now, or the server answers what it was not asked: it is not who was found. */
	if (call->user_status == STATUS_OK && (guid_parse(call->user.account.guid, guid) != STATUS_OK || memcmp(guid, call->guid, sizeof guid) != 0)) {
		call->user_status = STATUS_USER_NOT_FOUND;
	}
	one_read_done(call);
}

static void on_position(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	struct connection *connection = call->connection;
	struct root_facts root;
	if (!call_take_reply(call, OPERATION_POSITION, reply)) {
		return;
	}
	call->position.server = strdup(connection->name);
	call->position.invocation_known = connection->server.invocation_known;
	memcpy(call->position.invocation_id, connection->server.invocation_id, sizeof call->position.invocation_id);
	if (reply->ldap_result == LDAP_SUCCESS && reply->count == 1) {
		call->directory->flavor->read_root(call->directory->settings, reply->ldap, reply->entries[0], &root);
		call->position.highest_committed_usn = root.highest_committed_usn;
		call->position.current_time_s = root.current_time_s;
		if (root.current_time_s != 0) {
			connection->clock_skew_ms = clock_now_ms() - root.current_time_s * 1000;
		}
		root_facts_clear(&root);
	}
	one_read_done(call);
}

static void on_domain(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	struct password_policy policy;
	if (!take_policy_reply(call, OPERATION_DOMAIN, reply)) {
		return;
	}
	if (reply->ldap_result == LDAP_SUCCESS && reply->count == 1) {
		call->directory->flavor->read_policy(reply->ldap, reply->entries[0], false, &policy);
		warn_if_unreadable(call, domain_dn(call), &policy, false);
		policy_cache_put(&call->directory->policies, domain_dn(call), clock_monotonic_us(), &policy);
		free(policy.source_name);
	}
	one_read_done(call);
}

static bool domain_policy_is_fresh(struct directory_call *call)
{
	struct password_policy policy;
	if (!policy_cache_get(&call->directory->policies, domain_dn(call), clock_monotonic_us(), call->directory->settings->policy_cache_ms * 1000, &policy)) {
		return false;
	}
	free(policy.source_name);
	return true;
}

/* The user, the server's position and, where it is not known any more, the domain's policy: all at once. */
void reading_start(struct directory_call *call)
{
	const struct flavor *flavor = call->directory->flavor;
	struct connection *connection = call->connection;
	int64_t timeout_ms = call_attempt_ms(call);
	if (call->name == NULL && flavor->name_user != NULL && (call->name = malloc(NAME_SIZE)) != NULL) {
		flavor->name_user(call->guid, call->name);
	}
	if (call->name == NULL) {
		call_finish(call, STATUS_AGENT_INTERNAL);
		return;
	}
	call->user_status = STATUS_DIRECTORY_PROTOCOL;
	call->pending = 2;
	enum status status = operation_read(connection, call->name, call->directory->user_attributes != NULL ? call->directory->user_attributes : flavor->user_attributes, timeout_ms, on_user, call, &call->operations[OPERATION_USER]);
	if (status == STATUS_OK) {
		status = operation_read(connection, "", flavor->root_attributes, timeout_ms, on_position, call, &call->operations[OPERATION_POSITION]);
	}
	if (status == STATUS_OK && domain_dn(call) != NULL && !domain_policy_is_fresh(call)) {
		call->pending++;
		status = operation_read(connection, domain_dn(call), flavor->domain_attributes, timeout_ms, on_domain, call, &call->operations[OPERATION_DOMAIN]);
	}
	if (status != STATUS_OK) {
		call_fail_attempt(call, status);
	}
}

static char *name_of(const struct reply *reply)
{
	char *dn = ldap_get_dn(reply->ldap, reply->entries[0]);
	char *name = dn != NULL ? strdup(dn) : NULL;
	ldap_memfree(dn);
	return name;
}

static void on_found(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!call_take_reply(call, OPERATION_FIND, reply)) {
		return;
	}
	enum status status = call_judge(call, AD_READ, reply);
	if (status == STATUS_OK && reply->count != 1) {
		status = reply->count == 0 ? STATUS_USER_NOT_FOUND : STATUS_USER_AMBIGUOUS;
	}
	if (status == STATUS_OK && !call->directory->flavor->read_guid(reply->ldap, reply->entries[0], call->guid)) {
		status = STATUS_DIRECTORY_DENIED;
	}
	if (status == STATUS_OK && call->directory->flavor->name_user == NULL) {
		call->name = name_of(reply);
	}
	if (status != STATUS_OK) {
		call_finish(call, status);
		return;
	}
	reading_start(call);
}

void reading_find(struct directory_call *call)
{
	struct ldap_search search;
	struct view view = connection_view(call->connection);
	enum status status = call->directory->flavor->find_user(&view, call->by, call->id, &search, call->guid);
	if (status != STATUS_OK) {
		call_finish(call, status);
	} else if (search.base == NULL) {
		reading_start(call);
	} else if ((status = operation_search(call->connection, &search, call_attempt_ms(call), on_found, call, &call->operations[OPERATION_FIND])) != STATUS_OK) {
		call_fail_attempt(call, status);
	}
}

/* The rights ------------------------------------------------------------------------------------------------------------------------------ */

static void one_right_done(struct directory_call *call)
{
	const struct located *located = call->located;
	if (--call->pending > 0) {
		return;
	}
	/* A policy of his own has been read, or not: nothing proves it better. */
	if (located->user.policy_dn != NULL) {
		call->rights.answers[RIGHT_READ_POLICIES] = located->user.account.policy.source == POLICY_PSO ? RIGHT_YES : RIGHT_NO;
	}
	call_finish(call, call->user_status);
}

static void take_rights(struct directory_call *call, enum rights_entry of, const struct reply *reply)
{
	if (reply->ldap_result == LDAP_SUCCESS && reply->count == 1) {
		call->directory->flavor->read_rights(of, reply->ldap, reply->entries[0], &call->connection->token, &call->rights);
	}
}

static void on_user_rights(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!call_take_reply(call, OPERATION_USER, reply)) {
		return;
	}
	call->user_status = call_judge(call, AD_READ, reply);
	if (call->user_status == STATUS_OK && reply->count == 0) {
		call->user_status = STATUS_USER_NOT_FOUND;
	}
	take_rights(call, RIGHTS_OF_USER, reply);
	one_right_done(call);
}

static void on_domain_rights(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (call_take_reply(call, OPERATION_DOMAIN, reply)) {
		take_rights(call, RIGHTS_OF_DOMAIN, reply);
		one_right_done(call);
	}
}

static void on_container_rights(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!call_take_reply(call, OPERATION_POLICY, reply)) {
		return;
	}
	take_rights(call, RIGHTS_OF_POLICIES, reply);
	/* Every domain has it; a server that says otherwise hides it. */
	if (reply->ldap_result == LDAP_NO_SUCH_OBJECT) {
		call->rights.answers[RIGHT_READ_POLICIES] = RIGHT_NO;
	}
	one_right_done(call);
}

static enum status read_container(struct directory_call *call)
{
	const struct flavor *flavor = call->directory->flavor;
	AUTO_FREE char *container = NULL;
	if (flavor->container_rdn == NULL) {
		return STATUS_OK;
	}
	if (asprintf(&container, "%s,%s", flavor->container_rdn, call->connection->root.naming_context) < 0) {
		container = NULL;
		return STATUS_AGENT_INTERNAL;
	}
	call->pending++;
	return operation_read(call->connection, container, flavor->container_attributes, call_attempt_ms(call), on_container_rights, call, &call->operations[OPERATION_POLICY]);
}

void reading_rights(struct directory_call *call)
{
	const struct flavor *flavor = call->directory->flavor;
	int64_t timeout_ms = call_attempt_ms(call);
	call->pending = 2;
	enum status status = operation_read(call->connection, call->name, flavor->rights_attributes, timeout_ms, on_user_rights, call, &call->operations[OPERATION_USER]);
	if (status == STATUS_OK && domain_dn(call) == NULL) {
		call->pending--;
	} else if (status == STATUS_OK) {
		status = operation_read(call->connection, domain_dn(call), flavor->container_attributes, timeout_ms, on_domain_rights, call, &call->operations[OPERATION_DOMAIN]);
	}
	if (status == STATUS_OK) {
		status = read_container(call);
	}
	if (status != STATUS_OK) {
		call_fail_attempt(call, status);
	}
}
