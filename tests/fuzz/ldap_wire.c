/* A hostile directory server: what it says from the bind on, through libldap and ldap_io, the exploration, a user's reading and what is done to him. The connection's transport is a bufferevent
 * whose buffers are filled by hand; nothing is sent anywhere.
 *
 * Two bytes choose flavor, settings, how the user is looked for and what follows. Then records: a byte (low bits: kind; next three: which of the outstanding operations is answered), two of length,
 * and that many octets: a protocolOp with its controls; an entry as lines "name: value" (name:=hexadecimal), the first line its DN; a byte of result code and a diagnostic text; or raw octets. */
#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/directory/internal.h"
#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORD_MAX = 8192 };
enum follow { FOLLOW_NOTHING, FOLLOW_RECHECK, FOLLOW_RIGHTS, FOLLOW_RESET, FOLLOW_UNLOCK, FOLLOW_CHANGE, FOLLOW_PROBE, FOLLOW_LOOKUP };

static struct event_base *base;
static int fds[2];

struct scenario {
	enum follow follow;
	struct directory *directory;
	struct located *located;
	bool is_ldap;
};

static void must(bool truth)
{
	if (!truth)
		abort();
}

/* The wire ------------------------------------------------------------------------------------------------------------------------------- */

struct octets {
	uint8_t items[2 * RECORD_MAX];
	size_t size;
};

static void put(struct octets *out, const void *data, size_t size)
{
	size = size <= sizeof out->items - out->size ? size : sizeof out->items - out->size;
	memcpy(out->items + out->size, data, size);
	out->size += size;
}

static void put_tlv(struct octets *out, uint8_t tag, const void *data, size_t size)
{
	uint8_t head[] = { tag, 0x82, (uint8_t)(size >> 8), (uint8_t)size };
	put(out, head, sizeof head);
	put(out, data, size);
}

static int nibble(uint8_t c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void put_value(struct octets *out, const uint8_t *text, size_t size, bool hexadecimal)
{
	uint8_t octets[RECORD_MAX];
	size_t count = 0;
	for (size_t i = 0; hexadecimal && i + 1 < size; i += 2) {
		if (nibble(text[i]) >= 0 && nibble(text[i + 1]) >= 0)
			octets[count++] = (uint8_t)(nibble(text[i]) << 4 | nibble(text[i + 1]));
	}
	put_tlv(out, 0x04, hexadecimal ? octets : text, hexadecimal ? count : size);
}

/* One line's name and all values of the lines below that begin with the same name. */
static const uint8_t *put_attribute(struct octets *out, const uint8_t *at, const uint8_t *end)
{
	static struct octets attribute, values;
	const uint8_t *colon = memchr(at, ':', (size_t)(end - at)), *name = at;
	size_t length = colon != NULL ? (size_t)(colon - at) : 0;
	attribute.size = values.size = 0;
	do {
		const uint8_t *newline = memchr(at, '\n', (size_t)(end - at)), *last = newline != NULL ? newline : end, *value = at + length + 1;
		bool hexadecimal = value < last && *value == '=';
		value += value < last && (*value == '=' || *value == ' ');
		if (value <= last)
			put_value(&values, value, (size_t)(last - value), hexadecimal);
		at = newline != NULL ? newline + 1 : end;
	} while (at < end && (size_t)(end - at) > length && memcmp(at, name, length + 1) == 0);
	put_tlv(&attribute, 0x04, name, length);
	put_tlv(&attribute, 0x31, values.items, values.size);
	put_tlv(out, 0x30, attribute.items, attribute.size);
	return at;
}

static void put_entry(struct octets *out, const uint8_t *at, size_t size)
{
	static struct octets list, entry;
	const uint8_t *end = at + size, *newline = memchr(at, '\n', size);
	list.size = entry.size = 0;
	put_tlv(&entry, 0x04, at, (size_t)((newline != NULL ? newline : end) - at));
	for (at = newline != NULL ? newline + 1 : end; at < end;)
		at = put_attribute(&list, at, end);
	put_tlv(&entry, 0x30, list.items, list.size);
	put_tlv(out, LDAP_RES_SEARCH_ENTRY, entry.items, entry.size);
}

static void put_result(struct octets *out, const struct operation *operation, const uint8_t *at, size_t size)
{
	static const uint8_t TAGS[] = { [OPERATION_SEARCH] = LDAP_RES_SEARCH_RESULT, [OPERATION_CHANGE] = LDAP_RES_MODIFY, [OPERATION_BIND] = LDAP_RES_BIND, [OPERATION_WHO_AM_I] = LDAP_RES_EXTENDED };
	static struct octets result;
	uint8_t code[] = { 0x0a, 1, size > 0 ? at[0] : 0, 0x04, 0 };
	result.size = 0;
	put(&result, code, sizeof code);
	put_tlv(&result, 0x04, at + (size > 0), size > 0 ? size - 1 : 0);
	if (operation->kind == OPERATION_WHO_AM_I)
		put_tlv(&result, 0x8b, at + (size > 0), size > 0 ? size - 1 : 0);
	put_tlv(out, TAGS[operation->kind], result.items, result.size);
}

static void put_message(struct octets *out, uint8_t kind, const struct operation *operation, const uint8_t *at, size_t size)
{
	static struct octets message;
	uint8_t id[] = { 0x02, 4, (uint8_t)(operation->message_id >> 24), (uint8_t)(operation->message_id >> 16), (uint8_t)(operation->message_id >> 8), (uint8_t)operation->message_id };
	message.size = 0;
	put(&message, id, sizeof id);
	if (kind == 0)
		put(&message, at, size);
	else if (kind == 1)
		put_entry(&message, at, size);
	else
		put_result(&message, operation, at, size);
	put_tlv(out, 0x30, message.items, message.size);
}

/* The agent's side ----------------------------------------------------------------------------------------------------------------------- */

static void on_recheck(enum status status, const struct directory_answer *answer, void *arg)
{
	must(status != STATUS_OK || answer->ldap_result == 0);
}

static void on_rights(enum status status, const struct directory_rights *rights, void *arg)
{
	must((status == STATUS_OK) == (rights != NULL));
}

/* Nothing but the server's word makes a write applied. */
static void on_write(enum status status, const struct directory_answer *answer, void *arg)
{
	must(status != STATUS_OK || (answer->sent && answer->answered && (answer->ldap_result == 0 || answer->incomplete)));
	must(utf8_valid(bytes_of_string(answer->diagnostic)));
}

static void on_sid(enum status status, const struct sid *sid, const struct directory_answer *answer, void *arg)
{
	must((status == STATUS_OK) == (sid != NULL));
}

static void go_on(struct scenario *scenario)
{
	static const struct directory_change CHANGES[] = {
		[FOLLOW_RESET] = { .set_password = true, .password = { (const uint8_t *)"Neues-Passwort-1", 16 }, .must_change = true, .clear_lockout = true, .enforce_policy = true },
		[FOLLOW_UNLOCK] = { .clear_lockout = true },
		[FOLLOW_CHANGE] = { .set_password = true, .password = { (const uint8_t *)"Neues-Passwort-1", 16 }, .old_password = { (const uint8_t *)"alt", 3 } },
	};
	enum follow follow = scenario->follow == FOLLOW_CHANGE && scenario->is_ldap ? FOLLOW_RESET : scenario->follow; /* a change there goes over a connection of the user's own */
	if (follow == FOLLOW_RECHECK)
		(void)!directory_recheck(scenario->located, 5000, on_recheck, NULL, NULL);
	else if (follow == FOLLOW_RIGHTS)
		(void)!directory_read_rights(scenario->located, 5000, on_rights, NULL, NULL);
	else if (follow >= FOLLOW_RESET && follow <= FOLLOW_CHANGE)
		(void)!directory_write(scenario->located, &CHANGES[follow], 5000, on_write, NULL, NULL);
}

static void on_located(enum status status, struct located *take_located, const struct directory_answer *answer, void *arg)
{
	struct scenario *scenario = arg;
	must((status == STATUS_OK) == (take_located != NULL));
	if (status != STATUS_OK)
		return;
	const struct account *account = located_account(take_located);
	must(account->dn != NULL && account->guid[0] != 0 && located_position(take_located)->server != NULL);
	scenario->located = take_located;
	go_on(scenario);
}

static void on_changed(struct connection *connection, void *arg)
{
	struct directory *directory = arg;
	if (connection->domain.size > 0)
		directory->domain = connection->domain;
	servers_note(directory, connection);
	names_learn(directory, connection);
	event_active(directory->news, 0, 0);
}

static void on_room(struct connection *connection, void *arg)
{
	calls_pump(arg);
}

static void on_news(evutil_socket_t fd, short what, void *arg)
{
	struct directory_health health;
	calls_pump(arg);
	directory_health(arg, &health);
}

static struct directory *build(const struct directory_settings *settings)
{
	struct directory *directory = calloc(1, sizeof *directory);
	struct server *server;
	must(directory != NULL);
	directory->base = base;
	directory->settings = settings;
	directory->flavor = settings->kind == DIRECTORY_LDAP ? &LDAP_DIRECTORY : &ACTIVE_DIRECTORY;
	TAILQ_INIT(&directory->calls);
	TAILQ_INIT(&directory->queue);
	TAILQ_INIT(&directory->checks);
	TAILQ_INIT(&directory->verifications);
	directory->news = evtimer_new(base, on_news, directory);
	must(directory->news != NULL && secret_from(bytes_of_string("geheim"), &directory->credential.password) == STATUS_OK);
	directory->setup = (struct connection_setup){ .base = base, .flavor = directory->flavor, .settings = settings, .tls = &directory->tls, .credential = &directory->credential,
		.policies = &directory->policies, .changed = on_changed, .room = on_room, .arg = directory };
	must(servers_add(directory, "127.0.0.1:9", &server) == STATUS_OK);
	return directory;
}

static void connect_by_hand(struct directory *directory, struct connection *connection)
{
	connection->bufferevent = bufferevent_socket_new(base, fds[0], 0);
	must(connection->bufferevent != NULL);
	bufferevent_disable(connection->bufferevent, EV_READ | EV_WRITE);
	evbuffer_unfreeze(bufferevent_get_input(connection->bufferevent), 0);
	evbuffer_unfreeze(bufferevent_get_output(connection->bufferevent), 1);
	connection->io = (struct ldap_io){ .bufferevent = connection->bufferevent };
	must(ldap_io_open(&connection->io, &connection->ldap) == STATUS_OK);
	must(credential_take(&directory->credential, 1) == CREDENTIAL_GO);
	connection->has_turn = true;
	connection->state = CONNECTION_BIND;
	bind_begin(connection);
}

/* One turn: what it wrote has gone, what it was told is looked at. */
static void turn(struct connection *connection)
{
	connection_ref(connection);
	operations_receive(connection);
	for (unsigned i = 0; i < 3; i++) {
		if (connection->bufferevent != NULL)
			evbuffer_drain(bufferevent_get_output(connection->bufferevent), SIZE_MAX);
		event_base_loop(base, EVLOOP_NONBLOCK);
	}
	connection_unref(connection);
}

static const struct operation *outstanding(const struct connection *connection, unsigned index)
{
	const struct operation *operation;
	if (connection->outstanding_count == 0)
		return NULL;
	index %= connection->outstanding_count;
	TAILQ_FOREACH(operation, &connection->outstanding, link) {
		if (index-- == 0)
			return operation;
	}
	return NULL;
}

static void play(struct scenario *scenario, struct connection *connection, const uint8_t *data, size_t size)
{
	static struct octets message;
	for (size_t at = 0, length; at + 3 <= size && connection->bufferevent != NULL; at += 3 + length) {
		uint8_t kind = data[at] & 3;
		const struct operation *operation = outstanding(connection, data[at] >> 2 & 7);
		length = (size_t)data[at + 1] << 8 | data[at + 2];
		length = length <= size - at - 3 ? length : size - at - 3;
		length = length <= RECORD_MAX ? length : RECORD_MAX;
		message.size = 0;
		if (kind == 3)
			put(&message, data + at + 3, length);
		else if (operation != NULL)
			put_message(&message, kind, operation, data + at + 3, length);
		evbuffer_add(bufferevent_get_input(connection->bufferevent), message.items, message.size);
		turn(connection);
		if (scenario->follow == FOLLOW_PROBE && connection->state == CONNECTION_READY && connection->outstanding_count == 0) {
			explore_probe(connection, 5000);
			turn(connection);
		}
	}
}

static const char *id_for(enum locate_by by)
{
	static const char *const IDS[] = { [LOCATE_OBJECT_GUID] = "0a1b2c3d-0000-4000-8000-000000000001", [LOCATE_CONSISTENCY_GUID] = "0a1b2c3d-0000-4000-8000-000000000001",
		[LOCATE_UPN] = "anna@corp.example", [LOCATE_SAM] = "CORP\\anna", [LOCATE_ENTRY_UUID] = "0a1b2c3d-0000-4000-8000-000000000001", [LOCATE_UID] = "anna" };
	return IDS[by];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (base == NULL) {
		setenv("LDAPNOINIT", "1", 1);
		log_set_level(LOG_CRIT);
		base = event_base_new();
		must(base != NULL && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
	}
	static const char *const NAMES[] = { "cn=svc,dc=corp,dc=example", "svc@corp.example", "CORP\\svc", "svc" };
	if (size < 2)
		return 0;
	bool ldap = data[0] & 1, external = data[1] & 1;
	enum locate_by by = (data[0] >> 1 & 7) % (LOCATE_UID + 1);
	const struct directory_settings settings = { .name = "corp", .kind = ldap ? DIRECTORY_LDAP : DIRECTORY_ACTIVE_DIRECTORY, .base_dn = ldap || data[1] & 2 ? "dc=corp,dc=example" : NULL,
		.discover = !ldap && data[1] & 16 ? "corp.example" : NULL, .login_attribute = ldap && data[1] & 4 ? "mail" : NULL,
		.default_policy = ldap && data[1] & 8 ? "cn=default,dc=corp,dc=example" : NULL, .bind_mechanism = external ? BIND_EXTERNAL : BIND_SIMPLE,
		.bind_dn = external ? NULL : NAMES[data[1] >> 6], .policy_hints = data[1] & 32 ? POLICY_HINTS_REQUIRE : POLICY_HINTS_WHEN_SUPPORTED, .connections = 1, .pipeline = 64,
		.queue_limit = 16, .connect_timeout_ms = 5000, .locate_timeout_ms = 5000, .write_timeout_ms = 5000, .policy_cache_ms = 120000, .idle_probe_ms = 300000 };
	struct scenario scenario = { .follow = data[0] >> 4 & 7, .directory = build(&settings), .is_ldap = ldap };
	struct connection *connection = scenario.directory->servers[0]->connections[0];
	connect_by_hand(scenario.directory, connection);
	(void)!directory_locate(scenario.directory, by, id_for(by), NULL, 5000, on_located, &scenario, NULL);
	if (scenario.follow == FOLLOW_LOOKUP)
		(void)!directory_lookup_sid(scenario.directory, "cn=group,dc=corp,dc=example", 5000, on_sid, NULL, NULL);
	turn(connection);
	play(&scenario, connection, data + 2, size - 2);
	located_free(scenario.located);
	directory_free(scenario.directory);
	event_base_loop(base, EVLOOP_NONBLOCK); /* bufferevents go a turn later */
	return 0;
}
