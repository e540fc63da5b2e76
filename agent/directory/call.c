/* The calls: locate, recheck, write, lookup of a SID. Each waits for a connection where it has none of its own, asks, and ends once: by its answer, its deadline, or the
 * directory's end. Its callback always comes from the loop's top level. */
#include <stdio.h>
#include <string.h>

#include "agent/directory/internal.h"
#include "base/clock.h"

struct located {
	unsigned references;
	struct connection *connection;
	unsigned generation;
	uint8_t guid[16];
	struct user_facts user;
	struct server_position position;
};

enum call_kind { CALL_LOCATE, CALL_RECHECK, CALL_WRITE, CALL_LOOKUP_SID };
enum { OPERATION_FIND, OPERATION_USER, OPERATION_POSITION, OPERATION_DOMAIN, OPERATION_POLICY, OPERATION_WRITE, OPERATION_COUNT };

struct directory_call {
	TAILQ_ENTRY(directory_call) link, queue_link;
	struct directory *directory;
	enum call_kind kind;
	bool queued, finished;
	enum status status;
	struct directory_answer answer;
	int64_t deadline_us;
	struct event *timer, *finish;

	char *id, *prefer, *avoid;     /* avoid: a server that let an attempt time out */
	enum locate_by by;
	uint8_t guid[16];
	struct connection *connection; /* a reference, while it asks */
	unsigned generation;
	struct operation *operations[OPERATION_COUNT];
	unsigned pending;              /* reads of the user not answered yet */
	struct user_facts user;
	enum status user_status;
	struct server_position position;
	struct located *located;
	struct sid sid;
	enum ad_operation operation;   /* of a write */
	union {
		locate_done locate;
		recheck_done recheck;
		write_done write;
		lookup_sid_done lookup;
	} done;
	void *arg;
};

static void start_call(struct directory_call *call);

static void position_clear(struct server_position *position)
{
	free(position->server);
	*position = (struct server_position){ 0 };
}

static void cancel_operations(struct directory_call *call)
{
	for (size_t i = 0; i < OPERATION_COUNT; i++) {
		operation_cancel(call->operations[i]);
		call->operations[i] = NULL;
	}
	call->pending = 0;
}

static void leave_queue(struct directory_call *call)
{
	if (call->queued) {
		TAILQ_REMOVE(&call->directory->queue, call, queue_link);
		call->directory->queued--;
		call->queued = false;
	}
}

static void forget_reading(struct directory_call *call)
{
	cancel_operations(call);
	user_facts_clear(&call->user);
	position_clear(&call->position);
	connection_unref(call->connection);
	call->connection = NULL;
}

static void call_free(struct directory_call *call)
{
	leave_queue(call);
	TAILQ_REMOVE(&call->directory->calls, call, link);
	forget_reading(call);
	located_free(call->located);
	if (call->timer != NULL) {
		event_free(call->timer);
	}
	if (call->finish != NULL) {
		event_free(call->finish);
	}
	free(call->id);
	free(call->prefer);
	free(call->avoid);
	free(call);
}

/* Ends the call; its callback comes with the loop's next turn. The first end counts. */
static void finish(struct directory_call *call, enum status status)
{
	if (call->finished) {
		return;
	}
	if (call->connection != NULL) {
		snprintf(call->answer.server, sizeof call->answer.server, "%s", call->connection->name);
	}
	call->finished = true;
	call->status = status;
	leave_queue(call);
	cancel_operations(call);
	event_active(call->finish, 0, 0);
}

/* The callback; the call is gone before it runs, so that it may do anything. */
static void fire(struct directory_call *call)
{
	struct directory_call copy = *call;
	struct located *found = call->kind == CALL_LOCATE && call->status == STATUS_OK ? call->located : NULL;
	if (found != NULL) {
		call->located = NULL;
	}
	call_free(call);
	switch (copy.kind) {
	case CALL_LOCATE:
		copy.done.locate(copy.status, found, &copy.answer, copy.arg);
		break;
	case CALL_RECHECK:
		copy.done.recheck(copy.status, &copy.answer, copy.arg);
		break;
	case CALL_WRITE:
		copy.done.write(copy.status, &copy.answer, copy.arg);
		break;
	case CALL_LOOKUP_SID:
		copy.done.lookup(copy.status, copy.status == STATUS_OK ? &copy.sid : NULL, &copy.answer, copy.arg);
		break;
	}
}

static void on_finish(evutil_socket_t fd, short what, void *arg)
{
	fire(arg);
}

static void on_call_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct directory_call *call = arg;
	if (call->queued) {
		finish(call, directory_has_usable(call->directory) ? STATUS_DIRECTORY_BUSY : directory_outage(call->directory));
	} else if (call->kind != CALL_WRITE) { /* a write ends by its operation, which knows whether it was sent */
		finish(call, STATUS_DIRECTORY_TIMEOUT);
	}
}

static int64_t left_ms(const struct directory_call *call)
{
	int64_t left = (call->deadline_us - clock_monotonic_us()) / 1000;
	return left > 1 ? left : 1;
}

/* A read that can be repeated elsewhere gets half of what is left. */
static int64_t attempt_ms(const struct directory_call *call)
{
	bool movable = call->kind == CALL_LOCATE || call->kind == CALL_LOOKUP_SID;
	return movable && directory_has_other(call->directory, call->connection) ? (left_ms(call) + 1) / 2 : left_ms(call);
}

static void enqueue(struct directory_call *call, bool first)
{
	struct directory *directory = call->directory;
	if (first) {
		TAILQ_INSERT_HEAD(&directory->queue, call, queue_link);
	} else {
		TAILQ_INSERT_TAIL(&directory->queue, call, queue_link);
	}
	call->queued = true;
	directory->queued++;
}

/* An operation could not be started or was lost. What has no connection of its own goes to another one, while there is time. */
static void fail_attempt(struct directory_call *call, enum status status)
{
	bool movable = call->kind == CALL_LOCATE || call->kind == CALL_LOOKUP_SID;
	if (call->finished) {
		return;
	}
	if (!movable || status == STATUS_AGENT_INTERNAL || call->directory->closing || left_ms(call) <= 1) {
		finish(call, status);
		return;
	}
	if (status == STATUS_DIRECTORY_TIMEOUT) {
		free(call->avoid);
		call->avoid = strdup(call->connection->name);
	}
	forget_reading(call);
	enqueue(call, true);
	event_active(call->directory->news, 0, 0);
	if (directory_is_hopeless(call->directory)) {
		directory_kick(call->directory);
	}
	if (directory_is_hopeless(call->directory)) {
		finish(call, directory_outage(call->directory));
	}
}

/* True where the reply is an answer that is fit to be looked at; else the call has been seen to. */
static bool take_reply(struct directory_call *call, size_t slot, const struct reply *reply)
{
	call->operations[slot] = NULL;
	if (reply->status != STATUS_OK) {
		fail_attempt(call, reply->status);
		return false;
	}
	return true;
}

static enum status judge(struct directory_call *call, enum ad_operation operation, const struct reply *reply)
{
	call->answer.ldap_result = reply->ldap_result;
	ad_answer_text(reply->diagnostic, call->answer.diagnostic, sizeof call->answer.diagnostic);
	return call->directory->flavor->answer(operation, reply->ldap_result, reply->diagnostic, &call->answer.win32);
}

/* Everything has been read: account, policy and position go into `located`. */
static void complete_reading(struct directory_call *call, const struct password_policy *take_policy)
{
	struct located *located = call->located;
	if (located == NULL) {
		located = call->located = calloc(1, sizeof *located);
		if (located == NULL) {
			free(take_policy->source_name);
			finish(call, STATUS_AGENT_INTERNAL);
			return;
		}
		located->references = 1;
		located->connection = connection_ref(call->connection);
		located->generation = call->generation;
		memcpy(located->guid, call->guid, sizeof located->guid);
	}
	call->user.account.policy = *take_policy;
	call->user.account.is_self = call->connection->self.size > 0 && sid_equal(&call->connection->self, &call->user.account.sid);
	user_facts_clear(&located->user);
	position_clear(&located->position);
	located->user = call->user;
	located->position = call->position;
	call->user = (struct user_facts){ 0 };
	call->position = (struct server_position){ 0 };
	finish(call, STATUS_OK);
}

static void on_policy(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	struct password_policy policy = { .source = POLICY_UNKNOWN };
	if (!take_reply(call, OPERATION_POLICY, reply)) {
		return;
	}
	if (reply->ldap_result == LDAP_SUCCESS && reply->count == 1) {
		call->directory->flavor->read_policy(reply->ldap, reply->entries[0], true, &policy);
		policy_cache_put(&call->directory->policies, call->user.policy_dn, clock_monotonic_us(), &policy);
	} else {
		policy.source_name = strdup(call->user.policy_dn);
	}
	complete_reading(call, &policy);
}

/* The user has been read: whose policy is it? */
static void choose_policy(struct directory_call *call)
{
	const char *dn = call->user.policy_dn != NULL ? call->user.policy_dn : call->connection->root.naming_context;
	struct password_policy policy = { .source = POLICY_UNKNOWN };
	/* ten seconds more: the domain's, found fresh when the reading began, must not run out before its end */
	bool cached = policy_cache_get(&call->directory->policies, dn, clock_monotonic_us(), call->directory->settings->policy_cache_ms * 1000 + 10000000, &policy);
	if (cached || call->user.policy_dn == NULL) {
		complete_reading(call, &policy);
		return;
	}
	enum status status = operation_read(call->connection, dn, call->directory->flavor->policy_attributes, attempt_ms(call), on_policy, call, &call->operations[OPERATION_POLICY]);
	if (status != STATUS_OK) {
		fail_attempt(call, status);
	}
}

static void one_read_done(struct directory_call *call)
{
	if (--call->pending > 0) {
		return;
	}
	if (call->user_status != STATUS_OK) {
		finish(call, call->user_status);
	} else {
		choose_policy(call);
	}
}

static void on_user(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!take_reply(call, OPERATION_USER, reply)) {
		return;
	}
	call->user_status = judge(call, AD_READ, reply);
	if (call->user_status == STATUS_OK) {
		call->user_status = reply->count == 0 ? STATUS_USER_NOT_FOUND : call->directory->flavor->read_user(reply->ldap, reply->entries[0], &call->user);
	}
	one_read_done(call);
}

static void on_position(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	struct connection *connection = call->connection;
	struct root_facts root;
	if (!take_reply(call, OPERATION_POSITION, reply)) {
		return;
	}
	call->position.server = strdup(connection->name);
	call->position.invocation_known = connection->server.invocation_known;
	memcpy(call->position.invocation_id, connection->server.invocation_id, sizeof call->position.invocation_id);
	if (reply->ldap_result == LDAP_SUCCESS && reply->count == 1) {
		call->directory->flavor->read_root(reply->ldap, reply->entries[0], &root);
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
	if (!take_reply(call, OPERATION_DOMAIN, reply)) {
		return;
	}
	if (reply->ldap_result == LDAP_SUCCESS && reply->count == 1) {
		call->directory->flavor->read_policy(reply->ldap, reply->entries[0], false, &policy);
		policy_cache_put(&call->directory->policies, call->connection->root.naming_context, clock_monotonic_us(), &policy);
		free(policy.source_name);
	}
	one_read_done(call);
}

static bool domain_policy_is_fresh(struct directory_call *call)
{
	struct password_policy policy;
	if (!policy_cache_get(&call->directory->policies, call->connection->root.naming_context, clock_monotonic_us(), call->directory->settings->policy_cache_ms * 1000, &policy)) {
		return false;
	}
	free(policy.source_name);
	return true;
}

/* The user, the server's position and, where it is not known any more, the domain's policy: all at once. */
static void start_reading(struct directory_call *call)
{
	const struct flavor *flavor = call->directory->flavor;
	struct connection *connection = call->connection;
	char name[64];
	int64_t timeout_ms = attempt_ms(call);
	flavor->name_user(call->guid, name);
	call->user_status = STATUS_DIRECTORY_PROTOCOL;
	call->pending = 2;
	enum status status = operation_read(connection, name, flavor->user_attributes, timeout_ms, on_user, call, &call->operations[OPERATION_USER]);
	if (status == STATUS_OK) {
		status = operation_read(connection, "", flavor->root_attributes, timeout_ms, on_position, call, &call->operations[OPERATION_POSITION]);
	}
	if (status == STATUS_OK && !domain_policy_is_fresh(call)) {
		call->pending++;
		status = operation_read(connection, connection->root.naming_context, flavor->domain_attributes, timeout_ms, on_domain, call, &call->operations[OPERATION_DOMAIN]);
	}
	if (status != STATUS_OK) {
		fail_attempt(call, status);
	}
}

static void on_found(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!take_reply(call, OPERATION_FIND, reply)) {
		return;
	}
	enum status status = judge(call, AD_READ, reply);
	if (status == STATUS_OK && reply->count != 1) {
		status = reply->count == 0 ? STATUS_USER_NOT_FOUND : STATUS_USER_AMBIGUOUS;
	}
	if (status == STATUS_OK && !call->directory->flavor->read_guid(reply->ldap, reply->entries[0], call->guid)) {
		status = STATUS_DIRECTORY_DENIED;
	}
	if (status != STATUS_OK) {
		finish(call, status);
		return;
	}
	start_reading(call);
}

static void start_locate(struct directory_call *call)
{
	struct ldap_search search;
	enum status status = call->directory->flavor->find_user(call->by, call->id, connection_base_dn(call->connection), &search, call->guid);
	if (status != STATUS_OK) {
		finish(call, status);
	} else if (search.base == NULL) {
		start_reading(call);
	} else if ((status = operation_search(call->connection, &search, attempt_ms(call), on_found, call, &call->operations[OPERATION_FIND])) != STATUS_OK) {
		fail_attempt(call, status);
	}
}

static void on_sid(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!take_reply(call, OPERATION_FIND, reply)) {
		return;
	}
	enum status status = judge(call, AD_READ, reply);
	if (status == STATUS_OK && (reply->count != 1 || !call->directory->flavor->read_sid(reply->ldap, reply->entries[0], &call->sid))) {
		status = STATUS_USER_NOT_FOUND;
	}
	finish(call, status);
}

/* Has a connection now. */
static void start_call(struct directory_call *call)
{
	call->generation = call->connection->generation;
	if (call->kind != CALL_LOOKUP_SID) {
		start_locate(call);
		return;
	}
	enum status status = operation_read(call->connection, call->id, call->directory->flavor->sid_attributes, attempt_ms(call), on_sid, call, &call->operations[OPERATION_FIND]);
	if (status != STATUS_OK) {
		fail_attempt(call, status);
	}
}

void calls_pump(struct directory *directory)
{
	struct directory_call *call, *next;
	for (call = TAILQ_FIRST(&directory->queue); call != NULL; call = next) {
		next = TAILQ_NEXT(call, queue_link);
		if (directory_is_hopeless(directory)) {
			finish(call, directory_outage(directory));
			continue;
		}
		struct connection *connection = directory_choose(directory, call->prefer, call->avoid);
		if (connection == NULL && call->prefer == NULL) {
			break;
		}
		if (connection != NULL) {
			leave_queue(call);
			call->connection = connection_ref(connection);
			start_call(call);
		}
	}
}

void calls_end(struct directory *directory)
{
	struct directory_call *call;
	while ((call = TAILQ_FIRST(&directory->calls)) != NULL) {
		finish(call, STATUS_DIRECTORY_UNAVAILABLE);
		fire(call);
	}
}

static enum status call_new(struct directory *directory, enum call_kind kind, int64_t timeout_ms, void *arg, struct directory_call **ret_call)
{
	struct timeval deadline = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
	struct directory_call *call = calloc(1, sizeof *call);
	if (call == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	call->directory = directory;
	call->kind = kind;
	call->arg = arg;
	call->answer.ldap_result = -1;
	call->deadline_us = clock_monotonic_us() + timeout_ms * 1000;
	TAILQ_INSERT_TAIL(&directory->calls, call, link);
	call->timer = evtimer_new(directory->base, on_call_deadline, call);
	call->finish = evtimer_new(directory->base, on_finish, call);
	if (call->timer == NULL || call->finish == NULL || evtimer_add(call->timer, &deadline) != 0) {
		call_free(call);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_call = call;
	return STATUS_OK;
}

/* A call that any server may answer. */
static enum status begin_anywhere(struct directory_call *call, const char *id, const char *prefer, struct directory_call **ret_call)
{
	struct directory *directory = call->directory;
	call->id = strdup(id);
	call->prefer = prefer != NULL ? strdup(prefer) : NULL;
	if (call->id == NULL || (prefer != NULL && call->prefer == NULL)) {
		call_free(call);
		return STATUS_AGENT_INTERNAL;
	}
	if (directory_is_hopeless(directory)) {
		directory_kick(directory);
	}
	enqueue(call, false);
	calls_pump(directory);
	if (ret_call != NULL) {
		*ret_call = call;
	}
	return STATUS_OK;
}

static enum status admit(const struct directory *directory)
{
	if (directory->closing) {
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	return directory->queued >= directory->settings->queue_limit ? STATUS_AGENT_OVERLOADED : STATUS_OK;
}

enum status directory_locate(struct directory *directory, enum locate_by by, const char *id, const char *prefer_server, int64_t timeout_ms, locate_done done, void *arg,
                             struct directory_call **ret_call)
{
	struct directory_call *call = NULL;
	enum status status = admit(directory);
	if (status == STATUS_OK) {
		status = call_new(directory, CALL_LOCATE, timeout_ms, arg, &call);
	}
	if (status != STATUS_OK) {
		return status;
	}
	call->by = by;
	call->done.locate = done;
	return begin_anywhere(call, id, prefer_server, ret_call);
}

enum status directory_lookup_sid(struct directory *directory, const char *dn, int64_t timeout_ms, lookup_sid_done done, void *arg, struct directory_call **ret_call)
{
	struct directory_call *call = NULL;
	enum status status = admit(directory);
	if (status == STATUS_OK) {
		status = call_new(directory, CALL_LOOKUP_SID, timeout_ms, arg, &call);
	}
	if (status != STATUS_OK) {
		return status;
	}
	call->done.lookup = done;
	return begin_anywhere(call, dn, NULL, ret_call);
}

/* A call on the connection that the user was read from, which must still be the same one. */
static enum status call_on(struct located *located, enum call_kind kind, int64_t timeout_ms, void *arg, struct directory_call **ret_call)
{
	struct connection *connection = located->connection;
	if (connection->owner == NULL || connection->owner->closing || connection->generation != located->generation || !connection_usable(connection)) {
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	enum status status = call_new(connection->owner, kind, timeout_ms, arg, ret_call);
	if (status == STATUS_OK) {
		(*ret_call)->connection = connection_ref(connection);
		(*ret_call)->generation = located->generation;
		(*ret_call)->located = located;
		located->references++;
		memcpy((*ret_call)->guid, located->guid, sizeof located->guid);
	}
	return status;
}

enum status directory_recheck(struct located *located, int64_t timeout_ms, recheck_done done, void *arg, struct directory_call **ret_call)
{
	struct directory_call *call = NULL;
	enum status status = call_on(located, CALL_RECHECK, timeout_ms, arg, &call);
	if (status != STATUS_OK) {
		return status;
	}
	call->done.recheck = done;
	start_reading(call);
	if (ret_call != NULL) {
		*ret_call = call;
	}
	return STATUS_OK;
}

static void on_written(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	call->operations[OPERATION_WRITE] = NULL;
	call->answer.sent = reply->sent;
	call->answer.answered = reply->status == STATUS_OK;
	finish(call, reply->status == STATUS_OK ? judge(call, call->operation, reply) : reply->status);
}

enum status directory_write(struct located *located, const struct directory_change *wanted, int64_t timeout_ms, write_done done, void *arg, struct directory_call **ret_call)
{
	struct connection *connection = located->connection;
	const char *control = wanted->enforce_policy && wanted->set_password ? connection->root.policy_control : NULL;
	struct directory_call *call = NULL;
	struct change *change = NULL;
	char name[64];
	if (!wanted->set_password && !wanted->must_change && !wanted->clear_lockout) {
		return STATUS_LOCAL_INPUT;
	}
	enum status status = call_on(located, CALL_WRITE, timeout_ms, arg, &call);
	if (status != STATUS_OK) {
		return status;
	}
	if (wanted->enforce_policy && wanted->set_password && control == NULL && connection->setup.settings->policy_hints == POLICY_HINTS_REQUIRE) {
		status = STATUS_DIRECTORY_NO_POLICY_CONTROL;
	}
	if (status == STATUS_OK) {
		status = call->directory->flavor->change_new(wanted, control, &change);
	}
	if (status == STATUS_OK) {
		call->operation = wanted->set_password ? AD_RESET : AD_UNLOCK;
		call->done.write = done;
		call->directory->flavor->name_user(located->guid, name);
		status = operation_modify(connection, name, change, timeout_ms, on_written, call, &call->operations[OPERATION_WRITE]);
	}
	if (status != STATUS_OK) {
		call_free(call);
		return status;
	}
	if (ret_call != NULL) {
		*ret_call = call;
	}
	return STATUS_OK;
}

void directory_cancel(struct directory_call *call)
{
	if (call != NULL) {
		call_free(call);
	}
}

const struct account *located_account(const struct located *located)
{
	return &located->user.account;
}

const struct server_position *located_position(const struct located *located)
{
	return &located->position;
}

const struct replication_record *located_password_record(const struct located *located)
{
	return &located->user.password_record;
}

struct directory *located_directory(const struct located *located)
{
	return located->connection->owner;
}

const char *located_policy_control(const struct located *located)
{
	return located->connection->root.policy_control;
}

void located_free(struct located *located)
{
	if (located != NULL && --located->references == 0) {
		connection_unref(located->connection);
		user_facts_clear(&located->user);
		position_clear(&located->position);
		free(located);
	}
}
