#include "service/store.h"

#include <stdio.h>
#include <string.h>

#include "service/sql.h"

#define STORE_APPLICATION_ID 0x77627376 /* "wbsv" */
#define STORE_VERSION 5

static const char *const migrations[STORE_VERSION] = {
	"CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE agents(agent_id TEXT PRIMARY KEY, name TEXT NOT NULL, signing_key TEXT NOT NULL UNIQUE, decryption_key TEXT NOT NULL UNIQUE,"
	" enrolled_at INTEGER NOT NULL, revoked_at INTEGER NOT NULL DEFAULT 0, last_seen INTEGER NOT NULL DEFAULT 0, software TEXT) STRICT;"
	"CREATE TABLE tickets(hash BLOB PRIMARY KEY, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, used_at INTEGER NOT NULL DEFAULT 0,"
	" agent_id TEXT) STRICT, WITHOUT ROWID;"
	"CREATE TABLE api_keys(name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, created_at INTEGER NOT NULL, revoked_at INTEGER NOT NULL DEFAULT 0) STRICT;"
	"CREATE TABLE operations(operation_id TEXT PRIMARY KEY, op TEXT NOT NULL, subject TEXT NOT NULL, content BLOB NOT NULL, created_ms INTEGER NOT NULL,"
	" finished_ms INTEGER NOT NULL DEFAULT 0, status TEXT NOT NULL, code TEXT NOT NULL DEFAULT '', answer TEXT, agent_id TEXT NOT NULL DEFAULT '',"
	" request_id TEXT NOT NULL DEFAULT '') STRICT;"
	"CREATE INDEX operations_created ON operations(created_ms);"
	"CREATE INDEX operations_open ON operations(created_ms) WHERE finished_ms = 0;"
	"CREATE TABLE requests(request_id TEXT PRIMARY KEY, operation_id TEXT NOT NULL REFERENCES operations(operation_id), agent_id TEXT NOT NULL,"
	" created_ms INTEGER NOT NULL, expires INTEGER NOT NULL, frame_sha256 BLOB NOT NULL, frame TEXT) STRICT;"
	"CREATE INDEX requests_operation ON requests(operation_id);",
	/* A request's last word: '' while it has none, 'unsent' where it needs none. The old hashes were made over the passwords too. */
	"ALTER TABLE requests ADD COLUMN status TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE requests ADD COLUMN code TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE requests ADD COLUMN answer TEXT;"
	"UPDATE requests SET status = 'unsent' WHERE frame IS NULL;"
	"ALTER TABLE operations ADD COLUMN secret_key BLOB;"
	"ALTER TABLE operations ADD COLUMN secret_hash BLOB;"
	"UPDATE operations SET content = zeroblob(32);"
	"ALTER TABLE agents ADD COLUMN boot INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE agents ADD COLUMN instance_id TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE agents ADD COLUMN clone_seen_at INTEGER NOT NULL DEFAULT 0;",
	/* For the command line, which cannot ask the service. */
	"ALTER TABLE agents ADD COLUMN connected INTEGER NOT NULL DEFAULT 0;",
	/* What an agent had before it replaced it: the public signing key as a JWK, NULL where that stayed, and the thumbprint of the decryption key, likewise. */
	"CREATE TABLE former_keys(agent_id TEXT NOT NULL REFERENCES agents(agent_id), replaced_at INTEGER NOT NULL, signing_key TEXT UNIQUE, decryption_key TEXT) STRICT;"
	"CREATE INDEX former_keys_agent ON former_keys(agent_id, replaced_at);",
	/* Who else may be asked, also after a restart. */
	"CREATE TABLE spares(operation_id TEXT NOT NULL REFERENCES operations(operation_id), place INTEGER NOT NULL, agent_id TEXT NOT NULL, jwe TEXT,"
	" PRIMARY KEY(operation_id, place)) STRICT, WITHOUT ROWID;"
	"ALTER TABLE agents ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;",
};

/* A flag of the connection, not of the file: removed frames are overwritten. */
static enum status prepare_connection(sqlite3 *db, void *arg)
{
	return sql_run(db, "PRAGMA secure_delete=ON", "");
}

enum status store_open(struct event_base *base, const char *directory, struct database **ret_database, char **ret_why)
{
	AUTO_FREE char *path = NULL;
	if (asprintf(&path, "%s/store.sqlite", directory) < 0)
		return STATUS_AGENT_INTERNAL;
	const struct database_options options = {
		.path = path, .application_id = STORE_APPLICATION_ID, .user_version = STORE_VERSION, .migrations = migrations,
	};
	enum status status = database_open(base, &options, ret_database, ret_why);
	if (status == STATUS_OK) {
		status = database_run(*ret_database, prepare_connection, NULL);
		if (status != STATUS_OK) {
			database_close(*ret_database);
			*ret_database = NULL;
		}
	}
	return status;
}

void agent_row_clear(struct agent_row *row)
{
	free(row->name);
	free(row->software);
	free(row->signing_key);
	free(row->decryption_key);
	free(row->former_keys);
	*row = (struct agent_row){ 0 };
}

void agent_rows_clear(struct agent_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		agent_row_clear(&rows->items[i]);
	free(rows->items);
	*rows = (struct agent_rows){ 0 };
}

/* A zeroed element more; NULL when memory is out. */
static void *grow(void *items_pointer, size_t *count, size_t size)
{
	void **items = items_pointer;
	char *larger = reallocarray(*items, *count + 1, size);
	if (larger == NULL)
		return NULL;
	*items = larger;
	memset(larger + *count * size, 0, size);
	return larger + (*count)++ * size;
}

enum status store_agents(sqlite3 *db, void *arg)
{
	struct agent_rows *rows = arg;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db,
		"SELECT agent_id, name, software, signing_key, decryption_key, enrolled_at, revoked_at, last_seen, boot, instance_id,"
		" clone_seen_at, connected, (SELECT json_group_array(json_object('replaced_at', replaced_at, 'signing_key', json(signing_key), 'decryption_key', decryption_key))"
		" FROM (SELECT * FROM former_keys WHERE former_keys.agent_id = agents.agent_id ORDER BY replaced_at DESC, rowid DESC LIMIT 16)), ended FROM agents ORDER BY name, agent_id", "");
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result;
	while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
		struct agent_row *row = grow(&rows->items, &rows->count, sizeof *row);
		if (row == NULL)
			return STATUS_AGENT_INTERNAL;
		sql_text(statement, 0, row->agent_id, sizeof row->agent_id);
		row->name = sql_text_new(statement, 1);
		row->software = sql_text_new(statement, 2);
		row->signing_key = sql_text_new(statement, 3);
		row->decryption_key = sql_text_new(statement, 4);
		row->enrolled_at = sqlite3_column_int64(statement, 5);
		row->revoked_at = sqlite3_column_int64(statement, 6);
		row->last_seen = sqlite3_column_int64(statement, 7);
		row->boot = sqlite3_column_int64(statement, 8);
		sql_text(statement, 9, row->instance_id, sizeof row->instance_id);
		row->clone_seen_at = sqlite3_column_int64(statement, 10);
		row->connected = sqlite3_column_int64(statement, 11) != 0;
		row->former_keys = sql_text_new(statement, 12);
		row->ended = sqlite3_column_int64(statement, 13) != 0;
	}
	return result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

enum status store_enroll(sqlite3 *db, void *arg)
{
	struct store_enrollment *enrollment = arg;
	struct bytes hash = bytes_of(enrollment->ticket, 32);
	enrollment->accepted = false;
	/* One statement decides: of two that come at once only one changes the row. */
	enum status status = sql_run(db, "UPDATE tickets SET used_at = ?2, agent_id = ?3 WHERE hash = ?1 AND used_at = 0 AND expires_at >= ?2", "bit",
		&hash, enrollment->now, enrollment->agent.agent_id);
	if (status != STATUS_OK || sqlite3_changes(db) != 1)
		return status;
	const struct agent_row *row = &enrollment->agent;
	status = sql_run(db, "INSERT INTO agents(agent_id, name, signing_key, decryption_key, enrolled_at) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
		"tttti", row->agent_id, row->name, row->signing_key, row->decryption_key, row->enrolled_at);
	enrollment->accepted = status == STATUS_OK && sqlite3_changes(db) == 1;
	return status;
}

static enum status found(sqlite3 *db, struct store_agent_change *change, enum status status)
{
	change->found = status == STATUS_OK && sqlite3_changes(db) == 1;
	return status;
}

enum status store_agent_revoke(sqlite3 *db, void *arg)
{
	struct store_agent_change *change = arg;
	return found(db, change, sql_run(db, "UPDATE agents SET revoked_at = ?2 WHERE agent_id = ?1 AND revoked_at = 0", "ti", change->agent_id, change->now));
}

enum status store_agent_seen(sqlite3 *db, void *arg)
{
	struct store_agent_change *change = arg;
	return found(db, change, sql_run(db, "UPDATE agents SET last_seen = ?2, software = coalesce(?3, software), boot = ?4, instance_id = ?5,"
		" connected = ?6, ended = ?7 WHERE agent_id = ?1", "tititii", change->agent_id, change->now, change->software, change->boot, change->instance_id,
		(int64_t)change->connected, (int64_t)change->ended));
}

enum status store_agent_boot(sqlite3 *db, void *arg)
{
	struct store_agent_change *change = arg;
	return found(db, change, sql_run(db, "UPDATE agents SET boot = ?2, instance_id = ?3 WHERE agent_id = ?1", "tit", change->agent_id, change->boot, change->instance_id));
}

#define REKEYS_AN_HOUR 16 /* an agent does four at most */

/* NULL where the key is not replaced. */
static const char *replaced(const char *old, const char *fresh)
{
	return fresh != NULL ? old : NULL;
}

enum status store_agent_rekey(sqlite3 *db, void *arg)
{
	struct store_agent_rekey *rekey = arg;
	rekey->accepted = false;
	/* One statement decides: neither a key that some agent has or had, nor the keys of one that is revoked, stopped or changed meanwhile. */
	enum status status = sql_run(db, "UPDATE OR IGNORE agents SET signing_key = coalesce(?3, signing_key), decryption_key = coalesce(?4, decryption_key)"
		" WHERE agent_id = ?1 AND signing_key = ?2 AND revoked_at = 0 AND clone_seen_at = 0 AND NOT EXISTS (SELECT 1 FROM former_keys WHERE signing_key = ?3)"
		" AND (SELECT count(*) FROM former_keys WHERE agent_id = ?1 AND replaced_at > ?5) < ?6", "ttttii",
		rekey->agent_id, rekey->old_signing_key, rekey->signing_key, rekey->decryption_key, rekey->now - 3600, (int64_t)REKEYS_AN_HOUR);
	if (status != STATUS_OK || sqlite3_changes(db) != 1)
		return status;
	status = sql_run(db, "INSERT INTO former_keys(agent_id, replaced_at, signing_key, decryption_key) VALUES (?1, ?2, ?3, ?4)", "titt", rekey->agent_id, rekey->now,
		replaced(rekey->old_signing_key, rekey->signing_key), replaced(rekey->old_decryption_kid, rekey->decryption_key));
	rekey->accepted = status == STATUS_OK;
	return status;
}

#define SAME_BOOT_MS 2000 /* the clock is steered a little */

/* `meta` has when the host of the last start had booted, and its name. */
static bool runs_on(sqlite3 *db, const struct store_start *start)
{
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'host'", "");
	if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW)
		return false;
	char *name;
	const char *text = (const char *)sqlite3_column_text(statement, 0);
	int64_t apart = strtoll(text, &name, 10) - start->booted_ms;
	return apart >= -SAME_BOOT_MS && apart <= SAME_BOOT_MS && *name == ' ' && strcmp(name + 1, start->host) == 0;
}

enum status store_agents_gone(sqlite3 *db, void *arg)
{
	const struct store_start *start = arg;
	bool same = runs_on(db, start);
	AUTO_FREE char *text = NULL;
	if (asprintf(&text, "%lld %s", (long long)start->booted_ms, start->host) < 0)
		return STATUS_AGENT_INTERNAL;
	struct bytes host = bytes_of_string(text);
	enum status status = sql_run(db, "INSERT INTO meta(name, value) VALUES ('host', ?1) ON CONFLICT(name) DO UPDATE SET value = ?1", "b", &host);
	return status == STATUS_OK ? sql_run(db, "UPDATE agents SET ended = ?1 AND (ended OR connected), connected = 0 WHERE connected OR ended", "i", (int64_t)same) : status;
}

enum status store_agent_clone(sqlite3 *db, void *arg)
{
	struct store_agent_change *change = arg;
	return found(db, change, sql_run(db, "UPDATE agents SET clone_seen_at = ?2 WHERE agent_id = ?1", "ti", change->agent_id, change->now));
}

enum status store_agent_release(sqlite3 *db, void *arg)
{
	struct store_agent_change *change = arg;
	return found(db, change, sql_run(db, "UPDATE agents SET clone_seen_at = 0, boot = 0, instance_id = '' WHERE agent_id = ?1 AND clone_seen_at <> 0", "t",
		change->agent_id));
}

enum status store_ticket_add(sqlite3 *db, void *arg)
{
	const struct store_ticket *ticket = arg;
	struct bytes hash = bytes_of(ticket->hash, 32);
	enum status status = sql_run(db, "DELETE FROM tickets WHERE expires_at < ?1", "i", ticket->now - 30 * 86400);
	if (status == STATUS_OK)
		status = sql_run(db, "INSERT INTO tickets(hash, created_at, expires_at) VALUES (?1, ?2, ?3)", "bii", &hash, ticket->now, ticket->expires);
	return status;
}

enum status store_tickets(sqlite3 *db, void *arg)
{
	struct ticket_hashes *hashes = arg;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT hash FROM tickets WHERE used_at = 0 AND expires_at >= ?1 ORDER BY created_at DESC LIMIT 1000", "i",
		hashes->now);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result;
	while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
		uint8_t *hash = grow(&hashes->items, &hashes->count, 32);
		if (hash == NULL)
			return STATUS_AGENT_INTERNAL;
		sql_blob(statement, 0, hash, 32);
	}
	return result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

enum status store_api_key_add(sqlite3 *db, void *arg)
{
	struct store_api_key *key = arg;
	struct bytes hash = bytes_of(key->hash, 32);
	enum status status = sql_run(db, "INSERT INTO api_keys(name, hash, created_at) VALUES (?1, ?2, ?3) ON CONFLICT(name) DO NOTHING", "tbi",
		key->name, &hash, key->now);
	key->found = status == STATUS_OK && sqlite3_changes(db) == 1;
	return status;
}

enum status store_api_key_revoke(sqlite3 *db, void *arg)
{
	struct store_api_key *key = arg;
	enum status status = sql_run(db, "UPDATE api_keys SET revoked_at = ?2 WHERE name = ?1 AND revoked_at = 0", "ti", key->name, key->now);
	key->found = status == STATUS_OK && sqlite3_changes(db) == 1;
	return status;
}

enum status store_api_key_check(sqlite3 *db, void *arg)
{
	struct store_api_key *key = arg;
	struct bytes hash = bytes_of(key->hash, 32);
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT 1 FROM api_keys WHERE hash = ?1 AND revoked_at = 0", "b", &hash);
	if (statement == NULL)
		return STATUS_AGENT_JOURNAL;
	int result = sqlite3_step(statement);
	key->found = result == SQLITE_ROW;
	return result == SQLITE_ROW || result == SQLITE_DONE ? STATUS_OK : STATUS_AGENT_JOURNAL;
}

enum status store_api_keys(sqlite3 *db, void *arg)
{
	json_t **ret_array = arg;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT name, created_at, revoked_at FROM api_keys ORDER BY name", "");
	json_t *array = json_array();
	int result = SQLITE_ERROR;
	while (statement != NULL && array != NULL && (result = sqlite3_step(statement)) == SQLITE_ROW) {
		int64_t revoked = sqlite3_column_int64(statement, 2);
		json_t *row = json_pack("{s:s, s:I}", "name", (const char *)sqlite3_column_text(statement, 0), "created_at", (json_int_t)sqlite3_column_int64(statement, 1));
		if (revoked != 0)
			json_object_set_new(row, "revoked_at", json_integer(revoked));
		json_array_append_new(array, row);
	}
	if (result != SQLITE_DONE) {
		json_decref(array);
		return STATUS_AGENT_JOURNAL;
	}
	*ret_array = array;
	return STATUS_OK;
}

enum status store_version(sqlite3 *db, void *arg)
{
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "PRAGMA data_version", "");
	if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW)
		return STATUS_AGENT_JOURNAL;
	*(int64_t *)arg = sqlite3_column_int64(statement, 0);
	return STATUS_OK;
}

enum status store_hash_key(sqlite3 *db, void *arg)
{
	uint8_t fresh[32];
	random_bytes(fresh, sizeof fresh);
	struct bytes blob = bytes_of(fresh, sizeof fresh);
	enum status status = sql_run(db, "INSERT INTO meta(name, value) VALUES ('content_key', ?1) ON CONFLICT DO NOTHING", "b", &blob);
	if (status != STATUS_OK)
		return status;
	AUTO_STATEMENT sqlite3_stmt *statement = sql_prepare(db, "SELECT value FROM meta WHERE name = 'content_key'", "");
	if (statement == NULL || sqlite3_step(statement) != SQLITE_ROW || sqlite3_column_bytes(statement, 0) != 32)
		return STATUS_AGENT_JOURNAL;
	sql_blob(statement, 0, arg, 32);
	return STATUS_OK;
}
