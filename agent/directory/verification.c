#include "agent/directory/verification.h"

#include <event2/bufferevent_ssl.h>
#include <netinet/tcp.h>
#include <string.h>

#include "base/tls.h"

enum { FAREWELL_MS = 1000 };

struct verification {
	TAILQ_ENTRY(verification) link;
	struct directory *directory;
	char *host, *dn;
	struct sockaddr_storage address;
	socklen_t address_size;
	struct secret password;
	struct change *change;           /* what is written once he is in; NULL: nothing, or it has been */
	struct bufferevent *bufferevent; /* NULL: it waits for a place */
	struct ldap_io io;
	LDAP *ldap;
	int message_id;
	enum verification_stage stage;
	bool leaving;                    /* it has ended, and says goodbye to the server */
	struct event *timer;
	verification_done done;
	void *arg;
};

static void start_waiting(struct directory *directory);

static void verification_free(struct verification *verification)
{
	struct directory *directory = verification->directory;
	bool held_place = verification->bufferevent != NULL && !verification->leaving;
	TAILQ_REMOVE(&directory->verifications, verification, link);
	ldap_io_close(&verification->io);
	if (verification->ldap != NULL) {
		ldap_destroy(verification->ldap);
	}
	if (verification->bufferevent != NULL) {
		bufferevent_free(verification->bufferevent);
	}
	if (verification->timer != NULL) {
		event_free(verification->timer);
	}
	secret_wipe(&verification->password);
	change_free(verification->change);
	free(verification->host);
	free(verification->dn);
	free(verification);
	if (held_place) {
		directory->verifying--;
		start_waiting(directory);
	}
}

static void finish(struct verification *verification, const struct reply *reply)
{
	verification_done done = verification->done;
	void *arg = verification->arg;
	verification->done = NULL;
	if (done != NULL) {
		done(verification->stage, reply, arg);
	}
}

static void fail(struct verification *verification, enum status status)
{
	bool sent = verification->stage == VERIFICATION_TRIED || verification->stage == VERIFICATION_WRITTEN;
	const struct reply reply = { .status = status, .sent = sent, .ldap_result = -1 };
	finish(verification, &reply);
	verification_free(verification);
}

static void on_farewell_timeout(evutil_socket_t fd, short what, void *arg)
{
	verification_free(arg);
}

static void on_written(struct bufferevent *bufferevent, void *arg)
{
	struct verification *verification = arg;
	if (verification->leaving && ldap_io_unsent(&verification->io) == 0) {
		verification_free(verification);
	}
}

/* Its place is another's from here: ldap_destroy writes an unbind, which has a moment to leave. */
static void leave(struct verification *verification)
{
	struct directory *directory = verification->directory;
	static const struct timeval FAREWELL = { FAREWELL_MS / 1000, FAREWELL_MS % 1000 * 1000 };
	LDAP *ldap = verification->ldap;
	verification->ldap = NULL;
	verification->leaving = true;
	bufferevent_disable(verification->bufferevent, EV_READ);
	ldap_destroy(ldap);
	verification->timer = evtimer_new(directory->base, on_farewell_timeout, verification);
	bool timed = verification->timer != NULL && evtimer_add(verification->timer, &FAREWELL) == 0;
	directory->verifying--;
	start_waiting(directory);
	if (!timed) {
		verification_free(verification);
	}
}

static void write_as_user(struct verification *verification)
{
	struct change *change = verification->change;
	verification->stage = VERIFICATION_ACCEPTED;
	enum status wanted = change_still_wanted(change);
	if (wanted != STATUS_OK) {
		fail(verification, wanted);
		return;
	}
	int result = ldap_extended_operation(verification->ldap, change->extended, &change->request_value, change_controls(change), NULL, &verification->message_id);
	change_free(change);
	verification->change = NULL;
	if (result != LDAP_SUCCESS) {
		fail(verification, STATUS_DIRECTORY_UNAVAILABLE);
		return;
	}
	verification->stage = VERIFICATION_WRITTEN;
}

/* An answer to a write that cannot be read says nothing about the write. */
static void take_answer(struct verification *verification, LDAPMessage *message)
{
	char *diagnostic = NULL;
	struct reply reply = { .sent = true, .ldap = verification->ldap };
	if (ldap_parse_result(verification->ldap, message, &reply.ldap_result, NULL, &diagnostic, NULL, &reply.controls, 1) != LDAP_SUCCESS) {
		bool write = verification->stage == VERIFICATION_WRITTEN;
		reply.status = write ? STATUS_DIRECTORY_PROTOCOL : STATUS_OK;
		reply.ldap_result = write ? -1 : LDAP_PROTOCOL_ERROR;
	}
	reply.diagnostic = diagnostic;
	bool goes_on = verification->change != NULL && reply.ldap_result == LDAP_SUCCESS;
	if (!goes_on) {
		finish(verification, &reply);
	}
	ldap_controls_free(reply.controls);
	ldap_memfree(diagnostic);
	if (goes_on) {
		write_as_user(verification);
	} else {
		leave(verification);
	}
}

static void on_read(struct bufferevent *bufferevent, void *arg)
{
	struct verification *verification = arg;
	LDAPMessage *message;
	size_t size;
	while (verification->ldap != NULL) {
		if (ldap_io_receive(&verification->io, verification->ldap, &message, &size) != STATUS_OK) {
			fail(verification, STATUS_DIRECTORY_PROTOCOL);
			return;
		}
		if (message == NULL) {
			return;
		}
		if (ldap_msgid(message) == verification->message_id) {
			take_answer(verification, message);
			return;
		}
		ldap_msgfree(message);
	}
}

static void bind_as_user(struct verification *verification)
{
	struct berval password = { verification->password.size, (char *)verification->password.data };
	enum status wanted = change_still_wanted(verification->change);
	if (wanted != STATUS_OK) {
		fail(verification, wanted);
		return;
	}
	verification->io = (struct ldap_io){ .bufferevent = verification->bufferevent };
	if (ldap_io_open(&verification->io, &verification->ldap) != STATUS_OK) {
		fail(verification, STATUS_AGENT_INTERNAL);
		return;
	}
	LDAPControl **controls = (LDAPControl **)verification->directory->flavor->bind_controls;
	int result = ldap_sasl_bind(verification->ldap, verification->dn, LDAP_SASL_SIMPLE, &password, controls, NULL, &verification->message_id);
	secret_wipe(&verification->password);
	if (result == LDAP_SUCCESS) {
		verification->stage = VERIFICATION_TRIED;
	} else {
		fail(verification, STATUS_DIRECTORY_UNAVAILABLE);
	}
}

static void on_event(struct bufferevent *bufferevent, short what, void *arg)
{
	struct verification *verification = arg;
	if ((what & BEV_EVENT_CONNECTED) != 0) {
		bind_as_user(verification);
	} else if (verification->leaving) {
		verification_free(verification);
	} else if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) != 0) {
		/* The agent's own connection to this address stands: whatever went wrong with this one is not the certificate's fault. */
		fail(verification, STATUS_DIRECTORY_UNAVAILABLE);
	}
}

/* STATUS_OK: it is on its way, and may even have ended. */
static enum status begin(struct verification *verification)
{
	struct directory *directory = verification->directory;
	SSL *ssl = NULL;
	int one = 1;
	if (tls_client_new(directory->tls, verification->host, &ssl) != STATUS_OK) {
		return STATUS_AGENT_INTERNAL;
	}
	/* Where the agent itself binds by a certificate the context shows it: a server may then take the bind for the agent's (389: nsslapd-force-sasl-external), and any password for right. */
	SSL_certs_clear(ssl);
	verification->bufferevent = bufferevent_openssl_socket_new(directory->base, -1, ssl, BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (verification->bufferevent == NULL) {
		SSL_free(ssl);
		return STATUS_AGENT_INTERNAL;
	}
	directory->verifying++;
	verification->stage = VERIFICATION_CONNECTS;
	bufferevent_setcb(verification->bufferevent, on_read, on_written, on_event, verification);
	bufferevent_enable(verification->bufferevent, EV_READ | EV_WRITE);
	if (bufferevent_socket_connect(verification->bufferevent, (struct sockaddr *)&verification->address, (int)verification->address_size) != 0) {
		return STATUS_DIRECTORY_UNAVAILABLE;
	}
	setsockopt(bufferevent_getfd(verification->bufferevent), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return STATUS_OK;
}

static struct verification *first_waiting(const struct directory *directory)
{
	struct verification *verification;
	TAILQ_FOREACH(verification, &directory->verifications, link) {
		if (verification->bufferevent == NULL) {
			return verification;
		}
	}
	return NULL;
}

static void start_waiting(struct directory *directory)
{
	struct verification *next;
	while (!directory->closing && directory->verifying < VERIFICATIONS_MAX && (next = first_waiting(directory)) != NULL) {
		enum status status = begin(next);
		if (status != STATUS_OK) {
			fail(next, status);
		}
	}
}

static unsigned count_waiting(const struct directory *directory)
{
	const struct verification *verification;
	unsigned count = 0;
	TAILQ_FOREACH(verification, &directory->verifications, link) {
		count += verification->bufferevent == NULL;
	}
	return count;
}

enum status verification_start(struct directory *directory, const struct connection *at, const char *dn, struct bytes password, struct change *take_change,
                               verification_done done, void *arg, struct verification **ret_verification)
{
	bool room = count_waiting(directory) < directory->settings->queue_limit;
	struct verification *verification = room ? calloc(1, sizeof *verification) : NULL;
	if (verification == NULL) {
		change_free(take_change);
		return room ? STATUS_AGENT_INTERNAL : STATUS_AGENT_OVERLOADED;
	}
	*verification = (struct verification){ .directory = directory, .host = strdup(at->host), .dn = strdup(dn), .address = at->addresses.items[at->address],
		.address_size = at->addresses.sizes[at->address], .change = take_change, .done = done, .arg = arg };
	TAILQ_INSERT_TAIL(&directory->verifications, verification, link);
	enum status status = verification->host != NULL && verification->dn != NULL ? secret_from(password, &verification->password) : STATUS_AGENT_INTERNAL;
	if (status == STATUS_OK && directory->verifying < VERIFICATIONS_MAX) {
		status = begin(verification);
	}
	if (status != STATUS_OK) {
		verification_free(verification);
		return status;
	}
	*ret_verification = verification;
	return STATUS_OK;
}

void verification_cancel(struct verification *verification)
{
	if (verification != NULL) {
		verification_free(verification);
	}
}

enum verification_stage verification_stage(const struct verification *verification)
{
	return verification->stage;
}

void verifications_end(struct directory *directory)
{
	struct verification *verification;
	while ((verification = TAILQ_FIRST(&directory->verifications)) != NULL) {
		verification->done = NULL;
		verification_free(verification);
	}
}
