/* The calls: locate, recheck, lookup of a SID; those that write or verify go on in writing.c. Each waits for a connection where it has none of its own, asks, and ends once: by its answer, its deadline, or the
 * directory's end. Its callback always comes from the loop's top level. */
#include <stdio.h>
#include <string.h>

#include "agent/directory/call.h"
#include "base/clock.h"

/* Another attempt in less time than this has no chance; an operation's timer may also fire a little before the call's. */
enum { LEAST_ATTEMPT_MS = 10 };

/* Less than a second in all, where the other server is quick. */
enum { PATIENCE_US = 800000 };

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
	group_walk_clear(&call->walk);
	free(call->name);
	call->name = NULL;
	connection_unref(call->connection);
	call->connection = NULL;
}

void call_free(struct directory_call *call)
{
	leave_queue(call);
	TAILQ_REMOVE(&call->directory->calls, call, link);
	forget_reading(call);
	verification_cancel(call->verification);
	located_free(call->located);
	if (call->timer != NULL) {
		event_free(call->timer);
	}
	if (call->finish != NULL) {
		event_free(call->finish);
	}
	if (call->impatience != NULL) {
		event_free(call->impatience);
	}
	free(call->id);
	free(call->prefer);
	free(call->avoid);
	free(call->exclude);
	change_free(call->after);
	free(call);
}

/* What it has come to is told; an answer that is not read yet would come behind the end. */
static void leave_verification(struct directory_call *call)
{
	if (call->verification != NULL) {
		call_note_stage(call, verification_stage(call->verification), false);
		verification_cancel(call->verification);
		call->verification = NULL;
	}
}

void call_finish(struct directory_call *call, enum status status)
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
	leave_verification(call);
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
	case CALL_VERIFY:
		copy.done.verify(copy.status, &copy.answer, copy.arg);
		break;
	case CALL_RIGHTS:
		copy.done.rights(copy.status, copy.status == STATUS_OK ? &copy.rights : NULL, copy.arg);
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
		call_finish(call, directory_has_usable(call->directory) ? STATUS_DIRECTORY_BUSY : directory_outage(call->directory));
	} else if (call->verification != NULL) {
		call_finish(call, verification_stage(call->verification) == VERIFICATION_WAITS ? STATUS_DIRECTORY_BUSY : STATUS_DIRECTORY_TIMEOUT);
	} else if (call->kind != CALL_WRITE) { /* a write ends by its operation, which knows whether it was sent */
		call_finish(call, STATUS_DIRECTORY_TIMEOUT);
	}
}

static bool is_movable(const struct directory_call *call)
{
	return call->kind == CALL_LOCATE || call->kind == CALL_LOOKUP_SID;
}

static int64_t left_ms(const struct directory_call *call)
{
	int64_t left = (call->deadline_us - clock_monotonic_us()) / 1000;
	return left > 1 ? left : 1;
}

int64_t call_attempt_ms(const struct directory_call *call)
{
	return is_movable(call) && directory_has_other(call->directory, call->connection) ? (left_ms(call) + 1) / 2 : left_ms(call);
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

static bool is_hopeless(const struct directory_call *call)
{
	return directory_is_hopeless(call->directory) || (call->exclude != NULL && !directory_can_reach_beside(call->directory, call->exclude));
}

static void ask_again(struct directory_call *call, bool elsewhere)
{
	if (elsewhere) {
		free(call->avoid);
		call->avoid = strdup(call->connection->name);
	}
	forget_reading(call);
	enqueue(call, true);
	event_active(call->directory->news, 0, 0);
}

static void be_patient(struct directory_call *call, int64_t us)
{
	struct timeval wait = { us / 1000000, us % 1000000 };
	if (call->impatience != NULL) {
		evtimer_add(call->impatience, &wait);
	}
}

/* A server that has said nothing at all since is not waited for while another one is up. What else is under way there keeps its own time. */
static void on_impatience(evutil_socket_t fd, short what, void *arg)
{
	struct directory_call *call = arg;
	if (call->finished || call->queued || call->connection == NULL || call->avoid != NULL) {
		return;
	}
	int64_t left_us = PATIENCE_US - (clock_monotonic_us() - call->connection->last_read_us);
	if (left_us > 0 || !directory_has_other(call->directory, call->connection)) {
		be_patient(call, left_us > 0 ? left_us : PATIENCE_US);
		return;
	}
	servers_doubt(call->directory, call->connection, call_attempt_ms(call));
	if (!call->finished && !call->queued) {
		ask_again(call, true);
	}
}

void call_fail_attempt(struct directory_call *call, enum status status)
{
	if (call->finished) {
		return;
	}
	if (!is_movable(call) || status == STATUS_AGENT_INTERNAL || call->directory->closing || left_ms(call) < LEAST_ATTEMPT_MS) {
		call_finish(call, status);
		return;
	}
	ask_again(call, status == STATUS_DIRECTORY_TIMEOUT);
	if (directory_is_hopeless(call->directory)) {
		directory_kick(call->directory);
	}
	if (is_hopeless(call)) {
		call_finish(call, directory_outage(call->directory));
	}
}

bool call_take_reply(struct directory_call *call, size_t slot, const struct reply *reply)
{
	call->operations[slot] = NULL;
	if (reply->status != STATUS_OK) {
		call_fail_attempt(call, reply->status);
		return false;
	}
	return true;
}

enum status call_judge(struct directory_call *call, enum ad_operation operation, const struct reply *reply)
{
	call->answer.ldap_result = reply->ldap_result;
	ad_answer_text(reply->diagnostic, call->answer.diagnostic, sizeof call->answer.diagnostic);
	return call->directory->flavor->answer(operation, reply->ldap_result, reply->diagnostic, reply->controls, &call->answer.win32);
}

static void on_sid(const struct reply *reply, void *arg)
{
	struct directory_call *call = arg;
	if (!call_take_reply(call, OPERATION_FIND, reply)) {
		return;
	}
	enum status status = call_judge(call, AD_READ, reply);
	if (status == STATUS_OK && reply->count != 1) {
		status = STATUS_USER_NOT_FOUND;
	}
	if (status == STATUS_OK && !call->directory->flavor->read_sid(reply->ldap, reply->entries[0], &call->sid)) {
		call->sid.size = 0;
		status = call->any_object ? STATUS_OK : STATUS_USER_NOT_FOUND;
	}
	/* A name that this server does not understand, or holds for another domain's, names nothing here. */
	if (call->answer.ldap_result == LDAP_INVALID_DN_SYNTAX || call->answer.ldap_result == LDAP_REFERRAL) {
		status = STATUS_USER_NOT_FOUND;
	}
	call_finish(call, status);
}

/* Has a connection now. */
static void start_call(struct directory_call *call)
{
	call->generation = call->connection->generation;
	if (call->kind == CALL_LOCATE) {
		reading_find(call);
		return;
	}
	struct view view = connection_view(call->connection);
	struct ldap_search search;
	enum status status = call->directory->flavor->find_object(&view, call->id, call->any_object, &search);
	if (status == STATUS_OK) {
		status = operation_search(call->connection, &search, call_attempt_ms(call), on_sid, call, &call->operations[OPERATION_FIND]);
	}
	if (status == STATUS_USER_NOT_FOUND) {
		call_finish(call, status); /* no server could find it */
	} else if (status != STATUS_OK) {
		call_fail_attempt(call, status);
	}
}

void calls_pump(struct directory *directory)
{
	struct directory_call *call, *next;
	for (call = TAILQ_FIRST(&directory->queue); call != NULL; call = next) {
		next = TAILQ_NEXT(call, queue_link);
		if (is_hopeless(call)) {
			call_finish(call, directory_outage(directory));
			continue;
		}
		struct connection *connection = directory_choose(directory, call->prefer, call->avoid, call->exclude);
		if (connection == NULL && call->prefer == NULL && call->exclude == NULL) {
			break;
		}
		if (connection != NULL) {
			leave_queue(call);
			call->connection = connection_ref(connection);
			be_patient(call, PATIENCE_US);
			start_call(call);
		}
	}
}

void calls_end(struct directory *directory)
{
	struct directory_call *call;
	while ((call = TAILQ_FIRST(&directory->calls)) != NULL) {
		call_finish(call, STATUS_DIRECTORY_UNAVAILABLE);
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
	call->impatience = is_movable(call) ? evtimer_new(directory->base, on_impatience, call) : NULL;
	if (call->timer == NULL || call->finish == NULL || (is_movable(call) && call->impatience == NULL) || evtimer_add(call->timer, &deadline) != 0) {
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

static enum status locate(struct directory *directory, enum locate_by by, const char *id, const char *prefer, const char *exclude, int64_t timeout_ms, locate_done done, void *arg,
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
	call->exclude = exclude != NULL ? strdup(exclude) : NULL;
	if (exclude != NULL && call->exclude == NULL) {
		call_free(call);
		return STATUS_AGENT_INTERNAL;
	}
	return begin_anywhere(call, id, prefer, ret_call);
}

enum status directory_locate(struct directory *directory, enum locate_by by, const char *id, const char *prefer_server, int64_t timeout_ms, locate_done done, void *arg,
                             struct directory_call **ret_call)
{
	return locate(directory, by, id, prefer_server, NULL, timeout_ms, done, arg, ret_call);
}

enum status directory_locate_beside(struct directory *directory, enum locate_by by, const char *id, const char *not_server, int64_t timeout_ms, locate_done done, void *arg,
                                    struct directory_call **ret_call)
{
	return locate(directory, by, id, NULL, not_server, timeout_ms, done, arg, ret_call);
}

static enum status look_up(struct directory *directory, const char *dn, bool any_object, int64_t timeout_ms, lookup_sid_done done, void *arg, struct directory_call **ret_call)
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
	call->any_object = any_object;
	return begin_anywhere(call, dn, NULL, ret_call);
}

enum status directory_lookup_sid(struct directory *directory, const char *dn, int64_t timeout_ms, lookup_sid_done done, void *arg, struct directory_call **ret_call)
{
	return look_up(directory, dn, false, timeout_ms, done, arg, ret_call);
}

enum status directory_exists(struct directory *directory, const char *dn, int64_t timeout_ms, lookup_sid_done done, void *arg, struct directory_call **ret_call)
{
	return look_up(directory, dn, true, timeout_ms, done, arg, ret_call);
}

enum status call_on(struct located *located, enum call_kind kind, int64_t timeout_ms, void *arg, struct directory_call **ret_call)
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
		(*ret_call)->name = strdup(located->name);
		if ((*ret_call)->name == NULL) {
			call_free(*ret_call);
			return STATUS_AGENT_INTERNAL;
		}
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
	reading_start(call);
	if (ret_call != NULL) {
		*ret_call = call;
	}
	return STATUS_OK;
}

enum status directory_read_rights(struct located *located, int64_t timeout_ms, rights_done done, void *arg, struct directory_call **ret_call)
{
	struct directory_call *call = NULL;
	enum status status = call_on(located, CALL_RIGHTS, timeout_ms, arg, &call);
	if (status != STATUS_OK) {
		return status;
	}
	call->done.rights = done;
	reading_rights(call);
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

struct sid located_agent(const struct located *located)
{
	return located->connection->self_count == 1 ? located->connection->self[0] : (struct sid){ 0 };
}

bool located_is_retiring(const struct located *located)
{
	const struct connection *connection = located->connection;
	return connection->generation == located->generation && connection->state == CONNECTION_READY && connection->retiring;
}

struct located *located_ref(struct located *located)
{
	located->references++;
	return located;
}

void located_free(struct located *located)
{
	if (located != NULL && --located->references == 0) {
		connection_unref(located->connection);
		user_facts_clear(&located->user);
		position_clear(&located->position);
		free(located->name);
		free(located);
	}
}
