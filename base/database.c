#include "base/database.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/database_open.h"

#define QUEUE_LIMIT 8192
#define DONES_PER_TURN 64
#define PATIENCE_NS 20000000

struct entry {
	struct entry *next;
	database_job job;
	database_done done;
	void *arg;
	enum status status;
	bool waited_for, finished;  /* by database_run, which also owns the entry */
	bool patient;
};

struct list {
	struct entry *first, **last;
};

enum step { STEP_BEGIN, STEP_COMMIT, STEP_SAVEPOINT, STEP_RELEASE, STEPS };

struct database {
	sqlite3 *db;
	sqlite3_stmt *steps[STEPS]; /* the thread's own */
	pthread_t thread;
	bool thread_runs;
	pthread_mutex_t mutex;
	pthread_cond_t wanted;      /* there is work, or the end */
	pthread_cond_t finished;    /* database_run may look */
	struct list waiting, ended; /* under the mutex */
	struct list taken;          /* from `ended`, by the loop */
	unsigned pending, limit;
	unsigned urgent;            /* of those that wait */
	bool closing;
	bool distrusted;            /* an I/O error: what the log holds may not be on disk; the thread's own */
	enum status (*committing)(sqlite3 *db, void *arg);
	void (*committed)(void *arg);
	void *hook_arg;
	struct event *wake;         /* NULL without a loop */
	int wake_fd;
};

static void list_clear(struct list *list)
{
	list->first = NULL;
	list->last = &list->first;
}

static void list_append(struct list *list, struct entry *entry)
{
	entry->next = NULL;
	*list->last = entry;
	list->last = &entry->next;
}

static struct entry *list_pop(struct list *list)
{
	struct entry *entry = list->first;
	if (entry != NULL && (list->first = entry->next) == NULL)
		list->last = &list->first;
	return entry;
}

/* ---- the thread ---- */

static bool take_step(struct database *database, enum step step)
{
	static const char *const sql[STEPS] = { "BEGIN IMMEDIATE", "COMMIT", "SAVEPOINT job", "RELEASE job" };
	sqlite3_stmt **statement = &database->steps[step];
	if (*statement == NULL && sqlite3_prepare_v3(database->db, sql[step], -1, SQLITE_PREPARE_PERSISTENT, statement, NULL) != SQLITE_OK)
		return false;
	bool good = sqlite3_step(*statement) == SQLITE_DONE;
	return sqlite3_reset(*statement) == SQLITE_OK && good;
}

/* False where SQLite has rolled the whole transaction back (disk full, I/O error) or cannot undo this job alone. */
static bool run_job(struct database *database, struct entry *entry)
{
	sqlite3 *db = database->db;
	if (!take_step(database, STEP_SAVEPOINT))
		return false;
	entry->status = entry->job(db, entry->arg);
	if (sqlite3_get_autocommit(db))
		return false;
	if (entry->status != STATUS_OK && sqlite3_exec(db, "ROLLBACK TO job", NULL, NULL, NULL) != SQLITE_OK)
		return false;
	return take_step(database, STEP_RELEASE);
}

/* After a failed fsync the next one may succeed without what was lost (the kernel counts those pages as clean): only what is written anew is believed. */
static bool write_anew(struct database *database)
{
	if (database->distrusted && sqlite3_wal_checkpoint_v2(database->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) != SQLITE_OK)
		return false;
	database->distrusted = false;
	return true;
}

static bool run_group(struct database *database, struct entry *first)
{
	if (!write_anew(database) || !take_step(database, STEP_BEGIN))
		return false;
	for (struct entry *entry = first; entry != NULL; entry = entry->next)
		if (!run_job(database, entry))
			return false;
	if (database->committing != NULL && database->committing(database->db, database->hook_arg) != STATUS_OK)
		return false;
	return take_step(database, STEP_COMMIT);
}

static void run_and_commit(struct database *database, struct entry *first)
{
	if (run_group(database, first)) {
		if (database->committed != NULL)
			database->committed(database->hook_arg);
		return;
	}
	database->distrusted |= (sqlite3_errcode(database->db) & 0xff) == SQLITE_IOERR;
	if (!sqlite3_get_autocommit(database->db))
		sqlite3_exec(database->db, "ROLLBACK", NULL, NULL, NULL);
	for (struct entry *entry = first; entry != NULL; entry = entry->next)
		entry->status = STATUS_AGENT_JOURNAL;
}

static void wake_loop(struct database *database)
{
	uint64_t one = 1;
	if (database->wake_fd >= 0 && write(database->wake_fd, &one, sizeof one) < 0)
		return; /* only EAGAIN: it is awake already */
}

static void hand_back(struct database *database, struct list *group)
{
	bool wake = false, signal_waiters = false;
	for (struct entry *entry; (entry = list_pop(group)) != NULL; database->pending--) {
		if (entry->waited_for) {
			entry->finished = signal_waiters = true;
		} else if (entry->done == NULL) {
			free(entry);
		} else {
			list_append(&database->ended, entry);
			wake = true;
		}
	}
	if (signal_waiters)
		pthread_cond_broadcast(&database->finished);
	if (wake)
		wake_loop(database);
}

/* Until something urgent waits, something patient has waited long enough, or the end. */
static void wait_for_work(struct database *database)
{
	struct timespec limit;
	while (database->waiting.first == NULL && !database->closing)
		pthread_cond_wait(&database->wanted, &database->mutex);
	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_nsec += PATIENCE_NS;
	limit.tv_sec += limit.tv_nsec / 1000000000;
	limit.tv_nsec %= 1000000000;
	while (database->urgent == 0 && !database->closing)
		if (pthread_cond_timedwait(&database->wanted, &database->mutex, &limit) != 0)
			return;
}

static void *run_thread(void *arg)
{
	struct database *database = arg;
	pthread_mutex_lock(&database->mutex);
	for (;;) {
		wait_for_work(database);
		if (database->waiting.first == NULL)
			break;
		struct list group = { database->waiting.first, database->waiting.last };
		list_clear(&database->waiting);
		database->urgent = 0;
		pthread_mutex_unlock(&database->mutex);
		run_and_commit(database, group.first);
		pthread_mutex_lock(&database->mutex);
		hand_back(database, &group);
	}
	pthread_mutex_unlock(&database->mutex);
	return NULL;
}

/* ---- the loop's side ---- */

static bool run_one_done(struct database *database)
{
	if (database->taken.first == NULL) {
		pthread_mutex_lock(&database->mutex);
		if (database->ended.first != NULL) {
			database->taken = database->ended;
			list_clear(&database->ended);
		}
		pthread_mutex_unlock(&database->mutex);
	}
	struct entry *entry = list_pop(&database->taken);
	if (entry == NULL)
		return false;
	entry->done(entry->status, entry->arg);
	free(entry);
	return true;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct database *database = arg;
	uint64_t count;
	if (read(fd, &count, sizeof count) < 0)
		return;
	for (unsigned i = 0; i < DONES_PER_TURN; i++)
		if (!run_one_done(database))
			return;
	wake_loop(database);
}

static enum status enqueue(struct database *database, struct entry *entry)
{
	if (database->closing || database->pending >= database->limit)
		return STATUS_AGENT_OVERLOADED;
	/* The thread sleeps for as long as there is nothing, and a little longer for what is patient. */
	bool wake = entry->patient ? database->waiting.first == NULL : database->urgent == 0;
	database->pending++;
	database->urgent += !entry->patient;
	list_append(&database->waiting, entry);
	if (wake)
		pthread_cond_signal(&database->wanted);
	return STATUS_OK;
}

static enum status submit(struct database *database, database_job job, database_done done, void *arg, bool patient)
{
	if (done != NULL && database->wake == NULL)
		return STATUS_AGENT_INTERNAL;
	struct entry *entry = calloc(1, sizeof *entry);
	if (entry == NULL)
		return STATUS_AGENT_INTERNAL;
	*entry = (struct entry){ .job = job, .done = done, .arg = arg, .patient = patient };
	pthread_mutex_lock(&database->mutex);
	enum status status = enqueue(database, entry);
	pthread_mutex_unlock(&database->mutex);
	if (status != STATUS_OK)
		free(entry);
	return status;
}

enum status database_submit(struct database *database, database_job job, database_done done, void *arg)
{
	return submit(database, job, done, arg, false);
}

enum status database_submit_patiently(struct database *database, database_job job, database_done done, void *arg)
{
	return submit(database, job, done, arg, true);
}

enum status database_run(struct database *database, database_job job, void *arg)
{
	struct entry entry = { .job = job, .arg = arg, .waited_for = true };
	pthread_mutex_lock(&database->mutex);
	enum status status = enqueue(database, &entry);
	while (status == STATUS_OK && !entry.finished)
		pthread_cond_wait(&database->finished, &database->mutex);
	pthread_mutex_unlock(&database->mutex);
	return status == STATUS_OK ? entry.status : status;
}

unsigned database_pending(const struct database *database)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)&database->mutex;
	pthread_mutex_lock(mutex);
	unsigned pending = database->pending;
	pthread_mutex_unlock(mutex);
	return pending;
}

/* ---- opening and closing ---- */

static bool start_thread(struct database *database)
{
	/* Signals belong to the loop's thread. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	database->thread_runs = pthread_create(&database->thread, NULL, run_thread, database) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return database->thread_runs;
}

static bool attach(struct database *database, struct event_base *base)
{
	if (base == NULL)
		return true;
	database->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (database->wake_fd < 0)
		return false;
	database->wake = event_new(base, database->wake_fd, EV_READ | EV_PERSIST, on_wake, database);
	return database->wake != NULL && event_add(database->wake, NULL) == 0;
}

enum status database_open(struct event_base *base, const struct database_options *options, struct database **ret_database, char **ret_why)
{
	if (ret_why != NULL)
		*ret_why = NULL;
	struct database *database = calloc(1, sizeof *database);
	if (database == NULL)
		return status_because(STATUS_AGENT_INTERNAL, ret_why, "%s: out of memory", options->path);
	database->wake_fd = -1;
	database->limit = options->queue_limit == 0 ? QUEUE_LIMIT : options->queue_limit;
	list_clear(&database->waiting);
	list_clear(&database->ended);
	list_clear(&database->taken);
	pthread_mutex_init(&database->mutex, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&database->wanted, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&database->finished, NULL);
	database->committing = options->committing;
	database->committed = options->committed;
	database->hook_arg = options->hook_arg;
	enum status status = database_open_sqlite(options, &database->db, ret_why);
	if (status == STATUS_OK && (!attach(database, base) || !start_thread(database)))
		status = status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: its thread cannot be started: %s", options->path, strerror(errno));
	if (status != STATUS_OK) {
		database_leave_untouched(database);
		database_close(database);
		return status;
	}
	*ret_database = database;
	return STATUS_OK;
}

void database_leave_untouched(struct database *database)
{
	if (database->db != NULL)
		sqlite3_db_config(database->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

void database_close(struct database *database)
{
	if (database == NULL)
		return;
	pthread_mutex_lock(&database->mutex);
	database->closing = true;
	pthread_cond_signal(&database->wanted);
	pthread_mutex_unlock(&database->mutex);
	if (database->thread_runs)
		pthread_join(database->thread, NULL);
	while (run_one_done(database))
		continue;
	if (database->wake != NULL)
		event_free(database->wake);
	if (database->wake_fd >= 0)
		close(database->wake_fd);
	for (enum step step = 0; step < STEPS; step++)
		sqlite3_finalize(database->steps[step]);
	sqlite3_close_v2(database->db);
	pthread_cond_destroy(&database->finished);
	pthread_cond_destroy(&database->wanted);
	pthread_mutex_destroy(&database->mutex);
	free(database);
}
