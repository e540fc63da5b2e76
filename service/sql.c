#include "service/sql.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static sqlite3_stmt *prepare(sqlite3 *db, const char *text, const char *types, va_list arguments)
{
	sqlite3_stmt *statement = NULL;
	if (sqlite3_prepare_v2(db, text, -1, &statement, NULL) != SQLITE_OK)
		return NULL;
	for (int i = 0; types[i] != '\0'; i++) {
		int result;
		if (types[i] == 't') {
			result = sqlite3_bind_text(statement, i + 1, va_arg(arguments, const char *), -1, SQLITE_TRANSIENT);
		} else if (types[i] == 'i') {
			result = sqlite3_bind_int64(statement, i + 1, va_arg(arguments, int64_t));
		} else {
			const struct bytes *blob = va_arg(arguments, const struct bytes *);
			result = blob != NULL ? sqlite3_bind_blob64(statement, i + 1, blob->data, blob->size, SQLITE_TRANSIENT) : SQLITE_OK; /* NULL as it is */
		}
		if (result != SQLITE_OK) {
			sqlite3_finalize(statement);
			return NULL;
		}
	}
	return statement;
}

sqlite3_stmt *sql_prepare(sqlite3 *db, const char *text, const char *types, ...)
{
	va_list arguments;
	va_start(arguments, types);
	sqlite3_stmt *statement = prepare(db, text, types, arguments);
	va_end(arguments);
	return statement;
}

enum status sql_run(sqlite3 *db, const char *text, const char *types, ...)
{
	va_list arguments;
	va_start(arguments, types);
	AUTO_STATEMENT sqlite3_stmt *statement = prepare(db, text, types, arguments);
	va_end(arguments);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result;
	while ((result = sqlite3_step(statement)) == SQLITE_ROW)
		;
	return result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

void sql_finalize(sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

char *sql_text_new(sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);
	return text != NULL ? strdup(text) : NULL;
}

void sql_text(sqlite3_stmt *statement, int column, char *out, size_t capacity)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);
	snprintf(out, capacity, "%s", text != NULL ? text : "");
}

void sql_blob(sqlite3_stmt *statement, int column, uint8_t *out, size_t size)
{
	const void *data = sqlite3_column_blob(statement, column);
	memset(out, 0, size);
	if (data != NULL && (size_t)sqlite3_column_bytes(statement, column) == size)
		memcpy(out, data, size);
}
