/* The groups of a user whose directory does not compute them (flavor ldap): those that name him, those that name these, and so on. All or none: a search that fails, a part of the
 * tree that another server holds, an entry without an identity or more groups than the bounds allow leave groups_read false, which is a refusal and never "none". */
#include <string.h>

#include "agent/directory/call.h"

enum { GROUPS_MAX = 1000, SEARCHES_MAX = 64, GROUPS_A_SEARCH = 32 };

static void on_groups(const struct reply *reply, void *arg);

void group_walk_clear(struct group_walk *walk)
{
	for (size_t i = 0; i < walk->count; i++) {
		free(walk->dns[i]);
	}
	free(walk->dns);
	*walk = (struct group_walk){ 0 };
}

static void end_walk(struct directory_call *call, bool good)
{
	void (*done)(struct directory_call *call) = call->walk.done;
	call->user.account.groups_read = good;
	if (!good) {
		call->user.account.group_count = 0;
	}
	group_walk_clear(&call->walk);
	done(call);
}

static bool is_known(const struct account *account, const struct sid *sid)
{
	for (size_t i = 0; i < account->group_count; i++) {
		if (sid_equal(&account->groups[i], sid)) {
			return true;
		}
	}
	return false;
}

/* False where it cannot be held. Groups may name each other in circles: each is followed once. */
static bool add_group(struct directory_call *call, const struct reply *reply, size_t index)
{
	struct account *account = &call->user.account;
	struct group_walk *walk = &call->walk;
	struct sid sid;
	if (!call->directory->flavor->read_sid(reply->ldap, reply->entries[index], &sid)) {
		return false;
	}
	if (is_known(account, &sid)) {
		return true;
	}
	char *dn = ldap_get_dn(reply->ldap, reply->entries[index]), *copy = dn != NULL ? strdup(dn) : NULL;
	ldap_memfree(dn);
	if (copy == NULL || walk->count == GROUPS_MAX) {
		free(copy);
		return false;
	}
	account->groups[account->group_count++] = sid;
	walk->dns[walk->count++] = copy;
	return true;
}

/* The next search, or the end. */
static void walk_on(struct directory_call *call)
{
	struct group_walk *walk = &call->walk;
	struct view view = connection_view(call->connection);
	size_t count = walk->count - walk->asked < GROUPS_A_SEARCH ? walk->count - walk->asked : GROUPS_A_SEARCH;
	struct ldap_search search;
	if (walk->searches > 0 && count == 0) {
		end_walk(call, true);
		return;
	}
	enum status status = walk->searches++ < SEARCHES_MAX ? STATUS_OK : STATUS_AGENT_OVERLOADED;
	if (status != STATUS_OK) {
		end_walk(call, false);
		return;
	}
	status = call->directory->flavor->find_groups(&view, &call->user, walk->dns + walk->asked, count, &search);
	if (status == STATUS_OK) {
		search.most = GROUPS_MAX;
		walk->asked += count;
		status = operation_search(call->connection, &search, call_attempt_ms(call), on_groups, call, &call->operations[OPERATION_GROUPS]);
	}
	if (status != STATUS_OK) {
		call_fail_attempt(call, status);
	}
}

static void on_groups(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!call_take_reply(call, OPERATION_GROUPS, reply)) {
		return;
	}
	/* What lies behind a referral may be the group that protects him. */
	bool good = reply->ldap_result == LDAP_SUCCESS && !reply->truncated && !reply->referred;
	for (size_t i = 0; good && i < reply->count; i++) {
		good = add_group(call, reply, i);
	}
	if (good) {
		walk_on(call);
	} else {
		end_walk(call, false);
	}
}

bool groups_start(struct directory_call *call, void (*done)(struct directory_call *call))
{
	if (call->directory->flavor->find_groups == NULL) {
		return false;
	}
	group_walk_clear(&call->walk);
	call->walk.done = done;
	call->walk.dns = calloc(GROUPS_MAX, sizeof *call->walk.dns);
	call->user.account.groups = calloc(GROUPS_MAX, sizeof *call->user.account.groups);
	if (call->walk.dns == NULL || call->user.account.groups == NULL) {
		call_fail_attempt(call, STATUS_AGENT_INTERNAL);
	} else {
		walk_on(call);
	}
	return true;
}
