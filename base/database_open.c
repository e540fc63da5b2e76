#include "base/database_open.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/disk.h"

#define BUSY_TIMEOUT_MS 5000

static bool execute(sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

enum status database_open_file(const char *path, int flags, int *ret_fd, char **ret_why)
{
	struct stat facts;
	int fd = *ret_fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
	if (fd < 0 && errno == ENOENT && !(flags & O_CREAT))
		return STATUS_OK;
	if (fd < 0 && (errno == ELOOP || errno == EISDIR))
		return status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: must be a regular file, not a link or a directory", path);
	if (fd < 0 || fstat(fd, &facts) != 0) {
		enum status status = status_because(STATUS_LOCAL_SYSTEM, ret_why, "%s: cannot be opened: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return status;
	}
	enum status status = STATUS_OK;
	if (!S_ISREG(facts.st_mode))
		status = status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: must be a regular file", path);
	else if (facts.st_uid != geteuid())
		status = status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: belongs to user %u, should belong to %u", path, (unsigned)facts.st_uid, (unsigned)geteuid());
	else if ((facts.st_mode & 077) != 0)
		status = status_because(STATUS_LOCAL_PERMISSION, ret_why, "%s: has mode %04o, should have 0600", path, (unsigned)(facts.st_mode & 07777));
	if (status == STATUS_OK)
		return STATUS_OK;
	close(fd);
	*ret_fd = -1;
	return status;
}

/* Makes the file or looks at the one that is there, and at those that SQLite keeps beside it: it would make them with the umask's mode and follow a link. */
static enum status check_files(const char *path, char **ret_why)
{
	static const struct { const char *suffix; int flags; } files[] = { { "-wal", O_RDWR }, { "-shm", O_RDWR }, { "", O_RDWR | O_CREAT } };
	enum status status = STATUS_OK;
	for (size_t i = 0; status == STATUS_OK && i < sizeof files / sizeof files[0]; i++) {
		char name[4096];
		int fd;
		snprintf(name, sizeof name, "%s%s", path, files[i].suffix);
		status = database_open_file(name, files[i].flags, &fd, ret_why);
		if (fd >= 0)
			close(fd);
	}
	return status;
}

/* What cannot be read now may be read later; what is read and makes no sense stays so. */
static enum status sqlite_failure(sqlite3 *db, const char *path, const char *what, char **ret_why)
{
	int code = sqlite3_errcode(db) & 0xff;
	enum status status = code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_ERROR ? STATUS_LOCAL_DAMAGED : STATUS_AGENT_JOURNAL;
	char advice[PATH_MAX + 128] = "";
	if (status != STATUS_LOCAL_DAMAGED)
		disk_describe(path, advice, sizeof advice);
	return status_because(status, ret_why, "%s: %s: %s%s", path, status == STATUS_LOCAL_DAMAGED ? "is damaged" : what, sqlite3_errmsg(db), advice);
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
		return sqlite_failure(db, path, "cannot be written", ret_why);
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
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "%s: belongs to another program (application_id %u, should be %u)", options->path, id, options->application_id);
	if (*ret_version > options->user_version)
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "%s: was written by a newer version (%u, this program knows %u)", options->path, *ret_version,
		            options->user_version);
	char answer[256] = "";
	if (!query_text(db, "PRAGMA quick_check(1)", answer, sizeof answer))
		return sqlite_failure(db, options->path, "cannot be checked", ret_why);
	/* A heading, then what it found. */
	const char *line = strchr(answer, '\n');
	if (strcmp(answer, "ok") != 0)
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "%s: is damaged: %s", options->path, line != NULL ? line + 1 : answer);
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

#define SCHEMA "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"

static bool same_text(sqlite3_stmt *one, sqlite3_stmt *other, int column)
{
	const char *a = (const char *)sqlite3_column_text(one, column), *b = (const char *)sqlite3_column_text(other, column);
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_schema(sqlite3 *one, sqlite3 *other)
{
	sqlite3_stmt *a = NULL, *b = NULL;
	bool same = sqlite3_prepare_v2(one, SCHEMA, -1, &a, NULL) == SQLITE_OK && sqlite3_prepare_v2(other, SCHEMA, -1, &b, NULL) == SQLITE_OK, more = same;
	while (same && more) {
		more = sqlite3_step(a) == SQLITE_ROW;
		same = (sqlite3_step(b) == SQLITE_ROW) == more;
		for (int column = 0; same && more && column < 4; column++)
			same = same_text(a, b, column);
	}
	sqlite3_finalize(a);
	sqlite3_finalize(b);
	return same;
}

/* A table, an index or a trigger that is missing or other than the migrations make it would work, and do something else. */
static enum status check_schema(sqlite3 *db, const struct database_options *options, char **ret_why)
{
	sqlite3 *fresh = NULL;
	struct database_options own = *options;
	own.path = ":memory:";
	bool made = sqlite3_open_v2(own.path, &fresh, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK;
	enum status status = !made ? STATUS_AGENT_INTERNAL : options->opened ? options->opened(fresh, options->hook_arg) : STATUS_OK;
	if (status == STATUS_OK)
		status = migrate(fresh, &own, 0, ret_why);
	if (status == STATUS_OK && !same_schema(db, fresh))
		status = status_because(STATUS_LOCAL_DAMAGED, ret_why, "%s: is damaged: its tables are not those that this program makes", options->path);
	sqlite3_close(fresh);
	return status;
}

enum status database_open_sqlite(const struct database_options *options, sqlite3 **ret_db, char **ret_why)
{
	unsigned version = 0;
	enum status status = check_files(options->path, ret_why);
	if (status != STATUS_OK)
		return status;
	if (sqlite3_open_v2(options->path, ret_db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		return sqlite_failure(*ret_db, options->path, "cannot be opened", ret_why);
	sqlite3_extended_result_codes(*ret_db, 1);
	status = options->opened ? options->opened(*ret_db, options->hook_arg) : STATUS_OK;
	if (status == STATUS_OK)
		status = set_pragmas(*ret_db, options->path, ret_why);
	if (status == STATUS_OK)
		status = check_identity(*ret_db, options, &version, ret_why);
	if (status == STATUS_OK)
		status = migrate(*ret_db, options, version, ret_why);
	if (status == STATUS_OK)
		status = check_schema(*ret_db, options, ret_why);
	return status;
}
