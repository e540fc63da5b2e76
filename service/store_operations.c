/* The operations' half of service/store.h. */
#include <string.h>

#include "base/secret.h"
#include "service/request.h"
#include "service/sql.h"
#include "service/store.h"

#define OPERATION_COLUMNS "operation_id, op, subject, content, created_ms, finished_ms, status, code, answer, agent_id, request_id, secret_key, secret_hash"
#define FORGET_SECRET "secret_key = NULL, secret_hash = NULL"

void operation_row_clear(struct operation_row *row)
{
	free(row->subject);
	free(row->answer);
	wipe(row->secret_key, sizeof row->secret_key);
	wipe(row->secret_hash, sizeof row->secret_hash);
	*row = (struct operation_row){ 0 };
}

void request_row_clear(struct request_row *row)
{
	free(row->frame);
	*row = (struct request_row){ 0 };
}

static void clear_spares(struct spare_row spares[MAX_SPARES])
{
	for (size_t i = 0; i < MAX_SPARES; i++) {
		free(spares[i].jwe);
		spares[i] = (struct spare_row){ 0 };
	}
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
		clear_spares(rows->items[i].spares);
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
	row->has_secret = sqlite3_column_type(statement, 11) != SQLITE_NULL;
	sql_blob(statement, 11, row->secret_key, sizeof row->secret_key);
	sql_blob(statement, 12, row->secret_hash, sizeof row->secret_hash);
}

/* The columns of the requests table from `column` on: request_id, agent_id, created_ms, expires, frame_sha256, frame. */
static void read_request(sqlite3_stmt *statement, int column, struct request_row *row)
{
	sql_text(statement, column, row->request_id, UUID_SIZE);
	sql_text(statement, column + 1, row->agent_id, UUID_SIZE);
	row->created_ms = sqlite3_column_int64(statement, column + 2);
	row->expires = sqlite3_column_int64(statement, column + 3);
	sql_blob(statement, column + 4, row->frame_sha256, sizeof row->frame_sha256);
	row->frame = sql_text_new(statement, column + 5);
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

static enum status insert_spares(sqlite3 *db, const struct store_create *create)
{
	enum status status = STATUS_OK;
	for (size_t i = 0; status == STATUS_OK && i < MAX_SPARES; i++)
		if (create->spares[i].agent_id[0] != '\0')
			status = sql_run(db, "INSERT INTO spares(operation_id, place, agent_id, jwe) VALUES (?1, ?2, ?3, ?4)", "titt", create->operation->operation_id, (int64_t)i,
				create->spares[i].agent_id, create->spares[i].jwe);
	return status;
}

/* Nobody else is asked any more. */
static enum status forget_spares(sqlite3 *db, const char *operation_id)
{
	return sql_run(db, "DELETE FROM spares WHERE operation_id = ?1", "t", operation_id);
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
	struct bytes content = bytes_of(operation->content, sizeof operation->content), key = bytes_of(operation->secret_key, 32), hash = bytes_of(operation->secret_hash, 32);
	bool compare = operation->has_secret && operation->finished_ms == 0;
	status = sql_run(db, "INSERT INTO operations(" OPERATION_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)", "tttbiitttttbb",
		operation->operation_id, operation->op, operation->subject, &content, operation->created_ms, operation->finished_ms, operation->status,
		operation->code, operation->answer, operation->agent_id, operation->request_id, compare ? &key : NULL, compare ? &hash : NULL);
	if (status == STATUS_OK && request != NULL)
		status = insert_request(db, request);
	return status == STATUS_OK ? insert_spares(db, create) : status;
}

enum status store_request_add(sqlite3 *db, void *arg)
{
	const struct store_attempt *attempt = arg;
	const struct request_row *request = attempt->request;
	/* What no agent can have needs no last word. */
	enum status status = attempt->former_unsent ? sql_run(db,
		"UPDATE requests SET status = 'unsent', frame = NULL WHERE request_id = (SELECT request_id FROM operations WHERE operation_id = ?1)", "t",
		request->operation_id) : STATUS_OK;
	if (status == STATUS_OK)
		status = sql_run(db, "UPDATE operations SET agent_id = ?2, request_id = ?3 WHERE operation_id = ?1 AND finished_ms = 0", "ttt",
			request->operation_id, request->agent_id, request->request_id);
	if (status == STATUS_OK && sqlite3_changes(db) != 1)
		status = STATUS_LOCAL_INPUT;
	if (status == STATUS_OK)
		status = sql_run(db, "DELETE FROM spares WHERE operation_id = ?1 AND agent_id = ?2", "tt", request->operation_id, request->agent_id);
	return status == STATUS_OK ? insert_request(db, request) : status;
}

/* The final word ---------------------------------------------------------------------------------------------------------------------- */

/* What stands before this word is recorded. */
struct standing {
	bool writes;                        /* not an operation that only asks */
	bool finished, applied, no_answer;
	bool current;                       /* the operation is bound to this request */
};

static bool is(sqlite3_stmt *statement, int column, const char *text)
{
	const char *found = (const char *)sqlite3_column_text(statement, column);
	return found != NULL && strcmp(found, text) == 0;
}

static enum status look(sqlite3 *db, struct store_finish *finish, struct standing *ret_standing)
{
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT o.operation_id, o.op, o.finished_ms, o.status, o.code, o.request_id FROM operations o"
		" WHERE operation_id = CASE WHEN ?2 = '' THEN ?1 ELSE (SELECT operation_id FROM requests WHERE request_id = ?2 AND agent_id = ?3) END", "ttt",
		finish->operation_id, finish->request_id, finish->agent_id);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result = sqlite3_step(statement);
	finish->known = result == SQLITE_ROW;
	if (!finish->known)
		return result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
	sql_text(statement, 0, finish->operation_id, UUID_SIZE);
	enum operation op;
	const char *name = (const char *)sqlite3_column_text(statement, 1);
	bool writes = name == NULL || !operation_from_name(name, &op) || request_writes(op);
	*ret_standing = (struct standing){ writes, sqlite3_column_int64(statement, 2) != 0, is(statement, 3, "applied"),
		is(statement, 4, "service.no_answer"), is(statement, 5, finish->request_id) };
	finish->mismatch = strcmp(finish->status, writes ? "answered" : "applied") == 0;
	return STATUS_OK;
}

static enum status settle(sqlite3 *db, struct store_finish *finish)
{
	enum status status = sql_run(db, "UPDATE operations SET status = ?2, code = ?3, answer = ?4 WHERE operation_id = ?1 AND finished_ms = 0 AND request_id = ?5", "ttttt",
		finish->operation_id, finish->status, finish->code, finish->answer, finish->request_id);
	finish->changed = status == STATUS_OK && sqlite3_changes(db) == 1;
	return status;
}

/* This word is the operation's. */
static enum status conclude(sqlite3 *db, struct store_finish *finish)
{
	finish->changed = true;
	enum status status = sql_run(db,
		"UPDATE operations SET status = ?2, code = ?3, answer = ?4, finished_ms = ?5, agent_id = CASE WHEN ?6 = '' THEN agent_id ELSE ?6 END,"
		" request_id = CASE WHEN ?7 = '' THEN request_id ELSE ?7 END, " FORGET_SECRET " WHERE operation_id = ?1", "ttttitt",
		finish->operation_id, finish->status, finish->code, finish->answer, finish->now_ms, finish->agent_id, finish->request_id);
	if (status == STATUS_OK)
		status = sql_run(db, "UPDATE requests SET frame = NULL WHERE operation_id = ?1", "t", finish->operation_id);
	return status == STATUS_OK ? forget_spares(db, finish->operation_id) : status;
}

/* Every attempt has had its last word, and none is `applied`: an answer stands; where one of a write does not know, nobody knows; else the latest attempt's is the operation's. */
static enum status conclude_from_all(sqlite3 *db, struct store_finish *finish)
{
	finish->changed = true;
	enum status status = sql_run(db, "UPDATE operations SET finished_ms = ?2, " FORGET_SECRET ", (status, code, answer, agent_id, request_id) = (SELECT status, code, answer, agent_id,"
		" request_id FROM requests WHERE operation_id = ?1 AND status NOT IN ('', 'unsent')"
		" ORDER BY CASE status WHEN 'answered' THEN 0 WHEN 'unknown' THEN 1 ELSE 2 END, created_ms DESC, rowid DESC LIMIT 1) WHERE operation_id = ?1", "ti",
		finish->operation_id, finish->now_ms);
	return status == STATUS_OK ? forget_spares(db, finish->operation_id) : status;
}

/* A request whose last word is still to come. Of what only asks the latest attempt alone matters: it changes nothing. */
static enum status find_open(sqlite3 *db, const struct store_finish *finish, const struct standing *standing, bool *ret_found, struct request_row *ret_request)
{
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT request_id, agent_id, created_ms, expires, frame_sha256, frame FROM requests"
		" WHERE operation_id = ?1 AND status = '' AND (NOT ?2 OR request_id = (SELECT request_id FROM operations WHERE operation_id = ?1))"
		" ORDER BY created_ms DESC, rowid DESC LIMIT 1", "ti", finish->operation_id, (int64_t)!standing->writes);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result = sqlite3_step(statement);
	*ret_found = result == SQLITE_ROW;
	if (*ret_found) {
		read_request(statement, 0, ret_request);
		memcpy(ret_request->operation_id, finish->operation_id, UUID_SIZE);
	}
	return *ret_found || result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

/* An earlier attempt may have changed the password: this word is kept beside it, and the operation waits for that one. */
static enum status wait_for(sqlite3 *db, struct store_finish *finish)
{
	finish->waits = true;
	enum status status = sql_run(db, "UPDATE operations SET status = 'settling', code = 'settling', answer = NULL, agent_id = ?2, request_id = ?3 WHERE operation_id = ?1", "ttt",
		finish->operation_id, finish->open.agent_id, finish->open.request_id);
	return status == STATUS_OK ? forget_spares(db, finish->operation_id) : status;
}

static enum status record(sqlite3 *db, struct store_finish *finish, const struct standing *standing)
{
	enum status status = sql_run(db, "UPDATE requests SET status = ?2, code = ?3, answer = ?4, frame = NULL WHERE request_id = ?1 AND status IN ('', 'unsent')", "tttt",
		finish->request_id, finish->status, finish->code, finish->answer);
	if (status != STATUS_OK)
		return status;
	if (strcmp(finish->status, "applied") == 0)
		return standing->applied ? STATUS_OK : conclude(db, finish);
	if (standing->finished && !standing->no_answer)
		return STATUS_OK;
	bool found = false;
	struct request_row open = { 0 };
	if (strcmp(finish->status, "answered") != 0)
		status = find_open(db, finish, standing, &found, &open);
	if (status == STATUS_OK && !found)
		return conclude_from_all(db, finish);
	if (status == STATUS_OK && standing->current && !standing->finished) {
		finish->open = open;
		return wait_for(db, finish);
	}
	request_row_clear(&open);
	return status;
}

void store_finish_clear(struct store_finish *finish)
{
	free(finish->answer);
	request_row_clear(&finish->open);
	operation_row_clear(&finish->row);
}

enum status store_operation_finish(sqlite3 *db, void *arg)
{
	struct store_finish *finish = arg;
	struct standing standing = { 0 };
	finish->changed = finish->mismatch = finish->waits = false;
	enum status status = look(db, finish, &standing);
	if (status != STATUS_OK || !finish->known || finish->mismatch)
		return status;
	if (!finish->final)
		return settle(db, finish);
	if (finish->request_id[0] != '\0')
		status = record(db, finish, &standing);
	else if (!standing.finished)
		status = conclude(db, finish);
	struct store_find find = { 0 };
	memcpy(find.operation_id, finish->operation_id, UUID_SIZE);
	if (status == STATUS_OK && (finish->changed || finish->waits))
		status = store_operation_find(db, &find);
	finish->row = find.row;
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

static enum status read_spares(sqlite3 *db, struct open_operation *open)
{
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT agent_id, jwe FROM spares WHERE operation_id = ?1 ORDER BY place", "t", open->operation.operation_id);
	int result = SQLITE_ERROR;
	for (size_t i = 0; statement != NULL && (result = sqlite3_step(statement)) == SQLITE_ROW && i < MAX_SPARES; i++) {
		sql_text(statement, 0, open->spares[i].agent_id, UUID_SIZE);
		open->spares[i].jwe = sql_text_new(statement, 1);
	}
	return result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

enum status store_operations_open(sqlite3 *db, void *arg)
{
	struct open_operations *rows = arg;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db,
		"SELECT o.operation_id, o.op, o.subject, o.content, o.created_ms, o.finished_ms, o.status, o.code, o.answer, o.agent_id, o.request_id,"
		" o.secret_key, o.secret_hash, r.request_id, r.agent_id, r.created_ms, r.expires, r.frame_sha256, r.frame"
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
		read_request(statement, 13, &open->request);
	}
	enum status status = result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
	for (size_t i = 0; status == STATUS_OK && i < rows->count; i++)
		status = read_spares(db, &rows->items[i]);
	return status;
}
