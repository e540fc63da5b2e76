#include "control.h"

#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "attributes.h"
#include "connection.h"
#include "descriptor.h"
#include "password.h"
#include "replication.h"

#define WORDS_MAX 32
#define LINE_MAX_SIZE 65536

struct control_socket {
	struct server *server;
	struct evconnlistener *listener;
	char *path;
	LIST_HEAD(, client) clients;
};
struct client {
	LIST_ENTRY(client) link;
	struct control_socket *control;
	struct bufferevent *channel;
};

/* One command: its words, and where its answer goes. */
struct command {
	struct server *server;
	char *words[WORDS_MAX];
	size_t count;
	struct evbuffer *out;
};

/* Splits in place at blanks; "…" holds blanks together, also within a word: text="two words". Backslash protects the next character inside quotes. */
static bool split(char *line, struct command *command)
{
	char *in = line;
	while (*in) {
		in += strspn(in, " \t");
		if (!*in)
			break;
		if (command->count == WORDS_MAX)
			return false;
		char *out = command->words[command->count++] = in;
		bool quoted = false;
		for (; *in && (quoted || (*in != ' ' && *in != '\t')); in++) {
			if (*in == '"')
				quoted = !quoted;
			else if (quoted && *in == '\\' && in[1])
				*out++ = *++in;
			else
				*out++ = *in;
		}
		bool more = *in;
		*out = 0;
		if (quoted)
			return false;
		in += more;
	}
	return true;
}

static void fail(struct command *command, const char *why, const char *about)
{
	evbuffer_add_printf(command->out, "error %s: %s\n", why, about);
}

static struct object *named(struct command *command)
{
	struct server *server = command->server;
	struct object *object = command->count > 1 ? forest_by_sam(server->forest, &server->arena, value_of(command->words[1])) : NULL;
	if (!object)
		fail(command, "no such account", command->count > 1 ? command->words[1] : "");
	return object;
}

static void list_faults(struct command *command)
{
	for (const struct fault *fault = command->server->faults.first; fault; fault = fault->next)
		if (fault->left)
			evbuffer_add_printf(command->out, "on=%d action=%d left=%ld user=%s\n", fault->on, fault->action, fault->left, fault->user ? fault->user : "-");
	evbuffer_add_printf(command->out, ".\n");
}

static void run_fault(struct command *command)
{
	const char *verb = command->count > 1 ? command->words[1] : "", *why = NULL;
	if (!strcmp(verb, "clear"))
		faults_clear(&command->server->faults);
	else if (!strcmp(verb, "add"))
		faults_add(&command->server->faults, command->words + 2, command->count - 2, &why);
	else if (strcmp(verb, "list"))
		why = verb;
	if (!strcmp(verb, "list"))
		list_faults(command);
	else if (why)
		fail(command, "not understood", why);
	else
		evbuffer_add_printf(command->out, "ok\n");
}

static void run_clock(struct command *command)
{
	const char *text = command->count > 1 ? command->words[1] : "";
	int64_t ticks;
	if (!strcmp(text, "0"))
		command->server->forest->clock_offset = 0;
	else if ((*text == '+' || *text == '-') && duration_from_text(text + 1, &ticks))
		command->server->forest->clock_offset += *text == '+' ? ticks : -ticks;
	else {
		fail(command, "a duration such as +1d or -3h is expected", text);
		return;
	}
	evbuffer_add_printf(command->out, "ok %" PRId64 "\n", command->server->forest->clock_offset / TICKS_PER_SECOND);
}

static void run_user(struct command *command)
{
	struct object *object = named(command);
	struct forest *forest = command->server->forest;
	if (!object)
		return;
	const struct account *account = object->account;
	json_t *groups = json_array();
	char originator[33];
	replication_hex(account->password_record.originator, 16, originator);
	for (size_t i = 0; i < object->member_of_count; i++)
		json_array_append_new(groups, json_string(object->member_of[i]->rdn));
	json_t *state = json_pack("{s:s, s:s, s:b, s:I, s:I, s:i, s:I, s:i, s:s, s:I, s:i, s:b, s:o}", "name", account->sam, "dn", object->dn,
		"locked", account_locked(account, forest_policy(forest, object), forest_now(forest)), "lockoutTime", (json_int_t)account->lockout_time,
		"pwdLastSet", (json_int_t)account->password_last_set, "badPwdCount", (int)account->bad_password_count, "uac", (json_int_t)account->control,
		"version", (int)account->password_record.version, "originator", originator, "usn", (json_int_t)account->password_record.usn, "writes", (int)account->password_writes,
		"protected", object->admin, "memberOf", groups);
	char *text = json_dumps(state, JSON_COMPACT);
	evbuffer_add_printf(command->out, "ok %s\n", text);
	free(text);
	json_decref(state);
}

static bool set_flag(struct account *account, uint32_t bit, const char *value)
{
	account->control = strcmp(value, "true") ? account->control & ~bit : account->control | bit;
	return !strcmp(value, "true") || !strcmp(value, "false");
}

/* As if somebody else had done it: an ordinary write, without any rule. */
static bool set_one(struct command *command, struct object *object, const char *key, char *value)
{
	struct forest *forest = command->server->forest;
	struct account *account = object->account;
	struct digest digest;
	int64_t ticks, now = forest_now(forest);
	bool lock = !strcmp(value, "true");
	if (!strcmp(key, "password")) {
		password_digest(value_of(value), &digest);
		password_store(account, &digest, now);
		replication_write(forest, object, &account->password_record, ++forest->usn);
		replication_write(forest, object, &account->last_set_record, forest->usn);
	} else if (!strcmp(key, "locked")) {
		account->lockout_time = lock ? now : 0;
		account->bad_password_count = lock ? forest_policy(forest, object)->lockout_threshold : 0;
		replication_write(forest, object, &account->lockout_record, ++forest->usn);
	} else if (!strcmp(key, "disabled")) {
		return set_flag(account, UAC_DISABLED, value);
	} else if (!strcmp(key, "smartcard")) {
		return set_flag(account, UAC_SMARTCARD, value);
	} else if (!strcmp(key, "dont_expire")) {
		return set_flag(account, UAC_DONT_EXPIRE, value);
	} else if (!strcmp(key, "admin_count")) {
		object->admin = strcmp(value, "0");
	} else if (!strcmp(key, "cannot_change")) {
		object->cannot_change = lock;
	} else if (!strcmp(key, "sealed")) {
		object->sealed = lock;
	} else if (!strcmp(key, "hidden")) {
		object->hidden = attribute_find((struct value){ value, strlen(value) });
		return object->hidden ? descriptor_hides(object->hidden) : !*value;
	} else if (!strcmp(key, "must_change")) {
		account->password_last_set = lock ? 0 : now;
	} else if (!strcmp(key, "upn")) {
		free(account->upn);
		account->upn = must_strdup(value);
	} else if (!strcmp(key, "pwd_age")) {
		if (!duration_from_text(value, &ticks))
			return false;
		account->password_last_set = now - ticks;
	} else if (!strcmp(key, "member_of")) {
		object->member_of_count = 0;
		for (char *rest = value, *name; (name = strsep(&rest, ","));) {
			struct object *group = *name ? forest_group(forest, name) : NULL;
			if (*name && !group)
				return false;
			if (group)
				object_join(object, group);
		}
	} else {
		return false;
	}
	return true;
}

static void run_set(struct command *command)
{
	struct object *object = named(command);
	if (!object)
		return;
	for (size_t i = 2; i < command->count; i++) {
		char *value = strchr(command->words[i], '=');
		if (value)
			*value++ = 0;
		if (!value || !set_one(command, object, command->words[i], value)) {
			fail(command, "not understood", command->words[i]);
			return;
		}
	}
	evbuffer_add_printf(command->out, "ok\n");
}

/* "move NAME PARENT [CN]": below that container, as what it is called there or anew. */
static void run_move(struct command *command)
{
	struct server *server = command->server;
	struct object *object = named(command), *parent = NULL;
	bool bad;
	if (!object)
		return;
	if (command->count == 3 || command->count == 4)
		parent = forest_resolve(server->forest, &server->arena, value_of(command->words[2]), &bad);
	if (parent && !parent->account && forest_move(server->forest, &server->arena, object, parent, command->count == 4 ? command->words[3] : object->rdn))
		evbuffer_add_printf(command->out, "ok %s\n", object->dn);
	else
		fail(command, "no such container, or the name is taken", command->count > 2 ? command->words[2] : "");
}

static void run_verify(struct command *command)
{
	struct object *object = named(command);
	if (object)
		evbuffer_add_printf(command->out, "ok %s\n", command->count == 3 && account_verify(object->account, value_of(command->words[2])) ? "true" : "false");
}

static void run_stats(struct command *command)
{
	const struct statistics *counted = &command->server->statistics;
	evbuffer_add_printf(command->out, "ok {\"connections\":%lu,\"open\":%u,\"bind\":%lu,\"search\":%lu,\"modify\":%lu,\"extended\":%lu,\"other\":%lu,\"passwordWrites\":%lu,\"faults\":%lu}\n",
		counted->connections, connection_count(command->server), counted->binds, counted->searches, counted->modifies, counted->extended, counted->others,
		counted->password_writes, counted->faults);
}

/* changes USN: what was written or came here since, one object an account; replicate OBJECT: takes what is newer. Together they are replication, which a test may hold. */
static void run_changes(struct command *command)
{
	json_t *changes = json_object();
	char invocation[33];
	replication_hex(command->server->forest->invocation_id, 16, invocation);
	json_object_set_new(changes, "invocation_id", json_string(invocation));
	json_object_set_new(changes, "usn", json_integer((json_int_t)command->server->forest->usn));
	json_object_set_new(changes, "accounts", replication_changes(command->server->forest, command->count > 1 ? strtoull(command->words[1], NULL, 10) : 0));
	char *text = json_dumps(changes, JSON_COMPACT);
	evbuffer_add_printf(command->out, "ok %s\n", text);
	free(text);
	json_decref(changes);
}

static void run_replicate(struct command *command, const char *text)
{
	json_t *account = json_loads(text, 0, NULL);
	int taken = account ? replication_take(command->server->forest, account) : -1;
	json_decref(account);
	if (taken < 0)
		fail(command, "no such account, or not understood", "replicate");
	else
		evbuffer_add_printf(command->out, "ok %d\n", taken);
}

static void run_log(struct command *command)
{
	command->server->log = command->count > 1 && !strcmp(command->words[1], "on");
	evbuffer_add_printf(command->out, "ok\n");
}

/* "revoke NAME RIGHT", "grant NAME RIGHT": in every grant that the file gave to NAME. */
static void run_right(struct command *command)
{
	struct forest *forest = command->server->forest;
	struct object *who = named(command);
	unsigned right = command->count == 3 ? right_from_text(command->words[2]) : 0;
	if (!who || !right) {
		if (who)
			fail(command, "not understood", command->count > 2 ? command->words[2] : "");
		return;
	}
	for (size_t i = 0; i < forest->grant_count; i++) {
		struct grant *grant = &forest->grants[i];
		if (grant->who == who && (right != RIGHT_UNEXPIRE) == (grant->where != forest->domain))
			grant->rights = command->words[0][0] == 'g' ? grant->rights | right : grant->rights & ~right;
	}
	evbuffer_add_printf(command->out, "ok\n");
}

static void run_sdprop(struct command *command)
{
	forest_protect(command->server->forest);
	evbuffer_add_printf(command->out, "ok\n");
}

/* What an administrator, or replication, makes of the controller. */
static void run_server(struct command *command)
{
	struct forest *forest = command->server->forest;
	const char *word = command->count == 2 ? command->words[1] : "";
	if (!strcmp(word, "synchronized=true") || !strcmp(word, "synchronized=false")) {
		forest->unsynchronized = !strcmp(word, "synchronized=false");
	} else if (!strncmp(word, "pdc=", 4) && word[4]) {
		free(forest->role_owner);
		if (asprintf(&forest->role_owner, "CN=NTDS Settings,CN=%s,CN=Servers,CN=Default-First-Site-Name,CN=Sites,%s", word + 4, forest->configuration->dn) < 0)
			abort();
	} else {
		fail(command, "not understood", word);
		return;
	}
	evbuffer_add_printf(command->out, "ok\n");
}

static void run_line(struct control_socket *control, char *line, struct evbuffer *out)
{
	static const struct { const char *verb; void (*run)(struct command *); } rows[] = {
		{ "fault", run_fault }, { "clock", run_clock }, { "user", run_user }, { "set", run_set }, { "move", run_move }, { "verify", run_verify },
		{ "changes", run_changes }, { "stats", run_stats }, { "log", run_log }, { "sdprop", run_sdprop }, { "grant", run_right }, { "revoke", run_right }, { "server", run_server },
	};
	struct command command = { .server = control->server, .out = out };
	arena_reset(&control->server->arena);
	if (!strncmp(line, "replicate ", 10)) {
		run_replicate(&command, line + 10);
		return;
	}
	if (!split(line, &command)) {
		fail(&command, "not understood", "quotes");
		return;
	}
	for (size_t i = 0; command.count && i < sizeof rows / sizeof rows[0]; i++) {
		if (!strcmp(command.words[0], rows[i].verb)) {
			rows[i].run(&command);
			return;
		}
	}
	fail(&command, "unknown command", command.count ? command.words[0] : "");
}

static void client_free(struct client *client)
{
	LIST_REMOVE(client, link);
	bufferevent_free(client->channel);
	free(client);
}

static void on_lines(struct bufferevent *channel, void *arg)
{
	struct client *client = arg;
	char *line;
	size_t size;
	while ((line = evbuffer_readln(bufferevent_get_input(channel), &size, EVBUFFER_EOL_LF))) {
		run_line(client->control, line, bufferevent_get_output(channel));
		state_keep(client->control->server->state);
		OPENSSL_cleanse(line, size);
		free(line);
	}
	if (evbuffer_get_length(bufferevent_get_input(channel)) > LINE_MAX_SIZE)
		client_free(client);
}

static void on_gone(struct bufferevent *channel, short what, void *arg)
{
	client_free(arg);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *arg)
{
	struct control_socket *control = arg;
	struct client *client = must_alloc(sizeof *client);
	client->control = control;
	client->channel = bufferevent_socket_new(control->server->base, fd, BEV_OPT_CLOSE_ON_FREE);
	LIST_INSERT_HEAD(&control->clients, client, link);
	bufferevent_setcb(client->channel, on_lines, NULL, on_gone, client);
	bufferevent_enable(client->channel, EV_READ | EV_WRITE);
}

struct control_socket *control_listen(struct server *server, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path) {
		fprintf(stderr, "mock-directory: %s: too long for a socket\n", path);
		return NULL;
	}
	strcpy(address.sun_path, path);
	unlink(path);
	struct control_socket *control = must_alloc(sizeof *control);
	control->server = server;
	control->path = must_strdup(path);
	control->listener = evconnlistener_new_bind(server->base, on_accept, control, LEV_OPT_CLOSE_ON_FREE, 16, (struct sockaddr *)&address, sizeof address);
	if (control->listener)
		return control;
	perror(path);
	control_free(control);
	return NULL;
}

void control_free(struct control_socket *control)
{
	if (!control)
		return;
	while (!LIST_EMPTY(&control->clients))
		client_free(LIST_FIRST(&control->clients));
	if (control->listener) {
		evconnlistener_free(control->listener);
		unlink(control->path);
	}
	free(control->path);
	free(control);
}
