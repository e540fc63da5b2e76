/* The operations' half of service/store.h. */
#include <string.h>

#include "service/sql.h"
#include "service/store.h"

#define OPERATION_COLUMNS "operation_id, op, subject, content, created_ms, finished_ms, status, code, answer, agent_id, request_id"

void operation_row_clear(struct operation_row *row)
{
	free(row->subject);
	free(row->answer);
	*row = (struct operation_row){ 0 };
}

void request_row_clear(struct request_row *row)
{
	free(row->frame);
	*row = (struct request_row){ 0 };
}

void operation_rows_clear(struct operation_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		operation_row_clear(&rows->items[i]);
	free(rows->items);
	rows->items = NULL;
	rows->count = 0;
}

void open_operations_clear(struct open_operations *rows)
{
	for (size_t i = 0; i < rows->count; i++) {
		operation_row_clear(&rows->items[i].operation);
		request_row_clear(&rows->items[i].request);
	}
	free(rows->items);
	*rows = (struct open_operations){ 0 };
}

static void read_operation(sqlite3_stmt *statement, struct operation_row *row)
{
	sql_text(statement, 0, row->operation_id, sizeof row->operation_id);
	sql_text(statement, 1, row->op, sizeof row->op);
	row->subject = sql_text_new(statement, 2);
	sql_blob(statement, 3, row->content, sizeof row->content);
	row->created_ms = sqlite3_column_int64(statement, 4);
	row->finished_ms = sqlite3_column_int64(statement, 5);
	sql_text(statement, 6, row->status, sizeof row->status);
	sql_text(statement, 7, row->code, sizeof row->code);
	row->answer = sql_text_new(statement, 8);
	sql_text(statement, 9, row->agent_id, sizeof row->agent_id);
	sql_text(statement, 10, row->request_id, sizeof row->request_id);
}

json_t *operation_row_json(const struct operation_row *row)
{
	json_t *json = row->answer != NULL ? json_loads(row->answer, 0, NULL) : json_object();
	json_t *subject = row->subject != NULL ? json_loads(row->subject, 0, NULL) : NULL;
	enum status status;
	const char *user_text = status_from_code(row->code, &status) ? status_user_text(status) : NULL;
	json_object_set_new(json, "operation_id", json_string(row->operation_id));
	json_object_set_new(json, "op", json_string(row->op));
	json_object_set_new(json, "sub_id", subject != NULL ? subject : json_null());
	json_object_set_new(json, "created_at", json_integer(row->created_ms / 1000));
	json_object_set_new(json, "status", json_string(row->status));
	if (row->code[0] != '\0')
		json_object_set_new(json, "code", json_string(row->code));
	if (user_text != NULL)
		json_object_set_new(json, "user_message", json_string(user_text));
	if (row->agent_id[0] != '\0')
		json_object_set_new(json, "agent_id", json_string(row->agent_id));
	if (row->request_id[0] != '\0')
		json_object_set_new(json, "request_id", json_string(row->request_id));
	return json;
}

enum status store_operation_find(sqlite3 *db, void *arg)
{
	struct store_find *find = arg;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT " OPERATION_COLUMNS " FROM operations WHERE operation_id = ?1", "t", find->operation_id);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result = sqlite3_step(statement);
	find->found = result == SQLITE_ROW;
	if (find->found)
		read_operation(statement, &find->row);
	return find->found || result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

static enum status insert_request(sqlite3 *db, const struct request_row *request)
{
	struct bytes hash = bytes_of(request->frame_sha256, sizeof request->frame_sha256);
	return sql_run(db, "INSERT INTO requests(request_id, operation_id, agent_id, created_ms, expires, frame_sha256, frame) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
		"tttiibt", request->request_id, request->operation_id, request->agent_id, request->created_ms, request->expires, &hash, request->frame);
}

enum status store_operation_create(sqlite3 *db, void *arg)
{
	struct store_create *create = arg;
	const struct operation_row *operation = create->operation;
	const struct request_row *request = create->request;
	struct store_find find = { 0 };
	memcpy(find.operation_id, operation->operation_id, UUID_SIZE);
	enum status status = store_operation_find(db, &find);
	if (status != STATUS_OK)
		return status;
	if (find.found) {
		create->exists = true;
		create->existing = find.row;
		return STATUS_OK;
	}
	struct bytes content = bytes_of(operation->content, sizeof operation->content);
	status = sql_run(db, "INSERT INTO operations(" OPERATION_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)", "tttbiittttt",
		operation->operation_id, operation->op, operation->subject, &content, operation->created_ms, operation->finished_ms, operation->status,
		operation->code, operation->answer, operation->agent_id, operation->request_id);
	return status == STATUS_OK && request != NULL ? insert_request(db, request) : status;
}

enum status store_request_add(sqlite3 *db, void *arg)
{
	const struct request_row *request = arg;
	enum status status = sql_run(db, "UPDATE operations SET agent_id = ?2, request_id = ?3 WHERE operation_id = ?1 AND finished_ms = 0", "ttt",
		request->operation_id, request->agent_id, request->request_id);
	if (status != STATUS_OK)
		return status;
	return sqlite3_changes(db) == 1 ? insert_request(db, request) : STATUS_LOCAL_INPUT;
}

static enum status request_is_known(sqlite3 *db, struct store_finish *finish)
{
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT operation_id FROM requests WHERE request_id = ?1 AND agent_id = ?2", "tt",
		finish->request_id, finish->agent_id);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result = sqlite3_step(statement);
	finish->known = result == SQLITE_ROW;
	if (finish->known)
		sql_text(statement, 0, finish->operation_id, UUID_SIZE);
	return finish->known || result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

enum status store_operation_finish(sqlite3 *db, void *arg)
{
	struct store_finish *finish = arg;
	bool agents_word = finish->request_id[0] != '\0';
	finish->changed = false;
	finish->known = !agents_word;
	if (agents_word) {
		enum status status = request_is_known(db, finish);
		if (status != STATUS_OK || !finish->known)
			return status;
	}
	/* The first final outcome stands; only the agent's own word replaces "nobody answered". Where another agent has been asked since, an earlier one's
	 * failure says nothing about the operation, but its success does. */
	enum status status = sql_run(db,
		"UPDATE operations SET status = ?2, code = ?3, answer = ?4, finished_ms = ?5, agent_id = CASE WHEN ?6 = '' THEN agent_id ELSE ?6 END,"
		" request_id = CASE WHEN ?7 = '' THEN request_id ELSE ?7 END"
		" WHERE operation_id = ?1 AND (finished_ms = 0 OR (code = 'service.no_answer' AND ?7 <> '' AND ?5 <> 0))"
		" AND (?7 = '' OR ?7 = request_id OR ?2 IN ('applied', 'answered'))", "ttttitt",
		finish->operation_id, finish->status, finish->code, finish->answer, finish->final ? finish->now_ms : INT64_C(0), finish->agent_id, finish->request_id);
	finish->changed = status == STATUS_OK && sqlite3_changes(db) == 1;
	if (status == STATUS_OK && finish->final)
		status = sql_run(db, "UPDATE requests SET frame = NULL WHERE operation_id = ?1 AND (?3 OR request_id = ?2)", "tti", finish->operation_id, finish->request_id,
			(int64_t)finish->changed);
	return status;
}

#define FORGOTTEN "SELECT operation_id FROM operations WHERE finished_ms <> 0 AND created_ms < ?1 ORDER BY created_ms LIMIT 1000"

enum status store_operations_forget(sqlite3 *db, void *arg)
{
	int64_t before = *(const int64_t *)arg;
	enum status status = sql_run(db, "DELETE FROM requests WHERE operation_id IN (" FORGOTTEN ")", "i", before);
	return status == STATUS_OK ? sql_run(db, "DELETE FROM operations WHERE operation_id IN (" FORGOTTEN ")", "i", before) : status;
}

enum status store_operations(sqlite3 *db, void *arg)
{
	struct operation_rows *rows = arg;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT " OPERATION_COLUMNS " FROM operations ORDER BY created_ms DESC LIMIT ?1", "i", rows->limit);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result;
	while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
		struct operation_row *items = reallocarray(rows->items, rows->count + 1, sizeof *items);
		if (items == NULL)
			return STATUS_AGENT_INTERNAL;
		rows->items = items;
		items[rows->count] = (struct operation_row){ 0 };
		read_operation(statement, &items[rows->count++]);
	}
	return result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

enum status store_operations_open(sqlite3 *db, void *arg)
{
	struct open_operations *rows = arg;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db,
		"SELECT o.operation_id, o.op, o.subject, o.content, o.created_ms, o.finished_ms, o.status, o.code, o.answer, o.agent_id, o.request_id,"
		" r.request_id, r.agent_id, r.created_ms, r.expires, r.frame_sha256, r.frame"
		" FROM operations o JOIN requests r ON r.request_id = o.request_id WHERE o.finished_ms = 0 ORDER BY o.created_ms", "");
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result;
	while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
		struct open_operation *items = reallocarray(rows->items, rows->count + 1, sizeof *items);
		if (items == NULL)
			return STATUS_AGENT_INTERNAL;
		rows->items = items;
		struct open_operation *open = &items[rows->count++];
		*open = (struct open_operation){ 0 };
		read_operation(statement, &open->operation);
		memcpy(open->request.operation_id, open->operation.operation_id, UUID_SIZE);
		sql_text(statement, 11, open->request.request_id, UUID_SIZE);
		sql_text(statement, 12, open->request.agent_id, UUID_SIZE);
		open->request.created_ms = sqlite3_column_int64(statement, 13);
		open->request.expires = sqlite3_column_int64(statement, 14);
		sql_blob(statement, 15, open->request.frame_sha256, 32);
		open->request.frame = sql_text_new(statement, 16);
	}
	return result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}
