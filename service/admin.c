#include "service/admin.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/disk.h"
#include "proto/messages.h"
#include "service/keys.h"
#include "service/store.h"

static int64_t now_s(void)
{
	return clock_now_ms() / 1000;
}

int admin_exit_code(enum status status)
{
	static const struct { enum status status; int code; } codes[] = {
		{ STATUS_OK, EX_OK }, { STATUS_LOCAL_CONFIG, EX_CONFIG }, { STATUS_LOCAL_TRUST, EX_CONFIG }, { STATUS_LOCAL_INPUT, EX_DATAERR },
		{ STATUS_LOCAL_PERMISSION, EX_NOPERM }, { STATUS_LOCAL_SYSTEM, EX_OSERR }, { STATUS_LOCAL_DAMAGED, EX_DATAERR },
		{ STATUS_AGENT_JOURNAL, EX_IOERR },
	};
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (codes[i].status == status)
			return codes[i].code;
	return EX_SOFTWARE;
}

static int complain(enum status status, const char *why)
{
	fprintf(stderr, "reset-service: %s\n", why != NULL ? why : status_admin_text(status));
	return admin_exit_code(status);
}

static int usage(const char *text)
{
	fprintf(stderr, "usage: reset-service %s\n", text);
	return EX_USAGE;
}

/* The one argument that is a UUID; NULL where it is not, which has been said then. */
static const char *uuid_argument(const struct admin_options *options, const char *what, const char *listed_by)
{
	const char *text = options->arguments[0];
	if (text == NULL)
		fprintf(stderr, "reset-service: the id of the %s is missing\n", what);
	else if (options->arguments[1] != NULL)
		fprintf(stderr, "reset-service: one %s at a time, but there is '%s' too\n", what, options->arguments[1]);
	else if (!uuid_valid(text))
		fprintf(stderr, "reset-service: '%s' is no id of an %s: it should be a UUID in lower case, as 'reset-service %s' lists it\n", text, what, listed_by);
	else
		return text;
	return NULL;
}

/* "3 minutes ago" */
static void format_age(int64_t seconds, char *out, size_t capacity)
{
	static const struct { int64_t seconds; const char *unit; } units[] = { { 86400, "day" }, { 3600, "hour" }, { 60, "minute" }, { 1, "second" } };
	snprintf(out, capacity, "just now");
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		int64_t count = seconds / units[i].seconds;
		if (count < 1)
			continue;
		snprintf(out, capacity, "%lld %s%s ago", (long long)count, units[i].unit, count == 1 ? "" : "s");
		return;
	}
}

static int print_json(json_t *take_json)
{
	json_dumpf(take_json, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(take_json);
	return EX_OK;
}

/* One job on the store. */
static enum status on_store(const struct settings *settings, database_job job, void *arg, char **ret_why)
{
	struct database *database;
	char store_path[PATH_MAX];
	snprintf(store_path, sizeof store_path, "%s/store.sqlite", settings->state_directory);
	enum status status = store_open(NULL, settings->state_directory, &database, ret_why);
	if (status != STATUS_OK)
		return status;
	status = database_run(database, job, arg);
	database_close(database);
	char advice[256];
	disk_describe(store_path, advice, sizeof advice);
	return status == STATUS_AGENT_JOURNAL ? status_because(status, ret_why, "%s cannot be read or written%s", store_path, advice) : status;
}

/* Keys ------------------------------------------------------------------------------------------------------------------------------- */

static int show_keys(const struct settings *settings, const struct admin_options *options, bool first)
{
	struct keys keys;
	AUTO_FREE char *why = NULL;
	enum status status = keys_load(settings->state_directory, settings->issuer, now_s(), &keys, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	char expires[CLOCK_TEXT_SIZE];
	clock_format(keys.expires * 1000, expires);
	if (options->json) {
		print_json(json_pack("{s:s, s:s, s:I, s:s}", "root_key", jose_key_id(keys.root), "signing_key", jose_key_id(keys.signing), "version",
			(json_int_t)keys.version, "expires", expires));
	} else {
		printf("root key      %s\nsigning key   %s\nkey set       version %lld, until %s\n", jose_key_id(keys.root), jose_key_id(keys.signing),
			(long long)keys.version, expires);
		if (first)
			printf("\nThe root key is in %s/root.jwk. Agents pin it, and nothing can replace it: copy it to two places\n"
			       "offline, then delete it here. It is needed only for 'reset-service rotate-keys', at least once a year.\n", settings->state_directory);
		else
			printf("\nTell a running service: systemctl reload reset-service\n");
	}
	keys_clear(&keys);
	return EX_OK;
}

int admin_init(const struct settings *settings, const struct admin_options *options)
{
	AUTO_FREE char *why = NULL;
	struct database *database;
	enum status status = keys_init(settings->state_directory, settings->issuer, now_s(), &why);
	if (status == STATUS_OK)
		status = store_open(NULL, settings->state_directory, &database, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	database_close(database);
	return show_keys(settings, options, true);
}

int admin_rotate_keys(const struct settings *settings, const struct admin_options *options)
{
	AUTO_FREE char *why = NULL;
	enum status status = keys_rotate(settings->state_directory, options->root_file, options->drop_old, settings->issuer, now_s(), &why);
	return status == STATUS_OK ? show_keys(settings, options, false) : complain(status, why);
}

/* Tickets and agents ----------------------------------------------------------------------------------------------------------------- */

int admin_ticket(const struct settings *settings, const struct admin_options *options)
{
	struct keys keys;
	AUTO_FREE char *why = NULL;
	enum status status = keys_load(settings->state_directory, settings->issuer, now_s(), &keys, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	char nonce[NONCE_SIZE], ticket[128];
	nonce_random(nonce);
	snprintf(ticket, sizeof ticket, "wbt_%s.%s", nonce, jose_key_id(keys.root));
	keys_clear(&keys);
	struct store_ticket row = { .now = now_s() };
	row.expires = row.now + (options->ttl_ms > 0 ? options->ttl_ms : settings->ticket_lifetime_ms) / 1000;
	sha256(bytes_of_string(ticket), row.hash);
	status = on_store(settings, store_ticket_add, &row, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	char expires[CLOCK_TEXT_SIZE];
	clock_format(row.expires * 1000, expires);
	if (options->json)
		print_json(json_pack("{s:s, s:s}", "ticket", ticket, "expires", expires));
	else
		printf("%s\n", ticket);
	/* Beside the ticket, not in its way: TICKET=$(reset-service ticket). */
	if (!options->json)
		fprintf(stderr, "good for one agent, until %s\n", expires);
	wipe(ticket, sizeof ticket);
	wipe(nonce, sizeof nonce);
	return EX_OK;
}

static const char *thumbprint(const char *jwk_text, char out[JOSE_KID_SIZE])
{
	json_t *jwk = jose_json_parse(bytes_of_string(jwk_text));
	const char *kid = json_string_value(json_object_get(jwk, "kid"));
	snprintf(out, JOSE_KID_SIZE, "%s", kid != NULL ? kid : "?");
	json_decref(jwk);
	return out;
}

/* Thumbprints of what it had before, the newest first. A new reference. */
static json_t *former_keys(const struct agent_row *row)
{
	json_t *rows = row->former_keys != NULL ? jose_json_parse(bytes_of_string(row->former_keys)) : NULL, *entry;
	size_t index;
	json_array_foreach(rows, index, entry) {
		const char *kid = json_string_value(json_object_get(json_object_get(entry, "signing_key"), "kid"));
		json_object_set_new(entry, "signing_key", kid != NULL ? json_string(kid) : json_null());
	}
	return rows != NULL ? rows : json_array();
}

static json_t *agent_json(const struct agent_row *row)
{
	char signing[JOSE_KID_SIZE], decryption[JOSE_KID_SIZE];
	return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:s*, s:o}", "agent_id", row->agent_id, "name", row->name, "signing_key",
		thumbprint(row->signing_key, signing),
		"decryption_key", thumbprint(row->decryption_key, decryption), "enrolled_at", (json_int_t)row->enrolled_at, "revoked_at", (json_int_t)row->revoked_at,
		"last_seen", (json_int_t)row->last_seen, "clone_seen_at", (json_int_t)row->clone_seen_at,
		"connected", row->connected, "software", row->software, "former_keys", former_keys(row));
}

static void print_presence(const struct agent_row *row)
{
	char seen[CLOCK_TEXT_SIZE], age[48];
	if (row->last_seen == 0) {
		printf("  never connected\n");
		return;
	}
	clock_format(row->last_seen * 1000, seen);
	format_age(now_s() - row->last_seen, age, sizeof age);
	if (row->connected)
		printf("  connected       since %s (%s)\n", seen, age);
	else
		printf("  not connected   last seen %s (%s)\n", age, seen);
}

static void print_agent(const struct agent_row *row)
{
	char signing[JOSE_KID_SIZE], decryption[JOSE_KID_SIZE], cloned[CLOCK_TEXT_SIZE];
	printf("%s  %s%s\n", row->agent_id, row->name, row->revoked_at != 0 ? "  (revoked)" : "");
	print_presence(row);
	if (row->software != NULL)
		printf("  software        %s\n", row->software);
	printf("  signing key     %s\n  decryption key  %s\n", thumbprint(row->signing_key, signing), thumbprint(row->decryption_key, decryption));
	json_t *former = former_keys(row);
	if (json_array_size(former) > 0) {
		clock_format(json_integer_value(json_object_get(json_array_get(former, 0), "replaced_at")) * 1000, cloned);
		printf("  keys since      %s; the ones before are in --json\n", cloned);
	}
	json_decref(former);
	if (row->clone_seen_at != 0) {
		clock_format(row->clone_seen_at * 1000, cloned);
		printf("  CLONE SEEN      %s: kept out until 'revoke' or 'release'\n", cloned);
	}
}

int admin_agents(const struct settings *settings, const struct admin_options *options)
{
	struct agent_rows rows = { 0 };
	AUTO_FREE char *why = NULL;
	enum status status = on_store(settings, store_agents, &rows, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	json_t *array = json_array();
	if (rows.count == 0 && !options->json)
		fprintf(stderr, "no agent is enrolled; 'reset-service ticket' lets one in\n");
	for (size_t i = 0; i < rows.count; i++) {
		if (options->json)
			json_array_append_new(array, agent_json(&rows.items[i]));
		else
			print_agent(&rows.items[i]);
	}
	if (options->json)
		print_json(json_incref(array));
	json_decref(array);
	agent_rows_clear(&rows);
	return EX_OK;
}

/* One change to the agent that the arguments name; `ret_agent_id` gets its id. */
static int change_agent(const struct settings *settings, const struct admin_options *options, const char *command, database_job job, const char *not_found,
                        char ret_agent_id[UUID_SIZE])
{
	struct store_agent_change change = { .now = now_s() };
	AUTO_FREE char *why = NULL;
	const char *given = uuid_argument(options, "agent", "agents");
	if (given == NULL)
		return usage(command);
	memcpy(change.agent_id, given, UUID_SIZE);
	memcpy(ret_agent_id, given, UUID_SIZE);
	enum status status = on_store(settings, job, &change, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	if (change.found)
		return EX_OK;
	fprintf(stderr, "reset-service: no agent %s, or %s\n", change.agent_id, not_found);
	return EX_DATAERR;
}

int admin_revoke(const struct settings *settings, const struct admin_options *options)
{
	char agent_id[UUID_SIZE];
	int code = change_agent(settings, options, "revoke AGENT_ID", store_agent_revoke, "it is revoked already", agent_id);
	if (code != EX_OK)
		return code;
	if (options->json)
		return print_json(json_pack("{s:s}", "revoked", agent_id));
	printf("%s is revoked: a running service closes its channel within a second\n", agent_id);
	return EX_OK;
}

int admin_release(const struct settings *settings, const struct admin_options *options)
{
	char agent_id[UUID_SIZE];
	int code = change_agent(settings, options, "release AGENT_ID", store_agent_release, "no clone of it was seen", agent_id);
	if (code != EX_OK)
		return code;
	if (options->json)
		return print_json(json_pack("{s:s}", "released", agent_id));
	printf("%s is released: the instance that connects next is taken for the agent. Where its keys may be stolen, revoke it and enrol anew instead\n", agent_id);
	return EX_OK;
}

/* Operations ------------------------------------------------------------------------------------------------------------------------- */

static void print_operation(const struct operation_row *row)
{
	char created[CLOCK_TEXT_SIZE];
	clock_format(row->created_ms, created);
	printf("%s  %s  %-6s  %-8s  %s\n", created, row->operation_id, row->op, row->status, row->code);
}

int admin_operations(const struct settings *settings, const struct admin_options *options)
{
	struct operation_rows rows = { .limit = options->limit };
	AUTO_FREE char *why = NULL;
	enum status status = on_store(settings, store_operations, &rows, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	json_t *array = json_array();
	for (size_t i = 0; i < rows.count; i++) {
		if (options->json)
			json_array_append_new(array, operation_row_json(&rows.items[i]));
		else
			print_operation(&rows.items[i]);
	}
	if (options->json)
		print_json(json_incref(array));
	json_decref(array);
	operation_rows_clear(&rows);
	return EX_OK;
}

static void print_line(const char *name, const char *text)
{
	if (text != NULL && text[0] != '\0')
		printf("%-14s  %s\n", name, text);
}

static void print_text(const char *name, json_t *take_value)
{
	AUTO_FREE char *text = take_value != NULL && !json_is_null(take_value) ? json_dumps(take_value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
	print_line(name, json_is_string(take_value) ? json_string_value(take_value) : text);
	json_decref(take_value);
}

static void print_times(const struct operation_row *row)
{
	char created[CLOCK_TEXT_SIZE], finished[CLOCK_TEXT_SIZE];
	clock_format(row->created_ms, created);
	print_line("created_at", created);
	if (row->finished_ms == 0) {
		print_line("finished_at", "not yet");
		return;
	}
	clock_format(row->finished_ms, finished);
	printf("%-14s  %s, %lld ms later\n", "finished_at", finished, (long long)(row->finished_ms - row->created_ms));
}

/* What every operation has first, then what the agent said besides. */
static void print_operation_text(const struct operation_row *row)
{
	static const char *const shown[] = { "operation_id", "op", "sub_id", "status", "code", "created_at", "user_message", "agent_id", "request_id" };
	json_t *json = operation_row_json(row), *value;
	const char *name;
	enum status status;
	print_line("operation_id", row->operation_id);
	print_line("op", row->op);
	print_text("sub_id", json_incref(json_object_get(json, "sub_id")));
	print_line("status", row->status);
	print_line("code", row->code);
	print_line("meaning", status_from_code(row->code, &status) ? status_admin_text(status) : NULL);
	print_times(row);
	print_line("agent_id", row->agent_id);
	print_line("request_id", row->request_id);
	for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
		json_object_del(json, shown[i]);
	json_object_foreach(json, name, value)
		print_text(name, json_incref(value));
	json_decref(json);
}

int admin_operation(const struct settings *settings, const struct admin_options *options)
{
	struct store_find find = { 0 };
	AUTO_FREE char *why = NULL;
	const char *given = uuid_argument(options, "operation", "operations");
	if (given == NULL)
		return usage("operation OPERATION_ID");
	memcpy(find.operation_id, given, UUID_SIZE);
	enum status status = on_store(settings, store_operation_find, &find, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	if (!find.found) {
		fprintf(stderr, "reset-service: no operation %s\n", find.operation_id);
		return EX_DATAERR;
	}
	if (options->json)
		print_json(operation_row_json(&find.row));
	else
		print_operation_text(&find.row);
	operation_row_clear(&find.row);
	return EX_OK;
}

/* API keys --------------------------------------------------------------------------------------------------------------------------- */

static int api_key_add(const struct settings *settings, const struct admin_options *options, const char *name)
{
	char nonce[NONCE_SIZE], key[64];
	AUTO_FREE char *why = NULL;
	nonce_random(nonce);
	snprintf(key, sizeof key, "wbk_%s", nonce);
	struct store_api_key row = { .name = name, .now = now_s() };
	sha256(bytes_of_string(key), row.hash);
	enum status status = on_store(settings, store_api_key_add, &row, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	if (!row.found) {
		fprintf(stderr, "reset-service: the name %s is taken\n", name);
		return EX_DATAERR;
	}
	if (options->json)
		print_json(json_pack("{s:s, s:s}", "name", name, "api_key", key));
	else
		printf("%s\n", key);
	wipe(key, sizeof key);
	wipe(nonce, sizeof nonce);
	return EX_OK;
}

static int api_key_revoke(const struct settings *settings, const struct admin_options *options, const char *name)
{
	AUTO_FREE char *why = NULL;
	struct store_api_key row = { .name = name, .now = now_s() };
	enum status status = on_store(settings, store_api_key_revoke, &row, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	if (!row.found) {
		fprintf(stderr, "reset-service: no key %s, or it is revoked already\n", name);
		return EX_DATAERR;
	}
	return options->json ? print_json(json_pack("{s:s}", "revoked", name)) : EX_OK;
}

static int api_key_list(const struct settings *settings, const struct admin_options *options)
{
	AUTO_FREE char *why = NULL;
	json_t *array = NULL, *row;
	size_t index;
	enum status status = on_store(settings, store_api_keys, &array, &why);
	if (status != STATUS_OK)
		return complain(status, why);
	if (options->json)
		return print_json(array);
	json_array_foreach(array, index, row) {
		char created[CLOCK_TEXT_SIZE];
		clock_format(json_integer_value(json_object_get(row, "created_at")) * 1000, created);
		printf("%-24s made %s%s\n", json_string_value(json_object_get(row, "name")), created, json_object_get(row, "revoked_at") != NULL ? "  (revoked)" : "");
	}
	json_decref(array);
	return EX_OK;
}

int admin_api_key(const struct settings *settings, const struct admin_options *options)
{
	static const char form[] = "api-key add NAME | list | revoke NAME";
	const char *action = options->arguments[0], *name = action != NULL ? options->arguments[1] : NULL, *more = name != NULL ? options->arguments[2] : NULL;
	bool list = action != NULL && strcmp(action, "list") == 0, add = action != NULL && strcmp(action, "add") == 0;
	if (action == NULL)
		fprintf(stderr, "reset-service: what is to be done with API keys?\n");
	else if (!list && !add && strcmp(action, "revoke") != 0)
		fprintf(stderr, "reset-service: '%s' is nothing that can be done with an API key\n", action);
	else if (list ? name != NULL : more != NULL)
		fprintf(stderr, "reset-service: '%s' is too much here\n", list ? name : more);
	else if (!list && name == NULL)
		fprintf(stderr, "reset-service: the name of the API key is missing\n");
	else if (!list && (name[0] == '\0' || strlen(name) > 64))
		fprintf(stderr, "reset-service: the name of an API key should have 1 to 64 bytes\n");
	else
		return list ? api_key_list(settings, options) : add ? api_key_add(settings, options, name) : api_key_revoke(settings, options, name);
	return usage(form);
}
