#include "agent/journal/seal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/database.h"

enum { ID_SIZE = 16, MARK_SIZE = 90 };
#define MARK_BODY "writebackd journal %s %020" PRId64 " "

struct seal {
	char *database, *path;
	int fd;                      /* the mark's; -1: there is none */
	bool checked;
	char id[2 * ID_SIZE + 1];
	int64_t commits;             /* of the mark; then of the database */
	sqlite3_stmt *count;
};

/* The mark ----------------------------------------------------------------------------------------------------------------------------- */

/* One line of a fixed size, written over itself. */
static void format_mark(const char *id, int64_t commits, char out[MARK_SIZE + 1])
{
	uint8_t hash[32];
	char guard[17];
	int size = snprintf(out, MARK_SIZE + 1, MARK_BODY, id, commits);
	sha256(bytes_of(out, (size_t)size), hash);
	hex_encode(bytes_of(hash, 8), guard);
	snprintf(out + size, (size_t)(MARK_SIZE + 1 - size), "%s\n", guard);
}

static bool write_mark(struct seal *seal)
{
	char text[MARK_SIZE + 1];
	format_mark(seal->id, seal->commits, text);
	return pwrite(seal->fd, text, strlen(text), 0) == (ssize_t)strlen(text);
}

/* Whatever it says must be what would have been written. */
static bool read_mark(struct seal *seal)
{
	char text[MARK_SIZE + 8] = "", expected[MARK_SIZE + 1];
	ssize_t size = pread(seal->fd, text, sizeof text - 1, 0);
	if (size <= 0 || sscanf(text, "writebackd journal %32[0-9a-f] %20" SCNd64, seal->id, &seal->commits) != 2)
		return false;
	format_mark(seal->id, seal->commits, expected);
	return strlen(expected) == (size_t)size && memcmp(text, expected, (size_t)size) == 0;
}

static bool sync_folder(const char *path)
{
	AUTO_FREE char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;
	if (slash)
		slash[slash == folder] = '\0';
	int fd = slash ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	bool good = fd >= 0 && fsync(fd) == 0;
	if (fd >= 0)
		close(fd);
	return good;
}

/* The only waits for a disk: its size and its name never change later. */
static enum status make_mark(struct seal *seal, char **ret_why)
{
	enum status status = seal->fd < 0 ? database_open_file(seal->path, O_RDWR | O_CREAT, &seal->fd, ret_why) : STATUS_OK;
	if (status == STATUS_OK && (!write_mark(seal) || fsync(seal->fd) != 0 || !sync_folder(seal->path)))
		status = status_because(STATUS_AGENT_JOURNAL, ret_why, "%s cannot be written", seal->path);
	return status;
}

static bool is_empty(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0)
		return access(path, F_OK) != 0;
	off_t size = lseek(fd, 0, SEEK_END);
	close(fd);
	return size == 0;
}

enum status seal_new(const char *path, struct seal **ret_seal, char **ret_why)
{
	struct seal *seal = *ret_seal = calloc(1, sizeof *seal);
	if (!seal)
		return STATUS_AGENT_INTERNAL;
	seal->fd = -1;
	seal->database = strdup(path);
	if (!seal->database || asprintf(&seal->path, "%s.mark", path) < 0) {
		seal->path = NULL;
		return STATUS_AGENT_INTERNAL;
	}
	enum status status = database_open_file(seal->path, O_RDWR, &seal->fd, ret_why);
	if (status != STATUS_OK || seal->fd < 0)
		return status;
	if (!read_mark(seal))
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "%s: is damaged: whether the journal beside it is whole cannot be said", seal->path);
	if (seal->commits > 0 && is_empty(path))
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "%s: is missing or empty, but %s tells of a journal with %" PRId64 " commits", path, seal->path, seal->commits);
	return STATUS_OK;
}

void seal_free(struct seal *seal)
{
	if (!seal)
		return;
	sqlite3_finalize(seal->count);
	if (seal->fd >= 0)
		close(seal->fd);
	free(seal->database);
	free(seal->path);
	free(seal);
}

/* The digest --------------------------------------------------------------------------------------------------------------------------- */

void seal_mix(uint8_t digest[32], const uint8_t checksum[32])
{
	for (unsigned i = 0; i < 32; i++)
		digest[i] ^= checksum[i];
}

/* seal_mix(digest, checksum …): a checksum of another size is a damaged row's, and is found as such when it is read. */
static void mix(sqlite3_context *context, int count, sqlite3_value **values)
{
	uint8_t digest[32] = { 0 };
	for (int i = 0; i < count; i++)
		if (sqlite3_value_bytes(values[i]) == sizeof digest)
			seal_mix(digest, sqlite3_value_blob(values[i]));
	sqlite3_result_blob(context, digest, sizeof digest, SQLITE_TRANSIENT);
}

enum status seal_opened(sqlite3 *db, void *arg)
{
	int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS;
	return sqlite3_create_function_v2(db, "seal_mix", -1, flags, NULL, mix, NULL, NULL, NULL) == SQLITE_OK ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

/* Commits ------------------------------------------------------------------------------------------------------------------------------ */

enum status seal_committing(sqlite3 *db, void *arg)
{
	struct seal *seal = arg;
	if (!seal->checked)
		return STATUS_OK;
	if (!seal->count && sqlite3_prepare_v3(db, "UPDATE seal SET commits = ?", -1, SQLITE_PREPARE_PERSISTENT, &seal->count, NULL) != SQLITE_OK)
		return STATUS_AGENT_JOURNAL;
	bool good = sqlite3_bind_int64(seal->count, 1, seal->commits + 1) == SQLITE_OK && sqlite3_step(seal->count) == SQLITE_DONE;
	return sqlite3_reset(seal->count) == SQLITE_OK && good ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

void seal_committed(void *arg)
{
	struct seal *seal = arg;
	if (!seal->checked)
		return;
	seal->commits++;
	/* A mark that cannot be written stays behind, and proves less; nothing is wrong with what was committed. */
	if (!write_mark(seal))
		return;
}

/* Checking ----------------------------------------------------------------------------------------------------------------------------- */

struct facts { char id[2 * ID_SIZE + 1]; int64_t commits; uint8_t digest[32]; };

static bool read_seal(sqlite3 *db, struct facts *facts)
{
	sqlite3_stmt *statement = NULL;
	bool good = sqlite3_prepare_v2(db, "SELECT id, commits, digest FROM seal", -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW &&
	            sqlite3_column_bytes(statement, 0) == ID_SIZE && sqlite3_column_bytes(statement, 2) == (int)sizeof facts->digest;
	if (good) {
		hex_encode(bytes_of(sqlite3_column_blob(statement, 0), ID_SIZE), facts->id);
		facts->commits = sqlite3_column_int64(statement, 1);
		memcpy(facts->digest, sqlite3_column_blob(statement, 2), sizeof facts->digest);
		good = sqlite3_step(statement) == SQLITE_DONE && facts->commits >= 0;
	}
	sqlite3_finalize(statement);
	return good;
}

enum status seal_check(struct seal *seal, sqlite3 *db, const uint8_t digest[32], char **ret_why)
{
	struct facts facts;
	if (!read_seal(db, &facts))
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "the row of table seal is missing or damaged");
	if (!bytes_equal(bytes_of(digest, sizeof facts.digest), bytes_of(facts.digest, sizeof facts.digest)))
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "rows are missing, or older than they were: they do not add up to the seal");
	bool marked = seal->fd >= 0, begun = facts.commits > 0;
	if (begun && !marked)
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "%s is missing: whether the journal is whole cannot be said", seal->path);
	if ((begun || (marked && seal->commits > 0)) && strcmp(seal->id, facts.id) != 0)
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "is not the journal that %s belongs to, or its -wal file is another one's", seal->path);
	if (facts.commits < seal->commits)
		return status_because(STATUS_LOCAL_DAMAGED, ret_why, "ends with commit %" PRId64 ", but %" PRId64 " were on disk: the -wal file is lost, damaged or another one's, or an older copy of the journal was put here",
		                      facts.commits, seal->commits);
	strcpy(seal->id, facts.id);
	seal->commits = facts.commits;
	enum status status = begun ? STATUS_OK : make_mark(seal, ret_why);
	seal->checked = status == STATUS_OK;
	return status;
}
