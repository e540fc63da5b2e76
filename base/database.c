#include "base/database.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"

#define QUEUE_LIMIT 8192
#define DONES_PER_TURN 64
#define BUSY_TIMEOUT_MS 5000
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

static bool execute(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

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
	if (entry->status != STATUS_OK && !execute(db, "ROLLBACK TO job"))
		return false;
	return take_step(database, STEP_RELEASE);
}

static bool run_group(struct database *database, struct entry *first)
{
	if (!take_step(database, STEP_BEGIN))
		return false;
	for (struct entry *entry = first; entry != NULL; entry = entry->next)
		if (!run_job(database, entry))
			return false;
	return take_step(database, STEP_COMMIT);
}

static void run_and_commit(struct database *database, struct entry *first)
{
	if (run_group(database, first))
		return;
	if (!sqlite3_get_autocommit(database->db))
		execute(database->db, "ROLLBACK");
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

/* ---- opening ---- */

/* Makes the file or looks at the one that is there; SQLite would make it with the umask's mode and follow a link. */
static enum status check_file(const char *path, char **ret_why)
{
	int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
	if (fd < 0 && (errno == ELOOP || errno == EISDIR))
		return status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: must be a regular file, not a link or a directory", path);
	if (fd < 0)
		return status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be opened: %s", path, strerror(errno));
	struct stat facts;
	int failed = fstat(fd, &facts);
	close(fd);
	if (failed != 0)
		return status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: %s", path, strerror(errno));
	if (!S_ISREG(facts.st_mode))
		return status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: must be a regular file", path);
	if (facts.st_uid != geteuid())
		return status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: belongs to user %u, should belong to %u", path, (unsigned)facts.st_uid, (unsigned)geteuid());
	if ((facts.st_mode & 077) != 0)
		return status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: has mode %04o, should have 0600", path, (unsigned)(facts.st_mode & 07777));
	return STATUS_OK;
}

static enum status sqlite_failure(sqlite3 *db, const char *path, const char *what, char **ret_why)
{
	return status_because(STATUS_AGENT_JOURNAL, ret_why, "%s: %s: %s", path, what, sqlite3_errmsg(db));
}

static bool query_text(sqlite3 *db, const char *sql, char *out, size_t capacity)
{
	sqlite3_stmt *statement = NULL;
	bool found = sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
	const char *text = found ? (const char *)sqlite3_column_text(statement, 0) : NULL;
	if (text != NULL)
		snprintf(out, capacity, "%s", text);
	sqlite3_finalize(statement);
	return text != NULL;
}

static bool query_number(sqlite3 *db, const char *sql, unsigned *ret_number)
{
	char text[32];
	if (!query_text(db, sql, text, sizeof text))
		return false;
	*ret_number = (unsigned)strtoll(text, NULL, 10);
	return true;
}

static enum status set_pragmas(sqlite3 *db, const char *path, char **ret_why)
{
	static const char *const pragmas[] = {
		"PRAGMA trusted_schema = OFF", "PRAGMA foreign_keys = ON",    "PRAGMA secure_delete = ON",
		"PRAGMA temp_store = MEMORY",  "PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0",
	};
	sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	for (size_t i = 0; i < sizeof pragmas / sizeof pragmas[0]; i++)
		if (!execute(db, pragmas[i]))
			return sqlite_failure(db, path, pragmas[i], ret_why);
	char mode[16] = "";
	if (!query_text(db, "PRAGMA journal_mode = WAL", mode, sizeof mode) || strcmp(mode, "wal") != 0)
		return sqlite_failure(db, path, "write-ahead logging cannot be switched on", ret_why);
	if (!execute(db, "PRAGMA synchronous = FULL"))
		return sqlite_failure(db, path, "PRAGMA synchronous", ret_why);
	return STATUS_OK;
}

static enum status check_identity(sqlite3 *db, const struct database_options *options, unsigned *ret_version, char **ret_why)
{
	unsigned id, tables;
	if (!query_number(db, "PRAGMA application_id", &id) || !query_number(db, "PRAGMA user_version", ret_version) ||
	    !query_number(db, "SELECT count(*) FROM sqlite_schema", &tables))
		return sqlite_failure(db, options->path, "cannot be read", ret_why);
	bool is_new = id == 0 && tables == 0 && *ret_version == 0;
	if (!is_new && id != options->application_id)
		return status_because(STATUS_AGENT_JOURNAL, ret_why, "%s: belongs to another program (application_id %u, should be %u)", options->path, id, options->application_id);
	if (*ret_version > options->user_version)
		return status_because(STATUS_AGENT_JOURNAL, ret_why, "%s: was written by a newer version (%u, this program knows %u)", options->path, *ret_version,
		            options->user_version);
	char answer[256] = "";
	if (!query_text(db, "PRAGMA quick_check(1)", answer, sizeof answer))
		return sqlite_failure(db, options->path, "cannot be checked", ret_why);
	if (strcmp(answer, "ok") != 0)
		return status_because(STATUS_AGENT_JOURNAL, ret_why, "%s: is damaged: %s", options->path, answer);
	return STATUS_OK;
}

static bool migrate_in_transaction(sqlite3 *db, const struct database_options *options, unsigned version)
{
	char sql[96];
	for (unsigned v = version; v < options->user_version; v++)
		if (!execute(db, options->migrations[v]))
			return false;
	/* A pragma takes no parameter. */
	snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %u", (int)options->application_id, options->user_version);
	return execute(db, sql) && execute(db, "COMMIT");
}

static enum status migrate(sqlite3 *db, const struct database_options *options, unsigned version, char **ret_why)
{
	if (version == options->user_version)
		return STATUS_OK;
	if (execute(db, "BEGIN IMMEDIATE") && migrate_in_transaction(db, options, version))
		return STATUS_OK;
	enum status status = sqlite_failure(db, options->path, "cannot be brought to this version", ret_why);
	if (!sqlite3_get_autocommit(db))
		execute(db, "ROLLBACK");
	return status;
}

static enum status open_sqlite(const struct database_options *options, sqlite3 **ret_db, char **ret_why)
{
	unsigned version = 0;
	enum status status = check_file(options->path, ret_why);
	if (status != STATUS_OK)
		return status;
	if (sqlite3_open_v2(options->path, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		return sqlite_failure(*ret_db, options->path, "cannot be opened", ret_why);
	sqlite3_extended_result_codes(*ret_db, 1);
	status = set_pragmas(*ret_db, options->path, ret_why);
	if (status == STATUS_OK)
		status = check_identity(*ret_db, options, &version, ret_why);
	if (status == STATUS_OK)
		status = migrate(*ret_db, options, version, ret_why);
	return status;
}

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
	enum status status = open_sqlite(options, &database->db, ret_why);
	if (status == STATUS_OK && (!attach(database, base) || !start_thread(database)))
		status = status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: its thread cannot be started: %s", options->path, strerror(errno));
	if (status != STATUS_OK) {
		database_close(database);
		return status;
	}
	*ret_database = database;
	return STATUS_OK;
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
