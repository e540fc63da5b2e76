/* database: SQLite on a thread of its own, with group commit.
 *
 * A job is a function that runs on the database thread inside a transaction; its `done` runs on the loop once that transaction is
 * on disk (WAL, synchronous=FULL) or has failed. All jobs that wait when the thread comes round share one commit; each runs inside a savepoint of its own, so that
 * one that fails is undone alone. Jobs run in the order of submission; `done`s come in that order too.
 *
 * After an I/O error, fsync's included, nothing that is in the write-ahead log is believed to be on disk: before the next commit all of it is written into the database anew (a checkpoint that empties
 * the log), and until that succeeds every commit fails.
 *
 * The queue is bounded. Nothing here knows what the tables mean. */
#ifndef BASE_DATABASE_H
#define BASE_DATABASE_H

#include <event2/event.h>
#include <sqlite3.h>

#include "base/status.h"

struct database;

/* On the database thread. Any status but STATUS_OK undoes what this job did. */
typedef enum status (*database_job)(sqlite3 *db, void *arg);
/* On the loop, after the commit. STATUS_AGENT_JOURNAL where the commit failed; else what the job returned. */
typedef void (*database_done)(enum status status, void *arg);

struct database_options {
	const char *path;             /* made with mode 0600; must be a regular file of this user, not a link */
	unsigned application_id;      /* PRAGMA application_id: another one is refused */
	unsigned user_version;        /* PRAGMA user_version: a higher one is refused, a lower one is brought up by `migrations` */
	const char *const *migrations;/* migrations[n] is the SQL that brings version n to n + 1 */
	unsigned queue_limit;         /* waiting jobs; 0 = 8,192 */
	/* For an owner that keeps books of its own about what was committed; each may be NULL. `opened`: before the tables are looked at, for the functions that they use. The others on the
	 * database thread: `committing` last in each transaction (any status but STATUS_OK fails the whole of it), `committed` once it is on disk, before any `done`. */
	enum status (*opened)(sqlite3 *db, void *arg);
	enum status (*committing)(sqlite3 *db, void *arg);
	void (*committed)(void *arg);
	void *hook_arg;
};

/* Opens, checks and migrates, synchronously (before the loop runs). `ret_why` gets a malloc'ed sentence on failure: STATUS_LOCAL_DAMAGED where the content is not what this program left there (no retry heals that,
 * and the files stay as they are), STATUS_AGENT_JOURNAL where it cannot be read or written now, STATUS_LOCAL_PERMISSION or STATUS_LOCAL_SYSTEM for the files themselves. `base` may be NULL for a program
 * without a loop (command lines, tests): then only database_run may be used. */
enum status database_open(struct event_base *base, const struct database_options *options, struct database **ret_database, char **ret_why) MUST_USE;
/* Runs what is queued, commits, joins the thread; `done`s that have not run yet run from here. */
void database_close(struct database *database);
/* STATUS_AGENT_OVERLOADED where the queue is full: then neither job nor done will run. `done` may be NULL. */
enum status database_submit(struct database *database, database_job job, database_done done, void *arg) MUST_USE;
/* For what nobody waits for: it goes to disk with the next job that database_submit or database_run brings, or alone a moment later. */
enum status database_submit_patiently(struct database *database, database_job job, database_done done, void *arg) MUST_USE;
/* The same, waiting for it: for the start of a program and for command lines, never on a running loop. */
enum status database_run(struct database *database, database_job job, void *arg) MUST_USE;
/* Jobs waiting or running. */
unsigned database_pending(const struct database *database);
/* For an owner that refuses the content: closing changes no file then. */
void database_leave_untouched(struct database *database);
/* Opens a private file: a regular one of this user, mode 0600 or less, not a link; `flags` as for open(2). *ret_fd is -1 where there is none and O_CREAT is not asked for. */
enum status database_open_file(const char *path, int flags, int *ret_fd, char **ret_why) MUST_USE;

#endif
