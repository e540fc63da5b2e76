/* rows: the journal's tables: one entry or number <-> one row with its checksum. On the database's thread; no index, no callbacks. */
#ifndef AGENT_JOURNAL_ROWS_H
#define AGENT_JOURNAL_ROWS_H

#include <sqlite3.h>

#include "agent/journal/journal.h"

#define JOURNAL_APPLICATION_ID 0x57424a4c /* "WBJL" */
#define JOURNAL_VERSION 4
extern const char *const rows_migrations[JOURNAL_VERSION];

/* A malloc'ed INSERT OR REPLACE over all columns; NULL when memory is out. */
char *rows_write_sql(void);
enum status rows_write(sqlite3_stmt *statement, int64_t sequence, const struct journal_entry *entry) MUST_USE;

/* Calls `each` for every row in order of arrival; it takes the entry. STATUS_LOCAL_DAMAGED with a sentence where a row is not what was written. Mixes all checksums into
 * `digest` (agent/journal/seal.h). */
typedef enum status (*rows_each)(int64_t sequence, struct journal_entry *take_entry, void *arg);
enum status rows_read(sqlite3 *db, rows_each each, void *arg, uint8_t digest[32], char **ret_why) MUST_USE;

#define NUMBER_NAME_SIZE 32
enum status rows_write_number(sqlite3 *db, const char *name, int64_t value) MUST_USE;
typedef enum status (*numbers_each)(const char *name, int64_t value, void *arg);
enum status rows_read_numbers(sqlite3 *db, numbers_each each, void *arg, uint8_t digest[32], char **ret_why) MUST_USE;

/* A copy with a result string of its own; NULL when memory is out. */
struct journal_entry *entry_copy(const struct journal_entry *entry);
void entry_free(struct journal_entry *entry);

#endif
