/* The journal's rows. The input is the columns of one row, each a byte of kind and its value, and one column more that is written over them: what rows_write wrote and nobody touched is read back
 * equal; what is not as it was written is refused with a sentence. The table takes any type in any column, as a damaged file may hold it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/journal/rows.h"
#include "agent/journal/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sqlite3 *db;
static sqlite3_stmt *write_row, *columns;
static unsigned column_count;
static char updates[64][96];

static void must(bool truth)
{
	if (!truth)
		abort();
}

static void run(const char *sql)
{
	must(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
}

/* The same columns without the types that SQLite would hold them to. */
static void open_loosely(void)
{
	AUTO_FREE char *sql = rows_write_sql();
	for (unsigned i = 0; i < JOURNAL_VERSION; i++) {
		AUTO_FREE char *migration = strdup(rows_migrations[i]);
		for (char *strict; migration != NULL && (strict = strstr(migration, "STRICT")) != NULL;) {
			memset(strict, ' ', 6);
			strict += strspn(strict, " ");
			if (*strict == ',')
				*strict = ' ';
		}
		run(migration);
	}
	must(sql != NULL && sqlite3_prepare_v2(db, sql, -1, &write_row, NULL) == SQLITE_OK);
	must(sqlite3_prepare_v2(db, "SELECT name FROM pragma_table_info('entries')", -1, &columns, NULL) == SQLITE_OK);
	while (sqlite3_step(columns) == SQLITE_ROW)
		snprintf(updates[column_count++ % 64], sizeof updates[0], "UPDATE entries SET %s = ?", (const char *)sqlite3_column_text(columns, 0));
	sqlite3_reset(columns);
}

struct input {
	const uint8_t *at, *end;
};

static uint64_t take(struct input *input, size_t octets)
{
	uint64_t value = 0;
	for (; octets > 0 && input->at < input->end; octets--)
		value = value << 8 | *input->at++;
	return value;
}

static void take_text(struct input *input, char *out, size_t capacity)
{
	size_t size = take(input, 1) % capacity, left = (size_t)(input->end - input->at);
	size = size < left ? size : left;
	snprintf(out, capacity, "%.*s", (int)size, (const char *)input->at);
	input->at += size;
}

static void take_octets(struct input *input, uint8_t *out, size_t size)
{
	for (size_t i = 0; i < size; i++)
		out[i] = (uint8_t)take(input, 1);
}

static void take_entry(struct input *input, struct journal_entry *entry)
{
	unsigned parts = (unsigned)take(input, 1);
	char result[256];
	snprintf(entry->request_id, sizeof entry->request_id, "7d444840-9dc0-41d1-b245-5ffdce74fa%02x", (unsigned)take(input, 1));
	take_text(input, entry->operation_id, sizeof entry->operation_id);
	take_octets(input, entry->frame_sha256, sizeof entry->frame_sha256);
	entry->exp = (int64_t)take(input, 8);
	entry->state = take(input, 1) % (JOURNAL_OUTCOME + 1);
	take_text(input, entry->op, sizeof entry->op);
	take_text(input, entry->user_guid, sizeof entry->user_guid);
	take_text(input, entry->directory, sizeof entry->directory);
	take_text(input, entry->server, sizeof entry->server);
	take_octets(input, entry->invocation_id, sizeof entry->invocation_id);
	entry->highest_committed_usn = take(input, 8);
	entry->password_version = (uint32_t)take(input, 4);
	take_octets(input, entry->password_originator, sizeof entry->password_originator);
	entry->password_originating_usn = take(input, 8);
	entry->intent_at_ms = (int64_t)take(input, 8);
	entry->outcome_at_ms = (int64_t)take(input, 8);
	take_text(input, entry->code, sizeof entry->code);
	entry->counts = take(input, 1) & 1;
	entry->sets_password = take(input, 1) & 1;
	entry->acknowledged = take(input, 1) & 1;
	take_text(input, result, sizeof result);
	entry->result = result[0] != 0 ? strdup(result) : NULL;
	if (parts & 1) {
		take_text(input, entry->second_server, sizeof entry->second_server);
		take_octets(input, entry->second_invocation_id, sizeof entry->second_invocation_id);
		entry->second_committed_usn = take(input, 8);
		entry->second_password_version = (uint32_t)take(input, 4);
		entry->second_at_ms = (int64_t)take(input, 8);
	}
	if (parts & 2)
		entry->wrong_at_ms = (int64_t)take(input, 8);
}

/* What another program or a bad disk may have put into one column. */
static void damage(struct input *input)
{
	sqlite3_stmt *update = NULL;
	size_t left;
	must(sqlite3_prepare_v2(db, updates[take(input, 1) % column_count], -1, &update, NULL) == SQLITE_OK);
	switch (take(input, 1) % 5) {
	case 0:
		break; /* NULL */
	case 1:
		sqlite3_bind_int64(update, 1, (int64_t)take(input, 8));
		break;
	case 2:
		sqlite3_bind_double(update, 1, (double)take(input, 4) / 3);
		break;
	case 3:
		left = (size_t)(input->end - input->at);
		sqlite3_bind_text64(update, 1, (const char *)input->at, left, SQLITE_STATIC, SQLITE_UTF8);
		break;
	case 4:
		left = (size_t)(input->end - input->at);
		sqlite3_bind_blob64(update, 1, input->at, left, SQLITE_STATIC);
	}
	sqlite3_step(update); /* a column that may not be NULL stays what it was */
	sqlite3_finalize(update);
}

/* Texts end at their first NUL, whatever stands behind it. */
static void end_texts(struct journal_entry *entry)
{
#define END(member) do { size_t length = strnlen(entry->member, sizeof entry->member); memset(entry->member + length, 0, sizeof entry->member - length); } while (0)
	END(request_id);
	END(operation_id);
	END(op);
	END(user_guid);
	END(directory);
	END(server);
	END(second_server);
	END(code);
#undef END
	entry->result = NULL;
}

static bool same(const struct journal_entry *a, const struct journal_entry *b)
{
	struct journal_entry *x = malloc(sizeof *x), *y = malloc(sizeof *y);
	must(x != NULL && y != NULL);
	memcpy(x, a, sizeof *x);
	memcpy(y, b, sizeof *y);
	end_texts(x);
	end_texts(y);
	bool equal = memcmp(x, y, sizeof *x) == 0 && (a->result != NULL) == (b->result != NULL) && (a->result == NULL || strcmp(a->result, b->result) == 0);
	free(x);
	free(y);
	return equal;
}

struct reading {
	const struct journal_entry *written;
	unsigned rows;
};

static enum status on_row(int64_t sequence, struct journal_entry *take_entry, void *arg)
{
	struct reading *reading = arg;
	reading->rows++;
	must(sequence == 7 && same(reading->written, take_entry));
	entry_free(take_entry);
	return STATUS_OK;
}

static enum status on_number(const char *name, int64_t value, void *arg)
{
	must(strcmp(name, "boot") == 0 && value == *(int64_t *)arg);
	return STATUS_OK;
}

static void try_number(struct input *input)
{
	int64_t value = (int64_t)take(input, 8);
	uint8_t digest[32] = { 0 };
	char *why = NULL, name[64];
	sqlite3_stmt *update = NULL;
	bool touched = take(input, 1) & 1;
	must(rows_write_number(db, "boot", value) == STATUS_OK);
	if (touched) {
		take_text(input, name, sizeof name);
		must(sqlite3_prepare_v2(db, "UPDATE numbers SET name = ?, value = ?", -1, &update, NULL) == SQLITE_OK);
		sqlite3_bind_text(update, 1, name, -1, SQLITE_STATIC);
		sqlite3_bind_int64(update, 2, (int64_t)take(input, 8));
		must(sqlite3_step(update) == SQLITE_DONE);
		sqlite3_finalize(update);
	}
	enum status status = rows_read_numbers(db, on_number, &value, digest, &why);
	must(status == STATUS_OK ? why == NULL : touched && why != NULL);
	free(why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	struct journal_entry *entry = calloc(1, sizeof *entry), *copy;
	struct reading reading = { .written = entry };
	uint8_t digest[32] = { 0 };
	char *why = NULL;
	if (db == NULL) {
		must(sqlite3_open(":memory:", &db) == SQLITE_OK && seal_opened(db, NULL) == STATUS_OK);
		open_loosely();
	}
	must(entry != NULL);
	run("BEGIN");
	take_entry(&input, entry);
	must((copy = entry_copy(entry)) != NULL && same(entry, copy));
	must(rows_write(write_row, 7, copy) == STATUS_OK && rows_read(db, on_row, &reading, digest, &why) == STATUS_OK && reading.rows == 1);
	damage(&input);
	enum status status = rows_read(db, on_row, &reading, digest, &why);
	must(status == STATUS_OK ? why == NULL : status == STATUS_LOCAL_DAMAGED && why != NULL && reading.rows == 1);
	free(why);
	try_number(&input);
	run("ROLLBACK");
	entry_free(entry);
	entry_free(copy);
	return 0;
}
