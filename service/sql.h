/* sql: prepared statements with less ceremony, for service/store*.c. */
#ifndef SERVICE_SQL_H
#define SERVICE_SQL_H

#include <sqlite3.h>

#include "base/bytes.h"

/* Prepares and binds: `types` has a letter a parameter: t const char * (NULL is NULL), i int64_t, b struct bytes * (32-byte hashes and the like; NULL is NULL).
 * NULL where it cannot be prepared. */
sqlite3_stmt *sql_prepare(sqlite3 *db, const char *text, const char *types, ...);
/* Prepares, binds, runs to the end. */
enum status sql_run(sqlite3 *db, const char *text, const char *types, ...) MUST_USE;
/* SQLITE_ROW, or finished (the statement is finalized by AUTO_STATEMENT). */
void sql_finalize(sqlite3_stmt **statement);
#define AUTO_STATEMENT __attribute__((cleanup(sql_finalize)))

/* Columns: a malloc'ed copy (NULL for NULL), a copy into an array (cut), exactly `size` bytes of a blob (zeroes where it has another size). */
char *sql_text_new(sqlite3_stmt *statement, int column);
void sql_text(sqlite3_stmt *statement, int column, char *out, size_t capacity);
void sql_blob(sqlite3_stmt *statement, int column, uint8_t *out, size_t size);

#endif
