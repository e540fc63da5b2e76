#include "service/operations_internal.h"

#include <stdlib.h>
#include <string.h>

/* Tasks ------------------------------------------------------------------------------------------------------------------------------ */

static struct task **bucket_of(struct operations *operations, const char *operation_id)
{
	return &operations->buckets[strtoul((char[]){ operation_id[0], operation_id[1], operation_id[2], operation_id[3], 0 }, NULL, 16) % BUCKETS];
}

struct task *task_find(struct operations *operations, const char *operation_id)
{
	struct task *task = *bucket_of(operations, operation_id);
	while (task != NULL && strcmp(task->row.operation_id, operation_id) != 0)
		task = task->same_bucket;
	return task;
}

struct task *task_new(struct operations *operations, const char *operation_id)
{
	struct task *task = calloc(1, sizeof *task);
	if (task == NULL)
		return NULL;
	memcpy(task->row.operation_id, operation_id, UUID_SIZE);
	task->owner = operations;
	struct task **bucket = bucket_of(operations, operation_id);
	task->same_bucket = *bucket;
	*bucket = task;
	task->previous = operations->last;
	*(operations->last != NULL ? &operations->last->next : &operations->first) = task;
	operations->last = task;
	operations->count++;
	return task;
}

/* Those that are only being recorded count too, or a burst would go to one agent. */
static bool waits_for_place(enum stage_of_life life)
{
	return life == LIFE_CREATING || life == LIFE_RECORDING || life == LIFE_QUEUED;
}

void task_set_life(struct task *task, enum stage_of_life life)
{
	if (task->agent != NULL && waits_for_place(task->life))
		task->agent->queued--;
	if (task->agent != NULL && waits_for_place(life))
		task->agent->queued++;
	task->life = life;
}

void task_bind(struct task *task, struct agent *agent)
{
	if (task->agent != NULL && waits_for_place(task->life))
		task->agent->queued--;
	task->agent = agent;
	if (agent != NULL && waits_for_place(task->life))
		agent->queued++;
}

void task_leave_wire(struct task *task)
{
	if (task->on_wire)
		task->agent->on_wire--;
	task->on_wire = false;
}

void task_drop_spares(struct task *task)
{
	for (size_t i = 0; i < MAX_SPARES; i++) {
		free(task->spares[i].jwe);
		task->spares[i] = (struct spare){ 0 };
	}
}

void task_free(struct task *task)
{
	struct operations *operations = task->owner;
	/* Nobody waits for what is gone. */
	task_answer_waiters(task, task->life != LIFE_CREATING ? STATUS_OK : STATUS_AGENT_JOURNAL, task->life != LIFE_CREATING ? &task->row : NULL, false);
	task_set_life(task, LIFE_FINISHING);
	task_leave_wire(task);
	struct task **link = bucket_of(operations, task->row.operation_id);
	while (*link != task)
		link = &(*link)->same_bucket;
	*link = task->same_bucket;
	*(task->previous != NULL ? &task->previous->next : &operations->first) = task->next;
	*(task->next != NULL ? &task->next->previous : &operations->last) = task->previous;
	operations->count--;
	operation_row_clear(&task->row);
	request_row_clear(&task->request);
	task_drop_spares(task);
	free(task->prior_server);
	free(task);
}

/* Waiters ---------------------------------------------------------------------------------------------------------------------------- */

static void answer_waiter(struct waiter *waiter, enum status status, const struct operation_row *row)
{
	struct waiter **link = &waiter->task->waiters;
	while (*link != waiter)
		link = &(*link)->next;
	*link = waiter->next;
	waiter->answer(status, row, waiter->arg);
	event_free(waiter->timer);
	free(waiter);
}

void task_answer_waiters(struct task *task, enum status status, const struct operation_row *row, bool only_due)
{
	for (struct waiter *waiter = task->waiters, *next; waiter != NULL; waiter = next) {
		next = waiter->next;
		if (!only_due || waiter->due)
			answer_waiter(waiter, status, row);
	}
}

static void on_waited(evutil_socket_t fd, short what, void *arg)
{
	struct waiter *waiter = arg;
	waiter->due = true;
	if (waiter->task->life != LIFE_CREATING)
		answer_waiter(waiter, STATUS_OK, &waiter->task->row);
}

void task_add_waiter(struct task *task, int64_t wait_ms, operation_answer answer, void *arg)
{
	struct waiter *waiter = calloc(1, sizeof *waiter);
	struct event *timer = waiter != NULL ? evtimer_new(task->owner->base, on_waited, waiter) : NULL;
	if (timer == NULL) {
		free(waiter);
		answer(STATUS_SERVICE_OVERLOADED, NULL, arg);
		return;
	}
	*waiter = (struct waiter){ task->waiters, task, timer, wait_ms <= 0, answer, arg };
	task->waiters = waiter;
	const struct timeval interval = { wait_ms / 1000, wait_ms % 1000 * 1000 };
	evtimer_add(timer, &interval);
}
