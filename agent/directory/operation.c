/* Operations of a connection: submitted to libldap, answered by message id, ended by their deadline. */
#include <stdlib.h>
#include <string.h>

#include "agent/directory/connection.h"
#include "base/clock.h"
#include "base/crash.h"

static struct timeval timeval_of(int64_t ms)
{
	ms = ms < 1 ? 1 : ms;
	return (struct timeval){ ms / 1000, ms % 1000 * 1000 };
}

static void operation_free(struct operation *operation)
{
	for (size_t i = 0; i < operation->count; i++) {
		ldap_msgfree(operation->entries[i]);
	}
	free(operation->entries);
	if (operation->timer != NULL) {
		event_free(operation->timer);
	}
	ldap_search_clear(&operation->search);
	change_free(operation->change);
	free(operation->dn);
	free(operation);
}

static void detach(struct operation *operation)
{
	struct connection *connection = operation->connection;
	if (operation->submitted) {
		TAILQ_REMOVE(&connection->outstanding, operation, link);
		connection->outstanding_count--;
	} else {
		TAILQ_REMOVE(&connection->waiting, operation, link);
		connection->waiting_count--;
	}
}

/* Unsent bytes were not encrypted yet: when the connection is given up they never leave. */
static bool was_sent(const struct operation *operation)
{
	const struct connection *connection = operation->connection;
	return operation->submitted && connection->io.written - ldap_io_unsent(&connection->io) > operation->start;
}

#ifdef WRITEBACK_CRASH_POINTS
void operations_pass_sent(struct connection *connection)
{
	struct operation *operation;
	TAILQ_FOREACH(operation, &connection->outstanding, link)
		if (operation->kind == OPERATION_CHANGE && !operation->passed && was_sent(operation)) {
			operation->passed = true;
			CRASH_POINT(MODIFY_SENT);
		}
}
#endif

/* `operation` is detached; it is gone afterwards. */
static void end_unanswered(struct operation *operation, enum status status, bool sent)
{
	struct reply reply = { .status = status, .sent = sent, .ldap_result = -1 };
	operation->done(&reply, operation->arg);
	operation_free(operation);
}

static int submit_to_libldap(struct operation *operation, LDAP *ldap)
{
	const struct ldap_search *search = &operation->search;
	switch (operation->kind) {
	case OPERATION_SEARCH:
		return ldap_search_ext(ldap, search->base, search->scope, search->filter, (char **)search->attributes, 0, (LDAPControl **)search->controls, NULL, NULL,
		                       search->size_limit, &operation->message_id);
	case OPERATION_CHANGE:
		if (operation->change->extended != NULL) {
			return ldap_extended_operation(ldap, operation->change->extended, &operation->change->request_value, change_controls(operation->change), NULL, &operation->message_id);
		}
		return ldap_modify_ext(ldap, operation->dn, change_mods(operation->change), change_controls(operation->change), NULL, &operation->message_id);
	case OPERATION_BIND:
		return ldap_sasl_bind(ldap, operation->dn, operation->mechanism, operation->credential, NULL, NULL, &operation->message_id);
	case OPERATION_WHO_AM_I:
		return ldap_whoami(ldap, NULL, NULL, &operation->message_id);
	}
	return LDAP_PARAM_ERROR;
}

/* Where libldap refuses, nothing has been written. */
static enum status submit(struct operation *operation)
{
	struct connection *connection = operation->connection;
	enum status wanted = change_still_wanted(operation->change);
	if (wanted != STATUS_OK) {
		return wanted;
	}
	operation->start = connection->io.written;
	operation->submitted_us = clock_monotonic_us();
	int result = submit_to_libldap(operation, connection->ldap);
	change_free(operation->change); /* the password has been encoded */
	operation->change = NULL;
	operation->credential = NULL;
	if (result == LDAP_FILTER_ERROR || result == LDAP_PARAM_ERROR || result == LDAP_NO_MEMORY || result == LDAP_ENCODING_ERROR) {
		return STATUS_AGENT_INTERNAL;
	}
	return result == LDAP_SUCCESS ? STATUS_OK : STATUS_DIRECTORY_UNAVAILABLE;
}

static bool has_room(const struct connection *connection)
{
	return connection->outstanding_count < connection->setup.settings->pipeline && ldap_io_unsent(&connection->io) < LDAP_IO_OUTPUT_MAX / 4;
}

static void submit_waiting(struct connection *connection)
{
	struct operation *operation;
	while (connection->ldap != NULL && (operation = TAILQ_FIRST(&connection->waiting)) != NULL && has_room(connection)) {
		detach(operation);
		enum status status = submit(operation);
		if (status != STATUS_OK) {
			end_unanswered(operation, status, false);
			continue;
		}
		operation->submitted = true;
		TAILQ_INSERT_TAIL(&connection->outstanding, operation, link);
		connection->outstanding_count++;
	}
}

/* An operation that times out says something about its connection: a server that has sent nothing since is stalled or gone, and what was not encrypted yet must never leave.
 * After a write without an answer nothing new goes over it, so that it is known dead soon. */
static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct operation *operation = arg;
	struct connection *connection = connection_ref(operation->connection);
	bool sent = was_sent(operation), submitted = operation->submitted;
	bool stalled = submitted && (!sent || connection->last_read_us < operation->submitted_us);
	bool write = operation->kind == OPERATION_CHANGE;
	if (stalled) {
		/* It ends with all the others, from the list: their callbacks may cancel it. */
		operation->timed_out = true;
		connection_fail(connection, STATUS_DIRECTORY_TIMEOUT, "it did not answer in time");
		connection_unref(connection);
		return;
	}
	detach(operation);
	if (submitted && write) {
		connection->retiring = true;
	}
	end_unanswered(operation, STATUS_DIRECTORY_TIMEOUT, sent);
	if (connection_is_over(connection)) {
		connection_retire(connection);
	}
	connection_unref(connection);
}

static enum status operation_start(struct connection *connection, struct operation *operation, int64_t timeout_ms, struct operation **ret_operation)
{
	struct timeval deadline = timeval_of(timeout_ms);
	enum status status = STATUS_OK;
	operation->connection = connection;
	/* Else libevent counts from the start of this turn, and a call whose last attempt ends too early believes that there is time for another. */
	event_base_update_cache_time(connection->setup.base);
	/* What has been sent must have an end: where there is no memory for that nothing is sent. */
	operation->timer = evtimer_new(connection->setup.base, on_deadline, operation);
	if (operation->timer == NULL || evtimer_add(operation->timer, &deadline) != 0) {
		operation_free(operation);
		return STATUS_AGENT_INTERNAL;
	}
	if (connection->ldap == NULL || (connection->waiting_count > 0 && connection->waiting_count >= connection->setup.settings->queue_limit)) {
		status = connection->ldap == NULL ? STATUS_DIRECTORY_UNAVAILABLE : STATUS_AGENT_OVERLOADED;
	} else if (TAILQ_EMPTY(&connection->waiting) && has_room(connection)) {
		status = submit(operation);
		operation->submitted = status == STATUS_OK;
	} else if (operation->at_once) {
		status = STATUS_AGENT_OVERLOADED;
	}
	if (status != STATUS_OK) {
		operation_free(operation);
		return status;
	}
	TAILQ_INSERT_TAIL(operation->submitted ? &connection->outstanding : &connection->waiting, operation, link);
	++*(operation->submitted ? &connection->outstanding_count : &connection->waiting_count);
	if (ret_operation != NULL) {
		*ret_operation = operation;
	}
	return STATUS_OK;
}

static struct operation *operation_new(enum operation_kind kind, operation_done done, void *arg)
{
	struct operation *operation = calloc(1, sizeof *operation);
	if (operation != NULL) {
		operation->kind = kind;
		operation->done = done;
		operation->arg = arg;
	}
	return operation;
}

enum status operation_search(struct connection *connection, struct ldap_search *take_search, int64_t timeout_ms, operation_done done, void *arg, struct operation **ret_operation)
{
	struct operation *operation = operation_new(OPERATION_SEARCH, done, arg);
	if (operation == NULL) {
		ldap_search_clear(take_search);
		return STATUS_AGENT_INTERNAL;
	}
	operation->search = *take_search;
	*take_search = (struct ldap_search){ 0 };
	return operation_start(connection, operation, timeout_ms, ret_operation);
}

enum status operation_read(struct connection *connection, const char *dn, const char *const *attributes, int64_t timeout_ms, operation_done done, void *arg,
                           struct operation **ret_operation)
{
	struct ldap_search search = { .base = strdup(dn), .scope = LDAP_SCOPE_BASE, .attributes = attributes, .controls = connection->setup.flavor->read_controls(attributes) };
	return search.base == NULL ? STATUS_AGENT_INTERNAL : operation_search(connection, &search, timeout_ms, done, arg, ret_operation);
}

enum status operation_change(struct connection *connection, const char *dn, struct change *take_change, int64_t timeout_ms, operation_done done, void *arg,
                             struct operation **ret_operation)
{
	struct operation *operation = operation_new(OPERATION_CHANGE, done, arg);
	if (operation == NULL || (operation->dn = strdup(dn)) == NULL) {
		change_free(take_change);
		free(operation);
		return STATUS_AGENT_INTERNAL;
	}
	operation->change = take_change;
	return operation_start(connection, operation, timeout_ms, ret_operation);
}

enum status operation_bind(struct connection *connection, const char *dn, const char *mechanism, struct bytes credential, int64_t timeout_ms, operation_done done, void *arg)
{
	struct operation *operation = operation_new(OPERATION_BIND, done, arg);
	struct berval borrowed = { credential.size, (char *)credential.data };
	if (operation == NULL || (operation->dn = strdup(dn)) == NULL) {
		free(operation);
		return STATUS_AGENT_INTERNAL;
	}
	operation->mechanism = mechanism;
	operation->credential = credential.data != NULL ? &borrowed : NULL;
	operation->at_once = true;
	return operation_start(connection, operation, timeout_ms, NULL);
}

enum status operation_who_am_i(struct connection *connection, int64_t timeout_ms, operation_done done, void *arg)
{
	struct operation *operation = operation_new(OPERATION_WHO_AM_I, done, arg);
	return operation == NULL ? STATUS_AGENT_INTERNAL : operation_start(connection, operation, timeout_ms, NULL);
}

void operation_cancel(struct operation *operation)
{
	if (operation != NULL) {
		struct connection *connection = operation->connection;
		detach(operation);
		operation_free(operation);
		if (connection_is_over(connection)) {
			event_active(connection->timer, EV_TIMEOUT, 0); /* not from inside: it may have been called by another one's end */
		}
	}
}

static struct operation *find_outstanding(struct connection *connection, int message_id)
{
	struct operation *operation;
	TAILQ_FOREACH(operation, &connection->outstanding, link) {
		if (operation->message_id == message_id) {
			return operation;
		}
	}
	return NULL;
}

/* What a SASL bind or an extended operation answers beside its result; NULL: nothing. */
static struct berval *read_token(const struct operation *operation, LDAPMessage *message)
{
	LDAP *ldap = operation->connection->ldap;
	struct berval *token = NULL;
	char *name = NULL;
	if (operation->kind == OPERATION_BIND && operation->mechanism != NULL) {
		ldap_parse_sasl_bind_result(ldap, message, &token, 0);
	} else if (operation->kind == OPERATION_WHO_AM_I) {
		ldap_parse_extended_result(ldap, message, &name, &token, 0);
		ldap_memfree(name);
	}
	return token;
}

/* Any tag but an entry's, a reference's or an intermediate answer's ends an operation: Samba answers a search or a modify with an unknown critical control by an
 * ExtendedResponse. An answer to a write that cannot be read says nothing about the write. */
static void end_answered(struct operation *operation, LDAPMessage *message)
{
	struct connection *connection = operation->connection;
	char *diagnostic = NULL;
	struct reply reply = { .sent = true, .ldap = connection->ldap, .entries = operation->entries, .count = operation->count, .truncated = operation->truncated,
	                       .referred = operation->referred };
	if (ldap_parse_result(connection->ldap, message, &reply.ldap_result, NULL, &diagnostic, NULL, &reply.controls, 0) != LDAP_SUCCESS) {
		bool write = operation->kind == OPERATION_CHANGE;
		reply.status = write ? STATUS_DIRECTORY_PROTOCOL : STATUS_OK;
		reply.ldap_result = write ? -1 : LDAP_PROTOCOL_ERROR;
		connection->retiring |= write;
	}
	reply.diagnostic = diagnostic;
	struct berval *token = read_token(operation, message);
	reply.server_token = bytes_of(token != NULL ? token->bv_val : NULL, token != NULL ? token->bv_len : 0);
	detach(operation);
	operation->done(&reply, operation->arg);
	operation_free(operation);
	ber_bvfree(token);
	ldap_controls_free(reply.controls);
	ldap_memfree(diagnostic);
}

/* False where there is no room for it. */
static bool keep_entry(struct operation *operation, LDAPMessage *message, size_t size)
{
	size_t most = operation->search.most > 0 ? operation->search.most : ENTRIES_FEW;
	if (operation->count == operation->capacity && operation->count < most) {
		size_t more = operation->capacity > 0 ? 4 * operation->capacity : ENTRIES_FEW;
		LDAPMessage **grown = realloc(operation->entries, more * sizeof(LDAPMessage *));
		if (grown != NULL) {
			operation->entries = grown;
			operation->capacity = more;
		}
	}
	operation->truncated |= operation->count == most || operation->count == operation->capacity || size > LDAP_IO_INCOMING_MAX - operation->octets;
	if (!operation->truncated) {
		operation->octets += size;
		operation->entries[operation->count++] = message;
	}
	return !operation->truncated;
}

/* Consumes the message. */
static void take_message(struct connection *connection, LDAPMessage *message, size_t size)
{
	struct operation *operation = find_outstanding(connection, ldap_msgid(message));
	int tag = ldap_msgtype(message);
	if (operation != NULL && tag == LDAP_RES_SEARCH_ENTRY && keep_entry(operation, message, size)) {
		return;
	}
	if (operation != NULL && tag == LDAP_RES_SEARCH_REFERENCE) {
		operation->referred = true;
	}
	if (operation != NULL && tag != LDAP_RES_SEARCH_ENTRY && tag != LDAP_RES_SEARCH_REFERENCE && tag != LDAP_RES_INTERMEDIATE) {
		end_answered(operation, message);
	}
	ldap_msgfree(message);
}

void operations_receive(struct connection *connection)
{
	LDAP *ldap = connection->ldap;
	connection->last_read_us = clock_monotonic_us();
	while (connection->ldap == ldap && ldap != NULL) { /* a callback may have closed it */
		LDAPMessage *message;
		size_t size;
		if (ldap_io_receive(&connection->io, ldap, &message, &size) != STATUS_OK) {
			connection_fail(connection, STATUS_DIRECTORY_PROTOCOL, "it sent something that is not LDAP, or an answer of more than 1 MiB");
			return;
		}
		if (message == NULL) {
			break;
		}
		take_message(connection, message, size);
	}
	if (connection->ldap != ldap || ldap == NULL) {
		return;
	}
	submit_waiting(connection);
	if (connection->ldap == ldap && connection_is_over(connection)) {
		connection_retire(connection);
	} else if (connection->setup.room != NULL && !connection->stopped) {
		connection->setup.room(connection, connection->setup.arg);
	}
}

void operations_judge(struct connection *connection)
{
	struct operation *operation;
	TAILQ_FOREACH(operation, &connection->outstanding, link) {
		operation->left = was_sent(operation);
	}
}

void operations_fail_all(struct connection *connection)
{
	struct operation *operation;
	while ((operation = TAILQ_FIRST(&connection->outstanding)) != NULL || (operation = TAILQ_FIRST(&connection->waiting)) != NULL) {
		detach(operation);
		end_unanswered(operation, operation->timed_out ? STATUS_DIRECTORY_TIMEOUT : STATUS_DIRECTORY_UNAVAILABLE, operation->left);
	}
}
