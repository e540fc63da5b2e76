#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/database.h"
#include "base/loop.h"

static const char *const migrations[] = {
	"CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
	"ALTER TABLE item ADD COLUMN more TEXT",
};
static const char *const broken_migrations[] = { "CREATE TABLE item (id INTEGER PRIMARY KEY, text TEXT NOT NULL)", "CREATE TABLE", };

struct fixture {
	char folder[32];
	char path[64];
	struct database_options options;
	struct loop *loop;
	struct database *database;
	unsigned done, expected, before_first_commit;
	enum status statuses[64];
};

/* In the place of libc's, for SQLite: to bring a file to the disk fails where its name ends so. */
static const char *unsynced;
static bool is_unsynced(int fd)
{
	char link[64], name[256];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t size = unsynced ? readlink(link, name, sizeof name - 1) : -1;
	if (size < 0)
		return false;
	name[size] = '\0';
	return size >= (ssize_t)strlen(unsynced) && strcmp(name + size - strlen(unsynced), unsynced) == 0;
}

int fdatasync(int fd)
{
	if (!is_unsynced(fd))
		return (int)syscall(SYS_fdatasync, fd);
	errno = EIO;
	return -1;
}

int fsync(int fd) { return fdatasync(fd); }

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	strcpy(f->folder, "/tmp/test_database.XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->path, sizeof f->path, "%s/db", f->folder);
	f->options = (struct database_options){ .path = f->path, .application_id = 0x57424A31, .user_version = 1, .migrations = migrations };
	assert_int_equal(loop_new(NULL, 1000, &f->loop), STATUS_OK);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	char command[64];
	unsynced = NULL;
	database_close(f->database);
	loop_free(f->loop);
	snprintf(command, sizeof command, "rm -rf %s", f->folder);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static enum status open_database(struct fixture *f)
{
	char *why = NULL;
	enum status status = database_open(loop_base(f->loop), &f->options, &f->database, &why);
	assert_int_equal(status == STATUS_OK, why == NULL);
	if (why != NULL)
		assert_int_equal(strncmp(why, f->path, strlen(f->path)), 0);
	free(why);
	return status;
}

static enum status insert(sqlite3 *db, void *arg)
{
	return sqlite3_exec(db, "INSERT INTO item (text) VALUES ('x')", NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static enum status insert_and_refuse(sqlite3 *db, void *arg)
{
	enum status status = insert(db, arg);
	return status == STATUS_OK ? STATUS_REQUEST_REPLAYED : status;
}

static enum status count(sqlite3 *db, void *arg)
{
	sqlite3_stmt *statement;
	if (sqlite3_prepare_v2(db, "SELECT count(*) FROM item", -1, &statement, NULL) != SQLITE_OK)
		return STATUS_AGENT_INTERNAL;
	sqlite3_step(statement);
	*(int *)arg = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	return STATUS_OK;
}

static int items(struct fixture *f)
{
	int number = -1;
	assert_int_equal(database_run(f->database, count, &number), STATUS_OK);
	return number;
}

static void on_done(enum status status, void *arg)
{
	struct fixture *f = arg;
	f->statuses[f->done++] = status;
	if (f->done == f->expected)
		loop_end(f->loop);
}

/* Holds the thread until the test has queued what it wants in one group. */
static sem_t gate, entered;
static enum status wait_at_gate(sqlite3 *db, void *arg)
{
	sem_post(&entered);
	sem_wait(&gate);
	return STATUS_OK;
}

static void hold_thread(struct fixture *f)
{
	sem_init(&gate, 0, 0);
	sem_init(&entered, 0, 0);
	assert_int_equal(database_submit(f->database, wait_at_gate, on_done, f), STATUS_OK);
	sem_wait(&entered);
}

static void is_made_private_and_durable(void **state)
{
	struct fixture *f = *state;
	struct stat facts;
	mode_t mask = umask(0);
	assert_int_equal(open_database(f), STATUS_OK);
	umask(mask);
	assert_int_equal(stat(f->path, &facts), 0);
	assert_int_equal(facts.st_mode & 07777, 0600);
	assert_int_equal(items(f), 0);
	char wal[80];
	snprintf(wal, sizeof wal, "%s-wal", f->path);
	assert_int_equal(stat(wal, &facts), 0);
	assert_int_equal(facts.st_mode & 07777, 0600);
}

static enum status look_at_pragmas(sqlite3 *db, void *arg)
{
	static const struct { const char *sql, *value; } rows[] = {
		{ "PRAGMA journal_mode", "wal" }, { "PRAGMA synchronous", "2" }, { "PRAGMA foreign_keys", "1" }, { "PRAGMA secure_delete", "1" },
		{ "PRAGMA temp_store", "2" }, { "PRAGMA trusted_schema", "0" }, { "PRAGMA busy_timeout", "5000" }, { "PRAGMA application_id", "1463962161" },
		{ "PRAGMA user_version", "1" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		sqlite3_stmt *statement;
		assert_int_equal(sqlite3_prepare_v2(db, rows[i].sql, -1, &statement, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
		assert_string_equal((const char *)sqlite3_column_text(statement, 0), rows[i].value);
		sqlite3_finalize(statement);
	}
	return STATUS_OK;
}

static void has_its_settings(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(database_run(f->database, look_at_pragmas, NULL), STATUS_OK);
}

static void a_failed_job_is_undone_alone(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	f->expected = 5;
	hold_thread(f);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert_and_refuse, on_done, f), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert, NULL, NULL), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert_and_refuse, on_done, f), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_OK);
	assert_int_equal(database_pending(f->database), 6);
	sem_post(&gate);
	loop_run(f->loop);
	static const enum status expected[] = { STATUS_OK, STATUS_OK, STATUS_REQUEST_REPLAYED, STATUS_REQUEST_REPLAYED, STATUS_OK };
	assert_memory_equal(f->statuses, expected, sizeof expected);
	assert_int_equal(database_pending(f->database), 0);
	assert_int_equal(items(f), 3);
}

static void queue_is_bounded(void **state)
{
	struct fixture *f = *state;
	f->options.queue_limit = 3;
	assert_int_equal(open_database(f), STATUS_OK);
	f->expected = 3;
	hold_thread(f);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_AGENT_OVERLOADED);
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_AGENT_OVERLOADED);
	sem_post(&gate);
	loop_run(f->loop);
	assert_int_equal(f->done, 3);
	assert_int_equal(items(f), 2);
}

static void close_finishes_the_queue(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	hold_thread(f);
	for (int i = 0; i < 5; i++)
		assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_OK);
	sem_post(&gate);
	database_close(f->database);
	f->database = NULL;
	assert_int_equal(f->done, 6);
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(items(f), 5);
}

static enum status fill_disk(sqlite3 *db, void *arg)
{
	/* SQLITE_FULL rolls the whole transaction back. */
	sqlite3_exec(db, "PRAGMA max_page_count = 1", NULL, NULL, NULL);
	return sqlite3_exec(db, "INSERT INTO item (text) VALUES (randomblob(1000000))", NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static void a_lost_group_fails_whole(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	f->expected = 4;
	hold_thread(f);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_OK);
	assert_int_equal(database_submit(f->database, fill_disk, on_done, f), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_OK);
	sem_post(&gate);
	loop_run(f->loop);
	assert_int_equal(f->statuses[0], STATUS_OK);
	for (int i = 1; i < 4; i++)
		assert_int_equal(f->statuses[i], STATUS_AGENT_JOURNAL);
	assert_int_equal(items(f), 0);
}

static enum status break_commit(sqlite3 *db, void *arg)
{
	/* A violated deferred foreign key lets COMMIT itself fail. */
	return sqlite3_exec(db, "CREATE TABLE child (id INTEGER REFERENCES item (id) DEFERRABLE INITIALLY DEFERRED); INSERT INTO child VALUES (77)", NULL, NULL, NULL) ==
	       SQLITE_OK ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static void a_failed_commit_fails_whole(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(database_run(f->database, break_commit, NULL), STATUS_AGENT_JOURNAL);
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK);
	assert_int_equal(items(f), 1);
}

static enum status end_transaction(sqlite3 *db, void *arg)
{
	return sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

/* The next fsync of the log would succeed without what was lost: nothing is told before all of it stands in the database itself. */
static void behind_a_failed_fsync_only_what_is_written_anew_counts(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK);
	unsynced = "/db";
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK); /* the log's alone counts, as long as none has failed */
	unsynced = "/db-wal";
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_AGENT_JOURNAL);
	unsynced = "/db";
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_AGENT_JOURNAL);
	unsynced = NULL;
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK);
	unsynced = "/db";
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK);
	unsynced = NULL;
	assert_int_equal(items(f), 4);
}

static void a_job_cannot_end_the_transaction(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(database_run(f->database, end_transaction, NULL), STATUS_AGENT_JOURNAL);
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK);
}

static void brings_old_files_up(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK);
	database_close(f->database);
	f->database = NULL;
	f->options.user_version = 2;
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(items(f), 1);
	database_close(f->database);
	f->database = NULL;
	/* And refuses newer ones and those of others. */
	f->options.user_version = 1;
	assert_int_equal(open_database(f), STATUS_LOCAL_DAMAGED);
	f->options.user_version = 2;
	f->options.application_id++;
	assert_int_equal(open_database(f), STATUS_LOCAL_DAMAGED);
	assert_null(f->database);
}

static void a_broken_migration_changes_nothing(void **state)
{
	struct fixture *f = *state;
	f->options.user_version = 2;
	f->options.migrations = broken_migrations;
	assert_int_equal(open_database(f), STATUS_LOCAL_DAMAGED);
	f->options.migrations = migrations;
	assert_int_equal(open_database(f), STATUS_OK);
}

static void refuses_wrong_files(void **state)
{
	struct fixture *f = *state;
	char target[64];
	snprintf(target, sizeof target, "%s/other", f->folder);
	FILE *file = fopen(f->path, "w");
	fclose(file);
	assert_int_equal(chmod(f->path, 0640), 0);
	assert_int_equal(open_database(f), STATUS_LOCAL_PERMISSION);
	assert_int_equal(rename(f->path, target), 0);
	assert_int_equal(chmod(target, 0600), 0);
	assert_int_equal(symlink(target, f->path), 0);
	assert_int_equal(open_database(f), STATUS_LOCAL_PERMISSION);
	unlink(f->path);
	assert_int_equal(mkdir(f->path, 0700), 0);
	assert_int_equal(open_database(f), STATUS_LOCAL_PERMISSION);
	rmdir(f->path);
	assert_int_equal(mkfifo(f->path, 0600), 0);
	assert_int_equal(open_database(f), STATUS_LOCAL_PERMISSION);
	unlink(f->path);
	file = fopen(f->path, "w");
	for (int i = 0; i < 1000; i++)
		fputs("this is no database ", file);
	fclose(file);
	chmod(f->path, 0600);
	assert_int_equal(open_database(f), STATUS_LOCAL_DAMAGED);
	unlink(f->path);
	snprintf(f->path, sizeof f->path, "%s/nowhere/db", f->folder);
	assert_int_equal(open_database(f), STATUS_LOCAL_SYSTEM);
}

static void works_without_a_loop(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(database_open(NULL, &f->options, &f->database, NULL), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert, on_done, f), STATUS_AGENT_INTERNAL);
	assert_int_equal(database_submit(f->database, insert, NULL, f), STATUS_OK);
	assert_int_equal(database_run(f->database, insert, NULL), STATUS_OK);
	assert_int_equal(items(f), 2);
}

static void resubmit(enum status status, void *arg)
{
	struct fixture *f = arg;
	assert_int_equal(status, STATUS_OK);
	if (++f->done == 500)
		loop_end(f->loop);
	else
		assert_int_equal(database_submit(f->database, insert, resubmit, f), STATUS_OK);
}

static void a_done_may_submit(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(open_database(f), STATUS_OK);
	assert_int_equal(database_submit(f->database, insert, resubmit, f), STATUS_OK);
	loop_run(f->loop);
	assert_int_equal(items(f), 500);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(is_made_private_and_durable), TEST(has_its_settings), TEST(a_failed_job_is_undone_alone), TEST(queue_is_bounded), TEST(close_finishes_the_queue),
		TEST(a_lost_group_fails_whole), TEST(a_failed_commit_fails_whole), TEST(behind_a_failed_fsync_only_what_is_written_anew_counts), TEST(a_job_cannot_end_the_transaction), TEST(brings_old_files_up),
		TEST(a_broken_migration_changes_nothing), TEST(refuses_wrong_files), TEST(works_without_a_loop), TEST(a_done_may_submit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
