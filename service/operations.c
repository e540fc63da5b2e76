#include "service/operations_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crash.h"
#include "base/log.h"
#include "service/content.h"
#include "service/request.h"

#define SWEEP_MS 200

/* The final word --------------------------------------------------------------------------------------------------------------------- */

struct finish_job {
	struct store_finish store;
	struct operations *owner;
	struct task *task;              /* counts this job in `words`, so it stays; NULL: provisional, or of a request that no task is bound to */
	bool acknowledge;
};

static void log_done(const struct task *task)
{
	char duration[24];
	enum status status;
	int level = status_from_code(task->row.code, &status) ? status_level(status) : LOG_NOTICE;
	snprintf(duration, sizeof duration, "%lld", (long long)(task->row.finished_ms - task->row.created_ms));
	log_event(level, "operation.done", LOG_FIELDS({ LOG_OPERATION_ID, task->row.operation_id },
		{ LOG_REQUEST_ID, task->row.request_id[0] ? task->row.request_id : NULL },
		{ LOG_AGENT_ID, task->row.agent_id[0] ? task->row.agent_id : NULL }, { LOG_OP, task->row.op }, { LOG_STATUS, task->row.status }, { LOG_CODE, task->row.code },
		{ LOG_DURATION_MS, duration }), "%s: %s", task->row.op, task->row.code);
}

/* `take_row` is the operation with its final outcome. */
static void conclude(struct task *task, struct operation_row *take_row)
{
	task->finished = true;
	operation_row_clear(&task->row);
	task->row = *take_row;
	*take_row = (struct operation_row){ 0 };
	task_leave_wire(task);
	log_done(task);
	task_answer_waiters(task, STATUS_OK, &task->row, false);
}

/* Another attempt may have done it: its agent is asked for its last word by the same bytes. Nobody else is asked any more. */
static void bind_to_open(struct task *task, struct store_finish *store)
{
	struct agent *agent = hub_find(task->owner->hub, store->open.agent_id);
	operation_row_clear(&task->row);
	task->row = store->row;
	store->row = (struct operation_row){ 0 };
	log_event(LOG_NOTICE, "operation.waits", LOG_FIELDS({ LOG_OPERATION_ID, task->row.operation_id }, { LOG_REQUEST_ID, store->open.request_id },
		{ LOG_AGENT_ID, store->open.agent_id }, { LOG_CODE, store->code }), "%s says one agent, but another one may have done it: its last word is awaited", store->code);
	task_drop_spares(task);
	if (agent == NULL || store->open.frame == NULL) {
		task->again_us = 0;
		task_set_life(task, LIFE_SENT); /* its keys are gone: the time runs out */
		return;
	}
	request_row_clear(&task->request);
	task->request = store->open;
	store->open = (struct request_row){ 0 };
	task->request_sent = true;
	task_bind(task, agent);
	task_set_life(task, LIFE_QUEUED);
}

static void log_recorded(const struct finish_job *job, const struct task *task)
{
	const struct store_finish *store = &job->store;
	if (!store->known)
		log_event(LOG_WARNING, "result.unknown", LOG_FIELDS({ LOG_AGENT_ID, store->agent_id }, { LOG_REQUEST_ID, store->request_id }),
			"a result for no request to this agent, as after a restored backup: acknowledged, else it would come for ever");
	else if (store->mismatch)
		log_event(LOG_WARNING, "result.malformed", LOG_FIELDS({ LOG_AGENT_ID, store->agent_id }, { LOG_REQUEST_ID, store->request_id }, { LOG_CODE, store->code }),
			"%s is no outcome of such an operation: not recorded", store->status);
	else if (task == NULL && store->changed && store->final)
		log_event(LOG_NOTICE, "operation.late", LOG_FIELDS({ LOG_OPERATION_ID, store->operation_id }, { LOG_CODE, store->row.code }),
			"the agent's word replaces what was the outcome: %s", store->row.code);
}

static void on_recorded(struct finish_job *job)
{
	struct store_finish *store = &job->store;
	struct operations *operations = job->owner;
	struct agent *agent = hub_find(operations->hub, store->agent_id);
	/* An earlier attempt's agent may have had the word: then the task is found by its operation. One that is only being created finds the outcome in the store. */
	struct task *task = job->task != NULL ? job->task : store->final && store->known ? task_find(operations, store->operation_id) : NULL;
	if (task != NULL && task->life == LIFE_CREATING)
		task = NULL;
	log_recorded(job, task);
	if (job->acknowledge && !store->mismatch && agent != NULL)
		hub_acknowledge(agent, store->request_id);
	if (task == NULL)
		return;
	struct agent *served_by = task->agent;
	if (store->changed && store->final && !task->finished)
		conclude(task, &store->row);
	else if (store->waits && !task->finished)
		bind_to_open(task, store);
	else if (task == job->task && !task->finished && task->life == LIFE_FINISHING)
		task_set_life(task, LIFE_SENT);
	/* Otherwise the job that is under way frees it. */
	if (task->finished && task->life != LIFE_RECORDING) {
		task_set_life(task, LIFE_FINISHING);
		if (task->words == 0)
			task_free(task);
	} else if (task->agent != served_by) {
		operations_advance(operations, task->agent);
	}
	operations_advance(operations, served_by);
}

static void on_finished(enum status status, void *arg)
{
	struct finish_job *job = arg;
	struct task *task = job->task;
	CRASH_POINT(RESULT_STORED);
	if (task != NULL)
		task->words--;
	if (status == STATUS_OK) {
		on_recorded(job);
	} else {
		log_event(LOG_CRIT, "store.failed", LOG_FIELDS({ LOG_OPERATION_ID, job->store.operation_id }, { LOG_CODE, status_code(status) }),
			"an outcome could not be recorded; the agent will repeat it");
		if (task != NULL && task->finished && task->words == 0 && task->life == LIFE_FINISHING)
			task_free(task);
		else if (task != NULL && !task->finished && task->life == LIFE_FINISHING)
			task_set_life(task, task->request_sent && task->agent->session != NULL ? LIFE_SENT : LIFE_QUEUED);
	}
	store_finish_clear(&job->store);
	free(job);
}

/* `task` may be NULL; `result` NULL for the service's own verdict. */
static void finish(struct operations *operations, struct task *task, const struct agent *agent, const struct result *result, enum status code)
{
	struct finish_job *job = calloc(1, sizeof *job);
	if (job == NULL)
		return; /* the agent repeats it, the sweep comes again */
	struct store_finish *store = &job->store;
	job->owner = operations;
	store->final = outcome_is_final(status_outcome(code));
	job->acknowledge = store->final && result != NULL && result->frame_sha256[0] == '\0';
	job->task = store->final ? task : NULL;
	store->now_ms = clock_now_ms();
	snprintf(store->status, sizeof store->status, "%s", outcome_name(status_outcome(code)));
	snprintf(store->code, sizeof store->code, "%s", status_code(code));
	if (task != NULL)
		memcpy(store->operation_id, task->row.operation_id, UUID_SIZE);
	if (result != NULL) {
		memcpy(store->agent_id, agent->row.agent_id, UUID_SIZE);
		memcpy(store->request_id, task != NULL ? task->request.request_id : result->request_id, UUID_SIZE);
		store->answer = answer_text(result);
	}
	if (database_submit(operations->database, store_operation_finish, on_finished, job) != STATUS_OK) {
		store_finish_clear(store);
		free(job);
		return;
	}
	if (job->task != NULL) {
		task->words++;
		if (task->life != LIFE_RECORDING)
			task_set_life(task, LIFE_FINISHING);
	}
}

/* To the agent ----------------------------------------------------------------------------------------------------------------------- */

static bool send_frame(struct task *task)
{
	struct agent *agent = task->agent;
	if (hub_send(agent, task->request.frame) != STATUS_OK)
		return false;
	CRASH_POINT(REQUEST_SENT);
	log_event(LOG_INFO, "request.sent", LOG_FIELDS({ LOG_OPERATION_ID, task->row.operation_id }, { LOG_REQUEST_ID, task->request.request_id },
		{ LOG_AGENT_ID, agent->row.agent_id }, { LOG_OP, task->row.op }), "%s%s to %s", task->row.op, task->sent_before ? ", again," : "", agent->row.name);
	attempts_sent(task, clock_now_ms());
	return true;
}

static void send_task(struct task *task)
{
	if (!send_frame(task))
		return;
	task_set_life(task, LIFE_SENT);
	task->sent_before = task->request_sent = true;
	task->pauses = 0;
	task->on_wire = true;
	task->agent->on_wire++;
}

void operations_advance(struct operations *operations, struct agent *agent)
{
	for (struct task *task = operations->first; task != NULL && agent->queued > 0; task = task->next) {
		if (agent->session == NULL || agent->draining || agent->on_wire >= agent->hello.max_in_flight)
			return;
		if (task->agent == agent && task->life == LIFE_QUEUED && task->words == 0)
			send_task(task);
	}
}

static void on_ready(struct agent *agent, void *arg)
{
	operations_advance(arg, agent);
}

static void on_lost(struct agent *agent, void *arg)
{
	struct operations *operations = arg;
	for (struct task *task = operations->first; task != NULL; task = task->next) {
		if (task->agent != agent)
			continue;
		task_leave_wire(task);
		if (task->life == LIFE_SENT)
			task_set_life(task, LIFE_QUEUED);
	}
}

static struct task *task_of_result(struct operations *operations, const struct agent *agent, const struct result *result)
{
	if (result->frame_sha256[0] == '\0') {
		struct task *task = task_find(operations, result->operation_id);
		return task != NULL && task->agent == agent && strcmp(task->request.request_id, result->request_id) == 0 ? task : NULL;
	}
	uint8_t hash[32];
	size_t size;
	if (hex_decode(bytes_of_string(result->frame_sha256), hash, sizeof hash, &size) != STATUS_OK || size != sizeof hash)
		return NULL;
	for (struct task *task = operations->first; task != NULL; task = task->next)
		if (task->agent == agent && task->life == LIFE_SENT && memcmp(task->request.frame_sha256, hash, sizeof hash) == 0)
			return task;
	return NULL;
}

/* The agent does not take the frame in now, and may yet: it has not heard of our key. Whoever owns the channel can bring that about, keep its word, and hand it over when the request is done. */
static bool is_early(const struct result *result, const struct task *task)
{
	return result->code == STATUS_REQUEST_SIGNATURE && result->iat < task->request.expires;
}

/* What speaks of a frame says that it was not acted on. A replay does not even say that: it is not the request which it imitates (6.2). */
static bool counts(const struct result *result, const struct task *task)
{
	if (result->code == STATUS_REQUEST_REPLAYED)
		return false;
	return result->frame_sha256[0] == '\0' || (task != NULL && status_outcome(result->code) == OUTCOME_REFUSED && !is_early(result, task));
}

/* `applied` is no outcome of a question, `answered` none of a write. */
static bool fits(const struct task *task, enum outcome outcome)
{
	enum operation op;
	return operation_from_name(task->row.op, &op) && outcome != (request_writes(op) ? OUTCOME_ANSWERED : OUTCOME_APPLIED);
}

static void note_settling(struct task *task, const struct result *result)
{
	free(task->prior_server);
	task->prior_server = result->server != NULL ? strdup(result->server) : NULL;
	snprintf(task->row.status, sizeof task->row.status, "settling");
	snprintf(task->row.code, sizeof task->row.code, "%s", status_code(result->code));
}

static void on_result(struct agent *agent, const struct result *result, void *arg)
{
	struct operations *operations = arg;
	struct task *task = task_of_result(operations, agent, result);
	enum outcome outcome = status_outcome(result->code);
	CRASH_POINT(RESULT_RECEIVED);
	log_event(LOG_INFO, "result.received", LOG_FIELDS({ LOG_OPERATION_ID, task != NULL ? task->row.operation_id : NULL },
		{ LOG_REQUEST_ID, result->request_id[0] ? result->request_id : NULL },
		{ LOG_AGENT_ID, agent->row.agent_id }, { LOG_CODE, status_code(result->code) }), "%s from %s", status_code(result->code), agent->row.name);
	if (!counts(result, task)) {
		if (task != NULL && (result->code == STATUS_AGENT_INTERNAL || is_early(result, task)))
			attempts_again_sooner(task);
		return;
	}
	/* A word of the request: the agent has it, and repeats the last one by itself. What speaks of a frame it tells only when it is asked. */
	if (task != NULL && result->frame_sha256[0] == '\0')
		task->again_us = 0;
	if (task != NULL && !fits(task, outcome)) {
		log_event(LOG_WARNING, "result.malformed", LOG_FIELDS({ LOG_AGENT_ID, agent->row.agent_id }, { LOG_REQUEST_ID, task->request.request_id },
			{ LOG_CODE, status_code(result->code) }), "%s is no outcome of %s: not recorded", outcome_name(outcome), task->row.op);
		return;
	}
	if (task != NULL && (task->words > 0 || task->finished))
		return; /* the acknowledgement comes with the first one's commit */
	if (task != NULL && !outcome_is_final(outcome)) {
		if (strcmp(task->row.status, "settling") == 0)
			return;
		note_settling(task, result);
	} else if (task != NULL) {
		task_leave_wire(task);
	}
	finish(operations, task, agent, result, result->code);
	operations_advance(operations, agent);
}

struct hub_callbacks operations_hub_callbacks(struct operations *operations)
{
	return (struct hub_callbacks){ on_ready, on_lost, on_result, operations };
}

/* Asking ----------------------------------------------------------------------------------------------------------------------------- */

static bool serves(const struct agent *agent, const char *directory)
{
	if (directory == NULL)
		return true;
	for (size_t i = 0; i < agent->hello.directory_count; i++)
		if (strcmp(agent->hello.directories[i].name, directory) == 0)
			return true;
	return false;
}

static bool is_less_loaded(const struct agent *agent, const struct agent *than)
{
	uint64_t load = (uint64_t)(agent->on_wire + agent->queued) * than->hello.max_in_flight, other = (uint64_t)(than->on_wire + than->queued) * agent->hello.max_in_flight;
	return load < other || (load == other && agent->chosen < than->chosen);
}

struct agent *operations_choose(struct agent *agents, enum operation op, const char *directory, const json_t *secrets)
{
	struct agent *best = NULL;
	for (struct agent *agent = agents; agent != NULL; agent = agent->next) {
		if (agent->session == NULL || agent->draining || !(agent->hello.operations & 1u << op) || !serves(agent, directory))
			continue;
		if (secrets != NULL && hub_secret_kid(agent, secrets) == NULL)
			continue;
		if (best == NULL || is_less_loaded(agent, best))
			best = agent;
	}
	return best;
}

struct create_job {
	struct store_create store;
	struct task *task;
};

static void on_created(enum status status, void *arg)
{
	struct create_job *job = arg;
	struct task *task = job->task;
	CRASH_POINT(OPERATION_STORED);
	struct operations *operations = task->owner;
	if (status != STATUS_OK || job->store.exists) {
		bool same = job->store.exists && bytes_equal(bytes_of(job->store.existing.content, 32), bytes_of(task->row.content, 32));
		task_answer_waiters(task, status != STATUS_OK ? status : same ? STATUS_OK : STATUS_REQUEST_REPLAYED, same ? &job->store.existing : NULL, false);
		task_free(task);
	} else if (task->agent == NULL) {
		log_done(task);
		task_answer_waiters(task, STATUS_OK, &task->row, false);
		task_free(task);
	} else {
		task_set_life(task, LIFE_QUEUED);
		task_answer_waiters(task, STATUS_OK, &task->row, true);
		operations_advance(operations, task->agent);
	}
	operation_row_clear(&job->store.existing);
	free(job);
}

/* Everything that the row says before anyone has answered. */
static enum status describe(struct task *task, const struct operation_question *question, int64_t now_ms)
{
	struct operation_row *row = &task->row;
	if (task->agent != NULL && question->new_password.size + question->old_password.size > 0) {
		random_bytes(row->secret_key, sizeof row->secret_key);
		row->has_secret = content_secret_hash(row->secret_key, question->new_password, question->old_password, row->secret_hash);
	}
	json_t *subject = subject_json(&question->subject);
	row->subject = subject != NULL ? json_dumps(subject, JSON_COMPACT) : NULL;
	json_decref(subject);
	memcpy(row->content, question->content, sizeof row->content);
	snprintf(row->op, sizeof row->op, "%s", operation_name(question->op));
	row->created_ms = now_ms;
	snprintf(row->status, sizeof row->status, "pending");
	if (task->agent != NULL) {
		memcpy(row->agent_id, task->agent->row.agent_id, UUID_SIZE);
		memcpy(row->request_id, task->request.request_id, UUID_SIZE);
		task->request.created_ms = now_ms;
		task->queue_until_ms = now_ms + task->owner->settings->queue_wait_ms;
	} else {
		row->finished_ms = now_ms;
		snprintf(row->status, sizeof row->status, "%s", outcome_name(status_outcome(STATUS_SERVICE_NO_AGENT)));
		snprintf(row->code, sizeof row->code, "%s", status_code(STATUS_SERVICE_NO_AGENT));
	}
	return row->subject != NULL ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static enum status begin(struct task *task, const struct operation_question *question)
{
	struct operations *operations = task->owner;
	int64_t now_ms = clock_now_ms();
	enum status status = STATUS_OK;
	struct agent *agent = operations_choose(hub_agents(operations->hub), question->op, question->directory, question->secrets);
	task_bind(task, agent);
	if (agent != NULL) {
		agent->chosen = ++operations->turn;
		attempts_prepare(task, question);
		task->failover_us = attempts_failover_after(task) * 1000000;
		status = request_make(question, agent, operations->settings->issuer, operations->keys->signing, now_ms / 1000,
			operations->settings->request_lifetime_ms / 1000, task->failover_us / 1000000, &task->request);
	}
	struct create_job *job = status == STATUS_OK ? calloc(1, sizeof *job) : NULL;
	if (status == STATUS_OK)
		status = job != NULL ? describe(task, question, now_ms) : STATUS_AGENT_INTERNAL;
	if (status == STATUS_OK) {
		*job = (struct create_job){ { .operation = &task->row, .request = agent != NULL ? &task->request : NULL }, task };
		attempts_list_spares(task, job->store.spares);
		status = database_submit(operations->database, store_operation_create, on_created, job);
		CRASH_POINT(OPERATION_ASKED);
	}
	if (status != STATUS_OK)
		free(job);
	return status;
}

/* While the outcome is open the password is compared too. */
static bool asks_the_same(const struct operation_row *row, const struct operation_question *question)
{
	uint8_t hash[32];
	bool same = bytes_equal(bytes_of(row->content, 32), bytes_of(question->content, 32));
	if (same && row->has_secret)
		same = content_secret_hash(row->secret_key, question->new_password, question->old_password, hash) && bytes_equal(bytes_of(row->secret_hash, 32), bytes_of(hash, 32));
	return same;
}

void operations_ask(struct operations *operations, const struct operation_question *question, operation_answer answer, void *arg)
{
	struct task *task = task_find(operations, question->operation_id);
	if (task != NULL) {
		if (!asks_the_same(&task->row, question))
			answer(STATUS_REQUEST_REPLAYED, NULL, arg);
		else if (task->finished || (question->wait_ms <= 0 && task->life != LIFE_CREATING))
			answer(STATUS_OK, &task->row, arg);
		else
			task_add_waiter(task, question->wait_ms, answer, arg);
		return;
	}
	task = operations->count < (unsigned)operations->settings->max_operations ? task_new(operations, question->operation_id) : NULL;
	enum status status = task != NULL ? begin(task, question) : STATUS_SERVICE_OVERLOADED;
	if (status != STATUS_OK) {
		if (task != NULL)
			task_free(task);
		answer(status, NULL, arg);
		return;
	}
	log_event(LOG_INFO, "operation.accepted", LOG_FIELDS({ LOG_OPERATION_ID, task->row.operation_id }, { LOG_OP, task->row.op },
		{ LOG_AGENT_ID, task->row.agent_id[0] ? task->row.agent_id : NULL }), "%s is asked", task->row.op);
	task_add_waiter(task, question->wait_ms, answer, arg);
}

const struct operation_row *operations_find(struct operations *operations, const char *operation_id)
{
	struct task *task = task_find(operations, operation_id);
	return task != NULL && task->life != LIFE_CREATING ? &task->row : NULL;
}

void operations_answer_all(struct operations *operations)
{
	for (struct task *task = operations->first; task != NULL; task = task->next)
		if (task->life != LIFE_CREATING)
			task_answer_waiters(task, STATUS_OK, &task->row, false);
}

unsigned operations_on_wire(const struct operations *operations)
{
	unsigned count = 0;
	for (const struct task *task = operations->first; task != NULL; task = task->next)
		count += task->on_wire || task->life == LIFE_FINISHING;
	return count;
}

/* Time ------------------------------------------------------------------------------------------------------------------------------- */

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct operations *operations = arg;
	int64_t now = clock_now_ms();
	for (struct task *task = operations->first, *next; task != NULL; task = next) {
		next = task->next;
		if ((task->life != LIFE_QUEUED && task->life != LIFE_SENT) || task->words > 0 || attempts_next(task, now))
			continue;
		if (task->life == LIFE_QUEUED && !task->sent_before) {
			if (now > task->queue_until_ms)
				finish(operations, task, NULL, NULL, task->agent->session != NULL ? STATUS_SERVICE_OVERLOADED : STATUS_SERVICE_NO_AGENT);
		} else if (now > task->row.created_ms + operations->settings->no_answer_after_ms) {
			task_leave_wire(task);
			finish(operations, task, NULL, NULL, STATUS_SERVICE_NO_ANSWER);
		} else if (attempts_again_due(task) && (task->agent->again == NULL || task->again_us < task->agent->again->again_us)) {
			task->agent->again = task;
		}
	}
	for (struct agent *agent = hub_agents(operations->hub); agent != NULL; agent = agent->next) {
		/* One to an agent in a sweep: of the ten frames a second that it tells it cannot verify, half are left to new ones. Not sent: the channel ends, and it goes to the next one. */
		if (agent->again != NULL)
			send_frame(agent->again);
		agent->again = NULL;
		/* Whatever has freed a place. */
		operations_advance(operations, agent);
	}
}

/* The whole life --------------------------------------------------------------------------------------------------------------------- */

enum status operations_new(struct event_base *base, const struct settings *settings, const struct keys *keys, struct database *database, struct hub *hub,
                           struct operations **ret_operations)
{
	struct operations *operations = calloc(1, sizeof *operations);
	if (operations == NULL)
		return STATUS_AGENT_INTERNAL;
	*operations = (struct operations){ .base = base, .settings = settings, .keys = keys, .database = database, .hub = hub };
	operations->sweep = event_new(base, -1, EV_PERSIST, on_sweep, operations);
	const struct timeval interval = { 0, SWEEP_MS * 1000 };
	if (operations->sweep == NULL || event_add(operations->sweep, &interval) != 0) {
		operations_free(operations);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_operations = operations;
	return STATUS_OK;
}

void operations_set_keys(struct operations *operations, const struct keys *keys)
{
	operations->keys = keys;
}

static enum status restore_one(struct operations *operations, struct open_operation *open)
{
	struct agent *agent = hub_find(operations->hub, open->request.agent_id);
	struct task *task = agent != NULL && open->request.frame != NULL ? task_new(operations, open->operation.operation_id) : NULL;
	if (task == NULL) {
		/* Nobody can be asked, and nobody's word could be verified. */
		struct store_finish verdict = { .now_ms = clock_now_ms(), .final = true };
		memcpy(verdict.operation_id, open->operation.operation_id, UUID_SIZE);
		snprintf(verdict.status, sizeof verdict.status, "%s", outcome_name(status_outcome(STATUS_SERVICE_NO_ANSWER)));
		snprintf(verdict.code, sizeof verdict.code, "%s", status_code(STATUS_SERVICE_NO_ANSWER));
		enum status status = database_run(operations->database, store_operation_finish, &verdict);
		log_event(LOG_ERR, "operation.lost", LOG_FIELDS({ LOG_OPERATION_ID, verdict.operation_id }, { LOG_AGENT_ID, open->request.agent_id }),
			"its agent's keys cannot be used: %s", verdict.code);
		store_finish_clear(&verdict);
		return status;
	}
	task->row = open->operation;
	task->request = open->request;
	open->operation = (struct operation_row){ 0 };
	open->request = (struct request_row){ 0 };
	attempts_restore(task, open->spares);
	task_bind(task, agent);
	/* Whether it was sent before the end is not recorded: the agent knows. */
	task->sent_before = task->request_sent = true;
	task_set_life(task, LIFE_QUEUED);
	return STATUS_OK;
}

enum status operations_restore(struct operations *operations)
{
	struct open_operations rows = { 0 };
	enum status status = database_run(operations->database, store_operations_open, &rows);
	for (size_t i = 0; status == STATUS_OK && i < rows.count; i++)
		status = restore_one(operations, &rows.items[i]);
	if (rows.count > 0)
		log_event(LOG_NOTICE, "operations.restored", NULL, "%zu operations of the former run have no final outcome yet", rows.count);
	open_operations_clear(&rows);
	return status;
}

void operations_free(struct operations *operations)
{
	if (operations == NULL)
		return;
	if (operations->sweep != NULL)
		event_free(operations->sweep);
	while (operations->first != NULL)
		task_free(operations->first);
	free(operations);
}
