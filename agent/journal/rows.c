#include "agent/journal/rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/journal/seal.h"

enum kind { TEXT, OCTETS, SIGNED_64, UNSIGNED_64, UNSIGNED_32, FLAG, STATE, LONG_TEXT };

/* The columns behind `sequence`, in order: binding, reading and checksum follow this table. */
static const struct field {
	const char *name;
	enum kind kind;
	size_t offset, size;
} fields[] = {
#define FIELD(name, kind) { #name, kind, offsetof(struct journal_entry, name), sizeof ((struct journal_entry *)0)->name }
	FIELD(request_id, TEXT), FIELD(operation_id, TEXT), FIELD(frame_sha256, OCTETS), FIELD(exp, SIGNED_64), FIELD(state, STATE),
	FIELD(op, TEXT), FIELD(user_guid, TEXT), FIELD(directory, TEXT), FIELD(server, TEXT),
	FIELD(invocation_id, OCTETS), FIELD(highest_committed_usn, UNSIGNED_64),
	FIELD(password_version, UNSIGNED_32), FIELD(password_originator, OCTETS), FIELD(password_originating_usn, UNSIGNED_64),
	FIELD(intent_at_ms, SIGNED_64), FIELD(outcome_at_ms, SIGNED_64), FIELD(code, TEXT), FIELD(counts, FLAG), FIELD(sets_password, FLAG),
	FIELD(result, LONG_TEXT), FIELD(acknowledged, FLAG),
	/* Since version 2. */
	FIELD(second_server, TEXT), FIELD(second_invocation_id, OCTETS), FIELD(second_committed_usn, UNSIGNED_64),
	FIELD(second_password_version, UNSIGNED_32), FIELD(second_password_originator, OCTETS), FIELD(second_password_originating_usn, UNSIGNED_64), FIELD(second_at_ms, SIGNED_64),
	/* Since version 4. */
	FIELD(wrong_at_ms, SIGNED_64),
#undef FIELD
};
enum { FIELDS = sizeof fields / sizeof *fields };
/* How many there were in a version, the newest first. */
static const size_t fields_of_versions[] = { FIELDS, FIELDS - 1, FIELDS - 8 };

const char *const rows_migrations[JOURNAL_VERSION] = {
	"CREATE TABLE entries ("
	" sequence INTEGER PRIMARY KEY NOT NULL, request_id TEXT NOT NULL UNIQUE, operation_id TEXT NOT NULL, frame_sha256 BLOB NOT NULL, exp INTEGER NOT NULL,"
	" state INTEGER NOT NULL, op TEXT NOT NULL, user_guid TEXT NOT NULL, directory TEXT NOT NULL, server TEXT NOT NULL,"
	" invocation_id BLOB NOT NULL, highest_committed_usn INTEGER NOT NULL, password_version INTEGER NOT NULL, password_originator BLOB NOT NULL,"
	" password_originating_usn INTEGER NOT NULL, intent_at_ms INTEGER NOT NULL, outcome_at_ms INTEGER NOT NULL, code TEXT NOT NULL,"
	" counts INTEGER NOT NULL, sets_password INTEGER NOT NULL, result TEXT, acknowledged INTEGER NOT NULL, checksum BLOB NOT NULL) STRICT;"
	"CREATE TABLE numbers (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL, checksum BLOB NOT NULL) STRICT, WITHOUT ROWID;",
	"ALTER TABLE entries ADD COLUMN second_server TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE entries ADD COLUMN second_invocation_id BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';"
	"ALTER TABLE entries ADD COLUMN second_committed_usn INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE entries ADD COLUMN second_password_version INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE entries ADD COLUMN second_password_originator BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';"
	"ALTER TABLE entries ADD COLUMN second_password_originating_usn INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE entries ADD COLUMN second_at_ms INTEGER NOT NULL DEFAULT 0;",
	/* The rows that are there come again, so that the triggers see them. */
	"CREATE TABLE seal (one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1), id BLOB NOT NULL, commits INTEGER NOT NULL, digest BLOB NOT NULL) STRICT;"
	"INSERT INTO seal VALUES (1, randomblob(16), 0, zeroblob(32));"
	"CREATE TABLE former_entries AS SELECT * FROM entries; DELETE FROM entries;"
	"CREATE TABLE former_numbers AS SELECT * FROM numbers; DELETE FROM numbers;"
#define TRIGGERS(table) \
	"CREATE TRIGGER " #table "_insert AFTER INSERT ON " #table " BEGIN UPDATE seal SET digest = seal_mix(digest, new.checksum); END;" \
	"CREATE TRIGGER " #table "_update AFTER UPDATE ON " #table " BEGIN UPDATE seal SET digest = seal_mix(digest, old.checksum, new.checksum); END;" \
	"CREATE TRIGGER " #table "_delete AFTER DELETE ON " #table " BEGIN UPDATE seal SET digest = seal_mix(digest, old.checksum); END;"
	TRIGGERS(entries) TRIGGERS(numbers)
#undef TRIGGERS
	"INSERT INTO entries SELECT * FROM former_entries ORDER BY sequence; DROP TABLE former_entries;"
	"INSERT INTO numbers SELECT * FROM former_numbers; DROP TABLE former_numbers;",
	"ALTER TABLE entries ADD COLUMN wrong_at_ms INTEGER NOT NULL DEFAULT 0;"
};

struct journal_entry *entry_copy(const struct journal_entry *entry)
{
	struct journal_entry *copy = malloc(sizeof *copy);
	if (!copy)
		return NULL;
	*copy = *entry;
	if (entry->result && !(copy->result = strdup(entry->result))) {
		free(copy);
		return NULL;
	}
	return copy;
}

void entry_free(struct journal_entry *entry)
{
	if (!entry)
		return;
	free(entry->result);
	free(entry);
}

/* Fields as bytes and numbers ---------------------------------------------------------------------------------------------------------- */

static bool is_number(enum kind kind)
{
	return kind != TEXT && kind != OCTETS && kind != LONG_TEXT;
}

static int64_t get_number(const struct field *field, const struct journal_entry *entry)
{
	const char *at = (const char *)entry + field->offset;
	switch (field->kind) {
	case UNSIGNED_64:
		return (int64_t)*(const uint64_t *)at;
	case UNSIGNED_32:
		return *(const uint32_t *)at;
	case FLAG:
		return *(const bool *)at;
	case STATE:
		return *(const enum journal_state *)at;
	default:
		return *(const int64_t *)at;
	}
}

/* False where the number is none that was ever written. */
static bool set_number(const struct field *field, struct journal_entry *entry, int64_t value)
{
	char *at = (char *)entry + field->offset;
	switch (field->kind) {
	case UNSIGNED_64:
		*(uint64_t *)at = (uint64_t)value;
		return true;
	case UNSIGNED_32:
		*(uint32_t *)at = (uint32_t)value;
		return value >= 0 && value <= UINT32_MAX;
	case FLAG:
		*(bool *)at = value != 0;
		return value == 0 || value == 1;
	case STATE:
		*(enum journal_state *)at = (enum journal_state)value;
		return value >= JOURNAL_INTENT && value <= JOURNAL_SETTLING_AGAIN;
	default:
		*(int64_t *)at = value;
		return true;
	}
}

/* data is NULL for an absent long text only. */
static struct bytes get_bytes(const struct field *field, const struct journal_entry *entry)
{
	const char *at = (const char *)entry + field->offset;
	if (field->kind == OCTETS)
		return bytes_of(at, field->size);
	if (field->kind == TEXT)
		return bytes_of(at, strnlen(at, field->size - 1));
	return entry->result ? bytes_of(entry->result, strlen(entry->result)) : bytes_of(NULL, 0);
}

static bool set_bytes(const struct field *field, struct journal_entry *entry, const void *data, size_t size)
{
	char *at = (char *)entry + field->offset;
	if (field->kind == LONG_TEXT)
		return !data || (entry->result = strndup(data, size));
	if (!data || (field->kind == OCTETS ? size != field->size : size >= field->size))
		return field->kind == TEXT && !data && !size;
	memcpy(at, data, size);
	return true;
}

/* Checksum ----------------------------------------------------------------------------------------------------------------------------- */

static uint8_t *put_number(uint8_t *at, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		*at++ = (uint8_t)(value >> 8 * i);
	return at;
}

static uint8_t *put_bytes(uint8_t *at, struct bytes bytes)
{
	/* A length that no text has stands for "absent". */
	at = put_number(at, bytes.data ? bytes.size : UINT64_MAX);
	if (bytes.size)
		memcpy(at, bytes.data, bytes.size);
	return at + bytes.size;
}

static bool is_empty(const struct field *field, const struct journal_entry *entry)
{
	static const uint8_t zeros[16];
	if (is_number(field->kind))
		return get_number(field, entry) == 0;
	struct bytes bytes = get_bytes(field, entry);
	return field->kind == OCTETS ? bytes_equal(bytes, bytes_of(zeros, sizeof zeros)) : bytes.size == 0;
}

/* What a later version added counts where there is any of it, so that the rows of an earlier one keep their checksums. */
static size_t fields_in_checksum(const struct journal_entry *entry)
{
	const size_t versions = sizeof fields_of_versions / sizeof fields_of_versions[0];
	for (size_t version = 0; version + 1 < versions; version++)
		for (size_t i = fields_of_versions[version + 1]; i < fields_of_versions[version]; i++)
			if (!is_empty(&fields[i], entry))
				return fields_of_versions[version];
	return fields_of_versions[versions - 1];
}

static bool entry_checksum(int64_t sequence, const struct journal_entry *entry, uint8_t out[32])
{
	size_t size = 8, count = fields_in_checksum(entry);
	for (size_t i = 0; i < count; i++)
		size += 8 + (is_number(fields[i].kind) ? 8 : get_bytes(&fields[i], entry).size);
	AUTO_FREE uint8_t *buffer = malloc(size);
	if (!buffer)
		return false;
	uint8_t *at = put_number(buffer, (uint64_t)sequence);
	for (size_t i = 0; i < count; i++) {
		uint8_t number[8];
		if (is_number(fields[i].kind)) {
			put_number(number, (uint64_t)get_number(&fields[i], entry));
			at = put_bytes(at, bytes_of(number, sizeof number));
		} else {
			at = put_bytes(at, get_bytes(&fields[i], entry));
		}
	}
	sha256(bytes_of(buffer, (size_t)(at - buffer)), out);
	return true;
}

static void number_checksum(const char *name, int64_t value, uint8_t out[32])
{
	uint8_t buffer[8 + NUMBER_NAME_SIZE + 8];
	uint8_t *at = put_bytes(buffer, bytes_of(name, strnlen(name, NUMBER_NAME_SIZE)));
	at = put_number(at, (uint64_t)value);
	sha256(bytes_of(buffer, (size_t)(at - buffer)), out);
}

/* Writing ------------------------------------------------------------------------------------------------------------------------------ */

char *rows_write_sql(void)
{
	char names[1024] = "", marks[FIELDS * 3 + 1] = "", updates[2048] = "";
	char *sql = NULL;
	for (size_t i = 0; i < FIELDS; i++) {
		strcat(strcat(names, ", "), fields[i].name);
		strcat(marks, ", ?");
		/* The request_id of a row never changes; left out, its index is not written again. */
		if (i > 0)
			sprintf(updates + strlen(updates), "%s = excluded.%s, ", fields[i].name, fields[i].name);
	}
	return asprintf(&sql, "INSERT INTO entries (sequence%s, checksum) VALUES (?%s, ?) ON CONFLICT (sequence) DO UPDATE SET %schecksum = excluded.checksum",
	                names, marks, updates) < 0 ? NULL : sql;
}

static int bind_field(sqlite3_stmt *statement, int column, const struct field *field, const struct journal_entry *entry)
{
	if (is_number(field->kind))
		return sqlite3_bind_int64(statement, column, get_number(field, entry));
	struct bytes bytes = get_bytes(field, entry);
	if (!bytes.data)
		return sqlite3_bind_null(statement, column);
	return field->kind == OCTETS ? sqlite3_bind_blob64(statement, column, bytes.data, bytes.size, SQLITE_STATIC)
	                             : sqlite3_bind_text64(statement, column, (const char *)bytes.data, bytes.size, SQLITE_STATIC, SQLITE_UTF8);
}

enum status rows_write(sqlite3_stmt *statement, int64_t sequence, const struct journal_entry *entry)
{
	uint8_t checksum[32];
	if (!entry_checksum(sequence, entry, checksum))
		return STATUS_AGENT_JOURNAL;
	bool good = sqlite3_bind_int64(statement, 1, sequence) == SQLITE_OK &&
	            sqlite3_bind_blob(statement, FIELDS + 2, checksum, sizeof checksum, SQLITE_STATIC) == SQLITE_OK;
	for (int i = 0; good && i < FIELDS; i++)
		good = bind_field(statement, i + 2, &fields[i], entry) == SQLITE_OK;
	good = good && sqlite3_step(statement) == SQLITE_DONE;
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
	return good ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

enum status rows_write_number(sqlite3 *db, const char *name, int64_t value)
{
	sqlite3_stmt *statement = NULL;
	uint8_t checksum[32];
	number_checksum(name, value, checksum);
	bool good = sqlite3_prepare_v2(db, "INSERT INTO numbers (name, value, checksum) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value, checksum = excluded.checksum", -1, &statement, NULL) == SQLITE_OK &&
	            sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC) == SQLITE_OK && sqlite3_bind_int64(statement, 2, value) == SQLITE_OK &&
	            sqlite3_bind_blob(statement, 3, checksum, sizeof checksum, SQLITE_STATIC) == SQLITE_OK && sqlite3_step(statement) == SQLITE_DONE;
	sqlite3_finalize(statement);
	return good ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

/* Reading ------------------------------------------------------------------------------------------------------------------------------ */

static bool has_checksum(sqlite3_stmt *statement, int column, const uint8_t checksum[32])
{
	return sqlite3_column_bytes(statement, column) == 32 && !memcmp(sqlite3_column_blob(statement, column), checksum, 32);
}

static bool read_field(sqlite3_stmt *statement, int column, const struct field *field, struct journal_entry *entry)
{
	if (is_number(field->kind))
		return sqlite3_column_type(statement, column) == SQLITE_INTEGER && set_number(field, entry, sqlite3_column_int64(statement, column));
	const void *data = field->kind == OCTETS ? sqlite3_column_blob(statement, column) : (const void *)sqlite3_column_text(statement, column);
	return set_bytes(field, entry, data, (size_t)sqlite3_column_bytes(statement, column));
}

static bool read_entry(sqlite3_stmt *statement, struct journal_entry *entry, uint8_t digest[32])
{
	uint8_t checksum[32];
	for (int i = 0; i < FIELDS; i++) {
		if (!read_field(statement, i + 1, &fields[i], entry))
			return false;
	}
	if (!entry_checksum(sqlite3_column_int64(statement, 0), entry, checksum) || !has_checksum(statement, FIELDS + 1, checksum) || !uuid_valid(entry->request_id))
		return false;
	seal_mix(digest, checksum);
	return true;
}

static enum status read_row(sqlite3_stmt *statement, rows_each each, void *arg, uint8_t digest[32], char **ret_why)
{
	int64_t sequence = sqlite3_column_int64(statement, 0);
	struct journal_entry *entry = calloc(1, sizeof *entry);
	if (entry && read_entry(statement, entry, digest))
		return each(sequence, entry, arg);
	entry_free(entry);
	const char *id = (const char *)sqlite3_column_text(statement, 1);
	if (asprintf(ret_why, "row %" PRId64 " of entries (request_id %.36s) is damaged: it is not what its checksum was made from", sequence, id ? id : "?") < 0)
		*ret_why = NULL;
	return STATUS_LOCAL_DAMAGED;
}

static enum status end_of_rows(sqlite3 *db, int step, const char *table, char **ret_why)
{
	if (step == SQLITE_DONE)
		return STATUS_OK;
	/* A disk that cannot be read now says nothing of what is on it. */
	bool io = (step & 0xff) == SQLITE_IOERR || (step & 0xff) == SQLITE_NOMEM;
	return status_because(io ? STATUS_AGENT_JOURNAL : STATUS_LOCAL_DAMAGED, ret_why, "table %s cannot be read: %s", table, sqlite3_errmsg(db));
}

enum status rows_read(sqlite3 *db, rows_each each, void *arg, uint8_t digest[32], char **ret_why)
{
	char sql[1280] = "SELECT sequence";
	sqlite3_stmt *statement = NULL;
	enum status status = STATUS_OK;
	for (size_t i = 0; i < FIELDS; i++)
		strcat(strcat(sql, ", "), fields[i].name);
	strcat(sql, ", checksum FROM entries ORDER BY sequence");
	int step = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	if (step == SQLITE_OK) {
		while (status == STATUS_OK && (step = sqlite3_step(statement)) == SQLITE_ROW)
			status = read_row(statement, each, arg, digest, ret_why);
	}
	if (status == STATUS_OK)
		status = end_of_rows(db, step, "entries", ret_why);
	sqlite3_finalize(statement);
	return status;
}

static enum status read_number(sqlite3_stmt *statement, numbers_each each, void *arg, uint8_t digest[32], char **ret_why)
{
	uint8_t checksum[32];
	const char *name = (const char *)sqlite3_column_text(statement, 0);
	int64_t value = sqlite3_column_int64(statement, 1);
	bool fits = name && strlen(name) < NUMBER_NAME_SIZE;
	if (fits)
		number_checksum(name, value, checksum);
	if (fits && has_checksum(statement, 2, checksum)) {
		seal_mix(digest, checksum);
		return each(name, value, arg);
	}
	if (asprintf(ret_why, "row '%.32s' of numbers is damaged: it is not what its checksum was made from", name ? name : "?") < 0)
		*ret_why = NULL;
	return STATUS_LOCAL_DAMAGED;
}

enum status rows_read_numbers(sqlite3 *db, numbers_each each, void *arg, uint8_t digest[32], char **ret_why)
{
	sqlite3_stmt *statement = NULL;
	enum status status = STATUS_OK;
	int step = sqlite3_prepare_v2(db, "SELECT name, value, checksum FROM numbers", -1, &statement, NULL);
	if (step == SQLITE_OK) {
		while (status == STATUS_OK && (step = sqlite3_step(statement)) == SQLITE_ROW)
			status = read_number(statement, each, arg, digest, ret_why);
	}
	if (status == STATUS_OK)
		status = end_of_rows(db, step, "numbers", ret_why);
	sqlite3_finalize(statement);
	return status;
}
