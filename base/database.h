/* database: SQLite on a thread of its own, with group commit.
 *
 * A job is a function that runs on the database thread inside a transaction; its `done` runs on the loop once that transaction is
 * on disk (WAL, synchronous=FULL) or has failed. All jobs that wait when the thread comes round share one commit; each runs inside a savepoint of its own, so that
 * one that fails is undone alone. Jobs run in the order of submission; `done`s come in that order too.
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
};

/* Opens, checks and migrates, synchronously (before the loop runs). `ret_why` gets a malloc'ed sentence on failure. `base` may be NULL for a program
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

#endif
