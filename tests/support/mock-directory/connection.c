#include "connection.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "replication.h"

#define OUTPUT_MAX (8 * 1024 * 1024)

/* An operation put off by a fault. */
struct delayed {
	LIST_ENTRY(delayed) link;
	struct connection *connection;
	struct event *timer;
	int id;
	size_t size;
	uint8_t pdu[];
};

struct connection {
	LIST_ENTRY(connection) link;
	struct server *server;
	struct bufferevent *channel;
	struct object *bound;
	bool encrypted;
	bool stalled;   /* neither read nor answered any more */
	bool closing;   /* closed as soon as the output has gone */
	bool paused;    /* the client does not take its answers */
	LIST_HEAD(, delayed) delayed;
};

static void delayed_free(struct delayed *delayed)
{
	LIST_REMOVE(delayed, link);
	event_free(delayed->timer);
	free(delayed);
}

static void connection_free(struct connection *connection)
{
	while (!LIST_EMPTY(&connection->delayed))
		delayed_free(LIST_FIRST(&connection->delayed));
	LIST_REMOVE(connection, link);
	bufferevent_free(connection->channel);
	free(connection);
}

void connection_free_all(struct server *server)
{
	while (!LIST_EMPTY(&server->connections))
		connection_free(LIST_FIRST(&server->connections));
}

unsigned connection_count(const struct server *server)
{
	unsigned count = 0;
	struct connection *connection;
	LIST_FOREACH(connection, &server->connections, link)
		count++;
	return count;
}

/* What was answered before still goes out. */
static void close_after_output(struct connection *connection)
{
	connection->closing = true;
	bufferevent_disable(connection->channel, EV_READ);
}

static void notice_of_disconnection(struct connection *connection)
{
	struct answer answer = { 0 };
	answer_set(&answer, LDAP_PROTOCOL_ERROR, "00000057: LdapErr: DSID-0C0C0095, comment: Error decoding ldap message, data 0, v4563");
	message_put_extended(bufferevent_get_output(connection->channel), 0, &answer, "1.3.6.1.4.1.1466.20036", NULL);
	close_after_output(connection);
}

static void on_delayed(evutil_socket_t fd, short what, void *arg);

static void put_off(struct connection *connection, int id, const uint8_t *pdu, size_t size, long delay_ms)
{
	struct delayed *delayed = must_alloc(sizeof *delayed + size);
	delayed->connection = connection;
	delayed->id = id;
	delayed->size = size;
	memcpy(delayed->pdu, pdu, size);
	delayed->timer = evtimer_new(connection->server->base, on_delayed, delayed);
	struct timeval after = { delay_ms / 1000, delay_ms % 1000 * 1000 };
	evtimer_add(delayed->timer, &after);
	LIST_INSERT_HEAD(&connection->delayed, delayed, link);
}

/* Whatever was not put off has been answered already. */
static void abandon(struct connection *connection, int id)
{
	struct delayed *delayed;
	LIST_FOREACH(delayed, &connection->delayed, link) {
		if (delayed->id == id) {
			delayed_free(delayed);
			return;
		}
	}
}

static bool concerns(const char *user, void *arg)
{
	struct operation *operation = arg;
	struct server *server = operation->server;
	struct object *object = forest_by_sam(server->forest, &server->arena, value_of(user));
	bool bad;
	if (!object)
		return false;
	switch (operation->request->operation) {
	case LDAP_REQ_BIND:
		return forest_by_logon(server->forest, &server->arena, operation->request->name) == object;
	case LDAP_REQ_MODIFY:
		return forest_resolve(server->forest, &server->arena, operation->request->name, &bad) == object;
	case LDAP_REQ_SEARCH:
		return search_concerns(operation, object);
	default:
		return *operation->bound == object;
	}
}

static void refuse_unknown(struct operation *operation)
{
	struct answer answer = { 0 };
	bool hints;
	if (!controls_check(operation, &answer, &hints)) {
	} else if (!*operation->bound) {
		answer_unbound(&answer);
	} else {
		answer_set(&answer, LDAP_INSUFFICIENT_ACCESS, "00000005: SecErr: DSID-03152E29, problem 4003 (INSUFF_ACCESS_RIGHTS), data 0\n");
	}
	operation_answer(operation, &answer);
}

struct operation_row {
	ber_tag_t operation;
	const char *name;
	enum fault_on on;
	void (*perform)(struct operation *operation);
	size_t counter; /* in struct statistics */
};
#define COUNTER(member) offsetof(struct statistics, member)
static const struct operation_row operation_rows[] = {
	{ LDAP_REQ_BIND, "bind", FAULT_ON_BIND, bind_perform, COUNTER(binds) },
	{ LDAP_REQ_SEARCH, "search", FAULT_ON_SEARCH, search_perform, COUNTER(searches) },
	{ LDAP_REQ_MODIFY, "modify", FAULT_ON_MODIFY, modify_perform, COUNTER(modifies) },
	{ LDAP_REQ_EXTENDED, "extended", FAULT_ON_EXTENDED, extended_perform, COUNTER(extended) },
	{ LDAP_REQ_ADD, "add", FAULT_ON_ANY, refuse_unknown, COUNTER(others) },
	{ LDAP_REQ_DELETE, "delete", FAULT_ON_ANY, refuse_unknown, COUNTER(others) },
	{ LDAP_REQ_RENAME, "rename", FAULT_ON_ANY, refuse_unknown, COUNTER(others) },
	{ LDAP_REQ_COMPARE, "compare", FAULT_ON_ANY, refuse_unknown, COUNTER(others) },
};

static const struct operation_row *row_of(ber_tag_t operation)
{
	for (size_t i = 0; i < sizeof operation_rows / sizeof operation_rows[0]; i++)
		if (operation_rows[i].operation == operation)
			return &operation_rows[i];
	return NULL;
}

static void log_operation(const struct operation *operation, const struct operation_row *row, const char *fault)
{
	if (!operation->server->log)
		return;
	const struct request *request = operation->request;
	const char *who = *operation->bound ? (*operation->bound)->account->sam : "-";
	fprintf(stderr, "%s id=%d by=%s target=%.*s", row->name, request->id, who, request->name.size > 200 ? 200 : (int)request->name.size, request->name.data);
	for (size_t i = 0; i < request->modification_count; i++)
		fprintf(stderr, "%s%.*s", i ? "," : " attributes=", (int)request->modifications[i].attribute.size, request->modifications[i].attribute.data);
	fprintf(stderr, " result=%d%s%s\n", operation->result, *fault ? " fault=" : "", fault);
}

static void answer_fault(struct operation *operation, const struct fault *fault)
{
	struct answer answer = { .referral = fault->url };
	answer_set(&answer, fault->code, "%s", fault->text ? fault->text : "");
	operation_answer(operation, &answer);
}

/* Instead of the operation. */
static void suffer(struct connection *connection, struct operation *operation, const struct operation_row *row, const struct fault *fault, const uint8_t *pdu, size_t size)
{
	static const char garbage[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	struct evbuffer *nowhere;
	connection->server->statistics.faults++;
	switch (fault->action) {
	case FAULT_RESULT:
	case FAULT_REFERRAL:
		answer_fault(operation, fault);
		break;
	case FAULT_DELAY:
		put_off(connection, operation->request->id, pdu, size, fault->delay_ms);
		break;
	case FAULT_STALL:
		connection->stalled = true;
		bufferevent_disable(connection->channel, EV_READ);
		bufferevent_set_timeouts(connection->channel, NULL, NULL);
		break;
	case FAULT_CUT_BEFORE:
		close_after_output(connection);
		break;
	case FAULT_GARBAGE:
		evbuffer_add(operation->out, garbage, sizeof garbage - 1);
		break;
	case FAULT_DROP:
		break;
	case FAULT_SWALLOW:
	case FAULT_CUT_AFTER:
		nowhere = evbuffer_new();
		operation->out = nowhere;
		row->perform(operation);
		state_keep(connection->server->state);
		evbuffer_free(nowhere);
		if (fault->action == FAULT_CUT_AFTER)
			close_after_output(connection);
		break;
	}
	log_operation(operation, row, "yes");
}

static void handle(struct connection *connection, const uint8_t *pdu, size_t size, bool fresh)
{
	struct server *server = connection->server;
	struct request request;
	struct fault fault;
	arena_reset(&server->arena);
	if (!message_decode(&server->arena, pdu, size, &request)) {
		notice_of_disconnection(connection);
		return;
	}
	const struct operation_row *row = row_of(request.operation);
	if (request.operation == LDAP_REQ_ABANDON)
		abandon(connection, request.abandoned);
	if (request.operation == LDAP_REQ_UNBIND)
		close_after_output(connection);
	if (!row)
		return;
	struct operation operation = { .server = server, .request = &request, .bound = &connection->bound, .encrypted = connection->encrypted,
		.out = bufferevent_get_output(connection->channel) };
	++*(unsigned long *)((char *)&server->statistics + row->counter);
	if (fresh && faults_take(&server->faults, row->on, concerns, &operation, &fault)) {
		suffer(connection, &operation, row, &fault, pdu, size);
		return;
	}
	row->perform(&operation);
	state_keep(server->state);
	log_operation(&operation, row, "");
}

static bool finished(const struct connection *connection)
{
	return connection->closing && !evbuffer_get_length(bufferevent_get_output(connection->channel));
}

static void on_delayed(evutil_socket_t fd, short what, void *arg)
{
	struct delayed *delayed = arg;
	struct connection *connection = delayed->connection;
	if (!connection->stalled && !connection->closing)
		handle(connection, delayed->pdu, delayed->size, false);
	delayed_free(delayed);
	if (finished(connection))
		connection_free(connection);
}

static void on_read(struct bufferevent *channel, void *arg)
{
	struct connection *connection = arg;
	struct evbuffer *input = bufferevent_get_input(channel), *output = bufferevent_get_output(channel);
	while (!connection->stalled && !connection->closing) {
		uint8_t head[6];
		ev_ssize_t have = evbuffer_copyout(input, head, sizeof head);
		size_t available = evbuffer_get_length(input);
		/* The length octets are at the front; message_size looks at those only. */
		long size = have > 0 ? message_size(head, have < (ev_ssize_t)sizeof head ? (size_t)have : available) : 0;
		if (size < 0)
			notice_of_disconnection(connection);
		if (size <= 0)
			break;
		const uint8_t *pdu = evbuffer_pullup(input, size);
		handle(connection, pdu, (size_t)size, true);
		evbuffer_drain(input, (size_t)size);
		if (evbuffer_get_length(output) > OUTPUT_MAX) {
			connection->paused = true;
			bufferevent_disable(channel, EV_READ);
			break;
		}
	}
	if (finished(connection))
		connection_free(connection);
}

static void on_write(struct bufferevent *channel, void *arg)
{
	struct connection *connection = arg;
	if (finished(connection)) {
		connection_free(connection);
	} else if (connection->paused) {
		connection->paused = false;
		bufferevent_enable(channel, EV_READ);
		on_read(channel, connection);
	}
}

static void on_event(struct bufferevent *channel, short what, void *arg)
{
	struct connection *connection = arg;
	if (what & BEV_EVENT_CONNECTED)
		return;
	if ((what & BEV_EVENT_TIMEOUT) && !LIST_EMPTY(&connection->delayed)) {
		bufferevent_enable(channel, EV_READ);
		return;
	}
	connection_free(connection);
}

/* True: the new connection is spoiled already. */
static bool spoil(struct server *server, evutil_socket_t fd)
{
	struct fault fault;
	if (!faults_take(&server->faults, FAULT_ON_CONNECT, concerns, NULL, &fault))
		return false;
	server->statistics.faults++;
	if (fault.action != FAULT_STALL) {
		evutil_closesocket(fd);
		return true;
	}
	struct connection *connection = must_alloc(sizeof *connection);
	connection->server = server;
	connection->stalled = true;
	connection->channel = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
	bufferevent_disable(connection->channel, EV_READ | EV_WRITE);
	LIST_INSERT_HEAD(&server->connections, connection, link);
	return true;
}

void connection_accept(struct server *server, evutil_socket_t fd, bool encrypted)
{
	int on = 1;
	server->statistics.connections++;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (spoil(server, fd))
		return;
	struct connection *connection = must_alloc(sizeof *connection);
	connection->server = server;
	connection->encrypted = encrypted;
	int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
	if (encrypted)
		connection->channel = bufferevent_openssl_socket_new(server->base, fd, SSL_new(server->tls), BUFFEREVENT_SSL_ACCEPTING, options);
	else
		connection->channel = bufferevent_socket_new(server->base, fd, options);
	LIST_INSERT_HEAD(&server->connections, connection, link);
	bufferevent_setcb(connection->channel, on_read, on_write, on_event, connection);
	bufferevent_setwatermark(connection->channel, EV_READ, 0, 2 * MESSAGE_MAX);
	struct timeval idle = { server->forest->idle_seconds, 0 };
	if (idle.tv_sec)
		bufferevent_set_timeouts(connection->channel, &idle, NULL);
	bufferevent_enable(connection->channel, EV_READ | EV_WRITE);
}
