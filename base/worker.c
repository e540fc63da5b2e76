#include "base/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define QUEUE_LIMIT 16

struct task {
	struct task *next;
	void (*job)(void *arg);
	void (*done)(void *arg);
	void *arg;
};

struct worker {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t wanted;       /* there is work, or the end */
	struct task *waiting, *ended; /* under the mutex, like the two below */
	unsigned count;              /* waiting or running */
	bool closing;
	struct event *wake;
	int wake_fd;
};

static void append(struct task **list, struct task *task)
{
	while (*list)
		list = &(*list)->next;
	task->next = NULL;
	*list = task;
}

static struct task *pop(struct task **list)
{
	struct task *task = *list;
	if (task)
		*list = task->next;
	return task;
}

static void *run_thread(void *arg)
{
	struct worker *worker = arg;
	struct task *task;
	pthread_mutex_lock(&worker->mutex);
	for (;;) {
		while (!(task = pop(&worker->waiting)) && !worker->closing)
			pthread_cond_wait(&worker->wanted, &worker->mutex);
		if (!task)
			break;
		pthread_mutex_unlock(&worker->mutex);
		task->job(task->arg);
		pthread_mutex_lock(&worker->mutex);
		append(&worker->ended, task);
		worker->count--;
		eventfd_write(worker->wake_fd, 1);
	}
	pthread_mutex_unlock(&worker->mutex);
	return NULL;
}

static void run_dones(struct worker *worker)
{
	struct task *task;
	do {
		pthread_mutex_lock(&worker->mutex);
		task = pop(&worker->ended);
		pthread_mutex_unlock(&worker->mutex);
		if (task)
			task->done(task->arg);
		free(task);
	} while (task);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	eventfd_t count;
	eventfd_read(fd, &count);
	run_dones(arg);
}

static void destroy(struct worker *worker)
{
	if (worker->wake)
		event_free(worker->wake);
	if (worker->wake_fd >= 0)
		close(worker->wake_fd);
	pthread_cond_destroy(&worker->wanted);
	pthread_mutex_destroy(&worker->mutex);
	free(worker);
}

static bool start_thread(struct worker *worker)
{
	/* Signals belong to the loop's thread. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	bool started = pthread_create(&worker->thread, NULL, run_thread, worker) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return started;
}

enum status worker_new(struct event_base *base, struct worker **ret_worker)
{
	struct worker *worker = calloc(1, sizeof *worker);
	if (!worker)
		return STATUS_AGENT_INTERNAL;
	pthread_mutex_init(&worker->mutex, NULL);
	pthread_cond_init(&worker->wanted, NULL);
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	worker->wake = worker->wake_fd < 0 ? NULL : event_new(base, worker->wake_fd, EV_READ | EV_PERSIST, on_wake, worker);
	if (!worker->wake || event_add(worker->wake, NULL) != 0 || !start_thread(worker)) {
		destroy(worker);
		return STATUS_LOCAL_SYSTEM;
	}
	*ret_worker = worker;
	return STATUS_OK;
}

void worker_free(struct worker *worker)
{
	if (!worker)
		return;
	pthread_mutex_lock(&worker->mutex);
	worker->closing = true;
	pthread_cond_signal(&worker->wanted);
	pthread_mutex_unlock(&worker->mutex);
	pthread_join(worker->thread, NULL);
	run_dones(worker);
	destroy(worker);
}

enum status worker_submit(struct worker *worker, void (*job)(void *arg), void (*done)(void *arg), void *arg)
{
	struct task *task = malloc(sizeof *task);
	if (!task)
		return STATUS_AGENT_INTERNAL;
	*task = (struct task){ .job = job, .done = done, .arg = arg };
	pthread_mutex_lock(&worker->mutex);
	bool room = worker->count < QUEUE_LIMIT && !worker->closing;
	if (room) {
		worker->count++;
		append(&worker->waiting, task);
		pthread_cond_signal(&worker->wanted);
	}
	pthread_mutex_unlock(&worker->mutex);
	if (room)
		return STATUS_OK;
	free(task);
	return STATUS_AGENT_OVERLOADED;
}
