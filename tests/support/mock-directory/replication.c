#include "replication.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state {
	struct forest *forest;
	FILE *file;
	uint64_t usn;
};

void replication_hex(const uint8_t *octets, size_t size, char *out)
{
	*out = 0;
	for (size_t i = 0; i < size; i++)
		sprintf(out + 2 * i, "%02x", octets[i]);
}

static bool read_hex(const char *text, uint8_t *octets, size_t size)
{
	if (!text || strlen(text) != 2 * size)
		return false;
	for (size_t i = 0; i < size; i++)
		if (sscanf(text + 2 * i, "%2hhx", &octets[i]) != 1)
			return false;
	return true;
}

/* A GUID compares as a number: its first three fields are little-endian in the octets. */
static int compare_guid(const uint8_t a[16], const uint8_t b[16])
{
	static const uint8_t order[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	for (size_t i = 0; i < 16; i++)
		if (a[order[i]] != b[order[i]])
			return a[order[i]] - b[order[i]];
	return 0;
}

static bool beats(const struct replication *a, const struct replication *b)
{
	int64_t a_s = a->time / TICKS_PER_SECOND, b_s = b->time / TICKS_PER_SECOND;
	if (a->version != b->version)
		return a->version > b->version;
	return a_s != b_s ? a_s > b_s : compare_guid(a->originator, b->originator) > 0;
}

static json_t *pack_record(const struct replication *record)
{
	char originator[33];
	replication_hex(record->originator, 16, originator);
	return json_pack("{s:I, s:I, s:I, s:I, s:s}", "version", (json_int_t)record->version, "usn", (json_int_t)record->usn, "local", (json_int_t)record->local,
		"time", (json_int_t)record->time, "originator", originator);
}

static bool unpack_record(json_t *json, struct replication *ret_record)
{
	json_int_t version, usn, local, time;
	const char *originator;
	if (json_unpack(json, "{s:I, s:I, s:I, s:I, s:s}", "version", &version, "usn", &usn, "local", &local, "time", &time, "originator", &originator))
		return false;
	*ret_record = (struct replication){ .version = (uint32_t)version, .usn = (uint64_t)usn, .local = (uint64_t)local, .time = time };
	return read_hex(originator, ret_record->originator, 16);
}

static json_t *pack_digests(const struct account *account)
{
	json_t *digests = json_array();
	char text[65];
	replication_hex(account->password.octets, 32, text);
	json_array_append_new(digests, json_string(account->password.set ? text : ""));
	for (size_t i = 0; i < HISTORY_MAX && account->history[i].set; i++) {
		replication_hex(account->history[i].octets, 32, text);
		json_array_append_new(digests, json_string(text));
	}
	return digests;
}

static void unpack_digests(json_t *digests, struct account *account)
{
	memset(account->history, 0, sizeof account->history);
	account->password.set = read_hex(json_string_value(json_array_get(digests, 0)), account->password.octets, 32);
	for (size_t i = 0; i < HISTORY_MAX; i++)
		account->history[i].set = read_hex(json_string_value(json_array_get(digests, i + 1)), account->history[i].octets, 32);
}

json_t *replication_changes(const struct forest *forest, uint64_t usn)
{
	json_t *changes = json_array();
	for (size_t i = 0; i < forest->count; i++) {
		const struct object *object = forest->objects[i];
		const struct account *account = object->account;
		if (account && object->usn_changed > usn)
			json_array_append_new(changes, json_pack("{s:s, s:I, s:{s:o, s:o}, s:{s:o, s:I}, s:{s:o, s:I}}", "name", account->sam, "usn", (json_int_t)object->usn_changed,
				"password", "record", pack_record(&account->password_record), "value", pack_digests(account),
				"last_set", "record", pack_record(&account->last_set_record), "value", (json_int_t)account->password_last_set,
				"lockout", "record", pack_record(&account->lockout_record), "value", (json_int_t)account->lockout_time));
	}
	return changes;
}

/* True: `ret_record` is taken, and the value is to be. */
static bool takes(json_t *attribute, struct replication *record, uint64_t usn)
{
	struct replication theirs;
	if (!unpack_record(json_object_get(attribute, "record"), &theirs) || !theirs.version || !beats(&theirs, record))
		return false;
	*record = theirs;
	if (usn)
		record->local = usn;
	return true;
}

/* `usn` 0: they come from this server's own file. */
static int take(struct forest *forest, json_t *json, uint64_t usn)
{
	const char *name = json_string_value(json_object_get(json, "name"));
	struct object *object = name ? forest_by_sam(forest, &forest->arena, value_of(name)) : NULL;
	struct account *account = object ? object->account : NULL;
	json_t *password = json_object_get(json, "password"), *last_set = json_object_get(json, "last_set"), *lockout = json_object_get(json, "lockout");
	int taken = 0;
	if (!account)
		return -1;
	if (takes(password, &account->password_record, usn))
		taken++, unpack_digests(json_object_get(password, "value"), account);
	if (takes(last_set, &account->last_set_record, usn))
		taken++, account->password_last_set = json_integer_value(json_object_get(last_set, "value"));
	if (takes(lockout, &account->lockout_record, usn))
		taken++, account->lockout_time = json_integer_value(json_object_get(lockout, "value"));
	if (taken) {
		object->usn_changed = usn ? usn : (uint64_t)json_integer_value(json_object_get(json, "usn"));
		object->when_changed = forest_now(forest);
		forest->usn = object->usn_changed > forest->usn ? object->usn_changed : forest->usn;
	}
	arena_reset(&forest->arena);
	return taken;
}

int replication_take(struct forest *forest, json_t *account)
{
	return take(forest, account, forest->usn + 1);
}

struct state *state_open(struct forest *forest, const char *path)
{
	struct state *state = must_alloc(sizeof *state);
	char *line = NULL;
	size_t capacity = 0;
	state->forest = forest;
	state->file = fopen(path, "a+");
	if (!state->file) {
		fprintf(stderr, "mock-directory: %s: %s\n", path, strerror(errno));
		free(state);
		return NULL;
	}
	/* The last line may be half of one: the server was killed. */
	bool whole = true;
	for (ssize_t size; (size = getline(&line, &capacity, state->file)) > 0;) {
		whole = line[size - 1] == '\n';
		json_t *account = json_loads(line, 0, NULL);
		if (account)
			take(forest, account, 0);
		json_decref(account);
	}
	free(line);
	if (!whole)
		fputc('\n', state->file);
	state->usn = forest->usn;
	return state;
}

void state_keep(struct state *state)
{
	if (!state || state->usn == state->forest->usn)
		return;
	json_t *changes = replication_changes(state->forest, state->usn), *account;
	size_t i;
	json_array_foreach(changes, i, account) {
		json_dumpf(account, state->file, JSON_COMPACT);
		fputc('\n', state->file);
	}
	fflush(state->file);
	json_decref(changes);
	state->usn = state->forest->usn;
}

void state_close(struct state *state)
{
	if (state)
		fclose(state->file);
	free(state);
}
