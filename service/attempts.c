/* Asking the same agent again on a channel that stands, and asking another one (proto/README.md section 7, "Delivery again", "Another agent"). */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "service/operations_internal.h"
#include "service/request.h"

#define GRACE_MS 5000 /* behind exp: what the first agent began in time it has answered, or its channel is truly gone */

#define OPERATION_MS 900000 /* no operation is tried for longer: an agent does not look further back for what was written (first_iat) */

#define FIRST_PAUSE_MS 250
#define MAX_DOUBLINGS 4 /* 4 s */

static int64_t pause_us(unsigned doublings)
{
	return INT64_C(1000) * FIRST_PAUSE_MS * (1 << doublings);
}

void attempts_sent(struct task *task, int64_t now_ms)
{
	int64_t left_ms = task->request.expires * 1000 - now_ms;
	task->again_us = clock_monotonic_us() + (left_ms > 0 ? left_ms * 1000 : pause_us(MAX_DOUBLINGS));
}

void attempts_again_sooner(struct task *task)
{
	int64_t then_us = clock_monotonic_us() + pause_us(task->pauses);
	if (then_us >= task->again_us)
		return; /* a copy of the word that brought it forward, or the request itself has had one */
	task->again_us = then_us;
	task->pauses += task->pauses < MAX_DOUBLINGS;
}

bool attempts_again_due(const struct task *task)
{
	return task->life == LIFE_SENT && task->again_us != 0 && task->agent->session != NULL && !task->agent->draining && clock_monotonic_us() >= task->again_us;
}

static bool is_spare(const struct task *task, const struct agent *agent)
{
	for (size_t i = 0; i < MAX_SPARES; i++)
		if (task->spares[i].agent == agent)
			return true;
	return false;
}

void attempts_prepare(struct task *task, const struct operation_question *question)
{
	size_t count = 0;
	for (struct agent *agent = hub_agents(task->owner->hub); agent != NULL && count < MAX_SPARES; agent = agent->next) {
		struct agent *next = agent->next;
		agent->next = NULL; /* whether this one alone could be chosen */
		bool fits = agent != task->agent && operations_choose(agent, question->op, question->directory, question->secrets) != NULL;
		agent->next = next;
		if (fits && !is_spare(task, agent) && request_secret(question, agent, &task->spares[count].jwe) == STATUS_OK)
			task->spares[count++].agent = agent;
	}
}

void attempts_list_spares(const struct task *task, struct spare_row ret_spares[MAX_SPARES])
{
	for (size_t i = 0; i < MAX_SPARES; i++) {
		const struct spare *spare = &task->spares[i];
		if (spare->agent == NULL)
			continue;
		memcpy(ret_spares[i].agent_id, spare->agent->row.agent_id, UUID_SIZE);
		ret_spares[i].jwe = spare->jwe;
	}
}

/* The server that a provisional result has named, which is all the answer that an open operation has. */
static char *named_server(const struct operation_row *row)
{
	json_t *answer = row->answer != NULL ? json_loads(row->answer, 0, NULL) : NULL;
	const char *server = json_string_value(json_object_get(json_object_get(answer, "directory"), "server"));
	char *copy = server != NULL ? strdup(server) : NULL;
	json_decref(answer);
	return copy;
}

void attempts_restore(struct task *task, struct spare_row spares[MAX_SPARES])
{
	task->failover_us = request_failover_after(task->request.frame) * 1000000;
	task->prior_server = named_server(&task->row);
	for (size_t i = 0; i < MAX_SPARES; i++) {
		struct agent *agent = hub_find(task->owner->hub, spares[i].agent_id);
		if (agent == NULL)
			continue;
		task->spares[i] = (struct spare){ agent, spares[i].jwe };
		spares[i].jwe = NULL;
	}
}

int64_t attempts_failover_after(const struct task *task)
{
	bool spare = false;
	for (size_t i = 0; i < MAX_SPARES; i++)
		spare |= task->spares[i].agent != NULL;
	return spare ? task->owner->settings->failover_after_ms / 1000 : 0;
}

struct attempt_job {
	struct store_attempt store;
	struct request_row request;
	struct task *task;
	struct agent *agent;
	int64_t failover_us;
};

static void on_attempt(enum status status, void *arg)
{
	struct attempt_job *job = arg;
	struct task *task = job->task;
	struct operations *operations = task->owner;
	if (task->finished && task->words == 0) {
		task_free(task); /* the first agent was heard meanwhile */
	} else if (task->finished) {
		task_set_life(task, LIFE_FINISHING);
	} else {
		if (status == STATUS_OK) {
			request_row_clear(&task->request);
			task->request = job->request;
			job->request = (struct request_row){ 0 };
			task->request_sent = false;
			task->failover_us = job->failover_us;
			task_bind(task, job->agent);
			memcpy(task->row.agent_id, task->request.agent_id, UUID_SIZE);
			memcpy(task->row.request_id, task->request.request_id, UUID_SIZE);
			log_event(LOG_NOTICE, "operation.other_agent", LOG_FIELDS({ LOG_OPERATION_ID, task->row.operation_id }, { LOG_REQUEST_ID, task->request.request_id },
				{ LOG_AGENT_ID, job->agent->row.agent_id }), "the first agent is lost: %s is asked", job->agent->row.name);
		}
		task_set_life(task, LIFE_QUEUED);
		operations_advance(operations, task->agent);
	}
	request_row_clear(&job->request);
	free(job);
}

static struct spare take_spare(struct task *task)
{
	for (size_t i = 0; i < MAX_SPARES; i++) {
		struct spare spare = task->spares[i];
		if (spare.agent != NULL && spare.agent->session != NULL && !spare.agent->draining && spare.agent != task->agent) {
			task->spares[i] = (struct spare){ 0 };
			return spare;
		}
	}
	return (struct spare){ 0 };
}

/* Whether the agent may begin to act on the request, or have it without our having heard of it. One that has lost its channel waits for the request to come again (6, failover_after);
 * of a channel that fell silent the agent may not know. */
static bool may_still_act(const struct task *task, int64_t now_ms)
{
	const struct agent *agent = task->agent;
	bool waits_for_us = task->failover_us != 0 && agent->ended_us != 0 && clock_monotonic_us() >= agent->ended_us + task->failover_us;
	return task->request_sent && !waits_for_us && now_ms < task->request.expires * 1000 + GRACE_MS;
}

/* It is not heard of; or it takes nothing new, and this has not been sent to it. */
static bool is_lost(const struct task *task)
{
	return task->agent->session == NULL || (task->agent->draining && !task->request_sent);
}

bool attempts_next(struct task *task, int64_t now_ms)
{
	struct operations *operations = task->owner;
	if (task->life != LIFE_QUEUED || task->words > 0 || !is_lost(task) || may_still_act(task, now_ms) || now_ms > task->row.created_ms + OPERATION_MS)
		return false;
	struct spare spare = take_spare(task);
	if (spare.agent == NULL)
		return false;
	struct attempt_job *job = calloc(1, sizeof *job);
	int64_t failover_after = attempts_failover_after(task);
	enum status status = job != NULL ? request_make_again(task->request.frame, spare.agent, spare.jwe, task->prior_server, operations->keys->signing, now_ms / 1000,
		operations->settings->request_lifetime_ms / 1000, failover_after, task->request_sent, &job->request) : STATUS_AGENT_INTERNAL;
	free(spare.jwe);
	if (status == STATUS_OK) {
		job->task = task;
		job->agent = spare.agent;
		job->failover_us = failover_after * 1000000;
		job->request.created_ms = now_ms;
		job->store = (struct store_attempt){ &job->request, !task->request_sent };
		status = database_submit(operations->database, store_request_add, on_attempt, job);
	}
	if (status != STATUS_OK) {
		if (job != NULL)
			request_row_clear(&job->request);
		free(job);
		return false;
	}
	task->queue_until_ms = now_ms + operations->settings->queue_wait_ms;
	task_set_life(task, LIFE_RECORDING);
	return true;
}
